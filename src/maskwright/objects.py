"""What a dataset consists of: categories, photos and objects as values in COCO's words, and many photos in columns.

`dataset.py` gives all of these names on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels

SPLITS = ("train", "val", "test")
"""The splits of a dataset, in this order."""


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


class Images(Sequence[Image]):
    """Photos in a few arrays, each made as a value when it is asked for.

    A million photos then cost as much memory as their names, and worker processes share them: looking at a Python
    object writes its reference count, which gives the process a copy of the memory page around it.

    Args:
        ids: `(N,)` int64.
        widths: `(N,)` int32 in pixels.
        heights: `(N,)` int32 in pixels.
        names: uint8, all file names end to end.
        name_ends: `(N + 1,)` int64; name `i` is `names[name_ends[i]:name_ends[i + 1]]`.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        widths: NDArray[np.int32],
        heights: NDArray[np.int32],
        names: NDArray[np.uint8],
        name_ends: NDArray[np.int64],
    ) -> None:
        self.ids, self.widths, self.heights = ids, widths, heights
        self._names, self._name_ends = names, name_ends

    @staticmethod
    def of(ids: Sequence[int], file_names: Iterable[str], widths: Sequence[int], heights: Sequence[int]) -> Images:
        """Pack photos that are given in columns.

        Raises:
            OverflowError: If an id or size is too large for the arrays.
        """
        encoded = [name.encode("utf-8", "surrogatepass") for name in file_names]
        ends = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(name) for name in encoded], out=ends[1:])
        return Images(
            np.array(ids, dtype=np.int64),
            np.array(widths, dtype=np.int32),
            np.array(heights, dtype=np.int32),
            np.frombuffer(b"".join(encoded), dtype=np.uint8),
            ends,
        )

    @staticmethod
    def join(parts: Sequence[Images]) -> Images:
        """Put photos end to end."""
        before = np.cumsum([0] + [len(part._names) for part in parts])
        ends = [part._name_ends[1:] + start for part, start in zip(parts, before, strict=False)]
        return Images(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.widths for part in parts]),
            np.concatenate([part.heights for part in parts]),
            np.concatenate([part._names for part in parts]),
            np.concatenate([np.zeros(1, dtype=np.int64), *ends]),
        )

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Image, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Image | tuple[Image, ...]:
        """Return one photo, or those of a slice."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self))[index]  # counts from the end, and refuses what is out of range, as a tuple does
        name = self._names[self._name_ends[i] : self._name_ends[i + 1]].tobytes()
        return Image(int(self.ids[i]), name.decode("utf-8", "surrogatepass"), int(self.widths[i]), int(self.heights[i]))

    def __iter__(self) -> Iterator[Image]:
        """Yield every photo."""
        ends = self._name_ends.tolist()
        names = self._names.tobytes()
        columns = zip(self.ids.tolist(), self.widths.tolist(), self.heights.tolist(), strict=True)
        for i, (number, width, height) in enumerate(columns):
            yield Image(number, names[ends[i] : ends[i + 1]].decode("utf-8", "surrogatepass"), width, height)

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of photos."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        """Return the hash of the same photos as a tuple."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Show the first photo and the number of them."""
        return f"Images({len(self):,} photos{f', {self[0]!r} first' if len(self) else ''})"

    def sizes(self) -> list[pixels.Size]:
        """Return `(height, width)` of every photo."""
        return list(zip(self.heights.tolist(), self.widths.tolist(), strict=True))


def packed(images: Iterable[Image]) -> tuple[Image, ...] | Images:
    """Return photos as `Images`, or as a tuple if a number is too large for its arrays."""
    if isinstance(images, Images):
        return images
    items = tuple(images)
    try:
        return Images.of(
            [i.id for i in items], (i.file_name for i in items), [i.width for i in items], [i.height for i in items]
        )
    except OverflowError:
        return items


def coco_category(category: Category) -> dict[str, Any]:
    """Return a category as COCO writes it."""
    return {"id": category.id, "name": category.name, "supercategory": ""}


def coco_image(image: Image) -> dict[str, Any]:
    """Return a photo as COCO writes it."""
    return {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}


def coco_annotation(annotation: Annotation, size: pixels.Size) -> dict[str, Any]:
    """Return an object as COCO writes it; an area or box that is `None` is taken from the mask.

    Args:
        annotation: The object; it has a mask or a box.
        size: `(height, width)` of its photo.
    """
    rle, box, area = annotation.rle, annotation.box, annotation.area
    if rle and box is None:
        box = pixels.box(rle, size)
    if box is None:
        raise ValueError(f"annotation {annotation.id} has neither a mask nor a box")
    x1, y1, x2, y2 = box
    if area is None:
        area = pixels.area(rle, size) if rle else (x2 - x1) * (y2 - y1)
    result: dict[str, Any] = {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "segmentation": {"size": [int(size[0]), int(size[1])], "counts": rle.decode("ascii")} if rle else [],
        "area": _whole(area),
        "bbox": [_whole(x1), _whole(y1), _whole(x2 - x1), _whole(y2 - y1)],
        "iscrowd": int(annotation.crowd),
    }
    if annotation.score is not None:
        result["score"] = annotation.score
    return result


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value
