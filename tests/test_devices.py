"""Processes that train together, whoever starts them: the same losses as one, and one of them can go on alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import timm
import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from safetensors.torch import save_file

from maskwright.check import check
from maskwright.devices import InnerPrecision, Place, asks_ray, make_fabric, place, refuse_processes, this_machine
from maskwright.errors import UserError
from maskwright.models.maskrcnn import BoxHead, MaskRCNN
from maskwright.plan import Machine, plan
from maskwright.run import LAST, Run, load_tensors
from maskwright.settings import TrainSettings
from maskwright.train import train
from tiny_world import QUICK, write_data

STEPS = 20
SETTINGS = QUICK | {"steps": STEPS + 2, "validations": 1, "log_every": 1, "learning_rate": 1e-6}
SETTINGS |= {"precision": "32"}  # where the CPU has bf16 its rounding would hide everything else
SETTINGS |= {"scale_jitter": 1.2, "colour_jitter": 0.2}  # derived from the steps otherwise
SLURM = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_ID": "17",
    "SLURM_NODEID": "0",
    "MASTER_ADDR": "127.0.0.1",
}

ON_RAY = SLURM | {  # in a cluster that a job of SLURM has started
    "MASKWRIGHT_STARTED_BY_RAY": "1",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "1",
}

# Trains as the command line does, and dies after a step, as a machine does.
MORTAL = """
import os, signal, sys
from maskwright import cli, step
import maskwright.train
module = sys.modules["maskwright.train"]
module.CHECKPOINT_EVERY_S = 0.0
plain = step.Stepper.take
def take(self, batch, number, rate):
    if number == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, batch, number, rate)
step.Stepper.take = take
sys.exit(cli.main(sys.argv[2:]))
"""


def words(data, out, settings):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if value is not None]
    return ["train", str(data), "-o", str(out), *flags]


def steps_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("devices") / "data", val=0, test=0)


@pytest.fixture(scope="module")
def alone(data):
    """A run of one process."""
    train(data, data.parent / "alone", **SETTINGS)
    return data.parent / "alone"


def the_same(run, alone, count):
    """Compare the losses of two runs.

    The rate is low, so that every step compares losses of the same weights. At the usual one they drift apart from
    about the fifth step on, exactly as those of one process with another number of threads do: Adam makes whole steps
    of the rounding in gradients that are nearly zero, until a box more or less is chosen.
    """
    for ours, theirs in zip(steps_of(run)[:count], steps_of(alone)[:count], strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=3e-5), ours["step"]
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4), ours["step"]


def test_two_processes_of_torchrun_give_the_losses_of_one_and_one_goes_on_when_they_die(data, alone, tmp_path):
    script, out = tmp_path / "mortal.py", tmp_path / "run"
    script.write_text(MORTAL)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(script), str(STEPS), *words(data, out, SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "devices              2" in done.stdout
    assert done.stdout.count(f"step {STEPS}/") == 1  # one speaks
    assert len(steps_of(out)) == STEPS
    the_same(out, alone, STEPS)

    said = []
    run = train(data, out, resume=True, devices=1, say=said.append)
    assert (run.state, run.step) == ("finished", STEPS + 2)
    assert any("since it goes on; it began with 2" in text for text in said)
    the_same(out, alone, STEPS + 2)
    ours, theirs = load_tensors(out / LAST), load_tensors(alone / LAST)
    assert max(float((ours[k] - theirs[k]).abs().max()) for k in ours) < 1e-5


# Trains as the command line does, and dies in the first pre-flight, as a process does that takes too much memory.
DOOMED = """
import os, signal, sys
from maskwright import cli
import maskwright.train
module = sys.modules["maskwright.train"]
plain = module._preflight
def preflight(*args):
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args)
module._preflight = preflight
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_torchrun_without_a_name_does_not_go_on_with_the_run_that_it_was_to_replace(data, tmp_path):
    script, out, log = tmp_path / "doomed.py", tmp_path / "run", tmp_path / "log"
    script.write_text(DOOMED)
    old = train(data, out, **(QUICK | {"steps": 2}))
    launch = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1", "--log-dir", str(log)]
    launch += ["--master-port", "0"]
    command = [*launch, str(script), *words(data, out, QUICK | {"steps": 3}), "--overwrite"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "trained 3 steps" in done.stdout
    new = Run.read(out)
    assert (old.job, new.step, new.job) == ("", 3, f"torchrun log/{next(log.iterdir()).name}")


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """Return a file of a backbone, random; norms of networks that start from a file keep their statistics."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("body") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    return path


def test_two_processes_give_a_stock_network_the_losses_of_one(data, body, tmp_path):
    out, steps = tmp_path / "run", 4
    stock = {"architecture": "maskrcnn-r50-fpn", "backbone": "resnet10t", "weights": str(body), "short_side": 64}
    settings = SETTINGS | stock | {"steps": steps, "preflight": False}
    train(data, tmp_path / "alone", **settings)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "--no-python", sys.executable, "-m", "maskwright.cli", *words(data, out, settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "devices              2" in done.stdout
    assert all(entry["losses"]["mask"] > 0 for entry in steps_of(out))
    assert len(steps_of(out)) == steps
    the_same(out, tmp_path / "alone", steps)


def test_two_tasks_of_slurm_take_the_steps_of_one_process(data, tmp_path):
    out, settings = tmp_path / "run", SETTINGS | {"steps": 8, "learning_rate": 1e-3}
    train(data, tmp_path / "alone", **settings)
    code = "import sys; from maskwright.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words(data, out, settings)]
    tasks = [
        subprocess.Popen(
            command,
            env={**os.environ, **SLURM, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "trained 8 steps" in said[0]
    assert "trained" not in said[1]
    both = list(zip(steps_of(out), steps_of(tmp_path / "alone"), strict=True))
    assert len(both) == 8
    for ours, theirs in both:
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=2e-4)
    assert abs(both[7][0]["total"] - both[0][0]["total"]) > 0.1  # the weights have moved


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place()),
        (
            {
                "TORCHELASTIC_RUN_ID": "x",
                "RANK": "3",
                "WORLD_SIZE": "4",
                "GROUP_WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
            },
            Place(3, 4, 2, 2, "torchrun", job="torchrun x"),
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "1"},
            Place(0, 1, 1, 1, "torchrun", True, "torchrun x"),
        ),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "1"}, Place(0, 1, 1, 1, "torchrun")),
        (
            {
                "TORCHELASTIC_RUN_ID": "none",
                "TORCHELASTIC_ERROR_FILE": "/logs/torchelastic_e3/none_x8/attempt_2/0/error.json",
                "TORCHELASTIC_RESTART_COUNT": "2",
                "RANK": "0",
                "WORLD_SIZE": "1",
            },
            Place(0, 1, 1, 1, "torchrun", True, "torchrun torchelastic_e3/none_x8"),
        ),
        (SLURM | {"SLURM_PROCID": "1"}, Place(1, 2, 1, 2, "SLURM", job="SLURM 17")),
        (SLURM | {"SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "2"}, Place(1, 2, 1, 2, "SLURM", True, "SLURM 17")),
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}, Place(0, 8, 2, 4, "SLURM", job="SLURM 17")),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, Place()),  # a shell that SLURM gave
        (
            SLURM | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            Place(1, 2, 1, 2, "SLURM", job="SLURM 17", task=True),
        ),
        (ON_RAY | {"TORCHELASTIC_RUN_ID": "none"}, Place(1, 2, 2, 1, "Ray")),
        (ON_RAY | {"TORCHELASTIC_RUN_ID": "SLURM 17"}, Place(1, 2, 2, 1, "Ray", job="SLURM 17")),
    ],
)
def test_a_process_knows_its_place(monkeypatch, environment, expected):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place() == expected
    assert place().first == (expected.rank == 0)
    machine = this_machine()
    assert (machine.started, machine.beside) == ((expected.world, expected.beside) if expected.by else (0, 0))


@pytest.mark.parametrize(
    ("here", "asks"),
    [
        (Place(), True),
        (Place(0, 4, 4, 1, "SLURM", job="SLURM 17"), True),  # the job's script
        (Place(0, 1, 1, 1, "SLURM", task=True), True),
        (Place(0, 1, 1, 1, "torchrun"), True),
        (Place(1, 2, 2, 1, "Ray"), False),
        (Place(1, 2, 2, 1, "SLURM", task=True), None),
        (Place(0, 2, 2, 1, "SLURM", task=True), None),
        (Place(0, 2, 1, 2, "torchrun"), None),
    ],
)
def test_one_process_alone_asks_ray_and_none_that_ray_has_started(here, asks):
    assert not asks_ray("here", here)
    assert not asks_ray(None, here)
    if asks is None:
        with pytest.raises(UserError) as caught:
            asks_ray("ray", here)
        assert str(caught.value) == (
            "Ray starts the processes that train together, so one alone may ask for them\n"
            f"  --on ray, and {here.by} started 2 processes\n"
            f"fix: start one, or train in those of {here.by}: --on here"
        )
    else:
        assert asks_ray("ray", here) == asks


def test_a_gpu_that_only_emulates_bf16_is_not_said_to_have_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    machine = this_machine()
    assert (machine.device, machine.count, machine.name, machine.bf16) == ("cuda", 2, "Tesla V100", False)


def test_a_notebook_trains_on_one_device_and_refuses_more_before_anything_is_written(monkeypatch, data, tmp_path):
    two = Machine("cuda", 2, "Some GPU", 8, 32_000, True, interactive=True)
    made = plan(check(data), TrainSettings(), two)
    assert (made.settings.devices, made.reasons["devices"].source) == (1, "derived")
    assert made.reasons["devices"].why == ("one of 2 GPUs, since a notebook cannot start processes to train together")
    assert plan(check(data), TrainSettings(), replace(two, interactive=False)).settings.devices == 2
    assert plan(check(data), TrainSettings(), replace(two, started=2)).settings.devices == 2
    assert not this_machine().interactive
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert this_machine().interactive
    with pytest.raises(UserError) as caught:
        train(data, tmp_path / "run", devices=2)
    assert str(caught.value) == (
        "a notebook cannot start processes to train together\n"
        "  devices is 2, and this is a notebook or an interactive Python\n"
        "fix: devices=1; or in a terminal: maskwright train DATA -o RUN --devices 2"
    )
    assert not (tmp_path / "run").exists()
    assert train(data, tmp_path / "run", devices=2, on="ray", dry_run=True).settings.devices == 2


def test_a_notebook_goes_on_alone_with_what_several_processes_began(monkeypatch, data, alone, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    stored = json.loads((alone / "plan.json").read_text())
    stored["settings"]["devices"] = 2
    (out / "plan.json").write_text(json.dumps(stored))
    shutil.copy(alone / "run.json", out)
    assert train(data, out, resume=True, dry_run=True).settings.devices == 2
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    made = train(data, out, resume=True, dry_run=True)
    assert (made.settings.devices, made.reasons["devices"].why) == (1, "since it goes on; it began with 2")
    with pytest.raises(UserError, match="a notebook cannot start processes"):
        train(data, out, resume=True, devices=2)


def test_another_number_of_processes_than_planned_is_refused(monkeypatch, data):
    made = plan(check(data), TrainSettings(devices=1, batch_size=6), Machine("cpu", 1, "2 cores", 2, 8000, False))
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        make_fabric(made, this_machine())
    assert str(caught.value).startswith(
        "as many processes must train together as the plan has\n  torchrun started 3, the plan has 1 devices ("
    )
    assert str(caught.value).endswith("fix: leave --devices out, or: --devices 3")


def test_another_number_of_processes_than_planned_is_refused_before_anything_is_written(monkeypatch, data, tmp_path):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="as many processes must train together as the plan has"):
        train(data, tmp_path / "run", **(QUICK | {"devices": 1, "preflight": False}))
    assert not (tmp_path / "run").exists()


def test_more_devices_than_gpus_are_refused_before_anything_is_written(monkeypatch, data, alone, tmp_path):
    two, out = Machine("cuda", 2, "Some GPU", 8, 32_000, True), tmp_path / "run"
    monkeypatch.setattr(sys.modules["maskwright.train"], "this_machine", lambda: two)
    shutil.copytree(alone, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def refused(**settings):
        with pytest.raises(UserError) as caught:
            train(data, out, **settings)
        return str(caught.value)

    expected = (
        "every device of a training is a GPU of its own\n"
        "  4 devices on this machine, which has 2 GPUs for this process (Some GPU)\n"
        "fix: --devices 2"
    )
    assert refused(overwrite=True, **(QUICK | {"devices": 4, "batch_size": 4})) == expected
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    stored = json.loads((out / "plan.json").read_text())
    stored["settings"] |= {"devices": 4, "batch_size": 4}
    (out / "plan.json").write_text(json.dumps(stored))
    assert refused(resume=True) == expected
    assert train(data, out, resume=True, devices=2, dry_run=True).settings.devices == 2


@pytest.mark.parametrize(("machines", "seen", "fine"), [(1, 4, True), (2, 2, True), (4, 1, True), (2, 1, False)])
def test_processes_of_others_need_a_gpu_each_of_those_that_each_sees(monkeypatch, data, machines, seen, fine):
    values = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": str(machines)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    machine = Machine("cuda", seen, "Some GPU", 8, 32_000, True, started=4)
    made = plan(check(data), TrainSettings(), machine)
    if fine:
        refuse_processes(made, machine)
    else:
        with pytest.raises(UserError, match=r"(?s)2 devices on this machine, which has 1 GPU for.*start 1 of them per"):
            refuse_processes(made, machine)


def test_processes_that_others_started_are_the_devices(data):
    made = plan(check(data), TrainSettings(), Machine("cpu", 1, "2 cores", 2, 8000, False, started=3))
    assert (made.settings.devices, made.settings.batch_size, made.settings.micro_batch) == (3, 6, 2)
    assert made.reasons["devices"].why == "so many processes were started to train together"


@pytest.mark.parametrize(
    ("environment", "start"), [({}, "spawn"), (SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "popen")]
)
def test_processes_are_started_by_us_or_are_there(monkeypatch, data, environment, start):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = plan(check(data), TrainSettings(devices=2), Machine("cpu", 1, "2 cores", 2, 8000, False))
    strategy = make_fabric(made, this_machine()).strategy
    assert isinstance(strategy, DDPStrategy)
    assert strategy._timeout == timedelta(minutes=30)  # until they have met
    assert strategy._start_method == start


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_others_do_not_come_says_so(data, tmp_path, rank):
    code = (
        "import sys; from datetime import timedelta; from maskwright import cli, devices;"
        " devices.MEETING = timedelta(seconds=1); sys.exit(cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words(data, tmp_path / "run", SETTINGS)],
        env={**os.environ, **SLURM, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert "the processes that train together have not all come" in done.stderr
    assert f"process {rank} of the 2 that SLURM started" in done.stderr
    assert "Traceback" not in done.stderr


# Trains as the command line does, on machines that are not alike, and notes by which plan, and how patient it is.
UNLIKE = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from maskwright import cli
import maskwright.train
module = sys.modules["maskwright.train"]
rank, plain = int(os.environ["RANK"]), module.this_machine
module.this_machine = lambda: replace(plain(), bf16=rank == 0, cores=2 + rank, memory_mb=8000 + 800 * rank)
class Noted(module._Training):
    def go(self, resume, began):
        inner = type(self.fabric.strategy.precision).__name__
        group = torch.distributed.distributed_c10d._get_default_group()
        waits = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
        planned = f"{self.settings.precision} {inner} {self.settings.workers} {self.plan.cache_mb}"
        text = f"{planned} {waits:.0f} {self.run.path}"
        (Path(sys.argv[1]) / f"rank{rank}").write_text(text)
module._Training = Noted
sys.exit(cli.main(sys.argv[2:]))
"""


def test_processes_on_unlike_machines_train_by_the_first_ones_plan(data, tmp_path):
    script, out = tmp_path / "unlike.py", tmp_path / "run"
    script.write_text(UNLIKE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(script), str(tmp_path), *words(data, out, QUICK | {"workers": None})]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (
        tmp_path / "rank0"
    ).read_text() == f"bf16 InnerPrecision 2 1000 172800 {out}"  # two days: longer than a validation takes
    assert (tmp_path / "rank1").read_text() == f"bf16 InnerPrecision 3 1100 172800 {out}"


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("32", torch.float32)])
def test_a_network_computes_in_the_precision_of_the_plan(monkeypatch, data, tmp_path, precision, kind):
    seen, given, forward, losses = [], [], BoxHead.forward, MaskRCNN.losses

    def watched(self, x):
        seen.append(self.fc1(x.flatten(1)).dtype)
        return forward(self, x)

    def told(self, images, targets):
        given.extend((images.dtype, target["boxes"].dtype) for target in targets)
        return losses(self, images, targets)

    monkeypatch.setattr(BoxHead, "forward", watched)
    monkeypatch.setattr(MaskRCNN, "losses", told)
    train(data, tmp_path / "run", **(SETTINGS | {"precision": precision, "steps": 2}))
    assert len(given) == 4
    assert set(seen) == {kind}
    assert set(given) == {(torch.uint8, torch.float32)}  # a place in bf16 would be off by a pixel


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_what_goes_into_the_network_is_not_rounded(precision):
    boxes = torch.tensor([[0.25, 301.0, 0.5, 601.5]])
    inner = InnerPrecision(precision, "cpu", None if precision == "bf16-mixed" else torch.amp.GradScaler("cpu"))
    assert inner.convert_input([{"boxes": boxes}])[0]["boxes"] is boxes
    with inner.forward_context():
        assert (boxes @ boxes.T).dtype == (torch.bfloat16 if precision == "bf16-mixed" else torch.float16)


def test_a_scaler_goes_on_where_it_was_or_begins_anew():
    inner = InnerPrecision("16-mixed", "cpu")
    inner.scaler.scale(torch.ones(()))
    state = inner.state_dict()
    assert state["scale"] == 65536
    inner.load_state_dict(state | {"scale": 8.0, "_growth_tracker": 3})
    assert inner.scaler.scale(torch.ones(())) == 8
    assert inner.state_dict() == state | {"scale": 8.0, "_growth_tracker": 3}
    inner.load_state_dict({})
    assert inner.state_dict() == state
    without = InnerPrecision("bf16-mixed", "cpu")
    without.load_state_dict({})
    assert without.state_dict() == {}
