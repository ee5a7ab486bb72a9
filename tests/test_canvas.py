"""Objects on the canvas: where they come to lie, which are left out, and what pasting others over them leaves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from maskwright.canvas import LEAST_LEFT, LEAST_PIXELS, Cached, Placed, over_photo, paste, place, warp

SAME = np.eye(3)
RED, BLUE = (220, 30, 30), (40, 90, 160)


def cached(masks, colour=BLUE, size=(40, 60)):
    """Return a photo with objects whose masks are whole rectangles `x1 y1 x2 y2`."""
    photo = np.empty((*size, 3), dtype=np.uint8)
    photo[:] = colour
    crops = tuple((x1, y1, Picture.new("L", (x2 - x1, y2 - y1), 255)) for x1, y1, x2, y2 in masks)
    n = range(len(masks))
    areas = tuple((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in masks)
    return Cached(Picture.fromarray(photo), crops, tuple(k % 2 + 1 for k in n), tuple(100 + k for k in n), areas)


def move(dx, dy, zoom=1.0):
    return np.array([[zoom, 0, dx], [0, zoom, dy], [0, 0, 1]], dtype=float)


def placed(x1, y1, x2, y2, object_=0):
    return Placed((x1, y1), np.ones((y2 - y1, x2 - x1), dtype=np.uint8), 1, object_)


def full(one, size=(40, 60)):
    mask = np.zeros(size, dtype=bool)
    one.window(mask)[:] = one.part
    return mask


def test_objects_are_placed_by_the_map():
    forward = move(5, -3, 2.0)
    (one,) = place(cached([(10, 8, 20, 16)]), forward, np.linalg.inv(forward), (80, 120))
    assert (one.box(), one.label, one.object) == ((25, 13, 45, 29), 1, 100)
    assert full(one, (80, 120)).sum() == 20 * 16


def test_slivers_and_what_is_outside_are_left_out():
    photo = cached([(0, 0, 50, 20), (0, 25, 4, 27), (10, 30, 20, 38)])
    forward = move(-47, 0)  # of the first a strip of 3 columns stays, 6 % of it
    assert place(photo, forward, np.linalg.inv(forward), (40, 60)) == []
    found = place(photo, SAME, SAME, (40, 60))
    assert [one.object for one in found] == [100, 102]  # the second has fewer than 12 pixels
    assert LEAST_PIXELS == 12


def test_the_middle_says_whether_an_object_is_over_the_photo():
    photo = cached([])
    backward = np.linalg.inv(move(20, 10))
    assert over_photo(placed(15, 5, 27, 17), photo, backward)
    assert not over_photo(placed(5, 5, 25, 25), photo, backward)
    assert not over_photo(placed(100, 20, 120, 90), photo, backward)


rectangles = st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(1, 10), st.integers(1, 10)).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


@settings(max_examples=80)
@given(below=st.lists(rectangles, max_size=5), above=st.lists(rectangles, min_size=1, max_size=4))
def test_what_is_pasted_takes_its_pixels_from_what_lies_beneath(below, above):
    giver = cached(above, RED)
    image = np.asarray(cached([]).image)
    under = [placed(*r, object_=n) for n, r in enumerate(below)]
    over = [placed(*r, object_=100 + n) for n, r in enumerate(above)]
    before = image.copy()
    found, objects = paste(image, under, over, giver, SAME)
    assert (image == before).all()
    union = np.any([full(one) for one in over], axis=0)
    kept = objects[: len(objects) - len(over)]
    assert objects[len(kept) :] == over
    for one in kept:
        old = full(under[one.object])
        left = full(one)
        assert not (left & union).any()
        assert (left | (old & union) == old).all()
        ys, xs = np.nonzero(left)
        assert one.box() == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    lost = {one.object for one in under} - {one.object for one in kept}
    for n in lost:
        left = int((full(under[n]) & ~union).sum())
        assert left < max(LEAST_PIXELS, LEAST_LEFT * full(under[n]).sum())
    changed = (found != before).any(axis=2)
    assert not changed[~_near(union)].any()
    assert (np.abs(found.astype(int)[_deep(union)] - RED) == 0).all()


def _near(mask):
    padded = np.pad(mask, 2)
    return np.any([padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(5) for x in range(5)], axis=0)


def _deep(mask):
    return ~_near(~mask)


def test_pasting_nothing_is_nothing():
    image = np.asarray(cached([]).image)
    one = placed(0, 0, 9, 9)
    found, objects = paste(image, [one], [], cached([]), SAME)
    assert found is image
    assert objects == [one]


def test_warp_takes_each_pixel_from_where_the_map_says():
    photo = np.arange(24, dtype=np.uint8).reshape(4, 6)
    found = np.asarray(warp(Picture.fromarray(photo), np.linalg.inv(move(1, 2)), (2, 1), (3, 3), 99))
    assert found.tolist() == [[99, 99, 99], [1, 2, 3], [7, 8, 9]]
