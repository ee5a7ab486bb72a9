"""Pascal VOC trees: object numbers, classes, lists, colours; every fault; writing them is the inverse of reading."""

import zlib

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
from maskwright.formats import voc
from maskwright.formats.voc_values import CLASSES, colour_map
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (30, 40)


def photo(path, size=SIZE, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def save(plane, path, how="palette", palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = np.asarray(plane, dtype=np.uint8)
    if how == "rgb":
        image = Image.fromarray((colour_map() if palette is None else palette)[plane])
    else:
        image = Image.fromarray(plane)
        if how == "palette":
            image.putpalette((colour_map() if palette is None else palette).tobytes())
    image.save(path)


def planes():
    """Return an object and a class image: a ring, two parts of one object, touching objects, a border of void."""
    objects, classes = np.zeros(SIZE, dtype=np.uint8), np.zeros(SIZE, dtype=np.uint8)
    objects[2:10, 2:10] = 1
    objects[4:6, 4:6] = 0  # a hole
    objects[12:15, 2:5] = 2
    objects[12:15, 8:10] = 2  # in two parts
    objects[12:15, 5:8] = 3  # touches both
    objects[20:28, 20:38] = 255
    objects[21:27, 21:37] = 4
    for number, name in ((1, "person"), (2, "dog"), (3, "dog"), (4, "bus")):
        classes[objects == number] = CLASSES.index(name) + 1
    classes[objects == 255] = 255
    return objects, classes


def tree(root, names=("2007_000032",), how="palette", lists=None, palette=None):
    objects, classes = planes()
    for name in names:
        photo(root / "JPEGImages" / f"{name}.jpg")
        save(objects, root / "SegmentationObject" / f"{name}.png", how)
        save(classes, root / "SegmentationClass" / f"{name}.png", how, palette)
    for name, listed in (lists or {}).items():
        path = root / "ImageSets/Segmentation" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{one}\n" for one in listed))
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
    """Return {photo: {(category, mask bytes), ...}}."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        names = {c.id: c.name for c in data.categories}
        for i, image in enumerate(data.images):
            rows = range(data.first[i], data.first[i + 1])
            found[image.file_name] = {(names[int(data.category_ids[k])], data.rle(k)) for k in rows}
    return found


def expected(names=None):
    objects, classes = planes()
    return {
        (
            (names or {}).get(int(classes[objects == n][0]), CLASSES[int(classes[objects == n][0]) - 1]),
            pixels.encode(objects == n),
        )
        for n in range(1, 5)
    }


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_colour_map_has_the_colours_of_the_development_kit():
    assert colour_map()[[1, 2, 15, 20, 255]].tolist() == [
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


@pytest.mark.parametrize("how", ["palette", "rgb"])
@pytest.mark.parametrize("inside", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_a_tree(tmp_path, how, inside):
    tree(tmp_path / "raw" / inside, how=how)
    made, said = run(tmp_path / "raw", tmp_path)
    assert made.form == "voc"
    assert made.categories == ("bus", "dog", "person")
    assert objects_of(made) == {"2007_000032.jpg": expected()}
    assert f"1 photo in {tmp_path / 'raw' / inside / 'JPEGImages'}, 1 with object images" in said
    assert "3 categories: bus, dog, person (the classes of Pascal VOC, whose colours the masks have" in said
    assert "void border (value 255): 48 pixels in 1 photo belong to no object" in said


def test_grey_values_have_classes_without_names(tmp_path):
    made, said = run(tree(tmp_path / "raw", how="grey"), tmp_path)
    assert made.categories == ("class 6", "class 12", "class 15")
    assert "the masks do not name them; a labelmap.txt does, with a line 'name:red,green,blue::' each" in said


def test_lists_are_splits_and_other_photos_are_not_of_this_part(tmp_path):
    names = ["2007_000001", "2007_000002", "2007_000003"]
    root = tree(tmp_path / "raw", names, lists={"train": names[:2], "val": names[2:], "trainval": names})
    photo(root / "JPEGImages/2008_000009.jpg")
    (root / "Annotations").mkdir()
    (root / "Annotations/2008_000009.xml").write_text("<annotation/>")
    made, said = run(root, tmp_path)
    assert made.photos == {"train": 2, "val": 1}
    assert "splits are kept as the lists give them (train, val)" in said
    assert "1 photo without masks, in no list: of the detection part, not used" in said
    whys = {item.path.name: item.why for item in made.skipped}
    assert whys["2008_000009.jpg"] == "photo without masks and in no list: of the detection part"
    assert whys["Annotations"] == "folder that is no part of the data"


def test_a_list_whose_truth_is_not_published_is_left_out(tmp_path):
    root = tree(tmp_path / "raw", ["2007_000001"], lists={"train": ["2007_000001"], "test": ["2008_000009"]})
    photo(root / "JPEGImages/2008_000009.jpg")
    made, said = run(root, tmp_path)
    assert made.photos == {"train": 1}
    assert "no photo of the list 'test' has masks: 1 photo left out" in said


def test_trainval_and_test(tmp_path):
    root = tree(tmp_path / "raw", ["a", "b"], lists={"trainval": ["a"], "test": ["b"]})
    made, said = run(root, tmp_path)
    assert made.photos == {"train": 1, "test": 1}
    assert "there is no list train.txt: what trainval.txt has beyond the other lists is the train split" in said


def test_two_trees_keep_equal_names_apart(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        tree(tmp_path / "raw" / year, ["000032"], lists={"train": ["000032"]})
    made, _ = run(tmp_path / "raw", tmp_path)
    assert sorted(objects_of(made)) == ["VOC2007/000032.jpg", "VOC2012/000032.jpg"]


def test_the_export_of_a_labelling_tool(tmp_path):
    """CVAT writes colours of its own for the classes, VOC's for the objects, and one list, default.txt."""
    palette = colour_map()
    palette[6], palette[12], palette[15] = (250, 50, 83), (51, 221, 255), (61, 61, 245)
    root = tree(tmp_path / "raw", ["a/frame 1"], how="rgb", palette=palette)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nhuman:61,61,245::\nhound:51,221,255::\n"
        "coach:250,50,83::\n"
    )
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text('"a/frame 1"\n')
    made, said = run(root, tmp_path)
    assert made.categories == ("human", "hound", "coach")
    assert objects_of(made) == {"frame 1.jpg": expected({15: "human", 12: "hound", 6: "coach"})}
    assert f"the classes are listed in {root}/labelmap.txt: human, hound, coach" in said


def test_a_list_of_names_counts_values(tmp_path):
    root = tree(tmp_path / "raw", how="grey")
    (root / "class_names.txt").write_text("__ignore__\n_background_\n" + "".join(f"{name}\n" for name in CLASSES))
    made, _ = run(root, tmp_path)
    assert made.categories == CLASSES
    assert objects_of(made) == {"2007_000032.jpg": expected()}


def test_a_palette_in_another_order_is_read_by_its_colours(tmp_path):
    root = tree(tmp_path / "raw", how="rgb")
    for folder in ("SegmentationObject", "SegmentationClass"):
        path = root / folder / "2007_000032.png"
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    made, _ = run(root, tmp_path)
    assert objects_of(made) == {"2007_000032.jpg": expected()}


def test_only_class_images(tmp_path):
    root = tree(tmp_path / "raw")
    for path in (root / "SegmentationObject").iterdir():
        path.unlink()
    (root / "SegmentationObject").rmdir()
    made, said = run(root, tmp_path)
    objects, _ = planes()
    dogs = ("dog", pixels.encode((objects == 2) | (objects == 3)))
    assert dogs in objects_of(made)["2007_000032.jpg"]  # touching: they cannot be told apart
    assert "each connected part of a class is taken as an object, so objects of one class that touch are one" in said


def test_only_object_images(tmp_path):
    root = tree(tmp_path / "raw")
    (root / "SegmentationClass/2007_000032.png").unlink()
    (root / "SegmentationClass").rmdir()
    made, said = run(root, tmp_path, category="thing")
    assert {mask for _, mask in objects_of(made)["2007_000032.jpg"]} == {mask for _, mask in expected()}
    assert made.categories == ("thing",)
    assert "1 category: thing (as you said)" in said


def test_few_pixels_of_another_class_are_mended_and_counted(tmp_path):
    root = tree(tmp_path / "raw")
    _, classes = planes()
    classes[21, 21] = 0
    classes[0, 0] = 3
    save(classes, root / "SegmentationClass/2007_000032.png")
    made, said = run(root, tmp_path)
    assert objects_of(made) == {"2007_000032.jpg": expected()}
    assert "objects with pixels of another class, taken as of the class of nearly all: 1" in said
    assert "1 pixels have a class but belong to no object; they are ground" in said


def test_photos_without_masks_or_objects(tmp_path):
    root = tree(tmp_path / "raw", ["a"])
    photo(root / "JPEGImages/b.jpg")
    photo(root / "JPEGImages/c.jpg")
    for folder in ("SegmentationObject", "SegmentationClass"):
        save(np.zeros(SIZE), root / folder / "c.png")
    made, said = run(root, tmp_path, unmatched="empty")
    assert {name: len(found) for name, found in objects_of(made).items()} == {"a.jpg": 4, "b.jpg": 0, "c.jpg": 0}
    assert f"1 photo without objects ({root}/JPEGImages/c.jpg)" in said


def test_masks_that_the_user_names(tmp_path):
    root = tree(tmp_path / "raw")
    (root / "JPEGImages").rename(tmp_path / "photos")
    made, _ = run(tmp_path / "photos", tmp_path, root, form="voc")
    assert objects_of(made) == {"2007_000032.jpg": expected()}


def test_smaller_masks_are_scaled_if_the_user_says_so(tmp_path):
    root = tree(tmp_path / "raw")
    photo(root / "JPEGImages/2007_000032.jpg", (60, 80))
    said = fails(root, tmp_path)
    assert "1 mask image differs in size from its photo\n  SegmentationObject/2007_000032.png is 40 x 30, JPEG" in said
    made, said = run(root, tmp_path, resize_masks=True)
    masks = {mask for _, mask in objects_of(made)["2007_000032.jpg"]}
    objects, _ = planes()
    assert pixels.encode(np.kron(objects == 4, np.ones((2, 2)))) in masks
    assert "masks scaled to their photo: 1" in said


def test_other_folders_are_no_trees(tmp_path):
    photo(tmp_path / "raw/images/1.jpg")
    assert voc.find(tmp_path / "raw", PrepareSettings()) is None
    assert voc.find(tmp_path / "raw/images/1.jpg", PrepareSettings()) is None


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_without_their_partner(tmp_path):
    root = tree(tmp_path / "raw", ["a", "b", "c"])
    (root / "JPEGImages/a.jpg").unlink()
    (root / "SegmentationClass/b.png").unlink()
    photo(root / "JPEGImages/d.jpg")
    said = fails(root, tmp_path)
    assert "1 mask image has no photo\n  SegmentationObject/a.png: no photo a.* in" in said
    assert "object and class images do not go together\n  SegmentationObject/b.png: none in SegmentationClass" in said
    assert "photos have no mask image\n  JPEGImages/d.jpg: no mask d.png in" in said


def test_lists_that_cannot_be(tmp_path):
    root = tree(tmp_path / "raw", ["a", "b"], lists={"train": ["a", "nothing"], "val": ["a"]})
    said = fails(root, tmp_path)
    assert "lists name photos that are not there\n  ImageSets/Segmentation/train.txt: nothing" in said
    assert "photos are in the lists of two splits\n  a: in train and in val" in said
    assert "masks are in no list of a split\n  SegmentationObject/b.png: in no list in" in said


def test_an_object_of_two_classes(tmp_path):
    root = tree(tmp_path / "raw")
    _, classes = planes()
    classes[21:24, 21:37] = 3
    save(classes, root / "SegmentationClass/2007_000032.png")
    said = fails(root, tmp_path)
    assert "objects are of several classes\n  SegmentationObject/2007_000032.png: object 4 has class" in said
    assert "class 3: 48 pixels" in said


def test_an_object_without_a_class(tmp_path):
    root = tree(tmp_path / "raw")
    objects, classes = planes()
    classes[objects == 3] = 0
    save(classes, root / "SegmentationClass/2007_000032.png")
    assert "objects have no class\n  SegmentationObject/2007_000032.png: object 3 lies on no class in" in fails(
        root, tmp_path
    )


def test_colours_that_are_not_in_the_map(tmp_path):
    root = tree(tmp_path / "raw", how="rgb")
    path = root / "SegmentationObject/2007_000032.png"
    seen = np.array(Image.open(path))
    seen[0, 0] = (1, 2, 3)
    Image.fromarray(seen).save(path)
    said = fails(root, tmp_path)
    assert "2007_000032.png: 1 colour that VOC's colour map does not have (#010203; 1 pixel)" in said
    assert "a labelmap.txt says what colours mean, with a line 'name:red,green,blue::' for each" in said


def test_a_value_beyond_the_list(tmp_path):
    root = tree(tmp_path / "raw", how="grey")
    (root / "labelmap.txt").write_text("background\nonly\n")
    assert "has the class 15, the list of classes ends at 1" in fails(root, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:1,2::\n", "labelmap.txt, line 1: '1,2' is no colour red,green,blue of 0 to 255"),
        ("a:1,2,999::\n", "'1,2,999' is no colour red,green,blue of 0 to 255"),
        (":1,2,3::\n", "labelmap.txt, line 1: a class without a name"),
        ("a:1,2,3::\na:4,5,6::\n", "'a' stands twice"),
        ("a:1,2,3::\nb:1,2,3::\n", "the colour #010203 stands twice"),
    ],
)
def test_a_list_of_classes_that_cannot_be_read(tmp_path, text, said):
    root = tree(tmp_path / "raw")
    (root / "labelmap.txt").write_text(text)
    assert said in fails(root, tmp_path)


def test_text_that_is_no_text(tmp_path):
    root = tree(tmp_path / "raw")
    (root / "labelmap.txt").write_bytes(b"\xff\xfe\x00a")
    assert "a text file is not in UTF-8\n  labelmap.txt" in fails(root, tmp_path)


def test_masks_of_0_and_255(tmp_path):
    root = tree(tmp_path / "raw")
    for folder in ("SegmentationObject", "SegmentationClass"):
        save((planes()[0] == 1) * 255, root / folder / "2007_000032.png", "grey")
    said = fails(root, tmp_path)
    assert "no object image marks an object; 60 pixels are 255, which belongs to nobody" in said
    assert "if 255 is the object in your masks, they are no VOC masks" in said


def test_masks_as_jpeg_and_damaged_ones(tmp_path):
    root = tree(tmp_path / "raw", ["a", "b"])
    (root / "SegmentationObject/a.png").rename(root / "SegmentationObject/a.jpg")
    (root / "SegmentationClass/b.png").write_bytes(b"no picture")
    said = fails(root, tmp_path)
    assert "VOC masks cannot be JPEG: it changes the values\n  SegmentationObject/a.jpg" in said
    assert "SegmentationClass/b.png: is not a picture that can be read" in said


def test_object_and_class_images_of_different_size(tmp_path):
    root = tree(tmp_path / "raw")
    save(np.zeros((3, 4)), root / "SegmentationClass/2007_000032.png")
    assert "2007_000032.png: is 4 x 3, its object image is 40 x 30" in fails(root, tmp_path)


def test_a_tree_without_photos(tmp_path):
    root = tree(tmp_path / "raw")
    (root / "JPEGImages/2007_000032.jpg").unlink()
    (root / "JPEGImages").rmdir()
    said = fails(root, tmp_path)
    assert "a Pascal VOC tree without photos: there is no folder JPEGImages" in said
    assert "put the photos there, or name their folder: --photos FOLDER" in said


def test_one_name_for_several_classes(tmp_path):
    said = fails(tree(tmp_path / "raw"), tmp_path, category="hammer")
    assert "one category name was given, the class images have several\n  bus, dog, person" in said


def test_a_photo_that_is_turned(tmp_path):
    root = tree(tmp_path / "raw")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(root / "JPEGImages/2007_000032.jpg", exif=exif)
    said = fails(root, tmp_path)
    assert "1 mask image fits the photo as the camera stored it, not as it is shown" in said


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(masks, size, names=("nut", "bolt"), crowd=()):
    """Return a dataset of one photo, its masks in turn of each category."""
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(names, 1)],
        [DatasetImage(1, "sub/one photo.jpg", size[1], size[0])],
        [
            Annotation(n + 1, 1, n % len(names) + 1, pixels.encode(mask), crowd=n in crowd)
            for n, mask in enumerate(masks)
        ],
    )


def back(dataset, folder):
    """Write a dataset beside its photos and read it again: what was written, and {(category, mask), ...}."""
    written = voc.write(dataset, folder / "raw")
    for image in dataset.images:
        photo(folder / "raw/JPEGImages" / image.file_name, image.size)
    made = prepare(folder / "raw", None, folder / "DATA", overwrite=True)
    assert made.categories == tuple(c.name for c in dataset.categories)
    return written, next(iter(objects_of(made).values()))


def as_set(dataset):
    names = {c.id: c.name for c in dataset.categories}
    return {(names[int(dataset.category_ids[k])], dataset.rle(k)) for k in range(len(dataset))}


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: arrays(np.uint8, size, elements=st.integers(0, 4))
    )
)
@settings(max_examples=50)
def test_what_is_written_is_read_again(tmp_path_factory, values):
    """Whatever the shapes: rings, parts, touching objects, single pixels, masks that cover all."""
    masks = [values == n for n in range(1, 5) if (values == n).any()]
    if not masks:
        masks = [np.ones_like(values)]
    dataset = dataset_of(masks, values.shape)
    written, found = back(dataset, tmp_path_factory.mktemp("voc"))
    assert found == as_set(dataset)
    assert (written.objects, written.notes) == (len(masks), ())


def test_many_objects_and_what_cannot_be_held(tmp_path):
    masks = [np.arange(300).reshape(10, 30) == n for n in range(254)]
    dataset = dataset_of(masks, (10, 30))
    assert back(dataset, tmp_path)[1] == as_set(dataset)
    with pytest.raises(UserError) as caught:
        voc.write(dataset_of([*masks, np.ones((10, 30))], (10, 30)), tmp_path / "more")
    assert str(caught.value) == (
        "a VOC image numbers at most 254 objects, and photos have more\n  sub/one photo.jpg: 255 objects\n"
        "fix: use: --form ids"
    )
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("name", ["background", "void", " nut", "#nut", "a\nb"])
def test_names_that_the_list_of_classes_cannot_hold(tmp_path, name):
    with pytest.raises(UserError, match=r"categories have names that labelmap\.txt cannot hold") as caught:
        voc.write(dataset_of([np.ones((3, 3))], (3, 3), (name, "b")), tmp_path / "out")
    assert repr(name) in str(caught.value)


def test_a_name_with_a_colon(tmp_path):
    dataset = dataset_of([np.eye(3)], (3, 3), ("nut:1,2,3",))
    assert back(dataset, tmp_path)[1] == as_set(dataset)


def test_too_many_categories(tmp_path):
    with pytest.raises(UserError, match="a VOC image numbers at most 254 classes") as caught:
        voc.write(dataset_of([np.ones((3, 3))], (3, 3), [f"c{n}" for n in range(255)]), tmp_path / "out")
    assert "255 categories" in str(caught.value)


def test_overlaps_and_crowds_are_told(tmp_path):
    large, small, crowd = (np.zeros((10, 10), dtype=bool) for _ in range(3))
    large[:, :5] = True
    small[0, :2] = True
    crowd[9, :] = True
    written, found = back(dataset_of([large, small, crowd, small], (10, 10), ("nut",), crowd={2}), tmp_path)
    assert found == {("nut", pixels.encode(large & ~small)), ("nut", pixels.encode(small))}
    assert written.objects == 2
    assert written.notes == (
        "7 pixels belong to several objects, and this form holds one object per pixel: the smaller one is drawn on"
        " top; 1 object lost pixels; lowest IoU 0.960, in sub/one photo.jpg",
        "1 object wholly hidden by others: not in the images (sub/one photo.jpg)",
        "1 crowd drawn as void (255): VOC has no crowds",
    )
