"""Id images that look like class images: which do, which do not, and that the answer that is advised is one."""

import json

import numpy as np
import pytest
from PIL import Image

from maskwright import pixels
from maskwright.formats.scattered import MOST_VALUES, Scattered
from maskwright.prepare import prepare

SIZE = (40, 60)


def plane(*values, side=6):
    """Return an image with a square for each number, side by side; a number that comes again is in several parts."""
    image = np.zeros(SIZE, dtype=np.uint8)
    for n, value in enumerate(values):
        row, column = divmod(n, 7)
        image[2 + 8 * row : 2 + 8 * row + side, 2 + 8 * column : 2 + 8 * column + side] = value
    return image


def counted(planes):
    found = Scattered()
    for n, image in enumerate(planes):
        found.add(f"{n}.png", [pixels.encode(image == v) for v in np.unique(image[image > 0])], SIZE)
    return found


CLASSES = {
    "several nuts and bolts": [plane(1, 2, 1, 2, 1), plane(2, 1, 1, 2), plane(1, 2, 2, 1, 1, 1)],
    "one table with many nuts": [plane(1, 2, 2, 2), plane(1, 2, 2, 2, 2), plane(2, 1, 2, 2)],
    "many nuts, the others alone": [plane(1, 2, 3, 4, 4, 4), plane(1, 2, 3, 4, 4, 4, 4), plane(4, 1, 2, 4, 3, 4)],
    "mostly one of each": [plane(1, 2)] * 8 + [plane(1, 2, 1, 2)] * 2,
    "ten of a class, none large": [plane(*[1] * 10, 2)] * 3,
    "one class in some photos": [plane(1, 1, 1), plane(1, 2), plane(1, 1, 1, 1)],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_class_images(kind):
    assert len(counted(CLASSES[kind]).notes()) == 1


def crumbs(values, at):
    """Scatter single pixels of a value over the ground."""
    values = values.copy()
    values[30:38:2, 4:50:9] = at
    return values


OBJECTS = {
    "two objects in every photo": [plane(1, 2)] * 12,
    "a gripper hides the middle of one": [plane(1, 2, 1)] * 12,
    "a gripper hides the middle of the only one": [plane(1, 1)] * 12,
    "one of three is in two parts": [plane(1, 2, 1, 3)] * 12,
    "crumbs": [crumbs(plane(1, 2), 1)] * 12,
    "a heap of which some are in three parts": [plane(1, 2, 1, 3, 1, 4, 5, 6), plane(1, 2, 3), plane(1, 2, 2, 2, 3, 4)],
    "one photo like a class image": [plane(1, 2, 3)] * 11 + [plane(1, 1, 1, 2)],
    "too few to tell": [plane(1, 1, 1, 2, 2, 2)] * 2,
    "nothing": [],
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_id_images(kind):
    assert counted(OBJECTS[kind]).notes() == []


def test_masks_of_many_values_are_not_looked_at():
    few, many = ([*range(1, count + 1)] for count in (MOST_VALUES // 3, MOST_VALUES + 1))
    assert counted([plane(*few, *few, *few, side=3)] * 3).notes()
    assert not counted([np.repeat(np.array(many, dtype=np.uint8)[None], 2, axis=0) for _ in range(3)]).notes()


def test_counts_of_several_processes_are_joined():
    images = CLASSES["several nuts and bolts"] * 2
    whole, first, second = counted(images), counted(images[:2]), counted(images[2:])
    first.join(second)
    assert (first.masks, first.values, first.seen.counts) == (whole.masks, whole.values, whole.seen.counts)
    assert whole.notes()[0].startswith(
        "in 6 of 6 masks values lie in several places, as those of categories do (0.png,"
    )


def saved(root, planes, masks="masks/{}.png", photos="images/{}.jpg"):
    for n, image in enumerate(planes):
        for name, array in (
            (photos, np.random.default_rng(n).integers(0, 255, (*SIZE, 3), dtype=np.uint8)),
            (masks, image),
        ):
            path = root / name.format(n)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


@pytest.mark.parametrize("masks", ["masks/{}.png", "images/{}.png", "masks/nut/{}.png"])
def test_the_note_stands_in_the_output(tmp_path, masks):
    planes = CLASSES["several nuts and bolts"]
    said = []
    root = saved(tmp_path / "raw", planes, masks)
    made = prepare(root, out=tmp_path / "DATA", say=said.append)
    assert made.coding == "ids"
    note = (
        f"in 3 of 3 masks values lie in several places, as those of categories do ({root}/{masks.format(0)},"
        f" {root}/{masks.format(1)}, {root}/{masks.format(2)}); each value is taken as one object, so that objects of"
        " one value are joined. If the values are categories: name them by their colours in a file colours.json,"
        ' {"NAME 1": "#010101", "NAME 2": "#020202"} for grey values, and: --colours colours.json; each connected part'
        " is then an object. If they number objects, --coding ids says so"
    )
    assert f"note: {note}" in said
    assert note in json.loads((tmp_path / "DATA/prepare.json").read_text())["notes"]
    made = prepare(root, out=tmp_path / "DATA", overwrite=True, coding="ids")
    assert not [note for note in made.notes if "several places" in note]


def test_the_advised_answer_makes_each_part_an_object(tmp_path):
    planes = CLASSES["several nuts and bolts"]
    root = saved(tmp_path / "raw", planes)
    (tmp_path / "colours.json").write_text('{"NAME 1": "#010101", "NAME 2": "#020202"}')
    made = prepare(root, out=tmp_path / "DATA", colours=str(tmp_path / "colours.json"))
    assert (made.form, made.categories) == ("colours", ("NAME 1", "NAME 2"))
    assert sum(made.objects.values()) == 5 + 4 + 6
