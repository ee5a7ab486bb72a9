"""Photos found by the names that annotation files give them."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats import Photo, Tally, via
from maskwright.formats.listing import (
    HEAD_BYTES,
    Entry,
    Pictures,
    Spot,
    _draw,
    account,
    files_below,
    head_and_tail,
    join_parts,
    numbers,
    same_box,
    sample,
    spot,
    unlike,
    with_splits,
)
from maskwright.settings import PrepareSettings


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.new("RGB", (4, 3)).save(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", Spot("a.jpg", "", None)),
        ("images/val/x/a.jpg", Spot("x/a.jpg", "images/val", "val")),
        ("hammer_train/a.jpg", Spot("a.jpg", "hammer_train", "train")),
        ("x/train/a.jpg", Spot("x/train/a.jpg", "", None)),
        ("/elsewhere/a.jpg", Spot("a.jpg", "", None)),
    ],
)
def test_folders_tell_place_and_split(path, expected):
    assert spot(Path("raw") / path, Path("raw")) == expected


def test_names_choose_among_pictures_only(tmp_path):
    touch(tmp_path / "raw" / "a.jpg", tmp_path / "secret.jpg")
    pictures = Pictures(tmp_path / "raw", PrepareSettings())
    source = tmp_path / "raw" / "x.json"
    for name in ("a.jpg", "..\\images\\a.jpg", "/x/a.jpg", "C:/a.jpg", "A.JPG"):
        assert pictures.named(name, source) == [tmp_path / "raw" / "a.jpg"]
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "", "x\0y", "a" * 5000):
        assert pictures.named(name, source) == []


def test_of_equal_names_the_one_of_the_same_split_and_folder_is_meant(tmp_path):
    files = [tmp_path / "images" / split / folder / "a.jpg" for split in ("train", "val") for folder in ("x", "y")]
    touch(*files)
    pictures = Pictures(tmp_path, PrepareSettings())
    assert pictures.named("a.jpg", tmp_path / "labels" / "val" / "y" / "a.json") == [files[3]]
    assert pictures.named("val/x/a.jpg", tmp_path / "all.json") == [files[2]]
    assert pictures.named("a.jpg", tmp_path / "all.json") == files
    assert pictures.by_stem(tmp_path / "labels" / "train" / "y" / "a.json") == files[1]
    assert pictures.by_stem(tmp_path / "a.json") is None
    elsewhere = Pictures(tmp_path / "images", PrepareSettings(), tmp_path / "labels")
    assert elsewhere.named("a.jpg", tmp_path / "labels" / "val" / "y" / "a.json") == [files[3]]


def test_photos_beside_the_folder_are_found_but_not_deep_above(tmp_path):
    touch(tmp_path / "up" / "photos" / "sub" / "a.jpg", tmp_path / "up" / "other" / "b.jpg")
    (tmp_path / "up" / "labels").mkdir()
    assert Pictures(tmp_path / "up" / "labels", PrepareSettings()).paths == [tmp_path / "up/photos/sub/a.jpg"]
    touch(tmp_path / "flat" / "c.jpg", tmp_path / "flat" / "deep" / "d.jpg")
    (tmp_path / "flat" / "labels").mkdir()
    assert Pictures(tmp_path / "flat" / "labels", PrepareSettings()).paths == [tmp_path / "flat" / "c.jpg"]
    with pytest.raises(UserError, match="the photo folder does not exist"):
        Pictures(tmp_path, PrepareSettings(photos="nowhere"))


ELSEWHERE = "photos found by their name in another folder than the file says"
OTHER_CASE = "photos found in other letter case"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("1.jpg", ""),
        ("cam1/1.jpg", ""),
        ("./cam1//1.jpg", ""),
        ("..\\cam1\\1.jpg", ""),
        ("../1.jpg", ""),
        ("site/cam1/1.jpg", ""),
        ("/photos/cam1/1.jpg", ""),
        ("C:\\photos\\cam1\\1.jpg", ""),
        ("d:/1.jpg", ""),
        ("cam2/1.jpg", ELSEWHERE),
        ("other/cam1/1.jpg", ELSEWHERE),
        ("../cam2/1.jpg", ELSEWHERE),
        ("/photos/cam2/1.jpg", ELSEWHERE),
        ("1.JPG", OTHER_CASE),
        ("Cam1/1.jpg", OTHER_CASE),
        ("Cam2/1.JPG", ELSEWHERE),
    ],
)
def test_what_a_photo_differs_in_from_its_name(name, what):
    assert unlike(name, Path("/data/site/cam1/1.jpg")) == what


def test_a_folder_that_was_named_from_inside_is_known(tmp_path, monkeypatch):
    (tmp_path / "cam1").mkdir()
    monkeypatch.chdir(tmp_path / "cam1")
    assert unlike("cam1/1.jpg", Path("1.jpg")) == ""
    assert unlike("cam2/1.jpg", Path("1.jpg")) == ELSEWHERE


def test_numbers_are_checked():
    assert numbers([1, 2.5], 2, "no") == [1.0, 2.5]
    for wrong in ([1], [1, float("nan")], [1, True], [1, "2"], [1, 10**30], "12", None):
        with pytest.raises(ValueError, match="no"):
            numbers(wrong, 2, "no")


def test_files_are_looked_at_from_both_ends(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"a" + b"." * 3 * HEAD_BYTES + b"z")
    text = head_and_tail(path)
    assert (len(text), text[:1], text[-1:]) == (2 * HEAD_BYTES, b"a", b"z")
    path.write_bytes(b"abc")
    assert head_and_tail(path) == b"abc"
    assert head_and_tail(tmp_path / "gone") == b""


def test_a_sample_is_of_every_folder(tmp_path):
    for folder in ("a", "b"):
        for number in range(5):
            path = tmp_path / folder / f"{number}.JSON"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.json").touch()
    files = files_below(tmp_path, ".json")
    assert len(files) == 10
    assert [path.relative_to(tmp_path).as_posix() for path in sample(files)] == [
        f"{folder}/{number}.JSON" for folder in "ab" for number in range(3)
    ]


def test_polygons_beside_a_mask_are_counted_as_all_others():
    drawn = pixels.encode(np.eye(20, dtype=bool))
    beyond, line, empty = [-5, 1, 4, 1, 4, 6, -5, 6], [1, 1, 2, 2], [3, 3, 3, 3, 3, 3]
    tally = Tally()
    rle = join_parts([("polygon", p) for p in (beyond, line, empty)] + [("rle", drawn)], (20, 20), "a", tally)
    assert rle == pixels.union([drawn, pixels.from_polygons([beyond], (20, 20))], (20, 20))
    assert tally.counts == {
        "polygons that reach out of the photo, cut at its edge": 1,
        "polygons of fewer than three points, left out": 1,
    }
    assert join_parts([("polygon", empty), ("rle", drawn)], (20, 20), "a", Tally()) == drawn
    assert join_parts([("polygon", line), ("rle", drawn)], (20, 20), "a", Tally()) == drawn
    none = Tally()
    assert join_parts([("polygon", empty), ("rle", None)], (20, 20), "a", none) is None
    assert none.counts == {"objects without a pixel, left out": 1}


def test_boxes_around_one_object():
    assert same_box((0, 0, 10, 10), (2, -2, 11, 10))
    assert not same_box((0, 0, 10, 10), (0, 0, 10, 20))


def test_every_file_is_accounted_for_once(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "sub" / "b.jpg")
    (tmp_path / "x.json").touch()
    found = account((tmp_path, tmp_path / "sub"), [tmp_path / "a.jpg"], [], "not listed")
    assert [(item.path.name, item.why) for item in found] == [("b.jpg", "not listed"), ("x.json", "not a picture file")]


def test_splits_are_kept_only_if_all_photos_have_one(tmp_path):
    def photo(split):
        return Photo("a.jpg", "a.jpg", "", split, (3, 4), "", ())

    assert with_splits([photo("val"), photo("train")])[1] == "splits are kept as the folders give them (train, val)"
    photos, how, notes = with_splits([photo("val"), photo(None)])
    assert ([one.split for one in photos], how) == ([None, None], "")
    assert notes == ["1 photo in no split folder (a.jpg): all photos are split anew"]


def test_work_may_be_done_in_another_process(tmp_path):
    touch(tmp_path / "a.png")
    square = {"name": "rect", "x": 1, "y": 1, "width": 2, "height": 2}
    entry = Entry(tmp_path / "via.json", "a.png", (("a region", "nut", square),))
    function, job = pickle.loads(
        pickle.dumps((partial(_draw, draw=via._draw, frame="upright"), (tmp_path / "a.png", entry)))
    )
    outcome = pickle.loads(pickle.dumps(function(job)))
    assert (outcome.sight.size, len(outcome.marks), outcome.faults) == ((3, 4), 1, ())
