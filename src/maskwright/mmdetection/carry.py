"""What a config of MMDetection says -> settings of `train`, and the commands that take the rest."""

from __future__ import annotations

import math
import posixpath
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from maskwright.errors import UserError
from maskwright.formats import SPLIT_NAMES
from maskwright.mmdetection.account import KEYS, Account, Said, count, short, text
from maskwright.mmdetection.config import Config
from maskwright.mmdetection.literals import Table
from maskwright.mmdetection.zoo import PHOTOS_A_STEP, RATE

PHOTOS_A_DEVICE = 2
"""So many photos per GPU are MMDetection's usual number, and what the plan gives a stock network."""

MOST_GPUS = 64
"""A rate that fits MMDetection's rule for at most so many GPUs is taken to follow it."""

_PLAIN = frozenset(
    {
        *("LoadImageFromFile", "LoadAnnotations", "FilterAnnotations", "Normalize", "Pad", "DefaultFormatBundle"),
        *("ImageToTensor", "ToTensor", "Collect", "PackDetInputs"),
        *("Resize", "RandomResize", "RandomChoiceResize", "RandomChoice", "RandomFlip"),
    }
)
"""Transforms that are carried over by themselves, or that every pipeline needs."""

_RESIZES = frozenset({"Resize", "RandomResize", "RandomChoiceResize"})

_RESNETS = {18: "resnet18", 34: "resnet34", 101: "resnet101", 152: "resnet152"}
_RESNEXTS = frozenset({"resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"})


def carry(config: Config) -> tuple[Account, list[str]]:
    """Carry over what matters.

    Returns:
        The account of everything that the config says, with the settings; and the commands that prepare its data.

    Raises:
        UserError: If the config sets nothing that MMDetection reads.
    """
    if not KEYS & config.values.keys():
        raise UserError(
            "the file is not a config of MMDetection: it sets no name that MMDetection reads",
            [f"{config.files[0]} sets {', '.join(map(str, config.values)) or 'nothing'}"],
            "name a config that tools/train.py of MMDetection takes",
        )
    carrier = _Carrier(config)
    if config.absent:
        are, them = ("is", "it") if len(config.absent) == 1 else ("are", "them")
        carrier.notes.append(
            f"{', '.join(config.absent)} {are} not there, and MMDetection's own values are assumed; if you have edited"
            f" {them}, put {them} where the config looks for {them}"
        )
    carrier.model()
    carrier.weights()
    carrier.batch()
    train = carrier.datasets("data.train" if carrier.old else "train_dataloader.dataset")
    carrier.pipeline(train)
    carrier.optimiser()
    carrier.schedule()
    carrier.runtime()
    carrier.names(train)
    commands = carrier.data(train)
    carrier.close()
    return carrier, commands


class _Carrier(Account):
    """Goes through a config, part by part."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.old = config.dialect == "2.x"
        self.photos_a_step = PHOTOS_A_STEP
        self.photos_a_gpu: int | None = None

    # What the network is

    def model(self) -> None:
        kind = self.find("model.type")
        if kind is None:
            return
        if kind.value != "MaskRCNN":
            why = f"there is no {text(kind.value)} here; the architecture is left open (--architecture)"
            self.tell("dropped", kind, f"{why}, and the rate and the schedule may not suit it")
            return
        depth, backbone = self.find("model.backbone.depth"), self.find("model.backbone.type")
        name = self.timm_name(backbone, depth)
        stock = name == "resnet50"
        what = "Mask R-CNN on ResNet-50 with a pyramid" if stock else "the heads and the pyramid of Mask R-CNN"
        self.carry("architecture", "maskrcnn-r50-fpn", kind, what)
        if backbone is not None and name is None:
            self.tell("dropped", backbone, "its name in timm is not known here; choose one: --backbone NAME")
        elif backbone is not None and not stock:
            self.carry("backbone", name, backbone, "as timm calls it")
        style = self.find("model.backbone.style")
        if style is not None and style.value == "caffe":
            self.tell("derived", style, "strides and colours are those of the weights that training starts from")

    def timm_name(self, kind: Said | None, depth: Said | None) -> str | None:
        if kind is None or depth is None or type(depth.value) is not int:
            return None
        if kind.value == "ResNet":
            return "resnet50" if depth.value == 50 else _RESNETS.get(depth.value)
        if kind.value == "ResNeXt":
            groups, width = self.find("model.backbone.groups"), self.find("model.backbone.base_width")
            name = f"resnext{depth.value}_{groups and groups.value}x{width and width.value}d"
            return name if name in _RESNEXTS else None
        return None

    def weights(self) -> None:
        whole = self.find("load_from")
        if whole is not None and isinstance(whole.value, str):
            if "://" not in whole.value:
                self.carry("weights", whole.value, whole, "the same file; its heads are rebuilt for your categories")
                self.seen |= {"model.pretrained", "model.backbone.init_cfg"}
                return
            self.tell("dropped", whole, "nothing is downloaded: fetch the file, then train with --weights FILE")
        part = self.find("model.pretrained") or self.find("model.backbone.init_cfg.checkpoint")
        part = part or self.find("model.backbone.init_cfg")
        self.seen.add("model.backbone.init_cfg")
        if part is None or isinstance(part.value, Table):
            return
        if part.value is None:
            self.carry("weights", "none", part, "the config starts from random numbers")
        elif isinstance(part.value, str) and part.value.startswith(("torchvision://", "open-mmlab://")):
            self.carry("weights", "imagenet", part, f"{part.value} is a backbone that has learned ImageNet")
        else:
            self.tell("dropped", part, "weights of a backbone alone; training starts from its own (--weights)")

    # How it is trained

    def batch(self) -> None:
        old = ("data.train_dataloader.samples_per_gpu", "data.samples_per_gpu", "data.imgs_per_gpu")
        said = self.number(*(old if self.old else ("train_dataloader.batch_size",)), least=1, whole=True)
        if said is None:
            return
        counted = "runner.max_iters" if self.old else "train_cfg.max_iters"
        stock, in_steps = "architecture" in self.settings, self.config.find(counted) is not None
        if said.value == PHOTOS_A_DEVICE and stock and not in_steps:
            self.photos_a_gpu = said.value
            self.tell("derived", said, "2 photos per device here too: the batch is 2 x devices (--batch-size)")
            return
        why = "photos a step, over all devices; MMDetection counts them per GPU, this is one"
        if self.carry("batch_size", said.value, said, why):
            self.photos_a_gpu = said.value

    def datasets(self, path: str) -> list[str]:
        """Return where the innermost datasets are; a RepeatDataset on the way is carried over."""
        found = self.config.find(path)
        value = None if found is None else found[0]
        if isinstance(value, list | tuple):
            return [inner for index in range(len(value)) for inner in self.datasets(f"{path}.{index}")]
        if not isinstance(value, Table):
            return []
        holders = (key for key in ("dataset", "datasets") if isinstance(value.get(key), Table | list | tuple))
        holder = next(holders, None)
        if holder is None:
            return [path]
        kind = self.find(f"{path}.type")
        if kind is not None and kind.value == "RepeatDataset":
            times = self.number(f"{path}.times", least=1, whole=True)
            if times is not None:
                often = self.settings.get("repeat", 1) * times.value
                self.carry("repeat", often, times, f"steps an epoch: your photos x {often} / photos a step")
        elif kind is not None and kind.value == "ClassBalancedDataset":
            share = self.number(f"{path}.oversample_thr", least=0)
            if share is not None:
                why = "fractions of a repeat are drawn anew in each epoch; MMDetection rounds them up once"
                self.carry("repeat_rare", share.value, share, why)
        elif kind is not None:
            self.tell("dropped", kind, "the datasets inside it are read without it")
        return self.datasets(f"{path}.{holder}")

    def pipeline(self, train: list[str]) -> None:
        said = self.find(*(f"{path}.pipeline" for path in train))
        if said is None or not isinstance(said.value, list | tuple):
            return
        steps = list(_steps(said.value))
        self.scale(steps, said)
        self.flip(steps, said)
        for step in steps:
            if text(step.get("type")) not in _PLAIN:
                one = _part(step, "type", said)
                self.tell("dropped", one, "there is nothing like it here; see --scale-jitter, --colour-jitter, --turn")
        why = "the plan says whether photos are also turned, zoomed and coloured at random"
        self.tell("derived", said, f"{why} (--turn, --scale-jitter, --colour-jitter)")

    def scale(self, steps: list[Table], pipeline: Said) -> None:
        """Carry over the size of the input; (1333, 800) is the longer side and the shorter one, whatever the order."""
        keys = ("img_scale", "scale", "scales")
        found = [(step, key) for step in steps if text(step.get("type")) in _RESIZES for key in keys if key in step]
        if not found:
            return
        step, key = found[0]
        said = _part(step, key, pipeline)
        sizes = _sizes(step[key])
        if not sizes:
            self.tell("dropped", said, "it is not a size, nor several; the input's size is derived (--side)")
            return
        largest = max(sizes, key=lambda size: (min(size), max(size)))
        which = f"the largest of {len(sizes)}" if len(sizes) > 1 else "at most"
        if self.carry("side", max(largest), said, f"the longer side of the input in pixels, {which}"):
            self.carry("short_side", min(largest), said, f"the shorter side, {which}")
        if len(sizes) > 1:
            span = min(largest) / min(min(size) for size in sizes)
            self.tell("derived", said, f"one size, and the zoom that the plan has (--scale-jitter {span:.3g} is near)")
        elif "ratio_range" in step:
            one = _part(step, "ratio_range", pipeline)
            self.tell("derived", one, "the zoom is that of the plan (--scale-jitter)")
        if step.get("keep_ratio") is False:
            self.tell("dropped", _part(step, "keep_ratio", pipeline), "photos keep their shape here")

    def flip(self, steps: list[Table], pipeline: Said) -> None:
        step = next((step for step in steps if step.get("type") == "RandomFlip"), None)
        if step is None:
            self.carry("flip", False, pipeline, "there is no RandomFlip in it")
            return
        key = next((key for key in ("flip_ratio", "prob") if key in step), None)
        said = _part(step, key or "type", pipeline)
        ratio = step[key] if key else None
        ratios = ratio if isinstance(ratio, list | tuple) else [ratio]
        some = any(isinstance(one, int | float) and one > 0 for one in ratios)
        direction = text(step.get("direction", "horizontal"))
        other = f"; every second photo here, {text(ratio)} there" if some and ratio != 0.5 else ""
        self.carry("flip", some and "horizontal" in direction, said, f"photos are mirrored left-right{other}")
        if direction != "horizontal":
            one = _part(step, "direction", pipeline)
            self.tell("dropped", one, "photos are mirrored left-right only; --turn turns them by any angle")

    def optimiser(self) -> None:
        at = "optimizer" if self.old else "optim_wrapper.optimizer"
        kind = self.find(f"{at}.type")
        if kind is None:
            return
        ours = {"SGD": "sgd", "AdamW": "adamw"}.get(text(kind.value))
        if ours is None:
            self.tell("dropped", kind, "there are sgd and adamw here; the optimiser and its numbers are left open")
            self.seen.add(at)
            return
        self.carry("optimiser", ours, kind, "the same")
        rate = self.number(f"{at}.lr")
        if rate is not None:
            self.rate(rate, ours)
        momentum = self.number(f"{at}.momentum")
        if momentum is not None and ours == "sgd":
            self.carry("momentum", momentum.value, momentum, "the same")
        decay = self.number(f"{at}.weight_decay")
        if decay is not None:
            self.carry("weight_decay", decay.value, decay, "the same")
        wise = "optimizer.paramwise_cfg" if self.old else "optim_wrapper.paramwise_cfg"
        share = self.number(f"{wise}.custom_keys.backbone.lr_mult")
        if share is not None:
            self.carry("backbone_rate", share.value, share, "the backbone's rate as a share of the rest's")
        else:
            self.carry("backbone_rate", 1.0, kind, "the backbone learns at the rate of the rest")
        clip = self.number("optimizer_config.grad_clip.max_norm", "optim_wrapper.clip_grad.max_norm")
        if clip is not None:
            self.carry("clip_norm", clip.value, clip, "gradients are scaled down to this norm")
            return
        none = self.find("optimizer_config.grad_clip", "optim_wrapper.clip_grad")
        if none is not None:
            self.tell("derived", none, "gradients are clipped, at a norm that a sound training seldom reaches")

    def rate(self, said: Said, optimiser: str) -> None:
        """Carry the learning rate over.

        MMDetection's rates are for all GPUs together, 8 with 2 photos each unless `auto_scale_lr` says otherwise, and
        it does not scale them unless it is told to. So a rate in a config is either MMDetection's, or one that somebody
        has divided for fewer GPUs by hand; which of them has to be guessed by its value. What follows MMDetection's
        rule is left to the plan, whose rule for SGD is the same: only the plan knows how many photos a step has.
        """
        batch = self.photos_a_gpu
        if batch is None:
            self.tell("derived", said, "the config does not say for how many photos a step it is")
            return
        base, on = (self.config.find(f"auto_scale_lr.{name}") for name in ("base_batch_size", "enable"))
        told = PHOTOS_A_STEP if base is None or type(base[0]) is not int or base[0] < 1 else base[0]
        rate, by_hand = float(said.value), told == PHOTOS_A_STEP and optimiser == "sgd" and not (on and on[0] is True)
        fits = PHOTOS_A_STEP * rate / RATE  # the photos a step for which MMDetection's own rate would be this
        photos, gpus = round(fits), round(fits) // batch
        follows = abs(fits - photos) <= 1e-6 * fits and gpus * batch == photos and 1 <= gpus <= MOST_GPUS
        one_device = RATE * batch / PHOTOS_A_STEP
        eight = " (8 GPUs x 2)" if told == PHOTOS_A_STEP else ""
        if by_hand and follows and photos != told:
            divided = f"{rate:g} is MMDetection's {RATE:g} for {told} photos a step, divided for {photos}"
            why = f"{divided} ({count(gpus, 'GPU')} x {batch})"
            other = rate * batch / told
        elif by_hand and rate < one_device:
            photos, other = batch, rate * batch / told
            why = f"{rate:g} is less than MMDetection's rule gives for {batch} photos a step, {one_device:g}: kept"
        else:
            photos, other = told, rate
            why = f"{rate:g} is for {told} photos a step{eight}"
        self.photos_a_step = photos
        ours = float(f"{rate * batch / photos:.6g}")
        ruled = optimiser == "sgd" and abs(ours - one_device) <= 1e-5 * one_device
        if ruled:
            why += f"; the plan's rule is the same: {RATE:g} x photos a step / {PHOTOS_A_STEP}, {ours:g} for {batch}"
        elif photos != batch:
            why += f"; for {batch} it is {rate:g} x {batch} / {photos}"
        if other != ours:
            meant = batch if other == rate else told
            why += f"; if it was meant for {meant} a step: --learning-rate {other:.4g}"
        if ruled:
            self.tell("derived", said, why)
            return
        self.carry("learning_rate", ours, said, f"{why}; this is for one device, in proportion for more")

    def schedule(self) -> None:
        epochs = self.number(*(("runner.max_epochs", "total_epochs") if self.old else ("train_cfg.max_epochs",)))
        steps = self.number("runner.max_iters" if self.old else "train_cfg.max_iters", least=1, whole=True)
        self.seen |= {"runner.type", "train_cfg.type", "train_cfg.by_epoch", "lr_config.gamma"}
        if epochs is not None:
            self.carry("epochs", epochs.value, epochs, "the same")
        elif steps is not None:
            batch = self.photos_a_gpu or self.photos_a_step
            ours = math.ceil(steps.value * self.photos_a_step / batch)
            as_many = f"they see as many photos as {steps.value} steps of {self.photos_a_step}"
            self.carry("steps", ours, steps, "the same" if ours == steps.value else as_many)
        length = None if epochs is None else float(epochs.value)
        said = self.config.find("lr_config" if self.old else "param_scheduler")
        if self.old and said is not None and isinstance(said[0], Table):
            self.old_schedule(Said("lr_config", *said), length)
        elif not self.old and said is not None:
            self.seen.add("param_scheduler")
            self.new_schedule(Said("param_scheduler", *said), length)

    def old_schedule(self, said: Said, epochs: float | None) -> None:
        policy, every = self.find("lr_config.policy"), self.find("lr_config.step")
        kind = None if policy is None else text(policy.value)
        by_epoch = said.value.get("by_epoch", True) is not False
        if kind == "step" and every is not None:
            self.drops(every, every.value, by_epoch, epochs, said.value.get("gamma", 0.1))
        elif policy is not None and kind in {"CosineAnnealing", "fixed"}:
            self.smooth(policy, constant=kind == "fixed")
        elif policy is not None:
            self.tell("dropped", policy, "there are steps and cosine here; the schedule is left open (--schedule)")
        length = self.number("lr_config.warmup_iters", whole=True)
        if said.value.get("warmup") is None:
            self.carry("warmup", 0, Said("lr_config.warmup", None, said.where), "the config has none")
        elif length is not None:
            linear = said.value["warmup"] == "linear"
            self.warmup(length, length.value, said.value.get("warmup_by_epoch") is True, linear)

    def new_schedule(self, said: Said, epochs: float | None) -> None:
        parts = said.value if isinstance(said.value, list | tuple) else [said.value]
        warm, falls = False, False
        for part in (part for part in parts if isinstance(part, Table)):
            kind, by_epoch = text(part.get("type")), part.get("by_epoch", True) is not False
            if kind in {"LinearLR", "ConstantLR"} and part.get("begin", 0) == 0 and not warm:
                warm, end = True, part.get("end")
                one = _part(part, "end" if "end" in part else "type", said)
                if type(end) is int and end >= 0:
                    self.warmup(one, end, by_epoch, kind == "LinearLR")
                else:
                    self.tell("dropped", one, "a warm-up without an end (--warmup)")
                continue
            falls = True
            if kind in {"MultiStepLR", "StepLR"}:
                key = "milestones" if kind == "MultiStepLR" else "step_size"
                one = _part(part, key if key in part else "type", said)
                self.drops(one, part.get(key), by_epoch, epochs, part.get("gamma", 0.1))
            elif kind == "CosineAnnealingLR":
                self.smooth(_part(part, "type", said), constant=False)
            else:
                why = "there are steps and cosine here; the schedule is left open (--schedule)"
                self.tell("dropped", _part(part, "type", said), why)
        if not warm:
            self.carry("warmup", 0, said._replace(value=None), "the config has none")
        if not falls:
            self.smooth(said._replace(value=None), constant=True)

    def smooth(self, said: Said, *, constant: bool) -> None:
        if constant:
            self.carry("schedule", "steps", said, "the rate stays as it is")
            self.carry("drops", [], said, "it never drops")
        else:
            self.carry("schedule", "cosine", said, "the rate falls along half a cosine")

    def drops(self, said: Said, every: Any, by_epoch: bool, epochs: float | None, gamma: Any) -> None:
        """Carry over at which epochs the rate drops."""
        if not by_epoch or epochs is None:
            epoch = f"an epoch is the step x {self.photos_a_step} / your photos"
            self.tell("dropped", said, f"it counts steps, not epochs: {epoch} (--schedule steps --drops EPOCH)")
            return
        if type(every) is int and every >= 1:
            every = [every * n for n in range(1, min(math.ceil(epochs / every), 1_000))]
        if not isinstance(every, list | tuple) or not all(type(one) in {int, float} for one in every):
            self.tell("dropped", said, "it is not a list of epochs; the schedule is left open (--schedule)")
            return
        tenth = "" if gamma == 0.1 else f", to a tenth, where the config has {text(gamma)}"
        if self.carry("drops", list(every), said, f"the epochs at which the rate drops{tenth}"):
            self.carry("schedule", "steps", said, "the rate drops at these")

    def warmup(self, said: Said, length: int, by_epoch: bool, linear: bool) -> None:
        if by_epoch:
            self.tell("dropped", said, "a warm-up of epochs; here it is in steps (--warmup)")
        else:
            self.carry("warmup", length, said, f"steps over which the rate rises{'' if linear else ', evenly'}")

    def runtime(self) -> None:
        every = self.number("log_config.interval" if self.old else "default_hooks.logger.interval", least=1, whole=True)
        if every is not None:
            self.carry("log_every", every.value, every, "steps between log lines")
        seed = self.number("seed" if self.old else "randomness.seed", whole=True)
        if seed is not None:
            self.carry("seed", seed.value, seed, "the same, though what is drawn from it differs")

    # What it is trained on

    def names(self, train: list[str]) -> None:
        """Tell of the class names and their number, which are those of the data here."""
        inner = ("classes", "metainfo.classes", "metainfo.CLASSES")
        outer = ("classes", "CLASSES", "class_name", "class_names", "metainfo.classes", "metainfo.CLASSES")
        names = self.find(*(f"{path}.{key}" for path in train for key in inner), *outer)
        self.seen.add("metainfo")
        heads = ("bbox_head", "mask_head", "bbox_head.0", "mask_head.0")
        number = self.find(*(f"model.roi_head.{head}.num_classes" for head in heads))
        several = names is not None and isinstance(names.value, list | tuple)
        if names is not None:
            listed = short(text(names.value), 300)
            self.tell("derived", names, f"categories are those of the data, by its ids; it should have {listed}")
        if number is not None:
            self.tell("derived", number, "so many categories as the data has; nobody types their number")
        if names is not None and several and number is not None and number.value != len(names.value):
            many = count(len(names.value), "class name")
            self.notes.append(f"{number.path} is {text(number.value)}, but the config has {many}")

    def data(self, train: list[str]) -> list[str]:
        """Tell of annotation files and photo folders; return the commands that take them."""
        name = "data.{}" if self.old else "{}_dataloader.dataset"
        held = {split: self.datasets(name.format(split)) for split in ("val", "test")}
        for paths in held.values():
            self.seen |= {f"{path}.{key}" for path in paths for key in ("classes", "metainfo")}
        found: dict[str, tuple[str, str]] = {}
        for split, paths in {"train": train, **held}.items():
            pairs = [pair for path in paths if (pair := self.pair(path)) is not None]
            if pairs:
                found[split] = pairs[0]
            if len(pairs) > 1:
                self.notes.append(f"{split} has {len(pairs)} annotation files; the command below takes the first")
        return _commands(found)

    def pair(self, path: str) -> tuple[str, str] | None:
        """Return annotation file and photo folder of a dataset, as seen from where MMDetection was started."""
        root = self.find(f"{path}.data_root")
        ann = self.find(f"{path}.ann_file")
        photos = self.find(f"{path}.img_prefix", f"{path}.data_prefix.img", f"{path}.data_prefix.img_path")
        if ann is None:
            return None
        if not isinstance(ann.value, str):
            self.tell("dropped", ann, "it is not one file; prepare takes one COCO file per split")
            return None
        top = root.value if root is not None and isinstance(root.value, str) else ""
        folder = photos.value if photos is not None and isinstance(photos.value, str) else ""
        file, folder = posixpath.join(top, ann.value), posixpath.join(top, folder)
        self.tell("carried", ann, f"{file}, photos in {folder or '.'}: for prepare, below")
        return file, folder


def _part(step: Table, key: str, pipeline: Said) -> Said:
    """Return one entry of a transform or of a scheduler, named by its type."""
    name = text(step.get("type"))
    return Said(name if key == "type" else f"{name}.{key}", step.get(key), step.where.get(key, pipeline.where))


def _steps(pipeline: Iterable[Any]) -> Iterator[Table]:
    """Yield the transforms of a pipeline, those inside a random choice included."""
    for step in pipeline:
        if isinstance(step, list | tuple):
            yield from _steps(step)
        elif isinstance(step, Table):
            yield step
            for key in ("transforms", "policies"):
                if isinstance(step.get(key), list | tuple):
                    yield from _steps(step[key])


def _sizes(scale: Any) -> list[tuple[int, int]]:
    """Return the sizes of a Resize: a number, a pair, or several pairs; nothing if it is something else."""
    several = scale if isinstance(scale, list | tuple) and scale and isinstance(scale[0], list | tuple) else [scale]
    sizes = [(one, one) if type(one) is int else one for one in several]
    sane = all(
        isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        for size in sizes
    )
    return [(size[0], size[1]) for size in sizes] if sane else []


def _commands(found: dict[str, tuple[str, str]]) -> list[str]:
    """Return the `prepare` command for annotation files and photo folders by split."""
    if "train" not in found:
        return ["maskwright prepare RAW -o DATA"]
    files = {file for file, _ in found.values()}
    tops = {_top(file) for file in files}
    if len(files) > 1 and len(tops) == 1:
        top = tops.pop()
        if all(_holds(top, folder) for _, folder in found.values()):
            return [f"maskwright prepare {shlex.quote(top)} -o DATA"]
    file, folder = found["train"]
    return [f"maskwright prepare {shlex.quote(folder or '.')} {shlex.quote(file)} -o DATA"]


def _holds(top: str, folder: str) -> bool:
    folder = posixpath.normpath(folder or ".")
    return not folder.startswith(("/", "..")) if top == "." else f"{folder}/".startswith(f"{top}/")


def _top(file: str) -> str:
    """Return the folder that holds a COCO file, or that holds its `annotations` folder."""
    folder = posixpath.dirname(posixpath.normpath(file))
    above, name = posixpath.split(folder)
    return (above if name.lower() in {"annotations", *SPLIT_NAMES} else folder) or "."
