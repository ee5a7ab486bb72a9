"""Features under boxes and targets of masks, under any convention: RoIAlign over a feature pyramid.

The seam for faster routes: the network calls these two functions and no operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from maskwright.models.conventions import Conventions

FINEST = 2
"""The level of stride 4."""


def box_levels(boxes: Tensor, count: int, how: Conventions) -> Tensor:
    """Choose the pyramid level at which each box is read (Lin et al. 2017, equation 1).

    Args:
        boxes: `(R, 4)` `x1 y1 x2 y2` in pixels of the input.
        count: How many levels there are, from stride 4 on.
        how: Whose rounding.

    Returns:
        `(R,)` int64, 0 the finest.
    """
    sides = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    level = how.level_at + torch.log2(sides / how.level_side + how.level_inside)
    level = torch.floor(level + torch.tensor(how.level_outside, dtype=level.dtype))
    return level.clamp(FINEST, FINEST + count - 1).to(torch.int64) - FINEST


def align_rois(
    features: Mapping[str, Tensor], strides: Mapping[str, int], rois: Sequence[Tensor], side: int, how: Conventions
) -> Tensor:
    """Resample the features under each box to a square grid.

    Args:
        features: By name, each `(N, C, H / stride, W / stride)`.
        strides: Of those to use, by their names, ascending from 4, each twice the one before.
        rois: Per photo `(R_i, 4)` boxes in pixels of the input.
        side: Cells of the output grid per side.
        how: Alignment, sampling and levels.

    Returns:
        `(sum R_i, C, side, side)`.
    """
    boxes = torch.cat(list(rois))
    photo = torch.cat([torch.full_like(r[:, :1], i) for i, r in enumerate(rois)])
    rows = torch.cat([photo, boxes], 1)
    levels = box_levels(boxes, len(strides), how)
    first = features[next(iter(strides))]
    result = first.new_zeros((len(rows), first.shape[1], side, side))
    for level, (name, stride) in enumerate(strides.items()):
        chosen = torch.where(levels == level)[0]
        pooled = roi_align(
            features[name], rows[chosen].to(first.dtype), side, 1.0 / stride, how.roi_sampling, how.roi_aligned
        )
        result = result.index_put((chosen,), pooled.to(result.dtype))
    return result


def mask_targets(masks: Tensor, boxes: Tensor, matches: Tensor, side: int, how: Conventions) -> Tensor:
    """Cut the target of the mask head out of the true masks.

    Args:
        masks: `(N, H, W)` uint8 0/1 of a photo's objects.
        boxes: `(R, 4)` in pixels.
        matches: `(R,)` int64: the object of each box.
        side: Cells of the target per side.
        how: Alignment, and whether targets are yes or no.

    Returns:
        `(R, side, side)` float 0..1.
    """
    rows = torch.cat([matches[:, None].to(boxes.dtype), boxes], 1)
    found: Tensor = roi_align(masks[:, None].to(boxes.dtype), rows, side, 1.0, -1, how.roi_aligned)[:, 0]
    return (found >= 0.5).to(found.dtype) if how.hard_targets else found
