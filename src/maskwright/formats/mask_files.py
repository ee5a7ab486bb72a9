"""Photos that have any number of mask images each: look at all, decide what their values mean, make the objects.

Two passes, so that no more than one photo is in memory: the first looks at every photo and mask image and keeps what it
saw on disk; the second, once the meaning of the values is known, reads again only the few images that need it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from maskwright import pixels
from maskwright.errors import Problem, UserError
from maskwright.files import UnreadableImage, content_of, sha256_of
from maskwright.formats import (
    Mark,
    Mend,
    Photo,
    Tally,
    Work,
    plural,
    some,
)
from maskwright.formats.coding import Census, Coding, Decision, Values, decide, look, masks_of
from maskwright.formats.photos import Sight, sight
from maskwright.formats.planes import mask_problems
from maskwright.formats.runs import part_areas, told_frayed
from maskwright.formats.scattered import Scattered
from maskwright.formats.shelf import Pack, Shelf, Singly, packed, unpacked
from maskwright.formats.soft_edges import cut_off, told_cut_off
from maskwright.pixels import Size

if TYPE_CHECKING:
    from maskwright.settings import MaskFrame, PrepareSettings

LARGE_PART = 0.2
"""A part counts as large from this share of its mask on: less is a crumb."""


@dataclass(frozen=True)
class Item:
    """A photo and the mask images that belong to it.

    Attributes:
        photo: The file.
        name: Its path inside the photo folder, `/` between the parts.
        masks: Its mask images; none is a photo without objects.
        categories: The category of each mask image.
        place: What tells photo folders apart where several hold equal names.
        split: The split that it already is in; `None`: to be decided.
    """

    photo: Path
    name: str
    masks: tuple[Path, ...] = ()
    categories: tuple[str, ...] = ()
    place: str = ""
    split: str | None = None


@dataclass(frozen=True)
class MaskSeen:
    """What one look at a mask image found: its values, or why it cannot be used."""

    values: Values | None = None
    fault: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Seen:
    """What one look at a photo and its mask images found."""

    photo: Sight
    masks: tuple[MaskSeen, ...] = ()


class Meaning(Protocol):
    """Finds out what the values of mask images mean: each is shown to it, then it is asked."""

    several: bool
    """Whether the large parts of a mask may be objects of their own, of which the user must hear."""

    def add(self, name: str, category: str, values: Values) -> None:
        """Take in what a mask image holds."""

    def problems(self) -> list[Problem]:
        """Return why the meaning cannot be known; empty if it is."""

    def of(self, category: str, values: Values) -> Decision:
        """Return what the values of one mask image mean."""

    def told(self) -> Iterator[str]:
        """Yield what is to be said of it."""


class OneEach:
    """Each mask image is one object: whatever is not ground."""

    several = False

    def __init__(self, coding: Coding | None) -> None:
        self._coding = coding
        self._census = Census()
        self._soft = False
        self._odd = Census()
        self._noise = Census()
        self._said: Decision | None = None

    def add(self, name: str, category: str, values: Values) -> None:
        """Take in what a mask image holds."""
        if not values.top or self._is_plain(values):
            return
        if self._coding == "binary":
            self._census.add(name, values)
        elif values.reads_as_binary and not (values.lossy and values.top <= 1):
            self._soft |= values.changed > 0
        elif values.is_noise or (values.lossy and values.top <= 1):
            self._noise.add(name, values)
        else:
            self._odd.add(name, values)

    @staticmethod
    def _is_plain(values: Values) -> bool:
        return values.distinct == 1 and values.kind != "colour" and not values.lossy

    def problems(self) -> list[Problem]:
        """Return why the meaning cannot be known; empty if it is."""
        if self._coding == "ids":
            return [
                Problem(
                    "every mask file is one object here, so its values cannot number objects",
                    ("coding ids",),
                    "leave out --coding ids; or, if each photo has one mask image: --form folders",
                )
            ]
        if self._coding == "binary":
            self._said = decide(self._census, "binary")
            return []
        kinds = self._odd.filled()
        if not self._soft:  # faint values are noise where others show the same, or the file format makes it
            kinds += [kind for kind in self._noise.filled() if not kind.values.lossy]
        if not kinds:
            return []
        count = sum(kind.count for kind in kinds)
        lines = [f"{name}: {kind.values}" for kind in kinds for name in kind.names]
        return [
            Problem(
                f"{plural(count, 'mask file')} {'holds' if count == 1 else 'hold'} several values, and each mask file"
                " should be one object",
                tuple(lines[:count]),
                "if bright is the object and all else is not: --coding binary; if the values number objects, each photo"
                " has one mask image: --form folders",
            )
        ]

    def of(self, category: str, values: Values) -> Decision:
        """Return what the values of one mask image mean."""
        if self._is_plain(values):
            # A cut that the first look made need not be made again.
            return _HALF if values.top >= values.cut else _ANY
        if self._said is not None:
            return self._said
        if values.reads_as_binary and not (values.lossy and values.top <= 1):
            return _HALF
        return Decision("binary", "noise", least_top=values.top + 1)

    def told(self) -> Iterator[str]:
        """Yield what is to be said of it."""
        yield "each mask file is one object, parts and holes included"


_HALF = Decision("binary", "bright")
_ANY = Decision("binary", "not 0", least_top=1)


class ByCategory:
    """The mask images of each category are decided over together; one category may be binary and another numbered."""

    several = True

    def __init__(self, coding: Coding | None, *, together: bool = False) -> None:
        """Decide what values mean.

        Args:
            coding: What the user said.
            together: Decide over all categories at once.
        """
        self._coding, self._together = coding, together
        self._census: dict[str, Census] = {}
        self.decisions: dict[str, Decision] = {}

    def add(self, name: str, category: str, values: Values) -> None:
        """Take in what a mask image holds."""
        self._census.setdefault("" if self._together else category, Census()).add(name, values)

    def problems(self) -> list[Problem]:
        """Return why the meaning cannot be known; empty if it is."""
        problems: list[Problem] = []
        for category, census in sorted(self._census.items()):
            try:
                self.decisions[category] = decide(census, self._coding)
            except UserError as error:
                problems += error.problems
        return problems

    def of(self, category: str, values: Values) -> Decision:
        """Return what the values of one mask image mean."""
        return self.decisions["" if self._together else category]

    def told(self) -> Iterator[str]:
        """Yield what is to be said of it."""
        for category, one in self.decisions.items():
            of = f" of '{category}'" if category and len(self.decisions) > 1 else ""
            meaning = (
                "value n is object n of its photo (coding ids)"
                if one.coding == "ids"
                else "a mask is one object, parts and holes included (coding binary)"
            )
            yield f"mask values{of} are {one.why}: {meaning}"


@dataclass(frozen=True)
class Objects:
    """Photos with their objects, and what the user should know of them."""

    photos: Collection[Photo]
    coding: str
    mends: tuple[Mend, ...]
    notes: tuple[str, ...]


def read_items(items: Iterable[Item], work: Work, meaning: Meaning, problems: list[Problem]) -> Objects:
    """Read photos and mask images.

    Args:
        items: Photo by photo; gone through once.
        work: What to work with.
        meaning: Finds out what values mean.
        problems: What is known to be wrong already.

    Raises:
        UserError: With every problem, those known already first.
    """
    seen: Shelf[tuple[Item, Seen]] = Shelf()
    for some_seen, values in work.each.pieces(partial(_look_at, work.settings.mask_frame), items):
        seen.put_packs(some_seen)
        for name, category, one in values:
            meaning.add(name, category, one)
    problems = [*problems, *mask_problems(_sizes(seen), resize=work.settings.resize_masks), *meaning.problems()]
    if problems:
        raise UserError(problems)
    for line in meaning.told():
        work.say(f"understood: {line}")
    rules = _Rules(meaning, work.settings.resize_masks)
    story = _Story()
    photos: Shelf[Photo] = Shelf()
    for some_photos, some_story in work.each.pieces(partial(_settle, rules), Singly(seen)):
        photos.put_packs(some_photos)
        story.join(some_story)
    if not len(photos):
        raise UserError("there is no photo", [str(work.root)], "check the folders")
    if not story.objects:
        raise UserError(
            "no mask image marks an object: all are black",
            [
                f"{path}: {mask.values}"
                for item, one in seen
                for path, mask in zip(item.masks, one.masks, strict=True)
                if mask.values is not None
            ],
            "export the masks again, with objects in white (or as values 1..N)",
        )
    return Objects(photos, " and ".join(sorted(story.codings)), story.mends.mends(), tuple(story.notes(work.settings)))


def look_at(item: Item, frame: MaskFrame) -> Seen:
    """Look at a photo and its mask images; what is wrong with them is in the answer, not raised."""
    return Seen(sight(item.photo, frame), tuple(_look(path) for path in item.masks))


def _look_at(
    frame: MaskFrame, items: list[Item]
) -> tuple[list[Pack[tuple[Item, Seen]]], list[tuple[str, str, Values]]]:
    """Look at some photos; return what was found, and the name, the category and the values of each mask image."""
    seen = [(item, look_at(item, frame)) for item in items]
    values = [
        (str(path), category, mask.values._replace(rle=b""))
        for item, one in seen
        for path, category, mask in zip(item.masks, item.categories, one.masks, strict=True)
        if mask.values is not None
    ]
    return list(packed(seen)), values


def _look(path: Path) -> MaskSeen:
    try:
        content = content_of(path)
        return MaskSeen(look(path, content), sha256=sha256_of(content))
    except UnreadableImage as error:
        return MaskSeen(fault=str(error))


def _sizes(seen: Iterable[tuple[Item, Seen]]) -> Iterator[tuple[str, Size | None, str, Sight]]:
    for item, one in seen:
        yield "", None, "", one.photo  # a photo without masks may be damaged too
        for path, mask in zip(item.masks, one.masks, strict=True):
            yield str(path), None if mask.values is None else mask.values.size, mask.fault, one.photo


@dataclass(frozen=True)
class _Rules:
    """What makes photos with objects of what was seen: what values mean, and whether masks are scaled."""

    meaning: Meaning
    resize: bool


def _settle(rules: _Rules, seen: list[tuple[Pack[tuple[Item, Seen]], int]]) -> tuple[list[Pack[Photo]], _Story]:
    """Make photos of what was seen; mask images that the first look did not read for good are read again."""
    photos: list[Photo] = []
    story = _Story()
    for item, one in unpacked(seen):
        rles = [
            _objects(path, category, mask.values, one.photo.size, rules.meaning)
            for path, category, mask in zip(item.masks, item.categories, one.masks, strict=True)
        ]
        marks = tuple(
            Mark(category, rle)
            for category, found in zip(item.categories, rles, strict=True)
            for rle in found
            if pixels.area(rle, one.photo.size)
        )
        soft = [
            each
            for path, category, mask, found in zip(item.masks, item.categories, one.masks, rles, strict=True)
            if mask.values is not None and mask.values.top
            for each in cut_off(str(path), mask.values, rules.meaning.of(category, mask.values), found)
        ]
        story.add(item, one, rles, marks, rules)
        story.add_soft(soft)
        photos.append(
            Photo(
                file=str(item.photo),
                name=item.name,
                place=item.place,
                split=item.split,
                size=one.photo.size,
                sha256=one.photo.sha256,
                marks=marks,
                masks=tuple((str(path), mask.sha256) for path, mask in zip(item.masks, one.masks, strict=True)),
                turn=one.photo.turn,
                soft=tuple(soft),
            )
        )
    return list(packed(photos)), story


def _objects(path: Path, category: str, values: Values | None, size: Size, meaning: Meaning) -> tuple[bytes, ...]:
    """Return the objects of a mask image."""
    if values is None or not values.top:
        return ()
    decision = meaning.of(category, values)
    if decision.is_read(values) and values.size == size:
        return (values.rle,)
    return tuple(masks_of(path, values, decision, size))


@dataclass
class _Story:
    """Counts what was mended, and what the user should know."""

    objects: int = 0
    codings: set[str] = field(default_factory=set)
    mends: Tally = field(default_factory=Tally)
    seen: Tally = field(default_factory=Tally)
    masks: Counter[str] = field(default_factory=Counter)
    scattered: Scattered = field(default_factory=Scattered)

    def join(self, other: _Story) -> None:
        """Take further photos into the count."""
        self.objects += other.objects
        self.codings |= other.codings
        self.mends.join(other.mends)
        self.seen.join(other.seen)
        self.masks.update(other.masks)
        self.scattered.join(other.scattered)

    def add(self, item: Item, one: Seen, rles: list[tuple[bytes, ...]], marks: tuple[Mark, ...], rules: _Rules) -> None:
        """Take one photo into the count."""
        self.objects += len(marks)
        if not item.masks:
            self.seen.add("bare", str(item.photo))
        if any(m.values is not None and one.photo.unsure(m.values.size) for m in one.masks):
            self.seen.add("turned", str(item.photo))
        for path, category, mask, found in zip(item.masks, item.categories, one.masks, rles, strict=True):
            if mask.values is not None:
                self._add_mask(path, category, mask.values, found, one.photo.size, rules)
        if not rules.meaning.several:
            twice = sum(n - 1 for n in Counter((mark.category, mark.rle) for mark in marks).values())
            if twice:
                self.seen.add("twice", str(item.photo), twice)

    def add_soft(self, soft: Iterable[tuple[str, float]]) -> None:
        """Take mask images into the count whose area depends on the cut, with the share that is cut off."""
        for name, share in soft:
            self.seen.add("soft", f"{name}: {share:.0%}")

    def _add_mask(
        self, path: Path, category: str, values: Values, found: tuple[bytes, ...], size: Size, rules: _Rules
    ) -> None:
        name = str(path)
        decision = rules.meaning.of(category, values) if values.top else None
        binary = decision is None or decision.coding == "binary"
        if decision is not None:
            self.codings.add(decision.coding)
        elif not self.codings:
            self.codings.add("binary")
        if binary and values.kind != "colour" and values.top > 1 and values.changed and values.distinct > 1:
            self.mends.add("masks with soft edges or noise, cut at half", name)
        if values.kind != "grey" and values.top:
            self.mends.add(f"masks taken from {_KINDS[values.kind]}", name)
        if rules.resize and values.size != size:
            self.mends.add("masks scaled to their photo", name)
        empty = not any(pixels.area(rle, size) for rle in found)
        if empty and values.top:
            self.mends.add("masks that are below half everywhere, taken as without objects", name)
        elif empty:
            self.seen.add("black", name)
        elif not binary:
            self.scattered.add(name, found, size)
        elif rules.meaning.several:
            areas = part_areas(found[0], size)
            total = pixels.area(found[0], size)
            large = 0 if areas is None else int((areas >= LARGE_PART * total).sum())
            self.masks["all"] += 1
            if areas is None:
                self.seen.add("frayed", name)
            if large > 1:
                self.seen.add("several", name)
                self.masks["large"] += large
            if 2 * total > size[0] * size[1]:
                self.seen.add("covering", name)

    def notes(self, settings: PrepareSettings) -> Iterator[str]:
        """Yield what the user should know."""
        count = self.seen.counts
        shown = {
            kind: f"{some(names)}{', ...' if count[kind] > len(names) else ''}"
            for kind, names in self.seen.examples.items()
        }
        if settings.coding != "ids":
            yield from self.scattered.notes()
        if count["several"] and settings.parts == "together":
            yield (
                f"{count['several']:,} of {self.masks['all']:,} masks have several large parts ({shown['several']};"
                f" {self.masks['large']:,} large parts in all); each mask is one object:"
                " --parts separate makes each part an object"
            )
        if 2 * count["covering"] > self.masks["all"]:
            yield (
                f"in {count['covering']:,} of {self.masks['all']:,} masks the object covers more than half of the"
                f" photo ({shown['covering']}); if black is the object, invert the masks first"
            )
        if count["frayed"]:
            yield told_frayed(plural(count["frayed"], "mask image"), shown["frayed"])
        if count["soft"]:
            yield told_cut_off(plural(count["soft"], "mask image"), shown["soft"])
        if count["twice"]:
            times = "object stands" if count["twice"] == 1 else "objects stand"
            yield (
                f"{count['twice']:,} {times} twice: the same pixels and category in the same photo"
                f" ({shown['twice']}); maskwright check tells more"
            )
        if count["turned"]:
            yield (
                f"{plural(count['turned'], 'photo')} must be turned or mirrored to be upright ({shown['turned']}) and"
                " the size of the mask fits both ways; the masks are taken as drawn on the upright photo: look at one"
                " of them; if they were drawn on it as stored: --mask-frame stored"
            )
        if count["black"]:
            yield f"{plural(count['black'], 'mask image')} all black: without an object ({shown['black']})"
        if count["bare"]:
            yield f"{plural(count['bare'], 'photo')} without a mask: without objects ({shown['bare']})"


_KINDS = {
    "palette": "palette entries",
    "one colour": "pictures of one colour on black",
    "transparency": "the transparency",
    "colour": "colour pictures",
}
