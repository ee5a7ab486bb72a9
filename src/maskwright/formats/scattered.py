"""Id images that look like class images: their values lie in several places, in photo after photo.

A class image of a few classes (0, 1, 2) holds 1, 2, ... without gaps, as id images do, so the values alone do not tell
which it is. Where the pixels lie mostly does: a class has an object here and others there; an object is in one place,
or in two, if something hides its middle. Nothing of that is certain, so it makes a note and no error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from maskwright.formats import Tally, some
from maskwright.formats.runs import part_areas
from maskwright.pixels import Size

PART = 0.25
"""A part counts from this share of its value's largest part on: less is a crumb."""

MOST_VALUES = 20
"""Masks of more values are not looked at: a heap of objects has some in several parts, and classes are few."""

FEWEST_MASKS = 3
"""In fewer masks nothing is told by how the values lie."""

SHARE = 0.2
"""The note is for inputs of which at least this share of the masks looks like class images."""

_ALIKE = 0.9  # of the masks have equally many values: of objects hardly, of classes mostly
_MOST_CLASSES = 10


@dataclass
class Scattered:
    """Counts how the values of id images lie."""

    masks: int = 0
    values: Counter[int] = field(default_factory=Counter)
    seen: Tally = field(default_factory=Tally)

    def add(self, name: str, objects: Sequence[bytes], size: Size) -> None:
        """Take one id image into the count.

        Args:
            name: How messages call it.
            objects: The RLE of each value but 0.
            size: Their `(height, width)`.
        """
        count = len(objects)
        self.masks += 1
        self.values[min(count, MOST_VALUES + 1)] += 1
        if not 0 < count <= MOST_VALUES:
            return
        parts = [_parts(rle, size) for rle in objects]
        several = sum(number >= 2 for number in parts)
        if max(parts) >= 3:
            self.seen.add("three", name)
        # Two parts of one object are nothing strange.
        if (max(parts) >= 3 or several >= 2) and 2 * several >= count:
            self.seen.add("half", name)

    def join(self, other: Scattered) -> None:
        """Take further id images into the count."""
        self.masks += other.masks
        self.values.update(other.values)
        self.seen.join(other.seen)

    def notes(self) -> list[str]:
        """Return what to say if the masks look like class images."""
        if self.masks < FEWEST_MASKS:
            return []
        usual, times = self.values.most_common(1)[0]
        alike = 2 <= usual <= _MOST_CLASSES and times >= _ALIKE * self.masks
        kind = "three" if alike and self.seen.counts["three"] > self.seen.counts["half"] else "half"
        count = self.seen.counts[kind]
        if count < max(2, SHARE * self.masks):
            return []
        example = json.dumps({f"NAME {n}": f"#{n:02x}{n:02x}{n:02x}" for n in range(1, min(max(usual, 2), 3) + 1)})
        shown = some([*self.seen.examples[kind], *(["..."] if count > len(self.seen.examples[kind]) else [])])
        return [
            f"in {count:,} of {self.masks:,} masks values lie in several places, as those of categories do ({shown});"
            " each value is taken as one object, so that objects of one value are joined. If the values are categories:"
            f" name them by their colours in a file colours.json, {example} for grey values, and: --colours"
            " colours.json; each connected part is then an object. If they number objects, --coding ids says so"
        ]


def _parts(rle: bytes, size: Size) -> int:
    """Count the connected parts of a mask that are no crumbs; one that is frayed is taken for two."""
    areas = part_areas(rle, size)
    if areas is None:
        return 2
    return int((areas >= PART * areas[0]).sum()) if len(areas) else 0
