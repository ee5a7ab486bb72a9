"""Photos and mask images in folders: which folders, which pairs, what the values mean, and every fault."""

import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats import folders, pairing
from maskwright.formats.coding import Census, decide, look
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)  # height, width


def photo(path, size=SIZE, seed=None, **save):
    """Save a photo with texture; different for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)
    return path


def blob(size=SIZE, at=(10, 15), side=12):
    mask = np.zeros(size, dtype=np.uint8)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = 1
    mask[at[0] + 3 : at[0] + 6, at[1] + 3 : at[1] + 6] = 0  # a hole
    return mask


def save(array, path, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def pairs(root, masks, photos="rgb", folder="mask", ending=".png"):
    """Save photos 0, 1, ... with these masks."""
    for number, mask in enumerate(masks):
        shape = np.asarray(mask).shape[:2]
        photo(root / photos / f"{number}.jpg", shape)
        save(mask, root / folder / f"{number}{ending}")
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


def objects(made):
    """Return {file name: [mask, ...]} over all splits."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        for number, image in enumerate(data.images):
            found[image.file_name] = [data.mask(k) for k in range(data.first[number], data.first[number + 1])]
    return found


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("names", [("rgb", "mask"), ("images", "masks"), ("Photos", "Labels"), ("img", "annotations")])
def test_one_pair_of_folders(tmp_path, names):
    made, said = run(pairs(tmp_path / "raw", [blob()] * 4, *names), tmp_path)
    assert sum(made.photos.values()) == 4
    assert f"4 photos in {tmp_path}/raw/{names[0]}, 4 with a mask in {tmp_path}/raw/{names[1]}" in said
    assert "the objects are of the category 'object' (no folder name tells it; --category NAME gives another)" in said
    assert all(np.array_equal(masks[0], blob()) and len(masks) == 1 for masks in objects(made).values())


def test_split_folders_with_the_category_in_their_names(tmp_path):
    for name, count in (("hammer_train", 3), ("hammer_validate", 2), ("hammer_test", 1)):
        pairs(tmp_path / "raw" / name, [blob()] * count)
    made, said = run(tmp_path / "raw", tmp_path)
    assert made.photos == {"train": 3, "val": 2, "test": 1}
    assert made.categories == ("hammer",)
    assert "the objects are of the category 'hammer' (from the folder names)" in said
    assert "splits are kept as the folders give them (train, val, test)" in said


@pytest.mark.parametrize("name", ["train", "valid", "validation", "validate", "val", "test"])
def test_plain_split_folders(tmp_path, name):
    pairs(tmp_path / "raw" / name, [blob()], "images", "masks")
    made, _ = run(tmp_path / "raw", tmp_path)
    assert made.photos == {{"train": "train", "test": "test"}.get(name, "val"): 1}


def test_split_folders_inside_the_pair(tmp_path):
    for split in ("train", "val"):
        for number in range(2):
            photo(tmp_path / "raw/images" / split / f"{number}.jpg")
            save(blob(), tmp_path / "raw/masks" / split / f"{number}.png")
    made, _ = run(tmp_path / "raw", tmp_path)
    assert made.photos == {"train": 2, "val": 2}


def in_folders(root, photo_folders, mask_folders, count=2):
    """Save photos and masks of the same names in folders inside `images` and `masks`."""
    for folder in photo_folders:
        for number in range(count):
            photo(root / "images" / folder / f"{number}.jpg", seed=zlib.crc32(f"{folder}{number}".encode()))
    for folder in mask_folders:
        for number in range(count):
            save(blob(), root / "masks" / folder / f"{number}.png")
    return root


def test_split_folders_inside_two_folders_that_the_user_names(tmp_path):
    root = in_folders(tmp_path / "raw", ["nut_train", "nut_val"], ["nut_train", "nut_val"])
    made, said = run(root / "images", tmp_path, root / "masks")
    assert (made.photos, made.categories) == ({"train": 2, "val": 2}, ("nut",))
    assert "splits are kept as the folders give them (train, val)" in said


def test_a_split_folder_without_masks_does_not_undo_the_others(tmp_path):
    root = in_folders(tmp_path / "raw", ["train", "val", "test"], ["train", "val"])
    message = fails(root, tmp_path)
    assert "2 photos have no mask image" in message
    assert "  images/test/0.jpg: no mask test/0.* in masks\n" in message
    made, said = run(root, tmp_path, unmatched="skip")
    assert made.photos == {"train": 2, "val": 2}
    assert f"understood: train: 2 photos in {root}/images/train, 2 with a mask in {root}/masks" in said
    assert {item.why for item in made.skipped} == {"photo without a mask, left out as you said"}
    assert len(made.skipped) == 2
    made, _ = run(root, tmp_path, unmatched="empty", overwrite=True)
    assert made.photos == {"train": 2, "val": 2, "test": 2}
    assert made.objects == {"train": 2, "val": 2, "test": 0}
    assert sorted(objects(made)) == ["0.jpg", "1.jpg"]  # names are those inside the split folders


def test_photos_in_no_split_folder_undo_splits_only_if_they_are_used(tmp_path):
    root = in_folders(tmp_path / "raw", ["train", "val", "unlabeled"], ["train", "val"])
    assert "images/unlabeled/1.jpg: no mask unlabeled/1.* in masks" in fails(root, tmp_path)
    made, said = run(root, tmp_path, unmatched="skip")
    assert made.photos == {"train": 2, "val": 2}
    assert "split anew" not in said
    made, said = run(root, tmp_path, unmatched="empty", overwrite=True)
    note = f"2 photos in no split folder ({root}/images/unlabeled): all photos are split anew"
    assert f"understood: {note}" in said
    assert note in made.notes
    assert "no splits are given: split by a hash" in said


def test_split_folders_of_photos_beside_masks_in_other_folders(tmp_path):
    cased = in_folders(tmp_path / "cased", ["train", "val"], ["Train", "val"])
    made, said = run(cased, tmp_path)
    assert made.photos == {"train": 2, "val": 2}
    assert "photos and masks are paired not minding letter case" in said
    for split, number in (("train", 0), ("train", 1), ("test", 2)):
        photo(tmp_path / "flat/images" / split / f"{number}.jpg")
        save(blob(), tmp_path / f"flat/masks/{number}.png")
    made, said = run(tmp_path / "flat", tmp_path, overwrite=True)
    assert made.photos == {"train": 2, "test": 1}
    assert "splits are kept as the folders give them (train, test)" in said


def test_masks_of_a_split_without_photos_are_named(tmp_path):
    root = in_folders(tmp_path / "raw", ["train", "val"], ["train", "val", "test"])
    message = fails(root, tmp_path)
    assert "2 mask images have no photo" in message
    assert "  masks/test/0.png: no photo test/0.* in images\n" in message


def test_two_folders_that_the_user_names(tmp_path):
    root = pairs(tmp_path / "raw", [blob()] * 2, "camera", "truth")
    made, _ = run(root / "camera", tmp_path, root / "truth")
    assert sum(made.photos.values()) == 2


def test_folder_names_inside_every_split(tmp_path):
    for name in ("nut_train", "nut_test"):
        pairs(tmp_path / "raw" / name, [blob()], "camera", "truth")
    made, _ = run(tmp_path / "raw", tmp_path, "truth", photos="camera")
    assert (made.photos, made.categories) == ({"train": 1, "test": 1}, ("nut",))


def test_several_categories_by_folder(tmp_path):
    for name in ("hammer_train", "wrench_train"):
        pairs(tmp_path / "raw" / name, [blob()])
    made, _ = run(tmp_path / "raw", tmp_path)
    assert made.categories == ("hammer", "wrench")
    # Both folders have a 0.jpg: the names are kept apart by their folder.
    assert sorted(objects(made)) == ["hammer_train/rgb/0.jpg", "wrench_train/rgb/0.jpg"]


def test_categories_that_differ_between_splits(tmp_path):
    for name in ("hammer_train", "wrench_test"):
        pairs(tmp_path / "raw" / name, [blob()])
    message = fails(tmp_path / "raw", tmp_path)
    assert "the categories differ between the splits\n  train: hammer\n  test: wrench" in message
    assert "fix: name the folders alike, or: --category NAME" in message
    made, _ = run(tmp_path / "raw", tmp_path, category="tool")
    assert made.categories == ("tool",)


def test_no_masks_folder(tmp_path):
    photo(tmp_path / "raw/images/a.jpg")
    (tmp_path / "raw/truth").mkdir()
    message = fails(tmp_path / "raw", tmp_path)
    assert message.startswith("there is a folder of photos but no folder of mask images beside it")
    assert "images: 1 picture\n" in message
    assert "truth: 0 pictures\n" in message
    assert (
        "name the folder of photos rgb, images, photos, img, image, photo, imgs, jpegimages or pngimages and that of"
        " masks mask, masks, annotations, labels, annotation, label or pedmasks" in message
    )
    assert "or name both: maskwright prepare PHOTOS MASKS -o DATA" in message


def test_a_folder_with_nothing_in_it(tmp_path):
    (tmp_path / "raw").mkdir()
    assert "no folders of photos and mask images and no COCO file were found" in fails(tmp_path / "raw", tmp_path)


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stem_is_never_taken_by_its_beginning(tmp_path):
    root = tmp_path / "raw"
    for name in ("1", "10"):
        photo(root / "rgb" / f"{name}.jpg")
    save(blob(), root / "mask/10.png")
    message = fails(root, tmp_path)
    assert message.startswith("1 photo has no mask image\n  rgb/1.jpg: no mask 1.* in mask")
    assert "--unmatched empty" in message


def test_unmatched_photos_as_the_user_says(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "rgb/extra.jpg")
    made, said = run(root, tmp_path, unmatched="empty")
    assert objects(made)["extra.jpg"] == []
    assert "1 photo without a mask: photos without objects, as you said" in said
    made, said = run(root, tmp_path / "second", unmatched="skip")
    assert [(item.path.name, item.why) for item in made.skipped] == [
        ("extra.jpg", "photo without a mask, left out as you said")
    ]
    assert "skipped: 1 x photo without a mask, left out as you said (extra.jpg)" in said


def test_a_mask_without_a_photo(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    save(blob(), root / "mask/lost.png")
    message = fails(root, tmp_path, unmatched="empty")
    assert "1 mask image has no photo\n  mask/lost.png: no photo lost.* in rgb" in message
    assert "fix: add the photos, or remove these masks" in message


def test_two_photos_with_one_stem(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "rgb/0.png")
    message = fails(root, tmp_path)
    assert "photos in one folder have the same name but for the ending\n  0: rgb/0.jpg and " in message


def test_two_masks_for_one_photo(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    save(blob(), root / "mask/0.bmp")
    assert "photos have several mask images\n  rgb/0.jpg: mask/0.bmp and " in fails(root, tmp_path)


@pytest.mark.parametrize(
    ("photo_name", "mask_name", "rule"),
    [
        ("{}.jpg", "{}_mask.png", "leaving out words like _mask"),
        ("{}_rgb.jpg", "{}_seg.png", "leaving out words like _mask"),
        ("{}.jpg", "{}.jpg.png", "by the photo's full name"),
        ("IMG_{}.jpg", "img_{}.png", "not minding letter case"),
        ("day 1/{}.jpg", "{}.png", "by file name, in whatever subfolder"),
        ("{}.JPG", "{}.png", None),
    ],
)
def test_usual_ways_of_naming(tmp_path, photo_name, mask_name, rule):
    root = tmp_path / "raw"
    for number in (1, 10):
        photo(root / "images" / photo_name.format(number), format="JPEG")
        save(blob(at=(number, number)), root / "masks" / mask_name.format(number))
    made, said = run(root, tmp_path)
    assert (rule is None) or f"photos and masks are paired {rule}" in said
    assert ("are paired" in said) == (rule is not None)
    found = {name: masks[0] for name, masks in objects(made).items()}
    for number in (1, 10):
        name = photo_name.format(number).rpartition("/")[2]
        assert np.array_equal(found[name], blob(at=(number, number)))


def test_an_orphan_does_not_hide_the_way_of_naming(tmp_path):
    root = tmp_path / "raw"
    for name in "abc":
        photo(root / "images" / f"{name}.jpg")
        save(blob(), root / "masks" / f"{name}_mask.png")
    save(blob(), root / "masks/lost_mask.png")
    message = fails(root, tmp_path)
    assert message.startswith("1 mask image has no photo\n  masks/lost_mask.png: no photo lost.* in ")


def test_names_with_accents_and_spaces(tmp_path):
    root = tmp_path / "raw"
    photo(root / unicodedata.normalize("NFC", "rgb/Foto é ü 写真.jpg"))  # composed, as Linux writes it
    save(blob(), root / unicodedata.normalize("NFD", "mask/Foto é ü 写真.png"))  # decomposed, as macOS does
    made, _ = run(root, tmp_path)
    assert list(objects(made)) == [unicodedata.normalize("NFC", "Foto é ü 写真.jpg")]


@given(st.lists(st.text("ab1_0", min_size=1, max_size=4), unique=True, min_size=1, max_size=6))
def test_pairing_by_exact_names_is_the_identity(tmp_path_factory, names):
    """Law: equal names pair, whatever words are in them, and no other rule is tried."""
    root = tmp_path_factory.mktemp("law")
    place = pairing.Place(root / "p", root / "m")
    for folder, ending in ((place.photos, "jpg"), (place.masks, "png")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.{ending}").touch()
    found = pairing.Pairing([place], PrepareSettings())
    assert (found.notes, found.problems, len(found)) == ([], [], len(names))
    assert [(pair.photo, pair.mask) for pair in found] == [
        (str(place.photos / f"{name}.jpg"), str(place.masks / f"{name}.png")) for name in sorted(names)
    ]


def test_side_files_and_others_are_accounted_for(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    for name in ("rgb/0.jpg:Zone.Identifier", "rgb/.DS_Store", "mask/Thumbs.db", "rgb/notes.txt", "read me.md"):
        (root / name).write_bytes(b"x")
    for name in (".maskwright", "rgb/.maskwright"):
        (root / name).write_bytes(b"x")
    (root / "rgb/.cache").mkdir()
    (root / "old").mkdir()
    (root / "rgb/linked").symlink_to(root / "mask", target_is_directory=True)
    made, said = run(root, tmp_path)
    assert sum(made.photos.values()) == 1
    assert {item.path.name: item.why for item in made.skipped} == {
        "0.jpg:Zone.Identifier": "left by the system",
        ".DS_Store": "left by the system",
        "Thumbs.db": "left by the system",
        "notes.txt": "not a picture file",
        "read me.md": "beside the data",
        ".cache": "hidden folder",
        "linked": "link to a folder, not followed",
        "old": "folder that is no part of the data",
    }
    assert "skipped: 3 x left by the system" in said
    assert ".maskwright" not in said  # by which masks and demo know their own folders


# ── files that cannot be read ────────────────────────────────────────────────────────────────────────────────────────


def huge_png():
    """Return a PNG that declares 100,000 x 100,000 pixels in 50 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_broken_files_are_all_named(tmp_path):
    root = pairs(tmp_path / "raw", [blob()] * 6)
    whole = (root / "rgb/0.jpg").read_bytes()
    (root / "rgb/0.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "rgb/1.jpg").write_bytes(b"")
    (root / "rgb/2.jpg").write_text("this is no picture")
    (root / "mask/3.png").write_bytes((root / "mask/3.png").read_bytes()[:60])
    (root / "mask/4.png").write_bytes(huge_png())
    message = fails(root, tmp_path)
    assert message.startswith("5 picture files cannot be read\n")
    assert "rgb/0.jpg: cannot be decoded (the file is cut off)" in message
    assert "rgb/1.jpg: is empty (0 bytes)" in message
    assert "rgb/2.jpg: is not a picture that can be read" in message
    assert "mask/3.png: cannot be decoded" in message
    assert "mask/4.png: declares 100,000 x 100,000 pixels" in message
    assert "fix: replace these files, or remove them together with their mask or photo" in message


def test_a_photo_that_declares_too_much(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    (root / "rgb/0.jpg").write_bytes(huge_png())
    assert "rgb/0.jpg: declares 100,000 x 100,000 pixels; at most 150,000,000" in fails(root, tmp_path)


def test_all_problems_come_at_once(tmp_path):
    root = pairs(tmp_path / "raw", [blob()] * 2)
    (root / "rgb/0.jpg").write_bytes(b"")
    photo(root / "rgb/alone.jpg")
    save(blob(), root / "mask/lost.png")
    message = fails(root, tmp_path)
    assert message.count("fix: ") == 3


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sizes_that_differ(tmp_path):
    root = pairs(tmp_path / "raw", [blob()] * 2)
    photo(root / "rgb/0.jpg", (80, 120))
    message = fails(root, tmp_path)
    assert "1 mask image differs in size from its photo\n  mask/0.png is 60 x 40, " in message
    assert "rgb/0.jpg is 120 x 80" in message
    assert "fix: export the masks at full size, or scale them: --resize-masks" in message
    made, said = run(root, tmp_path, resize_masks=True)
    assert np.array_equal(objects(made)["0.jpg"][0], blob().repeat(2, 0).repeat(2, 1))
    assert "mended: masks scaled to their photo: 1 (" in said


def test_shapes_that_differ_are_not_scaled(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "rgb/0.jpg", (80, 80))
    message = fails(root, tmp_path, resize_masks=True)
    assert message.startswith("1 mask image has another shape than the photo")
    assert "fix: check that photo and mask belong together" in message


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_a_mask_in_the_frame_of_the_camera(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "rgb/0.jpg", SIZE, exif=exif(6))
    message = fails(root, tmp_path, resize_masks=True)
    assert (
        "1 mask image fits the photo as the camera stored it, not as it is shown: the photo has an EXIF orientation"
        in message
    )
    assert "is 40 x 60 when shown and 60 x 40 as stored (EXIF orientation 6)" in message
    assert "fix: if the masks were drawn on the photos as stored: --mask-frame stored;" in message


def test_a_turned_photo_with_an_upright_mask(tmp_path):
    root = pairs(tmp_path / "raw", [blob((60, 40))])
    photo(root / "rgb/0.jpg", SIZE, exif=exif(6))
    made, _ = run(root, tmp_path)
    image = made.split("train").images[0]
    assert (image.height, image.width) == (60, 40)
    assert np.array_equal(objects(made)["0.jpg"][0], blob((60, 40)))


def test_a_photo_upside_down_fits_both_ways(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "rgb/0.jpg", SIZE, exif=exif(3))
    _, said = run(root, tmp_path)
    assert "1 photo must be turned or mirrored to be upright" in said
    assert "the masks are taken as drawn on the upright photo: look at one of them" in said


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_palette(mask, table):
    image = Image.fromarray(mask)
    image = image.convert("P") if image.mode != "L" else Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(table)
    return image


def soft(mask):
    big = Image.fromarray(mask * 255)
    return big.filter(ImageFilter.GaussianBlur(1.2))


def rgba(mask, inside, outside, alpha):
    return np.dstack([np.where(mask[..., None] > 0, inside, outside).astype(np.uint8), alpha.astype(np.uint8)])


BINARY = {
    "0 and 1": lambda m: m,
    "0 and 255": lambda m: m * 255,
    "one bit": lambda m: Image.fromarray(m * 255).convert("1"),
    "0 and 200": lambda m: m * 200,
    "16 bit": lambda m: m.astype(np.uint16) * 65535,
    "16 bit, 0 and 1": lambda m: m.astype(np.uint16),
    "RGB": lambda m: np.dstack([m * 255] * 3),
    "RGB, red on black": lambda m: np.dstack([m * 200, m * 0, m * 10]),
    "palette, black and white": lambda m: as_palette(m, [0, 0, 0, 255, 255, 255]),
    "palette, white and black": lambda m: as_palette(1 - m, [255, 255, 255, 0, 0, 0]),
    "palette, black and red": lambda m: as_palette(m, [0, 0, 0, 128, 0, 0]),
    "RGBA, opaque": lambda m: rgba(m, 255, 0, np.full(m.shape, 255)),
    "RGBA, white, in the transparency": lambda m: rgba(m, 255, 255, m * 255),
    "RGBA, black, in the transparency": lambda m: rgba(m, 0, 0, m * 255),
    "grey and transparency": lambda m: Image.merge(
        "LA", [Image.fromarray(m * 255), Image.new("L", m.shape[::-1], 255)]
    ),
}


@pytest.mark.parametrize("kind", BINARY)
def test_every_way_to_write_a_binary_mask(tmp_path, kind):
    masks = [blob(at=at) for at in ((2, 3), (20, 30), (5, 40))]
    root = pairs(tmp_path / "raw", [BINARY[kind](mask) for mask in masks])
    made, said = run(root, tmp_path)
    assert made.coding == "binary"
    assert "a mask is one object, parts and holes included (coding binary)" in said
    found = objects(made)
    assert [len(found[f"{i}.jpg"]) for i in range(3)] == [1, 1, 1]
    assert all(np.array_equal(found[f"{i}.jpg"][0], mask) for i, mask in enumerate(masks))


def test_fractions_in_a_tiff(tmp_path):
    root = pairs(tmp_path / "raw", [blob().astype(np.float32)] * 2, ending=".tif")
    made, _ = run(root, tmp_path)
    assert np.array_equal(objects(made)["0.jpg"][0], blob())


def test_soft_edges_are_cut_at_half_and_counted(tmp_path):
    masks = [soft(blob()), soft(blob(at=(20, 30))), blob() * 255]
    made, said = run(pairs(tmp_path / "raw", masks), tmp_path)
    assert "mended: masks with soft edges or noise, cut at half: 2 (" in said
    for number, mask in enumerate(masks):
        assert np.array_equal(objects(made)[f"{number}.jpg"][0], np.asarray(mask) >= 128)


def test_jpeg_noise_is_cut_at_half(tmp_path):
    root = pairs(tmp_path / "raw", [blob(side=20) * 255] * 3, ending=".jpg")
    save(np.full(SIZE, 1, dtype=np.uint8), root / "mask/2.jpg")  # an empty mask with noise
    made, said = run(root, tmp_path)
    wanted = np.asarray(Image.open(root / "mask/0.jpg")) >= 128
    assert np.array_equal(objects(made)["0.jpg"][0], wanted)
    assert objects(made)["2.jpg"] == []
    assert "cut at half: 2" in said


def numbered(count, dtype=np.uint8, size=SIZE):
    ids = np.zeros(size, dtype=dtype)
    for k in range(count):
        ids[2 + 3 * (k % 12) : 4 + 3 * (k % 12), 2 + 5 * (k // 12) : 6 + 5 * (k // 12)] = k + 1
    return ids


@pytest.mark.parametrize(("dtype", "ending"), [(np.uint8, ".png"), (np.uint16, ".png"), (np.int32, ".tif")])
def test_id_images(tmp_path, dtype, ending):
    masks = [numbered(n, dtype) for n in (3, 1, 0, 130)]
    made, said = run(pairs(tmp_path / "raw", masks, ending=ending), tmp_path)
    assert made.coding == "ids"
    assert "mask values are 1, 2, ... up to 130, without gaps in 3 of 3 masks: value n is object n of its photo" in said
    found = objects(made)
    assert [len(found[f"{n}.jpg"]) for n in range(4)] == [3, 1, 0, 130]
    assert all(np.array_equal(mask, numbered(130) == k + 1) for k, mask in enumerate(found["3.jpg"]))


def test_more_than_255_ids(tmp_path):
    made, _ = run(pairs(tmp_path / "raw", [numbered(300, np.uint16, (40, 140)), numbered(2, np.uint16)]), tmp_path)
    assert len(objects(made)["0.jpg"]) == 300


def test_ids_in_a_palette_picture(tmp_path):
    masks = [as_palette(numbered(n), [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]) for n in (3, 1, 2)]
    made, _ = run(pairs(tmp_path / "raw", masks), tmp_path)
    assert made.coding == "ids"
    assert [len(objects(made)[f"{n}.jpg"]) for n in range(3)] == [3, 1, 2]


def test_ids_are_decided_over_all_masks(tmp_path):
    """Most photos have one object, so most masks look binary; the one with two says what the values mean."""
    made, _ = run(pairs(tmp_path / "raw", [numbered(1)] * 6 + [numbered(2)]), tmp_path)
    assert made.coding == "ids"
    assert sum(made.objects.values()) == 8


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((3, 7, 200), "mask/0.png: values 3, 7, 200 beside 0"),
        ((127, 255), "mask/0.png: values 127, 255 beside 0"),
        ((7,), "mask/0.png: value 7 beside 0"),
    ],
)
def test_values_that_can_mean_anything(tmp_path, values, found):
    table = np.array([0, *values], dtype=np.uint8)
    mask = np.kron(np.arange(4).reshape(2, 2) % len(table), np.ones((20, 30), dtype=int))
    root = pairs(tmp_path / "raw", [table[mask]])
    message = fails(root, tmp_path)
    assert message.startswith("1 mask image has values whose meaning cannot be known")
    assert found in message
    assert "fix: say what they mean: --coding binary" in message
    assert "--coding ids (each value is an object)" in message
    made, _ = run(root, tmp_path, coding="ids")
    assert made.objects == {"train": len(values)}
    made, _ = run(root, tmp_path / "second", coding="binary")
    assert np.array_equal(objects(made)["0.jpg"][0], table[mask] >= (4 if values == (7,) else 128))


def test_a_colour_picture_is_no_mask(tmp_path):
    root = pairs(tmp_path / "raw", [blob() * 255] * 3)
    photo(root / "mask/1.png")
    message = fails(root, tmp_path)
    assert "1 mask image has values whose meaning cannot be known, unlike the other masks\n  mask/1.png: " in message
    assert " colours\n" in message


def test_a_grey_photo_is_no_mask(tmp_path):
    slope = np.tile(np.linspace(0, 255, SIZE[1]).astype(np.uint8), (SIZE[0], 1))
    root = pairs(tmp_path / "raw", [slope, slope])
    assert "2 mask images have values whose meaning cannot be known" in fails(root, tmp_path)


def test_two_colours_for_two_categories_are_asked_about(tmp_path):
    masks = [np.dstack([blob() * 255, blob() * 0, blob() * 0]), np.dstack([blob() * 0, blob() * 255, blob() * 0])]
    assert "2 mask images have values whose meaning cannot be known, each in its own colour" in fails(
        pairs(tmp_path / "raw", masks), tmp_path
    )


def test_categories_as_values_are_asked_about(tmp_path):
    """Law of the house: values 15 in one photo and 8 in the next are categories, not objects."""
    root = pairs(tmp_path / "raw", [blob() * 15, blob() * 8, blob() * 1])
    message = fails(root, tmp_path)
    assert "2 mask images have values whose meaning cannot be known" in message
    assert "mask/0.png: value 15 beside 0" in message


def test_id_images_in_jpeg(tmp_path):
    root = pairs(tmp_path / "raw", [numbered(40)], ending=".jpg")
    assert fails(root, tmp_path, coding="ids").startswith(
        "id images cannot be JPEG: it changes the values\n  mask/0.jpg"
    )


def test_too_many_ids(tmp_path):
    root = pairs(tmp_path / "raw", [np.arange(150 * 150, dtype=np.int32).reshape(150, 150)], ending=".tif")
    message = fails(root, tmp_path, coding="ids")
    assert message.startswith("id images have more than 10,000 values\n  mask/0.tif: 22,499 values from 1 to 22499")


def test_values_that_no_mask_has(tmp_path):
    root = pairs(tmp_path / "raw", [np.full(SIZE, v, dtype=np.float32) for v in (0.5, 3.7, np.nan)], ending=".tif")
    save(np.full(SIZE, -3, dtype=np.int32), root / "mask/0.tif")
    message = fails(root, tmp_path)
    assert "mask/0.tif: holds negative values, which no mask has" in message
    assert "mask/1.tif: holds fractions outside 0..1, which no mask has" in message
    assert "mask/2.tif: holds values that are not numbers" in message


def test_an_all_black_mask_is_a_photo_without_objects(tmp_path):
    made, said = run(pairs(tmp_path / "raw", [blob(), blob() * 0, blob()]), tmp_path)
    assert objects(made)["1.jpg"] == []
    assert "note: 1 photo with an all-black mask: photos without objects (" in said


def test_all_masks_are_empty(tmp_path):
    message = fails(pairs(tmp_path / "raw", [blob() * 0] * 7), tmp_path)
    assert message.startswith("no mask image marks an object: all are black\n  mask/0.png: value 0 only")
    assert "... and 2 more" in message
    assert "fix: export the masks again, with objects in white" in message


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path, monkeypatch):
    (tmp_path / "raw" / "locked").mkdir(parents=True)
    (tmp_path / "raw" / "other").mkdir()
    listed = Path.iterdir

    def iterdir(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    message = str(folders.missing(tmp_path / "raw"))
    assert f"{tmp_path}/raw/locked: cannot be looked into (Permission denied)" in message
    assert f"{tmp_path}/raw/other: 0 pictures" in message


def test_masks_in_several_large_parts(tmp_path):
    two = np.maximum(blob(at=(2, 2)), blob(at=(20, 40)))
    root = pairs(tmp_path / "raw", [two, blob(), two])
    made, said = run(root, tmp_path)
    assert sum(made.objects.values()) == 3
    assert "2 of 3 masks have several large parts (" in said
    assert "4 large parts in all); each mask is one object: --parts separate makes each part an object" in said
    made, said = run(root, tmp_path / "second", parts="separate")
    assert sum(made.objects.values()) == 5
    assert "3 masks became 5 objects: each connected part is one (--parts separate)" in said
    assert {mask.tobytes() for mask in objects(made)["0.jpg"]} == {
        blob(at=(2, 2)).astype(bool).tobytes(),
        blob(at=(20, 40)).astype(bool).tobytes(),
    }


def test_masks_that_may_be_inverted(tmp_path):
    _, said = run(pairs(tmp_path / "raw", [255 - blob() * 255] * 2), tmp_path)
    assert "in 2 of 2 masks the object covers more than half of the photo" in said
    assert "if black is the object, invert the masks first" in said


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(arrays(np.bool_, (6, 7)), min_size=1, max_size=4), st.sampled_from([1, 255]))
def test_binary_masks_come_back_exactly(tmp_path_factory, masks, white):
    """Law: a set of masks written with 0 and any one top value is read as it was."""
    folder = tmp_path_factory.mktemp("law")
    seen = []
    for number, mask in enumerate(masks):
        path = folder / f"{number}.png"
        Image.fromarray(mask.astype(np.uint8) * white).save(path)
        seen.append((str(path), look(path)))
    decision = decide(Census(seen), None)
    assert decision.coding == "binary"
    assert [pixels.decode(values.rle, (6, 7)).tolist() for _, values in seen] == [mask.tolist() for mask in masks]


@pytest.mark.parametrize("named", [False, True])
def test_an_empty_mask_folder_is_said_to_be_empty(tmp_path, named):
    root = tmp_path / "raw"
    photo(root / "rgb/1.jpg")
    (root / "mask").mkdir()
    message = fails(root / "rgb", tmp_path, root / "mask") if named else fails(root, tmp_path)
    assert message.replace(f"{root}/", "") == (
        "the mask folder holds no mask images\n  mask: empty\n"
        "fix: put the mask images there, or name both folders: maskwright prepare PHOTOS MASKS -o DATA"
    )
    (root / "mask/notes.txt").touch()
    message = fails(root / "rgb", tmp_path, root / "mask", unmatched="empty")
    assert "mask: no picture file" in message


def test_black_masks_are_told_in_a_sentence(tmp_path):
    said = []
    with pytest.raises(UserError, match="no mask image marks an object"):
        prepare(pairs(tmp_path / "raw", [blob() * 0] * 2), None, tmp_path / "DATA", say=said.append)
    assert said[-1].startswith("understood: mask values are 0 only (every mask is black): a mask is one object")


def test_a_colour_picture_holds_no_ids(tmp_path):
    root = pairs(tmp_path / "raw", [blob()])
    photo(root / "mask/0.png")
    message = fails(root, tmp_path, coding="ids")
    assert message.startswith(
        "colour pictures with more than 255 colours are no id images: each colour would be an object\n  mask/0.png: 2,"
    )
    assert message.endswith(
        "fix: check that these files are mask images; export ids as grey values, without smooth edges"
    )


def test_soft_masks_whose_area_depends_on_the_cut_are_told(tmp_path):
    soft = np.asarray(Image.fromarray(blob() * np.uint8(255)).filter(ImageFilter.GaussianBlur(2)))
    _, said = run(pairs(tmp_path / "raw", [blob() * np.uint8(255), soft]), tmp_path)
    share = int((soft[soft > 0] < 128).mean() * 100 + 0.5)
    assert "note: in 1 mask it matters where soft edges are cut: of the pixels that are not 0, more than 5% are" in said
    assert f"mask/1.png: {share}%" in said
