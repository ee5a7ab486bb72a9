"""Random stock networks of torchvision whose scores are spread, so that every step of detection has something to do."""

import functools

import numpy as np
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2


@functools.cache
def reference(heads="v1", classes=4, sides=(160, 280), seed=0):
    """Return torchvision's own network in evaluation mode, background counted among the classes."""
    torch.manual_seed(seed)
    make = maskrcnn_resnet50_fpn if heads == "v1" else maskrcnn_resnet50_fpn_v2
    network = make(weights=None, weights_backbone=None, num_classes=classes, min_size=sides[0], max_size=sides[1])
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                module.weight.uniform_(0.3, 0.6)
        network.rpn.head.cls_logits.weight.normal_(0, 0.1)
        network.rpn.head.bbox_pred.weight.normal_(0, 0.02)
        network.roi_heads.box_predictor.cls_score.weight.mul_(4)
        network.roi_heads.box_predictor.bbox_pred.weight.mul_(2)
        network.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(4)
    return network.eval()


def photo(height=150, width=220, seed=0):
    """Return a photo with edges and flat parts, `(H, W, 3)` uint8."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    for _ in range(12):
        y, x = rng.integers(0, height - 20), rng.integers(0, width - 20)
        h, w = rng.integers(10, height // 2), rng.integers(10, width // 2)
        picture[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(picture + rng.integers(-20, 21, picture.shape), 0, 255).astype(np.uint8)


@torch.inference_mode()
def as_torchvision(network, picture):
    """Return torchvision's own detections of a photo: boxes, labels, scores and masks at the photo's size."""
    tensor = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    return network([tensor])[0]


def _background_last(state):
    """Return heads as MMDetection and Detectron2 have them: background last, and none for boxes and masks."""
    state = dict(state)
    for kind in ("weight", "bias"):
        score, box, mask = (
            f"roi_heads.{head}.{kind}"
            for head in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        )
        state[score] = torch.cat([state[score][1:], state[score][:1]])
        state[box], state[mask] = state[box][4:], state[mask][1:]
    return state


def as_mmdetection(state):
    """Return a state dict of `reference("v1")` under the names that MMDetection gives (see the list of its keys)."""
    found = {}
    for name, value in _background_last(state).items():
        part = name.split(".")
        kind = part[-1]
        if name.startswith("backbone.body."):
            new = name.replace("backbone.body.", "backbone.")
        elif name.startswith("backbone.fpn."):
            new = f"neck.{'lateral_convs' if 'inner' in name else 'fpn_convs'}.{part[3]}.conv.{kind}"
        elif name.startswith("rpn."):
            new = f"rpn_head.{ {'conv': 'rpn_conv', 'cls_logits': 'rpn_cls', 'bbox_pred': 'rpn_reg'}[part[2]] }.{kind}"
        elif name.startswith("roi_heads.box_head."):
            new = f"roi_head.bbox_head.shared_fcs.{ {'fc6': 0, 'fc7': 1}[part[2]] }.{kind}"
        elif name.startswith("roi_heads.box_predictor."):
            new = f"roi_head.bbox_head.{ {'cls_score': 'fc_cls', 'bbox_pred': 'fc_reg'}[part[2]] }.{kind}"
        elif name.startswith("roi_heads.mask_head."):
            new = f"roi_head.mask_head.convs.{part[2]}.conv.{kind}"
        else:
            new = f"roi_head.mask_head.{ {'conv5_mask': 'upsample', 'mask_fcn_logits': 'conv_logits'}[part[2]] }.{kind}"
        found[new] = value
    return found


def as_detectron2(state):
    """Return a state dict of `reference("v1")` under Detectron2's names."""
    found = {}
    for name, value in _background_last(state).items():
        part = name.split(".")
        kind = part[-1]
        if kind == "num_batches_tracked":
            continue  # its frozen norms count nothing
        if name.startswith("backbone.body.layer"):
            block = f"backbone.bottom_up.res{int(part[2][5:]) + 1}.{part[3]}"
            if part[4] == "downsample":
                new = f"{block}.shortcut.{'norm.' if part[5] == '1' else ''}{kind}"
            else:
                new = f"{block}.conv{part[4][-1]}.{'norm.' if part[4].startswith('bn') else ''}{kind}"
        elif name.startswith("backbone.body."):
            new = f"backbone.bottom_up.stem.conv1.{'norm.' if part[2] == 'bn1' else ''}{kind}"
        elif name.startswith("backbone.fpn."):
            new = f"backbone.fpn_{'lateral' if 'inner' in name else 'output'}{int(part[3]) + 2}.{kind}"
        elif name.startswith("rpn."):
            ours = {"conv": "conv", "cls_logits": "objectness_logits", "bbox_pred": "anchor_deltas"}
            new = f"proposal_generator.rpn_head.{ours[part[2]]}.{kind}"
        elif name.startswith("roi_heads.box_head."):
            new = f"roi_heads.box_head.fc{int(part[2][2]) - 5}.{kind}"
        elif name.startswith("roi_heads.box_predictor."):
            new = name
        elif name.startswith("roi_heads.mask_head."):
            new = f"roi_heads.mask_head.mask_fcn{int(part[2]) + 1}.{kind}"
        else:
            new = f"roi_heads.mask_head.{ {'conv5_mask': 'deconv', 'mask_fcn_logits': 'predictor'}[part[2]] }.{kind}"
        found[new] = value
    return found
