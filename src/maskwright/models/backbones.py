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
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

FAST_WIDTH = 3
"""Columns of a depthwise kernel up to which its weight gradient is fast on CPUs."""


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
        """Convolve `(N, C, H, W)`.

        Under CPU autocast a depthwise convolution that is trained stays in 32 bits: its backward in bf16 is four times
        slower, where dense convolutions are twice to four times faster (`benchmarks/layers.py`). Whether it is trained
        does not depend on whether gradients are wanted: a look at a batch without them sees what one with them does.
        """
        weight = self.weight * self.scale[:, None, None, None]
        before, after = self._padding(x.shape[-2:])
        if x.device.type == "cpu" and self.groups > 1 and self._trained:
            kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            with torch.autocast("cpu", enabled=False):
                if self.groups == len(weight) and weight.shape[-1] > FAST_WIDTH and max(self.dilation) == 1:
                    how = (x.float(), weight, self.shift, self.stride, before, after)
                    return cast(Tensor, _Depthwise.apply(*how)).to(kind)
                # What follows is an activation and a dense convolution, which would cast it anyway.
                return self._convolve(x.float(), weight, before, after).to(kind)
        return self._convolve(x, weight, before, after)

    @property
    def _trained(self) -> bool:
        return self.weight.requires_grad and (self.training or torch.is_grad_enabled())

    def _convolve(self, x: Tensor, weight: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
        if before != after:
            if max(self.dilation) == 1 and not self._trained:
                weight = _even(weight, before, after)
            else:
                x = functional.pad(x, (before[1], after[1], before[0], after[0]))
                after = (0, 0)
        return functional.conv2d(x, weight, self.shift, self.stride, after, self.dilation, self.groups)

    def _padding(self, size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return rows and columns of zeros before and after an input of this `(height, width)`."""
        if not self.same:
            both = cast(tuple[int, int], self.padding)
            return both, both
        # TensorFlow pads so that the output is ceil(input / stride), the odd pixel at the end.
        need = [
            max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
            for length, s, k, d in zip(size, self.stride, self.weight.shape[-2:], self.dilation, strict=True)
        ]
        before = (need[0] // 2, need[1] // 2)
        return before, (need[0] - before[0], need[1] - before[1])


def _even(weight: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Begin a kernel with zeros, so that padding by `after` on all sides computes the same without a padded copy."""
    return functional.pad(weight, (after[1] - before[1], 0, after[0] - before[0], 0))


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is taken a few columns of the kernel at a time.

    oneDNN, which torch computes convolutions with on CPUs, is five to ten times slower at the weight gradient of a
    depthwise kernel wider than three columns; taken in parts of at most three, it is the same sum in less time
    (`benchmarks/layers.py`). The shift is the frozen norm's and has no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        stride: tuple[int, int],
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, before, after
        return functional.conv2d(x, _even(weight, before, after), shift, stride, after, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, (top, left), (bottom, right) = ctx.how
        grad = grad.contiguous(memory_format=torch.channels_last)
        by_input = None
        height, width = x.shape[-2:]
        if ctx.needs_input_grad[0] and (top, left) == (bottom, right):
            by_input = _convolution_backward(grad, x, weight, stride, (top, left), of_weight=False)
        elif ctx.needs_input_grad[0]:
            # Of the padded input, whose values are not needed; the padding's part is cut off.
            size = (*x.shape[:2], height + top + bottom, width + left + right)
            padded = torch.empty(size, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
            whole = _convolution_backward(grad, padded, weight, stride, (0, 0), of_weight=False)
            by_input = whole[..., top : top + height, left : left + width]
        by_weight = torch.empty_like(weight)
        lines = (grad.shape[-2] - 1) * stride[0] + weight.shape[-2]
        for phase in range(stride[1]):
            taps = range(phase, weight.shape[-1], stride[1])  # all that meet the same columns of the input
            for i in range(0, len(taps), FAST_WIDTH):
                part = taps[i : i + FAST_WIDTH]
                chosen = slice(part[0], part[-1] + 1, stride[1])
                columns = (grad.shape[-1] + len(part) - 2) * stride[1] + 1
                zeros = max(left - part[0], 0)
                seen = x[..., : lines - top, max(part[0] - left, 0) :][..., : columns - zeros]
                lack = columns - zeros - seen.shape[-1]
                even = lines - top - height == top
                rows = (0, 0) if even else (top, lines - top - seen.shape[-2])
                if zeros or lack or any(rows):
                    seen = functional.pad(seen, (zeros, lack, *rows))
                by_weight[..., chosen] = _convolution_backward(
                    grad,
                    seen[..., :: stride[1]],
                    weight[..., chosen],
                    (stride[0], 1),
                    (top if even else 0, 0),
                    of_weight=True,
                )
        return by_input, by_weight, None, None, None, None


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], *, of_weight: bool
) -> Tensor:
    """Return the gradient of a depthwise convolution by its input or by its weight."""
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    groups = len(weight)
    wanted = [not of_weight, of_weight, False]
    found: Sequence[Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, [groups], stride, padding, [1, 1], False, [0, 0], groups, wanted
    )
    return found[of_weight]


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
