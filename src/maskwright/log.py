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


class Log:
    """`log.jsonl` and TensorBoard; lines after `step` are dropped, for a resumed training writes them again."""

    def __init__(self, folder: Path, step: int, active: bool) -> None:
        self.path, self.folder, self.active = folder / "log.jsonl", folder, active
        if active and self.path.is_file():
            # A line without an end was being written when the machine went down.
            lines = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.path.write_text("".join(kept))

    def __enter__(self) -> Log:
        if self.active:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder / "tensorboard"))
            self.file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            self.file.close()
            self.board.close()

    def write(self, entry: dict[str, Any]) -> None:
        """Add one line, at once readable by others."""
        if not self.active:
            return
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        step = entry["step"]
        if entry["kind"] == "validation":
            scalars = {f"val/{k}": v for k, v in entry["metrics"].items() if v is not None}
        else:
            scalars = {f"loss/{k}": v for k, v in entry["losses"].items()}
            scalars |= {"loss/total": entry["total"], "lr": entry["lr"], "box_accuracy": entry["box_accuracy"]}
            scalars |= {"time_s": entry["time_s"], "memory_mb": entry["memory_mb"]}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, step)


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
