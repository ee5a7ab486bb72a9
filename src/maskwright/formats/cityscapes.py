"""Images of values class x 1000 + n, after Cityscapes: the class of each object and which of its kind it is, in one.

Values below 1000 are a class without a number: ground such as road and sky; or, for a class whose objects are numbered,
many of them in one region (Cityscapes' "car group"), which COCO calls a crowd.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from maskwright.dataset import Category, Dataset, read_json
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, UnreadableImage, sha256, write_json
from maskwright.formats import (
    MASK_NAMES,
    PHOTO_NAMES,
    SPLIT_NAMES,
    Found,
    Mark,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    Written,
    outside,
    plural,
    scan,
    some,
    subfolders,
    walk,
)
from maskwright.formats.names import stems
from maskwright.formats.photos import Sight, sight
from maskwright.formats.planes import (
    LOSSY_SUFFIXES,
    Item,
    Losses,
    drawn,
    mask_problems,
    may_scale,
    named_folder,
    paint,
    read_plane,
    save_png,
    scaled,
)
from maskwright.formats.runs import objects_of_ids
from maskwright.formats.shelf import Shelf
from maskwright.formats.split_folders import kept_splits
from maskwright.pixels import Size
from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "cityscapes"
EXPECTS = "images x_instanceIds.png of values class x 1000 + n with their photos, such as leftImg8bit and gtFine"

CLASSES: Mapping[int, str] = dict(
    enumerate(
        (
            *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
            *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel"),
            *("pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider"),
            *("car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
        )
    )
)
"""Cityscapes' classes by their ids."""

THINGS = frozenset(range(24, 34))
"""The classes whose objects are numbered."""

STEP = 1000
MOST_CLASSES = 65
CLASS_FILE = "classes.json"

_MOST_LOOKED = 20_000  # names in a folder that are looked at to tell the form
_VALUES = re.compile(r"(.*?)(?:_gt(?:fine|coarse))?_instanceids", re.IGNORECASE)
_OTHERS = re.compile(r".*_(?:labelids|labeltrainids|instancetrainids|color|colour)", re.IGNORECASE)
_PHOTO = re.compile(r"(.*?)_leftimg8bit", re.IGNORECASE)
_NOT_SCENE = 4  # Cityscapes ids below are no part of a scene: the published test masks hold nothing else


@dataclass(frozen=True)
class _Parts:
    """Where photos and masks are, and whether the masks bear the form's name."""

    photos: Path
    masks: Path
    named: bool


@dataclass(frozen=True)
class _Seen:
    """What one look at a photo and its mask found.

    Attributes:
        photo: The photo.
        size: `(height, width)` of the mask as stored.
        fault: Why the mask cannot be used.
        objects: Class, whether it is a crowd, and RLE of each object.
        ground: Class and pixels of what is no object.
        hash: SHA-256 of the mask.
    """

    photo: Sight
    size: Size | None = None
    fault: str = ""
    objects: tuple[tuple[int, bool, bytes], ...] = ()
    ground: tuple[tuple[int, int], ...] = ()
    hash: str = ""


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for images named `*_instanceIds.png`; with `--form cityscapes` any folder of masks will do."""
    if not place.is_dir():
        return None
    inside = {path.name.lower(): path for path in subfolders(place)}
    if settings.masks is not None:
        masks = named_folder(place, settings.masks)
        if masks is None:
            return None
    else:
        usual = ("gtfine", "gtcoarse", *MASK_NAMES)
        masks = next((inside[name] for name in usual if name in inside), place)
    names = (name for name, why in islice(scan(masks), _MOST_LOOKED) if not why)
    named = any(_VALUES.fullmatch(name, name.rfind("/") + 1, name.rfind(".")) for name in names)
    if not named and (settings.form != NAME or masks == place):
        return None
    photos = place
    if settings.photos is not None:
        photos = named_folder(place, settings.photos) or place
    elif settings.masks is None or place in masks.parents:
        photos = next((inside[name] for name in ("leftimg8bit", *PHOTO_NAMES) if name in inside), place)
    reads = () if masks == place else (masks,)
    return Found(NAME, place, f"images of instance ids in {masks}", _Parts(photos, masks, named), reads)


def read(found: Found, work: Work) -> Reading:
    """Read photos and images of instance ids.

    Raises:
        UserError: With every problem that was found.
    """
    parts: _Parts = found.parts
    plan = _Plan(parts, work)
    listed, source = _listed(parts, work.root)
    masks = sum(bool(item.masks) for item in plan.items)
    work.say(
        f"understood: {plural(len(plan.items), 'photo')} in {parts.photos}, {masks:,} with instance ids in"
        f" {parts.masks}: value = class x 1000 + n"
    )
    if source is not None:
        work.say(f"understood: {source} names the classes: {', '.join(listed.values())}")
    splits = plan.splits_text()
    if splits:
        work.say(f"understood: {splits}")
    story = _Story(listed, work.settings)
    seen: Shelf[tuple[Item, _Seen]] = Shelf()
    things = frozenset(listed) if listed else THINGS
    look = partial(_look, things=things, resize=work.settings.resize_masks, frame=work.settings.mask_frame)
    for item, one in zip(plan.items, work.each(look, plan.items), strict=True):
        story.add(item, one)
        seen.put((item, one))
    problems = [*plan.problems, *story.problems()]
    if problems:
        raise UserError(problems)
    if not story.objects:
        raise UserError(
            "no image marks an object: there is no value of 1000 or more" if plan.items else "there is no photo",
            [str(parts.masks)],
            "an object has the value class x 1000 + its number; images of classes only cannot tell objects apart",
        )
    withheld = story.withheld()
    names = story.names()
    work.say(f"understood: {plural(len(names), 'category')}: {', '.join(names)}")
    blank = "its mask is blank: the truth is not published"
    left = [Skipped(item.photo, blank) for item, _ in seen if _of(item, withheld)]
    if withheld:
        count = plural(len(left), "photo")
        story.notes.append(f"the masks of the split 'test' are blank, the truth is not published: {count} left out")
        splits = plan.splits_text(without=withheld)
    used = {parts.photos, parts.masks, *([source] if source is not None else [])}
    return Reading(
        form=NAME,
        coding=None,
        categories=names,
        photos=Shelf(story.photo(item, one) for item, one in seen if not _of(item, withheld)),
        sources=() if source is None else (source,),
        skipped=(*plan.skipped, *left, *outside(work.root, used)),
        splits=splits,
        mends=story.mends.mends(),
        notes=(*plan.notes, *story.all_notes()),
    )


def _of(item: Item, split: str | None) -> bool:
    return split is not None and item.split == split


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Plan:
    """Which mask belongs to which photo, and the fate of every other file."""

    def __init__(self, parts: _Parts, work: Work) -> None:
        self.parts = parts
        self.items: list[Item] = []
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        masks = self._masks()
        photos = self._photos()
        by_base: dict[str, list[str]] = defaultdict(list)
        for key in photos:
            by_base[key.rpartition("/")[2]].append(key)
        mask_of: dict[str, tuple[Path, str]] = {}
        lone, twice = [], []
        for key, path in masks.items():
            same = [key] if key in photos else by_base.get(key.rpartition("/")[2], [])
            if len(same) != 1:
                found = f" (several: {some(str(photos[k]) for k in same)})" if same else ""
                lone.append(f"{path}: no photo {key.rpartition('/')[2]}.* in {parts.photos}{found}")
            elif same[0] in mask_of:
                twice.append(f"{photos[same[0]]}: {mask_of[same[0]][0]} and {path}")
            else:
                mask_of[same[0]] = (path, key)
        if lone:
            has = "mask image has" if len(lone) == 1 else "mask images have"
            fix = "add the photos, or name their folder: --photos FOLDER; or remove these masks"
            self.problems.append(Problem(f"{len(lone):,} {has} no photo", tuple(lone), fix))
        if twice:
            fix = "keep one mask image for each photo"
            self.problems.append(Problem("photos have several mask images", tuple(twice), fix))
        self._join(photos, mask_of, work.settings)

    def _masks(self) -> dict[str, Path]:
        pictures, odd = walk(self.parts.masks)
        inside = self.parts.photos if self.parts.masks in self.parts.photos.parents else None
        found: dict[str, Path] = {}
        twice = []
        for path in pictures:
            if inside is not None and inside in path.parents:
                continue
            match = _VALUES.fullmatch(path.stem)
            if match is None and self.parts.named:
                if _OTHERS.fullmatch(path.stem) and self.parts.masks != self.parts.photos:
                    self.skipped.append(Skipped(path, "not needed: the instance ids say it"))
                elif self.parts.masks != self.parts.photos and self.parts.photos not in self.parts.masks.parents:
                    self.skipped.append(Skipped(path, "no image of instance ids"))
                continue
            stem = match[1] if match is not None else path.stem
            key = (path.relative_to(self.parts.masks).parent / stem).as_posix()
            if key in found:
                twice.append(f"{found[key]} and {path}")
            found[key] = path
        if twice:
            fix = "keep one of each, for example those of gtFine"
            self.problems.append(Problem("several mask images are of one photo", tuple(twice), fix))
        self.skipped += [
            Skipped(one.path, "not needed: the instance ids say it") if one.path.suffix.lower() == ".json" else one
            for one in odd
            if one.path.name != CLASS_FILE
        ]
        return found

    def _photos(self) -> dict[str, Path]:
        pictures, odd = walk(self.parts.photos)
        inside = self.parts.masks if self.parts.photos in self.parts.masks.parents else None
        found: dict[str, Path] = {}
        twice = []
        for path in pictures:
            if inside is not None and inside in path.parents:
                continue
            if self.parts.named and _VALUES.fullmatch(path.stem):
                continue
            if self.parts.named and _OTHERS.fullmatch(path.stem) and path.suffix.lower() == ".png":
                self.skipped.append(Skipped(path, "not needed: the instance ids say it"))
                continue
            if path.suffix.lower() not in PHOTO_SUFFIXES:
                self.skipped.append(Skipped(path, "no photo format"))
                continue
            match = _PHOTO.fullmatch(path.stem)
            key = (path.relative_to(self.parts.photos).parent / (match[1] if match else path.stem)).as_posix()
            if key in found:
                twice.append(f"{found[key]} and {path}")
            found[key] = path
        if twice:
            what = "photos in one folder have the same name but for the ending"
            self.problems.append(Problem(what, tuple(twice), "rename or remove one of each"))
        if self.parts.photos != self.parts.masks:
            self.skipped += [one for one in odd if inside is None or inside not in one.path.parents]
        return found

    def _join(
        self, photos: Mapping[str, Path], mask_of: Mapping[str, tuple[Path, str]], settings: PrepareSettings
    ) -> None:
        splits = {key: _split(mask) or _split(key) for key, (_, mask) in mask_of.items()}
        told, notes = kept_splits((str(photos[key]), split) for key, split in splits.items())
        self.notes += notes
        keep = bool(told)
        known = set(splits.values())
        alone, other = [], 0
        for key, path in photos.items():
            split = (splits.get(key) or _split(key)) if keep else None
            name = path.relative_to(self.parts.photos).as_posix()
            if key in mask_of:
                self.items.append(Item(path, (mask_of[key][0],), name, split))
            elif keep and split not in known:
                self.skipped.append(Skipped(path, "of a split, or of none, that has no masks"))
                other += 1
            elif settings.unmatched == "error":
                alone.append(f"{path}: no mask {key.rpartition('/')[2]}_instanceIds.png in {self.parts.masks}")
            elif settings.unmatched == "skip":
                self.skipped.append(Skipped(path, "photo without a mask, left out as you said"))
            else:
                self.items.append(Item(path, (), name, split))
        if other:
            self.notes.append(f"{plural(other, 'photo')} of a split, or of none, that has no masks: left out")
        if alone:
            has = "photo has" if len(alone) == 1 else "photos have"
            fix = "add the masks; or, for photos without objects: --unmatched empty; or: --unmatched skip"
            self.problems.append(Problem(f"{len(alone):,} {has} no mask image", tuple(alone), fix))

    def splits_text(self, without: str | None = None) -> str:
        """Return how the splits are known; empty if there are none."""
        found = {item.split for item in self.items if item.split not in {None, without}}
        have = [split for split in ("train", "val", "test") if split in found]
        return f"splits are kept as the folders give them ({', '.join(have)})" if have else ""


def _split(key: str) -> str | None:
    """Return the split that a folder of the path tells."""
    for part in key.lower().split("/")[:-1]:
        if part == "train_extra":
            return "train"
        if part in SPLIT_NAMES:
            return SPLIT_NAMES[part]
    return None


def _listed(parts: _Parts, root: Path) -> tuple[dict[int, str], Path | None]:
    """Return the names of classes that a file beside the masks gives, by id in the order of the file."""
    tops = dict.fromkeys([parts.masks, parts.masks.parent, root])
    path = next((top / CLASS_FILE for top in tops if (top / CLASS_FILE).is_file()), None)
    if path is None:
        return {}, None
    document = read_json(path)
    names: dict[int, str] = {}
    bad = [] if isinstance(document, dict) and document else [f"{path}: no object with names"]
    for key, name in document.items() if isinstance(document, dict) else ():
        if not re.fullmatch(r"[0-9]{1,2}", key) or not isinstance(name, str) or not name.strip():
            bad.append(f"{path}: {key!r}: {name!r}")
        elif int(key) in names or name in names.values():
            bad.append(f"{path}: {key!r}: {name!r} stands twice")
        else:
            names[int(key)] = name
    if bad:
        raise UserError(
            f"{CLASS_FILE} must give a name for each class id", bad, 'write it like {"24": "person", "26": "car"}'
        )
    return names, path


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(item: Item, things: frozenset[int], resize: bool, frame: MaskFrame) -> _Seen:
    """Read one photo with its mask; what is wrong with them is in the answer."""
    photo = sight(item.photo, frame)
    if not item.masks:
        return _Seen(photo)
    path = item.masks[0]
    try:
        plane, palette = read_plane(path)
        digest = sha256(path)
    except UnreadableImage as error:
        return _Seen(photo, fault=str(error))
    size = (int(plane.shape[0]), int(plane.shape[1]))
    if palette is not None or path.suffix.lower() in LOSSY_SUFFIXES:
        what = "is a JPEG, which changes the values" if palette is None else "is a colour picture, not one of numbers"
        return _Seen(photo, size, f"{what}; instance ids are 16-bit grey values")
    if int(plane.max(initial=0)) > 65535:
        return _Seen(photo, size, f"has the value {int(plane.max())}; instance ids are at most 65535")
    if resize and not photo.fault and may_scale(size, photo):
        plane = scaled(plane, photo.size)
    objects, ground = [], []
    pixels_of = np.bincount(plane.ravel(), minlength=1)
    for value, rle in objects_of_ids(plane):
        if value >= STEP:
            objects.append((value // STEP, False, rle))
        elif value in things:
            objects.append((value, True, rle))
        else:
            ground.append((value, int(pixels_of[value])))
    return _Seen(photo, size, "", tuple(objects), tuple(ground), digest)


@dataclass
class _Story:
    """What was found in all masks together."""

    listed: Mapping[int, str]
    settings: PrepareSettings
    mends: Tally = field(default_factory=Tally)
    looked: list[tuple[str, Size | None, str, Sight]] = field(default_factory=list)
    classes: set[int] = field(default_factory=set)
    ground: Counter[int] = field(default_factory=Counter)
    tops: dict[str | None, tuple[int, int]] = field(default_factory=dict)
    objects: int = 0
    crowds: int = 0
    bare: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, item: Item, one: _Seen) -> None:
        """Count what one mask holds."""
        name = str(item.masks[0]) if item.masks else str(item.photo)
        if one.fault or one.photo.fault or (one.size is not None and one.size != one.photo.size):
            self.looked.append((name, one.size, one.fault, one.photo))
            if not one.fault and not one.photo.fault and self.settings.resize_masks:
                self.mends.add("masks scaled to their photo", name)
        self.objects += len(one.objects)
        self.crowds += sum(crowd for _, crowd, _ in one.objects)
        self.classes |= {number for number, _, _ in one.objects}
        self.ground.update(dict(one.ground))
        if item.masks and not one.objects:
            self.bare.append(str(item.photo))
        objects, top = self.tops.get(item.split, (0, 0))
        highest = max((number for number, _ in one.ground), default=0)
        self.tops[item.split] = (objects + len(one.objects), max(top, highest))

    def problems(self) -> list[Problem]:
        """Return what is wrong with the pictures."""
        return mask_problems(self.looked, resize=self.settings.resize_masks)

    def withheld(self) -> str | None:
        """Return `test` if the masks of that split say nothing about the scene, as in the published set."""
        objects, top = self.tops.get("test", (1, 0))
        return "test" if objects == 0 and top < _NOT_SCENE and len(self.tops) > 1 else None

    def name(self, number: int) -> str:
        """Return the name of a class."""
        return self.listed.get(number) or CLASSES.get(number) or f"class {number}"

    def names(self) -> tuple[str, ...]:
        """Return the categories, in order.

        Raises:
            UserError: If the user gave one name for several.
        """
        names = tuple(dict.fromkeys([*self.listed.values(), *(self.name(n) for n in sorted(self.classes))]))
        if self.settings.category is None:
            return names
        if len(names) > 1:
            what = "one category name was given, the masks have several classes"
            raise UserError(what, [", ".join(names)], "leave out --category")
        return (self.settings.category,)

    def photo(self, item: Item, one: _Seen) -> Photo:
        """Return a photo with its objects."""
        given = self.settings.category
        return Photo(
            file=str(item.photo),
            name=item.name,
            place=item.place,
            split=item.split,
            size=one.photo.size,
            sha256=one.photo.sha256,
            marks=tuple(Mark(given or self.name(number), rle, crowd) for number, crowd, rle in one.objects),
            masks=((str(item.masks[0]), one.hash),) if item.masks else (),
            turn=one.photo.turn,
        )

    def all_notes(self) -> Iterator[str]:
        """Yield what the user should know."""
        yield from self.notes
        if self.crowds:
            yield (
                f"{plural(self.crowds, 'region')} of a class without a number (values below 1000): many objects in one,"
                " kept as crowds"
            )
        if self.ground:
            most = [f"{self.name(number)} {count:,}" for number, count in self.ground.most_common()]
            yield f"{plural(self.ground.total(), 'pixel')} of classes without objects: ground ({some(most)})"
        unknown = sorted(number for number in self.classes if number not in self.listed and number not in CLASSES)
        if unknown:
            yield (
                f"no name is known for {some(f'class {number}' for number in unknown)};"
                f' {CLASS_FILE} beside the masks gives names: {{"{unknown[0]}": "name"}}'
            )
        if self.bare:
            yield f"{plural(len(self.bare), 'photo')} without objects ({some(self.bare)})"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write `x_instanceIds.png`, 16 bit, for each photo, and the names of the classes in `classes.json`.

    Classes have Cityscapes' ids if all their names are Cityscapes', else they are counted from 1. A crowd is the class
    without a number.

    Raises:
        UserError: If the form cannot hold the dataset; then nothing is written.
    """
    names = stems(dataset)
    known = {name: number for number, name in CLASSES.items() if number}
    if all(category.name in known for category in dataset.categories):
        ids = {category.id: known[category.name] for category in dataset.categories}
    else:
        ids = {category.id: number for number, category in enumerate(dataset.categories, 1)}
    problems = _write_problems(dataset, ids)
    if problems:
        raise UserError(problems)
    short = [_written_stem(name) for name in names]
    names = short if len({name.casefold() for name in short}) == len(names) else names
    losses = Losses()
    crowds: Counter[tuple[int, int]] = Counter()
    written = 0
    for i, objects in drawn(dataset, losses):
        values = np.zeros(len(objects) + 1, dtype=np.uint16)
        count: Counter[int] = Counter()
        for n, k in enumerate(objects.tolist(), 1):
            number = ids[int(dataset.category_ids[k])]
            if dataset.crowd[k]:
                values[n] = number
                crowds[i, number] += 1
            else:
                values[n] = number * STEP + count[number]
                count[number] += 1
        save_png(values[paint(dataset, i, objects, losses)], folder / f"{names[i]}_instanceIds.png")
        written += len(objects)
    write_json(folder / CLASS_FILE, {str(ids[c.id]): c.name for c in dataset.categories})
    notes = losses.notes()
    joined = sum(n - 1 for n in crowds.values())
    if joined:
        notes.append(f"{plural(joined, 'crowd')} joined with others of the class in the photo: crowds have no numbers")
    return Written(len(names) + 1, written - len(losses.hidden), tuple(notes))


def _written_stem(stem: str) -> str:
    """Leave out what photos have at the end in Cityscapes, so that the names go together as there.

    Example:
        >>> _written_stem("val/x_leftImg8bit"), _written_stem("y")
        ('val/x', 'y')
    """
    match = _PHOTO.fullmatch(stem)
    return match[1] if match else stem


def _write_problems(dataset: Dataset, ids: Mapping[int, int]) -> list[Problem]:
    if len(dataset.categories) > MOST_CLASSES:
        what = f"instance ids of 16 bits hold at most {MOST_CLASSES} classes"
        return [Problem(what, (f"{len(dataset.categories):,} categories",), "use: --form ids")]
    first = dataset.first
    full: list[str] = []
    for i, image in enumerate(dataset.images):
        of_photo = slice(int(first[i]), int(first[i + 1]))
        count = Counter(dataset.category_ids[of_photo][~dataset.crowd[of_photo]].tolist())
        full += [
            f"{image.file_name}: {n:,} objects of {_name(dataset.categories, category)!r}, at most {most:,}"
            for category, n in count.items()
            if n > (most := min(STEP, 65536 - ids[category] * STEP))
        ]
    if full:
        return [Problem("instance ids number at most 1,000 objects of a class", tuple(full), "use: --form ids")]
    return []


def _name(categories: Sequence[Category], number: int) -> str:
    return next(category.name for category in categories if category.id == number)
