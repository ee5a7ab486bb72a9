"""Worker processes of our own, each tended by a thread; the process that asks does work too while it waits for them.

Not `multiprocessing`: its `spawn` imports the user's program again, which runs twice if it has no guard, and its `fork`
copies locks that threads hold.
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
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO, Any

from maskwright.errors import UserError
from maskwright.scale.pace import Done, Items, Pace, do, handed_out, packed
from maskwright.scale.worker import HELLO, PROGRAM, receive, send

WINDOW = 4
"""Pieces per worker that are under way, or done and not yet asked for."""

AHEAD = 2
"""Pieces that a worker process holds: one in work, the next at hand."""

DEATHS = 3
"""A piece of work at which so many worker processes died is given up."""

_PIPE_BYTES = 1 << 20  # as much as Linux lets anybody have

_SWITCHING_S = 0.0005
"""A thread that waits for the interpreter gets it after so long."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class _Piece:
    """A piece of work: what to do, with what, how many processes died at it, and what became of it.

    Attributes:
        size: The larger of its bytes and those of its answer, once it has travelled.
    """

    function: Callable[[Any], Any]
    code: bytes
    items: list[Any]
    whole: bool
    deaths: int = 0
    size: int = 0
    answer: Future[Done] = field(default_factory=Future)

    def frame(self) -> bytes:
        """Return it as it travels, after its function."""
        content = packed(self.items, self.whole)
        self.size = len(content)
        return len(self.code).to_bytes(8, "little") + self.code + content

    def take(self, answer: bytes) -> None:
        """Take what a worker answers."""
        self.size = max(self.size, len(answer))
        self.answer.set_result(pickle.loads(answer))


class Crew:
    """Worker processes.

    Args:
        code: The pickled function that they will be asked for first.
        workers: How many.
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
        self._told = False
        self._error: Exception | None = None
        self._deaths: queue.SimpleQueue[str] = queue.SimpleQueue()
        # This process works while its threads tend the workers: they must not wait for it long.
        self._switching_s = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switching_s, _SWITCHING_S))
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

    def run(
        self,
        function: Callable[[Any], Any],
        code: bytes,
        items: Items,
        pace: Pace,
        whole: bool,
        say: Callable[[str], None],
    ) -> Iterator[Any]:
        """Yield the results of the items, in order; see `scale.each`."""
        under_way: deque[_Piece] = deque()
        try:
            while True:
                while len(under_way) < pace.pieces(WINDOW):
                    taken = items.take(pace.items(items.left))
                    if not taken:
                        break
                    under_way.append(_Piece(function, code, taken, whole))
                    self._pieces.put(under_way[-1])
                if not under_way:
                    return
                while not under_way[0].answer.done():
                    if not self._help():
                        break  # all pieces are with the workers
                piece = under_way.popleft()
                done = piece.answer.result()
                self.ready()  # raises what a worker says
                if self.failed() and not self._told:
                    self._told = True
                    say(
                        "note: worker processes could not be started; the work is done in one process, and takes longer"
                    )
                while not self._deaths.empty():
                    say(f"note: a worker process {self._deaths.get()}; another does its work again")
                yield from handed_out(done, len(piece.items), piece.size, pace)
        finally:
            for piece in under_way:
                piece.answer.cancel()

    def _help(self) -> bool:
        """Do a piece that no worker has taken, in this process; tell whether there was one."""
        try:
            piece = self._pieces.get_nowait()
        except queue.Empty:
            return False
        if piece is not None and piece.answer.set_running_or_notify_cancel():
            piece.answer.set_result(do(piece.function, piece.items, piece.whole))
        return True

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
        sys.setswitchinterval(self._switching_s)

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
                        send(_pipe(process.stdin), held[sent].frame())
                        sent += 1
                    answer = receive(_pipe(process.stdout))
                except (OSError, EOFError):
                    how = "could not be started" if process is None else self._end(process)
                    process = None
                    if self._closed:
                        return
                    self._bury(held, how)
                    continue
                sent -= 1
                held[0].take(answer)
                held.popleft()
        except Exception as error:  # such as no memory for an answer
            for piece in held:
                if not piece.answer.done():
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
                [f"{DEATHS} of {DEATHS} at the same work ({len(piece.items):,} items): the last one {how}"],
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
                    [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **_ONE_THREAD},
                )
            except OSError:
                return None
            self._processes.add(process)
        for pipe in (process.stdin, process.stdout):
            _widen(_pipe(pipe))
        try:
            send(_pipe(process.stdin), self._code)
            while not (line := _pipe(process.stdout).readline()).endswith(HELLO):  # what sitecustomize has to say
                if not line:
                    raise EOFError
            error = pickle.loads(receive(_pipe(process.stdout)))
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


def _widen(pipe: IO[bytes]) -> None:
    """Make a pipe hold a whole piece, where the system can: else both ends wait for each other many times."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
