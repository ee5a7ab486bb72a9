"""What a network starts from: nothing, ImageNet, COCO, or a file of anyone's; and the account of it.

A file decides more than weights. Whose it is decides how the network computes (`conventions`), so the sizes of a run
are settled here before the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from maskwright.errors import UserError
from maskwright.models import LATER
from maskwright.models.checkpoints import Stored, read_checkpoint
from maskwright.models.conventions import NATIVE, Conventions
from maskwright.models.convert import ARCHITECTURE_OF, KINDS, Converted, converted, tensors_by_part
from maskwright.models.stock import StockMaskRCNN, StockSpec
from maskwright.models.timm_body import input_colours

RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
"""torchvision's `ResNet50_Weights.IMAGENET1K_V1`."""

COCO_URLS = {
    "v1": "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "v2": "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
}
"""torchvision's `MaskRCNN_ResNet50_FPN_Weights.COCO_V1` and `MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1`."""

HEADS_OF_CATEGORIES = (
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    "box_heads.0.score.",
    "box_heads.1.score.",
    "semantic.",
)
"""The layers whose size is that of the list of categories."""

FINEST = {"fine_channels": 48, "fine_layers": 2}
"""Sizes of the map that `maskrcnn-nano` cuts masks from, in new runs; `benchmarks/recipe.py` measures them against 32
channels and one layer, which older runs have, and which are what a run means that names none."""

SHOWN = 6


@dataclass(frozen=True)
class Loaded:
    """What became of everything in a file of weights, and of everything in the network.

    Attributes:
        source: The file, or where it came from.
        kind: What it holds, for people.
        loaded: Names in the network that were filled.
        rebuilt: Names in the network that stay random since the categories are others, with the file's shape.
        fresh: Names in the network that the file says nothing of.
        ignored: Names in the file that the network has no use for, with the reason.
        dropped: Foreign objects in the file by class, and how many.
        notes: What was concluded from what.
    """

    source: str
    kind: str
    loaded: tuple[str, ...]
    rebuilt: dict[str, tuple[int, ...]]
    fresh: tuple[str, ...]
    ignored: dict[str, str]
    dropped: dict[str, int]
    notes: tuple[str, ...]

    def table(self) -> str:
        """Return the account as lines."""
        counts = {"loaded": self.loaded, "rebuilt": tuple(self.rebuilt), "fresh": self.fresh}
        parts = {name: tensors_by_part(names) for name, names in counts.items()}
        lines = [f"weights: {self.source}: {self.kind}"]
        lines += [f"  {note}" for note in self.notes]
        lines.append(f"  {'part':<12}{'loaded':>8}{'rebuilt':>9}{'fresh':>7}")
        for part in tensors_by_part([name for names in counts.values() for name in names]):
            row = [len(parts[name].get(part, ())) for name in counts]
            lines.append(f"  {part:<12}{row[0]:>8}{row[1]:>9}{row[2]:>7}")
        lines += _listed("rebuilt, as the file's categories are others", self.rebuilt)
        lines += _listed("fresh, as the file has nothing for them", self.fresh)
        lines += _listed("ignored", [f"{name} ({why})" for name, why in self.ignored.items()])
        lines += _listed("dropped, as they are not weights", [f"{n} x {c}" for c, n in self.dropped.items()])
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """Return the whole account, for a file."""
        values = dict(vars(self))
        values["rebuilt"] = {k: list(v) for k, v in self.rebuilt.items()}
        return values


def _listed(what: str, names: Any) -> list[str]:
    some = [str(n) for n in names]
    if not some:
        return []
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return [f"  {what} ({len(some)}): {', '.join(some[:SHOWN])}{more}"]


def stock(sizes: Mapping[str, Any], heads: str, weights: str) -> StockMaskRCNN:
    """Build `maskrcnn-r50-fpn` (heads `v1`) or `maskrcnn-r50-fpn-v2`.

    Args:
        sizes: The fields of `StockSpec` that are not at their default, as JSON gives them.
        heads: `v1` or `v2`.
        weights: `none`, `imagenet`, `coco` or a file; `loaded` of the network is the account of it. `LATER`: they come
            from a checkpoint.

    Raises:
        UserError: If the weights cannot be had or are of another network.
    """
    spec = StockSpec.of(sizes, cast(Literal["v1", "v2"], heads))
    network = StockMaskRCNN(spec)
    if weights in ("none", LATER):
        return network
    if weights == "imagenet" and spec.backbone is not None:
        network.loaded = _timm_imagenet(network, spec.backbone)
    else:
        network.loaded = fill(network, heads, *_file(weights, heads))
    return network


def nano_from(network: nn.Module, weights: str) -> None:
    """Load a file into `maskrcnn-nano`, in place; `loaded` of the network is the account of it.

    Raises:
        UserError: If the file is not of such a network.
    """
    if weights == "coco":
        raise UserError(
            "there are no COCO weights of maskrcnn-nano",
            fix="--weights imagenet, or --architecture maskrcnn-r50-fpn",
        )
    cast(Any, network).loaded = fill(network, "nano", weight_file(Path(weights)), weights)


def _file(weights: str, heads: str) -> tuple[Path, str]:
    """Return the file that weights mean, and how to name it."""
    if weights == "imagenet":
        return fetch(RESNET50_URL), "imagenet"
    if weights == "coco":
        return fetch(COCO_URLS[heads]), "coco"
    return weight_file(Path(weights)), weights


def weight_file(path: Path) -> Path:
    """Return the file of weights that a path means: itself, or that of a run folder.

    Raises:
        UserError: If there is none.
    """
    if path.is_dir():
        for name in ("weights/best.safetensors", "weights/last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise UserError("the folder has no weights", [str(path)], "name a run that was trained, or a file")
    if not path.is_file():
        raise UserError(
            "there are no such weights",
            [f"{path} is not a file, and not none, imagenet or coco"],
            "check the path of --weights",
        )
    return path


def fetch(url: str) -> Path:
    """Return a file of torch's hub, downloaded once.

    Raises:
        UserError: If it is not there and cannot be downloaded; it says where to put it by hand.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, _, part = path.stem.rpartition("-")
    try:
        # The name ends with the beginning of the file's SHA-256, which is checked.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=part if stem else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            "the pretrained weights cannot be downloaded",
            [f"{url}: {error}"],
            f"download them elsewhere and put them at {path}; or name a file: --weights FILE;"
            " or train from random weights: --weights none",
        ) from None
    return path


def fill(
    network: nn.Module,
    heads: str,
    path: Path,
    source: str,
    found: Converted | None = None,
    stored: Stored | None = None,
) -> Loaded:
    """Load a file into a network; layers of other categories stay random.

    Args:
        network: To be changed in place.
        heads: `v1`, `v2` or `nano`.
        path: The file.
        source: How the user named it.
        found: What is in it, if it is known already.
        stored: The file, if it is read already.

    Raises:
        UserError: If the file is of another network.
    """
    stored = stored or read_checkpoint(path)
    found = found or converted(stored)
    ours = network.state_dict()
    tensors = _of_network(found, network, heads, path)
    loaded, rebuilt, wrong = [], {}, []
    ignored = dict.fromkeys(found.ignored, "no part of a Mask R-CNN")
    for name, value in tensors.items():
        if name not in ours:
            ignored[name] = "the network has no such part"
        elif ours[name].shape == value.shape:
            loaded.append(name)
        elif name.startswith(HEADS_OF_CATEGORIES):
            rebuilt[name] = tuple(value.shape)
        else:
            wrong.append(f"{path}: {name} is {tuple(value.shape)}, the network's is {tuple(ours[name].shape)}")
    # Without a count of batches a norm is complete too: it is of use only to statistics that are still learned.
    fresh = [n for n in ours if n not in tensors and not n.endswith("num_batches_tracked")]
    if wrong or not loaded:
        wrong = wrong or [f"{path}: none of its {len(tensors)} tensors has a place in the network"]
        raise UserError("the weights are of another network", wrong, "name a file of the network that is trained")
    whole = found.kind in ARCHITECTURE_OF or found.kind == "maskwright"
    if whole and fresh:
        raise UserError(
            "the weight file is not complete", [f"{path}: {n} is missing" for n in fresh], "copy or download it again"
        )
    with torch.no_grad():
        for name in loaded:
            ours[name].copy_(tensors[name])
    notes = list(found.notes)
    if whole and not rebuilt:
        notes.append(f"its {found.categories} categories are taken to be those of the run, in the same order")
    return Loaded(
        source, KINDS[found.kind], tuple(loaded), rebuilt, tuple(fresh), ignored, stored.dropped, tuple(notes)
    )


def _of_network(found: Converted, network: nn.Module, heads: str, path: Path) -> dict[str, Tensor]:
    """Return a file's tensors under the network's names.

    Raises:
        UserError: If the file is of another network.
    """
    wanted = {"nano": "maskrcnn-nano", "v1": "maskrcnn-r50-fpn", "v2": "maskrcnn-r50-fpn-v2"}[heads]
    given = ARCHITECTURE_OF.get(found.kind, wanted)
    backbone = cast(Any, network).spec.backbone if heads != "nano" else None
    if given != wanted or (found.kind in ARCHITECTURE_OF and backbone is not None):
        raise UserError(
            "the weights are of another network",
            [f"{path} is {KINDS[found.kind]}; the network is {wanted}{f' with {backbone}' if backbone else ''}"],
            f"--architecture {given}" + (", without --backbone" if backbone else ""),
        )
    if found.kind in ARCHITECTURE_OF or found.kind == "maskwright":
        return found.tensors
    if heads != "nano" and found.kind.startswith("resnet50"):
        if backbone is not None:
            return _timm_names(found.tensors, network)
        return {f"backbone.body.{k}": v for k, v in found.tensors.items()}
    if backbone is None:
        raise UserError(
            "the weights are of no network that is known",
            [f"{path}: {', '.join(sorted(found.tensors)[:5])}, ..."],
            "name a file of Maskwright, torchvision, MMDetection or Detectron2; of a backbone of timm its name too:"
            " --backbone NAME",
        )
    return _timm_names(found.tensors, network)


def _timm_names(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Bring names of a whole timm network to those of its feature extractor (`stages.0` is `stages_0` there)."""
    prefix = "backbone.body.net."
    places = {k.removeprefix(prefix).replace("_", "."): k for k in network.state_dict() if k.startswith(prefix)}
    return {places.get(k.replace("_", "."), k): v for k, v in tensors.items()}


def _timm_imagenet(network: StockMaskRCNN, name: str) -> Loaded:
    """Load timm's own pretrained weights of a backbone.

    Raises:
        UserError: If there are none, or they cannot be downloaded.
    """
    import timm

    try:
        net: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds
        raise UserError(
            f"the pretrained weights of the backbone {name!r} cannot be had",
            [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"],
            "download its .safetensors elsewhere and name it: --weights FILE; or train from random weights:"
            " --weights none",
        ) from None
    tensors = _timm_names(net.state_dict(), network)
    ours = network.state_dict()
    loaded = [n for n, v in tensors.items() if n in ours and ours[n].shape == v.shape]
    with torch.no_grad():
        for n in loaded:
            ours[n].copy_(tensors[n])
    ignored = {n: "the network has no such part" for n in tensors if n not in loaded}
    fresh = tuple(n for n in ours if n not in loaded)
    return Loaded(f"imagenet ({name}, timm)", KINDS["timm"], tuple(loaded), {}, fresh, ignored, {}, ())


def beginning(architecture: str, backbone: str | None, weights: str) -> dict[str, Any]:
    """Return the sizes of a new run that follow from what it starts from.

    Args:
        architecture: A name in `ARCHITECTURES`.
        backbone: A network of timm, or `None`.
        weights: `none`, `imagenet`, `coco` or a file.

    Returns:
        For a stock network its `conventions`, `backbone` and `frozen_stages`; for `maskrcnn-nano` the sizes of its
        finest map: ours of today, or those of the file.

    Raises:
        UserError: If a file cannot be read, or is of another network.
    """
    if architecture == "maskrcnn-nano":
        return dict(FINEST) if weights in ("none", "imagenet", "coco") else _finest_of_file(weight_file(Path(weights)))
    how = NATIVE
    if backbone is not None:
        mean, std = input_colours(backbone)
        how = replace(how, mean=cast(Any, mean), std=cast(Any, std))
    if weights == "none":
        how = replace(how, norm="live")
    elif weights == "imagenet":
        how = replace(how, norm="frozen" if architecture == "maskrcnn-r50-fpn" and backbone is None else "still")
    elif weights == "coco":
        v1 = architecture == "maskrcnn-r50-fpn"
        how = replace(how, norm="frozen" if v1 else "still", head_norm="still", norm_eps=0.0 if v1 else 1e-5)
    else:
        how = _of_file(weight_file(Path(weights)), architecture, how)
    frozen = 0 if weights == "none" or backbone is not None else 2
    return {"backbone": backbone, "conventions": how.json(), "frozen_stages": frozen}


def _finest_of_file(path: Path) -> dict[str, int]:
    """Return the sizes of the finest map in a file of `maskrcnn-nano`; nothing of other files, which are refused."""
    tensors = read_checkpoint(path).tensors
    width = tensors.get("fine.weight")
    if width is None:
        return {}
    more = sum(name.startswith("fine_more.") and name.endswith(".weight") for name in tensors)
    return {"fine_channels": len(width), "fine_layers": 1 + more}


def _of_file(path: Path, architecture: str, how: Conventions) -> Conventions:
    """Return the conventions of a file, but for the scaling of photos, which is that of training here."""
    stored = read_checkpoint(path)
    found = converted(stored)
    if found.kind == "maskwright":
        told = stored.values["maskwright"]
        if told.get("architecture") != architecture:
            raise UserError(
                "the weights are of another network",
                [f"{path} is of {told.get('architecture')}, the network is {architecture}"],
                f"--architecture {told.get('architecture')}",
            )
        try:
            return replace(Conventions.of(told["sizes"]["conventions"]), resample="smooth")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "the weight file's description is damaged", [f"{path}: {error!r}"], "copy it again"
            ) from None
    if found.conventions is None:
        return replace(how, norm="still")
    if found.kind.startswith("resnet50"):
        caffe = found.conventions
        return replace(how, norm="still", mean=caffe.mean, std=caffe.std, bgr=caffe.bgr, unit=caffe.unit,
                       stride_in_1x1=caffe.stride_in_1x1)  # fmt: skip
    return replace(found.conventions, resample="smooth")
