"""Operations on whole pictures: blur, shift, resize; fast, since every picture of a world passes here often."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from maskwright.demo.noise import Floats


def resized(values: Floats, size: tuple[int, int]) -> Floats:
    """Resize `(H, W)` float32 to `size` `(height, width)`: by area when shrinking, between middles when growing."""
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float32)


def blurred(values: Floats, radius: float) -> Floats:
    """Blur by a Gaussian of that radius (its standard deviation) in pixels.

    A wide one is done on a smaller copy, where it costs little and nothing is lost.

    Args:
        values: `(H, W)` or `(C, H, W)` float32.
        radius: In pixels, of the last two axes.
    """
    if radius < 3:
        each = (radius,) * 2 if values.ndim == 2 else (0, radius, radius)
        return np.asarray(ndimage.gaussian_filter(values, each, mode="nearest", truncate=2.6), dtype=np.float32)
    if values.ndim == 3:
        return np.stack([blurred(channel, radius) for channel in values])
    height, width = values.shape
    factor = min(radius / 1.5, min(height, width) / 4)
    small = resized(values, (max(round(height / factor), 4), max(round(width / factor), 4)))
    # Shrinking and growing each blur by a triangle (variance 1/6 of a small pixel): 1.385^2 + 2/6 = 1.5^2.
    small = ndimage.gaussian_filter(small, 1.385, mode="nearest", truncate=2.6)
    return resized(small, (height, width))


def moved(values: Floats, dx: int, dy: int) -> Floats:
    """Shift a picture by whole pixels; what comes in is what was at the border."""
    height, width = values.shape
    dx, dy = max(min(dx, width - 1), 1 - width), max(min(dy, height - 1), 1 - height)
    out = np.empty_like(values)
    y1, y2, x1, x2 = max(dy, 0), height + min(dy, 0), max(dx, 0), width + min(dx, 0)
    out[y1:y2, x1:x2] = values[y1 - dy : y2 - dy, x1 - dx : x2 - dx]
    out[y1:y2, :x1], out[y1:y2, x2:] = out[y1:y2, x1 : x1 + 1], out[y1:y2, x2 - 1 : x2]
    out[:y1], out[y2:] = out[y1], out[y2 - 1]
    return out
