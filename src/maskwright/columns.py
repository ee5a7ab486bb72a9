"""Read COCO annotations in bulk: a file without faults becomes columns in one pass, many times faster than row by row.

Only rows in COCO's plain form are taken. At the first row that is anything else, nothing is taken: the careful reader
in `dataset.py` then reads row by row, converts what can be converted, and names every row that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as codec
from numpy.typing import NDArray

from maskwright import pixels

_CHUNK_BYTES = 1 << 16
"""RLEs are checked in pieces of about this size, so that what is in work fits the processor's cache."""


@dataclass(frozen=True)
class Columns:
    """Objects in columns, in any order of photos; NaN stands for what a file does not give.

    Attributes:
        positions: `(M,)` int32, position of the photo.
        ids: `(M,)` int64.
        category_ids: `(M,)` int64.
        crowd: `(M,)` bool.
        scores: `(M,)` float64.
        areas: `(M,)` float64 in pixels.
        boxes: `(M, 4)` float64, `x1 y1 x2 y2` in pixels, end exclusive.
        rles: COCO compressed counts; empty bytes where there is a box only.
    """

    positions: NDArray[np.int32]
    ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    rles: list[bytes]


def read_columns(
    rows: Any,
    index: Mapping[int, int],
    sizes: Sequence[pixels.Size],
    draw: Callable[[Any, pixels.Size], bytes],
) -> Columns | None:
    """Read COCO annotations or results that are all in plain form.

    Args:
        rows: The parsed list.
        index: Position of the photo of each image id.
        sizes: `(height, width)` of each photo.
        draw: Turns a polygon list into an RLE, or raises ValueError.

    Returns:
        The columns, or `None` if any row needs the careful reader.
    """
    if not isinstance(rows, list):
        return None
    try:
        positions = np.array([index[row["image_id"]] for row in rows], dtype=np.int32)
        ids = _integers([row.get("id", n) for n, row in enumerate(rows, start=1)])
        category_ids = _integers([row["category_id"] for row in rows])
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in rows], dtype=np.bool_)
        given = [row.get("score") for row in rows]
        scores = np.array(given, dtype=np.float64)
        if np.isinf(scores).any() or np.isnan(scores).sum() != given.count(None):
            return None
        areas = np.array([row.get("area") for row in rows], dtype=np.float64)
        areas[np.isinf(areas)] = np.nan
        boxes = _boxes([row.get("bbox") or None for row in rows])
        found = _rles([row.get("segmentation") or None for row in rows], positions.tolist(), sizes, draw)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    if found is None:
        return None
    rles, mask_areas = found
    if (np.isnan(mask_areas) & np.isnan(boxes[:, 0])).any():
        return None
    areas = np.where(np.isnan(areas), mask_areas, areas)
    return Columns(positions, ids, category_ids, crowd, scores, areas, boxes, rles)


def _integers(values: list[Any]) -> NDArray[np.int64]:
    array = np.array(values) if values else np.zeros(0, dtype=np.int64)
    if array.dtype != np.int64 or array.ndim != 1:
        raise TypeError
    return array


def _boxes(given: list[Any]) -> NDArray[np.float64]:
    """Turn COCO's `x y width height` into `x1 y1 x2 y2`; NaN where there is none."""
    nothing = (np.nan,) * 4
    boxes = np.array([nothing if box is None else box for box in given], dtype=np.float64).reshape(-1, 4)
    if len(boxes) != len(given) or np.isnan(boxes).any(axis=1).sum() != given.count(None):
        raise ValueError
    if np.isinf(boxes).any() or (boxes[:, 2:] < 0).any():
        raise ValueError
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _rles(
    given: list[Any],
    positions: list[int],
    sizes: Sequence[pixels.Size],
    draw: Callable[[Any, pixels.Size], bytes],
) -> tuple[list[bytes], NDArray[np.float64]] | None:
    """Return the RLEs, and the area of each mask (NaN where there is none)."""
    rles, masked, compressed, pixel_counts = [], [], [], []
    sides = [list(size) for size in sizes]
    for k, (segmentation, position) in enumerate(zip(given, positions, strict=True)):
        if segmentation is None:
            rles.append(b"")
            continue
        masked.append(k)
        if isinstance(segmentation, list):
            rles.append(draw(segmentation, sizes[position]))
            compressed.append(pixels.coco_rle(rles[-1], sizes[position]))
        elif segmentation["size"] == sides[position] and type(segmentation["counts"]) is str:
            rles.append(segmentation["counts"].encode("ascii"))
            compressed.append(segmentation)
        else:
            return None
        pixel_counts.append(sizes[position][0] * sizes[position][1])
    areas = np.full(len(given), np.nan)
    if masked:
        areas[masked] = codec.area(compressed)  # refuses runs that are negative or exceed the photo
        totals = run_totals([rles[k] for k in masked])
        if totals is None or (totals != np.array(pixel_counts)).any():
            return None
    return rles, areas


def run_totals(rles: Sequence[bytes]) -> NDArray[np.int64] | None:
    """Add up the runs of each RLE; what a whole RLE gives is height x width.

    Args:
        rles: COCO compressed counts, none of them empty.

    Returns:
        `(N,)` int64, or `None` if any of them is not in COCO's compressed form.

    Example:
        >>> run_totals([pixels.encode(np.eye(3, dtype=bool)), pixels.encode(np.ones((2, 5), dtype=bool))]).tolist()
        [9, 10]
    """
    totals = []
    ends = np.cumsum([len(rle) for rle in rles])
    start = 0
    while start < len(rles):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK_BYTES)))
        chunk = _totals(b"".join(rles[start:stop]), ends[start:stop] - before)
        if chunk is None:
            return None
        totals.append(chunk)
        start = stop
    return np.concatenate(totals) if totals else np.zeros(0, dtype=np.int64)


def _totals(joined: bytes, ends: NDArray[np.int64]) -> NDArray[np.int64] | None:
    # A run is written as base-32 digits, least first, a sixth bit saying that more follow, the last digit signed; from
    # the fourth run on it is the difference to the run before the last (`rleToString` in pycocotools' maskApi.c). Run j
    # is therefore counted once in itself and once in every second run after it.
    digits = np.frombuffer(joined, dtype=np.uint8) - np.uint8(48)
    if digits.max() > 63:
        return None
    stops = np.flatnonzero(digits < 32).astype(np.int32)
    after = np.searchsorted(stops, ends).astype(np.int32)
    counts = np.diff(after, prepend=np.int32(0))
    if (counts <= 0).any() or (stops[after - 1] != ends - 1).any():
        return None
    more = np.diff(stops, prepend=np.int32(-1)) - np.int32(1)
    if more.max() > 6:
        return None
    last = digits[stops].astype(np.int64)
    values = (last & 15) - (last & 16)
    longer = np.flatnonzero(more)
    place = 1
    while len(longer):
        values[longer] = values[longer] << 5 | (digits[stops[longer] - place] & 31)
        place += 1
        longer = longer[more[longer] >= place]
    firsts = after - counts
    weights = np.right_shift(np.repeat(after + np.int32(1), counts) - np.arange(len(values), dtype=np.int32), 1)
    weights[firsts] = 1  # the first run is nobody's base: the third one stands by itself
    return np.asarray(np.add.reduceat(values * weights, firsts), dtype=np.int64)
