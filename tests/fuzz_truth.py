"""What is in the inputs of `fuzz_world`, said without any reader, and which part of it a damage did not touch.

An input is seen as its photos, each with its entries: what stands for one object, be it an annotation, a line or a mask
file. An entry that the damage left as it was must give the object that it stood for, whatever became of the others.
"""

import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image as Picture

from fuzz_world import LARGE, NAMES, SIZE, squares

LEAST_IOU = 0.97
"""JPEG mixes the colours at edges; so much of an object is kept, as `test_formats_colours` has it for its qualities."""


class Thing(NamedTuple):
    """An object: its category, whether it is a crowd, the mask's shape and its pixels."""

    category: str
    crowd: bool
    shape: tuple[int, int]
    pixels: bytes

    @property
    def mask(self) -> np.ndarray:
        return np.frombuffer(self.pixels, dtype=bool).reshape(self.shape)


def thing(category: str, mask: np.ndarray, crowd: bool = False) -> Thing:
    return Thing(category, crowd, (mask.shape[0], mask.shape[1]), mask.astype(bool).tobytes())


# ── what is in the inputs ────────────────────────────────────────────────────────────────────────────────────────────


def block(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def _both(number: int) -> list[Thing]:
    return [thing(name, mask) for name, mask in zip(("bolt", "nut"), squares(number), strict=True)]


def _of(category: str, objects: int = 1) -> Callable[[int], list[Thing]]:
    return lambda number: [thing(category, mask) for mask in squares(number, objects)]


def _coco_polygons(number: int) -> list[Thing]:
    y = 2 + number
    return [thing("bolt", block(2, y, 11, y + 9)), thing("nut", block(16, y, 25, y + 9))]


def _coco_uncompressed(number: int) -> list[Thing]:
    bolt, nut = squares(number)
    return [thing("bolt", bolt), thing("nut", nut, crowd=True)]


def _cvat(number: int) -> list[Thing]:
    y = 2 + number
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + 3, 16:19] = [[0, 1, 1], [1, 0, 0], [1, 1, 0]]
    return [thing("bolt", block(2, y, 11, y + 9)), thing("nut", mask)]


def _label_studio(number: int) -> list[Thing]:
    return [thing("bolt", block(2, 3 * number, 16, 18)), thing("nut", block(18, 3 * number, 28, 18))]


def _colours_jpeg(number: int) -> list[Thing]:
    large = (np.kron(mask, np.ones((LARGE, LARGE), dtype=np.uint8)) for mask in squares(number))
    return [thing(name, mask) for name, mask in zip(("bolt", "nut"), large, strict=True)]


_OBJECTS: dict[str, Callable[[int], list[Thing]]] = {
    "folders": _of("object"),
    "folders, ids": _of("object", 2),
    "folders, splits": _of("nut"),
    "same-folder": _of("object"),
    "coco, polygons": _coco_polygons,
    "coco, uncompressed": _coco_uncompressed,
    "via": _coco_polygons,
    "via, version 1": _coco_polygons,
    "via, project": _coco_polygons,
    "cvat": _cvat,
    "label-studio": _label_studio,
    "colours, jpeg": _colours_jpeg,
    "trimap": _of("object"),
}
"""What a photo of an input holds, by its number from 1; the others hold the two squares."""


def truth(name: str) -> dict[str, list[Thing]]:
    """Return the objects of each photo of an input, in the order of its entries."""
    make = _OBJECTS.get(name, _both)
    if name == "folders, splits":
        return {f"nut_{split}": make(number) for number, split in enumerate(("train", "val"))}
    return {photo: make(number) for number, photo in enumerate(NAMES, 1)}


def is_lossy(name: str) -> bool:
    return name == "colours, jpeg"


def beside_truth(name: str, found: Mapping[str, list[Thing]]) -> list[str]:
    """Hold what was read of an undamaged input against what it was written from; returns what differs."""
    wanted = truth(name)
    if found.keys() != wanted.keys():
        return [f"photos {sorted(found)}, not {sorted(wanted)}"]
    wrong = []
    for photo, things in wanted.items():
        if is_lossy(name):
            left = list(things)
            for one in found[photo]:
                near = [other for other in left if other[:3] == one[:3] and _iou(one, other) >= LEAST_IOU]
                if not near:
                    wrong.append(f"{photo}: {_words(one)} is none of its objects")
                else:
                    left.remove(near[0])
            wrong += [f"{photo}: {_words(one)} is not there" for one in left]
        else:
            wrong += _differences(photo, Counter(things), Counter(found[photo]))
    return wrong


def _iou(one: Thing, other: Thing) -> float:
    return float((one.mask & other.mask).sum() / (one.mask | other.mask).sum())


def _differences(photo: str, wanted: Counter[Thing], found: Counter[Thing], fresh: int = 0) -> list[str]:
    """Return what differs where so many objects more than are wanted may be there."""
    wrong = [f"{photo}: {_words(one)} is not there" for one in (wanted - found).elements()]
    extra = list((found - wanted).elements())
    if len(extra) > fresh:
        wrong += [f"{photo}: {_words(one)} is there (for {fresh} damaged entries)" for one in extra]
    return wrong


def _words(one: Thing) -> str:
    ys, xs = np.nonzero(one.mask)
    crowd = "crowd of " if one.crowd else ""
    return f"{crowd}{one.category!r} of {len(xs)} pixels from {xs.min()}, {ys.min()} to {xs.max()}, {ys.max()}"


# ── what the damage did not touch ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Portion:
    """What an input says of one photo: the entries of its objects, and all else that bears on them.

    `spare` is how many objects more its entries may give, as a mask image that was painted anew in many values does
    where they are read as numbers of objects.
    """

    entries: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    spare: int = 0


@dataclass
class Portions:
    """What an input says of each photo, and of all; `broken` is the document of all photos if it is no JSON or XML."""

    photos: dict[str, Portion]
    shared: list[str]
    broken: str = ""


def owner(path: str | PurePosixPath) -> str:
    """Return the photo that a file belongs to by its name; empty: to none, or to all."""
    path = PurePosixPath(path)
    first = path.parts[0] if len(path.parts) > 1 else ""
    if first in NAMES or first.startswith("nut_"):
        return first
    stem = path.stem.partition("_")[0]
    return stem if stem in NAMES else ""


def portions(name: str, root: Path) -> Portions:
    """Take an input apart, without the readers' help."""
    photos: dict[str, Portion] = defaultdict(Portion)
    result = Portions(photos, [])
    taken = _TAKE.get(name.partition(",")[0], {})
    for path, content in _contents(root):
        photo = owner(path)
        take = next((f for end, f in taken.items() if path.endswith(end)), None)
        if take is None or content is None:
            said = f"{path}: {_digest(content)}"
            (photos[photo].context if photo else result.shared).append(said)
            continue
        try:
            take(result, photo, path, content)
        except (ValueError, RecursionError, ElementTree.ParseError):
            if photo:
                photos[photo].context.append(f"{path}: {_digest(content)}")
            else:
                result.broken = path
    if is_lossy(name):  # which of the listed colours is nearest to a pixel depends on all of the list
        for portion in photos.values():
            portion.context += result.shared
    return Portions(dict(photos), sorted(result.shared), result.broken)


def _contents(root: Path) -> Iterable[tuple[str, bytes | None]]:
    """Yield every file of an input and what is in it; of what is no plain file, nothing."""
    for place, names, files in os.walk(root):
        names.sort()  # so that entries always come in the order of their objects
        for one in sorted([*names, *files]):
            path = Path(place) / one
            if path.is_file() or path.is_symlink():
                yield path.relative_to(root).as_posix(), None if path.is_symlink() else path.read_bytes()


def _digest(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _rows(value: Any) -> list[dict]:
    """Return the objects of a list, or of an object, of JSON."""
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return [item for item in items if isinstance(item, dict)]


def _named(value: Any) -> str:
    return owner(value) if isinstance(value, str) and value else ""


def _same(one: Any, other: Any) -> bool:
    """Tell whether two ids are one: whole numbers, not truth values."""
    return isinstance(one, int | float) and not isinstance(one, bool) and type(other) is int and one == other


def _take_coco(result: Portions, _photo: str, _path: str, content: bytes) -> None:
    document = json.loads(content)
    document = document if isinstance(document, dict) else {}
    images, rows, categories = (_rows(document.get(key)) for key in ("images", "annotations", "categories"))
    for image in images:
        portion = result.photos[_named(image.get("file_name"))]
        portion.context.append(_text(image))
        for row in rows:
            if _same(row.get("image_id"), image.get("id")):
                kinds = [item for item in categories if _same(row.get("category_id"), item.get("id"))]
                portion.entries.append(_text([row, kinds]))


def _take_via(result: Portions, _photo: str, _path: str, content: bytes) -> None:
    document = json.loads(content)
    if isinstance(document, dict) and "_via_img_metadata" in document:
        document = document["_via_img_metadata"]
    for item in _rows(document):
        portion = result.photos[_named(item.get("filename"))]
        portion.context.append(_text({key: value for key, value in item.items() if key != "regions"}))
        portion.entries += [_text(region) for region in _rows(item.get("regions"))]


def _take_cvat(result: Portions, _photo: str, _path: str, content: bytes) -> None:
    for image in ElementTree.fromstring(content).findall("image"):
        portion = result.photos[_named(image.get("name"))]
        portion.context.append(_text(image.attrib))
        portion.entries += [_text(_element(shape)) for shape in image]


def _element(shape: ElementTree.Element) -> list:
    return [shape.tag, shape.attrib, (shape.text or "").strip(), [_element(inner) for inner in shape]]


def _take_label_studio(result: Portions, _photo: str, _path: str, content: bytes) -> None:
    for task in _rows(json.loads(content)):
        data = task.get("data")
        url = data.get("image") if isinstance(data, dict) else None
        portion = result.photos[_named(url.rpartition("/")[2].partition("-")[2]) if isinstance(url, str) else ""]
        given = task.get("annotations")
        annotations = [{key: v for key, v in one.items() if key != "result"} for one in _rows(given)]
        portion.context.append(_text({**task, "annotations": annotations if isinstance(given, list) else given}))
        portion.entries += [_text(region) for one in _rows(given) for region in _rows(one.get("result"))]


def _take_labelme(result: Portions, photo: str, _path: str, content: bytes) -> None:
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("no labelme file")
    result.photos[photo].context.append(_text({key: value for key, value in document.items() if key != "shapes"}))
    result.photos[photo].entries += [_text(shape) for shape in _rows(document.get("shapes"))]


def _take_lines(result: Portions, photo: str, path: str, content: bytes) -> None:
    if not path.startswith("labels/"):
        raise ValueError("no labels")
    result.photos[photo].entries += [line for line in content.decode().split("\n") if line.strip()]


def _take_file(result: Portions, photo: str, path: str, content: bytes) -> None:
    if photo:
        result.photos[photo].entries.append(f"{path}: {_digest(content)}")
    else:
        result.shared.append(f"{path}: {_digest(content)}")


def _take_mask(result: Portions, photo: str, path: str, content: bytes) -> None:
    _take_file(result, photo, path, content)
    try:
        with Picture.open(io.BytesIO(content)) as image:
            plane = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Picture.DecompressionBombError):
        return
    colours = np.unique(plane.reshape(plane.shape[0] * plane.shape[1], -1), axis=0)
    result.photos[photo].spare += max(len(colours) - 1 - bool((colours == 0).all(axis=1).any()), 0)


def _take_colours(result: Portions, _photo: str, path: str, content: bytes) -> None:
    """Take apart our list of colours, which says of each mask what its colours are."""
    document = json.loads(content)
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        result.shared.append(f"{path}: {_digest(content)}")
        return
    for file, colours in files.items():
        result.photos[_named(file)].context.append(_text(colours))
    result.shared.append(_text({key: value for key, value in document.items() if key != "files"}))


_TAKE: dict[str, dict[str, Callable[[Portions, str, str, bytes], None]]] = {
    "coco": {".json": _take_coco},
    "via": {".json": _take_via},
    "cvat": {".xml": _take_cvat},
    "label-studio": {".json": _take_label_studio},
    "labelme": {".json": _take_labelme},
    "yolo": {".txt": _take_lines},
    "instance-files": {".png": _take_file},
    "instance-folders": {".png": _take_file},
    "category-folders": {".png": _take_mask},
    "colours": {".json": _take_colours},
}
"""How files that speak of several objects are taken apart, by their ending; others stand for one photo, or for all."""


# ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────────


def beside_undamaged(
    things: Mapping[str, list[Thing]],
    before: Portions,
    after: Portions,
    found: Iterable[tuple[str, list[Thing]]],
    left_out: Iterable[str],
    counted: int,
) -> list[str]:
    """Hold what was read of a damaged input against what was read of it before; returns what is wrong.

    Args:
        things: The objects of each photo before the damage, in the order of its entries if it has any.
        before: The input before the damage.
        after: The input that was read.
        found: The photos of the dataset that was made of it, with their objects.
        left_out: The photos of which the dataset says that they are not in it.
        counted: How many objects it says to have left out or joined.
    """
    if after.broken:
        return [f"{after.broken} is neither JSON nor XML, and yet a dataset was made"]
    wrong: list[str] = []
    have: dict[str, list[list[Thing]]] = defaultdict(list)
    for photo, objects in found:
        have[photo].append(objects)
    missing = 0
    for photo, wanted in things.items():
        old, new = before.photos[photo], after.photos.get(photo, Portion())
        if sorted(new.context) != sorted(old.context):
            continue  # the damage is in what bears on all of its objects
        if not have[photo]:
            if photo not in left_out:
                wrong.append(f"{photo}: it is untouched, and gone without a word")
            continue
        if len(have[photo]) > 1:
            wrong.append(f"{photo}: it is untouched, and stands {len(have[photo])} times")
        standing = Counter(new.entries) & Counter(old.entries)
        fresh = len(new.entries) - standing.total() + new.spare
        kept = list(wanted)
        if old.entries:
            kept = []
            for entry, one in zip(old.entries, wanted, strict=True):
                if standing[entry]:
                    standing[entry] -= 1
                    kept.append(one)
        now = have[photo][0]
        if before.shared != after.shared:  # names of categories may be others; pixels may not
            kept, now = ([one._replace(category="") for one in some] for some in (kept, now))
        wrong += _differences(photo, Counter(kept), Counter(now), fresh)
        missing += max(len(new.entries) - len(now), 0)
    if missing > counted:
        wrong.append(f"{missing} entries gave no object, and {counted} are counted")
    return wrong
