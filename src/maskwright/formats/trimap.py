"""Masks of a few values of which one is the object: trimaps with a border of doubt, and any mask if told the value.

Recognised are 1/2/3 (1 the object, 2 the ground, 3 the border, as the Oxford pets have it) and 0/128/255 of matting (0
the ground, 128 unknown, 255 the object), if 128 lies between the two; else it may be a second category, and the user is
asked. Pixels of the border belong to no object.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import UnreadableImage, sha256
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
from maskwright.formats.names import stems
from maskwright.formats.pairing import Pair, Pairing, Place
from maskwright.formats.photos import Sight, sight
from maskwright.formats.planes import (
    LOSSY_SUFFIXES,
    Losses,
    Plane,
    drawn,
    mask_problems,
    may_scale,
    paint,
    read_plane,
    save_png,
    scaled,
)
from maskwright.formats.shelf import Shelf
from maskwright.formats.split_folders import splits_text
from maskwright.pixels import Size
from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "trimap"
EXPECTS = "a folder of photos and one of masks of the values 1, 2, 3 or 0, 128, 255; or others with --object-value N"

SAMPLE = 8
"""So many masks are looked at to tell the form."""

MOST_LOOKED = 20_000
"""So many files are looked at to find them: other files may lie before them."""

MOST_VALUES = 32
"""A mask with more values than this is no trimap."""

BORDER_SHARE = 0.9
"""A border is one if at least this share of its pixels is in parts that touch both object and ground."""

_MOST_COUNTED = 1 << 22
"""So many numbers are counted at once, for which numpy makes each of them eight bytes wide."""

_EDGE = -1  # stands for a value between ground and object that is an edge only
_BREED = re.compile(r"([A-Za-z][A-Za-z_]*?)_\d+")


@dataclass(frozen=True)
class Kind:
    """What the values of trimaps mean: of the object, of the border of doubt, and all that there may be."""

    what: str
    object: int
    border: int
    values: frozenset[int]


PETS = Kind("1 is the object, 2 the ground, 3 the border", 1, 3, frozenset({1, 2, 3}))
MATTING = Kind("255 is the object, 0 the ground, 128 the unknown border", 255, 128, frozenset({0, 128, 255}))


class _Survey(NamedTuple):
    """The values of a mask, and how the border of matting lies in it.

    Attributes:
        values: All of them.
        border: Pixels of the border.
        between: Those of them in parts that touch object and ground.
        edged: Pairs of neighbouring pixels of which one is object, one border.
        bare: Pairs of which one is object, one ground.
    """

    values: frozenset[int]
    border: int = 0
    between: int = 0
    edged: int = 0
    bare: int = 0

    @property
    def is_border(self) -> bool:
        """Tell whether the value of the border lies as one: between object and ground, most of the way around."""
        return self.between >= BORDER_SHARE * self.border and self.edged >= self.bare


@dataclass(frozen=True)
class _Seen:
    """What one look at a photo and its mask found: `values` with their pixels, and the RLE of the object."""

    photo: Sight
    size: Size | None = None
    fault: str = ""
    values: tuple[tuple[int, int], ...] = ()
    rle: bytes = b""
    hash: str = ""


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for masks of the values of a trimap and no others; with `--form trimap` or an object value for any masks."""
    if place.is_file():
        return None
    pairs = folders.find(place, settings)
    if pairs is None:
        return None
    places: tuple[Place, ...] = tuple(pairs.parts)
    if settings.form != NAME and settings.object_value is None:
        if settings.coding is not None or settings.colours is not None:
            return None
        seen = [values for one in places for values in _sample(one.masks)]
        pets = sum(_kind([values], strict=True) is PETS for values in seen)
        telling = sum(values != {0} for values in seen)
        # Where most are without a 0, one that is something else does not make their ground an object: reading says so.
        if _kind(seen, strict=True) is None and 2 * pets <= telling:
            return None
    why = f"trimaps in {', '.join(str(one.masks) for one in places)}"
    return Found(NAME, place, why, places, pairs.reads)


def _sample(masks: Path) -> list[frozenset[int]]:
    """Return the values of a few masks."""
    found: list[frozenset[int]] = []
    pictures = (name for name, why in islice(scan(masks), MOST_LOOKED) if not why)
    for name in islice(pictures, SAMPLE):
        try:
            values, plane, _ = _values(masks / name)
        except UnreadableImage:
            continue
        wide = MATTING.border not in values or _has_block(plane == MATTING.border)
        found.append(frozenset(values) if wide else frozenset(values) | {_EDGE})
    return found


def _has_block(mask: NDArray[np.bool_]) -> bool:
    """Tell whether three by three pixels are all set somewhere: an area, not the soft edge of a plain mask."""
    rows = mask[2:] & mask[1:-1] & mask[:-2]
    return bool((rows[:, 2:] & rows[:, 1:-1] & rows[:, :-2]).any())


def _kind(masks: Sequence[frozenset[int]], *, strict: bool) -> Kind | None:
    """Return which trimaps masks of these values are.

    Args:
        masks: The values of each mask.
        strict: They must show that they are trimaps, not just not contradict it.
    """
    together = frozenset().union(*masks)
    for kind in (PETS, MATTING):
        if not masks or not together <= kind.values:
            continue
        told = kind is PETS or kind.border in together  # 0/255 alone are plain masks
        shown = told and any({kind.object, kind.border} <= values or {1, 2} <= values for values in masks)
        if shown or not strict:
            return kind
    return None


def _values(path: Path) -> tuple[dict[int, int], Plane, bool]:
    """Return the values of a mask with their pixels, the plane (uint8 or uint16), and whether it is stored with loss.

    Raises:
        UnreadableImage: If it is no picture of numbers.
    """
    plane, palette = read_plane(path)
    if palette is not None and len(palette) == 0:
        if not (np.array_equal(plane >> 16, plane & 255) and np.array_equal((plane >> 8) & 255, plane & 255)):
            raise UnreadableImage("is a colour picture, not one of numbers")
        plane = plane & 255
    top = int(plane.max(initial=0))
    if top > 65535:
        raise UnreadableImage(f"has the value {top}, more than any trimap")
    plane = plane.astype(np.uint8 if top < 256 else np.uint16, copy=False)
    counts = _counted(plane, top)
    found = np.flatnonzero(counts)
    values = {int(value): int(counts[value]) for value in found}
    return values, plane, path.suffix.lower() in LOSSY_SUFFIXES


def _counted(plane: Plane, top: int) -> NDArray[np.int64]:
    """Count how often each value from 0 to `top` stands in a plane; `(top + 1,)`."""
    counts = np.zeros(top + 1, dtype=np.int64)
    for lines in _lines(plane):
        some = lines[lines > 0]
        if len(some):
            least = int(some.min())
            seen = np.bincount(some - least)
            counts[least : least + len(seen)] += seen
    counts[0] = plane.size - counts.sum()
    return counts


def _lines(*planes: Plane) -> Iterator[Any]:
    """Yield a few lines of a plane at a time; of several, each time a tuple of the same lines of all."""
    height, width = planes[0].shape
    step = max(1, _MOST_COUNTED // max(width, 1))
    for start in range(0, height, step):
        some = tuple(plane[start : start + step] for plane in planes)
        yield some if len(some) > 1 else some[0]


def read(found: Found, work: Work) -> Reading:
    """Read photos and trimaps.

    Raises:
        UserError: With every problem that was found.
    """
    settings = work.settings
    pairs = Pairing(found.parts, settings)
    places = pairs.places
    for number, place in enumerate(places):
        counts = f"{plural(pairs.photos[number], 'photo')} in {place.photos}, {pairs.masks[number]:,} with a mask in"
        work.say(f"understood: {f'{place.split}: ' if place.split else ''}{counts} {place.masks}")
    names = tuple(sorted({_category(place, settings) for place in places}))
    work.say(f"understood: the objects are of the category {' or '.join(repr(name) for name in names)}")
    splits = splits_text(place.split for place in places)
    for line in [*([splits] if splits else []), *pairs.notes]:
        work.say(f"understood: {line}")
    if pairs.problems:
        raise UserError(pairs.problems)
    value = settings.object_value
    kind = None
    if value is None:
        kind = _recognise(pairs, work)
        value = kind.object
    meant = kind.what if kind is not None else f"{value} is the object (as you said), all else is not"
    work.say(f"understood: mask values: {meant}; each mask is one object")
    story = _Story(value, kind, settings)
    photos: Shelf[Photo] = Shelf()
    look = partial(_look, value=value, resize=settings.resize_masks, frame=settings.mask_frame)
    for pair, one in zip(pairs, work.each(look, pairs), strict=True):
        story.add(pair, one)
        place = places[pair.place]
        where = place.photos
        photos.put(
            Photo(
                file=pair.photo,
                name=pair.name,
                place="" if len(places) == 1 else _place_name(where, work.root),
                split=place.split,
                size=one.photo.size,
                sha256=one.photo.sha256,
                marks=(Mark(_category(place, settings), one.rle),) if one.rle else (),
                masks=((pair.mask, one.hash),) if pair.mask is not None else (),
                turn=one.photo.turn,
            )
        )
    problems = story.problems()
    if problems:
        raise UserError(problems)
    if not story.objects:
        found_values = ", ".join(str(v) for v in sorted(story.values)[:MOST_VALUES])
        raise UserError(
            f"no mask has the value {value}, which is the object",
            [f"found are the values {found_values}", *(str(place.masks) for place in places)],
            "say which value is the object: --object-value N",
        )
    used = {folder for place in found.parts for folder in (place.photos, place.masks)}
    return Reading(
        form=NAME,
        coding=None,
        categories=names,
        photos=photos,
        skipped=(*pairs.skipped, *outside(work.root, used)),
        splits=splits,
        mends=story.mends.mends(),
        notes=(*pairs.notes, *story.notes(photos)),
    )


def _category(place: Place, settings: PrepareSettings) -> str:
    return settings.category or place.category or "object"


def _place_name(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if root in folder.parents else folder.name


def _recognise(pairs: Pairing, work: Work) -> Kind:
    """Return what the values mean, from those of all masks.

    Raises:
        UserError: If that cannot be known, with the values.
    """
    kinds: Counter[frozenset[int]] = Counter()
    example: dict[frozenset[int], str] = {}
    border = _Survey(frozenset())
    odd: list[str] = []
    masks = (pair.mask for pair in pairs if pair.mask is not None)
    again = (pair.mask for pair in pairs if pair.mask is not None)
    for name, one in zip(masks, work.each(_survey, again), strict=True):
        if one is None:
            continue
        kinds[one.values] += 1
        example.setdefault(one.values, name)
        border = _Survey(border.values, *(a + b for a, b in zip(border[1:], one[1:], strict=True)))
        if not one.is_border:
            odd.append(f"{name}: {_listed(one.values)}; {MATTING.border} does not lie between")
    kind = _kind(list(kinds), strict=False) if kinds else PETS  # where none can be read, reading says why
    if kind is MATTING and not border.is_border:
        raise UserError(
            "which value of the masks is the object cannot be known",
            odd,
            "say it: --object-value N (all other values are then no object); or if each value is a category, name them"
            ' by their colours in a file colours.json: {"NAME 1": "#808080", "NAME 2": "#ffffff"}, and: --colours'
            " colours.json",
        )
    if kind is not None:
        return kind
    lines = [
        f"{example[values]}{f' and {count - 1:,} more' if count > 1 else ''}: {_listed(values)}"
        for values, count in kinds.most_common()
    ]
    raise UserError(
        "which value of the masks is the object cannot be known",
        lines,
        "say it: --object-value N (all other values are then no object)",
    )


def _listed(values: frozenset[int]) -> str:
    shown = ", ".join(str(value) for value in sorted(values)[:8])
    return f"value{'s' if len(values) > 1 else ''} {shown}{', ...' if len(values) > 8 else ''}"


def _survey(mask: str) -> _Survey | None:
    try:
        values, plane, _ = _values(Path(mask))
    except UnreadableImage:
        return None
    found = frozenset(values)
    return _Survey(found, *_lie(plane)) if MATTING.border in found and found <= MATTING.values else _Survey(found)


def _lie(plane: Plane) -> tuple[int, int, int, int]:
    """Return how the border of matting lies in a mask: the numbers of `_Survey`; takes some 8 bytes a pixel.

    Args:
        plane: `(H, W)` uint8.
    """
    from scipy import ndimage

    edged, bare = (_neighbours(plane == MATTING.object, plane == value) for value in (MATTING.border, 0))
    near = np.ones((3, 3), dtype=np.bool_)
    parts, count = ndimage.label(plane == MATTING.border, near)
    touches = np.ones(count + 1, dtype=np.bool_)
    for value in (MATTING.object, 0):
        touched = np.zeros(count + 1, dtype=np.bool_)
        for some_parts, beside in _lines(parts, ndimage.binary_dilation(plane == value, near)):
            touched[some_parts[beside]] = True
        touches &= touched
    areas = _counted(parts, count)
    areas[0] = 0
    return int(areas.sum()), int(areas[touches].sum()), edged, bare


def _neighbours(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """Count the pairs of pixels, side by side or one above the other, of which each is in another one of two masks."""
    pairs = (
        (one[:, 1:], other[:, :-1]),
        (one[:, :-1], other[:, 1:]),
        (one[1:], other[:-1]),
        (one[:-1], other[1:]),
    )
    return sum(int(np.count_nonzero(a & b)) for a, b in pairs)


def _look(pair: Pair, value: int, resize: bool, frame: MaskFrame) -> _Seen:
    """Read one photo with its mask; what is wrong with them is in the answer."""
    photo = sight(Path(pair.photo), frame)
    if pair.mask is None:
        return _Seen(photo)
    try:
        values, plane, lossy = _values(Path(pair.mask))
        digest = sha256(Path(pair.mask))
    except UnreadableImage as error:
        return _Seen(photo, fault=str(error))
    size = (int(plane.shape[0]), int(plane.shape[1]))
    if lossy and len(values) > 1:
        return _Seen(photo, size, "is a JPEG, which changes the values of a trimap")
    if len(values) > MOST_VALUES:
        return _Seen(photo, size, f"has {len(values)} values; a trimap has a few")
    if resize and not photo.fault and may_scale(size, photo):
        plane = scaled(plane, photo.size)
    mask = plane == value
    rle = pixels.encode(mask) if mask.any() else b""
    return _Seen(photo, size, "", tuple(values.items()), rle, digest)


@dataclass
class _Story:
    """What was found in all masks together."""

    value: int
    kind: Kind | None
    settings: PrepareSettings
    mends: Tally = field(default_factory=Tally)
    looked: list[tuple[str, Size | None, str, Sight]] = field(default_factory=list)
    values: Counter[int] = field(default_factory=Counter)
    masks: int = 0
    bordered: int = 0
    objects: int = 0
    bare: list[str] = field(default_factory=list)

    def add(self, pair: Pair, one: _Seen) -> None:
        """Count what one mask holds."""
        name = pair.mask or pair.photo
        differs = one.size is not None and one.size != one.photo.size and not one.fault and not one.photo.fault
        if differs and self.settings.resize_masks and may_scale(one.size or (0, 0), one.photo):
            self.mends.add("masks scaled to their photo", name)
        elif differs or one.fault or one.photo.fault:
            self.looked.append((name, one.size, one.fault, one.photo))
        if pair.mask is None:
            return
        self.masks += 1
        found = dict(one.values)
        self.values.update(found)
        self.objects += bool(one.rle)
        if not one.rle:
            self.bare.append(pair.photo)
        self.bordered += self.kind is not None and self.kind.border in found

    def problems(self) -> list[Problem]:
        """Return what is wrong with the pictures."""
        return mask_problems(self.looked, resize=False)

    def notes(self, photos: Shelf[Photo]) -> Iterator[str]:
        """Yield what the user should know."""
        if self.kind is not None and self.bordered:
            yield (
                f"border (value {self.kind.border}): {self.values[self.kind.border]:,} pixels in"
                f" {plural(self.bordered, 'mask')} belong to no object"
            )
        if self.kind is None:
            rest = sorted((value, count) for value, count in self.values.items() if value != self.value)
            others = [f"{value} ({count:,} pixels)" for value, count in rest]
            if others:
                yield f"values that are no object: {some(others)}"
        if self.bare:
            yield f"{plural(len(self.bare), 'photo')} without objects ({some(self.bare)})"
        if self.settings.category is None:
            breeds = _breeds(photos)
            if breeds:
                yield (
                    f"the photos are named like {some(breeds)}; all objects are of one category:"
                    " --category NAME gives its name"
                )


def _breeds(photos: Shelf[Photo]) -> list[str]:
    """Return the names before the numbers, if all photos are named so and there are several."""
    names: dict[str, None] = {}
    for photo in photos:
        match = _BREED.fullmatch(Path(photo.name).stem)
        if match is None:
            return []
        names[match[1]] = None
    return list(names) if len(names) > 1 else []


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write a mask for each photo: 1 is the object and 2 the ground; no pixel is 3, the border, since none is in doubt.

    Raises:
        UserError: If a photo has several objects; then nothing is written.
    """
    names = stems(dataset)
    losses = Losses()
    plan = [(i, objects[~dataset.crowd[objects]]) for i, objects in drawn(dataset, losses)]
    many = [f"{dataset.images[i].file_name}: {len(objects):,} objects" for i, objects in plan if len(objects) > 1]
    if many:
        raise UserError(
            "a trimap holds one object, and photos have more", many, "use: --form ids, or: --form instances"
        )
    for i, objects in plan:
        values = paint(dataset, i, objects, losses)
        save_png(np.where(values > 0, 1, 2).astype(np.uint8), folder / f"{names[i]}.png")
    notes = losses.notes()
    crowds = int(dataset.crowd.sum())
    if crowds:
        notes.append(f"{plural(crowds, 'crowd')} not in the images: a trimap has no crowds")
    used = {int(number) for _, objects in plan for number in dataset.category_ids[objects]}
    if len(used) > 1:
        listed = some(category.name for category in dataset.categories if category.id in used)
        notes.append(f"the categories ({listed}) are not in the images: a trimap has none")
    return Written(len(names), sum(len(objects) for _, objects in plan), tuple(notes))
