"""How surely near-duplicate photos are told: hits on copies of real photos, and every pair found among the originals.

Run: python benchmarks/likeness.py [folder of photos] [--search N]

Each third photo is copied in seven ways; a copy is hit if its fingerprint is a candidate and the closer look agrees.
The pairs found among the originals are printed by name, for eyes to judge. `--search` also times the search for pairs
among N random fingerprints.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from machine import describe
from maskwright.files import photo_files, read_grey
from maskwright.likeness import (
    ALIKE,
    SIZE,
    alike_of,
    confirmed,
    fingerprint,
    fingerprint_of,
    groups,
    near_pairs,
    small_of,
    stack,
)

HERE = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDERS = ("hammer/hammer_train/rgb", "hammer/hammer_validate/rgb", "fruits_nuts/images")


def _jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _cropped(image: Image.Image, left: float, right: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(left * w), round(left * h), round((1 - right) * w), round((1 - right) * h)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda image: _jpeg(image, 30),
    "half size": lambda image: _jpeg(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)),
    "15 % brighter": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(1.15)),
    "15 % darker": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(0.85)),
    "3 % cropped, around": lambda image: _jpeg(_cropped(image, 0.015, 0.015)),
    "3 % cropped, at two sides": lambda image: _jpeg(_cropped(image, 0.03, 0)),
    "6 % cropped, around": lambda image: _jpeg(_cropped(image, 0.03, 0.03)),
}


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--search", type=int, default=0)
    arguments = parser.parse_args()
    print(describe())
    folders = [arguments.folder] if arguments.folder else [HERE / name for name in FOLDERS]
    files = [path for folder in folders for path in photo_files(folder)]
    started = time.perf_counter()
    prints = stack([fingerprint(path) for path in files])
    print(f"{len(files)} photos, {(time.perf_counter() - started) / len(files) * 1000:.1f} ms per fingerprint")
    for name, copied in COPIES.items():
        likeness, candidates = [], []
        for path, original in zip(files[::3], prints[::3], strict=True):
            grey = np.asarray(copied(Image.open(path).convert("RGB")).convert("L"))
            pair = np.array([original, np.frombuffer(fingerprint_of(grey), dtype=np.uint8)])
            candidates.append(len(near_pairs(pair)) > 0)
            likeness.append(alike_of(small_of(read_grey(path, 64)[0]), small_of(grey)))
        found, agreed = np.array(candidates), np.array(likeness) >= ALIKE
        rates = f"candidate {found.mean():7.1%}   alike {agreed.mean():7.1%}   both {np.mean(found & agreed):7.1%}"
        print(f"  {name:<28} {rates}")
    pairs = near_pairs(prints)
    started = time.perf_counter()
    likeness_of = confirmed(pairs, files)
    taken = (time.perf_counter() - started) / max(len(pairs), 1) * 1000
    same = likeness_of >= ALIKE
    print(f"among the originals: {len(pairs)} candidates ({taken:.1f} ms each), {int(same.sum())} pairs:")
    for k in np.argsort(-likeness_of)[: int(same.sum())]:
        (i, j, apart), value = pairs[k].tolist(), likeness_of[k]
        print(f"  {value:.3f} {apart:3d} of 256  {files[i].name}  {files[j].name}")
    labels = groups(pairs[same], len(files))
    print(f"photos with another like it: {int((np.bincount(labels)[labels] > 1).sum())} of {len(files)}")
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(files), (2, 3000))
    small = [small_of(read_grey(path, 64)[0]) for path in files]
    known = {tuple(pair) for pair in pairs[:, :2].tolist()}
    others = [(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < b and (a, b) not in known]
    random = np.array([alike_of(small[a], small[b]) for a, b in others])
    print(
        f"{len(random)} random pairs (no candidates): the second look alone finds {np.mean(random >= ALIKE):.2%} alike"
    )
    if arguments.search:
        many = rng.integers(0, 256, (arguments.search, SIZE), dtype=np.uint8)
        many[:, 0] = 255
        started = time.perf_counter()
        near_pairs(many)
        print(f"search among {arguments.search:,}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
