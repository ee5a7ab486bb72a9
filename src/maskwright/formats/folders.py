"""Photos and mask images in folders: find the folders, pair the files, read every mask.

Understood are a pair of folders (`rgb` and `mask`, `images` and `masks`, ...), a pair in each split folder
(`hammer_train/{rgb,mask}`, `train/{images,masks}`), split folders inside the pair (`images/train`, `masks/train`), and
two folders that the user names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, UnreadableImage, sha256, verify_photo
from maskwright.formats import (
    MASK_NAMES,
    PHOTO_NAMES,
    SPLIT_NAMES,
    Mark,
    Photo,
    Reading,
    Say,
    Tally,
    in_threads,
    outside,
    plural,
    some,
    subfolders,
)
from maskwright.formats.coding import Decision, Values, decide, look, masks_of
from maskwright.formats.pairing import Pair, Place, empty_folders, pair_all
from maskwright.formats.runs import part_areas
from maskwright.pixels import Size
from maskwright.settings import PrepareSettings

LARGE_PART = 0.2
"""A part counts as large from this share of its mask on: less is a crumb."""


@dataclass(frozen=True)
class _Seen:
    """What one look at a photo and its mask found."""

    size: Size = (0, 0)
    stored: Size = (0, 0)
    orientation: int = 1
    photo_hash: str = ""
    photo_fault: str = ""
    values: Values | None = None
    mask_hash: str = ""
    mask_fault: str = ""


def find(root: Path, settings: PrepareSettings) -> list[Place]:
    """Return the pairs of photo and mask folders under a folder; empty if there is none.

    Args:
        root: The folder that the user named.
        settings: `photos` and `masks` add names to those that are looked for.
    """
    pair = _pair(root, settings)
    if pair is not None:
        return _split_inside(pair) or [pair]
    places = []
    for folder in subfolders(root):
        split, category = split_and_category(folder.name)
        inner = _pair(folder, settings) if split else None
        if inner is not None:
            places.append(Place(inner.photos, inner.masks, split, category))
    return places


def photo_folder(folder: Path) -> Path | None:
    """Return the folder inside a folder whose name means photos, if there is one."""
    inside = {path.name.lower(): path for path in subfolders(folder)}
    return next((inside[name] for name in PHOTO_NAMES if name in inside), None)


def split_and_category(name: str) -> tuple[str | None, str | None]:
    """Read a folder name as split and category.

    Example:
        >>> split_and_category("hammer_validate"), split_and_category("test"), split_and_category("misc")
        (('val', 'hammer'), ('test', None), (None, None))
    """
    split = SPLIT_NAMES.get(name.lower())
    if split:
        return split, None
    for joint in "_-. ":
        head, found, tail = name.rpartition(joint)
        if found and head and tail.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[tail.lower()], head
    return None, None


def missing(root: Path) -> UserError:
    """Say that no photos with masks were found, what was there, and what would be understood."""
    seen = []
    for folder in [root, *(inner for outer in subfolders(root) for inner in [outer, *subfolders(outer)])]:
        count = sum(1 for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
        seen.append(f"{folder}: {plural(count, 'picture')}")
    outer_folders = [root, *(folder for folder in subfolders(root) if split_and_category(folder.name)[0])]
    with_photos = [folder for folder in outer_folders if photo_folder(folder) is not None]
    empty = [path for folder in with_photos for path in subfolders(folder) if path.name.lower() in MASK_NAMES]
    if empty:
        return UserError([empty_folders(empty)])
    return UserError(
        "there is a folder of photos but no folder of mask images beside it"
        if with_photos
        else "no folders of photos and mask images and no COCO file were found",
        seen,
        f"name the folder of photos {_or(PHOTO_NAMES)} and that of masks {_or(MASK_NAMES)}, alone or inside folders"
        " like x_train, x_validate, x_test; or name both: maskwright prepare PHOTOS MASKS -o DATA",
    )


def read(places: Sequence[Place], root: Path, settings: PrepareSettings, say: Say) -> Reading:
    """Read photos and mask images; says what it understood before it reads them.

    Args:
        places: From `find`, or made from what the user named.
        root: The folder that the user named; every file in it is accounted for.
        settings: What the user said.
        say: Called with what was understood.

    Raises:
        UserError: With every problem that was found.
    """
    names = [settings.category or place.category or "object" for place in places]
    categories = tuple(sorted(set(names)))
    splits = _splits_text(places)
    pairs, skipped, notes, problems = pair_all(places, settings)
    used = {place.photos for place in places} | {place.masks for place in places}
    skipped += outside(root, used)
    for place in places:
        photos = [pair for pair in pairs if pair.place is place]
        masks = sum(pair.mask is not None for pair in photos)
        told = f"{place.split}: " if place.split else ""
        counts = f"{plural(len(photos), 'photo')} in {place.photos}, {masks:,} with a mask in {place.masks}"
        say(f"understood: {told}{counts}")
    source = "as you said" if settings.category else "from the folder names"
    if not settings.category and not any(place.category for place in places):
        source = "no folder name tells it; --category NAME gives another"
    say(f"understood: {_categories_text(categories)} ({source})")
    if splits:
        say(f"understood: {splits}")
    for note in notes:
        say(f"understood: {note}")
    problems += _category_problems(places, names)
    seen = in_threads(_look, pairs)
    problems += _faults(pairs, seen, settings)
    looked = [(str(p.mask), s.values) for p, s in zip(pairs, seen, strict=True) if s.values is not None]
    decision = None
    try:
        decision = decide(looked, settings.coding)
    except UserError as error:
        problems += error.problems
    if problems or decision is None:
        raise UserError(problems)
    if not pairs:
        raise UserError("there is no photo", [str(place.photos) for place in places], "check the folders")
    say(f"understood: mask values are {decision.why}: {_meaning(decision, settings)}")
    objects = in_threads(lambda item: _objects(*item, decision), list(zip(pairs, seen, strict=True)))
    if not any(found.rles for found in objects):
        raise UserError(
            "no mask image marks an object: all are black",
            [_seen_text(pair, one) for pair, one in zip(pairs, seen, strict=True) if pair.mask is not None],
            "export the masks again, with objects in white (or as values 1..N)",
        )
    notes += _what_was_seen(pairs, seen, objects, settings)
    category_of = dict(zip(places, names, strict=True))
    photos_read = tuple(
        Photo(
            path=pair.photo,
            name=pair.photo.relative_to(pair.place.photos).as_posix(),
            place="" if len(places) == 1 else _place_name(pair.place, root),
            split=pair.place.split,
            size=one.size,
            sha256=one.photo_hash,
            marks=tuple(Mark(category_of[pair.place], rle) for rle in found.rles),
            mask=(pair.mask, one.mask_hash) if pair.mask is not None else None,
        )
        for pair, one, found in zip(pairs, seen, objects, strict=True)
    )
    return Reading(
        form="folders",
        coding=decision.coding,
        categories=categories,
        photos=photos_read,
        skipped=tuple(skipped),
        splits=splits,
        mends=_mends(pairs, seen, objects, decision, settings).mends(),
        notes=tuple(notes),
    )


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pair(folder: Path, settings: PrepareSettings) -> Place | None:
    inside = {path.name.lower(): path for path in subfolders(folder)}

    def one(given: str | None, usual: Sequence[str]) -> Path | None:
        if given is not None:
            path = folder / given
            return path if path.is_dir() else None
        return next((inside[name] for name in usual if name in inside), None)

    photos, masks = one(settings.photos, PHOTO_NAMES), one(settings.masks, MASK_NAMES)
    if photos is None or masks is None:
        return None
    if settings.masks is None and not _has_picture(masks):  # `annotations` often holds COCO files
        return None
    return Place(photos, masks)


def _has_picture(folder: Path) -> bool:
    return any(path.suffix.lower() in PHOTO_SUFFIXES | {".gif"} for path in folder.rglob("*"))


def _split_inside(pair: Place) -> list[Place]:
    """Return one place per split for `images/train` beside `masks/train`; empty if the pair is not of that form."""
    masks = {path.name: path for path in subfolders(pair.masks)}
    places = []
    for folder in subfolders(pair.photos):
        split, category = split_and_category(folder.name)
        if split is None or folder.name not in masks:
            return []
        places.append(Place(folder, masks[folder.name], split, category))
    return places


def _place_name(place: Place, root: Path) -> str:
    return place.photos.relative_to(root).as_posix() if root in place.photos.parents else place.photos.name


def _splits_text(places: Sequence[Place]) -> str:
    have = sorted({place.split for place in places if place.split}, key=["train", "val", "test"].index)
    if not have:
        return ""
    return f"splits are kept as the folders give them ({', '.join(have)})"


def _categories_text(categories: Sequence[str]) -> str:
    if len(categories) == 1:
        return f"the objects are of the category '{categories[0]}'"
    return f"{len(categories)} categories: {', '.join(categories)}"


def _category_problems(places: Sequence[Place], names: Sequence[str]) -> list[Problem]:
    by_split: dict[str, set[str]] = defaultdict(set)
    for place, name in zip(places, names, strict=True):
        by_split[place.split or ""].add(name)
    if len({frozenset(found) for found in by_split.values()}) <= 1:
        return []
    lines = tuple(f"{split}: {', '.join(sorted(found))}" for split, found in by_split.items())
    return [Problem("the categories differ between the splits", lines, "name the folders alike, or: --category NAME")]


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(pair: Pair) -> _Seen:
    try:
        size, stored, orientation = verify_photo(pair.photo)
    except UnreadableImage as error:
        return _Seen(photo_fault=str(error))
    photo_hash = sha256(pair.photo)
    values, mask_hash, mask_fault = None, "", ""
    if pair.mask is not None:
        try:
            values = look(pair.mask)
            mask_hash = sha256(pair.mask)
        except UnreadableImage as error:
            mask_fault = str(error)
    return _Seen(size, stored, orientation, photo_hash, "", values, mask_hash, mask_fault)


def _faults(pairs: Sequence[Pair], seen: Sequence[_Seen], settings: PrepareSettings) -> list[Problem]:
    bad = [f"{pair.photo}: {one.photo_fault}" for pair, one in zip(pairs, seen, strict=True) if one.photo_fault]
    bad += [f"{pair.mask}: {one.mask_fault}" for pair, one in zip(pairs, seen, strict=True) if one.mask_fault]
    turned, shaped, sized = [], [], []
    for pair, one in zip(pairs, seen, strict=True):
        if one.values is None or one.values.size == one.size:
            continue
        line = f"{pair.mask} is {_text(one.values.size)}, {pair.photo} is {_text(one.size)}"
        if one.values.size == one.stored:
            turned.append(f"{line} when shown and {_text(one.stored)} as stored (EXIF orientation {one.orientation})")
        elif not _same_shape(one.values.size, one.size):
            shaped.append(line)
        else:
            sized.append(line)
    problems = []
    if bad:
        problems.append(
            Problem(
                f"{plural(len(bad), 'picture file')} cannot be read",
                tuple(bad),
                "replace these files, or remove them together with their mask or photo",
            )
        )
    if turned:
        problems.append(
            Problem(
                f"{plural(len(turned), 'mask image')} {'fits' if len(turned) == 1 else 'fit'} the photo as the camera"
                " stored it, not as it is shown: the photo has an EXIF orientation",
                tuple(turned),
                "turn these masks as the photos are shown, or draw them again on photos saved upright; scaling would be"
                " wrong",
            )
        )
    if shaped:
        problems.append(
            Problem(
                f"{plural(len(shaped), 'mask image')} {'has' if len(shaped) == 1 else 'have'} another shape than the"
                " photo",
                tuple(shaped),
                "check that photo and mask belong together, and export the mask at the photo's size",
            )
        )
    if sized and not settings.resize_masks:
        differ = "1 mask image differs in size from its photo"
        problems.append(
            Problem(
                differ if len(sized) == 1 else f"{len(sized):,} mask images differ in size from their photo",
                tuple(sized),
                "export the masks at full size, or scale them: --resize-masks",
            )
        )
    return problems


def _same_shape(a: Size, b: Size) -> bool:
    """Tell whether two sizes have the same aspect, up to 2 % or the rounding to whole pixels."""
    ratio = (a[0] * b[1]) / max(a[1] * b[0], 1)
    slack = max(0.02, 1.5 / max(min(a), 1), 1.5 / max(min(b), 1))
    return 1 - slack <= ratio <= 1 + slack


@dataclass(frozen=True)
class _Objects:
    """The objects of one mask image; of a single one also how many large parts it has, and its share of the photo."""

    rles: tuple[bytes, ...] = ()
    large: int = 0
    share: float = 0.0


def _objects(pair: Pair, one: _Seen, decision: Decision) -> _Objects:
    if pair.mask is None or one.values is None:
        return _Objects()
    rles = masks_of(pair.mask, one.values, decision, one.size)
    if decision.coding == "ids" or not rles:
        return _Objects(tuple(rles))
    areas = part_areas(rles[0], one.size)
    large = int((areas >= LARGE_PART * areas.sum()).sum())
    return _Objects(tuple(rles), large, float(areas.sum()) / (one.size[0] * one.size[1]))


def _mends(
    pairs: Sequence[Pair],
    seen: Sequence[_Seen],
    objects: Sequence[_Objects],
    decision: Decision,
    settings: PrepareSettings,
) -> Tally:
    tally = Tally()
    for pair, one, found in zip(pairs, seen, objects, strict=True):
        if one.values is None:
            continue
        name = str(pair.mask)
        if decision.coding == "binary" and one.values.kind != "colour" and one.values.top > 1 and one.values.changed:
            tally.add("masks with soft edges or noise, cut at half", name)
            if not found.rles:
                tally.add("masks that are below half everywhere, taken as without objects", name)
        if one.values.kind != "grey" and one.values.top:
            tally.add(f"masks taken from {_KINDS[one.values.kind]}", name)
        if settings.resize_masks and one.values.size != one.size:
            tally.add("masks scaled to their photo", name)
    return tally


_KINDS = {
    "palette": "palette entries",
    "one colour": "pictures of one colour on black",
    "transparency": "the transparency",
    "colour": "colour pictures",
}


def _what_was_seen(
    pairs: Sequence[Pair], seen: Sequence[_Seen], objects: Sequence[_Objects], settings: PrepareSettings
) -> list[str]:
    """Return what the user should know about masks that can be read in more than one way."""
    notes = []
    masks = sum(one.large > 0 for one in objects)
    several = [(str(pair.mask), one.large) for pair, one in zip(pairs, objects, strict=True) if one.large > 1]
    if several and settings.parts == "together":
        notes.append(
            f"{len(several):,} of {masks:,} masks have several large parts ({some(name for name, _ in several)};"
            f" {sum(large for _, large in several):,} large parts in all); each mask is one object:"
            " --parts separate makes each part an object"
        )
    covering = [str(pair.mask) for pair, one in zip(pairs, objects, strict=True) if one.share > 0.5]
    if 2 * len(covering) > masks:
        notes.append(
            f"in {len(covering):,} of {masks:,} masks the object covers more than half of the photo ({some(covering)});"
            " if black is the object, invert the masks first"
        )
    turned = [
        str(pair.photo)
        for pair, one in zip(pairs, seen, strict=True)
        if one.orientation != 1 and one.values is not None and one.values.size == one.stored
    ]
    if turned:
        notes.append(
            f"{plural(len(turned), 'photo')} must be turned or mirrored to be upright ({some(turned)}) and the size of"
            " the mask fits both ways; the masks are taken as drawn on the upright photo: look at one of them"
        )
    black = [str(p.mask) for p, o in zip(pairs, seen, strict=True) if o.values is not None and o.values.top == 0]
    if black:
        notes.append(f"{plural(len(black), 'photo')} with an all-black mask: photos without objects ({some(black)})")
    bare = [str(pair.photo) for pair in pairs if pair.mask is None]
    if bare:
        notes.append(f"{plural(len(bare), 'photo')} without a mask: photos without objects, as you said ({some(bare)})")
    return notes


def _meaning(decision: Decision, settings: PrepareSettings) -> str:
    if decision.coding == "ids":
        return "value n is object n of its photo (coding ids)"
    if settings.parts == "separate":
        return "each connected part of a mask is one object (coding binary)"
    return "a mask is one object, parts and holes included (coding binary)"


def _seen_text(pair: Pair, one: _Seen) -> str:
    return f"{pair.mask}: {one.values}"


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
