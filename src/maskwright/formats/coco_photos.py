"""Where the photos of a COCO file are: the file says a name, and the folder is a matter of habit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.dataset import inside
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, is_file, real
from maskwright.formats import PHOTO_NAMES, SPLIT_NAMES, Tally, plural, subfolders, walk
from maskwright.settings import PrepareSettings
from maskwright.shards import unnumbered


@dataclass
class Source:
    """One COCO file: where it is, its parsed text, its split, and (once looked for) the files of its photos.

    Of one that is in shards, `path` is the name without numbers, and `shards` are where it is.
    """

    path: Path
    document: dict[str, Any]
    split: str | None = None
    shards: tuple[Path, ...] = ()
    folder: Path = Path()
    files: list[Path] = field(default_factory=list)

    @property
    def read(self) -> tuple[Path, ...]:
        """The files that were read for it."""
        return self.shards or (self.path,)


def _places(source: Source, root: Path, settings: PrepareSettings) -> list[Path]:
    """Return the folders where the photos of a COCO file may be, most likely first."""
    stem = unnumbered(source.path).stem
    tails = [stem.removeprefix("instances_"), stem.rpartition("_")[2], stem]
    if source.split:
        tails += [name for name, split in SPLIT_NAMES.items() if split == source.split]
    if settings.photos is not None:
        tops = [root / settings.photos, Path(settings.photos)]
        folders = [folder / tail for folder in tops for tail in tails] + tops
    else:
        tops = list(dict.fromkeys([root, source.path.parent, source.path.parent.parent]))
        named = [p for top in tops for name in PHOTO_NAMES for p in subfolders(top) if p.name.lower() == name]
        folders = [folder / tail for folder in [*tops, *named] for tail in tails]
        folders += [*tops[:2], *named, tops[-1]]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def find_photos(source: Source, root: Path, settings: PrepareSettings, tally: Tally, problems: list[Problem]) -> None:
    """Find the file of every photo: in the first folder that has all, else by file name where only one has it.

    Args:
        source: Gets its `folder` and `files`.
        root: The folder that the user named.
        settings: `photos` names the folder, where it cannot be told.
        tally: Gets photos that lie elsewhere than the file says.
        problems: What was found before.

    Raises:
        UserError: With `problems` and the photos that cannot be found, or whose names lead outside.
    """
    images = source.document["images"]
    bad = [
        f"{source.path}: images[{number}] needs an id and a file_name"
        for number, item in enumerate(images)
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("file_name"), str)
    ]
    if bad:
        problems.append(Problem("the COCO file has photos that cannot be read", tuple(bad), "mend these entries"))
        raise UserError(problems)
    unsafe: list[str] = []
    for item in images:
        try:
            inside(Path(), item["file_name"])
        except UserError as error:
            unsafe += [f"{source.path}: {line}" for line in error.problems[0].where]
    if unsafe:
        problems.append(
            Problem(
                "file names in a data file must stay inside its folder",
                tuple(unsafe),
                "make the names relative to the photo folder, without '..'",
            )
        )
        raise UserError(problems)
    names = [item["file_name"] for item in images]
    places = _places(source, root, settings)
    have = [sum(is_file(folder / name) for name in names) for folder in places]
    best = max(range(len(places)), key=lambda i: (have[i], -i)) if places else None
    source.folder = places[best] if best is not None else root
    source.files = [source.folder / name for name in names]
    if best is not None and have[best] == len(names):
        return
    by_name: dict[str, set[Path]] = defaultdict(set)
    for folder in places:
        near = folder in {root, source.path.parent.parent} and settings.photos is None
        pictures = [p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES] if near else walk(folder)[0]
        for path in pictures:
            by_name[path.name].add(real(path))
    searched = ", ".join(str(folder) for folder in {real(folder): folder for folder in reversed(places)}.values())
    lost: list[str] = []
    for number, name in enumerate(names):
        if is_file(source.files[number]):
            continue
        base = name.replace("\\", "/").rpartition("/")[2]
        found = sorted(by_name.get(base, ()))
        if len(found) == 1:
            source.files[number] = _as_typed(found[0], places)
            tally.add(
                "photos found by their name in another folder than the file says", f"{name} in {found[0].parent.name}/"
            )
        elif found:
            lost.append(f"{name}: found more than once: {' and '.join(str(p) for p in found[:3])}")
        else:
            lost.append(f"{name}: not found in {searched}" if searched else f"{name}: there is no folder to search")
    if source.files and best is not None and not have[best]:
        source.folder = source.files[0].parent
    if lost:
        problems.append(
            Problem(
                f"{plural(len(lost), 'photo')} of {source.path} cannot be found",
                tuple(lost),
                "put the photos beside the file or in images/, or say where they are: --photos FOLDER",
            )
        )
        raise UserError(problems)


def _as_typed(path: Path, places: Iterable[Path]) -> Path:
    """Return a resolved path below the shortest of the folders that the user named."""
    for folder in sorted(places, key=lambda p: len(p.parts), reverse=True):
        if path.is_relative_to(real(folder)):
            return folder / path.relative_to(real(folder))
    return path
