"""The processes that train together: started here, by torchrun or SLURM, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric

from maskwright.beginning import agreed, resumable
from maskwright.devices import be_patient, make_fabric, meet
from maskwright.plan import Machine, Plan
from maskwright.run import Run
from maskwright.scale.gang import ProcessesDiedError, together
from maskwright.settings import TrainSettings

Part = Callable[[Fabric, Run, Plan, Callable[[str], None]], object]
"""What each process does: a function of a module, or a `functools.partial` of one."""


def start(part: Part, fabric: Fabric, run: Run, made: Plan, *, aloud: bool) -> None:
    """Start one process per device, and wait until each has done its part.

    Args:
        part: What each does.
        fabric: Of the plan, not launched.
        run: Given to each.
        made: The plan, given to each.
        aloud: Print what is told; what the user gave to be told with stays behind in the process that was asked.
    """
    # Fabric looks into the arguments and the result of what it launches and refuses frozen ones: so there are none.
    cast(Any, fabric).launch(partial(_started, part, run, made, aloud))


def _started(part: Part, run: Run, made: Plan, aloud: bool, fabric: Fabric) -> None:
    be_patient()
    part(fabric, run, made, print if aloud else _silent)
    fabric.barrier()  # run.json is final for every process


def join(part: Part, fabric: Fabric, run: Run, made: Plan, machine: Machine, tell: Callable[[str], None]) -> None:
    """Do this process's part among those that torchrun, SLURM or Ray have started, by the first one's plan.

    Args:
        part: What each does.
        fabric: Of this process's plan, not launched.
        run: As this process sees it.
        made: This process's plan.
        machine: What this process is on.
        tell: Told what happens.

    Raises:
        UserError: If the others do not come.
    """
    meet(fabric)
    be_patient()
    own = made.settings.precision
    run, made = agreed(fabric.broadcast((run, made)), (run, made))
    if made.settings.precision != own:
        fabric = make_fabric(made, machine)
        fabric.launch()  # the processes have met already
    part(fabric, run, made, tell)
    fabric.barrier()  # run.json is final for every process


def on_ray(
    train: Callable[..., Any],
    data: Path,
    out: Path,
    said: TrainSettings,
    overwrite: bool,
    resume: bool,
    tell: Callable[[str], None],
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
    """
    settings = said.model_dump(exclude_none=True)
    processes = settings.pop("devices", None)
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
            run, _ = together(work, processes, say=tell)
            return run
        except ProcessesDiedError as error:
            resume, overwrite = resumable(out), overwrite and not resumable(out)
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
