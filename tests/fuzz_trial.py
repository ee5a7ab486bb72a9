"""What must hold whatever was done to an input: the dataset is what was in it, as far as the damage left that."""

import functools
import json
import os
import random
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Picture

from fuzz_damage import OUTSIDE, corrupt
from fuzz_truth import Portions, Thing, beside_truth, beside_undamaged, owner, portions, thing, truth
from fuzz_world import INPUTS
from maskwright.errors import UserError
from maskwright.prepare import Prepared, prepare

_COUNTED = ("left out", "not used", "shapes that share", "mark no region", "stand twice")
"""Words of mends that say that objects are fewer than the input has entries."""

_BLACK = re.compile(r"([\d,]+) mask images? all black: without an object")
"""The note that says so of mask files."""


def listing(folder: Path) -> dict[str, object]:
    """Return what is under a folder: of files their size and time, of links where they lead."""
    found: dict[str, object] = {}
    for place, names, files in os.walk(folder):
        for name in [*names, *files]:
            path = Path(place) / name
            state = path.lstat()
            found[str(path)] = (
                os.readlink(path)
                if path.is_symlink()
                else "folder"
                if path.is_dir()
                else (state.st_size, state.st_mtime_ns)
            )
    return found


@dataclass
class Found:
    """A photo of a prepared dataset: the input's photo that it is, its split, and its objects."""

    photo: str
    split: str
    things: list[Thing]


@dataclass
class Undamaged:
    """An input before any damage: what it holds, as it was read, and what says so."""

    things: dict[str, list[Thing]]
    parts: Portions


@functools.cache
def undamaged(name: str) -> Undamaged:
    """Prepare an input as it is.

    Raises:
        AssertionError: If the dataset is not the one that the input was written from.
    """
    with tempfile.TemporaryDirectory() as place:
        raw, out = Path(place) / "raw", Path(place) / "out"
        write, settings = INPUTS[name]
        write(raw)
        made = prepare(raw, out=out, **settings)
        photos = held(made, raw, json.loads((out / "prepare.json").read_text()))
        parts = portions(name, raw)
    wrong = beside_truth(name, {one.photo: one.things for one in photos})
    wrong += [f"{one.photo}: in {one.split}" for one in photos if one.photo[:4] == "nut_" != one.photo[4:] != one.split]
    wrong += [f"mended: {mend}" for mend in made.mends if any(word in mend.what for word in _COUNTED)]
    assert not wrong, "\n".join([f"{name}, undamaged:", *wrong])
    if name == "colours, jpeg":  # its pixels are near the truth; they must stay what they are
        return Undamaged({one.photo: one.things for one in photos}, parts)
    things = truth(name)
    entries = {photo: len(parts.photos[photo].entries) for photo in things}
    assert all(n in {0, len(things[photo])} for photo, n in entries.items()), f"{name}: {entries} entries"
    return Undamaged(things, parts)


def held(made: Prepared, raw: Path, story: dict[str, Any]) -> list[Found]:
    """Return the photos of a prepared dataset, having seen that it keeps the rules and `prepare.json` tells of it.

    Raises:
        AssertionError: If a rule is broken.
    """
    fates = {item["as"]: item for item in story["files"] if item.get("as")}
    photos: list[Found] = []
    total: Counter[str] = Counter()
    for split in made.photos:
        data = made.split(split)
        assert data is not None
        names = {category.id: category.name for category in data.categories}
        assert tuple(names[n] for n in sorted(names)) == made.categories
        first = data.first.tolist()
        for n, image in enumerate(data.images):
            place, fate = data.photo_path(image), fates.pop(f"{split}/{image.file_name}")
            with Picture.open(place) as picture:
                assert (image.width, image.height) == picture.size
            source = Path(fate["file"])
            if source.is_relative_to(raw):
                assert place.read_bytes() == source.read_bytes()
            things = []
            for k in range(first[n], first[n + 1]):
                mask = data.mask(k)
                assert mask.shape == image.size
                assert mask.sum() == data.areas[k] > 0
                x1, y1, x2, y2 = (int(v) for v in data.boxes[k])
                assert mask[y1:y2, x1:x2].sum() == mask.sum()
                category = names[int(data.category_ids[k])]
                total[category] += 1
                things.append(thing(category, mask, bool(data.crowd[k])))
            assert len(things) == fate["objects"]
            # A photo that is inside an annotation file has no file of its own: its name in the dataset tells which.
            path = source.relative_to(raw).as_posix() if source.is_relative_to(raw) else image.file_name
            photos.append(Found(owner(path), split, things))
        mine = [one for one in photos if one.split == split]
        bare = sum(not one.things for one in mine)
        counts = {"photos": len(mine), "objects": sum(len(one.things) for one in mine), "without objects": bare}
        assert story["counts"][split] == counts
        assert (made.photos[split], made.objects[split]) == (counts["photos"], counts["objects"])
    assert not fates
    assert total.total() > 0
    assert {item["name"]: item["objects"] for item in story["categories"]} == {n: total[n] for n in made.categories}
    return photos


def trial(name: str, seed: int, folder: Path) -> str:
    """Corrupt an input and prepare it; seed 0 leaves it as it is.

    Returns:
        How it ended: `refused`; `whole`, every photo with the objects that it had; `less`, some are not there; or
        `other`, with objects that were not there before, all from damaged entries.

    Raises:
        AssertionError: If something was written that must not be, or the dataset breaks a rule, or it holds what was
            not in the input, or lacks what was, and does not say so.
        Exception: Whatever escapes `prepare` but a UserError.
    """
    known = undamaged(name)
    dice = random.Random(f"{name} {seed}")
    raw, out = folder / "raw", folder / "out"
    write, settings = INPUTS[name]
    write(raw)
    (folder / OUTSIDE).write_bytes(bytes(range(256)))
    what = corrupt(raw, dice) if seed else "left as it is"
    assert (folder / OUTSIDE).read_bytes() == bytes(range(256)), f"{what}: the damage itself reached outside"
    before = listing(folder)
    try:
        made = prepare(raw, out=out, **settings)
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "fix: " in refusal, f"{what}: {refusal}"
        assert listing(folder) == before, f"{what}: something was written"
        assert seed, f"refused though undamaged: {refusal}"
        return "refused"
    after = listing(folder)
    outside = {k: v for k, v in after.items() if k != str(out) and not k.startswith(f"{out}/")}
    assert outside == before, f"{what}: written outside"
    story = json.loads((out / "prepare.json").read_text())
    fates = {item["file"]: item for item in story["files"]}
    inside = [path for path in raw.rglob("*") if path.is_file()]
    lost = [
        path
        for path in inside
        if not any(str(p) in fates for p in [path, *path.parents]) and os.path.realpath(path) not in fates
    ]
    assert not lost, f"{what}: no fate of {lost}"
    try:
        photos = held(made, raw, story)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    skipped = [Path(file) for file, item in fates.items() if item["fate"] == "skipped" and item["why"]]
    left_out = {owner(path.relative_to(raw).as_posix()) for path in inside if {path, *path.parents} & set(skipped)}
    counted = sum(m["count"] for m in story["mends"] if any(word in m["what"] for word in _COUNTED))
    counted += sum(int(black[1].replace(",", "")) for note in story["notes"] if (black := _BLACK.match(note)))
    found = [(one.photo, one.things) for one in photos]
    wrong = beside_undamaged(known.things, known.parts, portions(name, raw), found, left_out, counted)
    told = [*(f"mended: {m['what']}: {m['count']}" for m in story["mends"]), *(f"note: {n}" for n in story["notes"])]
    assert not wrong, "\n".join([f"{name}, seed {seed}: {what}", *wrong, *told])
    had = Counter((photo, one) for photo, things in known.things.items() for one in things)
    have = Counter((photo, one) for photo, things in found for one in things)
    return "other" if have - had else "less" if had - have else "whole"
