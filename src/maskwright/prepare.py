"""Photos and masks in, a standard COCO dataset out: recognise the form, read it, split it, account for every file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from maskwright import files, likeness, scale
from maskwright.dataset import SPLITS, Category, Dataset, default_info
from maskwright.errors import UserError
from maskwright.formats import (
    ENDINGS,
    FORMS,
    Each,
    Found,
    Mend,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    endings_below,
    form_module,
    lookalikes,
    plural,
    some,
)
from maskwright.formats.folders import missing
from maskwright.formats.two_folders import annotation_forms, exchange_told, exchanged
from maskwright.memory import keep_freed_memory
from maskwright.outputs import refuse_existing_folder
from maskwright.refusals import Harmless, refuse_no_text, refuse_tagged
from maskwright.rows import SEPARATOR, AllNumbered, Rows, Rules, rows_of
from maskwright.scratch import Column
from maskwright.settings import FormName, PrepareSettings
from maskwright.shards import means_coco
from maskwright.splits import split_photos
from maskwright.survey import NAMINGS, Survey, name_numbers, place_of
from maskwright.writing import CocoWriter

Say = Callable[[str], None]

SOFTEST = 12
"""So many mask images whose area depends on the cut are named, the worst ones."""

_FATES = '  "files": ['

__all__ = ["Prepared", "fates_of", "place_of", "prepare", "story_of"]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        folder: The data folder.
        form: How the masks were stored, as in `--form`.
        coding: What mask values meant, `binary` or `ids`; `None` where there were no mask images.
        categories: Names; the id of a category is its place in this list, from 1.
        photos: How many photos each split has; splits without photos are not there.
        objects: How many objects each split has, crowds included.
        skipped: The files that were not used, and why.
        mends: What was wrong in the input and was put right.
        notes: What the user should know.
    """

    folder: Path
    form: FormName
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
    out in silence: `prepare.json` in the data folder has the fate of every file. Any number of photos takes the same
    memory where the masks are image files.

    Args:
        raw: A folder of photos and masks in one of the forms of the documentation; or the photo folder, if `masks` is
            given; or an annotation file, or shards of a COCO file, as `Dataset.load` takes them.
        masks: The folder of masks, or the annotation file (or shards), of the photos in `raw`.
        out: The data folder to make.
        overwrite: Replace `out` if it exists and `prepare` made it.
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
        line = line.encode(errors="backslashreplace").decode()  # no terminal writes halves of characters
        told.append(line)
        if say is not None:
            say(line)

    if out is None:
        raise UserError("the output folder is not named", [], "name it: prepare(raw, out='DATA')")
    raw, out = Path(raw), Path(out)
    _check(raw, wanted)
    refuse_existing_folder(out, "prepare", overwrite=overwrite)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="maskwright-") as spare, scale.at(wanted.on, say=tell) as each:
        named = wanted
        with exchange_told(raw, named):
            found, root, wanted = _recognise(raw, named, each)
            harmless = Harmless(out)
            harmless.input(root, found)
            work = Work(root, wanted, tell, each, Path(spare))
            reading = form_module(found.form).read(found, work)
        if named.coding is not None and (doubt := exchanged(raw, named)) is not None:
            reading = replace(reading, notes=(*reading.notes, f"{doubt.what} ({'; '.join(doubt.where)})"))
        harmless.sources(reading.sources)
        refuse_no_text(reading, raw)
        if wanted.mask_frame == "stored":
            refuse_tagged(reading, each)
        survey = _surveyed(reading, work)
        splits, how, notes = _split(reading, survey, wanted, tell)
        naming, doubles = _index(reading.photos, survey, splits)
        reading = replace(reading, splits=how, notes=(*reading.notes, *notes, *doubles))
        with files.atomic_folder(out, overwrite=overwrite) as folder, tempfile.TemporaryFile() as fates:
            prepared, counts = _write(reading, survey, splits, naming, work, folder, out, fates, harmless)
            _write_story(raw, wanted, reading, prepared, counts, told, folder, fates)
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
    if not raw.exists() and not means_coco(raw):
        raise UserError("the input does not exist", [str(raw)], "check the path")


def _recognise(raw: Path, settings: PrepareSettings, each: Each) -> tuple[Found, Path, PrepareSettings]:
    """Find out which form the input has; return it, the folder that holds it all, and the settings to read it with."""
    place, root = raw, raw if raw.is_dir() else raw.parent
    if settings.photos is not None:
        _named("photos", settings.photos, root)
    found: list[Found] = []
    if settings.masks is not None:
        masks = _named("masks", settings.masks, root)
        if not raw.is_dir():
            raise UserError(
                "two files were named; the first must be the folder of the photos",
                [f"{raw} and {masks}"],
                "name the folder of photos, then the masks: maskwright prepare PHOTOS MASKS -o DATA",
            )
        file = masks.is_file() or (not masks.is_dir() and means_coco(masks))
        forms = FORMS if file or not _has_pictures(masks) else annotation_forms(masks, raw, settings.form)
        if forms:
            # An annotation file, or a folder of such: the form is found there, the photos are in the first folder.
            other = settings.model_copy(update={"photos": settings.photos or str(raw), "masks": None})
            found = _find(masks, other, each, forms)
            if found or file:
                place, settings = masks, other
    found = _most_special(found or _find(place, settings, each))
    if len(found) > 1:
        raise UserError(
            "the masks can be read in more than one way",
            [f"{one.form}: {one.why}" for one in found],
            f"say which: {' or '.join(f'--form {one.form}' for one in found)}",
        )
    if not found:
        raise _unknown(place, settings)
    return found[0], root, settings


_GENERAL: tuple[FormName, ...] = ("folders", "same-folder")
"""Forms of mask images that any pictures have; where a more special form was found too, that is meant."""

_SPECIAL: tuple[FormName, ...] = ("category-folders", "instance-files", "voc", "colours", "cityscapes", "trimap")


def _most_special(found: Sequence[Found]) -> list[Found]:
    """Leave out the forms that were found only because another one looks like them."""
    forms = {one.form for one in found}
    if forms & {"voc", "cityscapes"}:  # whose folders have names of their own
        forms -= {*_GENERAL, "category-folders"}
    elif forms & set(_SPECIAL):
        forms -= set(_GENERAL)
    elif "folders" in forms:
        forms -= {"same-folder"}
    return [one for one in found if one.form in forms]


def _find(place: Path, settings: PrepareSettings, each: Each, forms: Sequence[FormName] = FORMS) -> list[Found]:
    wanted = forms if settings.form is None else (settings.form,)
    if not place.exists():  # it stands for shards, which only COCO files have
        wanted = [form for form in wanted if form == "coco"]
    if place.is_dir():
        endings = endings_below(place)
        each.expect(rows_of, endings.total())
        if settings.form is None and settings.masks is None:
            wanted = [form for form in wanted if ENDINGS.get(form) in {None, *endings}]
    return [one for form in wanted if (one := form_module(form).find(place, settings)) is not None]


def _has_pictures(folder: Path) -> bool:
    return not folder.is_dir() or any(
        Path(name).suffix.lower() in files.PHOTO_SUFFIXES | {".gif"}
        for _, _, names in os.walk(folder)
        for name in names
    )


def _unknown(place: Path, settings: PrepareSettings) -> UserError:
    """Say that the input has no form that is known, and what it may be."""
    if settings.form is not None:
        return UserError(
            f"the input does not have the form {settings.form}",
            [str(place)],
            f"this form is {form_module(settings.form).EXPECTS}; leave out --form to have it found by looking",
        )
    other = lookalikes.explain(place)
    if other is not None:
        return other
    if place.is_file():
        return UserError(
            "the file has no form of annotations that is known",
            [str(place)],
            "name a folder of photos and masks, or an annotation file: COCO, VIA or Label Studio (.json), CVAT (.xml)",
        )
    return missing(place)


def _named(what: str, name: str, root: Path) -> Path:
    """Return what the user named: a path, or a name inside the input folder."""
    path = Path(name)
    if path.exists() or means_coco(path):
        return path
    if (root / name).exists() or means_coco(root / name):
        return root / name
    if any(inner.is_dir() for inner in root.glob(f"*/{name}")):
        return root / name  # a name that every split folder has
    raise UserError(
        f"the {what} do not exist",
        [f"{name}: neither there nor in {root}"],
        "check the path; the output is named by -o (in Python: out=)",
    )


# ── splits and names ─────────────────────────────────────────────────────────────────────────────────────────────────


def _surveyed(reading: Reading, work: Work) -> Survey:
    """Go through all photos for what must be known of them at once; look at them if they are to be split."""
    split = not reading.splits or work.settings.resplit
    look = split and work.settings.near_duplicates is not False
    return Survey.of(
        reading.photos,
        reading.categories,
        work.each,
        split=split,
        look=look,
        separate=work.settings.parts == "separate",
    )


def _split(
    reading: Reading, survey: Survey, settings: PrepareSettings, say: Say
) -> tuple[NDArray[np.int8], str, tuple[str, ...]]:
    """Return the position in `SPLITS` of each photo's split, how it was found, and what the user should know."""
    if reading.splits and not settings.resplit:
        ignored = "the photos are split already, so --group changes nothing (--resplit: make the splits anew)"
        return survey.given[:], reading.splits, () if settings.group in {None, "none"} else (ignored,)
    alike = None if settings.near_duplicates is False else _alike(reading.photos, survey)
    split = split_photos(reading.photos, survey, len(reading.categories), settings, alike)
    given_up = "the splits that are given are not used, as you said" if reading.splits else "no splits are given"
    say(f"understood: {given_up}: {split.how}")
    return split.splits, split.how, split.notes


def _alike(photos: Collection[Photo], survey: Survey) -> NDArray[np.int64]:
    """Return `(K, 2)` the positions of photos that look alike; enough pairs to join each group of such photos."""
    candidates = likeness.near_pairs(survey.prints)
    if not len(candidates):
        return np.zeros((0, 2), dtype=np.int64)
    wanted = np.zeros(len(photos), dtype=np.bool_)
    wanted[candidates[:, :2].ravel()] = True
    numbers = np.cumsum(wanted) - 1
    paths = [photo.path for photo, one in zip(photos, wanted.tolist(), strict=True) if one]
    pairs = numbers[candidates[:, :2]]
    sure = likeness.confirmed(pairs, paths, spanning=True) >= likeness.ALIKE
    return np.asarray(candidates[sure, :2], dtype=np.int64)


def _index(photos: Collection[Photo], survey: Survey, splits: NDArray[np.int8]) -> tuple[int, list[str]]:
    """Return which of `NAMINGS` the photos get their names by, and a warning where the same picture stands twice.

    They must differ in more than the ending and letter case, since mask images are named after them and some file
    systems do not tell cases apart; if that cannot be, the exact names must differ.
    """
    for naming, column in enumerate(survey.names):
        if _differ(column[:], splits):
            return naming, _double_notes(photos, splits, survey.digest)
    exact = np.array([name_numbers(photo, exact=True) for photo in photos], dtype=np.uint64)
    for naming in range(len(NAMINGS)):
        if _differ(exact[:, naming], splits):
            return naming, _double_notes(photos, splits, survey.digest)
    raise AssertionError("two photos have the same path")  # the readers refuse that


def _differ(names: NDArray[np.uint64], splits: NDArray[np.int8]) -> bool:
    """Tell whether the names, given as numbers, differ in each split."""
    inside = names ^ (splits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    inside.sort()
    return not (inside[1:] == inside[:-1]).any()


def _double_notes(photos: Collection[Photo], splits: NDArray[np.int8], column: Column) -> list[str]:
    """Return a warning where the same picture stands more than once; `column` has the first bits of the SHA-256."""
    digests = column[:]
    ordered = np.sort(digests)
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not repeated:
        return []
    groups: dict[str, list[tuple[Photo, int]]] = defaultdict(list)
    for photo, digest, split in zip(photos, digests.tolist(), splits.tolist(), strict=True):
        if digest in repeated:
            groups[photo.sha256].append((photo._replace(marks=()), split))
    same = [group for group in groups.values() if len(group) > 1]
    across = [group for group in same if len({split for _, split in group}) > 1]
    within = [group for group in same if len({split for _, split in group}) == 1]

    def text(which: Sequence[Sequence[tuple[Photo, int]]]) -> str:
        return some(" = ".join(photo.file for photo, _ in group[:3]) for group in which)

    def stands(which: Sequence[Any]) -> str:
        return f"{plural(len(which), 'picture')} {'stands' if len(which) == 1 else 'stand'}"

    notes = []
    if across:
        notes.append(
            f"{stands(across)} in more than one split ({text(across)}); scores would be too good: remove all but one"
        )
    if within:
        notes.append(f"{stands(within)} more than once in a split ({text(within)})")
    return notes


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Counts:
    """What is counted while the photos are written, beside photos and objects by split."""

    categories: Counter[str]
    bare: dict[str, int]
    soft: int = 0
    softest: list[tuple[float, str, str]] = field(default_factory=list)


def _write(
    reading: Reading,
    survey: Survey,
    splits: NDArray[np.int8],
    naming: int,
    work: Work,
    folder: Path,
    out: Path,
    fates: IO[bytes],
    harmless: Harmless,
) -> tuple[Prepared, _Counts]:
    """Write the annotation files, link the photos and list the fates of all files, in one pass."""
    settings = work.settings
    categories = [Category(number, name) for number, name in enumerate(reading.categories, 1)]
    id_of = {category.name: category.id for category in categories}
    info = {**default_info(), **reading.info}
    info.update({k: v for k in ("description", "contributor") if (v := getattr(settings, k))})
    licenses = list(reading.licenses)
    if settings.license or settings.license_url:
        licenses = [{"id": 1, "name": settings.license or settings.license_url, "url": settings.license_url}]
    present = [split for n, split in enumerate(SPLITS) if bool((splits == n).any())]
    photos, objects = dict.fromkeys(present, 0), dict.fromkeys(present, 0)
    before = 0
    counts = _Counts(Counter(), dict.fromkeys(present, 0))
    fate_of = _Fates(fates)
    mended = Tally()
    with contextlib.ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                CocoWriter(
                    folder / "annotations" / f"instances_{split}.json", categories, info, licenses, shard=settings.shard
                )
            )
            for split in present
        }
        rules = Rules(naming, settings.parts == "separate", id_of, settings.shard)
        for rows in work.each.pieces(partial(rows_of, rules), AllNumbered(reading.photos, survey, splits)):
            harmless.beside(rows.folders)
            for block in rows.blocks:
                split = SPLITS[block.split]
                photos[split] += block.photos
                objects[split] += block.objects
                counts.bare[split] += block.bare
                writers[split].rows(block.image_rows, block.photos, block.object_rows)
            _link(rows, folder)
            fate_of.add(rows.fates)
            before += rows.masks
            mended.join(rows.mends)
            counts.categories.update(rows.categories)
            counts.soft += len(rows.soft)
            counts.softest = nlargest(SOFTEST, [*counts.softest, *rows.soft], key=itemgetter(0))
    for path in reading.sources:
        fate_of.file({"file": str(path), "kind": "annotations", "fate": "used", "sha256": files.sha256(path)})
    for item in reading.skipped:
        fate_of.file({"file": _text(item.path), "fate": "skipped", "why": item.why})
    notes = list(reading.notes)
    if settings.parts == "separate":
        parts = plural(sum(objects.values()), "object")
        notes.append(f"{plural(before, 'mask')} became {parts}: each connected part is one (--parts separate)")
    if settings.mask_frame == "stored" and not mended.counts:
        notes.append("no photo with objects has an EXIF orientation, so --mask-frame stored turned nothing")
    if "train" not in present:
        notes.append("there is no train split: the data can be predicted and scored on, but not learned from")
    elif "val" not in present:
        notes.append("there is no val split: training cannot tell when to stop, nor which weights are best")
    if "test" not in present:
        notes.append("there is no test split: scores can only be taken on val, which training has seen")
    prepared = Prepared(
        folder=out,
        form=reading.form,
        coding=reading.coding,
        categories=reading.categories,
        photos=photos,
        objects=objects,
        skipped=reading.skipped,
        mends=(*reading.mends, *mended.mends()),
        notes=tuple(notes),
    )
    return prepared, counts


def _link(rows: Rows, folder: Path) -> None:
    """Put photos into the output folder."""
    for place, path in zip(rows.places, rows.paths, strict=True):
        files.put_photo(path, f"{folder}/{place}")


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


class _Fates:
    """Lists what became of every file, on disk, since there may be millions."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._encode = json.JSONEncoder(ensure_ascii=False).encode

    def add(self, lines: str) -> None:
        """List files whose fates are text already."""
        joint = SEPARATOR if self._handle.tell() else SEPARATOR[1:]
        self._handle.write(f"{joint}{lines}".encode())

    def file(self, fate: dict[str, Any]) -> None:
        """List one file."""
        self.add(self._encode(fate))


def _write_story(
    raw: Path,
    settings: PrepareSettings,
    reading: Reading,
    prepared: Prepared,
    counts: _Counts,
    told: Sequence[str],
    folder: Path,
    fates: IO[bytes],
) -> None:
    """Write `prepare.json`, with the fates of the files at its end."""
    story = {
        "maskwright": files.provenance(),
        "input": os.path.abspath(raw),
        "form": reading.form,
        "coding": reading.coding,
        "understood": [line.removeprefix("understood: ") for line in told],
        "splits": reading.splits,
        "categories": [
            {"id": number, "name": name, "objects": counts.categories[name]}
            for number, name in enumerate(reading.categories, 1)
        ],
        "counts": {
            split: {
                "photos": prepared.photos[split],
                "objects": prepared.objects[split],
                "without objects": counts.bare[split],
            }
            for split in prepared.photos
        },
        "mends": [{"what": m.what, "count": m.count, "examples": list(m.examples)} for m in prepared.mends],
        "notes": list(prepared.notes),
        "soft masks": {
            "count": counts.soft,
            "examples": [
                {"photo": photo, "mask": mask, "below half": round(share, 3)} for share, photo, mask in counts.softest
            ],
        },
        "settings": settings.model_dump(mode="json"),
        "files": [],
    }
    text = json.dumps(story, indent=2, ensure_ascii=False, allow_nan=False)
    with files.atomic_file(folder / "prepare.json") as handle:
        # Halves of characters, which names in a damaged file may have, stay as JSON's own escapes.
        handle.write(text.removesuffix("]\n}").encode(errors="backslashreplace"))
        fates.seek(0)
        shutil.copyfileobj(fates, handle)
        handle.write(b"\n  ]\n}\n")


def story_of(data: Path) -> dict[str, Any]:
    """Return what the `prepare.json` of a data folder says, but for the fates of files, of which there may be millions.

    Empty if there is none, or none that can be read.
    """
    head: list[str] = []
    try:
        with (data / "prepare.json").open(encoding="utf-8") as handle:
            for line in handle:
                if line.startswith(_FATES):
                    head = [*head, _FATES, "]}"]
                    break
                head.append(line)
        story = json.loads("".join(head))
    except (OSError, ValueError, RecursionError):
        return {}
    return story if isinstance(story, dict) else {}


def fates_of(data: Path) -> Iterator[dict[str, Any]]:
    """Yield what the `prepare.json` of a data folder says of each file, one at a time, since there may be millions.

    Raises:
        OSError, ValueError: If there is none that `prepare` wrote.
    """
    with (data / "prepare.json").open(encoding="utf-8") as handle:
        for line in handle:
            if line.startswith(_FATES):
                break
        for line in handle:
            if line.startswith(SEPARATOR[2:]):
                yield json.loads(line.rstrip(",\n"))


def _text(path: Path) -> str:
    """Return a path as text that every tool can read, also if its bytes are no UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()
