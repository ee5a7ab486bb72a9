"""What the names of folders tell of splits, and what is said where not every photo lies in a split."""

import pytest

from maskwright.formats.split_folders import first_folder_split, kept_splits, split_and_category, splits_text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("claw_hammer_train", ("train", "claw_hammer")),
        ("Validation", ("val", None)),
        ("trained", (None, None)),
        ("_train", (None, None)),
        ("", (None, None)),
    ],
)
def test_folder_names(name, told):
    assert split_and_category(name) == told


def test_only_the_first_folder_of_a_name_tells_a_split():
    assert first_folder_split("nut_val/train/1.jpg") == ("val", "train/1.jpg")
    assert first_folder_split("a/train/1.jpg") == (None, "a/train/1.jpg")
    assert first_folder_split("train.jpg") == (None, "train.jpg")


def test_splits_are_kept_if_every_photo_has_one():
    assert splits_text(["test", "train", "test"]) == "splits are kept as the folders give them (train, test)"
    assert splits_text(["train", None]) == splits_text([]) == ""
    assert kept_splits([("a", "val"), ("b", "val")]) == ("splits are kept as the folders give them (val)", [])


def test_splits_that_are_not_used_are_told():
    photos = [(f"{n}.jpg", "train" if n == 3 else None) for n in range(6)]
    note = "5 photos in no split folder (0.jpg, 1.jpg, 2.jpg, ...): all photos are split anew"
    assert kept_splits(photos) == ("", [note])
    assert kept_splits([("a", None)]) == kept_splits([]) == ("", [])
