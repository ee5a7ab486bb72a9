"""ResNets with their batch norms folded into the convolutions as they run; names and parameters stay as they are.

A norm with fixed statistics is a scale and a shift per channel. Applied to the convolution's weight instead of to its
result, it costs no pass over the map, forward or backward, and no memory; the function and the gradients are the same
(a test says so), also those of a scale and shift that are learned.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

AGAIN = frozenset({"layer2", "layer3", "layer4"})
"""Stages whose blocks are computed again on the way back: what lies inside them would hold most of the memory."""


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


def resnet_features(body: nn.Module, x: Tensor) -> OrderedDict[str, Tensor]:
    """Run a `resnet_body`; stages whose parameters are all frozen run without a graph.

    Args:
        body: As torchvision's `IntermediateLayerGetter` holds it: `conv1`, `bn1`, ..., `layer4`.
        x: `(N, 3, H, W)`, normalised.

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
                for each in part:
                    if name in AGAIN and torch.is_grad_enabled():
                        x = checkpoint(block, each, x, use_reentrant=False)
                    else:
                        x = block(each, x)
        if name in names:
            found[names[name]] = x
    return found
