"""Detections: what a segmenter found in a photo, and how its small masks become masks of the photo's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskwright import pixels
from maskwright.batches import DECODED, Frame
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.files import UnreadableImage, read_photo, read_reduced
from maskwright.flips import detect_twice
from maskwright.formats import plural
from maskwright.framing import frame_for
from maskwright.models import Segmenter
from maskwright.pasting import paste_grid, paste_padded

if TYPE_CHECKING:
    from PIL import Image as PillowImage

LEAST_SCORE = 0.02
"""Detections below it are dropped at once: they are noise, and COCO's AP gains nothing from them."""

MOST_NAMED = 5
"""So many categories are named where detections are told in one line."""


@dataclass(frozen=True)
class Detections:
    """What a segmenter found in one photo, best score first.

    Attributes:
        rles: COCO compressed counts at the photo's size.
        boxes: `(N, 4)` float64 `x1 y1 x2 y2` in pixels of the photo, end exclusive.
        scores: `(N,)` float64, 0..1.
        categories: The category's name of each.
        size: `(height, width)` of the photo, upright.
        photo: `(H, W, 3)` uint8 RGB, if it is kept for `show`.
    """

    rles: tuple[bytes, ...]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    categories: tuple[str, ...]
    size: tuple[int, int]
    photo: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Count the detections."""
        return len(self.rles)

    def __repr__(self) -> str:
        """Say in one line how many there are of what, and how wide and high the photo is."""
        counts = Counter(self.categories).most_common()
        shown = ", ".join(f"{name} {count}" for name, count in counts[:MOST_NAMED])
        more = f", {len(counts) - MOST_NAMED} more categories" if len(counts) > MOST_NAMED else ""
        objects = f"{plural(len(self), 'object')}: {shown}{more}" if counts else "no objects"
        return f"Detections({objects}; {self.size[1]}x{self.size[0]})"

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """`(N, H, W)` bool at the photo's size."""
        found = [pixels.decode(rle, self.size) for rle in self.rles]
        return np.stack(found) if found else np.zeros((0, *self.size), dtype=np.bool_)

    def above(self, score: float) -> Detections:
        """Return those with at least this score."""
        keep = np.flatnonzero(self.scores >= score)
        return Detections(
            rles=tuple(self.rles[i] for i in keep),
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            categories=tuple(self.categories[i] for i in keep),
            size=self.size,
            photo=self.photo,
        )

    def picture(self) -> NDArray[np.uint8]:
        """Draw the masks over the photo (over grey, if it was not kept): `(H, W, 3)` uint8 RGB."""
        canvas = np.full((*self.size, 3), 128, dtype=np.uint8) if self.photo is None else self.photo.copy()
        names = sorted(set(self.categories))
        for mask, name in zip(self.masks, self.categories, strict=True):
            colour = np.array(COLOURS[names.index(name) % len(COLOURS)], dtype=np.float64)
            canvas[mask] = (0.5 * canvas[mask] + 0.5 * colour).astype(np.uint8)
            inner = mask.copy()
            inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
            inner[0], inner[-1], inner[:, 0], inner[:, -1] = False, False, False, False
            canvas[mask & ~inner] = colour.astype(np.uint8)
        return canvas

    def show(self) -> None:
        """Open a window (or a notebook cell) with the photo, its masks, categories and scores.

        Raises:
            UserError: If there is neither.
        """
        import matplotlib.pyplot as plt
        from matplotlib import backends

        # A notebook has a backend of its own; where there is no display matplotlib takes one that writes files, and its
        # `show` does nothing and says nothing.
        backend, known = plt.get_backend(), cast(Any, backends)  # which has no types
        if backend.lower() in known.backend_registry.list_builtin(known.BackendFilter.NON_INTERACTIVE):
            raise _no_display(f"matplotlib's backend here is {backend}, which opens no window")
        try:
            figure, axes = plt.subplots(figsize=(8, 8 * self.size[0] / self.size[1]))
        except ImportError as error:  # a backend that was chosen, and has nowhere to open a window
            raise _no_display(str(error)) from None
        axes.imshow(self.picture())
        for (x1, y1, _, _), name, score in zip(self.boxes, self.categories, self.scores, strict=True):
            axes.text(x1, y1, f"{name} {score:.2f}", color="white", backgroundcolor=(0, 0, 0, 0.6), fontsize=8)
        axes.set_axis_off()
        figure.tight_layout()
        plt.show()

    def save(self, path: str | Path) -> Path:
        """Save as a picture: one 0/255 mask image of all objects together, or, with the suffix `.jpg`, the drawn photo.

        Args:
            path: A `.png` for the mask image, a `.jpg` for the photo with its masks drawn; replaced if it exists.

        Raises:
            UserError: If the suffix is another.
        """
        from PIL import Image as Pillow

        from maskwright.files import atomic_file

        path = Path(path)
        kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
        if path.suffix.lower() not in kinds:
            raise UserError(
                "detections are saved as .png (mask) or .jpg (drawn photo)", [str(path)], "give such a name"
            )
        picture: PillowImage.Image
        if path.suffix.lower() == ".png":
            picture = Pillow.fromarray(self.masks.any(0).astype(np.uint8) * 255)
        else:
            picture = Pillow.fromarray(self.picture())
        with atomic_file(path) as handle:
            picture.save(handle, kinds[path.suffix.lower()])
        return path


def _no_display(why: str) -> UserError:
    return UserError("there is no display to show the photo on", [why], "save it, and open the file: save('found.jpg')")


# Okabe and Ito's colours, told apart by colour-blind eyes too.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178))


MOST_SCALED = 1 << 18
"""Pixels of a mask that are in floating point at a time."""


def paste(mask: Tensor, window: Sequence[float], frame: Frame) -> bytes:
    """Scale one predicted mask to its photo and encode it.

    Args:
        mask: `(S, S)` probabilities over the window, cell centres at .5.
        window: `x1 y1 x2 y2` in pixels of the network's input; it may reach outside.
        frame: How the photo was put before the network.

    Returns:
        RLE at the photo's size, object where the probability (bilinear between cells) is at least one half.
    """
    height, width = frame.size
    sy, sx = height / frame.inner[0], width / frame.inner[1]
    x1, y1, x2, y2 = window[0] * sx, window[1] * sy, window[2] * sx, window[3] * sy
    # The pixels whose centres lie in the window.
    left, top = max(int(np.ceil(x1 - 0.5)), 0), max(int(np.ceil(y1 - 0.5)), 0)
    right, bottom = min(int(np.ceil(x2 - 0.5)), width), min(int(np.ceil(y2 - 0.5)), height)
    if right <= left or bottom <= top:
        return pixels.encode_window(np.zeros((1, 1), dtype=np.bool_), 0, 0, frame.size)
    # Between cell centres the value is linear in both directions, so that scaling is two products of matrices; the
    # result is never whole in floating point.
    down = _shares(top, bottom, y1, y2, mask.shape[0]) @ mask.float()
    along = _shares(left, right, x1, x2, mask.shape[1]).T
    found = np.empty((bottom - top, right - left), dtype=np.bool_)
    step = max(1, MOST_SCALED // (right - left))
    for first in range(0, bottom - top, step):
        torch.ge(down[first : first + step] @ along, 0.5, out=torch.from_numpy(found[first : first + step]))
    return pixels.encode_window(found, left, top, frame.size)


def _shares(first: int, end: int, low: float, high: float, cells: int) -> Tensor:
    """Return `(end - first, cells)`: how much the pixels take of each of the cells between `low` and `high`."""
    place = (torch.arange(first, end, dtype=torch.float64) + 0.5 - low) / (high - low) * cells - 0.5
    # Within half a cell of the window's edge there is no second cell to mix with: the outermost cell's value holds.
    place = place.clamp(0, cells - 1)
    lower = place.floor().clamp(max=max(cells - 2, 0))
    share = (place - lower)[:, None]
    at = lower.long()[:, None]
    shares = torch.zeros(end - first, cells, dtype=torch.float64).scatter_(1, at, 1 - share)
    return shares.scatter_add_(1, (at + 1).clamp(max=cells - 1), share).float()


def put_back(found: dict[str, Tensor], frame: Frame, how: str) -> tuple[NDArray[np.float64], list[bytes]]:
    """Return the boxes and masks of a photo in its own pixels.

    Args:
        found: What the network detected.
        frame: How the photo was put before the network.
        how: `Conventions.paste`.

    Returns:
        Boxes `(N, 4)`, and RLEs at the photo's size.
    """
    height, width = frame.size
    if how == "cell":
        scale = np.array([width / frame.inner[1], height / frame.inner[0]] * 2)
        rles = [paste(m, w, frame) for m, w in zip(found["masks"], found["windows"].tolist(), strict=True)]
        return found["boxes"].double().numpy() * scale, rles
    # In 32 bits, as those do whose arithmetic this is: where a box ends on a pixel, the last bit decides.
    new, old = torch.tensor([width, height] * 2).float(), torch.tensor([*frame.inner[::-1]] * 2).float()
    windows = found["windows"].float() * (new / old)
    put = paste_padded if how == "padded" else paste_grid
    rles = [put(m, w, frame.size) for m, w in zip(found["masks"].float(), windows, strict=True)]
    return (found["boxes"].float() * (new / old)).double().numpy(), rles


@torch.inference_mode()
def detect_photo(
    network: Segmenter,
    photo: NDArray[np.uint8],
    side: int,
    names: Sequence[str],
    least_score: float = LEAST_SCORE,
    short_side: int | None = None,
    size: tuple[int, int] | None = None,
    test_time_flip: bool = False,
) -> Detections:
    """Find the objects of one photo.

    Args:
        network: In evaluation mode.
        photo: `(H, W, 3)` uint8 RGB; it may have been decoded at a reduced scale.
        side: Longer side of the network's input in pixels.
        names: Category names, in order of label 1..C.
        least_score: Detections below it are dropped.
        short_side: Shorter side of the network's input in pixels, if `side` leaves room for it.
        size: `(height, width)` of the photo, if what is given was reduced.
        test_time_flip: Look at the photo mirrored too, and merge what is found.
    """
    framed = frame_for(network, photo, side, short_side, size)
    frame = framed.frame
    device = next(iter(network.parameters())).device
    images = framed.image[None].to(device)
    if getattr(network, "conventions", None) is None:
        images = images.contiguous(memory_format=torch.channels_last)
    more = {"normalised": True} if framed.normalised else {}
    if test_time_flip:
        # What one view doubts the other may be sure of: only what both say together is held against the score.
        found = detect_twice(network, images[0], frame.inner, min(least_score, LEAST_SCORE), **more)
        sure = found["scores"].double() >= least_score
        found = {k: v[sure] for k, v in found.items()}
    else:
        found = {k: v.cpu() for k, v in network.detect(images, [frame.inner], least_score, **more)[0].items()}
    boxes, rles = put_back(found, frame, getattr(getattr(network, "conventions", None), "paste", "cell"))
    # A mask without a pixel is not an object, whatever its box scored.
    keep = [i for i, rle in enumerate(rles) if pixels.area(rle, frame.size) > 0]
    return Detections(
        rles=tuple(rles[i] for i in keep),
        boxes=boxes[keep],
        scores=found["scores"].double().numpy()[keep],
        categories=tuple(names[int(found["labels"][i]) - 1] for i in keep),
        size=frame.size,
        photo=photo if size is None else None,
    )


def detect_photos(
    network: Segmenter,
    photos: Iterable[tuple[Image, Path]],
    side: int,
    categories: Sequence[Category],
    least_score: float = LEAST_SCORE,
    tick: Callable[[], None] | None = None,
    info: dict[str, Any] | None = None,
    short_side: int | None = None,
    test_time_flip: bool = False,
) -> Dataset:
    """Find the objects of many photos.

    Args:
        network: In evaluation mode.
        photos: Each photo's entry and its file.
        side: Longer side of the network's input in pixels.
        categories: In order of label 1..C.
        least_score: Detections below it are dropped.
        tick: Called after each photo.
        info: COCO's `info` of the result.
        short_side: Shorter side of the network's input in pixels, if `side` leaves room for it.
        test_time_flip: Look at each photo mirrored too, and merge what is found.

    Raises:
        UserError: If a photo cannot be read, or has not the size of its entry.
    """
    # Another framework's way of scaling begins with every pixel.
    how = getattr(network, "conventions", None)
    smooth = how is None or how.resample == "smooth"
    names = [c.name for c in categories]
    ids = {c.name: c.id for c in categories}
    images: list[Image] = []

    def annotations() -> Iterator[Annotation]:
        number = 0
        for image, path in photos:
            try:
                if smooth:
                    photo, size = read_reduced(path, DECODED * side)
                else:
                    photo = read_photo(path)
                    size = (photo.shape[0], photo.shape[1])
            except UnreadableImage as error:
                raise UserError("a photo cannot be read", [f"{path} {error}"], "replace or remove it") from None
            if size != image.size:
                raise UserError(
                    "a photo's size is not the one its dataset states",
                    [f"{path} is {size[1]} x {size[0]}, stated {image.width} x {image.height}"],
                    "prepare the data again",
                )
            stated = size if smooth else None
            found = detect_photo(network, photo, side, names, least_score, short_side, stated, test_time_flip)
            images.append(image)
            for rle, box, score, name in zip(found.rles, found.boxes, found.scores, found.categories, strict=True):
                number += 1
                x1, y1, x2, y2 = (float(v) for v in box)
                yield Annotation(number, image.id, ids[name], rle, score=float(score), box=(x1, y1, x2, y2))
            if tick:
                tick()

    found = list(annotations())
    return Dataset.build(categories, images, found, info=info)
