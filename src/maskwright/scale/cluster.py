"""Work in Ray tasks."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from maskwright.errors import UserError
from maskwright.scale.crew import DEATHS, WINDOW
from maskwright.scale.pace import Items, Pace, code_of, do_packed, handed_out, packed

T = TypeVar("T")
R = TypeVar("R")


class Ray:
    """Works in Ray tasks; Ray runs a task again when its worker or machine dies.

    Args:
        ray: The module, started.
        workers: How many CPUs to use; `None`: all that the cluster has.
    """

    def __init__(self, ray: Any, workers: int | None) -> None:
        self._ray = ray
        self._workers = workers
        self._task = ray.remote(num_cpus=1, max_retries=DEATHS)(_ray_work)

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(item)` for every item."""
        return self._each(code_of(function), items, whole=False)

    def pieces(self, function: Callable[[list[T]], R], items: Iterable[T], /) -> Iterator[R]:
        """Yield `function(some items)` for all items, in order, some at a time: as many as take a moment."""
        return self._each(code_of(function), items, whole=True)

    def expect(self, function: Callable[..., Any], count: int, /) -> None:
        """Do nothing: Ray starts its workers itself."""

    def elsewhere(self) -> bool:
        """Tell whether the cluster has another machine than this one."""
        return {node["NodeManagerHostname"] for node in self._ray.nodes() if node["Alive"]} != {socket.gethostname()}

    def _cpus(self) -> int:
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        return max(1, cpus if self._workers is None else min(cpus, self._workers))

    def _each(self, code: bytes, items: Iterable[Any], whole: bool) -> Iterator[Any]:
        some = Items(items)
        function = self._ray.put(code)
        pace = Pace("ray")
        under_way: deque[tuple[Any, int, int]] = deque()
        asked = float("-inf")
        while True:
            if time.monotonic() - asked > 5:  # a cluster grows and shrinks
                pace.workers, asked = self._cpus(), time.monotonic()
            while len(under_way) < pace.pieces(WINDOW):
                taken = some.take(pace.items(some.left))
                if not taken:
                    break
                piece = packed(taken, whole)
                under_way.append((self._task.remote(function, piece), len(taken), len(piece)))
            if not under_way:
                return
            answer, count, sent = under_way.popleft()
            try:
                done = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                raise _ray_failed(self._ray, error, count) from None
            del answer  # or Ray keeps it while its results are used
            yield from handed_out(pickle.loads(done), count, max(sent, len(done)), pace)


def _ray_work(code: bytes, piece: bytes) -> bytes:
    """Do a piece of work as a Ray task."""
    return do_packed(pickle.loads(code), piece)


def start(ray: Any, cpus: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start a Ray of our own on this machine.

    Raises:
        UserError: If there is no cluster at that address, or Ray does not start.
    """
    import logging

    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {}
    if address == "local":
        local = {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": 256_000_000,  # the window is all that is ever in it
        }
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    except Exception as error:  # Ray raises it bare where a node of its own does not come up in time
        first = str(error).strip().split("\n")[0]
        if address == "local":
            raise UserError("Ray cannot be started", [first], "do it on this machine: --on here") from None
        raise UserError(
            "the Ray cluster cannot be reached",
            [f"RAY_ADDRESS={address}: {first}"],
            "start it (ray start --head), or unset RAY_ADDRESS to work on this machine",
        ) from None


def _ray_failed(ray: Any, error: Exception, count: int) -> UserError:
    lines = str(error).strip().split("\n")
    if isinstance(error, ray.exceptions.RayTaskError):  # the function cannot be loaded; its own errors are in answers
        do = "install the same version of maskwright on every machine of the cluster"
        reason = lines[-1]
    else:
        do = "if workers were killed, give the machines more memory or fewer CPUs each (ray start --num-cpus N)"
        reason = f"{type(error).__name__}: {lines[0]}"
    return UserError("Ray could not finish a piece of work", [f"{count:,} items: {reason}"], do)
