"""Photos and mask images in folders: find the folders, pair the files, read every mask.

Understood are a pair of folders (`rgb` and `mask`, `images` and `masks`, ...), a pair in each split folder
(`hammer_train/{rgb,mask}`, `train/{images,masks}`), split folders inside the pair (`images/train`, `masks/train`), and
two folders that the user names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskwright import pixels
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, UnreadableImage, content_of, sha256_of, verify_photo
from maskwright.formats import (
    MASK_NAMES,
    PHOTO_NAMES,
    Found,
    Mark,
    Photo,
    Reading,
    Tally,
    Work,
    both_sizes,
    outside,
    plural,
    scan,
    some,
    subfolders,
    wrong_frame,
)
from maskwright.formats.coding import LARGE_PART, Census, Decision, Values, decide, look, masks_of
from maskwright.formats.pairing import Pair, Pairing, Place, empty_folders
from maskwright.formats.runs import parts_of_masks, told_frayed
from maskwright.formats.scattered import Scattered
from maskwright.formats.shelf import Pack, Shelf, Singly, packed, unpacked
from maskwright.formats.soft_edges import cut_off, told_cut_off
from maskwright.formats.split_folders import split_and_category, splits_text
from maskwright.pixels import Size

if TYPE_CHECKING:  # pydantic would make worker processes start a third later
    from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "folders"
EXPECTS = "a folder of photos and a folder of mask images, such as rgb and mask, alone or inside train, val, test"


class _Seen(NamedTuple):
    """What one look at a photo and its mask found.

    Attributes:
        size: `(height, width)` of the photo in the frame that masks are in.
        other: `(height, width)` in the other frame; see `photos.Sight`.
        orientation: EXIF orientation, 1 to 8.
        photo_hash: SHA-256.
        photo_fault: Why the photo cannot be used.
        values: What the mask image holds.
        mask_hash: SHA-256.
        mask_fault: Why the mask image cannot be used.
    """

    size: Size = (0, 0)
    other: Size = (0, 0)
    orientation: int = 1
    photo_hash: str = ""
    photo_fault: str = ""
    values: Values | None = None
    mask_hash: str = ""
    mask_fault: str = ""


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for pairs of photo and mask folders.

    Raises:
        UserError: If the user names two folders that are one.
    """
    if place.is_file():
        return None
    if settings.masks is not None:
        places = _places_as_named(place, settings)
    else:
        places = find_places(place, settings)
    if not places:
        return None
    why = ", ".join(f"photos in {one.photos} and mask images in {one.masks}" for one in places)
    return Found(NAME, place, why, places, tuple(folder for one in places for folder in (one.photos, one.masks)))


def _places_as_named(root: Path, settings: PrepareSettings) -> list[Place]:
    """Return the folders that the user named, as paths or as names inside the folder."""
    found = find_places(root, settings)
    if found:
        return found
    masks = named_folder(str(settings.masks), root)
    if masks is None:
        return []
    photos: Path | None = root
    if settings.photos is not None:
        photos = named_folder(settings.photos, root)
    elif masks.parent == root:
        photos = photo_folder(root) or root
    if photos is None:
        return []
    if photos.resolve() == masks.resolve():
        raise UserError(
            "photos and masks are the same folder", [f"{photos} and {masks}"], "put the masks in a folder of their own"
        )
    pair = Place(photos, masks)
    return _split_inside(pair) or [pair]


def named_folder(name: str, root: Path) -> Path | None:
    """Return the folder that the user named, by its path or by its name inside another."""
    return next((folder for folder in (Path(name), root / name) if folder.is_dir()), None)


def find_places(root: Path, settings: PrepareSettings) -> list[Place]:
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


def missing(root: Path) -> UserError:
    """Say that no photos with masks were found, what was there, and what would be understood."""
    seen = []
    for folder in [root, *(inner for outer in subfolders(root) for inner in [outer, *subfolders(outer)])]:
        try:
            count = sum(1 for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
        except OSError as error:
            seen.append(f"{folder}: cannot be looked into ({error.strerror})")
        else:
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


def read(found: Found, work: Work) -> Reading:
    """Read photos and mask images; says what it understood before it reads them.

    Raises:
        UserError: With every problem that was found.
    """
    places: Sequence[Place] = found.parts
    settings, say = work.settings, work.say
    pairs = Pairing(places, settings)
    used = {place.photos for place in places} | {place.masks for place in places}
    skipped = [*pairs.skipped, *outside(work.root, used)]
    places = pairs.places
    names = [settings.category or place.category or "object" for place in places]
    categories = tuple(sorted(set(names)))
    splits = splits_text(place.split for place in places)
    for number, place in enumerate(places):
        told = f"{place.split}: " if place.split else ""
        counts = (
            f"{plural(pairs.photos[number], 'photo')} in {place.photos}, {pairs.masks[number]:,} with a mask in"
            f" {place.masks}"
        )
        say(f"understood: {told}{counts}")
    source = "as you said" if settings.category else "from the folder names"
    if not settings.category and not any(place.category for place in places):
        source = "no folder name tells it; --category NAME gives another"
    say(f"understood: {_categories_text(categories)} ({source})")
    if splits:
        say(f"understood: {splits}")
    for note in pairs.notes:
        say(f"understood: {note}")
    problems = [*pairs.problems, *_category_problems(places, names)]
    rules = _Rules(
        decision=None,
        resize=settings.resize_masks,
        names=tuple(names),
        places=tuple("" if len(places) == 1 else _place_name(place, work.root) for place in places),
        splits=tuple(place.split for place in places),
        frame=settings.mask_frame,
    )
    seen: Shelf[tuple[Pair, _Seen]] = Shelf()
    photos: Shelf[Photo] = Shelf()
    census, faults, story = Census(), _Faults(rules.frame), _Story()
    for looked in work.each.pieces(partial(_look_at, rules), pairs):
        seen.put_packs(looked.seen)
        census.join(looked.census)
        faults.join(looked.faults)
        photos.put_packs(looked.photos)
        story.join(looked.story)
    problems += faults.problems(settings)
    decision = None
    try:
        decision = decide(census, settings.coding)
    except UserError as error:
        problems += error.problems
    if problems or decision is None:
        raise UserError(problems)
    if not len(pairs):
        raise UserError("there is no photo", [str(place.photos) for place in places], "check the folders")
    say(f"understood: mask values are {decision.why}: {_meaning(decision, settings)}")
    if decision.coding != "binary" or settings.resize_masks or not census.is_read(decision):
        photos, story = Shelf(), _Story()
        for some_photos, some_story in work.each.pieces(
            partial(_settle, rules._replace(decision=decision)), Singly(seen)
        ):
            photos.put_packs(some_photos)
            story.join(some_story)
    if not story.objects:
        raise UserError(
            "no mask image marks an object: all are black",
            [f"{pair.mask}: {one.values}" for pair, one in seen if pair.mask is not None],
            "export the masks again, with objects in white (or as values 1..N)",
        )
    return Reading(
        form=NAME,
        coding=decision.coding,
        categories=categories,
        photos=photos,
        skipped=tuple(skipped),
        splits=splits,
        mends=story.mends.mends(),
        notes=(*pairs.notes, *story.notes(settings)),
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
    return any(not why for _, why in scan(folder))


def _split_inside(pair: Place) -> list[Place]:
    """Return one place per split for `images/train` beside `masks/train`; empty if not all of them pair."""
    masks = {path.name: path for path in subfolders(pair.masks)}
    places = []
    if {name for name in masks if split_and_category(name)[0]} - {path.name for path in subfolders(pair.photos)}:
        return []
    for folder in subfolders(pair.photos):
        split, category = split_and_category(folder.name)
        if split is None or folder.name not in masks:
            return []
        places.append(Place(folder, masks[folder.name], split, category))
    return places


def _place_name(place: Place, root: Path) -> str:
    return place.photos.relative_to(root).as_posix() if root in place.photos.parents else place.photos.name


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


def _look(pair: Pair, frame: MaskFrame) -> _Seen:
    photo = Path(pair.photo)
    try:
        content = content_of(photo)
        upright, stored, orientation = verify_photo(photo, content)
    except UnreadableImage as error:
        return _Seen(photo_fault=str(error))
    size, other = (upright, stored) if frame == "upright" else (stored, upright)
    seen = _Seen(size, other, orientation, sha256_of(content))
    if pair.mask is None:
        return seen
    mask = Path(pair.mask)
    try:
        content = content_of(mask)
        return seen._replace(values=look(mask, content), mask_hash=sha256_of(content))
    except UnreadableImage as error:
        return seen._replace(mask_fault=str(error))


class _Looked(NamedTuple):
    """What was found of some pairs, what must be known of all together, and the photos, if no mask is read again."""

    seen: list[Pack[tuple[Pair, _Seen]]]
    census: Census
    faults: _Faults
    photos: list[Pack[Photo]]
    story: _Story


def _look_at(rules: _Rules, pairs: list[Pair]) -> _Looked:
    """Look at some pairs."""
    seen = [(pair, _look(pair, rules.frame)) for pair in pairs]
    census, faults = Census(), _Faults(rules.frame)
    for pair, one in seen:
        faults.add(pair, one)
        if one.values is not None:
            census.add(f"{pair.mask}", one.values)
    photos, story = _photos(rules, seen)
    return _Looked(list(packed(seen)), census, faults, list(packed(photos)), story)


class _Faults:
    """Collects what is wrong with photos and masks, which are taken to be drawn on the one frame."""

    def __init__(self, frame: MaskFrame) -> None:
        self._frame = frame
        self._bad_photos: list[str] = []
        self._bad_masks: list[str] = []
        self._turned: list[str] = []
        self._shaped: list[str] = []
        self._sized: list[str] = []

    def join(self, other: _Faults) -> None:
        """Take in what was found in further pairs."""
        self._bad_photos += other._bad_photos
        self._bad_masks += other._bad_masks
        self._turned += other._turned
        self._shaped += other._shaped
        self._sized += other._sized

    def add(self, pair: Pair, one: _Seen) -> None:
        """Look for faults in one pair."""
        if one.photo_fault:
            self._bad_photos.append(f"{pair.photo}: {one.photo_fault}")
        if one.mask_fault:
            self._bad_masks.append(f"{pair.mask}: {one.mask_fault}")
        if one.values is None or one.values.size == one.size:
            return
        line = f"{pair.mask} is {_text(one.values.size)}, {pair.photo} is"
        if one.values.size == one.other:
            self._turned.append(f"{line} {both_sizes(one.size, one.other, one.orientation, self._frame)}")
        elif not _same_shape(one.values.size, one.size):
            self._shaped.append(f"{line} {_text(one.size)}")
        else:
            self._sized.append(f"{line} {_text(one.size)}")

    def problems(self, settings: PrepareSettings) -> list[Problem]:
        """Return what was found."""
        problems = []
        bad, turned, shaped, sized = [*self._bad_photos, *self._bad_masks], self._turned, self._shaped, self._sized
        if bad:
            problems.append(
                Problem(
                    f"{plural(len(bad), 'picture file')} cannot be read",
                    tuple(bad),
                    "replace these files, or remove them together with their mask or photo",
                )
            )
        if turned:
            what = f"{plural(len(turned), 'mask image')} {'fits' if len(turned) == 1 else 'fit'} the photo"
            problems.append(wrong_frame(what, turned, self._frame))
        if shaped:
            problems.append(
                Problem(
                    f"{plural(len(shaped), 'mask image')} {'has' if len(shaped) == 1 else 'have'} another shape than"
                    " the photo",
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


class _Rules(NamedTuple):
    """What makes photos with objects of what was seen.

    Attributes:
        decision: What mask values mean; `None`: a mask is one object, as the first look read it.
        resize: Whether masks of another size are scaled.
        names: The category of each place's objects.
        places: What tells each place apart.
        splits: The split of each place.
        frame: What masks were drawn on.
    """

    decision: Decision | None
    resize: bool
    names: tuple[str, ...]
    places: tuple[str, ...]
    splits: tuple[str | None, ...]
    frame: MaskFrame

    @property
    def is_binary(self) -> bool:
        """Tell whether each mask is one object."""
        return self.decision is None or self.decision.coding == "binary"


def _settle(rules: _Rules, seen: list[tuple[Pack[tuple[Pair, _Seen]], int]]) -> tuple[list[Pack[Photo]], _Story]:
    """Make photos of what was seen; masks that the first look did not read for good are read again."""
    photos, story = _photos(rules, unpacked(seen))
    return list(packed(photos)), story


def _photos(rules: _Rules, seen: list[tuple[Pair, _Seen]]) -> tuple[list[Photo], _Story]:
    photos: list[Photo] = []
    story = _Story()
    found = [_marks(pair, one, rules) for pair, one in seen]
    story.add_parts(
        [(f"{pair.mask}", rles[0], _size(one, rules)) for (pair, one), rles in zip(seen, found, strict=True) if rles],
        rules,
    )
    for (pair, one), marks in zip(seen, found, strict=True):
        story.add(pair, one, marks, rules)
        photos.append(
            Photo(
                file=pair.photo,
                name=pair.name,
                place=rules.places[pair.place],
                split=rules.splits[pair.place],
                size=one.size,
                sha256=one.photo_hash,
                marks=tuple(Mark(rules.names[pair.place], rle) for rle in marks),
                masks=((pair.mask, one.mask_hash),) if pair.mask is not None else (),
                turn=one.orientation if rules.frame == "stored" else 1,
                soft=cut_off(str(pair.mask), one.values, rules.decision, marks) if one.values else (),
            )
        )
    return photos, story


def _marks(pair: Pair, one: _Seen, rules: _Rules) -> tuple[bytes, ...]:
    """Return the objects of a photo."""
    values = one.values
    if pair.mask is None or values is None or not values.top:
        return ()
    if not _is_read(one, rules):
        assert rules.decision is not None
        return tuple(masks_of(Path(pair.mask), values, rules.decision, one.size))
    return (values.rle,) if values.share or pixels.area(values.rle, values.size) else ()


def _size(one: _Seen, rules: _Rules) -> Size:
    """Return the size of a photo's objects; masks of another size than the photo are scaled when they are settled."""
    return one.values.size if one.values is not None and _is_read(one, rules) else one.size


def _is_read(one: _Seen, rules: _Rules) -> bool:
    """Tell whether the first look made the mask for good."""
    if rules.decision is None:
        return True
    return one.values is not None and rules.decision.is_read(one.values) and one.size == one.values.size


@dataclass
class _Story:
    """Counts what was mended, and what the user should know about masks that can be read in more than one way."""

    objects: int = 0
    masks: int = 0
    large: int = 0
    mends: Tally = field(default_factory=Tally)
    seen: Tally = field(default_factory=Tally)
    scattered: Scattered = field(default_factory=Scattered)

    def join(self, other: _Story) -> None:
        """Take further photos into the count."""
        self.objects += other.objects
        self.masks += other.masks
        self.large += other.large
        self.mends.join(other.mends)
        self.seen.join(other.seen)
        self.scattered.join(other.scattered)

    def add(self, pair: Pair, one: _Seen, marks: Sequence[bytes], rules: _Rules) -> None:
        """Take one photo into the count."""
        self.objects += len(marks)
        values, mask = one.values, str(pair.mask)
        binary = rules.is_binary
        if values is None:
            if pair.mask is None:
                self.seen.add("bare", str(pair.photo))
            return
        if binary and values.kind != "colour" and values.top > 1 and values.changed:
            self.mends.add("masks with soft edges or noise, cut at half", mask)
            if not marks:
                self.mends.add("masks that are below half everywhere, taken as without objects", mask)
            elif cut_off(mask, values, rules.decision, marks):
                self.seen.add("soft", f"{mask}: {values.weak:.0%}")
        if values.kind != "grey" and values.top:
            self.mends.add(f"masks taken from {_KINDS[values.kind]}", mask)
        if rules.resize and values.size != one.size:
            self.mends.add("masks scaled to their photo", mask)
        if values.top == 0:
            self.seen.add("black", mask)
        if rules.frame == "upright" and one.orientation != 1 and values.size == one.other:
            self.seen.add("turned", str(pair.photo))
        if not binary and marks:
            self.scattered.add(mask, marks, one.size)

    def add_parts(self, masks: Sequence[tuple[str, bytes, Size]], rules: _Rules) -> None:
        """Take the parts of binary masks into the count; masks by name, with the RLE and its `(height, width)`."""
        if not rules.is_binary:
            return
        self.masks += len(masks)
        parts = parts_of_masks([(rle, size) for _, rle, size in masks])
        for (name, rle, size), areas in zip(masks, parts, strict=True):
            total = pixels.area(rle, size) if areas is None else areas.sum()
            if areas is None:
                self.seen.add("frayed", name)
            elif len(areas) > 1 and areas[1] >= LARGE_PART * total:
                self.seen.add("several", name)
                self.large += int((areas >= LARGE_PART * total).sum())
            if 2 * total > size[0] * size[1]:
                self.seen.add("covering", name)

    def notes(self, settings: PrepareSettings) -> list[str]:
        """Return what the user should know."""
        count, shown = self.seen.counts, {kind: some(names) for kind, names in self.seen.examples.items()}
        for kind, names in self.seen.examples.items():
            if count[kind] > len(names):
                shown[kind] = f"{', '.join(names)}, ..."
        notes = [] if settings.coding == "ids" else self.scattered.notes()
        if count["several"] and settings.parts == "together":
            notes.append(
                f"{count['several']:,} of {self.masks:,} masks have several large parts ({shown['several']};"
                f" {self.large:,} large parts in all); each mask is one object:"
                " --parts separate makes each part an object"
            )
        if 2 * count["covering"] > self.masks:
            notes.append(
                f"in {count['covering']:,} of {self.masks:,} masks the object covers more than half of the photo"
                f" ({shown['covering']}); if black is the object, invert the masks first"
            )
        if count["frayed"]:
            notes.append(told_frayed(plural(count["frayed"], "mask"), shown["frayed"]))
        if count["soft"]:
            notes.append(told_cut_off(plural(count["soft"], "mask"), shown["soft"]))
        if count["turned"]:
            notes.append(
                f"{plural(count['turned'], 'photo')} must be turned or mirrored to be upright ({shown['turned']}) and"
                " the size of the mask fits both ways; the masks are taken as drawn on the upright photo: look at one"
                " of them; if they were drawn on it as stored: --mask-frame stored"
            )
        if count["black"]:
            notes.append(
                f"{plural(count['black'], 'photo')} with an all-black mask: photos without objects ({shown['black']})"
            )
        if count["bare"]:
            notes.append(
                f"{plural(count['bare'], 'photo')} without a mask: photos without objects, as you said"
                f" ({shown['bare']})"
            )
        return notes


_KINDS = {
    "palette": "palette entries",
    "one colour": "pictures of one colour on black",
    "transparency": "the transparency",
    "colour": "colour pictures",
}


def _meaning(decision: Decision, settings: PrepareSettings) -> str:
    if decision.coding == "ids":
        return "value n is object n of its photo (coding ids)"
    if settings.parts == "separate":
        return "each connected part of a mask is one object (coding binary)"
    return "a mask is one object, parts and holes included (coding binary)"


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
