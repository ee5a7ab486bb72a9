"""Bulk reading gives what reading row by row gives, and leaves every row that is not plain to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import columns, dataset, pixels
from maskwright.columns import read_columns, run_sums
from maskwright.dataset import from_coco, rle_of
from maskwright.errors import UserError

SIZE = (20, 30)


def mask(seed=0):
    return np.random.default_rng(seed).random(SIZE) < 0.5


def rle(seed=0):
    return {"size": list(SIZE), "counts": pixels.encode(mask(seed)).decode()}


def document(*rows):
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": SIZE[1], "height": SIZE[0]} for n in (5, 0, 9)],
        "categories": [{"id": 3, "name": "bolt"}, {"id": 0, "name": "nut"}],
        "annotations": list(rows),
    }


PLAIN = {"id": 7, "image_id": 9, "category_id": 0, "bbox": [1, 2, 3.5, 4], "area": 12, "iscrowd": 0}


def in_bulk(rows):
    return read_columns(rows, {5: 0, 0: 1, 9: 2}, [SIZE] * 3, rle_of)


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name in ("scores", "areas", "boxes"))
        for name in ("ids", "image_index", "category_ids", "crowd", "scores", "areas", "boxes", "rle_bytes", "rle_ends")
    )


OPTIONS = {
    "segmentation": [None, [], rle(1), rle(2), [[1, 1, 9, 1, 9, 9, 1, 9]]],
    "bbox": [None, [], [1, 2, 3, 4], [0.5, 0, 10.25, 0]],
    "area": [None, 5, 5.5, float("inf"), float("nan")],
    "iscrowd": [0, 1, True, False],
    "score": [None, 0.5, 1, "0.25"],
    "id": [0, 4, 4, 2**40],
}


@given(st.lists(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in OPTIONS.items()})), st.data())
def test_bulk_and_careful_reading_agree(rows, data):
    rows = [row for row in rows if row.get("segmentation") or row.get("bbox")]
    for row in rows:
        row["image_id"] = data.draw(st.sampled_from([5, 0, 9]))
        row["category_id"] = data.draw(st.sampled_from([3, 0]))
    assert in_bulk(rows) is not None
    quick = from_coco(document(*rows), "x.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "read_columns", lambda *_: None)
        careful = from_coco(document(*rows), "x.json")
    assert same(quick, careful)


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "9"},
        {"image_id": 77},
        {"category_id": 0.0},
        {"iscrowd": "0"},
        {"iscrowd": "1"},
        {"iscrowd": None},
        {"iscrowd": 2},
        {"iscrowd": []},
        {"category_id": None},
        {"id": "x"},
        {"id": 2**70},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": None},
        {"area": "large"},
        {"score": float("nan")},
        {"score": float("inf")},
        {"segmentation": {"size": [30, 20], "counts": rle()["counts"]}},
        {"segmentation": {"size": list(SIZE), "counts": [600.0]}},
        {"segmentation": {"size": list(SIZE), "counts": rle()["counts"][:-4]}},
        {"segmentation": {"size": list(SIZE), "counts": "µ"}},
        {"segmentation": {"size": list(SIZE), "counts": ""}},
        {"segmentation": {"size": list(SIZE)}},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": "polygon"},
    ],
)
def test_a_row_that_is_not_plain_is_left_to_the_careful_reader(change):
    assert in_bulk([PLAIN, PLAIN | change]) is None


def test_rows_of_other_types_are_left_to_the_careful_reader():
    assert [in_bulk(rows) for rows in ({}, [3], [None], [[1]], "rows")] == [None] * 5


def test_a_cut_off_rle_is_named_by_the_careful_reader():
    cut = {"size": list(SIZE), "counts": rle()["counts"][:-4]}
    with pytest.raises(UserError, match=r"x.json: annotations\[1\]: the runs add up to \d+, the photo has 600 pixels"):
        from_coco(document(PLAIN, PLAIN | {"segmentation": cut}), "x.json")


def test_a_missing_area_is_the_masks_and_a_missing_box_too():
    bare = {"image_id": 5, "category_id": 3, "segmentation": rle(4)}
    read = from_coco(document(bare), "x.json")
    assert read.areas.tolist() == [mask(4).sum()]
    assert read.boxes[0].tolist() == list(pixels.box(pixels.encode(mask(4)), SIZE))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300), st.integers(0, 10**6)), max_size=8))
def test_the_runs_of_a_whole_rle_add_up_to_its_pixels(shapes):
    def drawn(height, width, seed):
        rng = np.random.default_rng(seed)
        return pixels.encode(rng.random((height, width)) < rng.random() ** 3)

    rles = [drawn(*shape) for shape in shapes]
    sums = run_sums(rles)
    assert sums.sum(axis=0).tolist() == [height * width for height, width, _ in shapes]
    assert sums[1].tolist() == [pixels.area(rle, shape[:2]) for rle, shape in zip(rles, shapes, strict=True)]


def test_many_rles_are_added_up_in_pieces(monkeypatch):
    monkeypatch.setattr(columns, "_CHUNK_BYTES", 1000)
    rles = [pixels.encode(mask(seed)) for seed in range(400)]
    assert sum(map(len, rles)) > 10_000
    assert run_sums(rles).sum(axis=0).tolist() == [600] * 400
    assert run_sums(rles)[1].tolist() == [mask(seed).sum() for seed in range(400)]


@pytest.mark.parametrize("broken", [b"\x00", b"~", b"0000000~", b"oooooooo0", "µ".encode()])
def test_what_is_not_an_rle_has_no_total(broken):
    assert run_sums([pixels.encode(mask()), broken]) is None
