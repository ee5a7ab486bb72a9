"""The list on disk: order, repeated reading, and little memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from maskwright.formats.shelf import Shelf


@given(st.lists(st.one_of(st.integers(), st.text(), st.binary()), max_size=1000))
def test_what_is_put_comes_back_in_order(values):
    """Law: a shelf is a list."""
    shelf = Shelf(values)
    assert list(shelf) == values
    assert (len(shelf), list(shelf)) == (len(values), values)


def test_putting_goes_on_after_reading():
    shelf = Shelf(range(300))
    assert sum(shelf) == 300 * 299 // 2
    shelf.put(7)
    assert (list(shelf)[-1], len(shelf), 7 in shelf, "x" in shelf) == (7, 301, True, False)


def test_two_readings_at_once():
    shelf = Shelf(range(600))
    assert all(a == b for a, b in zip(shelf, shelf, strict=True))


def test_values_are_not_in_memory():
    shelf = Shelf()
    tracemalloc.start()
    for number in range(2000):
        shelf.put(bytes([number % 256]) * 10_000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4_000_000  # of 20,000,000
    assert len(shelf) == 2000
