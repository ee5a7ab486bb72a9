"""Work on run lengths without a dense mask: the connected parts of an RLE, the objects of an id image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import mask as codec
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.pixels import Size

Runs = NDArray[np.int64]

MOST_BYTES = 2_000_000
"""An RLE of more bytes than this is frayed: noise or dithering, not the outline of objects, and is not taken apart."""

_DENSE, _FEW = 8, 256
"""An id image of which more than one pixel in so many differs from the one above, and that has no more values than so
many, is noise of which each value is encoded by itself: all runs together would take gigabytes."""

BATCH_BYTES = 1_000_000
"""So many bytes of RLE are looked at together, which takes some hundred times as much memory."""


TOO_MANY = "masks have so many specks or holes that their parts cannot each be an object"
FRAYED = "has a colour or value in so many specks or holes that its parts cannot each be an object"
LEAVE_WHOLE = "leave out --parts separate; if that is dithering or noise, export masks without it"


def is_frayed(rle: bytes) -> bool:
    """Tell whether a mask has so many runs that its parts are not looked for: that would take gigabytes."""
    return len(rle) > MOST_BYTES


def told_frayed(masks: str, shown: str) -> str:
    """Say that parts were not counted; `masks` counts the mask images, `shown` names some."""
    return (
        f"{masks} with so many specks or holes that the parts were not counted ({shown}); if that is dithering or"
        " noise, export masks without it"
    )


def from_edges(edges: Runs, size: Size) -> bytes:
    """Compress the runs of one object.

    Args:
        edges: `(2N,)` start and end of each run, ascending, as positions in column order.
        size: `(height, width)`.
    """
    total = size[0] * size[1]
    bounds = np.concatenate([[0], edges, [total]])
    counts = np.diff(bounds)
    if counts[-1] == 0:
        counts = counts[:-1]  # COCO writes no empty run at the end
    return bytes(codec.fr_py_objects({"size": list(size), "counts": counts.tolist()}, *size)["counts"])


def objects_of_ids(values: NDArray[Any]) -> list[tuple[int, bytes]]:
    """Return every object of an id image, in one pass however many there are.

    Args:
        values: `(H, W)` integers; 0 is background, any other value is one object.

    Returns:
        `(value, rle)`, ascending by value.

    Example:
        >>> [value for value, _ in objects_of_ids(np.array([[0, 2], [7, 2]]))]
        [2, 7]
    """
    size = (int(values.shape[0]), int(values.shape[1]))
    flat = values.ravel(order="F")
    if not flat.size:
        return []
    changes = flat[1:] != flat[:-1]
    if np.count_nonzero(changes) > flat.size // _DENSE and len(numbers := np.unique(flat)) <= _FEW:
        return [(value, pixels.encode(values == value)) for value in numbers.tolist() if value]
    # No photo has so many pixels that int32, half of the usual, is not enough.
    starts = np.append(np.int32(0), np.flatnonzero(changes).astype(np.int32) + np.int32(1))
    ends = np.append(starts[1:], np.int32(flat.size))
    kinds = flat[starts]
    del flat, changes
    inside = kinds != 0
    starts, ends, kinds = starts[inside], ends[inside], kinds[inside]
    order = np.argsort(kinds, kind="stable")
    found, first = np.unique(kinds[order], return_index=True)
    edges = np.stack([starts[order], ends[order]], axis=1)
    pieces = np.split(edges, first[1:])
    return [(int(value), from_edges(piece.ravel(), size)) for value, piece in zip(found, pieces, strict=False)]


class _Pieces(NamedTuple):
    """Runs of object pixels of one or more masks, cut where a column ends; ascending, ends exclusive.

    Attributes:
        starts: Positions in column order where they start, in their own mask.
        ends: Where they end.
        columns: Columns they are in. Those of a mask follow those of the mask before, with a blank one between.
        tops: Lines they start at.
        owners: Masks they are of.
        stride: More than any mask is high.
    """

    starts: Runs
    ends: Runs
    columns: Runs
    tops: Runs
    owners: Runs
    stride: int


def _pieces(counts: Runs, number: Runs, sizes: Sequence[Size]) -> _Pieces:
    """Cut the runs of masks, one mask after the other, `number` of each."""
    heights, widths = np.array([size[0] for size in sizes]), np.array([size[1] for size in sizes])
    first = np.cumsum(number) - number
    odd = (np.arange(len(counts)) - np.repeat(first, number)) & 1 == 1
    edges = np.cumsum(counts)
    before = np.where(first > 0, edges[first - 1], 0)
    if (np.diff(before, append=edges[-1]) != heights * widths)[number > 0].any():
        raise ValueError("an RLE does not have as many pixels as its mask")
    inked = np.flatnonzero(odd & (counts > 0))
    owners = np.repeat(np.arange(len(number)), number)[inked]
    ends = edges[inked] - before[owners]
    starts = ends - counts[inked]
    height = heights[owners]
    columns = starts // height
    several = (ends - 1) // height - columns + 1
    if (several > 1).any():
        which = np.repeat(np.arange(len(starts)), several)
        columns = columns[which] + np.arange(len(which)) - np.repeat(np.cumsum(several) - several, several)
        height, owners = height[which], owners[which]
        starts = np.maximum(starts[which], columns * height)
        ends = np.minimum(ends[which], (columns + 1) * height)
    tops = starts - columns * height
    columns += (np.cumsum(widths + 1) - widths)[owners]
    return _Pieces(starts, ends, columns, tops, owners, int(heights.max()) + 1)


def _label(pieces: _Pieces) -> tuple[NDArray[np.int32], int]:
    """Label runs that touch (8 neighbours); returns a label per run and how many there are."""
    starts, ends, column, top, _, stride = pieces
    bottom = top + (ends - starts)  # exclusive, so a run of the next column that begins here touches diagonally
    low = np.searchsorted(column * stride + bottom, (column + 1) * stride + top, side="left")
    high = np.searchsorted(column * stride + top, (column + 1) * stride + bottom, side="right")
    # Where just one run touches none in the next column, all others lead to it.
    if np.count_nonzero(low >= high) == 1:
        return np.zeros(len(starts), dtype=np.int32), 1
    links = np.maximum(high - low, 0)
    a = np.repeat(np.arange(len(starts)), links)
    b = np.arange(len(a)) - np.repeat(np.cumsum(links) - links, links) + np.repeat(low, links)
    # Each run goes back to the first run of the column before that it touches, and so on to where its part begins.
    begin = np.arange(len(starts))
    begin[b[::-1]] = a[::-1]
    roots = np.flatnonzero(begin == np.arange(len(starts)))
    if len(roots) == 1:
        return np.zeros(len(starts), dtype=np.int32), 1
    while not np.array_equal(further := begin[begin], begin):
        begin = further
    number = np.zeros(len(starts), dtype=np.int32)
    number[roots] = np.arange(len(roots))
    label = number[begin]
    # Parts that begin apart may meet further on.
    parent = list(range(len(roots)))

    def root(part: int) -> int:
        while parent[part] != part:
            part = parent[part]
        return part

    one, other = label[a], label[b]
    apart = one != other
    meet: set[tuple[int, int]] = set(zip(one[apart].tolist(), other[apart].tolist(), strict=True))
    for first, second in meet:
        earlier, later = sorted((root(first), root(second)))
        parent[later] = earlier
    parts = [root(part) for part in range(len(roots))]
    renamed = {part: n for n, part in enumerate(sorted({*parts}))}
    return np.array([renamed[part] for part in parts], dtype=np.int32)[label], len(renamed)


def part_areas(rle: bytes, size: Size) -> NDArray[np.int64] | None:
    """Return the pixels of each connected part (8 neighbours) of a mask, largest first; `(parts,)`.

    `None` if it is frayed.
    """
    return parts_of_masks([(rle, size)])[0]


def parts_of_masks(masks: Sequence[tuple[bytes, Size]]) -> list[NDArray[np.int64] | None]:
    """Return the pixels of each connected part of many masks, as `part_areas`.

    They are looked at together, since for a single mask numpy's calls take longer than their work.

    Args:
        masks: The RLE and `(height, width)` of each.
    """
    found: list[NDArray[np.int64] | None] = [None] * len(masks)
    for batch in _batches([rle for rle, _ in masks]):
        for k, areas in zip(batch, _parts_of_batch([masks[k] for k in batch]), strict=True):
            found[k] = areas
    return found


def _batches(rles: Sequence[bytes]) -> Iterator[list[int]]:
    """Yield the positions of those that are not frayed, a few at a time."""
    batch, size = list[int](), 0
    for k, rle in enumerate(rles):
        if is_frayed(rle):
            continue
        if batch and size + len(rle) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(k)
        size += len(rle)
    if batch:
        yield batch


def _parts_of_batch(masks: Sequence[tuple[bytes, Size]]) -> list[NDArray[np.int64]]:
    counts, number = pixels.runs_of_masks([rle for rle, _ in masks])
    if not len(counts):
        return [np.zeros(0, dtype=np.int64) for _ in masks]
    pieces = _pieces(counts, number, [size for _, size in masks])
    labels, count = _label(pieces)
    areas, owners = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    np.add.at(areas, labels, pieces.ends - pieces.starts)
    owners[labels] = pieces.owners
    order = np.lexsort((-areas, owners))
    return np.split(areas[order], np.searchsorted(owners[order], np.arange(1, len(masks))))


def part_rles(rle: bytes, size: Size) -> list[bytes]:
    """Split a mask into its connected parts (8 neighbours), largest first.

    Raises:
        UserError: If it is frayed; who can name the mask asks `is_frayed` before.
    """
    if is_frayed(rle):
        raise UserError(TOO_MANY, [f"a mask of {size[1]} x {size[0]} pixels"], LEAVE_WHOLE)
    counts = pixels.runs(rle)
    pieces = _pieces(counts, np.array([len(counts)]), [size])
    starts, ends = pieces.starts, pieces.ends
    if not len(starts):
        return []
    labels, count = _label(pieces)
    if count == 1:
        return [rle]
    areas = np.zeros(count, dtype=np.int64)
    np.add.at(areas, labels, ends - starts)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(count + 1))
    result = []
    for label in np.argsort(-areas, kind="stable"):
        mine = order[bounds[label] : bounds[label + 1]]
        edges = np.stack([starts[mine], ends[mine]], axis=1).ravel()
        # Runs that were cut at a column's end are one run again.
        joined = np.flatnonzero(edges[2::2] == edges[1:-1:2])
        result.append(from_edges(np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2])), size))
    return result
