"""Features under boxes and targets of masks, under any convention: RoIAlign over a feature pyramid.

The seam for faster routes: the network calls these two functions and no operator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from maskwright.crops import Crop
from maskwright.models.conventions import Conventions
from maskwright.models.rois import pool_level, taps

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
    features: Mapping[str, Tensor],
    strides: Mapping[str, int],
    rois: Sequence[Tensor],
    side: int,
    how: Conventions,
    exact: bool = False,
) -> Tensor:
    """Resample the features under each box to a square grid.

    Args:
        features: By name, each `(N, C, H / stride, W / stride)`.
        strides: Of those to use, by their names, ascending from 4, each twice the one before.
        rois: Per photo `(R_i, 4)` boxes in pixels of the input.
        side: Cells of the output grid per side.
        how: Alignment, sampling and levels.
        exact: Use torchvision's operator, to the last bit.

    Returns:
        `(sum R_i, C, side, side)`.
    """
    boxes = torch.cat(list(rois))
    photo = torch.cat([torch.full((len(r),), i, dtype=torch.int64, device=r.device) for i, r in enumerate(rois)])
    levels = box_levels(boxes, len(strides), how)
    parts, order = [], []
    for level, (name, stride) in enumerate(strides.items()):
        chosen = torch.where(levels == level)[0]
        order.append(chosen)
        more = (1.0 / stride, how.roi_sampling, how.roi_aligned)
        if exact:
            rows = torch.cat([photo[chosen, None].to(boxes.dtype), boxes[chosen]], 1)
            parts.append(roi_align(features[name], rows, side, *more))
        else:
            parts.append(pool_level(features[name], boxes[chosen], photo[chosen], side, *more))
    pooled = torch.cat(parts)[torch.cat(order).argsort()]
    return pooled if exact else pooled.permute(0, 3, 1, 2)


def mask_targets(
    masks: Sequence[Crop], size: tuple[int, int], boxes: Tensor, matches: Tensor, side: int, how: Conventions
) -> Tensor:
    """Cut the target of the mask head out of the true masks.

    Args:
        masks: Of a photo's objects.
        size: `(height, width)` of the photo.
        boxes: `(R, 4)` in pixels.
        matches: `(R,)` int64: the object of each box.
        side: Cells of the target per side.
        how: Alignment, and whether targets are yes or no.

    Returns:
        `(R, side, side)` float 0..1, of the boxes' type under autocast too.
    """
    with torch.autocast(boxes.device.type, enabled=False):  # the products would round shares of a cell to bf16
        found = torch.stack(
            [
                _cut(masks[match], size, box, side, how.roi_aligned)
                for match, box in zip(matches.tolist(), boxes, strict=True)
            ]
        )
    return (found >= 0.5).to(found.dtype) if how.hard_targets else found


def _cut(crop: Crop, size: tuple[int, int], box: Tensor, side: int, aligned: bool) -> Tensor:
    """Return what RoIAlign makes of a mask under a box `(4,)`: `(side, side)` float.

    Its sample points form a grid, so that it is two products of matrices, over the part of the mask that they lie in.
    """
    low = box[:2] - (0.5 if aligned else 0.0)
    lengths = box[2:] - box[:2] if aligned else (box[2:] - box[:2]).clamp(min=1.0)
    matrices = []
    for axis, start, held, length in (
        (1, crop.top, crop.mask.shape[0], size[0]),
        (0, crop.left, crop.mask.shape[1], size[1]),
    ):
        points = math.ceil(float(lengths[axis]) / side)
        cells, weights = taps(low[axis : axis + 1], lengths[axis : axis + 1], length, side, points)
        cells = cells[0] - start
        inside = (cells >= 0) & (cells < held)
        matrix = box.new_zeros((side, held))
        matrices.append(matrix.scatter_add_(1, torch.where(inside, cells, 0), weights[0] * inside))
    down, along = matrices
    return down @ (crop.mask.to(box.dtype) @ along.T)
