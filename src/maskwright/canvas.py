"""Photos and their masks on the network's canvas: both go through one affine map, so they cannot come apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright.cutouts import lay, left_of, tight

LEAST_PIXELS = 12
"""An object with fewer pixels on the network's canvas is left out: background to the network."""

LEAST_SHARE = 0.08
"""... and one of which the canvas holds a smaller share."""

LEAST_LEFT = 0.1
"""... and one that keeps a smaller share of its pixels when objects are pasted over it."""


@dataclass(frozen=True)
class Cached:
    """A decoded photo at working size, and its objects' masks as crops (uint8 0/255) with their upper left corners."""

    image: PillowImage.Image
    crops: tuple[tuple[int, int, PillowImage.Image], ...]
    labels: tuple[int, ...]
    objects: tuple[int, ...]
    areas: tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """An object on the canvas.

    Attributes:
        corner: `(x, y)` of the upper left corner of a window.
        part: `(h, w)` uint8 0/1, the object's mask there; it has none elsewhere.
        label: 1..C.
        object: Its position in the dataset's columns.
    """

    corner: tuple[int, int]
    part: NDArray[np.uint8]
    label: int
    object: int

    def window(self, canvas: NDArray[Any]) -> NDArray[Any]:
        """Return the object's window of an array `(H, W, ...)`, as a view."""
        (x, y), (height, width) = self.corner, self.part.shape
        return canvas[y : y + height, x : x + width]

    def box(self) -> tuple[int, int, int, int]:
        """Return its tight box `x1 y1 x2 y2` on the canvas."""
        x1, y1, x2, y2 = tight(self.part.astype(np.bool_))
        return x1 + self.corner[0], y1 + self.corner[1], x2 + self.corner[0], y2 + self.corner[1]


def place(
    cached: Cached, forward: NDArray[np.float64], backward: NDArray[np.float64], canvas: tuple[int, int]
) -> list[Placed]:
    """Return the objects of a photo that a map from it to the canvas leaves enough of."""
    placed = []
    zoom = abs(float(np.linalg.det(forward[:2, :2])))
    for (left, top, crop), label, k, area in zip(
        cached.crops, cached.labels, cached.objects, cached.areas, strict=True
    ):
        found = _warp_crop(crop, left, top, forward, backward, canvas)
        # A sliver at the border is not the object any more; what is left out is background to the network.
        if found is not None and found[1].sum() >= max(float(LEAST_PIXELS), LEAST_SHARE * area * zoom):
            placed.append(Placed(*found, label, k))
    return placed


def over_photo(one: Placed, photo: Cached, backward: NDArray[np.float64]) -> bool:
    """Tell whether the middle of an object lies over a photo, not over the grey beside it.

    Args:
        one: The object.
        photo: The photo on the canvas.
        backward: 3x3 map from points of the canvas to points of that photo.
    """
    x1, y1, x2, y2 = one.box()
    x, y, _ = backward @ np.array([(x1 + x2) / 2, (y1 + y2) / 2, 1.0])
    return bool(0 <= x < photo.image.width and 0 <= y < photo.image.height)


def warp(
    picture: PillowImage.Image,
    backward: NDArray[np.float64],
    offset: tuple[int, int],
    size: tuple[int, int],
    fill: tuple[int, ...] | int,
) -> PillowImage.Image:
    """Resample a picture: canvas pixel `(x, y) + offset` takes the colour at `backward` of it."""
    shifted = backward @ np.array([[1.0, 0.0, offset[0]], [0.0, 1.0, offset[1]], [0.0, 0.0, 1.0]])
    return picture.transform(
        (size[1], size[0]),
        PillowImage.Transform.AFFINE,
        tuple(shifted[:2].ravel()),
        PillowImage.Resampling.BILINEAR,
        fillcolor=fill,
    )


def _warp_crop(
    crop: PillowImage.Image,
    left: int,
    top: int,
    forward: NDArray[np.float64],
    backward: NDArray[np.float64],
    canvas: tuple[int, int],
) -> tuple[tuple[int, int], NDArray[np.uint8]] | None:
    """Return where an object's mask lands on the canvas: upper left corner and pixels 0/1; `None` if nowhere."""
    corners = np.array(
        [
            [left, left + crop.width, left, left + crop.width],
            [top, top, top + crop.height, top + crop.height],
            [1, 1, 1, 1],
        ],
        dtype=np.float64,
    )
    points = (forward @ corners)[:2]
    x1, y1 = (int(v) for v in np.floor(points.min(1)).clip(0))
    x2, y2 = min(int(np.ceil(points[0].max())), canvas[1]), min(int(np.ceil(points[1].max())), canvas[0])
    if x2 <= x1 or y2 <= y1:
        return None
    # The margin lets bilinear resampling fade to zero at the crop's edge instead of stopping there.
    padded = PillowImage.new("L", (crop.width + 2, crop.height + 2))
    padded.paste(crop, (1, 1))
    local = np.array([[1.0, 0.0, 1.0 - left], [0.0, 1.0, 1.0 - top], [0.0, 0.0, 1.0]]) @ backward
    part = np.asarray(warp(padded, local, (x1, y1), (y2 - y1, x2 - x1), 0)) >= 128
    return ((x1, y1), part.astype(np.uint8)) if part.any() else None


def paste(
    image: NDArray[np.uint8],
    placed: Sequence[Placed],
    pasted: Sequence[Placed],
    giver: Cached,
    backward: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Paste objects of another photo over a picture.

    Args:
        image: `(H, W, 3)` uint8 RGB; it is not changed.
        placed: Its objects.
        pasted: Objects of the other photo, on the same canvas.
        giver: The other photo.
        backward: 3x3 map from points of the canvas to points of the other photo.

    Returns:
        The picture, and its objects: those of `placed` of which enough is left, without the pixels that are covered,
        then `pasted`.
    """
    if not pasted:
        return image, list(placed)
    over = np.zeros(image.shape[:2], dtype=np.bool_)
    for one in pasted:
        one.window(over)[:] |= one.part.astype(np.bool_)
    x1, y1, x2, y2 = tight(over)
    colours = np.asarray(warp(giver.image, backward, (x1, y1), (y2 - y1, x2 - x1), (0, 0, 0)))
    image = image.copy()
    lay(image, colours, over[y1:y2, x1:x2], x1, y1)
    kept = []
    for one in placed:
        left = left_of(one.part.astype(np.bool_), one.window(over), LEAST_LEFT, LEAST_PIXELS)
        if left is not None:
            kept.append(replace(one, part=left.astype(np.uint8)))
    return image, [*kept, *pasted]
