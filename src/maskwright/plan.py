"""Facts + what the user said -> Plan: every number of a training, each with where it comes from and why.

The rules are plain arithmetic on the facts of the data and of the machine, so that a plan can be made, read and tested
without a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from maskwright.errors import UserError
from maskwright.facts import Facts, SplitFacts
from maskwright.rarity import Rarity, expected, told
from maskwright.settings import TrainSettings

Source = Literal["default", "derived", "user"]

BUDGETS = ("minutes", "epochs", "steps")
"""The settings of which one says how long a training is."""

MULTIPLE = 32  # heights and widths of the network's input: multiples of its coarsest stride
BASE_RATE = 1e-3  # AdamW's peak rate for a batch of 2, found by trial on hammers, drawn and real
BASE_BATCH = 2
CPU_PHOTOS_PER_S = 2.5  # that one core trains on, roughly; only augmentation and pre-flight go by it
GPU_PHOTOS_PER_S = 50.0
STOCK_SLOWER = 40.0  # how many times longer maskrcnn-r50-fpn takes for a photo of its size than the nano for one of its

ORIGIN_EPOCHS = 24  # the origin's "2x" schedule (Detectron, MMDetection): 24 epochs of COCO, a tenth from 16 and 22 on
ORIGIN_DROPS = (16.0, 22.0)
ORIGIN_RATE = 0.02  # for a batch of 16, that is 8 GPUs of 2 photos; it is scaled with the batch (Goyal et al. 2017)
ORIGIN_BATCH = 16
ORIGIN_WARMUP = 500
ORIGIN_SIDES = (800, 1333)  # shorter, longer
ORIGIN_ANCHORS = ((32,), (64,), (128,), (256,), (512,))
TIMM_RATE = 1e-4  # AdamW's, for a batch of 16: what ConvNeXt and Swin are fine-tuned with as detectors
USUAL_MASK_SIDE = 28  # Mask R-CNN's
MASK_WINDOW = 1.1  # maskrcnn-nano's masks are of a window so much larger than the box
FINEST_STRIDE = 4  # pixels of the input per cell of the finest map that masks are cut from
VALIDATIONS = 4  # and as many for each that a training waits for a better one
PREFLIGHT_SHARE = 0.1  # of the training that its pre-flight may take
PREFLIGHT_LEAST_S = 20.0  # what two photos take to be learned on one core; less proves little
PREFLIGHT_MOST_S = 60.0


@dataclass(frozen=True)
class Machine:
    """What training runs on.

    Args:
        device: `cpu` or `cuda`.
        count: GPUs, or 1.
        name: For people.
        cores: CPU cores that this process may use.
        memory_mb: Main memory that may be used.
        bf16: Whether the device computes bf16 fast: a GPU that has it, a CPU with AMX (one without any bf16 is ten
            times slower in it than in 32 bits; one with AVX-512 bf16 alone was not measured, and does not count).
        started: How many processes others (torchrun, SLURM, Ray) have started to train together; 0: none.
        beside: How many of these are on this machine.
        interactive: Whether this is a notebook or the like, which cannot start processes to train together.
    """

    device: Literal["cpu", "cuda"]
    count: int
    name: str
    cores: int
    memory_mb: int
    bf16: bool
    started: int = 0
    beside: int = 0
    interactive: bool = False


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reason(_Frozen):
    """Where a number of a plan comes from, and why it is what it is."""

    source: Source
    why: str


class Plan(_Frozen):
    """Every number of a training.

    Nothing is `None` but the two budgets that are not the one in force, and what a network or an optimiser has not:
    `backbone`, `short_side`, `momentum`, `drops` and `warmup`.

    Attributes:
        settings: All of `TrainSettings`, each given; of minutes, epochs and steps the one in force.
        canvas: `(height, width)` that training photos are put on; with a `short_side` what the median photo becomes,
            and every photo keeps its own shape.
        anchor_sizes: Side of the anchors in pixels of the input, per pyramid level (the last four or all of the strides
            4, 8, 16, 32, 64).
        detections_per_photo: At most so many objects are found in a photo.
        mask_side: Cells of a predicted mask per side.
        categories: Names, in order of label 1..C.
        photos: Photos to train on.
        steps_per_epoch: Photos x repeats / batch size; the mean, where photos of rare categories come more often.
        cache_mb: Memory for decoded photos, of each process.
        preflight_s: Seconds that the pre-flight may take, beside the budget; 0: there is none.
        reasons: By name, for every number above and every setting.
    """

    settings: TrainSettings
    canvas: tuple[int, int]
    anchor_sizes: tuple[tuple[int, ...], ...]
    detections_per_photo: int
    categories: tuple[str, ...]
    photos: int
    steps_per_epoch: float
    cache_mb: int
    reasons: dict[str, Reason]
    # Plans of older runs have neither: a run that goes on needs no pre-flight, and its masks are of the usual size.
    preflight_s: float = 0.0
    mask_side: int = USUAL_MASK_SIDE

    @property
    def photos_per_epoch(self) -> int:
        """How many photos an epoch has, each counted as often as it comes; the mean, where chance decides."""
        if self.settings.repeat_rare:
            return round(self.steps_per_epoch * (self.settings.batch_size or 1))
        return self.photos * (self.settings.repeat or 1)

    @property
    def steps(self) -> int | None:
        """Optimiser steps; `None` where the budget is minutes and the steps are as many as fit."""
        if self.settings.epochs is not None:
            # A quotient is rounded in its last digits: 40 steps must not become 41 for them.
            return max(1, math.ceil(round(self.settings.epochs * self.steps_per_epoch, 6)))
        return self.settings.steps

    def in_pieces(self, size: int, why: str) -> Plan:
        """Return the plan with so many photos that a device takes at once; the plan itself if that is what it has."""
        if size == self.settings.micro_batch:
            return self
        reasons = self.reasons | {"micro_batch": Reason(source="derived", why=why)}
        settings = self.settings.model_copy(update={"micro_batch": size})
        return self.model_copy(update={"settings": settings, "reasons": reasons})

    def table(self) -> str:
        """Return the plan as lines of name, value, source and reason."""
        values = {k: v for k, v in self.settings.model_dump().items() if v is not None}
        values |= {
            "canvas": f"{self.canvas[1]} x {self.canvas[0]}",
            "anchor_sizes": " ".join(",".join(str(s) for s in level) for level in self.anchor_sizes),
            "detections_per_photo": self.detections_per_photo,
            "mask_side": self.mask_side,
            "categories": ", ".join(self.categories),
            "photos": self.photos,
            "steps_per_epoch": f"{round(self.steps_per_epoch, 4):g}",
            "cache_mb": self.cache_mb,
            "preflight_s": self.preflight_s,
        }
        texts = {k: _text(v) for k, v in values.items()}
        wide = min(max(len(t) for t in texts.values()), 24)
        lines = [
            f"  {name:<21}{text:<{wide}}  {self.reasons[name].source:<8} {self.reasons[name].why}"
            for name, text in texts.items()
        ]
        return "plan\n" + "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(_text(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan(
    facts: Facts, settings: TrainSettings, machine: Machine, fitted: Mapping[str, str] = MappingProxyType({})
) -> Plan:
    """Derive every number of a training.

    Args:
        facts: Of the data, from `check`.
        settings: What the user said; `None` means: derive it.
        machine: What training runs on.
        fitted: By name, what became of settings of a file that were for another budget, for their reasons.

    Raises:
        UserError: If what the user said cannot be, such as a batch that the devices cannot share.
    """
    return _Planner(facts, settings, machine, fitted).plan()


class _Planner:
    """Collects values with their reasons; a value that the user gave is taken, whatever the rule would say."""

    def __init__(self, facts: Facts, settings: TrainSettings, machine: Machine, fitted: Mapping[str, str]) -> None:
        self.facts, self.said, self.machine, self.fitted = facts, settings, machine, fitted
        self.train: SplitFacts = facts.splits["train"]
        self.values: dict[str, Any] = {}
        self.stock = False
        self.pass_photos: float = self.train.photos  # what a pass over the photos sees, repeats of rare ones included
        self.reasons: dict[str, Reason] = {}

    def set(self, name: str, value: Any, why: str, source: Source = "derived") -> Any:
        said = getattr(self.said, name, None)
        fitted = self.fitted.get(name)
        if said is not None:
            value, source, why = said, "user", f"{fitted or 'you said so'} (the rule: {_text(value)}, {why})"
        elif fitted:
            why = f"{why}; {fitted}"
        self.values[name] = value
        self.reasons[name] = Reason(source=source, why=why)
        return value

    def plan(self) -> Plan:
        train, cpu = self.train, self.machine.device == "cpu"
        default: Source = "default"
        self.stock = self._architecture()
        same = "weights (with a budget in steps)" if cpu else "random choices; a GPU's sums differ in their last digits"
        self.set("seed", 0, f"the same seed on the same machine gives the same {same}", default)
        if self.machine.started:
            devices = self.set("devices", self.machine.started, "so many processes were started to train together")
        elif self.machine.interactive and self.machine.count > 1:
            why = f"one of {self.machine.count} GPUs, since a notebook cannot start processes to train together"
            devices = self.set("devices", 1, why)
        else:
            devices = self.set("devices", 1 if cpu else self.machine.count, f"{self.machine.name}")
        batch = self.set("batch_size", *self._batch_size(devices))
        if batch % devices:
            raise UserError(
                "every device must get as many photos as every other",
                [f"a batch of {batch} photos over {devices} devices"],
                f"--batch-size {math.ceil(batch / devices) * devices}",
            )
        repeat = self.set("repeat", 1, "an epoch sees each photo once", default)
        seen = self._rare()
        per_epoch = seen * repeat / batch
        crowds = f"; {train.crowd} crowd objects in them teach nothing" if train.crowd else ""
        self._note("photos", f"those of the train split{crowds}")
        self._note("steps_per_epoch", _epoch_text(seen, repeat, batch, per_epoch, self.stock or repeat > 1))
        self._budget(per_epoch)
        self._learning(batch, per_epoch)
        side, canvas = self._input()
        self.set("flip", True, "a mirrored object is still that object", default)
        self.set("copy_paste", 0.0, "off: it gained nothing in short trainings on three sets", default)
        self._augmentation(per_epoch)
        if cpu:
            # Measured (benchmarks/layers.py, step.py): dense layers twice to four times faster, a step by a fifth.
            fast = self.machine.bf16
            why = (
                "this CPU multiplies bf16 matrices (AMX): dense layers are faster, depthwise ones stay in 32 bits"
                if fast
                else "this CPU has no unit for bf16 matrices (AMX)"
            )
            self.set("precision", "bf16" if fast else "32", why)
        else:
            self.set(
                "precision", "bf16" if self.machine.bf16 else "16", "half the memory and twice the speed on this GPU"
            )
        if cpu and self.values["precision"] == "16":
            raise UserError(
                "precision 16 is for GPUs",
                [f"precision (--precision) is 16, and there is {self.machine.name}"],
                "--precision bf16 on a CPU with AMX, --precision 32 on others",
            )
        self.set("workers", self.machine.cores, f"{self.machine.cores} cores")
        self.set("log_every", 10, "a line every few seconds", default)
        self.set("micro_batch", math.ceil(batch / devices), "all of a device's share; halved if memory is short")
        self.set("ema", 0.0, "the weights themselves are the result", default)
        self._validations()
        self.set("tracker", "none", "log.jsonl and TensorBoard have it all", default)
        self.set("on", "here", "on this machine", default)
        anchors, cells = self._anchors(side), self._mask_side(side)
        room = self._detections()
        memory, why = cache_of(self.machine, devices)
        self._note("cache_mb", why)
        names = tuple(c.name for c in self.facts.categories)
        self._note("categories", "from the data")
        seconds = self._preflight()
        return Plan(
            settings=TrainSettings(**self.values),
            canvas=canvas,
            anchor_sizes=anchors,
            detections_per_photo=room,
            mask_side=cells,
            categories=names,
            photos=train.photos,
            steps_per_epoch=per_epoch,
            cache_mb=memory,
            reasons=self.reasons,
            preflight_s=seconds,
        )

    def _rare(self) -> float:
        """Choose whether photos of rare categories are repeated; return how many photos a pass over them sees."""
        threshold = self.set("repeat_rare", 0.0, "every photo comes as often as every other", "default")
        if threshold:
            rare = [Rarity(c.name, c.photos.get("train", 0), c.rarest.get("train", 0)) for c in self.facts.categories]
            self._note("repeat_rare", f"you said so; {told(rare, self.train.photos, threshold)}", "user")
            self.pass_photos = expected(rare, self.train.photos, threshold)
        return self.pass_photos

    def _architecture(self) -> bool:
        """Choose the network and what it starts from; tell whether it is a stock one."""
        backbone = self.said.backbone
        nano: Source = "default"
        if backbone is not None and self.said.architecture is None:
            name = self.set("architecture", "maskrcnn-r50-fpn", f"its pyramid and heads carry the backbone {backbone}")
        else:
            name = self.set("architecture", "maskrcnn-nano", "learns on a CPU in minutes", nano)
        stock = bool(name != "maskrcnn-nano")
        if backbone is not None:
            if not stock:
                raise UserError(
                    "maskrcnn-nano has its own backbone",
                    [f"backbone (--backbone) is {backbone!r}"],
                    "--architecture maskrcnn-r50-fpn",
                )
            self.values["backbone"] = backbone
            self._note("backbone", "you said so (the rule: ResNet-50)", "user")
        self.set("weights", "imagenet", "a backbone that has seen photos needs far fewer of yours", nano)
        return stock

    def _learning(self, batch: int, per_epoch: float) -> None:
        """Choose optimiser, rate and schedule."""
        default: Source = "default"
        resnet = self.stock and self.said.backbone is None
        kind = self.set("optimiser", "sgd" if resnet else "adamw", *self._why_optimiser(resnet))
        if kind == "sgd" or self.said.momentum is not None:
            self.set("momentum", 0.9, "the origin's", default)
        rate = base_rate(self.values["architecture"], kind, batch)
        if kind == "sgd":
            why = f"the origin's {ORIGIN_RATE:g} for {ORIGIN_BATCH} photos per step x {batch} / {ORIGIN_BATCH}"
        elif self.stock:
            why = f"{TIMM_RATE:g} for {ORIGIN_BATCH} photos per step x sqrt({batch} / {ORIGIN_BATCH})"
        else:
            why = f"{BASE_RATE:g} x sqrt({batch} photos per step / {BASE_BATCH})"
        self.set("learning_rate", rate, why)
        if self.stock:
            self.set("backbone_rate", 1.0, "the origin's recipe has one rate", default)
            decay = (
                (1e-4, "the origin's, of all weights")
                if kind == "sgd"
                else (0.05, "AdamW; norms and biases are left out")
            )
            self.set("weight_decay", *decay, default)
            self.set("clip_norm", 35.0, "so high that it stops accidents only", default)
            schedule = self.set("schedule", "steps", "the origin's recipe", default)
        else:
            self.set("backbone_rate", 0.3, "the pretrained part needs smaller steps than the new parts", default)
            self.set("weight_decay", 0.02, "AdamW; norms and biases are left out", default)
            self.set("clip_norm", 10.0, "one odd photo must not throw the weights away", default)
            schedule = self.set("schedule", "cosine", "a smooth fall ends anywhere", default)
        if schedule == "steps" or self.said.drops is not None:
            self.set("drops", *self._drops(per_epoch))
        if self.stock or self.said.warmup is not None:
            self.set("warmup", *self._warmup(per_epoch))

    def _why_optimiser(self, resnet: bool) -> tuple[str, Source]:
        if resnet:
            return "the origin's recipe", "default"
        return "forgives a rate that is not quite right", "default"

    def _steps(self, per_epoch: float) -> float | None:
        """Return how many steps there will be; `None` where the budget is in minutes."""
        if "minutes" in self.values:
            return None
        return float(self.values.get("steps") or self.values["epochs"] * per_epoch)

    def _drops(self, per_epoch: float) -> tuple[tuple[float, ...], str]:
        steps = self._steps(per_epoch)
        if steps is None:
            return ORIGIN_DROPS, f"epochs of {ORIGIN_EPOCHS}, whatever the minutes allow: two and eleven twelfths"
        epochs = steps / per_epoch
        drops = tuple(round(epochs * drop / ORIGIN_EPOCHS, 2) for drop in ORIGIN_DROPS)
        return (
            drops,
            f"epochs; the origin's {ORIGIN_DROPS[0]:g} and {ORIGIN_DROPS[1]:g} of {ORIGIN_EPOCHS}, of {epochs:g}",
        )

    def _warmup(self, per_epoch: float) -> tuple[int, str]:
        steps = self._steps(per_epoch)
        if steps is None:
            return ORIGIN_WARMUP, "steps; the origin's, or the first tenth of the minutes if that is over sooner"
        most = max(1, int(steps / 10))
        return min(ORIGIN_WARMUP, most), f"steps; the origin's {ORIGIN_WARMUP}, at most a tenth of {steps:,.0f}"

    def _input(self) -> tuple[int, tuple[int, int]]:
        """Choose the size of the network's input."""
        if not self.stock and self.said.short_side is None:
            side: int = self.set("side", *self._side())
            canvas = _canvas(self.train.median or (side, side), side)
            self._note("canvas", f"the median photo's shape at side {side}, in multiples of {MULTIPLE}")
            return side, canvas
        short, long = ORIGIN_SIDES
        side = self.set("side", long, "the origin's, at most", "default")
        short = self.set("short_side", min(short, side), "the origin's, if the longer side leaves room", "default")
        if short > side:
            raise UserError(
                "the shorter side of the input is longer than the longer one",
                [f"short_side (--short-side) is {short}, side (--side) is {side}"],
                f"--side {short} or more",
            )
        height, width = self.train.median or (short, side)
        scale = min(short / min(height, width), side / max(height, width))
        canvas = (
            math.ceil(round(height * scale) / MULTIPLE) * MULTIPLE,
            math.ceil(round(width * scale) / MULTIPLE) * MULTIPLE,
        )
        self._note("canvas", f"the median photo, {short} to {side}; every photo keeps its shape")
        return side, canvas

    def _augmentation(self, per_epoch: float) -> None:
        if self.stock:
            why = "the origin's recipe only mirrors"
            self.set("turn", False, why, "default")
            self.set("scale_jitter", 1.0, why, "default")
            self.set("colour_jitter", 0.0, why, "default")
            return
        self.set("turn", *turn_or_not(self.train))
        passes = self._passes(per_epoch)
        # Augmentation makes photos differ from pass to pass; where there are few passes it only makes them harder.
        strong, seen = passes >= 12, f"each photo is seen about {passes:.0f} times"
        self.set("scale_jitter", 1.5 if strong else 1.2, f"the next photo may be taken from elsewhere; {seen}")
        self.set("colour_jitter", 0.4 if strong else 0.2, f"the next photo may be taken in other light; {seen}")

    def _note(self, name: str, why: str, source: Source = "derived") -> None:
        self.reasons[name] = Reason(source=source, why=why)

    def _batch_size(self, devices: int) -> tuple[int, str]:
        if self.stock:
            return 2 * devices, "the origin's 2 photos per device"
        if self.machine.device == "cpu":
            return 2 * devices, "on a CPU more, smaller steps learn more in the same time"
        return 16 * devices, "16 photos keep a GPU busy"

    def _budget(self, per_epoch: float) -> None:
        for name in BUDGETS:
            said = getattr(self.said, name)
            if said is not None:
                self.values[name] = said
                self.reasons[name] = Reason(source="user", why="you said so")
                return
        batch = self.values["batch_size"]
        if self.stock:
            self.set("epochs", float(ORIGIN_EPOCHS), "the origin's 2x schedule", "default")
            return
        most = 6_000 if self.machine.device == "cpu" else 60_000
        steps = round(min(max(1_600 / batch, 12 * per_epoch), most))
        self.set(
            "steps",
            max(steps, 1),
            f"12 passes over {round(self.pass_photos, 1):.10g} photos, at least 1,600 photos seen, at most {most:,}"
            f" steps (on a {self.machine.device.upper()})",
        )

    def _validations(self) -> None:
        """Choose how often to validate, and when to stop for it."""
        why = "the learning rate falls to the end of the budget, which a stop would cut off"
        patience = self.set("patience", 0, why, "default")
        usual, often = VALIDATIONS, max(VALIDATIONS, VALIDATIONS * patience)
        if often == usual:
            self.set("validations", usual, "often enough to see a curve, seldom enough to cost little", "default")
        else:
            self.set(
                "validations", often, f"{usual} x the patience of {patience}, so that there is an end to stop before"
            )
        count = self.values["validations"]
        # The first one counts as a rise, and after the last one there is nothing to stop.
        if patience and patience > count - 2:
            fewer = f", or --patience {count - 2} at most" if count > 2 else ""
            raise UserError(
                "so few validations can never stop the training early",
                [f"patience (--patience) is {patience}, validations (--validations) {count}; the first one is a rise"],
                f"--validations {VALIDATIONS * patience}{fewer}",
            )

    def _photos_per_s(self) -> float:
        cpu = self.machine.device == "cpu"
        nano = CPU_PHOTOS_PER_S * self.machine.cores if cpu else GPU_PHOTOS_PER_S * self.machine.count
        return nano / STOCK_SLOWER if self.stock else nano

    def _preflight(self) -> float:
        """Return the seconds that the pre-flight may take; 0 if there is none."""
        if "minutes" in self.values:
            training = float(self.values["minutes"] * 60)
        else:
            photos = self.pass_photos * self.values["repeat"]
            steps = self.values.get("steps") or self.values["epochs"] * photos / self.values["batch_size"]
            training = steps * self.values["batch_size"] / self._photos_per_s()
        share = PREFLIGHT_SHARE * training
        on = share >= PREFLIGHT_LEAST_S
        about = f"{PREFLIGHT_SHARE:.0%} of a training of about {training:.0f} s"
        rule = "are enough to test it first" if on else f"are less than the {PREFLIGHT_LEAST_S:g} s that it takes"
        if not self.set("preflight", on, f"{about} {rule}"):
            self._note("preflight_s", "there is no pre-flight")
            return 0.0
        self._note(
            "preflight_s", f"{about}, {PREFLIGHT_LEAST_S:g} to {PREFLIGHT_MOST_S:g} s, at most; beside the budget"
        )
        return round(min(max(share, PREFLIGHT_LEAST_S), PREFLIGHT_MOST_S), 1)

    def _passes(self, per_epoch: float) -> float:
        """Return how often each photo will be seen; a guess where the budget is in minutes."""
        if "minutes" in self.values:
            return float(self.values["minutes"] * 60 * self._photos_per_s() / self.pass_photos)
        if "epochs" in self.values:
            return float(self.values["epochs"] * self.values["repeat"])
        return float(self.values["steps"] / per_epoch * self.values["repeat"])

    def _side(self) -> tuple[int, str]:
        share = self.train.side_share
        largest = max(self.train.median or (384, 384))
        # An object needs about 40 pixels for its outline to be learned; more pixels cost time in proportion.
        need = 384.0
        if share is not None:
            need = 40.0 / max(share.p25, 1e-3)
        if self.machine.device == "cpu":
            low, high = 384, 640
        else:
            low, high = 640, 1024
        side = min(max(need, low), high)
        if self.train.median and largest < side:
            side = max(largest, 256)
        side = round(side / MULTIPLE) * MULTIPLE
        size = f"a quarter of the objects are smaller than {share.p25:.0%} of the photo's side; " if share else ""
        return side, f"{size}{low} to {high} on a {self.machine.device.upper()}, not over the photos' {largest}"

    def _anchors(self, side: int) -> tuple[tuple[int, ...], ...]:
        share = self.train.box_side_share
        if self.stock:
            self._note("anchor_sizes", "the origin's: a pretrained head knows them by their place", "default")
            return ORIGIN_ANCHORS
        if share is None:
            self._note("anchor_sizes", "no object to measure")
            return ((32,), (64,), (128,), (256,))
        # Four octaves centred on the middle nine tenths of the boxes. A level cannot be left out, since each has its
        # own stride, and the finest anchor is held to what its stride of 8 can place.
        low, high = share.p5 * side, share.p95 * side
        finest = min(max(math.sqrt(low * high) / 2**1.5, 16.0), 48.0)
        self._note("anchor_sizes", f"boxes are {low:.0f} to {high:.0f} pixels at side {side}")
        return tuple((round(finest * 2**level),) for level in range(4))

    def _mask_side(self, side: int) -> int:
        share = self.train.box_side_share
        usual = USUAL_MASK_SIDE
        if self.stock or share is None:
            cells: int = self.set(
                "mask_side", usual, "the origin's" if self.stock else "no object to measure", "default"
            )
            if self.stock and cells != usual:
                raise UserError(
                    f"only masks of maskrcnn-nano can have other than {usual} cells a side",
                    [f"mask_side (--mask-side) is {cells}, architecture is {self.values['architecture']}"],
                    "leave --mask-side out, or: --architecture maskrcnn-nano",
                )
            return cells
        # Fewer cells than the finest map has in a box throw away what it knows about edges; more add nothing to it.
        cell = MASK_WINDOW * share.p50 * side / usual
        why = f"a cell of {usual} would be {cell:.1f} pixels of the middle object's; the finest map has {FINEST_STRIDE}"
        cells = self.set("mask_side", 2 * usual if cell > FINEST_STRIDE else usual, why)
        return cells

    def _detections(self) -> int:
        most = max((s.most_objects for s in self.facts.splits.values()), default=0)
        room = max(100, math.ceil(most * 1.5))
        self._note("detections_per_photo", f"the fullest photo has {most} objects")
        return room


def cache_of(machine: Machine, devices: int) -> tuple[int, str]:
    """Return the memory in MB that a process has for decoded photos, and why.

    Args:
        machine: Which it is on.
        devices: How many processes train together; all on this machine, unless others have started them.
    """
    processes = machine.beside or devices
    shared = f", shared by {processes} processes" if processes > 1 else ""
    why = f"a quarter of {machine.memory_mb} MB of memory, for decoded photos{shared}"
    return machine.memory_mb // 4 // processes, why


def _canvas(size: Sequence[int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    height, width = (max(MULTIPLE, round(v * scale / MULTIPLE) * MULTIPLE) for v in size)
    return height, width


def turn_or_not(train: SplitFacts) -> tuple[bool, str]:
    """Return whether photos may be turned by any angle, and why."""
    spread = train.axis_spread
    elongation = train.elongation
    if spread is None or elongation is None:
        return False, "no object to tell directions from"
    if elongation.p50 < 1.3:
        return True, f"the objects are round (elongation {elongation.p50:.1f}): no direction is theirs"
    lies = spread >= 0.6
    text = "lie in all directions" if lies else "have a preferred direction"
    return lies, f"the objects {text} (spread {spread:.2f} of 1)"


def base_rate(architecture: str, optimiser: str, batch: int) -> float:
    """Return the learning rate by rule.

    Example:
        >>> base_rate("maskrcnn-r50-fpn", "sgd", 2), base_rate("maskrcnn-nano", "adamw", 2)
        (0.0025, 0.001)
    """
    if optimiser == "sgd":
        return ORIGIN_RATE * batch / ORIGIN_BATCH
    if architecture == "maskrcnn-nano":
        return BASE_RATE * math.sqrt(batch / BASE_BATCH)
    return TIMM_RATE * math.sqrt(batch / ORIGIN_BATCH)


def _epoch_text(photos: float, repeat: int, batch: int, per_epoch: float, whole: bool) -> str:
    """Say how many steps an epoch has.

    Example:
        >>> _epoch_text(4535, 4, 2, 9070.0, True)
        '4535 photos x 4 repeats / 2 per step = 9070 steps per epoch'
    """
    times = f" x {repeat} repeats" if repeat > 1 else ""
    total = f" = {per_epoch:.10g} steps per epoch" if whole else ""
    return f"{round(photos, 1):.10g} photos{times} / {batch} per step{total}"
