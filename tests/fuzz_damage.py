"""Ways to corrupt an input: bytes, files, links, pictures, values of JSON, words of text files and XML."""

import copy
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from fuzz_world import SIZE


def corrupt(root: Path, dice: random.Random) -> str:
    """Damage an input in one to three ways; returns what was done."""
    return "; ".join(_corrupt_once(root, dice) for _ in range(dice.choice((1, 1, 1, 2, 3))))


def _corrupt_once(root: Path, dice: random.Random) -> str:
    # A link that an earlier damage made leads to a file of somebody else: written through, that one would be damaged.
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing is left"
    texts = [path for path in files if path.suffix in {".json", ".xml", ".txt", ".yaml"}]
    path = dice.choice(texts) if texts and dice.random() < 0.6 else dice.choice(files)
    name = path.relative_to(root).as_posix()
    ways: list[Callable[[Path, random.Random], str]] = [_flip, _cut, _swap, _remove, _link, _fill]
    if path.suffix == ".json":
        ways += [_json] * 12
    elif path.suffix in {".xml", ".txt", ".yaml"}:
        ways += [_text] * 10
    elif path.suffix == ".png":
        ways += [_bomb, _resize, _repaint, _repaint]
    elif path.suffix in {".jpg", ".jpeg"}:
        ways += [_resize]
    return f"{name}: {dice.choice(ways)(path, dice)}"


def _flip(path: Path, dice: random.Random) -> str:
    content = bytearray(path.read_bytes())
    count = dice.choice((1, 1, 2, 8, 40))
    for _ in range(count if content else 0):
        content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(content)
    return f"{count} bytes changed"


def _cut(path: Path, dice: random.Random) -> str:
    content = path.read_bytes()
    length = dice.randrange(len(content) + 1)
    path.write_bytes(content[:length])
    return f"cut to {length} bytes"


def _swap(path: Path, dice: random.Random) -> str:
    other = dice.choice(sorted(one for one in path.parent.rglob("*") if one.is_file()))
    path.write_bytes(other.read_bytes())
    return f"replaced by {other.name}"


def _remove(path: Path, dice: random.Random) -> str:
    path.unlink()
    if dice.random() < 0.3:
        path.mkdir()
        return "is a folder now"
    return "removed"


OUTSIDE = "outside.txt"
"""A file beside the input's folder, which links may lead to and nobody may change."""


def _link(path: Path, dice: random.Random) -> str:
    path.unlink()
    outside = os.path.relpath(next(up for up in path.parents if (up / OUTSIDE).is_file()) / OUTSIDE, path.parent)
    target = dice.choice((outside, path.name, "..", "../..", "/dev/null", "nowhere", str(path.parent)))
    path.symlink_to(target)
    return f"is a link to {target}"


def _fill(path: Path, dice: random.Random) -> str:
    content = dice.choice((b"", b"\0" * 1000, b"[" * 5000, b"{}", b"[]", b"null", b"\xff\xfe\x00", b'{"a":' * 3000))
    path.write_bytes(content)
    return f"filled with {content[:6]!r}..."


def _bomb(path: Path, dice: random.Random) -> str:
    """Declare a huge picture in the header, with a right checksum."""
    content = bytearray(path.read_bytes())
    if content[:4] != b"\x89PNG" or len(content) < 33:
        return "no PNG any more"
    sides = dice.choice(((100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 24_000), (1, 400_000_000), (0, 5)))
    content[16:24] = struct.pack(">II", *sides)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)
    return f"declares {sides[0]} x {sides[1]}"


def _resize(path: Path, dice: random.Random) -> str:
    try:
        with Picture.open(path) as image:
            changed = image.resize((dice.randrange(1, 60), dice.randrange(1, 60)), Picture.Resampling.NEAREST)
            changed.save(path)
    except (OSError, Picture.DecompressionBombError):
        return "no picture any more"
    return f"made {changed.size}"


def _repaint(path: Path, dice: random.Random) -> str:
    mode = dice.choice(("1", "L", "RGB", "RGBA", "I;16", "P", "LA"))
    values = np.random.default_rng(dice.randrange(2**32)).integers(0, dice.choice((2, 4, 256)), (*SIZE, 4))
    if mode == "I;16":
        Picture.fromarray((values[:, :, 0] * 257).astype(np.uint16)).save(path)
    else:
        Picture.fromarray(values.astype(np.uint8)).convert(mode).save(path)
    return f"painted anew in mode {mode}"


_ODD = (
    *(None, True, -1, 0, 0.5, 1e308, float("nan"), float("inf"), -1e9, 2**63, 10**400),
    *("x", "", "\0", "../../x", "/etc/passwd", "C:\\x", "a" * 5000, "NaN", "é", "\ud800"),
    *([], {}, [[]], [None], {"a": {}}, [1, 2, 3], [[1, 2], [3, 4]]),
)


def _json(path: Path, dice: random.Random) -> str:
    try:
        document = json.loads(path.read_text())
    except (ValueError, RecursionError):
        return _flip(path, dice)
    for _ in range(dice.choice((1, 1, 2, 4))):
        nodes: list[tuple[object, object]] = []
        waiting = [document]
        while waiting:
            value = waiting.pop()
            pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            for key, inner in pairs:
                nodes.append((value, key))
                waiting.append(inner)
        if not nodes:
            break
        holder, key = dice.choice(nodes)
        what = dice.random()
        if what < 0.25:
            del holder[key]  # type: ignore[attr-defined]
        elif what < 0.35 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))  # type: ignore[call-overload]
        elif what < 0.5 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):  # type: ignore[index]
            factor = dice.choice((-1, 0, 2, 1000, 0.5, 1e12))
            if abs(holder[key]) < 1e300:  # type: ignore[index]  # a whole number may be too large for a fraction of it
                holder[key] = holder[key] * factor  # type: ignore[index]
        else:
            # A copy: a list put into itself has no end, and what is changed in one trial would be there in the next.
            holder[key] = copy.deepcopy(dice.choice(_ODD))  # type: ignore[index]
    try:
        text = json.dumps(document)
    except (ValueError, RecursionError):  # a number too long for text, or nested too deeply
        return "left as it is"
    path.write_text(text)
    return "values changed"


_WORDS = ("\n", "&x;", "<!DOCTYPE x [<!ENTITY a 'b'>]>", "<", "-1", "1e999", "nan", "0 " * 500)


def _text(path: Path, dice: random.Random) -> str:
    text = path.read_bytes().decode(errors="replace")
    words = text.replace("<", " <").split(" ")
    for _ in range(dice.choice((1, 2, 5))):
        at = dice.randrange(len(words))
        what = dice.random()
        if what < 0.3:
            words[at] = str(dice.choice(_ODD)).encode("utf-8", "replace").decode()
        elif what < 0.5:
            words[at] = ""
        elif what < 0.7:
            words.insert(at, words[dice.randrange(len(words))])
        elif what < 0.8:
            words[at] = dice.choice(_WORDS)
        else:
            words[at] = "".join(str(dice.randrange(10)) if c.isdigit() else c for c in words[at])
    path.write_bytes(" ".join(words).encode("utf-8", "replace"))
    return "words changed"
