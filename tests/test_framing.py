"""Photos are put before a network as it is used to; sizes and pixels against references from the formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskwright.batches import FILL, frame_photo
from maskwright.framing import cv2_linear, frame_for, scaled_size, up
from maskwright.models.conventions import DETECTRON2, MMDETECTION, NATIVE

lengths = st.integers(20, 5000)


def with_conventions(how):
    return SimpleNamespace(conventions=how)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(height=lengths, width=lengths)
def test_sizes_keep_the_shape_and_both_limits(height, width):
    for resample in ("smooth", "cv2", "pillow"):
        new = scaled_size((height, width), 1333, 800, resample)
        assert min(new) <= 800
        assert max(new) <= 1333
        assert min(new) == 800 or max(new) >= 1332
        scale = min(800 / min(height, width), 1333 / max(height, width))
        assert np.abs(np.array(new) - np.array([height, width]) * scale).max() <= 1.0


@pytest.mark.parametrize(
    ("size", "mmdetection", "detectron2"),
    [
        ((480, 640), (800, 1067), (800, 1067)),
        ((3024, 4032), (800, 1067), (800, 1067)),
        ((1000, 4000), (333, 1333), (333, 1333)),
        ((427, 640), (800, 1199), (800, 1199)),
        ((500, 333), (1201, 800), (1201, 800)),
    ],
)
def test_sizes_are_those_of_the_frameworks(size, mmdetection, detectron2):
    # MMDetection: int(length * scale + 0.5) of both; Detectron2: the shorter side exact, then the same rounding.
    assert scaled_size(size, 1333, 800, "cv2") == mmdetection
    assert scaled_size(size, 1333, 800, "pillow") == detectron2


def linear_by_hand(pixels, size):
    """Return bilinear interpolation in floats, centres of pixels at .5, edges repeated."""
    height, width = pixels.shape[:2]

    def taps(old, new):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, dy = taps(height, size[0])
    left, right, dx = taps(width, size[1])
    p = pixels.astype(np.float64)
    dy, dx = dy[:, None, None], dx[None, :, None]
    upper = p[top][:, left] * (1 - dx) + p[top][:, right] * dx
    lower = p[bottom][:, left] * (1 - dx) + p[bottom][:, right] * dx
    return upper * (1 - dy) + lower * dy


@pytest.mark.parametrize("size", [(20, 33), (64, 96), (13, 17), (100, 31), (1, 1)])
def test_opencvs_interpolation_is_bilinear_to_one_level(size):
    photo = noise(40, 55)
    found = cv2_linear(photo, size)
    assert found.dtype == np.uint8
    assert np.abs(found - linear_by_hand(photo, size)).max() <= 1.0


def test_opencv_takes_the_mean_of_four_where_both_sides_are_halved():
    photo = noise(40, 56)
    wide = photo.astype(int)
    four = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    assert (cv2_linear(photo, (20, 28)) == (four + 2) // 4).all()


def test_a_plain_photo_stays_plain():
    photo = np.full((30, 41, 3), (7, 130, 255), dtype=np.uint8)
    for size in ((60, 82), (11, 13), (15, 41)):
        assert (cv2_linear(photo, size) == (7, 130, 255)).all()


def test_frames_are_multiples_of_32_with_the_photo_in_the_upper_left_corner():
    photo = noise(60, 100)
    for how in (NATIVE, MMDETECTION, DETECTRON2):
        framed = frame_for(with_conventions(how), photo, 120, 70)
        height, width = framed.frame.inner
        assert (height, width) == (70, 117)
        assert framed.image.shape == (3, 96, 128)
        assert not framed.normalised
        assert (framed.image[:, height:] == FILL).all()
        assert (framed.image[:, :, width:] == FILL).all()
    pillow = np.asarray(Image.fromarray(photo).resize((117, 70), Image.Resampling.BILINEAR))
    assert (framed.image[:, :70, :117].numpy().transpose(1, 2, 0) == pillow).all()


def test_a_network_without_conventions_gets_photos_as_ever():
    photo = noise(50, 70)
    tensor, frame = frame_photo(photo, 96)
    framed = frame_for(object(), photo, 96)
    assert torch.equal(framed.image, tensor)
    assert framed.frame == frame


def test_a_photo_that_was_decoded_smaller_keeps_the_size_that_is_stated():
    """413 of 640 are 41.3 of 64; decoded at a quarter, 104 of 160 would be 41.6."""
    photo = noise(104, 160)
    for network, short_side in ((object(), None), (object(), 48), (with_conventions(NATIVE), None)):
        framed = frame_for(network, photo, 64, short_side, (413, 640))
        assert (framed.frame.size, framed.frame.inner) == ((413, 640), (41, 64))
        assert framed.image.shape == (3, 64, 64)
    assert frame_photo(photo, 64, (413, 640))[1] == framed.frame


def test_without_a_shorter_side_the_longer_one_decides():
    assert frame_for(with_conventions(NATIVE), noise(50, 100), 64).frame.inner == (32, 64)
    assert frame_for(with_conventions(NATIVE), noise(50, 100), 640).frame.inner == (320, 640)


@given(value=st.integers(1, 5000))
def test_rounding_up(value):
    assert up(value) % 32 == 0
    assert 0 <= up(value) - value < 32
