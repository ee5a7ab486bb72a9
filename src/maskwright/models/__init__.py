"""The networks: the contract that every one keeps, and the dict of those there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

LATER = "later"
"""What a network is built from whose weights a checkpoint brings: like a file, but nothing is read. With `none` other
parts of the network would be trained."""


class Segmenter(Protocol):
    """What training and prediction ask of a network; images are `(N, 3, H, W)` RGB 0..255, sizes multiples of 32."""

    def losses(self, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return scalar losses by name, and `box_accuracy` (a share, detached); zero for a part that it has not.

        Each target has `boxes` `(N, 4)` `x1 y1 x2 y2`, `labels` `(N,)` 1..C, and masks as `maskwright.crops` packs
        them (`masks`, `windows`), or whole: `masks` `(N, H, W)` uint8 0/1.
        """
        ...

    def detect(
        self, images: Tensor, shapes: Sequence[tuple[int, int]], least_score: float = ..., **more: Any
    ) -> list[dict[str, Tensor]]:
        """Return per photo `boxes`, `labels`, `scores` and `masks` `(N, S, S)` over `windows` `(N, 4)`, best first.

        `shapes` gives the `(height, width)` of each photo inside its padded frame. A network with `conventions` of its
        own takes photos that its `normalise` has seen too, with `normalised=True`. `between` is called with what is
        found in all photos before it gets masks, and returns what shall have them.
        """
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters."""
        ...


def _nano(sizes: Mapping[str, Any], weights: str) -> nn.Module:
    from maskwright.models.maskrcnn import nano

    network = nano(sizes, weights)
    if weights not in ("none", "imagenet", LATER):
        from maskwright.models.start import nano_from

        nano_from(network, weights)
    return network


def _stock(heads: str) -> Callable[[Mapping[str, Any], str], nn.Module]:
    def build(sizes: Mapping[str, Any], weights: str) -> nn.Module:
        from maskwright.models.start import stock

        return stock(sizes, heads, weights)

    return build


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any], str], nn.Module]] = {
    "maskrcnn-nano": _nano,
    "maskrcnn-r50-fpn": _stock("v1"),
    "maskrcnn-r50-fpn-v2": _stock("v2"),
}
"""Every network by name: a builder that takes its sizes (JSON) and what it starts from (`none`, `imagenet`, `coco`, a
file, or `LATER`)."""
