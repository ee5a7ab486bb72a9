"""Which level a box is read at, and RoIAlign itself, against slow references written from their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskwright.crops import crops, pack
from maskwright.models.align import align_rois, box_levels, mask_targets
from maskwright.models.conventions import DETECTRON2, MMDETECTION, NATIVE, TORCHVISION

STRIDES = {"0": 4, "1": 8, "2": 16, "3": 32}
ALL = (TORCHVISION, MMDETECTION, DETECTRON2)


@given(side=st.floats(2, 2000), ratio=st.floats(0.1, 10))
def test_all_read_a_box_at_the_level_of_the_same_equation(side, ratio):
    level = math.floor(4 + math.log2(side / 224))
    if abs(4 + math.log2(side / 224) - round(4 + math.log2(side / 224))) < 1e-5:
        return  # where they differ on purpose
    box = torch.tensor([[0, 0, side * math.sqrt(ratio), side / math.sqrt(ratio)]])
    expected = min(max(level, 2), 5) - 2
    assert [box_levels(box, 4, how).item() for how in ALL] == [expected] * 3


def test_the_formulas_differ_just_below_a_power_of_two():
    # torchvision adds 1e-6 to the level, MMDetection to the ratio of sides (here 4), Detectron2 too little to matter.
    found = {}
    for less in (4e-7, 1.5e-7):
        side = 224 * (1 - less)
        found[less] = [box_levels(torch.tensor([[0, 0, side, side]]), 4, how).item() for how in ALL]
    assert found == {4e-7: [2, 1, 1], 1.5e-7: [2, 2, 1]}


def bilinear(plane, y, x):
    """Return the value of a map at a point, cells' centres at whole numbers; zero more than one cell outside."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, right] * dx
    lower = plane[bottom, left] * (1 - dx) + plane[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def aligned_by_hand(plane, box, scale, side, sampling, aligned):
    """Return RoIAlign of one map and box (He et al. 2017), `(side, side)`."""
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (v * scale - offset for v in box)
    w, h = x2 - x1, y2 - y1
    if not aligned:
        w, h = max(w, 1.0), max(h, 1.0)
    rows = sampling or math.ceil(h / side)
    columns = sampling or math.ceil(w / side)
    found = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            total = 0.0
            for a in range(rows):
                for b in range(columns):
                    y = y1 + h / side * (i + (a + 0.5) / rows)
                    x = x1 + w / side * (j + (b + 0.5) / columns)
                    total += bilinear(plane, y, x)
            found[i, j] = total / max(rows * columns, 1)
    return found


@pytest.mark.parametrize("how", ALL, ids=lambda how: how.origin)
def test_features_are_aligned_by_the_conventions(how):
    generator = torch.Generator().manual_seed(1)
    features = {n: torch.randn(1, 2, 256 // s, 320 // s, generator=generator) for n, s in STRIDES.items()}
    boxes = torch.tensor([[10.3, 20.7, 60.2, 55.1], [0, 0, 319, 255], [100, 30, 230.5, 170], [5, 5, 6, 40]])
    found = align_rois(features, STRIDES, [boxes], 7, how)
    for row, level in enumerate(box_levels(boxes, 4, how).tolist()):
        name, stride = list(STRIDES.items())[level]
        for channel in range(2):
            plane = features[name][0, channel].double().numpy()
            expected = aligned_by_hand(
                plane, boxes[row].double().tolist(), 1 / stride, 7, how.roi_sampling, how.roi_aligned
            )
            np.testing.assert_allclose(found[row, channel].numpy(), expected, atol=2e-5)


def test_boxes_of_several_photos_read_their_own():
    features = {
        n: torch.stack([torch.full((1, 64 // s, 64 // s), float(v)) for v in (1, 5)]) for n, s in STRIDES.items()
    }
    box = torch.tensor([[16.0, 16, 40, 40]])
    found = align_rois(features, STRIDES, [box, box.repeat(2, 1)], 7, NATIVE)
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([1, 5, 5])


def test_no_box_gives_an_empty_result():
    features = {n: torch.zeros(1, 3, 64 // s, 64 // s) for n, s in STRIDES.items()}
    assert align_rois(features, STRIDES, [torch.zeros(0, 4)], 7, NATIVE).shape == (0, 3, 7, 7)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ALL, ids=lambda how: how.origin)
def test_targets_are_the_mask_under_the_box(how, packed):
    mask = np.zeros((40, 50))
    mask[8:30, 12:33] = 1
    box = [10.2, 6.6, 35.1, 31.4]
    masks = torch.tensor(mask[None], dtype=torch.uint8)
    target = pack(masks) if packed else {"masks": masks}
    found = mask_targets(crops(target), mask.shape, torch.tensor([box]), torch.tensor([0]), 28, how)[0].numpy()
    expected = aligned_by_hand(mask, box, 1.0, 28, 0, how.roi_aligned)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mask_targets(crops(target), mask.shape, torch.tensor([box]), torch.tensor([0]), 28, how)[0]
    assert cast.dtype is torch.float32
    assert (cast.numpy() == found).all()
    if how.hard_targets:
        assert set(np.unique(found)) == {0, 1}
        far = np.abs(expected - 0.5) > 1e-5
        assert (found == (expected >= 0.5))[far].all()
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)
