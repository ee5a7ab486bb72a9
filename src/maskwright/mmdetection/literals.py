"""The values that a config file sets, found by its syntax tree: nothing in it is run.

What a file may hold: literals, `dict(...)`, names that were set before, `+ - * /` of them, parts of them (`a['b'][0]`,
`_base_.a.b`, `{{_base_.a}}`), changes of such parts, and plain f-strings. Anything else is code, and is refused by
line.
"""

from __future__ import annotations

import ast
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LARGEST = 10**18
"""Whole numbers may be so large."""

MOST_TEMPLATES = 100
"""So many `{{ ... }}` may be in one text."""


class Where(NamedTuple):
    """Where a value was written; line 0 stands for a file that is not there, whose well-known value is assumed."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else f"assumed, since {self.file} is not there"


class Table(dict[Any, Any]):
    """A dict that knows where each of its values was written.

    Example:
        >>> table = Table({"depth": 50}, {"depth": Where("r50.py", 3)})
        >>> table["depth"], str(table.where["depth"])
        (50, 'r50.py:3')
    """

    __slots__ = ("where",)

    def __init__(self, values: Mapping[Any, Any] | None = None, where: Mapping[Any, Where] | None = None) -> None:
        super().__init__(values or {})
        self.where: dict[Any, Where] = dict(where or {})

    def put(self, key: Any, value: Any, where: Where) -> None:
        """Set a value together with its place."""
        self[key] = value
        self.where[key] = where


class Code(Exception):
    """A piece of the tree that is more than data."""

    def __init__(self, node: ast.AST, what: str) -> None:
        self.line, self.what = getattr(node, "lineno", 0), what
        super().__init__(what)


class _Known(Exception):
    """A value that builds on one that was refused already: there is nothing more to tell."""


# What is refused, in the words of a user.
_KINDS: dict[type[ast.AST], str] = {
    ast.Import: "an import",
    ast.ImportFrom: "an import",
    ast.FunctionDef: "a function",
    ast.AsyncFunctionDef: "a function",
    ast.Lambda: "a function",
    ast.ClassDef: "a class",
    ast.If: "a condition",
    ast.IfExp: "a condition",
    ast.BoolOp: "a condition",
    ast.Compare: "a condition",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.ListComp: "a loop",
    ast.DictComp: "a loop",
    ast.SetComp: "a loop",
    ast.GeneratorExp: "a loop",
    ast.With: "a with block",
    ast.Try: "a try block",
    ast.Delete: "a deletion",
    ast.AugAssign: "a change in place",
}

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

_TEMPLATE = re.compile(r"\{\{\s*(\$?\w+)[^{}]*\}\}")


class Evaluation:
    """Finds the values of one file.

    Args:
        label: How the file is called in messages.
        folder: Where it is, absolute.
        base: What the files that it builds on say; changed where the file changes `_base_.name`.
        absent: Which of those files are not there.
        spend: Called with how many values were made; raises when there are too many.

    Attributes:
        code: Every line that was refused, with what it is.
        imports: Every line that imports its bases, as the configs of the newest kind do.
        used: Names that the file uses.
        used_of_base: Names of its bases that it uses.
    """

    def __init__(
        self, label: str, folder: Path, base: Table, absent: Sequence[str], spend: Callable[[int], None]
    ) -> None:
        self.label, self.folder, self.base, self.absent, self.spend = label, folder, base, absent, spend
        self.names = Table()
        self.refused: set[str] = set()
        self.code: list[str] = []
        self.imports: list[str] = []
        self.used: set[str] = set()
        self.used_of_base: set[str] = set()

    def run(self, tree: ast.Module) -> Table:
        """Return every name that the file sets; what is code is noted, and names that hang on it are left out."""
        for statement in tree.body:
            try:
                self._statement(statement)
            except Code as code:
                self._refuse(statement, code)
            except _Known:
                self._refuse(statement, None)
        names = {name: value for name, value in self.names.items() if not name.startswith("__")}
        return Table(names, {name: self.names.where[name] for name in names})

    def _refuse(self, statement: ast.stmt, code: Code | None) -> None:
        if isinstance(statement, ast.Assign):
            self.refused |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        if code is None:
            return
        if isinstance(statement, ast.With) and "read_base" in shown(statement.items[0]):
            self.imports.append(f"{self.label}:{code.line}: with read_base()")
        else:
            self.code.append(f"{self.label}:{code.line}: {code.what}")

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=targets, value=content):
                if not is_base(node):
                    value = self.value(content)
                    for target in targets:
                        self._assign(target, value)
            case ast.AnnAssign(target=target, value=content) if content is not None:
                self._assign(target, self.value(content))
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=content):
                raise Code(node, _called(content))
            case _:
                raise Code(node, _called(node))

    def _assign(self, target: ast.expr, value: Any) -> None:
        where = Where(self.label, target.lineno)
        match target:
            case ast.Name(id=name):
                self.names.put(name, value, where)
                self.refused.discard(name)
            case ast.Attribute(value=node, attr=key):
                self._change(target, self._holder(node), key, value)
            case ast.Subscript(value=node, slice=index):
                self._change(target, self._holder(node), self.value(index), value)
            case _:
                raise Code(target, "an assignment to several names")

    def _change(self, target: ast.expr, holder: Any, key: Any, value: Any) -> None:
        if isinstance(holder, Table) and isinstance(key, str):
            holder.put(key, value, Where(self.label, target.lineno))
        elif isinstance(holder, list) and type(key) is int and -len(holder) <= key < len(holder):
            holder[key] = value
        else:
            raise Code(target, f"a change of {shown(target)}, which is not there")

    def _holder(self, node: ast.expr) -> Any:
        return self.base if isinstance(node, ast.Name) and node.id == "_base_" else self.value(node)

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression.

        Raises:
            Code: If it is more than data.
        """
        match node:
            case ast.Constant(value=str() as text):
                return self._text(node, text)
            case ast.Constant(value=bool() | int() | float() | None as constant):
                return self._made(node, constant)
            case ast.Name():
                return self._name(node)
            case ast.List(elts=items):
                return self._items(items)
            case ast.Tuple(elts=items):
                return tuple(self._items(items))
            case ast.Dict(keys=keys, values=values):
                return self._table(zip(keys, values, strict=True))
            case ast.Call():
                return self._call(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self.value(operand)
                if not isinstance(number, int | float):
                    raise Code(node, "a sign before something that is not a number")
                return -number if isinstance(sign, ast.USub) else number
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.JoinedStr(values=parts):
                return self._made(node, "".join(self._part(part) for part in parts))
            case ast.Attribute(value=holder, attr=key):
                return self._within(node, holder, key)
            case ast.Subscript(value=holder, slice=ast.Slice() as cut):
                return self._cut(node, self.value(holder), cut)
            case ast.Subscript(value=holder, slice=index):
                return self._within(node, holder, self.value(index))
            case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as reference])]) if _root(reference) == "_base_":
                return self.value(reference)  # {{_base_.name}}
        raise Code(node, _called(node))

    def _made(self, node: ast.AST, value: Any) -> Any:
        """Take a value that was made, if it is of a sane kind and size."""
        if isinstance(value, str | list | tuple):
            self.spend(len(value))
        elif isinstance(value, complex) or (isinstance(value, int) and abs(value) > LARGEST):
            raise Code(node, "a number that is out of bounds")
        return value

    def _text(self, node: ast.AST, text: str) -> str:
        """Fill in the names of the file (`{{ fileDirname }}`), which mmengine does before it parses."""
        if "{{" not in text:
            return text
        if text.count("{{") > MOST_TEMPLATES:
            raise Code(node, f"a text with more than {MOST_TEMPLATES} names to fill in")
        stem, suffix = os.path.splitext(os.path.basename(self.label))
        known = {
            "fileDirname": str(self.folder),
            "fileBasename": stem + suffix,
            "fileBasenameNoExtension": stem,
            "fileExtname": suffix,
        }

        def fill(match: re.Match[str]) -> str:
            if match[1].startswith("$"):
                raise Code(node, f"a variable of the environment ({match[0]})")
            if match[1] == "_base_":
                raise Code(node, f"{match[0]} inside quotes")
            return known.get(match[1], match[0])

        return str(self._made(node, _TEMPLATE.sub(fill, text)))

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.refused:
            raise _Known
        if node.id not in self.names:
            whole = node.id == "_base_"
            raise Code(node, "_base_ as a whole" if whole else f"the name {node.id}, which is not set before")
        self.used.add(node.id)
        return self.names[node.id]

    def _items(self, nodes: Iterable[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                value = self.value(node.value)
                if not isinstance(value, list | tuple):
                    raise Code(node, "a * before something that is not a list")
                self.spend(len(value))
                found += value
            else:
                found.append(self.value(node))
        self.spend(len(found))
        return found

    def _table(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]]) -> Table:
        table = Table()
        for key_node, value_node in pairs:
            value = self.value(value_node)
            if key_node is None:  # **other
                if not isinstance(value, Table):
                    raise Code(value_node, "a ** before something that is not a dict")
                self.spend(len(value))
                for key, item in value.items():
                    table.put(key, item, value.where[key])
                continue
            key = self.value(key_node)
            if not isinstance(key, str | int | float | None):
                raise Code(key_node, "a key that is not a word or a number")
            table.put(key, value, Where(self.label, value_node.lineno))
        self.spend(len(table))
        return table

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "dict" and len(node.args) <= 1:
            names = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
            if len(names) > len(set(names)):
                raise Code(node, "a dict(...) with a name twice")
            pairs: list[tuple[ast.expr | None, ast.expr]] = [(None, first) for first in node.args]
            for keyword in node.keywords:
                key = None if keyword.arg is None else ast.copy_location(ast.Constant(keyword.arg), keyword.value)
                pairs.append((key, keyword.value))
            return self._table(pairs)
        if name == "range" and not node.keywords:  # gpu_ids=range(0, 8) is in what MMDetection 2.x writes
            ends = [self.value(end) for end in node.args]
            if 1 <= len(ends) <= 3 and all(type(end) is int for end in ends) and ends[2:] != [0]:
                counted = range(*ends)
                self.spend(len(counted))
                return list(counted)
        if name in {"list", "tuple", "len"} and len(node.args) == 1 and not node.keywords:
            value = self.value(node.args[0])
            if name == "len" and isinstance(value, str | list | tuple | Table):
                return len(value)
            if isinstance(value, list | tuple):
                return self._made(node, tuple(value) if name == "tuple" else list(value))
        raise Code(node, _called(node))

    def _arithmetic(self, node: ast.BinOp) -> Any:
        left, right, kind = self.value(node.left), self.value(node.right), type(node.op)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        fits = numbers and kind in _ARITHMETIC
        if kind is ast.Pow:
            fits = fits and abs(left) <= 10**6 and abs(right) <= 64
        elif kind is ast.Add:
            fits = fits or any(isinstance(left, one) and isinstance(right, one) for one in (str, list, tuple))
        elif kind is ast.Mult and not numbers:
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(times, int):
                    fits = True
                    self.spend(len(many) * max(times, 0))  # before it is made
        if not fits:
            raise Code(node, f"arithmetic of other things than numbers, texts and lists ({shown(node)})")
        try:
            return self._made(node, _ARITHMETIC[kind](left, right))
        except (OverflowError, ZeroDivisionError) as error:
            raise Code(node, f"arithmetic without a result ({error})") from None

    def _part(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
            value = self.value(node.value)
            if isinstance(value, str | int | float):
                return str(self._made(node, str(value)))
        raise Code(node, "a formatted text that is more than names")

    def _within(self, node: ast.expr, holder: ast.expr, key: Any) -> Any:
        value = self._holder(holder)
        if value is self.base:
            self.used_of_base.add(str(key))
        if isinstance(value, Table) and isinstance(key, str | int | float) and key in value:
            return value[key]
        if isinstance(value, list | tuple | str) and type(key) is int and -len(value) <= key < len(value):
            return value[key]
        also = f"; nor is {', '.join(self.absent)}, which may have it" if value is self.base and self.absent else ""
        raise Code(node, f"{shown(node)}, which is not there{also}")

    def _cut(self, node: ast.AST, value: Any, cut: ast.Slice) -> Any:
        ends = [None if end is None else self.value(end) for end in (cut.lower, cut.upper, cut.step)]
        sane = all(end is None or type(end) is int for end in ends) and ends[2] != 0
        if not sane or not isinstance(value, str | list | tuple):
            raise Code(node, f"{shown(node)}, which is not there")
        return self._made(node, value[slice(*ends)])


def is_base(statement: ast.Assign) -> bool:
    """Tell whether a statement sets `_base_`."""
    return any(isinstance(target, ast.Name) and target.id == "_base_" for target in statement.targets)


def shown(node: ast.AST, longest: int = 60) -> str:
    """Return the beginning of the first line of a piece of code."""
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= longest else text[:longest] + " ..."


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _called(node: ast.AST) -> str:
    """Return what a piece of code is called in a message."""
    if isinstance(node, ast.Call):
        return f"a call of {shown(node.func)}"
    return f"{_KINDS.get(type(node), 'code')} ({shown(node)})"
