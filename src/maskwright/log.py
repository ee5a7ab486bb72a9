"""What a training tells while it runs: `log.jsonl`, TensorBoard, the progress bar."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from maskwright.files import atomic_file
from maskwright.trackers import Tracker


class Log:
    """`log.jsonl`, TensorBoard and a tracker.

    Args:
        folder: The run's.
        step: Where the training stands; later lines are dropped, for a resumed training writes them again.
        active: Whether this process writes.
        tracker: Where else the numbers go.
    """

    def __init__(self, folder: Path, step: int, active: bool, tracker: Tracker | None = None) -> None:
        self.path, self.folder, self.active, self.tracker = folder / "log.jsonl", folder, active, tracker
        self.since = step
        if active and self.path.is_file():
            self._drop(step)

    def _drop(self, step: int) -> None:
        # A line without an end was being written when the machine went down.
        lines = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        with atomic_file(self.path) as handle:
            handle.write("".join(kept).encode())

    def __enter__(self) -> Log:
        if self.active:
            self._open()
        return self

    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an earlier process has drawn beyond this step is not shown.
        purge = self.since + 1 if self.since else None
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)
        self.file = self.path.open("a", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._close()
            if self.tracker is not None:
                self.tracker.close()

    def _close(self) -> None:
        self.file.close()
        self.board.close()

    def rewind(self, step: int) -> None:
        """Drop what was written after a step."""
        if self.active:
            self._close()
            self._drop(step)
            self.since = step
            self._open()

    def write(self, entry: dict[str, Any]) -> None:
        """Add one line, at once readable by others."""
        if not self.active:
            return
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        if entry["kind"] == "event":
            return
        step = entry["step"]
        if entry["kind"] == "validation":
            scalars = {f"val/{k}": v for k, v in entry["metrics"].items()}
        else:
            scalars = {f"loss/{k}": v for k, v in entry["losses"].items()}
            scalars |= {"loss/total": entry["total"], "lr": entry["lr"], "box_accuracy": entry["box_accuracy"]}
            scalars |= {"time_s": entry["time_s"], "memory_mb": entry["memory_mb"], "grad_norm": entry["grad_norm"]}
        scalars = {name: value for name, value in scalars.items() if value is not None}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)
        if self.tracker is not None:
            self.tracker.log(scalars, step)


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
