"""Names of annotation files that hold a dataset in pieces: `instances_train-00003-of-00012.json`, counted from 0."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from maskwright.errors import UserError
from maskwright.objects import SPLITS

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,})-of-(?P<total>\d{5,})\.json", re.DOTALL)


def shard_name(stem: str, number: int, total: int) -> str:
    """Return the file name of one shard.

    Example:
        >>> shard_name("instances_train", 3, 12)
        'instances_train-00003-of-00012.json'
    """
    return f"{stem}-{number:05d}-of-{total:05d}.json"


def shards_of(folder: Path, stem: str) -> list[Path]:
    """Return every shard of a stem in a folder, by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    found = ((_SHARD.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(path for match, path in found if match and match["stem"] == stem)


def unnumbered(path: Path) -> Path:
    """Return the name without numbers of a shard; that of another file is its own.

    Example:
        >>> unnumbered(Path("instances_train-00003-of-00012.json")).name
        'instances_train.json'
    """
    match = _SHARD.fullmatch(path.name)
    return path.with_name(f"{match['stem']}.json") if match else path


def split_files(data: Path, split: str) -> list[Path]:
    """Return the files with a split's annotations in a prepared data folder: one, or its shards; none: no such split.

    Raises:
        UserError: If shards are missing.
    """
    return named_files(data / "annotations" / f"instances_{split}.json")


def named_files(path: Path) -> list[Path]:
    """Return the file of a name, or else the shards for which the name stands, in order; empty if there are none.

    Raises:
        UserError: If shards are missing.
    """
    return [path] if path.is_file() else _complete(shards_of(path.parent, path.stem))


def coco_files(path: Path) -> list[Path]:
    """Return the file that a path names, or the shards that it stands for as `find_shards` says."""
    return [path] if path.is_file() else find_shards(path)


def meant_by(path: Path) -> list[Path]:
    """Return everything that a path to be read stands for, so that no output replaces it: itself, or shards.

    What cannot be read is left for the reading to refuse.
    """
    try:
        found = coco_files(path)
    except (UserError, OSError):
        found = []
    return [path, *found] if path.is_dir() else found or [path]


def parts_of(data: Path) -> list[Path]:
    """Return a prepared data folder and what it is made of, as far as it is there, so that no output replaces it."""
    place = data / "annotations"
    files = [file for split in SPLITS for file in meant_by(place / f"instances_{split}.json")]
    return [path for path in [data, place, *(data / split for split in SPLITS), *files] if path.exists()]


def means_coco(path: Path) -> bool:
    """Tell whether a path means a COCO file: one that ends in .json, or shards by any way of naming them."""
    if path.is_dir():
        return any(_SHARD.fullmatch(item.name) for item in path.iterdir())
    if path.is_file():
        return path.suffix.lower() == ".json"
    found = shards_of(path.parent, path.stem)
    if not found:
        found = _matching(path) or []
    return bool(found) and all(item.suffix.lower() == ".json" for item in found)


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a COCO file is needed, unless shards of one lie in it.

    Raises:
        UserError: If it is such a folder.
    """
    if path.is_dir() and not means_coco(path):
        raise UserError(
            "a COCO file is needed, and this is a folder",
            [str(path)],
            "name the file, for example DATA/annotations/instances_val.json or OUT/detections.json",
        )


def photos_beside(path: Path) -> Path | None:
    """Return where `prepare` laid the photos of annotations: DATA/val for DATA/annotations/instances_val.json.

    Args:
        path: The file; or shards, by any way of naming them.

    Returns:
        The folder; `None` if there is none there.
    """
    names = {unnumbered(file if file.parent.name == "annotations" else file.resolve()) for file in coco_files(path)}
    if len(names) != 1:
        return None
    name = names.pop()
    folder = name.parent.parent / name.stem.removeprefix("instances_")
    return folder if name.parent.name == "annotations" and folder.is_dir() else None


def find_shards(path: Path) -> list[Path]:
    """Find the shards that a folder, a pattern or the name without numbers stands for.

    Args:
        path: A folder of shards of one stem; a pattern (`*`, `?`, `[...]`); or `instances_train.json` for
            `instances_train-00000-of-00012.json` and so on.

    Returns:
        All shards, in order; empty if `path` is a file name for which there are no shards.

    Raises:
        UserError: If shards are missing, or the folder or pattern leads to none, or to those of several datasets.
    """
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if _SHARD.fullmatch(item.name))
        what = "the folder has no shards of a COCO file"
    elif named := shards_of(path.parent, path.stem):
        return _complete(named)
    else:
        matching = _matching(path)
        if matching is None:
            return []
        found = matching
        what = "the pattern matches no file"
    if not found:
        raise UserError(what, [str(path)], f"name the file, or shards such as {shard_name('instances_train', 0, 12)}")
    if not path.is_dir() and not any(_SHARD.fullmatch(item.name) for item in found):
        return found  # a pattern names exactly what it names
    return _complete(found)


def _matching(path: Path) -> list[Path] | None:
    """Return the files that a pattern matches, by name; `None` if the path is no pattern.

    What is there by its very name is no pattern, such as the folder `data [v2]`.
    """
    folder = next((folder for folder in path.parents if folder.is_dir()), Path(path.anchor))
    rest = str(path.relative_to(folder))
    if not glob.has_magic(rest):
        return None
    return sorted(Path(name) for name in glob.glob(os.path.join(glob.escape(str(folder)), rest)))


def _complete(found: Iterable[Path]) -> list[Path]:
    """Return the shards in order once they are known to be all shards of one dataset."""
    groups: dict[tuple[str, int], dict[int, Path]] = defaultdict(dict)
    odd = []
    for path in found:
        match = _SHARD.fullmatch(path.name)
        if match is None:
            odd.append(str(path))
        else:
            groups[match["stem"], int(match["total"])][int(match["number"])] = path
    if odd:
        raise UserError("files that are no shards lie among the shards", odd, "name the shards alone")
    if len(groups) > 1:
        raise UserError(
            "the shards belong to several datasets",
            [
                f"{next(iter(shards.values())).parent / stem}: {len(shards):,} of {total:,} shards"
                for (stem, total), shards in sorted(groups.items())
            ],
            "name one of them, such as 'instances_train-*.json', and remove what an earlier run left",
        )
    for (stem, total), shards in groups.items():
        folder = next(iter(shards.values())).parent
        missing = [str(folder / shard_name(stem, n, total)) for n in range(total) if n not in shards]
        if missing:
            raise UserError(
                f"shards of the dataset are missing: {len(missing):,} of {total:,}", missing, "copy or write them anew"
            )
        surplus = [str(shards[n]) for n in shards if n >= total]
        if surplus:
            raise UserError(f"shards are numbered from 0 to {total - 1:,}", surplus, "write the shards anew")
        return [shards[number] for number in range(total)]
    return []
