import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image, default_info, from_coco, inside, read_json
from maskwright.errors import UserError

SQUARE = np.zeros((6, 8), dtype=bool)
SQUARE[1:4, 2:5] = True
RLE = pixels.encode(SQUARE)
TOOLS = [Category(1, "hammer"), Category(2, "nut")]
PHOTOS = [Image(1, "a.jpg", 8, 6), Image(2, "ordner/Größe 1.jpg", 8, 6)]


def small():
    return Dataset.build(
        TOOLS,
        PHOTOS,
        [
            Annotation(7, 2, 2, pixels.encode(~SQUARE), crowd=True),
            Annotation(5, 1, 1, RLE),
            Annotation(6, 2, 1, RLE, score=0.25),
        ],
        info={"description": "x"},
        licenses=[{"id": 1, "name": "CC0", "url": ""}],
    )


def document(**changes):
    base = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "hammer"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "segmentation": {"size": [6, 8], "counts": RLE.decode()}}
        ],
    }
    return base | changes


def with_annotation(**changes):
    item = document()["annotations"][0] | changes
    return document(annotations=[{k: v for k, v in item.items() if v != "absent"}])


def problem_of(doc):
    with pytest.raises(UserError) as caught:
        from_coco(doc, "f.json")
    return str(caught.value)


# Building


def test_build_sorts_by_photo_and_takes_area_and_box_from_the_mask():
    data = small()
    assert data.ids.tolist() == [5, 7, 6]
    assert data.first.tolist() == [0, 1, 3]
    assert data.areas.tolist() == [9, 39, 9]
    assert data.boxes[0].tolist() == [2, 1, 5, 4]
    assert data.crowd.tolist() == [False, True, False]
    assert len(data) == 3
    np.testing.assert_array_equal(data.mask(0), SQUARE)
    assert data.annotation(2) == Annotation(6, 2, 1, RLE, False, 0.25, (2, 1, 5, 4), 9)
    assert [a.id for a in data.annotations()] == [5, 7, 6]


def test_build_keeps_a_given_area_and_box():
    data = Dataset.build(TOOLS, PHOTOS, [Annotation(1, 1, 1, RLE, box=(0, 0, 8, 6), area=5.5)])
    assert data.areas.tolist() == [5.5]
    assert data.boxes.tolist() == [[0, 0, 8, 6]]


def test_build_of_a_box_alone_takes_its_area():
    data = Dataset.build(TOOLS, PHOTOS, [Annotation(1, 1, 1, None, box=(1, 1, 4, 3))])
    assert data.areas.tolist() == [6]
    assert data.rle(0) == b""
    assert data.annotation(0).rle is None


def test_build_of_nothing():
    data = Dataset.build([], [], [])
    assert len(data) == 0
    assert data.boxes.shape == (0, 4)
    assert data.first.tolist() == [0]
    assert data.coco()["annotations"] == []


def test_build_refuses_ids_that_stand_twice_by_name():
    with pytest.raises(UserError) as caught:
        Dataset.build([Category(1, "a"), Category(1, "b")], [Image(1, "x.jpg", 2, 2), Image(1, "y.jpg", 2, 2)], [])
    assert str(caught.value) == (
        "image ids must differ\n  y.jpg has the id 1 of another\nfix: number them anew\n\n"
        "category ids must differ\n  'b' has the id 1 of another\nfix: number them anew"
    )


def test_build_refuses_what_is_not_listed():
    with pytest.raises(UserError) as caught:
        Dataset.build(TOOLS, PHOTOS, [Annotation(1, 9, 1, RLE), Annotation(2, 1, 8, RLE)])
    assert str(caught.value) == (
        "annotations name images that are not listed\n  annotation 1 names image 9\nfix: list the images\n\n"
        "annotations name categories that are not listed\n  annotation 2 names category 8\nfix: list the categories"
    )


def test_build_refuses_an_annotation_of_nothing():
    with pytest.raises(UserError, match=r"annotations have neither a mask nor a box\n  annotation 4\nfix: remove them"):
        Dataset.build(TOOLS, PHOTOS, [Annotation(4, 1, 1, None)])


# Writing and reading


def test_written_file_is_complete_coco(tmp_path):
    small().write(tmp_path / "d.json")
    doc = json.loads((tmp_path / "d.json").read_text())
    assert list(doc) == ["info", "licenses", "categories", "images", "annotations"]
    assert doc["images"][1] == {"id": 2, "file_name": "ordner/Größe 1.jpg", "width": 8, "height": 6}
    assert doc["categories"][0] == {"id": 1, "name": "hammer", "supercategory": ""}
    assert doc["annotations"][0] == {
        "id": 5,
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"size": [6, 8], "counts": RLE.decode()},
        "area": 9,
        "bbox": [2, 1, 3, 3],
        "iscrowd": 0,
    }
    assert doc["annotations"][1]["iscrowd"] == 1
    assert doc["annotations"][2]["score"] == 0.25


def same(a, b):
    assert a.coco() == b.coco()
    for name in ("ids", "image_index", "category_ids", "crowd", "scores", "areas", "boxes", "rle_bytes", "rle_ends"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype


def test_reading_undoes_writing(tmp_path):
    small().write(tmp_path / "d.json")
    same(Dataset.read(tmp_path / "d.json"), small())


@st.composite
def datasets(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4))
    images = [Image(10 * n + 3, f"{n}.png", w, h) for n, (h, w) in enumerate(sizes)]
    annotations = []
    for n in range(draw(st.integers(0, 6)) if images else 0):
        image = draw(st.sampled_from(images))
        bits = draw(st.lists(st.booleans(), min_size=image.width * image.height, max_size=image.width * image.height))
        annotations.append(
            Annotation(
                n + 1,
                image.id,
                draw(st.sampled_from([1, 2])),
                pixels.encode(np.array(bits).reshape(image.size)),
                crowd=draw(st.booleans()),
                score=draw(st.none() | st.floats(0, 1)),
            )
        )
    return Dataset.build(TOOLS, images, annotations)


@given(datasets())
def test_any_dataset_survives_json(data):
    same(from_coco(json.loads(json.dumps(data.coco(), allow_nan=False)), "x"), data)


@given(datasets(), st.data())
def test_select_keeps_the_chosen_and_all_photos(data, draw):
    keep = np.array(draw.draw(st.lists(st.booleans(), min_size=len(data), max_size=len(data))), dtype=bool)
    for chosen in (data.select(keep), data.select(np.flatnonzero(keep))):
        assert list(chosen.annotations()) == [a for a, k in zip(data.annotations(), keep, strict=True) if k]
        assert chosen.images == data.images
        assert chosen.categories == data.categories


def test_read_split(tmp_path):
    small().write(tmp_path / "annotations" / "instances_val.json")
    data = Dataset.read_split(tmp_path, "val")
    assert data is not None
    assert data.photo_path(data.images[0]) == tmp_path / "val" / "a.jpg"
    assert Dataset.read_split(tmp_path, "train") is None


def test_polygons_compressed_and_uncompressed_rle_are_read_alike():
    polygon = [[2, 1, 5, 1, 5, 4, 2, 4]]
    runs = {"size": [6, 8], "counts": pixels.runs(RLE).tolist()}
    packed = {"size": [6, 8], "counts": RLE}
    for form in (polygon, runs, packed):
        data = from_coco(with_annotation(segmentation=form), "x")
        assert data.rle(0) == RLE
        assert data.areas.tolist() == [9]


def test_what_the_file_says_of_area_and_box_is_kept():
    data = from_coco(with_annotation(area=1, bbox=[0, 0, 2, 2], iscrowd=1), "x")
    assert data.areas.tolist() == [1]
    assert data.boxes.tolist() == [[0, 0, 2, 2]]
    assert data.crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("given", "crowd"), [(0, False), (1, True), (False, False), (True, True), ("0", False), ("1", True), (None, False)]
)
def test_crowds_are_told_in_numbers_truth_values_and_text(tmp_path, given, crowd):
    document = with_annotation(iscrowd=given)
    assert from_coco(document, "x").crowd.tolist() == [crowd]
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert Dataset.read(tmp_path / "x.json").crowd.tolist() == [crowd]


@pytest.mark.parametrize("given", ["no", "", 2, -1, 0.5, [], {}])
def test_what_is_no_crowd_flag_is_refused_by_the_quick_reader_too(tmp_path, given):
    (tmp_path / "x.json").write_text(json.dumps(with_annotation(iscrowd=given)))
    with pytest.raises(UserError, match=r"x.json: annotations\[0\]: iscrowd is 0 or 1, not "):
        Dataset.read(tmp_path / "x.json")


def test_absent_id_is_the_position_and_absent_parts_are_empty():
    data = from_coco(with_annotation(id="absent"), "x")
    assert data.ids.tolist() == [1]
    assert data.info == {}
    assert len(from_coco({"images": []}, "x")) == 0


def test_image_id_zero_and_gaps_are_kept():
    doc = document(images=[{"id": 0, "file_name": "a.jpg", "width": 8, "height": 6}])
    doc["annotations"][0]["image_id"] = 0
    data = from_coco(doc, "x")
    assert data.images[0].id == 0
    assert data.image_index.tolist() == [0]


def test_ids_in_quotation_marks_are_numbers():
    data = from_coco(with_annotation(id="-7", image_id="3", category_id="1"), "x")
    assert (data.ids.tolist(), data.image_index.tolist(), data.category_ids.tolist()) == ([-7], [0], [1])


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 9}, "image_id 9 is not among the images"),
        ({"image_id": "absent"}, "'image_id' is missing"),
        ({"category_id": "absent"}, "'category_id' is missing"),
        ({"segmentation": "absent"}, "it has neither a segmentation nor a bbox"),
        ({"segmentation": []}, "it has neither a segmentation nor a bbox"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon needs at least three points, as [x1, y1, x2, y2, x3, y3, ...]"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "a polygon needs at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a coordinate that is not a finite number"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "a polygon lies far outside the photo"),
        ({"segmentation": "words"}, "a segmentation is a list of polygons or an RLE with 'size' and 'counts'"),
        (
            {"segmentation": {"size": [8, 6], "counts": ""}},
            "the RLE's size (height, width) (8, 6) is not the photo's (6, 8)",
        ),
        ({"segmentation": {"size": [6, 8], "counts": ""}}, "the runs add up to 0, the photo has 48 pixels"),
        ({"segmentation": {"size": [6, 8], "counts": [40, 9]}}, "the runs add up to 49, the photo has 48 pixels"),
        ({"segmentation": {"size": [6, 8], "counts": [2**70]}}, "too large"),
        ({"segmentation": {"size": [6, 8], "counts": "é"}}, "ascii"),
        ({"bbox": [1, 2, -3, 4]}, "bbox [1, 2, -3, 4] is not four finite numbers x, y, width, height"),
        ({"bbox": [1, 2]}, "not enough values"),
        ({"score": float("nan")}, "score nan is not a finite number"),
        ({"iscrowd": "yes"}, "iscrowd is 0 or 1, not 'yes'"),
        ({"iscrowd": "false"}, "iscrowd is 0 or 1, not 'false'"),
        ({"iscrowd": 2}, "iscrowd is 0 or 1, not 2"),
        ({"iscrowd": [0]}, "iscrowd is 0 or 1, not [0]"),
        ({"id": "seven"}, "seven"),
        ({"id": "1_23"}, "'1_23' is not a whole number"),
        ({"image_id": "0_3"}, "'0_3' is not a whole number"),
        ({"category_id": "0_1"}, "'0_1' is not a whole number"),
        ({"category_id": "\u0661"}, "'\u0661' is not a whole number"),
        ({"category_id": " 1"}, "' 1' is not a whole number"),
    ],
)
def test_annotations_that_cannot_be_read_are_named(changes, message):
    text = problem_of(with_annotation(**changes))
    assert text.startswith("the COCO file has entries that cannot be read\n  f.json: annotations[0]: ")
    assert message in text
    assert text.endswith("fix: mend or remove these entries")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "images[0]: width and height must be positive"),
        ({"width": 100_000, "height": 100_000}, "images[0]: it declares 100,000 x 100,000 pixels; at most 150,000,000"),
        ({"file_name": ""}, "images[0]: file_name is empty"),
        ({"id": None}, "images[0]: int()"),
        ({"width": float("inf")}, "images[0]: cannot convert float infinity"),
        ({"file_name": "a\ud800.jpg"}, "images[0]: file_name 'a\\ud800.jpg' has half a character"),
    ],
)
def test_images_that_cannot_be_read_are_named(changes, message):
    image = document()["images"][0] | changes
    assert message in problem_of(document(images=[image], annotations=[]))


def test_half_a_character_is_refused_in_names_and_kept_elsewhere(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(document(categories=[{"id": 1, "name": "nut\ud800"}])))
    with pytest.raises(UserError) as caught:
        Dataset.load(path)
    assert str(caught.value) == (
        f"the COCO file has entries that cannot be read\n  {path}: categories[0]: name 'nut\\ud800' has half a"
        " character, which cannot be written as UTF-8\nfix: mend or remove these entries"
    )
    path.write_text(json.dumps(document(info={"description": "\ud800"})))
    assert Dataset.load(path).info == {"description": "\ud800"}


def test_all_bad_entries_are_told_at_once():
    doc = document(categories=[{"id": 1}], annotations=[{"id": 1}, {"id": 2, "image_id": 3}])
    text = problem_of(doc)
    assert "categories[0]: 'name' is missing" in text
    assert "annotations[0]: 'image_id' is missing" in text
    assert "annotations[1]: it has neither" in text


@pytest.mark.parametrize("doc", [[], {}, {"images": 3}, "x", None])
def test_what_is_not_coco(doc):
    assert problem_of(doc) == (
        "the file is not a COCO dataset: it needs an object with 'images', 'annotations' and 'categories'\n"
        "  f.json\n"
        "fix: a bare list of results is read by `maskwright evaluate` together with its truth"
    )


def test_files_that_are_no_json(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"the file does not exist\n  .*x.json\nfix: check the path"):
        read_json(path)
    path.write_text('{"images": [')
    with pytest.raises(
        UserError, match=r"the file is not valid JSON\n  .*x.json: .*line 1.*\nfix: write the file anew"
    ):
        Dataset.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="the file is not valid JSON"):
        read_json(path)
    with pytest.raises(UserError, match=r"the file cannot be read\n  .*: Is a directory") as caught:
        read_json(tmp_path)
    assert caught.value.problems[0].fix == "check the path"


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "..", "C:/x.jpg", "\\\\server\\x", "..\\x.jpg", "a\0.jpg"]
)
def test_names_that_lead_outside_are_refused(tmp_path, name):
    with pytest.raises(UserError) as caught:
        inside(tmp_path, name)
    assert str(caught.value) == (
        "file names in a data file must stay inside its folder\n"
        f"  file_name {name!r}\n"
        "fix: make the names relative to the photo folder, without '..'"
    )


@pytest.mark.parametrize("name", ["a.jpg", "b/ä ö.jpg", "..a.jpg", "a..b/c", "x.jpg:y"])
def test_names_that_stay_inside(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


def test_info_is_complete():
    assert list(default_info("what", "who")) == [
        "description",
        "url",
        "version",
        "year",
        "contributor",
        "date_created",
    ]
    assert default_info("what", "who")["contributor"] == "who"


def test_nan_and_other_encodings_are_read_although_the_fast_reader_refuses_them(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"area": Infinity}')
    assert read_json(path) == {"area": float("inf")}
    path.write_bytes('{"name": "Öse"}'.encode("utf-16"))
    assert read_json(path) == {"name": "Öse"}


def test_what_masks_measure_follows_a_selection():
    square = np.zeros((6, 8), dtype=bool)
    square[1:3, 2:7] = True
    rle = {"size": [6, 8], "counts": pixels.encode(square).decode()}
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 3}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": [row | {"id": 1}, row | {"id": 2, "segmentation": rle}],
    }
    chosen = from_coco(document, "x.json").select(np.array([False, True]))
    assert chosen.measured.tolist() == [[10, 2, 1, 5, 2]]
    assert (chosen.areas.tolist(), chosen.boxes.tolist()) == ([3], [[0, 0, 1, 1]])  # the file's, not the mask's
