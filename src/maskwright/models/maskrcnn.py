"""Mask R-CNN (He et al. 2017) from torchvision's parts, with heads sized for a CPU.

What differs from torchvision's own assembly, and why:

- The box head is refined in stages (Cai and Vasconcelos 2018, Cascade R-CNN): each stage starts from the boxes of the
one   before. Long thin objects at an angle fill little of their box, so their boxes need the second look.
- Boxes and masks are regressed without regard to the category: with tens of photos, what is learned from one kind of
  object must serve all.
- The mask is predicted in a window larger than the box, so that a box that is a little too small does not cut the mask.
- Targets of the mask head are cropped from one map per photo at the network's resolution, never per object at full
size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import (
    FeaturePyramidNetwork,
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    generalized_box_iou_loss,
    roi_align,
)
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskwright.crops import whole
from maskwright.models.backbones import Backbone, BackboneSpec
from maskwright.models.proposals import Proposals
from maskwright.models.rois import pool_rois
from maskwright.models.weights import load_imagenet
from maskwright.models.whole import permutation, totals

Target = dict[str, Tensor]
"""`boxes` `(N, 4)` float `x1 y1 x2 y2`; `labels` `(N,)` int64, 1..C; `masks` and `windows` as
`maskwright.crops.pack` returns them, or `masks` `(N, H, W)` uint8 0/1."""

Detection = dict[str, Tensor]
"""`boxes` `(N, 4)`; `labels` `(N,)`; `scores` `(N,)` 0..1; `masks` `(N, S, S)` probabilities over `windows` `(N,
4)`."""

Between = Callable[[list[Detection]], list[Detection]]
"""What is done with the boxes, labels and scores of all photos before they get masks; what else it adds per object goes
along to the end."""


@dataclass(frozen=True)
class MaskRCNNSpec:
    """The sizes of a Mask R-CNN.

    Args:
        categories: How many kinds of object there are, background not counted.
        channels: Width of the feature pyramid.
        anchor_sizes: Side of the anchors in pixels of the input, one tuple per pyramid level (strides 8, 16, 32, 64).
        aspect_ratios: Height / width of the anchors.
        box_channels: Width of the box head.
        stages: How many times boxes are refined.
        mask_channels: Width of the mask head.
        mask_layers: Its 3x3 convolutions.
        fine_channels: Width of the finest map, which only the mask head reads.
        fine_layers: Its 3x3 convolutions.
        mask_side: Cells of a mask per side; at least 28.
        rois_per_photo: Boxes per photo that the box head learns from in each step, at most.
        mask_rois_per_photo: Boxes per photo that the mask head learns from in each step, at most.
        detections_per_photo: At most so many objects are returned.
    """

    categories: int
    channels: int = 96
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    box_channels: int = 384
    stages: int = 2
    mask_channels: int = 64
    mask_layers: int = 3
    fine_channels: int = 32
    fine_layers: int = 1
    mask_side: int = 28
    rois_per_photo: int = 64
    mask_rois_per_photo: int = 16
    detections_per_photo: int = 100


POSITIVE_IOU = (0.5, 0.6, 0.7)  # per refinement stage; Cascade R-CNN
DELTA_SCALES = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
SAME_OBJECT = 0.5  # boxes of one category that overlap by a greater IoU are taken for one object
WINDOW = 1.1  # side of the mask's window over side of its box
MASK_ROI = 14
BOX_STRIDES = (8, 16, 32)
MASK_STRIDES = (8, 16)
BOX_CELLS = 7.0  # a box is read at the level where its side spans 7 to 14 cells, one or two per output cell
MASK_CELLS = 14.0
LOG_SIZE_LIMIT = 4.135  # log(1000 / 16), as torchvision: no box grows by more


class BoxHead(nn.Module):
    """Classify and refine boxes: two fully connected layers on 7x7 features."""

    def __init__(self, channels: int, width: int, categories: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * 49, width)
        self.fc2 = nn.Linear(width, width)
        self.score = nn.Linear(width, categories + 1)
        self.delta = nn.Linear(width, 4)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.delta.weight, std=0.001)
        nn.init.zeros_(self.score.bias)
        nn.init.zeros_(self.delta.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(R, C, 7, 7)` to scores `(R, categories + 1)`, background first, and deltas `(R, 4)`."""
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        return self.score(x).float(), self.delta(x).float()  # places and shares: never in fewer than 32 bits


class ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's, with results in 32 bits: a place in bf16 would be off by a pixel."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map features per level to objectness `(N, A, H, W)` and deltas `(N, 4 A, H, W)`."""
        objectness, deltas = super().forward(x)
        return [o.float() for o in objectness], [d.float() for d in deltas]


class MaskHead(nn.Module):
    """Predict one mask per box from coarse features that know the object and fine ones that know its edges.

    The coarse branch sees 14x14 features through 3x3 convolutions, as in Mask R-CNN. A handle three pixels wide falls
    between its cells, so its result, at twice the resolution, is put beside features of the finest map, of which there
    are 28x28, or more where boxes are large. The weights are the same for any number.
    """

    def __init__(self, channels: int, width: int, layers: int, fine: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for i in range(layers):
            parts += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1), nn.ReLU(inplace=True)]
        parts += [nn.ConvTranspose2d(width, fine, 2, 2), nn.ReLU(inplace=True)]
        self.coarse = nn.Sequential(*parts)
        self.merge = nn.Sequential(
            nn.Conv2d(2 * fine + 1, fine, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fine, fine, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.logit = nn.Conv2d(fine, 1, 1)
        for part in [*self.coarse, *self.merge]:
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, part.bias))
        nn.init.normal_(self.logit.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.logit.bias))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map `(R, C, 14, 14)` and `(R, F + 1, S, S)`, the last channel a first guess, to logits `(R, S, S)`."""
        known = self.coarse(coarse)
        if known.shape[-2:] != fine.shape[-2:]:
            known = functional.interpolate(known, size=fine.shape[-2:], mode="bilinear")
        seen, guess = torch.split(fine, [fine.shape[1] - 1, 1], 1)
        # The convolutions read all in one type; only the guess, which is a part of the result, stays in its own.
        merged = self.merge(torch.cat([known, seen.to(known.dtype), guess.to(known.dtype)], 1))
        return cast(Tensor, self.logit(merged)[:, 0].float() + guess[:, 0])


class MaskRCNN(nn.Module):
    """A Segmenter: proposals, boxes in refinement stages, a mask per box.

    Args:
        backbone: Gives features at strides 4, 8, 16 and 32.
        spec: The sizes of everything behind it.
    """

    states_sums = True  # see `whole`

    def __init__(self, backbone: Backbone, spec: MaskRCNNSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        c = spec.channels
        self.pyramid = FeaturePyramidNetwork(backbone.channels[1:], c, LastLevelMaxPool())
        # The finest map serves the mask head alone: the backbone's, and the level above upsampled, both narrowed.
        self.fine = nn.Conv2d(backbone.channels[0], spec.fine_channels, 1)
        self.fine_context = nn.Conv2d(c, spec.fine_channels, 1)
        self.fine_mix = nn.Conv2d(spec.fine_channels, spec.fine_channels, 3, padding=1)
        self.fine_more = nn.Sequential()
        for _ in range(spec.fine_layers - 1):
            more = nn.Conv2d(spec.fine_channels, spec.fine_channels, 3, padding=1)
            nn.init.kaiming_normal_(more.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, more.bias))
            self.fine_more.extend([more, nn.ReLU(inplace=True)])
        # Every pixel of it says which category it is of: dense teaching for the map that masks are cut from.
        self.semantic = nn.Conv2d(spec.fine_channels, spec.categories, 1)
        nn.init.constant_(cast(Tensor, self.semantic.bias), -2.0)  # most pixels are background
        anchors = AnchorGenerator(spec.anchor_sizes, (spec.aspect_ratios,) * len(spec.anchor_sizes))
        self.rpn = Proposals(
            anchors,
            ProposalHead(c, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=128,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 400, "testing": 400},
            post_nms_top_n={"training": 200, "testing": 200},
            nms_thresh=0.7,
        )
        self.box_heads = nn.ModuleList(BoxHead(c, spec.box_channels, spec.categories) for _ in range(spec.stages))
        self.mask_head = MaskHead(c, spec.mask_channels, spec.mask_layers, spec.fine_channels)

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the pyramid `(N, C, H / s, W / s)` at strides 4 (for masks only), 8, 16, 32 and `pool` (64)."""
        found = self.backbone(images)
        finest = found.pop("4")
        pyramid = self.pyramid(found)
        context = functional.interpolate(self.fine_context(pyramid["8"]), scale_factor=2.0, mode="nearest")
        fine = self.fine_more(functional.relu(self.fine_mix(functional.relu(self.fine(finest) + context))))
        pyramid["semantic"] = self.semantic(fine)
        # The mask head reads, beside the features, how much each pixel looks like an object of any category.
        pyramid["4"] = torch.cat([fine, pyramid["semantic"].amax(1, keepdim=True)], 1)
        # Anchors and boxes take the features' type, and pooling adds up in it.
        return OrderedDict((name, level.float()) for name, level in pyramid.items())

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch, and what tells how it goes, detached.

        Args:
            images: `(N, 3, H, W)`, RGB, 0..255, any dtype; H and W multiples of 32.
            targets: One per photo; a photo may have no object.

        Returns:
            Scalars: the losses `objectness`, `rpn_box`, `classifier`, `box`, `mask` and `semantic`; `box_accuracy`, the
            share of boxes whose category is found, background included; `category_accuracy`, the same of boxes on
            objects when background is no choice; `positives`, boxes on objects per photo.
        """
        images = images.float()
        features = self.features(images)
        height, width = images.shape[-2:]
        targets = [{**t, "masks": whole(t, (height, width))} for t in targets]  # photos are small here
        shapes = [(height, width)] * len(targets)
        levels = {k: v for k, v in features.items() if k not in {"4", "semantic"}}
        proposals, rpn = self.rpn(ImageList(images, shapes), levels, list(targets))
        count = images.new_tensor
        sums = {"photos": count(float(len(targets)))}
        sums |= {"objectness": rpn["loss_objectness"], "rpn_box": rpn["loss_rpn_box_reg"], "anchors": rpn["anchors"]}
        boxes = [torch.cat([p.detach(), t["boxes"].to(p.dtype)]) for p, t in zip(proposals, targets, strict=True)]
        mask_rois: list[Tensor] = []
        mask_matches: list[Tensor] = []
        for stage, head in enumerate(self.box_heads):
            rois, labels, matches = [], [], []
            for photo, (proposal, target) in enumerate(zip(boxes, targets, strict=True)):
                roi, label, match = self._assign(proposal, target, stage, photo)
                rois.append(roi)
                labels.append(label)
                matches.append(match)
            scores, deltas = head(pool_rois(features, BOX_STRIDES, rois, 7, cells=BOX_CELLS))
            label = torch.cat(labels)
            flat = torch.cat(rois)
            refined = decode(deltas, flat, stage)
            positive = label > 0
            sums[f"classifier {stage}"] = functional.cross_entropy(scores, label, reduction="sum")
            sums[f"boxes {stage}"] = count(float(len(label)))
            if positive.any():
                truth = torch.cat([t["boxes"][m] for t, m in zip(targets, matches, strict=True) if len(t["boxes"])])
                # matches of photos without objects are dropped with their rows, which are never positive
                has = torch.cat(
                    [
                        torch.full_like(m, len(t["boxes"]) > 0, dtype=torch.bool)
                        for t, m in zip(targets, matches, strict=True)
                    ]
                )
                rows = torch.zeros(len(label), 4, dtype=flat.dtype, device=flat.device)
                rows[has] = truth.to(flat.dtype)
                sums[f"box {stage}"] = generalized_box_iou_loss(
                    refined[positive].float(), rows[positive], reduction="sum"
                )
            else:
                sums[f"box {stage}"] = deltas.sum() * 0
            if stage == 0:
                sums |= told_sums(scores, label)
                for roi, lab, match, target in zip(rois, labels, matches, targets, strict=True):
                    # Many boxes around one object teach its mask little more than a few do.
                    most = min(self.spec.mask_rois_per_photo, max(4, 2 * len(target["boxes"])))
                    chosen = torch.nonzero(lab > 0)[:, 0][:most]
                    mask_rois.append(roi[chosen])
                    mask_matches.append(match[chosen])
            counts = [len(r) for r in rois]
            boxes = [
                torch.cat([clip_boxes_to_image(b, (height, width)), t["boxes"].to(b.dtype)])
                for b, t in zip(torch.split(refined.detach(), counts), targets, strict=True)
            ]
        sums |= self._mask_sums(features, mask_rois, mask_matches, targets)
        sums |= self._semantic_sums(features["semantic"], targets)
        return self._losses(totals(sums))

    def _losses(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make means of sums over the whole batch."""
        stages = range(len(self.box_heads))
        number = [sums[f"boxes {stage}"].clamp(min=1) for stage in stages]
        dice = 1 - (2 * sums["semantic overlap"] + 1) / (sums["semantic size"] + 1)
        anchors = sums["anchors"].clamp(min=1)
        results = {
            "objectness": sums["objectness"] / anchors,
            "rpn_box": sums["rpn_box"] / anchors,
            "classifier": sum((sums[f"classifier {s}"] / number[s] for s in stages), sums["photos"] * 0) / len(stages),
            "box": sum((sums[f"box {s}"] / number[s] for s in stages), sums["photos"] * 0) / len(stages) * 4,
            "mask": sums["mask"] / sums["mask cells"].clamp(min=1)
            + 0.5 * sums["mask dice"] / sums["masks"].clamp(min=1),
            "semantic": sums["semantic"] / sums["semantic cells"] + 0.5 * dice.mean(),
        }
        return results | told(sums, number[0])

    def _assign(self, proposals: Tensor, target: Target, stage: int, photo: int) -> tuple[Tensor, Tensor, Tensor]:
        """Choose boxes to learn from: `(boxes (R, 4), labels (R,) with 0 background, matched object (R,))`."""
        # A photo with one object has few boxes worth learning from; the rest would be background over and over.
        total = min(self.spec.rois_per_photo, 32 + 4 * len(target["boxes"]))
        sizes = proposals[:, 2:] - proposals[:, :2]
        proposals = proposals[(sizes > 1).all(1)]
        if len(target["boxes"]) == 0:
            roi = proposals[:total]
            none = torch.zeros(len(roi), dtype=torch.int64, device=roi.device)
            return roi, none, none
        overlap, match = box_iou(proposals, target["boxes"].to(proposals.dtype)).max(1)
        positive = torch.nonzero(overlap >= POSITIVE_IOU[stage])[:, 0]
        negative = torch.nonzero(overlap < POSITIVE_IOU[stage])[:, 0]
        most = total // 3
        positive = positive[permutation(len(positive), photo, positive.device)[:most]]
        negative = negative[permutation(len(negative), photo, negative.device)[: total - len(positive)]]
        chosen = torch.cat([positive, negative])
        labels = target["labels"][match[chosen]].clone()
        labels[len(positive) :] = 0
        return proposals[chosen], labels, match[chosen]

    def _semantic_sums(self, logits: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Teach the finest map to tell categories apart, pixel by pixel."""
        logits = logits.float()
        goal = torch.zeros_like(logits)
        for i, target in enumerate(targets):
            for label in sorted(set(target["labels"].tolist())):
                union = target["masks"][target["labels"] == label].amax(0)
                goal[i, label - 1] = functional.avg_pool2d(union[None].float(), 4)[0]
        # One Dice ratio per category for the whole batch: its sums are added up before they are divided.
        cross, overlap, size = outline_sums(logits, goal, (0, 2, 3))
        cells = logits.new_tensor(float(logits.numel()))
        return {"semantic": cross, "semantic cells": cells, "semantic overlap": overlap, "semantic size": size}

    def _mask_logits(self, features: dict[str, Tensor], windows: list[Tensor]) -> Tensor:
        coarse = pool_rois(features, MASK_STRIDES, windows, MASK_ROI, cells=MASK_CELLS)
        # Cells of the finer grid are about as large as those of the map: one sample each is enough.
        fine = pool_rois(features, (4,), windows, self.spec.mask_side, cells=1.0, sampling=1)
        return cast(Tensor, self.mask_head(coarse, fine))

    def _mask_sums(
        self,
        features: dict[str, Tensor],
        rois: list[Tensor],
        matches: list[Tensor],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        if sum(len(r) for r in rois) == 0:
            # Zero, yet joined to all that makes masks: among several processes each waits for every gradient.
            unused = sum(p.sum() * 0 for p in self.mask_head.parameters())
            none = features["4"].new_zeros(())
            nothing = {"mask cells": none, "mask dice": none, "masks": none}
            return {"mask": unused + features["4"].sum() * 0, **nothing}
        windows = [grow(r, WINDOW) for r in rois]
        logits = self._mask_logits(features, windows)
        side = logits.shape[-1]
        truth = []
        for window, match, target in zip(windows, matches, targets, strict=True):
            if len(window):
                index = match[:, None].to(window.dtype)
                crop = roi_align(
                    target["masks"][:, None].to(window.dtype), torch.cat([index, window], 1), side, 1.0, 2, True
                )
                truth.append(crop[:, 0])
        # The share of each cell that is object, not a yes or no: it places the edge within the cell.
        cross, overlap, size = outline_sums(logits.float(), torch.cat(truth).float(), (1, 2))
        dice = (1 - (2 * overlap + 1) / (size + 1)).sum()
        count = logits.new_tensor
        return {
            "mask": cross,
            "mask cells": count(float(logits.numel())),
            "mask dice": dice,
            "masks": count(float(len(logits))),
        }

    def detect(
        self,
        images: Tensor,
        shapes: Sequence[tuple[int, int]],
        least_score: float = 0.02,
        *,
        between: Between | None = None,
    ) -> list[Detection]:
        """Find objects.

        Args:
            images: `(N, 3, H, W)`, RGB, 0..255; H and W multiples of 32, each photo in the upper left corner.
            shapes: `(height, width)` of each photo inside its padded frame; nothing is found outside it.
            least_score: Detections below it are dropped.
            between: See `Between`.

        Returns:
            One dict per photo in coordinates of `images`, best score first. Boxes are those of the masks, at edges of
            their cells; where a mask shows nothing, the box head's.
        """
        images = images.float()
        features = self.features(images)
        sizes = [(int(h), int(w)) for h, w in shapes]
        levels = {k: v for k, v in features.items() if k not in {"4", "semantic"}}
        boxes, _ = self.rpn(ImageList(images, sizes), levels)
        counts = [len(b) for b in boxes]
        probability = images.new_zeros(())
        for stage, head in enumerate(self.box_heads):
            scores, deltas = head(pool_rois(features, BOX_STRIDES, boxes, 7, cells=BOX_CELLS))
            probability = probability + scores.float().softmax(1)
            refined = torch.split(decode(deltas, torch.cat(boxes), stage), counts)
            boxes = [clip_boxes_to_image(b, s) for b, s in zip(refined, sizes, strict=True)]
        results: list[Detection] = []
        for box, scores in zip(boxes, torch.split(probability / len(self.box_heads), counts), strict=True):
            row, label = torch.nonzero(scores[:, 1:] >= least_score, as_tuple=True)
            score, candidate = scores[row, label + 1], box[row]
            keep = ((candidate[:, 2:] - candidate[:, :2]) >= 1).all(1)
            score, candidate, label = score[keep], candidate[keep], label[keep] + 1
            best = batched_nms(candidate, score, label, SAME_OBJECT)[: self.spec.detections_per_photo]
            results.append({"boxes": candidate[best], "labels": label[best], "scores": score[best]})
        if between is not None:
            results = between(results)
        windows = [grow(r["boxes"], WINDOW) for r in results]
        if sum(len(w) for w in windows):
            probabilities = self._mask_logits(features, windows).float().sigmoid()
        else:
            probabilities = images.new_zeros((0, self.spec.mask_side, self.spec.mask_side))
        for result, window, mask, size in zip(
            results, windows, torch.split(probabilities, [len(w) for w in windows]), sizes, strict=True
        ):
            result["windows"] = window
            result["masks"] = mask
            # The mask's many cells place the object's ends better than the box head did. What they show outside of the
            # photo, where windows may reach, is no part of it.
            seen = mask * within(window, size, mask.shape[-1])
            boxes = clip_boxes_to_image(outline_boxes(seen, window), size)
            shown = (boxes[:, 2:] > boxes[:, :2]).all(1)
            result["boxes"] = torch.where(shown[:, None], boxes, result["boxes"])
            # The box head does not know how good the mask will be; the mask does, roughly.
            result["scores"] = result["scores"] * sureness(mask)
            # Two boxes whose overlap was small enough may hold one object, as boxes of the same mask show.
            order = batched_nms(result["boxes"], result["scores"], result["labels"], SAME_OBJECT)
            order = order[result["scores"][order] >= least_score]
            result |= {name: tensor[order] for name, tensor in result.items()}
        return results


def within(windows: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Tell which cells of masks lie in the photo, if only in part.

    Args:
        windows: `(R, 4)` `x1 y1 x2 y2`, where the masks lie.
        size: `(height, width)` of the photo.
        side: S, cells of a mask along each side.

    Returns:
        `(R, S, S)` bool.

    Example:
        >>> within(torch.tensor([[-4.0, 0.0, 4.0, 4.0]]), (4, 9), 2).tolist()
        [[[False, True], [False, True]]]
    """
    share = torch.arange(side + 1, device=windows.device, dtype=windows.dtype) / side
    x, y = (windows[:, k, None] + share * (windows[:, k + 2, None] - windows[:, k, None]) for k in (0, 1))
    lines, columns = ((ends[:, 1:] > 0) & (ends[:, :-1] < most) for ends, most in ((y, size[0]), (x, size[1])))
    return lines[:, :, None] & columns[:, None, :]


def outline_boxes(masks: Tensor, windows: Tensor) -> Tensor:
    """Return the boxes of masks: those around the cells that are object.

    Args:
        masks: `(R, S, S)` probabilities.
        windows: `(R, 4)` `x1 y1 x2 y2`, where they lie.

    Returns:
        `(R, 4)` `x1 y1 x2 y2`, at edges of cells; without size where no cell is object.

    Example:
        >>> mask = torch.tensor([[[0.1, 0.2], [0.3, 0.9]]])
        >>> outline_boxes(mask, torch.tensor([[0.0, 0.0, 20.0, 40.0]])).tolist()
        [[10.0, 20.0, 20.0, 40.0]]
    """
    side = masks.shape[-1]
    inside = masks >= 0.5
    ends = []
    for along in (inside.any(1), inside.any(2)):  # columns, lines
        first = along.float().argmax(1)
        last = side - along.flip(1).float().argmax(1)
        ends.append(torch.stack([first, torch.where(along.any(1), last, first)], 1))
    places = torch.stack(ends, 2).to(windows.dtype) / side  # `(R, first and last, x and y)`, 0..1 of the window
    return (windows[:, None, :2] + places * (windows[:, None, 2:] - windows[:, None, :2])).flatten(1)


def sureness(masks: Tensor) -> Tensor:
    """Return how sure masks are of themselves: the mean probability of the cells that are object, at least one half.

    A mask with a clear edge is right more often than one that hesitates (Wang et al. 2020, SOLO: "maskness"). As a
    factor of the score it ranks good masks first.

    Args:
        masks: `(R, S, S)` probabilities.

    Returns:
        `(R,)`; where no cell is object, the greatest probability.
    """
    inside = masks >= torch.minimum(masks.amax((1, 2), keepdim=True), masks.new_tensor(0.5))
    return (masks * inside).sum((1, 2)) / inside.sum((1, 2))


def outline_sums(logits: Tensor, goal: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what cross-entropy and the Dice loss (Milletari et al. 2016) are made of.

    Their sum, Dice counting half, is the loss of an outline. Cross-entropy alone is content to leave thin parts out,
    where it is unsure; Dice, `1 - (2 overlap + 1) / (size + 1)`, counts them against the object.

    Args:
        logits: Any shape.
        goal: The same shape, 0..1: the share of each cell that is object.
        dims: The dimensions that one Dice ratio is taken over.

    Returns:
        The sum of the cross-entropy; per ratio the overlap, and the sizes of both added up.
    """
    probability = logits.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(logits, goal, reduction="sum")
    return cross, (probability * goal).sum(dims), (probability + goal).sum(dims)


def told_sums(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Count the boxes whose category is found: sums, of which `told` makes shares.

    Args:
        scores: `(R, categories + 1)`, background first.
        labels: `(R,)` int64, 0 background.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [2.0, 0.0, 1.0]])
        >>> {name: count.item() for name, count in told_sums(scores, torch.tensor([0, 2, 2])).items()}
        {'correct': 1.0, 'positives': 2.0, 'told apart': 1.0}
    """
    scores, near = scores.detach(), labels > 0
    apart = scores[near, 1:].argmax(1) + 1 == labels[near]
    counts = {"correct": (scores.argmax(1) == labels).sum(), "positives": near.sum(), "told apart": apart.sum()}
    return {name: count.float() for name, count in counts.items()}


def told(sums: Mapping[str, Tensor], boxes: Tensor) -> dict[str, Tensor]:
    """Return what tells how it goes: `box_accuracy`, `category_accuracy` and `positives`; see `MaskRCNN.losses`.

    Args:
        sums: What `told_sums` counted, and `photos`.
        boxes: How many boxes were looked at; at least 1.
    """
    shares = {
        "box_accuracy": sums["correct"] / boxes,
        "category_accuracy": sums["told apart"] / sums["positives"].clamp(min=1),
        "positives": sums["positives"] / sums["photos"],
    }
    return {name: share.detach() for name, share in shares.items()}


def decode(deltas: Tensor, boxes: Tensor, stage: int) -> Tensor:
    """Apply deltas `(R, 4)` to boxes `(R, 4)`, both `x1 y1 x2 y2`, by R-CNN's parametrisation."""
    dx, dy, dw, dh = (deltas.float() / deltas.new_tensor(DELTA_SCALES[stage])).unbind(1)
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x, y = boxes[:, 0] + 0.5 * w + dx * w, boxes[:, 1] + 0.5 * h + dy * h
    w, h = w * dw.clamp(max=LOG_SIZE_LIMIT).exp(), h * dh.clamp(max=LOG_SIZE_LIMIT).exp()
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], 1)


def grow(boxes: Tensor, factor: float) -> Tensor:
    """Scale boxes `(R, 4)` about their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], 1)


def nano(sizes: Mapping[str, Any], weights: str) -> MaskRCNN:
    """Build `maskrcnn-nano`: EfficientNet-Lite0 and heads that learn on a CPU in minutes.

    Args:
        sizes: The fields of `MaskRCNNSpec` that are not at their default, as JSON gives them.
        weights: `imagenet`, or `none` for random ones; of others, which are loaded by the caller, early stages are
            frozen too.

    Raises:
        UserError: If the weights cannot be had.
    """
    given = {k: _tuples(v) for k, v in sizes.items()}
    # Stages up to stride 4 stay as ImageNet left them: edges and colours are the same everywhere, and their backward
    # pass, on the largest maps, would be a third of a step.
    backbone = Backbone(
        BackboneSpec("tf_efficientnet_lite0", (127.0,) * 3, (128.0,) * 3, 3 if weights != "none" else 0)
    )
    if weights == "imagenet":
        load_imagenet(backbone.net, backbone.spec.name)
    backbone.freeze()
    return MaskRCNN(backbone, MaskRCNNSpec(**given)).to(memory_format=torch.channels_last)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
