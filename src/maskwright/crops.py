"""Masks of a batch as crops: what a network learns from takes the memory of the objects, not of objects times photos.

A hundred objects of a photo of 800 x 1333 are 107 MB as whole masks, and some as many kilobytes as crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """A part of a mask, outside which it is empty.

    Attributes:
        mask: `(h, w)` uint8 0/1.
        left: Column of its left edge in the whole mask.
        top: Line of its upper edge.
    """

    mask: Tensor
    left: int
    top: int


def pack(masks: Tensor) -> dict[str, Tensor]:
    """Cut masks to what is in them.

    Args:
        masks: `(N, H, W)` uint8 0/1, on the CPU.

    Returns:
        `windows` `(N, 4)` int64 `x1 y1 x2 y2`, tight, zeros for an empty mask; `masks` `(sum of their areas,)` uint8,
        the windows' pixels, line by line, one mask behind the other.

    Example:
        >>> packed = pack(torch.tensor([[[0, 0, 0], [0, 1, 1], [0, 1, 0]]], dtype=torch.uint8))
        >>> packed["windows"].tolist(), packed["masks"].tolist()
        ([[1, 1, 3, 3]], [1, 1, 1, 0])
    """
    # NumPy, since threads that read photos do this: in each, torch would start threads of its own beside those of the
    # training, and a step take a quarter longer.
    windows = np.zeros((len(masks), 4), dtype=np.int64)
    parts = []
    for window, mask in zip(windows, masks.numpy(), strict=True):
        lines, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(lines):
            x1, y1, x2, y2 = window[:] = columns[0], lines[0], columns[-1] + 1, lines[-1] + 1
            parts.append(mask[y1:y2, x1:x2].ravel())
    found = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)
    return {"windows": torch.from_numpy(windows), "masks": torch.from_numpy(found)}


def crops(target: Mapping[str, Tensor]) -> list[Crop]:
    """Return the masks of a target, packed or whole (`masks` `(N, H, W)`)."""
    masks = target["masks"]
    if masks.ndim == 3:
        return [Crop(mask, 0, 0) for mask in masks]
    found, start = [], 0
    for x1, y1, x2, y2 in target["windows"].tolist():
        end = start + (y2 - y1) * (x2 - x1)
        found.append(Crop(masks[start:end].view(y2 - y1, x2 - x1), x1, y1))
        start = end
    return found


def whole(target: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Return the masks of a target as `(N, H, W)` uint8.

    Args:
        target: With packed masks, or whole ones, which are returned.
        size: `(height, width)`.
    """
    if target["masks"].ndim == 3:
        return target["masks"]
    parts = crops(target)
    found = target["masks"].new_zeros((len(parts), *size))
    for mask, part in zip(found, parts, strict=True):
        height, width = part.mask.shape
        mask[part.top : part.top + height, part.left : part.left + width] = part.mask
    return found
