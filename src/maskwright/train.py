"""Dataset -> run: the training loop, its checkpoints and how it goes on after an interruption."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from torch import Tensor, nn

from maskwright.batches import Augmentation, Batch, Photos, make_batch, prefetch, sides_of
from maskwright.check import check
from maskwright.dataset import SPLITS, Dataset, read_json
from maskwright.detections import detect_photos
from maskwright.errors import UserError
from maskwright.evaluate import evaluate
from maskwright.files import refuse_existing, refuse_input, sha256, write_json
from maskwright.log import Log, clock, memory_mb, progress_bar
from maskwright.memory import keep_freed_memory
from maskwright.models import Segmenter
from maskwright.models.start import beginning
from maskwright.optimisers import optimiser_for
from maskwright.plan import Machine, Plan, plan
from maskwright.preflight import preflight, usable
from maskwright.run import BEST, LAST, RESUME, Run, load_tensors, save_tensors
from maskwright.schedule import rate
from maskwright.settings import TrainSettings

LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask", "semantic")
"""The losses that are summed, in the order in which they are logged."""

CHECKPOINT_EVERY_S = 60.0
"""Seconds between checkpoints; what is lost at most when the machine goes down."""


def train(
    data: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    **settings: Any,
) -> Run | Plan:
    """Train a segmenter on a prepared data folder.

    Args:
        data: A folder that `prepare` wrote (or COCO files in the same layout); it must exist.
        out: The run folder to make.
        overwrite: Replace a run that exists.
        resume: Go on with a run that was interrupted; settings that are given must be those that it began with.
        dry_run: Make the plan, say it, and stop.
        say: Called with each line of text.
        progress: Show a live progress bar on the terminal.
        **settings: Those of `TrainSettings`.

    Returns:
        The run; the plan with `dry_run`.

    Raises:
        UserError: If the data cannot be trained on, the output exists, the pre-flight fails (nothing is written then),
            or a loss is not finite (naming the photo).
        KeyboardInterrupt: After Ctrl-C, when the run is saved and usable.
    """
    began = time.perf_counter()
    tell = say or _silent
    said = TrainSettings.parse(settings)
    data, out = Path(data), Path(out)
    if resume and not (out / RESUME).is_file():
        raise UserError(
            "there is nothing to go on with: the run has no checkpoint",
            [str(out)],
            "leave --resume out" if not out.exists() else "start anew: --overwrite",
        )
    first = _first_process()
    if not first:
        tell = _silent  # torchrun and SLURM start this function in every process; one of them speaks and writes
    elif not resume:
        refuse_input(out, data)
        if not dry_run:
            refuse_existing(out, overwrite=overwrite)
    facts = check(data, say=None)
    for warning in facts.warnings:
        tell(f"warning: {warning}")
    machine = this_machine()
    made = plan(facts, said, machine)
    fingerprint = _fingerprint(data)
    if resume:
        made = _resumed_plan(out, data, said, fingerprint)
    tell(made.table())
    if dry_run:
        return made
    run = Run.read(out) if resume else _new_run(out, data, made, fingerprint)
    if first and not resume:
        # In the first process, before the others are started (torchrun's and SLURM's wait for it where they meet).
        tested = _preflight(data, run, made, machine, tell)
        if tested is not None:
            began += tested["took_s"]  # the minutes are the training's
        if out.is_dir():
            shutil.rmtree(out)
        else:
            out.unlink(missing_ok=True)
        write_json(out / "plan.json", plan_json(made))
        write_json(out / "facts.json", facts.model_dump(mode="json"))
        if tested is not None:
            write_json(out / "preflight.json", tested)
    if first:
        run = run.write(state="training")
    devices = made.settings.devices or 1
    if devices == 1:
        return _Training(run, made, machine, tell, progress).go(_fabric(made, machine, "auto"), resume, began)
    # One process per device; they are started here, unless torchrun or SLURM has started them already.
    fabric = _fabric(made, machine, "ddp" if _launched() else "ddp_spawn")
    # Fabric looks into the arguments and the result of what it launches and refuses frozen ones: so there are none.
    cast(Any, fabric).launch(
        partial(_in_process, run=run, made=made, machine=machine, resume=resume, told=say is not None)
    )
    return Run.read(out)


def _preflight(
    data: Path, run: Run, made: Plan, machine: Machine, tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Test the training before anything is written; `None` if the plan has no pre-flight, or the user wants none."""
    if made.settings.preflight is False and made.reasons["preflight"].source == "user":
        return None
    truth = _read(run, "train")
    if not made.settings.preflight:
        usable(truth, made, tell)  # costs nothing
        return None
    keep_freed_memory()
    val = Dataset.read_split(data, "val")
    photos = len(val.images) if val is not None and len(val) else 0
    return preflight(run, made, machine, truth, photos, partial(optimiser_for, made.settings), LOSSES, tell).json()


def _in_process(fabric: Fabric, run: Run, made: Plan, machine: Machine, resume: bool, told: bool) -> None:
    # `say` stays behind in the process that was asked; what it would be told is printed.
    tell = print if told and fabric.is_global_zero else _silent
    _Training(run, made, machine, tell, False).go(fabric, resume, time.perf_counter())
    fabric.barrier()  # run.json is final for every process


def _silent(_text: str) -> None:
    """Say nothing."""


def _first_process() -> bool:
    """Tell whether this is the only process, or the first of those that torchrun or SLURM started."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def _launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ


def _fabric(made: Plan, machine: Machine, strategy: str) -> Fabric:
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[made.settings.precision or "32"]
    accelerator = "cuda" if machine.device == "cuda" else "cpu"
    return Fabric(accelerator=accelerator, devices=made.settings.devices or 1, strategy=strategy, precision=precision)


def this_machine() -> Machine:
    """Look at what there is to train on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return Machine(
            "cuda",
            torch.cuda.device_count(),
            torch.cuda.get_device_name(),
            cores,
            memory,
            torch.cuda.is_bf16_supported(),
        )
    return Machine("cpu", 1, f"no GPU; {cores} CPU cores", cores, memory, bool(torch.cpu._is_amx_tile_supported()))


def plan_json(made: Plan) -> dict[str, Any]:
    """Return a plan as `plan.json`: its `settings` are a settings file for another training."""
    values = made.model_dump(mode="json")
    values["settings"] = {k: v for k, v in values["settings"].items() if v is not None}
    return values


def _new_run(out: Path, data: Path, made: Plan, fingerprint: dict[str, str]) -> Run:
    truth = Dataset.read_split(data, "train")
    assert truth is not None  # check() has seen it
    architecture = made.settings.architecture or "maskrcnn-nano"
    sizes = {
        "categories": len(truth.categories),
        "anchor_sizes": made.anchor_sizes,
        "detections_per_photo": made.detections_per_photo,
        **beginning(architecture, made.settings.backbone, cast(str, made.settings.weights)),
    }
    run = Run(
        path=out,
        architecture=architecture,
        sizes=sizes,
        categories=truth.categories,
        side=made.settings.side or 384,
        short_side=made.settings.short_side,
        data=str(data.resolve()),
        fingerprint=fingerprint,
    )
    return run


def _fingerprint(data: Path) -> dict[str, str]:
    """Return what tells one training set from another: per split a hash of its annotation file and its photos' sizes.

    Sizes in bytes stand for the photos' content: a photo that was replaced nearly always has another one, and reading a
    million photos to make sure would delay every start by hours.
    """
    found = {}
    for split in SPLITS:
        path = data / "annotations" / f"instances_{split}.json"
        if split == "test" or not path.is_file():
            continue
        digest = hashlib.sha256(sha256(path).encode())
        for photo in sorted((data / split).rglob("*")):
            if photo.is_file():
                digest.update(f"{photo.relative_to(data).as_posix()} {photo.stat().st_size}\n".encode())
        found[split] = digest.hexdigest()
    return found


def _resumed_plan(out: Path, data: Path, said: TrainSettings, fingerprint: dict[str, str]) -> Plan:
    """Return the plan that a run began with.

    Raises:
        UserError: If the data or a given setting is not what the run began with: the result would be neither training.
    """
    run = Run.read(out)
    try:
        made = Plan.model_validate(read_json(out / "plan.json"))
    except ValidationError as error:
        wrong = [f"{out / 'plan.json'}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("plan.json is damaged", wrong, "start anew: --overwrite") from None
    began = made.settings.model_dump()
    other = [
        f"{name} is {value!r} now, the run began with {began[name]!r}"
        for name, value in said.model_dump(exclude_none=True).items()
        if began[name] != value
    ]
    if other:
        raise UserError(
            "a run goes on with the settings that it began with", other, "leave them out, or start anew: --overwrite"
        )
    changed = [
        f"{data}: the {split} split"
        for split in fingerprint
        if fingerprint[split] != (run.fingerprint or {}).get(split)
    ]
    if changed or set(fingerprint) != set(run.fingerprint or {}):
        raise UserError(
            "a run goes on with the data that it began with",
            changed or [f"{data}: splits {sorted(fingerprint)}, began with {sorted(run.fingerprint or {})}"],
            "give the old data back, or start anew: --overwrite",
        )
    return made


@dataclass
class _Progress:
    """Where a training stands; everything that an interrupted one needs beside the tensors."""

    step: int = 0
    elapsed_s: float = 0.0
    validations: int = 0
    best_ap: float = -1.0
    step_s: float = 0.0
    validation_s: float = 0.0


@dataclass
class _Window:
    """Sums over the steps since the last log line."""

    count: int = 0
    values: dict[str, float] = field(default_factory=dict)
    time_s: float = 0.0
    data_time_s: float = 0.0

    def add(self, losses: dict[str, Tensor], time_s: float, data_time_s: float) -> None:
        for name, value in losses.items():
            self.values[name] = self.values.get(name, 0.0) + float(value.detach())
        self.count += 1
        self.time_s += time_s
        self.data_time_s += data_time_s


class _Training:
    """One process's part in a training."""

    def __init__(self, run: Run, made: Plan, machine: Machine, tell: Callable[[str], None], progress: bool) -> None:
        self.run, self.plan, self.machine, self.tell, self.bar = run, made, machine, tell, progress
        self.settings = made.settings
        self.seconds = made.settings.minutes * 60 if made.settings.minutes else None
        self.steps = made.steps
        self.at = _Progress()
        self.val: Dataset | None = None

    def go(self, fabric: Fabric, resume: bool, began: float) -> Run:
        """Train to the end of the budget, which runs from `began` (of `time.perf_counter`) on."""
        started = began
        keep_freed_memory()
        torch.manual_seed(cast(int, self.settings.seed))
        truth = _read(self.run, "train")
        self.val = Dataset.read_split(Path(self.run.data), "val")
        if self.val is not None and not len(self.val):
            self.tell("the val split has no object: the last weights are kept, unvalidated")
            self.val = None
        batch_size = cast(int, self.settings.batch_size)
        how = Augmentation.of(self.settings)
        sides = sides_of(self.settings)
        photos = Photos(truth, self.plan.canvas, how, cast(int, self.settings.seed), self.plan.cache_mb, sides)
        network = self.run.build(cast(str, self.settings.weights))
        if getattr(network, "loaded", None) is not None and not resume:
            self.tell(cast(Any, network).loaded.table())
        optimiser = optimiser_for(self.settings, network)
        if resume:
            self._load(network, optimiser)
        model, optimiser = fabric.setup(network, optimiser)
        model.mark_forward_method("losses")
        photos.fill_cache(cast(int, self.settings.workers))
        started -= self.at.elapsed_s
        saved_at = time.perf_counter()
        window = _Window()
        network.train()
        log = Log(self.run.path, self.at.step, fabric.is_global_zero)
        batches = prefetch(
            lambda step: make_batch(photos, step, batch_size, fabric.global_rank, fabric.world_size), self.at.step
        )
        try:
            with log, progress_bar(self.bar and fabric.is_global_zero) as bar:
                while (done := self._share(time.perf_counter() - started, fabric)) < 1.0 or self.at.step == 0:
                    # Before the step, so that a run interrupted in a validation goes on with that validation.
                    if self.at.step and (due := self._validations_due(done)) > self.at.validations:
                        self._validate(fabric, network, log, due)
                        network.train()
                        continue  # the validation took its share of the budget
                    before = time.perf_counter()
                    batch = next(batches)
                    waited = time.perf_counter() - before
                    learning_rate = rate(self.plan, self.at.step, done)
                    with uninterrupted():
                        losses = self._step(fabric, model, optimiser, batch, learning_rate)
                        self.at.step += 1
                        now = time.perf_counter()
                        self.at.elapsed_s = now - started
                        window.add(losses, now - before, waited)
                        self.at.step_s = window.time_s / window.count
                        bar(done, self.at.step, sum(float(losses[k].detach()) for k in LOSSES))
                        if self.at.step % cast(int, self.settings.log_every) == 0:
                            self._line(log, window, learning_rate, len(photos))
                            window = _Window()
                    if fabric.is_global_zero and time.perf_counter() - saved_at > CHECKPOINT_EVERY_S:
                        self._save(network, optimiser)
                        saved_at = time.perf_counter()
                if window.count:
                    self._line(log, window, rate(self.plan, self.at.step, 1.0), len(photos))
                while self.val is not None and self.at.validations < cast(int, self.settings.validations):
                    self._validate(fabric, network, log, cast(int, self.settings.validations))
                self.at.elapsed_s = time.perf_counter() - started
                if fabric.is_global_zero:
                    self._save(network, optimiser)
                    self.run = self.run.write(state="finished", step=self.at.step)
        except KeyboardInterrupt:
            if fabric.is_global_zero:
                self._save(network, optimiser)
                self.run = self.run.write(state="interrupted", step=self.at.step)
                self.tell(f"interrupted after {self.at.step} steps; the run is usable, and --resume goes on")
            raise
        finally:
            batches.close()
        self.tell(f"trained {self.at.step} steps in {clock(self.at.elapsed_s)}: {self.run.path}")
        return self.run

    def _share(self, elapsed_s: float, fabric: Fabric) -> float:
        """Return how much of the budget is used, 0..1."""
        if self.steps is not None:
            return self.at.step / self.steps
        assert self.seconds is not None
        # The validations and the step that are still to come must fit into the minutes too.
        left = cast(int, self.settings.validations) - self.at.validations if self.val is not None else 0
        reserved = max(left, 0) * (self.at.validation_s or self._validation_guess())
        share = elapsed_s / max(self.seconds - reserved - self.at.step_s, 1e-6)
        if fabric.world_size > 1:
            share = float(fabric.broadcast(share))  # every process must stop at the same step
        return min(share, 1.0)

    def _validation_guess(self) -> float:
        """Guess the seconds of a validation before there was one: a photo costs about a quarter of a step of four."""
        return len(self.val.images) * self.at.step_s / 8 if self.val is not None else 0.0

    def _step(self, fabric: Fabric, model: Any, optimiser: Any, batch: Batch, rate: float) -> dict[str, Tensor]:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        # Seeded by step, so that a resumed training draws what the undisturbed one would have drawn.
        torch.manual_seed(cast(int, self.settings.seed) * 1_000_003 + self.at.step * 64 + fabric.global_rank)
        images = fabric.to_device(batch.images).contiguous(memory_format=torch.channels_last)
        targets = fabric.to_device(batch.targets)
        losses: dict[str, Tensor] = model.losses(images, targets)
        total = torch.stack([losses[k] for k in LOSSES]).sum()
        if not torch.isfinite(total):
            self._refuse(model, batch)
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(total)
        fabric.clip_gradients(model, optimiser, max_norm=cast(float, self.settings.clip_norm), error_if_nonfinite=False)
        optimiser.step()
        return losses

    @torch.no_grad()
    def _refuse(self, model: Any, batch: Batch) -> None:
        """Stop at a loss that is not finite, naming the photos that cause it.

        Raises:
            UserError: Always.
        """
        truth = _read(self.run, "train")
        lines = []
        for i, photo in enumerate(batch.photos):
            device = next(model.parameters()).device
            target = {k: v.to(device) for k, v in batch.targets[i].items()}
            losses = model.losses(batch.images[i : i + 1].to(device), [target])
            bad = [k for k in LOSSES if not torch.isfinite(losses[k])]
            ids = ", ".join(str(int(truth.ids[k])) for k in batch.objects[i]) or "none"
            if bad:
                lines.append(f"{truth.photo_path(truth.images[photo])} ({', '.join(bad)}; annotations {ids})")
        if not lines:
            lines = [str(truth.photo_path(truth.images[photo])) for photo in batch.photos]
        raise UserError(
            f"a loss is not finite at step {self.at.step + 1}: training cannot go on",
            lines,
            f"look at these photos and masks; if they are sound, use a lower rate:"
            f" --learning-rate {cast(float, self.settings.learning_rate) / 3:.1g}",
        )

    def _line(self, log: Log, window: _Window, rate: float, photos: int) -> None:
        mean = {k: v / window.count for k, v in window.values.items()}
        batch = cast(int, self.settings.batch_size)
        photos *= self.settings.repeat or 1  # in an epoch
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
            "iteration": (done - 1) % per_epoch + 1,
            "iterations": per_epoch,
            "lr": rate,
            "eta_s": round(eta, 1),
            "time_s": round(window.time_s / window.count, 4),
            "data_time_s": round(window.data_time_s / window.count, 4),
            "memory_mb": memory_mb(),
            "losses": {k: round(mean[k], 5) for k in LOSSES},
            "box_accuracy": round(mean["box_accuracy"], 4),
            "total": round(sum(mean[k] for k in LOSSES), 5),
        }
        log.write(entry)
        losses = "  ".join(f"{k} {mean[k]:.3f}" for k in LOSSES)
        self.tell(
            f"epoch {entry['epoch']} [{entry['iteration']}/{per_epoch}]  step {done}/{steps}  lr {rate:.2e}"
            f"  eta {clock(eta)}  time {entry['time_s']:.3f}  data {entry['data_time_s']:.3f}"
            f"  memory {entry['memory_mb']} MB  {losses}  box acc {mean['box_accuracy']:.1%}"
            f"  total {entry['total']:.3f}"
        )

    def _validations_due(self, done: float) -> int:
        """Count the evenly spaced validations whose time has come; the last is taken after the last step."""
        count = cast(int, self.settings.validations)
        return min(int(done * count + 1e-9), count - 1) if self.val is not None else 0

    def _validate(self, fabric: Fabric, network: nn.Module, log: Log, number: int) -> None:
        """Score the validation photos and keep the best weights; every process waits for the first.

        Args:
            number: Of the validations, how many there have been when this one is done.
        """
        started = time.perf_counter()
        if fabric.is_global_zero:
            assert self.val is not None
            network.eval()
            photos = [(image, self.val.photo_path(image)) for image in self.val.images]
            found = detect_photos(
                cast(Segmenter, network),
                photos,
                self.run.side,
                self.run.categories,
                short_side=self.run.short_side,
            )
            result = evaluate(self.val, found, bootstrap=0)
            ap = result.metrics["segm/AP"]
            best = (ap if ap is not None else 0.0) > self.at.best_ap
            if best:
                threshold = result.threshold["score"] if result.threshold else 0.5
                self.run = self.run.write(
                    metrics=result.metrics, best_step=self.at.step, threshold=threshold, step=self.at.step
                )
                self.run.save_weights(BEST, network.state_dict())
                self.at.best_ap = ap if ap is not None else 0.0
            in_epoch = self.plan.photos * (self.settings.repeat or 1)
            epoch = (self.at.step - 1) * cast(int, self.settings.batch_size) // in_epoch + 1
            entry = {
                "kind": "validation",
                "step": self.at.step,
                "epoch": epoch,
                "metrics": result.metrics,
                "best": best,
            }
            log.write(entry)
            shown = "  ".join(
                f"{k} {'n/a' if v is None else format(v, '.3f')}"
                for k, v in result.metrics.items()
                if k in {"segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "bbox/AP50"}
            )
            self.tell(f"validation at step {self.at.step}: {shown}{'  (best so far)' if best else ''}")
            self.at.validation_s = time.perf_counter() - started
        self.at.validations = number
        fabric.barrier()

    def _save(self, network: nn.Module, optimiser: Any) -> None:
        """Write the last weights, and all that a resumed training needs."""
        weights = network.state_dict()
        self.run = self.run.write(step=self.at.step)
        self.run.save_weights(LAST, weights)
        tensors = {f"model.{k}": v for k, v in weights.items()}
        state = optimiser.state_dict()["state"]
        for index, moments in state.items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in moments.items() if v is not None}
        save_tensors(self.run.path / RESUME, tensors, {"progress": json.dumps(vars(self.at))})

    def _load(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        from safetensors import safe_open

        path = self.run.path / RESUME
        tensors = load_tensors(path)
        with safe_open(path, "pt") as opened:
            self.at = _Progress(**json.loads(opened.metadata()["progress"]))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                value.copy_(tensors[f"model.{name}"])
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                # The fused optimiser walks through memory: moments must lie there as their parameter does.
                like = parameters[int(index)]
                moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                state.setdefault(int(index), {})[key] = moment
        full = optimiser.state_dict()
        full["state"] = state
        optimiser.load_state_dict(full)


def _read(run: Run, split: str) -> Dataset:
    found = Dataset.read_split(Path(run.data), split)
    if found is None:
        raise UserError(f"the data has no {split} split", [run.data], "prepare the data again")
    return found


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
