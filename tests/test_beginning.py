"""How a training begins, and whether what lies there is the one that is meant."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image as Picture

from maskwright.beginning import (
    begun_with,
    bytes_of,
    fingerprint_of,
    resumable,
    resumed_plan,
    started_again,
    write_beginning,
)
from maskwright.dataset import Dataset
from maskwright.devices import Place
from maskwright.errors import UserError
from maskwright.plan import Machine
from maskwright.run import LAST, Run
from maskwright.settings import TrainSettings
from maskwright.train import train
from maskwright.writing import write_shards
from tiny_world import QUICK, world, write_data


def refused(data, out):
    with pytest.raises(UserError) as caught:
        train(data, out, resume=True, dry_run=True)
    return str(caught.value)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return world(tmp_path_factory.getbasetemp())


def test_a_run_is_what_it_was_begun_with_and_nothing_else(tiny, tmp_path):
    _, run, _ = tiny
    assert begun_with(run, QUICK)
    assert begun_with(run, QUICK | {"devices": 2, "workers": 7})  # not a matter of the result
    assert not begun_with(run, QUICK | {"seed": 3})
    assert not begun_with(run, QUICK | {"steps": 7})
    assert not begun_with(run, {k: v for k, v in QUICK.items() if k != "side"})  # it would be derived then
    assert not begun_with(tmp_path, QUICK)


def test_a_file_of_weights_is_the_one_that_it_began_with_however_it_is_written(tiny, tmp_path, monkeypatch):
    data, out = tiny[0], tmp_path / "run"
    shutil.copytree(tiny[1], out)
    stored = json.loads((out / "plan.json").read_text())
    stored["reasons"]["weights"] = {"source": "user", "why": "you said so"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for began in (str(tmp_path / "body.pth"), "body.pth"):  # the latter is what older versions stored
        stored["settings"]["weights"] = began
        (out / "plan.json").write_text(json.dumps(stored))
        for now in (str(tmp_path / "body.pth"), "body.pth", "run/../body.pth", "link/body.pth"):
            assert begun_with(out, QUICK | {"weights": now})
            assert train(data, out, resume=True, dry_run=True, weights=now).settings.weights == began
        for now in ("other.pth", "imagenet", str(tmp_path.parent / "body.pth")):
            assert not begun_with(out, QUICK | {"weights": now})
            with pytest.raises(UserError, match=r"weights is '.*' now, the run began with '.*body\.pth'"):
                train(data, out, resume=True, dry_run=True, weights=now)


def test_a_beginning_is_whole_and_takes_the_place_of_what_was_there(tiny, tmp_path):
    data, run, _ = tiny
    made = train(data, tmp_path / "none", dry_run=True, **QUICK)
    out = tmp_path / "run"
    out.mkdir()
    (out / "old.txt").write_text("old")
    fresh = replace(Run.read(run), path=out, state="training", step=0)
    assert not resumable(out)
    write_beginning(fresh, made, {"a": 1}, None)
    assert sorted(p.name for p in out.iterdir()) == ["facts.json", "plan.json", "run.json"]
    assert resumable(out)
    assert Run.read(out).state == "training"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # nothing is left beside it


def test_a_fingerprint_is_that_of_the_beginning_whatever_became_of_photos_that_are_left_out(tmp_path):
    data = write_data(tmp_path / "data", test=0)
    before, gone, cut = fingerprint_of(data), data / "train" / "train_2.png", data / "val" / "val_0.png"
    sizes = bytes_of(Dataset.read_split(data, "train"))
    assert sizes.tolist() == [(data / "train" / f"train_{i}.png").stat().st_size for i in range(6)]
    left_out = {"train/train_2.png": gone.stat().st_size, "val/val_0.png": cut.stat().st_size}
    gone.unlink()
    cut.write_bytes(b"")
    assert bytes_of(Dataset.read_split(data, "train"))[2] == -1
    now = fingerprint_of(data)
    assert now["train"] != before["train"]
    assert now["val"] != before["val"]
    assert fingerprint_of(data, left_out) == before
    (data / "train" / "train_1.png").write_bytes(b"another")
    changed = fingerprint_of(data, left_out)
    assert changed["train"] != before["train"]
    assert changed["val"] == before["val"]


def test_what_is_started_again_is_known_by_its_job(tiny, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(tiny[1], out)

    def again(here, job, state="training", **more):
        Run.read(out).write(job=job, state=state)
        return started_again(out, here, QUICK | more)

    mine = Place(by="torchrun", job="torchrun 7")
    assert again(mine, "torchrun 7")  # processes have come or gone: no failure
    assert again(mine, "torchrun 7", workers=3)
    assert not again(mine, "torchrun 7", seed=3)  # the same name for another training
    assert not again(mine, "torchrun 7", "finished")
    assert again(replace(mine, again=True), "torchrun 7", "finished")
    assert not again(mine, "torchrun 8")
    assert not again(mine, "")
    assert not again(replace(mine, again=True), "torchrun 8")  # it died before it wrote its run
    nameless = Place(by="torchrun", again=True)
    assert again(nameless, "")
    assert not again(replace(nameless, again=False), "")
    told = replace(nameless, job="torchrun torchelastic_e3/none_x8")
    assert again(told, "torchrun torchelastic_e3/none_x8", "finished")
    assert not again(told, "")  # what it was to replace, when it died before it wrote its run
    assert not again(told, "torchrun torchelastic_f7/none_y2")
    queued = Place(by="SLURM", again=True, job="SLURM 17")
    assert again(queued, "SLURM 17")
    assert not again(queued, "SLURM 16")
    assert not again(replace(queued, again=False), "SLURM 17")  # another task of the job
    assert not again(Place(), "")
    assert not started_again(tmp_path / "none", queued, QUICK)
    (out / "run.json").write_text("{}")
    assert not started_again(out, queued, QUICK)


def test_processes_that_torchrun_starts_again_go_on_by_themselves(tiny, tmp_path, monkeypatch):
    data, run, _ = tiny
    out = tmp_path / "run"
    shutil.copytree(run, out)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the output exists already"):
        train(data, out, **QUICK)
    said = []
    fresh = train(data, tmp_path / "fresh", **(QUICK | {"steps": 1}))
    assert fresh.job == "torchrun x"
    assert json.loads((fresh.path / "run.json").read_text())["job"] == "torchrun x"
    assert b"torchrun x" not in (fresh.path / LAST).read_bytes()  # equal trainings give equal files
    Run.read(out).write(job="torchrun x", state="training")
    before = (out / "log.jsonl").read_bytes()
    train(data, out, say=said.append, overwrite=True, **QUICK)
    assert said[-1].startswith("trained 6 steps in ")
    assert (out / "log.jsonl").read_bytes() == before  # none of them anew
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert train(data, out, resume=True).job == ""


@pytest.mark.parametrize(("source", "expected"), [("derived", 3), ("user", 2)])
def test_another_machine_reads_with_its_own_cores_unless_the_user_said_how_many(tiny, tmp_path, source, expected):
    data, run, _ = tiny
    out = tmp_path / "run"
    shutil.copytree(run, out)
    stored = json.loads((out / "plan.json").read_text())
    stored["settings"]["workers"], stored["reasons"]["workers"] = 2, {"source": source, "why": "2 cores"}
    (out / "plan.json").write_text(json.dumps(stored))
    machine = Machine("cpu", 1, "3 cores", 3, 8000, False)
    made = resumed_plan(out, data, TrainSettings(), fingerprint_of(data), machine)
    assert made.settings.workers == expected
    assert (made.reasons["workers"].why == "3 cores, since it goes on; it began with 2") == (source == "derived")


def test_a_photo_that_was_renamed_or_replaced_makes_it_other_data(tiny, tmp_path):
    data, run, _ = tiny
    other = tmp_path / "other"
    shutil.copytree(data, other)
    assert fingerprint_of(other) == fingerprint_of(data)
    photo = other / "train" / "train_0.png"
    photo.rename(photo.with_name("renamed.png"))
    renamed = fingerprint_of(other)
    assert renamed["train"] != fingerprint_of(data)["train"]
    assert renamed["val"] == fingerprint_of(data)["val"]
    photo.with_name("renamed.png").rename(photo)
    assert train(other, run, resume=True, dry_run=True).settings.steps == 6
    with Picture.open(photo) as picture:
        picture.save(photo, compress_level=0)  # the same pixels in another number of bytes
    assert refused(other, run) == (
        "a run goes on with the data that it began with\n"
        f"  {other}: the train split differs\n"
        f"  the data was at {data}\n"
        "fix: give the old data back, or start anew: --overwrite"
    )


def test_data_in_shards_has_a_fingerprint_and_other_data_is_refused(tiny, tmp_path):
    data, run, _ = tiny
    sharded, out = tmp_path / "sharded", tmp_path / "run"
    shutil.copytree(data, sharded)
    for split in ("train", "val", "test"):
        write_shards(Dataset.read_split(data, split), sharded / "annotations", f"instances_{split}", 2)
        (sharded / "annotations" / f"instances_{split}.json").unlink()
    found = fingerprint_of(sharded)
    assert set(found) == {"train", "val"}
    shutil.copytree(run, out)
    replace(Run.read(out), fingerprint=found).write()
    assert train(sharded, out, resume=True, dry_run=True).settings.steps == 6
    shard = sharded / "annotations" / "instances_train-00001-of-00003.json"
    document = json.loads(shard.read_text())
    document["annotations"][0]["category_id"] = 3 - document["annotations"][0]["category_id"]
    shard.write_text(json.dumps(document))
    assert fingerprint_of(sharded)["val"] == found["val"]
    assert refused(sharded, out) == (
        "a run goes on with the data that it began with\n"
        f"  {sharded}: the train split differs\n"
        f"  the data was at {data}\n"
        "fix: give the old data back, or start anew: --overwrite"
    )
