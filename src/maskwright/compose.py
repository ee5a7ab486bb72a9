"""Paste labelled objects over photos that have none: more to train on, with masks that are exact.

Every picture is made from the seed and its own number, whatever else is made. An object keeps the size that it has in
its photo, as a share of the photo's longer side. One that the border of its photo cuts stays at that border, so that no
cut edge floats in the middle of a picture.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import files, pixels
from maskwright.cutouts import Cutout, Sides, changed, cut_out, lay
from maskwright.dataset import SPLITS, Annotation, Dataset, Image
from maskwright.errors import Problem, UserError
from maskwright.facts import SPECK_PX, SplitView, split_facts
from maskwright.files import UnreadableImage
from maskwright.formats import plural, some
from maskwright.outputs import refuse_existing_folder
from maskwright.plan import turn_or_not
from maskwright.settings import ComposeSettings
from maskwright.shards import parts_of
from maskwright.writing import CocoWriter

TRIES = 30
"""So many places are tried for an object before it is given up."""

MOST_ENLARGED = 2.0
"""A background that is too small is enlarged by up to this factor; what is still missing mirrored copies fill."""

_JPEG_QUALITY = 95
_HELD_BYTES = 256_000_000  # of cut objects that are kept for the next pictures


@dataclass(frozen=True)
class Composed:
    """What `compose` made.

    Attributes:
        folder: The data folder.
        pictures: Pictures composed.
        objects: How many objects of each category they have, by name.
        originals: Photos of the data in the output, by split; empty without `with_originals`.
        notes: What the user should know.
    """

    folder: Path
    pictures: int
    objects: dict[str, int]
    originals: dict[str, int]
    notes: tuple[str, ...]

    def split(self, name: str) -> Dataset | None:
        """Read a split (`train`, `val` or `test`) of the data folder; `None` if there is no such split."""
        return Dataset.read_split(self.folder, name)


def compose(
    data: str | Path,
    backgrounds: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    **settings: Any,
) -> Composed:
    """Paste the objects of a dataset's train split over backgrounds, and write them as a data folder.

    Args:
        data: A folder that `prepare` made.
        backgrounds: A folder of photos without objects of the dataset's categories, searched through; or one photo.
        out: The data folder to make: the pictures in `train/`, their COCO file in `annotations/`, and `compose.json`,
            which says what each picture is made of.
        overwrite: Replace `out` if it exists and `compose` made it.
        say: Called with each line of text.
        progress: Show a live progress bar.
        **settings: See `ComposeSettings`.

    Returns:
        What was made.

    Raises:
        UserError: With every problem of the input; then nothing is written.
    """
    wanted = ComposeSettings.parse(settings)
    tell = say or (lambda _line: None)
    data, backgrounds, out = Path(data), Path(backgrounds), Path(out)
    files.refuse_input(out, *parts_of(data), backgrounds)
    refuse_existing_folder(out, "compose", overwrite=overwrite)
    train, objects, found, notes = _inputs(data, backgrounds)
    files.refuse_input(out, *sorted({one.path.parent for one in found}))
    turn, why = turn_or_not(split_facts(SplitView("train", train)))
    if wanted.turn is not None:
        turn, why = wanted.turn, "as you said"
    wanted = wanted.model_copy(update={"turn": turn, "pictures": wanted.pictures or len(train.images)})
    tell(
        f"{plural(wanted.pictures or 0, 'picture')} of {plural(len(objects.pool), 'object')} over"
        f" {plural(len(found), 'background')}; {'turned by any angle' if turn else 'not turned'}: {why}"
    )
    composer = _Composer(train, objects, found, wanted)
    with files.atomic_folder(out, overwrite=overwrite) as folder:
        carried = _carry(data, train, folder) if wanted.with_originals else {}
        stories = _write(composer, folder, wanted, progress)
        notes = [*notes, *composer.notes()]
        if "val" not in carried:
            notes.append(
                "there is no val split here; to train on these pictures and the data's own photos together, compose"
                " with --with-originals"
                if not wanted.with_originals
                else "the data has no val split"
            )
        counts = {category.name: composer.counts[category.id] for category in train.categories}
        story = {
            "maskwright": files.provenance(),
            "data": os.path.abspath(data),
            "backgrounds": os.path.abspath(backgrounds),
            "settings": wanted.model_dump(mode="json"),
            "objects": counts,
            "originals": carried,
            "notes": notes,
            "pictures": stories,
        }
        files.write_json(folder / "compose.json", story)
    composed = Composed(out, composer.made, counts, carried, tuple(notes))
    for line in _summary(composed):
        tell(line)
    return composed


def _summary(made: Composed) -> list[str]:
    listed = ", ".join(f"{name} {count:,}" for name, count in made.objects.items())
    lines = [
        f"composed: {plural(made.pictures, 'picture')} with {plural(sum(made.objects.values()), 'object')}: {listed}"
    ]
    if made.originals:
        lines.append("with the data's own photos: " + ", ".join(f"{s} {n:,}" for s, n in made.originals.items()))
    lines += [f"note: {note}" for note in made.notes]
    return [*lines, f"written: {made.folder}"]


# ── what there is to compose from ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Objects:
    """The objects that can be pasted.

    Attributes:
        pool: `(N,)` positions in the dataset's columns.
        boxes: By position: the tight box `x1 y1 x2 y2`.
        cut: By position: at which sides the photo's border cuts it.
        photos: `(P,)` positions of the photos that have some.
        counts: `(P,)` how many each has.
    """

    pool: NDArray[np.int64]
    boxes: dict[int, tuple[int, int, int, int]]
    cut: dict[int, Sides]
    photos: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _Background:
    path: Path
    size: tuple[int, int]


def _inputs(data: Path, backgrounds: Path) -> tuple[Dataset, _Objects, list[_Background], list[str]]:
    """Look at all that is given, before any work.

    Raises:
        UserError: With every problem at once.
    """
    problems: list[Problem] = []
    splits: dict[str, Dataset] = {}
    for split in SPLITS:
        try:
            dataset = Dataset.read_split(data, split)
        except UserError as error:
            problems += error.problems
            continue
        if dataset is not None:
            splits[split] = dataset
    train, objects = splits.get("train"), None
    notes: list[str] = []
    if not problems and train is None:
        what = "the folder has no train split: annotations/instances_train.json is not there"
        problems.append(Problem(what, (str(data),), "make one from photos and masks: maskwright prepare RAW -o DATA"))
    elif train is not None:
        objects, notes = _pool(train)
        if not len(objects.pool):
            what = "the train split has no object that can be cut out: none has a mask, or all are crowds or specks"
            problems.append(Problem(what, (str(data),), "maskwright check DATA says what is in it"))
        problems += _wrong_photos(train, objects)
    found, wrong = _find_backgrounds(backgrounds)
    problems += wrong
    if not wrong:
        found, more = _apart(found, splits)
        notes += more
        if not found:
            where = (f"{backgrounds}: {more[0]}",)
            problems.append(Problem("no background is left", where, "give photos that are not those of the data"))
    if problems or train is None or objects is None:
        raise UserError(problems)
    return train, objects, found, notes


def _pool(train: Dataset) -> tuple[_Objects, list[str]]:
    """Return the objects that can be pasted, and which cannot."""
    view = SplitView("train", train)
    whole = ~train.crowd & train.has_mask
    solid = whole & (view.areas > 0)
    fine = solid & (view.areas >= SPECK_PX)
    boxes, cut = {}, {}
    for k in np.flatnonzero(fine).tolist():
        x1, y1, x2, y2 = (round(float(v)) for v in view.boxes[k])
        height, width = train.size_of(k)
        boxes[k], cut[k] = (x1, y1, x2, y2), (x1 <= 0, y1 <= 0, x2 >= width, y2 >= height)
    through = [k for k, (left, top, right, bottom) in cut.items() if (left and right) or (top and bottom)]
    fine[through] = False
    notes = [
        f"{plural(count, 'object')} of the train split {'is' if count == 1 else 'are'} not pasted: {why}"
        for count, why in (
            (int(train.crowd.sum()), "crowds, many objects in one mask"),
            (int((solid & (view.areas < SPECK_PX)).sum()), f"of fewer than {SPECK_PX} pixels"),
            (len(through), "cut by the photo's border at opposite sides"),
        )
        if count
    ]
    pool = np.flatnonzero(fine)
    photos, counts = np.unique(train.image_index[pool], return_counts=True)
    return _Objects(pool, boxes, cut, photos.astype(np.int64), counts), notes


def _wrong_photos(train: Dataset, objects: _Objects) -> list[Problem]:
    """Return the photos that cannot be cut from, as far as their headers show."""
    broken, other = [], []
    for i in objects.photos.tolist():
        image = train.images[i]
        path = train.photo_path(image)
        try:
            size = files.image_size(path)
        except UnreadableImage as error:
            broken.append(f"{path} {error}")
            continue
        if size != image.size:
            other.append(f"{path} is {size[1]} x {size[0]}, the dataset says {image.width} x {image.height}")
    problems = []
    if broken:
        problems.append(Problem("photos of the data cannot be read", tuple(broken), "give them back, or prepare again"))
    if other:
        problems.append(Problem("photos' sizes are not those the dataset states", tuple(other), "prepare again"))
    return problems


def _find_backgrounds(place: Path) -> tuple[list[_Background], list[Problem]]:
    if not place.exists():
        return [], [Problem("the folder of backgrounds does not exist", (str(place),), "check the path")]
    paths = [place] if place.is_file() else files.photo_files(place)
    if not paths:
        ask = "name a folder of photos that show none of the objects"
        return [], [Problem("there is no background: the folder has no photo", (str(place),), ask)]
    found, broken = [], []
    for path in paths:
        try:
            found.append(_Background(path, files.verify_photo(path)[0]))
        except UnreadableImage as error:
            broken.append(f"{path} {error}")
    if not broken:
        return found, []
    count = "a background cannot be read" if len(broken) == 1 else f"{len(broken)} backgrounds cannot be read"
    return found, [Problem(count, tuple(broken), "remove or replace them")]


def _apart(found: Sequence[_Background], splits: dict[str, Dataset]) -> tuple[list[_Background], list[str]]:
    """Leave out backgrounds that are photos of the data: of val and test, or of train with objects; and say so.

    Equal files are looked for. Only files of equal size are read.
    """
    by_bytes: dict[int, list[_Background]] = {}
    for one in found:
        by_bytes.setdefault(one.path.stat().st_size, []).append(one)
    digests: dict[str, list[_Background]] = {}
    seen: dict[str, set[Path]] = {}
    hashed: set[int] = set()
    for split, dataset in splits.items():
        first = dataset.first
        for i, image in enumerate(dataset.images):
            path = dataset.photo_path(image)
            if split == "train" and first[i] == first[i + 1]:
                continue  # a photo of train without an object is as good a background as any
            with contextlib.suppress(OSError):
                size = path.stat().st_size
                if size not in by_bytes:
                    continue
                if size not in hashed:
                    hashed.add(size)
                    for one in by_bytes[size]:
                        digests.setdefault(files.sha256(one.path), []).append(one)
                for one in digests.get(files.sha256(path), ()):
                    seen.setdefault(split, set()).add(one.path)
    notes, away = [], set[Path]()
    for split in ("val", "test", "train"):
        paths = sorted(seen.get(split, set()) - away)
        if not paths:
            continue
        it = "it" if len(paths) == 1 else "they"
        shows = f"{it} {'shows' if len(paths) == 1 else 'show'} objects that would have no mask"
        why = shows if split == "train" else f"{it} would make scores too good"
        are = "is a photo" if len(paths) == 1 else "are photos"
        count, names = plural(len(paths), "background"), some(path.name for path in paths)
        notes.append(f"{count} {are} of the data's {split} split and left out: {names}; {why}")
        away |= set(paths)
    return [one for one in found if one.path not in away], notes


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Pasted:
    """An object in a picture: what is visible of it, and where it is from."""

    category: int
    rle: bytes
    source: int


@dataclass
class _Composer:
    """Makes pictures, and counts what it met."""

    train: Dataset
    objects: _Objects
    backgrounds: Sequence[_Background]
    settings: ComposeSettings
    made: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    enlarged: dict[Path, float] = field(default_factory=dict)
    mirrored: set[Path] = field(default_factory=set)
    homeless: int = 0
    _held: OrderedDict[int, Cutout] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def picture(self, number: int) -> tuple[NDArray[np.uint8], list[_Pasted], _Background]:
        """Make a picture; it follows from the seed, the number and the input."""
        rng = np.random.default_rng((self.settings.seed, number))
        # A photo of the data lends its size and its number of objects.
        model = int(rng.integers(len(self.objects.photos)))
        size = self.train.images[int(self.objects.photos[model])].size
        count = self.settings.objects or int(self.objects.counts[model])
        turn, total = divmod(number, len(self.backgrounds))
        order = np.random.default_rng((self.settings.seed, turn, 7)).permutation(len(self.backgrounds))
        background = self.backgrounds[int(order[total])]
        ground = self._ground(background, size, rng)
        owner = np.zeros(size, dtype=np.int32)
        areas: list[int] = []
        sources: list[tuple[int, int, int, Cutout]] = []
        for _ in range(count):
            k = int(self.objects.pool[rng.integers(len(self.objects.pool))])
            one = self._object(k, size, rng)
            place = None if one is None else self._place(one, owner, areas, rng)
            if one is None or place is None:
                self.homeless += 1
                continue
            x, y = place
            lay(ground, one.colours, one.mask, x, y)
            owner[y : y + one.size[0], x : x + one.size[1]][one.mask] = len(areas) + 1
            areas.append(int(one.mask.sum()))
            sources.append((k, x, y, one))
        pasted = []
        for n, (k, x, y, one) in enumerate(sources, 1):
            seen = owner[y : y + one.size[0], x : x + one.size[1]] == n
            pasted.append(_Pasted(int(self.train.category_ids[k]), pixels.encode_window(seen, x, y, size), k))
        self.made += 1
        self.counts.update(one.category for one in pasted)
        return ground, pasted, background

    def _object(self, k: int, size: tuple[int, int], rng: np.random.Generator) -> Cutout | None:
        """Return an object as it will be pasted into a picture of a size; `None` if nothing is left of it."""
        how, jitter = self.settings, math.log(self.settings.scale_jitter)
        zoom = max(size) / max(self.train.size_of(k)) * math.exp(float(rng.uniform(-jitter, jitter)))
        mirror = bool(rng.random() < 0.5) and how.flip
        degrees = float(rng.uniform(0, 360))
        if not how.turn or any(self.objects.cut[k]):
            degrees = 0.0
        one = changed(self._cutout(k), zoom, mirror, degrees, most=size)
        return one if one is not None and int(one.mask.sum()) >= SPECK_PX else None

    def _place(
        self, one: Cutout, owner: NDArray[np.int32], areas: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, int] | None:
        """Return where an object goes, left and top; `None` if wherever it was tried it would hide too much."""
        height, width = one.size
        room = np.array([owner.shape[1] - width, owner.shape[0] - height])
        left, top, right, bottom = one.cut
        visible = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:]
        least = np.maximum(self.settings.visible * np.array(areas), SPECK_PX)
        for _ in range(TRIES):
            x, y = (int(v) for v in rng.integers(0, room + 1))
            x = 0 if left else int(room[0]) if right else x
            y = 0 if top else int(room[1]) if bottom else y
            hidden = np.bincount(owner[y : y + height, x : x + width][one.mask], minlength=len(areas) + 1)[1:]
            if ((visible - hidden >= least) | (hidden == 0)).all():
                return x, y
        return None

    def _cutout(self, k: int) -> Cutout:
        if k in self._held:
            self._held.move_to_end(k)
            return self._held[k]
        image = self.train.images[int(self.train.image_index[k])]
        path = self.train.photo_path(image)
        photo = _read(path)
        if photo.shape[:2] != image.size:
            raise UserError("a photo's size is not the one its dataset states", [str(path)], "prepare the data again")
        x1, y1, x2, y2 = box = self.objects.boxes[k]
        mask = pixels.crop(self.train.rle(k), image.size, box)
        one = cut_out(photo[y1:y2, x1:x2], mask, self.objects.cut[k])
        self._held[k] = one
        self._bytes += 4 * one.mask.size
        while self._bytes > _HELD_BYTES and len(self._held) > 1:
            self._bytes -= 4 * self._held.popitem(last=False)[1].mask.size
        return one

    def _ground(self, background: _Background, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a part of a background in the size that is wanted, `(H, W, 3)` uint8, as large a part as can be."""
        height, width = size
        fit = max(height / background.size[0], width / background.size[1])
        zoom = min(fit, MOST_ENLARGED)
        if fit > 1:
            self.enlarged[background.path] = max(zoom, self.enlarged.get(background.path, 0.0))
        if fit > zoom:
            self.mirrored.add(background.path)
        photo = _read(background.path, math.ceil(max(background.size) * fit) if fit < 1 else None)
        new = tuple(max(1, round(v * zoom)) for v in background.size)
        if fit <= zoom:
            new = (max(new[0], height), max(new[1], width))  # not a pixel less by rounding
        scaled = np.asarray(PillowImage.fromarray(photo).resize((new[1], new[0]), PillowImage.Resampling.BICUBIC))
        y, x = (int(rng.integers(max(have - need, 0) + 1)) for have, need in zip(new, size, strict=True))
        if rng.random() < 0.5:
            scaled = scaled[:, ::-1]
        part = scaled[y : y + height, x : x + width]
        missing = tuple((0, need - have) for have, need in zip(part.shape, size, strict=False))
        return np.ascontiguousarray(np.pad(part, (*missing, (0, 0)), mode="symmetric"))

    def notes(self) -> list[str]:
        """Return what the user should know of the pictures."""
        found = []
        if self.enlarged:
            most = max(self.enlarged.values())
            names = some(path.name for path in sorted(self.enlarged))
            text = (
                f"{plural(len(self.enlarged), 'background')} smaller than the pictures: enlarged up to {most:.2g} times"
            )
            if self.mirrored:
                text += f", {len(self.mirrored):,} of them also continued by mirrored copies"
            found.append(f"{text} ({names})")
        if self.homeless:
            found.append(
                f"{plural(self.homeless, 'object')} found no place where every object stays"
                f" {self.settings.visible:.0%} visible, and {'was' if self.homeless == 1 else 'were'} left out"
            )
        return found


def _read(path: Path, least: int | None = None) -> NDArray[np.uint8]:
    """Read a photo, as small as leaves so many pixels to its longer side."""
    try:
        return files.read_photo(path) if least is None else files.read_reduced(path, least)[0]
    except UnreadableImage as error:
        raise UserError("a photo cannot be read", [f"{path} {error}"], "replace or remove it") from None


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(composer: _Composer, folder: Path, settings: ComposeSettings, progress: bool) -> list[dict[str, Any]]:
    """Write the train split; return what each picture is made of."""
    train, stories = composer.train, []
    kept = train if settings.with_originals else None
    taken = {Path(image.file_name).stem.lower() for image in kept.images} if kept else set()
    image_id = max((0, *(image.id for image in kept.images))) if kept else 0
    object_id = int(kept.ids.max(initial=0)) if kept else 0
    total = settings.pictures or 0
    name = _free_name(taken, total)
    (folder / "train").mkdir(exist_ok=True)
    path = folder / "annotations" / "instances_train.json"
    with CocoWriter(path, train.categories, train.info, train.licenses) as writer, _bar(total, progress) as tick:
        if kept is not None:
            first = kept.first.tolist()
            for i, image in enumerate(kept.images):
                writer.photo(image, map(kept.annotation, range(first[i], first[i + 1])))
        for number in range(total):
            colours, pasted, background = composer.picture(number)
            file_name = f"{name(number)}.{'png' if settings.png else 'jpg'}"
            how: dict[str, Any] = {} if settings.png else {"quality": _JPEG_QUALITY, "subsampling": 0}
            PillowImage.fromarray(colours).save(folder / "train" / file_name, **how)
            image_id += 1
            image = Image(image_id, file_name, colours.shape[1], colours.shape[0])
            rows = [Annotation(object_id + n, image.id, one.category, one.rle) for n, one in enumerate(pasted, 1)]
            object_id += len(rows)
            writer.photo(image, rows)
            stories.append(
                {
                    "file_name": file_name,
                    "background": str(background.path),
                    "objects": [
                        {
                            "annotation": row.id,
                            "photo": train.images[int(train.image_index[one.source])].file_name,
                            "of": int(train.ids[one.source]),
                        }
                        for row, one in zip(rows, pasted, strict=True)
                    ],
                }
            )
            tick()
    return stories


def _free_name(taken: set[str], total: int) -> Callable[[int], str]:
    """Return how pictures are named, so that no photo has such a name already."""
    wide, again = max(4, len(str(total))), 1
    while True:
        stem = "composed" if again == 1 else f"composed{again}"
        if not any(name.rpartition("/")[2].startswith(f"{stem}_") for name in taken):
            return lambda number: f"{stem}_{number + 1:0{wide}d}"
        again += 1


def _carry(data: Path, train: Dataset, folder: Path) -> dict[str, int]:
    """Link the data's own photos into the output, with the annotations of val and test; return how many, by split."""
    carried: dict[str, int] = {}
    for split in SPLITS:
        dataset = train if split == "train" else Dataset.read_split(data, split)
        if dataset is None:
            continue
        for image in dataset.images:
            files.put_photo(dataset.photo_path(image), folder / split / image.file_name)
        carried[split] = len(dataset.images)
        if split != "train":
            place = folder / "annotations"
            place.mkdir(exist_ok=True)
            for file in sorted((data / "annotations").glob(f"instances_{split}*.json")):
                shutil.copyfile(file, place / file.name)
    return carried


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Show how far the work is, on standard error."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("composing", total=total)
        yield lambda: progress.advance(task)
