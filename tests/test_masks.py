import errno
import json
import os
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

import maskwright as mw
from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.masks import MasksWritten, masks, safe_name, write_mask_images
from maskwright.writing import write_shards

SIZE = (12, 16)
HAMMER = Category(1, "hammer")
NUT = Category(2, "nut")


def block(y1, x1, y2, x2, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


LEFT = block(2, 1, 8, 7)  # 36 pixels
RIGHT = block(4, 5, 10, 14)  # 54 pixels, 8 of them shared with LEFT
SMALL = block(0, 15, 1, 16)


def dataset(*objects, names=("a.jpg",), categories=(HAMMER,), size=SIZE):
    """Objects are (photo, category, mask, score or None, crowd)."""
    images = [Image(n + 1, name, size[1], size[0]) for n, name in enumerate(names)]
    annotations = [
        Annotation(n + 10, photo, category, pixels.encode(mask), crowd=crowd, score=score)
        for n, (photo, category, mask, score, crowd) in enumerate(objects)
    ]
    return Dataset.build(categories, images, annotations)


def truth(photo, category, mask):
    return (photo, category, mask, None, False)


def read(path):
    with PillowImage.open(path) as image:
        return np.array(image), image.mode


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# categories


def test_one_category_gives_one_image_per_photo_black_ones_too(tmp_path):
    data = dataset(truth(1, 1, LEFT), truth(1, 1, RIGHT), names=("a.jpg", "b.jpg"))
    written = write_mask_images(data, tmp_path)
    assert written == MasksWritten(images=2, objects=2, shared_pixels=8)
    assert files_of(tmp_path) == ["a.png", "b.png"]
    values, mode = read(tmp_path / "a.png")
    assert mode == "L"
    np.testing.assert_array_equal(values, np.where(LEFT | RIGHT, 255, 0))
    assert read(tmp_path / "b.png")[0].max() == 0


def test_several_categories_give_one_image_for_each_that_the_photo_has(tmp_path):
    data = dataset(
        truth(1, 1, LEFT),
        truth(1, 2, RIGHT),
        truth(2, 2, SMALL),
        names=("a.jpg", "b.jpg", "c.jpg"),
        categories=(HAMMER, NUT),
    )
    written = write_mask_images(data, tmp_path)
    assert files_of(tmp_path) == ["a_hammer.png", "a_nut.png", "b_nut.png"]
    assert written == MasksWritten(images=3, objects=3, bare_photos=1)
    np.testing.assert_array_equal(read(tmp_path / "a_nut.png")[0] > 0, RIGHT)


def test_only_the_named_categories_are_drawn(tmp_path):
    data = dataset(truth(1, 1, LEFT), truth(1, 2, RIGHT), categories=(HAMMER, NUT))
    assert write_mask_images(data, tmp_path, "categories", [NUT]).objects == 1
    assert files_of(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0] > 0, RIGHT)


def test_crowds_are_drawn_by_category_and_left_out_elsewhere(tmp_path):
    data = dataset(truth(1, 1, LEFT), (1, 1, RIGHT, None, True))
    write_mask_images(data, tmp_path / "c")
    np.testing.assert_array_equal(read(tmp_path / "c" / "a.png")[0] > 0, LEFT | RIGHT)
    for form in ("instances", "ids"):
        written = write_mask_images(data, tmp_path / form, form)
        assert (written.crowds, written.objects) == (1, 1)


# instances


def test_instances_are_whole_and_numbered_within_photo_and_category(tmp_path):
    data = dataset(
        truth(1, 1, LEFT),
        truth(1, 2, SMALL),
        truth(1, 1, RIGHT),
        truth(2, 1, LEFT),
        names=("a.jpg", "b.jpg", "c.jpg"),
        categories=(HAMMER, NUT),
    )
    written = write_mask_images(data, tmp_path, "instances")
    assert files_of(tmp_path) == ["a_hammer_1.png", "a_hammer_2.png", "a_nut_1.png", "b_hammer_1.png"]
    assert written == MasksWritten(images=4, objects=4, bare_photos=1)
    values, mode = read(tmp_path / "a_hammer_2.png")
    assert mode == "L"
    np.testing.assert_array_equal(values, np.where(RIGHT, 255, 0))


# ids


def test_ids_of_truth_put_the_smaller_object_on_top(tmp_path):
    data = dataset(truth(1, 1, LEFT), truth(1, 1, RIGHT), names=("a.jpg", "b.jpg"))
    written = write_mask_images(data, tmp_path, "ids")
    assert written == MasksWritten(images=2, objects=2, shared_pixels=8)
    values, mode = read(tmp_path / "a.png")
    assert mode == "I;16"
    expected = np.where(LEFT, 1, np.where(RIGHT, 2, 0))
    np.testing.assert_array_equal(values, expected)
    assert read(tmp_path / "b.png")[0].max() == 0
    assert json.loads((tmp_path / "ids.json").read_text()) == {
        "a.png": {
            "1": {"category": "hammer", "score": None, "annotation": 10},
            "2": {"category": "hammer", "score": None, "annotation": 11},
        },
        "b.png": {},
    }


def test_ids_of_detections_put_the_highest_score_on_top(tmp_path):
    data = dataset((1, 1, LEFT, 0.5, False), (1, 1, RIGHT, 0.75, False))
    write_mask_images(data, tmp_path, "ids")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], np.where(RIGHT, 2, np.where(LEFT, 1, 0)))
    assert json.loads((tmp_path / "ids.json").read_text())["a.png"]["2"]["score"] == 0.75


def test_objects_that_others_hide_wholly_are_counted(tmp_path):
    inner = block(3, 2, 5, 4)
    data = dataset((1, 1, LEFT, 0.9, False), (1, 1, inner, 0.2, False))
    written = write_mask_images(data, tmp_path, "ids")
    assert (written.hidden_objects, written.shared_pixels) == (1, 4)


def test_ids_go_beyond_8_bits(tmp_path):
    size = (20, 20)
    masks = [block(y, x, y + 1, x + 1, size) for y in range(20) for x in range(20)]
    write_mask_images(dataset(*(truth(1, 1, m) for m in masks), size=size), tmp_path, "ids")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0].ravel(), np.arange(1, 401))


def test_more_objects_than_16_bits_can_number_are_refused(tmp_path):
    data = dataset(*([truth(1, 1, SMALL)] * 65_536))
    with pytest.raises(UserError) as caught:
        write_mask_images(data, tmp_path, "ids")
    assert str(caught.value) == (
        "a 16-bit id image can number 65,535 objects, and photos have more\n"
        "  a.jpg: 65,536 objects\n"
        "fix: use: --form instances"
    )
    assert files_of(tmp_path) == []


@given(st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=4), st.booleans())
def test_ids_hold_the_union_and_only_own_pixels(tmp_path_factory, bits, scored):
    masks = [np.array(b).reshape(4, 5) for b in bits]
    folder = tmp_path_factory.mktemp("ids")
    objects = [(1, 1, m, 0.1 * n if scored else None, False) for n, m in enumerate(masks)]
    written = write_mask_images(dataset(*objects, size=(4, 5)), folder, "ids")
    values, _ = read(folder / "a.png")
    np.testing.assert_array_equal(values > 0, np.any(masks, axis=0))
    assert written.shared_pixels == (np.sum(masks, axis=0) > 1).sum()
    for n, mask in enumerate(masks, start=1):
        assert not (values == n)[~mask].any()


# Names


def test_subfolders_are_kept(tmp_path):
    write_mask_images(dataset(truth(1, 1, LEFT), names=("x/1.jpg", "y/1.jpg")), tmp_path)
    assert files_of(tmp_path) == ["x/1.png", "y/1.png"]
    assert read(tmp_path / "x" / "1.png")[0].max() == 255
    assert read(tmp_path / "y" / "1.png")[0].max() == 0


def test_photos_of_one_stem_keep_their_whole_names(tmp_path):
    write_mask_images(dataset(truth(1, 1, LEFT), names=("a.jpg", "a.png", "b.v2.jpg")), tmp_path)
    assert files_of(tmp_path) == ["a.jpg.png", "a.png.png", "b.v2.png"]
    assert read(tmp_path / "a.jpg.png")[0].max() == 255


def test_stem_and_category_that_read_alike_do_not_collide(tmp_path):
    data = dataset(
        truth(1, 1, LEFT),
        truth(2, 2, RIGHT),
        names=("a.jpg", "a_b.jpg"),
        categories=(Category(1, "b_c"), Category(2, "c")),
    )
    write_mask_images(data, tmp_path)
    assert files_of(tmp_path) == ["a.jpg_b_c.png", "a_b.jpg_c.png"]


def test_images_that_would_share_a_name_all_the_same_are_refused(tmp_path):
    data = dataset(truth(1, 1, LEFT), truth(1, 2, RIGHT), categories=(Category(1, "nut"), Category(2, "nut")))
    with pytest.raises(UserError) as caught:
        write_mask_images(data, tmp_path)
    assert str(caught.value) == (
        "several mask images would have the same name\n  a_nut.png\nfix: rename these photos or categories"
    )


def test_a_photo_listed_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"photos are listed more than once\n  a.jpg\nfix: list each photo once"):
        write_mask_images(dataset(truth(1, 1, LEFT), names=("a.jpg", "a.jpg")), tmp_path)
    assert files_of(tmp_path) == []


def test_names_that_lead_outside_are_refused_before_anything_is_written(tmp_path):
    data = dataset(truth(1, 1, LEFT), names=("a.jpg", "../../b.jpg", "/c.jpg"))
    with pytest.raises(UserError) as caught:
        write_mask_images(data, tmp_path)
    assert str(caught.value) == (
        "file names in a data file must stay inside its folder\n"
        "  file_name '../../b.jpg'\n"
        "  file_name '/c.jpg'\n"
        "fix: make the names relative to the photo folder, without '..'"
    )
    assert files_of(tmp_path) == []


@given(st.text(st.characters(codec="utf-8")))
def test_safe_names_are_safe_and_reversible(name):
    safe = safe_name(name)
    assert unquote(safe) == name
    assert not set(safe) & set('/\\:*?"<>|\0\n')


@pytest.mark.parametrize("name", ["nut/bolt", "../../etc", "50%", "Größe 1", "a:b", ".."])
def test_any_category_name_makes_a_file_inside_the_folder(tmp_path, name):
    data = dataset(truth(1, 1, LEFT), categories=(Category(1, name), NUT))
    write_mask_images(data, tmp_path / "out")
    assert files_of(tmp_path) == [f"out/a_{safe_name(name)}.png"]


def test_non_ascii_and_spaced_photo_names(tmp_path):
    write_mask_images(dataset(truth(1, 1, LEFT), names=("ein Ordner/Größe 1 (2).JPG",)), tmp_path)
    assert files_of(tmp_path) == ["ein Ordner/Größe 1 (2).png"]


# Masks that are not there


def test_box_only_objects_are_left_out_and_counted(tmp_path):
    data = Dataset.build(
        [HAMMER],
        [Image(1, "a.jpg", 16, 12)],
        [Annotation(1, 1, 1, None, box=(0, 0, 4, 4)), Annotation(2, 1, 1, pixels.encode(LEFT))],
    )
    assert write_mask_images(data, tmp_path) == MasksWritten(images=1, objects=1, without_mask=1)


def test_boxes_alone_are_refused(tmp_path):
    data = Dataset.build([HAMMER], [Image(1, "a.jpg", 16, 12)], [Annotation(1, 1, 1, None, box=(0, 0, 4, 4))])
    with pytest.raises(UserError) as caught:
        write_mask_images(data, tmp_path)
    assert str(caught.value) == (
        "no object of the file has a mask; boxes alone cannot be drawn\n"
        "  boxes without a mask: 1\n"
        "fix: write the file with its segmentations"
    )


def test_a_wrong_bbox_in_the_file_does_not_cut_the_mask(tmp_path):
    data = Dataset.build(
        [HAMMER],
        [Image(1, "a.jpg", 16, 12)],
        [Annotation(n, 1, 1, pixels.encode(m), box=(0, 0, 1, 1)) for n, m in enumerate((LEFT, RIGHT))],
    )
    write_mask_images(data, tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0] > 0, LEFT | RIGHT)


# The verb


def test_masks_of_a_file(tmp_path):
    dataset((1, 1, LEFT, 0.5, False), (1, 1, RIGHT, 0.75, False)).write(tmp_path / "d.json")
    said = []
    written = mw.masks(tmp_path / "d.json", str(tmp_path / "out"), form="ids", say=said.append)
    assert written.images == 1
    assert files_of(tmp_path / "out") == [".maskwright", "a.png", "ids.json"]
    assert said == [
        "1 mask image of 2 objects, form ids: one 16-bit image per photo; "
        "on top is the object with the highest score, in truth the smallest one",
        "8 pixels belong to several objects",
        f"wrote {tmp_path / 'out'}",
    ]


def test_masks_of_detections_from_a_score_on(tmp_path):
    dataset((1, 1, LEFT, 0.5, False), (1, 1, RIGHT, 0.75, False)).write(tmp_path / "d.json")
    assert mw.masks(tmp_path / "d.json", tmp_path / "out", score=0.75).objects == 1
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.png")[0] > 0, RIGHT)


def test_a_score_for_truth_is_refused(tmp_path):
    dataset(truth(1, 1, LEFT)).write(tmp_path / "d.json")
    with pytest.raises(UserError) as caught:
        mw.masks(tmp_path / "d.json", tmp_path / "out", score=0.5)
    assert str(caught.value) == (
        "a least score was given, and the file has no scores: it is truth, not detections\n"
        f"  {tmp_path / 'd.json'}\n"
        "fix: leave --score away"
    )


def test_shards_are_drawn_like_one_file(tmp_path):
    names = tuple(f"{n}.png" for n in range(3))
    whole = dataset(truth(1, 1, LEFT), truth(2, 1, RIGHT), truth(3, 1, SMALL), names=names)
    (tmp_path / "val").mkdir()
    for name in names:
        PillowImage.new("RGB", (SIZE[1], SIZE[0])).save(tmp_path / "val" / name)
    place = tmp_path / "annotations"
    write_shards(whole, place, "instances_val", 2)
    for number, path in enumerate((place, place / "instances_val.json", place / "instances_val-*.json")):
        out = tmp_path / f"out{number}"
        assert masks(path, out) == MasksWritten(images=3, objects=3)
        assert [int((read(out / name)[0] > 0).sum()) for name in names] == [36, 54, 1]
        masks(path, tmp_path / f"labelme{number}", form="labelme")
        label = json.loads((tmp_path / f"labelme{number}" / "0.json").read_text())
        assert label["imagePath"] == "0.png"
        assert os.path.samefile(tmp_path / f"labelme{number}" / "0.png", tmp_path / "val" / "0.png")
    assert masks(place / "instances_val-00001-of-00002.json", tmp_path / "one").objects == 1


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(UserError) as caught:
        mw.masks(tmp_path, tmp_path / "out")
    assert str(caught.value) == (
        f"a COCO file is needed, and this is a folder\n  {tmp_path}\n"
        "fix: name the file, for example DATA/annotations/instances_val.json or OUT/detections.json"
    )


def test_an_output_that_exists_is_kept_unless_told(tmp_path):
    dataset(truth(1, 1, LEFT)).write(tmp_path / "d.json")
    mw.masks(tmp_path / "d.json", tmp_path / "out")
    (tmp_path / "out" / "old.txt").touch()
    with pytest.raises(
        UserError, match=r"the output exists already\n  .*out\nfix: name another output, or: --overwrite"
    ):
        mw.masks(tmp_path / "d.json", tmp_path / "out")
    assert files_of(tmp_path / "out") == [".maskwright", "a.png", "old.txt"]
    mw.masks(tmp_path / "d.json", tmp_path / "out", overwrite=True)
    assert files_of(tmp_path / "out") == [".maskwright", "a.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_mask_images_that_masks_has_not_drawn_are_never_replaced(tmp_path, overwrite):
    """Somebody's own ones have the very names that it would write."""
    dataset(truth(1, 1, LEFT)).write(tmp_path / "d.json")
    (tmp_path / "out").mkdir()
    PillowImage.fromarray(np.where(LEFT, 255, 0).astype(np.uint8)).save(tmp_path / "out" / "a.png")
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"and is no former output of masks.*\n  .*out: a.png\nfix: name"):
        mw.masks(tmp_path / "d.json", tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before


def test_the_input_is_never_replaced(tmp_path):
    file = tmp_path / "own" / "d.json"
    dataset(truth(1, 1, LEFT)).write(file)
    with pytest.raises(UserError) as caught:
        mw.masks(file, file.parent, overwrite=True)
    assert str(caught.value) == (
        "the output must not be the input or hold it: replacing it would delete the input\n"
        f"  {file.parent} and {file}\nfix: name another output"
    )
    assert files_of(file.parent) == ["d.json"]


def test_no_way_of_naming_the_input_lets_it_or_its_photos_be_replaced(tmp_path, monkeypatch):
    data = tmp_path / "DATA"
    whole = dataset(truth(1, 1, LEFT), truth(2, 1, RIGHT), names=("0.png", "1.png"))
    write_shards(whole, data / "annotations", "instances_val", 1)
    (data / "val").mkdir()
    for name in ("0.png", "1.png"):
        PillowImage.new("RGB", (SIZE[1], SIZE[0])).save(data / "val" / name)
    before = files_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("DA*/annotations/instances_val-*.json", "DATA/annotations/instances_val.json", "DATA/annotations"):
        for out in ("DATA", "DATA/annotations", "DATA/val", "DATA/annotations/instances_val-00000-of-00002.json"):
            with pytest.raises(UserError, match="the output must not be the input or hold it"):
                mw.masks(name, out, overwrite=True)
            assert files_of(tmp_path) == before, (name, out)
    (data / "annotations" / "instances_val-00001-of-00002.json").unlink()
    with pytest.raises(UserError, match="shards of the dataset are missing"):
        mw.masks("DATA/annotations/instances_val.json", "out")


def test_an_unknown_setting_offers_the_nearest(tmp_path):
    with pytest.raises(UserError, match="  from; did you mean 'form'"):
        mw.masks(tmp_path / "d.json", tmp_path / "out", **{"from": "ids"})
    assert files_of(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    dataset(truth(1, 1, LEFT), names=("a.jpg", "b.jpg")).write(tmp_path / "d.json")
    save = PillowImage.Image.save

    def full(image, path, *args, **kwargs):
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(image, path, *args, **kwargs)

    monkeypatch.setattr(PillowImage.Image, "save", full)
    with pytest.raises(UserError, match=r"the output cannot be written; nothing was left half-done\n  .*No space left"):
        mw.masks(tmp_path / "d.json", tmp_path / "out")
    assert files_of(tmp_path) == ["d.json"]


def test_an_unknown_form_is_our_own_mistake(tmp_path):
    with pytest.raises(ValueError, match="form is 'x'; known: categories, instances, ids"):
        write_mask_images(dataset(truth(1, 1, LEFT)), tmp_path, "x")
    assert files_of(tmp_path) == []


def test_everything_left_out_is_said(tmp_path):
    data = Dataset.build(
        [HAMMER],
        [Image(1, "a.jpg", 16, 12), Image(2, "b.jpg", 16, 12)],
        [
            Annotation(1, 1, 1, None, box=(0, 0, 4, 4)),
            Annotation(2, 1, 1, pixels.encode(LEFT), crowd=True),
            Annotation(3, 1, 1, pixels.encode(RIGHT)),
        ],
    )
    data.write(tmp_path / "d.json")
    said = []
    mw.masks(tmp_path / "d.json", tmp_path / "out", form="instances", say=said.append)
    assert said[1:4] == [
        "1 photo has no object and so no mask image",
        "1 crowd left out, being many objects in one; --form categories draws all",
        "1 object left out: the file gives the box, not the mask",
    ]


# ── the forms of other tools ─────────────────────────────────────────────────────────────────────────────────────────


def test_other_forms_are_written_and_told(tmp_path):
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:6] = True
    dataset = Dataset.build([Category(1, "nut")], [Image(1, "a.jpg", 8, 6)], [Annotation(1, 1, 1, pixels.encode(mask))])
    dataset.write(tmp_path / "truth.json")
    said = []
    made = masks(tmp_path / "truth.json", tmp_path / "out", form="polygons", say=said.append)
    assert (made.images, made.objects) == (1, 1)
    assert said == [
        "1 file of 1 object, form polygons",
        "polygons that COCO's rasteriser turns into the same pixels (IoU 1): 1 of 1",
        f"wrote {tmp_path / 'out'}",
    ]
    assert Dataset.read(next((tmp_path / "out").glob("*.json"))).mask(0).tolist() == mask.tolist()


def test_objects_without_a_mask_are_left_out_of_other_forms(tmp_path):
    box = Annotation(1, 1, 1, None, box=(0, 0, 2, 2))
    dataset = Dataset.build([Category(1, "nut")], [Image(1, "a.jpg", 8, 6)], [box])
    dataset.write(tmp_path / "truth.json")
    with pytest.raises(UserError) as caught:
        masks(tmp_path / "truth.json", tmp_path / "out", form="labelme")
    assert str(caught.value).startswith(
        "no object of the file has a mask; boxes alone cannot be drawn\n  boxes without"
    )
    assert not (tmp_path / "out").exists()
