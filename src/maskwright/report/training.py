"""What a run folder tells about the training: loss and score curves, the plan, how many photos it learned from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.columns import crowd_of
from maskwright.dataset import read_json
from maskwright.errors import UserError
from maskwright.shards import split_files

MOST_POINTS = 400
"""A curve is thinned to so many points: more than a chart has pixels for."""

_CURVES = ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP")


@dataclass(frozen=True)
class Leak:
    """Photos of a split that another split has too, or one that looks like them.

    Attributes:
        split: Which split they are of.
        alike: Whether they only look alike.
        count: How many they are.
        photos: Photos of the split.
    """

    split: str
    alike: bool
    count: int
    photos: int

    @property
    def told(self) -> str:
        """What is so, without an end.

        Example:
            >>> Leak("val", True, 1, 12).told, Leak("test", False, 2, 30).told
            ('1 of the 12 photos looks like a photo of another split', '2 of the 30 photos stand in another split too')
        """
        one = self.count == 1
        if self.alike:
            what = ("looks" if one else "look") + " like a photo of another split"
        else:
            what = ("stands" if one else "stand") + " in another split too"
        return f"{self.count:,} of the {self.photos:,} photos {what}"


@dataclass(frozen=True)
class Training:
    """What is known of a training.

    Attributes:
        losses: Points `{"step", "total", <each loss>}`, ascending.
        validations: Points `{"step", "best", <metric>: value}`, ascending.
        plan: Rows `(name, value, source, reason)`.
        train_photos: Photos that the run learned from, if its data or its plan tells.
        train_objects: Objects of each category in them.
        threshold: The score that the run uses: what its validation advised, if there was one.
        validated: Whether validations chose the weights and the threshold.
        data: The data folder that it was trained on.
        leaks: What `check` found before the training, of val and test.
        averaged: How many log lines one point of `losses` is the mean of.
        notes: What is missing or could not be read, for the page to say.
    """

    losses: tuple[Mapping[str, Any], ...] = ()
    validations: tuple[Mapping[str, Any], ...] = ()
    plan: tuple[tuple[str, str, str, str], ...] = ()
    train_photos: int | None = None
    train_objects: Mapping[str, int] = field(default_factory=dict)
    threshold: float | None = None
    validated: bool = False
    data: Path | None = None
    leaks: tuple[Leak, ...] = ()
    averaged: int = 1
    notes: tuple[str, ...] = ()


def read_training(run: Path | None) -> Training:
    """Read what a run folder has; whatever is absent becomes a note.

    Args:
        run: The run folder; `None` if it is not known.
    """
    if run is None:
        return Training(notes=("No training curves: the evaluation names no run (give one with --run).",))
    if not run.is_dir():
        return Training(notes=(f"No training curves: the run folder {run} does not exist.",))
    notes: list[str] = []
    losses, validations, averaged = _read_log(run / "log.jsonl", notes)
    plan = _optional_json(run / "plan.json", notes)
    about = _optional_json(run / "run.json", notes)
    about = about if isinstance(about, dict) else {}
    stated = about.get("data")
    data = Path(stated) if stated and isinstance(stated, str) else None
    photos, objects = _train_split(data)
    return Training(
        losses=tuple(losses),
        validations=tuple(validations),
        plan=tuple(_plan_rows(plan)),
        train_photos=photos if photos is not None else _whole(_mapping(plan).get("photos")),
        train_objects=objects,
        threshold=number(about.get("threshold")),
        validated=bool(validations) or number(about.get("best_step")) is not None,
        data=data,
        leaks=_leaks(_optional_json(run / "facts.json", notes) if (run / "facts.json").is_file() else None),
        averaged=averaged,
        notes=tuple(notes),
    )


def number(value: Any) -> float | None:
    """Return a finite number as float, anything else as `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _read_log(path: Path, notes: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        notes.append(f"No training curves: {path} does not exist or cannot be read.")
        return [], [], 1
    steps: dict[float, dict[str, Any]] = {}
    validations: dict[float, dict[str, Any]] = {}
    broken = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = number(entry["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            broken += 1
            continue
        if step is None:
            broken += 1
        elif entry.get("kind") == "step":
            # A resumed run may tell a step again; the later line is the one that led to the weights.
            steps[step] = _numbers({"total": entry.get("total"), **_mapping(entry.get("losses"))}) | {"step": step}
        elif entry.get("kind") == "validation":
            metrics = _numbers({name: _mapping(entry.get("metrics")).get(name) for name in _CURVES})
            validations[step] = metrics | {"step": step, "best": bool(entry.get("best"))}
    if broken:
        notes.append(f"{broken} lines of {path.name} could not be read and are left out of the curves.")
    thinned, averaged = _thin([steps[step] for step in sorted(steps)])
    return thinned, [validations[step] for step in sorted(validations)], averaged


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, given in values.items() if (value := number(given)) is not None}


def _thin(points: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Average runs of points so that at most `MOST_POINTS` remain."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return points, 1
    result = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        names = {name for point in group for name in point}
        mean = {}
        for name in names:
            values = [point[name] for point in group if name in point]
            mean[name] = sum(values) / len(values)
        result.append(mean | {"step": group[-1]["step"]})
    return result, size


def _optional_json(path: Path, notes: list[str]) -> Any:
    if not path.is_file():
        notes.append(f"{path.name} is not in the run folder.")
        return None
    try:
        return read_json(path)
    except UserError as error:
        notes.append(f"{path.name} of the run cannot be read: {'; '.join(error.problems[0].where)}.")
        return None


def _plan_rows(plan: Any) -> list[tuple[str, str, str, str]]:
    """Turn plan.json into rows: its values, with those of `settings` among them, and what `reasons` says of each."""
    values = _mapping(plan)
    reasons = _mapping(values.get("reasons"))
    flat = {**_mapping(values.get("settings")), **{k: v for k, v in values.items() if k not in {"settings", "reasons"}}}
    rows = []
    for name, value in flat.items():
        reason = _mapping(reasons.get(name))
        rows.append((name, _text(value), str(reason.get("source", "")), str(reason.get("why", ""))))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_AFFECTED = re.compile(r"(\w+): ([\d,]+) of ([\d,]+) photos \(.*\)")
"""How `check` says how much of a split a leak affects."""


def _leaks(facts: Any) -> tuple[Leak, ...]:
    """Return what facts.json knows of leaks, copies before photos that look alike."""
    found = []
    for finding in _items(_mapping(facts).get("problems")):
        code = _mapping(finding).get("code")
        if code not in {"photo-leak", "near-leak"}:
            continue
        for line in _items(_mapping(_mapping(finding).get("problem")).get("where")):
            if told := _AFFECTED.fullmatch(str(line)):
                count, photos = (int(text.replace(",", "")) for text in told.groups()[1:])
                found.append(Leak(told[1], code == "near-leak", count, photos))
    return tuple(sorted(found, key=lambda leak: leak.alike))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _train_split(data: Path | None) -> tuple[int | None, dict[str, int]]:
    """Count photos and objects per category of the split that was trained on, without decoding any mask."""
    if data is None:
        return None, {}
    try:
        documents = [read_json(path) for path in split_files(data, "train")]
        names = {item["id"]: str(item["name"]) for document in documents for item in document["categories"]}
        counts = dict.fromkeys(names.values(), 0)
        for item in (item for document in documents for item in document["annotations"]):
            if not crowd_of(item.get("iscrowd")):
                counts[names[item["category_id"]]] += 1
        return sum(len(document["images"]) for document in documents) if documents else None, counts
    except (UserError, KeyError, TypeError, ValueError):
        return None, {}  # the run's data may have moved; the page then gives no advice that needs it
