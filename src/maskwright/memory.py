"""Memory: how much there is, and how the C library is told to handle it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells what a container may use, in bytes: cgroups of version 2 and 1."""

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
    """Return the main memory in MB that this process may use: the machine's, or that of the container it runs in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max": no limit
            limits.append(int(text))
    return min(limits) // 2**20
