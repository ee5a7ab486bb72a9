"""Polygons that are told plain from their bytes are sound as numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.segmentations import are_plain_polygons, check_polygons

SIZE = (20, 30)

numbers = st.one_of(
    st.floats(-999, 999).map(lambda v: repr(round(v, 2))),
    st.integers(-999, 999).map(str),
    st.sampled_from(["1e3", "1234", "-0", "0.50", "0.123456789", "-999.5555"]),
)


@given(st.lists(st.lists(numbers, min_size=4, max_size=8), min_size=1, max_size=3), st.sampled_from([", ", ",", " ,"]))
def test_plain_polygons_are_sound_json(polygons, comma):
    written = "[[" + ("]" + comma + "[").join(comma.join(polygon) for polygon in polygons) + "]]"
    if are_plain_polygons([written.encode()], 3):
        check_polygons(json.loads(written), SIZE)
        assert max(abs(v) for polygon in json.loads(written) for v in polygon) < 1000
    elif all(len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        assert {"1e3", "1234"} & {v for polygon in polygons for v in polygon} or "e" in written


@given(st.lists(numbers, min_size=6, max_size=6), st.integers(1, 9))
def test_digits_before_the_point_are_counted(polygon, digits):
    most = max(len(number.split(".")[0].lstrip("-")) for number in polygon)
    written = "[[" + ", ".join(polygon) + "]]"
    assert are_plain_polygons([written.encode()], digits) == ("e" not in written and most <= digits)


@pytest.mark.parametrize(
    "wrong",
    [
        "[[1,2,3,4,5,6],7,[1,2,3,4,5,6]]",
        "[[1,2,3,4,5,6],7]",
        "[[1,2,3,4,5,6],7,8,9,[1,2,3,4,5,6]]",
        "[[[1,2,3,4,5,6]]]",
        "[[1,2,3,4,5,6],[[1,2,3,4,5,6]]]",
        "[[1,2,3,4,5,6],[]]",
        "[[]]",
        "[[1,2,3,\n4,5,6]]",
        "[[1,2,3,4,5,null]]",
        '[[1,2,3,4,5,"6"]]',
        "[[1,2,3,4,5,{}]]",
        "[[1,2,3,4,5,true]]",
    ],
)
def test_brackets_must_fit(wrong):
    json.loads(wrong)
    assert not are_plain_polygons([wrong.encode()], 3)
    assert not are_plain_polygons([b"[[1,2,3,4,5,6]]", wrong.encode()], 3)
