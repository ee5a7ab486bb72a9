"""A training: what it leaves behind, that it repeats itself exactly, and how it stops and goes on."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskwright.batches import NO_AUGMENTATION, Photos
from maskwright.checkpoint import read_progress
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.models.maskrcnn import MaskRCNN
from maskwright.models.stock import StockMaskRCNN
from maskwright.plan import Plan
from maskwright.run import BEST, LAST, RESUME, Run
from maskwright.schedule import rate
from maskwright.settings import TrainSettings
from maskwright.step import LOSSES, uninterrupted
from maskwright.train import train
from tiny_world import CATEGORIES, QUICK, world, write_data, write_split


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return world(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def data(tiny):
    return tiny[0]


@pytest.fixture(scope="module")
def finished(tiny):
    """A run of 6 steps that nothing disturbed; tests only read it."""
    return tiny[1]


@contextmanager
def ctrl_c_in_step_two():
    """Press Ctrl-C in the middle of the second step of what is in the block, which it ends."""
    calls, plain = itertools.count(1), MaskRCNN.losses

    def losses(self, images, targets):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, images, targets)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "losses", losses)
        with pytest.raises(KeyboardInterrupt):
            yield


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def message(*args, **settings):
    with pytest.raises(UserError) as caught:
        train(*args, **settings)
    return str(caught.value)


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def assert_equal_weights(one, other):
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# What a training leaves


def test_the_run_folder_is_complete(finished):
    found = files(finished)
    boards = {name for name in found if name.startswith("tensorboard/")}
    assert found - boards == {"run.json", "plan.json", "facts.json", "log.jsonl", BEST, LAST, RESUME}
    assert len(boards) == 1
    curves = (finished / boards.pop()).read_bytes()
    assert all(f"loss/{name}".encode() in curves for name in (*LOSSES, "total"))
    assert b"val/segm/AP" in curves


def test_run_json_says_what_the_run_is(data, finished):
    run = Run.read(finished)
    assert (run.state, run.step, run.side, run.architecture) == ("finished", 6, 64, "maskrcnn-nano")
    assert run.categories == CATEGORIES
    assert run.data == str(data.resolve())
    assert set(run.fingerprint) == {"train", "val"}
    assert 0 <= run.threshold <= 1
    assert run.best_step in {3, 6}
    assert run.metrics["segm/AP"] >= 0


def test_plan_json_is_a_plan_whose_settings_are_a_settings_file(finished):
    stored = json.loads((finished / "plan.json").read_text())
    settings = TrainSettings.parse(stored["settings"])
    assert all(getattr(settings, name) == value for name, value in QUICK.items())
    assert (settings.minutes, settings.epochs) == (None, None)
    assert Plan.model_validate(stored).reasons["steps"].source == "user"


def test_every_log_line_has_all_its_keys(finished):
    lines = log_of(finished)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("step", 2),
        ("validation", 3),
        ("step", 4),
        ("step", 6),
        ("validation", 6),
    ]
    step = lines[2]
    assert set(step) == {
        *("kind", "step", "steps", "epoch", "epochs", "iteration", "iterations", "lr", "eta_s", "time_s"),
        *("data_time_s", "memory_mb", "losses", "box_accuracy", "grad_norm", "total"),
    }
    assert (step["steps"], step["epoch"], step["epochs"], step["iteration"], step["iterations"]) == (6, 2, 2.0, 1, 3)
    assert list(step["losses"]) == list(LOSSES)
    assert step["total"] == pytest.approx(sum(step["losses"].values()), abs=1e-4)
    assert 0 < step["data_time_s"] < step["time_s"]
    assert step["memory_mb"] > 100
    assert 0 < step["lr"] <= QUICK["learning_rate"]
    validation = lines[1]
    assert set(validation) == {"kind", "step", "epoch", "metrics", "best"}
    assert {"segm/AP", "segm/AP50", "bbox/AP", "bbox/ARl"} <= set(validation["metrics"])
    assert validation["best"] is True


def test_iterations_are_those_of_the_epoch_where_a_step_lies_in_two(tmp_path):
    write_split(tmp_path / "data", "train", 5)
    train(tmp_path / "data", tmp_path / "run", **(QUICK | {"steps": 7, "log_every": 1, "validations": 1}))
    steps = [(line["epoch"], line["iteration"]) for line in log_of(tmp_path / "run") if line["kind"] == "step"]
    assert steps == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2)]


def test_the_learning_rate_ends_low_and_the_eta_at_zero(finished):
    steps = [line for line in log_of(finished) if line["kind"] == "step"]
    assert steps[-1]["lr"] < 0.1 * max(line["lr"] for line in steps)
    assert steps[-1]["eta_s"] == 0
    assert steps[-1]["total"] < steps[0]["total"]


def test_what_is_said_is_the_plan_then_a_line_per_interval(tiny):
    said = tiny[2]
    plan = next(text for text in said if text.startswith("plan\n"))
    assert "you said so" in plan
    steps = [text for text in said if text.startswith("epoch ")]
    assert len(steps) == 3
    words = (
        "[1/3]",
        "step 4/6",
        "lr ",
        "eta 0:",
        "time ",
        "data ",
        "memory ",
        " MB",
        "box acc ",
        "grad ",
        "total ",
        *LOSSES,
    )
    assert [word for word in words if word not in steps[1]] == []
    assert [text.split(":")[0] for text in said if text.startswith("validation")] == [
        "validation at step 3",
        "validation at step 6",
    ]
    assert said[-1].startswith("trained 6 steps in 0:")


# Exactly the same again


def test_the_same_seed_gives_the_same_weights_to_the_byte(data, finished, tmp_path):
    run = train(str(data), str(tmp_path / "again"), **QUICK)
    assert run.state == "finished"
    for name in (BEST, LAST):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()


def test_an_interrupted_run_is_usable_and_goes_on_to_the_same_weights(data, finished, tmp_path, monkeypatch):
    out, said = tmp_path / "run", []
    with ctrl_c_in_step_two():
        train(data, out, say=said.append, **QUICK)
    assert said[-1] == "interrupted after 2 steps; the run is usable, and --resume goes on"
    run = Run.read(out)
    assert (run.state, run.step) == ("interrupted", 2)
    assert not run.network().training
    assert [line["step"] for line in log_of(out)] == [2]

    def press_in_validation(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["maskwright.validation"], "evaluate", press_in_validation)
        with pytest.raises(KeyboardInterrupt):
            train(data, out, resume=True)
    assert Run.read(out).step == 3
    assert not (out / BEST).exists()

    states = []
    train(data, out, resume=True, say=lambda _text: states.append(Run.read(out).state), steps=6)
    assert "interrupted" not in states[1:]
    assert Run.read(out).state == "finished"
    for name in (LAST, BEST):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert [(e["kind"], e["step"]) for e in log_of(out)] == [(e["kind"], e["step"]) for e in log_of(finished)]


def test_a_training_goes_on_without_the_file_that_it_started_from(data, finished, tmp_path, monkeypatch):
    work, other = tmp_path / "work", tmp_path / "other"
    for folder in (work, other):
        folder.mkdir()
    shutil.copy(finished / BEST, work / "body.safetensors")
    monkeypatch.chdir(work)
    settings = QUICK | {"weights": "body.safetensors", "steps": 4, "validations": 1}
    whole = train(data, tmp_path / "whole", **settings)
    with ctrl_c_in_step_two():
        train(data, tmp_path / "cut", **settings, preflight=False)
    assert Plan.model_validate_json((tmp_path / "cut" / "plan.json").read_text()).settings.weights == str(
        work / "body.safetensors"
    )
    (work / "body.safetensors").unlink()
    monkeypatch.chdir(other)
    train(data, tmp_path / "cut", resume=True)
    assert (whole.path / LAST).read_bytes() == (tmp_path / "cut" / LAST).read_bytes()


def test_repeated_photos_of_rare_categories_are_told_and_survive_an_interruption(tmp_path, monkeypatch):
    data, rare = write_data(tmp_path / "data"), QUICK | {"repeat_rare": 1.0, "validations": 1}
    truth = Dataset.read_split(data, "train")
    nuts = [k for k in range(len(truth)) if truth.category_ids[k] == 1 or truth.image_index[k] == 0]
    truth.select(np.isin(np.arange(len(truth)), nuts)).write(data / "annotations" / "instances_train.json")
    whole = train(data, tmp_path / "whole", **rare)
    first = log_of(whole.path)[0]
    text = "nut is in 1 of 6 photos: its photos come 2.4 times an epoch"
    assert first == {"kind": "event", "step": 0, "what": "repeat_rare", "text": text}
    step = next(line for line in log_of(whole.path) if line["kind"] == "step")
    assert step["epochs"] == round(6 * 2 / 7, 2)  # 7.4 photos an epoch, of which 7 are counted

    real = Photos.sample

    def interrupted(self, index, step, slot, quarter=0):
        if step == 4:
            raise KeyboardInterrupt
        return real(self, index, step, slot, quarter)

    monkeypatch.setattr(Photos, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", **rare)
    monkeypatch.setattr(Photos, "sample", real)
    train(data, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / LAST).read_bytes() == (whole.path / LAST).read_bytes()


def test_ctrl_c_waits_for_the_end_of_a_step():
    done = []

    def step():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the whole step")

    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["the whole step"]
    assert signal.getsignal(signal.SIGINT) is usual


# Refusals


def test_a_run_goes_on_only_with_its_own_settings(data, finished):
    assert message(data, finished, resume=True, side=96, steps=6, seed=1) == (
        "a run goes on with the settings that it began with\n"
        "  side is 96 now, the run began with 64\n"
        "  seed is 1 now, the run began with 0\n"
        "fix: leave them out, or start anew: --overwrite"
    )
    assert message(data, finished, resume=True, minutes=3).splitlines()[1] == (
        "  minutes is 3.0 now, the run began with None"
    )


def test_a_run_goes_on_only_with_its_own_data(data, finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    write_split(other, "val", 3, seed=5)
    assert message(other, finished, resume=True) == (
        "a run goes on with the data that it began with\n"
        f"  {other}: the val split differs\n"
        f"  the data was at {data}\n"
        "fix: give the old data back, or start anew: --overwrite"
    )


def test_a_run_does_not_go_on_without_a_split_that_it_had(data, finished, tmp_path):
    less = tmp_path / "less"
    shutil.copytree(data, less)
    (less / "annotations" / "instances_val.json").unlink()
    assert message(less, finished, resume=True) == (
        "a run goes on with the data that it began with\n"
        f"  {less}: splits ['train'], began with ['train', 'val']\n"
        f"  the data was at {data}\n"
        "fix: give the old data back, or start anew: --overwrite"
    )


def test_a_run_goes_on_with_its_data_in_another_place(data, finished, tmp_path):
    before, now, out = tmp_path / "before", tmp_path / "now", tmp_path / "run"
    shutil.copytree(data, before)
    with ctrl_c_in_step_two():
        train(before, out, **QUICK)
    before.rename(now)
    kept = contents(out)
    assert message(before, out, resume=True) == (
        "the folder has no dataset, and a run goes on with the data that it began with\n"
        f"  {before}: annotations/instances_train.json is not there\n"
        "fix: name the folder where that data is now, or start anew with other data: --overwrite"
    )
    assert message(tmp_path / "nowhere", out, resume=True).splitlines()[2] == (
        f"  the data was at {before}, which is gone"
    )
    write_data(tmp_path / "other", val=2, test=0)
    assert message(tmp_path / "other", out, resume=True) == (
        "a run goes on with the data that it began with\n"
        f"  {tmp_path / 'other'}: the val split differs\n"
        f"  the data was at {before}, which is gone\n"
        "fix: give the old data back, or start anew: --overwrite"
    )
    assert contents(out) == kept
    run = train(now, out, resume=True)
    assert (run.state, run.data) == ("finished", str(now))
    assert Run.read(out).data == str(now)
    assert_equal_weights(out / LAST, finished / LAST)
    assert_equal_weights(out / BEST, finished / BEST)


def test_a_training_that_is_refused_when_it_would_go_on_is_left_as_it_was(data, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    Run.read(out).write(state="interrupted")
    tensors = load_file(out / RESUME)
    with safe_open(out / RESUME, "pt") as opened:
        metadata = opened.metadata()
    tensors.pop(next(name for name in tensors if name.startswith("model.")))
    save_file(tensors, out / RESUME, metadata)
    (out / ".log.jsonl.x.part").write_text("of a process that was killed")
    kept = contents(out)
    assert message(data, out, resume=True, workers=3).startswith("the checkpoint is damaged\n")
    assert contents(out) == kept


def test_another_test_split_does_not_matter_to_a_run(data, finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    write_split(other, "test", 1, seed=5)
    made = train(other, finished, resume=True, dry_run=True)
    assert made.settings.side == 64


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(data, tmp_path):
    assert message(data, tmp_path / "none", resume=True) == (
        f"there is nothing to go on with: the run has no checkpoint\n  {tmp_path / 'none'}\nfix: leave --resume out"
    )
    (tmp_path / "empty").mkdir()
    assert message(data, tmp_path / "empty", resume=True).endswith("\nfix: start anew: --overwrite")
    (tmp_path / "empty" / "mine.txt").touch()
    assert message(data, tmp_path / "empty", resume=True).endswith("\nfix: leave --resume out, and name another output")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_train_has_not_made_is_never_replaced(data, tmp_path, monkeypatch, overwrite):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("years of work")
    monkeypatch.setattr(
        sys.modules["maskwright.train"], "check", lambda *_args, **_kwargs: pytest.fail("work was begun")
    )
    found = message(data, tmp_path / "run", overwrite=overwrite, **QUICK)
    assert found.startswith("the output exists already, and is no former output of train")
    assert f"\n  {tmp_path / 'run'}: mine.txt\nfix: name another output, or remove the folder by hand" in found
    assert os.listdir(tmp_path / "run") == ["mine.txt"]


def test_a_damaged_plan_is_named(data, finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "plan.json", RESUME):
        os.link(finished / name, run / name)
    (run / "plan.json").unlink()
    (run / "plan.json").write_text('{"settings": {}}')
    found = message(data, run, resume=True)
    assert found.startswith(f"plan.json is damaged\n  {run / 'plan.json'}: canvas: Field required\n")
    assert found.endswith("\nfix: start anew: --overwrite")


def test_a_run_that_exists_is_refused_and_unharmed(data, finished):
    before = (finished / LAST).read_bytes()
    assert message(data, finished, **QUICK) == (
        f"the output exists already\n  {finished}\nfix: name another output, or: --overwrite"
    )
    assert (finished / LAST).read_bytes() == before


@pytest.mark.parametrize(
    ("state", "budget", "what"),
    [
        ("interrupted", {}, "stopped at step 6 of 6"),
        ("training", {}, "is not finished, and was last saved at step 6 of 6"),
        ("interrupted", {"steps": None, "minutes": 3}, "stopped at step 6"),
    ],
)
def test_of_a_training_that_can_go_on_it_is_said_that_it_can(data, finished, tmp_path, state, budget, what):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    Run.read(out).write(state=state, step=7)  # the checkpoint counts, which it goes on from
    made = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(made | {"settings": made["settings"] | budget}))
    kept = contents(out)
    assert message(data, out, **QUICK) == (
        f"the output holds a training that {what}\n"
        f"  {out}\n"
        "fix: go on with it: --resume; or start anew: --overwrite; or name another output"
    )
    assert contents(out) == kept
    (out / RESUME).write_bytes(b"damaged")
    assert message(data, out, **QUICK).startswith("the output exists already\n")
    (out / RESUME).unlink()
    assert "at step 0" in message(data, out, **QUICK)
    (out / "plan.json").unlink()
    assert message(data, out, **QUICK).startswith("the output exists already\n")


def test_an_unknown_setting_is_refused_with_the_nearest(data, tmp_path):
    assert message(data, tmp_path / "run", minuts=3).startswith(
        "there is no setting of this name\n  minuts; did you mean 'minutes'?\n"
    )
    assert not (tmp_path / "run").exists()


def test_two_budgets_are_refused(data, tmp_path):
    found = message(data, tmp_path / "run", minutes=3, steps=5)
    assert "give one of minutes, epochs and steps, not minutes and steps" in found


def test_data_that_cannot_be_learned_from_is_refused(tmp_path):
    write_split(tmp_path / "data", "train", 2, objects=0)
    found = message(tmp_path / "data", tmp_path / "run", **QUICK)
    assert found.startswith("no photo of the train split has an object: nothing can be learned")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_gives_the_plan_and_writes_nothing(data, tmp_path):
    said = []
    made = train(data, tmp_path / "run", dry_run=True, say=said.append, minutes=2)
    assert isinstance(made, Plan)
    assert said[-1] == made.table()
    assert made.settings.minutes == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "allowed"), [("32", False), ("bf16", True)])
def test_32_bits_are_not_rounded_on_a_gpu(data, finished, tmp_path, precision, allowed):
    parts = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = True
        train(data, tmp_path / "run", **(QUICK | {"steps": 1, "validations": 1, "precision": precision}))
        assert [part.allow_tf32 for part in parts] == [allowed] * 2
        Run.read(finished).network()  # predictions are in 32 bits always
        assert [part.allow_tf32 for part in parts] == [False] * 2
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value


def test_the_settings_of_a_run_give_the_same_plan_again(data, finished, tmp_path):
    made = train(data, tmp_path / "run", settings=finished / "plan.json", dry_run=True)
    before = Plan.model_validate(json.loads((finished / "plan.json").read_text()))
    assert made.settings == before.settings
    other = train(data, tmp_path / "run", settings=finished / "plan.json", dry_run=True, minutes=3)
    assert (other.settings.minutes, other.settings.steps, other.settings.side) == (3, None, before.settings.side)
    assert other.reasons["side"].source == "user"


# Odd courses


def test_a_budget_in_minutes_ends_soon_and_leaves_a_usable_run(data, tmp_path):
    run = train(data, tmp_path / "run", **(QUICK | {"steps": None, "minutes": 0.001}))
    assert run.state == "finished"
    assert 1 <= run.step <= 3  # one is always taken
    assert Run.read(tmp_path / "run").metrics is not None
    assert run.network() is not None


def test_overwrite_replaces_a_run_and_without_validation_photos_the_last_weights_serve(tmp_path):
    data, out = write_data(tmp_path / "data", val=0, test=0), tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("{}")
    (out / "old.txt").write_text("old")
    run = train(data, out, overwrite=True, **(QUICK | {"steps": 1}))
    assert (run.metrics, run.best_step, run.threshold) == (None, None, 0.5)
    assert not (out / "old.txt").exists()
    assert not (out / BEST).exists()
    last = load_file(out / LAST)
    assert all(torch.equal(v, last[k]) for k, v in run.network().state_dict().items())
    assert [line["kind"] for line in log_of(out)] == ["step"]


def test_validation_photos_without_objects_are_told(tmp_path):
    data, said = write_data(tmp_path / "data", val=0, test=0), []
    write_split(data, "val", 1, objects=0)
    run = train(data, tmp_path / "run", say=said.append, **(QUICK | {"steps": 1}))
    assert "the val split has no object: the last weights are kept, unvalidated" in said
    assert run.metrics is None


def plain_world(folder):
    """Return data whose photo 4 is red all over, and settings that show photos as they are."""
    data = write_data(folder / "data", val=0, test=0)
    bad = data / "train" / "train_3.png"
    with Picture.open(bad) as picture:
        photo = np.array(picture)
    photo[..., 0] = 255
    Picture.fromarray(photo).save(bad)
    return data, bad, QUICK | {"flip": False, "turn": False, "scale_jitter": 1.0, "colour_jitter": 0.0}


def poison(monkeypatch, is_bad):
    """Make the mask loss of some photos not a number."""
    plain = MaskRCNN.losses

    def losses(self, images, targets):
        found = plain(self, images, targets)
        if any(is_bad(image) for image in images):
            found["mask"] = found["mask"] * float("nan")
        return found

    monkeypatch.setattr(MaskRCNN, "losses", losses)


def test_a_photo_whose_loss_is_not_finite_is_named_and_left_out_and_the_rate_lowered(tmp_path, monkeypatch):
    data, bad, settings = plain_world(tmp_path)
    poison(monkeypatch, lambda image: image[0].float().mean() > 170)
    said = []
    run = train(data, tmp_path / "run", say=said.append, **(settings | {"log_every": 1}))
    assert (run.state, run.step) == ("finished", 6)
    truth = Dataset.read_split(data, "train")
    ids = ", ".join(str(a.id) for a in truth.annotations() if a.image_id == 4)
    at = next(i for i, text in enumerate(said) if "is not finite" in text)
    assert said[at] in {
        f"warning: a loss is not finite at step {n}: back to step 0, without these photos and at 50% of the learning"
        " rate (1 of 2 times)"
        for n in (1, 2, 3)
    }
    assert said[at + 1] == f"  left out: {bad} (mask; annotations {ids})"
    lines = log_of(tmp_path / "run")
    events = [line for line in lines if line["kind"] == "event"]
    assert [(e["what"], e["step"], e["text"]) for e in events] == [("rewind", 0, said[at]), ("rewind", 0, said[at + 1])]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert max(line["lr"] for line in steps) <= settings["learning_rate"] / 2


@pytest.mark.parametrize("saved", [True, False], ids=["to a checkpoint", "to the start"])
def test_a_training_is_rewound_to_where_it_was(data, tmp_path, monkeypatch, saved):
    """The fourth step's loss is not finite once; the last checkpoint, if there is one, is that of the second step."""
    module, calls, weights, moments = sys.modules["maskwright.train"], itertools.count(1), [], []
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0 if saved else 60.0)
    plain, rewind = MaskRCNN.losses, module._Training._rewind

    def losses(self, images, targets):
        weights.append({name: value.clone() for name, value in self.state_dict().items()})
        found = plain(self, images, targets)
        call = next(calls)
        if call == 3:
            monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 60.0)
        if call in (4, 5):  # of the batch, and of its first photo alone
            found["mask"] = found["mask"] * float("nan")
        return found

    def noted(self, error):
        rewind(self, error)
        moments.append(len(self.optimiser.state))

    monkeypatch.setattr(MaskRCNN, "losses", losses)
    monkeypatch.setattr(module._Training, "_rewind", noted)
    said, back = [], 2 if saved else 0
    settings = QUICK | {"log_every": 1, "validations": 1}
    run = train(data, tmp_path / "run", say=said.append, **settings)
    assert (run.state, run.step) == ("finished", 6)
    assert [text.split(", without")[0] for text in said if "is not finite" in text] == [
        f"warning: a loss is not finite at step 4: back to step {back}"
    ]
    assert sum(text.startswith("  left out: ") for text in said) == 1
    assert [line["step"] for line in log_of(run.path) if line["kind"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert len(weights) == 6 + 6 - back  # six steps, of which some twice; the fourth, and its two photos
    assert all(torch.equal(value, weights[back][name]) for name, value in weights[6].items())
    assert any(not torch.equal(value, weights[3][name]) for name, value in weights[6].items())
    assert (moments[0] > 0) == saved


def test_photos_that_were_left_out_stay_out_when_the_training_goes_on(tmp_path, monkeypatch):
    data, bad, settings = plain_world(tmp_path)
    poison(monkeypatch, lambda image: image[0].float().mean() > 170)
    module = sys.modules["maskwright.train"]
    rewind = module._Training._rewind

    def interrupted(self, error):
        rewind(self, error)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Training, "_rewind", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", **settings)
    run = train(data, tmp_path / "run", resume=True)
    assert (run.state, run.step) == ("finished", 6)
    texts = [line["text"] for line in log_of(run.path) if line["kind"] == "event"]
    assert ["is not finite" in text for text in texts] == [True, False]
    assert texts[1].startswith(f"  left out: {bad} (")


def test_a_norm_that_is_not_finite_is_null_in_the_log(data, tmp_path, monkeypatch):
    module = sys.modules["maskwright.train"]
    plain = module.Stepper.take

    def take(self, batch, step, rate):
        taken = plain(self, batch, step, rate)
        return dataclasses.replace(taken, grad_norm=float("inf")) if step == 0 else taken

    monkeypatch.setattr(module.Stepper, "take", take)
    train(data, tmp_path / "run", **(QUICK | {"steps": 2, "log_every": 1, "validations": 1}))
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert "Infinity" not in text
    norms = [line["grad_norm"] for line in map(json.loads, text.splitlines()) if line["kind"] == "step"]
    assert norms[0] is None
    assert norms[1] > 0


def in_16_bits(finished, out):
    """Copy a run as it was before its first step, with a plan that only a GPU would be given."""
    shutil.copytree(finished, out)
    (out / RESUME).unlink()
    stored = json.loads((out / "plan.json").read_text())
    stored["settings"]["precision"] = "16"
    (out / "plan.json").write_text(json.dumps(stored))
    return out


def test_a_training_in_16_bits_goes_on_with_its_scaler(data, finished, tmp_path, monkeypatch):
    whole, halved = in_16_bits(finished, tmp_path / "whole"), in_16_bits(finished, tmp_path / "halved")
    stepper, norms = sys.modules["maskwright.train"].Stepper, []
    plain = stepper.take

    def take(self, *args):
        taken = plain(self, *args)
        norms.append(taken.grad_norm)
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(stepper, "take", take)
        train(data, whole, resume=True)
    with ctrl_c_in_step_two():
        train(data, halved, resume=True)
    train(data, halved, resume=True)
    states = []
    for run in (whole, halved):
        with safe_open(run / RESUME, "pt") as opened:
            states.append(json.loads(opened.metadata()["progress"])["scaler"])
    assert states[0] == states[1]
    left_out = sum(not math.isfinite(norm) for norm in norms)  # as at the beginning of any training in 16 bits
    assert (len(norms), left_out > 0) == (6, True)
    assert states[0]["scale"] == 65536 / 2**left_out
    assert (halved / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_the_third_loss_that_is_not_finite_ends_the_training_with_the_likely_cause(tmp_path, monkeypatch):
    data, _, settings = plain_world(tmp_path)
    poison(monkeypatch, lambda image: True)
    found = message(data, tmp_path / "run", **settings).splitlines()
    assert found[0] == "a loss is not finite for the third time, at step 1: training cannot go on"
    assert all(" (mask; annotations " in line for line in found[1:3])
    assert [line.split(":")[0] for line in found[3:6]] == ["  before that"] * 3
    assert found[-1] == "fix: with all photos of the step, so the rate is likely too high: --learning-rate 8e-05"
    assert Run.read(tmp_path / "run").state == "training"  # what was there is kept, for --resume


def no_gradient(monkeypatch, steps):
    """Let the gradient of some steps taken (from 1) be not a number, where every loss of every photo is finite."""
    plain, calls = MaskRCNN.losses, itertools.count(1)

    def losses(self, images, targets):
        found = plain(self, images, targets)
        if torch.is_grad_enabled() and next(calls) in steps:
            found["mask"] = found["mask"] + (found["mask"] * 0).sqrt()
        return found

    monkeypatch.setattr(MaskRCNN, "losses", losses)


def test_photos_are_kept_if_without_them_there_were_none(tmp_path, monkeypatch):
    truth = write_split(tmp_path / "data", "train", 2)
    no_gradient(monkeypatch, {1, 2})
    said = []
    run = train(tmp_path / "data", tmp_path / "run", say=said.append, **(QUICK | {"log_every": 1}))
    assert (run.state, run.step) == ("finished", 6)
    assert [text for text in said if "is not finite" in text] == [
        "warning: a loss is not finite at step 1: back to step 0, with these photos (but for them none has an object)"
        f" and at {share} of the learning rate ({n} of 2 times)"
        for n, share in ((1, "50%"), (2, "25%"))
    ]
    paths = {str(truth.photo_path(image)) for image in truth.images}
    kept = [text.removeprefix("  kept: ").split(" (gradient; annotations ")[0] for text in said if "gradient;" in text]
    assert (set(kept), len(kept)) == (paths, 4)
    at = read_progress(run.path)
    assert (at.rewinds, at.rate_share, at.skipped, at.left_out) == (2, 0.25, [], {})
    assert max(line["lr"] for line in log_of(run.path) if line["kind"] == "step") <= QUICK["learning_rate"] / 4


def test_a_rate_that_is_too_high_for_few_photos_is_told_and_they_can_be_gone_on_with(tmp_path, monkeypatch):
    write_split(tmp_path / "data", "train", 2)
    with monkeypatch.context() as patch:
        no_gradient(patch, {1, 2, 3})
        found = message(tmp_path / "data", tmp_path / "run", **QUICK).splitlines()
    assert found[0] == "a loss is not finite for the third time, at step 1: training cannot go on"
    assert [" (gradient; annotations " in line for line in found[1:]] == [True, True, False]
    assert found[3] == "fix: with all photos of the step, so the rate is likely too high: --learning-rate 8e-05"
    run = train(tmp_path / "data", tmp_path / "run", resume=True)
    assert (run.state, run.step) == ("finished", 6)


def test_ctrl_c_in_a_rewind_saves_what_it_goes_back_to(data, tmp_path, monkeypatch):
    """The third step fails; the only checkpoint before is that of the first."""
    module, out, saved = sys.modules["maskwright.train"], tmp_path / "run", []
    load, save = module.load_checkpoint, module.save_checkpoint

    def save_and_wait(*args):
        save(*args)
        saved.append(load_file(out / RESUME))
        monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 60.0)

    def load_and_press(*args):
        at = load(*args)
        os.kill(os.getpid(), signal.SIGINT)
        return at

    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(module, "save_checkpoint", save_and_wait)
    monkeypatch.setattr(module, "load_checkpoint", load_and_press)
    no_gradient(monkeypatch, {3})
    with pytest.raises(KeyboardInterrupt):
        train(data, out, **(QUICK | {"validations": 1}))
    at, (first, last) = read_progress(out), saved
    assert (at.step, at.rewinds, at.rate_share, len(at.skipped)) == (1, 1, 0.5, 2)
    assert first.keys() == last.keys()
    assert all(torch.equal(value, first[name]) for name, value in last.items())


def test_scores_that_ctrl_c_finds_half_noted_count_once(data, tmp_path, monkeypatch):
    log = sys.modules["maskwright.train"].Log
    plain = log.write

    def write_and_press(self, entry):
        plain(self, entry)
        if entry["kind"] == "validation":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(log, "write", write_and_press)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", **QUICK)
    at = read_progress(tmp_path / "run")
    assert (at.step, at.smoothed_ap is not None, at.validations) == (3, True, 1)


def test_two_processes_end_together_by_patience(data, tmp_path):
    settings = QUICK | {"steps": 4, "validations": 4, "patience": 1, "learning_rate": 1e-6}
    run = train(data, tmp_path / "run", devices=2, **settings)
    assert (run.state, run.step) == ("finished", 2)
    lines = log_of(run.path)
    assert [line["kind"] for line in lines if line["kind"] != "step"] == ["validation", "validation", "event"]
    assert lines[-1]["what"] == "stop"  # nothing is found, so the second is no better than the first


def second_of_two(data, told, **settings):
    """Return the second of two processes, before its first step; the first one tells it something."""
    module = sys.modules["maskwright.train"]
    ours = object.__new__(module._Training)
    ours.fabric = SimpleNamespace(world_size=2, broadcast=lambda own: told, barrier=lambda: None)
    ours.tell, ours.log = print, SimpleNamespace(write=print)
    ours.first, ours.settings, ours.at = False, TrainSettings(validations=3, **settings), module.Progress(step=5)
    ours.steps, ours.seconds, ours.started = None, 600.0, module.time.perf_counter()
    ours.val = Dataset.read_split(data, "val")
    ours.stopped = False
    return ours


def test_another_process_takes_the_clock_of_the_first(data):
    ours = second_of_two(data, 0.25)
    ours.at.step_s = ours.at.validation_s = ours.at.save_s = 0.1
    assert ours._share() == 0.25
    ours.fabric.world_size = 1
    assert ours._share() < 0.1


def test_another_process_stops_when_the_first_does(data):
    ours = second_of_two(data, True, patience=1)
    ours._validate(1)
    assert ours.stopped
    assert ours.at.validations == 1
    ours = second_of_two(data, False, patience=1)
    ours._validate(1)
    assert not ours.stopped


def test_the_output_may_not_be_the_data(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    with pytest.raises(UserError) as raised:
        train(copy, copy, overwrite=True, steps=1)
    assert "the output must not be the input or hold it: replacing it would delete the input" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 3
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        train(copy, copy / "train", overwrite=True, steps=1)
    assert any((copy / "train").iterdir())
    assert (copy / "annotations" / "instances_train.json").is_file()


@pytest.mark.parametrize("inside", ["", "weights/best.safetensors", "weights/gone.safetensors"])
def test_the_weights_to_start_from_may_not_be_in_what_is_replaced(data, finished, tmp_path, inside):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = files(out)
    found = message(data, out, overwrite=True, weights=str(out / inside), steps=1)
    assert found == (
        "the output must not be the input or hold it: replacing it would delete the input\n"
        f"  {out} and {out / inside}\n"
        "fix: name another output"
    )
    assert files(out) == before


# Averages, stopping, minutes


def test_the_average_of_the_weights_is_saved_and_survives_an_interruption(data, finished, tmp_path):
    settings = QUICK | {"ema": 0.9, "steps": 4, "validations": 1}
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(data, whole, **settings)
    with ctrl_c_in_step_two():
        train(data, halved, **settings)
    train(data, halved, resume=True)
    for name in (BEST, LAST):
        assert (halved / name).read_bytes() == (whole / name).read_bytes()
    kept, saved = load_file(whole / RESUME), load_file(whole / LAST)
    name = "mask_head.logit.weight"
    assert torch.equal(saved[name], kept[f"average.{name}"])
    assert Run.read(whole).best_step == 4  # so the best weights are the last ones' average too
    assert torch.equal(load_file(whole / BEST)[name], kept[f"average.{name}"])
    assert not torch.equal(saved[name], kept[f"model.{name}"])
    assert not any(key.startswith("average.") for key in load_file(finished / RESUME))


def scored(monkeypatch, aps, threshold=None):
    """Let the validations have these segm APs, and advise this threshold, whatever is found."""
    module, left = sys.modules["maskwright.validation"], iter(aps)
    plain = module.evaluate

    def evaluate(*args, **more):
        result = plain(*args, **more)
        advised = {"threshold": {"score": threshold}} if threshold is not None else {}
        return dataclasses.replace(result, metrics={**result.metrics, "segm/AP": next(left)}, **advised)

    monkeypatch.setattr(module, "evaluate", evaluate)


def test_the_best_weights_are_those_of_the_best_smoothed_ap(data, tmp_path, monkeypatch):
    scored(monkeypatch, (0.2, 0.9, 0.7), threshold=0.37)
    run = train(data, tmp_path / "run", **(QUICK | {"steps": 3, "validations": 3}))
    assert run.best_step == 3  # 0.2, 0.55, 0.625: a lucky 0.9 does not win
    assert run.metrics["segm/AP"] == 0.7
    assert Run.read(run.path).threshold == 0.37


def test_as_long_as_nothing_is_found_the_last_weights_are_the_best(data, tmp_path, monkeypatch):
    settings = QUICK | {"steps": 6, "validations": 6, "patience": 2}
    with monkeypatch.context() as patch:
        scored(patch, (0.0, None, 0.0))
        run = train(data, tmp_path / "run", **settings)
    assert (run.step, run.best_step) == (3, 3)  # patience counts them all the same
    scored(monkeypatch, (0.0, 0.2, 0.2))
    run = train(data, tmp_path / "other", **(QUICK | {"steps": 3, "validations": 3}))
    assert run.best_step == 3  # 0, 0.1, 0.15


def test_the_last_line_has_the_rate_of_the_last_step(data, tmp_path):
    run = train(data, tmp_path / "run", **(QUICK | {"steps": 3, "validations": 1}))
    made = Plan.model_validate(json.loads((run.path / "plan.json").read_text()))
    steps = [(line["step"], line["lr"]) for line in log_of(run.path) if line["kind"] == "step"]
    assert steps == [(2, rate(made, 1, 1 / 3)), (3, rate(made, 2, 2 / 3))]


def test_with_patience_a_training_stops_when_the_score_no_longer_rises(data, tmp_path, monkeypatch):
    scored(monkeypatch, (0.5, 0.4, 0.3, 0.9, 0.9, 0.9))
    said = []
    run = train(data, tmp_path / "run", say=said.append, **(QUICK | {"steps": 6, "validations": 6, "patience": 2}))
    assert (run.state, run.step, run.best_step) == ("finished", 3, 1)
    assert "stopped early at step 3: 2 validations without a better smoothed segm AP than 0.500" in said
    assert [line["what"] for line in log_of(tmp_path / "run") if line["kind"] == "event"] == ["stop"]
    log, last = log_of(tmp_path / "run"), (tmp_path / "run" / LAST).read_bytes()
    run = train(data, tmp_path / "run", resume=True, say=said.append)
    assert "it had stopped early at step 3, and is at its end" in said
    assert (run.state, run.step, log_of(tmp_path / "run")) == ("finished", 3, log)
    assert (tmp_path / "run" / LAST).read_bytes() == last


class Clock:
    """Stands for the module `time`: passes only as work is done."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    perf_counter = time

    def taking(self, seconds, function):
        def slow(*args, **more):
            self.now += seconds
            return function(*args, **more)

        return slow


def test_minutes_hold_the_last_validation_and_the_last_checkpoint(data, tmp_path, monkeypatch):
    module, clock = sys.modules["maskwright.train"], Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 20.0)
    monkeypatch.setattr(module, "check", clock.taking(3.0, module.check))
    monkeypatch.setattr(module, "validate", clock.taking(9.0, module.validate))
    monkeypatch.setattr(module, "save_checkpoint", clock.taking(5.0, module.save_checkpoint))
    monkeypatch.setattr(module.Stepper, "take", clock.taking(2.0, module.Stepper.take))
    settings = QUICK | {"steps": None, "minutes": 1.0, "preflight": False, "validations": 2}
    run = train(data, tmp_path / "run", **settings)
    took = clock.now - 1000.0
    assert 60 - 2 * 2.0 < took <= 60  # to the step
    assert run.step >= 10


def test_minutes_go_on_where_they_were(data, tmp_path, monkeypatch):
    module, clock, asked = sys.modules["maskwright.train"], Clock(), []
    plain, rate_of = module.Stepper.take, module.rate

    def take(self, *args):
        if 1030 <= clock.now < 2000:
            raise KeyboardInterrupt
        return clock.taking(5.0, plain)(self, *args)

    def noted(made, step, done):
        asked.append((step, done))
        return rate_of(made, step, done)

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "rate", noted)
    monkeypatch.setattr(module.Stepper, "take", take)
    settings = {"steps": None, "minutes": 1.0, "preflight": False, "validations": 1, "log_every": 1}
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", **(QUICK | settings))
    first, clock.now = clock.now - 1000.0, 5000.0
    del asked[:]
    run = train(data, tmp_path / "run", resume=True)
    assert 60 - 2 * 5.0 < first + clock.now - 5000.0 <= 60
    made = Plan.model_validate(json.loads((run.path / "plan.json").read_text()))
    step, done = asked[0]
    assert (step, done) == (6, pytest.approx(30 / 53, abs=0.03))
    line = next(line for line in log_of(run.path) if line["kind"] == "step" and line["step"] == 7)
    assert line["lr"] == rate(made, 6, done)


def test_minutes_count_the_validation_before_an_interruption(data, tmp_path, monkeypatch):
    module, clock = sys.modules["maskwright.train"], Clock()
    taking = clock.taking(9.0, module.validate)

    def validate_and_press(*args):
        try:
            return taking(*args)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module.Stepper, "take", clock.taking(5.0, module.Stepper.take))
    monkeypatch.setattr(module, "validate", validate_and_press)
    settings = {"steps": None, "minutes": 1.0, "preflight": False, "validations": 2}
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", **(QUICK | settings))
    first, clock.now = clock.now - 1000.0, 5000.0
    at = read_progress(tmp_path / "run")
    assert (at.elapsed_s, at.validations) == (first, 0)
    assert first == 5.0 * at.step + 9.0
    monkeypatch.setattr(module, "validate", taking)
    train(data, tmp_path / "run", resume=True)
    assert 60 - 5.0 - 9.0 < first + clock.now - 5000.0 <= 60


# Photos that are gone


def test_a_photo_that_cannot_be_read_half_way_is_named_and_the_training_goes_on(data, tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    gone = copy / "train" / "train_2.png"
    monkeypatch.setattr(Photos, "fill_cache", lambda self, _threads: gone.unlink())
    said = []
    run = train(copy, tmp_path / "run", say=said.append, **(QUICK | {"validations": 1}))
    assert (run.state, run.step) == ("finished", 6)
    assert [text for text in said if "cannot be read" in text] == [
        "warning: a photo cannot be read any more and is left out from now on (1 of 6 so far):"
        f" {gone} cannot be opened (No such file or directory)"
    ]


def test_what_another_process_cannot_read_is_named_saved_and_left_out(data, monkeypatch):
    module = sys.modules["maskwright.train"]
    said, written, other = [], [], {4: "four.png is gone"}

    def gather(every, own):
        every[:] = [own, other]

    monkeypatch.setattr(module.torch.distributed, "all_gather_object", gather)
    ours = object.__new__(module._Training)  # the first of two processes
    ours.fabric, ours.tell, ours.log = SimpleNamespace(world_size=2), said.append, SimpleNamespace(write=written.append)
    ours.photos = Photos(Dataset.read_split(data, "train"), (64, 64), NO_AUGMENTATION, 0)
    ours.at = module.Progress(step=10, skipped=[1])
    ours._name_unreadable()
    ours._name_unreadable()  # once is enough
    assert said == [
        "warning: a photo cannot be read any more and is left out from now on (1 of 6 so far): four.png is gone"
    ]
    assert [(entry["what"], entry["step"], entry["text"]) for entry in written] == [("photo", 10, said[0])]
    assert ours.at.skipped == [1, 4]
    assert ours.at.unreadable == {4: "four.png is gone"}
    assert 4 in ours.photos.left_out
    other[2] = "two.png is gone"
    with pytest.raises(UserError, match="too many photos cannot be read: 2 of 6"):
        ours._name_unreadable()


def test_more_than_a_few_photos_that_are_gone_end_the_training(data, tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    gone = [copy / "train" / f"train_{i}.png" for i in (1, 4)]
    monkeypatch.setattr(Photos, "fill_cache", lambda self, _threads: [path.unlink() for path in gone])
    found = message(copy, tmp_path / "run", **QUICK).splitlines()
    assert found[0] == "too many photos cannot be read: 2 of 6"
    assert sorted(line.split(" cannot")[0] for line in found[1:3]) == [f"  {path}" for path in gone]
    assert found[-1] == "fix: give them back (is a disk or a network folder gone?) and go on: --resume"


def test_a_training_that_left_photos_out_goes_on_without_them(data, tmp_path, monkeypatch):
    copy, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, copy)
    gone, cut = copy / "train" / "train_2.png", copy / "val" / "val_1.png"
    left_out = {"train/train_2.png": gone.stat().st_size, "val/val_1.png": cut.stat().st_size}
    plain = Photos.sample

    def lose(self, _threads):
        gone.unlink()
        cut.write_bytes(b"")

    def sample(self, index, step, slot, quarter=0):
        if step == 4:
            raise KeyboardInterrupt
        return plain(self, index, step, slot, quarter)

    with monkeypatch.context() as patch:
        patch.setattr(Photos, "fill_cache", lose)
        patch.setattr(Photos, "sample", sample)
        with pytest.raises(KeyboardInterrupt):
            train(copy, out, **QUICK)
    at = read_progress(out)
    assert (at.step, at.validations) == (4, 1)
    assert at.left_out == left_out
    assert at.unreadable == {2: f"{gone} cannot be opened (No such file or directory)"}

    # Another one counts with those that were left out before.
    shutil.copytree(out, tmp_path / "other")
    more = copy / "train" / "train_3.png"
    kept = more.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Photos, "fill_cache", lambda self, _threads: more.unlink())
        found = message(copy, tmp_path / "other", resume=True)
    assert found.startswith(f"too many photos cannot be read: 2 of 6\n  {gone} cannot")
    assert message(copy, out, resume=True).startswith(f"1 photo is not where the annotation file says\n  {more}\n")
    more.write_bytes(kept + b"another")
    assert message(copy, out, resume=True).startswith("a run goes on with the data that it began with\n")
    more.write_bytes(kept)

    said = []
    run = train(copy, out, resume=True, say=said.append)
    assert (run.state, run.step) == ("finished", 6)
    assert not [text for text in said if "cannot be read" in text]
    assert read_progress(out).left_out == left_out
    shutil.copy(data / "train" / "train_2.png", gone)  # given back
    assert train(copy, out, resume=True, dry_run=True).settings.steps == 6


def test_a_validation_photo_that_is_gone_is_left_out(data, tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    gone = copy / "val" / "val_1.png"
    plain = Photos.fill_cache
    monkeypatch.setattr(Photos, "fill_cache", lambda self, threads: (gone.unlink(), plain(self, threads)))
    said = []
    run = train(copy, tmp_path / "run", say=said.append, **(QUICK | {"steps": 1, "validations": 1}))
    assert run.state == "finished"
    assert run.metrics is not None
    assert (
        f"warning: a validation photo cannot be read and is left out from now on: {gone} cannot be opened"
        " (No such file or directory)"
    ) in said


def test_validation_photos_without_an_object_that_can_be_read_do_not_end_the_training(tmp_path, monkeypatch):
    data, said = write_data(tmp_path / "data", val=0, test=0), []
    val = write_split(data, "val", 2)
    val.select(val.image_index == 1).write(data / "annotations" / "instances_val.json")
    gone, plain = data / "val" / "val_1.png", Photos.fill_cache
    monkeypatch.setattr(Photos, "fill_cache", lambda self, threads: (gone.unlink(), plain(self, threads)))
    settings = QUICK | {"steps": 2, "log_every": 1, "patience": 1, "validations": 3}
    run = train(data, tmp_path / "run", say=said.append, **settings)
    assert (run.state, run.step, run.metrics) == ("finished", 2, None)
    assert run.network() is not None
    told = [text for text in said if text.startswith("warning: ") and "validation photo" in text]
    assert [text.split(":")[1] for text in told] == [
        " a validation photo cannot be read and is left out from now on",
        " the validation photos that are left have no object",
    ]
    assert [(e["kind"], e["step"]) for e in log_of(run.path)] == [("step", 1), ("event", 1), ("event", 1), ("step", 2)]


def test_what_does_not_change_the_result_may_be_another_when_a_training_goes_on(data, finished):
    made = train(data, finished, resume=True, dry_run=True, devices=2, micro_batch=1, log_every=5)
    assert (made.settings.devices, made.settings.micro_batch, made.settings.batch_size) == (2, 1, 2)
    assert made.reasons["micro_batch"].why == "since it goes on; it began with 2"
    derived = train(data, finished, resume=True, dry_run=True, devices=2)
    assert (derived.settings.micro_batch, derived.reasons["micro_batch"].source) == (1, "derived")
    assert derived.reasons["micro_batch"].why == "all of a device's share, since it goes on; it began with 2"
    assert derived.reasons["cache_mb"].why.endswith("for decoded photos, shared by 2 processes")
    assert derived.cache_mb == train(data, finished, resume=True, dry_run=True).cache_mb // 2
    assert made.reasons["devices"].why == "since it goes on; it began with 1"
    found = message(data, finished, resume=True, devices=3)
    assert found == ("every device must get a photo\n  a batch of 2 photos over 3 devices\nfix: --devices 2, or fewer")


def pieces(run):
    """Return how many photos the checkpoint says that memory allows."""
    with safe_open(run / RESUME, "pt") as opened:
        return json.loads(opened.metadata()["progress"])["micro_batch"]


def test_smaller_pieces_are_kept_where_memory_forced_them_and_what_is_said_now_wins(data, tmp_path, monkeypatch):
    settings = QUICK | {"batch_size": 3, "validations": 1, "steps": 20}
    seen, plain, room = [], MaskRCNN.losses, [3]

    def losses(self, images, targets):
        seen.append(len(images))
        if len(images) > room[0]:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return plain(self, images, targets)

    monkeypatch.setattr(MaskRCNN, "losses", losses)

    def go_on(**more):
        """Take a step, and return the pieces and what was said."""
        seen.clear()
        said, taken = [], module.Stepper.take

        def take(self, *args):
            if self.steps_left == 0:
                raise KeyboardInterrupt
            self.steps_left -= 1
            return taken(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(module.Stepper, "steps_left", 1, raising=False)
            patch.setattr(module.Stepper, "take", take)
            with pytest.raises(KeyboardInterrupt):
                train(data, tmp_path / "run", say=said.append, **more)
        return set(seen), [text for text in said if text.startswith("photos are taken")]

    module = sys.modules["maskwright.train"]
    assert go_on(**settings) == ({3}, [])
    assert pieces(tmp_path / "run") == 0  # nothing was forced
    assert go_on(resume=True, micro_batch=1) == ({1}, [])
    assert pieces(tmp_path / "run") == 0
    assert go_on(resume=True, micro_batch=3) == ({3}, [])
    room[0] = 2
    assert go_on(resume=True) == ({3, 2, 1}, [])  # two pieces of three photos
    assert pieces(tmp_path / "run") == 2
    room[0] = 3
    told = ["photos are taken 2 at a time, since memory was short; --micro-batch 3 tries again"]
    assert go_on(resume=True) == ({2, 1}, told)
    assert pieces(tmp_path / "run") == 2
    assert go_on(resume=True, micro_batch=3) == ({3}, [])
    assert pieces(tmp_path / "run") == 0


# Stock networks

STOCK = {
    "architecture": "maskrcnn-r50-fpn",
    "backbone": "resnet10t",
    "weights": "none",
    "side": 96,
    "short_side": 64,
    "steps": 3,
    "validations": 1,
    "log_every": 2,
    "workers": 1,
    "optimiser": "sgd",
    "repeat": 2,
}


@pytest.fixture(scope="module")
def stock(data, tmp_path_factory):
    said = []
    return train(data, tmp_path_factory.mktemp("stock") / "run", say=said.append, **STOCK), said


def test_a_stock_network_trains_and_goes_on_to_the_same_weights(data, stock, tmp_path, monkeypatch):
    run, said = stock
    assert (run.side, run.short_side, run.state) == (96, 64, "finished")
    assert "6 photos x 2 repeats / 2 per step = 6 steps per epoch" in said[0]
    lines = [e for e in log_of(run.path) if e["kind"] == "step"]
    assert [(e["step"], e["epoch"], e["iterations"]) for e in lines] == [(2, 1, 6), (3, 1, 6)]
    assert all(e["losses"]["semantic"] == 0 < e["losses"]["mask"] for e in lines)
    again = Run.read(run.path)
    assert again.short_side == 64
    assert again.sizes["conventions"]["norm"] == "live"
    calls = itertools.count(1)
    plain = StockMaskRCNN.losses

    def press_in_step_two(self, images, targets):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, images, targets)

    monkeypatch.setattr(StockMaskRCNN, "losses", press_in_step_two)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", **STOCK)
    train(data, tmp_path / "cut", resume=True)
    assert (run.path / LAST).read_bytes() == (tmp_path / "cut" / LAST).read_bytes()


def test_training_goes_on_from_a_file_and_tells_what_it_took(data, stock, tmp_path):
    said = []
    more = STOCK | {"weights": str(stock[0].path), "steps": 1}
    run = train(data, tmp_path / "second", say=said.append, **more)
    table = next(text for text in said if text.startswith("weights: "))
    assert "a network of Maskwright" in table
    assert "fresh, as" not in table
    assert run.sizes["frozen_stages"] == 0
    with pytest.raises(UserError, match=r"nowhere\.pth is not a file"):
        train(data, tmp_path / "third", **(STOCK | {"weights": "nowhere.pth"}))
    assert not (tmp_path / "third").exists()
