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

_CHUNK_BYTES = 1 << 17
"""RLEs are checked in pieces of about this size, so that what is in work fits the processor's cache."""

_CARRIES = bytes(range(48 + 32, 48 + 64))
"""The digits of a run in an RLE that are followed by more."""

_SIGNED = bytes(((code - 48 & 31) ^ 16) - 16 & 255 for code in range(256))
"""The value of the last digit of a run, as a byte with sign."""


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
        measured: `(M, 5)` float64, area and tight `x y width height` of each mask, NaN where there is a box only; or
            `None` if not measured.
    """

    positions: NDArray[np.int32]
    ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    rles: list[bytes]
    measured: NDArray[np.float64] | None = None


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
        found = _rles([row.get("segmentation") or None for row in rows], positions, sizes, draw)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    if found is None:
        return None
    rles, measured = found
    if (np.isnan(measured[:, 0]) & np.isnan(boxes[:, 0])).any():
        return None
    areas = np.where(np.isnan(areas), measured[:, 0], areas)
    tight = measured[:, 1:] + np.pad(measured[:, 1:3], ((0, 0), (2, 0)))
    boxes = np.where(np.isnan(boxes), tight, boxes)
    return Columns(positions, ids, category_ids, crowd, scores, areas, boxes, rles, measured)


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
    positions: NDArray[np.int32],
    sizes: Sequence[pixels.Size],
    draw: Callable[[Any, pixels.Size], bytes],
) -> tuple[list[bytes], NDArray[np.float64]] | None:
    """Return the RLEs, and area and tight `x y width height` of each mask (NaN where there is none)."""
    rles, compressed = [], []
    sides = [list(size) for size in sizes]
    for segmentation, position in zip(given, positions.tolist(), strict=True):
        if segmentation is None:
            rles.append(b"")
        elif isinstance(segmentation, list):
            rles.append(draw(segmentation, sizes[position]))
            compressed.append(pixels.coco_rle(rles[-1], sizes[position]))
        elif segmentation["size"] == sides[position] and type(segmentation["counts"]) is str:
            rles.append(segmentation["counts"].encode("ascii"))
            compressed.append(segmentation)
        else:
            return None
    measured = np.full((len(given), 5), np.nan)
    if compressed:
        masked = np.flatnonzero([segmentation is not None for segmentation in given])
        measured[masked, 1:] = codec.to_bbox(compressed)  # refuses runs that are negative or exceed the photo
        sums = run_sums([rle for rle, segmentation in zip(rles, given, strict=True) if segmentation is not None])
        if sums is None or (sums.sum(axis=0) != np.prod(sizes, axis=1)[positions[masked]]).any():
            return None
        measured[masked, 0] = sums[1]
    return rles, measured


def run_sums(rles: Sequence[bytes]) -> NDArray[np.int64] | None:
    """Add up the runs of each RLE, the background's and the object's; a whole RLE has height x width in all.

    Args:
        rles: COCO compressed counts, none of them empty.

    Returns:
        `(2, N)` int64, pixels of background and object, or `None` if any is not in COCO's compressed form.

    Example:
        >>> run_sums([pixels.encode(np.eye(3, dtype=bool)), pixels.encode(np.ones((2, 5), dtype=bool))]).tolist()
        [[6, 0], [3, 10]]
    """
    sums = []
    ends = np.cumsum([len(rle) for rle in rles])
    start = 0
    while start < len(rles):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK_BYTES)))
        chunk = _sums(b"".join(rles[start:stop]), ends[start:stop] - before)
        if chunk is None:
            return None
        sums.append(chunk)
        start = stop
    return np.concatenate(sums, axis=1) if sums else np.zeros((2, 0), dtype=np.int64)


def _sums(joined: bytes, ends: NDArray[np.int64]) -> NDArray[np.int64] | None:
    # A run is written as base-32 digits, least first, a sixth bit saying that more follow, the last digit signed; from
    # the fourth run on it is the difference to the run before the last (`rleToString` in pycocotools' maskApi.c).
    digits = np.frombuffer(joined, dtype=np.uint8) - np.uint8(48)
    if digits.max() > 63 or (np.diff(ends, prepend=0) <= 0).any() or (digits[ends - 1] > 31).any():
        return None
    values = np.frombuffer(joined.translate(_SIGNED, _CARRIES), dtype=np.int8).astype(np.int64)
    carries = np.flatnonzero(digits > 31)
    if len(carries):
        run = carries - np.arange(len(carries))
        leads = np.flatnonzero(np.diff(run, prepend=-1))
        lengths = np.diff(leads, append=len(run))
        if lengths.max() > 6:
            return None
        place = np.arange(len(run)) - np.repeat(leads, lengths)
        longer = run[leads]
        lower = np.add.reduceat((digits[carries] & 31).astype(np.int64) << 5 * place, leads)
        values[longer] = (values[longer] << 5 * lengths) + lower
    after = (ends - np.searchsorted(carries, ends)).astype(np.int32)
    counts = np.diff(after, prepend=np.int32(0))
    firsts = after - counts
    alone = values[firsts]
    values[firsts] = 0  # the first run is nobody's base: the third one stands by itself
    sums = []
    for turn in (0, 1):
        # Adding up twice gives the runs, then their sums; what the masks before brought in is taken off again.
        start, end = (firsts + 1 - turn) // 2, (after + 1 - turn) // 2
        once = np.zeros((len(values) + 1 - turn) // 2 + 1, dtype=np.int64)
        np.cumsum(values[turn::2], out=once[1:])
        twice = np.cumsum(once)
        sums.append(twice[end] - twice[start] - (end - start) * once[start])
    background, pixels_set = np.where(firsts % 2 == 0, sums, sums[::-1])  # each RLE starts with background
    return np.stack([background + alone, pixels_set])
