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
