"""What the best known base files of MMDetection say, where somebody has copied a config without them.

Only what settings are made of, in our own words; from the files of MMDetection 2.28 and 3.3.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal

Dialect = Literal["2.x", "3.x"]

Facts = dict[str, Any]

SCHEDULES = {"1x": (12, (8, 11)), "20e": (20, (16, 19)), "2x": (24, (16, 22))}
"""By name: the epochs, and those at which the rate drops to a tenth."""

RATE, PHOTOS_A_STEP = 0.02, 16
"""MMDetection's learning rate for SGD, and how many photos a step it is for: 8 GPUs with 2 each."""

SCALE = (1333, 800)
MANY_SCALES = [(1333, short) for short in (640, 672, 704, 736, 768, 800)]

_MODEL = re.compile(r"mask_rcnn_r(50|101)_(caffe_)?fpn")
_SCHEDULE = re.compile(r"schedule_(1x|20e|2x)")
_WHOLE = re.compile(r"(mask_rcnn_r(?:50|101)_(?:caffe_)?fpn)_((?:mstrain|ms)_(?:poly_)?(?=1x))?(1x|2x)_coco")


def facts_of(path: str, dialect: Dialect = "2.x") -> Facts | None:
    """Return what a file of MMDetection says, found by its name alone; `None` if it is not one of the best known.

    Args:
        path: As `_base_` gives it, `mmdet::` included; 2.x's underscores and 3.x's hyphens are the same.
        dialect: In whose words.

    Example:
        >>> facts_of("../_base_/schedules/schedule_2x.py")["runner"]
        {'type': 'EpochBasedRunner', 'max_epochs': 24}
        >>> facts_of("../_base_/models/ssd300.py") is None
        True
    """
    folder, name = ["", *re.split(r"[/\\:]", path)][-2:]
    name, suffix = os.path.splitext(name.replace("-", "_"))
    if suffix != ".py":
        return None
    if whole := _WHOLE.fullmatch(name):
        model, several, schedule = whole.groups()
        scale = MANY_SCALES if several else SCALE
        return _model(model) | _dataset(dialect, scale) | _schedule(dialect, schedule) | _runtime(dialect)
    if _MODEL.fullmatch(name):
        return _model(name)
    if found := _SCHEDULE.fullmatch(name):
        return _schedule(dialect, found[1])
    if name == "coco_instance" and folder in {"", ".", "..", "datasets"}:  # there is one in `dsdl`, which is another
        return _dataset(dialect, SCALE)
    return _runtime(dialect) if name == "default_runtime" else None


def _model(name: str) -> Facts:
    found = _MODEL.fullmatch(name)
    assert found is not None
    depth, caffe = int(found[1]), bool(found[2])
    weights = f"open-mmlab://detectron2/resnet{depth}_caffe" if caffe else f"torchvision://resnet{depth}"
    backbone = {
        "type": "ResNet",
        "depth": depth,
        "style": "caffe" if caffe else "pytorch",
        "init_cfg": {"type": "Pretrained", "checkpoint": weights},
    }
    heads = {"bbox_head": {"num_classes": 80}, "mask_head": {"num_classes": 80}}
    return {"model": {"type": "MaskRCNN", "backbone": backbone, "neck": {"type": "FPN"}, "roi_head": heads}}


def _dataset(dialect: Dialect, scale: Any) -> Facts:
    root, several = "data/coco/", isinstance(scale, list)
    ann = {split: f"annotations/instances_{split}2017.json" for split in ("train", "val")}
    if dialect == "2.x":
        resize: Facts = {"type": "Resize", "img_scale": scale, "keep_ratio": True}
        resize |= {"multiscale_mode": "value"} if several else {}
        pipeline: list[Facts] = [resize, {"type": "RandomFlip", "flip_ratio": 0.5}]
        train, val = (
            {"type": "CocoDataset", "ann_file": root + file, "img_prefix": f"{root}{split}2017/"}
            for split, file in ann.items()
        )
        data: Facts = {"samples_per_gpu": 2, "workers_per_gpu": 2}
        data |= {"train": {**train, "pipeline": pipeline}, "val": val, "test": val}
        return {"data_root": root, "dataset_type": "CocoDataset", "train_pipeline": pipeline, "data": data}
    resize = {"type": "RandomChoiceResize", "scales": scale} if several else {"type": "Resize", "scale": scale}
    pipeline = [resize | {"keep_ratio": True}, {"type": "RandomFlip", "prob": 0.5}]
    learned, judged = (
        {"type": "CocoDataset", "data_root": root, "ann_file": file, "data_prefix": {"img": f"{split}2017/"}}
        for split, file in ann.items()
    )
    return {
        "data_root": root,
        "dataset_type": "CocoDataset",
        "backend_args": None,
        "train_pipeline": pipeline,
        "train_dataloader": {"batch_size": 2, "num_workers": 2, "dataset": {**learned, "pipeline": pipeline}},
        "val_dataloader": {"batch_size": 1, "num_workers": 2, "dataset": judged},
        "test_dataloader": {"batch_size": 1, "num_workers": 2, "dataset": judged},
        "val_evaluator": {"type": "CocoMetric", "ann_file": root + ann["val"]},
    }


def _schedule(dialect: Dialect, name: str) -> Facts:
    epochs, drops = SCHEDULES[name]
    optimiser = {"type": "SGD", "lr": RATE, "momentum": 0.9, "weight_decay": 0.0001}
    if dialect == "2.x":
        warmup = {"warmup": "linear", "warmup_iters": 500, "warmup_ratio": 0.001}
        return {
            "optimizer": optimiser,
            "optimizer_config": {"grad_clip": None},
            "lr_config": {"policy": "step", **warmup, "step": list(drops)},
            "runner": {"type": "EpochBasedRunner", "max_epochs": epochs},
        }
    warmup = {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 500}
    steps = {
        "type": "MultiStepLR",
        "begin": 0,
        "end": epochs,
        "by_epoch": True,
        "milestones": list(drops),
        "gamma": 0.1,
    }
    return {
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": epochs, "val_interval": 1},
        "param_scheduler": [warmup, steps],
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": optimiser},
        "auto_scale_lr": {"enable": False, "base_batch_size": PHOTOS_A_STEP},
    }


def _runtime(dialect: Dialect) -> Facts:
    if dialect == "2.x":
        return {"log_config": {"interval": 50}, "load_from": None, "resume_from": None}
    return {"default_hooks": {"logger": {"type": "LoggerHook", "interval": 50}}, "load_from": None, "resume": False}
