"""Columns that grow hold what was put in them, whoever put it."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.columns import Columns
from maskwright.halves import Memory
from maskwright.table import Table

NAMES = ("positions", "ids", "category_ids", "crowd", "scores", "areas", "boxes", "outlined")


def objects(count, seed, measured=True):
    rng = np.random.default_rng(seed)
    return Columns(
        positions=rng.integers(0, 99, count).astype(np.int32),
        ids=rng.integers(-(1 << 63), (1 << 63) - 1, count),
        category_ids=rng.integers(0, 9, count),
        crowd=rng.random(count) < 0.5,
        scores=np.where(rng.random(count) < 0.5, np.nan, rng.random(count)),
        areas=rng.random(count),
        boxes=rng.random((count, 4)),
        rles=[b"left alone"] * count,
        measured=rng.random((count, 5)) if measured else None,
        outlined=rng.random(count) < 0.5,
    )


def filled(parts):
    table = Table()
    for part, spans in parts:
        table.append(part, spans)
    return table


def same(table, parts):
    columns, whole = table.columns(), Columns.join([part for part, _ in parts])
    for name in NAMES:
        found, wanted = getattr(columns, name), getattr(whole, name)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert columns.rles == []
    assert (columns.measured is None) == (whole.measured is None)
    if whole.measured is not None:
        np.testing.assert_array_equal(columns.measured, whole.measured)
    masks = table.masks(np.zeros(3, dtype=np.uint8))
    np.testing.assert_array_equal([masks.starts, masks.ends], np.concatenate([s for _, s in parts], axis=1))
    np.testing.assert_array_equal(masks.outlined, whole.outlined)
    assert masks.data.tolist() == [0, 0, 0]


parts = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9), st.booleans()), min_size=1, max_size=6).map(
    lambda drawn: [
        (objects(count, seed, measured), np.random.default_rng(seed).integers(0, 1 << 40, (2, count)))
        for count, seed, measured in drawn
    ]
)


@given(parts, st.integers(0, 30))
def test_objects_come_back_as_they_were_put(parts, room):
    table = Table()
    table.reserve(room)
    for part, spans in parts:
        table.append(part, spans)
    assert len(table) == sum(len(part.ids) for part, _ in parts)
    same(table, parts)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")
@given(parts, parts, st.integers(0, 1 << 40))
def test_objects_of_another_process_stand_behind(ours, theirs, before):
    memory = Memory()
    memory.append(b"something else")
    table = filled(ours)
    table.receive(memory, filled(theirs).send(memory), before)
    same(table, [*ours, *((part, spans + before) for part, spans in theirs)])
    more = (objects(2, 7), np.array([[1, 2], [2, 3]]))
    table.append(*more)
    same(table, [*ours, *((part, spans + before) for part, spans in theirs), more])
    memory.close()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")
def test_what_is_cut_off_is_not_put():
    memory = Memory()
    table, other = (filled([(objects(4, n), np.ones((2, 4), dtype=np.int64))]) for n in (1, 2))
    sent = other.send(memory)
    memory.cut(len(memory) - 1)
    with pytest.raises(OSError, match="ends before"):
        table.receive(memory, sent, 0)
    same(table, [(objects(4, 1), np.ones((2, 4), dtype=np.int64))])
