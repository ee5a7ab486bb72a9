"""Category as folder name: `masks/<category>/<photo>.png` beside photos, or `<category>/{rgb,mask}`; also in splits.

A photo may have a mask image in several category folders. Each category's values are decided over by themselves: one
may be binary, another may number its objects.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import sha256
from maskwright.formats import Found, Reading, Skipped, Work, Written, outside, plural, some, subfolders
from maskwright.formats.coding import Census, decide, look
from maskwright.formats.instance_folders import find_tops
from maskwright.formats.layout import (
    named_pair,
    names_of_categories,
    pair_in,
    photos_in,
    pictures_in,
    some_pictures,
    split_folders,
    told_apart,
    told_apart_by_parents,
    unmatched,
)
from maskwright.formats.listing import one_category
from maskwright.formats.mask_files import ByCategory, Item, read_items
from maskwright.formats.names import stems
from maskwright.formats.pairing import RULES, Pairing, Place, Rule
from maskwright.formats.planes import Losses, drawn, paint, save_png
from maskwright.formats.split_folders import cut_split, first_folder_split, kept_splits
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "category-folders"
EXPECTS = "masks/<category>/<photo>.png beside a folder of photos, or <category>/{rgb,mask}, alone or inside train, val"

MOST_IDS = 65_535
"""So many objects of one photo and category have a value of their own in a 16-bit image."""

_LOOKED_AT = 20
"""So many mask images of a folder, and folders, are looked at to tell the form."""


@dataclass(frozen=True)
class _Beside:
    """A folder of photos, and one whose subfolders are categories."""

    photos: Path
    masks: Path
    split: str | None = None


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for folders of mask images that are named for categories."""
    if place.is_file():
        return None
    beside = _find_beside(place, settings)
    if beside:
        why = ", ".join(f"folders of categories in {one.masks}, of photos in {one.photos}" for one in beside)
        return Found(NAME, place, why, beside, tuple(folder for one in beside for folder in (one.photos, one.masks)))
    places = _find_inside(place, settings)
    if places:
        names = sorted({one.category or "" for one in places})
        why = f"folders of photos and mask images in folders of categories: {some(names)}"
        return Found(NAME, place, why, places, tuple(folder for one in places for folder in (one.photos, one.masks)))
    return None


def read(found: Found, work: Work) -> Reading:
    """Read photos and mask images; says what it understood before it reads them.

    Raises:
        UserError: With every problem that was found.
    """
    if isinstance(found.parts[0], Place):
        return _read_inside(found.parts, work)
    return _read_beside(found.parts, work)


# ── masks/<category>/<photo>.png ─────────────────────────────────────────────────────────────────────────────────────


def _find_beside(root: Path, settings: PrepareSettings) -> list[_Beside]:
    lenient = settings.form == NAME
    if settings.masks is not None:
        named = named_pair(root, settings)
        if named is not None:
            return _in_splits(*named, lenient) or ([_Beside(*named)] if _fits(*named, lenient) else [])
    photos, masks = pair_in(root, settings)
    if photos is not None and masks is not None:
        return _in_splits(photos, masks, lenient) or ([_Beside(photos, masks)] if _fits(photos, masks, lenient) else [])
    found = []
    for folder, split, _ in split_folders(root):
        photos, masks = pair_in(folder, settings)
        if photos is not None and masks is not None and _fits(photos, masks, lenient):
            found.append(_Beside(photos, masks, split))
    return found


def _in_splits(photos: Path, masks: Path, lenient: bool) -> list[_Beside]:
    """Return the places of `images/train` beside `masks/train/<category>`; empty if it is not of that form."""
    inside = {folder.name: folder for folder in subfolders(photos)}
    found = []
    for folder, split, _ in split_folders(masks):
        if folder.name in inside and _fits(inside[folder.name], folder, lenient):
            found.append(_Beside(inside[folder.name], folder, split))
    return found if len(found) == len(subfolders(masks)) else []


def _fits(photos: Path, masks: Path, lenient: bool) -> bool:
    """Tell from a few names whether the subfolders of a mask folder are categories."""
    if photos == masks or any("/" not in name for name in some_pictures(masks, _LOOKED_AT, [photos])):
        return False
    endings = {os.path.splitext(name)[1] for name in some_pictures(photos, 200, [masks])}
    looked = fitting = 0
    for folder in [folder for folder in subfolders(masks) if folder != photos][:_LOOKED_AT]:
        for name in some_pictures(folder, _LOOKED_AT):
            looked += 1
            stems_ = {rule[2](name) for rule in RULES[:3]}
            # A folder of photos with the same name: the two trees are alike, and the folders are no categories.
            if any(_is_there(photos, f"{folder.name}/{stem}", endings) for stem in stems_):
                return False
            fitting += any(_is_there(photos, stem, endings) for stem in stems_)
    return fitting > 0 and (lenient or 2 * fitting >= looked)


def _is_there(folder: Path, name: str, endings: set[str]) -> bool:
    return any(os.path.lexists(folder / f"{name}{ending}") for ending in endings) or (
        os.path.splitext(name)[1] in endings and os.path.lexists(folder / name)
    )


def _read_beside(places: Sequence[_Beside], work: Work) -> Reading:
    settings, say = work.settings, work.say
    used = {place.photos for place in places} | {place.masks for place in places}
    skipped = [*outside(work.root, used)]
    problems: list[Problem] = []
    items: list[Item] = []
    notes: list[str] = []
    found: list[tuple[_Beside, list[str], dict[int, list[tuple[str, str]]]]] = []
    folders: set[str] = set()
    for place in places:
        photos, odd = photos_in(place.photos, [place.masks])
        masks, also_odd = pictures_in(place.masks, [place.photos])
        skipped += [*odd, *also_odd]
        loose = [place.masks / name for name in masks if "/" not in name]
        if loose:
            problems.append(
                Problem(
                    "mask images lie beside the folders of categories",
                    tuple(str(path) for path in loose),
                    "put them into the folder of their category",
                )
            )
        masks = [name for name in masks if "/" in name]
        folders |= {name.partition("/")[0] for name in masks}
        owners, how, faults = _match(place, photos, masks)
        problems += faults
        if how:
            notes.append(f"photos and masks are paired {how}")
        found.append((place, photos, owners))
        told = f"{place.split}: " if place.split else ""
        say(
            f"understood: {told}{plural(len(photos), 'photo')} in {place.photos}, {len(owners):,} with"
            f" {plural(sum(map(len, owners.values())), 'mask image')} in {place.masks}"
        )
    named = {folder: unquote(folder) for folder in folders}
    one_category(set(named.values()), settings, "folders", "and there are folders of")
    categories = tuple(sorted({settings.category or name for name in named.values()}))
    _say_categories(categories, settings, work)
    alone = [place.photos / name for place, photos, owners in found for n, name in enumerate(photos) if n not in owners]
    faults, left_out = unmatched(alone, settings, "mask image")
    problems += faults
    skipped += left_out
    gone = {item.path for item in left_out}
    apart = told_apart_by_parents([place.photos for place in places], [place.split for place in places], work)
    for where, (place, photos, owners) in zip(apart, found, strict=True):
        for number, name in enumerate(photos):
            if place.photos / name in gone:
                continue
            files = owners.get(number, [])
            split, _ = (place.split, name) if place.split else first_folder_split(name)
            items.append(
                Item(
                    place.photos / name,
                    name,
                    tuple(place.masks / file for _, file in files),
                    tuple(settings.category or named[folder] for folder, _ in files),
                    place=where,
                    split=split,
                )
            )
    return _reading(items, categories, skipped, problems, notes, work, shorten=not places[0].split)


def _match(
    place: _Beside, photos: Sequence[str], masks: Sequence[str]
) -> tuple[dict[int, list[tuple[str, str]]], str, list[Problem]]:
    """Find the photo of each mask image by the strictest rule that fits most.

    Returns:
        For each photo that has such its `(category folder, mask image)`; by which rule, if not the strictest; and what
        is wrong.
    """
    best: dict[str, int] = {}
    how, most = "", -1
    for rule in RULES:
        known = _known(photos, rule)
        keys = [rule[2](name.partition("/")[2]) for name in masks]
        pairs = Counter(
            (name.partition("/")[0], key) for name, key in zip(masks, keys, strict=True) if known.get(key, -1) >= 0
        )
        fitting = sum(pairs.values())
        unique = max(pairs.values(), default=0) <= 1 and min(known.values(), default=0) >= 0
        if fitting > most and (unique or rule is RULES[0]):
            how = "" if rule is RULES[0] else rule[0]
            most = fitting
            best = {name: known[key] for name, key in zip(masks, keys, strict=True) if known.get(key, -1) >= 0}
        if fitting == len(masks) and unique:
            break
    owners: dict[int, list[tuple[str, str]]] = defaultdict(list)
    orphans, twice = [], []
    for name in masks:
        if name not in best:
            orphans.append(f"{place.masks / name}: no photo of this name in {place.photos}")
        else:
            owners[best[name]].append((name.partition("/")[0], name))
    for number, files in owners.items():
        several = [f for f, n in Counter(folder for folder, _ in files).items() if n > 1]
        for folder in several:
            names = " and ".join(str(place.masks / name) for one, name in files if one == folder)
            twice.append(f"{place.photos / photos[number]}: {names}")
    problems = []
    if orphans:
        what = f"{plural(len(orphans), 'mask image')} {'has' if len(orphans) == 1 else 'have'} no photo"
        fix = "add the photos, or remove these masks (upper and lower case differ)"
        problems.append(Problem(what, tuple(orphans), fix))
    if twice:
        problems.append(
            Problem(
                "photos have several mask images in the folder of one category",
                tuple(twice),
                "keep one mask image for each photo and category",
            )
        )
    return dict(owners), how, problems


def _known(photos: Sequence[str], rule: Rule) -> dict[str, int]:
    """Return the position of each photo by its key under a rule and by its whole name; -1 where a key means several."""
    known: dict[str, int] = {}
    for number, name in enumerate(photos):
        key = rule[1](name)
        known[key] = -1 if key in known else number
    if rule is RULES[0] and -1 in known.values():
        # Photos that differ in the ending only: their mask images keep the whole name.
        known = {key: number for key, number in known.items() if number >= 0}
        for number, name in enumerate(photos):
            known.setdefault(RULES[1][1](name), number)
    return known


# ── <category>/{rgb,mask} ────────────────────────────────────────────────────────────────────────────────────────────


def _find_inside(root: Path, settings: PrepareSettings) -> list[Place]:
    lenient = settings.form == NAME
    tops: list[tuple[Path, str | None]] = [(root, None)]
    tops += [(folder, split) for folder, split, _ in split_folders(root)]
    for some_tops in (tops[:1], tops[1:]):
        places = [place for folder, split in some_tops for place in _categories_in(folder, split, settings, lenient)]
        if places:
            return places
    return []


def _categories_in(top: Path, split: str | None, settings: PrepareSettings, lenient: bool) -> list[Place]:
    """Return the pairs of folders inside folders of categories; empty if any of these is named for a split."""
    if all(pair_in(top, settings)) or find_tops(top, settings):
        return []
    split_names = {folder for folder, _, _ in split_folders(top)}
    places: list[Place] = []
    for folder in subfolders(top):
        category = unquote(folder.name)
        photos, masks = pair_in(folder, settings)
        if photos is not None and masks is not None:
            if folder in split_names and not lenient:
                return []
            if not _pairs_up(photos, masks):
                continue
            places.append(Place(photos, masks, split, category))
        elif split is None and folder not in split_names:
            for inner, inner_split, _ in split_folders(folder):
                photos, masks = pair_in(inner, settings)
                if photos is not None and masks is not None and _pairs_up(photos, masks):
                    places.append(Place(photos, masks, inner_split, category))
    return places


def _pairs_up(photos: Path, masks: Path) -> bool:
    """Tell from a few names whether mask images have the names of photos."""
    endings = {os.path.splitext(name)[1] for name in some_pictures(photos, 200)}
    for name in some_pictures(masks, _LOOKED_AT):
        _, _, key = RULES[0]
        words = RULES[2][2](name)
        if _is_there(photos, key(name), endings) or any(
            _is_there(photos, f"{words}{word}", endings) for word in ("", "_rgb", "_image", "_img", "_photo")
        ):
            return True
    return False


def _read_inside(places: Sequence[Place], work: Work) -> Reading:
    settings, say = work.settings, work.say
    one_category({place.category or "object" for place in places}, settings, "folders", "and there are folders of")
    pairs = Pairing(places, settings)
    used = {place.photos for place in places} | {place.masks for place in places}
    skipped = [*pairs.skipped, *outside(work.root, used)]
    places = pairs.places
    names = [settings.category or place.category or "object" for place in places]
    for number, place in enumerate(places):
        told = f"{place.split}: " if place.split else ""
        counts = f"{plural(pairs.photos[number], 'photo')} in {place.photos}, {pairs.masks[number]:,} with a mask in"
        say(f"understood: {told}{counts} {place.masks}")
    categories = tuple(sorted(set(names)))
    _say_categories(categories, settings, work)
    problems = list(pairs.problems)
    if len({place.split is None for place in places}) > 1:
        lines = tuple(str(place.photos) for place in places if place.split is None)
        problems.append(
            Problem("some folders are in a split and others are not", lines, "put all into splits, or none")
        )
    of_category = [place.category or "" for place in places]
    apart = told_apart([place.photos for place in places], of_category, [place.split for place in places], work)
    by_name: dict[tuple[str | None, str], list[Item]] = {}
    for pair in pairs:
        place = places[pair.place]
        name = pair.name
        masks = () if pair.mask is None else (Path(pair.mask),)
        item = Item(Path(pair.photo), name, masks, (names[pair.place],) * len(masks), apart[pair.place], place.split)
        by_name.setdefault((place.split, name), []).append(item)
    items: list[Item] = []
    again: list[Path] = []
    for same in by_name.values():
        items += _merged(same, again)
    notes = list(pairs.notes)
    if again:
        skipped += [Skipped(path, "the same photo in the folder of another category") for path in again]
        notes.append(
            f"{plural(len(again), 'photo')} {'stands' if len(again) == 1 else 'stand'} in the folders of several"
            f" categories ({some(path.name for path in again)}): each is one photo with the objects of all"
        )
    return _reading(items, categories, skipped, problems, notes, work, shorten=False)


def _merged(same: list[Item], again: list[Path]) -> Iterator[Item]:
    """Make one of photos of one name and the same bytes: a photo may stand in the folder of each of its categories."""
    if len(same) == 1:
        yield same[0]
        return
    by_bytes: dict[str, list[Item]] = {}
    for item in same:
        try:
            digest = sha256(item.photo)
        except OSError:
            digest = str(item.photo)  # the reading says what is wrong with it
        by_bytes.setdefault(digest, []).append(item)
    for group in by_bytes.values():
        first = group[0]
        again += [item.photo for item in group[1:]]
        yield Item(
            first.photo,
            first.name,
            tuple(path for item in group for path in item.masks),
            tuple(category for item in group for category in item.categories),
            first.place,
            first.split,
        )


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _say_categories(categories: Sequence[str], settings: PrepareSettings, work: Work) -> None:
    source = "as you said" if settings.category else "from the folder names"
    if len(categories) == 1:
        work.say(f"understood: the objects are of the category '{categories[0]}' ({source})")
    else:
        work.say(f"understood: {len(categories)} categories: {', '.join(categories)} ({source})")


def _reading(
    items: list[Item],
    categories: tuple[str, ...],
    skipped: Collection[Skipped],
    problems: list[Problem],
    notes: list[str],
    work: Work,
    *,
    shorten: bool,
) -> Reading:
    splits, more = kept_splits((item.name, item.split) for item in items)
    notes += more
    if splits:
        work.say(f"understood: {splits}")
    # Only now is it known whether the first folders of the names are splits.
    ready = (_ready(item, bool(splits), shorten) for item in items)
    for note in notes:
        work.say(f"understood: {note}")
    objects = read_items(ready, work, ByCategory(work.settings.coding), problems)
    return Reading(
        form=NAME,
        coding=objects.coding,
        categories=categories,
        photos=objects.photos,
        skipped=tuple(skipped),
        splits=splits,
        mends=objects.mends,
        notes=(*notes, *objects.notes),
    )


def _ready(item: Item, split: bool, shorten: bool) -> Item:
    """Return a photo with its split, if splits are kept, and then without the folder of the split in its name."""
    name, place = cut_split(item.name, item.place) if split and shorten else (item.name, item.place)
    return replace(item, name=name, place=place, split=item.split if split else None)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write `<category>/<photo>.png`: one mask image per photo and category.

    In a category of which no photo has more than one object the images are binary, 0 and 255; in any other they are
    16-bit id images, value n being the photo's n-th object of that category. Where objects of a category overlap, the
    smaller is drawn on top (of detections that with the higher score), which is counted. A photo without objects gets
    an all-black image in the first category's folder, so that it is not taken for one that nobody marked.

    Args:
        dataset: Truth or detections.
        folder: Where to write; made if need be.

    Raises:
        UserError: Before anything is written, if a photo's name leads outside, a category cannot be a folder, or a
            photo has more objects of a category than 16 bits can number.
    """
    names = stems(dataset)
    folders = names_of_categories(dataset)
    losses = Losses()
    kept: list[NDArray[np.int64]] = []
    crowds = 0
    for _, objects in drawn(dataset, losses):
        single = objects[~dataset.crowd[objects]]
        crowds += len(objects) - len(single)
        kept.append(single)
    most = {category.id: 0 for category in dataset.categories}
    many = []
    for i, objects in enumerate(kept):
        for category, count in Counter(dataset.category_ids[objects].tolist()).items():
            most[category] = max(most[category], count)
            if count > MOST_IDS:
                many.append(f"{dataset.images[i].file_name}: {count:,} objects")
    if many:
        what = f"a 16-bit id image can number {MOST_IDS:,} objects, and photos have more"
        raise UserError(what, many, "use: --form instances")
    files = 0
    written: dict[int, list[Path]] = {category.id: [] for category in dataset.categories}
    for i, image in enumerate(dataset.images):
        categories = dataset.category_ids[kept[i]]
        wanted = [category.id for category in dataset.categories if (categories == category.id).any()]
        if not wanted and dataset.categories:
            wanted = [dataset.categories[0].id]
        if i == 0:  # so that a category without objects is known all the same
            wanted += [category for category, count in most.items() if not count and category not in wanted]
        for category in wanted:
            values = paint(dataset, i, kept[i][categories == category], losses)
            path = folder / folders[category] / f"{names[i]}.png"
            if most[category] > 1:
                _, visible = np.unique(np.append(0, values.ravel()), return_inverse=True)
                plane = visible[1:].reshape(image.size).astype(np.uint16)
            else:
                plane = (values > 0).astype(np.uint8) * np.uint8(255)
            save_png(plane, path)
            written[category].append(path)
            files += 1
    total = sum(map(len, kept))
    notes = [*_coding_notes(dataset, most, written), *losses.notes()]
    if crowds:
        notes.append(f"{plural(crowds, 'crowd')} left out, being many objects in one")
    return Written(files, total - len(losses.hidden), tuple(notes))


def _coding_notes(dataset: Dataset, most: dict[int, int], written: dict[int, list[Path]]) -> Iterator[str]:
    """Say which categories are binary and which numbered; and where the numbers do not tell that, say that too."""
    binary = [category.name for category in dataset.categories if 0 < most[category.id] <= 1]
    numbered = [category for category in dataset.categories if most[category.id] > 1]
    if binary:
        yield f"coding binary, 0 and 255: {', '.join(binary)} (at most one object in each photo)"
    if numbered:
        names = ", ".join(category.name for category in numbered)
        yield f"coding ids, 16 bit, value n is object n of its photo: {names}"
    for category in numbered:
        if most[category.id] < 100:
            continue  # small numbers are never taken for shades
        try:
            unclear = decide(Census((str(p), look(p)) for p in written[category.id]), None).coding != "ids"
        except UserError:
            unclear = True
        if unclear:
            yield f"the values of '{category.name}' can be taken for shades: prepare them with --coding ids"
