"""A prepared data folder of a dozen small photos, and a run trained on it, for the tests of training and prediction."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image, default_info
from maskwright.train import train

CATEGORIES = (Category(1, "hammer"), Category(2, "nut"))
COLOURS = {1: (210, 40, 40), 2: (40, 200, 60)}
QUICK = {
    "batch_size": 2,
    "side": 64,
    "steps": 6,
    "validations": 2,
    "log_every": 2,
    "workers": 1,
    "learning_rate": 1e-3,
}
"""Settings of a training of seconds."""


def draw(rng, height, width, count=2):
    """Return a photo with coloured rectangles on a bluish ground, and their `(category id, mask)`."""
    photo = rng.integers(60, 100, (height, width, 3)).astype(np.uint8)
    photo[..., 2] += 60
    objects = []
    for k in range(count):
        h, w = rng.integers(height // 4, height // 2), rng.integers(width // 4, width // 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        mask = np.zeros((height, width), dtype=bool)
        mask[y : y + h, x : x + w] = True
        objects = [(c, other & ~mask) for c, other in objects]  # the later lies on top
        category = k % 2 + 1
        photo[mask] = COLOURS[category]
        objects.append((category, mask))
    return photo, [(category, mask) for category, mask in objects if mask.any()]


def write_split(data: Path, split: str, count: int, seed: int = 0, objects: int = 2) -> Dataset:
    """Write `count` photos of a split with their annotation file."""
    rng = np.random.default_rng((seed, len(split), count))
    (data / split).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        height, width = int(rng.integers(64, 97)), int(rng.integers(64, 97))
        photo, found = draw(rng, height, width, objects)
        Picture.fromarray(photo).save(data / split / f"{split}_{i}.png")
        images.append(Image(i + 1, f"{split}_{i}.png", width, height))
        for category, mask in found:
            annotations.append(Annotation(len(annotations) + 1, i + 1, category, pixels.encode(mask)))
    dataset = Dataset.build(CATEGORIES, images, annotations, info=default_info("tiny"), folder=data / split)
    dataset.write(data / "annotations" / f"instances_{split}.json")
    return dataset


def write_data(data: Path, val: int = 3, test: int = 2) -> Path:
    """Write a data folder with 6 photos to train on."""
    write_split(data, "train", 6)
    for split, count in (("val", val), ("test", test)):
        if count:
            write_split(data, split, count)
    return data


@cache
def world(base: Path) -> tuple[Path, Path, tuple[str, ...]]:
    """Return a data folder, a run trained on it, and what was said; made once per test process.

    Args:
        base: `tmp_path_factory.getbasetemp()`.
    """
    said: list[str] = []
    data = write_data(base / "tiny_world" / "data")
    train(data, base / "tiny_world" / "run", say=said.append, **QUICK)
    return data, base / "tiny_world" / "run", tuple(said)
