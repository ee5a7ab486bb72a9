"""Trackers: what they are given, that they go on with their run, and that they never cost a training."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from maskwright.errors import UserError
from maskwright.log import Log
from maskwright.trackers import open_tracker, require

SETTINGS = {"steps": 6, "weights": "none"}


class Fake(ModuleType):
    """Stands for a tracker's package: notes every call."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []
        self.fails = ()

    def note(self, name, /, *args, **more):
        self.calls.append((name, args, more))
        if name in self.fails:
            raise ConnectionError(f"{name}: no route to host\nmore")


def fake_mlflow():
    fake = Fake("mlflow")
    for name in ("set_tracking_uri", "set_experiment", "log_params", "log_metrics", "end_run"):
        setattr(fake, name, lambda *args, _name=name, **more: fake.note(_name, *args, **more))

    def start_run(**more):
        fake.note("start_run", **more)
        return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

    fake.start_run = start_run
    return fake


def fake_wandb():
    fake = Fake("wandb")

    def init(**more):
        fake.note("init", **more)
        return SimpleNamespace(
            id="w1", log=lambda *a, **k: fake.note("log", *a, **k), finish=lambda: fake.note("finish")
        )

    fake.init = init
    return fake


@pytest.fixture(params=["mlflow", "wandb"])
def fake(request, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    made = {"mlflow": fake_mlflow, "wandb": fake_wandb}[request.param]()
    monkeypatch.setitem(sys.modules, request.param, made)
    return made


def test_numbers_settings_and_the_end_reach_the_tracker_and_nothing_leaves_the_machine(fake, tmp_path):
    said = []
    tracker = open_tracker(fake.__name__, tmp_path, SETTINGS, said.append)
    tracker.log({"loss/total": 1.5}, 4)
    tracker.close()
    names = [name for name, _, _ in fake.calls]
    if fake.__name__ == "mlflow":
        assert names == ["set_tracking_uri", "set_experiment", "start_run", "log_params", "log_metrics", "end_run"]
        assert fake.calls[0][1] == ((tmp_path / "mlruns").resolve().as_uri(),)
        assert fake.calls[2][2] == {"run_id": None, "run_name": tmp_path.name}
        assert fake.calls[3][1] == (SETTINGS,)
    else:
        assert names == ["init", "log", "finish"]
        assert fake.calls[0][2]["mode"] == "offline"
        assert fake.calls[0][2]["config"] == SETTINGS
        assert fake.calls[0][2]["dir"] == str(tmp_path)
    assert [(args, more) for name, args, more in fake.calls if name in {"log", "log_metrics"}] == [
        (({"loss/total": 1.5},), {"step": 4})
    ]
    assert said == []


def test_a_resumed_training_goes_on_with_its_run(fake, tmp_path):
    open_tracker(fake.__name__, tmp_path, SETTINGS, print).close()
    assert json.loads((tmp_path / "tracker.json").read_text())["tracker"] == fake.__name__
    fake.calls.clear()
    open_tracker(fake.__name__, tmp_path, SETTINGS, print)
    begun = next(more for name, _, more in fake.calls if name in {"start_run", "init"})
    assert begun[{"mlflow": "run_id", "wandb": "id"}[fake.__name__]] == {"mlflow": "m1", "wandb": "w1"}[fake.__name__]
    assert "log_params" not in [name for name, _, _ in fake.calls]  # MLflow refuses to change them


def test_a_tracker_that_fails_is_told_once_and_forgotten(fake, tmp_path):
    said = []
    tracker = open_tracker(fake.__name__, tmp_path, SETTINGS, said.append)
    fake.fails = ("log", "log_metrics")
    tracker.log({"a": 1.0}, 1)
    tracker.log({"a": 2.0}, 2)
    tracker.close()
    what = fake.fails[fake.__name__ == "mlflow"]
    assert said == [
        f"warning: the tracker {fake.__name__} failed, and the training goes on without: {what}: no route to host"
    ]


def test_a_tracker_that_does_not_start_is_told(fake, tmp_path):
    said = []
    fake.fails = ("init", "start_run")
    open_tracker(fake.__name__, tmp_path, SETTINGS, said.append).log({"a": 1.0}, 1)
    assert [text.split(", ")[0] for text in said] == [f"warning: the tracker {fake.__name__} failed"]
    assert not (tmp_path / "tracker.json").exists()


def test_what_the_environment_says_is_done(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracks.example")
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    open_tracker(fake.__name__, tmp_path, SETTINGS, print)
    if fake.__name__ == "mlflow":
        assert fake.calls[0][1] == ("https://tracks.example",)
    else:
        assert fake.calls[0][2]["mode"] == "online"


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(name, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError) as caught:
        require(name)
    assert str(caught.value) == (
        f"the tracker is not installed: {name}\n  --tracker {name} needs it\n"
        f"fix: pip install 'maskwright[{name}]', or leave out: --tracker {name}"
    )
    require("none")


def test_the_log_hands_its_numbers_on(tmp_path):
    seen = []
    tracker = SimpleNamespace(
        log=lambda values, step: seen.append((step, dict(values))), close=lambda: seen.append("end")
    )
    with Log(tmp_path, 0, True, tracker) as log:
        log.write(
            {"kind": "validation", "step": 3, "epoch": 1, "metrics": {"segm/AP": 0.5, "bbox/APs": None}, "best": True}
        )
        log.write({"kind": "event", "step": 3, "what": "stop", "text": "stopped"})
    assert seen == [(3, {"val/segm/AP": 0.5}), "end"]
