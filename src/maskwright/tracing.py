"""Trace masks to polygons along the edges of their pixels, such that COCO's rasteriser gives the same pixels back.

The convention. COCO's rasteriser (`rleFrPoly` in pycocotools' maskApi.c, and hotcoco's port of it) scales a polygon by
five, walks along it, and notes where it passes the centre line of a pixel column; a column is then object between the
first and the second note, the third and the fourth, and so on. A horizontal edge at a whole y is noted between the
pixels y - 1 and y of every column that it passes, a vertical edge nowhere. So corners of pixels, as whole numbers, need
no offset: column x of pixels lies between x and x + 1, and the polygon that runs along the pixels' edges is the mask.

Holes. COCO has no word for them, but what is walked there and back is noted twice at one place and cancels out. So
each hole is joined to the outline above it by a slit of no width, which lies inside the object: from the hole's upper
left corner straight up. The polygon stays one ring, exact under COCO's rule, under the even-odd rule and (holes are
walked the other way round) under the non-zero winding rule; its signed area is the mask's. Two other ways were
weighed. Filling the holes is what converters do, and loses them. Cutting the object into pieces without holes is
exact too, and each piece would be a simple polygon; but every tool that takes one polygon for one object (YOLO, most
editors) would then see several. The price of the slit: strict geometry software calls such a ring invalid (in
Shapely, `make_valid` and `buffer(0)` give the mask's shape, hole and all, with its exact area), and rasterisers that
paint the outline itself (OpenCV, Pillow) paint the slit too, where the object is anyway.

Parts (8 neighbours, as everywhere here) are one polygon each; `joined` makes them one by bridges of no width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.pixels import Size

Polygon = NDArray[np.int64]
"""`(N, 2)` int64, corners `x y` of pixels in order, clockwise as seen; the last is joined to the first."""

MOST_NEAR = 20_000
"""A bridge goes to the nearest of so many corners; a mask of noise has hundreds of thousands, and none is better."""


def outlines(rle: bytes, size: Size) -> list[Polygon]:
    """Trace a mask; the union of the polygons is exactly the mask under COCO's rasteriser.

    Args:
        rle: COCO compressed counts.
        size: `(height, width)` of the photo.

    Returns:
        One polygon per connected part (8 neighbours), by their leftmost column; holes are joined to it by slits of no
        width. Corners are in `0..width` and `0..height`; only where the outline turns or a slit starts is one. Empty
        for an empty mask.

    Example:
        >>> outlines(pixels.encode(np.ones((2, 3), dtype=bool)), (2, 3))[0].tolist()
        [[0, 0], [3, 0], [3, 2], [0, 2]]
    """
    column, line, start = _edges(rle, size)
    if not len(column):
        return []
    # Every horizontal edge is one pixel long: it is the east edge of its left corner and the west edge of its
    # right one.  A corner whose east and west edge have the object on the same side is passed straight, so both
    # are taken away.
    xs = np.concatenate([column, column + 1])
    ys = np.concatenate([line, line])
    opens = np.concatenate([start, start])
    east = np.repeat([True, False], len(column))
    high, wide = size[0] + 1, size[1] + 1
    keys = 2 * (xs * high + ys) + ~opens
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    alone = np.ones(len(keys), dtype=np.bool_)
    alone[1:] &= ~same
    alone[:-1] &= ~same
    order = order[alone]
    xs, ys, opens, east = xs[order], ys[order], opens[order], east[order]
    # What is left are the corners, by column and in it downwards: each has one vertical edge, to its neighbour in this
    # order, and one horizontal edge, to its neighbour in the order by lines. Where pixels touch diagonally two corners
    # lie at one place; the orders keep them apart such that the pixels are joined.
    count = len(xs)
    line_keys = 2 * (ys * wide + xs) + east
    by_line = np.argsort(line_keys, kind="stable")
    across = np.empty(count, dtype=np.int64)
    across[by_line[0::2]] = by_line[1::2]
    across[by_line[1::2]] = by_line[0::2]
    # Clockwise: eastwards along an upper edge, westwards along a lower one.
    following = np.where(east == opens, across, np.arange(count) ^ 1)
    rings = _rings(following.tolist())
    if len(rings) == 1:
        ring = rings[0]
        return [np.column_stack([xs[ring], ys[ring]])]
    walked = np.concatenate([np.asarray(ring, dtype=np.int64) for ring in rings])
    firsts = np.cumsum([0, *(len(ring) for ring in rings[:-1])])
    ahead = following[walked]
    doubled = xs[walked] * ys[ahead] - xs[ahead] * ys[walked]
    is_hole = np.add.reduceat(doubled, firsts) < 0
    if not is_hole.any():
        return [np.column_stack([xs[ring], ys[ring]]) for ring in rings]
    # The upper left corner of each hole, and the upper end of the run of pixels above it.
    top_keys = np.where(east & ~opens, ys * wide + xs, high * wide)
    tops = top_keys[walked]
    lowest = np.minimum.reduceat(tops, firsts)
    ring_of = np.repeat(np.arange(len(rings)), np.diff([*firsts.tolist(), len(walked)]))
    at = np.flatnonzero((tops == lowest[ring_of]) & is_hole[ring_of])
    corners = walked[at]
    above = line[np.searchsorted(column * high + line, xs[corners] * high + ys[corners]) - 1]
    found = np.searchsorted(line_keys[by_line], 2 * (above * wide + xs[corners]) + 1, side="right") - 1
    links = sorted(zip(by_line[found].tolist(), xs[corners].tolist(), above.tolist(), corners.tolist(), strict=True))
    chain, x_list, y_list = following.tolist(), xs.tolist(), ys.tolist()
    before = across.tolist()  # a hole comes to its upper left corner along its upper edge
    for left, x, y, corner in reversed(links):  # where several slits start from one edge, the left one comes first
        back = _add(chain, x_list, y_list, x_list[corner], y_list[corner])
        away = _add(chain, x_list, y_list, x, y)
        chain[before[corner]] = back
        chain[back] = away
        chain[away] = chain[left]
        if x_list[left] == x:
            chain[left] = corner
        else:
            there = _add(chain, x_list, y_list, x, y)
            chain[left] = there
            chain[there] = corner
    points = np.column_stack([x_list, y_list])
    return [points[_ring(chain, rings[k][0])] for k in np.flatnonzero(~is_hole).tolist()]


def joined(polygons: Sequence[Polygon]) -> Polygon:
    """Join polygons to one, by bridges of no width between near corners; COCO's rasteriser gives their union.

    Args:
        polygons: At least one; they must not overlap (those of `outlines` do not).

    Example:
        >>> joined(outlines(pixels.encode(np.array([[1, 0, 1]])), (1, 3))).tolist()
        [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1], [2, 1], [2, 0], [1, 0], [1, 1], [0, 1]]
    """
    if len(polygons) == 1:
        return polygons[0]
    points = np.concatenate(polygons)
    ends = np.cumsum([len(polygon) for polygon in polygons])
    chain = list(range(1, len(points) + 1))
    for first, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        chain[end - 1] = first
    x_list, y_list = points[:, 0].tolist(), points[:, 1].tolist()
    for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        # From the nearest corner of all before to the first corner, then from there to the nearest of this polygon.
        oldest = max(0, first - MOST_NEAR)
        near = oldest + int(np.argmin(((points[oldest:first] - points[first]) ** 2).sum(axis=1)))
        mine = first + int(np.argmin(((points[first:end] - points[near]) ** 2).sum(axis=1)))
        previous = mine - 1 if mine > first else end - 1
        back = _add(chain, x_list, y_list, x_list[mine], y_list[mine])
        away = _add(chain, x_list, y_list, x_list[near], y_list[near])
        chain[previous] = back
        chain[back] = away
        chain[away] = chain[near]
        chain[near] = mine
    return np.column_stack([x_list, y_list])[_ring(chain, 0)]


def flat(polygon: Polygon) -> list[int]:
    """Return a polygon as COCO writes it, `[x1, y1, x2, y2, ...]`."""
    return [int(value) for value in polygon.ravel().tolist()]


def _edges(rle: bytes, size: Size) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the horizontal edges of the pixels: column, line above which they lie, whether the object starts there.

    They come column by column and downwards, start and end in turn.
    """
    height = size[0]
    bounds = np.cumsum(pixels.runs(rle))
    ends = bounds[1::2]
    starts = bounds[0::2][: len(ends)]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    first = starts // height
    pieces = (ends - 1) // height - first + 1  # a run that goes on in the next column is cut
    if (pieces > 1).any():
        which = np.repeat(np.arange(len(starts)), pieces)
        step = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        top = (first[which] + step) * height
        starts, ends = np.maximum(starts[which], top), np.minimum(ends[which], top + height)
        first = first[which] + step
    lines = np.column_stack([starts - first * height, ends - first * height]).ravel()
    return np.repeat(first, 2), lines, np.tile([True, False], len(starts))


def _rings(following: list[int]) -> list[list[int]]:
    """Return the cycles of a permutation, each from its least member."""
    rings = []
    seen = bytearray(len(following))
    start = 0
    while start >= 0:
        ring = _ring(following, start)
        for member in ring:
            seen[member] = 1
        rings.append(ring)
        start = seen.find(0, start)
    return rings


def _ring(following: list[int], start: int) -> list[int]:
    ring = [start]
    at = following[start]
    while at != start:
        ring.append(at)
        at = following[at]
    return ring


def _add(chain: list[int], xs: list[int], ys: list[int], x: int, y: int) -> int:
    chain.append(-1)
    xs.append(x)
    ys.append(y)
    return len(chain) - 1
