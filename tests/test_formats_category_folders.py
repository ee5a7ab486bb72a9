"""Category as folder name: which folders are categories, masks of several categories for a photo, and the way back."""

import shutil
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset
from maskwright.dataset import Image as Photo
from maskwright.errors import UserError
from maskwright.formats import category_folders
from maskwright.formats.category_folders import write
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

FORM = "category-folders"
SIZE = (24, 32)  # height, width


def photo(path, size=SIZE):
    """Save a photo with texture; different for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


def blob(at=(4, 5), side=8, value=255):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = value
    return mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def beside(root, masks, photos=("a.jpg", "b.jpg")):
    """Save masks/<category>/<photo>.png and photos."""
    for n, name in enumerate(masks):
        save(blob((n, n)), root / "masks" / name)
    for name in photos:
        photo(root / "photos" / name)
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


def contents(data):
    names = {category.id: category.name for category in data.categories}
    rles = data.rles()
    return {
        image.file_name: sorted(
            (names[int(data.category_ids[k])], rles[k]) for k in range(data.first[i], data.first[i + 1])
        )
        for i, image in enumerate(data.images)
    }


def objects(made):
    """Return {file name: [(category, rle), ...]} over all splits, sorted."""
    found = {}
    for split in made.photos:
        found |= contents(made.split(split))
    return found


def counts(made):
    return {name: [category for category, _ in found] for name, found in objects(made).items()}


# ── masks/<category>/<photo>.png ─────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_for_each_category(tmp_path):
    root = beside(tmp_path / "raw", ["nut/a.png", "bolt/a.png", "nut/b.png"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["bolt", "nut"], "b.jpg": ["nut"]}
    assert objects(made)["b.jpg"] == [("nut", pixels.encode(blob((2, 2))))]
    assert f"understood: 2 photos in {root}/photos, 2 with 3 mask images in {root}/masks" in said
    assert "understood: 2 categories: bolt, nut (from the folder names)" in said
    assert "mask values of 'bolt' are 0 and 255: a mask is one object, parts and holes included (coding binary)" in said


def test_each_category_is_decided_over_by_itself(tmp_path):
    root = beside(tmp_path / "raw", ["road/a.png", "road/b.png"])
    ids = blob((1, 1), 5, 1) + blob((10, 10), 5, 2)
    save(ids, root / "masks/person/a.png")
    made, said = run(root, tmp_path, form=FORM)
    assert counts(made) == {"a.jpg": ["person", "person", "road"], "b.jpg": ["road"]}
    assert "mask values of 'person' are 1, 2, ... up to 2" in said


def test_names_are_told_apart_from_mirrored_folders_and_other_forms(tmp_path):
    root = beside(tmp_path / "raw", ["day1/a.png", "day2/b.png"], ["day1/a.jpg", "day2/b.jpg"])
    assert category_folders.find(root, PrepareSettings()) is None
    plain = beside(tmp_path / "plain", ["a.png", "b.png"])
    assert category_folders.find(plain, PrepareSettings()) is None
    for split in ("train", "val"):
        save(blob(), tmp_path / "splits" / split / "mask/a.png")
        photo(tmp_path / "splits" / split / "rgb/a.jpg")
    assert category_folders.find(tmp_path / "splits", PrepareSettings()) is None
    found = category_folders.find(beside(tmp_path / "own", ["nut/a.png"]), PrepareSettings())
    assert found.why == f"folders of categories in {tmp_path}/own/masks, of photos in {tmp_path}/own/photos"


def test_splits_above_and_inside_the_categories(tmp_path):
    for split in ("train", "val"):
        beside(tmp_path / "one" / split, ["nut/a.png", "bolt/a.png"], ["a.jpg"])
        photo(tmp_path / "two/photos" / split / "a.jpg")
        photo(tmp_path / "three/photos" / split / "a.jpg")
        for category in ("nut", "bolt"):
            save(blob(), tmp_path / "two/masks" / category / split / "a.png")
            save(blob(), tmp_path / "three/masks" / split / category / "a.png")
    for name in ("one", "two", "three"):
        made, said = run(tmp_path / name, tmp_path, form=FORM)
        assert (made.photos, made.categories) == ({"train": 1, "val": 1}, ("bolt", "nut"))
        assert "splits are kept as the folders give them (train, val)" in said
        assert counts(made) == {"a.jpg": ["bolt", "nut"]}


LAYOUTS = {  # of photos and mask images, for a split's folder and a category's
    "beside, splits inside": ("photos/{0}/1.jpg", "masks/{1}/{0}/1.png"),
    "beside, splits in both": ("photos/{0}/1.jpg", "masks/{0}/{1}/1.png"),
    "beside, splits above": ("{0}/photos/1.jpg", "{0}/masks/{1}/1.png"),
    "inside, splits above": ("{0}/{1}/rgb/1.jpg", "{0}/{1}/mask/1.png"),
    "inside, splits below": ("{1}/{0}/rgb/1.jpg", "{1}/{0}/mask/1.png"),
    "inside, splits in both": ("{1}/rgb/{0}/1.jpg", "{1}/mask/{0}/1.png"),
}


def of_equal_names(root, layout, splits, categories=("bolt", "nut")):
    """Save photos that differ in nothing but their folders, each with objects of its own."""
    for n, split in enumerate(splits):
        for c, category in enumerate(categories):
            name, mask = (text.format(split, category) for text in LAYOUTS[layout])
            save(np.full((*SIZE, 3), 40 * n + (90 * c if "{1}" in LAYOUTS[layout][0] else 9), np.uint8), root / name)
            save(blob((n, c)), root / mask)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_photos_of_one_name_in_the_folders_of_splits(tmp_path, layout):
    root = of_equal_names(tmp_path / "raw", layout, ("train", "val"))
    kept, _ = run(root, tmp_path, form=FORM)
    each = 2 if "inside," in layout else 1  # a photo for each category, or one with the objects of both
    assert kept.photos == {"train": each, "val": each}
    wanted = sorted(found for split in kept.photos for found in contents(kept.split(split)).values())
    anew, _ = run(root, tmp_path, form=FORM, resplit=True)
    assert sum(anew.photos.values()) == 2 * each
    found = objects(anew)
    assert len(found) == 2 * each
    assert sorted(found.values()) == wanted
    for name, marks in found.items():  # the photo that the objects were drawn on
        assert all(category in name for category, _ in marks) or each == 1
        n = ("train" not in name) * 1
        assert marks[0][1] == pixels.encode(blob((n, 1 if marks[0][0] == "nut" else 0)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("resplit", [False, True])
def test_photos_of_one_name_in_two_folders_of_one_split(tmp_path, layout, resplit):
    root = of_equal_names(tmp_path / "raw", layout, ("s1_train", "s2_train", "s1_val"), ("nut",))
    made, _ = run(root, tmp_path, form=FORM, resplit=resplit)
    assert sum(made.photos.values()) == 3
    if not resplit:
        assert made.photos == {"train": 2, "val": 1}
    found = [(name, rle) for split in made.photos for name, ((_, rle),) in contents(made.split(split)).items()]
    assert sorted(rle for _, rle in found) == sorted(pixels.encode(blob((n, 0))) for n in range(3))
    for name, rle in found:
        if "/" in name:
            (n,) = [n for n, split in enumerate(("s1_train", "s2_train", "s1_val")) if split in name.split("/")]
            assert rle == pixels.encode(blob((n, 0)))


def test_a_category_named_like_a_split(tmp_path):
    root = beside(tmp_path / "raw", ["train/a.png", "car/a.png", "car/b.png"])
    made, _ = run(root, tmp_path, form=FORM)
    assert counts(made) == {"a.jpg": ["car", "train"], "b.jpg": ["car"]}
    assert made.photos == {"train": 2}


def test_everything_that_can_be_missing_or_too_much(tmp_path):
    root = beside(tmp_path / "raw", ["nut/a.png", "nut/lost.png", "bolt/a.png"], ["a.jpg", "bare.jpg"])
    save(blob(), root / "masks/nut/a.bmp")
    text = fails(root, tmp_path, form=FORM)
    assert "1 mask image has no photo\n  masks/nut/lost.png: no photo of this name in photos\n" in text
    assert "photos have several mask images in the folder of one category\n  photos/a.jpg: masks/nut/a.bmp and" in text
    assert "1 photo has no mask image\n  photos/bare.jpg\n" in text
    (root / "masks/nut/a.bmp").unlink()
    (root / "masks/nut/lost.png").unlink()
    made, _ = run(root, tmp_path, form=FORM, unmatched="empty")
    assert counts(made) == {"a.jpg": ["bolt", "nut"], "bare.jpg": []}
    made, _ = run(root, tmp_path, form=FORM, unmatched="skip")
    assert counts(made) == {"a.jpg": ["bolt", "nut"]}


def test_one_category_for_several_is_refused(tmp_path):
    root = beside(tmp_path / "raw", ["nut/a.png", "bolt/b.png"])
    text = fails(root, tmp_path, form=FORM, category="thing")
    assert "one category name was given, and there are folders of several\n  folders: bolt, nut\n" in text
    shutil.rmtree(root / "masks/bolt")
    made, _ = run(root, tmp_path, form=FORM, category="thing", unmatched="empty")
    assert made.categories == ("thing",)


def test_masks_with_words_in_their_names(tmp_path):
    root = beside(tmp_path / "raw", ["nut/a_mask.png", "bolt/b_mask.png"])
    made, said = run(root, tmp_path, form=FORM)
    assert counts(made) == {"a.jpg": ["nut"], "b.jpg": ["bolt"]}
    assert "photos and masks are paired leaving out words like _mask and _rgb at the end or start" in said


def test_values_that_say_nothing_are_asked_about(tmp_path):
    root = beside(tmp_path / "raw", ["nut/a.png", "bolt/b.png"])
    save(blob((1, 1), 5, 40) + blob((10, 10), 5, 90), root / "masks/bolt/b.png")
    text = fails(root, tmp_path, form=FORM)
    assert "1 mask image has values whose meaning cannot be known\n  masks/bolt/b.png: values 40, 90 beside 0" in text


# ── <category>/{rgb,mask} ────────────────────────────────────────────────────────────────────────────────────────────


def inside(root, names):
    """Save <category>/rgb/<photo>.jpg and <category>/mask/<photo>.png."""
    for n, name in enumerate(names):
        folder, _, stem = name.rpartition("/")
        photo(root / folder / "rgb" / f"{stem}.jpg")
        save(blob((n, n)), root / folder / "mask" / f"{stem}.png")
    return root


def test_a_pair_of_folders_in_each_category(tmp_path):
    root = inside(tmp_path / "raw", ["nut/a", "nut/b", "bolt/c"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["nut"], "b.jpg": ["nut"], "c.jpg": ["bolt"]}
    assert f"understood: 1 photo in {root}/bolt/rgb, 1 with a mask in {root}/bolt/mask" in said
    assert "understood: 2 categories: bolt, nut (from the folder names)" in said


@pytest.mark.parametrize("form", ["{split}/{category}", "{category}/{split}"])
def test_pairs_in_categories_and_splits(tmp_path, form):
    names = [f"{form.format(split=s, category=c)}/{c}{s}" for s in ("train", "test") for c in ("nut", "bolt")]
    made, said = run(inside(tmp_path / "raw", names), tmp_path)
    assert (made.photos, made.categories) == ({"train": 2, "test": 2}, ("bolt", "nut"))
    assert "splits are kept as the folders give them (train, test)" in said


def test_split_folders_inside_the_pairs_of_categories(tmp_path):
    for category, split in (("nut", "train"), ("nut", "val"), ("bolt", "train")):
        photo(tmp_path / f"raw/{category}/rgb/{split}/{category}{split}.jpg")
        save(blob(), tmp_path / f"raw/{category}/mask/{split}/{category}{split}.png")
    made, said = run(tmp_path / "raw", tmp_path, form=FORM)
    assert (made.photos, made.categories) == ({"train": 2, "val": 1}, ("bolt", "nut"))
    assert "splits are kept as the folders give them (train, val)" in said


def test_splits_that_are_not_used_are_told(tmp_path):
    root = beside(tmp_path / "raw", ["nut/train/a.png", "nut/val/b.png", "nut/c.png"], ["train/a.jpg", "val/b.jpg"])
    photo(root / "photos/c.jpg")
    made, said = run(root, tmp_path, form=FORM)
    note = "1 photo in no split folder (c.jpg): all photos are split anew"
    assert f"understood: {note}" in said
    assert note in made.notes


def test_the_same_photo_in_several_categories_is_one_photo(tmp_path):
    root = inside(tmp_path / "raw", ["nut/a", "bolt/a", "bolt/b"])
    made, said = run(root, tmp_path)
    assert counts(made) == {"a.jpg": ["bolt", "nut"], "b.jpg": ["bolt"]}
    assert "note: 1 photo stands in the folders of several categories (a.jpg): each is one photo with" in said
    Image.fromarray(np.full((*SIZE, 3), 7, dtype=np.uint8)).save(root / "nut/rgb/a.jpg")
    made, said = run(root, tmp_path)
    assert {name: len(found) for name, found in objects(made).items()} == {
        "bolt/a.jpg": 1,
        "bolt/b.jpg": 1,
        "nut/a.jpg": 1,
    }


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def apart():
    """Return masks that converters ruin; none overlaps another."""
    canvas = np.zeros((7, *SIZE), dtype=bool)
    canvas[0, 2:9, 2:9], canvas[0, 4:7, 4:7] = True, False  # a ring
    canvas[1, 4:7, 4:7] = True  # in its hole, touching it
    canvas[2, 11:14, 1:4], canvas[2, 20:23, 25:30] = True, True  # two parts
    canvas[3, 11:14, 4:9] = True  # touching one of them
    canvas[4, np.arange(10, 18), np.arange(12, 20)] = True  # one pixel wide
    canvas[5, 9, 15] = True  # one pixel
    canvas[6, 0], canvas[6, 1:, -1] = True, True  # on the border
    return canvas


PHOTOS = ["a.jpg", "b.jpg", "b.png", "sub/a.jpg", "1.jpg", "10.jpg"]
CATEGORIES = ["nut", "train", "nut/bolt 50%", "..", "Mutter für M8"]


@st.composite
def worlds(draw):
    photos = draw(st.lists(st.sampled_from(PHOTOS), min_size=1, max_size=3, unique=True))
    used = sorted(draw(st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=3, unique=True)))
    covering = np.ones((1, *SIZE), dtype=bool)
    masks = apart()
    rows = []
    for photo_id in range(1, len(photos) + 1):
        for category in range(1, len(used) + 1):
            several = draw(st.booleans())
            chosen = draw(st.lists(st.integers(0, 6), max_size=7 if several else 1, unique=True))
            rows += [(photo_id, category, masks[k]) for k in chosen]
            if not chosen and draw(st.booleans()):
                rows.append((photo_id, category, covering[0]))
    rows.append((1, len(used), masks[0])) if not rows else None
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(used, 1)],
        [Photo(n, name, SIZE[1], SIZE[0]) for n, name in enumerate(photos, 1)],
        [Annotation(n, of, category, pixels.encode(mask)) for n, (of, category, mask) in enumerate(rows, 1)],
    )


@settings(max_examples=12)
@given(worlds())
def test_write_then_prepare_is_the_identity(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("law")
    for image in data.images:
        photo(tmp_path / "photos" / image.file_name)
    written = write(data, tmp_path / "masks")
    assert written.objects == len(data)
    assert all(note.startswith("coding ") for note in written.notes)
    made, _ = run(tmp_path / "photos", tmp_path, tmp_path / "masks", form=FORM)
    found = contents(data)
    expected = {name.rpartition("/")[2]: marks for name, marks in found.items()}
    stems = {name.rpartition(".")[0] for name in expected}
    assert objects(made) == (expected if len(stems) == len(found) else found)
    assert made.categories == tuple(category.name for category in data.categories)


def test_what_cannot_be_held_is_said_with_figures(tmp_path):
    large, small = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    large[:10, :10], small[5:10, 5:10] = True, True
    rows = [(1, large), (1, small), (1, large), (2, large)]
    data = Dataset.build(
        [Category(1, "nut"), Category(2, "bolt")],
        [Photo(1, "a.jpg", SIZE[1], SIZE[0])],
        [
            *(Annotation(n, 1, category, pixels.encode(mask)) for n, (category, mask) in enumerate(rows, 1)),
            Annotation(9, 1, 1, pixels.encode(small), crowd=True),
            Annotation(10, 1, 1, None, box=(0, 0, 3, 3)),
        ],
    )
    written = write(data, tmp_path / "masks")
    assert (written.files, written.objects) == (2, 3)
    notes = "\n".join(written.notes)
    assert "coding binary, 0 and 255: bolt (at most one object in each photo)" in notes
    assert "coding ids, 16 bit, value n is object n of its photo: nut" in notes
    assert "100 pixels belong to several objects, and this form holds one object per pixel" in notes
    assert "1 object lost pixels; lowest IoU 0.750, in a.jpg" in notes
    assert "1 object wholly hidden by others: not in the images (a.jpg)" in notes
    assert "1 crowd left out, being many objects in one" in notes
    values = np.asarray(Image.open(tmp_path / "masks/nut/a.png"))
    assert (values.dtype, sorted(np.unique(values).tolist())) == (np.uint16, [0, 1, 2])


def test_many_small_objects_are_read_back_or_said(tmp_path):
    masks = np.zeros((255, *SIZE), dtype=bool)
    for n in range(255):
        masks[n, 2 * (n // 16) % 24, 2 * (n % 16)] = True
    masks = masks[:190]
    data = Dataset.build(
        [Category(1, "nut")],
        [Photo(1, "a.jpg", SIZE[1], SIZE[0])],
        [Annotation(n, 1, 1, pixels.encode(mask)) for n, mask in enumerate(masks, 1)],
    )
    photo(tmp_path / "photos/a.jpg")
    written = write(data, tmp_path / "masks")
    coding = {"coding": "ids"} if any("--coding ids" in note for note in written.notes) else {}
    made, _ = run(tmp_path / "photos", tmp_path, tmp_path / "masks", form=FORM, **coding)
    assert objects(made) == contents(data)


def test_a_category_that_cannot_be_a_folder_is_refused(tmp_path):
    data = Dataset.build([Category(1, "Nut"), Category(2, "nut")], [Photo(1, "a.jpg", 4, 3)], [])
    with pytest.raises(UserError, match="categories have the same name but for letter case") as caught:
        write(data, tmp_path / "masks")
    assert "Nut and nut" in str(caught.value)
    assert not (tmp_path / "masks").exists()
