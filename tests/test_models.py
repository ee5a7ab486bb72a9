"""The contract that every network in `ARCHITECTURES` keeps; a new one is tested by adding it to the dict."""

import math

import pytest
import torch
from safetensors.torch import load, save
from torchvision.ops import box_iou

from maskwright.models import ARCHITECTURES, LATER
from maskwright.models.conventions import Conventions
from maskwright.models.whole import Part, part
from maskwright.train import LOSSES

SIZES = {"categories": 2, "anchor_sizes": [[16], [24], [32], [64]], "detections_per_photo": 30}
"""As `run.json` holds them: lists, not tuples."""

SMALL_STOCK = {
    "categories": 2,
    "detections_per_photo": 30,
    "rois_per_photo": 24,
    "proposals_per_photo": 50,
    "channels": 32,
    "head_channels": 32,
}
SIZES_OF = {
    "maskrcnn-nano": SIZES,
    "maskrcnn-r50-fpn": SMALL_STOCK | {"frozen_stages": 2},
    "maskrcnn-r50-fpn-v2": SMALL_STOCK | {"backbone": "resnet18"},
}
STARTS = {"maskrcnn-nano": "imagenet"}
"""What each starts from; none where the weights would have to be downloaded."""

NOT_OF_STOCK = {"semantic"}
"""Losses of parts that stock networks have not: zero."""

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def built(name):
    torch.manual_seed(0)
    return ARCHITECTURES[name](SIZES_OF[name], STARTS.get(name, "none"))


@pytest.fixture
def network(built):
    built.zero_grad(set_to_none=True)
    return built.train()


@pytest.fixture
def ready(built):
    return built.eval()


def photos(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)


def target(boxes):
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        masks[i, y1:y2, x1:x2] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([i % 2 + 1 for i in range(len(boxes))], dtype=torch.int64),
        "masks": masks,
    }


NONE = ()
ONE = ((20, 10, 60, 50),)
FORTY = tuple((x, y, x + 9, y + 10) for y in range(1, 50, 12) for x in range(1, 90, 11))[:40]
WHOLE = ((0, 0, WIDTH, HEIGHT),)
BATCHES = {
    "no object in any photo": (NONE, NONE),
    "one object": (ONE, ONE),
    "one photo with, one without": (ONE, NONE),
    "without first": (NONE, ONE),
    "forty objects": (FORTY, ONE),
    "an object that fills the photo": (WHOLE, ONE),
}


def test_what_a_checkpoint_fills_reads_nothing_and_trains_what_a_file_would(name, built, monkeypatch):
    def read(*_args, **_more):
        raise AssertionError("a file was read")

    monkeypatch.setattr("maskwright.models.maskrcnn.load_imagenet", read)
    monkeypatch.setattr("maskwright.models.start.read_checkpoint", read)
    network = ARCHITECTURES[name](SIZES_OF[name], LATER)
    trained = {key: value.requires_grad for key, value in network.named_parameters()}
    assert trained == {key: value.requires_grad for key, value in built.named_parameters()}
    assert name != "maskrcnn-nano" or not all(trained.values())  # its early stages are not trained
    network.load_state_dict(built.state_dict())


@pytest.mark.parametrize("objects", BATCHES.values(), ids=BATCHES)
def test_losses_are_finite_and_teach_every_parameter(network, objects):
    torch.manual_seed(0)
    losses = network.losses(photos(), [target(boxes) for boxes in objects])
    assert set(losses) == {*LOSSES, "box_accuracy", "category_accuracy", "positives"}
    assert all(value.ndim == 0 and math.isfinite(value.item()) for value in losses.values())
    assert 0 <= losses["box_accuracy"].item() <= 1
    assert not losses["box_accuracy"].requires_grad
    sum(losses[k] for k in LOSSES).backward()
    trained = {k: p.grad for k, p in network.named_parameters() if p.requires_grad}
    assert len(trained) > 10
    assert [k for k, grad in trained.items() if grad is None] == []  # several processes would wait for it for ever
    assert [k for k, grad in trained.items() if not torch.isfinite(grad).all()] == []


def test_photos_with_objects_teach_boxes_and_masks_and_photos_without_do_not(network, name):
    torch.manual_seed(0)
    with_ = network.losses(photos(), [target(ONE), target(ONE)])
    without = network.losses(photos(), [target(NONE), target(NONE)])
    of_objects = ("rpn_box", "box", "mask")
    parts = set(LOSSES) - (set() if name == "maskrcnn-nano" else NOT_OF_STOCK)
    assert min(with_[k].item() for k in parts) > 0
    assert [with_[k].item() for k in sorted(set(LOSSES) - parts)] == [0] * (len(LOSSES) - len(parts))
    assert [without[k].item() for k in of_objects] == [0, 0, 0]
    assert without["objectness"].item() > 0


def test_the_same_seed_gives_the_same_losses_and_gradients(network):
    def run():
        torch.manual_seed(5)
        network.zero_grad(set_to_none=True)
        losses = network.losses(photos(), [target(ONE), target(FORTY)])
        sum(losses[k] for k in LOSSES).backward()
        return [v.detach() for v in losses.values()] + [p.grad for p in network.parameters() if p.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_whole_numbers_and_floats_are_one_photo(network):
    torch.manual_seed(1)
    whole = network.losses(photos(), [target(ONE), target(ONE)])
    torch.manual_seed(1)
    floats = network.losses(photos().float(), [target(ONE), target(ONE)])
    assert {k: v.item() for k, v in whole.items()} == {k: v.item() for k, v in floats.items()}


@torch.inference_mode()
def test_detections_have_the_promised_form(ready, name):
    shapes = [(HEIGHT, WIDTH), (40, 70)]
    found = ready.detect(photos(), shapes, 0.02)
    assert len(found) == 2
    for result, (height, width) in zip(found, shapes, strict=True):
        count = len(result["scores"])
        assert (
            0 < count <= SIZES_OF[name]["detections_per_photo"]
        )  # an untrained network doubts everything and rejects nothing
        assert set(result) == {"boxes", "labels", "scores", "masks", "windows"}
        assert result["boxes"].shape == result["windows"].shape == (count, 4)
        assert result["masks"].shape == (count, result["masks"].shape[1], result["masks"].shape[1])
        assert result["labels"].dtype == torch.int64
        assert set(result["labels"].tolist()) <= {1, 2}
        assert ((result["masks"] >= 0) & (result["masks"] <= 1)).all()
        assert result["scores"].tolist() == sorted(result["scores"].tolist(), reverse=True)
        assert 0.02 <= result["scores"].min().item() <= result["scores"].max().item() <= 1
        x1, y1, x2, y2 = result["boxes"].unbind(1)
        assert ((x2 > x1) & (y2 > y1)).all()
        assert x1.min().item() >= 0
        assert y1.min().item() >= 0
        assert x2.max().item() <= width
        assert y2.max().item() <= height


@torch.inference_mode()
def test_a_least_score_that_nothing_reaches_gives_empty_results_of_the_same_form(ready):
    for result in ready.detect(photos(), [(HEIGHT, WIDTH)] * 2, 0.9999):
        assert result["boxes"].shape == result["windows"].shape == (0, 4)
        assert result["masks"].ndim == 3
        assert len(result["masks"]) == len(result["scores"]) == len(result["labels"]) == 0


@torch.inference_mode()
def test_the_least_score_only_cuts_the_list(ready):
    every = ready.detect(photos(1), [(HEIGHT, WIDTH)], 0.02)[0]["scores"]
    middle = every[len(every) // 2].item()
    some = ready.detect(photos(1), [(HEIGHT, WIDTH)], middle)[0]["scores"]
    assert some.tolist() == [s for s in every.tolist() if s >= middle]


@torch.inference_mode()
def test_a_photo_is_judged_alone_whatever_is_beside_it(ready):
    together = ready.detect(photos(), [(HEIGHT, WIDTH)] * 2, 0.02)
    for i in range(2):
        alone = ready.detect(photos()[i : i + 1], [(HEIGHT, WIDTH)], 0.02)[0]
        torch.testing.assert_close(alone["scores"], together[i]["scores"], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_detection_is_deterministic(ready):
    first, second = (ready.detect(photos(), [(HEIGHT, WIDTH)] * 2, 0.02) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)


@torch.inference_mode()
def test_a_network_from_stored_weights_gives_identical_detections(ready, name):
    stored = save({k: v.contiguous() for k, v in ready.state_dict().items()})
    other = ARCHITECTURES[name](SIZES_OF[name], "none").eval()
    with torch.no_grad():
        for key, value in load(stored).items():
            other.state_dict()[key].copy_(value)
    before = ready.detect(photos(), [(HEIGHT, WIDTH)] * 2, 0.02)
    after = other.detect(photos(), [(HEIGHT, WIDTH)] * 2, 0.02)
    assert len(before[0]["scores"]) > 0
    assert all(torch.equal(a[k], b[k]) for a, b in zip(before, after, strict=True) for k in a)


def test_the_same_seed_builds_the_same_network(name):
    def build():
        torch.manual_seed(9)
        return ARCHITECTURES[name](SIZES_OF[name], "none").state_dict()

    first, second = build(), build()
    assert list(first) == list(second)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_the_number_of_categories_is_that_of_the_sizes(name):
    sizes = SIZES_OF[name]
    one = sum(p.numel() for p in ARCHITECTURES[name](sizes | {"categories": 1}, "none").parameters())
    five = sum(p.numel() for p in ARCHITECTURES[name](sizes | {"categories": 5}, "none").parameters())
    assert five > one


def drawing():
    """Return two photos of a bright shape each on a dark ground, and their targets."""
    boxes = [((16, 12, 64, 44),), ((40, 20, 80, 60),)]
    images = torch.full((2, 3, HEIGHT, WIDTH), 40, dtype=torch.uint8)
    for i, ((x1, y1, x2, y2),) in enumerate(boxes):
        images[i, i, y1:y2, x1:x2] = 230
    return images, [target(b) for b in boxes]


def learner(name):
    """Return sizes of a network that learns from random weights: norms follow the batch."""
    if name == "maskrcnn-nano":
        return SIZES
    how = Conventions(norm="live").json()
    anchors = [[8], [16], [32], [64], [128]]
    return SMALL_STOCK | {"backbone": "resnet10t", "frozen_stages": 0, "conventions": how, "anchor_sizes": anchors}


def test_a_network_learns_two_photos_by_heart(name):
    torch.manual_seed(0)
    network = ARCHITECTURES[name](learner(name), STARTS.get(name, "none")).train()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-3)
    images, targets = drawing()
    totals = []
    for _ in range(25 if name in STARTS else 60):  # random weights take longer
        losses = network.losses(images, targets)
        total = sum(losses[k] for k in LOSSES)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.35 * sum(totals[:5])
    with torch.inference_mode():
        found = network.eval().detect(images, [(HEIGHT, WIDTH)] * 2, 0.3)
    best = [r["boxes"][0] for r in found]
    assert all(0 <= score <= 1 for r in found for score in r["scores"].tolist())
    overlaps = [box_iou(b[None], t["boxes"]).item() for b, t in zip(best, targets, strict=True)]
    assert min(overlaps) > 0.5


def test_bf16_changes_the_losses_by_its_rounding_alone_and_keeps_places_in_32_bits(network, monkeypatch):
    images, targets = photos(), [target(ONE), target(FORTY)]
    kinds = set()
    real = torch.ops.torchvision.nms

    def noted(boxes, *rest):
        kinds.add(boxes.dtype)
        return real(boxes, *rest)

    monkeypatch.setattr(torch.ops.torchvision, "nms", noted)

    def losses(bf16):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return network.losses(images, targets)

    plain, found, again = losses(False), losses(True), losses(True)
    assert kinds == {torch.float32}
    for name in LOSSES:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], again[name])
        assert float(found[name].detach()) == pytest.approx(float(plain[name].detach()), rel=0.1, abs=0.01)
    torch.stack([found[name] for name in LOSSES]).sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


WITH_STILL_NORMS = SMALL_STOCK | {"conventions": Conventions(norm="still", head_norm="still").json()}
IN_PARTS = {
    "maskrcnn-nano": SIZES,
    "maskrcnn-r50-fpn": SMALL_STOCK,
    "maskrcnn-r50-fpn-v2": WITH_STILL_NORMS | {"backbone": "resnet10t"},
}
"""Sizes with which parts of a batch are one batch: no norm takes the statistics of what it sees."""


def test_parts_of_a_batch_have_its_losses_and_add_up_to_its_gradient(name):
    torch.manual_seed(0)
    network = ARCHITECTURES[name](IN_PARTS[name], STARTS.get(name, "none")).train()
    images, targets, seeds = photos(3), [target(ONE), target(FORTY), target(NONE)], (4, 5, 6)
    pieces = ([0, 1], [2])  # unequal, and no mask in one of them

    def taken(places, known=None):
        network.zero_grad(set_to_none=True)
        with part(Part([seeds[i] for i in places], known=known)) as one:
            losses = network.losses(images[places], [targets[i] for i in places])
        sum(losses[k] for k in LOSSES).backward()
        grads = {k: p.grad for k, p in network.named_parameters() if p.requires_grad}
        return {k: v.item() for k, v in losses.items()}, grads, one.sums

    whole, gradient, sums = taken([0, 1, 2])
    own = [taken(places) for places in pieces]
    assert any(losses["mask"] != pytest.approx(whole["mask"], rel=1e-3) for losses, _, _ in own)
    known = torch.stack([found for _, _, found in own]).sum(0)
    torch.testing.assert_close(known, sums, rtol=1e-4, atol=1e-4)
    parts = [taken(places, known) for places in pieces]
    for losses, _, _ in parts:
        assert losses == pytest.approx(whole, rel=1e-4, abs=1e-6)
    for key, expected in gradient.items():
        added = sum(grads[key] for _, grads, _ in parts)
        assert (added - expected).norm().item() <= 1e-3 * expected.norm().item() + 1e-7, key


def test_a_network_says_whether_it_states_its_sums(network):
    one = Part((1, 2))
    with torch.no_grad(), part(one):
        network.losses(photos(), [target(ONE), target(ONE)])
    assert getattr(network, "states_sums", False) == (one.sums is not None)
