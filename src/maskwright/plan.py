"""Facts + what the user said -> Plan: every number of a training, each with where it comes from and why.

The rules are plain arithmetic on the facts of the data and of the machine, so that a plan can be made, read and tested
without a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from maskwright.errors import UserError
from maskwright.facts import Facts, SplitFacts
from maskwright.settings import TrainSettings

Source = Literal["default", "derived", "user"]

MULTIPLE = 32  # heights and widths of the network's input: multiples of its coarsest stride
BASE_RATE = 1e-3  # AdamW's peak rate for a batch of 2, found by trial on hammers, drawn and real
BASE_BATCH = 2
CPU_PHOTOS_PER_S = 2.5  # that one core trains on, roughly; only augmentation and pre-flight go by it
GPU_PHOTOS_PER_S = 50.0
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
        memory_mb: Main memory.
        bf16: Whether the device computes bf16 natively (a CPU without it is ten times slower in bf16 than in 32 bits).
        started: How many processes others (torchrun, SLURM, Ray) have started to train together; 0: none.
    """

    device: Literal["cpu", "cuda"]
    count: int
    name: str
    cores: int
    memory_mb: int
    bf16: bool
    started: int = 0


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reason(_Frozen):
    """Where a number of a plan comes from, and why it is what it is."""

    source: Source
    why: str


class Plan(_Frozen):
    """Every number of a training; nothing is `None` but the two budgets that are not the one in force.

    Attributes:
        settings: All of `TrainSettings`, each given; of minutes, epochs and steps the one in force.
        canvas: `(height, width)` that training photos are put on.
        anchor_sizes: Side of the anchors in pixels of the input, per pyramid level (strides 8, 16, 32, 64).
        detections_per_photo: At most so many objects are found in a photo.
        categories: Names, in order of label 1..C.
        photos: Photos to train on.
        steps_per_epoch: Photos / batch size.
        cache_mb: Memory for decoded photos.
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
    preflight_s: float = 0.0  # plans of older runs have none, and a run that goes on needs none

    @property
    def steps(self) -> int | None:
        """Optimiser steps; `None` where the budget is minutes and the steps are as many as fit."""
        if self.settings.epochs is not None:
            return max(1, math.ceil(self.settings.epochs * self.steps_per_epoch))
        return self.settings.steps

    def table(self) -> str:
        """Return the plan as lines of name, value, source and reason."""
        values = {k: v for k, v in self.settings.model_dump().items() if v is not None}
        values |= {
            "canvas": f"{self.canvas[1]} x {self.canvas[0]}",
            "anchor_sizes": " ".join(",".join(str(s) for s in level) for level in self.anchor_sizes),
            "detections_per_photo": self.detections_per_photo,
            "categories": ", ".join(self.categories),
            "photos": self.photos,
            "steps_per_epoch": f"{self.steps_per_epoch:g}",
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
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan(facts: Facts, settings: TrainSettings, machine: Machine) -> Plan:
    """Derive every number of a training.

    Args:
        facts: Of the data, from `check`.
        settings: What the user said; `None` means: derive it.
        machine: What training runs on.

    Raises:
        UserError: If what the user said cannot be: a batch that the devices cannot share.
    """
    return _Planner(facts, settings, machine).plan()


class _Planner:
    """Collects values with their reasons; a value that the user gave is taken, whatever the rule would say."""

    def __init__(self, facts: Facts, settings: TrainSettings, machine: Machine) -> None:
        self.facts, self.said, self.machine = facts, settings, machine
        self.train: SplitFacts = facts.splits["train"]
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, Reason] = {}

    def set(self, name: str, value: Any, why: str, source: Source = "derived") -> Any:
        said = getattr(self.said, name, None)
        if said is not None:
            value, source, why = said, "user", f"you said so (the rule: {_text(value)}, {why})"
        self.values[name] = value
        self.reasons[name] = Reason(source=source, why=why)
        return value

    def plan(self) -> Plan:
        train, cpu = self.train, self.machine.device == "cpu"
        default: Source = "default"
        self.set("architecture", "maskrcnn-nano", "learns on a CPU in minutes", default)
        self.set("weights", "imagenet", "a backbone that has seen photos needs far fewer of yours", default)
        self.set(
            "seed", 0, "the same seed on the same machine gives the same weights (with a budget in steps)", default
        )
        if self.machine.started:
            devices = self.set("devices", self.machine.started, "so many processes were started to train together")
        else:
            devices = self.set("devices", 1 if cpu else self.machine.count, f"{self.machine.name}")
        batch = self.set("batch_size", *self._batch_size(devices))
        if batch % devices:
            raise UserError(
                "every device must get as many photos as every other",
                [f"a batch of {batch} photos over {devices} devices"],
                f"--batch-size {math.ceil(batch / devices) * devices}",
            )
        per_epoch = train.photos / batch
        crowds = f"; {train.crowd} crowd objects in them teach nothing" if train.crowd else ""
        self._note("photos", f"those of the train split{crowds}")
        self._note("steps_per_epoch", f"{train.photos} photos / {batch} per step")
        self._budget(per_epoch)
        rate = BASE_RATE * math.sqrt(batch / BASE_BATCH)
        self.set("learning_rate", rate, f"{BASE_RATE:g} x sqrt({batch} photos per step / {BASE_BATCH})")
        self.set("backbone_rate", 0.3, "the pretrained part needs smaller steps than the new parts", default)
        self.set("weight_decay", 0.02, "AdamW; norms and biases are left out", default)
        self.set("clip_norm", 10.0, "one odd photo must not throw the weights away", default)
        side = self.set("side", *self._side())
        canvas = _canvas(train.median or (side, side), side)
        self._note("canvas", f"the median photo's shape at side {side}, in multiples of {MULTIPLE}")
        self.set("flip", True, "a mirrored object is still that object", default)
        self.set("turn", *self._turn())
        passes = self._passes(per_epoch)
        # Augmentation makes photos differ from pass to pass; where there are few passes it only makes them harder.
        strong, seen = passes >= 12, f"each photo is seen about {passes:.0f} times"
        self.set("scale_jitter", 1.5 if strong else 1.2, f"the next photo may be taken from elsewhere; {seen}")
        self.set("colour_jitter", 0.4 if strong else 0.2, f"the next photo may be taken in other light; {seen}")
        if cpu:
            why = "this CPU computes bf16 natively" if self.machine.bf16 else "this CPU has no fast bf16"
            # Depthwise convolutions, the nano's first stages, lose more in bf16 than its dense ones gain.
            self.set("precision", "32", f"{why}, and depthwise layers are slow in bf16 on CPUs")
        else:
            self.set(
                "precision", "bf16" if self.machine.bf16 else "16", "half the memory and twice the speed on this GPU"
            )
        self.set("workers", self.machine.cores, f"{self.machine.cores} cores")
        self.set("validations", 4, "often enough to see a curve, seldom enough to cost little", default)
        self.set("log_every", 10, "a line every few seconds", default)
        self.set("micro_batch", math.ceil(batch / devices), "all of a device's share; halved if memory is short")
        self.set("ema", 0.0, "the weights themselves are the result", default)
        self.set("patience", 0, "the learning rate falls to the end of the budget, which a stop would cut off", default)
        self.set("tracker", "none", "log.jsonl and TensorBoard have it all", default)
        self.set("on", "here", "on this machine", default)
        anchors = self._anchors(side)
        room = self._detections()
        memory = self.machine.memory_mb // 4
        self._note("cache_mb", f"a quarter of {self.machine.memory_mb} MB of memory, for decoded photos")
        names = tuple(c.name for c in self.facts.categories)
        self._note("categories", "from the data")
        seconds = self._preflight()
        return Plan(
            settings=TrainSettings(**self.values),
            canvas=canvas,
            anchor_sizes=anchors,
            detections_per_photo=room,
            categories=names,
            photos=train.photos,
            steps_per_epoch=round(per_epoch, 4),
            cache_mb=memory,
            reasons=self.reasons,
            preflight_s=seconds,
        )

    def _note(self, name: str, why: str, source: Source = "derived") -> None:
        self.reasons[name] = Reason(source=source, why=why)

    def _batch_size(self, devices: int) -> tuple[int, str]:
        if self.machine.device == "cpu":
            return 2 * devices, "on a CPU more, smaller steps learn more in the same time"
        return 16 * devices, "16 photos keep a GPU busy"

    def _budget(self, per_epoch: float) -> None:
        for name in ("minutes", "epochs", "steps"):
            said = getattr(self.said, name)
            if said is not None:
                self.values[name] = said
                self.reasons[name] = Reason(source="user", why="you said so")
                return
        batch = self.values["batch_size"]
        most = 6_000 if self.machine.device == "cpu" else 60_000
        steps = round(min(max(1_600 / batch, 12 * per_epoch), most))
        self.set(
            "steps",
            max(steps, 1),
            f"12 passes over {self.train.photos} photos, at least 1,600 photos seen, at most {most:,} steps"
            f" (on a {self.machine.device.upper()})",
        )

    def _photos_per_s(self) -> float:
        cpu = self.machine.device == "cpu"
        return CPU_PHOTOS_PER_S * self.machine.cores if cpu else GPU_PHOTOS_PER_S * self.machine.count

    def _preflight(self) -> float:
        """Return the seconds that the pre-flight may take; 0 if there is none."""
        if "minutes" in self.values:
            training = float(self.values["minutes"] * 60)
        else:
            steps = self.values.get("steps") or self.values["epochs"] * self.train.photos / self.values["batch_size"]
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
            return float(self.values["minutes"] * 60 * self._photos_per_s() / self.train.photos)
        if "epochs" in self.values:
            return float(self.values["epochs"])
        return float(self.values["steps"] / per_epoch)

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

    def _turn(self) -> tuple[bool, str]:
        spread = self.train.axis_spread
        elongation = self.train.elongation
        if spread is None or elongation is None:
            return False, "no object to tell directions from"
        if elongation.p50 < 1.3:
            return True, f"the objects are round (elongation {elongation.p50:.1f}): no direction is theirs"
        lies = spread >= 0.6
        text = "lie in all directions" if lies else "have a preferred direction"
        return lies, f"the objects {text} (spread {spread:.2f} of 1)"

    def _anchors(self, side: int) -> tuple[tuple[int, ...], ...]:
        share = self.train.box_side_share
        if share is None:
            self._note("anchor_sizes", "no object to measure")
            return ((32,), (64,), (128,), (256,))
        # Four octaves centred on the middle nine tenths of the boxes. A level cannot be left out, since each has its
        # own stride, and the finest anchor is held to what its stride of 8 can place.
        low, high = share.p5 * side, share.p95 * side
        finest = min(max(math.sqrt(low * high) / 2**1.5, 16.0), 48.0)
        self._note("anchor_sizes", f"boxes are {low:.0f} to {high:.0f} pixels at side {side}")
        return tuple((round(finest * 2**level),) for level in range(4))

    def _detections(self) -> int:
        most = max((s.most_objects for s in self.facts.splits.values()), default=0)
        room = max(100, math.ceil(most * 1.5))
        self._note("detections_per_photo", f"the fullest photo has {most} objects")
        return room


def _canvas(size: Sequence[int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    height, width = (max(MULTIPLE, round(v * scale / MULTIPLE) * MULTIPLE) for v in size)
    return height, width
