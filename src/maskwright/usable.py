"""Which objects of a split are large enough to be learned at the working size, and the photos that have one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maskwright.canvas import LEAST_PIXELS
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.plan import MULTIPLE, Plan

LARGEST_SIDE = 2048  # that `--side` takes


@dataclass(frozen=True)
class Usable:
    """How many objects of a split can be learned from at the working size.

    Attributes:
        objects: Those with a mask, crowds left out.
        lost: Of these, those with fewer than 12 pixels at the working size.
        photos: Photos with an object that is not lost.
    """

    objects: int
    lost: int
    photos: int


def usable(truth: Dataset, made: Plan, tell: Callable[[str], None]) -> Usable:
    """Count the objects that can be learned from at the working size, and refuse a split without one.

    Args:
        truth: The train split.
        made: The plan; its canvas is the working size.
        tell: Told how many are lost, if any are.

    Raises:
        UserError: If no object is left; the fix is the side at which half of them would be learned.
    """
    have, seen = _sizes(truth, made.canvas)
    kept = have & (seen >= LEAST_PIXELS)
    objects, lost = int(have.sum()), int((have & ~kept).sum())
    side = max(made.canvas)
    if not kept.any():
        sizes = np.sort(seen[have])
        where = [f"{truth.folder}: {objects} objects, {len(truth) - objects} others (crowds, boxes without a mask)"]
        fix = "give objects with masks"
        if objects and sizes[-1] > 0:
            where.append(f"the largest object has {sizes[-1]:.1f} pixels at side {side}, {LEAST_PIXELS} are needed")
            middle = float(sizes[len(sizes) // 2]) or float(sizes[-1])
            need = math.ceil(side * math.sqrt(LEAST_PIXELS / middle) / MULTIPLE) * MULTIPLE
            fix = f"--side {need}" if need <= LARGEST_SIDE else "cut the photos into parts in which objects are larger"
        raise UserError("no object is large enough to be learned at the network's working size", where, fix)
    if lost:
        tell(
            f"warning: {lost:,} of {objects:,} objects have fewer than {LEAST_PIXELS} pixels at side {side} and are not"
            " learned (more: a larger --side)"
        )
        none = [
            category.name
            for category in truth.categories
            if (have & (truth.category_ids == category.id)).any()
            and not (kept & (truth.category_ids == category.id)).any()
        ]
        if none:
            tell(f"warning: no object of these categories is large enough to be learned: {', '.join(none)}")
    return Usable(objects, lost, len(np.unique(truth.image_index[kept])))


def _sizes(truth: Dataset, canvas: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return per object whether it has a mask of its own, and its pixels on the canvas."""
    have = ~truth.crowd & (np.diff(truth.rle_ends) > 0)
    scale = np.array([min(canvas[1] / i.width, canvas[0] / i.height) for i in truth.images])
    area = truth.areas if truth.measured is None else np.fmax(truth.measured[:, 0], 0.0)
    return have, area * scale[truth.image_index] ** 2


def chosen_photos(truth: Dataset, canvas: tuple[int, int], count: int) -> list[int]:
    """Return the positions of at most `count` photos with an object that can be learned, evenly spaced."""
    have, seen = _sizes(truth, canvas)
    photos = np.unique(truth.image_index[have & (seen >= LEAST_PIXELS)])
    spaced = np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(np.int64)
    return [int(i) for i in photos[spaced]]


def part_of(truth: Dataset, photos: Sequence[int]) -> Dataset:
    """Return the dataset of some of its photos (ascending positions) with their objects."""
    position = np.full(len(truth.images), -1, dtype=np.int32)
    position[list(photos)] = np.arange(len(photos), dtype=np.int32)
    kept = truth.select(position[truth.image_index] >= 0)
    return replace(kept, images=tuple(truth.images[i] for i in photos), image_index=position[kept.image_index])
