"""Objects that are large enough to be learned, and the photos that have one."""

from dataclasses import replace

import numpy as np
import pytest

from maskwright import pixels
from maskwright.dataset import Annotation, Dataset
from maskwright.errors import UserError
from maskwright.usable import chosen_photos, part_of, usable
from tiny_world import write_data, write_split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("usable") / "data")


def specks(tmp_path, side, others=0):
    """A train split of photos of 400 x 400 with one square object each, `others` of them with one of 100 pixels."""
    data = write_data(tmp_path / "data", val=0, test=0)
    truth = Dataset.read_split(data, "train")
    images = [replace(image, width=400, height=400) for image in truth.images]
    objects = []
    for i, image in enumerate(images):
        mask = np.zeros((400, 400), dtype=bool)
        n = 100 if i < others else side
        mask[50 : 50 + n, 60 : 60 + n] = True
        objects.append(Annotation(i + 1, image.id, 1 if i < others else 2, pixels.encode(mask)))
    return Dataset.build(truth.categories, images, objects, info=truth.info, folder=truth.folder)


def planned(canvas):
    class Made:
        pass

    Made.canvas = canvas
    return Made()


def test_objects_that_scaling_takes_are_refused_if_none_is_left(tmp_path):
    truth = specks(tmp_path, side=5)
    with pytest.raises(UserError) as caught:
        usable(truth, planned((96, 96)), print)
    assert str(caught.value) == (
        "no object is large enough to be learned at the network's working size\n"
        f"  {truth.folder}: 6 objects, 0 others (crowds, boxes without a mask)\n"
        "  the largest object has 1.4 pixels at side 96, 12 are needed\n"
        "fix: --side 288"
    )
    usable(truth, planned((288, 288)), print)  # the fix is one


def test_objects_for_which_no_side_is_enough_are_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        usable(specks(tmp_path, side=1), planned((32, 384)), print)
    assert str(caught.value).endswith("\nfix: cut the photos into parts in which objects are larger")


def test_crowds_alone_are_nothing_to_learn(tmp_path):
    truth = specks(tmp_path, side=5)
    with pytest.raises(UserError) as caught:
        usable(replace(truth, crowd=np.ones(6, dtype=bool)), planned((384, 384)), print)
    assert str(caught.value).splitlines()[1:] == [
        f"  {truth.folder}: 0 objects, 6 others (crowds, boxes without a mask)",
        "fix: give objects with masks",
    ]


def test_objects_that_scaling_takes_are_counted(tmp_path):
    said = []
    found = usable(specks(tmp_path, side=5, others=2), planned((96, 96)), said.append)
    assert (found.objects, found.lost, found.photos) == (6, 4, 2)
    assert said == [
        "warning: 4 of 6 objects have fewer than 12 pixels at side 96 and are not learned (more: a larger --side)",
        "warning: no object of these categories is large enough to be learned: nut",
    ]


def test_photos_are_chosen_evenly_and_only_with_objects(data):
    truth = Dataset.read_split(data, "train")
    assert chosen_photos(truth, (64, 64), 12) == [0, 1, 2, 3, 4, 5]
    assert chosen_photos(truth, (64, 64), 2) == [0, 5]
    assert chosen_photos(truth.select(truth.image_index != 0), (64, 64), 2) == [1, 5]


def test_a_part_of_a_dataset_keeps_its_objects(data):
    truth = Dataset.read_split(data, "train")
    part = part_of(truth, [1, 4])
    assert [image.file_name for image in part.images] == ["train_1.png", "train_4.png"]
    assert [a.rle for a in part.annotations()] == [a.rle for a in truth.annotations() if a.image_id in {2, 5}]


def test_an_empty_split_has_none_left(tmp_path):
    write_split(tmp_path / "data", "train", 2, objects=0)
    truth = Dataset.read_split(tmp_path / "data", "train")
    with pytest.raises(UserError, match="no object is large enough to be learned"):
        usable(truth, planned((64, 64)), print)
