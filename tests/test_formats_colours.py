"""Masks in colours: of categories, of objects, exact and smeared; lists of colours; every fault; and writing them."""

import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset
from maskwright.dataset import Image as DatasetImage
from maskwright.errors import UserError
from maskwright.formats import colours
from maskwright.formats.colour_values import assign
from maskwright.formats.planes import pack
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (48, 64)
RED, GREEN, BLUE, BROWN = (230, 25, 75), (60, 180, 75), (0, 0, 255), (120, 20, 40)


def photo(path, size=SIZE, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def numbers():
    """Return object numbers: a ring, two that touch, one in two parts, one pixel."""
    plane = np.zeros(SIZE, dtype=np.int64)
    plane[4:20, 4:20] = 1
    plane[9:14, 9:14] = 0
    plane[24:40, 4:20] = 2
    plane[24:40, 20:36] = 3
    plane[4:20, 40:48] = 4
    plane[4:20, 52:60] = 4
    return plane


def paint(plane, table):
    """Colour a plane of numbers."""
    return np.array(table, dtype=np.uint8)[plane]


def pairs(root, masks, ending=".png", **save):
    for number, mask in enumerate(masks):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        photo(root / f"images/{number}.jpg", image.size[::-1])
        (root / "masks").mkdir(exist_ok=True)
        image.save(root / f"masks/{number}{ending}", **save)
    return root


def listed(root, text, name="colours.json"):
    path = root / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def run(root, tmp_path, masks=None, **settings):
    said = []
    made = prepare(root, masks, tmp_path / "DATA", say=said.append, form="colours", **settings)
    return made, "\n".join(said)


def fails(root, tmp_path, masks=None, **settings):
    with pytest.raises(UserError) as caught:
        prepare(root, masks, tmp_path / "DATA", form="colours", **settings)
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


def as_objects(plane, names=None):
    return {((names or {}).get(n, "object"), pixels.encode(plane == n)) for n in np.unique(plane[plane > 0]).tolist()}


def categories():
    """Return the parts of the numbers, 1 and 2 as nuts, 3 and 4 as bolts."""
    plane, found = numbers(), set()
    for name, values in (("nut", (1, 2)), ("bolt", (3, 4))):
        for part in pixels.parts(np.isin(plane, values)):
            found.add((name, pixels.encode(part)))
    return found


TABLE = [(0, 0, 0), RED, RED, GREEN, GREEN]
LIST = {"nut": "#e6194b", "bolt": [60, 180, 75]}

# ── colours of categories ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_split_folder_without_masks_does_not_undo_the_others(tmp_path):
    for split in ("train", "val", "test"):
        photo(tmp_path / f"raw/images/{split}/{split}.jpg")
    for split in ("train", "val"):
        (tmp_path / f"raw/masks/{split}").mkdir(parents=True)
        Image.fromarray(paint(numbers(), TABLE)).save(tmp_path / f"raw/masks/{split}/{split}.png")
    made, said = run(tmp_path / "raw", tmp_path, unmatched="skip", colours=str(listed(tmp_path, LIST, "list.json")))
    assert made.photos == {"train": 1, "val": 1}
    assert "splits are kept as the folders give them (train, val)" in said


def test_colours_of_categories(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)] * 2)
    path = listed(tmp_path, LIST, "list.json")
    made, said = run(root, tmp_path, colours=str(path))
    assert made.form == "colours"
    assert made.categories == ("nut", "bolt")
    assert objects_of(made) == {"0.jpg": categories(), "1.jpg": categories()}
    assert len(categories()) == 5
    assert f"each colour is a category ({path}): nut #e6194b, bolt #3cb44b" in said
    assert (
        "objects of one category that touch are one, and one in two parts is two; how many touch cannot be known"
        in said
    )
    assert "changed by compression" not in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nnut,230,25,75\nbolt,60,180,75\nVoid,0,0,0\n"),
        ("label_colors.txt", "230 25 75\tnut\n60 180 75\tbolt\n0 0 0\tVoid\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nnut:230,25,75::\nbolt:60,180,75::\n"),
        ("colors.json", '{"background": "#000000", "nut": ["#e6194b", "#010101"], "bolt": "#3cb44b"}'),
    ],
)
@pytest.mark.parametrize("beside", ["", "masks"])
def test_lists_that_lie_beside_the_masks(tmp_path, name, text, beside):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    path = listed(root / beside, text, name)
    made, _ = run(root, tmp_path)
    assert objects_of(made) == {"0.jpg": categories()}
    assert path not in {item.path for item in made.skipped}


def test_another_ground_and_palette_images(tmp_path):
    white = paint(numbers(), [(255, 255, 255), *TABLE[1:]])
    root = pairs(tmp_path / "raw", [Image.fromarray(white).convert("P", palette=Image.Palette.ADAPTIVE)])
    listed(root, {**LIST, "background": "#ffffff"})
    made, _ = run(root, tmp_path)
    assert objects_of(made) == {"0.jpg": categories()}


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_is_read_by_the_nearest_colour_and_the_distance_is_told(tmp_path, quality):
    plane = np.kron(numbers(), np.ones((4, 4), dtype=np.int64))
    root = pairs(tmp_path / "raw", [paint(plane, TABLE)], ".jpg", quality=quality)
    made, said = run(root, tmp_path, colours=str(listed(tmp_path, LIST)))
    found = objects_of(made)["0.jpg"]
    assert len(found) == 5
    for name, values in (("nut", (1, 2)), ("bolt", (3, 4))):
        for part in pixels.parts(np.isin(plane, values)):
            best = max(pixels.iou([pixels.encode(part)], [r for n, r in found if n == name], part.shape)[0])
            assert best > 0.97
    assert "1 mask of 1 in colours changed by compression or smooth edges: " in said
    assert "442 is from black to white); most in " in said


def test_smooth_edges_go_to_a_colour_near_by(tmp_path):
    """The edge between red and black is brown, and yet not of the brown object far away."""
    plane = np.kron(numbers(), np.ones((4, 4), dtype=np.int64))
    plane[-8:, -30:] = 5
    mask = Image.fromarray(paint(plane, [*TABLE, BROWN])).filter(ImageFilter.GaussianBlur(0.8))
    root = pairs(tmp_path / "raw", [mask])
    made, said = run(root, tmp_path, colours=str(listed(tmp_path, {**LIST, "rust": [120, 20, 40]})))
    rust = [mask for name, mask in objects_of(made)["0.jpg"] if name == "rust"]
    assert len(rust) == 1
    assert pixels.iou(rust, [pixels.encode(plane == 5)], plane.shape)[0, 0] > 0.9
    assert "changed by compression or smooth edges" in said


def test_a_colour_that_is_not_listed(tmp_path):
    plane = numbers()
    plane[45:, 60:] = 5
    plane[0, 0] = 5
    root = pairs(tmp_path / "raw", [paint(plane, [*TABLE, BLUE])])
    said = fails(root, tmp_path, colours=str(listed(tmp_path, LIST)))
    assert (
        "masks have areas of colours that are not listed\n  masks/0.png: #0000ff (13 pixels, 255 from the nearest)\n"
        'fix: add them to the list of colours (as "background" if they mark nothing)'
    ) in said


def test_a_colour_that_is_not_listed_in_jpeg(tmp_path):
    plane = np.kron(numbers(), np.ones((4, 4), dtype=np.int64))
    plane[150:, 200:] = 5
    root = pairs(tmp_path / "raw", [paint(plane, [*TABLE, BLUE])], ".jpg", quality=90)
    assert "masks have areas of colours that are not listed\n  masks/0.jpg: #" in fails(
        root, tmp_path, colours=str(listed(tmp_path, LIST))
    )


# ── colours of objects ───────────────────────────────────────────────────────────────────────────────────────────────


def test_each_colour_is_an_object_if_the_user_says_so(tmp_path):
    table = [(0, 0, 0), RED, GREEN, BLUE, BROWN]
    root = pairs(tmp_path / "raw", [paint(numbers(), table)])
    made, said = run(root, tmp_path, colours="instances", category="nut")
    assert objects_of(made) == {"0.jpg": as_objects(numbers(), dict.fromkeys(range(1, 5), "nut"))}
    assert "each colour is an object (as you said); #000000 is the ground (black)" in said


def test_colours_that_differ_from_photo_to_photo_are_objects(tmp_path):
    rng = np.random.default_rng(5)
    tables = [[(0, 0, 0), *rng.integers(1, 255, (4, 3)).tolist()] for _ in range(3)]
    root = pairs(tmp_path / "raw", [paint(numbers(), table) for table in tables])
    assert colours.find(root, PrepareSettings()) is not None
    assert colours.find(root, PrepareSettings(coding="ids")) is None  # what the user said is enough
    made, said = run(root, tmp_path)
    assert objects_of(made) == {f"{n}.jpg": as_objects(numbers()) for n in range(3)}
    assert "each colour is an object (they differ from photo to photo); #000000 is the ground (black)" in said


def viridis(count):
    """Return colours of n ids as matplotlib's viridis gives them, 0 included; its ground is not black."""
    matplotlib = pytest.importorskip("matplotlib")
    return (matplotlib.colormaps["viridis"](np.linspace(0, 1, count))[:, :3] * 255).round().astype(np.uint8)


def test_numbers_in_a_colour_map(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), viridis(5)), paint(numbers() % 4, viridis(5))])
    made, said = run(root, tmp_path, colours="instances")
    assert objects_of(made) == {"0.jpg": as_objects(numbers()), "1.jpg": as_objects(numbers() % 4)}
    assert "#440154 is the ground (the most frequent colour of all masks)" in said


def test_a_colour_map_in_jpeg(tmp_path):
    plane = np.kron(numbers(), np.ones((4, 4), dtype=np.int64))
    root = pairs(tmp_path / "raw", [paint(plane, viridis(5))], ".jpg", quality=85)
    path = listed(tmp_path, {"background": "#440154"})
    made, said = run(root, tmp_path, colours=str(path))
    found = [mask for _, mask in objects_of(made)["0.jpg"]]
    assert len(found) == 4
    for n in range(1, 5):
        assert max(pixels.iou([pixels.encode(plane == n)], found, plane.shape)[0]) > 0.97
    assert f"#440154 is the ground (as {path} says)" in said
    assert "pixels moved, distance " in said


def test_colours_that_jpeg_brought_too_near(tmp_path):
    plane = np.kron(numbers(), np.ones((4, 4), dtype=np.int64))
    near = [(0, 0, 0), (200, 0, 0), (200, 18, 0), (0, 200, 0), (0, 0, 200)]
    root = pairs(tmp_path / "raw", [paint(plane, near)], ".jpg", quality=95)
    said = fails(root, tmp_path, colours="instances")
    assert "masks have colours so alike that they may be one colour or two\n  masks/0.jpg: #" in said
    assert "export the masks as PNG, or in colours farther apart; or list the colours: --colours FILE.json" in said


def test_many_exact_colours_with_single_pixels(tmp_path):
    plane = np.zeros((20, 30), dtype=np.int64)
    plane[::2, ::2] = np.arange(150).reshape(10, 15)
    table = colours.object_colours(150)
    table[0] = 0
    root = pairs(tmp_path / "raw", [table[plane]])
    # Nobody can tell such a mask from one with smooth edges, so the objects must be listed.
    entries = {f"#{bytes(colour).hex()}": "nut" for colour in table[1:].tolist()}
    listed(root / "masks", {"files": {"0.png": entries}})
    made, _ = run(root, tmp_path)
    assert made.objects == {"train": 149}


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_colours_whose_meaning_cannot_be_known(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)] * 3)
    said = fails(root, tmp_path)
    assert (
        "the masks are in colours whose meaning cannot be known\n  found: #3cb44b in 3 masks, #e6194b in 3 masks\n"
        "  masks/0.png: 2 colours: #3cb44b, #e6194b" in said
    )
    assert 'name them in a file colours.json: {"NAME 1": "#3cb44b", "NAME 2": "#e6194b"}' in said
    assert "if each colour is an object: --colours instances" in said


def test_a_ground_that_cannot_be_known(tmp_path):
    table = [BROWN, RED, GREEN, BLUE, (9, 9, 9)]
    root = pairs(tmp_path / "raw", [paint(numbers(), table)])
    said = fails(root, tmp_path, colours="instances")
    assert "the colour of the ground cannot be known: no mask has black, and no colour is the most frequent" in said
    assert 'name it in a JSON file: {"background": "#440154"}' in said


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("c.json", "[]", "c.json: no object"),
        ("c.json", '{"nut": "red"}', "'nut': 'red' is no colour: write '#rrggbb' or [red, green, blue] of 0 to 255"),
        ("c.json", '{"nut": [1, 2, 256]}', "'nut': [1, 2, 256] is no colour"),
        ("c.json", '{"nut": "#010203", "bolt": "#010203"}', "#010203 stands twice"),
        ("c.json", '{"": "#010203"}', "#010203 has no name"),
        ("c.csv", "name,r,g,b\nnut,1,2\n", "line 2: 'nut,1,2' is no name with red, green and blue"),
        ("c.csv", "nut,1,2,999\n", "[1, 2, 999] is no colour"),
        ("c.csv", "# nothing\n", "it lists nothing"),
        ("c.json", '{"files": {"0.png": []}}', "'0.png': no object with colours"),
        ("c.json", '{"files": {"0.png": {"#010203": 1}}}', "'0.png': '#010203' has no category"),
        ("c.json", '{"files": {"0.png": {"x": "nut"}}}', "'x' is no colour"),
        ("c.json", '{"files": {}, "categories": 1}', "'categories' is no list of names"),
        ("c.json", '{"files": {}, "background": 1}', "'background': 1 is no colour"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, name, text, line):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    said = fails(root, tmp_path, colours=str(listed(tmp_path, text, name)))
    assert said.startswith("the list of colours cannot be read\n")
    assert line in said


def test_a_list_that_is_not_there(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    said = fails(root, tmp_path, colours="nowhere.json")
    assert "the list of colours does not exist\n  nowhere.json: neither there nor in" in said


def test_masks_of_one_colour_or_damaged_or_of_another_size(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)] * 4)
    (root / "masks/0.png").write_bytes(b"no picture")
    Image.fromarray(np.full(SIZE, 1000, dtype=np.uint16)).save(root / "masks/1.png")
    photo(root / "images/2.jpg", (96, 128))
    photo(root / "images/3.jpg", (48, 128))
    path = str(listed(tmp_path, LIST))
    said = fails(root, tmp_path, colours=path)
    assert "masks/0.png: is not a picture that can be read" in said
    assert "masks/1.png: has numbers beyond 255, which are no colours" in said
    assert "1 mask image differs in size from its photo\n  masks/2.png is 64 x 48, images/2.jpg is 128 x 96" in said
    assert "1 mask image has another shape than the photo\n  masks/3.png is 64 x 48" in said


def test_smaller_masks_are_scaled_if_the_user_says_so(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    photo(root / "images/0.jpg", (96, 128))
    made, said = run(root, tmp_path, colours=str(listed(tmp_path, LIST)), resize_masks=True)
    assert sum(made.objects.values()) == 5
    assert "masks scaled to their photo: 1" in said


def test_only_ground(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers() * 0, TABLE)])
    assert "no mask marks an object: there is no colour but that of the ground" in fails(
        root, tmp_path, colours=str(listed(tmp_path, LIST))
    )


def test_one_name_for_several_categories(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    said = fails(root, tmp_path, colours=str(listed(tmp_path, LIST)), category="nut")
    assert "one category name was given, the list of colours has several" in said


def test_photos_without_masks(tmp_path):
    root = pairs(tmp_path / "raw", [paint(numbers(), TABLE)])
    photo(root / "images/9.jpg")
    path = str(listed(tmp_path, LIST))
    assert "1 photo has no mask image" in fails(root, tmp_path, colours=path)
    made, _ = run(root, tmp_path, colours=path, unmatched="empty")
    assert objects_of(made)["9.jpg"] == set()


def test_other_masks_are_left_to_other_forms(tmp_path):
    root = pairs(tmp_path / "raw", [(numbers() > 0).astype(np.uint8) * 255] * 2)
    assert colours.find(root, PrepareSettings()) is None
    assert colours.find(tmp_path / "nothing", PrepareSettings()) is None
    assert colours.find(root / "images/0.jpg", PrepareSettings()) is None


# ── nearest colours ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 3)))
def test_exact_colours_are_never_moved(plane):
    table = np.array([(0, 0, 0), RED, GREEN, BLUE], dtype=np.uint8)
    labels, mixed, strange = assign(pack(table[plane]), pack(table).tolist(), lossy=False)
    assert np.array_equal(labels, plane)
    assert (mixed.pixels, mixed.largest, strange) == (0, 0.0, [])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset_of(masks, size, names=("nut", "bolt"), crowd=()):
    return Dataset.build(
        [Category(n, name) for n, name in enumerate(names, 1)],
        [DatasetImage(1, "sub/one.png", size[1], size[0])],
        [
            Annotation(n + 1, 1, n % len(names) + 1, pixels.encode(mask), crowd=n in crowd)
            for n, mask in enumerate(masks)
        ],
    )


def back(dataset, folder):
    written = colours.write(dataset, folder / "raw/masks")
    for image in dataset.images:
        photo(folder / "raw/images" / image.file_name, image.size)
    made = prepare(folder / "raw", None, folder / "DATA", overwrite=True, form="colours")
    assert made.categories == tuple(c.name for c in dataset.categories)
    return written, next(iter(objects_of(made).values())), made


def as_set(dataset):
    names = {c.id: c.name for c in dataset.categories}
    return {(names[int(dataset.category_ids[k])], dataset.rle(k)) for k in range(len(dataset))}


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
@settings(max_examples=50)
def test_what_is_written_is_read_again(tmp_path_factory, values):
    """Whatever the shapes: rings, parts, touching objects, single pixels, masks that cover all."""
    masks = [values == n for n in range(1, 5) if (values == n).any()] or [np.ones_like(values)]
    dataset = dataset_of(masks, values.shape)
    written, found, _ = back(dataset, tmp_path_factory.mktemp("colours"))
    assert found == as_set(dataset)
    assert (written.objects, written.notes) == (len(masks), ())


def test_thousands_of_objects_and_a_crowd(tmp_path):
    masks = [np.arange(1000).reshape(20, 50) == n for n in range(999)]
    dataset = dataset_of(masks, (20, 50), ("nut: 50 %", "bolt"), crowd={3})
    _, found, made = back(dataset, tmp_path)
    assert found == as_set(dataset)
    assert int(made.split("train").crowd.sum()) == 1


def test_the_first_colours_are_far_apart_and_none_is_twice():
    table = colours.object_colours(5000)
    assert len(np.unique(pack(table))) == 5000
    assert pack(table).min() > 0
    first = table[:7].astype(int)
    apart = np.sqrt(((first[:, None] - first[None]) ** 2).sum(axis=2))
    assert apart[~np.eye(7, dtype=bool)].min() >= 128


def test_overlaps_are_told(tmp_path):
    large, small = np.ones((4, 4), dtype=bool), np.eye(4, dtype=bool)
    written, found, _ = back(dataset_of([large, small], (4, 4), ("nut",)), tmp_path)
    assert found == {("nut", pixels.encode(large & ~small)), ("nut", pixels.encode(small))}
    assert written.notes == (
        "4 pixels belong to several objects, and this form holds one object per pixel: the smaller one is drawn on"
        " top; 1 object lost pixels; lowest IoU 0.750, in sub/one.png",
    )


def test_masks_and_their_list_must_go_together(tmp_path):
    dataset = dataset_of([np.eye(4), np.eye(4)[::-1]], (4, 4))
    colours.write(dataset, tmp_path / "raw/masks")
    photo(tmp_path / "raw/images/sub/one.png", (4, 4))
    path = tmp_path / "raw/masks/colours.json"
    document = json.loads(path.read_text())
    document["files"]["sub/one.png"].pop("#800000")
    path.write_text(json.dumps(document))
    said = fails(tmp_path / "raw", tmp_path)
    assert "masks/colours.json do not go together\n  masks/sub/one.png: #800000 is not listed" in said
    document["files"] = {}
    path.write_text(json.dumps(document))
    assert "masks/sub/one.png: not listed" in fails(tmp_path / "raw", tmp_path)


def test_a_category_without_a_name(tmp_path):
    with pytest.raises(UserError, match="a category has no name\n  category 1"):
        colours.write(dataset_of([np.eye(4)], (4, 4), ("",)), tmp_path)
