"""Parts of maskrcnn-nano that the contract of all networks (`test_models.py`) does not know."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskwright import plan
from maskwright.models import ARCHITECTURES, maskrcnn
from maskwright.models.maskrcnn import sureness

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


@torch.inference_mode()
def test_scores_count_how_sure_the_masks_are(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    found = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    monkeypatch.setattr(maskrcnn, "sureness", lambda masks: torch.ones(len(masks)))
    plain = network.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0]
    wanted = (plain["scores"] * sureness(plain["masks"])).sort(descending=True, stable=True)
    kept = wanted.indices[wanted.values >= 0.02]
    assert len(kept) > 0
    assert not torch.equal(kept, torch.arange(len(kept)))  # the order is another
    assert torch.equal(found["scores"], wanted.values[: len(kept)])
    for name in ("boxes", "labels", "masks", "windows"):
        assert torch.equal(found[name], plain[name][kept])


@torch.inference_mode()
def test_finer_masks_take_the_same_weights_and_find_the_same_boxes(network: torch.nn.Module) -> None:
    finer = ARCHITECTURES["maskrcnn-nano"](SIZES | {"mask_side": 56}, "none").eval()
    finer.load_state_dict(network.state_dict())
    usual, fine = (n.detect(photo(), [(HEIGHT, WIDTH)], 0.02)[0] for n in (network, finer))
    assert usual["masks"].shape[1:] == (28, 28)
    assert fine["masks"].shape[1:] == (56, 56)
    # The order may differ, since it depends on the masks.
    assert torch.equal(*(found["boxes"][found["boxes"][:, 0].argsort(stable=True)][:5, 0] for found in (usual, fine)))
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
