"""Colours of mask images: which ones there are, and which of them each pixel has, exactly or as nearly as can be.

Distances are Euclidean in RGB: 0 is the same colour, 442 is from black to white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskwright.files import UnreadableImage
from maskwright.formats.coding import MOST_COLOURS
from maskwright.formats.planes import LOSSY_SUFFIXES, Plane, pack, read_plane

SAME = 10.0
"""Colours that are nearer than this are one colour, changed by compression."""

CLEAR = 28.0
"""Colours that are farther apart than this are surely two."""

LEAST_AREA = 16
"""So many pixels of an area without edges make a colour of a smeared mask; less is noise."""

_REACH = 3  # pixels from an edge within which compression and smooth edges mix colours
_MOST_CENTRES = 2_000  # of the colours of a smeared mask, the most frequent so many are looked at

Rgb = NDArray[np.int16]


@dataclass(frozen=True)
class Mixed:
    """How far the pixels of a mask were from the colours that they were given.

    Attributes:
        pixels: How many do not have the colour exactly.
        total: Sum of their distances.
        largest: The largest distance.
    """

    pixels: int = 0
    total: float = 0.0
    largest: float = 0.0


def colour_plane(path: Path) -> NDArray[np.int32]:
    """Read a mask image as packed colours, `(H, W)`; grey values are grey colours.

    Raises:
        UnreadableImage: If it cannot be read, or has numbers of more than 8 bits.
    """
    plane, palette = read_plane(path)
    if palette is None:
        if int(plane.max(initial=0)) > 255:
            raise UnreadableImage("has numbers beyond 255, which are no colours")
        return plane.astype(np.int32) * 0x010101
    if len(palette) == 0:
        return plane.astype(np.int32)
    table = np.zeros(256, dtype=np.int32)
    table[: len(palette)] = pack(palette)
    return np.asarray(table[plane], dtype=np.int32)


def unpack(packed: Plane) -> Rgb:
    """Return packed colours as `(..., 3)` int16."""
    return np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=-1).astype(np.int16)


def is_lossy(path: Path) -> bool:
    """Tell whether a mask image is stored with loss, so that no colour is exact."""
    return path.suffix.lower() in LOSSY_SUFFIXES


def _even(rgb: Rgb, reach: int, tolerance: int) -> NDArray[np.bool_]:
    """Tell which pixels differ by no more than a tolerance from all their neighbours within reach."""
    padded = np.pad(rgb, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = rgb.shape[:2]
    even = np.ones((height, width), dtype=np.bool_)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            other = padded[dy : dy + height, dx : dx + width]
            even &= (np.abs(other - rgb) <= tolerance).all(axis=2)
    return even


def even_areas(plane: Plane, lossy: bool) -> NDArray[np.bool_]:
    """Tell which pixels lie within an area of one colour, `(H, W)` bool."""
    return _even(unpack(plane), 2, 12) if lossy else _even(unpack(plane), 1, 0)


def is_smeared(plane: Plane, lossy: bool) -> bool:
    """Tell whether a mask's colours are mixed at the edges, or changed everywhere."""
    if lossy:
        return True
    colours, counts = np.unique(plane, return_counts=True)
    if len(colours) > MOST_COLOURS:
        return True
    # A colour of an exact mask has pixels side by side, unless the object is a single pixel; mixtures have none.
    beside = np.zeros(plane.shape, dtype=np.bool_)
    down, right = plane[1:] == plane[:-1], plane[:, 1:] == plane[:, :-1]
    beside[1:] |= down
    beside[:-1] |= down
    beside[:, 1:] |= right
    beside[:, :-1] |= right
    lonely = len(colours) - len(np.unique(plane[beside]))
    return lonely > 8 and 2 * lonely > len(colours) and int(counts.max()) > 1


def centres(plane: Plane, lossy: bool) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Find the colours of a smeared mask: those of areas.

    Returns:
        `(packed colour, pixels)`, most frequent first; and pairs of colours of which nobody can say whether they are
        one colour or two.
    """
    found, counts = np.unique(plane[even_areas(plane, lossy)], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_CENTRES]
    exact = SAME if lossy else 0.0
    kept: list[list[int]] = []
    between: list[list[int]] = []
    for colour, count in zip(found[order].tolist(), counts[order].tolist(), strict=True):
        near, distance = _nearest(colour, kept)
        if distance <= exact:
            kept[near][1] += count
        elif distance >= CLEAR or not lossy:
            kept.append([colour, count])
        else:
            one, distance = _nearest(colour, between)
            if distance <= SAME:
                between[one][1] += count
            else:
                between.append([colour, count])
    unclear = []
    for colour, count in between:
        near, _ = _nearest(colour, kept)
        if count >= max(2 * LEAST_AREA, kept[near][1] // 20):
            unclear.append((kept[near][0], colour))
    least = LEAST_AREA if lossy else 1
    result = [(colour, count) for colour, count in kept if count >= least]
    return sorted(result, key=lambda one: -one[1]), unclear


def _nearest(colour: int, known: Sequence[Sequence[int]]) -> tuple[int, float]:
    if not known:
        return -1, 1e9
    table = unpack(np.array([one[0] for one in known])).astype(np.int64)
    squares = ((table - unpack(np.array(colour)).astype(np.int64)) ** 2).sum(axis=1)
    place = int(squares.argmin())
    return place, float(np.sqrt(squares[place]))


def assign(
    plane: Plane, palette: Sequence[int], lossy: bool
) -> tuple[NDArray[np.int32], Mixed, list[tuple[int, int, float]]]:
    """Give every pixel one of some colours.

    A pixel of another colour gets the nearest of those within three pixels that are sure: the edge between red and
    black may be brown, and still is not of the brown object elsewhere in the picture.

    Args:
        plane: `(H, W)` packed colours.
        palette: The packed colours.
        lossy: The mask is stored with loss.

    Returns:
        `(H, W)` position in the palette; how far off the pixels are; and the colours of areas that are none of the
        palette's, as `(packed, pixels, distance)`.
    """
    table = unpack(np.array(palette, dtype=np.int32)).astype(np.float32)
    found, places, counts = np.unique(plane, return_inverse=True, return_counts=True)
    places = places.reshape(plane.shape)
    colours = unpack(found).astype(np.float32)
    nearest = np.zeros(len(found), dtype=np.int32)
    distance = np.zeros(len(found), dtype=np.float32)
    for start in range(0, len(found), 4096):
        squares = ((colours[start : start + 4096, None] - table[None]) ** 2).sum(axis=2)
        nearest[start : start + 4096] = squares.argmin(axis=1)
        distance[start : start + 4096] = np.sqrt(squares.min(axis=1))
    labels = nearest[places]
    if not distance.any():
        return labels, Mixed(), []
    far_off = distance[places]
    sure = far_off <= (SAME if lossy else 0.0)
    rows, columns = np.nonzero(~sure)
    unsure = unpack(plane[rows, columns]).astype(np.float32)
    best = np.full(len(rows), np.inf, dtype=np.float32)
    chosen = labels[rows, columns]
    padded = np.pad(np.where(sure, labels, -1), _REACH, constant_values=-1)
    for dy in range(2 * _REACH + 1):
        for dx in range(2 * _REACH + 1):
            other = padded[rows + dy, columns + dx]
            off = np.sqrt(((unsure - table[np.maximum(other, 0)]) ** 2).sum(axis=1))
            better = (other >= 0) & (off < best)
            best[better], chosen[better] = off[better], other[better]
    best = np.where(np.isinf(best), far_off[rows, columns], best)
    labels[rows, columns] = chosen
    strange = _strange(plane, far_off, found, counts, distance, lossy)
    far_off[rows, columns] = best
    moved = far_off > 0
    mixed = Mixed(int(moved.sum()), float(far_off.sum(dtype=np.float64)), float(far_off.max()))
    return labels, mixed, strange


def _strange(
    plane: Plane, far_off: Plane, found: Plane, counts: Plane, distance: Plane, lossy: bool
) -> list[tuple[int, int, float]]:
    """Return colours that are no mixtures, and yet none of the palette's."""
    off = distance > 0
    if not lossy and int(off.sum()) <= 3:  # a mixture never comes alone
        return [(int(c), int(n), float(d)) for c, n, d in zip(found[off], counts[off], distance[off], strict=True)]
    areas = even_areas(plane, lossy) & (far_off > (CLEAR if lossy else 0.0))
    colours, pixels = np.unique(plane[areas], return_counts=True)
    if int(pixels.sum()) < (LEAST_AREA if lossy else 1):
        return []
    order = np.argsort(-pixels, kind="stable")[:3]
    return [(int(colours[k]), int(pixels[k]), float(distance[np.searchsorted(found, colours[k])])) for k in order]
