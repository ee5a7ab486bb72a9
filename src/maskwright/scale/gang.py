"""Processes that do one piece of work together, each a part of it: on a Ray cluster.

Ray starts them and tells them about each other by the environment variables that torchrun sets; what they do with
these is not known here. So whatever runs under torchrun runs on Ray too.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from maskwright.errors import UserError
from maskwright.scale import _silent, at
from maskwright.scale.pace import code_of, portable

R = TypeVar("R")
Say = Callable[[str], None]

POLL_S = 0.3
"""Seconds between two looks at what the first process has said."""

START_S = 120.0
"""Seconds that Ray is given to find room for all processes."""


class ProcessesDiedError(UserError):
    """Some of the processes are gone; those that are left could do the work.

    Attributes:
        left: How many are left.
    """

    left = 0


def together(function: Callable[[Say], R], processes: int | None, *, say: Say | None = None) -> tuple[R, int]:
    """Call a function once in each of several processes of a Ray cluster, at the same time.

    Where the cluster has GPUs, each process gets one of its own; the machine that asks may have none.

    Args:
        function: A function of a module (or a `functools.partial` of one); it is given what to say lines with, which
            arrive here from the first process alone. What it prints is not shown.
        processes: How many; `None`: one per GPU of the cluster, or one per machine if it has none.
        say: Called with the lines.

    Returns:
        What the function returned in the first process, and how many processes there were.

    Raises:
        UserError: If Ray is not installed, cannot be started or reached, or has no room.
        ProcessesDiedError: If a process died.
        Exception: What the function raised in one of them.
    """
    code = code_of(function)
    with at("ray"):
        import ray

        have = ray.cluster_resources()
        gpus, machines = int(have.get("GPU", 0)), sum(1 for node in ray.nodes() if node["Alive"])
        count = processes or gpus or machines or 1
        cpus = have.get("CPU", 1) / count
        cpus = cpus // 1 if cpus >= 1 else cpus * 1e4 // 1 / 1e4  # Ray counts in whole ones, or to four digits
        kind: Any = ray.remote(num_cpus=cpus, num_gpus=1 if gpus else 0, max_concurrency=2)(_Member)
        members = [kind.remote() for _ in range(count)]
        try:
            return _run(ray, members, code, say or _silent), count
        finally:
            for member in members:
                with contextlib.suppress(Exception):
                    ray.kill(member)


def _run(ray: Any, members: list[Any], code: bytes, say: Say) -> Any:
    try:
        address, port = ray.get(members[0].address.remote(), timeout=START_S)
        homes = [home for home, _ in ray.get([member.address.remote() for member in members], timeout=START_S)]
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            "Ray has no room for all processes",
            [f"{len(members)} are wanted; the cluster has {ray.cluster_resources()}"],
            "ask for fewer: --devices N",
        ) from None
    except ray.exceptions.RayError as error:
        raise _died(error, len(members)) from None
    answers = {
        member.run.remote(code, rank, len(members), homes.count(home), address, port): rank
        for rank, (member, home) in enumerate(zip(members, homes, strict=True))
    }
    results: dict[int, Any] = {}
    waiting = list(answers)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        with contextlib.suppress(ray.exceptions.RayError):  # its death is told by its answer
            for line in ray.get(members[0].said.remote()):
                say(line)
        # What the work itself raised comes first: the others die of it.
        failed: list[Exception] = []
        for answer in done:
            try:
                result, raised = pickle.loads(ray.get(answer))
            except ray.exceptions.RayError as gone:
                failed.append(_died(gone, len(members)))
                continue
            results[answers[answer]] = result
            if raised is not None:
                failed.insert(0, raised)
        if failed:
            raise failed[0]
    return results[0]


def _died(error: Exception, members: int) -> ProcessesDiedError:
    first = str(error).strip().split("\n")[0]
    died = ProcessesDiedError(
        "a process of the Ray cluster died",
        [f"{type(error).__name__}: {first}"],
        "go on: --resume (with fewer processes: --devices N)",
    )
    died.left = members - 1
    return died


class _Member:
    """One of the processes, as a Ray actor; one thread works while another says what was said."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def address(self) -> tuple[str, int]:
        """Return this machine's address and a port that is free on it."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return str(ray.util.get_node_ip_address()), int(probe.getsockname()[1])

    def said(self) -> list[str]:
        """Return what was said since the last call."""
        count = len(self._lines)  # the other thread goes on adding
        lines, self._lines[:count] = self._lines[:count], []
        return lines

    def run(self, code: bytes, rank: int, world: int, beside: int, address: str, port: int) -> bytes:
        """Work, and return the pickled result and error."""
        # Each process counts as a machine of its own: it sees the one GPU that Ray gave it, as number 0. How many
        # share the machine is told all the same, since they share its memory.
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "none",  # as torchrun without a name: no other start is this one again
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": str(beside),
            "GROUP_RANK": str(rank),
            "GROUP_WORLD_SIZE": str(world),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        try:
            return pickle.dumps((pickle.loads(code)(self._lines.append), None))
        except Exception as caught:
            return pickle.dumps((None, portable(caught)))
