"""The prepare stage as a whole: forms, splits, output, refusals, and the laws that hold for any input."""

import errno
import hashlib
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskwright import files
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.prepare import Prepared, fates_of, place_of, prepare
from maskwright.writing import CocoWriter

HAMMER = Path(__file__).parents[2] / "shared" / "data" / "hammer"
SIZE = (24, 32)


def photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)


def mask(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(SIZE, dtype=np.uint8)
    array[4:12, 5 + seed % 9 : 20] = 255
    Image.fromarray(array).save(path)


def world(root, names, photos="rgb", masks="mask"):
    for seed, name in enumerate(names):
        photo(root / photos / f"{name}.jpg", zlib.crc32(name.encode()))
        mask(root / masks / f"{name}.png", seed)
    return root


def fails(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        prepare(*args, **kwargs)
    return str(caught.value)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_layout_that_coco_tools_read(tmp_path):
    for split, count in (("nut_train", 2), ("nut_validate", 1), ("nut_test", 1)):
        world(tmp_path / "raw" / split, [f"{split}{n}" for n in range(count)])
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA")
    assert isinstance(made, Prepared)
    assert listing(tmp_path / "DATA") == [
        "annotations/instances_test.json",
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "prepare.json",
        "test/nut_test0.jpg",
        "train/nut_train0.jpg",
        "train/nut_train1.jpg",
        "val/nut_validate0.jpg",
    ]
    coco = json.loads((tmp_path / "DATA/annotations/instances_train.json").read_text())
    assert list(coco) == ["info", "licenses", "categories", "images", "annotations"]
    assert coco["categories"] == [{"id": 1, "name": "nut", "supercategory": ""}]
    assert coco["images"][0] == {"id": 1, "file_name": "nut_train0.jpg", "width": 32, "height": 24}
    assert {k: v for k, v in coco["annotations"][0].items() if k != "segmentation"} == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "area": 8 * 15,
        "bbox": [5, 4, 15, 8],
        "iscrowd": 0,
    }
    assert coco["annotations"][0]["segmentation"]["size"] == [24, 32]


def test_photos_are_the_very_files(tmp_path):
    world(tmp_path / "raw", ["a"])
    prepare(tmp_path / "raw", out=tmp_path / "DATA")
    assert (tmp_path / "DATA/train/a.jpg").samefile(tmp_path / "raw/rgb/a.jpg")


def test_photos_are_copied_where_links_cannot_be(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EXDEV, "another file system")

    world(tmp_path / "raw", ["a"])
    monkeypatch.setattr(os, "link", refuse)
    prepare(tmp_path / "raw", out=tmp_path / "DATA")
    assert (tmp_path / "DATA/train/a.jpg").read_bytes() == (tmp_path / "raw/rgb/a.jpg").read_bytes()


def test_prepare_json_has_the_fate_of_every_file(tmp_path):
    root = world(tmp_path / "raw", ["a", "b"])
    (root / "rgb/notes.txt").write_text("x")
    prepare(root, out=tmp_path / "DATA", category="nut", val_share=0, test_share=0)
    story = json.loads((tmp_path / "DATA/prepare.json").read_text())
    assert (story["form"], story["coding"]) == ("folders", "binary")
    assert story["categories"] == [{"id": 1, "name": "nut", "objects": 2}]
    assert story["counts"] == {"train": {"photos": 2, "objects": 2, "without objects": 0}}
    assert story["settings"]["category"] == "nut"
    assert story["maskwright"]["maskwright"]
    assert any(line.startswith("mask values are 0 and 255") for line in story["understood"])
    fates = {Path(item["file"]).relative_to(root).as_posix(): item for item in story["files"]}
    assert sorted(fates) == ["mask/a.png", "mask/b.png", "rgb/a.jpg", "rgb/b.jpg", "rgb/notes.txt"]
    assert fates["rgb/a.jpg"]["as"] == "train/a.jpg"
    for name in ("rgb/a.jpg", "mask/a.png"):
        assert fates[name]["fate"] == "used"
        assert fates[name]["sha256"] == hashlib.sha256((root / name).read_bytes()).hexdigest()
    assert fates["rgb/notes.txt"] == {"file": f"{root}/rgb/notes.txt", "fate": "skipped", "why": "not a picture file"}


def test_the_fates_of_files_are_read_one_by_one(tmp_path):
    root = world(tmp_path / "raw", ["a", "b\n"])
    (root / "rgb" / "notes.txt").write_text("")
    prepare(root, out=tmp_path / "DATA")
    fates = list(fates_of(tmp_path / "DATA"))
    assert fates == json.loads((tmp_path / "DATA" / "prepare.json").read_text())["files"]
    assert len(fates) == 5


def test_what_was_understood_is_said_before_counts(tmp_path):
    said = []
    prepare(world(tmp_path / "raw", ["a"]), out=tmp_path / "DATA", say=said.append)
    kinds = [line.partition(":")[0] for line in said]
    assert kinds == sorted(kinds, key=["understood", "prepared", "mended", "skipped", "note", "written"].index)
    assert said[0] == f"understood: 1 photo in {tmp_path}/raw/rgb, 1 with a mask in {tmp_path}/raw/mask"
    assert "prepared: 1 photo with 1 object: train 1 photo (1 object)" in said
    assert said[-1] == f"written: {tmp_path}/DATA"


def test_nothing_is_printed(tmp_path, capsys):
    prepare(world(tmp_path / "raw", ["a"]), out=tmp_path / "DATA")
    assert capsys.readouterr() == ("", "")


def test_info_and_licence_that_the_user_gives(tmp_path):
    prepare(world(tmp_path / "raw", ["a"]), out=tmp_path / "DATA", description="d", contributor="c", license="CC0")
    data = Dataset.read_split(tmp_path / "DATA", "train")
    assert (data.info["description"], data.info["contributor"]) == ("d", "c")
    assert data.licenses == ({"id": 1, "name": "CC0", "url": ""},)


def test_subfolders_are_flattened_only_if_names_stay_apart(tmp_path):
    root = world(tmp_path / "raw", ["day 1/a", "day 2/b"])
    prepare(root, out=tmp_path / "flat", val_share=0, test_share=0)
    assert listing(tmp_path / "flat/train") == ["a.jpg", "b.jpg"]
    world(root, ["day 3/A"])  # differs from a.jpg in letter case only
    prepare(root, out=tmp_path / "deep", val_share=0, test_share=0)
    assert listing(tmp_path / "deep/train") == ["day 1/a.jpg", "day 2/b.jpg", "day 3/A.jpg"]
    assert [i.file_name for i in Dataset.read_split(tmp_path / "deep", "train").images] == listing(
        tmp_path / "deep/train"
    )


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_splits_are_by_hash_near_the_shares(tmp_path):
    said = []
    made = prepare(world(tmp_path / "raw", [f"p{n}" for n in range(100)]), out=tmp_path / "DATA", say=said.append)
    assert made.photos == {"train": 77, "val": 8, "test": 15}
    assert (
        "understood: no splits are given: split by a hash of each photo's name, 80 % train, 10 % val, 10 % test; adding"
        " photos never moves old ones" in said
    )


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=20))
def test_a_photos_place_depends_on_its_name_alone(names):
    """Law: adding photos never moves old ones; every place is in 0..1."""
    places = [place_of(name + ".jpg") for name in names]
    assert all(0 <= place < 1 for place in places)
    assert places == [place_of(name + ".png") for name in names]


def test_adding_photos_never_moves_old_ones(tmp_path):
    root = world(tmp_path / "raw", [f"p{n}" for n in range(20)])
    first = prepare(root, out=tmp_path / "one")
    world(root, [f"q{n}" for n in range(20)])
    second = prepare(root, out=tmp_path / "two")
    for split in first.photos:
        assert set(listing(tmp_path / "one" / split)) <= set(listing(tmp_path / "two" / split))
    assert sum(second.photos.values()) == 40


def test_tiny_sets_have_something_to_learn_from(tmp_path):
    name = next(f"x{n}" for n in range(999) if place_of(f"x{n}.jpg") < 0.1)
    said = []
    made = prepare(world(tmp_path / "raw", [name]), out=tmp_path / "DATA", say=said.append)
    assert made.photos == {"train": 1}
    assert f"note: 1 photo ({name}.jpg) did not go where the hash says" in "\n".join(said)
    assert "note: there is no val split: training cannot tell when to stop" in "\n".join(said)
    assert "note: there is no test split" in "\n".join(said)


def test_splits_that_exist_are_kept(tmp_path):
    world(tmp_path / "raw/x_test", ["a"])
    said = []
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", say=said.append)
    assert made.photos == {"test": 1}
    assert "there is no train split: the data can be predicted and scored on, but not learned from" in "\n".join(said)


def test_shares_that_leave_nothing(tmp_path):
    message = fails(world(tmp_path / "raw", ["a"]), out=tmp_path / "DATA", val_share=0.5, test_share=0.5)
    assert message.startswith("the shares for validation and testing leave no photo to learn from\n  val_share 0.5")


def test_a_picture_in_two_splits_is_told(tmp_path):
    for split in ("x_train", "x_test"):
        world(tmp_path / "raw" / split, ["same"])
    said = []
    prepare(tmp_path / "raw", out=tmp_path / "DATA", say=said.append)
    assert "note: 1 picture stand in more than one split (" not in "\n".join(said)
    assert "note: 1 picture stands in more than one split (" in "\n".join(said)
    assert "scores would be too good: remove all but one" in "\n".join(said)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_output_that_exists(tmp_path):
    root = world(tmp_path / "raw", ["a"])
    prepare(root, out=tmp_path / "DATA")
    message = fails(root, out=tmp_path / "DATA")
    assert message == f"the output exists already\n  {tmp_path}/DATA\nfix: name another output, or: --overwrite"
    world(root, ["b"])
    prepare(root, out=tmp_path / "DATA", overwrite=True, val_share=0, test_share=0)
    assert listing(tmp_path / "DATA/train") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("out", ["raw", ".", "raw/rgb", "raw/mask/DATA"])
@pytest.mark.usefixtures("taken_for_former")
def test_an_output_that_would_hurt_the_input(tmp_path, out):
    root = world(tmp_path / "raw", ["a"])
    message = fails(root, out=tmp_path / out, overwrite=True)
    assert message.startswith("the output must not be the input, hold it, or lie in a folder of photos or masks")
    assert listing(root) == ["mask/a.png", "rgb/a.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_prepare_has_not_made_is_never_replaced(tmp_path, monkeypatch, overwrite):
    root = world(tmp_path / "raw", ["a"])
    for n in range(20):
        photo(tmp_path / "album" / f"{n:02}.jpg", n)
    monkeypatch.setattr(sys.modules["maskwright.prepare"], "_recognise", lambda *_: pytest.fail("work was begun"))
    names = "00.jpg, 01.jpg, 02.jpg, 03.jpg, 04.jpg and 15 more"
    assert fails(root, out=tmp_path / "album", overwrite=overwrite) == (
        "the output exists already, and is no former output of prepare"
        f"{', the only thing that --overwrite replaces' if overwrite else ''}\n  {tmp_path}/album: {names}\n"
        "fix: name another output, or remove the folder by hand if nothing in it is needed"
    )
    monkeypatch.chdir(tmp_path / "album")
    assert fails(root, out=".", overwrite=overwrite) == (
        "the output must not be the current working directory, or hold it: it would be replaced\n"
        f"  .: {names}\nfix: name another output"
    )
    assert len(listing(tmp_path / "album")) == 20


def test_unknown_settings(tmp_path):
    message = fails(tmp_path, out=tmp_path / "DATA", categry="x")
    assert message.startswith("there is no setting of this name\n  categry; did you mean 'category'?")


def test_inputs_that_are_not_there(tmp_path):
    assert fails(tmp_path / "no", out=tmp_path / "DATA").startswith(f"the input does not exist\n  {tmp_path}/no")
    root = world(tmp_path / "raw", ["a"])
    assert "the masks do not exist\n  truth: neither there nor in " in fails(root, "truth", tmp_path / "DATA")
    assert "the photos do not exist\n  camera: " in fails(root, root / "mask", tmp_path / "DATA", photos="camera")
    assert "the output folder is not named" in fails(root)
    assert "the category's name is empty" in fails(root, out=tmp_path / "DATA", category=" ")
    assert "photos and masks are the same folder" in fails(root / "rgb", root / "rgb", tmp_path / "DATA")


def test_a_form_that_the_input_has_not(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text('{"images": [], "annotations": [], "categories": []}')
    message = fails(path, out=tmp_path / "DATA", form="folders")
    assert message == (
        f"the input does not have the form folders\n  {path}\nfix: this form is a folder of photos and a folder of mask"
        " images, such as rgb and mask, alone or inside train, val, test; leave out --form to have it found by looking"
    )
    message = fails(world(tmp_path / "raw", ["a"]), out=tmp_path / "DATA", form="coco")
    assert message.startswith(
        f"there is no COCO file in the folder, its 'annotations' or its split folders\n  {tmp_path}"
    )
    assert message.endswith("fix: name the file: maskwright prepare FILE.json -o DATA")


def test_names_that_are_no_text(tmp_path):
    root = world(tmp_path / "raw", ["a"])
    os.rename(os.fsencode(root / "rgb/a.jpg"), os.fsencode(root / "rgb") + b"/\xff.jpg")
    message = fails(root, out=tmp_path / "DATA")
    assert message.startswith("file names must be valid UTF-8\n")
    assert "\\udcff.jpg" in message
    assert message.endswith("fix: rename these files")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    root = world(tmp_path / "raw", ["a", "b"])
    monkeypatch.setattr(files, "link_or_copy", full)
    message = fails(root, out=tmp_path / "DATA")
    assert message == (
        "a photo cannot be put into the output; nothing was left half-done\n"
        f"  {root}/rgb/a.jpg: No space left on device\n"
        "fix: check that it is still there and that the disk has space, then run the command again"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_full_disk_keeps_the_old_output(tmp_path, monkeypatch):
    root = world(tmp_path / "raw", ["a"])
    prepare(root, out=tmp_path / "DATA")
    before = listing(tmp_path / "DATA")

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CocoWriter, "rows", full)
    assert "nothing was left half-done" in fails(root, out=tmp_path / "DATA", overwrite=True)
    assert listing(tmp_path / "DATA") == before


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_preparing_a_data_folder_again_changes_nothing(tmp_path):
    """Law: what prepare writes, prepare reads, without a mend."""
    root = world(tmp_path / "raw", [f"p{n}" for n in range(12)])
    mask(root / "mask/p0.png")
    Image.new("L", SIZE[::-1]).save(root / "mask/p1.png")
    prepare(root, out=tmp_path / "one")
    again = prepare(tmp_path / "one", out=tmp_path / "two")
    assert listing(tmp_path / "two") == listing(tmp_path / "one")
    for name in (name for name in listing(tmp_path / "one") if name.startswith("annotations/")):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert [mend.what for mend in again.mends] == ["photos without objects, kept"]


@pytest.mark.shared
def test_hammers_are_kept_pixel_for_pixel(tmp_path):
    if not HAMMER.is_dir():
        pytest.skip(f"{HAMMER} is not there")
    made = prepare(HAMMER, out=tmp_path / "DATA")
    assert (made.photos, made.objects) == ({"train": 244, "val": 64}, {"train": 244, "val": 64})
    assert (made.categories, made.coding, made.skipped, made.mends) == (("hammer",), "binary", (), ())
    for split, folder in (("train", "hammer_train"), ("val", "hammer_validate")):
        data = made.split(split)
        assert data.image_index.tolist() == list(range(len(data.images)))
        for k in range(0, len(data), 16):
            name = Path(data.images[k].file_name).stem
            truth = np.asarray(Image.open(HAMMER / folder / "mask" / f"{name}.png")) > 127
            assert np.array_equal(data.mask(k), truth)


def test_ray_gives_the_same_bytes(tmp_path):
    """Law: where the work is done changes nothing but the time in prepare.json."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    root = world(tmp_path / "raw", [f"p{n}" for n in range(12)])
    made = {}
    for on in ("here", "ray"):
        prepare(root, out=tmp_path / on, on=on, shard=4)
        files_of = [path for path in (tmp_path / on).rglob("*") if path.is_file() and path.name != "prepare.json"]
        made[on] = {path.relative_to(tmp_path / on).as_posix(): path.read_bytes() for path in files_of}
        story = json.loads((tmp_path / on / "prepare.json").read_text())
        made[on]["story"] = {k: v for k, v in story.items() if k not in {"maskwright", "settings"}}
    assert made["ray"] == made["here"]
    assert any("instances_train-00000-of-" in name for name in made["ray"])


def test_data_in_shards_is_prepared_again_like_data_in_files(tmp_path):
    """As the advice of `check` for leaks has it: `prepare DATA -o NEW --resplit`."""
    root = world(tmp_path / "raw", [f"p{n}" for n in range(30)])
    annotations, made = {}, {}
    for kind, shard in (("whole", None), ("shards", 1)):  # more shards than forms with one file a photo may have
        data, kept = tmp_path / kind, tmp_path / f"{kind}, kept"
        prepare(root, out=data, shard=shard)
        prepare(data, out=kept)
        annotations[kind] = {p.name: p.read_bytes() for p in (kept / "annotations").iterdir()}
        made[kind] = prepare(data, out=tmp_path / f"{kind}, anew", resplit=True, val_share=0.3)
    assert len(list((tmp_path / "shards" / "annotations").iterdir())) == 30
    assert annotations["shards"] == annotations["whole"]
    assert len(annotations["whole"]) == 3
    assert made["shards"].photos == made["whole"].photos
    assert sum(made["shards"].photos.values()) == 30
    assert made["shards"].mends == ()
    assert {item.path.name for item in made["shards"].skipped} == {"prepare.json"}
    story = json.loads((tmp_path / "shards, anew" / "prepare.json").read_text())
    assert sum(item.get("kind") == "annotations" for item in story["files"]) == 30


def test_shards_are_named_in_every_way_that_they_are_loaded_by(tmp_path):
    for split in ("train", "val"):
        world(tmp_path / "raw" / f"nut_{split}", [f"{split}{n}" for n in range(4)])
    data = tmp_path / "data [v2]"  # which is no pattern
    prepare(tmp_path / "raw", out=data, shard=3)
    place = data / "annotations"
    for number, name in enumerate(("instances_train.json", "instances_train-*.json", "instances_train-*")):
        made = prepare(place / name, out=tmp_path / f"a{number}", val_share=0.25, test_share=0)
        assert (made.photos, made.form) == ({"train": 3, "val": 1}, "coco")
        made = prepare(data / "train", place / name, out=tmp_path / f"b{number}", val_share=0.25, test_share=0)
        assert made.photos == {"train": 3, "val": 1}
    made = prepare(place / "instances_train-00001-of-00002.json", out=tmp_path / "c", val_share=0, test_share=0)
    assert made.photos == {"train": 1}
    assert prepare(place, out=tmp_path / "d").photos == {"train": 4, "val": 4}
    assert fails(place / "instances_test.json", out=tmp_path / "e") == (
        f"the input does not exist\n  {place}/instances_test.json\nfix: check the path"
    )
    assert fails(place / "instances_train.json", out=tmp_path / "e", form="yolo").startswith(
        f"the input does not have the form yolo\n  {place}/instances_train.json\n"
    )
    assert fails(place / "instances_train.json", place, out=tmp_path / "e").startswith(
        "two files were named; the first must be the folder of the photos"
    )
    (place / "instances_val-00001-of-00002.json").unlink()
    assert fails(data, out=tmp_path / "e") == (
        f"shards of the dataset are missing: 1 of 2\n  {place}/instances_val-00001-of-00002.json\n"
        "fix: copy or write them anew"
    )


def test_splits_that_exist_can_be_made_anew(tmp_path):
    """A photo of train and its copy in val come together, and nothing is lost where names are equal."""
    for split, names in (("train", [f"p{n}" for n in range(12)]), ("val", [f"v{n}" for n in range(4)])):
        world(tmp_path / "raw" / f"nut_{split}", names)
    copy = tmp_path / "raw/nut_val/rgb/p3.jpg"
    copy.write_bytes((tmp_path / "raw/nut_train/rgb/p3.jpg").read_bytes())
    mask(tmp_path / "raw/nut_val/mask/p3.png", 3)
    said = []
    kept = prepare(tmp_path / "raw", out=tmp_path / "kept", group="name", say=said.append)
    assert any("in more than one split" in note for note in kept.notes)
    assert "the photos are split already, so --group changes nothing (--resplit: make the splits anew)" in kept.notes
    made = prepare(tmp_path / "raw", out=tmp_path / "anew", resplit=True, say=said.append)
    assert sum(made.photos.values()) == 17
    assert not any("in more than one split" in note for note in made.notes)
    assert any(line.startswith("understood: the splits that are given are not used, as you said: ") for line in said)
    places = [name.split("/")[0] for name in listing(tmp_path / "anew") if name.endswith("p3.jpg")]
    assert len(places) == 2
    assert len(set(places)) == 1
