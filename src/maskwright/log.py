"""What a training tells while it runs: `log.jsonl`, TensorBoard, the progress bar."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from maskwright.trackers import Tracker

_LINES, _CURVES = "its lines wait until they can be", "the curves end here"


class Log:
    """`log.jsonl`, TensorBoard and a tracker. None of them costs the training: what cannot be written is told, once.

    Lines for which the disk has no room wait, and are written when there is some again.

    Args:
        folder: The run's.
        step: Where the training stands; later lines are dropped, for a resumed training writes them again.
        active: Whether this process writes.
        tracker: Where else the numbers go.
        tell: Told what fails.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        active: bool,
        tracker: Tracker | None = None,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.path, self.folder, self.active, self.tracker = folder / "log.jsonl", folder, active, tracker
        self.since, self.tell = step, tell
        self.waiting: list[dict[str, Any]] = []
        self.told: set[str] = set()
        self.board: Any = None
        if active and self.path.is_file():
            self._drop(step)

    def _drop(self, step: int) -> list[bytes]:
        """Cut off the lines of later steps; return those that are whole."""
        later: list[bytes] = []
        with self._guarded(self.path.name, _LINES):
            lines = self.path.read_bytes().splitlines(keepends=True)
            count = 0  # their steps only rise
            # A line without an end was being written when the machine went down.
            while count < len(lines) and lines[count].endswith(b"\n") and json.loads(lines[count])["step"] <= step:
                count += 1
            os.truncate(self.path, sum(map(len, lines[:count])))  # needs no room
            later = [line for line in lines[count:] if line.endswith(b"\n")]
        return later

    def __enter__(self) -> Log:
        if self.active:
            self._open()
        return self

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an earlier process has drawn beyond this step is not shown.
        purge = self.since + 1 if self.since else None
        with self._guarded("tensorboard", _CURVES):
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._close()
            if self.waiting:
                self.tell(f"warning: {len(self.waiting)} lines of {self.path} could not be written")
            if self.tracker is not None:
                self.tracker.close()

    def _close(self) -> None:
        self._catch_up()
        board, self.board = self.board, None
        with self._guarded("tensorboard", _CURVES):
            if board is not None:
                board.close()

    @contextmanager
    def _guarded(self, what: str, consequence: str) -> Iterator[None]:
        """Tell once that something cannot be written, and go on."""
        try:
            yield
        except OSError as error:
            if what not in self.told:
                self.told.add(what)
                self.tell(
                    f"warning: {self.folder / what} cannot be written: {error.strerror or error}; {consequence},"
                    " and the training goes on"
                )

    def rewind(self, step: int) -> None:
        """Drop what was measured after a step; events have happened all the same, and are of that step from now on."""
        if self.active:
            self._close()
            later = self._drop(step) if self.path.is_file() else []
            entries = [*map(json.loads, later), *self.waiting]
            kept = [entry for entry in entries if entry["step"] <= step or entry["kind"] == "event"]
            self.waiting = [entry | {"step": min(entry["step"], step)} for entry in kept]
            self.since = step
            self._open()
            self._catch_up()

    def write(self, entry: dict[str, Any]) -> None:
        """Add one line, at once readable by others."""
        if not self.active:
            return
        self.waiting.append(entry)
        self._catch_up()
        if self.tracker is not None and entry["kind"] != "event":
            self.tracker.log(_scalars(entry), entry["step"])

    def _catch_up(self) -> None:
        """Write the lines that wait, as far as there is room."""
        with self._guarded(self.path.name, _LINES), self.path.open("ab", buffering=0) as file:
            while self.waiting:
                entry = self.waiting.pop(0)
                try:
                    _append(file, (json.dumps(entry) + "\n").encode())
                except OSError:
                    self.waiting.insert(0, entry)
                    raise
                self._draw(entry)

    def _draw(self, entry: dict[str, Any]) -> None:
        board = self.board
        if board is not None and entry["kind"] != "event":
            self.board = None
            with self._guarded("tensorboard", _CURVES):
                for name, value in _scalars(entry).items():
                    board.add_scalar(name, value, entry["step"])
                self.board = board


def _append(file: FileIO, line: bytes) -> None:
    """Write a line, or nothing of it."""
    end = os.fstat(file.fileno()).st_size
    if file.write(line) < len(line):
        os.ftruncate(file.fileno(), end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _scalars(entry: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line that are drawn as curves, by name."""
    if entry["kind"] == "validation":
        scalars = {f"val/{k}": v for k, v in entry["metrics"].items()}
    else:
        scalars = {f"loss/{k}": v for k, v in entry["losses"].items()}
        scalars |= {"loss/total": entry["total"], "lr": entry["lr"], "box_accuracy": entry["box_accuracy"]}
        scalars |= {"time_s": entry["time_s"], "memory_mb": entry["memory_mb"], "grad_norm": entry["grad_norm"]}
    return {name: value for name, value in scalars.items() if value is not None}


def unfailing(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that says a line, and loses it if that goes to a disk without room: a training shall go on."""

    def tell(text: str) -> None:
        try:
            say(text)
        except BrokenPipeError:  # nobody listens any more
            raise
        except OSError:
            pass

    return tell


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[float, int, float], None]]:
    """Give a function that moves a live progress bar (or does nothing)."""
    if not shown:
        yield lambda _done, _step, _loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn())
    rest = (TextColumn("left"), TimeRemainingColumn(), TextColumn("step {task.fields[step]}  loss {task.fields[loss]}"))
    with Progress(*columns, *rest, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0, step=0, loss="")
        yield lambda done, step, loss: progress.update(task, completed=done, step=step, loss=f"{loss:.3f}")


def memory_mb() -> int:
    """Return the peak memory in MB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // 1024 if sys.platform != "darwin" else peak // 2**20)


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
