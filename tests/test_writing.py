"""A streamed COCO file has the bytes of `Dataset.write`, shards hold them in pieces, and a failure leaves nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.writing import CocoWriter, write_shards

TOOLS = [Category(2, "nut"), Category(1, "Schlüssel")]
INFO = {"description": "ä \u2028", "year": 2024}
LICENSES = [{"id": 1, "name": "CC0", "url": ""}]


@st.composite
def datasets(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=5))
    images = [Image(10 * n + 3, f"Größe {n}.png", w, h) for n, (h, w) in enumerate(sizes)]
    annotations = []
    for n in range(draw(st.integers(0, 8)) if images else 0):
        image = draw(st.sampled_from(images))
        mask = np.random.default_rng(draw(st.integers(0, 99))).random(image.size) < 0.5
        rle = draw(st.sampled_from([None, pixels.encode(mask)]))
        box = draw(st.sampled_from([(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.7, 0.9)] + [None] * (rle is not None)))
        annotations.append(
            Annotation(
                n + 1,
                image.id,
                draw(st.sampled_from([1, 2])),
                rle,
                crowd=draw(st.booleans()),
                score=draw(st.none() | st.floats(0, 1)),
                box=box,
                area=draw(st.sampled_from([None, 3, 2.5])),
            )
        )
    return images, annotations


def stream(path, images, annotations, **options):
    with CocoWriter(path, TOOLS, INFO, LICENSES, **options) as writer:
        for image in images:
            writer.photo(image, (a for a in annotations if a.image_id == image.id))


@given(datasets())
def test_the_bytes_are_those_of_the_dataset(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("w")
    Dataset.build(TOOLS, *content, info=INFO, licenses=LICENSES).write(folder / "whole.json")
    stream(folder / "streamed.json", *content)
    assert (folder / "streamed.json").read_bytes() == (folder / "whole.json").read_bytes()
    assert len(list(folder.iterdir())) == 2


PHOTOS = [Image(n, f"{n}.jpg", 4, 3) for n in (5, 1, 9, 2, 7)]
RLE = pixels.encode(np.eye(3, 4, dtype=bool))
OBJECTS = [Annotation(n, image, 1 + n % 2, RLE) for n, image in enumerate([5, 5, 9, 7, 7, 7], start=1)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_shards_roll_over_and_are_read_as_one(tmp_path):
    stream(tmp_path / "annotations" / "instances_train.json", PHOTOS, OBJECTS, shard=2)
    assert names(tmp_path / "annotations") == [f"instances_train-0000{n}-of-00003.json" for n in range(3)]
    documents = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "annotations").iterdir())]
    assert [[i["id"] for i in d["images"]] for d in documents] == [[5, 1], [9, 2], [7]]
    assert [[a["id"] for a in d["annotations"]] for d in documents] == [[1, 2], [3], [4, 5, 6]]
    whole = Dataset.build(TOOLS, PHOTOS, OBJECTS, info=INFO, licenses=LICENSES)
    read = Dataset.read_split(tmp_path, "train")
    assert read.coco() == whole.coco()
    assert read.folder == tmp_path / "train"


def test_a_dataset_is_written_in_shards(tmp_path):
    whole = Dataset.build(TOOLS, PHOTOS, OBJECTS, info=INFO, licenses=LICENSES)
    written = write_shards(whole, tmp_path, "d", 4)
    assert [path.name for path in written] == ["d-00000-of-00002.json", "d-00001-of-00002.json"]
    assert Dataset.load(tmp_path).coco() == whole.coco()
    written = write_shards(whole, tmp_path, "d", 10)
    assert names(tmp_path) == ["d-00000-of-00001.json"]  # what the earlier run left would be read as missing shards
    whole.write(tmp_path / "whole.json")
    assert written[0].read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_no_photos_are_one_empty_shard(tmp_path):
    stream(tmp_path / "d.json", [], [], shard=3)
    assert names(tmp_path) == ["d-00000-of-00001.json"]
    assert len(Dataset.load(tmp_path / "d.json").images) == 0


@pytest.mark.parametrize("shard", [None, 1])
def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, shard):
    stream(tmp_path / "d.json", PHOTOS[:3], [], shard=shard)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    writer = CocoWriter(tmp_path / "d.json", TOOLS, shard=shard)

    def interrupted():
        with writer:
            for image in PHOTOS:
                writer.photo(image, [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="photos are written inside the `with` block"):
        writer.photo(PHOTOS[0], [])


@pytest.mark.parametrize("shard", [None, 1])
def test_a_place_that_cannot_be_written_is_named(tmp_path, shard):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"the output cannot be written; nothing was left half-done"),
        CocoWriter(tmp_path / "file" / "d.json", TOOLS, shard=shard),
    ):
        pass
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Annotation(1, 1, 1, RLE), "annotation 1 names image 1, not 5"),
        (Annotation(1, 5, 3, RLE), "annotation 1 names category 3, not listed"),
        (Annotation(1, 5, 1, None), "annotation 1 has neither a mask nor a box"),
    ],
)
def test_objects_that_do_not_fit_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message), CocoWriter(tmp_path / "d.json", TOOLS) as writer:
        writer.photo(PHOTOS[0], [wrong])
    assert names(tmp_path) == []


def test_a_shard_holds_a_photo_at_least(tmp_path):
    with pytest.raises(ValueError, match="a shard holds at least one photo, not 0"):
        CocoWriter(tmp_path / "d.json", TOOLS, shard=0)


def test_half_a_character_beside_the_objects_stays(tmp_path):
    """As a file that `compose` takes its objects from may have one."""
    with CocoWriter(tmp_path / "d.json", TOOLS, {"description": "\ud800é"}) as writer:
        writer.photo(PHOTOS[0], [])
    assert Dataset.load(tmp_path / "d.json").info == {"description": "\ud800é"}
