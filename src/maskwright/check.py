"""Say what is in a dataset, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.contact import contact_sheet
from maskwright.dataset import SPLITS, Dataset
from maskwright.edges import looks_inverted
from maskwright.errors import UserError
from maskwright.facts import (
    CategoryFacts,
    Example,
    Facts,
    Finding,
    SplitView,
    near,
    specks_of,
    split_facts,
)
from maskwright.files import refuse_existing
from maskwright.findings import SAME_IOU, Notes, sorted_findings
from maskwright.mend import mend
from maskwright.prepare import story_of
from maskwright.rarity import rarities
from maskwright.settings import CheckSettings
from maskwright.suspects import photo_findings

WORKING_PX = 640
"""The longer side that photos are made for the network, where they are larger: the most that a plan takes on a CPU, so
that what is too small at it is too small in any run there."""

BOXES_LEAST, BOXES_SHARE = 20, 0.02
"""So many exact rectangles, and such a share of the masks, are no chance."""

__all__ = ["Example", "Facts", "Finding", "check", "facts_of"]


def check(
    data: str | Path,
    *,
    html: str | Path | None = None,
    fix: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Facts:
    """Say what is in a prepared data folder and everything that is wrong with it.

    Every photo is decoded once, so that a file that is cut off is found here and not in the middle of training.

    Args:
        data: A folder with `annotations/instances_{train,val,test}.json` and the photos in `train/ val/ test/`.
        html: Write a page of pictures of what is said, see `contact_sheet`; also where there are errors.
        fix: Mend first what can be mended without a decision, see `mend`; the facts are those afterwards.
        overwrite: Replace `html` if it exists.
        say: Called with what was mended, then with the table of facts, then with each warning, then with each note.
        **settings: See `CheckSettings`.

    Returns:
        The facts; the warnings and notes are in `problems`, each with examples that a picture can show.

    Raises:
        UserError: After the facts are said, with every error: training would be pointless (no object, no train split, a
            category without an object in train) or would stop (photos or masks that cannot be used). Before any work,
            if there is no dataset, or `html` exists.
    """
    chosen = CheckSettings.parse(settings)
    data = Path(data)
    tell = say or (lambda _text: None)
    if html is not None:
        refuse_existing(Path(html), overwrite=overwrite)
    facts = _all_of(data, chosen)
    if fix:
        if any(finding.code == "unreadable-split" for finding in facts.problems):
            tell("nothing is mended while a split cannot be read")
        elif any(item.count for item in mend(data, facts, say=tell)):
            facts = _all_of(data, chosen)
    tell(facts.table())
    for warning in facts.warnings:
        tell(f"warning: {warning}")
    for note in facts.notes:
        tell(f"note: {note}")
    if html is not None:
        contact_sheet(facts, data, html, overwrite=overwrite, say=tell)
    if facts.errors:
        raise UserError(facts.errors)
    if not facts.problems:
        tell("nothing is wrong with it")
    return facts


def check_again(data: Path, left_out: Collection[str]) -> Facts:
    """Check data that a training goes on with, but for the photos that it does without.

    Args:
        data: As `check`.
        left_out: Photos (`split/file_name`) whose files are not looked at: they may be gone.

    Raises:
        UserError: As `check`.
    """
    facts = _all_of(data, CheckSettings(), left_out)
    if facts.errors:
        raise UserError(facts.errors)
    return facts


def _all_of(data: Path, settings: CheckSettings, left_out: Collection[str] = ()) -> Facts:
    """Return the facts of a data folder with everything that is wrong with it, photos included."""
    splits, unread = {}, []
    for split in SPLITS:
        try:
            dataset = Dataset.read_split(data, split)
        except UserError as error:
            unread += [Finding(code="unreadable-split", severity="error", problem=p, count=1) for p in error.problems]
            continue
        if dataset is not None:
            splits[split] = dataset
    if not splits and not unread:
        raise UserError(
            "the folder has no dataset: annotations/instances_train.json is not there",
            [str(data)],
            "make one from photos and masks: maskwright prepare RAW -o DATA",
        )
    facts = facts_of(splits, settings)
    kept = [f for f in facts.problems if not (unread and f.code in _NEEDS_ALL_SPLITS)]
    views = {name: SplitView(name, dataset) for name, dataset in splits.items()}
    found = [*photo_findings(views, left_out), *_soft_masks(data, views)]
    return facts.model_copy(update={"problems": sorted_findings([*unread, *kept, *found])})


def _soft_masks(data: Path, views: Mapping[str, SplitView]) -> tuple[Finding, ...]:
    """Find what `prepare` saw and the annotation files no longer show: mask images whose area depends on the cut."""
    notes = Notes()
    try:
        told = story_of(data)["soft masks"]
        count = int(told["count"])
        shares = {str(e["photo"]): (float(e["below half"]), str(e["mask"])) for e in told["examples"]}
    except (KeyError, TypeError, ValueError):  # of another version, or changed by someone
        return ()
    for name, view in views.items():
        for i, image in enumerate(view.d.images):
            if (found := shares.get(f"{name}/{image.file_name}")) is None:
                continue
            share, mask = found
            told = f"{share:.0%} of {mask}"
            ids = tuple(view.d.ids[view.first[i] : view.first[i + 1]].tolist())
            notes.add("soft-masks", [f"{view.photo(image)}: {told}"], 0, share)
            notes.show("soft-masks", Example(split=name, photo=image.file_name, annotations=ids, note=told), share)
    more = f"(all {count:,}: `below half` in {data / 'prepare.json'})"
    notes.add("soft-masks", [more] if count > len(shares) else [], count, -1.0)
    return notes.findings()


_NEEDS_ALL_SPLITS = frozenset({"no-train", "no-objects", "no-val", "category-not-in-train", "category-in-one-split"})
"""What cannot be told when a split could not be read."""


def facts_of(splits: Mapping[str, Dataset], settings: CheckSettings | None = None) -> Facts:
    """Return the facts of datasets in memory, with the problems that show without opening a photo.

    Args:
        splits: By split name; `train` is the one that is learned from.
        settings: Limits; the defaults if not given.
    """
    settings = settings or CheckSettings()
    views = {name: SplitView(name, dataset) for name, dataset in splits.items()}
    names: dict[int, str] = {}
    for dataset in splits.values():
        for category in dataset.categories:
            names.setdefault(category.id, category.name)
    counts = {name: Counter(view.d.category_ids[view.objects].tolist()) for name, view in views.items()}
    rare = {n: dict(zip((c.id for c in d.categories), rarities(d), strict=True)) for n, d in splits.items()}
    categories = tuple(
        CategoryFacts(
            id=i,
            name=names[i],
            objects={split: counts[split].get(i, 0) for split in splits},
            photos={split: rare[split][i].photos for split in splits if i in rare[split]},
            rarest={split: rare[split][i].rarest for split in splits if i in rare[split]},
        )
        for i in sorted(names)
    )
    facts = Facts(splits={name: split_facts(view) for name, view in views.items()}, categories=categories)
    notes = Notes()
    _note_wholes(facts, splits, notes)
    _note_categories(facts, notes)
    _note_objects(views, notes)
    _note_sizes(views, settings, notes)
    return facts.model_copy(update={"problems": notes.findings()})


def _note_wholes(facts: Facts, splits: Mapping[str, Dataset], notes: Notes) -> None:
    """Find what is wrong with the splits as wholes."""
    train = facts.splits.get("train")
    if train is None:
        notes.add("no-train", [], 1)
    elif not train.objects:
        notes.add("no-objects", [f"train: photos {train.photos:,}, objects 0"], 1)
    else:
        for c in facts.categories:
            if not c.objects["train"]:
                notes.add("category-not-in-train", [f"{c.name}: " + _join(f"{n} in {s}" for s, n in c.objects.items())])
    if "val" not in facts.splits:
        notes.add("no-val", [], 1)
    empty = [
        f"{name}: photos {s.photos:,}, objects 0"
        for name, s in facts.splits.items()
        if name != "train" and not s.objects
    ]
    notes.add("no-objects-to-score", empty)
    by_id: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    by_name: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, dataset in splits.items():
        for category in dataset.categories:
            by_id[category.id][category.name].append(split)
            by_name[category.name][category.id].append(split)
    for i, names in by_id.items():
        if len(names) > 1:
            told = _join(f"'{name}' in {' and '.join(s)}" for name, s in names.items())
            notes.add("categories-differ", [f"category id {i} is {told}"])
    for name, ids in by_name.items():
        if len(ids) > 1:
            told = _join(f"id {i} in {' and '.join(s)}" for i, s in ids.items())
            notes.add("categories-differ", [f"category '{name}' has {told}"])


def _note_categories(facts: Facts, notes: Notes) -> None:
    """Find categories that are not scored, and names that may mean one thing."""
    scored = [name for name, s in facts.splits.items() if name != "train" and s.objects]
    for c in facts.categories:
        if scored and c.objects.get("train") and not any(c.objects[name] for name in scored):
            notes.add("category-in-one-split", [f"{c.name}: " + _join(f"{n} in {s}" for s, n in c.objects.items())])
    for a, b in combinations(facts.categories, 2):
        if a.name != b.name and (why := _nearly(a.name, b.name)):
            counts = f"{sum(a.objects.values()):,} and {sum(b.objects.values()):,} objects"
            notes.add("near-categories", [f"'{a.name}' and '{b.name}': {why}; {counts}"])


def _nearly(a: str, b: str) -> str:
    """Say in which small way two names differ; empty if they are just different names.

    Example:
        >>> _nearly("Hammer", "hammer "), _nearly("bolt 1", "bolt 2"), _nearly("screwdriver", "screwdrivr")
        ('case or spaces', '', '1 letter')
    """
    plain = [" ".join(name.casefold().replace("_", " ").replace("-", " ").split()) for name in (a, b)]
    if plain[0].replace(" ", "") == plain[1].replace(" ", ""):
        return "case or spaces"
    short, long = sorted(plain, key=len)
    endings = {short + "s", short + "es", short[:-1] + "ies" if short.endswith("y") else short + "s"}
    if len(short) > 2 and long in endings:
        return "singular and plural"
    # Numbered and lettered names differ on purpose, and so do short words; a typing mistake seldom hits the first
    # letter.
    if any(c.isdigit() for c in a + b) or len(short) < 5 or short[0] != long[0]:
        return ""
    words = [name.split() for name in plain]
    if len(words[0]) == len(words[1]) and any(x != y and min(len(x), len(y)) < 4 for x, y in zip(*words, strict=True)):
        return ""
    letters = _letters_apart(*plain)
    if len(short) == len(long) == 5 and sorted(short) != sorted(long):
        return ""  # house and horse, glass and grass
    if letters <= (2 if len(short) >= 9 else 1):
        return f"{letters} letter" + ("s" if letters > 1 else "")
    return ""


def _letters_apart(a: str, b: str) -> int:
    """Count the letters to change, add, drop or swap with their neighbour to turn one name into the other."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            best = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, table[i - 2, j - 2] + 1)
            table[i, j] = best
    return table[len(a), len(b)]


def _join(items: Iterable[str]) -> str:
    return ", ".join(items)


def _note_objects(views: Mapping[str, SplitView], notes: Notes) -> None:
    """Find what is wrong with ids, masks, areas and boxes."""
    for view in views.values():
        _note_objects_of(view, notes)


def _note_objects_of(view: SplitView, notes: Notes) -> None:
    d, tell, areas = view.d, _Teller(view), view.areas
    masked = np.zeros(len(d), dtype=np.bool_)
    masked[view.with_mask] = True
    truth = ~d.crowd
    photo_areas = np.prod(view.photo_sizes, axis=1)
    notes.add("id-below-1", [f"{view.photo(i)}: image id {i.id}" for i in d.images if i.id < 1])
    notes.add("id-below-1", [f"{view.name}: category '{c.name}' has id {c.id}" for c in d.categories if c.id < 1])
    notes.objects("id-below-1", view, d.ids < 1, tell.plain)
    _, inverse, repeats = np.unique(d.ids, return_inverse=True, return_counts=True)
    notes.objects("id-twice", view, repeats[inverse] > 1, tell.plain)
    names = Counter(image.file_name for image in d.images)
    for name, n in names.items():
        if n > 1:
            notes.add("photo-listed-twice", [f"{view.name}/{name}: {n} times"])
            notes.show("photo-listed-twice", Example(split=view.name, photo=name, note=f"listed {n} times"), n)
    notes.objects("no-mask", view, ~masked & truth, tell.plain)
    notes.objects("empty-mask", view, masked & (areas == 0), tell.plain)
    # COCO states the area and box of the polygon; its pixels may differ from them by the rounding of its edge.
    wrong = np.abs(d.areas - areas)
    notes.objects("area-wrong", view, masked & (wrong > 10 + 0.05 * areas), tell.area, wrong)
    off = np.abs(d.boxes - view.boxes).max(axis=1, initial=0)
    notes.objects("box-wrong", view, masked & (areas > 0) & (off > 1.5), tell.box, off)
    specks = specks_of(areas, areas / np.maximum(photo_areas, 1)) & masked & truth
    notes.objects("speck", view, specks, tell.pixels, -areas)
    whole = masked & truth & (areas == photo_areas)
    notes.objects("covers-all", view, whole, tell.pixels)
    large = masked & truth & (areas >= 0.5 * photo_areas) & ~whole
    for k in np.flatnonzero(large).tolist():  # few, and only these are decoded
        large[k] = looks_inverted(d.mask(k))
    notes.objects("looks-inverted", view, large, tell.pixels, areas)
    notes.objects("crowd", view, d.crowd, tell.plain)
    same, other = _repeats(view)
    notes.objects("same-object-twice", view, same >= 0, lambda k: _again(view, k, same), beside=same)
    notes.objects("object-in-two-categories", view, other >= 0, lambda k: _again(view, k, other), beside=other)


def _again(view: SplitView, k: int, first: NDArray[np.int64]) -> str:
    tell, of = _Teller(view), int(first[k])
    same = view.d.category_ids[k] == view.d.category_ids[of]
    return tell.plain(k) + ("" if same else f", is also {tell.plain(of)}")


def _note_sizes(views: Mapping[str, SplitView], settings: CheckSettings, notes: Notes) -> None:
    """Find objects too small and photos too full for the network, and rectangles in place of outlines."""
    boxy = {name: _note_sizes_of(view, settings, notes) for name, view in views.items()}
    total = sum(len(view.objects) for view in views.values())
    found = sum(int(b.sum()) for b in boxy.values())
    if found >= BOXES_LEAST and found >= BOXES_SHARE * total:
        for name, view in views.items():
            notes.objects("boxes-for-masks", view, boxy[name], _Teller(view).pixels)


def _note_sizes_of(view: SplitView, settings: CheckSettings, notes: Notes) -> NDArray[np.bool_]:
    """Note objects too small and photos too full; return, `(M,)`, which masks are exact rectangles."""
    d, tell, areas = view.d, _Teller(view), view.areas
    truth = ~d.crowd & (areas > 0)
    longer = view.photo_sizes.max(axis=1, initial=1)
    sides = np.sqrt(areas) * np.minimum(1.0, WORKING_PX / longer)
    tiny = truth & (sides < settings.stride) & ~specks_of(areas, areas / np.prod(view.photo_sizes, axis=1))
    notes.objects(
        "under-stride",
        view,
        tiny,
        lambda k: (
            f"{tell.pixels(k)}, {sides[k]:.1f} pixels a side at a working size of {WORKING_PX};"
            f" a step is {settings.stride}"
        ),
        -sides,
    )
    per_photo = np.bincount(d.image_index[view.objects], minlength=len(d.images))
    for i in np.flatnonzero(per_photo > settings.detections).tolist():
        told = f"{per_photo[i]:,} objects, the limit is {settings.detections:,}"
        notes.add("crowded-photo", [f"{view.photo(d.images[i])}: {told}"], 1, float(per_photo[i]))
        shown = Example(split=view.name, photo=d.images[i].file_name, note=told)
        notes.show("crowded-photo", shown, float(per_photo[i]))
    full = areas == np.prod(view.boxes[:, 2:] - view.boxes[:, :2], axis=1)
    return np.asarray(truth & (areas >= 64) & full)


@dataclass(frozen=True)
class _Teller:
    """How one object is described in a line of a problem."""

    view: SplitView

    def plain(self, k: int) -> str:
        return f"{self.view.names[int(self.view.d.category_ids[k])]}, annotation {self.view.d.ids[k]}"

    def pixels(self, k: int) -> str:
        return f"{self.plain(k)}, {self.view.areas[k]:,.0f} pixels"

    def area(self, k: int) -> str:
        return f"{self.plain(k)}, area {self.view.d.areas[k]:.10g}, the mask has {self.view.areas[k]:.0f} pixels"

    def box(self, k: int) -> str:
        stated, true = (_xywh(boxes[k]) for boxes in (self.view.d.boxes, self.view.boxes))
        return f"{self.plain(k)}, bbox {stated}, the mask's is {true}"


def _xywh(box: NDArray[np.float64]) -> str:
    x1, y1, x2, y2 = box.tolist()
    return f"[{x1:.10g}, {y1:.10g}, {x2 - x1:.10g}, {y2 - y1:.10g}]"


def _repeats(view: SplitView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, `(M,)` int64 each, which earlier object of its photo an object repeats; -1: none.

    The first are repeats of an object of the same category, the second of another.
    """
    same, other = np.full((2, len(view.d)), -1, dtype=np.int64)
    for ks in view.photos():
        if len(ks) < 2:
            continue
        for a, b in near(view.boxes[ks]):
            first, second = sorted((int(ks[a]), int(ks[b])))
            small, large = sorted((view.areas[first], view.areas[second]))
            if (
                small > SAME_IOU * large  # IoU is at most the ratio of the areas
                and (rles := [view.d.rle(first), view.d.rle(second)])
                and all(rles)
                and pixels.iou(rles[:1], rles[1:], view.d.size_of(first))[0, 0] > SAME_IOU
            ):
                kind = same if view.d.category_ids[first] == view.d.category_ids[second] else other
                kind[second] = first
    return same, other
