"""What the parts of a batch must have in common to be one batch.

A batch may be shared by several processes, or taken in several pieces where memory is short. The result must be that of
the whole batch, so a network asks here for two things:

- *Random choices* that belong to a photo (`permutation`), not to its place among those that this process happens to
  see.
- *Sums over the whole batch* (`totals`). A loss that is a mean over boxes is a sum over boxes by their number; both are
  added up over all parts before the one is divided by the other. A mean of the parts' means would weigh the boxes of a
  photo with few of them more.

A network that does so says it, by an attribute `states_sums` that is true. The losses of one that does not (a stock
network with norms that take the statistics of what they see, which no sum at the end can mend) are means of its parts'
losses, weighed by their photos.

Outside of a `part` both do what they would do without this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class Part:
    """A part of a batch, in the making of its losses.

    Args:
        seeds: One per photo of the part, of its random choices.
        add_up: Adds `(N,)` float32 over the processes; `None`: there are no others.
        known: The sums over the whole batch, where they are known already; they are then neither added up nor checked.

    Attributes:
        sums: `(N,)` float32, of this part alone; `None` as long as the network has not asked for totals.
    """

    def __init__(
        self, seeds: Sequence[int], add_up: Callable[[Tensor], Tensor] | None = None, known: Tensor | None = None
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.add_up, self.known = add_up, known
        self.sums: Tensor | None = None

    def totals(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `totals` of the module."""
        flat = torch.cat([value.reshape(-1).float() for value in sums.values()])
        self.sums = own = flat.detach()
        if self.known is not None:
            whole = self.known
        elif self.add_up is not None:
            whole = self.add_up(own)
        else:
            return sums
        # The value is that of the whole batch; the gradient is that of this part, which is all that it can know.
        pieces = torch.split(flat + (whole - own), [value.numel() for value in sums.values()])
        return {name: piece.reshape(value.shape) for (name, value), piece in zip(sums.items(), pieces, strict=True)}


_PART: ContextVar[Part | None] = ContextVar("maskwright_part", default=None)


@contextmanager
def part(one: Part) -> Iterator[Part]:
    """Make the losses that are computed in the block those of a part of a batch."""
    token = _PART.set(one)
    try:
        yield one
    finally:
        _PART.reset(token)


def permutation(count: int, photo: int, device: torch.device) -> Tensor:
    """Return a random permutation of `0..count-1`, `(count,)` int64, that is a matter of the photo alone.

    Args:
        count: How many.
        photo: The photo's place among those given to the network.
        device: Where the result shall be.
    """
    one = _PART.get()
    if one is None:
        return torch.randperm(count, device=device)
    return torch.randperm(count, generator=one.generators[photo]).to(device)


def totals(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return sums over the whole batch for sums over a part of it.

    To be called once for each batch, in every process with the same names and shapes.

    Args:
        sums: By name; tensors of any shape, the same for every part.
    """
    one = _PART.get()
    return sums if one is None else one.totals(sums)
