"""The Mask R-CNN that everyone trains (He et al. 2017, Lin et al. 2017), under any framework's conventions.

Parts and names of parameters are torchvision's, so its checkpoints load as they are; the assembly is ours, since what
happens between the parts differs from framework to framework (`conventions`) and is where time and memory go (`align`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, batched_nms, box_iou, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskwright.crops import crops
from maskwright.models.align import align_rois, mask_targets
from maskwright.models.boxes import HEAD_DELTAS, Anchors, Deltas, Proposals
from maskwright.models.conventions import NATIVE, Conventions
from maskwright.models.folded import pyramid_features, resnet_features
from maskwright.models.maskrcnn import Between, Detection, Target, told, told_sums
from maskwright.models.proposals import Sampler, box_loss
from maskwright.models.timm_body import timm_body
from maskwright.models.whole import totals

BOX_ROI, MASK_ROI = 7, 14
NMS_IOU = 0.5
POSITIVE_IOU = 0.5
POSITIVE_SHARE = 0.25
AT_ONCE = 64
"""Boxes whose masks are learned at a time."""

STRIDES = {"0": 4, "1": 8, "2": 16, "3": 32}
"""Levels that boxes are read at, by torchvision's names; proposals are made at `pool` (64) too."""


@dataclass(frozen=True)
class StockSpec:
    """What a stock Mask R-CNN is made of.

    Args:
        categories: How many kinds of object there are, background not counted.
        heads: `v1` the paper's, `v2` torchvision's improved ones (Li et al. 2021).
        backbone: A network of timm; ResNet-50 of torchvision if `None`.
        conventions: See there.
        anchor_sizes: Side of the anchors in pixels of the input, one tuple per pyramid level (strides 4 to 64).
        aspect_ratios: Height / width of the anchors.
        channels: Width of the feature pyramid.
        head_channels: Width of the heads' convolutions.
        proposals_per_photo: At most so many boxes are looked at; twice as many are learned from by choice.
        rois_per_photo: Boxes per photo that the heads learn from in each step.
        detections_per_photo: At most so many objects are returned.
        frozen_stages: How many stages of a ResNet, counted from the input, are not trained.
    """

    categories: int
    heads: Literal["v1", "v2"] = "v1"
    backbone: str | None = None
    conventions: Conventions = field(default=NATIVE)
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    channels: int = 256
    head_channels: int = 256
    proposals_per_photo: int = 1000
    rois_per_photo: int = 512
    detections_per_photo: int = 100
    frozen_stages: int = 2

    @staticmethod
    def of(sizes: Mapping[str, Any], heads: Literal["v1", "v2"]) -> StockSpec:
        """Make a spec of what `run.json` holds: lists for tuples, the conventions as an object."""
        given = {k: _tuples(v) for k, v in sizes.items() if k != "conventions"}
        how = Conventions.of(sizes["conventions"]) if sizes.get("conventions") else NATIVE
        return StockSpec(**given, heads=heads, conventions=how)


class StillNorm(nn.BatchNorm2d):
    """A batch norm with the statistics that it was given, in training too; its scale and shift are learned."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        super().train(False)

    def train(self, mode: bool = True) -> StillNorm:
        """Stay as it is."""
        return self


def norm_of(kind: str, eps: float) -> Callable[[int], nn.Module]:
    """Return what makes a norm of so many channels; `kind` as in `Conventions.norm`."""
    kinds: dict[str, Any] = {"frozen": FrozenBatchNorm2d, "still": StillNorm, "live": nn.BatchNorm2d}
    return partial(kinds[kind], eps=eps)


def resnet_body(how: Conventions, frozen_stages: int) -> nn.Module:
    """Return torchvision's ResNet-50 without its classifier; features by the names of `STRIDES`."""
    net: Any = resnet50(weights=None, norm_layer=norm_of(how.norm, how.norm_eps))
    if how.stride_in_1x1:
        for stage in (net.layer2, net.layer3, net.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    still = tuple(name for names in stages[:frozen_stages] for name in names)
    for name, parameter in net.named_parameters():
        if name.split(".")[0] in still:
            parameter.requires_grad_(False)
    return cast(nn.Module, IntermediateLayerGetter(net, {f"layer{k + 1}": str(k) for k in range(4)}))


class Pyramid(nn.Module):
    """A backbone with a feature pyramid on top.

    Args:
        body: Gives features by the names of `STRIDES`.
        widths: Their channels.
        channels: Of the pyramid.
        norm: Makes the pyramid's norms, if it has any.
    """

    def __init__(
        self, body: nn.Module, widths: Sequence[int], channels: int, norm: Callable[[int], nn.Module] | None
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(widths), channels, LastLevelMaxPool(), norm)

    def forward(self, x: Tensor, exact: bool = False) -> OrderedDict[str, Tensor]:
        """Map normalised photos to `"0"`, `"1"`, `"2"`, `"3"`, `"pool"`, each `(N, channels, H / stride, ...)`.

        Args:
            x: `(N, 3, H, W)`.
            exact: Compute step by step, as torchvision does, to the last bit.
        """
        fast = not exact and isinstance(self.body, IntermediateLayerGetter)
        found = resnet_features(self.body, x) if fast else self.body(x)
        return pyramid_features(self.fpn, found) if fast else cast("OrderedDict[str, Tensor]", self.fpn(found))


class Heads(nn.Module):
    """The networks behind RoIAlign, under torchvision's names."""

    def __init__(self, spec: StockSpec) -> None:
        super().__init__()
        c, classes = spec.channels, spec.categories + 1
        norm = norm_of(spec.conventions.head_norm, 1e-5)
        if spec.heads == "v2":
            self.box_head = FastRCNNConvFCHead((c, BOX_ROI, BOX_ROI), [spec.head_channels] * 4, [1024], norm)
            self.mask_head = MaskRCNNHeads(c, [spec.head_channels] * 4, 1, norm)
        else:
            self.box_head = TwoMLPHead(c * BOX_ROI**2, 1024)
            self.mask_head = MaskRCNNHeads(c, [spec.head_channels] * 4, 1)
        self.box_predictor = FastRCNNPredictor(1024, classes)
        self.mask_predictor = MaskRCNNPredictor(spec.head_channels, spec.head_channels, classes)

    def boxes(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(R, C, 7, 7)` to scores `(R, categories + 1)`, background first, and as many deltas."""
        scores, deltas = self.box_predictor(self.box_head(pooled))
        return scores.float(), deltas.float()  # places and shares: never in fewer than 32 bits

    def masks(self, pooled: Tensor, labels: Tensor, exact: bool = False) -> Tensor:
        """Map `(R, C, 14, 14)` to the logits `(R, 28, 28)` of the mask of each box's label.

        Args:
            pooled: Features under the boxes.
            labels: `(R,)` int64, 1..C.
            exact: Compute the masks of all categories, as torchvision does, to the last bit.
        """
        if exact:
            every: Tensor = self.mask_predictor(self.mask_head(pooled))
            return every[torch.arange(len(labels), device=labels.device), labels]
        if len(labels) <= AT_ONCE or not torch.is_grad_enabled():
            return self._masks(pooled, labels)
        # Many boxes: what lies between the layers is computed again on the way back, some boxes at a time.
        parts = zip(torch.split(pooled, AT_ONCE), torch.split(labels, AT_ONCE), strict=True)
        return torch.cat([checkpoint(self._masks, *part, use_reentrant=False) for part in parts])

    def _masks(self, pooled: Tensor, labels: Tensor) -> Tensor:
        last = self.mask_predictor
        x = last.relu(last.conv5_mask(self.mask_head(pooled)))
        # Of the last layer, a 1x1 convolution, only the channel of each box's label.
        weight = last.mask_fcn_logits.weight[labels].flatten(1)[:, None]
        found = torch.bmm(weight, x.flatten(2)).view(len(x), *x.shape[-2:])
        bias: Tensor = last.mask_fcn_logits.bias
        return found.float() + bias[labels, None, None]


class StockMaskRCNN(nn.Module):
    """A Segmenter.

    Args:
        spec: What it is made of.

    Attributes:
        states_sums: See `whole`. False where a norm takes the statistics of the photos that it sees: those of a part
            are others, whatever is added up at the end.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: StockSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conventions = how = spec.conventions
        self.loaded: Any = None  # what was taken from which file; a report, see `start`
        if spec.backbone is None:
            body: nn.Module = resnet_body(how, spec.frozen_stages)
            widths: tuple[int, ...] = (256, 512, 1024, 2048)
        else:
            body, widths = timm_body(spec.backbone, STRIDES, how.norm == "live")
        v2 = spec.heads == "v2"
        self.backbone = Pyramid(body, widths, spec.channels, norm_of(how.head_norm, 1e-5) if v2 else None)
        anchors = Anchors(spec.anchor_sizes, spec.aspect_ratios, how.anchors_rounded)
        self.rpn = Proposals(spec.channels, anchors, 2 if v2 else 1, spec.proposals_per_photo, how)
        self.roi_heads = Heads(spec)
        self.deltas = Deltas(HEAD_DELTAS, how.deltas_floored)
        self.sampler = Sampler(spec.rois_per_photo, POSITIVE_SHARE)
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.states_sums = not any(norm.training for norm in norms)
        scale = 255.0 if how.unit else 1.0
        for name, value in (("mean", how.mean), ("std", how.std)):
            numbers = torch.tensor([v / scale for v in value], dtype=torch.float32)
            self.register_buffer(name, numbers[:, None, None], persistent=False)

    def normalise(self, images: Tensor, shapes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Return photos as the backbone wants them.

        Args:
            images: `(..., 3, H, W)`, RGB, 0..255.
            shapes: `(height, width)` of each photo inside its frame; outside it there are zeros then.
        """
        x = images.float()
        x = ((x / 255 if self.conventions.unit else x) - self.mean) / self.std
        if self.conventions.bgr:
            x = x.flip(-3)
        for row, (height, width) in enumerate(shapes or ()):
            x[row, :, height:] = 0
            x[row, :, :, width:] = 0
        return x.contiguous()

    def edges(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the backbone itself sees at its finest, without the pyramid: `"4"` and `"8"`, by stride.

        Args:
            images: `(N, 3, H, W)`, RGB, 0..255; H and W multiples of 32.

        Returns:
            `(N, C, H / stride, W / stride)`; coarser ones may come with them.
        """
        x = self.normalise(images).contiguous(memory_format=torch.channels_last)
        body = self.backbone.body
        found = resnet_features(body, x, "1") if isinstance(body, IntermediateLayerGetter) else body(x)
        return {str(STRIDES[name]): feature for name, feature in found.items()}

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch, and what tells how it goes, detached.

        Args:
            images: `(N, 3, H, W)`, RGB, 0..255, any dtype; H and W multiples of 32.
            targets: One per photo; a photo may have no object.

        Returns:
            Scalars: the losses `objectness`, `rpn_box`, `classifier`, `box`, `mask` and `semantic` (zero: there is no
            such part); `box_accuracy`, `category_accuracy` and `positives` as of `MaskRCNN`.
        """
        x = self.normalise(images).contiguous(memory_format=torch.channels_last)
        features = self.backbone(x)
        shapes = [(x.shape[-2], x.shape[-1])] * len(targets)
        proposals, rpn = self.rpn(ImageList(x, shapes), features, list(targets))
        rois, labels, matches, goals = self._assign(proposals, targets)
        flat = torch.cat(labels)
        scores, deltas = self.roi_heads.boxes(align_rois(features, STRIDES, rois, BOX_ROI, self.conventions))
        near = torch.where(flat > 0)[0]
        found = deltas.view(-1, self.spec.categories + 1, 4)[near, flat[near]]
        count = scores.new_tensor
        sums = {"photos": count(float(len(targets)))}
        sums |= {"objectness": rpn["loss_objectness"], "rpn_box": rpn["loss_rpn_box_reg"], "anchors": rpn["anchors"]}
        sums["classifier"] = functional.cross_entropy(scores, flat, reduction="sum")
        sums["box"] = box_loss(found, torch.cat(goals)[near], self.conventions.box_beta)
        sums |= {"boxes": count(float(len(flat)))} | told_sums(scores, flat)
        sums |= self._mask_sums(features, rois, labels, matches, targets)
        if self.states_sums:
            sums = totals(sums)
        anchors, boxes = sums["anchors"].clamp(min=1), sums["boxes"].clamp(min=1)
        return {
            "objectness": sums["objectness"] / anchors,
            "rpn_box": sums["rpn_box"] / anchors,
            "classifier": sums["classifier"] / boxes,
            "box": sums["box"] / boxes,
            "mask": sums["mask"] / sums["mask cells"].clamp(min=1),
            "semantic": boxes.new_zeros(()),
        } | told(sums, boxes)

    def _assign(
        self, proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Choose boxes to learn from: per photo `(R, 4)`, labels `(R,)` (0 background), objects `(R,)`, deltas."""
        boxes, every, near = [], [], []
        for proposal, target in zip(proposals, targets, strict=True):
            truth = target["boxes"].to(proposal.dtype)
            box = torch.cat([proposal.detach(), truth])
            match = torch.zeros(len(box), dtype=torch.int64, device=box.device)
            label = torch.zeros_like(match)
            if len(truth):
                overlap, match = box_iou(truth, box).max(0)
                label = torch.where(overlap >= POSITIVE_IOU, target["labels"][match], 0)
            boxes.append(box)
            every.append(label)
            near.append(match)
        chosen = [torch.where(p | n)[0] for p, n in zip(*self.sampler(every), strict=True)]
        rois = [b[c] for b, c in zip(boxes, chosen, strict=True)]
        labels = [v[c] for v, c in zip(every, chosen, strict=True)]
        matches = [m[c] for m, c in zip(near, chosen, strict=True)]
        aims = [
            t["boxes"].to(r.dtype)[m] if len(t["boxes"]) else torch.zeros_like(r)
            for t, r, m in zip(targets, rois, matches, strict=True)
        ]
        return rois, labels, matches, list(self.deltas.encode(aims, rois))

    def _mask_sums(
        self,
        features: Mapping[str, Tensor],
        rois: Sequence[Tensor],
        labels: Sequence[Tensor],
        matches: Sequence[Tensor],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        near = [torch.where(label > 0)[0] for label in labels]
        boxes = [r[n] for r, n in zip(rois, near, strict=True)]
        pooled = align_rois(features, STRIDES, boxes, MASK_ROI, self.conventions)
        logits = self.roi_heads.masks(pooled, torch.cat([v[n] for v, n in zip(labels, near, strict=True)]))
        cells = logits.new_tensor(float(logits.numel()))
        if not len(logits):
            return {"mask": logits.sum() * 0, "mask cells": cells}  # zero, yet joined to all that makes masks
        size = (features["0"].shape[-2] * STRIDES["0"], features["0"].shape[-1] * STRIDES["0"])
        goal = torch.cat(
            [
                mask_targets(crops(t), size, b, m[n], logits.shape[-1], self.conventions)
                for t, b, m, n in zip(targets, boxes, matches, near, strict=True)
                if len(n)
            ]
        )
        cross = functional.binary_cross_entropy_with_logits(logits, goal.to(logits.dtype), reduction="sum")
        return {"mask": cross, "mask cells": cells}

    def detect(
        self,
        images: Tensor,
        shapes: Sequence[tuple[int, int]],
        least_score: float = 0.05,
        *,
        normalised: bool = False,
        between: Between | None = None,
    ) -> list[Detection]:
        """Find objects.

        Args:
            images: `(N, 3, H, W)`, RGB, 0..255; H and W multiples of 32, each photo in the upper left corner.
            shapes: `(height, width)` of each photo inside its padded frame; nothing is found outside it.
            least_score: Detections below it are dropped, and those that the conventions drop.
            normalised: `images` are as `normalise` returns them, with zeros around the photos.
            between: See `maskwright.models.maskrcnn.Between`.

        Returns:
            One dict per photo in coordinates of `images`, best score first; the windows of the masks are the boxes.
        """
        sizes = [(int(h), int(w)) for h, w in shapes]
        x = images if normalised else self.normalise(images, sizes)
        # Weights of another framework detect to the last bit as there; what was trained here, and bf16, goes faster.
        exact = self.conventions.exact and not torch.is_autocast_enabled(x.device.type)
        if not exact:
            x = x.contiguous(memory_format=torch.channels_last)
        features = self.backbone(x, exact)
        proposals, _ = self.rpn(ImageList(x, sizes), features)
        counts = [len(p) for p in proposals]
        scores, deltas = self.roi_heads.boxes(
            align_rois(features, STRIDES, proposals, BOX_ROI, self.conventions, exact)
        )
        boxes = self.deltas.decode(deltas, list(proposals))
        probability = scores.float().softmax(-1)
        results = [
            self._best(box, score, size, least_score)
            for box, score, size in zip(
                torch.split(boxes, counts), torch.split(probability, counts), sizes, strict=True
            )
        ]
        if between is not None:
            results = between(results)
        windows = [r["boxes"] for r in results]
        pooled = align_rois(features, STRIDES, windows, MASK_ROI, self.conventions, exact)
        masks = self.roi_heads.masks(pooled, torch.cat([r["labels"] for r in results]), exact).float().sigmoid()
        for result, window, mask in zip(results, windows, torch.split(masks, [len(w) for w in windows]), strict=True):
            result["windows"] = window
            result["masks"] = mask
        return results

    def _best(self, boxes: Tensor, scores: Tensor, size: tuple[int, int], least_score: float) -> Detection:
        """Choose the detections of a photo out of boxes `(R, categories + 1, 4)` and scores `(R, categories + 1)`."""
        boxes = clip_boxes_to_image(boxes, size)[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, scores.shape[1], device=scores.device).expand(len(scores), -1).reshape(-1)
        score = scores[:, 1:].reshape(-1)
        keep = torch.where((score > self.conventions.least_score) & (score >= least_score))[0]
        boxes, score, labels = boxes[keep], score[keep], labels[keep]
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = torch.where((sides >= self.conventions.least_side).all(1))[0]
        boxes, score, labels = boxes[keep], score[keep], labels[keep]
        best = batched_nms(boxes, score, labels, NMS_IOU)[: self.spec.detections_per_photo]
        return {"boxes": boxes[best], "labels": labels[best], "scores": score[best]}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
