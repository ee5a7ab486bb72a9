"""The report: outlines, outcomes, advice, gallery, the page as text, and the page in a browser."""

import base64
import errno
import io
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.check import check
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.report import report
from maskwright.report.advice import Evidence, advise
from maskwright.report.evidence import gather
from maskwright.report.gallery import build_gallery, choose
from maskwright.report.outcomes import Tally, outcome, steps, tally
from maskwright.report.outlines import box_path, loops, outline, simplify, svg_path, top_of
from maskwright.report.page import _short
from maskwright.report.scored import Cut, Scored, cut_of, scored_of
from maskwright.report.training import Leak, Training, read_training
from maskwright.writing import write_shards

CHROMIUM = Path("/usr/bin/chromium")
SIZE = (48, 64)
ODD = "sub\"dir</script><script>document.title=1<!--/script>&amp;'.jpg"  # a folder and a file; every trap in one
FOREIGN = "größe 空 \u2028.jpg"
NAMES = ("one.jpg", ODD, FOREIGN, "empty.png")


# ------------------------------------------------------------------------------------------------ a small world


def block(x1, y1, x2, y2, hole=None):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    if hole:
        mask[hole[1] : hole[3], hole[0] : hole[2]] = False
    return mask


def match(photo, category, truth, detection, iou, score, what):
    return {
        "photo": NAMES[photo],
        "image_id": photo * 7,
        "category": category,
        "truth": truth,
        "detection": detection,
        "iou": iou,
        "score": score,
        "outcome": what,
    }


MATCHES = [
    match(0, "hammer", 1, 11, 0.8, 0.9, "hit"),
    match(0, "nut <b>", 2, None, None, None, "miss"),
    match(1, "hammer", 3, 12, 0.9, 0.6, "hit"),
    match(1, "nut <b>", None, 13, None, 0.7, "false alarm"),
    match(2, "hammer", 4, 14, 0.7, 0.3, "hit"),
    match(2, "nut <b>", None, 15, None, 0.2, "false alarm"),
    match(2, "nut <b>", 5, 16, None, 0.95, "crowd"),
]
CATEGORIES = [Category(1, "hammer"), Category(2, "nut <b>")]
IMAGES = [Image(i * 7, name, SIZE[1], SIZE[0]) for i, name in enumerate(NAMES)]


def thing(number, photo, category, mask, **more):
    return Annotation(number, photo * 7, category, pixels.encode(mask), **more)


def the_truth():
    return Dataset.build(
        CATEGORIES,
        IMAGES,
        [
            thing(1, 0, 1, block(5, 5, 30, 30, hole=(10, 10, 20, 20))),
            thing(2, 0, 2, block(40, 30, 60, 44)),
            thing(3, 1, 1, block(10, 10, 30, 40)),
            thing(4, 2, 1, block(2, 2, 22, 22)),
            thing(5, 2, 2, block(30, 0, 64, 48), crowd=True),
        ],
    )


def the_detections():
    return Dataset.build(
        CATEGORIES,
        IMAGES,
        [
            thing(11, 0, 1, block(6, 5, 31, 30, hole=(11, 10, 20, 20)), score=0.9),
            thing(12, 1, 1, block(11, 10, 30, 40), score=0.6),
            thing(13, 1, 2, block(40, 5, 60, 20), score=0.7),
            thing(14, 2, 1, block(2, 4, 22, 22), score=0.3),
            thing(15, 2, 2, block(4, 30, 14, 40), score=0.2),
            thing(16, 2, 2, block(32, 2, 60, 40), score=0.95),
        ],
    )


def metrics(base=0.5, box=0.7):
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    values = {f"{kind}/{n}": v for kind, v in (("segm", base), ("bbox", box)) for n in names}
    return values | {"segm/APl": None}


def curve(category, iou):
    recall = [i / 100 for i in range(101)]
    return {
        "category": category,
        "kind": "segm",
        "iou": iou,
        "recall": recall,
        "precision": [1.0 if r < iou + 0.2 else 0.0 for r in recall],
        "scores": [1 - r for r in recall],
    }


def content(folder, **changes):
    """Return an evaluation of the small world whose files are in `folder`."""
    return {
        "maskwright": {"maskwright": "0.1.0", "made": "2025-01-02T03:04:05+00:00"},
        "truth": str(folder / "truth.json"),
        "detections": str(folder / "detections.json"),
        "photos": str(folder / "photos"),
        "run": str(folder / "run"),
        "counts": {"photos": 4, "objects": 4, "crowd": 1, "detections": 6},
        "max_detections": 120,
        "metrics": metrics(),
        "intervals": {"segm/AP": {"low": 0.3, "high": 0.7, "level": 0.95, "resamples": 1000}},
        "categories": [
            {"id": 1, "name": "hammer", "objects": 3, "detections": 3, "metrics": metrics(0.8)},
            {"id": 2, "name": "nut <b>", "objects": 1, "detections": 3, "metrics": metrics(0.2)},
        ],
        "threshold": {"score": 0.5, "f1": 0.57, "precision": 0.67, "recall": 0.5, "iou": 0.5},
        "curves": [curve(name, iou) for name in (None, "hammer", "nut <b>") for iou in (0.5, 0.75)],
        "operating": [{"score": s, "precision": 0.5 + s / 2, "recall": 1 - s, "f1": 0.6} for s in (0.0, 0.5, 0.9)],
        "iou": 0.5,
        "matches": MATCHES,
    } | changes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    the_truth().write(folder / "truth.json")
    the_detections().write(folder / "detections.json")
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for name in NAMES:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(noise).save(folder / "photos" / name)
    run = folder / "run"
    run.mkdir()
    lines = [
        {"kind": "step", "step": s, "losses": {"mask": 2 / s, "rpn_box": 1 / s}, "total": 3 / s}
        for s in range(10, 101, 10)
    ]
    lines += [
        {"kind": "validation", "step": s, "metrics": {"segm/AP": s / 200, "bbox/AP": None}, "best": True}
        for s in (25, 50, 75, 100)
    ]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    plan = {
        "settings": {"steps": 100, "flip": True},
        "photos": 30,
        "reasons": {"steps": {"source": "user", "why": "you said so"}},
    }
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "run.json").write_text(json.dumps({"threshold": 0.45, "data": str(folder / "gone")}))
    (folder / "evaluation.json").write_text(json.dumps(content(folder)))
    return folder


@pytest.fixture(scope="module")
def page(world):
    return report(world / "evaluation.json", world / "report.html")


@pytest.fixture(scope="module")
def html(page):
    return page.read_text(encoding="utf-8")


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))


# ------------------------------------------------------------------------------------------------ outlines


def polygons_of(path):
    """Parse the `d` that `svg_path` writes."""
    shapes = []
    for piece in path.split("z")[:-1]:
        start, moves = re.fullmatch(r"M([-\d. ]+)l([-\d. ]+)", piece).groups()
        first = np.array(start.split(), dtype=float)
        delta = np.array(moves.split(), dtype=float).reshape(-1, 2)
        shapes.append(np.concatenate([[first], first + np.cumsum(delta, axis=0)]))
    return shapes


def filled(shapes, size):
    """Fill polygons by the even-odd rule at pixel centres, with a ray to the right."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, dtype=bool)
    for shape in shapes:
        for (ax, ay), (bx, by) in zip(shape, np.roll(shape, -1, axis=0), strict=True):
            if ay != by:
                crosses = (y > min(ay, by)) & (y < max(ay, by))
                inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside


masks = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(masks)
def test_loops_cover_exactly_the_mask(mask):
    assert filled(loops(mask), mask.shape).tolist() == mask.tolist()


@given(masks)
def test_an_outline_without_tolerance_covers_exactly_the_mask(mask):
    assert filled(polygons_of(outline(mask, mask.shape, 0)), mask.shape).tolist() == mask.tolist()


@given(masks, st.floats(0.1, 3))
def test_simplifying_keeps_points_of_the_loop_and_at_least_three(mask, tolerance):
    for loop in loops(mask):
        kept = simplify(loop, tolerance)
        assert len(kept) >= 3
        assert {tuple(p) for p in kept.tolist()} <= {tuple(p) for p in loop.tolist()}


def test_a_hole_stays_a_hole_and_a_shape_stays_itself_at_half_scale():
    y, x = np.mgrid[:200, :300]
    distance = np.hypot(x - 150, y - 100)
    ring = (distance < 80) & (distance > 40)
    path = outline(ring, (100, 150))
    assert path.count("M") == 2
    small = np.hypot(x[:100, :150] + 0.5 - 75, y[:100, :150] + 0.5 - 50)
    wanted = (small < 40) & (small > 20)
    got = filled(polygons_of(path), (100, 150))
    assert (got & wanted).sum() / (got | wanted).sum() > 0.95
    assert len(path) < 700


def test_an_object_thinner_than_a_shown_pixel_is_still_drawn():
    mask = np.zeros((100, 100), dtype=bool)
    mask[10, 20:60] = True
    assert polygons_of(outline(mask, (10, 10)))[0].tolist() == [[2, 1], [6, 1], [6, 1.1], [2, 1.1]]


def test_an_empty_mask_has_no_outline():
    assert outline(np.zeros((3, 3), dtype=bool), (3, 3)) == ""


def test_a_box_becomes_a_path_at_the_shown_scale():
    assert box_path((10, 20, 30, 40), (100, 100), (50, 50)) == "M5 10l10 0 0 10 -10 0z"


def test_negative_steps_below_one_keep_their_sign():
    assert svg_path([np.array([[1, 1], [0.6, 1], [1, 1.5]])]) == "M1 1l-0.4 0 0.4 0.5z"


def test_a_label_stands_where_the_object_begins():
    assert top_of(block(10, 20, 30, 40), SIZE) == (20.0, 20.0)


# ------------------------------------------------------------------------------------------------ outcomes


def test_a_threshold_turns_hits_into_misses_and_drops_false_alarms():
    assert tally(MATCHES, 0.0) == Tally(3, 1, 2, pytest.approx(2.4))
    assert tally(MATCHES, 0.5) == Tally(2, 2, 1, pytest.approx(1.7))
    assert tally(MATCHES, 1.0) == Tally(0, 4, 0, 0.0)


def test_a_score_equal_to_the_threshold_counts():
    assert outcome(MATCHES[2], 0.6) == "hit"
    assert outcome(MATCHES[2], np.nextafter(0.6, 1)) == "miss"


def test_tally_derives_its_shares():
    counts = Tally(2, 2, 1, 1.7)
    assert (counts.recall, counts.precision, counts.mean_iou) == (0.5, pytest.approx(2 / 3), 0.85)
    assert counts.quality == pytest.approx(1.7 / 3.5)
    assert (Tally().recall, Tally().precision, Tally().mean_iou, Tally().quality) == (None, None, None, 1.0)


scored = st.lists(st.tuples(st.sampled_from(["hit", "miss", "false alarm", "crowd"]), st.floats(0, 1)), max_size=20)


@given(scored)
def test_steps_agree_with_tally_at_every_threshold(rows):
    matches = [{"outcome": what, "score": None if what == "miss" else s, "iou": 0.6} for what, s in rows]
    for i, (hits, alarms) in enumerate(steps(matches)):
        counts = tally(matches, i / 100)
        assert (hits, alarms) == (counts.hits, counts.false_alarms)


# ------------------------------------------------------------------------------------------------ advice


def titles(**known):
    known = {"metrics": {}, "photos": 100, "tally": Tally(80, 20, 18, 60.0), "interval": (0.5, 0.55)} | known
    return [(a.title, a.reason) for a in advise(Evidence(**known))]


def ramp(*values):
    return [{"step": 100 * (i + 1), "segm/AP": v} for i, v in enumerate(values)]


falling = [{"step": s, "total": 100 / s} for s in range(10, 610, 10)]

ADVICE = [
    ({"tally": Tally()}, "Score photos that show objects", "The truth has no object in 100 photos."),
    ({"tally": Tally(0, 5)}, "Look at the training first", "None of 5 objects was found."),
    ({"metrics": {"segm/AP": 1.0}}, "Check that the score is a fair one", "AP is 1.000"),
    (
        {"interval": (0.4, 0.6), "photos": 12, "scored": Scored("test")},
        "Score on more photos before trusting small differences",
        "The 95% interval of AP reaches from 0.40 to 0.60, with 12 test photos.",
    ),
    (
        {"interval": None, "photos": 1},
        "Score on more photos before trusting small differences",
        "The score comes from only 1 photo.",
    ),
    (
        {"interval": None, "photos": 1, "scored": Scored("val")},
        "Score on more photos before trusting small differences",
        "The score comes from only 1 validation photo.",
    ),
    (
        {"photos": 120, "scored": Scored("val", True, True)},
        "Score photos that the training has not seen",
        "The 120 scored photos also chose the weights and the threshold.",
    ),
    (
        {"photos": 120, "scored": Scored("train", True)},
        "Score photos that the training has not seen",
        "The 120 scored photos were learned from.",
    ),
    (
        {"scored": Scored("test", True, leaks=(Leak("test", False, 2, 30), Leak("test", True, 1, 30)))},
        "Part the splits anew before trusting the score",
        "2 of the 30 photos stand in another split too; 1 of the 30 photos looks like a photo of another split.",
    ),
    (
        {"validations": ramp(0.1, 0.2, 0.3, 0.4)},
        "Train longer",
        "Validation AP was still rising at the end: 0.200 at best in the first two thirds, 0.400 at step 400.",
    ),
    (
        {"validations": ramp(0.1, 0.4, 0.3, 0.3, 0.3, 0.3), "losses": falling},
        "Add photos rather than training time",
        "Validation AP peaked at 0.400 at step 200 and ended at 0.300, while the training loss went on falling.",
    ),
    (
        {"metrics": {"segm/AP": 0.5, "bbox/AP": 0.7}},
        "Improve the masks: the boxes are already good",
        "Box AP is 0.700, mask AP 0.500",
    ),
    (
        {"metrics": {"segm/AP": 0.5, "bbox/AP": 0.5, "segm/AP50": 0.9, "segm/AP75": 0.4}},
        "Improve how exactly objects are outlined",
        "AP50 is 0.900, AP75 0.400",
    ),
    (
        {"small": (3, 10), "large": (18, 20)},
        "Help it to see small objects",
        "Of the smallest third of the objects 3 of 10 were found (30%), of the others 18 of 20 (90%).",
    ),
    (
        {"swaps": {("date", "fig"): 7, ("fig", "date"): 1}},
        "Teach it to tell “date” from “fig”",
        "7 missed objects of “date” were detected as “fig”.",
    ),
    (
        {"repeats": 9},
        "Expect some objects to be detected twice",
        "9 of 18 false alarms lie on an object that another detection has already found.",
    ),
    ({"empty_alarms": 4}, "Add photos without any object", "4 false alarms are in photos that show no object."),
    (
        {"tally": Tally(50, 5, 40)},
        "Show it what not to detect",
        "40 false alarms against 5 misses at any score.",
    ),
    (
        {"tally": Tally(50, 40, 1), "used_threshold": 0.49, "threshold": 0.4},
        "Find out what it overlooks",
        "40 misses against 1 false alarm from a score of 0.49 on.",
    ),
    ({"train_photos": 14}, "Add training photos", "It learned from 14 photos."),
    (
        {
            "categories": [{"name": "a", "metrics": {"segm/AP": 0.9}}, {"name": "b", "metrics": {"segm/AP": 0.3}}],
            "train_objects": {"b": 4},
        },
        "Add examples of “b”",
        "Its AP is 0.300, the others' mean is 0.900; it learned from 4 objects of it.",
    ),
    (
        {"threshold": 0.7, "used_threshold": 0.4},
        "Consider predicting with a score of 0.70",
        "These photos do best at a score of 0.70; 0.40 is in use.",
    ),
]


@pytest.mark.parametrize(("known", "title", "reason"), ADVICE, ids=[a[1][:30] for a in ADVICE])
def test_each_rule_speaks_with_what_it_measured(known, title, reason):
    found = titles(**known)
    assert [(t, r[: len(reason)]) for t, r in found] == [(title, reason)]


def test_without_cause_the_advice_is_to_look_at_the_worst_photos():
    assert titles() == [
        ("Nothing stands out", "None of the rules of this page found a cause for concern in the numbers.")
    ]


def test_another_score_is_advised_only_where_it_can_gain():
    assert titles(threshold=0.7, used_threshold=0.4)[0][0] == "Consider predicting with a score of 0.70"
    assert "Consider" not in str(titles(threshold=0.7, used_threshold=0.4, tally=Tally(100, 0, 0, 90.0)))


def test_a_plateau_is_neither_rising_nor_overfitted():
    assert titles(validations=ramp(0.1, 0.4, 0.4, 0.4, 0.4, 0.4), losses=falling)[0][0] == "Nothing stands out"


def test_evidence_finds_swaps_repeats_and_alarms_in_empty_photos():
    truth = Dataset.build(
        CATEGORIES,
        IMAGES,
        [thing(1, 0, 1, block(0, 0, 10, 10)), thing(2, 0, 2, block(20, 20, 40, 40))],
    )
    found = Dataset.build(
        CATEGORIES,
        IMAGES,
        [
            thing(1, 0, 1, block(0, 0, 10, 10), score=0.9),
            thing(2, 0, 1, block(0, 0, 10, 9), score=0.8),
            thing(3, 0, 1, block(20, 20, 40, 38), score=0.7),
            thing(4, 3, 1, block(20, 20, 40, 38), score=0.7),
        ],
    )
    matches = [
        match(0, "hammer", 1, 1, 1.0, 0.9, "hit"),
        match(0, "nut <b>", 2, None, None, None, "miss"),
        match(0, "hammer", None, 2, None, 0.8, "false alarm"),
        match(0, "hammer", None, 3, None, 0.7, "false alarm"),
        match(3, "hammer", None, 4, None, 0.7, "false alarm"),
    ]
    evaluation = content(Path("/nowhere"), matches=matches)
    evidence = gather(evaluation, truth, found, Training(), Cut(0.5), Scored())
    assert (evidence.swaps, evidence.repeats, evidence.empty_alarms) == ({("nut <b>", "hammer"): 1}, 1, 1)
    assert gather(evaluation, None, None, Training(), Cut(0.5), Scored()).repeats == 0


def test_evidence_splits_the_objects_by_size():
    objects = [thing(i + 1, 0, 1, block(0, 0, 2 + 3 * i, 2 + 3 * i)) for i in range(6)]
    truth = Dataset.build(CATEGORIES, IMAGES, objects)
    matches = [match(0, "hammer", i + 1, None, None, None, "miss") for i in range(2)]
    matches += [match(0, "hammer", i + 1, 90 + i, 0.8, 0.9, "hit") for i in range(2, 6)]
    evidence = gather(content(Path("/nowhere"), matches=matches), truth, None, Training(), Cut(0.5), Scored())
    assert (evidence.small, evidence.large) == ((0, 2), (4, 4))


# ------------------------------------------------------------------------------------------------ training


def test_training_reads_curves_plan_and_threshold(world):
    training = read_training(world / "run")
    assert training.losses[0] == {"step": 10.0, "total": 0.3, "mask": 0.2, "rpn_box": 0.1}
    assert training.validations[-1] == {"step": 100.0, "segm/AP": 0.5, "best": True}
    assert training.plan[:2] == (("steps", "100", "user", "you said so"), ("flip", "yes", "", ""))
    assert (training.threshold, training.train_photos, training.notes) == (0.45, 30, ())


@pytest.mark.parametrize(("given", "counted"), [(0, 1), ("0", 1), (None, 1), (1, 0), ("1", 0), (True, 0)])
def test_training_counts_objects_and_no_crowds(tmp_path, given, counted):
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps({"data": str(tmp_path / "data")}))
    rows = [{"category_id": 1, "iscrowd": given}, {"category_id": 2}]
    names = [{"id": 1, "name": "hammer"}, {"id": 2, "name": "nut"}]
    document = {"images": [{}, {}], "annotations": rows, "categories": names}
    (tmp_path / "data/annotations/instances_train.json").write_text(json.dumps(document))
    training = read_training(tmp_path)
    assert (training.train_photos, training.train_objects) == (2, {"hammer": counted, "nut": 1})


def test_training_counts_the_photos_it_learned_from(tmp_path):
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    the_truth().write(tmp_path / "data" / "annotations" / "instances_train.json")
    (tmp_path / "run.json").write_text(json.dumps({"data": str(tmp_path / "data")}))
    training = read_training(tmp_path)
    assert (training.train_photos, training.train_objects) == (4, {"hammer": 3, "nut <b>": 1})


def test_shards_are_reported_like_one_file(world, html, tmp_path):
    (tmp_path / "run").mkdir()
    write_shards(the_truth(), tmp_path / "data" / "annotations", "instances_train", 3)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": str(tmp_path / "data")}))
    training = read_training(tmp_path / "run")
    assert (training.train_photos, training.train_objects) == (4, {"hammer": 3, "nut <b>": 1})
    evaluation = content(world, truth=str(tmp_path / "data" / "annotations" / "instances_train.json"))
    page = report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "cannot be read" not in page
    assert data_of(page)["photos"] == data_of(html)["photos"]


def test_a_long_log_is_thinned_by_averages(tmp_path):
    lines = [{"kind": "step", "step": s, "losses": {"mask": float(s % 2)}, "total": 1.0} for s in range(1, 1001)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    training = read_training(tmp_path)
    assert (len(training.losses), training.averaged) == (334, 3)
    assert training.losses[0] == {"step": 3, "total": 1.0, "mask": pytest.approx(2 / 3)}


def test_missing_and_broken_parts_of_a_run_are_named(tmp_path):
    assert read_training(None).notes == ("No training curves: the evaluation names no run (give one with --run).",)
    assert read_training(tmp_path / "x").notes == (
        f"No training curves: the run folder {tmp_path / 'x'} does not exist.",
    )
    assert read_training(tmp_path).notes == (
        f"No training curves: {tmp_path / 'log.jsonl'} does not exist or cannot be read.",
        "plan.json is not in the run folder.",
        "run.json is not in the run folder.",
    )
    (tmp_path / "log.jsonl").write_text('{"kind": "step", "st\n[]\n{"kind": "step", "step": NaN}\n')
    (tmp_path / "plan.json").write_text("{")
    (tmp_path / "run.json").write_text("[]")
    notes = read_training(tmp_path).notes
    assert notes[0] == "3 lines of log.jsonl could not be read and are left out of the curves."
    assert notes[1].startswith("plan.json of the run cannot be read: ")


# ------------------------------------------------------------------------------------------------ gallery


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 20))
def test_choose_takes_the_worst_and_nothing_twice(quality, most):
    chosen = choose(quality, most)
    assert len(chosen) == len(set(chosen)) == min(most, len(quality))
    assert all(quality[a] <= quality[b] for a, b in pairwise(chosen))
    if quality:
        assert quality[chosen[0]] == min(quality)


def test_gallery_joins_objects_to_their_outcomes(world):
    gallery = build_gallery(the_truth(), the_detections(), MATCHES, world / "photos", 0.5)
    assert [p["n"] for p in gallery.photos] == [FOREIGN, "one.jpg", ODD, "empty.png"]
    three, one, two, empty = gallery.photos
    assert [(t["c"], t.get("s"), t.get("crowd")) for t in three["truth"]] == [
        ("hammer", 0.3, None),
        ("nut <b>", None, True),
    ]
    assert [(d["s"], d["o"]) for d in three["dets"]] == [(0.95, "crowd"), (0.3, "hit"), (0.2, "alarm")]
    assert one["truth"][0]["d"].count("M") == 2
    assert one["truth"][0]["b"] == [5, 5, 30, 30]
    assert [(d["o"], d.get("i")) for d in two["dets"]] == [("alarm", None), ("hit", 0.9)]
    assert (empty["truth"], empty["dets"]) == ([], [])
    assert gallery.notes == ()


def test_embedded_photos_are_jpegs_of_the_stated_size(world, tmp_path):
    big = PillowImage.new("RGB", (3000, 1500), (200, 30, 30))
    big.save(tmp_path / "big.png")
    truth = Dataset.build(CATEGORIES, [Image(1, "big.png", 3000, 1500)], [])
    photo = build_gallery(truth, None, [], tmp_path, 0.5).photos[0]
    picture = PillowImage.open(io.BytesIO(base64.b64decode(photo["src"].removeprefix("data:image/jpeg;base64,"))))
    assert (picture.format, picture.size) == ("JPEG", (1280, 640))
    assert (photo["w"], photo["h"], photo["full"]) == (1280, 640, [3000, 1500])


def test_a_detection_with_the_advised_score_keeps_it_to_the_last_bit():
    score = 0.47312345678901234
    found = Dataset.build(CATEGORIES, IMAGES, [thing(1, 0, 1, block(0, 0, 9, 9), score=score)])
    gallery = build_gallery(the_truth(), found, [match(0, "hammer", 1, 1, 0.8, score, "hit")], None, score)
    photo = next(p for p in gallery.photos if p["n"] == "one.jpg")
    assert photo["dets"][0]["s"] == photo["truth"][0]["s"] == score


def test_detections_are_joined_by_name_even_if_their_ids_differ():
    other = [Image(100 - i, image.file_name, image.width, image.height) for i, image in enumerate(IMAGES)]
    found = Dataset.build(CATEGORIES, other, [Annotation(11, 100, 1, pixels.encode(block(6, 5, 31, 30)), score=0.9)])
    gallery = build_gallery(the_truth(), found, MATCHES, None, 0.5)
    assert [len(p["dets"]) for p in gallery.photos if p["n"] == "one.jpg"] == [1]


def test_a_large_test_set_is_cut_and_says_how():
    images = [Image(i + 1, f"{i}.jpg", 8, 8) for i in range(50)]
    gallery = build_gallery(Dataset.build(CATEGORIES, images, []), None, [], None, 0.5, most=6)
    assert len(gallery.photos) == 6
    assert gallery.rule == (
        "6 of 50 photos: the worst, and a sample spread evenly over the rest; "
        "44 are left out to keep the page small. All numbers on this page count every photo."
    )


def test_photos_that_do_not_fit_the_page_are_left_out_and_counted(world):
    gallery = build_gallery(the_truth(), None, MATCHES, world / "photos", 0.5, most_bytes=4000)
    assert 1 <= len(gallery.photos) < 4
    left = 4 - len(gallery.photos)
    assert gallery.rule == (
        f"{len(gallery.photos)} of 4 photos, the worst first; {left} are left out to keep the page small."
    )


def test_more_detections_than_are_drawn_are_counted():
    anns = [thing(i + 1, 0, 1, block(0, 0, 3, 3), score=i / 200) for i in range(130)]
    gallery = build_gallery(the_truth(), Dataset.build(CATEGORIES, IMAGES, anns), [], None, 0.5)
    photo = next(p for p in gallery.photos if p["n"] == "one.jpg")
    assert (len(photo["dets"]), photo["cut"], photo["dets"][-1]["s"]) == (100, 30, 0.15)
    assert "30 detections with the lowest scores are not drawn (100 a photo at most)." in gallery.notes


def test_photos_that_are_gone_broken_or_of_another_size_are_named(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"")
    PillowImage.new("RGB", (5, 4)).save(tmp_path / "c.png")
    images = [Image(i, n, 8, 8) for i, n in enumerate(("a.jpg", "b.jpg", "c.png", "../d.jpg"))]
    gallery = build_gallery(Dataset.build(CATEGORIES, images, []), None, [], tmp_path, 0.5)
    assert [p["why"] for p in gallery.photos] == [
        "does not exist",
        "is empty (0 bytes)",
        "is 5 x 4, the truth says 8 x 8",
        "is not shown: file names in a data file must stay inside its folder",
    ]
    assert any(
        note.startswith("4 photos could not be shown: a.jpg does not exist, b.jpg is empty") for note in gallery.notes
    )


# ------------------------------------------------------------------------------------------------ the page as text


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html.split("</main>")[0].split('<p class="lede"')[1]))


def test_the_page_says_the_result_in_plain_words(html):
    text = text_of(html)
    assert "It found 2 of 4 objects (50%) and missed 2." in text
    assert "Of its 3 detections, 1 (33%) was a false alarm." in text
    assert "overlap by 85% (IoU) on average." in text
    assert "With only 4 photos even the interval is a rough guess" in text
    assert "AR, 120 per photo" in text


# ------------------------------------------------------------------------------------------------ what makes it flatter


def run_of(folder, split="val", leaks=(), **about):
    """Write a run and its data; return an evaluation of a split of that data."""
    data, run = folder / "data", folder / "run"
    (data / "annotations").mkdir(parents=True)
    the_truth().write(data / "annotations" / f"instances_{split}.json")
    the_detections().write(folder / "detections.json")
    run.mkdir()
    (run / "log.jsonl").write_text("")
    (run / "plan.json").write_text("{}")
    (run / "run.json").write_text(json.dumps({"threshold": 0.65, "data": str(data), "best_step": 20} | about))
    problems = [{"code": code, "problem": {"what": "w", "where": where, "fix": "f"}} for code, where in leaks]
    (run / "facts.json").write_text(json.dumps({"problems": problems}))
    truth = str(data / "annotations" / f"instances_{split}.json")
    return content(folder, truth=truth, photos=None)


VALIDATED = (
    "The score flatters: these are the validation photos of the training, which chose the weights and the threshold"
)
PERHAPS = "These are the photos of a val split. If the training was validated on them, they chose its weights"


def test_a_page_of_the_runs_own_val_says_that_its_photos_chose_the_weights(tmp_path):
    evaluation = run_of(tmp_path)
    html = report(evaluation, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "4 photos of the val split scored, showing 4 objects" in text_of(html)
    assert VALIDATED in text_of(html)
    assert "Score photos that the training has not seen" in html
    assert "The 4 scored photos also chose the weights and the threshold." in html
    assert "with 4 validation photos." in html
    cards = html.split('id="next"')[1].split('id="photos"')[0]
    assert re.findall(r"[^.]*\btest photos?\b[^.]*", cards) == []


def test_a_page_of_test_says_so_and_has_no_caution(tmp_path):
    html = report(run_of(tmp_path, "test"), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "4 photos of the test split scored" in text_of(html)
    assert 'class="caution"' not in html
    assert "with 4 test photos." in html


def test_a_run_that_was_not_validated_was_chosen_by_nothing(tmp_path):
    html = report(run_of(tmp_path, best_step=None), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "of the val split" in text_of(html)
    assert 'class="caution"' not in html


def test_val_of_data_that_the_run_does_not_name_may_have_chosen(tmp_path):
    html = report(run_of(tmp_path, data="/elsewhere"), tmp_path / "r.html").read_text(encoding="utf-8")
    assert PERHAPS in text_of(html)
    assert VALIDATED not in text_of(html)


@pytest.mark.parametrize(
    ("evaluation", "data", "split", "own"),
    [
        ({"truth": "/d/annotations/instances_test-00001-of-00003.json"}, "/d", "test", True),
        ({"truth": "/d/annotations/instances_val-*.json"}, "/d/", "val", True),
        ({"truth": "/d/annotations/instances_val.json"}, "/e", "val", False),
        ({"truth": "/d/annotations/instances_val.json"}, None, "val", False),
        ({"truth": "/d/annotations/instances_validated.json"}, "/d", None, False),
        ({"truth": "/d/annotations", "photos": "/d/val"}, "/d", "val", True),
        ({"truth": None, "photos": "/d/test"}, "/d", "test", True),
        ({"truth": "/x/labels.json", "photos": "/x/test"}, "/d", None, False),
        ({}, None, None, False),
    ],
)
def test_the_split_is_known_by_the_file_or_by_the_photos(evaluation, data, split, own):
    scored = scored_of(evaluation, Training(data=data and Path(data)))
    assert (scored.split, scored.own) == (split, own)


def test_leaks_that_the_check_found_stand_beside_the_score(tmp_path):
    where = ["test: 1 of 1,200 photos (0%)", "val: 2 of 4 photos (50%)", "train/a.jpg ~ val/b.jpg (likeness 0.98)"]
    evaluation = run_of(tmp_path, leaks=[("near-leak", where), ("speck", ["val: 3 of 4 photos (75%)"])])
    html = report(evaluation, tmp_path / "r.html").read_text(encoding="utf-8")
    tile = html.split('class="tile main"')[1].split('class="tile"')[0]
    found = "The check before the training found: 2 of the 4 photos look like a photo of another split."
    assert found in tile
    assert html.count("The check before the training found") == 1
    assert "Part the splits anew before trusting the score" in html
    assert read_training(tmp_path / "run").leaks == (Leak("test", True, 1, 1200), Leak("val", True, 2, 4))


def test_leaks_are_read_from_what_check_writes(tmp_path):
    noise = np.random.default_rng(3).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for split, names in (("train", ["a.png", "b.png"]), ("val", ["c.png", "d.png"])):
        images = [Image(i + 1, name, SIZE[1], SIZE[0]) for i, name in enumerate(names)]
        objects = [Annotation(i + 1, i + 1, 1, pixels.encode(block(5, 5, 30, 30))) for i in range(2)]
        place = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        Dataset.build(CATEGORIES[:1], images, objects).write(place)
        (tmp_path / "data" / split).mkdir()
        for name in names:
            pixel = noise if name in {"a.png", "d.png"} else np.roll(noise, ord(name[0]) * 7, axis=0) // 2
            PillowImage.fromarray(pixel).save(tmp_path / "data" / split / name)
    facts = check(tmp_path / "data")
    (tmp_path / "facts.json").write_text(json.dumps(facts.model_dump(mode="json")))
    assert read_training(tmp_path).leaks == (Leak("val", False, 1, 2),)


# ------------------------------------------------------------------------------------------------ the score in use


def test_the_page_counts_from_the_score_that_masks_were_written_from(tmp_path):
    """The run advises 0.65 and the scored photos do best at 0.5: the masks, and so the page, begin at 0.65."""
    evaluation = run_of(tmp_path, "test") | {"used": {"score": 0.65, "precision": 0.5, "recall": 0.25, "f1": 1 / 3}}
    html = report(evaluation, tmp_path / "r.html").read_text(encoding="utf-8")
    text = text_of(html)
    assert "It found 1 of 4 objects (25%) and missed 3. Of its 2 detections, 1 (50%) was a false alarm." in text
    counted = "Counted are detections with a score of at least 0.650: from there on they were written as mask images"
    assert f"{counted}, as the run’s validation advised." in text
    assert "Aside: these photos would do best from a score of 0.500 on (highest F1: found 50%, right 67%)." in text
    data = data_of(html)
    assert (data["threshold"], data["inUse"], data["best"], data["at"]) == (0.65, True, 0.5, [1, 1])
    assert "In use</button>" in html


@pytest.mark.parametrize(
    ("used", "stated", "run", "best", "cut"),
    [
        (0.2, 0.3, 0.65, 0.5, Cut(0.2, "masks", False)),
        (None, 0.3, 0.65, 0.5, Cut(0.3, "masks", False)),
        (None, 0.65, 0.65, 0.5, Cut(0.65, "masks", True)),
        (None, None, 0.65, 0.5, Cut(0.65, "run", True)),
        (None, None, None, 0.5, Cut(0.5, "best")),
        (None, None, None, None, Cut()),
    ],
)
def test_the_score_of_the_masks_wins_over_the_runs_and_that_over_the_best(used, stated, run, best, cut):
    evaluation = {"used": used and {"score": used}, "threshold": best and {"score": best}}
    info = {} if stated is None else {"maskwright": {"threshold": stated}}
    found = Dataset.build(CATEGORIES, IMAGES, [], info=info)
    assert cut_of(evaluation, found, Training(threshold=run, validated=True)) == cut


def test_a_best_score_that_is_all_there_is_is_called_that(world, tmp_path):
    html = report(content(world, run=None), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "where these photos balance misses and false alarms best (highest F1). It was chosen on the very" in html
    assert "Best F1</button>" in html
    assert "Aside:" not in html


def test_the_page_says_why_there_is_no_interval(world, tmp_path):
    html = report(content(world, intervals={"segm/AP": None}), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No interval: with fewer than five photos that show an object, redrawing them tells nothing." in html
    assert 'class="pm"' not in html
    html = report(content(world, intervals={}), tmp_path / "r2.html").read_text(encoding="utf-8")
    assert "No interval was computed" in html


def test_undefined_numbers_are_a_dash(html):
    row = re.search(r"AP large.*?</tr>", html, re.S).group(0)
    assert re.findall(r'<td class="n">(.*?)</td>', row) == ["–", "0.700"]


def test_the_weakest_category_comes_first(html):
    table = html.split("Numbers of each category")[1]
    assert re.findall(r'<tr><th scope="row">(.*?)</th>', table)[:2] == ["nut &lt;b&gt;", "hammer"]


def test_the_page_asks_for_nothing_from_outside(html):
    markup = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.S)
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', markup) == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", markup) == []
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html).group(1)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-")


def test_names_cannot_become_markup(html):
    assert "<script>document.title" not in html
    assert html.count("<script") == html.count("</script>") == 2
    assert "nut <b>" not in html
    assert {p["n"] for p in data_of(html)["photos"]} == set(NAMES)


def test_names_that_are_not_text_do_not_break_the_page(world, tmp_path):
    evaluation = content(world, categories=[{"id": 1, "name": "bad \udcff", "objects": 1, "detections": 0}])
    page = report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>bad ?</h1>" in page


def test_everything_that_is_missing_is_said(tmp_path):
    evaluation = content(tmp_path, photos=None, run=None)
    said = []
    page = report(evaluation, tmp_path / "r.html", say=said.append).read_text(encoding="utf-8")
    notes = page.split("Missing from this page")[1].split("</section>")[0]
    assert "The truth file cannot be read: the file does not exist" in notes
    assert "The detections file cannot be read: the file does not exist" in notes
    assert "No gallery: neither the truth nor the detections file could be read." in notes
    assert "No training curves: the evaluation names no run (give one with --run)." in notes
    assert said[-1].startswith(f"wrote {tmp_path / 'r.html'} (")


def test_without_photos_the_outlines_are_drawn_and_it_is_said(world, tmp_path):
    page = report(content(world, photos=None), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Photos not found: the evaluation names no photo folder; outlines are drawn on a blank ground." in page
    assert data_of(page)["photos"][0]["src"] is None


def test_the_smallest_evaluation_makes_a_page(tmp_path):
    page = report({"metrics": {}, "matches": []}, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The evaluation names no truth file." in page
    assert "The truth shows no object, so no score has a meaning here." in page


def test_an_object_with_json_is_an_evaluation(world, tmp_path):
    class Evaluation:
        def json(self):
            return content(world)

    made = report(Evaluation(), tmp_path / "r.html")
    assert "It found <strong>2 of 4 objects" in made.read_text(encoding="utf-8")


def test_a_bare_list_of_results_is_read_with_its_truth(world, tmp_path):
    rows = [
        {k: v for k, v in a.items() if k not in {"area", "iscrowd"}} for a in the_detections().coco()["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    page = report(content(world, detections=str(tmp_path / "results.json")), tmp_path / "r.html")
    assert sum(len(p["dets"]) for p in data_of(page.read_text(encoding="utf-8"))["photos"]) == 6


def test_a_given_run_wins_over_the_one_in_the_evaluation(world, tmp_path):
    page = report(content(world, run=None), tmp_path / "r.html", run=world / "run").read_text(encoding="utf-8")
    assert len(data_of(page)["losses"]) == 10
    assert "you said so" in page


def test_an_existing_page_is_refused_and_replaced_on_request(world, tmp_path):
    out = tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="the output exists already"):
        report(content(world), out)
    assert out.read_text() == "mine"
    assert report(content(world), out, overwrite=True).stat().st_size > 10_000


def test_a_run_that_is_not_there_is_an_error_if_it_was_given(world, tmp_path):
    with pytest.raises(UserError) as error:
        report(content(world), tmp_path / "r.html", run=tmp_path / "none")
    assert str(error.value) == (
        f"the run folder does not exist\n  {tmp_path / 'none'}\nfix: check the path, or leave --run out"
    )


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_given_run_that_is_none_is_an_error(world, tmp_path, text):
    folder = tmp_path / "some"
    folder.mkdir()
    if text is not None:
        (folder / "run.json").write_text(text)
    with pytest.raises(UserError) as error:
        report(content(world), tmp_path / "r.html", run=folder)
    if text is None:
        assert str(error.value) == (
            f"the folder is not a run: run.json is not there\n  {folder}\n"
            "fix: name a folder that `maskwright train` wrote, or leave --run out"
        )
    assert str(folder) in str(error.value)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[]", "'metrics' and 'matches' missing"),
        ('{"metrics": {}}', "'matches' missing"),
        ('{"metrics": [], "matches": [3]}', "'metrics' must be an object and 'matches' a list of objects"),
    ],
)
def test_other_files_are_not_evaluations(tmp_path, text, where):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(UserError) as error:
        report(tmp_path / "e.json", tmp_path / "r.html")
    assert str(error.value) == (
        f"this is not an evaluation\n  {tmp_path / 'e.json'}: {where}\n"
        "fix: make one: maskwright evaluate TRUTH DETECTIONS -o evaluation.json"
    )


def test_paths_are_shown_short(tmp_path):
    assert _short(str(tmp_path / "data" / "t.json"), tmp_path / "r.html") == "data/t.json"
    assert _short("/a/b/c/d/t.json", Path("/x/y/z/r.html")) == "…/d/t.json"
    assert _short("data/t.json", tmp_path / "r.html") == "data/t.json"


# ------------------------------------------------------------------------------------------------ the page in a browser


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        flags += ["--disable-component-update", "--disable-sync"]
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, page):
    """Open the report; fails the test on console output, script errors and requests beyond the page itself."""
    contexts, trouble = [], []

    def go(path=page, width=1200, height=800, **more):
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **more)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda m: trouble.append(f"console {m.type}: {m.text}"))
        tab.on("pageerror", lambda e: trouble.append(f"error: {e}"))
        tab.on("requestfailed", lambda r: trouble.append(f"failed: {r.url[:80]}"))
        tab.on("request", lambda r: None if r.url.startswith(("data:", path.as_uri())) else trouble.append(r.url[:80]))
        tab.goto(path.as_uri())
        return tab

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


def names_plain(tab):
    return [n for n in NAMES for shown in [tab.locator(".card .name").all_text_contents()] if n in shown]


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


def drag_to(tab, value):
    """Set the threshold slider as a user does: an input event, then a change event."""
    tab.locator("#threshold").evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }", value
    )


@pytest.mark.browser
def test_the_page_loads_and_shows_all_photos(open_page):
    tab = open_page()
    assert names_plain(tab) == list(NAMES)
    assert tab.title() == "hammer, nut <b> · segmentation report"
    assert tab.locator(".plot").count() == 4
    assert tab.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 64)")


@pytest.mark.browser
def test_the_policy_stops_foreign_script_and_network(browser, page):
    tab = browser.new_page()
    blocked = []
    tab.on("console", lambda m: blocked.append(m.text))
    tab.goto(page.as_uri())
    tab.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = \"mine\"'}))"
    )
    tab.wait_for_timeout(50)
    assert tab.title() != "mine"
    assert len([b for b in blocked if "Content Security Policy" in b]) == 2
    tab.close()


@pytest.mark.browser
def test_layers_can_be_hidden_one_by_one(open_page):
    tab = open_page()

    def drawn():
        count = "(s) => [...document.querySelectorAll(s)].filter((e) => getComputedStyle(e).display !== 'none').length"
        return [tab.evaluate(count, s) for s in ("#cards g.truth", "#cards g.det", "#cards .tag:not([hidden])")]

    everything = drawn()
    assert everything[:2] == [5, 4]
    seen = []
    for layer in ("truth", "detections", "labels"):
        button = tab.locator(f'#tools [data-layer="{layer}"]')
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        seen.append(drawn())
        button.click()
    assert [s[:2] for s in seen] == [[0, 4], [5, 0], [5, 4]]
    assert seen[2][2] == 0
    assert drawn() == everything


@pytest.mark.browser
def test_photos_are_filtered_by_outcome(open_page):
    tab = open_page()
    shown = {}
    for what in ("hit", "miss", "alarm", "all"):
        tab.locator(f'[data-filter="{what}"]').click()
        shown[what] = names_plain(tab)
    assert shown == {"hit": [NAMES[0], ODD], "miss": [NAMES[0], FOREIGN], "alarm": [ODD], "all": list(NAMES)}
    assert tab.locator("[data-filter] output").all_inner_texts() == ["4", "2", "2", "1"]


@pytest.mark.browser
def test_a_category_narrows_photos_and_counts(open_page):
    tab = open_page()
    tab.locator("#category").select_option("nut <b>")
    tab.locator('[data-filter="miss"]').click()
    assert names_plain(tab) == ["one.jpg"]
    assert tab.locator(".card .chips").inner_text().replace("\n", " ").split() == [
        *("✓", "0", "hits", "○", "1", "missed", "✕", "0", "false", "alarms")
    ]


@pytest.mark.browser
def test_photos_are_sorted(open_page):
    tab = open_page()
    orders = {}
    for how in ("name", "score", "worst"):
        tab.locator("#sort").select_option(how)
        orders[how] = [NAMES.index(n) for n in tab.locator(".card .name").all_text_contents()]
    assert orders["name"] == [3, 2, 0, 1]
    assert orders["score"] == [2, 0, 1, 3]
    assert orders["worst"] == [2, 0, 1, 3]


@pytest.mark.browser
def test_the_threshold_changes_what_is_shown_and_counted(open_page):
    tab = open_page()
    assert "2 hits, 2 missed, 1 false alarm" in tab.locator("#sum").inner_text()
    drag_to(tab, "0.25")
    assert "3 hits, 1 missed, 1 false alarm (found 75%, right 75%)" in tab.locator("#sum").inner_text()
    assert tab.locator("#threshold-value").inner_text() == "0.25"
    drag_to(tab, "0.97")
    assert "0 hits, 4 missed, 0 false alarms" in tab.locator("#sum").inner_text()
    assert tab.locator("#cards g.det").evaluate_all("gs => gs.every((g) => g.style.display === 'none')")
    tab.locator('[data-filter="alarm"]').click()
    assert tab.locator("#none").inner_text() == "No photo matches this filter."
    tab.locator("#home").click()
    assert tab.locator("#threshold-value").inner_text() == "0.450"  # the run's, not the best of these photos
    assert names_plain(tab) == [ODD]


@pytest.mark.browser
def test_the_keyboard_alone_opens_zooms_browses_and_closes(open_page):
    tab = open_page()
    tab.locator("#cards .open").first.focus()
    press(tab, "ArrowRight", "Enter")
    assert tab.locator("#viewer").evaluate("v => v.open")
    assert tab.locator("#viewer-place").inner_text() == "2 of 4"
    press(tab, "+")
    assert tab.locator("#zoom-fit").inner_text() == "150%"
    before = tab.locator("#stage .picture").bounding_box()
    press(tab, "Shift+ArrowRight")
    assert tab.locator("#stage .picture").bounding_box()["x"] < before["x"]
    press(tab, "0")
    assert tab.locator("#zoom-fit").inner_text() == "100%"
    press(tab, "d")
    assert tab.locator('#viewer [data-layer="detections"]').get_attribute("aria-pressed") == "false"
    press(tab, "d", "ArrowRight")
    assert tab.locator("#viewer-name").text_content() == ODD
    press(tab, "ArrowRight", "ArrowRight")
    assert tab.locator("#viewer-place").inner_text() == "4 of 4"
    press(tab, "Escape")
    assert not tab.locator("#viewer").evaluate("v => v.open")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Open empty.png")


@pytest.mark.browser
def test_wheel_and_buttons_zoom_and_the_photo_can_be_dragged(open_page):
    tab = open_page()
    tab.locator("#cards .open").first.click()
    stage = tab.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 3, stage["y"] + stage["height"] / 3
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -200)
    tab.wait_for_function("document.getElementById('zoom-fit').textContent !== '100%'")
    tab.locator("#zoom-in").click()
    tab.locator("#zoom-in").click()
    at = tab.locator("#stage .picture").bounding_box()
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 40, y - 30)
    tab.mouse.up()
    after = tab.locator("#stage .picture").bounding_box()
    assert (after["x"] - at["x"], after["y"] - at["y"]) == (pytest.approx(-40, abs=1), pytest.approx(-30, abs=1))
    tab.locator("#zoom-fit").click()
    assert tab.locator("#zoom-fit").inner_text() == "100%"
    tab.locator("#close").click()
    assert not tab.locator("#viewer").evaluate("v => v.open")


@pytest.mark.browser
def test_the_viewer_lists_the_objects_and_goes_to_one(open_page):
    tab = open_page()
    tab.locator('.open[aria-label^="Open one.jpg"]').click()
    assert tab.locator("#objects button .what").all_inner_texts() == ["nut <b>, missed", "hammer, hit"]
    assert tab.locator("#objects .detail").all_inner_texts() == ["", "0.90 · IoU 0.80"]
    tab.locator("#objects button").first.click()
    assert int(tab.locator("#zoom-fit").inner_text().rstrip("%")) > 100
    assert tab.locator("#stage .object.picked").count() == 1


@pytest.mark.browser
def test_the_score_in_use_and_the_best_one_are_two_lines(open_page):
    plot = open_page().locator('[data-chart="operating"] .plot')
    assert plot.locator("line.note").count() == 2
    texts = plot.locator("text").all_text_contents()
    assert [text for text in texts if text.startswith(("in use", "best"))] == ["in use 0.45", "best F1 0.50"]
    assert plot.get_attribute("aria-label") == (
        "Precision, recall and F1 against the score threshold; 0.45 is in use; the best F1 on these photos is at 0.50."
    )


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1200])
def test_commands_stay_inside_their_cards(open_page, tmp_path, width):
    evaluation = run_of(tmp_path, leaks=[("near-leak", ["val: 2 of 4 photos (50%)"])])
    tab = open_page(report(evaluation, tmp_path / "r.html"), width=width)
    cards = tab.locator(".advice li")
    assert any("--resplit" in text for text in cards.all_inner_texts())
    assert cards.evaluate_all("all => all.every((card) => card.scrollWidth <= card.clientWidth)")


@pytest.mark.browser
def test_charts_are_read_with_the_keyboard(open_page):
    tab = open_page()
    loss = tab.locator('[data-chart="loss"]')
    assert "total from 0.300 to 0.030" in loss.locator(".plot").get_attribute("aria-label")
    loss.locator(".plot").focus()
    press(tab, "Home", "ArrowRight")
    assert loss.locator(".at").inner_text() == "step 20"
    assert loss.locator(".key-list b").all_inner_texts() == ["0.150", "0.100", "0.050"]
    tab.locator("#pr-category").select_option(label="nut <b>")
    pr = tab.locator('[data-chart="pr"]')
    pr.locator(".plot").focus()
    press(tab, "Home")
    assert pr.locator(".at").inner_text() == "recall 0.00 · IoU 0.50: score 1.00 · IoU 0.75: score 1.00"


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 800])
def test_nothing_is_wider_than_the_screen(open_page, width):
    tab = open_page(width=width, height=740)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.locator("#cards .open").nth(1).click()
    assert tab.evaluate("document.getElementById('viewer').scrollWidth") <= width
    assert tab.locator("#close").bounding_box()["x"] < width - 30


@pytest.mark.browser
def test_dark_follows_the_system_and_the_button(open_page):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, light = open_page(color_scheme="dark"), open_page(color_scheme="light")
    colours = dark.evaluate(ground), light.evaluate(ground)
    assert colours == ("rgb(20, 23, 26)", "rgb(246, 245, 241)")
    light.locator("#theme").click()
    dark.locator("#theme").click()
    assert (light.evaluate(ground), dark.evaluate(ground)) == colours
    assert light.locator("#theme").get_attribute("aria-pressed") == "true"


@pytest.mark.browser
def test_paper_is_light_and_has_no_controls(open_page):
    tab = open_page(color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("#tools").is_visible()


@pytest.mark.browser
def test_every_control_has_a_name_and_shows_its_focus(open_page):
    tab = open_page()
    nameless = tab.evaluate(
        "[...document.querySelectorAll('button, select, input, svg[tabindex]')].filter((e) =>"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    press(tab, "Tab", "Tab")
    assert tab.evaluate("document.activeElement.id") == "theme"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.browser
def test_a_page_without_files_loads_too(open_page, tmp_path):
    tab = open_page(report({"metrics": {}, "matches": []}, tmp_path / "r.html"))
    assert tab.locator("#photos").inner_text().endswith("neither photos nor outlines could be read.")
    assert tab.locator(".chart .empty").count() == 4


@pytest.mark.browser
def test_photos_that_are_missing_leave_outlines_and_say_so(open_page, world, tmp_path):
    tab = open_page(report(content(world, photos=str(tmp_path / "none")), tmp_path / "r.html"))
    assert tab.locator(".blank-why").first.inner_text() == "photo does not exist"
    assert tab.locator("#cards g.truth").count() == 5


def test_a_full_disk_leaves_nothing(world, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    place = tmp_path / "new"
    place.mkdir()
    with pytest.raises(UserError) as error:
        report(content(world), place / "r.html")
    assert str(error.value) == (
        "the output cannot be written; nothing was left half-done\n"
        f"  {place / 'r.html'}: No space left on device\nfix: free some space, then run the command again"
    )
    assert list(place.iterdir()) == []


def test_the_page_never_replaces_what_it_is_made_from(world, tmp_path):
    evaluation = tmp_path / "ev.json"
    evaluation.write_text(json.dumps(content(world)))
    truth = Path(content(world)["truth"])
    data = Dataset.read(truth)
    shard = write_shards(data, tmp_path, "truth", len(data.images))[0]
    (tmp_path / "shards.json").write_text(json.dumps(content(world, truth=str(tmp_path / "truth.json"))))
    for made, out in ((evaluation, evaluation), (evaluation, truth), (tmp_path / "shards.json", shard)):
        before = out.read_bytes()
        with pytest.raises(UserError) as error:
            report(made, out, overwrite=True)
        assert str(error.value).startswith(
            f"the output must not be the input or hold it: replacing it would delete the input\n  {out} and {out}\n"
        )
        assert out.read_bytes() == before
