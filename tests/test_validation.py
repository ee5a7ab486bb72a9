"""What a validation makes of the photos: the network's input, the scores, and what cannot be read any more."""

import re

import numpy as np
import pytest

from maskwright.checkpoint import Progress
from maskwright.errors import UserError
from maskwright.framing import scaled_size
from maskwright.run import Run
from maskwright.usable import part_of
from maskwright.validation import readable_part, scorable, validate
from test_detections import Fixed
from tiny_world import CATEGORIES, write_split


def gone(val, *photos):
    for index in photos:
        val.photo_path(val.images[index]).unlink()


def line_of(val, index):
    return (
        "warning: a validation photo cannot be read and is left out from now on:"
        f" {val.photo_path(val.images[index])} cannot be opened (No such file or directory)"
    )


def scored(val, network, folder, **more):
    said = []
    run = Run(path=folder, architecture="maskrcnn-nano", sizes={}, categories=CATEGORIES, side=64, **more)
    return *validate(network, val, run, Progress(), said.append), said


NO_OBJECT = (
    "warning: the validation photos that are left have no object: nothing is scored any more, and the training goes on;"
    " the best weights so far are kept, the last ones if there are none"
)


@pytest.mark.parametrize(("count", "lost"), [(1, (0,)), (3, (0, 2)), (3, (0, 1, 2)), (60, (0, 1, 2, 3))])
def test_too_many_photos_that_are_gone_are_an_error(tmp_path, count, lost):
    val, said = write_split(tmp_path, "val", count), []
    gone(val, *lost)
    with pytest.raises(UserError) as caught:
        readable_part(val, said.append)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"too many validation photos cannot be read: {len(lost)} of {count}"
    assert lines[1] == f"  {tmp_path / 'val' / 'val_0.png'} cannot be opened (No such file or directory)"
    assert lines[-1] == "fix: give them back (is a disk or a network folder gone?) and go on: --resume"
    assert said == []


@pytest.mark.parametrize(("count", "lost"), [(3, (1,)), (2, (1,)), (60, (3, 30, 59))])
def test_a_few_photos_that_are_gone_are_told_and_left_out(tmp_path, count, lost):
    val, said = write_split(tmp_path, "val", count), []
    gone(val, *lost)
    part = readable_part(val, said.append)
    assert said == [line_of(val, index) for index in lost]
    assert len(part.images) == count - len(lost)
    assert list(part.images) == [image for index, image in enumerate(val.images) if index not in lost]
    assert len(part) == int((~np.isin(val.image_index, lost)).sum()) > 0


def test_as_long_as_all_can_be_read_the_split_is_what_it_was(tmp_path):
    val, said = write_split(tmp_path, "val", 2), []
    assert readable_part(val, said.append) is val
    assert said == []


def test_photos_that_are_gone_are_left_out_of_the_scores(tmp_path):
    val = write_split(tmp_path, "val", 3)
    gone(val, 1)
    one, part, said = scored(val, Fixed([[0, 0, 1, 1]], [0.9], [1]), tmp_path)
    assert said == [line_of(val, 1)]
    assert [image.id for image in part.images] == [1, 3]
    assert one.result.counts["photos"] == 2
    again, same, said = scored(part, Fixed([[0, 0, 1, 1]], [0.9], [1]), tmp_path)
    assert same is part
    assert said == []
    assert again.result.metrics == one.result.metrics


@pytest.mark.parametrize(
    ("count", "first", "second", "enough"), [(3, 1, 1, False), (60, 2, 1, True), (60, 2, 2, False)]
)
def test_photos_that_were_left_out_before_count(tmp_path, count, first, second, enough):
    val, said = write_split(tmp_path, "val", count), []
    gone(val, *range(first))
    part, before = readable_part(val, said.append), [image.file_name for image in val.images[:first]]
    gone(val, *range(first, first + second))
    if enough:
        assert len(readable_part(part, said.append, before).images) == count - first - second
        assert said == [line_of(val, index) for index in range(first + second)]
        return
    with pytest.raises(UserError) as caught:
        readable_part(part, said.append, before)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"too many validation photos cannot be read: {first + second} of {count}"
    assert [line.split(" cannot")[0] for line in lines[1 : second + 1]] == [
        f"  {val.photo_path(image)}" for image in val.images[first : first + second]
    ]
    assert lines[second + 1 : -1] == [f"  {tmp_path / 'val' / name} was left out before" for name in before]
    assert len(said) == first


def test_a_validation_counts_what_the_progress_says_was_left_out(tmp_path):
    val = write_split(tmp_path, "val", 3)
    run = Run(path=tmp_path, architecture="maskrcnn-nano", sizes={}, categories=CATEGORIES, side=64)
    at = Progress(left_out={"val/val_0.png": 9, "train/val_9.png": 9})
    part = part_of(val, [1, 2])
    gone(val, 0, 1)
    with pytest.raises(UserError, match="too many validation photos cannot be read: 2 of 3"):
        validate(Fixed([], [], []), part, run, at, print)


def test_photos_without_an_object_end_the_scoring_and_not_the_training(tmp_path):
    val = write_split(tmp_path, "val", 2)
    val = val.select(val.image_index == 0)
    gone(val, 0)
    one, part, said = scored(val, Fixed([[0, 0, 1, 1]], [0.9], [1]), tmp_path)
    assert one is None
    assert said == [line_of(val, 0), NO_OBJECT]
    assert [image.id for image in part.images] == [2]
    network = Fixed([[0, 0, 1, 1]], [0.9], [1])
    assert scored(part, network, tmp_path) == (None, part, [])  # it is told once
    assert network.seen == []


def test_crowds_are_nothing_to_score_against(tmp_path):
    val = write_split(tmp_path, "val", 1)
    assert scorable(val)
    val.crowd[:] = True
    assert not scorable(val)


def test_another_error_is_not_taken_for_photos_that_are_gone(tmp_path):
    val, other = write_split(tmp_path / "a", "val", 1), write_split(tmp_path / "b", "val", 1, seed=1)
    val.photo_path(val.images[0]).write_bytes(other.photo_path(other.images[0]).read_bytes())
    assert val.images[0].size != other.images[0].size
    with pytest.raises(UserError, match=re.escape("a photo's size is not the one its dataset states")):
        scored(val, Fixed([], [], []), tmp_path)


def test_photos_are_scaled_as_the_run_says(tmp_path):
    val = write_split(tmp_path, "val", 3)
    for short_side in (None, 40):
        network = Fixed([[0, 0, 1, 1]], [0.9], [1])
        scored(val, network, tmp_path, short_side=short_side)
        inner = [shapes[0] for _, shapes, _ in network.seen]
        assert inner == [scaled_size(image.size, 64, short_side) for image in val.images]
        assert {min(size) for size in inner} == {40} if short_side else {max(size) for size in inner} == {64}
