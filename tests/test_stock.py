"""The stock network is torchvision's, to the last bit where it computes as torchvision does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskwright import pixels
from maskwright.detections import detect_photo
from maskwright.framing import frame_for
from maskwright.models.conventions import CAFFE, DETECTRON2, MMDETECTION, NATIVE, TORCHVISION
from maskwright.models.stock import StillNorm, StockMaskRCNN, StockSpec
from stock_world import as_torchvision, photo, reference

NAMES = ("a", "b", "c")


def ours(heads="v1", how=None, **more):
    how = how or replace(TORCHVISION, norm="still", head_norm="still")
    return StockMaskRCNN(StockSpec(3, heads, conventions=how, **more)).eval()


@pytest.fixture(scope="module", params=["v1", "v2"])
def pair(request):
    theirs = reference(request.param)
    network = ours(request.param)
    network.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, network


def test_names_and_shapes_of_all_tensors_are_torchvisions(pair):
    theirs, network = pair
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@torch.inference_mode()
def test_the_network_detects_the_same_as_torchvision(pair):
    theirs, network = pair
    tensor = torch.from_numpy(photo().transpose(2, 0, 1).copy()).float() / 255
    images, _ = theirs.transform([tensor])
    features = theirs.backbone(images.tensors)
    proposals, _ = theirs.rpn(images, features)
    expected = theirs.roi_heads(features, proposals, images.image_sizes)[0][0]
    found = network.detect(images.tensors, images.image_sizes, normalised=True)[0]
    assert len(found["scores"]) == len(expected["scores"]) > 20
    assert torch.equal(found["boxes"], expected["boxes"])
    assert torch.equal(found["labels"], expected["labels"])
    assert torch.equal(found["scores"], expected["scores"])
    assert torch.equal(found["masks"], expected["masks"][:, 0])
    assert torch.equal(found["windows"], found["boxes"])


@pytest.mark.parametrize("size", [(150, 220), (97, 64), (400, 300)])
def test_a_photo_is_framed_as_torchvision_does(pair, size):
    theirs, network = pair
    picture = photo(*size)
    tensor = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    images, _ = theirs.transform([tensor])
    framed = frame_for(network, picture, 280, 160)
    assert framed.normalised
    assert torch.equal(framed.image, images.tensors[0])
    assert framed.frame.inner == tuple(images.image_sizes[0])
    assert framed.frame.size == size


@pytest.mark.parametrize("size", [(150, 220), (260, 190)])
def test_detections_of_a_photo_are_torchvisions(pair, size):
    theirs, network = pair
    picture = photo(*size, seed=3)
    expected = as_torchvision(theirs, picture)
    found = detect_photo(network, picture, 280, NAMES, 0.0, 160)
    masks = (expected["masks"][:, 0] >= 0.5).numpy()
    keep = masks.any((1, 2))  # here a mask without a pixel is no object
    assert len(found) == keep.sum() > 20
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy()[keep], atol=1e-4, rtol=1e-6)
    np.testing.assert_allclose(found.scores, expected["scores"].numpy()[keep], atol=1e-5)
    assert [NAMES.index(c) + 1 for c in found.categories] == expected["labels"].numpy()[keep].tolist()
    differing = (found.masks != masks[keep]).sum() / masks[keep].sum()
    assert differing < 1e-4  # a cell's probability may lie at one half


def test_losses_are_torchvisions():
    theirs, network = reference("v1"), ours("v1")
    network.load_state_dict(theirs.state_dict())
    images = torch.from_numpy(np.stack([photo(64, 96, s).transpose(2, 0, 1) for s in (0, 1)])).float()
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 8:40, 10:60] = masks[1, 30:60, 50:90] = 1
    boxes = torch.tensor([[10.0, 8, 60, 40], [50, 30, 90, 60]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks} for _ in range(2)]
    theirs.train()
    for module in theirs.modules():  # ours stays still in training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    transform = theirs.transform
    try:
        transform.min_size, transform.max_size = (64,), 96
        torch.manual_seed(5)
        expected = theirs(list(images / 255), targets)
    finally:
        transform.min_size, transform.max_size = (160,), 280
        theirs.eval()
    torch.manual_seed(5)
    for _ in range(2):
        torch.empty(1).uniform_(0.0, 1.0)  # torchvision draws the side of each photo
    found = network.train().losses(images, targets)
    names = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classifier": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    for name, their_name in names.items():
        assert found[name].item() == pytest.approx(expected[their_name].item(), rel=1e-5), name
    assert found["mask"].item() > 0


def test_what_is_computed_again_on_the_way_back_changes_no_feature_and_no_gradient():
    network = ours().train()
    for name, module in network.backbone.body.named_modules():
        if name.endswith("bn3"):
            module.weight.data.fill_(0.2)  # random residual blocks would grow without limit
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(4))
    found, grads = [], []
    for exact in (False, True):
        network.zero_grad()
        levels = network.backbone(x, exact)
        assert list(levels) == ["0", "1", "2", "3", "pool"]
        sum((level * level.detach().cos()).sum() for level in levels.values()).backward()
        found.append(levels)
        grads.append({k: p.grad for k, p in network.backbone.named_parameters() if p.grad is not None})
    assert {k for k, p in network.backbone.named_parameters() if p.requires_grad} == set(grads[0]) == set(grads[1])
    for name, level in found[0].items():
        torch.testing.assert_close(level, found[1][name], rtol=1e-4, atol=1e-4)
    for name, grad in grads[0].items():
        scale = grads[1][name].abs().max()
        torch.testing.assert_close(grad / scale, grads[1][name] / scale, rtol=0, atol=1e-3)


def test_a_caffe_backbone_strides_in_its_first_convolution_and_takes_blue_first():
    caffe, plain = ours(how=replace(DETECTRON2, **CAFFE)), ours(how=DETECTRON2)
    block, other = caffe.backbone.body.layer3[0], plain.backbone.body.layer3[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert (other.conv1.stride, other.conv2.stride) == ((1, 1), (2, 2))
    image = torch.tensor([200.0, 100.0, 50.0])[None, :, None, None].expand(1, 3, 32, 32)
    seen = caffe.normalise(image)[0, :, 0, 0]
    torch.testing.assert_close(seen, torch.tensor([50 - 103.53, 100 - 116.28, 200 - 123.675]))
    seen = plain.normalise(image)[0, :, 0, 0]
    torch.testing.assert_close(seen, torch.tensor([(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, -53.53 / 57.375]))


@pytest.mark.parametrize(
    ("how", "exact"),
    [
        (TORCHVISION, True),
        (MMDETECTION, True),
        (DETECTRON2, True),
        (replace(MMDETECTION, resample="smooth"), False),  # what training here begins with
        (NATIVE, False),
    ],
)
@torch.inference_mode()
def test_what_was_trained_here_detects_the_fast_way_whatever_it_began_with(how, exact, monkeypatch):
    network, seen = ours(how=how), []
    plain = network.backbone.forward

    def forward(x, exact=False):
        seen.append(exact)
        return plain(x, exact)

    monkeypatch.setattr(network.backbone, "forward", forward)
    network.detect(torch.zeros(1, 3, 64, 64), [(64, 64)])
    assert seen == [exact]


@pytest.mark.parametrize("backbone", [None, "resnet10t"])
@torch.inference_mode()
def test_edges_are_the_backbones_finest_features_of_a_normalised_photo(backbone):
    network = ours(how=NATIVE, backbone=backbone)
    image = torch.from_numpy(photo(64, 96).transpose(2, 0, 1).copy())[None]
    found = network.edges(image)
    expected = network.backbone.body(network.normalise(image))
    for stride, name in ((4, "0"), (8, "1")):
        assert found[str(stride)].shape[-2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(found[str(stride)], expected[name], rtol=1e-3, atol=1e-3)


def test_outside_the_photo_the_backbone_sees_zeros():
    image = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    seen = ours(how=MMDETECTION).normalise(image, [(40, 50)])
    assert (seen[0, :, 40:] == 0).all()
    assert (seen[0, :, :, 50:] == 0).all()
    assert (seen[0, :, :40, :50] != 0).all()


def test_early_stages_are_not_trained():
    network = ours(how=NATIVE)
    still = {k.split(".")[2] for k, p in network.backbone.named_parameters(prefix="b") if not p.requires_grad}
    assert still == {"conv1", "layer1"}
    assert all(p.requires_grad for p in ours(how=NATIVE, frozen_stages=0).parameters())


def test_a_still_norm_keeps_its_statistics_in_training():
    norm = StillNorm(2).train()
    norm.running_mean.fill_(3.0)
    x = torch.randn(4, 2, 5, 5)
    torch.testing.assert_close(norm(x), (x - 3) / np.sqrt(1 + 1e-5))
    assert norm.running_mean.tolist() == [3, 3]
    assert norm.weight.requires_grad


@pytest.mark.parametrize(
    ("heads", "how", "backbone", "expected"),
    [
        ("v1", NATIVE, None, True),
        ("v2", NATIVE, None, False),  # the norms of its heads take the statistics of the boxes that they see
        ("v2", replace(NATIVE, head_norm="still"), None, True),
        ("v1", replace(NATIVE, norm="live"), None, False),
        ("v1", replace(NATIVE, norm="still"), "resnet10t", True),
        ("v1", replace(NATIVE, norm="live"), "resnet10t", False),
        ("v1", replace(NATIVE, norm="live"), "convnext_atto", True),  # it has none that do
        ("v1", MMDETECTION, None, True),
        ("v1", DETECTRON2, None, True),
    ],
)
def test_parts_of_a_batch_are_one_batch_unless_a_norm_takes_their_statistics(heads, how, backbone, expected):
    network = ours(heads, how, backbone=backbone, channels=32, head_channels=32)
    assert network.states_sums is expected


def test_a_photo_without_objects_and_proposals_teaches_its_anchors_alone():
    network = ours(how=replace(NATIVE, norm="still"), backbone="resnet10t", channels=32, head_channels=32).train()
    network.rpn.min_size = 1000.0
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 64, 64)}
    losses = network.losses(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [none])
    assert losses["objectness"].item() > 0
    assert [name for name, loss in losses.items() if loss.item() != 0] == ["objectness"]
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_what_conventions_drop_the_caller_cannot_get():
    network = ours()
    network.load_state_dict(reference("v1").state_dict())
    found = detect_photo(network, photo(), 280, NAMES, 0.0, 160)
    assert found.scores.min() > 0.05
    half = detect_photo(network, photo(), 280, NAMES, float(np.median(found.scores)), 160)
    assert len(half) == (found.scores >= np.median(found.scores)).sum()
    assert pixels.area(half.rles[0], half.size) > 0
