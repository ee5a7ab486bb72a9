"""Bytes and numbers that wait on disk, in files without a name: as many as there are, in little memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SMALL = 1 << 18
"""So many bytes wait in memory."""

_BLOCK = 256
"""Rows that are read at once where single ones are asked for."""


class Scratch:
    """Bytes that are put at the end, and read from anywhere; gone when nobody needs them any more.

    Example:
        >>> scratch = Scratch()
        >>> scratch.append(b"some bytes")
        >>> len(scratch), scratch.read(5, 5)
        (10, b'bytes')
    """

    def __init__(self) -> None:
        self._few = bytearray()
        self._file = -1
        self._size = 0

    def __len__(self) -> int:
        """Count the bytes."""
        return self._size

    def append(self, content: bytes | memoryview) -> None:
        """Put bytes at the end."""
        if self._file < 0:
            self._few += content
            if len(self._few) > _SMALL:
                self._file = _unnamed_file()
                weakref.finalize(self, os.close, self._file)
                _write(self._file, self._few, 0)
                self._few = bytearray()
        else:
            _write(self._file, content, self._size)
        self._size += len(content)

    def read(self, start: int, count: int) -> bytes:
        """Return so many bytes from a place on; fewer at the end."""
        if self._file < 0:
            return bytes(memoryview(self._few)[start : start + count])
        parts = []
        count = min(count, self._size - start)
        while count > 0:
            part = os.pread(self._file, count, start)
            if not part:
                raise OSError(f"a temporary file in {_place() or tempfile.gettempdir()} was cut off")
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _unnamed_file() -> int:
    descriptor, name = tempfile.mkstemp(prefix="maskwright-", dir=_place())
    os.unlink(name)
    return descriptor


def _place() -> str | None:
    """Return where large temporary files go: /tmp is memory on some systems, /var/tmp never is (so says SQLite too)."""
    if "TMPDIR" in os.environ:
        return None
    return next((place for place in ("/var/tmp", "/usr/tmp") if os.access(place, os.W_OK | os.X_OK)), None)


def _write(file: int, content: bytes | bytearray | memoryview, start: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, start)
        view, start = view[count:], start + count


class Column:
    """Numbers of one type, in rows, that wait on disk; slices and positions read them as they do an array's.

    Example:
        >>> column = Column(np.int16, 2)
        >>> column.append(np.array([[1, 2], [3, 4], [5, 6]]))
        >>> len(column), column[1:].tolist(), column[np.array([2, 0])].tolist()
        (3, [[3, 4], [5, 6]], [[5, 6], [1, 2]])
    """

    def __init__(self, dtype: DTypeLike, width: int = 0) -> None:
        """Make an empty column.

        Args:
            dtype: Of the numbers.
            width: How many make a row; 0: rows are single numbers, and what is read has one dimension.
        """
        self._dtype = np.dtype(dtype)
        self._shape = (width,) if width else ()
        self._row = self._dtype.itemsize * (width or 1)
        self._bytes = Scratch()

    def append(self, rows: NDArray[Any]) -> None:
        """Put rows at the end; `(N,)` or `(N, width)`, of a type that needs no rounding."""
        rows = np.ascontiguousarray(rows, dtype=self._dtype)
        if rows.shape[1:] != self._shape:
            raise ValueError(f"rows of shape {rows.shape[1:]} in a column of {self._shape}")
        self._bytes.append(rows.tobytes())

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._bytes) // self._row

    def __getitem__(self, which: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Read a slice without steps, or the rows at positions `(K,)` in any order."""
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            content = self._bytes.read(start * self._row, max(0, stop - start) * self._row)
            return np.frombuffer(content, dtype=self._dtype).reshape(-1, *self._shape)
        found = np.empty((len(which), *self._shape), dtype=self._dtype)
        blocks = which // _BLOCK
        order = np.argsort(blocks, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            if len(some):
                first = int(blocks[some[0]]) * _BLOCK
                found[some] = self[first : first + _BLOCK][which[some] - first]
        return found

    def chunks(self, rows: int = 1 << 14) -> Iterator[NDArray[Any]]:
        """Yield all rows in order, so many at a time."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]
