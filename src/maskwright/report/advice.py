"""What to do next: rules that read the measurements and say what would help, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskwright.report.outcomes import Tally
from maskwright.report.scored import Scored

Metrics = Mapping[str, float | None]


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes:
        title: What to do, in the imperative.
        how: How, in a sentence or two; what is to be typed stands in backticks.
        reason: What was measured.
        weight: How much it matters; the page shows the greatest first.
    """

    title: str
    how: str
    reason: str
    weight: float


@dataclass(frozen=True)
class Evidence:
    """What the rules look at; whatever is not known is `None` or empty, and its rules stay silent.

    Attributes:
        metrics: The evaluation's, such as `segm/AP`.
        interval: `(low, high)` of segm AP, or of bbox AP where there are no masks.
        photos: Photos that are scored.
        scored: What they are to the training.
        tally: Counts at the threshold in use, at the best one where none is known.
        small: `(found, all)` of the smallest third of the objects.
        large: `(found, all)` of the other two thirds.
        swaps: `(truth category, detected category)` -> false alarms that lie on a missed object of another category.
        repeats: False alarms that lie on an object that another detection has hit.
        empty_alarms: False alarms in photos without any object.
        categories: The evaluation's, per category.
        validations: `{"step", <metric>}`, ascending.
        losses: `{"step", "total"}`, ascending.
        train_photos: Photos that were learned from.
        train_objects: Objects of each category in them.
        threshold: The score with the best F1 on the scored photos.
        used_threshold: The score from which on masks were written, or that the run uses.
    """

    metrics: Metrics
    interval: tuple[float, float] | None = None
    photos: int = 0
    scored: Scored = field(default_factory=Scored)
    tally: Tally = field(default_factory=Tally)
    small: tuple[int, int] | None = None
    large: tuple[int, int] | None = None
    swaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    repeats: int = 0
    empty_alarms: int = 0
    categories: Sequence[Mapping[str, Any]] = ()
    validations: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    train_photos: int | None = None
    train_objects: Mapping[str, int] = field(default_factory=dict)
    threshold: float | None = None
    used_threshold: float | None = None

    @property
    def ap(self) -> float | None:
        """Segm AP, or bbox AP where there are no masks."""
        segm = self.metrics.get("segm/AP")
        return self.metrics.get("bbox/AP") if segm is None else segm

    @property
    def of_split(self) -> str:
        """The word for the scored photos before `photo`; a split that is not known is not called a test."""
        return {"test": "test ", "val": "validation ", "train": "training "}.get(self.scored.split or "", "")

    @property
    def at_score(self) -> str:
        """From which score on the tally counts."""
        score = self.threshold if self.used_threshold is None else self.used_threshold
        return "at any score" if score is None else f"from a score of {score:.2f} on"


def advise(evidence: Evidence) -> list[Advice]:
    """Return what to do next, the most useful first; never empty."""
    found = [advice for rule in RULES for advice in rule(evidence)]
    if not found:
        return [
            Advice(
                "Nothing stands out",
                "Look through the worst photos in the gallery: what they have in common is what to photograph next.",
                "None of the rules of this page found a cause for concern in the numbers.",
                0,
            )
        ]
    return sorted(found, key=lambda advice: -advice.weight)


def _nothing(e: Evidence) -> Iterator[Advice]:
    if e.tally.objects == 0:
        yield Advice(
            "Score photos that show objects",
            "Without a single object nothing can be found, and no score has a meaning.",
            f"The truth has no object in {_count(e.photos, 'photo')}.",
            100,
        )
    elif e.tally.hits == 0:
        yield Advice(
            "Look at the training first",
            "Train longer, and check with `maskwright check` that photos and masks belong together.",
            f"None of {_count(e.tally.objects, 'object')} was found.",
            95,
        )


def _perfect(e: Evidence) -> Iterator[Advice]:
    if e.ap is not None and e.ap >= 0.995 and e.tally.objects:
        yield Advice(
            "Check that the score is a fair one",
            f"Make sure that no {e.of_split or 'scored '}photo (or one taken moments apart) was trained on, "
            "and that the truth was not scored against itself.",
            f"AP is {e.ap:.3f}; real photos with masks drawn by hand hardly ever allow that.",
            90,
        )


def _flattered(e: Evidence) -> Iterator[Advice]:
    if e.scored.chose:
        yield Advice(
            "Score photos that the training has not seen",
            "Keep some photos as a test split, which nothing is chosen by: a folder of that name, or new splits by "
            "`maskwright prepare DATA -o NEW --resplit`; then train anew.",
            f"The {_count(e.photos, 'scored photo')} also chose the weights and the threshold.",
            72,
        )
    elif e.scored.split == "train" and e.scored.own:
        yield Advice(
            "Score photos that the training has not seen",
            "Predict and evaluate on the test split, or on val.",
            f"The {_count(e.photos, 'scored photo')} were learned from.",
            92,
        )


def _leaked(e: Evidence) -> Iterator[Advice]:
    if e.scored.leaks:
        yield Advice(
            "Part the splits anew before trusting the score",
            "`maskwright check DATA --html check.html` shows the pairs. Put photos that look alike into one split: "
            "`maskwright prepare DATA -o NEW --resplit`; then train anew.",
            f"{'; '.join(leak.told for leak in e.scored.leaks)}.",
            85,
        )


def _wide(e: Evidence) -> Iterator[Advice]:
    if e.interval is not None and e.photos and (width := e.interval[1] - e.interval[0]) > 0.10:
        yield Advice(
            "Score on more photos before trusting small differences",
            f"About four times as many {e.of_split}photos ({4 * e.photos:,}) would halve the interval.",
            f"The 95% interval of AP reaches from {e.interval[0]:.2f} to {e.interval[1]:.2f}, "
            f"with {_count(e.photos, e.of_split + 'photo')}.",
            40 + min(40, 100 * width),
        )
    elif e.interval is None and 0 < e.photos < 20:
        yield Advice(
            "Score on more photos before trusting small differences",
            f"A few dozen {e.of_split}photos are a fair start.",
            f"The score comes from only {_count(e.photos, e.of_split + 'photo')}.",
            45,
        )


def _rising(e: Evidence) -> Iterator[Advice]:
    points = [(p["step"], p["segm/AP"]) for p in e.validations if p.get("segm/AP") is not None]
    if len(points) < 3:
        return
    last_step, last = points[-1]
    # Compared with the score at two thirds of the way: single validations on few photos jump about.
    earlier = [ap for step, ap in points if step <= last_step * 2 / 3]
    best_step, best = max(points, key=lambda p: p[1])
    if earlier and last >= best - 0.005 and last - max(earlier) >= 0.01:
        yield Advice(
            "Train longer",
            "Give about twice the time: `--minutes`, `--epochs` or `--steps`.",
            f"Validation AP was still rising at the end: {max(earlier):.3f} at best in the first two thirds, "
            f"{last:.3f} at step {last_step:,.0f}.",
            75,
        )
    elif best_step <= last_step * 2 / 3 and best - last >= 0.03 and _falls(e.losses, best_step):
        yield Advice(
            "Add photos rather than training time",
            "The network began to learn its photos by heart; more, and more varied, photos help. More time does not.",
            f"Validation AP peaked at {best:.3f} at step {best_step:,.0f} and ended at {last:.3f}, "
            "while the training loss went on falling.",
            70,
        )


def _falls(losses: Sequence[Mapping[str, Any]], since: float) -> bool:
    before = [p["total"] for p in losses if p.get("total") is not None and p["step"] <= since][-5:]
    after = [p["total"] for p in losses if p.get("total") is not None][-5:]
    return bool(before and after) and sum(after) / len(after) < sum(before) / len(before)


def _rough(e: Evidence) -> Iterator[Advice]:
    box, segm = e.metrics.get("bbox/AP"), e.metrics.get("segm/AP")
    ap50, ap75 = e.metrics.get("segm/AP50"), e.metrics.get("segm/AP75")
    if box is not None and segm is not None and box - segm > 0.10:
        yield Advice(
            "Improve the masks: the boxes are already good",
            "Look at missed corners and thin parts in the gallery. Check that the drawn masks are exact, "
            "and try a larger `--side`.",
            f"Box AP is {box:.3f}, mask AP {segm:.3f}: objects are found in the right place, their outlines are rough.",
            65,
        )
    elif ap50 is not None and ap75 is not None and ap50 - ap75 > 0.30:
        yield Advice(
            "Improve how exactly objects are outlined",
            "Train longer, try a larger `--side`, and check that the drawn masks are exact.",
            f"AP50 is {ap50:.3f}, AP75 {ap75:.3f}: objects are found, but many outlines overlap them by less than "
            "three quarters.",
            60,
        )


def _small(e: Evidence) -> Iterator[Advice]:
    if e.small is None or e.large is None or e.small[1] < 5 or e.large[1] < 5:
        return
    small, large = e.small[0] / e.small[1], e.large[0] / e.large[1]
    if large - small > 0.15 and e.small[1] - e.small[0] >= 3:
        yield Advice(
            "Help it to see small objects",
            "Train with a larger `--side`, or take the photos closer.",
            f"Of the smallest third of the objects {e.small[0]} of {e.small[1]} were found ({small:.0%}), "
            f"of the others {e.large[0]} of {e.large[1]} ({large:.0%}).",
            68,
        )


def _swapped(e: Evidence) -> Iterator[Advice]:
    if not e.swaps:
        return
    (true, taken), count = max(e.swaps.items(), key=lambda item: item[1])
    if count >= 2 and count >= 0.1 * e.tally.misses:
        yield Advice(
            f"Teach it to tell “{true}” from “{taken}”",
            "Add photos that show both side by side, and check that none is labelled wrongly.",
            f"{count} missed objects of “{true}” were detected as “{taken}”.",
            55 + min(20, count),
        )


def _repeated(e: Evidence) -> Iterator[Advice]:
    if e.repeats >= 3 and e.repeats >= 0.25 * e.tally.false_alarms:
        yield Advice(
            "Expect some objects to be detected twice",
            "A higher `--score` removes most of them. If objects touch, add photos where they do.",
            f"{e.repeats} of {_count(e.tally.false_alarms, 'false alarm')} lie on an object that another detection "
            "has already found.",
            48,
        )


def _alarms(e: Evidence) -> Iterator[Advice]:
    precision, recall = e.tally.precision, e.tally.recall
    if e.empty_alarms >= 3:
        yield Advice(
            "Add photos without any object",
            "Photos of the empty scene, with an all-black mask, teach it what not to detect.",
            f"{e.empty_alarms} false alarms are in photos that show no object.",
            58,
        )
    elif precision is not None and recall is not None and recall - precision > 0.15 and e.tally.false_alarms >= 3:
        yield Advice(
            "Show it what not to detect",
            "Add photos of look-alikes and of the empty scene. A higher `--score` trades false alarms for misses.",
            f"{_count(e.tally.false_alarms, 'false alarm')} against {_count(e.tally.misses, 'miss', 'misses')} "
            f"{e.at_score}.",
            50,
        )
    elif precision is not None and recall is not None and precision - recall > 0.15 and e.tally.misses >= 3:
        yield Advice(
            "Find out what it overlooks",
            "Filter the gallery by “missed”: what those objects share (distance, light, pose) is what to photograph. "
            "A lower `--score` trades misses for false alarms.",
            f"{_count(e.tally.misses, 'miss', 'misses')} against {_count(e.tally.false_alarms, 'false alarm')} "
            f"{e.at_score}.",
            50,
        )


def _few(e: Evidence) -> Iterator[Advice]:
    if e.train_photos is not None and e.train_photos < 50 and (e.ap is None or e.ap < 0.9):
        yield Advice(
            "Add training photos",
            "More photos with other backgrounds, light and poses usually help more than anything else at this stage.",
            f"It learned from {_count(e.train_photos, 'photo')}.",
            62,
        )


def _weakest(e: Evidence) -> Iterator[Advice]:
    scored = []
    for category in e.categories:
        value = (category.get("metrics") or {}).get("segm/AP")
        if value is not None:
            scored.append((float(value), str(category.get("name"))))
    if len(scored) < 2:
        return
    value, name = min(scored)
    others = [ap for ap, other in scored if other != name]
    mean = sum(others) / len(others) if others else value
    if mean - value > 0.15:
        learned = e.train_objects.get(name)
        yield Advice(
            f"Add examples of “{name}”",
            "It is the weakest category; photos that show it in other ways are worth the most.",
            f"Its AP is {value:.3f}, the others' mean is {mean:.3f}"
            + (f"; it learned from {_count(learned, 'object')} of it." if learned is not None else "."),
            57,
        )


def _threshold(e: Evidence) -> Iterator[Advice]:
    if not e.tally.misses and not e.tally.false_alarms:
        return  # no other score can do better
    if e.threshold is not None and e.used_threshold is not None and abs(e.threshold - e.used_threshold) > 0.15:
        yield Advice(
            f"Consider predicting with a score of {e.threshold:.2f}",
            f"That is `--score {e.threshold:.2f}`. It was found on the very photos that are scored here: see on others "
            "whether it holds. More validation photos make the score that a run stores steadier.",
            f"These photos do best at a score of {e.threshold:.2f}; {e.used_threshold:.2f} is in use.",
            42,
        )


RULES: tuple[Callable[[Evidence], Iterator[Advice]], ...] = (
    _nothing,
    _perfect,
    _leaked,
    _flattered,
    _wide,
    _rising,
    _rough,
    _small,
    _swapped,
    _repeated,
    _alarms,
    _few,
    _weakest,
    _threshold,
)
"""Every rule; each yields nothing, or advice with what it measured."""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
