import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage
from PIL import ImageOps
from pycocotools import mask as reference

from maskwright import pixels

SMALL = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
MASKS = hnp.arrays(np.bool_, SMALL)


def ring(size=(9, 11)):
    mask = np.zeros(size, dtype=bool)
    mask[1:8, 2:9] = True
    mask[3:6, 4:7] = False
    return mask


# RLE


@given(MASKS)
def test_decode_undoes_encode(mask):
    found = pixels.decode(pixels.encode(mask), mask.shape)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, mask)


@given(MASKS)
def test_rle_is_byte_for_byte_pycocotools(mask):
    assert pixels.encode(mask) == reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@given(MASKS)
def test_area_and_box_are_those_of_numpy(mask):
    rle = pixels.encode(mask)
    y, x = np.nonzero(mask)
    box = (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 0, 0)
    assert pixels.area(rle, mask.shape) == mask.sum()
    assert pixels.box(rle, mask.shape) == box
    areas, boxes = pixels.areas_and_boxes([rle, rle], [mask.shape, mask.shape])
    assert areas.tolist() == [mask.sum()] * 2
    assert boxes.tolist() == [list(box)] * 2


@given(MASKS)
def test_runs_add_up_and_alternate(mask):
    found = pixels.runs(pixels.encode(mask))
    assert found.sum() == mask.size
    assert found[1::2].sum() == mask.sum()
    np.testing.assert_array_equal(np.repeat(np.arange(len(found)) % 2 == 1, found), mask.ravel(order="F"))


@given(st.lists(MASKS, max_size=5))
def test_runs_of_several_masks_are_those_of_each(masks):
    rles = [pixels.encode(mask) for mask in masks]
    counts, number = pixels.runs_of_masks(rles)
    assert number.tolist() == [len(pixels.runs(rle)) for rle in rles]
    assert counts.tolist() == [count for rle in rles for count in pixels.runs(rle).tolist()]


@given(MASKS, st.integers(1, 8))
def test_masks_are_turned_upright_as_pillow_turns_pictures(mask, orientation):
    image = PillowImage.fromarray(mask.astype(np.uint8))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)) > 0
    assert pixels.upright(pixels.encode(mask), mask.shape, orientation) == pixels.encode(expected)


@pytest.mark.parametrize("long", [15, 16, 511, 512, 16_383, 16_384, 600_000])
def test_runs_of_any_length_with_differences_of_either_sign(long):
    counts = [0, long, 1, 2, long, 1, 7, long]
    size = (1, sum(counts))
    assert pixels.runs(pixels.from_counts(counts, size)).tolist() == counts


@given(MASKS, st.data())
def test_crop_is_the_window_of_decode(mask, data):
    h, w = mask.shape
    x1, x2 = sorted(data.draw(st.tuples(st.integers(0, w), st.integers(0, w))))
    y1, y2 = sorted(data.draw(st.tuples(st.integers(0, h), st.integers(0, h))))
    found = pixels.crop(pixels.encode(mask), mask.shape, (x1, y1, x2, y2))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, mask[y1:y2, x1:x2])


@given(MASKS)
def test_uncompressed_counts_are_compressed_without_change(mask):
    rle = pixels.encode(mask)
    assert pixels.from_counts(pixels.runs(rle).tolist(), mask.shape) == rle


@pytest.mark.parametrize("counts", [[5], [3, 2], [-1, 10], [4, 6]])
def test_uncompressed_counts_that_do_not_fit(counts):
    with pytest.raises(ValueError, match=rf"the runs add up to {sum(counts)}, the photo has 9 pixels") as caught:
        pixels.from_counts(counts, (3, 3))
    assert "9" in str(caught.value)


def test_a_negative_run_is_refused_even_if_the_sum_is_right():
    with pytest.raises(ValueError, match="the runs add up to 9"):
        pixels.from_counts([-1, 10], (3, 3))


def test_uint8_counts_as_object_where_it_is_not_zero():
    mask = np.array([[0, 1], [255, 0]], dtype=np.uint8)
    assert pixels.decode(pixels.encode(mask), (2, 2)).tolist() == [[False, True], [True, False]]


def test_checked_gives_a_sound_rle_back():
    rle = pixels.encode(ring())
    assert pixels.checked(rle, (9, 11)) is rle


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (b"", "the runs add up to 0, the photo has 99 pixels"),
        (pixels.encode(ring())[:-2], "the runs add up to 80, the photo has 99 pixels"),
        (pixels.encode(np.zeros((9, 12), bool)), "exceed|108"),
        (b"o", "invalid RLE"),
        (b"\xff\xfe", "invalid"),
        (b"hello world", "."),
    ],
)
def test_checked_refuses_what_does_not_fit_the_photo(rle, message):
    with pytest.raises(ValueError, match=message):
        pixels.checked(rle, (9, 11))


def test_many_of_none():
    areas, boxes = pixels.areas_and_boxes([], [])
    assert areas.shape == (0,)
    assert boxes.shape == (0, 4)
    assert pixels.iou([], [pixels.encode(ring())], (9, 11)).shape == (0, 1)


# Sets


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))))
def test_union_is_or(masks):
    size = masks.shape[1:]
    found = pixels.decode(pixels.union([pixels.encode(m) for m in masks], size), size)
    np.testing.assert_array_equal(found, masks.any(axis=0))


@given(hnp.arrays(np.bool_, st.tuples(st.integers(2, 5), st.integers(1, 10), st.integers(1, 10))))
def test_iou_is_that_of_numpy(masks):
    size = masks.shape[1:]
    rles = [pixels.encode(m) for m in masks]
    both = (masks[:, None] & masks[None]).sum(axis=(2, 3))
    either = (masks[:, None] | masks[None]).sum(axis=(2, 3))
    expected = np.divide(both, either, out=np.zeros(both.shape), where=either > 0)
    np.testing.assert_allclose(pixels.iou(rles, rles, size), expected, atol=1e-12)


# Polygons


@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=9))
def test_polygons_are_drawn_as_pycocotools_draws_them(points):
    polygon = [float(v) for point in points for v in point]
    expected = reference.frPyObjects([polygon], 30, 40)[0]["counts"]
    assert pixels.from_polygons([polygon], (30, 40)) == expected


def test_a_polygon_of_whole_pixels_is_exact():
    found = pixels.decode(pixels.from_polygons([[1, 2, 4, 2, 4, 5, 1, 5]], (7, 8)), (7, 8))
    expected = np.zeros((7, 8), bool)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(found, expected)


def test_several_polygons_are_one_object():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]
    rle = pixels.from_polygons([left, right], (4, 8))
    assert pixels.area(rle, (4, 8)) == 8
    assert pixels.box(rle, (4, 8)) == (0, 0, 6, 2)


# Parts and holes


def test_parts_are_largest_first_and_diagonal_neighbours_are_one():
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[1, 1] = True
    mask[4:8, 4:8] = True
    found = pixels.parts(mask)
    assert [int(p.sum()) for p in found] == [16, 2]
    assert pixels.label_parts(mask)[1] == 2


@given(MASKS)
def test_parts_are_disjoint_and_make_up_the_mask(mask):
    found = pixels.parts(mask)
    total = np.zeros(mask.shape, int)
    for part in found:
        assert pixels.label_parts(part)[1] == 1
        total += part
    np.testing.assert_array_equal(total, mask.astype(int))
    assert len(found) == pixels.label_parts(mask)[1]


def test_holes():
    assert pixels.holes(ring()) == 1
    assert pixels.holes(~ring()) == 1  # the ring itself, around its middle
    assert pixels.holes(np.zeros((3, 3), bool)) == 0
    assert pixels.holes(np.ones((3, 3), bool)) == 0
    frame = np.ones((5, 5), bool)
    frame[1:4, 1:4] = False
    assert pixels.holes(frame) == 1
    frame[2, 0] = False  # opened to the border
    assert pixels.holes(frame) == 0


@given(MASKS)
def test_holes_do_not_change_with_a_rim(mask):
    assert pixels.holes(np.pad(mask, 3)) == pixels.holes(mask)


@given(MASKS, st.integers(1, 8), st.integers(1, 8), st.data())
def test_shrinking_gives_the_share_of_each_cell_that_is_object(mask, lines, columns, data):
    height, width = mask.shape
    edge = st.integers(0, 4 * width - 1)
    x1 = data.draw(edge) / 4
    x2 = data.draw(st.integers(int(4 * x1) + 1, 4 * width)) / 4
    y1 = data.draw(st.integers(0, 4 * height - 1)) / 4
    y2 = data.draw(st.integers(int(4 * y1) + 1, 4 * height)) / 4
    found = pixels.shrink(pixels.encode(mask), mask.shape, (x1, y1, x2, y2), lines, columns)
    # Every pixel as 4 x lines by 4 x columns points, every cell the mean of the points in it.
    fine = np.repeat(np.repeat(mask, 4 * lines, axis=0), 4 * columns, axis=1)
    part = fine[int(4 * y1) * lines : int(4 * y2) * lines, int(4 * x1) * columns : int(4 * x2) * columns]
    expected = part.reshape(lines, part.shape[0] // lines, columns, part.shape[1] // columns).mean((1, 3))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, 255 * expected, atol=0.51)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_mask_is_empty_if_no_pixel_is_set(mask):
    assert pixels.is_empty(pixels.encode(mask)) == (not mask.any())


@pytest.mark.parametrize("size", [(1, 15), (1, 16), (1, 600), (700, 900), (40_000, 3_000)])
def test_an_empty_mask_is_empty_however_large(size):
    assert pixels.is_empty(pixels.compress([size[0] * size[1]], size))
    assert not pixels.is_empty(pixels.compress([0, size[0] * size[1]], size))
    assert pixels.is_empty(b"")
