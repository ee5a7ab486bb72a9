"""A minute before a training: is there something to learn, does the network learn it, in which time and memory.

What is tested, and what a pass proves:

- *Usable objects.* Objects that keep fewer pixels than the loader asks for at the working size teach nothing; they are
  counted for the whole split, and a split in which none is left is refused. The count follows from areas; that a thin
  object survives scaling is seen only on the photos that are looked at.
- *The loader.* What the network is given is drawn back to the photo's size and compared with the photo and the masks as
  the files have them. A pass proves that reading, scaling and placing keep photo and masks together on the photos
  looked at, without augmentation. It says nothing about whether the masks in the files are right.
- *The picture.* On each photo, a linear map from the pretrained backbone's finest features to the masks is fitted in
  closed form: once to the masks as they are, and once to each mirrored, turned or shifted copy. Masks that follow the
  picture fit better than copies that do not. A copy that fits clearly better on the mean of the photos is refused: the
  masks are turned against their photos, in the files. A tenth of photos that are wrong, a shift of a few pixels, and
  objects that look alike when they are turned stay unseen.
- *The loss.* A fresh network learns two photos for a few steps at the planned rate. A pass proves that gradients reach
  every part that began high and that the rate is not far off; not that any accuracy will be reached.
- *The way back.* The objects found by that network, at the photo's size, are compared with the masks in the file. A
  network can learn mirrored masks, so this proves nothing about the files: it proves that training and prediction mean
  the same place by the same numbers.

The forecast is what those steps took and needed, extended to the planned training: to all pieces of a step, where it is
taken in several. Several devices that wait for each other, or share cores, take longer. Nothing of the network is kept.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from maskwright import pixels
from maskwright.batches import (
    NO_AUGMENTATION,
    Augmentation,
    Batch,
    Photos,
    Sample,
    collate,
    kept_shape,
    prefetch,
    sides_of,
)
from maskwright.dataset import Dataset
from maskwright.detections import detect_photos
from maskwright.devices import memory_limit_mb
from maskwright.errors import UserError
from maskwright.files import read_photo
from maskwright.log import clock, memory_mb
from maskwright.models import Segmenter
from maskwright.models.whole import Part, part
from maskwright.plan import Machine, Plan, base_rate
from maskwright.run import Run
from maskwright.step import out_of_memory
from maskwright.turns import AS_GIVEN, TURNS, drawn_back, is_thick, photo_turn, picture_fit
from maskwright.usable import Usable, chosen_photos, part_of, usable

Optimiser = Callable[[nn.Module], torch.optim.Optimizer]
Learned = tuple[int, dict[str, float], dict[str, float], float]

LEAST_PHOTOS = 3
"""With fewer, a turned copy may fit better by chance; it is told and not refused."""

STEPS = 24
"""Steps on two photos: by then a network with pretrained weights finds their objects at an IoU of about 0.9."""

LEAST_STEPS = 8
"""With fewer, which is all that a slow machine may manage, the loss is not judged."""

PART_STEPS = 16
"""With fewer, only the sum of the losses is judged: its parts may begin to fall one after the other."""

LOOKED_AT = 12
"""Photos, evenly spaced over those with objects, that the loader and the picture are tested on."""

MARGIN = 0.1
"""By how much a mirrored, turned or shifted copy of the masks must fit better, before the masks are called wrong."""

LARGE_PX = 1024
"""Objects of so many pixels at the working size are compared one by one; smaller or thin ones are mostly edge."""

LEAST_IOU = 0.8
"""Of a large, thick object after its way to the working size and back; real ones come back at 0.95 and more."""


@dataclass(frozen=True)
class Preflight:
    """What the pre-flight measured; `None` where there was not enough to measure.

    Attributes:
        usable: See `Usable`.
        photos: The photos that were learned: two, or one where a device takes one at a time.
        steps: Steps on them.
        first, last: Losses by name, and their `total`: before the first step, and mean of the last three.
        loader_iou: Least IoU of a large object after its way through the loader and back to the photo's size.
        loader_photos: Photos that this was measured on.
        picture_fit: Share of the masks' variance that a linear map of the picture's features explains, mean of the
            photos, for the masks as they are and for turned and shifted copies.
        found_iou: Mean IoU of the objects of these photos with what the network found, for the masks as they are and
            for turned copies.
        step_s: Seconds per step, batch made meanwhile; of all its pieces, where `micro_batch` makes several.
        start_s: Seconds forecast for reading photos before the first step.
        micro_batch: Photos that a device takes at once: as planned, or fewer where memory was short.
        validation_s: Seconds forecast for one validation: reading its photos and detecting in them. Scoring what is
            found is left out; it takes a small part of that.
        training_s: Seconds forecast for the training, or what it was given.
        training_steps: Steps, forecast where the training was given minutes.
        memory_mb: Peak memory forecast: of one GPU, or of all processes on a CPU.
        memory_limit_mb: What there is.
        took_s: Seconds that the pre-flight took.
    """

    usable: Usable
    photos: tuple[str, ...]
    steps: int
    first: dict[str, float]
    last: dict[str, float]
    loader_iou: float | None
    loader_photos: int
    picture_fit: dict[str, float] | None
    found_iou: dict[str, float] | None
    step_s: float
    start_s: float
    micro_batch: int
    validation_s: float
    training_s: float
    training_steps: int
    memory_mb: int
    memory_limit_mb: int
    took_s: float

    def json(self) -> dict[str, Any]:
        """Return what `preflight.json` holds."""
        return cast("dict[str, Any]", _rounded(asdict(self)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def preflight(
    run: Run,
    made: Plan,
    machine: Machine,
    truth: Dataset,
    validation_photos: int,
    optimiser: Optimiser,
    losses: Sequence[str],
    tell: Callable[[str], None],
) -> Preflight:
    """Test a training before it begins, within `made.preflight_s` seconds, and forecast it.

    Nothing is written, and all random states are as before when it is done, so the training is the same without it.

    Args:
        run: What is to be trained; its folder need not exist.
        made: The plan.
        machine: What training runs on.
        truth: The train split.
        validation_photos: How many photos a validation has.
        optimiser: Makes the training's optimiser for a network; groups have a `share` of the learning rate.
        losses: Names of the losses that are summed.
        tell: Called with each line of text.

    Raises:
        UserError: If nothing is left to learn, photos and masks do not lie on each other, the loss does not fall or is
            not finite, or memory is not enough for a single photo.
        KeyboardInterrupt: After Ctrl-C, at once; there is nothing to save.
    """
    with _random_states_kept(machine, cast(int, made.settings.seed)):
        try:
            return _Preflight(run, made, machine, truth, validation_photos, losses, tell).go(optimiser)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                "memory is not enough for a single photo",
                [f"the pre-flight on {machine.name}: {_first_line(error)}"],
                "give a smaller --side, or close other programs",
            ) from None
        finally:
            _free(machine)


def _free(machine: Machine) -> None:
    """Give back what nobody holds any more, and let the GPU's peak begin anew."""
    gc.collect()
    if machine.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _random_states_kept(machine: Machine, seed: int) -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if machine.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Preflight:
    """One pre-flight; `go` is its course."""

    def __init__(
        self,
        run: Run,
        made: Plan,
        machine: Machine,
        truth: Dataset,
        validation_photos: int,
        losses: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self.began = time.perf_counter()
        self.run, self.plan, self.machine, self.truth, self.names = run, made, machine, truth, tuple(losses)
        self.validation_photos = validation_photos
        self.settings = made.settings
        self.tell: Callable[[str], None] = lambda text: tell(f"pre-flight: {text}")
        self.warn = tell
        self.device = torch.device(machine.device)

    def left_s(self) -> float:
        return self.plan.preflight_s - (time.perf_counter() - self.began)

    def go(self, optimiser: Optimiser) -> Preflight:
        counts = usable(self.truth, self.plan, self.warn)
        # All that is looked at is one small dataset, whose photos are decoded once.
        self.small = part_of(self.truth, chosen_photos(self.truth, self.plan.canvas, LOOKED_AT))
        sides = sides_of(self.settings)
        photos = Photos(self.small, self.plan.canvas, NO_AUGMENTATION, 0, self.plan.cache_mb, sides)
        started = time.perf_counter()
        photos.fill_cache(cast(int, self.settings.workers))
        read_s = (time.perf_counter() - started) / len(photos)
        samples = [photos.sample(i, 0, i) for i in range(len(photos))]
        if not any(len(s.objects) for s in samples):
            raise UserError(
                "no object of the photos looked at is left when they are scaled to the network's working size",
                [str(self.small.photo_path(image)) for image in self.small.images],
                "give a larger --side; thin objects need more pixels than others of their area",
            )
        self.tell(
            f"{counts.objects - counts.lost:,} of {counts.objects:,} objects, in {counts.photos:,} photos, are large"
            f" enough to be learned at side {max(self.plan.canvas)}"
        )
        iou, looked = self.loader(samples)
        network = self.run.build(cast(str, self.settings.weights)).to(self.device)
        fit = self.picture(network, samples)
        two, (steps, first, last, times) = self.learn_what_fits(network, optimiser, samples, photos)
        found, detect_s = self.way_back(network, two, steps)
        result = Preflight(
            usable=counts,
            photos=tuple(self.small.images[s.photo].file_name for s in two),
            steps=steps,
            first=first,
            last=last,
            loader_iou=iou,
            loader_photos=looked,
            picture_fit=fit,
            found_iou=found,
            step_s=times,
            start_s=read_s * min(len(self.truth.images), photos.room),
            micro_batch=cast(int, self.settings.micro_batch),
            validation_s=detect_s * self.validation_photos,
            training_s=0.0,
            training_steps=0,
            memory_mb=self.memory(photos),
            memory_limit_mb=memory_limit_mb(self.machine),
            took_s=0.0,
        )
        result = replace(result, **self.forecast(result))
        self.tell_forecast(result)
        result = replace(result, took_s=time.perf_counter() - self.began)
        beside = ", beside the minutes of the training" if self.settings.minutes else ""
        self.tell(f"passed in {result.took_s:.0f} s{beside}")
        return result

    def pieces(self) -> tuple[int, int]:
        """Return in how many pieces a device takes its share of a step, and how many photos the largest has."""
        share = cast(int, self.settings.batch_size) // cast(int, self.settings.devices)
        number = math.ceil(share / (self.settings.micro_batch or share))
        return number, math.ceil(share / number)

    def inner(self, sample: Sample) -> tuple[int, int]:
        """Return `(height, width)` of the part of a sample that its photo is in: all, or the upper left corner."""
        sides = sides_of(self.settings)
        if sides is None:
            return int(sample.image.shape[1]), int(sample.image.shape[2])
        return kept_shape(self.small.images[sample.photo].size, sides)

    def loader(self, samples: Sequence[Sample]) -> tuple[float | None, int]:
        """Compare what the network is given with the files, at the photos' own size.

        Returns:
            The least IoU of a large object (`None` if there is none), and how many photos were looked at.

        Raises:
            UserError: If a photo or a large object does not come back where it was.
        """
        least: float | None = None
        looked = 0
        wrong: list[str] = []
        for count, sample in enumerate(samples):
            if count and self.left_s() < 0.7 * self.plan.preflight_s:
                break  # large photos take their time to read
            looked = count + 1
            image = self.small.images[sample.photo]
            path = self.small.photo_path(image)
            plain = read_photo(path)
            height, width = self.inner(sample)
            back = drawn_back(sample.image.numpy().transpose(1, 2, 0)[:height, :width], image.size)
            turn = photo_turn(back, plain)
            if turn != AS_GIVEN:
                wrong.append(f"{path}: the network sees it {turn}")
            for mask, k in zip(sample.masks.numpy(), sample.objects, strict=True):
                if mask.sum() < LARGE_PX or not is_thick(mask):
                    continue
                back = drawn_back(mask[:height, :width] * np.uint8(255), image.size)
                seen, true = back >= 128, self.small.mask(k)
                iou = float((seen & true).sum() / max((seen | true).sum(), 1))
                least = iou if least is None else min(least, iou)
                if iou < LEAST_IOU:
                    wrong.append(f"{path}: annotation {int(self.small.ids[k])} comes back at IoU {iou:.2f}")
        if wrong:
            raise UserError(
                "photos and masks do not reach the network as the files have them",
                wrong,
                "prepare the data again; if that does not help, it is a bug of Maskwright's: please report it",
            )
        text = (
            "no object is large and thick enough to compare"
            if least is None
            else f"IoU of large objects at least {least:.2f}"
        )
        self.tell(f"the network sees photos and masks where the files have them ({looked} photos, {text})")
        return least, looked

    def picture(self, network: nn.Module, samples: Sequence[Sample]) -> dict[str, float] | None:
        """Compare how well the masks, and turned and shifted copies of them, fit what is seen in the photos.

        Raises:
            UserError: If a copy fits clearly better.
        """
        # Of a stock network, `backbone` has a pyramid that is random yet.
        look = getattr(network, "edges", None) or getattr(network, "backbone", None)
        if look is None:
            self.tell("whether the masks follow the pictures was not tested: the network does not show what it sees")
            return None
        network.eval()
        fits: list[dict[str, float]] = []
        for count, sample in enumerate(s for s in samples if len(s.objects)):
            if count >= LEAST_PHOTOS and self.left_s() < 0.5 * self.plan.preflight_s:
                break  # large networks take their time
            fit = picture_fit(look, sample.image.to(self.device), sample.masks, self.inner(sample))
            if fit is not None:
                fits.append(fit)
        if not fits:
            self.tell(
                "whether the masks follow the pictures cannot be told: the photos are too small, or objects fill them"
            )
            return None
        mean = {name: statistics.fmean(fit[name] for fit in fits) for name in fits[0]}
        own = mean[AS_GIVEN]
        best = max((name for name in mean if name != AS_GIVEN), key=lambda name: mean[name])
        figures = f"the picture explains {own:.0%} of them as they are, {mean[best]:.0%} {best}"
        if len(fits) >= LEAST_PHOTOS and mean[best] > own + MARGIN:
            raise UserError(
                f"the masks fit their photos better {best}",
                [f"{self.small.folder}: {figures} ({len(fits)} photos)"],
                "look at photos and masks (EXIF orientation applied to one side only?) and prepare the data again,"
                " perhaps with --mask-frame stored; if they are right: --no-preflight",
            )
        if own > mean[best] + MARGIN or (best.startswith("shifted") and own > mean[best]):
            self.tell(f"masks follow the pictures: {figures} ({len(fits)} photos)")
        else:
            self.tell(f"whether the masks follow the pictures cannot be told: {figures} ({len(fits)} photos)")
        return mean

    def learn_what_fits(
        self, network: nn.Module, optimiser: Optimiser, samples: Sequence[Sample], photos: Photos
    ) -> tuple[list[Sample], Learned]:
        """Learn as many photos at once as memory is enough for, and plan so; return them and what `learn` does."""
        while True:
            size = self.pieces()[1]
            two = median_two(samples)[:size]
            try:
                return two, self.learn(network, optimiser(network), two, photos)
            except (RuntimeError, MemoryError) as error:
                if size <= 1 or not out_of_memory(error):
                    raise
                first = _first_line(error)
                error.__traceback__ = None  # it holds the network's activations
            less = math.ceil(size / 2)
            self.plan = self.plan.in_pieces(less, "memory was not enough for more in the pre-flight")
            self.settings = self.plan.settings
            self.tell(
                f"out of memory ({first}): photos are taken {less} at a time where it was {size}, in the training too,"
                " whose steps take longer"
            )
            network.zero_grad(set_to_none=True)
            # It may have learned.
            network.load_state_dict(self.run.build(cast(str, self.settings.weights)).state_dict())
            _free(self.machine)

    def learn(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, two: Sequence[Sample], photos: Photos
    ) -> Learned:
        """Learn two photos as training would, but for the augmentation, and judge how the losses fall.

        Meanwhile the batches of a training are made and thrown away, so that the steps take what they will take. Where
        a step is taken in pieces, one of them is learned, and what it takes is multiplied.

        Returns:
            Steps, first and last losses, seconds per step.
        """
        settings = self.settings
        pieces, size = self.pieces()
        batch = collate([two[i % len(two)] for i in range(size)])
        images = batch.images.to(self.device).contiguous(memory_format=torch.channels_last)
        targets = [{k: v.to(self.device) for k, v in target.items()} for target in batch.targets]
        scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "16")
        seen: list[dict[str, float]] = []
        times: list[float] = []
        network.train()
        model = cast(Segmenter, network)
        others = prefetch(self._as_in_training(photos, size), 0)
        try:
            while len(seen) < STEPS and (not seen or self.left_s() > self._next_s(times)):
                started = time.perf_counter()
                next(others)
                for group in optimiser.param_groups:
                    group["lr"] = settings.learning_rate * group["share"] * min(1.0, (len(seen) + 1) / 5)
                with self._autocast():
                    found = model.losses(images, targets)
                    total = torch.stack([found[name] for name in self.names]).sum()
                values = {name: float(found[name].detach()) for name in self.names}
                seen.append(values | {"total": sum(values.values())})
                if not math.isfinite(seen[-1]["total"]):
                    self._refuse_infinite(two, seen)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(total))
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(network.parameters(), cast(float, settings.clip_norm))
                scaler.step(optimiser)
                scaler.update()
                times.append(time.perf_counter() - started)
        finally:
            others.close()
        first, last = seen[0], _mean(seen[-3:])
        self._judge(two, len(seen), first, last)
        step_s = pieces * statistics.median(times[len(times) // 2 :])
        if pieces > 1 and getattr(network, "states_sums", False):
            step_s += self._added_up_s(model, images, targets, batch.seeds, pieces)
        return len(seen), first, last, step_s

    def _autocast(self) -> torch.autocast:
        kind = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[self.settings.precision or "32"]
        return torch.autocast(self.device.type, kind or torch.float32, enabled=kind is not None)

    def _added_up_s(
        self,
        model: Segmenter,
        images: torch.Tensor,
        targets: Sequence[dict[str, torch.Tensor]],
        seeds: Sequence[int],
        pieces: int,
    ) -> float:
        """Return the seconds for which a step sees its pieces without gradients, to add up what losses are means of."""
        started = time.perf_counter()
        with torch.no_grad(), self._autocast(), part(Part(seeds)):
            found = model.losses(images, targets)
        float(found[self.names[0]])  # a GPU is done when a number is here
        return (time.perf_counter() - started) * pieces

    def _as_in_training(self, photos: Photos, size: int) -> Callable[[int], Batch]:
        settings = self.settings
        real = Photos(
            self.small,
            self.plan.canvas,
            Augmentation.of(settings),
            cast(int, settings.seed),
            self.plan.cache_mb,
            sides_of(settings),
        )
        if len(self.truth.images) <= real.room:  # else photos are decoded anew in training too
            real.cache = photos.cache
        return lambda step: collate([real.sample((step * size + i) % len(real), step, i) for i in range(size)])

    def _next_s(self, times: Sequence[float]) -> float:
        """Return the seconds to keep for a step, and for detection: two photos cost up to four steps.

        The first step takes about twice as long as the others.
        """
        known = times[1:] or [times[0] / 2]
        return 1.5 * statistics.median(known) + min(4.0 * min(known), 15.0)

    def _named(self, two: Sequence[Sample]) -> str:
        return ", ".join(str(self.small.photo_path(self.small.images[s.photo])) for s in two)

    def _refuse_infinite(self, two: Sequence[Sample], seen: Sequence[dict[str, float]]) -> None:
        bad = [name for name in self.names if not math.isfinite(seen[-1][name])]
        raise UserError(
            f"a loss is not finite at step {len(seen)} of the pre-flight: the training would fail",
            [f"{self._named(two)}: {', '.join(f'{name} is {seen[-1][name]}' for name in bad)}"],
            "look at these photos and masks; if they are sound, use a lower rate:"
            f" --learning-rate {cast(float, self.settings.learning_rate) / 3:.1g}",
        )

    def _judge(self, two: Sequence[Sample], steps: int, first: dict[str, float], last: dict[str, float]) -> None:
        # Parts that begin near zero, as the boxes' do while no proposal is near an object, must rise before they fall.
        parts = [name for name in self.names if first[name] >= 0.05 * first["total"]]
        moved = ", ".join(f"{name} {first[name]:.2f} -> {last[name]:.2f}" for name in parts)
        learned = "two photos" if len(two) == 2 else "one photo"
        text = f"loss {first['total']:.2f} -> {last['total']:.2f} in {steps} steps on {learned} ({moved})"
        if steps < LEAST_STEPS:
            self.tell(f"{text}: too few steps fit into {self.plan.preflight_s:.0f} s to judge")
            return
        stuck = [name for name in parts if steps >= PART_STEPS and last[name] >= first[name]]
        if last["total"] > 0.9 * first["total"] or stuck:
            rate = cast(float, self.settings.learning_rate)
            settings = self.settings
            rule = base_rate(settings.architecture or "", settings.optimiser or "", cast(int, settings.batch_size))
            if 0.5 * rule < rate < 2 * rule:
                advice = f"use a lower rate: --learning-rate {rate / 3:.1g}"
            else:
                high = "high" if rate > rule else "low"
                advice = f"the learning rate {rate:.2g} may be too {high}: leave it out (the rule gives {rule:.2g})"
            where = [f"{self._named(two)}: {text}"]
            if stuck:
                where.append(f"these do not fall at all: {', '.join(stuck)}")
            raise UserError(
                f"the loss does not fall on {learned}: the training would not learn",
                where,
                f"{advice}; look at these photos and masks; to train all the same: --no-preflight",
            )
        self.tell(f"the loss falls: {text}")

    def way_back(self, network: nn.Module, two: Sequence[Sample], steps: int) -> tuple[dict[str, float] | None, float]:
        """Compare what the network now finds in the photos that it learned with the files' masks.

        Returns:
            Mean IoU by turn (`None` without an object), and the seconds of reading a photo and detecting in it.

        Raises:
            UserError: If what is found lies on a turned copy of the masks.
        """
        network.eval()
        overlaps: dict[str, list[float]] = {}
        times = []
        for sample in two:
            image = self.small.images[sample.photo]
            started = time.perf_counter()
            found = detect_photos(
                cast(Segmenter, network),
                [(image, self.small.photo_path(image))],
                cast(int, self.settings.side),
                self.truth.categories,
                short_side=self.settings.short_side,
            )
            times.append(time.perf_counter() - started)
            rles = [found.rle(k) for k in range(len(found))]
            for k in sample.objects[:20]:
                mask = self.small.mask(k)
                for name, turn in TURNS.items():
                    turned = np.ascontiguousarray(turn(mask))
                    if turned.shape != mask.shape:
                        continue
                    best = 0.0
                    if rles:
                        best = float(pixels.iou([pixels.encode(turned)], rles, image.size).max())
                    overlaps.setdefault(name, []).append(best)
        if not overlaps:
            return None, statistics.fmean(times)
        mean = {name: statistics.fmean(values) for name, values in overlaps.items()}
        own = mean[AS_GIVEN]
        best_name = max((name for name in mean if name != AS_GIVEN), key=lambda name: mean[name])
        figures = f"IoU {own:.2f} with the masks as they are, {mean[best_name]:.2f} {best_name}"
        if steps >= LEAST_STEPS and mean[best_name] > max(0.3, own + MARGIN):
            raise UserError(
                f"what the network finds lies on the masks {best_name}",
                [f"{self._named(two)}: {figures}"],
                "look at these photos and masks; if they belong together, it is a bug of Maskwright's: report it",
            )
        if own < max(0.3, mean[best_name]):
            self.tell(f"whether found masks lie on the true ones cannot be told after {steps} steps: {figures}")
        else:
            self.tell(f"found masks lie on the true ones: {figures}")
        return mean, statistics.fmean(times)

    def memory(self, photos: Photos) -> int:
        """Forecast the peak memory of the training in MB."""
        if self.machine.device == "cuda":
            return int(torch.cuda.max_memory_allocated() // 2**20)
        held = sum(cached.image.width * cached.image.height * 3 for cached in photos.cache.values())
        each = held / max(len(photos.cache), 1)
        more = each * max(min(len(self.truth.images), photos.room) - len(photos.cache), 0) / 2**20
        return round((memory_mb() + more) * cast(int, self.settings.devices))

    def forecast(self, result: Preflight) -> dict[str, Any]:
        """Return the time and steps of the planned training."""
        count = cast(int, self.settings.validations) if self.validation_photos else 0
        fixed = result.start_s + count * result.validation_s
        if self.plan.steps is not None:
            return {"training_s": fixed + self.plan.steps * result.step_s, "training_steps": self.plan.steps}
        seconds = cast(float, self.settings.minutes) * 60
        return {"training_s": seconds, "training_steps": max(1, int((seconds - fixed) / result.step_s))}

    def tell_forecast(self, result: Preflight) -> None:
        passes = result.training_steps / self.plan.steps_per_epoch
        time_s = f"{result.training_steps:,} steps of {result.step_s:.2f} s in {clock(result.training_s)}"
        memory = f"{result.memory_mb:,} of {result.memory_limit_mb:,} MB of memory"
        self.tell(
            f"forecast: {time_s}, {passes:.1f} passes over the photos, a validation in {clock(result.validation_s)},"
            f" {memory}"
        )
        if result.memory_mb > 0.95 * result.memory_limit_mb:
            self.warn(f"warning: the training may not fit into memory ({memory}): a smaller --batch-size or --side")
        if self.settings.minutes and passes < 1:
            self.warn(
                f"warning: {self.settings.minutes:g} minutes are enough for {passes:.0%} of the photos: more --minutes,"
                " or a smaller --side"
            )


def _mean(seen: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(values[name] for values in seen) for name in seen[0]}


def median_two(samples: Sequence[Sample]) -> list[Sample]:
    """Return the two samples whose number of objects is nearest the median; the first ones if several are."""
    have = [s for s in samples if s.objects]
    middle = statistics.median(len(s.objects) for s in have)
    return sorted(have, key=lambda s: abs(len(s.objects) - middle))[:2]
