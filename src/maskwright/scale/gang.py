"""Processes that do one piece of work together, each a part of it: on a Ray cluster.

Ray starts them and tells them about each other by the environment variables that torchrun sets; what they do with
these is not known here. So whatever runs under torchrun runs on Ray too.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from maskwright.errors import UserError
from maskwright.scale import _silent, at
from maskwright.scale.pace import code_of, portable

R = TypeVar("R")
Say = Callable[[str], None]

BY_RAY = "MASKWRIGHT_STARTED_BY_RAY"
"""The environment variable that tells these processes from those of torchrun."""

POLL_S = 0.3
"""Seconds between two looks at what the first process has said."""

START_S = 120.0
"""Seconds that Ray is given to find room for all processes."""

ALIVE_S = 10.0
"""Seconds in which a process answers whether it lives: Ray may take some to see that one is gone."""

CPU = 10_000
"""Ray counts CPUs in whole ones, or below one to so many parts."""


class ProcessesDiedError(UserError):
    """Some of the processes are gone; those that are left could do the work.

    Attributes:
        left: How many are left: those that still answer.
    """

    left = 0


def together(
    function: Callable[[Say], R], processes: int | None, *, say: Say | None = None, job: str = ""
) -> tuple[R, int]:
    """Call a function once in each of several processes of a Ray cluster, at the same time.

    Where the cluster has GPUs, each process gets one of its own; the machine that asks may have none.

    Args:
        function: A function of a module (or a `functools.partial` of one); it is given what to say lines with, which
            arrive here from the first process alone. What it prints is not shown.
        processes: How many; `None`: one per GPU of the cluster, or one per machine if it has none.
        say: Called with the lines.
        job: The name that the processes are told as torchrun's; empty: none.

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

        have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [(node.get("CPU", 0.0), int(node.get("GPU", 0))) for node in have]
        gpus = sum(gpu for _, gpu in machines)
        count = processes or gpus or len(machines) or 1
        cpus = cpus_each(machines, count)
        kind: Any = ray.remote(num_cpus=cpus, num_gpus=1 if gpus else 0, max_concurrency=2)(_Member)
        members = [kind.remote() for _ in range(count)]
        try:
            return _run(ray, members, code, say or _silent, job or "none"), count
        finally:
            for member in members:
                with contextlib.suppress(Exception):
                    ray.kill(member)


def cpus_each(machines: Sequence[tuple[float, int]], count: int) -> float:
    """Return the most CPUs that each of some processes can have, so that there is room for all of them.

    Args:
        machines: Of each, its CPUs and GPUs; where any has a GPU, each process takes one.
        count: How many processes.

    Returns:
        A whole number, or a part of one. Where there is no room for all, an equal share, for which Ray may wait.

    Example:
        >>> cpus_each([(8, 0), (8, 0)], 3), cpus_each([(8, 1), (4, 3)], 4), cpus_each([(2, 0)], 3)
        (4.0, 1.0, 0.6666)
    """
    parts = [(int(cpus * CPU), gpus) for cpus, gpus in machines]
    most = [gpus if any(gpus for _, gpus in machines) else count for _, gpus in machines]

    def whole(share: int) -> int:
        return share // CPU * CPU if share >= CPU else share

    shares = {whole(cpus // number) for cpus, _ in parts for number in range(1, count + 1)} - {0}
    for share in sorted(shares, reverse=True):
        if sum(min(cpus // share, limit) for (cpus, _), limit in zip(parts, most, strict=True)) >= count:
            return share / CPU
    return whole(sum(cpus for cpus, _ in parts) // count) / CPU


def _run(ray: Any, members: list[Any], code: bytes, say: Say, job: str) -> Any:
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
        raise _died(error, _alive(ray, members)[0]) from None
    answers = {
        member.run.remote(code, rank, len(members), homes.count(home), address, port, job): rank
        for rank, (member, home) in enumerate(zip(members, homes, strict=True))
    }
    results: dict[int, Any] = {}
    waiting = list(answers)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        with contextlib.suppress(ray.exceptions.RayError):  # its death is told by its answer
            for line in ray.get(members[0].said.remote()):
                say(line)
        failed: list[Exception] = []
        gone: list[Exception] = []
        for answer in done:
            try:
                result, raised = pickle.loads(ray.get(answer))
            except ray.exceptions.RayError as error:
                gone.append(error)
                continue
            results[answers[answer]] = result
            if raised is not None:
                failed.append(raised)
        if failed or gone:
            raise _cause(ray, members, failed, gone)
    return results[0]


def _cause(ray: Any, members: list[Any], failed: list[Exception], gone: list[Exception]) -> Exception:
    """Return the error of which the others come.

    When a process raises something, its end looks to the others like a death; when one dies, what they wait for breaks
    off, and they may raise that before Ray knows of the death. So what the user must change comes first, then deaths.
    """
    for error in failed:
        if isinstance(error, UserError):
            return error
    left, silent = _alive(ray, members)
    if not gone and left == len(members):
        return failed[0]
    return _died([*gone, *silent, *failed][0], min(left, len(members) - 1))


def _alive(ray: Any, members: list[Any]) -> tuple[int, list[Exception]]:
    """Count the members that answer, and return what Ray says of those that it knows to be gone."""
    asked = [member.address.remote() for member in members]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=ALIVE_S)
    gone: list[Exception] = []
    for answer in answered:
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            gone.append(error)
    return len(answered) - len(gone), gone


def _died(error: Exception, left: int) -> ProcessesDiedError:
    first = str(error).strip().split("\n")[0]
    died = ProcessesDiedError(
        "a process of the Ray cluster died",
        [f"{type(error).__name__}: {first}"],
        "go on: --resume (with fewer processes: --devices N)",
    )
    died.left = left
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

    def run(self, code: bytes, rank: int, world: int, beside: int, address: str, port: int, job: str) -> bytes:
        """Work, and return the pickled result and error."""
        # Each process counts as a machine of its own: it sees the one GPU that Ray gave it, as number 0. How many
        # share the machine is told all the same, since they share its memory.
        os.environ |= {
            BY_RAY: "1",
            "TORCHELASTIC_RUN_ID": job,
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
