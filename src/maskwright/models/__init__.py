"""The networks: the contract that every one keeps, and the dict of those there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class Segmenter(Protocol):
    """What training and prediction ask of a network; images are `(N, 3, H, W)` RGB 0..255, sizes multiples of 32."""

    def losses(self, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return scalar losses by name, and `box_accuracy` (a share, detached).

        Each target has `boxes` `(N, 4)` `x1 y1 x2 y2`, `labels` `(N,)` 1..C and `masks` `(N, H, W)` uint8 0/1.
        """
        ...

    def detect(
        self, images: Tensor, shapes: Sequence[tuple[int, int]], least_score: float = ...
    ) -> list[dict[str, Tensor]]:
        """Return per photo `boxes`, `labels`, `scores` and `masks` `(N, S, S)` over `windows` `(N, 4)`, best first.

        `shapes` gives the `(height, width)` of each photo inside its padded frame.
        """
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters."""
        ...


def _nano(sizes: Mapping[str, Any], weights: str) -> nn.Module:
    from maskwright.models.maskrcnn import nano

    return nano(sizes, weights)


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any], str], nn.Module]] = {"maskrcnn-nano": _nano}
"""Every network by name: a builder that takes its sizes (JSON) and what its backbone starts from (`imagenet`,
`none`)."""
