"""Work in this process, in worker processes and on Ray gives the same results in the same order, whoever dies."""

import contextlib
import gc
import importlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskwright
from maskwright import scale
from maskwright.errors import Problem, UserError
from maskwright.scale import cluster, crew, pace, worker

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
unix = pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")


def square(number):
    return number * number


def slow_square(number):
    time.sleep(0.002)
    return number * number


def where(_):
    time.sleep(0.002)
    return os.getpid()


def noisy(number):
    print("a line on stdout")
    return number


def big(number):
    return bytes([number % 256]) * 300_000


def echo(value):
    return value


def total_of(numbers):
    time.sleep(0.001 * len(numbers))
    return sum(numbers)


def wrong_from(first, number):
    if number >= first:
        raise UserError([Problem("a number is too large", (f"{number}",), "take a smaller one")])
    return number


def divide(number):
    return 1 // (5 - number)


def not_portable(number):
    class Local(Exception):
        pass

    raise Local(f"at {number}")


def lambda_result(number):
    return lambda: number


def deadly(folder, parent, number):
    """Kill the first worker process that comes to number 30, or past it."""
    marker = Path(folder) / "killed"
    if number >= 30 and os.getpid() != parent and not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    return number * number


def always_deadly(parent, number):
    if os.getpid() != parent and number >= 30:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    return number


@pytest.fixture
def eager(monkeypatch):
    """Share with worker processes after the first piece, in small pieces."""
    ready = crew.Crew.ready

    def wait(workers):
        while not (ready(workers) or workers.failed()):
            time.sleep(0.01)
        return ready(workers)

    monkeypatch.setattr(crew.Crew, "ready", wait)
    monkeypatch.setattr(scale, "PATIENCE_S", 0.0)
    monkeypatch.setitem(pace.PIECE_S, "here", 0.02)


def _children_of(pid):
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads end while they are listed
            found += (thread / "children").read_text().split()
    return found


@pytest.fixture
def children():
    """A call of it returns the processes that the test has started and that have not been waited for.

    Python keeps some of its own for the rest of its life, such as `multiprocessing`'s resource tracker.
    """
    before = set(_children_of(os.getpid()))
    return lambda: [pid for pid in _children_of(os.getpid()) if pid not in before]


def test_few_items_are_done_in_this_process():
    assert set(scale.each(where, range(5), workers=4)) == {os.getpid()}


@given(st.lists(st.integers()))
def test_results_are_those_of_map(numbers):
    assert list(scale.each(square, numbers)) == list(map(square, numbers))


def test_one_worker_is_this_process(eager):
    assert set(scale.each(where, range(50), workers=1)) == {os.getpid()}


def test_many_items_are_done_in_worker_processes_in_order(eager, children):
    results = list(scale.each(where, range(300), workers=2))
    assert len(results) == 300
    assert results[0] == os.getpid()
    assert len(set(results)) == 2  # this process works too
    assert list(scale.each(slow_square, range(300), workers=2)) == [n * n for n in range(300)]
    assert children() == []


def test_work_is_taken_over_only_when_it_has_proven_long(monkeypatch):
    monkeypatch.setattr(crew, "Crew", None)  # starting one would fail
    assert list(scale.each(square, range(10_000), workers=2))[-1] == 9999**2
    with pytest.raises(TypeError, match="not callable"):
        list(scale.each(slow_square, range(1000), workers=2))


def test_items_are_taken_only_as_needed(eager):
    taken = []
    items = (taken.append(n) or n for n in count())
    results = scale.each(slow_square, items, workers=2)
    assert list(islice(results, 300)) == [n * n for n in range(300)]
    results.close()
    most = 300 + 2 * crew.WINDOW * 0.02 / 0.002 * 2
    assert 300 <= len(taken) <= most


def test_large_items_and_results_do_not_block(eager):
    assert [len(r) for r in scale.each(big, range(200), workers=2)] == [300_000] * 200
    blob = bytes(700_000)
    assert all(r == blob for r in scale.each(echo, [blob] * 150, workers=2))


def test_what_the_function_prints_goes_to_stderr(eager, capfd):
    assert list(scale.each(partial(_then_sleep, noisy), range(100), workers=2)) == list(range(100))
    out, err = capfd.readouterr()
    assert "a line on stdout" in out  # from this process
    assert "a line on stdout" in err  # from the workers


def _then_sleep(function, item):
    time.sleep(0.002)
    return function(item)


def test_a_user_error_arrives_as_it_is_after_the_results_before_it(eager, children):
    seen = []
    with pytest.raises(UserError) as caught:
        seen.extend(scale.each(partial(_then_sleep, partial(wrong_from, 250)), range(300), workers=2))
    assert seen == list(range(250))
    assert caught.value.problems == (Problem("a number is too large", ("250",), "take a smaller one"),)
    assert str(caught.value) == "a number is too large\n  250\nfix: take a smaller one"
    assert children() == []


def test_a_user_error_survives_pickling():
    error = UserError("two", ["a", "b"], "mend")
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, str(again)) == (error.problems, str(error))


class _Elsewhere:
    """Pickles as a function of a module that no worker has."""

    def __reduce__(self):
        return importlib.import_module, ("elsewhere",)

    def __call__(self, item):
        return item


no_such_module = _Elsewhere()


def answer(function, items):
    return pickle.loads(pace.do_packed(function, pace.packed(items, False)))


def test_other_errors_keep_their_type_and_tell_where_they_were_raised():
    results, error, seconds = answer(divide, [3, 4, 5, 6])
    assert results == [0, 1]
    assert isinstance(error, ZeroDivisionError)
    assert "return 1 // (5 - number)" in error.__notes__[0]
    assert seconds >= 0


def test_errors_and_results_that_cannot_be_sent_are_told_in_words():
    _, error, _ = answer(not_portable, [1])
    assert isinstance(error, RuntimeError)
    assert "Local: at 1" in str(error)
    _, error, _ = answer(lambda_result, [1])
    assert "lambda" in str(error)


def test_a_function_of_the_program_itself_is_refused():
    def ours(number):
        return number

    ours.__module__, ours.__qualname__ = "__main__", "ours"
    sys.modules["__main__"].ours = ours
    try:
        with pytest.raises(TypeError, match="worker processes need it in a module"):
            scale.each(partial(ours), [1])
    finally:
        del sys.modules["__main__"].ours


@unix
def test_the_work_of_a_killed_worker_is_done_again(eager, tmp_path, children):
    said = []
    results = scale.each(partial(deadly, str(tmp_path), os.getpid()), range(300), workers=2, say=said.append)
    assert list(results) == [n * n for n in range(300)]
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    assert said == ["note: a worker process was killed (SIGKILL); another does its work again"]
    assert children() == []


@unix
def test_work_at_which_workers_keep_dying_is_given_up(eager, children):
    with pytest.raises(UserError) as caught:
        list(scale.each(partial(always_deadly, os.getpid()), range(100), workers=2))
    assert str(caught.value).startswith(
        "worker processes were killed, likely because the machine ran out of memory\n  3 of 3 at the same work ("
    )
    assert str(caught.value).endswith(
        " items): the last one was killed (SIGKILL)\n"
        "fix: close other programs, or use fewer cores (on Linux: taskset -c 0 maskwright ...)"
    )
    assert children() == []


def test_without_worker_processes_the_work_is_done_here_and_said(eager, monkeypatch):
    monkeypatch.setattr(crew, "PROGRAM", "raise SystemExit(3)")
    said = []
    assert set(scale.each(where, range(300), workers=2, say=said.append)) == {os.getpid()}
    assert said == ["note: worker processes could not be started; the work is done in one process, and takes longer"]


def test_what_is_printed_before_a_worker_is_ready_does_no_harm(eager, monkeypatch):
    monkeypatch.setattr(crew, "PROGRAM", "print('hello from', end=' ', flush=True)\n" + worker.PROGRAM)
    assert list(scale.each(slow_square, range(100), workers=2)) == [n * n for n in range(100)]


def test_an_answer_that_cannot_be_held_is_an_error(eager, monkeypatch, children):
    def no_memory(pipe):
        answer = receive(pipe)
        if len(answer) > 100_000:
            raise MemoryError("too large an answer")
        return answer

    receive = crew.receive
    monkeypatch.setattr(crew, "receive", no_memory)
    with pytest.raises(MemoryError, match="too large an answer"):
        list(scale.each(big, range(50), workers=2))
    assert children() == []


def test_a_function_that_workers_cannot_load_is_an_error(eager, monkeypatch):
    elsewhere = worker.PROGRAM.replace("json.loads(sys.argv.pop(1))", repr(_own_path()))
    monkeypatch.setattr(crew, "PROGRAM", elsewhere)
    with pytest.raises(ModuleNotFoundError, match="No module named 'test_scale'"):
        list(scale.each(where, range(200), workers=2))


def _own_path():
    return [str(Path(maskwright.__file__).parents[1]), *[p for p in sys.path if "tests" not in p]]


def test_several_calls_share_the_worker_processes(eager, children):
    with scale.at("here", workers=2) as every:
        first = set(every(where, range(200))) - {os.getpid()}
        workers = {int(pid) for pid in children()}
        second = set(every(where, range(200))) - {os.getpid()}
        assert len(workers) == 1
        # On a busy machine this process may do all the work of a call, but no other one ever does.
        assert first <= workers
        assert second <= workers
        assert {int(pid) for pid in children()} == workers
        assert list(every(slow_square, range(300))) == [n * n for n in range(300)]
        assert list(every(slow_square, every(slow_square, range(300)))) == [n**4 for n in range(300)]
        with pytest.raises(UserError, match="a number is too large\n  200"):
            list(every(partial(_then_sleep, partial(wrong_from, 200)), range(300)))
        assert next(every(slow_square, count(7))) == 49  # the rest is not wanted
        assert list(every(slow_square, range(300))) == [n * n for n in range(300)]
        with pytest.raises(ZeroDivisionError):
            list(every(fails_to_load, range(300)))
    assert children() == []


class _Unloadable:
    """Cannot be loaded in another process."""

    def __reduce__(self):
        return divide, (5,)

    def __call__(self, item):
        time.sleep(0.002)
        return item


fails_to_load = _Unloadable()


def test_results_that_nobody_wants_any_more_leave_no_process(eager, children):
    results = scale.each(slow_square, count(), workers=2)
    assert next(islice(results, 100, None)) == 100 * 100
    assert len(children()) == 1
    del results
    gc.collect()
    assert children() == []


PROGRAM = """
    import sys, time
    from maskwright import scale
    scale.PATIENCE_S = 0.0
    print("started", flush=True)
    for _ in scale.each(time.sleep, iter(lambda: 0.002, None), workers=2):
        pass
"""


def run_unguarded(tmp_path):
    """Start a program that has no `if __name__ == "__main__"`, and wait until its workers are at work."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(maskwright.__file__).parents[1])}
    program = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 20
    while not (workers := _children_of(program.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    return program, workers


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_an_interrupted_program_leaves_no_process(tmp_path, name):
    program, workers = run_unguarded(tmp_path)
    assert len(workers) == 1
    if name == "SIGINT":
        os.killpg(program.pid, signal.SIGINT)  # as Ctrl-C does: the workers get it too
    else:
        os.kill(program.pid, signal.SIGKILL)
    out, err = program.communicate(timeout=20)
    assert out == "started\n"  # once: workers do not run the program again
    assert err.count("Traceback") == (name == "SIGINT")
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def test_the_pace_keeps_pieces_short_and_small(monkeypatch):
    monkeypatch.setitem(pace.PIECE_S, "here", 0.1)
    some = pace.Pace("here")
    assert some.items() == 1
    some.learn(2, 0.002, 200)
    assert some.items() == 2 * pace.GROWTH
    some.learn(10, 0.199, 1000)
    assert some.items() == 9
    some.learn(10, 0.3, 1000)
    assert some.items() == 4
    some.learn(1, 0.00001, 40_000_000)
    assert some.items() == 1
    some = pace.Pace("here")
    some.learn(10, 0.0, 10)
    assert some.items() == 40
    some.learn(pace.MOST_ITEMS, 0.0, 10)
    assert some.items() == pace.MOST_ITEMS


def test_the_last_pieces_are_small_so_that_all_end_together():
    some = pace.Pace("here", workers=2)
    some.learn(100, 0.01, 100)  # 0.1 ms an item
    assert some.items() == 400
    assert some.items(left=400) == 100
    assert some.items(left=4) == 20  # but not so small that sending takes longer


def test_items_know_how_many_are_left():
    some = pace.Items([1, 2, 3])
    assert (some.take(2), some.left) == ([1, 2], 1)
    assert (some.take(2), some.left) == ([3], 0)
    assert pace.Items(iter(lambda: 0, None)).left == -1


def test_pieces_go_to_the_function_as_lists(eager):
    with scale.at("here", workers=2) as every:
        sums = list(every.pieces(total_of, range(500)))
        assert sum(sums) == sum(range(500))
        assert len(sums) > 1


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError) as caught:
        list(scale.each(square, [1], on="ray"))
    assert str(caught.value) == (
        "Ray is not installed\n  --on ray needs it\nfix: pip install 'maskwright[ray]', or: --on here"
    )


class Nodes:
    """Stands for Ray, of which only the machines are asked for."""

    def __init__(self, **alive):
        self.alive = alive

    def remote(self, **_):
        return lambda function: function

    def nodes(self):
        return [{"NodeManagerHostname": name, "Alive": alive} for name, alive in self.alive.items()]


def test_a_cluster_is_elsewhere_if_another_machine_works_in_it(monkeypatch):
    monkeypatch.setattr(cluster.socket, "gethostname", lambda: "here")
    with scale.at("here") as every:
        assert not every.elsewhere()
    assert not cluster.Ray(Nodes(here=True, gone=False), None).elsewhere()
    assert cluster.Ray(Nodes(here=True, there=True), None).elsewhere()
    assert cluster.Ray(Nodes(there=True), None).elsewhere()


@needs_ray
def test_a_cluster_that_is_not_there_is_said(monkeypatch):
    ray = pytest.importorskip("ray")

    def fail(**_):
        raise ConnectionError("nobody listens\nat that port")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError) as caught:
        list(scale.each(square, [1], on="ray"))
    assert str(caught.value) == (
        "the Ray cluster cannot be reached\n  RAY_ADDRESS=10.0.0.1:6379: nobody listens\n"
        "fix: start it (ray start --head), or unset RAY_ADDRESS to work on this machine"
    )
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(UserError) as caught:
        list(scale.each(square, [1], on="ray"))
    assert str(caught.value) == "Ray cannot be started\n  nobody listens\nfix: do it on this machine: --on here"


@needs_ray
def test_ray_gives_what_here_gives_whoever_dies(tmp_path, monkeypatch):
    """One test, since starting Ray takes seconds."""
    ray = pytest.importorskip("ray")
    monkeypatch.setitem(pace.PIECE_S, "ray", 0.05)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # Ray's workers must find this module
    monkeypatch.setenv("RAY_worker_niceness", "0")  # not 15, which beside other tests is slow
    with scale.at("ray", workers=2) as every:
        assert ray.cluster_resources()["CPU"] == 2
        assert not every.elsewhere()
        assert list(scale.each(slow_square, range(300), on="ray")) == list(scale.each(slow_square, range(300)))

        taken = []
        items = (taken.append(n) or n for n in count())
        assert list(islice(scale.each(slow_square, items, on="ray"), 100)) == [n * n for n in range(100)]
        assert len(taken) < 1000

        killed = scale.each(partial(deadly, str(tmp_path), os.getpid()), range(300), on="ray")
        assert list(killed) == [n * n for n in range(300)]
        assert int((tmp_path / "killed").read_text()) != os.getpid()

        seen = []
        with pytest.raises(UserError, match="a number is too large\n  70\nfix: take a smaller one"):
            seen.extend(scale.each(partial(wrong_from, 70), range(90), on="ray"))
        assert seen == list(range(70))

        with pytest.raises(UserError) as caught:
            list(scale.each(no_such_module, [40], on="ray"))
        assert str(caught.value) == (
            "Ray could not finish a piece of work\n  1 items: ModuleNotFoundError: No module named 'elsewhere'\n"
            "fix: install the same version of maskwright on every machine of the cluster"
        )

        assert ray.is_initialized()
    assert not ray.is_initialized()


@needs_ray
def test_a_piece_at_which_ray_workers_keep_dying_is_said():
    ray = pytest.importorskip("ray")
    error = cluster._ray_failed(ray, ray.exceptions.WorkerCrashedError(), 40)
    assert str(error).startswith("Ray could not finish a piece of work\n  40 items: WorkerCrashedError: ")
    assert str(error).endswith(
        "fix: if workers were killed, give the machines more memory or fewer CPUs each (ray start --num-cpus N)"
    )
