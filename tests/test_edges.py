import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from maskwright.edges import (
    Fit,
    Outline,
    Shift,
    common_shift,
    fit,
    looks_inverted,
    outline,
    reading,
    upright_points,
)

SIZE = (120, 160)


def shape(seed, size=SIZE):
    """Return a mask of one slanted shape, away from the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    cy, cx = size[0] * rng.uniform(0.3, 0.45), size[1] * rng.uniform(0.25, 0.4)
    a = rng.uniform(0, np.pi)
    along, across = (x - cx) * np.cos(a) + (y - cy) * np.sin(a), -(x - cx) * np.sin(a) + (y - cy) * np.cos(a)
    return (along / rng.uniform(18, 28)) ** 2 + (across / rng.uniform(7, 12)) ** 2 < 1


def photo(mask, seed):
    rng = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 3) * 60 + 90
    return np.clip(ground + 70 * mask + rng.normal(0, 4, mask.shape), 0, 255).astype(np.uint8)


def fits(change=lambda mask: mask, n=12, seeds=0):
    out = []
    for seed in range(seeds, seeds + n):
        mask = shape(seed)
        drawn = change(mask)
        out.append(fit(photo(mask, seed), [outline(drawn, 0, 0, drawn.shape)]))
    return out


def moved(dy, dx):
    return lambda mask: np.roll(mask, (dy, dx), axis=(0, 1))


def test_the_outline_of_a_block():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:3, 2:5] = True
    found = outline(mask, 10, 20, (100, 100))
    assert len(found.steps) == 2 * (2 + 3)
    assert found.runs == 4
    assert found.short == 0
    assert [12, 21, -1, 0] in found.steps.tolist()
    assert [14, 22, 0, 1] in found.steps.tolist()


def test_steps_along_the_photos_border_are_left_out():
    found = outline(np.ones((4, 4), dtype=bool), 0, 0, (4, 9))
    assert found.steps.tolist() == [[3, y, 1, 0] for y in range(4)]


def test_a_photo_without_outline_has_no_fit():
    assert fit(np.zeros((8, 8), np.uint8), []) is None
    assert fit(np.zeros((8, 8), np.uint8), [outline(np.ones((8, 8), bool), 0, 0, (8, 8))]) is None


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9))
def test_points_turn_as_the_picture_does(orientation, height, width):
    stored = np.arange(height * width, dtype=np.int32).reshape(height, width)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    y, x = np.mgrid[:height, :width]
    points = upright_points(np.column_stack([x.ravel(), y.ravel()]), orientation, upright.shape)
    assert (upright[points[:, 1], points[:, 0]] == stored.ravel()).all()


def test_masks_that_fit_are_not_shifted():
    shift = common_shift(fits())
    assert abs(shift.x) < 0.3
    assert abs(shift.y) < 0.3
    assert not shift.clear


@pytest.mark.parametrize(("dy", "dx", "off"), [(0, 1, 0.3), (0, -1, 0.3), (1, 0, 0.3), (2, -3, 1.0)])
def test_a_common_shift_is_found(dy, dx, off):
    """Each direction is measured alone, so along slanted outlines a shift in both is told only roughly."""
    shift = common_shift(fits(moved(dy, dx)))
    assert shift.clear
    assert (shift.x, shift.y) == pytest.approx((-dx, -dy), abs=off)
    assert shift.photos == 12


def test_masks_drawn_too_large_or_too_small_are_not_shifted():
    for change in (ndimage.binary_dilation, ndimage.binary_erosion):
        shift = common_shift(fits(lambda mask, change=change: change(mask, iterations=2)))
        assert not shift.clear


def test_half_a_pixel_is_convention():
    """A mask that is rounded up on one side only lies half a pixel off."""
    shift = common_shift(fits(lambda mask: mask | np.roll(mask, 1, axis=1)))
    assert shift.x == pytest.approx(-0.5, abs=0.3)
    assert not shift.clear


def test_careless_outlines_without_a_common_shift():
    rng = np.random.default_rng(0)
    shift = common_shift(fits(lambda mask: np.roll(mask, tuple(rng.integers(-3, 4, 2)), axis=(0, 1)), n=16))
    assert shift is None or not shift.clear


def test_few_photos_and_photos_without_edges_tell_nothing():
    assert common_shift(fits(n=7)) is None
    flat = [fit(np.full(SIZE, 100, np.uint8), [outline(shape(n), 0, 0, SIZE)]) for n in range(12)]
    assert common_shift(flat) is None
    assert common_shift([]) is None


def test_a_shift_needs_more_than_its_error():
    assert Shift(1.0, 0.0, 0.1, 1.3, 20).clear
    assert not Shift(1.0, 0.0, 0.3, 1.3, 20).clear
    assert not Shift(1.0, 0.0, 0.1, 1.0, 20).clear


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_turned_mask_is_told(orientation):
    def stored(mask):
        image = Image.fromarray(mask.astype(np.uint8))
        back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
        return np.asarray(image.transpose(back[orientation])) > 0

    found = reading(fits(stored), orientation)
    assert found.better
    assert found.ratio > 2
    assert found.photos == 12
    as_is = reading(fits(), orientation)
    assert as_is.worse
    assert not as_is.better


def test_no_reading_where_the_turned_outline_is_outside():
    away = np.array([[150, y, 1, 0] for y in range(0, 100)])
    only = fit(np.zeros(SIZE, np.uint8), [Outline(away, 1, 0)])
    assert np.isnan(only.turned[4])
    assert reading([only], 5) is None
    assert reading([], 3) is None
    assert isinstance(only, Fit)


def test_inverted_masks():
    blob = shape(1)
    assert looks_inverted(~blob)
    assert not looks_inverted(blob)
    assert not looks_inverted(np.ones(SIZE, dtype=bool))
    half = np.zeros(SIZE, dtype=bool)
    half[:, :100] = True
    assert not looks_inverted(half)  # a table that fills much of the photo
    holes = ~(shape(1) | np.roll(shape(1), 70, axis=1) | np.roll(shape(1), 50, axis=0))
    assert not looks_inverted(holes)  # a sheet with several holes
