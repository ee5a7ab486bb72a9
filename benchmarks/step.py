"""Time one training step: our network, torchvision's stock Mask R-CNN on the same backbone, and a lean variant of that.

    python benchmarks/step.py [--side 384] [--photos 4] [--rounds 7] [--mask-side 28]

All three see the same pictures and objects and run in turn in one process, so that a drift of the machine's speed falls
on all alike. A step is forward, backward, clipping and the optimiser; reading photos is not part of it. Medians are
printed, with the losses of each beside them. Where the plan would choose bf16 for this machine, ours is timed in bf16
(autocast, as in training) and in 32 bits, from the same weights, and the losses of the first step are printed for both.
Ours has the sizes of a new run; masks are 28x28, or 56x56 with `--mask-side 56`, as the plan has it for large objects.
RoIAlign is timed alone as well, against torchvision's operator, with the largest difference of the two results.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from machine import describe
from maskwright.models import ARCHITECTURES
from maskwright.models.rois import pool_rois
from maskwright.models.start import beginning
from maskwright.train import LOSSES, keep_freed_memory, this_machine

CATEGORIES = 3


class TorchvisionBackbone(nn.Module):
    """EfficientNet-Lite0 and a feature pyramid, as torchvision's detectors expect them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.net.feature_info.channels(), channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(OrderedDict((str(i), f) for i, f in enumerate(self.net(x))))


def stock(side: int) -> MaskRCNN:
    """torchvision's Mask R-CNN with its default heads."""
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    return MaskRCNN(
        TorchvisionBackbone(256),
        CATEGORIES + 1,
        min_size=side,
        max_size=side,
        rpn_anchor_generator=anchors,
    )


def lean(side: int) -> MaskRCNN:
    """The same class with narrow heads and fewer proposals: what a user could set without new code."""
    width = 96
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    levels = ["0", "1", "2", "3"]
    return MaskRCNN(
        TorchvisionBackbone(width),
        min_size=side,
        max_size=side,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=400,
        rpn_post_nms_top_n_train=200,
        rpn_batch_size_per_image=128,
        box_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=TwoMLPHead(width * 49, 384),
        box_predictor=FastRCNNPredictor(384, CATEGORIES + 1),
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2),
        mask_head=MaskRCNNHeads(width, (width,) * 3, 1),
        mask_predictor=MaskRCNNPredictor(width, width, CATEGORIES + 1),
    )


def scene(photos: int, side: int, objects: int = 5) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Make random pictures with elliptic objects: images `(N, 3, side, side)` uint8 and their targets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (photos, 3, side, side), dtype=torch.uint8, generator=generator)
    lines, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    targets = []
    for _ in range(photos):
        corner = torch.rand(objects, 2, generator=generator) * side * 0.6
        size = side * (0.08 + 0.3 * torch.rand(objects, 2, generator=generator))
        boxes = torch.cat([corner, corner + size], 1)
        masks = []
        for x1, y1, x2, y2 in boxes.tolist():
            inside = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((lines - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25
            masks.append(inside.to(torch.uint8))
        labels = torch.randint(1, CATEGORIES + 1, (objects,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "masks": torch.stack(masks)})
    return images, targets


def stepper(network: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], float]:
    """Return a function that takes one optimiser step and returns the summed loss."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, 1e-4, fused=True)

    def step() -> float:
        total = torch.stack(list(losses().values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        return float(total.detach())

    return step


def roialign(rounds: int) -> str:
    """Time RoIAlign, forward and backward, on both routes."""
    from maskwright.models.rois import _by_torchvision, assign_levels

    generator = torch.Generator().manual_seed(1)
    strides, side = (8, 16, 32), 384
    features = {
        str(s): torch.randn(4, 96, side // s, side // s, generator=generator)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for s in strides
    }
    rois = []
    for _ in range(4):
        corner = torch.rand(64, 2, generator=generator) * 250
        rois.append(torch.cat([corner, corner + 20 + torch.rand(64, 2, generator=generator) * 150], 1))
    boxes = torch.cat(rois)
    photo = torch.arange(4).repeat_interleave(64)

    def ours() -> Tensor:
        return pool_rois(features, strides, rois, 7, cells=7.0)

    def theirs() -> Tensor:
        levels = assign_levels(boxes, strides, 7.0)
        return _by_torchvision(list(features.values()), strides, boxes, photo, levels, 7, 2)

    times: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for _ in range(rounds + 1):
        for name, function in (("ours", ours), ("torchvision", theirs)):
            start = time.perf_counter()
            function().sum().backward()
            times[name].append(time.perf_counter() - start)
    mine, other = (statistics.median(t[1:]) for t in times.values())
    gap = float((ours() - theirs()).abs().max().detach())
    return (
        f"RoIAlign 7x7, 256 boxes, 96 channels, forward and backward: ours {mine * 1e3:.1f} ms,"
        f" torchvision {other * 1e3:.1f} ms, ratio {other / mine:.1f}, largest difference {gap:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mask-side", type=int, default=28)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    images, targets = scene(options.photos, options.side)
    sizes = {"categories": CATEGORIES, "mask_side": options.mask_side, **beginning("maskrcnn-nano", None, "imagenet")}
    ours = ARCHITECTURES["maskrcnn-nano"](sizes, "imagenet").train()
    theirs, small = stock(options.side).train(), lean(options.side).train()
    floats = [image.float() / 255 for image in images]
    batch = images.contiguous(memory_format=torch.channels_last)

    def losses_of(network: nn.Module, bf16: bool) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return {k: v for k, v in network.losses(batch, targets).items() if k in LOSSES}

    name, in_32_bits = "maskwright maskrcnn-nano", "maskwright maskrcnn-nano, 32 bits"
    first: dict[str, str] = {}
    steps = {}
    if this_machine().bf16:
        same = copy.deepcopy(ours)
        steps[in_32_bits] = stepper(same, lambda: losses_of(same, False))
        for kind, bf16 in (("32 bits", False), ("bf16", True)):
            torch.manual_seed(1)  # the same boxes are drawn
            first[kind] = "  ".join(f"{k} {float(v.detach()):.4f}" for k, v in losses_of(ours, bf16).items())
    steps |= {
        name: stepper(ours, lambda: losses_of(ours, this_machine().bf16)),
        "torchvision MaskRCNN, lean heads": stepper(small, lambda: small(floats, targets)),
        "torchvision MaskRCNN, stock heads": stepper(theirs, lambda: theirs(floats, targets)),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, float] = {}
    for _ in range(options.rounds + 2):  # the first two of each warm up
        for which, step in steps.items():
            start = time.perf_counter()
            losses[which] = step()
            times[which].append(time.perf_counter() - start)
    print(describe())
    print(
        f"one training step, {options.photos} photos at {options.side} px, 5 objects each, median of {options.rounds}"
    )
    mine = statistics.median(times[name][2:])
    for which, values in times.items():
        kept = sorted(values[2:])
        middle = statistics.median(kept)
        print(
            f"  {which:<36}{middle:6.3f} s  ({kept[0]:.3f} to {kept[-1]:.3f})  {middle / mine:5.1f}x ours"
            f"  loss {losses[which]:.2f}"
        )
    for kind, text in first.items():
        print(f"  losses of the first step in {kind:<8}{text}")
    print(roialign(options.rounds))


if __name__ == "__main__":
    main()
