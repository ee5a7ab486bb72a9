"""Mend in a data folder what can be mended without asking anyone, and say for all the rest why not.

Only annotation files are changed. What they were stays beside them (`instances_train.json.before-fix`), everything in
them that has nothing to do with a mend stays as it was written (polygons, attributes of other tools), and photos are
never touched.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.dataset import SPLITS, Dataset, collector_paused, read_json
from maskwright.errors import UserError
from maskwright.facts import Facts, SplitView, near
from maskwright.files import UnreadableImage, atomic_file, link_or_copy, read_grey, sha256
from maskwright.findings import SAME_IOU, number
from maskwright.shards import split_files

KEPT_IN = ("test", "val", "train")
"""A photo that stands in several splits is kept in the first of these: scores stay comparable with earlier ones, and
train has the most photos, so that one less costs least there."""

MOST_LOST = 0.5
"""If more than this share of a split's photos are copies, the split is a copy, and which one to give up is not ours to
say."""

SAFE: dict[str, str] = {
    "photo-listed-twice": "{n} {photo|photos} listed more than once: the entries were made one, with all objects",
    "empty-mask": "{n} {object|objects} without a pixel removed",
    "same-object-twice": (
        f"{{n}} {{repeat of an object|repeats of objects}} removed (same category, IoU over {SAME_IOU}): the first is"
        " kept"
    ),
    "photo-leak": (
        "{n} {entry of a photo|entries of photos} removed that another split has byte by byte, with the same objects:"
        " kept in test before val before train, but train keeps its last objects of a category"
    ),
    "area-wrong": "{n} {area|areas} computed from the mask",
    "box-wrong": "{n} {bbox|bboxes} computed from the mask",
    "id-below-1": "{n} {id|ids} below 1 numbered anew, above the highest; results made before name the old ones",
    "id-twice": "{n} annotation {id|ids} numbered anew, above the highest: the first of each keeps its own",
    "categories-differ": "{n} category {name|names} written as in the first split (only case or spaces differed)",
}
"""What is mended, and what is then said."""

UNSAFE: dict[str, str] = {
    "unreadable-split": "what cannot be read cannot be mended",
    "no-train": "only you can choose photos to learn from",
    "no-objects": "only you can draw the objects",
    "category-not-in-train": "photos of it may be missing, or the category be unwanted: only you know",
    "photo-outside": "the right name of the photo cannot be told",
    "photo-missing": "the photos may only have been left behind: their objects are not thrown away",
    "photo-unreadable": "the photos can perhaps be copied again: their objects are not thrown away",
    "photo-size": "masks of another size may be scaled, turned or of another photo",
    "no-mask": "a mask cannot be made from a box, and the object is there: without it, a find counts as false alarm",
    "no-val": "which photos to hold back is chosen when the splits are made",
    "no-objects-to-score": "only you can choose photos to score",
    "blank-photo": "whether the photo or the export failed must be looked at",
    "near-leak": (
        "which of two alike photos to give up is a choice; new splits in which they stay together: maskwright prepare"
        " DATA -o NEW --resplit"
    ),
    "exif-one-side": "photos are never touched, and masks are not turned on the strength of a measurement",
    "masks-turned": "masks are not turned on the strength of a measurement",
    "masks-shifted": "masks are not moved on the strength of a measurement: the export that moved them would again",
    "looks-inverted": "an object may well surround something: it must be looked at",
    "boxes-for-masks": "the outlines must be drawn",
    "coarse-masks": "the detail is not in the file",
    "object-in-two-categories": "which category is right only you know",
    "near-categories": "they have ids of their own: whether they mean one thing only you know",
    "category-in-one-split": "only you can choose photos to score",
    "speck": "a small object may be a real one, far away: it must be looked at",
    "covers-all": "an object may fill the photo: it must be looked at",
    "under-stride": "nothing in the file is wrong: it is a matter of scale",
    "crowded-photo": "nothing in the file is wrong: it is a matter of scale",
    "style-differs": "the masks of one split must be drawn again",
    "photo-twice": "a photo may be repeated on purpose, and whose objects are right cannot be told",
    "near-photos": "frames of one scene are fine within a split",
    "not-compared": "nothing in the file is wrong: the search was cut short",
    "soft-masks": "whether the pixels that were cut off are object must be looked at, in the mask images",
    "exif-unsure": "the masks must be looked at over the photos",
    "crowd": "whether it is a group or one object with holes must be looked at",
}
"""What is not mended, and why."""

_TWO_SIZES = "the entries of one photo state different sizes, and to which the masks belong cannot be told"
_ONE_SET_TWICE = "more than half of a split would go: they are one set of photos twice; choose new photos for one"
_OTHER_OBJECTS = "the objects of the copies differ, and whose are right cannot be told"
_OTHER_NAMES = "names that differ by more than case and spaces, or ids that do: which are right only you know"


@dataclass(frozen=True)
class Mended:
    """What became of one finding.

    Attributes:
        code: Of the finding.
        count: How many offenders were mended.
        did: What was done to them, in a sentence; empty if nothing.
        where: One line per offender.
        left: How many were not mended.
        why: Why not; empty if none is left.
    """

    code: str
    count: int = 0
    did: str = ""
    where: tuple[str, ...] = ()
    left: int = 0
    why: str = ""


def mend(data: str | Path, facts: Facts, *, say: Callable[[str], None] | None = None) -> tuple[Mended, ...]:
    """Mend the annotation files of a data folder, in place, where nothing has to be decided.

    An annotation file is replaced whole or not at all; before that, it is kept beside as `NAME.json.before-fix` (or, if
    there is one from before, `.before-fix-2` and so on). Sharded files are mended shard by shard. A second call finds
    nothing to do.

    Args:
        data: A folder with `annotations/instances_{train,val,test}.json`, or shards of them, and the photos.
        facts: What `check` found there.
        say: Called with one text per finding, mended or not, and one per file replaced.

    Returns:
        One entry per finding that was mended, and per finding of `facts` that was not, in whole or in part.

    Raises:
        UserError: If an annotation file cannot be read or replaced. Files replaced before that one stay replaced.
    """
    data = Path(data)
    tell = say or (lambda _text: None)
    found = {finding.code: finding.count for finding in facts.problems}
    parts = [part for split in SPLITS if (part := _Part.read(data, split)) is not None]
    log = _Log()
    with collector_paused():
        for part in parts:
            part.merge_photos(log)
            part.drop_empty(log)
            part.drop_repeats(log)
        if "photo-leak" in found:  # the one mend that must read photos
            _part_copies(parts, log)
        for part in parts:
            part.measure(log)
        _number_anew(parts, log)
        _spell_alike(parts, log)
        kept = [line for part in parts for line in part.write()]
    mended = log.mended(found)
    for item in mended:
        if item.count:
            tell("\n".join([f"mended {item.code}: {item.did}", *_shown(item.where)]))
        if item.left:
            tell(f"left {item.code} ({item.left:,}): {item.why}")
    for line in kept:
        tell(line)
    if not kept:
        tell("nothing was changed")
    return mended


def _shown(where: Sequence[str], most: int = 5) -> list[str]:
    lines = [f"  {line}" for line in where[:most]]
    return lines + ([f"  ... and {len(where) - most:,} more"] if len(where) > most else [])


class _Log:
    """Collects what was done and what was not."""

    def __init__(self) -> None:
        self.done: dict[str, list[str]] = defaultdict(list)
        self.left: Counter[str] = Counter()
        self._why: dict[str, dict[str, None]] = defaultdict(dict)

    def leave(self, code: str, why: str, count: int = 1) -> None:
        self.left[code] += count
        self._why[code][why] = None

    def why(self, code: str) -> str:
        return "; ".join(self._why[code])

    def mended(self, found: dict[str, int]) -> tuple[Mended, ...]:
        items = []
        for code, did in SAFE.items():
            if n := len(self.done[code]):
                left = self.left[code]
                items.append(Mended(code, n, number(did, n), tuple(self.done[code]), left, self.why(code)))
            elif self.left[code]:
                items.append(Mended(code, left=found.get(code, self.left[code]), why=self.why(code)))
        items += [Mended(code, left=n, why=UNSAFE[code]) for code, n in found.items() if code in UNSAFE]
        return tuple(items)


@dataclass
class _Part:
    """A split in work: its files as they are, what they say as a dataset, and what is to become of every entry.

    Attributes:
        view: The split as read.
        paths: Its file, or its shards.
        documents: Their content.
        images: Every photo's entry, in the order of the dataset.
        rows: Every object's entry, in the order of the dataset.
        home: Which file a photo's entry is in.
        owner: `(M,)` the photo that an object belongs to; changes where entries of one photo are merged.
        photo_stays, stays: Which photos and objects are kept.
        photo_ids, ids: What they are numbered.
        fresh: Objects whose area and bbox are to be computed.
        categories: What category ids become.
        names: What the categories of these ids are called.
    """

    view: SplitView
    paths: list[Path]
    documents: list[dict[str, Any]]
    images: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    home: NDArray[np.int64]
    owner: NDArray[np.int64]
    photo_stays: NDArray[np.bool_]
    stays: NDArray[np.bool_]
    photo_ids: NDArray[np.int64]
    ids: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    categories: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @staticmethod
    def read(data: Path, split: str) -> _Part | None:
        """Read a split; `None` if there is none."""
        d = Dataset.read_split(data, split)
        if d is None:
            return None
        paths = split_files(data, split)
        documents = [read_json(path) for path in paths]
        images = [item for document in documents for item in document["images"]]
        rows = [item for document in documents for item in document.get("annotations") or ()]
        position = {int(item["id"]): i for i, item in enumerate(images)}
        owner = np.array([position[int(item["image_id"])] for item in rows], dtype=np.int64)
        order = np.argsort(owner, kind="stable")  # the order of a Dataset, see there
        assert np.array_equal(owner[order], d.image_index)
        return _Part(
            view=SplitView(split, d),
            paths=paths,
            documents=documents,
            images=images,
            rows=[rows[k] for k in order.tolist()],
            home=np.repeat(np.arange(len(documents)), [len(document["images"]) for document in documents]),
            owner=owner[order],
            photo_stays=np.ones(len(images), dtype=np.bool_),
            stays=np.ones(len(d), dtype=np.bool_),
            photo_ids=np.array([image.id for image in d.images], dtype=np.int64),
            ids=d.ids.copy(),
            fresh=np.zeros(len(d), dtype=np.bool_),
        )

    def photo(self, i: int) -> str:
        return self.view.photo(self.view.d.images[i])

    def object(self, k: int) -> str:
        d = self.view.d
        return f"{self.photo(int(self.owner[k]))}: {self.view.names[int(d.category_ids[k])]}, annotation {d.ids[k]}"

    def drawn(self, photos: Collection[int]) -> dict[int, set[tuple[int, str, bool, bytes]]]:
        """Return of each of these photos its objects: category, crowd or not, and mask; or the box if there is none."""
        d, found = self.view.d, {i: set[tuple[int, str, bool, bytes]]() for i in photos}
        for k in np.flatnonzero(self.stays & np.isin(self.owner, list(photos))).tolist():
            category = int(d.category_ids[k])
            name = _plain(self.view.names[category])
            found[int(self.owner[k])].add((category, name, bool(d.crowd[k]), d.rle(k) or d.boxes[k].tobytes()))
        return found

    def merge_photos(self, log: _Log) -> None:
        """Make the entries of one photo one."""
        by_name: dict[str, list[int]] = defaultdict(list)
        for i, image in enumerate(self.view.d.images):
            by_name[image.file_name].append(i)
        target = np.arange(len(self.images))
        for members in by_name.values():
            if len(members) == 1:
                continue
            if len({self.view.d.images[i].size for i in members}) > 1:
                log.leave("photo-listed-twice", _TWO_SIZES)
                continue
            target[members] = members[0]
            self.photo_stays[members[1:]] = False
            log.done["photo-listed-twice"].append(f"{self.photo(members[0])}: {len(members)} entries")
        self.owner = target[self.owner]

    def drop_empty(self, log: _Log) -> None:
        """Drop objects whose mask has no pixel."""
        empty = self.view.d.has_mask & (self.view.areas == 0)
        self.stays &= ~empty
        log.done["empty-mask"] += [self.object(k) for k in np.flatnonzero(empty).tolist()]

    def drop_repeats(self, log: _Log) -> None:
        """Drop what repeats an object that is kept."""
        view, d = self.view, self.view.d
        by_photo: dict[int, list[int]] = defaultdict(list)
        for k in np.flatnonzero(self.stays & ~d.crowd & d.has_mask).tolist():
            by_photo[int(self.owner[k])].append(k)
        for ks in by_photo.values():
            pairs = [sorted((ks[a], ks[b])) for a, b in near(view.boxes[ks])] if len(ks) > 1 else []
            for first, second in sorted(pairs):
                small, large = sorted((view.areas[first], view.areas[second]))
                if (
                    self.stays[first]
                    and self.stays[second]
                    and d.category_ids[first] == d.category_ids[second]
                    and small > SAME_IOU * large  # IoU is at most the ratio of the areas
                    and pixels.iou([d.rle(first)], [d.rle(second)], d.size_of(first))[0, 0] > SAME_IOU
                ):
                    self.stays[second] = False
                    log.done["same-object-twice"].append(f"{self.object(second)} repeats annotation {d.ids[first]}")

    def measure(self, log: _Log) -> None:
        """Choose the objects whose area or box is to be computed, by the rule of `check`."""
        view, d = self.view, self.view.d
        masked = self.stays & d.has_mask
        area = masked & (np.abs(d.areas - view.areas) > 10 + 0.05 * view.areas)
        box = masked & (np.abs(d.boxes - view.boxes).max(axis=1, initial=0) > 1.5)
        for k in np.flatnonzero(area).tolist():
            log.done["area-wrong"].append(f"{self.object(k)}: {d.areas[k]:.10g} is now {view.areas[k]:.0f}")
        log.done["box-wrong"] += [self.object(k) for k in np.flatnonzero(box).tolist()]
        self.fresh = area | box

    def write(self) -> list[str]:
        """Replace the files that change, and say where what they were is."""
        d, view = self.view.d, self.view
        images: dict[int, list[dict[str, Any]]] = defaultdict(list)
        rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for i in np.flatnonzero(self.photo_stays).tolist():
            number_now = int(self.photo_ids[i])
            new_id = {} if number_now == d.images[i].id else {"id": number_now}
            images[int(self.home[i])].append(self.images[i] | new_id)
        for k in self._in_file_order():
            i = int(self.owner[k])
            row = self.rows[k]
            changes: dict[str, Any] = {}
            if self.ids[k] != d.ids[k]:
                changes["id"] = int(self.ids[k])
            if int(row["image_id"]) != self.photo_ids[i]:
                changes["image_id"] = int(self.photo_ids[i])
            if (category := int(d.category_ids[k])) in self.categories:
                changes["category_id"] = self.categories[category]
            if self.fresh[k]:
                x1, y1, x2, y2 = (float(v) for v in view.boxes[k])
                changes |= {"area": int(view.areas[k]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            rows[int(self.home[i])].append(row | changes if changes else row)
        said = []
        for n, (path, document) in enumerate(zip(self.paths, self.documents, strict=True)):
            new = document | {"images": images[n]}
            if rows[n] or document.get("annotations") is not None:
                new["annotations"] = rows[n]
            if document.get("categories") is not None:
                new["categories"] = [self._category(item) for item in document["categories"]]
            if new == document:
                continue
            # Halves of characters, which text nobody looks at may have, stay as JSON's own escapes.
            text = json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
            kept = _kept_name(path)
            link_or_copy(path, kept)
            with atomic_file(path) as handle:
                handle.write(text)
            said.append(f"replaced: {path} (as it was: {kept.name})")
        return said

    def _in_file_order(self) -> Iterator[int]:
        """Yield the objects that stay in the order of their file, so that a file whose content stays is left alone."""
        place = {id(row): n for n, row in enumerate(r for doc in self.documents for r in doc.get("annotations") or ())}
        yield from sorted(np.flatnonzero(self.stays).tolist(), key=lambda k: place[id(self.rows[k])])

    def _category(self, item: dict[str, Any]) -> dict[str, Any]:
        old = int(item["id"])
        changes: dict[str, Any] = {"id": self.categories[old]} if old in self.categories else {}
        return item | changes | ({"name": self.names[old]} if old in self.names else {})


def _kept_name(path: Path) -> Path:
    first = path.with_name(f"{path.name}.before-fix")
    name, n = first, 1
    while name.exists() or name.is_symlink():
        n += 1
        name = path.with_name(f"{first.name}-{n}")
    return name


def _part_copies(parts: Sequence[_Part], log: _Log) -> None:
    """Keep each photo in one split: entries of byte-equal photos in the others are dropped with their objects."""
    kept = {part.view.name: part for part in parts}
    copies, differing = _agreeing(list(_copies(parts)), kept)
    if differing:
        log.leave("photo-leak", _OTHER_OBJECTS, differing)
    objects: dict[int, Counter[int]] = defaultdict(Counter)  # of train: photo -> categories
    left: Counter[int] = Counter()
    if "train" in kept:
        train = kept["train"]
        for k in np.flatnonzero(train.stays & ~train.view.d.crowd).tolist():
            category = int(train.view.d.category_ids[k])
            objects[int(train.owner[k])][category] += 1
            left[category] += 1
    doomed: list[tuple[str, int, str]] = []
    for group in copies:
        lost = sum((objects[i] for i in group.get("train", ())), Counter[int]())
        home = next(split for split in KEPT_IN if split in group)
        if home != "train" and any(left[category] <= n for category, n in lost.items()):
            home = "train"
        if home != "train":
            left -= lost
        stays = f"{kept[home].photo(group[home][0])} stays"
        doomed += [(split, i, stays) for split, members in group.items() if split != home for i in members]
    for split, n in Counter(split for split, _, _ in doomed).items():
        if n > MOST_LOST * int(kept[split].photo_stays.sum()):
            log.leave("photo-leak", _ONE_SET_TWICE, len(copies))
            return
    for split, i, stays in doomed:
        part = kept[split]
        part.photo_stays[i] = False
        part.stays &= part.owner != i
        log.done["photo-leak"].append(f"{part.photo(i)}: {stays}")


def _agreeing(
    copies: Sequence[dict[str, list[int]]], parts: Mapping[str, _Part]
) -> tuple[list[dict[str, list[int]]], int]:
    """Return the groups whose photos all have the same objects, and count the others."""
    members: dict[str, set[int]] = defaultdict(set)
    for group in copies:
        for split, photos in group.items():
            members[split].update(photos)
    drawn = {split: parts[split].drawn(photos) for split, photos in members.items()}
    agreeing = []
    for group in copies:
        first, *others = (drawn[split][i] for split, photos in group.items() for i in photos)
        if all(other == first for other in others):
            agreeing.append(group)
    return agreeing, len(copies) - len(agreeing)


def _copies(parts: Sequence[_Part]) -> Iterator[dict[str, list[int]]]:
    """Yield every group of byte-equal photos that stands in more than one split, as photo positions by split."""
    by_length: dict[int, list[tuple[_Part, int, Path]]] = defaultdict(list)
    for part in parts:
        for i in np.flatnonzero(part.photo_stays).tolist():
            try:
                path = part.view.d.photo_path(part.view.d.images[i])
                by_length[path.stat().st_size].append((part, i, path))
            except (UserError, OSError):
                continue  # a finding of its own, which is not mended
    for members in by_length.values():
        if len({part.view.name for part, _, _ in members}) < 2:
            continue
        by_content: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        damaged: set[str] = set()  # empty files are all equal, and no copies of one photo
        for part, i, path in members:
            content = sha256(path)
            if content not in by_content:
                try:
                    read_grey(path, 64)
                except UnreadableImage:
                    damaged.add(content)
            by_content[content][part.view.name].append(i)
        yield from (dict(group) for content, group in by_content.items() if len(group) > 1 and content not in damaged)


def _number_anew(parts: Sequence[_Part], log: _Log) -> None:
    """Give ids below 1, and annotation ids that another has, the next numbers above the highest of all splits."""
    if not parts:
        return
    free_photo = max([0, *(int(part.photo_ids.max(initial=0)) for part in parts)])
    free = max([0, *(int(part.ids.max(initial=0)) for part in parts)])
    categories = sorted({category.id for part in parts for category in part.view.d.categories})
    low = [old for old in categories if old < 1]
    renamed = {old: max([0, *categories]) + n for n, old in enumerate(low, start=1)}  # alike in every split
    for part in parts:
        d = part.view.d
        for i in np.flatnonzero(part.photo_stays & (part.photo_ids < 1)).tolist():
            free_photo += 1
            log.done["id-below-1"].append(f"{part.photo(i)}: image {part.photo_ids[i]} is now {free_photo}")
            part.photo_ids[i] = free_photo
        seen: set[int] = set()
        for k in np.flatnonzero(part.stays).tolist():
            old = int(part.ids[k])
            if old >= 1 and old not in seen:
                seen.add(old)
                continue
            free += 1
            code = "id-below-1" if old < 1 else "id-twice"
            log.done[code].append(f"{part.object(k)}, is now {free}")
            part.ids[k] = free
        for category in d.categories:
            if category.id in renamed:
                part.categories[category.id] = renamed[category.id]
                told = f"{part.view.name}: category '{category.name}' {category.id} is now {renamed[category.id]}"
                log.done["id-below-1"].append(told)


def _spell_alike(parts: Sequence[_Part], log: _Log) -> None:
    """Write the name of a category as in the first split where only case or spaces differ."""
    names: dict[int, str] = {}
    homes: dict[str, set[int]] = defaultdict(set)
    differ = 0
    for part in parts:
        others = {c.name: c.id for c in part.view.d.categories}
        for category in part.view.d.categories:
            wanted = names.setdefault(category.id, category.name)
            if category.name == wanted:
                continue
            if _plain(category.name) != _plain(wanted) or others.get(wanted, category.id) != category.id:
                differ += 1
                continue
            part.names[category.id] = wanted
            log.done["categories-differ"].append(f"{part.view.name}: '{category.name}' is now '{wanted}'")
    for part in parts:
        for category in part.view.d.categories:
            homes[part.names.get(category.id, category.name)].add(category.id)
    differ += sum(len(ids) > 1 for ids in homes.values())
    if differ:
        log.leave("categories-differ", _OTHER_NAMES, differ)


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()
