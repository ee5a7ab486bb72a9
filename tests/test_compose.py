"""What `compose` makes: exact masks of what is seen, the same bytes for the same seed, no background in silence."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from scipy import ndimage

import maskwright
from maskwright import pixels
from maskwright.check import check
from maskwright.compose import compose
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError

CATEGORIES = (Category(3, "hammer"), Category(8, "nut"))
RED, GREEN = (220, 30, 30), (20, 200, 40)


def box_mask(size, x1, y1, x2, y2):
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def save(path, colours):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(colours).save(path)


def split(data, name, photos, first_id=1):
    """Write a split of photos, given as lists of `(mask, category id, crowd)`; hammers are red and nuts green."""
    images, annotations = [], []
    for i, objects in enumerate(photos):
        size = objects[0][0].shape if objects else (48, 64)
        colours = np.full((*size, 3), 10 * i + len(name), dtype=np.uint8)
        for mask, category, _ in objects:
            colours[mask] = RED if category == 3 else GREEN
        save(data / name / f"{name}_{i}.png", colours)
        images.append(Image(first_id + i, f"{name}_{i}.png", size[1], size[0]))
        for mask, category, crowd in objects:
            annotations.append(Annotation(len(annotations) + 5, first_id + i, category, pixels.encode(mask), crowd))
    made = Dataset.build(CATEGORIES, images, annotations, info={"year": 2020}, folder=data / name)
    made.write(data / "annotations" / f"instances_{name}.json")
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three photos to train on, with 1, 2 and no objects; one to validate on, one to test on."""
    folder = tmp_path_factory.mktemp("data") / "DATA"
    size = (48, 64)
    one, two = box_mask(size, 10, 10, 26, 18), box_mask(size, 30, 20, 40, 40)
    split(folder, "train", [[(one, 3, False)], [(one, 8, False), (two, 3, False)], []])
    split(folder, "val", [[(two, 3, False)]], first_id=50)
    split(folder, "test", [[(one, 8, False)]], first_id=70)
    return folder


@pytest.fixture(scope="module")
def blue(tmp_path_factory):
    """Two bluish backgrounds of the size of the photos, and one in a folder below that is twice as large."""
    folder = tmp_path_factory.mktemp("blue")
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a.png": (48, 64), "b.png": (48, 64), "deep/c.png": (96, 128)}.items():
        colours = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
        colours[..., 2] += 150
        save(folder / name, colours)
    return folder


def content(folder):
    """Return the bytes of every file but the one that tells the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "compose.json"
    }


def photo_of(made, i):
    image = made.images[i]
    return np.asarray(Picture.open(made.photo_path(image)).convert("RGB"))


def near(mask, reach=2):
    return ndimage.maximum_filter(mask, 2 * reach + 1, mode="constant")


# Pictures and masks


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    objects=st.integers(1, 6),
    turn=st.booleans(),
    scale=st.floats(1, 2),
    visible=st.floats(0.1, 1),
)
def test_masks_are_what_can_be_seen(data, blue, tmp_path_factory, seed, objects, turn, scale, visible):
    out = tmp_path_factory.mktemp("law") / "OUT"
    found = compose(
        data,
        blue,
        out,
        pictures=3,
        objects=objects,
        turn=turn,
        scale_jitter=scale,
        visible=visible,
        seed=seed,
        png=True,
    )
    made = found.split("train")
    assert len(made.images) == found.pictures == 3
    assert len(made) == sum(found.objects.values()) > 0
    for i in range(3):
        colours = photo_of(made, i).astype(int)
        of = range(int(made.first[i]), int(made.first[i + 1]))
        masks = [made.mask(k) for k in of]
        union = np.any([*masks, np.zeros(colours.shape[:2], dtype=bool)], axis=0)
        assert sum(mask.sum() for mask in masks) == union.sum()  # no pixel of two objects
        for k, mask in zip(of, masks, strict=True):
            inner = ~near(~mask)
            wanted = RED if made.category_ids[k] == 3 else GREEN
            assert (np.abs(colours[inner] - wanted) <= 1).all()
            ys, xs = np.nonzero(mask)
            assert made.boxes[k].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert made.areas[k] == mask.sum() >= 16
        outside = ~near(union)
        assert (colours[outside][:, 2] >= 150).all()
        assert (colours[outside][:, :2] < 66).all()


def test_what_is_not_near_an_object_is_the_background_to_the_last_bit(data, blue, tmp_path):
    compose(data, blue / "a.png", tmp_path / "OUT", pictures=4, png=True)
    made = Dataset.read_split(tmp_path / "OUT", "train")
    ground = np.asarray(Picture.open(blue / "a.png"))
    for i in range(4):
        masks = [made.mask(k) for k in range(int(made.first[i]), int(made.first[i + 1]))]
        outside = ~near(np.any(masks, axis=0))
        colours = photo_of(made, i)
        assert any((colours[outside] == g[outside]).all() for g in (ground, ground[:, ::-1]))
        assert outside.any()


def test_every_object_keeps_its_visible_share(data, blue, tmp_path):
    """With a whole share nothing may be covered: rectangles that are not turned stay rectangles."""
    found = compose(data, blue, tmp_path / "OUT", pictures=6, objects=12, turn=False, visible=1.0, png=True)
    made = found.split("train")
    for k in range(len(made)):
        x1, y1, x2, y2 = made.boxes[k]
        assert made.areas[k] == (x2 - x1) * (y2 - y1)
    left_out = 6 * 12 - len(made)
    assert left_out > 0
    assert f"{left_out} objects found no place where every object stays 100% visible, and were left out" in found.notes


def test_objects_keep_their_size_as_a_share_of_the_photo(data, blue, tmp_path):
    compose(data, blue, tmp_path / "OUT", pictures=8, objects=1, turn=False, scale_jitter=1.0)
    made = Dataset.read_split(tmp_path / "OUT", "train")
    sides = {tuple((made.boxes[k, 2:] - made.boxes[k, :2]).tolist()) for k in range(len(made))}
    assert sides == {(16, 8), (10, 20)}
    assert {image.size for image in made.images} == {(48, 64)}


def test_objects_of_larger_photos_become_smaller_in_smaller_pictures(blue, tmp_path):
    small, large = (48, 64), (96, 128)
    hammer, nut = box_mask(small, 10, 10, 26, 18), box_mask(large, 30, 20, 70, 60)
    split(tmp_path / "DATA", "train", [[(hammer, 3, False)], [(nut, 8, False)]])
    made = compose(
        tmp_path / "DATA", blue, tmp_path / "OUT", pictures=30, objects=1, turn=False, scale_jitter=1.0
    ).split("train")
    sides = {
        (image.size, int(made.category_ids[k]), tuple((made.boxes[k, 2:] - made.boxes[k, :2]).tolist()))
        for k, image in ((k, made.images[int(made.image_index[k])]) for k in range(len(made)))
    }
    assert sides == {(small, 3, (16, 8)), (small, 8, (20, 20)), (large, 3, (32, 16)), (large, 8, (40, 40))}


def test_numbers_of_objects_are_those_seen_in_the_data(data, blue, tmp_path):
    compose(data, blue, tmp_path / "OUT", pictures=30, visible=0.1)
    made = Dataset.read_split(tmp_path / "OUT", "train")
    assert set(np.diff(made.first).tolist()) == {1, 2}


def test_backgrounds_take_turns(data, blue, tmp_path):
    compose(data, blue, tmp_path / "OUT", pictures=9)
    story = json.loads((tmp_path / "OUT" / "compose.json").read_text())
    used = [item["background"].rpartition("/")[2] for item in story["pictures"]]
    assert [set(used[n : n + 3]) for n in (0, 3, 6)] == [{"a.png", "b.png", "c.png"}] * 3


# Seeds


def test_the_same_seed_gives_the_same_bytes(data, blue, tmp_path):
    for name, seed in (("one", 4), ("same", 4), ("other", 5)):
        compose(data, blue, tmp_path / name, pictures=3, seed=seed)
    assert content(tmp_path / "one") == content(tmp_path / "same")
    assert content(tmp_path / "one") != content(tmp_path / "other")


def test_a_picture_does_not_depend_on_how_many_are_made(data, blue, tmp_path):
    compose(data, blue, tmp_path / "few", pictures=2)
    compose(data, blue, tmp_path / "many", pictures=5)
    few, many = content(tmp_path / "few"), content(tmp_path / "many")
    names = [name for name in few if name.startswith("train/")]
    assert names == ["train/composed_0001.jpg", "train/composed_0002.jpg"]
    assert [few[name] for name in names] == [many[name] for name in names]


# What is written


def test_the_result_is_a_data_folder_that_check_finds_nothing_wrong_with(data, blue, tmp_path):
    told = []
    found = maskwright.compose(data, blue, tmp_path / "OUT", with_originals=True, say=told.append)
    assert found.pictures == 3
    assert check(tmp_path / "OUT").errors == ()
    assert told[0] == "3 pictures of 3 objects over 3 backgrounds; turned by any angle: " + told[0].partition(": ")[2]
    counts = found.objects
    assert told[1] == (
        f"composed: 3 pictures with {sum(counts.values())} objects: hammer {counts['hammer']}, nut {counts['nut']}"
    )
    assert told[2] == "with the data's own photos: train 3, val 1, test 1"
    assert told[-1] == f"written: {tmp_path / 'OUT'}"


def test_with_originals_the_photos_are_linked_and_their_objects_stay(data, blue, tmp_path):
    out = tmp_path / "OUT"
    found = compose(data, blue, out, pictures=2, with_originals=True)
    assert found.originals == {"train": 3, "val": 1, "test": 1}
    for name in ("train", "val", "test"):
        for path in (data / name).iterdir():
            assert (out / name / path.name).samefile(path)
    for name in ("val", "test"):
        file = f"annotations/instances_{name}.json"
        assert (out / file).read_bytes() == (data / file).read_bytes()
        assert not (out / file).samefile(data / file)
    old, new = Dataset.read_split(data, "train"), found.split("train")
    assert new.categories == old.categories == CATEGORIES
    assert list(new.images)[:3] == list(old.images)
    assert [image.id for image in new.images] == [1, 2, 3, 4, 5]
    assert [new.annotation(k) for k in range(len(old))] == list(old.annotations())
    assert new.ids.tolist() == list(range(5, 5 + len(new)))
    assert new.info == old.info


def test_alone_there_is_no_val_split_and_the_way_to_train_on_both_is_told(data, blue, tmp_path):
    found = compose(data, blue, tmp_path / "OUT", pictures=1)
    assert found.originals == {}
    assert found.notes[-1] == (
        "there is no val split here; to train on these pictures and the data's own photos together, compose with"
        " --with-originals"
    )
    assert sorted(path.name for path in (tmp_path / "OUT").iterdir()) == ["annotations", "compose.json", "train"]
    assert found.split("val") is None


def test_composing_from_what_was_composed_takes_other_names(data, blue, tmp_path):
    compose(data, blue, tmp_path / "one", pictures=2, with_originals=True)
    found = compose(tmp_path / "one", blue, tmp_path / "two", pictures=1, with_originals=True)
    assert found.split("train").images[-1].file_name == "composed2_0001.jpg"
    assert len(found.split("train").images) == 6


def test_the_story_says_what_each_picture_is_made_of(data, blue, tmp_path):
    found = compose(data, blue, tmp_path / "OUT", pictures=2, seed=3)
    story = json.loads((tmp_path / "OUT" / "compose.json").read_text())
    made, train = found.split("train"), Dataset.read_split(data, "train")
    assert story["settings"]["pictures"] == 2
    assert story["settings"]["seed"] == 3
    assert story["settings"]["turn"] in {True, False}
    assert story["objects"] == found.objects
    rows = [row for item in story["pictures"] for row in item["objects"]]
    assert [row["annotation"] for row in rows] == made.ids.tolist()
    of = {int(k): n for n, k in enumerate(train.ids)}
    for row, category in zip(rows, made.category_ids.tolist(), strict=True):
        assert train.category_ids[of[row["of"]]] == category
        assert row["photo"] == train.images[int(train.image_index[of[row["of"]]])].file_name


# What can be pasted


def test_crowds_specks_and_what_is_cut_through_are_not_pasted_and_counted(blue, tmp_path):
    size = (48, 64)
    objects = [
        (box_mask(size, 0, 10, 64, 20), 3, False),
        (box_mask(size, 5, 25, 8, 30), 3, False),
        (box_mask(size, 20, 22, 60, 46), 3, True),
        (box_mask(size, 20, 25, 30, 40), 8, False),
    ]
    split(tmp_path / "DATA", "train", [objects])
    found = compose(tmp_path / "DATA", blue, tmp_path / "OUT", pictures=5, objects=2)
    assert found.objects["hammer"] == 0
    assert found.objects["nut"] > 0
    assert found.notes[:3] == (
        "1 object of the train split is not pasted: crowds, many objects in one mask",
        "1 object of the train split is not pasted: of fewer than 16 pixels",
        "1 object of the train split is not pasted: cut by the photo's border at opposite sides",
    )


def test_what_a_border_cuts_stays_at_that_border(blue, tmp_path):
    size = (48, 64)
    corner = box_mask(size, 0, 0, 12, 9)
    split(tmp_path / "DATA", "train", [[(corner, 3, False)], [(box_mask(size, 30, 40, 44, 48), 8, False)]])
    found = compose(tmp_path / "DATA", blue, tmp_path / "OUT", pictures=12, objects=2, turn=True, visible=0.1)
    made = found.split("train")
    hammers, nuts = made.boxes[made.category_ids == 3], made.boxes[made.category_ids == 8]
    assert len(hammers) > 3
    assert len(nuts) > 3
    assert (hammers[:, 1] == 0).all()
    assert ((hammers[:, 0] == 0) | (hammers[:, 2] == 64)).all()
    assert {0.0, 64.0} <= set(hammers[:, [0, 2]].ravel().tolist())  # mirrored ones are at the other side
    assert (nuts[:, 3] == 48).all()


def test_whether_objects_are_turned_is_derived_and_can_be_said(blue, tmp_path):
    size = (48, 64)
    long = [[(box_mask(size, 5, 5 + i, 45, 10 + i), 3, False)] for i in range(6)]
    split(tmp_path / "DATA", "train", long)
    told = []
    made = compose(tmp_path / "DATA", blue, tmp_path / "OUT", say=told.append, scale_jitter=1).split("train")
    assert "not turned: the objects have a preferred direction (spread 0.00 of 1)" in told[0]
    assert {tuple(b[2:] - b[:2]) for b in made.boxes} == {(40, 5)}
    compose(tmp_path / "DATA", blue, tmp_path / "OUT2", say=told.append, turn=True)
    assert any(line.endswith("turned by any angle: as you said") for line in told)


# Backgrounds


def test_photos_of_the_data_are_left_out_of_the_backgrounds_and_told(data, blue, tmp_path):
    place = tmp_path / "B"
    place.mkdir()
    for path in (blue / "a.png", data / "val/val_0.png", data / "train/train_0.png", data / "train/train_2.png"):
        (place / path.name).write_bytes(path.read_bytes())
    found = compose(data, place, tmp_path / "OUT", pictures=6)
    story = json.loads((tmp_path / "OUT" / "compose.json").read_text())
    used = {item["background"].rpartition("/")[2] for item in story["pictures"]}
    assert used == {"a.png", "train_2.png"}  # a photo of train that shows no object is a background
    assert found.notes[:2] == (
        "1 background is a photo of the data's val split and left out: val_0.png; it would make scores too good",
        "1 background is a photo of the data's train split and left out: train_0.png; it shows objects that would have"
        " no mask",
    )


def test_no_background_that_is_left_is_an_error(data, tmp_path):
    with pytest.raises(UserError) as caught:
        compose(data, data / "test", tmp_path / "OUT")
    assert str(caught.value) == (
        "no background is left\n"
        f"  {data / 'test'}: 1 background is a photo of the data's test split and left out: test_0.png; it would make"
        " scores too good\n"
        "fix: give photos that are not those of the data"
    )
    assert not (tmp_path / "OUT").exists()


def test_small_backgrounds_are_enlarged_then_continued_and_counted(data, tmp_path):
    rng = np.random.default_rng(1)
    save(tmp_path / "B" / "half.png", rng.integers(0, 255, (30, 40, 3)).astype(np.uint8))
    save(tmp_path / "B" / "tiny.png", rng.integers(0, 255, (6, 5, 3)).astype(np.uint8))
    found = compose(data, tmp_path / "B", tmp_path / "OUT", pictures=4)
    assert {image.size for image in found.split("train").images} == {(48, 64)}
    assert found.notes[0] == (
        "2 backgrounds smaller than the pictures: enlarged up to 2 times, 1 of them also continued by mirrored copies"
        " (half.png, tiny.png)"
    )


def huge_png():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_all_problems_are_told_at_once(tmp_path, blue):
    split(tmp_path / "DATA", "train", [[(box_mask((48, 64), 5, 5, 9, 9), 3, True)]])
    place = tmp_path / "B"
    save(place / "fine.png", np.zeros((40, 40, 3), dtype=np.uint8))
    (place / "empty.jpg").write_bytes(b"")
    (place / "huge.png").write_bytes(huge_png())
    with pytest.raises(UserError) as caught:
        compose(tmp_path / "DATA", place, tmp_path / "OUT")
    assert str(caught.value) == (
        "the train split has no object that can be cut out: none has a mask, or all are crowds or specks\n"
        f"  {tmp_path / 'DATA'}\n"
        "fix: maskwright check DATA says what is in it\n\n"
        "2 backgrounds cannot be read\n"
        f"  {place / 'empty.jpg'} is empty (0 bytes)\n"
        f"  {place / 'huge.png'} declares 60,000 x 60,000 pixels; at most 150,000,000 in all are read\n"
        "fix: remove or replace them"
    )
    assert not (tmp_path / "OUT").exists()


def test_what_is_not_there_is_told(tmp_path, data):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError) as caught:
        compose(tmp_path / "none", tmp_path / "none", tmp_path / "OUT")
    assert [p.what for p in caught.value.problems] == [
        "the folder has no train split: annotations/instances_train.json is not there",
        "there is no background: the folder has no photo",
    ]
    with pytest.raises(UserError, match="the folder of backgrounds does not exist"):
        compose(data, tmp_path / "nowhere", tmp_path / "OUT")


def test_photos_of_the_data_that_changed_are_told(blue, tmp_path):
    mask = box_mask((48, 64), 5, 5, 25, 25)
    split(tmp_path / "DATA", "train", [[(mask, 3, False)], [(mask, 3, False)]])
    save(tmp_path / "DATA/train/train_0.png", np.zeros((10, 20, 3), dtype=np.uint8))
    (tmp_path / "DATA/train/train_1.png").unlink()
    with pytest.raises(UserError) as caught:
        compose(tmp_path / "DATA", blue, tmp_path / "OUT")
    lines = str(caught.value).splitlines()
    assert lines[0] == "photos of the data cannot be read"
    assert lines[1].startswith(f"  {tmp_path}/DATA/train/train_1.png cannot be opened")
    assert f"  {tmp_path}/DATA/train/train_0.png is 20 x 10, the dataset says 64 x 48" in lines


def test_an_output_that_exists_is_kept_unless_it_may_be_replaced(data, blue, tmp_path):
    out = tmp_path / "OUT"
    compose(data, blue, out, pictures=1)
    before = content(out)
    with pytest.raises(UserError, match="the output exists already"):
        compose(data, blue, out, pictures=2)
    assert content(out) == before
    compose(data, blue, out, pictures=2, overwrite=True)
    assert len(Dataset.read_split(out, "train").images) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_compose_has_not_made_is_never_replaced(data, blue, tmp_path, overwrite):
    out = tmp_path / "OUT"
    shutil.copytree(data, out)
    before = content(out)
    with pytest.raises(UserError, match=r"is no former output of compose.*\n  .*OUT: annotations, .*\nfix: name"):
        compose(data, blue, out, pictures=1, overwrite=overwrite)
    assert content(out) == before


@pytest.mark.usefixtures("taken_for_former")
def test_the_output_must_not_hold_the_input(data, blue, tmp_path):
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        compose(data, blue, blue, overwrite=True)
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        compose(data, blue, data, overwrite=True)
    photos = sorted(data.rglob("*"))
    backgrounds = tmp_path / "backgrounds"
    shutil.copytree(blue, backgrounds / "blue")
    inside = (data / "train", data / "annotations", data / "annotations" / "instances_train.json", backgrounds / "blue")
    for out in inside:
        with pytest.raises(UserError, match="the output must not be the input or hold it"):
            compose(data, backgrounds, out, overwrite=True)
    assert sorted(data.rglob("*")) == photos


def test_a_failure_leaves_nothing_behind(data, blue, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Picture.Image, "save", fail)
    with pytest.raises(UserError, match="the output cannot be written; nothing was left half-done"):
        compose(data, blue, tmp_path / "OUT")
    assert list(tmp_path.iterdir()) == []


def test_settings_out_of_range_are_errors(data, blue, tmp_path):
    with pytest.raises(UserError) as caught:
        compose(data, blue, tmp_path / "OUT", pictures=0, visible=0, scale_jiter=2)
    text = str(caught.value)
    assert "scale_jiter; did you mean 'scale_jitter'?" in text
    assert "pictures (--pictures) is 0: input should be greater than or equal to 1" in text
    assert "visible (--visible) is 0: input should be greater than 0" in text
