"""A training that cannot work says so, with the likely cause; one that works says nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image, default_info
from maskwright.diagnosis import Watch, swapped_in_validation
from maskwright.train import train
from test_plan import planned, split_of
from tiny_world import CATEGORIES, QUICK, draw, write_data, write_split

LONGER = QUICK | {"steps": 40, "validations": 1, "log_every": 10, "batch_size": 2}


def told(data, out, **settings):
    """Train, and return what was diagnosed: cause and text."""
    train(data, out, **(LONGER | settings))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["what"]: line["text"] for line in lines if line["kind"] == "event"}


def rewrite(data, change):
    """Change every object of the train split: `change(number of the photo, Annotation, mask)` gives the new one."""
    truth = Dataset.read_split(data, "train")
    objects = []
    for a in truth.annotations():
        image = truth.images[a.image_id - 1]
        mask = pixels.decode(a.rle, image.size)
        category, new = change(a.image_id, a.category_id, mask)
        objects.append(Annotation(a.id, a.image_id, category, pixels.encode(new)))
    made = Dataset.build(CATEGORIES, truth.images, objects, info=default_info("tiny"), folder=truth.folder)
    (data / "annotations" / "instances_train.json").unlink()
    made.write(data / "annotations" / "instances_train.json")


def test_a_training_that_works_is_not_complained_about(tmp_path):
    assert told(write_data(tmp_path / "data", val=0, test=0), tmp_path / "run") == {}


def test_a_rate_that_is_too_high_is_named(tmp_path):
    found = told(write_data(tmp_path / "data", val=0, test=0), tmp_path / "run", learning_rate=0.3)
    assert set(found) <= {"diagnosis: rate", "diagnosis: gradient", "rewind"}
    assert "diagnosis: rate" in found
    text = found["diagnosis: rate"]
    assert text.startswith("warning: the learning rate is likely too high: the losses add up to ")
    assert text.endswith("It is 0.3, the rule gives 0.001: leave --learning-rate out")


@pytest.mark.parametrize(
    ("totals", "named"),
    [
        ([4.0, 300.0] + [1e13] * 8 + [1e10] * 30, True),  # blown up in the first steps, and falling ever since
        ([4.0, 300.0] + [1e13] * 8 + [7.9] * 30, False),  # recovered, as far as the losses say
        ([4.0] * 10 + [4.1] * 30, True),
        ([4.0, 7.0] * 5 + [5.4] * 30, False),  # below the beginning, if not below its first step
    ],
)
def test_losses_are_judged_by_a_beginning_that_has_not_blown_up(totals, named):
    assert [cause.name == "rate" for cause in judged(totals, "maskrcnn-nano", "adamw", 0.3)] == [True] * named


def judged(totals, architecture, optimiser, rate):
    """Return what is said of these losses, step by step, of two photos each."""
    settings = SimpleNamespace(
        architecture=architecture, learning_rate=rate, batch_size=2, optimiser=optimiser, clip_norm=10.0, warmup=8
    )
    watch = Watch(SimpleNamespace(settings=settings, canvas=(64, 64), steps=80), None)
    nothing = SimpleNamespace(photos=(), objects=(), targets=())
    for total in totals:
        watch.see(nothing, SimpleNamespace(total=total, grad_norm=1.0, losses={}))
    return watch.causes(40, 0.5)


@pytest.mark.parametrize(
    ("architecture", "optimiser", "rate", "rule"),
    [
        ("maskrcnn-nano", "adamw", 0.003, "0.001"),
        ("maskrcnn-r50-fpn", "sgd", 0.006, "0.0025"),
        ("maskrcnn-r50-fpn", "adamw", 1e-4, "3.54e-05"),  # a backbone of timm: 1e-4 is for 16 photos
    ],
)
def test_a_rate_is_held_against_the_rule_of_the_plan(architecture, optimiser, rate, rule):
    [cause] = judged([4.0] * 10 + [4.1] * 30, architecture, optimiser, rate)
    assert cause.text.startswith("the learning rate is likely too high: ")
    assert cause.text.endswith(f"It is {rate:.3g}, the rule gives {rule}: leave --learning-rate out")


def test_boxes_that_are_degenerate_are_named(tmp_path):
    data = write_data(tmp_path / "data", val=0, test=0)

    def line(_photo, category, mask):
        thin = np.zeros_like(mask)
        row = int(np.flatnonzero(mask.any(1))[0])
        thin[row, :] = True  # an outline, one pixel wide
        return category, thin

    rewrite(data, line)
    found = told(data, tmp_path / "run", scale_jitter=1.0, turn=False, steps=12, preflight=False)
    assert set(found) == {"diagnosis: boxes"}
    assert found["diagnosis: boxes"].startswith("warning: boxes are degenerate: ")
    assert "are less than 2 pixels wide or high at side 64, and " in found["diagnosis: boxes"]


def test_boxes_that_fill_the_picture_are_named(tmp_path):
    data = write_data(tmp_path / "data", val=0, test=0)
    rewrite(data, lambda _photo, category, mask: (category, np.ones_like(mask)))
    found = told(data, tmp_path / "run", scale_jitter=1.0, turn=False, steps=12)
    assert "fill the whole picture. Are the masks inverted" in found["diagnosis: boxes"]


def test_pasted_objects_do_not_make_up_for_those_that_were_left_out(tmp_path):
    truth = write_split(tmp_path / "data", "train", 3)
    watch = Watch(SimpleNamespace(canvas=(64, 64)), truth)
    first, count = int(truth.first[1]), int(truth.first[2] - truth.first[1])
    watch._see_boxes(1, range(first, first + count))
    assert (watch.objects, watch.lost) == (count, 0)
    watch._see_boxes(1, (first, *range(first + count, len(truth)), *range(first)))  # one of its own, and others
    assert (watch.objects, watch.lost) == (2 * count, count - 1)


def test_categories_that_are_swapped_in_some_photos_are_named(tmp_path):
    data = tmp_path / "data"
    write_split(data, "train", 30)
    rewrite(data, lambda photo, category, mask: (category if photo % 2 else 3 - category, mask))
    found = told(data, tmp_path / "run", steps=50)  # 40 see about as many boxes as are judged together
    assert set(found) == {"diagnosis: categories"}
    assert found["diagnosis: categories"].startswith("warning: categories are likely swapped in some of the photos: ")
    assert "Do masks of" in found["diagnosis: categories"]


def watching(categories=2, norm=1.0, total=4.1, **said):
    """Return a watch over a training whose losses do not fall, and whose categories are told by chance."""
    made = planned(split_of(photos=4535), **said)
    watch = Watch(made.model_copy(update={"categories": tuple("abcdefghijklmnopqrstuvwxyz")}), None)
    labels = [{"labels": torch.arange(1, categories + 1)}]
    batch = SimpleNamespace(photos=(0,), objects=((),), targets=labels)
    watch._see_boxes = lambda _photo, _kept: None
    losses = {"positives": 50.0, "category_accuracy": 1 / categories}
    for now in [4.0] * 10 + [total] * 20:
        watch.see(batch, SimpleNamespace(total=now, grad_norm=norm, losses=losses))
    return watch


def first_told(watch, name):
    """Return the first step at which a cause is told, in steps of ten."""
    whole = watch.made.steps
    return next(step for step in range(10, whole, 10) if name in {c.name for c in watch.causes(step, step / whole)})


LONG = {"architecture": "maskrcnn-r50-fpn", "repeat": 4, "epochs": 24}
"""217,680 steps, of which 500 are the warm-up."""


def test_a_long_training_is_judged_soon_after_its_own_warm_up():
    assert first_told(watching(**LONG), "rate") == 510
    assert first_told(watching(norm=1e-6, **LONG), "gradient") == 510
    assert first_told(watching(warmup=0, **LONG), "rate") == 40
    assert first_told(watching(steps=10_000), "rate") == 410  # a twenty-fifth


@pytest.mark.parametrize(("categories", "step"), [(2, 1500), (3, 2000), (20, 10_500)])
def test_categories_of_a_long_training_are_judged_after_some_thousand_steps(categories, step):
    assert first_told(watching(categories, total=3.0, **LONG), "categories") == step


def test_categories_of_a_short_training_are_judged_after_a_fifth_of_it():
    assert first_told(watching(total=3.0, steps=1000), "categories") == 200


def split(called, scores):
    """Return truth of five photos with two objects each, and detections of them under other names."""
    rng = np.random.default_rng(4)
    images, true, found = [], [], []
    for i in range(5):
        _, objects = draw(rng, 64, 64)
        images.append(Image(i + 1, f"{i}.png", 64, 64))
        for category, mask in objects:
            rle = pixels.encode(mask)
            true.append(Annotation(len(true) + 1, i + 1, category, rle))
            found.append(Annotation(len(found) + 1, i + 1, called[category], rle, score=scores))
    build = Dataset.build
    return build(CATEGORIES, images, true, folder=None), build(CATEGORIES, images, found, folder=None)


def test_names_that_are_swapped_between_the_splits_are_told():
    cause = swapped_in_validation(*split({1: 2, 2: 1}, 0.9), CATEGORIES)
    assert cause.name == "splits"
    assert cause.text.startswith(
        "categories are likely swapped between the train and the val split: hammer is found as nut (5 of 5); nut is"
        " found as hammer ("
    )


@pytest.mark.parametrize(("called", "score"), [({1: 1, 2: 2}, 0.9), ({1: 2, 2: 1}, 0.1)])
def test_right_names_and_doubtful_detections_are_no_cause(called, score):
    assert swapped_in_validation(*split(called, score), CATEGORIES) is None


def test_a_single_category_cannot_be_swapped():
    one = (Category(1, "hammer"),)
    truth, found = split({1: 1, 2: 2}, 0.9)
    assert swapped_in_validation(truth, found, one) is None
