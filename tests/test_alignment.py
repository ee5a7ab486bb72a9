"""Photos are paired by name and categories by name, whatever the ids; what cannot be paired is named."""

import pytest

from maskwright import UserError, pixels
from maskwright.alignment import align
from maskwright.dataset import Annotation, Category, Dataset, Image

SIZE = (4, 4)
RLE = pixels.from_counts([0, 16], SIZE)


def world(photos, categories, objects, *, size=SIZE, masks=range(99)):
    """Return a dataset of photos and categories `{id: name}` and objects `(photo, category)`; `masks`: who has one."""
    return Dataset.build(
        [Category(*item) for item in categories.items()],
        [Image(i, name, size[1], size[0]) for i, name in photos.items()],
        [
            Annotation(n, i, c, RLE if n in masks else None, score=0.5, box=(0.0, 0.0, 4.0, 4.0))
            for n, (i, c) in enumerate(objects)
        ],
    )


TRUTH = world({5: "a.jpg", 0: "b.jpg"}, {1: "nut", 2: "bolt"}, [(5, 1), (0, 2)])


def aligned(found, true=TRUTH, by_id=False):
    result = align(true, found, "truth.json", "found.json", by_id=by_id)
    return result.found_photo.tolist(), result.found_category.tolist(), result.notes


def refused(found, true=TRUTH):
    with pytest.raises(UserError) as caught:
        align(true, found, "truth.json", "found.json", by_id=False)
    return str(caught.value)


def test_numbers_follow_the_ids_of_the_truth():
    result = align(TRUTH, TRUTH, "truth.json", "found.json", by_id=True)
    assert (result.truth_photo.tolist(), result.truth_category.tolist()) == ([1, 0], [0, 1])
    assert (result.found_photo.tolist(), result.found_category.tolist()) == ([1, 0], [0, 1])
    assert (result.sizes, result.masks) == ((SIZE, SIZE), True)


def test_photos_and_categories_numbered_otherwise_are_paired_by_name():
    found = world({1: "b.jpg", 2: "a.jpg"}, {7: "bolt", 9: "nut"}, [(1, 7), (2, 9)])
    assert aligned(found) == ([0, 1], [1, 0], ())


def test_names_are_paired_by_their_last_part_where_the_folders_differ():
    found = world({1: "val/b.jpg", 2: "val/a.jpg"}, {1: "nut"}, [(1, 1), (2, 1)])
    assert aligned(found) == ([0, 1], [0, 0], ())


def test_photos_of_one_name_in_several_folders_are_kept_apart():
    true = world({1: "x/a.jpg", 2: "y/a.jpg"}, {1: "nut"}, [(1, 1)])
    found = world({1: "y/a.jpg", 2: "x/a.jpg"}, {1: "nut"}, [(1, 1)])
    assert aligned(found, true)[0] == [1]


def test_the_same_ids_pair_photos_whose_names_stand_twice():
    true = world({1: "a.jpg", 2: "a.jpg"}, {1: "nut"}, [(1, 1), (2, 1)])
    assert aligned(true, true)[0] == [0, 1]
    other = world({3: "a.jpg", 4: "a.jpg"}, {1: "nut"}, [(3, 1)])
    assert refused(other, true) == (
        "photos cannot be told apart by file name\n  a.jpg\nfix: give each photo its own name"
    )


def test_categories_of_one_name_are_paired_by_id():
    true = world({1: "a.jpg"}, {1: "nut", 2: "nut"}, [(1, 2)])
    assert aligned(true, true)[1] == [1]
    found = world({1: "a.jpg"}, {3: "nut", 2: "nut"}, [(1, 3)])
    assert "\n  found.json: 3 'nut' (1 detections)" in refused(found, true)


def test_unknown_photos_and_categories_are_named_at_once():
    found = world({1: "a.jpg", 2: "z.jpg"}, {1: "nuts"}, [(2, 1), (1, 1)])
    assert refused(found) == (
        "detections name photos that the truth does not have\n"
        "  found.json: z.jpg\n"
        "fix: predict on the photos of truth.json, or name the truth of these photos\n"
        "\n"
        "detections name categories that the truth does not have\n"
        "  found.json: 'nuts' (2 detections); did you mean 'nut'?\n"
        "fix: name them as in truth.json, which has: nut, bolt"
    )


def test_categories_and_photos_without_detections_may_be_unknown_but_are_counted():
    found = world({1: "a.jpg", 2: "z.jpg"}, {1: "nut", 5: "cat"}, [(1, 1)])
    assert aligned(found) == (
        [1],
        [0],
        (
            "1 photos of found.json are not in the truth; they have no detections and do not count",
            "1 photos of the truth are not listed in found.json: all their objects are misses",
        ),
    )


def test_photos_of_another_size_are_refused():
    found = world({1: "a.jpg"}, {1: "nut"}, [(1, 1)], size=(2, 8))
    assert refused(found) == (
        "photos differ in size between truth and detections\n"
        "  a.jpg is 8 x 2 in found.json, 4 x 4 in truth.json\n"
        "fix: predict on the same photos"
    )


def test_boxes_alone_leave_the_masks_unscored():
    boxes = world({5: "a.jpg", 0: "b.jpg"}, {1: "nut"}, [(5, 1)], masks=())
    result = align(TRUTH, boxes, "truth.json", "found.json", by_id=False)
    assert (result.masks, result.notes) == (False, ("found.json gives boxes only: the mask numbers (segm) are n/a",))
    result = align(boxes, TRUTH.select(TRUTH.category_ids == 1), "truth.json", "found.json", by_id=False)
    assert (result.masks, result.notes[-1]) == (False, "truth.json gives boxes only: the mask numbers (segm) are n/a")


def test_masks_on_only_some_objects_are_refused():
    some = world({5: "a.jpg", 0: "b.jpg"}, {1: "nut"}, [(5, 1), (0, 1)], masks=[1])
    assert refused(some) == (
        "some detections have a mask and others only a box\n"
        "  found.json: annotation 0 of a.jpg\n"
        "fix: give every one a mask, or leave all masks away to score boxes only"
    )
    nuts = TRUTH.select(TRUTH.category_ids == 1)
    assert refused(nuts, some).startswith("some true objects have a mask and others only a box\n  truth.json: annot")
