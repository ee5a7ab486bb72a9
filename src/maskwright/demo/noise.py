"""Periodic noise fields, made once, from which every texture of the sample world is cut."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float32]
Kind = Literal["white", "fine", "cloud", "soft", "grain"]

SIDE = 1024
"""Side of a field; a power of two, so that wrapping around is one bitwise and."""

_SEED = 20180417  # of the fields only: pictures differ by where they cut, and by everything else
_KINDS: dict[Kind, int] = {"white": 0, "fine": 1, "cloud": 2, "soft": 3, "grain": 4}


@lru_cache(maxsize=8)
def field(kind: Kind) -> Floats:
    """Return a noise field that repeats at its borders.

    Args:
        kind: The spectrum: `white` (each texel alone), `fine` (1/f), `cloud` (1/f^1.8), `soft` (blobs of about 60
            texels), `grain` (blobs of about 4 texels).

    Returns:
        `(1024, 1024)` float32, mean 0, standard deviation 1, read only.
    """
    rng = np.random.default_rng([_SEED, _KINDS[kind]])
    values = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    if kind != "white":
        spectrum = fft.rfft2(values)
        fy = np.fft.fftfreq(SIDE)[:, None] * SIDE
        fx = np.fft.rfftfreq(SIDE)[None, :] * SIDE
        f = np.hypot(fx, fy)
        f[0, 0] = 1
        gain = {
            "fine": f**-1.0,
            "cloud": f**-1.8,
            "soft": np.exp(-((f / 12.0) ** 2)),
            "grain": np.exp(-((f / 110.0) ** 2)) * (1 - np.exp(-((f / 40.0) ** 2))),
        }[kind]
        gain[0, 0] = 0
        values = np.asarray(fft.irfft2(spectrum * gain.astype(np.float32), s=(SIDE, SIDE)), dtype=np.float32)
    values -= values.mean()
    values /= values.std()
    values.setflags(write=False)
    return values


def sample(kind: Kind, u: Floats, v: Floats) -> Floats:
    """Look up a field at any points, interpolated (`white` is not: between its texels there is nothing to see).

    Args:
        kind: As in `field`.
        u: Texels to the right, any shape, any range.
        v: Texels down, same shape.

    Returns:
        float32 of that shape.
    """
    flat = field(kind).ravel()
    if kind == "white":
        return flat[(v.astype(np.int32) & (SIDE - 1)) * SIDE + (u.astype(np.int32) & (SIDE - 1))]
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = u - u0, v - v0
    a, c = u0.astype(np.int32) & (SIDE - 1), (v0.astype(np.int32) & (SIDE - 1)) * SIDE
    b, d = (a + 1) & (SIDE - 1), (c + SIDE) & (SIDE * SIDE - 1)
    top = flat[c + a]
    top += (flat[c + b] - top) * fu
    low = flat[d + a]
    low += (flat[d + b] - low) * fu
    top += (low - top) * fv
    return top


def cut(rng: np.random.Generator, kind: Kind, side: int, stretch: tuple[int, int] = (1, 1)) -> Floats:
    """Cut a square out of a field at a random place.

    Args:
        rng: Where the place comes from.
        kind: As in `field`.
        side: Of the square, in texels; at most 1024.
        stretch: How many texels long and high one texel of the field becomes `(along x, along y)`; interpolated.

    Returns:
        `(side, side)` float32.
    """
    rows, columns = (min(-(-side // factor) + 2, SIDE) for factor in (stretch[1], stretch[0]))
    y, x = int(rng.integers(SIDE - rows + 1)), int(rng.integers(SIDE - columns + 1))
    piece = field(kind)[y : y + rows, x : x + columns]
    for axis in (0, 1):
        factor = stretch[1 - axis]
        if factor > 1:
            place = np.arange(side, dtype=np.float32) / factor
            whole = place.astype(np.int32)
            share = (place - whole.astype(np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
            low, high = piece.take(whole, axis=axis), piece.take(whole + 1, axis=axis)
            piece = np.asarray(low + (high - low) * share, dtype=np.float32)
        else:
            piece = piece[:side] if axis == 0 else piece[:, :side]
    return np.ascontiguousarray(piece)
