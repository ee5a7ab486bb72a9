"""Mending: what is safe is mended and found no more, all the rest is left with a reason, and nothing is lost."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.check import facts_of
from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.facts import Facts, Finding, SplitView
from maskwright.findings import RULES, sorted_findings
from maskwright.mend import SAFE, UNSAFE, Mended, mend
from maskwright.suspects import photo_findings
from maskwright.writing import write_shards

SIZE = (40, 60)


def block(x1, y1, x2, y2):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def row(number, image, mask, category=1, **more):
    """Return a COCO annotation with all that other tools put in it."""
    rle = pixels.encode(mask)
    x1, y1, x2, y2 = pixels.box(rle, SIZE)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": {"size": list(SIZE), "counts": rle.decode()},
        "area": int(mask.sum()),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "attributes": {"occluded": number % 2 == 0},
    } | more


def photo(number, name):
    return {"id": number, "file_name": name, "width": SIZE[1], "height": SIZE[0], "licence_plate": f"x{number}"}


def document(images, rows, categories=((1, "hammer"), (2, "nut"))):
    return {
        "info": {"description": "by hand"},
        "licenses": [],
        "categories": [{"id": i, "name": name, "supercategory": "tools"} for i, name in categories],
        "images": images,
        "annotations": rows,
        "other": ["kept"],
    }


def path_of(data, split="train"):
    return data / "annotations" / f"instances_{split}.json"


def content(data, split="train"):
    return json.loads(path_of(data, split).read_text())


def world(data, same=None, **splits):
    """Write a data folder whose photos are noise; `same` gives names, such as val/0.png, the content of another."""
    rng = np.random.default_rng(0)
    for split, part in splits.items():
        path_of(data, split).parent.mkdir(parents=True, exist_ok=True)
        path_of(data, split).write_text(json.dumps(part))
        for image in part["images"]:
            path = data / split / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    for name, of in (same or {}).items():
        (data / name).write_bytes((data / of).read_bytes())
    return data


def found(data):
    """Return what check finds, errors too."""
    splits = {s: d for s in ("train", "val", "test") if (d := Dataset.read_split(data, s)) is not None}
    facts = facts_of(splits)
    looked = photo_findings({name: SplitView(name, d) for name, d in splits.items()})
    return facts.model_copy(update={"problems": sorted_findings([*facts.problems, *looked])})


def counts(facts):
    return {finding.code: finding.count for finding in facts.problems}


def mended_whole(mended):
    return {item.code for item in mended if item.count and not item.left}


def sound(n=4):
    """Return a split without a fault."""
    images = [photo(i + 1, f"{i}.png") for i in range(n)]
    return document(images, [row(i + 1, i + 1, block(5 + i, 5, 25 + i, 25), 1 + i % 2) for i in range(n)])


def files(data):
    return {str(p.relative_to(data)): p.read_bytes() for p in sorted(data.rglob("*")) if p.is_file()}


def test_every_finding_is_mended_or_has_a_reason_why_not():
    assert set(SAFE) | set(UNSAFE) == {*RULES, "unreadable-split"}
    assert set(SAFE) & set(UNSAFE) == set()
    assert all(len(why) > 15 for why in UNSAFE.values())


def test_nothing_is_changed_where_nothing_is_wrong(tmp_path):
    data = world(tmp_path, train=sound(), val=sound())
    before, said = files(data), []
    assert mend(data, found(data), say=said.append) == ()
    assert (files(data), said) == (before, ["nothing was changed"])


def test_ids_below_1_are_numbered_anew_above_the_highest(tmp_path):
    part = document(
        [photo(0, "0.png"), photo(7, "1.png")],
        [row(0, 0, block(5, 5, 20, 20), 0), row(3, 7, block(5, 5, 20, 20), 2)],
        ((0, "hammer"), (2, "nut")),
    )
    val = document(
        [photo(9, "2.png")],
        [row(5, 9, block(5, 5, 20, 20), 0), row(6, 9, block(30, 5, 50, 20), 2)],
        ((0, "hammer"), (2, "nut")),
    )
    data = world(tmp_path, train=part, val=val)
    (done,) = mend(data, found(data))
    assert (done.code, done.count, done.left) == ("id-below-1", 4, 0)
    assert done.did == "4 ids below 1 numbered anew, above the highest; results made before name the old ones"
    train = content(data)
    assert [i["id"] for i in train["images"]] == [10, 7]
    assert [(r["id"], r["image_id"], r["category_id"]) for r in train["annotations"]] == [(7, 10, 3), (3, 7, 2)]
    assert [c["id"] for c in train["categories"]] == [3, 2]
    # The same number in every split, or the splits would differ.
    assert [(r["id"], r["image_id"], r["category_id"]) for r in content(data, "val")["annotations"]] == [
        (5, 9, 3),
        (6, 9, 2),
    ]
    assert counts(found(data)) == {}


def test_repeated_ids_are_numbered_anew_but_the_first(tmp_path):
    part = sound()
    part["annotations"][2]["id"] = 1
    data = world(tmp_path, train=part, val=sound())
    (done,) = mend(data, found(data))
    assert done == Mended(
        "id-twice",
        1,
        "1 annotation id numbered anew, above the highest: the first of each keeps its own",
        (f"{data}/train/2.png: hammer, annotation 1, is now 5",),
    )
    assert [r["id"] for r in content(data)["annotations"]] == [1, 2, 5, 4]


def test_area_and_box_are_computed_and_the_rest_of_the_entry_stays(tmp_path):
    part = sound()
    part["annotations"][0] |= {"area": 4, "segmentation": [[5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]]}
    part["annotations"][1] |= {"bbox": [0, 0, 2, 2]}
    data = world(tmp_path, train=part, val=sound())
    done = mend(data, found(data))
    assert [(m.code, m.count) for m in done] == [("area-wrong", 1), ("box-wrong", 1)]
    assert done[0].where == (f"{data}/train/0.png: hammer, annotation 1: 4 is now 400",)
    expected = sound()
    expected["annotations"][0] |= {
        "area": 400,
        "bbox": [5.0, 5.0, 20.0, 20.0],
        "segmentation": [[5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]],
    }
    assert content(data) == expected


def test_empty_masks_go(tmp_path):
    part = sound()
    part["annotations"].insert(1, row(9, 1, block(0, 0, 0, 0)))
    data = world(tmp_path, train=part, val=sound())
    said = []
    (done,) = mend(data, found(data), say=said.append)
    assert (done.code, done.count) == ("empty-mask", 1)
    assert content(data) == sound()
    assert said == [
        f"mended empty-mask: 1 object without a pixel removed\n  {data}/train/0.png: hammer, annotation 9",
        f"replaced: {path_of(data)} (as it was: instances_train.json.before-fix)",
    ]


def test_repeats_of_an_object_go_and_the_first_stays(tmp_path):
    nearly = block(5, 5, 25, 25)
    nearly[5, 5] = False
    part = sound()
    part["annotations"] += [
        row(8, 1, nearly),
        row(9, 1, block(5, 5, 25, 25), 2),
        row(10, 1, block(5, 5, 25, 22)),
        row(11, 1, block(5, 5, 25, 25), iscrowd=1),
    ]
    data = world(tmp_path, train=part, val=sound())
    done = {m.code: m for m in mend(data, found(data))}
    assert done["same-object-twice"].where == (f"{data}/train/0.png: hammer, annotation 8 repeats annotation 1",)
    assert [r["id"] for r in content(data)["annotations"]] == [
        1,
        2,
        3,
        4,
        9,
        10,
        11,
    ]  # another category, IoU 0.85, crowd
    assert (done["object-in-two-categories"].left, done["crowd"].left) == (1, 1)


def test_a_photo_listed_twice_becomes_one_with_all_its_objects(tmp_path):
    part = sound()
    part["images"].append(photo(9, "0.png"))
    part["annotations"] += [row(8, 9, block(30, 5, 50, 20)), row(9, 9, block(5, 5, 25, 25))]
    data = world(tmp_path, train=part, val=sound())
    done = mend(data, found(data))
    assert [(m.code, m.count) for m in done] == [("photo-listed-twice", 1), ("same-object-twice", 1)]
    after = content(data)
    assert [i["id"] for i in after["images"]] == [1, 2, 3, 4]
    assert [(r["id"], r["image_id"]) for r in after["annotations"]] == [(1, 1), (2, 2), (3, 3), (4, 4), (8, 1)]
    assert counts(found(data)) == {}


def test_entries_of_two_sizes_are_not_merged(tmp_path):
    part = sound()
    part["images"].append(photo(9, "0.png") | {"width": 10})
    data = world(tmp_path, train=part, val=sound())
    before = files(data)
    done = {m.code: m for m in mend(data, found(data))}
    assert done["photo-listed-twice"].why == (
        "the entries of one photo state different sizes, and to which the masks belong cannot be told"
    )
    assert files(data) == before


def test_a_photo_in_two_splits_stays_where_it_is_scored(tmp_path):
    splits = {name: sound(6) for name in ("train", "val", "test")}
    for name, i in (("val", 2), ("train", 3)):  # copies of each other, with the same object
        splits[name]["annotations"][i] = row(i + 1, i + 1, block(7, 5, 27, 25), 1)
    data = world(
        tmp_path, {"val/0.png": "train/0.png", "test/1.png": "val/1.png", "val/2.png": "train/3.png"}, **splits
    )
    assert counts(found(data))["photo-leak"] == 3
    photos = [p for p in files(data) if p.endswith(".png")]
    (done,) = mend(data, found(data))
    assert done.did == (
        "3 entries of photos removed that another split has byte by byte, with the same objects: kept in test before"
        " val before train, but train keeps its last objects of a category"
    )
    assert sorted(done.where) == [
        f"{data}/train/0.png: {data}/val/0.png stays",
        f"{data}/train/3.png: {data}/val/2.png stays",
        f"{data}/val/1.png: {data}/test/1.png stays",
    ]
    assert [i["file_name"] for i in content(data)["images"]] == ["1.png", "2.png", "4.png", "5.png"]
    assert [r["image_id"] for r in content(data, "val")["annotations"]] == [1, 3, 4, 5, 6]
    assert content(data, "test") == sound(6)
    assert [p for p in files(data) if p.endswith(".png")] == photos  # no photo is touched
    assert counts(found(data)) == {}


def test_train_keeps_its_last_object_of_a_category(tmp_path):
    part = sound(6)
    for item in part["annotations"][1:]:
        item["category_id"] = 1
    part["annotations"][0]["category_id"] = 2
    val = sound(6)
    val["annotations"][0]["category_id"] = 2
    data = world(tmp_path, {"val/0.png": "train/0.png"}, train=part, val=val)
    (done,) = mend(data, found(data))
    assert done.where == (f"{data}/val/0.png: {data}/train/0.png stays",)


OTHER_OBJECTS = "the objects of the copies differ, and whose are right cannot be told"


@pytest.mark.parametrize(
    "changed",
    [
        None,  # not labelled at all
        {"category_id": 2},
        {"iscrowd": 1},
        {"segmentation": {"size": list(SIZE), "counts": pixels.encode(block(5, 5, 25, 24)).decode()}},
    ],
)
def test_copies_whose_objects_differ_are_left_with_their_objects(tmp_path, changed):
    test = sound(6)
    if changed is None:
        del test["annotations"][0]
    else:
        test["annotations"][0] |= changed
    splits = {"train": sound(6), "val": sound(6), "test": test}
    data = world(tmp_path, {"test/0.png": "train/0.png"}, **splits)
    done = {m.code: m for m in mend(data, found(data))}
    assert (done["photo-leak"].count, done["photo-leak"].left, done["photo-leak"].why) == (0, 1, OTHER_OBJECTS)
    assert (content(data), content(data, "test")) == (sound(6), test)


def test_copies_that_agree_are_mended_and_the_others_left(tmp_path):
    val = sound(6)
    del val["annotations"][1]  # of val/1.png
    data = world(tmp_path, {"val/0.png": "train/0.png", "val/1.png": "train/1.png"}, train=sound(6), val=val)
    (done,) = mend(data, found(data))
    assert (done.count, done.where) == (1, (f"{data}/train/0.png: {data}/val/0.png stays",))
    assert (done.left, done.why) == (1, OTHER_OBJECTS)
    assert [i["file_name"] for i in content(data)["images"]] == [f"{i}.png" for i in range(1, 6)]
    assert content(data, "val") == val
    assert counts(found(data))["photo-leak"] == 1


def test_one_copy_of_three_with_other_objects_is_enough_to_leave_all(tmp_path):
    splits = {name: sound(6) for name in ("train", "val", "test")}
    splits["test"]["annotations"][0]["category_id"] = 2
    data = world(tmp_path, {"val/0.png": "train/0.png", "test/0.png": "train/0.png"}, **splits)
    before = files(data)
    (done,) = mend(data, found(data))
    assert (done.count, done.left, done.why) == (0, 1, OTHER_OBJECTS)
    assert files(data) == before


def test_every_reason_of_what_is_left_is_said(tmp_path):
    test = sound()
    test["annotations"][0]["category_id"] = 2
    same = {f"test/{i}.png": f"val/{i}.png" for i in range(4)}
    data = world(tmp_path, same, train=sound(6), val=sound(), test=test)
    (done,) = mend(data, found(data))
    assert done == Mended(
        "photo-leak",
        left=4,
        why=f"{OTHER_OBJECTS}; more than half of a split would go: they are one set of photos twice; choose new photos"
        " for one",
    )


def test_one_set_twice_is_not_taken_apart(tmp_path):
    same = {f"test/{i}.png": f"val/{i}.png" for i in range(4)}
    data = world(tmp_path, same, train=sound(6), val=sound(), test=sound())
    before = files(data)
    (done,) = mend(data, found(data))
    assert done == Mended(
        "photo-leak",
        left=4,
        why="more than half of a split would go: they are one set of photos twice; choose new photos for one",
    )
    assert files(data) == before


def test_empty_files_are_no_copies_of_one_photo(tmp_path):
    data = world(tmp_path, {"val/0.png": "train/0.png"}, train=sound(6), val=sound(6))
    for name in ("train/1.png", "val/1.png"):
        (data / name).write_bytes(b"")
    done = {m.code: m for m in mend(data, found(data))}
    assert (done["photo-leak"].count, done["photo-unreadable"].left) == (1, 2)
    assert [i["file_name"] for i in content(data)["images"]] == [f"{i}.png" for i in range(1, 6)]


def test_names_that_differ_by_case_and_spaces_become_those_of_train(tmp_path):
    val = sound()
    val["categories"][0]["name"] = "Hammer "
    data = world(tmp_path, train=sound(), val=val)
    (done,) = mend(data, found(data))
    assert (done.count, done.where) == (1, ("val: 'Hammer ' is now 'hammer'",))
    assert content(data, "val") == sound()
    assert not path_of(data).with_name("instances_train.json.before-fix").exists()


@pytest.mark.parametrize(
    "categories", [((1, "nail"), (2, "nut")), ((1, "nut"), (2, "hammer")), ((1, "Hammer"), (3, "hammer"), (2, "nut"))]
)
def test_names_that_differ_otherwise_are_left(tmp_path, categories):
    val = sound()
    val["categories"] = [{"id": i, "name": name} for i, name in categories]
    data = world(tmp_path, train=sound(), val=val)
    before = files(data)
    done = {m.code: m for m in mend(data, found(data))}
    assert (done["categories-differ"].count, files(data)) == (0, before)
    assert done["categories-differ"].why == (
        "names that differ by more than case and spaces, or ids that do: which are right only you know"
    )


def test_what_is_not_safe_is_left_and_why_is_said(tmp_path):
    part = sound()
    part["annotations"].append(row(9, 1, block(50, 30, 52, 32)))
    data = world(tmp_path, train=part, val=sound())
    before, said = files(data), []
    (done,) = mend(data, found(data), say=said.append)
    assert done == Mended("speck", left=1, why="a small object may be a real one, far away: it must be looked at")
    assert said == [
        "left speck (1): a small object may be a real one, far away: it must be looked at",
        "nothing was changed",
    ]
    assert files(data) == before


def test_every_reason_is_given(tmp_path):
    data = world(tmp_path, train=sound(), val=sound())
    problems = [Finding(code=code, severity="note", problem=Problem(code), count=2) for code in UNSAFE]
    facts = Facts(splits={}, categories=(), problems=tuple(problems))
    assert {m.code: (m.left, m.why) for m in mend(data, facts)} == {code: (2, why) for code, why in UNSAFE.items()}


def test_what_a_file_was_is_kept_and_never_replaced(tmp_path):
    part = sound()
    part["annotations"][0]["area"] = 1
    data = world(tmp_path, train=part, val=sound())
    kept = [path_of(data).with_name(f"instances_train.json.before-fix{end}") for end in ("", "-2", "-3")]
    first = path_of(data).read_bytes()
    mend(data, found(data))
    assert kept[0].read_bytes() == first
    path_of(data).write_bytes(first)
    said = []
    mend(data, found(data), say=said.append)
    assert (kept[0].read_bytes(), kept[1].read_bytes(), kept[2].exists()) == (first, first, False)
    assert said[-1] == f"replaced: {path_of(data)} (as it was: instances_train.json.before-fix-2)"


def test_half_a_character_in_text_that_nobody_looks_at_stays(tmp_path):
    part = sound()
    part["annotations"][0] |= {"area": 1, "caption": "\\\udcff"}
    part["images"][0]["coco_url"] = "http://x/\ud800é"
    part["info"] = {"description": "\ud800"}
    data = world(tmp_path, train=part, val=sound())
    mend(data, found(data))
    done = content(data)
    assert done["annotations"][0] == part["annotations"][0] | {"area": 400}
    assert (done["images"], done["info"]) == (part["images"], part["info"])
    assert counts(found(data)) == {}


def test_what_cannot_be_written_leaves_nothing_beside_the_file(tmp_path, monkeypatch):
    part = sound()
    part["annotations"][0]["area"] = 1
    data = world(tmp_path, train=part, val=sound())
    facts, before = found(data), files(data)

    def fails(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr("maskwright.mend.json.dumps", fails)
    with pytest.raises(MemoryError):
        mend(data, facts)
    assert files(data) == before


def test_many_offenders_are_counted(tmp_path):
    part = sound(8)
    for item in part["annotations"]:
        item["area"] = 1
    data = world(tmp_path, train=part, val=sound())
    said = []
    mend(data, found(data), say=said.append)
    assert said[0].splitlines()[0] == "mended area-wrong: 8 areas computed from the mask"
    assert said[0].splitlines()[-1] == "  ... and 3 more"
    assert len(said[0].splitlines()) == 7


def test_shards_are_mended_one_by_one(tmp_path):
    part = sound(6)
    data = world(tmp_path, train=part, val=sound())
    whole = Dataset.read_split(data, "train")
    path_of(data).unlink()
    shards = write_shards(whole, data / "annotations", "instances_train", 2)
    third = json.loads(shards[2].read_text())
    third["images"].append(photo(9, "0.png"))
    third["annotations"] += [row(9, 9, block(30, 5, 50, 20)), row(10, 5, block(0, 0, 0, 0))]
    shards[2].write_text(json.dumps(third))
    second = shards[1].read_bytes()
    done = mend(data, found(data))
    assert [(m.code, m.count) for m in done] == [("photo-listed-twice", 1), ("empty-mask", 1)]
    assert [[r["id"] for r in json.loads(s.read_text())["annotations"]] for s in shards] == [[1, 2, 9], [3, 4], [5, 6]]
    assert shards[1].read_bytes() == second
    assert sorted(p.name for p in shards[0].parent.glob("*train*.before-fix")) == [
        "instances_train-00000-of-00003.json.before-fix",
        "instances_train-00002-of-00003.json.before-fix",
    ]
    assert counts(found(data)) == {}


def test_a_split_that_cannot_be_read_stops_before_anything_is_changed(tmp_path):
    part = sound()
    part["annotations"][0]["area"] = 1
    data = world(tmp_path, train=part, val=sound())
    facts = found(data)
    path_of(data, "val").write_text("{")
    before = files(data)
    with pytest.raises(UserError, match="the file is not valid JSON"):
        mend(data, facts)
    assert files(data) == before


@pytest.mark.parametrize("missing", [{"images": []}, {"images": [], "annotations": None, "categories": None}])
def test_an_empty_split_is_left_alone(tmp_path, missing):
    data = world(tmp_path, train={**sound(), **missing, "annotations": missing.get("annotations", [])})
    before = files(data)
    assert {m.count for m in mend(data, found(data))} == {0}
    assert files(data) == before


# Laws


@st.composite
def faults(draw):
    """Return the splits of a data folder with any mixture of faults, and which photos are copies."""
    splits = {}
    for split in ("train", "val", "test"):
        n = draw(st.integers(1, 4))
        names = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
        numbers = draw(st.permutations(range(-1, n)))
        images = [photo(i, f"{name}.png") for i, name in zip(numbers, names, strict=False)]
        rows = []
        for _ in range(draw(st.integers(0, 8))):
            x, y = draw(st.integers(0, 2)), draw(st.integers(0, 1))
            mask = block(18 * x, 18 * y, 18 * x + draw(st.sampled_from([0, 15, 15, 16])), 18 * y + 15)
            more = draw(st.sampled_from([{}, {}, {"area": 3}, {"bbox": [1, 1, 2, 2]}, {"iscrowd": 1}]))
            rows.append(
                row(
                    draw(st.integers(-1, 5)), draw(st.sampled_from(images))["id"], mask, draw(st.integers(0, 1)), **more
                )
            )
        spelled = draw(st.sampled_from(["hammer", "Hammer", "ham mer", "anvil"]))
        splits[split] = document(images, rows, ((0, spelled), (1, "nut")))
    used = [f"{split}/{image['file_name']}" for split, part in splits.items() for image in part["images"]]
    pairs = draw(st.lists(st.tuples(st.sampled_from(used), st.sampled_from(used)), max_size=3))
    return splits, {a: b for a, b in pairs if a != b}


@settings(max_examples=40)
@given(faults())
def test_what_is_mended_is_found_no_more_and_nothing_is_mended_twice(tmp_path_factory, case):
    splits, same = case
    data = world(tmp_path_factory.mktemp("data"), same, **splits)
    before = found(data)
    mended = mend(data, before)
    after = found(data)
    assert mended_whole(mended) & set(counts(after)) == set()
    gone = set(counts(before)) - set(counts(after))  # such as an id twice, where one of the two objects went
    assert set(counts(before)) <= {m.code for m in mended} | gone  # each is mended, or left and said
    assert max(Counter(m.code for m in mended).values(), default=1) == 1
    left = {m.code for m in mended if m.left}
    assert set(counts(after)) & set(SAFE) <= left
    now = files(data)
    again = mend(data, after)
    assert files(data) == now
    assert {m.code for m in again if m.count} == set()
