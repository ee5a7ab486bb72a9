"""Colour-coded masks: each colour is a category, or each colour is an object.

A list of colours says which. Without one, colours that differ from photo to photo are objects; nothing else is guessed.
Masks whose colours were changed (JPEG, smooth edges) are read by the nearest colour, and the distance is told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import UnreadableImage, sha256, write_json
from maskwright.formats import (
    Found,
    Mark,
    Photo,
    Reading,
    Tally,
    Work,
    Written,
    folders,
    outside,
    plural,
    scan,
    some,
)
from maskwright.formats.coding import look
from maskwright.formats.colour_lists import LIST_FILES, OUR_LIST, ColourList, Entry, read_list
from maskwright.formats.colour_values import (
    CLEAR,
    Mixed,
    assign,
    centres,
    colour_plane,
    is_lossy,
    is_smeared,
    unpack,
)
from maskwright.formats.names import stems
from maskwright.formats.pairing import Pair, Pairing, Place
from maskwright.formats.photos import Sight, sight
from maskwright.formats.planes import (
    Losses,
    Plane,
    drawn,
    hex_colour,
    mask_problems,
    may_scale,
    paint,
    save_png,
    scaled,
)
from maskwright.formats.runs import FRAYED, is_frayed, objects_of_ids, part_rles
from maskwright.formats.shelf import Shelf
from maskwright.formats.split_folders import splits_text
from maskwright.pixels import Size
from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "colours"
EXPECTS = "a folder of photos and one of masks in colours, with a list of what the colours mean, or each an object"

INSTANCES = "instances"
SAMPLE = 8
"""So many masks are looked at to tell the form."""

MOST_LOOKED = 20_000
"""So many files are looked at to find them: other files may lie before them."""

SHOWN_COLOURS = 12
_BLACK = 0
_UNMIXED = Mixed()
_MOST_SHOWN = 40
_MOST_COUNTED = 100_000


@dataclass(frozen=True)
class _Survey:
    """What one look at a mask found: its colours, most frequent first, and how many there are."""

    colours: tuple[tuple[int, int], ...] = ()
    distinct: int = 0
    fault: str = ""


@dataclass(frozen=True)
class _How:
    """How colours are read.

    Attributes:
        palette: The colours of categories, or none: each colour is an object.
        ground: The colours of the ground.
        resize: Scale masks to their photo.
        exact: Every colour is listed, however few pixels it has.
    """

    palette: tuple[int, ...]
    ground: tuple[int, ...]
    resize: bool
    exact: bool = False


@dataclass(frozen=True)
class _Seen:
    """What a photo and its mask hold: `objects` are the packed colour and RLE of each."""

    photo: Sight
    size: Size | None = None
    fault: str = ""
    objects: tuple[tuple[int, bytes], ...] = ()
    mixed: Mixed = _UNMIXED
    unclear: tuple[tuple[int, int], ...] = ()
    strange: tuple[tuple[int, int, float], ...] = ()
    hash: str = ""


@dataclass(frozen=True)
class _Parts:
    places: tuple[Place, ...]
    source: Path | None


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for mask images in colours: a list of colours beside them, or colours that are no ids by themselves.

    Raises:
        UserError: If `--colours` names a file that is not there.
    """
    if place.is_file():
        return None
    pairs = folders.find(place, settings)
    if pairs is None:
        return None
    places: tuple[Place, ...] = tuple(pairs.parts)
    source = _source(place, places, settings)
    said = settings.form == NAME or settings.colours is not None
    if not said:
        if settings.coding is not None:
            return None
        kinds = [kind for one in places for kind in _kinds(one.masks)]
        ours = source is not None and source.name == OUR_LIST  # it names the colours of each mask, be it only one
        if not ours and (not kinds or 2 * kinds.count("colour") < len(kinds)):
            return None
    return Found(
        NAME,
        place,
        f"masks in colours in {', '.join(str(p.masks) for p in places)}",
        _Parts(places, source),
        pairs.reads,
    )


def _kinds(masks: Path) -> list[str]:
    """Return what kind of picture a few of the masks are; black ones and those that cannot be read do not count."""
    kinds: list[str] = []
    pictures = (name for name, why in islice(scan(masks), MOST_LOOKED) if not why)
    for name in islice(pictures, SAMPLE):
        try:
            values = look(masks / name)
        except UnreadableImage:
            continue
        if values.top:
            kinds.append(values.kind)
    return kinds


def _source(place: Path, places: Sequence[Place], settings: PrepareSettings) -> Path | None:
    """Return the list of colours that the user named, or that lies beside the masks."""
    if settings.colours == INSTANCES:
        return None
    if settings.colours is not None:
        named = [path for path in (Path(settings.colours), place / settings.colours) if path.is_file()]
        if not named:
            raise UserError(
                "the list of colours does not exist",
                [f"{settings.colours}: neither there nor in {place}"],
                'name a JSON file like {"nut": "#e6194b"}, or: --colours instances',
            )
        return named[0]
    tops = dict.fromkeys([top for one in places for top in (one.masks, one.masks.parent)] + [place])
    return next((top / name for top in tops for name in LIST_FILES if (top / name).is_file()), None)


def read(found: Found, work: Work) -> Reading:
    """Read photos and masks in colours.

    Raises:
        UserError: With every problem that was found.
    """
    parts: _Parts = found.parts
    settings = work.settings
    listed = None if parts.source is None else read_list(parts.source)
    pairs = Pairing(parts.places, settings)
    for number, place in enumerate(pairs.places):
        counts = f"{plural(pairs.photos[number], 'photo')} in {place.photos}, {pairs.masks[number]:,} with a mask in"
        work.say(f"understood: {f'{place.split}: ' if place.split else ''}{counts} {place.masks}")
    for note in pairs.notes:
        work.say(f"understood: {note}")
    splits = splits_text(place.split for place in pairs.places)
    if splits:
        work.say(f"understood: {splits}")
    if pairs.problems:
        raise UserError(pairs.problems)
    how, told = _decide(parts, listed, pairs, work)
    work.say(f"understood: {told}")
    story = _Story(pairs.places, listed, how, settings)
    photos: Shelf[Photo] = Shelf()
    for pair, one in zip(pairs, work.each(partial(_look, how=how, frame=work.settings.mask_frame), pairs), strict=True):
        if story.add(pair, one):
            photos.put(story.photo(pair, one, work.root))
    problems = story.problems()
    if problems:
        raise UserError(problems)
    if not story.objects:
        raise UserError(
            "no mask marks an object: there is no colour but that of the ground",
            [str(place.masks) for place in parts.places],
            "check the list of colours, or export the masks again",
        )
    names = story.names()
    work.say(f"understood: {plural(len(names), 'category')}: {', '.join(names)}")
    used = {folder for place in parts.places for folder in (place.photos, place.masks)}
    sources = () if parts.source is None else (parts.source,)
    skipped = [one for one in pairs.skipped if one.path not in sources]
    return Reading(
        form=NAME,
        coding=None,
        categories=names,
        photos=photos,
        sources=sources,
        skipped=(*skipped, *outside(work.root, used | set(sources))),
        splits=splits,
        mends=story.mends.mends(),
        notes=(*pairs.notes, *story.notes()),
    )


# ── what colours mean ────────────────────────────────────────────────────────────────────────────────────────────────


def _decide(parts: _Parts, listed: ColourList | None, pairs: Pairing, work: Work) -> tuple[_How, str]:
    """Return how the colours are read, and that in words."""
    settings = work.settings
    resize = settings.resize_masks
    if listed is not None and listed.per_file:
        how = _How((), tuple(sorted(listed.ground)), resize, exact=True)
        return how, f"each colour is an object; {listed.path} lists the colours of each mask"
    if listed is not None and listed.colours:
        ground = tuple(sorted(listed.ground or ({_BLACK} - set(listed.colours))))
        words = ", ".join(f"{name} {_colours_of(listed, name)}" for name in listed.names)
        return _How(tuple(listed.colours), ground, resize), f"each colour is a category ({listed.path}): {words}"
    census = _Census()
    paths = (Path(pair.mask) for pair in pairs if pair.mask is not None)
    names = (pair.mask for pair in pairs if pair.mask is not None)
    for name, one in zip(names, work.each(_survey, paths), strict=True):
        census.add(name, one)
    if listed is not None:
        ground, why = tuple(sorted(listed.ground)), f"as {listed.path} says"
    else:
        ground, why = census.ground()
    if not ground:
        raise UserError(
            "the colour of the ground cannot be known: no mask has black, and no colour is the most frequent in all",
            census.lines(()),
            'name it in a JSON file: {"background": "#440154"}, and: --colours FILE.json',
        )
    if settings.colours is None and listed is None and not census.differ(ground):
        raise _unknown(census, ground)
    said = "as you said" if settings.colours is not None else "they differ from photo to photo"
    words = ", ".join(hex_colour(colour) for colour in ground)
    return _How((), ground, resize), f"each colour is an object ({said}); {words} is the ground ({why})"


def _colours_of(listed: ColourList, name: str) -> str:
    return " and ".join(hex_colour(colour) for colour, one in listed.colours.items() if one == name)


def _survey(path: Path) -> _Survey:
    """Look at the colours of one mask."""
    try:
        plane = colour_plane(path)
    except UnreadableImage as error:
        return _Survey(fault=str(error))
    if is_smeared(plane, is_lossy(path)):
        kept, _ = centres(plane, is_lossy(path))
    else:
        found, counts = np.unique(plane, return_counts=True)
        kept = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda one: -one[1])
    if is_lossy(path):  # black is never quite black
        kept = [(_BLACK if _apart(colour, _BLACK) < CLEAR else colour, count) for colour, count in kept]
    return _Survey(tuple(kept[:_MOST_SHOWN]), len(kept))


def _apart(one: int, other: int) -> float:
    a, b = (unpack(np.array(colour)).astype(np.float64) for colour in (one, other))
    return float(np.sqrt(((a - b) ** 2).sum()))


class _Census:
    """The colours of all masks: how many masks have each, in how many it is the most frequent."""

    def __init__(self) -> None:
        self.masks = 0
        self.present: Counter[int] = Counter()
        self.first: Counter[int] = Counter()
        self.shown: list[tuple[str, _Survey]] = []

    def add(self, name: str, survey: _Survey) -> None:
        """Count the colours of a mask; `name` is how messages call it."""
        # So many colours say that they differ; the rest of a million masks need not be counted.
        if not survey.colours or len(self.present) > _MOST_COUNTED:
            return
        self.masks += 1
        self.present.update(colour for colour, _ in survey.colours)
        self.first[survey.colours[0][0]] += 1
        if len(self.shown) < _MOST_SHOWN:
            self.shown.append((name, survey))

    def ground(self) -> tuple[tuple[int, ...], str]:
        """Return the colour of the ground, black or that of most pixels in all masks, and why; none if unknown."""
        if not self.masks or self.present[_BLACK]:
            return (_BLACK,), "black"
        colour, count = self.first.most_common(1)[0]
        if self.masks > 1 and self.present[colour] == self.masks and 5 * count >= 4 * self.masks:
            return (colour,), "the most frequent colour of all masks"
        return (), ""

    def differ(self, ground: Sequence[int]) -> bool:
        """Tell whether the colours differ from photo to photo, as only those of objects do."""
        each = [n for colour, n in self.present.items() if colour not in ground]
        return self.masks >= 3 and sum(each) >= 6 and len(each) >= 0.8 * sum(each)

    def often(self, ground: Sequence[int]) -> list[tuple[int, int]]:
        """Return the colours that most masks have, and how many have them."""
        known = sorted((-n, colour) for colour, n in self.present.items() if colour not in ground)
        return [(colour, -n) for n, colour in known[:SHOWN_COLOURS]]

    def lines(self, ground: Sequence[int]) -> list[str]:
        """Return the colours of the first masks, for messages."""
        lines = []
        for name, survey in self.shown:
            colours = [hex_colour(colour) for colour, _ in survey.colours if colour not in ground]
            more = ", ..." if survey.distinct > SHOWN_COLOURS else ""
            lines.append(f"{name}: {plural(len(colours), 'colour')}: {', '.join(colours[:SHOWN_COLOURS])}{more}")
        return lines


def _unknown(census: _Census, ground: Sequence[int]) -> UserError:
    often = census.often(ground)
    example = {f"NAME {n}": hex_colour(colour) for n, (colour, _) in enumerate(often[:3], 1)}
    found = ", ".join(f"{hex_colour(colour)} in {plural(n, 'mask')}" for colour, n in often)
    return UserError(
        "the masks are in colours whose meaning cannot be known",
        [f"found: {found}", *census.lines(ground)],
        f"if each colour is a category, name them in a file colours.json: {json.dumps(example)}, and:"
        " --colours colours.json; if each colour is an object: --colours instances",
    )


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(pair: Pair, how: _How, frame: MaskFrame) -> _Seen:
    """Read one photo with its mask; what is wrong with them is in the answer."""
    photo = sight(Path(pair.photo), frame)
    if pair.mask is None:
        return _Seen(photo)
    mask = Path(pair.mask)
    try:
        plane: Plane = colour_plane(mask)
        digest = sha256(mask)
    except UnreadableImage as error:
        return _Seen(photo, fault=str(error))
    size = (int(plane.shape[0]), int(plane.shape[1]))
    if how.resize and not photo.fault and may_scale(size, photo):
        plane = scaled(plane, photo.size)
    shape = (int(plane.shape[0]), int(plane.shape[1]))
    lossy = is_lossy(mask)
    if how.exact and lossy:
        return _Seen(photo, size, "is a JPEG, which changes the colours that the list has", hash=digest)
    if how.palette:
        palette = [*how.ground, *how.palette]
        labels, mixed, strange = assign(plane, palette, lossy)
        values = np.where(labels < len(how.ground), 0, labels + 1)
        regions = objects_of_ids(values)
        if any(is_frayed(rle) for _, rle in regions):
            return _Seen(photo, size, FRAYED, hash=digest)
        objects = tuple((palette[value - 1], part) for value, rle in regions for part in part_rles(rle, shape))
        return _Seen(photo, size, "", objects, mixed, (), tuple(strange), digest)
    if how.exact or not is_smeared(plane, lossy):
        values = np.where(np.isin(plane, how.ground), 0, plane + 1)  # black may be an object
        objects = tuple((value - 1, rle) for value, rle in objects_of_ids(values))
        return _Seen(photo, size, "", objects, hash=digest)
    found, unclear = centres(plane, lossy)
    palette = [colour for colour, _ in found]
    if not palette:
        return _Seen(photo, size, "has no area of one colour", hash=digest)
    labels, mixed, strange = assign(plane, palette, lossy)
    near = CLEAR if lossy else 0.0
    grounds = [n for n, c in enumerate(palette) if any(_apart(c, colour) <= near for colour in how.ground)]
    values = np.where(np.isin(labels, grounds), 0, labels + 1)
    objects = tuple((palette[value - 1], rle) for value, rle in objects_of_ids(values))
    return _Seen(photo, size, "", objects, mixed, tuple(unclear), tuple(strange), digest)


@dataclass
class _Story:
    """What was found in all masks together."""

    places: Sequence[Place]
    listed: ColourList | None
    how: _How
    settings: PrepareSettings
    mends: Tally = field(default_factory=Tally)
    looked: list[tuple[str, Size | None, str, Sight]] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    mixed: Mixed = field(default_factory=Mixed)
    pixels: int = 0
    worst: tuple[float, str] = (0.0, "")
    masks: int = 0
    smeared: int = 0
    objects: int = 0
    bare: list[str] = field(default_factory=list)

    def add(self, pair: Pair, one: _Seen) -> bool:
        """Count what one mask holds; tells whether it can be used."""
        name = str(pair.mask or pair.photo)
        before = len(self.looked) + len(self.unclear) + len(self.strange) + len(self.unlisted)
        scaled_down = one.size is not None and one.size != one.photo.size and not one.fault and not one.photo.fault
        if scaled_down and self.settings.resize_masks and may_scale(one.size or (0, 0), one.photo):
            self.mends.add("masks scaled to their photo", name)
        elif one.fault or one.photo.fault or scaled_down:
            self.looked.append((name, one.size, one.fault, one.photo))
        for a, b in one.unclear[:1]:
            far = f"{_apart(a, b):.0f} apart"
            self.unclear.append(f"{name}: {hex_colour(a)} and {hex_colour(b)} are {far}")
        if one.strange:
            listed = ", ".join(f"{hex_colour(c)} ({n:,} pixels, {d:.0f} from the nearest)" for c, n, d in one.strange)
            self.strange.append(f"{name}: {listed}")
        if pair.mask is not None and self.listed is not None and self.listed.per_file and not one.fault:
            self._check_file(pair, one, name)
        if pair.mask is not None:
            self.masks += 1
            self.pixels += one.photo.size[0] * one.photo.size[1]
            self.objects += len(one.objects)
            if not one.objects:
                self.bare.append(str(pair.photo))
        if one.mixed.pixels:
            self.smeared += 1
            self.mixed = Mixed(
                self.mixed.pixels + one.mixed.pixels,
                self.mixed.total + one.mixed.total,
                max(self.mixed.largest, one.mixed.largest),
            )
            self.worst = max(self.worst, (one.mixed.total, f"{name}: {_mixed(one.mixed)}"))
        return before == len(self.looked) + len(self.unclear) + len(self.strange) + len(self.unlisted)

    def _entries(self, pair: Pair) -> Mapping[int, Entry] | None:
        """Return what the colours of a mask mean, if the list has it by name."""
        if pair.mask is None or self.listed is None:
            return {}
        return self.listed.files.get(Path(pair.mask).relative_to(self.places[pair.place].masks).as_posix())

    def _check_file(self, pair: Pair, one: _Seen, name: str) -> None:
        entries = self._entries(pair)
        if entries is None:
            self.unlisted.append(f"{name}: not listed")
            return
        found = {colour for colour, _ in one.objects}
        lost = [f"{hex_colour(c)} is not listed" for c in sorted(found - set(entries))]
        lost += [f"{hex_colour(c)} is listed, but not there" for c in sorted(set(entries) - found)]
        if lost:
            self.unlisted.append(f"{name}: {some(lost)}")

    def problems(self) -> list[Problem]:
        """Return what is wrong with the pictures."""
        problems = mask_problems(self.looked, resize=False)
        if self.unclear:
            problems.append(
                Problem(
                    "masks have colours so alike that they may be one colour or two",
                    tuple(self.unclear),
                    "export the masks as PNG, or in colours farther apart; or list the colours: --colours FILE.json",
                )
            )
        if self.strange:
            what = "masks have areas of colours that are not listed"
            fix = 'add them to the list of colours (as "background" if they mark nothing)'
            if not self.how.palette:
                what, fix = "masks have areas of colours that are none of their main ones", "export the masks as PNG"
            problems.append(Problem(what, tuple(self.strange), fix))
        if self.unlisted and self.listed is not None:
            fix = "write the masks anew; or take the list away, and: --colours instances"
            problems.append(Problem(f"masks and {self.listed.path} do not go together", tuple(self.unlisted), fix))
        return problems

    def _category(self, place: Place) -> str:
        return self.settings.category or place.category or "object"

    def names(self) -> tuple[str, ...]:
        """Return the categories, in order.

        Raises:
            UserError: If the user gave one name for several.
        """
        if self.listed is None or not self.listed.names:
            return tuple(sorted({self._category(place) for place in self.places}))
        if self.settings.category is None:
            return self.listed.names
        if len(self.listed.names) > 1:
            what = "one category name was given, the list of colours has several"
            raise UserError(what, [f"{self.listed.path}: {', '.join(self.listed.names)}"], "leave out --category")
        return (self.settings.category,)

    def photo(self, pair: Pair, one: _Seen, root: Path) -> Photo:
        """Return a photo with its objects."""
        place = self.places[pair.place]
        folder = place.photos
        entries = self._entries(pair) or {}
        marks = []
        for colour, rle in one.objects:
            entry = entries.get(colour)
            name = self._category(place)
            if self.listed is not None and self.listed.names and self.settings.category is None:
                name = entry.category if entry is not None else self.listed.colours[colour]
            marks.append(Mark(name, rle, entry is not None and entry.crowd))
        where = folder.relative_to(root).as_posix() if root in folder.parents else folder.name
        return Photo(
            file=pair.photo,
            name=pair.name,
            place="" if len(self.places) == 1 else where,
            split=place.split,
            size=one.photo.size,
            sha256=one.photo.sha256,
            marks=tuple(marks),
            masks=((pair.mask, one.hash),) if pair.mask is not None else (),
            turn=one.photo.turn,
        )

    def notes(self) -> Iterator[str]:
        """Yield what the user should know."""
        if self.how.palette:
            yield (
                "the colours tell categories, not objects: each connected part of a colour is taken as an object, so"
                " objects of one category that touch are one, and one in two parts is two; how many touch cannot be"
                " known. To keep them apart give each object its own colour or number"
            )
        if self.smeared:
            share = 100 * self.mixed.pixels / max(self.pixels, 1)
            yield (
                f"{plural(self.smeared, 'mask')} of {self.masks:,} in colours changed by compression or smooth edges:"
                f" {_mixed(self.mixed)} ({share:.1f} % of all pixels were given the nearest colour; 442 is from black"
                f" to white); most in {self.worst[1]}"
            )
        if self.bare:
            yield f"{plural(len(self.bare), 'photo')} without objects ({some(self.bare)})"


def _mixed(mixed: Mixed) -> str:
    mean = mixed.total / max(mixed.pixels, 1)
    return f"{plural(mixed.pixels, 'pixel')} moved, distance {mean:.1f} in the mean and {mixed.largest:.1f} at most"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def object_colours(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return different colours, none black, the first ones far apart; `(count, 3)` RGB uint8.

    The bits of the number are spread over the channels from the top, as in VOC's colour map.

    Example:
        >>> object_colours(4).tolist()
        [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    """
    number = np.arange(1, count + 1)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for channel in range(3):
        for step in range(8):
            colours[:, channel] |= (((number >> (3 * step + channel)) & 1) << (7 - step)).astype(np.uint8)
    return colours


def write(dataset: Dataset, folder: Path) -> Written:
    """Write one mask in colours for each photo, each object in its own, and `colours.json` with their categories.

    Raises:
        UserError: If photos have no names that files can have; then nothing is written.
    """
    names = stems(dataset)
    losses = Losses()
    category = {one.id: one.name for one in dataset.categories}
    empty = tuple(f"category {one.id}" for one in dataset.categories if not one.name)
    if empty:
        raise UserError("a category has no name", empty, "give it a name")
    files: dict[str, dict[str, Any]] = {}
    written = 0
    for i, objects in drawn(dataset, losses):
        colours = np.concatenate([np.zeros((1, 3), dtype=np.uint8), object_colours(len(objects))])
        values = paint(dataset, i, objects, losses)
        name = f"{names[i]}.png"
        save_png(colours[values], folder / name)
        entries: dict[str, Any] = {}
        for n in np.unique(values[values > 0]).tolist():
            k = int(objects[n - 1])
            word = category[int(dataset.category_ids[k])]
            red, green, blue = (int(v) for v in colours[n])
            key = hex_colour(red << 16 | green << 8 | blue)
            entries[key] = {"category": word, "crowd": True} if dataset.crowd[k] else word
        files[name] = entries
        written += len(entries)
    document = {"background": "#000000", "categories": list(category.values()), "files": files}
    write_json(folder / OUR_LIST, document)
    return Written(len(names) + 1, written, tuple(losses.notes()))
