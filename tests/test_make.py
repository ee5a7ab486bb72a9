"""The whole job: what is done again and what is kept, and what a folder gets that is not ours.

Training takes minutes, so here it is a stand-in that writes a run; predict is one that finds every true object. All
other stages are the real ones.
"""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright import dataset, files
from maskwright.errors import UserError
from maskwright.make import make
from maskwright.prepare import prepare

SIDE = 32


def draw_world(raw, counts=(("train", 4), ("validate", 2), ("test", 2))):
    """Write `hammer_<split>/{rgb,mask}` with one bright square per photo."""
    rng = np.random.default_rng(0)
    for split, count in counts:
        for kind in ("rgb", "mask"):
            (raw / f"hammer_{split}" / kind).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            y, x = rng.integers(0, SIDE - 16, 2)
            mask[y : y + 16, x : x + 14] = 255
            photo = rng.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
            photo[mask > 0] = (200, 180, 40)
            Image.fromarray(photo).save(raw / f"hammer_{split}" / "rgb" / f"{split}{number}.jpg")
            Image.fromarray(mask).save(raw / f"hammer_{split}" / "mask" / f"{split}{number}.png")


class Stages:
    """Stand-ins for the stages that need torch; they note how they were called."""

    def __init__(self):
        self.trained = []
        self.predicted = []
        self.interrupt = False

    def train(self, data, out, *, overwrite=False, resume=False, dry_run=False, say=None, progress=False, **settings):
        self.trained.append({"overwrite": overwrite, "resume": resume, **settings})
        out = Path(out)
        (out / "weights").mkdir(parents=True, exist_ok=True)
        files.write_json(out / "run.json", {"state": "training"})  # as the real one does before its first step
        (out / "resume.safetensors").write_bytes(b"half way")
        if self.interrupt:
            raise KeyboardInterrupt
        categories = [{"id": c.id, "name": c.name} for c in dataset.Dataset.read_split(Path(data), "train").categories]
        (out / "weights" / "best.safetensors").write_bytes(json.dumps(settings).encode())
        files.write_json(out / "plan.json", {})
        files.write_json(out / "run.json", {"categories": categories, "threshold": 0.4, "data": str(data)})
        step = {"kind": "step", "step": 1, "steps": 1, "epoch": 1, "epochs": 1.0, "iteration": 1, "iterations": 1}
        step |= {"lr": 0.001, "eta_s": 0.0, "time_s": 0.1, "data_time_s": 0.0, "memory_mb": 100, "box_accuracy": 0.9}
        step |= {
            "losses": {"objectness": 0.1, "rpn_box": 0.1, "classifier": 0.1, "box": 0.1, "mask": 0.1},
            "total": 0.5,
        }
        (out / "log.jsonl").write_text(json.dumps(step) + "\n", encoding="utf-8")

    def predict(self, run, photos, out, *, overwrite=False, say=None, progress=False, **settings):
        self.predicted.append(settings)
        truth = dataset.Dataset.read_split(Path(photos), settings["split"])
        found = [dataset.Annotation(a.id, a.image_id, a.category_id, a.rle, score=0.9) for a in truth.annotations()]
        info = {"maskwright": {"run": str(Path(run).absolute()), "threshold": settings.get("score", 0.4)}}
        with files.atomic_folder(Path(out), overwrite=overwrite) as folder:
            dataset.Dataset.build(truth.categories, truth.images, found, info=info).write(folder / "detections.json")
            (folder / "masks").mkdir()


@pytest.fixture
def stages(monkeypatch):
    stand_ins = Stages()
    for verb in ("train", "predict"):
        module = types.ModuleType(f"maskwright.{verb}")
        setattr(module, verb, getattr(stand_ins, verb))
        monkeypatch.setitem(sys.modules, f"maskwright.{verb}", module)
    return stand_ins


@pytest.fixture
def raw(tmp_path):
    draw_world(tmp_path / "raw")
    return tmp_path / "raw"


def test_the_whole_job(stages, raw, tmp_path):
    lines = []
    work = tmp_path / "work"
    made = make(raw, work, say=lines.append)
    assert made.done == ("prepare", "train", "predict", "evaluate", "report")
    assert made.split == "test"
    assert made.metrics["segm/AP"] == 1.0
    assert made.metrics["bbox/AP"] == 1.0
    assert json.loads((work / "evaluation.json").read_bytes())["metrics"]["segm/AP50"] == 1.0
    assert "<html" in (work / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in work.iterdir()) == [
        "data",
        "evaluation.json",
        "make.json",
        "predictions",
        "report.html",
        "run",
    ]
    headline = "2 test photos: segm AP 1.000 (no interval: fewer than 5 photos with objects), AP50 1.000; bbox AP 1.000"
    assert lines[-2] == headline
    assert json.loads((work / "evaluation.json").read_bytes())["intervals"] == {"segm/AP": None}
    assert lines[-1] == f"report: {work / 'report.html'}"


def test_a_score_that_is_given_predicts_again_and_keeps_the_run(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    made = make(raw, tmp_path / "work", score=0.2)
    assert made.kept[:2] == ("prepare", "train")
    assert stages.predicted == [{"split": "test"}, {"split": "test", "score": 0.2}]


def test_test_time_flips_predict_again_and_keep_the_run(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    made = make(raw, tmp_path / "work", test_time_flip=True)
    assert "train" in made.kept
    assert "predict" in made.done
    assert stages.predicted == [{"split": "test"}, {"split": "test", "test_time_flip": True}]


def test_nothing_is_done_twice(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*")}
    lines = []
    made = make(raw, tmp_path / "work", say=lines.append)
    assert (made.done, made.kept) == ((), ("prepare", "train", "predict", "evaluate", "report"))
    assert "train: nothing has changed, kept" in lines
    assert made.metrics["segm/AP"] == 1.0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*")} == before


def test_other_training_settings_train_again_but_do_not_prepare_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work", minutes=1)
    lines = []
    made = make(raw, tmp_path / "work", minutes=2, say=lines.append)
    # The stand-in finds the same objects whatever it was trained with, so the same detections are not scored twice.
    assert (made.kept, made.done) == (("prepare", "evaluate"), ("train", "predict", "report"))
    assert "train: done again, since its settings changed (minutes)" in lines
    assert stages.trained == [
        {"overwrite": True, "resume": False, "minutes": 1.0},
        {"overwrite": True, "resume": False, "minutes": 2.0},
    ]


def test_settings_can_be_in_a_file_and_what_is_typed_wins(stages, raw, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"settings": {"epochs": 24.0, "side": 512, "category": "tool"}}))
    made = make(raw, tmp_path / "work", settings=tmp_path / "s.json", minutes=2)
    assert stages.trained == [{"overwrite": True, "resume": False, "side": 512, "minutes": 2.0}]
    assert [c.name for c in dataset.Dataset.read_split(made.data, "train").categories] == ["tool"]
    made = make(raw, tmp_path / "work", side=512, minutes=2, category="tool")
    assert made.done == ()


def test_a_new_photo_does_everything_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    for kind, suffix in (("rgb", "jpg"), ("mask", "png")):
        folder = raw / "hammer_train" / kind
        (folder / f"new.{suffix}").write_bytes((folder / f"train0.{suffix}").read_bytes())
    lines = []
    made = make(raw, tmp_path / "work", say=lines.append)
    assert "prepare: done again, since the photos and masks changed" in lines
    assert "train: done again, since the dataset changed" in lines
    assert made.done[:2] == ("prepare", "train")


def test_a_touched_photo_prepares_again_and_a_side_file_does_not(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    (raw / "hammer_train" / "rgb" / ".DS_Store").write_bytes(b"x")
    assert make(raw, tmp_path / "work").done == ()
    mask = raw / "hammer_train" / "mask" / "train0.png"
    os.utime(mask, (1, 1))
    # The dataset comes out the same, so nothing after it is done again.
    assert make(raw, tmp_path / "work").done == ("prepare",)


def test_words_about_the_dataset_do_not_train_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    lines = []
    made = make(raw, tmp_path / "work", say=lines.append, description="Hammers")
    assert "prepare: done again, since its settings changed (description)" in lines
    assert "train" in made.kept
    assert json.loads((tmp_path / "work/data/annotations/instances_train.json").read_bytes())["info"][
        "description"
    ] == ("Hammers")


def test_a_dataset_in_shards_does_the_whole_job_and_trains_again_only_for_other_content(stages, raw, tmp_path):
    work = tmp_path / "work"
    made = make(raw, work, shard=1)
    assert sorted(path.name for path in (work / "data" / "annotations").iterdir()) == [
        *(f"instances_test-0000{n}-of-00002.json" for n in range(2)),
        *(f"instances_train-0000{n}-of-00004.json" for n in range(4)),
        *(f"instances_val-0000{n}-of-00002.json" for n in range(2)),
    ]
    assert (made.split, made.metrics["segm/AP"], made.done[1:]) == (
        "test",
        1.0,
        ("train", "predict", "evaluate", "report"),
    )
    assert json.loads((work / "evaluation.json").read_bytes())["photos"] == str(work / "data" / "test")
    page = (work / "report.html").read_text(encoding="utf-8")
    assert "cannot be read" not in page
    assert make(raw, work, shard=1).done == ()
    assert make(raw, work, shard=3).done == ("prepare",)
    assert make(raw, work).done == ("prepare",)  # the same objects, whichever files they are in
    other = Image.fromarray(np.full((SIDE, SIDE), 255, dtype=np.uint8))
    other.save(raw / "hammer_train" / "mask" / "train3.png")
    assert make(raw, work, shard=1).done[:2] == ("prepare", "train")
    other.save(raw / "hammer_train" / "mask" / "train2.png")
    assert make(raw, work, shard=1).done[:2] == ("prepare", "train")


def test_shards_of_a_coco_file_are_watched_like_a_file(stages, raw, tmp_path):
    prepare(raw, out=tmp_path / "data", shard=2)
    named, work = tmp_path / "data" / "annotations" / "instances_train.json", tmp_path / "work"
    given = {"val_share": 0.3, "test_share": 0.3}
    make(named, work, **given)
    assert make(named, work, **given).done == ()
    os.utime(tmp_path / "data" / "annotations" / "instances_train-00001-of-00002.json", (1, 1))
    assert make(named, work, **given).done == ("prepare",)


def replaced(path, colour):
    """Write a picture as editors do: a new file that takes the name, so that other links keep the old content."""
    with Image.open(path) as old:
        Image.new("RGB", old.size, colour).save(path.with_name("new.png"))
    path.with_name("new.png").replace(path)


@pytest.mark.parametrize("named", ["coco/annotations/instances_train.json", "co*/annotations/instances_tr*.json"])
def test_photos_beside_an_annotation_file_are_watched(stages, raw, tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    prepare(raw, out="coco")
    work, given = tmp_path / "work", {"val_share": 0.3, "test_share": 0.3}
    make(named, work, **given)
    assert make(named, work, **given).done == ()
    replaced(tmp_path / "coco" / "train" / "train1.jpg", "red")
    lines = []
    assert make(named, work, say=lines.append, **given).done[:2] == ("prepare", "train")
    assert "prepare: done again, since the photos and masks changed" in lines
    (new,) = (work / "data").glob("*/train1.jpg")
    assert new.read_bytes() == (tmp_path / "coco" / "train" / "train1.jpg").read_bytes()
    assert make(named, work, **given).done == ()
    replaced(tmp_path / "coco" / "test" / "test0.jpg", "red")  # which was not read
    assert make(named, work, **given).done == ()
    os.utime(tmp_path / "coco" / "annotations" / "instances_train.json", (1, 1))
    assert make(named, work, **given).done == ("prepare",)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # names that were typed start elsewhere now
    assert make(f"../{named}", work, **given).done == ()


def test_photos_behind_a_link_are_watched_and_those_in_raw_are_not_read_twice(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    assert json.loads((tmp_path / "work" / "make.json").read_text())["stages"]["prepare"]["read"] is None
    elsewhere = tmp_path / "elsewhere"
    (raw / "hammer_train" / "rgb").rename(elsewhere)
    (raw / "hammer_train" / "rgb").symlink_to(elsewhere)
    make(raw, tmp_path / "work")
    assert make(raw, tmp_path / "work").done == ()
    replaced(elsewhere / "train1.jpg", "red")
    assert make(raw, tmp_path / "work").done[:2] == ("prepare", "train")


def test_a_photo_that_changes_while_it_is_read_is_read_again(stages, raw, tmp_path, monkeypatch):
    prepare(raw, out=tmp_path / "coco")
    named, given = tmp_path / "coco" / "annotations" / "instances_train.json", {"val_share": 0.3, "test_share": 0.3}

    def slow(*args, **kwargs):
        prepare(*args, **kwargs)
        replaced(tmp_path / "coco" / "train" / "train1.jpg", "red")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["maskwright.prepare"], "prepare", slow)
        make(named, tmp_path / "work", **given)
    assert make(named, tmp_path / "work", **given).done[:2] == ("prepare", "train")
    assert make(named, tmp_path / "work", **given).done == ()


def test_a_record_without_what_was_read_prepares_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    path = tmp_path / "work" / "make.json"
    story = json.loads(path.read_text())
    del story["stages"]["prepare"]["read"]
    path.write_text(json.dumps(story))
    lines = []
    assert make(raw, tmp_path / "work", say=lines.append).done == ("prepare",)
    assert "prepare: done again, since it was not written down what it had read" in lines


def test_an_output_that_is_gone_is_made_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    (tmp_path / "work" / "report.html").unlink()
    lines = []
    made = make(raw, tmp_path / "work", say=lines.append)
    assert made.done == ("report",)
    assert "report: done again, since its output changed (report.html)" in lines


def test_overwrite_does_every_stage_again(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    lines = []
    assert make(raw, tmp_path / "work", overwrite=True, say=lines.append).kept == ()
    assert "prepare: done again, as asked" in lines


def test_another_version_of_maskwright_does_every_stage_again(stages, raw, tmp_path, monkeypatch):
    make(raw, tmp_path / "work")
    monkeypatch.setattr(sys.modules["maskwright.make"], "__version__", "9.9.9")
    lines = []
    assert make(raw, tmp_path / "work", say=lines.append).kept == ()
    assert any(line.startswith("prepare: done again, since it was made with Maskwright ") for line in lines)


def test_interrupted_training_goes_on(stages, raw, tmp_path):
    stages.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        make(raw, tmp_path / "work", minutes=1)
    stages.interrupt = False
    lines = []
    made = make(raw, tmp_path / "work", minutes=1, say=lines.append)
    assert made.done == ("train", "predict", "evaluate", "report")
    assert "train: it was interrupted and goes on" in lines
    assert stages.trained[1] == {"overwrite": False, "resume": True, "minutes": 1.0}


def test_interrupted_training_with_other_settings_starts_anew(stages, raw, tmp_path):
    stages.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        make(raw, tmp_path / "work", minutes=1)
    stages.interrupt = False
    make(raw, tmp_path / "work", minutes=2)
    assert stages.trained[1] == {"overwrite": True, "resume": False, "minutes": 2.0}


def test_interrupted_training_starts_anew_when_the_dataset_was_written_anew(stages, raw, tmp_path):
    stages.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        make(raw, tmp_path / "work")
    stages.interrupt = False
    make(raw, tmp_path / "work", description="Hammers")
    assert stages.trained[1] == {"overwrite": True, "resume": False}


def test_validation_photos_are_scored_where_there_is_no_test_split(stages, tmp_path):
    draw_world(tmp_path / "raw", (("train", 4), ("validate", 2)))
    lines = []
    made = make(tmp_path / "raw", tmp_path / "work", say=lines.append)
    assert made.split == "val"
    assert any(line.startswith("2 validation photos: segm AP 1.000") for line in lines)


def test_a_dataset_without_objects_to_score_on_is_refused_before_training(stages, tmp_path):
    draw_world(tmp_path / "raw", (("train", 4),))
    with pytest.raises(UserError) as caught:
        make(tmp_path / "raw", tmp_path / "work", val_share=0.0, test_share=0.0)
    assert str(caught.value) == (
        "there is nothing to score on: neither the test nor the validation split has an object\n"
        f"  {tmp_path / 'work' / 'data'}\n"
        "fix: add photos, or a test or validation folder, or give more to these splits: "
        "--val-share 0.3 --test-share 0.3"
    )
    assert stages.trained == []


def test_a_folder_of_something_else_is_refused(stages, raw, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make(raw, work)
    assert str(caught.value) == (
        "the output folder holds something that is not of a former make\n"
        f"  {work}: thesis.tex\n"
        "fix: name another output folder, or: --overwrite (which leaves other files alone)"
    )
    assert [path.name for path in work.iterdir()] == ["thesis.tex"]
    make(raw, work, overwrite=True)
    assert (work / "thesis.tex").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_with_the_names_of_ours_are_refused_before_any_stage(stages, raw, tmp_path, overwrite):
    work = tmp_path / "work"
    for name in ("data", "predictions"):
        (work / name).mkdir(parents=True)
        (work / name / "mine.txt").write_text("years of work", encoding="utf-8")
    (work / "run").mkdir()  # an empty one may be replaced
    before = sorted(work.rglob("*"))
    with pytest.raises(UserError) as caught:
        make(raw, work, overwrite=overwrite)
    assert [(problem.what.split(",")[1], *problem.where) for problem in caught.value.problems] == [
        (" and is no former output of prepare", f"{work / 'data'}: mine.txt"),
        (" and is no former output of predict", f"{work / 'predictions'}: mine.txt"),
    ]
    assert sorted(work.rglob("*")) == before


def test_an_output_that_is_a_file_is_refused(stages, raw, tmp_path):
    (tmp_path / "work").write_bytes(b"x")
    with pytest.raises(UserError, match="the output is a file, not a folder"):
        make(raw, tmp_path / "work")
    assert (tmp_path / "work").read_bytes() == b"x"


def test_a_work_folder_inside_the_photos_is_refused(stages, raw):
    with pytest.raises(UserError) as caught:
        make(raw, raw / "work")
    assert str(caught.value) == (
        "the output folder lies inside the folder of photos and masks\n"
        f"  {raw / 'work'} is in {raw}\n"
        "fix: name an output folder beside it"
    )


@pytest.mark.parametrize("inside", ["run", "run/weights/best.safetensors", "data/body.pth"])
def test_weights_that_a_stage_would_replace_are_refused_before_any_stage(stages, raw, tmp_path, inside):
    work = tmp_path / "work"
    make(raw, work)
    (work / "data" / "body.pth").write_bytes(b"weights")
    records = (work / "make.json").read_bytes()
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        make(raw, work, weights=str(work / inside))
    assert (work / "data" / "body.pth").is_file()
    assert (work / "make.json").read_bytes() == records
    assert len(stages.trained) == 1
    make(raw, work, weights=str(tmp_path / "body.pth"))
    make(raw, work, weights="imagenet")
    assert len(stages.trained) == 3


def test_a_mistyped_input_leaves_no_folder(stages, tmp_path):
    with pytest.raises(UserError):
        make(tmp_path / "rwa", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_an_unknown_setting_is_refused_with_the_nearest_name(stages, raw, tmp_path):
    with pytest.raises(UserError, match=r"minuts; did you mean 'minutes'"):
        make(raw, tmp_path / "work", minuts=3)
    assert not (tmp_path / "work").exists()


def test_records_that_cannot_be_read_mean_every_stage_again(stages, raw, tmp_path):
    work = tmp_path / "work"
    make(raw, work)
    (work / "make.json").write_text("{", encoding="utf-8")
    lines = []
    assert make(raw, work, say=lines.append).kept == ()
    assert lines[0] == f"{work / 'make.json'} cannot be read; every stage is done again"


def test_a_work_folder_can_be_moved(stages, raw, tmp_path):
    make(raw, tmp_path / "work")
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    assert make(raw, tmp_path / "elsewhere").done == ()


def test_nothing_is_printed_unless_asked(stages, raw, tmp_path, capsys):
    make(raw, tmp_path / "work")
    assert capsys.readouterr() == ("", "")
