"""Photo and mask image in one folder, with one stem: `x.jpg` and `x.png`, or `x_rgb.png` and `x_seg.png`.

Which of the two is the photo is told by a word in the name; where there is none, by what the pictures hold: a mask has
few values in areas, a photo does not. Where that does not tell it either, the user is asked.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from maskwright.errors import Problem
from maskwright.files import UnreadableImage, read_raw
from maskwright.formats import Found, Reading, Work, outside, plural, subfolders
from maskwright.formats.coding import MOST_COLOURS, look
from maskwright.formats.layout import is_photo, pair_in, pictures_in, some_pictures, unmatched
from maskwright.formats.mask_files import ByCategory, Item, read_items
from maskwright.formats.pairing import MASK_WORDS, PHOTO_WORDS
from maskwright.formats.split_folders import first_folder_split, kept_splits, split_and_category
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "same-folder"
EXPECTS = "photo and mask image in one folder with one stem: x.jpg and x.png, or x.jpg and x_mask.png"

_LOOKED_AT = 200
"""So many files are looked at to tell the form; by name only."""

_OPENED = 5
"""So many pairs of a kind are opened to tell which is the photo."""

_FLAT = 0.8
"""In a mask, at least this share of pixels is like the pixel to the left; in photos far fewer are."""

Role = Literal["photo", "mask", ""]


@dataclass(frozen=True)
class _Named:
    """A picture, what its name says it is, the name without the word that says it, and what that word was."""

    name: str
    role: Role
    key: str
    before: str = ""
    after: str = ""

    @property
    def ending(self) -> str:
        """The file name's ending, lower case."""
        return os.path.splitext(self.name)[1].lower()


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for photos and mask images that lie side by side."""
    if place.is_file() or settings.masks is not None:
        return None
    lenient = settings.form == NAME
    if not lenient and any(all(pair_in(folder, settings)) for folder in (place, *subfolders(place)[:_OPENED])):
        return None  # photos and masks have folders of their own
    looked = [_read_name(name) for name in some_pictures(place, _LOOKED_AT)]
    dresses = [dress for dress, _ in Counter(_dress(one) for one in looked).most_common(8)]
    if len(dresses) < 2:
        return None
    groups: dict[str, set[str]] = defaultdict(set)
    for one in looked:
        groups[one.key] |= {one.name, *_partners(place, one, dresses)}
    pairs = [_pair([_read_name(name) for name in sorted(names)]) for names in groups.values() if len(names) == 2]
    joined = sum(len(names) > 1 for names in groups.values())
    if not pairs or (not lenient and 4 * joined < len(looked)):
        return None
    kinds = defaultdict(list)
    for a, b in pairs:
        kinds[_kind(a, b)].append((a, b))
    if not lenient and all(_photo_first(place, some) == "neither" for some in kinds.values()):
        return None
    example = " and ".join(one.name for one in pairs[0])
    return Found(NAME, place, f"photos and mask images side by side, such as {example}", None, (place,))


def read(found: Found, work: Work) -> Reading:
    """Read photos and mask images; says what it understood before it reads them.

    Raises:
        UserError: With every problem that was found.
    """
    place, settings, say = found.place, work.settings, work.say
    names, skipped = pictures_in(place)
    groups: dict[str, list[_Named]] = defaultdict(list)
    for name in names:
        one = _read_name(name)
        groups[one.key].append(one)
    several = [group for group in groups.values() if len(group) > 2]
    single = [group[0] for group in groups.values() if len(group) == 1]
    kinds: dict[tuple[str, str], list[tuple[_Named, _Named]]] = defaultdict(list)
    for group in groups.values():
        if len(group) == 2:
            a, b = _pair(group)
            kinds[_kind(a, b)].append((a, b))
    problems: list[Problem] = []
    pairs: list[tuple[_Named, _Named]] = []
    unclear: list[str] = []
    for same in kinds.values():
        which = _photo_first(place, same)
        if which in {"first", "second"}:
            pairs += same if which == "first" else [(b, a) for a, b in same]
        else:
            unclear += [f"{place / a.name} and {place / b.name}" for a, b in same]
    if several:
        lines = tuple(", ".join(str(place / one.name) for one in group) for group in several)
        problems.append(Problem("more than two pictures have one stem", lines, "keep one photo and one mask image"))
    if unclear:
        problems.append(
            Problem(
                "it cannot be told which picture is the photo and which the mask image",
                tuple(unclear),
                "name the mask images x_mask.png, or put photos and masks into folders called photos and masks",
            )
        )
    alone, faults = _alone(place, single, pairs)
    problems += faults
    faults, left_out = unmatched([place / one.name for one in alone], settings, "mask image")
    problems += faults
    skipped += left_out
    wrong = [place / photo.name for photo, _ in pairs if not is_photo(photo.name)]
    if wrong:
        lines = tuple(str(path) for path in wrong)
        problems.append(Problem("photos have a format that photos do not have", lines, "save them as JPEG or PNG"))
    say(
        f"understood: {plural(len(pairs) + len(alone), 'photo')} in {place}, {len(pairs):,} with a mask image beside it"
    )
    kept = [*((photo, mask) for photo, mask in pairs), *((one, None) for one in alone if not left_out)]
    kept.sort(key=lambda pair: pair[0].name.split("/"))
    told, notes = kept_splits((photo.name, first_folder_split(photo.name)[0]) for photo, _ in kept)
    categories = sorted({_category(photo.name, settings) for photo, _ in kept})
    source = "as you said" if settings.category else "from the folder names"
    if not settings.category and categories == ["object"]:
        source = "no folder name tells it; --category NAME gives another"
    if len(categories) == 1:
        say(f"understood: the objects are of the category '{categories[0]}' ({source})")
    else:
        say(f"understood: {len(categories)} categories: {', '.join(categories)} ({source})")
    for line in [*([told] if told else []), *notes]:
        say(f"understood: {line}")
    objects = read_items(
        _items(place, kept, settings, bool(told)), work, ByCategory(settings.coding, together=True), problems
    )
    return Reading(
        form=NAME,
        coding=objects.coding,
        categories=tuple(categories),
        photos=objects.photos,
        skipped=(*skipped, *outside(work.root, {place})),
        splits=told,
        mends=objects.mends,
        notes=(*notes, *objects.notes),
    )


def _items(
    place: Path, kept: Sequence[tuple[_Named, _Named | None]], settings: PrepareSettings, split: bool
) -> Iterator[Item]:
    for photo, mask in kept:
        of_split, short = first_folder_split(photo.name)
        masks = () if mask is None else (place / mask.name,)
        yield Item(
            place / photo.name,
            short if split else photo.name,
            masks,
            (_category(photo.name, settings),) * len(masks),
            place=photo.name.partition("/")[0] if split else "",
            split=of_split if split else None,
        )


def _category(name: str, settings: PrepareSettings) -> str:
    first, slash, _ = name.partition("/")
    return settings.category or (split_and_category(first)[1] if slash else None) or "object"


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_name(name: str) -> _Named:
    """Read a name as photo or mask image, if a word at its end or start says it."""
    stem = unicodedata.normalize("NFC", name.rpartition(".")[0])
    folder, slash, base = stem.rpartition("/")
    lower = base.lower()
    roles: tuple[tuple[Role, Sequence[str]], ...] = (("mask", MASK_WORDS), ("photo", PHOTO_WORDS))
    for role, words in roles:
        for word in words:
            for joint in "_-.":
                if lower.endswith(joint + word) and len(base) > len(word) + 1:
                    return _Named(name, role, f"{folder}{slash}{base[: -len(word) - 1]}", after=base[-len(word) - 1 :])
                if lower.startswith(word + joint) and len(base) > len(word) + 1:
                    return _Named(name, role, f"{folder}{slash}{base[len(word) + 1 :]}", before=base[: len(word) + 1])
    return _Named(name, "", stem)


def _dress(one: _Named) -> tuple[str, str]:
    """Return what stands before and after the stem in a name, ending included."""
    return one.before, one.after + os.path.splitext(one.name)[1]


def _partners(place: Path, one: _Named, dresses: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the pictures that have the stem of another and are named in one of the usual ways of the folder."""
    folder, slash, base = one.key.rpartition("/")
    for before, after in dresses:
        other = f"{folder}{slash}{before}{base}{after}"
        if other != one.name and _read_name(other).key == one.key and os.path.lexists(place / other):
            yield other


def _pair(two: Sequence[_Named]) -> tuple[_Named, _Named]:
    """Put two pictures of one stem in order: the photo first where a word says it, else by ending."""
    a, b = sorted(two, key=lambda one: (one.role == "mask", one.role != "photo", one.ending, one.name))
    return a, b


def _kind(a: _Named, b: _Named) -> tuple[str, str]:
    """Return what pairs must share so that what is seen of one holds for the other."""
    return f"{a.role}{a.ending}", f"{b.role}{b.ending}"


def _alone(
    place: Path, single: Sequence[_Named], pairs: Sequence[tuple[_Named, _Named]]
) -> tuple[list[_Named], list[Problem]]:
    """Tell photos without a mask image from mask images without a photo, by word and ending."""
    photo_like = {(photo.role, photo.ending) for photo, _ in pairs}
    mask_like = {(mask.role, mask.ending) for _, mask in pairs}
    photos, orphans, unclear = [], [], []
    for one in single:
        kind = (one.role, one.ending)
        if one.role == "photo" or (kind in photo_like and kind not in mask_like):
            photos.append(one)
        elif one.role == "mask" or (kind in mask_like and kind not in photo_like):
            orphans.append(f"{place / one.name}: no photo {one.key}.* beside it")
        else:
            unclear.append(str(place / one.name))
    problems = []
    if orphans:
        what = f"{plural(len(orphans), 'mask image')} {'has' if len(orphans) == 1 else 'have'} no photo"
        fix = "add the photos, or remove these masks (upper and lower case differ)"
        problems.append(Problem(what, tuple(orphans), fix))
    if unclear:
        problems.append(
            Problem(
                f"{plural(len(unclear), 'picture')} without a partner can be photo or mask image",
                tuple(unclear),
                "remove them, or put photos and masks into folders called photos and masks",
            )
        )
    return photos, problems


# ── what the pictures hold ───────────────────────────────────────────────────────────────────────────────────────────


def _photo_first(place: Path, pairs: Sequence[tuple[_Named, _Named]]) -> str:
    """Tell which of the two pictures is the photo in pairs of one kind.

    Returns:
        `first`, `second`; `neither` where no picture is a mask; `unclear`.
    """
    if pairs[0][1].role == "mask" and pairs[0][0].role != "mask":
        return "first"
    step = max(1, len(pairs) // _OPENED)
    votes = Counter(_vote(place / a.name, place / b.name) for a, b in pairs[::step][:_OPENED])
    del votes["broken"]
    if len(votes) == 1:
        return next(iter(votes))
    return "unclear"


def _vote(a: Path, b: Path) -> str:
    try:
        first, second = _mask_kind(a), _mask_kind(b)
    except (UnreadableImage, OSError):
        return "broken"
    if not first and not second:
        return "neither"
    if bool(first) != bool(second):
        return "second" if first else "first"
    if "colour" in {first, second} and first != second:
        return "first" if first == "colour" else "second"
    return "unclear"


def _mask_kind(path: Path) -> str:
    """Return where the values of a mask image come from (see `coding.Values`); empty if it looks like a photo."""
    values = look(path)
    if values.kind == "colour" and values.distinct > MOST_COLOURS:
        return ""
    if values.kind != "colour" and values.reads_as_binary:
        return values.kind
    array, _ = read_raw(path)
    if array.shape[1] < 2:
        return ""
    same = array[:, 1:] == array[:, :-1]
    flat = float(np.mean(same if same.ndim == 2 else same.all(axis=2)))
    return values.kind if flat >= _FLAT else ""
