"""The pixels of Pascal VOC masks, and the lists that name their classes.

Value 0 is ground and 255 is the border that belongs to nobody. Tools store the values as palette indices, as grey
values, or as the colours of VOC's colour map or of a list of classes; all are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskwright.errors import Problem, UserError
from maskwright.files import UnreadableImage, sha256
from maskwright.formats import plural, some
from maskwright.formats.photos import Sight, sight
from maskwright.formats.planes import Item, Plane, hex_colour, may_scale, pack, read_plane, scaled
from maskwright.formats.runs import FRAYED, is_frayed, objects_of_ids, part_rles
from maskwright.pixels import Size
from maskwright.settings import MaskFrame

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The names of VOC's classes 1 to 20."""

VOID = 255
"""The value of pixels that belong to nobody."""

MOST = 254
"""So many objects fit between ground and void."""

GROUND_NAMES = frozenset({"background", "_background_"})
VOID_NAMES = frozenset({"void", "ignore", "ignored", "__ignore__"})
LABEL_FILES = ("labelmap.txt", "class_names.txt")
CLEAR = 0.9
"""An object's class must lie under at least this share of its pixels."""

_MOST_LISTED = 20_000_000  # bytes of a list of photos


def colour_map() -> NDArray[np.uint8]:
    """Return VOC's 256 colours, `(256, 3)` RGB uint8: the bits of the index, spread over the channels from the top.

    Example:
        >>> colour_map()[[0, 1, 15, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for channel in range(3):
        for step in range(8):
            colours[:, channel] |= (((index >> (3 * step + channel)) & 1) << (7 - step)).astype(np.uint8)
    return colours


@dataclass(frozen=True)
class Label:
    """A line of a list of classes: its name, and its packed colour, if one is given."""

    name: str
    colour: int | None


@dataclass(frozen=True)
class Seen:
    """What one look at a photo and its masks found.

    Attributes:
        photo: The photo.
        size: `(height, width)` of the masks as stored, if there are any.
        faults: What is wrong with them: file and words.
        objects: RLE of each object, and how many of its pixels have which class (0 ground, -1 void, else from 1).
        void: Pixels of nobody.
        loose: Pixels that have a class but belong to no object.
        as_voc: The class image is in the colours of VOC's colour map.
        hashes: SHA-256 of each mask image.
    """

    photo: Sight
    size: Size | None = None
    faults: tuple[tuple[str, str], ...] = ()
    objects: tuple[tuple[bytes, tuple[tuple[int, int], ...]], ...] = ()
    void: int = 0
    loose: int = 0
    as_voc: bool = True
    hashes: tuple[str, ...] = ()


def text_of(path: Path) -> str:
    """Read a short text file.

    Raises:
        UserError: If it cannot be read, is not UTF-8, or is far too long.
    """
    try:
        if path.stat().st_size > _MOST_LISTED:
            raise UserError("a text file is far too long for what it should hold", [str(path)], "check the file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("a text file is not in UTF-8", [str(path)], "save it as UTF-8") from None
    except OSError as error:
        raise UserError("the file cannot be read", [f"{path}: {error.strerror}"], "check the path") from None


def is_no_class(name: str) -> bool:
    """Tell whether a listed name means ground or void."""
    return name.lower() in GROUND_NAMES | VOID_NAMES


def read_labels(path: Path) -> tuple[tuple[Label, ...], list[Problem]]:
    """Read the classes that a file lists, in the order of their values from 0, and what is wrong with the list."""
    labels, bad = [], []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            labels.append(_label(line))
        except ValueError as error:
            bad.append(f"{path}, line {number}: {error}")
    bad += [f"{path}: '{name}' stands twice" for name, n in Counter(label.name for label in labels).items() if n > 1]
    colours = Counter(label.colour for label in labels if label.colour is not None)
    bad += [f"{path}: the colour {hex_colour(colour)} stands twice" for colour, n in colours.items() if n > 1]
    labels = [label for label in labels if label.name != "__ignore__"]  # labelme counts it as value -1
    if not any(label.name.lower() in GROUND_NAMES for label in labels):
        labels.insert(0, Label("background", 0 if 0 not in colours else None))
    fix = "write a line 'name:red,green,blue::' per class"
    return tuple(labels), [Problem("the list of classes cannot be read", tuple(bad), fix)] if bad else []


def _label(line: str) -> Label:
    """Read `name:red,green,blue:parts:actions`, of which all but the name may be absent."""
    parts = line.strip().rsplit(":", 3)
    if len(parts) == 4:
        name, colour = parts[0], parts[1]
    elif len(parts) == 2 and re.fullmatch(r"[\d\s,]+", parts[1]):
        name, colour = parts
    else:
        name, colour = line, ""
    name = name.strip()
    if not name:
        raise ValueError("a class without a name")
    if not colour.strip():
        return Label(name, None)
    numbers = [int(value) if value.strip().isdecimal() else -1 for value in colour.split(",")]
    if len(numbers) != 3 or not all(0 <= value <= 255 for value in numbers):
        raise ValueError(f"'{colour}' is no colour red,green,blue of 0 to 255")
    return Label(name, (numbers[0] << 16) | (numbers[1] << 8) | numbers[2])


def look(item: Item, labels: tuple[Label, ...] | None, of_objects: bool, resize: bool, frame: MaskFrame) -> Seen:
    """Read one photo with its masks; what is wrong with them is in the answer."""
    photo = sight(item.photo, frame)
    if not item.masks:
        return Seen(photo)
    planes: list[Plane] = []
    hashes: tuple[str, ...] = ()
    as_voc = True
    for number, path in enumerate(item.masks):
        try:
            plane, palette = read_plane(path)
            if number == 0 and of_objects:
                planes.append(_object_values(plane, palette))
            else:
                values, as_voc = _class_values(plane, palette, labels)
                planes.append(values)
            hashes = (*hashes, sha256(path))
        except UnreadableImage as error:
            return Seen(photo, faults=((str(path), str(error)),))
    size = (int(planes[0].shape[0]), int(planes[0].shape[1]))
    if planes[-1].shape != planes[0].shape:
        words = f"is {planes[-1].shape[1]} x {planes[-1].shape[0]}, its object image is {size[1]} x {size[0]}"
        return Seen(photo, faults=((str(item.masks[-1]), words),))
    if resize and not photo.fault and may_scale(size, photo):
        planes = [scaled(plane, photo.size) for plane in planes]
    shape = (int(planes[0].shape[0]), int(planes[0].shape[1]))
    if not of_objects:
        classes = planes[0]
        regions = objects_of_ids(np.maximum(classes, 0))
        if any(is_frayed(rle) for _, rle in regions):
            return Seen(photo, faults=((str(item.masks[0]), FRAYED),))
        parts = tuple((part, ((key, 1),)) for key, rle in regions for part in part_rles(rle, shape))
        return Seen(photo, size, (), parts, int((classes < 0).sum()), 0, as_voc, hashes)
    numbers = planes[0]
    void = numbers < 0
    votes: dict[int, list[tuple[int, int]]] = {}
    loose = 0
    if len(planes) > 1:
        classes = planes[1]
        void = void | ((numbers == 0) & (classes < 0))
        loose = int(((numbers == 0) & (classes > 0)).sum())
        inside = numbers > 0
        joint, counts = np.unique((numbers[inside].astype(np.int64) << 20) | (classes[inside] + 1), return_counts=True)
        for value, count in zip(joint.tolist(), counts.tolist(), strict=True):
            votes.setdefault(value >> 20, []).append(((value & 0xFFFFF) - 1, count))
    objects = tuple(
        (rle, tuple(sorted(votes.get(value, ()), key=lambda vote: -vote[1])))
        for value, rle in objects_of_ids(np.maximum(numbers, 0))
    )
    return Seen(photo, size, (), objects, int(void.sum()), loose, as_voc, hashes)


def _used(plane: Plane) -> NDArray[np.int64]:
    return np.flatnonzero(np.bincount(plane.ravel(), minlength=256)).astype(np.int64)


def _looked_up(plane: Plane, table: Mapping[int, int], what: str) -> NDArray[np.int32]:
    """Replace packed colours by values.

    Raises:
        UnreadableImage: If there are colours that the table does not have.
    """
    found, places, counts = np.unique(plane, return_inverse=True, return_counts=True)
    lost = [(hex_colour(c), n) for c, n in zip(found.tolist(), counts.tolist(), strict=True) if c not in table]
    if lost:
        pixels_lost = sum(n for _, n in lost)
        raise UnreadableImage(
            f"{plural(len(lost), 'colour')} that {what} not have ({some(colour for colour, _ in lost)};"
            f" {plural(pixels_lost, 'pixel')})"
        )
    values = np.array([table[c] for c in found.tolist()], dtype=np.int32)
    return np.asarray(values[places].reshape(plane.shape), dtype=np.int32)


def _voc_table() -> dict[int, int]:
    table = {int(colour): index for index, colour in enumerate(pack(colour_map()).tolist())}
    table[pack(colour_map())[VOID].item()] = -1
    return table


def _as_indices(plane: Plane) -> NDArray[np.int32]:
    values = plane.astype(np.int32)
    values[values == VOID] = -1
    return values


def _matches(plane: Plane, palette: Plane) -> tuple[bool, bool]:
    """Tell whether a palette is VOC's, and whether it is grey, as far as its entries are used (void aside)."""
    used = _used(plane)
    used = used[(used != VOID) & (used < len(palette))]
    colours = palette[used]
    return bool((colours == colour_map()[used]).all()), bool((colours == colours[:, :1]).all())


def _object_values(plane: Plane, palette: Plane | None) -> NDArray[np.int32]:
    """Return object numbers, 0 for ground and -1 for void."""
    if palette is None:
        return _as_indices(plane)
    if len(palette) == 0:
        return _looked_up(plane, _voc_table(), "VOC's colour map does")
    by_colour = _by_colour(plane, palette, _voc_table())
    return _as_indices(plane) if by_colour is None else by_colour


def _by_colour(
    plane: Plane, palette: Plane, table: Mapping[int, int], *, voc_too: bool = False
) -> NDArray[np.int32] | None:
    """Read a palette image by its colours; `None` if its numbers say it: VOC's palette, grey, or unknown colours."""
    as_voc, grey = _matches(plane, palette)
    if (as_voc and not voc_too) or grey or int(plane.max(initial=0)) >= len(palette):
        return None
    packed = pack(palette)
    if any(int(packed[index]) not in table for index in _used(plane).tolist()):
        return None
    return _looked_up(packed[plane], table, "the palette does")


def _class_values(
    plane: Plane, palette: Plane | None, labels: tuple[Label, ...] | None
) -> tuple[NDArray[np.int32], bool]:
    """Return class numbers, and whether they are in VOC's colours.

    The numbers are 0 for ground, -1 for void, else the place in the list + 1, or VOC's number if there is no list.
    """
    keys = np.arange(0, 257)
    coloured, where = _voc_table(), "VOC's colour map does"
    if labels is not None:
        keys = np.array([_key(number, label) for number, label in enumerate(labels)])
        coloured = {0: 0, int(pack(colour_map())[VOID]): -1}
        coloured |= {label.colour: int(k) for label, k in zip(labels, keys, strict=True) if label.colour is not None}
        where = "the list of classes does"
    if palette is not None and len(palette) == 0:
        return _looked_up(plane, coloured, where), labels is None
    # With a list of classes VOC's palette too is read by the colours: the list may have them in another order.
    by_colour = None if palette is None else _by_colour(plane, palette, coloured, voc_too=labels is not None)
    if by_colour is not None:
        return by_colour, labels is None
    values = _as_indices(plane)
    top = int(values.max(initial=0))
    if labels is None:
        return values, palette is not None and _matches(plane, palette)[0]
    if top >= len(keys):
        raise UnreadableImage(f"has the class {top}, the list of classes ends at {len(keys) - 1}")
    return np.where(values < 0, -1, keys[np.maximum(values, 0)]).astype(np.int32), False


def _key(number: int, label: Label) -> int:
    if label.name.lower() in GROUND_NAMES:
        return 0
    return -1 if label.name.lower() in VOID_NAMES else number + 1
