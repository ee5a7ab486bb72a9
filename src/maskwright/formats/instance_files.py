"""One mask file per object: `<photo>_<category>_<n>.png` beside a folder of photos, or `<id>/images` and `<id>/masks`.

The first is how pycococreator and `maskwright masks --form instances` name files, the second the layout of the Data
Science Bowl 2018, which `instance_folders` knows. A mask file belongs to the photo whose whole name it begins with,
followed by `_`: `1.jpg` never takes the masks of `10.jpg`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from maskwright.errors import Problem, UserError
from maskwright.formats import Found, Reading, Skipped, Work, outside, plural, subfolders
from maskwright.formats.instance_folders import find_tops, read_tops
from maskwright.formats.layout import (
    named_pair,
    pair_in,
    photos_in,
    pictures_in,
    some_pictures,
    split_folders,
    told_apart_by_parents,
    unmatched,
)
from maskwright.formats.listing import one_category
from maskwright.formats.mask_files import Item, OneEach, read_items
from maskwright.formats.pairing import MASK_WORDS, Place
from maskwright.formats.split_folders import cut_split, first_folder_split, kept_splits
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "instance-files"
EXPECTS = "a folder of photos beside a folder of mask files <photo>_<category>_<n>.png, or <id>/images and <id>/masks"

_LOOKED_AT = 50
"""So many mask files are looked at to tell the form."""

_MOST_FOLDERS = 12
"""Among more folders than this none is tried whose name says nothing."""


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for mask files that are named after photos, or for a folder per photo."""
    if place.is_file():
        return None
    # A folder per photo is looked for first: its mask files may also begin with the name of some other photo.
    tops = [] if settings.masks is not None else find_tops(place, settings)
    if tops:
        folders = ", ".join(str(top.folder) for top in tops)
        return Found(NAME, place, f"a folder per photo, with images and masks inside, in {folders}", tops, (place,))
    places = _places(place, settings, settings.form == NAME)
    if not places:
        return None
    why = ", ".join(f"one mask file per object in {one.masks}, of photos in {one.photos}" for one in places)
    return Found(NAME, place, why, places, tuple(folder for one in places for folder in (one.photos, one.masks)))


def read(found: Found, work: Work) -> Reading:
    """Read photos and mask files; says what it understood before it reads them.

    Raises:
        UserError: With every problem that was found.
    """
    if not isinstance(found.parts[0], Place):
        return read_tops(NAME, found.parts, work)
    return _read_flat(found.parts, work)


# ── the flat layout ──────────────────────────────────────────────────────────────────────────────────────────────────


def _places(root: Path, settings: PrepareSettings, lenient: bool) -> list[Place]:
    """Return the pairs of folders whose mask files are named after the photos."""
    tops: list[tuple[Path, str | None, str | None]] = [(root, None, None)]
    if settings.masks is not None:
        named = named_pair(root, settings)
        if named is not None:
            return [Place(*named)] if claims(*named, lenient=lenient) else []
    tops += split_folders(root)
    places = []
    for top, split, category in tops:
        pair = _pair(top, settings, lenient)
        if pair is not None:
            places.append(Place(*pair, split, category))
            if top == root:
                break
    return places


def _pair(top: Path, settings: PrepareSettings, lenient: bool) -> tuple[Path, Path] | None:
    """Return the folders of photos and of mask files in a folder; what their names say comes first."""
    photos, masks = pair_in(top, settings)
    if masks is not None and not some_pictures(masks, 1):
        masks = None  # `annotations` often holds COCO files
    inside = subfolders(top)
    if len(inside) > _MOST_FOLDERS and (photos is None or masks is None):
        return None
    fitting = [
        (p, m)
        for p in (inside if photos is None else [photos])
        for m in (inside if masks is None else [masks])
        if p != m and claims(p, m, lenient=lenient)
    ]
    if not fitting and photos is None and masks is not None and masks.parent == top and settings.photos is None:
        fitting = [(top, masks)] if claims(top, masks, lenient=lenient) else []
    if len(fitting) > 1:
        raise UserError(
            "several folders hold mask files named after photos",
            [f"{m}, after the photos in {p}" for p, m in fitting],
            "say which: --photos FOLDER, and name the mask folder after it: maskwright prepare PHOTOS MASKS -o DATA",
        )
    return fitting[0] if fitting else None


def claims(photos: Path, masks: Path, *, lenient: bool = False) -> bool:
    """Tell from a few names whether a folder holds one mask file per object of the photos in another.

    Args:
        photos: The folder of photos.
        masks: The folder of mask files.
        lenient: One file that fits is enough.
    """
    endings = {os.path.splitext(name)[1] for name in some_pictures(photos, 200, [masks])}
    looked = some_pictures(masks, _LOOKED_AT, [photos])
    numbered, plain, categories = 0, 0, set()
    for name in looked:
        stem = name.rpartition(".")[0]
        if any(os.path.lexists(photos / f"{stem}{ending}") for ending in endings):
            if not lenient:
                return False  # that is one mask image per photo
            continue
        rests = [rest for photo, rest in _cuts(stem) if _is_there(photos, photo, endings)]
        if any(_NUMBERED.fullmatch(rest) for rest in rests):
            numbered += 1
        elif rests:
            plain += 1
            categories.add(rests[0])
    if lenient:
        return numbered + plain > 0
    if numbered:
        return 2 * numbered >= len(looked)
    usual = {category for category in categories if category.lower() in MASK_WORDS}
    return plain == len(looked) and len(categories) > 1 and not usual


_NUMBERED = re.compile(r"(?:(.+)_)?([0-9]+)", re.DOTALL)


def _cuts(stem: str) -> Iterator[tuple[str, str]]:
    """Yield every way to cut a mask file's name at `_` into a photo's name and the rest, longest photo first."""
    start = stem.rfind("/") + 1
    at = stem.rfind("_")
    while at > start:
        if stem[at + 1 :]:
            yield stem[:at], stem[at + 1 :]
        at = stem.rfind("_", start, at)


def _is_there(folder: Path, name: str, endings: set[str]) -> bool:
    return any(os.path.lexists(folder / f"{name}{ending}") for ending in endings) or (
        os.path.splitext(name)[1] in endings and os.path.lexists(folder / name)
    )


@dataclass(frozen=True)
class _Place:
    """A pair of folders with the names in it, and which mask file is of which photo."""

    place: Place
    photos: list[str]
    masks: list[str]
    owners: dict[int, list[tuple[int, str, str]]]  # photo: (n, category, mask file), all in order


def _read_flat(places: Sequence[Place], work: Work) -> Reading:
    settings, say = work.settings, work.say
    problems: list[Problem] = []
    skipped: list[Skipped] = [
        *outside(work.root, {place.photos for place in places} | {place.masks for place in places})
    ]
    read: list[_Place] = []
    notes: list[str] = []
    numbered = False
    for place in places:
        photos, odd = photos_in(place.photos, [place.masks])
        masks, also_odd = pictures_in(place.masks, [place.photos])
        skipped += [*odd, *also_odd]
        owners, how, numbered_here, faults = _match(place, photos, masks)
        numbered |= numbered_here
        problems += faults
        if how:
            notes.append(f"photos and mask files are matched {how}")
        read.append(_Place(place, photos, masks, owners))
    names = {category for one in read for found in one.owners.values() for _, category, _ in found}
    one_category(names - {""}, settings, "mask files", "and the names of the mask files give")
    if "" in names and len(names) > 1 and settings.category is None:
        bare = [
            str(one.place.masks / file)
            for one in read
            for found in one.owners.values()
            for _, c, file in found
            if not c
        ]
        problems.append(
            Problem(
                "some mask files name a category and others do not",
                tuple(bare),
                "name all of them <photo>_<category>_<n>, or none",
            )
        )
    alone = [
        one.place.photos / name for one in read for number, name in enumerate(one.photos) if number not in one.owners
    ]
    faults, left_out = unmatched(alone, settings, "mask file")
    problems += faults
    skipped += left_out
    for one in read:
        told = f"{one.place.split}: " if one.place.split else ""
        files = sum(map(len, one.owners.values()))
        say(
            f"understood: {told}{plural(len(one.photos), 'photo')} in {one.place.photos}, {len(one.owners):,} with"
            f" {plural(files, 'mask file')} in {one.place.masks}"
        )
    category_of = _categories(names, read, settings)
    categories = tuple(sorted(set(category_of.values())))
    say(f"understood: {_told_categories(categories, names, settings, read)}")
    apart = told_apart_by_parents([place.photos for place in places], [place.split for place in places], work)
    items = [*_items(read, category_of, apart, {item.path for item in left_out})]
    told_splits, more = kept_splits((item.name, item.split) for item in items)
    notes += more
    if told_splits:
        say(f"understood: {told_splits}")
    else:
        items = [*_items(read, category_of, apart, {item.path for item in left_out}, split=False)]
    for note in notes:
        say(f"understood: {note}")
    objects = read_items(items, work, OneEach(settings.coding), problems)
    if not numbered:
        notes.append("the mask files are not numbered: at most one object per photo and category")
    return Reading(
        form=NAME,
        coding=objects.coding,
        categories=categories,
        photos=objects.photos,
        skipped=tuple(skipped),
        splits=told_splits,
        mends=objects.mends,
        notes=(*notes, *objects.notes),
    )


def _categories(names: set[str], read: Sequence[_Place], settings: PrepareSettings) -> dict[tuple[str, str], str]:
    """Return the category for each name in the files, and name that the folder gives."""
    result = {}
    for name in names:
        for one in read:
            of_folder = one.place.category or ""
            result[name, of_folder] = settings.category or name or of_folder or "object"
    return result


def _told_categories(
    categories: Sequence[str], names: set[str], settings: PrepareSettings, read: Sequence[_Place]
) -> str:
    source = "from the names of the mask files"
    if settings.category:
        source = "as you said"
    elif names <= {""}:
        named = any(one.place.category for one in read)
        source = "from the folder names" if named else "no name tells it; --category NAME gives another"
    if len(categories) == 1:
        return f"the objects are of the category '{categories[0]}' ({source})"
    return f"{len(categories)} categories: {', '.join(categories)} ({source})"


def _items(
    read: Sequence[_Place],
    category_of: dict[tuple[str, str], str],
    apart: Sequence[str],
    left_out: set[Path],
    split: bool = True,
) -> Iterator[Item]:
    for one, where in zip(read, apart, strict=True):
        for number, name in enumerate(one.photos):
            photo = one.place.photos / name
            if photo in left_out:
                continue
            found = one.owners.get(number, [])
            in_split = one.place.split or first_folder_split(name)[0]
            short, place = cut_split(name, where) if split and not one.place.split else (name, where)
            yield Item(
                photo,
                short,
                tuple(one.place.masks / file for _, _, file in found),
                tuple(category_of[category, one.place.category or ""] for _, category, _ in found),
                place=place,
                split=in_split if split else None,
            )


# ── which mask file is of which photo ────────────────────────────────────────────────────────────────────────────────


def _same(name: str) -> str:
    return name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS writes accents in another way than Linux and Windows


def _base(name: str) -> str:
    return name.rpartition("/")[2]


_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", _same),
    ("by the same letters, however accents are written", _composed),
    ("by file name, in whatever subfolder", lambda name: _base(_composed(name))),
)
"""How a mask file's name may begin with its photo's, strictest first."""

_Cut = tuple[int, str, int]  # photo, category, n


def _match(
    place: Place, photos: Sequence[str], masks: Sequence[str]
) -> tuple[dict[int, list[tuple[int, str, str]]], str, bool, list[Problem]]:
    """Find the photo of each mask file.

    Returns:
        For each photo that has such its mask files; by which rule, if not the strictest; whether the files are
        numbered; and what is wrong.
    """
    best: list[list[tuple[int, str]]] = []
    how, most = "", -1
    for told, key in _RULES:
        known = _known(photos, key)
        cuts = [
            [(known[photo], rest) for photo, rest in _cuts(key(mask).rpartition(".")[0]) if photo in known]
            for mask in masks
        ]
        fitting = sum(any(photo >= 0 for photo, _ in found) for found in cuts)
        if fitting > most:
            best, how, most = cuts, told, fitting
        if fitting == len(masks):
            break
    numbered = any(_NUMBERED.fullmatch(rest) for found in best for _, rest in found)
    parsed = [_parsed(found, numbered) for found in best]
    sure = {found[0][1] for found in parsed if len(found) == 1}
    owners: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    orphans, misnamed, unclear, twins = [], [], [], []
    for mask, found, all_cuts in zip(masks, parsed, best, strict=True):
        path = place.masks / mask
        if not found and all_cuts:
            misnamed.append(f"{path}: {photos[all_cuts[0][0]] if all_cuts[0][0] >= 0 else 'its photo'} and no number")
            continue
        if not found:
            orphans.append(f"{path}: its name does not begin with that of a photo in {place.photos} and '_'")
            continue
        likely = [cut for cut in found if cut[1] in sure] if len(found) > 1 else found
        if len(likely) > 1:
            ways = [f"{photos[p]} with {c or 'no category'}" for p, c, _ in likely[:3]]
            unclear.append(f"{path}: {' or '.join(ways)}")
            continue
        photo, category, number = (likely or found)[0]
        if photo < 0:
            twins.append(str(path))
            continue
        owners[photo].append((number, category, mask))
    for files in owners.values():
        files.sort()
    problems = []
    if orphans:
        what = f"{plural(len(orphans), 'mask file')} {'has' if len(orphans) == 1 else 'have'} no photo"
        fix = "add the photos, or remove these mask files (upper and lower case differ)"
        problems.append(Problem(what, tuple(orphans), fix))
    if misnamed:
        is_ = "is" if len(misnamed) == 1 else "are"
        problems.append(
            Problem(
                f"{plural(len(misnamed), 'mask file')} {is_} not named <photo>_<category>_<n> as the others are",
                tuple(misnamed),
                "rename them, or remove them",
            )
        )
    if unclear:
        problems.append(
            Problem(
                f"{plural(len(unclear), 'mask file')} can be of more than one photo by name",
                tuple(unclear),
                "rename these photos with their mask files, so that no photo's name goes on like another's",
            )
        )
    if twins:
        problems.append(
            Problem(
                "photos have the same name but for the ending or the folder, so that mask files can be of either",
                tuple(twins),
                "rename one of these photos with its mask files, or name mask files with the photo's ending:"
                " x.jpg_nut_1.png",
            )
        )
    return dict(owners), how, numbered, problems


def _known(photos: Sequence[str], key: Callable[[str], str]) -> dict[str, int]:
    """Return the position of each photo by its name without and with its ending; -1 where a name means several."""
    known: dict[str, int] = {}
    for number, name in enumerate(photos):
        for one in {key(name), key(name).rpartition(".")[0]}:
            known[one] = -1 if one in known else number
    return known


def _parsed(found: Sequence[tuple[int, str]], numbered: bool) -> list[_Cut]:
    """Read what follows the photo's name as category and number."""
    cuts = []
    for photo, rest in found:
        match = _NUMBERED.fullmatch(rest)
        if numbered and match is None:
            continue
        category, number = (rest, 0) if match is None else (match[1] or "", _number(match[2]))
        cuts.append((photo, unquote(category), number))
    return cuts


def _number(digits: str) -> int:
    return int(digits[:18])  # only the order counts
