"""Parts of maskrcnn-nano that the contract of all networks (`test_models.py`) does not know."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from maskwright import plan
from maskwright.models import ARCHITECTURES, maskrcnn
from maskwright.models.maskrcnn import WINDOW, grow, outline_boxes, sureness

SIZES = {"categories": 2, "anchor_sizes": [[16], [24], [32], [64]], "detections_per_photo": 30}
HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES["maskrcnn-nano"](SIZES, "none").eval()


def photo() -> Tensor:
    return torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1)).float()


def test_a_mask_is_as_sure_as_its_own_cells() -> None:
    clear, hesitant, nothing = torch.zeros(3, 4, 4)
    clear[:2], clear[2:] = 0.9, 0.45
    hesitant[0], hesitant[1] = 0.8, 0.6
    nothing[1, 2] = 0.4
    assert sureness(torch.stack([clear, hesitant, nothing])).tolist() == pytest.approx([0.9, 0.7, 0.4])
    assert sureness(torch.zeros(0, 4, 4)).shape == (0,)


def test_the_box_of_a_mask_is_around_its_cells() -> None:
    masks = torch.full((3, 4, 4), 0.4)
    masks[0, 1, 2] = masks[0, 2, 0] = 0.5
    masks[1] = 1.0
    windows = torch.tensor([[10.0, 20.0, 14.0, 28.0]] * 3)
    boxes = outline_boxes(masks, windows)
    assert boxes[:2].tolist() == [[10.0, 22.0, 13.0, 26.0], [10.0, 20.0, 14.0, 28.0]]
    assert boxes[2, :2].tolist() == boxes[2, 2:].tolist()  # no cell, no size
    assert outline_boxes(torch.zeros(0, 4, 4), torch.zeros(0, 4)).shape == (0, 4)


def seen(masks: Tensor, windows: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return masks with nothing in cells that are all outside of the photo."""
    masks = masks.clone()
    side = masks.shape[-1]
    for mask, (x1, y1, x2, y2) in zip(masks, windows.tolist(), strict=True):
        for k in range(side):
            if x1 + (k + 1) / side * (x2 - x1) <= 0 or x1 + k / side * (x2 - x1) >= shape[1]:
                mask[:, k] = 0
            if y1 + (k + 1) / side * (y2 - y1) <= 0 or y1 + k / side * (y2 - y1) >= shape[0]:
                mask[k] = 0
    return masks


@torch.inference_mode()
def test_detections_have_the_boxes_of_their_masks(network: torch.nn.Module) -> None:
    shape = (HEIGHT, WIDTH - 30)
    bold = copy.deepcopy(network)  # some of its masks have cells that are object
    bold.mask_head.logit.weight.data *= 3.5
    found = bold.detect(photo(), [shape], 0.02)[0]
    limit = torch.tensor([shape[1], shape[0]] * 2)
    boxes = outline_boxes(seen(found["masks"], found["windows"], shape), found["windows"]).clamp(min=0).minimum(limit)
    shown = (boxes[:, 2:] > boxes[:, :2]).all(1)
    assert 0 < int(shown.sum()) < len(shown)
    assert torch.equal(found["boxes"][shown], boxes[shown])
    assert bool((found["boxes"][:, 2:] > found["boxes"][:, :2]).all())  # where no cell is object, the box head's


@torch.inference_mode()
def test_what_masks_show_outside_of_the_photo_is_not_in_their_boxes(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diagonals: where columns are outside, the lines in which they have cells are not the object's."""
    diagonal = torch.eye(network.spec.mask_side) * 18 - 9
    monkeypatch.setattr(network, "_mask_logits", lambda _, windows: diagonal.expand(sum(map(len, windows)), -1, -1))
    shape = (HEIGHT, WIDTH - 30)
    found = network.detect(photo(), [shape], 0.02)[0]
    limit = torch.tensor([shape[1], shape[0]] * 2)
    boxes = outline_boxes(seen(found["masks"], found["windows"], shape), found["windows"]).clamp(min=0).minimum(limit)
    every = outline_boxes(found["masks"], found["windows"]).clamp(min=0).minimum(limit)
    assert torch.equal(found["boxes"], boxes)
    assert 0 < int((boxes != every).any(1).sum()) < len(boxes)


@torch.inference_mode()
def test_masks_lie_in_windows_that_are_larger_than_the_boxes(network: torch.nn.Module) -> None:
    kept: list[Tensor] = []

    def numbered(results: list[maskrcnn.Detection]) -> list[maskrcnn.Detection]:
        kept.extend(result["boxes"] for result in results)
        return [result | {"number": torch.arange(len(result["boxes"]))} for result in results]

    found = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02, between=numbered)[0]
    assert len(found["windows"]) > 5
    boxes = kept[0][found["number"]]
    assert torch.equal(found["windows"], grow(boxes, WINDOW))
    assert torch.allclose(found["windows"][:, 2:] - found["windows"][:, :2], (boxes[:, 2:] - boxes[:, :2]) * WINDOW)
    assert WINDOW > 1


@torch.inference_mode()
def test_scores_count_how_sure_the_masks_are(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    found = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    monkeypatch.setattr(maskrcnn, "sureness", lambda masks: torch.ones(len(masks)))
    plain = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    # Which of them are doubles depends on the scores, so not all are found in both.
    same = [(i, j) for i, w in enumerate(found["windows"]) for j, v in enumerate(plain["windows"]) if torch.equal(w, v)]
    assert len(same) > 5
    here, there = (torch.tensor(k) for k in zip(*same, strict=True))
    assert not torch.equal(there, there.sort().values)  # the order is another
    for name in ("boxes", "labels", "masks"):
        assert torch.equal(found[name][here], plain[name][there])
    assert torch.equal(found["scores"][here], plain["scores"][there] * sureness(plain["masks"][there]))


@torch.inference_mode()
def test_two_detections_with_one_mask_are_one(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    every = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    assert len(every["boxes"]) > 2
    monkeypatch.setattr(
        maskrcnn, "outline_boxes", lambda masks, windows: windows.new_tensor([[4, 8, 40, 48]] * len(masks))
    )
    found = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    assert sorted(found["labels"].tolist()) == sorted(set(every["labels"].tolist()))
    assert found["scores"][0] == every["scores"][0]


@torch.inference_mode()
def test_finer_masks_take_the_same_weights_and_lie_in_the_same_windows(network: torch.nn.Module) -> None:
    finer = ARCHITECTURES["maskrcnn-nano"](SIZES | {"mask_side": 56}, "none").eval()
    finer.load_state_dict(network.state_dict())
    usual, fine = (n.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0] for n in (network, finer))
    assert usual["masks"].shape[1:] == (28, 28)
    assert fine["masks"].shape[1:] == (56, 56)
    # The order may differ, since it depends on the masks.
    assert torch.equal(*(found["windows"][:, 0].sort().values[:5] for found in (usual, fine)))
    nothing = finer.detect(photo(), [(HEIGHT, WIDTH)], 0.9999)[0]["masks"]
    assert nothing.shape == (0, 56, 56)


def test_finer_masks_are_learned() -> None:
    torch.manual_seed(0)
    finer = ARCHITECTURES["maskrcnn-nano"](SIZES | {"mask_side": 56}, "none").train()
    masks = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    masks[0, 8:56, 16:80] = 1
    target = {"boxes": torch.tensor([[16.0, 8.0, 80.0, 56.0]]), "labels": torch.tensor([1]), "masks": masks}
    loss = finer.losses(photo(), [target])["mask"]
    loss.backward()
    assert 0 < float(loss.detach()) < 5
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in finer.mask_head.parameters())


def test_the_plan_knows_the_windows_of_masks() -> None:
    """The plan imports no torch, so it has the number of its own."""
    assert plan.MASK_WINDOW == maskrcnn.WINDOW
    assert plan.USUAL_MASK_SIDE == maskrcnn.MaskRCNNSpec(categories=1).mask_side == 2 * maskrcnn.MASK_ROI


def test_a_deeper_finest_map_is_learned_and_is_of_more_layers() -> None:
    torch.manual_seed(0)
    deep = ARCHITECTURES["maskrcnn-nano"](SIZES | {"fine_channels": 24, "fine_layers": 3}, "none").train()
    more = [p for name, p in deep.named_parameters() if name.startswith("fine_more.")]
    assert [tuple(p.shape) for p in more] == [(24, 24, 3, 3), (24,)] * 2
    masks = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    masks[0, 8:56, 16:80] = 1
    target = {"boxes": torch.tensor([[16.0, 8.0, 80.0, 56.0]]), "labels": torch.tensor([1]), "masks": masks}
    deep.losses(photo(), [target])["mask"].backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in more)
