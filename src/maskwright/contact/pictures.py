"""Pictures of a contact sheet: a photo or a part of it as a small JPEG, with the outlines of objects as SVG paths."""

from __future__ import annotations

import base64
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.files import UnreadableImage, read_photo
from maskwright.report.outlines import box_path, outline

MOST_OUTLINES = 60
"""So many objects of one picture are outlined at most."""

COLOURS = 6
"""Categories take turns with so many colours."""

_QUALITY = 72
_LEAST_WINDOW_PX = 72
_HELD = 6

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Outline:
    """One object in a picture.

    Attributes:
        path: The `d` of an SVG path in shown pixels.
        colour: 0..5, by category.
        repeat: Whether it is held against the one before it: drawn dashed.
        crowd: Whether it stands for many.
    """

    path: str
    colour: int
    repeat: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        width, height: Of the picture as shown.
        alt: What it shows, in words.
        src: The JPEG as a data address; empty if there is none.
        why: Why there is none.
        outlines: The objects in it.
        coarse: Whether it is shown larger than it is, so that its pixels should be seen.
        more: How many objects are not outlined, being too many.
    """

    width: int
    height: int
    alt: str
    src: str = ""
    why: str = ""
    outlines: tuple[Outline, ...] = ()
    coarse: bool = False
    more: int = 0

    @property
    def cost(self) -> int:
        """Bytes that it takes in the page, roughly."""
        return len(self.src) + sum(len(o.path) * 2 + 100 for o in self.outlines) + 400


class Pictures:
    """Takes pictures of the photos of one data folder; the last few photos stay in memory.

    Args:
        splits: What could be read, by split name.
        colours: 0..5 by category name.
    """

    def __init__(self, splits: dict[str, Dataset], colours: dict[str, int]) -> None:
        self.splits = splits
        self.colours = colours
        self._index = {
            split: {image.file_name: i for i, image in reversed(list(enumerate(d.images)))}
            for split, d in splits.items()
        }
        self._held: OrderedDict[Path, NDArray[np.uint8] | str] = OrderedDict()

    def position(self, split: str, photo: str) -> int | None:
        """Return where a photo stands in its split; `None` if it is not there."""
        return self._index.get(split, {}).get(photo)

    def objects(self, split: str, photo: str, ids: Sequence[int] = ()) -> list[int]:
        """Return the objects of these ids in a photo, in that order; all of them if no ids are given."""
        i, d = self.position(split, photo), self.splits.get(split)
        if i is None or d is None:
            return []
        first = d.first
        ks = list(range(int(first[i]), int(first[i + 1])))
        if not ids:
            return ks
        by_id: dict[int, list[int]] = {}
        for k in ks:
            by_id.setdefault(int(d.ids[k]), []).append(k)
        return [k for n in dict.fromkeys(ids) for k in by_id.get(n, ())]

    def names(self, split: str, ks: Sequence[int]) -> str:
        """Return what the objects are, such as `hammer (2), nut`."""
        d = self.splits[split]
        known = {c.id: c.name for c in d.categories}
        count: dict[str, int] = {}
        for k in ks:
            name = known[int(d.category_ids[k])]
            count[name] = count.get(name, 0) + 1
        return ", ".join(name if n == 1 else f"{name} ({n:,})" for name, n in count.items())

    def take(
        self, split: str, photo: str, ks: Sequence[int], side: int, *, crop: bool = False, beside: bool = False
    ) -> Picture:
        """Take a picture of a photo.

        Args:
            split: Of the photo.
            photo: Its file name.
            ks: Objects to outline.
            side: Longer side of the picture in pixels, at most.
            crop: Show the part around the objects, with a margin, unless that is most of the photo.
            beside: Every second object is held against the one before it.
        """
        d = self.splits.get(split)
        i = self.position(split, photo)
        what = f"{split}/{photo}"
        if d is None or i is None:
            return Picture(side, side * 3 // 4, what, why="is not in the annotation file")
        image = d.images[i]
        found = self._photo(d, i)
        if isinstance(found, str):
            scale = side / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            return Picture(*size, f"{what}: the photo {found}", why=found)
        height, width = found.shape[:2]
        fits = (height, width) == image.size
        window = (0, 0, width, height)
        if crop and fits and ks:
            window = _around(self._boxes(d, ks), image.size)
        x1, y1, x2, y2 = window
        scale = min(1.0, side / max(x2 - x1, y2 - y1))
        shown = max(1, round((y2 - y1) * scale)), max(1, round((x2 - x1) * scale))
        outlines: list[Outline] = []
        if fits:
            known = {c.id: c.name for c in d.categories}
            for n, k in enumerate(ks[:MOST_OUTLINES]):
                path = _path(d, k, window, shown)
                colour = self.colours.get(known[int(d.category_ids[k])], 0)
                if path:
                    outlines.append(Outline(path, colour, beside and n % 2 == 1, bool(d.crowd[k])))
        drawn = self.names(split, ks) or "no object"
        part = "" if window == (0, 0, width, height) else ", a part of the photo"
        return Picture(
            shown[1],
            shown[0],
            f"{what}{part}: {drawn}" + ("" if fits else "; it is of another size than its masks"),
            src=_jpeg(found[y1:y2, x1:x2], shown),
            outlines=tuple(outlines),
            coarse=max(shown) < side // 2,
            more=max(0, len(ks) - MOST_OUTLINES) if fits else 0,
        )

    def _photo(self, d: Dataset, i: int) -> NDArray[np.uint8] | str:
        """Return a photo, or why it cannot be shown."""
        try:
            path = d.photo_path(d.images[i])
        except UserError:
            return "has a name that leads out of the data folder"
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        found: NDArray[np.uint8] | str
        try:
            found = read_photo(path) if path.is_file() else "does not exist"
        except UnreadableImage as error:
            found = str(error)
        except (OSError, ValueError):
            found = "cannot be opened"
        self._held[path] = found
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return found

    @staticmethod
    def _boxes(d: Dataset, ks: Sequence[int]) -> list[tuple[float, float, float, float]]:
        boxes = []
        for k in ks:
            rle = d.rle(k)
            x1, y1, x2, y2 = pixels.box(rle, d.size_of(k)) if rle else d.boxes[k].tolist()
            if x2 > x1 and y2 > y1:
                boxes.append((x1, y1, x2, y2))
        return boxes


def _around(boxes: Sequence[tuple[float, float, float, float]], size: pixels.Size) -> Window:
    """Return a window of 4 by 3 around boxes where the photo has room, or the whole photo if that is not much more."""
    height, width = size
    if not boxes:
        return 0, 0, width, height
    x1, y1 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x2, y2 = max(b[2] for b in boxes), max(b[3] for b in boxes)
    margin = max(0.25 * max(x2 - x1, y2 - y1), 16)
    wide, high = max(x2 - x1 + 2 * margin, _LEAST_WINDOW_PX), max(y2 - y1 + 2 * margin, _LEAST_WINDOW_PX * 3 / 4)
    wide, high = min(max(wide, high * 4 / 3), width), min(max(high, wide * 3 / 4), height)
    if wide * high > 0.75 * width * height:
        return 0, 0, width, height
    left = int(min(max((x1 + x2 - wide) / 2, 0), width - wide))
    top = int(min(max((y1 + y2 - high) / 2, 0), height - high))
    return left, top, left + max(1, int(wide)), top + max(1, int(high))


def _path(d: Dataset, k: int, window: Window, shown: pixels.Size) -> str:
    rle, size = d.rle(k), d.size_of(k)
    x1, y1, x2, y2 = window
    if rle:
        return outline(pixels.crop(rle, size, window), shown)
    box = [float(v) for v in d.boxes[k]]
    moved = [box[0] - x1, box[1] - y1, box[2] - x1, box[3] - y1]
    return box_path(moved, (y2 - y1, x2 - x1), shown)


def _jpeg(photo: NDArray[np.uint8], shown: pixels.Size) -> str:
    picture = PillowImage.fromarray(np.ascontiguousarray(photo))
    if picture.size != (shown[1], shown[0]):
        picture = picture.resize((shown[1], shown[0]), PillowImage.Resampling.LANCZOS, reducing_gap=2)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
