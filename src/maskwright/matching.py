"""Match detections to truth by COCO's rule: overlaps once, then greedy matching at any IoU and any range of areas.

Everything that evaluation says (the COCO numbers, curves, threshold, interval, list of matches) is a view of these
matches, so no two of its statements can contradict each other. The rule is that of pycocotools' `COCOeval.evaluateImg`;
overlaps of masks come from hotcoco. Here all photos are matched at once, in columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as codec
from hotcoco.primitives import mask_iou
from numpy.typing import NDArray

from maskwright import pixels

_PAIRS_AT_ONCE = 2_000_000
"""So many pairs of a detection and an object are looked at in one go, to bound the memory."""


@dataclass(frozen=True)
class Truth:
    """True objects, by category, then photo, then order in the file.

    Attributes:
        source: `(G,)` int64, position in the dataset.
        photo: `(G,)` int64, the photo's place in the order of image ids.
        category: `(G,)` int64, the category's place in the order of category ids.
        crowd: `(G,)` bool.
    """

    source: NDArray[np.int64]
    photo: NDArray[np.int64]
    category: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """Detections, by category, then photo, then falling score; equal scores keep the file's order.

    Attributes:
        source: `(D,)` int64, position in the dataset.
        photo: `(D,)` int64, as in `Truth`.
        category: `(D,)` int64, as in `Truth`.
        score: `(D,)` float64.
        rank: `(D,)` int64, place by score among the detections of this photo and category, from 0.
    """

    source: NDArray[np.int64]
    photo: NDArray[np.int64]
    category: NDArray[np.int64]
    score: NDArray[np.float64]
    rank: NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and a true object of the same photo and category that overlap enough to be matched.

    Attributes:
        detection: `(P,)` int64, position in `Found`, ascending.
        truth: `(P,)` int64, position in `Truth`.
        iou: `(P,)` float64; with a crowd, the share of the detection that lies in the crowd, as COCO has it.
    """

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def truth_columns(photo: NDArray[np.int64], category: NDArray[np.int64], crowd: NDArray[np.bool_]) -> Truth:
    """Sort true objects; see `Truth`."""
    source = np.lexsort((photo, category))
    return Truth(source, photo[source], category[source], crowd[source])


def found_columns(photo: NDArray[np.int64], category: NDArray[np.int64], score: NDArray[np.float64]) -> Found:
    """Sort detections; see `Found`."""
    source = np.lexsort((-score, photo, category))
    photo, category = photo[source], category[source]
    fresh = np.ones(len(source), dtype=np.bool_)
    fresh[1:] = (np.diff(photo) != 0) | (np.diff(category) != 0)
    starts = np.flatnonzero(fresh)
    rank = np.arange(len(source)) - np.repeat(starts, np.diff(starts, append=len(source)))
    return Found(source, photo, category, score[source], rank)


def box_overlaps(
    truth: Truth,
    found: Found,
    truth_xywh: NDArray[np.float64],
    found_xywh: NDArray[np.float64],
    least: float,
) -> Overlaps:
    """Find the pairs whose boxes overlap with an IoU of at least `least`.

    Args:
        truth: True objects.
        found: Detections.
        truth_xywh: `(G, 4)` boxes of `truth`, `x y width height`: COCO's arithmetic, bit for bit, starts from these.
        found_xywh: `(D, 4)` boxes of `found`.
        least: Pairs with a smaller IoU are left out.
    """
    areas_true, areas_found = truth_xywh[:, 2] * truth_xywh[:, 3], found_xywh[:, 2] * found_xywh[:, 3]
    pieces = []
    for d, g, shared in _sharing(truth, found, truth_xywh, found_xywh):
        iou = shared / np.where(truth.crowd[g], areas_found[d], areas_found[d] + areas_true[g] - shared)
        keep = np.flatnonzero(iou >= least)
        pieces.append((d[keep], g[keep], iou[keep]))
    return _joined(pieces)


def mask_overlaps(
    truth: Truth,
    found: Found,
    truth_rles: Sequence[bytes],
    found_rles: Sequence[bytes],
    sizes: Sequence[pixels.Size],
    least: float,
    measured: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[Overlaps, NDArray[np.float64]]:
    """Find the pairs whose masks overlap with an IoU of at least `least`.

    Areas and boxes bound the IoU from above, so most pairs need no look at their pixels.

    Args:
        truth: True objects.
        found: Detections.
        truth_rles: RLEs of `truth`.
        found_rles: RLEs of `found`.
        sizes: `(height, width)` of each photo, by the place that `Truth.photo` gives.
        least: Pairs with a smaller IoU are left out.
        measured: Area and tight `x y width height` of each mask, `(G, 5)` of `truth` and `(D, 5)` of `found`, if they
            are known.

    Returns:
        The pairs, and the areas `(D,)` of the detections' masks in pixels.
    """
    sides = [[int(height), int(width)] for height, width in sizes]
    true = [{"size": sides[p], "counts": r} for r, p in zip(truth_rles, truth.photo.tolist(), strict=True)]
    ours = [{"size": sides[p], "counts": r} for r, p in zip(found_rles, found.photo.tolist(), strict=True)]
    of_true, of_found = (_measured(true), _measured(ours)) if measured is None else measured
    areas_true, areas_found = of_true[:, 0], of_found[:, 0]
    crowd = truth.crowd.tolist()
    pieces = []
    for all_d, all_g, shared in _sharing(truth, found, of_true[:, 1:], of_found[:, 1:]):
        true_area, found_area = areas_true[all_g], areas_found[all_d]
        most = np.minimum(shared, np.minimum(true_area, found_area))
        whole = np.where(truth.crowd[all_g], found_area, found_area + true_area - most)
        keep = np.flatnonzero((most > 0) & (most >= least * whole * (1 - 1e-9)))
        d, g = all_d[keep], all_g[keep]
        iou = np.array(
            [mask_iou([ours[i]], [true[j]], [crowd[j]]).item() for i, j in zip(d.tolist(), g.tolist(), strict=True)],
            dtype=np.float64,
        )
        keep = np.flatnonzero((iou > 0) & (iou >= least))
        pieces.append((d[keep], g[keep], iou[keep]))
    return _joined(pieces), areas_found


def match(
    truth: Truth,
    found: Found,
    overlaps: Overlaps,
    thresholds: NDArray[np.float64],
    ignored: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give each detection, best score first, the object of its photo and category that it overlaps most.

    An object is given away once, a crowd any number of times; an object that counts is preferred to an ignored one,
    and among equal IoUs the later in the file.

    Args:
        truth: True objects.
        found: Detections.
        overlaps: Their pairs, down to the lowest threshold.
        thresholds: `(T,)` least IoU of a match.
        ignored: `(G,)` bool, objects that do not count (crowds, and those outside the range of areas).

    Returns:
        `(T, D)` int64, position in `truth` or -1; and `(T, D)` float64, the IoU of that match, 0 where there is none.
    """
    matched = np.full((len(thresholds), len(found.score)), -1, dtype=np.int64)
    ious = np.zeros(matched.shape)
    if not len(overlaps.detection):
        return matched, ious
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]  # as pycocotools has it: an IoU of 1 counts at threshold 1
    detection, partner, iou = overlaps.detection, overlaps.truth, overlaps.iou
    # Most pairs have no rival: neither side is in another pair, so the IoU alone decides.
    alone = (np.bincount(detection)[detection] == 1) & (np.bincount(partner)[partner] == 1)
    value = iou[alone]
    matched[:, detection[alone]] = np.where(value >= least, partner[alone], -1)
    ious[:, detection[alone]] = np.where(value >= least, value, 0)
    if alone.all():
        return matched, ious
    detection, partner, iou = detection[~alone], partner[~alone], iou[~alone]
    # The best partner of a detection comes last among its pairs.
    order = np.lexsort((partner, iou, ~ignored[partner], detection))
    detection, partner, iou = detection[order], partner[order], iou[order]
    # In one round each photo and category has at most one detection, so that all of a round are matched at once.
    rounds = _rounds(found, detection)
    order = np.argsort(rounds, kind="stable")
    detection, partner, iou = detection[order], partner[order], iou[order]
    ends = np.cumsum(np.bincount(rounds))
    taken = np.zeros((len(thresholds), len(truth.crowd)), dtype=np.bool_)
    start = 0
    for end in ends.tolist():
        d, g, value = detection[start:end], partner[start:end], iou[start:end]
        start = end
        possible = (value >= least) & ~taken[:, g]
        firsts = np.flatnonzero(np.diff(d, prepend=-1))
        best = np.maximum.reduceat(np.where(possible, np.arange(len(d)), -1), firsts, axis=1)
        t, s = np.nonzero(best >= 0)
        pair = best[t, s]
        matched[t, d[pair]] = g[pair]
        ious[t, d[pair]] = value[pair]
        taken[t, g[pair]] = ~truth.crowd[g[pair]]
    return matched, ious


def _rounds(found: Found, detection: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the detections that have pairs within their photo and category; `(P,)`, one number for each pair."""
    fresh = np.diff(detection, prepend=-1) != 0
    unique = detection[fresh]
    photo, category = found.photo[unique], found.category[unique]
    leads = np.ones(len(unique), dtype=np.bool_)
    leads[1:] = (np.diff(photo) != 0) | (np.diff(category) != 0)
    starts = np.flatnonzero(leads)
    number = np.arange(len(unique)) - np.repeat(starts, np.diff(starts, append=len(unique)))
    return np.asarray(number[np.cumsum(fresh) - 1])


def _pairs(truth: Truth, found: Found) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return all pairs of a detection and an object of its photo and category, in pieces."""
    photos = 1 + max(int(truth.photo.max(initial=0)), int(found.photo.max(initial=0)))
    keys = truth.category * photos + truth.photo
    wanted = found.category * photos + found.photo
    first = np.searchsorted(keys, wanted, side="left")
    count = np.searchsorted(keys, wanted, side="right") - first
    ends = np.cumsum(count)
    pieces = []
    start = 0
    while start < len(count):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        own = count[start:stop]
        d = np.repeat(np.arange(start, stop), own)
        g = np.arange(len(d)) + np.repeat(first[start:stop] - (ends[start:stop] - own - before), own)
        pieces.append((d, g))
        start = stop
    return pieces


def _sharing(
    truth: Truth, found: Found, truth_xywh: NDArray[np.float64], found_xywh: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield, in pieces, the pairs whose boxes share an area, and that area."""
    # Column by column, which is faster than whole boxes: most pairs lie apart from left to right and go at once.
    true, ours = (np.hstack([box, box[:, :2] + box[:, 2:]]).T.copy() for box in (truth_xywh, found_xywh))
    for d, g in _pairs(truth, found):
        shared = np.ones(len(d))
        for start, end in ((0, 4), (1, 5)):
            side = np.minimum(true[end, g], ours[end, d]) - np.maximum(true[start, g], ours[start, d])
            keep = np.flatnonzero(side > 0)
            d, g, shared = d[keep], g[keep], shared[keep] * side[keep]  # noqa: PLW2901 - ever fewer
        yield d, g, shared


def _measured(rles: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Return area and tight `x y width height` of each mask, `(N, 5)`."""
    if not rles:
        return np.zeros((0, 5))
    boxes = np.asarray(codec.to_bbox(rles), dtype=np.float64).reshape(-1, 4)
    return np.column_stack([np.asarray(codec.area(rles), dtype=np.float64), boxes])


def _joined(pieces: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]) -> Overlaps:
    if not pieces:
        nothing = np.zeros(0, dtype=np.int64)
        return Overlaps(nothing, nothing, np.zeros(0))
    d, g, iou = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Overlaps(d, g, iou)
