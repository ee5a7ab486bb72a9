"""A COCO dataset in memory, in columns: read, verify, select, write.

Truth and detections are one type: a detection is an annotation with a score. Ids of any kind are kept as found; what
joins an annotation to its photo in memory is the photo's position, so no id can be mistaken for another.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels
from maskwright.columns import Columns, read_columns
from maskwright.errors import Problem, UserError
from maskwright.files import MOST_PIXELS, atomic_file

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Category:
    """A kind of object. `id` is at least 1 in everything that we write."""

    id: int
    name: str


@dataclass(frozen=True)
class Image:
    """A photo, upright (EXIF orientation applied): `width` and `height` in pixels."""

    id: int
    file_name: str
    width: int
    height: int

    @property
    def size(self) -> pixels.Size:
        """`(height, width)` in pixels."""
        return (self.height, self.width)


@dataclass(frozen=True)
class Annotation:
    """One object in one photo; with a score it is a detection.

    Args:
        rle: COCO compressed counts at the photo's size; `None` where a foreign file gives a box only.
        box: `(x1, y1, x2, y2)` in pixels, end exclusive; `None` means: take it from the mask.
        area: Object pixels; `None` means: take it from the mask.
        crowd: Many objects in one mask, not to be scored; never "has a hole".
        score: 0..1 for a detection, `None` for truth.
    """

    id: int
    image_id: int
    category_id: int
    rle: bytes | None
    crowd: bool = False
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    area: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Photos, categories and objects, in columns.

    Objects are sorted by photo, so those of photo `i` are the slice `first[i]:first[i + 1]` of every object column.

    Attributes:
        categories: In order of id.
        images: In file order.
        ids: `(M,)` int64, annotation ids.
        image_index: `(M,)` int32, position in `images`, ascending.
        category_ids: `(M,)` int64.
        crowd: `(M,)` bool.
        scores: `(M,)` float64, NaN where there is none.
        areas: `(M,)` float64 in pixels.
        boxes: `(M, 4)` float64, `x1 y1 x2 y2` in pixels, end exclusive.
        rle_bytes: uint8, all RLEs end to end.
        rle_ends: `(M + 1,)` int64; RLE `k` is `rle_bytes[rle_ends[k]:rle_ends[k + 1]]`, empty where there is none.
        info: COCO's `info` object.
        licenses: COCO's `licenses` list.
        folder: Where `file_name`s start, if known.
        measured: `(M, 5)` float64, area and tight `x y width height` of each mask, NaN where there is a box only; or
            `None` if not measured. `areas` and `boxes` are what the file says; this is what the masks are.
    """

    categories: tuple[Category, ...]
    images: tuple[Image, ...]
    ids: NDArray[np.int64]
    image_index: NDArray[np.int32]
    category_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    rle_bytes: NDArray[np.uint8]
    rle_ends: NDArray[np.int64]
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
        images: tuple[Image, ...],
        columns: Columns,
        *,
        info: Mapping[str, Any] | None = None,
        licenses: Sequence[Mapping[str, Any]] = (),
        folder: Path | None = None,
    ) -> Dataset:
        """Make a dataset from columns that are known to be sound; what is NaN is taken from the masks.

        Args:
            categories: In order of id.
            images: Any order.
            columns: In any order of photos; each object has a mask or a box.
            info: COCO's `info` object.
            licenses: COCO's `licenses` list.
            folder: Where the photos are, if known.
        """
        order = np.argsort(columns.positions, kind="stable")  # stable: the order within a photo is kept
        positions = columns.positions[order]
        rles = [columns.rles[k] for k in order.tolist()]
        areas, boxes = columns.areas[order], columns.boxes[order]
        need = np.flatnonzero(np.isnan(areas) | np.isnan(boxes).any(axis=1))
        with_mask = [k for k in need.tolist() if rles[k]]
        if with_mask:
            found_areas, found_boxes = pixels.areas_and_boxes(
                [rles[k] for k in with_mask], [images[positions[k]].size for k in with_mask]
            )
            areas[with_mask] = np.where(np.isnan(areas[with_mask]), found_areas, areas[with_mask])
            boxes[with_mask] = np.where(np.isnan(boxes[with_mask]), found_boxes, boxes[with_mask])
        without = np.isnan(areas)
        areas[without] = np.prod(boxes[without, 2:] - boxes[without, :2], axis=1)
        ends = np.zeros(len(rles) + 1, dtype=np.int64)
        np.cumsum([len(r) for r in rles], out=ends[1:]) if rles else None
        return Dataset(
            categories=categories,
            images=images,
            ids=columns.ids[order],
            image_index=positions,
            category_ids=columns.category_ids[order],
            crowd=columns.crowd[order],
            scores=columns.scores[order],
            areas=areas,
            boxes=boxes,
            rle_bytes=np.frombuffer(b"".join(rles), dtype=np.uint8),
            rle_ends=ends,
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
        return self.images[int(self.image_index[k])].size

    def rle(self, k: int) -> bytes:
        """Return the RLE of object `k`; empty bytes if it has a box only."""
        return self.rle_bytes[self.rle_ends[k] : self.rle_ends[k + 1]].tobytes()

    def rles(self) -> list[bytes]:
        """Return the RLE of every object, as `rle` does."""
        joined, ends = self.rle_bytes.tobytes(), self.rle_ends.tolist()
        return [joined[start:end] for start, end in pairwise(ends)]

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
        lengths = np.diff(self.rle_ends)[chosen]
        ends = np.zeros(len(chosen) + 1, dtype=np.int64)
        np.cumsum(lengths, out=ends[1:])
        pieces = [self.rle_bytes[self.rle_ends[k] : self.rle_ends[k + 1]] for k in chosen.tolist()]
        return replace(
            self,
            ids=self.ids[chosen],
            image_index=self.image_index[chosen],
            category_ids=self.category_ids[chosen],
            crowd=self.crowd[chosen],
            scores=self.scores[chosen],
            areas=self.areas[chosen],
            boxes=self.boxes[chosen],
            rle_bytes=np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint8),
            rle_ends=ends,
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
            return from_coco(read_json(path), str(path), folder)

    @staticmethod
    def read_split(data: Path, split: str) -> Dataset | None:
        """Read one split of a prepared data folder; `None` if the folder has no such split."""
        path = data / "annotations" / f"instances_{split}.json"
        return Dataset.read(path, data / split) if path.is_file() else None

    def write(self, path: Path) -> None:
        """Write COCO JSON: RLE segmentations, ids as they stand; the file appears whole or not at all."""
        with atomic_file(path) as handle:
            handle.write(json.dumps(self.coco(), ensure_ascii=False, separators=(",", ":")).encode())

    def coco(self) -> dict[str, Any]:
        """Return COCO's JSON object; every annotation of detections has a `score`."""
        return {
            "info": dict(self.info),
            "licenses": [dict(item) for item in self.licenses],
            "categories": [{"id": c.id, "name": c.name, "supercategory": ""} for c in self.categories],
            "images": [
                {"id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height} for i in self.images
            ],
            "annotations": [self._coco_annotation(k) for k in range(len(self))],
        }

    def _coco_annotation(self, k: int) -> dict[str, Any]:
        height, width = self.size_of(k)
        x1, y1, x2, y2 = (float(v) for v in self.boxes[k])
        rle = self.rle(k)
        result: dict[str, Any] = {
            "id": int(self.ids[k]),
            "image_id": self.images[int(self.image_index[k])].id,
            "category_id": int(self.category_ids[k]),
            "segmentation": {"size": [height, width], "counts": rle.decode("ascii")} if rle else [],
            "area": _whole(float(self.areas[k])),
            "bbox": [_whole(x1), _whole(y1), _whole(x2 - x1), _whole(y2 - y1)],
            "iscrowd": int(self.crowd[k]),
        }
        score = float(self.scores[k])
        if not np.isnan(score):
            result["score"] = score
        return result


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _repeats(items: Iterable[Any]) -> list[Any]:
    seen: set[int] = set()
    found = []
    for item in items:
        if item.id in seen:
            found.append(item)
        seen.add(item.id)
    return found


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


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's search for cyclic garbage: in the million small objects of a JSON file it finds none, slowly."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If it is absent or not JSON, with the line of the fault.
    """
    try:
        import orjson

        content = path.read_bytes()
        with collector_paused(), contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(content)
        with collector_paused():  # reads NaN and other encodings too, and names the line of a fault
            return json.loads(content)
    except FileNotFoundError:
        raise UserError("the file does not exist", [str(path)], "check the path") from None
    except (ValueError, RecursionError) as error:
        raise UserError("the file is not valid JSON", [f"{path}: {error}"], "write the file anew") from None
    except OSError as error:
        raise UserError("the file cannot be read", [f"{path}: {error.strerror}"], "check the path") from None


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
            image = Image(int(item["id"]), str(item["file_name"]), int(item["width"]), int(item["height"]))
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
            categories.append(Category(int(item["id"]), str(item["name"])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name}: categories[{number}]: {_reason(error)}")
    info = document.get("info")
    licenses = document.get("licenses")
    extras: dict[str, Any] = {
        "info": info if isinstance(info, dict) else {},
        "licenses": [item for item in licenses if isinstance(item, dict)] if isinstance(licenses, list) else (),
        "folder": folder,
    }
    rows = document.get("annotations") or []
    quick = None if problems else _in_bulk(rows, categories, images, extras)
    if quick is not None:
        return quick
    annotations = _row_by_row(rows, by_id, f"{name}: annotations", problems)
    return Dataset.build(categories, images, annotations, **extras)


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
    image = by_id.get(int(item["image_id"]))
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
        id=int(item.get("id", default_id)),
        image_id=image.id,
        category_id=int(item["category_id"]),
        rle=rle,
        crowd=bool(item.get("iscrowd", 0)),
        score=None if score is None else float(score),
        box=box,
        area=None if area is None or not np.isfinite(float(area)) else float(area),
    )


def rle_of(segmentation: Any, size: pixels.Size) -> bytes:
    """Turn any COCO `segmentation` into RLE at the photo's size.

    Raises:
        ValueError: If it is not a polygon list or an RLE of that size.
    """
    if isinstance(segmentation, list):
        polygons = []
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("a polygon needs at least three points, as [x1, y1, x2, y2, x3, y3, ...]")
            try:
                points = np.asarray(polygon, dtype=np.float64)
            except (TypeError, ValueError):
                raise ValueError("a polygon has a coordinate that is not a number") from None
            if not np.isfinite(points).all():
                raise ValueError("a polygon has a coordinate that is not a finite number")
            if np.abs(points).max() > 10 * max(size) + 1000:
                raise ValueError("a polygon lies far outside the photo")  # drawing it would take memory without end
            polygons.append(polygon)
        return pixels.from_polygons(polygons, size)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError("a segmentation is a list of polygons or an RLE with 'size' and 'counts'")
    stated = tuple(int(v) for v in segmentation.get("size", size))
    if stated != tuple(size):
        raise ValueError(f"the RLE's size (height, width) {stated} is not the photo's {tuple(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return pixels.from_counts(counts, size)
    rle = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    return pixels.checked(rle, size)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error)
