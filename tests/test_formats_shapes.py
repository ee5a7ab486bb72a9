"""Polygons and other shapes of annotation files: what they cover, and what is refused."""

import math

import numpy as np
import pytest

from maskwright import pixels
from maskwright.formats import Tally
from maskwright.formats.shapes import circle, ellipse, polygons_rle, rectangle, sane_polygons

SIZE = (20, 30)


def test_a_polygon_is_rasterised_as_coco_does():
    tally = Tally()
    rle = polygons_rle([[2, 3, 10, 3, 10, 9, 2, 9]], SIZE, "a.json", tally)
    assert rle == pixels.from_polygons([[2, 3, 10, 3, 10, 9, 2, 9]], SIZE)
    assert tally.mends() == ()


def test_several_polygons_are_one_object():
    rle = polygons_rle([rectangle(0, 0, 4, 4), rectangle(10, 10, 14, 14)], SIZE, "a", Tally())
    mask = pixels.decode(rle, SIZE)
    assert (mask[:4, :4].all(), mask[10:14, 10:14].all(), int(mask.sum())) == (True, True, 32)


@pytest.mark.parametrize(
    "polygon", [[1, 2, 3], ["a", 1, 2, 3, 4, 5], [1, 2, float("nan"), 4, 5, 6], {"x": 1}, [[1, 2], [3, 4], [5, 6]], "x"]
)
def test_what_is_no_polygon_is_refused(polygon):
    with pytest.raises(ValueError, match="a polygon is not a list of finite numbers"):
        sane_polygons([polygon], SIZE, "a", Tally())


def test_polygons_far_outside_are_refused():
    with pytest.raises(ValueError, match="a polygon reaches far outside of the photo"):
        sane_polygons([[0, 0, 1e9, 0, 0, 5]], SIZE, "a", Tally())


def test_what_is_mended_is_counted():
    tally = Tally()
    kept = sane_polygons([[1, 1, 2, 2], [-3, -3, 5, 0, 5, 5]], SIZE, "a.json", tally)
    assert kept == [[-3, -3, 5, 0, 5, 5]]
    assert [str(mend) for mend in tally.mends()] == [
        "polygons of fewer than three points, left out: 1 (a.json)",
        "polygons that reach out of the photo, cut at its edge: 1 (a.json)",
    ]


def test_an_object_without_a_pixel_is_counted():
    tally = Tally()
    assert polygons_rle([[1, 1, 1, 1, 1, 1]], SIZE, "a.json", tally) is None
    assert polygons_rle([], SIZE, "b.json", tally) is None
    assert str(tally.mends()[0]) == "objects without a pixel, left out: 2 (a.json, b.json)"


@pytest.mark.parametrize("radius", [3, 40, 400])
def test_circles_have_the_area_of_circles(radius):
    size = (2 * radius + 4, 2 * radius + 4)
    rle = polygons_rle([circle(radius + 2, radius + 2, radius)], size, "a", Tally())
    assert abs(pixels.area(rle, size) / (math.pi * radius**2) - 1) < 0.5 / radius


def test_an_ellipse_can_be_turned():
    flat = np.array(ellipse(0, 0, 4, 2)).reshape(-1, 2)
    turned = np.array(ellipse(0, 0, 4, 2, math.pi / 2)).reshape(-1, 2)
    assert np.abs(flat).max(axis=0).round(6).tolist() == [4, 2]
    assert np.abs(turned).max(axis=0).round(6).tolist() == [2, 4]


@pytest.mark.parametrize("numbers", [(0, 0, 0, 1), (0, 0, -1, 1), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
def test_ellipses_that_are_none(numbers):
    with pytest.raises(ValueError, match="an ellipse needs a centre and radii above 0"):
        ellipse(*numbers)
