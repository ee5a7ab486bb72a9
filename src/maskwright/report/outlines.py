"""Masks to outlines: SVG paths, holes and parts included, at the scale at which a photo is shown.

A path follows the edges between pixels and is filled by the even-odd rule, so a hole needs no direction of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels

TOLERANCE_PX = 0.75
"""How far an outline may leave the pixel edges, in shown pixels; the stairs of a slanted edge are 0.71 deep."""


def loops(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Trace the edges of a mask as closed loops of corners.

    Args:
        mask: `(H, W)` bool.

    Returns:
        Loops `(N, 2)` int64, points `(x, y)` on the grid of pixel corners (0..W, 0..H), not repeated at the end. Filled
        together by the even-odd rule they cover exactly the mask's pixels.

    Example:
        >>> [loop.tolist() for loop in loops(np.ones((2, 3), dtype=bool))]
        [[[0, 0], [3, 0], [3, 2], [0, 2]]]
    """
    padded = np.pad(mask, 1).astype(np.int8)
    around = padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:]
    diagonal = (around == 2) & (padded[:-1, :-1] == padded[1:, 1:])
    # A grid point is a corner where an odd number of its four pixels is object; where two meet by a tip only, twice.
    times = np.where(diagonal, 2, around % 2)
    y, x = np.nonzero(times)
    y, x = np.repeat(y, times[y, x]), np.repeat(x, times[y, x])
    if not len(x):
        return []
    # Along a row the corners are the ends of horizontal edges: first with second, third with fourth; columns likewise.
    beside = _partners(np.arange(len(x)))
    below = _partners(np.lexsort((y, x)))
    seen = np.zeros(len(x), dtype=np.bool_)
    found = []
    across, down = beside.tolist(), below.tolist()
    for start in range(len(x)):
        if seen[start]:
            continue
        loop = []
        here = start
        while True:
            other = across[here]
            loop += [here, other]
            here = down[other]
            if here == start:
                break
        seen[loop] = True
        found.append(np.stack([x[loop], y[loop]], axis=1))
    return found


def _partners(order: NDArray[np.int64]) -> NDArray[np.int64]:
    partner = np.empty(len(order), dtype=np.int64)
    partner[order[0::2]] = order[1::2]
    partner[order[1::2]] = order[0::2]
    return partner


def simplify(loop: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """Drop the points of a closed loop that lie within `tolerance` of the line through those kept.

    The rule is Douglas and Peucker's (1973), on the two halves between the first point and the one farthest from it.

    Args:
        loop: `(N, 2)` points `(x, y)`.
        tolerance: In the unit of the points; 0 keeps the shape exactly.

    Returns:
        `(M, 2)` of the same points, at least three; a loop that would collapse is returned whole.
    """
    count = len(loop)
    if count <= 4 or tolerance <= 0:
        return loop
    points = np.concatenate([loop, loop[:1]]).astype(np.float64)
    middle = int(np.argmax(np.hypot(*(points - points[0]).T)))
    keep = np.zeros(count + 1, dtype=np.bool_)
    keep[[0, middle]] = True
    spans = [(0, middle), (middle, count)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        dx, dy = points[last] - points[first]
        length = math.hypot(dx, dy)
        away = points[first + 1 : last] - points[first]
        distance = np.abs(dx * away[:, 1] - dy * away[:, 0]) / length if length else np.hypot(*away.T)
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            split = first + 1 + worst
            keep[split] = True
            spans += [(first, split), (split, last)]
    kept = loop[keep[:count]]
    return kept if len(kept) >= 3 else loop


def svg_path(shapes: Sequence[NDArray[np.float64]]) -> str:
    """Write closed loops as the `d` of an SVG path, relative and to a tenth of a unit.

    Example:
        >>> svg_path([np.array([[0, 0], [3, 0], [3, 2.26]])])
        'M0 0l3 0 0 2.3z'
    """
    pieces = []
    for shape in shapes:
        tenths = np.rint(np.asarray(shape, dtype=np.float64) * 10).astype(np.int64)
        steps = np.diff(tenths, axis=0)
        steps = steps[(steps != 0).any(axis=1)]
        start = " ".join(_tenth(v) for v in tenths[0].tolist())
        pieces.append(f"M{start}l{' '.join(_tenth(v) for v in steps.ravel().tolist())}z")
    return "".join(pieces)


def _tenth(value: int) -> str:
    whole, rest = divmod(abs(value), 10)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"


def outline(mask: NDArray[np.bool_], shown: pixels.Size, tolerance: float = TOLERANCE_PX) -> str:
    """Return the outline of an object as an SVG path at the scale of the shown photo.

    Args:
        mask: `(H, W)` bool, the object at the photo's size.
        shown: `(height, width)` of the photo as shown; at most the photo's.
        tolerance: See `simplify`, in shown pixels.

    Returns:
        The `d` of a path to be filled by the even-odd rule; empty for an empty mask.
    """
    if not mask.any():
        return ""
    fx, fy = shown[1] / mask.shape[1], shown[0] / mask.shape[0]
    if shown != mask.shape:
        small, left, top = _shrink(mask, fx, fy, shown)
        traced = [loop + np.array([left, top]) for loop in loops(small)]
        if traced:
            return svg_path([simplify(loop, tolerance).astype(np.float64) for loop in traced])
    # Not scaled, or so thin that no shown pixel is half covered: trace the mask itself.
    factor = np.array([fx, fy])
    return svg_path([simplify(loop, tolerance / max(fx, fy)) * factor for loop in loops(mask)])


def top_of(mask: NDArray[np.bool_], shown: pixels.Size) -> tuple[float, float]:
    """Return the point `(x, y)` of the shown photo where an object begins at its top, for its label.

    Args:
        mask: `(H, W)` bool with at least one object pixel.
        shown: `(height, width)` of the photo as shown.
    """
    row = int(np.argmax(mask.any(axis=1)))
    columns = np.flatnonzero(mask[row])
    return (float(columns.mean() + 0.5) * shown[1] / mask.shape[1], row * shown[0] / mask.shape[0])


def box_path(box: Sequence[float], size: pixels.Size, shown: pixels.Size) -> str:
    """Return a box `x1 y1 x2 y2` in photo pixels as an SVG path at the scale of the shown photo."""
    fx, fy = shown[1] / size[1], shown[0] / size[0]
    x1, y1, x2, y2 = box[0] * fx, box[1] * fy, box[2] * fx, box[3] * fy
    return svg_path([np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])])


def _shrink(mask: NDArray[np.bool_], fx: float, fy: float, shown: pixels.Size) -> tuple[NDArray[np.bool_], int, int]:
    """Scale a mask down within its box; a shown pixel is object where at least half of it is covered."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = math.floor(rows[0] * fy), min(math.ceil((rows[-1] + 1) * fy), shown[0])
    left, right = math.floor(columns[0] * fx), min(math.ceil((columns[-1] + 1) * fx), shown[1])
    height, width = mask.shape
    region = (left / fx, top / fy, min(right / fx, width), min(bottom / fy, height))
    grey = PillowImage.fromarray(mask.astype(np.uint8) * 255)
    small = grey.resize((right - left, bottom - top), PillowImage.Resampling.BOX, box=region)
    return np.asarray(small) >= 128, left, top
