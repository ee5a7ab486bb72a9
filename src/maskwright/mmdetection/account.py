"""The account of a config: what became of each of its values, told once and with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from maskwright.errors import UserError
from maskwright.mmdetection.config import Config
from maskwright.mmdetection.literals import Table, Where
from maskwright.settings import TrainSettings

Outcome = Literal["carried", "derived", "dropped"]

_NOTHING_LIKE_IT = "there is nothing like it here"

_EXPLAINED: dict[str, tuple[Outcome, tuple[str, ...]]] = {
    "heads, anchors and what is kept of the proposals are the architecture's own": (
        "derived",
        ("model.rpn_head", "model.neck", "model.roi_head", "model.backbone", "model.train_cfg", "model.test_cfg"),
    ),
    "pixels are normalised as the weights of the backbone want them": ("derived", ("model.data_preprocessor",)),
    "the loader reads, sorts and batches the photos, by the cores of the machine": (
        "derived",
        ("data.workers_per_gpu", "data.persistent_workers", "data.train", "train_dataloader"),
    ),
    "photos are scaled as in training, one at a time": (
        "derived",
        ("data.val", "data.test", "data.val_dataloader", "data.test_dataloader", "val_dataloader", "test_dataloader"),
    ),
    "COCO's numbers of masks and boxes, several times in a training (--validations)": (
        "derived",
        ("evaluation", "val_evaluator", "test_evaluator", "val_cfg", "test_cfg", "train_cfg"),
    ),
    "a checkpoint every minute; the best weights by segm AP and the last are kept": (
        "derived",
        ("checkpoint_config", "default_hooks.checkpoint"),
    ),
    "the precision follows from the machine (--precision)": (
        "derived",
        ("fp16", "optim_wrapper.type", "optim_wrapper.loss_scale", "optim_wrapper.dtype", "optimizer_config.type"),
    ),
    "log.jsonl and TensorBoard": (
        "derived",
        ("log_config", "log_level", "log_processor", "visualizer", "vis_backends", "default_hooks"),
    ),
    "the rate is scaled as said above": ("derived", ("auto_scale_lr",)),
    "the norm is the usual one": (
        "derived",
        ("optimizer_config.grad_clip.norm_type", "optim_wrapper.clip_grad.norm_type"),
    ),
    "the warm-up starts from nearly nothing": ("derived", ("lr_config.warmup_ratio", "lr_config.warmup")),
    "the rate drops at the ends of epochs": ("derived", ("lr_config.by_epoch",)),
    "processes, threads and devices follow from the machine (--devices)": (
        "derived",
        (
            *("dist_params", "env_cfg", "mp_start_method", "opencv_num_threads", "cudnn_benchmark", "gpu_ids"),
            *("find_unused_parameters", "default_scope", "launcher", "device", "runner"),
        ),
    ),
    "the folder of the run is named with -o": ("derived", ("work_dir",)),
    "ours goes on with train --resume, and only with a run of its own": ("dropped", ("resume", "resume_from")),
    "training is all that train does; it validates by itself": ("dropped", ("workflow",)),
    "it names code, which is not run": ("dropped", ("custom_hooks", "custom_imports")),
    _NOTHING_LIKE_IT: (
        "dropped",
        ("tta_model", "tta_pipeline", "optimizer_config", "optimizer", "optim_wrapper", "lr_config", "model", "data"),
    ),
}
"""What becomes of values that are not looked at one by one; the longest name that fits counts."""

_REASONS = {name: (outcome, why) for why, (outcome, names) in _EXPLAINED.items() for name in names}

KEYS = frozenset(name.split(".")[0] for name in _REASONS) | {
    *("param_scheduler", "total_epochs", "load_from", "seed", "randomness"),
}
"""MMDetection's own names at the top of a config; other names there are the author's helpers."""


@dataclass(frozen=True)
class Row:
    """What becomes of something that a config says.

    Attributes:
        outcome: `carried` over into a setting or a command, `derived` by Maskwright instead, or `dropped`.
        what: Its name in the config, dotted; several with commas between.
        says: Its value there.
        becomes: Name and value of the setting, or nothing.
        why: The reason, or what to type for another choice.
        where: File and line, or the file whose well-known value is assumed.
    """

    outcome: Outcome
    what: str
    says: str
    becomes: str
    why: str
    where: str


class Said(NamedTuple):
    """Something that a config says: its dotted name, its value, and where it was written."""

    path: str
    value: Any
    where: Where


class Account:
    """Finds values in a config and keeps the account of them.

    Attributes:
        settings: What was carried over.
        rows: What became of what.
        notes: What the user should look at first.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.seen: set[str] = set()

    def find(self, *paths: str) -> Said | None:
        """Return the first of several values that is there; count all as looked at, and tell where they differ."""
        found = [Said(path, *said) for path in paths if (said := self.config.find(path)) is not None]
        for other in found[1:]:
            if other.value != found[0].value and other.path not in self.seen:
                self.tell("dropped", other, f"{found[0].path} is what counts")
        self.seen |= {said.path for said in found}
        return found[0] if found else None

    def number(self, *paths: str, least: float = 0, whole: bool = False) -> Said | None:
        """Return the first of several values, if it is a sane number; what is no number is told."""
        said = self.find(*paths)
        if said is None or said.value is None:
            return None
        kinds = (int,) if whole else (int, float)
        if type(said.value) not in kinds or not math.isfinite(said.value) or said.value < least:
            self.tell("dropped", said, f"it is not a {'whole ' if whole else ''}number of at least {least:g}")
            return None
        return said

    def tell(self, outcome: Outcome, said: Said, why: str, becomes: str = "") -> None:
        """Add a row."""
        self.rows.append(Row(outcome, said.path, text(said.value), becomes, why, str(said.where)))

    def carry(self, name: str, value: Any, said: Said, why: str) -> bool:
        """Take a setting over, if it can have the value; tell it either way."""
        try:
            TrainSettings.parse({name: value})
        except UserError as error:
            rule = error.problems[0].where[0].split(": ")[-1]
            self.tell("dropped", said, f"{name} cannot be {text(value)}: {rule}")
            return False
        self.settings[name] = value
        self.tell("carried", said, why, f"{name} {text(value)}")
        return True

    def close(self) -> None:
        """Tell of everything that was not looked at, in groups of one reason each."""
        groups: dict[tuple[Outcome, str], list[Said]] = {}
        for key, value in self.config.values.items():
            if key in KEYS:
                for said in self._leaves(Said(key, value, self.config.values.where[key])):
                    groups.setdefault(_reason(said.path), []).append(said)
        for idle in self.config.idle:
            if idle.name not in KEYS | self.seen:
                why = "no line of the config uses it, so it changes nothing"
                why += f"; what was made of it in {idle.before.file} stays" if idle.before else ""
                self.tell("dropped", Said(idle.name, self.config.values.get(idle.name), idle.where), why)
        for (outcome, why), members in groups.items():
            places = list(dict.fromkeys(str(said.where) for said in members))
            where = places[0] if len(places) == 1 else count(len(places), "place")
            says = short(text(members[0].value)) if len(members) == 1 else ""
            self.rows.append(Row(outcome, _joined(members), says, "", why, where))

    def _leaves(self, said: Said) -> Iterator[Said]:
        """Yield what was not looked at: a table as a whole where nothing in it was."""
        if said.path in self.seen:
            return
        inside = f"{said.path}."
        looked_at = any(path.startswith(inside) for path in self.seen)
        if isinstance(said.value, Table) and (looked_at or any(path.startswith(inside) for path in _REASONS)):
            for key, value in said.value.items():
                yield from self._leaves(Said(f"{inside}{key}", value, said.value.where[key]))
        elif isinstance(said.value, list | tuple) and looked_at:
            for index, value in enumerate(said.value):
                yield from self._leaves(Said(f"{inside}{index}", value, said.where))
        else:
            yield said


def _reason(path: str) -> tuple[Outcome, str]:
    """Return what becomes of a name, by the longest beginning of it that is known."""
    parts = path.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((_REASONS[name] for name in names if name in _REASONS), ("dropped", _NOTHING_LIKE_IT))


def _joined(members: list[Said]) -> str:
    """Return names with commas between; those of one table in brackets behind its name."""
    tables: dict[str, list[str]] = {}
    for said in members:
        table, _, name = said.path.rpartition(".")
        tables.setdefault(table, []).append(name)
    parts = []
    for table, names in tables.items():
        inside = ", ".join(names)
        parts.append(inside if not table else f"{table}.{inside}" if len(names) == 1 else f"{table}.({inside})")
    return ", ".join(parts)


def text(value: Any) -> str:
    """Return a value as people write it.

    Example:
        >>> text(True), text(0.02), text([16, 22]), text([]), text(None)
        ('yes', '0.02', '16, 22', 'none', 'none')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(one) for one in value[:100]) or "none"
    if isinstance(value, dict):
        return short(json.dumps(value, default=str), 1_000)
    return "none" if value is None else str(value)


def short(words: str, longest: int = 60) -> str:
    """Return the beginning of a text that is too long to be shown."""
    return words if len(words) <= longest else words[:longest] + " ..."


def count(number: int, what: str) -> str:
    """Return a number with its word: `1 file`, `2 files`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
