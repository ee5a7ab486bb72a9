"""Mask R-CNN R50-FPN against torchvision's own: a training step, memory with crowded photos, inference until RLE.

    python benchmarks/r50.py [train|memory|inference] [--rounds 3]

The same weights are put into both networks (random, from one seed; the last norm of each residual block small, so that
activations stay finite), 90 categories, frozen norms, and torchvision's default of three trainable stages.

Training: forward, backward and SGD of 2 photos of 800 x 1088, 5 objects each; all in turn in one process; medians. Ours
in 32 bits, and as the plan would train it on this machine. The losses are those of the first step; the random choice of
boxes is seeded alike, so that in 32 bits both see the same boxes.

Memory: the same step with 100 objects a photo, each network in a process of its own; the peak of its resident memory.
torchvision is given targets as its data loading makes them (uint8 masks of the photo's size), ours as our loader does
(crops). Libraries alone are 700 MB of either. The C library handles memory as training here tells it to for ours, and
as it does by default for torchvision, whose scripts do not tell it anything.

Inference: a photo of 12 megapixels, decoded already, until the RLE of 50 objects at its size is in hand. Random
networks find no objects, so both have the score limit taken away and keep 50; ours by `detect_photo`, torchvision's by
its forward and pycocotools. Speed in turn in one process, peak memory each in a process of its own. Ours in 32 bits
computes under torchvision's conventions, to the last bit. Detections: how many boxes of torchvision have one of ours
within half a pixel with the same score to 0.001, and the IoU of their masks.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from machine import describe
from maskwright import pixels
from maskwright.crops import pack
from maskwright.detections import detect_photo
from maskwright.memory import LARGE, keep_freed_memory
from maskwright.models import ARCHITECTURES
from maskwright.train import LOSSES, this_machine

CATEGORIES = 90
HEIGHT, WIDTH = 800, 1088
PHOTO = (3000, 4000)
FOUND = 50
OURS_TO_THEIRS = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "classifier": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}


def theirs(**more: Any) -> MaskRCNN:
    """torchvision's `maskrcnn_resnet50_fpn` as it is built for pretrained weights, with random ones."""
    torch.manual_seed(0)
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    for name, module in body.named_modules():
        if name.endswith("bn3"):
            module.weight.fill_(0.2)
    body.conv1.weight.data.mul_(0.5)
    return MaskRCNN(_resnet_fpn_extractor(body, 3), CATEGORIES + 1, min_size=800, max_size=1333, **more)


def ours(like: nn.Module) -> nn.Module:
    """Ours, with the weights of `like`."""
    network = ARCHITECTURES["maskrcnn-r50-fpn"]({"categories": CATEGORIES}, "none")
    network.load_state_dict(like.state_dict())
    return network.to(memory_format=torch.channels_last)


def scene(objects: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Make two smooth random photos with elliptic objects, `(2, 3, 800, 1088)` uint8, and their targets."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (2, 3, 25, 34), generator=generator).float()
    images = nn.functional.interpolate(small, size=(HEIGHT, WIDTH), mode="bicubic").clamp(0, 255).to(torch.uint8)
    lines = torch.arange(HEIGHT)[:, None]
    columns = torch.arange(WIDTH)[None]
    targets = []
    for _ in range(2):
        side = 30 + torch.rand(objects, 2, generator=generator) * (170 if objects > 20 else 400)
        corner = torch.rand(objects, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - side)
        boxes = torch.cat([corner, corner + side], 1).round()
        masks = torch.zeros(objects, HEIGHT, WIDTH, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
            mask.copy_(
                ((columns + 0.5 - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((lines + 0.5 - (y1 + y2) / 2) / (y2 - y1)) ** 2
                <= 0.25
            )
        labels = torch.randint(1, CATEGORIES + 1, (objects,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, targets


def our_losses(network: Any, images: Tensor, targets: Any, bf16: bool) -> dict[str, Tensor]:
    for _ in images:
        torch.empty(1).uniform_()  # torchvision draws each photo's side, from one choice; so both go on alike
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = network.losses(images, targets)
    return {k: found[k] for k in OURS_TO_THEIRS if k in LOSSES}


def stepper(network: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, float]]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, 1e-5, momentum=0.9, weight_decay=1e-4)

    def step() -> dict[str, float]:
        torch.manual_seed(1)
        found = losses()
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()
        optimiser.step()
        return {k: float(v.detach()) for k, v in found.items()}

    return step


def trim() -> None:
    """Give back what building the networks left behind."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def steps_of(which: str, objects: int) -> Callable[[], dict[str, float]]:
    """Return one training step of a network of its own: `torchvision`, `32` or `bf16`."""
    images, targets = scene(objects)
    other: Any = theirs().train()
    if which == "torchvision":
        floats = [image.float() / 255 for image in images]
        return stepper(other, lambda: other([*floats], [dict(t) for t in targets]))
    network = ours(other).train()
    other = None
    trim()
    batch = images.contiguous(memory_format=torch.channels_last)
    targets = [{"boxes": t["boxes"], "labels": t["labels"]} | pack(t["masks"]) for t in targets]
    return stepper(network, lambda: our_losses(network, batch, targets, which == "bf16"))


def photo() -> NDArray[np.uint8]:
    """Make a smooth random photo of 12 megapixels."""
    generator = torch.Generator().manual_seed(3)
    small = torch.randint(0, 256, (1, 3, 30, 40), generator=generator).float()
    large = nn.functional.interpolate(small, size=PHOTO, mode="bicubic").clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(large[0].permute(1, 2, 0).numpy())


def inference_of(which: str) -> Callable[[], tuple[NDArray[Any], NDArray[Any], list[bytes]]]:
    """Return a function that finds objects in the photo: boxes, scores and RLEs."""
    picture = photo()
    other = theirs(box_score_thresh=0.0, box_detections_per_img=FOUND).eval()
    if which == "torchvision":
        from pycocotools import mask as coco_mask

        def peer() -> tuple[NDArray[Any], NDArray[Any], list[bytes]]:
            with torch.inference_mode():
                image = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
                found = other([image])[0]
                masks = (found["masks"][:, 0] >= 0.5).numpy()
            rles = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"] for m in masks]
            return found["boxes"].numpy(), found["scores"].numpy(), rles

        return peer
    network = ours_for_inference(other)
    names = [str(n) for n in range(CATEGORIES)]

    def mine() -> tuple[NDArray[Any], NDArray[Any], list[bytes]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=which == "bf16"):
            found = detect_photo(network, picture, 1333, names, least_score=0.0, short_side=800)
        return found.boxes, found.scores, list(found.rles)

    return mine


def ours_for_inference(like: nn.Module) -> Any:
    """Ours under torchvision's conventions (how a photo is scaled, how masks are put back), without a score limit."""
    from dataclasses import replace

    from maskwright.models.conventions import TORCHVISION

    sizes = {
        "categories": CATEGORIES,
        "detections_per_photo": FOUND,
        "conventions": replace(TORCHVISION, least_score=-1.0).json(),
    }
    network = ARCHITECTURES["maskrcnn-r50-fpn"](sizes, "none")
    network.load_state_dict(like.state_dict())
    return network.to(memory_format=torch.channels_last).eval()


def peak_mb() -> float:
    """Return the most memory that this process has held."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def alone(job: str, which: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, job, "--alone", which]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report_alone(job: str, which: str) -> None:
    if job == "memory":
        step = steps_of(which, 100)
        before = peak_mb()
        times = []
        for _ in range(2):
            start = time.perf_counter()
            losses = step()
            times.append(time.perf_counter() - start)
        print(json.dumps({"before": before, "peak": peak_mb(), "losses": losses, "seconds": min(times)}))
        return
    find = inference_of(which)
    before = peak_mb()
    boxes, _, rles = find()
    print(json.dumps({"before": before, "peak": peak_mb(), "found": len(rles), "boxes": len(boxes)}))


def in_turn(functions: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run all in turn, once to warm up; return the times and the first results."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    first: dict[str, Any] = {}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            times[name].append(time.perf_counter() - start)
            first.setdefault(name, result)
    return {name: sorted(values[1:]) for name, values in times.items()}, first


def kinds() -> list[str]:
    return ["torchvision", "32", *(["bf16"] if this_machine().bf16 else [])]


def told(which: str) -> str:
    return {"torchvision": "torchvision", "32": "maskwright, 32 bits", "bf16": "maskwright, bf16 (planned here)"}[which]


def train(rounds: int) -> None:
    times, first = in_turn({which: steps_of(which, 5) for which in kinds()}, rounds)
    print(f"training step, 2 photos of {WIDTH} x {HEIGHT}, 5 objects each, median of {rounds}")
    peer = statistics.median(times["torchvision"])
    for which, values in times.items():
        middle = statistics.median(values)
        names = [OURS_TO_THEIRS[k] if which == "torchvision" else k for k in OURS_TO_THEIRS]
        losses = "  ".join(f"{k} {first[which][n]:.4f}" for k, n in zip(OURS_TO_THEIRS, names, strict=True))
        print(
            f"  {told(which):<32}{middle:7.2f} s ({values[0]:.2f} to {values[-1]:.2f})  {peer / middle:4.2f}x faster"
            f"  {losses}"
        )


def memory() -> None:
    print("the same with 100 objects each, each in a process of its own")
    found = {which: alone("memory", which) for which in kinds()}
    peer = found["torchvision"]["peak"]
    for which, values in found.items():
        print(
            f"  {told(which):<32}peak {values['peak']:6.0f} MB (before the step {values['before']:.0f})"
            f"  {values['peak'] / peer:4.2f} of torchvision's  {values['seconds']:6.2f} s a step"
            f"  total loss {sum(values['losses'].values()):.4f}"
        )


def inference(rounds: int) -> None:
    both = kinds()[:2]  # detection is in 32 bits everywhere
    times, first = in_turn({which: inference_of(which) for which in both}, rounds)
    alone_ = {which: alone("inference", which) for which in both}
    print(f"inference, a photo of {PHOTO[1]} x {PHOTO[0]} at 800 px, {FOUND} objects, until RLE; median of {rounds}")
    peer, most = statistics.median(times["torchvision"]), alone_["torchvision"]["peak"]
    for which, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {told(which):<32}{middle:7.2f} s  {peer / middle:4.2f}x faster  peak {alone_[which]['peak']:6.0f} MB,"
            f" {alone_[which]['peak'] / most:4.2f} of torchvision's (before: {alone_[which]['before']:.0f})"
            f"{agreement(first['torchvision'], first[which]) if which != 'torchvision' else ''}"
        )


def agreement(expected: Any, found: Any) -> str:
    """Say how far the detections of two networks agree."""
    gap = np.abs(expected[0][:, None] - found[0][None]).max(2)
    near = gap.argmin(1)
    same = (gap.min(1) < 0.5) & (np.abs(expected[1] - found[1][near]) < 1e-3)
    overlaps = [
        pixels.iou([expected[2][i]], [found[2][near[i]]], PHOTO)[0, 0]
        for i in np.flatnonzero(same)
        if pixels.area(expected[2][i], PHOTO) > 0
    ]
    worst = f", their masks' IoU {np.mean(overlaps):.4f}, at least {min(overlaps):.4f}" if overlaps else ""
    return f"  {int(same.sum())} of {len(same)} the same{worst}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", nargs="?", choices=["train", "memory", "inference"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=["torchvision", "32", "bf16"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        if options.job == "memory" and options.alone != "torchvision":
            keep_freed_memory(LARGE)  # as training does for these networks; torchvision's scripts leave it alone
        report_alone(options.job, options.alone)
        return
    keep_freed_memory()
    print(describe())
    if options.job in (None, "train"):
        train(options.rounds)
    if options.job in (None, "memory"):
        memory()
    if options.job in (None, "inference"):
        inference(options.rounds)


if __name__ == "__main__":
    main()
