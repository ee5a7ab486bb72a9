"""What `prepare` refuses of an input that it understood: outputs that would harm it, and what cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from maskwright import files
from maskwright.errors import UserError
from maskwright.formats import Each, Found, Reading
from maskwright.shards import meant_by


class Harmless:
    """Refuses an output that would replace the input, or be read as input the next time.

    Args:
        out: The data folder to make.

    Example:
        >>> harmless = Harmless(Path("coco/train"))
        >>> harmless.beside({"coco/val"})
        >>> harmless.beside({"coco/val", "coco/train"})
        Traceback (most recent call last):
        maskwright.errors.UserError: the output must not be the input, hold it, or lie in a folder of photos or masks
          coco/train and coco/train
        fix: name another output folder
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._place = out.resolve()
        self._known: set[str] = set()

    def input(self, root: Path, found: Found) -> None:
        """Look at what the user named, before it is read.

        Args:
            root: The folder that holds it all.
            found: What it was recognised as.

        Raises:
            UserError: If the output is or holds it, or lies in a folder that the form reads whole.
        """
        named = [found.place] if found.place.is_dir() else meant_by(found.place)
        if any(self._holds(path) for path in [root, *named, *found.reads]) or any(map(self._lies_in, found.reads)):
            raise self._harmful([str(root)])

    def sources(self, paths: Iterable[Path]) -> None:
        """Look at the annotation files that were read.

        Raises:
            UserError: If the output is or holds the folder of one.
        """
        held = [str(folder) for folder in sorted({path.parent for path in paths}) if self._holds(folder)]
        if held:
            raise self._harmful(held)

    def beside(self, folders: set[str]) -> None:
        """Look at the folders of photos and mask images that were read; each is looked at once.

        Raises:
            UserError: If the output is or holds one, or lies in one.
        """
        new = sorted(folders - self._known)
        self._known.update(new)
        harmed = [folder for folder in new if self._holds(Path(folder)) or self._lies_in(Path(folder))]
        if harmed:
            raise self._harmful(harmed)

    def _holds(self, path: Path) -> bool:
        return files.real(path).is_relative_to(self._place)

    def _lies_in(self, folder: Path) -> bool:
        return self._place.is_relative_to(files.real(folder))

    def _harmful(self, where: Iterable[str]) -> UserError:
        return UserError(
            "the output must not be the input, hold it, or lie in a folder of photos or masks",
            [f"{self._out} and {path}" for path in where],
            "name another output folder",
        )


def refuse_no_text(reading: Reading, raw: Path) -> None:
    """Refuse names that cannot be written in a text file: halves of characters, which JSON can hold."""
    said = {
        **{f"category {name!r}": name for name in reading.categories},
        "info": json.dumps(dict(reading.info), ensure_ascii=False, default=str),
        "licenses": json.dumps([dict(item) for item in reading.licenses], ensure_ascii=False, default=str),
    }
    bad = [what for what, text in said.items() if not files.is_text(text)]
    if bad:
        where = ", ".join(str(path) for path in reading.sources[:3]) or str(raw)
        raise UserError(
            "names must be text that can be written as UTF-8",
            [f"{where}: {what.encode('ascii', 'backslashreplace').decode()}" for what in bad],
            "rename them",
        )


def refuse_tagged(reading: Reading, each: Each) -> None:
    """Refuse mask images that have an orientation of their own where that of their photo is to turn them."""
    masks = [mask for photo in reading.photos if photo.turn != 1 for mask, _ in photo.masks]
    tagged = [line for some_lines in each.pieces(_tagged, masks) for line in some_lines]
    if tagged:
        raise UserError(
            "mask images have an EXIF orientation of their own, and --mask-frame stored would turn them twice",
            tagged,
            "if these masks are shown as their photos are: leave out --mask-frame stored; else save them without it",
        )


def _tagged(masks: list[str]) -> list[str]:
    turns = [(mask, files.orientation_of(Path(mask))) for mask in masks]
    return [f"{mask}: orientation {turn}" for mask, turn in turns if turn != 1]
