"""Polygons along the edges of pixels: COCO's rasteriser gives exactly the mask back, holes and parts included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from maskwright import pixels
from maskwright.tracing import flat, joined, outlines

MASKS = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda shape: arrays(np.bool_, shape))


def mask_of(*lines):
    return np.array([[c == "#" for c in line] for line in lines])


def traced(mask):
    return outlines(pixels.encode(mask), mask.shape)


def drawn(polygons, size):
    return pixels.decode(pixels.from_polygons([flat(p) for p in polygons], size), size)


def doubled_area(polygon):
    x, y = polygon[:, 0], polygon[:, 1]
    return int(x @ np.roll(y, -1) - np.roll(x, -1) @ y)


def winding(polygon, size):
    """Count, for each pixel, how often the polygon goes round it (its edges run along x or y)."""
    turns = np.zeros((size[0] + 1, size[1]), dtype=int)
    for (x1, y1), (x2, y2) in zip(polygon.tolist(), np.roll(polygon, -1, axis=0).tolist(), strict=True):
        assert x1 == x2 or y1 == y2
        turns[y1, min(x1, x2) : max(x1, x2)] += 1 if x2 > x1 else -1
    return np.cumsum(turns, axis=0)[:-1]


SHAPES = {
    "one pixel": mask_of("...", ".#.", "..."),
    "one pixel in a corner": mask_of("...", "...", "..#"),
    "one-pixel-wide line": mask_of(".......", ".#####.", "......."),
    "one-pixel-wide column": mask_of(".#.", ".#.", ".#."),
    "diagonal": np.eye(6, dtype=bool),
    "other diagonal": np.eye(6, dtype=bool)[::-1],
    "all": np.ones((4, 7), dtype=bool),
    "whole last column": mask_of("...#", "...#"),
    "ring": mask_of("#####", "#...#", "#.#.#", "#...#", "#####"),
    "ring off the border": mask_of(".....", ".###.", ".#.#.", ".###.", "....."),
    "thin diagonal ring": mask_of("..#..", ".#.#.", "#...#", ".#.#.", "..#.."),
    "two parts": mask_of("##...#", "##...#", "......"),
    "chessboard": np.indices((6, 6)).sum(axis=0) % 2 == 0,
    "holes side by side under one edge": mask_of("#########", "#.#.#.#.#", "#########"),
    "holes one below the other": mask_of("###", "#.#", "###", "#.#", "###"),
    "holes that touch diagonally": mask_of("####", "#.##", "##.#", "####"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_comes_back_exactly(name):
    mask = SHAPES[name]
    polygons = traced(mask)
    assert len(polygons) == pixels.label_parts(mask)[1]
    assert (drawn(polygons, mask.shape) == mask).all()
    assert (drawn([joined(polygons)], mask.shape) == mask).all()


def test_rectangle_has_four_corners():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:5, 3:8] = True
    assert [p.tolist() for p in traced(mask)] == [[[3, 2], [8, 2], [8, 5], [3, 5]]]


def test_hole_is_joined_by_a_slit_straight_up():
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 1] = False
    assert [p.tolist() for p in traced(mask)] == [
        [[0, 0], [1, 0], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [1, 0], [3, 0], [3, 3], [0, 3]]
    ]


def test_empty_mask_has_no_polygon():
    assert traced(np.zeros((3, 3), dtype=bool)) == []


@given(MASKS)
@settings(max_examples=400, deadline=None)
def test_cocos_rasteriser_gives_the_mask_back(mask):
    polygons = traced(mask)
    assert len(polygons) == pixels.label_parts(mask)[1]
    if polygons:
        assert pixels.from_polygons([flat(p) for p in polygons], mask.shape) == pixels.encode(mask)
        lists = [[float(v) for v in flat(p)] for p in polygons]
        theirs = reference.merge(reference.frPyObjects(lists, *mask.shape))  # pycocotools, the reference
        assert theirs["counts"] == pixels.encode(mask)
    assert sum(doubled_area(p) for p in polygons) == 2 * mask.sum()


@given(MASKS)
@settings(max_examples=150, deadline=None)
def test_non_zero_winding_rule_gives_the_mask_back(mask):
    turns = sum((winding(p, mask.shape) for p in traced(mask)), np.zeros(mask.shape, dtype=int))
    assert (turns == mask).all()


@given(MASKS.filter(lambda mask: mask.any()))
@settings(max_examples=200, deadline=None)
def test_joined_parts_are_the_mask(mask):
    one = joined(traced(mask))
    assert pixels.from_polygons([flat(one)], mask.shape) == pixels.encode(mask)
    assert doubled_area(one) == 2 * mask.sum()


@given(MASKS.filter(lambda mask: mask.any()), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_scaled_polygons_are_the_scaled_mask(mask, factor):
    """Slits and bridges cancel at any scale, so a tool that resizes polygons with their photo loses nothing."""
    size = (mask.shape[0] * factor, mask.shape[1] * factor)
    scaled = np.kron(mask, np.ones((factor, factor), dtype=bool))
    assert (drawn([joined(traced(mask)) * factor], size) == scaled).all()


def test_bridges_of_many_parts_are_short():
    mask = np.zeros((40, 400), dtype=bool)
    mask[::4, ::4] = True
    one = joined(traced(mask))
    steps = np.abs(np.roll(one, -1, axis=0) - one).max(axis=1)
    assert len(traced(mask)) == 1000
    assert steps.max() <= 40
    assert (drawn([one], mask.shape) == mask).all()
