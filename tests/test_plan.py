"""Every number of a plan follows from the facts by a rule that says why; what the user says wins."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.errors import UserError
from maskwright.facts import CategoryFacts, Facts, Percentiles, SizeCount, SplitFacts
from maskwright.plan import MULTIPLE, Machine, Plan, plan
from maskwright.settings import TrainSettings

CPU = Machine("cpu", 1, "no GPU; 2 CPU cores", 2, 8_000, False)
GPU = Machine("cuda", 1, "Some GPU", 8, 32_000, True)
SETTINGS = set(TrainSettings.model_fields)
BUDGETS = {"minutes", "epochs", "steps"}
NOT_OF_THE_NANO = {"backbone", "short_side", "momentum", "drops", "warmup"}


def spread(*values):
    return Percentiles(**dict(zip(("p5", "p25", "p50", "p75", "p95"), values, strict=True)))


def split_of(photos=100, median=(480, 640), side_share=None, elongation=1.0, axis_spread=1.0, most=3):
    share = spread(0.05, 0.1, 0.2, 0.3, 0.5) if side_share is None else side_share
    return SplitFacts(
        photos=photos,
        empty_photos=0,
        objects=photos * most,
        crowd=0,
        sizes=(SizeCount(height=median[0], width=median[1], photos=photos),) if median else (),
        smallest=median,
        median=median,
        largest=median,
        objects_per_photo=float(most),
        most_objects=most,
        side_share=share or None,
        box_side_share=share or None,
        area_share=None,
        aspect=None,
        elongation=spread(*[elongation] * 5) if elongation else None,
        axis_spread=axis_spread,
        looked_at=0,
        holes=0,
        with_holes=0,
        in_parts=0,
        touching=0,
        overlapping=0,
        specks=0,
        at_border=0,
    )


def facts_of(train=None, **others):
    names = ("hammer", "nut")
    return Facts(
        splits={"train": train or split_of(), **others},
        categories=tuple(CategoryFacts(id=i + 1, name=n, objects={"train": 5}) for i, n in enumerate(names)),
    )


def planned(train=None, machine=CPU, splits=None, fitted=None, **said):
    return plan(facts_of(train, **(splits or {})), TrainSettings(**said), machine, fitted or {})


lengths = st.integers(1, 20_000)
splits = st.builds(
    split_of,
    photos=st.integers(1, 1_000_000),
    median=st.tuples(lengths, lengths) | st.none(),
    side_share=st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5).map(lambda v: spread(*sorted(v)))
    | st.just(False),
    elongation=st.floats(1, 100) | st.none(),
    axis_spread=st.floats(0, 1) | st.none(),
    most=st.integers(0, 3_000),
)
machines = st.builds(
    Machine,
    device=st.sampled_from(["cpu", "cuda"]),
    count=st.integers(1, 8),
    name=st.just("it"),
    cores=st.integers(1, 64),
    memory_mb=st.integers(500, 1_000_000),
    bf16=st.booleans(),
)


@settings(max_examples=30)
@given(train=splits, machine=machines)
def test_any_facts_on_any_machine_give_a_plan_within_its_bounds(train, machine):
    made = planned(train, machine)
    said = made.settings
    assert said.side % MULTIPLE == 0
    assert 256 <= said.side <= 1024
    assert [v % MULTIPLE for v in made.canvas] == [0, 0]
    assert min(made.canvas) >= MULTIPLE
    assert max(made.canvas) == said.side
    assert said.batch_size % said.devices == 0
    assert 1 <= made.steps <= 60_000
    assert said.learning_rate > 0
    assert said.precision in {"32", "bf16", "16"}
    assert made.detections_per_photo >= max(100, train.most_objects)
    sizes = [size for level in made.anchor_sizes for size in level]
    assert sizes == sorted(sizes)
    assert len(made.anchor_sizes) == 4
    assert sizes[0] >= 16
    assert made.cache_mb < machine.memory_mb


@settings(max_examples=30)
@given(train=splits, machine=machines)
def test_every_number_has_its_source_and_its_reason(train, machine):
    made = planned(train, machine)
    numbers = set(Plan.model_fields) - {"settings", "reasons"}
    assert set(made.reasons) == (SETTINGS - BUDGETS - NOT_OF_THE_NANO) | {"steps"} | numbers
    assert {r.source for r in made.reasons.values()} == {"default", "derived"}
    assert [name for name, r in made.reasons.items() if not r.why.strip() or r.why.strip()[0] in ";,"] == []


@settings(max_examples=30)
@given(train=splits, machine=machines, budget=st.sampled_from([{"minutes": 2.5}, {"epochs": 3}, {"steps": 7}, {}]))
def test_exactly_one_budget_is_in_force(train, machine, budget):
    made = planned(train, machine, **budget)
    given_ones = {name: getattr(made.settings, name) for name in BUDGETS if getattr(made.settings, name) is not None}
    assert given_ones == (budget or {"steps": made.settings.steps})
    nothing = {name for name, value in made.settings.model_dump().items() if value is None}
    assert nothing - BUDGETS == NOT_OF_THE_NANO


@settings(max_examples=30)
@given(train=splits, machine=machines)
def test_a_plan_is_a_settings_file_that_gives_the_same_plan(train, machine):
    made = planned(train, machine)
    stored = json.loads(made.model_dump_json())
    again = {name: value for name, value in stored["settings"].items() if value is not None}
    assert TrainSettings.parse(again) == made.settings
    repeated = planned(train, machine, **again)
    assert repeated.model_copy(update={"reasons": made.reasons}) == made
    assert Plan.model_validate(stored) == made


EVERY_SETTING = {
    "architecture": "maskrcnn-r50-fpn",
    "backbone": "resnet18",
    "weights": "none",
    "minutes": 2.5,
    "batch_size": 6,
    "side": 96,
    "short_side": 70,
    "mask_side": 28,
    "optimiser": "sgd",
    "momentum": 0.8,
    "schedule": "steps",
    "drops": (3.0, 4.5),
    "warmup": 12,
    "repeat": 5,
    "repeat_rare": 0.5,
    "learning_rate": 0.5,
    "backbone_rate": 0.7,
    "weight_decay": 0.3,
    "clip_norm": 2.0,
    "flip": False,
    "turn": True,
    "scale_jitter": 1.0,
    "colour_jitter": 0.1,
    "copy_paste": 0.3,
    "precision": "bf16",
    "workers": 9,
    "preflight": True,
    "devices": 3,
    "validations": 11,
    "log_every": 17,
    "seed": 23,
    "micro_batch": 1,
    "ema": 0.99,
    "patience": 2,
    "tracker": "mlflow",
    "on": "ray",
}


def test_what_the_user_says_wins_and_the_rule_is_still_told():
    assert set(EVERY_SETTING) == SETTINGS - {"epochs", "steps"}
    made = planned(**EVERY_SETTING)
    assert made.settings == TrainSettings(**EVERY_SETTING)
    assert {made.reasons[name].source for name in EVERY_SETTING} == {"user"}
    assert made.reasons["minutes"].why == "you said so"
    assert made.reasons["side"].why == "you said so (the rule: 1333, the origin's, at most)"
    assert made.reasons["drops"].why.startswith("you said so (the rule: 16 22, ")
    assert made.reasons["flip"].why == "you said so (the rule: yes, a mirrored object is still that object)"


def test_a_zero_or_no_that_the_user_says_is_not_taken_for_silence():
    made = planned(seed=0, backbone_rate=0.0, flip=False, workers=0)
    assert (made.settings.seed, made.settings.backbone_rate, made.settings.flip, made.settings.workers) == (
        0,
        0.0,
        False,
        0,
    )
    assert made.reasons["backbone_rate"].source == "user"


@settings(max_examples=25)
@given(batch=st.integers(1, 64))
def test_the_learning_rate_follows_the_batch_by_its_square_root(batch):
    one, many = planned(batch_size=1), planned(batch_size=batch)
    assert many.settings.learning_rate == pytest.approx(one.settings.learning_rate * math.sqrt(batch))
    assert f"{batch} photos per step" in many.reasons["learning_rate"].why


def test_more_devices_get_more_photos_per_step_and_a_higher_rate():
    one, two = planned(machine=GPU), planned(machine=GPU, devices=2)
    assert two.settings.batch_size == 2 * one.settings.batch_size
    assert two.settings.learning_rate > one.settings.learning_rate


def test_devices_that_cannot_share_a_batch_are_refused():
    with pytest.raises(UserError) as caught:
        planned(batch_size=4, devices=3)
    assert str(caught.value) == (
        "every device must get as many photos as every other\n  a batch of 4 photos over 3 devices\nfix: --batch-size 6"
    )


def test_epochs_become_steps_rounded_up():
    made = planned(split_of(photos=10), epochs=1.5, batch_size=4)
    assert made.steps_per_epoch == 2.5
    assert made.steps == 4
    assert made.settings.steps is None


@pytest.mark.parametrize(
    ("photos", "batch", "epochs", "steps"),
    [(5, 3, 24, 40), (7, 3, 12, 28), (4, 3, 24, 32), (5, 3, 1, 2), (1, 49, 49, 1)],
)
def test_epochs_of_a_broken_number_of_steps_have_not_one_too_many(photos, batch, epochs, steps):
    made = planned(split_of(photos=photos), epochs=epochs, batch_size=batch)
    assert made.steps == steps
    assert Plan.model_validate_json(made.model_dump_json()).steps == steps
    shown = next(line.split()[1] for line in made.table().splitlines() if line.startswith("  steps_per_epoch"))
    assert shown == f"{round(photos / batch, 4):g}"


@given(photos=st.integers(1, 10_000), batch=st.integers(1, 500), repeat=st.integers(1, 9), epochs=st.integers(1, 400))
def test_epochs_are_as_many_steps_as_whole_numbers_say(photos, batch, repeat, epochs):
    made = planned(split_of(photos=photos), epochs=epochs, batch_size=batch, repeat=repeat)
    assert made.steps == -(-photos * repeat * epochs // batch)


def test_minutes_leave_the_steps_open():
    assert planned(minutes=1).steps is None


def test_more_photos_get_more_steps_within_limits():
    steps = [planned(split_of(photos=n)).steps for n in (1, 100, 1_000, 10_000, 1_000_000)]
    assert steps == sorted(steps)
    assert steps[-1] < 1_000_000
    assert steps[0] == steps[1] > 12 * 100 / 4 / 4  # few photos are seen many times


@settings(max_examples=25)
@given(share=st.floats(0.001, 0.5), smaller=st.floats(0.1, 1.0))
def test_smaller_objects_never_get_a_smaller_input(share, smaller):
    large = planned(split_of(median=(3000, 4000), side_share=spread(*[share] * 5)))
    small = planned(split_of(median=(3000, 4000), side_share=spread(*[share * smaller] * 5)))
    assert small.settings.side >= large.settings.side


def test_small_photos_are_not_blown_up():
    made = planned(split_of(median=(240, 320)))
    assert made.settings.side == 320
    assert made.canvas == (256, 320)
    assert "not over the photos' 320" in made.reasons["side"].why


def test_the_canvas_has_the_shape_of_the_median_photo():
    assert planned(split_of(median=(1000, 2000)), side=512).canvas == (256, 512)
    assert planned(split_of(median=(2000, 1000)), side=512).canvas == (512, 256)
    assert planned(split_of(median=(10, 2000)), side=512).canvas == (32, 512)


@pytest.mark.parametrize(
    ("elongation", "axis_spread", "turn", "why"),
    [
        (1.1, 0.1, True, "the objects are round (elongation 1.1): no direction is theirs"),
        (5.0, 0.9, True, "the objects lie in all directions (spread 0.90 of 1)"),
        (5.0, 0.1, False, "the objects have a preferred direction (spread 0.10 of 1)"),
        (None, None, False, "no object to tell directions from"),
    ],
)
def test_photos_are_turned_only_where_objects_have_no_direction(elongation, axis_spread, turn, why):
    made = planned(split_of(elongation=elongation, axis_spread=axis_spread))
    assert made.settings.turn is turn
    assert made.reasons["turn"].why == why


@settings(max_examples=25)
@given(scale=st.floats(0.1, 1.0))
def test_anchors_grow_with_the_objects(scale):
    def finest(factor):
        made = planned(split_of(side_share=spread(*[v * factor for v in (0.05, 0.1, 0.2, 0.3, 0.5)])), side=512)
        return made.anchor_sizes[0][0]

    assert finest(scale) <= finest(1.0)


@pytest.mark.parametrize(
    ("share", "side", "cells", "cell"),
    [(0.15, 416, 28, "2.5"), (0.26, 384, 28, "3.9"), (0.28, 384, 56, "4.2"), (0.63, 320, 56, "7.9")],
)
def test_masks_are_finer_where_their_cells_would_be_coarser_than_the_finest_map(share, side, cells, cell):
    made = planned(split_of(side_share=spread(*[share] * 5)), side=side)
    assert made.mask_side == cells
    assert f"would be {cell} pixels" in made.reasons["mask_side"].why
    assert f"mask_side            {cells} " in made.table()


def test_masks_are_of_the_usual_size_where_no_object_or_another_network_says_so():
    assert planned(split_of(side_share=False)).mask_side == 28
    assert planned(split_of(side_share=spread(*[0.6] * 5)), architecture="maskrcnn-r50-fpn").mask_side == 28


def test_the_masks_of_the_nano_are_as_fine_as_the_user_says():
    for small, cells in ((0.15, 56), (0.63, 28), (False, 56)):
        made = planned(split_of(side_share=small and spread(*[small] * 5)), side=416, mask_side=cells)
        assert (made.mask_side, made.settings.mask_side) == (cells, cells)
        assert made.reasons["mask_side"].source == "user"
    with pytest.raises(UserError) as caught:
        planned(architecture="maskrcnn-r50-fpn", mask_side=56)
    assert str(caught.value) == (
        "only masks of maskrcnn-nano can have other than 28 cells a side\n"
        "  mask_side (--mask-side) is 56, architecture is maskrcnn-r50-fpn\n"
        "fix: leave --mask-side out, or: --architecture maskrcnn-nano"
    )


def test_room_for_detections_follows_the_fullest_photo_of_any_split():
    assert planned(split_of(most=10)).detections_per_photo == 100
    crowded = planned(split_of(most=10), splits={"val": split_of(most=401)})
    assert crowded.detections_per_photo == 602
    assert crowded.reasons["detections_per_photo"].why == "the fullest photo has 401 objects"


def test_precision_follows_what_the_device_computes_fast():
    assert planned().settings.precision == "32"
    assert "AMX" in planned().reasons["precision"].why
    amx = replace(CPU, bf16=True)
    assert planned(machine=amx).settings.precision == "bf16"
    assert "depthwise ones stay in 32 bits" in planned(machine=amx).reasons["precision"].why
    assert planned(machine=amx, precision="32").settings.precision == "32"
    assert planned(machine=GPU).settings.precision == "bf16"
    old = Machine("cuda", 1, "Old GPU", 8, 32_000, False)
    assert planned(machine=old).settings.precision == "16"


def test_the_same_weights_are_promised_on_cpus_alone():
    assert "gives the same weights" in planned().reasons["seed"].why
    assert "weights" not in planned(machine=GPU).reasons["seed"].why
    assert "gives the same random choices" in planned(machine=GPU).reasons["seed"].why


def test_processes_on_a_machine_share_its_memory():
    assert (planned().cache_mb, planned().reasons["cache_mb"].why) == (
        2_000,
        "a quarter of 8000 MB of memory, for decoded photos",
    )
    four = planned(machine=replace(GPU, count=4))
    assert four.cache_mb == 2_000
    assert four.reasons["cache_mb"].why.endswith(" of memory, for decoded photos, shared by 4 processes")
    two_machines = planned(machine=replace(GPU, started=4, beside=2))
    assert (two_machines.settings.devices, two_machines.cache_mb) == (4, 4_000)


def test_16_bits_on_a_cpu_are_refused():
    with pytest.raises(UserError) as caught:
        planned(precision="16")
    assert str(caught.value) == (
        "precision 16 is for GPUs\n  precision (--precision) is 16, and there is no GPU; 2 CPU cores\n"
        "fix: --precision bf16 on a CPU with AMX, --precision 32 on others"
    )


@settings(max_examples=25)
@given(minutes=st.floats(0.01, 1000), machine=machines)
def test_the_preflight_costs_a_tenth_at_most_and_never_over_a_minute(minutes, machine):
    made = planned(machine=machine, minutes=minutes)
    assert made.settings.preflight == (made.preflight_s > 0)
    assert 0 <= made.preflight_s <= min(60, 6 * minutes + 0.05)


def test_a_short_training_has_no_preflight():
    made = planned(steps=6)
    assert (made.settings.preflight, made.preflight_s) == (False, 0)
    assert made.reasons["preflight"].why == "10% of a training of about 2 s are less than the 20 s that it takes"
    assert made.reasons["preflight_s"].why == "there is no pre-flight"


def test_a_training_of_minutes_has_a_preflight_beside_them():
    made = planned(minutes=4)
    assert (made.settings.preflight, made.preflight_s) == (True, 24)
    assert made.reasons["preflight"].why == "10% of a training of about 240 s are enough to test it first"
    assert made.reasons["preflight_s"].why == (
        "10% of a training of about 240 s, 20 to 60 s, at most; beside the budget"
    )
    assert planned(epochs=100, machine=GPU).preflight_s == 20
    assert planned(epochs=1e4, machine=GPU).preflight_s == 60


def test_a_preflight_is_done_or_not_as_the_user_says():
    assert planned(steps=6, preflight=True).preflight_s == 20
    made = planned(minutes=60, preflight=False)
    assert (made.settings.preflight, made.preflight_s) == (False, 0)
    assert made.reasons["preflight"].source == "user"


def test_a_plan_of_a_version_without_preflight_is_still_a_plan():
    stored = json.loads(planned().model_dump_json())
    del stored["preflight_s"], stored["settings"]["preflight"], stored["reasons"]["preflight"]
    assert Plan.model_validate(stored).preflight_s == 0


def test_the_table_has_a_line_for_every_value():
    made = planned(minutes=4)
    lines = made.table().splitlines()
    assert lines[0] == "plan"
    names = [line.split()[0] for line in lines[1:]]
    assert set(names) == set(made.reasons)
    assert len(names) == len(set(names))
    minutes = next(line for line in lines if line.split()[0] == "minutes")
    assert minutes.split() == ["minutes", "4", "user", "you", "said", "so"]
    flip = next(line for line in lines if line.split()[0] == "flip")
    assert flip.split()[:3] == ["flip", "yes", "default"]


RARE = (("bolt", 4, 4), ("nut", 396, 390))
"""Name, photos that hold it, photos that hold nothing rarer."""


def with_rare(**said):
    rare = tuple(
        CategoryFacts(id=i + 1, name=n, objects={"train": p}, photos={"train": p}, rarest={"train": r})
        for i, (n, p, r) in enumerate(RARE)
    )
    facts = facts_of(split_of(photos=400)).model_copy(update={"categories": rare})
    return plan(facts, TrainSettings(**said), CPU)


def test_photos_of_rare_categories_come_more_often_and_the_epoch_is_longer():
    made = with_rare(repeat_rare=0.0625, epochs=2)
    # bolt is in a hundredth of the photos: sqrt(0.0625 / 0.01) = 2.5 times, 6 turns more
    assert made.steps_per_epoch == (400 + 4 * 1.5) / 2
    assert made.steps == 406
    assert made.photos_per_epoch == 406
    assert made.reasons["repeat_rare"].source == "user"
    why = "you said so; bolt is in 4 of 400 photos: its photos come 2.5 times an epoch"
    assert made.reasons["repeat_rare"].why == why
    assert why in made.table()
    assert with_rare(repeat_rare=0.0625, epochs=2, repeat=3).photos_per_epoch == 3 * 406
    assert with_rare(repeat_rare=0.0625).reasons["steps"].why.startswith("12 passes over 406 photos")


def test_no_category_is_repeated_unless_the_user_says_so():
    made = with_rare(epochs=2)
    assert made.settings.repeat_rare == 0
    assert made.reasons["repeat_rare"].source == "default"
    assert (made.steps_per_epoch, made.photos_per_epoch, made.photos) == (200, 400, 400)
    common = with_rare(repeat_rare=0.01, epochs=2)
    assert common.steps_per_epoch == 200
    assert common.reasons["repeat_rare"].why.endswith("none is repeated")


def origin(train=None, machine=CPU, **said):
    return planned(train, machine, architecture="maskrcnn-r50-fpn", **said)


def test_the_stock_network_has_the_origins_recipe():
    made = origin(split_of(photos=4535, median=(3024, 4032)), repeat=4)
    wanted = {
        "weights": "imagenet",
        "epochs": 24,
        "drops": (16, 22),
        "schedule": "steps",
        "warmup": 500,
        "optimiser": "sgd",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "learning_rate": 0.0025,
        "backbone_rate": 1.0,
        "batch_size": 2,
        "side": 1333,
        "short_side": 800,
        "flip": True,
        "turn": False,
        "scale_jitter": 1,
        "colour_jitter": 0,
    }
    assert {name: getattr(made.settings, name) for name in wanted} == wanted
    assert made.canvas == (800, 1088)
    assert made.anchor_sizes == ((32,), (64,), (128,), (256,), (512,))
    why = made.reasons["steps_per_epoch"].why
    assert why == "4535 photos x 4 repeats / 2 per step = 9070 steps per epoch"
    assert made.steps == 24 * 9070
    assert made.reasons["learning_rate"].why == "the origin's 0.02 for 16 photos per step x 2 / 16"
    assert "repeat" not in {name for name, r in origin().reasons.items() if r.source == "user"}
    assert origin().settings.repeat == 1


def test_the_origins_rate_follows_the_true_batch():
    rates = {b: origin(batch_size=b).settings.learning_rate for b in (1, 2, 16, 32)}
    assert rates == pytest.approx({1: 0.00125, 2: 0.0025, 16: 0.02, 32: 0.04})
    assert origin(machine=Machine("cuda", 8, "GPUs", 8, 64_000, True)).settings.learning_rate == 0.02


def test_the_origins_schedule_scales_with_another_length():
    made = origin(split_of(photos=100), epochs=12)
    assert made.settings.drops == (8, 11)
    assert (made.settings.warmup, made.steps) == (60, 600)
    assert made.reasons["warmup"].why == "steps; the origin's 500, at most a tenth of 600"
    assert origin(split_of(photos=100), steps=10_000).settings.warmup == 500
    minutes = origin(minutes=30)
    assert (minutes.settings.drops, minutes.settings.warmup, minutes.steps) == ((16, 22), 500, None)
    rule = "steps; the origin's, or the first tenth of the minutes if that is over sooner"
    assert minutes.reasons["warmup"].why == rule
    assert origin(minutes=30, warmup=200).reasons["warmup"].why == f"you said so (the rule: 500, {rule})"


def test_what_became_of_a_files_settings_is_in_the_reasons():
    fitted = {"drops": "the file's 8, in proportion", "warmup": "the file's 500 is left out"}
    made = origin(split_of(photos=100), fitted=fitted, epochs=3, drops=(2.0,))
    assert made.reasons["drops"].source == "user"
    assert made.reasons["drops"].why.startswith("the file's 8, in proportion (the rule: 2 2.75, epochs; ")
    assert made.reasons["warmup"].source == "derived"
    assert made.reasons["warmup"].why == "steps; the origin's 500, at most a tenth of 150; the file's 500 is left out"


def test_the_nano_is_planned_as_ever():
    made = planned(split_of(photos=100))
    assert (made.settings.optimiser, made.settings.schedule, made.settings.repeat) == ("adamw", "cosine", 1)
    assert made.reasons["steps_per_epoch"].why == "100 photos / 2 per step"
    assert planned(split_of(photos=100), repeat=3).steps_per_epoch == 150


def test_a_backbone_of_timm_is_carried_by_the_stock_network_with_adamw():
    made = planned(backbone="convnext_tiny")
    assert (made.settings.architecture, made.settings.backbone) == ("maskrcnn-r50-fpn", "convnext_tiny")
    assert made.settings.optimiser == "adamw"
    assert made.settings.learning_rate == pytest.approx(1e-4 * math.sqrt(2 / 16))
    assert made.settings.momentum is None
    with pytest.raises(UserError, match="maskrcnn-nano has its own backbone"):
        planned(backbone="convnext_tiny", architecture="maskrcnn-nano")


def test_the_shorter_side_is_not_the_longer_one():
    assert origin(side=640).settings.short_side == 640
    with pytest.raises(UserError) as caught:
        origin(side=640, short_side=800)
    assert "short_side (--short-side) is 800, side (--side) is 640" in str(caught.value)


@settings(max_examples=30)
@given(train=splits, machine=machines, name=st.sampled_from(["maskrcnn-r50-fpn", "maskrcnn-r50-fpn-v2"]))
def test_stock_plans_are_whole_and_repeat_themselves(train, machine, name):
    made = planned(train, machine, architecture=name)
    nothing = {n for n, value in made.settings.model_dump().items() if value is None}
    assert nothing == {"minutes", "steps", "backbone"}
    assert set(made.reasons) == (SETTINGS - nothing) | (set(Plan.model_fields) - {"settings", "reasons"})
    assert [v % MULTIPLE for v in made.canvas] == [0, 0]
    again = {n: v for n, v in json.loads(made.model_dump_json())["settings"].items() if v is not None}
    assert planned(train, machine, **again).model_copy(update={"reasons": made.reasons}) == made


@pytest.mark.parametrize(("patience", "validations"), [(0, 4), (1, 4), (2, 8), (5, 20)])
def test_there_are_validations_enough_for_the_patience(patience, validations):
    made = planned(patience=patience)
    assert made.settings.validations == validations
    assert made.reasons["validations"].source == ("default" if validations == 4 else "derived")


@pytest.mark.parametrize(("patience", "validations"), [(1, 3), (5, 7), (5, 25), (0, 1)])
def test_validations_that_are_enough_are_taken(patience, validations):
    made = planned(patience=patience, validations=validations)
    assert (made.settings.patience, made.settings.validations) == (patience, validations)


@pytest.mark.parametrize(
    ("patience", "validations", "fix"),
    [
        (5, 4, "--validations 20, or --patience 2 at most"),
        (4, 5, "--validations 16, or --patience 3 at most"),  # the fifth is after the last step
        (1, 1, "--validations 4"),
    ],
)
def test_a_patience_that_nothing_can_try_is_refused(patience, validations, fix):
    with pytest.raises(UserError) as caught:
        planned(patience=patience, validations=validations)
    assert str(caught.value) == (
        "so few validations can never stop the training early\n"
        f"  patience (--patience) is {patience}, validations (--validations) {validations}; the first one is a rise\n"
        f"fix: {fix}"
    )


def test_a_plan_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        planned().photos = 3
