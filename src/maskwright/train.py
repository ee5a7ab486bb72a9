"""Dataset -> run: the training loop, and what it does when something goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from maskwright.average import Average
from maskwright.batches import Augmentation, Batch, Photos, make_batch, prefetch, sides_of
from maskwright.beginning import (
    bytes_of,
    fingerprint_of,
    gone_on,
    new_run,
    read_split,
    refuse_begun,
    refuse_gone,
    refuse_no_run,
    resumed_plan,
    started_again,
    where_it_began,
    write_beginning,
    write_going_on,
)
from maskwright.check import check, check_again
from maskwright.checkpoint import Progress, attempt, load_checkpoint, read_progress, save_checkpoint
from maskwright.dataset import Dataset, read_json
from maskwright.devices import asks_ray, make_fabric, place, ray_machine, refuse_processes, this_machine
from maskwright.diagnosis import Cause, Watch
from maskwright.errors import UserError
from maskwright.evaluate import Evaluation
from maskwright.files import refuse_input
from maskwright.log import Log, clock, memory_mb, progress_bar, unfailing
from maskwright.memory import LARGE, keep_freed_memory
from maskwright.models import LATER
from maskwright.optimisers import optimiser_for
from maskwright.plan import Machine, Plan, plan
from maskwright.preflight import preflight
from maskwright.processes import join, on_ray, start
from maskwright.run import BEST, LAST, RESUME, Run, without_tf32
from maskwright.schedule import rate
from maskwright.settings import TrainSettings
from maskwright.settings_file import stored
from maskwright.shards import parts_of
from maskwright.step import LOSSES, NotFiniteError, Stepper, Taken, uninterrupted
from maskwright.trackers import open_tracker, require
from maskwright.usable import part_of, usable
from maskwright.validation import Validated, scorable, validate

CHECKPOINT_EVERY_S = 60.0
"""Seconds between checkpoints; what is lost at most when the machine goes down."""

MOST_REWINDS = 2
"""So often a training is rewound after a loss that is not finite; the next one ends it."""

REWOUND_RATE = 0.5
"""What is left of the learning rate each time."""

NOT_REWOUND = ("elapsed_s", "rewinds", "rate_share", "skipped", "unreadable", "left_out", "told", "micro_batch")
"""What of the progress stays as it is then."""


def train(
    data: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    settings: str | Path | None = None,
    **typed: Any,
) -> Run | Plan:
    """Train a segmenter on a prepared data folder.

    Args:
        data: A folder that `prepare` wrote (or COCO files in the same layout); it must exist.
        out: The run folder to make.
        overwrite: Replace a run that exists.
        resume: Go on with a run that was interrupted, from its last checkpoint or else from its first step. Settings
            that are given must be those that it began with, but for those that say how it is done (`devices`, `on`,
            `micro_batch`, `workers`, `tracker`, `log_every`).
        dry_run: Make the plan, say it, and stop; with `on` Ray, that of its cluster.
        say: Called with each line of text.
        progress: Show a live progress bar on the terminal.
        settings: A JSON file of settings: a run's `plan.json`, or what `settings_from` wrote; must exist.
        **typed: Those of `TrainSettings`; they win over the file's.

    Returns:
        The run; the plan with `dry_run`.

    Raises:
        UserError: If the data cannot be trained on, the output exists or holds what is read, the pre-flight fails
            (nothing is written then), memory is not enough for a single photo, a loss is not finite for the third time,
            too many photos cannot be read, or the last weights cannot be written.
        KeyboardInterrupt: After Ctrl-C, when the run is saved and usable.
    """
    began = time.time()
    tell = say or _silent
    values, fitted = stored(settings, typed, TrainSettings)
    said = TrainSettings.parse(values).with_absolute_paths()
    require(said.tracker or "none")
    data, out = Path(data), Path(out)
    here = place()
    resume = resume or started_again(out, here, said.model_dump(exclude_none=True))
    if resume:
        refuse_no_run(out)
        said = where_it_began(out, said, here)
    asks = asks_ray(said.on, here)
    if asks and not dry_run:
        return on_ray(train, data, out, said, overwrite, resume, tell, here.job)
    if not here.first:
        tell = _silent  # torchrun and SLURM start this function in every process; one of them speaks and writes
    elif not resume:
        refuse_input(out, *parts_of(data), *said.files())
        if not dry_run:
            refuse_begun(out, overwrite=overwrite)
    if resume:
        refuse_gone(out, data)
    # What a training has left out may be gone when it goes on.
    left_out = read_progress(out).left_out if resume else {}
    facts = check_again(data, left_out) if left_out else check(data, say=None)
    for warning in facts.warnings:
        tell(f"warning: {warning}")
    machine = ray_machine(said.devices) if asks else this_machine()  # a dry run, whose plan is for the cluster
    fingerprint = fingerprint_of(data, left_out)
    made = resumed_plan(out, data, said, fingerprint, machine) if resume else plan(facts, said, machine, fitted)
    if not asks:
        refuse_processes(made, machine)
    tell(made.table())
    if dry_run:
        return made
    run = replace(gone_on(out, data) if resume else new_run(out, data, made, fingerprint), job=here.job)
    if here.first and not resume:
        # In the first process, before the others are started (torchrun's and SLURM's wait for it where they meet).
        tested = _preflight(data, run, made, machine, tell)
        if tested is not None:
            began += tested["took_s"]  # the minutes are the training's
            made = made.in_pieces(tested["micro_batch"], "memory was not enough for more in the pre-flight")
        write_beginning(run, made, facts.model_dump(mode="json"), tested)
    fabric, resized = make_fabric(made, machine), said.micro_batch is not None
    if fabric.world_size == 1 and made.settings.devices == 1:
        return _Training(fabric, run, made, tell, progress, resized).go(resume, began)
    part = partial(_part, began=began, resized=resized)
    if here.by:
        join(part, fabric, run, made, machine, resume, tell)
    else:
        start(part, fabric, run, made, resume, aloud=say is not None)
    return Run.read(out)


def _part(
    fabric: Fabric, run: Run, made: Plan, resume: bool, tell: Callable[[str], None], *, began: float, resized: bool
) -> None:
    """Do the part of one of several processes."""
    _Training(fabric, run, made, tell if fabric.is_global_zero else _silent, False, resized).go(resume, began)


def _settle(made: Plan) -> None:
    """Tell the C library and the GPU how this training wants to be computed."""
    if made.settings.precision == "32":
        without_tf32()
    if made.settings.architecture == "maskrcnn-nano":
        keep_freed_memory()
    else:
        keep_freed_memory(LARGE)


def _preflight(
    data: Path, run: Run, made: Plan, machine: Machine, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Test the training before anything is written; `None` if the plan has no pre-flight, or the user wants none."""
    if made.settings.preflight is False and made.reasons["preflight"].source == "user":
        return None
    truth = read_split(run, "train")
    if not made.settings.preflight:
        usable(truth, made, tell)  # costs nothing
        return None
    _settle(made)
    val = Dataset.read_split(data, "val")
    photos = len(val.images) if val is not None and len(val) else 0
    return preflight(run, made, machine, truth, photos, partial(optimiser_for, made.settings), LOSSES, tell).json()


def _silent(_text: str) -> None:
    """Say nothing."""


def _names(dataset: Dataset) -> list[str]:
    return [image.file_name for image in dataset.images]


@dataclass
class _Window:
    """Sums over the steps since the last log line."""

    count: int = 0
    values: dict[str, float] = field(default_factory=dict)
    time_s: float = 0.0
    data_time_s: float = 0.0

    def add(self, taken: Taken, time_s: float, data_time_s: float) -> None:
        for name, value in (taken.losses | {"grad_norm": taken.grad_norm}).items():
            self.values[name] = self.values.get(name, 0.0) + value
        self.count += 1
        self.time_s += time_s
        self.data_time_s += data_time_s


class _Training:
    """One process's part in a training.

    Args:
        resized: Whether the user has said now how many photos are taken at once.
    """

    def __init__(
        self, fabric: Fabric, run: Run, made: Plan, tell: Callable[[str], None], progress: bool, resized: bool
    ) -> None:
        self.fabric, self.run, self.plan, self.tell, self.bar = fabric, run, made, unfailing(tell), progress
        self.first = fabric.is_global_zero
        self.settings = made.settings
        self.planned, self.resized = cast(int, made.settings.micro_batch or made.settings.batch_size), resized
        self.seconds = made.settings.minutes * 60 if made.settings.minutes else None
        self.steps = made.steps
        self.at = Progress()
        self.stopped = False

    def go(self, resume: bool, began: float) -> Run:
        """Train to the end of the budget, which runs from `began` (of `time.time()`) on."""
        self.started = time.perf_counter() - max(time.time() - began, 0.0)
        _settle(self.plan)
        self._begin(resume)
        at, settings = self.at, self.settings
        saved_at, learning_rate = time.perf_counter(), 0.0
        window = _Window()
        batches = self._batches()
        try:
            with self.log, progress_bar(self.bar and self.first) as bar:
                if settings.repeat_rare and not resume:  # the plan has told it; the log has it too
                    why = self.plan.reasons["repeat_rare"].why.removeprefix("you said so; ")
                    self.log.write({"kind": "event", "step": 0, "what": "repeat_rare", "text": why})
                while not self.stopped and ((done := self._share()) < 1.0 or at.step == 0):
                    # Before the step, so that a run interrupted in a validation goes on with that validation.
                    if at.step and (due := self._validations_due(done)) > at.validations:
                        self._validate(due)
                        if at.validation_s > CHECKPOINT_EVERY_S / 10:  # too much to do again
                            saved_at = self._checkpoint()
                        continue  # the validation took its share of the budget
                    before = time.perf_counter()
                    batch = next(batches)
                    waited = time.perf_counter() - before
                    if self.fabric.world_size == 1 or at.step % cast(int, settings.log_every) == 0:
                        self._name_unreadable()
                    learning_rate = rate(self.plan, at.step, done) * at.rate_share
                    try:
                        with uninterrupted():
                            taken = self.stepper.take(batch, at.step, learning_rate)
                            at.step += 1
                            self.average.update(at.step)
                            now = time.perf_counter()
                            at.elapsed_s = now - self.started
                            window.add(taken, now - before, waited)
                            at.step_s = window.time_s / window.count
                            self.watch.see(batch, taken)
                            bar(done, at.step, taken.total)
                            if at.step % cast(int, settings.log_every) == 0:
                                self._line(window, learning_rate)
                                self._diagnose(self.watch.causes(at.step, done))
                                window = _Window()
                    except NotFiniteError as error:
                        self._rewind(error)
                        batches.close()
                        batches, window = self._batches(), _Window()
                        continue
                    if time.perf_counter() - saved_at > CHECKPOINT_EVERY_S:
                        saved_at = self._checkpoint()
                if window.count:
                    self._line(window, learning_rate)
                while not self.stopped and self.val is not None and at.validations < cast(int, settings.validations):
                    self._validate(cast(int, settings.validations))
                self._name_unreadable()
                if self.first:
                    self._save()
                    self.run = self.run.write(state="finished", step=at.step)
        except KeyboardInterrupt:
            if self.first:
                self._save()
                self.run = self.run.write(state="interrupted", step=at.step)
                self.tell(f"interrupted after {at.step} steps; the run is usable, and --resume goes on")
            raise
        finally:
            batches.close()
        self.tell(f"trained {at.step} steps in {clock(at.elapsed_s)}: {self.run.path}")
        return self.run

    def _begin(self, resume: bool) -> None:
        """Make everything that the loop needs, as it was when it was interrupted."""
        settings = self.settings
        torch.manual_seed(cast(int, settings.seed))
        truth = read_split(self.run, "train")
        self.val = Dataset.read_split(Path(self.run.data), "val")
        if self.val is not None and not scorable(self.val):
            self.tell("the val split has no object: the last weights are kept, unvalidated")
            self.val = None
        if self.first:  # which writes the checkpoints
            self.bytes = bytes_of(truth)
            self.val_bytes: dict[str, int] = {}
            if self.val is not None:
                self.val_bytes = dict(zip(_names(self.val), bytes_of(self.val).tolist(), strict=True))
        how, sides = Augmentation.of(settings), sides_of(settings)
        rare = settings.repeat_rare or 0.0
        self.photos = Photos(truth, self.plan.canvas, how, cast(int, settings.seed), self.plan.cache_mb, sides, rare)
        goes_on, weights = resume and (self.run.path / RESUME).is_file(), cast(str, settings.weights)
        # A checkpoint has every tensor: what the training started from may be gone.
        self.network = self.run.build(LATER if goes_on and weights != "none" else weights)
        if getattr(self.network, "loaded", None) is not None and not resume:
            self.tell(cast(Any, self.network).loaded.table())
        self.optimiser = optimiser_for(settings, self.network)
        model, optimiser = self.fabric.setup(self.network, self.optimiser)
        model.mark_forward_method("losses")
        self.average = Average(self.network, settings.ema or 0.0)
        if goes_on:
            self.at = load_checkpoint(self.run.path, self.network, self.optimiser, self.average.tensors)
        elif (tested := self.run.path / "preflight.json").is_file():
            self.at.validation_s = float(read_json(tested)["validation_s"])
        self.stopped = self._no_better()
        if self.stopped:
            self.tell(f"it had stopped early at step {self.at.step}, and is at its end")
        self.photos.left_out |= set(self.at.skipped)
        self.photos.unreadable |= self.at.unreadable
        if self.val is not None:
            kept = [i for i, name in enumerate(_names(self.val)) if f"val/{name}" not in self.at.left_out]
            self.val = part_of(self.val, kept) if len(kept) < len(self.val.images) else self.val
        self.photos.fill_cache(cast(int, settings.workers))
        self.started -= self.at.elapsed_s
        self.watch = Watch(self.plan, truth, self.at.first_total)
        size = self._pieces()
        self.stepper = Stepper(self.fabric, model, optimiser, settings, self._event("memory"), size)
        self._restore_scaler()
        self.network.train()
        if resume and self.first:
            self.run = write_going_on(self.run, self.plan)
        tracker = open_tracker(
            cast(str, settings.tracker or "none") if self.first else "none",
            self.run.path,
            settings.model_dump(exclude_none=True),
            self.tell,
        )
        self.log = Log(self.run.path, self.at.step, self.first, tracker, self.tell)

    def _pieces(self) -> int:
        """Return how many photos are taken at once: what was planned or is said now, or what memory forced before."""
        forced = 0 if self.resized else self.at.micro_batch
        if not 0 < forced < self.planned:
            return self.planned
        self.tell(
            f"photos are taken {forced} at a time, since memory was short; --micro-batch {self.planned} tries again"
        )
        return forced

    def _restore_scaler(self) -> None:
        """Let the scaler of 16 bits be as it was; other precisions have none."""
        self.fabric.strategy.precision.load_state_dict(self.at.scaler)
        self.stepper.overflows = self.at.overflows

    def _batches(self) -> Any:
        size, fabric = cast(int, self.settings.batch_size), self.fabric
        make: Callable[[int], Batch] = lambda step: make_batch(  # noqa: E731
            self.photos, step, size, fabric.global_rank, fabric.world_size
        )
        return prefetch(make, self.at.step)

    # How far the training is

    def _share(self) -> float:
        """Return how much of the budget is used, 0..1."""
        if self.steps is not None:
            return self.at.step / self.steps
        assert self.seconds is not None
        # What is still to come must fit into the minutes too: validations, a step, the last checkpoint.
        left = cast(int, self.settings.validations) - self.at.validations if self.val is not None else 0
        reserved = max(left, 0) * (self.at.validation_s or self._validation_guess())
        reserved += self.at.step_s + (self.at.save_s or self._save_guess())
        share = (time.perf_counter() - self.started) / max(self.seconds - reserved, 1e-6)
        if self.fabric.world_size > 1:
            share = float(self.fabric.broadcast(share))  # every process must stop at the same step
        return min(share, 1.0)

    def _validation_guess(self) -> float:
        """Guess the seconds of a validation before there was one: a photo costs about a quarter of a step of four."""
        return len(self.val.images) * self.at.step_s / 8 if self.val is not None else 0.0

    def _save_guess(self) -> float:
        """Guess the seconds of a checkpoint before there was one: weights twice, two moments, 200 MB a second."""
        return sum(p.numel() for p in self.network.parameters()) * 4 * 4 / 2e8

    def _validations_due(self, done: float) -> int:
        """Count the evenly spaced validations whose time has come; the last is taken after the last step."""
        count = cast(int, self.settings.validations)
        return min(int(done * count + 1e-9), count - 1) if self.val is not None else 0

    # What is told

    def _line(self, window: _Window, rate: float) -> None:
        mean = {k: v / window.count for k, v in window.values.items()}
        batch = cast(int, self.settings.batch_size)
        photos = self.plan.photos_per_epoch
        per_epoch = max(1, math.ceil(photos / batch))
        done = self.at.step
        if self.steps is not None:
            eta = (self.steps - done) * self.at.step_s
            steps = self.steps
        else:
            eta = max(cast(float, self.seconds) - self.at.elapsed_s, 0.0)
            steps = done + round(eta / max(self.at.step_s, 1e-6))
        entry = {
            "kind": "step",
            "step": done,
            "steps": steps,
            "epoch": (done - 1) * batch // photos + 1,
            "epochs": round(steps * batch / photos, 2),
            "iteration": (done - 1) * batch % photos // batch + 1,
            "iterations": per_epoch,
            "lr": rate,
            "eta_s": round(eta, 1),
            "time_s": round(window.time_s / window.count, 4),
            "data_time_s": round(window.data_time_s / window.count, 4),
            "memory_mb": memory_mb(),
            "losses": {k: round(mean[k], 5) for k in LOSSES},
            "box_accuracy": round(mean["box_accuracy"], 4),
            "grad_norm": round(mean["grad_norm"], 4) if math.isfinite(mean["grad_norm"]) else None,  # JSON has no inf
            "total": round(sum(mean[k] for k in LOSSES), 5),
        }
        self.log.write(entry)
        losses = "  ".join(f"{k} {mean[k]:.3f}" for k in LOSSES)
        self.tell(
            f"epoch {entry['epoch']} [{entry['iteration']}/{per_epoch}]  step {done}/{steps}  lr {rate:.2e}"
            f"  eta {clock(eta)}  time {entry['time_s']:.3f}  data {entry['data_time_s']:.3f}"
            f"  memory {entry['memory_mb']} MB  {losses}  box acc {mean['box_accuracy']:.1%}"
            f"  grad {mean['grad_norm']:.2f}  total {entry['total']:.3f}"
        )

    def _event(self, what: str) -> Callable[[str], None]:
        """Return a function that tells something out of the ordinary, and puts it into the log."""

        def tell(text: str) -> None:
            self.tell(text)
            self.log.write({"kind": "event", "step": self.at.step, "what": what, "text": text})

        return tell

    def _diagnose(self, causes: list[Cause]) -> None:
        for cause in causes:
            if cause.name not in self.at.told:
                self.at.told.append(cause.name)
                self._event(f"diagnosis: {cause.name}")(f"warning: {cause.text}")

    def _name_unreadable(self) -> None:
        """Name the photos that could not be read; in several processes, those of all, which must ask at once."""
        found = dict(self.photos.unreadable)
        if self.fabric.world_size > 1:
            every: list[Any] = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(every, found)
            found = {index: why for some in every for index, why in some.items()}
            for index, why in found.items():
                self.photos.leave_out(index, why)
        for index in sorted(set(found) - set(self.at.skipped)):
            self.at.skipped.append(index)
            self.at.unreadable[index] = found[index]
            self._event("photo")(
                "warning: a photo cannot be read any more and is left out from now on"
                f" ({len(found)} of {len(self.photos)} so far): {found[index]}"
            )

    # What is scored and saved

    def _validate(self, number: int) -> None:
        """Score the validation photos and keep the best weights; every process waits for the first.

        Args:
            number: Of the validations, how many there have been when this one is done.
        """
        started, at = time.perf_counter(), self.at
        one: Validated | None = None
        best = False
        if self.first:
            assert self.val is not None
            self.network.eval()
            with self.average.in_place():
                whole = self.val
                one, self.val = validate(self.network, whole, self.run, at, self._event("photo"))
                gone = {*_names(whole)} - {*_names(self.val)}
                at.left_out |= {f"val/{name}": self.val_bytes[name] for name in gone}
                best = one is not None and one.best and self._keep_best(one.result)
            self.network.train()
            at.validation_s = time.perf_counter() - started
        with uninterrupted():  # or one that Ctrl-C stops here would count twice when it is done again
            if one is not None:
                self._scores(one, best)
            at.validations = number
        stop = self._no_better()
        self.stopped = bool(self.fabric.broadcast(stop)) if self.fabric.world_size > 1 else stop
        if self.stopped:
            self._event("stop")(
                f"stopped early at step {at.step}: {self.settings.patience} validations without a better smoothed"
                f" segm AP than {at.best_ap:.3f}"
            )
        self.fabric.barrier()

    def _no_better(self) -> bool:
        """Tell whether there have been so many validations without a better score that the training stops."""
        return bool(self.settings.patience and self.at.since_best >= self.settings.patience)

    def _keep_best(self, result: Evaluation) -> bool:
        """Save the weights as the best ones; if there is no room for them, later ones may be the best."""
        at, tell = self.at, self._event("disk")
        advised = result.threshold["score"] if result.threshold else 0.5
        run = replace(self.run, metrics=result.metrics, best_step=at.step, threshold=advised, step=at.step)
        if not attempt(lambda: run.save_weights(BEST, self.network.state_dict()), tell):
            return False
        self.run = run
        attempt(run.write, tell)
        return True

    def _scores(self, one: Validated, best: bool) -> None:
        """Take note of a validation's scores, and tell them."""
        at, metrics = self.at, one.result.metrics
        at.smoothed_ap = one.smoothed
        risen = one.smoothed > at.best_ap
        at.since_best = 0 if risen else at.since_best + 1
        at.best_ap = one.smoothed if risen and best else at.best_ap
        epoch = (at.step - 1) * cast(int, self.settings.batch_size) // self.plan.photos_per_epoch + 1
        self.log.write({"kind": "validation", "step": at.step, "epoch": epoch, "metrics": metrics, "best": best})
        shown = "  ".join(
            f"{k} {'n/a' if v is None else format(v, '.3f')}"
            for k, v in metrics.items()
            if k in {"segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "bbox/AP50"}
        )
        self.tell(f"validation at step {at.step}: {shown}{'  (best so far)' if best else ''}")
        self._diagnose([one.cause] if one.cause else [])

    def _checkpoint(self) -> float:
        """Save in the middle of the training, which goes on if that fails; return when it was done."""
        if self.first:
            attempt(self._save, self._event("disk"))
        return time.perf_counter()

    def _save(self) -> None:
        """Write all that a resumed training needs, and the last weights."""
        started = time.perf_counter()
        self.at.elapsed_s = started - self.started  # also what was not a step: a validation before this, a rewind
        size = self.stepper.micro_batch
        self.at.micro_batch, self.at.first_total = size if size < self.planned else 0, self.watch.first_total
        for photo in self.at.skipped:
            name = self.photos.dataset.images[photo].file_name
            self.at.left_out.setdefault(f"train/{name}", int(self.bytes[photo]))
        self.at.scaler, self.at.overflows = self.fabric.strategy.precision.state_dict(), self.stepper.overflows
        save_checkpoint(self.run.path, self.at, self.network, self.optimiser, self.average.tensors)
        self.run = self.run.write(step=self.at.step)
        with self.average.in_place():
            self.run.save_weights(LAST, self.network.state_dict())
        self.at.save_s = time.perf_counter() - started

    def _rewind(self, error: NotFiniteError) -> None:
        """Go back to the last good state, leave the photos out that are to blame, and lower the rate.

        Raises:
            UserError: If this has been done `MOST_REWINDS` times, naming the photos and the likely cause.
        """
        at, truth, batch = self.at, self.photos.dataset, cast(int, self.settings.batch_size)
        where = [
            f"{truth.photo_path(truth.images[photo])} ({', '.join(bad or error.bad)}; annotations"
            f" {', '.join(str(int(truth.ids[k])) for k in objects) or 'none'})"
            for photo, bad, objects in error.photos
        ]
        step, rate = at.step + 1, cast(float, self.settings.learning_rate) * at.rate_share
        every = len(error.photos) >= batch  # it is not a matter of the photo
        cause = (
            f"with all photos of the step, so the rate is likely too high: --learning-rate {rate / 3:.1g}"
            if every and batch > 1
            else f"look at these photos and masks; if they are sound, use a lower rate: --learning-rate {rate / 3:.1g}"
        )
        if at.rewinds >= MOST_REWINDS:
            where += [
                f"before that: {truth.photo_path(truth.images[photo])}"
                for photo in at.skipped
                if photo not in self.photos.unreadable
            ]
            times = "once more" if at.rewinds == 0 else f"for the {('second', 'third')[min(at.rewinds, 2) - 1]} time"
            raise UserError(f"a loss is not finite {times}, at step {step}: training cannot go on", where, cause)
        blamed = {photo for photo, _, _ in error.photos}
        spared = not self.photos.can_do_without(blamed.union(at.skipped))  # the lower rate alone has to help
        self.fabric.barrier()  # the first process has written what all read now
        with uninterrupted():  # or Ctrl-C might save the weights of one step with the progress of another
            kept = {name: getattr(at, name) for name in NOT_REWOUND}
            if (self.run.path / RESUME).is_file():
                at.__dict__.update(
                    vars(load_checkpoint(self.run.path, self.network, self.optimiser, self.average.tensors))
                )
            else:
                self._from_the_start()
            at.__dict__.update(kept)
            at.rewinds, at.rate_share = at.rewinds + 1, at.rate_share * REWOUND_RATE
            at.skipped = at.skipped if spared else sorted(blamed.union(at.skipped))
            self.photos.left_out |= set(at.skipped)
            self._restore_scaler()
            self.watch = Watch(self.plan, truth, self.watch.first_total)
            self.log.rewind(at.step)
        tell = self._event("rewind")
        photos = "with these photos (but for them none has an object)" if spared else "without these photos"
        tell(
            f"warning: a loss is not finite at step {step}: back to step {at.step}, {photos} and at"
            f" {at.rate_share:.0%} of the learning rate ({at.rewinds} of {MOST_REWINDS} times)"
        )
        for line in where:
            tell(f"  {'kept' if spared else 'left out'}: {line}")
        self.fabric.barrier()  # nobody reads any more
        self._checkpoint()

    def _from_the_start(self) -> None:
        torch.manual_seed(cast(int, self.settings.seed))
        fresh = self.run.build(cast(str, self.settings.weights))
        self.network.load_state_dict(fresh.state_dict())
        self.optimiser.state.clear()
        self.average.restart()
        self.at.__dict__.update(vars(Progress(save_s=self.at.save_s, step_s=self.at.step_s)))
