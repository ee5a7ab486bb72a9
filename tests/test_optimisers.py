"""Which weights decay and at what share of the rate they learn."""

import pytest
import torch
from torch import nn

from maskwright.models.stock import StockMaskRCNN, StockSpec
from maskwright.optimisers import optimiser_for
from maskwright.settings import TrainSettings


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)
        self.still = nn.Linear(2, 2).requires_grad_(False)


def groups(optimiser):
    return {(g["share"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in optimiser.param_groups}


def test_adamw_leaves_norms_and_biases_undecayed_and_slows_the_backbone():
    settings = TrainSettings(optimiser="adamw", backbone_rate=0.3, weight_decay=0.02)
    made = optimiser_for(settings, Two())
    assert isinstance(made, torch.optim.AdamW)
    assert groups(made) == {(0.3, 0.02, 9), (0.3, 0.0, 3), (1.0, 0.02, 6), (1.0, 0.0, 2)}


def test_the_pyramid_of_a_stock_network_learns_at_the_rate_of_the_heads():
    network = StockMaskRCNN(StockSpec(2, backbone="resnet10t", channels=32, head_channels=32))
    names = {id(p): name for name, p in network.named_parameters()}
    settings = TrainSettings(optimiser="adamw", backbone_rate=0.1, weight_decay=0.05)
    shares = {0.1: set(), 1.0: set()}
    for group in optimiser_for(settings, network).param_groups:
        shares[group["share"]] |= {".".join(names[id(p)].split(".")[:2]) for p in group["params"]}
    assert shares[0.1] == {"backbone.body"}
    assert {"backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.mask_head"} <= shares[1.0]
    assert "backbone.body" not in shares[1.0]


def test_parameters_stand_in_the_order_that_checkpoints_know_them_by():
    network = nn.Module()
    network.backbone = nn.ModuleDict({"body": nn.Linear(3, 3), "fpn": nn.Linear(3, 5)})
    network.head = nn.Linear(3, 2)
    names = {id(p): name for name, p in network.named_parameters()}
    made = optimiser_for(TrainSettings(optimiser="adamw", backbone_rate=0.1, weight_decay=0.05), network)
    assert [names[id(p)] for group in made.param_groups for p in group["params"]] == [
        "backbone.body.weight",
        "backbone.fpn.weight",
        "backbone.body.bias",
        "backbone.fpn.bias",
        "head.weight",
        "head.bias",
    ]


def test_sgd_decays_everything_and_has_momentum():
    settings = TrainSettings(optimiser="sgd", backbone_rate=1.0, weight_decay=1e-4, momentum=0.9)
    network = Two()
    made = optimiser_for(settings, network)
    assert isinstance(made, torch.optim.SGD)
    assert groups(made) == {(1.0, 1e-4, 12), (1.0, 1e-4, 8)}
    weight, start = network.head.bias, network.head.bias.detach().clone()
    for group in made.param_groups:
        group["lr"] = 0.1
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        made.step()
    # Steps of 1 and 1.9 times the rate, and a little decay.
    assert (start - weight).tolist() == pytest.approx([0.29, 0.29], abs=1e-3)
