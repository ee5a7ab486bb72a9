"""How folders and files of mask images are named: what is in a folder, which split its name tells, safe names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, is_side_file, is_text
from maskwright.formats import (
    MASK_NAMES,
    PHOTO_NAMES,
    Skipped,
    Work,
    plural,
    scan,
    subfolders,
    unreadable_names,
)
from maskwright.formats.folders import photo_folder
from maskwright.formats.names import safe_name
from maskwright.formats.planes import named_folder
from maskwright.formats.split_folders import split_and_category
from maskwright.settings import PrepareSettings


def pictures_in(folder: Path, without: Collection[Path] = ()) -> tuple[list[str], list[Skipped]]:
    """List the pictures under a folder: their names inside it, by name, and the fate of everything else.

    Args:
        folder: Where to look, subfolders included.
        without: Folders in it that are no part of it.

    Raises:
        UserError: If a name cannot be written in a text file.
    """
    out = tuple(f"{path.relative_to(folder).as_posix()}/" for path in without if folder in path.parents)
    names, skipped = [], []
    for name, why in scan(folder):
        if out and f"{name}/".startswith(out):
            continue
        if why:
            skipped.append(Skipped(folder / name, why))
        else:
            names.append(name)
    bad = [repr(str(folder / name)) for name in names if not is_text(name)]
    if bad:
        raise unreadable_names(sorted(bad))
    return sorted(names, key=lambda name: name.split("/")), sorted(skipped, key=lambda item: item.path.parts)


def photos_in(folder: Path, without: Collection[Path] = ()) -> tuple[list[str], list[Skipped]]:
    """List the photos under a folder, as `pictures_in` does."""
    names, skipped = pictures_in(folder, without)
    photos = [name for name in names if is_photo(name)]
    return photos, [*skipped, *(Skipped(folder / name, "no photo format") for name in names if not is_photo(name))]


def is_photo(name: str) -> bool:
    """Tell whether a file name's ending is one of photos."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def some_pictures(folder: Path, most: int, without: Collection[Path] = ()) -> list[str]:
    """Return the names of a few pictures under a folder, whichever are found first: enough to tell a form."""
    out = tuple(f"{path.relative_to(folder).as_posix()}/" for path in without if folder in path.parents)
    names = (name for name, why in islice(scan(folder), 40 * most) if not why)
    return list(islice((name for name in names if not (out and name.startswith(out))), most))


def split_folders(root: Path) -> list[tuple[Path, str, str | None]]:
    """Return the folders in a folder that are named for splits, with the split and the category that the name gives."""
    found = []
    for folder in subfolders(root):
        split, category = split_and_category(folder.name)
        if split is not None:
            found.append((folder, split, category))
    return found


def told_apart(
    folders: Sequence[Path], usual: Sequence[str], splits: Sequence[str | None], work: Work
) -> tuple[str, ...]:
    """Return what tells photo folders apart where they hold equal names, in short or, where that is not enough, whole.

    Args:
        folders: The folders of photos.
        usual: What tells each apart in short.
        splits: The split of each, within which names must differ; made anew, photos of any two may come into one.
        work: Whether splits are made anew, and the folder that holds it all.

    Returns:
        For each folder `usual`, if these differ; else its path in the folder that the user named.
    """
    kept = not work.settings.resplit
    if max(Counter((split if kept else None, name) for split, name in zip(splits, usual, strict=True)).values()) == 1:
        return tuple(usual)
    return tuple(
        folder.relative_to(work.root).as_posix() if work.root in folder.parents else folder.name for folder in folders
    )


def told_apart_by_parents(folders: Sequence[Path], splits: Sequence[str | None], work: Work) -> tuple[str, ...]:
    """Return what tells photo folders apart, in short the name of the folder above; nothing where there is just one."""
    if len(folders) == 1:
        return ("",)
    return told_apart(folders, [folder.parent.name for folder in folders], splits, work)


def pair_in(folder: Path, settings: PrepareSettings) -> tuple[Path | None, Path | None]:
    """Return the folders of photos and of masks in a folder, by their usual names or those that the user gave."""
    inside = {path.name.lower(): path for path in subfolders(folder)}

    def one(given: str | None, usual: Sequence[str]) -> Path | None:
        if given is not None:
            return inside.get(given.lower()) or named_folder(folder, given)
        return next((inside[name] for name in usual if name in inside), None)

    return one(settings.photos, PHOTO_NAMES), one(settings.masks, MASK_NAMES)


def named_pair(root: Path, settings: PrepareSettings) -> tuple[Path, Path] | None:
    """Return the folders of photos and masks where the user named that of masks, by its path or its name in `root`."""
    masks = named_folder(root, settings.masks)
    if masks is None:
        return None
    photos: Path | None = root
    if settings.photos is not None:
        photos = named_folder(root, settings.photos)
    elif masks.parent == root:
        photos = photo_folder(root) or root
    if photos is None or photos.resolve() == masks.resolve():
        return None
    return photos, masks


def unmatched(alone: Sequence[Path], settings: PrepareSettings, what: str) -> tuple[list[Problem], list[Skipped]]:
    """Return what becomes of photos without a mask image: an error, or their being left out, as the user said.

    Args:
        alone: These photos.
        settings: `unmatched` says it.
        what: What they do not have, such as `mask file`.
    """
    if settings.unmatched == "skip":
        return [], [Skipped(path, "photo without a mask, left out as you said") for path in alone]
    if settings.unmatched == "empty" or not alone:
        return [], []
    fix = "draw them; or for photos without objects: --unmatched empty; or leave the photos out: --unmatched skip"
    title = f"{plural(len(alone), 'photo')} {'has' if len(alone) == 1 else 'have'} no {what}"
    return [Problem(title, tuple(str(path) for path in alone), fix)], []


def visible_name(name: str) -> str:
    """Write a name so that any file system takes it and no reader passes it over as hidden; `unquote` gives it back.

    Example:
        >>> visible_name("a/b"), visible_name(".."), visible_name("__MACOSX")
        ('a%2Fb', '%2E.', '%5F_MACOSX')
    """
    safe = safe_name(name)
    if not is_side_file(Path(safe)):
        return safe
    return "".join(f"%{byte:02X}" for byte in safe[:1].encode()) + safe[1:]


def names_of_categories(dataset: Dataset) -> dict[int, str]:
    """Return for each category's id its name as a file name.

    Raises:
        UserError: If a name is empty, or differs from another in letter case only.
    """
    problems = []
    if any(not category.name for category in dataset.categories):
        problems.append(Problem("a category has no name", (), "give it a name"))
    same: dict[str, list[str]] = {}
    for category in dataset.categories:
        same.setdefault(category.name.casefold(), []).append(category.name)
    clash = tuple(" and ".join(names) for names in same.values() if len(names) > 1)
    if clash:
        what = "categories have the same name but for letter case, which some file systems do not tell apart"
        problems.append(Problem(what, clash, "rename these categories"))
    if problems:
        raise UserError(problems)
    return {category.id: visible_name(category.name) for category in dataset.categories}
