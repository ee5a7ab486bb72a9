"""Names of annotation files that hold a dataset in pieces: `instances_train-00003-of-00012.json`, counted from 0."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from maskwright.errors import UserError

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
    elif glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path)))
        what = "the pattern matches no file"
    else:
        found = shards_of(path.parent, path.stem)
        return _complete(found)
    if not found:
        raise UserError(what, [str(path)], f"name the file, or shards such as {shard_name('instances_train', 0, 12)}")
    if not path.is_dir() and not any(_SHARD.fullmatch(item.name) for item in found):
        return found  # a pattern names exactly what it names
    return _complete(found)


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
