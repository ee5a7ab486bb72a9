"""CVAT for images, XML 1.1: polygons, masks, ellipses; what has no outline is refused in words."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from maskwright import pixels
from maskwright.errors import Problem, UserError
from maskwright.formats import SPLIT_NAMES, Found, Mark, Mend, Reading, Tally, Work, plural, some
from maskwright.formats.listing import (
    Entry,
    Part,
    Pictures,
    files_below,
    grouped_marks,
    head_and_tail,
    one_category,
    read_entries,
    same_box,
    sample,
)
from maskwright.formats.shapes import ellipse
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "cvat"
EXPECTS = "an .xml exported from CVAT as 'CVAT for images 1.1', beside the photos or their folder `images`"

_SHAPES = frozenset({"polygon", "mask", "box", "ellipse", "polyline", "points", "skeleton", "cuboid", "tag"})
_NO_AREA_SHAPES = frozenset({"polyline", "points", "skeleton", "cuboid"})
_DEEPEST = 32
_CHUNK = 1 << 20

_WRONG_FILE = "the CVAT file cannot be read"
_WRONG = "the CVAT file has shapes that cannot be read"
_NO_AREA = "lines, points, skeletons and cuboids have no outline, so they are no masks"
_BOX = "objects are given by a box only, which tells no outline"
_FIXES = {
    _WRONG: "mend or remove these shapes",
    _NO_AREA: "draw these objects as polygons or masks in CVAT, or remove the shapes",
    _BOX: "draw these objects as polygons or masks in CVAT, or remove the boxes",
}


class _Refused(Exception):
    """What makes a file unreadable; the text says how."""


@dataclass
class _Shape:
    """One shape of an image: its tag, its XML attributes, and what the user noted of it."""

    tag: str
    values: dict[str, str]
    noted: dict[str, str] = field(default_factory=dict)


@dataclass
class _Picture:
    values: dict[str, str]
    shapes: list[_Shape] = field(default_factory=list)


@dataclass
class _File:
    """What one XML file holds."""

    labels: list[str] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Tell whether a folder, or one file, holds CVAT's XML; see the contract in `formats`."""
    named = settings.form == NAME
    if place.is_file():
        if place.suffix.lower() != ".xml" or not (named or _sniff(place)):
            return None
        return Found(NAME, place, "a CVAT file", (place,))
    folder = place / settings.masks if settings.masks is not None and (place / settings.masks).exists() else place
    candidates = [folder] if folder.is_file() else files_below(folder, ".xml")
    likely = named or any(_sniff(path) for path in sample(candidates))
    chosen = tuple(path for path in candidates if named or _sniff(path)) if likely else ()
    if not chosen:
        if named:
            raise UserError("there is no CVAT file", [str(place)], f"CVAT means: {EXPECTS}")
        return None
    return Found(NAME, place, f"{plural(len(chosen), 'CVAT file')}", chosen)


def _sniff(path: Path) -> bool:
    text = head_and_tail(path)
    return b"<annotations" in text and any(tag in text for tag in (b"<image ", b"<track ", b"<meta>"))


def read(found: Found, work: Work) -> Reading:
    """Read CVAT's XML with its photos; see the contract in `formats`.

    Shapes of one photo that share label and `group_id` are one object. Masks and polygons stay whole where others lie
    on top of them (`z_order`), as in CVAT. The attribute `is_crowd` marks a crowd.

    Raises:
        UserError: With every problem that was found.
    """
    problems: list[Problem] = []
    files: list[tuple[Path, _File]] = []
    wrong = []
    for path in found.parts:
        try:
            files.append((path, _parse(path)))
        except _Refused as error:
            wrong.append(f"{path}: {error}")
    if wrong:
        problems.append(Problem(_WRONG_FILE, tuple(wrong), "export the task from CVAT again, as 'CVAT for images 1.1'"))
        raise UserError(problems)
    every = [shape for _path, file in files for picture in file.pictures for shape in picture.shapes]
    kinds = Counter(shape.tag for shape in every)
    sources = [path for path, _file in files]
    if kinds["box"] and not kinds.keys() & {"polygon", "mask", "ellipse"}:
        raise UserError(
            "the CVAT file has only boxes, and a box tells no outline",
            [f"{path}: {sum(s.tag == 'box' for p in f.pictures for s in p.shapes):,} boxes" for path, f in files],
            "draw polygons or masks in CVAT (its 'AI tools' make masks of boxes), then export again",
        )
    used = {shape.values.get("label", "") for shape in every if shape.tag != "tag"} - {""}
    listed = list(dict.fromkeys(label for _path, file in files for label in file.labels))
    categories = [label for label in listed if label in used] + sorted(used.difference(listed))
    unused = [label for label in listed if label not in used]
    mends = [Mend("labels without an object, left out", len(unused), tuple(unused[:3]))] if unused else []
    one_category(categories, work.settings, some(str(path) for path in sources), "the CVAT file has")
    rename = dict.fromkeys(categories, work.settings.category) if work.settings.category else {}
    entries = _entries(files, rename, problems)
    pictures = Pictures(work.root, work.settings, found.place)
    shapes = ", ".join(plural(kinds[tag], tag) for tag in sorted(kinds))
    work.say(
        f"understood: {plural(len(files), 'CVAT file')} in {found.place} with {plural(len(entries), 'photo')} and"
        f" {shapes or 'no shapes'}"
    )
    names = [work.settings.category] if work.settings.category else categories
    work.say(f"understood: {plural(len(names), 'category')}: {', '.join(names)}")
    return read_entries(
        found,
        work,
        entries,
        _draw,
        _FIXES,
        categories=names,
        tool="CVAT",
        pictures=pictures,
        sources=sources,
        problems=problems,
        mends=mends,
    )


# ── XML ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse(path: Path) -> _File:
    """Read a file piece by piece; documents that declare types or entities are refused where they do.

    Raises:
        _Refused: If it is not CVAT's XML of images.
    """
    result = _File()
    stack: list[str] = []
    text: list[str] = []
    noted = ""

    def refuse_doctype(*_: Any) -> None:
        raise _Refused("it declares a document type (<!DOCTYPE or <!ENTITY), which CVAT never writes")

    def start(tag: str, values: dict[str, str]) -> None:
        nonlocal noted
        text.clear()
        if not stack and tag != "annotations":
            raise _Refused(f"it is no CVAT file: it starts with <{tag[:40]}>, not <annotations>")
        if tag == "track":
            raise _Refused(
                "it is of a video ('CVAT for video 1.1', with tracks), which is not read: export the task as 'CVAT for"
                " images 1.1' together with its images"
            )
        if len(stack) >= _DEEPEST:
            raise _Refused(f"its elements are nested more than {_DEEPEST} deep")
        if tag == "image" and stack == ["annotations"]:
            result.pictures.append(_Picture(values))
        elif len(stack) == 2 and stack[1] == "image":
            result.pictures[-1].shapes.append(_Shape(tag, values))
        elif tag == "attribute" and len(stack) == 3 and stack[1] == "image":
            noted = values.get("name", "")
        stack.append(tag)

    def end(_tag: str) -> None:
        if stack[-3:] == ["labels", "label", "name"] and stack[1:2] == ["meta"]:
            result.labels.append("".join(text).strip())
        elif stack[-1] == "attribute" and len(stack) == 4 and stack[1] == "image":
            result.pictures[-1].shapes[-1].noted[noted] = "".join(text).strip()
        stack.pop()
        text.clear()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.EntityDeclHandler = refuse_doctype
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(_CHUNK):
                parser.Parse(chunk, False)
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _Refused(f"it is not valid XML ({error})") from None
    except (ValueError, LookupError):  # an encoding that Python does not know
        raise _Refused("it is not valid XML (unknown encoding)") from None
    except OSError as error:
        raise _Refused(f"it cannot be opened ({error.strerror})") from None
    return result


def _entries(files: Sequence[tuple[Path, _File]], rename: Mapping[str, str], problems: list[Problem]) -> list[Entry]:
    entries, wrong = [], []
    for path, file in files:
        for number, picture in enumerate(file.pictures):
            name = picture.values.get("name", "").strip()
            if not name:
                wrong.append(f"{path}: image {number + 1} has no name")
                continue
            try:
                stated = _stated(picture.values)
            except ValueError as error:
                wrong.append(f"{path}: {name}: {error}")
                continue
            subset = picture.values.get("subset", "")
            for shape in picture.shapes:
                if "label" in shape.values:
                    shape.values["label"] = rename.get(shape.values["label"], shape.values["label"])
            payload = tuple((shape.tag, shape.values, shape.noted) for shape in picture.shapes)
            entries.append(Entry(path, name, payload, stated, SPLIT_NAMES.get(subset.lower()), subset))
    if wrong:
        problems.append(Problem("the CVAT file has images that cannot be read", tuple(wrong), "export it again"))
    return entries


def _stated(values: Mapping[str, str]) -> Size | None:
    if "width" not in values or "height" not in values:
        return None
    try:
        height, width = int(values["height"]), int(values["width"])
    except ValueError:
        height = width = 0
    if min(height, width) <= 0:
        raise ValueError(f"width and height are {values['width']!r} and {values['height']!r}, not sizes in pixels")
    return height, width


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw(
    payload: Sequence[tuple[str, dict[str, str], dict[str, str]]], size: Size, label: str, tally: Tally
) -> tuple[list[Mark], list[tuple[str, str]]]:
    """Turn the shapes of one photo into objects; see `listing.Draw`."""
    faults: list[tuple[str, str]] = []
    groups: dict[Any, list[Part]] = defaultdict(list)
    boxes: list[tuple[str, str, tuple[float, float, float, float], str]] = []
    crowds: set[Any] = set()
    for number, (tag, values, noted) in enumerate(payload):
        name = values.get("label", "").strip()
        where = f"{label}: {tag[:40]} {number + 1}" + (f" ('{name}')" if name else "")
        if tag == "tag":
            tally.add("tags, which mark no pixels, left out", f"{label} ('{name}')")
            continue
        if tag in _NO_AREA_SHAPES:
            faults.append((_NO_AREA, where))
            continue
        try:
            if tag not in _SHAPES:
                raise ValueError("a shape of this kind is not known")
            if not name:
                raise ValueError("it has no label")
            group = values.get("group_id", "0").strip() or "0"
            if tag == "box":
                boxes.append((name, group, _box(values), where))
                continue
            key = (name, number) if group == "0" else (name, "group", group)
            groups[key].append(_part(tag, values, size))
            if noted.get("is_crowd", "").lower() in {"true", "1"}:
                crowds.add(key)
            extra = [key for key, value in noted.items() if key != "is_crowd" and value]
            if extra:
                tally.add("shapes with attributes, which are not kept", " and ".join(extra))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            faults.append((_WRONG, f"{where}: {reason}"))
    marks, wrong = grouped_marks(groups, crowds, size, label, tally)
    faults += [(_WRONG, text) for text in wrong]
    around = [(mark.category, pixels.box(mark.rle, size)) for mark in marks]
    for name, group, box, where in boxes:
        if (name, "group", group) in groups or any(name == of and same_box(box, other) for of, other in around):
            tally.add("boxes of objects that have an outline too, left out", where)
        else:
            faults.append((_BOX, where))
    return marks, faults


def _box(values: Mapping[str, str]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_number(values, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    return x1, y1, x2, y2


def _part(tag: str, values: Mapping[str, str], size: Size) -> Part:
    """Turn one shape into a part of an object.

    Raises:
        KeyError, ValueError: If it breaks CVAT's form; the message says how.
    """
    if tag == "polygon":
        try:
            pairs = [[float(v) for v in pair.split(",")] for pair in values["points"].split(";")]
        except ValueError:
            raise ValueError("its points are not x,y;x,y;...") from None
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("its points are not x,y;x,y;...")
        return "polygon", [v for pair in pairs for v in pair]
    if tag == "ellipse":
        x, y, rx, ry = (_number(values, key) for key in ("cx", "cy", "rx", "ry"))
        turned = math.radians(_number(values, "rotation")) if "rotation" in values else 0.0
        return "polygon", ellipse(x, y, rx, ry, turned)
    return "rle", _mask(values, size)


def _number(values: Mapping[str, str], key: str) -> float:
    try:
        number = float(values[key])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"its {key} is {values[key][:40]!r}, not a number")
    return number


def _mask(values: Mapping[str, str], size: Size) -> bytes:
    """Read a `<mask>`: runs of 0, 1, 0, 1 ... line by line within its own box."""
    left, top, width, height = (_number(values, key) for key in ("left", "top", "width", "height"))
    x, y, w, h = int(left), int(top), int(width), int(height)
    if (x, y, w, h) != (left, top, width, height) or min(w, h) < 1:
        raise ValueError(f"its box is left {left:g}, top {top:g}, width {width:g}, height {height:g}")
    if min(x, y) < 0 or x + w > size[1] or y + h > size[0]:
        raise ValueError("it reaches out of the photo")
    try:
        runs = np.array([int(run) for run in values["rle"].split(",")], dtype=np.int64)
    except (ValueError, OverflowError):
        raise ValueError("its rle is not a list of whole numbers") from None
    if (runs < 0).any() or (runs > w * h).any() or int(runs.sum()) != w * h:
        raise ValueError(f"the runs of its rle add up to {sum(runs.tolist()):,}, its box has {w * h:,} pixels")
    window = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w)
    if not window.any():
        raise ValueError("it has no pixel")
    return pixels.encode_window(window, x, y, size)
