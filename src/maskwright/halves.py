"""A second process that does a part of a long piece of work, and hands back bytes through memory without a name.

It is only ever a help: where it cannot be started, dies or fails, there is no answer, and who asked does the part too.
Not `multiprocessing`, for the reasons that `scale` has; nor a worker of `scale`, whose answers travel through pipes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright.memory import keep_freed_memory

_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # Ctrl-C is for the parent, which ends us
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
    "from maskwright.halves import serve; serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_MOST_DESCRIPTORS = 256
"""An array over memory keeps a descriptor open, of which a process may have 1024; most are left to others."""

_LENGTH = 8
_DONE = b"maskwright: all of it is here"
"""What an answer ends with: where the user's program reaps processes itself, it is not known how one has ended."""


class Memory:
    """Bytes that processes share: written anywhere, read from anywhere; what is never written takes no memory.

    Args:
        descriptor: Of a file without a name; a new one by default.

    Raises:
        OSError: If the system has none.

    Example:
        >>> memory = Memory()
        >>> memory.append(b"some"), memory.append(b" bytes"), memory.read(5, 5)
        (0, 4, b'bytes')
        >>> memory.close()
    """

    def __init__(self, descriptor: int = -1) -> None:
        if descriptor < 0:
            if not hasattr(os, "memfd_create"):
                raise OSError("this system has no memory without a name")
            descriptor = os.memfd_create("maskwright")
            if descriptor > _MOST_DESCRIPTORS:
                os.close(descriptor)
                raise OSError("very many files are open")
        self.descriptor = descriptor

    def __len__(self) -> int:
        """Count the bytes."""
        return os.fstat(self.descriptor).st_size

    def append(self, content: bytes | NDArray[Any]) -> int:
        """Put bytes, or those of a contiguous array, at the end, and return where they begin."""
        start = len(self)
        self.write(start, content)
        return start

    def write(self, start: int, content: bytes | NDArray[Any]) -> None:
        """Put bytes, or those of a contiguous array, at a place."""
        view = memoryview(content.reshape(-1).view(np.uint8).data if isinstance(content, np.ndarray) else content)
        while view:
            written = os.pwrite(self.descriptor, view, start)
            view, start = view[written:], start + written

    def read(self, start: int, count: int) -> bytes:
        """Return so many bytes from a place on.

        Raises:
            OSError: If there are fewer.
        """
        content = np.empty(count, dtype=np.uint8)
        self.read_into(start, content)
        return content.tobytes()

    def read_into(self, start: int, array: NDArray[Any]) -> None:
        """Fill a contiguous array with the bytes from a place on.

        Raises:
            OSError: If there are fewer.
        """
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        while view:
            found = os.preadv(self.descriptor, [view], start)
            if not found:
                raise OSError("the memory ends before its content")
            view, start = view[found:], start + found

    def array(self, size: int) -> NDArray[np.uint8]:
        """Return the first bytes as an array, `(size,)`, which stays when the memory is closed."""
        if not size:
            return np.zeros(0, dtype=np.uint8)
        if len(self) < size:
            self.cut(size)
        return np.frombuffer(mmap.mmap(self.descriptor, size), dtype=np.uint8)

    def cut(self, size: int) -> None:
        """Drop what is behind so many bytes."""
        os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        """Give the bytes up."""
        os.close(self.descriptor)


Work = Callable[[Any, Memory, Memory], Any]


class Second:
    """A second process, started at once, so that it is ready when there is work.

    Args:
        module: What the work will need, imported meanwhile.

    Attributes:
        answers: Where it puts what it likes, at the end.
        shared: Where both write, as the work tells them.

    Raises:
        OSError: If there can be none.
    """

    def __init__(self, module: str) -> None:
        if not sys.executable:
            raise OSError("it is not known what runs this program")
        self._stopped = False
        with contextlib.ExitStack() as undo:
            self.answers = Memory()
            undo.callback(self.answers.close)
            self.shared = Memory()
            undo.callback(self.shared.close)
            self._process = self._start(module)
            undo.pop_all()

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        descriptors = [self.answers.descriptor, self.shared.descriptor]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), module, *map(str, descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**os.environ, **_ONE_THREAD},
        )

    def ask(self, work: Work, argument: Any) -> None:
        """Let it do `work(argument, answers, shared)`; `work` is a function of a module."""
        job = pickle.dumps((work, argument))
        self.answers.append(job)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead, and there will be no answer
            self._process.stdin.write(len(job).to_bytes(_LENGTH, "little"))
            self._process.stdin.flush()

    def answer(self, patience_s: float) -> Any:
        """Wait, and return what the work returned; `None` if there is no answer, or none in so many seconds."""
        try:
            if self._process.wait(patience_s) != 0 or self._stopped:
                return None
        except subprocess.TimeoutExpired:
            self.stop()
            return None
        end = len(self.answers) - len(_DONE) - _LENGTH
        last = self.answers.read(end, _LENGTH + len(_DONE))
        if last[_LENGTH:] != _DONE:
            return None
        length = int.from_bytes(last[:_LENGTH], "little")
        return pickle.loads(self.answers.read(end - length, length))

    def stop(self) -> None:
        """End it, whatever it does; there will be no answer."""
        self._stopped = True
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and give up its memory."""
        self.stop()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self.answers.close()
        self.shared.close()


def cores() -> int:
    """Return how many cores this process may use, as far as the system says; else 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def serve(module: str, answers: int, shared: int) -> None:
    """Be the second process: wait for the work, do it, and leave with 0 if all of it is in the memory.

    When stdin ends, the parent is gone, and so is the process.
    """
    code = 1
    try:
        importlib.import_module(module)
        keep_freed_memory()
        length = sys.stdin.buffer.read(_LENGTH)
        if len(length) == _LENGTH:
            threading.Thread(target=_leave_with_parent, daemon=True).start()
            do(int.from_bytes(length, "little"), Memory(answers), Memory(shared))
            code = 0
    finally:
        os._exit(code)


def do(length: int, answers: Memory, shared: Memory) -> None:
    """Do the work that `ask` has put in the first bytes of `answers`, and put what it returns at the end."""
    work, argument = pickle.loads(answers.read(0, length))
    content = pickle.dumps(work(argument, answers, shared))
    answers.append(content + len(content).to_bytes(_LENGTH, "little") + _DONE)


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
