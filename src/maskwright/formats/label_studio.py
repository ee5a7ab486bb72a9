"""Label Studio's JSON export (and JSON-MIN): brush masks, polygons and ellipses of images."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.dataset import read_json
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES
from maskwright.formats import Found, Mark, Mend, Reading, Skipped, Tally, Work, plural, some
from maskwright.formats.listing import (
    Entry,
    Pictures,
    head_and_tail,
    names_below,
    numbers,
    one_category,
    read_entries,
    same_box,
    sample,
)
from maskwright.formats.shapes import ellipse, polygons_rle
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "label-studio"
EXPECTS = "a .json exported from Label Studio as JSON, beside the photos"

_OUTLINES = frozenset({"brush", "polygon", "ellipse"})
_LINES = frozenset({"keypoint", "vector"})
_SHAPES = frozenset({"polygon", "ellipse", "rectangle", "brush", "bitmask", *_LINES})
_PNG_EXPORT = re.compile(r"task-\d+-annotation-\d+-by-.*-\d+\.png")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_UPLOAD_FOLDER = re.compile(r"data/upload/(?:[0-9]+/)?[^/]+")

_WRONG = "the Label Studio file has regions that cannot be read"
_WRONG_TASK = "the Label Studio file has tasks that cannot be read"
_NO_AREA = "points and lines have no area, so they are no masks"
_BOX = "objects are given by a box only, which tells no outline"
_TURNED = "regions were drawn on a photo that was turned in Label Studio"
_FIXES = {
    _WRONG: "mend or remove these regions",
    _NO_AREA: "draw these objects with the brush or as polygons, or remove the regions",
    _BOX: "draw these objects with the brush or as polygons, or remove the boxes",
    _TURNED: "turn the photo back in Label Studio and draw again; or save the photo itself turned",
}


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Tell whether a folder, or one file, holds a Label Studio export; see the contract in `formats`."""
    named = settings.form == NAME
    if place.is_file():
        if place.suffix.lower() != ".json" or not (named or _sniff(place)):
            return None
        return Found(NAME, place, "a Label Studio file", (place,))
    folder = place / settings.masks if settings.masks is not None and (place / settings.masks).exists() else place
    candidates, exported = ([folder], []) if folder.is_file() else _files(folder)
    likely = named or any(_sniff(path) for path in sample(candidates))
    chosen = tuple(path for path in candidates if named or _sniff(path)) if likely else ()
    if not chosen:
        if exported:
            raise _png_export(exported)
        if named:
            raise UserError("there is no Label Studio file", [str(place)], f"Label Studio means: {EXPECTS}")
        return None
    return Found(NAME, place, f"{plural(len(chosen), 'Label Studio file')}", chosen)


def _sniff(path: Path) -> bool:
    text = head_and_tail(path)
    tasks = b'"result"' in text and any(key in text for key in (b'"annotations"', b'"completions"', b'"task"'))
    if b'"original_width"' in text:
        return tasks or b'labels"' in text  # the latter: JSON-MIN
    return tasks and b'"was_cancelled"' in text


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the JSON files under a folder, and the masks of Label Studio's PNG export."""
    files, exported = [], []
    for name in names_below(folder, (".json", ".png")):
        if name.lower().endswith(".json"):
            files.append(folder / name)
        elif _PNG_EXPORT.fullmatch(name, name.rfind("/") + 1):
            exported.append(folder / name)
    return sorted(files, key=lambda path: path.parts), sorted(exported, key=str)


def _png_export(files: Sequence[Path]) -> UserError:
    return UserError(
        "these are masks of Label Studio's PNG export, and their names do not tell the photo",
        [str(path) for path in files],
        "export the project from Label Studio as JSON, which holds the same masks, and put the file beside the photos",
    )


def read(found: Found, work: Work) -> Reading:
    """Read Label Studio's exports with their photos; see the contract in `formats`.

    Of each task the one annotation that is not cancelled is taken; of several the one that is ground truth.

    Raises:
        UserError: With every problem that was found.
    """
    pictures = Pictures(work.root, work.settings, found.place)
    problems: list[Problem] = []
    sources, skipped, notes = [], [], []
    wrong: list[str] = []
    undone: list[str] = []
    entries: list[Entry] = []
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    labels: set[str] = set()
    for path in found.parts:
        tasks = _tasks(read_json(path))
        if tasks is None:
            skipped.append(Skipped(path, "not a Label Studio file"))
            continue
        sources.append(path)
        for number, task in enumerate(tasks):
            label = f"{path}: task {task.get('id', number + 1) if isinstance(task, dict) else number + 1}"
            try:
                name = _photo_name(task, pictures, path)
                results = _results(task, counts)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                wrong.append(f"{label}: {error}")
                continue
            if results is None:
                undone.append(f"{label}: {name}")
                if work.settings.unmatched == "skip":
                    counts["skipped"] += 1
                    continue
                results = []
            regions = list(_regions(results, counts))
            kinds.update(kind for kind, _labels, _item in regions)
            labels.update(one for _kind, given, _item in regions for one in given)
            entries.append(Entry(path, name, tuple(regions), _stated(regions)))
    if not sources:
        raise UserError("there is no Label Studio file", [str(found.place)], f"Label Studio means: {EXPECTS}")
    if wrong:
        problems.append(Problem(_WRONG_TASK, tuple(wrong), "mend or remove these tasks, or export again"))
    if undone and work.settings.unmatched == "error":
        fix = "finish them; or, if they show no object: --unmatched empty; or leave them out: --unmatched skip"
        problems.append(Problem(f"{plural(len(undone), 'task')} without a finished annotation", tuple(undone), fix))
    elif undone:
        how = "photos without objects" if work.settings.unmatched == "empty" else "left out"
        notes.append(
            f"{plural(len(undone), 'task')} without a finished annotation: {how}, as you said ({some(undone)})"
        )
    if kinds["rectangle"] and not kinds.keys() & _OUTLINES:
        raise UserError(
            "the Label Studio file has only boxes, and a box tells no outline",
            [f"{path}: {kinds['rectangle']:,} boxes" for path in sources[:1]],
            "draw with the brush or as polygons in Label Studio, then export again as JSON",
        )
    categories = sorted(labels)
    one_category(categories, work.settings, some(str(path) for path in sources), "the Label Studio file has")
    if work.settings.category is not None:
        categories = [work.settings.category]
    mends = [
        Mend(text, counts[key])
        for key, text in (
            ("predictions", "predictions of a model, not used: only what people drew is"),
            ("cancelled", "annotations that were cancelled (skipped), not used"),
            ("answers", "answers that mark no region (choices, texts, ...), not kept"),
            ("repeated", "regions that stand twice in an annotation, kept once"),
        )
        if counts[key]
    ]
    shapes = ", ".join(plural(kinds[kind], f"{kind} region") for kind in sorted(kinds))
    work.say(
        f"understood: {plural(len(sources), 'Label Studio file')} in {found.place} with"
        f" {plural(len(entries), 'photo')} and {shapes or 'no regions'}"
    )
    if categories:
        work.say(f"understood: {plural(len(categories), 'category')}: {', '.join(categories)}")
    if work.settings.category is not None:
        renamed = work.settings.category
        entries = [
            Entry(e.source, e.name, tuple((k, (renamed,) if given else (), i) for k, given, i in e.payload), e.stated)
            for e in entries
        ]
    return read_entries(
        found,
        work,
        entries,
        _draw,
        _FIXES,
        categories=categories,
        tool="Label Studio",
        pictures=pictures,
        sources=sources,
        skipped=skipped,
        problems=problems,
        notes=notes,
        mends=mends,
    )


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tasks(document: Any) -> list[Any] | None:
    """Return the tasks of a file, in the form of the JSON export; `None` if it is something else.

    A file may also hold one annotation with its task inside (as Label Studio writes to a storage), or tasks with their
    regions by name of the control (JSON-MIN).
    """
    items = document if isinstance(document, list) else [document]
    tasks: list[Any] = []
    known = False
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("task"), dict) and "result" in item:
            tasks.append({**item["task"], "annotations": [item]})
            known = True
        elif isinstance(item, dict) and "data" not in item and "annotations" not in item:
            results, rest = [], {}
            for key, value in item.items():
                if isinstance(value, list) and any(isinstance(v, dict) and "original_width" in v for v in value):
                    results += [_from_min(region) for region in value]
                    known = True
                else:
                    rest[key] = value
            urls = {key: value for key, value in rest.items() if isinstance(value, str)}
            tasks.append({"id": rest.get("id"), "data": urls, "annotations": [{"result": results}]})
        else:
            tasks.append(item)
            known = known or (isinstance(item, dict) and isinstance(item.get("data"), dict))
    return tasks if known else None


def _from_min(region: Any) -> Any:
    if not isinstance(region, dict):
        return region
    kind = next((key for key in region if isinstance(key, str) and key.endswith("labels")), "")
    return {
        "type": kind,
        "value": region,
        "original_width": region.get("original_width"),
        "original_height": region.get("original_height"),
        "image_rotation": region.get("image_rotation", 0),
    }


def _photo_name(task: Mapping[str, Any], pictures: Pictures, source: Path) -> str:
    """Return the name of a task's photo, without what Label Studio put before it if that is how it is found.

    Raises:
        KeyError, ValueError: If the task has no photo.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        raise ValueError("it has no 'data'")
    urls = [value for value in data.values() if isinstance(value, str) and _looks_like_photo(value)]
    given = data["image"] if isinstance(data.get("image"), str) else urls[0] if len(urls) == 1 else None
    if given is None:
        raise ValueError("its 'data' names no image" if not urls else f"its 'data' names {len(urls)} images")
    if given.startswith("data:"):
        raise ValueError("its image is embedded ('data:'), which is not read")
    name = _path_of(given)
    last = name.rpartition("/")[2]
    uploaded = _UPLOADED.fullmatch(last)
    candidates = [name, *([uploaded[1]] if uploaded else [])]
    for candidate in candidates:
        found = pictures.named(candidate, source)
        if found:
            # The folders of uploaded files are Label Studio's own, and say nothing of where the photos are.
            own = _UPLOAD_FOLDER.fullmatch(candidate) is not None and pictures.named(last, source) == found
            return last if own else candidate
    # Uploaded files lose what Label Studio does not like in names: blanks become _, most signs vanish.
    plain = [path.name for path in pictures.paths if _upload_name(path.name) in {last, candidates[-1]}]
    return plain[0] if len(plain) == 1 else candidates[-1]


def _looks_like_photo(url: str) -> bool:
    return Path(_path_of(url)).suffix.lower() in PHOTO_SUFFIXES


def _path_of(url: str) -> str:
    """Return the path of a photo that a url names.

    Example:
        >>> _path_of("/data/local-files/?d=photos/a%20b.jpg"), _path_of("s3://bucket/x/a.jpg")
        ('photos/a b.jpg', 'x/a.jpg')
    """
    try:
        parts = urlsplit(url)
        local = parse_qs(parts.query).get("d") if parts.path.rstrip("/").endswith("local-files") else None
        path = local[0] if local else unquote(parts.path if "://" in url or parts.query else url.partition("?")[0])
    except ValueError:
        path = url
    return path.replace("\\", "/").lstrip("/")


def _upload_name(name: str) -> str:
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _results(task: Mapping[str, Any], counts: Counter[str]) -> list[Any] | None:
    """Return the results of a task's one annotation; `None` if it has none that is finished.

    Raises:
        ValueError: If it has several.
    """
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:
        annotations = []
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise ValueError("its 'annotations' are not a list of objects")
    predictions = task.get("predictions")
    counts["predictions"] += len(predictions) if isinstance(predictions, list) else 0
    done = [a for a in annotations if not a.get("was_cancelled")]
    counts["cancelled"] += len(annotations) - len(done)
    if len(done) > 1:
        true = [a for a in done if a.get("ground_truth") is True]
        if len(true) != 1:
            raise ValueError(
                f"it has {len(done)} annotations; keep one in Label Studio, or mark one as the ground truth"
            )
        done = true
    if not done:
        return None
    results = done[0].get("result")
    if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
        raise ValueError("its 'result' is not a list of objects")
    regions = [item for item in results if _kind(item)]
    counts["answers"] += len(results) - len(regions)
    return regions


# ── regions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _kind(item: Mapping[str, Any]) -> str:
    """Return what a result marks: brush, polygon, ellipse, rectangle, ...; empty if it marks no region.

    An answer about a region (choices, a text, ...) repeats its shape, and marks none.
    """
    value, kind = item.get("value"), item.get("type")
    if not isinstance(value, dict) or not isinstance(kind, str):
        return ""
    if not _is_label(kind) and kind.lower() not in _SHAPES and {kind, "text"} & value.keys():
        return ""
    if "rle" in value:
        return "brush"
    kind = kind.lower().removesuffix("labels")
    if kind in _SHAPES:
        return kind
    if "points" in value:
        return "polygon"
    if "radiusX" in value:
        return "ellipse"
    return "rectangle" if {"x", "y", "width", "height"} <= value.keys() else ""


def _is_label(kind: str) -> bool:
    return kind.lower().endswith("labels")


def _labels_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    value = item["value"]
    given = (value.get(item["type"]) if _is_label(item["type"]) else None) or value.get("labels") or []
    return tuple(name.strip() for name in given if isinstance(name, str)) if isinstance(given, list) else ()


def _regions(
    results: Sequence[Mapping[str, Any]], counts: Counter[str]
) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Yield kind, labels and what is needed of each region.

    Shape and label may stand in two results of one id and two types (the tags `Brush` and `Labels`). Of one type they
    are one region written twice, if they are equal, and else two regions.
    """
    together: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for number, item in enumerate(results):
        given = item.get("id")
        key = given if isinstance(given, str) and given else number
        alike = [other["value"] for other in together.get(key, ()) if other.get("type") == item.get("type")]
        if item["value"] in alike:
            counts["repeated"] += 1
        else:
            together[number if alike else key].append(item)
    for items in together.values():
        labels = tuple(dict.fromkeys(label for item in items for label in _labels_of(item)))
        item = next((item for item in items if _labels_of(item)), items[0])
        value = dict(item["value"])
        if isinstance(value.get("rle"), list):
            try:
                value["rle"] = bytes(value["rle"])  # an eighth of the list's memory
            except (TypeError, ValueError):
                value["rle"] = None
        kept = {key: item.get(key) for key in ("original_width", "original_height", "image_rotation")}
        yield _kind(item), labels, {**kept, "value": value}


def _stated(regions: Sequence[tuple[str, Any, Mapping[str, Any]]]) -> Size | None:
    """Return the photo's size that the regions give, if all give one and the same."""
    sizes = {(item["original_height"], item["original_width"]) for _kind, _labels, item in regions
             if isinstance(item["original_height"], int) and isinstance(item["original_width"], int)}  # fmt: skip
    return sizes.pop() if len(sizes) == 1 else None


def _draw(
    payload: Sequence[tuple[str, tuple[str, ...], Mapping[str, Any]]], size: Size, label: str, tally: Tally
) -> tuple[list[Mark], list[tuple[str, str]]]:
    """Turn the regions of one photo into objects; see `listing.Draw`."""
    marks: list[Mark] = []
    faults: list[tuple[str, str]] = []
    boxes: list[tuple[str, list[float], str]] = []
    for number, (kind, names, item) in enumerate(payload):
        where = f"{label}: {kind} region {number + 1}" + (f" ('{', '.join(names)}')" if names else "")
        if item.get("image_rotation"):
            faults.append((_TURNED, f"{where}: image_rotation {str(item['image_rotation'])[:20]}"))
            continue
        if kind in _LINES:
            faults.append((_NO_AREA, where))
            continue
        try:
            if len(names) != 1:
                raise ValueError("it has no label" if not names else "it has several labels")
            stated = (item["original_height"], item["original_width"])
            if stated not in ((None, None), size):
                raise ValueError(
                    f"it was drawn on a photo of {stated[1]} x {stated[0]}, this one is {size[1]} x {size[0]}"
                )
            value = item["value"]
            if kind == "rectangle":
                boxes.append((names[0], _rectangle(value, size), where))
                continue
            if kind == "brush":
                rle = _brush(value, size, label, tally)
            elif kind == "polygon":
                rle = polygons_rle([_polygon(value, size)], size, label, tally)
            elif kind == "ellipse":
                rle = polygons_rle([_ellipse(value, size)], size, label, tally)
            else:
                raise ValueError("a region of this kind is not known")
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            faults.append((_WRONG, f"{where}: {reason}"))
            continue
        if rle is not None:
            marks.append(Mark(names[0], rle))
    around = [(mark.category, pixels.box(mark.rle, size)) for mark in marks]
    for name, box, where in boxes:
        if any(name == of and same_box(box, other) for of, other in around):
            tally.add("boxes of objects that have an outline too, left out", where)
        else:
            faults.append((_BOX, where))
    return marks, faults


def _percent(value: Mapping[str, Any], *keys: str) -> list[float]:
    return numbers([value[key] for key in keys], len(keys), f"its {', '.join(keys)} are not numbers")


def _rectangle(value: Mapping[str, Any], size: Size) -> list[float]:
    """Return the box `x1 y1 x2 y2` in pixels around a rectangle, which turns about its first corner."""
    x, y, width, height = _percent(value, "x", "y", "width", "height")
    turn = math.radians(numbers([value.get("rotation") or 0], 1, "its rotation is not a number")[0])
    w, h = width * size[1] / 100, height * size[0] / 100
    xs = [0.0, w * math.cos(turn), w * math.cos(turn) - h * math.sin(turn), -h * math.sin(turn)]
    ys = [0.0, w * math.sin(turn), w * math.sin(turn) + h * math.cos(turn), h * math.cos(turn)]
    x, y = x * size[1] / 100, y * size[0] / 100
    return [x + min(xs), y + min(ys), x + max(xs), y + max(ys)]


def _polygon(value: Mapping[str, Any], size: Size) -> list[float]:
    wrong = "its points are not pairs of numbers x, y in percent"
    points = value["points"]
    if not isinstance(points, list):
        raise ValueError(wrong)
    pairs = [numbers(point, 2, wrong) for point in points]
    return [v * side / 100 for x, y in pairs for v, side in ((x, size[1]), (y, size[0]))]


def _ellipse(value: Mapping[str, Any], size: Size) -> list[float]:
    x, y, rx, ry = _percent(value, "x", "y", "radiusX", "radiusY")
    turn = numbers([value.get("rotation") or 0], 1, "its rotation is not a number")[0]
    return ellipse(x * size[1] / 100, y * size[0] / 100, rx * size[1] / 100, ry * size[0] / 100, math.radians(turn))


def _brush(value: Mapping[str, Any], size: Size, label: str, tally: Tally) -> bytes | None:
    """Turn a brush mask into an RLE: every pixel whose alpha is above 0, Label Studio's own rule.

    Raises:
        ValueError: If it is none, or of another photo.
    """
    data = value["rle"]
    if not isinstance(data, bytes):
        raise ValueError("its rle is not a list of bytes")
    alpha = unpack(data, 4 * size[0] * size[1])[3::4].reshape(size)
    mask = alpha > 0
    if not mask.any():
        tally.add("objects without a pixel, left out", label)
        return None
    if (alpha[mask] != alpha.max()).any():
        tally.add("brush masks with soft edges, every touched pixel kept", label)
    return pixels.encode(mask)


def unpack(data: bytes, count: int) -> NDArray[np.uint8]:
    """Unpack the run-length code of Label Studio's brush (the `rle-pack` of thi.ng/umbrella).

    A stream of bits, the highest of each byte first: 32 bits count of values, 5 bits word size less 1, four times 4
    bits the sizes of run lengths less 1; then runs: 1 bit whether one value is repeated, 2 bits which size of run
    length, the run length less 1, and one value (repeated) or as many as the run is long.

    Args:
        data: The bytes.
        count: How many values there must be.

    Returns:
        `(count,)` uint8.

    Raises:
        ValueError: If it is cut off, or holds another number of values.
    """
    bits = 8 * len(data)
    if bits < 53:
        raise ValueError("its rle is cut off")
    total = int.from_bytes(data[:4])
    if total != count:
        raise ValueError(f"its rle has {total:,} values, the photo has {count // 4:,} pixels of 4")
    word = (data[4] >> 3) + 1
    if word > 8:
        raise ValueError(f"its rle has values of {word} bits; 8 are read")
    sizes = [((int.from_bytes(data[4:7]) >> (15 - 4 * k)) & 15) + 1 for k in range(4)]
    padded = data + bytes(8)
    out = np.zeros(count, dtype=np.uint8)
    place, at = 53, 0
    while at < count:
        if place >= bits:
            raise ValueError("its rle is cut off")
        # 64 bits from the byte at which the run starts: its head and one value have at most 7 + 3 + 16 + 8 of them.
        start = place >> 3
        window = int.from_bytes(padded[start : start + 8])
        left = 61 - (place & 7)
        length_bits = sizes[(window >> left) & 3]
        repeated = (window >> (left + 2)) & 1
        left -= length_bits
        length = ((window >> left) & ((1 << length_bits) - 1)) + 1
        place += 3 + length_bits
        if at + length > count:
            raise ValueError("its rle runs beyond the photo")
        end = place + (word if repeated else word * length)
        if end > bits:
            raise ValueError("its rle is cut off")
        if length == 1:
            out[at] = (window >> (left - word)) & ((1 << word) - 1)
        elif repeated:
            out[at : at + length] = (window >> (left - word)) & ((1 << word) - 1)
        else:
            stream = np.unpackbits(np.frombuffer(data[place >> 3 : (end + 7) >> 3], dtype=np.uint8))
            values = stream[place & 7 : (place & 7) + word * length].reshape(length, word)
            out[at : at + length] = np.packbits(values, axis=1)[:, 0] >> (8 - word)
        place = end
        at += length
    return out
