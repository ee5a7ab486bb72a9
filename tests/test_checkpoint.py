"""A checkpoint is whole at every moment, and what goes on from it ends where an undisturbed training ends."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from maskwright import validation
from maskwright.average import Average
from maskwright.checkpoint import (
    Progress,
    attempt,
    load_checkpoint,
    read_progress,
    remove_fragments,
    save_checkpoint,
)
from maskwright.errors import UserError
from maskwright.run import BEST, LAST, RESUME, Run, load_tensors
from maskwright.train import train
from tiny_world import QUICK, world

DOOMED = Path(__file__).with_name("doomed.py")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return world(tmp_path_factory.getbasetemp())


def killed(data, out, moment, number, *more):
    """Train in a process that kills itself, and return its exit code."""
    words = [sys.executable, str(DOOMED), str(data), str(out), moment, str(number), json.dumps(QUICK), *more]
    return subprocess.run(words, capture_output=True, check=False).returncode


def test_killed_again_and_again_a_training_ends_with_the_same_bytes(tiny, tmp_path):
    data, finished, _ = tiny
    out = tmp_path / "run"
    assert killed(data, out, "checkpoint", 1) == -signal.SIGKILL
    assert not (out / RESUME).exists()  # there is none yet, but the beginning is there
    assert list(out.glob(f".{RESUME}.*.part"))
    assert killed(data, out, "checkpoint", 3, "--resume") == -signal.SIGKILL
    with safe_open(out / RESUME, "pt") as opened:  # the former one is whole
        assert json.loads(opened.metadata()["progress"])["step"] == 2
    run = train(data, out, resume=True)
    assert (run.state, run.step) == ("finished", 6)
    for name in (LAST, BEST):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert not [*out.rglob("*.part")]


def test_a_full_disk_costs_neither_the_training_nor_the_former_checkpoint(tiny, tmp_path, monkeypatch):
    data, finished, _ = tiny
    out, said = tmp_path / "run", []
    module = sys.modules["maskwright.train"]
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    plain, saves = os.fsync, []

    def fsync(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if f".{RESUME}." in name:
            saves.append(name)
            if len(saves) in {2, 3}:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    at_three = []

    def say(text):
        said.append(text)
        if "could not be saved" in text:
            with safe_open(out / RESUME, "pt") as opened:
                at_three.append(json.loads(opened.metadata()["progress"])["step"])

    train(data, out, say=say, **QUICK)
    warnings = [text for text in said if "could not be saved" in text]
    assert at_three == [1, 1]
    assert warnings[0].startswith(
        "warning: the checkpoint could not be saved; the former one is kept, and the training goes on: "
    )
    assert "No space left on device" in warnings[0]
    assert (out / LAST).read_bytes() == (finished / LAST).read_bytes()
    assert not [*out.rglob("*.part")]


def test_a_disk_on_which_nothing_can_be_written_for_a_while_costs_no_training(tiny, tmp_path, monkeypatch):
    data, finished, _ = tiny
    out, said, module = tmp_path / "run", [], sys.modules["maskwright.train"]
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    plain, evaluate, aps = module.Stepper.take, validation.evaluate, iter((0.9, 0.5))

    def take(self, batch, step, rate):
        if step in {1, 5}:  # no file may grow in the steps between
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, usual[1]) if step == 1 else usual)
        return plain(self, batch, step, rate)

    def scored(*args, **more):
        result = evaluate(*args, **more)
        return replace(result, metrics={**result.metrics, "segm/AP": next(aps)})

    def say(text):
        said.append(text)
        if resource.getrlimit(resource.RLIMIT_FSIZE) != usual:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # `maskwright train ... > file`

    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(module.Stepper, "take", take)
    monkeypatch.setattr(validation, "evaluate", scored)
    try:
        run = train(data, out, say=say, **QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (run.state, run.step) == ("finished", 6)
    assert sum("log.jsonl cannot be written: " in text for text in said) == 1
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(e["kind"], e["step"]) for e in lines if e["kind"] != "event"] == [
        *(("step", 2), ("validation", 3), ("step", 4), ("step", 6), ("validation", 6))
    ]
    assert {e["step"] for e in lines if e["kind"] == "event"} == {2, 3, 4, 5}
    assert all("could not be saved" in e["text"] for e in lines if e["kind"] == "event")
    # The best weights of step 3 found no room: those that did are what run.json tells of.
    assert (run.best_step, run.metrics["segm/AP"]) == (6, 0.5)
    assert [e["best"] for e in lines if e["kind"] == "validation"] == [False, True]
    for name, tensor in load_tensors(finished / LAST).items():
        assert torch.equal(load_tensors(out / LAST)[name], tensor)
        assert torch.equal(load_tensors(out / BEST)[name], tensor)
    assert not [*out.rglob("*.part")]


def test_a_disk_that_is_full_at_the_end_is_an_error_and_the_run_can_go_on(tiny, tmp_path, monkeypatch):
    data, finished, _ = tiny
    out = tmp_path / "run"
    with monkeypatch.context() as patch:

        def fsync(descriptor):
            if f".{RESUME}." in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match="No space left on device"):
            train(data, out, **QUICK)
    assert Run.read(out).state == "training"
    train(data, out, resume=True)
    assert (out / LAST).read_bytes() == (finished / LAST).read_bytes()


def parts(seed=0):
    torch.manual_seed(seed)
    network = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW([{"params": list(network.parameters()), "share": 1.0}], lr=0.1, fused=True)
    return network, optimiser, Average(network, 0.9)


def learn(network, optimiser, average, step):
    optimiser.zero_grad()
    network(torch.ones(4, 3) * step).square().sum().backward()
    optimiser.step()
    average.update(step)


def test_what_is_loaded_goes_on_as_what_was_saved(tmp_path):
    whole, halved, fresh = parts(), parts(), parts(seed=5)
    for step in (1, 2, 3, 4):
        learn(*whole, step)
    for step in (1, 2):
        learn(*halved, step)
    at = Progress(step=2, elapsed_s=1.5, best_ap=0.3, smoothed_ap=0.25, rewinds=1, rate_share=0.5, skipped=[4])
    at.unreadable, at.left_out = {4: "four.png is gone"}, {"train/four.png": 17}
    assert read_progress(tmp_path) == Progress()
    save_checkpoint(tmp_path, at, halved[0], halved[1], halved[2].tensors)
    assert read_progress(tmp_path) == at
    assert load_checkpoint(tmp_path, fresh[0], fresh[1], fresh[2].tensors) == at
    for step in (3, 4):
        learn(*fresh, step)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), fresh[0].parameters(), strict=True))
    assert all(torch.equal(whole[2].tensors[k], fresh[2].tensors[k]) for k in whole[2].tensors)
    assert not torch.equal(whole[2].tensors["weight"], whole[0].weight)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_checkpoint_is_named(tmp_path, spoil):
    network, optimiser, average = parts()
    save_checkpoint(tmp_path, Progress(), network, optimiser, average.tensors)
    spoil(tmp_path / RESUME)
    with pytest.raises(UserError, match=RESUME):
        load_checkpoint(tmp_path, network, optimiser, average.tensors)
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        read_progress(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    network, optimiser, average = parts()
    save_checkpoint(tmp_path, Progress(), network, optimiser, average.tensors)
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        load_checkpoint(tmp_path, nn.Linear(4, 2), optimiser, average.tensors)


def test_fragments_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "weights").mkdir()
    for name in (".resume.safetensors.ab12.part", "weights/.best.safetensors.x.part", "resume.safetensors", "a.part"):
        (tmp_path / name).write_bytes(b"x")
    remove_fragments(tmp_path)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"resume.safetensors", "a.part"}


def test_only_a_users_error_is_survived():
    said = []

    def full():
        raise UserError("no space", ["x"], "free some")

    def wrong():
        raise ZeroDivisionError

    assert attempt(lambda: None, said.append) is True
    assert attempt(full, said.append) is False
    assert said == [
        "warning: the checkpoint could not be saved; the former one is kept, and the training goes on: no space\n  x\n"
        "fix: free some"
    ]
    with pytest.raises(ZeroDivisionError):
        attempt(wrong, said.append)
