"""Photos and masks in, a standard COCO dataset out: recognise the form, read it, split it, account for every file."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskwright import files
from maskwright.dataset import SPLITS, Annotation, Category, Dataset, Image, default_info
from maskwright.errors import UserError
from maskwright.formats import Mark, Mend, Photo, Reading, Skipped, coco, folders, plural, some
from maskwright.formats.pairing import Place
from maskwright.formats.runs import part_rles
from maskwright.settings import PrepareSettings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        folder: The data folder.
        form: How the masks were stored: `folders` or `coco`.
        coding: What mask values meant, `binary` or `ids`; `None` where there were no mask images.
        categories: Names; the id of a category is its place in this list, from 1.
        photos: How many photos each split has; splits without photos are not there.
        objects: How many objects each split has, crowds included.
        skipped: The files that were not used, and why.
        mends: What was wrong in the input and was put right.
        notes: What the user should know.
    """

    folder: Path
    form: str
    coding: str | None
    categories: tuple[str, ...]
    photos: dict[str, int]
    objects: dict[str, int]
    skipped: tuple[Skipped, ...]
    mends: tuple[Mend, ...]
    notes: tuple[str, ...]

    def split(self, name: str) -> Dataset | None:
        """Read a split (`train`, `val` or `test`) of the data folder; `None` if there is no such split."""
        return Dataset.read_split(self.folder, name)


def prepare(
    raw: str | Path,
    masks: str | Path | None = None,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    say: Say | None = None,
    **settings: Any,
) -> Prepared:
    """Turn photos and masks into a COCO dataset that every COCO tool reads.

    Mask pixels are kept exactly (run lengths, not polygons), photos are hard-linked as they are, and nothing is left
    out in silence: `prepare.json` in the data folder has the fate of every file.

    Args:
        raw: A folder of photos and masks in one of the forms of the documentation; or the photo folder, if `masks` is
            given; or a COCO JSON file.
        masks: The folder of mask images, or the COCO JSON file, of the photos in `raw`.
        out: The data folder to make.
        overwrite: Replace `out` if it exists.
        say: Called with what was understood, then with counts.
        **settings: See `PrepareSettings`.

    Returns:
        What was made.

    Raises:
        UserError: With every problem of the input; then nothing is written.
    """
    wanted = PrepareSettings.parse({**settings, "masks": None if masks is None else str(masks)})
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if say is not None:
            say(line)

    if out is None:
        raise UserError("the output folder is not named", [], "name it: prepare(raw, out='DATA')")
    raw, out = Path(raw), Path(out)
    _check(raw, wanted)
    files.refuse_existing(out, overwrite=overwrite)
    reading = _read(raw, wanted, out, tell)
    reading = _split(_separate(reading, wanted), wanted, tell)
    names = _output_names(reading.photos)
    datasets = _datasets(reading, names, wanted)
    notes = (*reading.notes, *_split_notes(reading, datasets), *_double_notes(reading.photos))
    prepared = Prepared(
        folder=out,
        form=reading.form,
        coding=reading.coding,
        categories=reading.categories,
        photos={split: len(dataset.images) for split, dataset in datasets.items()},
        objects={split: len(dataset) for split, dataset in datasets.items()},
        skipped=reading.skipped,
        mends=reading.mends,
        notes=notes,
    )
    with files.atomic_folder(out, overwrite=overwrite) as folder:
        for split, dataset in datasets.items():
            dataset.write(folder / "annotations" / f"instances_{split}.json")
        for photo, name in zip(reading.photos, names, strict=True):
            files.link_or_copy(photo.path, folder / str(photo.split) / name)
        files.write_json(folder / "prepare.json", _story(raw, wanted, reading, prepared, told, names))
    for line in _summary(prepared):
        tell(line)
    return prepared


# ── which form ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _check(raw: Path, settings: PrepareSettings) -> None:
    if settings.val_share + settings.test_share >= 1:
        raise UserError(
            "the shares for validation and testing leave no photo to learn from",
            [f"val_share {settings.val_share:g} + test_share {settings.test_share:g} is not below 1"],
            "give smaller shares, for example: --val-share 0.1 --test-share 0.1",
        )
    if settings.category is not None and not settings.category.strip():
        raise UserError("the category's name is empty", ["category ''"], "give a name: --category hammer")
    if not raw.exists():
        raise UserError("the input does not exist", [str(raw)], "check the path")


def _read(raw: Path, settings: PrepareSettings, out: Path, tell: Say) -> Reading:
    """Find out which form the input has, and read it."""
    root = raw if raw.is_dir() else raw.parent
    masks = None if settings.masks is None else _named("masks", settings.masks, root)
    if raw.is_file() or (masks is not None and masks.is_file()):
        file = masks if masks is not None else raw
        if file.suffix.lower() != ".json" or (raw.is_file() and masks is not None):
            raise UserError(
                "the input is a file but no COCO JSON file",
                [str(file)],
                "name a folder of photos and masks, or a COCO file (.json)",
            )
        if settings.form == "folders":
            raise UserError("the input is a COCO file, not folders", [str(file)], "leave out --form folders")
        source = coco.open_file(file)
        _refuse_inside(out, root, [])
        return coco.read([source], root, settings, tell)
    sources: list[coco.Source] = []
    skipped: list[Skipped] = []
    if masks is not None:
        places = _places_as_named(root, masks, settings)
    else:
        places = folders.find(root, settings) if settings.form != "coco" else []
        sources, skipped = coco.find(root) if settings.form != "folders" else ([], [])
    if sources and places:
        raise UserError(
            "the folder holds both mask images and COCO files",
            [*(str(place.masks) for place in places), *(str(source.path) for source in sources)],
            "say which to read: --form folders or --form coco",
        )
    if sources:
        _refuse_inside(out, root, [])
        return coco.read(sources, root, settings, tell, skipped)
    if not places and settings.form == "coco":
        raise UserError(
            "there is no COCO file in the folder, its 'annotations' or its split folders",
            [str(root), *(f"{item.path}: {item.why}" for item in skipped)],
            "name the file: maskwright prepare FILE.json -o DATA",
        )
    if not places:
        raise folders.missing(root)
    _refuse_inside(out, root, [folder for place in places for folder in (place.photos, place.masks)])
    return folders.read(places, root, settings, tell)


def _named(what: str, name: str, root: Path) -> Path:
    """Return what the user named: a path, or a name inside the input folder."""
    path = Path(name)
    if path.exists():
        return path
    if (root / name).exists():
        return root / name
    if any(inner.is_dir() for inner in root.glob(f"*/{name}")):
        return root / name  # a name that every split folder has
    raise UserError(
        f"the {what} do not exist",
        [f"{name}: neither there nor in {root}"],
        "check the path; the output is named by -o (in Python: out=)",
    )


def _places_as_named(root: Path, masks: Path, settings: PrepareSettings) -> list[Place]:
    found = folders.find(root, settings)
    if found:
        return found
    photos = root
    if settings.photos is not None:
        photos = _named("photos", settings.photos, root)
    elif masks.parent == root:
        usual = folders.photo_folder(root)
        photos = usual if usual is not None else root
    if photos.resolve() == masks.resolve():
        raise UserError(
            "photos and masks are the same folder", [f"{photos} and {masks}"], "put the masks in a folder of their own"
        )
    return [Place(photos, masks)]


def _refuse_inside(out: Path, root: Path, read: Sequence[Path]) -> None:
    """Refuse an output that would replace the input, or be read as input the next time."""
    place = out.resolve()
    held = [root.resolve(), *(folder.resolve() for folder in read)]
    if any(place == folder or place in folder.parents for folder in held) or any(
        folder in place.parents for folder in held[1:]
    ):
        raise UserError(
            "the output must not be the input, hold it, or lie in a folder of photos or masks",
            [f"{out} and {root}"],
            "name another output folder",
        )


# ── objects and splits ───────────────────────────────────────────────────────────────────────────────────────────────


def _separate(reading: Reading, settings: PrepareSettings) -> Reading:
    """Make each connected part an object, if the user wants that; crowds stay whole."""
    if settings.parts == "together":
        return reading

    def cut(photo: Photo) -> Photo:
        marks: list[Mark] = []
        for mark in photo.marks:
            marks += [mark] if mark.crowd else [replace(mark, rle=rle) for rle in part_rles(mark.rle, photo.size)]
        return replace(photo, marks=tuple(marks))

    photos = tuple(cut(photo) for photo in reading.photos)
    before, after = (sum(len(photo.marks) for photo in which) for which in (reading.photos, photos))
    note = f"{plural(before, 'mask')} became {plural(after, 'object')}: each connected part is one (--parts separate)"
    return replace(reading, photos=photos, notes=(*reading.notes, note))


def place_of(name: str) -> float:
    """Return a photo's fixed place in 0..1, which decides its split.

    It depends on nothing but the name without its ending, so photos that are added later never move old ones, and a
    photo that is saved in another format stays where it is.

    Example:
        >>> place_of("a/1.jpg") == place_of("a/1.png") != place_of("a/2.jpg")
        True
    """
    stem = unicodedata.normalize("NFC", name.rpartition(".")[0] or name)
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big") / 2**64


def _split(reading: Reading, settings: PrepareSettings, tell: Say) -> Reading:
    if reading.splits:
        return reading
    test, val = settings.test_share, settings.test_share + settings.val_share
    places = [place_of(photo.name) for photo in reading.photos]
    splits = ["test" if place < test else "val" if place < val else "train" for place in places]
    how = (
        f"split by a hash of each photo's name, {round(100 * (1 - val))} % train,"
        f" {round(100 * settings.val_share)} % val, {round(100 * test)} % test; adding photos never moves old ones"
    )
    notes = reading.notes
    if "train" not in splits:
        last = max(range(len(places)), key=lambda i: (places[i], reading.photos[i].name))
        splits[last] = "train"
        notes = (
            *notes,
            f"the hash left no photo to learn from; {reading.photos[last].name}, the nearest, was moved to train, and"
            " may move back when photos are added",
        )
    tell(f"understood: no splits are given: {how}")
    photos = tuple(replace(photo, split=split) for photo, split in zip(reading.photos, splits, strict=True))
    return replace(reading, photos=photos, splits=how, notes=notes)


def _output_names(photos: Sequence[Photo]) -> list[str]:
    """Return where each photo goes inside its split folder: flat if that keeps all apart, else with its subfolders.

    Photos must differ in more than the ending and letter case, since mask images are named after them and some file
    systems do not tell cases apart.
    """
    forms: list[Callable[[Photo], str]] = [
        lambda photo: photo.name.rpartition("/")[2],
        lambda photo: photo.name,
        lambda photo: f"{photo.place}/{photo.name}" if photo.place else photo.name,
    ]
    keys: list[Callable[[str], str]] = [lambda name: name.rpartition(".")[0].casefold(), lambda name: name]
    for key in keys:
        for form in forms:
            names = [form(photo) for photo in photos]
            if len({(photo.split, key(name)) for photo, name in zip(photos, names, strict=True)}) == len(photos):
                return names
    raise AssertionError("two photos have the same path")  # the readers refuse that


def _datasets(reading: Reading, names: Sequence[str], settings: PrepareSettings) -> dict[str, Dataset]:
    """Return one dataset per split that has photos, with all ids from 1."""
    categories = [Category(number, name) for number, name in enumerate(reading.categories, 1)]
    id_of = {category.name: category.id for category in categories}
    info = {**default_info(), **reading.info}
    info.update({k: v for k in ("description", "contributor") if (v := getattr(settings, k))})
    licenses = list(reading.licenses)
    if settings.license or settings.license_url:
        licenses = [{"id": 1, "name": settings.license or settings.license_url, "url": settings.license_url}]
    result = {}
    for split in SPLITS:
        images: list[Image] = []
        annotations: list[Annotation] = []
        for photo, name in zip(reading.photos, names, strict=True):
            if photo.split != split:
                continue
            images.append(Image(len(images) + 1, name, width=photo.size[1], height=photo.size[0]))
            for mark in photo.marks:
                annotations.append(
                    Annotation(len(annotations) + 1, len(images), id_of[mark.category], mark.rle, crowd=mark.crowd)
                )
        if images:
            result[split] = Dataset.build(categories, images, annotations, info=info, licenses=licenses)
    return result


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _split_notes(reading: Reading, datasets: dict[str, Dataset]) -> list[str]:
    notes = []
    if "train" not in datasets:
        notes.append("there is no train split: the data can be predicted and scored on, but not learned from")
    elif "val" not in datasets:
        notes.append("there is no val split: training cannot tell when to stop, nor which weights are best")
    if "test" not in datasets:
        notes.append("there is no test split: scores can only be taken on val, which training has seen")
    return notes


def _double_notes(photos: Sequence[Photo]) -> list[str]:
    """Return a warning where the same picture stands more than once."""
    same: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        same[photo.sha256].append(photo)
    groups = [group for group in same.values() if len(group) > 1]
    across = [group for group in groups if len({photo.split for photo in group}) > 1]
    within = [group for group in groups if group not in across]

    def text(which: Sequence[Sequence[Photo]]) -> str:
        return some(" = ".join(str(photo.path) for photo in group[:3]) for group in which)

    def stands(which: Sequence[Sequence[Photo]]) -> str:
        return f"{plural(len(which), 'picture')} {'stands' if len(which) == 1 else 'stand'}"

    notes = []
    if across:
        notes.append(
            f"{stands(across)} in more than one split ({text(across)}); scores would be too good: remove all but one"
        )
    if within:
        notes.append(f"{stands(within)} more than once in a split ({text(within)})")
    return notes


def _summary(prepared: Prepared) -> list[str]:
    total = f"{plural(sum(prepared.photos.values()), 'photo')} with {plural(sum(prepared.objects.values()), 'object')}"
    parts = [
        f"{split} {plural(prepared.photos[split], 'photo')} ({plural(prepared.objects[split], 'object')})"
        for split in prepared.photos
    ]
    lines = [f"prepared: {total}: {', '.join(parts)}"]
    lines += [f"mended: {mend}" for mend in prepared.mends]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for item in prepared.skipped:
        by_reason[item.why].append(item.path.name)
    lines += [f"skipped: {len(names):,} x {why} ({some(names)})" for why, names in by_reason.items()]
    lines += [f"note: {note}" for note in prepared.notes]
    return [*lines, f"written: {prepared.folder}"]


def _story(
    raw: Path,
    settings: PrepareSettings,
    reading: Reading,
    prepared: Prepared,
    told: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """Return the content of `prepare.json`."""
    used: list[dict[str, Any]] = []
    for photo, name in zip(reading.photos, names, strict=True):
        entry: dict[str, Any] = {
            "file": str(photo.path),
            "kind": "photo",
            "fate": "used",
            "as": f"{photo.split}/{name}",
            "width": photo.size[1],
            "height": photo.size[0],
            "objects": len(photo.marks),
            "sha256": photo.sha256,
        }
        used.append(entry)
        if photo.mask is not None:
            path, digest = photo.mask
            used.append({"file": str(path), "kind": "mask", "fate": "used", "of": str(photo.path), "sha256": digest})
    used += [
        {"file": str(path), "kind": "annotations", "fate": "used", "sha256": files.sha256(path)}
        for path in reading.sources
    ]
    skipped = [{"file": _text(item.path), "fate": "skipped", "why": item.why} for item in reading.skipped]
    categories = Counter(mark.category for photo in reading.photos for mark in photo.marks)
    return {
        "maskwright": files.provenance(),
        "input": os.path.abspath(raw),
        "form": reading.form,
        "coding": reading.coding,
        "understood": [line.removeprefix("understood: ") for line in told],
        "splits": reading.splits,
        "categories": [
            {"id": number, "name": name, "objects": categories[name]}
            for number, name in enumerate(reading.categories, 1)
        ],
        "counts": {
            split: {
                "photos": prepared.photos[split],
                "objects": prepared.objects[split],
                "without objects": sum(p.split == split and not p.marks for p in reading.photos),
            }
            for split in prepared.photos
        },
        "mends": [{"what": m.what, "count": m.count, "examples": list(m.examples)} for m in reading.mends],
        "notes": list(prepared.notes),
        "settings": settings.model_dump(mode="json"),
        "files": [*used, *skipped],
    }


def _text(path: Path) -> str:
    """Return a path as text that every tool can read, also if its bytes are no UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()
