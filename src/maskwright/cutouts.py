"""Objects cut out of one photo and laid over another: whole pixels of masks, soft edges of colours.

Where two pictures meet, their colours mix over `REACH` pixels on either side of the mask's edge. What an object
contributes there are its own colours, never those of the photo that it was cut from, which would show as a halo. All is
whole-number arithmetic, or Pillow's resampling: the same input gives the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

REACH = 2
"""Pixels on either side of a mask's edge over which two pictures mix."""

WHOLE = 256
"""An opaque pixel of `soften`: what the weights 1 4 6 4 1, as wide as a Gaussian of 1 pixel, add up to in the plane."""

Sides = tuple[bool, bool, bool, bool]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Cutout:
    """An object without its photo.

    Attributes:
        colours: `(h, w, 3)` uint8 RGB; outside the mask the colour of the nearest pixel inside.
        mask: `(h, w)` bool, tight: it has a pixel on each of its four borders.
        cut: At which sides the photo's border cuts the object.
    """

    colours: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    cut: Sides = (False,) * 4

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` in pixels."""
        return int(self.mask.shape[0]), int(self.mask.shape[1])


def cut_out(colours: NDArray[np.uint8], mask: NDArray[np.bool_], cut: Sides = (False,) * 4) -> Cutout:
    """Cut an object out of a window of its photo.

    In a photo an object's outermost pixels are mixed with what is behind it, and would show as a rim elsewhere: they
    take the colour of the nearest pixel inside, where one is near.

    Args:
        colours: `(h, w, 3)` uint8 RGB, the window.
        mask: `(h, w)` bool, of at least one pixel.
        cut: At which sides the photo's border cuts the object.

    Returns:
        The object in its tight window.

    Example:
        >>> cut_out(np.array([[[9, 9, 9], [5, 5, 5]]], dtype=np.uint8), np.array([[False, True]])).colours.tolist()
        [[[5, 5, 5]]]
    """
    from scipy import ndimage  # slow to import, and only some stages need it

    x1, y1, x2, y2 = tight(mask)
    inside, own = np.ascontiguousarray(mask[y1:y2, x1:x2]), colours[y1:y2, x1:x2]
    left, top, right, bottom = map(int, cut)
    # Where the photo's border cuts the object, it goes on, and has no rim.
    core = ndimage.binary_erosion(np.pad(inside, ((top, bottom), (left, right)), mode="edge"))
    core = core[top : core.shape[0] - bottom, left : core.shape[1] - right]
    if core.any():
        far, (lines, columns) = ndimage.distance_transform_edt(~core, return_indices=True)
        own = np.where((inside & (far <= REACH))[:, :, None], own[lines, columns], own)
    lines, columns = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return Cutout(np.ascontiguousarray(own[lines, columns]), inside, cut)


def changed(
    cutout: Cutout, zoom: float = 1.0, mirror: bool = False, degrees: float = 0.0, most: tuple[int, int] | None = None
) -> Cutout | None:
    """Scale, mirror and turn an object.

    Args:
        cutout: The object.
        zoom: Factor of its sides.
        mirror: Left becomes right, after scaling and before turning.
        degrees: To turn it by, counterclockwise; an object that a border cuts must not be turned.
        most: `(height, width)` that it must not exceed; it is scaled down further if it does.

    Returns:
        The object; `None` if no pixel is left of it.

    Example:
        >>> thing = Cutout(np.zeros((2, 4, 3), dtype=np.uint8), np.ones((2, 4), dtype=bool))
        >>> changed(thing, 2.0).size, changed(thing, degrees=90).size, changed(thing, most=(9, 2)).size
        ((4, 8), (4, 2), (1, 2))
    """
    height, width = cutout.size
    if most is not None:
        sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
        turned = (height * cosine + width * sine, height * sine + width * cosine)
        zoom = min(zoom, most[0] / turned[0], most[1] / turned[1])
    colours, mask, cut = PillowImage.fromarray(cutout.colours), _grey(cutout.mask), cutout.cut
    new = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    if new != (width, height):
        colours = colours.resize(new, PillowImage.Resampling.BICUBIC)
        mask = mask.resize(new, PillowImage.Resampling.BILINEAR)
    if mirror:
        way = PillowImage.Transpose.FLIP_LEFT_RIGHT
        colours, mask, cut = colours.transpose(way), mask.transpose(way), (cut[2], cut[1], cut[0], cut[3])
    if degrees % 360:
        # A margin, so that the corners of the turned picture, which are black, do not mix into the object's edge.
        wide = ((REACH, REACH), (REACH, REACH))
        colours = PillowImage.fromarray(np.pad(np.asarray(colours), (*wide, (0, 0)), mode="edge"))
        mask = PillowImage.fromarray(np.pad(np.asarray(mask), wide))
        colours = colours.rotate(degrees, PillowImage.Resampling.BICUBIC, expand=True)
        mask = mask.rotate(degrees, PillowImage.Resampling.BILINEAR, expand=True)
    inside = np.asarray(mask) >= 128
    if most is not None and inside.any():  # rounding may have added a pixel
        x1, y1, _, _ = tight(inside)
        inside = inside[: y1 + most[0], : x1 + most[1]]
    if not inside.any():
        return None
    x1, y1, x2, y2 = tight(inside)
    return Cutout(np.ascontiguousarray(np.asarray(colours)[y1:y2, x1:x2]), inside[y1:y2, x1:x2].copy(), cut)


def _grey(mask: NDArray[np.bool_]) -> PillowImage.Image:
    return PillowImage.fromarray(mask.astype(np.uint8) * 255)


def tight(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the box `x1 y1 x2 y2` of a mask that is not empty, end exclusive.

    Example:
        >>> tight(np.array([[False, False, False], [False, True, True]]))
        (1, 1, 3, 2)
    """
    lines, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(lines[0]), int(columns[-1]) + 1, int(lines[-1]) + 1


def soften(mask: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return how opaque an object is at each pixel, 0 to `WHOLE`.

    Beyond the window the mask goes on as it ends.

    Args:
        mask: `(h, w)` bool.

    Returns:
        `(h, w)` uint16: 0 where no pixel of the mask is within `REACH` pixels, `WHOLE` where all are.

    Example:
        >>> soften(np.array([[False, False, False, True, True, True]])).tolist()
        [[0, 16, 80, 176, 240, 256]]
    """
    return _blurred(mask.astype(np.uint16))


def _blurred(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return `(h, w, ...)` values of at most 255 mixed with their neighbours, times `WHOLE`.

    The weights 1 4 6 4 1 of each direction are those of four sums of two neighbours.
    """
    mixed = np.pad(values, ((REACH, REACH), (REACH, REACH)) + ((0, 0),) * (values.ndim - 2), mode="edge")
    for _ in range(2 * REACH):
        mixed = mixed[1:] + mixed[:-1]
    for _ in range(2 * REACH):
        mixed = mixed[:, 1:] + mixed[:, :-1]
    return mixed


def lay(ground: NDArray[np.uint8], colours: NDArray[np.uint8], mask: NDArray[np.bool_], x: int, y: int) -> None:
    """Lay an object over a picture, in place.

    Args:
        ground: `(H, W, 3)` uint8 RGB; changed within `REACH` pixels of the object.
        colours: `(h, w, 3)` uint8 RGB of the object; what is outside its mask is not used.
        mask: `(h, w)` bool.
        x: Column of the window's left edge in the picture; the window lies inside the picture.
        y: Line of its upper edge.

    Example:
        >>> ground = np.zeros((1, 7, 3), dtype=np.uint8)
        >>> lay(ground, np.full((1, 3, 3), 200, dtype=np.uint8), np.ones((1, 3), dtype=bool), 4, 0)
        >>> ground[0, :, 0].tolist()
        [0, 0, 13, 63, 138, 188, 200]
    """
    (height, width), (lines, columns) = mask.shape, ground.shape[:2]
    left, top = min(REACH, x), min(REACH, y)
    right, bottom = min(REACH, columns - x - width), min(REACH, lines - y - height)
    around = ((top, bottom), (left, right))
    inside = np.pad(mask, around)
    own = np.pad(colours, (*around, (0, 0))).astype(np.uint16)
    own *= inside[:, :, None]
    alpha = soften(inside)[:, :, None]
    # Outside the mask the object's part is the mean of its pixels that are near, weighted as their opacity is.
    mixed = np.where(inside[:, :, None], own * alpha, _blurred(own))
    place = ground[y - top : y + height + bottom, x - left : x + width + right]
    mixed += (WHOLE - alpha) * place  # at most 255 times the whole, which 16 bits hold
    mixed += WHOLE // 2
    mixed //= WHOLE
    place[:] = mixed


def left_of(
    mask: NDArray[np.bool_], over: NDArray[np.bool_], share: float, least: float = 1
) -> NDArray[np.bool_] | None:
    """Return what an object keeps when something is laid over it; `None` if that is too little to count.

    Args:
        mask: `(H, W)` bool.
        over: `(H, W)` bool, of what lies above.
        share: Of its pixels that it must keep.
        least: Pixels that it must keep.

    Example:
        >>> left_of(np.array([[True, True]]), np.array([[True, False]]), 0.5).tolist()
        [[False, True]]
    """
    left = mask & ~over
    count = int(left.sum())
    return left if count and count >= max(share * int(mask.sum()), least) else None
