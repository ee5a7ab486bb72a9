"""What a training writes about itself costs it nothing: lines wait where there is no room."""

import errno
import json
import os
import resource
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from maskwright.log import Log, clock, unfailing


def line(step, kind="event"):
    return {"kind": kind, "step": step, "what": "photo", "text": "gone"}


NUMBERS = {"kind": "validation", "step": 4, "metrics": {"segm/AP": 0.5}}


def steps(folder):
    return [json.loads(text)["step"] for text in (folder / "log.jsonl").read_text().splitlines()]


def full(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def room(size):
    """Let no file grow beyond a size in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_log_lines_after_the_checkpoint_are_written_anew(tmp_path):
    lines = [json.dumps({"kind": "step", "step": n}) + "\n" for n in (2, 4, 6)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"kind": "st')  # the machine went down
    Log(tmp_path, 4, True)
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:2])


def test_lines_wait_while_there_is_no_room_which_is_told_once(tmp_path):
    path, said = tmp_path / "log.jsonl", []
    with Log(tmp_path, 0, True, tell=said.append) as log:
        path.symlink_to("/dev/full")
        log.write(line(1))
        log.write(line(2))
        path.unlink()  # there is room again
        log.write(line(3))
        assert steps(tmp_path) == [1, 2, 3]
    assert said == [
        f"warning: {path} cannot be written: No space left on device; its lines wait until they can be, and the"
        " training goes on"
    ]


def test_a_line_is_written_whole_or_not_at_all(tmp_path):
    path, said = tmp_path / "log.jsonl", []
    with Log(tmp_path, 0, True, tell=said.append) as log:
        log.write(line(1))
        whole = path.read_bytes()
        with room(len(whole) + 5):  # a part of the next one
            log.write(line(2))
            assert path.read_bytes() == whole
        assert len(said) == 1
    assert steps(tmp_path) == [1, 2]  # at the end, if not before
    assert len(said) == 1


def test_lines_that_never_found_room_are_counted(tmp_path):
    path, said = tmp_path / "log.jsonl", []
    path.symlink_to("/dev/full")
    with Log(tmp_path, 0, True, tell=said.append) as log:
        log.write(line(1))
        log.write(line(2))
    assert said[1:] == [f"warning: 2 lines of {path} could not be written"]


def test_a_rewind_goes_through_the_lines_that_wait_too(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(tmp_path, 0, True) as log:
        log.write(line(1))
        kept = path.rename(tmp_path / "kept")
        path.symlink_to("/dev/full")
        log.write(line(2))
        log.write(NUMBERS)
        log.write(line(5))
        log.rewind(3)
        path.unlink()
        kept.rename(path)
        log.write(line(3))
    assert steps(tmp_path) == [1, 2, 3, 3]


def test_a_rewind_keeps_events_as_of_the_step_that_it_goes_back_to(tmp_path):
    with Log(tmp_path, 0, True) as log:
        for entry in (line(2), NUMBERS, line(4) | {"text": "one is gone"}, line(5) | {"text": "two is gone"}):
            log.write(entry)
        log.rewind(3)
        log.write(line(3) | {"what": "rewind"})
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["kind"], e["step"], e["what"], e["text"]) for e in lines] == [
        ("event", 2, "photo", "gone"),
        ("event", 3, "photo", "one is gone"),
        ("event", 3, "photo", "two is gone"),
        ("event", 3, "rewind", "gone"),
    ]


def test_a_rewind_that_finds_no_room_lets_events_wait(tmp_path, monkeypatch):
    with Log(tmp_path, 0, True) as log:
        log.write(line(2))
        log.write(line(4))
        with monkeypatch.context() as patch:
            patch.setattr("maskwright.log._append", full)
            log.rewind(3)
        assert steps(tmp_path) == [2]
        log.write(line(3))
        assert steps(tmp_path) == [2, 3, 3]


def test_curves_that_cannot_be_drawn_are_told_once_and_cost_no_line(tmp_path):
    said = []
    with Log(tmp_path, 0, True, tell=said.append) as log:
        log.board.close()
        log.board = SimpleNamespace(add_scalar=full, close=full)
        for step in (1, 2):
            log.write({"kind": "validation", "step": step, "metrics": {"segm/AP": 0.5}})
    assert steps(tmp_path) == [1, 2]
    assert said == [
        f"warning: {tmp_path / 'tensorboard'} cannot be written: No space left on device; the curves end here, and the"
        " training goes on"
    ]


def test_what_is_said_into_a_full_disk_is_lost_and_nothing_else():
    unfailing(full)("a line")
    said = []
    unfailing(said.append)("another")
    assert said == ["another"]

    def gone(_text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        unfailing(gone)("nobody reads")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
