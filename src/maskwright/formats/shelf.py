"""Values that wait on disk: as many as there are photos, in a few megabytes of memory."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_TOGETHER = 256
"""Values written in one go."""


def temporary_database() -> sqlite3.Connection:
    """Open a private database: in memory while it is small, on disk when it grows, gone when it is closed."""
    # One connection is only ever used by one thread at a time, but a generator may be finished by another.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -1000")  # kibibytes
    return database


class Shelf(Collection[T], Generic[T]):
    """A list on disk: values are put at its end, and gone through in order as often as need be.

    Example:
        >>> shelf = Shelf([1, 2])
        >>> shelf.put(3)
        >>> len(shelf), list(shelf), list(shelf)
        (3, [1, 2, 3], [1, 2, 3])
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE shelf (place INTEGER PRIMARY KEY, value BLOB)")
        self._count = 0
        self._waiting: list[tuple[bytes]] = []
        for value in values:
            self.put(value)

    def put(self, value: T) -> None:
        """Put a value at the end."""
        # The rows are our own values, in a file without a name that only this process can open.
        self._waiting.append((pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL),))
        self._count += 1
        if len(self._waiting) >= _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO shelf (value) VALUES (?)", self._waiting)
            self._database.execute("COMMIT")
            self._waiting = []

    def __len__(self) -> int:
        """Count the values."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        """Yield the values in the order in which they were put."""
        self._flush()
        last = 0
        while rows := self._database.execute(
            "SELECT place, value FROM shelf WHERE place > ? ORDER BY place LIMIT ?", (last, _TOGETHER)
        ).fetchall():
            for _, value in rows:
                yield pickle.loads(value)
            last = rows[-1][0]

    def __contains__(self, value: object) -> bool:
        """Tell whether a value is there, by looking at all."""
        return any(value == one for one in self)
