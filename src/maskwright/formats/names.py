"""Names of written files: after the photo, safe on every file system, never two alike."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from maskwright.dataset import Dataset, inside
from maskwright.errors import Problem, UserError


def safe_name(name: str) -> str:
    """Write a category's name so that any file system takes it; `urllib.parse.unquote` gives it back.

    Example:
        >>> safe_name("nut/bolt 50%")
        'nut%2Fbolt 50%25'
    """
    return re.sub(r'[%/\\:*?"<>|\x00-\x1f\x7f]', lambda found: f"%{ord(found[0]):02X}", name)


def name_problems(dataset: Dataset) -> list[Problem]:
    """Return what keeps files from being named after the photos: names that lead outside, photos listed twice."""
    problems = []
    outside: list[str] = []
    for image in dataset.images:
        try:
            inside(Path(), image.file_name)
        except UserError as error:
            outside += error.problems[0].where
    if outside:
        fix = "make the names relative to the photo folder, without '..'"
        problems.append(Problem("file names in a data file must stay inside its folder", tuple(outside), fix))
    twice = tuple(name for name, n in Counter(image.file_name for image in dataset.images).items() if n > 1)
    if twice:
        problems.append(Problem("photos are listed more than once", twice, "list each photo once"))
    return problems


def stems(dataset: Dataset) -> list[str]:
    """Return for each photo the name of its files without an ending; subfolders are kept.

    Photos that differ in the ending only (`a.jpg` beside `a.png`) keep their whole file name.

    Raises:
        UserError: If a photo's name leads outside, or a photo is listed twice.

    Example:
        >>> from maskwright.dataset import Image
        >>> photos = [Image(1, "x/a.jpg", 1, 1), Image(2, "b.jpg", 1, 1), Image(3, "b.png", 1, 1)]
        >>> stems(Dataset.build([], photos, []))
        ['x/a', 'b.jpg', 'b.png']
    """
    problems = name_problems(dataset)
    if problems:
        raise UserError(problems)
    names = [image.file_name for image in dataset.images]
    short = [str(PurePosixPath(name).with_suffix("")) for name in names]
    count = Counter(stem.casefold() for stem in short)
    return [name if count[stem.casefold()] > 1 else stem for name, stem in zip(names, short, strict=True)]
