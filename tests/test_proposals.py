"""Boxes to learn from: torchvision's choice from the same seed, and the photo's own in a part of a batch."""

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from maskwright.models.proposals import Sampler, box_loss
from maskwright.models.whole import Part, part


def labels_of(*counts):
    """Return labels of a photo, shuffled: so many objects, so much background, and as many that are neither."""
    generator = torch.Generator().manual_seed(sum(counts))
    labels = torch.repeat_interleave(torch.tensor([1.0, 0.0, -1.0]), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=generator)]


PHOTOS = [labels_of(50, 90, 20), labels_of(3, 200, 9), labels_of(40, 5, 0), labels_of(0, 30, 1)]


def chosen(sampler, photos):
    return [(near.tolist(), far.tolist()) for near, far in zip(*sampler(photos), strict=True)]


def test_the_choice_is_torchvisions_from_the_same_seed():
    found = []
    for kind in (BalancedPositiveNegativeSampler, Sampler):
        torch.manual_seed(3)
        found.append(chosen(kind(32, 0.25), PHOTOS))
    assert found[0] == found[1]
    assert [(sum(near), sum(far)) for near, far in found[1]] == [(8, 24), (3, 29), (8, 5), (0, 30)]


def test_in_a_part_of_a_batch_the_choice_is_the_photos():
    sampler = Sampler(32, 0.25)
    with part(Part([4, 5, 6, 7])):
        together = chosen(sampler, PHOTOS)
    torch.manual_seed(0)  # the process's own draws are no matter
    with part(Part([6, 7])):
        assert chosen(sampler, PHOTOS[2:]) == together[2:]
    with part(Part([8, 9])):
        assert chosen(sampler, PHOTOS[2:]) != together[2:]
    for labels, (near, far) in zip(PHOTOS, together, strict=True):
        assert set(labels[torch.tensor(near) > 0].tolist()) <= {1.0}
        assert set(labels[torch.tensor(far) > 0].tolist()) <= {0.0}


def test_the_box_loss_is_smooth_or_absolute():
    found, goal = torch.tensor([[0.05, 1.0]]), torch.zeros(1, 2)
    assert box_loss(found, goal, 0).item() == pytest.approx(1.05)
    beta = 1 / 9
    assert box_loss(found, goal, beta).item() == pytest.approx(0.5 * 0.05**2 / beta + 1 - 0.5 * beta)
