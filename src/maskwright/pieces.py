"""Read a large COCO file piece by piece, straight into columns, without its whole tree in memory.

The two long arrays, `images` and `annotations`, are cut between elements. A cut is only a guess from the bytes around
it, but no guess can go wrong unseen: each piece must be a JSON array once brackets are put around it, and the rest of
the file must be JSON once a marker stands for each array, with the markers where the arrays belong. JSON's grammar then
leaves no other reading of the whole.

Polygons are most of such a file. They are not turned into Python numbers, only checked as bytes, and kept as they are.

Only a file that is plain throughout is taken. For any other, `None` is returned, and the careful reader in `dataset.py`
reads it whole and names what is wrong.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.columns import Columns, Fields, Masks, columns_of
from maskwright.errors import UserError
from maskwright.files import MOST_PIXELS
from maskwright.objects import Images

BLOCK = 1 << 20
"""Bytes that are read and parsed at a time."""

_MOST_BYTES_OF_A_ROW = 1 << 26
_MOST_BYTES_OF_A_KEY = 1 << 10
_KEYS = (b'"images"', b'"annotations"')
_ARRAY = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[")
_EMPTY = re.compile(rb"[ \t\r\n]*\]")
_END = re.compile(rb"\}[ \t\r\n]*\]")
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_MARKERS = (b'"maskwright:images"', b'"maskwright:annotations"')


class _NotPlain(Exception):
    """The careful reader must look at this file."""


@dataclass(frozen=True)
class Pieces:
    """What a plain COCO file holds.

    Attributes:
        rest: The document without its images and annotations.
        images: Sizes and names are sound; ids may repeat.
        columns: As of `columns_of`, in file order, with `rles` empty and `measured` only if nothing is a polygon.
        masks: Of the same objects.
    """

    rest: dict[str, Any]
    images: Images
    columns: Columns
    masks: Masks


def read_in_pieces(path: Path) -> Pieces | None:
    """Read a COCO file that is plain throughout; `None` if the careful reader must look at it."""
    import orjson

    try:
        with path.open("rb") as handle:
            first_image, first_row = _find_arrays(handle)
            total = os.fstat(handle.fileno()).st_size
            images, after_images = _read_images(handle, first_image)
            columns, masks, after_rows = _read_rows(handle, first_row, images, total)
            rest, last = b"", 0
            spans = [(first_image, after_images, _MARKERS[0]), (first_row, after_rows, _MARKERS[1])]
            for start, end, marker in sorted(spans):
                handle.seek(last)
                rest += handle.read(start - 1 - last) + marker  # the array begins with its bracket
                last = end
            handle.seek(last)
            rest += handle.read()
        if any(rest.count(marker) != 1 for marker in _MARKERS):
            return None
        document = orjson.loads(rest)
    except (_NotPlain, OSError, ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return None
    for key, marker in zip(_KEYS, _MARKERS, strict=True):
        if not isinstance(document, dict) or document.pop(key[1:-1].decode(), None) != marker[1:-1].decode():
            return None
    return Pieces(document, images, columns, masks)


def _find_arrays(handle: IO[bytes]) -> tuple[int, ...]:
    """Return where the first element of each array seems to begin; the markers will tell whether it does."""
    found: dict[bytes, int] = {}
    base, tail = 0, b""
    while len(found) < len(_KEYS):
        block = handle.read(BLOCK)
        buffer = tail + block
        for key in _KEYS:
            at = buffer.find(key)
            while at >= 0 and key not in found:
                # Where the key is near the end, it is looked at again with the next block.
                if match := _ARRAY.match(buffer, at + len(key)):
                    found[key] = base + match.end()
                at = buffer.find(key, at + 1)
        if not block and len(found) < len(_KEYS):
            raise _NotPlain
        tail = buffer[-_MOST_BYTES_OF_A_KEY:]
        base += len(buffer) - len(tail)
    return tuple(found[key] for key in _KEYS)


def _array(handle: IO[bytes], start: int, take: Callable[[bytes], None]) -> int:
    """Give an array of objects to `take`, in pieces of whole elements; return the place behind the array.

    `take` raises ValueError, and does nothing else, if what it is given is not JSON once it stands in brackets.
    """
    handle.seek(start)
    base, buffer = start, b""
    while True:
        block = handle.read(BLOCK)
        buffer += block
        if base == start and (empty := _EMPTY.match(buffer)):
            take(b"")
            return start + empty.end()
        if len(buffer) > _MOST_BYTES_OF_A_ROW:
            raise _NotPlain
        cuts = [*_BETWEEN.finditer(buffer, max(0, len(buffer) - (1 << 14)))] or [*_BETWEEN.finditer(buffer)]
        if cuts:
            with contextlib.suppress(ValueError):
                take(buffer[: cuts[-1].start() + 1])
                base, buffer = base + cuts[-1].end(), buffer[cuts[-1].end() :]
                continue
        end = _END.search(buffer)  # either the array ends in this piece, or the cut was no cut
        if end:
            take(buffer[: end.start() + 1])
            return base + end.end()
        if cuts or not block:
            raise _NotPlain


def _read_images(handle: IO[bytes], start: int) -> tuple[Images, int]:
    import orjson

    parts = []

    def take(piece: bytes) -> None:
        rows = orjson.loads(b"[%b]" % piece)
        ids, widths, heights = ([row[key] for row in rows] for key in ("id", "width", "height"))
        names = [row["file_name"] for row in rows]
        if {*map(type, ids), *map(type, widths), *map(type, heights)} - {int} or set(map(type, names)) - {str}:
            raise _NotPlain
        if any(not name or name[-1] in "/." for name in names):
            raise _NotPlain
        if any(w <= 0 or h <= 0 or w * h > MOST_PIXELS for w, h in zip(widths, heights, strict=True)):
            raise _NotPlain
        parts.append(Images.of(ids, names, widths, heights))

    after = _array(handle, start, take)
    return Images.join(parts), after


class _Places:
    """Where photos stand, by their id."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def of(self, numbers: Sequence[int]) -> NDArray[np.int32]:
        """Return the position of each photo, of several of one id any.

        Raises:
            _NotPlain: If there is no such photo.
        """
        wanted = np.array(numbers, dtype=np.int64)
        if len(wanted) and not len(self._sorted):
            raise _NotPlain
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        if (self._sorted[at] != wanted).any():
            raise _NotPlain
        return self._order[at].astype(np.int32)


def _read_rows(handle: IO[bytes], start: int, images: Images, total: int) -> tuple[Columns, Masks, int]:
    places = _Places(images.ids)
    sizes = images.sizes()
    # A polygon must not lie farther out than ten times the photo's side and 1,000 (`check_polygons`); three digits
    # never do, four do not where photos are large enough.
    longest = np.maximum(images.widths, images.heights).min(initial=1 << 30)
    digits = 4 if longest >= 900 else 3
    parts, spans = list[Columns](), list[NDArray[np.int64]]()
    data = _buffer(total)
    used = count = 0

    def take(piece: bytes) -> None:
        nonlocal used, count
        found, outlines, texts = _columns(piece, digits, places, sizes, count + 1)
        assert found.outlined is not None, "columns_of says of every row whether it is an outline"
        joined = b"".join([outlines, *filter(None, found.rles)])
        if used + len(joined) > total:
            raise _NotPlain
        data[used : used + len(joined)] = np.frombuffer(joined, dtype=np.uint8)
        span = _spans(found.rles, used + len(outlines))
        span[:, found.outlined] = _spans(texts, used, gap=1)
        spans.append(span)
        parts.append(replace(found, rles=[]))
        used += len(joined)
        count += len(found.rles)

    after = _array(handle, start, take)
    columns = Columns.join(parts)
    assert columns.outlined is not None, "columns_of says of every row whether it is an outline"
    starts, ends = np.concatenate(spans, axis=1)
    return columns, Masks(data[:used], starts, ends, columns.outlined), after


def _buffer(size: int) -> NDArray[np.uint8]:
    """Return `(size,)` bytes, of which those that are never written take no memory.

    Large pages, where the system has them, spare it hundreds of thousands of single ones.
    """
    if not (size and hasattr(mmap, "MADV_HUGEPAGE")):
        return np.empty(size, dtype=np.uint8)
    place = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        place.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(place, dtype=np.uint8)


def _spans(items: Sequence[bytes], start: int, gap: int = 0) -> NDArray[np.int64]:
    """Return where each item begins and ends, `(2, N)`: they lie end to end from `start` on, each behind a gap."""
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    ends = start + np.cumsum(lengths + gap)
    return np.stack([ends - lengths, ends])


@cache
def _decoder() -> Any:
    """Return what reads rows of `annotations`: an order of magnitude less work than a dict for each."""
    import msgspec

    fields: list[Any] = [
        ("image_id", int),
        ("category_id", int),
        ("id", int | msgspec.UnsetType, msgspec.UNSET),
        ("segmentation", msgspec.Raw, msgspec.Raw(b"null")),  # stays as it is written
        ("iscrowd", int | bool, 0),
        ("area", float | None, None),
        ("bbox", tuple[float, float, float, float] | None, None),
        ("score", float | None, None),
    ]
    row = msgspec.defstruct("Row", fields, gc=False)  # other keys are passed over
    return msgspec.json.Decoder(list[row])  # type: ignore[valid-type]


_FIELDS = attrgetter("image_id", "id", "category_id", "iscrowd", "score", "area", "bbox", "segmentation")


def _columns(
    piece: bytes, digits: int, places: _Places, sizes: Sequence[pixels.Size], first: int
) -> tuple[Columns, bytes, list[bytes]]:
    """Read a piece of the annotations; return the polygons of the rows that are `outlined` beside them, as JSON.

    They are returned end to end, each behind a line break, and one by one.

    Raises:
        ValueError: If it is no JSON.
    """
    import msgspec
    import orjson

    if not piece.isascii():
        piece.decode()  # what is passed over must be text all the same
    try:
        rows = _decoder().decode(b"[%b]" % piece)
    except (msgspec.ValidationError, RecursionError):
        raise _NotPlain from None  # JSON, but for example with numbers in quotation marks
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    columns = [*zip(*map(_FIELDS, rows), strict=True)] or [()] * 8
    numbers, ids, categories, crowd, scores, areas, boxes, raws = columns
    if msgspec.UNSET in ids:
        ids = tuple(n if number is msgspec.UNSET else number for n, number in enumerate(ids, start=first))
    positions = places.of(numbers)
    written = [*map(bytes, raws)]
    outlined = np.fromiter(map(methodcaller("startswith", b"[["), written), dtype=np.bool_, count=len(rows))
    others = np.flatnonzero(~outlined).tolist()
    segmentations: list[Any] = [None] * len(rows)
    for k in others:
        segmentations[k] = orjson.loads(written[k])
    texts = [written[k] for k in np.flatnonzero(outlined).tolist()] if others else written
    joined = _joined(texts)
    spread = [k for k in others if isinstance(segmentations[k], list) and segmentations[k]]  # [ [1, 2, ...
    if spread or (texts and not _are_plain(joined, len(texts), digits)):  # checked as numbers
        for k in [*spread, *np.flatnonzero(outlined).tolist()]:
            polygons = segmentations[k] or orjson.loads(written[k])
            try:
                check_polygons(polygons, sizes[positions[k]])
            except ValueError:
                raise _NotPlain from None
            written[k], segmentations[k], outlined[k] = orjson.dumps(polygons), None, True
        texts = [written[k] for k in np.flatnonzero(outlined).tolist()]
        joined = _joined(texts)
    fields = Fields(positions, ids, categories, crowd, scores, areas, boxes, segmentations, outlined)
    found = columns_of(fields, sizes, draw_polygons)
    if found is None:
        raise _NotPlain
    return found, joined, texts


def _joined(texts: Sequence[bytes]) -> bytes:
    return b"\n" + b"\n".join(texts) if texts else b""


def are_plain_polygons(texts: Sequence[bytes], digits: int) -> bool:
    """Tell whether each text is a list of polygons that are plain beyond doubt, without parsing a number.

    Plain means: lists of at least three points, x and y; numbers without exponents, with at most so many digits before
    the point. `False` means that it must be parsed to be known.

    Args:
        texts: Each known to be JSON.
        digits: At most so many before the point.

    Example:
        >>> are_plain_polygons([b"[[1, 2.5, 3, 4, 5, 6]]"], 3), are_plain_polygons([b"[[1, 2, 3, 4]]"], 3)
        (True, False)
    """
    return not texts or _are_plain(_joined(texts), len(texts), digits)


def _are_plain(joined: bytes, count: int, digits: int) -> bool:
    joined += b"\n"
    shape = joined.translate(None, b"0123456789-. ")
    brackets = shape.translate(None, b",")
    if brackets.replace(b"[]", b"") != b"\n" + b"[]\n" * count:
        return False
    marks = np.frombuffer(shape, dtype=np.uint8)
    is_open, is_close, is_comma = marks == ord("["), marks == ord("]"), marks == ord(",")
    if not np.array_equal(is_close[:-2] & is_comma[1:-1], is_comma[1:-1] & is_open[2:]):
        return False  # a number beside polygons
    opens = np.flatnonzero(is_open[:-1] & ~is_open[1:])
    closes = np.flatnonzero(is_close[1:] & ~is_close[:-1])
    if len(opens) != len(closes):
        return False
    commas = closes - opens  # one less than the numbers between
    if (commas < 5).any() or (commas % 2 == 0).any():
        return False
    return _are_short(np.frombuffer(joined, dtype=np.uint8), digits)


def _are_short(joined: NDArray[np.uint8], digits: int) -> bool:
    """Tell whether no number has more digits before its point."""
    is_digit = joined - np.uint8(ord("0")) < 10
    long = is_digit
    for _ in range(digits):
        long = long[1:] & is_digit[: len(long) - 1]
    if not long.any():
        return True
    change = np.flatnonzero(is_digit[1:] != is_digit[:-1]) + 1  # text begins and ends with a line break
    starts, ends = change[0::2], change[1::2]
    return not ((ends - starts > digits) & (joined[starts - 1] != ord("."))).any()


def check_polygons(segmentation: list[Any], size: pixels.Size) -> None:
    """Refuse polygons that cannot be drawn.

    Args:
        segmentation: COCO's list of polygons.
        size: `(height, width)` of the photo.

    Raises:
        ValueError: If one has too few points, or a coordinate that is no number or far outside the photo.
    """
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs at least three points, as [x1, y1, x2, y2, x3, y3, ...]")
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("a polygon has a coordinate that is not a number") from None
        if not np.isfinite(points).all():
            raise ValueError("a polygon has a coordinate that is not a finite number")
        if np.abs(points).max() > 10 * max(size) + 1000:
            raise ValueError("a polygon lies far outside the photo")  # drawing it would take memory without end


def draw_polygons(segmentation: list[Any], size: pixels.Size) -> bytes:
    """Turn COCO's list of polygons into RLE, once they are known to be sound.

    Raises:
        ValueError: As `check_polygons`.
    """
    check_polygons(segmentation, size)
    return pixels.from_polygons(segmentation, size)


def rle_of(segmentation: Any, size: pixels.Size) -> bytes:
    """Turn any COCO `segmentation` into RLE at the photo's size.

    Raises:
        ValueError: If it is not a polygon list or an RLE of that size.
    """
    if isinstance(segmentation, list):
        return draw_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError("a segmentation is a list of polygons or an RLE with 'size' and 'counts'")
    stated = tuple(int(v) for v in segmentation.get("size", size))
    if stated != tuple(size):
        raise ValueError(f"the RLE's size (height, width) {stated} is not the photo's {tuple(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return pixels.from_counts(counts, size)
    if not isinstance(counts, str | bytes):
        raise ValueError("an RLE's counts are text, or a list of runs")
    rle = counts.encode("ascii") if isinstance(counts, str) else counts
    return pixels.checked(rle, size)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's search for cyclic garbage: in the million small objects of a JSON file it finds none, slowly."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If it is absent or not JSON, with the line of the fault.
    """
    try:
        import orjson

        content = path.read_bytes()
        with collector_paused(), contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
        with collector_paused():  # reads NaN and other encodings too, and names the line of a fault
            return json.loads(content)
    except FileNotFoundError:
        raise UserError("the file does not exist", [str(path)], "check the path") from None
    except (ValueError, RecursionError) as error:
        raise UserError("the file is not valid JSON", [f"{path}: {error}"], "write the file anew") from None
    except OSError as error:
        raise UserError("the file cannot be read", [f"{path}: {error.strerror}"], "check the path") from None
