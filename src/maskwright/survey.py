"""What must be known of all photos at once to split and to name them, as numbers: there may be millions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskwright import files, likeness
from maskwright.errors import UserError
from maskwright.formats import Each, Photo
from maskwright.formats.runs import LEAVE_WHOLE, TOO_MANY, is_frayed, part_areas
from maskwright.formats.shelf import Pack, Singly, unpacked
from maskwright.formats.split_folders import split_and_category
from maskwright.objects import SPLITS
from maskwright.scratch import Column

_TIME = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_.]?(\d{2})[-_.]?(\d{2})[-_. tT]?(\d{2})[-_.:h]?(\d{2})[-_.:m]?(\d{2})")
_FRAME = re.compile(r"[-_. ]*(?:frame|img|image|f|t)?[-_. ]*\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Survey:
    """Numbers of every photo, on disk, in the order of the photos.

    Attributes:
        given: `(N,)` int8, the position in `SPLITS` of the split that the input gives; train where it gives none.
        digest: `(N,)` uint64, the first bits of the file's SHA-256; 0: not known.
        names: For each way of naming photos in the output (see `NAMINGS`), `(N,)` uint64, a number for the name that it
            gives without its ending and letter case.
        folder: `(N,)` uint64, a number for the folder, whatever its parts say of splits; 0: in none, before all that
            are in one.
        series: `(N,)` uint64, a number for the folder and the name without the number at its end: the video that a
            frame is of.
        second: `(N,)` int64, the time that the name tells, in seconds; -1: none.
        place: `(N,)` float64, see `place_of`.
        order: `(N,)` uint64, another hash of the name.
        objects: `(N,)` int32, how many objects the photo gets in the output.
        categories: `(K, 2)` int64, category and photo, each pair once; crowds do not count.
        prints: `(N, likeness.SIZE)` uint8, fingerprints; zeros where there is none. Empty if nobody looked.
    """

    given: Column
    digest: Column
    names: tuple[Column, Column, Column]
    folder: Column
    series: Column
    second: Column
    place: Column
    order: Column
    objects: Column
    categories: Column
    prints: Column

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.digest)

    @staticmethod
    def of(
        photos: Collection[Photo],
        categories: Sequence[str],
        each: Each,
        *,
        split: bool = True,
        look: bool = False,
        separate: bool = False,
    ) -> Survey:
        """Go through the photos, once.

        Args:
            photos: All of them.
            categories: Names of all categories.
            each: Goes through some of them, wherever that is done.
            split: Whether what splits need shall be known, beside what names need.
            look: Whether to look at the pictures for what is like another one.
            separate: Whether each connected part of a mask becomes an object.

        Raises:
            UserError: If masks cannot be separated, naming all.
        """
        numbers = (Column(np.uint64) for _ in range(8))
        digest, *names, folder, series, order, _ = numbers
        survey = Survey(
            given=Column(np.int8),
            digest=digest,
            names=(names[0], names[1], names[2]),
            folder=folder,
            series=series,
            second=Column(np.int64),
            place=Column(np.float64),
            order=order,
            objects=Column(np.int32),
            categories=Column(np.int64, 2),
            prints=Column(np.uint8, likeness.SIZE),
        )
        done = 0
        frayed: list[str] = []
        function = partial(_look_at, {name: n for n, name in enumerate(categories)}, split, look, separate)
        for part in each.pieces(function, Singly(photos)):
            survey.given.append(part.given)
            survey.objects.append(part.objects)
            digest.append(part.digest)
            for column, values in zip(names, part.names, strict=True):
                column.append(values)
            if part.heads is not None:
                folder.append(_after_others(part.heads.folder, len(folder) > 0 and bool(folder[len(folder) - 1 :][0])))
                series.append(part.heads.series)
                survey.second.append(part.heads.second)
                survey.place.append(part.heads.place)
                order.append(part.heads.order)
                survey.categories.append(part.heads.categories + np.array([0, done]))
            if part.prints is not None:
                survey.prints.append(part.prints)
            done += len(part.digest)
            frayed += part.frayed
        if frayed:
            raise UserError(TOO_MANY, frayed, LEAVE_WHOLE)
        return survey


class _Heads(NamedTuple):
    """What splits need of some photos, as in `Survey`; photos are counted from 0."""

    folder: NDArray[np.uint64]
    series: NDArray[np.uint64]
    second: NDArray[np.int64]
    place: NDArray[np.float64]
    order: NDArray[np.uint64]
    categories: NDArray[np.int64]


class _Part(NamedTuple):
    """What was found of some photos, as in `Survey`."""

    given: NDArray[np.int8]
    objects: NDArray[np.int32]
    digest: NDArray[np.uint64]
    names: NDArray[np.uint64]
    heads: _Heads | None
    prints: NDArray[np.uint8] | None
    frayed: list[str]


def _look_at(
    number_of: dict[str, int], split: bool, look: bool, separate: bool, places: list[tuple[Pack[Photo], int]]
) -> _Part:
    photos = unpacked(places)
    digest = np.array([int(photo.sha256[:16] or "0", 16) for photo in photos], dtype=np.uint64)
    names = np.array([name_numbers(photo) for photo in photos], dtype=np.uint64).reshape(-1, len(NAMINGS)).T
    return _Part(
        np.array([SPLITS.index(photo.split or "train") for photo in photos], dtype=np.int8),
        np.array([_count(photo, separate) for photo in photos], dtype=np.int32),
        digest,
        names,
        _heads(photos, number_of) if split else None,
        np.frombuffer(b"".join(map(_fingerprint, photos)), dtype=np.uint8).reshape(-1, likeness.SIZE) if look else None,
        [line for photo in photos for line in _frayed(photo)] if separate else [],
    )


def _count(photo: Photo, separate: bool) -> int:
    """Return how many objects a photo gets in the output."""
    if not separate:
        return len(photo.marks)
    parts = [None if mark.crowd else part_areas(mark.rle, photo.size) for mark in photo.marks]
    return sum(1 if areas is None else len(areas) for areas in parts)


def _frayed(photo: Photo) -> Iterator[str]:
    """Yield a line for each mask of a photo that cannot be separated."""
    for mark in photo.marks:
        if not mark.crowd and is_frayed(mark.rle):
            yield f"{', '.join(mask for mask, _ in photo.masks) or photo.file}: an object of '{mark.category}'"


def _fingerprint(photo: Photo) -> bytes:
    """Return a photo's fingerprint; zeros if it cannot be decoded, which `check` and training say."""
    try:
        return likeness.fingerprint(photo.path)
    except files.UnreadableImage:
        return bytes(likeness.SIZE)


# ── names in the output ──────────────────────────────────────────────────────────────────────────────────────────────


def _flat(photo: Photo) -> str:
    return photo.name.rpartition("/")[2]


def _nested(photo: Photo) -> str:
    return photo.name


def _placed(photo: Photo) -> str:
    return f"{photo.place}/{photo.name}" if photo.place else photo.name


NAMINGS = (_flat, _nested, _placed)
"""Ways of naming photos in their split's folder, best first: without subfolders, with them, with what is above them."""


def name_numbers(photo: Photo, *, exact: bool = False) -> tuple[int, ...]:
    """Return a number for each name that a photo may get, without its ending and letter case; or for the exact name."""
    numbers: dict[str, int] = {}  # mostly the names are all the same
    for naming in NAMINGS:
        name = naming(photo)
        if name not in numbers:
            numbers[name] = number_of_text(name if exact else name.rpartition(".")[0].casefold())
    return tuple(numbers[naming(photo)] for naming in NAMINGS)


def number_of_text(text: str) -> int:
    """Return a number above 0 for a text, which hardly any other text has."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") | 1


# ── what splits need ─────────────────────────────────────────────────────────────────────────────────────────────────


def place_of(name: str) -> float:
    """Return a photo's fixed place in 0..1, which decides its split.

    It depends on nothing but the name without its ending, so photos that are added later never move old ones, and a
    photo that is saved in another format stays where it is.

    Example:
        >>> place_of("a/1.jpg") == place_of("a/1.png") != place_of("a/2.jpg")
        True
    """
    return place_of_key(name.rpartition(".")[0] or name)


def place_of_key(key: str) -> float:
    """Return the fixed place in 0..1 of photos that have a key in common."""
    text = unicodedata.normalize("NFC", key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _heads(photos: Sequence[Photo], number_of: dict[str, int]) -> _Heads:
    folder, series, second, place, order = [], [], [], [], []
    pairs: list[tuple[int, int]] = []
    last, scene, last_number = "", "", 0
    for n, photo in enumerate(photos):
        stem = photo.name.rpartition(".")[0] or photo.name
        above, _, name = f"{photo.place}/{stem}".rpartition("/")
        if above != last:
            last, scene = above, _scene(above)
            last_number = number_of_text(scene) if scene else 0
        folder.append(last_number)
        series.append(number_of_text(_FRAME.sub("", f"{scene}/{name}")))
        second.append(_second(photo.name))
        place.append(place_of_key(stem))
        order.append(number_of_text(stem))
        pairs += [(category, n) for category in {number_of[mark.category] for mark in photo.marks if not mark.crowd}]
    return _Heads(
        np.array(folder, dtype=np.uint64),
        np.array(series, dtype=np.uint64),
        np.array(second, dtype=np.int64),
        np.array(place, dtype=np.float64),
        np.array(order, dtype=np.uint64),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )


def _scene(folder: str) -> str:
    """Return a photo's folder without what its parts say of splits: made anew, these bind nothing together.

    Example:
        >>> _scene("a/clip1"), _scene("train/clip1"), _scene("nut_val"), _scene("test")
        ('a/clip1', 'clip1', 'nut', '')
    """
    parts = ((part, *split_and_category(part)) for part in folder.split("/"))
    return "/".join(name for part, split, category in parts if (name := category if split else part) is not None)


def _after_others(folder: NDArray[np.uint64], mixed: bool) -> NDArray[np.uint64]:
    """Give photos in no folder a number from the first photo on that is in one; `mixed`: there was one before."""
    first = 0 if mixed else int(np.argmax(folder > 0)) if folder.any() else len(folder)
    after = np.arange(len(folder)) >= first
    return np.where((folder == 0) & after, np.uint64(number_of_text("")), folder)


def _second(name: str) -> int:
    """Return the time that a name tells, in seconds; -1 if it tells none."""
    found = _TIME.search(name)
    if found is None:
        return -1
    try:
        year, month, day, hour, minute, second = (int(part) for part in found.groups())
        return max(-1, int(datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()))
    except ValueError:  # digits that are no date
        return -1
