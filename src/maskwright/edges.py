"""Hold masks against the edges of the picture: do they lie where something ends, and if not, where would they.

A mask's outline runs between pixels: each step of it has a pixel inside and its neighbour outside. Where the outline
follows the object, the two differ in grey. So the mean difference along the outline, measured for the outline as it
stands and for the outline moved or turned, says which of them fits the picture. A polygon drawn half a pixel off, or
drawn loosely all around, stays a polygon that fits best where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels

REACH = 5
"""Outlines are moved by up to so many pixels."""

STEPS = 2_000
"""So many steps of the outlines of one photo, at most, are compared with it, evenly chosen."""

LEAST_PHOTOS = 8
"""Below this many photos, a shift is chance."""

SHIFTED_PX = 0.75
"""From this common shift on, masks are said to be shifted; half a pixel is a matter of convention."""

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # from inside to outside: left, right, up, down


@dataclass(frozen=True)
class Outline:
    """The outline of one mask.

    Attributes:
        steps: `(N, 4)` int64: x and y of the pixel inside, and dx, dy to its neighbour outside; steps along the photo's
            border are left out.
        runs: Straight runs of the whole outline.
        short: Of these, the runs of one pixel.
    """

    steps: NDArray[np.int64]
    runs: int
    short: int


def outline(mask: NDArray[np.bool_], x: int, y: int, size: tuple[int, int]) -> Outline:
    """Return the outline of a mask that is known in a window.

    Args:
        mask: `(h, w)` bool; the photo is empty outside it.
        x: Column of the window's left edge in the photo.
        y: Line of its upper edge.
        size: `(height, width)` of the photo.

    Example:
        >>> square = outline(np.ones((2, 2), dtype=bool), 3, 3, (8, 8))
        >>> len(square.steps), square.runs, square.short
        (8, 4, 0)
    """
    wide = np.pad(mask, 1)
    found, runs, short = [], 0, 0
    for dx, dy in _DIRECTIONS:
        outside = np.roll(wide, (-dy, -dx), axis=(0, 1))
        edge = wide & ~outside
        ys, xs = np.nonzero(edge)
        px, py = xs + x - 1, ys + y - 1
        inner = (px + dx >= 0) & (px + dx < size[1]) & (py + dy >= 0) & (py + dy < size[0])
        steps = np.column_stack([px, py, np.full_like(px, dx), np.full_like(px, dy)])
        found.append(steps[inner])
        along = edge if dx else edge.T  # a run of left or right steps goes down, one of upper or lower steps across
        before, after = np.roll(along, 1, axis=0), np.roll(along, -1, axis=0)
        runs += int((along & ~before).sum())
        short += int((along & ~before & ~after).sum())
    return Outline(np.concatenate(found), runs, short)


@dataclass(frozen=True)
class Fit:
    """How the outlines of one photo fit it.

    Attributes:
        moved: `(4, 2 * REACH + 1)` float64: mean grey difference over the outline's left, right, upper and lower steps,
            when moved across by -REACH..REACH pixels; NaN where there is no such step.
        turned: `(8,)` float64: mean grey difference over a few pixels across the outline, for the outline read in the
            stored frame of EXIF orientation 1..8; NaN where most of it would lie outside the photo.
    """

    moved: NDArray[np.float64]
    turned: NDArray[np.float64]


def fit(grey: NDArray[np.uint8], outlines: Sequence[Outline]) -> Fit | None:
    """Measure how outlines fit a photo.

    Args:
        grey: `(H, W)` uint8, upright, full size.
        outlines: Of the objects in it.

    Returns:
        The measures; `None` if there is no outline.
    """
    steps = np.concatenate([o.steps for o in outlines]) if outlines else np.zeros((0, 4), dtype=np.int64)
    if not len(steps):
        return None
    if len(steps) > STEPS:
        steps = steps[np.linspace(0, len(steps) - 1, STEPS).round().astype(np.int64)]
    values = grey.astype(np.int16)
    inside, across = steps[:, :2], steps[:, 2:]
    shifts = np.arange(-REACH, REACH + 1)
    moved = np.full((4, len(shifts)), np.nan)
    for side, (dx, dy) in enumerate(_DIRECTIONS):
        own = inside[(across == (dx, dy)).all(axis=1)]
        if len(own):
            places = own[None] + shifts[:, None, None] * np.abs([dx, dy])
            across_step = np.array([dx, dy])
            moved[side] = _difference(values, places, places + across_step)
    turned = np.full(8, np.nan)
    reach = max(2, round(max(grey.shape) / 200))  # a hand-drawn outline is a few pixels off
    for orientation in range(1, 9):
        a = upright_points(inside - (reach - 1) * across, orientation, (grey.shape[0], grey.shape[1]))
        b = upright_points(inside + reach * across, orientation, (grey.shape[0], grey.shape[1]))
        turned[orientation - 1] = _difference(values, a[None], b[None])[0]
    return Fit(moved, turned)


def _difference(values: NDArray[np.int16], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return `(S,)` the mean difference in grey between points `a` and `b` `(S, N, 2)`; NaN if most are outside."""
    edge = np.array([values.shape[1], values.shape[0]])
    valid = ((a >= 0) & (a < edge) & (b >= 0) & (b < edge)).all(axis=2)
    a, b = np.clip(a, 0, edge - 1), np.clip(b, 0, edge - 1)
    apart = np.abs(values[a[..., 1], a[..., 0]] - values[b[..., 1], b[..., 0]])
    count = valid.sum(axis=1)
    mean = np.where(valid, apart, 0).sum(axis=1) / np.maximum(count, 1)
    return np.asarray(np.where(count * 2 >= a.shape[1], mean, np.nan))


def upright_points(points: NDArray[np.int64], orientation: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Return where pixels of the stored picture are in the upright one.

    Args:
        points: `(N, 2)` x and y in the stored frame.
        orientation: EXIF orientation 1..8.
        size: `(height, width)` of the upright picture.

    Example:
        >>> upright_points(np.array([[0, 0]]), 6, (40, 30)).tolist()
        [[29, 0]]
    """
    x, y = points[:, 0], points[:, 1]
    height, width = size
    turned = orientation in pixels.TRANSPOSED
    last_x, last_y = (height - 1, width - 1) if turned else (width - 1, height - 1)  # of the stored picture
    if orientation in pixels.LEFT_RIGHT:
        x = last_x - x
    if orientation in pixels.UPSIDE_DOWN:
        y = last_y - y
    return np.column_stack([y, x] if turned else [x, y])


@dataclass(frozen=True)
class Shift:
    """By how much the masks of a set lie beside the edges.

    Attributes:
        x: To the right, in pixels: masks must move by it to fit.
        y: Down.
        error: Standard error of the larger of the two, from leaving out a part of the photos at a time.
        gain: How much stronger the edges are there than where the masks stand, as a factor.
        photos: That it was measured on.
    """

    x: float
    y: float
    error: float
    gain: float
    photos: int

    @property
    def clear(self) -> bool:
        """Whether the masks are shifted beyond doubt."""
        return max(abs(self.x), abs(self.y)) >= max(SHIFTED_PX, 4 * self.error) and self.gain >= 1.05


def common_shift(fits: Sequence[Fit]) -> Shift | None:
    """Find the shift that all masks of a set have in common.

    Left and right steps are measured apart: where masks are drawn too large, the left ones lie too far left and the
    right ones too far right, and the mean of both is still 0.

    Returns:
        The shift; `None` with fewer than 8 photos, or where the outlines meet no edges.
    """
    profiles = np.array([f.moved for f in fits]).reshape(-1, 4, 2 * REACH + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        profiles = profiles / profiles.mean(axis=2, keepdims=True)  # each photo counts alike, however contrasty it is
    profiles = profiles[np.isfinite(profiles).all(axis=(1, 2))]
    n = len(profiles)
    if n < LEAST_PHOTOS:
        return None
    whole = profiles.mean(axis=0)
    if (whole.max(axis=1) < 1.1).any():
        return None
    x, y = _shift_of(whole)
    parts = min(n, 20)
    without = np.array([_shift_of(np.delete(profiles, np.s_[k::parts], axis=0).mean(axis=0)) for k in range(parts)])
    spread = np.sqrt((parts - 1) * without.var(axis=0))  # the jackknife's standard error
    own = whole[:2] if abs(x) >= abs(y) else whole[2:]
    step = round(x) if abs(x) >= abs(y) else round(y)
    gain = float(own[:, REACH + step].sum() / own[:, REACH].sum())
    return Shift(x, y, float(spread[0] if abs(x) >= abs(y) else spread[1]), gain, n)


def _shift_of(profiles: NDArray[np.float64]) -> tuple[float, float]:
    """Return the shift in x and y from profiles `(4, S)` of left, right, upper and lower steps."""
    peaks = [_peak(profile) for profile in profiles]
    return (peaks[0] + peaks[1]) / 2, (peaks[2] + peaks[3]) / 2


def _peak(profile: NDArray[np.float64]) -> float:
    """Return where a profile over -REACH..REACH is highest, between the samples by a parabola."""
    top = int(profile.argmax())
    if not 0 < top < len(profile) - 1:
        return float(top - REACH)
    low, middle, high = profile[top - 1 : top + 2].tolist()
    bend = low - 2 * middle + high
    return top - REACH + (0.5 * (low - high) / bend if bend < 0 else 0.0)


@dataclass(frozen=True)
class Reading:
    """Which way of reading masks fits a group of photos.

    Attributes:
        orientation: The reading that was held against the masks as they stand (EXIF orientation 2..8).
        ratio: How much stronger the edges are along the outlines so read than along those that stand.
        wins: Share of the photos in which they are stronger.
        photos: That were compared.
    """

    orientation: int
    ratio: float
    wins: float
    photos: int

    @property
    def better(self) -> bool:
        """Whether the masks fit beyond doubt only when read that way."""
        return self.photos >= 5 and self.ratio >= 1.3 and self.wins >= 0.8

    @property
    def worse(self) -> bool:
        """Whether the masks fit as they stand, clearly better than when read that way."""
        return self.ratio <= 1 / 1.15 and self.wins <= 0.25


def reading(fits: Sequence[Fit], orientation: int) -> Reading | None:
    """Hold the masks of photos against the same masks read in the stored frame of an EXIF orientation.

    Returns:
        The comparison; `None` if no photo allows it.
    """
    values = np.array([f.turned for f in fits]).reshape(-1, 8)[:, [0, orientation - 1]]
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values) or not values[:, 0].sum():
        return None
    wins = (values[:, 1] > values[:, 0]).mean()
    return Reading(orientation, float(values[:, 1].sum() / values[:, 0].sum()), float(wins), len(values))


def looks_inverted(mask: NDArray[np.bool_]) -> bool:
    """Tell whether a mask looks like the background of one object: it fills the photo but for a compact patch.

    Args:
        mask: `(H, W)` bool, of the whole photo.
    """
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if border.mean() < 0.9 or mask.mean() < 0.5:
        return False
    labels, count = pixels.label_parts(~mask)
    if not count:
        return False
    sizes = np.bincount(labels.ravel())[1:]
    largest = int(sizes.argmax()) + 1
    ys, xs = np.nonzero(labels == largest)
    box = (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
    whole = sizes[largest - 1] / mask.size
    return bool(whole >= 0.002 and sizes[largest - 1] >= 0.9 * sizes.sum() and sizes[largest - 1] >= 0.15 * box)
