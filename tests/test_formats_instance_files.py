"""One mask file per object: which photo a file is of, its category, and everything that can go wrong with that."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset
from maskwright.dataset import Image as Photo
from maskwright.errors import UserError
from maskwright.formats import instance_files
from maskwright.formats.instance_folders import write_folders
from maskwright.masks import write_mask_images
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SHARED = Path(__file__).parents[2] / "shared" / "data" / "formats"
SIZE = (24, 32)  # height, width


def photo(path, size=SIZE, **save):
    """Save a photo with texture; different for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path.name).encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def blob(at=(4, 5), side=8, size=SIZE):
    mask = np.zeros(size, dtype=np.uint8)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = 255
    return mask


def save(array, path, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def flat(root, files, photos=None, folder="annotations", photo_folder="shapes"):
    """Save mask files by name, each another blob, and their photos."""
    for n, name in enumerate(files):
        save(blob((n % 12, n % 20)), root / folder / name)
    for name in photos or []:
        photo(root / photo_folder / name)
    return root


def run(raw, tmp_path, masks=None, **chosen):
    said = []
    chosen = {"val_share": 0, "test_share": 0, "near_duplicates": False, **chosen}
    made = prepare(raw, masks, tmp_path / "DATA", say=said.append, overwrite=True, **chosen)
    return made, "\n".join(said)


def fails(raw, tmp_path, masks=None, **chosen):
    with pytest.raises(UserError) as caught:
        prepare(raw, masks, tmp_path / "DATA", **chosen)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{raw}/", "")


def objects(made):
    """Return {file name: [(category, rle), ...]} over all splits, sorted."""
    found = {}
    for split in made.photos:
        found |= contents(made.split(split))
    return found


def contents(data):
    names = {category.id: category.name for category in data.categories}
    rles = data.rles()
    return {
        image.file_name: sorted(
            (names[int(data.category_ids[k])], rles[k]) for k in range(data.first[i], data.first[i + 1])
        )
        for i, image in enumerate(data.images)
    }


def counts(made):
    return {name: [category for category, _ in found] for name, found in objects(made).items()}


# ── named after the photo ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_photo_takes_only_the_masks_that_begin_with_its_whole_name(tmp_path):
    files = ["1_nut_0.png", "10_nut_0.png", "10_nut_1.png", "11_bolt_0.png", "100_nut_1.png"]
    root = flat(tmp_path / "raw", files, ["1.jpg", "10.jpg", "11.jpg", "100.jpg"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"1.jpg": ["nut"], "10.jpg": ["nut", "nut"], "100.jpg": ["nut"], "11.jpg": ["bolt"]}
    assert f"understood: 4 photos in {root}/shapes, 4 with 5 mask files in {root}/annotations" in said
    assert "understood: 2 categories: bolt, nut (from the names of the mask files)" in said
    assert "understood: each mask file is one object, parts and holes included" in said


@pytest.mark.parametrize(
    ("photo_of", "mask_of"),
    [
        ("photos/{}/1.jpg", "masks/{}/1_nut_1.png"),
        ("{}/photos/1.jpg", "{}/masks/1_nut_1.png"),
        ("{}/1.jpg", "{}/masks/1_nut_1.png"),
    ],
)
@pytest.mark.parametrize("resplit", [False, True])
@pytest.mark.parametrize("splits", [("train", "val"), ("s1_train", "s2_train", "s1_val")])
def test_photos_of_one_name_in_the_folders_of_splits(tmp_path, photo_of, mask_of, resplit, splits):
    for n, split in enumerate(splits):
        save(np.full((*SIZE, 3), 60 * n, np.uint8), tmp_path / "raw" / photo_of.format(split))
        save(blob((n, 3)), tmp_path / "raw" / mask_of.format(split))
    made, _ = run(tmp_path / "raw", tmp_path, form="instance-files", resplit=resplit)
    assert sum(made.photos.values()) == len(splits)
    if not resplit:
        assert made.photos == {"train": len(splits) - 1, "val": 1}
    found = [(name, rle) for split in made.photos for name, ((_, rle),) in contents(made.split(split)).items()]
    assert sorted(rle for _, rle in found) == sorted(pixels.encode(blob((n, 3))) for n in range(len(splits)))
    assert not resplit or len({name for name, _ in found}) == len(splits)
    for name, rle in found:
        told = [n for n, split in enumerate(splits) if split in name.split("/")]
        assert [rle] == [pixels.encode(blob((n, 3))) for n in told] or name == "1.jpg"


def test_underscores_and_spaces_in_photos_and_categories(tmp_path):
    files = ["IMG_2020_1_red nut_0.png", "IMG_2020_1_10_mm_bolt_1.png", "IMG_2020_red nut_2.png", "b_red nut_07.png"]
    root = flat(tmp_path / "raw", files, ["IMG_2020_1.jpg", "IMG_2020.jpg", "b.jpg"])
    made, _ = run(root, tmp_path)
    assert counts(made) == {
        "IMG_2020.jpg": ["red nut"],
        "IMG_2020_1.jpg": ["10_mm_bolt", "red nut"],
        "b.jpg": ["red nut"],
    }


def test_the_longest_photo_is_meant_unless_only_a_shorter_gives_a_category_that_is_known(tmp_path):
    # `a_b_nut_1` is of photo a_b; but `a_b_big_nut_1` would be big_nut of a_b, or b_big_nut of a.
    files = ["a_nut_1.png", "a_b_nut_1.png", "c_nut_1.png", "a_b_big_nut_1.png", "c_big_nut_1.png"]
    root = flat(tmp_path / "raw", files, ["a.jpg", "a_b.jpg", "c.jpg"])
    made, _ = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["nut"], "a_b.jpg": ["big_nut", "nut"], "c.jpg": ["big_nut", "nut"]}


def test_a_file_that_can_be_of_two_photos_is_asked_about(tmp_path):
    files = ["c_nut_1.png", "c_big_nut_1.png", "a_big_nut_1.png", "a_big_bolt_1.png"]
    root = flat(tmp_path / "raw", files, ["a.jpg", "a_big.jpg", "c.jpg"])
    text = fails(root, tmp_path, unmatched="empty")
    assert "1 mask file can be of more than one photo by name\n" in text
    assert "  annotations/a_big_nut_1.png: a_big.jpg with nut or a.jpg with big_nut\n" in text
    assert "fix: rename these photos with their mask files" in text


def test_no_category_in_the_names(tmp_path):
    root = flat(tmp_path / "raw", ["a_0.png", "a_1.png", "b_0.png"], ["a.jpg", "b.jpg"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["object", "object"], "b.jpg": ["object"]}
    assert "the objects are of the category 'object' (no name tells it; --category NAME gives another)" in said
    made, said = run(root, tmp_path, category="nut")
    assert made.categories == ("nut",)
    assert "the objects are of the category 'nut' (as you said)" in said


def test_one_category_for_several_is_refused(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_bolt_1.png"], ["a.jpg"])
    text = fails(root, tmp_path, category="thing")
    assert "one category name was given, and the names of the mask files give several\n  mask files: bolt, nut" in text


def test_some_files_with_and_some_without_category(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "b_1.png"], ["a.jpg", "b.jpg"])
    text = fails(root, tmp_path)
    assert "some mask files name a category and others do not\n  annotations/b_1.png\n" in text
    assert "fix: name all of them <photo>_<category>_<n>, or none" in text


def test_files_without_numbers_need_two_categories_or_the_form_said(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut.png", "a_bolt.png", "b_nut.png"], ["a.jpg", "b.jpg"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["bolt", "nut"], "b.jpg": ["nut"]}
    assert "note: the mask files are not numbered: at most one object per photo and category" in said
    shutil.rmtree(root)
    flat(root, ["a_matte.png", "b_matte.png"], ["a.jpg", "b.jpg"])
    assert instance_files.find(root, PrepareSettings()) is None
    made, _ = run(root, tmp_path, form="instance-files")
    assert counts(made) == {"a.jpg": ["matte"], "b.jpg": ["matte"]}


def test_a_number_is_missing(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_nut_1.png", "a_bolt.png"], ["a.jpg"])
    text = fails(root, tmp_path)
    assert "1 mask file is not named <photo>_<category>_<n> as the others are" in text
    assert "  annotations/a_bolt.png: a.jpg and no number" in text


def test_mask_files_without_a_photo_and_photos_without_a_mask_file(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_nut_1.png", "lost_nut_0.png"], ["a.jpg", "bare.jpg"])
    text = fails(root, tmp_path)
    assert (
        "1 mask file has no photo\n  annotations/lost_nut_0.png: its name does not begin with that of a photo" in text
    )
    assert "1 photo has no mask file\n  shapes/bare.jpg\n" in text
    assert "--unmatched empty; or leave the photos out: --unmatched skip" in text
    (root / "annotations/lost_nut_0.png").unlink()
    made, said = run(root, tmp_path, unmatched="empty")
    assert counts(made) == {"a.jpg": ["nut", "nut"], "bare.jpg": []}
    assert "note: 1 photo without a mask: without objects" in said
    made, said = run(root, tmp_path, unmatched="skip")
    assert counts(made) == {"a.jpg": ["nut", "nut"]}
    assert "skipped: 1 x photo without a mask, left out as you said (bare.jpg)" in said


def test_photos_that_differ_in_the_ending_only(tmp_path):
    root = flat(tmp_path / "raw", ["a.jpg_nut_1.png", "a.png_nut_1.png", "a.png_nut_2.png"], ["a.jpg", "a.png"])
    made, _ = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["nut"], "a.png": ["nut", "nut"]}
    save(blob(), root / "annotations/a_nut_3.png")
    text = fails(root, tmp_path / "again")
    assert "photos have the same name but for the ending or the folder, so that mask files can be of either" in text
    assert "  annotations/a_nut_3.png\n" in text


def test_splits_from_folders(tmp_path):
    flat(tmp_path / "raw/nut_train", ["a_1.png", "a_2.png"], ["a.jpg"], "annotations", "images")
    flat(tmp_path / "raw/nut_val", ["b_1.png"], ["b.jpg"], "annotations", "images")
    made, said = run(tmp_path / "raw", tmp_path, form="instance-files")
    assert (made.photos, made.categories) == ({"train": 1, "val": 1}, ("nut",))
    assert "splits are kept as the folders give them (train, val)" in said
    for split in ("train", "test"):
        photo(tmp_path / "other/pictures" / split / "a.jpg")
        save(blob(), tmp_path / "other/marks" / split / "a_nut_1.png")
    made, _ = run(tmp_path / "other", tmp_path)
    assert made.photos == {"train": 1, "test": 1}
    assert objects(made) == {"a.jpg": [("nut", pixels.encode(blob()))]}
    photo(tmp_path / "other/pictures/b.jpg")
    save(blob(), tmp_path / "other/marks/b_nut_1.png")
    made, said = run(tmp_path / "other", tmp_path, form="instance-files")
    note = "1 photo in no split folder (b.jpg): all photos are split anew"
    assert f"understood: {note}" in said
    assert note in made.notes


def test_two_folders_that_the_user_names(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_1.png", "a_nut_2.png"], ["a.jpg"], "truth", "camera")
    made, _ = run(root / "camera", tmp_path, root / "truth", form="instance-files")
    assert counts(made) == {"a.jpg": ["nut", "nut"]}


def test_several_folders_of_mask_files(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_1.png", "a_nut_2.png"], ["a.jpg"], "first", "camera")
    shutil.copytree(root / "first", root / "second")
    text = fails(root, tmp_path)
    assert "several folders hold mask files named after photos\n  first, after the photos in " in text
    assert "fix: say which: --photos FOLDER" in text


@pytest.mark.parametrize(
    "files",
    [["a.png", "b.png"], ["a_mask.png", "b_mask.png"], ["mask_a.png", "mask_b.png"], ["a_gtFine_labelIds.png"], []],
)
def test_other_forms_are_left_alone(tmp_path, files):
    root = flat(tmp_path / "raw", files, ["a.jpg", "b.jpg"], "masks", "images")
    assert instance_files.find(root, PrepareSettings()) is None


def test_pairs_whose_names_end_in_numbers_are_left_alone(tmp_path):
    names = [f"clip_{kind}_{n}" for kind in ("day", "night") for n in (1, 2)]
    root = flat(tmp_path / "raw", [f"{n}.png" for n in names], ["clip.jpg", *(f"{n}.jpg" for n in names)], "masks")
    assert instance_files.find(root, PrepareSettings()) is None


def test_usual_folder_names_do_not_hide_the_form(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_nut_1.png"], ["a.jpg"], "masks", "images")
    made, _ = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["nut", "nut"]}


def test_penn_fudan_is_a_pair_of_folders_of_id_images(tmp_path):
    for name in ("FudanPed00001", "FudanPed00002"):
        photo(tmp_path / "raw/PNGImages" / f"{name}.png")
        ids = blob((1, 1), 5) // 255 + blob((12, 12), 5) // 255 * np.uint8(2)
        save(ids, tmp_path / "raw/PedMasks" / f"{name}_mask.png")
    made, said = run(tmp_path / "raw", tmp_path, "PedMasks", photos="PNGImages")
    assert counts(made) == {"FudanPed00001.png": ["object"] * 2, "FudanPed00002.png": ["object"] * 2}
    assert "value n is object n of its photo (coding ids)" in said


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_masks_of_every_kind(tmp_path):
    root = flat(tmp_path / "raw", [], ["a.jpg"])
    masks = root / "annotations"
    expected = blob() > 0
    save(blob(), masks / "a_nut_0.png")
    save(blob() // 255, masks / "a_nut_1.png")
    save(blob() // 255 * np.uint8(38), masks / "a_nut_2.png")
    save(blob(), masks / "a_nut_3.png", "1")
    save(blob(), masks / "a_nut_4.png", "RGBA")
    save((blob() // 255).astype(np.uint16) * np.uint16(1000), masks / "a_nut_5.png")
    coloured = Image.fromarray(blob() // 255)
    coloured.putpalette([0, 0, 0, 200, 30, 90] + [0] * 762)
    coloured.save(masks / "a_nut_6.png")
    save(np.stack([blob(), blob() // 2, blob() // 3], axis=2), masks / "a_nut_7.png")
    save(blob(), masks / "a_nut_8.jpg")
    save(np.full(SIZE, 255, dtype=np.uint8), masks / "a_nut_9.png")
    made, said = run(root, tmp_path)
    data = made.split("train")
    found = [data.mask(k) for k in range(len(data))]
    assert len(found) == 10
    assert all(np.array_equal(mask, expected) for mask in found[:8])
    assert pixels.iou([data.rle(8)], [pixels.encode(expected)], SIZE)[0, 0] == 1.0
    assert found[9].all()
    assert "mended: masks taken from pictures of one colour on black: 2" in said
    assert "note: 8 objects stand twice: the same pixels and category in the same photo" in said


def test_an_empty_mask_file_is_counted(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"], ["a.jpg"])
    save(np.zeros(SIZE, dtype=np.uint8), root / "annotations/a_nut_1.png")
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["nut"]}
    assert f"note: 1 mask image all black: without an object ({root}/annotations/a_nut_1.png)" in said
    save(np.zeros(SIZE, dtype=np.uint8), root / "annotations/a_nut_0.png")
    assert "no mask image marks an object: all are black\n  annotations/a_nut_0.png: value 0 only" in fails(
        root, tmp_path / "again"
    )


def test_a_file_with_several_values_is_asked_about(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"], ["a.jpg"])
    numbered = (blob((1, 1)) // 255) + (blob((14, 18)) // 255) * np.uint8(2)
    save(numbered, root / "annotations/a_nut_1.png")
    text = fails(root, tmp_path)
    assert "1 mask file holds several values, and each mask file should be one object\n" in text
    assert "  annotations/a_nut_1.png: values 1, 2 beside 0\n" in text
    assert "each photo has one mask image: --form folders" in text
    text = fails(root, tmp_path, coding="ids")
    assert "every mask file is one object here, so its values cannot number objects\n  coding ids\n" in text


def test_soft_edges_are_cut_at_half(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"], ["a.jpg"])
    soft = blob((2, 2), 16)
    soft[2, 2:18], soft[17, 2:18] = 90, 170
    save(soft, root / "annotations/a_nut_1.png")
    made, said = run(root, tmp_path)
    assert pixels.encode(soft > 127) in [rle for _, rle in objects(made)["a.jpg"]]
    assert "mended: masks with soft edges or noise, cut at half: 1" in said


def test_what_the_user_says_of_odd_values_is_done(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"], ["a.jpg"])
    steps = np.zeros(SIZE, dtype=np.uint8)
    steps[:, 8:16], steps[:, 16:24], steps[:, 24:] = 60, 140, 255
    save(steps, root / "annotations/a_nut_1.png")
    assert "holds several values" in fails(root, tmp_path)
    made, _ = run(root, tmp_path, coding="binary")
    assert pixels.encode(steps > 127) in [rle for _, rle in objects(made)["a.jpg"]]


def test_masks_of_another_size(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"], ["a.jpg", "b.jpg"])
    save(blob(size=(12, 16)), root / "annotations/b_nut_0.png")
    text = fails(root, tmp_path)
    assert "1 mask image differs in size from its photo\n  annotations/b_nut_0.png is 16 x 12, shapes/b.jpg is" in text
    made, _ = run(root, tmp_path, resize_masks=True)
    assert counts(made)["b.jpg"] == ["nut"]
    save(blob(size=(32, 24)), root / "annotations/b_nut_0.png")
    assert "1 mask image has another shape than the photo" in fails(root, tmp_path / "again", resize_masks=True)


def test_a_photo_with_an_orientation(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png"])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(root / "shapes/a.jpg", exif=exif)
    assert "1 mask image fits the photo as the camera stored it, not as it is shown" in fails(root, tmp_path)


def test_damaged_files_are_named(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "b_nut_0.png"], ["a.jpg", "b.jpg"])
    (root / "annotations/a_nut_0.png").write_bytes(b"")
    whole = (root / "shapes/b.jpg").read_bytes()
    (root / "shapes/b.jpg").write_bytes(whole[: len(whole) // 2])
    text = fails(root, tmp_path)
    assert (
        "2 picture files cannot be read\n  annotations/a_nut_0.png: is empty (0 bytes)\n  shapes/b.jpg: cannot" in text
    )


def test_every_file_has_a_fate(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_nut_1.png"], ["a.jpg"])
    (root / "annotations/notes.txt").write_text("x")
    (root / "readme.md").write_text("x")
    made, _ = run(root, tmp_path)
    story = (made.folder / "prepare.json").read_text()
    assert all(f'{root}/{path.relative_to(root)}"' in story for path in root.rglob("*.*"))


# ── a folder per photo ───────────────────────────────────────────────────────────────────────────────────────────────


def science_bowl(root, ids=("0d2b", "724b"), masks=3):
    for number, name in enumerate(ids):
        photo(root / name / "images" / f"{name}.png")
        for n in range(masks + number):
            save(blob((n, 3 * n)), root / name / "masks" / f"{zlib.crc32(f'{name}{n}'.encode()):064x}.png")
    return root


def test_a_folder_per_photo(tmp_path):
    root = science_bowl(tmp_path / "raw")
    made, said = run(root, tmp_path, category="nucleus")
    assert counts(made) == {"0d2b.png": ["nucleus"] * 3, "724b.png": ["nucleus"] * 4}
    assert f"2 photos, each in a folder of its own in {root}, with 7 mask files" in said


def test_split_folders_of_folders_name_no_category(tmp_path):
    science_bowl(tmp_path / "raw/stage1_train", ("a", "b"))
    science_bowl(tmp_path / "raw/stage1_test", ("c",))
    made, said = run(tmp_path / "raw", tmp_path)
    assert (made.photos, made.categories) == ({"train": 2, "test": 1}, ("object",))
    assert "splits are kept as the folders give them (train, test)" in said
    assert "the objects are of the category 'object' (no name tells it; --category NAME gives another)" in said


def test_an_empty_folder_of_masks_is_a_photo_without_objects_and_none_is_not(tmp_path):
    root = science_bowl(tmp_path / "raw", ("a", "b"))
    photo(root / "c/images/c.png")
    (root / "c/masks").mkdir()
    made, said = run(root, tmp_path)
    assert counts(made)["c.png"] == []
    assert "note: 1 photo without a mask: without objects" in said
    (root / "c/masks").rmdir()
    assert "1 photo has no folder of mask files\n  c/images/c.png\n" in fails(root, tmp_path / "again")
    made, _ = run(root, tmp_path, unmatched="skip")
    assert sorted(counts(made)) == ["a.png", "b.png"]


def test_folders_with_several_photos_or_none(tmp_path):
    root = science_bowl(tmp_path / "raw", [f"p{n:02}" for n in range(22)], masks=1)
    photo(root / "p20/images/other.png")
    (root / "p21/images/p21.png").unlink()
    text = fails(root, tmp_path)
    assert "each photo needs a folder of its own, since all mask files in it are its objects\n  p20/images: " in text
    assert "1 folder has no photo\n  p21: 22 mask files\n" in text


@pytest.mark.parametrize("names", [("train", "val"), ("hammer_train", "hammer_test")])
def test_splits_with_one_photo_are_no_folders_of_a_photo(tmp_path, names):
    for name in names:
        photo(tmp_path / "raw" / name / "images/0.jpg")
        save(blob(), tmp_path / "raw" / name / "masks/0.png")
    assert instance_files.find(tmp_path / "raw", PrepareSettings()) is None


def test_names_that_may_be_the_photos_or_categories_are_asked_about(tmp_path):
    root = tmp_path / "raw"
    for name in ("left", "right"):
        photo(root / name / "images" / f"{name}.png")
        for n in (1, 2):
            save(blob((n, n)), root / name / "masks" / f"{name}_{n}.png")
    text = fails(root, tmp_path)
    assert "it cannot be told whether the mask files are named after their photo or after a category\n" in text
    made, _ = run(root, tmp_path, category="hand")
    assert counts(made) == {"left.png": ["hand"] * 2, "right.png": ["hand"] * 2}


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shapes():
    """Return masks that converters ruin."""
    ring = np.zeros(SIZE, dtype=bool)
    ring[3:12, 3:12], ring[6:9, 6:9] = True, False
    parts = np.zeros(SIZE, dtype=bool)
    parts[1:3, 1:5], parts[18:22, 20:30] = True, True
    line = np.zeros(SIZE, dtype=bool)
    line[np.arange(20), np.arange(20)] = True
    pixel = np.zeros(SIZE, dtype=bool)
    pixel[7, 7] = True
    touching = np.zeros(SIZE, dtype=bool)
    touching[12:20, 3:12] = True
    border = np.zeros(SIZE, dtype=bool)
    border[0], border[:, -1] = True, True
    return [ring, parts, line, pixel, touching, border, np.ones(SIZE, dtype=bool)]


NAMES = ["a.jpg", "b_1.jpg", "b_1_nut.png", "sub/a.jpg", "d.e.jpg", "10.jpg", "1.jpg"]
CATEGORIES = ["nut", "red nut", "nut/bolt 50%", ".hidden", "Mutter für M8", "10_mm"]


@st.composite
def worlds(draw, names=NAMES, categories=CATEGORIES):
    """Return a dataset of some photos, each with some of the shapes, and any small masks."""
    photos = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    used = sorted(draw(st.lists(st.sampled_from(categories), min_size=1, max_size=3, unique=True)))
    masks = st.one_of(
        st.sampled_from(shapes()),
        st.integers(0, 2**16).map(lambda seed: np.random.default_rng(seed).random(SIZE) < 0.3),
    )
    objects = [
        (photo, draw(st.integers(1, len(used))), mask)
        for photo in range(1, len(photos) + 1)
        for mask in draw(st.lists(masks, max_size=4))
    ]
    objects.append((1, 1, shapes()[0]))
    objects += [(1, n, shapes()[1]) for n in range(2, len(used) + 1)]
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(used, 1)],
        [Photo(n, name, SIZE[1], SIZE[0]) for n, name in enumerate(photos, 1)],
        [Annotation(n, of, category, pixels.encode(mask)) for n, (of, category, mask) in enumerate(objects, 1)],
    )


def flat_names(data):
    """Return the contents with photos named as `prepare` does: flat where that keeps them apart."""
    found = contents(data)
    stems = [Path(name).stem.casefold() for name in found]
    return {(Path(name).name if len(set(stems)) == len(stems) else name): marks for name, marks in found.items()}


@settings(max_examples=10)
@given(worlds())
def test_masks_form_instances_then_prepare_is_the_identity(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("law")
    for image in data.images:
        photo(tmp_path / "photos" / image.file_name)
    write_mask_images(data, tmp_path / "masks", "instances")
    made, _ = run(tmp_path / "photos", tmp_path, tmp_path / "masks", form="instance-files", unmatched="empty")
    assert objects(made) == flat_names(data)
    assert made.categories == tuple(category.name for category in data.categories)


@settings(max_examples=10)
@given(worlds())
def test_write_folders_then_prepare_is_the_identity(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("law")
    for image in data.images:
        photo(tmp_path / "photos" / image.file_name)
    data = Dataset.build(data.categories, data.images, data.annotations(), folder=tmp_path / "photos")
    written = write_folders(data, tmp_path / "raw")
    assert (written.objects, written.files, written.notes) == (len(data), len(data), ())
    made, _ = run(tmp_path / "raw", tmp_path, form="instance-files")
    assert objects(made) == flat_names(data)
    assert made.categories == tuple(category.name for category in data.categories)


def test_prepare_masks_prepare_is_the_identity(tmp_path):
    root = flat(tmp_path / "raw", ["a_nut_0.png", "a_bolt_1.png", "b_nut_2.png"], ["a.jpg", "b.jpg"])
    first, _ = run(root, tmp_path)
    write_mask_images(first.split("train"), tmp_path / "masks", "instances")
    second, _ = run(tmp_path / "raw/shapes", tmp_path / "two", tmp_path / "masks", form="instance-files")
    assert objects(second) == objects(first)


def test_what_write_folders_leaves_out_is_said(tmp_path):
    rle = pixels.encode(blob())
    data = Dataset.build(
        [Category(1, "nut"), Category(2, "unused")],
        [Photo(1, "a.jpg", SIZE[1], SIZE[0]), Photo(2, "b.jpg", SIZE[1], SIZE[0])],
        [
            Annotation(1, 1, 1, rle),
            Annotation(2, 1, 1, rle, crowd=True),
            Annotation(3, 1, 1, None, box=(0, 0, 2, 2)),
            Annotation(4, 1, 1, pixels.encode(np.zeros(SIZE, dtype=bool))),
        ],
    )
    written = write_folders(data, tmp_path / "raw")
    assert (written.files, written.objects) == (1, 1)
    assert written.notes == (
        "the photos are not known here: put each photo into its folder, <id>/images",
        "1 crowd left out, being many objects in one",
        "1 object left out: the file gives the box, not the mask",
        "1 object without a pixel left out",
        "1 category without an object is not in the files: unused",
    )
    assert sorted(path.name for path in (tmp_path / "raw/b").iterdir()) == ["images", "masks"]


def test_write_folders_refuses_before_it_writes(tmp_path):
    photos = [Photo(1, "a.jpg", SIZE[1], SIZE[0])]
    data = Dataset.build([Category(1, "Nut"), Category(2, "nut")], photos, [])
    with pytest.raises(UserError, match="categories have the same name but for letter case"):
        write_folders(data, tmp_path / "raw")
    data = Dataset.build([Category(1, "")], photos, [])
    with pytest.raises(UserError, match="a category has no name"):
        write_folders(data, tmp_path / "raw")
    data = Dataset.build([Category(1, "nut")], photos, [], folder=tmp_path)
    with pytest.raises(UserError, match="1 photo cannot be found, and this form holds the photos too"):
        write_folders(data, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


# ── real files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.shared
def test_the_example_of_pycococreator(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("../shared is absent")
    made, _ = run(SHARED / "pycococreator", tmp_path)
    assert counts(made) == {"1000.jpeg": ["square"], "1001.jpeg": ["circle", "circle", "square", "square"]}
    data = made.split("train")
    masks = {image.file_name: i for i, image in enumerate(data.images)}
    file = np.asarray(Image.open(SHARED / "pycococreator/annotations/1000_square_0.png").convert("L")) > 127
    assert np.array_equal(data.mask(int(data.first[masks["1000.jpeg"]])), file)


@pytest.mark.shared
def test_the_science_bowl(tmp_path):
    raw = SHARED / "one_file_per_instance"
    if not raw.is_dir():
        pytest.skip("../shared is absent")
    made, _ = run(raw, tmp_path, category="nucleus")
    assert sorted(len(found) for found in counts(made).values()) == [18, 19, 114]
    for name, found in objects(made).items():
        files = (raw / Path(name).stem / "masks").iterdir()
        assert found == sorted(("nucleus", pixels.encode(np.asarray(Image.open(path)) > 0)) for path in files)
    data = made.split("train")
    data = Dataset.build(data.categories, data.images, data.annotations(), folder=made.folder / "train")
    write_folders(data, tmp_path / "again")
    second, said = run(tmp_path / "again", tmp_path / "two")
    assert objects(second) == objects(made)
    assert "the objects are of the category 'nucleus' (from the names of the mask files)" in said
