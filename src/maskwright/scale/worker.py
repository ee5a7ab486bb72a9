"""A worker process: reads pieces of work from a pipe, and writes answers to another."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
from typing import IO, Any

from maskwright.memory import keep_freed_memory
from maskwright.scale.pace import do_packed, portable

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # Ctrl-C is for the parent, which ends us
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1))\n"
    "from maskwright.scale.worker import serve; serve()"
)
"""What a worker process runs."""

HELLO = b"maskwright worker\n"


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
    target.write(HELLO)
    keep_freed_memory()
    code = receive(source)
    function: Any = None
    error: Exception | None = None
    try:
        function = pickle.loads(code)
    except Exception as caught:
        error = portable(caught)
    send(target, pickle.dumps(error))
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:  # at all times: a worker that waits to be read from must not keep its parent waiting to write
        with contextlib.suppress(OSError, EOFError):
            while True:
                frames.put(receive(source))
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
                    send(target, pickle.dumps(([], portable(caught), 0.0)))
                    continue
            send(target, do_packed(function, frame[end:]))
    os._exit(0)


def send(pipe: IO[bytes], content: bytes) -> None:
    """Write a frame: eight bytes with its length, then its content."""
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
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
