"""The checkpoint of a training: everything that an interrupted one needs to go on as if nothing had happened.

A checkpoint is one file, written beside the former one and renamed over it, so that at every moment exactly one whole
checkpoint is there. What else a save writes (the last weights, `run.json`) is for people and for `predict`; a resumed
training reads neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from maskwright.errors import UserError
from maskwright.run import RESUME, load_tensors, save_tensors


@dataclass
class Progress:
    """Where a training stands, beside the tensors.

    Attributes:
        step: Optimiser steps taken.
        elapsed_s: Seconds of the budget used.
        validations: Validations done.
        smoothed_ap: Segm AP, smoothed over the validations; `None` before the first.
        best_ap: The highest `smoothed_ap` so far; its weights are the best ones, of several with 0 the last.
        since_best: Validations since it last rose.
        step_s, validation_s, save_s: Seconds that a step, a validation and a checkpoint took.
        micro_batch: Photos that a process takes at once, where memory forced it to take fewer; 0: as the plan says.
        rewinds: How often a loss was not finite.
        rate_share: What is left of the planned learning rate after them.
        skipped: Photos that are left out since (positions in the train split).
        unreadable: Of these, those that could not be read, and why.
        left_out: All that are left out, of the val split too, as `split/file_name`, and how many bytes each had when
            the training began or went on.
        first_total: The sum of the losses at the beginning, which later ones are judged by; `None` before there is one.
        told: Causes that have been told and are not told again.
        scaler: State of the scaler of 16 bits; empty in other precisions.
        overflows: Steps, of the last ones in a row, that it has left out.
    """

    step: int = 0
    elapsed_s: float = 0.0
    validations: int = 0
    smoothed_ap: float | None = None
    best_ap: float = -1.0
    since_best: int = 0
    step_s: float = 0.0
    validation_s: float = 0.0
    save_s: float = 0.0
    micro_batch: int = 0
    rewinds: int = 0
    rate_share: float = 1.0
    skipped: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    first_total: float | None = None
    told: list[str] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
    overflows: int = 0


def save_checkpoint(
    folder: Path, at: Progress, network: nn.Module, optimiser: Any, average: Mapping[str, Tensor]
) -> None:
    """Write the checkpoint; the former one stays whole until this one is.

    Args:
        folder: The run's.
        at: Where the training stands.
        network: Its weights as trained.
        optimiser: Its moments.
        average: The moving average of the weights by name; empty if there is none.

    Raises:
        UserError: If it cannot be written (no space, no right); the former one is as it was.
    """
    tensors = {f"model.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in moments.items() if v is not None}
    save_tensors(folder / RESUME, tensors, {"progress": json.dumps(vars(at))})


def read_progress(folder: Path) -> Progress:
    """Return where a training stood at its last checkpoint; at its beginning, if there is none.

    Args:
        folder: The run's.

    Raises:
        UserError: If the file is damaged.
    """
    path = folder / RESUME
    if not path.is_file():
        return Progress()
    known = {item.name for item in fields(Progress)}
    try:
        with safe_open(path, "pt") as opened:
            stored = json.loads(opened.metadata()["progress"])
        at = Progress(**{k: v for k, v in stored.items() if k in known})
        at.unreadable = {int(photo): why for photo, why in at.unreadable.items()}  # JSON's keys are text
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from None
    return at


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError("the checkpoint is damaged", [f"{path}: {error!r}"], "start anew: --overwrite")


def load_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> Progress:
    """Put a checkpoint's tensors into a network, its optimiser and its moving average, and return where it stood.

    Raises:
        UserError: If the file is damaged, or of another training.
    """
    path = folder / RESUME
    tensors = load_tensors(path)
    at = read_progress(folder)
    try:
        with torch.no_grad():
            for name, value in network.state_dict().items():
                value.copy_(tensors[f"model.{name}"])
            for name, value in average.items():
                value.copy_(tensors[f"average.{name}"])
    except (KeyError, RuntimeError) as error:
        raise _damaged(path, error) from None
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            # The fused optimiser walks through memory: moments must lie there as their parameter does.
            like = parameters[int(index)]
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[key] = moment
    full = optimiser.state_dict()
    full["state"] = state
    optimiser.load_state_dict(full)
    return at


def remove_fragments(folder: Path) -> None:
    """Remove what a killed process was writing: hidden `.part` files, which nothing reads and which take space."""
    for path in [*folder.glob(".*.part"), *folder.glob("*/.*.part")]:
        path.unlink(missing_ok=True)


def attempt(write: Callable[[], object], warn: Callable[[str], None]) -> bool:
    """Call a function that writes, and return whether it could; a full disk must not end a training half-way.

    Args:
        write: Writes atomically.
        warn: Told why it could not.
    """
    try:
        write()
    except UserError as error:
        warn(f"warning: the checkpoint could not be saved; the former one is kept, and the training goes on: {error}")
        return False
    return True
