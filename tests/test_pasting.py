"""Masks come back to the photo as in the framework that trained the network."""

import math

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskwright import pixels
from maskwright.pasting import paste_grid, paste_padded

SIZE = (60, 80)
BOXES = {
    "inside": (10.3, 12.8, 50.2, 47.5),
    "whole pixels": (10.0, 12.0, 38.0, 40.0),
    "over the corner": (-6.4, -3.2, 20.0, 25.5),
    "over the other corner": (60.1, 40.2, 95.7, 75.3),
    "a sliver": (20.2, 5.0, 20.9, 50.0),
    "everything": (0.0, 0.0, 80.0, 60.0),
}


def mask_of(seed=0):
    return torch.rand(28, 28, generator=torch.Generator().manual_seed(seed))


def grid_by_hand(mask, box, size):
    """Return what each pixel's centre reads in the mask: bilinear between cells, zeros outside."""
    side = mask.shape[0]
    padded = np.zeros((side + 2, side + 2))
    padded[1:-1, 1:-1] = mask
    x1, y1, x2, y2 = box
    found = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = (i + 0.5 - y1) / (y2 - y1) * side - 0.5 + 1
            x = (j + 0.5 - x1) / (x2 - x1) * side - 0.5 + 1
            if 0 <= y < side + 1 and 0 <= x < side + 1:
                top, left = math.floor(y), math.floor(x)
                dy, dx = y - top, x - left
                four = padded[top : top + 2, left : left + 2]
                found[i, j] = (four * np.outer([1 - dy, dy], [1 - dx, dx])).sum()
    return found


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_the_grid_reads_the_mask_at_the_centre_of_each_pixel(box):
    expected = grid_by_hand(mask_of().double().numpy(), box, SIZE)
    found = pixels.decode(paste_grid(mask_of(), torch.tensor(box), SIZE), SIZE)
    sure = np.abs(expected - 0.5) > 1e-4
    assert sure.mean() > 0.99
    assert ((expected >= 0.5) == found)[sure].all()
    assert found.any()


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_the_padded_paste_is_torchvisions(box):
    expected = paste_masks_in_image(mask_of()[None, None], torch.tensor([box]), SIZE)[0, 0].numpy() >= 0.5
    found = pixels.decode(paste_padded(mask_of(), torch.tensor(box), SIZE), SIZE)
    assert (found == expected).all()
    assert found.any()


def test_a_box_outside_the_photo_gives_an_empty_mask():
    for paste in (paste_grid, paste_padded):
        for box in ((-50.0, -50.0, -20.0, -20.0), (200.0, 10.0, 240.0, 40.0)):
            assert pixels.area(paste(torch.ones(28, 28), torch.tensor(box), SIZE), SIZE) == 0


def test_a_box_of_no_area_is_empty_on_the_grid():
    assert pixels.area(paste_grid(torch.ones(28, 28), torch.tensor([10.0, 10, 10, 30]), SIZE), SIZE) == 0
