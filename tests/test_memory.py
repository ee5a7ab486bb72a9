"""Freed memory is kept where the C library can be told so, and nothing happens elsewhere."""

import os
import subprocess
import sys

import pytest

from maskwright import memory

COUNT = """
import resource, sys
import numpy as np
from maskwright.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
if sys.argv[1] == "small":
    keep_freed_memory(1_000_000)
def work():
    for _ in range(50):
        np.ones(4_000_000, dtype=np.uint8)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_the_kernel_is_not_asked_again():
    assert faults("keep") < 0.1 * faults("leave") + 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_larger_pieces_can_be_given_back():
    assert faults("small") > 50 * 4_000_000 / 4096 * 0.9  # each page of each piece, on pages of 4 KB


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail(f"{name} was loaded"))
    assert memory.keep_freed_memory() is None


MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Put a process into control groups; returns a function that writes limits by their paths."""
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "self")
    monkeypatch.setattr(memory, "LIMITS", {"": tmp_path / "v2", "memory": tmp_path / "v1"})

    def write(lines, **limits):
        if lines is not None:
            (tmp_path / "self").write_text(lines)
        for path, content in limits.items():
            folder = tmp_path / path.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            name = "memory.max" if path.startswith("v2") else "memory.limit_in_bytes"
            (folder / name).write_text(content)

    return write


@pytest.mark.parametrize("content", ["max\n", str(2**63 - 4096), ""])
def test_without_a_limit_the_memory_is_the_machines(groups, content):
    groups("0::/\n", v2=content, v1=content)
    assert memory.main_memory_mb() == MACHINE


@pytest.mark.parametrize("lines", [None, "0::/\n", "4:memory:/docker/4f1b\n0::/system.slice/docker-4f1b.scope\n"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_container_has_the_memory_that_it_was_given(groups, lines, version):
    groups(lines, **{version: f"{300 * 2**20}\n"})
    assert memory.main_memory_mb() == 300


def test_a_job_has_the_least_that_a_group_around_it_has(groups):
    lines = "0::/system.slice/job_7/step_0\n"
    groups(lines, v2="max", **{"v2__system.slice": "max", "v2__system.slice__job_7": f"{200 * 2**20}"})
    assert memory.main_memory_mb() == 200


def test_a_group_of_version_1_is_found_by_its_controller(groups):
    lines = "5:cpu,cpuacct:/other\n4:hugetlb,memory:/slurm/job_7\n"
    groups(lines, v1__other="1048576", **{"v1__slurm__job_7": f"{100 * 2**20}"})
    assert memory.main_memory_mb() == 100
