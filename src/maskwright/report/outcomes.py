"""What became of every object and detection once detections below a score are left out.

Matching goes from the highest score down, so leaving out low scores changes no match that remains: a list of matches
made once serves every threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Match = Mapping[str, Any]
"""One entry of an evaluation's `matches`."""


@dataclass(frozen=True)
class Tally:
    """Counts at one score threshold.

    Attributes:
        hits: Objects that a detection covers well enough.
        misses: Objects that none does.
        false_alarms: Detections that cover no object well enough.
        overlap: Sum of the hits' IoU.
    """

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    overlap: float = 0.0

    @property
    def objects(self) -> int:
        """Objects in the truth."""
        return self.hits + self.misses

    @property
    def detections(self) -> int:
        """Detections that count."""
        return self.hits + self.false_alarms

    @property
    def recall(self) -> float | None:
        """Share of the objects that were found; `None` without objects."""
        return self.hits / self.objects if self.objects else None

    @property
    def precision(self) -> float | None:
        """Share of the detections that are right; `None` without detections."""
        return self.hits / self.detections if self.detections else None

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU of the hits; `None` without hits."""
        return self.overlap / self.hits if self.hits else None

    @property
    def quality(self) -> float:
        """How well a photo went, 0..1: panoptic quality (Kirillov et al., CVPR 2019); 1 where nothing was to do."""
        weight = self.hits + (self.misses + self.false_alarms) / 2
        return self.overlap / weight if weight else 1.0


def outcome(match: Match, threshold: float) -> str | None:
    """Return what a match amounts to at a threshold: hit, miss, false alarm, or `None` for nothing that counts."""
    stated = match.get("outcome")
    score = match.get("score")
    visible = score is None or float(score) >= threshold
    if stated == "hit":
        return "hit" if visible else "miss"
    if stated == "false alarm":
        return "false alarm" if visible else None
    return "miss" if stated == "miss" else None


def tally(matches: Iterable[Match], threshold: float) -> Tally:
    """Count hits, misses and false alarms at a threshold.

    Example:
        >>> hit = {"outcome": "hit", "score": 0.8, "iou": 0.9}
        >>> tally([hit], 0.5), tally([hit], 0.85).misses
        (Tally(hits=1, misses=0, false_alarms=0, overlap=0.9), 1)
    """
    counts = {"hit": 0, "miss": 0, "false alarm": 0}
    overlap = 0.0
    for match in matches:
        what = outcome(match, threshold)
        if what is None:
            continue
        counts[what] += 1
        if what == "hit":
            overlap += float(match.get("iou") or 0.0)
    return Tally(counts["hit"], counts["miss"], counts["false alarm"], overlap)


def steps(matches: Sequence[Match], count: int = 100) -> list[list[int]]:
    """Return `[hits, false alarms]` of all photos at the thresholds 0, 1/count, ... 1."""
    import numpy as np

    hits = np.sort([_score(m) for m in matches if m.get("outcome") == "hit"])
    alarms = np.sort([_score(m) for m in matches if m.get("outcome") == "false alarm"])
    at = np.arange(count + 1) / count
    return [
        [len(hits) - int(h), len(alarms) - int(a)]
        for h, a in zip(np.searchsorted(hits, at), np.searchsorted(alarms, at), strict=True)
    ]


def _score(match: Match) -> float:
    score = match.get("score")
    return 1.0 if score is None else float(score)
