"""Photos and masks named as two folders: exports that brought their photos along, and the two the wrong way round."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.formats.two_folders import annotation_forms, exchanged
from maskwright.masks import masks as write_masks
from maskwright.prepare import prepare
from maskwright.settings import PrepareSettings

SIZE = (40, 60)


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Picture.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


def mask(path, value=255, box=(5, 5, 25, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(SIZE, dtype=np.uint8)
    array[box[1] : box[3], box[0] : box[2]] = value
    Picture.fromarray(array).save(path)
    return path


def refused(*folders, out, **said):
    with pytest.raises(UserError) as caught:
        prepare(*folders, out=out, **said)
    assert not Path(out).exists()
    return str(caught.value)


@pytest.fixture
def data(tmp_path):
    """A data folder of four photos with an object each, a ring."""
    ring = np.zeros(SIZE, dtype=bool)
    ring[5:30, 5:30], ring[10:20, 10:20] = True, False
    images = [Image(n, f"{n}.png", SIZE[1], SIZE[0]) for n in range(1, 5)]
    rows = [Annotation(n, n, 1 + n % 2, pixels.encode(np.roll(ring, 3 * n, axis=1))) for n in range(1, 5)]
    truth = Dataset.build([Category(1, "nut"), Category(2, "bolt")], images, rows)
    truth.write(tmp_path / "DATA" / "annotations" / "instances_train.json")
    for n in range(1, 5):
        photo(tmp_path / "DATA" / "train" / f"{n}.png", seed=n)
    return tmp_path / "DATA"


def objects(folder):
    found = Dataset.read(folder / "annotations" / "instances_train.json")
    names = {category.id: category.name for category in found.categories}
    files = {image.id: image.file_name for image in found.images}
    return sorted((files[a.image_id], names[a.category_id], a.rle) for a in found.annotations())


# ── an export that has its photos ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["yolo", "labelme"])
@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_an_export_with_its_photos_is_read_with_the_photos_of_the_first_folder(data, tmp_path, form, said, copied):
    write_masks(data / "annotations" / "instances_train.json", tmp_path / "export", form=form)
    if copied:  # not links any more, but the same bytes
        shutil.copytree(tmp_path / "export", tmp_path / "copy")
        shutil.rmtree(tmp_path / "export")
        (tmp_path / "copy").rename(tmp_path / "export")
    more = {"form": form} if said else {}
    made = prepare(data / "train", tmp_path / "export", tmp_path / "out", val_share=0, test_share=0, **more)
    assert made.form == form
    assert objects(tmp_path / "out") == objects(data)
    assert (tmp_path / "out" / "train" / "1.png").samefile(data / "train" / "1.png")
    assert sorted(item.path.name for item in made.skipped) == [f"{n}.png" for n in range(1, 5)]


def test_a_yolo_folder_is_known_though_its_photos_were_saved_anew(data, tmp_path):
    write_masks(data / "annotations" / "instances_train.json", tmp_path / "export", form="yolo")
    (tmp_path / "export" / "data.yaml").unlink()
    for n in range(1, 5):
        path = tmp_path / "export" / "images" / f"{n}.png"
        path.unlink()
        photo(path, seed=n + 10)
    made = prepare(data / "train", tmp_path / "export", tmp_path / "out", val_share=0, test_share=0)
    assert made.form == "yolo"
    assert [rle for _, _, rle in objects(tmp_path / "out")] == [rle for _, _, rle in objects(data)]


def test_a_prepared_folder_is_read_with_the_photos_that_it_was_made_of(data, tmp_path):
    shutil.copytree(data / "train", tmp_path / "photos")
    made = prepare(tmp_path / "photos", data, tmp_path / "out", resplit=True, val_share=0, test_share=0)
    assert made.form == "coco"
    assert objects(tmp_path / "out") == objects(data)


def test_a_form_that_is_said_is_looked_for_in_the_second_folder(data, tmp_path):
    mask(tmp_path / "masks" / "1.png")
    text = refused(data / "train", tmp_path / "masks", out=tmp_path / "out", form="yolo")
    assert text.startswith(f"there is no YOLO label file (.txt)\n  {tmp_path}/masks\n")


def test_mask_images_beside_annotation_files_stay_mask_images(data, tmp_path):
    write_masks(data / "annotations" / "instances_train.json", tmp_path / "export", form="labelme")
    for n in range(1, 5):
        (tmp_path / "export" / f"{n}.png").unlink()  # it is the photo itself
        mask(tmp_path / "export" / f"{n}.png")
    assert annotation_forms(tmp_path / "export", data / "train", None) == ()
    made = prepare(data / "train", tmp_path / "export", tmp_path / "out", form="folders", category="nut")
    assert (made.form, sum(made.objects.values())) == ("folders", 4)


def test_which_forms_are_looked_for(tmp_path):
    photo(tmp_path / "photos" / "a.png")
    mask(tmp_path / "masks" / "a.png")
    photo(tmp_path / "yolo" / "train" / "Images" / "a.png", seed=2)
    mask(tmp_path / "photos" / "inner" / "a.png", value=7)

    def forms(second, form=None):
        return annotation_forms(tmp_path / second, tmp_path / "photos", form)

    (tmp_path / "yolo" / "train" / "classes.txt").write_text("nut")
    assert (forms("masks"), forms("masks", "folders"), forms("masks", "via")) == ((), (), ("via",))
    assert (forms("yolo"), forms("yolo", "coco"), forms("nowhere")) == (("yolo",), ("coco",), ())
    assert forms("photos/inner", "labelme") == ()  # inside the first folder each form looks by its own rule
    shutil.copy(tmp_path / "photos" / "a.png", tmp_path / "masks" / "a.png")
    assert forms("masks") == ()  # there is no file that could be one of annotations
    (tmp_path / "masks" / "some.JSON").write_text("{}")
    assert forms("masks") == ("coco", "labelme", "via", "yolo", "cvat", "label-studio")


# ── the wrong way round ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [255, 1])
def test_photos_and_masks_that_are_exchanged_are_told(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        photo(Path(f"my base/rgb/{n}.png"), seed=n)
        mask(Path(f"my base/mask/{n}.png"), value)
    assert refused("my base/mask", "my base/rgb", out="DATA") == (
        "photos and masks look exchanged: the photos hold few values, and the masks are colourful pictures\n"
        f"  my base/mask: value {value} beside 0\n"
        "  my base/rgb: 2,400 colours\n"
        "fix: maskwright prepare 'my base/rgb' 'my base/mask' -o DATA; if they are not exchanged, say how the masks are"
        " stored: --coding, --colours or --form"
    )
    assert sum(prepare("my base/rgb", "my base/mask", "DATA").objects.values()) == 3


def test_who_says_how_exchanged_masks_are_stored_is_told_too(tmp_path):
    for n in range(3):
        photo(tmp_path / "rgb" / f"{n}.png", seed=n)
        mask(tmp_path / "mask" / f"{n}.png")
    text = refused(tmp_path / "mask", tmp_path / "rgb", out=tmp_path / "DATA", coding="ids")
    assert text.startswith("colour pictures with more than")
    assert "\nphotos and masks look exchanged: " in text
    made = prepare(tmp_path / "mask", tmp_path / "rgb", tmp_path / "DATA", coding="binary")
    assert [note for note in made.notes if note.startswith("photos and masks look exchanged")] == [
        "photos and masks look exchanged: the photos hold few values, and the masks are colourful pictures"
        f" ({tmp_path}/mask: value 255 beside 0; {tmp_path}/rgb: 2,400 colours)"
    ]
    right = prepare(tmp_path / "rgb", tmp_path / "mask", tmp_path / "RIGHT", coding="binary")
    assert not [note for note in right.notes if "exchanged" in note]


def test_what_is_not_exchanged_is_not_said_to_be(tmp_path):
    def told(first, second):
        return exchanged(tmp_path / first, PrepareSettings.parse({"masks": str(tmp_path / second)}))

    photo(tmp_path / "rgb" / "a.png")
    mask(tmp_path / "mask" / "a.png")
    mask(tmp_path / "black" / "a.png", value=0)
    grey = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 200
    for name, array in (("grey", grey), ("ids", grey % 8), ("many ids", grey % 10)):
        (tmp_path / name).mkdir()
        Picture.fromarray(array.astype(np.uint8)).save(tmp_path / name / "a.png")
    coloured = np.zeros((*SIZE, 3), dtype=np.uint8)
    coloured[:, 5:], coloured[:, 20:] = (255, 0, 0), (0, 255, 0)
    (tmp_path / "colours").mkdir()
    Picture.fromarray(coloured).save(tmp_path / "colours" / "a.png")
    mask(tmp_path / "rgb" / "inner" / "a.png")
    assert told("mask", "rgb/inner") is None
    shutil.rmtree(tmp_path / "rgb" / "inner")
    assert told("mask", "rgb") is not None
    assert told("ids", "rgb") is not None
    for first, second in (
        ("rgb", "mask"),
        ("rgb", "rgb"),
        ("grey", "rgb"),  # a grey photo
        ("many ids", "rgb"),
        ("black", "rgb"),
        ("mask", "colours"),
        ("mask", "grey"),
        ("mask", "nowhere"),
        ("nowhere", "rgb"),
    ):
        assert told(first, second) is None, (first, second)
    (tmp_path / "rgb" / "b.png").write_bytes(b"no picture")
    assert told("mask", "rgb") is None
