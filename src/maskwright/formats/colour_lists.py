"""Lists that say what colours mean: JSON files, and the text files that public sets have beside their masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.dataset import read_json
from maskwright.errors import UserError
from maskwright.formats.planes import hex_colour
from maskwright.formats.voc_values import text_of

OUR_LIST = "colours.json"
"""The list that `write` puts beside the masks."""

LIST_FILES = (
    OUR_LIST,
    "colors.json",
    "class_dict.csv",
    "label_colours.txt",
    "label_colors.txt",
    "colours.txt",
    "colors.txt",
    "labelmap.txt",
)
"""Names under which such lists lie beside masks."""

GROUND_NAMES = frozenset({"background", "_background_", "ground", "void", "unlabelled", "unlabeled", "ignore", "none"})

_AFTER = re.compile(r"(.+?)[,;:\t ]+(\d{1,3})[,;\t ]+(\d{1,3})[,;\t ]+(\d{1,3})(?::.*)?")
_BEFORE = re.compile(r"(\d{1,3})[,;\t ]+(\d{1,3})[,;\t ]+(\d{1,3})[,;:\t ]+(.+)")
_FORM = '{"nut": "#e6194b", "bolt": [60, 180, 75]}'


@dataclass(frozen=True)
class Entry:
    """What a colour means in one mask image: the category, and whether it marks a crowd."""

    category: str
    crowd: bool = False


@dataclass(frozen=True)
class ColourList:
    """What colours mean.

    Attributes:
        path: The file.
        names: The categories, in order.
        colours: Category of each packed colour; `None` is ground.
        ground: The packed colours of the ground.
        files: For each mask image that is listed by its path in the mask folder what its colours mean; a list with
            these has no `colours`.
        per_file: Whether it is such a list.
    """

    path: Path
    names: tuple[str, ...]
    colours: Mapping[int, str]
    ground: frozenset[int]
    files: Mapping[str, Mapping[int, Entry]] = field(default_factory=dict)
    per_file: bool = False


def read_list(path: Path) -> ColourList:
    """Read a list of colours.

    Raises:
        UserError: If it is not one, naming each entry that cannot be read.
    """
    if path.suffix.lower() == ".json":
        return _of_json(path)
    bad: list[str] = []
    pairs: list[tuple[str, int]] = []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#") or (number == 1 and not re.search(r"\d", text)):
            continue
        try:
            pairs.append(_line(text))
        except ValueError as error:
            bad.append(f"{path}, line {number}: {error}")
    return _joined(path, pairs, bad)


def _line(text: str) -> tuple[str, int]:
    match = _AFTER.fullmatch(text)
    name, numbers = (match[1], match.groups()[1:4]) if match else ("", ())
    if match is None:
        match = _BEFORE.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text[:60]}' is no name with red, green and blue")
        name, numbers = match[4], match.groups()[:3]
    return name.strip().strip('"'), _packed([int(number) for number in numbers])


def _packed(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:], 16)
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        red, green, blue = value
        return int(red << 16 | green << 8 | blue)
    raise ValueError(f"{value!r} is no colour: write '#rrggbb' or [red, green, blue] of 0 to 255"[:200])


def _of_json(path: Path) -> ColourList:
    document = read_json(path)
    if not isinstance(document, dict) or not document:
        raise UserError("the list of colours cannot be read", [f"{path}: no object"], f"write it like {_FORM}")
    if isinstance(document.get("files"), dict):
        return _per_file(path, document)
    bad: list[str] = []
    pairs: list[tuple[str, int]] = []
    for name, value in document.items():
        several = isinstance(value, list) and not all(type(v) is int for v in value)
        for one in value if several else [value]:
            try:
                pairs.append((name, _packed(one)))
            except ValueError as error:
                bad.append(f"{path}: {name!r}: {error}")
    return _joined(path, pairs, bad)


def _joined(path: Path, pairs: list[tuple[str, int]], bad: list[str]) -> ColourList:
    colours: dict[int, str] = {}
    ground: set[int] = set()
    for name, colour in pairs:
        if not name.strip():
            bad.append(f"{path}: {hex_colour(colour)} has no name")
        elif colours.get(colour, name) != name or (colour in ground) != (colour in ground and is_ground(name)):
            bad.append(f"{path}: {hex_colour(colour)} stands twice")
        elif is_ground(name):
            ground.add(colour)
        else:
            colours[colour] = name
    if not pairs and not bad:
        bad.append(f"{path}: it lists nothing")
    if bad:
        raise UserError("the list of colours cannot be read", bad, f"write it like {_FORM}")
    return ColourList(path, tuple(dict.fromkeys(colours.values())), colours, frozenset(ground))


def is_ground(name: str) -> bool:
    """Tell whether a listed name means ground."""
    return name.strip().lower() in GROUND_NAMES


def _per_file(path: Path, document: Mapping[str, Any]) -> ColourList:
    bad: list[str] = []
    files: dict[str, dict[int, Entry]] = {}
    for name, entries in document["files"].items():
        files[name] = {}
        if not isinstance(entries, dict):
            bad.append(f"{path}: {name!r}: no object with colours")
            continue
        for colour, entry in _entries(path, name, entries, bad):
            files[name][colour] = entry
    names = document.get("categories", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        bad.append(f"{path}: 'categories' is no list of names")
        names = []
    ground = frozenset({0})
    try:
        ground = frozenset({_packed(document.get("background", "#000000"))})
    except ValueError as error:
        bad.append(f"{path}: 'background': {error}")
    if bad:
        raise UserError("the list of colours cannot be read", bad, "write it as maskwright masks --form colours does")
    names = [*names, *(entry.category for entries in files.values() for entry in entries.values())]
    return ColourList(path, tuple(dict.fromkeys(names)), {}, ground, files, per_file=True)


def _entries(path: Path, name: str, entries: Mapping[str, Any], bad: list[str]) -> Iterator[tuple[int, Entry]]:
    for colour, value in entries.items():
        crowd = False
        if isinstance(value, dict):
            crowd, value = value.get("crowd") is True, value.get("category")  # noqa: PLW2901
        if not isinstance(value, str) or not value:
            bad.append(f"{path}: {name!r}: {colour!r} has no category")
            continue
        try:
            yield _packed(colour), Entry(value, crowd)
        except ValueError as error:
            bad.append(f"{path}: {name!r}: {error}")
