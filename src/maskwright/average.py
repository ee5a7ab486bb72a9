"""Averages that make a training's result less a matter of luck: of the weights, and of the scores that choose them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from maskwright.step import uninterrupted

SMOOTHING = 0.5
"""Weight of a validation's AP in the smoothed AP: the scatter of its photos counts a little more than half."""


class Average:
    """The exponential moving average (EMA) of a network's weights: `average = d * average + (1 - d) * weights`.

    In the first steps `d` is `(1 + step) / (10 + step)` at most, so that the average does not remember the beginning.
    Weights that are not trained are left as they are.

    Args:
        network: Whose weights.
        decay: `d`, 0..1; 0: there is no average, and nothing is done.

    Attributes:
        tensors: The average by name; empty if there is none.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.parameters = {k: p for k, p in network.named_parameters() if p.requires_grad} if decay > 0 else {}
        self.tensors: dict[str, Tensor] = {k: p.detach().clone() for k, p in self.parameters.items()}

    def update(self, step: int) -> None:
        """Take the weights after a step (from 1) into the average."""
        if not self.tensors:
            return
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.tensors.values()), cast("list[Tensor]", list(self.parameters.values())), weight
            )

    def restart(self) -> None:
        """Begin anew from the weights as they are."""
        for name, value in self.tensors.items():
            value.copy_(self.parameters[name].detach())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the weights for the block; Ctrl-C leaves the weights as they were."""
        kept = {k: p.detach().clone() for k, p in self.parameters.items()}
        try:
            with uninterrupted():
                self._put(self.tensors)
            yield
        finally:
            with uninterrupted():
                self._put(kept)

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            self.parameters[name].copy_(value)


def smoothed(former: float | None, ap: float) -> float:
    """Return the smoothed AP after a validation.

    A single validation of few photos scatters by several points; the weights of a lucky one are not the best ones.

    Example:
        >>> smoothed(None, 0.4), smoothed(0.4, 0.6)
        (0.4, 0.5)
    """
    return ap if former is None else (1 - SMOOTHING) * former + SMOOTHING * ap
