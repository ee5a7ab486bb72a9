"""What the values of mask images mean: one object (binary), or one object per value (ids).

Nobody can tell from one picture: a picture of 0 and 1 is a binary mask, and also the id image of a photo with one
object. So every mask image is looked at once, and the decision is taken over all of them together. Where the values do
not say it, the answer is a question to the user, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels, png
from maskwright.errors import Problem, UserError
from maskwright.files import MOST_AT_ONCE, UnreadableImage, content_of, read_raw
from maskwright.formats.runs import objects_of_ids
from maskwright.pixels import Size

Coding = Literal["binary", "ids"]

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})
MOST_IDS = 10_000
"""An image with more values than this is no id image, whatever the user says."""

WEAK = 0.05
"""From this share of weak pixels on, it matters for a mask's area where the cut is."""

LARGE_PART = 0.2
"""A part counts as large from this share of its mask on: less is a crumb."""

MOST_NAMED = 100
"""So many mask images of a kind are kept by name for messages; the others are counted."""

MOST_COLOURS = 255
"""A colour picture with more colours than this is a photo or a blended drawing, not objects in colours of their own."""

_GREY_TOLERANCE = 24  # channels of a grey picture differ by no more after JPEG


class Values(NamedTuple):
    """What one mask image holds.

    Attributes:
        size: Upright `(height, width)`.
        kind: Where the values come from: `grey`, `palette`, `one colour` (on black), `transparency` or `colour`.
        lossy: Stored with loss, so that single values mean nothing.
        shown: The smallest few values that are not 0.
        distinct: How many different values are not 0.
        top: The largest value.
        span: What the values could reach: 1, 255, 65535 or more.
        soft: Pixels clearly between 0 and `span`.
        full: Pixels near `span`.
        flat: Soft pixels whose neighbours have the very same value: areas, not edges.
        deep: Soft pixels far from any other: areas, not edges.
        changed: Pixels that thresholding changes.
        colour: The colour, where the kind is `one colour`.
        cut: The least value that is object, if the image is binary by itself.
        rle: The mask at that cut.
        weak: Share of the pixels that are not 0 that lie below the cut.
        share: Share of the image that it covers.
    """

    size: Size
    kind: str
    lossy: bool
    shown: tuple[int, ...]
    distinct: int
    top: int
    span: int
    soft: int
    full: int
    flat: int
    deep: int
    changed: int
    colour: tuple[int, ...] | None
    cut: int
    rle: bytes
    weak: float = 0.0
    share: float = 0.0

    @property
    def reads_as_binary(self) -> bool:
        """Tell whether the image by itself can be one mask, exact or with soft edges and noise."""
        if self.kind == "colour":
            return False
        if self.top <= 1:
            return True
        if 2 * self.top <= self.span:
            return False
        if self.distinct == 1:
            return True
        pixel_count = self.size[0] * self.size[1]
        thin = self.flat <= max(8, self.soft // 4) and self.deep <= max(8, self.soft // 10)
        return thin and self.soft <= pixel_count // 2 and self.soft <= 20 * self.full

    @property
    def is_noise(self) -> bool:
        """Tell whether the values are so near 0 that among masks up to 255 they can be compression noise."""
        return self.kind != "colour" and 8 * self.top <= self.span

    @property
    def reads_as_ids(self) -> bool:
        """Tell whether the values, by themselves, can number objects from 1 (some may be hidden)."""
        return self.kind != "colour" and not self.lossy and 2 * self.distinct >= self.top

    @property
    def numbers_from_one(self) -> bool:
        """Tell whether the values are exactly 1, 2, ... n."""
        return self.reads_as_ids and self.distinct == self.top

    def __str__(self) -> str:
        if self.kind == "colour":
            return f"{self.distinct:,} colours"
        if not self.distinct:
            return "value 0 only"
        if self.distinct <= 4:
            return f"value{'s' if self.distinct > 1 else ''} {', '.join(str(v) for v in self.shown)} beside 0"
        return f"{self.distinct:,} values from {self.shown[0]} to {self.top}"


@dataclass(frozen=True)
class Decision:
    """What the values of all mask images together mean, why, and from which value on a binary mask is object."""

    coding: Coding
    why: str
    least_top: int | None = None
    noise: bool = False

    def cut(self, values: Values) -> int:
        """Return the least value that is object in a binary mask image."""
        if self.least_top is not None:
            return self.least_top
        if self.noise and values.top <= 1 and values.lossy:
            return 128
        return values.cut

    def is_read(self, values: Values) -> bool:
        """Tell whether the first look already made this image's mask."""
        if self.coding == "ids":
            return values.top <= 1
        return self.cut(values) == values.cut


def look(path: Path, content: bytes | None = None) -> Values:
    """Read a mask image and say what it holds.

    Args:
        path: The file.
        content: All of it, if it was read already.

    Raises:
        UnreadableImage: If it cannot be read or holds what no mask holds (fractions, negative numbers).
    """
    if content is None:
        content = content_of(path)
    lossy = path.suffix.lower() in LOSSY_SUFFIXES
    crop = png.grey(content, MOST_AT_ONCE)
    if crop is None:
        plane, kind, colour = _plane(path, content)
    else:
        if (values := _bright(crop, lossy)) is not None:
            return values
        plane, kind, colour = crop.whole(), "grey", None
    size = (int(plane.shape[0]), int(plane.shape[1]))
    top = int(plane.max()) if plane.size else 0
    if top and kind != "colour":
        # Two values: by far the most usual mask, and quickly seen.
        mask = plane == top
        filled = int(np.count_nonzero(mask))
        if filled == np.count_nonzero(plane):
            return _exact(size, kind, lossy, top, filled, colour, mask)
    found, counts = _histogram(plane)
    if kind == "colour":
        shown = tuple(int(v) for v in found[:4])
        peak = _strongest(plane)
        return Values(
            size, kind, lossy, shown, len(found), top, 255, 0, 0, 0, 0, 0, None, 128, pixels.encode(peak > 127)
        )
    span = _span(top)
    cut = span // 2 + 1
    soft = int(counts[(found * 8 > span) & (found * 8 < span * 7)].sum())
    full = int(counts[found * 8 >= span * 7].sum())
    changed = int(counts[found != span].sum())
    flat = deep = 0
    if soft and 2 * top > span:
        flat, deep = _areas(plane, span)
    mask = plane != 0 if cut == 1 else plane >= cut
    return Values(
        size=size,
        kind=kind,
        lossy=lossy,
        shown=tuple(int(v) for v in found[:4]),
        distinct=len(found),
        top=top,
        span=span,
        soft=soft,
        full=full,
        flat=flat,
        deep=deep,
        changed=changed,
        colour=colour,
        cut=cut,
        weak=float(counts[found < cut].sum()) / max(int(counts.sum()), 1),
        **mask_facts(mask),
    )


def _bright(crop: png.Crop, lossy: bool) -> Values | None:
    """Say what a mask of 0 and one bright value holds, the most usual by far; `None` for others."""
    top = crop.only
    span = _span(top)
    cut = span // 2 + 1
    if top < cut or 8 * top < 7 * span:
        return None
    mask = crop.values != 0
    filled = int(np.count_nonzero(mask))
    return Values(
        size=crop.size,
        kind="grey",
        lossy=lossy,
        shown=(top,),
        distinct=1,
        top=top,
        span=span,
        soft=0,
        full=filled,
        flat=0,
        deep=0,
        changed=0 if top == span else filled,
        colour=None,
        cut=cut,
        **mask_facts(mask, (crop.top, crop.left), crop.size),
    )


def _span(top: int) -> int:
    return next((s for s in (1, 255, 65535) if top <= s), top)


def _exact(
    size: Size, kind: str, lossy: bool, top: int, filled: int, colour: tuple[int, ...] | None, mask: NDArray[np.bool_]
) -> Values:
    """Say what a mask of 0 and one other value holds; `mask` is where the other value is."""
    span = _span(top)
    cut = span // 2 + 1
    soft = span < 8 * top < 7 * span
    if soft or top < cut:  # rare: what the value means depends on where it lies
        plane = mask * np.int64(top)
        flat, deep = _areas(plane, span) if soft and 2 * top > span else (0, 0)
        facts = mask_facts(plane >= cut)
    else:
        flat = deep = 0
        facts = mask_facts(mask)
    return Values(
        size=size,
        kind=kind,
        lossy=lossy,
        shown=(top,),
        distinct=1,
        top=top,
        span=span,
        soft=filled if soft else 0,
        full=filled if 8 * top >= 7 * span else 0,
        flat=flat,
        deep=deep,
        changed=0 if top == span else filled,
        colour=colour,
        cut=cut,
        weak=1.0 if top < cut else 0.0,
        **facts,
    )


def mask_facts(mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: Size | None = None) -> dict[str, Any]:
    """Return the RLE of a mask and its share of the image, as fields of `Values`.

    Args:
        mask: `(H, W)`; all of the image, or a window of it outside which it is empty.
        corner: Line and column of the image where the window begins.
        size: `(height, width)` of the image; that of the mask if not given.
    """
    if size is None:
        size = (mask.shape[0], mask.shape[1])
    rle = pixels.encode_window(mask, corner[1], corner[0], size)
    return {"rle": rle, "share": np.count_nonzero(mask) / max(size[0] * size[1], 1)}


@dataclass
class _Kind:
    """Mask images that say the same about what their values mean."""

    values: Values
    count: int = 0
    names: list[str] = field(default_factory=list)


class Census:
    """What was found in many mask images, counted by what it says about the meaning of their values."""

    def __init__(self, seen: Iterable[tuple[str, Values]] = ()) -> None:
        self.kinds: dict[Any, _Kind] = {}
        for name, values in seen:
            self.add(name, values)

    def add(self, name: str, values: Values) -> None:
        """Count a mask image; `name` is how messages call it."""
        key = (
            values.kind,
            values.lossy,
            values.shown,
            values.distinct,
            values.top,
            values.span,
            values.colour,
            values.changed > 0,
            values.reads_as_binary,
        )
        kind = self.kinds.get(key)
        if kind is None:
            kind = self.kinds[key] = _Kind(values._replace(rle=b""))
        kind.count += 1
        if len(kind.names) < MOST_NAMED:
            kind.names.append(name)

    def join(self, other: Census) -> None:
        """Count the mask images that another census counted, after those of this one."""
        for key, theirs in other.kinds.items():
            kind = self.kinds.setdefault(key, _Kind(theirs.values))
            kind.count += theirs.count
            kind.names += theirs.names[: MOST_NAMED - len(kind.names)]

    def is_read(self, decision: Decision) -> bool:
        """Tell whether the first look already made the masks of all images that are not black."""
        return all(decision.is_read(kind.values) for kind in self.filled())

    def filled(self) -> list[_Kind]:
        """Return the kinds that are not black."""
        return [kind for kind in self.kinds.values() if kind.values.top > 0]


def _lines(kinds: Iterable[_Kind]) -> list[str]:
    lines = []
    for kind in kinds:
        lines += [f"{name}: {kind.values}" for name in kind.names]
        if kind.count > len(kind.names):
            lines.append(f"{kind.count - len(kind.names):,} more: {kind.values}")
    return lines


def decide(census: Census, coding: Coding | None) -> Decision:
    """Decide what the values of all mask images together mean.

    Args:
        census: Every mask image.
        coding: What the user said, if anything.

    Raises:
        UserError: If it cannot be known, naming the images that leave it open; or if what the user said cannot be.
    """
    filled = census.filled()
    if coding == "binary":
        return _binary_as_said([kind.values for kind in filled])
    if coding == "ids":
        return _ids_as_said(filled)
    if not filled:
        return Decision("binary", "0 only (every mask is black)")
    total = sum(kind.count for kind in filled)
    colours = {kind.values.colour for kind in filled if kind.values.colour is not None}
    if all(kind.values.top <= 1 for kind in filled):
        if len(colours) > 1:
            raise _unknown(filled, "each in its own colour")
        return Decision("binary", "0 and one other value")
    strong = [kind.values for kind in filled if kind.values.top > 1 and kind.values.reads_as_binary]
    if strong:
        soft = any(values.changed for values in strong)
        odd = [
            kind
            for kind in filled
            if not (kind.values.reads_as_binary or (kind.values.is_noise and (soft or kind.values.lossy)))
        ]
        if not odd and len(colours) <= 1:
            ends = sorted({values.top for values in strong})
            why = f"0 and {ends[0]}" if len(ends) == 1 and not soft else f"0 to {ends[-1]}, nearly all at the two ends"
            if any(kind.values.top <= 1 and not kind.values.lossy for kind in filled):
                why += "; in some 0 and 1"
            return Decision("binary", why, noise=soft)
        raise _unknown(odd or filled, "unlike the other masks" if odd else "")
    numbered = sum(kind.count for kind in filled if kind.values.numbers_from_one)
    if all(kind.values.reads_as_ids for kind in filled) and 5 * numbered >= 4 * total:
        most = max(kind.values.distinct for kind in filled)
        return Decision("ids", f"1, 2, ... up to {most:,}, without gaps in {numbered:,} of {total:,} masks")
    raise _unknown([kind for kind in filled if not kind.values.numbers_from_one] or filled)


def masks_of(path: Path, values: Values, decision: Decision, size: Size) -> list[bytes]:
    """Return the objects of a mask image as RLEs at the photo's size; those without a pixel are left out.

    Args:
        path: The mask image.
        values: What `look` found in it.
        decision: What the values mean.
        size: Upright `(height, width)` of the photo; a mask of another size is scaled, nearest neighbour.
    """
    if values.top == 0:
        return []
    if decision.is_read(values) and size == values.size:
        return [values.rle] if pixels.area(values.rle, size) else []
    plane, kind, _ = _plane(path)
    if decision.coding == "binary":
        if kind == "colour":
            plane = _strongest(plane)
        plane = (plane >= decision.cut(values)).astype(np.uint8)
    if size != values.size:
        rows = (np.arange(size[0]) * 2 + 1) * plane.shape[0] // (2 * size[0])
        columns = (np.arange(size[1]) * 2 + 1) * plane.shape[1] // (2 * size[1])
        plane = plane[rows[:, None], columns[None, :]]
    return [rle for _, rle in objects_of_ids(plane)]


def _binary_as_said(filled: Sequence[Values]) -> Decision:
    reach = max((values.top for values in filled if values.kind != "colour"), default=255)
    if reach > 1 and all(2 * values.top <= values.span for values in filled):
        return Decision("binary", f"as you said; half of the largest value found, {reach}", least_top=reach // 2 + 1)
    return Decision("binary", "as you said", noise=reach > 1)


def _ids_as_said(filled: Sequence[_Kind]) -> Decision:
    lossy = _lines(kind for kind in filled if kind.values.lossy and kind.values.distinct > 1)
    exact = [kind for kind in filled if not kind.values.lossy]
    colourful = _lines(k for k in exact if k.values.kind == "colour" and k.values.distinct > MOST_COLOURS)
    many = _lines(k for k in exact if k.values.kind != "colour" and k.values.distinct > MOST_IDS)
    problems = []
    if lossy:
        problems.append(
            Problem(
                "id images cannot be JPEG: it changes the values",
                tuple(lossy),
                "export them as PNG, or if each marks one object: --coding binary",
            )
        )
    if colourful:
        problems.append(
            Problem(
                f"colour pictures with more than {MOST_COLOURS} colours are no id images: each colour would be an"
                " object",
                tuple(colourful),
                "check that these files are mask images; export ids as grey values, without smooth edges",
            )
        )
    if many:
        problems.append(
            Problem(
                f"id images have more than {MOST_IDS:,} values", tuple(many), "check that these files are mask images"
            )
        )
    if problems:
        raise UserError(problems)
    return Decision("ids", "as you said")


def _unknown(odd: Sequence[_Kind], how: str = "") -> UserError:
    count = sum(kind.count for kind in odd)
    files = "1 mask image has" if count == 1 else f"{count:,} mask images have"
    return UserError(
        f"{files} values whose meaning cannot be known{f', {how}' if how else ''}",
        _lines(odd),
        "say what they mean: --coding binary (bright is the object, all else is not) or --coding ids (each value is an"
        " object); remove files that are no masks",
    )


def _histogram(plane: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the values that are not 0, ascending, and how many pixels have each."""
    if not plane.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if plane.dtype.itemsize <= 2:
        counts = np.bincount(plane.ravel())
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(plane, return_counts=True)
    inside = found != 0
    return found[inside].astype(np.int64), counts[inside].astype(np.int64)


def _areas(plane: NDArray[Any], span: int) -> tuple[int, int]:
    """Count soft pixels in areas: equal to all neighbours; or soft all around, in a window that grows with the side."""
    soft = (plane > span // 8) & (plane < span - span // 8)
    core = plane[1:-1, 1:-1]
    flat = soft[1:-1, 1:-1].copy()
    for dy, dx in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        flat &= plane[dy : dy + core.shape[0], dx : dx + core.shape[1]] == core
    window = max(7, max(plane.shape) // 100)
    deep = soft
    for _ in range(2):  # rows, then columns
        done = 1
        while done < window:
            step = min(done, window - done)
            if len(deep) <= step:
                return int(flat.sum()), 0
            deep = deep[:-step] & deep[step:]
            done += step
        deep = deep.T
    return int(flat.sum()), int(deep.sum())


def _strongest(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the strongest channel of packed colours."""
    strongest: NDArray[Any] = np.maximum(np.maximum(colours >> 16, (colours >> 8) & 255), colours & 255)
    return strongest.astype(np.uint8)


def _plane(path: Path, content: bytes | None = None) -> tuple[NDArray[Any], str, tuple[int, ...] | None]:
    """Read a mask image as one plane of whole numbers, and say where they come from.

    Returns:
        `(H, W)` uint8, uint16 or int64; the kind (see `Values`); the colour of a `one colour` mask. The plane of
        `colour` is packed, red * 65536 + green * 256 + blue.
    """
    array, image = read_raw(path, content)
    mode = image.mode
    if mode == "1":
        return array.view(np.uint8), "grey", None
    if mode == "L":
        return array, "grey", None
    if mode.startswith("I") or mode == "F":
        return _numbers(array), "grey", None
    if mode == "P":
        return _palette(array, image)
    if mode in {"LA", "La", "PA", "RGBA", "RGBa"}:
        return _transparent(np.asarray(image.convert("RGBA")))
    return _colours(array if mode == "RGB" else np.asarray(image.convert("RGB")))


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnreadableImage("holds values that are not numbers")
        if (array == np.rint(array)).all():
            array = array.astype(np.int64)
        elif array.min() >= 0 and array.max() <= 1:
            array = np.rint(array * 255).astype(np.uint8)
        else:
            raise UnreadableImage("holds fractions outside 0..1, which no mask has")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise UnreadableImage("holds negative values, which no mask has")
    return array


def _colours(array: NDArray[np.uint8]) -> tuple[NDArray[Any], str, tuple[int, ...] | None]:
    red, green, blue = array[:, :, 0], array[:, :, 1], array[:, :, 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(red), "grey", None
    packed = (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue
    ink = int(packed.max())
    if np.count_nonzero(packed) == np.count_nonzero(packed == ink):
        return (packed != 0).view(np.uint8), "one colour", (ink >> 16, (ink >> 8) & 255, ink & 255)
    if int((array.max(axis=2) - array.min(axis=2)).max()) <= _GREY_TOLERANCE:
        return np.asarray(PillowImage.fromarray(array).convert("L")), "grey", None
    return packed, "colour", None


def _transparent(array: NDArray[np.uint8]) -> tuple[NDArray[Any], str, tuple[int, ...] | None]:
    alpha = array[:, :, 3]
    if alpha.min() == alpha.max():
        return _colours(array[:, :, :3])
    seen = (array[:, :, :3].astype(np.uint16) * alpha[:, :, None] // 255).astype(np.uint8)
    plane, kind, colour = _colours(seen)
    cut_out = (kind == "colour" and len(np.unique(plane)) > 256) or (kind == "grey" and not _reads(plane))
    if not plane.any() or cut_out:  # the object itself on a transparent ground: its outline is the mask
        return np.ascontiguousarray(alpha), "transparency", None
    return plane, kind, colour


def _palette(array: NDArray[np.uint8], image: PillowImage.Image) -> tuple[NDArray[Any], str, tuple[int, ...] | None]:
    used = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    table = np.zeros((256, 3), dtype=np.uint8)
    given = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    table[: len(given)] = given
    colours = table[used]
    is_grey = bool((colours == colours[:, :1]).all())
    inked: NDArray[np.bool_] = np.asarray(colours.any(axis=1))
    if len(used) and used[-1] < len(given):
        grey = table[:, 0][array]
        if is_grey and inked.any() and (set(colours[:, 0].tolist()) <= {0, 255} or (len(used) > 2 and _reads(grey))):
            return grey, "grey", None
        if len(used) == 2 and int(inked.sum()) == 1 and not is_grey:
            colour = tuple(int(v) for v in colours[inked][0])
            return inked[np.searchsorted(used, array)].view(np.uint8), "one colour", colour
    return array, "palette", None


def _reads(grey: NDArray[np.uint8]) -> bool:
    """Tell whether a grey plane is a mask by itself: bright and dark, with little between."""
    top = int(grey.max()) if grey.size else 0
    if top <= 127:
        return top <= 1
    soft = int(np.count_nonzero((grey > 31) & (grey < 224)))
    flat, deep = _areas(grey, 255) if soft else (0, 0)
    return flat <= max(8, soft // 4) and deep <= max(8, soft // 10) and 2 * soft <= grey.size
