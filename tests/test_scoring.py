"""The COCO numbers are pycocotools', for any dataset; the interval resamples the same AP; the threshold is the best."""

import contextlib
import io
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright import pixels, scoring
from maskwright.dataset import from_coco
from maskwright.evaluate import evaluate
from maskwright.matching import found_columns, truth_columns

SIDE = 200  # large enough for an object of COCO's "large" range
NAMES = scoring.NAMES


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def reference(truth, results, kind, limit=100):
    """Return pycocotools' twelve numbers, `None` for its -1; each kind gets results with only its own field."""
    with quiet():
        gt = COCO()
        gt.dataset = {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
        gt.createIndex()
        other = {"segm": "bbox", "bbox": "segmentation"}[kind]
        rows = [{k: v for k, v in row.items() if k not in (other, "area")} for row in results]
        if rows:
            dt = gt.loadRes(rows)
        else:
            dt = COCO()
            dt.dataset = {**truth, "annotations": []}
            dt.createIndex()
        judge = COCOeval(gt, dt, kind)
        judge.params.maxDets = [1, 10, limit]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    stats = judge.stats.copy()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    defined = precision[precision > -1]
    stats[0] = defined.mean() if len(defined) else -1  # its summary looks for the limit 100 only
    return {name: None if value == -1 else value for name, value in zip(NAMES, stats, strict=True)}


def assert_same(ours, theirs, kind):
    for name in NAMES:
        mine, other = ours[f"{kind}/{name}"], theirs[name]
        if other is None or mine is None:
            assert (name, mine) == (name, other)
        else:
            assert mine == pytest.approx(other, abs=1e-9, rel=0), name


def rectangle(x, y, w, h):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def segmentation(mask):
    return {"size": list(mask.shape), "counts": pixels.encode(mask).decode()}


SCORES = [0.1, 0.3, 0.3, 0.5, 0.5, 0.5, 0.75, 0.9, 1.0]
EDGE = [1, 4, 8, 31, 32, 33, 60, 95, 96, 97, 140]  # areas on both sides of COCO's limits, and exactly on them


@st.composite
def worlds(draw, boxes_only=False):
    """Draw a truth and results: crowds, empty photos, categories without objects, ties, every size."""
    photos = draw(st.integers(1, 4))
    categories = draw(st.integers(1, 3))
    truth, results = [], []
    for photo in range(1, photos + 1):
        seen = []
        for _ in range(draw(st.integers(0, 5))):
            x, y = draw(st.integers(0, 100)), draw(st.integers(0, 100))
            w, h = draw(st.sampled_from(EDGE)), draw(st.sampled_from(EDGE))
            mask = rectangle(x, y, w, h)
            category = draw(st.integers(1, categories))
            area = float(mask.sum()) * draw(st.sampled_from([1.0, 1.0, 0.97]))  # COCO's own areas come from polygons
            box = [x + draw(st.sampled_from([0, 0.1])), y, min(w, SIDE - x) - draw(st.sampled_from([0, 0.3])), h]
            crowd = int(draw(st.integers(0, 5)) == 0)
            seen.append((x, y, w, h, category))
            truth.append(
                {"image_id": photo, "category_id": category, "iscrowd": crowd, "area": area, "bbox": box}
                | {"segmentation": segmentation(mask), "id": len(truth) + 1}
            )
        for _ in range(draw(st.integers(0, 7))):
            if seen and draw(st.integers(0, 3)):
                x, y, w, h, category = draw(st.sampled_from(seen))
                x, y = (max(0, v + draw(st.integers(-3, 3))) for v in (x, y))
                w, h = (max(1, v + draw(st.sampled_from([-8, -1, 0, 0, 0, 1, 8]))) for v in (w, h))
            else:
                x, y = draw(st.integers(0, 100)), draw(st.integers(0, 100))
                w, h, category = draw(st.sampled_from(EDGE)), draw(st.sampled_from(EDGE)), 1
            if draw(st.integers(0, 5)) == 0:
                category = draw(st.integers(1, categories))
            row = {"image_id": photo, "category_id": category, "score": draw(st.sampled_from(SCORES))}
            row["bbox"] = [x + draw(st.sampled_from([0, 0.1, 0.7])), y, w + draw(st.sampled_from([0, 0.2])), h]
            row["area"] = 5.0  # a lie, to be disregarded
            if not boxes_only:
                row["segmentation"] = segmentation(rectangle(x, y, w, h))
            results.append(row)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in range(1, photos + 1)]
    kinds = [{"id": n, "name": f"kind {n}"} for n in range(1, categories + 1)]
    return {"images": images, "categories": kinds, "annotations": truth}, results


def datasets(truth, results):
    true = from_coco(truth, "truth")
    return true, from_coco({**truth, "annotations": results}, "results")


@settings(max_examples=30)
@given(worlds())
def test_all_numbers_are_those_of_pycocotools(world):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return  # nothing to score: an error, tested elsewhere
    true, found = datasets(truth, results)
    evaluation = evaluate(true, found, bootstrap=0)
    for kind in ("segm", "bbox"):
        assert_same(evaluation.metrics, reference(truth, results, kind), kind)


@settings(max_examples=30)
@given(worlds(boxes_only=True))
def test_detections_with_boxes_only_have_the_box_numbers_of_pycocotools(world):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]) or not results:
        return
    true, found = datasets(truth, results)
    evaluation = evaluate(true, found, bootstrap=0)
    assert_same(evaluation.metrics, reference(truth, results, "bbox"), "bbox")
    assert {evaluation.metrics[f"segm/{name}"] for name in NAMES} == {None}


@settings(max_examples=30)
@given(worlds())
def test_each_category_is_scored_as_if_it_were_alone(world):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return
    evaluation = evaluate(*datasets(truth, results), bootstrap=0)
    for category in evaluation.categories:
        alone = {**truth, "categories": [c for c in truth["categories"] if c["id"] == category["id"]]}
        alone["annotations"] = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        rows = [row for row in results if row["category_id"] == category["id"]]
        for kind in ("segm", "bbox"):
            assert_same(category["metrics"], reference(alone, rows, kind), kind)
        assert category["objects"] == sum(not a["iscrowd"] for a in alone["annotations"])
        assert category["detections"] == len(rows)


@settings(max_examples=30)
@given(worlds(), st.randoms(use_true_random=False))
def test_no_id_of_any_kind_matters(world, random):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return
    for n, row in enumerate(results):
        row["score"] = 0.9 - n / 1000  # without ties, since COCO breaks them by the order of ids
    before = evaluate(*datasets(truth, results), bootstrap=0)
    numbers = [0, 7, 2**40, -3, 12, 5, 9]
    random.shuffle(numbers)
    photos = {image["id"]: numbers[n] for n, image in enumerate(truth["images"])}
    kinds = {category["id"]: numbers[-1 - n] for n, category in enumerate(truth["categories"])}
    for image in truth["images"]:
        image["id"] = photos[image["id"]]
    for category in truth["categories"]:
        category["id"] = kinds[category["id"]]
    for row in [*truth["annotations"], *results]:
        row["image_id"], row["category_id"] = photos[row["image_id"]], kinds[row["category_id"]]
        row["id"] = random.choice([0, 0, 1, 2**50])
    after = evaluate(*datasets(truth, results), bootstrap=0)
    assert after.metrics == pytest.approx(before.metrics, abs=1e-12)
    assert after.threshold == before.threshold


def crowded(objects, detections):
    """Return a photo with many objects in a row, each a few pixels wide, and detections of them."""
    masks = [rectangle(n % 20 * 9, n // 20 * 9, 6 + n % 3, 7) for n in range(objects)]
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": [
            {"id": n + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(m.sum())}
            | {"bbox": [n % 20 * 9, n // 20 * 9, 6 + n % 3, 7], "segmentation": segmentation(m)}
            for n, m in enumerate(masks)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "score": 1 - n / 1000, "segmentation": segmentation(masks[n % objects])}
        | {"bbox": truth["annotations"][n % objects]["bbox"]}
        for n in range(detections)
    ]
    return truth, results


def test_over_100_objects_in_a_photo_raise_the_limit_and_say_so():
    truth, results = crowded(130, 150)
    said = []
    evaluation = evaluate(*datasets(truth, results), bootstrap=0, say=said.append)
    assert evaluation.max_detections == 130
    assert evaluation.metrics["segm/AR100"] == 1.0
    assert said[0] == "a photo has 130 objects: the limit of detections per photo and category is 130, not 100"
    assert "maxDets=130 ] = 1.000" in evaluation.table()
    for kind in ("segm", "bbox"):
        assert_same(evaluation.metrics, reference(truth, results, kind, limit=130), kind)


def test_detections_beyond_the_limit_do_not_count():
    truth, results = crowded(90, 180)
    results.reverse()  # the order of the file must not matter
    evaluation = evaluate(*datasets(truth, results), bootstrap=0)
    assert evaluation.max_detections == 100
    assert evaluation.counts["detections"] == 180
    for kind in ("segm", "bbox"):
        assert_same(evaluation.metrics, reference(truth, results, kind), kind)


@settings(max_examples=30)
@given(worlds())
def test_truth_with_scores_is_perfect(world):
    truth, _ = world
    plain = [a for a in truth["annotations"] if not a["iscrowd"]]
    if not plain:
        return
    true = from_coco({**truth, "annotations": plain}, "truth")
    found = from_coco({**truth, "annotations": [{**a, "score": 1.0} for a in plain]}, "results")
    evaluation = evaluate(true, found, bootstrap=3)
    assert (evaluation.metrics["segm/AP"], evaluation.metrics["bbox/AP"]) == (1.0, 1.0)
    assert evaluation.threshold["f1"] == 1.0
    assert evaluation.threshold["score"] == pytest.approx(0.99)
    assert {match["outcome"] for match in evaluation.matches} == {"hit"}


def table_of(truth, results):
    """Return columns and scores of the masks, from below the verb."""
    module = import_module("maskwright.evaluate")
    true, found = datasets(truth, results)
    aligned = module.align(true, found, "truth", "results", by_id=False)
    columns = truth_columns(aligned.truth_photo, aligned.truth_category, true.crowd)
    ours = found_columns(aligned.found_photo, aligned.found_category, found.scores)
    overlaps, areas = module._overlaps(true, found, aligned, columns, ours, 0.5)
    result = scoring.scores(
        columns, ours, overlaps["segm"], true.areas[columns.source], areas["segm"], len(true.categories), 100
    )
    return columns, ours, result


@settings(max_examples=30)
@given(worlds())
def test_the_interval_resamples_the_ap_of_coco(world):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return
    columns, ours, result = table_of(truth, results)
    photos = len(truth["images"])
    drawn = scoring.resampled_ap(ours, columns, result.everything, np.ones((2, photos), dtype=np.int64))
    assert drawn == pytest.approx([reference(truth, results, "segm")["AP"]] * 2, abs=1e-9, rel=0)


@settings(max_examples=30)
@given(worlds(), st.data())
def test_a_weight_of_a_photo_is_so_many_copies_of_it(world, data):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return
    for n, row in enumerate(results):
        row["score"] = 0.9 - n / 1000  # ties within a photo would be interleaved differently by its copies
    columns, ours, result = table_of(truth, results)
    times = [data.draw(st.integers(0, 3)) for _ in truth["images"]]
    drawn = scoring.resampled_ap(ours, columns, result.everything, np.array([times]))[0]
    copies = {**truth, "images": [], "annotations": []}
    rows = []
    for image, n in zip(truth["images"], times, strict=True):
        for _ in range(n):
            number = len(copies["images"]) + 1
            copies["images"].append({**image, "id": number})
            for a in truth["annotations"]:
                if a["image_id"] == image["id"]:
                    copies["annotations"].append({**a, "image_id": number, "id": len(copies["annotations"]) + 1})
            rows += [{**row, "image_id": number} for row in results if row["image_id"] == image["id"]]
    expected = reference(copies, rows, "segm")["AP"]
    if expected is None:
        assert np.isnan(drawn)
    else:
        assert drawn == pytest.approx(expected, abs=1e-9, rel=0)


def test_the_interval_holds_the_ap_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in range(1, 41)]
    truth, results = [], []
    for n in range(1, 41):
        x, y = rng.integers(0, 100, 2).tolist()
        shift = int(rng.integers(0, 12))
        truth.append({"image_id": n, "category_id": 1, "segmentation": segmentation(rectangle(x, y, 40, 40))})
        moved = segmentation(rectangle(x + shift, y, 40, 40))
        results.append({"image_id": n, "category_id": 1, "segmentation": moved, "score": float(rng.random())})
    document = {"images": images, "categories": [{"id": 1, "name": "nut"}], "annotations": truth}
    pair = datasets(document, results)
    first, again, other = (evaluate(*pair, seed=seed).intervals["segm/AP"] for seed in (0, 0, 1))
    ap = evaluate(*pair, bootstrap=0).metrics["segm/AP"]
    assert first == again != other
    assert first["low"] < ap < first["high"]
    assert (first["level"], first["resamples"]) == (0.95, 300)
    assert evaluate(*pair, bootstrap=0).intervals == {}


def test_the_interval_holds_its_share_of_what_is_resampled():
    """The share is taken over draws of our own, of which there are so many that it is right to a third of a percent."""
    rng = np.random.default_rng(4)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in range(1, 31)]
    truth, results = [], []
    for n in range(1, 31):
        for y in (0, 60):
            mask, shift = rectangle(10, y, 40, 40), int(rng.integers(0, 12))
            truth.append({"image_id": n, "category_id": 1, "segmentation": segmentation(mask), "iscrowd": 0})
            moved = segmentation(rectangle(10 + shift, y, 40, 40))
            results.append({"image_id": n, "category_id": 1, "segmentation": moved, "score": float(rng.random())})
    document = {"images": images, "categories": [{"id": 1, "name": "nut"}], "annotations": truth}
    columns, ours, result = table_of(document, results)
    weights = rng.multinomial(30, [1 / 30] * 30, size=10_000)
    values = scoring.resampled_ap(ours, columns, result.everything, weights)
    low, high = scoring.interval(ours, columns, result.everything, 30, 10_000, 0)
    assert ((values >= low) & (values <= high)).mean() == pytest.approx(0.95, abs=0.01)
    assert (values < low).mean() == pytest.approx(0.025, abs=0.01)


def columns(scores, hits):
    """Return operating points of detections of one photo with one object for each hit and one that is missed."""
    hit = np.array(hits, dtype=bool)
    return scoring.operating(np.array(scores), hit, np.ones(len(hit), dtype=bool), int(hit.sum()) + 1)


def test_the_threshold_lies_between_the_scores_it_parts():
    best, points = columns([0.9, 0.8, 0.4, 0.2], [True, True, False, False])
    assert best.score == pytest.approx(0.6)
    assert (best.precision, best.recall, best.f1) == (1.0, pytest.approx(2 / 3), 0.8)
    assert best in points
    assert [p.score for p in points] == sorted(p.score for p in points)
    assert points[0].score == 0.0
    assert points[-1].score == 0.9  # above the highest score there is nothing to count


def test_of_thresholds_with_equal_f1_the_highest_is_taken():
    # Two kept: 2 * 1 / (1 + 3) = 0.5; all four: 2 * 2 / (5 + 3) = 0.5.
    best, _ = columns([0.9, 0.7, 0.6, 0.5, 0.4], [True, False, False, False, True])
    assert best.f1 == 0.5
    assert best.score == pytest.approx(0.8)


def test_equal_scores_are_kept_or_dropped_together():
    best, _ = columns([0.5, 0.5, 0.5, 0.1], [True, False, True, False])
    assert (best.score, best.precision) == (pytest.approx(0.3), pytest.approx(2 / 3))


def test_where_all_are_kept_the_threshold_is_a_hair_below_the_lowest():
    best, _ = columns([0.9, 0.4], [True, True])
    assert best.score == pytest.approx(0.396)


def test_there_is_no_threshold_without_a_hit():
    assert columns([0.9, 0.4], [False, False]) == (None, [])


def test_neighbouring_floats_have_no_middle_and_keep_their_order():
    high = 0.7
    low = np.nextafter(high, 0)
    best, _ = columns([high, low], [True, False])
    assert best.score == high


@settings(max_examples=30)
@given(worlds())
def test_the_best_threshold_is_the_best(world):
    truth, results = world
    if all(a["iscrowd"] for a in truth["annotations"]):
        return
    evaluation = evaluate(*datasets(truth, results), bootstrap=0)
    objects = evaluation.counts["objects"]

    def f1(threshold):
        kept = [m["outcome"] for m in evaluation.matches if m["score"] is not None and m["score"] >= threshold]
        tried = kept.count("hit") + kept.count("false alarm")
        return 2 * kept.count("hit") / (tried + objects)

    if evaluation.threshold is None:
        assert all(m["outcome"] != "hit" for m in evaluation.matches)
    else:
        assert f1(evaluation.threshold["score"]) == pytest.approx(evaluation.threshold["f1"])
        assert evaluation.threshold["f1"] == pytest.approx(max(f1(score) for score in SCORES))
