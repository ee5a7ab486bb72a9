"""Masks that were drawn on photos as stored lie over the upright photos, pixel for pixel, whatever the form."""

import base64
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Picture
from PIL import ImageOps

from fuzz_world import INPUTS, write_form
from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.files import read_photo
from maskwright.masks import masks
from maskwright.prepare import prepare
from maskwright.rows import TURNED

ORIENTATIONS = range(1, 9)
BACK = {6: 8, 8: 6}  # every other orientation undoes itself
ALL_TRAIN = {"val_share": 0, "test_share": 0, "near_duplicates": False}


def shown(array, orientation):
    """Return a stored picture as Pillow shows it."""
    image = Picture.fromarray(np.ascontiguousarray(array).astype(np.uint8))
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image)).astype(array.dtype)


def stored(array, orientation):
    """Return a picture as a camera stores it that is shown as this one."""
    return shown(array, BACK.get(orientation, orientation))


def tagged(content, orientation):
    """Return a JPEG file with an EXIF orientation put behind its head, its pixels as they were."""
    assert content[:4] == b"\xff\xd8\xff\xe0"
    end = 4 + int.from_bytes(content[4:6])
    exif = Picture.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes()
    return content[:end] + b"\xff\xe1" + (len(data) + 2).to_bytes(2) + data + content[end:]


def jpeg(array, orientation=1):
    file = io.BytesIO()
    Picture.fromarray(array.astype(np.uint8)).save(file, "JPEG", quality=95)
    return tagged(file.getvalue(), orientation)


def objects_of(made):
    """Return the size of each photo with its objects: category, crowd and the mask's bytes."""
    data = made.split("train")
    found = {image.file_name: (image.size, []) for image in data.images}
    for k, one in enumerate(data.annotations()):
        image = data.images[int(data.image_index[k])]
        found[image.file_name][1].append((one.category_id, one.crowd, data.mask(k).tobytes()))
    return {name: (size, sorted(objects)) for name, (size, objects) in found.items()}


# ── the laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in INPUTS if name != "folders, splits"])
def test_every_form_is_turned_after_it_was_read_on_the_stored_photo(name, tmp_path):
    """Law: what is read of photos without a tag, turned as Pillow turns the photos, is what is read of them with one.

    So polygons, ellipses and percents are drawn by the form's own rule on the frame in which they were drawn.
    """
    write, said = INPUTS[name]
    write(tmp_path / "raw")
    plain = prepare(tmp_path / "raw", out=tmp_path / "plain", **said, **ALL_TRAIN)
    expected = objects_of(plain)
    before = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.suffix in {".jpg", ".json"}}
    for number, turns in enumerate([(1, 2, 3), (4, 5, 6), (7, 8, 1)]):
        of = dict(zip(sorted(expected), turns, strict=True))
        for path, content in before.items():
            orientation = of.get(path.name, of.get(f"{path.stem}.jpg"))
            if path.suffix == ".jpg":
                path.write_bytes(tagged(content, orientation))
            elif b'"imageData": "' in content:
                document = json.loads(content)
                photo = tagged(base64.b64decode(document["imageData"]), orientation)
                path.write_text(json.dumps({**document, "imageData": base64.b64encode(photo).decode()}))
        made = prepare(tmp_path / "raw", out=tmp_path / f"data{number}", mask_frame="stored", **said, **ALL_TRAIN)
        for photo, (size, objects) in objects_of(made).items():
            old, marks = expected[photo]
            assert size == shown(np.zeros(old, dtype=bool), of[photo]).shape
            turned = [(c, crowd, np.frombuffer(mask, dtype=bool).reshape(old)) for c, crowd, mask in marks]
            assert objects == sorted((c, crowd, shown(mask, of[photo]).tobytes()) for c, crowd, mask in turned)
        (mend,) = [mend for mend in made.mends if mend.what == TURNED]
        assert mend.count == sum(orientation != 1 for orientation in turns)


SCENE = hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(4, 12), st.integers(4, 12)))


def world(scenes, folder, camera):
    """Write a photo with its upright objects for each orientation; `camera`: as it stores them, with the tag."""
    images, annotations = [], []
    folder.mkdir(parents=True)
    for number, (orientation, upright) in enumerate(zip(ORIENTATIONS, scenes, strict=True), 1):
        many = [stored(mask, orientation) if camera else mask for mask in upright]
        height, width = many[0].shape
        name = f"p{orientation}.jpg"
        noise = np.random.default_rng(number).integers(0, 255, (height, width, 3))
        (folder / name).write_bytes(jpeg(noise, orientation if camera else 1))
        images.append(Image(number, name, width, height))
        for k, mask in enumerate(many):
            if mask.any():
                annotations.append(Annotation(len(annotations) + 1, number, k % 2 + 1, pixels.encode(mask)))
    return Dataset.build([Category(1, "bolt"), Category(2, "nut")], images, annotations)


def write_coco(data, photos, root):
    root.mkdir()
    for path in photos.iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    data.write(root / "instances.json")


@pytest.mark.parametrize("form", ["instances", "coco", "polygons", "labelme", "yolo"])
@settings(max_examples=8)
@given(scenes=st.lists(SCENE.filter(lambda scene: scene[0].any()), min_size=8, max_size=8))
def test_masks_drawn_on_stored_photos_are_those_drawn_on_upright_ones(form, scenes):
    """Law: for all orientations, in mask images, RLE, and polygons that follow the pixels' edges, nothing differs."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        found = {}
        for frame in ("upright", "stored"):
            photos, raw, data = work / f"{frame}-photos", work / f"{frame}-raw", work / f"{frame}-data"
            truth = world(scenes, photos, frame == "stored")
            if form == "coco":
                write_coco(truth, photos, raw)
            else:
                write_form(form, truth, photos, raw)
            found[frame] = objects_of(prepare(raw, out=data, mask_frame=frame, **ALL_TRAIN))
        assert found["stored"] == found["upright"]
        assert sum(len(objects) for _, objects in found["upright"].values()) == len(truth)


@settings(max_examples=8)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(2, 12), st.integers(2, 12))).filter(np.any))
def test_round_trip(mask):
    """Law: masks drawn on stored photos, prepared, written and prepared again are the same as drawn upright."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = world([mask[None]] * 8, work / "photos", camera=True)
        write_form("instances", data, work / "photos", work / "raw")
        once = prepare(work / "raw", out=work / "data", mask_frame="stored", **ALL_TRAIN)
        masks(work / "data/annotations/instances_train.json", work / "back", form="instances")
        again = prepare(work / "data/train", work / "back", out=work / "again", **ALL_TRAIN)
        assert objects_of(again) == objects_of(once)
        assert {m for _, objects in objects_of(once).values() for _, _, m in objects} == {mask.tobytes()}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_lie_over_what_the_photo_shows(tmp_path, orientation):
    mask = np.zeros((48, 64), dtype=bool)
    mask[8:24, 8:16] = mask[16:24, 8:40] = True
    for folder, content in (("rgb", jpeg(255 * mask, orientation)), ("mask", png(mask))):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / f"a.{'jpg' if folder == 'rgb' else 'png'}").write_bytes(content)
    data = prepare(tmp_path / "raw", out=tmp_path / "data", mask_frame="stored", **ALL_TRAIN).split("train")
    photo, found = read_photo(data.photo_path(data.images[0])), data.mask(0)
    assert photo.shape[:2] == found.shape
    assert photo[found].min() > 200
    assert photo[~found].max() < 55


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def png(mask, orientation=None):
    file = io.BytesIO()
    exif = Picture.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Picture.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(file, "PNG", exif=exif)
    return file.getvalue()


def one(root, orientation, mask, tag=None):
    """Write a photo of 60 x 40 as stored, and its mask."""
    for folder, name, content in (
        ("rgb", "a.jpg", jpeg(np.full((40, 60, 3), 90), orientation)),
        ("mask", "a.png", png(mask, tag)),
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / name).write_bytes(content)
    return root


def refusal(root):
    """Return what is said of masks that cannot be of the stored frame."""
    with pytest.raises(UserError) as caught:
        prepare(root, out=root.parent / "data", mask_frame="stored", **ALL_TRAIN)
    return str(caught.value).replace(f"{root}/", "")


def block(height=40, width=60):
    mask = np.zeros((height, width), dtype=bool)
    mask[2:12, 3:9] = True
    mask[20:25, 3:9] = True
    return mask


def test_what_was_turned_is_counted_printed_and_stored(tmp_path):
    said = []
    root = one(tmp_path / "raw", 6, block())
    made = prepare(root, out=tmp_path / "data", mask_frame="stored", say=said.append, **ALL_TRAIN)
    turned = "photos whose masks were drawn on the stored photo (--mask-frame stored), turned upright with it"
    assert f"mended: {turned}: 1 (a.jpg)" in said
    assert not [line for line in said if "look at one of them" in line or "turned nothing" in line]
    story = json.loads((tmp_path / "data/prepare.json").read_text())
    assert {"what": TURNED, "count": 1, "examples": ["a.jpg"]} in story["mends"]
    assert story["settings"]["mask_frame"] == "stored"
    assert [(f["width"], f["height"]) for f in story["files"] if f.get("kind") == "photo"] == [(40, 60)]
    assert made.split("train").images[0].size == (60, 40)


def test_photos_without_an_orientation_are_as_ever_and_that_is_said(tmp_path):
    root = one(tmp_path / "raw", 1, block())
    made = [prepare(root, out=tmp_path / f, mask_frame=f, **ALL_TRAIN) for f in ("upright", "stored")]
    assert objects_of(made[0]) == objects_of(made[1])
    note = "no photo with objects has an EXIF orientation, so --mask-frame stored turned nothing"
    assert [note in one.notes for one in made] == [False, True]


def test_parts_of_turned_masks_are_objects(tmp_path):
    root = one(tmp_path / "raw", 8, block())
    data = prepare(root, out=tmp_path / "data", mask_frame="stored", parts="separate", **ALL_TRAIN).split("train")
    assert len(data) == 2
    np.testing.assert_array_equal(data.mask(0) | data.mask(1), np.rot90(block()))


def test_a_mask_in_the_upright_frame_is_refused(tmp_path):
    assert refusal(one(tmp_path / "raw", 6, block(60, 40))) == (
        "1 mask image fits the photo as it is shown, not as the camera stored it, which --mask-frame stored says\n"
        "  mask/a.png is 40 x 60, rgb/a.jpg is 60 x 40 as stored and 40 x 60 when shown (EXIF orientation 6)\n"
        "fix: leave out --mask-frame stored; where it holds for other masks, prepare those apart"
    )


def test_a_coco_file_of_the_upright_photo_is_refused(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg(np.full((40, 60, 3), 90), 8))
    image, mask = Image(1, "a.jpg", 40, 60), Annotation(1, 1, 1, pixels.encode(block(60, 40)))
    Dataset.build([Category(1, "nut")], [image], [mask]).write(root / "instances.json")
    said = refusal(root)
    assert "1 photo was marked as it is shown, not as the camera stored it" in said
    assert "a.jpg is 40 x 60 in the file, the photo 60 x 40 as stored and 40 x 60 when shown" in said


def test_a_mask_that_has_an_orientation_of_its_own_is_not_turned_twice(tmp_path):
    root = one(tmp_path / "raw", 3, block(), tag=3)
    assert refusal(root) == (
        "mask images have an EXIF orientation of their own, and --mask-frame stored would turn them twice\n"
        "  mask/a.png: orientation 3\n"
        "fix: if these masks are shown as their photos are: leave out --mask-frame stored; else save them without it"
    )
    data = prepare(root, out=tmp_path / "data", **ALL_TRAIN).split("train")
    np.testing.assert_array_equal(data.mask(0), block()[::-1, ::-1])


def test_where_nothing_tells_the_frame_the_note_names_the_option(tmp_path):
    root = one(tmp_path / "raw", 3, block())
    made = prepare(root, out=tmp_path / "data", **ALL_TRAIN)
    (note,) = [note for note in made.notes if "upright" in note]
    assert note.endswith("look at one of them; if they were drawn on it as stored: --mask-frame stored")
    np.testing.assert_array_equal(made.split("train").mask(0), block())
