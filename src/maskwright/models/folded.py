"""ResNets with their batch norms folded into the convolutions as they run; names and parameters stay as they are.

A norm with fixed statistics is a scale and a shift per channel. Applied to the convolution's weight instead of to its
result, it costs no pass over the map, forward or backward, and no memory; the function and the gradients are the same
(a test says so), also those of a scale and shift that are learned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

AGAIN = {"layer2": 2, "layer3": 3, "layer4": 3}
"""Stages that are computed again on the way back, so many blocks at a time: what lies inside them would hold most of
the memory, and with fewer blocks at a time what lies between them would."""


def convolve(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolve `(N, C, H, W)` and norm; in one pass if the norm's statistics are fixed."""
    fixed = isinstance(norm, FrozenBatchNorm2d) or (isinstance(norm, nn.BatchNorm2d) and not norm.training)
    if not fixed or conv.bias is not None or conv.padding_mode != "zeros":
        return cast(Tensor, norm(conv(x)))
    still = cast(Any, norm)
    scale = still.weight * torch.rsqrt(still.running_var + still.eps)
    shift = still.bias - still.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    padding = cast("tuple[int, int]", conv.padding)
    return functional.conv2d(x, weight, shift, conv.stride, padding, conv.dilation, conv.groups)


def block(part: Bottleneck, x: Tensor) -> Tensor:
    """Run a bottleneck."""
    short = x if part.downsample is None else convolve(part.downsample[0], part.downsample[1], x)
    y = functional.relu_(convolve(part.conv1, part.bn1, x))
    y = functional.relu_(convolve(part.conv2, part.bn2, y))
    y = convolve(part.conv3, part.bn3, y)
    return functional.relu_(y.add_(short) if y.dtype == short.dtype else y + short)


def blocks(parts: Iterable[Bottleneck], x: Tensor) -> Tensor:
    """Run bottlenecks one after the other."""
    for part in parts:
        x = block(part, x)
    return x


def batched(parts: Sequence[Bottleneck], most: int) -> Iterator[Sequence[Bottleneck]]:
    """Yield so many at a time; the last may be fewer."""
    for first in range(0, len(parts), most):
        yield parts[first : first + most]


def pyramid_features(fpn: FeaturePyramidNetwork, found: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Run a feature pyramid as torchvision does; what lies inside its finest level is computed again on the way back.

    Args:
        fpn: With extra blocks that need its own levels alone.
        found: Features by name, finest first.

    Returns:
        As many levels, and those of the extra blocks.
    """
    names, levels = list(found), list(found.values())

    def inside(k: int, above: Tensor | None) -> Tensor:
        inner = fpn.inner_blocks[k](levels[k])
        if above is None:
            return cast(Tensor, inner)
        return cast(Tensor, inner + functional.interpolate(above, size=inner.shape[-2:], mode="nearest"))

    def level(k: int, above: Tensor | None) -> Tensor:
        return cast(Tensor, fpn.layer_blocks[k](inside(k, above)))

    results: list[Tensor] = []
    inner: Tensor | None = None
    for k in reversed(range(1, len(levels))):
        inner = inside(k, inner)
        results.insert(0, fpn.layer_blocks[k](inner))
    results.insert(0, checkpoint(level, 0, inner, use_reentrant=False) if torch.is_grad_enabled() else level(0, inner))
    extra, more = fpn.extra_blocks(results, levels, names)
    return OrderedDict(zip(more, extra, strict=True))


def resnet_features(body: nn.Module, x: Tensor, last: str | None = None) -> OrderedDict[str, Tensor]:
    """Run a `resnet_body`; stages whose parameters are all frozen run without a graph.

    Args:
        body: As torchvision's `IntermediateLayerGetter` holds it: `conv1`, `bn1`, ..., `layer4`.
        x: `(N, 3, H, W)`, normalised.
        last: The last feature that is wanted; all of them if not given.

    Returns:
        Features by the names that the getter gives.
    """
    parts: dict[str, Any] = dict(body.named_children())
    names = cast("dict[str, str]", body.return_layers)
    found = OrderedDict()
    for name, part in parts.items():
        if name in ("bn1", "relu"):
            continue
        trained = any(p.requires_grad for p in part.parameters()) or x.requires_grad
        if name == "conv1":
            trained = trained or any(p.requires_grad for p in parts["bn1"].parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            if name == "conv1":
                x = functional.relu_(convolve(part, parts["bn1"], x))
            elif name == "maxpool":
                x = part(x)
            else:
                again = AGAIN.get(name, 0) if torch.is_grad_enabled() else 0
                for some in batched(part, again or len(part)):
                    x = checkpoint(blocks, some, x, use_reentrant=False) if again else blocks(some, x)
        if name in names:
            found[names[name]] = x
            if names[name] == last:
                break
    return found
