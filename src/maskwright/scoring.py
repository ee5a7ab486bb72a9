"""From matches to scores: COCO's precision and recall, the interval over photos, the best threshold.

The rules are those of pycocotools' `COCOeval.accumulate` and `summarize`, up to rounding in the 16th digit.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maskwright.matching import Found, Overlaps, Truth, match

IOUS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""COCO's ten IoU thresholds."""

RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""COCO's recall points."""

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's ranges of object areas in pixels, both ends included."""

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve numbers in COCO's order. AR100 is at the last limit, even where that is above 100."""

LEAST_PHOTOS = 5
"""Photos with objects from which on AP gets an interval. Four can be redrawn in 35 ways, of which the 2.5 % at either
end are less than one, so that the interval would end where the worst and the best photo do; five have 126 ways."""

_ELEMENTS_AT_ONCE = 400_000
"""Resamples are scored in pieces of about this many detections, to bound the memory."""


@dataclass(frozen=True)
class Outcome:
    """What became of the detections in one range of areas, in order of category, then falling score.

    Attributes:
        order: `(D,)` int64, positions in `Found`, those beyond the limit left out.
        firsts: `(K + 1,)` int64; category k is `order[firsts[k]:firsts[k + 1]]`.
        hit: `(T, D)` bool.
        counted: `(T, D)` bool, hits and false alarms; the others are ignored.
        objects: `(K,)` int64, how many objects count.
    """

    order: NDArray[np.int64]
    firsts: NDArray[np.int64]
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """COCO's arrays of one kind (masks or boxes); NaN where a category has no object to find.

    Attributes:
        precision: `(T, R, K, A)`, at the last limit.
        score: `(T, R, K)`, for all areas: the score at which that recall is reached; NaN where it is not reached.
        recall: `(T, K, A)`, at the last limit.
        few: `(T, K, 2)`, recall of all areas with the first 1 and 10 detections of each photo.
        everything: The outcome for all areas, from which intervals are drawn.
    """

    precision: NDArray[np.float64]
    score: NDArray[np.float64]
    recall: NDArray[np.float64]
    few: NDArray[np.float64]
    everything: Outcome

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """COCO's twelve numbers for each category, `(K, 12)`; NaN where undefined."""
        precision, recall, few = self.precision.mean(axis=1), self.recall, self.few.mean(axis=0)
        at_75 = int(np.argmin(np.abs(IOUS - 0.75)))
        mean, mean_recall = precision.mean(axis=0), recall.mean(axis=0)
        chosen = [mean[:, 0], precision[0, :, 0], precision[at_75, :, 0], *mean[:, 1:].T]
        return np.stack([*chosen, few[:, 0], few[:, 1], *mean_recall.T], axis=1)

    def metrics(self, category: int | None = None) -> dict[str, float | None]:
        """Return COCO's twelve numbers, over all categories or for one; `None` where undefined."""
        if category is not None:
            values = self.table[category]
        else:
            # Each category has as many values as any other, so the mean of all is the mean of their means.
            defined = ~np.isnan(self.table)
            count = defined.sum(axis=0)
            values = np.where(count > 0, np.where(defined, self.table, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
        return {name: None if np.isnan(value) else value for name, value in zip(NAMES, values.tolist(), strict=True)}


def scores(
    truth: Truth,
    found: Found,
    overlaps: Overlaps,
    areas_true: NDArray[np.float64],
    areas_found: NDArray[np.float64],
    categories: int,
    limit: int,
) -> Scores:
    """Score detections of one kind as COCO does.

    Args:
        truth: True objects.
        found: Detections.
        overlaps: Their pairs, at least those with an IoU of 0.5 and more.
        areas_true: `(G,)` areas that decide into which range an object falls; COCO takes them from the file.
        areas_found: `(D,)` areas of the detections' own masks or boxes.
        categories: How many categories there are.
        limit: How many detections of a photo and category count.
    """
    shape = (len(IOUS), len(RECALLS), categories)
    precision = np.full((*shape, len(AREAS)), np.nan)
    score = np.full(shape, np.nan)
    recall = np.full((len(IOUS), categories, len(AREAS)), np.nan)
    few = np.full((len(IOUS), categories, 2), np.nan)
    order = np.lexsort((-found.score, found.category))  # equal scores: by photo, then rank
    order = order[found.rank[order] < limit]
    firsts = np.searchsorted(found.category[order], np.arange(categories + 1))
    outcomes = []
    for a, (low, high) in enumerate(AREAS.values()):
        outcome = _outcome(truth, found, overlaps, (low, high), areas_true, areas_found, order, firsts)
        outcomes.append(outcome)
        for k in np.flatnonzero(outcome.objects).tolist():
            rows = slice(firsts[k], firsts[k + 1])
            reached = _curves(outcome.hit[:, rows], outcome.counted[:, rows], int(outcome.objects[k]))
            precision[:, :, k, a] = reached[0]
            recall[:, k, a] = reached[2]
            if a == 0:
                at = reached[1]
                score[:, :, k] = np.where(at < 0, np.nan, found.score[order[rows]][at]) if at.max() >= 0 else np.nan
                for m, most in enumerate((1, 10)):
                    hits = outcome.hit[:, rows] & (found.rank[order[rows]] < most)
                    few[:, k, m] = hits.sum(axis=1) / outcome.objects[k]
    return Scores(precision, score, recall, few, outcomes[0])


def _outcome(
    truth: Truth,
    found: Found,
    overlaps: Overlaps,
    area_range: tuple[float, float],
    areas_true: NDArray[np.float64],
    areas_found: NDArray[np.float64],
    order: NDArray[np.int64],
    firsts: NDArray[np.int64],
) -> Outcome:
    low, high = area_range
    ignored = truth.crowd | (areas_true < low) | (areas_true > high)
    matched, _ = match(truth, found, overlaps, IOUS, ignored)
    matched = matched[:, order]
    outside = (areas_found[order] < low) | (areas_found[order] > high)
    if len(ignored):
        left_out = np.where(matched >= 0, ignored[matched], outside)
    else:
        left_out = np.broadcast_to(outside, matched.shape)
    objects = np.bincount(truth.category[~ignored], minlength=len(firsts) - 1)
    return Outcome(order, firsts, (matched >= 0) & ~left_out, ~left_out, objects)


def _curves(
    hit: NDArray[np.bool_], counted: NDArray[np.bool_], objects: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return precision at each recall point `(T, R)`, the detection where it is reached or -1, and recall `(T,)`.

    Precision only rises at hits, so looking at hits is enough.
    """
    precision = np.zeros((len(hit), len(RECALLS)))
    at = np.full(precision.shape, -1, dtype=np.int64)
    t, position = np.nonzero(hit)
    counts = np.bincount(t, minlength=len(hit))
    if len(t):
        nth = np.arange(len(t)) - np.repeat(np.cumsum(counts) - counts, counts)
        best = np.zeros((len(hit), int(counts.max())))
        best[t, nth] = (nth + 1) / np.cumsum(counted, axis=1)[t, position]
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        place = np.full(best.shape, -1, dtype=np.int64)
        place[t, nth] = position
        # Hits that each recall point takes; at recall 0 COCO looks at the first detection, where the first hit counts.
        needed = np.maximum(np.searchsorted(np.arange(objects + 1) / objects, RECALLS), 1) - 1
        reached = needed < best.shape[1]
        precision[:, reached] = best[:, needed[reached]]
        at[:, reached] = place[:, needed[reached]]
    recall = counts / objects
    return precision, at, recall


def resampled_ap(
    found: Found,
    truth: Truth,
    outcome: Outcome,
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return AP for resamples of the photos, each given by how often every photo is drawn.

    Matching is within photos, so a resample changes only the weight of each match; nothing is matched anew. A category
    without an object in a resample is left out of its mean, as COCO does.

    Args:
        found: Detections.
        truth: True objects.
        outcome: What became of the detections, all areas.
        weights: `(B, photos)`, how often each photo is in the resample; all ones is the plain AP.

    Returns:
        `(B,)` float64; NaN where a resample has no object at all.
    """
    draws = np.ascontiguousarray(weights.T.astype(np.int32))
    tasks: list[tuple[int, slice]] = []
    for k in np.flatnonzero(outcome.objects).tolist():
        most = max(1, outcome.firsts[k + 1] - outcome.firsts[k], int(outcome.objects[k]))
        step = max(1, int(_ELEMENTS_AT_ONCE // most))
        tasks += [(k, slice(start, start + step)) for start in range(0, len(weights), step)]

    def work(task: tuple[int, slice]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        k, part = task
        rows = slice(outcome.firsts[k], outcome.firsts[k + 1])
        photos = found.photo[outcome.order[rows]]
        objects = draws[truth.photo[(truth.category == k) & ~truth.crowd], part].sum(axis=0)
        ap = _weighted_ap(outcome.hit[:, rows], outcome.counted[:, rows], draws[photos, part], objects)
        return ap, objects > 0

    total = np.zeros(len(weights))
    defined = np.zeros(len(weights), dtype=np.int64)
    # NumPy lets go of the interpreter in arrays of this size, so threads use all cores; the sums keep their order.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for (_, part), (ap, there) in zip(tasks, pool.map(work, tasks), strict=True):
            total[part] += ap
            defined[part] += there
    with np.errstate(invalid="ignore"):
        return np.where(defined > 0, total / defined, np.nan)


def _weighted_ap(
    hit: NDArray[np.bool_], counted: NDArray[np.bool_], weights: NDArray[np.int32], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return one category's AP `(B,)` where detection n counts `weights[n, b]` times among `objects[b]` objects."""
    count = weights.shape[1]
    made = np.cumsum(weights, axis=0, dtype=np.int32)
    # How many recall points so many hits reach, for each resample: a table, since floats at the points must agree.
    most = int(objects.max(initial=0)) + 1
    share = np.arange(most)[None, :] / np.maximum(objects, 1)[:, None]
    points = np.minimum((share * 100 + 1e-9).astype(np.int64), 100)
    points += RECALLS[points] <= share
    table = points.astype(np.int32).ravel()
    offsets = (np.arange(count) * most).astype(np.int32)
    total = np.zeros(count)
    for t in range(len(hit)):
        hits = np.flatnonzero(hit[t])
        if not len(hits):
            continue
        gained = np.cumsum(weights[hits], axis=0, dtype=np.int32)
        tried = made[hits]
        left_out = np.flatnonzero(~counted[t])
        if len(left_out):
            before = np.zeros((len(left_out) + 1, count), dtype=np.int32)
            np.cumsum(weights[left_out], axis=0, out=before[1:])
            tried = tried - before[np.searchsorted(left_out, hits)]
        best = gained / np.maximum(tried, 1)
        best = np.maximum.accumulate(best[::-1], axis=0)[::-1]
        reached = table[gained + offsets]
        total += best[0] * reached[0] + (best[1:] * (reached[1:] - reached[:-1])).sum(axis=0)
    return np.where(objects > 0, total / (len(hit) * len(RECALLS)), 0.0)


def interval(
    found: Found, truth: Truth, outcome: Outcome, photos: int, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the bootstrap interval of AP over photos: how far AP moves if other photos of the kind had been taken.

    Args:
        found: Detections.
        truth: True objects.
        outcome: What became of the detections, all areas.
        photos: How many photos there are.
        resamples: How many times the photos are drawn with replacement.
        seed: Seed of the draws.
        level: Share of the resamples inside the interval.

    Returns:
        Low and high percentile, or `None` if no resample has an object.
    """
    drawn = np.random.default_rng(seed).integers(photos, size=(resamples, photos))
    flat = drawn + np.arange(resamples)[:, None] * photos
    weights = np.bincount(flat.ravel(), minlength=resamples * photos).reshape(resamples, photos)
    values = resampled_ap(found, truth, outcome, weights)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def enough_for_an_interval(truth: Truth) -> bool:
    """Tell whether an interval would be more than the scores of single photos: from `LEAST_PHOTOS` photos on.

    Only photos with an object count: of one without, each redraw gives the same AP, but for its false alarms.
    """
    return len(np.unique(truth.photo[~truth.crowd])) >= LEAST_PHOTOS


@dataclass(frozen=True)
class Operating:
    """Precision, recall and F1 of the detections with at least some score.

    Attributes:
        score: The least score.
        precision: Hits among the detections that count.
        recall: Objects found.
        f1: Harmonic mean of both.
    """

    score: float
    precision: float
    recall: float
    f1: float


def operating_at(
    threshold: float,
    score: NDArray[np.float64],
    hit: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    objects: int,
) -> dict[str, float | None]:
    """Return `score`, `precision`, `recall` and `f1` at one threshold; a score equal to it counts.

    Args:
        threshold: The least score.
        score: As `operating`, and so are the others.
        hit: See there.
        counted: See there.
        objects: See there.

    Example:
        >>> hit = np.array([True, False])
        >>> operating_at(0.5, np.array([0.9, 0.5]), hit, np.array([True, True]), 2)
        {'score': 0.5, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    kept = score >= threshold
    hits, tried = int((hit & kept).sum()), int((counted & kept).sum())
    return {
        "score": threshold,
        "precision": hits / tried if tried else None,
        "recall": hits / objects if objects else None,
        "f1": 2 * hits / (tried + objects) if tried + objects else None,
    }


def operating(
    score: NDArray[np.float64], hit: NDArray[np.bool_], counted: NDArray[np.bool_], objects: int
) -> tuple[Operating | None, list[Operating]]:
    """Find the score threshold with the best F1, and how precision and recall depend on the threshold.

    Where several thresholds reach the same F1, the highest is taken. The threshold lies in the middle between the
    lowest score that is kept and the highest that is not, so that no score sits on it; a hundredth below the lowest
    score where everything is kept.

    Args:
        score: `(D,)` scores of all detections.
        hit: `(D,)` bool, matched to an object that counts.
        counted: `(D,)` bool, hits and false alarms.
        objects: How many objects there are to find.

    Returns:
        The best point, `None` without any hit; and about a hundred points by rising score, the best among them.
    """
    if not hit.any() or not objects:
        return None, []
    order = np.argsort(-score, kind="stable")
    score = score[order]
    hits, tried = np.cumsum(hit[order]), np.cumsum(counted[order])
    lasts = np.flatnonzero(np.diff(score, append=-np.inf))  # equal scores are kept or dropped together
    level, hits, tried = score[lasts], hits[lasts], tried[lasts]
    f1 = 2 * hits / (tried + objects)
    lower = np.append(level[1:], level[-1] - abs(level[-1]) * 0.02)
    middle = (level + lower) / 2
    middle = np.where(middle < level, middle, level)  # neighbouring floats have no middle

    def point(threshold: float, n: int) -> Operating:
        shown = float(hits[n] / tried[n]) if tried[n] else 1.0
        return Operating(threshold, shown, float(hits[n] / objects), float(f1[n]))

    best = int(np.argmax(f1))
    top = point(float(middle[best]), best)
    low, high = min(0.0, float(level[-1])), max(1.0, float(level[0]))
    points = [top]
    for threshold in np.linspace(low, high, 101).round(12).tolist():
        kept = int(np.searchsorted(-level, -threshold, side="right"))
        if kept:
            points.append(point(threshold, kept - 1))
    return top, sorted(points, key=lambda p: p.score)
