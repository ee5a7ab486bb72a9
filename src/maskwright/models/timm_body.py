"""Any backbone of timm under a feature pyramid: its channels and strides are asked, not typed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from maskwright.errors import UserError, nearest


class TimmBody(nn.Module):
    """A timm network as a feature extractor.

    Args:
        net: What `timm.create_model(..., features_only=True)` made.
        names: Of the features, finest first.
        widths: Their channels.
        still: Whether its batch norms keep their statistics in training.
    """

    def __init__(self, net: nn.Module, names: tuple[str, ...], widths: tuple[int, ...], still: bool) -> None:
        super().__init__()
        self.net = net
        self.names, self.widths, self.still = names, widths, still
        self.train()

    def train(self, mode: bool = True) -> TimmBody:
        """Switch to training, or back; batch norms stay as they are where they keep their statistics."""
        super().train(mode)
        if self.still:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Map `(N, 3, H, W)` to features `(N, C, H / stride, W / stride)`."""
        found = OrderedDict()
        for name, width, feature in zip(self.names, self.widths, self.net(x), strict=True):
            # Some networks keep channels last, as axes and not in memory only.
            found[name] = feature if feature.shape[1] == width else feature.permute(0, 3, 1, 2).contiguous()
        return found


def timm_body(name: str, strides: Mapping[str, int], live: bool) -> tuple[TimmBody, tuple[int, ...]]:
    """Build a backbone of random weights by its name in timm.

    Args:
        name: As timm has it; a pretrained tag (`.fb_in1k`) may follow.
        strides: Those wanted, by the name of the feature, ascending.
        live: Whether batch norms take the statistics of the batch in training.

    Returns:
        The backbone, and the channels of its features.

    Raises:
        UserError: If timm has no such network, or it does not give features at these strides for photos of any size.
    """
    known(name)
    wanted = list(strides.values())
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        given = list(probe.feature_info.reduction())
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        raise _unfit(name, f"timm cannot take features from it ({str(error).splitlines()[0]})") from None
    if not set(wanted) <= set(given):
        raise _unfit(name, f"its features have the strides {', '.join(map(str, given))}")
    # Where several features have one stride, the last one has seen most.
    places = [len(given) - 1 - given[::-1].index(stride) for stride in wanted]
    net: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=places)
    widths = tuple(int(c) for c in net.feature_info.channels())
    body = TimmBody(net, tuple(strides), widths, not live).eval()
    height, width = 64, 96
    try:
        with torch.no_grad():
            shapes = [f.shape for f in body(torch.zeros(1, 3, height, width)).values()]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _unfit(name, f"it does not take photos of any size ({str(error).splitlines()[0]})") from None
    expected = [(1, c, height // s, width // s) for c, s in zip(widths, wanted, strict=True)]
    if [tuple(s) for s in shapes] != expected:
        raise _unfit(name, f"its features of a {width} x {height} photo are {[tuple(s) for s in shapes]}")
    body.train()
    return body, widths


def known(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        UserError: With the nearest known name.
    """
    if not timm.is_model(name):
        raise UserError(
            f"timm has no backbone of the name {name!r}{nearest(name, timm.list_models())}",
            fix="see the names: python -c \"import timm; print(timm.list_models('*convnext*'))\"",
        )


def input_colours(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std, RGB on the 0..255 scale, of the photos that a timm network was pretrained on."""
    known(name)
    told: Any = timm.get_pretrained_cfg(name)
    if told is None:
        return (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return tuple(255 * v for v in told.mean), tuple(255 * v for v in told.std)


def _unfit(name: str, why: str) -> UserError:
    return UserError(
        f"the backbone {name!r} cannot carry a feature pyramid",
        [f"{why}; needed are the strides 4, 8, 16 and 32"],
        "take a network of stages, such as --backbone convnext_tiny or resnet101",
    )
