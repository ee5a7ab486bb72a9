"""Checkpoints of others are read without running what they say."""

import argparse
import collections
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskwright.errors import UserError
from maskwright.models.checkpoints import read_checkpoint

TENSOR = torch.arange(12.0).view(3, 4)


class Marks:
    """A pickle that would run something: it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class History:
    def __init__(self):
        self.values = np.arange(5.0)
        self.methods = {"mean": [1, 2]}


def write(path, value, protocol=2):
    with path.open("wb") as handle:
        pickle.dump(value, handle, protocol=protocol)
    return path


def test_tensors_come_by_name_and_foreign_objects_are_dropped_and_counted(tmp_path):
    weights = collections.OrderedDict(a=TENSOR, turned=TENSOR.t(), part=TENSOR[1:, 2], p=torch.nn.Parameter(TENSOR))
    whole = {
        "state_dict": weights,
        "meta": {"CLASSES": ("x", "y"), "epoch": 3, "lr": np.float64(0.5)},
        "hub": {"loss": History(), "time": History()},
        "args": argparse.Namespace(lr=1),
    }
    torch.save(whole, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert found.reader == "restricted"
    assert set(found.tensors) == {"state_dict/a", "state_dict/turned", "state_dict/part", "state_dict/p"}
    assert torch.equal(found.tensors["state_dict/a"], TENSOR)
    assert torch.equal(found.tensors["state_dict/turned"], TENSOR.t())
    assert found.tensors["state_dict/part"].tolist() == [6, 10]
    assert found.values["meta"] == {"CLASSES": ["x", "y"], "epoch": 3, "lr": 0.5}
    assert found.dropped == {"test_checkpoints.History": 1, "argparse.Namespace": 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_every_type_of_number_comes_back(tmp_path, dtype):
    value = torch.tensor([0, 1, 3]).to(dtype)
    torch.save({"w": value, "more": History()}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert found.reader == "restricted"
    assert torch.equal(found.tensors["w"], value)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_in_a_pickle_become_tensors(tmp_path, protocol):
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "count": np.int64(7),
        "objects": np.array([History()]),
    }
    found = read_checkpoint(write(tmp_path / "a.pkl", {"model": arrays, "__author__": "someone"}, protocol))
    assert {k: v.tolist() for k, v in found.tensors.items()} == {
        "model/w": [[0, 1, 2], [3, 4, 5]],
        "model/columns": [[0, 1, 2], [3, 4, 5]],
        "model/big": [0, 1, 2],
    }
    assert found.values["__author__"] == "someone"


def test_pickles_of_python_2_are_read(tmp_path):
    raw = np.arange(2, dtype=np.float32).tobytes()
    # As Python 2 wrote it: raw data as a string.
    text = (
        b"\x80\x02}U\x05conv1cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbs."
    )
    (tmp_path / "a.pkl").write_bytes(text)
    assert read_checkpoint(tmp_path / "a.pkl").tensors["conv1"].tolist() == [0, 1]


def test_nothing_that_a_file_names_is_called(tmp_path):
    mark = tmp_path / "mark"
    write(tmp_path / "a.pkl", {"model": {"w": TENSOR.numpy(), "x": Marks(mark)}})
    torch.save({"w": TENSOR, "x": Marks(mark)}, tmp_path / "a.pth")
    for name in ("a.pkl", "a.pth"):
        found = read_checkpoint(tmp_path / name)
        assert len(found.tensors) == 1
        assert sum(found.dropped.values()) == 1
    assert not mark.exists()


ATTACKS = {
    # Each would reach what it names through one more opcode of the pickle machine.
    "a module's function": b"cos\nsystem\n(S'true'\ntR.",
    "an attribute of a stand-in": b"ccollections\nOrderedDict\n}S'func'\ncos\nsystem\nsb.",
    "a path of names": b"\x80\x04\x8c\x05numpy\x8c\x0cdtype.__init__\x93\x8c\x01x\x85R.",
    "an instance with a state": b"(cos\nsystem\nS'x'\no}S'y'\nI1\nsb.",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_known_ways_out_of_a_pickle_lead_nowhere(tmp_path, monkeypatch, text):
    called = []
    monkeypatch.setattr("os.system", lambda *args: called.append(args))
    before = dict(vars(collections.OrderedDict))
    (tmp_path / "a.pkl").write_bytes(text)
    try:
        found = read_checkpoint(tmp_path / "a.pkl")
        assert found.tensors == {}
    except UserError:
        pass
    assert called == []
    assert dict(vars(collections.OrderedDict)) == before


def rezipped(path, change, compression=zipfile.ZIP_STORED):
    """Write the entries of a zip file anew, changed."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in entries.items():
            new.writestr(name, change(name, data))


def refused(path):
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    return str(caught.value)


def test_a_file_that_is_larger_inside_than_outside_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(100_000), "x": History()}, path)
    rezipped(path, lambda _name, data: data, zipfile.ZIP_DEFLATED)
    assert "it is compressed, which torch.save does not do" in refused(path)


def test_a_storage_that_is_shorter_than_it_says_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": TENSOR, "x": History()}, path)
    rezipped(path, lambda name, data: data[:20] if "/data/" in name else data)
    assert "is shorter than it says" in refused(path)


def test_a_tensor_that_repeats_its_memory_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(1).expand(1_000_000), "x": History()}, path)
    assert "a tensor that is larger than its storage" in refused(path)


def test_deep_nesting_is_refused_or_cut_and_never_ends_the_process(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")
    try:
        found = read_checkpoint(tmp_path / "a.pkl").tensors
    except UserError:
        found = {}
    assert found == {}


def test_lists_that_hold_each_other_many_times_are_refused(tmp_path):
    value = [1.0] * 10
    for _ in range(12):
        value = [value] * 10  # 10**13 values, in a file of some hundred bytes
    assert "it holds more than 2,000,000 values" in refused(write(tmp_path / "a.pkl", value))


def test_the_format_before_1_6_is_read_if_it_holds_only_tensors(tmp_path):
    torch.save({"w": TENSOR}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "a.pth").tensors["w"], TENSOR)
    torch.save({"w": TENSOR, "x": History()}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert "fix: save it again with a newer torch: torch.save(state_dict, FILE)" in refused(tmp_path / "b.pth")


@pytest.mark.parametrize("first", [b"\x80\x01", b"(\x01", b"}\x01", b"c\x01", b"PK"])
def test_safetensors_are_known_whatever_the_length_of_their_header(tmp_path, first):
    save_file({"w": TENSOR}, tmp_path / "plain.safetensors")
    plain = (tmp_path / "plain.safetensors").read_bytes()
    end = 8 + int.from_bytes(plain[:8], "little")
    length = int.from_bytes(first, "little")
    header = plain[8:end].ljust(length)  # spaces are allowed there
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + header + plain[end:])
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert found.reader == "safetensors"
    assert torch.equal(found.tensors["w"], TENSOR)


def test_safetensors_bring_their_metadata(tmp_path):
    save_file({"w": TENSOR}, tmp_path / "a.safetensors", {"maskwright": '{"architecture": "x"}', "note": "plain"})
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(found.tensors["w"], TENSOR)
    assert found.values == {"maskwright": {"architecture": "x"}, "note": "plain"}
    assert found.reader == "safetensors"


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_files_that_are_cut_off_are_refused_with_their_name(tmp_path, cut):
    torch.save({"w": TENSOR, "x": History()}, tmp_path / "a.pth")
    save_file({"w": TENSOR}, tmp_path / "a.safetensors")
    write(tmp_path / "a.pkl", {"w": TENSOR.numpy()})
    for name in ("a.pth", "a.safetensors", "a.pkl"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(cut * len(whole))])
        assert str(tmp_path / name) in refused(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.pth")
    (tmp_path / "a.txt").write_text("hello, this is no file of weights")
    assert "the file holds no weights of a known kind" in refused(tmp_path / "a.txt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "it is a zip file, but not one of torch.save" in refused(tmp_path / "a.zip")
    buffer = io.BytesIO(struct.pack("<Q", 10**9) + b"{}")
    (tmp_path / "a.bin").write_bytes(buffer.getvalue())
    assert "known kind" in refused(tmp_path / "a.bin")
