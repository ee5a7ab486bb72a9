"""Name the machine and the versions that a benchmark ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """Return one line: processor, cores, instruction sets that matter, Python and the main libraries."""
    info = Path("/proc/cpuinfo")
    name, flags = platform.processor() or platform.machine(), ""
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {k.strip(): v.strip() for k, v in lines.items()}
        name = fields.get("model name", name)
        known = set(fields.get("flags", "").split())
        flags = " ".join(f for f in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if f in known)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = " ".join(f"{package} {version(package)}" for package in ("torch", "torchvision", "numpy", "hotcoco"))
    return f"machine: {name}, {cores} cores, {flags}; Python {platform.python_version()}, {versions}"
