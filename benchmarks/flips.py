"""Score and time a run without and with test-time flips.

    python benchmarks/flips.py RUN DATA [--split val]

Both detect in the same photos of a split, photo by photo in turn, so that what else the machine does falls on both
alike. Scores are COCO's, and boundary AP; seconds are those of detection alone, photos decoded before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from machine import describe
from maskwright import load
from maskwright.dataset import Annotation, Dataset
from maskwright.detections import LEAST_SCORE
from maskwright.evaluate import evaluate
from maskwright.files import read_photo

SHOWN = ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "boundary/AP")


def main() -> None:
    """Print the scores of both, and what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    given = parser.parse_args()
    print(describe())
    truth = Dataset.read_split(given.data, given.split)
    assert truth is not None
    model = load(given.run)
    ids = {c.name: c.id for c in truth.categories}
    found: dict[bool, list[Annotation]] = {False: [], True: []}
    took = {False: 0.0, True: 0.0}
    model(read_photo(truth.photo_path(truth.images[0])))  # the first one is slow
    for image in truth.images:
        photo = read_photo(truth.photo_path(image))
        for flip, mine in found.items():
            started = time.perf_counter()
            one = model(photo, score=LEAST_SCORE, test_time_flip=flip)
            took[flip] += time.perf_counter() - started
            for rle, box, score, name in zip(one.rles, one.boxes, one.scores, one.categories, strict=True):
                x1, y1, x2, y2 = (float(v) for v in box)
                corners = (x1, y1, x2, y2)
                mine.append(Annotation(len(mine) + 1, image.id, ids[name], rle, score=float(score), box=corners))
    print(f"{given.split}: {len(truth.images)} photos, {len(truth)} objects")
    for flip, mine in found.items():
        metrics = evaluate(
            truth, Dataset.build(truth.categories, truth.images, mine), bootstrap=0, boundary=True
        ).metrics
        scores = "  ".join(f"{name} {value:.3f}" for name in SHOWN if (value := metrics[name]) is not None)
        each = took[flip] / len(truth.images)
        print(f"  {'with flips   ' if flip else 'without flips'}  {scores}  {1000 * each:.0f} ms a photo")
    print(f"time with / without: {took[True] / took[False]:.2f}")


if __name__ == "__main__":
    main()
