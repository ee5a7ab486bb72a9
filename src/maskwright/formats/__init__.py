"""The ways that people store masks: what every reader gives back, and how it looks at files.

One module per form, each with a `find` (does this look like my form?) and a `read` that returns a `Reading`. A reading
is more than a dataset: it also holds the fate of every file, what had to be mended, and what the user should know.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, is_side_file, is_text
from maskwright.outputs import MARK
from maskwright.pixels import Size

if TYPE_CHECKING:  # pydantic would make worker processes start a third later
    from maskwright.settings import FormName, MaskFrame, PrepareSettings

PHOTO_NAMES = ("rgb", "images", "photos", "img", "image", "photo", "imgs", "jpegimages", "pngimages")
"""Folder names that mean photos, most usual first; letter case does not count."""

MASK_NAMES = ("mask", "masks", "annotations", "labels", "annotation", "label", "pedmasks")
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

FORMS: tuple[FormName, ...] = (
    "folders",
    "same-folder",
    "category-folders",
    "instance-files",
    "voc",
    "colours",
    "cityscapes",
    "trimap",
    "coco",
    "labelme",
    "via",
    "yolo",
    "cvat",
    "label-studio",
)
"""Every form that is read, in the order in which they are looked for."""

ENDINGS: Mapping[FormName, str] = {
    "labelme": ".json",
    "via": ".json",
    "yolo": ".txt",
    "cvat": ".xml",
}
"""How the annotation files of some forms end: where there is no such file, the form need not be looked for."""

NO_PICTURE = "not a picture file"
"""Why `scan` says that most other files are no pictures."""

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str], None]


class Each(Protocol):
    """Applies a function to every item; results come in the order of the items.

    The work may be done in other processes, so the function must be one of a module (or a `functools.partial` of one),
    and items and results must be picklable.
    """

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(item)` for every item."""

    def pieces(self, function: Callable[[list[T]], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(some items)` for all items, in order, some at a time: as many as take a moment."""

    def expect(self, function: Callable[..., Any], count: int, /) -> None:
        """Hear that so many files will be worked on, and that functions of this one's module will be needed."""

    def elsewhere(self) -> bool:
        """Tell whether other machines may do the work, which do not see what lies on this one's disks alone."""


@dataclass(frozen=True)
class Found:
    """An input that looks like a form.

    Attributes:
        form: Which.
        place: What the user named, a folder or a file.
        why: What was recognised, in words.
        parts: What the form's `read` needs to know of it.
        reads: Folders that are read whole, in which no output may lie.
    """

    form: FormName
    place: Path
    why: str
    parts: Any = None
    reads: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Work:
    """What a form's `read` works with.

    Attributes:
        root: The folder that the user named (that of the file, if a file was named); every file in it is accounted for.
        settings: What the user said.
        say: Called with what was understood, before the masks are read.
        each: Applies a function to every item, wherever the work is done.
        spare: A folder for files that are needed until the output is written.
    """

    root: Path
    settings: PrepareSettings
    say: Say
    each: Each
    spare: Path


class Mark(NamedTuple):
    """One object of a photo: its category's name, its RLE at the photo's `size`, and whether it is a crowd."""

    category: str
    rle: bytes
    crowd: bool = False


class Photo(NamedTuple):
    """One photo that was understood: plain values, since there may be millions that travel between processes.

    Attributes:
        file: Its path, as the user named its folder.
        name: Its path inside the photo folder, `/` between the parts.
        place: What tells photo folders apart where several hold equal names.
        split: The split that it already is in; `None`: to be decided.
        size: `(height, width)` of the frame that the marks are in.
        sha256: Of the file.
        marks: Its objects; none is a photo without objects.
        masks: The paths of its mask images, where there are such, each with its SHA-256.
        turn: The EXIF orientation that size and marks have yet to be turned by; 1: they are upright.
        soft: The mask images whose area depends on where their soft edges were cut, each with the share of its pixels
            that are not 0 that the cut left out.
    """

    file: str
    name: str
    place: str
    split: str | None
    size: Size
    sha256: str
    marks: tuple[Mark, ...]
    masks: tuple[tuple[str, str], ...] = ()
    turn: int = 1
    soft: tuple[tuple[str, float], ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)


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
class Written:
    """What a form's `write` wrote.

    Attributes:
        files: How many files.
        objects: How many objects are in them.
        notes: What could not be said in this form, and anything else that the user should know.
    """

    files: int
    objects: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What a reader understood of an input.

    Attributes:
        form: The form's name.
        coding: What mask values mean; `None` where the form has no mask images.
        categories: Names, in the order of their ids.
        photos: In the order of their ids; may be gone through several times, and need not be in memory.
        sources: Annotation files that were used.
        skipped: Every other file that was seen.
        splits: Why photos are in their splits, in words; empty: they must still be split.
        mends: What was put right.
        notes: What the user should know.
        info: COCO's `info` of the input.
        licenses: COCO's `licenses` of the input.
    """

    form: FormName
    coding: str | None
    categories: tuple[str, ...]
    photos: Collection[Photo]
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

    def join(self, other: Tally) -> None:
        """Count what was counted elsewhere, after what was counted here."""
        for what, count in other.counts.items():
            self.add(what, count=count)
            for example in other.examples[what]:
                self.add(what, example, count=0)

    def mends(self) -> tuple[Mend, ...]:
        """Return everything that was counted, in the order of first sight."""
        return tuple(Mend(what, count, tuple(self.examples[what])) for what, count in self.counts.items())


def form_module(form: FormName) -> ModuleType:
    """Return the module of a form: it has `NAME`, `EXPECTS`, `find(place, settings)` and `read(found, work)`."""
    return importlib.import_module(f"{__name__}.{form.replace('-', '_')}")


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


def both_sizes(size: Size, other: Size, orientation: int, frame: MaskFrame) -> str:
    """Return the sizes of a photo that has two, the first that of the frame which masks are taken to be in.

    Example:
        >>> both_sizes((4, 3), (3, 4), 6, "upright")
        '3 x 4 when shown and 4 x 3 as stored (EXIF orientation 6)'
    """
    here, there = ("when shown", "as stored") if frame == "upright" else ("as stored", "when shown")
    return f"{size[1]} x {size[0]} {here} and {other[1]} x {other[0]} {there} (EXIF orientation {orientation})"


def wrong_frame(what: str, lines: Sequence[str], frame: MaskFrame) -> Problem:
    """Say that masks have the size of their photos in the frame that they are not taken to be in.

    Args:
        what: The masks and the verb, to go on with `as it is shown` or the like.
        lines: One for each.
        frame: What masks are taken to be drawn on.
    """
    if frame == "upright":
        return Problem(
            f"{what} as the camera stored it, not as it is shown: the photo has an EXIF orientation",
            tuple(lines),
            "if the masks were drawn on the photos as stored: --mask-frame stored; or draw them again on photos saved"
            " upright; scaling would be wrong",
        )
    return Problem(
        f"{what} as it is shown, not as the camera stored it, which --mask-frame stored says",
        tuple(lines),
        "leave out --mask-frame stored; where it holds for other masks, prepare those apart",
    )


def scan(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every file under a folder, in no order: its name inside the folder, and why it is no picture, if so.

    Hidden folders and links to folders are yielded as one, and not gone into. The mark of our own verbs does not count.
    """
    waiting = [("", os.fspath(folder))]
    while waiting:
        prefix, here = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                name, inner = entry.name, f"{prefix}{entry.name}"
                if _is_folder(entry):
                    if _is_side(name):
                        yield inner, "hidden folder"
                    elif entry.is_symlink():  # following it could go round in circles
                        yield inner, "link to a folder, not followed"
                    else:
                        waiting.append((f"{inner}/", entry.path))
                elif _is_side(name):
                    if name != MARK:
                        yield inner, "left by the system"
                elif ending_of(name) not in PICTURE_SUFFIXES:
                    yield inner, NO_PICTURE
                else:
                    yield inner, ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=True)
    except OSError:  # a link to itself
        return False


def ending_of(name: str) -> str:
    """Return the ending of a file's name in small letters, with its dot; as `Path.suffix`, in a third of the time.

    Example:
        >>> ending_of("a/b.c.JPG"), ending_of("a.b/c"), ending_of(".c")
        ('.jpg', '', '')
    """
    dot = name.rfind(".")
    return "" if dot <= name.rfind("/") + 1 else name[dot:].lower()


def _is_side(name: str) -> bool:
    """Tell whether a name is that of a side file, looking closer only at those that may be."""
    return (name[0] == "." or ":" in name or name[-1] in _LAST_OF_SIDE_FILES) and is_side_file(Path(name))


_LAST_OF_SIDE_FILES = frozenset("rbixRBIX")  # of Zone.Identifier, Thumbs.db, desktop.ini, __MACOSX


def endings_below(folder: Path) -> Counter[str]:
    """Count the files under a folder by their endings; see `scan`."""
    return Counter(ending_of(name) for name, _ in scan(folder))


def walk(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """List every file under a folder, sorted by name: the pictures, and what is no picture and why.

    Raises:
        UserError: If a name cannot be written in a text file.
    """
    pictures, skipped = [], []
    for name, why in scan(folder):
        if why:
            skipped.append(Skipped(folder / name, why))
        else:
            pictures.append(folder / name)
    bad = [repr(str(path)) for path in pictures if not is_text(str(path))]
    if bad:
        raise unreadable_names(sorted(bad))
    return sorted(pictures, key=lambda path: path.parts), sorted(skipped, key=lambda item: item.path.parts)


def unreadable_names(names: Sequence[str]) -> UserError:
    """Say that files have names that cannot be written in a text file."""
    return UserError("file names must be valid UTF-8", names, "rename these files")


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_folder(entry)]
    except OSError:  # no folder, or one that may not be read
        return []
    return [folder / name for name in sorted(names) if not is_side_file(Path(name))]


def outside(root: Path, used: set[Path]) -> list[Skipped]:
    """Account for what lies in a folder beside the files and folders that are read."""
    if not root.is_dir() or root in used:
        return []
    found = []
    for path in sorted(root.iterdir()):
        if path in used or path.name == MARK:
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
