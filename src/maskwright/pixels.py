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
    # Column-major is the order COCO counts in; hotcoco reads it there without a copy of its own.
    return bytes(codec.encode(np.asfortranarray(mask))["counts"])


def decode(rle: bytes, size: Size) -> NDArray[np.bool_]:
    """Decode an RLE to a `(H, W)` bool mask."""
    return np.asarray(codec.decode(coco_rle(rle, size))).astype(np.bool_)


def area(rle: bytes, size: Size) -> int:
    """Count the object pixels of an RLE."""
    return int(codec.area(coco_rle(rle, size)))


def box(rle: bytes, size: Size) -> tuple[float, float, float, float]:
    """Return the tight box `x1 y1 x2 y2` of an RLE in pixels, end exclusive; zeros if it is empty."""
    x, y, w, h = codec.to_bbox(coco_rle(rle, size)).tolist()
    return (x, y, x + w, y + h)


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
        ValueError: If the counts are not COCO's compressed form or exceed the photo.
    """
    codec.area(coco_rle(rle, size))
    return rle
