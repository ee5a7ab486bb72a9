"""YOLO segmentation text: layouts, data.yaml, orphans on both sides, boxes refused, and the exact way back."""

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.formats import Tally, Work, polygons, yolo
from maskwright.formats.plain_yaml import NotPlain
from maskwright.formats.plain_yaml import read as read_yaml
from maskwright.formats.yolo_lines import line_of, object_of
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)
SQUARE = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"
SMALL = "1 0.6 0.6 0.9 0.6 0.9 0.9"
NAMES = "names:\n  0: nut\n  1: bolt\n"


def photo(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(path)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def pair(root, name="a", lines=SQUARE, images="images", labels="labels", suffix=".png"):
    photo(root / images / f"{name}{suffix}")
    text(root / labels / f"{name}.txt", lines + "\n" if lines else "")


@pytest.fixture
def raw(tmp_path):
    """Two photos with two categories."""
    pair(tmp_path, "a", f"{SQUARE}\n{SMALL}")
    pair(tmp_path, "b", SMALL)
    text(tmp_path / "data.yaml", f"train: images\n{NAMES}")
    return tmp_path


def read(place, root=None, said=None, **more):
    settings = PrepareSettings(**more)
    found = yolo.find(place, settings)
    assert found is not None
    root = root or (place if place.is_dir() else place.parent)
    lines = [] if said is None else said
    return yolo.read(found, Work(root, settings, lines.append, map, root))


def error(place, root=None, **more):
    with pytest.raises(UserError) as caught:
        read(place, root, **more)
    return str(caught.value)


def shapes(reading):
    return {
        photo.name: [(m.category, int(pixels.area(m.rle, photo.size))) for m in photo.marks] for photo in reading.photos
    }


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reads_polygons_by_cocos_rule(raw):
    said = []
    reading = read(raw, said=said)
    assert reading.form == "yolo"
    assert reading.categories == ("nut", "bolt")
    first = reading.photos[0]
    assert [m.category for m in first.marks] == ["nut", "bolt"]
    assert first.marks[0].rle == pixels.from_polygons([[6, 4, 30, 4, 30, 20, 6, 20]], SIZE)
    assert said[0] == f"understood: 2 YOLO label files in {raw} with 2 pictures in {raw}"
    assert "understood: 2 categories: nut, bolt" in said
    assert reading.splits == "splits are kept as data.yaml gives them (train)"
    assert {path.name for path in reading.sources} == {"data.yaml", "a.txt", "b.txt"}
    assert reading.skipped == ()


@pytest.mark.parametrize(
    ("images", "labels", "kept"),
    [
        ("images/train", "labels/train", True),
        ("train/images", "train/labels", True),
        ("Images/train", "Labels/train", True),
        ("train", "train", True),
        ("train", "train/labels", True),
        ("data/images/train/deep", "data/labels/train/deep", False),  # below a folder that may be anything
    ],
)
def test_layouts(tmp_path, images, labels, kept):
    pair(tmp_path, "a", images=images, labels=labels)
    other_i, other_l = (p.replace("train", "val") for p in (images, labels))
    pair(tmp_path, "b", images=other_i, labels=other_l)
    text(tmp_path / "classes.txt", "nut\nbolt\n")
    reading = read(tmp_path)
    assert len(reading.photos) == 2
    splits = {"a": "train", "b": "val"} if kept else {"a": None, "b": None}
    assert {photo.path.stem: photo.split for photo in reading.photos} == splits
    assert all(len(photo.marks) == 1 for photo in reading.photos)
    assert reading.categories == ("nut", "bolt")
    assert tmp_path / "classes.txt" in reading.sources


def test_splits_of_folders_are_kept_without_a_data_yaml(tmp_path):
    pair(tmp_path, "a", images="images/train", labels="labels/train")
    pair(tmp_path, "b", images="images/val", labels="labels/val")
    reading = read(tmp_path)
    assert {photo.name: photo.split for photo in reading.photos} == {"a.png": "train", "b.png": "val"}
    assert reading.splits == "splits are kept as the folders give them (train, val)"


def test_roboflow_paths_lead_upwards_but_mean_the_folder(tmp_path):
    for split in ("train", "valid"):
        pair(tmp_path, f"{split}_jpg.rf.1a", images=f"{split}/images", labels=f"{split}/labels")
    text(
        tmp_path / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['hex, nut']\n\n"
        "roboflow:\n  workspace: w\n  license: CC BY 4.0\n  url: https://example.com/a\n",
    )
    text(tmp_path / "README.roboflow.txt", "Exported by hand\n")
    reading = read(tmp_path)
    assert reading.categories == ("hex, nut",)
    assert {p.split for p in reading.photos} == {"train", "val"}
    assert reading.notes == ("data.yaml names test photos that are not there: ../test/images",)
    assert [(s.path.name, s.why) for s in reading.skipped] == [("README.roboflow.txt", "text that is no label file")]


def test_ultralytics_yaml_with_a_base_path_and_a_download_script(tmp_path):
    pair(tmp_path, "a", images="images/train2017", labels="labels/train2017")
    pair(tmp_path, "b", images="images/val2017", labels="labels/val2017")
    pair(tmp_path, "c", images="images/spare", labels="labels/spare")
    text(
        tmp_path / "mine-seg.yaml",
        "# Dataset\npath: ../datasets/mine-seg # root\ntrain: images/train2017 # 1 image\nval: images/val2017\n"
        "test: # optional\nnames:\n  0: nut\n\ndownload: |\n  from x import y\n  y([1, 2\n",
    )
    reading = read(tmp_path / "mine-seg.yaml")
    assert {photo.path.stem: photo.split for photo in reading.photos} == {"a": "train", "b": "val"}
    assert sorted((s.path.name, s.why) for s in reading.skipped) == [
        ("c.png", "photo that mine-seg.yaml does not list"),
        ("c.txt", "label file of a photo that mine-seg.yaml does not list"),
    ]


def test_absolute_paths_of_another_machine(tmp_path):
    pair(tmp_path, "a", images="train/images", labels="train/labels")
    pair(tmp_path, "b", images="val/images", labels="val/labels")
    text(tmp_path / "data.yaml", f"train: /content/drive/x/train/images\nval: C:\\x\\val\\images\n{NAMES}")
    assert {photo.path.stem: photo.split for photo in read(tmp_path).photos} == {"a": "train", "b": "val"}


def test_lists_of_photos(tmp_path):
    for name in "abc":
        pair(tmp_path, name)
    text(tmp_path / "train.txt", "./images/a.png\n./images/b.png\n")
    text(tmp_path / "val.txt", "/home/x/set/images/c.png\n")
    text(tmp_path / "data.yaml", f"train: train.txt\nval: val.txt\n{NAMES}")
    reading = read(tmp_path)
    assert {photo.name: photo.split for photo in reading.photos} == {"a.png": "train", "b.png": "train", "c.png": "val"}
    assert [(s.path.name, s.why) for s in reading.skipped] == [
        ("train.txt", "list of photos"),
        ("val.txt", "list of photos"),
    ]


def test_same_photos_for_train_and_val_are_split_anew(raw):
    text(raw / "data.yaml", f"train: images\nval: images\n{NAMES}")
    reading = read(raw)
    assert reading.splits == ""
    assert {photo.split for photo in reading.photos} == {None}
    assert reading.notes == ("data.yaml gives 2 photos to several splits (train, val): all photos are split anew",)


def test_test_that_is_val_is_val(tmp_path):
    pair(tmp_path, "a", images="images/train", labels="labels/train")
    pair(tmp_path, "b", images="images/val", labels="labels/val")
    text(tmp_path / "data.yaml", f"train: images/train\nval: images/val\ntest: images/val\n{NAMES}")
    reading = read(tmp_path)
    assert {photo.path.stem: photo.split for photo in reading.photos} == {"a": "train", "b": "val"}
    assert reading.notes == ("data.yaml gives the same photos for val and test; they are taken for val",)


def test_training_photos_that_are_not_there(tmp_path):
    pair(tmp_path, "b", images="images/val", labels="labels/val")
    text(tmp_path / "data.yaml", f"train: images/train\nval: images/val\n{NAMES}")
    message = error(tmp_path)
    assert "the data.yaml names photos for training that are not there" in message
    assert f"{tmp_path / 'data.yaml'}: train: images/train" in message


def test_paths_that_lead_outside_are_refused(tmp_path):
    pair(tmp_path / "elsewhere", "x")
    pair(tmp_path / "raw", "a")
    text(tmp_path / "raw" / "data.yaml", f"train: ../elsewhere/images\n{NAMES}")
    message = error(tmp_path / "raw")
    assert "the data.yaml leads to folders outside of its own" in message
    assert "fix: name the folder that holds all of it, with the data.yaml in it" in message


def test_labels_in_a_folder_that_is_named(tmp_path):
    pair(tmp_path, "a", images="pictures", labels="texts")
    reading = read(tmp_path / "texts", tmp_path / "pictures", photos=str(tmp_path / "pictures"))
    assert shapes(reading) == {"a.png": [("class 0", 24 * 16)]}


def test_paired_by_name_only_where_it_is_clear(tmp_path):
    photo(tmp_path / "photos" / "night" / "a.png")
    text(tmp_path / "labels" / "a.txt", SQUARE)
    reading = read(tmp_path)
    assert len(reading.photos[0].marks) == 1
    assert reading.notes[0].startswith("1 label file paired by file name, in whatever subfolder")


def test_one_never_takes_the_label_of_ten(tmp_path):
    for name in ("1", "10", "11"):
        pair(tmp_path, name, "\n".join([SQUARE] * len(name)))
    assert {name: len(marks) for name, marks in shapes(read(tmp_path)).items()} == {
        "1.png": 1,
        "10.png": 2,
        "11.png": 2,
    }


def test_without_names_the_categories_are_numbered(raw):
    (raw / "data.yaml").unlink()
    reading = read(raw)
    assert reading.categories == ("class 0", "class 1")
    assert reading.notes[0] == (
        "no data.yaml or classes.txt gives names: the categories are called class 0, class 1; to name them put a"
        " classes.txt with one name a line beside `labels`"
    )


def test_one_category_can_be_named(tmp_path):
    pair(tmp_path)
    assert read(tmp_path, category="hammer").categories == ("hammer",)


def test_one_name_for_several_categories_is_refused(raw):
    assert "one category name was given, the labels have several" in error(raw, category="x")


def test_categories_without_objects_are_kept_in_order(tmp_path):
    pair(tmp_path)
    text(tmp_path / "data.yaml", "names: [nut, bolt, nail]\n")
    assert read(tmp_path).categories == ("nut", "bolt", "nail")


def test_empty_label_file_is_a_photo_without_objects(raw):
    pair(raw, "c", "")
    assert shapes(read(raw))["c.png"] == []


def test_photo_without_label_file(raw):
    photo(raw / "images" / "c.png")
    message = error(raw)
    assert message == (
        f"1 photo without a label file\n  {raw / 'images' / 'c.png'}\n"
        "fix: in YOLO that means a photo without objects; if so: --unmatched empty; or leave them out: --unmatched"
        " skip; or add the label files"
    )
    assert shapes(read(raw, unmatched="empty"))["c.png"] == []
    left = read(raw, unmatched="skip")
    assert "c.png" not in shapes(left)
    assert [s.why for s in left.skipped] == ["photo without a label file, left out as you said"]


def test_label_file_without_photo(raw):
    text(raw / "labels" / "d.txt", SQUARE)
    message = error(raw)
    assert f"1 label file without a photo\n  {raw / 'labels' / 'd.txt'}" in message
    assert "fix: add the photos, or remove these files; a photo and its label file have one name" in message


def test_photos_that_share_a_label_file(raw):
    photo(raw / "images" / "a.jpg")
    assert "photos share one label file" in error(raw)


def test_labels_without_any_photo(tmp_path):
    text(tmp_path / "labels" / "a.txt", SQUARE)
    message = error(tmp_path)
    assert "there are label files but no photos of theirs" in message
    assert "--photos FOLDER" in message


def test_boxes_are_refused_with_words(tmp_path):
    pair(tmp_path, "a", "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1")
    pair(tmp_path, "b", "0 0.5 0.5 0.2 0.2")
    message = error(tmp_path)
    assert message == (
        "the label files hold boxes, not masks\n"
        f"  3 lines of 2 files with 4 numbers each, such as {tmp_path / 'labels' / 'a.txt'}\n"
        "fix: export the dataset as YOLO segmentation, with polygons; a box does not tell which pixels are the object,"
        " so where only boxes were drawn the outlines must be drawn"
    )


def test_single_boxes_are_named_by_line(raw):
    text(raw / "labels" / "b.txt", f"{SQUARE}\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2 0.9\n")
    message = error(raw)
    assert "label lines hold a box (4 numbers), not the outline of an object" in message
    assert f"{raw / 'labels' / 'b.txt'}, line 2: a box\n" in message
    assert f"{raw / 'labels' / 'b.txt'}, line 3: a box and a score" in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9", "an odd count of coordinates (7); if the last is a score, leave it out"),
        ("0 0.1 0.2", "a class and 2 numbers; a polygon has at least 6"),
        ("nut 0.1 0.1 0.5 0.1 0.5 0.5", "'nut 0.1 0.1 0.5 0.1 0.5 0.5' are not numbers"),
        ("0 nan 0.1 0.5 0.1 0.5 0.5", "it has numbers that are not finite"),
        ("0.5 0.1 0.1 0.5 0.1 0.5 0.5", "the category id 0.5 is no whole number from 0"),
        ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "the category id -1 is no whole number from 0"),
        ("7 0.1 0.1 0.5 0.1 0.5 0.5", "id 7; names are there for 0, 1"),
        ("0 60 40 90 40 90 80", "coordinates lie outside 0..1: they must be shares of the photo's width and height"),
        ("0 60 40 90 40 90 80", "line 2: 90\nfix: divide x by the photo's width and y by its height;"),
    ],
)
def test_lines_that_cannot_be_read(raw, line, said):
    text(raw / "labels" / "b.txt", f"{SQUARE}\n{line}\n")
    message = error(raw)
    assert said in message
    assert f"{raw / 'labels' / 'b.txt'}, line 2" in message


def test_category_without_a_name_says_what_to_do(raw):
    text(raw / "labels" / "b.txt", "7 0.1 0.1 0.5 0.1 0.5 0.5\n")
    message = error(raw)
    assert "label lines have a category id without a name" in message
    assert "fix: add the names (in data.yaml or classes.txt), or correct these lines; ids start at 0" in message


def test_label_file_that_is_no_text(raw):
    (raw / "labels" / "b.txt").write_bytes(b"\xff\xfe0\x00 \x00")
    assert f"label files cannot be read\n  {raw / 'labels' / 'b.txt'}: is no text in UTF-8" in error(raw)


def test_photo_that_cannot_be_read(raw):
    (raw / "images" / "b.png").write_bytes(b"")
    assert f"1 picture file cannot be read\n  {raw / 'images' / 'b.png'}: is empty (0 bytes)" in error(raw)


def test_coordinates_a_little_outside_are_cut_and_counted(tmp_path):
    pair(tmp_path, "a", "0 -0.01 -0.01 0.5 -0.01 0.5 1.02 -0.01 1.02")
    reading = read(tmp_path)
    assert shapes(reading) == {"a.png": [("class 0", 30 * 40)]}
    assert [(m.what, m.count) for m in reading.mends] == [
        ("polygons a little outside of the photo, cut at its edge", 1)
    ]


def test_object_without_a_pixel_is_counted(raw):
    text(raw / "labels" / "b.txt", f"{SQUARE}\n0 0.5 0.5 0.5 0.5 0.5 0.5\n")
    reading = read(raw)
    assert len(shapes(reading)["b.png"]) == 1
    assert [(m.what, m.count) for m in reading.mends] == [("objects without a pixel, left out", 1)]


def test_four_corners_everywhere_are_pointed_out(tmp_path):
    pair(tmp_path, "a", "\n".join([SQUARE] * 3))
    assert read(tmp_path).notes[-1].startswith("all 3 objects have exactly four corners: if these are turned boxes")


def test_no_object_at_all(tmp_path):
    pair(tmp_path, "a", "")
    text(tmp_path / "data.yaml", NAMES)
    assert "no label file marks an object" in error(tmp_path)


def test_outline_without_end_is_refused(raw, monkeypatch):
    monkeypatch.setattr("maskwright.formats.shapes.LONGEST", 1000)
    text(raw / "labels" / "b.txt", "0 " + "0 0 1 1 0 1 1 0 " * 10)
    said = f"{raw / 'labels' / 'b.txt'}, line 1: a polygon's outline is 2,400 pixels long; at most 1,000 are followed"
    assert said in error(raw)


def test_label_file_that_is_too_large(raw, monkeypatch):
    monkeypatch.setattr(yolo, "MOST_BYTES", 40)
    text(raw / "labels" / "b.txt", SQUARE * 10)
    assert f"label files cannot be read\n  {raw / 'labels' / 'a.txt'}: is larger than 0 MB" in error(raw)


def test_pipe_that_is_called_a_label_file(raw):
    (raw / "labels" / "b.txt").unlink()
    os.mkfifo(raw / "labels" / "b.txt")
    assert f"label files cannot be read\n  {raw / 'labels' / 'b.txt'}: is no plain file" in error(raw)


def test_yaml_that_has_nothing_to_do_with_it_is_not_read(tmp_path):
    text(tmp_path / "config.yaml", "names: &anchor [a]\n")
    text(tmp_path / "notes.txt", "these are masks\n")
    assert yolo.find(tmp_path, PrepareSettings()) is None


def test_keypoints_are_refused(raw):
    text(raw / "data.yaml", f"train: images\nkpt_shape: [17, 3]\n{NAMES}")
    assert "the labels are keypoints (pose): boxes with points, and no masks" in error(raw)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("nc: 3\nnames: [a, b]\n", "nc is 3, and there are 2 names"),
        ("names: [a, a]\n", "'a' stands 2 times"),
        ("names: ['', a]\n", "the name of category 0 is empty"),
        ("names: {x: a}\n", "'x' is no category id; ids are whole numbers from 0"),
        ("names: &x [a]\n", "line 1: '&x [a]' is more YAML than is read here"),
        ("names: [[a]]\n", "line 1: lists within lists are not read here"),
        ("names:\n  0: a\n   1: b\n", "line 2: the lines below a key must be indented alike, by blanks"),
        ("names: a\n", "names is 'a', and must be a list"),
        ("names:\n", "names is empty"),
        ("names: [a]\nnames: [b]\n", "line 2: 'names' stands twice"),
        ("names: [a]\nbar\n", "line 2: 'bar' is no 'key: value'"),
    ],
)
def test_data_yaml_that_cannot_be_read(raw, yaml, said):
    text(raw / "data.yaml", yaml)
    assert said in error(raw)


def test_several_yaml_files(raw):
    (raw / "data.yaml").unlink()
    text(raw / "x.yaml", NAMES)
    text(raw / "y.yaml", NAMES)
    assert "there are several files with category names" in error(raw)


def test_names_file_with_doubles(tmp_path):
    pair(tmp_path)
    text(tmp_path / "classes.txt", "nut\nnut\n")
    assert "category names must differ, one a line" in error(tmp_path)


def test_other_folders_are_not_taken(tmp_path):
    photo(tmp_path / "images" / "a.png")
    photo(tmp_path / "labels" / "a.png")
    text(tmp_path / "notes.txt", "these are masks\n")
    assert yolo.find(tmp_path, PrepareSettings()) is None
    text(tmp_path / "labels" / "kitti.txt", "Car 0.0 0 1.5 10 20 30 40\n")
    assert yolo.find(tmp_path, PrepareSettings()) is None
    assert yolo.find(text(tmp_path / "ci.yaml", "jobs:\n  a: b\n"), PrepareSettings()) is None


def test_form_that_was_said_but_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no YOLO label file \(\.txt\)"):
        yolo.find(tmp_path, PrepareSettings(form="yolo"))


def test_plain_yaml_leaves_scalars_alone():
    found = read_yaml("names: [no, 1.0, \"a # b\", 'it''s']  # c\nx: {deep: [1]}\n", frozenset({"names"}))
    assert found == {"names": ["no", "1.0", "a # b", "it's"]}
    with pytest.raises(NotPlain, match=r"line 1: '!!python/object:os\.system' is more YAML than is read here"):
        read_yaml("names: !!python/object:os.system\n", frozenset({"names"}))


# ── writing, and the way back ────────────────────────────────────────────────────────────────────────────────────────

RING = np.pad(np.ones((9, 9), dtype=bool), 3)
RING[6:9, 6:9] = False
HARD = {
    "ring": RING,
    "two parts": np.array([[1, 1, 0, 0, 1]] * 3, dtype=bool),
    "line": np.pad(np.ones((1, 9), dtype=bool), 2),
    "one pixel": np.pad(np.ones((1, 1), dtype=bool), 4),
    "corner": np.eye(1, 12, 11, dtype=bool).repeat(1, axis=0),
    "all": np.ones((7, 5), dtype=bool),
}


def dataset(masks, folder=None, **more):
    """One photo for each list of masks."""
    images = [Image(n, f"p{n}.png", m[0].shape[1], m[0].shape[0]) for n, m in enumerate(masks, start=1)]
    rows = [(n, mask) for n, group in enumerate(masks, start=1) for mask in group]
    annotations = [
        Annotation(k, n, 1 + k % 2, pixels.encode(mask), **more) for k, (n, mask) in enumerate(rows, start=1)
    ]
    return Dataset.build([Category(1, "nut"), Category(2, 'b: "x" #1')], images, annotations, folder=folder)


def back(data, folder):
    for image in data.images:
        photo(folder / "images" / image.file_name, image.size)
    return read(folder)


@pytest.mark.parametrize("name", HARD)
def test_hard_shapes_come_back_exactly(tmp_path, name):
    mask = HARD[name]
    data = dataset([[mask]])
    written = yolo.write(data, tmp_path)
    assert written.notes[0] == "every object is one polygon, read back to the same pixels (IoU 1): 1 of 1"
    reading = back(data, tmp_path)
    assert [(m.category, m.rle) for p in reading.photos for m in p.marks] == [('b: "x" #1', pixels.encode(mask))]


@given(st.data())
@settings(max_examples=30)
def test_write_then_read_is_the_identity(data):
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    masks = data.draw(st.lists(arrays(np.bool_, size).filter(lambda m: m.any()), min_size=1, max_size=4))
    truth = dataset([masks])
    with TemporaryDirectory() as name:
        yolo.write(truth, Path(name))
        reading = back(truth, Path(name))
    assert [m.rle for m in next(iter(reading.photos)).marks] == [pixels.encode(mask) for mask in masks]
    assert reading.categories == ("nut", 'b: "x" #1')


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(0, 2**32))
@settings(max_examples=100)
def test_corners_of_large_photos_survive_the_digits(height, width, seed):
    rng = np.random.default_rng(seed)
    window = rng.random((min(height, 5), min(width, 5))) < 0.6
    window[0, 0] = True
    x, y = int(rng.integers(0, width - window.shape[1] + 1)), int(rng.integers(0, height - window.shape[0] + 1))
    rle = pixels.encode_window(window, x, y, (height, width))
    assert object_of(line_of(3, rle, (height, width)).split(), (height, width), None, "", Tally()) == ("class 3", rle)


@given(
    st.lists(st.tuples(st.integers(0, 6400), st.integers(0, 4800)), min_size=3, max_size=9),
    st.sampled_from(["{:.6f}", "{:.8f}", "{!r}"]),
)
@settings(max_examples=200)
def test_polygons_in_yolo_and_coco_give_the_same_pixels(corners, how):
    """Coordinates with one decimal lie half-way between two of the rasteriser's steps as often as not."""
    polygon = [v / 10 for corner in corners for v in corner]
    size = (480, 640)
    shares = [how.format(v / (640 if i % 2 == 0 else 480)) for i, v in enumerate(polygon)]
    truth = pixels.from_polygons([polygon], size)
    _, rle = object_of(["0", *shares], size, None, "", Tally())
    assert rle == (truth if pixels.area(truth, size) else None)


def test_what_yolo_cannot_say_is_counted(tmp_path):
    mask = HARD["line"]
    rle = pixels.encode(mask)
    height, width = mask.shape
    data = Dataset.build(
        [Category(1, "nut")],
        [Image(1, "a.png", width, height), Image(2, "b.png", width, height)],
        [
            Annotation(1, 1, 1, rle, score=0.5),
            Annotation(2, 1, 1, rle, crowd=True),
            Annotation(3, 1, 1, None, box=(0, 0, 2, 2)),
            Annotation(4, 1, 1, pixels.encode(np.zeros_like(mask))),
        ],
    )
    written = yolo.write(data, tmp_path)
    assert (written.files, written.objects) == (3, 1)
    assert written.notes == (
        "every object is one polygon, read back to the same pixels (IoU 1): 1 of 1",
        "put 2 photos into images/, by the names of the COCO file",
        "1 crowds left out: YOLO has no word for many objects in one mask",
        "1 objects without a mask left out: a box is no mask",
        "1 objects without a pixel left out",
        "1 scores not kept: YOLO's label lines have no place for them",
    )
    assert (tmp_path / "labels" / "b.txt").read_text() == ""


def test_photos_are_linked_where_they_are_known(tmp_path):
    photo(tmp_path / "raw" / "sub" / "a.png", (7, 13))
    mask = np.zeros((7, 13), dtype=bool)
    mask[2, 3] = True
    data = Dataset.build(
        [Category(1, "nut")],
        [Image(1, "sub/a.png", 13, 7)],
        [Annotation(1, 1, 1, pixels.encode(mask))],
        folder=tmp_path / "raw",
    )
    written = yolo.write(data, tmp_path / "out")
    assert (tmp_path / "out" / "images" / "sub" / "a.png").stat().st_ino == (tmp_path / "raw/sub/a.png").stat().st_ino
    assert (tmp_path / "out" / "labels" / "sub" / "a.txt").read_text() == (
        "0 0.230769 0.285714 0.307692 0.285714 0.307692 0.428571 0.230769 0.428571\n"
    )
    assert len(written.notes) == 1
    assert next(iter(read(tmp_path / "out").photos)).marks[0].rle == pixels.encode(mask)


def test_photos_that_differ_in_the_ending_only_are_refused(tmp_path):
    images = [Image(1, "a.jpg", 5, 7), Image(2, "A.png", 5, 7)]
    with pytest.raises(UserError) as caught:
        yolo.write(Dataset.build([Category(1, "nut")], images, []), tmp_path)
    assert str(caught.value) == (
        "photos would share one YOLO label file, which is named after the photo without its ending\n  a.jpg and A.png\n"
        "fix: give the photos names that differ in more than the ending"
    )
    assert list(tmp_path.iterdir()) == []


def test_yolo_and_coco_of_the_same_photos_give_the_same_data(tmp_path):
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for n in range(1, 9):
        size = (30 + n, 50 - n)
        photo(tmp_path / "photos" / f"p{n}.png", size, seed=n)
        images.append(Image(n, f"p{n}.png", size[1], size[0]))
        masks = [RING, rng.random(size) < 0.5, np.ones(size, dtype=bool)]
        for mask in masks:
            window = pixels.encode_window(np.asarray(mask[:15, :15]), n, n, size)
            annotations.append(Annotation(len(annotations) + 1, n, 1 + n % 2, window))
    truth = Dataset.build([Category(1, "nut"), Category(2, "bolt")], images, annotations, folder=tmp_path / "photos")
    for name, form in (("yolo", yolo), ("coco", polygons)):
        (tmp_path / name).mkdir()
        form.write(truth, tmp_path / name)
    (tmp_path / "photos").rename(tmp_path / "coco" / "images")
    first, second = (prepare(tmp_path / name, out=tmp_path / f"{name}-data") for name in ("yolo", "coco"))
    assert (first.form, second.form) == ("yolo", "coco")
    assert first.photos == second.photos
    for split in first.photos:
        assert rles(first.split(split)) == rles(second.split(split))


def rles(data):
    names = {category.id: category.name for category in data.categories}
    return {(data.images[a.image_id - 1].file_name, names[a.category_id], a.rle) for a in data.annotations()}


def test_no_output_among_the_labels(raw):
    with pytest.raises(UserError, match="the output must not be the input, hold it, or lie in a folder of photos or"):
        prepare(raw, out=raw / "labels" / "data")


def test_prepare_takes_the_folders_of_photos_and_labels(raw, tmp_path_factory):
    prepared = prepare(raw / "images", raw / "labels", tmp_path_factory.mktemp("out") / "data")
    assert (prepared.form, prepared.categories, sum(prepared.objects.values())) == ("yolo", ("nut", "bolt"), 3)


@given(st.data())
@settings(max_examples=80)
def test_random_damage_is_an_error_or_a_reading(data):
    with TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(name)
        pair(root, "a", f"{SQUARE}\n{SMALL}")
        text(root / "data.yaml", f"train: images\n{NAMES}")
        target = data.draw(st.sampled_from(["labels/a.txt", "data.yaml"]))
        content = bytearray((root / target).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
            if not content:
                break
        (root / target).write_bytes(bytes(content))
        caught = outcome(root)
        assert caught is None or str(caught)


def outcome(root):
    """Read a damaged folder: whatever is raised, it is our error."""
    try:
        found = yolo.find(root, PrepareSettings())
        if found is not None:
            yolo.read(found, Work(root, PrepareSettings(), lambda _line: None, map, root))
    except UserError as error:
        return error
    return None
