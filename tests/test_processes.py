"""Processes that train together: those that we start, and those on Ray."""

import json

import pytest

from maskwright import processes
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


def test_when_a_process_dies_the_training_goes_on_with_one_less(tmp_path, monkeypatch):
    calls, said = [], []

    def together(work, count, *, say):
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
