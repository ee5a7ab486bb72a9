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


@pytest.mark.parametrize("content", ["max", str(2**63 - 4096), ""])
def test_without_a_limit_the_memory_is_the_machines(monkeypatch, tmp_path, content):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    (tmp_path / "limit").write_text(content)
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (str(tmp_path / "none"), str(tmp_path / "limit")))
    assert memory.main_memory_mb() == machine


def test_a_container_has_the_memory_that_it_was_given(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text(f"{300 * 2**20}\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (str(tmp_path / "none"), str(tmp_path / "limit")))
    assert memory.main_memory_mb() == 300
