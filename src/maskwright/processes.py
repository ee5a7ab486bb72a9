"""The processes that train together: started here, by torchrun or SLURM, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from maskwright.beginning import agreed, mark_of, resumable
from maskwright.devices import be_patient, make_fabric, meet
from maskwright.errors import Problem, UserError
from maskwright.files import write_json
from maskwright.plan import Machine, Plan
from maskwright.run import Run
from maskwright.scale.gang import ProcessesDiedError, together
from maskwright.settings import TrainSettings

Part = Callable[[Fabric, Run, Plan, bool, Callable[[str], None]], object]
"""What each process does, given Fabric, the run, the plan, whether the training goes on, and whom to tell: a function
of a module, or a `functools.partial` of one."""


def start(part: Part, fabric: Fabric, run: Run, made: Plan, resume: bool, *, aloud: bool) -> None:
    """Start one process per device, and wait until each has done its part.

    Args:
        part: What each does.
        fabric: Of the plan, not launched.
        run: Given to each.
        made: The plan, given to each.
        resume: Whether the training goes on.
        aloud: Print what is told; what the user gave to be told with stays behind in the process that was asked.

    Raises:
        UserError: What a process raised.
    """
    with tempfile.TemporaryDirectory(prefix="maskwright-") as folder:
        try:
            # Fabric looks into the arguments and the result of what it launches, and refuses frozen ones: no arguments.
            cast(Any, fabric).launch(partial(_started, part, run, made, resume, aloud, folder))
        except (ProcessRaisedException, ProcessExitedException):
            # The others die of what one has raised, and torch hands over the text of whichever it sees first.
            for path in sorted(Path(folder).glob("*.json")):
                raise _handed_over(path) from None
            raise


def _started(part: Part, run: Run, made: Plan, resume: bool, aloud: bool, folder: str, fabric: Fabric) -> None:
    try:
        be_patient()
        part(fabric, run, made, resume, print if aloud else _silent)
        fabric.barrier()  # run.json is final for every process
    except UserError as error:
        with contextlib.suppress(UserError):  # no room for it, or the process that asked is gone
            path = Path(folder) / f"{fabric.global_rank:05d}.json"
            write_json(path, [asdict(problem) for problem in error.problems])
        raise


def _handed_over(path: Path) -> UserError:
    """Read the error that a process has left."""
    problems = json.loads(path.read_text(encoding="utf-8"))
    return UserError([Problem(one["what"], tuple(one["where"]), one["fix"]) for one in problems])


def join(
    part: Part, fabric: Fabric, run: Run, made: Plan, machine: Machine, resume: bool, tell: Callable[[str], None]
) -> None:
    """Do this process's part among those that torchrun, SLURM or Ray have started, by the first one's plan.

    Args:
        part: What each does.
        fabric: Of this process's plan, not launched.
        run: As this process sees it.
        made: This process's plan.
        machine: What this process is on.
        resume: Whether the training goes on, as this process sees it: the first one may have begun it just now.
        tell: Told what happens.

    Raises:
        UserError: If the others do not come.
    """
    meet(fabric)
    be_patient()
    own = made.settings.precision
    first_run, first_made, resume = fabric.broadcast((run, made, resume))
    run, made = agreed((first_run, first_made), (run, made))
    if made.settings.precision != own:
        fabric = make_fabric(made, machine)
        fabric.launch()  # the processes have met already
    part(fabric, run, made, resume, tell)
    fabric.barrier()  # run.json is final for every process


def on_ray(
    train: Callable[..., Any],
    data: Path,
    out: Path,
    said: TrainSettings,
    overwrite: bool,
    resume: bool,
    tell: Callable[[str], None],
    job: str,
) -> Run:
    """Train in processes of a Ray cluster; with one less when one dies, as long as one is left.

    Args:
        train: The function of that name, which each process calls.
        data: As `train`.
        out: As `train`.
        said: The settings.
        overwrite: As `train`.
        resume: As `train`.
        tell: Told what happens.
        job: Of torchrun or SLURM that this process belongs to; the run knows it.
    """
    settings = said.model_dump(exclude_none=True)
    processes, before = settings.pop("devices", None), mark_of(out)
    while True:
        work = partial(
            _on_worker,
            train,
            str(data.absolute()),
            str(out.absolute()),
            overwrite=overwrite,
            resume=resume,
            settings=settings,
        )
        try:
            run, _ = together(work, processes, say=tell, job=job)
            return run
        except ProcessesDiedError as error:
            # What lies there may still be the run that this one shall take the place of.
            resume = resumable(out) and (resume or mark_of(out) != before)
            overwrite = overwrite and not resume
            if error.left < 1:
                raise
            tell(f"warning: {error.problems[0].where[0]}; the training goes on with {error.left} processes")
            processes = error.left


def _on_worker(
    train: Callable[..., Any],
    data: str,
    out: str,
    say: Callable[[str], None],
    *,
    overwrite: bool,
    resume: bool,
    settings: dict[str, Any],
) -> Run:
    return cast(Run, train(data, out, overwrite=overwrite, resume=resume, say=say, **settings))


def _silent(_text: str) -> None:
    """Say nothing."""
