"""COCO files of every dialect: found, read, mended with a count, or refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats import coco
from maskwright.prepare import prepare

FRUITS = Path(__file__).parents[2] / "shared" / "data" / "fruits_nuts"
H, W = 40, 60
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]  # 20 x 20 pixels


def photo(path, size=(H, W), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(str(path.name).encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **save)


def entry(number, name=None, **more):
    return {"id": number, "file_name": name or f"{number}.jpg", "width": W, "height": H, **more}


def thing(number, image, segmentation=None, category=1, **more):
    given = [SQUARE] if segmentation is None else segmentation
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": given,
        "area": 400,
        "bbox": [10, 5, 20, 20],
        "iscrowd": 0,
        **more,
    }


def document(images=None, annotations=None, categories=None, **more):
    images = [entry(1), entry(2)] if images is None else images
    return {
        "info": {"description": "squares", "year": 2020},
        "licenses": [{"id": 1, "name": "CC0", "url": ""}],
        "images": images,
        "annotations": [thing(1, images[0]["id"])] if annotations is None else annotations,
        "categories": [{"id": 1, "name": "square"}] if categories is None else categories,
        **more,
    }


def world(tmp_path, doc=None, name="coco.json", photos="images"):
    doc = document() if doc is None else doc
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(doc))
    for item in doc["images"]:
        photo(tmp_path / "raw" / photos / str(item["file_name"]))
    return tmp_path / "raw"


def run(raw, tmp_path, masks=None, **settings):
    said = []
    made = prepare(raw, masks, tmp_path / "DATA", say=said.append, **{"val_share": 0, "test_share": 0, **settings})
    return made, "\n".join(said)


def fails(raw, tmp_path, masks=None, **settings):
    with pytest.raises(UserError) as caught:
        prepare(raw, masks, tmp_path / "DATA", **settings)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{tmp_path}/raw/", "")


# ── where things are ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("photos", ["images", ".", "photos", "rgb"])
def test_a_folder_with_one_file(tmp_path, photos):
    made, said = run(world(tmp_path, photos=photos), tmp_path)
    assert (made.photos, made.objects, made.categories, made.form) == ({"train": 2}, {"train": 1}, ("square",), "coco")
    assert f"COCO file {tmp_path}/raw/coco.json with 2 photos (in " in said


def test_a_file_with_photos_beside_its_folder(tmp_path):
    raw = world(tmp_path, name="annotations/all.json")
    made, _ = run(raw / "annotations/all.json", tmp_path)
    assert made.photos == {"train": 2}


def test_photos_and_file_that_the_user_names(tmp_path):
    raw = world(tmp_path, photos="../elsewhere")
    made, _ = run(tmp_path / "elsewhere", tmp_path, raw / "coco.json")
    assert made.photos == {"train": 2}
    made, _ = run(raw / "coco.json", tmp_path / "second", photos=str(tmp_path / "elsewhere"))
    assert made.photos == {"train": 2}


@pytest.mark.parametrize(
    ("files", "photos"),
    [
        ("annotations/instances_{}.json", "{}"),
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/instances_{}.json", "images"),
        ("{}.json", "images"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_layouts_with_splits(tmp_path, files, photos):
    for number, split in enumerate(("train", "val")):
        doc = document([entry(1, f"{split}{number}.jpg")])
        raw = world(tmp_path, doc, files.format(split), photos.format(split))
    made, said = run(raw, tmp_path)
    assert (made.photos, made.objects) == ({"train": 1, "val": 1}, {"train": 1, "val": 1})
    assert "splits are kept as the files give them (train, val)" in said
    assert "note: there is no test split" in said


@pytest.mark.parametrize(
    ("files", "photos"),
    [("annotations/instances_{}.json", "images/{}"), ("{}/_annotations.coco.json", "{}")],
)
def test_photos_of_one_name_in_splits_that_are_made_anew(tmp_path, files, photos):
    for number, split in enumerate(("train", "val")):
        doc = document([entry(1)], [thing(1, 1)] * (1 + number))
        raw = world(tmp_path, doc, files.format(split), photos.format(split))
    made, _ = run(raw, tmp_path, resplit=True)
    (data,) = [made.split(split) for split in made.photos]
    objects = {image.file_name: n for image, n in zip(data.images, np.diff(data.first).tolist(), strict=True)}
    assert sorted(objects.values()) == [1, 2]
    assert {split: n for name, n in objects.items() for split in ("train", "val") if split in name} == {
        "train": 1,
        "val": 2,
    }


def test_captions_beside_the_instances_are_left_out(tmp_path):
    raw = world(tmp_path, name="annotations/instances_train.json")
    (raw / "annotations/captions_train.json").write_text(json.dumps(document()))
    (raw / "annotations/other.json").write_text("[1]")
    made, _ = run(raw, tmp_path)
    assert {item.path.name: item.why for item in made.skipped} == {
        "captions_train.json": "not the instances file",
        "other.json": "not a COCO dataset",
    }


def shard(tmp_path, number, total, doc=None, stem="instances_train"):
    doc = document([entry(number + 1)]) if doc is None else doc
    world(tmp_path, doc, f"annotations/{stem}-{number:05d}-of-{total:05d}.json", "train")
    return tmp_path / "raw" / "annotations"


def test_shards_of_a_split_are_one_file(tmp_path):
    for number in (0, 1):
        place = shard(tmp_path, number, 2)
    made, said = run(tmp_path / "raw", tmp_path)
    assert (made.photos, made.objects) == ({"train": 2}, {"train": 2})
    assert f"understood: train: COCO file {place}/instances_train.json with 2 photos (in {tmp_path}/raw/train)" in said
    assert "splits are kept as the files give them (train)" in said


def test_a_file_goes_before_shards_of_its_name(tmp_path):
    shard(tmp_path, 0, 2)
    world(tmp_path, document([entry(7)]), "annotations/instances_train.json", "train")
    made, _ = run(tmp_path / "raw", tmp_path)
    assert (made.photos, made.objects) == ({"train": 1}, {"train": 1})
    assert {item.path.name: item.why for item in made.skipped} == {
        "instances_train-00000-of-00002.json": "a shard, and instances_train.json is there",
        "1.jpg": "photo that the COCO file does not list",
    }


def test_shards_that_do_not_fit_together(tmp_path):
    shard(tmp_path, 0, 2)
    place = shard(tmp_path, 1, 2, document([entry(2)], categories=[{"id": 1, "name": "round"}]))
    second = "annotations/instances_train-00001-of-00002.json"
    assert fails(tmp_path / "raw", tmp_path) == (
        f"shards differ in categories\n  {second}: not those of instances_train-00000-of-00002.json\n"
        "fix: write the shards anew"
    )
    (place / "instances_train-00001-of-00002.json").write_text("[]")
    assert fails(tmp_path / "raw", tmp_path) == (
        f"shards of a COCO file are something else\n  {second}\nfix: write the shards anew"
    )
    (place / "instances_train-00001-of-00002.json").write_text("[")
    assert fails(tmp_path / "raw", tmp_path).startswith(f"the file is not valid JSON\n  {second}: ")
    shard(tmp_path, 1, 2, document([entry(1, "2.jpg")]))
    assert fails(tmp_path / "raw", tmp_path).startswith("photos share an id, so nobody can tell whose an object is")


def test_files_of_another_form_that_are_numbered_like_shards(tmp_path):
    for number in (0, 3):
        place = shard(tmp_path, number, 5, {"shapes": [], "images": []}, "frame")
    photo(tmp_path / "raw" / "train" / "1.jpg")
    found, skipped = coco.find_sources(tmp_path / "raw")
    assert found == []
    assert [(item.path, item.why) for item in skipped] == [
        (place / f"frame-0000{number}-of-00005.json", "not a COCO dataset") for number in (0, 3)
    ]
    assert fails(place / "frame-*.json", tmp_path).startswith("shards of the dataset are missing: 3 of 5")
    for number in (1, 2, 4):
        shard(tmp_path, number, 5, {"shapes": [], "images": []}, "frame")
    assert fails(place / "frame.json", tmp_path).startswith("the file is not a COCO dataset: it needs 'images'")


def test_several_files_without_splits_in_their_names(tmp_path):
    world(tmp_path, name="a.json")
    message = fails(world(tmp_path, name="b.json"), tmp_path)
    assert message.startswith("there are several COCO files and their names do not tell the splits\n  a.json\n  b.json")
    assert "fix: name them instances_train.json, instances_val.json, instances_test.json; or name one file" in message


def test_masks_and_coco_in_one_folder(tmp_path):
    raw = world(tmp_path)
    (raw / "masks").mkdir()
    for item in document()["images"]:
        Image.fromarray(np.eye(H, W, dtype=np.uint8)).save(raw / "masks" / item["file_name"].replace("jpg", "png"))
    message = fails(raw, tmp_path)
    assert message == (
        "the masks can be read in more than one way\n  folders: photos in images and mask images in masks\n"
        "  coco: coco.json\nfix: say which: --form folders or --form coco"
    )
    assert run(raw, tmp_path, form="coco")[0].form == "coco"
    assert run(raw, tmp_path / "second", form="folders")[0].form == "folders"


def test_not_a_coco_file(tmp_path):
    path = tmp_path / "raw.json"
    path.write_text("[]")
    needs = "the file is not a COCO dataset: it needs 'images', 'annotations' and 'categories'"
    assert needs in fails(path, tmp_path, form="coco")
    assert "the file has no form of annotations that is known" in fails(path, tmp_path)
    path.write_text("{")
    assert "the file is not valid JSON" in fails(path, tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("x")
    assert "the file has no form of annotations that is known" in fails(text, tmp_path)


# ── photos ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_with_another_folder_are_found_by_file_name(tmp_path):
    raw = world(tmp_path, document([entry(1), entry(2)]))
    doc = document([entry(1, "old/place/1.jpg"), entry(2, "C\\x\\2.jpg")])
    (raw / "coco.json").write_text(json.dumps(doc))
    made, said = run(raw, tmp_path)
    assert [image.file_name for image in made.split("train").images] == ["1.jpg", "2.jpg"]
    assert (
        "mended: photos found by their name in another folder than the file says: 2 (old/place/1.jpg in images/" in said
    )


def test_photos_that_are_not_there(tmp_path):
    raw = world(tmp_path)
    (raw / "images/2.jpg").unlink()
    message = fails(raw, tmp_path)
    assert message.startswith("1 photo of coco.json cannot be found\n  2.jpg: not found in ")
    assert "fix: put the photos beside the file or in images/, or say where they are: --photos FOLDER" in message


def test_a_name_that_stands_in_two_folders(tmp_path):
    raw = world(tmp_path)
    (raw / "images/2.jpg").unlink()
    for folder in "ab":
        photo(raw / "images" / folder / "2.jpg")
    assert "2.jpg: found more than once: " in fails(raw, tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg", "C:/secret.jpg", "..\\x.jpg"]
)
def test_names_that_lead_outside(tmp_path, name):
    raw = world(tmp_path)
    (raw / "coco.json").write_text(json.dumps(document([entry(1), entry(2, name)])))
    message = fails(raw, tmp_path)
    assert message.startswith("file names in a data file must stay inside its folder\n")
    assert f"coco.json: file_name {name!r}" in message
    assert "fix: make the names relative to the photo folder, without '..'" in message


def test_photos_that_are_not_listed_are_accounted_for(tmp_path):
    raw = world(tmp_path)
    photo(raw / "images/extra.jpg")
    (raw / "images/.DS_Store").write_bytes(b"")
    (raw / "README.md").write_text("x")
    made, _ = run(raw, tmp_path)
    assert {item.path.name: item.why for item in made.skipped} == {
        "extra.jpg": "photo that the COCO file does not list",
        ".DS_Store": "left by the system",
        "README.md": "beside the data",
    }


def test_broken_and_wrong_photos(tmp_path):
    images = [entry(n) for n in range(1, 5)]
    raw = world(tmp_path, document(images))
    (raw / "images/1.jpg").write_bytes((raw / "images/1.jpg").read_bytes()[:900])
    photo(raw / "images/2.jpg", (H, W + 1))
    tags = Image.Exif()
    tags[0x0112] = 8
    photo(raw / "images/3.jpg", exif=tags)
    message = fails(raw, tmp_path)
    assert "1 picture file cannot be read\n  images/1.jpg: cannot be decoded (the file is cut off)" in message
    assert (
        "1 photo has another size than the COCO file says\n  coco.json: 2.jpg is 60 x 40 in the file, the photo 61 x 40"
        in message
    )
    assert (
        "1 photo was marked as the camera stored it, not as it is shown: the photo has an EXIF orientation" in message
    )
    assert "3.jpg is 60 x 40 in the file, the photo 40 x 60 when shown and 60 x 40 as stored" in message


def test_entries_of_photos_that_cannot_be_read(tmp_path):
    raw = world(tmp_path)
    (raw / "coco.json").write_text(json.dumps(document([entry(1), {"id": 2}], [])))
    assert "coco.json: images[1] needs an id and a file_name" in fails(raw, tmp_path)


def test_photos_listed_twice(tmp_path):
    assert "photos are listed twice\n  coco.json: 1.jpg (id 1 and id 2)" in fails(
        world(tmp_path, document([entry(1), entry(2, "1.jpg")])), tmp_path
    )


@pytest.mark.parametrize(("given", "crowds"), [("0", 0), (False, 0), (None, 0), ("1", 1), (True, 1)])
def test_crowds_are_told_in_numbers_truth_values_and_text(tmp_path, given, crowds):
    made, _ = run(world(tmp_path, document([entry(1)], [thing(1, 1, iscrowd=given), thing(2, 1)])), tmp_path)
    assert made.split("train").crowd.tolist() == [bool(crowds), False]


def test_what_is_no_crowd_flag_is_refused(tmp_path):
    raw = world(tmp_path, document([entry(1)], [thing(1, 1, iscrowd="no"), thing(2, 1, iscrowd=3)]))
    message = fails(raw, tmp_path)
    assert "coco.json: 1.jpg: annotation 1: iscrowd is 0 or 1, not 'no'" in message
    assert "coco.json: 1.jpg: annotation 2: iscrowd is 0 or 1, not 3" in message


def test_ids_with_underscores_are_texts_and_not_one_number(tmp_path):
    images = [entry("1_23", "a.jpg"), entry("12_3", "b.jpg")]
    annotations = [thing(1, "12_3"), thing(2, "1_23"), thing(3, "1_23")]
    made, _ = run(world(tmp_path, document(images, annotations)), tmp_path)
    data = made.split("train")
    assert dict(zip([image.file_name for image in data.images], np.diff(data.first).tolist(), strict=True)) == {
        "a.jpg": 2,
        "b.jpg": 1,
    }
    assert {mend.what: mend.count for mend in made.mends}[
        "image ids that are missing or no numbers, numbered from 1"
    ] == 2


# ── mends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mends(made):
    return {mend.what: mend.count for mend in made.mends}


def test_a_clean_file_needs_no_mend(tmp_path):
    rle = pixels.encode(np.pad(np.ones((20, 20), np.uint8), ((5, 15), (10, 30))))
    segmentation = {"size": [H, W], "counts": rle.decode()}
    made, _ = run(world(tmp_path, document([entry(1)], [thing(1, 1, segmentation)])), tmp_path)
    assert made.mends == ()
    data = made.split("train")
    assert data.info["description"] == "squares"
    assert data.licenses[0]["name"] == "CC0"
    assert data.areas.tolist() == [400]


def test_ids_that_are_0_missing_repeated_or_with_gaps(tmp_path):
    images = [entry(0), entry(5), entry(9)]
    things = [thing(0, 0, category=0), thing(0, 5, category=7), thing(12, "9", category=7)]
    del things[2]["id"]
    categories = [{"id": 7, "name": "b"}, {"id": 0, "name": "a"}]
    made, said = run(world(tmp_path, document(images, things, categories)), tmp_path)
    assert mends(made) == {
        "category id 0, renumbered from 1": 1,
        "image id 0, renumbered from 1": 1,
        "gaps in the image ids, renumbered from 1": 2,
        "annotation ids that are missing or no numbers, numbered from 1": 1,
        "annotation ids that stand more than once, renumbered from 1": 1,
        "annotation id 0, renumbered from 1": 1,
        "polygons turned into run lengths": 3,
    }
    assert "mended: image id 0, renumbered from 1: 1 (" in said
    data = made.split("train")
    assert [(c.id, c.name) for c in data.categories] == [(1, "a"), (2, "b")]
    assert [image.id for image in data.images] == [1, 2, 3]
    assert data.ids.tolist() == [1, 2, 3]
    assert data.category_ids.tolist() == [1, 2, 2]


def test_missing_header_area_box_and_size(tmp_path):
    doc = document([entry(1)], [thing(1, 1, area=3, bbox=[0, 0, 1, 1]), thing(2, 1)])
    del doc["info"], doc["licenses"], doc["images"][0]["width"], doc["annotations"][1]["area"]
    made, _ = run(world(tmp_path, doc), tmp_path)
    assert mends(made) == {
        "photos without width and height, taken from the picture": 1,
        "polygons turned into run lengths": 2,
        "wrong or missing 'area', computed from the mask": 2,
        "wrong or missing 'bbox', computed from the mask": 1,
        "no 'info' in the file, written anew": 1,
        "no 'licenses' in the file, written anew": 1,
    }
    data = made.split("train")
    assert data.areas.tolist() == [400, 400]
    assert data.boxes.tolist() == [[10, 5, 30, 25]] * 2
    assert {"description", "version", "year", "contributor", "date_created"} <= set(data.info)


def test_every_kind_of_segmentation(tmp_path):
    mask = np.zeros((H, W), dtype=np.uint8)
    mask[5:25, 10:30] = 1
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    kinds = [
        [SQUARE],
        SQUARE,
        [SQUARE, [10, 5, 30, 5]],
        {"size": [H, W], "counts": counts},
        {"size": [H, W], "counts": pixels.encode(mask).decode()},
    ]
    things = [thing(n, 1, kind) for n, kind in enumerate(kinds, 1)]
    made, _ = run(world(tmp_path, document([entry(1)], things)), tmp_path)
    data = made.split("train")
    assert all(np.array_equal(data.mask(k), mask) for k in range(len(kinds)))
    assert mends(made) == {
        "polygons turned into run lengths": 3,
        "polygons without the outer brackets": 1,
        "polygons of fewer than three points, left out": 1,
        "uncompressed run lengths, compressed": 1,
    }


def test_crowds_and_empty_photos_are_kept(tmp_path):
    crowd = {"size": [H, W], "counts": [0, H * W]}
    things = [thing(1, 1, crowd, iscrowd=1, area=H * W, bbox=[0, 0, W, H]), thing(2, 1)]
    made, _ = run(world(tmp_path, document(None, things)), tmp_path)
    data = made.split("train")
    assert data.crowd.tolist() == [True, False]
    assert [image.file_name for image in data.images] == ["1.jpg", "2.jpg"]
    assert mends(made)["crowd objects, kept as crowds (not learned, not scored)"] == 1
    assert mends(made)["photos without objects, kept"] == 1


def test_objects_without_a_pixel_and_out_of_the_photo(tmp_path):
    things = [
        thing(1, 1, [[1, 1, 1, 1, 1, 1]]),
        thing(2, 1, [[1, 1, 2, 2]]),
        thing(3, 1, [[50, 30, 90, 30, 90, 60, 50, 60]], area=100, bbox=[50, 30, 10, 10]),
    ]
    made, said = run(world(tmp_path, document([entry(1)], things)), tmp_path)
    assert mends(made)["objects without a pixel, left out"] == 2
    assert mends(made)["polygons that reach out of the photo, cut at its edge"] == 1
    assert made.objects == {"train": 1}
    assert "mended: objects without a pixel, left out: 2 (" in said
    assert "coco.json: 1.jpg" in said


def test_fields_that_are_not_kept_are_told(tmp_path):
    doc = document([entry(1, license=3)], [thing(1, 1, keypoints=[1], attributes={})])
    _, said = run(world(tmp_path, doc), tmp_path)
    assert "photo entries with fields that are not kept: 1 (license)" in said
    assert "objects with fields that are not kept: 1 (attributes, keypoints)" in said


def test_a_category_that_only_groups_others(tmp_path):
    categories = [
        {"id": 0, "name": "tools", "supercategory": "none"},
        {"id": 1, "name": "saw", "supercategory": "tools"},
    ]
    made, said = run(world(tmp_path, document(categories=categories)), tmp_path)
    assert made.categories == ("saw",)
    assert "mended: category that only groups others and has no objects, left out: 1 ('tools')" in said


def test_the_users_words_replace_the_files(tmp_path):
    made, _ = run(
        world(tmp_path),
        tmp_path,
        description="mine",
        contributor="me",
        license="CC BY 4.0",
        license_url="u",
        category="box",
    )
    data = made.split("train")
    assert (data.info["description"], data.info["contributor"], data.info["year"]) == ("mine", "me", 2020)
    assert data.licenses == ({"id": 1, "name": "CC BY 4.0", "url": "u"},)
    assert made.categories == ("box",)


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (thing(1, 77), "1 object of photos that are not listed\n  coco.json: annotations[0] names image 77"),
        (thing(1, 1.5), "annotations[0] names image 1.5"),  # and not 1
        (thing(1, True), "annotations[0] names image True"),
        (thing(1, 1, category=5), "annotation 1: no category 5"),
        (thing(1, 1, category=1.9), "annotation 1: no category 1.9"),
        (thing(1, 1, category=True), "annotation 1: no category True"),
        ({"id": 1}, "annotations[0] needs an image_id and a category_id"),
        (thing(1, 1, []), "annotation 1: it has no mask (a box is not enough)"),
        (thing(1, 1, [[1, 2, 3, 4, 5, 6, 7]]), "annotation 1: a polygon is not a list of finite numbers"),
        (thing(1, 1, [[1, 2, 3, 4, 5, 1e9]]), "annotation 1: a polygon reaches far outside of the photo"),
        (thing(1, 1, {"size": [3, 3], "counts": [9]}), "annotation 1: the RLE's size (height, width) (3, 3)"),
        (thing(1, 1, {"size": [H, W], "counts": [9]}), "annotation 1: the runs add up to 9"),
        (thing(1, 1, {"size": [H, W], "counts": "zz"}), "annotation 1: "),
        (thing(1, 1, "abc"), "annotation 1: "),
    ],
)
def test_objects_that_cannot_be_read(tmp_path, annotation, text):
    message = fails(world(tmp_path, document(None, [annotation, thing(2, 1)])), tmp_path)
    assert text in message
    assert "fix: " in message


def test_no_object_with_a_mask(tmp_path):
    assert "there is no object with a mask\n  coco.json" in fails(world(tmp_path, document(None, [])), tmp_path)


def test_categories_that_differ_between_splits(tmp_path):
    world(tmp_path, document([entry(1, "a.jpg")]), "instances_train.json")
    doc = document([entry(1, "b.jpg")], categories=[{"id": 1, "name": "circle"}])
    message = fails(world(tmp_path, doc, "instances_val.json"), tmp_path)
    assert "the categories differ between the splits\n  instances_train.json: square\n  " in message
    assert "instances_val.json: circle" in message
    assert "fix: give every file the same list of categories" in message


def test_category_ids_that_differ_are_joined_by_name(tmp_path):
    ab = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    ba = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}]
    world(tmp_path, document([entry(1, "a.jpg")], categories=ab), "instances_train.json")
    made, said = run(world(tmp_path, document([entry(1, "b.jpg")], categories=ba), "instances_val.json"), tmp_path)
    assert made.split("train").category_ids.tolist() == [1]
    assert made.split("val").category_ids.tolist() == [2]
    assert "category ids that differ between the files, joined by name" in said


def test_categories_that_cannot_be_read(tmp_path):
    message = fails(
        world(tmp_path, document(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}, {"id": 3}])), tmp_path
    )
    assert "categories must have different ids and names\n  coco.json: category 'a' (id 2) stands twice" in message
    assert "coco.json: categories[2] needs an id and a name" in message
    assert "the file has no categories" in fails(world(tmp_path, document(categories=[])), tmp_path)


def test_one_name_for_several_categories(tmp_path):
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    message = fails(world(tmp_path, document(categories=categories)), tmp_path, category="c")
    assert "one category name was given, the COCO file has several\n  coco.json: a, b" in message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=8)
    )
)
def test_whatever_stands_for_a_segmentation_is_read_or_refused(segmentation):
    """Law: a damaged segmentation gives an RLE of the photo's size, nothing, or one of three errors; never a crash."""
    from maskwright.formats import Tally

    try:
        rle = coco._object({"segmentation": segmentation}, (8, 9), "x", Tally())
    except (KeyError, TypeError, ValueError):
        return
    assert rle is None or pixels.decode(rle, (8, 9)).any()


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.shared
def test_fruits_and_nuts(tmp_path):
    if not FRUITS.is_dir():
        pytest.skip(f"{FRUITS} is not there")
    made, said = run(FRUITS, tmp_path)
    assert (made.photos, made.objects) == ({"train": 18}, {"train": 165})
    assert made.categories == ("date", "fig", "hazelnut")
    assert "image id 0, renumbered from 1" in said
    assert "polygons turned into run lengths: 165" in said
    assert "no 'info' in the file, written anew: 1" in said


def test_photos_that_share_an_id(tmp_path):
    raw = world(tmp_path, document([entry(1, "p0.jpg"), entry(1, "p1.jpg")]))
    assert fails(raw, tmp_path) == (
        "photos share an id, so nobody can tell whose an object is\n"
        "  coco.json: p0.jpg and p1.jpg share id 1\nfix: give each its own id"
    )


def test_the_folders_that_were_searched_are_named(tmp_path):
    raw = world(tmp_path)
    (raw / "images/2.jpg").unlink()
    line = fails(raw, tmp_path).splitlines()[1]
    assert line.startswith("  2.jpg: not found in ")
    assert set(line.rpartition(" in ")[2].split(", ")) == {f"{tmp_path}/raw", "images", str(tmp_path)}


@pytest.mark.parametrize("polygon", [["a", 1, 2, 3, 4, 5], [{}, 1, 2, 3, 4, 5], [[1, 2], [3], 4]])
def test_polygons_of_words(tmp_path, polygon):
    message = fails(world(tmp_path, document(annotations=[thing(1, 1, [polygon])])), tmp_path)
    assert "annotation 1: a polygon is not a list of finite numbers x1, y1, x2, y2, ..." in message


def test_a_file_name_that_no_file_can_have(tmp_path):
    raw = world(tmp_path)
    changed = document()
    changed["images"][0]["file_name"] = "a" * 5000
    (raw / "coco.json").write_text(json.dumps(changed))
    message = fails(raw, tmp_path)
    assert message.startswith("1 photo of coco.json cannot be found\n  aaaa")
    assert len(message) < 2000
