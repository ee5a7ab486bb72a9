"""How a photo is put before the network for detection, under the network's own conventions.

Every framework scales photos in another way, and on small objects the way shows: so a network that was trained
elsewhere gets its photos as it is used to. Training photos are scaled in `batches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional

from maskwright.batches import FILL, MULTIPLE, Frame, frame_photo, kept_shape

FIXED = 1 << 11
"""OpenCV's fixed point: weights of its bilinear interpolation are whole 2048ths."""


@dataclass(frozen=True)
class Framed:
    """A photo as a network takes it.

    Attributes:
        image: `(3, H, W)`, H and W multiples of 32, the photo in the upper left corner; RGB 0..255, or what the
            network's `normalise` returns.
        frame: How it was done.
        normalised: Which of the two.
    """

    image: Tensor
    frame: Frame
    normalised: bool = False


def frame_for(
    network: Any,
    pixels: NDArray[np.uint8],
    side: int,
    short_side: int | None = None,
    size: tuple[int, int] | None = None,
) -> Framed:
    """Scale a photo for a network.

    Args:
        network: If it has `conventions` they say how; otherwise as `frame_photo` does.
        pixels: `(H, W, 3)` uint8 RGB.
        side: Longer side of the network's input, at most where a shorter side is given.
        short_side: Shorter side of the network's input, if `side` leaves room for it.
        size: `(height, width)` of the photo, if what is given was decoded at a reduced scale; only where the network's
            conventions scale smoothly, or it has none.
    """
    how = getattr(network, "conventions", None)
    if how is None and short_side is None:
        return Framed(*frame_photo(pixels, side, size))
    resample = "smooth" if how is None else how.resample
    if resample == "interpolate":
        return _interpolated(network, pixels, side, short_side)
    inner = scaled_size(size or pixels.shape[:2], side, short_side, resample)
    if inner == pixels.shape[:2]:
        scaled = pixels
    elif resample == "cv2":
        scaled = cv2_linear(pixels, inner)
    else:
        gap = 3.0 if resample == "smooth" else None
        picture = PillowImage.fromarray(pixels)
        scaled = np.asarray(picture.resize(inner[::-1], PillowImage.Resampling.BILINEAR, reducing_gap=gap))
    framed = np.full((up(inner[0]), up(inner[1]), 3), FILL, dtype=np.uint8)
    framed[: inner[0], : inner[1]] = scaled
    tensor = torch.from_numpy(np.ascontiguousarray(framed.transpose(2, 0, 1)))
    return Framed(tensor, Frame(size or _size(pixels), inner))


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    return int(pixels.shape[0]), int(pixels.shape[1])


def scaled_size(size: tuple[int, ...], side: int, short_side: int | None, resample: str = "smooth") -> tuple[int, int]:
    """Return `(height, width)` of a photo after scaling, its shape kept.

    Args:
        size: `(height, width)` of the photo.
        side: Of the longer side, at most where a shorter side is given.
        short_side: Of the shorter side, if `side` leaves room for it.
        resample: Whose rounding; see `maskwright.models.conventions`.

    Example:
        >>> scaled_size((3024, 4032), 1333, 800), scaled_size((480, 640), 320, None)
        ((800, 1067), (240, 320))
    """
    height, width = size
    scale = side / max(size)
    if short_side is not None:
        scale = min(short_side / min(size), scale)
    if resample == "pillow" and short_side is not None:
        # Detectron2 first makes the shorter side exact, then looks whether the longer is too long.
        first = short_side / min(size)
        new = [first * height, first * width]
        new[0 if height <= width else 1] = float(short_side)
        if max(new) > side:
            again = side / max(new)
            new = [v * again for v in new]
        return int(new[0] + 0.5), int(new[1] + 0.5)
    if resample == "cv2":
        return int(height * scale + 0.5), int(width * scale + 0.5)
    return kept_shape((height, width), (short_side or side, side))


def _interpolated(network: Any, pixels: NDArray[np.uint8], side: int, short_side: int | None) -> Framed:
    """Scale as torchvision does: normalised first, in floats, by bilinear interpolation without antialiasing."""
    image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1))).to(network.mean.device)
    size = pixels.shape[:2]
    scale = side / max(size) if short_side is None else min(short_side / min(size), side / max(size))
    scaled = functional.interpolate(
        network.normalise(image)[None],
        scale_factor=scale,
        mode="bilinear",
        recompute_scale_factor=True,
        align_corners=False,
    )[0]
    inner = (int(scaled.shape[-2]), int(scaled.shape[-1]))
    framed = scaled.new_zeros((3, up(inner[0]), up(inner[1])))
    framed[:, : inner[0], : inner[1]] = scaled
    return Framed(framed, Frame(_size(pixels), inner), normalised=True)


def cv2_linear(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a photo as OpenCV's `resize` with `INTER_LINEAR` does, in its fixed-point arithmetic.

    Args:
        pixels: `(H, W, 3)` uint8.
        size: The new `(height, width)`.

    Returns:
        `(height, width, 3)` uint8.

    Example:
        >>> cv2_linear(np.array([[[0] * 3, [100] * 3]], dtype=np.uint8), (1, 4))[0, :, 0].tolist()
        [0, 25, 75, 100]
    """
    height, width = pixels.shape[:2]
    if (height, width) == (2 * size[0], 2 * size[1]):
        # OpenCV takes the mean of four pixels where both sides are halved.
        wide = pixels.astype(np.uint16)
        total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
        return np.asarray((total + 2) >> 2, dtype=np.uint8)
    left, right, a0, a1 = _taps(width, size[1], inside=True)
    upper, lower, b0, b1 = _taps(height, size[0], inside=False)
    wide_rows = pixels.astype(np.int32)
    rows = wide_rows[:, left] * a0[None, :, None] + wide_rows[:, right] * a1[None, :, None]
    high = (b0[:, None, None] * (rows[upper] >> 4)) >> 16
    low = (b1[:, None, None] * (rows[lower] >> 4)) >> 16
    return np.asarray(np.clip((high + low + 2) >> 2, 0, 255), dtype=np.uint8)


def _taps(
    old: int, new: int, inside: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Return the two pixels that each new one is mixed of, and their weights in 2048ths."""
    position = ((np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if inside:
        share[(first < 0) | (first >= old - 1)] = 0
    weight = np.rint(share * np.float32(FIXED)).astype(np.int32)
    other = np.rint((np.float32(1) - share) * np.float32(FIXED)).astype(np.int32)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), other, weight


def up(value: int) -> int:
    """Round up to a multiple of 32.

    Example:
        >>> up(800), up(1067)
        (800, 1088)
    """
    return -(-value // MULTIPLE) * MULTIPLE
