"""CVAT for images 1.1: polygons, masks by runs in their own box, ellipses; boxes and videos are refused in words."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.formats import Work, cvat
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)
SQUARE = "5.00,5.00;25.00,5.00;25.00,30.00;5.00,30.00"


def photo(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(path)
    return path


def shape(tag, label="nut", noted=(), **values):
    values = {"label": label, "source": "manual", "occluded": "0", **values, "z_order": "0"}
    inner = "".join(f"<attribute name={quoteattr(k)}>{v}</attribute>" for k, v in noted)
    return f"<{tag} {' '.join(f'{k}={quoteattr(str(v))}' for k, v in values.items())}>{inner}</{tag}>"


def polygon(points=SQUARE, label="nut", **more):
    return shape("polygon", label, points=points, **more)


def rle_of(window):
    runs, last = [0], 0
    for value in np.asarray(window, dtype=int).ravel():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return ", ".join(str(run) for run in runs)


def mask(window, left, top, **more):
    window = np.asarray(window)
    return shape("mask", **{"rle": rle_of(window), "left": left, "top": top, "width": window.shape[1],
                            "height": window.shape[0], **more})  # fmt: skip


def image(name, *shapes, size=SIZE, **more):
    values = {"id": "0", "name": name, "width": size[1], "height": size[0], **more}
    return f"<image {' '.join(f'{k}={quoteattr(str(v))}' for k, v in values.items())}>{''.join(shapes)}</image>"


def document(path, *images, labels=("nut", "bolt"), before=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "".join(f"<label><name>{n}</name><color>#fff</color><attributes/></label>" for n in labels)
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n{before}<annotations><version>1.1</version><meta><task><id>1</id>'
        f"<name>nuts</name><labels>{names}</labels></task></meta>{''.join(images)}</annotations>"
    )
    return path


def one_photo(tmp_path, *shapes, **more):
    photo(tmp_path / "images" / "a.jpg")
    document(tmp_path / "annotations.xml", image("a.jpg", *shapes), **more)
    return tmp_path


def read(place, said=None, **given_settings):
    chosen = PrepareSettings.parse(given_settings)
    found = cvat.find(place, chosen)
    assert found is not None
    root = place if place.is_dir() else place.parent
    return cvat.read(found, Work(root, chosen, (said if said is not None else []).append, map, Path("/nowhere")))


def refused(place, **given_settings):
    with pytest.raises(UserError) as caught:
        read(place, **given_settings)
    return str(caught.value)


def masks(reading, number=0):
    one = list(reading.photos)[number]
    return [pixels.decode(mark.rle, one.size) for mark in one.marks]


def names(reading):
    return [mark.category for photo in reading.photos for mark in photo.marks]


def test_polygons_are_drawn_by_cocos_rule_and_labels_keep_their_order(tmp_path):
    said = []
    reading = read(one_photo(tmp_path, polygon(label="bolt"), polygon("3.5,4;20,6.25;11,33")), said)
    assert names(reading) == ["bolt", "nut"]
    assert reading.categories == ("nut", "bolt")
    assert reading.photos[0].marks[1].rle == pixels.from_polygons([[3.5, 4, 20, 6.25, 11, 33]], SIZE)
    assert said == [
        f"understood: 1 CVAT file in {tmp_path} with 1 photo and 2 polygons",
        "understood: 2 categories: nut, bolt",
    ]
    assert reading.skipped == ()


def test_a_mask_is_placed_by_its_own_box(tmp_path):
    window = np.array([[0, 1, 1], [1, 0, 1]])
    assert rle_of(window) == "1, 3, 1, 1"
    found = masks(read(one_photo(tmp_path, mask(window, 50, 30))))[0]
    assert np.array_equal(found[30:32, 50:53], window.astype(bool))
    assert found.sum() == 4


def test_a_mask_may_start_with_the_object(tmp_path):
    assert rle_of([[1, 0]]) == "0, 1, 1"
    assert masks(read(one_photo(tmp_path, mask([[1, 0]], 0, 0))))[0].sum() == 1


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


def test_masks_are_exact(tmp_path):
    shapes = []
    for object_mask in hard_objects():
        x1, y1, x2, y2 = (int(v) for v in pixels.box(pixels.encode(object_mask), SIZE))
        shapes.append(mask(object_mask[y1:y2, x1:x2], x1, y1))
    for found, expected in zip(masks(read(one_photo(tmp_path, *shapes))), hard_objects(), strict=True):
        assert np.array_equal(found, expected)


def test_an_ellipse_is_turned_by_degrees(tmp_path):
    values = {"cx": 30, "cy": 20, "rx": 16, "ry": 3}
    found = masks(read(one_photo(tmp_path, shape("ellipse", **values), shape("ellipse", **values, rotation="40.0"))))
    assert abs(found[0].sum() - math.pi * 48) < 8
    assert found[1][28, 40]
    assert not found[1][12, 40]


def test_shapes_of_one_group_are_one_object(tmp_path):
    far = "40,20;50,20;50,30;40,30"
    place = one_photo(
        tmp_path, polygon(group_id="4"), polygon(far, group_id="4"), polygon(far), polygon(far, "bolt", group_id="4")
    )
    reading = read(place)
    assert names(reading) == ["nut", "nut", "bolt"]
    assert [int(found.sum()) for found in masks(reading)] == [600, 100, 100]
    assert "objects made of several shapes that share label and group_id: 1" in str(reading.mends[0])


def test_objects_stay_whole_where_others_lie_on_top(tmp_path):
    place = one_photo(tmp_path, polygon(), polygon("10,10;20,10;20,20;10,20", "bolt"))
    assert [int(found.sum()) for found in masks(read(place))] == [500, 100]


def test_crowds_tags_and_attributes(tmp_path):
    place = one_photo(
        tmp_path,
        shape("polygon", points=SQUARE, noted=[("is_crowd", "true")]),
        shape("polygon", points=SQUARE, noted=[("quality", "good")]),
        shape("tag"),
        labels=("nut", "rust"),
    )
    reading = read(place)
    assert [mark.crowd for mark in reading.photos[0].marks] == [True, False]
    assert [str(mend).partition(" (")[0] for mend in reading.mends] == [
        "labels without an object, left out: 1",
        "shapes with attributes, which are not kept: 1",
        "tags, which mark no pixels, left out: 1",
    ]


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def box(x1, y1, x2, y2, label="nut", **more):
    return shape("box", label, xtl=x1, ytl=y1, xbr=x2, ybr=y2, **more)


def test_only_boxes_are_refused_in_words(tmp_path):
    text = refused(one_photo(tmp_path, box(1, 2, 9, 9), box(11, 2, 19, 9)))
    assert "the CVAT file has only boxes, and a box tells no outline" in text
    assert "annotations.xml: 2 boxes" in text
    assert "draw polygons or masks in CVAT" in text


def test_a_box_beside_outlines_is_an_error_unless_it_is_around_one(tmp_path):
    place = one_photo(tmp_path, polygon(), box(5, 4, 26, 30), box(40, 20, 50, 30, "bolt"))
    text = refused(place)
    assert "objects are given by a box only, which tells no outline" in text
    assert "a.jpg: box 3 ('bolt')" in text
    assert "box 2" not in text
    reading = read(
        one_photo(tmp_path, polygon(), box(5, 4, 26, 30), polygon(group_id="2"), box(0, 0, 9, 9, group_id="2"))
    )
    assert len(reading.photos[0].marks) == 2
    assert "boxes of objects that have an outline too, left out: 2" in str(reading.mends[1])


@pytest.mark.parametrize("tag", ["polyline", "points", "skeleton", "cuboid"])
def test_shapes_without_an_outline_are_refused_by_name(tmp_path, tag):
    text = refused(one_photo(tmp_path, polygon(), shape(tag, "scratch", points="1,2;3,4")))
    assert "lines, points, skeletons and cuboids have no outline, so they are no masks" in text
    assert f"annotations.xml: a.jpg: {tag} 2 ('scratch')" in text


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (shape("star"), "a shape of this kind is not known"),
        (polygon(label=""), "it has no label"),
        (shape("polygon"), "'points' is missing"),
        (polygon("1,2;3"), "its points are not x,y;x,y;..."),
        (polygon("1,2;a,b;3,4"), "its points are not x,y;x,y;..."),
        (polygon("1,2;nan,4;3,4"), "a polygon is not a list of finite numbers"),
        (polygon("1,2;1e9,4;3,4"), "a polygon reaches far outside of the photo"),
        (shape("ellipse", cx="x", cy=1, rx=1, ry=1), "its cx is 'x', not a number"),
        (shape("ellipse", cx=3, cy=1, rx=-1, ry=1), "an ellipse needs a centre and radii above 0"),
        (mask([[1]], 60, 0), "it reaches out of the photo"),
        (mask([[1]], -1, 0), "it reaches out of the photo"),
        (mask([[1]], 0.5, 0), "its box is left 0.5, top 0, width 1, height 1"),
        (mask([[1]], 0, 0, rle="0, x"), "its rle is not a list of whole numbers"),
        (mask([[1]], 0, 0, rle="9" * 40), "its rle is not a list of whole numbers"),
        (mask([[1, 1]], 0, 0, rle="0, 1"), "the runs of its rle add up to 1, its box has 2 pixels"),
        (mask([[1, 1]], 0, 0, rle="4, -2"), "the runs of its rle add up to 2, its box has 2 pixels"),
        (mask([[0, 0]], 0, 0), "it has no pixel"),
    ],
)
def test_a_shape_that_cannot_be_read_is_named(tmp_path, wrong, text):
    message = refused(one_photo(tmp_path, polygon(), wrong))
    assert "the CVAT file has shapes that cannot be read" in message
    assert "annotations.xml: a.jpg: " in message
    assert text in message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "<annotations><track id='0' label='nut'/></annotations>",
            "it is of a video ('CVAT for video 1.1', with tracks)",
        ),
        ("<annotations><image ", "it is not valid XML"),
        ("<data/>", "it is no CVAT file: it starts with <data>, not <annotations>"),
        ("<annotations>" + "<a>" * 99, "its elements are nested more than 32 deep"),
        ("", "it is not valid XML"),
        ('<?xml version="1.0" encoding="utf-99"?><annotations/>', "it is not valid XML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, text):
    (tmp_path / "x.xml").write_text(content)
    message = refused(tmp_path, form="cvat")
    assert "the CVAT file cannot be read" in message
    assert f"x.xml: {text}" in message


@pytest.mark.parametrize(
    "before",
    [
        '<!DOCTYPE annotations [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>',
        '<!DOCTYPE annotations SYSTEM "file:///etc/passwd">',
    ],
)
def test_document_types_and_entities_are_refused(tmp_path, before):
    text = refused(one_photo(tmp_path, polygon(), before=before))
    assert "it declares a document type (<!DOCTYPE or <!ENTITY), which CVAT never writes" in text


def test_photos_are_checked(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    document(
        tmp_path / "annotations.xml",
        image("a.jpg", polygon(), size=(41, 60)),
        image("gone.jpg"),
        image("b.jpg", width="x"),
        image(""),
    )
    text = refused(tmp_path)
    assert "1 photo has another size than the annotations say" in text
    assert "1 photo of the CVAT file was not found" in text
    assert "b.jpg: width and height are 'x' and '40', not sizes in pixels" in text
    assert "image 4 has no name" in text


def test_subsets_are_splits(tmp_path):
    pictures = []
    for number, subset in enumerate(("Train", "Validation")):
        photo(tmp_path / "images" / subset / "a.jpg", seed=number)
        pictures.append(image("a.jpg", polygon(label=("nut", "bolt")[number]), subset=subset))
    document(tmp_path / "annotations.xml", *pictures)
    reading = read(tmp_path)
    assert {(p.split, p.marks[0].category) for p in reading.photos} == {("train", "nut"), ("val", "bolt")}
    assert reading.splits == "splits are kept as the folders give them (train, val)"


def test_photos_found_in_another_folder_or_letter_case_are_counted(tmp_path):
    for number in range(3):
        photo(tmp_path / "cam1" / f"{number}.jpg", seed=number)
    listed = [image("cam2/0.jpg", polygon()), image("cam1/1.jpg", polygon()), image("2.JPG", polygon())]
    document(tmp_path / "cam1" / "annotations.xml", *listed)
    mends = {mend.what: (mend.count, mend.examples) for mend in read(tmp_path / "cam1").mends}
    assert mends["photos found by their name in another folder than the file says"] == (
        1,
        (f"cam2/0.jpg: {tmp_path}/cam1/0.jpg",),
    )
    assert mends["photos found in other letter case"] == (1, (f"2.JPG: {tmp_path}/cam1/2.jpg",))


def test_several_tasks_with_equal_names(tmp_path):
    for number in range(2):
        photo(tmp_path / f"task_{number}" / "images" / "a.jpg", seed=number)
        document(tmp_path / f"task_{number}" / "annotations.xml", image("a.jpg", *[polygon()] * (number + 1)))
    reading = read(tmp_path)
    assert [(p.name, len(p.marks)) for p in reading.photos] == [("task_0/images/a.jpg", 1), ("task_1/images/a.jpg", 2)]


def test_one_file_and_one_category(tmp_path):
    place = one_photo(tmp_path, polygon())
    photo(tmp_path / "images" / "extra.jpg")
    reading = read(place / "annotations.xml", category="bolt")
    assert names(reading) == ["bolt"]
    assert [(item.path.name, item.why) for item in reading.skipped] == [
        ("extra.jpg", "picture that the CVAT file does not list")
    ]
    text = refused(one_photo(tmp_path, polygon(), polygon(label="bolt")), category="x")
    assert "one category name was given, the CVAT file has several" in text


def test_prepare_finds_it(tmp_path):
    place = one_photo(tmp_path / "raw", polygon(), mask([[1, 0, 1]], 4, 4))
    prepare(place, out=tmp_path / "data", val_share=0, test_share=0)
    assert Dataset.read(tmp_path / "data" / "annotations" / "instances_train.json").areas.tolist() == [500, 2]


def test_other_forms_are_told_apart(tmp_path):
    (tmp_path / "voc.xml").write_text("<annotation><object><bndbox/></object></annotation>")
    assert cvat.find(tmp_path, PrepareSettings()) is None
    assert cvat.find(tmp_path / "voc.xml", PrepareSettings()) is None
    (tmp_path / "voc.xml").unlink()
    with pytest.raises(UserError, match="there is no CVAT file"):
        read(tmp_path, form="cvat")


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_damaged_files_never_end_in_a_traceback(seed):
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as name:
        place = one_photo(Path(name), polygon(), mask(np.eye(6), 3, 4))
        content = bytearray((place / "annotations.xml").read_bytes())
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(content)))
            if rng.random() < 0.3:
                del content[at : at + int(rng.integers(1, 40))]
            else:
                content[at] = int(rng.integers(0, 256))
        (place / "annotations.xml").write_bytes(bytes(content))
        try:
            reading = read(place, form="cvat")
        except UserError as error:
            assert str(error)  # noqa: PT017
        else:
            assert 1 <= len(names(reading)) <= 2
