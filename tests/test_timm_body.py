"""Backbones of timm by name: channels and strides are asked, and what cannot carry a pyramid is refused."""

import pytest
import torch

from maskwright.errors import UserError
from maskwright.models.stock import STRIDES
from maskwright.models.timm_body import input_colours, timm_body


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("convnext_atto", (40, 80, 160, 320)),
        ("resnet18", (64, 128, 256, 512)),
        ("mobilenetv3_small_050", (8, 16, 24, 288)),
    ],
)
@torch.inference_mode()
def test_features_have_the_strides_of_the_pyramid(name, widths):
    body, found = timm_body(name, STRIDES, False)
    assert found == widths
    features = body.eval()(torch.randn(2, 3, 64, 96))
    assert list(features) == list(STRIDES)
    for feature, width, stride in zip(features.values(), widths, STRIDES.values(), strict=True):
        assert feature.shape == (2, width, 64 // stride, 96 // stride)


def test_norms_keep_their_statistics_in_training_unless_they_are_to_follow_the_batch():
    for live in (False, True):
        body, _ = timm_body("resnet18", STRIDES, live)
        body.train()
        before = body.net.bn1.running_mean.clone()
        body(torch.randn(2, 3, 64, 64) + 5)
        assert torch.equal(before, body.net.bn1.running_mean) is not live


def test_colours_are_those_that_the_network_was_pretrained_with():
    mean, std = input_colours("convnext_tiny")
    assert mean == pytest.approx((123.675, 116.28, 103.53))
    assert std == pytest.approx((58.395, 57.12, 57.375))
    assert input_colours("mixer_b16_224.goog_in21k")[0] == pytest.approx((127.5,) * 3)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"of the name 'convnext_tinny'; did you mean 'convnext_tiny'\?"):
        timm_body("convnext_tinny", STRIDES, False)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s16_224"])
def test_networks_without_stages_are_refused_in_words(name):
    with pytest.raises(UserError) as caught:
        timm_body(name, STRIDES, False)
    assert f"the backbone '{name}' cannot carry a feature pyramid" in str(caught.value)
    assert "needed are the strides 4, 8, 16 and 32" in str(caught.value)
    assert "--backbone convnext_tiny" in str(caught.value)
