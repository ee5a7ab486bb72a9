import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from scipy import ndimage

import maskwright as mw
from maskwright import facts as facts_module
from maskwright import pixels
from maskwright.check import Facts, facts_of
from maskwright.check import _nearly as nearly
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.facts import Percentiles, near
from maskwright.settings import CheckSettings

SHARED = Path(__file__).parents[2] / "shared"
HAMMER = Category(1, "hammer")
NUT = Category(2, "nut")
SIZE = (60, 80)


def block(y1, x1, y2, x2, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def dataset(*photos, categories=(HAMMER,), size=SIZE, folder=None):
    """Each photo is a list of masks, or of (mask, category)."""
    images = [Image(n + 1, f"{n}.png", size[1], size[0]) for n in range(len(photos))]
    annotations = []
    for n, masks in enumerate(photos):
        for item in masks:
            mask, category = item if isinstance(item, tuple) else (item, 1)
            annotations.append(Annotation(len(annotations) + 1, n + 1, category, pixels.encode(mask)))
    return Dataset.build(categories, images, annotations, folder=folder)


def write(data, **splits):
    """Write a data folder whose photos are noise that differs."""
    rng = np.random.default_rng(0)
    for split, part in splits.items():
        part.write(data / "annotations" / f"instances_{split}.json")
        for image in part.images:
            path = data / split / image.file_name
            path.parent.mkdir(exist_ok=True)
            PillowImage.fromarray(rng.integers(0, 256, (*image.size, 3), dtype=np.uint8)).save(path)
    return data


ONE = dataset([block(10, 10, 30, 30)])


def codes(facts):
    return [f.code for f in facts.problems]


def finding_of(facts, code):
    return next(f for f in facts.problems if f.code == code)


def said_of(facts, code):
    return next(str(f.problem) for f in facts.problems if f.code == code)


# Facts


def test_counts_of_photos_and_objects():
    facts = facts_of(
        {
            "train": dataset(
                [block(10, 10, 20, 30)] * 1,
                [],
                [block(1, 1, 9, 9), (block(20, 20, 30, 30), 2)],
                categories=(HAMMER, NUT),
            ),
            "val": dataset([block(1, 1, 9, 9)], categories=(HAMMER, NUT)),
        }
    )
    train = facts.splits["train"]
    assert (train.photos, train.empty_photos, train.objects, train.crowd, train.most_objects) == (3, 1, 3, 0, 2)
    assert train.objects_per_photo == 1.0
    assert [(c.id, c.name, c.objects) for c in facts.categories] == [
        (1, "hammer", {"train": 2, "val": 1}),
        (2, "nut", {"train": 1, "val": 0}),
    ]


def test_photo_sizes():
    images = [
        Image(n, f"{n}.png", w, h) for n, (w, h) in enumerate([(80, 60), (80, 60), (60, 80), (10, 10), (400, 300)])
    ]
    part = facts_of({"train": Dataset.build([HAMMER], images, [])}).splits["train"]
    assert (part.smallest, part.median, part.largest) == ((10, 10), (60, 80), (300, 400))
    assert next((s.height, s.width, s.photos) for s in part.sizes) == (60, 80, 2)
    assert sum(s.photos for s in part.sizes) == 5


def test_object_sizes_are_shares_of_the_photo():
    part = facts_of({"train": dataset([block(10, 10, 26, 26)])}).splits["train"]
    assert part.area_share.p50 == pytest.approx(256 / 4800)
    assert part.side_share.p50 == pytest.approx(16 / 80)
    assert part.aspect.p50 == 1


def test_sizes_come_from_the_masks_not_from_the_file():
    lying = Dataset.build(
        [HAMMER],
        [Image(1, "0.png", 80, 60)],
        [Annotation(1, 1, 1, pixels.encode(block(10, 10, 20, 30)), area=4, box=(0, 0, 1, 1))],
    )
    part = facts_of({"train": lying}).splits["train"]
    assert part.area_share.p50 == pytest.approx(200 / 4800)
    assert part.aspect.p50 == 2


def test_percentiles():
    assert Percentiles.of(np.arange(101.0)).model_dump() == {"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95}
    assert Percentiles.of(np.zeros(0)) is None


def stick(degrees, size=(101, 101), length=90, width=6):
    y, x = np.mgrid[: size[0], : size[1]] - 50.0
    a = math.radians(degrees)
    along, across = x * math.cos(a) + y * math.sin(a), -x * math.sin(a) + y * math.cos(a)
    return (abs(along) <= length / 2) & (abs(across) <= width / 2)


def test_axis_spread_of_sticks_that_point_one_way_and_every_way():
    alike = facts_of({"train": dataset([stick(30)], [stick(210)], size=(101, 101))}).splits["train"]
    assert alike.axis_spread == pytest.approx(0, abs=0.01)
    assert 10 < alike.elongation.p50 < 20
    every = facts_of({"train": dataset(*[[stick(d)] for d in range(0, 180, 15)], size=(101, 101))}).splits["train"]
    assert every.axis_spread == pytest.approx(1, abs=0.01)
    crossed = facts_of({"train": dataset([stick(0)], [stick(90)], [stick(0)], size=(101, 101))}).splits["train"]
    assert crossed.axis_spread == pytest.approx(2 / 3, abs=0.01)


def test_round_objects_prefer_no_direction():
    y, x = np.mgrid[:60, :80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 < 300
    part = facts_of({"train": dataset([disc])}).splits["train"]
    assert part.axis_spread == 1.0
    assert part.elongation.p50 == pytest.approx(1, abs=0.02)


def test_a_single_pixel_is_round():
    part = facts_of({"train": dataset([block(5, 5, 6, 6)])}).splits["train"]
    assert (part.elongation.p50, part.axis_spread, part.specks) == (1.0, 1.0, 1)


def test_holes_parts_and_border():
    ring = block(10, 10, 30, 30) & ~block(15, 15, 18, 18) & ~block(20, 20, 22, 22)
    two = block(1, 1, 9, 9) | block(40, 40, 50, 50)
    cut = block(50, 20, 60, 30)
    part = facts_of({"train": dataset([ring], [two], [cut])}).splits["train"]
    assert (part.holes, part.with_holes, part.in_parts, part.at_border) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("other", "touching", "overlapping"),
    [
        (block(10, 20, 20, 30), 1, 0),  # side by side
        (block(20, 20, 30, 30), 1, 0),  # corner to corner
        (block(10, 21, 20, 30), 0, 0),  # a pixel between
        (block(19, 19, 30, 30), 1, 1),  # one pixel shared
        (block(40, 40, 50, 50), 0, 0),
    ],
)
def test_neighbours(other, touching, overlapping):
    part = facts_of({"train": dataset([block(10, 10, 20, 20), other])}).splits["train"]
    assert (part.touching, part.overlapping) == (touching, overlapping)


def test_objects_of_different_photos_are_no_neighbours():
    part = facts_of({"train": dataset([block(10, 10, 20, 20)], [block(10, 20, 20, 30)])}).splits["train"]
    assert part.touching == 0


@given(st.lists(st.lists(st.booleans(), min_size=30, max_size=30), min_size=2, max_size=4))
def test_neighbours_holes_and_parts_are_those_of_the_dense_masks(bits):
    masks = [m for m in (np.array(b).reshape(5, 6) for b in bits) if m.any()]
    part = facts_of({"train": dataset(masks, size=(5, 6))}).splits["train"]
    pairs = [(a, b) for i, a in enumerate(masks) for b in masks[i + 1 :]]
    grown = [(ndimage.binary_dilation(a, np.ones((3, 3))), b) for a, b in pairs]
    assert part.touching == sum((a & b).any() for a, b in grown)
    assert part.overlapping == sum((a & b).any() for a, b in pairs)
    assert part.holes == sum(pixels.holes(m) for m in masks)
    assert part.in_parts == sum(pixels.label_parts(m)[1] > 1 for m in masks)


@given(st.lists(st.tuples(*[st.integers(0, 8)] * 4), max_size=8))
def test_near_finds_every_pair_of_boxes_that_meet(corners):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners], float).reshape(-1, 4)
    expected = {
        frozenset((i, j))
        for i, a in enumerate(boxes)
        for j, b in enumerate(boxes)
        if i < j and a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
    }
    found = [frozenset(pair) for pair in near(boxes)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_large_datasets_are_looked_at_in_part_and_say_so(monkeypatch):
    monkeypatch.setattr(facts_module, "LOOKED_AT", 10)
    monkeypatch.setattr(facts_module, "MEASURED", 5)
    facts = facts_of({"train": dataset(*[[block(1, 1, 9, 9)] for _ in range(40)])})
    assert facts.splits["train"].looked_at == 10
    assert "(holes, parts and pairs were counted on a part of the objects: 10 of 40 in train)" in facts.table()
    assert facts == facts_of({"train": dataset(*[[block(1, 1, 9, 9)] for _ in range(40)])})


def test_crowds_count_as_crowds_only():
    data = Dataset.build(
        [HAMMER],
        [Image(1, "0.png", 80, 60)],
        [
            Annotation(1, 1, 1, pixels.encode(block(1, 1, 9, 9))),
            Annotation(2, 1, 1, pixels.encode(block(0, 0, 50, 50)), crowd=True),
        ],
    )
    facts = facts_of({"train": data, "val": ONE})
    part = facts.splits["train"]
    assert (part.objects, part.crowd, part.touching, part.at_border) == (1, 1, 0, 0)
    assert said_of(facts, "crowd") == (
        "1 object is a crowd: neither learned nor scored\n"
        "  train/0.png: hammer, annotation 2\n"
        "fix: leave them if they mark groups; an object with a hole needs no iscrowd"
    )


def test_facts_survive_json():
    facts = facts_of({"train": ONE, "val": dataset([])})
    assert Facts.model_validate_json(facts.model_dump_json()) == facts
    assert json.loads(facts.model_dump_json())["splits"]["val"]["side_share"] is None
    assert len(facts.problems) == 1


def test_nothing_at_all():
    facts = facts_of({"train": Dataset.build([], [], [])})
    part = facts.splits["train"]
    assert (part.photos, part.smallest, part.objects_per_photo, part.axis_spread) == (0, None, None, None)
    assert "no-objects" in codes(facts)
    assert "photos" in facts.table()


# Problems that show without photos


def test_a_sound_dataset_has_no_problem():
    assert codes(facts_of({"train": ONE, "val": ONE})) == []


def test_no_train_split():
    facts = facts_of({"val": ONE})
    assert said_of(facts, "no-train") == (
        "there is no train split: nothing can be learned\nfix: prepare again with photos to train on"
    )
    assert [f.severity for f in facts.problems] == ["error"]


def test_no_object_in_train():
    facts = facts_of({"train": dataset([], []), "val": ONE})
    assert said_of(facts, "no-objects") == (
        "no photo of the train split has an object: nothing can be learned\n"
        "  train: photos 2, objects 0\n"
        "fix: check that the mask images are not all black, then prepare again"
    )


def test_a_category_without_an_object_in_train():
    facts = facts_of(
        {
            "train": dataset([block(1, 1, 9, 9)], categories=(HAMMER, NUT)),
            "val": dataset([(block(1, 1, 9, 9), 2)], categories=(HAMMER, NUT, Category(3, "screw"))),
        }
    )
    assert said_of(facts, "category-not-in-train") == (
        "2 categories have no object in the train split and cannot be learned\n"
        "  nut: 0 in train, 1 in val\n"
        "  screw: 0 in train, 0 in val\n"
        "fix: add photos of them to train, or remove these categories from the annotation files"
    )
    assert facts.errors


def test_how_many_photos_hold_a_category_and_nothing_rarer():
    one, two = block(1, 1, 9, 9), block(20, 20, 30, 30)
    train = dataset([one, two, (two, 2)], [one], [(one, 2)], [one], [], categories=(HAMMER, NUT))
    facts = facts_of({"train": train, "val": dataset([one], categories=(HAMMER,))})
    assert [(c.name, c.photos, c.rarest) for c in facts.categories] == [
        ("hammer", {"train": 3, "val": 1}, {"train": 2, "val": 1}),
        ("nut", {"train": 2}, {"train": 2}),
    ]


def test_splits_that_differ_in_their_categories():
    other = dataset([block(1, 1, 9, 9)], categories=(Category(1, "nut"), Category(7, "hammer")))
    facts = facts_of({"train": ONE, "val": other})
    assert said_of(facts, "categories-differ") == (
        "the splits differ in their categories\n"
        "  category id 1 is 'hammer' in train, 'nut' in val\n"
        "  category 'hammer' has id 1 in train, id 7 in val\n"
        "fix: give each category the same id and name in every split"
    )


def test_no_val_split_is_a_warning():
    facts = facts_of({"train": ONE})
    assert said_of(facts, "no-val") == (
        "there is no val split: the best weights cannot be told from the last, nor a score threshold advised\n"
        "fix: prepare again with a share for validation, for example --val-share 0.3; if the input gives the splits"
        " itself, move some photos into one named val"
    )
    assert not facts.errors


def test_a_split_without_objects_cannot_be_scored():
    facts = facts_of({"train": ONE, "val": dataset([]), "test": dataset([])})
    assert said_of(facts, "no-objects-to-score") == (
        "2 splits besides train have no object: scores on them are undefined\n"
        "  val: photos 1, objects 0\n  test: photos 1, objects 0\n"
        "fix: move photos with objects into them"
    )


def test_masks_without_a_pixel():
    facts = facts_of({"train": dataset([block(1, 1, 9, 9), block(0, 0, 0, 0)]), "val": ONE})
    assert said_of(facts, "empty-mask") == (
        "1 mask has no pixel\n"
        "  train/0.png: hammer, annotation 2\n"
        "fix: remove these objects, or mend the file: maskwright prepare DATASET.json -o NEW"
    )
    assert facts.errors
    assert facts.splits["train"].side_share.p5 == pytest.approx(0.1)


def test_objects_with_a_box_alone():
    data = Dataset.build([HAMMER], [Image(1, "0.png", 80, 60)], [Annotation(1, 1, 1, None, box=(1, 1, 9, 9))])
    facts = facts_of({"train": data, "val": ONE})
    assert said_of(facts, "no-mask") == (
        "1 object has only a box, no mask\n"
        "  train/0.png: hammer, annotation 1\n"
        "fix: draw the masks, or remove the objects"
    )
    assert facts.errors


def test_ids_below_one_and_ids_twice():
    rle = pixels.encode(block(1, 1, 9, 9))
    data = Dataset.build(
        [Category(0, "hammer")],
        [Image(0, "0.png", 80, 60), Image(1, "1.png", 80, 60)],
        [Annotation(0, 0, 0, rle), Annotation(5, 1, 0, rle), Annotation(5, 0, 0, pixels.encode(block(20, 20, 30, 30)))],
    )
    facts = facts_of({"train": data, "val": dataset([block(1, 1, 9, 9)])})
    assert said_of(facts, "id-below-1").startswith(
        "3 ids are below 1, which other COCO tools may read as 'none'\n"
        "  train/0.png: image id 0\n"
        "  train: category 'hammer' has id 0\n"
        "  train/0.png: hammer, annotation 0\n"
        "fix: mend the file: maskwright prepare"
    )
    assert said_of(facts, "id-twice").startswith(
        "2 annotations share their id: other COCO tools keep one of each\n  train/0.png: hammer, annotation 5\n"
    )


def test_area_and_bbox_that_are_wrong_in_the_file():
    data = Dataset.build(
        [HAMMER],
        [Image(1, "0.png", 80, 60)],
        [
            Annotation(1, 1, 1, pixels.encode(block(10, 10, 20, 30)), area=4000, box=(0, 0, 30, 20)),
            Annotation(
                2, 1, 1, pixels.encode(block(30, 30, 50, 50)), area=399.2, box=(29.5, 30, 50.2, 49.9)
            ),  # rounding
        ],
    )
    facts = facts_of({"train": data, "val": ONE})
    assert said_of(facts, "area-wrong").startswith(
        "1 object has an area that differs from the mask's\n"
        "  train/0.png: hammer, annotation 1, area 4000, the mask has 200 pixels\n"
    )
    assert said_of(facts, "box-wrong").startswith(
        "1 object has a bbox that differs from the mask's\n"
        "  train/0.png: hammer, annotation 1, bbox [0, 0, 30, 20], the mask's is [10, 10, 20, 10]\n"
    )
    assert not facts.errors


def test_objects_marked_twice():
    mask = block(10, 10, 40, 40)
    nearly = mask.copy()
    nearly[10, 10:20] = False
    facts = facts_of(
        {
            "train": dataset(
                [mask, nearly, (mask, 2)], [mask], [mask, block(10, 10, 40, 30)], categories=(HAMMER, NUT)
            ),
            "val": dataset([mask], categories=(HAMMER, NUT)),
        }
    )
    assert said_of(facts, "same-object-twice") == (
        "1 object repeats another of the category (IoU over 0.95)\n"
        "  train/0.png: hammer, annotation 2\n"
        "fix: keep one of each"
    )


def test_specks_and_masks_that_cover_everything():
    facts = facts_of({"train": dataset([block(0, 0, 1, 3), block(5, 5, 9, 9)], [block(0, 0, 60, 80)]), "val": ONE})
    assert said_of(facts, "speck") == (
        "1 object is a speck (under 16 pixels or 0.0001 of the photo)\n"
        "  train/0.png: hammer, annotation 1, 3 pixels\n"
        "fix: look at them: stray pixels of a mask image are not objects"
    )
    assert said_of(facts, "covers-all") == (
        "1 mask covers its whole photo\n"
        "  train/1.png: hammer, annotation 3, 4,800 pixels\n"
        "fix: look at them: an inverted or all-white mask image marks everything"
    )
    assert facts.splits["train"].specks == 1


def test_several_offenders_of_one_photo_are_one_line():
    facts = facts_of({"train": dataset([block(n, 0, n + 1, 2) for n in range(0, 12, 2)]), "val": ONE})
    text = said_of(facts, "speck")
    assert text.startswith("6 objects are specks")
    assert "  train/0.png: hammer, annotation 1, 2 pixels ... and 5 more in this photo\n" in text


def test_a_photo_listed_twice():
    data = Dataset.build(
        [HAMMER],
        [Image(1, "0.png", 80, 60), Image(2, "0.png", 80, 60)],
        [Annotation(1, 1, 1, pixels.encode(block(1, 1, 9, 9)))],
    )
    assert said_of(facts_of({"train": data, "val": ONE}), "photo-listed-twice") == (
        "1 photo is listed more than once in a split\n"
        "  train/0.png: 2 times\n"
        "fix: list each photo once, with all its objects"
    )


# Suspicions that show without photos


def test_an_object_under_two_categories():
    mask = block(10, 10, 40, 40)
    facts = facts_of({"train": dataset([mask, (mask, 2)], categories=(HAMMER, NUT)), "val": ONE})
    assert said_of(facts, "object-in-two-categories") == (
        "1 object stands under two categories (IoU over 0.95): both cannot be right\n"
        "  train/0.png: nut, annotation 2, is also hammer, annotation 1\n"
        "fix: keep the category that is right"
    )
    assert "same-object-twice" not in codes(facts)
    assert finding_of(facts, "object-in-two-categories").examples[0].annotations == (1, 2)


def test_a_category_that_is_not_scored():
    both = (HAMMER, NUT)
    facts = facts_of(
        {
            "train": dataset([block(1, 1, 9, 9), (block(20, 20, 30, 30), 2)], categories=both),
            "val": dataset([block(1, 1, 9, 9)], categories=both),
        }
    )
    assert said_of(facts, "category-in-one-split") == (
        "1 category has objects in train only: how well it is found is not measured\n"
        "  nut: 1 in train, 0 in val\n"
        "fix: move some photos of it to the other splits"
    )
    assert not facts.errors
    assert "category-in-one-split" not in codes(facts_of({"train": ONE, "val": dataset([])}))


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("Hammer", "hammer", "case or spaces"),
        ("claw hammer", "claw_hammer ", "case or spaces"),
        ("hammer", "hammers", "singular and plural"),
        ("box", "boxes", "singular and plural"),
        ("berry", "berries", "singular and plural"),
        ("hammer", "hamer", "1 letter"),
        ("wrench", "wrecnh", "1 letter"),
        ("screwdriver", "scewdrivr", "2 letters"),
    ],
)
def test_names_that_nearly_agree(a, b, why):
    categories = (Category(1, a), Category(2, b))
    data = dataset([block(1, 1, 9, 9), (block(20, 20, 30, 30), 2)], categories=categories)
    assert said_of(facts_of({"train": data, "val": data}), "near-categories") == (
        "1 pair of category names differs only by case, spaces, plural or a letter\n"
        f"  '{a}' and '{b}': {why}; 2 and 2 objects\n"
        "fix: if they mean one thing, give them one name in the annotation files, then prepare again"
    )


COCO_NAMES = """person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;
parking meter;bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;handbag;tie;
suitcase;frisbee;skis;snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;surfboard;
tennis racket;bottle;wine glass;cup;fork;knife;spoon;bowl;banana;apple;sandwich;orange;broccoli;carrot;
hot dog;pizza;donut;cake;chair;couch;potted plant;bed;dining table;toilet;tv;laptop;mouse;remote;keyboard;
cell phone;microwave;oven;toaster;sink;refrigerator;book;clock;vase;scissors;teddy bear;hair drier;toothbrush"""


def test_names_that_are_just_different():
    names = [name.strip() for name in COCO_NAMES.replace("\n", "").split(";")]
    names += ["bolt 1", "bolt 2", "M4 screw", "M5 screw", "type a", "type b", "house", "fig", "date"]
    found = [(a, b) for n, a in enumerate(names) for b in names[:n] if nearly(a, b)]
    assert found == []


def test_masks_that_look_inverted():
    y, x = np.mgrid[:60, :80]
    blob = (y - 25) ** 2 + (x - 30) ** 2 < 150
    facts = facts_of({"train": dataset([~blob], [blob]), "val": ONE})
    assert said_of(facts, "looks-inverted") == (
        "1 mask looks inverted: it fills the photo but for one patch in it\n"
        f"  train/0.png: hammer, annotation 1, {4800 - int(blob.sum()):,} pixels\n"
        "fix: look at them: where the object is the patch, exchange black and white in the mask image"
    )


def test_objects_under_the_stride():
    size = (1200, 1600)  # made 640 wide, 0.4 of it: a step of 6 pixels is 15 of the photo's
    two = [block(0, 0, 14, 14, size), block(50, 50, 90, 64, size)]
    data = dataset([block(100, 100, 120, 110, size)], two, size=size)
    facts = facts_of({"train": data, "val": ONE}, CheckSettings(stride=6))
    assert said_of(facts, "under-stride") == (
        "2 objects are smaller than one step of the network's map, once the photo has its working size\n"
        "  train/1.png: hammer, annotation 2, 196 pixels, 5.6 pixels a side at a working size of 640; a step is 6\n"
        "  train/0.png: hammer, annotation 1, 200 pixels, 5.7 pixels a side at a working size of 640; a step is 6\n"
        "fix: cut the photos into tiles, or train with a larger --side; as it is they will hardly be found"
    )
    assert "under-stride" not in codes(facts_of({"train": data, "val": ONE}, CheckSettings(stride=1)))


def test_photos_with_more_objects_than_are_looked_for():
    crowd = [block(y, x, y + 4, x + 4) for y in range(0, 60, 6) for x in range(0, 80, 8)]
    facts = facts_of({"train": dataset(crowd[:60], crowd[:51]), "val": ONE}, CheckSettings(detections=50))
    assert said_of(facts, "crowded-photo") == (
        "2 photos have more objects than are looked for\n"
        "  train/0.png: 60 objects, the limit is 50\n"
        "  train/1.png: 51 objects, the limit is 50\n"
        "fix: cut them into tiles; what is over the limit counts as missed"
    )
    assert [e.photo for e in finding_of(facts, "crowded-photo").examples] == ["0.png", "1.png"]
    assert "crowded-photo" not in codes(facts_of({"train": dataset(crowd), "val": ONE}))


def test_boxes_in_place_of_masks():
    photos = [[block(1, 1, 9 + n % 3, 12)] for n in range(20)]
    facts = facts_of({"train": dataset(*photos), "val": dataset([stick(30)], size=(101, 101))})
    assert said_of(facts, "boxes-for-masks").startswith(
        "20 masks are exact rectangles: they look like boxes, not outlines\n  train/0.png: hammer, annotation 1, "
    )
    assert said_of(facts, "boxes-for-masks").endswith(
        "fix: draw the outlines; a network learns to predict boxes from them otherwise"
    )
    assert "boxes-for-masks" not in codes(facts_of({"train": dataset(*photos[:19])}))


def test_examples_are_few_and_the_worst_come_first():
    sizes = [3, 1, 2, *([5] * 20)]
    facts = facts_of({"train": dataset(*[[block(0, 0, 1, n)] for n in sizes]), "val": ONE})
    finding = finding_of(facts, "speck")
    assert finding.count == 23
    assert [e.note for e in finding.examples[:3]] == [
        "hammer, annotation 2, 1 pixels",
        "hammer, annotation 3, 2 pixels",
        "hammer, annotation 1, 3 pixels",
    ]
    assert len(finding.examples) == 12
    assert (finding.examples[0].split, finding.examples[0].photo) == ("train", "1.png")
    assert finding.examples[0].annotations == (2,)


# The verb


def test_check_says_the_facts_and_that_all_is_well(tmp_path):
    write(tmp_path, train=dataset([block(10, 10, 30, 30)], [block(5, 5, 20, 40)]), val=ONE)
    said = []
    facts = mw.check(str(tmp_path), say=said.append)
    lines = said[0].splitlines()
    assert lines[0].split() == ["train", "val"]
    assert lines[1].split() == ["photos", "2", "1"]
    assert any(line.split() == ["hammer", "2", "1"] for line in lines)
    assert any(line.split() == ["largest", "80", "x", "60", "80", "x", "60"] for line in lines)
    assert said[1:] == ["nothing is wrong with it"]
    assert facts.problems == ()


def test_check_says_warnings_with_their_fix(tmp_path):
    write(tmp_path, train=ONE)
    said = []
    assert codes(mw.check(tmp_path, say=said.append)) == ["no-val"]
    assert said[1].startswith("warning: there is no val split")


def test_check_says_notes_after_warnings(tmp_path):
    data = write(tmp_path, train=dataset([block(10, 10, 30, 30)], [block(5, 5, 20, 40)]))
    (data / "train" / "1.png").write_bytes((data / "train" / "0.png").read_bytes())
    said = []
    facts = mw.check(data, say=said.append)
    assert codes(facts) == ["no-val", "photo-twice"]
    assert [text.split()[0] for text in said[1:]] == ["warning:", "note:"]
    assert [n.what for n in facts.notes] == ["1 photo repeats another of the same split, byte by byte"]


def test_settings_of_check(tmp_path):
    data = write(tmp_path, train=dataset([block(10, 10, 30, 30), block(40, 40, 50, 50)]), val=ONE)
    assert codes(mw.check(data, detections=1)) == ["crowded-photo"]
    with pytest.raises(UserError, match="did you mean 'detections'"):
        mw.check(data, detection=1)


def test_check_prints_nothing_unless_asked(tmp_path, capsys):
    mw.check(write(tmp_path, train=ONE, val=ONE))
    assert capsys.readouterr() == ("", "")


def test_check_of_a_folder_without_a_dataset(tmp_path):
    with pytest.raises(UserError) as caught:
        mw.check(tmp_path)
    assert str(caught.value) == (
        "the folder has no dataset: annotations/instances_train.json is not there\n"
        f"  {tmp_path}\n"
        "fix: make one from photos and masks: maskwright prepare RAW -o DATA"
    )


def test_pointless_training_is_an_error_after_the_facts(tmp_path):
    write(tmp_path, train=dataset([]), val=ONE)
    said = []
    with pytest.raises(UserError, match="no photo of the train split has an object: nothing can be learned"):
        mw.check(tmp_path, say=said.append)
    assert said[0].splitlines()[1].split() == ["photos", "1", "1"]


def test_photos_that_are_missing_broken_or_of_another_size(tmp_path):
    data = write(tmp_path, train=dataset(*[[block(10, 10, 30, 30)]] * 4), val=ONE)
    (data / "train" / "0.png").unlink()
    whole = (data / "train" / "1.png").read_bytes()
    (data / "train" / "1.png").write_bytes(whole[: len(whole) // 2])
    (data / "train" / "2.png").write_bytes(b"")
    PillowImage.new("RGB", (60, 80)).save(data / "train" / "3.png")
    said = []
    with pytest.raises(UserError) as caught:
        mw.check(data, say=said.append)
    text = str(caught.value)
    assert (
        f"1 photo is not where the annotation file says\n  {data}/train/0.png\n"
        "fix: copy them there, or remove them from the annotation file"
    ) in text
    assert f"2 photos cannot be read\n  {data}/train/1.png cannot be decoded (" in text
    assert f"\n  {data}/train/2.png is empty (0 bytes)\nfix: replace them, or remove them" in text
    assert (
        "1 photo differs in size from what the annotation file says\n"
        f"  {data}/train/3.png is 60 x 80, the annotation file says 80 x 60\n"
        "fix: prepare again, from these photos and masks of their size"
    ) in text
    assert len(said) == 1


def test_photo_names_that_lead_outside(tmp_path):
    data = write(tmp_path, train=ONE, val=ONE)
    path = data / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"0.png"', '"../val/0.png"'))
    with pytest.raises(UserError) as caught:
        mw.check(data)
    assert str(caught.value) == (
        "1 photo has a name leading out of the data folder\n"
        "  file_name '../val/0.png'\n"
        "fix: make the names relative to the photo folder, without '..'"
    )


def test_photos_that_stand_in_two_splits(tmp_path):
    data = write(tmp_path, train=dataset([block(10, 10, 30, 30)], [block(10, 10, 30, 30)]), val=ONE)
    (data / "val" / "0.png").write_bytes((data / "train" / "1.png").read_bytes())
    facts = mw.check(data)
    assert said_of(facts, "photo-leak") == (
        "1 photo stands in more than one split: scores will be too good\n"
        "  val: 1 of 1 photos (100%)\n"
        f"  {data}/train/1.png = {data}/val/0.png\n"
        "fix: keep each photo in one split"
    )


def test_a_split_that_cannot_be_read_is_told_with_the_rest(tmp_path):
    data = write(tmp_path, train=ONE, val=dataset([]))
    path = data / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"size":[60,80]', '"size":[80,60]'))
    said = []
    with pytest.raises(UserError) as caught:
        mw.check(data, say=said.append)
    text = str(caught.value)
    assert "annotations[0]: the RLE's size (height, width) (80, 60) is not the photo's (60, 80)" in text
    assert "no train split" not in text
    assert said[1].startswith("warning: 1 split besides train has no object: scores on it are undefined")


@pytest.mark.shared
def test_real_photos_of_touching_fruit():
    path = SHARED / "data" / "fruits_nuts" / "trainval.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    facts = facts_of({"train": Dataset.read(path)})
    part = facts.splits["train"]
    assert (part.photos, part.objects, part.largest) == (18, 165, (600, 800))
    assert part.touching > part.overlapping > 0
    assert sorted(codes(facts)) == ["id-below-1", "no-val"]
    assert {c.name: c.objects["train"] for c in facts.categories} == {"date": 71, "fig": 41, "hazelnut": 53}
