"""Weights out of files that others wrote, without running anything that the files say.

A pickle is a program. `torch.load(weights_only=True)` runs only the harmless part of it and refuses the rest, and much
of what lies about has a rest: training state, `argparse.Namespace`, MMEngine's `HistoryBuffer`, NumPy arrays. The
reader here goes through such a file with inert stand-ins: tensors and arrays are rebuilt by code of ours, plain Python
values are kept, and everything else becomes a placeholder that does nothing, is counted by its name and dropped.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskwright.errors import UserError

MOST_PICKLE = 256 * 2**20
"""Bytes of a zip file's pickle; that of a checkpoint, beside its tensors, has some hundred thousand."""

MOST_VALUES = 2_000_000
"""Values that are looked through for tensors."""

MOST_DEPTH = 32

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What torch wrote first into its files before version 1.6."""

STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes:
        path: The file.
        tensors: By the names they have there, `/` between the levels of nested dicts.
        values: Everything plain beside them, nested as there: numbers, texts, lists, dicts.
        dropped: How many objects of which foreign classes were dropped.
        reader: How it was read: `safetensors`, `weights_only` or `restricted`.
    """

    path: Path
    tensors: dict[str, Tensor]
    values: Any
    dropped: dict[str, int] = field(default_factory=dict)
    reader: str = "restricted"


def read_checkpoint(path: Path) -> Stored:
    """Read a file of weights, whatever wrote it.

    Args:
        path: Safetensors, a file of `torch.save`, or a pickle (Detectron2's model zoo).

    Raises:
        UserError: If it is absent, of no such kind, damaged, or larger inside than outside.
    """
    if not path.is_file():
        raise UserError("the weight file does not exist", [str(path)], "check the path")
    with path.open("rb") as handle:
        head = handle.read(16)
    # Safetensors begin with the length of their header, whose first byte may be that of any other kind.
    if 8 < int.from_bytes(head[:8], "little") < path.stat().st_size and head[8:9] == b"{":
        return _safetensors(path)
    if head[:2] == b"PK":
        return _zip(path)
    if head[:1] == b"\x80" or head[:1] in (b"(", b"}", b"c"):
        return _pickle(path)
    raise UserError(
        "the file holds no weights of a known kind",
        [f"{path} is neither safetensors, nor a file of torch.save, nor a pickle"],
        "name a .safetensors, .pth, .pt or .pkl file",
    )


def _damaged(path: Path, why: object) -> UserError:
    return UserError("the weight file cannot be read", [f"{path}: {why}"], "copy or download it again")


def _safetensors(path: Path) -> Stored:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        tensors = dict(load_file(path))
        with safe_open(path, "pt") as opened:
            told = dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    values = {k: _json(v) for k, v in told.items()}
    return Stored(path, tensors, values, reader="safetensors")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _zip(path: Path) -> Stored:
    """Read a file of `torch.save` since 1.6: first by torch's own safe reader, then by ours."""
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever it is, the restricted reader says it better
        return _zip_restricted(path)
    return _sorted_out(path, whole, Counter(), "weights_only")


def _zip_restricted(path: Path) -> Stored:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            # Stored entries cannot be larger than the file; compressed or overlapping ones could be of any size.
            if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
                raise _damaged(path, "it is compressed, which torch.save does not do")
            if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
                raise _damaged(path, "its parts are larger than the whole")
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise _damaged(path, "it is a zip file, but not one of torch.save")
            if entries[pickles[0]].file_size > MOST_PICKLE:
                raise _damaged(path, f"its pickle has more than {MOST_PICKLE >> 20} MB")
            root = pickles[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in entries and archive.read(order).strip() != b"little":
                raise _damaged(path, "it was written by a big-endian machine")
            reader = _Reader(io.BytesIO(archive.read(pickles[0])), path, lambda key: archive.read(f"{root}data/{key}"))
            return _sorted_out(path, reader.read(), reader.dropped, "restricted")
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise _damaged(path, error) from None


def _pickle(path: Path) -> Stored:
    """Read a bare pickle; torch's format of before 1.6, which starts as one, is left to torch."""
    with path.open("rb") as handle:
        reader = _Reader(handle, path, None)
        whole = reader.read()
    if whole != LEGACY_MAGIC:
        return _sorted_out(path, whole, reader.dropped, "restricted")
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            "the weight file is in torch's format of before 1.6 and holds more than tensors",
            [f"{path}: {str(error).splitlines()[0]}"],
            "save it again with a newer torch: torch.save(state_dict, FILE)",
        ) from None
    return _sorted_out(path, whole, Counter(), "weights_only")


class _Inert:
    """Stands for anything that is not known: takes all that a pickle may do to it, and does nothing."""

    def __new__(cls, *_args: Any, **_more: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_more: Any) -> None:
        return

    def __call__(self, *_args: Any, **_more: Any) -> _Inert:
        return self

    def __setstate__(self, _state: Any) -> None:
        return

    def __setitem__(self, _key: Any, _value: Any) -> None:
        return

    def append(self, _value: Any) -> None:
        return

    def extend(self, _values: Any) -> None:
        return

    def add(self, _value: Any) -> None:
        return

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Dtype:
    """Stands for `numpy.dtype`: numbers only."""

    def __init__(self, code: Any = "", *_flags: Any) -> None:
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if self.code[:1] not in tuple("fiub") or not self.code[1:].isdigit():
            raise ValueError(f"an array of {self.code or 'nothing'}")
        return np.dtype((self.order if self.order in "<>" else "<") + self.code)


class _Array:
    """Stands for a NumPy array in the making."""

    def __init__(self, *_args: Any) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            return
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            return
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(data, bytes | bytearray):
            return  # a list: an array of objects
        try:
            flat = np.frombuffer(data, dtype.numpy())
            self.value = flat.reshape(tuple(int(n) for n in shape), order="F" if fortran else "C")
        except (TypeError, ValueError):
            return


def _scalar(dtype: Any = None, raw: Any = b"", *_more: Any) -> Any:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        return None
    try:
        return np.frombuffer(data, dtype.numpy(), count=1)[0].item()
    except ValueError:
        return None


def _from_buffer(buffer: Any = b"", dtype: Any = None, shape: Any = (), order: Any = "C", *_more: Any) -> _Array:
    made = _Array()
    raw = bytes(buffer) if isinstance(buffer, bytes | bytearray | memoryview) else None
    made.__setstate__((1, shape, dtype, order == "F", raw))
    return made


def _encode(text: Any = "", _codec: Any = "latin1", *_more: Any) -> bytes:
    """Stand for `_codecs.encode`, by which Python 3 writes bytes in old protocols."""
    return str(text).encode("latin1", "replace")


class _Dict(dict[Any, Any]):
    """Stands for `OrderedDict`; its state (torch keeps versions there) is left out."""

    def __setstate__(self, _state: Any) -> None:
        return


def _ordered(*items: Any) -> _Dict:
    return _Dict(items[0]) if items and isinstance(items[0], list | tuple | dict) else _Dict()


def _plain_set(items: Any = (), *_more: Any) -> list[Any]:
    return list(items) if isinstance(items, list | tuple) else []


@dataclass(frozen=True)
class _Storage:
    data: bytes
    dtype: torch.dtype


class _Held:
    """Holds a tensor, so that a pickle cannot reach its methods."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __setstate__(self, _state: Any) -> None:
        return


def _tensor(storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *_more: Any) -> Any:
    """Stand for `torch._utils._rebuild_tensor_v2`, with every number checked."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        return None
    numbers = [int(n) for n in (offset, *size, *stride)]
    if min(numbers) < 0 or any(isinstance(n, bool) or not isinstance(n, int) for n in (offset, *size, *stride)):
        raise ValueError("a tensor of a negative or broken size")
    count = len(storage.data) // storage.dtype.itemsize
    if math.prod(size) == 0:
        return _Held(torch.zeros(tuple(size), dtype=storage.dtype))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # A tensor whose rows share memory could be of any size.
    if last >= count or math.prod(size) > count:
        raise ValueError("a tensor that is larger than its storage")
    flat = torch.frombuffer(bytearray(storage.data), dtype=storage.dtype)
    placed = torch.as_strided(flat, tuple(size), tuple(stride), offset)
    return _Held(placed.clone(memory_format=torch.contiguous_format))


def _parameter(data: Any = None, *_more: Any) -> Any:
    return data


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")

KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _plain_set,
    ("builtins", "frozenset"): _plain_set,
    ("__builtin__", "set"): _plain_set,
    ("torch", "Size"): _plain_set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{(module, "_reconstruct"): _Array for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    **{(module, "_frombuffer"): _from_buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
}
"""All that a pickle can name and get something for; each is a function of ours."""


class _Reader(pickle.Unpickler):
    """Reads a pickle with stand-ins for everything that it names.

    Args:
        handle: Of the pickle.
        path: For errors.
        storage: Returns the bytes of a storage by its key; `None` if there are none beside the pickle.
    """

    def __init__(self, handle: BinaryIO, path: Path, storage: Callable[[str], bytes] | None) -> None:
        super().__init__(handle, fix_imports=False, encoding="latin1", errors="strict")
        self.path, self.storage = path, storage
        self.dropped: Counter[str] = Counter()
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name; never what the name means."""
        known = KNOWN.get((module, name))
        if known is not None:
            # A new function each time: a pickle may set attributes of what it is given.
            return partial(known)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        self.dropped[f"{module}.{name}"] += 1
        return type("_Dropped", (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that a tensor lies in."""
        if self.storage is None or not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("it refers to something that is not in the file")
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError(f"a storage of an unknown type ({dtype})")
        key = str(key)
        if key not in self.storages:
            data = self.storage(key)
            if len(data) < count * dtype.itemsize:
                raise pickle.UnpicklingError(f"the storage {key} is shorter than it says")
            self.storages[key] = _Storage(data, dtype)
        return self.storages[key]

    def read(self) -> Any:
        """Read the first object.

        Raises:
            UserError: If the pickle is damaged.
        """
        try:
            return self.load()
        except UserError:
            raise
        except (MemoryError, RecursionError) as error:
            raise _damaged(self.path, f"it is nested or sized beyond reason ({type(error).__name__})") from None
        except Exception as error:  # a broken pickle may fail in any way
            raise _damaged(self.path, error or type(error).__name__) from None


def _sorted_out(path: Path, whole: Any, dropped: Mapping[str, int], reader: str) -> Stored:
    """Part what was read into tensors and plain values."""
    tensors: dict[str, Tensor] = {}
    seen = 0

    def part(value: Any, name: str, depth: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > MOST_VALUES:
            raise _damaged(path, f"it holds more than {MOST_VALUES:,} values")
        if isinstance(value, _Array | _Held):
            value = value.value
        if isinstance(value, np.ndarray):
            native = value.astype(value.dtype.newbyteorder("="))
            if native.dtype in (np.uint16, np.uint32, np.uint64):
                native = native.astype(np.int64)
            value = torch.from_numpy(np.array(native))
        if isinstance(value, Tensor):
            tensors[name] = value.detach()
            return None
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if depth >= MOST_DEPTH:
            return None
        if isinstance(value, dict):
            return {
                str(k): part(v, f"{name}/{k}" if name else str(k), depth + 1)
                for k, v in dict.items(value)
                if isinstance(k, str | int)
            }
        if isinstance(value, list | tuple):
            return [part(v, f"{name}/{k}" if name else str(k), depth + 1) for k, v in enumerate(value)]
        return None

    values = part(whole, "", 0)
    return Stored(path, tensors, values, dict(dropped), reader)
