"""What waits on disk is what was put there, however much it is and however it is asked for."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
