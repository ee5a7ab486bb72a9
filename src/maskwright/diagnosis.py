"""What a training that cannot work looks like, and the likely cause: told within minutes, not found after hours.

A training that works keeps within ranges, whatever the data: the sum of the losses falls below its beginning, gradients
are neither zero nor hundreds of times what they are clipped to, boxes around objects are found among the proposals, and
which category an object is of is told better than by naming the most frequent one. What leaves its range is told once,
with what is most likely behind it. Nothing is stopped: a training may recover, and the user may know better.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maskwright import pixels
from maskwright.batches import Batch
from maskwright.dataset import Category, Dataset
from maskwright.plan import BASE_BATCH, Plan, base_rate
from maskwright.schedule import warm_up_steps
from maskwright.step import Taken

FIRST_STEPS = 10
"""The beginning, which later losses are compared with: the mean of so many steps."""

EXPLODED = 2.0
"""The losses at the beginning count as at most so many times those of the first step."""

LAST_STEPS = 20
"""So many steps are judged together: two photos more or less change a loss by half."""

SETTLED = 40
"""Steps before the losses are judged; a warm-up's are judged after it."""

CATEGORY_BOXES = 400
"""Boxes on objects that must have been seen before their categories are judged, and are judged together."""

CATEGORY_SHARE = 0.2
"""Share of the training after which they are judged in any case."""

CATEGORY_STEPS = 1_000
"""Steps after the warm-up from which they are judged before that, where a fifth of the training is long."""

STEPS_A_CATEGORY = 500
"""At least so many of these steps per category."""

FEW_OBJECTS = 20
"""Objects that must have been seen before their boxes are judged."""

THIN_PX = 2.0
"""A box with a side below is degenerate: no anchor and no mask fits it."""


@dataclass(frozen=True)
class Cause:
    """What is likely wrong.

    Args:
        name: `rate`, `gradient`, `boxes`, `categories` or `splits`; each is told once.
        text: For the user: what was seen, expected, and what to do.
    """

    name: str
    text: str


@dataclass
class Watch:
    """Watches the steps of a training.

    Args:
        made: The plan.
        truth: The train split.
        first_total: The sum of the losses at the beginning, if it is known from before an interruption.
    """

    made: Plan
    truth: Dataset
    first_total: float | None = None
    totals: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))
    positives: deque[float] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))
    told_apart: deque[tuple[float, float]] = field(default_factory=deque)
    seen: Counter[int] = field(default_factory=Counter)
    objects: int = 0
    lost: int = 0
    thin: int = 0
    whole: int = 0

    def see(self, batch: Batch, taken: Taken) -> None:
        """Take note of a step."""
        self.totals.append(taken.total)
        self.norms.append(taken.grad_norm)
        if self.first_total is None and len(self.totals) >= FIRST_STEPS:
            # A rate that is far too high has blown the losses up by now, from which they can only fall.
            self.first_total = min(statistics.fmean(self.totals), EXPLODED * self.totals[0])
        for photo, kept, target in zip(batch.photos, batch.objects, batch.targets, strict=True):
            self._see_boxes(photo, kept)
            self.seen.update(target["labels"].tolist())
        if "positives" in taken.losses:
            found = taken.losses["positives"] * len(batch.photos)
            self.positives.append(found)
            self.told_apart.append((found, found * taken.losses.get("category_accuracy", 1.0)))
            while sum(n for n, _ in self.told_apart) - self.told_apart[0][0] >= CATEGORY_BOXES:
                self.told_apart.popleft()

    def _see_boxes(self, photo: int, kept: Sequence[int]) -> None:
        """Count the objects of a photo, as the data has them, and those that the network was shown."""
        truth, (height, width) = self.truth, self.made.canvas
        of = slice(int(truth.first[photo]), int(truth.first[photo + 1]))
        own = ~truth.crowd[of]
        image = truth.images[photo]
        sides = (truth.boxes[of, 2:] - truth.boxes[of, :2])[own]
        scaled = sides * min(width / image.width, height / image.height)
        self.objects += len(sides)
        seen = sum(of.start <= k < of.stop for k in kept)  # pasted objects are another photo's
        self.lost += max(len(sides) - seen, 0)
        self.thin += int((scaled < THIN_PX).any(1).sum())
        self.whole += int((sides >= 0.98 * np.array([image.width, image.height])).all(1).sum())

    def causes(self, step: int, done: float) -> list[Cause]:
        """Return what is out of its range.

        Args:
            step: Steps taken.
            done: Share of the training, 0..1.
        """
        found = [self._boxes()]
        warm = warm_up_steps(self.made, step, done)
        if len(self.totals) == LAST_STEPS and step >= SETTLED and step > warm:
            found += [self._falls(), self._moves()]
        # The more categories there are, the longer it takes to tell them apart.
        late = done >= CATEGORY_SHARE or step >= warm + max(CATEGORY_STEPS, STEPS_A_CATEGORY * len(self.seen))
        if late and step >= 2 * warm:
            found.append(self._categories())
        return [cause for cause in found if cause is not None]

    def _falls(self) -> Cause | None:
        """Judge whether the losses are below their beginning."""
        first, now = self.first_total, statistics.fmean(self.totals)
        if first is None or now < first:
            return None
        settings = self.made.settings
        rate = settings.learning_rate or 0.0
        rule = base_rate(settings.architecture or "", settings.optimiser or "", settings.batch_size or BASE_BATCH)
        norm, clip = statistics.median(self.norms), settings.clip_norm or math.inf
        seen = f"the losses add up to {now:.3g}, {first:.3g} at the beginning, where they should have fallen"
        if rate > 2 * rule:
            return Cause(
                "rate",
                f"the learning rate is likely too high: {seen}. It is {rate:.3g}, the rule gives {rule:.3g}: leave"
                " --learning-rate out",
            )
        if norm > 10 * clip:
            return Cause(
                "rate",
                f"the learning rate is likely too high: {seen}, and gradients have a norm of {norm:.3g} where they are"
                f" clipped to {clip:g}. Use --learning-rate {rate / 3:.1g}",
            )
        return Cause(
            "rate",
            f"nothing is learned: {seen}. Do the masks belong to their photos (maskwright check DATA --html"
            f" check.html)? If they do, use --learning-rate {rate / 3:.1g}",
        )

    def _moves(self) -> Cause | None:
        """Judge whether the gradient is there at all."""
        norm = statistics.median(self.norms)
        if norm > 1e-4:
            return None
        return Cause(
            "gradient",
            f"gradients vanish (a norm of {norm:.2g}, expected above 0.0001): the weights no longer change. The"
            " learning rate was likely too high: leave --learning-rate out, and start anew",
        )

    def _boxes(self) -> Cause | None:
        """Judge the boxes that are learned from."""
        if self.objects < FEW_OBJECTS:
            return None
        side = max(self.made.canvas)
        if max(self.thin, self.lost) > self.objects / 2:
            return Cause(
                "boxes",
                f"boxes are degenerate: of {self.objects} objects, {self.thin} are less than {THIN_PX:g} pixels wide or"
                f" high at side {side}, and {self.lost} vanish when their photo is scaled. Are the masks outlines, or"
                " of another size than their photos? Thin objects need a larger --side",
            )
        if self.whole > 0.9 * self.objects:
            return Cause(
                "boxes",
                f"boxes are degenerate: {self.whole} of {self.objects} objects fill the whole picture. Are the masks"
                " inverted (the background marked, not the objects)?",
            )
        if len(self.positives) == LAST_STEPS and sum(self.positives) == 0:
            return Cause(
                "boxes",
                f"boxes are degenerate: in {LAST_STEPS} steps no proposal lies on any of the objects, so boxes and"
                " masks learn nothing, and a box accuracy of nearly 100% is that of seeing background everywhere."
                " Look at the masks: maskwright check DATA --html check.html",
            )
        return None

    def _categories(self) -> Cause | None:
        """Judge whether categories can be told apart better than by naming the most frequent one."""
        boxes = sum(n for n, _ in self.told_apart)
        if len(self.seen) < 2 or boxes < CATEGORY_BOXES or self.first_total is None:
            return None
        if statistics.fmean(self.totals) >= self.first_total:
            return None  # nothing is learned at all, which `_falls` tells
        right = sum(n for _, n in self.told_apart) / boxes
        chance = max(self.seen.values()) / sum(self.seen.values())
        if right > chance + 0.2 * (1 - chance):
            return None
        names = [self.made.categories[label - 1] for label, _ in self.seen.most_common(2)]
        return Cause(
            "categories",
            f"categories are likely swapped in some of the photos: objects are found, but {right:.0%} of them are given"
            f" the right category, and always naming the most frequent one gives {chance:.0%}. Do masks of"
            f" {names[0]} and {names[1]} show the same objects? (maskwright check DATA --html check.html)",
        )


def swapped_in_validation(
    truth: Dataset, found: Dataset, categories: Sequence[Category], least: float = 0.3
) -> Cause | None:
    """Tell whether validation calls things by other names than training.

    Args:
        truth: The validation split.
        found: What the network finds in it.
        categories: Of both.
        least: Detections with a lower score do not count.

    Returns:
        The cause if objects of a category are mostly found as one and the same other category; else `None`.
    """
    names = {c.id: c.name for c in categories}
    calls: dict[int, Counter[int]] = {}
    place = {image.id: i for i, image in enumerate(found.images)}
    scores = found.scores
    if len(names) < 2:
        return None
    for i, image in enumerate(truth.images):
        j = place.get(image.id)
        if j is None:
            continue
        objects = [
            k
            for k in range(int(truth.first[i]), int(truth.first[i + 1]))
            if not truth.crowd[k] and truth.has_mask_at(k)
        ]
        hits = [k for k in range(int(found.first[j]), int(found.first[j + 1])) if scores[k] >= least]
        if not objects or not hits:
            continue
        overlap = pixels.iou([truth.rle(k) for k in objects], [found.rle(k) for k in hits], image.size)
        for row, k in zip(overlap, objects, strict=True):
            if row.max() >= 0.5:
                called = int(found.category_ids[hits[int(row.argmax())]])
                calls.setdefault(int(truth.category_ids[k]), Counter())[called] += 1
    wrong = []
    for category, as_what in sorted(calls.items()):
        called, times = as_what.most_common(1)[0]
        if called != category and times >= 3 and times >= 0.7 * as_what.total():
            wrong.append(f"{names[category]} is found as {names[called]} ({times} of {as_what.total()})")
    if not wrong:
        return None
    return Cause(
        "splits",
        f"categories are likely swapped between the train and the val split: {'; '.join(wrong)}. Look at both:"
        " maskwright check DATA --html check.html",
    )
