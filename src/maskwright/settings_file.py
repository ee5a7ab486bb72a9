"""A file of settings, and what the user typed beside it -> the settings that count.

A budget that is typed takes the place of the file's. The drops and the warm-up that the file has were for its own
budget, so they are brought into proportion; where that cannot be told here, they are left to the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskwright.dataset import read_json
from maskwright.errors import Problem, UserError
from maskwright.plan import BUDGETS, ORIGIN_EPOCHS
from maskwright.settings import Settings


def stored(
    path: str | Path | None, typed: Mapping[str, Any], model: type[Settings]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of a file, with those that the user typed in their place.

    Args:
        path: A JSON file: settings by name, or an object that has them under `settings`, as a run's `plan.json` and
            what `maskwright settings` writes have; `null` is as good as not given. `None`: there is no file.
        typed: What the user said beside it; a budget (minutes, epochs, steps) takes the place of the file's.
        model: Which settings there are.

    Returns:
        The settings; and, by name, what became of those that were for another budget: they have other values, or are
        not among the settings.

    Raises:
        UserError: If the file is not there, is no JSON, or has a name or a value that cannot be.
    """
    if path is None:
        return dict(typed), {}
    document = read_json(Path(path))
    values = document.get("settings", document) if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise UserError(
            "the settings file holds no settings",
            [f"{path}: expected a JSON object of names and values, or one with such an object under 'settings'"],
            "name a plan.json, or what `maskwright settings` wrote",
        )
    values = {name: value for name, value in values.items() if value is not None}
    try:
        own = model.parse(values).model_dump()
    except UserError as error:
        raise UserError(
            [Problem(p.what, tuple(f"{path}: {line}" for line in p.where), p.fix) for p in error.problems]
        ) from None
    said = {name: value for name, value in typed.items() if value is not None}
    now, then = (next((name for name in BUDGETS if name in where), None) for where in (said, values))
    changed: dict[str, Any] = {}
    fitted: dict[str, str] = {}
    if now is not None and then is not None:
        changed, fitted = _fit({k: v for k, v in own.items() if k == then or k not in said}, then, now, said[now])
        del values[then]
    kept = {name: value for name, value in values.items() if name not in fitted}
    return kept | changed | dict(typed), fitted


def _fit(own: Mapping[str, Any], then: str, now: str, length: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Bring the drops and the warm-up of a file from its budget to another.

    Args:
        own: The file's settings that nobody typed, and its budget.
        then: Which budget it has.
        now: Which one takes its place.
        length: The latter's value.

    Returns:
        New values; and, by name, what became of them, also of those that are to be left out.
    """
    longer = _longer(then, own[then], now, length)
    values: dict[str, Any] = {}
    fitted: dict[str, str] = {}
    of = f"for its {then} {own[then]:g}"
    if own.get("drops") and longer != 1:
        was = f"the settings file's {' '.join(f'{drop:g}' for drop in own['drops'])} {of}"
        if longer is None:
            fitted["drops"] = f"{was} are left out"
        else:
            values["drops"] = tuple(round(drop * longer, 2) for drop in own["drops"])
            fitted["drops"] = f"{was}, in proportion"
    # Of minutes it takes a tenth at most, and a longer training of the same kind needs no other one.
    if own.get("warmup") and now != "minutes" and (now != then or longer is None or longer < 1):
        fitted["warmup"] = f"the settings file's {own['warmup']} {of} is left out"
    return values, fitted


def _longer(then: str, was: float, now: str, length: Any) -> float | None:
    """Return how many times as long a budget is in epochs of drops; `None` where only the data can tell.

    Example:
        >>> _longer("epochs", 24, "epochs", 12), _longer("epochs", 12, "minutes", 10)
        (0.5, 2.0)
        >>> _longer("epochs", 12, "steps", 300) is None
        True
    """
    if not isinstance(length, int | float):
        return None  # it is refused when it is parsed
    if then == now == "steps":
        return length / was
    # Where the budget is minutes, drops are epochs of so many, whatever the minutes are.
    before, after = {"epochs": was, "minutes": ORIGIN_EPOCHS}, {"epochs": length, "minutes": ORIGIN_EPOCHS}
    return after[now] / before[then] if then in before and now in after else None
