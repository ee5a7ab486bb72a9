"""What is known of all photos at once: numbers by which names, folders, times and objects can be compared."""

import numpy as np

from maskwright import scale
from maskwright.formats import Mark, Photo
from maskwright.pixels import encode
from maskwright.survey import Survey, name_numbers, place_of

TWO_PARTS = np.zeros((6, 6), dtype=bool)
TWO_PARTS[0, 0] = TWO_PARTS[4:, 4:] = True


def photo(name, place="", split=None, marks=(), sha="ab" * 32):
    return Photo(f"raw/{name}", name, place, split, (6, 6), sha, marks)


def survey(photos, categories=("bolt", "nut"), **how):
    with scale.at() as every:
        return Survey.of(photos, categories, every, **how)


def test_splits_objects_and_categories_are_counted():
    marks = (Mark("nut", encode(TWO_PARTS)), Mark("nut", encode(TWO_PARTS)), Mark("bolt", encode(TWO_PARTS), True))
    found = survey([photo("a.jpg", split="val", marks=marks), photo("b.jpg")])
    assert len(found) == 2
    assert found.given[:].tolist() == [1, 0]
    assert found.objects[:].tolist() == [3, 0]
    assert sorted(found.categories[:].tolist()) == [[1, 0]]  # once, and crowds do not count
    apart = survey([photo("a.jpg", marks=marks)], separate=True)
    assert apart.objects[:].tolist() == [5]  # a crowd stays whole


def test_folders_series_and_times_are_told_apart():
    names = ["x/IMG_20210504_101500.jpg", "x/IMG_20210504_101510.jpg", "y/clip_0001.jpg", "y/clip_0002.jpg", "z.jpg"]
    found = survey([photo(name) for name in names])
    folder, series, second = found.folder[:], found.series[:], found.second[:]
    assert folder[0] == folder[1] != folder[2] == folder[3]
    assert folder[4] not in folder[:4]
    assert series[2] == series[3] != series[4]
    assert second[1] - second[0] == 10
    assert second[2:].tolist() == [-1] * 3
    np.testing.assert_array_equal(found.place[:], [place_of(name) for name in names])


def test_names_differ_in_more_than_letter_case_and_ending():
    one, other, third = photo("a/X.jpg"), photo("b/x.PNG"), photo("a/X.jpg", place="p")
    assert name_numbers(one)[0] == name_numbers(other)[0]  # flat: both are x
    assert name_numbers(one)[1] != name_numbers(other)[1]  # with their folders
    assert name_numbers(one)[:2] == name_numbers(third)[:2]
    assert name_numbers(one)[2] != name_numbers(third)[2]
    assert name_numbers(one, exact=True)[0] != name_numbers(other, exact=True)[0]


def test_equal_files_have_equal_digests():
    found = survey([photo("a.jpg"), photo("b.jpg"), photo("c.jpg", sha="cd" * 32)])
    digest = found.digest[:]
    assert digest[0] == digest[1] != digest[2]
