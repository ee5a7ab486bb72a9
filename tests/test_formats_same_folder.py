"""Photo and mask image side by side: which is which, and when to ask."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats import same_folder
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (24, 32)  # height, width


def photo(path, size=SIZE, grey=False):
    """Save a photo with texture; different for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, size if grey else (*size, 3), dtype=np.uint8)).save(path)
    return path


def blob(at=(4, 5), side=8, value=255):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = value
    return mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def side_by_side(root, photos, masks):
    for name in photos:
        photo(root / name)
    for n, name in enumerate(masks):
        save(blob((n, n)), root / name)
    return root


def run(raw, tmp_path, **chosen):
    said = []
    chosen = {"val_share": 0, "test_share": 0, "near_duplicates": False, **chosen}
    made = prepare(raw, None, tmp_path / "DATA", say=said.append, overwrite=True, **chosen)
    return made, "\n".join(said)


def fails(raw, tmp_path, **chosen):
    with pytest.raises(UserError) as caught:
        prepare(raw, None, tmp_path / "DATA", **chosen)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{raw}/", "")


def objects(made):
    """Return {file name: [rle, ...]} over all splits."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        for i, image in enumerate(data.images):
            found[image.file_name] = data.rles()[data.first[i] : data.first[i + 1]]
    return found


def find(root, **chosen):
    return same_folder.find(root, PrepareSettings(**chosen))


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["a.jpg", "b.jpg"], ["a.png", "b.png"]),
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"]),
        (["a.png", "b.png"], ["a_mask.png", "b_mask.png"]),
        (["a_rgb.png", "b_rgb.png"], ["a_seg.png", "b_seg.png"]),
        (["a_rgb.png", "b_rgb.png"], ["a.png", "b.png"]),
        (["img_a.png", "img_b.png"], ["mask_a.png", "mask_b.png"]),
        (["a.jpg", "b.jpg"], ["a-gt.bmp", "b-gt.bmp"]),
        (["a.png", "b.png"], ["a.bmp", "b.bmp"]),
        (["a.png", "b.png"], ["a.jpg", "b.jpg"]),
        (["a.jpg", "b.jpg"], ["a.mask.png", "b.mask.png"]),
    ],
)
def test_which_is_the_photo(tmp_path, photos, masks):
    root = side_by_side(tmp_path / "raw", photos, masks)
    assert find(root) is not None
    made, said = run(root, tmp_path)
    expected = {name: [pixels.encode(blob((n, n)))] for n, name in enumerate(photos)}
    assert objects(made) == expected
    assert f"understood: 2 photos in {root}, 2 with a mask image beside it" in said
    assert "the objects are of the category 'object' (no folder name tells it; --category NAME gives another)" in said


def test_a_grey_photo_is_a_photo(tmp_path):
    root = side_by_side(tmp_path / "raw", [], ["a.png", "b.png"])
    for name in "ab":
        photo(root / f"{name}.bmp", grey=True)
    made, _ = run(root, tmp_path)
    assert sorted(objects(made)) == ["a.bmp", "b.bmp"]


def test_id_images(tmp_path):
    root = side_by_side(tmp_path / "raw", ["a.jpg", "b.jpg"], [])
    for name in "ab":
        save(blob((1, 1), 5, 1) + blob((10, 10), 5, 2), root / f"{name}.png")
    made, said = run(root, tmp_path)
    assert [len(found) for found in objects(made).values()] == [2, 2]
    assert "value n is object n of its photo (coding ids)" in said


def test_subfolders_and_splits(tmp_path):
    for split in ("nut_train", "nut_val"):
        side_by_side(tmp_path / "raw" / split, ["a.jpg"], ["a.png"])
    made, said = run(tmp_path / "raw", tmp_path)
    assert (made.photos, made.categories) == ({"train": 1, "val": 1}, ("nut",))
    assert "splits are kept as the folders give them (train, val)" in said
    side_by_side(tmp_path / "raw", ["b.jpg"], ["b.png"])
    made, said = run(tmp_path / "raw", tmp_path)
    note = "1 photo in no split folder (b.jpg): all photos are split anew"
    assert f"understood: {note}" in said
    assert note in made.notes
    for folder in ("x", "y/z"):
        side_by_side(tmp_path / "deep" / folder, ["a.jpg"], ["a.png"])
    made, _ = run(tmp_path / "deep", tmp_path, category="bolt")
    assert (sorted(objects(made)), made.categories) == (["x/a.jpg", "y/z/a.jpg"], ("bolt",))


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "b.png", "c.jpg", "d.png"],
        ["a.jpg", "a.png", "b.jpg", "b.png"],
        ["a.jpg", "b.jpg", "c.jpg"],
        ["x_left.png", "x_right.png"],
        [],
    ],
)
def test_photos_alone_are_left_alone(tmp_path, names):
    (tmp_path / "raw").mkdir()
    root = side_by_side(tmp_path / "raw", names, [])
    assert find(root) is None


def test_other_forms_are_left_alone(tmp_path):
    side_by_side(tmp_path / "raw", ["rgb/a.jpg"], ["mask/a.png", "mask/a.bmp"])
    assert find(tmp_path / "raw") is None
    side_by_side(tmp_path / "split", ["train/rgb/a.jpg"], ["train/mask/a.png", "train/mask/a.bmp"])
    assert find(tmp_path / "split") is None
    side_by_side(tmp_path / "files", ["a.jpg"], ["a_nut_1.png", "a_nut_2.png"])
    assert find(tmp_path / "files") is None


def test_two_pictures_that_both_look_like_masks_are_asked_about(tmp_path):
    root = side_by_side(tmp_path / "raw", [], ["a.png", "a.bmp"])
    text = fails(root, tmp_path)
    assert "it cannot be told which picture is the photo and which the mask image\n  a.bmp and a.png\n" in text
    assert "fix: name the mask images x_mask.png, or put photos and masks into folders called photos and masks" in text
    photo(tmp_path / "photos/a.jpg")
    photo(tmp_path / "photos/a.png")
    assert "it cannot be told which picture is the photo" in fails(tmp_path / "photos", tmp_path, form="same-folder")


def test_everything_that_can_be_missing_or_too_much(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg", "bare.jpg"]
    root = side_by_side(
        tmp_path / "raw", names, ["a_mask.png", "b_mask.png", "c_mask.png", "c_seg.png", "lost_mask.png"]
    )
    text = fails(root, tmp_path)
    assert "more than two pictures have one stem\n  c.jpg, c_mask.png, c_seg.png\n" in text
    assert "1 mask image has no photo\n  lost_mask.png: no photo lost.* beside it\n" in text
    assert "1 photo has no mask image\n  bare.jpg\n" in text
    (root / "c_seg.png").unlink()
    (root / "lost_mask.png").unlink()
    made, _ = run(root, tmp_path, unmatched="empty")
    assert {name: len(found) for name, found in objects(made).items()} == {
        "a.jpg": 1,
        "b.jpg": 1,
        "bare.jpg": 0,
        "c.jpg": 1,
    }
    made, said = run(root, tmp_path, unmatched="skip")
    assert sorted(objects(made)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert "skipped: 1 x photo without a mask, left out as you said (bare.jpg)" in said


def test_a_picture_without_a_partner_that_can_be_either(tmp_path):
    root = side_by_side(tmp_path / "raw", ["a.jpg", "b.jpg", "odd.bmp"], ["a.png", "b.png"])
    text = fails(root, tmp_path)
    assert "1 picture without a partner can be photo or mask image\n  odd.bmp\n" in text


def test_a_mask_of_another_size(tmp_path):
    root = side_by_side(tmp_path / "raw", ["a.jpg", "b.jpg"], ["a.png", "b.png"])
    save(blob()[::2, ::2], root / "b.png")
    assert "1 mask image differs in size from its photo\n  b.png is 16 x 12, b.jpg is 32 x 24" in fails(root, tmp_path)


@settings(max_examples=10)
@given(st.lists(arrays(np.bool_, SIZE).filter(np.any), min_size=1, max_size=3))
def test_masks_come_back_pixel_for_pixel(tmp_path_factory, masks):
    tmp_path = tmp_path_factory.mktemp("law")
    for n, mask in enumerate(masks):
        photo(tmp_path / "raw" / f"{n}.jpg")
        save(mask.astype(np.uint8) * np.uint8(255), tmp_path / "raw" / f"{n}_mask.png")
    made, _ = run(tmp_path / "raw", tmp_path)
    assert objects(made) == {f"{n}.jpg": [pixels.encode(mask)] for n, mask in enumerate(masks)}
