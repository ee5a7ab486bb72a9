"""What a config says becomes a setting, is derived instead, or is dropped, and each with a reason."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.errors import UserError
from maskwright.mmdetection.carry import carry
from maskwright.mmdetection.config import Config, read_config
from maskwright.mmdetection.literals import Table, Where
from maskwright.settings import TrainSettings
from test_plan import GPU, planned

HERE = Where("x.py", 1)


def tables(value):
    if isinstance(value, dict):
        return Table({k: tables(v) for k, v in value.items()}, dict.fromkeys(value, HERE))
    return [tables(one) for one in value] if isinstance(value, list) else value


def carried(dialect="2.x", **values):
    return carry(Config(tables(values), dialect, ("x.py",), (), ()))


def settings(dialect="2.x", **values):
    return carried(dialect, **values)[0].settings


def reasons(account, what):
    return [row.why for row in account.rows if row.what == what]


def fate(account, what):
    (row,) = [row for row in account.rows if row.what == what]
    return row.outcome, row.becomes


def old(pipeline=(), **more):
    """Return the `data` of a 2.x config."""
    return {"samples_per_gpu": 2, "train": {"type": "CocoDataset", "pipeline": list(pipeline)}, **more}


def new(pipeline=(), **more):
    """Return the `train_dataloader` of a 3.x config."""
    return {"batch_size": 2, "dataset": {"type": "CocoDataset", "pipeline": list(pipeline)}, **more}


# The whole

OLD = """
_base_ = ['../_base_/models/mask_rcnn_r50_fpn.py', '../_base_/default_runtime.py']
data_root = 'data/hammer/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', img_scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', flip_ratio=0.5),
]
data = dict(
    samples_per_gpu=2,
    workers_per_gpu=2,
    train=dict(
        type='RepeatDataset',
        times=4,
        dataset=dict(
            type='CocoDataset',
            classes=('hammer',),
            ann_file=data_root + 'annotations/instances_train.json',
            img_prefix=data_root + 'train/',
            pipeline=train_pipeline)),
    val=dict(
        type='CocoDataset',
        ann_file=data_root + 'annotations/instances_val.json',
        img_prefix=data_root + 'val/'))
optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))
lr_config = dict(policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[16, 22])
runner = dict(type='EpochBasedRunner', max_epochs=24)
seed = 3
"""

NEW = """
_base_ = ['../_base_/models/mask-rcnn_r50_fpn.py', '../_base_/default_runtime.py']
metainfo = dict(classes=('hammer',))
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    dataset=dict(
        type='RepeatDataset',
        times=4,
        dataset=dict(
            type='CocoDataset',
            metainfo=metainfo,
            data_root='data/hammer/',
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(1333, 800), keep_ratio=True),
                dict(type='RandomFlip', prob=0.5),
            ])))
val_dataloader = dict(
    dataset=dict(data_root='data/hammer/', ann_file='annotations/instances_val.json', data_prefix=dict(img='val/')))
optim_wrapper = dict(
    type='OptimWrapper',
    clip_grad=dict(max_norm=35, norm_type=2),
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=24, val_interval=1)
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness = dict(seed=3)
"""

WHOLE = {
    "architecture": "maskrcnn-r50-fpn",
    "weights": "imagenet",
    "repeat": 4,
    "side": 1333,
    "short_side": 800,
    "flip": True,
    "optimiser": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "backbone_rate": 1.0,
    "clip_norm": 35,
    "epochs": 24,
    "schedule": "steps",
    "drops": [16, 22],
    "warmup": 500,
    "log_every": 50,
    "seed": 3,
}


@pytest.mark.parametrize("text", [OLD, NEW], ids=["2.x", "3.x"])
def test_both_dialects_give_the_same_settings_and_commands(tmp_path, text):
    path = tmp_path / "x.py"
    path.write_text(text)
    account, commands = carry(read_config(path))
    assert account.settings == WHOLE
    assert TrainSettings.parse(account.settings).drops == (16, 22)
    assert commands == ["maskwright prepare data/hammer -o DATA"]
    assumed, names = account.notes
    assert "default_runtime.py are not there, and MMDetection's own values are assumed" in assumed
    assert names == "model.roi_head.bbox_head.num_classes is 80, but the config has 1 class name"


@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("lr", ["0.02", "0.0025", "0.01"])
@pytest.mark.parametrize(("text", "batch", "at"), [(OLD, "data.samples_per_gpu", ""), (NEW, "", "optim_wrapper.")])
def test_on_any_number_of_gpus_the_batch_and_the_rate_are_mmdetections(tmp_path, text, batch, at, lr, gpus):
    path = tmp_path / "x.py"
    path.write_text(text.replace("lr=0.02", f"lr={lr}"))
    account, _ = carry(read_config(path))
    assert fate(account, batch or "train_dataloader.batch_size") == ("derived", "")
    assert fate(account, f"{at}optimizer.lr") == ("derived", "")
    made = planned(machine=replace(GPU, count=gpus), **account.settings)
    assert (made.settings.batch_size, made.settings.devices) == (2 * gpus, gpus)
    assert made.settings.learning_rate == pytest.approx(0.02 * 2 * gpus / 16)
    assert made.reasons["learning_rate"].source == made.reasons["batch_size"].source == "derived"


def test_where_the_plan_would_have_another_batch_it_is_carried():
    ours = {"optimizer": {"type": "SGD", "lr": 0.02}, "model": {"type": "MaskRCNN"}, "data": old()}
    assert "batch_size" not in settings(**ours)
    assert settings(**ours | {"data": old(samples_per_gpu=4)})["batch_size"] == 4
    assert settings(**ours | {"model": {"type": "RetinaNet"}})["batch_size"] == 2  # the network is left open
    counted = settings(**ours, runner={"type": "IterBasedRunner", "max_iters": 900})
    assert (counted["batch_size"], counted["steps"]) == (2, 7200)  # the steps are of so many photos


@pytest.mark.parametrize("text", [OLD, NEW], ids=["2.x", "3.x"])
def test_everything_that_a_config_says_is_told(tmp_path, text):
    path = tmp_path / "x.py"
    path.write_text(text)
    config = read_config(path)
    account, _ = carry(config)
    told = " ".join(row.what for row in account.rows)
    silent = {"load_from", "data_root", "train_pipeline", "metainfo"}  # nothing, or helpers that are used
    parts = {"param_scheduler"}  # told by the names of its parts
    assert {name for name in config.values if name not in told} <= silent | parts
    assert config.dialect == "2.x" or {"LinearLR.end", "MultiStepLR.milestones"} <= {row.what for row in account.rows}
    assert all(row.why and row.where for row in account.rows)


def test_a_file_without_a_name_of_mmdetection_is_refused():
    with pytest.raises(UserError) as caught:
        carried(a=1, b=2)
    assert str(caught.value) == (
        "the file is not a config of MMDetection: it sets no name that MMDetection reads\n"
        "  x.py sets a, b\nfix: name a config that tools/train.py of MMDetection takes"
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["SGD", "step"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "dataset", "a"]), inner),
    max_leaves=5,
)
PATHS = (
    *("model.type", "model.backbone", "model.backbone.depth", "model.backbone.init_cfg", "load_from", "data"),
    *("data.samples_per_gpu", "data.train", "data.train.times", "data.train.pipeline", "data.train.ann_file"),
    *("classes", "data.val", "data.train.type", "lr_config", "optimizer", "model.roi_head.bbox_head.num_classes"),
    *("optimizer.type", "optimizer.lr", "optimizer.momentum", "optimizer.weight_decay", "optimizer_config", "runner"),
    *("lr_config.policy", "lr_config.step", "lr_config.warmup", "lr_config.warmup_iters", "runner.max_epochs", "seed"),
    *("train_dataloader.batch_size", "train_dataloader.dataset", "param_scheduler", "optim_wrapper.optimizer.lr"),
    *(
        "train_cfg.max_epochs",
        "train_cfg.max_iters",
        "auto_scale_lr.base_batch_size",
        "default_hooks.logger",
        "classes",
    ),
)
WORLD = {
    "model": {"type": "MaskRCNN", "backbone": {"type": "ResNet", "depth": 50}},
    "data": old([{"type": "Resize", "img_scale": (1333, 800)}], val={"ann_file": "v.json"}),
    "optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4},
    "lr_config": {"policy": "step", "step": [8], "warmup": "linear", "warmup_iters": 5},
    "runner": {"max_epochs": 12},
    "train_dataloader": new([{"type": "Resize", "scale": (1333, 800)}]),
    "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.02}},
    "param_scheduler": [{"type": "MultiStepLR", "milestones": [8]}],
    "train_cfg": {"max_epochs": 12},
}


@given(st.lists(st.tuples(st.sampled_from(PATHS), values), max_size=4), st.sampled_from(["2.x", "3.x"]))
def test_whatever_stands_there_is_carried_as_a_valid_setting_or_told(changes, dialect):
    world = tables(WORLD)
    for path, value in changes:
        *tops, name = path.split(".")
        place = world
        for top in tops:
            if not isinstance(place.get(top), Table):
                place.put(top, Table(), HERE)
            place = place[top]
        place.put(name, tables(value), HERE)
    account, commands = carry(Config(world, dialect, ("x.py",), (), ()))
    parsed = TrainSettings.parse(account.settings)
    assert parsed.learning_rate is None or math.isfinite(parsed.learning_rate)
    assert all(command.startswith("maskwright prepare ") for command in commands)


# The network


def network(kind="MaskRCNN", **backbone):
    return {"type": kind, "backbone": backbone}


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ({"type": "ResNet", "depth": 50}, None),
        ({"type": "ResNet", "depth": 101}, "resnet101"),
        ({"type": "ResNet", "depth": 18}, "resnet18"),
        ({"type": "ResNeXt", "depth": 101, "groups": 32, "base_width": 8}, "resnext101_32x8d"),
        ({"type": "ResNeXt", "depth": 101, "groups": 7, "base_width": 8}, None),
        ({"type": "SwinTransformer", "depths": [2, 2, 6, 2]}, None),
    ],
)
def test_the_backbone_gets_its_name_in_timm(backbone, name):
    account, _ = carried(model=network(**backbone))
    assert account.settings["architecture"] == "maskrcnn-r50-fpn"
    assert account.settings.get("backbone") == name
    unknown = backbone["type"] == "SwinTransformer" or backbone.get("groups") == 7
    assert any("choose one: --backbone NAME" in row.why for row in account.rows) is unknown


def test_another_network_leaves_the_architecture_open():
    account, _ = carried(model=network("RetinaNet", type="ResNet", depth=50))
    assert "architecture" not in account.settings
    assert reasons(account, "model.type") == [
        "there is no RetinaNet here; the architecture is left open (--architecture), and the rate and the schedule may"
        " not suit it"
    ]


RESNET, CAFFE = "torchvision://resnet50", "open-mmlab://detectron2/resnet50_caffe"


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({"model": {"pretrained": RESNET}}, "imagenet"),
        ({"model": {"pretrained": None}}, "none"),
        ({"model": network(init_cfg={"type": "Pretrained", "checkpoint": CAFFE})}, "imagenet"),
        ({"model": network(init_cfg=None)}, "none"),
        ({"model": network(init_cfg={"type": "Pretrained", "checkpoint": "mine.pth"})}, None),
        ({"model": network(type="ResNet")}, None),
        ({"load_from": "checkpoints/mask.pth", "model": {"pretrained": RESNET}}, "checkpoints/mask.pth"),
        ({"load_from": None, "model": {"pretrained": RESNET}}, "imagenet"),
        ({"load_from": "https://download.openmmlab.com/m.pth", "model": {"pretrained": None}}, "none"),
    ],
)
def test_what_training_starts_from(values, weights):
    assert settings(**values).get("weights") == weights


def test_nothing_is_downloaded():
    account, _ = carried(load_from="https://download.openmmlab.com/m.pth")
    assert reasons(account, "load_from") == ["nothing is downloaded: fetch the file, then train with --weights FILE"]


# The rate


def rate(lr, batch, base=None, enable=False, kind="SGD"):
    values = {"optimizer": {"type": kind, "lr": lr}, "data": old() | {"samples_per_gpu": batch}}
    if base is not None:
        values["auto_scale_lr"] = {"base_batch_size": base, "enable": enable}
    account, _ = carried(**values)
    return account.settings.get("learning_rate"), reasons(account, "optimizer.lr")[0]


RULE = "the plan's rule is the same: 0.02 x photos a step / 16"
ONE = "this is for one device, in proportion for more"


@pytest.mark.parametrize(
    ("given_ones", "ours", "why"),
    [
        (
            (0.02, 2),
            None,
            f"0.02 is for 16 photos a step (8 GPUs x 2); {RULE}, 0.0025 for 2; if it was meant for 2 a step:"
            " --learning-rate 0.02",
        ),
        (
            (0.0025, 2),
            None,
            f"0.0025 is MMDetection's 0.02 for 16 photos a step, divided for 2 (1 GPU x 2); {RULE}, 0.0025 for 2; if it"
            " was meant for 16 a step: --learning-rate 0.0003125",
        ),
        (
            (0.01, 2),
            None,
            f"0.01 is MMDetection's 0.02 for 16 photos a step, divided for 8 (4 GPUs x 2); {RULE}, 0.0025 for 2; if it"
            " was meant for 16 a step: --learning-rate 0.00125",
        ),
        (
            (0.001, 2),
            0.001,
            "0.001 is less than MMDetection's rule gives for 2 photos a step, 0.0025: kept; if it was meant for 16 a"
            f" step: --learning-rate 0.000125; {ONE}",
        ),
        (
            (0.003, 2),
            0.000375,
            "0.003 is for 16 photos a step (8 GPUs x 2); for 2 it is 0.003 x 2 / 16; if it was meant for 2 a step:"
            f" --learning-rate 0.003; {ONE}",
        ),
        ((0.02, 16), None, f"0.02 is for 16 photos a step (8 GPUs x 2); {RULE}, 0.02 for 16"),
        ((0.02, 4, 16), None, None),
        (
            (0.08, 8, 64),
            None,
            f"0.08 is for 64 photos a step; {RULE}, 0.01 for 8; if it was meant for 8 a step: --learning-rate 0.08",
        ),
        ((0.005, 8, 8), 0.005, f"0.005 is for 8 photos a step; {ONE}"),
        ((0.0025, 2, 16, True), 0.0003125, None),
        ((0.0025, 2, 0), None, None),
        ((1e-4, 2, 16, False, "AdamW"), 1.25e-5, None),
        ((0.02, 2, 16, False, "AdamW"), 0.0025, None),  # the plan's rule for AdamW is another
    ],
)
def test_a_rate_by_the_rule_is_left_to_the_plan_others_are_for_one_device_and_doubts_are_told(given_ones, ours, why):
    found, told = rate(*given_ones)
    assert found == (ours and pytest.approx(ours))
    assert why is None or told == why


@given(st.integers(1, 8), st.integers(1, 8))
def test_mmdetections_rate_divided_for_any_number_of_gpus_is_left_to_the_plan(batch, gpus):
    assert rate(0.02 * batch * gpus / 16, batch)[0] is None


def test_a_rate_without_a_batch_is_left_open():
    account, _ = carried(optimizer={"type": "SGD", "lr": 0.02})
    assert "learning_rate" not in account.settings
    assert fate(account, "optimizer.lr") == ("derived", "")


@pytest.mark.parametrize("lr", [0, -1, math.inf, math.nan, "0.02", True, [0.02]])
def test_a_rate_that_is_none_is_dropped(lr):
    account, _ = carried(optimizer={"type": "SGD", "lr": lr}, data=old())
    assert "learning_rate" not in account.settings
    assert fate(account, "optimizer.lr") == ("dropped", "")


# The optimiser


def test_adamw_with_a_rate_of_its_own_for_the_backbone():
    adamw = {"type": "AdamW", "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.05}
    wise = {"custom_keys": {"backbone": {"lr_mult": 0.1}, "norm": {"decay_mult": 0.0}}}
    found, _ = carried("3.x", optim_wrapper={"optimizer": adamw, "paramwise_cfg": wise}, train_dataloader=new())
    assert found.settings["optimiser"] == "adamw"
    assert found.settings["backbone_rate"] == 0.1
    assert found.settings["weight_decay"] == 0.05
    assert "momentum" not in found.settings
    rest = [row.what for row in found.rows if row.outcome == "dropped"]
    assert rest == ["optim_wrapper.optimizer.betas, optim_wrapper.paramwise_cfg.custom_keys.norm"]


def test_another_optimiser_is_left_open_with_its_numbers():
    account, _ = carried(optimizer={"type": "RMSprop", "lr": 0.02, "weight_decay": 0.1}, data=old())
    assert {"optimiser", "learning_rate", "weight_decay", "backbone_rate"} & set(account.settings) == set()
    assert "there are sgd and adamw here" in reasons(account, "optimizer.type")[0]


def test_no_clipping_is_derived_instead():
    account, _ = carried(optimizer={"type": "SGD"}, optimizer_config={"grad_clip": None})
    assert "clip_norm" not in account.settings
    assert fate(account, "optimizer_config.grad_clip") == ("derived", "")


# The schedule


def schedule_old(epochs=12, **lr_config):
    return carried(lr_config=lr_config, runner={"type": "EpochBasedRunner", "max_epochs": epochs})[0]


def schedule_new(*parts, epochs=12):
    return carried("3.x", param_scheduler=list(parts), train_cfg={"max_epochs": epochs})[0]


def test_a_number_of_epochs_between_drops_becomes_a_list():
    assert schedule_old(policy="step", step=4).settings["drops"] == [4, 8]
    assert schedule_new({"type": "StepLR", "step_size": 5}).settings["drops"] == [5, 10]


def test_another_factor_is_told():
    account = schedule_old(policy="step", step=[8], gamma=0.5)
    assert account.settings["drops"] == [8]
    why = "the epochs at which the rate drops, to a tenth, where the config has 0.5"
    assert why in reasons(account, "lr_config.step")


@pytest.mark.parametrize(
    ("account", "schedule", "drops"),
    [
        (schedule_old(policy="CosineAnnealing", min_lr=0), "cosine", None),
        (schedule_old(policy="fixed"), "steps", []),
        (schedule_old(policy="poly"), None, None),
        (schedule_old(policy="step", step="8"), None, None),
        (schedule_new({"type": "CosineAnnealingLR", "T_max": 12}), "cosine", None),
        (schedule_new({"type": "LinearLR", "by_epoch": False, "end": 5}), "steps", []),
        (schedule_new({"type": "PolyLR"}), None, None),
        (schedule_new({"type": "MultiStepLR", "milestones": [3], "by_epoch": False}), None, None),
    ],
)
def test_schedules(account, schedule, drops):
    assert account.settings.get("schedule") == schedule
    assert account.settings.get("drops") == drops


@pytest.mark.parametrize(
    ("account", "warmup"),
    [
        (schedule_old(policy="step", step=[8], warmup="linear", warmup_iters=500), 500),
        (schedule_old(policy="step", step=[8], warmup="constant", warmup_iters=100), 100),
        (schedule_old(policy="step", step=[8]), 0),
        (schedule_old(policy="step", step=[8], warmup=None), 0),
        (schedule_old(policy="step", step=[8], warmup="linear", warmup_iters=5, warmup_by_epoch=True), None),
        (schedule_new({"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 500}), 500),
        (schedule_new({"type": "ConstantLR", "by_epoch": False, "end": 50}), 50),
        (schedule_new({"type": "LinearLR", "by_epoch": True, "end": 1}), None),
        (schedule_new({"type": "LinearLR", "by_epoch": False}), None),
        (schedule_new({"type": "MultiStepLR", "milestones": [8]}), 0),
    ],
)
def test_warm_ups(account, warmup):
    assert account.settings.get("warmup") == warmup


def test_the_older_name_of_the_epochs():
    assert settings(total_epochs=7)["epochs"] == 7


def test_epochs_that_contradict_each_other_are_told():
    account, _ = carried(runner={"max_epochs": 24}, total_epochs=12)
    assert account.settings["epochs"] == 24
    assert fate(account, "total_epochs") == ("dropped", "")
    assert reasons(account, "total_epochs") == ["runner.max_epochs is what counts"]


def test_steps_become_as_many_as_see_the_same_photos():
    account, _ = carried(
        "3.x",
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 90_000},
        train_dataloader=new(),
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.02}},
        param_scheduler=[{"type": "MultiStepLR", "milestones": [60_000, 80_000], "by_epoch": False}],
    )
    assert account.settings["steps"] == 720_000
    assert "schedule" not in account.settings
    assert reasons(account, "MultiStepLR.milestones") == [
        "it counts steps, not epochs: an epoch is the step x 16 / your photos (--schedule steps --drops EPOCH)"
    ]


def test_steps_of_a_rate_that_was_divided_by_hand_stay():
    account, _ = carried(
        data=old(), optimizer={"type": "SGD", "lr": 0.0025}, runner={"type": "IterBasedRunner", "max_iters": 900}
    )
    assert account.settings["steps"] == 900


# Pictures


@pytest.mark.parametrize(
    ("step", "side", "short_side"),
    [
        ({"type": "Resize", "img_scale": (1333, 800)}, 1333, 800),
        ({"type": "Resize", "scale": (800, 1333)}, 1333, 800),
        ({"type": "Resize", "scale": 512}, 512, 512),
        ({"type": "Resize", "img_scale": [(1333, 640), (1333, 800)], "multiscale_mode": "range"}, 1333, 800),
        ({"type": "RandomResize", "scale": [(1333, 640), (1333, 800)]}, 1333, 800),
        ({"type": "RandomChoiceResize", "scales": [(480, 1333), (800, 1333)]}, 1333, 800),
        ({"type": "RandomResize", "scale": (1024, 1024), "ratio_range": (0.1, 2.0)}, 1024, 1024),
        ({"type": "RandomChoice", "transforms": [[{"type": "Resize", "scale": (640, 480)}]]}, 640, 480),
        ({"type": "Resize", "scale": (4096, 2048)}, None, None),
        ({"type": "Resize", "scale": "large"}, None, None),
        ({"type": "Resize", "scale": (1, 2, 3)}, None, None),
        ({"type": "Resize", "scale": (0, 5)}, None, None),
        ({"type": "Resize", "scale_factor": 0.5}, None, None),
    ],
)
def test_the_size_of_the_input(step, side, short_side):
    found = settings(data=old([step]))
    assert (found.get("side"), found.get("short_side")) == (side, short_side)


def test_a_size_that_ours_cannot_have_is_told():
    account, _ = carried(data=old([{"type": "Resize", "scale": (4096, 2048)}]))
    assert reasons(account, "Resize.scale") == ["side cannot be 4096: input should be less than or equal to 2048"]


def test_several_sizes_are_told_with_the_zoom_that_they_are():
    account, _ = carried(data=old([{"type": "Resize", "img_scale": [(1333, 640), (1333, 800)]}]))
    why = "one size, and the zoom that the plan has (--scale-jitter 1.25 is near)"
    assert why in reasons(account, "Resize.img_scale")


@pytest.mark.parametrize(
    ("steps", "flip"),
    [
        ([{"type": "RandomFlip", "flip_ratio": 0.5}], True),
        ([{"type": "RandomFlip", "prob": 0.5}], True),
        ([{"type": "RandomFlip", "prob": 0.0}], False),
        ([{"type": "RandomFlip"}], False),
        ([{"type": "RandomFlip", "prob": 0.5, "direction": "vertical"}], False),
        ([{"type": "RandomFlip", "prob": [0.3, 0.3], "direction": ["horizontal", "vertical"]}], True),
        ([], False),
    ],
)
def test_flips(steps, flip):
    assert settings(data=old(steps))["flip"] is flip
    assert settings("3.x", train_dataloader=new(steps))["flip"] is flip


def test_another_share_of_flips_and_other_directions_are_told():
    account, _ = carried(data=old([{"type": "RandomFlip", "prob": 0.3, "direction": ["horizontal", "vertical"]}]))
    assert reasons(account, "RandomFlip.prob") == ["photos are mirrored left-right; every second photo here, 0.3 there"]
    assert fate(account, "RandomFlip.direction") == ("dropped", "")


def test_other_transforms_are_told_by_name():
    steps = [{"type": "Pad"}, {"type": "PhotoMetricDistortion"}, {"type": "Albu", "transforms": []}]
    account, _ = carried(data=old(steps))
    dropped = [row.what for row in account.rows if row.outcome == "dropped"]
    assert dropped == ["PhotoMetricDistortion", "Albu"]


def test_photos_that_lose_their_shape_are_told():
    account, _ = carried(data=old([{"type": "Resize", "scale": (640, 480), "keep_ratio": False}]))
    assert reasons(account, "Resize.keep_ratio") == ["photos keep their shape here"]


# Data


def test_repeats_inside_repeats_multiply():
    inner = {"type": "RepeatDataset", "times": 3, "dataset": {"type": "CocoDataset", "pipeline": []}}
    assert settings(data={"train": {"type": "RepeatDataset", "times": 2, "dataset": inner}})["repeat"] == 6


def test_a_class_balanced_dataset_repeats_rare_categories():
    inner = {"type": "CocoDataset", "ann_file": "a.json", "img_prefix": "a/"}
    balanced = {"type": "ClassBalancedDataset", "oversample_thr": 1e-3, "dataset": inner}
    account, commands = carried(data={"train": balanced})
    assert fate(account, "data.train.oversample_thr") == ("carried", "repeat_rare 0.001")
    assert commands == ["maskwright prepare a/ a.json -o DATA"]
    twice = {"type": "RepeatDataset", "times": 2, "dataset": balanced}
    both = settings(data={"train": twice})
    assert (both["repeat"], both["repeat_rare"]) == (2, 0.001)
    account, _ = carried(data={"train": {**balanced, "oversample_thr": 2}})
    assert fate(account, "data.train.oversample_thr") == ("dropped", "")


def test_a_dataset_of_datasets_is_told_and_its_first_file_taken():
    parts = [{"type": "CocoDataset", "ann_file": f"{n}.json", "img_prefix": f"{n}/"} for n in "ab"]
    account, commands = carried(data={"train": {"type": "ConcatDataset", "datasets": parts}})
    assert fate(account, "data.train.type") == ("dropped", "")
    assert account.notes == ["train has 2 annotation files; the command below takes the first"]
    assert commands == ["maskwright prepare a/ a.json -o DATA"]


def test_a_list_of_files_is_told():
    account, commands = carried(data={"train": {"ann_file": ["a.json", "b.json"], "img_prefix": "a/"}})
    assert reasons(account, "data.train.ann_file") == ["it is not one file; prepare takes one COCO file per split"]
    assert commands == ["maskwright prepare RAW -o DATA"]


def places(**splits):
    return {split: {"ann_file": ann, "img_prefix": photos} for split, (ann, photos) in splits.items()}


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (places(train=("d/annotations/t.json", "d/t/"), val=("d/annotations/v.json", "d/v/")), "prepare d"),
        (places(train=("d/train/t.json", "d/train/"), val=("d/val/v.json", "d/val/")), "prepare d"),
        (places(train=("annotations/t.json", "t/"), val=("annotations/v.json", "v/")), "prepare ."),
        (places(train=("t.json", ""), val=("v.json", "")), "prepare ."),
        (places(train=("/d/t.json", "/d/t"), val=("/d/v.json", "/d/v")), "prepare /d"),
        (places(train=("d/t.json", "d/t/"), val=("e/v.json", "e/v/")), "prepare d/t/ d/t.json"),
        (places(train=("d/t.json", "d/t/"), val=("d/v.json", "/photos/v/")), "prepare d/t/ d/t.json"),
        (places(train=("d/t.json", "d/t/"), val=("d/t.json", "d/t/")), "prepare d/t/ d/t.json"),
        (places(train=("my data/t.json", "my data/t")), "prepare 'my data/t' 'my data/t.json'"),
        (places(train=("t.json", "")), "prepare . t.json"),
    ],
)
def test_the_command_that_prepares_the_data(data, command):
    account, commands = carried(data=data)
    assert commands == [f"maskwright {command} -o DATA"]
    assert fate(account, "data.train.ann_file")[0] == "carried"


def test_paths_hang_on_the_root_unless_they_are_absolute():
    data = {"train": {"data_root": "root/", "ann_file": "t.json", "img_prefix": "/photos/t"}}
    assert carried(data=data)[1] == ["maskwright prepare /photos/t root/t.json -o DATA"]


def test_names_and_their_number_are_those_of_the_data():
    model = {"type": "MaskRCNN", "roi_head": {"bbox_head": {"num_classes": 80}, "mask_head": {"num_classes": 2}}}
    account, _ = carried(model=model, data={"train": {"classes": ("hammer", "nut")}})
    assert fate(account, "data.train.classes") == ("derived", "")
    assert "it should have hammer, nut" in reasons(account, "data.train.classes")[0]
    assert account.notes == ["model.roi_head.bbox_head.num_classes is 80, but the config has 2 class names"]
    assert reasons(account, "model.roi_head.mask_head.num_classes") == [
        "model.roi_head.bbox_head.num_classes is what counts"
    ]


def test_a_name_that_nothing_uses_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = "pipe = [dict(type='RandomFlip', flip_ratio=0.5)]\ndata = dict(train=dict(pipeline=pipe))"
    (tmp_path / "base.py").write_text(base)
    (tmp_path / "x.py").write_text("_base_ = 'base.py'\npipe = []\nmine = 3")
    account, _ = carry(read_config("x.py"))
    assert account.settings["flip"] is True
    assert reasons(account, "pipe") == [
        "no line of the config uses it, so it changes nothing; what was made of it in base.py stays"
    ]
    assert reasons(account, "mine") == ["no line of the config uses it, so it changes nothing"]
