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
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.columns import Columns, Fields, Masks, columns_of
from maskwright.errors import UserError
from maskwright.files import MOST_PIXELS
from maskwright.halves import Memory, Second, cores
from maskwright.objects import Images
from maskwright.segmentations import are_plain, check_polygons, draw_polygons, joined
from maskwright.table import Table

BLOCK = 1 << 20
"""Bytes that are read and parsed at a time."""

LEAST_BYTES_FOR_TWO = 1 << 26
"""A smaller file is read by one process: a second one needs a third of a second before it reads."""

_SHARE = 0.5
"""How much of the rows this process reads, if there are two."""

_PATIENCE_S, _PATIENCE = 5.0, 3.0
"""How long the second process is waited for: seconds, and so many times what this process needed for its part."""

_LEAST_TABLE = 1 << 20
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

    second = None
    try:
        with path.open("rb") as handle:
            first_image, first_row = _find_arrays(handle)
            total = os.fstat(handle.fileno()).st_size
            second = _second(total)  # it wakes up while photos are read
            images, after_images = _read_images(handle, first_image)
            end = total if first_row > first_image else first_image
            columns, masks, after_rows = _read_rows(path, handle, first_row, end, images, second)
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
    finally:
        if second is not None:
            second.close()
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


def _array(handle: IO[bytes], start: int, take: Callable[[bytes], None], goal: int = 0) -> int:
    """Give an array of objects to `take`, in pieces of whole elements; return the place behind the array.

    `take` raises ValueError, and does nothing else, if what it is given is not JSON once it stands in brackets.

    Args:
        handle: The file.
        start: Where the first element begins.
        take: Takes elements.
        goal: If an element proves to begin here, this is returned, and it and all behind it are not taken.
    """
    handle.seek(start)
    base, buffer = start, b""
    while True:
        ahead = goal + 1 - base - len(buffer)  # with the brace that an element begins with
        block = handle.read(min(BLOCK, ahead) if ahead > 0 else BLOCK)
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
                if base == goal:
                    return goal
                continue
            if len(block) == ahead:  # the goal is inside an element
                goal = 0
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
        self._table: NDArray[np.int32] | None = None
        if len(ids) and ids.min() >= 0 and ids.max() < max(_LEAST_TABLE, 16 * len(ids)):
            self._table = np.full(ids.max() + 1, -1, dtype=np.int32)
            self._table[ids[::-1]] = np.arange(len(ids), dtype=np.int32)[::-1]
        else:
            self._order = np.argsort(ids, kind="stable")
            self._sorted = ids[self._order]

    def of(self, numbers: Sequence[int]) -> NDArray[np.int32]:
        """Return the position of each photo, of several of one id the first.

        Raises:
            _NotPlain: If there is no such photo.
        """
        wanted = np.array(numbers, dtype=np.int64)
        if not len(wanted):
            return np.zeros(0, dtype=np.int32)
        if self._table is not None:
            if wanted.min() < 0 or wanted.max() >= len(self._table):
                raise _NotPlain
            found = self._table[wanted]
            if found.min() < 0:
                raise _NotPlain
            return found
        if not len(self._sorted):
            raise _NotPlain
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        if (self._sorted[at] != wanted).any():
            raise _NotPlain
        return self._order[at].astype(np.int32)


class _Rows:
    """Takes rows of `annotations`, piece by piece.

    Args:
        images: What the rows refer to.
        span: Bytes of all rows, roughly.
        most: At most so many bytes are put.
        put: Takes polygons and RLEs end to end, and the place where they belong.
        numbered: Every row must have an id of its own.

    Attributes:
        used: Bytes that were put.
        table: What else was read.
    """

    def __init__(
        self, images: Images, span: int, most: int, put: Callable[[int, bytes], None], *, numbered: bool = False
    ) -> None:
        self._places = _Places(images.ids)
        self._sizes = images.sizes()
        # A polygon must not lie farther out than ten times the photo's side and 1,000 (`check_polygons`); three digits
        # never do, four do not where photos are large enough.
        longest = np.maximum(images.widths, images.heights).min(initial=1 << 30)
        self._digits = 4 if longest >= 900 else 3
        self._span, self._most = span, most
        self._put = put
        self._numbered = numbered
        self.used = 0
        self.table = Table()

    def take(self, piece: bytes) -> None:
        """Take rows.

        Raises:
            ValueError: If it is no JSON; then nothing is taken.
            _NotPlain: If the careful reader must look at it.
        """
        first = None if self._numbered else len(self.table) + 1
        found, outlines, texts = _columns(piece, self._digits, self._places, self._sizes, first)
        assert found.outlined is not None, "columns_of says of every row whether it is an outline"
        others = [rle for rle in found.rles if rle]
        content = b"".join([outlines, *others]) if others else outlines
        self.leave_room(len(content))
        self._put(self.used, content)
        span = _spans(found.rles, self.used + len(outlines))
        span[:, found.outlined] = _spans(texts, self.used, gap=1)
        if not len(self.table):
            self.table.reserve(int(1.05 * self._span / (len(piece) + 1) * len(found.ids)))
        self.table.append(found, span)
        self.used += len(content)

    def leave_room(self, count: int) -> None:
        """Tell that so many bytes are to be put.

        Raises:
            _NotPlain: If they are too many.
        """
        if self.used + count > self._most:
            raise _NotPlain


def _read_rows(
    path: Path, handle: IO[bytes], start: int, end: int, images: Images, second: Second | None
) -> tuple[Columns, Masks, int]:
    """Read the rows that begin at `start`, and end before `end`; return the place behind them too."""
    total = os.fstat(handle.fileno()).st_size
    goal = _middle(handle, start, end) if second is not None else 0
    if second is not None and goal:
        return _read_with_second(path, handle, (start, goal, end, total), images, second)
    data = _buffer(total)

    def put(at: int, content: bytes) -> None:
        data[at : at + len(content)] = np.frombuffer(content, dtype=np.uint8)

    rows = _Rows(images, end - start, total, put)
    after = _array(handle, start, rows.take)
    return rows.table.columns(), rows.table.masks(data[: rows.used]), after


# ── a second process ─────────────────────────────────────────────────────────────────────────────────────────────────
#
# It reads rows from about the middle on. Where one begins there is only a guess, and what is read from a wrong place on
# can look right. It counts only if the first process, which knows where each row begins, comes to just that place.


@dataclass(frozen=True)
class _Half:
    """What the second process is told.

    Attributes:
        path: The file.
        identity: Of the file, whatever is called so.
        start: Where a row seems to begin.
        end: All rows end before.
        total: Bytes of the file.
        place: From where on it puts masks.
        images: What the rows refer to.
    """

    path: str
    identity: tuple[int, ...]
    start: int
    end: int
    total: int
    place: int
    images: Images


def _second(total: int) -> Second | None:
    """Start a second process, if it is worth it and can be."""
    if total < LEAST_BYTES_FOR_TWO or cores() < 2:
        return None
    try:
        return Second(__name__)
    except OSError:
        return None


def _middle(handle: IO[bytes], start: int, end: int) -> int:
    """Return where a row seems to begin, near the middle between two places; 0 if none does."""
    import orjson

    at = start + int((end - start) * _SHARE)
    handle.seek(at)
    text = handle.read(BLOCK)
    for before, behind in pairwise(_BETWEEN.finditer(text)):
        with contextlib.suppress(ValueError):
            row = orjson.loads(text[before.end() : behind.start() + 1])
            if isinstance(row, dict) and "image_id" in row:
                return at + before.end()
    return 0


def _read_with_second(
    path: Path, handle: IO[bytes], places: tuple[int, int, int, int], images: Images, second: Second
) -> tuple[Columns, Masks, int]:
    start, goal, end, total = places
    room = goal - start  # for the masks of this process, which take less than their rows as a rule

    def put(at: int, content: bytes) -> None:
        if at + len(content) > room:
            second.stop()  # its masks are written over
        second.shared.write(at, content)

    second.ask(read_half, _Half(str(path), _identity(handle), goal, end, total, room, images))
    rows = _Rows(images, end - start, total, put)
    started = time.monotonic()
    after = _array(handle, start, rows.take, goal)
    if after == goal:
        patience_s = _PATIENCE_S + _PATIENCE * (time.monotonic() - started)
        after = _hand_over(second, rows, room, patience_s) or _array(handle, goal, rows.take)
    second.stop()
    second.shared.cut(rows.used)  # masks of its that did not count take no memory
    data = second.shared.array(rows.used)
    data[:: mmap.PAGESIZE].max(initial=0)  # a page that this process has looked at is shared with those that it forks
    return rows.table.columns(), rows.table.masks(data), after


def read_half(half: _Half, answers: Memory, shared: Memory) -> tuple[int, int, Any]:
    """Read rows to the end of their array: what the second process does.

    Returns:
        How many bytes of masks it put in `shared`, the place in the file behind the array, what `Table.receive` needs.

    Raises:
        Exception: If anything is not plain; who asked finds out for itself.
    """

    def put(at: int, content: bytes) -> None:
        shared.write(half.place + at, content)

    with collector_paused(), open(half.path, "rb") as handle:
        if _identity(handle) != half.identity:
            raise _NotPlain  # another file has taken its name
        rows = _Rows(half.images, half.end - half.start, half.total, put, numbered=True)
        after = _array(handle, half.start, rows.take)
    return rows.used, after, rows.table.send(answers)


def _hand_over(second: Second, rows: _Rows, room: int, patience_s: float) -> int:
    """Put what the second process has read behind what was read here; return the place behind it, or 0."""
    try:
        answer = second.answer(patience_s)
        if answer is None:
            return 0
        used, after, sent = answer
        rows.table.receive(second.answers, sent, rows.used)
    except OSError:
        return 0
    rows.leave_room(used)
    data = second.shared.array(room + used)
    data[rows.used : rows.used + used] = data[room:]
    rows.used += used
    return int(after)


def _identity(handle: IO[bytes]) -> tuple[int, ...]:
    found = os.fstat(handle.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


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
    piece: bytes, digits: int, places: _Places, sizes: Sequence[pixels.Size], first: int | None
) -> tuple[Columns, bytes, list[bytes]]:
    """Read a piece of the annotations; return the polygons of the rows that are `outlined` beside them, as JSON.

    They are returned end to end, each behind a line break, and one by one.

    Args:
        piece: Rows, which become JSON in brackets.
        digits: See `are_plain_polygons`.
        places: Where photos stand.
        sizes: `(height, width)` of each photo.
        first: The id of the first row, if it has none; `None`: it must have one.

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
        if first is None:
            raise _NotPlain
        ids = tuple(n if number is msgspec.UNSET else number for n, number in enumerate(ids, start=first))
    positions = places.of(numbers)
    written = [*map(bytes, raws)]
    others = [k for k, text in enumerate(written) if text[:2] != b"[["]
    outlined = np.ones(len(rows), dtype=np.bool_)
    outlined[others] = False
    segmentations: list[Any] = [None] * len(rows)
    for k in others:
        segmentations[k] = orjson.loads(written[k])
    texts = [written[k] for k in np.flatnonzero(outlined).tolist()] if others else written
    outlines = joined(texts)
    spread = [k for k in others if isinstance(segmentations[k], list) and segmentations[k]]  # [ [1, 2, ...
    if spread or (texts and not are_plain(outlines, len(texts), digits)):  # checked as numbers
        for k in [*spread, *np.flatnonzero(outlined).tolist()]:
            polygons = segmentations[k] or orjson.loads(written[k])
            try:
                check_polygons(polygons, sizes[positions[k]])
            except ValueError:
                raise _NotPlain from None
            written[k], segmentations[k], outlined[k] = orjson.dumps(polygons), None, True
        texts = [written[k] for k in np.flatnonzero(outlined).tolist()]
        outlines = joined(texts)
    fields = Fields(positions, ids, categories, crowd, scores, areas, boxes, segmentations, outlined)
    found = columns_of(fields, sizes, draw_polygons)
    if found is None:
        raise _NotPlain
    return found, outlines, texts


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
