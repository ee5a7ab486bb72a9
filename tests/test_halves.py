"""A second process answers, or there is no answer; nothing else can happen."""

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from maskwright import halves
from maskwright.halves import Memory, Second, cores, do

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


@pytest.fixture
def memory():
    memory = Memory()
    yield memory
    memory.close()


@pytest.fixture
def second():
    second = Second("math")
    yield second
    second.close()


def test_memory_is_written_and_read_anywhere(memory):
    assert len(memory) == 0
    assert memory.append(np.array([[1, 2], [3, 4]], dtype=np.int16)) == 0
    assert memory.append(b"tail") == 8
    memory.write(20, b"far")
    assert len(memory) == 23
    assert memory.read(8, 15) == b"tail" + bytes(8) + b"far"
    back = np.zeros((2, 2), dtype=np.int16)
    memory.read_into(0, back)
    assert back.tolist() == [[1, 2], [3, 4]]
    memory.read_into(0, np.zeros((0, 4)))
    memory.cut(9)
    assert memory.read(8, 1) == b"t"
    with pytest.raises(OSError, match="ends before"):
        memory.read(8, 2)


def test_an_array_over_memory_outlives_it():
    memory = Memory()
    memory.append(b"abc")
    array = memory.array(5)
    memory.close()
    assert array.tobytes() == b"abc\0\0"
    array[0] = 7
    assert array[0] == 7
    memory = Memory()
    assert memory.array(0).tolist() == []
    memory.close()


def test_memory_leaves_descriptors_to_others(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(halves, "_MOST_DESCRIPTORS", 0)
    with pytest.raises(OSError, match="open"):
        Memory()
    assert len(os.listdir("/proc/self/fd")) == before


def add(argument, answers, shared):
    shared.write(2, b"from " + str(os.getpid()).encode())
    place = answers.append(np.arange(3))
    return sum(argument), place, os.getpid(), [os.environ[name] for name in halves._ONE_THREAD]


def test_a_second_process_works(second):
    second.ask(add, [1, 2, 3])
    total, place, process, threads = second.answer(60)
    assert total == 6
    assert process not in (os.getpid(), 0)
    assert threads == ["1", "1", "1"]
    found = np.zeros(3, dtype=np.int64)
    second.answers.read_into(place, found)
    assert found.tolist() == [0, 1, 2]
    assert second.shared.read(0, len(second.shared)) == b"\0\0from " + str(process).encode()


def test_an_argument_may_be_larger_than_a_pipe(second):
    second.ask(measure, b"x" * 1_000_000)
    assert second.answer(60) == 1_000_000


def measure(argument, answers, shared):
    print("said on the way")
    print("and to stderr", file=sys.stderr)
    return len(argument)


def fail(argument, answers, shared):
    answers.append(b"half of it")
    raise ValueError(argument)


def die(argument, answers, shared):
    answers.append(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)


def leave(argument, answers, shared):
    answers.append(b"half of it")
    os._exit(0)


def sleep(argument, answers, shared):
    time.sleep(argument)


@pytest.mark.parametrize("work", [fail, die, leave])
def test_one_that_fails_or_dies_gives_no_answer(second, work):
    second.ask(work, 1)
    assert second.answer(60) is None


def test_one_that_takes_too_long_gives_no_answer(second):
    second.ask(sleep, 600)
    started = time.monotonic()
    assert second.answer(0.2) is None
    assert time.monotonic() - started < 60
    assert second._process.poll() == -signal.SIGKILL


def test_one_that_was_stopped_gives_no_answer(second):
    second.ask(measure, b"abc")
    assert second._process.wait(60) == 0
    second.stop()
    assert second.answer(60) is None


def test_one_that_is_dead_can_be_asked(second):
    second._process.kill()
    second._process.wait()
    second.ask(measure, b"abc")
    assert second.answer(60) is None


def test_one_that_was_reaped_by_others_is_known_by_what_it_left(second):
    second.ask(leave, 1)
    os.waitpid(second._process.pid, 0)
    assert second.answer(60) is None  # it is not known how it ended, and it left half an answer


def test_close_ends_it_and_gives_everything_back():
    before = len(os.listdir("/proc/self/fd"))
    second = Second("math")
    second.ask(sleep, 600)
    second.close()
    assert second._process.returncode == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before


def test_there_is_none_where_there_can_be_none(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="No such file"):
        Second("math")
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="what runs this program"):
        Second("math")
    monkeypatch.undo()
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="no memory"):
        Second("math")
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_ends_when_its_parent_is_gone():
    program = (
        "import os, sys; from maskwright.halves import Second; from test_halves import sleep\n"
        "second = Second('math'); second.ask(sleep, 600); print(second._process.pid, flush=True)\n"
        "sys.stdin.read(); os._exit(1)"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **path}
    )
    child = int(parent.stdout.readline())
    assert os.path.exists(f"/proc/{child}")
    parent.communicate()
    until = time.monotonic() + 60
    while time.monotonic() < until and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_work_can_be_done_in_one_process(memory):
    shared = Memory()
    job = pickle.dumps((measure, b"abc"))
    memory.append(job)
    do(len(job), memory, shared)
    assert memory.read(0, len(memory)).endswith(halves._DONE)
    shared.close()


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 1
