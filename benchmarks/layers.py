"""Time the nano's layers in 32 bits and in bf16, and the two ways to the weight gradient of wide depthwise kernels.

    python benchmarks/layers.py [--rounds 15]

Forward and backward of one layer at 4 photos of 384 px, medians. "bf16" takes and gives 32 bits, casts included. This
decides which layers train in bf16 on a CPU: those that are dense.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from timm.layers import create_conv2d
from torch import Tensor, nn

from machine import describe
from maskwright.memory import keep_freed_memory
from maskwright.models.backbones import FoldedConv

PHOTOS = 4
DENSE = (  # what, input channels, output channels, kernel, side of the map
    ("1x1 of the backbone", 40, 240, 1, 48),
    ("1x1 of the backbone", 672, 112, 1, 24),
    ("1x1 of the backbone", 192, 1152, 1, 12),
    ("3x3 of the pyramid", 96, 96, 3, 48),
    ("3x3 of the mask head", 64, 64, 3, 42),
)
DEPTHWISE = ((144, 5, 2, 96), (240, 5, 1, 48), (672, 5, 1, 24), (1152, 5, 1, 12), (480, 3, 1, 24))


def timed(functions: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of forward and backward of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            result.backward(torch.ones_like(result))
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values[2:]) for name, values in times.items()}


def in_bf16(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        result: Tensor = layer(x)
    return result.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.manual_seed(0)
    print(describe())
    for what, into, out, kernel, side in DENSE:
        layer = nn.Conv2d(into, out, kernel, padding=kernel // 2).to(memory_format=torch.channels_last)
        x = torch.randn(PHOTOS, into, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        t = timed({"32": lambda layer=layer, x=x: layer(x), "bf16": lambda layer=layer, x=x: in_bf16(layer, x)}, rounds)
        size = f"{into} to {out} at {side} x {side}"
        print(f"{what:<22}{size:<28}32 bits {t['32']:6.2f} ms  bf16 {t['bf16']:6.2f} ms  {t['32'] / t['bf16']:4.1f}x")
    for channels, kernel, stride, side in DEPTHWISE:
        layer = create_conv2d(channels, channels, kernel, stride=stride, padding="same", depthwise=True)
        layer = layer.to(memory_format=torch.channels_last)
        folded = FoldedConv(layer, nn.BatchNorm2d(channels).eval()).to(memory_format=torch.channels_last)
        x = torch.randn(PHOTOS, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        t = timed(
            {
                "ours": lambda layer=folded, x=x: layer(x),
                "32": lambda layer=layer, x=x: layer(x),
                "bf16": lambda layer=layer, x=x: in_bf16(layer, x),
            },
            rounds,
        )
        size = f"{channels}, stride {stride}, at {side} x {side}"
        print(
            f"{f'{kernel}x{kernel} depthwise':<22}{size:<28}32 bits {t['32']:6.2f} ms  bf16 {t['bf16']:6.2f} ms "
            f" {t['32'] / t['bf16']:4.1f}x  ours, in 32 bits {t['ours']:6.2f} ms {t['32'] / t['ours']:4.1f}x"
        )


if __name__ == "__main__":
    main()
