"""Boundary IoU (Cheng et al. 2021): how well the edges of two masks agree, which the IoU of large masks hardly shows.

Of each mask only the pixels near its edge count, in a band whose width is a share of the photo's diagonal. Two masks of
a large object may agree in 95 of 100 pixels and be wrong along all of the edge, where a gripper takes hold. Boundary AP
is AP by the lesser of a pair's IoU and its boundary IoU, as the authors score it: otherwise a ring drawn for a disc
would be right, having the disc's edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.matching import Found, Overlaps, Truth

WIDTH = 0.02
"""Width of the band along the edge, as a share of the photo's diagonal: the authors' for COCO."""


def band_width(size: pixels.Size, share: float = WIDTH) -> int:
    """Return the width of the band along edges in pixels, at least 1.

    Args:
        size: `(height, width)` of the photo.
        share: Of its diagonal.

    Example:
        >>> band_width((480, 640)), band_width((10, 10))
        (16, 1)
    """
    return max(1, round(share * math.hypot(*size)))


def band(rle: bytes, size: pixels.Size, width: int) -> bytes:
    """Return the pixels of a mask that are less than `width` steps from one outside it, diagonal steps included.

    What lies beyond the photo is outside.

    Args:
        rle: The mask.
        size: `(height, width)` of the photo.
        width: In pixels, at least 1.

    Example:
        >>> pixels.decode(band(pixels.encode(np.ones((4, 5), dtype=bool)), (4, 5), 1), (4, 5)).astype(int).tolist()
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    """
    x1, y1, x2, y2 = (round(v) for v in pixels.box(rle, size))
    if x2 <= x1 or y2 <= y1:
        return rle
    mask = pixels.crop(rle, size, (x1, y1, x2, y2))
    return pixels.encode_window(mask & ~_eroded(mask, width), x1, y1, size)


def _eroded(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels with a square of `2 width + 1` a side around them in the mask; outside the array nothing is."""
    full = 2 * width + 1
    inner = mask
    for axis in (0, 1):
        length = mask.shape[axis]
        edge = [(0, 0), (0, 0)]
        edge[axis] = (width + 1, width)
        sums = np.cumsum(np.pad(inner, edge), axis=axis, dtype=np.int32)
        # How many pixels of the mask are among the `full` ones around each.
        high, low = np.take(sums, range(full, full + length), axis), np.take(sums, range(length), axis)
        inner = high - low == full
    return inner


def boundary_overlaps(
    truth: Truth,
    found: Found,
    truth_rles: Sequence[bytes],
    found_rles: Sequence[bytes],
    sizes: Sequence[pixels.Size],
    pairs: Overlaps,
    least: float,
) -> Overlaps:
    """Return the pairs whose IoU and boundary IoU are both at least `least`, with the lesser of the two.

    Args:
        truth: True objects.
        found: Detections.
        truth_rles: RLEs of `truth`.
        found_rles: RLEs of `found`.
        sizes: `(height, width)` of each photo, by the place that `Truth.photo` gives.
        pairs: The pairs whose masks' IoU is at least `least`; those with a crowd, which has no edge, stay as they are.
        least: Pairs with less are left out.
    """
    iou = pairs.iou.copy()
    of_true: dict[int, bytes] = {}
    last, of_last = -1, b""
    for n, (d, g) in enumerate(zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True)):
        if truth.crowd[g]:
            continue
        size = sizes[int(truth.photo[g])]
        width = band_width(size)
        if d != last:  # a detection's pairs come one behind the other
            last, of_last = d, band(found_rles[d], size, width)
        if g not in of_true:
            of_true[g] = band(truth_rles[g], size, width)
        iou[n] = min(iou[n], float(pixels.iou([of_last], [of_true[g]], size)[0, 0]))
    keep = np.flatnonzero(iou >= least)
    return Overlaps(pairs.detection[keep], pairs.truth[keep], iou[keep])
