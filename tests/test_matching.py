"""Greedy matching by COCO's rule, on cases small enough to check by hand."""

import numpy as np
import pytest

from maskwright import matching, pixels
from maskwright.matching import Overlaps, found_columns, match, truth_columns

ONE = np.array([0.5])


def pair(photos_true, photos_found, scores, crowd=None):
    """Return true objects and detections of one category, by photo."""
    true, found = np.array(photos_true, dtype=np.int64), np.array(photos_found, dtype=np.int64)
    crowds = np.zeros(len(true), dtype=bool) if crowd is None else np.array(crowd)
    return (
        truth_columns(true, np.zeros_like(true), crowds),
        found_columns(found, np.zeros_like(found), np.array(scores, dtype=float)),
    )


def overlaps(*rows):
    d, g, iou = zip(*rows, strict=True)
    return Overlaps(np.array(d), np.array(g), np.array(iou))


def test_detections_are_ranked_within_photo_and_category():
    photo, category = np.array([1, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 0])
    found = found_columns(photo, category, np.array([0.2, 0.5, 0.9, 0.4, 0.9]))
    assert found.source.tolist() == [1, 2, 4, 0, 3]  # equal scores keep the order of the file
    assert found.rank.tolist() == [0, 0, 1, 2, 0]


def test_the_best_score_chooses_first_and_an_object_is_given_away_once():
    truth, found = pair([0], [0, 0], [0.9, 0.8])
    matched, ious = match(truth, found, overlaps((0, 0, 0.6), (1, 0, 0.95)), ONE, truth.crowd)
    assert matched.tolist() == [[0, -1]]
    assert ious.tolist() == [[0.6, 0.0]]


def test_a_detection_takes_the_object_that_it_overlaps_most():
    truth, found = pair([0, 0], [0, 0], [0.9, 0.8])
    pairs = overlaps((0, 0, 0.6), (0, 1, 0.7), (1, 0, 0.5), (1, 1, 0.9))
    assert match(truth, found, pairs, ONE, truth.crowd)[0].tolist() == [[1, 0]]


def test_among_equal_overlaps_the_later_object_is_taken():
    truth, found = pair([0, 0], [0], [0.9])
    assert match(truth, found, overlaps((0, 0, 0.7), (0, 1, 0.7)), ONE, truth.crowd)[0].tolist() == [[1]]


def test_an_object_that_counts_is_preferred_to_an_ignored_one():
    truth, found = pair([0, 0], [0], [0.9])
    ignored = np.array([False, True])
    assert match(truth, found, overlaps((0, 0, 0.6), (0, 1, 0.9)), ONE, ignored)[0].tolist() == [[0]]


def test_a_crowd_takes_any_number_of_detections():
    truth, found = pair([0], [0, 0, 0], [0.9, 0.8, 0.7], crowd=[True])
    pairs = overlaps((0, 0, 1.0), (1, 0, 0.8), (2, 0, 0.4))
    assert match(truth, found, pairs, ONE, truth.crowd)[0].tolist() == [[0, 0, -1]]


def test_an_overlap_exactly_on_the_threshold_is_a_match():
    truth, found = pair([0], [0], [0.9])
    thresholds = np.array([0.5, np.nextafter(0.5, 1), 1.0])
    assert match(truth, found, overlaps((0, 0, 0.5)), thresholds, truth.crowd)[0].tolist() == [[0], [-1], [-1]]
    assert match(truth, found, overlaps((0, 0, 1.0)), thresholds, truth.crowd)[0].tolist() == [[0], [0], [0]]


def test_photos_are_matched_apart():
    truth, found = pair([0, 1], [0, 1, 1], [0.5, 0.9, 0.8])
    pairs = overlaps((0, 0, 0.9), (1, 1, 0.6), (2, 1, 0.9))
    assert match(truth, found, pairs, ONE, truth.crowd)[0].tolist() == [[0, 1, -1]]


def test_box_overlaps_are_those_of_the_same_photo_that_reach_the_least():
    truth, found = pair([0, 1, 1], [0, 1], [0.9, 0.8], crowd=[False, False, True])
    true = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 100, 100]], dtype=float)
    ours = np.array([[0, 0, 10, 5], [5, 0, 10, 10]], dtype=float)
    found_pairs = matching.box_overlaps(truth, found, true, ours, 0.5)
    assert found_pairs.detection.tolist() == [0, 1]
    assert found_pairs.truth.tolist() == [0, 2]
    assert found_pairs.iou.tolist() == [0.5, 1.0]  # in the crowd lies all of the second, by its own area


def test_box_overlaps_are_the_same_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    truth, found = pair(rng.integers(0, 5, 60), rng.integers(0, 5, 80), rng.random(80))
    true, ours = rng.integers(1, 30, (60, 4)).astype(float), rng.integers(1, 30, (80, 4)).astype(float)
    whole = matching.box_overlaps(truth, found, true, ours, 0.3)
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 7)
    parts = matching.box_overlaps(truth, found, true, ours, 0.3)
    assert len(whole.iou) > 20
    assert whole.detection.tolist() == parts.detection.tolist()
    assert whole.truth.tolist() == parts.truth.tolist()
    assert whole.iou.tolist() == parts.iou.tolist()


@pytest.mark.parametrize("least", [0.0, 0.1, 0.5, 0.9])
def test_no_mask_overlap_is_lost_by_looking_at_areas_and_boxes_first(least):
    rng = np.random.default_rng(3)
    size = (40, 50)

    def blob():
        y, x = np.mgrid[:40, :50]
        height, width, cy, cx = rng.uniform(3, 15), rng.uniform(3, 15), rng.uniform(0, 40), rng.uniform(0, 50)
        return ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2 < rng.uniform(0.7, 1, (40, 50))

    truth, found = pair([0] * 12, [0] * 30, rng.random(30), crowd=[n < 3 for n in range(12)])
    true, ours = [blob() for _ in range(12)], [blob() for _ in range(30)]
    pairs, areas = matching.mask_overlaps(
        truth, found, [pixels.encode(m) for m in true], [pixels.encode(m) for m in ours], [size], least
    )
    expected = {}
    for d, b in enumerate(ours):
        for g, a in enumerate(true):
            whole = b.sum() if truth.crowd[g] else (a | b).sum()
            if (a & b).any() and (a & b).sum() / whole >= least:
                expected[d, g] = (a & b).sum() / whole
    assert len(expected) > (0 if least > 0.5 else 5)
    found_pairs = dict(zip(zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True), pairs.iou, strict=True))
    assert found_pairs == pytest.approx(expected)
    assert areas.tolist() == [m.sum() for m in ours]


def test_without_detections_or_overlaps_nothing_is_matched():
    truth, found = pair([0], [], [])
    pairs = matching.box_overlaps(truth, found, np.zeros((1, 4)), np.zeros((0, 4)), 0.5)
    matched, _ = match(truth, found, pairs, ONE, truth.crowd)
    assert (len(pairs.iou), matched.shape) == (0, (1, 0))
