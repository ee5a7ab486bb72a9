"""Shards are found whole, or what is missing or odd about them is named."""

import json
from pathlib import Path

import pytest

from maskwright.dataset import Dataset, Image
from maskwright.errors import UserError
from maskwright.objects import Images, packed
from maskwright.shards import find_shards, means_coco, photos_beside, shard_name, shards_of, split_files


def shard(folder, number, total, *, stem="d", images=(), rows=(), categories=((1, "nut"),)):
    folder.mkdir(exist_ok=True)
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 4, "height": 3} for n in images],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [{"id": n, "image_id": i, "category_id": 1, "bbox": [0, 0, 1, 1]} for n, i in rows],
    }
    path = folder / shard_name(stem, number, total)
    path.write_text(json.dumps(document))
    return path


def refused(function):
    with pytest.raises(UserError) as caught:
        function()
    return str(caught.value)


def test_a_folder_a_pattern_and_the_plain_name_find_the_same(tmp_path):
    made = [shard(tmp_path, n, 2, images=[n + 1], rows=[(n + 1, n + 1)]) for n in (0, 1)]
    for path in (tmp_path, tmp_path / "d-*.json", tmp_path / "d.json"):
        assert find_shards(path) == made
        data = Dataset.load(path, tmp_path)
        assert (data.ids.tolist(), data.image_index.tolist()) == ([1, 2], [0, 1])
        assert [data.photo_path(image).name for image in data.images] == ["1.png", "2.png"]
    assert find_shards(tmp_path / "e.json") == []
    assert shards_of(tmp_path / "nothing", "d") == []
    assert Dataset.load(made[0]).ids.tolist() == [1]


def test_a_folder_that_is_there_is_no_pattern(tmp_path, monkeypatch):
    """Brackets in its name are brackets, whatever follows; a pattern may be in any part of the rest."""
    place = tmp_path / "data [v2]" / "annotations"
    place.mkdir(parents=True)
    made = [shard(place, n, 2, images=[n + 1]) for n in (0, 1)]
    (tmp_path / "data v" / "annotations").mkdir(parents=True)  # which `data [v2]` would match
    shard(tmp_path / "data v" / "annotations", 0, 1)
    for name in ("d.json", "d-*.json", "d-0000[01]-of-00002.json", "", "../a*/d-?????-of-*.json"):
        assert means_coco(place / name), name
        assert [path.resolve() for path in find_shards(place / name)] == made, name
    assert find_shards(tmp_path / "*[[]v2]" / "annotations" / "d-*.json") == made
    assert (find_shards(place / "e.json"), means_coco(place / "e.json")) == ([], False)
    assert "the file does not exist" in refused(lambda: Dataset.load(place / "e.json"))
    assert len(Dataset.load(place / "d.json").images) == 2
    monkeypatch.chdir(place)
    assert find_shards(Path("d-*.json")) == find_shards(Path("d.json")) == [Path(path.name) for path in made]


def test_the_files_of_a_split_are_one_or_its_shards(tmp_path):
    data = tmp_path / "data[1]"  # which is no pattern
    (data / "annotations").mkdir(parents=True)
    made = [shard(data / "annotations", n, 2, stem="instances_val", images=[n + 1]) for n in (0, 1)]
    (data / "annotations" / "instances_train.json").write_text(made[0].read_text())
    assert split_files(data, "val") == made
    assert split_files(data, "train") == [data / "annotations" / "instances_train.json"]
    assert split_files(data, "test") == []
    assert len(Dataset.read_split(data, "val").images) == 2
    assert Dataset.read_split(data, "test") is None


def test_what_means_a_coco_file(tmp_path):
    shard(tmp_path / "d", 0, 1)
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.jpg").write_bytes(b"")
    for name in ("d", "d/d.json", "d/d-*.json", "d/d-*", "d/d-00000-of-00001.json", "x.json"):
        assert means_coco(tmp_path / name), name
    for name in ("", "d/e.json", "d/e-*.json", "x.jpg", "x.*", "nothing", "nothing/d.json"):
        assert not means_coco(tmp_path / name), name


def test_photos_lie_beside_the_annotations_in_a_folder_of_their_split(tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "val").mkdir(parents=True)
    made = [shard(data / "annotations", n, 2, stem="instances_val", images=[n + 1]) for n in (0, 1)]
    place = data / "annotations"
    for path in (place, place / "instances_val.json", place / "instances_val-*.json", made[1]):
        assert photos_beside(path) == data / "val", path
    (tmp_path / "link.json").symlink_to(made[0])
    assert photos_beside(tmp_path / "link.json") == data / "val"
    monkeypatch.chdir(place)
    assert photos_beside(Path(made[0].name)) == data / "val"
    assert photos_beside(place / "instances_test.json") is None
    other = shard(tmp_path / "elsewhere", 0, 1, stem="instances_val")
    assert photos_beside(other) is None
    shard(place, 0, 1, stem="instances_train")
    assert photos_beside(place / "instances_train.json") is None  # the photos are not there


def test_missing_shards_are_named(tmp_path):
    shard(tmp_path, 1, 3)
    assert refused(lambda: Dataset.load(tmp_path / "d.json")) == (
        f"shards of the dataset are missing: 2 of 3\n  {tmp_path}/d-00000-of-00003.json\n"
        f"  {tmp_path}/d-00002-of-00003.json\nfix: copy or write them anew"
    )
    (tmp_path / "annotations").mkdir()
    shard(tmp_path / "annotations", 0, 2, stem="instances_val")
    assert "missing: 1 of 2" in refused(lambda: Dataset.read_split(tmp_path, "val"))
    assert Dataset.read_split(tmp_path, "test") is None


def test_shards_of_several_datasets_are_refused(tmp_path):
    shard(tmp_path, 0, 1)
    shard(tmp_path, 0, 2, stem="e")
    assert refused(lambda: Dataset.load(tmp_path)) == (
        f"the shards belong to several datasets\n  {tmp_path}/d: 1 of 1 shards\n  {tmp_path}/e: 1 of 2 shards\n"
        "fix: name one of them, such as 'instances_train-*.json', and remove what an earlier run left"
    )
    (tmp_path / "d-x.json").write_text("{}")
    assert refused(lambda: Dataset.load(tmp_path / "d-*.json")) == (
        f"files that are no shards lie among the shards\n  {tmp_path}/d-x.json\nfix: name the shards alone"
    )
    shard(tmp_path / "more", 0, 1)
    shard(tmp_path / "more", 1, 1)
    assert refused(lambda: Dataset.load(tmp_path / "more")) == (
        f"shards are numbered from 0 to 0\n  {tmp_path}/more/d-00001-of-00001.json\nfix: write the shards anew"
    )


def test_no_shards_at_all(tmp_path):
    example = "fix: name the file, or shards such as instances_train-00000-of-00012.json"
    found = refused(lambda: Dataset.load(tmp_path))
    assert found == f"the folder has no shards of a COCO file\n  {tmp_path}\n{example}"
    assert refused(lambda: Dataset.load(tmp_path / "*.json")) == (
        f"the pattern matches no file\n  {tmp_path}/*.json\n{example}"
    )
    assert "the file does not exist" in refused(lambda: Dataset.load(tmp_path / "d.json"))


def test_shards_must_fit_each_other(tmp_path):
    shard(tmp_path, 0, 2, images=[1, 2], rows=[(1, 1), (1, 2)])  # twice in one file is that file's matter
    shard(tmp_path, 1, 2, images=[2], rows=[(1, 2)], categories=[(1, "bolt")])
    assert refused(lambda: Dataset.load(tmp_path)) == (
        f"shards differ in categories\n  {tmp_path}/d-00000-of-00002.json: 1 nut\n"
        f"  {tmp_path}/d-00001-of-00002.json: 1 bolt\nfix: write the shards anew\n\n"
        f"image ids must differ over all shards\n  {tmp_path}/d-00001-of-00002.json: image 2 is in"
        f" {tmp_path}/d-00000-of-00002.json too\nfix: number them anew\n\n"
        f"annotation ids must differ over all shards\n  {tmp_path}/d-00001-of-00002.json: annotation 1 is in"
        f" {tmp_path}/d-00000-of-00002.json too\nfix: number them anew"
    )


def test_photos_in_columns_are_a_sequence():
    photos = (Image(7, "Größe \ud800.png", 4, 3), Image(2, "b/c.png", 1, 9))
    images = packed(photos)
    assert isinstance(images, Images)
    assert (images == photos, photos == images, images == photos[:1], images == 3) == (True, True, False, False)
    assert (tuple(images), images[-1], images[:1], len(images)) == (photos, photos[1], photos[:1], 2)
    assert (hash(images), images.sizes()) == (hash(photos), [(3, 4), (9, 1)])
    assert Images.join([images, images]) == photos * 2
    assert repr(packed(photos[1:])) == f"Images(1 photos, {photos[1]!r} first)"
    with pytest.raises(IndexError):
        images[2]
    assert packed([Image(2**70, "a.png", 1, 1)]) == (Image(2**70, "a.png", 1, 1),)
