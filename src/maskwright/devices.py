"""On what a training runs: this machine, the processes that train together, and who started them.

Processes are started by us (`--devices 2`), by torchrun, by SLURM, or by Ray. Lightning Fabric is told the same in each
case: how many processes per machine on how many machines. Whoever started them, each knows its place by environment
variables before Fabric is there, which is read here and nowhere else.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

from maskwright.errors import UserError
from maskwright.memory import main_memory_mb
from maskwright.plan import Machine, Plan
from maskwright.scale.gang import BY_RAY, together

MEETING = timedelta(minutes=30)
"""So long processes wait for each other to come: one that was refused, or whose machine has failed, never will."""

PATIENCE = timedelta(days=2)
"""So long they wait for the first one later: it scores the validation photos alone, which may take hours."""


@dataclass(frozen=True)
class Place:
    """A process among those that were started together.

    Args:
        rank: From 0; the first one speaks and writes.
        world: How many there are.
        machines: On how many machines.
        beside: How many of them are on this machine.
        by: Who started them: `torchrun`, `SLURM`, `Ray`; empty if nobody did, and this is the only one.
        again: Whether they are known to be started again: after a failure, or since the job was put back into the
            queue. torchrun does not say so where processes have come or gone, nor on a machine that came later.
        job: Of torchrun or SLURM, the same whenever it starts them again; empty if it has no name of its own. Of a
            torchrun without a name, the folder that it keeps on its machine, so that it is another job elsewhere.
            Ray's processes have that of the one that asked for them.
        task: Of SLURM: whether srun has started this process, as it has the others. If not, it is the job's script,
            which runs once; `world` are those that srun would start.
    """

    rank: int = 0
    world: int = 1
    machines: int = 1
    beside: int = 1
    by: str = ""
    again: bool = False
    job: str = ""
    task: bool = False

    @property
    def several(self) -> bool:
        """Tell whether others do what this process does."""
        return self.world > 1 and (self.task or self.by != "SLURM")

    @property
    def first(self) -> bool:
        """Tell whether this process speaks and writes."""
        return self.rank == 0


def place() -> Place:
    """Read this process's place from its environment (Ray's workers are given what torchrun gives)."""
    have = os.environ
    if "TORCHELASTIC_RUN_ID" in have:
        name, by_ray = have["TORCHELASTIC_RUN_ID"], BY_RAY in have
        job = _job_of_torchrun(name, have.get("TORCHELASTIC_ERROR_FILE", ""))
        if by_ray:
            job = "" if name == "none" else name
        return Place(
            rank=int(have["RANK"]),
            world=int(have["WORLD_SIZE"]),
            machines=int(have.get("GROUP_WORLD_SIZE", "1")),
            beside=int(have.get("LOCAL_WORLD_SIZE", "1")),
            by="Ray" if by_ray else "torchrun",
            again=int(have.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0,
            job=job,
        )
    # In a shell of its own (salloc) SLURM sets the same variables; Fabric tells by the job's name, as we do.
    if "SLURM_NTASKS" in have and have.get("SLURM_JOB_NAME") not in {"bash", "interactive"}:
        return Place(
            rank=int(have.get("SLURM_PROCID", "0")),
            world=int(have["SLURM_NTASKS"]),
            machines=int(have.get("SLURM_NNODES", "1")),
            beside=math.ceil(int(have["SLURM_NTASKS"]) / int(have.get("SLURM_NNODES", "1"))),
            by="SLURM",
            again=int(have.get("SLURM_RESTART_COUNT", "0")) > 0,
            job=f"SLURM {have['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in have else "",
            task="SLURM_STEP_NUM_TASKS" in have,  # srun alone says so
        )
    return Place()


def _job_of_torchrun(name: str, error_file: str) -> str:
    """Return what tells a torchrun from others, however often it starts its processes.

    Args:
        name: Its run id; `none` is what all have that were given none.
        error_file: Where a process notes its failure: a file in a new folder of torchrun's, which all attempts share.

    Example:
        >>> _job_of_torchrun("17", ""), _job_of_torchrun("none", "/tmp/torchelastic_e3/none_x8/attempt_1/0/error.json")
        ('torchrun 17', 'torchrun torchelastic_e3/none_x8')
    """
    if name != "none":
        return f"torchrun {name}"
    parts = Path(error_file).parts
    return f"torchrun {'/'.join(parts[-5:-3])}" if len(parts) > 4 and parts[-3].startswith("attempt_") else ""


def this_machine() -> Machine:
    """Look at what there is to train on."""
    memory = main_memory_mb()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = place()
    started, beside = (here.world, here.beside) if here.by else (0, 0)
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)  # what Fabric takes for it
    if torch.cuda.is_available():
        return Machine(
            "cuda",
            torch.cuda.device_count(),
            torch.cuda.get_device_name(),
            cores,
            memory,
            torch.cuda.is_bf16_supported(including_emulation=False),
            started,
            beside,
            interactive,
        )
    bf16 = bool(torch.cpu._is_amx_tile_supported())
    return Machine("cpu", 1, f"no GPU; {cores} CPU cores", cores, memory, bf16, started, beside, interactive)


def refuse_processes(made: Plan, machine: Machine) -> None:
    """Refuse a plan that the processes or the GPUs are not there for, before anything is done.

    Raises:
        UserError: If this is a notebook or the like, which can start no processes; if others have started another
            number than the plan has; or if there are not so many GPUs.
    """
    devices, here = made.settings.devices or 1, place()
    if devices > 1 and machine.interactive and not machine.started:
        raise UserError(
            "a notebook cannot start processes to train together",
            [f"devices is {devices}, and this is a notebook or an interactive Python"],
            f"devices=1; or in a terminal: maskwright train DATA -o RUN --devices {devices}",
        )
    _refuse_another_number(made, here)
    if machine.device == "cuda" and devices // here.machines > machine.count:
        gpus = f"{machine.count} GPU{'s' if machine.count > 1 else ''}"
        raise UserError(
            "every device of a training is a GPU of its own",
            [f"{devices // here.machines} devices on this machine, which has {gpus} for this process ({machine.name})"],
            f"start {machine.count} of them per machine, or let each see all of its GPUs"
            if here.by
            else f"--devices {machine.count}",
        )


def _refuse_another_number(made: Plan, here: Place) -> None:
    devices = made.settings.devices or 1
    if here.by and here.world != devices:
        raise UserError(
            "as many processes must train together as the plan has",
            [f"{here.by} started {here.world}, the plan has {devices} devices ({made.reasons['devices'].why})"],
            f"leave --devices out, or: --devices {here.world}",
        )


def asks_ray(on: str | None, here: Place) -> bool:
    """Tell whether this process has the work done on Ray: if the user says so, unless Ray has started it for that.

    Args:
        on: Where the work is done.
        here: Of this process.

    Raises:
        UserError: If others would ask for the same work.
    """
    if on != "ray" or here.by == "Ray":
        return False
    if here.several:
        raise UserError(
            "Ray starts the processes that train together, so one alone may ask for them",
            [f"--on ray, and {here.by} started {here.world} processes"],
            f"start one, or train in those of {here.by}: --on here",
        )
    return True


def memory_limit_mb(machine: Machine) -> int:
    """Return the memory that a training may use in MB: of the GPU, or of the machine or the container it runs in."""
    if machine.device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory // 2**20)
    return machine.memory_mb


def ray_machine(processes: int | None) -> Machine:
    """Look at what there is to train on in the Ray cluster: start the processes, and ask the first one.

    Args:
        processes: How many; `None`: as many as a training would have.

    Raises:
        UserError: If Ray is not installed, cannot be started or reached, or has no room.
    """
    machine, _ = together(_seen, processes)
    return machine


def _seen(_say: Callable[[str], None]) -> Machine:
    return this_machine()


class InnerPrecision(MixedPrecision):
    """16 bits inside the network only: what goes in stays as it is, since a corner at 300 px is off by one in bf16."""

    def convert_input(self, data: Any) -> Any:
        """Return it."""
        return data

    def unscale_gradients(self, optimizer: Any) -> None:
        """Take the scaler's scale out of the gradients, before they are clipped.

        Fabric refuses fused optimisers, which can do so themselves; torch's scaler hands them no scale after this.
        """
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a scaler in this state; with a new one, if there is none."""
        if self.scaler is not None:
            self.scaler = torch.amp.GradScaler(self.device)
            if state_dict:
                self.scaler.load_state_dict(state_dict)


def make_fabric(made: Plan, machine: Machine) -> Fabric:
    """Return the Fabric of a plan; with several processes, `launch` starts them unless they are there.

    Raises:
        UserError: If others have started another number of processes than the plan has.
    """
    devices, here = made.settings.devices or 1, place()
    _refuse_another_number(made, here)
    # Started by us, processes are spawned; those of others are there already.
    several = DDPStrategy(timeout=MEETING, start_method="popen" if here.by else "spawn")
    kinds: Any = {"bf16": "bf16-mixed", "16": "16-mixed"}
    kind = kinds.get(made.settings.precision)  # 32 bits are what Fabric takes of itself
    return Fabric(
        accelerator="cuda" if machine.device == "cuda" else "cpu",
        devices=devices // here.machines,
        num_nodes=here.machines,
        strategy="auto" if devices == 1 else several,
        plugins=InnerPrecision(kind, machine.device) if kind else None,
    )


def meet(fabric: Fabric) -> None:
    """Wait for the other processes that somebody else has started to train together with this one.

    Raises:
        UserError: If they do not come within `MEETING`.
    """
    here = place()
    try:
        fabric.launch()
    except (torch.distributed.DistStoreError, torch.distributed.DistNetworkError) as error:
        why = str(error).splitlines()[0]
        raise UserError(
            "the processes that train together have not all come",
            [f"process {here.rank} of the {here.world} that {here.by} started waited for the others: {why}"],
            "look at what the others said, put that right, and start them all again",
        ) from None


def be_patient() -> None:
    """Let the processes, now that they have met, wait for each other for `PATIENCE`."""
    known = torch.distributed
    # Releases of torch before 2.14 have it under another name.
    set_timeout = getattr(known, "set_timeout", None) or known.distributed_c10d._set_pg_timeout
    set_timeout(PATIENCE)
