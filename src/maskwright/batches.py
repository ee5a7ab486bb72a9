"""Dataset -> tensors: decoding, augmentation that respects masks, batches. Photos are resized here only.

A photo and its masks go through one affine map (zoom, turn, mirror, shift) from the cached photo to the network's
canvas, so they cannot come apart. Every random choice follows from `(seed, step, slot)`: a batch is the same whatever
was drawn before it, which is what makes an exact resume possible.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from maskwright import pixels, rarity
from maskwright.canvas import Cached, Placed, over_photo, paste, place, warp
from maskwright.crops import pack
from maskwright.dataset import Dataset
from maskwright.errors import UserError
from maskwright.files import UnreadableImage, read_reduced
from maskwright.settings import TrainSettings

FILL = 127
"""Grey level outside the photo; the network sees it as zero."""

MEAN_FILL = (124, 116, 104)
"""The same for stock networks: ImageNet's mean colour."""

MULTIPLE = 32
"""Heights and widths that the network sees are multiples of its coarsest stride."""

UNREADABLE_SHARE = 0.05
"""Of the photos, so many (and one in any case) may turn out unreadable in the middle of a training."""

DECODED = 2
"""A large JPEG is decoded at a reduced scale, with at least so many times the pixels of the side that is wanted."""


@dataclass(frozen=True)
class Augmentation:
    """Which random changes a training photo goes through.

    Args:
        flip: Mirror left-right, half of the time.
        turn: Turn by any angle; otherwise only by a few degrees.
        tilt_degrees: The few degrees.
        scale_jitter: Zoom in or out by up to this factor, evenly on a log scale.
        colour_jitter: 0..1, strength of random brightness, contrast and saturation; at 0.5 a tenth become grey.
        copy_paste: 0..1, share of the photos over which objects of another photo are pasted.
    """

    flip: bool = True
    turn: bool = False
    tilt_degrees: float = 8.0
    scale_jitter: float = 1.5
    colour_jitter: float = 0.4
    copy_paste: float = 0.0

    @staticmethod
    def of(settings: TrainSettings) -> Augmentation:
        """Return that of a plan's settings; photos that keep their own shape are not tilted."""
        return Augmentation(
            flip=bool(settings.flip),
            turn=bool(settings.turn),
            tilt_degrees=8.0 if settings.short_side is None else 0.0,
            scale_jitter=cast(float, settings.scale_jitter),
            colour_jitter=cast(float, settings.colour_jitter),
            copy_paste=settings.copy_paste or 0.0,  # plans of older runs have none
        )


NO_AUGMENTATION = Augmentation(flip=False, turn=False, tilt_degrees=0.0, scale_jitter=1.0, colour_jitter=0.0)


@dataclass(frozen=True)
class Sample:
    """One photo as the network sees it.

    Attributes:
        image: `(3, H, W)` uint8 RGB.
        boxes: `(N, 4)` float32 `x1 y1 x2 y2` in pixels of `image`, tight around the masks.
        labels: `(N,)` int64, 1..C.
        masks: `(N, H, W)` uint8 0/1.
        photo: Position in `Dataset.images`.
        objects: `(N,)` positions of the objects in the dataset's columns; pasted ones, of another photo, come last.
        seed: Of the random choices that the network makes about it.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor
    photo: int
    objects: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Samples of one size.

    Attributes:
        images: `(B, 3, H, W)` uint8 RGB.
        targets: As `maskwright.models.maskrcnn.Target`, one per photo.
        photos: Positions in `Dataset.images`.
        objects: Per photo, positions of its objects in the dataset's columns.
        seeds: Per photo, of the random choices that the network makes about it.
    """

    images: Tensor
    targets: list[dict[str, Tensor]]
    photos: tuple[int, ...]
    objects: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...] = ()


class UnreadablePhotoError(UserError):
    """A photo cannot be read."""


class Photos:
    """Training samples of a dataset, decoded once and kept at working size where memory allows.

    Args:
        dataset: Truth, with a photo folder.
        canvas: `(height, width)` of the network's input, multiples of 32.
        augmentation: Which random changes to make.
        seed: Of all random choices.
        memory_mb: How much decoded photos may take; those beyond are decoded anew each time.
        sides: If given, every photo keeps its shape, scaled by `kept_shape`, in the upper left corner of a frame of
            its own, padded to multiples of 32; the canvas is not used then.
        repeat_rare: Photos of a category that a smaller share of the photos holds come more often; 0: none does.

    Attributes:
        factors: `(photos,)`, how often each comes in an epoch; `None`: all once.
        left_out: Photos (positions) that `make_batch` takes others for.
        unreadable: Of these, those that could not be read, and why.

    Raises:
        UserError: From `sample`, if a photo cannot be read; it names the file.
    """

    def __init__(
        self,
        dataset: Dataset,
        canvas: tuple[int, int],
        augmentation: Augmentation,
        seed: int,
        memory_mb: float = 2000,
        sides: tuple[int, int] | None = None,
        repeat_rare: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.factors = rarity.factors(dataset, repeat_rare) if repeat_rare else None
        self.canvas = canvas
        self.augmentation = augmentation
        self.seed = seed
        self.first = dataset.first
        self.label_of = {c.id: i + 1 for i, c in enumerate(dataset.categories)}
        # Room to zoom in before the cached photo gets blurred; more would cost memory and time for detail never seen.
        self.sides = sides
        self.room_to_zoom = min(augmentation.scale_jitter, 1.25)
        self.cache_side = round((max(canvas) if sides is None else sides[1]) * self.room_to_zoom)
        self.room = int(memory_mb * 1e6 / (self.cache_side**2 * 3))
        self.cache: dict[int, Cached] = {}
        self.left_out: set[int] = set()
        self.unreadable: dict[int, str] = {}
        solid = ~dataset.crowd & dataset.has_mask
        self.givers = np.unique(dataset.image_index[solid]) if augmentation.copy_paste else np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.dataset.images)

    def fill_cache(self, threads: int) -> None:
        """Decode what fits in memory and is not left out, before the first step."""
        chosen = [index for index in range(min(len(self), self.room)) if index not in self.left_out]
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            for index, item in zip(chosen, pool.map(self._decode, chosen), strict=True):
                self.cache[index] = item

    def _decode(self, index: int) -> Cached:
        image = self.dataset.images[index]
        path = self.dataset.photo_path(image)
        try:
            photo, size = read_reduced(path, DECODED * self.cache_side)
        except UnreadableImage as error:
            raise UnreadablePhotoError(
                "a photo cannot be read", [f"{path} {error}"], "replace or remove it, then prepare again"
            ) from None
        if size != image.size:
            raise UserError(
                "a photo's size is not the one its dataset states",
                [f"{path} is {size[1]} x {size[0]}, the dataset says {image.width} x {image.height}"],
                "prepare the data again",
            )
        scale = min(1.0, self.cache_side / max(image.size))
        if self.sides is not None:
            scale = min(1.0, max(kept_shape(image.size, self.sides)) * self.room_to_zoom / max(image.size))
        picture = PillowImage.fromarray(photo)
        if scale < 1:
            new = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            way = PillowImage.Resampling.BOX if new[0] * 2 < picture.width else PillowImage.Resampling.BILINEAR
            picture = picture.resize(new, way)
        sx, sy = picture.width / image.width, picture.height / image.height
        crops, labels, objects, areas = [], [], [], []
        for k in range(int(self.first[index]), int(self.first[index + 1])):
            # A crowd is many objects in one mask: there is no one mask to learn, so it is left out (the plan says so).
            if self.dataset.crowd[k] or not self.dataset.has_mask_at(k):
                continue
            rle = self.dataset.rle(k)
            x1, y1, x2, y2 = (round(v) for v in pixels.box(rle, image.size))  # of the mask, whatever the file says
            if x2 <= x1:
                continue
            if scale < 1:
                left, top = math.floor(x1 * sx), math.floor(y1 * sy)
                right, bottom = min(math.ceil(x2 * sx), picture.width), min(math.ceil(y2 * sy), picture.height)
                window = (left / sx, top / sy, min(right / sx, image.width), min(bottom / sy, image.height))
                mask = pixels.shrink(rle, image.size, window, bottom - top, right - left)
            else:
                left, top = x1, y1
                mask = pixels.crop(rle, image.size, (x1, y1, x2, y2)).astype(np.uint8) * 255
            crop = PillowImage.fromarray(mask)
            crops.append((left, top, crop))
            labels.append(self.label_of[int(self.dataset.category_ids[k])])
            objects.append(k)
            areas.append(int((mask >= 128).sum()))
        return Cached(picture, tuple(crops), tuple(labels), tuple(objects), tuple(areas))

    def sample(self, index: int, step: int, slot: int, quarter: int = 0) -> Sample:
        """Make the sample that stands at `slot` of `step`.

        Args:
            index: Position of the photo in the dataset.
            step: Of the training; with `seed` and `slot` it decides every random choice.
            slot: Position in the batch.
            quarter: Turn by so many quarters (the canvas of odd ones is the batch's to choose).
        """
        cached = self.cache.get(index) or self._decode(index)
        rng = np.random.default_rng((self.seed, step, slot))
        if self.sides is None:
            height, width = self.canvas if quarter % 2 == 0 else self.canvas[::-1]
            inner, fill = (height, width), (FILL,) * 3
        else:
            kept = kept_shape(self.dataset.images[index].size, self.sides)
            inner, fill = kept if quarter % 2 == 0 else kept[::-1], MEAN_FILL
            height, width = (-(-v // MULTIPLE) * MULTIPLE for v in inner)
        forward = self._map(cached, inner, quarter, rng)
        backward: NDArray[np.float64] = np.linalg.inv(forward).astype(np.float64)
        image = np.asarray(warp(cached.image, backward, (0, 0), (height, width), fill))
        placed = place(cached, forward, backward, (height, width))
        if self.augmentation.copy_paste:
            # A generator of its own, so that what else is random about the sample stays as it is.
            other = np.random.default_rng((self.seed, step, slot, 10**6 + 1))
            there = lambda one: over_photo(one, cached, backward)  # noqa: E731
            image, placed = self._paste(image, placed, index, inner, quarter, there, other)
        image = _jitter_colour(image, self.augmentation.colour_jitter, rng)
        boxes, masks = np.zeros((len(placed), 4), dtype=np.float32), np.zeros((len(placed), height, width), np.uint8)
        for box, mask, one in zip(boxes, masks, placed, strict=True):
            one.window(mask)[:] = one.part
            box[:] = one.box()
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            boxes=torch.from_numpy(boxes),
            labels=torch.tensor([one.label for one in placed], dtype=torch.int64),
            masks=torch.from_numpy(masks),
            photo=index,
            objects=tuple(one.object for one in placed),
            seed=int(np.random.SeedSequence((self.seed, step, slot, 10**6)).generate_state(1, np.uint64)[0] >> 1),
        )

    def _paste(
        self,
        image: NDArray[np.uint8],
        placed: list[Placed],
        index: int,
        inner: tuple[int, int],
        quarter: int,
        there: Callable[[Placed], bool],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], list[Placed]]:
        """Paste objects of another photo over a sample, as often as is wanted (Ghiasi et al. 2021, Simple Copy-Paste).

        The other photo goes through a map of its own, mirror and zoom included, and some of its objects stay where they
        come to lie, if they are `there`. What they cover, the objects beneath them lose.
        """
        givers = self.givers[self.givers != index]
        if rng.random() >= self.augmentation.copy_paste or not len(givers):
            return image, placed
        giver = int(givers[rng.integers(len(givers))])
        cached = None if giver in self.left_out else self._other(giver)
        if cached is None:
            return image, placed
        forward = self._map(cached, inner, quarter, rng)
        backward = np.linalg.inv(forward).astype(np.float64)
        found = [one for one in place(cached, forward, backward, inner) if there(one)]
        chosen = rng.random(len(found)) < 0.5
        if found and not chosen.any():
            chosen[rng.integers(len(found))] = True
        pasted = [one for one, wanted in zip(found, chosen.tolist(), strict=True) if wanted]
        return paste(image, placed, pasted, cached, backward)

    def _other(self, index: int) -> Cached | None:
        """Return a photo to take objects from; `None` if it proves unreadable, which is counted."""
        try:
            return self.cache.get(index) or self._decode(index)
        except UnreadablePhotoError as error:
            self.leave_out(index, error.problems[0].where[0])
            return None

    def can_do_without(self, photos: Collection[int]) -> bool:
        """Tell whether a photo with an object is left without some.

        Args:
            photos: Their positions in the dataset.
        """
        dataset = self.dataset
        have = np.unique(dataset.image_index[~dataset.crowd])
        return not np.isin(have, list(photos)).all()

    def leave_out(self, index: int, why: str) -> None:
        """Take note of a photo that cannot be read.

        Args:
            index: Position of the photo in the dataset.
            why: Its path and the reason.

        Raises:
            UserError: If more than `UNREADABLE_SHARE` of the photos cannot be read, naming them.
        """
        self.left_out.add(index)
        self.unreadable[index] = why
        if len(self.unreadable) > max(1, UNREADABLE_SHARE * len(self)):
            raise UserError(
                f"too many photos cannot be read: {len(self.unreadable)} of {len(self)}",
                list(self.unreadable.values()),
                "give them back (is a disk or a network folder gone?) and go on: --resume",
            ) from None

    def _map(
        self, cached: Cached, canvas: tuple[int, int], quarter: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return the 3x3 map from points of the cached photo to points of the canvas."""
        how = self.augmentation
        angle = math.radians(90.0 * quarter)
        limit = 45.0 if how.turn else how.tilt_degrees
        tilt = math.radians(float(rng.uniform(-limit, limit)))
        mirror = how.flip and bool(rng.random() < 0.5)
        w, h = cached.image.size
        turned = (w, h) if quarter % 2 == 0 else (h, w)
        fit = min(canvas[1] / turned[0], canvas[0] / turned[1])
        jitter = math.log(how.scale_jitter)
        zoom = fit * math.exp(float(rng.uniform(-jitter, jitter)))
        # A tilted photo keeps its scale: corners leave the canvas, which costs less than shrinking every object.
        cos, sin = math.cos(angle + tilt) * zoom, math.sin(angle + tilt) * zoom
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
        centre = np.array([w / 2, h / 2])
        anchor = centre
        if cached.crops and how.scale_jitter > 1:
            left, top, crop = cached.crops[int(rng.integers(len(cached.crops)))]
            anchor = np.array([left + crop.width / 2, top + crop.height / 2])
        # Where the photo is larger than the canvas, a window of it is seen; where smaller, it is put somewhere inside.
        half = np.abs(linear) @ centre
        middle = np.array([canvas[1] / 2, canvas[0] / 2])
        slack = half - middle
        shift = rng.uniform(-1, 1, 2) * np.abs(slack) if how.scale_jitter > 1 else np.zeros(2)
        target = middle + shift
        place = target - linear @ centre
        # The chosen object must stay in view, at least its middle.
        seen = linear @ anchor + place
        place += np.clip(seen, 0.1 * middle, 1.9 * middle) - seen
        return np.vstack([np.column_stack([linear, place]), [0.0, 0.0, 1.0]])


def _jitter_colour(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and tint at random; `(H, W, 3)` uint8 in and out."""
    if strength == 0:
        return image
    # NumPy and not torch: in this thread torch would start a second set of workers, which would fight the network's.
    pixels = image.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    saturation = 0.0 if rng.random() < 0.2 * strength else float(rng.uniform(1 - strength, 1 + strength))
    contrast = float(rng.uniform(1 - strength, 1 + strength))
    mean = float(grey.mean())
    gain = rng.uniform(1 - strength / 4, 1 + strength / 4, 3).astype(np.float32)
    bright = gain * np.float32(rng.uniform(1 - strength, 1 + strength))
    # Saturation pulls a pixel to its grey, contrast to the mean grey; then brightness and tint multiply.
    pixels -= grey[:, :, None]
    pixels *= saturation * contrast
    pixels += ((grey - mean) * contrast + mean)[:, :, None]
    pixels *= bright
    result: NDArray[np.uint8] = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    return result


def sides_of(settings: TrainSettings) -> tuple[int, int] | None:
    """Return a plan's shorter and longer side; `None` if photos are put on a canvas."""
    return None if settings.short_side is None else (settings.short_side, cast(int, settings.side))


def kept_shape(size: tuple[int, int], sides: tuple[int, int]) -> tuple[int, int]:
    """Return `(height, width)` of a photo whose shorter side becomes `sides[0]`, its longer at most `sides[1]`.

    Example:
        >>> kept_shape((3024, 4032), (800, 1333)), kept_shape((1000, 4000), (800, 1333))
        ((800, 1067), (333, 1333))
    """
    scale = min(sides[0] / min(size), sides[1] / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _padded(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a photo `(3, H, W)` in a larger frame, in its upper left corner."""
    if image.shape[1:] == (height, width):
        return image
    found = np.empty((3, height, width), dtype=np.uint8)
    found[:] = np.array(MEAN_FILL, dtype=np.uint8)[:, None, None]
    found[:, : image.shape[1], : image.shape[2]] = image
    return found


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples into a batch; smaller ones are padded to the largest."""
    height, width = (max(s.image.shape[axis] for s in samples) for axis in (1, 2))
    return Batch(
        images=torch.from_numpy(np.stack([_padded(s.image.numpy(), height, width) for s in samples])),
        targets=[{"boxes": s.boxes, "labels": s.labels} | pack(s.masks) for s in samples],
        photos=tuple(s.photo for s in samples),
        objects=tuple(s.objects for s in samples),
        seeds=tuple(s.seed for s in samples),
    )


def order(count: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """Return the photos' order in an epoch, a permutation of `0..count-1` that follows from seed and epoch."""
    return np.random.default_rng((seed, epoch, 7)).permutation(count)


def batch_photos(
    count: int, batch_size: int, step: int, seed: int, factors: NDArray[np.float64] | None = None
) -> list[int]:
    """Return which photos step `step` (from 0) sees: epochs end to end, each photo once per epoch.

    Args:
        count: Photos in all.
        batch_size: Photos per step.
        step: From 0.
        seed: Of the training.
        factors: `(count,)`, how often each photo comes per epoch, if that is not once; see `maskwright.rarity`.
    """
    turns = range(step * batch_size, (step + 1) * batch_size)
    if factors is None:
        return [int(order(count, turn // count, seed)[turn % count]) for turn in turns]
    chosen = []
    for turn in turns:
        epoch, offset, times = rarity.turn(factors, seed, turn)
        chosen.append(int(np.repeat(np.arange(count), times)[order(int(times.sum()), epoch, seed)[offset]]))
    return chosen


def make_batch(photos: Photos, step: int, batch_size: int, rank: int = 0, world: int = 1) -> Batch:
    """Make the batch of a step; with several processes, this one's share of it.

    Args:
        photos: What to draw from.
        step: From 0.
        batch_size: Photos per step over all processes; a multiple of `world`.
        rank: This process, from 0.
        world: How many processes train.
    """
    chosen = batch_photos(len(photos), batch_size, step, photos.seed, photos.factors)
    quarter = 0
    if photos.augmentation.turn:
        # The whole batch turns together, so that wide photos stay on a canvas of their shape, without padding.
        quarter = int(np.random.default_rng((photos.seed, step, 10**6)).integers(4))
    share = range(rank * batch_size // world, (rank + 1) * batch_size // world)
    return collate([_readable(photos, chosen[slot], step, slot, quarter) for slot in share])


def _readable(photos: Photos, index: int, step: int, slot: int, quarter: int) -> Sample:
    """Make a sample of a photo; of the next one, if it is left out or proves unreadable.

    Raises:
        UserError: If more than `UNREADABLE_SHARE` of the photos cannot be read, naming them.
    """
    for _ in range(len(photos)):
        if index not in photos.left_out:
            try:
                return photos.sample(index, step, slot, quarter)
            except UnreadablePhotoError as error:
                photos.leave_out(index, error.problems[0].where[0])
        index = (index + 1) % len(photos)
    raise UserError(
        "no photo is left to train on: all are left out", [str(photos.dataset.folder)], "look at the photos"
    )


def prefetch(make: Callable[[int], Batch], start: int, ahead: int = 2) -> Generator[Batch]:
    """Yield `make(start)`, `make(start + 1)`, ... without end, made ahead of time in one background thread.

    Pillow and torch let go of the interpreter while they work, so a thread is enough, and nothing has to be copied
    between processes. An error of `make` is raised here, at the step that it belongs to.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        step = start
        while not stop.is_set():
            try:
                item: Batch | BaseException = make(step)
            except BaseException as error:
                put(error)
                return
            if not put(item):
                return
            step += 1

    thread = threading.Thread(target=work, daemon=True, name="maskwright-batches")
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class Frame:
    """How a photo was put before the network for detection.

    Args:
        size: `(height, width)` of the photo.
        inner: `(height, width)` of the photo inside the padded frame.
    """

    size: tuple[int, int]
    inner: tuple[int, int]


def frame_photo(photo: NDArray[np.uint8], side: int, size: tuple[int, int] | None = None) -> tuple[Tensor, Frame]:
    """Scale a photo so that its longer side is `side`, padded to multiples of 32 at the right and below.

    Args:
        photo: `(H, W, 3)` uint8 RGB; it may have been decoded at a reduced scale.
        side: Pixels.
        size: `(height, width)` of the photo, if what is given was reduced.

    Returns:
        `(3, H', W')` uint8 and how it was done.
    """
    height, width = size or photo.shape[:2]
    scale = side / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    picture = PillowImage.fromarray(photo)
    if inner != photo.shape[:2]:
        picture = picture.resize((inner[1], inner[0]), PillowImage.Resampling.BILINEAR, reducing_gap=3.0)
    framed = np.full((_up(inner[0]), _up(inner[1]), 3), FILL, dtype=np.uint8)
    framed[: inner[0], : inner[1]] = np.asarray(picture)
    return torch.from_numpy(np.ascontiguousarray(framed.transpose(2, 0, 1))), Frame((height, width), inner)


def _up(value: int) -> int:
    return -(-value // MULTIPLE) * MULTIPLE
