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
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.columns import Columns, Masks, read_columns
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
_POLYGONS = (b'"segmentation": [[', b'"segmentation":[[')
_OUTLINE = "maskwright:outline"
_OUTLINE_KEY = b'"maskwright:outline"'
_MARKERS = (b'"maskwright:images"', b'"maskwright:annotations"')


class _NotPlain(Exception):
    """The careful reader must look at this file."""


@dataclass(frozen=True)
class Pieces:
    """What a plain COCO file holds.

    Attributes:
        rest: The document without its images and annotations.
        images: Sizes and names are sound; ids may repeat.
        columns: As of `read_columns`, in file order, with `rles` empty and `measured` only if nothing is a polygon.
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


def _read_rows(handle: IO[bytes], start: int, images: Images, total: int) -> tuple[Columns, Masks, int]:
    index = {number: i for i, number in enumerate(images.ids.tolist())}
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
        found, texts = _columns(piece, digits, index, sizes, count + 1)
        assert found.outlined is not None, "read_columns says of every row whether it is an outline"
        outlines = _joined(texts)  # first these, then the RLEs
        joined = b"".join([outlines, *found.rles])
        if used + len(joined) > total:
            raise _NotPlain
        data[used : used + len(joined)] = np.frombuffer(joined, dtype=np.uint8)
        span = _spans(found.rles, used + len(outlines))
        span[:, found.outlined] = _spans(texts, used, around=2, gap=1)
        spans.append(span)
        parts.append(replace(found, rles=[]))
        used += len(joined)
        count += len(found.rles)

    after = _array(handle, start, take)
    columns = Columns.join(parts)
    assert columns.outlined is not None, "read_columns says of every row whether it is an outline"
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


def _spans(items: Sequence[bytes], start: int, around: int = 0, gap: int = 0) -> NDArray[np.int64]:
    """Return where each item begins and ends, `(2, N)`.

    They lie end to end from `start` on, each between so many bytes that count, and behind a gap that does not.
    """
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items)) + 2 * around
    ends = start + np.cumsum(lengths + gap)
    return np.stack([ends - lengths, ends])


def _columns(
    piece: bytes, digits: int, index: dict[int, int], sizes: Sequence[pixels.Size], first: int
) -> tuple[Columns, list[bytes]]:
    """Read a piece of the annotations; return the polygons of the rows that are `outlined` beside them.

    These are JSON without the two brackets around it.
    """
    import orjson

    if _OUTLINE_KEY in piece:
        raise _NotPlain
    kept, texts = _without_polygons(piece)
    if are_plain_polygons(texts, digits):
        rows = orjson.loads(b"[%b]" % kept)
        found = read_columns(rows, index, sizes, draw_polygons, first, _OUTLINE)
        # No key is spelled with escapes, so as many rows as texts have the key: each text belongs to a row, in order.
        if found is not None and _count(found) == len(texts) and b"\\u" not in kept:
            return found, texts
    rows = orjson.loads(b"[%b]" % piece)  # polygons that are written in another way: checked as numbers
    texts = []
    for row in rows:
        polygons = row.get("segmentation")
        if isinstance(polygons, list) and polygons:
            try:
                check_polygons(polygons, sizes[index[row["image_id"]]])
            except ValueError:
                raise _NotPlain from None
            del row["segmentation"]
            row[_OUTLINE] = 0
            texts.append(orjson.dumps(polygons)[2:-2])
    found = read_columns(rows, index, sizes, draw_polygons, first, _OUTLINE)
    if found is None:
        raise _NotPlain
    return found, texts


def _count(found: Columns) -> int:
    return 0 if found.outlined is None else int(np.count_nonzero(found.outlined))


def _without_polygons(piece: bytes) -> tuple[bytes, list[bytes]]:
    """Put another key and 0 in the place of each segmentation that looks like a list of polygons.

    What is taken out is no JSON value by itself until `are_plain_polygons` has said so.
    """
    key = next((key for key in _POLYGONS if key in piece), _POLYGONS[0])
    first, *parts = piece.split(key)
    kept, texts = [first], list[bytes]()
    for part in parts:
        text, _, rest = part.partition(b"]]")
        texts.append(text)
        kept.append(rest)
    return (_OUTLINE_KEY + b":0").join(kept), texts


def _joined(texts: Sequence[bytes]) -> bytes:
    return b"\n[[" + b"]]\n[[".join(texts) + b"]]" if texts else b""


# The classes of bytes that a plain polygon consists of, and what each pair of neighbours says.
_NEWLINE, _OPEN, _CLOSE, _COMMA, _MINUS, _POINT, _ZERO, _DIGIT = range(8)
# A pair says what may stand there; three bits ask of the next pair what the three bits above answer.
_ASKS_NO_DIGITS, _ASKS_OPEN, _ASKS_NO_OPEN, _DIGITS, _NO_OPEN, _IS_OPEN, _START, _BAD = (1 << bit for bit in range(8))
_CLASS = bytearray([255]) * 256
for _code, _class in zip(b"\n[],-.0123456789", [0, 1, 2, 3, 4, 5, 6, *[7] * 9], strict=True):
    _CLASS[_code] = _class


def _pair(first: int, second: int) -> int:
    digits = {_ZERO, _DIGIT}
    follows = {
        _NEWLINE: {_OPEN},
        _OPEN: {_OPEN, _MINUS, *digits},
        _CLOSE: {_CLOSE, _COMMA, _NEWLINE},
        _COMMA: {_OPEN, _MINUS, *digits},
        _MINUS: digits,
        _POINT: digits,
        _ZERO: {_POINT, _COMMA, _CLOSE, *digits},
        _DIGIT: {_POINT, _COMMA, _CLOSE, *digits},
    }
    flags = 0 if second in follows[first] else _BAD
    if first in {_OPEN, _COMMA, _MINUS} and second in digits:
        flags |= _START | (_ASKS_NO_DIGITS if second == _ZERO else 0)  # JSON has no 007
    if first in digits and second in digits:
        flags |= _DIGITS
    if second == _COMMA:
        flags |= _ASKS_OPEN if first == _CLOSE else _ASKS_NO_OPEN
    if first == _COMMA:
        flags |= _IS_OPEN if second == _OPEN else _NO_OPEN
    return flags


_PAIRS = bytes(_pair(code >> 3, code & 7) if code < 64 else _BAD for code in range(256))


def are_plain_polygons(texts: Sequence[bytes], digits: int) -> bool:
    """Tell whether each text is a JSON list of polygons that are plain beyond doubt, without parsing a number.

    Plain means: lists of at least three points, x and y; numbers without exponents, with at most so many digits before
    the point; no spaces but behind commas. `False` means that it must be parsed to be known.

    Args:
        texts: Each without the two brackets around it.
        digits: At most so many before the point.

    Example:
        >>> are_plain_polygons([b"1, 2.5, 3, 4, 5, 6"], 3), are_plain_polygons([b"1, 2, 3, 4"], 3)
        (True, False)
    """
    if not texts:
        return True
    joined = _joined(texts) + b"\n"
    shape = joined.translate(None, b"0123456789- ")
    if joined.count(b"\n") != len(texts) + 1 or b".." in shape:  # two points in one number
        return False
    shape = shape.translate(None, b".")
    brackets = shape.translate(None, b",")
    if brackets.replace(b"[]", b"") != b"\n" + b"[]\n" * len(texts):
        return False
    if brackets.count(b"\n[[") != len(texts) or brackets.count(b"]]\n") != len(texts):
        return False
    marks = np.frombuffer(shape, dtype=np.uint8)
    is_open, is_close = marks == ord("["), marks == ord("]")
    opens = np.flatnonzero(is_open[:-1] & ~is_open[1:])
    closes = np.flatnonzero(is_close[1:] & ~is_close[:-1])
    commas = closes - opens  # one less than the numbers between
    if (commas < 5).any() or (commas % 2 == 0).any():
        return False
    return _plain_numbers(joined, digits)


def _plain_numbers(joined: bytes, digits: int) -> bool:
    raw = np.frombuffer(joined, dtype=np.uint8)
    if ((raw[1:] == ord(" ")) & (raw[:-1] != ord(","))).any():
        return False
    classes = np.frombuffer(joined.translate(bytes(_CLASS), b" "), dtype=np.uint8)
    if classes.max() > _DIGIT:
        return False
    pairs = np.frombuffer(((classes[:-1] << 3) | classes[1:]).tobytes().translate(_PAIRS), dtype=np.uint8)
    if pairs.max() >= _BAD or (pairs[:-1] & (pairs[1:] >> 3) & 7).max():
        return False
    long = (pairs & _START) >> 3  # the bit of _DIGITS
    for _ in range(digits):
        long = long[:-1] & pairs[len(pairs) - len(long) + 1 :]
    return not long.max()


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
