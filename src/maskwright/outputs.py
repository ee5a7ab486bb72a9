"""Which folders are outputs of ours: `--overwrite` replaces no others, and `predict` looks for no photos in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from maskwright import __version__
from maskwright.errors import Problem, UserError
from maskwright.files import photo_files, real, write_json

Verb = Literal["prepare", "compose", "train", "import-weights", "predict", "masks", "demo"]
"""The verbs that make a folder which `--overwrite` replaces as a whole."""

MARK = ".maskwright"
"""The file, hidden since the folder is read by `prepare` and other tools, of what has no other sign of who made it."""

_SIGNS: dict[Verb, tuple[str, ...]] = {
    "prepare": ("prepare.json",),
    "compose": ("compose.json",),
    "train": ("run.json",),
    "import-weights": ("run.json",),
    "predict": ("detections.json", "masks"),
}
"""What such a folder always holds; those of the other verbs hold `MARK`."""

_MOST_NAMES = 5


def put_mark(folder: Path, verb: Verb) -> None:
    """Write into an output that is being made which verb makes it; no time, since equal worlds have equal bytes."""
    write_json(folder / MARK, {"verb": verb, "maskwright": __version__})


def is_former(folder: Path, verb: Verb) -> bool:
    """Tell whether a folder is what a verb made before."""
    if verb in _SIGNS:
        return all((folder / name).is_dir() if name == "masks" else (folder / name).is_file() for name in _SIGNS[verb])
    try:
        found = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("verb") == verb


def irreplaceable(path: Path, verb: Verb, *, overwrite: bool) -> Problem | None:
    """Say why an output cannot take the place of what is there, whatever the user allows; `None` if it can.

    It can take that of nothing, of an empty folder, and of a former output of the verb; never that of the current
    working directory or of a folder that holds it.

    Args:
        path: Where the output shall be.
        verb: Which makes it.
        overwrite: Whether the user said so, which is then answered.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        return Problem("the output is a folder, and a file has its name", (str(path),), "name another output")
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        return Problem("the output exists already", (f"{path}: {error.strerror}",), "name another output")
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    holds = f"{path}: {', '.join(names[:_MOST_NAMES]) or 'empty'}{more}"
    if _holds_the_user(path):
        what = "the output must not be the current working directory, or hold it: it would be replaced"
        return Problem(what, (holds,), "name another output")
    if not names or is_former(path, verb):
        return None
    what = f"the output exists already, and is no former output of {verb}"
    if overwrite:
        what += ", the only thing that --overwrite replaces"
    return Problem(what, (holds,), "name another output, or remove the folder by hand if nothing in it is needed")


def refuse_existing_folder(path: Path, verb: Verb, *, overwrite: bool) -> None:
    """Refuse an output folder that exists, unless it is empty, or a former output of the verb that may be replaced.

    Raises:
        UserError: With `--overwrite` as the fix only where it helps.
    """
    problem = irreplaceable(path, verb, overwrite=overwrite)
    if problem is not None:
        raise UserError([problem])
    if not overwrite and path.exists() and any(path.iterdir()):
        raise UserError("the output exists already", [str(path)], "name another output, or: --overwrite")


def _holds_the_user(path: Path) -> bool:
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return False
    return real(here).is_relative_to(real(path))


def photos_apart(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the photos under a folder as `photo_files` does, and apart from them the pictures in outputs of ours.

    Those are `masks` beside a `detections.json`, as `predict` and `make` leave them, and folders that the verb `masks`
    made. The folder itself was named by the user, who may mean it.
    """
    ours: dict[Path, bool] = {folder: False}

    def is_ours(place: Path) -> bool:
        if place not in ours:
            drawn = place.name == "masks" and (place.parent / "detections.json").is_file()
            ours[place] = drawn or is_former(place, "masks") or is_ours(place.parent)
        return ours[place]

    photos: list[Path] = []
    left_out: list[Path] = []
    for path in photo_files(folder):
        (left_out if is_ours(path.parent) else photos).append(path)
    return photos, left_out
