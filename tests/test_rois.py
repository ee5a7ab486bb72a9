"""The fast route of RoIAlign gives what torchvision's operator gives, forward and backward."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from maskwright.models import rois as rois_module
from maskwright.models.rois import _by_torchvision, assign_levels, pool_level, pool_rois

SIDE = 128  # of the imagined photos


def pyramid(rng, strides, channels=5, photos=2, height=SIDE, width=SIDE):
    maps = {}
    for stride in strides:
        values = rng.standard_normal((photos, channels, height // stride, width // stride)).astype(np.float32)
        maps[str(stride)] = torch.from_numpy(values).requires_grad_()
    return maps


def boxes_of(rng, count, kind):
    """Make boxes `(count, 4)` with corners in any places, so that no sample point lies just on a limit."""
    if kind == "inside":
        a, b = rng.uniform(0, SIDE, (count, 2)), rng.uniform(0, SIDE, (count, 2))
    elif kind == "outside":
        a, b = rng.uniform(-2 * SIDE, 3 * SIDE, (count, 2)), rng.uniform(-2 * SIDE, 3 * SIDE, (count, 2))
    else:
        a = rng.uniform(0, SIDE, (count, 2))
        b = a + rng.uniform(0, 0.5, (count, 2))
    return torch.from_numpy(np.hstack([np.minimum(a, b), np.maximum(a, b)]).astype(np.float32))


def reference(maps, strides, rois, side, cells, sampling=2):
    boxes = torch.cat(rois)
    photo = torch.cat([torch.full((len(r),), i) for i, r in enumerate(rois)])
    levels = assign_levels(boxes, strides, cells)
    return _by_torchvision([maps[str(s)] for s in strides], strides, boxes, photo, levels, side, sampling)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    counts=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    kind=st.sampled_from(["inside", "outside", "tiny"]),
    strides=st.sampled_from([(4,), (8, 16), (8, 16, 32)]),
    side=st.sampled_from([1, 7, 14]),
    cells=st.sampled_from([1.0, 7.0, 14.0]),
    sampling=st.sampled_from([1, 2, 3]),
)
def test_pooling_equals_torchvision_forward_and_backward(seed, counts, kind, strides, side, cells, sampling):
    rng = np.random.default_rng(seed)
    maps = pyramid(rng, strides)
    rois = [boxes_of(rng, count, kind) for count in counts]
    found = pool_rois(maps, strides, rois, side, cells=cells, sampling=sampling)
    expected = reference(maps, strides, rois, side, cells, sampling)
    assert found.shape == (sum(counts), 5, side, side)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if sum(counts):
        weights = torch.from_numpy(rng.standard_normal(tuple(found.shape)).astype(np.float32))
        ours = torch.autograd.grad((found * weights).sum(), list(maps.values()), allow_unused=True)
        theirs = torch.autograd.grad((expected * weights).sum(), list(maps.values()), allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-4, atol=1e-4)


def test_a_large_map_is_pooled_some_channels_at_a_time(monkeypatch):
    rng = np.random.default_rng(3)
    maps = pyramid(rng, (8,))
    rois = [boxes_of(rng, 6, "inside"), boxes_of(rng, 3, "inside")]
    weights = torch.from_numpy(rng.standard_normal((9, 5, 7, 7)).astype(np.float32))
    found = []
    for most in (rois_module.MOST_CELLS, 0):
        monkeypatch.setattr(rois_module, "MOST_CELLS", most)
        monkeypatch.setattr(rois_module, "LEAST_CHANNELS", 2)
        pooled = pool_rois(maps, (8,), rois, 7, cells=7.0)
        found.append((pooled, torch.autograd.grad((pooled * weights).sum(), maps["8"])[0]))
    assert found[0][0].abs().max() > 0.5
    for whole, parts in zip(*found, strict=True):
        assert torch.equal(whole, parts)


def test_pooling_of_a_map_that_is_not_square_and_of_one_cell():
    rng = np.random.default_rng(0)
    maps = {"32": torch.from_numpy(rng.standard_normal((1, 3, 1, 4)).astype(np.float32))}
    rois = [torch.tensor([[3.0, 1.0, 90.0, 31.0], [0.3, 0.2, 127.1, 31.6]])]
    torch.testing.assert_close(
        pool_rois(maps, (32,), rois, 7, cells=7.0), reference(maps, (32,), rois, 7, 7.0), rtol=1e-4, atol=1e-4
    )


def test_features_that_lie_channels_last_give_the_same():
    rng = np.random.default_rng(1)
    maps = pyramid(rng, (8, 16))
    rois = [boxes_of(rng, 6, "inside"), boxes_of(rng, 3, "inside")]
    last = {k: v.detach().contiguous(memory_format=torch.channels_last) for k, v in maps.items()}
    torch.testing.assert_close(
        pool_rois(last, (8, 16), rois, 7, cells=7.0), pool_rois(maps, (8, 16), rois, 7, cells=7.0)
    )


def test_a_box_wholly_outside_is_zero():
    maps = {"8": torch.ones(1, 2, 16, 16)}
    far = [torch.tensor([[-500.0, -500.0, -300.0, -300.0], [900.0, 10.0, 950.0, 60.0]])]
    assert pool_rois(maps, (8,), far, 7, cells=7.0).abs().max().item() == 0


def test_a_constant_map_gives_the_constant():
    maps = {"8": torch.full((1, 2, 16, 16), 3.5)}
    inside = [torch.tensor([[10.0, 12.0, 70.0, 100.0]])]
    torch.testing.assert_close(pool_rois(maps, (8,), inside, 7, cells=7.0), torch.full((1, 2, 7, 7), 3.5))


def test_a_ramp_is_read_at_the_centres_of_the_cells():
    ramp = (torch.arange(16.0) * 8 + 4).repeat(16, 1)[None, None]  # each cell holds the x of its own centre
    found = pool_rois({"8": ramp}, (8,), [torch.tensor([[16.0, 16.0, 72.0, 72.0]])], 7, cells=7.0)
    torch.testing.assert_close(found[0, 0, 0], torch.arange(7.0) * 8 + 20)


def test_no_box_gives_no_row_and_keeps_the_graph():
    maps = pyramid(np.random.default_rng(0), (8,))
    found = pool_rois(maps, (8,), [torch.zeros(0, 4), torch.zeros(0, 4)], 7, cells=7.0)
    assert found.shape == (0, 5, 7, 7)
    found.sum().backward()
    assert maps["8"].grad.abs().max().item() == 0


@pytest.mark.parametrize(
    ("side_px", "level"), [(1, 0), (55, 0), (57, 0), (111, 0), (113, 1), (223, 1), (225, 2), (5_000, 2)]
)
def test_a_box_is_read_at_the_coarsest_level_that_still_gives_it_enough_cells(side_px, level):
    box = torch.tensor([[10.0, 10.0, 10.0 + side_px, 10.0 + side_px]])
    assert assign_levels(box, (8, 16, 32), 7.0).tolist() == [level]


def test_a_box_of_no_area_is_read_at_the_finest_level():
    degenerate = torch.tensor([[5.0, 5.0, 5.0, 90.0], [5.0, 5.0, 2.0, 90.0]])
    assert assign_levels(degenerate, (8, 16, 32), 7.0).tolist() == [0, 0]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["inside", "outside", "tiny"]),
    stride=st.sampled_from([4, 16]),
    side=st.sampled_from([1, 7, 14]),
    sampling=st.sampled_from([0, 1, 2, 5]),
    aligned=st.booleans(),
)
def test_a_level_is_pooled_as_by_torchvision_under_every_convention(seed, kind, stride, side, sampling, aligned):
    rng = np.random.default_rng(seed)
    features = pyramid(rng, [stride])[str(stride)]
    boxes, photo = boxes_of(rng, 9, kind), torch.from_numpy(rng.integers(0, 2, 9))
    rows = torch.cat([photo[:, None].float(), boxes], 1)
    expected = roi_align(features, rows, side, 1 / stride, sampling, aligned)
    found = pool_level(features, boxes, photo, side, 1 / stride, sampling, aligned).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weights = torch.from_numpy(rng.standard_normal(tuple(found.shape)).astype(np.float32))
    ours, theirs = (torch.autograd.grad((r * weights).sum(), features)[0] for r in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_box_without_width_has_no_sample_points_where_they_follow_its_size():
    features, boxes = torch.ones(1, 3, 8, 8), torch.tensor([[9.0, 9.0, 9.0, 40.0], [9.0, 9.0, 30.0, 40.0]])
    expected = roi_align(features, torch.cat([torch.zeros(2, 1), boxes], 1), 2, 0.25, 0, True)
    found = pool_level(features, boxes, torch.zeros(2, dtype=torch.int64), 2, 0.25, 0)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), expected)
    assert found[0].eq(0).all()
