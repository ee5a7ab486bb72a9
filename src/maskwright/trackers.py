"""MLflow and Weights & Biases: where a training's numbers go beside its own log. Both are extras.

A tracker must never cost a training. Nothing is sent anywhere unless the user's environment says so: MLflow writes to
the run folder unless `MLFLOW_TRACKING_URI` is set, Weights & Biases works offline unless `WANDB_MODE` or
`WANDB_API_KEY` is set. What fails is told once, and the training goes on without.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from maskwright.dataset import read_json
from maskwright.errors import UserError
from maskwright.files import write_json

MEMORY = "tracker.json"
"""In the run folder: which of the tracker's runs this one is, so that a resumed training goes on with it."""


class Tracker(Protocol):
    """Takes numbers."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name, of a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class _None:
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Guarded:
    """A tracker whose failure is told once and ends it, and nothing else."""

    def __init__(self, name: str, inner: Tracker, tell: Callable[[str], None]) -> None:
        self.name, self.tell = name, tell
        self.inner: Tracker = inner

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._try(lambda: self.inner.log(values, step))

    def close(self) -> None:
        self._try(self.inner.close)

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # whatever it is, it is not the training's
            self.tell(_failed(self.name, error))
            self.inner = _None()


class _MLflow:
    def __init__(self, mlflow: Any, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        self.mlflow = mlflow
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            # Files, which need no database package; MLflow 3.17 writes them only if told so by this variable.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            address = (folder / "mlruns").resolve().as_uri()
        mlflow.set_tracking_uri(address)
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "maskwright")
        run = mlflow.start_run(run_id=known, run_name=folder.name)
        self.id = str(run.info.run_id)
        if known is None:
            mlflow.log_params(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class _WandB:
    def __init__(self, wandb: Any, folder: Path, settings: Mapping[str, Any], known: str | None) -> None:
        online = "WANDB_API_KEY" in os.environ
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "maskwright",
            name=folder.name,
            dir=str(folder),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE") or ("online" if online else "offline"),
            id=known,
            resume="allow",
        )
        self.id = str(self.run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Nothing is reported to their makers, and nothing printed between our lines, unless the user says otherwise."""

_KNOWN: dict[str, Callable[[Any, Path, Mapping[str, Any], str | None], Any]] = {"mlflow": _MLflow, "wandb": _WandB}


def require(name: str) -> None:
    """Refuse a tracker that is not installed, before anything is done.

    Args:
        name: `mlflow`, `wandb` or `none`.

    Raises:
        UserError: If its package is absent.
    """
    if name not in _KNOWN or name in sys.modules:
        return
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder of that name, which trackers leave behind, is no package
        raise UserError(
            f"the tracker is not installed: {name}",
            [f"--tracker {name} needs it"],
            f"pip install 'maskwright[{name}]', or leave out: --tracker {name}",
        )


def open_tracker(name: str, folder: Path, settings: Mapping[str, Any], tell: Callable[[str], None]) -> Tracker:
    """Return the tracker of a name; one that does nothing if it cannot be started, which is told.

    Args:
        name: `mlflow`, `wandb` or `none`.
        folder: The run's; local files of the tracker go there.
        settings: Of the training, for the tracker to show.
        tell: Called with what went wrong.
    """
    if name not in _KNOWN:
        return _None()
    memory = folder / MEMORY
    known = None
    if memory.is_file():
        stored = read_json(memory)
        known = stored.get("id") if stored.get("tracker") == name else None
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        inner = _KNOWN[name](importlib.import_module(name), folder, settings, known)
    except Exception as error:  # no network, no rights, another version
        tell(_failed(name, error))
        return _None()
    write_json(memory, {"tracker": name, "id": inner.id})
    return _Guarded(name, inner, tell)


def _failed(name: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"warning: the tracker {name} failed, and the training goes on without: {first}"
