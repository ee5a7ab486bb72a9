"""Laws that join several stages: whatever the masks are, nothing is lost on the way."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from fuzz_world import write_form
from maskwright import pixels
from maskwright.check import facts_of
from maskwright.dataset import SPLITS, Annotation, Category, Dataset, Image
from maskwright.masks import masks
from maskwright.prepare import prepare

SHARED = Path(__file__).parents[2] / "shared"
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def shape(kind, size=(23, 31)):
    """Masks that have broken codecs before."""
    mask = np.zeros(size, dtype=bool)
    if kind == "ring":
        mask[3:20, 5:25] = True
        mask[8:14, 10:18] = False
        mask[10, 13] = True  # an island in the hole
    elif kind == "pixel":
        mask[7, 9] = True
    elif kind == "corners":
        mask[0, 0] = mask[0, -1] = mask[-1, 0] = mask[-1, -1] = True
    elif kind == "border":
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = True, True, True, True
    elif kind == "full":
        mask[:] = True
    elif kind == "diagonal":
        mask[np.arange(23), np.arange(23)] = True
    elif kind == "chess":
        mask[::2, 1::2] = mask[1::2, ::2] = True
    elif kind == "line":
        mask[:, 15] = True
    return mask


KINDS = ["ring", "pixel", "corners", "border", "full", "diagonal", "chess", "line", "empty"]


def draw(folder, named):
    """Write photos of noise in `rgb` and their masks, 0 and 255, in `mask`."""
    rng = np.random.default_rng(len(named))
    for kind in ("rgb", "mask"):
        (folder / kind).mkdir(parents=True)
    for name, mask in named.items():
        photo = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        PillowImage.fromarray(photo).save(folder / "rgb" / f"{name}.png")
        PillowImage.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / "mask" / f"{name}.png")


def back(data, work):
    """Write the mask images of every split of a data folder; return them by photo stem."""
    found = {}
    for split in SPLITS:
        file = data / "annotations" / f"instances_{split}.json"
        if not file.is_file():
            continue
        masks(file, work / split)
        for path in (work / split).rglob("*.png"):
            with PillowImage.open(path) as image:
                assert image.mode == "L"
                assert path.stem not in found
                found[path.stem] = np.array(image)
    return found


def assert_identity(named, found):
    assert sorted(found) == sorted(named)
    for name, mask in named.items():
        np.testing.assert_array_equal(found[name], np.where(mask, 255, 0), err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.lists(MASKS, min_size=1, max_size=4).filter(lambda many: any(m.any() for m in many)))
@example([shape(kind) for kind in KINDS])
@example([np.ones((1, 1), dtype=bool)])
@example([np.ones((1, 1), dtype=bool), np.zeros((1, 1), dtype=bool)])
def test_prepare_then_masks_is_the_identity(many):
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        named = {f"p{n}": mask for n, mask in enumerate(many)}
        draw(work / "raw", named)
        prepare(work / "raw", out=work / "data", val_share=0, test_share=0)
        assert_identity(named, back(work / "data", work / "back"))


def test_prepare_then_masks_is_the_identity_over_splits_that_exist(tmp_path):
    named = {f"{kind} {split}": shape(kind) for kind in KINDS for split in ("train", "validate", "test")}
    for split in ("train", "validate", "test"):
        draw(tmp_path / "raw" / f"hammer_{split}", {n: m for n, m in named.items() if n.endswith(split)})
    prepare(tmp_path / "raw", out=tmp_path / "data")
    found = back(tmp_path / "data", tmp_path / "back")
    assert_identity(named, found)
    assert len(found) == 3 * len(KINDS)


def test_prepare_then_masks_is_the_identity_over_splits_that_are_made(tmp_path):
    named = {f"größe {n}": shape(KINDS[n % len(KINDS)]) for n in range(40)}
    draw(tmp_path / "raw", named)
    prepare(tmp_path / "raw", out=tmp_path / "data")
    assert_identity(named, back(tmp_path / "data", tmp_path / "back"))
    assert Dataset.read_split(tmp_path / "data", "train") is not None


def test_prepare_reads_what_masks_writes(tmp_path):
    named = {f"p{n}": shape(kind) for n, kind in enumerate(KINDS)}
    draw(tmp_path / "raw", named)
    prepare(tmp_path / "raw", out=tmp_path / "one", val_share=0, test_share=0)
    back(tmp_path / "one", tmp_path / "back")
    prepare(tmp_path / "raw" / "rgb", tmp_path / "back" / "train", out=tmp_path / "two", val_share=0, test_share=0)
    one, two = (Dataset.read_split(tmp_path / name, "train") for name in ("one", "two"))
    assert [i.file_name for i in one.images] == [i.file_name for i in two.images]
    assert one.rle_bytes.tobytes() == two.rle_bytes.tobytes()
    assert len(one) == len(KINDS) - 1


@pytest.mark.shared
def test_prepare_then_masks_is_the_identity_on_real_photos(tmp_path):
    source = SHARED / "data" / "hammer" / "hammer_validate"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    prepare(source.parent, out=tmp_path / "data")
    found = back(tmp_path / "data", tmp_path / "back")
    for path in sorted((source / "mask").glob("*.png")):
        with PillowImage.open(path) as image:
            expected = np.array(image.convert("L"))
        np.testing.assert_array_equal(found[path.stem], np.where(expected > 127, 255, 0), err_msg=path.name)
    assert len(found) == 244 + 64


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))))
def test_instances_hold_each_object_whole_and_ids_hold_their_union(many):
    size = many.shape[1:]
    data = Dataset.build(
        [Category(1, "a")],
        [Image(1, "p.jpg", size[1], size[0])],
        [Annotation(n + 1, 1, 1, pixels.encode(mask)) for n, mask in enumerate(many)],
    )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data.write(work / "d.json")
        masks(work / "d.json", work / "instances", form="instances")
        masks(work / "d.json", work / "ids", form="ids")
        for n, mask in enumerate(many, start=1):
            with PillowImage.open(work / "instances" / f"p_a_{n}.png") as image:
                np.testing.assert_array_equal(np.array(image) == 255, mask)
        with PillowImage.open(work / "ids" / "p.png") as image:
            np.testing.assert_array_equal(np.array(image) > 0, many.any(axis=0))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 10), st.integers(1, 10))))
def test_facts_do_not_change_when_photos_are_mirrored_or_turned(many):
    def facts(masks_):
        size = masks_.shape[1:]
        data = Dataset.build(
            [Category(1, "a")],
            [Image(1, "p.jpg", size[1], size[0])],
            [Annotation(n + 1, 1, 1, pixels.encode(mask)) for n, mask in enumerate(masks_)],
        )
        dumped = (
            facts_of({"train": data})
            .splits["train"]
            .model_dump(exclude={"sizes", "smallest", "median", "largest", "axis_spread", "elongation"})
        )
        return dumped

    upright = facts(many)
    for turned in (many[:, ::-1], many[:, :, ::-1], many.transpose(0, 2, 1), np.rot90(many, axes=(1, 2))):
        assert facts(turned) == upright


# ── every form that is written is read, pixel for pixel ──────────────────────────────────────────────────────────────

SEVERAL = ["categories", "instances", "ids", "category-folders", "instance-folders", "voc", "colours", "cityscapes",
           "polygons", "yolo", "labelme"]  # fmt: skip
"""Forms that hold several objects in a photo; `categories` makes one of those of a category."""


def scene(*kinds):
    """Return the objects of one photo, `(category, mask)`, none over another."""
    free = np.ones((23, 31), dtype=bool)
    objects = []
    for n, kind in enumerate(kinds):
        mask = shape(kind) & free
        if mask.any():
            free &= ~mask
            objects.append((n % 2 + 1, mask))
    return objects


def world_of(scenes, folder, categories=("bolt", "nut")):
    """Save a photo for each scene, and return the dataset."""
    images, annotations = [], []
    for n, objects in enumerate(scenes, 1):
        noise = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        PillowImage.fromarray(noise).resize((31, 23), PillowImage.Resampling.BICUBIC).save(folder / f"p{n}.jpg")
        images.append(Image(n, f"p{n}.jpg", 31, 23))
        for category, mask in objects:
            known = min(category, len(categories))
            annotations.append(Annotation(len(annotations) + 1, n, known, pixels.encode(mask)))
    return Dataset.build([Category(n, name) for n, name in enumerate(categories, 1)], images, annotations)


def objects_of(made):
    """Return the objects of every photo over all splits: `{file name: {(category, RLE), ...}}`."""
    found = {}
    for split in made.photos:
        data = made.split(split)
        names = {category.id: category.name for category in data.categories}
        for n, image in enumerate(data.images):
            rows = range(data.first[n], data.first[n + 1])
            found[image.file_name] = sorted((names[int(data.category_ids[k])], data.rle(k)) for k in rows)
    return found


def expected(data):
    names = {category.id: category.name for category in data.categories}
    return {
        image.file_name: sorted((names[a.category_id], a.rle) for a in data.annotations() if a.image_id == image.id)
        for image in data.images
    }


def comes_back(form, data, folder, raw, out, **said):
    """Write a dataset in a form, prepare it, and hold the objects against each other."""
    write_form(form, data, folder, raw)
    made = prepare(raw, out=out, **said)
    assert objects_of(made) == expected(data)
    return made


@pytest.mark.parametrize("form", SEVERAL)
def test_every_form_comes_back_pixel_for_pixel(form, tmp_path):
    """Law: rings, parts, single pixels and lines, touching objects, borders and full masks: IoU exactly 1."""
    scenes = [scene("ring", "line"), scene("corners", "pixel"), scene("border", "diagonal"), scene("full")]
    scenes += [scene("pixel", "border", "ring")] if form not in {"categories", "ids"} else []
    categories = ("nut",) if form == "ids" else ("bolt", "nut")
    if form == "categories":
        scenes, categories = [one[:1] for one in scenes], ("nut",)
    (tmp_path / "photos").mkdir()
    data = world_of(scenes, tmp_path / "photos", categories)
    said = {"category": "nut"} if len(categories) == 1 else {}
    said |= {"coding": "ids"} if form == "ids" else {}
    comes_back(form, data, tmp_path / "photos", tmp_path / "raw", tmp_path / "out", **said)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
def test_trimaps_and_single_masks_come_back_pixel_for_pixel(kind, tmp_path):
    for form in ("trimap", "categories"):
        folder = tmp_path / form
        (folder / "photos").mkdir(parents=True)
        data = world_of([scene(kind), scene("ring")], folder / "photos", ("pet",))
        comes_back(form, data, folder / "photos", folder / "raw", folder / "out", category="pet")


@given(st.lists(hnp.arrays(np.bool_, (23, 31), elements=st.booleans(), fill=st.just(False)), min_size=1, max_size=2))
@settings(max_examples=15)
@pytest.mark.parametrize("form", ["polygons", "yolo", "labelme", "colours", "voc", "instance-folders"])
def test_any_masks_come_back(form, masks):
    """Law: the same for masks of any pixels."""
    scenes = [[(n % 2 + 1, mask)] for n, mask in enumerate(masks) if mask.any()]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "photos").mkdir()
        data = world_of([scene("ring"), scene("border"), *scenes], place / "photos")
        comes_back(form, data, place / "photos", place / "raw", place / "out")


def test_the_same_photos_in_two_forms_give_the_same_objects(tmp_path):
    """Law: whichever tool the masks come from, the dataset is the same."""
    (tmp_path / "photos").mkdir()
    data = world_of([scene("ring", "line"), scene("border", "pixel"), scene("corners")], tmp_path / "photos")
    made = {}
    for form in ("polygons", "yolo", "labelme", "voc", "cityscapes", "instance-folders"):
        write_form(form, data, tmp_path / "photos", tmp_path / form)
        made[form] = objects_of(prepare(tmp_path / form, out=tmp_path / f"{form}-data"))
    assert all(objects == expected(data) for objects in made.values())
