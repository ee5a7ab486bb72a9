"""What the scored photos are to the training, and from which score on detections count: what makes numbers flatter."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maskwright.dataset import SPLITS, Dataset
from maskwright.report.training import Leak, Training, number

_FILE = re.compile(rf"instances_({'|'.join(SPLITS)})(?:-\d{{5}}-of-\d{{5}}|-\*)?\.json")


@dataclass(frozen=True)
class Scored:
    """The photos that are scored.

    Attributes:
        split: Which split they are; `None` if it is not known.
        own: Whether it is a split of the very data that the run was trained on.
        chose: Whether they chose the weights and the threshold: the run's own val.
        leaks: What the check before the training found of them in other splits.
        photos: How many they are.
    """

    split: str | None = None
    own: bool = False
    chose: bool = False
    leaks: tuple[Leak, ...] = ()
    photos: int = 0

    def cautions(self) -> tuple[str, ...]:
        """Return, in whole sentences, why the scores may be better than on other photos; empty: nothing is known."""
        lines = []
        if self.chose:
            lines.append(
                "The score flatters: these are the validation photos of the training, which chose the weights and the "
                "threshold. How good it is on photos that it has never seen, a test split tells."
            )
        elif self.split == "val" and not self.own:
            lines.append(
                "These are the photos of a val split. If the training was validated on them, they chose its weights "
                "and its threshold, and the score flatters."
            )
        elif self.split == "train" and self.own:
            lines.append("The score flatters: these are the photos that the network learned from.")
        elif self.split == "train":
            lines.append("These are the photos of a train split. If the network learned from them, the score flatters.")
        lines += [f"The check before the training found: {leak.told}. The score is too good." for leak in self.leaks]
        return tuple(lines)


def scored_of(evaluation: Mapping[str, Any], training: Training) -> Scored:
    """Tell what the scored photos are, from the names of files and from what the run knows of its data.

    Args:
        evaluation: As in evaluation.json.
        training: What the run tells.
    """
    photos = int(number((evaluation.get("counts") or {}).get("photos")) or 0)
    split, own = _split_of(evaluation, training.data)
    if split is None or not own:
        return Scored(split=split, photos=photos)
    chose = split == "val" and training.validated
    return Scored(split, True, chose, tuple(leak for leak in training.leaks if leak.split == split), photos)


def _split_of(evaluation: Mapping[str, Any], data: Path | None) -> tuple[str | None, bool]:
    truth, photos = evaluation.get("truth"), evaluation.get("photos")
    named = _FILE.fullmatch(Path(truth).name) if isinstance(truth, str) else None
    if isinstance(truth, str) and named:
        return named[1], data is not None and _same(Path(os.path.abspath(truth)).parent.parent, data)
    if isinstance(photos, str) and data is not None:  # a dataset in memory, or shards named by their folder
        own = [split for split in SPLITS if _same(Path(photos), data / split)]
        return (own[0], True) if own else (None, False)
    return None, False


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


@dataclass(frozen=True)
class Cut:
    """The score from which on detections count on the page.

    Attributes:
        score: The least score; `None`: every detection counts.
        origin: `masks`: from there on the detections were written as mask images; `run`: the run's; `best`: the one
            with the best F1 on the scored photos, where nothing else is known.
        advised: Whether the run's validation advised it.
    """

    score: float | None = None
    origin: Literal["masks", "run", "best"] | None = None
    advised: bool = False


def cut_of(evaluation: Mapping[str, Any], detections: Dataset | None, training: Training) -> Cut:
    """Return the score that is in use: what the numbers say must be true of the masks that were written.

    Args:
        evaluation: As in evaluation.json.
        detections: What was found, if its file could be read.
        training: What the run tells.
    """
    used = number((evaluation.get("used") or {}).get("score"))
    if used is None and detections is not None:  # an evaluation that another version made
        made = detections.info.get("maskwright")
        used = number(made.get("threshold")) if isinstance(made, Mapping) else None
    if used is not None:
        return Cut(used, "masks", training.validated and used == training.threshold)
    if training.threshold is not None:
        return Cut(training.threshold, "run", training.validated)
    best = number((evaluation.get("threshold") or {}).get("score"))
    return Cut() if best is None else Cut(best, "best")
