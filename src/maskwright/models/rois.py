"""RoIAlign (He et al. 2017) over a feature pyramid, by the route that is fast on the device at hand.

Every output cell of RoIAlign is a weighted sum of a few feature vectors. On a CPU, with features stored channels last,
that is an embedding bag: rows of a table, weighted and summed, vectorised over the channels, with a backward that runs
on all cores. It returns what torchvision's operator returns (a test holds it to 1e-4) several times faster
(`benchmarks/step.py` prints the ratio). On other devices torchvision's own operator is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
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
    parts, rows = [], []
    for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = torch.nonzero(levels == level)[:, 0]
        rows.append(chosen)
        parts.append(pool_level(features, boxes[chosen], photo[chosen], side, 1.0 / stride, sampling))
    if len(parts) == 1:  # they are in order; putting them in order costs as much as half of their way back
        return parts[0].permute(0, 3, 1, 2)
    return torch.cat(parts)[torch.cat(rows).argsort()].permute(0, 3, 1, 2)


def pool_level(
    features: Tensor, boxes: Tensor, photo: Tensor, side: int, scale: float, sampling: int, aligned: bool = True
) -> Tensor:
    """Resample one map of features under boxes, as `torchvision.ops.roi_align` does; on a CPU the fast way.

    Args:
        features: `(N, C, H, W)`, fastest in channels last.
        boxes: `(R, 4)` in pixels of the input.
        photo: `(R,)` int64: which map of the batch each is for.
        side: Cells of the output grid per side.
        scale: Cells of the map per pixel of the input.
        sampling: Sample points per cell and axis; 0: as many as the cell has pixels, rounded up.
        aligned: Whether places count from the middle of pixels.

    Returns:
        `(R, side, side, C)` float32.
    """
    if features.device.type != "cpu":
        rows = torch.cat([photo[:, None].to(boxes.dtype), boxes], 1)
        found: Tensor = roi_align(features.float(), rows, side, scale, sampling, aligned)
        return found.permute(0, 2, 3, 1)
    channels, height, width = features.shape[1:]
    with torch.no_grad():
        scaled = boxes * scale - (0.5 if aligned else 0.0)
        low, lengths = scaled[:, :2], scaled[:, 2:] - scaled[:, :2]
        if not aligned:
            lengths = lengths.clamp(min=1.0)
        points = torch.full_like(lengths, sampling) if sampling else (lengths / side).ceil()
        indices, weights, counts = [], [], []
        groups, group = torch.unique(points.long(), dim=0, return_inverse=True)
        order = []
        for number, (across, down) in enumerate(groups.tolist()):
            chosen = torch.nonzero(group == number)[:, 0]
            order.append(chosen)
            start, length = low[chosen], lengths[chosen]
            columns, column_weights = taps(start[:, 0], length[:, 0], width, side, across)
            lines, line_weights = taps(start[:, 1], length[:, 1], height, side, down)
            base = (photo[chosen] * height * width)[:, None, None, None, None]
            index = base + lines[:, :, None, :, None] * width + columns[:, None, :, None, :]
            weight = line_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
            # What a cell reads: the entries that weigh something, in one row behind the other.
            used = weight != 0
            entries = torch.nonzero(used.flatten())[:, 0]
            indices.append(index.flatten()[entries])
            weights.append(weight.flatten()[entries])
            counts.append(used.flatten(3).sum(3).flatten())
    if not order:  # joined to the features all the same
        return features.float().permute(0, 2, 3, 1)[:0, :1, :1].expand(0, side, side, channels)
    count = torch.cat(counts)
    offsets = count.cumsum(0) - count
    pooled = cast(Tensor, _Bags.apply(features, torch.cat(indices), offsets, torch.cat(weights)))
    pooled = pooled.view(len(boxes), side, side, channels)
    return pooled if len(order) == 1 else pooled[torch.cat(order).argsort()]


MOST_CELLS = 1 << 23
"""Values of a map, or of its gradient, that are summed up at a time, at most: 32 MB."""

LEAST_CHANNELS = 64
"""... but of so many channels."""


class _Bags(torch.autograd.Function):
    """Weighted sums of cells of a map: an embedding bag in 32 bits, of which no table is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, cells: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        # A table of all cells; a row is one cell's feature vector, of a large map some channels at a time.
        step = max(MOST_CELLS // len(rows), LEAST_CHANNELS)
        pooled = weights.new_empty((len(offsets), rows.shape[1])) if step < rows.shape[1] else None
        for first in range(0, rows.shape[1], step):
            part = rows[:, first : first + step].float().contiguous()
            found = torch.ops.aten._embedding_bag(part, cells, offsets, False, 0, False, weights)[0]
            if pooled is not None:
                pooled[:, first : first + step] = found
        ctx.save_for_backward(cells, offsets, weights)
        ctx.shape, ctx.dtype = features.shape, features.dtype
        return cast(Tensor, found if pooled is None else pooled)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cells, offsets, weights = ctx.saved_tensors
        photos, channels, height, width = ctx.shape
        rows = photos * height * width
        # What a cell of the map gets is a weighted sum too: of the gradients of those that have read it. The operator's
        # own backward adds them up one by one and takes twice as long.
        read, order = torch.sort(cells, stable=True)
        ends = torch.cat([offsets[1:], offsets.new_tensor([len(cells)])])
        readers = torch.repeat_interleave(torch.arange(len(offsets)), ends - offsets)[order]
        first_reader = torch.searchsorted(read, torch.arange(rows))
        weights = weights[order]
        found = grad.new_empty((photos, height, width, channels), dtype=ctx.dtype)
        # Some channels at a time: the sums are made in 32 bits, and the table of a large map is a hundred megabytes.
        step = max(MOST_CELLS // rows, 1)
        for part, goal in zip(
            torch.split(grad, step, 1), torch.split(found.view(rows, channels), step, 1), strict=True
        ):
            how = (readers, first_reader, False, 0, False, weights)
            goal.copy_(torch.ops.aten._embedding_bag(part.float().contiguous(), *how)[0])
        return found.permute(0, 3, 1, 2), None, None, None


def taps(low: Tensor, size: Tensor, length: int, side: int, sampling: int) -> tuple[Tensor, Tensor]:
    """Return the cells and weights that linear interpolation reads along one axis.

    Sample points less than a cell apart read the same cells; each is then named once with its whole weight, and the
    other entries weigh zero. The fewer entries, the less there is to add up, above all in the backward pass.

    Args:
        low: `(R,)` where each box begins, in cells.
        size: `(R,)` how long it is.
        length: Cells of the map along the axis.
        side: Cells of the output.
        sampling: Sample points per cell of the output.

    Returns:
        Both `(R, side, 2 * sampling)`, int64 and float.
    """
    steps = (torch.arange(side * sampling, dtype=low.dtype, device=low.device) + 0.5) / (side * sampling)
    position = low[:, None] + size[:, None] * steps
    # torchvision: a point more than one cell outside counts as zero, one less far outside as the border cell.
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    lower = position.floor().to(torch.int64)
    upper = (lower + 1).clamp(max=length - 1)
    share = position - lower
    weights = torch.stack([1 - share, share], -1) * inside[..., None] / sampling
    cells = torch.stack([lower, upper], -1).view(len(low), side, 2 * sampling)
    weights = weights.view(len(low), side, 2 * sampling)
    for first in range(2 * sampling):
        # Points lie in order, so that only near ones can read the same cell; with few points, all are compared.
        for second in range(first + 1, min(first + 4, 2 * sampling) if sampling > 2 else 2 * sampling):
            same = cells[..., first] == cells[..., second]
            weights[..., first] += weights[..., second] * same
            weights[..., second] *= ~same
    return cells, weights
