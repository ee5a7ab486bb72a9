"""torchvision's choice of boxes and its region proposal network, made to take a part of a batch; see `whole`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.rpn import RegionProposalNetwork

from maskwright.models.whole import permutation


class Sampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """torchvision's sampler of anchors and boxes, with each photo's choices its own.

    Outside of a part of a batch it chooses what torchvision's would, from the same seed.
    """

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Choose at most `batch_size_per_image` of the boxes of each photo.

        Args:
            matched_idxs: Per photo `(A,)`: at least 1 is an object, 0 is background, below is neither.

        Returns:
            Per photo, two `(A,)` uint8 masks: chosen objects and chosen background.
        """
        objects: list[Tensor] = []
        background: list[Tensor] = []
        for photo, matched in enumerate(matched_idxs):
            total = int(self.batch_size_per_image)
            near = torch.where(matched >= 1)[0]
            near = near[permutation(len(near), photo, matched.device)[: int(total * self.positive_fraction)]]
            far = torch.where(matched == 0)[0]
            far = far[permutation(len(far), photo, matched.device)[: total - len(near)]]
            for chosen, found in ((near, objects), (far, background)):
                mask = torch.zeros_like(matched, dtype=torch.uint8)
                mask[chosen] = 1
                found.append(mask)
        return objects, background


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """A region proposal network whose losses are sums over anchors, not means.

    In training its losses hold, beside `loss_objectness` and `loss_rpn_box_reg`, by how many anchors to divide them:
    `anchors`.

    Attributes:
        beta: As of `box_loss`.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        plain: Any = self.fg_bg_sampler  # type: ignore[has-type]
        self.fg_bg_sampler = Sampler(plain.batch_size_per_image, plain.positive_fraction)
        self.beta = 1 / 9
        self.counted = 0

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """As torchvision's, before the division by the number of anchors.

        Args:
            objectness: `(A, 1)` logits of all photos' anchors.
            pred_bbox_deltas: `(A, 4)`.
            labels: Per photo `(a,)`: 1 object, 0 background, -1 neither.
            regression_targets: Per photo `(a, 4)`.
        """
        chosen, background = self.fg_bg_sampler(labels)
        near = torch.where(torch.cat(chosen))[0]
        both = torch.cat([near, torch.where(torch.cat(background))[0]])
        self.counted = len(both)
        box = box_loss(pred_bbox_deltas[near], torch.cat(regression_targets)[near], self.beta)
        sure = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[both], torch.cat(labels)[both], reduction="sum"
        )
        return sure, box

    def forward(
        self, images: Any, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As torchvision's; see the class for its losses."""
        boxes, losses = super().forward(images, features, targets)
        if losses:
            losses["anchors"] = torch.tensor(float(self.counted), device=losses["loss_objectness"].device)
        return boxes, losses


def box_loss(found: Tensor, goal: Tensor, beta: float) -> Tensor:
    """Return the summed smooth L1 loss of deltas `(R, 4)`; with `beta` 0 the L1 loss."""
    kind: Any = functional.l1_loss if beta == 0 else functional.smooth_l1_loss
    more = {} if beta == 0 else {"beta": beta}
    loss: Tensor = kind(found, goal, reduction="sum", **more)
    return loss
