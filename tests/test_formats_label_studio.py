"""Label Studio: brush masks from their bit stream, polygons and ellipses in percent, tasks and their photos."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.formats import Work, label_studio
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)
SQUARE = [[10, 10], [40, 10], [40, 50], [10, 50]]  # percent


def photo(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(path)
    return path


def pack(values, sizes=(3, 4, 8, 16), word=8, literal=False):
    """Write values as the brush does: runs of one value, and (if `literal`) single ones as stretches of many values."""
    values = [int(v) for v in values]
    bits = [f"{len(values):032b}", f"{word - 1:05b}", *(f"{s - 1:04b}" for s in sizes)]

    def head(repeated, length):
        which = next(k for k, s in enumerate(sizes) if length <= 1 << s)
        return f"{repeated:b}{which:02b}{length - 1:0{sizes[which]}b}"

    at = 0
    while at < len(values):
        end = at + 1
        most = 1 << max(sizes)
        if literal and len(set(values[at : at + 2])) == 2:
            while end < len(values) and end - at < most and values[end] != values[end - 1]:
                end += 1
            bits += [head(0, end - at), *(f"{v:0{word}b}" for v in values[at:end])]
        else:
            while end < len(values) and end - at < most and values[end] == values[at]:
                end += 1
            bits += [head(int(end - at > 1), end - at), f"{values[at]:0{word}b}"]
        at = end
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def brush_values(mask):
    rgba = np.zeros((*mask.shape, 4), dtype=np.uint8)
    rgba[mask] = (31, 200, 77, 255)
    return rgba.ravel()


def result(kind, value, label="nut", size=SIZE, **more):
    value = {**value, f"{kind}labels": [label] if isinstance(label, str) else label}
    return {
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": value,
        "id": f"r{len(str(value))}{label}",
        "from_name": "tag",
        "to_name": "image",
        "type": f"{kind}labels",
        "origin": "manual",
        **more,
    }


def brush(mask, label="nut", literal=True, **more):
    return result(
        "brush", {"format": "rle", "rle": pack(brush_values(np.asarray(mask)), literal=literal)}, label, **more
    )


def polygon(points=SQUARE, label="nut", **more):
    return result("polygon", {"points": points, "closed": True}, label, **more)


def task(image, *results, number=1, annotations=None, **more):
    done = [{"id": 7, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}]
    return {
        "id": number,
        "annotations": done if annotations is None else annotations,
        "drafts": [],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        "project": 1,
        **more,
    }


def export(path, *tasks):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(tasks)))
    return path


def one_photo(tmp_path, *results, **more):
    photo(tmp_path / "a.jpg")
    export(tmp_path / "project-1.json", task("/data/upload/1/0a1b2c3d-a.jpg", *results, **more))
    return tmp_path


def read(place, said=None, **given_settings):
    chosen = PrepareSettings.parse(given_settings)
    found = label_studio.find(place, chosen)
    assert found is not None
    root = place if place.is_dir() else place.parent
    work = Work(root, chosen, (said if said is not None else []).append, map, Path("/nowhere"))
    return label_studio.read(found, work)


def refused(place, **given_settings):
    with pytest.raises(UserError) as caught:
        read(place, **given_settings)
    return str(caught.value)


def masks(reading, number=0):
    one = list(reading.photos)[number]
    return [pixels.decode(mark.rle, one.size) for mark in one.marks]


def names(reading):
    return [mark.category for photo in reading.photos for mark in photo.marks]


# ── the bit stream ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bit_stream_of_the_brush_is_unpacked():
    # 6 values of 8 bits; sizes 3, 4, 8, 16: a run of 5 x 0, then a single 255, padded with zeros.
    head = [f"{6:032b}", "00111", "0010", "0011", "0111", "1111"]
    runs = ["1", "00", "100", "00000000", "0", "00", "000", "11111111"]
    bits = "".join(head + runs) + "0000000"
    data = bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))
    assert label_studio.unpack(data, 6).tolist() == [0, 0, 0, 0, 0, 255]
    assert list(data) == pack([0, 0, 0, 0, 0, 255])


@given(
    st.lists(st.sampled_from([0, 0, 0, 7, 255]), min_size=1, max_size=300),
    st.booleans(),
    st.tuples(*[st.integers(1, 16)] * 3),
)
def test_unpacking_is_the_inverse_of_packing(values, literal, sizes):
    assert label_studio.unpack(bytes(pack(values, (*sizes, 9), literal=literal)), len(values)).tolist() == values


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "its rle is cut off"),
        (bytes(pack([1] * 16))[:-1], "its rle is cut off"),
        (bytes(pack([1, 2, 3] * 5 + [4], literal=True))[:-3], "its rle is cut off"),
        (bytes(pack([1] * 17)), "its rle has 17 values, the photo has 4 pixels of 4"),
        (bytes(pack([1] * 16, word=16)), "its rle has values of 16 bits; 8 are read"),
        (b"\0\0\0\x10" + bytes(pack([1] * 20))[4:], "its rle runs beyond the photo"),
    ],
)
def test_a_broken_bit_stream_is_an_error(data, text):
    with pytest.raises(ValueError, match=text):
        label_studio.unpack(data, 16)


# ── regions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hard_objects():
    def blank():
        return np.zeros(SIZE, dtype=bool)

    ring, parts, line, dot, left, right, border = (blank() for _ in range(7))
    ring[5:30, 5:30], ring[10:20, 10:20] = True, False
    parts[2:6, 2:6] = parts[30:35, 40:50] = True
    line[3:37, 7] = True
    dot[12, 34] = True
    left[10:20, 10:20], right[10:20, 20:30] = True, True
    border[:, 0] = border[-1] = border[0, -3:] = True
    return [ring, parts, line, dot, left, right, border, ~blank()]


@pytest.mark.parametrize("literal", [True, False])
def test_brush_masks_are_exact(tmp_path, literal):
    regions = [brush(mask, literal=literal, id=f"r{k}") for k, mask in enumerate(hard_objects())]
    said = []
    reading = read(one_photo(tmp_path, *regions), said)
    for found, expected in zip(masks(reading), hard_objects(), strict=True):
        assert np.array_equal(found, expected)
    assert said[0] == f"understood: 1 Label Studio file in {tmp_path} with 1 photo and 8 brush regions"
    assert said[1] == "understood: 1 category: nut"
    assert reading.mends == ()


def test_soft_edges_are_kept_and_counted(tmp_path):
    values = brush_values(hard_objects()[0]).reshape(*SIZE, 4)
    values[0, 0, 3] = 3
    reading = read(one_photo(tmp_path, result("brush", {"format": "rle", "rle": pack(values.ravel())})))
    assert masks(reading)[0][0, 0]
    assert "brush masks with soft edges, every touched pixel kept: 1" in str(reading.mends[0])


def test_polygons_are_in_percent(tmp_path):
    found = masks(read(one_photo(tmp_path, polygon())))[0]
    assert found[4:20, 6:24].all()
    assert found.sum() == 16 * 18


def test_ellipses_are_in_percent_and_degrees(tmp_path):
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10}
    place = one_photo(tmp_path, result("ellipse", value, id="a"), result("ellipse", {**value, "rotation": 40}, id="b"))
    found = masks(read(place))
    assert abs(found[0].sum() - math.pi * 15 * 4) < 10
    assert found[1][28, 40]
    assert not found[1][12, 40]


def test_shape_and_label_may_stand_in_two_results(tmp_path):
    mask = hard_objects()[0]
    value = {"format": "rle", "rle": pack(brush_values(mask))}
    shape = result("brush", value, id="x1", type="brush")
    del shape["value"]["brushlabels"]
    label = {**shape, "type": "labels", "value": {**value, "labels": ["bolt"]}}
    reading = read(one_photo(tmp_path, shape, label))
    assert names(reading) == ["bolt"]
    assert np.array_equal(masks(reading)[0], mask)


def test_answers_about_no_region_are_counted(tmp_path):
    choice = {"id": "c", "type": "choices", "value": {"choices": ["blurred"]}, "from_name": "q", "to_name": "image"}
    reading = read(one_photo(tmp_path, polygon(), choice))
    assert [str(mend) for mend in reading.mends] == ["answers that mark no region (choices, texts, ...), not kept: 1"]


def test_answers_about_a_region_are_no_labels_of_it(tmp_path):
    region = {**polygon(), "id": "r1"}
    shape = {"points": SQUARE, "closed": True}
    answers = [
        {**region, "type": "choices", "value": {**shape, "choices": ["rusty"]}},
        {**region, "type": "textarea", "value": {**shape, "text": ["a nut"]}},
        {**region, "type": "rating", "value": {**shape, "rating": 4}},
    ]
    reading = read(one_photo(tmp_path, region, *answers))
    assert names(reading) == ["nut"]
    assert [str(mend) for mend in reading.mends] == ["answers that mark no region (choices, texts, ...), not kept: 3"]


def test_regions_of_one_id_are_one_only_if_they_are_equal(tmp_path):
    first, other = polygon(id="r1"), polygon([[50, 50], [90, 50], [90, 90]], id="r1")
    reading = read(one_photo(tmp_path, first, other, first))
    assert names(reading) == ["nut", "nut"]
    assert len({mark.rle for mark in reading.photos[0].marks}) == 2
    assert [str(mend) for mend in reading.mends] == ["regions that stand twice in an annotation, kept once: 1"]


def rectangle(x, y, width, height, label="nut", **more):
    return result("rectangle", {"x": x, "y": y, "width": width, "height": height, "rotation": 0}, label, **more)


def test_only_boxes_are_refused_in_words(tmp_path):
    text = refused(one_photo(tmp_path, rectangle(1, 2, 30, 30)))
    assert "the Label Studio file has only boxes, and a box tells no outline" in text
    assert "draw with the brush or as polygons in Label Studio, then export again as JSON" in text


def test_a_box_beside_outlines_is_an_error_unless_it_is_around_one(tmp_path):
    place = one_photo(tmp_path, polygon(), rectangle(10, 10, 30, 40), rectangle(60, 60, 20, 20, "bolt"))
    text = refused(place)
    assert "objects are given by a box only, which tells no outline" in text
    assert "rectangle region 3 ('bolt')" in text
    assert "rectangle region 2" not in text
    reading = read(one_photo(tmp_path, polygon(), rectangle(10, 10, 30, 40)))
    assert "boxes of objects that have an outline too, left out: 1" in str(reading.mends[0])


def test_points_are_refused_by_name(tmp_path):
    text = refused(one_photo(tmp_path, polygon(), result("keypoint", {"x": 3, "y": 4, "width": 0.3}, "tip")))
    assert "points and lines have no area, so they are no masks" in text
    assert "task" not in text.partition("a.jpg: ")[2]
    assert "a.jpg: keypoint region 2 ('tip')" in text


def test_regions_on_a_turned_photo_are_refused(tmp_path):
    text = refused(one_photo(tmp_path, polygon(image_rotation=90)))
    assert "regions were drawn on a photo that was turned in Label Studio" in text
    assert "a.jpg: polygon region 1 ('nut'): image_rotation 90" in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (polygon(label=[]), "it has no label"),
        (polygon(label=["a", "b"]), "it has several labels"),
        (polygon(points=3), "its points are not pairs of numbers x, y in percent"),
        (polygon(points=[[1, 2], [3], [4, 5]]), "its points are not pairs of numbers x, y in percent"),
        (polygon(points=[[1, 2], [3, 1e9], [4, 5]]), "a polygon reaches far outside of the photo"),
        (result("ellipse", {"x": 1, "y": 2, "radiusX": 3}), "'radiusY' is missing"),
        (result("ellipse", {"x": 1, "y": 2, "radiusX": "3", "radiusY": 4}), "are not numbers"),
        (result("rectangle", {"x": 1, "y": 2, "width": None, "height": 4}), "are not numbers"),
        (result("brush", {"format": "rle", "rle": [1, 2, 999]}), "its rle is not a list of bytes"),
        (result("brush", {"format": "rle", "rle": [1, 2]}), "its rle is cut off"),
        (result("bitmask", {"imageDataURL": "data:"}), "a region of this kind is not known"),
        (polygon(size=(20, 30)), "it was drawn on a photo of 30 x 20, this one is 60 x 40"),
    ],
)
def test_a_region_that_cannot_be_read_is_named(tmp_path, wrong, text):
    message = refused(one_photo(tmp_path, polygon(id="first"), wrong))
    assert "the Label Studio file has regions that cannot be read" in message
    assert "project-1.json: a.jpg: " in message
    assert text in message


# ── tasks and photos ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("/data/upload/1/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/upload/0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg"),
        ("/data/local-files/?d=photos/my%20nut.jpg", "my nut.jpg"),
        ("s3://bucket/photos/a.jpg", "a.jpg"),
        ("https://host/x/a%2Bb.jpg?token=1", "a+b.jpg"),
        ("/data/upload/1/0a1b2c3d-my_nut_1.jpg", "my nut (1).jpg"),
        ("C:\\photos\\a.jpg", "a.jpg"),
    ],
)
def test_photos_are_found_by_the_last_part_of_their_url(tmp_path, url, file):
    photo(tmp_path / "images" / file)
    export(tmp_path / "export.json", task(url, polygon()))
    assert [p.name for p in read(tmp_path).photos] == [file]


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("/data/upload/1/0a1b2c3d-a.jpg", 0),
        ("/data/upload/0a1b2c3d-a.jpg", 0),
        ("/data/local-files/?d=images/0a1b2c3d-a.jpg", 0),
        ("/data/local-files/?d=cam2/0a1b2c3d-a.jpg", 1),
    ],
)
def test_only_folders_of_photos_can_be_others_than_the_file_says(tmp_path, url, count):
    photo(tmp_path / "images/0a1b2c3d-a.jpg")
    export(tmp_path / "export.json", task(url, polygon()))
    what = "photos found by their name in another folder than the file says"
    assert sum(mend.count for mend in read(tmp_path).mends if mend.what == what) == count


def test_the_photo_may_stand_under_another_name(tmp_path):
    photo(tmp_path / "a.jpg")
    export(tmp_path / "export.json", {**task("", polygon()), "data": {"pic": "/data/upload/a.jpg", "note": "dull"}})
    assert [p.name for p in read(tmp_path).photos] == ["a.jpg"]


def test_json_min_is_read(tmp_path):
    photo(tmp_path / "a.jpg")
    region = {"points": SQUARE, "closed": True, "polygonlabels": ["nut"], "original_width": 60, "original_height": 40}
    row = {"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "tag": [region], "annotator": 1, "annotation_id": 1}
    export(tmp_path / "min.json", row)
    assert masks(read(tmp_path))[0].sum() == 16 * 18


def test_one_annotation_with_its_task_as_a_storage_gets_it(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    for name in "ab":
        document = {
            "id": 1,
            "result": [polygon(label=name)],
            "was_cancelled": False,
            "task": {"data": {"image": f"{name}.jpg"}},
        }
        (tmp_path / name).write_text(json.dumps(document))
        (tmp_path / name).rename(tmp_path / f"{name}.json")
    assert names(read(tmp_path)) == ["a", "b"]


def test_tasks_without_a_finished_annotation(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    cancelled = [{"id": 1, "result": [], "was_cancelled": True}]
    export(
        tmp_path / "export.json",
        task("a.jpg", polygon(), predictions=[{"result": []}]),
        task("b.jpg", number=2, annotations=cancelled),
    )
    text = refused(tmp_path)
    assert "1 task without a finished annotation" in text
    assert "export.json: task 2: b.jpg" in text
    assert "--unmatched empty" in text
    reading = read(tmp_path, unmatched="empty")
    assert [len(p.marks) for p in reading.photos] == [1, 0]
    assert reading.notes == (
        f"1 task without a finished annotation: photos without objects, as you said"
        f" ({tmp_path}/export.json: task 2: b.jpg)",
    )
    assert [str(mend).partition(" (b")[0] for mend in reading.mends] == [
        "predictions of a model, not used: only what people drew is: 1",
        "annotations that were cancelled (skipped), not used: 1",
        "photos without objects, kept: 1",
    ]
    reading = read(tmp_path, unmatched="skip")
    assert [item.path.name for item in reading.skipped] == ["b.jpg"]


def test_an_empty_annotation_is_a_photo_without_objects(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    export(tmp_path / "export.json", task("a.jpg", polygon()), task("b.jpg"))
    assert [len(p.marks) for p in read(tmp_path).photos] == [1, 0]


def test_several_annotations_need_a_ground_truth(tmp_path):
    both = [{"id": k, "result": [polygon(label=f"n{k}")], "was_cancelled": False} for k in range(2)]
    text = refused(one_photo(tmp_path, annotations=both))
    assert "task 1: it has 2 annotations; keep one in Label Studio, or mark one as the ground truth" in text
    both[1]["ground_truth"] = True
    assert names(read(one_photo(tmp_path, annotations=both))) == ["n1"]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"data": 3}, "it has no 'data'"),
        ({"data": {"text": "hello"}}, "its 'data' names no image"),
        ({"data": {"a": "x.jpg", "b": "y.jpg"}}, "its 'data' names 2 images"),
        ({"data": {"image": "data:image/png;base64,AAAA"}}, "its image is embedded ('data:'), which is not read"),
        ({"annotations": 3}, "its 'annotations' are not a list of objects"),
        ({"annotations": [{"result": 3}]}, "its 'result' is not a list of objects"),
    ],
)
def test_a_task_that_cannot_be_read_is_named(tmp_path, wrong, text):
    photo(tmp_path / "a.jpg")
    export(tmp_path / "x.json", task("a.jpg", polygon()), {**task("a.jpg", number=5), **wrong})
    message = refused(tmp_path)
    assert "the Label Studio file has tasks that cannot be read" in message
    assert f"x.json: task 5: {text}" in message


def test_prepare_finds_it(tmp_path):
    place = one_photo(tmp_path / "raw", brush(hard_objects()[0]))
    prepare(place, out=tmp_path / "data", val_share=0, test_share=0)
    dataset = Dataset.read(tmp_path / "data" / "annotations" / "instances_train.json")
    assert np.array_equal(dataset.mask(0), hard_objects()[0])


def test_photos_are_checked(tmp_path):
    photo(tmp_path / "a.jpg")
    export(tmp_path / "x.json", task("a.jpg", polygon(size=(60, 40))), task("gone.jpg", polygon()))
    text = refused(tmp_path)
    assert "1 photo of the Label Studio file was not found" in text
    assert "1 photo has another size than the annotations say" in text


def test_one_category_name_for_one_category(tmp_path):
    assert names(read(one_photo(tmp_path, polygon()), category="bolt")) == ["bolt"]
    text = refused(one_photo(tmp_path, polygon(id="1"), polygon(label="bolt", id="2")), category="x")
    assert "one category name was given, the Label Studio file has several" in text


def test_other_forms_are_told_apart(tmp_path):
    assert label_studio.find(tmp_path, PrepareSettings()) is None
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert label_studio.find(tmp_path, PrepareSettings()) is None
    with pytest.raises(UserError, match="there is no Label Studio file"):
        read(tmp_path, form="label-studio")
    photo(tmp_path / "masks" / "task-1-annotation-1-by-1-tag-nut-0.png")
    with pytest.raises(UserError, match="their names do not tell the photo"):
        label_studio.find(tmp_path, PrepareSettings())


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_damaged_files_never_end_in_a_traceback(seed):
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as name:
        place = one_photo(Path(name), polygon(), brush(hard_objects()[0]))
        content = bytearray((place / "project-1.json").read_bytes())
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(content)))
            if rng.random() < 0.3:
                del content[at : at + int(rng.integers(1, 40))]
            else:
                content[at] = int(rng.integers(0, 256))
        (place / "project-1.json").write_bytes(bytes(content))
        try:
            reading = read(place, form="label-studio")
        except UserError as error:
            assert str(error)  # noqa: PT017
        else:
            assert 1 <= len(names(reading)) <= 2
