"""Anchors and box deltas, against the formulas written out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.image_list import ImageList

from maskwright.models.boxes import HEAD_DELTAS, RPN_DELTAS, Anchors, Deltas, Proposals
from maskwright.models.conventions import DETECTRON2, MMDETECTION, TORCHVISION

SIZES = ((32,), (64,), (128,), (256,), (512,))
RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)


def anchors_by_hand(height, width, rounded):
    """Return all anchors of a photo: by level, row, column, ratio (height / width)."""
    found = []
    for (size,), stride in zip(SIZES, STRIDES, strict=True):
        for row in range(height // stride):
            for column in range(width // stride):
                for ratio in RATIOS:
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    corners = [-w / 2, -h / 2, w / 2, h / 2]
                    corners = [float(round(c)) for c in corners] if rounded else corners
                    x, y = column * stride, row * stride
                    found.append([corners[0] + x, corners[1] + y, corners[2] + x, corners[3] + y])
    return torch.tensor(found)


@pytest.mark.parametrize("rounded", [True, False])
def test_anchors_lie_on_the_corners_of_cells_by_ratio(rounded):
    height, width = 64, 128
    images = torch.zeros(1, 3, height, width)
    maps = [torch.zeros(1, 1, height // s, width // s) for s in STRIDES]
    found = Anchors(SIZES, RATIOS, rounded)(ImageList(images, [(height, width)]), maps)[0]
    torch.testing.assert_close(found, anchors_by_hand(height, width, rounded), atol=1e-4, rtol=0)


def test_rounding_moves_an_anchor_of_the_finest_level_by_up_to_half_a_pixel():
    exact, rounded = (Anchors(SIZES, RATIOS, r).cell_anchors[0] for r in (False, True))
    assert exact[0].tolist() == pytest.approx([-22.6274, -11.3137, 22.6274, 11.3137], abs=1e-4)
    assert rounded[0].tolist() == [-23, -11, 23, 11]


def decoded_by_hand(deltas, box, weights, floored):
    x1, y1, x2, y2 = box
    w, h, x, y = x2 - x1, y2 - y1, (x1 + x2) / 2, (y1 + y2) / 2
    dx, dy, dw, dh = (d / v for d, v in zip(deltas, weights, strict=True))
    limit = math.log(1000 / 16)
    dw, dh = min(dw, limit), min(dh, limit)
    if floored:
        dw, dh = max(dw, -limit), max(dh, -limit)
    x, y, w, h = x + dx * w, y + dy * h, w * math.exp(dw), h * math.exp(dh)
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


@given(
    deltas=st.lists(st.floats(-30, 30), min_size=4, max_size=4),
    corner=st.tuples(st.floats(0, 500), st.floats(0, 500)),
    size=st.tuples(st.floats(1, 300), st.floats(1, 300)),
    floored=st.booleans(),
    weights=st.sampled_from([RPN_DELTAS, HEAD_DELTAS]),
)
def test_deltas_are_applied_by_the_formula_of_r_cnn(deltas, corner, size, floored, weights):
    box = [*corner, corner[0] + size[0], corner[1] + size[1]]
    found = Deltas(weights, floored).decode(torch.tensor([deltas]), [torch.tensor([box])])[0, 0]
    expected = torch.tensor(decoded_by_hand(deltas, box, weights, floored))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=1e-4)


def test_only_mmdetection_limits_shrinking():
    assert (MMDETECTION.deltas_floored, DETECTRON2.deltas_floored, TORCHVISION.deltas_floored) == (True, False, False)
    box, tiny = [torch.tensor([[0.0, 0, 1000, 1000]])], torch.tensor([[0.0, 0, -50, -50]])
    widths = [(b[2] - b[0]).item() for f in (True, False) for b in Deltas(RPN_DELTAS, f).decode(tiny, box)[0]]
    assert widths == pytest.approx([16, 0], abs=0.01)


def test_encoding_and_decoding_are_inverse():
    boxes, goals = torch.tensor([[10.0, 20, 50, 80]]), torch.tensor([[12.0, 15, 70, 60]])
    for floored in (True, False):
        coder = Deltas(HEAD_DELTAS, floored)
        torch.testing.assert_close(coder.decode(coder.encode([goals], [boxes])[0], [boxes])[:, 0], goals)


def test_a_proposal_of_no_area_is_dropped_and_a_thin_one_only_by_torchvision():
    kept = {}
    for how in (TORCHVISION, MMDETECTION, DETECTRON2):
        rpn = Proposals(4, Anchors(SIZES, RATIOS, False), 1, 10, how).eval()
        boxes = torch.tensor([[[0.0, 0, 20, 20], [30, 30, 30, 50], [40, 40, 40.0005, 60]]])
        found, _ = rpn.filter_proposals(boxes, torch.tensor([[3.0], [2.0], [1.0]]), [(64, 64)], [3])
        kept[how.origin] = len(found[0])
    assert kept == {"torchvision": 1, "mmdetection": 2, "detectron2": 2}


@pytest.mark.parametrize("how", [TORCHVISION, MMDETECTION])
def test_losses_of_proposals_are_sums_by_the_conventions_formula(how):
    rpn = Proposals(4, Anchors(SIZES, RATIOS, False), 1, 10, how)
    deltas = torch.tensor([[0.05, 0.0, 2.0, 0.0], [9.0, 9, 9, 9], [0.0, 0.5, 0, 0]])
    sure, box = rpn.compute_loss(
        torch.zeros(3, 1),
        deltas,
        [torch.tensor([1.0, 0.0]), torch.tensor([1.0])],
        [torch.zeros(2, 4), torch.zeros(1, 4)],
    )
    assert rpn.counted == 3
    assert sure.item() == pytest.approx(3 * math.log(2))
    sizes = (0.05, 2.0, 0.5)
    square = sum(0.5 * size**2 * 9 if size < 1 / 9 else size - 0.5 / 9 for size in sizes)
    assert box.item() == pytest.approx(sum(sizes) if how.box_beta == 0 else square)
