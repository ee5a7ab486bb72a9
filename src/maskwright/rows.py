"""The rows of the output: what of a photo stands in the annotation file, and what in `prepare.json`.

They are written as text here, since there may be millions; what they must be is said by `objects.coco_image`,
`objects.coco_annotation` and the tests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from json.encoder import encode_basestring as quoted
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.formats import Mark, Photo, Tally
from maskwright.formats.runs import part_rles
from maskwright.formats.shelf import Pack, Singly, unpacked
from maskwright.objects import SPLITS
from maskwright.scratch import Column
from maskwright.survey import NAMINGS, Survey


class Rules(NamedTuple):
    """How rows are made.

    Attributes:
        naming: Which of `NAMINGS` gives photos their names.
        separate: Whether each connected part of a mask is an object.
        id_of: The id of each category, by name.
        shard: How many photos an annotation file has; `None`: all of a split.
    """

    naming: int
    separate: bool
    id_of: Mapping[str, int]
    shard: int | None


class Numbered(NamedTuple):
    """A photo whose rows are wanted.

    Attributes:
        pack: Where it is,
        place: and its place there.
        split: The position of its split in `SPLITS`.
        id: Its id in the annotation file of the split.
        first: The id of its first object.
    """

    pack: Pack[Photo]
    place: int
    split: int
    id: int
    first: int


class AllNumbered:
    """Gives every photo, and every object, its id: in each split from 1, in order."""

    def __init__(self, photos: Collection[Photo], survey: Survey, splits: NDArray[np.int8]) -> None:
        self._photos, self._survey, self._splits = photos, survey, splits

    def __length_hint__(self) -> int:
        return len(self._photos)

    def __iter__(self) -> Iterator[Numbered]:
        """Yield the photos in order."""
        ids, firsts = [1] * len(SPLITS), [1] * len(SPLITS)
        for (pack, place), split, objects in zip(
            Singly(self._photos), _few_by_few(self._splits), _few_by_few(self._survey.objects), strict=True
        ):
            yield Numbered(pack, place, split, ids[split], firsts[split])
            ids[split] += 1
            firsts[split] += objects


def _few_by_few(numbers: NDArray[Any] | Column) -> Iterator[int]:
    """Yield whole numbers, of which only some are in memory at a time."""
    for start in range(0, len(numbers), 4096):
        yield from numbers[start : start + 4096].tolist()


class Block(NamedTuple):
    """Photos, one after the other in one annotation file.

    Attributes:
        split: The position of its split in `SPLITS`.
        photos: How many.
        objects: How many objects they have.
        bare: How many have none.
        image_rows: The photos as they stand in the file, with commas between them.
        object_rows: Their objects in the same way.
    """

    split: int
    photos: int
    objects: int
    bare: int
    image_rows: bytes
    object_rows: bytes


@dataclass
class Rows:
    """The rows of some photos.

    Attributes:
        blocks: What the annotation files get.
        fates: The lines of `prepare.json`, with commas between them.
        places: Where in the output folder the photos go,
        paths: and where they are.
        folders: Those that the photos and their mask images are in.
        masks: How many masks were read, before they were separated.
        categories: How many there are of each category.
        mends: What was put right in them.
        soft: The mask images whose area depends on the cut: the share cut off, the photo's place, the mask image.
    """

    blocks: list[Block] = field(default_factory=list)
    fates: str = ""
    places: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    masks: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    mends: Tally = field(default_factory=Tally)
    soft: list[tuple[float, str, str]] = field(default_factory=list)


class _Named(NamedTuple):
    numbers: Numbered
    photo: Photo
    marks: tuple[Mark, ...]
    name: str


def rows_of(rules: Rules, numbered: list[Numbered]) -> Rows:
    """Make the rows of some photos."""
    naming = NAMINGS[rules.naming]
    named = []
    mends = Tally()
    for numbers, found in zip(numbered, unpacked((one.pack, one.place) for one in numbered), strict=True):
        if found.turn != 1 and found.marks:
            mends.add(TURNED, found.name)
        photo = upright(found)
        marks = separate(photo) if rules.separate else photo.marks
        named.append(_Named(numbers, photo, marks, naming(photo)))
    rows = Rows(
        places=[f"{SPLITS[one.numbers.split]}/{one.name}" for one in named],
        paths=[one.photo.file for one in named],
        mends=mends,
    )

    def file(one: _Named) -> tuple[int, int]:
        return one.numbers.split, 0 if rules.shard is None else (one.numbers.id - 1) // rules.shard

    for _, some in groupby(sorted(named, key=file), key=file):
        rows.blocks.append(_block(list(some), rules.id_of))
    fates = []
    for one, place in zip(named, rows.places, strict=True):
        photo = one.photo
        rows.masks += len(photo.marks)
        rows.categories.update(mark.category for mark in photo.marks)
        path = quoted(photo.file)
        fates.append(
            f'{{"file": {path}, "kind": "photo", "fate": "used", "as": {quoted(place)}, "width": {photo.size[1]},'
            f' "height": {photo.size[0]}, "objects": {len(photo.marks)}, "sha256": {quoted(photo.sha256)}}}'
        )
        rows.folders.update(map(os.path.dirname, (photo.file, *(mask for mask, _ in photo.masks))))
        rows.soft += [(share, place, mask) for mask, share in photo.soft]
        weak = {mask: f', "below half": {share:.3f}' for mask, share in photo.soft}
        fates += [
            f'{{"file": {quoted(mask)}, "kind": "mask", "fate": "used", "of": {path}, "sha256": {quoted(digest)}'
            f"{weak.get(mask, '')}}}"
            for mask, digest in photo.masks
        ]
    rows.fates = SEPARATOR.join(fates)
    return rows


TURNED = "photos whose masks were drawn on the stored photo (--mask-frame stored), turned upright with it"
"""What is counted for each photo whose masks are turned."""

SEPARATOR = ",\n    "
"""What stands between two lines of `prepare.json`."""


def _block(some: list[_Named], id_of: Mapping[str, int]) -> Block:
    images = [
        f'{{"id":{one.numbers.id},"file_name":{quoted(one.name)},"width":{one.photo.size[1]},'
        f'"height":{one.photo.size[0]}}}'
        for one in some
    ]
    areas, boxes = pixels.areas_and_boxes(
        [mark.rle for one in some for mark in one.marks], [one.photo.size for one in some for _ in one.marks]
    )
    measures = zip(areas.tolist(), boxes.tolist(), strict=True)
    objects = []
    for one in some:
        height, width = one.photo.size
        for number, mark in enumerate(one.marks, one.numbers.first):
            area, (x1, y1, x2, y2) = next(measures)
            objects.append(
                f'{{"id":{number},"image_id":{one.numbers.id},"category_id":{id_of[mark.category]},"segmentation":'
                f'{{"size":[{height},{width}],"counts":{quoted(mark.rle.decode("ascii"))}}},"area":{int(area)},'
                f'"bbox":[{int(x1)},{int(y1)},{int(x2 - x1)},{int(y2 - y1)}],"iscrowd":{int(mark.crowd)}}}'
            )
    return Block(
        split=some[0].numbers.split,
        photos=len(some),
        objects=len(objects),
        bare=sum(not one.photo.marks for one in some),
        image_rows=",".join(images).encode(),
        object_rows=",".join(objects).encode(),
    )


def upright(photo: Photo) -> Photo:
    """Return a photo with size and marks turned by the EXIF orientation that they have yet to be turned by."""
    if photo.turn == 1:
        return photo
    marks = tuple(mark._replace(rle=pixels.upright(mark.rle, photo.size, photo.turn)) for mark in photo.marks)
    height, width = photo.size
    size = (width, height) if photo.turn in pixels.TRANSPOSED else photo.size
    return photo._replace(size=size, marks=marks, turn=1)


def separate(photo: Photo) -> tuple[Mark, ...]:
    """Make each connected part of a photo's masks an object; crowds stay whole."""
    marks: list[Mark] = []
    for mark in photo.marks:
        marks += [mark] if mark.crowd else [Mark(mark.category, rle) for rle in part_rles(mark.rle, photo.size)]
    return tuple(marks)
