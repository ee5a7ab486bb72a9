"""A run is JSON and safetensors: written, read, refused in plain words where it is damaged."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskwright.dataset import Category
from maskwright.errors import UserError
from maskwright.run import BEST, LAST, Run, load_tensors, load_weights, save_tensors

SIZES = {"categories": 2, "anchor_sizes": [[16], [24], [32], [64]], "detections_per_photo": 30}


def new(path, **changes):
    values = {
        "architecture": "maskrcnn-nano",
        "sizes": SIZES,
        "categories": (Category(3, "hammer"), Category(8, "Größe")),
        "side": 96,
        "threshold": 0.4,
        "data": "/data",
        "fingerprint": {"train": "ab"},
        "step": 3,
        "metrics": {"segm/AP": 0.5, "segm/APs": None},
        "best_step": 2,
    }
    return Run(path=path, **(values | changes))


def message(call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


def edited(path, change):
    values = json.loads((path / "run.json").read_text())
    change(values)
    (path / "run.json").write_text(json.dumps(values))
    return path


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = new(tmp_path / "run").write()
    assert Run.read(str(tmp_path / "run")) == run
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["categories"] == [{"id": 3, "name": "hammer"}, {"id": 8, "name": "Größe"}]
    assert stored["threshold"] == 0.4
    assert stored["data"] == "/data"
    assert set(stored["made_by"]) == {"maskwright", "python", "made"}


def test_changes_are_written_and_returned(tmp_path):
    run = new(tmp_path).write()
    later = run.write(state="finished", step=9)
    assert (later.state, later.step, run.step) == ("finished", 9, 3)
    assert Run.read(tmp_path) == later


def test_a_run_without_a_validation_has_no_metrics(tmp_path):
    new(tmp_path, metrics=None, best_step=None, fingerprint=None).write()
    found = Run.read(tmp_path)
    assert (found.metrics, found.best_step, found.fingerprint) == (None, None, {})


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert message(Run.read, tmp_path) == (
        "the folder is not a run: run.json is not there\n"
        f"  {tmp_path}\n"
        "fix: name a folder that `maskwright train` wrote"
    )


def test_json_that_is_cut_off_is_refused(tmp_path):
    new(tmp_path).write()
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text[: len(text) // 2])
    found = message(Run.read, tmp_path)
    assert found.startswith(f"the file is not valid JSON\n  {tmp_path / 'run.json'}: ")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: v.pop("side"), "KeyError('side')"),
        (lambda v: v.update(side="wide"), "ValueError(\"invalid literal for int() with base 10: 'wide'\")"),
        (lambda v: v.update(categories=[1]), "TypeError(\"'int' object is not subscriptable\")"),
    ],
)
def test_a_damaged_run_json_is_refused(tmp_path, change, fault):
    new(tmp_path).write()
    assert message(Run.read, edited(tmp_path, change)) == (
        f"run.json is damaged\n  {tmp_path / 'run.json'}: {fault}\nfix: train again, or copy the run again"
    )


def test_a_run_json_that_is_a_list_is_damaged(tmp_path):
    (tmp_path / "run.json").write_text("[]")
    assert message(Run.read, tmp_path).startswith(f"run.json is damaged\n  {tmp_path / 'run.json'}: TypeError(")


def test_an_unknown_network_is_refused_with_the_nearest(tmp_path):
    new(tmp_path).write()
    edited(tmp_path, lambda v: v.update(architecture="maskrcnn-nona"))
    assert message(Run.read, tmp_path) == (
        "the run's network is unknown to this version: 'maskrcnn-nona'; did you mean 'maskrcnn-nano'?\n"
        f"  {tmp_path / 'run.json'}\n"
        "fix: upgrade maskwright"
    )


# Weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    run = new(path).write()
    torch.manual_seed(0)
    network = run.build().eval()
    run.save_weights(LAST, network.state_dict())
    return run, network


@torch.inference_mode()
def test_the_network_comes_back_from_the_folder(trained):
    run, network = trained
    again = Run.read(run.path).network()
    assert not again.training
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before, after = network.detect(image, [(64, 64)])[0], again.detect(image, [(64, 64)])[0]
    assert len(before["scores"]) > 0
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_best_weights_win_over_the_last(trained):
    run, network = trained
    other = {k: v + 1 if v.is_floating_point() else v for k, v in network.state_dict().items()}
    run.save_weights(BEST, other)
    try:
        found = run.network().state_dict()
    finally:
        (run.path / BEST).unlink()
    assert all(torch.equal(found[k], other[k]) for k in other)


def test_weights_describe_themselves(trained):
    run, _ = trained
    with safe_open(run.path / LAST, "pt") as opened:
        told = json.loads(opened.metadata()["maskwright"])
    assert told["architecture"] == "maskrcnn-nano"
    assert told["categories"][1] == {"id": 8, "name": "Größe"}
    assert told["sizes"] == SIZES
    assert told["side"] == 96


def test_the_same_weights_are_the_same_bytes_whenever_they_are_written(trained, monkeypatch):
    run, network = trained
    monkeypatch.setattr("maskwright.run.provenance", lambda: {"maskwright": "0", "python": "3", "made": "later"})
    run.write(state="interrupted").save_weights("weights/again.safetensors", network.state_dict())
    monkeypatch.setattr("maskwright.run.provenance", lambda: {"maskwright": "0", "python": "3", "made": "even later"})
    run.write(state="training").save_weights("weights/third.safetensors", network.state_dict())
    again, third = (run.path / f"weights/{name}.safetensors" for name in ("again", "third"))
    assert again.read_bytes() == third.read_bytes()
    assert load_file(again).keys() == network.state_dict().keys()


def test_a_run_without_weights_says_so(tmp_path):
    run = new(tmp_path).write()
    assert message(run.network) == (
        f"the run has no weights yet\n  {tmp_path / LAST}\nfix: let training go on: maskwright train ... --resume"
    )


def test_a_weight_file_that_is_cut_off_is_named(trained, tmp_path):
    run, _ = trained
    path = tmp_path / "cut.safetensors"
    path.write_bytes((run.path / LAST).read_bytes()[:1000])
    found = message(load_tensors, path)
    assert found.startswith(f"the weight file cannot be read\n  {path}: ")
    assert found.endswith("\nfix: copy or train it again")


def test_weights_of_another_network_are_refused_tensor_by_tensor(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2, 5), "extra": torch.zeros(1)}, path)
    network = torch.nn.Linear(3, 2)
    before = network.weight.clone()
    assert message(load_weights, network, path) == (
        "the weights are of another network\n"
        f"  {path}: bias is missing\n"
        f"  {path}: extra is not part of the network\n"
        f"  {path}: weight is (2, 5), expected (2, 3)\n"
        "fix: use the version of Maskwright that the run was trained with (run.json names it), or train again"
    )
    assert torch.equal(network.weight, before)


def test_tensors_of_any_layout_are_stored_as_plain_values(tmp_path):
    value = torch.arange(48.0).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x.safetensors", {"v": value.requires_grad_()}, {"a": "b"})
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["v"], value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
