"""Other networks under the same budget, for `accuracy.py`: torchvision's stock Mask R-CNN, and Ultralytics' YOLO.

`torchvision`: its `MaskRCNN` with default heads, on our backbone with the same ImageNet weights, frozen norms and
frozen early stages, in the place of `maskrcnn-nano`: photos, augmentation, optimiser, schedule, size, minutes,
prediction and score are the same code, so the difference is the network. Only the learning rate is its own: ours, found
for smaller heads, may be too high for it. What its heads say is brought to 32 bits, as ours is: it decodes boxes in the
type of the heads, and in bf16 they would lie two pixels beside the object.

`ultralytics`: `YOLO("yolo11n-seg.yaml")`, that is, without pretrained weights, with its own defaults; given are the
side of its input, the minutes, the seed and all cores (of which it would leave one idle). The data folder is converted
by `maskwright masks --form yolo`. It is a peer only and nothing that the package depends on: where it is not installed,
this says so.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import maskwright as mw
from maskwright import pixels
from maskwright.crops import whole
from maskwright.dataset import Dataset
from maskwright.files import read_photo
from maskwright.halves import cores
from maskwright.models import ARCHITECTURES
from maskwright.models.backbones import Backbone, BackboneSpec
from maskwright.models.weights import load_imagenet

TORCHVISION_RATE = 3e-4
"""Peak rate of AdamW for torchvision's heads, a batch of 2."""

YOLO = "yolo11n-seg.yaml"


class _Pyramid(nn.Module):
    """torchvision's feature pyramid, of its default width."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.out_channels = 256
        self.fpn = FeaturePyramidNetwork(channels, self.out_channels, LastLevelMaxPool())

    def forward(self, found: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        # torchvision's pooling looks for levels by the names 0, 1, 2, 3.
        return self.fpn(OrderedDict((str(i), level) for i, level in enumerate(found.values())))


def in_32_bits(found: Any) -> Any:
    """Return what a head says, a tensor or several of them, in 32 bits."""
    return found.float() if isinstance(found, Tensor) else type(found)(in_32_bits(one) for one in found)


class StockHeads(nn.Module):
    """torchvision's `MaskRCNN` behind our contract for networks; its own resizing is left out, ours has been done."""

    def __init__(self, sizes: Mapping[str, Any], weights: str) -> None:
        super().__init__()
        stages = 3 if weights == "imagenet" else 0
        body = Backbone(BackboneSpec("tf_efficientnet_lite0", (127.0,) * 3, (128.0,) * 3, stages))
        if weights == "imagenet":
            load_imagenet(body.net, body.spec.name)
        body.freeze()
        anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
        self.backbone = body  # under this name it gets the backbone's share of the rate
        self.net = MaskRCNN(_Pyramid(body.channels), int(sizes["categories"]) + 1, rpn_anchor_generator=anchors)
        for head in (self.net.rpn.head, self.net.roi_heads.box_predictor, self.net.roi_heads.mask_predictor):
            head.register_forward_hook(lambda module, given, found: in_32_bits(found))

    def _features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        found = self.net.backbone(self.backbone(images.float()))
        return OrderedDict((name, level.float()) for name, level in found.items())

    def losses(self, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        features = self._features(images)
        height, width = images.shape[-2:]
        listed = ImageList(images.float(), [(height, width)] * len(targets))
        targets = [{**t, "masks": whole(t, (height, width))} for t in targets]
        proposals, first = self.net.rpn(listed, features, targets)
        _, second = self.net.roi_heads(features, proposals, listed.image_sizes, targets)
        none = images.new_zeros((), dtype=torch.float32)
        return {
            "objectness": first["loss_objectness"],
            "rpn_box": first["loss_rpn_box_reg"],
            "classifier": second["loss_classifier"],
            "box": second["loss_box_reg"],
            "mask": second["loss_mask"],
            "semantic": none,
            "box_accuracy": none,
        }

    def detect(
        self, images: Tensor, shapes: Sequence[tuple[int, int]], least_score: float = 0.02
    ) -> list[dict[str, Tensor]]:
        features = self._features(images)
        listed = ImageList(images.float(), [(int(h), int(w)) for h, w in shapes])
        proposals, _ = self.net.rpn(listed, features)
        found, _ = self.net.roi_heads(features, proposals, listed.image_sizes)
        return [
            {
                "boxes": one["boxes"],
                "windows": one["boxes"],
                "labels": one["labels"],
                "scores": one["scores"],
                "masks": one["masks"][:, 0].float(),
            }
            for one in found
        ]


@contextmanager
def stock_heads() -> Iterator[None]:
    """Put torchvision's network in the place of `maskrcnn-nano` for the block."""
    ours = ARCHITECTURES["maskrcnn-nano"]
    ARCHITECTURES["maskrcnn-nano"] = StockHeads
    try:
        yield
    finally:
        ARCHITECTURES["maskrcnn-nano"] = ours


def yolo(data: Path, folder: Path, split: str, minutes: float, seed: int, side: int) -> tuple[Path, int]:
    """Train YOLO on the train split and find the objects of another.

    Args:
        data: A prepared data folder.
        folder: Where to work.
        split: Whose objects to find.
        minutes: Of training.
        seed: Of training.
        side: Longer side of its input in pixels.

    Returns:
        A COCO list of results, and the epochs that were trained.
    """
    try:
        from ultralytics import YOLO as Yolo
    except ImportError:
        raise SystemExit("the peer ultralytics is not installed: pip install ultralytics") from None
    photos = {}
    for name in ("train", split):
        mw.masks(data / "annotations" / f"instances_{name}.json", folder / name, form="yolo", overwrite=True)
        photos[name] = folder / name / "images"
        photos[name].mkdir(exist_ok=True)
        for photo in (data / name).iterdir():
            if not (photos[name] / photo.name).exists():
                (photos[name] / photo.name).hardlink_to(photo)
    truth = Dataset.read_split(data, split)
    assert truth is not None
    names = {i: c.name for i, c in enumerate(truth.categories)}
    described = {"train": str(photos["train"].absolute()), "val": str(photos[split].absolute()), "names": names}
    (folder / "data.yaml").write_text(json.dumps(described))  # JSON is YAML
    model = Yolo(YOLO)
    done: list[int] = []
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(cores()))
    model.add_callback("on_train_epoch_end", lambda trainer: done.append(trainer.epoch))
    model.train(
        data=str(folder / "data.yaml"),
        time=minutes / 60,
        imgsz=side,
        seed=seed,
        device="cpu",
        workers=0,
        pretrained=False,
        val=False,
        plots=False,
        verbose=False,
        project=str(folder),
        name="yolo",
        exist_ok=True,
    )
    rows = []
    for image in truth.images:
        photo = np.ascontiguousarray(read_photo(truth.photo_path(image))[:, :, ::-1])  # it takes BGR
        found = model.predict(photo, imgsz=side, conf=0.001, retina_masks=True, device="cpu", verbose=False)[0]
        if found.masks is None:
            continue
        masks = found.masks.data.cpu().numpy() >= 0.5
        for mask, score, kind in zip(masks, found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True):
            rle = pixels.encode(mask)
            if pixels.area(rle, image.size):
                counts = {"size": list(image.size), "counts": rle.decode()}
                category = truth.categories[int(kind)].id
                rows.append({"image_id": image.id, "category_id": category, "segmentation": counts, "score": score})
    path = folder / "detections.json"
    path.write_text(json.dumps(rows))
    return path, len(done)
