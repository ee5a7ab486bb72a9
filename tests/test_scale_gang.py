"""Processes that work on one thing together, on Ray."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

import maskwright
from maskwright import scale
from maskwright.errors import UserError
from maskwright.scale.gang import BY_RAY, ProcessesDiedError, cpus_each, together

pytest.importorskip("ray")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
NAMES += ("TORCHELASTIC_RUN_ID", BY_RAY)


@pytest.fixture(scope="module")
def cluster():
    """Ray, started once for all tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers must find this module, and the package that is tested.
        folders = [str(Path(__file__).parent), str(Path(maskwright.__file__).parents[1])]
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        with scale.at("ray", workers=2):
            yield


def introduce(say):
    """Say who this process is, and return it."""
    say(f"rank {os.environ['RANK']} speaks")
    return {name: os.environ[name] for name in NAMES} | {"port": int(os.environ["MASTER_PORT"])}


def fail(rank, say):
    if os.environ["RANK"] == rank:
        raise UserError("it cannot be", ["here"], "do otherwise")
    say("fine")


def die(rank, say):
    if os.environ["RANK"] == rank:
        os.kill(os.getpid(), signal.SIGKILL)


def test_processes_know_each_other_and_the_first_one_speaks_and_answers(cluster):
    said = []
    answer, count = together(introduce, 2, say=said.append)
    assert said == ["rank 0 speaks"]
    assert count == 2
    assert answer.pop("port") > 0
    assert answer == dict(zip(NAMES, ("0", "2", "0", "2", "0", "2", "none", "1"), strict=True))
    assert together(introduce, 1, job="SLURM 17")[0]["TORCHELASTIC_RUN_ID"] == "SLURM 17"


@pytest.mark.parametrize(("gpus", "each"), [({"GPU": 2.0}, 1), ({}, 0)])
def test_gpus_are_those_of_the_cluster_and_not_of_the_machine_that_asks(cluster, monkeypatch, gpus, each):
    import ray

    wanted, plain = [], ray.remote

    def remote(**options):
        if "num_gpus" in options:  # a process of ours; what works in tasks asks for none
            wanted.append(options["num_gpus"])
            options["num_gpus"] = 0  # there is none here
        return plain(**options)

    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0, **gpus}}])
    _, count = together(introduce, None)
    assert wanted == [each]
    assert count == (2 if gpus else 1)  # one per GPU, or one per machine


def test_what_one_raises_is_raised_and_a_death_is_told(cluster):
    with pytest.raises(UserError) as caught:
        together(partial(fail, "1"), 2)
    assert str(caught.value) == "it cannot be\n  here\nfix: do otherwise"
    with pytest.raises(ProcessesDiedError, match="a process of the Ray cluster died") as died:
        together(partial(die, "1"), 2)
    assert died.value.left == 1


def reduce(say):
    """Wait for the other process, which dies: gloo breaks off before Ray knows of it."""
    import torch

    torch.distributed.init_process_group("gloo")
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.all_reduce(torch.ones(1))


def test_when_one_dies_what_the_others_raise_since_is_not_the_cause(cluster):
    with pytest.raises(ProcessesDiedError, match="a process of the Ray cluster died") as died:
        together(reduce, 2)
    assert died.value.left == 1


def wrong(say):
    raise ZeroDivisionError("our bug")


def test_what_one_raises_while_all_live_is_the_cause(cluster):
    with pytest.raises(ZeroDivisionError, match="our bug"):
        together(wrong, 2)


def die_one_after_the_other(folder, say):
    mine = folder / os.environ["RANK"]
    if os.environ["RANK"] == "1":
        mine.write_text(str(os.getpid()))
    if os.environ["RANK"] == "2":
        while not (folder / "1").exists() or not (pid := (folder / "1").read_text()) or lives(pid):
            time.sleep(0.01)
    if os.environ["RANK"] != "0":
        os.kill(os.getpid(), signal.SIGKILL)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_those_that_are_left_are_those_that_answer(cluster, tmp_path):
    with pytest.raises(ProcessesDiedError) as died:
        together(partial(die_one_after_the_other, tmp_path), 3)
    assert died.value.left == 1


@pytest.mark.parametrize(
    ("machines", "count", "each"),
    [
        ([(8, 0), (8, 0)], 4, 4),
        ([(8, 0), (8, 0)], 3, 4),  # 16 // 3 would be 5, and there is no room for the third
        ([(8, 0), (8, 0)], 2, 8),
        ([(7, 0)], 3, 2),
        ([(2, 0)], 3, 0.6666),
        ([(2, 0), (1, 0)], 4, 0.6666),
        ([(16, 0), (2, 0), (0, 0)], 3, 5),
        ([(8, 1), (4, 3)], 4, 1),  # the one with three GPUs has the fewest CPUs
        ([(64, 0), (8, 2)], 2, 4),
        ([(8, 1)], 2, 4),  # no room: Ray waits for a machine more, or says so
    ],
)
def test_processes_have_as_many_cpus_as_there_is_room_for_all(machines, count, each):
    assert cpus_each(machines, count) == each


# What trains is imported where it is used: the processes of the tests above import this module.


def test_a_training_on_ray_is_that_of_its_processes(cluster, tmp_path):
    from maskwright.devices import this_machine
    from maskwright.train import train
    from tiny_world import QUICK, write_data

    data, said = write_data(tmp_path / "data", val=0, test=0), []
    settings = QUICK | {"steps": 1, "log_every": 1, "precision": "32"}
    # A dry run plans for the processes of the cluster, of which the machine that asks need not be one.
    dry = train(data, tmp_path / "ray", on="ray", devices=2, dry_run=True, say=said.append, **settings)
    assert (dry.settings.devices, dry.cache_mb * 2) == (2, pytest.approx(this_machine().memory_mb / 4, abs=2))
    assert "so many processes were started" in dry.reasons["devices"].why
    assert said.pop() == dry.table()
    assert not (tmp_path / "ray").exists()
    run = train(data, tmp_path / "ray", on="ray", devices=2, say=said.append, **settings)
    assert (run.state, run.step) == ("finished", 1)
    assert sum(text.startswith("epoch ") for text in said) == 1
    assert any("so many processes were started" in text for text in said)
    train(data, tmp_path / "here", **settings)
    ray, here = (json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("ray", "here"))
    assert ray["losses"] == pytest.approx(here["losses"], abs=2e-5)
