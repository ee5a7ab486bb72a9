"""Anchors, box deltas and proposals of Mask R-CNN under any convention, from torchvision's parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from maskwright.models import proposals
from maskwright.models.conventions import Conventions
from maskwright.models.maskrcnn import ProposalHead

LOG_SIZE_LIMIT = math.log(1000 / 16)
"""No box grows by more than e to this power (R-CNN's authors' code, and everyone's since)."""

ABOVE_ZERO = torch.finfo(torch.float32).tiny

PAIRS = 1 << 20
"""Pairs of an anchor and an object that are compared at a time."""

RPN_DELTAS = (1.0, 1.0, 1.0, 1.0)
HEAD_DELTAS = (10.0, 10.0, 5.0, 5.0)


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors, with corners at the origin that need not be whole numbers.

    Args:
        sizes: Square root of the anchors' area in pixels, one tuple per level.
        ratios: Height / width.
        rounded: Whether corners at the origin are rounded.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], ratios: Sequence[float], rounded: bool) -> None:
        self.rounded = rounded
        super().__init__(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))

    def forward(self, image_list: Any, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return per photo `(A, 4)`; in 32 bits, whatever the features are in."""
        like = [f.new_empty((), dtype=torch.float32).expand(f.shape) for f in feature_maps]
        found: list[Tensor] = super().forward(image_list, like)
        return found

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return `(len(aspect_ratios) * len(scales), 4)` `x1 y1 x2 y2` around the origin, by ratio first."""
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        tall = torch.sqrt(torch.as_tensor(aspect_ratios, dtype=dtype, device=device))
        half_w = ((1 / tall)[:, None] * sides[None, :]).view(-1) / 2
        half_h = (tall[:, None] * sides[None, :]).view(-1) / 2
        found = torch.stack([-half_w, -half_h, half_w, half_h], 1)
        return found.round() if self.rounded else found


class Deltas(BoxCoder):  # type: ignore[misc]
    """torchvision's box coder, with a limit to shrinking where the convention has one.

    Args:
        weights: What the four deltas are divided by.
        floored: Whether a box can shrink by no more than it can grow.
    """

    def __init__(self, weights: tuple[float, float, float, float], floored: bool) -> None:
        super().__init__(weights, LOG_SIZE_LIMIT)
        self.floored = floored

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Apply deltas `(R, 4 K)` to boxes `(R, 4)`."""
        if self.floored:
            width, height = self.weights[2], self.weights[3]
            limit = rel_codes.new_tensor([math.inf, math.inf, LOG_SIZE_LIMIT * width, LOG_SIZE_LIMIT * height])
            codes = rel_codes.view(len(rel_codes), -1, 4)
            rel_codes = torch.maximum(codes, -limit).view(len(rel_codes), -1)
        found: Tensor = super().decode_single(rel_codes, boxes)
        return found


class FrugalHead(ProposalHead):
    """A proposal head whose inner maps, as large as the pyramid, are computed again on the way back."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map features per level to objectness and deltas."""
        look = super().forward
        if not torch.is_grad_enabled():
            return look(x)
        # One level at a time, so that only one is held.
        levels = [checkpoint(look, [level], use_reentrant=False) for level in x]
        return [objectness[0] for objectness, _ in levels], [deltas[0] for _, deltas in levels]


class Proposals(proposals.Proposals):
    """The region proposal network under a convention; its losses are sums.

    Args:
        channels: Of the pyramid.
        anchors: The anchors.
        depth: 3x3 convolutions of its head.
        most: How many proposals a photo has at most; twice as many in training.
        how: The conventions.
    """

    def __init__(self, channels: int, anchors: Anchors, depth: int, most: int, how: Conventions) -> None:
        super().__init__(
            anchors,
            FrugalHead(channels, anchors.num_anchors_per_location()[0], conv_depth=depth),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * most, "testing": most},
            post_nms_top_n={"training": 2 * most, "testing": most},
            nms_thresh=0.7,
        )
        self.box_coder = Deltas(RPN_DELTAS, how.deltas_floored)
        self.min_size = how.least_proposal or ABOVE_ZERO
        self.beta = how.box_beta

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match anchors and objects as torchvision does, some anchors at a time: all pairs at once take gigabytes.

        Args:
            anchors: Per photo `(A, 4)`.
            targets: Per photo, with `boxes` `(N, 4)`.

        Returns:
            Per photo labels `(A,)` float (1 object, 0 background, -1 neither) and the matched boxes `(A, 4)`.
        """
        labels, matched = [], []
        matcher = self.proposal_matcher
        for anchor, target in zip(anchors, targets, strict=True):
            boxes = target["boxes"].to(anchor.dtype)
            if not len(boxes):
                labels.append(torch.zeros_like(anchor[:, 0]))
                matched.append(torch.zeros_like(anchor))
                continue
            parts = torch.split(anchor, max(1, PAIRS // len(boxes)))
            found = [box_iou(boxes, part).max(0) for part in parts]
            value, index = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
            highest = torch.stack([box_iou(boxes, part).amax(1) for part in parts]).amax(0)
            # Every object has the anchors that fit it best, however badly; among equals each.
            best = torch.cat([(box_iou(boxes, part) == highest[:, None]).any(0) for part in parts])
            label = torch.full_like(value, -1.0)
            label[value < matcher.low_threshold] = 0.0
            label[(value >= matcher.high_threshold) | best] = 1.0
            labels.append(label)
            matched.append(boxes[index])
        return labels, matched
