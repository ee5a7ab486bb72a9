"""What is known of all photos at once: numbers by which names, folders, times and objects can be compared."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskwright import likeness, scale
from maskwright.formats import Mark, Photo
from maskwright.formats.shelf import Shelf
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


RLE = b"04"  # of 2 x 2 pixels, all


def _photo(name, place, split, marks):
    return Photo(f"raw/{name}", name, place, split, (2, 2), "", tuple(marks))


class Pieces:
    """Goes through items in pieces of a length."""

    def __init__(self, length):
        self.length = length

    def pieces(self, function, items):
        items = list(items)
        for start in range(0, len(items), self.length):
            yield function(items[start : start + self.length])


COLUMNS = ("given", "objects", "digest", "folder", "series", "second", "place", "order", "categories", "prints")


def columns(found):
    return {name: getattr(found, name)[:].tolist() for name in COLUMNS} | {
        f"name {n}": column[:].tolist() for n, column in enumerate(found.names)
    }


parts = st.sampled_from(["a", "b", "c_1", "c_2", "IMG_20210504_101502"])
photos = st.lists(
    st.builds(
        _photo,
        st.lists(parts, min_size=1, max_size=3).map("/".join).map("{}.jpg".format),
        st.sampled_from(["", "x"]),
        st.sampled_from([None, "val"]),
        st.lists(st.builds(Mark, st.sampled_from(["nut", "bolt"]), st.just(RLE), st.booleans()), max_size=3),
    ),
    max_size=30,
)


@given(photos, st.integers(1, 9))
def test_pieces_do_not_matter(some, length):
    """Law: the numbers are the same, however the photos are cut into pieces and wherever they are kept."""
    whole = Survey.of(some, ["bolt", "nut"], Pieces(1000))
    assert columns(Survey.of(Shelf(some), ["bolt", "nut"], Pieces(length))) == columns(whole)
    assert len(whole) == len(some)


def test_only_what_is_asked_for_is_found():
    found = Survey.of([photo("a.jpg")], [], Pieces(9), split=False)
    assert (len(found.digest), len(found.folder), len(found.prints)) == (1, 0, 0)


def test_fingerprints_and_photos_that_cannot_be_decoded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    some = [Photo(str(tmp_path / name), name, "", None, (40, 50), "", ()) for name in ("a.png", "b.png")]
    found = Survey.of(some, [], Pieces(1), look=True)
    assert found.prints[:][0].tobytes() == likeness.fingerprint(tmp_path / "a.png")
    assert not found.prints[:][1].any()
