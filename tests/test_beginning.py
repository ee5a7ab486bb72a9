"""How a training begins, and whether what lies there is the one that is meant."""

import shutil
from dataclasses import replace

import pytest

from maskwright.beginning import begun_with, resumable, write_beginning
from maskwright.run import Run
from maskwright.train import train
from tiny_world import QUICK, world


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


def test_processes_that_torchrun_starts_again_go_on_by_themselves(tiny, tmp_path, monkeypatch):
    data, run, _ = tiny
    out = tmp_path / "run"
    shutil.copytree(run, out)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    made = train(data, out, dry_run=True, **QUICK)
    assert made.settings.steps == 6
    said = []
    train(data, out, say=said.append, **QUICK)  # it would be refused, since the output exists
    assert said[-1].startswith("trained 6 steps in ")
