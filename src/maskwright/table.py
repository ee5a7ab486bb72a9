"""The objects of a file in columns that grow while it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright.columns import Columns, Masks
from maskwright.halves import Memory

_SPANS = ("starts", "ends")
_ARRAYS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "positions": (np.int32, ()),
    "ids": (np.int64, ()),
    "category_ids": (np.int64, ()),
    "crowd": (np.bool_, ()),
    "scores": (np.float64, ()),
    "areas": (np.float64, ()),
    "boxes": (np.float64, (4,)),
    "measured": (np.float64, (5,)),
    "outlined": (np.bool_, ()),
    "starts": (np.int64, ()),
    "ends": (np.int64, ()),
}


class Table:
    """What `Columns` and `Masks` say of objects, put at the end some objects at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._measured = True
        self._arrays = {name: np.empty((0, *shape), dtype=dtype) for name, (dtype, shape) in _ARRAYS.items()}

    def __len__(self) -> int:
        """Count the objects."""
        return self._count

    def reserve(self, count: int) -> None:
        """Make room for so many objects in all; room that is never used takes no memory."""
        for name, array in self._arrays.items():
            if len(array) < count:
                larger = np.empty((count, *array.shape[1:]), dtype=array.dtype)
                if name != "measured" or self._measured:
                    larger[: self._count] = array[: self._count]
                self._arrays[name] = larger

    def append(self, found: Columns, spans: NDArray[np.int64]) -> None:
        """Put objects at the end.

        Args:
            found: The objects; `outlined` is known, `rles` are not looked at.
            spans: `(2, M)`, where their masks begin and end.
        """
        after = self._count + len(found.ids)
        if after > len(self._arrays["ids"]):
            self.reserve(after + after // 2)
        self._measured = self._measured and found.measured is not None
        here = slice(self._count, after)
        for name, array in self._arrays.items():
            if name in _SPANS:
                array[here] = spans[_SPANS.index(name)]
            elif name != "measured" or self._measured:
                array[here] = getattr(found, name)
        self._count = after

    def send(self, memory: Memory) -> tuple[int, bool, dict[str, int]]:
        """Put everything in memory that another process shares, which gives `receive` what is returned here."""
        names = [name for name in self._arrays if name != "measured" or self._measured]
        return (
            self._count,
            self._measured,
            {name: memory.append(self._arrays[name][: self._count]) for name in names},
        )

    def receive(self, memory: Memory, sent: tuple[int, bool, dict[str, int]], before: int) -> None:
        """Put the objects of another process at the end.

        Args:
            memory: What both share.
            sent: What `send` returned.
            before: How many bytes of masks lie before the first of theirs.

        Raises:
            OSError: If they are not there; then nothing is put.
        """
        count, measured, places = sent
        after = self._count + count
        self.reserve(after)
        here = slice(self._count, after)
        for name, place in places.items():
            memory.read_into(place, self._arrays[name][here])
        for name in _SPANS:
            self._arrays[name][here] += before
        self._measured = self._measured and measured
        self._count = after

    def columns(self) -> Columns:
        """Return the columns, with `rles` empty, and `measured` only if all objects have it."""
        arrays: dict[str, Any] = {name: a[: self._count] for name, a in self._arrays.items() if name not in _SPANS}
        if not self._measured:
            arrays["measured"] = None
        return Columns(rles=[], **arrays)

    def masks(self, data: NDArray[np.uint8]) -> Masks:
        """Return the masks, which lie in `data`."""
        starts, ends, outlined = (self._arrays[name][: self._count] for name in (*_SPANS, "outlined"))
        return Masks(data, starts, ends, outlined)
