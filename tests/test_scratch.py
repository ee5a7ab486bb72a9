"""What waits on disk is what was put there, however much it is and however it is asked for."""

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskwright import scratch
from maskwright.scratch import Column, Scratch


def open_files():
    return len(os.listdir("/proc/self/fd"))


@given(st.lists(st.binary(max_size=40)), st.integers(0, 300), st.integers(0, 300), st.integers(0, 60))
def test_bytes_come_back_from_anywhere(pieces, start, count, small):
    """Law: a scratch reads as the pieces joined, in memory and on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_SMALL", small)
        kept = Scratch()
        for piece in pieces:
            kept.append(piece)
    whole = b"".join(pieces)
    assert len(kept) == len(whole)
    assert kept.read(start, count) == whole[start : start + count]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
def test_its_file_has_no_name_and_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch.tempfile, "tempdir", None)
    before = open_files()
    kept = Scratch()
    kept.append(bytes(scratch._SMALL + 1))
    assert open_files() == before + 1
    assert list(tmp_path.iterdir()) == []
    del kept
    gc.collect()
    assert open_files() == before


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=700), st.data())
def test_a_column_reads_as_an_array(numbers, data):
    """Law: slices, positions and chunks are those of the array of all rows."""
    column, array = Column(np.int16), np.array(numbers, dtype=np.int16)
    cut = data.draw(st.integers(0, len(numbers)))
    column.append(array[:cut])
    column.append(array[cut:])
    places = np.array(data.draw(st.lists(st.integers(0, len(numbers) - 1), max_size=20)), dtype=np.int64)
    start, stop = sorted(data.draw(st.tuples(st.integers(-800, 800), st.integers(-800, 800))))
    assert len(column) == len(array)
    np.testing.assert_array_equal(column[places], array[places])
    np.testing.assert_array_equal(column[start:stop], array[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(column.chunks(7))), array)


def test_rows_of_another_shape_are_refused():
    column = Column(np.float32, 3)
    column.append(np.ones((2, 3)))
    assert column[:].shape == (2, 3)
    with pytest.raises(ValueError, match="rows of shape"):
        column.append(np.ones((2, 2)))


def test_many_bytes_are_not_in_memory():
    one = Scratch()
    tracemalloc.start()
    for number in range(200):
        one.append(bytes([number]) * 100_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000  # of 20,000,000
    assert one.read(199 * 100_000 - 1, 2) == bytes([198, 199])


def test_a_file_that_was_cut_is_an_error():
    one = Scratch()
    one.append(bytes(scratch._SMALL + 1))
    os.ftruncate(one._file, 10)
    with pytest.raises(OSError, match="was cut off"):
        one.read(0, 20)


@given(
    st.lists(arrays(np.int32, st.tuples(st.integers(0, 400), st.just(3))), max_size=6),
    st.lists(st.integers(0, 2**30), max_size=30),
    st.data(),
)
def test_rows_of_several_numbers_read_as_an_array(parts, positions, data):
    """Law: slices and positions of a column are those of the array that was put into it."""
    column = Column(np.int32, 3)
    for part in parts:
        column.append(part)
    whole = np.concatenate([np.zeros((0, 3), dtype=np.int32), *parts])
    start, stop = data.draw(st.integers(0, 1500)), data.draw(st.integers(0, 1500))
    which = np.array([p % len(whole) for p in positions] if len(whole) else [], dtype=np.int64)
    assert len(column) == len(whole)
    np.testing.assert_array_equal(column[start:stop], whole[start:stop])
    np.testing.assert_array_equal(column[:], whole)
    np.testing.assert_array_equal(column[which], whole[which])
    np.testing.assert_array_equal(np.concatenate([whole[:0], *column.chunks(7)]), whole)
