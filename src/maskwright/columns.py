"""Read COCO annotations in bulk: a file without faults becomes columns in one pass, many times faster than row by row.

Only rows in COCO's plain form are taken. At the first row that is anything else, nothing is taken: the careful reader
in `dataset.py` then reads row by row, converts what can be converted, and names every row that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from hotcoco import mask as codec
from numpy.typing import NDArray

from maskwright import pixels

_DIGITS = re.compile(r"-?[0-9]+")
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
        outlined: `(M,)` bool, which of `rles` are not RLEs but polygons as JSON, or `None`: none of them.
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
    outlined: NDArray[np.bool_] | None = None

    @staticmethod
    def join(parts: Sequence[Columns]) -> Columns:
        """Put columns end to end; `measured` and `outlined` only if all parts have them."""
        measured = [part.measured for part in parts if part.measured is not None]
        outlined = [part.outlined for part in parts if part.outlined is not None]
        return Columns(
            positions=np.concatenate([part.positions for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            category_ids=np.concatenate([part.category_ids for part in parts]),
            crowd=np.concatenate([part.crowd for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            areas=np.concatenate([part.areas for part in parts]),
            boxes=np.concatenate([part.boxes for part in parts]),
            rles=[rle for part in parts for rle in part.rles],
            measured=np.concatenate(measured) if len(measured) == len(parts) else None,
            outlined=np.concatenate(outlined) if len(outlined) == len(parts) else None,
        )


@dataclass(frozen=True)
class Masks:
    """The masks of many objects in one buffer, which processes share: RLEs, and polygons that are drawn when asked for.

    Attributes:
        data: uint8, RLEs and polygons end to end, in any order.
        starts: `(M,)` int64, where each begins in `data`.
        ends: `(M,)` int64, where each ends; at `starts` if there is a box only.
        outlined: `(M,)` bool: not an RLE but a list of polygons, as COCO's JSON, which can be drawn.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    outlined: NDArray[np.bool_]

    @staticmethod
    def of(rles: Sequence[bytes]) -> Masks:
        """Pack RLEs; empty ones stand for no mask."""
        ends = np.cumsum([0, *(len(rle) for rle in rles)], dtype=np.int64)
        data = np.frombuffer(b"".join(rles), dtype=np.uint8)
        return Masks(data, ends[:-1], ends[1:], np.zeros(len(rles), dtype=np.bool_))

    @staticmethod
    def join(parts: Sequence[Masks]) -> Masks:
        """Put masks end to end."""
        before = np.cumsum([0, *(len(part.data) for part in parts)])[:-1]
        return Masks(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.starts + n for part, n in zip(parts, before, strict=True)]),
            np.concatenate([part.ends + n for part, n in zip(parts, before, strict=True)]),
            np.concatenate([part.outlined for part in parts]),
        )

    def ordered(self, order: NDArray[np.int64]) -> Masks:
        """Return the masks that `order` names, over the same buffer."""
        return Masks(self.data, self.starts[order], self.ends[order], self.outlined[order])

    def select(self, chosen: NDArray[np.int64]) -> Masks:
        """Return the masks that `chosen` names, with a buffer of their own."""
        spans = zip(self.starts[chosen].tolist(), self.ends[chosen].tolist(), strict=True)
        pieces = [self.data[start:end] for start, end in spans]
        ends = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
        data = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint8)
        return Masks(data, ends[:-1], ends[1:], self.outlined[chosen])

    def rle(self, k: int, size_of: Callable[[int], pixels.Size]) -> bytes:
        """Return one RLE; `size_of` tells the `(height, width)` of an object's photo."""
        found = self.data[self.starts[k] : self.ends[k]].tobytes()
        return _drawn(found, size_of(k)) if self.outlined[k] else found

    def rles(self, size_of: Callable[[int], pixels.Size]) -> list[bytes]:
        """Return every RLE, as `rle` does."""
        joined = self.data.tobytes()
        found = [joined[a:b] for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]
        for k in np.flatnonzero(self.outlined).tolist():
            found[k] = _drawn(found[k], size_of(k))
        return found

    def packed(self) -> bool:
        """Tell whether the buffer is all RLEs, end to end in order."""
        if not len(self.starts):
            return not len(self.data)
        whole = self.starts[0] == 0 and self.ends[-1] == len(self.data)
        return bool(whole and (self.starts[1:] == self.ends[:-1]).all() and not self.outlined.any())


def _drawn(polygons: bytes, size: pixels.Size) -> bytes:
    import orjson

    return pixels.from_polygons(orjson.loads(polygons), size)


@dataclass(frozen=True)
class Fields:
    """What the rows of a COCO file give, field by field; `None` stands for what a row does not give.

    Attributes:
        positions: `(M,)` int32, position of the photo.
        ids: Whole numbers.
        category_ids: Whole numbers.
        crowd: 0 or 1.
        scores: Numbers.
        areas: Numbers in pixels.
        boxes: `x y width height` in pixels.
        segmentations: RLEs and polygons as COCO has them; `None` where `outlined`.
        outlined: `(M,)` bool, which rows have polygons that are kept elsewhere.
    """

    positions: NDArray[np.int32]
    ids: Sequence[Any]
    category_ids: Sequence[Any]
    crowd: Sequence[Any]
    scores: Sequence[Any]
    areas: Sequence[Any]
    boxes: Sequence[Any]
    segmentations: Sequence[Any]
    outlined: NDArray[np.bool_]


def read_columns(
    rows: Any, index: Mapping[int, int], sizes: Sequence[pixels.Size], draw: Callable[[Any, pixels.Size], bytes]
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
        fields = Fields(
            positions=np.array([index[row["image_id"]] for row in rows], dtype=np.int32),
            ids=[row.get("id", n) for n, row in enumerate(rows, start=1)],
            category_ids=[row["category_id"] for row in rows],
            crowd=[row.get("iscrowd", 0) for row in rows],
            scores=[row.get("score") for row in rows],
            areas=[row.get("area") for row in rows],
            boxes=[row.get("bbox") or None for row in rows],
            segmentations=[row.get("segmentation") for row in rows],
            outlined=np.zeros(len(rows), dtype=np.bool_),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    return columns_of(fields, sizes, draw)


def columns_of(
    fields: Fields, sizes: Sequence[pixels.Size], draw: Callable[[Any, pixels.Size], bytes]
) -> Columns | None:
    """Make columns of fields that are all in plain form.

    Args:
        fields: Where polygons are kept elsewhere, the place in `rles` is empty, and an area or box that is not given
            stays NaN.
        sizes: `(height, width)` of each photo.
        draw: Turns a polygon list into an RLE, or raises ValueError.

    Returns:
        The columns, or `None` if any row needs the careful reader.
    """
    positions, outlined = fields.positions, fields.outlined
    try:
        ids = _integers(fields.ids)
        category_ids = _integers(fields.category_ids)
        if not {0, 1}.issuperset(fields.crowd):
            return None
        crowd = np.fromiter(map(bool, fields.crowd), dtype=np.bool_, count=len(positions))
        scores = _numbers(fields.scores)
        if np.isinf(scores).any() or np.isnan(scores).sum() != fields.scores.count(None):
            return None
        areas = _numbers(fields.areas)
        areas[np.isinf(areas)] = np.nan
        boxes = _boxes(fields.boxes)
        found = _rles(fields.segmentations, outlined, positions, sizes, draw)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    if found is None:
        return None
    rles, measured = found
    if (np.isnan(measured[:, 0]) & np.isnan(boxes[:, 0]) & ~outlined).any():
        return None  # neither a mask nor a box
    areas = np.where(np.isnan(areas), measured[:, 0], areas)
    if np.isnan(boxes).any():
        tight = measured[:, 1:] + np.pad(measured[:, 1:3], ((0, 0), (2, 0)))
        boxes = np.where(np.isnan(boxes), tight, boxes)
    if outlined.any():
        return Columns(positions, ids, category_ids, crowd, scores, areas, boxes, rles, None, outlined)
    return Columns(positions, ids, category_ids, crowd, scores, areas, boxes, rles, measured, outlined)


def whole(value: Any) -> int:
    """Return an id as a whole number; text only if it is digits, since Python takes `1_23` and `12_3` for one number.

    Raises:
        TypeError, ValueError, OverflowError: If it is none.

    Example:
        >>> whole(7), whole("-7"), whole(7.0)
        (7, -7, 7)
    """
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def crowd_of(value: Any) -> bool:
    """Read `iscrowd`, which is 0 or 1, also as a truth value or in quotation marks; `None` is 0, as where it is absent.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> [crowd_of(value) for value in (0, 1, True, "0", "1", None)]
        [False, True, True, False, True, False]
    """
    if value not in (0, 1, "0", "1", None):
        raise ValueError(f"iscrowd is 0 or 1, not {value!r}")
    return value in (1, "1")


def _integers(values: Sequence[Any]) -> NDArray[np.int64]:
    array = np.array(values) if values else np.zeros(0, dtype=np.int64)
    if array.dtype != np.int64 or array.ndim != 1:
        raise TypeError
    return array


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Turn numbers into an array; NaN stands for `None`."""
    if values.count(None) == len(values):
        return np.full(len(values), np.nan)
    return np.array(values, dtype=np.float64)


def _boxes(given: Sequence[Any]) -> NDArray[np.float64]:
    """Turn COCO's `x y width height` into `x1 y1 x2 y2`; NaN where there is none."""
    nothing = (np.nan,) * 4
    if set(map(type, given)) <= {list, tuple} and set(map(len, given)) == {4}:  # as usual, and in a third of the time
        boxes = np.fromiter(chain.from_iterable(given), dtype=np.float64, count=4 * len(given)).reshape(-1, 4)
        if np.isfinite(boxes).all() and (boxes[:, 2:] >= 0).all():
            boxes[:, 2:] += boxes[:, :2]
            return boxes
    else:
        boxes = np.array([nothing if box is None else box for box in given], dtype=np.float64).reshape(-1, 4)
    if len(boxes) != len(given) or np.isnan(boxes).any(axis=1).sum() != given.count(None):
        raise ValueError
    if np.isinf(boxes).any() or (boxes[:, 2:] < 0).any():
        raise ValueError
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _rles(
    given: Sequence[Any],
    outlined: NDArray[np.bool_],
    positions: NDArray[np.int32],
    sizes: Sequence[pixels.Size],
    draw: Callable[[Any, pixels.Size], bytes],
) -> tuple[list[bytes], NDArray[np.float64]] | None:
    """Return the RLEs, and area and tight `x y width height` of each mask (NaN where there is none or an outline)."""
    rles = [b""] * len(given)
    masked = [k for k, segmentation in enumerate(given) if segmentation]
    for k in masked:
        segmentation, size = given[k], sizes[positions[k]]
        if isinstance(segmentation, list):
            rles[k] = draw(segmentation, size)
        elif segmentation["size"] != [*size]:
            return None
        elif type(segmentation["counts"]) is str:
            rles[k] = segmentation["counts"].encode("ascii")
        else:
            rles[k] = _compressed(segmentation["counts"], size)
    measured = np.full((len(given), 5), np.nan)
    if masked:
        compressed = [rles[k] for k in masked]
        shapes = [sizes[position] for position in positions[masked].tolist()]
        dicts = [pixels.coco_rle(rle, size) for rle, size in zip(compressed, shapes, strict=True)]
        measured[masked, 1:] = codec.to_bbox(dicts)  # refuses runs that are negative or exceed the photo
        sums = run_sums(compressed)
        if sums is None:
            return None
        if (sums.sum(axis=0) != np.prod(shapes, axis=1)).any():
            return None
        measured[masked, 0] = sums[1]
    return rles, measured


def _compressed(counts: Any, size: pixels.Size) -> bytes:
    """Compress uncompressed runs that are plain."""
    if type(counts) is not list or set(map(type, counts)) != {int}:
        raise TypeError
    if 0 in counts[1:] or min(counts) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError  # an empty run is no fault, but with it this RLE would not be the shortest
    return pixels.compress(counts, size)


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
