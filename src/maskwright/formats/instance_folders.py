"""A folder per photo, `<id>/images/<photo>` and `<id>/masks/<anything>.png`: one mask file per object.

This is the layout of the Data Science Bowl 2018. It has no word for categories; what we write says them in the names of
the mask files, `<category>_<n>.png`, and that is read again.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from maskwright import pixels
from maskwright.dataset import Dataset, inside
from maskwright.errors import Problem, UserError
from maskwright.files import link_or_copy
from maskwright.formats import Reading, Skipped, Work, Written, outside, plural, some, subfolders
from maskwright.formats.layout import (
    is_photo,
    names_of_categories,
    pair_in,
    pictures_in,
    some_pictures,
    split_folders,
    unmatched,
    visible_name,
)
from maskwright.formats.mask_files import Item, OneEach, read_items
from maskwright.formats.names import stems
from maskwright.formats.planes import save_png
from maskwright.formats.shelf import Shelf
from maskwright.formats.split_folders import split_and_category, splits_text
from maskwright.settings import FormName, PrepareSettings

_LOOKED_AT = 20
"""So many folders are looked at to tell the form."""


@dataclass(frozen=True)
class Top:
    """A folder of folders, one per photo, and the split that its name tells."""

    folder: Path
    split: str | None = None


def find_tops(place: Path, settings: PrepareSettings) -> list[Top]:
    """Return the folders that hold a folder per photo: the one that the user named, or the split folders in it."""
    if _is_top(place, settings):
        return [Top(place)]
    # A name like stage1_train gives the split; that it also looks like a category called stage1 means nothing here.
    return [Top(folder, split) for folder, split, _ in split_folders(place) if _is_top(folder, settings)]


def _is_top(folder: Path, settings: PrepareSettings) -> bool:
    looked, proven = 0, False
    for inner in subfolders(folder):
        photos, masks = pair_in(inner, settings)
        if photos is None:
            continue
        if looked == _LOOKED_AT:
            break
        looked += 1
        pictures = [name for name in some_pictures(photos, 2) if is_photo(name)]
        if len(pictures) != 1:
            return False
        stem = pictures[0].rpartition(".")[0]
        files = [] if masks is None else [name.rpartition(".")[0] for name in some_pictures(masks, _LOOKED_AT)]
        named = unquote(inner.name).rpartition("/")[2] in {stem, pictures[0]}
        if not named and (split_and_category(inner.name)[0] is not None or stem in files):
            return False  # a split with one photo, or a photo with its one mask image
        proven |= len(files) > 1 or (bool(files) and named and stem not in files)
    return proven


@dataclass(frozen=True)
class _Entry:
    """The folder of one photo: the photo, and its mask files."""

    top: int
    folder: str
    photo: Path
    masks: tuple[Path, ...]


@dataclass
class _Listed:
    """What was found in the folders of photos."""

    entries: Shelf[_Entry] = field(default_factory=Shelf)
    skipped: list[Skipped] = field(default_factory=list)
    alone: list[Path] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    photos: list[int] = field(default_factory=list)


def read_tops(form: FormName, tops: Sequence[Top], work: Work) -> Reading:
    """Read the folders of all photos; says what it understood before it reads them.

    Raises:
        UserError: With every problem that was found.
    """
    settings, say = work.settings, work.say
    listed = _list(tops, work)
    problems = _problems(listed)
    faults, left_out = unmatched(listed.alone, settings, "folder of mask files")
    problems += faults
    listed.skipped += left_out
    known = _Names(listed.entries)
    problems += known.problems(settings)
    for number, top in enumerate(tops):
        told = f"{top.split}: " if top.split else ""
        say(
            f"understood: {told}{plural(listed.photos[number], 'photo')}, each in a folder of its own in {top.folder},"
            f" with {plural(listed.files[number], 'mask file')}"
        )
    categories = known.categories(settings)
    if len(categories) == 1:
        said = "no name tells it; --category NAME gives another"
        source = "as you said" if settings.category else "from the names of the mask files" if known.name_it else said
        say(f"understood: the objects are of the category '{categories[0]}' ({source})")
    else:
        names = ", ".join(categories)
        say(f"understood: {len(categories)} categories: {names} (from the names of the mask files)")
    splits = splits_text(top.split for top in tops)
    if splits:
        say(f"understood: {splits}")
    left = {item.path for item in left_out}
    items = (_item(entry, tops, known, settings) for entry in listed.entries if entry.photo not in left)
    objects = read_items(items, work, OneEach(settings.coding), problems)
    return Reading(
        form=form,
        coding=objects.coding,
        categories=tuple(categories),
        photos=objects.photos,
        skipped=tuple(listed.skipped),
        splits=splits,
        mends=objects.mends,
        notes=objects.notes,
    )


def _list(tops: Sequence[Top], work: Work) -> _Listed:
    settings = work.settings
    listed = _Listed()
    listed.skipped += outside(work.root, {top.folder for top in tops})
    for number, top in enumerate(tops):
        listed.photos.append(0)
        listed.files.append(0)
        used: set[Path] = set()
        for folder in subfolders(top.folder):
            photo_folder, mask_folder = pair_in(folder, settings)
            if photo_folder is None and mask_folder is None:
                continue
            used |= {one for one in (photo_folder, mask_folder) if one is not None}
            photos, odd = ([], []) if photo_folder is None else pictures_in(photo_folder)
            masks, also_odd = ([], []) if mask_folder is None else pictures_in(mask_folder)
            listed.skipped += [*odd, *also_odd]
            paths = [photo_folder / name for name in photos if is_photo(name)] if photo_folder is not None else []
            if photo_folder is not None:
                listed.skipped += [Skipped(photo_folder / n, "no photo format") for n in photos if not is_photo(n)]
            if len(paths) > 1:
                listed.several.append(f"{photo_folder}: {some(path.name for path in paths)}")
            elif not paths:
                listed.bare.append(f"{folder}: {plural(len(masks), 'mask file')}")
            else:
                if mask_folder is None:
                    listed.alone.append(paths[0])
                files = () if mask_folder is None else tuple(mask_folder / name for name in masks)
                listed.entries.put(_Entry(number, folder.name, paths[0], files))
                listed.photos[number] += 1
                listed.files[number] += len(files)
        listed.skipped += outside(top.folder, used)
    return listed


def _problems(listed: _Listed) -> list[Problem]:
    problems = []
    if listed.several:
        problems.append(
            Problem(
                "each photo needs a folder of its own, since all mask files in it are its objects",
                tuple(listed.several),
                "give each photo its folder: <id>/images/<photo> and <id>/masks/*",
            )
        )
    if listed.bare:
        what = f"{plural(len(listed.bare), 'folder')} {'has' if len(listed.bare) == 1 else 'have'} no photo"
        problems.append(Problem(what, tuple(listed.bare), "add the photos, or remove these folders"))
    return problems


_NUMBERED = re.compile(r"(.+)_[0-9]+", re.DOTALL)
_HASH = re.compile(r"[0-9a-fA-F]{32,}")


class _Names:
    """What the names of mask files say of categories: `<category>_<n>`, if all are of that form."""

    def __init__(self, entries: Collection[_Entry]) -> None:
        self._found: set[str] = set()
        self.name_it = len(entries) > 0
        of_photo = 0  # photos whose mask files go on from the photo's own name
        photos_of: dict[str, int] = defaultdict(int)
        filled = 0
        self._examples: list[str] = []
        for entry in entries:
            names = {self._name(path) for path in entry.masks}
            if None in names:
                self.name_it = False
                return
            if names:
                filled += 1
                of_photo += all(f"{name}_".startswith(f"{entry.photo.stem}_") for name in names)
            for name in names:
                self._found.add(name or "")
                photos_of[name or ""] += 1
            if len(self._examples) < 3:
                self._examples += map(str, entry.masks[:1])
        self.name_it &= bool(self._found)
        # If no name is used by two photos and each goes on from its photo's, it may be no category at all.
        self._doubtful = filled > 1 and of_photo == filled and max(photos_of.values()) == 1

    @staticmethod
    def _name(path: Path) -> str | None:
        found = _NUMBERED.fullmatch(path.stem)
        return None if found is None or _HASH.fullmatch(found[1]) else unquote(found[1])

    def problems(self, settings: PrepareSettings) -> list[Problem]:
        """Return what the names leave open."""
        if not self.name_it:
            return []
        if settings.category is not None and len(self._found) > 1 and not self._doubtful:
            return [
                Problem(
                    "one category name was given, and the names of the mask files give several",
                    (f"mask files: {some(sorted(self._found))}",),
                    "leave out --category",
                )
            ]
        if self._doubtful and settings.category is None:
            return [
                Problem(
                    "it cannot be told whether the mask files are named after their photo or after a category",
                    tuple(self._examples),
                    "if the photo, give the category: --category NAME; if the category, give the photos other names",
                )
            ]
        return []

    def categories(self, settings: PrepareSettings) -> list[str]:
        """Return all categories, by name."""
        if settings.category is not None or not self.name_it:
            return [settings.category or "object"]
        return sorted(self._found)

    def of(self, path: Path, settings: PrepareSettings) -> str:
        """Return the category of a mask file."""
        if settings.category is not None or not self.name_it:
            return settings.category or "object"
        return self._name(path) or "object"


def _item(entry: _Entry, tops: Sequence[Top], known: _Names, settings: PrepareSettings) -> Item:
    top = tops[entry.top]
    told = unquote(entry.folder)
    # What we write keeps the photo's subfolders in the folder's name.
    folder, _, last = told.rpartition("/")
    own = last in {entry.photo.stem, entry.photo.name}
    name = f"{folder}/{entry.photo.name}" if own and folder else entry.photo.name
    return Item(
        entry.photo,
        name,
        tuple(sorted(entry.masks, key=_order)),
        tuple(known.of(path, settings) for path in sorted(entry.masks, key=_order)),
        place="/".join(part for part in (top.folder.name if len(tops) > 1 else "", entry.folder) if part),
        split=top.split if all(one.split for one in tops) else None,
    )


def _order(path: Path) -> tuple[int, str]:
    digits = re.search(r"_([0-9]+)$", path.stem)
    return (int(digits[1][:18]) if digits else 0, path.name)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_folders(dataset: Dataset, folder: Path) -> Written:
    """Write a folder per photo: `<id>/masks/<category>_<n>.png` and, where the photo is known, `<id>/images/<photo>`.

    Each mask file is one object, 0 and 255, whole where others overlap it.

    The id is the photo's name without its ending (with it where two photos differ in nothing else); `/` and what file
    systems refuse is written as `%XX`. A photo without objects gets an empty folder of masks, which is read as that.

    Args:
        dataset: Truth or detections.
        folder: Where to write; made if need be.

    Raises:
        UserError: Before anything is written, if a photo's name leads outside or a photo is not there.
    """
    ids = [visible_name(stem) for stem in stems(dataset)]
    photos = _photo_paths(dataset)
    names = names_of_categories(dataset)
    has_mask = dataset.has_mask
    first = dataset.first
    files = objects = crowds = boxes = empty = 0
    seen: set[int] = set()
    for i, image in enumerate(dataset.images):
        place = folder / ids[i]
        (place / "masks").mkdir(parents=True, exist_ok=True)
        if photos is None:
            (place / "images").mkdir(exist_ok=True)
        else:
            link_or_copy(photos[i], place / "images" / Path(image.file_name).name)
        number: dict[int, int] = defaultdict(int)
        for k in range(int(first[i]), int(first[i + 1])):
            category = int(dataset.category_ids[k])
            if dataset.crowd[k]:
                crowds += 1
                continue
            if not has_mask[k]:
                boxes += 1
                continue
            if not pixels.area(dataset.rle(k), image.size):
                empty += 1
                continue
            number[category] += 1
            seen.add(category)
            path = place / "masks" / f"{names[category]}_{number[category]}.png"
            save_png(dataset.mask(k).astype(np.uint8) * np.uint8(255), path)
            files += 1
            objects += 1
    return Written(files, objects, tuple(_notes(dataset, photos is None, seen, crowds, boxes, empty)))


def _photo_paths(dataset: Dataset) -> list[Path] | None:
    """Return where the photos are; `None` if it is not known.

    Raises:
        UserError: If it is known but photos are not there.
    """
    if dataset.folder is None:
        return None
    paths = [inside(dataset.folder, image.file_name) for image in dataset.images]
    gone = [str(path) for path in paths if not os.path.isfile(path)]
    if gone:
        raise UserError(
            f"{plural(len(gone), 'photo')} cannot be found, and this form holds the photos too",
            gone,
            "put the photos there",
        )
    return paths


def _notes(dataset: Dataset, bare: bool, seen: set[int], crowds: int, boxes: int, empty: int) -> Iterator[str]:
    if bare:
        yield "the photos are not known here: put each photo into its folder, <id>/images"
    if crowds:
        yield f"{plural(crowds, 'crowd')} left out, being many objects in one"
    if boxes:
        yield f"{plural(boxes, 'object')} left out: the file gives the box, not the mask"
    if empty:
        yield f"{plural(empty, 'object')} without a pixel left out"
    unused = [category.name for category in dataset.categories if category.id not in seen]
    if unused:
        named = plural(len(unused), "category")
        yield f"{named} without an object {'is' if len(unused) == 1 else 'are'} not in the files: {some(unused)}"
