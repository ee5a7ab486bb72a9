"""Measurements for the advice: what the misses and the false alarms have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.report.advice import Evidence
from maskwright.report.gallery import Finder, by_photo, objects_of
from maskwright.report.outcomes import Match, outcome, tally
from maskwright.report.scored import Cut, Scored
from maskwright.report.training import Training, number


def gather(
    evaluation: Mapping[str, Any],
    truth: Dataset | None,
    detections: Dataset | None,
    training: Training,
    cut: Cut,
    scored: Scored,
) -> Evidence:
    """Measure everything that the rules of `advice` look at.

    Args:
        evaluation: As in evaluation.json.
        truth: What is there, if its file could be read.
        detections: What was found, if its file could be read.
        training: What the run tells.
        cut: Detections below it do not count.
        scored: What the scored photos are.
    """
    matches: Sequence[Match] = evaluation["matches"]
    threshold = 0.0 if cut.score is None else cut.score
    small, large = _by_size(truth, matches, threshold)
    swaps, repeats, empty = _causes(truth, detections, matches, threshold, number(evaluation.get("iou")) or 0.5)
    intervals = evaluation.get("intervals") or {}
    interval = intervals.get("segm/AP") or intervals.get("bbox/AP") or {}
    low, high = number(interval.get("low")), number(interval.get("high"))
    best = (evaluation.get("threshold") or {}).get("score")
    return Evidence(
        metrics={name: number(value) for name, value in evaluation["metrics"].items()},
        interval=None if low is None or high is None else (low, high),
        photos=scored.photos,
        scored=scored,
        tally=tally(matches, threshold),
        small=small,
        large=large,
        swaps=swaps,
        repeats=repeats,
        empty_alarms=empty,
        categories=evaluation.get("categories") or (),
        validations=training.validations,
        losses=training.losses,
        train_photos=training.train_photos,
        train_objects=training.train_objects,
        threshold=number(best),
        used_threshold=cut.score if cut.origin in {"masks", "run"} else None,
    )


def _by_size(
    truth: Dataset | None, matches: Sequence[Match], threshold: float
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Count found and all objects among the smallest third of the truth, and among the rest."""
    if truth is None or not len(truth):
        return None, None
    area = {int(i): float(a) for i, a in zip(truth.ids, truth.areas, strict=True)}
    rows = []
    for match in matches:
        what = outcome(match, threshold)
        if what in {"hit", "miss"} and match.get("truth") in area:
            rows.append((area[match["truth"]], what == "hit"))
    if not rows:
        return None, None
    rows.sort(key=lambda row: row[0])
    third = len(rows) // 3
    first, rest = rows[:third], rows[third:]
    return (sum(hit for _, hit in first), len(first)), (sum(hit for _, hit in rest), len(rest))


def _causes(
    truth: Dataset | None, detections: Dataset | None, matches: Sequence[Match], threshold: float, least_iou: float
) -> tuple[dict[tuple[str, str], int], int, int]:
    """Look under every false alarm: an object of another category, an object found already, or an empty photo."""
    if truth is None or detections is None:
        return {}, 0, 0
    swaps: Counter[tuple[str, str]] = Counter()
    repeats = empty = 0
    groups = by_photo(matches)
    finder = Finder(detections, truth)
    positions = {(image.id, image.file_name): i for i, image in enumerate(truth.images)}
    names = {c.id: c.name for c in truth.categories}
    for key, rows in groups.items():
        alarms = {m["detection"]: m for m in rows if outcome(m, threshold) == "false alarm"}
        position = positions.get((key[0], key[1]))
        if not alarms or position is None:
            continue
        there = [k for k in objects_of(truth, position) if not truth.crowd[k]]
        if not there:
            empty += len(alarms)
            continue
        wrong = [
            k
            for k in objects_of(detections, finder.position(truth.images[position]))
            if int(detections.ids[k]) in alarms
        ]
        missed = {m["truth"] for m in rows if outcome(m, threshold) == "miss"}
        overlap = _overlap(detections, wrong, truth, there)
        for row, k in enumerate(wrong):
            best = int(np.argmax(overlap[row]))
            if overlap[row, best] < least_iou:
                continue
            true = names.get(int(truth.category_ids[there[best]]), "")
            taken = str(alarms[int(detections.ids[k])].get("category"))
            if true == taken:
                repeats += 1
            elif int(truth.ids[there[best]]) in missed:
                swaps[true, taken] += 1
    return dict(swaps), repeats, empty


def _overlap(a: Dataset, of_a: list[int], b: Dataset, of_b: list[int]) -> Any:
    """Return the IoU `(len(of_a), len(of_b))` of masks, or zeros where an object has a box only."""
    first, second = [a.rle(k) for k in of_a], [b.rle(k) for k in of_b]
    if not first or not all(first) or not all(second) or a.size_of(of_a[0]) != b.size_of(of_b[0]):
        return np.zeros((len(first), len(second)))
    return pixels.iou(first, second, b.size_of(of_b[0]))
