"""Two folders that are named, photos and masks: what the second one is if it holds no mask images."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from pathlib import Path

from maskwright.errors import Problem, UserError
from maskwright.files import UnreadableImage, real, sha256
from maskwright.formats import PHOTO_NAMES, scan
from maskwright.formats.coding import Values, look
from maskwright.settings import FormName, PrepareSettings

ANNOTATED: tuple[FormName, ...] = ("coco", "labelme", "via", "yolo", "cvat", "label-studio")
"""Forms whose annotation files may have the photos beside them."""

LOOKED_AT = 5
"""So many pictures of each folder are looked at."""

FEW_VALUES = 8
"""A grey picture of no more values than this beside 0 is no photo."""

MANY_COLOURS = 256
"""A picture of more colours than this is no mask, whatever its edges are."""


def annotation_forms(masks: Path, photos: Path, form: FormName | None) -> tuple[FormName, ...]:
    """Return the forms of annotation files to look for in a folder of masks that has pictures; empty: it holds masks.

    Its pictures are photos if the user says a form of annotation files, if those of the same names in the photo folder
    are the very same, or, of YOLO, if all lie in folders named for photos.

    Args:
        masks: What was named second.
        photos: What was named first.
        form: What the user said, if anything.
    """
    if not masks.is_dir() or not photos.is_dir() or (form is not None and form not in ANNOTATED):
        return ()
    if form is not None and not real(masks).is_relative_to(real(photos)):
        return (form,)
    if not any(name.lower().endswith(_ENDINGS) for name, _ in scan(masks)):  # as usual
        return ()
    forms: tuple[FormName, ...] = ()
    if _same(nsmallest(LOOKED_AT, _pictures(masks)), masks, photos):
        forms = ANNOTATED
    elif all(not _PHOTOS.isdisjoint(name.lower().split("/")[:-1]) for name in _pictures(masks)):
        forms = ("yolo",)
    return forms if form is None else tuple(one for one in forms if one == form)


_ENDINGS = (".json", ".txt", ".xml")
_PHOTOS = frozenset(PHOTO_NAMES)


def _pictures(folder: Path) -> Iterator[str]:
    """Yield the name inside a folder of every picture; there may be millions."""
    return (name for name, why in scan(folder) if not why)


def _same(some: list[str], masks: Path, photos: Path) -> bool:
    """Tell whether some pictures in a folder are those of their names in another."""
    others: dict[str, list[Path]] = {name.rpartition("/")[2]: [] for name in some}
    top, inner = real(photos), real(masks)
    for name in _pictures(photos):
        same = others.get(name.rpartition("/")[2])
        if same is not None and len(same) < LOOKED_AT and not (top / name).is_relative_to(inner):
            same.append(top / name)
    return all(any(_equal(masks / name, other) for other in others[name.rpartition("/")[2]]) for name in some)


def _equal(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or (one.stat().st_size == other.stat().st_size and sha256(one) == sha256(other))
    except OSError:
        return False


@contextlib.contextmanager
def exchange_told(photos: Path, settings: PrepareSettings) -> Iterator[None]:
    """Where reading fails, say if photos and masks look exchanged, from which all else that is wrong follows.

    That is said too if the user said how the masks are stored, having thought about it.
    """
    try:
        yield
    except UserError as error:
        problem = exchanged(photos, settings)
        if problem is None:
            raise
        said = settings.form or settings.coding or settings.colours or settings.object_value is not None
        raise UserError([*(error.problems if said else ()), problem]) from None


def exchanged(photos: Path, settings: PrepareSettings) -> Problem | None:
    """Say that photos and masks look exchanged, if the first hold few grey values and the second are colourful.

    Args:
        photos: What was named first.
        settings: `masks` is what was named second.
    """
    masks = None if settings.masks is None else Path(settings.masks)
    if masks is None or not masks.is_dir() or not photos.is_dir():
        return None
    if real(masks).is_relative_to(real(photos)) or real(photos).is_relative_to(real(masks)):
        return None
    first, second = _looks(photos), _looks(masks)
    if not first or not second or not all(map(_is_mask, first)) or not any(one.top for one in first):
        return None
    if not all(one.kind == "colour" and one.distinct > MANY_COLOURS for one in second):
        return None
    return Problem(
        "photos and masks look exchanged: the photos hold few values, and the masks are colourful pictures",
        (f"{photos}: {first[0]}", f"{masks}: {second[0]}"),
        f"maskwright prepare {shlex.quote(str(masks))} {shlex.quote(str(photos))} -o DATA; if they are not"
        " exchanged, say how the masks are stored: --coding, --colours or --form",
    )


def _looks(folder: Path) -> list[Values]:
    """Look at a few pictures of a folder; empty if one of them cannot be read."""
    try:
        return [look(folder / name) for name in islice(_pictures(folder), LOOKED_AT)]
    except (OSError, UnreadableImage):
        return []


def _is_mask(values: Values) -> bool:
    return values.kind != "colour" and (values.reads_as_binary or (values.distinct <= FEW_VALUES and not values.lossy))
