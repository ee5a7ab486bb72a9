"""Memory: how much there is, and how the C library is told to handle it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
"""Where Linux tells which control groups this process is in, one per line: `number:controllers:path`."""

LIMITS = {"": Path("/sys/fs/cgroup"), "memory": Path("/sys/fs/cgroup/memory")}
"""Where the groups' folders are: those of version 2, which name no controller, and of version 1."""

LARGE = 8 << 20
"""Bytes of a piece that a large network had better give back."""


def keep_freed_memory(largest: int = 1 << 30) -> None:
    """Tell glibc to keep freed memory for the next piece of work instead of giving it back to the kernel.

    Work on pictures allocates and frees the same large pieces over and over; by default the kernel maps and zeroes each
    anew. That is a fifth of the time of a small network's training step, and as much of reading a mask. Elsewhere than
    on glibc nothing is done.

    Args:
        largest: Larger pieces, in bytes, are given back all the same. A network whose maps are tens of megabytes spends
            long on each, so that clearing them costs it little, and holes of their size between what is in use cost
            half a gigabyte (`benchmarks/r50.py memory`).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return  # another C library, such as musl; its allocator is what it is
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, largest)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def main_memory_mb() -> int:
    """Return the main memory in MB that this process may use.

    That is the machine's, or less where a container, a job of SLURM or a service has less: the least limit of the
    control groups that the process is in and of those around them.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, name in _group_files():
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue  # not mounted, or, seen from inside a container, a path of the machine around it
        if text.isdigit():  # "max": no limit
            limits.append(int(text))
    return min(limits) // 2**20


def _group_files() -> Iterator[tuple[Path, str]]:
    """Yield the folders whose limits hold for this process, and how a limit's file is called there."""
    names = {"": "memory.max", "memory": "memory.limit_in_bytes"}
    for controller, root in LIMITS.items():
        yield root, names[controller]  # where a container sees its own limit, whatever path it is told
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in LIMITS:
                folder = LIMITS[controller]
                for part in Path(path).parts[1:]:
                    folder /= part
                    yield folder, names[controller]
