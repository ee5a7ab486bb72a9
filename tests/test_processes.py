"""Processes that train together: those that we start, and those on Ray."""

import json
import sys
from functools import partial
from types import SimpleNamespace

import pytest
from torch.multiprocessing import ProcessRaisedException

from maskwright import cli, processes
from maskwright.errors import Problem, UserError
from maskwright.scale.gang import ProcessesDiedError
from maskwright.train import train
from tiny_world import QUICK, write_data


def test_two_processes_train_together(tmp_path, capfd):
    data = write_data(tmp_path / "data", val=0, test=0)
    run = train(data, tmp_path / "run", devices=2, **(QUICK | {"steps": 1}))
    assert (run.state, run.step) == ("finished", 1)
    assert run.network() is not None
    assert [json.loads(line)["step"] for line in (run.path / "log.jsonl").read_text().splitlines()] == [1]
    assert "step 1/1" not in capfd.readouterr().out  # nobody asked


def test_what_the_user_must_change_is_told_so_by_any_process(tmp_path, monkeypatch, capfd):
    data, train_module = write_data(tmp_path / "data", val=0, test=0), sys.modules["maskwright.train"]
    gone, plain = data / "train" / "train_2.png", train_module.check

    def check(*args, **more):
        facts = plain(*args, **more)
        gone.unlink()  # before the processes are started
        return facts

    monkeypatch.setattr(train_module, "check", check)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    assert cli.main(["train", str(data), "-o", str(tmp_path / "run"), "--devices=2", *flags]) == 2
    found = capfd.readouterr().err
    said = f"a photo cannot be read\n  {gone} cannot be opened (No such file or directory)\nfix: replace or remove it,"
    assert said in found
    assert "Traceback" not in found
    assert "bug" not in found


def test_an_error_of_ours_keeps_its_traceback():
    def launch(_work):
        raise ProcessRaisedException("the story", 1, 99)

    with pytest.raises(ProcessRaisedException, match="the story"):
        processes.start(print, SimpleNamespace(launch=launch), None, None, False, aloud=False)


def test_the_first_of_several_errors_is_handed_over_whole():
    first = UserError([Problem("it cannot be", ("here", "there"), "do otherwise"), Problem("nor this")])

    def launch(work):
        for rank in (1, 0):

            def part(*_args, rank=rank):
                raise first if rank == 0 else UserError("another")

            work = partial(work.func, part, *work.args[1:])
            with pytest.raises(UserError):
                work(SimpleNamespace(global_rank=rank))
        raise ProcessRaisedException("the story", 1, 99)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "be_patient", lambda: None)
        with pytest.raises(UserError) as caught:
            processes.start(print, SimpleNamespace(launch=launch), None, None, False, aloud=False)
    assert caught.value.problems == first.problems
    assert caught.value.__cause__ is None


def test_when_a_process_dies_the_training_goes_on_with_one_less(tmp_path, monkeypatch):
    calls, said = [], []

    def together(work, count, *, say, job):
        calls.append((count, work.keywords["resume"], work.keywords["overwrite"]))
        if len(calls) == 1:
            (tmp_path / "run").mkdir()
            for name in ("run.json", "plan.json"):
                (tmp_path / "run" / name).write_text("{}")
        if len(calls) <= 2:
            died = ProcessesDiedError("a process of the Ray cluster died", ["gone"], "go on: --resume")
            died.left = 2 - len(calls)
            raise died
        return "the run", count

    monkeypatch.setattr(processes, "together", together)
    with pytest.raises(ProcessesDiedError):
        train(tmp_path / "data", tmp_path / "run", on="ray", devices=2, overwrite=True, say=said.append)
    assert calls == [(2, False, True), (1, True, False)]
    assert said == ["warning: gone; the training goes on with 1 processes"]


def test_a_script_of_slurm_trains_on_ray_and_the_run_knows_its_job(tmp_path, monkeypatch):
    calls, data = [], write_data(tmp_path / "data", val=0, test=0)

    def together(work, count, *, say, job):
        calls.append((work.keywords["resume"], count, job))
        return "the run", count

    monkeypatch.setattr(processes, "together", together)
    job = {"SLURM_NTASKS": "4", "SLURM_NNODES": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "17"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert train(data, tmp_path / "run", on="ray", devices=2) == "the run"
    assert calls == [(False, 2, "SLURM 17")]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / "run").mkdir()
    run = {"architecture": "maskrcnn-nano", "job": "SLURM 17", "state": "training", "fingerprint": {}, "side": 64}
    run |= {"categories": [], "sizes": {}, "threshold": 0.5, "data": "", "step": 0, "metrics": None, "best_step": None}
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    (tmp_path / "run" / "plan.json").write_text("{}")
    assert train(data, tmp_path / "run", on="ray", overwrite=True) == "the run"
    assert calls[1:] == [(True, None, "SLURM 17")]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    for rank in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        with pytest.raises(UserError, match="one alone may ask"):
            train(data, tmp_path / "other", on="ray", dry_run=True)
    assert len(calls) == 2


def test_the_processes_of_ray_are_told_places_that_hold_in_any_folder(tmp_path, monkeypatch):
    calls = []

    def together(work, count, **_):
        calls.append((work.args[1:], work.keywords["settings"]))
        return "the run", count

    monkeypatch.setattr(processes, "together", together)
    monkeypatch.chdir(tmp_path)
    train("data", "run", on="ray", weights="body.pth")
    places = (str(tmp_path / "data"), str(tmp_path / "run"))
    assert calls == [(places, {"on": "ray", "weights": str(tmp_path / "body.pth")})]


def test_what_began_on_ray_goes_on_there_unless_another_place_is_said(tmp_path, monkeypatch):
    data, out = write_data(tmp_path / "data", val=0, test=0), tmp_path / "run"
    train(data, out, **(QUICK | {"steps": 1, "preflight": False}))
    stored = json.loads((out / "plan.json").read_text())
    stored["settings"]["on"] = "ray"
    (out / "plan.json").write_text(json.dumps(stored))
    calls, said = [], []

    def together(work, count, **_):
        calls.append((work.keywords["resume"], work.keywords["settings"]))
        return "the run", count

    monkeypatch.setattr(processes, "together", together)
    assert train(data, out, resume=True) == "the run"
    assert calls == [(True, {"on": "ray"})]
    made = train(data, out, resume=True, on="here", dry_run=True, say=said.append)
    assert (made.settings.on, made.reasons["on"].why) == ("here", "since it goes on; it began with ray")
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    made = train(data, out, resume=True, dry_run=True)
    assert (made.settings.on, made.settings.devices) == ("here", 2)
    for broken in ("{}", "no JSON"):
        (out / "plan.json").write_text(broken)
        with pytest.raises(UserError, match=r"plan\.json"):
            train(data, out, resume=True)
    assert len(calls) == 1


@pytest.mark.parametrize("written", [False, True])
def test_the_run_that_was_to_be_replaced_does_not_go_on_when_a_process_dies_before_that(tmp_path, monkeypatch, written):
    calls, out = [], tmp_path / "run"
    out.mkdir()
    for name in ("run.json", "plan.json"):
        (out / name).write_text("{}")

    def together(work, count, **_):
        calls.append((count, work.keywords["resume"], work.keywords["overwrite"]))
        if len(calls) == 1:
            if written:  # as a file that takes the place of the former one
                (tmp_path / "new").write_text("{}")
                (tmp_path / "new").rename(out / "run.json")
            died = ProcessesDiedError("a process of the Ray cluster died", ["gone"], "go on: --resume")
            died.left = 1
            raise died
        return "the run", count

    monkeypatch.setattr(processes, "together", together)
    assert train(tmp_path / "data", out, on="ray", devices=2, overwrite=True) == "the run"
    assert calls == [(2, False, True), (1, written, not written)]
    calls.clear()
    assert train(tmp_path / "data", out, on="ray", devices=2, resume=True) == "the run"
    assert calls == [(2, True, False), (1, True, False)]
