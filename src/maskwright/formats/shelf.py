"""Values that wait on disk: as many as there are photos, in a few megabytes of memory."""

from __future__ import annotations

import pickle
import sqlite3
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from maskwright.scratch import Scratch

T = TypeVar("T")

_TOGETHER = 64
"""Values that are packed together."""


def temporary_database() -> sqlite3.Connection:
    """Open a private database: in memory while it is small, on disk when it grows, gone when it is closed."""
    # One connection is only ever used by one thread at a time, but a generator may be finished by another.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -1000")  # kibibytes
    return database


@dataclass(frozen=True)
class Pack(Generic[T]):
    """Some values that travel and wait together; whoever only hands them on does not unpack them."""

    content: bytes
    count: int

    def values(self) -> list[T]:
        """Unpack them."""
        # They are our own values, from a pipe or a file without a name that only our processes can open.
        values: list[T] = pickle.loads(self.content)
        return values


def packed(values: Iterable[T]) -> Iterator[Pack[T]]:
    """Pack values, in order, some together."""
    rest = iter(values)
    while some := list(islice(rest, _TOGETHER)):
        yield Pack(pickle.dumps(some, protocol=pickle.HIGHEST_PROTOCOL), len(some))


class Singly(Iterable[tuple[Pack[T], int]]):
    """Each of many values as the pack that it is in, and its place there: to be unpacked where the work is done.

    Example:
        >>> len(list(Singly(Shelf("abc")))), unpacked(list(Singly(Shelf("abc")))[1:])
        (3, ['b', 'c'])
    """

    def __init__(self, values: Collection[T]) -> None:
        self._values = values

    def __length_hint__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[tuple[Pack[T], int]]:
        """Yield the values in order."""
        values = self._values
        for pack in values.packs() if isinstance(values, Shelf) else packed(values):
            for place in range(pack.count):
                yield pack, place


def unpacked(places: Iterable[tuple[Pack[T], int]]) -> list[T]:
    """Return the values at some places, which `Singly` gave."""
    values: list[T] = []
    last: Pack[T] | None = None
    inside: list[T] = []
    for pack, place in places:
        if pack is not last:
            last, inside = pack, pack.values()
        values.append(inside[place])
    return values


class Shelf(Collection[T], Generic[T]):
    """A list on disk: values are put at its end, and gone through in order as often as need be.

    Example:
        >>> shelf = Shelf([1, 2])
        >>> shelf.put(3)
        >>> len(shelf), list(shelf), list(shelf)
        (3, [1, 2, 3], [1, 2, 3])
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._bytes = Scratch()
        self._ends = array("q")  # where each pack ends in the file
        self._counts = array("l")
        self._count = 0
        self._waiting: list[T] = []
        for value in values:
            self.put(value)

    def put(self, value: T) -> None:
        """Put a value at the end."""
        self._waiting.append(value)
        if len(self._waiting) >= _TOGETHER:
            self._flush()

    def put_packs(self, packs: Iterable[Pack[T]]) -> None:
        """Put packed values at the end."""
        self._flush()
        for pack in packs:
            self._write(pack)

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.put_packs(packed(waiting))

    def _write(self, pack: Pack[T]) -> None:
        self._bytes.append(pack.content)
        self._ends.append(len(self._bytes))
        self._counts.append(pack.count)
        self._count += pack.count

    def __len__(self) -> int:
        """Count the values."""
        return self._count + len(self._waiting)

    def packs(self) -> Iterator[Pack[T]]:
        """Yield all values in the order in which they were put, packed."""
        self._flush()
        start = number = 0
        while number < len(self._ends):
            end = self._ends[number]
            yield Pack(self._bytes.read(start, end - start), self._counts[number])
            start, number = end, number + 1

    def __iter__(self) -> Iterator[T]:
        """Yield the values in the order in which they were put."""
        for pack in self.packs():
            yield from pack.values()

    def __contains__(self, value: object) -> bool:
        """Tell whether a value is there, by looking at all."""
        return any(value == one for one in self)
