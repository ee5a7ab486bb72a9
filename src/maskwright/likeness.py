"""Photos that look alike: a fingerprint that survives re-encoding, a fast search for near pairs, and their groups.

The search has two steps. Fingerprints are cheap to hold and to compare, and find candidates; but they cannot tell the
same photo, cropped, from another photo of the same table. So each pair of candidates is looked at again as two small
grey pictures, laid over each other as well as may be and compared patch by patch (`alike`).

A fingerprint is the signs of the lowest cosine waves of the photo made small and square, as in the perceptual hash of
Zauner (Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).

Measured by benchmarks/likeness.py on 308 photos of tools and 18 of fruit, each third one copied (109 copies a row):

    copy                        found
    JPEG of quality 30          100 %
    half size                   100 %
    15 % brighter or darker     100 %
    3 % cropped, around          99 %
    3 % cropped, at two sides    95 %
    6 % cropped, around          95 %

Of the originals it pairs 31, all taken within minutes of each other with nothing that matters moved. Photos of one
table with its tools moved reach a likeness of 0.86 at most, 1,419 pairs drawn at random none of 0.87. Mirrored and
turned copies are not looked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright.files import read_grey
from maskwright.scratch import Column

SIDE = 32
"""A photo of any shape is made a square of this side before its waves are taken."""

COARSE, FINE = 8, 16
"""The signs of the lowest 8 x 8 waves find candidates; those of the lowest 16 x 16 judge them."""

SIZE = 1 + FINE * FINE // 8
"""Bytes of a fingerprint: one of contrast, 8 of coarse signs, 24 of finer ones."""

FLAT = 12
"""Below this contrast (quarters of a grey level, standard deviation) the signs are noise: a flat photo is like none."""

COARSE_MOST, FINE_MOST = 11, 66
"""Signs that may differ in candidates, of 64 and of 192; photos that have nothing in common differ in half of them."""

ALIKE = 0.87
"""From this likeness on, two photos show the same thing: all but 1 of 100 cropped copies, and no moved tool above."""

_SMALL = 64  # side of the pictures that `alike` compares
_BANDS = 4  # of the 64 coarse bits; 11 differences leave one band of 16 bits with at most 2
_CROWD = 64  # a bucket of more is not compared each with each
_NEXT = 16  # but each with so many that follow
_CHUNK = 50_000  # candidates at once: some 3 MB
_READ = 1 << 14  # fingerprints that are read at once


def fingerprint(path: Path) -> bytes:
    """Return the fingerprint of a photo file; see `fingerprint_of`.

    Raises:
        UnreadableImage: If it is not a picture, is cut off, or declares an absurd size.
    """
    return fingerprint_of(read_grey(path, 2 * SIDE)[0])


def fingerprint_of(grey: NDArray[np.uint8]) -> bytes:
    """Return the fingerprint of a picture: `SIZE` bytes that change little when it is scaled, re-encoded or lit.

    Args:
        grey: `(H, W)` uint8, upright; reduced to no less than 64 pixels a side it gives nearly the same.

    Example:
        >>> len(fingerprint_of(np.zeros((60, 80), dtype=np.uint8)))
        33
    """
    small = np.asarray(_square(grey, SIDE), dtype=np.float32)
    waves = _waves() @ small @ _waves().T
    signs = waves > 0
    signs[0, 0] = False  # the mean: always positive
    coarse = signs[:COARSE, :COARSE]
    finer = np.concatenate([signs[:COARSE, COARSE:].ravel(), signs[COARSE:].ravel()])
    contrast = min(255, round(float(small.std()) * 4))
    return bytes([contrast]) + np.packbits(np.concatenate([coarse.ravel(), finer])).tobytes()


def _square(grey: NDArray[np.uint8], side: int) -> PillowImage.Image:
    return PillowImage.fromarray(grey).resize((side, side), PillowImage.Resampling.BOX)


@cache
def _waves() -> NDArray[np.float32]:
    """Return the lowest waves of the cosine transform, `(FINE, SIDE)`."""
    k, x = np.mgrid[:FINE, :SIDE]
    return np.asarray(np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)), dtype=np.float32)


def stack(fingerprints: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return fingerprints as `(N, SIZE)` uint8; empty bytes (a photo that cannot be read) become a flat one."""
    blank = bytes(SIZE)
    return np.frombuffer(b"".join(f or blank for f in fingerprints), dtype=np.uint8).reshape(-1, SIZE)


def near_pairs(fingerprints: NDArray[np.uint8] | Column) -> NDArray[np.int64]:
    """Find the pairs of fingerprints that may be of photos that look alike.

    Every pair within `COARSE_MOST` and `FINE_MOST` is found, without comparing each with each: the coarse signs are cut
    into 4 bands, of which one differs in at most 2 bits. Two exceptions keep a million frames of one camera from
    becoming a million million pairs: equal fingerprints form a chain, and where over 64 share a band, each is
    compared only with the 16 that follow it in the order given.

    Args:
        fingerprints: `(N, SIZE)` uint8, from `stack`; those on disk are read as they are needed.

    Returns:
        `(K, 3)`: positions i < j, and in how many signs the two differ; nearest first. Flat photos are in no pair.
    """
    useful, coarse, mixed = _signs(fingerprints)
    if len(useful) < 2:
        return np.zeros((0, 3), dtype=np.int64)
    mixed.sort()
    if (mixed[1:] == mixed[:-1]).any():
        _, first, which = np.unique(_signs(fingerprints)[2], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")  # in the order given: frames that follow each other stand together
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        which, first = place[which.ravel()], first[order]
        by_print = np.argsort(which, kind="stable")
        same = np.flatnonzero(np.diff(which[by_print]) == 0)
        chains = np.column_stack([by_print[same], by_print[same + 1], np.zeros_like(same)])
        found = _near(coarse[first], fingerprints, useful[first])
        found[:, :2] = first[found[:, :2]]
        pairs = np.concatenate([chains, found]).astype(np.int64)
    else:
        del mixed
        pairs = _near(coarse, fingerprints, useful)
    pairs[:, :2] = useful[np.sort(pairs[:, :2], axis=1)]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))]


def _signs(
    fingerprints: NDArray[np.uint8] | Column,
) -> tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the positions, the coarse signs, and `_mixed` of the fingerprints that are not flat."""
    useful = np.empty(len(fingerprints), dtype=np.int32)
    coarse, mixed = (np.empty(len(fingerprints), dtype=np.uint64) for _ in range(2))
    end = 0
    for start in range(0, len(fingerprints), _READ):
        some = fingerprints[start : start + _READ]
        there = np.flatnonzero(some[:, 0] >= FLAT)
        rows = np.ascontiguousarray(some[there, 1:])
        here = slice(end, end := end + len(there))
        useful[here], coarse[here], mixed[here] = there + start, rows.view(np.uint64)[:, 0], _mixed(rows)
    return useful[:end], coarse[:end], mixed[:end]


def _mixed(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return `(N,)` a number for each row that hardly any other row has; equal rows have equal ones."""
    words = rows.view(np.uint64)
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in range(words.shape[1]):
        mixed = (mixed ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _near(
    coarse: NDArray[np.uint64], fingerprints: NDArray[np.uint8] | Column, useful: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return `(K, 3)` the pairs of different fingerprints that are near, each once.

    Args:
        coarse: `(N,)` their coarse signs.
        fingerprints: Of all photos.
        useful: `(N,)` where theirs are among these.
    """
    n = len(coarse)
    found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    waiting: list[NDArray[np.int64]] = []

    def judge() -> None:
        """Keep those of the waiting pairs whose finer signs are near too."""
        for keys in _some(_once(waiting), _CHUNK):
            i, j = np.divmod(keys, n)
            fine = _differing(fingerprints, useful[i], useful[j], 1 + COARSE * COARSE // 8)
            found.append(keys[fine <= FINE_MOST])
        waiting.clear()
        if sum(map(len, found[1:])) > len(found[0]):  # most pairs are found several times
            found[:] = [_once(found)]

    for band in range(_BANDS):
        for i, j in _sharing(coarse, band):
            close = np.bitwise_count(coarse[i] ^ coarse[j]) <= COARSE_MOST
            if close.any():
                waiting.append(i[close].astype(np.int64) * n + j[close])
                if sum(map(len, waiting)) > 10 * _CHUNK:
                    judge()
        judge()
    i, j = np.divmod(_once(found), n)
    return np.column_stack([i, j, _differing(fingerprints, useful[i], useful[j], 1)])


def _once(keys: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return all keys in order, each once; by sorting, of which `np.unique` makes five times the work."""
    ordered: NDArray[np.int64] = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *keys]))
    first: NDArray[np.bool_] = np.diff(ordered, prepend=-1) != 0
    return ordered[first]


def _some(values: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(values), count):
        yield values[start : start + count]


def _differing(
    fingerprints: NDArray[np.uint8] | Column, i: NDArray[np.int32], j: NDArray[np.int32], start: int
) -> NDArray[np.int64]:
    """Return `(K,)` in how many signs, from a byte on, the fingerprints at positions `i` and `j` differ."""
    differ = fingerprints[i][:, start:] ^ fingerprints[j][:, start:]
    count: NDArray[np.int64] = np.bitwise_count(differ).sum(axis=1, dtype=np.int64)
    return count


def _sharing(coarse: NDArray[np.uint64], band: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield i < j of rows that nearly share a band of their coarse signs, some at a time, some of them twice."""
    values = (coarse >> np.uint64(16 * band)).astype(np.uint16)
    order = np.argsort(values, kind="stable").astype(np.int32)
    sizes = np.bincount(values, minlength=2**16).astype(np.int32)
    starts = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(sizes, dtype=np.int32)])
    crowded = bool((sizes > _CROWD).any())
    rank = np.empty(len(values) if crowded else 0, dtype=np.int32)
    if crowded:
        rank[order] = np.arange(len(values), dtype=np.int32) - starts[values[order]]
    for first in range(0, len(values), _READ):
        for bit in range(-1, 16):
            some = values[first : first + _READ]
            # Of two rows that differ in some bits, the one that has not the lowest of these finds the other.
            half = bit >= 0 and not crowded
            rows = np.flatnonzero(some & (1 << bit) == 0) if half else np.arange(len(some))
            rows, own = rows + first, some[rows]
            for probe in _probes(bit):
                bucket = own ^ np.uint16(probe)
                there = np.flatnonzero(sizes[bucket])
                row, bucket = rows[there], bucket[there]
                low = starts[bucket]
                high = low + sizes[bucket]
                if crowded:
                    many = sizes[bucket] > _CROWD
                    low = np.where(many, np.minimum(low + rank[row], high), low)
                    high = np.where(many, np.minimum(low + _NEXT, high), high)
                for which, position in _expanded(low, high):
                    yield _smaller_first(row[which], order[position])


def _probes(lowest: int) -> list[int]:
    """Return the ways in which up to 2 bits of 16 may differ, the lowest of them being `lowest`; -1: none differs."""
    if lowest < 0:
        return [0]
    return [1 << lowest, *(1 << lowest | 1 << other for other in range(lowest + 1, 16))]


def _smaller_first(i: NDArray[Any], j: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    apart = i != j
    return np.minimum(i, j)[apart], np.maximum(i, j)[apart]


def _expanded(low: NDArray[Any], high: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield (row, position) for every position in `low[row]:high[row]`, some rows at a time."""
    counts = high - low
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK)))
        some = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), some)
        yield rows, np.arange(len(rows)) - np.repeat(ends[start:stop] - some - before, some) + low[rows]
        start = stop


def groups(pairs: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return `(n,)` a label per photo: those that a chain of pairs joins have one label, 0, 1, ... in order of photos.

    Args:
        pairs: `(K, 2 or more)` positions; further columns are not read.
        n: How many photos there are.

    Example:
        >>> groups(np.array([[0, 3], [3, 4]]), 5).tolist()
        [0, 1, 2, 0, 0]
    """
    root = np.arange(n)
    one, other = pairs[:, 0], pairs[:, 1]
    while len(one):
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(further := root[root], root):
            root = further
    return np.asarray((np.cumsum(root == np.arange(n)) - 1)[root], dtype=np.int64)


def confirmed(pairs: NDArray[np.int64], paths: Sequence[Path], *, spanning: bool = False) -> NDArray[np.float64]:
    """Return the likeness of each pair of candidates by a look at the photos.

    Args:
        pairs: `(K, 2 or more)` positions in `paths`, from `near_pairs`.
        paths: The photos, which could be read when their fingerprints were taken.
        spanning: Do not look at a pair whose photos are joined by alike pairs before it: enough for `groups`, and in a
            long row of equal photos far less work.

    Returns:
        `(K,)` from `alike`; 0 where it was not looked at.

    Raises:
        UnreadableImage: If a photo cannot be read any more.
    """
    result = np.zeros(len(pairs))
    cache: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
    parent = list(range(len(paths)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def small(i: int) -> NDArray[np.float32]:
        if i not in cache:
            cache[i] = small_of(read_grey(paths[i], _SMALL)[0])
            if len(cache) > 10_000:  # 160 MB
                cache.popitem(last=False)
        cache.move_to_end(i)
        return cache[i]

    for k, (i, j) in enumerate(pairs[:, :2].tolist()):
        if spanning and root(i) == root(j):
            continue
        result[k] = alike_of(small(i), small(j))
        if result[k] >= ALIKE:
            parent[root(i)] = root(j)
    return result


def alike(a: Path, b: Path) -> float:
    """Return how much of two photos is the same, 0..1: see `alike_of`.

    Raises:
        UnreadableImage: As `fingerprint`.
    """
    return alike_of(*(small_of(read_grey(path, _SMALL)[0]) for path in (a, b)))


def small_of(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the `(64, 64)` float32 picture that `alike_of` compares, from an upright `(H, W)` uint8 one."""
    return np.asarray(_square(grey, _SMALL), dtype=np.float32)


def alike_of(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return how much of two small pictures is the same, 0..1, wherever it lies and however it is lit.

    Patches of one are looked for near their place in the other; the shift and stretch that most of them agree on are
    undone; then each patch is held against its counterpart. What counts is the mean correlation, patches with more to
    see in them counting more: an object that was moved on a bare table makes two photos different, a hand that reaches
    into a full one does not.

    Args:
        a: `(64, 64)` float32, from `small_of`.
        b: The same.

    Example:
        >>> a = np.random.default_rng(0).random((64, 64), dtype=np.float32) * 255
        >>> round(alike_of(a, a / 2 + 20), 2), alike_of(a, a.T) < 0.5
        (1.0, True)
    """
    best, _, centres = _search(a, b, step=8, reach=4)
    moved = b
    sure = best[0] * (best[0] > 0.6)
    if np.count_nonzero(sure) >= 6:
        grid = np.arange(_SMALL, dtype=np.float64)
        y, x = np.meshgrid(centres, centres, indexing="ij")
        ys, xs = _line(y, best[1], sure, grid), _line(x, best[2], sure, grid)
        moved = _sampled(b, ys, xs)
    best, weights, _ = _search(a, moved, step=4, reach=1)
    total = float(weights.sum())
    return float((np.clip(best[0], 0, 1) * weights).sum()) / total if total > 0 else 0.0


def _search(
    a: NDArray[np.float32], b: NDArray[np.float32], *, step: int, reach: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Find each patch of `a`, of 2 x 2 cells of `step` pixels, near its place in `b`.

    Returns:
        `(3, P, P)` best correlation, and the shift in y and x where it was; `(P, P)` the larger contrast of the two
        patches (0 below 2 grey levels, which is noise); `(P,)` the patches' centres.
    """
    cells = (_SMALL - 2 * reach) // step
    side = cells * step
    here = a[reach : reach + side, reach : reach + side]
    span = 2 * reach + 1
    there = np.lib.stride_tricks.sliding_window_view(b, (side, side))[:span, :span].reshape(-1, side, side)

    def patches(values: NDArray[np.float32]) -> NDArray[np.float32]:
        sums = values.reshape(-1, cells, step, side).sum(axis=2).reshape(-1, cells, cells, step).sum(axis=3)
        pairs = sums[:, 1:] + sums[:, :-1]
        return np.asarray((pairs[:, :, 1:] + pairs[:, :, :-1]) / (2 * step) ** 2)

    mean_a, mean_b = patches(here), patches(there)
    strength = np.sqrt(np.maximum(patches(here * here) - mean_a**2, 0))
    power = np.sqrt(np.maximum(patches(there * there) - mean_b**2, 0))
    match = (patches(here * there) - mean_a * mean_b) / (strength * power + 1.0)  # 1: a square level of noise
    best = match.argmax(axis=0)
    seen = np.maximum(strength[0], power[len(power) // 2])
    highest = np.take_along_axis(match, best[None], axis=0)[0]
    found = np.stack([highest, best // span - reach, best % span - reach]).astype(np.float32)
    return found, np.where(seen >= 2, seen, np.float32(0)), reach + step * np.arange(1, cells)


def _line(
    at: NDArray[np.int64], shift: NDArray[np.float32], sure: NDArray[np.float32], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit shifts `(P, P)` at places `at` by a straight line, outliers left out; return where each grid point lies."""
    weights, level, slope = sure.astype(np.float64), 0.0, 0.0
    for _ in range(3):
        total = float(weights.sum())
        if np.count_nonzero(weights) < 3:
            break
        mean, height = float((weights * at).sum()) / total, float((weights * shift).sum()) / total
        spread = float((weights * (at - mean) ** 2).sum())
        slope = float((weights * (at - mean) * (shift - height)).sum()) / spread if spread > 0 else 0.0
        level = height - slope * mean
        weights = sure * (np.abs(level + slope * at - shift) < 1.5)
    return np.clip(grid + level + slope * grid, 0, _SMALL - 1)


def _sampled(picture: NDArray[np.float32], ys: NDArray[np.float64], xs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sample a square picture at lines `ys` and columns `xs`, linearly in between."""
    y0, x0 = (np.minimum(v.astype(np.int64), _SMALL - 2) for v in (ys, xs))
    fy, fx = (ys - y0)[:, None], (xs - x0)[None, :]
    lines = picture[y0] * (1 - fy) + picture[y0 + 1] * fy
    return np.asarray(lines[:, x0] * (1 - fx) + lines[:, x0 + 1] * fx, dtype=np.float32)
