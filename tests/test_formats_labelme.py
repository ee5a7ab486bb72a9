"""labelme: every shape, the dialects of versions 3 to 7, photos found or embedded, and the exact way back."""

import base64
import io
import json
import warnings
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.formats import Work, labelme
from maskwright.masks import masks as write_masks
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SHARED = Path(__file__).parents[2] / "shared" / "data"
SIZE = (40, 60)


def photo(path, size=SIZE, exif=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    picture = Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8))
    if exif:
        tags = Picture.Exif()
        tags[0x0112] = exif
        picture.save(path, exif=tags)
    else:
        picture.save(path)
    return path


def shape(label="nut", points=((5, 5), (25, 5), (25, 30), (5, 30)), kind="polygon", **more):
    entry = {"label": label, "points": [list(p) for p in points], "group_id": None, "shape_type": kind, "flags": {}}
    return {**entry, **more}


def png(mask):
    buffer = io.BytesIO()
    Picture.fromarray(np.asarray(mask, dtype=np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def label(path, shapes, image="a.jpg", size=SIZE, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps({**document, **more}))
    return path


def read(place, said=None, **given_settings):
    chosen = PrepareSettings.parse(given_settings)
    found = labelme.find(place, chosen)
    assert found is not None
    with TemporaryDirectory() as spare:
        root = place if place.is_dir() else place.parent
        work = Work(root, chosen, (said if said is not None else []).append, map, Path(spare))
        return labelme.read(found, work)


def masks(reading, number=0):
    one = list(reading.photos)[number]
    return [pixels.decode(mark.rle, one.size) for mark in one.marks]


def refused(place, **given_settings):
    with pytest.raises(UserError) as caught:
        read(place, **given_settings)
    return str(caught.value)


def one_photo(tmp_path, *shapes, **more):
    photo(tmp_path / "a.jpg")
    label(tmp_path / "a.json", list(shapes), **more)
    return tmp_path


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_polygons_are_drawn_by_cocos_rule(tmp_path):
    points = [[5.5, 5.25], [25, 6], [20, 30.75]]
    reading = read(one_photo(tmp_path, shape(points=points)))
    assert reading.photos[0].marks[0].rle == pixels.from_polygons([[v for p in points for v in p]], SIZE)
    assert reading.categories == ("nut",)
    assert reading.photos[0].name == "a.jpg"


def test_a_shape_without_type_is_a_polygon_as_in_version_3(tmp_path):
    old = {"label": "nut", "line_color": None, "fill_color": None, "points": [[1, 1], [9, 1], [9, 9], [1, 9]]}
    place = one_photo(tmp_path, old, lineColor=[0, 255, 0, 128], fillColor=[255, 0, 0, 128])
    assert masks(read(place))[0].sum() == 64


def test_files_without_a_size_take_the_photos(tmp_path):
    place = one_photo(tmp_path, shape(), imageHeight=None, imageWidth=None)
    assert read(place).photos[0].size == SIZE


def test_a_rectangle_has_two_corners_in_any_order(tmp_path):
    found = masks(read(one_photo(tmp_path, shape(points=[[25, 30], [5, 10]], kind="rectangle"), shape())))[0]
    assert found[10:30, 5:25].all()
    assert found.sum() == 400


def test_only_rectangles_are_said_to_be_boxes(tmp_path):
    reading = read(one_photo(tmp_path, shape(points=[[25, 30], [5, 10]], kind="rectangle")))
    assert "every object (1) is a rectangle: boxes, not outlines, are what will be learned" in reading.notes


def test_a_circle_has_the_area_of_a_circle(tmp_path):
    found = masks(read(one_photo(tmp_path, shape(points=[[30, 20], [42, 20]], kind="circle"))))[0]
    assert abs(found.sum() - np.pi * 144) < 8
    assert found[20, 30]


def test_an_oriented_rectangle_is_a_polygon_of_four(tmp_path):
    points = [[10, 10], [30, 10], [30, 20], [10, 20]]
    assert masks(read(one_photo(tmp_path, shape(points=points, kind="oriented_rectangle"))))[0].sum() == 200


def test_a_mask_starts_at_its_first_corner_and_ends_with_its_second(tmp_path):
    window = np.zeros((4, 6), dtype=np.uint8)
    window[0, 0] = window[3, 5] = window[1, 2:4] = 1
    found = masks(read(one_photo(tmp_path, shape(points=[[50, 30], [55, 33]], kind="mask", mask=png(window)))))[0]
    assert np.array_equal(found[30:34, 50:56], window.astype(bool))
    assert found.sum() == 4


def test_a_mask_whose_box_ends_behind_the_last_pixel_is_placed_by_its_first_corner(tmp_path):
    place = one_photo(tmp_path, shape(points=[[2, 3], [6, 5]], kind="mask", mask=png(np.full((2, 4), 255))))
    reading = read(place)
    assert masks(reading)[0][3:5, 2:6].all()
    assert "masks whose box is one pixel off" in str(reading.mends[0])


def test_a_mask_that_reaches_out_is_cut_at_the_edge(tmp_path):
    place = one_photo(tmp_path, shape(points=[[-2, 38], [3, 41]], kind="mask", mask=png(np.ones((4, 6)))))
    reading = read(place)
    assert masks(reading)[0][38:40, 0:4].all()
    assert masks(reading)[0].sum() == 8
    assert "cut at its edge" in str(reading.mends[0])


def test_shapes_of_one_group_are_one_object_and_touching_objects_stay_apart(tmp_path):
    left, right = [[5, 5], [15, 5], [15, 15], [5, 15]], [[15, 5], [25, 5], [25, 15], [15, 15]]
    far = [[40, 20], [50, 20], [50, 30], [40, 30]]
    place = one_photo(
        tmp_path,
        shape(points=left, group_id=1),
        shape(points=far, group_id=1),
        shape(points=right),
        shape("bolt", points=right, group_id=1),
        shape(points=[[0, 0], [2, 2]], kind="mask", mask=png(np.ones((3, 3))), group_id=1),
    )
    reading = read(place)
    assert [mark.category for mark in reading.photos[0].marks] == ["nut", "nut", "bolt"]
    assert [int(mask.sum()) for mask in masks(reading)] == [209, 100, 100]
    assert "objects made of several shapes that share label and group_id: 1" in str(reading.mends[0])


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_lines_and_points_are_refused_by_name(tmp_path, kind):
    text = refused(one_photo(tmp_path, shape(), shape("scratch", kind=kind)))
    assert "lines and points have no area, so they are no masks" in text
    assert f"a.json: shape 2 ('scratch') is a {kind}" in text
    assert "draw these objects as polygons in labelme, or remove the shapes" in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (shape(kind="cuboid"), "a shape of type 'cuboid' is not known"),
        (shape(kind=[3]), "its shape_type is [3]"),
        (shape(points=[]), "it has no points"),
        (shape(points=[[1, 2], [3]]), "its points are not pairs of finite numbers x, y"),
        (shape(points=[[1, 2], [3, 9], [5, float("nan")]]), "its points are not pairs of finite numbers x, y"),
        (shape(points=[[1, 2], [3, 9], [1e9, 4]]), "a polygon reaches far outside of the photo"),
        (shape(points=[[1, 2]], kind="circle"), "a circle has 2 points, its centre and one on it; this one 1"),
        (shape(points=[[1, 2]], kind="rectangle"), "a rectangle has 2 points, this one 1"),
        (shape(points=[[1, 2]], kind="mask"), "a mask has 2 points, the corners of its box; this one 1"),
        (shape(points=[[1, 2], [3, 4]], kind="mask"), "'mask' is missing"),
        (shape(points=[[1, 2], [3, 4]], kind="mask", mask=7), "its mask is not a text"),
        (shape(points=[[1, 2], [3, 4]], kind="mask", mask="@"), "its mask is no base64"),
        (shape(points=[[1, 2], [3, 4]], kind="mask", mask="aaaa"), "its mask is no PNG that can be read"),
        (
            shape(points=[[1, 2], [9, 9]], kind="mask", mask=png(np.ones((2, 3)))),
            "its mask is 3 x 2 pixels, its box 9 x 8: they do not belong together",
        ),
        (
            shape(points=[[0, 0], [599, 399]], kind="mask", mask=png(np.ones((400, 600)))),
            "its mask is larger than the photo",
        ),
        (shape(group_id=[1]), "its group_id is [1]"),
        ({**shape(), "points": "abc"}, "it has no points"),
        ({**shape(), "points": [["1", 2]]}, "its points are not pairs of finite numbers x, y"),
        ({"points": [[1, 2]]}, "it has no label"),
        (shape(7), "its label is '7', not a text"),
        (5, "it has no label"),
    ],
)
def test_a_shape_that_cannot_be_read_is_named(tmp_path, wrong, text):
    message = refused(one_photo(tmp_path, shape(), wrong))
    assert "labelme files have shapes that cannot be read" in message
    assert "a.json: " in message
    assert text in message


def test_labels_that_mean_nothing_are_left_out_and_counted(tmp_path):
    reading = read(one_photo(tmp_path, shape("__ignore__"), shape("_background_"), shape()))
    assert len(reading.photos[0].marks) == 1
    assert "shapes labelled __ignore__, which mark no object, left out: 1" in str(reading.mends[0])


def test_empty_outlines_are_left_out_and_counted(tmp_path):
    reading = read(
        one_photo(tmp_path, shape(points=[[3, 3], [9, 9]]), shape(), shape(points=[[3, 3]] * 2, kind="circle"))
    )
    assert len(reading.photos[0].marks) == 1
    assert "objects without a pixel, left out: 2" in " ".join(str(m) for m in reading.mends)


# ── photos ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_embedded_photo_is_used_where_the_file_is_absent(tmp_path):
    content = photo(tmp_path / "other" / "x.jpg").read_bytes()
    (tmp_path / "other" / "x.jpg").unlink()
    label(tmp_path / "a.json", [shape()], "C:\\photos\\x.jpg", imageData=base64.b64encode(content).decode())
    chosen = PrepareSettings()
    with TemporaryDirectory() as spare:
        work = Work(tmp_path, chosen, [].append, map, Path(spare))
        reading = labelme.read(labelme.find(tmp_path, chosen), work)
        one = reading.photos[0]
        assert one.path.read_bytes() == content
        assert one.path.parent == Path(spare)
    assert one.name == "a.jpg"
    assert "photos taken out of their labelme files, for lack of the picture files: 1" in str(reading.mends[0])


def test_halves_of_characters_that_are_counted_are_written_as_escapes(tmp_path):
    """JSON can hold them, UTF-8 cannot."""
    (tmp_path / "raw").mkdir()
    photo(tmp_path / "raw/a.jpg")
    label(tmp_path / "raw/a.json", [shape()], flags={"\ud800": True})
    told = []
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", say=told.append)
    story = json.loads((tmp_path / "DATA/prepare.json").read_text(encoding="utf-8"))
    assert [mend["examples"] for mend in story["mends"] if "flags" in mend["what"]] == [["\ud800"]]
    assert "mended: photos with flags, which are not kept: 1 (\\ud800)" in "\n".join(told).encode().decode()
    assert made.objects == {"train": 1}


class Cluster:
    """Applies functions as a cluster does, with or without other machines."""

    def __init__(self, others):
        self.others = others

    def __call__(self, function, items):
        return map(function, items)

    def elsewhere(self):
        return self.others


def test_an_embedded_photo_is_refused_where_other_machines_work(tmp_path):
    content = base64.b64encode(photo(tmp_path / "other" / "x.jpg").read_bytes()).decode()
    (tmp_path / "other" / "x.jpg").unlink()
    label(tmp_path / "a.json", [shape()], "x.jpg", imageData=content)

    def read_on(each, on, spare):
        chosen = PrepareSettings(on=on)
        return labelme.read(labelme.find(tmp_path, chosen), Work(tmp_path, chosen, [].append, each, spare))

    text = (
        "photos inside labelme files cannot be shared by the machines of a cluster\n"
        f"  {tmp_path}/a.json: its photo is in the file\n"
        "fix: leave out: --on ray; or put the photos beside their .json files"
    )
    with TemporaryDirectory() as spare:
        assert read_on(Cluster(others=False), "ray", Path(spare)).photos[0].path.parent == Path(spare)
        with pytest.raises(UserError) as caught:
            read_on(Cluster(others=True), "ray", Path(spare))
    assert str(caught.value) == text
    with pytest.raises(UserError) as caught:  # on a machine that joined the cluster later
        read_on(Cluster(others=False), "ray", Path(spare))
    assert str(caught.value) == text
    photo(tmp_path / "x.jpg")
    assert read_on(Cluster(others=True), "ray", Path(spare)).photos[0].path == tmp_path / "x.jpg"


def test_an_embedded_photo_must_have_the_size_that_is_said(tmp_path):
    content = base64.b64encode(photo(tmp_path / "other" / "x.png", (10, 20)).read_bytes()).decode()
    (tmp_path / "other" / "x.png").unlink()
    label(tmp_path / "a.json", [shape()], "x.png", imageData=content)
    text = refused(tmp_path)
    assert "1 photo has another size than the annotations say" in text
    assert f"60 x 40, but {tmp_path}/a.json is 20 x 10" in text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("@@@", "the photo in 'imageData' is no base64"),
        ("aaaa", "the photo in 'imageData' is no picture that can be read"),
        (12, "'imageData' is not a text"),
        (base64.b64encode(b"\xff\xd8\xff\0\0").decode(), "the photo in the file is not a picture that can be read"),
    ],
)
def test_an_embedded_photo_that_cannot_be_read_is_named(tmp_path, data, text):
    label(tmp_path / "a.json", [shape()], imageData=data)
    assert f"a.json: {text}" in refused(tmp_path)


def test_an_embedded_bomb_is_not_decoded(tmp_path):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (200_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    content = header + zlib.crc32(header[12:]).to_bytes(4) + b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4)
    label(tmp_path / "a.json", [shape()], imageData=base64.b64encode(content).decode())
    assert "the photo in the file declares 200,000 x 200,000 pixels" in refused(tmp_path)


def test_the_photo_file_is_preferred_to_the_embedded_one(tmp_path):
    place = one_photo(tmp_path, shape(), imageData="not looked at")
    assert read(place).photos[0].path == tmp_path / "a.jpg"


@pytest.mark.parametrize("name", ["..\\images\\a.jpg", "../../elsewhere/a.jpg", "/etc/a.jpg", "C:\\x\\a.jpg", "A.JPG"])
def test_a_photo_is_looked_up_by_the_last_part_of_its_path(tmp_path, name):
    place = one_photo(tmp_path, shape(), image=name)
    assert read(place).photos[0].path == tmp_path / "a.jpg"


def test_a_path_cannot_lead_to_files_outside(tmp_path):
    photo(tmp_path / "secret.jpg")
    photo(tmp_path / "raw" / "b.jpg")
    label(tmp_path / "raw" / "a.json", [shape()], "../secret.jpg")
    text = refused(tmp_path / "raw")
    assert "labelme files have no photo" in text
    assert "a.json: '../secret.jpg' was not found and there is no photo in the file" in text


def test_a_renamed_photo_is_found_by_the_name_of_its_file(tmp_path):
    photo(tmp_path / "0001.jpg")
    label(tmp_path / "0001.json", [shape()], "IMG_77.jpg")
    reading = read(tmp_path)
    assert reading.photos[0].name == "0001.jpg"
    assert "IMG_77.jpg is 0001.jpg" in str(reading.mends[0])


def test_the_path_in_the_file_goes_before_the_stem(tmp_path):
    photo(tmp_path / "1.jpg")
    photo(tmp_path / "2.jpg", seed=1)
    label(tmp_path / "1.json", [shape("b")], "2.jpg")
    label(tmp_path / "2.json", [shape("a")], "1.jpg")
    assert {p.name: p.marks[0].category for p in read(tmp_path).photos} == {"1.jpg": "a", "2.jpg": "b"}


def test_a_name_that_is_found_twice_is_an_error(tmp_path):
    photo(tmp_path / "x" / "a.jpg")
    photo(tmp_path / "y" / "a.jpg")
    label(tmp_path / "json" / "b.json", [shape()])
    text = refused(tmp_path)
    assert f"'a.jpg' is found more than once: {tmp_path}/x/a.jpg and {tmp_path}/y/a.jpg" in text


def test_two_files_of_one_photo_are_an_error(tmp_path):
    place = one_photo(tmp_path, shape())
    label(tmp_path / "b.json", [shape()])
    assert "photos have more than one labelme file" in refused(place)


@pytest.mark.parametrize("folder", ["labels", "annotations", "json"])
def test_the_files_may_lie_in_a_folder_of_their_own(tmp_path, folder):
    photo(tmp_path / "images" / "a.jpg")
    label(tmp_path / folder / "a.json", [shape()], "..\\images\\a.jpg")
    reading = read(tmp_path)
    assert [p.name for p in reading.photos] == ["a.jpg"]
    assert reading.skipped == ()


@pytest.mark.parametrize("layout", ["train/{}", "{}/train", "nuts_train"])
def test_split_folders_are_kept(tmp_path, layout):
    for split, seed in (("train", 0), ("val", 1)):
        where = layout.replace("train", split)
        photo(tmp_path / where.format("images") / "a.jpg", seed=seed)
        label(tmp_path / where.format("labels") / "a.json", [shape(split)], "../images/a.jpg")
    reading = read(tmp_path)
    assert {(p.split, p.marks[0].category) for p in reading.photos} == {("train", "train"), ("val", "val")}
    assert reading.splits == "splits are kept as the folders give them (train, val)"
    assert [p.name for p in reading.photos] == ["a.jpg", "a.jpg"]
    assert len({p.place for p in reading.photos}) == 2


def test_photos_outside_of_split_folders_mean_a_new_split(tmp_path):
    for where in ("train", "."):
        photo(tmp_path / where / f"{len(where)}.jpg")
        label(tmp_path / where / f"{len(where)}.json", [shape()], f"{len(where)}.jpg")
    reading = read(tmp_path)
    assert [p.split for p in reading.photos] == [None, None]
    assert "1 photo in no split folder (1.jpg): all photos are split anew" in reading.notes


def test_a_photo_without_a_file_is_an_error_or_as_the_user_says(tmp_path):
    place = one_photo(tmp_path, shape())
    photo(tmp_path / "b.jpg", seed=2)
    text = refused(place)
    assert "1 photo without a labelme file" in text
    assert "--unmatched empty" in text
    reading = read(place, unmatched="empty")
    assert [len(p.marks) for p in reading.photos] == [1, 0]
    reading = read(place, unmatched="skip")
    assert [(item.path.name, item.why) for item in reading.skipped] == [
        ("b.jpg", "photo without a labelme file, left out as you said")
    ]


@pytest.mark.parametrize("place", [".", "{}"])
def test_pictures_in_the_folder_above_are_photos_only_if_they_are_named(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    label(tmp_path / "files" / "a.json", [shape()], "../far/a.jpg")
    photo(tmp_path / "screenshot.jpg")
    folder = Path(place.format(tmp_path)) / "files"
    for unmatched in ("error", "empty"):
        text = refused(folder, unmatched=unmatched)
        assert text.startswith("labelme files have no photo")
        assert "'../far/a.jpg' was not found" in text
        assert "screenshot" not in text
    photo(tmp_path / "a.jpg")
    reading = read(folder, unmatched="empty")
    assert [p.name for p in reading.photos] == ["a.jpg"]
    assert [(item.path.name, item.why) for item in reading.skipped] == [
        ("screenshot.jpg", "picture in the folder above that no labelme file names")
    ]
    said = read(folder, photos=str(tmp_path), unmatched="empty")
    assert sorted(p.name for p in said.photos) == ["a.jpg", "screenshot.jpg"]


@pytest.mark.parametrize("named", ["", "labels"])
def test_photos_in_a_folder_beside_the_files_are_photos_of_the_set(tmp_path, named):
    photo(tmp_path / "photos" / "a.jpg")
    photo(tmp_path / "photos" / "b.jpg", seed=2)
    label(tmp_path / "labels" / "a.json", [shape()], "../photos/a.jpg")
    assert "1 photo without a labelme file" in refused(tmp_path / named)
    assert [len(p.marks) for p in read(tmp_path / named, unmatched="empty").photos] == [1, 0]


def test_every_other_file_is_accounted_for(tmp_path):
    place = one_photo(tmp_path, shape())
    (tmp_path / "classes.json").write_text('{"nut": 1}')
    (tmp_path / "labels.txt").write_text("nut")
    photo(tmp_path / "a.png")
    photo(tmp_path / "a_json" / "img.png")
    assert {(item.path.name, item.why) for item in read(place).skipped} == {
        ("classes.json", "not a labelme file"),
        ("labels.txt", "not a picture file"),
        ("a.png", "picture with the stem of a photo that was used"),
        ("img.png", "picture in a folder without photos of labelme files"),
    }


def test_a_photo_marked_as_stored_is_an_error(tmp_path):
    photo(tmp_path / "a.jpg", exif=6)
    label(tmp_path / "a.json", [shape()])
    text = refused(tmp_path)
    assert "1 photo was marked as the camera stored it, not as it is shown" in text
    label(tmp_path / "a.json", [shape()], size=SIZE[::-1])
    assert read(tmp_path).photos[0].size == (60, 40)


def test_a_turned_photo_whose_size_fits_both_ways_is_said(tmp_path):
    photo(tmp_path / "a.jpg", exif=3)
    label(tmp_path / "a.json", [shape()])
    assert "1 photo must be turned or mirrored to be upright" in read(tmp_path).notes[0]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"imagePath": "a.jpg", "shapes": 3}', "it has no list of 'shapes'"),
        ('{"imagePath": "a.jpg"}', "it has no list of 'shapes'"),
        ('{"imagePath": 4, "shapes": []}', "'imagePath' is not a text"),
        ('{"imagePath": "a.jpg", "shapes": [', "Expecting value"),
        ('{"imagePath": "a.jpg", "shapes": [], "imageHeight": -4, "imageWidth": 3}', "are -4 and 3, not sizes"),
        (
            '{"imagePath": "a.jpg", "shapes": [], "imageHeight": 4, "imageWidth": 1' + "0" * 400 + "}",
            "are 4 and 10000000000000000000, not sizes",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, text):
    place = one_photo(tmp_path, shape())
    (tmp_path / "a.json").write_text(content)
    message = refused(place, form="labelme")
    assert "labelme files cannot be read" in message
    assert "a.json: " in message
    assert text in message


def test_nothing_marked_is_an_error(tmp_path):
    assert "no labelme file marks an object" in refused(one_photo(tmp_path))


def test_a_category_name_is_given_to_one_category_only(tmp_path):
    assert read(one_photo(tmp_path, shape()), category="bolt").categories == ("bolt",)
    text = refused(one_photo(tmp_path, shape(), shape("bolt")), category="x")
    assert "one category name was given, the labelme files have several" in text


def test_other_forms_are_not_taken_for_labelme(tmp_path):
    assert labelme.find(tmp_path, PrepareSettings()) is None
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert labelme.find(tmp_path, PrepareSettings()) is None
    assert labelme.find(tmp_path / "x.json", PrepareSettings()) is None
    assert "there is no labelme file" in refused(tmp_path, form="labelme")


def test_said_that_there_is_none(tmp_path):
    with pytest.raises(UserError, match="there is no labelme file"):
        labelme.find(tmp_path, PrepareSettings(form="labelme"))


def test_one_file_can_be_named(tmp_path):
    place = one_photo(tmp_path, shape())
    said = []
    assert len(read(place / "a.json", said).photos) == 1
    assert said[0] == f"understood: 1 .json file of labelme in {tmp_path}/a.json with 1 picture in {tmp_path}"
    assert said[1] == "understood: 1 category: nut"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(objects, size=SIZE, folder=None, name="a.png"):
    rows = [Annotation(i + 1, 1, 1, pixels.encode(m), crowd=c) for i, (m, c) in enumerate(objects)]
    return Dataset.build([Category(1, "nut")], [Image(1, name, size[1], size[0])], rows, folder=folder)


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


def test_what_is_written_is_read_back_pixel_for_pixel(tmp_path):
    photo(tmp_path / "photos" / "a.png")
    objects = [(mask, number == 1) for number, mask in enumerate(hard_objects())]
    written = labelme.write(dataset_of(objects, folder=tmp_path / "photos"), tmp_path / "photos")
    assert (written.files, written.objects) == (1, 8)
    assert written.notes == ("1 object written with the flag `crowd`: many objects in one mask",)
    reading = read(tmp_path / "photos")
    assert [mark.crowd for mark in reading.photos[0].marks] == [crowd for _mask, crowd in objects]
    assert reading.mends == ()
    for found, (mask, _crowd) in zip(masks(reading), objects, strict=True):
        assert np.array_equal(found, mask)


@settings(max_examples=40)
@given(st.data())
def test_any_masks_survive_writing_and_reading(data):
    size = (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    objects = [(rng.random(size) < data.draw(st.sampled_from([0.1, 0.5, 0.95])), False) for _ in range(3)]
    objects = [(mask, crowd) for mask, crowd in objects if mask.any()] or [(np.ones(size, dtype=bool), False)]
    with TemporaryDirectory() as name:
        place = Path(name)
        photo(place / "a.png", size)
        labelme.write(dataset_of(objects, size), place)
        found = masks(read(place))
    assert len(found) == len(objects)
    assert all(np.array_equal(mask, back) for (mask, _), back in zip(objects, found, strict=True))


def test_the_written_file_is_what_labelme_reads(tmp_path):
    photo(tmp_path / "photos" / "sub" / "a.png")
    mask = np.zeros(SIZE, dtype=bool)
    mask[3:5, 7:10] = True
    dataset = dataset_of([(mask, False)], folder=tmp_path / "photos", name="sub/a.png")
    assert labelme.write(dataset, tmp_path / "out").notes == (
        "1 photo put beside the .json files, as hard links or copies",
    )
    assert (tmp_path / "out" / "sub" / "a.png").read_bytes() == (tmp_path / "photos" / "sub" / "a.png").read_bytes()
    document = json.loads((tmp_path / "out" / "sub" / "a.json").read_text())
    assert list(document) == ["version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]
    assert document["imagePath"] == "a.png"
    assert (document["imageData"], document["imageHeight"], document["imageWidth"]) == (None, 40, 60)
    entry = document["shapes"][0]
    assert sorted(entry) == ["description", "flags", "group_id", "label", "mask", "points", "shape_type"]
    assert entry["points"] == [[7.0, 3.0], [9.0, 4.0]]  # the last pixel, not the one behind it
    assert Picture.open(io.BytesIO(base64.b64decode(entry["mask"]))).size == (3, 2)


def test_what_masks_writes_of_prepared_data_is_prepared_to_the_same_objects(tmp_path):
    """Photos of one stem, in subfolders, and one without objects; the data itself is gone when they are read."""
    images = [Image(n, name, SIZE[1], SIZE[0]) for n, name in enumerate(["a.png", "a.jpg", "sub/a.png", "b.png"], 1)]
    rows = [Annotation(k, 1 + k % 3, 1 + k % 2, pixels.encode(mask)) for k, mask in enumerate(hard_objects(), start=1)]
    truth = Dataset.build([Category(1, "nut"), Category(2, "bolt")], images, rows)
    data = tmp_path / "data"
    truth.write(data / "annotations" / "instances_train.json")
    for image in images:
        photo(data / "train" / image.file_name, seed=image.id)
    said = []
    written = write_masks(
        data / "annotations" / "instances_train.json", tmp_path / "out", form="labelme", say=said.append
    )
    assert (written.images, written.objects) == (4, 8)
    assert "4 photos put beside the .json files, as hard links or copies" in said
    content = {image.file_name: (data / "train" / image.file_name).read_bytes() for image in images}
    data.rename(tmp_path / "gone")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in content} == content
    reading = read(tmp_path / "out")
    assert (reading.mends, reading.skipped) == ((), ())
    names = {category.id: category.name for category in truth.categories}
    assert {p.name: [(m.category, m.rle) for m in p.marks] for p in reading.photos} == {
        image.file_name: [(names[row.category_id], row.rle) for row in rows if row.image_id == image.id]
        for image in images
    }
    made = prepare(tmp_path / "out", out=tmp_path / "again", val_share=0, test_share=0)
    assert (made.photos, made.objects) == ({"train": 4}, {"train": 8})


def test_a_photo_that_is_no_picture_or_is_absent_is_told_and_replaces_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.json").write_text("mine")
    images = [Image(1, "a.json", 60, 40), Image(2, "b.png", 60, 40)]
    row = Annotation(1, 1, 1, pixels.encode(np.ones(SIZE, dtype=bool)))
    dataset = Dataset.build([Category(1, "nut")], images, [row], folder=tmp_path / "photos")
    assert labelme.write(dataset, tmp_path / "out").notes[0].startswith("2 photos not found: put each beside")
    assert json.loads((tmp_path / "out" / "a.json").read_text())["imagePath"] == "a.json"
    assert (tmp_path / "photos" / "a.json").read_text() == "mine"


def test_scores_and_boxes_without_masks_are_told(tmp_path):
    mask = np.ones(SIZE, dtype=bool)
    rows = [
        Annotation(1, 1, 1, pixels.encode(mask), score=0.75),
        Annotation(2, 1, 1, None, box=(0.0, 0.0, 4.0, 4.0), score=0.5),
    ]
    written = labelme.write(Dataset.build([Category(1, "nut")], [Image(1, "x/a.png", 60, 40)], rows), tmp_path)
    assert written.notes == (
        "1 photo not found: put each beside its .json file, where labelme looks for it; `prepare` also takes: --photos"
        " FOLDER",
        "1 object left out: the file gives the box, not the mask",
    )
    document = json.loads((tmp_path / "x" / "a.json").read_text())
    assert document["imagePath"] == "a.png"
    assert [entry["description"] for entry in document["shapes"]] == ["score 0.750"]


def test_prepare_writes_and_reads_embedded_photos_and_two_places(tmp_path):
    photo(tmp_path / "raw" / "images" / "a.png")
    content = photo(tmp_path / "b.png", seed=4).read_bytes()
    mask = hard_objects()[0]
    labelme.write(dataset_of([(mask, False)]), tmp_path / "raw" / "labels")
    label(
        tmp_path / "raw" / "labels" / "b.json", [shape("bolt")], "b.png", imageData=base64.b64encode(content).decode()
    )
    prepare(tmp_path / "raw", out=tmp_path / "data", val_share=0, test_share=0)
    dataset = Dataset.read(tmp_path / "data" / "annotations" / "instances_train.json")
    assert [image.file_name for image in dataset.images] == ["a.png", "b.png"]
    assert (tmp_path / "data" / "train" / "b.png").read_bytes() == content
    assert np.array_equal(dataset.mask(0), mask)
    prepare(tmp_path / "raw" / "images", tmp_path / "raw" / "labels", out=tmp_path / "two", val_share=0, test_share=0)
    assert len(Dataset.read(tmp_path / "two" / "annotations" / "instances_train.json")) == 2


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60)
@given(st.data())
def test_damaged_files_never_end_in_a_traceback(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    with TemporaryDirectory() as name:
        place = one_photo(Path(name), shape(), shape(points=[[2, 3], [5, 4]], kind="mask", mask=png(np.ones((2, 4)))))
        content = bytearray((place / "a.json").read_bytes())
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(content)))
            if rng.random() < 0.3:
                del content[at : at + int(rng.integers(1, 40))]
            else:
                content[at] = int(rng.integers(0, 256))
        (place / "a.json").write_bytes(bytes(content))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = masks(read(place, form="labelme"))
        except UserError as error:
            assert str(error)  # noqa: PT017
        else:
            assert 1 <= len(found) <= 2


# ── real files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.shared
def test_real_files_give_the_objects_of_the_same_photos_in_coco_form(tmp_path):
    if not (SHARED / "formats" / "labelme").is_dir():
        pytest.skip("../shared is absent")
    reading = read(SHARED / "formats" / "labelme")
    truth = Dataset.read(SHARED / "fruits_nuts" / "trainval.json")
    names = {c.id: c.name for c in truth.categories}
    by_name = {image.file_name: i for i, image in enumerate(truth.images)}
    assert [one.name for one in reading.photos] == ["15.jpg", "3.jpg", "7.jpg"]
    for one in reading.photos:
        i = by_name[one.name]
        first, end = truth.first[i], truth.first[i + 1]
        expected = {(names[int(truth.category_ids[k])], truth.rle(k)) for k in range(first, end)}
        assert {(mark.category, mark.rle) for mark in one.marks} == expected
        assert len(one.marks) == end - first
