"""The rows of the output: what of a photo stands in the annotation file, and what in `prepare.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from maskwright.dataset import SPLITS, Annotation, Image
from maskwright.formats import Mark, Photo
from maskwright.formats.runs import part_rles
from maskwright.formats.shelf import Pack
from maskwright.survey import NAMINGS
from maskwright.writing import image_row, object_row


class Rules(NamedTuple):
    """How rows are made.

    Attributes:
        naming: Which of `NAMINGS` gives photos their names.
        separate: Whether each connected part of a mask is an object.
        id_of: The id of each category, by name.
    """

    naming: int
    separate: bool
    id_of: Mapping[str, int]


class Task(NamedTuple):
    """Some photos whose rows are wanted.

    Attributes:
        photos: Which.
        splits: The position of each one's split in `SPLITS`.
        firsts: The id of the first photo of each split.
    """

    photos: Pack[Photo]
    splits: bytes
    firsts: tuple[int, ...]


@dataclass
class Rows:
    """The rows of some photos.

    Attributes:
        images: By split, the rows of the photos in the annotation file.
        objects: By split and photo, the rows of the objects, without their ids.
        fates: The lines of `prepare.json`.
        places: Where each photo goes, in the output folder, and where it is.
        masks: How many masks were read, before they were separated.
        categories: How many there are of each category.
        bare: By split, how many photos have no object.
    """

    images: list[list[bytes]] = field(default_factory=lambda: [[] for _ in SPLITS])
    objects: list[list[list[bytes]]] = field(default_factory=lambda: [[] for _ in SPLITS])
    fates: list[str] = field(default_factory=list)
    places: list[tuple[str, str]] = field(default_factory=list)
    masks: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    bare: list[int] = field(default_factory=lambda: [0] * len(SPLITS))


def rows_of(rules: Rules, task: Task) -> Rows:
    """Make the rows of some photos."""
    rows = Rows()
    naming = NAMINGS[rules.naming]
    next_id = list(task.firsts)
    for photo, n in zip(task.photos.values(), task.splits, strict=True):
        name, path = naming(photo), str(photo.path)
        marks = separate(photo) if rules.separate else photo.marks
        image = Image(next_id[n], name, width=photo.size[1], height=photo.size[0])
        next_id[n] += 1
        rows.images[n].append(image_row(image))
        rows.objects[n].append(
            [
                object_row(Annotation(0, image.id, rules.id_of[mark.category], mark.rle, crowd=mark.crowd), image.size)
                for mark in marks
            ]
        )
        place = f"{SPLITS[n]}/{name}"
        rows.places.append((place, path))
        rows.masks += len(photo.marks)
        rows.categories.update(mark.category for mark in photo.marks)
        rows.bare[n] += not photo.marks
        rows.fates.append(
            f'{{"file": {quoted(path)}, "kind": "photo", "fate": "used", "as": {quoted(place)},'
            f' "width": {image.width}, "height": {image.height}, "objects": {len(photo.marks)},'
            f' "sha256": {quoted(photo.sha256)}}}'
        )
        rows.fates += [
            f'{{"file": {quoted(str(mask))}, "kind": "mask", "fate": "used", "of": {quoted(path)},'
            f' "sha256": {quoted(digest)}}}'
            for mask, digest in photo.masks
        ]
    return rows


def separate(photo: Photo) -> tuple[Mark, ...]:
    """Make each connected part of a photo's masks an object; crowds stay whole."""
    marks: list[Mark] = []
    for mark in photo.marks:
        marks += [mark] if mark.crowd else [Mark(mark.category, rle) for rle in part_rles(mark.rle, photo.size)]
    return tuple(marks)
