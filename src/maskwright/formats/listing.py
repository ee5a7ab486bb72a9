"""Photos that annotation files list: found by name among the pictures of a folder, and the fate of every file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maskwright import pixels
from maskwright.dataset import inside
from maskwright.errors import Problem, UserError
from maskwright.files import is_side_file
from maskwright.formats import (
    MASK_NAMES,
    NO_PICTURE,
    PHOTO_NAMES,
    PICTURE_SUFFIXES,
    Found,
    Mark,
    Mend,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    plural,
    scan,
    some,
    walk,
)
from maskwright.formats.photos import Sight, photo_folders, sight, sight_problems, size_problems
from maskwright.formats.shapes import polygons_rle, sane_polygons
from maskwright.formats.split_folders import kept_splits, split_and_category
from maskwright.pixels import Size
from maskwright.settings import MaskFrame, PrepareSettings

MOST_BYTES = 256 * 2**20
"""A file that describes one photo and is larger than this is refused: parsed, it would take gigabytes."""

HEAD_BYTES = 65_536
"""So much of the head and of the tail of a file is looked at to tell its form."""

RECTANGLES = "rectangles, taken as objects of that shape"
"""What is counted for each rectangle that is read as an object."""

_PLACES = frozenset({*PHOTO_NAMES, *MASK_NAMES, "json", "jsons", "ann", "anns", "labelme"})


@dataclass(frozen=True)
class Spot:
    """What the folders of a file tell: its name inside the photo folder, the folders before that, and the split."""

    name: str
    place: str
    split: str | None


def spot(path: Path, top: Path) -> Spot:
    """Read where a file lies below a folder.

    Example:
        >>> spot(Path("raw/train/images/a/1.jpg"), Path("raw"))
        Spot(name='a/1.jpg', place='train/images', split='train')
    """
    parts = path.relative_to(top).parts if path.is_relative_to(top) else (path.name,)
    split, first = None, 0
    for part in parts[:-1]:
        found = split_and_category(part)[0]
        if found is None and part.lower() not in _PLACES:
            break
        split = split or found
        first += 1
    return Spot("/".join(parts[first:]), "/".join(parts[:first]), split)


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Return every file with an ending under a folder, by name; hidden ones and links to folders are left out."""
    return sorted(
        (folder / name for name in names_below(folder, suffix)), key=lambda path: path.relative_to(folder).parts
    )


def names_below(folder: Path, suffix: str | tuple[str, ...]) -> Iterator[str]:
    """Yield the name inside the folder of every such file, in no order; a folder of millions takes no memory."""
    for name, why in scan(folder):
        if why in {"", NO_PICTURE} and name.lower().endswith(suffix):
            yield name


def numbers(values: Any, count: int | None, wrong: str) -> list[float]:
    """Return a list of finite numbers of a file.

    Args:
        values: What the file gives.
        count: How many there must be; `None`: any.
        wrong: The message if they are not that.

    Raises:
        ValueError: With that message.
    """
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        raise ValueError(wrong)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e12 for v in values):
        raise ValueError(wrong)  # NaN is below nothing
    return [float(v) for v in values]


def head_and_tail(path: Path) -> bytes:
    """Return the first and the last bytes of a file, by which its form is told without reading it whole."""
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(HEAD_BYTES, size - HEAD_BYTES))
            return head + handle.read(HEAD_BYTES)
    except OSError:
        return b""


def sample(files: Sequence[Path]) -> list[Path]:
    """Return a few files of each folder: what is looked at to tell the form of many."""
    seen: dict[Path, int] = defaultdict(int)
    chosen: list[Path] = []
    for path in files:
        seen[path.parent] += 1
        if seen[path.parent] <= 3 and len(chosen) < 30:
            chosen.append(path)
    return chosen


class Pictures:
    """The picture files that annotations may speak of, found by name.

    A name from a file never opens a path: it only chooses among the pictures that were listed, so it cannot lead
    outside.

    Attributes:
        top: The folder that they are in.
        paths: All of them.
        above: Whether that is the folder above the one that was named, since none were found in it or beside it.
    """

    def __init__(self, root: Path, settings: PrepareSettings, place: Path | None = None) -> None:
        """List the pictures of the photo folder that the user named; else of `root`; else of folders beside it.

        Args:
            root: The folder that holds it all, or the photos alone.
            settings: `photos` names the photo folder.
            place: Where the annotation files are, if that is elsewhere.
        """
        self._tops = (root, place) if place is not None else (root,)
        tops = photo_folders(root, settings) if settings.photos is not None else [root]
        if settings.photos is not None and not tops:
            raise UserError("the photo folder does not exist", [settings.photos], "check --photos")
        self.top, self.above = tops[0], False
        self.paths = walk(self.top)[0]
        if not self.paths and settings.photos is None:
            for folder in photo_folders(root, settings)[1:]:
                # The folder above may be any: only the files in it itself are looked at.
                here = _flat(folder) if folder == root.parent else walk(folder)[0]
                if here:
                    self.top, self.paths, self.above = folder, here, folder == root.parent
                    break
        self._known = set(self.paths)
        self._names: dict[str, list[Path]] = defaultdict(list)
        self._stems: dict[str, list[Path]] = defaultdict(list)
        self._folded: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._names[path.name].append(path)
            self._stems[path.stem].append(path)
            self._folded[path.name.casefold()].append(path)

    def told(self, source: Path) -> Spot:
        """Return what the folders of an annotation file tell."""
        top = next((top for top in self._tops if source != top and source.is_relative_to(top)), source.parent)
        return spot(source, top)

    def by_stem(self, source: Path) -> Path | None:
        """Return the one picture that has the stem of an annotation file, beside it or in the matching folder."""
        same = self._stems.get(source.stem, [])
        beside = [path for path in same if path.parent == source.parent]
        if len(beside) == 1 or len(same) <= 1:
            return (beside or same or [None])[0]  # type: ignore[list-item]
        near = self._nearest(beside or same, self.told(source), None)
        return near[0] if len(near) == 1 else None

    def named(self, name: str, source: Path) -> list[Path]:
        """Return the pictures that a name in an annotation file may mean: one if it is clear, none if there is none.

        Args:
            name: As the file gives it: a path of any system, or a bare name.
            source: The annotation file; of several equal names the one beside it, or in the folder that matches, is
                meant.
        """
        name = name.replace("\\", "/")
        last = name.rpartition("/")[2]
        for top in (source.parent, self.top):
            try:
                path = inside(top, name)
            except UserError:
                continue
            if path in self._known:
                return [path]
        same = self._names.get(last) or self._folded.get(last.casefold(), [])
        if len(same) <= 1:
            return same
        same = [path for path in same if path.is_relative_to(source.parent)] or same
        return self._nearest(same, self.told(source), name)

    def _nearest(self, same: list[Path], told: Spot, name: str | None) -> list[Path]:
        """Of several pictures of one name, return those that agree best with what is told of their folder."""
        if name is not None:
            parts = name.split("/")
            best = max(_shared_tail(path.parts, parts) for path in same)
            same = [path for path in same if _shared_tail(path.parts, parts) == best] if best > 1 else same
        if len(same) > 1:
            spots = {path: spot(path, self.top) for path in same}
            parents = {path: spots[path].name.rpartition("/")[0] for path in same}
            same = [path for path in same if spots[path].split == told.split] or same
            same = [path for path in same if parents[path] == told.name.rpartition("/")[0]] or same
        return same


def unlike(name: str, path: Path) -> str:
    """Say in what a picture differs from the name that a file gives it; empty if in nothing, or it is a bare name.

    Of a path that begins at the root of a disk only the last folder counts: those above are another machine's.

    Example:
        >>> unlike("cam2/1.jpg", Path("raw/cam1/1.jpg")), unlike("1.JPG", Path("raw/cam1/1.jpg"))
        ('photos found by their name in another folder than the file says', 'photos found in other letter case')
        >>> unlike("C:/photos/cam1/1.jpg", Path("raw/cam1/1.jpg")), unlike("1.jpg", Path("raw/cam1/1.jpg"))
        ('', '')
    """
    name = name.replace("\\", "/")
    whole = name.startswith("/") or name[1:2] == ":"
    parts = [part for part in name.rpartition("../")[2].split("/") if part not in {"", "."} and part[1:] != ":"]
    parts = parts[-2:] if whole else parts
    found = Path(os.path.abspath(path)).parts[-len(parts) :]
    if [part.casefold() for part in found] != [part.casefold() for part in parts]:
        return "photos found by their name in another folder than the file says"
    return "" if [*found] == parts else "photos found in other letter case"


def _flat(folder: Path) -> list[Path]:
    """Return the picture files in a folder itself, by name."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError:
        return []
    paths = [folder / name for name in names if not is_side_file(Path(name))]
    return [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES]


def _shared_tail(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Outcome:
    """What the reading of one photo's annotations gave; made where the work is done, so it must be picklable.

    Attributes:
        label: How messages call the photo's annotations.
        sight: The photo.
        stated: `(height, width)` that the annotations were made for; `None`: not said.
        marks: The objects.
        faults: `(rule, line)` of everything wrong.
        mends: What was put right.
        extra: What else the form needs to know.
    """

    label: str
    sight: Sight
    stated: Size | None = None
    marks: tuple[Mark, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    mends: tuple[Mend, ...] = ()
    extra: str = ""


def photo_of(one: Outcome, name: str, place: str, split: str | None) -> Photo:
    """Return the photo of an outcome with its objects, under a name; see `formats.Photo`."""
    seen = one.sight
    return Photo(str(seen.path), name, place, split, seen.size, seen.sha256, one.marks, turn=seen.turn)


def outcome_problems(outcomes: Collection[Outcome], fixes: dict[str, str]) -> list[Problem]:
    """Return every problem of all photos.

    Args:
        outcomes: Of all photos.
        fixes: For each rule that may be broken what to do.
    """
    problems = sight_problems(one.sight for one in outcomes)
    problems += size_problems((one.label, one.stated, one.sight) for one in outcomes)
    lines: dict[str, list[str]] = defaultdict(list)
    for one in outcomes:
        for rule, line in one.faults:
            lines[rule].append(line)
    return problems + [Problem(rule, tuple(lines[rule]), fix) for rule, fix in fixes.items() if rule in lines]


def outcome_tally(outcomes: Iterable[Outcome]) -> Tally:
    """Add up what was mended in all photos."""
    tally = Tally()
    for one in outcomes:
        for mend in one.mends:
            tally.add(mend.what, mend.examples[0] if mend.examples else "", mend.count)
    return tally


def outcome_notes(outcomes: Iterable[Outcome]) -> list[str]:
    """Return what the user should know about photos whose upright position the sizes do not prove."""
    turned = [str(one.sight.path) for one in outcomes if one.marks and one.sight.unsure(one.stated)]
    if not turned:
        return []
    return [
        f"{plural(len(turned), 'photo')} must be turned or mirrored to be upright ({some(turned)}) and no size tells"
        " whether the objects were marked so; they are taken as drawn on the upright photo: look at one of them; if"
        " they were drawn on it as stored: --mask-frame stored"
    ]


Part = tuple[str, Any]
"""One shape of an object: `("polygon", [x1, y1, ...])`, or `("rle", bytes)` with `None` for one without a pixel."""


def join_parts(parts: Sequence[Part], size: Size, name: str, tally: Tally) -> bytes | None:
    """Return the union of the shapes of one object; `None` if it has no pixel, which is counted.

    Raises:
        ValueError: If a polygon is none, or reaches far outside; the message says how.
    """
    polygons = [part for kind, part in parts if kind == "polygon"]
    rles = [part for kind, part in parts if kind == "rle" and part is not None]
    if polygons and rles:  # the object has pixels, be there none in the polygons
        kept = sane_polygons(polygons, size, name, tally)
        rles += [pixels.from_polygons(kept, size)] if kept else []
    elif polygons:
        drawn = polygons_rle(polygons, size, name, tally)
        rles += [drawn] if drawn is not None else []
    if not rles:
        return None
    return rles[0] if len(rles) == 1 else pixels.union(rles, size)


def grouped_marks(
    groups: Mapping[Any, Sequence[Part]], crowds: Collection[Any], size: Size, label: str, tally: Tally
) -> tuple[list[Mark], list[str]]:
    """Return the objects of a photo whose shapes are told apart by a key, and what is wrong with the others.

    Args:
        groups: Shapes by key, a tuple whose first item is the category.
        crowds: Keys of those that are many objects in one mask.
        size: `(height, width)` of the photo.
        label: How the photo is called in messages.
        tally: Counts what is left out or joined.
    """
    marks, faults = [], []
    for key, parts in groups.items():
        try:
            rle = join_parts(parts, size, f"{label} ('{key[0]}')", tally)
        except ValueError as error:
            faults.append(f"{label}: '{key[0]}': {error}")
            continue
        if rle is None:
            continue
        if len(parts) > 1:
            tally.add("objects made of several shapes that share label and group_id", f"{label} ('{key[0]}')")
        marks.append(Mark(key[0], rle, crowd=key in crowds))
    return marks, faults


def same_box(a: Sequence[float], b: Sequence[float]) -> bool:
    """Tell whether two boxes are drawn around one object: each side within 3 pixels or a twentieth of the box."""
    slack = max(3.0, 0.05 * max(a[2] - a[0], a[3] - a[1]))
    return all(abs(x - y) <= slack for x, y in zip(a, b, strict=True))


def boxes_note(tally: Tally, photos: Iterable[Photo]) -> list[str]:
    """Return what to say if every object is a rectangle."""
    count = tally.counts.get(RECTANGLES, 0)
    if not count or count != sum(len(photo.marks) for photo in photos):
        return []
    return [f"every object ({count:,}) is a rectangle: boxes, not outlines, are what will be learned"]


def with_splits(photos: Sequence[Photo]) -> tuple[tuple[Photo, ...], str, list[str]]:
    """Keep the splits of photos if every photo has one.

    Returns:
        The photos; why they are in their splits, in words, empty if they are to be split anew; and notes.
    """
    splits, notes = kept_splits((photo.name, photo.split) for photo in photos)
    return tuple(photo if splits else photo._replace(split=None) for photo in photos), splits, notes


def one_category(names: Collection[str], settings: PrepareSettings, where: str, what: str) -> None:
    """Refuse one category name where the input has several.

    Raises:
        UserError: Naming them.
    """
    if settings.category is not None and len(names) > 1:
        raise UserError(
            f"one category name was given, {what} several",
            [f"{where}: {', '.join(sorted(names))}"],
            "leave out --category",
        )


def account(
    roots: Iterable[Path], used: Collection[Path], known: Sequence[Skipped], unlisted: str
) -> tuple[Skipped, ...]:
    """Return the fate of every file under some folders that was not used.

    Args:
        roots: The folders; one may lie in another.
        used: Photos and annotation files that were used.
        known: Files whose fate is known.
        unlisted: What is said of pictures that are left.
    """
    taken = {os.path.realpath(path) for path in used}
    found = {os.path.realpath(item.path): item for item in known}
    for root in roots:
        pictures, others = walk(root) if root.is_dir() else ([], [])
        for item in [*(Skipped(path, unlisted) for path in pictures), *others]:
            found.setdefault(os.path.realpath(item.path), item)
    return tuple(item for path, item in found.items() if path not in taken)


@dataclass(frozen=True)
class Entry:
    """One photo that an annotation file lists.

    Attributes:
        source: The annotation file.
        name: The photo's name as it stands there.
        payload: Its objects, as the form's `draw` takes them; picklable.
        stated: `(height, width)` that they were made for; `None`: not said.
        split: The split that the file gives it.
        folder: The name of a folder that tells it from others of its name, if the file says.
    """

    source: Path
    name: str
    payload: Any
    stated: Size | None = None
    split: str | None = None
    folder: str = ""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.source}: {self.name}"


Draw = Callable[[Any, Size, str, Tally], tuple[list[Mark], list[tuple[str, str]]]]
"""Turns the payload of an entry into objects and `(rule, line)` faults, given the photo's size, what messages call it,
and the tally of mends."""


def _draw(job: tuple[Path, Entry], draw: Draw, frame: MaskFrame) -> Outcome:
    path, entry = job
    seen = sight(path, frame)
    if seen.fault or entry.stated not in (None, seen.size):
        return Outcome(entry.label, seen, entry.stated)
    tally = Tally()
    marks, faults = draw(entry.payload, seen.size, entry.label, tally)
    return Outcome(entry.label, seen, entry.stated, tuple(marks), tuple(faults), tally.mends())


def read_entries(
    found: Found,
    work: Work,
    entries: Sequence[Entry],
    draw: Draw,
    fixes: dict[str, str],
    *,
    categories: Sequence[str],
    tool: str,
    pictures: Pictures,
    sources: Sequence[Path],
    skipped: Sequence[Skipped] = (),
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    mends: Sequence[Mend] = (),
) -> Reading:
    """Find the photo of every entry, draw its objects, and account for every file.

    Args:
        found: What was found.
        work: What to work with.
        entries: The photos that the annotation files list.
        draw: See `Draw`; a function of a module, or a `partial` of one.
        fixes: For each rule that `draw` may find broken what to do.
        categories: Names in the order of their ids; those without an object stay.
        tool: The tool's name, for messages.
        pictures: Where the photos are.
        sources: The annotation files.
        skipped: Files whose fate is known.
        problems: What is wrong already.
        notes: What the user should know already.
        mends: What was put right already.

    Raises:
        UserError: With every problem.
    """
    wrong = list(problems)
    jobs: list[tuple[Path, Entry]] = []
    lost: list[str] = []
    of: dict[Path, list[Entry]] = defaultdict(list)
    elsewhere = Tally()
    for entry in entries:
        name = f"{entry.folder}/{entry.name}" if entry.folder else entry.name
        same = pictures.named(name, entry.source)
        if len(same) == 1:
            jobs.append((same[0], entry))
            of[same[0]].append(entry)
            if what := unlike(entry.name, same[0]):
                elsewhere.add(what, f"{entry.name}: {same[0]}")
        elif same:
            lost.append(f"{entry.label}: found more than once: {' and '.join(str(path) for path in same[:3])}")
        else:
            lost.append(f"{entry.label}: not found in {pictures.top}")
    if lost:
        what = f"{plural(len(lost), 'photo')} of the {tool} file {'was' if len(lost) == 1 else 'were'} not found"
        wrong.append(Problem(what, tuple(lost), "put the photos beside the file, or: --photos FOLDER"))
    twice = tuple(f"{path}: {' and '.join(e.label for e in which)}" for path, which in of.items() if len(which) > 1)
    if twice:
        fix = "keep one entry for each photo; if two files hold the same, name one of them instead of the folder"
        wrong.append(Problem("photos are listed more than once", twice, fix))
    outcomes = list(work.each(partial(_draw, draw=draw, frame=work.settings.mask_frame), jobs))
    wrong += outcome_problems(outcomes, fixes)
    if wrong:
        raise UserError(wrong)
    photos = []
    for (path, entry), one in zip(jobs, outcomes, strict=True):
        told = pictures.told(entry.source)
        seen = spot(path, pictures.top)
        split = entry.split or seen.split or told.split
        photos.append(photo_of(one, seen.name, seen.place, split))
    if not any(photo.marks for photo in photos):
        raise UserError(f"the {tool} file marks no object", [str(path) for path in sources], f"draw them in {tool}")
    tally = outcome_tally(outcomes)
    for photo in photos:
        if not photo.marks:
            tally.add("photos without objects, kept", photo.name)
    kept, splits, more = with_splits(sorted(photos, key=lambda photo: (photo.place, photo.name)))
    said = [*notes, *outcome_notes(outcomes), *boxes_note(tally, kept), *more]
    for text in [splits, *said]:
        if text:
            work.say(f"understood: {text}")
    used = [*(photo.path for photo in kept), *sources]
    return Reading(
        form=found.form,
        coding=None,
        categories=tuple(categories),
        photos=kept,
        sources=tuple(sources),
        skipped=account((work.root, found.place), used, skipped, f"picture that the {tool} file does not list"),
        splits=splits,
        mends=(*mends, *elsewhere.mends(), *tally.mends()),
        notes=tuple(said),
    )
