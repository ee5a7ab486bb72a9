"""What a network starts from, and the account of what was loaded, rebuilt and ignored."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

import maskwright.models.start as module
from maskwright.errors import UserError
from maskwright.models import ARCHITECTURES
from maskwright.models.conventions import NATIVE, Conventions
from maskwright.models.start import beginning, fetch
from maskwright.run import save_tensors
from stock_world import as_mmdetection, reference

SIZES = {"categories": 3}


def built(weights, architecture="maskrcnn-r50-fpn", backbone=None, **more):
    sizes = SIZES | beginning(architecture, backbone, str(weights)) | more
    return ARCHITECTURES[architecture](sizes, str(weights))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("start")
    state = reference().state_dict()
    torch.save(state, base / "torchvision.pth")
    torch.save({"state_dict": as_mmdetection(state)}, base / "mmdetection.pth")
    body = {k.removeprefix("backbone.body."): v for k, v in state.items() if ".body." in k}
    torch.save(body | {"fc.weight": torch.zeros(1000, 2048)}, base / "resnet50.pth")
    return base


def test_heads_of_as_many_categories_are_kept(folder):
    network = built(folder / "torchvision.pth")
    account = network.loaded
    assert (account.rebuilt, account.fresh, account.ignored) == ({}, (), {})
    assert set(account.loaded) == set(network.state_dict())
    assert "its 3 categories are taken to be those of the run, in the same order" in account.table()
    for name, value in reference().state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_heads_of_other_categories_are_rebuilt_and_everything_else_is_kept(folder):
    network = built(folder / "mmdetection.pth", categories=5)
    account = network.loaded
    assert account.rebuilt == {
        "roi_heads.box_predictor.cls_score.weight": (4, 1024),
        "roi_heads.box_predictor.cls_score.bias": (4,),
        "roi_heads.box_predictor.bbox_pred.weight": (16, 1024),
        "roi_heads.box_predictor.bbox_pred.bias": (16,),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": (4, 256, 1, 1),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": (4,),
    }
    assert len(account.loaded) + 6 == len(network.state_dict())
    assert account.fresh == ()
    lines = account.table().splitlines()
    assert lines[0] == f"weights: {folder / 'mmdetection.pth'}: MMDetection's Mask R-CNN R50-FPN"
    row = next(line for line in lines if line.startswith("  box head"))
    assert row.split()[2:] == ["4", "4", "0"]
    assert any(line.startswith("  rebuilt, as the file's categories are others (6): roi_heads.box") for line in lines)
    assert network.conventions.origin == "mmdetection"
    assert network.conventions.resample == "smooth"  # as training photos are scaled
    assert not network.conventions.exact  # so that it validates and predicts the fast way


def test_a_backbone_leaves_the_rest_fresh_and_tells_what_it_ignores(folder):
    network = built(folder / "resnet50.pth")
    account = network.loaded
    assert all(name.startswith("backbone.body.") for name in account.loaded)
    assert len(account.loaded) == 265 + 53  # and as many counts of batches
    assert "backbone.fpn.inner_blocks.0.0.weight" in account.fresh
    assert account.ignored == {"fc.weight": "no part of a Mask R-CNN"}
    assert "  ignored (1): fc.weight (no part of a Mask R-CNN)" in account.table().splitlines()


def test_our_own_weights_bring_their_conventions(folder, tmp_path):
    first = built(folder / "mmdetection.pth")
    told = {"architecture": "maskrcnn-r50-fpn", "sizes": SIZES | {"conventions": first.conventions.json()}}
    save_tensors(tmp_path / "a.safetensors", first.state_dict(), {"maskwright": module_json(told)})
    again = built(tmp_path / "a.safetensors")
    assert again.conventions == first.conventions
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    with pytest.raises(UserError, match="is of maskrcnn-r50-fpn, the network is maskrcnn-r50-fpn-v2"):
        built(tmp_path / "a.safetensors", "maskrcnn-r50-fpn-v2")


def module_json(value):
    import json

    return json.dumps(value)


def test_the_nano_starts_from_its_own_weights_and_from_no_others(folder, tmp_path):
    sizes = {"categories": 2}
    first = ARCHITECTURES["maskrcnn-nano"](sizes, "none")
    told = module_json({"architecture": "maskrcnn-nano", "sizes": sizes})
    save_tensors(tmp_path / "a.safetensors", first.state_dict(), {"maskwright": told})
    network = ARCHITECTURES["maskrcnn-nano"](sizes, str(tmp_path / "a.safetensors"))
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in first.state_dict().items())
    other = ARCHITECTURES["maskrcnn-nano"]({"categories": 4}, str(tmp_path / "a.safetensors"))
    layers = ("box_heads.0.score", "box_heads.1.score", "semantic")
    assert set(other.loaded.rebuilt) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    with pytest.raises(UserError, match="the weights are of another network"):
        ARCHITECTURES["maskrcnn-nano"](sizes, str(folder / "torchvision.pth"))
    with pytest.raises(UserError, match="there are no COCO weights of maskrcnn-nano"):
        ARCHITECTURES["maskrcnn-nano"](sizes, "coco")


@pytest.mark.parametrize("finest", [{"fine_channels": 32, "fine_layers": 1}, {"fine_channels": 16, "fine_layers": 3}])
def test_a_new_nano_has_the_finest_map_of_the_file_that_it_starts_from(folder, tmp_path, finest):
    assert beginning("maskrcnn-nano", None, "imagenet") == beginning("maskrcnn-nano", None, "none") == module.FINEST
    first = ARCHITECTURES["maskrcnn-nano"]({"categories": 2} | finest, "none")
    path = tmp_path / "a.safetensors"
    told = module_json({"architecture": "maskrcnn-nano", "sizes": {"categories": 2} | finest})
    save_tensors(path, first.state_dict(), {"maskwright": told})
    assert beginning("maskrcnn-nano", None, str(path)) == finest
    network = ARCHITECTURES["maskrcnn-nano"]({"categories": 2} | beginning("maskrcnn-nano", None, str(path)), str(path))
    assert not network.loaded.rebuilt
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in first.state_dict().items())
    assert beginning("maskrcnn-nano", None, str(folder / "torchvision.pth")) == {}  # refused when it is loaded


def test_imagenet_and_coco_are_files_of_torchs_hub(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "resnet50-0676ba61.pth").write_bytes((folder / "resnet50.pth").read_bytes())
    (place / "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth").write_bytes((folder / "torchvision.pth").read_bytes())
    network = built("imagenet")
    assert (network.conventions.norm, network.conventions.norm_eps) == ("frozen", 1e-5)
    assert torch.equal(network.backbone.body.conv1.weight, reference().backbone.body.conv1.weight)
    coco = built("coco")
    assert (coco.conventions.norm, coco.conventions.norm_eps) == ("frozen", 0.0)
    assert coco.loaded.fresh == ()


def test_without_a_network_the_message_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_args, **_more):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError) as caught:
        fetch(module.RESNET50_URL)
    place = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    assert str(caught.value) == (
        "the pretrained weights cannot be downloaded\n"
        "  https://download.pytorch.org/models/resnet50-0676ba61.pth: no route\n"
        f"fix: download them elsewhere and put them at {place}; or name a file: --weights FILE;"
        " or train from random weights: --weights none"
    )


def test_backbones_of_timm_start_from_timm_or_from_a_file_of_their_weights(tmp_path, monkeypatch):
    torch.manual_seed(3)
    whole = timm.create_model("convnext_atto", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "a.safetensors")
    network = built(tmp_path / "a.safetensors", backbone="convnext_atto")
    ours, theirs = network.backbone.body.net.stages_3, whole.stages[3]
    assert torch.equal(ours.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)
    body = [k for k in network.state_dict() if k.startswith("backbone.body.")]
    assert set(network.loaded.loaded) == set(body)
    assert {k.split(".")[0] for k in network.loaded.ignored} == {"head"}
    plain = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **more: whole if pretrained else plain(name, **more)
    )
    again = built("imagenet", backbone="convnext_atto")
    assert all(torch.equal(network.state_dict()[k], again.state_dict()[k]) for k in body)
    assert not set(body) & set(again.loaded.fresh)

    def offline(name, pretrained=False, **more):
        if pretrained:
            raise OSError("offline")
        return plain(name, **more)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="the pretrained weights of the backbone 'convnext_atto' cannot be had"):
        built("imagenet", backbone="convnext_atto")


def test_random_weights_have_norms_that_follow_the_batch_and_train_everything():
    sizes = beginning("maskrcnn-r50-fpn", None, "none")
    how = Conventions.of(sizes["conventions"])
    assert how == replace(NATIVE, norm="live")
    assert sizes["frozen_stages"] == 0
    assert beginning("maskrcnn-nano", None, "none") == module.FINEST  # nothing of norms


@pytest.mark.parametrize(
    ("weights", "more", "message"),
    [
        ("nowhere.pth", {}, "nowhere.pth is not a file, and not none, imagenet or coco"),
        ("torchvision.pth", {"architecture": "maskrcnn-r50-fpn-v2"}, "fix: --architecture maskrcnn-r50-fpn"),
        ("torchvision.pth", {"backbone": "resnet18"}, "fix: --architecture maskrcnn-r50-fpn, without --backbone"),
    ],
)
def test_weights_of_another_network_are_refused(folder, weights, more, message):
    with pytest.raises(UserError) as caught:
        built(folder / weights if weights == "torchvision.pth" else weights, **more)
    assert message in str(caught.value)


def test_an_unknown_file_needs_the_name_of_its_backbone(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the weights are of no network that is known"):
        built(tmp_path / "a.safetensors")
