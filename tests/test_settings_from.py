"""The verb: a config in, a table and a settings file out, which train takes."""

import json
from pathlib import Path

import pytest

from maskwright import cli
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.files import write_json
from maskwright.settings import TrainSettings
from maskwright.settings_file import stored
from maskwright.settings_from import settings_from

CONFIG = """\
_base_ = ['../_base_/models/mask_rcnn_r50_fpn.py', '../_base_/schedules/schedule_1x.py']
classes = ('hammer',)
model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
data = dict(
    samples_per_gpu=2,
    train=dict(
        type='RepeatDataset',
        times=4,
        dataset=dict(
            classes=classes,
            ann_file='coco/annotations/instances_train.json',
            img_prefix='coco/train/',
            pipeline=[dict(type='Resize', img_scale=(1333, 800)), dict(type='RandomFlip', flip_ratio=0.5)])),
    val=dict(classes=classes, ann_file='coco/annotations/instances_val.json', img_prefix='coco/val/'))
optimizer = dict(lr=0.0025)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("configs/hammer/mask.py")
    path.parent.mkdir(parents=True)
    path.write_text(CONFIG)
    return path


def test_the_table_tells_what_became_of_everything(config):
    said = []
    settings_from(config, "s.json", say=said.append)
    table = said[0].splitlines()
    assert table[0] == "configs/hammer/mask.py: a config of MMDetection 2.x, of 1 file"
    heads = [line for line in table if not line.startswith(" ")][1:]
    assert heads == ["carried over", "derived instead"]
    lines = {line.split("  ")[1]: " ".join(line.split()) for line in table[2:] if line.startswith("  ")}
    absent = "configs/_base_/schedules/schedule_1x.py"
    assert lines["epochs 12"] == f"epochs 12 runner.max_epochs: the same (assumed, since {absent} is not there)"
    assert lines["repeat 4"] == "repeat 4 data.train.times: steps an epoch: your photos x 4 / photos a step (mask.py:8)"
    both = f"configs/_base_/models/mask_rcnn_r50_fpn.py, {absent}"
    assert said[1] == (
        f"warning: {both} are not there, and MMDetection's own values are assumed; if you have edited them, put them"
        " where the config looks for them"
    )
    assert said[2:] == [
        "s.json: 14 settings",
        "next:",
        "  maskwright prepare coco -o DATA",
        "  maskwright train DATA -o RUN --settings s.json",
    ]


def test_the_file_holds_the_settings_and_the_table(config):
    moved = settings_from(config, "s.json")
    stored_file = json.loads(Path("s.json").read_text())
    assert stored_file["settings"] == moved.settings
    assert {"learning_rate", "batch_size"} & set(stored_file["settings"]) == set()  # the plan's rules give them
    assert stored_file["dialect"] == "MMDetection 2.x"
    assert len(stored_file["table"]) == len(moved.rows)
    assert stored_file["table"][0] == {
        "outcome": "carried",
        "what": "model.type",
        "says": "MaskRCNN",
        "becomes": "architecture maskrcnn-r50-fpn",
        "why": "Mask R-CNN on ResNet-50 with a pyramid",
        "where": "assumed, since configs/_base_/models/mask_rcnn_r50_fpn.py is not there",
    }
    assert stored_file["made_by"]["maskwright"]


def test_the_settings_are_what_train_takes(config):
    moved = settings_from(config, "s.json")
    parsed = TrainSettings.parse(stored("s.json", {"minutes": 3.0}, TrainSettings)[0])
    assert (parsed.minutes, parsed.epochs, parsed.repeat) == (3.0, None, moved.settings["repeat"])


def test_without_an_output_nothing_is_written(config):
    said = []
    settings_from(config, say=said.append)
    assert said[-1] == "  maskwright train DATA -o RUN --settings SETTINGS"
    assert sorted(path.name for path in Path().iterdir()) == ["configs"]


def test_an_output_is_not_replaced_unasked(config):
    Path("s.json").write_text("mine")
    with pytest.raises(UserError, match=r"the output exists already\n  s\.json\nfix: name another output, or: --over"):
        settings_from(config, "s.json")
    assert Path("s.json").read_text() == "mine"
    settings_from(config, "s.json", overwrite=True)
    assert json.loads(Path("s.json").read_text())["settings"]["epochs"] == 12


def test_the_config_is_never_the_output(config):
    with pytest.raises(UserError, match="the output must not be the input"):
        settings_from(config, config, overwrite=True)
    assert config.read_text() == CONFIG


def test_a_file_that_the_config_builds_on_is_never_the_output(config):
    base = Path("configs/_base_/models/mask_rcnn_r50_fpn.py")
    base.parent.mkdir(parents=True)
    base.write_text("model = dict(type='MaskRCNN')")
    with pytest.raises(UserError, match="the output must not be the input"):
        settings_from(config, base, overwrite=True)
    assert base.read_text() == "model = dict(type='MaskRCNN')"


def test_a_config_that_is_refused_leaves_nothing(config):
    config.write_text(CONFIG + "import os")
    with pytest.raises(UserError, match=r"configs/hammer/mask.py:16: an import \(import os\)"):
        settings_from(config, "s.json")
    assert not Path("s.json").exists()


def test_an_output_with_a_space_is_quoted(config):
    assert settings_from(config, "my s.json").commands[-1].endswith("--settings 'my s.json'")


def test_the_command_that_is_printed_prepares_the_data(config, capsys):
    from PIL import Image

    for split, ids in {"train": (1, 2), "val": (3,)}.items():
        images = [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 6} for n in ids]
        for n in ids:
            Path(f"coco/{split}").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (n * 40, 0, 0)).save(f"coco/{split}/{n}.png")
        square = [[1, 1, 5, 1, 5, 4, 1, 4]]
        shape = {"category_id": 1, "segmentation": square, "area": 12, "bbox": [1, 1, 4, 3]}
        objects = [{"id": n, "image_id": n, **shape} for n in ids]
        document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "hammer"}]}
        write_json(Path(f"coco/annotations/instances_{split}.json"), document)
    command = settings_from(config).commands[0].split()[1:]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert [len(Dataset.read_split(Path("DATA"), split).images) for split in ("train", "val")] == [2, 1]
