"""A config with the files that it builds on; nothing of them is run, and nothing but `.py` files is opened.

Inheritance follows mmengine (https://mmengine.readthedocs.io/en/latest/advanced_tutorials/config.html): a dict changes
the dict of its base key by key unless it has `_delete_=True`; everything else replaces what was there.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from maskwright.errors import Problem, UserError
from maskwright.files import is_file, real
from maskwright.mmdetection.literals import Code, Evaluation, Table, Where, is_base
from maskwright.mmdetection.zoo import Dialect, facts_of

MOST_FILES = 60
"""A config with its bases may be so many files; MMDetection's own are at most seven."""

MOST_BYTES = 1_000_000
"""The files of a config may have so many bytes together."""

MOST_VALUES = 1_000_000
"""A config may make so many values (and characters by arithmetic): a few lines could ask for any amount of memory."""

MARKS: dict[Dialect, frozenset[str]] = {
    "2.x": frozenset(
        {
            *("data", "optimizer", "optimizer_config", "lr_config", "runner", "total_epochs"),
            *("evaluation", "checkpoint_config", "log_config"),
        }
    ),
    "3.x": frozenset(
        {
            *("train_dataloader", "val_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"),
            *("default_hooks", "default_scope", "env_cfg"),
        }
    ),
}
"""Names by which the two dialects are told apart."""

FLATTENED = (
    "give the config that MMDetection wrote beside the training: work_dirs/NAME/CONFIG.py has every value and no code"
)


class Idle(NamedTuple):
    """A name that a file sets and no line of any file uses; `before` is where a file that it builds on sets it."""

    name: str
    where: Where
    before: Where | None


@dataclass(frozen=True)
class Config:
    """What a config says, its bases included.

    Attributes:
        values: Every name that it sets.
        dialect: Of MMDetection 2.x or 3.x.
        files: Those that were read, as the user would type them; the config itself is first.
        absent: Bases that are not there, and whose well-known values are assumed.
        idle: Names that no line uses; those that are MMDetection's own keys are used by MMDetection itself.
    """

    values: Table
    dialect: Dialect
    files: tuple[str, ...]
    absent: tuple[str, ...]
    idle: tuple[Idle, ...]

    def find(self, path: str) -> tuple[Any, Where] | None:
        """Return the value at a dotted path and where it was written; `None` if there is none."""
        value: Any = self.values
        where = Where(self.files[0], 1)
        for key in path.split("."):
            if isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, Table) and key in value:
                value, where = value[key], value.where[key]
            else:
                return None
        return value, where


def read_config(path: str | Path) -> Config:
    """Read a config with the files that it builds on, without running any of it.

    Args:
        path: A `.py` file; it must exist.

    Raises:
        UserError: With every line that is code, every base that is not there and not well known, and every file that
            cannot be read.
    """
    try:
        return _Reader().read(Path(path))
    except RecursionError:
        raise UserError("the config is nested too deeply to be read", [str(path)], FLATTENED) from None


def merged(child: Table, base: Table) -> Table:
    """Return a base with what its child says about it: dicts are merged, everything else is replaced.

    `_delete_=True` in a dict of the child drops what the base has there.

    Raises:
        Conflict: If the child has a dict where the base has something else, and does not drop it.

    Example:
        >>> merged(Table({"a": Table({"x": 1})}), Table({"a": Table({"x": 0, "y": 2}), "b": 3}))
        {'a': {'x': 1, 'y': 2}, 'b': 3}
        >>> merged(Table({"a": Table({"_delete_": True, "x": 1})}), Table({"a": Table({"y": 2})}))
        {'a': {'x': 1}}
    """
    result = Table(base, base.where)
    for key, value in child.items():
        if not isinstance(value, Table):
            result[key] = value
        elif key not in base or value.get("_delete_", False):
            result[key] = merged(value, Table())
        elif isinstance(base[key], Table):
            result[key] = merged(value, base[key])
        else:
            raise Conflict(str(key), child.where.get(key), base.where.get(key))
        if key in child.where:
            result.where[key] = child.where[key]
    result.pop("_delete_", None)
    result.where.pop("_delete_", None)
    return result


class Conflict(Exception):
    """A dict meets something that is none."""

    def __init__(self, key: str, here: Where | None, there: Where | None) -> None:
        super().__init__(f"{here}: '{key}' is a dict here and is none in {there}; _delete_=True would drop the latter")


class _Fault(Exception):
    """Why a file cannot be read; follows the file's name."""


@dataclass
class _File:
    label: str
    folder: Path
    tree: ast.Module
    bases: list[_File | _Absent] = field(default_factory=list)

    @property
    def absent(self) -> list[str]:
        return [base.label for base in self.bases if isinstance(base, _Absent)]


@dataclass(frozen=True)
class _Absent:
    label: str
    name: str


class _Reader:
    """Reads the files of one config; collects what is wrong with them."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.absent: list[str] = []
        self.faults: list[str] = []
        self.lost: list[str] = []
        self.imports: list[str] = []
        self.code: list[str] = []
        self.clashes: list[str] = []
        self.idle: list[Idle] = []
        self.bytes = MOST_BYTES
        self.left = MOST_VALUES
        self.dialect: Dialect = "2.x"

    def read(self, path: Path) -> Config:
        if not is_file(path):
            raise UserError("the config is not there", [str(path)], "name a .py file of MMDetection")
        top = self.load(path, str(path), ())
        self.refuse()
        assert top is not None
        self.dialect = _dialect(top)
        values = self.evaluate(top)
        self.refuse()
        return Config(
            values=values,
            dialect=self.dialect,
            files=tuple(self.files),
            absent=tuple(dict.fromkeys(self.absent)),
            idle=tuple(self.idle),
        )

    def refuse(self) -> None:
        """Raise what was collected, if anything was."""
        kinds = (
            ("a file of the config cannot be read", self.faults, FLATTENED),
            (
                "the config builds on files that are not there",
                self.lost,
                f"copy them from the MMDetection that it was used with, in the same folders; or {FLATTENED}",
            ),
            ("the config is of the new kind, which imports its bases", self.imports, FLATTENED),
            (
                "the config holds code, and code of a config is not run",
                self.code,
                f"write the values in its place; or {FLATTENED}",
            ),
            ("the config does not fit the files that it builds on", self.clashes, "mend the config"),
        )
        problems = [Problem(what, tuple(where), fix) for what, where, fix in kinds if where]
        if problems:
            raise UserError(problems)

    def load(self, path: Path, label: str, above: tuple[Path, ...]) -> _File | None:
        """Parse a file and those that it builds on."""
        place = real(path)
        if place in above:
            self.faults.append(f"{label}: it builds on itself")
            return None
        if len(self.files) == MOST_FILES:
            self.faults = [f"{self.files[0]}: it builds on more than {MOST_FILES} files"]
            return None
        self.files.append(label)
        try:
            content = _content(place, self.bytes)
            self.bytes -= len(content)
            file = _File(label, Path(os.path.abspath(path)).parent, _parsed(content))
            names = self.base_names(file)
        except _Fault as fault:
            self.faults.append(f"{label}{fault}")
            return None
        except Code as code:
            self.code.append(f"{label}:{code.line}: {code.what}, in _base_")
            return None
        for name in names:
            base = self.find_base(file, name, (*above, place))
            if base is not None:
                file.bases.append(base)
        return file

    def base_names(self, file: _File) -> Sequence[str]:
        """Return what `_base_` says; it may be a literal only."""
        for statement in file.tree.body:
            if isinstance(statement, ast.Assign) and is_base(statement):
                value = Evaluation(file.label, file.folder, Table(), (), self.spend).value(statement.value)
                names = [value] if isinstance(value, str) else value
                if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                    raise Code(statement, "something that is not a path or a list of paths")
                return names
        return ()

    def find_base(self, file: _File, name: str, above: tuple[Path, ...]) -> _File | _Absent | None:
        installed = "::" in name  # a file of an installed package
        label = name if installed else os.path.normpath(os.path.join(os.path.dirname(file.label), name))
        if not installed:
            if os.path.isabs(name) or "://" in name or "\0" in name:
                self.faults.append(f"{file.label}: its _base_ {name!r} is not a path relative to the file")
                return None
            if is_file(file.folder / name):
                return self.load(file.folder / name, label, above)
        if facts_of(name) is None:
            self.lost.append(f"{label}, named in {file.label}")
            return None
        self.absent.append(label)
        return _Absent(label, name)

    def evaluate(self, file: _File | _Absent) -> Table:
        """Return what a file says, merged into what its bases say."""
        if isinstance(file, _Absent):
            return _assumed(facts_of(file.name, self.dialect) or {}, Where(file.label, 0))
        base = Table()
        for one in file.bases:
            values = self.evaluate(one)
            twice = sorted(str(key) for key in base.keys() & values.keys())
            if twice:
                self.clashes.append(f"{file.label}: several of its bases set {', '.join(twice)}")
            base = Table(base | values, base.where | values.where)
        evaluation = Evaluation(file.label, file.folder, base, file.absent, self.spend)
        values = self.apart(evaluation.run(file.tree))
        self.code += evaluation.code
        self.imports += evaluation.imports
        self.idle = [idle for idle in self.idle if idle.name not in evaluation.used_of_base]
        self.idle += [
            Idle(name, values.where[name], base.where.get(name)) for name in values if name not in evaluation.used
        ]
        try:
            return merged(values, base)
        except Conflict as conflict:
            self.clashes.append(str(conflict))
            return base

    def spend(self, amount: int) -> None:
        """Count values that are made.

        Raises:
            UserError: If they are too many.
        """
        self.left -= amount
        if self.left < 0:
            raise UserError(f"the config makes more than {MOST_VALUES:,} values", [self.files[0]], "look into it")

    def apart(self, table: Table) -> Table:
        """Copy a table so that nothing in it is there twice: who changes a part of it shall not change another."""

        def copied(value: Any) -> Any:
            self.spend(1)
            if isinstance(value, Table):
                return self.apart(value)
            if isinstance(value, list):
                return [copied(item) for item in value]
            return tuple(copied(item) for item in value) if isinstance(value, tuple) else value

        return Table({key: copied(value) for key, value in table.items()}, table.where)


def _content(place: Path, most: int) -> bytes:
    if place.suffix != ".py":
        raise _Fault(": only .py files are read")
    try:
        with place.open("rb") as handle:
            content = handle.read(most + 1)
    except OSError as error:
        raise _Fault(f": {error.strerror or error}") from None
    if len(content) > most:
        raise _Fault(f": with it the config has more than {MOST_BYTES:,} bytes")
    return content


def _parsed(content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts, which are the author's business
            return ast.parse(content.decode("utf-8-sig"))
    except SyntaxError as error:
        raise _Fault(f":{error.lineno}: {error.msg}" if error.lineno else f": {error.msg}") from None
    except UnicodeDecodeError:
        raise _Fault(": it is not UTF-8") from None
    except (ValueError, MemoryError, RecursionError, SystemError) as error:
        raise _Fault(f": {str(error) or 'it is nested too deeply'}") from None


def _dialect(file: _File) -> Dialect:
    """Tell the dialect by the names that the files set, else by how the bases are spelt (3.x has hyphens)."""
    names: set[str] = set()
    labels: list[str] = []
    todo: list[_File | _Absent] = [file]
    while todo:
        one = todo.pop()
        labels.append(os.path.basename(one.label))
        if isinstance(one, _File):
            todo += one.bases
            for statement in one.tree.body:
                if isinstance(statement, ast.Assign):
                    names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    old, new = len(names & MARKS["2.x"]), len(names & MARKS["3.x"])
    if old == new:
        return "3.x" if any("mask-rcnn" in label for label in labels) else "2.x"
    return "3.x" if new > old else "2.x"


def _assumed(facts: Mapping[str, Any], where: Where) -> Table:
    """Turn facts into a table whose values are all assumed."""

    def value(item: Any) -> Any:
        if isinstance(item, dict):
            return _assumed(item, where)
        return [value(one) for one in item] if isinstance(item, list) else item

    return Table({key: value(item) for key, item in facts.items()}, dict.fromkeys(facts, where))
