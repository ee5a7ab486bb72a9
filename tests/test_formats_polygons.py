"""COCO with polygons: read back to the same pixels, and what is said about it was measured."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.formats import polygons

RING = np.pad(np.ones((9, 9), dtype=bool), 3)
RING[6:9, 6:9] = False
HARD = {
    "ring": RING,
    "two parts": np.array([[1, 1, 0, 0, 1]] * 3, dtype=bool),
    "line": np.pad(np.ones((1, 9), dtype=bool), 2),
    "one pixel": np.pad(np.ones((1, 1), dtype=bool), 4),
    "diagonal": np.eye(7, dtype=bool),
    "all": np.ones((7, 5), dtype=bool),
}


def dataset(masks, folder=None):
    height, width = masks[0].shape
    annotations = [Annotation(k, 1, 1, pixels.encode(mask)) for k, mask in enumerate(masks, start=1)]
    return Dataset.build([Category(1, "nut")], [Image(1, "a.jpg", width, height)], annotations, folder=folder)


@pytest.mark.parametrize("name", HARD)
def test_hard_shapes_come_back_exactly(tmp_path, name):
    truth = dataset([HARD[name]])
    written = polygons.write(truth, tmp_path)
    again = Dataset.read(tmp_path / "instances.json")
    assert again.rles() == truth.rles()
    assert (written.files, written.objects) == (1, 1)
    assert written.notes == ("polygons that COCO's rasteriser turns into the same pixels (IoU 1): 1 of 1",)


@given(st.data())
@settings(max_examples=35)
def test_write_then_read_is_the_identity(data):
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    masks = data.draw(st.lists(arrays(np.bool_, size).filter(lambda m: m.any()), min_size=1, max_size=4))
    truth = dataset(masks)
    with TemporaryDirectory() as name:
        polygons.write(truth, Path(name))
        again = Dataset.read(Path(name) / "instances.json")
        document = json.loads((Path(name) / "instances.json").read_text())
    assert again.rles() == truth.rles()
    assert (again.boxes == truth.boxes).all()
    for row, mask in zip(document["annotations"], masks, strict=True):  # as pycocotools' annToMask does
        drawn = reference.merge(reference.frPyObjects(row["segmentation"], *size))
        assert drawn["counts"] == pixels.encode(mask)
        assert row["area"] == mask.sum()


def test_touching_objects_stay_apart(tmp_path):
    left = np.zeros((4, 6), dtype=bool)
    left[:, :3] = True
    polygons.write(dataset([left, ~left]), tmp_path)
    again = Dataset.read(tmp_path / "instances.json")
    assert again.rles() == [pixels.encode(left), pixels.encode(~left)]


def test_file_is_named_after_the_split(tmp_path):
    polygons.write(dataset([RING], folder=Path("DATA/val")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["instances_val.json"]


def test_crowds_and_boxes_are_kept_and_counted(tmp_path):
    height, width = RING.shape
    rle = pixels.encode(RING)
    truth = Dataset.build(
        [Category(1, "nut")],
        [Image(1, "a.jpg", width, height)],
        [
            Annotation(1, 1, 1, rle, crowd=True),
            Annotation(2, 1, 1, None, box=(0, 0, 2, 3)),
            Annotation(3, 1, 1, rle, score=0.25),
        ],
    )
    written = polygons.write(truth, tmp_path)
    assert written.notes == (
        "polygons that COCO's rasteriser turns into the same pixels (IoU 1): 1 of 1",
        "crowds kept as run lengths, as in COCO's own files: 1",
        "objects of which the file gives only the box, written without a mask: 1",
    )
    again = Dataset.read(tmp_path / "instances.json")
    assert again.rles() == [rle, b"", rle]
    assert again.crowd.tolist() == [True, False, False]
    assert again.scores[2] == 0.25
    document = json.loads((tmp_path / "instances.json").read_text())
    assert isinstance(document["annotations"][0]["segmentation"]["counts"], list)


def test_what_differs_is_measured_and_named(tmp_path, monkeypatch):
    """No mask is known that differs; a tracing that fills holes shows that it would be said."""
    filled = np.pad(np.ones((9, 9), dtype=bool), 3)
    real = polygons.outlines
    monkeypatch.setattr(polygons, "outlines", lambda rle, size: real(pixels.encode(filled), size))
    written = polygons.write(dataset([RING, filled] + [RING] * 6), tmp_path)
    assert written.notes == (
        "polygons that COCO's rasteriser turns into the same pixels (IoU 1): 1 of 8",
        "objects that differ, worst first: a.jpg, annotation 1: IoU 0.8889; a.jpg, annotation 3: IoU 0.8889;"
        " a.jpg, annotation 4: IoU 0.8889; a.jpg, annotation 5: IoU 0.8889; a.jpg, annotation 6: IoU 0.8889;"
        " and 2 more",
    )


def test_object_without_a_pixel_is_not_exact(tmp_path):
    written = polygons.write(dataset([np.zeros((3, 3), dtype=bool)]), tmp_path)
    assert written.notes[0].endswith("0 of 1")
    assert "a.jpg, annotation 1: IoU 0.0000" in written.notes[1]
