"""One update of the weights: from a batch to the losses of the whole batch, whatever parts it is taken in.

Where memory is short, the batch is taken in smaller pieces. Each is then seen twice: first without gradients, to add up
what the losses are means of (see `maskwright.models.whole`), then with them. So the update is that of the whole batch,
and takes about a third longer. The pieces of a network that does not state these sums are seen once; its update is the
mean of theirs, weighed by their photos.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from maskwright.batches import Batch
from maskwright.errors import UserError
from maskwright.models.whole import Part, part
from maskwright.settings import TrainSettings

MOST_OVERFLOWS = 16
"""So many steps in a row may be left out in 16 bits: the scaler's 65,536, halved so often, is one."""

LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask", "semantic")
"""The losses that are summed, in the order in which they are logged."""

NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""How the messages of a CPU that has no memory left are told from others."""


class NotFiniteError(Exception):
    """A loss or the gradient is not a finite number; the weights are as they were.

    Args:
        bad: Names of the losses that are not; `gradient` if they all are.
        photos: Per photo of the whole batch that is to blame: its position in the dataset, the names of its losses that
            are not finite, and the positions of its objects.
    """

    def __init__(self, bad: Sequence[str], photos: Sequence[tuple[int, tuple[str, ...], tuple[int, ...]]]) -> None:
        super().__init__(f"not finite: {', '.join(bad)}")
        self.bad, self.photos = tuple(bad), tuple(photos)


class _ElsewhereError(RuntimeError):
    """Another process has no memory left."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is not enough, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | _ElsewhereError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in NO_MEMORY)


@dataclass(frozen=True)
class Taken:
    """What an update was.

    Attributes:
        losses: By name, of the whole batch, with what else the network tells.
        grad_norm: Norm of the gradient before it was clipped; not finite if the scaler of 16 bits left the step out.
    """

    losses: dict[str, float]
    grad_norm: float

    @property
    def total(self) -> float:
        """The sum of the losses."""
        return sum(self.losses[name] for name in LOSSES)


class Stepper:
    """Takes steps.

    Args:
        fabric: Devices and precision.
        model: The network as Fabric set it up.
        optimiser: The same; groups have a `share` of the learning rate.
        settings: Of the plan.
        tell: Called when the pieces get smaller.
        micro_batch: How many photos a process takes at once.

    Attributes:
        overflows: Steps, of the last ones in a row, that the scaler of 16 bits has left out.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Any,
        optimiser: Any,
        settings: TrainSettings,
        tell: Callable[[str], None],
        micro_batch: int,
    ) -> None:
        self.fabric, self.model, self.optimiser, self.settings = fabric, model, optimiser, settings
        self.tell, self.micro_batch = tell, micro_batch
        self.overflows = 0
        self.network: Any = model.module
        while hasattr(self.network, "module"):  # Fabric's wrapper, and that of several processes
            self.network = self.network.module
        self.states_sums = bool(getattr(self.network, "states_sums", False))
        # Shares may differ by one photo, after a restart with fewer processes; pieces must be as many in each.
        batch_size, world = cast(int, settings.batch_size), fabric.world_size
        self.largest, self.smallest = math.ceil(batch_size / world), max(batch_size // world, 1)

    def take(self, batch: Batch, step: int, rate: float) -> Taken:
        """Update the weights once.

        Args:
            batch: This process's share.
            step: From 0; seeds what a network draws beside `whole.permutation`.
            rate: Learning rate.

        Raises:
            NotFiniteError: In every process at once; nothing is updated.
            UserError: If memory is not enough for a single photo.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        while True:
            short: BaseException | None = None
            try:
                losses = self._gradient(batch, step)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                short = error
            if short is None:
                break
            self._smaller(short, step)
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimiser,
            max_norm=cast(float, self.settings.clip_norm),
            error_if_nonfinite=False,
        )
        size = float(norm) if norm is not None else 0.0
        scaled, finite = self.settings.precision == "16", math.isfinite(size)
        if scaled or finite:
            self.optimiser.step()  # in 16 bits the scaler leaves it out if the gradient is not finite, and is halved
        self.overflows = 0 if finite else self.overflows + 1
        if self.overflows > (MOST_OVERFLOWS if scaled else 0):
            self.overflows = 0
            raise NotFiniteError(("gradient",), self._culprits(batch))
        return Taken({name: float(value) for name, value in losses.items()}, size)

    def _gradient(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Put the gradient of the whole batch into the parameters and return its losses."""
        self.optimiser.zero_grad(set_to_none=True)
        # Seeded by step, so that a resumed training draws what the undisturbed one would have drawn.
        torch.manual_seed((cast(int, self.settings.seed) * 1_000_003 + step * 64 + self.fabric.global_rank) % 2**64)
        pieces = list(pieces_of(batch, min(math.ceil(self.largest / self.micro_batch), self.smallest)))
        known = self._known(pieces) if len(pieces) > 1 and self.states_sums else None
        several = self.fabric.world_size > 1
        photos = cast(int, self.settings.batch_size) if several else len(batch.photos)
        joined = False
        summed: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            with self._alone(not last):
                losses, joined = self._losses(piece, known, whole=len(pieces) == 1)
                total = torch.stack([losses[name] for name in LOSSES]).sum()
                # Totals are the same in every process and every piece, each with its own part of the gradient: these
                # are added up, where processes take the mean. Other losses are means: each counts by its photos.
                share = 1.0 if joined else len(piece.photos) / photos
                finite = bool(torch.isfinite(total))
                if not (finite if joined or not several else self._agree(finite)):
                    bad = [name for name in LOSSES if not torch.isfinite(losses[name])]
                    if several:
                        self._backward(total)  # or the processes would wait for it in the next step
                    raise NotFiniteError(bad or ("another process's",), self._culprits(batch))
                self._backward(total * share * self.fabric.world_size)
            for name, value in losses.items():
                summed[name] = value.detach() if joined else summed.get(name, 0.0) + value.detach() * share
        if several and not joined:
            every = self._add_up(torch.stack([value.float() for value in summed.values()]))
            return dict(zip(summed, every.unbind(), strict=True))
        return summed

    def _alone(self, alone: bool) -> Any:
        """Return a context in which processes do not exchange gradients, if so wanted."""
        if not alone or self.fabric.world_size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self.model)

    def _backward(self, total: Tensor) -> None:
        try:
            self.fabric.backward(total)
        except RuntimeError as error:
            if self.fabric.world_size == 1 or not out_of_memory(error):
                raise
            # The others wait for this process's gradients, which it cannot give.
            raise UserError(
                "a process ran out of memory in the middle of a step that others share",
                [str(error).splitlines()[0]],
                f"go on with smaller pieces: --resume --micro-batch {max(self.micro_batch // 2, 1)}",
            ) from None

    def _known(self, pieces: Sequence[Batch]) -> Tensor:
        """Add up what the losses are means of, over all pieces, of a network that states it."""
        sums: list[Tensor] = []
        with torch.no_grad():
            for piece in pieces:
                one = Part(piece.seeds)
                with self.fabric.autocast(), self._in_concert(), part(one):
                    self.model.losses(*self._there(piece))
                sums.append(cast(Tensor, one.sums))
        return self._add_up(torch.stack(sums).sum(0))

    def _losses(self, piece: Batch, known: Tensor | None, whole: bool) -> tuple[dict[str, Tensor], bool]:
        """Return the losses of a piece, and whether they are those of the whole batch.

        Args:
            piece: Of this process's share.
            known: Sums over the whole batch, if the share is in pieces.
            whole: Whether the piece is all of the share.
        """
        asks = self.fabric.world_size > 1 and whole
        one = Part(piece.seeds, self._agreed_sum if asks else None, known)
        inputs = self._there(piece)
        # Fabric's wrapper turns autocast on for several processes, and not for one.
        with self.fabric.autocast(), self._in_concert(lambda: one.sums is not None and asks), part(one):
            losses: dict[str, Tensor] = self.model.losses(*inputs)
        return losses, one.sums is not None and (asks or known is not None)

    def _there(self, piece: Batch) -> tuple[Tensor, Any]:
        images = self.fabric.to_device(piece.images).contiguous(memory_format=torch.channels_last)
        return images, self.fabric.to_device(piece.targets)

    def _in_concert(self, agreed: Callable[[], bool] = lambda: False) -> _InConcert | nullcontext[None]:
        return _InConcert(self._agree, agreed) if self.fabric.world_size > 1 else nullcontext()

    def _agree(self, fine: bool) -> bool:
        """Tell whether all processes are fine; each must ask."""
        answer = cast(
            Tensor, self.fabric.all_reduce(torch.tensor(float(fine), device=self.fabric.device), reduce_op="sum")
        )
        return float(answer) > self.fabric.world_size - 0.5

    def _add_up(self, own: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return own
        summed = cast(Tensor, self.fabric.all_reduce(own.clone(), reduce_op="sum"))
        return summed

    def _agreed_sum(self, own: Tensor) -> Tensor:
        if not self._agree(True):
            raise _ElsewhereError("another process has no memory left")
        return self._add_up(own)

    def _smaller(self, error: BaseException, step: int) -> None:
        """Halve the pieces.

        Raises:
            UserError: If a piece is a single photo already.
        """
        size = min(self.micro_batch, self.largest)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if size <= 1:
            raise UserError(
                "memory is not enough for a single photo",
                [f"step {step + 1}: {first}"],
                "give a smaller --side, or close other programs",
            )
        self.micro_batch = math.ceil(size / 2)
        error.__traceback__ = None  # it holds the network's activations
        self.optimiser.zero_grad(set_to_none=True)
        gc.collect()
        if self.fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        is_now = "is still that of the whole batch" if self.states_sums else "is now the mean of its pieces"
        self.tell(
            f"out of memory at step {step + 1} ({first}): from now on photos are taken {self.micro_batch} at a time"
            f" where it was {size}; a step {is_now}, and takes longer"
        )

    @torch.no_grad()
    def _culprits(self, batch: Batch) -> list[tuple[int, tuple[str, ...], tuple[int, ...]]]:
        """Return the photos of all processes whose own losses are not finite; all photos if none is."""
        self.optimiser.zero_grad(set_to_none=True)
        found = []
        for piece in pieces_of(batch, len(batch.photos)):
            with part(Part(piece.seeds)), self.fabric.autocast():
                losses = self.network.losses(*self._there(piece))
            bad = tuple(name for name in LOSSES if not torch.isfinite(losses[name]))
            found.append((piece.photos[0], bad, piece.objects[0]))
        if self.fabric.world_size > 1:
            every: list[Any] = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(every, found)
            found = [one for some in every for one in some]
        return [one for one in found if one[1]] or found


class _InConcert:
    """Lets the other processes know, after a forward pass or its failure, whether memory was enough for it.

    Args:
        agree: Asks all processes.
        agreed: Tells whether they have been asked in the block.
    """

    def __init__(self, agree: Callable[[bool], bool], agreed: Callable[[], bool]) -> None:
        self.agree, self.agreed = agree, agreed

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _ElsewhereError) or self.agreed():
            return
        if error is not None:
            if out_of_memory(error):
                self.agree(False)
            return
        if not self.agree(True):
            raise _ElsewhereError("another process has no memory left")


def pieces_of(batch: Batch, number: int) -> Iterator[Batch]:
    """Yield a batch in so many pieces, of nearly as many photos each."""
    if number <= 1:
        yield batch
        return
    count = len(batch.photos)
    for i in range(number):
        start, end = i * count // number, (i + 1) * count // number
        yield Batch(
            images=batch.images[start:end],
            targets=batch.targets[start:end],
            photos=batch.photos[start:end],
            objects=batch.objects[start:end],
            seeds=batch.seeds[start:end],
        )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block: a step is taken whole or not at all, so that it can be gone on from."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    came: list[Any] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came and callable(usual):
            usual(*came[0])
