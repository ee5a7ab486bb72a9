"""Splitting anew: groups stay whole, places depend on names alone, small categories reach every split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import scale
from maskwright.dataset import SPLITS
from maskwright.errors import UserError
from maskwright.formats import Mark, Photo
from maskwright.settings import PrepareSettings
from maskwright.splits import split_photos
from maskwright.survey import Survey, place_of

RLE = b"0"


def photo(name, categories=("nut",), sha="", place=""):
    marks = tuple(Mark(category, RLE) for category in categories)
    return Photo(name, name, place, None, (4, 4), sha, marks)


def split(photos, alike=None, **settings):
    categories = sorted({mark.category for one in photos for mark in one.marks})
    with scale.at() as every:
        survey = Survey.of(photos, categories, every)
    result = split_photos(photos, survey, len(categories), PrepareSettings(**settings), alike)
    return {one.name: SPLITS[n] for one, n in zip(photos, result.splits.tolist(), strict=True)}, result


def test_a_photo_alone_goes_where_the_hash_of_its_name_says():
    photos = [photo(f"{n}_x{n * n}.jpg") for n in range(400)]
    names, result = split(photos, group="none")
    moved = sum(
        names[one.name] != ("test" if place_of(one.name) < 0.1 else "val" if place_of(one.name) < 0.2 else "train")
        for one in photos
    )
    assert moved == 0
    assert result.notes == ()
    assert result.how.startswith("split by a hash of each photo's name, 80 % train, 10 % val, 10 % test")


def test_a_folder_of_frames_never_straddles_a_split():
    photos = [photo(f"clip{c}/{n}.jpg") for c in range(20) for n in range(7)]
    names, result = split(photos)
    for c in range(20):
        assert len({names[f"clip{c}/{n}.jpg"] for n in range(7)}) == 1
    assert set(names.values()) == set(SPLITS)
    assert result.notes[0] == "photos are grouped by folders: 20 groups (--group none: do not)"


def test_series_of_names_are_groups_if_there_are_enough():
    photos = [photo(f"video{c}_frame_{n:04d}.jpg") for c in "abcdefghijkl" for n in range(5)]
    names, result = split(photos)
    assert all(len({names[f"video{c}_frame_{n:04d}.jpg"] for n in range(5)}) == 1 for c in "abcdefghijkl")
    assert "photos are grouped by series of names that differ in the last number: 12 groups" in result.notes[0]
    few, result = split([photo(f"a_{n}.jpg") for n in range(60)])
    assert set(few.values()) == set(SPLITS)
    assert result.notes == ()


def test_photos_of_one_burst_stay_together():
    photos = [photo(f"IMG_20210504_1015{s:02d}.jpg") for s in range(0, 60, 2)]
    photos += [photo(f"IMG_202106{d:02d}_120000.jpg") for d in range(1, 29)]
    photos += [photo(f"IMG_202107{d:02d}_120000.jpg") for d in range(1, 29)]
    photos += [photo(f"IMG_20210{m}{d:02d}_120000.jpg") for m in (2, 3) for d in range(1, 28)]
    names, result = split(photos)
    assert len({names[f"IMG_20210504_1015{s:02d}.jpg"] for s in range(0, 60, 2)}) == 1
    assert "photos whose names tell times within 10 s of each other are grouped: 1 group" in result.notes[0]


def test_a_time_that_is_no_date_is_no_time():
    names, result = split([photo("99999999_999999.jpg"), photo("20211399_250000.jpg"), photo("c.jpg")])
    assert len(names) == 3
    assert not any("times" in note for note in result.notes)


def test_a_rule_of_the_users():
    photos = [photo(f"cam{n % 3}-bolt{n}.jpg") for n in range(30)]
    names, result = split(photos, group=r"(cam\d)-")
    for cam in range(3):
        assert len({names[one.name] for one in photos if one.name.startswith(f"cam{cam}")}) == 1
    assert "photos are grouped by '(cam\\\\d)-', as you said: 3 groups" in result.notes[0]


def test_rules_that_cannot_be():
    photos = [photo("a.jpg"), photo("cam1.jpg")]
    with pytest.raises(UserError) as caught:
        split(photos, group="(")
    assert str(caught.value).startswith("the rule for groups is not a regular expression\n  --group '(': ")
    with pytest.raises(UserError) as caught:
        split(photos, group=r"cam\d")
    assert str(caught.value).startswith("the rule for groups fits not every photo\n  a.jpg: no 'cam\\\\d' in it")


def test_photos_that_look_alike_share_a_split():
    photos = [photo(f"{chr(97 + n % 26)}{n}x.jpg") for n in range(100)]
    alike = np.array([[n, n + 1] for n in range(0, 60, 2)], dtype=np.int64)
    names, result = split(photos, alike)
    order = [one.name for one in photos]
    assert all(names[order[a]] == names[order[b]] for a, b in alike.tolist())
    assert "60 photos look like another one; photos that do share a split" in result.notes


def test_equal_files_share_a_split():
    photos = [photo(f"{n}a.jpg", sha=f"{n // 2 + 1:x}".ljust(64, "0")) for n in range(100)]
    names, _ = split(photos, group="none")
    assert all(names[f"{2 * n}a.jpg"] == names[f"{2 * n + 1}a.jpg"] for n in range(50))


def test_small_categories_reach_every_split():
    photos = [photo(f"{n}q.jpg") for n in range(200)]
    photos += [photo(f"rare{n}z.jpg", ("bolt",)) for n in range(3)]
    names, result = split(photos, group="none")
    assert {names[f"rare{n}z.jpg"] for n in range(3)} == set(SPLITS)
    assert any("so that every category that can reaches every split" in note for note in result.notes)


def test_two_photos_give_train_and_val():
    names, _ = split([photo("a.jpg"), photo("b.jpg")])
    assert sorted(names.values()) == ["train", "val"]


@given(st.lists(st.text("abc01_", min_size=1, max_size=6), unique=True, min_size=1, max_size=40), st.data())
def test_groups_are_whole_and_train_is_never_empty(names, data):
    """Law: whatever the names and likenesses, every photo has a split and no pair that is alike is parted."""
    photos = [photo(f"{name}.jpg") for name in names]
    index = st.integers(0, len(photos) - 1)
    pairs = data.draw(st.lists(st.tuples(index, index), max_size=20))
    alike = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    _, result = split(photos, alike)
    assert all(result.splits[a] == result.splits[b] for a, b in pairs)
    assert (result.splits == 0).any()


@given(st.permutations([f"{c}/{n}.jpg" for c in "abcdefghijk" for n in range(3)]))
def test_the_order_of_photos_does_not_matter(names):
    """Law: a split depends on names, not on the order in which the system lists files."""
    first, _ = split([photo(name) for name in sorted(names)])
    second, _ = split([photo(name) for name in names])
    assert first == second
