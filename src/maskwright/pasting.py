"""How masks of the network come back to the photo, under other frameworks' conventions; each inside its box only."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskwright import pixels


def paste_padded(mask: Tensor, box: Tensor, size: tuple[int, int]) -> bytes:
    """Put back a mask as torchvision does: with a rim of zeros, resized to whole pixels of the grown box.

    Args:
        mask: `(S, S)` float32 probabilities.
        box: `(4,)` float32 `x1 y1 x2 y2` in pixels of the photo.
        size: `(height, width)` of the photo.

    Returns:
        RLE, object where the probability is at least one half.
    """
    side = mask.shape[-1]
    factor = (side + 2) / side
    half = (box[2:] - box[:2]) * 0.5 * factor
    middle = (box[2:] + box[:2]) * 0.5
    x1, y1, x2, y2 = torch.cat([middle - half, middle + half]).to(torch.int64).tolist()
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2 + 1, size[1]), min(y2 + 1, size[0])
    if right <= left or bottom <= top:
        return _nothing(size)
    padded = functional.pad(mask[None, None], (1, 1, 1, 1))
    scaled = functional.interpolate(padded, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    part = scaled[top - y1 : bottom - y1, left - x1 : right - x1]
    return pixels.encode_window((part >= 0.5).numpy(), left, top, size)


def paste_grid(mask: Tensor, box: Tensor, size: tuple[int, int]) -> bytes:
    """Put back a mask as Detectron2 and MMDetection do: each pixel's centre reads the mask, zeros lie outside it.

    Args:
        mask: `(S, S)` float32 probabilities.
        box: `(4,)` float32 `x1 y1 x2 y2` in pixels of the photo.
        size: `(height, width)` of the photo.

    Returns:
        RLE, object where the probability is at least one half.
    """
    x1, y1, x2, y2 = box.tolist()
    left, top = max(math.floor(x1) - 1, 0), max(math.floor(y1) - 1, 0)
    right, bottom = min(math.ceil(x2) + 1, size[1]), min(math.ceil(y2) + 1, size[0])
    if right <= left or bottom <= top or x2 <= x1 or y2 <= y1:
        return _nothing(size)
    columns = (torch.arange(left, right, dtype=torch.float32) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    lines = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(columns, lines, indexing="xy"), -1)[None]
    part = functional.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
    return pixels.encode_window((part >= 0.5).numpy(), left, top, size)


def _nothing(size: tuple[int, int]) -> bytes:
    return pixels.encode_window(np.zeros((1, 1), dtype=np.bool_), 0, 0, size)
