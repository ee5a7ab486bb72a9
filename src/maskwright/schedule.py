"""How the learning rate goes over a training."""

from __future__ import annotations

import math
from typing import cast

from maskwright.plan import ORIGIN_EPOCHS, Plan

WARM_UP = 0.04
"""Share of a training over which the rate rises from zero, where no number of steps is given."""

MOST_WARM_UP = 0.1
"""Share of a budget in minutes that a warm-up of steps takes at most: nobody knows how many steps there will be."""

FIRST = 0.001
"""Share of the rate at the first step of a warm-up of steps (MMDetection's and Detectron2's `warmup_ratio`)."""


def warm_up_steps(plan: Plan, step: int, done: float) -> float:
    """Return how many steps the warm-up has; a guess by what is done so far, where the budget is minutes.

    Args:
        plan: The plan.
        step: Steps taken.
        done: Share of the budget that is used, 0..1.
    """
    whole = plan.steps or step / max(done, 1e-9)
    if plan.settings.warmup is None:
        return WARM_UP * whole
    return plan.settings.warmup if plan.steps else min(plan.settings.warmup, MOST_WARM_UP * whole)


def rate(plan: Plan, step: int, done: float) -> float:
    """Return the learning rate of a step.

    Args:
        plan: Schedule `cosine`: a linear warm-up, then half a cosine down to a hundredth. `steps`: the rate is divided
            by 10 at every drop; where the budget is minutes, drops are epochs of 24. A warm-up of steps is over at the
            latest at `MOST_WARM_UP` of the minutes.
        step: From 0.
        done: Share of the budget that is used, 0..1.
    """
    settings = plan.settings
    peak = cast(float, settings.learning_rate)
    if settings.warmup is None:
        risen = min(1.0, (done + 1e-3) / WARM_UP)
    else:
        risen = FIRST + (1 - FIRST) * step / settings.warmup if step < settings.warmup else 1.0
        if plan.steps is None:
            risen = max(risen, min(1.0, FIRST + (1 - FIRST) * done / MOST_WARM_UP))
    if settings.schedule == "steps":
        epoch = done * ORIGIN_EPOCHS if plan.steps is None else round(step / plan.steps_per_epoch, 6)
        left = 0.1 ** sum(epoch >= drop for drop in settings.drops or ())
    else:
        left = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done))
    return float(peak * risen * left)
