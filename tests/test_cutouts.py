"""What is laid over a picture changes it there and nowhere else, and nothing of the photo it is from comes along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from maskwright.cutouts import REACH, WHOLE, Cutout, changed, cut_out, lay, left_of, soften, tight


@st.composite
def masks(draw, most=24):
    """Draw a mask that is not empty: a few rectangles and specks."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mask = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.05, 0.5]))
    y, x = rng.integers(height), rng.integers(width)
    mask[y : y + 1 + rng.integers(height), x : x + 1 + rng.integers(width)] = True
    return mask


def colours_of(mask, inside=(200, 40, 10), outside=(0, 255, 0)):
    found = np.empty((*mask.shape, 3), dtype=np.uint8)
    found[:], found[mask] = outside, inside
    return found


def near(mask):
    """Tell which pixels have one of the mask within `REACH` lines and columns."""
    return ndimage.maximum_filter(mask, 2 * REACH + 1, mode="constant")


# Laying over


@settings(max_examples=80)
@given(mask=masks(), x=st.integers(0, 9), y=st.integers(0, 9), right=st.integers(0, 9), below=st.integers(0, 9))
def test_only_what_is_near_the_mask_changes(mask, x, y, right, below):
    height, width = mask.shape
    ground = np.random.default_rng(0).integers(0, 256, (y + height + below, x + width + right, 3), dtype=np.uint8)
    before, full = ground.copy(), np.zeros(ground.shape[:2], dtype=bool)
    full[y : y + height, x : x + width] = mask
    lay(ground, colours_of(mask), mask, x, y)
    assert (ground == before)[~near(full)].all()
    deep = ndimage.minimum_filter(full, 2 * REACH + 1, mode="nearest")
    assert (ground[deep] == (200, 40, 10)).all()


@settings(max_examples=60)
@given(mask=masks(), shade=st.integers(0, 255))
def test_nothing_of_the_other_photo_comes_along(mask, shade):
    """An object of one colour over a ground of the same colour cannot be seen, whatever lay beside it."""
    ground = np.full((mask.shape[0] + 6, mask.shape[1] + 6, 3), shade, dtype=np.uint8)
    lay(ground, colours_of(mask, inside=(shade,) * 3), mask, 3, 3)
    assert (ground == shade).all()


@settings(max_examples=60)
@given(mask=masks())
def test_mixed_colours_lie_between_the_two(mask):
    ground = np.full((mask.shape[0] + 8, mask.shape[1] + 8, 3), 100, dtype=np.uint8)
    lay(ground, colours_of(mask, inside=(200, 100, 0)), mask, 4, 4)
    assert ground[..., 0].min() >= 100
    assert ground[..., 0].max() <= 200
    assert (ground[..., 1] == 100).all()
    alpha = np.pad(mask, 4)
    expected = (100 * soften(alpha) + WHOLE // 2) // WHOLE + 100
    np.testing.assert_allclose(ground[..., 0], expected, atol=1)


def test_half_of_a_straight_edge_is_on_either_side():
    ground = np.zeros((9, 10, 3), dtype=np.uint8)
    lay(ground, np.full((9, 5, 3), 160, dtype=np.uint8), np.ones((9, 5), dtype=bool), 5, 0)
    assert ground[4, :, 0].tolist() == [0, 0, 0, 10, 50, 110, 150, 160, 160, 160]


def test_an_object_that_reaches_the_border_is_not_soft_there():
    ground = np.zeros((4, 4, 3), dtype=np.uint8)
    lay(ground, np.full((4, 4, 3), 160, dtype=np.uint8), np.ones((4, 4), dtype=bool), 0, 0)
    assert (ground == 160).all()


@settings(max_examples=60)
@given(mask=masks())
def test_softness_is_whole_inside_nothing_outside_and_symmetrical(mask):
    alpha = soften(np.pad(mask, 4))
    assert alpha.min() >= 0
    assert alpha.max() <= WHOLE
    assert alpha.sum() == WHOLE * mask.sum()  # blurring keeps the sum, where nothing is cut off
    np.testing.assert_array_equal(alpha == 0, ~near(np.pad(mask, 4)))
    np.testing.assert_array_equal(soften(mask.T), soften(mask).T)
    np.testing.assert_array_equal(soften(~mask), WHOLE - soften(mask))


# What is left


@settings(max_examples=60)
@given(mask=masks(), seed=st.integers(0, 1000), share=st.floats(0, 1), least=st.integers(0, 30))
def test_what_is_left_and_what_covers_it_share_no_pixel(mask, seed, share, least):
    over = np.random.default_rng(seed).random(mask.shape) < 0.5
    left = left_of(mask, over, share, least)
    count = int((mask & ~over).sum())
    if left is None:
        assert count == 0 or count < share * mask.sum() or count < least
    else:
        assert not (left & over).any()
        np.testing.assert_array_equal(left | (mask & over), mask)
        assert count >= max(1, least, share * mask.sum())


@pytest.mark.parametrize(("share", "least", "kept"), [(0.1, 1, True), (0.11, 1, False), (0.1, 2, False)])
def test_a_tenth_is_enough_and_less_is_not(share, least, kept):
    mask, over = np.ones((1, 10), dtype=bool), np.ones((1, 10), dtype=bool)
    over[0, 3] = False
    left = left_of(mask, over, share, least)
    assert (left is not None) is kept
    assert left is None or left.tolist() == (~over).tolist()


# Cutting out and changing


@settings(max_examples=60)
@given(mask=masks())
def test_a_cutout_is_tight_and_has_only_its_own_colours(mask):
    one = cut_out(colours_of(mask), mask)
    x1, y1, x2, y2 = tight(mask)
    np.testing.assert_array_equal(one.mask, mask[y1:y2, x1:x2])
    assert (one.colours == (200, 40, 10)).all()
    assert tight(one.mask) == (0, 0, one.size[1], one.size[0])


def test_the_rim_takes_the_colour_of_what_is_inside():
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8] = True
    colours = colours_of(mask)
    rim = mask & ~ndimage.binary_erosion(mask)
    colours[rim] = (100, 140, 5)  # mixed with the green behind it
    assert (cut_out(colours, mask).colours == (200, 40, 10)).all()


def test_there_is_no_rim_where_the_border_cuts():
    mask = np.ones((5, 5), dtype=bool)
    colours = np.zeros((5, 5, 3), dtype=np.uint8)
    colours[:, 0] = 77
    assert (cut_out(colours, mask, (True, False, False, False)).colours[2, 0] == 77).all()
    assert (cut_out(colours, mask).colours[2, 0] == 0).all()


def test_thin_parts_keep_their_colour():
    mask = np.zeros((9, 20), dtype=bool)
    mask[1:8, 1:8], mask[4, 8:20] = True, True
    colours = colours_of(mask)
    colours[4, 12:] = 9
    assert (cut_out(colours, mask).colours[3, 11:] == 9).all()


@settings(max_examples=60)
@given(mask=masks())
def test_an_object_that_is_not_changed_stays_as_it_is(mask):
    one = cut_out(colours_of(mask), mask)
    same = changed(one)
    np.testing.assert_array_equal(same.mask, one.mask)
    np.testing.assert_array_equal(same.colours, one.colours)


@settings(max_examples=60)
@given(mask=masks(), quarters=st.integers(0, 3), mirror=st.booleans())
def test_quarter_turns_and_mirrors_keep_every_pixel(mask, quarters, mirror):
    one = cut_out(colours_of(mask), mask)
    found = changed(one, mirror=mirror, degrees=90.0 * quarters)
    expected = np.rot90(one.mask[:, ::-1] if mirror else one.mask, quarters)
    np.testing.assert_array_equal(found.mask, expected)


@settings(max_examples=80)
@given(
    mask=masks(),
    zoom=st.floats(0.1, 4),
    mirror=st.booleans(),
    degrees=st.floats(0, 360),
    most=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_a_changed_object_is_tight_fits_and_keeps_its_colour(mask, zoom, mirror, degrees, most):
    one = cut_out(colours_of(mask), mask)
    found = changed(one, zoom, mirror, degrees, most)
    if found is None:
        return
    assert tight(found.mask) == (0, 0, found.size[1], found.size[0])
    assert found.colours.shape == (*found.size, 3)
    if most is not None:
        assert found.size[0] <= most[0]
        assert found.size[1] <= most[1]
    assert (np.abs(found.colours[found.mask].astype(int) - (200, 40, 10)) <= 1).all()


def test_area_follows_the_zoom():
    mask = np.hypot(*np.mgrid[-20:21, -20:21]) < 20
    one = cut_out(colours_of(mask), mask)
    for zoom in (0.3, 0.5, 2.0, 3.3):
        expected = mask.sum() * (round(39 * zoom) / 39) ** 2  # sides are whole pixels
        for degrees in (0, 30):
            assert changed(one, zoom, degrees=degrees).mask.sum() == pytest.approx(expected, rel=0.03)


def test_a_mirror_exchanges_the_sides_that_are_cut():
    one = Cutout(np.zeros((2, 2, 3), dtype=np.uint8), np.ones((2, 2), dtype=bool), (True, False, False, True))
    assert changed(one, mirror=True).cut == (False, False, True, True)
    assert changed(one, 2.0).cut == one.cut


def test_an_object_of_which_nothing_is_left_is_none():
    mask = np.zeros((41, 41), dtype=bool)
    mask[0, 0] = mask[40, 40] = True
    assert changed(Cutout(colours_of(mask), mask), 0.05) is None
