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
    one, result = split([photo(f"a_{n}.jpg") for n in range(60)])
    assert set(one.values()) == set(SPLITS)
    assert result.notes == ()


def videos(*frames, folder=True, categories=lambda video: ("nut",)):
    """Return photos of videos `a`, `b`, ... of so many frames each."""
    joint = "/" if folder else "_frame_"
    return [
        photo(f"{name}{joint}{n:04d}.jpg", categories(name))
        for name, count in zip("abcdefghijklmnop", frames, strict=False)
        for n in range(count)
    ]


def of_videos(names):
    """Return the splits in which frames of each video are, in order of videos."""
    found = {}
    for name, split_name in names.items():
        found.setdefault(name[0], set()).add(split_name)
    return [found[video] for video in sorted(found)]


def alone(names):
    """Return the split of each video, none of which straddles two."""
    assert all(len(one) == 1 for one in of_videos(names))
    return [one.pop() for one in of_videos(names)]


@pytest.mark.parametrize(
    ("folder", "what"), [(True, "folders"), (False, "series of names that differ in the last number")]
)
def test_five_videos_stay_whole(folder, what):
    names, result = split(videos(200, 200, 200, 200, 200, folder=folder))
    assert sorted(alone(names)) == ["test", "train", "train", "train", "val"]
    assert result.notes == (f"photos are grouped by {what}: 5 groups (--group none: do not)",)
    assert result.how == (
        "5 groups of photos that belong together, never parted: 60 % train, 20 % val, 20 % test, as near to 80, 10 and"
        " 10 % as whole groups come; photos that are added may move groups"
    )


def test_few_videos_are_dealt_out_for_the_nearest_shares():
    splits = alone(split(videos(60, 10, 10, 120))[0])
    assert (splits[0], {*splits[1:3]}, splits[3]) == ("train", {"val", "test"}, "train")
    names, result = split(videos(30, 30, 140), test_share=0.0, val_share=0.3)
    assert alone(names) == ["val", "val", "train"]
    assert ": 70 % train, 30 % val, 0 % test, as near to 70, 30 and 0 % as" in result.how
    names, _ = split(videos(40, 20, 20, 20), val_share=0.4, test_share=0.4)  # train is to have less than half
    assert sorted(alone(names)[1:]) in (["test", "test", "train"], ["train", "val", "val"])


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ((20, 20), "3 splits need as many that share no photos, not even ones that look alike"),
        (
            (20, 20, 20),
            "whole ones would leave less than half of the photos to train, or next to none to another split",
        ),
        (
            (50, 50, 1, 1, 1),
            "whole ones would leave less than half of the photos to train, or next to none to another split",
        ),
        ((60, *[10] * 11), "one of them holds 35 % of the photos"),
    ],
)
def test_videos_that_cannot_stay_whole_are_told(frames, why):
    names, result = split(videos(*frames))
    assert any(len(one) > 1 for one in of_videos(names))
    assert result.notes == (
        f"the photos seem to be of {len(frames)} folders, which are not kept together, since {why}: scores may be too"
        " good; --group folder keeps them together",
    )
    assert result.how.startswith("split by a hash of each photo's name")
    assert split(videos(*frames, folder=False))[1].notes == (
        result.notes[0].replace("folders", "series of names that differ in the last number").replace("folder", "name"),
    )
    assert all(len(one) == 1 for one in of_videos(split(videos(*frames), group="folder")[0]))  # the advice holds


def test_few_videos_that_look_alike_are_one():
    photos = videos(20, 20, 20, 20)
    names, _ = split(photos, np.array([[0, 20]]))
    assert alone(names)[:2] == ["train", "train"]
    names, result = split(photos, np.array([[0, 20], [20, 40]]))
    assert any(len(one) > 1 for one in of_videos(names))
    assert "since 3 splits need as many that share no photos, not even ones that look alike:" in result.notes[0]


def test_few_folders_that_are_categories_are_no_groups():
    names, result = split(videos(20, 20, 20, 20, 20, categories=lambda video: (video,)))
    assert all(len(one) == 3 for one in of_videos(names))
    assert not any("kept together" in note for note in result.notes)


def test_categories_reach_the_splits_that_whole_groups_let_them_reach():
    names, _ = split(videos(*[20] * 5, categories=lambda v: ("nut", "bolt") if v == "c" else ("nut",)))
    assert alone(names)[2] == "train"  # what is in one group only can only be learned
    names, _ = split(videos(*[20] * 6, categories=lambda v: ("nut", "bolt") if v in "aef" else ("nut",)))
    assert {alone(names)[n] for n in (0, 4, 5)} == set(SPLITS)
    of = {"a": ("p", "q"), "b": ("q", "r"), "c": ("r", "p"), "d": ("p", "q", "r")}
    names, result = split(videos(20, 20, 20, 20, categories=lambda v: of[v]))  # each needs three of four
    assert any(len(one) > 1 for one in of_videos(names))
    assert "since whole ones would leave a split without photos of a category:" in result.notes[0]


def test_stray_photos_and_handfuls_are_no_groups():
    strays = [photo("x1.jpg"), photo("y1.jpg"), photo("z1.jpg")]
    for photos in (videos(100) + strays, videos(4, 4, 4, 4)):
        assert split(photos)[1].how.startswith("split by a hash of each photo's name")
        assert not any("kept together" in note for note in split(photos)[1].notes)


def test_days_are_no_few_series():
    photos = [photo(f"IMG_2021050{day}_1{n}3000.jpg") for day in (1, 2, 3, 4, 5) for n in range(10)]
    names, result = split(photos)
    assert any(len({names[one.name] for one in photos[10 * day : 10 * day + 10]}) > 1 for day in range(5))
    assert result.how.startswith("split by a hash of each photo's name")
    assert not any("kept together" in note for note in result.notes)


def test_few_folders_go_before_bursts():
    photos = [photo(f"{c}/IMG_20210504_10{n:02d}0{s}.jpg") for c in "abcde" for n in range(10) for s in (1, 3)]
    names, result = split(photos)
    assert sorted(alone(names)) == ["test", "train", "train", "train", "val"]
    assert result.notes == ("photos are grouped by folders: 5 groups (--group none: do not)",)


@pytest.mark.parametrize("place", ["instances_{}", "{}", "nut_{}/rgb", "cam1/{}"])
def test_splits_made_anew_do_not_follow_the_folders_of_the_old_ones(place):
    """Frames of one video that were parted come together, and what the old splits held does not stay together."""
    of = ("train", "train", "val", "test")
    photos = [
        photo(f"video{c}_{n:03d}.jpg", place=place.format(of[n % 4]))._replace(split=of[n % 4])
        for c in "abcde"
        for n in range(20)
    ]
    names, result = split(photos)
    by_video = {c: {names[f"video{c}_{n:03d}.jpg"] for n in range(20)} for c in "abcde"}
    assert sorted(one.pop() for one in by_video.values()) == ["test", "train", "train", "train", "val"]
    assert not any(by_video.values())
    assert "5 groups" in result.notes[0]
    single = [one._replace(name=f"{n}q{n * n}x.jpg") for n, one in enumerate(photos)]
    assert split(single)[1].notes == ()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=9), st.randoms())
def test_few_groups_are_whole_and_shares_fair_or_it_is_told(frames, random):
    """Law: in whatever order they come, videos stay whole with fair shares, or why not is told."""
    photos = videos(*frames)
    names, result = split(photos)
    if result.how[1:].startswith(" groups of photos"):
        assert set(alone(names)) == set(SPLITS)
        share = {s: sum(one == s for one in names.values()) / len(photos) for s in SPLITS}
        assert share["train"] >= 0.5
        assert min(share["val"], share["test"]) >= 0.05
    elif 5 * len(frames) <= len(photos) and max(frames) <= 0.8 * len(photos):
        assert "which are not kept together, since" in result.notes[0]
    random.shuffle(photos)
    assert split(photos)[0] == names


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
