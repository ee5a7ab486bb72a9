"""The pre-flight: what it proves, what it refuses, and that the training after it is the one without it."""

import json
import math
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import maskwright.preflight as module
from maskwright import pixels
from maskwright.batches import NO_AUGMENTATION, Photos
from maskwright.check import check
from maskwright.dataset import Annotation, Dataset
from maskwright.errors import UserError
from maskwright.models.maskrcnn import MaskRCNN
from maskwright.models.stock import StockMaskRCNN, StockSpec
from maskwright.models.whole import totals
from maskwright.optimisers import optimiser_for
from maskwright.plan import plan
from maskwright.preflight import median_two
from maskwright.run import BEST, LAST, Run
from maskwright.settings import TrainSettings
from maskwright.train import LOSSES, this_machine, train
from maskwright.turns import TURNS, drawn_back, is_thick, photo_turn, picture_fit
from maskwright.usable import part_of
from tiny_world import QUICK, world, write_data

TESTED = QUICK | {"preflight": True, "side": 128, "learning_rate": 0.2, "steps": 1}
KEPT = {"architecture": "maskrcnn-r50-fpn", "weights": "none", "side": 160, "short_side": 120}
"""Photos keep their shape, each in the corner of a frame."""
STOCK = KEPT | {"backbone": "resnet10t", "side": 320, "short_side": 256, "learning_rate": 1e-3}


class Clock:
    """Time that passes only where a test lets it."""

    def __init__(self):
        self.now, self.sizes = 0.0, set()

    def perf_counter(self):
        return self.now


class Sees(nn.Module):
    """A network that learns one number, and finds whatever is red or green in the photo."""

    falls, value, mirrored, cost, room = True, 1.0, False, None, 0
    clock, states_sums = None, False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 2), 2.0))

    def backbone(self, images):
        """Give the photo's colours as features."""
        return {str(s): functional.avg_pool2d(images / 255, s) for s in (4, 8)}

    def losses(self, images, targets):
        if self.cost and len(images) > self.room:
            raise self.cost
        assert len(images) == len(targets)
        if self.clock:
            self.clock.now += 1.0 if torch.is_grad_enabled() else 0.25
            self.clock.sizes.add(len(images))
        if self.states_sums:
            totals({"photos": torch.tensor(float(len(images)))})
        loss = (self.weight**2).mean() * self.value if self.falls else 3.0 + 0.0 * self.weight.sum()
        return dict.fromkeys(LOSSES, loss) | {"box_accuracy": torch.tensor(1.0)}

    def detect(self, images, shapes, least_score=0.02):
        if self.clock:
            self.clock.now += 0.125
        height, width = shapes[0]
        photo = images[0, :, :height, :width].float()
        red = (photo[0] > 150) & (photo[1] < 100)
        green = (photo[1] > 150) & (photo[0] < 100)
        found = {"boxes": [], "labels": [], "scores": [], "masks": [], "windows": []}
        for label, seen in ((1, red), (2, green)):
            mask = seen.flip(1) if self.mirrored else seen
            if not mask.any():
                continue
            ys, xs = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            y1, y2, x1, x2 = int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1
            found["boxes"].append([x1, y1, x2, y2])
            found["labels"].append(label)
            found["scores"].append(0.9)
            part = mask[y1:y2, x1:x2].float()[None, None]
            found["masks"].append(functional.interpolate(part, size=(28, 28))[0, 0])
        found["windows"] = torch.tensor(found["boxes"], dtype=torch.float32).reshape(-1, 4)
        found["boxes"] = found["windows"]
        found["masks"] = torch.stack(found["masks"]) if found["masks"] else torch.zeros(0, 28, 28)
        return [found | {k: torch.tensor(found[k]) for k in ("labels", "scores")}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return world(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def data(tiny):
    return tiny[0]


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch):
    """Let no test depend on how busy the machine is."""
    monkeypatch.setattr(sys.modules["maskwright.plan"], "PREFLIGHT_LEAST_S", 60.0)


@pytest.fixture
def rigged(monkeypatch):
    """Replace the network; returns a function that sets what is wrong with it."""
    monkeypatch.setattr(Run, "build", lambda self, weights="none": Sees())

    def rig(**what):
        for name, value in what.items():
            monkeypatch.setattr(Sees, name, value)

    rig()
    return rig


def preflight(data, said=None, **changes):
    """Do a pre-flight as `train` does, without the training."""
    given_ones = TESTED | changes
    tell = said.append if said is not None else lambda _text: None
    machine = this_machine()
    made = plan(check(data, say=None), TrainSettings(**given_ones), machine)
    return under(data, made, tell)


def under(data, made, tell=lambda _text: None):
    from maskwright.beginning import new_run

    truth = Dataset.read_split(data, "train")
    run = new_run(data / "run", data, made, {})
    return module.preflight(
        run, made, this_machine(), truth, 3, lambda n: optimiser_for(made.settings, n), LOSSES, tell
    )


def refusal(data, **changes):
    with pytest.raises(UserError) as caught:
        preflight(data, **changes)
    return str(caught.value)


def changed(data, out, change):
    """Copy a data folder with every mask of the train split changed."""
    shutil.copytree(data, out)
    truth = Dataset.read_split(out, "train")
    masks = [np.ascontiguousarray(change(truth.mask(k))) for k in range(len(truth))]
    objects = [
        Annotation(a.id, a.image_id, a.category_id, pixels.encode(m))
        for a, m in zip(truth.annotations(), masks, strict=True)
        if m.any()
    ]
    new = Dataset.build(truth.categories, truth.images, objects, info=truth.info, folder=truth.folder)
    new.write(out / "annotations" / "instances_train.json")
    return out


# What passes


def test_what_is_measured_is_told_and_returned(data, rigged):
    said = []
    found = preflight(data, said)
    assert (found.usable.objects, found.usable.lost, found.usable.photos) == (12, 0, 6)
    assert len(found.photos) == 2
    assert found.steps == module.STEPS
    assert found.last["total"] < 0.5 * found.first["total"]
    assert found.loader_iou > 0.9
    assert found.loader_photos == 6
    assert found.picture_fit["as they are"] > found.picture_fit["mirrored left-right"] + 0.3
    assert found.found_iou["as they are"] > 0.8 > found.found_iou["mirrored left-right"]
    assert found.training_steps == 1
    assert 0 < found.step_s < found.training_s
    assert 100 < found.memory_mb < found.memory_limit_mb
    assert [text.split(":")[0] for text in said] == ["pre-flight"] * 7
    assert said[0] == "pre-flight: 12 of 12 objects, in 6 photos, are large enough to be learned at side 128"
    for text, whole in zip(
        said[1:],
        (
            r"the network sees photos and masks where the files have them \(6 photos, IoU of large objects at least"
            r" (0\.9\d|1\.00)\)",
            r"masks follow the pictures: the picture explains \d+% of them as they are, \d+% [a-z0-9 -]+ \(6 photos\)",
            rf"the loss falls: loss 24\.00 -> \d+\.\d\d in {module.STEPS} steps on two photos \(.+\)",
            r"found masks lie on the true ones: IoU 0\.\d\d with the masks as they are, 0\.\d\d [a-z0-9 -]+",
            r"forecast: 1 steps of \d+\.\d\d s in \d:\d\d, 0\.3 passes over the photos, a validation in \d:\d\d,"
            r" [\d,]+ of [\d,]+ MB of memory",
            r"passed in \d+ s",
        ),
        strict=True,
    ):
        assert re.fullmatch(f"pre-flight: {whole}", text), text
    assert json.loads(json.dumps(found.json()))["usable"] == {"objects": 12, "lost": 0, "photos": 6}


def test_the_real_network_learns_two_photos_and_finds_their_objects(data, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 12)
    found = preflight(data, learning_rate=1e-3, side=96)
    assert 1 <= found.steps <= 12
    assert found.last["mask"] < 0.7 * found.first["mask"]
    assert found.found_iou["as they are"] > max(v for k, v in found.found_iou.items() if k != "as they are")


def test_minutes_give_the_steps_that_fit(data, rigged):
    said = []
    found = preflight(data, said, steps=None, minutes=10.0)
    assert found.training_s == 600
    assert found.training_steps == pytest.approx(
        (600 - found.start_s - 2 * found.validation_s) / found.step_s, abs=1, rel=0.01
    )
    assert said[-1].endswith(" s, beside the minutes of the training")
    preflight(data, said, steps=None, minutes=1e-6)
    assert "warning: 1e-06 minutes are enough for 33% of the photos: more --minutes, or a smaller --side" in said


@pytest.mark.parametrize(
    ("asks", "micro_batch", "size", "step_s"),
    [(False, 6, 6, 1.0), (True, 6, 6, 1.0), (False, 4, 3, 2.0), (True, 4, 3, 2.5), (True, 1, 1, 7.5)],
)
def test_a_step_takes_as_long_as_all_its_pieces(data, rigged, monkeypatch, asks, micro_batch, size, step_s):
    clock = Clock()
    rigged(clock=clock, states_sums=asks)
    monkeypatch.setattr(module, "time", clock)
    said = []
    found = preflight(data, said, batch_size=6, micro_batch=micro_batch, steps=10)
    assert found.step_s == pytest.approx(step_s)
    assert len(found.photos) == min(size, 2)
    assert any(f" in 24 steps on {'two photos' if size > 1 else 'one photo'} (" in text for text in said)
    assert found.training_s == pytest.approx(10 * step_s + 2 * found.validation_s)
    assert clock.sizes == {size}


def test_a_validation_is_forecast_with_the_reading_of_its_photos(data, rigged, monkeypatch):
    clock = Clock()
    rigged(clock=clock)
    monkeypatch.setattr(module, "time", clock)
    plain = sys.modules["maskwright.detections"].read_reduced

    def slowly(*given):
        clock.now += 0.5
        return plain(*given)

    monkeypatch.setattr(sys.modules["maskwright.detections"], "read_reduced", slowly)
    assert preflight(data).validation_s == pytest.approx(3 * (0.5 + 0.125))


def test_photos_that_keep_their_shape_are_compared_in_their_corner(data, rigged):
    found = preflight(data, **KEPT)
    assert found.loader_iou > 0.9
    assert found.loader_photos == 6
    assert found.picture_fit["as they are"] > found.picture_fit["mirrored left-right"] + 0.3


def test_a_stock_network_sees_whether_masks_follow_the_pictures(data, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 1)
    said = []
    found = preflight(data, said, **STOCK)
    assert found.picture_fit["as they are"] > found.picture_fit["mirrored left-right"] + 0.2
    assert any(text.startswith("pre-flight: masks follow the pictures: the picture explains ") for text in said)


def test_a_network_that_does_not_show_what_it_sees_is_not_tested_and_that_is_told(data, rigged):
    rigged(backbone=None)
    said = []
    assert preflight(data, said).picture_fit is None
    assert (
        "pre-flight: whether the masks follow the pictures was not tested: the network does not show what it sees"
    ) in said


def test_memory_that_is_not_there_is_warned_of(data, rigged, monkeypatch):
    monkeypatch.setattr(module, "memory_limit_mb", lambda _machine: 10)
    said = []
    found = preflight(data, said)
    assert (
        f"warning: the training may not fit into memory ({found.memory_mb:,} of 10 MB of memory):"
        " a smaller --batch-size or --side"
    ) in said


def test_memory_is_limited_by_the_machine():
    machine = replace(this_machine(), device="cpu", memory_mb=7)
    assert module.memory_limit_mb(machine) == 7


def test_a_slow_machine_stops_earlier_and_does_not_judge(data, rigged):
    rigged(falls=False)
    made = plan(check(data, say=None), TrainSettings(**TESTED), this_machine()).model_copy(update={"preflight_s": 0.0})
    said = []
    found = under(data, made, said.append)
    assert found.steps == 1
    assert any(text.endswith("too few steps fit into 0 s to judge") for text in said)
    assert any("the picture explains" in text and text.endswith("(3 photos)") for text in said)


# What is refused


def test_a_loss_that_does_not_fall_is_refused(data, rigged):
    rigged(falls=False)
    lines = refusal(data).splitlines()
    assert lines[0] == "the loss does not fall on two photos: the training would not learn"
    assert "loss 18.00 -> 18.00 in 24 steps on two photos (objectness 3.00 -> 3.00, " in lines[1]
    assert f"{data / 'train'}" in lines[1]
    assert lines[2] == f"  these do not fall at all: {', '.join(LOSSES)}"
    assert lines[3] == (
        "fix: the learning rate 0.2 may be too high: leave it out (the rule gives 0.001);"
        " look at these photos and masks; to train all the same: --no-preflight"
    )
    assert "fix: the learning rate 1e-05 may be too low: leave it out" in refusal(data, learning_rate=1e-5)
    assert "fix: use a lower rate: --learning-rate 0.0003; look at" in refusal(data, learning_rate=1e-3)


def test_a_loss_that_is_not_finite_is_refused(data, rigged):
    rigged(value=math.nan)
    lines = refusal(data).splitlines()
    assert lines[0] == "a loss is not finite at step 1 of the pre-flight: the training would fail"
    assert lines[1].endswith(f": {', '.join(f'{name} is nan' for name in LOSSES)}")
    assert lines[2] == (
        "fix: look at these photos and masks; if they are sound, use a lower rate: --learning-rate 0.07"
    )


def test_a_network_that_finds_objects_elsewhere_is_refused(data, rigged):
    rigged(mirrored=True)
    lines = refusal(data).splitlines()
    assert lines[0] == "what the network finds lies on the masks mirrored left-right"
    assert "IoU 0." in lines[1]
    assert lines[2] == (
        "fix: look at these photos and masks; if they belong together, it is a bug of Maskwright's: report it"
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m[:, ::-1], "mirrored left-right"),
        (lambda m: m[::-1], "upside down"),
        (lambda m: m[::-1, ::-1], "turned by 180 degrees"),
    ],
)
def test_masks_that_are_turned_against_their_photos_are_refused(data, rigged, tmp_path, change, name):
    other = changed(data, tmp_path / "data", change)
    lines = refusal(other).splitlines()
    assert lines[0] == f"the masks fit their photos better {name}"
    assert lines[1].startswith(f"  {other / 'train'}: the picture explains ")
    assert lines[1].endswith(f"% {name} (6 photos)")
    assert lines[2] == (
        "fix: look at photos and masks (EXIF orientation applied to one side only?) and prepare the data again,"
        " perhaps with --mask-frame stored; if they are right: --no-preflight"
    )


def test_masks_that_are_turned_are_refused_by_a_stock_network_too(data, tmp_path):
    other = changed(data, tmp_path / "data", lambda m: m[:, ::-1])
    lines = refusal(other, **STOCK).splitlines()
    assert lines[0] == "the masks fit their photos better mirrored left-right"
    assert lines[1].endswith("% mirrored left-right (6 photos)")


def test_two_photos_are_too_few_to_refuse_masks_by(data, rigged, tmp_path):
    rigged(mirrored=True)
    other = changed(data, tmp_path / "data", lambda m: m[:, ::-1])
    truth = Dataset.read_split(other, "train")
    part_of(truth, [0, 1]).write(other / "annotations" / "instances_train.json")
    said = []
    found = preflight(other, said)
    assert found.picture_fit["mirrored left-right"] > found.picture_fit["as they are"] + 0.1
    assert any(text.startswith("pre-flight: whether the masks follow the pictures cannot be told") for text in said)


@pytest.mark.parametrize(
    ("fit", "text"),
    [
        (
            {"as they are": 0.5, "upside down": 0.5},
            "cannot be told: the picture explains 50% of them as they are, 50% upside down (6 photos)",
        ),
        (
            {"as they are": 0.5, "upside down": 0.58},
            "cannot be told: the picture explains 50% of them as they are, 58% upside down (6 photos)",
        ),
        (None, "cannot be told: the photos are too small, or objects fill them"),
    ],
)
def test_masks_that_look_alike_turned_are_not_refused(data, rigged, monkeypatch, fit, text):
    monkeypatch.setattr(module, "picture_fit", lambda *_args: fit)
    said = []
    assert preflight(data, said).picture_fit == (pytest.approx(fit) if fit else None)
    assert f"pre-flight: whether the masks follow the pictures {text}" in said


@pytest.mark.parametrize("what", ["masks", "photo"])
def test_a_loader_that_turns_one_side_is_refused(data, rigged, monkeypatch, what):
    plain = Photos.sample

    def sample(self, index, step, slot, quarter=0):
        made = plain(self, index, step, slot, quarter)
        if what == "masks":
            return replace(made, masks=made.masks.flip(2))
        return replace(made, image=made.image.flip(2))

    monkeypatch.setattr(Photos, "sample", sample)
    found = refusal(data)
    assert found.startswith("photos and masks do not reach the network as the files have them\n")
    assert found.endswith(
        "\nfix: prepare the data again; if that does not help, it is a bug of Maskwright's: please report it"
    )
    assert ("comes back at IoU 0." if what == "masks" else "the network sees it mirrored left-right") in found


GPU_SHORT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
CPU_SHORT = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize(("error", "told"), [(GPU_SHORT, "Tried"), (CPU_SHORT, "Allocator"), (MemoryError(), "Memory")])
def test_memory_that_is_short_makes_the_pieces_smaller_and_that_is_said(data, rigged, error, told):
    rigged(cost=error, room=2)
    said = []
    found = preflight(data, said, batch_size=6)
    assert found.micro_batch == 2
    short = [text for text in said if text.startswith("pre-flight: out of memory (")]
    assert ["photos are taken 3 at a time where it was 6, in the training too" in text for text in short] == [
        True,
        False,
    ]
    assert "photos are taken 2 at a time where it was 3, in the training too" in short[1]
    assert all(told in text for text in short)
    assert found.last["total"] < 0.5 * found.first["total"] == 0.5 * 4 * len(LOSSES)  # from the beginning again
    assert said[-1].startswith("pre-flight: passed in ")


# It was refused with the number to type (--micro-batch), though a training takes smaller pieces by itself.
@pytest.mark.parametrize("error", [GPU_SHORT, CPU_SHORT])
def test_memory_that_is_not_enough_for_one_photo_is_refused(data, rigged, error):
    rigged(cost=error)
    lines = refusal(data).splitlines()
    assert lines[0] == "memory is not enough for a single photo"
    assert lines[1] == f"  the pre-flight on {this_machine().name}: {str(error).splitlines()[0]}"
    assert lines[2] == "fix: give a smaller --side, or close other programs"


def test_other_errors_are_not_taken_for_memory(data, rigged):
    rigged(cost=RuntimeError("shapes"))
    with pytest.raises(RuntimeError, match="shapes"):
        preflight(data)


# Usable objects


def test_thin_objects_that_the_loader_loses_are_refused(data, rigged, tmp_path):
    def dots(mask):
        found = np.zeros_like(mask)
        found[::2, ::3] = True  # a sixth of all pixels, and of every cell
        return found

    other = changed(data, tmp_path / "data", dots)
    with pytest.raises(UserError) as caught:
        under(
            other,
            plan(check(other, say=None), TrainSettings(**TESTED), this_machine()).model_copy(
                update={"canvas": (32, 32)}
            ),
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "no object of the photos looked at is left when they are scaled to the network's working size"
    assert lines[1] == f"  {other / 'train' / 'train_0.png'}"
    assert lines[-1] == "fix: give a larger --side; thin objects need more pixels than others of their area"


# In a training


def test_the_training_after_it_is_the_one_without_it(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 2)
    said, networks = [], []
    plain = MaskRCNN.losses

    def losses(self, images, targets):
        networks.append({k: v.clone() for k, v in self.state_dict().items()})
        return plain(self, images, targets)

    with monkeypatch.context() as patch:
        patch.setattr(MaskRCNN, "losses", losses)
        run = train(data, tmp_path / "run", say=said.append, **(QUICK | {"preflight": True}))
    assert len(networks) == 2 + 6
    assert all(torch.equal(networks[0][k], v) for k, v in networks[2].items())  # what is tested is what is trained
    for name in (BEST, LAST):
        assert (run.path / name).read_bytes() == (tiny[1] / name).read_bytes()
    stored = json.loads((run.path / "preflight.json").read_text())
    assert stored["steps"] == 2
    assert stored["usable"]["objects"] == 12
    assert sum(text.startswith("pre-flight: ") for text in said) == 7
    said.clear()
    train(data, run.path, resume=True, say=said.append)
    assert [text for text in said if text.startswith("pre-flight")] == []


def test_the_training_after_it_takes_the_pieces_that_fit(data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 2)
    plain = MaskRCNN.losses

    def losses(self, images, targets):
        if len(images) > 1:
            raise GPU_SHORT
        return plain(self, images, targets)

    monkeypatch.setattr(MaskRCNN, "losses", losses)
    run = train(data, tmp_path / "run", **(QUICK | {"preflight": True, "steps": 2, "validations": 1}))
    assert (run.state, run.step) == ("finished", 2)
    stored = json.loads((run.path / "plan.json").read_text())
    assert (
        stored["settings"]["micro_batch"] == json.loads((run.path / "preflight.json").read_text())["micro_batch"] == 1
    )
    assert stored["reasons"]["micro_batch"] == {
        "source": "derived",
        "why": "memory was not enough for more in the pre-flight",
    }
    assert '"what": "memory"' not in (run.path / "log.jsonl").read_text()  # it did not have to find out itself


def test_random_states_are_as_before(data, rigged):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    preflight(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_short_training_has_none(tiny):
    assert not (tiny[1] / "preflight.json").exists()
    assert [text for text in tiny[2] if text.startswith("pre-flight")] == []


@pytest.mark.parametrize("reason", ["it fails", "ctrl-c"])
def test_nothing_is_written_and_an_old_run_is_unharmed(data, rigged, tmp_path, reason):
    rigged(**({"falls": False} if reason == "it fails" else {"cost": KeyboardInterrupt()}))
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("old")
    with pytest.raises(UserError if reason == "it fails" else KeyboardInterrupt):
        train(data, out, overwrite=True, **TESTED)
    assert {p.name: p.read_text() for p in out.iterdir()} == {"run.json": "old"}
    with pytest.raises(UserError if reason == "it fails" else KeyboardInterrupt):
        train(data, tmp_path / "new", **TESTED)
    assert not (tmp_path / "new").exists()


def test_unusable_objects_are_refused_without_it_unless_the_user_says_so(tmp_path):
    data = write_data(tmp_path / "data", val=0, test=0)

    def speck(mask):
        found = np.zeros_like(mask)
        found[10:12, 10:12] = True
        return found

    other = changed(data, tmp_path / "specks", speck)
    with pytest.raises(UserError, match="no object is large enough to be learned"):
        train(other, tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
    run = train(other, tmp_path / "run", **(QUICK | {"preflight": False, "steps": 1}))
    assert run.state == "finished"


# Its parts

turns = st.sampled_from(sorted(TURNS))


@settings(max_examples=25, deadline=None)
@given(turn=turns, seed=st.integers(0, 10**6))
def test_a_turned_photo_is_seen(turn, seed):
    photo = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    plain = np.stack([photo] * 3, -1)
    seen = np.stack([np.ascontiguousarray(TURNS[turn](photo))] * 3, -1)
    assert photo_turn(seen, plain) == turn


def test_thin_objects_are_not_held_to_their_edges():
    assert not is_thick(np.pad(np.ones((4, 90), dtype=np.uint8), 5))
    assert is_thick(np.pad(np.ones((40, 30), dtype=np.uint8), 5))
    assert is_thick(np.ones((40, 30), dtype=np.uint8)) is True


def test_a_photo_of_one_colour_is_not_called_turned():
    grey = np.full((20, 30, 3), 90, dtype=np.uint8)
    assert photo_turn(grey, grey) == "as they are"


@settings(max_examples=25, deadline=None)
@given(turn=turns, seed=st.integers(0, 10**6))
def test_masks_fit_best_the_way_they_were_drawn(turn, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 96), dtype=np.uint8)
    y, x, h, w = rng.integers(8, 40), rng.integers(8, 30), rng.integers(20, 40), rng.integers(20, 40)
    mask[y : y + h, x : x + w] = 1
    mask[y : y + 8, x : x + w + 20] = 1  # an L, which no turn leaves as it is
    photo = rng.integers(0, 60, (3, 96, 96)).astype(np.uint8)
    photo[0][mask > 0] += 150
    inverse = {
        "turned by 90 degrees clockwise": "turned by 90 degrees counterclockwise",
        "turned by 90 degrees counterclockwise": "turned by 90 degrees clockwise",
    }.get(turn, turn)
    wrong = np.ascontiguousarray(TURNS[inverse](mask))
    fit = picture_fit(Sees().backbone, torch.from_numpy(photo), torch.from_numpy(wrong)[None])
    assert max(fit, key=fit.get) == turn
    assert fit[turn] > 0.8


@pytest.mark.parametrize("backbone", [None, "convnext_atto"])
@pytest.mark.parametrize("turn", ["as they are", "mirrored left-right", "turned by 180 degrees"])
def test_the_hundreds_of_features_of_a_stock_network_tell_turned_masks(backbone, turn):
    torch.manual_seed(0)
    network = StockMaskRCNN(StockSpec(1, backbone=backbone)).eval()
    rng = np.random.default_rng(3)
    mask = np.zeros((256, 288), dtype=np.uint8)
    mask[40:200, 30:90] = mask[40:70, 30:150] = 1
    photo = rng.integers(0, 60, (3, 256, 288)).astype(np.uint8)
    photo[0][mask > 0] += 150
    photo[:, 240:], photo[:, :, 270:] = 110, 110  # around the photo, which is smaller
    inner = np.ascontiguousarray(TURNS[turn](mask[:240, :270]))
    wrong = np.pad(inner, ((0, 16), (0, 18)))
    fit = picture_fit(network.edges, torch.from_numpy(photo), torch.from_numpy(wrong)[None], (240, 270))
    assert max(fit, key=fit.get) == turn
    assert fit[turn] > max(value for name, value in fit.items() if name != turn and "shifted" not in name) + 0.2


def test_small_photos_say_nothing_about_their_masks():
    photo, masks = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[:, :16] = 1
    assert picture_fit(Sees().backbone, photo, masks) is None
    photo, masks = torch.zeros(3, 96, 96, dtype=torch.uint8), torch.ones(1, 96, 96, dtype=torch.uint8)
    assert picture_fit(Sees().backbone, photo, masks) is None  # the object fills it


@settings(max_examples=25, deadline=None)
@given(height=st.integers(40, 300), width=st.integers(40, 300), seed=st.integers(0, 1000))
def test_a_mask_comes_back_where_it_was(height, width, seed, tmp_path_factory):
    from PIL import Image as Picture

    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=bool)
    y, x = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    mask[y : y + height // 2, x : x + width // 2] = True
    scale = min(192 / height, 224 / width)
    inner = round(height * scale), round(width * scale)
    small = np.asarray(Picture.fromarray(mask.astype(np.uint8) * 255).resize(inner[::-1], Picture.Resampling.BILINEAR))
    canvas = np.zeros((192, 224), dtype=np.uint8)
    top, left = (192 - inner[0]) // 2, (224 - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = small
    back = drawn_back(canvas, (height, width)) >= 128
    assert back.shape == mask.shape
    assert (back & mask).sum() / (back | mask).sum() > 0.85


def test_the_two_photos_are_those_nearest_the_median(data):
    truth = Dataset.read_split(data, "train")
    keep = np.ones(len(truth), dtype=bool)
    keep[0:2] = False  # no object in the first photo
    keep[2] = False  # one in the second
    photos = Photos(truth.select(keep), (64, 64), NO_AUGMENTATION, 0)
    two = median_two([photos.sample(i, 0, i) for i in range(6)])
    assert [s.photo for s in two] == [2, 3]
