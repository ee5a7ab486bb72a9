"""Mask images whose values are objects or classes: read as one plane beside their photo, and painted for writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import Problem
from maskwright.files import UnreadableImage, read_raw
from maskwright.formats import both_sizes, plural, some, wrong_frame
from maskwright.formats.photos import Sight
from maskwright.pixels import Size
from maskwright.settings import MaskFrame

Plane = NDArray[Any]

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Item:
    """A photo and the mask images that belong to it.

    Attributes:
        photo: The file.
        masks: Its mask images; empty for a photo without objects.
        name: The photo's path inside the photo folder, `/` between the parts.
        split: The split that it already is in; `None`: to be decided.
        place: What tells photo folders apart where several hold equal names.
    """

    photo: Path
    masks: tuple[Path, ...]
    name: str
    split: str | None = None
    place: str = ""


def pack(colours: Plane) -> NDArray[np.int32]:
    """Return `(..., 3)` uint8 colours as single numbers, red * 65536 + green * 256 + blue."""
    wide = colours.astype(np.int32)
    packed: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def hex_colour(packed: int) -> str:
    """Write a packed colour as people do.

    Example:
        >>> hex_colour(0xFF8000)
        '#ff8000'
    """
    return f"#{packed:06x}"


def read_plane(path: Path) -> tuple[Plane, Plane | None]:
    """Read a mask image as whole numbers.

    Returns:
        `(H, W)` unsigned integers: palette indices, grey values or packed colours; and `(N, 3)` uint8, the palette of a
        palette image, or `(0, 3)` where the numbers are packed colours, or `None` where they are grey values.

    Raises:
        UnreadableImage: If it cannot be read, or holds what no such mask holds (fractions, negative numbers).
    """
    array, image = read_raw(path)
    mode = image.mode
    if mode == "1":
        return array.view(np.uint8), None
    if mode == "L":
        return array, None
    if mode == "P":
        table = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        return array, table
    if mode.startswith("I") or mode == "F":
        if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
            raise UnreadableImage("holds fractions, which no such mask has")
        if array.size and array.min() < 0:
            raise UnreadableImage("holds negative values, which no such mask has")
        return array.astype(np.uint16 if array.max(initial=0) < 65536 else np.int64), None
    if mode in {"LA", "La"}:
        return np.ascontiguousarray(np.asarray(image.convert("LA"))[:, :, 0]), None
    if mode in {"PA", "RGBA", "RGBa"}:
        seen = np.asarray(image.convert("RGBA"))
        return pack(seen[:, :, :3] * (seen[:, :, 3:] > 0)), np.zeros((0, 3), dtype=np.uint8)
    return pack(np.asarray(image.convert("RGB"))), np.zeros((0, 3), dtype=np.uint8)


def same_shape(a: Size, b: Size) -> bool:
    """Tell whether two sizes have the same aspect, up to 2 % or the rounding to whole pixels."""
    ratio = (a[0] * b[1]) / max(a[1] * b[0], 1)
    slack = max(0.02, 1.5 / max(min(a), 1), 1.5 / max(min(b), 1))
    return 1 - slack <= ratio <= 1 + slack


def scaled(plane: Plane, size: Size) -> Plane:
    """Scale a plane to `(height, width)`, nearest neighbour: values are numbers, not shades."""
    if plane.shape[:2] == size:
        return plane
    rows = (np.arange(size[0]) * 2 + 1) * plane.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * plane.shape[1] // (2 * size[1])
    result: Plane = plane[rows[:, None], columns[None, :]]
    return result


def may_scale(size: Size, photo: Sight) -> bool:
    """Tell whether a mask of another size is just smaller or larger than its photo, not turned or cut."""
    return size != photo.other and same_shape(size, photo.size)


def mask_problems(
    looked: Iterable[tuple[str, Size | None, str, Sight]], *, resize: bool, fix: str = ""
) -> list[Problem]:
    """Return what is wrong with photos and the sizes of their masks.

    Args:
        looked: For each mask image how messages call it, its `(height, width)` (`None`: there is none, or it cannot be
            read), why it cannot be read (or empty), and what its photo is.
        resize: Masks may be smaller or larger than their photo.
        fix: What to do about mask images that cannot be read; empty: replace or remove them.
    """
    bad: list[str] = []
    turned: dict[MaskFrame, list[str]] = defaultdict(list)
    shaped, sized = [], []
    for name, size, fault, photo in looked:
        if photo.fault:
            bad.append(f"{photo.path}: {photo.fault}")
        if fault:
            bad.append(f"{name}: {fault}")
        if photo.fault or size is None or size == photo.size:
            continue
        line = f"{name} is {_text(size)}, {photo.path} is"
        if size == photo.other:
            turned[photo.frame].append(f"{line} {both_sizes(photo.size, size, photo.orientation, photo.frame)}")
        elif not same_shape(size, photo.size):
            shaped.append(f"{line} {_text(photo.size)}")
        elif not resize:
            sized.append(f"{line} {_text(photo.size)}")
    problems = []
    if bad:
        fix = fix or "replace these files, or remove them together with their mask or photo"
        once = tuple(dict.fromkeys(bad))
        problems.append(Problem(f"{plural(len(once), 'picture file')} cannot be read", once, fix))
    for frame, lines in turned.items():
        what = f"{plural(len(lines), 'mask image')} {'fits' if len(lines) == 1 else 'fit'} the photo"
        problems.append(wrong_frame(what, lines, frame))
    if shaped:
        what = f"{plural(len(shaped), 'mask image')} {'has' if len(shaped) == 1 else 'have'} another shape than the"
        problems.append(
            Problem(
                f"{what} photo",
                tuple(shaped),
                "check that photo and mask belong together, and export the mask at the photo's size",
            )
        )
    if sized:
        one = "1 mask image differs in size from its photo"
        problems.append(
            Problem(
                one if len(sized) == 1 else f"{len(sized):,} mask images differ in size from their photo",
                tuple(sized),
                "export the masks at full size, or scale them: --resize-masks",
            )
        )
    return problems


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def named_folder(place: Path, name: str | None) -> Path | None:
    """Return the folder that the user named, by its path or by its name inside `place`, if there is one."""
    if name is None:
        return None
    return next((folder for folder in (Path(name), place / name) if folder.is_dir()), None)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Losses:
    """Counts what an image with one value per pixel cannot hold.

    Attributes:
        shared: Pixels of several objects.
        cut: Objects that lose pixels to others on top of them.
        worst: The lowest IoU of such an object with what is drawn of it, and its photo.
        hidden: The photos of objects of which nothing is left, one per object.
        boxes: Objects with a box only.
    """

    shared: int = 0
    cut: int = 0
    worst: tuple[float, str] = (1.0, "")
    hidden: list[str] = field(default_factory=list)
    boxes: int = 0

    def notes(self) -> list[str]:
        """Return it in words."""
        notes = []
        if self.shared:
            lowest = f"; lowest IoU {self.worst[0]:.3f}, in {self.worst[1]}" if self.cut else ""
            notes.append(
                f"{plural(self.shared, 'pixel')} {'belongs' if self.shared == 1 else 'belong'} to several objects, and"
                " this form holds one object per pixel: the"
                f" smaller one is drawn on top; {plural(self.cut, 'object')} lost pixels{lowest}"
            )
        if self.hidden:
            notes.append(
                f"{plural(len(self.hidden), 'object')} wholly hidden by others: not in the images"
                f" ({some(dict.fromkeys(self.hidden))})"
            )
        if self.boxes:
            notes.append(f"{plural(self.boxes, 'object')} with a box but no mask: not in the images")
        return notes


def drawn(dataset: Dataset, losses: Losses) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each photo's position and those of its objects that have a mask with pixels; counts the others."""
    first = dataset.first
    ends = np.diff(dataset.rle_ends)
    for i, image in enumerate(dataset.images):
        objects = np.arange(first[i], first[i + 1])
        losses.boxes += int((ends[objects] == 0).sum())
        kept = [k for k in objects.tolist() if ends[k] and pixels.area(dataset.rle(k), image.size)]
        yield i, np.array(kept, dtype=np.int64)


def paint(dataset: Dataset, position: int, objects: NDArray[np.int64], losses: Losses) -> NDArray[np.int32]:
    """Draw the n-th of some objects of a photo as value n, from 1; 0 is ground.

    What lies on top: a higher score, then the smaller object; crowds lie under all.

    Returns:
        `(H, W)` int32.
    """
    image = dataset.images[position]
    values = np.zeros(image.size, dtype=np.int32)
    count = np.zeros(image.size, dtype=np.uint16)
    rles = [dataset.rle(k) for k in objects.tolist()]
    areas = np.array([pixels.area(rle, image.size) for rle in rles])
    scores = np.nan_to_num(dataset.scores[objects], nan=-1.0)
    for n in np.lexsort((-areas, scores, ~dataset.crowd[objects])).tolist():
        x1, y1, x2, y2 = (int(v) for v in pixels.box(rles[n], image.size))
        mask = pixels.crop(rles[n], image.size, (x1, y1, x2, y2))
        values[y1:y2, x1:x2][mask] = n + 1
        count[y1:y2, x1:x2] += mask
    losses.shared += int((count > 1).sum())
    visible = np.bincount(values.ravel(), minlength=len(objects) + 1)[1:]
    crowds = dataset.crowd[objects].tolist()
    for seen, area, crowd in zip(visible.tolist(), areas.tolist(), crowds, strict=True):
        if seen == area or crowd:
            continue
        if seen:
            losses.cut += 1
            losses.worst = min(losses.worst, (seen / area, image.file_name))
        else:
            losses.hidden.append(image.file_name)
    return values


def save_png(plane: Plane, path: Path, palette: Plane | None = None) -> None:
    """Save a mask image.

    Args:
        plane: `(H, W)` uint8 or uint16, or `(H, W, 3)` uint8.
        path: Where; its folder is made.
        palette: `(256, 3)` uint8: save a palette image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PillowImage.fromarray(plane)
    if palette is not None:
        image.putpalette(np.ascontiguousarray(palette, dtype=np.uint8).tobytes())
    image.save(path)
