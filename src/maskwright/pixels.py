"""The pixel codec: mask <-> RLE <-> id image <-> polygon, with areas and boxes taken from the runs.

RLE here means COCO's compressed run-length counts as `bytes`; its size is the `(height, width)` of the photo that it
belongs to, so it is not stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import mask as codec
from numpy.typing import NDArray

Size = tuple[int, int]
"""`(height, width)` in pixels."""

_LARGE = 1 << 24
"""In masks of more pixels than this changes are counted before they are listed, which costs a tenth of the time."""

LEFT_RIGHT, UPSIDE_DOWN, TRANSPOSED = frozenset({2, 3, 7, 8}), frozenset({3, 4, 6, 7}), frozenset({5, 6, 7, 8})
"""The EXIF orientations for which a stored picture is mirrored left-right, mirrored upside down, and then transposed to
be upright (TIFF 6.0, tag 274)."""


def coco_rle(rle: bytes, size: Size) -> dict[str, Any]:
    """Return COCO's dict form of an RLE: `{"size": [height, width], "counts": bytes}`."""
    return {"size": [int(size[0]), int(size[1])], "counts": rle}


def encode(mask: NDArray[Any]) -> bytes:
    """Encode one mask as RLE, without loss.

    Args:
        mask: `(H, W)`, bool or uint8; non-zero is object.

    Returns:
        COCO compressed counts.

    Example:
        >>> decode(encode(np.eye(3, dtype=bool)), (3, 3)).tolist()
        [[True, False, False], [False, True, False], [False, False, True]]
    """
    if mask.dtype != np.bool_:
        mask = mask != 0
    counts = few_runs(mask)
    if counts is not None:
        return compress(counts.tolist(), (mask.shape[0], mask.shape[1]))
    # Column-major is the order COCO counts in; hotcoco reads it there without a copy of its own.
    return bytes(codec.encode(np.asfortranarray(mask))["counts"])


def few_runs(
    mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: Size | None = None
) -> NDArray[np.int64] | None:
    """Return the run lengths of a mask, 0, 1, 0, 1 ... in column order, if they are few and so can be found quickly.

    Turning a picture to column order costs more than all the rest of encoding it; so the few places where a column
    changes are found in row order, and only they are sorted.

    Args:
        mask: `(H, W)` bool; all of the photo, or a window of it outside which it is empty.
        corner: Line and column of the photo where the window begins.
        size: `(height, width)` of the photo; that of the mask if not given.

    Returns:
        The runs, or `None` where many pixels differ from their neighbours, or memory is not in row order.

    Example:
        >>> few_runs(np.ones((2, 2), dtype=bool), (30, 30), (62, 62))[:4].tolist()
        [1890, 2, 60, 2]
    """
    if not mask.size or not mask.flags.c_contiguous:
        return None
    height, width = (mask.shape[0], mask.shape[1]) if size is None else size
    differ, most = mask[1:] != mask[:-1], height * width // 32
    if mask.size > _LARGE and np.count_nonzero(differ) >= most:
        return None  # before each place takes eight bytes
    changes = np.flatnonzero(differ)
    if len(changes) >= most:
        return None
    line, column = np.divmod(changes, mask.shape[1])
    first, last = np.flatnonzero(mask[0]), np.flatnonzero(mask[-1])
    begin = corner[1] * height + corner[0]
    edges = np.empty(len(changes) + len(first) + len(last) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, height * width
    inner, ends = edges[1 : len(changes) + 1], edges[len(changes) + 1 : -1]
    np.multiply(column, height, out=inner)
    inner += line
    inner += begin + 1
    ends[: len(first)] = first * height + begin
    ends[len(first) :] = last * height + (begin + len(mask))
    inside = edges[1:-1]
    inside.sort()
    if len(mask) == height:  # a run goes on from the foot of a column to the top of the next
        same = np.flatnonzero(inside[1:] == inside[:-1])
        if len(same):
            edges = np.delete(edges, np.concatenate([same + 1, same + 2]))
    counts = edges[1:] - edges[:-1]
    return counts if counts[-1] or len(counts) == 1 else counts[:-1]  # COCO writes no empty last run


def decode(rle: bytes, size: Size) -> NDArray[np.bool_]:
    """Decode an RLE to a `(H, W)` bool mask."""
    return np.asarray(codec.decode(coco_rle(rle, size))).astype(np.bool_)


def area(rle: bytes, size: Size) -> int:
    """Count the object pixels of an RLE."""
    return int(codec.area(coco_rle(rle, size)))


def is_empty(rle: bytes) -> bool:
    """Tell whether an RLE has a single run, the background's, as that of an empty mask has; whatever its length.

    Example:
        >>> is_empty(encode(np.zeros((9, 9), dtype=bool))), is_empty(encode(np.ones((9, 9), dtype=bool)))
        (True, False)
    """
    first = next((place for place, byte in enumerate(rle) if not (byte - 48) & 0x20), len(rle))
    return first + 1 >= len(rle)


def box(rle: bytes, size: Size) -> tuple[float, float, float, float]:
    """Return the tight box `x1 y1 x2 y2` of an RLE in pixels, end exclusive; zeros if it is empty."""
    x, y, w, h = codec.to_bbox(coco_rle(rle, size)).tolist()
    return (x, y, x + w, y + h)


def runs(rle: bytes) -> NDArray[np.int64]:
    """Return the run lengths of an RLE, 0, 1, 0, 1 ... in column order.

    COCO writes each run as base-32 digits, least first, and from the fourth run on as the difference to the run before
    the last (`rleToString` in pycocotools' maskApi.c).

    Example:
        >>> runs(encode(np.array([[0, 1], [0, 0]]))).tolist()
        [2, 1, 1]
    """
    return runs_of_masks([rle])[0]


def runs_of_masks(rles: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the run lengths of several RLEs, one after the other as `runs`, and how many are of each."""
    sizes = np.array([len(rle) for rle in rles], dtype=np.int64)
    digits = np.frombuffer(b"".join(rles), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((digits & 0x20) == 0)
    behind = np.searchsorted(last, np.cumsum(sizes))
    number = np.diff(behind, prepend=0)
    if not len(last):
        return np.zeros(0, dtype=np.int64), number
    starts = np.concatenate([[0], last[:-1] + 1])
    digits = digits[: last[-1] + 1]
    lengths = last - starts + 1
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 0x1F) << (5 * place), starts)
    values -= np.where(digits[last] & 0x10, 1 << (5 * lengths), 0)
    for first, end in zip((behind - number).tolist(), behind.tolist(), strict=True):
        mine = values[first:end]
        mine[1::2] = np.cumsum(mine[1::2])
        mine[2::2] = np.cumsum(mine[2::2])
    return values, number


def crop(rle: bytes, size: Size, window: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Decode only a window of an RLE: for a small object of a large photo many times faster than `decode`.

    Args:
        rle: COCO compressed counts.
        size: `(height, width)` of the photo.
        window: `x1 y1 x2 y2` in whole pixels, end exclusive, within the photo.

    Returns:
        `(y2 - y1, x2 - x1)` bool.

    Example:
        >>> crop(encode(np.eye(3, dtype=bool)), (3, 3), (1, 0, 3, 2)).tolist()
        [[False, False], [True, False]]
    """
    x1, y1, x2, y2 = window
    first, end = x1 * size[0], x2 * size[0]
    edges = np.clip(np.cumsum(runs(rle)), first, end) - first
    stops = edges[1::2]
    starts = edges[0::2][: len(stops)]
    seen = stops > starts
    change = np.zeros(end - first + 1, dtype=np.int8)
    change[starts[seen]] += 1
    change[stops[seen]] -= 1
    columns = np.cumsum(change[:-1], dtype=np.int8).reshape(x2 - x1, size[0])
    return np.ascontiguousarray(columns.T[y1:y2]).astype(np.bool_)


def shrink(
    rle: bytes, size: Size, window: tuple[float, float, float, float], lines: int, columns: int
) -> NDArray[np.uint8]:
    """Scale a window of an RLE down without decoding it; the work grows with the window's width, not with its area.

    How many pixels of the object lie before a place in column order is a line between the ends of runs; so what of each
    column falls on each line of the result is a difference of two values of it, and likewise across columns.

    Args:
        rle: COCO compressed counts.
        size: `(height, width)` of the photo.
        window: `x1 y1 x2 y2` in pixels; it may begin and end within a pixel, and must lie within the photo.
        lines: Height of the result.
        columns: Its width.

    Returns:
        `(lines, columns)` uint8: the share of each cell that is object, 0 to 255.

    Example:
        >>> shrink(encode(np.eye(4, dtype=bool)), (4, 4), (0, 0, 4, 4), 2, 2).tolist()
        [[128, 0], [0, 128]]
    """
    x1, y1, x2, y2 = window
    edges = np.cumsum(runs(rle))
    lengths = np.diff(edges, prepend=0)
    lengths[0::2] = 0
    first, end = int(np.floor(x1)), int(np.ceil(x2))
    steps = np.linspace(y1, y2, lines + 1)
    places = np.arange(first, end)[:, None] * size[0] + steps
    before = np.interp(places.ravel(), np.concatenate([[0], edges]), np.concatenate([[0], np.cumsum(lengths)]))
    parts = np.diff(before.reshape(places.shape), axis=1)  # of each column of the photo on each line of the result
    summed = np.concatenate([np.zeros((1, lines)), np.cumsum(parts, axis=0)])
    across = np.linspace(x1, x2, columns + 1) - first
    lower = np.minimum(across.astype(np.int64), end - first - 1)
    share = (across - lower)[:, None]
    cells = np.diff(summed[lower] * (1 - share) + summed[lower + 1] * share, axis=0).T
    cells *= 255 * lines * columns / ((x2 - x1) * (y2 - y1))
    result: NDArray[np.uint8] = np.clip(cells + 0.5, 0, 255).astype(np.uint8)
    return result


def encode_window(window: NDArray[np.bool_], x: int, y: int, size: Size) -> bytes:
    """Encode a mask that is known in a window only, without making it full-size first.

    Args:
        window: `(h, w)` bool; the photo is empty outside it.
        x: Column of the window's left edge in the photo; the window must lie inside the photo.
        y: Line of its upper edge.
        size: `(height, width)` of the photo.

    Example:
        >>> full = np.zeros((4, 5), dtype=bool)
        >>> full[1:3, 2:4] = True
        >>> encode_window(np.ones((2, 2), dtype=bool), 2, 1, (4, 5)) == encode(full)
        True
    """
    counts = few_runs(np.ascontiguousarray(window), (y, x), size)
    if counts is not None:
        return compress(counts.tolist(), size)
    full = np.zeros(size, dtype=np.bool_)
    full[y : y + window.shape[0], x : x + window.shape[1]] = window
    return encode(full)


def upright(rle: bytes, size: Size, orientation: int) -> bytes:
    """Turn an RLE that lies over a stored photo as the photo is turned to be shown, pixel for pixel.

    Args:
        rle: COCO compressed counts.
        size: `(height, width)` of the photo as stored.
        orientation: EXIF orientation of the photo, 1..8.

    Returns:
        The RLE at the size of the upright photo, `(width, height)` for the orientations 5..8.

    Example:
        >>> stored = np.array([[1, 1, 1], [1, 0, 0]], dtype=bool)
        >>> decode(upright(encode(stored), (2, 3), 6), (3, 2)).astype(int).tolist()
        [[1, 1], [0, 1], [0, 1]]
    """
    x1, y1, x2, y2 = (int(v) for v in box(rle, size))
    if orientation == 1 or x1 == x2:  # an empty mask has as many pixels turned
        return rle
    window = crop(rle, size, (x1, y1, x2, y2))
    if orientation in LEFT_RIGHT:
        window, x1 = window[:, ::-1], size[1] - x2
    if orientation in UPSIDE_DOWN:
        window, y1 = window[::-1], size[0] - y2
    if orientation in TRANSPOSED:
        return encode_window(window.T, y1, x1, (size[1], size[0]))
    return encode_window(window, x1, y1, size)


def compress(counts: list[int], size: Size) -> bytes:
    """Compress runs of 0, 1, 0, 1 ... in column order that are known to fit the photo."""
    found: Any = codec.frPyObjects({"size": [int(size[0]), int(size[1])], "counts": counts}, int(size[0]), int(size[1]))
    return bytes(found["counts"])


def areas_and_boxes(rles: Sequence[bytes], sizes: Sequence[Size]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return areas `(N,)` in pixels and boxes `(N, 4)` as `x1 y1 x2 y2` of many RLEs."""
    if not rles:
        return np.zeros(0), np.zeros((0, 4))
    dicts = [coco_rle(rle, size) for rle, size in zip(rles, sizes, strict=True)]
    boxes = np.asarray(codec.to_bbox(dicts), dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return np.asarray(codec.area(dicts), dtype=np.float64), boxes


def from_polygons(polygons: Sequence[Sequence[float]], size: Size) -> bytes:
    """Rasterise polygons to one RLE, by COCO's own rule.

    Args:
        polygons: Each `[x1, y1, x2, y2, ...]` in pixels, at least three points; their union is the object.
        size: `(height, width)` of the photo.
    """
    parts = [codec.fr_poly([float(v) for v in polygon], int(size[0]), int(size[1])) for polygon in polygons]
    return bytes(codec.merge(parts, False)["counts"]) if len(parts) > 1 else bytes(parts[0]["counts"])


def from_counts(counts: Sequence[int], size: Size) -> bytes:
    """Compress COCO's uncompressed counts (runs of 0, 1, 0, 1 ... in column order).

    Raises:
        ValueError: If a run is negative or the runs do not add up to height x width.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise ValueError(f"the runs add up to {int(runs.sum())}, the photo has {size[0] * size[1]} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return encode(flat.reshape(size, order="F"))


def union(rles: Sequence[bytes], size: Size) -> bytes:
    """Return the union of RLEs of one photo."""
    return bytes(codec.merge([coco_rle(rle, size) for rle in rles], False)["counts"])


def iou(a: Sequence[bytes], b: Sequence[bytes], size: Size) -> NDArray[np.float64]:
    """Return the IoU of every mask of `a` with every mask of `b`, `(len(a), len(b))` in 0..1."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(
        codec.iou([coco_rle(r, size) for r in a], [coco_rle(r, size) for r in b], [False] * len(b)),
        dtype=np.float64,
    )


def parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Split a mask into its connected parts (8 neighbours), largest first.

    Args:
        mask: `(H, W)` bool.

    Returns:
        One `(H, W)` bool mask per part; empty for an empty mask.
    """
    labels, count = label_parts(mask)
    if count <= 1:
        return [mask] if count else []
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == index + 1 for index in np.argsort(-sizes, kind="stable")]


def label_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the connected parts of a mask (8 neighbours).

    Returns:
        Labels `(H, W)` int32, 0 outside, 1..n inside; and n.
    """
    from scipy import ndimage  # slow to import, and only some stages need it

    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    return np.asarray(labels, dtype=np.int32), int(count)


def holes(mask: NDArray[np.bool_]) -> int:
    """Count the holes of a mask: background regions (4 neighbours) that do not reach the border."""
    from scipy import ndimage

    background = np.pad(~mask, 1, constant_values=True)
    return int(ndimage.label(background)[1]) - 1


def checked(rle: bytes, size: Size) -> bytes:
    """Return an RLE from a foreign file unchanged once its runs are known to be readable and to fit the photo.

    Raises:
        ValueError: If the counts are not COCO's compressed form, or do not add up to the photo's pixels (cut off).
    """
    codec.area(coco_rle(rle, size))
    total = int(runs(rle).sum())
    if total != size[0] * size[1]:
        raise ValueError(f"the runs add up to {total}, the photo has {size[0] * size[1]} pixels")
    return rle
