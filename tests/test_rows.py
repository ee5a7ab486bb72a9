"""Rows written as text are those that the COCO writer makes, numbered in order, whatever the pieces are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import pixels
from maskwright.dataset import Annotation, Image
from maskwright.formats import Mark, Photo
from maskwright.objects import SPLITS, coco_annotation, coco_image
from maskwright.rows import TURNED, AllNumbered, Rules, rows_of, separate, upright
from maskwright.scale import at
from maskwright.survey import Survey

SIZE = (12, 9)
IDS = {"bolt": 1, "nut": 2, 'a "quoted" \\ name\n': 3}


def rle(seed, parts=1):
    mask = np.zeros(SIZE, dtype=np.bool_)
    for part in range(parts):
        mask[3 * part : 3 * part + 2, seed % 5 : seed % 5 + 3] = True
    return pixels.encode(mask)


def numbered(photos, splits, parts="together"):
    with at(workers=1) as each:
        survey = Survey.of(photos, list(IDS), each, split=False, separate=parts == "separate")
    return list(AllNumbered(photos, survey, np.array(splits, dtype=np.int8)))


marks = st.lists(
    st.builds(Mark, st.sampled_from(sorted(IDS)), st.builds(rle, st.integers(0, 9), st.integers(1, 3)), st.booleans()),
    max_size=3,
).map(tuple)
names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=9)


@given(st.lists(st.tuples(names, marks, st.integers(0, 2)), min_size=1, max_size=12), st.sampled_from([None, 1, 3]))
def test_rows_are_those_of_the_coco_writer(made, shard):
    """Law: what is written as text is the JSON of `coco_image` and `coco_annotation`, with ids in order."""
    photos = [Photo(f"raw/{name}", name, "", None, SIZE, f"{n:064x}", some) for n, (name, some, _) in enumerate(made)]
    splits = [split for _, _, split in made]
    rows = rows_of(Rules(0, False, IDS, shard), numbered(photos, splits))
    for n in range(len(SPLITS)):
        images, objects = [], []
        for photo in [photo for photo, split in zip(photos, splits, strict=True) if split == n]:
            image = Image(len(images) + 1, photo.name, width=SIZE[1], height=SIZE[0])
            images.append(coco_image(image))
            for mark in photo.marks:
                one = Annotation(len(objects) + 1, image.id, IDS[mark.category], mark.rle, crowd=mark.crowd)
                objects.append(coco_annotation(one, SIZE))
        blocks = [block for block in rows.blocks if block.split == n]
        text = {"ensure_ascii": False, "separators": (",", ":")}
        assert b"[%b]" % b",".join(b.image_rows for b in blocks) == json.dumps(images, **text).encode()
        filled = [b.object_rows for b in blocks if b.object_rows]
        assert b"[%b]" % b",".join(filled) == json.dumps(objects, **text).encode()
        assert sum(block.photos for block in blocks) == len(images)
        assert sum(block.objects for block in blocks) == len(objects)
        if shard is not None:
            assert all(block.photos <= shard for block in blocks)
            assert all(block.photos == shard for block in blocks[:-1])


@given(st.lists(st.tuples(names, marks, st.integers(0, 2)), min_size=1, max_size=12), st.integers(1, 5))
def test_pieces_do_not_matter(made, length):
    photos = [Photo(f"raw/{name}", name, "", None, SIZE, "", some) for name, some, _ in made]
    rules = Rules(0, False, IDS, None)
    items = numbered(photos, [split for _, _, split in made])
    whole = rows_of(rules, items)
    parts = [rows_of(rules, items[n : n + length]) for n in range(0, len(items), length)]
    assert [place for part in parts for place in part.places] == whole.places
    assert ",\n    ".join(part.fates for part in parts) == whole.fates
    assert sum((part.categories for part in parts), start=type(whole.categories)()) == whole.categories
    for n in range(len(SPLITS)):
        joined = [block for part in parts for block in part.blocks if block.split == n]
        assert [b",".join(block.image_rows for block in joined)] == [
            block.image_rows for block in whole.blocks if block.split == n
        ] or not joined
        assert sum(block.bare for block in joined) == sum(block.bare for block in whole.blocks if block.split == n)


def test_fates_are_lines_of_json():
    photo = Photo('raw/a "b".jpg', 'a "b".jpg', "", "val", SIZE, "12ab", (Mark("nut", rle(1)),), (("m/ä.png", "34"),))
    rows = rows_of(Rules(0, False, IDS, None), numbered([photo], [1]))
    assert json.loads(f"[{rows.fates}]") == [
        {
            "file": 'raw/a "b".jpg',
            "kind": "photo",
            "fate": "used",
            "as": 'val/a "b".jpg',
            "width": 9,
            "height": 12,
            "objects": 1,
            "sha256": "12ab",
        },
        {"file": "m/ä.png", "kind": "mask", "fate": "used", "of": 'raw/a "b".jpg', "sha256": "34"},
    ]
    assert rows.fates.splitlines()[0].endswith('"sha256": "12ab"},')
    assert (rows.places, rows.paths, rows.masks) == (['val/a "b".jpg'], ['raw/a "b".jpg'], 1)
    assert rows.folders == {"raw", "m"}


def test_parts_become_objects_and_are_numbered_over_photos():
    photos = [
        Photo("a.jpg", "a.jpg", "", None, SIZE, "", (Mark("nut", rle(1, 3)), Mark("nut", rle(1, 2), crowd=True))),
        Photo("b.jpg", "b.jpg", "", None, SIZE, "", (Mark("bolt", rle(2)),)),
    ]
    assert [mark.crowd for mark in separate(photos[0])] == [False, False, False, True]
    rows = rows_of(Rules(0, True, IDS, None), numbered(photos, [0, 0], "separate"))
    objects = json.loads(b"[%b]" % rows.blocks[0].object_rows)
    assert [(row["id"], row["image_id"], row["category_id"], row["iscrowd"]) for row in objects] == [
        (1, 1, 2, 0),
        (2, 1, 2, 0),
        (3, 1, 2, 0),
        (4, 1, 2, 1),
        (5, 2, 1, 0),
    ]
    assert (rows.masks, rows.categories) == (3, {"nut": 2, "bolt": 1})


@pytest.mark.parametrize(("naming", "expected"), [(0, "a.jpg"), (1, "day/a.jpg"), (2, "x/day/a.jpg")])
def test_the_name_in_the_output(naming, expected):
    photo = Photo("raw/x/day/a.jpg", "day/a.jpg", "x", None, SIZE, "", ())
    rows = rows_of(Rules(naming, False, IDS, None), numbered([photo], [2]))
    assert rows.places == [f"test/{expected}"]
    assert rows.blocks[0].bare == 1


def test_photos_are_turned_upright_and_those_with_objects_counted():
    mark = Mark("bolt", rle(1))
    photos = [
        Photo(f"{n}.jpg", f"{n}.jpg", "", None, SIZE, "", marks, turn=turn)
        for n, (turn, marks) in enumerate([(1, (mark,)), (6, (mark,)), (3, (mark, mark)), (5, ())])
    ]
    rows = rows_of(Rules(0, False, IDS, None), numbered(photos, [0, 0, 0, 0]))
    (block,) = rows.blocks
    images = json.loads(f"[{block.image_rows.decode()}]")
    assert [(i["height"], i["width"]) for i in images] == [(12, 9), (9, 12), (12, 9), (9, 12)]
    objects = json.loads(f"[{block.object_rows.decode()}]")
    assert [o["image_id"] for o in objects] == [1, 2, 3, 3]
    assert objects[1]["segmentation"]["counts"].encode() == pixels.upright(mark.rle, SIZE, 6)
    assert (rows.mends.counts, rows.mends.examples) == ({TURNED: 2}, {TURNED: ["1.jpg", "2.jpg"]})
    assert upright(photos[0]) is photos[0]
    assert upright(photos[1]).turn == 1
