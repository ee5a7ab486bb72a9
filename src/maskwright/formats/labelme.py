"""labelme 3 to 7: one .json per photo, with polygons, rectangles, circles and exact masks; read and written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import PngImagePlugin

from maskwright import pixels
from maskwright.dataset import Dataset, Image, read_json
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, atomic_file, is_file, put_photo
from maskwright.formats import Found, Mark, Photo, Reading, Skipped, Tally, Work, Written, plural, some
from maskwright.formats.listing import (
    MOST_BYTES,
    RECTANGLES,
    Outcome,
    Part,
    Pictures,
    account,
    boxes_note,
    files_below,
    grouped_marks,
    head_and_tail,
    numbers,
    one_category,
    outcome_notes,
    outcome_problems,
    outcome_tally,
    photo_of,
    sample,
    spot,
    with_splits,
)
from maskwright.formats.names import stems
from maskwright.formats.photos import Sight, sight
from maskwright.formats.shapes import circle, rectangle
from maskwright.pixels import Size
from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "labelme"
EXPECTS = "a folder with one labelme .json for each photo, beside the photos or in a folder `labels`"

VERSION = "5.5.0"
"""What is written as the version: the first that could not show `mask` shapes is older."""

LINES = frozenset({"line", "linestrip", "point", "points", "linestring"})
"""Shapes without an area."""

FOUR_CORNERS = frozenset({"oriented_rectangle", "rotation", "quadrilateral"})
"""Shapes that are polygons of four corners, under the names of labelme 7 and of programs that write its form."""

NO_OBJECT = frozenset({"__ignore__", "_background_"})
"""Labels that in labelme's own converters mean no object."""

_SUFFIX_OF = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PN": ".png",
    b"BM": ".bmp",
    b"II*": ".tif",
    b"MM\0": ".tif",
    b"RIF": ".webp",
}

_NOT_LABELME = "not a labelme file"
_WRONG_FILE = "labelme files cannot be read"
_WRONG_SHAPE = "labelme files have shapes that cannot be read"
_NO_AREA = "lines and points have no area, so they are no masks"
_NO_PHOTO = "labelme files have no photo"
_ELSEWHERE = "photos inside labelme files cannot be shared by the machines of a cluster"
_FIXES = {
    _WRONG_FILE: "save them again in labelme, or remove them",
    _WRONG_SHAPE: "mend or remove these shapes",
    _NO_AREA: "draw these objects as polygons in labelme, or remove the shapes",
    _NO_PHOTO: "put the photos beside their .json files, or: --photos FOLDER; or remove the files",
    _ELSEWHERE: "leave out: --on ray; or put the photos beside their .json files",
}


@dataclass(frozen=True)
class _Job:
    """One labelme file to read, and its photo; `settled`: that is the photo, whatever the file says."""

    path: Path
    photo: Path | None
    settled: bool


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Tell whether a folder, or one file, holds labelme files; see the contract in `formats`."""
    named = settings.form == NAME
    if place.is_file():
        if place.suffix.lower() == ".json" and (named or _sniff(place)):
            return Found(NAME, place, "a labelme file", (place,))
        return None
    folder = place / settings.masks if settings.masks is not None and (place / settings.masks).is_dir() else place
    files = files_below(folder, ".json") if folder.is_dir() else []
    looked = sample(files)
    if not named and 2 * sum(_sniff(path) for path in looked) < max(len(looked), 1):
        return None
    if not files:
        raise UserError("there is no labelme file", [str(place)], f"labelme means: {EXPECTS}")
    return Found(NAME, place, f"{plural(len(files), '.json file')} as labelme writes them", tuple(files))


def _sniff(path: Path) -> bool:
    text = head_and_tail(path)
    return b'"shapes"' in text and any(key in text for key in (b'"imagePath"', b'"imageData"', b'"imageHeight"'))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(found: Found, work: Work) -> Reading:
    """Read labelme files with their photos, or with the photos embedded in them; see the contract in `formats`.

    Shapes of one photo that share label and `group_id` are one object, as in labelme's own converters.

    Raises:
        UserError: With every problem that was found.
    """
    files: tuple[Path, ...] = found.parts
    pictures = Pictures(work.root, work.settings, found.place)
    work.say(
        f"understood: {plural(len(files), '.json file')} of labelme in {found.place} with"
        f" {plural(len(pictures.paths), 'picture')} in {pictures.top}"
    )
    outcomes = _outcomes(files, pictures, work)
    skipped = [Skipped(path, _NOT_LABELME) for path, one in zip(files, outcomes, strict=True) if one is None]
    kept = [(path, one) for path, one in zip(files, outcomes, strict=True) if one is not None]
    if not kept:
        raise UserError("there is no labelme file", [str(found.place)], f"labelme means: {EXPECTS}")
    problems = outcome_problems([one for _path, one in kept], _FIXES)
    problems += _double_problems(kept)
    photos = [_photo(path, one, pictures) for path, one in kept if not one.faults and not one.sight.fault]
    seen = {one.sight.path for _path, one in kept if one.sight.path != Path()}
    bare, left = _without_file(pictures, seen, work.settings)
    skipped += left
    if bare and work.settings.unmatched == "error":
        problems.append(
            Problem(
                f"{plural(len(bare), 'photo')} without a labelme file",
                tuple(str(path) for path in bare),
                "draw their objects; or, if they show none: --unmatched empty; or leave them out: --unmatched skip",
            )
        )
    elif work.settings.unmatched == "skip":
        skipped += [Skipped(path, "photo without a labelme file, left out as you said") for path in bare]
    notes = outcome_notes(one for _path, one in kept)
    if bare and work.settings.unmatched == "empty":
        look = partial(sight, frame=work.settings.mask_frame)
        empty = [Outcome(str(path), one) for path, one in zip(bare, work.each(look, bare), strict=True)]
        problems += outcome_problems(empty, {})
        photos += [_photo(one.sight.path, one, pictures) for one in empty if not one.sight.fault]
        notes.append(
            f"{plural(len(bare), 'photo')} without a labelme file: photos without objects, as you said"
            f" ({some(str(path) for path in bare)})"
        )
    if problems:
        raise UserError(problems)
    names = sorted({mark.category for photo in photos for mark in photo.marks})
    if not names:
        raise UserError("no labelme file marks an object", [str(found.place)], "draw the objects in labelme")
    one_category(names, work.settings, str(found.place), "the labelme files have")
    if work.settings.category is not None:
        names = [work.settings.category]
        photos = [p._replace(marks=tuple(m._replace(category=names[0]) for m in p.marks)) for p in photos]
    tally = outcome_tally(one for _path, one in kept)
    notes += boxes_note(tally, photos)
    read_photos, splits, more = with_splits(sorted(photos, key=lambda photo: (photo.place, photo.name)))
    notes += more
    for text in [f"{plural(len(names), 'category')}: {', '.join(names)}", splits, *notes]:
        if text:
            work.say(f"understood: {text}")
    used = [one.sight.path for _path, one in kept] + [path for path, _one in kept]
    used += [photo.path for photo in read_photos]
    return Reading(
        form=NAME,
        coding=None,
        categories=tuple(names),
        photos=read_photos,
        sources=tuple(path for path, _one in kept),
        skipped=account((work.root, found.place), used, skipped, "picture without a labelme file"),
        splits=splits,
        mends=tally.mends(),
        notes=tuple(notes),
    )


def _outcomes(files: Sequence[Path], pictures: Pictures, work: Work) -> list[Outcome | None]:
    """Read every file with the picture of its stem; then those again that name another picture."""
    away = work.settings.on == "ray" and work.each.elsewhere()
    function = partial(_read_file, spare=None if away else work.spare, frame=work.settings.mask_frame)
    jobs = [_Job(path, pictures.by_stem(path), settled=False) for path in files]
    outcomes = list(work.each(function, jobs))
    again = [i for i, one in enumerate(outcomes) if one is not None and one.extra]
    retry = []
    for i in again:
        one = outcomes[i]
        assert one is not None
        named = pictures.named(one.extra, files[i])
        if len(named) > 1:
            where = " and ".join(str(path) for path in named[:3])
            line = f"{files[i]}: {one.extra!r} is found more than once: {where}"
            outcomes[i] = Outcome(str(files[i]), Sight(Path()), faults=((_NO_PHOTO, line),))
            continue
        retry.append((i, _Job(files[i], named[0] if named else jobs[i].photo, settled=True)))
    for (i, _job), one in zip(retry, work.each(function, [job for _i, job in retry]), strict=True):
        outcomes[i] = one
    return outcomes


def _read_file(job: _Job, spare: Path | None, frame: MaskFrame) -> Outcome | None:
    """Read one labelme file; `None` if it is something else. `extra` is the photo's name if that is another one.

    Args:
        job: The file.
        spare: Where a photo goes that is in the file; `None`: nowhere, since other machines work too.
        frame: What the masks were drawn on.
    """
    label = str(job.path)

    def wrong(text: str, rule: str = _WRONG_FILE) -> Outcome:
        return Outcome(label, Sight(job.photo or Path()), faults=((rule, f"{label}: {text}"),))

    try:
        size = job.path.stat().st_size
        if size > MOST_BYTES:
            return wrong(f"has {size / 2**20:,.0f} MB; at most {MOST_BYTES // 2**20} MB are read")
        document = read_json(job.path)
    except UserError as error:
        return wrong(error.problems[0].where[0].removeprefix(f"{label}: "))
    except OSError as error:
        return wrong(f"cannot be opened ({error.strerror})")
    if not isinstance(document, dict) or not {"shapes", "imagePath", "imageData"} & set(document):
        return None
    shapes, name = document.get("shapes"), document.get("imagePath")
    if not isinstance(shapes, list):
        return wrong("it has no list of 'shapes'")
    if not isinstance(name, str | None):
        return wrong("'imagePath' is not a text")
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    if not job.settled and last and (job.photo is None or job.photo.name != last):
        return Outcome(label, Sight(Path()), extra=name or "")
    tally = Tally()
    if job.photo is not None:
        seen = sight(job.photo, frame)
        if last and job.photo.name != last:
            how = (
                "letter case" if job.photo.name.casefold() == last.casefold() else "name, found by the file's own name"
            )
            tally.add(f"photos that labelme files call by another {how}", f"{last} is {job.photo.name}")
    elif document.get("imageData"):
        if spare is None or not spare.is_dir():  # the machine may have joined the cluster since
            return wrong("its photo is in the file", _ELSEWHERE)
        try:
            seen = sight(_embedded(document["imageData"], job.path, spare), frame)
        except ValueError as error:
            return wrong(str(error))
        seen = replace(seen, fault=f"the photo in the file {seen.fault}" if seen.fault else "")
        tally.add("photos taken out of their labelme files, for lack of the picture files", label)
    else:
        return wrong(
            f"{name!r} was not found and there is no photo in the file" if last else "it names none", _NO_PHOTO
        )
    shown = seen if job.photo is not None else replace(seen, path=job.path)  # messages name no file of ours
    if seen.fault:
        return Outcome(label, shown)
    try:
        stated = _stated(document)
    except ValueError as error:
        return wrong(str(error))
    if stated is not None and stated != seen.size:
        return Outcome(label, shown, stated)
    marks, faults = _marks(shapes, seen.size, label, tally)
    flags = document.get("flags")
    if isinstance(flags, dict) and any(flags.values()):
        tally.add("photos with flags, which are not kept", ", ".join(str(key) for key, on in flags.items() if on))
    return Outcome(label, seen, stated, tuple(marks), tuple(faults), tally.mends())


def _stated(document: Mapping[str, Any]) -> Size | None:
    height, width = document.get("imageHeight"), document.get("imageWidth")
    if height is None or width is None:
        return None
    if not all(isinstance(v, int | float) and 0 < v < _LONGEST for v in (height, width)):
        raise ValueError(
            f"'imageHeight' and 'imageWidth' are {str(height)[:20]} and {str(width)[:20]}, not sizes in pixels"
        )
    return int(height), int(width)


_LONGEST = 2**31
"""No side of a photo has as many pixels. (A number of JSON may be too large for a float, or infinite.)"""


def _embedded(data: Any, source: Path, spare: Path) -> Path:
    """Write the photo that a labelme file holds to a file of its own.

    Raises:
        ValueError: If it holds none; the message says how.
    """
    if not isinstance(data, str):
        raise ValueError("'imageData' is not a text")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the photo in 'imageData' is no base64") from None
    suffix = next((suffix for head, suffix in _SUFFIX_OF.items() if content.startswith(head)), None)
    if suffix is None:
        raise ValueError("the photo in 'imageData' is no picture that can be read")
    # The name is ours, of the source's path, so that no two are alike and none leads outside.
    target = spare / f"{hashlib.sha256(os.fsencode(source)).hexdigest()[:32]}{suffix}"
    target.write_bytes(content)
    return target


def _marks(shapes: Sequence[Any], size: Size, label: str, tally: Tally) -> tuple[list[Mark], list[tuple[str, str]]]:
    """Turn the shapes of one photo into objects; returns also what is wrong with them."""
    faults: list[tuple[str, str]] = []
    groups: dict[Any, list[Part]] = defaultdict(list)
    crowds: set[Any] = set()
    for number, shape in enumerate(shapes):
        name = shape.get("label") if isinstance(shape, dict) else None
        where = f"{label}: shape {number + 1}" + (f" ('{name}')" if isinstance(name, str) else "")
        if not isinstance(name, str) or not name.strip():
            what = "it has no label" if name is None or name == "" else f"its label is {str(name)[:40]!r}, not a text"
            faults.append((_WRONG_SHAPE, f"{where}: {what}"))
            continue
        name = name.strip()
        if name in NO_OBJECT:
            tally.add(f"shapes labelled {name}, which mark no object, left out", label)
            continue
        try:
            kind = shape.get("shape_type") or "polygon"
            if not isinstance(kind, str):
                raise ValueError(f"its shape_type is {str(kind)[:40]}")
            if kind in LINES:
                faults.append((_NO_AREA, f"{where} is a {kind}"))
                continue
            group = shape.get("group_id")
            if not isinstance(group, int | str | None):
                raise ValueError(f"its group_id is {str(group)[:40]}")
            key = (name, number) if group is None else (name, "group", group)
            groups[key].append(_shape(kind, shape, size, label, tally))
            if _is_crowd(shape):
                crowds.add(key)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            faults.append((_WRONG_SHAPE, f"{where}: {reason}"))
            continue
    marks, wrong = grouped_marks(groups, crowds, size, label, tally)
    faults += [(_WRONG_SHAPE, text) for text in wrong]
    return marks, faults


def _is_crowd(shape: Mapping[str, Any]) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and any(flags.get(name) is True for name in ("crowd", "iscrowd"))


def _shape(kind: str, shape: Mapping[str, Any], size: Size, label: str, tally: Tally) -> Part:
    """Turn one shape into `("polygon", [x1, y1, ...])` or `("rle", bytes or None)`.

    Raises:
        KeyError, TypeError, ValueError: If it breaks labelme's form; the message says how.
    """
    points = shape["points"]
    if not isinstance(points, list) or not points:
        raise ValueError("it has no points")
    corners = [numbers(point, 2, "its points are not pairs of finite numbers x, y") for point in points]
    flat = [v for corner in corners for v in corner]
    extra = [key for key in ("description", "text") if shape.get(key)]
    flags = shape.get("flags")
    if isinstance(flags, dict) and any(on and name not in ("crowd", "iscrowd") for name, on in flags.items()):
        extra.append("flags")
    if extra:
        tally.add("shapes with words that are not kept", " and ".join(extra))
    if kind == "polygon" or kind in FOUR_CORNERS:
        return "polygon", flat
    if kind == "rectangle":
        tally.add(RECTANGLES, label)
        if len(corners) == 4:
            return "polygon", flat
        if len(corners) != 2:
            raise ValueError(f"a rectangle has 2 points, this one {len(corners)}")
        return "polygon", rectangle(flat[0], flat[1], flat[2], flat[3])
    if kind == "circle":
        if len(corners) != 2:
            raise ValueError(f"a circle has 2 points, its centre and one on it; this one {len(corners)}")
        radius = math.dist(corners[0], corners[1])
        return "polygon", circle(flat[0], flat[1], radius) if radius > 0 else flat
    if kind == "mask":
        if len(corners) != 2:
            raise ValueError(f"a mask has 2 points, the corners of its box; this one {len(corners)}")
        return "rle", _mask(shape["mask"], flat, size, label, tally)
    raise ValueError(f"a shape of type {kind[:40]!r} is not known")


def _mask(data: Any, corners: Sequence[float], size: Size, label: str, tally: Tally) -> bytes | None:
    """Read a `mask` shape: a PNG that starts at the first corner of its box; the second corner is its last pixel."""
    x, y = round(corners[0]), round(corners[1])
    window = _png(data, size)
    height, width = window.shape
    wide, high = round(corners[2]) - x + 1 - width, round(corners[3]) - y + 1 - height
    if max(abs(wide), abs(high)) > 1:
        raise ValueError(
            f"its mask is {width} x {height} pixels, its box {width + wide} x {height + high}: they do not belong"
            " together"
        )
    if wide or high:  # other programs write the corner behind the last pixel
        tally.add("masks whose box is one pixel off, placed by its first corner", label)
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = min(width, size[1] - x), min(height, size[0] - y)
    if (left or top or right < width or bottom < height) and window.any():
        tally.add("masks that reach out of the photo, cut at its edge", label)
    inner = window[top:bottom, left:right] if right > left and bottom > top else window[:0, :0]
    if not inner.any():
        tally.add("objects without a pixel, left out", label)
        return None
    return pixels.encode_window(np.ascontiguousarray(inner), x + left, y + top, size)


def _png(data: Any, size: Size) -> NDArray[np.bool_]:
    """Decode the PNG of a `mask` shape, `(h, w)` bool.

    Raises:
        ValueError: If it is none, or larger than the photo.
    """
    if not isinstance(data, str):
        raise ValueError("its mask is not a text")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its mask is no base64") from None
    try:
        # By this class and not by `open`, whose limit on pixels is a warning; the photo's size is the limit here.
        with PngImagePlugin.PngImageFile(io.BytesIO(content)) as image:
            if image.width > size[1] + 1 or image.height > size[0] + 1:
                raise _TooLarge
            array = np.asarray(image.convert("L") if image.mode not in {"1", "L", "P", "I", "I;16"} else image)
    except _TooLarge:
        raise ValueError("its mask is larger than the photo") from None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError):
        raise ValueError("its mask is no PNG that can be read") from None
    return np.asarray(array != 0)


class _TooLarge(Exception):
    """A mask declares more pixels than its photo has."""


def _photo(source: Path, one: Outcome, pictures: Pictures) -> Photo:
    path = one.sight.path
    told = pictures.told(source)
    if path.is_relative_to(pictures.top):
        seen = spot(path, pictures.top)
        name, place, split = seen.name, seen.place, seen.split or told.split
    else:  # embedded: it is called after its labelme file
        name, place, split = str(Path(told.name).with_suffix(path.suffix).as_posix()), told.place, told.split
    return photo_of(one, name, place, split)


def _double_problems(kept: Sequence[tuple[Path, Outcome]]) -> list[Problem]:
    sources: dict[Path, list[Path]] = defaultdict(list)
    for path, one in kept:
        if one.sight.path != Path():
            sources[one.sight.path].append(path)
    lines = tuple(f"{photo}: {' and '.join(str(p) for p in of)}" for photo, of in sources.items() if len(of) > 1)
    if not lines:
        return []
    return [Problem("photos have more than one labelme file", lines, "keep one file for each photo")]


def _without_file(pictures: Pictures, used: set[Path], settings: PrepareSettings) -> tuple[list[Path], list[Skipped]]:
    """Return the photos that no labelme file speaks of, and the pictures that are no photos of the set.

    In the folder above the one that was named anything may lie, such as screenshots: what no file names is no photo.
    """
    folders = {path.parent for path in used}
    beside = {(path.parent, path.stem) for path in used}
    bare, skipped = [], []
    for path in pictures.paths:
        if path in used:
            continue
        if path.suffix.lower() not in PHOTO_SUFFIXES:
            skipped.append(Skipped(path, "not a photo file"))
        elif (path.parent, path.stem) in beside:
            skipped.append(Skipped(path, "picture with the stem of a photo that was used"))
        elif pictures.above:
            skipped.append(Skipped(path, "picture in the folder above that no labelme file names"))
        elif settings.photos is None and path.parent not in folders:
            skipped.append(Skipped(path, "picture in a folder without photos of labelme files"))
        else:
            bare.append(path)
    return bare, skipped


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write one labelme file per photo, each object as an exact `mask` shape: holes and parts are kept.

    `imagePath` is the photo's bare name: labelme and `prepare` look beside the file, where the photo is put, as a hard
    link or a copy, if the dataset knows where its photos are. A photo that is there already stays. A crowd gets the
    flag `crowd`, a score stands in the description.

    Raises:
        UserError: If a photo's name leads outside, or a photo is listed twice, or cannot be put there.
    """
    names = {category.id: category.name for category in dataset.categories}
    first = dataset.first.tolist()
    counts: Counter[str] = Counter()
    for i, (image, stem) in enumerate(zip(dataset.images, stems(dataset), strict=True)):
        target = folder / f"{stem}.json"
        shapes = []
        for k in range(first[i], first[i + 1]):
            rle = dataset.rle(k)
            if not rle or not pixels.area(rle, image.size):
                counts["box" if not rle else "empty"] += 1
                continue
            score = float(dataset.scores[k])
            counts["written"] += 1
            counts["crowd"] += bool(dataset.crowd[k])
            shapes.append(
                _mask_shape(rle, image.size, names[int(dataset.category_ids[k])], bool(dataset.crowd[k]), score)
            )
        document: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image.file_name.rpartition("/")[2],
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        with atomic_file(target) as handle:
            handle.write(json.dumps(document, indent=2, ensure_ascii=False).encode())
        counts[_put_beside(dataset, image, target)] += 1
    notes = []
    if counts["put"]:
        notes.append(f"{plural(counts['put'], 'photo')} put beside the .json files, as hard links or copies")
    if counts["away"]:
        notes.append(
            f"{plural(counts['away'], 'photo')} not found: put each beside its .json file, where labelme looks for it;"
            " `prepare` also takes: --photos FOLDER"
        )
    for key, text in (
        ("box", "left out: the file gives the box, not the mask"),
        ("empty", "left out: without a pixel"),
        ("crowd", "written with the flag `crowd`: many objects in one mask"),
    ):
        if counts[key]:
            notes.append(f"{plural(counts[key], 'object')} {text}")
    return Written(len(dataset.images), counts["written"], tuple(notes))


def _put_beside(dataset: Dataset, image: Image, label: Path) -> str:
    """Put a photo beside its labelme file, if it is found: "put", "there" (it was there already) or "away"."""
    target = label.with_name(image.file_name.rpartition("/")[2])
    if target.suffix.lower() not in PHOTO_SUFFIXES:  # nor may a "photo" take the name of a labelme file
        return "away"
    if is_file(target):
        return "there"
    photo = None if dataset.folder is None else dataset.photo_path(image)
    if photo is None or not is_file(photo):
        return "away"
    put_photo(photo, target)
    return "put"


def _mask_shape(rle: bytes, size: Size, label: str, crowd: bool, score: float) -> dict[str, Any]:
    x1, y1, x2, y2 = (int(v) for v in pixels.box(rle, size))
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels.crop(rle, size, (x1, y1, x2, y2)).astype(np.uint8)).save(buffer, "PNG")
    return {
        "label": label,
        "points": [[float(x1), float(y1)], [float(x2 - 1), float(y2 - 1)]],
        "group_id": None,
        "description": "" if math.isnan(score) else f"score {score:.3f}",
        "shape_type": "mask",
        "flags": {"crowd": True} if crowd else {},
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }
