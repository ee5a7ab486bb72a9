"""Run a function over items: in this process, in worker processes of this machine, or on a Ray cluster.

The one module that knows Ray. Whatever is chosen, results come in the order of the items, items are taken as they are
needed, and only a window of them is in memory, so ten items and ten million go through the same call.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, TypeVar

from maskwright.errors import UserError
from maskwright.memory import keep_freed_memory

if TYPE_CHECKING:  # pydantic would double the time that a worker process takes to start
    from maskwright.settings import Where

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str], None]

PATIENCE_S = 0.4
"""Work that takes less is done in this process; starting another takes about as long."""

AGAIN_S = 0.05
"""The same, where worker processes are there already."""

PIECE_S = {"here": 0.1, "ray": 0.5}
"""How long one piece of work should take: long against sending it, short against waiting for the last one."""

MOST_ITEMS = 2000
"""A piece has at most so many items."""

GROWTH = 4
"""A piece has at most so many times the items of the largest before it."""

MOST_BYTES = 4_000_000
"""A piece's items, and its results, are kept near or below so many bytes."""

WINDOW = 4
"""Pieces per worker that are under way, or done and not yet asked for."""

AHEAD = 2
"""Pieces that a worker process holds: one in work, the next at hand."""

DEATHS = 3
"""A piece of work at which so many worker processes died is given up."""


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
    take over when they are ready. A worker that dies is replaced, and its work done again: the function may be called
    more than once for an item.

    Args:
        function: A function of a module (or a `functools.partial` of one), since the work may be done in processes that
            import it.
        items: Picklable values; taken as they are needed, in this thread.
        on: `here`: this machine. `ray`: the cluster that RAY_ADDRESS names, or a Ray of our own on this machine.
        workers: How many worker processes; `None`: one per core that this process may use, or all that the cluster has.
        say: Called with what the user should know, such as that a worker was killed.

    Yields:
        `function(item)` for each item.

    Raises:
        UserError: If Ray is wanted and not installed, or worker processes keep dying.
        Exception: What the function raises, after the results of the items before.
    """
    _code(function)  # so that a wrong function is an error at once, not when the first result is asked for
    return _once(function, items, on, workers, say)


def _once(
    function: Callable[[T], R], items: Iterable[T], on: Where, workers: int | None, say: Say | None
) -> Iterator[R]:
    with at(on, workers, say) as every:
        yield from every(function, items)


@contextlib.contextmanager
def at(on: Where = "here", workers: int | None = None, say: Say | None = None) -> Iterator[_Here | _Ray]:
    """Give an `each` for several calls, so that worker processes, or Ray, are started once and not for every call.

    Args:
        on: As `each`. A Ray that runs in this process already is used, and left running.
        workers: As `each`.
        say: As `each`.

    Yields:
        `every(function, items)`, which does what `each` does. What it gives must be used up inside the block.

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
            "Ray is not installed", ["--on ray needs it"], "pip install 'maskwright[ray]', or leave out: --on ray"
        ) from None
    ours = not ray.is_initialized()
    try:
        if ours:
            _start_ray(ray, workers)
        yield _Ray(ray, workers)
    finally:
        if ours:
            ray.shutdown()


def _silent(_: str) -> None:
    """Say nothing."""


def _code(function: Callable[[Any], Any]) -> bytes:
    """Pickle a function; refuse one that another process cannot import, whether or not it will be needed there."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    if getattr(inner, "__module__", None) == "__main__":
        raise TypeError(f"{inner!r} is in the program that was started; worker processes need it in a module")
    return pickle.dumps(function)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ── pieces of work ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Pace:
    """How many items make a piece of work, learned from the pieces that are done."""

    def __init__(self, piece_s: float) -> None:
        self.piece_s = piece_s
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

    def items(self) -> int:
        """Return how many items the next piece should have."""
        if self.item_s is None:
            return 1
        return int(max(1, min(self.piece_s / self.item_s, MOST_BYTES / max(self.item_bytes, 1), self.most)))


def _work(function: Callable[[Any], Any], piece: bytes) -> bytes:
    """Do a piece of work: pickled items in; pickled results, the error that ended them (or `None`), and seconds out."""
    results: list[Any] = []
    error: Exception | None = None
    started = time.perf_counter()
    try:
        for item in pickle.loads(piece):
            results.append(function(item))
    except Exception as caught:
        error = _portable(caught)
    seconds = time.perf_counter() - started
    try:
        return pickle.dumps((results, error, seconds))
    except Exception as caught:
        return pickle.dumps(([], _portable(caught), seconds))


def _portable(error: Exception) -> Exception:
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


def _results(answer: bytes, count: int, sent: int, pace: _Pace) -> Iterator[Any]:
    """Yield the results of a piece, learning from it; raise what the function raised."""
    results, error, seconds = pickle.loads(answer)
    if error is None:
        pace.learn(count, seconds, max(len(answer), sent))
    yield from results
    if error is not None:
        raise error


# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Here:
    """Works in this process, and hands over to worker processes once the work has proven long."""

    def __init__(self, workers: int, say: Say) -> None:
        self._workers = workers
        self._say = say
        self._alone = workers < 2 or not sys.executable
        self._crew: _Crew | None = None
        self._spent = 0.0

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(item)` for every item."""
        return self._each(function, _code(function), iter(items))

    def close(self) -> None:
        """End all worker processes."""
        if self._crew is not None:
            self._crew.close()

    def _each(self, function: Callable[[T], R], code: bytes, items: Iterator[T]) -> Iterator[R]:
        done, spent = 0, 0.0
        for item in items:
            started = time.perf_counter()
            result = function(item)
            took = time.perf_counter() - started
            done, spent, self._spent = done + 1, spent + took, self._spent + took
            yield result
            if self._handing_over(code, spent):
                break
        else:
            return
        assert self._crew is not None
        pace = _Pace(PIECE_S["here"])
        pace.learn(done, spent, 0)
        yield from self._crew.run(code, items, pace, self._say)

    def _handing_over(self, code: bytes, spent: float) -> bool:
        """Tell whether worker processes shall take over; start them if need be."""
        if self._alone:
            return False
        if self._crew is None:
            if self._spent >= PATIENCE_S:
                self._crew = _Crew(code, self._workers)
            return False
        if self._crew.failed():
            self._alone = True
            self._say("note: worker processes could not be started; the work is done in one process, and takes longer")
        return spent >= min(AGAIN_S, PATIENCE_S) and self._crew.ready()  # until then this process goes on by itself


@dataclass
class _Piece:
    """A piece of work: its frame, how many items it has, how many processes died at it, and its answer."""

    frame: bytes
    count: int
    deaths: int = 0
    answer: Future[bytes] = field(default_factory=Future)


class _Crew:
    """Worker processes of our own, each tended by a thread of this process.

    Not `multiprocessing`: its `spawn` imports the user's program again, which runs twice if it has no guard, and its
    `fork` copies locks that threads hold.
    """

    def __init__(self, code: bytes, workers: int) -> None:
        self._code = code
        self._workers = workers
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ready = 0
        self._failed = 0
        self._error: Exception | None = None
        self._deaths: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._tend, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def ready(self) -> bool:
        """Tell whether a worker is ready for work.

        Raises:
            Exception: If a worker could not load the function.
        """
        if self._error is not None:
            raise self._error
        return self._ready > 0

    def failed(self) -> bool:
        """Tell whether no worker could be started."""
        return self._failed == self._workers

    def run(self, code: bytes, items: Iterator[Any], pace: _Pace, say: Say) -> Iterator[Any]:
        """Yield the results of the items, in order."""
        under_way: deque[_Piece] = deque()
        try:
            yield from self._run(code, items, pace, say, under_way)
        finally:
            for piece in under_way:
                piece.answer.cancel()

    def _run(self, code: bytes, items: Iterator[Any], pace: _Pace, say: Say, under_way: deque[_Piece]) -> Iterator[Any]:
        head = len(code).to_bytes(8, "little") + code
        while True:
            while len(under_way) < WINDOW * self._workers:
                taken = list(islice(items, pace.items()))
                if not taken:
                    break
                piece = _Piece(head + pickle.dumps(taken), len(taken))
                under_way.append(piece)
                self._pieces.put(piece)
            if not under_way:
                return
            piece = under_way.popleft()
            answer = piece.answer.result()
            while not self._deaths.empty():
                say(f"note: a worker process {self._deaths.get()}; another does its work again")
            yield from _results(answer, piece.count, len(piece.frame) - len(head), pace)

    def close(self) -> None:
        """End all worker processes, whatever they are doing."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._pieces.put(None)
        for thread in self._threads:
            thread.join()

    def _tend(self) -> None:
        """Keep one worker process busy; start another when it dies."""
        held: deque[_Piece] = deque()
        sent = 0
        process: subprocess.Popen[bytes] | None = None
        try:
            process = self._start()
            with self._lock:
                self._ready += process is not None
                self._failed += process is None
            if process is None:
                return
            while True:
                while len(held) < AHEAD:
                    try:
                        piece = self._pieces.get(block=not held)
                    except queue.Empty:
                        break
                    if piece is None:
                        return
                    if piece.answer.set_running_or_notify_cancel():  # else nobody wants it any more
                        held.append(piece)
                if process is None:
                    process, sent = self._start(), 0
                try:
                    if process is None:
                        raise EOFError
                    while sent < len(held):
                        _send(_pipe(process.stdin), held[sent].frame)
                        sent += 1
                    answer = _receive(_pipe(process.stdout))
                except (OSError, EOFError):
                    how = "could not be started" if process is None else self._end(process)
                    process = None
                    if self._closed:
                        return
                    self._bury(held, how)
                    continue
                held.popleft().answer.set_result(answer)
                sent -= 1
        except Exception as error:  # such as no memory for an answer
            for piece in held:
                piece.answer.set_exception(error)
        finally:
            if process is not None:
                self._end(process)

    def _bury(self, held: deque[_Piece], how: str) -> None:
        """Blame a death on the piece that was in work."""
        piece = held[0]
        piece.deaths += 1
        if piece.deaths < DEATHS:
            self._deaths.put(how)
            return
        held.popleft().answer.set_exception(
            UserError(
                "worker processes were killed, likely because the machine ran out of memory",
                [f"{DEATHS} of {DEATHS} at the same work ({piece.count:,} items): the last one {how}"],
                "close other programs, or use fewer cores (on Linux: taskset -c 0 maskwright ...)",
            )
        )

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start a worker process and wait until it has loaded the function; `None` if it cannot."""
        with self._lock:
            if self._closed:
                return None
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **_ONE_THREAD},
                )
            except OSError:
                return None
            self._processes.add(process)
        try:
            _send(_pipe(process.stdin), self._code)
            while not (line := _pipe(process.stdout).readline()).endswith(_HELLO):  # what sitecustomize has to say
                if not line:
                    raise EOFError
            error = pickle.loads(_receive(_pipe(process.stdout)))
        except (OSError, EOFError):
            self._end(process)
            return None
        if error is not None:
            self._error = error
            self._end(process)
            return None
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """End a worker process, if it is not dead; return how it ended, in words."""
        with self._lock:
            self._processes.discard(process)
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent cannot be
                _pipe(pipe).close()
        code = process.wait()
        if code >= 0:
            return f"ended with {code}"
        try:
            return f"was killed ({signal.Signals(-code).name})"
        except ValueError:
            return f"was killed (signal {-code})"


_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # Ctrl-C is for the parent, which ends us
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1))\n"
    "from maskwright.scale import serve; serve()"
)
_HELLO = b"maskwright worker\n"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def serve() -> None:
    """Be a worker process: read pieces of work from stdin, each after its function; write answers to stdout.

    The first frame is a function alone, so that what it imports is there before work begins.

    Both are moved away first, so that what the function prints goes to stderr and not between the answers. When stdin
    ends, the parent is gone, and so is the process, whatever it is doing.
    """
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    target.write(_HELLO)
    keep_freed_memory()
    code = _receive(source)
    function: Any = None
    error: Exception | None = None
    try:
        function = pickle.loads(code)
    except Exception as caught:
        error = _portable(caught)
    _send(target, pickle.dumps(error))
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:  # at all times: a worker that waits to be read from must not keep its parent waiting to write
        with contextlib.suppress(OSError, EOFError):
            while True:
                frames.put(_receive(source))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(OSError):  # the parent is gone
        while True:
            frame = frames.get()
            end = 8 + int.from_bytes(frame[:8], "little")
            if frame[8:end] != code:
                try:
                    function, code = pickle.loads(frame[8:end]), frame[8:end]
                except Exception as caught:
                    _send(target, pickle.dumps(([], _portable(caught), 0.0)))
                    continue
            _send(target, _work(function, frame[end:]))
    os._exit(0)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _send(pipe: IO[bytes], content: bytes) -> None:
    """Write a frame: eight bytes with its length, then its content."""
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Read a frame.

    Raises:
        EOFError: If the pipe ends before the frame does.
    """
    length = pipe.read(8)
    if len(length) < 8:
        raise EOFError
    content = pipe.read(wanted := int.from_bytes(length, "little"))
    if len(content) < wanted:
        raise EOFError
    return content


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Ray:
    """Works in Ray tasks; Ray runs a task again when its worker or machine dies."""

    def __init__(self, ray: Any, workers: int | None) -> None:
        self._ray = ray
        self._workers = workers
        self._task = ray.remote(num_cpus=1, max_retries=DEATHS)(_ray_work)

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(item)` for every item."""
        return self._each(_code(function), iter(items))

    def _window(self) -> int:
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        return WINDOW * max(1, cpus if self._workers is None else min(cpus, self._workers))

    def _each(self, code: bytes, items: Iterator[Any]) -> Iterator[Any]:
        function = self._ray.put(code)
        pace = _Pace(PIECE_S["ray"])
        under_way: deque[tuple[Any, int, int]] = deque()
        window, asked = 0, float("-inf")
        while True:
            if time.monotonic() - asked > 5:  # a cluster grows and shrinks
                window, asked = self._window(), time.monotonic()
            while len(under_way) < window:
                taken = list(islice(items, pace.items()))
                if not taken:
                    break
                piece = pickle.dumps(taken)
                under_way.append((self._task.remote(function, piece), len(taken), len(piece)))
            if not under_way:
                return
            answer, count, sent = under_way.popleft()
            try:
                done = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                raise _ray_failed(self._ray, error, count) from None
            del answer  # or Ray keeps it while its results are used
            yield from _results(done, count, sent, pace)


def _ray_work(code: bytes, piece: bytes) -> bytes:
    """Do a piece of work as a Ray task."""
    return _work(pickle.loads(code), piece)


def _start_ray(ray: Any, workers: int | None) -> None:
    """Join the cluster that RAY_ADDRESS names, or start a Ray of our own on this machine.

    Raises:
        UserError: If there is no cluster at that address, or Ray does not start.
    """
    import logging

    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {}
    if address == "local":
        local = {
            "num_cpus": _cores() if workers is None else workers,
            "include_dashboard": False,
            "object_store_memory": 256_000_000,  # the window is all that is ever in it
        }
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        first = str(error).strip().split("\n")[0]
        if address == "local":
            raise UserError("Ray cannot be started", [first], "leave out: --on ray") from None
        raise UserError(
            "the Ray cluster cannot be reached",
            [f"RAY_ADDRESS={address}: {first}"],
            "start it (ray start --head), or unset RAY_ADDRESS to work on this machine",
        ) from None


def _ray_failed(ray: Any, error: Exception, count: int) -> UserError:
    lines = str(error).strip().split("\n")
    if isinstance(error, ray.exceptions.RayTaskError):  # the function cannot be loaded; its own errors are in answers
        do = "install the same version of maskwright on every machine of the cluster"
        reason = lines[-1]
    else:
        do = "if workers were killed, give the machines more memory or fewer CPUs each (ray start --num-cpus N)"
        reason = f"{type(error).__name__}: {lines[0]}"
    return UserError("Ray could not finish a piece of work", [f"{count:,} items: {reason}"], do)
