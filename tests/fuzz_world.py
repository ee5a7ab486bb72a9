"""Small valid inputs of every form, ways to corrupt them, and what must hold whatever was done to them."""

import base64
import json
import os
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.formats import form_module
from maskwright.masks import WRITERS, write_mask_images
from maskwright.prepare import prepare

SIZE = (24, 32)
NAMES = ("a", "b", "c")


# ── valid inputs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def photo(path: Path, seed: int) -> None:
    """Save a photo with texture, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Picture.fromarray(values).resize(SIZE[::-1], Picture.Resampling.BICUBIC).save(path)


def squares(number: int, objects: int = 2) -> list[np.ndarray]:
    """Return the masks of a photo: squares with a hole that do not overlap."""
    masks = []
    for k in range(objects):
        mask = np.zeros(SIZE, dtype=np.uint8)
        y, x = 2 + number, 2 + 14 * k
        mask[y : y + 9, x : x + 9] = 1
        mask[y + 3 : y + 5, x + 3 : x + 5] = 0
        masks.append(mask)
    return masks


def dataset(objects: int = 2, categories: tuple[str, ...] = ("bolt", "nut")) -> Dataset:
    """Return the content of all inputs."""
    images, annotations = [], []
    for n, name in enumerate(NAMES, 1):
        images.append(Image(n, f"{name}.jpg", SIZE[1], SIZE[0]))
        for k, mask in enumerate(squares(n, objects)):
            annotations.append(Annotation(len(annotations) + 1, n, k % len(categories) + 1, pixels.encode(mask)))
    return Dataset.build([Category(n, name) for n, name in enumerate(categories, 1)], images, annotations)


def photos(folder: Path) -> None:
    for n, name in enumerate(NAMES):
        photo(folder / f"{name}.jpg", n)


def folders(root: Path) -> None:
    photos(root / "rgb")
    write_mask_images(dataset(1, ("hammer",)), root / "mask")


def ids(root: Path) -> None:
    photos(root / "images")
    write_mask_images(dataset(2, ("nut",)), root / "masks", "ids")
    (root / "masks/ids.json").unlink()


def splits(root: Path) -> None:
    for n, split in enumerate(("train", "val")):
        photo(root / f"nut_{split}/rgb/x.jpg", n)
        (root / f"nut_{split}/mask").mkdir()
        Picture.fromarray(squares(n)[0] * 255).save(root / f"nut_{split}/mask/x.png")


def same_folder(root: Path) -> None:
    photos(root)
    for n, name in enumerate(NAMES, 1):
        Picture.fromarray(squares(n)[0] * 255).save(root / f"{name}.png")


def instance_files(root: Path) -> None:
    photos(root / "images")
    write_mask_images(dataset(), root / "annotations", "instances")


def coco(root: Path) -> None:
    photos(root)
    dataset().write(root / "instances.json")


def coco_polygons(root: Path) -> None:
    photos(root / "images")
    document = dataset().coco()
    for row in document["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (root / "annotations.json").write_text(json.dumps(document))


def via(root: Path) -> None:
    photos(root)
    document = {}
    for n, name in enumerate(NAMES, 1):
        x, y = 2, 2 + n
        shape = {"name": "polygon", "all_points_x": [x, x + 9, x + 9, x], "all_points_y": [y, y, y + 9, y + 9]}
        rect = {"name": "rect", "x": 16, "y": y, "width": 9, "height": 9}
        regions = [
            {"shape_attributes": shape, "region_attributes": {"name": "bolt"}},
            {"shape_attributes": rect, "region_attributes": {"name": "nut"}},
        ]
        document[f"{name}.jpg1"] = {"filename": f"{name}.jpg", "size": 1, "regions": regions, "file_attributes": {}}
    (root / "via.json").write_text(json.dumps(document))


def cvat(root: Path) -> None:
    photos(root / "images")
    rows = []
    for n, name in enumerate(NAMES):
        y = 3 + n
        rows.append(
            f'<image id="{n}" name="{name}.jpg" width="{SIZE[1]}" height="{SIZE[0]}">'
            f'<polygon label="bolt" occluded="0" points="2.0,{y}.0;11.0,{y}.0;11.0,{y + 9}.0;2.0,{y + 9}.0"/>'
            f'<mask label="nut" occluded="0" rle="1, 3, 2, 2, 1" left="16" top="{y}" width="3" height="3" z_order="0"/>'
            "</image>"
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("bolt", "nut"))
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{labels}'
        f"</labels></task></meta>{''.join(rows)}</annotations>"
    )


def label_studio(root: Path) -> None:
    photos(root)
    tasks = []
    for n, name in enumerate(NAMES, 1):
        value = {"points": [[10, 10 + n], [40, 10], [40, 50], [10, 50]], "polygonlabels": ["bolt"], "closed": True}
        result = {
            "original_width": SIZE[1],
            "original_height": SIZE[0],
            "image_rotation": 0,
            "value": value,
            "id": f"r{n}",
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
        }
        tasks.append(
            {
                "id": n,
                "annotations": [{"id": n, "result": [result], "was_cancelled": False}],
                "data": {"image": f"/data/upload/1/0123abcd-{name}.jpg"},
                "predictions": [],
            }
        )
    (root / "export.json").write_text(json.dumps(tasks))


def labelme_embedded(root: Path) -> None:
    """Write labelme files with the photo in them."""
    with tempfile.TemporaryDirectory() as spare:
        photos(Path(spare))
        written("labelme")(root)
        for path in root.rglob("*.json"):
            document = json.loads(path.read_text())
            name = Path(document["imagePath"]).name
            document["imageData"] = base64.b64encode((Path(spare) / name).read_bytes()).decode()
            path.write_text(json.dumps(document))
        for path in root.rglob("*.jpg"):
            path.unlink()


PHOTOS_GO = {
    "voc": "JPEGImages",
    "labelme": ".",
    "instance-folders": "{stem}/images",
    "cityscapes": ".",
    "polygons": ".",
}
"""Where the photos of a written form are looked for; `images` if it is not here."""

MASKS_GO = dict.fromkeys(("categories", "instances", "ids", "category-folders", "colours", "trimap"), "masks")
"""Forms of mask images alone go beside the photos; the others hold both."""


def written(form: str, objects: int = 2, categories: tuple[str, ...] = ("bolt", "nut")) -> Callable[[Path], None]:
    """Return a function that writes a form with our own writer, the photos where the form looks for them."""

    def write(root: Path) -> None:
        with tempfile.TemporaryDirectory() as spare:
            photos(Path(spare))
            write_form(form, dataset(objects, categories), Path(spare), root)

    return write


def write_form(form: str, data: Dataset, photo_folder: Path, root: Path) -> tuple[str, ...]:
    """Write a dataset in a form, with its photos; returns the writer's notes."""
    target = root / MASKS_GO.get(form, ".")
    target.mkdir(parents=True, exist_ok=True)
    notes: tuple[str, ...] = ()
    if form in WRITERS:
        module, function = WRITERS[form].split(".")
        notes = getattr(form_module(module.replace("_", "-")), function)(
            replace(data, folder=photo_folder), target
        ).notes
    else:
        write_mask_images(data, target, form)
        (target / "ids.json").unlink(missing_ok=True)
    have = {path.name for path in root.rglob("*") if path.suffix in {".jpg", ".png"} and MASKS_GO.get(form) is None}
    for name in {image.file_name for image in data.images} - have:
        place = root / PHOTOS_GO.get(form, "images").format(stem=name.rpartition(".")[0])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photo_folder / name, place / name)
    return notes


INPUTS: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "folders": (folders, {}),
    "folders, ids": (ids, {"coding": "ids"}),
    "folders, splits": (splits, {}),
    "same-folder": (same_folder, {}),
    "instance-files": (instance_files, {}),
    "coco": (coco, {}),
    "coco, polygons": (coco_polygons, {}),
    "via": (via, {}),
    "cvat": (cvat, {}),
    "label-studio": (label_studio, {}),
    "labelme": (written("labelme"), {}),
    "labelme, photos inside": (labelme_embedded, {}),
    "yolo": (written("yolo"), {}),
    "voc": (written("voc"), {}),
    "category-folders": (written("category-folders"), {}),
    "instance-folders": (written("instance-folders"), {}),
    "cityscapes": (written("cityscapes"), {}),
    "colours": (written("colours"), {}),
    "trimap": (written("trimap", 1, ("pet",)), {}),
}
"""How an input is written, and the settings that read it."""


# ── corruptions ──────────────────────────────────────────────────────────────────────────────────────────────────────


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
    elif path.suffix == ".jpg":
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
            holder.append(holder[key])  # type: ignore[call-overload]
        elif what < 0.5 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):  # type: ignore[index]
            holder[key] = holder[key] * dice.choice((-1, 0, 2, 1000, 0.5, 1e12))  # type: ignore[index]
        else:
            holder[key] = dice.choice(_ODD)  # type: ignore[index]
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


# ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────────


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


def trial(name: str, seed: int, folder: Path) -> str:
    """Corrupt an input and prepare it; returns how it ended, `refused` or `prepared`.

    Raises:
        AssertionError: If something was written that must not be, or the dataset breaks a rule.
        Exception: Whatever escapes `prepare` but a UserError.
    """
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
        return "refused"
    after = listing(folder)
    assert {k: v for k, v in after.items() if not k.startswith(str(out))} == before, f"{what}: written outside"
    story = json.loads((out / "prepare.json").read_text())
    fates = {item["file"] for item in story["files"]}
    inside = [path for path in raw.rglob("*") if path.is_file()]
    lost = [
        path
        for path in inside
        if not any(str(p) in fates for p in [path, *path.parents]) and os.path.realpath(path) not in fates
    ]
    assert not lost, f"{what}: no fate of {lost}"
    objects = 0
    for split in made.photos:
        data = made.split(split)
        assert data is not None
        objects += len(data)
        for image in data.images:
            with Picture.open(data.photo_path(image)) as picture:
                assert (image.width, image.height) == picture.size, what
        for k in range(len(data)):
            mask = data.mask(k)
            assert mask.sum() == data.areas[k] > 0, what
            x1, y1, x2, y2 = (int(v) for v in data.boxes[k])
            assert mask[y1:y2, x1:x2].sum() == mask.sum(), what
    assert objects == sum(made.objects.values()) > 0, what
    return "prepared"
