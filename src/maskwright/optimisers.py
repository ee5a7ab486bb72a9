"""How the weights are updated."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from maskwright.settings import TrainSettings

PYRAMID = "backbone.fpn."
"""What stock networks keep beside the backbone, by torchvision's names: it starts from random numbers, as heads do."""


def optimiser_for(settings: TrainSettings, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a plan; its groups have a `share` of the learning rate.

    AdamW leaves norms and biases undecayed. SGD decays everything, as the recipe that it comes from does.

    Args:
        settings: Of a plan.
        network: Its parameters under `backbone.` get the backbone's share of the rate, a pyramid among them does not.
    """
    sgd = settings.optimiser == "sgd"
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            inside, decays = name.startswith("backbone."), sgd or parameter.ndim > 1
            groups.setdefault((inside, decays, inside and not name.startswith(PYRAMID)), []).append(parameter)
    parts = [
        {
            "params": parameters,
            "share": settings.backbone_rate if slowed else 1.0,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr": 0.0,
        }
        # Checkpoints know a parameter by its place in this order.
        for (_, decays, slowed), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]
    if sgd:
        return torch.optim.SGD(parts, lr=0.0, momentum=cast(float, settings.momentum))
    return torch.optim.AdamW(parts, fused=True)
