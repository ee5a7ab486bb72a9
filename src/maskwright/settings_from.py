"""A config of MMDetection -> a settings file: what is carried over, what is derived instead, and what is dropped."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskwright.files import provenance, refuse_existing, refuse_input, write_json
from maskwright.mmdetection.account import Outcome, Row, count, short
from maskwright.mmdetection.carry import carry
from maskwright.mmdetection.config import read_config

HEADS: dict[Outcome, str] = {"carried": "carried over", "derived": "derived instead", "dropped": "dropped"}
"""What the outcomes are called in the table, in its order."""

WIDEST = 34
"""The first column of the table is so wide at most."""


@dataclass(frozen=True)
class Moved:
    """A config as settings, with the fate of everything that it says.

    Attributes:
        config: As the user named it.
        dialect: Of MMDetection: `2.x` or `3.x`.
        files: Those that were read.
        settings: For `train`.
        rows: Everything that the config says, and what became of it.
        warnings: What the user should look at first.
        commands: What to type next.
    """

    config: str
    dialect: str
    files: tuple[str, ...]
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    commands: tuple[str, ...]

    def table(self) -> str:
        """Return the rows as text, by outcome."""
        lines = [f"{self.config}: a config of MMDetection {self.dialect}, of {count(len(self.files), 'file')}"]
        for outcome, head in HEADS.items():
            rows = [row for row in self.rows if row.outcome == outcome]
            lefts = [short(row.becomes or row.what) for row in rows]
            wide = min(max(map(len, lefts), default=0), WIDEST)
            lines += [head] if rows else []
            for row, left in zip(rows, lefts, strict=True):
                name = f"{short(row.what)}: " if row.becomes else ""
                place = row.where if " " in row.where else posixpath.basename(row.where)
                lines.append(f"  {left:<{wide}}  {name}{row.why} ({place})")
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """Return what the settings file holds; `train --settings` reads its `settings`."""
        return {
            "made_by": provenance(),
            "config": self.config,
            "dialect": f"MMDetection {self.dialect}",
            "files": list(self.files),
            "settings": self.settings,
            "table": [asdict(row) for row in self.rows],
            "warnings": list(self.warnings),
            "commands": list(self.commands),
        }


def settings_from(
    config: str | Path,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> Moved:
    """Read a config of MMDetection 2.x or 3.x and carry over what matters, as settings for `train`.

    The config and the files that it builds on are read by their syntax trees; nothing in them is run.

    Args:
        config: A `.py` file of MMDetection; must exist.
        out: The settings file to write; none if not given.
        overwrite: Replace `out` if it exists.
        say: Called with the table, then with what to type next.

    Returns:
        The settings, and what became of everything that the config says.

    Raises:
        UserError: If the config holds code or builds on files that are not there and not well known (naming each), or
            if there is nothing of MMDetection's in it.
    """
    tell = say or (lambda _line: None)
    config = Path(config)
    out = None if out is None else Path(out)
    read = read_config(config)
    if out is not None:
        refuse_input(out, *map(Path, read.files))
        refuse_existing(out, overwrite=overwrite)
    account, commands = carry(read)
    target = "SETTINGS" if out is None else shlex.quote(str(out))
    order = list(HEADS)
    moved = Moved(
        config=str(config),
        dialect=read.dialect,
        files=read.files,
        settings=account.settings,
        rows=tuple(sorted(account.rows, key=lambda row: order.index(row.outcome))),
        warnings=tuple(account.notes),
        commands=(*commands, f"maskwright train DATA -o RUN --settings {target}"),
    )
    tell(moved.table())
    for warning in moved.warnings:
        tell(f"warning: {warning}")
    if out is not None:
        write_json(out, moved.json())
        tell(f"{out}: {count(len(moved.settings), 'setting')}")
    tell("next:")
    for command in moved.commands:
        tell(f"  {command}")
    return moved
