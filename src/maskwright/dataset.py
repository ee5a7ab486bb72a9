"""A COCO dataset in memory, in columns: read, verify, select, write.

Truth and detections are one type: a detection is an annotation with a score. Ids of any kind are kept as found; what
joins an annotation to its photo in memory is the photo's position, so no id can be mistaken for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.columns import Columns, Masks, crowd_of, read_columns, whole
from maskwright.errors import Problem, UserError
from maskwright.files import MOST_PIXELS, atomic_file, is_text
from maskwright.objects import (
    SPLITS,
    Annotation,
    Category,
    Image,
    Images,
    coco_annotation,
    coco_category,
    coco_image,
    packed,
)
from maskwright.pieces import Pieces, collector_paused, read_in_pieces, read_json
from maskwright.segmentations import rle_of
from maskwright.shards import coco_files, split_files

__all__ = [  # those of `objects` too
    "SPLITS",
    "Annotation",
    "Category",
    "Dataset",
    "Image",
    "coco_annotation",
    "coco_category",
    "coco_image",
    "collector_paused",
    "default_info",
    "from_coco",
    "from_results",
    "inside",
    "read_annotation",
    "read_json",
    "rle_of",
]


@dataclass(frozen=True)
class Dataset:
    """Photos, categories and objects, in columns.

    Objects are sorted by photo, so those of photo `i` are the slice `first[i]:first[i + 1]` of every object column.

    Attributes:
        categories: In order of id.
        images: In file order; a tuple in all but memory, see `Images`.
        ids: `(M,)` int64, annotation ids.
        image_index: `(M,)` int32, position in `images`, ascending.
        category_ids: `(M,)` int64.
        crowd: `(M,)` bool.
        scores: `(M,)` float64, NaN where there is none.
        areas: `(M,)` float64 in pixels.
        boxes: `(M, 4)` float64, `x1 y1 x2 y2` in pixels, end exclusive.
        masks: The RLEs; polygons of a file stay as they are until their RLE is asked for.
        info: COCO's `info` object.
        licenses: COCO's `licenses` list.
        folder: Where `file_name`s start, if known.
        measured: `(M, 5)` float64, area and tight `x y width height` of each mask, NaN where there is a box only; or
            `None` if not measured. `areas` and `boxes` are what the file says; this is what the masks are.
    """

    categories: tuple[Category, ...]
    images: tuple[Image, ...] | Images
    ids: NDArray[np.int64]
    image_index: NDArray[np.int32]
    category_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    masks: Masks
    info: Mapping[str, Any] = field(default_factory=dict)
    licenses: tuple[Mapping[str, Any], ...] = ()
    folder: Path | None = None
    measured: NDArray[np.float64] | None = None

    @staticmethod
    def build(
        categories: Iterable[Category],
        images: Iterable[Image],
        annotations: Iterable[Annotation],
        *,
        info: Mapping[str, Any] | None = None,
        licenses: Sequence[Mapping[str, Any]] = (),
        folder: Path | None = None,
    ) -> Dataset:
        """Make a dataset from objects; areas and boxes that are `None` are taken from the masks.

        Raises:
            UserError: If an id stands twice, or an annotation names a photo or category that is not there.
        """
        cats = tuple(sorted(categories, key=lambda c: c.id))
        imgs = tuple(images)
        anns = list(annotations)
        index = {image.id: i for i, image in enumerate(imgs)}
        known = {c.id for c in cats}
        problems = []
        if len(index) != len(imgs):
            twice = tuple(f"{image.file_name} has the id {image.id} of another" for image in _repeats(imgs))
            problems.append(Problem("image ids must differ", twice, "number them anew"))
        if len(known) != len(cats):
            twice = tuple(f"'{category.name}' has the id {category.id} of another" for category in _repeats(cats))
            problems.append(Problem("category ids must differ", twice, "number them anew"))
        bare = [f"annotation {a.id}" for a in anns if not a.rle and a.box is None]
        if bare:
            problems.append(Problem("annotations have neither a mask nor a box", tuple(bare), "remove them"))
        lost = [f"annotation {a.id} names image {a.image_id}" for a in anns if a.image_id not in index]
        if lost:
            problems.append(Problem("annotations name images that are not listed", tuple(lost), "list the images"))
        odd = [f"annotation {a.id} names category {a.category_id}" for a in anns if a.category_id not in known]
        if odd:
            problems.append(
                Problem("annotations name categories that are not listed", tuple(odd), "list the categories")
            )
        if problems:
            raise UserError(problems)
        columns = Columns(
            positions=np.array([index[a.image_id] for a in anns], dtype=np.int32),
            ids=np.array([a.id for a in anns], dtype=np.int64),
            category_ids=np.array([a.category_id for a in anns], dtype=np.int64),
            crowd=np.array([a.crowd for a in anns], dtype=np.bool_),
            scores=np.array([np.nan if a.score is None else a.score for a in anns], dtype=np.float64),
            areas=np.array([np.nan if a.area is None else a.area for a in anns], dtype=np.float64),
            boxes=np.array([a.box or (np.nan,) * 4 for a in anns], dtype=np.float64).reshape(-1, 4),
            rles=[a.rle or b"" for a in anns],
        )
        return Dataset.of_columns(cats, imgs, columns, info=info, licenses=licenses, folder=folder)

    @staticmethod
    def of_columns(
        categories: tuple[Category, ...],
        images: Sequence[Image],
        columns: Columns,
        *,
        masks: Masks | None = None,
        info: Mapping[str, Any] | None = None,
        licenses: Sequence[Mapping[str, Any]] = (),
        folder: Path | None = None,
    ) -> Dataset:
        """Make a dataset from columns that are known to be sound; what is NaN is taken from the masks.

        Args:
            categories: In order of id.
            images: Any order.
            columns: In any order of photos; each object has a mask or a box.
            masks: Of the objects of `columns`, if not its `rles`.
            info: COCO's `info` object.
            licenses: COCO's `licenses` list.
            folder: Where the photos are, if known.
        """
        order = np.argsort(columns.positions, kind="stable")  # stable: the order within a photo is kept
        positions = columns.positions[order]
        if masks is None:
            masks = Masks.of([columns.rles[k] for k in order.tolist()])
        else:
            masks = masks.ordered(order)
        areas, boxes = columns.areas[order], columns.boxes[order]
        need = np.flatnonzero(np.isnan(areas) | np.isnan(boxes).any(axis=1))
        with_mask = need[masks.ends[need] > masks.starts[need]]
        if len(with_mask):
            sizes = {k: images[positions[k]].size for k in with_mask.tolist()}
            rles = [masks.rle(k, sizes.__getitem__) for k in sizes]
            found_areas, found_boxes = pixels.areas_and_boxes(rles, list(sizes.values()))
            areas[with_mask] = np.where(np.isnan(areas[with_mask]), found_areas, areas[with_mask])
            boxes[with_mask] = np.where(np.isnan(boxes[with_mask]), found_boxes, boxes[with_mask])
        without = np.isnan(areas)
        areas[without] = np.prod(boxes[without, 2:] - boxes[without, :2], axis=1)
        return Dataset(
            categories=categories,
            images=packed(images),
            ids=columns.ids[order],
            image_index=positions,
            category_ids=columns.category_ids[order],
            crowd=columns.crowd[order],
            scores=columns.scores[order],
            areas=areas,
            boxes=boxes,
            masks=masks,
            info=dict(info or {}),
            licenses=tuple(licenses),
            folder=folder,
            measured=None if columns.measured is None else columns.measured[order],
        )

    def __len__(self) -> int:
        """Count the objects."""
        return len(self.ids)

    @property
    def first(self) -> NDArray[np.int64]:
        """`(images + 1,)`: the objects of photo `i` are `first[i]:first[i + 1]`."""
        return np.searchsorted(self.image_index, np.arange(len(self.images) + 1))

    def size_of(self, k: int) -> pixels.Size:
        """Return `(height, width)` of the photo of object `k`."""
        i = int(self.image_index[k])
        if isinstance(self.images, Images):
            return int(self.images.heights[i]), int(self.images.widths[i])
        return self.images[i].size

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """`(M,)`: which objects have a mask, not a box only."""
        return self.masks.ends > self.masks.starts

    def has_mask_at(self, k: int) -> bool:
        """Tell whether object `k` has a mask, not a box only."""
        return bool(self.masks.ends[k] > self.masks.starts[k])

    @property
    def rle_bytes(self) -> NDArray[np.uint8]:
        """uint8, all RLEs end to end; draws the polygons of a file, all of them, when first asked for."""
        return self._packed[0]

    @property
    def rle_ends(self) -> NDArray[np.int64]:
        """`(M + 1,)` int64; RLE `k` is `rle_bytes[rle_ends[k]:rle_ends[k + 1]]`, empty where there is none."""
        return self._packed[1]

    @cached_property
    def _packed(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        masks = self.masks if self.masks.packed() else Masks.of(self.rles())
        return masks.data, np.concatenate([np.zeros(1, dtype=np.int64), masks.ends])

    def rle(self, k: int) -> bytes:
        """Return the RLE of object `k`; empty bytes if it has a box only."""
        return self.masks.rle(k, self.size_of)

    def rles(self) -> list[bytes]:
        """Return the RLE of every object, as `rle` does."""
        return self.masks.rles(self.size_of)

    def mask(self, k: int) -> NDArray[np.bool_]:
        """Return the mask of object `k`, `(H, W)` bool at the photo's size."""
        return pixels.decode(self.rle(k), self.size_of(k))

    def annotation(self, k: int) -> Annotation:
        """Return object `k` as a value."""
        score = float(self.scores[k])
        x1, y1, x2, y2 = (float(v) for v in self.boxes[k])
        return Annotation(
            id=int(self.ids[k]),
            image_id=self.images[int(self.image_index[k])].id,
            category_id=int(self.category_ids[k]),
            rle=self.rle(k) or None,
            crowd=bool(self.crowd[k]),
            score=None if np.isnan(score) else score,
            box=(x1, y1, x2, y2),
            area=float(self.areas[k]),
        )

    def annotations(self) -> Iterator[Annotation]:
        """Yield every object as a value, photo by photo."""
        for k in range(len(self)):
            yield self.annotation(k)

    def select(self, keep: NDArray[Any]) -> Dataset:
        """Return the dataset with only the objects that `keep` names (bool `(M,)` or ascending indices)."""
        chosen = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return replace(
            self,
            ids=self.ids[chosen],
            image_index=self.image_index[chosen],
            category_ids=self.category_ids[chosen],
            crowd=self.crowd[chosen],
            scores=self.scores[chosen],
            areas=self.areas[chosen],
            boxes=self.boxes[chosen],
            masks=self.masks.select(chosen),
            measured=None if self.measured is None else self.measured[chosen],
        )

    def photo_path(self, image: Image) -> Path:
        """Return where a photo's file is.

        Raises:
            UserError: If `file_name` leads outside the dataset's photo folder.
        """
        return inside(self.folder or Path(), image.file_name)

    @staticmethod
    def read(path: Path, folder: Path | None = None) -> Dataset:
        """Read a COCO JSON file: polygons, compressed and uncompressed RLE, boxes only; truth or detections.

        Values are kept as the file gives them (`area`, `bbox` included); what is absent is computed.

        Args:
            path: The COCO file; it must exist.
            folder: Where its photos are, if they are needed.

        Raises:
            UserError: If it is not COCO JSON, or an annotation cannot be read; every one is named.
        """
        with collector_paused():
            pieces = read_in_pieces(path)
            quick = None if pieces is None else _of_pieces(pieces, folder)
            return quick if quick is not None else from_coco(read_json(path), str(path), folder)

    @staticmethod
    def read_split(data: Path, split: str) -> Dataset | None:
        """Read one split of a prepared data folder; `None` if the folder has no such split."""
        paths = split_files(data, split)
        return Dataset._of_files(paths, data / split) if paths else None

    @staticmethod
    def load(path: str | Path, folder: str | Path | None = None) -> Dataset:
        """Read a COCO file, or one that is written in shards, as one dataset; see `read`.

        Args:
            path: The file; or a folder of shards; or a pattern such as `instances_train-*.json`; or the name without
                numbers (`instances_train.json` for `instances_train-00000-of-00012.json` and so on).
            folder: Where its photos are, if they are needed.

        Raises:
            UserError: As `read`; and if shards are missing, or differ in categories, or use an id twice.
        """
        path, photos = Path(path), None if folder is None else Path(folder)
        return Dataset._of_files(coco_files(path) or [path], photos)

    @staticmethod
    def _of_files(paths: Sequence[Path], folder: Path | None) -> Dataset:
        parts = [Dataset.read(path, folder) for path in paths]
        return parts[0] if len(parts) == 1 else _joined(parts, [str(path) for path in paths])

    def write(self, path: Path) -> None:
        """Write COCO JSON: RLE segmentations, ids as they stand; the file appears whole or not at all."""
        with atomic_file(path) as handle:
            handle.write(json.dumps(self.coco(), ensure_ascii=False, separators=(",", ":")).encode())

    def coco(self) -> dict[str, Any]:
        """Return COCO's JSON object; every annotation of detections has a `score`."""
        return {
            "info": dict(self.info),
            "licenses": [dict(item) for item in self.licenses],
            "categories": [coco_category(category) for category in self.categories],
            "images": [coco_image(image) for image in self.images],
            "annotations": [coco_annotation(a, self.size_of(k)) for k, a in enumerate(self.annotations())],
        }


def _repeats(items: Iterable[Any]) -> list[Any]:
    seen: set[int] = set()
    found = []
    for item in items:
        if item.id in seen:
            found.append(item)
        seen.add(item.id)
    return found


def _joined(parts: Sequence[Dataset], names: Sequence[str]) -> Dataset:
    """Return the shards of one dataset as one; what stands beside the objects (`info`, `licenses`) is the first's."""
    head = parts[0]
    problems = []
    other = [
        f"{name}: {_listed(part)}"
        for part, name in zip(parts, names, strict=True)
        if part.categories != head.categories
    ]
    if other:
        problems.append(
            Problem("shards differ in categories", (f"{names[0]}: {_listed(head)}", *other), "write the shards anew")
        )
    for what, ids in (
        ("image", [np.array([image.id for image in part.images]) for part in parts]),
        ("annotation", [part.ids for part in parts]),
    ):
        values, source = np.concatenate(ids), np.repeat(np.arange(len(parts)), [len(item) for item in ids])
        order = np.argsort(values, kind="stable")
        again = (np.diff(values[order]) == 0) & (np.diff(source[order]) != 0)
        where = [
            f"{names[source[b]]}: {what} {values[b]} is in {names[source[a]]} too"
            for a, b in zip(order[:-1][again].tolist(), order[1:][again].tolist(), strict=True)
        ]
        if where:
            problems.append(Problem(f"{what} ids must differ over all shards", tuple(where), "number them anew"))
    if problems:
        raise UserError(problems)
    packs = [part.images for part in parts if isinstance(part.images, Images)]
    images = Images.join(packs) if len(packs) == len(parts) else tuple(i for part in parts for i in part.images)
    shift = np.cumsum([0] + [len(part.images) for part in parts])
    known = [part.measured for part in parts if part.measured is not None]
    return replace(
        head,
        images=images,
        ids=np.concatenate([part.ids for part in parts]),
        image_index=np.concatenate([p.image_index + n for p, n in zip(parts, shift, strict=False)]).astype(np.int32),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        masks=Masks.join([part.masks for part in parts]),
        measured=np.concatenate(known) if len(known) == len(parts) else None,
    )


def _listed(data: Dataset) -> str:
    return ", ".join(f"{c.id} {c.name}" for c in data.categories) or "no categories"


def default_info(description: str = "", contributor: str = "") -> dict[str, Any]:
    """Return a complete COCO `info` object for today."""
    now = datetime.now(timezone.utc)
    return {
        "description": description,
        "url": "",
        "version": "1.0",
        "year": now.year,
        "contributor": contributor,
        "date_created": now.strftime("%Y-%m-%d"),
    }


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, refusing a name that is absolute or climbs out of the folder.

    Raises:
        UserError: If the name leads outside; data files must not reach other files of the machine.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":") or "\0" in name:
        raise UserError(
            "file names in a data file must stay inside its folder",
            [f"file_name {name!r}"],
            "make the names relative to the photo folder, without '..'",
        )
    return folder / name


def from_coco(document: Any, name: str, folder: Path | None = None) -> Dataset:
    """Turn a parsed COCO document into a dataset; see `Dataset.read`.

    Args:
        document: The parsed JSON.
        name: How error messages call the file.
    """
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise UserError(
            "the file is not a COCO dataset: it needs an object with 'images', 'annotations' and 'categories'",
            [name],
            "a bare list of results is read by `maskwright evaluate` together with its truth",
        )
    problems: list[str] = []
    images, by_id = [], {}
    for number, item in enumerate(document["images"]):
        try:
            image = Image(_id(item["id"]), _name(item, "file_name"), int(item["width"]), int(item["height"]))
            if image.width <= 0 or image.height <= 0:
                raise ValueError("width and height must be positive")
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it declares {image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,}")
            if not Path(image.file_name).name:
                raise ValueError("file_name is empty")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name}: images[{number}]: {_reason(error)}")
            continue
        images.append(image)
        by_id[image.id] = image
    categories = []
    for number, item in enumerate(document.get("categories") or []):
        try:
            categories.append(Category(_id(item["id"]), _name(item, "name")))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name}: categories[{number}]: {_reason(error)}")
    extras = _extras(document, folder)
    rows = document.get("annotations") or []
    quick = None if problems else _in_bulk(rows, categories, images, extras)
    if quick is not None:
        return quick
    annotations = _row_by_row(rows, by_id, f"{name}: annotations", problems)
    return Dataset.build(categories, images, annotations, **extras)


def _name(item: Any, key: str) -> str:
    """Return a name of a COCO file.

    Raises:
        KeyError, TypeError, ValueError: If there is none, or it has half a character, which JSON can hold and no file
            name and no terminal can.
    """
    name = str(item[key])
    if not is_text(name):
        raise ValueError(f"{key} {name!r} has half a character, which cannot be written as UTF-8")
    return name


def _extras(document: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    info, licenses = document.get("info"), document.get("licenses")
    return {
        "info": info if isinstance(info, dict) else {},
        "licenses": [item for item in licenses if isinstance(item, dict)] if isinstance(licenses, list) else (),
        "folder": folder,
    }


def _of_pieces(pieces: Pieces, folder: Path | None) -> Dataset | None:
    """Make a dataset of a file that was read in pieces; `None` if its categories or ids need a closer look."""
    categories = []
    try:
        for item in pieces.rest.get("categories") or []:
            categories.append(Category(_id(item["id"]), str(item["name"])))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    known = {category.id for category in categories}
    if len(known) != len(categories) or not np.diff(np.sort(pieces.images.ids)).all():
        return None
    if not np.isin(pieces.columns.category_ids, np.array(sorted(known), dtype=np.int64)).all():
        return None
    cats = tuple(sorted(categories, key=lambda c: c.id))
    extras = _extras(pieces.rest, folder)
    return Dataset.of_columns(cats, pieces.images, pieces.columns, masks=pieces.masks, **extras)


def from_results(rows: Any, truth: Dataset, name: str) -> Dataset:
    """Turn a bare COCO list of results into a dataset with the photos and categories of its truth.

    Args:
        rows: The parsed list of `{image_id, category_id, score, segmentation or bbox}`.
        truth: What the ids refer to.
        name: How error messages call the file.

    Raises:
        UserError: If results cannot be read; every one is named.
    """
    quick = _in_bulk(rows, truth.categories, truth.images, {})
    if quick is not None:
        return quick
    results = _row_by_row(rows, {image.id: image for image in truth.images}, f"{name}: result", [])
    return Dataset.build(truth.categories, truth.images, results)


def _row_by_row(rows: Any, by_id: Mapping[int, Image], name: str, problems: list[str]) -> list[Annotation]:
    """Read annotations one at a time, so that every one that cannot be read is named."""
    annotations = []
    for number, item in enumerate(rows):
        try:
            annotations.append(read_annotation(item, number + 1, by_id))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name}[{number}]: {_reason(error)}")
    if problems:
        raise UserError("the COCO file has entries that cannot be read", problems, "mend or remove these entries")
    return annotations


def _in_bulk(
    rows: Any, categories: Sequence[Category], images: Sequence[Image], extras: Mapping[str, Any]
) -> Dataset | None:
    """Read annotations that have no fault in one pass; `None` if any row needs a closer look."""
    index = {image.id: i for i, image in enumerate(images)}
    known = {category.id for category in categories}
    columns = read_columns(rows, index, [image.size for image in images], rle_of)
    if columns is None or len(index) != len(images) or len(known) != len(categories):
        return None
    if not known.issuperset(np.unique(columns.category_ids).tolist()):
        return None
    return Dataset.of_columns(tuple(sorted(categories, key=lambda c: c.id)), tuple(images), columns, **extras)


def read_annotation(item: Any, default_id: int, by_id: Mapping[int, Image]) -> Annotation:
    """Read one COCO annotation or result.

    Raises:
        KeyError, TypeError, ValueError: If it breaks COCO's form; the message says how.
    """
    image = by_id.get(whole(item["image_id"]))
    if image is None:
        raise ValueError(f"image_id {item['image_id']} is not among the images")
    given = item.get("segmentation")
    rle = rle_of(given, image.size) if given else None
    box = None
    if item.get("bbox"):
        x, y, w, h = (float(v) for v in item["bbox"])
        if not np.isfinite([x, y, w, h]).all() or w < 0 or h < 0:
            raise ValueError(f"bbox {item['bbox']} is not four finite numbers x, y, width, height")
        box = (x, y, x + w, y + h)
    if rle is None and box is None:
        raise ValueError("it has neither a segmentation nor a bbox")
    area = item.get("area")
    score = item.get("score")
    if score is not None and not np.isfinite(float(score)):
        raise ValueError(f"score {score} is not a finite number")
    return Annotation(
        id=_id(item.get("id", default_id)),
        image_id=image.id,
        category_id=_id(item["category_id"]),
        rle=rle,
        crowd=crowd_of(item.get("iscrowd")),
        score=None if score is None else float(score),
        box=box,
        area=None if area is None or not np.isfinite(float(area)) else float(area),
    )


def _id(value: Any) -> int:
    """Return an id.

    Raises:
        TypeError, ValueError: If it is no whole number, or needs more than 64 bits.
    """
    number = whole(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the id {number} has more than 64 bits")
    return number


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error)
