"""Images of class x 1000 + n: Cityscapes itself, others of its kind, every fault, and writing them."""

import json
import zlib
from pathlib import Path

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
from maskwright.formats import cityscapes
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SHARED = Path(__file__).parents[2] / "shared"
SIZE = (20, 30)


def photo(path, size=SIZE, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def save(plane, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(plane, dtype=np.uint16)).save(path)
    return path


def scene():
    """Return road with a person with a hole, two cars that touch, a car group, and a class that is not Cityscapes'."""
    plane = np.full(SIZE, 7)
    plane[:, :2] = 0
    plane[2:8, 4:9] = 24000
    plane[4, 5] = 7
    plane[10:12, 4:6] = 26000
    plane[10:12, 6:8] = 26001
    plane[14:18, 10:20] = 26
    plane[0, 25] = 45003
    return plane


def tree(root, photos, coarse="gtFine", plane=None):
    for name in photos:
        folder, _, stem = name.rpartition("/")
        photo(root / "leftImg8bit" / folder / f"{stem}_leftImg8bit.png")
        base = root / coarse / folder / f"{stem}_{coarse}"
        save(scene() if plane is None else plane, base.with_name(base.name + "_instanceIds.png"))
        for other in ("labelIds", "color", "labelTrainIds"):
            Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(base.with_name(f"{base.name}_{other}.png"))
        base.with_name(base.name + "_polygons.json").write_text("{}")
    return root


def run(root, tmp_path, masks=None, **settings):
    said = []
    made = prepare(root, masks, tmp_path / "DATA", say=said.append, **settings)
    return made, "\n".join(said)


def fails(root, tmp_path, masks=None, **settings):
    with pytest.raises(UserError) as caught:
        prepare(root, masks, tmp_path / "DATA", **settings)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{root}/", "")


def objects_of(made):
    """Return {photo: {(category, crowd, mask bytes), ...}}."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        names = {c.id: c.name for c in data.categories}
        for i, image in enumerate(data.images):
            rows = range(data.first[i], data.first[i + 1])
            found[image.file_name] = {
                (names[int(data.category_ids[k])], bool(data.crowd[k]), data.rle(k)) for k in rows
            }
    return found


def expected(names=None):
    words = {24000: "person", 26000: "car", 26001: "car", 26: "car", 45003: "class 45", **(names or {})}
    return {(word, value < 1000, pixels.encode(scene() == value)) for value, word in words.items()}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tree_of_cityscapes(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/ulm_0_1", "val/bonn/bonn_0_1"])
    made, said = run(root, tmp_path)
    assert made.form == "cityscapes"
    assert made.photos == {"train": 1, "val": 1}
    assert made.categories == ("person", "car", "class 45")
    assert objects_of(made)["ulm_0_1_leftImg8bit.png"] == expected()
    assert f"2 photos in {root}/leftImg8bit, 2 with instance ids in {root}/gtFine: value = class x 1000 + n" in said
    assert "splits are kept as the folders give them (train, val)" in said
    assert "2 regions of a class without a number (values below 1000): many objects in one, kept as crowds" in said
    assert "of classes without objects: ground (road " in said
    assert 'no name is known for class 45; classes.json beside the masks gives names: {"45": "name"}' in said
    whys = {item.path.name: item.why for item in made.skipped}
    assert whys["ulm_0_1_gtFine_color.png"] == "not needed: the instance ids say it"
    assert whys["ulm_0_1_gtFine_polygons.json"] == "not needed: the instance ids say it"
    assert len(made.skipped) == 8


def test_the_published_test_masks_are_blank(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a", "val/ulm/b"])
    tree(root, ["test/rom/c"], plane=np.full(SIZE, 3))
    made, said = run(root, tmp_path)
    assert made.photos == {"train": 1, "val": 1}
    assert "the masks of the split 'test' are blank, the truth is not published: 1 photo left out" in said
    assert "c_leftImg8bit.png" in {item.path.name for item in made.skipped}


def test_photos_of_splits_without_masks_are_left_out(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"], "gtCoarse")
    photo(root / "leftImg8bit/val/ulm/b_leftImg8bit.png")
    made, said = run(root, tmp_path)
    assert made.photos == {"train": 1}
    assert "1 photo of a split, or of none, that has no masks: left out" in said


def test_splits_that_are_not_used_are_told(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a", "val/ulm/b", "extra/ulm/c"])
    made, _ = run(root, tmp_path, near_duplicates=False)
    note = f"1 photo in no split folder ({root}/leftImg8bit/extra/ulm/c_leftImg8bit.png): all photos are split anew"
    assert note in made.notes


def test_splits_that_only_the_folders_of_the_photos_tell_are_kept(tmp_path):
    for split in ("train", "val"):
        photo(tmp_path / f"raw/leftImg8bit/{split}/{split}.png")
        save(scene(), tmp_path / f"raw/gtFine/{split}_instanceIds.png")
    made, said = run(tmp_path / "raw", tmp_path)
    assert made.photos == {"train": 1, "val": 1}
    assert "splits are kept as the folders give them (train, val)" in said


def test_a_flat_folder_of_photos_and_masks(tmp_path):
    for name in ("a", "b"):
        photo(tmp_path / "raw" / f"{name}.jpg")
        save(scene(), tmp_path / "raw" / f"{name}_instanceIds.png")
    made, _ = run(tmp_path / "raw", tmp_path, form="cityscapes")
    assert objects_of(made) == {"a.jpg": expected(), "b.jpg": expected()}


def test_subfolders_keep_equal_names_apart(tmp_path):
    for name in ("x/1", "y/1"):
        photo(tmp_path / "raw/images" / f"{name}.jpg")
        save(scene(), tmp_path / "raw/masks" / f"{name}_instanceIds.png")
    made, _ = run(tmp_path / "raw", tmp_path, form="cityscapes")
    assert sorted(objects_of(made)) == ["x/1.jpg", "y/1.jpg"]


def test_any_masks_if_the_user_says_so(tmp_path):
    photo(tmp_path / "raw/images/1.jpg")
    save(scene(), tmp_path / "raw/masks/1.png")
    assert cityscapes.find(tmp_path / "raw", PrepareSettings()) is None
    made, _ = run(tmp_path / "raw", tmp_path, form="cityscapes")
    assert objects_of(made) == {"1.jpg": expected()}


def test_two_folders_that_the_user_names(tmp_path):
    photo(tmp_path / "camera/1.jpg")
    save(scene(), tmp_path / "truth/1_gtFine_instanceIds.png")
    made, _ = run(tmp_path / "camera", tmp_path, tmp_path / "truth", form="cityscapes")
    assert objects_of(made) == {"1.jpg": expected()}


def test_names_of_classes(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"])
    (root / "gtFine/classes.json").write_text(json.dumps({"45": "drone", "24": "pedestrian", "26": "auto"}))
    made, said = run(root, tmp_path)
    assert made.categories == ("drone", "pedestrian", "auto")
    words = {24000: "pedestrian", 26000: "auto", 26001: "auto", 26: "auto", 45003: "drone"}
    assert objects_of(made) == {"a_leftImg8bit.png": expected(words)}
    assert f"{root}/gtFine/classes.json names the classes: drone, pedestrian, auto" in said


def test_one_name_for_one_class(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"], plane=np.where(scene() == 26001, 26001, 0))
    made, _ = run(root, tmp_path, category="hammer")
    assert made.categories == ("hammer",)


def test_photos_without_objects(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"])
    tree(root, ["train/ulm/b"], plane=np.zeros(SIZE))
    photo(root / "leftImg8bit/train/ulm/c_leftImg8bit.png")
    made, said = run(root, tmp_path, unmatched="empty")
    assert sorted(len(found) for found in objects_of(made).values()) == [0, 0, 5]
    assert f"1 photo without objects ({root}/leftImg8bit/train/ulm/b_leftImg8bit.png)" in said


def test_smaller_masks_are_scaled_if_the_user_says_so(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"])
    photo(root / "leftImg8bit/train/ulm/a_leftImg8bit.png", (40, 60))
    assert "1 mask image differs in size from its photo" in fails(root, tmp_path)
    made, said = run(root, tmp_path, resize_masks=True)
    large = pixels.encode(np.kron(scene() == 24000, np.ones((2, 2))))
    assert ("person", False, large) in objects_of(made)["a_leftImg8bit.png"]
    assert "masks scaled to their photo: 1" in said


def test_other_folders(tmp_path):
    photo(tmp_path / "raw/images/1.jpg")
    photo(tmp_path / "raw/masks/1.png")
    assert cityscapes.find(tmp_path / "raw", PrepareSettings()) is None
    assert cityscapes.find(tmp_path / "raw/images/1.jpg", PrepareSettings()) is None


@pytest.mark.shared
def test_a_real_frame(tmp_path):
    root = SHARED / "data/formats/cityscapes"
    if not root.is_dir():
        pytest.skip("../shared is absent")
    made, said = run(root, tmp_path)
    plane = np.array(Image.open(next(root.rglob("*_instanceIds.png"))))
    values = [24000, 24001, 24002, 24003, 26000, 26001, 26002]
    wanted = {("car" if v > 25000 else "person", False, pixels.encode(plane == v)) for v in values}
    assert objects_of(made) == {"frankfurt_000000_000294_leftImg8bit.png": wanted}
    assert made.photos == {"val": 1}
    assert "pixels of classes without objects: ground (" in said


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_without_their_partner(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a", "train/ulm/b"])
    (root / "leftImg8bit/train/ulm/a_leftImg8bit.png").unlink()
    photo(root / "leftImg8bit/train/ulm/c_leftImg8bit.png")
    said = fails(root, tmp_path)
    assert "1 mask image has no photo\n  gtFine/train/ulm/a_gtFine_instanceIds.png: no photo a.* in" in said
    assert "1 photo has no mask image\n  leftImg8bit/train/ulm/c_leftImg8bit.png: no mask c_instanceIds.png in" in said


def test_masks_that_are_no_numbers(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a", "train/ulm/b", "train/ulm/c"])
    folder = root / "gtFine/train/ulm"
    Image.new("RGB", SIZE[::-1]).save(folder / "a_gtFine_instanceIds.png")
    (folder / "b_gtFine_instanceIds.png").write_bytes(b"no picture")
    Image.fromarray(np.full(SIZE, 70000, dtype=np.int32)).save(folder / "c_gtFine_instanceIds.tif")
    (folder / "c_gtFine_instanceIds.png").unlink()
    said = fails(root, tmp_path)
    assert "a_gtFine_instanceIds.png: is a colour picture, not one of numbers; instance ids are 16-bit grey" in said
    assert "b_gtFine_instanceIds.png: is not a picture that can be read" in said
    assert "c_gtFine_instanceIds.tif: has the value 70000; instance ids are at most 65535" in said


def test_class_images_are_no_instance_ids(tmp_path):
    root = tree(tmp_path / "raw", ["train/ulm/a"], plane=np.full(SIZE, 7))
    said = fails(root, tmp_path)
    assert "no image marks an object: there is no value of 1000 or more" in said
    assert "images of classes only cannot tell objects apart" in said


def test_several_masks_of_one_photo(tmp_path):
    photo(tmp_path / "raw/1.jpg")
    save(scene(), tmp_path / "raw/1_gtFine_instanceIds.png")
    save(scene(), tmp_path / "raw/1_gtCoarse_instanceIds.png")
    said = fails(tmp_path / "raw", tmp_path, form="cityscapes")
    assert "several mask images are of one photo\n  1_gtCoarse_instanceIds.png and " in said


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ([], "no object with names"),
        ({"a": "b"}, "'a': 'b'"),
        ({"1": 2}, "'1': 2"),
        ({"1": "x", "2": "x"}, "'2': 'x' stands twice"),
    ],
)
def test_names_of_classes_that_cannot_be_read(tmp_path, document, line):
    root = tree(tmp_path / "raw", ["train/ulm/a"])
    (root / "gtFine/classes.json").write_text(json.dumps(document))
    said = fails(root, tmp_path)
    assert f"classes.json must give a name for each class id\n  gtFine/classes.json: {line}" in said


def test_one_name_for_several_classes(tmp_path):
    said = fails(tree(tmp_path / "raw", ["train/ulm/a"]), tmp_path, category="hammer")
    assert "one category name was given, the masks have several classes\n  person, car, class 45" in said


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(masks, size, names=("nut", "bolt"), crowd=(), file_name="sub/one_leftImg8bit.png"):
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(names, 1)],
        [DatasetImage(1, file_name, size[1], size[0])],
        [
            Annotation(n + 1, 1, n % len(names) + 1, pixels.encode(mask), crowd=n in crowd)
            for n, mask in enumerate(masks)
        ],
    )


def back(dataset, folder):
    written = cityscapes.write(dataset, folder / "raw/masks")
    for image in dataset.images:
        photo(folder / "raw/images" / image.file_name, image.size)
    made = prepare(folder / "raw", None, folder / "DATA", overwrite=True, form="cityscapes")
    assert made.categories == tuple(c.name for c in dataset.categories)
    return written, next(iter(objects_of(made).values()))


def as_set(dataset):
    names = {c.id: c.name for c in dataset.categories}
    return {(names[int(dataset.category_ids[k])], bool(dataset.crowd[k]), dataset.rle(k)) for k in range(len(dataset))}


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: arrays(np.uint8, size, elements=st.integers(0, 4))
    ),
    st.sampled_from([("nut", "bolt"), ("person", "car"), ("car", "person"), ("road", "x")]),
)
@settings(max_examples=50)
def test_what_is_written_is_read_again(tmp_path_factory, values, names):
    """Whatever the shapes: rings, parts, touching objects, single pixels, masks that cover all."""
    masks = [values == n for n in range(1, 5) if (values == n).any()]
    if not masks:
        masks = [np.ones_like(values)]
    dataset = dataset_of(masks, values.shape, names)
    written, found = back(dataset, tmp_path_factory.mktemp("cityscapes"))
    assert found == as_set(dataset)
    assert (written.objects, written.notes) == (len(masks), ())


def test_names_of_cityscapes_keep_their_ids(tmp_path):
    cityscapes.write(dataset_of([np.ones((2, 2))], (2, 2), ("person", "car")), tmp_path)
    assert np.unique(np.array(Image.open(tmp_path / "sub/one_instanceIds.png"))).tolist() == [24000]
    assert json.loads((tmp_path / "classes.json").read_text()) == {"24": "person", "26": "car"}


def test_crowds_are_classes_without_a_number(tmp_path):
    masks = [np.eye(4) * 0 + (np.arange(4) == n) for n in range(4)]
    dataset = dataset_of(masks, (4, 4), ("nut",), crowd={0})
    assert back(dataset, tmp_path)[1] == as_set(dataset)
    written, found = back(dataset_of(masks, (4, 4), ("nut",), crowd={0, 3}), tmp_path / "two")
    assert ("nut", True, pixels.encode((masks[0] + masks[3]) > 0)) in found
    assert written.notes == ("1 crowd joined with others of the class in the photo: crowds have no numbers",)


def test_a_thousand_objects(tmp_path):
    masks = [np.arange(1020).reshape(30, 34) == n for n in range(1001)]
    dataset = dataset_of(masks[:1000], (30, 34), ("nut",), file_name="a.png")
    assert back(dataset, tmp_path)[1] == as_set(dataset)
    with pytest.raises(UserError) as caught:
        cityscapes.write(dataset_of(masks, (30, 34), ("nut",), file_name="a.png"), tmp_path / "more")
    assert str(caught.value) == (
        "instance ids number at most 1,000 objects of a class\n"
        "  a.png: 1,001 objects of 'nut', at most 1,000\nfix: use: --form ids"
    )
    assert not (tmp_path / "more").exists()


def test_too_many_classes(tmp_path):
    with pytest.raises(UserError, match="instance ids of 16 bits hold at most 65 classes\n  66 categories"):
        cityscapes.write(dataset_of([np.ones((2, 2))], (2, 2), [f"c{n}" for n in range(66)]), tmp_path)


def test_overlaps_are_told(tmp_path):
    large, small = np.ones((4, 4), dtype=bool), np.eye(4, dtype=bool)
    written, found = back(dataset_of([large, small], (4, 4), ("nut",)), tmp_path)
    assert found == {("nut", False, pixels.encode(large & ~small)), ("nut", False, pixels.encode(small))}
    assert "4 pixels belong to several objects" in written.notes[0]
