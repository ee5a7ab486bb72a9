"""RoIAlign (He et al. 2017) over a feature pyramid, by the route that is fast on the device at hand.

Every output cell of RoIAlign is a weighted sum of a few feature vectors. On a CPU, with features stored channels last,
that is an embedding bag: rows of a table, weighted and summed, vectorised over the channels, with a backward that runs
on all cores. It returns what torchvision's operator returns (a test holds it to 1e-4) several times faster
(`benchmarks/step.py` prints the ratio). On other devices torchvision's own operator is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align


def assign_levels(boxes: Tensor, strides: Sequence[int], cells: float) -> Tensor:
    """Choose the pyramid level of each box: the coarsest at which its side still spans `cells` cells or more.

    Args:
        boxes: `(R, 4)` `x1 y1 x2 y2` in pixels.
        strides: Ascending, each twice the one before.
        cells: How many cells of its level the square root of a box's area should span.

    Returns:
        `(R,)` int64, positions in `strides`.
    """
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = torch.floor(torch.log2(sides / (cells * strides[0]) + 1e-6))
    return level.clamp(0, len(strides) - 1).to(torch.int64)


def pool_rois(
    features: Mapping[str, Tensor],
    strides: Sequence[int],
    rois: Sequence[Tensor],
    side: int,
    *,
    cells: float,
    sampling: int = 2,
) -> Tensor:
    """Resample the features under each box to a square grid.

    Args:
        features: By stride as text, each `(N, C, H / stride, W / stride)`.
        strides: Which of them to use, ascending, each twice the one before.
        rois: Per photo `(R_i, 4)` boxes in pixels of the input.
        side: Cells of the output grid per side.
        cells: See `assign_levels`.
        sampling: Sample points per cell and axis.

    Returns:
        `(sum R_i, C, side, side)`.
    """
    boxes = torch.cat(list(rois))
    photo = torch.cat([torch.full((len(r),), i, dtype=torch.int64, device=r.device) for i, r in enumerate(rois)])
    levels = assign_levels(boxes, strides, cells)
    maps = [features[str(stride)] for stride in strides]
    if maps[0].device.type != "cpu":
        return _by_torchvision(maps, strides, boxes, photo, levels, side, sampling)
    return _by_embedding_bag(maps, strides, boxes, photo, levels, side, sampling)


def _by_torchvision(
    maps: list[Tensor], strides: Sequence[int], boxes: Tensor, photo: Tensor, levels: Tensor, side: int, sampling: int
) -> Tensor:
    result = maps[0].new_zeros((len(boxes), maps[0].shape[1], side, side))
    for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = torch.nonzero(levels == level)[:, 0]
        rois = torch.cat([photo[chosen, None].to(boxes.dtype), boxes[chosen]], 1).to(features.dtype)
        pooled = roi_align(features, rois, side, 1.0 / stride, sampling, True)
        result = result.index_put((chosen,), pooled.to(result.dtype))
    return result


def _by_embedding_bag(
    maps: list[Tensor], strides: Sequence[int], boxes: Tensor, photo: Tensor, levels: Tensor, side: int, sampling: int
) -> Tensor:
    channels = maps[0].shape[1]
    # One table of all cells of all levels; a row is one cell's feature vector.
    table = torch.cat([m.float().permute(0, 2, 3, 1).reshape(-1, channels) for m in maps])
    with torch.no_grad():
        shapes = torch.tensor([m.shape[-2:] for m in maps], dtype=torch.int64)
        sizes = shapes.prod(1) * maps[0].shape[0]
        start = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])[levels]
        height, width = shapes[levels, 0], shapes[levels, 1]
        stride = torch.tensor(list(strides), dtype=boxes.dtype)[levels]
        scaled = boxes / stride[:, None] - 0.5  # pixel centres at .5, as RoIAlign's `aligned=True`
        columns, column_weights = _taps(scaled[:, 0], scaled[:, 2], width, side, sampling)
        lines, line_weights = _taps(scaled[:, 1], scaled[:, 3], height, side, sampling)
        base = (start + photo * height * width)[:, None, None, None, None]
        index = base + lines[:, :, None, :, None] * width[:, None, None, None, None] + columns[:, None, :, None, :]
        weight = line_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        # What a cell reads: the entries that weigh something, in one row behind the other.
        used = weight != 0
        counts = used.flatten(3).sum(3).flatten()
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    pooled = functional.embedding_bag(
        index[used], table, offsets[: len(counts)], per_sample_weights=weight[used], mode="sum"
    )
    return pooled.view(len(boxes), side, side, channels).permute(0, 3, 1, 2)


def _taps(low: Tensor, high: Tensor, length: Tensor, side: int, sampling: int) -> tuple[Tensor, Tensor]:
    """Return the cells `(R, side, 2 * sampling)` and weights that linear interpolation reads along one axis.

    Sample points less than a cell apart read the same cells; each is then named once with its whole weight, and the
    other entries weigh zero. The fewer entries, the less there is to add up, above all in the backward pass.
    """
    points = side * sampling
    steps = (torch.arange(points, dtype=low.dtype) + 0.5) / points
    position = low[:, None] + (high - low)[:, None] * steps
    last = (length - 1)[:, None]
    # torchvision: a point more than one cell outside counts as zero, one less far outside as the border cell.
    inside = (position >= -1) & (position <= length[:, None])
    position = torch.minimum(position.clamp(min=0), last.to(position.dtype))
    lower = position.floor().to(torch.int64)
    upper = torch.minimum(lower + 1, last)
    share = position - lower
    weights = torch.stack([1 - share, share], -1) * inside[..., None] / sampling
    cells = torch.stack([lower, upper], -1).view(-1, side, 2 * sampling)
    weights = weights.view(-1, side, 2 * sampling)
    for first in range(2 * sampling):
        for second in range(first + 1, 2 * sampling):
            same = cells[..., first] == cells[..., second]
            weights[..., first] += weights[..., second] * same
            weights[..., second] *= ~same
    return cells, weights
