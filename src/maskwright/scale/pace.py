"""Pieces of work: how many items make one, and what it is to do one."""

from __future__ import annotations

import operator
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

from maskwright.errors import UserError

PIECE_S = {"here": 0.04, "ray": 0.5}
"""How long one piece of work should take: long against sending it, short against waiting for the last one."""

MOST_ITEMS = 2000
"""A piece has at most so many items."""

GROWTH = 4
"""A piece has at most so many times the items of the largest before it."""

MOST_BYTES = {"here": 250_000, "ray": 4_000_000}
"""A piece's items, and its results, are kept near or below so many bytes; a few pieces per worker are in memory."""

LEAST_S = {"here": 0.002, "ray": 0.02}
"""The last pieces are smaller, so that all workers end together; but not so small that sending them takes longer."""


class Items:
    """Items that are taken as they are needed.

    Attributes:
        left: How many there still are; -1 if that is not known.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.left = operator.length_hint(items, -1)
        self._items = iter(items)

    def take(self, count: int) -> list[Any]:
        """Return the next items; fewer, or none, at the end."""
        taken = list(islice(self._items, count))
        if self.left >= 0:
            self.left = max(0, self.left - len(taken)) if len(taken) == count else 0
        return taken


class Pace:
    """How many items make a piece of work, learned from the pieces that are done.

    Args:
        where: `here` or `ray`.
        workers: How many workers share the items.
    """

    def __init__(self, where: Literal["here", "ray"], workers: int = 1) -> None:
        self.piece_s, self.least_s, self.most_bytes = PIECE_S[where], LEAST_S[where], MOST_BYTES[where]
        self.workers = workers
        self.item_s: float | None = None
        self.item_bytes = 0.0
        self.most = 1  # grows from piece to piece, since the first items may be the quick ones

    def learn(self, count: int, seconds: float, size: int) -> None:
        """Take note of a piece: its items, how long they took, and the larger of its sizes in bytes."""
        if not count:
            return
        item_s = max(seconds / count, 1e-7)
        self.item_s = item_s if self.item_s is None else (self.item_s + item_s) / 2
        self.item_bytes = max(self.item_bytes * 0.9, size / count)
        self.most = min(max(self.most, GROWTH * count), MOST_ITEMS)

    def pieces(self, window: int) -> int:
        """Return how many pieces shall be under way: few while they grow, since those are too small."""
        growing = self.item_s is None or self.most * self.item_s < self.piece_s
        return self.workers + 1 if growing and self.most < MOST_ITEMS else window * self.workers

    def items(self, left: int = -1) -> int:
        """Return how many items the next piece should have, if so many are left (-1: not known)."""
        if self.item_s is None:
            return 1
        count = min(self.piece_s / self.item_s, self.most_bytes / max(self.item_bytes, 1), self.most)
        if left >= 0 and self.workers > 1:
            count = min(count, max(left / (2 * self.workers), self.least_s / self.item_s))
        return int(max(1, count))


def code_of(function: Callable[..., Any]) -> bytes:
    """Pickle a function; refuse one that another process cannot import, whether or not it will be needed there."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    if getattr(inner, "__module__", None) == "__main__":
        raise TypeError(f"{inner!r} is in the program that was started; worker processes need it in a module")
    return pickle.dumps(function)


Done = tuple[list[Any], Exception | None, float]
"""What became of a piece: its results, the error that ended them (or `None`), and seconds."""


def do(function: Callable[[Any], Any], items: list[Any], whole: bool) -> Done:
    """Do a piece of work.

    Args:
        function: What to do.
        items: With what.
        whole: Call the function once, with the list, and not for every item.
    """
    results: list[Any] = []
    error: Exception | None = None
    started = time.perf_counter()
    try:
        if whole:
            results.append(function(items))
        else:
            for item in items:
                results.append(function(item))
    except Exception as caught:
        error = caught
    return results, error, time.perf_counter() - started


def packed(items: list[Any], whole: bool) -> bytes:
    """Return a piece of work as it travels to a worker."""
    return pickle.dumps((items, whole), protocol=pickle.HIGHEST_PROTOCOL)


def do_packed(function: Callable[[Any], Any], piece: bytes) -> bytes:
    """Do a piece of work that came from elsewhere; return what became of it as it travels back."""
    try:
        results, error, seconds = do(function, *pickle.loads(piece))
    except Exception as caught:  # an item that cannot be loaded
        results, error, seconds = [], caught, 0.0
    error = None if error is None else portable(error)
    try:
        return pickle.dumps((results, error, seconds), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as caught:
        return pickle.dumps(([], portable(caught), seconds))


def portable(error: Exception) -> Exception:
    """Return an exception that arrives as it is, with its traceback as a note unless it is the user's."""
    story = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, type(error)) and str(copy) == str(error):
            if not isinstance(error, UserError):
                copy.add_note(f"in a worker process:\n{story}")
            return copy
    except Exception:
        pass
    return RuntimeError(f"in a worker process:\n{story}")


def handed_out(done: Done, count: int, size: int, pace: Pace) -> Iterator[Any]:
    """Yield the results of a piece, learning from it; raise what the function raised."""
    results, error, seconds = done
    if error is None:
        pace.learn(count, seconds, size)
    yield from results
    if error is not None:
        raise error
