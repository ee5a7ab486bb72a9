"""Boundary IoU: the band along a mask's edge, the pairs by it, and what evaluation makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskwright import evaluate, pixels
from maskwright.boundary import band, band_width
from maskwright.dataset import Annotation, Category, Dataset, Image

SIZE = (100, 100)


def square(low: int, high: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[low:high, low:high] = True
    return mask


def dataset(*masks: tuple[np.ndarray, float | None], crowd: bool = False) -> Dataset:
    found = [
        Annotation(k + 1, 1, 1, pixels.encode(mask), score=score, crowd=crowd and k == 0)
        for k, (mask, score) in enumerate(masks)
    ]
    return Dataset.build([Category(1, "disc")], [Image(1, "a.png", SIZE[1], SIZE[0])], found)


def by_definition(mask: np.ndarray, width: int) -> np.ndarray:
    """The band, pixel by pixel."""
    padded = np.pad(mask, width)
    side = 2 * width + 1
    result = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        result[y, x] = not padded[y : y + side, x : x + side].all()
    return result


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(1, 4))
def test_the_band_is_what_is_near_the_edge(mask: np.ndarray, width: int) -> None:
    found = pixels.decode(band(pixels.encode(mask), mask.shape, width), mask.shape)
    assert (found == by_definition(mask, width)).all()


def test_the_width_is_two_hundredths_of_the_diagonal() -> None:
    assert band_width((480, 640)) == 16
    assert band_width((600, 800)) == 20
    assert band_width((3, 4)) == 1


def test_an_edge_that_is_off_costs_more_than_the_area_does() -> None:
    """A square of 80 found one pixel too small all around. Of the two rings, each 3 wide, two thirds meet."""
    result = evaluate(dataset((square(10, 90), None)), dataset((square(11, 89), 0.9)), boundary=True)
    iou = 78**2 / 80**2
    assert result.metrics["segm/AP"] == 1.0  # over 0.95
    assert iou > 0.95
    shared, ring, inner = 78**2 - 74**2, 80**2 - 74**2, 78**2 - 72**2
    assert shared / (ring + inner - shared) == 0.5
    assert result.metrics["boundary/AP50"] == 1.0
    assert result.metrics["boundary/AP75"] == 0.0
    assert result.metrics["boundary/AP"] == pytest.approx(0.1)  # at one threshold of ten
    assert "edges (boundary)" in result.table()


def test_a_ring_is_not_the_disc_whose_edge_it_has() -> None:
    """The lesser of both IoUs counts."""
    whole = square(10, 90)
    ring = whole & ~square(14, 86)
    result = evaluate(dataset((whole, None)), dataset((ring, 0.9)), boundary=True)
    assert result.metrics["boundary/AP50"] == 0.0


def test_the_same_mask_has_boundary_ap_1() -> None:
    result = evaluate(dataset((square(10, 90), None)), dataset((square(10, 90), 0.9)), boundary=True)
    assert [result.metrics[f"boundary/{name}"] for name in ("AP", "AP50", "AP75")] == [1.0, 1.0, 1.0]


def test_a_detection_in_a_crowd_is_no_false_alarm() -> None:
    truth = dataset((square(0, 50), None), (square(60, 90), None), crowd=True)
    found = dataset((square(10, 40), 0.9), (square(60, 90), 0.8))
    assert evaluate(truth, found, boundary=True).metrics["boundary/AP"] == 1.0


def test_it_is_told_only_where_it_is_asked_for() -> None:
    result = evaluate(dataset((square(10, 90), None)), dataset((square(10, 90), 0.9)))
    assert not any(name.startswith("boundary") for name in result.metrics)
    assert "boundary" not in result.table()


def two_photos(off: int) -> tuple[Dataset, Dataset]:
    """Two photos of different sizes with two squares of 40 each, all found; the last one `off` too small all around."""
    sizes = [(100, 100), (300, 400)]  # whose bands are 3 and 10 wide
    truth, found = [], []
    for k, (photo, y, x) in enumerate([(0, 5, 5), (0, 55, 55), (1, 20, 30), (1, 170, 300)]):
        for objects, less, score in ((truth, 0, None), (found, off if k == 3 else 0, 0.9 - 0.1 * k)):
            mask = np.zeros(sizes[photo], dtype=np.bool_)
            mask[y + less : y + 40 - less, x + less : x + 40 - less] = True
            objects.append(Annotation(k + 1, photo + 1, 1, pixels.encode(mask), score=score))
    images = [Image(1, "a.png", 100, 100), Image(2, "b.png", 400, 300)]
    return tuple(Dataset.build([Category(1, "disc")], images, objects) for objects in (truth, found))


def test_the_same_masks_have_boundary_ap_1_in_photos_of_any_size() -> None:
    result = evaluate(*two_photos(0), boundary=True)
    assert [result.metrics[f"boundary/{name}"] for name in ("AP", "AP50", "AP75")] == [1.0, 1.0, 1.0]


def test_the_width_of_the_band_is_each_photos_own() -> None:
    """One of four is a pixel or two too small all around; of rings 3 wide, a half or a fifth would meet."""
    truth, found = two_photos(1)
    result = evaluate(truth, found, boundary=True)
    assert [band_width(image.size) for image in truth.images] == [3, 10]
    shared, ring, inner = 38**2 - 20**2, 40**2 - 20**2, 38**2 - 18**2
    assert 0.81 < shared / (ring + inner - shared) < 0.82
    three_of_four = 76 / 101  # precision 1 at the recalls 0, 0.01, ... 0.75
    assert result.metrics["boundary/AP50"] == result.metrics["boundary/AP75"] == 1.0
    assert result.metrics["boundary/AP"] == pytest.approx((7 + 3 * three_of_four) / 10)
    shared, ring, inner = 36**2 - 20**2, 40**2 - 20**2, 36**2 - 16**2
    assert 0.66 < shared / (ring + inner - shared) < 0.67
    worse = evaluate(*two_photos(2), boundary=True)
    assert worse.metrics["boundary/AP75"] == pytest.approx(three_of_four)
    assert worse.metrics["boundary/AP50"] == 1.0
    assert worse.metrics["boundary/AP"] == pytest.approx((4 + 6 * three_of_four) / 10)


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_boundary_ap_is_never_above_segm_ap(least: float) -> None:
    rng = np.random.default_rng(0)
    truth, found = [], []
    for k in range(3):
        low = 5 + 30 * k
        truth.append((square(low, low + 25), None))
        found.append((square(low + int(rng.integers(0, 3)), low + 25), least))
    result = evaluate(dataset(*truth), dataset(*found), boundary=True)
    assert result.metrics["boundary/AP"] is not None
    assert result.metrics["segm/AP"] is not None
    assert result.metrics["boundary/AP"] <= result.metrics["segm/AP"]
