"""Say what is in a dataset, and everything that is wrong with it."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.dataset import SPLITS, Dataset, Image
from maskwright.errors import Problem, UserError
from maskwright.facts import (
    SPECK_PX,
    SPECK_SHARE,
    CategoryFacts,
    Facts,
    Finding,
    Severity,
    SplitView,
    near,
    specks_of,
    split_facts,
)
from maskwright.files import UnreadableImage, read_photo, sha256

SAME_IOU = 0.95
"""Two masks of one category and photo with more IoU than this are one object marked twice."""

__all__ = ["Facts", "Finding", "check", "facts_of"]


def check(data: str | Path, *, say: Callable[[str], None] | None = None) -> Facts:
    """Say what is in a prepared data folder and everything that is wrong with it.

    Every photo is decoded once, so that a file that is cut off is found here and not in the middle of training.

    Args:
        data: A folder with `annotations/instances_{train,val,test}.json` and the photos in `train/ val/ test/`.
        say: Called with the table of facts, then with each warning.

    Returns:
        The facts; the warnings are in `problems`.

    Raises:
        UserError: After the facts are said, with every error: training would be pointless (no object, no train split, a
            category without an object in train) or would stop (photos or masks that cannot be used).
    """
    data = Path(data)
    tell = say or (lambda _text: None)
    splits, unread = {}, []
    for split in SPLITS:
        try:
            dataset = Dataset.read_split(data, split)
        except UserError as error:
            unread += [Finding(code="unreadable-split", severity="error", problem=p) for p in error.problems]
            continue
        if dataset is not None:
            splits[split] = dataset
    if not splits and not unread:
        raise UserError(
            "the folder has no dataset: annotations/instances_train.json is not there",
            [str(data)],
            "make one from photos and masks: maskwright prepare RAW -o DATA",
        )
    facts = facts_of(splits)
    kept = [f for f in facts.problems if not (unread and f.code in {"no-train", "no-objects", "no-val"})]
    problems = (*unread, *kept, *_photo_findings(splits))
    facts = facts.model_copy(update={"problems": problems})
    tell(facts.table())
    for warning in facts.warnings:
        tell(f"warning: {warning}")
    if facts.errors:
        raise UserError(facts.errors)
    if not facts.problems:
        tell("nothing is wrong with it")
    return facts


def facts_of(splits: Mapping[str, Dataset]) -> Facts:
    """Return the facts of datasets in memory, with the problems that show without opening a photo.

    Args:
        splits: By split name; `train` is the one that is learned from.
    """
    views = {name: SplitView(name, dataset) for name, dataset in splits.items()}
    names: dict[int, str] = {}
    for dataset in splits.values():
        for category in dataset.categories:
            names.setdefault(category.id, category.name)
    counts = {name: Counter(view.d.category_ids[view.objects].tolist()) for name, view in views.items()}
    categories = tuple(
        CategoryFacts(id=i, name=names[i], objects={split: counts[split].get(i, 0) for split in splits})
        for i in sorted(names)
    )
    facts = Facts(splits={name: split_facts(view) for name, view in views.items()}, categories=categories)
    problems = (*_whole_findings(facts, splits), *_object_findings(views))
    return facts.model_copy(update={"problems": problems})


_AGAIN = "mend the file: maskwright prepare DATASET.json -o NEW"

_RULES: dict[str, tuple[Severity, str, str]] = {
    "no-train": ("error", "there is no train split: nothing can be learned", "prepare again with photos to train on"),
    "no-objects": (
        "error",
        "no photo of the train split has an object: nothing can be learned",
        "check that the mask images are not all black, then prepare again",
    ),
    "category-not-in-train": (
        "error",
        "{n} {category has|categories have} no object in the train split and cannot be learned",
        "add photos of them to train, or remove these categories from the annotation files",
    ),
    "categories-differ": (
        "error",
        "the splits differ in their categories",
        "give each category the same id and name in every split",
    ),
    "photo-outside": (
        "error",
        "{n} {photo has a name|photos have names} leading out of the data folder",
        "make the names relative to the photo folder, without '..'",
    ),
    "photo-missing": (
        "error",
        "{n} {photo is|photos are} not where the annotation file says",
        "copy them there, or remove them from the annotation file",
    ),
    "photo-unreadable": (
        "error",
        "{n} {photo|photos} cannot be read",
        "replace them, or remove them from the annotation file",
    ),
    "photo-size": (
        "error",
        "{n} {photo differs|photos differ} in size from what the annotation file says",
        "prepare again, from these photos and masks of their size",
    ),
    "photo-listed-twice": (
        "error",
        "{n} {photo is|photos are} listed more than once in a split",
        "list each photo once, with all its objects",
    ),
    "no-mask": ("error", "{n} {object has|objects have} only a box, no mask", "draw the masks, or remove the objects"),
    "empty-mask": ("error", "{n} {mask has|masks have} no pixel", f"remove these objects, or {_AGAIN}"),
    "no-val": (
        "warning",
        "there is no val split: the best weights cannot be told from the last, nor a score threshold advised",
        "prepare again with a share for validation, for example --val-share 0.3; if the input"
        " gives the splits itself, move some photos into one named val",
    ),
    "no-objects-to-score": (
        "warning",
        "{n} {split|splits} besides train {has|have} no object: scores on {it|them} are undefined",
        "move photos with objects into {it|them}",
    ),
    "photo-leak": (
        "warning",
        "{n} {photo stands|photos stand} in more than one split: scores will be too good",
        "keep each photo in one split",
    ),
    "id-below-1": ("warning", "{n} {id is|ids are} below 1, which other COCO tools may read as 'none'", _AGAIN),
    "id-twice": ("warning", "{n} annotations share their id: other COCO tools keep one of each", _AGAIN),
    "area-wrong": ("warning", "{n} {object has|objects have} an area that differs from the mask's", _AGAIN),
    "box-wrong": ("warning", "{n} {object has|objects have} a bbox that differs from the mask's", _AGAIN),
    "same-object-twice": (
        "warning",
        f"{{n}} {{object repeats|objects repeat}} another of the category (IoU over {SAME_IOU})",
        "keep one of each",
    ),
    "speck": (
        "warning",
        f"{{n}} {{object is a speck|objects are specks}} (under {SPECK_PX} pixels or {SPECK_SHARE} of the photo)",
        "look at them: stray pixels of a mask image are not objects",
    ),
    "covers-all": (
        "warning",
        "{n} {mask covers its|masks cover their} whole photo",
        "look at them: an inverted or all-white mask image marks everything",
    ),
    "crowd": (
        "warning",
        "{n} {object is a crowd|objects are crowds}: neither learned nor scored",
        "leave them if they mark groups; an object with a hole needs no iscrowd",
    ),
}
"""Every finding: how bad it is, what it says ({one|many} follows the number) and how it is mended; worst first."""


class _Notes:
    """Collects offenders by rule; `findings` puts them in the order of the rules."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._where: dict[str, list[str]] = defaultdict(list)

    def add(self, code: str, where: Sequence[str], count: int | None = None) -> None:
        """Note offenders, one line each unless `count` says how many they are."""
        self._count[code] += len(where) if count is None else count
        self._where[code] += where

    def findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                code=code,
                severity=severity,
                problem=Problem(_number(what, n), tuple(self._where[code]), _number(fix, n)),
            )
            for code, (severity, what, fix) in _RULES.items()
            if (n := self._count[code])
        )


def _number(text: str, n: int) -> str:
    """Put a number into a sentence: `{n}` becomes it, `{one|many}` follows it."""
    text = text.replace("{n}", f"{n:,}")
    return re.sub(r"\{([^{}|]*)\|([^{}|]*)\}", lambda found: found[1 if n == 1 else 2], text)


def _whole_findings(facts: Facts, splits: Mapping[str, Dataset]) -> tuple[Finding, ...]:
    """Find what is wrong with the splits as wholes."""
    notes = _Notes()
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
    return notes.findings()


def _join(items: Iterable[str]) -> str:
    return ", ".join(items)


def _object_findings(views: Mapping[str, SplitView]) -> tuple[Finding, ...]:
    """Find what is wrong with ids, masks, areas and boxes."""
    notes = _Notes()
    for view in views.values():
        d, tell = view.d, _Teller(view)

        def note(code: str, chosen: NDArray[np.bool_], text: Callable[[int], str], view: SplitView = view) -> None:
            ks = np.flatnonzero(chosen)
            notes.add(code, view.lines(ks, text), len(ks))

        masked = np.zeros(len(d), dtype=np.bool_)
        masked[view.with_mask] = True
        truth = ~d.crowd
        photo_areas = np.prod(view.photo_sizes, axis=1)
        notes.add("id-below-1", [f"{view.photo(i)}: image id {i.id}" for i in d.images if i.id < 1])
        notes.add("id-below-1", [f"{view.name}: category '{c.name}' has id {c.id}" for c in d.categories if c.id < 1])
        note("id-below-1", d.ids < 1, tell.plain)
        _, inverse, repeats = np.unique(d.ids, return_inverse=True, return_counts=True)
        note("id-twice", repeats[inverse] > 1, tell.plain)
        names = Counter(image.file_name for image in d.images)
        notes.add("photo-listed-twice", [f"{view.name}/{name}: {n} times" for name, n in names.items() if n > 1])
        note("no-mask", ~masked & truth, tell.plain)
        note("empty-mask", masked & (view.areas == 0), tell.plain)
        # COCO states the area and box of the polygon; its pixels may differ from them by the rounding of its edge.
        note("area-wrong", masked & (np.abs(d.areas - view.areas) > 10 + 0.05 * view.areas), tell.area)
        off = np.abs(d.boxes - view.boxes).max(axis=1, initial=0) > 1.5
        note("box-wrong", masked & (view.areas > 0) & off, tell.box)
        note("speck", specks_of(view.areas, view.areas / np.maximum(photo_areas, 1)) & masked & truth, tell.pixels)
        note("covers-all", masked & truth & (view.areas == photo_areas), tell.pixels)
        note("crowd", d.crowd, tell.plain)
        note("same-object-twice", _repeats(view), tell.plain)
    return notes.findings()


@dataclass(frozen=True)
class _Teller:
    """How one object is described in a line of a problem."""

    view: SplitView

    def plain(self, k: int) -> str:
        names = {c.id: c.name for c in self.view.d.categories}
        return f"{names[int(self.view.d.category_ids[k])]}, annotation {self.view.d.ids[k]}"

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


def _repeats(view: SplitView) -> NDArray[np.bool_]:
    """Return, `(M,)` bool, each object that repeats an earlier one of its photo and category."""
    again = np.zeros(len(view.d), dtype=np.bool_)
    for ks in view.photos():
        if len(ks) < 2:
            continue
        for a, b in near(view.boxes[ks]):
            first, second = sorted((int(ks[a]), int(ks[b])))
            small, large = sorted((view.areas[first], view.areas[second]))
            if (
                view.d.category_ids[first] == view.d.category_ids[second]
                and small > SAME_IOU * large  # IoU is at most the ratio of the areas
                and (rles := [view.d.rle(first), view.d.rle(second)])
                and all(rles)
                and pixels.iou(rles[:1], rles[1:], view.d.size_of(first))[0, 0] > SAME_IOU
            ):
                again[second] = True
    return again


def _photo_findings(splits: Mapping[str, Dataset]) -> tuple[Finding, ...]:
    """Find what is wrong with the photo files: absent, unreadable, of another size, or in two splits."""
    notes = _Notes()
    same_length: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    jobs: list[tuple[Image, Path]] = []
    for split, dataset in splits.items():
        for image in dataset.images:
            try:
                path = dataset.photo_path(image)
            except UserError as error:
                notes.add("photo-outside", error.problems[0].where)
                continue
            if path.is_file():
                same_length[path.stat().st_size].append((split, path))
                jobs.append((image, path))
            else:
                notes.add("photo-missing", [str(path)])

    def look(job: tuple[Image, Path]) -> tuple[str, str] | None:
        image, path = job
        try:
            height, width = read_photo(path).shape[:2]
        except UnreadableImage as error:
            return "photo-unreadable", f"{path} {error}"
        if (height, width) == image.size:
            return None
        return "photo-size", f"{path} is {width} x {height}, the annotation file says {image.width} x {image.height}"

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(look, jobs):
            if result:
                notes.add(result[0], [result[1]])
    same_bytes: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for group in same_length.values():
        if len({split for split, _ in group}) > 1:  # only files of one length can be equal
            for split, path in group:
                same_bytes[sha256(path)].append((split, path))
    for group in same_bytes.values():
        if len({split for split, _ in group}) > 1:
            notes.add("photo-leak", [" = ".join(str(path) for _, path in group)])
    return notes.findings()
