"""Write mask images of truth or detections: the way back from a COCO file to pictures, or to files of other tools.

What `prepare` reads is what the form `categories` writes: for one object per photo, prepare then masks is the identity,
pixel for pixel.
"""

from __future__ import annotations

import importlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.dataset import SPLITS, Category, Dataset, inside
from maskwright.errors import Problem, UserError
from maskwright.files import atomic_folder, refuse_input, write_json
from maskwright.formats import Written, plural
from maskwright.formats.names import name_problems, safe_name
from maskwright.outputs import put_mark, refuse_existing_folder
from maskwright.settings import MaskForm, MasksSettings
from maskwright.shards import meant_by, photos_beside, refuse_folder

Form = Literal["categories", "instances", "ids"]

WRITERS: dict[MaskForm, str] = {
    "category-folders": "category_folders.write",
    "instance-folders": "instance_folders.write_folders",
    "voc": "voc.write",
    "colours": "colours.write",
    "cityscapes": "cityscapes.write",
    "trimap": "trimap.write",
    "polygons": "polygons.write",
    "yolo": "yolo.write",
    "labelme": "labelme.write",
}
"""The function of `formats` that writes each form of other tools."""

MOST_IDS = 65_535
"""So many objects of one photo have a value of their own in a 16-bit image."""


@dataclass(frozen=True)
class MasksWritten:
    """What `write_mask_images` wrote, and what it could not.

    Attributes:
        images: Mask images written.
        objects: Objects drawn.
        bare_photos: Photos that have no mask image, because they have no object (not in a form that writes black ones).
        shared_pixels: Pixels that belong to several objects; in the form `ids` only one of them can have each.
        hidden_objects: Objects of which no pixel is left in the form `ids`.
        crowds: Crowd objects left out, since they are not one object (forms `instances` and `ids`).
        without_mask: Objects left out because the file gives only their box.
        notes: What a form of another tool could not hold, in words.
    """

    images: int
    objects: int
    bare_photos: int = 0
    shared_pixels: int = 0
    hidden_objects: int = 0
    crowds: int = 0
    without_mask: int = 0
    notes: tuple[str, ...] = ()


def masks(
    coco_file: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> MasksWritten:
    """Write the mask images of a COCO file, truth or detections; or the same objects in the form of another tool.

    See `write_mask_images` for the names, the forms, and what happens where objects overlap.

    Args:
        coco_file: The COCO file, or shards of one, as `Dataset.load` takes them. The photos are not needed, but if
            they lie as `prepare` lays them, the forms `yolo`, `labelme` and `instance-folders` bring them along.
        out: The folder to write; it appears whole or not at all.
        overwrite: Replace `out` if it exists and `masks` made it.
        say: Called with lines about what was done.
        **settings: See `MasksSettings`.

    Returns:
        The counts.

    Raises:
        UserError: If the file cannot be read, names a photo outside its folder, or cannot be drawn in this form.
    """
    chosen = MasksSettings.parse(settings)
    coco_file, out = Path(coco_file), Path(out)
    tell = say or (lambda _text: None)
    refuse_input(out, *meant_by(coco_file))
    refuse_folder(coco_file)
    photos = _photo_folder(coco_file)
    refuse_input(out, *([] if photos is None else [photos]))
    refuse_existing_folder(out, "masks", overwrite=overwrite)
    dataset = Dataset.load(coco_file)
    if chosen.score is not None:
        if len(dataset) and np.isnan(dataset.scores).all():
            raise UserError(
                "a least score was given, and the file has no scores: it is truth, not detections",
                [str(coco_file)],
                "leave --score away",
            )
        dataset = dataset.select(np.isnan(dataset.scores) | (dataset.scores >= chosen.score))
    with atomic_folder(out, overwrite=overwrite) as folder:
        if chosen.form in WRITERS:
            written = _write_foreign(replace(dataset, folder=photos), folder, chosen.form)
            files, objects = plural(written.images, "file"), plural(written.objects, "object")
            lines = [f"{files} of {objects}, form {chosen.form}"]
            lines += [*_left_out(written), *written.notes]
        else:
            form = cast(Form, chosen.form)
            written = write_mask_images(dataset, folder, form)
            lines = told(written, form)
        put_mark(folder, "masks")
    for line in lines:
        tell(line)
    tell(f"wrote {out}")
    return written


def _write_foreign(dataset: Dataset, folder: Path, form: MaskForm) -> MasksWritten:
    """Write a form of another tool; objects without a mask are left out, and counted."""
    has_mask = dataset.has_mask
    if len(dataset) and not has_mask.any():
        raise _no_masks(len(dataset))
    module, function = WRITERS[form].split(".")
    write = getattr(importlib.import_module(f"maskwright.formats.{module}"), function)
    written: Written = write(dataset.select(has_mask), folder)
    return MasksWritten(
        images=written.files, objects=written.objects, without_mask=int((~has_mask).sum()), notes=written.notes
    )


def _photo_folder(coco_file: Path) -> Path | None:
    """Return where the photos of an annotation file are, if it lies in a folder that `prepare` made."""
    folder = photos_beside(coco_file)
    return folder if folder is not None and folder.name in SPLITS else None


def _no_masks(count: int) -> UserError:
    return UserError(
        "no object of the file has a mask; boxes alone cannot be drawn",
        [f"boxes without a mask: {count:,}"],
        "write the file with its segmentations",
    )


def told(written: MasksWritten, form: Form) -> list[str]:
    """Return what to tell the user about mask images: how many, by what rule, and everything left out."""
    images = "mask image" if written.images == 1 else "mask images"
    objects = "object" if written.objects == 1 else "objects"
    line = f"{written.images:,} {images} of {written.objects:,} {objects}, form {form}: {_POLICY[form]}"
    return [line, *_left_out(written)]


def _left_out(written: MasksWritten) -> list[str]:
    lines = []
    for count, one, many, rest in (
        (written.shared_pixels, "pixel belongs", "pixels belong", "to several objects"),
        (written.hidden_objects, "object is", "objects are", "wholly hidden by others; --form instances shows all"),
        (written.bare_photos, "photo has", "photos have", "no object and so no mask image"),
        (written.crowds, "crowd", "crowds", "left out, being many objects in one; --form categories draws all"),
        (written.without_mask, "object", "objects", "left out: the file gives the box, not the mask"),
    ):
        if count:
            lines.append(f"{count:,} {one if count == 1 else many} {rest}")
    return lines


_POLICY: dict[Form, str] = {
    "categories": "one 0/255 image per photo and category, the union of its objects",
    "instances": "one 0/255 image per object, whole where others overlap it",
    "ids": "one 16-bit image per photo; on top is the object with the highest score, in truth the smallest one",
}


def write_mask_images(
    dataset: Dataset, folder: Path, form: Form = "categories", categories: Sequence[Category] | None = None
) -> MasksWritten:
    """Write mask images whose names follow the photos'; each has its photo's upright size.

    The forms, and what each does with a pixel of several objects:

    - `categories`: 8-bit, 0 and 255, one image per photo and category: the union of its objects, so that no pixel is
      lost. With a single category it is `<photo stem>.png`, and a photo without objects gets an all-black one; with
      several it is `<photo stem>_<category>.png`, for the categories that the photo has. Crowds are drawn.
    - `instances`: 8-bit, 0 and 255, one image per object, `<photo stem>_<category>_<n>.png`, n from 1 within the photo
      and category. Overlapping objects are each whole.
    - `ids`: 16-bit, one image per photo, `<photo stem>.png`: value n is the photo's n-th object, 0 is background. A
      pixel of several objects goes to the highest score, and among equals (truth has no scores) to the smallest object.
      `ids.json` says what each value is: `{file: {value: {"category", "score", "annotation"}}}`.

    Subfolders in the photos' names are kept. Where two images would get one name (`a.jpg` beside `a.png`), these photos
    keep their whole file name: `a.jpg.png`, `a.png.png`. In category names, characters that file systems refuse are
    written as `%XX` (undone by `urllib.parse.unquote`).

    Args:
        dataset: Truth or detections.
        folder: Where to write; made if need be. Files of the same names are replaced.
        form: See above.
        categories: Draw only these; all of the dataset's if not given.

    Returns:
        The counts.

    Raises:
        UserError: Before anything is written: a photo's name leads outside, or two images must have one name, or a
            photo has more objects than a 16-bit image can number, or no object has a mask.
    """
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}; known: {', '.join(get_args(Form))}")  # settings check what users type
    drawn = list(dataset.categories if categories is None else categories)
    has_mask = dataset.has_mask
    wanted = np.isin(dataset.category_ids, [c.id for c in drawn])
    crowds = wanted & dataset.crowd if form != "categories" else np.zeros(len(dataset), dtype=np.bool_)
    without_mask = wanted & ~has_mask & ~crowds
    if without_mask.any() and not (wanted & has_mask).any():
        raise _no_masks(int(without_mask.sum()))
    kept = dataset.select(wanted & has_mask & ~crowds)
    plan = _plan(kept, drawn, form)
    key: dict[str, dict[str, Any]] = {}
    shared = hidden = 0
    for name, image_index, objects in plan:
        size = kept.images[image_index].size
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "ids":
            values, counts = _id_image(kept, objects, size)
            shared += counts[0]
            hidden += counts[1]
            PillowImage.fromarray(values).save(path)
            key[name] = {str(n + 1): _entry(kept, k) for n, k in enumerate(objects.tolist())}
            continue
        mask, several = _union(kept, objects, size)
        shared += several
        PillowImage.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path)
    if form == "ids":
        write_json(folder / "ids.json", key)
    seen = {image_index for _, image_index, _ in plan}
    return MasksWritten(
        images=len(plan),
        objects=len(kept),
        bare_photos=len(kept.images) - len(seen),
        shared_pixels=shared,
        hidden_objects=hidden,
        crowds=int(crowds.sum()),
        without_mask=int(without_mask.sum()),
    )


Planned = tuple[str, int, NDArray[np.int64]]
"""A mask image: its name relative to the folder, its photo's position, the objects in it."""


def _plan(dataset: Dataset, drawn: Sequence[Category], form: Form) -> list[Planned]:
    """Name every mask image, or refuse, before the first is written."""
    problems = name_problems(dataset)
    per_photo = np.diff(dataset.first)
    if form == "ids" and (per_photo > MOST_IDS).any():
        where = [
            f"{dataset.images[i].file_name}: {per_photo[i]:,} objects" for i in np.flatnonzero(per_photo > MOST_IDS)
        ]
        what = f"a 16-bit id image can number {MOST_IDS:,} objects, and photos have more"
        problems.append(Problem(what, tuple(where), "use: --form instances"))
    if problems:
        raise UserError(problems)
    first = dataset.first
    suffixes = {
        i: list(_images_of(dataset, np.arange(first[i], first[i + 1]), drawn, form)) for i in range(len(dataset.images))
    }
    stems = [str(PurePosixPath(image.file_name).with_suffix("")) for image in dataset.images]
    by_name: dict[str, set[int]] = defaultdict(set)
    for i, items in suffixes.items():
        for suffix, _ in items:
            by_name[stems[i] + suffix].add(i)
    for sharing in by_name.values():
        if len(sharing) > 1:
            for i in sharing:
                stems[i] = dataset.images[i].file_name
    plan = [(f"{stems[i]}{suffix}.png", i, objects) for i, items in suffixes.items() for suffix, objects in items]
    again = [name for name, n in Counter(name for name, _, _ in plan).items() if n > 1]
    if again:
        raise UserError("several mask images would have the same name", again, "rename these photos or categories")
    return plan


def _images_of(
    dataset: Dataset, objects: NDArray[np.int64], drawn: Sequence[Category], form: Form
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield, for the objects of one photo, what follows the stem in each mask image's name, and the objects in it."""
    if form == "ids" or (form == "categories" and len(drawn) == 1):
        yield "", objects
        return
    for category in drawn:
        of_category = objects[dataset.category_ids[objects] == category.id]
        suffix = f"_{safe_name(category.name)}"
        if form == "instances":
            for n, k in enumerate(of_category, start=1):
                yield f"{suffix}_{n}", np.array([k])
        elif len(of_category):
            yield suffix, of_category


def _union(dataset: Dataset, objects: NDArray[np.int64], size: pixels.Size) -> tuple[NDArray[np.bool_], int]:
    """Return the union of objects of one photo, `(H, W)` bool, and how many pixels belong to several of them."""
    if not len(objects):
        return np.zeros(size, dtype=np.bool_), 0
    if len(objects) == 1:
        return dataset.mask(int(objects[0])), 0
    count = np.zeros(size, dtype=np.uint16)
    for rle, window in _windows(dataset, objects, size):
        x1, y1, x2, y2 = window
        count[y1:y2, x1:x2] += pixels.crop(rle, size, window)
    return count > 0, int((count > 1).sum())


def _id_image(
    dataset: Dataset, objects: NDArray[np.int64], size: pixels.Size
) -> tuple[NDArray[np.uint16], tuple[int, int]]:
    """Draw the n-th object as value n; also count the pixels of several objects, and the objects wholly hidden."""
    values = np.zeros(size, dtype=np.uint16)
    count = np.zeros(size, dtype=np.uint16)
    windows = list(_windows(dataset, objects, size))
    areas = np.array([pixels.area(rle, size) for rle, _ in windows])
    scores = np.nan_to_num(dataset.scores[objects], nan=-1.0)
    for n in np.lexsort((-areas, scores)).tolist():  # what is painted last is on top
        rle, window = windows[n]
        x1, y1, x2, y2 = window
        mask = pixels.crop(rle, size, window)
        values[y1:y2, x1:x2][mask] = n + 1
        count[y1:y2, x1:x2] += mask
    visible = np.bincount(values.ravel(), minlength=len(objects) + 1)[1:]
    return values, (int((count > 1).sum()), int(((visible == 0) & (areas > 0)).sum()))


def _windows(
    dataset: Dataset, objects: NDArray[np.int64], size: pixels.Size
) -> Iterator[tuple[bytes, tuple[int, int, int, int]]]:
    """Yield each object's RLE and its tight box, taken from the mask: a file's own `bbox` may be wrong."""
    for k in objects.tolist():
        rle = dataset.rle(k)
        x1, y1, x2, y2 = (int(v) for v in pixels.box(rle, size))
        yield rle, (x1, y1, x2, y2)


def _entry(dataset: Dataset, k: int) -> dict[str, Any]:
    names = {c.id: c.name for c in dataset.categories}
    score = float(dataset.scores[k])
    return {
        "category": names[int(dataset.category_ids[k])],
        "score": None if np.isnan(score) else score,
        "annotation": int(dataset.ids[k]),
    }
