"""Time the loader on large photos: torchvision's reference detection pipeline against ours, 12 megapixels to 384 px.

    python benchmarks/loader.py [--photos 12] [--objects 5] [--side 384]

The photos are drawn, with noise as of a sensor, and saved as JPEG of quality 90, their objects as polygons. The peer
does what torchvision's `references/detection` does: `decode_image`, polygons to full-size masks by pycocotools
(`ConvertCocoPolysToMask`), `RandomHorizontalFlip`, and then what its model does first: `GeneralizedRCNNTransform`
(normalise, resize photo and masks). Ours is `Photos.sample` with all its augmentation (zoom, turn, mirror, colour). It
is timed with nothing cached (the first epoch, where both decode) and from its cache (later epochs; the peer has none).
One thread each, in turn.

Fidelity: the mean difference between a photo decoded at reduced scale and at full scale, both brought to
the same side, and the IoU of the masks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from pycocotools import mask as coco_mask
from torchvision.io import decode_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import functional

from machine import describe
from maskwright import pixels
from maskwright.batches import Augmentation, Photos, frame_photo
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.files import read_photo, read_reduced

HEIGHT, WIDTH = 3000, 4000


def draw(folder: Path, count: int, objects: int) -> tuple[Dataset, list[list[list[float]]]]:
    """Draw photos of blobs over a rough ground; return the dataset and the polygon of each object of each photo."""
    rng = np.random.default_rng(0)
    images, annotations, polygons = [], [], []
    for n in range(count):
        small = rng.integers(60, 190, (60, 80, 3)).astype(np.uint8)
        picture = np.asarray(Pillow.fromarray(small).resize((WIDTH, HEIGHT), Pillow.Resampling.BICUBIC)).astype(
            np.int16
        )
        image = Image(n + 1, f"{n:03}.jpg", WIDTH, HEIGHT)
        mine = []
        for _ in range(objects):
            radius = rng.uniform(150, 600)
            centre = rng.uniform([radius, radius], [WIDTH - radius, HEIGHT - radius])
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            lengths = radius * (0.75 + 0.25 * np.cos(rng.integers(2, 6) * angles + rng.uniform(0, 6)))
            points = centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            mine.append([round(float(v), 2) for v in points.ravel()])
            rle = pixels.from_polygons([mine[-1]], image.size)
            picture[pixels.decode(rle, image.size)] += rng.integers(-60, 60, 3).astype(np.int16)
            annotations.append(Annotation(len(annotations) + 1, image.id, 1, rle))
        picture += rng.normal(0, 6, picture.shape).astype(np.int16)
        Pillow.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / image.file_name, quality=90)
        images.append(image)
        polygons.append(mine)
    return Dataset.build([Category(1, "blob")], images, annotations, folder=folder), polygons


class Reference:
    """torchvision's pipeline, from file to what its network gets."""

    def __init__(self, folder: Path, polygons: list[list[list[float]]], side: int) -> None:
        self.folder, self.polygons = folder, polygons
        self.transform = GeneralizedRCNNTransform(side, side, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def sample(self, index: int, flip: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        image = decode_image(str(self.folder / f"{index:03}.jpg"))
        height, width = image.shape[-2:]
        masks = []
        for polygon in self.polygons[index]:
            rles = coco_mask.frPyObjects([polygon], height, width)
            masks.append(torch.as_tensor(coco_mask.decode(rles), dtype=torch.uint8).any(dim=2))
        target = {"masks": torch.stack(masks), "labels": torch.ones(len(masks), dtype=torch.int64)}
        points = [np.array(p).reshape(-1, 2) for p in self.polygons[index]]
        boxes = torch.tensor(np.array([[*p.min(0), *p.max(0)] for p in points]), dtype=torch.float32)
        image = functional.convert_image_dtype(image, torch.float32)
        if flip:
            image = functional.hflip(image)
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
            target["masks"] = target["masks"].flip(-1)
        target["boxes"] = boxes
        images, targets = self.transform([image], [target])
        return images.tensors[0], targets[0]


def fidelity(data: Dataset, photos: Photos, side: int) -> str:
    """Compare reduced with full decoding, and the masks of the cache with full-size ones made smaller."""
    differences: list[NDArray[Any]] = []
    overlaps = []
    for index, image in enumerate(data.images[:3]):
        path = data.photo_path(image)
        whole = frame_photo(read_photo(path), side)[0].numpy().astype(np.int16)
        reduced, size = read_reduced(path, 2 * side)
        differences.append(np.abs(frame_photo(reduced, side, size)[0].numpy() - whole))
        cached = photos._decode(index)
        for (left, top, crop), k in zip(cached.crops, cached.objects, strict=True):
            full = Pillow.fromarray(data.mask(k).astype(np.uint8) * 255).resize(
                cached.image.size, Pillow.Resampling.BOX
            )
            ours = np.zeros((cached.image.height, cached.image.width), dtype=np.bool_)
            ours[top : top + crop.height, left : left + crop.width] = np.asarray(crop) >= 128
            theirs = np.asarray(full) >= 128
            overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
    gap = np.concatenate([d.ravel() for d in differences])
    return (
        f"reduced against full decoding at {side} px: mean difference {gap.mean():.2f} of 255,"
        f" 99.9% below {np.quantile(gap, 0.999):.0f}; masks: IoU at least {min(overlaps):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--side", type=int, default=384)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, polygons = draw(folder, options.photos, options.objects)
        canvas = (round(options.side * HEIGHT / WIDTH / 32) * 32, options.side)
        photos = Photos(data, canvas, Augmentation(), seed=0)
        reference = Reference(folder, polygons, options.side)
        times: dict[str, list[float]] = {"torchvision": [], "ours": [], "cached": [], "predict": [], "predict peer": []}

        def clock(name: str, function: Any) -> Any:
            start = time.perf_counter()
            result = function()
            times[name].append(time.perf_counter() - start)
            return result

        for index in range(options.photos):
            path = folder / f"{index:03}.jpg"
            clock("torchvision", lambda index=index: reference.sample(index, index % 2 == 0))
            clock("ours", lambda index=index: photos.sample(index, index, 0))
            photos.cache[index] = photos._decode(index)
            clock("cached", lambda index=index: photos.sample(index, index, 0))
            del photos.cache[index]
            clock("predict", lambda path=path: frame_photo(*_reduced(path, options.side)))
            clock(
                "predict peer",
                lambda path=path: reference.transform(
                    [functional.convert_image_dtype(decode_image(str(path)), torch.float32)]
                ),
            )
        middle = {k: 1e3 * statistics.median(v) for k, v in times.items()}
        print(describe())
        print(
            f"{options.photos} JPEGs of {WIDTH} x {HEIGHT}, {options.objects} objects each, to {options.side} px; "
            "median of one photo, one thread"
        )
        for what, mine, other in (
            ("training, nothing cached", "ours", "torchvision"),
            ("training, later epochs (cached)", "cached", "torchvision"),
            ("prediction", "predict", "predict peer"),
        ):
            ratio = middle[other] / middle[mine]
            print(f"  {what:<33}torchvision {middle[other]:7.1f} ms  ours {middle[mine]:6.1f} ms  {ratio:6.1f}x faster")
        print(f"  {fidelity(data, photos, options.side)}")


def _reduced(path: Path, side: int) -> tuple[NDArray[np.uint8], int, tuple[int, int]]:
    photo, size = read_reduced(path, 2 * side)
    return photo, side, size


if __name__ == "__main__":
    main()
