"""The settings of every stage: one definition gives the flag, its check, its help and its JSON.

`None` means: derive it. Unknown names are errors that offer the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskwright.errors import Problem, UserError, nearest

Share = Annotated[float, Field(ge=0, le=1)]

FormName = Literal[
    "folders",
    "same-folder",
    "category-folders",
    "instance-files",
    "voc",
    "colours",
    "cityscapes",
    "trimap",
    "coco",
    "labelme",
    "via",
    "yolo",
    "cvat",
    "label-studio",
]
"""Every way of storing masks that is read; each is a module of `formats` (with `_` for `-`)."""

MaskForm = Literal[
    "categories",
    "instances",
    "ids",
    "category-folders",
    "instance-folders",
    "voc",
    "colours",
    "cityscapes",
    "trimap",
    "polygons",
    "yolo",
    "labelme",
]
"""Every way of storing masks that is written."""

MaskFrame = Literal["upright", "stored"]
"""What masks were drawn on: the photo as it is shown, or as the camera stored it (EXIF orientation not applied)."""

Where = Literal["here", "ray"]

WEIGHTS_BY_NAME = ("none", "imagenet", "coco")
"""What a training can start from that is no file."""


class Settings(BaseModel):
    """What the user says to a stage; frozen, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Check values that the user gave.

        Raises:
            UserError: Naming every unknown name (with the nearest known) and every value out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise explain(error, list(cls.model_fields)) from None


def explain(error: ValidationError, known: list[str]) -> UserError:
    """Turn pydantic's error into ours."""
    unknown, wrong = [], []
    for item in error.errors(include_url=False):
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            unknown.append(f"{name}{nearest(name, known)}")
        elif not item["loc"]:  # a rule about several settings; its message names them
            wrong.append(item["msg"].removeprefix("Value error, "))
        else:
            flag = f"--{name.replace('_', '-')}"  # as it is typed on the command line
            wrong.append(f"{name} ({flag}) is {item['input']!r}: {item['msg'][:1].lower()}{item['msg'][1:]}")
    problems = []
    if unknown:
        problems.append(Problem("there is no setting of this name", tuple(unknown), f"known: {', '.join(known)}"))
    if wrong:
        problems.append(Problem("a setting has a value that it cannot have", tuple(wrong), "give another value"))
    return UserError(problems)


TEST_TIME_FLIP = "Look at each photo mirrored too, and merge what is found; takes twice the time."


class PrepareSettings(Settings):
    """How photos and masks become a dataset."""

    form: FormName | None = Field(None, description="How the masks are stored; found by looking if not given.")
    photos: str | None = Field(None, description="The photo folder inside RAW, where it cannot be told.")
    masks: str | None = Field(None, description="The mask folder (or COCO file) inside RAW, where it cannot be told.")
    coding: Literal["binary", "ids"] | None = Field(
        None,
        description="What mask values mean: binary (one object) or ids (value n is object n). Found if not given.",
    )
    parts: Literal["together", "separate"] = Field(
        "together", description="together: a mask is one object, parts and holes included. separate: one per part."
    )
    category: str | None = Field(None, description="Name of the objects' category; from the folder name if not given.")
    object_value: int | None = Field(
        None, ge=0, le=65535, description="The mask value that is the object, in trimaps and other masks of few values."
    )
    colours: str | None = Field(
        None,
        description="A JSON file {category: colour} for colour-coded masks, or instances: each colour is an object.",
    )
    unmatched: Literal["error", "empty", "skip"] = Field(
        "error", description="A photo without a mask: an error, a photo without objects, or left out."
    )
    val_share: Share = Field(0.1, description="Share of photos for validation, where there is no such split.")
    test_share: Share = Field(0.1, description="Share of photos for testing, where there is no such split.")
    group: str | None = Field(
        None,
        description="Photos that belong together and must share a split: folder, name, none, or a regular expression"
        " whose first group tells them apart. Found by looking if not given.",
    )
    near_duplicates: bool | None = Field(
        None, description="Keep photos that look alike in one split; on where photos are split anew."
    )
    resplit: bool = Field(False, description="Make the splits anew, although the input has some.")
    on: Where = Field("here", description="Where the work is done: on this machine, or on a Ray cluster.")
    shard: int | None = Field(None, ge=1, description="Write annotation files of so many photos each, not one a split.")
    resize_masks: bool = Field(
        False, description="Scale masks of another size to their photo (nearest neighbour; edges get coarser)."
    )
    mask_frame: MaskFrame = Field(
        "upright",
        description="What masks were drawn on: upright, photos as they are shown; or stored, as the camera stored them:"
        " then the EXIF orientation turns masks too.",
    )
    description: str = Field("", description="For the dataset's info: what it shows.")
    license: str = Field("", description="For the dataset's licenses: its name.")
    license_url: str = Field("", description="For the dataset's licenses: where it can be read.")
    contributor: str = Field("", description="For the dataset's info: who made it.")


class TrainSettings(Settings):
    """How a segmenter is trained; everything that is not given is derived from the data and the machine."""

    architecture: Literal["maskrcnn-nano", "maskrcnn-r50-fpn", "maskrcnn-r50-fpn-v2"] | None = Field(
        None, description="The network."
    )
    backbone: str | None = Field(None, description="Another backbone, by its name in timm.")
    weights: str | None = Field(None, description="What training starts from: none, imagenet, coco, or a file.")
    minutes: float | None = Field(None, gt=0, description="Train for so many minutes, validation included.")
    epochs: float | None = Field(None, gt=0, description="Train for so many passes over the photos.")
    steps: int | None = Field(None, gt=0, description="Train for so many optimiser steps.")
    batch_size: int | None = Field(None, gt=0, description="Photos per optimiser step, over all devices.")
    side: int | None = Field(None, ge=64, le=2048, description="Longer side of the network's input in pixels.")
    short_side: int | None = Field(
        None, ge=64, le=2048, description="Shorter side of the network's input in pixels, at most; side is the longer."
    )
    mask_side: Literal[28, 56] | None = Field(
        None, description="Cells of a predicted mask per side; 56 with maskrcnn-nano alone."
    )
    optimiser: Literal["adamw", "sgd"] | None = Field(None, description="How the weights are updated.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate.")
    momentum: float | None = Field(None, ge=0, lt=1, description="Momentum of SGD.")
    schedule: Literal["cosine", "steps"] | None = Field(None, description="How the learning rate falls.")
    drops: tuple[float, ...] | None = Field(
        None, description="Epochs at which the rate is divided by 10, with the schedule of steps."
    )
    warmup: int | None = Field(
        None, ge=0, description="Steps over which the learning rate rises; of minutes at most a tenth."
    )
    repeat: int | None = Field(None, ge=1, description="Times that each photo is seen in an epoch.")
    repeat_rare: Share | None = Field(
        None, description="Photos of a category that a smaller share of the photos holds come more often; 0: none does."
    )
    backbone_rate: float | None = Field(None, ge=0, description="The backbone's learning rate as a share of it.")
    weight_decay: float | None = Field(None, ge=0, description="Decoupled weight decay.")
    clip_norm: float | None = Field(None, gt=0, description="Gradients are scaled down to this norm.")
    flip: bool | None = Field(None, description="Mirror photos left-right at random.")
    turn: bool | None = Field(None, description="Turn photos by any angle at random.")
    scale_jitter: float | None = Field(None, ge=1, le=4, description="Zoom photos by up to this factor at random.")
    colour_jitter: float | None = Field(None, ge=0, le=1, description="Strength of random brightness and colour.")
    copy_paste: Share | None = Field(
        None, description="Share of photos over which objects of another photo are pasted at random."
    )
    precision: Literal["32", "bf16", "16"] | None = Field(None, description="Arithmetic of the network.")
    workers: int | None = Field(None, ge=0, description="Threads that read photos before the first step.")
    preflight: bool | None = Field(
        None, description="Learn two photos for a few steps first, to prove that the loss falls and masks line up."
    )
    devices: int | None = Field(None, gt=0, description="How many devices (GPUs, or CPU processes) train together.")
    validations: int | None = Field(None, gt=0, description="How many times the validation photos are scored.")
    log_every: int | None = Field(None, gt=0, description="Steps between log lines.")
    seed: int | None = Field(None, ge=0, lt=2**64, description="Seed of every random choice.")
    micro_batch: int | None = Field(
        None, gt=0, description="Photos that a device takes at once; the step is still that of the whole batch."
    )
    ema: float | None = Field(
        None, ge=0, le=1, description="Decay of the moving average of the weights, which is then the result; 0: none."
    )
    patience: int | None = Field(
        None, ge=0, description="Stop after so many validations without a better smoothed AP; 0: never."
    )
    tracker: Literal["none", "mlflow", "wandb"] | None = Field(
        None, description="Where the numbers go beside log.jsonl and TensorBoard."
    )
    on: Where | None = Field(None, description="Where the work is done: on this machine, or on a Ray cluster.")

    def files(self) -> tuple[Path, ...]:
        """Return what is named to be read beside the data: the file, or the run folder, that training starts from.

        Example:
            >>> TrainSettings(weights="imagenet").files(), TrainSettings(weights="RUN").files()[0].name
            ((), 'RUN')
        """
        return () if self.weights is None or self.weights in WEIGHTS_BY_NAME else (Path(self.weights),)

    def with_absolute_paths(self) -> Self:
        """Return the settings with what `files` returns as absolute paths: they hold in any folder and process."""
        files = self.files()
        return self.model_copy(update={"weights": str(files[0].absolute())}) if files else self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of minutes, epochs and steps, not {' and '.join(given)}")
        return self


class ImportSettings(Settings):
    """How weights of another framework become a run."""

    categories: str | None = Field(
        None,
        description="The categories' names with commas between them, in the network's order; what the file tells, or"
        " COCO's, if not given.",
    )
    data: str | None = Field(None, description="A prepared data folder that has the categories.")
    style: Literal["pytorch", "caffe"] | None = Field(
        None,
        description="Of the backbone, where the file does not tell: caffe takes blue, green, red and strides in 1x1.",
    )
    norm_eps: float | None = Field(
        None,
        ge=0,
        description="What torchvision's frozen norms add to the variance: 0 if trained on from its COCO weights.",
    )
    side: int = Field(1333, ge=64, le=2048, description="Longer side of the network's input in pixels, at most.")
    short_side: int | None = Field(
        None,
        ge=64,
        le=2048,
        description="Shorter side of the network's input, if the longer one leaves room; 800 if not given.",
    )

    @model_validator(mode="after")
    def _sides(self) -> Self:
        if self.short_side is not None and self.short_side > self.side:
            raise ValueError(f"short_side is {self.short_side}, longer than side, which is {self.side}")
        return self


class PredictSettings(Settings):
    """How photos become detections and mask images."""

    form: Literal["categories", "instances", "ids"] = Field(
        "categories",
        description="Mask images: one 0/255 image per photo and category, one per object, or one 16-bit id image.",
    )
    score: Share | None = Field(None, description="Least score of a detection; what validation advised if not given.")
    split: Literal["train", "val", "test"] | None = Field(
        None, description="Which split, where PHOTOS is a prepared data folder."
    )
    test_time_flip: bool = Field(False, description=TEST_TIME_FLIP)


class MasksSettings(Settings):
    """How a COCO file becomes mask images, or the files of another tool."""

    form: MaskForm = Field(
        "categories",
        description="categories: one 0/255 image per photo and category; instances: one per object; ids: one 16-bit"
        " image per photo; the others are the forms of other tools.",
    )
    score: Share | None = Field(None, description="Least score of a detection to draw; all if not given.")


class CheckSettings(Settings):
    """How a dataset is checked."""

    detections: int = Field(100, ge=1, description="How many objects a photo may have before they crowd the network.")
    stride: int = Field(4, ge=1, description="Pixels of the photo per step of the network's finest map.")


class EvaluateSettings(Settings):
    """How detections are scored."""

    iou: Share = Field(0.5, description="IoU from which a detection is a hit, in the list of matches.")
    bootstrap: int = Field(300, ge=0, description="Resamples of the photos for the interval of segm AP; 0: none.")
    seed: int = Field(0, ge=0, description="Seed of the resampling.")
    boundary: bool = Field(False, description="Score the masks' edges too: boundary AP (Cheng et al. 2021).")


class ComposeSettings(Settings):
    """How objects are pasted over backgrounds."""

    pictures: int | None = Field(
        None, ge=1, description="Pictures to make; as many as the train split has photos, if not given."
    )
    objects: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Objects per picture; as many as a photo of the data has, drawn for each, if not given.",
    )
    scale_jitter: float = Field(1.25, ge=1, le=4, description="Zoom objects by up to this factor, in or out.")
    flip: bool = Field(True, description="Mirror objects left-right at random.")
    turn: bool | None = Field(
        None, description="Turn objects by any angle; on if those of the data are round or lie in all directions."
    )
    visible: float = Field(
        0.5, gt=0, le=1, description="Share of its pixels that an object keeps at least when others cover it."
    )
    with_originals: bool = Field(
        False,
        description="Put the data's own photos into the output too, val and test included: one folder to train on.",
    )
    png: bool = Field(False, description="Write pictures as PNG, without loss; JPEG if not given.")
    seed: int = Field(0, ge=0, description="Seed of every random choice.")


class DemoSettings(Settings):
    """How the sample world is drawn."""

    train: int = Field(200, ge=1, description="Pictures to train on.")
    val: int = Field(40, ge=0, description="Pictures to validate on.")
    test: int = Field(40, ge=0, description="Pictures to test on.")
    size: int = Field(331, ge=64, le=4096, description="Width and height in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the world.")


class MakeSettings(TrainSettings, PrepareSettings):
    """How the whole job is done: what prepare and train can be told, and the score for the mask images."""

    score: Share | None = Field(
        None, description="Least score of a detection in the mask images; what validation advised if not given."
    )
    test_time_flip: bool = Field(False, description=TEST_TIME_FLIP)
