"""Feature extractors: a timm network with its batch norms frozen and folded, its early stages without gradients.

A detector is trained on a few photos at a time, too few for batch statistics, so the norms keep their ImageNet
statistics (as every Mask R-CNN since the original does). A frozen norm is a scale and a shift per channel, and these
are folded into the convolution before it: the same function and the same gradients, without the memory traffic, which
on a CPU is most of a small network's time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone needs to know.

    Args:
        name: timm's model name.
        mean: Per-channel mean of the input, RGB on the 0..255 scale.
        std: Per-channel divisor of the input, RGB on the 0..255 scale.
        frozen_stages: How many stages, counted from the input, keep their pretrained weights.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frozen_stages: int


class FoldedConv(nn.Module):
    """A convolution with the frozen batch norm behind it folded in.

    The weight that is trained is the convolution's own; the norm's scale is applied to it in every forward pass, so an
    optimiser sees the parameters and gradients of the unfolded pair.

    Args:
        conv: The convolution, without a bias (timm's TensorFlow "same" padding is kept).
        norm: The batch norm behind it, in inference mode.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        self.weight = nn.Parameter(conv.weight.detach().clone())
        inverse = torch.rsqrt(norm.running_var + norm.eps)
        gain = norm.weight if norm.weight is not None else torch.ones_like(inverse)
        offset = norm.bias if norm.bias is not None else torch.zeros_like(inverse)
        bias = conv.bias if conv.bias is not None else torch.zeros_like(inverse)
        self.register_buffer("scale", (gain * inverse).detach().clone())
        self.register_buffer("shift", (offset + (bias - norm.running_mean) * gain * inverse).detach().clone())
        self.stride = conv.stride
        self.padding = conv.padding
        self.dilation = conv.dilation
        self.groups = conv.groups
        self.same = type(conv).__name__ == "Conv2dSame"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `(N, C, H, W)`."""
        weight = self.weight * self.scale[:, None, None, None]
        padding: str | Sequence[int] | int = self.padding
        if self.same:
            # TensorFlow pads so that the output is ceil(input / stride), the odd pixel at the end.
            kernel, stride, dilation = weight.shape[-2:], self.stride, self.dilation
            need = [
                max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
                for size, s, k, d in zip(x.shape[-2:], stride, kernel, dilation, strict=True)
            ]
            if need[0] % 2 == 0 and need[1] % 2 == 0:
                padding = (need[0] // 2, need[1] // 2)
            else:
                x = functional.pad(x, (need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2))
                padding = 0
        return functional.conv2d(x, weight, self.shift, self.stride, padding, self.dilation, self.groups)


def fold_norms(module: nn.Module) -> int:
    """Replace every convolution that is directly followed by a batch norm with a `FoldedConv`, in place.

    "Followed" is read off the order in which a block registers its parts, which in timm is the order of use; a test
    compares outputs before and after.

    Returns:
        How many pairs were folded.
    """
    folded = 0
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            previous = (name, child)
            continue
        if isinstance(child, nn.BatchNorm2d) and previous and previous[1].out_channels == child.num_features:
            setattr(module, previous[0], FoldedConv(previous[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's norms carry the activation
            folded += 1
        else:
            folded += fold_norms(child)
        previous = None
    return folded


class Backbone(nn.Module):
    """A timm network as a feature extractor at strides 4, 8, 16 and 32.

    Args:
        spec: Which network, and how it is fed.
        strides: The strides wanted, ascending.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        probe: Any = timm.create_model(spec.name, features_only=True, pretrained=False)
        reductions = list(probe.feature_info.reduction())
        indices = [reductions.index(stride) for stride in strides]
        net: Any = timm.create_model(spec.name, features_only=True, pretrained=False, out_indices=indices)
        self.channels: list[int] = list(net.feature_info.channels())
        self.net: nn.Module = net
        self.strides = tuple(strides)
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean)[None, :, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[None, :, None, None], persistent=False)

    def freeze(self) -> None:
        """Fold the batch norms and take the early stages out of training; call once, after weights are loaded."""
        self.net.eval()
        fold_norms(self.net)
        for name, parameter in self.net.named_parameters():
            stage = int(name.split(".")[1]) if name.startswith("blocks.") else -1
            parameter.requires_grad_(stage + 1 >= self.spec.frozen_stages)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Extract features.

        Args:
            images: `(N, 3, H, W)` RGB on the 0..255 scale, H and W multiples of the largest stride.

        Returns:
            Features by stride (`"4"`, `"8"`, ...), each `(N, C, H / stride, W / stride)`.
        """
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return OrderedDict((str(stride), f) for stride, f in zip(self.strides, self.net(x), strict=True))
