"""VGG Image Annotator, versions 1 (regions as dict) and 2 (as list; exported annotations or a whole project)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskwright.dataset import read_json
from maskwright.errors import Problem, UserError
from maskwright.formats import Found, Mark, Reading, Skipped, Tally, Work, plural
from maskwright.formats.listing import (
    RECTANGLES,
    Entry,
    Pictures,
    files_below,
    head_and_tail,
    numbers,
    one_category,
    read_entries,
    sample,
)
from maskwright.formats.shapes import circle, ellipse, polygons_rle, rectangle
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "via"
EXPECTS = "a .json of the VGG Image Annotator (VIA 1 or 2, annotations or project) beside the photos"

CATEGORY_KEYS = ("category", "class", "label", "name", "type", "object", "class_name", "category_name")
"""Names of region attributes that mean the category, most likely first."""

_WRONG = "the VIA file has regions that cannot be read"
_NO_AREA = "points and lines have no area, so they are no masks"
_NO_CATEGORY = "regions have no category"
_FIXES = {
    _WRONG: "mend or remove these regions",
    _NO_AREA: "draw these objects as polygons in VIA, or remove the regions",
}
_PLAIN = {"point", "polyline", "line", "extreme_rect", "extreme_circle"}


@dataclass(frozen=True)
class _Region:
    """One region: how messages call it, its shape, and its attributes with the values that say something."""

    label: str
    shape: Any
    values: Mapping[str, tuple[str, ...]]
    category: str = ""


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Tell whether a folder, or one file, holds VIA annotations; see the contract in `formats`."""
    named = settings.form == NAME
    if place.is_file():
        if place.suffix.lower() == ".csv" and b"region_shape_attributes" in head_and_tail(place):
            raise UserError(
                "VIA's .csv annotations are not read", [str(place)], "export them in VIA as json, and name that file"
            )
        if place.suffix.lower() != ".json" or not (named or _sniff(place)):
            return None
        return Found(NAME, place, "a VIA file", (place,))
    folder = place / settings.masks if settings.masks is not None and (place / settings.masks).exists() else place
    candidates = [folder] if folder.is_file() else files_below(folder, ".json")
    likely = named or any(_sniff(path) for path in sample(candidates))
    chosen = tuple(path for path in candidates if named or _sniff(path)) if likely else ()
    if not chosen:
        if named:
            raise UserError("there is no VIA file", [str(place)], f"VIA means: {EXPECTS}")
        return None
    return Found(NAME, place, f"{plural(len(chosen), 'VIA file')}", chosen)


def _sniff(path: Path) -> bool:
    text = head_and_tail(path)
    if b'"vid_list"' in text or (b'"pname"' in text and b'"vid"' in text):
        raise UserError(
            "the file is a project of VIA 3, which is not read",
            [str(path)],
            "export it as COCO in VIA 3, or draw in VIA 2",
        )
    if b'"_via_img_metadata"' in text:
        return True
    return b'"regions"' in text and b'"filename"' in text and (b'"shape_attributes"' in text or b'"size"' in text)


def read(found: Found, work: Work) -> Reading:
    """Read VIA files with their photos; see the contract in `formats`.

    The category is the value of a region attribute: the only one that has values, else one that is called as
    `CATEGORY_KEYS`, else the one that most regions have. `--category` takes another attribute, or is the one name of
    all objects. Without values all objects are of the category `object`.

    Raises:
        UserError: With every problem that was found.
    """
    problems: list[Problem] = []
    photos: list[tuple[Path, str, list[_Region]]] = []
    sources, skipped = [], []
    tally = Tally()
    for path in found.parts:
        listed = _photos_of(path, problems, tally)
        if listed is None:
            skipped.append(Skipped(path, "not a VIA file"))
        else:
            sources.append(path)
            photos += [(path, name, regions) for name, regions in listed]
    if problems:
        raise UserError(problems)
    if not sources:
        raise UserError("there is no VIA file", [str(found.place)], f"VIA means: {EXPECTS}")
    photos, why, notes = _with_categories(photos, work.settings, problems)
    regions = [region for _path, _name, found_regions in photos for region in found_regions]
    categories = sorted({region.category for region in regions})
    pictures = Pictures(work.root, work.settings, found.place)
    work.say(
        f"understood: {plural(len(sources), 'VIA file')} in {found.place} with {plural(len(photos), 'photo')} and"
        f" {plural(len(regions), 'region')}"
    )
    work.say(f"understood: {plural(len(categories), 'category')}: {', '.join(categories)} ({why})")
    entries = [
        Entry(path, name, tuple((region.label, region.category, region.shape) for region in found_regions))
        for path, name, found_regions in photos
    ]
    return read_entries(
        found,
        work,
        entries,
        _draw,
        _FIXES,
        categories=categories,
        tool="VIA",
        pictures=pictures,
        sources=sources,
        skipped=skipped,
        problems=problems,
        notes=notes,
        mends=tally.mends(),
    )


def _photos_of(path: Path, problems: list[Problem], tally: Tally) -> list[tuple[str, list[_Region]]] | None:
    """Return the photos of one file with their regions; `None` if the file is something else."""
    document = read_json(path)
    if isinstance(document, dict) and "_via_img_metadata" in document:
        document = document["_via_img_metadata"]
        if isinstance(document, list):  # some versions write a list
            document = dict(enumerate(document))
        if not isinstance(document, dict):
            problems.append(Problem(_WRONG, (f"{path}: '_via_img_metadata' is not an object",), _FIXES[_WRONG]))
            return []
    if not isinstance(document, dict):
        return None
    items = list(document.items())
    if not items or not any(isinstance(item, dict) and {"filename", "regions"} <= set(item) for _key, item in items):
        return None
    photos, wrong = [], []
    for key, item in items:
        name = item.get("filename") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name.strip():
            wrong.append(f"{path}: {str(key)[:80]!r} has no filename")
            continue
        given = item.get("regions")
        if isinstance(given, dict):
            rows = list(given.items())
        elif isinstance(given, list | None):
            rows = list(enumerate(given or []))
        else:
            wrong.append(f"{path}: {name}: its regions are neither a list nor an object")
            continue
        regions = []
        for number, row in rows:
            label = f"{path}: {name}: region {number}"
            if not isinstance(row, dict) or not isinstance(row.get("shape_attributes"), dict):
                wrong.append(f"{label} has no shape_attributes")
                continue
            regions.append(_Region(label, row["shape_attributes"], _values(row.get("region_attributes"))))
        photos.append((name.partition("?")[0] if "://" in name else name, regions))
        if any(_values(item.get("file_attributes")).values()):
            tally.add("photos with file attributes, which are not kept", name)
    if wrong:
        problems.append(Problem(_WRONG, tuple(wrong), _FIXES[_WRONG]))
    return photos


def _values(attributes: Any) -> dict[str, tuple[str, ...]]:
    """Return the values of attributes that say something: a text, or the checked names of check boxes."""
    if not isinstance(attributes, dict):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for key, value in attributes.items():
        if isinstance(value, dict):
            found[key] = tuple(str(name) for name, on in value.items() if on is True or on == "true")
        elif isinstance(value, str):
            found[key] = (value.strip(),) if value.strip() else ()
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = (str(value),)
    return found


def _with_categories(
    photos: Sequence[tuple[Path, str, list[_Region]]], settings: PrepareSettings, problems: list[Problem]
) -> tuple[list[tuple[Path, str, list[_Region]]], str, list[str]]:
    """Give every region its category; returns also why it is that, and notes."""
    regions = [region for _path, _name, found in photos for region in found]
    filled: Counter[str] = Counter()
    kinds: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for region in regions:
        for key, values in region.values.items():
            filled[key] += bool(values)
            kinds[key].add(values)
    candidates = [key for key, count in filled.items() if count]
    chosen = _attribute(candidates, filled, settings)
    notes: list[str] = []
    if chosen is None:
        name = settings.category or "object"
        why = "as you said" if settings.category else "no region attribute tells it; --category NAME gives another"
        if settings.category and candidates:
            likely = _attribute(candidates, filled, PrepareSettings()) or ""
            names = {value for values in kinds[likely] for value in values}
            one_category(names, settings, f"region attribute '{likely}'", "the VIA file has")
        done = [(path, photo, [replace(r, category=name) for r in found]) for path, photo, found in photos]
        return done, why, notes
    others = [key for key in candidates if key != chosen]
    if others:
        notes.append(
            f"the category is the region attribute '{chosen}'; not kept: {', '.join(others)} (--category ATTRIBUTE"
            " takes another)"
        )
    none = [region.label for region in regions if not region.values.get(chosen)]
    many = [
        f"{region.label}: {', '.join(region.values[chosen])}"
        for region in regions
        if len(region.values.get(chosen, ())) > 1
    ]
    if none:
        fix = f"give them a value of '{chosen}' in VIA; or, if all objects are of one kind: --category NAME"
        problems.append(Problem(f"{_NO_CATEGORY} (attribute '{chosen}')", tuple(none), fix))
    if many:
        fix = "check one box for each region"
        problems.append(Problem(f"regions have several categories (attribute '{chosen}')", tuple(many), fix))
    done = [
        (path, photo, [replace(r, category=(r.values.get(chosen) or ("object",))[0]) for r in found])
        for path, photo, found in photos
    ]
    return done, f"region attribute '{chosen}'", notes


def _attribute(candidates: Sequence[str], filled: Mapping[str, int], settings: PrepareSettings) -> str | None:
    """Return the region attribute that is the category; `None` if none is."""
    if settings.category is not None:
        return settings.category if settings.category in candidates else None
    if not candidates:
        return None
    by_name = {key.strip().lower(): key for key in candidates}
    likely = [by_name[name] for name in CATEGORY_KEYS if name in by_name]
    if likely and len(candidates) > 1:
        return likely[0]
    return max(candidates, key=lambda key: filled[key])


def _draw(
    payload: Sequence[tuple[str, str, Any]], size: Size, label: str, tally: Tally
) -> tuple[list[Mark], list[tuple[str, str]]]:
    """Turn the regions of one photo into objects; see `listing.Draw`."""
    marks: list[Mark] = []
    faults: list[tuple[str, str]] = []
    for where, category, shape in payload:
        kind = shape.get("name")
        if isinstance(kind, str) and kind in _PLAIN:
            faults.append((_NO_AREA, f"{where} ('{category}') is a {kind}"))
            continue
        try:
            rle = polygons_rle([_polygon(kind, shape, label, tally)], size, label, tally)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            faults.append((_WRONG, f"{where}: {reason}"))
            continue
        if rle is not None:
            marks.append(Mark(category, rle))
    return marks, faults


def _polygon(kind: Any, shape: Mapping[str, Any], label: str, tally: Tally) -> list[float]:
    """Return a region's shape as a polygon.

    Raises:
        KeyError, ValueError: If it breaks VIA's form; the message says how.
    """
    if kind == "polygon":
        wrong = "its all_points_x and all_points_y are not two equally long lists of numbers"
        xs = numbers(shape["all_points_x"], None, wrong)
        ys = numbers(shape["all_points_y"], len(xs), wrong)
        return [v for pair in zip(xs, ys, strict=True) for v in pair]
    if kind == "rect":
        tally.add(RECTANGLES, label)
        x, y, width, height = _numbers(shape, "x", "y", "width", "height")
        if width < 0 or height < 0:
            raise ValueError(f"its width and height are {width:g} and {height:g}")
        return rectangle(x, y, x + width, y + height)
    if kind == "circle":
        return circle(*_numbers(shape, "cx", "cy", "r"))
    if kind == "ellipse":
        x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
        (angle,) = _numbers(shape, "theta") if shape.get("theta") is not None else (0.0,)
        return ellipse(x, y, rx, ry, angle)
    raise ValueError(f"a shape of the name {str(kind)[:40]!r} is not known")


def _numbers(shape: Mapping[str, Any], *keys: str) -> list[float]:
    return numbers([shape[key] for key in keys], len(keys), f"its {', '.join(keys)} are not numbers")
