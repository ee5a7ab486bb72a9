"""VIA 1 and 2: every shape, which attribute is the category, and what is refused."""

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
from maskwright.formats import Work, via
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)
SQUARE = {"name": "polygon", "all_points_x": [5, 25, 25, 5, 5], "all_points_y": [5, 5, 30, 30, 5]}


def photo(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(path)
    return path


def region(shape=SQUARE, **attributes):
    return {"shape_attributes": dict(shape), "region_attributes": attributes}


def entry(name, regions, **more):
    return {"filename": name, "size": 1234, "regions": regions, "file_attributes": {}, **more}


def via_2(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({f"{e['filename']}{e['size']}": e for e in entries}))
    return path


def one_photo(tmp_path, *regions):
    photo(tmp_path / "a.jpg")
    via_2(tmp_path / "via.json", entry("a.jpg", list(regions)))
    return tmp_path


def read(place, said=None, **given_settings):
    chosen = PrepareSettings.parse(given_settings)
    found = via.find(place, chosen)
    assert found is not None
    root = place if place.is_dir() else place.parent
    return via.read(found, Work(root, chosen, (said if said is not None else []).append, map, Path("/nowhere")))


def refused(place, **given_settings):
    with pytest.raises(UserError) as caught:
        read(place, **given_settings)
    return str(caught.value)


def masks(reading, number=0):
    one = list(reading.photos)[number]
    return [pixels.decode(mark.rle, one.size) for mark in one.marks]


def names(reading):
    return [mark.category for photo in reading.photos for mark in photo.marks]


def test_version_2_has_a_list_of_regions(tmp_path):
    said = []
    reading = read(one_photo(tmp_path, region(type="nut"), region(type="bolt")), said)
    assert names(reading) == ["nut", "bolt"]
    assert masks(reading)[0].sum() == 500
    assert said == [
        f"understood: 1 VIA file in {tmp_path} with 1 photo and 2 regions",
        "understood: 2 categories: bolt, nut (region attribute 'type')",
    ]
    assert reading.skipped == ()


def test_version_1_has_a_dict_of_regions(tmp_path):
    photo(tmp_path / "a.jpg")
    old = entry("a.jpg", {"0": region(), "1": region()}, fileref="", base64_img_data="")
    via_2(tmp_path / "via_region_data.json", old)
    reading = read(tmp_path)
    assert names(reading) == ["object", "object"]
    assert reading.categories == ("object",)


def test_a_project_holds_the_same(tmp_path):
    photo(tmp_path / "a.jpg")
    document = {
        "_via_settings": {"project": {"name": "nuts"}},
        "_via_img_metadata": {"a.jpg1": entry("a.jpg", [region(kind="nut")])},
        "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": {"nut": ""}}}, "file": {}},
        "_via_data_format_version": "2.0.10",
    }
    (tmp_path / "via_project.json").write_text(json.dumps(document))
    assert names(read(tmp_path)) == ["nut"]


def test_the_layout_of_the_balloon_set_is_understood(tmp_path):
    for split, seed in (("train", 0), ("val", 1)):
        photo(tmp_path / split / f"{split}.jpg", seed=seed)
        via_2(tmp_path / split / "via_region_data.json", entry(f"{split}.jpg", {"0": region()}))
    reading = read(tmp_path, category="balloon")
    assert {(p.split, p.name) for p in reading.photos} == {("train", "train.jpg"), ("val", "val.jpg")}
    assert reading.splits == "splits are kept as the folders give them (train, val)"
    assert reading.categories == ("balloon",)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ({"name": "rect", "x": 5, "y": 6, "width": 10, "height": 4}, 40),
        ({"name": "circle", "cx": 30, "cy": 20, "r": 12}, math.pi * 144),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 8}, math.pi * 160),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 8, "ry": 18, "theta": math.pi / 2}, math.pi * 144),
    ],
)
def test_shapes_have_their_area(tmp_path, shape, area):
    found = masks(read(one_photo(tmp_path, region(shape), region())))[0]
    assert abs(found.sum() - area) <= 0.04 * area


def test_an_ellipse_is_turned_from_x_towards_y(tmp_path):
    found = masks(
        read(one_photo(tmp_path, region({"name": "ellipse", "cx": 30, "cy": 20, "rx": 16, "ry": 3, "theta": 0.7})))
    )
    assert found[0][20 + 8, 30 + 10]
    assert not found[0][20 - 8, 30 + 10]


def test_polygons_are_drawn_by_cocos_rule(tmp_path):
    points = [3.5, 4, 20, 6.25, 11, 33]
    shape = {"name": "polygon", "all_points_x": points[::2], "all_points_y": points[1::2]}
    assert read(one_photo(tmp_path, region(shape))).photos[0].marks[0].rle == pixels.from_polygons([points], SIZE)


def test_only_rectangles_are_said_to_be_boxes(tmp_path):
    reading = read(one_photo(tmp_path, region({"name": "rect", "x": 5, "y": 6, "width": 10, "height": 4})))
    assert "every object (1) is a rectangle: boxes, not outlines, are what will be learned" in reading.notes


# ── categories ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_boxes_tell_the_category(tmp_path):
    place = one_photo(tmp_path, region(part={"nut": True}), region(part={"bolt": True, "nut": False}))
    assert names(read(place)) == ["nut", "bolt"]


def test_one_of_several_attributes_is_taken_and_said(tmp_path):
    place = one_photo(tmp_path, region(quality="good", Class="nut"), region(quality="bad", Class="bolt\n"))
    reading = read(place)
    assert names(reading) == ["nut", "bolt"]
    assert reading.notes == (
        "the category is the region attribute 'Class'; not kept: quality (--category ATTRIBUTE takes another)",
    )
    assert names(read(place, category="quality")) == ["good", "bad"]


def test_the_attribute_of_most_regions_is_taken_if_no_name_tells(tmp_path):
    place = one_photo(tmp_path, region(a="1", b=""), region(a="", b="x"), region(a="3", b=""))
    assert "regions have no category (attribute 'a')" in refused(place)


def test_a_category_name_is_for_all(tmp_path):
    assert names(read(one_photo(tmp_path, region(), region(name="")), category="nut")) == ["nut", "nut"]
    text = refused(one_photo(tmp_path, region(name="a"), region(name="b")), category="nut")
    assert "one category name was given, the VIA file has several" in text
    assert "region attribute 'name': a, b" in text


def test_regions_without_or_with_several_categories_are_errors(tmp_path):
    place = one_photo(tmp_path, region(name="a"), region(), region(name={"a": True, "b": True}))
    text = refused(place)
    assert "regions have no category (attribute 'name')" in text
    assert "via.json: a.jpg: region 1" in text
    assert "regions have several categories (attribute 'name')" in text
    assert "region 2: a, b" in text


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "shape",
    [{"name": "point", "cx": 3, "cy": 4}, {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [1, 5]}],
)
def test_points_and_lines_are_refused_by_name(tmp_path, shape):
    text = refused(one_photo(tmp_path, region(name="nut"), region(shape, name="scratch")))
    assert "points and lines have no area, so they are no masks" in text
    assert f"a.jpg: region 1 ('scratch') is a {shape['name']}" in text
    assert "draw these objects as polygons in VIA, or remove the regions" in text


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"name": "star"}, "a shape of the name 'star' is not known"),
        ({}, "a shape of the name 'None' is not known"),
        ({"name": [1]}, "a shape of the name '[1]' is not known"),
        ({"name": "polygon", "all_points_x": [1, 2, 3]}, "'all_points_y' is missing"),
        ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, "are not two equally long lists"),
        ({"name": "polygon", "all_points_x": [1, 2, None], "all_points_y": [1, 2, 3]}, "lists of numbers"),
        ({"name": "rect", "x": 1, "y": 2, "width": -3, "height": 4}, "its width and height are -3 and 4"),
        ({"name": "rect", "x": 1, "y": "2", "width": 3, "height": 4}, "its x, y, width, height are not numbers"),
        ({"name": "circle", "cx": 1, "cy": 2, "r": 0}, "an ellipse needs a centre and radii above 0"),
        ({"name": "circle", "cx": 1, "cy": 2, "r": 1e9}, "a polygon reaches far outside of the photo"),
    ],
)
def test_a_region_that_cannot_be_read_is_named(tmp_path, shape, text):
    message = refused(one_photo(tmp_path, region(), region(shape)))
    assert "the VIA file has regions that cannot be read" in message
    assert "via.json: a.jpg: region 1: " in message
    assert text in message


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"filename": 3, "size": 1, "regions": []}, "'31' has no filename"),
        ({"filename": "b.jpg", "size": 1, "regions": 7}, "b.jpg: its regions are neither a list nor an object"),
        ({"filename": "b.jpg", "size": 1, "regions": [3]}, "b.jpg: region 0 has no shape_attributes"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(tmp_path, wrong, text):
    photo(tmp_path / "a.jpg")
    via_2(tmp_path / "via.json", entry("a.jpg", [region()]), wrong)
    assert text in refused(tmp_path)


def test_photos_that_are_absent_or_listed_twice_are_errors(tmp_path):
    photo(tmp_path / "a.jpg")
    via_2(tmp_path / "x.json", entry("a.jpg", [region()]), entry("gone.jpg", []))
    via_2(tmp_path / "y.json", entry("a.jpg", [region()]))
    text = refused(tmp_path)
    assert "1 photo of the VIA file was not found" in text
    assert f"x.json: gone.jpg: not found in {tmp_path}" in text
    assert "photos are listed more than once" in text
    assert "if two files hold the same, name one of them instead of the folder" in text
    via_2(tmp_path / "x.json", entry("a.jpg", [region()]))
    reading = read(tmp_path / "x.json")
    assert [(item.path.name, item.why) for item in reading.skipped] == [("y.json", "not a picture file")]


def test_photos_in_a_folder_beside_the_file_are_found(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    via_2(tmp_path / "annotations" / "via.json", entry("https://host/x/a.jpg?size=3", [region()]))
    assert [p.name for p in read(tmp_path).photos] == ["a.jpg"]


def test_photos_without_regions_are_kept_and_the_rest_accounted_for(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", seed=1)
    photo(tmp_path / "c.jpg", seed=2)
    via_2(tmp_path / "via.json", entry("a.jpg", [region()]), entry("b.jpg", [], file_attributes={"caption": "x"}))
    (tmp_path / "notes.txt").write_text("hello")
    reading = read(tmp_path)
    assert [len(p.marks) for p in reading.photos] == [1, 0]
    assert [str(mend) for mend in reading.mends] == [
        "photos with file attributes, which are not kept: 1 (b.jpg)",
        "photos without objects, kept: 1 (b.jpg)",
    ]
    assert {(item.path.name, item.why) for item in reading.skipped} == {
        ("c.jpg", "picture that the VIA file does not list"),
        ("notes.txt", "not a picture file"),
    }


def test_prepare_finds_it_and_takes_two_places(tmp_path):
    place = one_photo(tmp_path / "raw", region(name="nut"))
    prepare(place, out=tmp_path / "data", val_share=0, test_share=0)
    assert Dataset.read(tmp_path / "data" / "annotations" / "instances_train.json").areas.tolist() == [500]
    (place / "via.json").rename(tmp_path / "elsewhere.json")
    prepare(place, tmp_path / "elsewhere.json", out=tmp_path / "again", val_share=0, test_share=0)
    assert Dataset.read(tmp_path / "again" / "annotations" / "instances_train.json").areas.tolist() == [500]


def test_nothing_marked_is_an_error(tmp_path):
    assert "the VIA file marks no object" in refused(one_photo(tmp_path))


def test_other_versions_and_forms_are_told_apart(tmp_path):
    assert via.find(tmp_path, PrepareSettings()) is None
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert via.find(tmp_path, PrepareSettings()) is None
    with pytest.raises(UserError, match="there is no VIA file"):
        read(tmp_path, form="via")
    (tmp_path / "via3.json").write_text('{"project": {"pid": "x", "pname": "n"}, "view": {}, "metadata": {"vid": 1}}')
    with pytest.raises(UserError, match="the file is a project of VIA 3, which is not read"):
        via.find(tmp_path, PrepareSettings())
    table = tmp_path / "via.csv"
    table.write_text("filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n")
    with pytest.raises(UserError, match=r"VIA's \.csv annotations are not read"):
        via.find(table, PrepareSettings())


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_damaged_files_never_end_in_a_traceback(seed):
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as name:
        place = one_photo(Path(name), region(name="a"), region({"name": "circle", "cx": 9, "cy": 9, "r": 4}, name="b"))
        content = bytearray((place / "via.json").read_bytes())
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(content)))
            if rng.random() < 0.3:
                del content[at : at + int(rng.integers(1, 40))]
            else:
                content[at] = int(rng.integers(0, 256))
        (place / "via.json").write_bytes(bytes(content))
        try:
            reading = read(place, form="via")
        except UserError as error:
            assert str(error)  # noqa: PT017
        else:
            assert 1 <= len(names(reading)) <= 2
