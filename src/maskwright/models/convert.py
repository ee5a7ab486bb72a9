"""From the names and layouts of other frameworks to ours, which are torchvision's.

What differs beside the names: Detectron2 and MMDetection (2.0 and later) count the background last, torchvision first;
they regress boxes and masks for C categories, torchvision for C + 1 with the background's unused; MMDetection may do
both without regard to the category.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from maskwright.errors import UserError
from maskwright.models.checkpoints import Stored
from maskwright.models.conventions import CAFFE, DETECTRON2, MMDETECTION, TORCHVISION, Conventions

Kind = Literal[
    "maskwright", "torchvision", "torchvision-v2", "mmdetection", "detectron2", "resnet50", "resnet50-caffe", "timm"
]

KINDS: dict[Kind, str] = {
    "maskwright": "a network of Maskwright",
    "torchvision": "torchvision's maskrcnn_resnet50_fpn",
    "torchvision-v2": "torchvision's maskrcnn_resnet50_fpn_v2",
    "mmdetection": "MMDetection's Mask R-CNN R50-FPN",
    "detectron2": "Detectron2's Mask R-CNN R50-FPN",
    "resnet50": "a ResNet-50",
    "resnet50-caffe": "a ResNet-50 of Caffe",
    "timm": "a backbone",
}

ARCHITECTURE_OF: dict[Kind, str] = {
    "torchvision": "maskrcnn-r50-fpn",
    "torchvision-v2": "maskrcnn-r50-fpn-v2",
    "mmdetection": "maskrcnn-r50-fpn",
    "detectron2": "maskrcnn-r50-fpn",
}
"""Of whole networks; the others are backbones."""

WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "network")
"""Where training scripts put the weights among other things."""


@dataclass(frozen=True)
class Converted:
    """Weights under our names.

    Attributes:
        kind: What the file holds.
        tensors: By our names; of a backbone alone without the prefix `backbone.body.`.
        conventions: How the network computes; of a backbone alone what it needs of its input.
        names: Of the categories in order of label 1..C, if the file tells.
        ignored: Tensors that the network has no use for, by the file's names.
        notes: What was concluded from what.
    """

    kind: Kind
    tensors: dict[str, Tensor]
    conventions: Conventions | None
    names: tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def categories(self) -> int | None:
        """How many categories the heads tell apart; `None` of a backbone alone."""
        score = self.tensors.get("roi_heads.box_predictor.cls_score.weight")
        return None if score is None else len(score) - 1


def converted(stored: Stored, style: str | None = None) -> Converted:
    """Tell what a file holds by looking inside, and bring it under our names.

    Args:
        stored: The file.
        style: `pytorch` or `caffe`, of the backbone, where the user knows better than the file.

    Raises:
        UserError: If it is none of the networks that are known.
    """
    told = stored.values.get("maskwright") if isinstance(stored.values, dict) else None
    if isinstance(told, dict):
        return Converted("maskwright", dict(stored.tensors), None, notes=(f"made by {_maker(told)}",))
    tensors, rest = _weights(stored)
    keys = set(tensors)
    if any(k.startswith("roi_head.bbox_head.") for k in keys):
        found = _mmdetection(tensors, stored, style)
    elif any(k.startswith("proposal_generator.rpn_head.") for k in keys):
        found = _detectron2(tensors, style)
    elif "roi_heads.box_predictor.cls_score.weight" in keys and any(k.startswith("backbone.body.") for k in keys):
        found = _torchvision(tensors)
    elif any(k.startswith(("bbox_head.", "mask_head.")) for k in keys):
        raise UserError(
            "weights of MMDetection 1.x are not read: their arithmetic is another",
            [str(stored.path)],
            "upgrade them first with MMDetection's tools/model_converters/upgrade_model_version.py",
        )
    elif {"conv1.weight", "layer4.2.conv3.weight"} <= keys:
        found = _resnet(tensors, style)
    elif {"stem.conv1.weight", "res5.2.conv3.weight"} <= keys:
        found = _resnet({_detectron_body(k): v for k, v in tensors.items()}, style)
    elif {"conv1_w", "res5_2_branch2c_w"} <= keys:
        found = _resnet({_caffe2_body(k): v for k, v in tensors.items()}, style or "caffe")
    elif keys:
        found = Converted("timm", tensors, None)
    else:
        raise UserError(
            "the file holds no weights", [f"{stored.path} has no tensors"], "name a file of a network's weights"
        )
    return replace(found, ignored=(*found.ignored, *rest))


def _maker(told: Mapping[str, Any]) -> str:
    made = told.get("made_by")
    return f"maskwright {made.get('version', '?')}" if isinstance(made, dict) else "maskwright"


def _weights(stored: Stored) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of the network itself, and the names of the others."""
    top = {name.split("/")[0] for name in stored.tensors if "/" in name}
    chosen = next((w for w in WRAPPERS if w in top), None)
    prefix = f"{chosen}/" if chosen else ""
    tensors: dict[str, Tensor] = {}
    rest = []
    for name, value in stored.tensors.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or "/" in inner:
            rest.append(name)
        else:
            tensors[inner.removeprefix("module.").removeprefix("model.")] = value
    return tensors, rest


def _renamed(
    tensors: Mapping[str, Tensor], name_of: Callable[[str], str | None]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    ours: dict[str, Tensor] = {}
    ignored = []
    for theirs, value in tensors.items():
        name = name_of(theirs)
        if name is None:
            ignored.append(theirs)
        else:
            ours[name] = value.float() if value.is_floating_point() else value
    return ours, tuple(ignored)


def _background_first(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """Bring heads with the background last to torchvision's layout, in place; return what was done."""
    notes = []
    classes = len(tensors.get("roi_heads.box_predictor.cls_score.weight", ()))
    for kind in ("weight", "bias"):
        name = f"roi_heads.box_predictor.cls_score.{kind}"
        if name in tensors:
            tensors[name] = torch.cat([tensors[name][-1:], tensors[name][:-1]])
        for head, rows in (("box_predictor.bbox_pred", 4), ("mask_predictor.mask_fcn_logits", 1)):
            name = f"roi_heads.{head}.{kind}"
            if name not in tensors or not classes:
                continue
            value = tensors[name]
            if len(value) == rows and classes > 2:
                value = value.repeat(classes - 1, *[1] * (value.ndim - 1))
                if kind == "weight":
                    notes.append(f"{head} knew no categories and was repeated for each")
            tensors[name] = torch.cat([torch.zeros_like(value[:rows]), value])
    return tuple(notes)


def _torchvision(tensors: Mapping[str, Tensor]) -> Converted:
    old = any(k.startswith("roi_heads.mask_head.mask_fcn") for k in tensors)

    def name_of(name: str) -> str:
        name = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
        name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
        match = re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", name)
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}" if match else name

    ours, _ = _renamed(tensors, name_of)
    v2 = any(k.startswith("roi_heads.box_head.5.") for k in ours)
    tracked = any(k.startswith("backbone.body.") and k.endswith("num_batches_tracked") for k in ours)
    how = replace(TORCHVISION, norm="still" if tracked else "frozen", head_norm="still")
    notes = []
    if old and not tracked:
        # torchvision sets it so for its own file of this age, since it was trained so.
        how = replace(how, norm_eps=0.0)
        notes.append("names of before torchvision 0.14: frozen norms with an epsilon of 0, as torchvision itself does")
    return Converted("torchvision-v2" if v2 else "torchvision", ours, how, notes=tuple(notes))


def _mmdetection(tensors: Mapping[str, Tensor], stored: Stored, style: str | None) -> Converted:
    def name_of(name: str) -> str | None:
        if name.startswith("backbone."):
            return f"backbone.body.{name.removeprefix('backbone.')}"
        for pattern, ours in (
            (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"backbone.fpn.inner_blocks.\1.0.\2"),
            (r"neck\.fpn_convs\.([0-3])\.conv\.(\w+)", r"backbone.fpn.layer_blocks.\1.0.\2"),
            (r"rpn_head\.rpn_conv\.(\w+)", r"rpn.head.conv.0.0.\1"),
            (r"rpn_head\.rpn_cls\.(\w+)", r"rpn.head.cls_logits.\1"),
            (r"rpn_head\.rpn_reg\.(\w+)", r"rpn.head.bbox_pred.\1"),
            (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
            (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
            (r"roi_head\.bbox_head\.shared_fcs\.0\.(\w+)", r"roi_heads.box_head.fc6.\1"),
            (r"roi_head\.bbox_head\.shared_fcs\.1\.(\w+)", r"roi_heads.box_head.fc7.\1"),
            (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)", r"roi_heads.mask_head.\1.0.\2"),
            (r"roi_head\.mask_head\.upsample\.(\w+)", r"roi_heads.mask_predictor.conv5_mask.\1"),
            (r"roi_head\.mask_head\.conv_logits\.(\w+)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
        ):
            if re.fullmatch(pattern, name):
                return re.sub(pattern, ours, name)
        return None

    ours, ignored = _renamed(tensors, name_of)
    notes = [*_background_first(ours)]
    config = _config_text(stored.values)
    if style is None:
        style = "caffe" if re.search(r"style\s*=\s*['\"]caffe", config) else "pytorch"
        said = "its own config says so" if "style" in config else "the file does not say; --style overrules"
        notes.append(f"backbone of style {style}: {said}")
    how = replace(MMDETECTION, **CAFFE) if style == "caffe" else MMDETECTION
    return Converted("mmdetection", ours, how, _mmdetection_names(stored.values), ignored, tuple(notes))


def _config_text(values: Any) -> str:
    """Return the config that MMDetection stores with its weights, as text; empty if it is not there."""
    meta = values.get("meta") if isinstance(values, dict) else None
    texts = [meta.get(name) for name in ("config", "cfg")] if isinstance(meta, dict) else []
    return "\n".join(t for t in texts if isinstance(t, str))


def _mmdetection_names(values: Any) -> tuple[str, ...] | None:
    meta = values.get("meta") if isinstance(values, dict) else None
    if not isinstance(meta, dict):
        return None
    inner = meta.get("dataset_meta")
    for holder in (inner, meta):
        if isinstance(holder, dict):
            for name in ("CLASSES", "classes"):
                found = holder.get(name)
                if isinstance(found, str):
                    return (found,)
                if isinstance(found, list) and found and all(isinstance(n, str) for n in found):
                    return tuple(found)
    return None


def _detectron_body(name: str) -> str:
    """Turn Detectron2's name of a backbone's tensor into torchvision's."""
    name = name.removeprefix("backbone.bottom_up.")
    name = re.sub(r"^stem\.conv1\.norm\.", "bn1.", name)
    name = re.sub(r"^stem\.conv1\.", "conv1.", name)
    name = re.sub(r"^stem\.fc\.", "fc.", name)
    name = re.sub(r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}.", name)
    name = re.sub(r"\.shortcut\.norm\.", ".downsample.1.", name)
    name = re.sub(r"\.shortcut\.", ".downsample.0.", name)
    return re.sub(r"\.conv([123])\.norm\.", r".bn\1.", name)


def _caffe2_body(name: str) -> str:
    """Turn Caffe2's name of a backbone's tensor into torchvision's."""
    name = name.replace("res_conv1_bn_", "conv1_bn_")
    ends = {"_w": "weight", "_b": "bias", "_bn_s": "weight", "_bn_b": "bias", "_bn_rm": "running_mean"}
    ends["_bn_riv"] = "running_var"
    end = max((e for e in ends if name.endswith(e)), key=len, default="")
    if not end:
        return name
    stem, norm = name.removesuffix(end), end.startswith("_bn")
    if stem == "conv1":
        return f"{'bn1' if norm else 'conv1'}.{ends[end]}"
    match = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])", stem)
    if match is None:
        return name
    part = f"layer{int(match[1]) - 1}.{match[2]}"
    if match[3] == "1":
        return f"{part}.downsample.{int(norm)}.{ends[end]}"
    return f"{part}.{'bn' if norm else 'conv'}{'abc'.index(match[3][1]) + 1}.{ends[end]}"


def _detectron2(tensors: Mapping[str, Tensor], style: str | None) -> Converted:
    def name_of(name: str) -> str | None:
        if name.startswith("backbone.bottom_up."):
            return f"backbone.body.{_detectron_body(name)}"
        for pattern, ours in (
            (r"proposal_generator\.rpn_head\.conv\.(\w+)", r"rpn.head.conv.0.0.\1"),
            (r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", r"rpn.head.cls_logits.\1"),
            (r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", r"rpn.head.bbox_pred.\1"),
            (r"roi_heads\.box_head\.fc1\.(\w+)", r"roi_heads.box_head.fc6.\1"),
            (r"roi_heads\.box_head\.fc2\.(\w+)", r"roi_heads.box_head.fc7.\1"),
            (r"(roi_heads\.box_predictor\.(?:cls_score|bbox_pred)\.\w+)", r"\1"),
            (r"roi_heads\.mask_head\.deconv\.(\w+)", r"roi_heads.mask_predictor.conv5_mask.\1"),
            (r"roi_heads\.mask_head\.predictor\.(\w+)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
        ):
            if re.fullmatch(pattern, name):
                return re.sub(pattern, ours, name)
        match = re.fullmatch(r"backbone\.fpn_(lateral|output)([2-5])\.(\w+)", name)
        if match:
            block = "inner" if match[1] == "lateral" else "layer"
            return f"backbone.fpn.{block}_blocks.{int(match[2]) - 2}.0.{match[3]}"
        match = re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", name)
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}" if match else None

    std = tensors.get("pixel_std")
    ours, ignored = _renamed({k: v for k, v in tensors.items() if not k.startswith("pixel_")}, name_of)
    notes = [*_background_first(ours)]
    if style is None and std is not None:
        style = "caffe" if bool((std == 1).all()) else "pytorch"
        notes.append(f"backbone of style {style}: the file's pixel_std says so")
    elif style is None:
        # MSRA's weights come with their norms as a scale and a shift; the frozen ones stay so for ever.
        folded = _is_folded(ours, "backbone.body.bn1.")
        style = "caffe" if folded else "pytorch"
        why = "a scale and a shift, as in MSRA's R-50" if folded else "statistics, as in torchvision's ResNet-50"
        notes.append(f"backbone of style {style}: its first norm has {why}; --style overrules")
    how = replace(DETECTRON2, **CAFFE) if style == "caffe" else DETECTRON2
    return Converted("detectron2", ours, how, None, ignored, tuple(notes))


def _is_folded(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    mean, var = tensors.get(f"{prefix}running_mean"), tensors.get(f"{prefix}running_var")
    if mean is None or var is None:
        return True
    return bool((mean == 0).all()) and bool(((var - 1).abs() < 1e-3).all())


def _resnet(tensors: Mapping[str, Tensor], style: str | None) -> Converted:
    ours, ignored = _renamed(tensors, lambda name: name if name.startswith(("conv1.", "bn1.", "layer")) else None)
    caffe = style == "caffe" or (style is None and _is_folded(ours, "bn1."))
    for name in [n for n in ours if re.search(r"(bn\d|downsample\.1)\.weight$", n)]:
        stem = name.removesuffix("weight")
        # Caffe's norms are a scale and a shift.
        ours.setdefault(f"{stem}running_mean", torch.zeros_like(ours[name]))
        ours.setdefault(f"{stem}running_var", torch.full_like(ours[name], 1 - 1e-5))
    how = replace(TORCHVISION, unit=False, **CAFFE) if caffe else TORCHVISION
    return Converted("resnet50-caffe" if caffe else "resnet50", ours, how, None, ignored)


def tensors_by_part(names: Sequence[str]) -> dict[str, list[str]]:
    """Group names by the part of the network that they belong to, in the order of computation."""
    parts: dict[str, str | tuple[str, ...]] = {
        "backbone": "backbone.body.",
        "pyramid": "backbone.fpn.",
        "proposals": "rpn.",
        "box head": ("roi_heads.box_head.", "roi_heads.box_predictor."),
        "mask head": ("roi_heads.mask_head.", "roi_heads.mask_predictor."),
    }
    found: dict[str, list[str]] = {part: [] for part in parts}
    for name in names:
        part = next((p for p, starts in parts.items() if name.startswith(starts)), "other")
        found.setdefault(part, []).append(name)
    return {part: some for part, some in found.items() if some}
