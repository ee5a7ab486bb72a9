"""How often photos come in an epoch, where those of rare categories come more often (Gupta et al. 2019, LVIS)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskwright.dataset import Dataset

NAMED = 3
"""So many repeated categories are told by name, the rarest first."""


@dataclass(frozen=True)
class Rarity:
    """How rare a category is.

    Attributes:
        name: The category's.
        photos: Photos that hold an object of it.
        rarest: Those of them that hold no category of fewer photos; a photo counts for one category only.
    """

    name: str
    photos: int
    rarest: int


def factor(photos: int, of: int, threshold: float) -> float:
    """Return how often the photos of a category come in an epoch: `max(1, sqrt(threshold / share))`.

    Args:
        photos: That hold the category.
        of: Photos in all.
        threshold: Share of the photos; a category that fewer hold is rare.

    Example:
        >>> factor(1, 400, 0.04), factor(100, 400, 0.04)
        (4.0, 1.0)
    """
    return max(1.0, math.sqrt(threshold * of / photos)) if photos else 1.0


def rarities(dataset: Dataset) -> tuple[Rarity, ...]:
    """Return how rare each category of a dataset is, in its order; crowds and objects without a mask do not count."""
    counts, rarest = _counted(dataset)
    held = np.bincount(rarest[rarest >= 0], minlength=len(counts))
    return tuple(Rarity(c.name, int(counts[i]), int(held[i])) for i, c in enumerate(dataset.categories))


def factors(dataset: Dataset, threshold: float) -> NDArray[np.float64]:
    """Return how often each photo of a dataset comes in an epoch, `(photos,)`: the most that its categories ask for."""
    counts, rarest = _counted(dataset)
    of = [factor(int(count), len(dataset.images), threshold) for count in counts]
    return np.array([*of, 1.0], dtype=np.float64)[rarest]  # a photo without an object has the place -1, the last


def _counted(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return in how many photos each category is, and each photo's rarest category; -1: it has none."""
    places = {c.id: i for i, c in enumerate(dataset.categories)}
    kept = np.flatnonzero(~dataset.crowd & dataset.has_mask)
    place = np.array([places[i] for i in dataset.category_ids[kept].tolist()], dtype=np.int64)
    held = np.unique(np.stack([dataset.image_index[kept].astype(np.int64), place]), axis=1)
    counts = np.bincount(held[1], minlength=len(places)).astype(np.int64)
    rarest = np.full(len(dataset.images), -1, dtype=np.int64)
    order = np.argsort(-counts[held[1]], kind="stable")  # the rarest is written last, and stays
    rarest[held[0][order]] = held[1][order]
    return counts, rarest


def expected(rare: Iterable[Rarity], photos: int, threshold: float) -> float:
    """Return how many photos an epoch has on average, each counted as often as it comes.

    Example:
        >>> expected([Rarity("bolt", 4, 4), Rarity("nut", 396, 396)], 400, 0.04)
        404.0
    """
    return photos + sum(r.rarest * (factor(r.photos, photos, threshold) - 1) for r in rare)


def told(rare: Iterable[Rarity], photos: int, threshold: float) -> str:
    """Say which categories are repeated.

    Example:
        >>> told([Rarity("bolt", 3, 3), Rarity("nut", 397, 397)], 400, 0.05)
        'bolt is in 3 of 400 photos: its photos come 2.6 times an epoch'
    """
    found = sorted((r for r in rare if factor(r.photos, photos, threshold) > 1), key=lambda r: r.photos)
    if not found:
        return f"every category is in {threshold:.3g} of the photos or more: none is repeated"
    parts = [
        f"{r.name} is in {r.photos} of {photos} photos: its photos come"
        f" {factor(r.photos, photos, threshold):.1f} times an epoch"
        for r in found[:NAMED]
    ]
    more = len(found) - NAMED
    return "; ".join(parts) + (f"; and {more} more {'category' if more == 1 else 'categories'}" if more > 0 else "")


STEPS = 1 << 24
"""A photo's draw is one of so many even steps from 0 to 1, so that a whole factor stays whole in floating point."""


def draws(count: int, seed: int) -> NDArray[np.float64]:
    """Return each photo's draw, `(count,)` in [0, 1): when the fractions of its factor make a whole."""
    return np.random.default_rng((seed, 11)).integers(0, STEPS, count) / STEPS


def before(factor: NDArray[np.float64], draw: NDArray[np.float64], epoch: int) -> NDArray[np.int64]:
    """Return how often each photo has come before an epoch.

    A photo of factor r and draw u has come `floor(epoch * r + u)` times. So in each epoch it comes floor(r) or ceil(r)
    times, r on average over the draws, and over any number of epochs it is never a whole turn ahead or behind.
    """
    return np.floor(epoch * factor + draw).astype(np.int64)


def turn(factor: NDArray[np.float64], seed: int, position: int) -> tuple[int, int, NDArray[np.int64]]:
    """Return where a position in the endless row of photos lies.

    It follows from the arguments alone, whatever was asked before.

    Args:
        factor: `(photos,)`, how often each comes in an epoch, at least 1.
        seed: Of the training.
        position: From 0.

    Returns:
        The epoch, from 0; the place in it, from 0; how often each photo comes in it, `(photos,)`.
    """
    draw = draws(len(factor), seed)
    epoch = int(position / factor.sum())  # the mean: off by one epoch or two
    while before(factor, draw, epoch).sum() > position:
        epoch -= 1
    while before(factor, draw, epoch + 1).sum() <= position:
        epoch += 1
    start = before(factor, draw, epoch)
    return epoch, position - int(start.sum()), before(factor, draw, epoch + 1) - start
