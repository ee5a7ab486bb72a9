"""Bring the photos and categories of truth and detections into one order, whatever ids each file uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError, nearest
from maskwright.pixels import Size


@dataclass(frozen=True)
class Aligned:
    """Where the objects of truth and detections belong, in common numbers.

    Photos are numbered by falling into the order of the truth's image ids and categories by that of its category ids,
    from 0 without gaps: pycocotools goes through them in this order, which decides between equal scores.

    Attributes:
        truth_photo: `(G,)` int64.
        truth_category: `(G,)` int64.
        found_photo: `(D,)` int64.
        found_category: `(D,)` int64.
        sizes: `(height, width)` of each photo, in this order.
        masks: Whether masks can be scored: both sides have them.
        notes: What the user should be told.
    """

    truth_photo: NDArray[np.int64]
    truth_category: NDArray[np.int64]
    found_photo: NDArray[np.int64]
    found_category: NDArray[np.int64]
    sizes: tuple[Size, ...]
    masks: bool
    notes: tuple[str, ...]


def align(true: Dataset, found: Dataset, truth_name: str, found_name: str, *, by_id: bool) -> Aligned:
    """Pair the photos and categories of truth and detections.

    Photos are paired by file name, or by its last part where the folders differ; categories by name, or by id where
    names stand twice.

    Args:
        true: The truth.
        found: The detections.
        truth_name: How error messages call the truth.
        found_name: How error messages call the detections.
        by_id: The detections use the ids of the truth (a bare list of results does).

    Raises:
        UserError: If detections name photos or categories that the truth does not have, sizes differ, or only some of
            the objects have masks.
    """
    order = sorted(range(len(true.images)), key=lambda i: true.images[i].id)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    problems: list[Problem] = []
    notes: list[str] = []
    photos = np.arange(len(true.images)) if by_id else _photos(true, found, truth_name, found_name, problems, notes)
    categories = _categories(true, found, truth_name, found_name, problems)
    masks = _masks(true, found, truth_name, found_name, problems, notes)
    if problems:
        raise UserError(problems)
    true_ids = np.array([category.id for category in true.categories], dtype=np.int64)
    found_ids = np.array([category.id for category in found.categories], dtype=np.int64)
    return Aligned(
        truth_photo=number[true.image_index],
        truth_category=np.searchsorted(true_ids, true.category_ids),
        found_photo=number[photos[found.image_index]],
        found_category=categories[np.searchsorted(found_ids, found.category_ids)],
        sizes=tuple(true.images[i].size for i in order),
        masks=masks,
        notes=tuple(notes),
    )


def _photos(
    true: Dataset, found: Dataset, truth_name: str, found_name: str, problems: list[Problem], notes: list[str]
) -> NDArray[np.int64]:
    """Return for each photo of the detections its position in the truth, -1 for one that has no detection either."""
    names = [image.file_name for image in true.images]
    wanted = [image.file_name for image in found.images]
    used = np.bincount(found.image_index, minlength=len(wanted)) > 0
    paired = _paired(names, wanted)
    if paired is None or any(i < 0 for i, is_used in zip(paired, used.tolist(), strict=True) if is_used):
        short, sought = [PurePosixPath(n).name for n in names], [PurePosixPath(n).name for n in wanted]
        loose = _paired(short, sought)
        if loose is not None and sum(i >= 0 for i in loose) > sum(i >= 0 for i in paired or [-1]):
            paired = loose
    if paired is None:
        several = [name for name, n in (Counter(names) | Counter(wanted)).items() if n > 1]
        same_ids = {image.id: image.file_name for image in true.images}
        if any(same_ids.get(image.id) != image.file_name for image in found.images):
            problems.append(
                Problem("photos cannot be told apart by file name", tuple(several), "give each photo its own name")
            )
            return np.zeros(len(wanted), dtype=np.int64)
        place = {image.id: i for i, image in enumerate(true.images)}
        paired = [place[image.id] for image in found.images]
    lost = [f"{found_name}: {wanted[k]}" for k in range(len(wanted)) if used[k] and paired[k] < 0]
    if lost:
        fix = f"predict on the photos of {truth_name}, or name the truth of these photos"
        problems.append(Problem("detections name photos that the truth does not have", tuple(lost), fix))
    differ = []
    for image, i in zip(found.images, paired, strict=True):
        if i >= 0 and image.size != true.images[i].size:
            here, there = true.images[i], image
            differ.append(
                f"{there.file_name} is {there.width} x {there.height} in {found_name}, "
                f"{here.width} x {here.height} in {truth_name}"
            )
    if differ:
        problems.append(
            Problem("photos differ in size between truth and detections", tuple(differ), "predict on the same photos")
        )
    extra = sum(1 for i in paired if i < 0) - len(lost)
    if extra:
        notes.append(f"{extra:,} photos of {found_name} are not in the truth; they have no detections and do not count")
    absent = len(names) - len({i for i in paired if i >= 0})
    if absent:
        notes.append(f"{absent:,} photos of the truth are not listed in {found_name}: all their objects are misses")
    return np.array(paired, dtype=np.int64)


def _paired(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return the position of each wanted name, -1 if it is not there; `None` if a name stands twice on either side."""
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names) or len(set(wanted)) != len(wanted):
        return None
    return [index.get(name, -1) for name in wanted]


def _categories(
    true: Dataset, found: Dataset, truth_name: str, found_name: str, problems: list[Problem]
) -> NDArray[np.int64]:
    """Return for each category of the detections its position in the truth; 0 for one that no detection has."""
    by_name = {category.name: k for k, category in enumerate(true.categories)}
    by_id = {category.id: k for k, category in enumerate(true.categories)}
    unique = len(by_name) == len(true.categories) and len({c.name for c in found.categories}) == len(found.categories)
    used = set(np.unique(found.category_ids).tolist())
    places, lost = [], []
    for category in found.categories:
        k = by_name.get(category.name) if unique else by_id.get(category.id)
        if k is None and category.id in used:
            n = int((found.category_ids == category.id).sum())
            label = f"'{category.name}'" if unique else f"{category.id} '{category.name}'"
            lost.append(f"{found_name}: {label} ({n:,} detections){nearest(category.name, by_name)}")
        places.append(k or 0)
    if lost:
        known = ", ".join(category.name for category in true.categories)
        fix = f"name them as in {truth_name}, which has: {known}"
        problems.append(Problem("detections name categories that the truth does not have", tuple(lost), fix))
    return np.array(places, dtype=np.int64)


def _masks(
    true: Dataset, found: Dataset, truth_name: str, found_name: str, problems: list[Problem], notes: list[str]
) -> bool:
    """Tell whether masks can be scored; masks on only some objects are a problem."""
    scored = True
    for data, name, what in ((true, truth_name, "true objects"), (found, found_name, "detections")):
        bare = np.flatnonzero(~data.has_mask)
        if not len(bare):
            continue
        if len(bare) == len(data):
            notes.append(f"{name} gives boxes only: the mask numbers (segm) are n/a")
            scored = False
            continue
        where = [
            f"{name}: annotation {data.ids[k]} of {data.images[int(data.image_index[k])].file_name}"
            for k in bare.tolist()
        ]
        fix = "give every one a mask, or leave all masks away to score boxes only"
        problems.append(Problem(f"some {what} have a mask and others only a box", tuple(where), fix))
    return scored
