"""A slice of the damage that inputs can have; `benchmarks/fuzz.py` does the long run. A wrong dataset is found out."""

import json
import resource

import numpy as np
import pytest

import fuzz_trial
from fuzz_damage import OUTSIDE
from fuzz_trial import trial, undamaged
from fuzz_truth import Portion, Portions, beside_truth, beside_undamaged, portions, thing, truth
from fuzz_world import INPUTS
from maskwright import pixels
from maskwright.formats import coco, instance_files, listing

SLICE = 20


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_read_is_what_was_written(name, tmp_path):
    """Law: object for object and pixel for pixel; masks in JPEG by the bound that their form has."""
    assert trial(name, 0, tmp_path) == "whole"


@pytest.mark.parametrize("name", INPUTS)
def test_damage_is_refused_or_stays_where_it_is(name, tmp_path):
    """Never a traceback, never a file outside the output, never an object that is wrong though its entry is whole."""
    ends, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(1, SLICE + 1):
        (tmp_path / str(seed)).mkdir()
        ends.append(trial(name, seed, tmp_path / str(seed)))
    assert "refused" in ends
    # In kibibytes. Other tests in this process may have had more.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < max(2 * 1024**2, before + 1)


# ── readers that go wrong are found out ──────────────────────────────────────────────────────────────────────────────


def every_second(function, instead):
    """Return a function that does its work every other time."""
    calls = []

    def wrong(*args, **kwargs):
        calls.append(1)
        result = function(*args, **kwargs)
        return instead(result) if len(calls) % 2 else result

    return wrong


def read_anew(name):
    undamaged.__wrapped__(name)  # without what is remembered of it


@pytest.mark.parametrize("name", ["coco", "coco, polygons", "coco, uncompressed"])
def test_a_reader_that_loses_half_of_the_objects_is_found_out(monkeypatch, name):
    read_anew(name)
    monkeypatch.setattr(coco, "_object", every_second(coco._object, lambda _: None))
    with pytest.raises(AssertionError, match=r"a: 'bolt' of \d+ pixels from 2, 3 to 10, 11 is not there"):
        read_anew(name)


def test_a_reader_that_moves_a_mask_by_a_pixel_is_found_out(monkeypatch):
    def moved(rle):
        return pixels.encode(np.roll(pixels.decode(rle, (24, 32)), 1, axis=1))

    monkeypatch.setattr(listing, "polygons_rle", every_second(listing.polygons_rle, moved))
    with pytest.raises(AssertionError, match=r"'bolt' of 81 pixels from 3, 3 to 11, 11 is there"):
        read_anew("cvat")


def test_a_reader_that_mixes_up_photos_or_categories_is_found_out():
    things = truth("voc")
    assert not beside_truth("voc", things)
    assert beside_truth("voc", {**things, "a": things["b"], "b": things["a"]})
    assert beside_truth("voc", {**things, "a": [one._replace(category="nut") for one in things["a"]]})
    assert beside_truth("voc", {**things, "a": [one._replace(crowd=True) for one in things["a"]]})
    assert beside_truth("voc", {**things, "a": [*things["a"], things["a"][0]]})
    assert beside_truth("voc", {"a": things["a"], "b": things["b"]}) == ["photos ['a', 'b'], not ['a', 'b', 'c']"]


def test_masks_in_jpeg_are_held_to_their_bound():
    things = truth("colours, jpeg")

    def without(rows):
        mask = things["a"][0].mask.copy()
        mask[np.flatnonzero(mask.any(axis=1))[:rows]] = False
        return {**things, "a": [thing("bolt", mask), things["a"][1]]}

    assert not beside_truth("colours, jpeg", without(0))
    assert not beside_truth("colours, jpeg", without(1))  # 36 of 1,232 pixels
    assert beside_truth("colours, jpeg", without(2))
    assert beside_truth("colours, jpeg", {**things, "a": things["a"][:1]})


def test_a_trial_sees_a_reader_that_lets_damage_spread(monkeypatch, tmp_path):
    """A reader that leaves out a mask file for each that is missing elsewhere."""
    seed = next(n for n in range(1, 400) if harmless(tmp_path / str(n), n))
    made = instance_files.read

    def spreading(found, work):
        reading = made(found, work)
        photos = [p._replace(marks=p.marks[:1]) for p in reading.photos]
        return type(reading)(**{**vars(reading), "photos": photos})

    monkeypatch.setattr(instance_files, "read", spreading)
    (tmp_path / "again").mkdir()
    with pytest.raises(AssertionError, match="is not there"):
        trial("instance-files", seed, tmp_path / "again")


def harmless(folder, seed):
    folder.mkdir()
    return trial("instance-files", seed, folder) == "less"


def test_damage_never_reaches_outside_through_a_link(tmp_path):
    """Seeds whose second damage falls upon a file that the first one made a link."""
    for name, seed in (("instance-files", 6), ("category-folders", 19)):
        folder = tmp_path / name
        folder.mkdir()
        trial(name, seed, folder)
        assert (folder / OUTSIDE).read_bytes() == bytes(range(256))


# ── what damage is taken to be ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_written_twice_has_equal_parts(name, tmp_path):
    for folder in ("one", "two"):
        INPUTS[name][0](tmp_path / folder)
    parts = portions(name, tmp_path / "one")
    assert parts == portions(name, tmp_path / "two")
    assert parts.photos.keys() == truth(name).keys()
    assert not parts.broken
    assert all(part.context or part.entries for part in parts.photos.values())


def test_an_annotation_that_is_changed_is_the_only_one(tmp_path):
    INPUTS["coco"][0](tmp_path)
    before = portions("coco", tmp_path)
    document = json.loads((tmp_path / "instances.json").read_text())
    document["annotations"][2]["category_id"] = 2  # the bolt of b
    (tmp_path / "instances.json").write_text(json.dumps(document))
    after = portions("coco", tmp_path)
    assert after.photos["a"] == before.photos["a"]
    assert after.photos["b"].context == before.photos["b"].context
    assert [x == y for x, y in zip(after.photos["b"].entries, before.photos["b"].entries, strict=True)] == [False, True]
    document["categories"][1]["name"] = "screw"  # bears on all nuts
    (tmp_path / "instances.json").write_text(json.dumps(document))
    late = portions("coco", tmp_path).photos["c"]
    assert [x == y for x, y in zip(late.entries, before.photos["c"].entries, strict=True)] == [True, False]
    (tmp_path / "instances.json").write_text(json.dumps(document)[:-1])
    assert portions("coco", tmp_path).broken == "instances.json"


def square(x, category="bolt"):
    mask = np.zeros((8, 12), dtype=bool)
    mask[2:5, x : x + 3] = True
    return thing(category, mask)


ONE, TWO, OTHER = square(0), square(4), square(8)
BEFORE = Portions({"a": Portion(["1", "2"], ["x"]), "b": Portion([], ["y"])}, ["names"])
THINGS = {"a": [ONE, TWO], "b": [OTHER]}


def judged(found, after=BEFORE, left_out=(), counted=0):
    return beside_undamaged(THINGS, BEFORE, after, list(found.items()), left_out, counted)


def test_objects_of_what_is_whole_must_be_there():
    assert not judged(THINGS)
    assert judged({"a": [ONE], "b": [OTHER]}) == [
        "a: 'bolt' of 9 pixels from 4, 2 to 6, 4 is not there",
        "1 entries gave no object, and 0 are counted",
    ]
    assert judged({"a": [ONE, TWO], "b": []}) == ["b: 'bolt' of 9 pixels from 8, 2 to 10, 4 is not there"]
    assert len(judged({"a": [ONE, TWO], "b": [TWO]})) == 2
    assert judged({"a": [ONE, TWO, OTHER], "b": [OTHER]})
    assert judged({"a": [ONE, TWO]}) == ["b: it is untouched, and gone without a word"]
    assert not judged({"a": [ONE, TWO]}, left_out=["b"])
    twice = beside_undamaged(THINGS, BEFORE, BEFORE, [("b", [OTHER]), *THINGS.items()], [], 0)
    assert twice == ["b: it is untouched, and stands 2 times"]


def test_only_a_damaged_entry_may_give_another_object():
    changed = Portions({**BEFORE.photos, "a": Portion(["1", "3"], ["x"])}, ["names"])
    assert not judged({"a": [ONE, OTHER], "b": [OTHER]}, changed)
    assert judged({"a": [OTHER, TWO], "b": [OTHER]}, changed)
    assert judged({"a": [ONE, OTHER, TWO], "b": [OTHER]}, changed)
    assert judged({"a": [ONE], "b": [OTHER]}, changed) == ["1 entries gave no object, and 0 are counted"]
    assert not judged({"a": [ONE], "b": [OTHER]}, changed, counted=1)
    gone = Portions({**BEFORE.photos, "a": Portion(["2"], ["x"])}, ["names"])
    assert not judged({"a": [TWO], "b": [OTHER]}, gone)
    assert judged({"a": [ONE], "b": [OTHER]}, gone)


def test_a_photo_whose_own_part_is_damaged_is_not_held_to_its_objects():
    damaged = Portions({**BEFORE.photos, "b": Portion([], ["z"])}, ["names"])
    assert not judged({"a": [ONE, TWO], "b": [ONE]}, damaged)
    assert not judged({"a": [ONE, TWO]}, damaged)
    assert judged({"a": [ONE], "b": [OTHER]}, damaged)


def test_damaged_names_may_change_categories_but_no_pixel():
    renamed = Portions(BEFORE.photos, ["other names"])
    assert judged({"a": [square(0, "nut"), TWO], "b": [OTHER]})
    assert not judged({"a": [square(0, "nut"), TWO], "b": [OTHER]}, renamed)
    assert judged({"a": [square(1, "nut"), TWO], "b": [OTHER]}, renamed)


def test_a_document_that_cannot_be_parsed_must_be_refused():
    assert judged(THINGS, Portions({}, [], "x.json")) == ["x.json is neither JSON nor XML, and yet a dataset was made"]


def test_files_that_begin_as_the_output_does_are_outside_of_it(monkeypatch, tmp_path):
    def leaving(raw, out, **settings):
        (out.parent / "output.tmp").write_text("left")
        return made(raw, out=out, **settings)

    made = fuzz_trial.prepare
    undamaged("via")
    monkeypatch.setattr(fuzz_trial, "prepare", leaving)
    with pytest.raises(AssertionError, match="written outside"):
        trial("via", 0, tmp_path)
