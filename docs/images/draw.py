"""Draw the README's picture from what `make demo` left: photo, truth and detection of three test photos.

    python docs/images/draw.py demo/work docs/images/demo.png

The photos are those at one quarter, one half and three quarters in order of their best detection's IoU with the truth,
so that the picture shows what is usual and not what came out best.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwright import Dataset
from maskwright.files import read_photo

GAP = 6
TRUTH, DETECTION = (86, 180, 233), (230, 159, 0)


def overlay(photo: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Tint a mask and draw its outline."""
    picture = photo.astype(np.float64)
    picture[mask] = 0.45 * picture[mask] + 0.55 * np.array(colour)
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            inner &= np.roll(mask, shift, axis)
    picture[mask & ~inner] = colour
    return picture.astype(np.uint8)


def union(dataset: Dataset, image_index: int, least_score: float) -> NDArray[np.bool_]:
    """Return all masks of a photo from a score on, as one."""
    mask = np.zeros(dataset.images[image_index].size, dtype=np.bool_)
    for k in range(int(dataset.first[image_index]), int(dataset.first[image_index + 1])):
        if not dataset.scores[k] < least_score:  # truth has no score: NaN compares false
            mask |= dataset.mask(k)
    return mask


def main(work: Path, out: Path) -> None:
    """Draw the strip."""
    evaluation = json.loads((work / "evaluation.json").read_text())
    truth = Dataset.read(work / "data" / "annotations" / "instances_test.json", work / "data" / "test")
    found = Dataset.read(work / "predictions" / "detections.json")
    position = {image.file_name: i for i, image in enumerate(found.images)}
    best: dict[str, float] = {image.file_name: 0.0 for image in truth.images}
    for match in evaluation["matches"]:
        if match["outcome"] == "hit":
            best[match["photo"]] = max(best[match["photo"]], match["iou"])
    ranked = sorted(range(len(truth.images)), key=lambda i: best[truth.images[i].file_name])
    rows = []
    for share in (0.25, 0.5, 0.75):
        i = ranked[int(share * (len(ranked) - 1))]
        image = truth.images[i]
        photo = read_photo(truth.photo_path(image))
        detected = union(found, position[image.file_name], evaluation["threshold"]["score"])
        cells = [photo, overlay(photo, union(truth, i, 0.0), TRUTH), overlay(photo, detected, DETECTION)]
        gap = np.full((photo.shape[0], GAP, 3), 255, dtype=np.uint8)
        rows.append(np.concatenate([cells[0], gap, cells[1], gap, cells[2]], axis=1))
    gap = np.full((GAP, rows[0].shape[1], 3), 255, dtype=np.uint8)
    strip = np.concatenate([rows[0], gap, rows[1], gap, rows[2]])
    # A palette keeps the file small enough for a repository; the page shows it at about this size.
    small = Image.fromarray(strip).resize((804, 804), Image.Resampling.LANCZOS)
    small.quantize(224, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)
    print(f"written: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
