"""No output harms the input: whatever was read, by whatever name, is still there afterwards."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.errors import UserError
from maskwright.prepare import prepare
from maskwright.refusals import Harmless

SIZE = (20, 30)
HARMFUL = "the output must not be the input, hold it, or lie in a folder of photos or masks\n"


def coco(root, photos="train", listed=("0.png", "1.png"), unlisted=("2.png",)):
    """Write ROOT/annotations/instances_train.json and photos beside it, one of which it does not list."""
    (root / photos).mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for name in (*listed, *unlisted):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(root / photos / name)
    document = {
        "images": [
            {"id": n, "file_name": name, "width": SIZE[1], "height": SIZE[0]} for n, name in enumerate(listed, 1)
        ],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 9]], "iscrowd": 0}
            for n, _ in enumerate(listed, 1)
        ],
    }
    path = root / "annotations" / "instances_train.json"
    path.write_text(json.dumps(document))
    return path


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fails(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        prepare(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("out", ["coco/train", "coco/train/DATA", "coco/annotations", "coco", ".", "coco/train/."])
@pytest.mark.parametrize("name", ["coco", "coco/annotations/instances_train.json", "c*/annotations/instances_*.json"])
@pytest.mark.usefixtures("taken_for_former")
def test_the_photos_of_a_coco_file_are_never_replaced(tmp_path, monkeypatch, name, out):
    coco(tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    assert fails(name, out=out, overwrite=True).startswith(HARMFUL)
    assert listing(tmp_path) == before


def test_an_output_beside_the_photos_is_fine(tmp_path):
    path = coco(tmp_path / "coco")
    assert prepare(path, out=tmp_path / "coco" / "DATA", val_share=0, test_share=0).photos == {"train": 2}
    assert prepare(path, out=tmp_path / "coco" / "DATA", overwrite=True).form == "coco"


@pytest.mark.usefixtures("taken_for_former")
def test_photos_that_are_named_are_never_replaced(tmp_path):
    path = coco(tmp_path / "coco")
    shutil.move(tmp_path / "coco" / "train", tmp_path / "images")
    message = fails(path, out=tmp_path / "images", photos=str(tmp_path / "images"), overwrite=True)
    assert message == f"{HARMFUL}  {tmp_path}/images and {tmp_path}/images\nfix: name another output folder"
    assert listing(tmp_path / "images") == ["0.png", "1.png", "2.png"]


@pytest.mark.usefixtures("taken_for_former")
def test_photos_behind_a_link_are_never_replaced(tmp_path):
    path = coco(tmp_path / "coco")
    shutil.move(tmp_path / "coco" / "train", tmp_path / "elsewhere")
    (tmp_path / "coco" / "train").symlink_to(tmp_path / "elsewhere")
    for out in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "DATA"):
        assert fails(path, out=out, overwrite=True).startswith(HARMFUL)
    assert listing(tmp_path / "elsewhere") == ["0.png", "1.png", "2.png"]


@pytest.mark.usefixtures("taken_for_former")
def test_photos_of_labels_are_never_replaced(tmp_path):
    """Labelme files in one folder, their photos in another; neither is read whole, so both show by what was read."""
    (tmp_path / "raw" / "images").mkdir(parents=True)
    (tmp_path / "raw" / "labels").mkdir()
    for n in range(2):
        Image.new("RGB", SIZE[::-1], (n, 9, 9)).save(tmp_path / "raw" / "images" / f"{n}.jpg")
        shape = {"label": "nut", "shape_type": "polygon", "points": [[2, 2], [12, 2], [12, 9]]}
        label = {"shapes": [shape], "imagePath": f"../images/{n}.jpg", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (tmp_path / "raw" / "labels" / f"{n}.json").write_text(json.dumps(label))
    before = listing(tmp_path)
    for out in ("images", "labels", "images/DATA"):
        assert fails(tmp_path / "raw", out=tmp_path / "raw" / out, overwrite=True).startswith(HARMFUL), out
        assert listing(tmp_path) == before
    assert prepare(tmp_path / "raw", out=tmp_path / "raw" / "DATA").form == "labelme"


def test_each_folder_is_looked_at_once(tmp_path, monkeypatch):
    """A million photos are in few folders."""
    looked = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **how: looked.append(str(path)) or realpath(path, **how))
    harmless = Harmless(tmp_path / "out")
    looked.clear()
    for _ in range(3):
        harmless.beside({"a", "b"})
    assert set(looked) == {"a", "b"}
    assert len(looked) == 4  # is it held, and does the output lie in it
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"  \S+out and out/x\n  \S+out and out/y\n"):
        harmless.beside({"a", "out/y", "out/x"})
    with pytest.raises(UserError, match="lie in a folder of photos"):
        Harmless(Path("photos/out")).beside({"photos"})
    with pytest.raises(UserError, match="lie in a folder of photos"):
        Harmless(Path("out")).beside({""})  # photos in the folder where the command was typed
