"""The facts of a dataset: what is in it, as numbers that a plan can be made from, and as a table."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from maskwright import pixels
from maskwright.dataset import Dataset, Image
from maskwright.errors import Problem

LOOKED_AT = 5_000
"""So many objects per split, at most, are decoded for holes, parts and neighbours; whole photos, evenly spaced."""

MEASURED = 500
"""So many objects per split, at most, are measured for elongation and direction."""

SPECK_PX = 16
SPECK_SHARE = 1e-4
"""An object of fewer pixels, or of a smaller share of its photo, is a speck."""

PERCENTILES = (5, 25, 50, 75, 95)

Severity = Literal["error", "warning", "note"]
Pair = tuple[int, int]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Percentiles(_Frozen):
    """How a quantity is spread over the objects."""

    p5: float
    p25: float
    p50: float
    p75: float
    p95: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self | None:
        """Return the percentiles of `(N,)` values; `None` if there are none."""
        if not len(values):
            return None
        return cls(**{f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)})


class SizeCount(_Frozen):
    """How many photos have one size."""

    height: int
    width: int
    photos: int


class SplitFacts(_Frozen):
    """What one split holds. Crowd objects count in `crowd` and nowhere else.

    Attributes:
        photos: How many there are.
        empty_photos: Photos without an object.
        objects: How many there are, crowds left out.
        crowd: Crowd objects (many in one mask, not scored).
        sizes: Every photo size with its count, the commonest first.
        smallest, median, largest: `(height, width)` of the photo at that place in order of area; `None` without photos.
        objects_per_photo: Mean, `None` without photos.
        most_objects: Objects of the fullest photo.
        side_share: Square root of an object's area, as a share of its photo's longer side.
        box_side_share: Square root of the area of an object's box, as a share of its photo's longer side.
        area_share: An object's area, as a share of its photo's.
        aspect: Longer by shorter side of the object's box, at least 1.
        elongation: Longer by shorter principal axis of the object's mask, at least 1; from at most 500 objects.
        axis_spread: How evenly the principal axes point in all directions: 1 minus the length of the mean of the
            doubled directions, each weighted by how elongated the object is. 0: all alike; 1: no direction preferred.
            From at most 500 objects; `None` without objects.
        looked_at: Objects that the next five counts were made on; fewer than `objects` only where there are over 5,000.
        holes: Holes in all masks together.
        with_holes: Objects with a hole.
        in_parts: Objects of several parts.
        touching: Pairs of objects that touch or overlap.
        overlapping: Pairs of objects that share a pixel.
        specks: Objects of under 16 pixels or under 0.0001 of the photo.
        at_border: Objects that the photo's border may cut.
    """

    photos: int
    empty_photos: int
    objects: int
    crowd: int
    sizes: tuple[SizeCount, ...]
    smallest: tuple[int, int] | None
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    objects_per_photo: float | None
    most_objects: int
    side_share: Percentiles | None
    box_side_share: Percentiles | None
    area_share: Percentiles | None
    aspect: Percentiles | None
    elongation: Percentiles | None
    axis_spread: float | None
    looked_at: int
    holes: int
    with_holes: int
    in_parts: int
    touching: int
    overlapping: int
    specks: int
    at_border: int


class CategoryFacts(_Frozen):
    """One category, with its objects per split (crowds left out).

    Attributes:
        id: Of the category.
        name: Of the category.
        objects: How many there are.
        photos: Photos that hold one.
        rarest: Those of them that hold no category of fewer photos; a photo counts for one category only.
    """

    id: int
    name: str
    objects: dict[str, int]
    # Facts of older runs have neither.
    photos: dict[str, int] = {}
    rarest: dict[str, int] = {}


class Example(_Frozen):
    """One place where a finding can be seen.

    Attributes:
        split: Of the photo.
        photo: Its `file_name` in the split; empty where the finding is about no single photo.
        annotations: Ids of the objects meant, in that photo; none: the photo as a whole.
        other_split: Of the photo that it is held against, if there is one.
        other_photo: The `file_name` of that photo.
        note: What was measured, in a few words.
    """

    split: str
    photo: str
    annotations: tuple[int, ...] = ()
    other_split: str | None = None
    other_photo: str | None = None
    note: str = ""


class Finding(_Frozen):
    """One thing that is wrong: an `error` makes training pointless or impossible, a `warning` does not.

    Attributes:
        code: A short name for programs.
        severity: `error` makes training pointless or impossible, `warning` makes it or its scores worse, `note` is
            good to know.
        problem: What is wrong, where, and what to do.
        count: How many offenders there are (photos, objects, categories: what `problem` says).
        examples: At most 12 of them that a picture can show, the worst first.
    """

    code: str
    severity: Severity
    problem: Problem
    count: int
    examples: tuple[Example, ...] = ()


class Facts(_Frozen):
    """What is in a dataset, and what is wrong with it; pydantic's `model_dump_json` and `model_validate_json` apply."""

    splits: dict[str, SplitFacts]
    categories: tuple[CategoryFacts, ...]
    problems: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What must be mended before training."""
        return tuple(f.problem for f in self.problems if f.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What should be looked at, and does not stop training."""
        return tuple(f.problem for f in self.problems if f.severity == "warning")

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What is good to know."""
        return tuple(f.problem for f in self.problems if f.severity == "note")

    def table(self) -> str:
        """Return the facts as a readable table, one column per split; the problems are not in it."""
        return _table(self)


@dataclass(frozen=True)
class SplitView:
    """A split with what its masks really say, whatever the file's own `area` and `bbox` are."""

    name: str
    d: Dataset

    @cached_property
    def with_mask(self) -> NDArray[np.int64]:
        """Objects that have an RLE, ascending."""
        return np.flatnonzero(self.d.has_mask)

    @cached_property
    def measured(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Areas and boxes of all objects, from the masks where there are any."""
        d, chosen = self.d, self.with_mask
        areas, boxes = d.areas.copy(), d.boxes.copy()
        if len(chosen):
            found = pixels.areas_and_boxes([d.rle(k) for k in chosen.tolist()], [d.size_of(k) for k in chosen.tolist()])
            areas[chosen], boxes[chosen] = found
        return areas, boxes

    @property
    def areas(self) -> NDArray[np.float64]:
        """`(M,)` object pixels."""
        return self.measured[0]

    @property
    def boxes(self) -> NDArray[np.float64]:
        """`(M, 4)` `x1 y1 x2 y2` in pixels, end exclusive."""
        return self.measured[1]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """`(images + 1,)`: the objects of photo `i` are `first[i]:first[i + 1]`."""
        return self.d.first

    @cached_property
    def names(self) -> dict[int, str]:
        """Names of the categories, by id."""
        return {c.id: c.name for c in self.d.categories}

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """Objects that are no crowds, ascending."""
        return np.flatnonzero(~self.d.crowd)

    @cached_property
    def photo_sizes(self) -> NDArray[np.int64]:
        """`(M, 2)`: height and width of each object's photo."""
        sizes = np.array([image.size for image in self.d.images], dtype=np.int64).reshape(-1, 2)
        return sizes[self.d.image_index]

    def photo(self, image: Image) -> str:
        """Return how messages call a photo: its path if the folder is known, else split/name."""
        return str(self.d.folder / image.file_name) if self.d.folder else f"{self.name}/{image.file_name}"

    def lines(self, chosen: Sequence[int] | NDArray[Any], text: Callable[[int], str]) -> list[str]:
        """One line per photo: its name, its number of offenders, and the first one's description."""
        by_photo: dict[int, list[int]] = defaultdict(list)
        for k in chosen:
            by_photo[int(self.d.image_index[int(k)])].append(int(k))
        lines = []
        for i, ks in by_photo.items():
            more = f" ... and {len(ks) - 1} more in this photo" if len(ks) > 1 else ""
            lines.append(f"{self.photo(self.d.images[i])}: {text(ks[0])}{more}")
        return lines

    def photos(self) -> Iterator[NDArray[np.int64]]:
        """Yield the objects (crowds left out) of each photo that has any."""
        first = self.d.first
        for i in np.unique(self.d.image_index[self.objects]).tolist():
            ks = np.arange(first[i], first[i + 1])
            yield ks[~self.d.crowd[ks]]


def split_facts(view: SplitView) -> SplitFacts:
    """Return the facts of one split."""
    d, objects = view.d, view.objects
    ordered = sorted((image.size for image in d.images), key=lambda size: (size[0] * size[1], size))
    sizes = Counter(ordered).most_common()
    per_photo = np.bincount(d.image_index[objects], minlength=len(d.images))
    real = objects[view.areas[objects] > 0]  # an empty mask is a problem of its own and has no size
    areas, boxes, photo = view.areas[real], view.boxes[real], view.photo_sizes[real]
    shares = areas / np.prod(photo, axis=1)
    sides = boxes[:, 2:] - boxes[:, :2]
    solid = (sides > 0).all(axis=1)
    spans = np.sort(sides[solid], axis=1)
    full = np.column_stack([np.zeros_like(photo), photo[:, ::-1]])
    at_border = solid & ((boxes[:, :2] <= full[:, :2]).any(axis=1) | (boxes[:, 2:] >= full[:, 2:]).any(axis=1))
    return SplitFacts(
        photos=len(d.images),
        empty_photos=int((per_photo == 0).sum()),
        objects=len(objects),
        crowd=int(d.crowd.sum()),
        sizes=tuple(SizeCount(height=h, width=w, photos=n) for (h, w), n in sizes),
        smallest=ordered[0] if ordered else None,
        median=ordered[len(ordered) // 2] if ordered else None,
        largest=ordered[-1] if ordered else None,
        objects_per_photo=float(per_photo.mean()) if len(per_photo) else None,
        most_objects=int(per_photo.max(initial=0)),
        side_share=Percentiles.of(np.sqrt(areas) / photo.max(axis=1, initial=1)),
        box_side_share=Percentiles.of(np.sqrt(np.prod(sides, axis=1)) / photo.max(axis=1, initial=1)),
        area_share=Percentiles.of(shares),
        aspect=Percentiles.of(spans[:, 1] / spans[:, 0]),
        specks=int(specks_of(areas, shares).sum()),
        at_border=int(at_border.sum()),
        **_details(view),
    )


def specks_of(areas: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which objects are specks, from their pixels and their share of the photo; an empty mask is none."""
    return (areas > 0) & ((areas < SPECK_PX) | (shares < SPECK_SHARE))


def _details(view: SplitView) -> dict[str, Any]:
    """Return what only a look at the pixels tells: holes, parts, neighbours, directions."""
    solid = np.zeros(len(view.d), dtype=np.bool_)
    solid[view.with_mask] = True
    solid &= view.areas > 0
    every = max(1, math.ceil(int(solid[view.objects].sum()) / LOOKED_AT))
    groups = [ks[solid[ks]] for number, ks in enumerate(view.photos()) if number % every == 0]
    total = sum(len(ks) for ks in groups)
    picked = set(np.linspace(0, total - 1, min(total, MEASURED)).round().astype(int).tolist()) if total else set()
    seen = holes = with_holes = in_parts = touching = overlapping = 0
    axes: list[tuple[float, float, float]] = []
    for ks in groups:
        crops = {int(k): _Crop.of(view, int(k)) for k in ks}
        for crop in crops.values():
            found = pixels.holes(crop.mask)
            holes += found
            with_holes += found > 0
            in_parts += pixels.label_parts(crop.mask)[1] > 1
            if seen in picked:
                axes.append(_axis(crop.mask))
            seen += 1
        for a, b in near(view.boxes[ks]):
            touch, overlap = _meet(crops[int(ks[a])], crops[int(ks[b])])
            touching += touch
            overlapping += overlap
    moments = np.array(axes).reshape(-1, 3)
    return {
        "looked_at": total,
        "holes": holes,
        "with_holes": with_holes,
        "in_parts": in_parts,
        "touching": touching,
        "overlapping": overlapping,
        "elongation": Percentiles.of(moments[:, 2]),
        "axis_spread": _axis_spread(moments[:, :2]),
    }


@dataclass(frozen=True)
class _Crop:
    """The mask of one object within its box, with a rim of one pixel that may lie outside the photo."""

    x: int
    y: int
    mask: NDArray[np.bool_]

    @staticmethod
    def of(view: SplitView, k: int) -> _Crop:
        x1, y1, x2, y2 = (int(v) for v in view.boxes[k])
        window = pixels.crop(view.d.rle(k), view.d.size_of(k), (x1, y1, x2, y2))
        return _Crop(x1 - 1, y1 - 1, np.pad(window, 1))


def near(boxes: NDArray[np.float64]) -> Iterator[Pair]:
    """Yield the pairs of positions in `boxes` `(N, 4)` whose boxes overlap or abut, corners included."""
    order = np.argsort(boxes[:, 0], kind="stable")
    x1, y1, x2, y2 = boxes[order].T
    for i in range(len(order)):
        end = int(np.searchsorted(x1, x2[i], side="right"))
        close = (y1[i + 1 : end] <= y2[i]) & (y2[i + 1 : end] >= y1[i])
        for j in np.flatnonzero(close).tolist():
            yield int(order[i]), int(order[i + 1 + j])


def _meet(a: _Crop, b: _Crop) -> tuple[bool, bool]:
    """Tell whether two masks touch (8 neighbours) or overlap, and whether they overlap."""
    from scipy import ndimage

    x1, y1 = max(a.x, b.x), max(a.y, b.y)
    x2 = min(a.x + a.mask.shape[1], b.x + b.mask.shape[1])
    y2 = min(a.y + a.mask.shape[0], b.y + b.mask.shape[0])
    if x2 <= x1 or y2 <= y1:
        return False, False
    in_a = a.mask[y1 - a.y : y2 - a.y, x1 - a.x : x2 - a.x]
    in_b = b.mask[y1 - b.y : y2 - b.y, x1 - b.x : x2 - b.x]
    if not in_a.any() or not in_b.any():
        return False, False
    if (in_a & in_b).any():
        return True, True
    grown = ndimage.binary_dilation(in_a, structure=np.ones((3, 3), dtype=bool))
    return bool((grown & in_b).any()), False


def _axis(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return cosine and sine of the doubled principal direction, scaled by how elongated a mask is, and its elongation.

    From the second moments, each pixel taken as a unit square, so that a single pixel is round and not undefined. The
    scale is (l1 - l2) / (l1 + l2) with l1 >= l2 the variances along the two axes: 0 for a disc, near 1 for a stick.
    """
    y, x = np.nonzero(mask)
    xx, yy = float(np.var(x)) + 1 / 12, float(np.var(y)) + 1 / 12
    xy = float(np.mean((x - x.mean()) * (y - y.mean())))
    total, difference = xx + yy, math.hypot(xx - yy, 2 * xy)
    return (xx - yy) / total, 2 * xy / total, math.sqrt((total + difference) / max(total - difference, 1e-12))


def _axis_spread(axes: NDArray[np.float64]) -> float | None:
    if not len(axes):
        return None
    weights = np.hypot(axes[:, 0], axes[:, 1])
    stretched = weights > 0.1  # below, the longer axis is at most 1.1 times the shorter: it points nowhere
    if not stretched.any():
        return 1.0
    resultant = float(np.hypot(*axes[stretched].sum(axis=0))) / float(weights[stretched].sum())
    return min(1.0, max(0.0, 1.0 - resultant))


def _table(facts: Facts) -> str:
    parts = list(facts.splits.values())
    rows: list[tuple[str, list[str]]] = [("", list(facts.splits))]

    def row(name: str, text: Callable[[SplitFacts], str]) -> None:
        rows.append((name, [text(part) for part in parts]))

    def size(value: tuple[int, int] | None) -> str:
        return f"{value[1]} x {value[0]}" if value else "-"

    def number(value: float | None, form: str) -> str:
        return format(value, form) if value is not None else "-"

    def spread(value: Percentiles | None, form: str) -> str:
        return f"{value.p50:{form}} ({value.p5:{form}}..{value.p95:{form}})" if value else "-"

    row("photos", lambda s: f"{s.photos:,}")
    row("  without objects", lambda s: f"{s.empty_photos:,}")
    row("  smallest (width x height)", lambda s: size(s.smallest))
    row("  median", lambda s: size(s.median))
    row("  largest", lambda s: size(s.largest))
    row("objects", lambda s: f"{s.objects:,}")
    row("  per photo, mean", lambda s: number(s.objects_per_photo, ".1f"))
    row("  per photo, most", lambda s: f"{s.most_objects:,}")
    for c in facts.categories:
        rows.append((f"  {c.name}", [f"{c.objects.get(split, 0):,}" for split in facts.splits]))
    row("size, side as share of photo", lambda s: spread(s.side_share, ".1%"))
    row("size, area as share of photo", lambda s: spread(s.area_share, ".2%"))
    row("box, long by short side", lambda s: spread(s.aspect, ".1f"))
    row("elongation", lambda s: spread(s.elongation, ".1f"))
    row("spread of directions, 0..1", lambda s: number(s.axis_spread, ".2f"))
    row("objects with holes", lambda s: f"{s.with_holes:,}")
    row("objects in several parts", lambda s: f"{s.in_parts:,}")
    row("pairs that touch", lambda s: f"{s.touching:,}")
    row("pairs that overlap", lambda s: f"{s.overlapping:,}")
    row("objects at the border", lambda s: f"{s.at_border:,}")
    row("specks", lambda s: f"{s.specks:,}")
    row("crowd objects", lambda s: f"{s.crowd:,}")
    left = max(len(name) for name, _ in rows)
    columns = [max(len(cells[i]) for _, cells in rows) for i in range(len(parts))]
    lines = [
        "  ".join([name.ljust(left), *(cell.rjust(width) for cell, width in zip(cells, columns, strict=True))]).rstrip()
        for name, cells in rows
    ]
    lines.append("(sizes: median, and the range from the 5th to the 95th percentile)")
    part_of = [
        f"{s.looked_at:,} of {s.objects:,} in {name}" for name, s in facts.splits.items() if s.looked_at < s.objects
    ]
    if part_of:
        lines.append(f"(holes, parts and pairs were counted on a part of the objects: {', '.join(part_of)})")
    return "\n".join(lines)
