"""Run a function over items: in this process, in worker processes of this machine, or on a Ray cluster.

The one package that knows Ray. Whatever is chosen, results come in the order of the items, items are taken as they are
needed, and only a window of them is in memory, so ten items and ten million go through the same call.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from maskwright.errors import UserError
from maskwright.scale.pace import Items, Pace, code_of, do, handed_out

if TYPE_CHECKING:  # a worker process imports this module, and shall start quickly
    from maskwright.scale.cluster import Ray
    from maskwright.scale.crew import Crew
    from maskwright.settings import Where

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str], None]

PATIENCE_S = 0.3
"""Work that takes less is done in this process; starting another takes about half as long."""

MANY = 1000
"""So many files take longer than that in any case."""


def each(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    on: Where = "here",
    workers: int | None = None,
    say: Say | None = None,
) -> Iterator[R]:
    """Apply a function to every item, and yield the results in the order of the items.

    `here`, work begins in this process; if it proves long and there are several cores, worker processes are started and
    share it. A worker that dies is replaced, and its work done again: the function may be called more than once for an
    item.

    Args:
        function: A function of a module (or a `functools.partial` of one), since the work may be done in processes that
            import it.
        items: Picklable values; taken as they are needed, in this thread.
        on: `here`: this machine. `ray`: the cluster that RAY_ADDRESS names, or a Ray of our own on this machine.
        workers: How many processes work, this one included where the work is done here; `None`: one per core that this
            process may use, or all that the cluster has.
        say: Called with what the user should know, such as that a worker was killed.

    Yields:
        `function(item)` for each item.

    Raises:
        UserError: If Ray is wanted and not installed, or worker processes keep dying.
        Exception: What the function raises, after the results of the items before.
    """
    code_of(function)  # so that a wrong function is an error at once, not when the first result is asked for
    return _once(function, items, on, workers, say)


def _once(
    function: Callable[[T], R], items: Iterable[T], on: Where, workers: int | None, say: Say | None
) -> Iterator[R]:
    with at(on, workers, say) as every:
        yield from every(function, items)


@contextlib.contextmanager
def at(on: Where = "here", workers: int | None = None, say: Say | None = None) -> Iterator[_Here | Ray]:
    """Give an `each` for several calls, so that worker processes, or Ray, are started once and not for every call.

    Args:
        on: As `each`. A Ray that runs in this process already is used, and left running.
        workers: As `each`.
        say: As `each`.

    Yields:
        `every(function, items)`, which does what `each` does, and `every.pieces`, which calls the function with a list
        of some items. What they give must be used up inside the block.

    Raises:
        UserError: If Ray is wanted and not installed, or cannot be started or reached.
    """
    tell = say if say is not None else _silent
    if on == "here":
        here = _Here(_cores() if workers is None else workers, tell)
        try:
            yield here
        finally:
            here.close()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    try:
        import ray
    except ImportError:
        raise UserError(
            "Ray is not installed", ["--on ray needs it"], "pip install 'maskwright[ray]', or: --on here"
        ) from None
    from maskwright.scale.cluster import Ray, start

    ours = not ray.is_initialized()
    try:
        if ours:
            start(ray, _cores() if workers is None else workers)
        yield Ray(ray, workers)
    finally:
        if ours:
            ray.shutdown()


def _silent(_: str) -> None:
    """Say nothing."""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Here:
    """Works in this process, and shares with worker processes once the work has proven long."""

    def __init__(self, workers: int, say: Say) -> None:
        self._workers = workers
        self._say = say
        self._crew: Crew | None = None
        self._spent = 0.0

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(item)` for every item."""
        return self._each(function, code_of(function), items, whole=False)

    def pieces(self, function: Callable[[list[T]], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(some items)` for all items, in order, some at a time: as many as take a moment."""
        return self._each(function, code_of(function), items, whole=True)

    def expect(self, function: Callable[..., Any], count: int, /) -> None:
        """Start worker processes now if so many files will be worked on, so that they are ready when they do.

        Args:
            function: Of a module that the workers will need.
            count: How many.
        """
        if self._crew is None and count >= MANY and self._may_share():
            self._start(code_of(function))

    def elsewhere(self) -> bool:
        """Tell that no other machine works."""
        return False

    def close(self) -> None:
        """End all worker processes."""
        if self._crew is not None:
            self._crew.close()

    def _each(self, function: Callable[[Any], Any], code: bytes, items: Iterable[Any], whole: bool) -> Iterator[Any]:
        some = Items(items)
        pace = Pace("here", self._workers)
        done = 0
        while self._crew is None:
            taken = some.take(pace.items(some.left))
            if not taken:
                return
            worked = do(function, taken, whole)
            done, self._spent = done + len(taken), self._spent + worked[2]
            yield from handed_out(worked, len(taken), 0, pace)
            ahead_s = some.left * worked[2] / len(taken) if done > _FIRST else 0.0
            if self._crew is None and max(self._spent, ahead_s) >= PATIENCE_S and self._may_share():
                self._start(code)
        yield from self._crew.run(function, code, some, pace, whole, self._say)

    def _may_share(self) -> bool:
        return self._workers > 1 and bool(sys.executable)

    def _start(self, code: bytes) -> None:
        from maskwright.scale.crew import Crew

        self._crew = Crew(code, self._workers - 1)  # this process works too


_FIRST = 5  # items that may be slow, since what they need must be imported
