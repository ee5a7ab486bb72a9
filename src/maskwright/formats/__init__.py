"""The ways that people store masks: what every reader gives back, and how it looks at files.

One module per form, each with a `find` (does this look like my form?) and a `read` that returns a `Reading`. A reading
is more than a dataset: it also holds the fate of every file, what had to be mended, and what the user should know.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from maskwright.errors import UserError
from maskwright.files import PHOTO_SUFFIXES, is_side_file
from maskwright.pixels import Size

PHOTO_NAMES = ("rgb", "images", "photos", "img", "image", "photo", "imgs")
"""Folder names that mean photos, most usual first; letter case does not count."""

MASK_NAMES = ("mask", "masks", "annotations", "labels", "annotation", "label")
"""Folder names that mean mask images."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder and file names that mean a split."""

PICTURE_SUFFIXES = PHOTO_SUFFIXES | {".gif"}
"""What may hold a mask; some public sets store masks as GIF, which is lossless."""

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Mark:
    """One object of a photo: its category's name, its RLE at the photo's upright size, and whether it is a crowd."""

    category: str
    rle: bytes
    crowd: bool = False


@dataclass(frozen=True)
class Photo:
    """One photo that was understood.

    Attributes:
        path: The file, as the user named its folder.
        name: Its path inside the photo folder, `/` between the parts.
        place: What tells photo folders apart where several hold equal names.
        split: The split that it already is in; `None`: to be decided.
        size: Upright `(height, width)`.
        sha256: Of the file.
        marks: Its objects; none is a photo without objects.
        mask: The mask image, where there is one, and its SHA-256.
    """

    path: Path
    name: str
    place: str
    split: str | None
    size: Size
    sha256: str
    marks: tuple[Mark, ...]
    mask: tuple[Path, str] | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that was not used, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class Mend:
    """Something wrong in the input that was put right: what, how often, and some examples."""

    what: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what}: {self.count:,}{_examples(self.examples, self.count)}"


@dataclass(frozen=True)
class Reading:
    """What a reader understood of an input.

    Attributes:
        form: `folders` or `coco`.
        coding: What mask values mean; `None` where the form has no mask images.
        categories: Names, in the order of their ids.
        photos: In the order of their ids.
        sources: Annotation files that were used.
        skipped: Every other file that was seen.
        splits: Why photos are in their splits, in words; empty: they must still be split.
        mends: What was put right.
        notes: What the user should know.
        info: COCO's `info` of the input.
        licenses: COCO's `licenses` of the input.
    """

    form: str
    coding: str | None
    categories: tuple[str, ...]
    photos: tuple[Photo, ...]
    sources: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    splits: str = ""
    mends: tuple[Mend, ...] = ()
    notes: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    licenses: Sequence[Mapping[str, Any]] = ()


@dataclass
class Tally:
    """Counts things that were mended, by kind, keeping a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, example: str = "", count: int = 1) -> None:
        """Count `what`, with an example of it."""
        self.counts[what] += count
        known = self.examples.setdefault(what, [])
        if example and len(known) < 3 and example not in known:
            known.append(example)

    def mends(self) -> tuple[Mend, ...]:
        """Return everything that was counted, in the order of first sight."""
        return tuple(Mend(what, count, tuple(self.examples[what])) for what, count in self.counts.items())


def _examples(examples: Sequence[str], count: int) -> str:
    if not examples:
        return ""
    return f" ({', '.join(examples)}{', ...' if count > len(examples) else ''})"


def some(names: Iterable[str]) -> str:
    """Return the first three names, with dots if there are more.

    Example:
        >>> some(["a", "b", "c", "d"]), some(["a"])
        ('a, b, c, ...', 'a')
    """
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> plural(1, "photo"), plural(1200, "photo"), plural(2, "category")
        ('1 photo', '1,200 photos', '2 categories')
    """
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun}"


def walk(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """List every file under a folder, sorted by name: the pictures, and what is no picture and why.

    Raises:
        UserError: If a name cannot be written in a text file.
    """
    pictures, skipped = [], []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        for name in sorted(folders):
            if is_side_file(Path(name)):
                folders.remove(name)
                skipped.append(Skipped(here / name, "hidden folder"))
            elif (here / name).is_symlink():  # following it could go round in circles
                skipped.append(Skipped(here / name, "link to a folder, not followed"))
        for name in sorted(names):
            path = here / name
            if is_side_file(Path(name)):
                skipped.append(Skipped(path, "left by the system"))
            elif path.suffix.lower() not in PICTURE_SUFFIXES:
                skipped.append(Skipped(path, "not a picture file"))
            else:
                pictures.append(path)
    bad = [repr(str(path)) for path in pictures if not _is_text(str(path))]
    if bad:
        raise UserError("file names must be valid UTF-8", bad, "rename these files")
    return sorted(pictures, key=lambda path: path.relative_to(folder).parts), skipped


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_side_file(Path(path.name)))


def outside(root: Path, used: set[Path]) -> list[Skipped]:
    """Account for what lies in a folder beside the files and folders that are read."""
    if not root.is_dir() or root in used:
        return []
    found = []
    for path in sorted(root.iterdir()):
        if path in used:
            continue
        if path.is_dir():
            if any(path in one.parents for one in used):
                found += outside(path, used)
            else:
                found.append(Skipped(path, "folder that is no part of the data"))
        elif is_side_file(Path(path.name)):
            found.append(Skipped(path, "left by the system"))
        else:
            found.append(Skipped(path, "beside the data"))
    return found


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to every item on all processors; results in the order of the items.

    Threads suffice: decoding, hashing and encoding leave Python's lock alone.
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    if workers < 2 or len(items) < 2:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
