"""Averages of weights and of scores."""

import os
import signal

import pytest
import torch
from torch import nn

from maskwright.average import Average, smoothed


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    made[0].bias.requires_grad_(False)
    return made


def test_the_average_follows_the_weights_by_its_decay():
    made = network()
    average = Average(made, 0.5)
    wanted = made[0].weight.detach().clone()
    for step in (1, 2, 30):
        with torch.no_grad():
            made[0].weight += step
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * made[0].weight.detach()
        average.update(step)
    torch.testing.assert_close(average.tensors["0.weight"], wanted)
    assert "0.bias" not in average.tensors  # not trained
    assert set(average.tensors) == {"0.weight", "1.weight", "1.bias"}


def test_in_its_place_the_network_is_the_average_and_afterwards_itself():
    made = network()
    average = Average(made, 0.9)
    before = average.tensors["0.weight"].clone()
    with torch.no_grad():
        made[0].weight += 1
    with average.in_place():
        torch.testing.assert_close(made[0].weight.detach(), before)
    torch.testing.assert_close(made[0].weight.detach(), before + 1)
    average.restart()
    torch.testing.assert_close(average.tensors["0.weight"], before + 1)


class Pressing(dict):
    """Parameters by name; at one of the look-ups (from 1), Ctrl-C is pressed."""

    def __init__(self, parameters, when):
        super().__init__(parameters)
        self.left = when

    def __getitem__(self, name):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(name)


@pytest.mark.parametrize("when", [2, 5])  # of three to put in, and three to put back
def test_ctrl_c_while_the_average_is_put_in_place_or_back_leaves_the_weights(when):
    made = network()
    average = Average(made, 0.9)
    with torch.no_grad():
        for parameter in average.parameters.values():
            parameter.add_(1)
    weights = {name: value.clone() for name, value in made.state_dict().items()}
    average.parameters = Pressing(average.parameters, when)
    with pytest.raises(KeyboardInterrupt), average.in_place():
        pass
    assert average.parameters.left <= 0
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())


def test_a_decay_of_zero_is_no_average():
    made = network()
    average = Average(made, 0.0)
    average.update(1)
    assert average.tensors == {}
    with average.in_place():
        pass


def test_one_lucky_validation_is_not_the_best():
    best, at, former = -1.0, None, None
    for number, ap in enumerate((0.40, 0.70, 0.60, 0.62, 0.63)):
        former = smoothed(former, ap)
        if former > best:
            best, at = former, number
    assert at == 4
    assert former == pytest.approx(0.61375)
