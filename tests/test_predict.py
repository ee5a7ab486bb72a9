"""A run and photos in any form become detections.json and mask images that fit the upright photos."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn
from torch.nn import functional

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.files import read_photo
from maskwright.models import ARCHITECTURES
from maskwright.predict import find_photos, load, predict
from maskwright.run import LAST, Run
from maskwright.writing import write_shards
from tiny_world import CATEGORIES, COLOURS, write_data

LOW = 0.1
REPLACE = "fix: replace or remove them"


class ByColour(nn.Module):
    """A network that need not learn: finds each category by its colour, and the whole photo as a doubtful hammer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def detect(self, images, shapes, least_score=0.02, between=lambda found: found):
        results = []
        for image, (height, width) in zip(images.float(), shapes, strict=True):
            found = [(0.05, 1, (0, 0, width, height), torch.ones(28, 28))]
            for label, colour in COLOURS.items():
                near = (image[:, :height, :width] - torch.tensor(colour)[:, None, None]).abs().sum(0) < 120
                if near.any():
                    ys, xs = torch.nonzero(near.any(1))[:, 0], torch.nonzero(near.any(0))[:, 0]
                    x1, y1, x2, y2 = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
                    part = near[None, None, y1:y2, x1:x2].float()
                    mask = functional.interpolate(part, (28, 28), mode="bilinear")[0, 0]
                    found.append((1 - 0.2 * label, label, (x1, y1, x2, y2), mask))
            found = sorted((f for f in found if f[0] >= least_score), key=lambda f: -f[0])
            boxes = torch.tensor([f[2] for f in found], dtype=torch.float32).reshape(-1, 4)
            masks = torch.stack([f[3] for f in found]) if found else torch.zeros(0, 28, 28)
            scores, labels = (torch.tensor([f[k] for f in found]) for k in (0, 1))
            results.append({"boxes": boxes, "windows": boxes, "scores": scores, "labels": labels, "masks": masks})
        masks = [r.pop("masks") for r in results]  # boxes are where they are in both views, so these stay
        results = between(results)
        return [r | {"windows": r["boxes"], "masks": m} for r, m in zip(results, masks, strict=True)]


class OneSided(ByColour):
    """The same, but less sure of what lies in the left half: of an object in one of two views, that is."""

    def detect(self, images, shapes, least_score=0.02, between=lambda found: found):
        def unsure(views):
            doubted = []
            for view, (_, width) in zip(views, shapes, strict=True):
                left = view["boxes"][:, 0] + view["boxes"][:, 2] < width
                view["scores"] = view["scores"] - 0.3 * left
                doubted.append({k: v[view["scores"] >= least_score] for k, v in view.items()})
            return between(doubted)

        results = super().detect(images, shapes, 0.0, unsure)
        return [r | {"masks": torch.ones(len(r["boxes"]), 28, 28)} for r in results]


@pytest.fixture(scope="module", autouse=True)
def _known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "by-colour", lambda _sizes, _weights: ByColour())
        patch.setitem(ARCHITECTURES, "one-sided", lambda _sizes, _weights: OneSided())
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, _known):
    path = tmp_path_factory.mktemp("run")
    made = Run(path=path, architecture="by-colour", sizes={}, categories=CATEGORIES, side=64, threshold=0.7).write()
    made.save_weights(LAST, ByColour().state_dict())
    return path


@pytest.fixture(scope="module")
def model(run):
    return load(run)


@pytest.fixture(scope="module")
def album(tmp_path_factory, data):
    """A folder of photos in subfolders, with names of all kinds and side files."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "Größe 1").mkdir()
    shutil.copy(data / "test" / "test_0.png", folder / "b.png")
    shutil.copy(data / "test" / "test_1.png", folder / "Größe 1" / "日本 ä.png")
    with Picture.open(data / "val" / "val_0.png") as photo:
        exif = Picture.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        photo.resize((64, 40)).save(folder / "turned.jpg", exif=exif, quality=95)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture(scope="module")
def predicted(run, album, tmp_path_factory):
    """What `predict` wrote of the album and what it said."""
    out, said = tmp_path_factory.mktemp("out") / "predictions", []
    found = predict(run, album, out, say=said.append, score=LOW)
    return out, said, found


def message(call, *args, **more):
    with pytest.raises(UserError) as caught:
        call(*args, **more)
    return str(caught.value)


def mask_files(out):
    return sorted(p.relative_to(out / "masks").as_posix() for p in (out / "masks").rglob("*") if p.is_file())


# A folder


def test_a_folder_is_searched_through_and_every_photo_is_in_the_file(predicted):
    out, _, found = predicted
    stored = json.loads((out / "detections.json").read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in stored["images"]] == [
        ("Größe 1/日本 ä.png", found.images[0].width, found.images[0].height),
        ("b.png", found.images[1].width, found.images[1].height),
        ("turned.jpg", 40, 64),
    ]
    assert sorted(p.name for p in out.iterdir()) == ["detections.json", "masks"]


def test_detections_json_is_a_complete_coco_file(predicted, run):
    out, _, found = predicted
    stored = json.loads((out / "detections.json").read_text())
    assert {"info", "licenses", "categories", "images", "annotations"} <= set(stored)
    assert len(stored["annotations"]) == len(found) > 0
    assert all(0.02 <= a["score"] <= 1 for a in stored["annotations"])
    assert [a["id"] for a in stored["annotations"]] == list(range(1, len(found) + 1))
    assert [(c["id"], c["name"]) for c in stored["categories"]] == [(1, "hammer"), (2, "nut")]
    assert {a["category_id"] for a in stored["annotations"]} <= {1, 2}
    assert all(a["segmentation"]["counts"] for a in stored["annotations"])
    info = stored["info"]["maskwright"]
    assert info == {"run": str(run.resolve()), "threshold": LOW, "least_score": 0.02}
    again = Dataset.read(out / "detections.json")
    np.testing.assert_allclose(again.boxes, found.boxes)


def test_masks_have_the_size_of_the_upright_photo_and_hold_what_was_found(predicted):
    out, _, found = predicted
    names = mask_files(out)
    assert names != []
    shown = found.select(found.scores >= LOW)
    for index, image in enumerate(found.images):
        stem = image.file_name.rsplit(".", 1)[0]
        for category in found.categories:
            ks = [k for k in range(*shown.first[index : index + 2]) if shown.category_ids[k] == category.id]
            assert (f"{stem}_{category.name}.png" in names) == bool(ks)
            if ks:
                with Picture.open(out / "masks" / f"{stem}_{category.name}.png") as picture:
                    values = np.asarray(picture)
                assert (values.shape, picture.mode) == (image.size, "L")
                np.testing.assert_array_equal(values, np.any([shown.mask(k) for k in ks], axis=0) * 255)


def test_what_is_said_counts_photos_and_objects(predicted):
    out, said, found = predicted
    shown = int((found.scores >= LOW).sum())
    with_any = len(set(found.image_index[found.scores >= LOW].tolist()))
    assert said[0] == "3 photos; masks from a score of 0.10 on (given)"
    assert said[-1] == f"{shown} objects in {with_any} of 3 photos; {len(found)} detections in all: {out}"
    assert (shown, with_any, len(found)) == (6, 3, 9)


@pytest.mark.parametrize("split", ["test", "val"])
def test_masks_and_boxes_are_where_the_objects_are(run, data, tmp_path, split):
    truth = Dataset.read_split(data, split)
    found = predict(run, data, tmp_path / "out", split=split)
    for k, wanted in enumerate(truth.annotations()):
        position = int(truth.image_index[k])
        best = max(
            pixels.iou([found.rle(j)], [wanted.rle], truth.images[position].size).item()
            for j in range(*found.first[position : position + 2])
            if found.category_ids[j] == wanted.category_id
        )
        assert best > 0.75


def test_a_photo_that_was_held_upright_is_judged_upright(model, album):
    upright = read_photo(album / "turned.jpg").astype(int)
    found = model(album / "turned.jpg")
    assert upright.shape[:2] == found.size == (64, 40)
    inside = upright[found.masks[0]].mean(axis=0)
    assert abs(inside - COLOURS[1]).max() < 40


# Forms, scores


def test_one_mask_image_per_object(run, data, tmp_path):
    found = predict(run, data / "test" / "test_0.png", tmp_path / "out", form="instances", score=LOW)
    shown = found.select(found.scores >= LOW)
    names = mask_files(tmp_path / "out")
    assert len(names) == len(shown) > 0
    drawn = [read_photo(tmp_path / "out" / "masks" / name)[..., 0] > 0 for name in names]
    np.testing.assert_array_equal(drawn, [shown.mask(k) for k in range(len(shown))])  # hammer before nut in both


def test_one_id_image_per_photo_with_its_key(run, data, tmp_path):
    found = predict(run, data / "test" / "test_0.png", tmp_path / "out", form="ids", score=LOW)
    shown = found.select(found.scores >= LOW)
    assert mask_files(tmp_path / "out") == ["ids.json", "test_0.png"]
    with Picture.open(tmp_path / "out" / "masks" / "test_0.png") as picture:
        values = np.asarray(picture)
    key = json.loads((tmp_path / "out" / "masks" / "ids.json").read_text())["test_0.png"]
    assert len(key) == len(shown)
    assert {str(v) for v in np.unique(values) if v} <= set(key)
    assert values.shape == shown.images[0].size
    np.testing.assert_array_equal(values > 0, np.any([shown.mask(k) for k in range(len(shown))], axis=0))


def test_without_a_score_the_runs_own_threshold_decides(run, data, tmp_path):
    said = []
    found = predict(run, data / "test" / "test_0.png", tmp_path / "out", say=said.append)
    threshold = Run.read(run).threshold
    assert said[0] == f"1 photo; masks from a score of {threshold:.2f} on (advised by the run's validation)"
    assert found.info["maskwright"]["threshold"] == threshold
    assert sorted(found.scores.tolist()) == pytest.approx([0.05, 0.6, 0.8])
    assert mask_files(tmp_path / "out") == ["test_0_hammer.png"]


def test_a_score_that_nothing_reaches_leaves_the_detections_and_no_mask(run, data, tmp_path):
    found = predict(run, data / "test" / "test_0.png", tmp_path / "out", score=1.0)
    assert len(found) > 0
    assert mask_files(tmp_path / "out") == []
    assert (tmp_path / "out" / "masks").is_dir()


def test_test_time_flips_find_the_same_where_mirror_images_look_alike(run, model, data, tmp_path):
    plain = predict(run, data, tmp_path / "plain", split="test")
    flipped = predict(run, data, tmp_path / "flipped", split="test", test_time_flip=True)
    assert len(flipped) == len(plain) > 0
    np.testing.assert_allclose(flipped.boxes, plain.boxes, rtol=1e-6)
    np.testing.assert_allclose(flipped.scores, plain.scores, rtol=1e-6)
    for k in range(len(plain)):
        assert pixels.iou([flipped.rle(k)], [plain.rle(k)], plain.size_of(k)).item() > 0.9
    assert flipped.info["maskwright"]["test_time_flip"] is True
    assert "test_time_flip" not in plain.info["maskwright"]
    photo = read_photo(data / "test" / "test_0.png")
    assert len(model(photo, score=LOW, test_time_flip=True)) == len(model(photo, score=LOW)) > 0


def test_with_flips_a_call_finds_what_predict_finds(data, tmp_path):
    path = tmp_path / "run"
    made = Run(path=path, architecture="one-sided", sizes={}, categories=CATEGORIES, side=64, threshold=0.6).write()
    made.save_weights(LAST, OneSided().state_dict())
    stored = predict(path, data, tmp_path / "out", split="test", test_time_flip=True)
    model, between = load(path), 0
    for index, image in enumerate(stored.images):
        every = range(*stored.first[index : index + 2])
        wanted = [k for k in every if stored.scores[k] >= 0.6]
        found = model(data / "test" / image.file_name, test_time_flip=True)
        assert found.rles == tuple(stored.rle(k) for k in wanted)
        assert found.scores.tolist() == [stored.scores[k] for k in wanted]
        between += sum(0.6 <= stored.scores[k] < 0.7 for k in every)  # 0.8 in one view, 0.5 in the other
    assert between == 1  # the other photo's hammer stands in the very middle


@pytest.mark.parametrize(("short_side", "inner"), [(None, (40, 64)), (32, (32, 51))])
def test_photos_are_scaled_as_the_run_says(tmp_path, monkeypatch, short_side, inner):
    seen, plain = [], ByColour.detect

    def noted(self, images, shapes, *rest, **more):
        seen.append(shapes[0])
        return plain(self, images, shapes, *rest, **more)

    monkeypatch.setattr(ByColour, "detect", noted)
    path = tmp_path / "run"
    made = Run(path=path, architecture="by-colour", sizes={}, categories=CATEGORIES, side=64, short_side=short_side)
    made.write().save_weights(LAST, ByColour().state_dict())
    Picture.new("RGB", (160, 100)).save(tmp_path / "a.png")
    predict(path, tmp_path / "a.png", tmp_path / "out")
    load(path)(tmp_path / "a.png")
    assert seen == [inner, inner]


# Photos given in other ways


def test_a_coco_file_keeps_its_ids_and_needs_no_copy_of_its_photos(run, data, tmp_path):
    truth = json.loads((data / "annotations" / "instances_test.json").read_text())
    by_path = predict(run, data / "annotations" / "instances_test.json", tmp_path / "a")
    assert [i.id for i in by_path.images] == [i["id"] for i in truth["images"]]
    by_split = predict(run, data, tmp_path / "b", split="test")
    assert by_split.coco()["annotations"] == by_path.coco()["annotations"]
    assert by_split.images == by_path.images


def test_shards_name_the_photos_like_one_file(data, tmp_path):
    whole = find_photos(data / "annotations" / "instances_val.json")
    place = tmp_path / "annotations"
    shutil.copytree(data / "val", tmp_path / "val")
    made = write_shards(Dataset.read_split(data, "val"), place, "instances_val", 2)
    for path in (place, place / "instances_val.json", place / "instances_val-*.json"):
        found = find_photos(path)
        assert [image for image, _ in found] == [image for image, _ in whole]
        assert [file for _, file in found] == [tmp_path / "val" / f"val_{n}.png" for n in range(3)]
    assert [file.name for _, file in find_photos(made[1])] == ["val_2.png"]
    shutil.copy(data / "val" / "val_0.png", place)
    assert [file for _, file in find_photos(place)] == [place / "val_0.png"]  # a folder of photos is that first


def test_a_coco_file_beside_its_photos_finds_them(data, tmp_path):
    shutil.copytree(data / "test", tmp_path / "photos")
    shutil.copy(data / "annotations" / "instances_test.json", tmp_path / "photos" / "mine.json")
    assert [path for _, path in find_photos(tmp_path / "photos" / "mine.json")] == [
        tmp_path / "photos" / "test_0.png",
        tmp_path / "photos" / "test_1.png",
    ]


def test_a_single_photo_is_known_by_its_name(album):
    [(image, path)] = find_photos(album / "turned.jpg")
    assert (image.id, image.file_name, image.size) == (1, "turned.jpg", (64, 40))
    assert path == album / "turned.jpg"


# One photo in memory


def test_a_path_and_its_pixels_give_the_same(model, album):
    by_path = model(album / "turned.jpg", score=LOW)
    by_text = model(str(album / "turned.jpg"), score=LOW)
    by_array = model(read_photo(album / "turned.jpg"), score=LOW)
    assert len(by_path) > 0
    assert by_path.rles == by_array.rles == by_text.rles
    np.testing.assert_array_equal(by_path.scores, by_array.scores)
    assert by_path.size == (64, 40)
    assert by_path.masks.shape == (len(by_path), 64, 40)
    assert set(by_path.categories) <= {"hammer", "nut"}


def test_one_photo_gives_what_predict_gives(model, data, run, tmp_path):
    found = predict(run, data / "test" / "test_1.png", tmp_path / "out")
    alone = model(data / "test" / "test_1.png", score=0.02)
    assert alone.rles == tuple(found.rle(k) for k in range(len(found)))
    np.testing.assert_array_equal(alone.scores, found.scores)
    np.testing.assert_array_equal(alone.boxes, found.boxes)


def test_the_score_of_a_call_is_the_least_one(model, data):
    every = model(data / "test" / "test_0.png", score=0.0)
    advised = model(data / "test" / "test_0.png")
    assert every.scores.tolist() == pytest.approx([0.8, 0.6, 0.05])
    assert advised.scores.tolist() == pytest.approx([0.8])


def test_an_array_that_is_a_view_of_another_is_read_as_it_looks(model, data):
    photo = read_photo(data / "test" / "test_0.png")
    mirrored = model(photo[:, ::-1], score=LOW)
    copied = model(np.ascontiguousarray(photo[:, ::-1]), score=LOW)
    assert mirrored.rles == copied.rles


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5), dtype=np.uint8), "shape (4, 5), dtype uint8"),
        (np.zeros((4, 5, 4), dtype=np.uint8), "shape (4, 5, 4), dtype uint8"),
        (np.zeros((4, 5, 3)), "shape (4, 5, 3), dtype float64"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "shape (0, 5, 3), dtype uint8"),
    ],
)
def test_an_array_of_another_form_is_refused(model, array, found):
    assert message(model, array) == (
        "a photo in memory is an array (H, W, 3) of uint8, RGB\n"
        f"  {found}\n"
        "fix: convert it: grey by np.repeat, floats of 0..1 by (255 * x).astype(np.uint8)"
    )


def test_a_file_that_is_no_photo_is_refused(model, album):
    assert message(model, album / "notes.txt") == (
        f"a photo cannot be read\n  {album / 'notes.txt'} is not a picture that can be read\nfix: replace it"
    )


# Refusals


def test_a_folder_without_photos_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert message(predict, run, tmp_path / "empty", tmp_path / "out") == (
        "the folder has no photos\n"
        f"  {tmp_path / 'empty'}\n"
        "fix: photos end in .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp"
    )
    assert not (tmp_path / "out").exists()


def test_photos_that_do_not_exist_are_refused(run, tmp_path):
    assert message(predict, run, tmp_path / "none", tmp_path / "out") == (
        f"the photos do not exist\n  {tmp_path / 'none'}\nfix: check the path"
    )


def test_all_photos_that_cannot_be_read_are_named(run, album, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(album, folder)
    (folder / "a.jpg").write_bytes(b"")
    (folder / "z.png").write_bytes(b"no picture")
    assert message(predict, run, folder, tmp_path / "out") == (
        "some photos cannot be read\n"
        f"  {folder / 'a.jpg'} is empty (0 bytes)\n"
        f"  {folder / 'z.png'} is not a picture that can be read\n"
        "fix: replace or remove them"
    )


def test_a_photo_that_is_cut_off_leaves_nothing_half_done(run, data, tmp_path):
    path = tmp_path / "cut.png"
    whole = (data / "test" / "test_0.png").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = message(predict, run, path, tmp_path / "out")
    assert found == f"some photos cannot be read\n  {path} cannot be decoded (the file is cut off)\n{REPLACE}"
    assert [p.name for p in tmp_path.iterdir()] == ["cut.png"]


def test_photos_whose_names_are_no_text_are_refused_before_any_is_looked_at(data, tmp_path):
    """They could not be written in detections.json, which would show after the last photo."""
    shutil.copy(data / "test" / sorted(os.listdir(data / "test"))[0], os.fsencode(tmp_path) + b"/\xff.png")
    said = message(find_photos, tmp_path)
    assert said.startswith("file names must be valid UTF-8\n")
    assert "\\udcff.png" in said


def test_a_split_that_is_not_there_is_refused(run, album, tmp_path):
    assert message(predict, run, album, tmp_path / "out", split="val") == (
        f"the data folder has no val split\n  {album}\nfix: name another split"
    )


def test_an_output_that_exists_is_refused_unless_it_may_be_replaced(run, data, tmp_path):
    out = tmp_path / "out"
    photo = data / "test" / "test_0.png"
    predict(run, photo, out)
    (out / "mine.txt").write_text("x")
    assert message(predict, run, photo, out) == (
        f"the output exists already\n  {out}\nfix: name another output, or: --overwrite"
    )
    assert (out / "mine.txt").exists()
    predict(run, photo, out, overwrite=True, score=LOW)
    assert sorted(p.name for p in out.iterdir()) == ["detections.json", "masks"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("held", ["mine.txt", "detections.json", "masks/mine.png"])
def test_what_predict_has_not_made_is_never_replaced(run, data, tmp_path, held, overwrite):
    out = tmp_path / "out"
    (out / held).parent.mkdir(parents=True)
    (out / held).write_text("x")
    found = message(predict, run, data / "test" / "test_0.png", out, overwrite=overwrite)
    assert found.startswith("the output exists already, and is no former output of predict")
    name = held.split("/")[0]
    assert f"\n  {out}: {name}\nfix: name another output, or remove the folder by hand" in found
    assert (out / held).read_text() == "x"


def test_mask_images_of_former_outputs_are_not_taken_for_photos(run, data, tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for name in ("one.png", "more/two.png"):
        shutil.copy(data / "test" / "test_0.png", photos / name)
    first = predict(run, photos, photos / "out", score=LOW)
    drawn = len(list((photos / "out" / "masks").rglob("*.png")))
    assert drawn > 0
    said = []
    again = predict(run, photos, photos / "out", overwrite=True, score=LOW, say=said.append)
    assert [image.file_name for image in again.images] == [image.file_name for image in first.images]
    assert [image.file_name for image in again.images] == ["more/two.png", "one.png"]
    pictures = f"{drawn} pictures in former outputs are" if drawn > 1 else "1 picture in former outputs is"
    assert said[0].startswith(f"{pictures} left out ({photos / 'out' / 'masks'}")
    for name in ("one.png", "more/two.png"):
        (photos / name).unlink()
    found = message(find_photos, photos)
    assert found.startswith(f"the folder has no photos\n  {photos}\n  {pictures} left out (")


def test_the_photos_and_the_run_are_never_replaced(run, data, tmp_path):
    photos = data / "test"
    before = sorted(photos.iterdir())
    assert message(predict, run, photos, photos, overwrite=True) == (
        "the output must not be the input or hold it: replacing it would delete the input\n"
        f"  {photos} and {photos}\nfix: name another output"
    )
    message(predict, run, photos, run, overwrite=True)
    for name, out in (("annotations/instances_tes*.json", data), ("annotations/instances_test.json", photos)):
        assert "the output must not be the input or hold it" in message(predict, run, data / name, out, overwrite=True)
    assert "the output must not be" in message(predict, run, data, photos, split="test", overwrite=True)
    assert sorted(photos.iterdir()) == before
    assert (run / "run.json").is_file()


def test_an_unknown_setting_is_refused_with_the_nearest(run, data, tmp_path):
    assert message(predict, run, data / "test", tmp_path / "out", scores=0.5).startswith(
        "there is no setting of this name\n  scores; did you mean 'score'?\n"
    )


def test_a_folder_that_is_no_run_is_refused(data, tmp_path):
    assert message(load, data).startswith(f"the folder is not a run: run.json is not there\n  {data}\n")


def test_links_to_folders_are_told_and_links_to_photos_followed(run, data, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").symlink_to(data / "test" / "test_0.png")
    (photos / "more").symlink_to(data / "test")
    said = []
    found = predict(run, photos, tmp_path / "out", say=said.append, score=LOW)
    assert said[0] == f"warning: 1 link to a folder is not followed ({photos / 'more'})"
    assert [image.file_name for image in found.images] == ["one.png"]
    (photos / "one.png").unlink()
    assert f"1 link to a folder is not followed ({photos / 'more'})" in message(predict, run, photos, tmp_path / "new")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert message(predict, run, photos, tmp_path / "new") == (
        f"some photos cannot be read\n  {photos / 'gone.png'} cannot be opened (No such file or directory)\n{REPLACE}"
    )


def test_a_full_disk_leaves_nothing(run, data, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    found = message(predict, run, data / "test", tmp_path / "out")
    assert found.startswith("the output cannot be written; nothing was left half-done\n")
    assert found.endswith("No space left on device\nfix: free some space, then run the command again")
    assert list(tmp_path.iterdir()) == []
