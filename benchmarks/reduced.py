"""What decoding large photos at a reduced scale does to AP: the same photos enlarged, decoded reduced and whole.

    python benchmarks/reduced.py [demo] [hammer] [fruits] --of FOLDER [--seeds 3] [--times 6] [--train 250]

The sets are those of `accuracy.py`, whose photos are too small to be decoded at less than their size: each is enlarged
(bicubic, 6 times by default, up to 18 megapixels), given noise as of a sensor and saved as JPEG of quality 90, and its
masks are enlarged with it, pixel for pixel. The networks are the finished trainings of `accuracy.py --out FOLDER`; they
find the objects once with photos decoded as the program does (by libjpeg, at a half, a quarter or an eighth, never
below twice the side that is wanted) and once with every pixel decoded, and both are scored by the same code.

With `--train STEPS` two networks are trained on the enlarged photos as well, one each way, and each is read its own
way: what differs then is the luck of two trainings too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

import maskwright as mw
from machine import describe
from maskwright import batches, detections, pixels
from maskwright.dataset import Annotation, Dataset, Image
from maskwright.files import read_photo

SHOWN = ("segm/AP", "bbox/AP")
NOISE = 4.0  # standard deviation, of 255


def enlarge(data: Path, split: str, times: int, out: Path) -> None:
    """Write one split of a data folder with every pixel `times` as wide and as high."""
    source = Dataset.read_split(data, split)
    assert source is not None
    rng = np.random.default_rng(0)
    (out / split).mkdir(parents=True)
    images, annotations = [], []
    for position, image in enumerate(source.images):
        photo = Pillow.fromarray(read_photo(source.photo_path(image)))
        large = photo.resize((photo.width * times, photo.height * times), Pillow.Resampling.BICUBIC)
        noisy = np.asarray(large, dtype=np.float32) + rng.normal(0, NOISE, (large.height, large.width, 1))
        name = f"{Path(image.file_name).stem}.jpg"
        Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out / split / name, quality=90)
        images.append(Image(image.id, name, image.width * times, image.height * times))
        for k in range(int(source.first[position]), int(source.first[position + 1])):
            mask = source.mask(k).repeat(times, 0).repeat(times, 1)
            kind, crowd = int(source.category_ids[k]), bool(source.crowd[k])
            annotations.append(Annotation(len(annotations) + 1, image.id, kind, pixels.encode(mask), crowd=crowd))
    made = Dataset.build(source.categories, images, annotations, folder=out / split)
    made.write(out / "annotations" / f"instances_{split}.json")


def every_pixel(path: Path, least: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read a photo in the place of `read_reduced`."""
    photo = read_photo(path)
    return photo, (photo.shape[0], photo.shape[1])


@contextmanager
def decoded_whole(whole: bool) -> Iterator[None]:
    """Decode every pixel inside the block, in this process, if asked to."""
    if not whole:
        yield
        return
    with patch.object(batches, "read_reduced", every_pixel), patch.object(detections, "read_reduced", every_pixel):
        yield


def found(run: Path, data: Path, split: str, out: Path, whole: bool) -> dict[str, float]:
    """Find the objects of a split and score them."""
    with decoded_whole(whole):
        mw.predict(run, data, out, split=split, overwrite=True)
    truth = data / "annotations" / f"instances_{split}.json"
    metrics = mw.evaluate(truth, out / "detections.json", bootstrap=0).metrics
    return {key: metrics[key] or 0.0 for key in SHOWN}


def line(what: str, pairs: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    """Say what reduced and whole decoding score, and by how much they differ."""
    parts = []
    for key in SHOWN:
        reduced, whole = ([one[way][key] for one in pairs] for way in (0, 1))
        gaps = [a - b for a, b in zip(reduced, whole, strict=True)]
        parts.append(
            f"{key} reduced {statistics.mean(reduced):.4f}, whole {statistics.mean(whole):.4f},"
            f" difference {statistics.mean(gaps):+.4f} ({min(gaps):+.4f} to {max(gaps):+.4f})"
        )
    return f"  {what:<28}{len(pairs)} seeds  " + "  ".join(parts)


def compare(name: str, done: Path, times: int, seeds: int, steps: int, work: Path) -> Iterator[str]:
    """Yield the lines of one set."""
    source, data = done / name / "data", work / name / "data"
    split = "test" if name == "demo" else "val"
    enlarge(source, split, times, data)
    runs = [done / name / f"maskwright-{seed}" / "run" for seed in range(seeds)]
    pairs = [tuple(found(run, data, split, work / "found", whole) for whole in (False, True)) for run in runs]
    yield line("found", pairs)
    if not steps:
        return
    for other in ("train", "val"):
        if other != split:
            enlarge(source, other, times, data)
    pairs = []
    for seed in range(seeds):
        both = []
        for whole in (False, True):
            run = work / name / f"run-{seed}-{whole}"
            with decoded_whole(whole):
                mw.train(data, run, steps=steps, seed=seed, validations=1, preflight=False)
            both.append(found(run, data, split, work / "found", whole))
        pairs.append((both[0], both[1]))
    yield line(f"trained ({steps} steps), found", pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["demo", "hammer", "fruits"])
    parser.add_argument("--of", type=Path, required=True, metavar="FOLDER", help="what accuracy.py --out has left")
    parser.add_argument("--seeds", type=int, default=1, help="how many; the first is 0")
    parser.add_argument("--times", type=int, default=6, help="how much larger photos are made, per side")
    parser.add_argument("--train", type=int, default=0, metavar="STEPS", help="train both ways as well")
    options = parser.parse_args()
    print(describe())
    with TemporaryDirectory() as temporary:
        for name in options.sets:
            run = json.loads((options.of / name / "maskwright-0" / "run" / "plan.json").read_text())
            print(f"{name}, photos enlarged {options.times} times, to {run['settings']['side']} px", flush=True)
            for text in compare(name, options.of, options.times, options.seeds, options.train, Path(temporary)):
                print(text, flush=True)


if __name__ == "__main__":
    main()
