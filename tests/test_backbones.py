"""A folded backbone is the unfolded one with frozen norms: the same outputs, the same gradients."""

import copy

import pytest
import timm
import torch
from timm.layers import create_conv2d
from torch import nn

from maskwright.models.backbones import Backbone, BackboneSpec, FoldedConv, fold_norms
from maskwright.models.weights import load_imagenet

NAME = "tf_efficientnet_lite0"


def spec(frozen_stages=3):
    return BackboneSpec(NAME, (127.0,) * 3, (128.0,) * 3, frozen_stages)


@pytest.fixture(scope="module")
def unfolded():
    torch.manual_seed(0)
    backbone = Backbone(spec(0))
    load_imagenet(backbone.net, NAME)
    return backbone.eval()


@pytest.fixture(scope="module")
def folded(unfolded):
    backbone = copy.deepcopy(unfolded)
    backbone.freeze()
    return backbone


def photos(height=64, width=96):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 32)])
def test_folding_leaves_the_outputs_unchanged(unfolded, folded, size):
    with torch.no_grad():
        before, after = unfolded(photos(*size)), folded(photos(*size))
    assert list(before) == ["4", "8", "16", "32"]
    for stride, features in before.items():
        assert features.shape[2:] == (size[0] // int(stride), size[1] // int(stride))
        assert ((features - after[stride]).abs().max() / features.abs().max()).item() < 1e-3


def test_folding_leaves_the_gradients_unchanged(unfolded, folded):
    weights = {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(2)) for k, v in folded(photos()).items()}

    def gradients(backbone):
        backbone.zero_grad()
        sum((features * weights[k]).sum() for k, features in backbone(photos()).items()).backward()
        return [m.weight.grad for m in backbone.modules() if isinstance(m, nn.Conv2d | FoldedConv)]

    ours, theirs = gradients(folded), gradients(unfolded)
    assert len(ours) == len(theirs) > 40
    for a, b in zip(ours, theirs, strict=True):
        assert ((a - b).norm() / b.norm()).item() < 1e-3


def test_every_norm_is_folded(unfolded, folded):
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in unfolded.modules())
    assert norms > 40
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 0
    assert sum(isinstance(m, FoldedConv) for m in folded.modules()) == norms
    assert fold_norms(folded.net) == 0


def test_training_mode_changes_nothing_in_a_folded_backbone(folded):
    before = folded.eval()(photos())["32"]
    after = folded.train()(photos())["32"]
    assert torch.equal(before, after)


def test_the_early_stages_and_no_others_keep_their_weights():
    backbone = Backbone(spec(3))
    backbone.freeze()
    stages = {True: set(), False: set()}
    for name, parameter in backbone.net.named_parameters():
        stages[parameter.requires_grad].add(".".join(name.split(".")[:2]))
    assert stages[False] == {"conv_stem.weight", "blocks.0", "blocks.1"}
    assert stages[True] == {f"blocks.{i}" for i in range(2, 7)}


def test_a_backbone_from_random_weights_is_trained_whole():
    backbone = Backbone(spec(0))
    backbone.freeze()
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_a_pair_with_and_without_bias_and_gain_is_folded_exactly(bias, affine):
    torch.manual_seed(3)
    conv, norm = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d(6, affine=affine)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    norm.eval()
    x = torch.randn(2, 4, 9, 10)
    torch.testing.assert_close(FoldedConv(conv, norm)(x), norm(conv(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [8, 9, 10, 11])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 2)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    torch.manual_seed(4)
    conv = timm.layers.Conv2dSame(3, 5, kernel, stride=stride, bias=False)
    norm = nn.BatchNorm2d(5).eval()
    x = torch.randn(1, 3, size, size)
    found = FoldedConv(conv, norm)(x)
    assert found.shape[-1] == -(-size // stride)
    torch.testing.assert_close(found, norm(conv(x)), rtol=1e-5, atol=1e-5)


def test_a_convolution_without_a_norm_behind_it_stays():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.act = nn.ReLU()
            self.norm = nn.BatchNorm2d(4)

    block = Block()
    assert fold_norms(block) == 0
    assert isinstance(block.first, nn.Conv2d)


def test_the_input_is_scaled_by_mean_and_divisor(folded):
    seen = []
    handle = folded.net.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.stack([torch.full((32, 32), v) for v in (127.0, 255.0, -1.0)])[None]
    folded(image)
    handle.remove()
    assert [float(channel.mean()) for channel in seen[0][0]] == [0.0, 1.0, -1.0]


def test_strides_that_are_not_wanted_are_not_made():
    backbone = Backbone(spec(0), strides=(8, 32))
    assert list(backbone(photos())) == ["8", "32"]
    assert backbone.channels == [40, 320]


@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width", "padding"),
    [(5, 1, 13, 17, "same"), (5, 2, 24, 32, "same"), (5, 2, 23, 18, "same"), (7, 2, 21, 26, "same"), (5, 2, 24, 9, 2)],
)
def test_a_wide_depthwise_layer_has_the_gradients_of_the_plain_one(kernel, stride, height, width, padding):
    torch.manual_seed(kernel + height)
    conv = create_conv2d(24, 24, kernel, stride=stride, padding=padding, depthwise=True)
    norm = nn.BatchNorm2d(24).eval()
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    ours = FoldedConv(conv, norm)
    x = torch.randn(2, 24, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()
    other = x.detach().clone().requires_grad_()
    found, expected = ours(x), norm(conv(other))
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in [(found, expected), (x.grad, other.grad), (ours.weight.grad, conv.weight.grad)]:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    ours.eval()
    with torch.no_grad():  # another way to pad
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)


def test_autocast_leaves_depthwise_layers_that_are_trained_in_32_bits(monkeypatch):
    kinds = []
    real = torch.nn.functional.conv2d

    def noted(x, weight, *rest):
        in_bf16 = torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16
        kinds.append((weight.shape[1] == 1, in_bf16))
        return real(x, weight, *rest)

    backbone = Backbone(spec(3))
    backbone.freeze()
    monkeypatch.setattr(torch.nn.functional, "conv2d", noted)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(photos())
    trained = kinds[-30:]  # all but the frozen beginning
    assert {in_bf16 for depthwise, in_bf16 in trained if depthwise} == {False}
    assert {in_bf16 for depthwise, in_bf16 in trained if not depthwise} == {True}
    assert {f.dtype for f in features.values()} == {torch.bfloat16}


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_look_without_gradients_sees_what_one_with_them_does(kernel):
    torch.manual_seed(kernel)
    conv = create_conv2d(24, 24, kernel, stride=2, padding="same", depthwise=True)
    ours = FoldedConv(conv, nn.BatchNorm2d(24).eval())
    x = torch.randn(2, 24, 21, 26).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        trained = ours(x)
        with torch.no_grad():
            looked = ours(x)
            detecting = ours.eval()(x)
            ours.weight.requires_grad_(False)
            frozen = ours.train()(x)
    assert torch.equal(looked, trained)
    assert torch.equal(frozen, detecting)
    assert not torch.equal(detecting, trained)  # in bf16
