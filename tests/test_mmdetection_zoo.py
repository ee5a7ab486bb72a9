"""What MMDetection's best known files say; `benchmarks/mmdetection.py` holds it against the files themselves."""

import pytest

from maskwright.mmdetection.zoo import facts_of


@pytest.mark.parametrize(
    ("name", "epochs", "drops"),
    [("schedule_1x", 12, [8, 11]), ("schedule_20e", 20, [16, 19]), ("schedule_2x", 24, [16, 22])],
)
def test_schedules_are_known_in_both_dialects(name, epochs, drops):
    old, new = (facts_of(f"../_base_/schedules/{name}.py", dialect) for dialect in ("2.x", "3.x"))
    assert (old["runner"]["max_epochs"], old["lr_config"]["step"]) == (epochs, drops)
    assert (new["train_cfg"]["max_epochs"], new["param_scheduler"][1]["milestones"]) == (epochs, drops)
    sgd = {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0001}
    assert old["optimizer"] == new["optim_wrapper"]["optimizer"] == sgd
    assert old["lr_config"]["warmup_iters"] == new["param_scheduler"][0]["end"] == 500
    assert new["auto_scale_lr"]["base_batch_size"] == 16


def test_the_dataset_is_known_in_both_dialects():
    old, new = (facts_of("../_base_/datasets/coco_instance.py", dialect) for dialect in ("2.x", "3.x"))
    assert old["data"]["samples_per_gpu"] == new["train_dataloader"]["batch_size"] == 2
    assert old["data"]["train"]["pipeline"][0] == {"type": "Resize", "img_scale": (1333, 800), "keep_ratio": True}
    assert new["train_dataloader"]["dataset"]["pipeline"][0] == {
        "type": "Resize",
        "scale": (1333, 800),
        "keep_ratio": True,
    }
    assert old["data"]["train"]["pipeline"][1] == {"type": "RandomFlip", "flip_ratio": 0.5}
    assert new["train_dataloader"]["dataset"]["pipeline"][1] == {"type": "RandomFlip", "prob": 0.5}


@pytest.mark.parametrize(
    ("name", "depth", "style", "weights"),
    [
        ("mask_rcnn_r50_fpn.py", 50, "pytorch", "torchvision://resnet50"),
        ("mask-rcnn_r50_fpn.py", 50, "pytorch", "torchvision://resnet50"),
        ("mask_rcnn_r101_fpn_1x_coco.py", 101, "pytorch", "torchvision://resnet101"),
        ("mask-rcnn_r50-caffe_fpn_ms-poly-1x_coco.py", 50, "caffe", "open-mmlab://detectron2/resnet50_caffe"),
        ("mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py", 50, "pytorch", "torchvision://resnet50"),
    ],
)
def test_models_are_known_in_either_spelling(name, depth, style, weights):
    backbone = facts_of(name)["model"]["backbone"]
    assert (backbone["depth"], backbone["style"], backbone["init_cfg"]["checkpoint"]) == (depth, style, weights)


def test_a_whole_config_is_its_four_files():
    whole = facts_of("../mask_rcnn/mask_rcnn_r50_fpn_2x_coco.py")
    files = ("models/mask_rcnn_r50_fpn", "datasets/coco_instance", "schedules/schedule_2x", "default_runtime")
    parts = [facts_of(f"../_base_/{file}.py") for file in files]
    assert whole == {key: value for part in parts for key, value in part.items()}
    assert sum(map(len, parts)) == len(whole), "two of them set the same name"


def test_a_config_of_several_sizes_has_them():
    steps = facts_of("mask_rcnn_r50_caffe_fpn_mstrain-poly_1x_coco.py")["data"]["train"]["pipeline"]
    assert steps[0]["img_scale"][0] == (1333, 640)
    assert steps[0]["img_scale"][-1] == (1333, 800)


@pytest.mark.parametrize(
    "name",
    [
        "../_base_/models/cascade_mask_rcnn_r50_fpn.py",
        "../_base_/datasets/coco_detection.py",
        "dsdl/coco_instance.py",
        "mask_rcnn_r50_caffe_fpn_mstrain-poly_2x_coco.py",  # its steps are others
        "mask_rcnn_r50_fpn_1x_coco.yaml",
        "mask_rcnn_r50_fpn",
        "schedule_3x.py",
        "my_mask_rcnn_r50_fpn.py",
        "",
    ],
)
def test_other_files_are_not_known(name):
    assert facts_of(name) is None
