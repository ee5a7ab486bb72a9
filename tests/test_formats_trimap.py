"""Trimaps: which value is the object, what becomes of the border; every fault; and writing them."""

import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset
from maskwright.dataset import Image as DatasetImage
from maskwright.errors import UserError
from maskwright.formats import trimap
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (30, 40)


def photo(path, size=SIZE, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def regions():
    """Return 1 inside, with a hole, 3 at the border, 2 outside; and a second part."""
    plane = np.full(SIZE, 2, dtype=np.uint8)
    plane[4:22, 4:24] = 3
    plane[7:19, 7:21] = 1
    plane[10:14, 10:14] = 2
    plane[25:28, 30:38] = 1
    return plane


def as_matting(plane):
    return np.array([0, 255, 0, 128], dtype=np.uint8)[plane]


def pairs(root, masks, names=None, folder="masks", ending=".png"):
    for number, mask in enumerate(masks):
        name = names[number] if names else str(number)
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        photo(root / f"images/{name}.jpg", image.size[::-1])
        path = root / folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


def run(root, tmp_path, masks=None, **given):
    said = []
    made = prepare(root, masks, tmp_path / "DATA", say=said.append, form="trimap", **given)
    return made, "\n".join(said)


def fails(root, tmp_path, masks=None, **given):
    with pytest.raises(UserError) as caught:
        prepare(root, masks, tmp_path / "DATA", form="trimap", **given)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{root}/", "")


def objects_of(made):
    """Return {photo: {(category, mask bytes), ...}}."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        names = {c.id: c.name for c in data.categories}
        for i, image in enumerate(data.images):
            rows = range(data.first[i], data.first[i + 1])
            found[image.file_name] = {(names[int(data.category_ids[k])], data.rle(k)) for k in rows}
    return found


INSIDE = pixels.encode(regions() == 1)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_oxford_pets(tmp_path):
    names = ["Abyssinian_1", "Abyssinian_2", "american_bulldog_10"]
    root = pairs(tmp_path / "raw", [regions()] * 3, names, "annotations/trimaps")
    (root / "annotations/trimaps/._Abyssinian_1.png").write_bytes(b"left by macOS")
    (root / "annotations/list.txt").write_text("Abyssinian_1 1 1 1\n")
    assert trimap.find(root, PrepareSettings()) is not None
    made, said = run(root, tmp_path)
    assert (made.form, made.categories) == ("trimap", ("object",))
    assert objects_of(made) == {f"{name}.jpg": {("object", INSIDE)} for name in names}
    assert "mask values: 1 is the object, 2 the ground, 3 the border; each mask is one object" in said
    assert "border (value 3): 576 pixels in 3 masks belong to no object" in said
    assert "the photos are named like Abyssinian, american_bulldog; all objects are of one category: --category" in said
    whys = {item.path.name: item.why for item in made.skipped}
    assert whys == {"._Abyssinian_1.png": "left by the system", "list.txt": "not a picture file"}


def test_a_category_of_the_user(tmp_path):
    made, said = run(pairs(tmp_path / "raw", [regions()], ["Abyssinian_1"]), tmp_path, category="cat")
    assert objects_of(made) == {"Abyssinian_1.jpg": {("cat", INSIDE)}}
    assert "named like" not in said


def test_trimaps_of_matting(tmp_path):
    root = pairs(tmp_path / "raw", [as_matting(regions())] * 2)
    assert trimap.find(root, PrepareSettings()) is not None
    made, said = run(root, tmp_path)
    assert objects_of(made) == {"0.jpg": {("object", INSIDE)}, "1.jpg": {("object", INSIDE)}}
    assert "mask values: 255 is the object, 0 the ground, 128 the unknown border" in said
    assert "border (value 128): 384 pixels in 2 masks belong to no object" in said


def classes(*squares):
    """Return a mask of two classes: squares of a value at a column, 8 x 8."""
    plane = np.zeros(SIZE, dtype=np.uint8)
    for value, column in squares:
        plane[10:18, column : column + 8] = value
    return plane


TWO_CLASSES = {
    "apart": [classes((128, 2), (255, 20)), classes((255, 2), (128, 12))],
    "touching": [classes((128, 2), (255, 10))] * 2,
    "some alone": [classes((128, 2), (255, 10)), classes((128, 2), (128, 20)), classes((255, 5))],
}


@pytest.mark.parametrize("kind", TWO_CLASSES)
def test_two_classes_are_no_trimap(tmp_path, kind):
    root = pairs(tmp_path / "raw", TWO_CLASSES[kind])
    assert trimap.find(root, PrepareSettings()) is not None
    with pytest.raises(UserError) as caught:
        prepare(root, None, tmp_path / "DATA")
    said = str(caught.value).replace(f"{root}/", "")
    assert said.startswith(
        "which value of the masks is the object cannot be known\n"
        "  masks/0.png: values 0, 128, 255; 128 does not lie between\n"
    )
    assert said.endswith(
        "fix: say it: --object-value N (all other values are then no object); or if each value is a category, name"
        ' them by their colours in a file colours.json: {"NAME 1": "#808080", "NAME 2": "#ffffff"}, and: --colours'
        " colours.json"
    )
    made, _ = run(root, tmp_path, object_value=128)
    with_grey = sum(bool((mask == 128).any()) for mask in TWO_CLASSES[kind])
    assert sum(made.objects.values()) == with_grey


def test_two_classes_are_read_by_their_colours(tmp_path):
    root = pairs(tmp_path / "raw", TWO_CLASSES["touching"])
    (tmp_path / "colours.json").write_text('{"NAME 1": "#808080", "NAME 2": "#ffffff"}')
    made = prepare(root, None, tmp_path / "DATA", colours=str(tmp_path / "colours.json"))
    assert (made.form, made.categories, sum(made.objects.values())) == ("colours", ("NAME 1", "NAME 2"), 4)


def test_a_border_may_have_specks_and_gaps(tmp_path):
    plane = as_matting(regions())
    plane[1, 30:34] = 128  # 4 of 196 pixels touch no object
    plane[6, 4:20] = 255  # the object reaches through
    made, _ = run(pairs(tmp_path / "raw", [plane]), tmp_path)
    assert objects_of(made) == {"0.jpg": {("object", pixels.encode(plane == 255))}}


def test_any_value_that_the_user_says(tmp_path):
    root = pairs(tmp_path / "raw", [regions() * 5])
    assert trimap.find(root, PrepareSettings(object_value=15)) is not None
    made, said = run(root, tmp_path, object_value=15)
    assert objects_of(made) == {"0.jpg": {("object", pixels.encode(regions() == 3))}}
    assert "mask values: 15 is the object (as you said), all else is not" in said
    assert "values that are no object: 5 (176 pixels), 10 (832 pixels)" in said


def test_the_value_0(tmp_path):
    made, _ = run(pairs(tmp_path / "raw", [as_matting(regions())]), tmp_path, object_value=0)
    assert objects_of(made) == {"0.jpg": {("object", pixels.encode(regions() == 2))}}


def test_other_kinds_of_picture(tmp_path):
    palette = Image.fromarray(regions())
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    grey = Image.fromarray(np.dstack([regions()] * 3))
    sixteen = Image.fromarray(regions().astype(np.uint16))
    made, _ = run(pairs(tmp_path / "raw", [palette, grey, sixteen]), tmp_path)
    assert objects_of(made) == {f"{n}.jpg": {("object", INSIDE)} for n in range(3)}


def test_photos_without_objects_or_masks(tmp_path):
    root = pairs(tmp_path / "raw", [regions(), np.full(SIZE, 2, dtype=np.uint8)])
    photo(root / "images/9.jpg")
    assert "1 photo has no mask image" in fails(root, tmp_path)
    made, said = run(root, tmp_path, unmatched="empty")
    assert {name: len(found) for name, found in objects_of(made).items()} == {"0.jpg": 1, "1.jpg": 0, "9.jpg": 0}
    assert f"1 photo without objects ({root}/images/1.jpg)" in said


def test_parts_can_be_separated(tmp_path):
    made, _ = run(pairs(tmp_path / "raw", [regions()]), tmp_path, parts="separate")
    assert made.objects == {"train": 2}


def test_splits_and_categories_of_the_folders(tmp_path):
    for split in ("cat_train", "cat_val"):
        pairs(tmp_path / "raw" / split, [regions()])
    made, said = run(tmp_path / "raw", tmp_path)
    assert (made.photos, made.categories) == ({"train": 1, "val": 1}, ("cat",))
    assert "splits are kept as the folders give them (train, val)" in said


def test_a_split_folder_without_masks_does_not_undo_the_others(tmp_path):
    root = pairs(tmp_path / "raw", [regions()] * 2, ["train/a", "val/b"])
    photo(root / "images/test/c.jpg")
    made, said = run(root, tmp_path, unmatched="skip")
    assert made.photos == {"train": 1, "val": 1}
    assert "splits are kept as the folders give them (train, val)" in said


def test_smaller_masks_are_scaled_if_the_user_says_so(tmp_path):
    root = pairs(tmp_path / "raw", [regions()])
    photo(root / "images/0.jpg", (60, 80))
    assert "1 mask image differs in size from its photo" in fails(root, tmp_path)
    made, said = run(root, tmp_path, resize_masks=True)
    large = pixels.encode(np.kron(regions() == 1, np.ones((2, 2))))
    assert objects_of(made) == {"0.jpg": {("object", large)}}
    assert "masks scaled to their photo: 1" in said


@pytest.mark.parametrize(
    "masks",
    [
        [(regions() == 1).astype(np.uint8)] * 2,  # 0 and 1: a plain mask
        [(regions() == 1).astype(np.uint8) * 255] * 2,
        [np.array([0, 1, 0, 2], dtype=np.uint8)[regions()]] * 2,  # numbers of objects
        [np.ones(SIZE, dtype=np.uint8)] * 2,  # the object covers all
        [np.where(np.arange(40) == 20, 128, (np.arange(40) > 20) * 255).astype(np.uint8) * np.ones(SIZE, np.uint8)],
    ],
)
def test_other_masks_are_left_to_other_forms(tmp_path, masks):
    root = pairs(tmp_path / "raw", masks)
    assert trimap.find(root, PrepareSettings()) is None


def test_what_the_user_said_of_the_values_counts(tmp_path):
    root = pairs(tmp_path / "raw", [regions()])
    assert trimap.find(root, PrepareSettings(coding="ids")) is None
    assert trimap.find(root / "images/0.jpg", PrepareSettings()) is None
    assert trimap.find(root / "images", PrepareSettings()) is None


def test_one_mask_of_another_kind_does_not_make_the_ground_of_trimaps_an_object(tmp_path):
    """By the values alone, 1 and 2 of the others could also be two objects that fill the photo."""
    odd = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE)
    root = pairs(tmp_path / "raw", [regions(), regions(), odd])
    with pytest.raises(UserError, match="which value of the masks is the object cannot be known"):
        prepare(root, out=tmp_path / "DATA")
    black = pairs(tmp_path / "black", [regions(), regions() * 0, regions() * 0])
    with pytest.raises(UserError, match="which value of the masks is the object cannot be known"):
        prepare(black, out=tmp_path / "DATA")  # black ones tell nothing, however many
    ids = pairs(tmp_path / "ids", [regions() % 3, regions() % 3, odd])
    assert trimap.find(ids, PrepareSettings()) is None


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_whose_meaning_cannot_be_known(tmp_path):
    root = pairs(tmp_path / "raw", [regions(), regions() * 7, regions() * 7])
    said = fails(root, tmp_path)
    assert said == (
        "which value of the masks is the object cannot be known\n"
        "  masks/1.png and 1 more: values 7, 14, 21\n"
        "  masks/0.png: values 1, 2, 3\n"
        "fix: say it: --object-value N (all other values are then no object)"
    )


def test_a_value_that_no_mask_has(tmp_path):
    said = fails(pairs(tmp_path / "raw", [regions()]), tmp_path, object_value=9)
    assert "no mask has the value 9, which is the object\n  found are the values 1, 2, 3\n" in said


def test_pictures_that_are_no_trimaps(tmp_path):
    rng = np.random.default_rng(0)
    many = (np.arange(SIZE[0] * SIZE[1]) % 200).reshape(SIZE).astype(np.uint8)
    root = pairs(tmp_path / "raw", [regions(), rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8), many, regions()])
    (root / "masks/3.png").write_bytes(b"no picture")
    pairs(tmp_path / "other", [as_matting(regions())], ["4"], ending=".jpg")
    (tmp_path / "other/images/4.jpg").rename(root / "images/4.jpg")
    (tmp_path / "other/masks/4.jpg").rename(root / "masks/4.jpg")
    said = fails(root, tmp_path, object_value=1)
    assert "masks/1.png: is a colour picture, not one of numbers" in said
    assert "masks/2.png: has 200 values; a trimap has a few" in said
    assert "masks/3.png: is not a picture that can be read" in said
    assert "masks/4.jpg: is a JPEG, which changes the values of a trimap" in said


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(masks, size, names=("nut",), crowd=()):
    """Return a dataset of a photo per mask; a list of masks is one photo."""
    each = [mask if isinstance(mask, list) else [mask] for mask in masks]
    flat = [(number, mask) for number, group in enumerate(each, 1) for mask in group]
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(names, 1)],
        [DatasetImage(n, f"sub/{n}.png", size[1], size[0]) for n in range(1, len(each) + 1)],
        [
            Annotation(n + 1, number, n % len(names) + 1, pixels.encode(mask), crowd=n in crowd)
            for n, (number, mask) in enumerate(flat)
        ],
    )


def back(dataset, folder):
    written = trimap.write(dataset, folder / "raw/masks")
    for image in dataset.images:
        photo(folder / "raw/images" / image.file_name, image.size)
    made = prepare(folder / "raw", None, folder / "DATA", overwrite=True, form="trimap", category="nut")
    return written, objects_of(made)


@settings(max_examples=50)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_what_is_written_is_read_again(tmp_path_factory, mask):
    """Whatever the shape: rings, parts, single pixels, masks that cover all, photos without objects."""
    dataset = dataset_of([mask, np.ones_like(mask)], mask.shape)
    written, found = back(dataset, tmp_path_factory.mktemp("trimap"))
    assert found["1.png"] == ({("nut", pixels.encode(mask))} if mask.any() else set())
    assert found["2.png"] == {("nut", pixels.encode(np.ones_like(mask)))}
    assert (written.files, written.objects, written.notes) == (2, 1 + mask.any(), ())


def test_several_objects_are_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        trimap.write(dataset_of([[np.eye(3), np.ones((3, 3))], np.eye(3)], (3, 3)), tmp_path / "out")
    assert str(caught.value) == (
        "a trimap holds one object, and photos have more\n  sub/1.png: 2 objects\n"
        "fix: use: --form ids, or: --form instances"
    )
    assert not (tmp_path / "out").exists()


def test_what_a_trimap_cannot_hold_is_told(tmp_path):
    dataset = dataset_of([np.eye(3), [np.eye(3)[::-1], np.ones((3, 3))]], (3, 3), ("nut", "bolt"), crowd={2})
    written, found = back(dataset, tmp_path)
    assert found == {"1.png": {("nut", pixels.encode(np.eye(3)))}, "2.png": {("nut", pixels.encode(np.eye(3)[::-1]))}}
    assert written.notes == (
        "1 crowd not in the images: a trimap has no crowds",
        "the categories (nut, bolt) are not in the images: a trimap has none",
    )


# ── how the border lies ──────────────────────────────────────────────────────────────────────────────────────────────


def lie_pixel_by_pixel(plane):
    """Return the numbers of `_Survey` by looking at each pixel of each part of the border."""
    padded = np.pad(plane.astype(int), 1, constant_values=-1)
    border = between = 0
    for part in pixels.parts(plane == 128):
        seen = {int(v) for y, x in np.argwhere(part) for v in padded[y : y + 3, x : x + 3].ravel()}
        border += int(part.sum())
        between += int(part.sum()) * ({0, 255} <= seen)
    beside = [
        frozenset(two) for lines in (plane.tolist(), plane.T.tolist()) for line in lines for two in pairwise(line)
    ]
    return border, between, beside.count(frozenset({128, 255})), beside.count(frozenset({0, 255}))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 128, 255])),
    st.integers(1, 3),
    st.integers(1, 60),
)
def test_how_the_border_lies_is_counted_exactly_however_little_at_once(plane, times, most):
    plane = np.kron(plane, np.ones((times, times), dtype=np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimap, "_MOST_COUNTED", most)
        assert trimap._lie(plane) == lie_pixel_by_pixel(plane)


@given(arrays(np.uint16, st.tuples(st.integers(0, 7), st.integers(0, 7)), elements=st.sampled_from([0, 3, 9, 65535])))
def test_values_are_counted_exactly_however_little_at_once(plane):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimap, "_MOST_COUNTED", 5)
        counts = trimap._counted(plane, 65535)
    np.testing.assert_array_equal(counts, np.bincount(plane.ravel(), minlength=65536))


def test_a_trimap_takes_ten_bytes_a_pixel_at_most(tmp_path, monkeypatch):
    """So that one of 144 megapixels takes less than 2 GB: it took 3.3 GB."""
    plane = np.zeros((1200, 1200), dtype=np.uint8)
    plane[100:1100, 100:1100] = 128
    plane[200:1000, 200:1000] = 255
    Image.fromarray(plane).save(tmp_path / "a.png")
    monkeypatch.setattr(trimap, "_MOST_COUNTED", 1 << 14)
    wanted = (1000**2 - 800**2, 1000**2 - 800**2, 4 * 800, 0)
    assert trimap._survey(str(tmp_path / "a.png"))[1:] == wanted  # what is imported stays
    tracemalloc.start()
    try:
        trimap._survey(str(tmp_path / "a.png"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * plane.size
