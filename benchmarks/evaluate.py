"""Time `maskwright.evaluate` against pycocotools on one made-up set, in the same run, and compare the numbers.

The set: 1,500 photos of 640x480 with 7 objects each on average, as in COCO, and 15,800 detections with masks and boxes;
outlines are as wavy and as long as those of photographed things. It is made anew from a seed, in a temporary folder.
Timed are whole pipelines: reading both JSON files, the twelve numbers of the boxes and of the masks. Ours also finds
curves, the threshold and the matches; the interval (300 resamples, the default) is timed apart.

pycocotools gets each kind's results with only that kind's field, since it takes the area of a box otherwise.

Run: python benchmarks/evaluate.py [--categories 80 10 1] [--times 3]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from machine import describe
from maskwright import pixels
from maskwright.evaluate import Evaluation, evaluate
from maskwright.scoring import NAMES

HEIGHT, WIDTH = 480, 640
PHOTOS, DETECTIONS = 1500, 15800
LEAST_RATIO = 20


def blob(rng: np.random.Generator, centre: tuple[float, float], radius: float, waves: Any, roughness: float) -> bytes:
    """Return the RLE of a closed wavy outline, cut at the edges of the photo."""
    points = int(np.clip(radius * 3, 24, 160))
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    turns = np.outer(np.arange(1, 6), angles)
    shape = 1 + (waves[0][:, None] * np.cos(turns) + waves[1][:, None] * np.sin(turns)).sum(axis=0)
    radii = np.maximum(radius * shape, 1.5) * (1 + roughness * rng.standard_normal(points))
    x = np.clip(centre[0] + radii * np.cos(angles), 0, WIDTH)
    y = np.clip(centre[1] + radii * np.sin(angles), 0, HEIGHT)
    return pixels.from_polygons([np.stack([x, y], axis=1).ravel().tolist()], (HEIGHT, WIDTH))


def make(folder: Path, categories: int, seed: int = 0) -> tuple[Path, Path]:
    """Write truth.json and results.json; the same for the same seed."""
    rng = np.random.default_rng(seed)
    truth, results = [], []

    def somewhere() -> tuple[tuple[float, float], float, Any]:
        centre = (float(rng.uniform(0, WIDTH)), float(rng.uniform(0, HEIGHT)))
        radius = float(np.clip(np.exp(rng.normal(3.3, 0.7)), 4, 160))
        return centre, radius, rng.normal(0, 0.09, (2, 5)) / np.sqrt(np.arange(1, 6))

    for image, objects in enumerate(rng.poisson(7, PHOTOS), start=1):
        for _ in range(objects):
            centre, radius, waves = somewhere()
            category = int(rng.integers(categories)) + 1
            truth.append((image, category, blob(rng, centre, radius, waves, 0.02), None))
            if rng.random() < 0.92:  # found, the better the surer
                score = float(rng.beta(5, 2))
                error = (1 - score) * 0.5 + 0.03
                near = tuple(c + float(rng.normal(0, error * radius * 0.5)) for c in centre)
                size = radius * float(np.exp(rng.normal(0, error * 0.5)))
                moved = blob(rng, (near[0], near[1]), size, waves + rng.normal(0, error * 0.1, (2, 5)), 0.03)
                taken = category if rng.random() < 0.95 else int(rng.integers(categories)) + 1
                results.append((image, taken, moved, round(score, 6)))
    while len(results) < DETECTIONS:  # false alarms
        centre, radius, waves = somewhere()
        place = int(rng.integers(PHOTOS)) + 1, int(rng.integers(categories)) + 1
        results.append((*place, blob(rng, centre, radius, waves, 0.03), round(float(rng.beta(1.3, 4)), 6)))
    shuffled = [results[k] for k in rng.permutation(len(results))[:DETECTIONS]]
    document = {
        "images": [{"id": n, "file_name": f"{n:06d}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, 1501)],
        "categories": [{"id": n, "name": f"thing {n}"} for n in range(1, categories + 1)],
        "annotations": rows(truth),
    }
    paths = folder / "truth.json", folder / "results.json"
    paths[0].write_text(json.dumps(document))
    paths[1].write_text(json.dumps(rows(shuffled)))
    return paths


def rows(objects: list[tuple[int, int, bytes, float | None]]) -> list[dict[str, Any]]:
    """Return COCO annotations, or results where there is a score."""
    areas, boxes = pixels.areas_and_boxes([item[2] for item in objects], [(HEIGHT, WIDTH)] * len(objects))
    result = []
    for n, ((image, category, rle, score), area, box) in enumerate(zip(objects, areas, boxes, strict=True), start=1):
        x1, y1, x2, y2 = box.tolist()
        row = {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        row["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": rle.decode()}
        result.append(row | ({"id": n, "area": float(area), "iscrowd": 0} if score is None else {"score": score}))
    return result


def pycocotools(truth: Path, results: Path) -> dict[str, float]:
    """Return the twenty-four numbers of pycocotools."""
    numbers = {}
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        found = json.loads(results.read_bytes())
        for kind, other in (("bbox", "segmentation"), ("segm", "bbox")):
            dt = gt.loadRes([{key: value for key, value in row.items() if key != other} for row in found])
            judge = COCOeval(gt, dt, kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            numbers |= {f"{kind}/{name}": float(v) for name, v in zip(NAMES, judge.stats, strict=True)}
    return numbers


def timed(function: Callable[[], Any], times: int) -> tuple[float, Any]:
    """Return the median wall time in seconds, and the last result."""
    seconds, result = [], None
    for _ in range(times):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def main() -> int:
    """Print the times, their ratio and the largest difference; return 1 if a number differs or the ratio is low."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--categories", type=int, nargs="+", default=[80, 10, 1], help="sets to make; COCO has 80")
    parser.add_argument("--times", type=int, default=3, help="runs of each; the median counts")
    given = parser.parse_args()
    print(describe())
    print(f"{PHOTOS:,} photos, {DETECTIONS:,} detections with masks; load + bbox + segm; median of {given.times}")
    failed = False
    for categories in given.categories:
        with tempfile.TemporaryDirectory() as folder:
            truth, results = make(Path(folder), categories)
            ours: Evaluation
            ours_s, ours = timed(lambda t=truth, r=results: evaluate(t, r, bootstrap=0), given.times)
            theirs_s, theirs = timed(lambda t=truth, r=results: pycocotools(t, r), given.times)
            interval_s, _ = timed(lambda t=truth, r=results: evaluate(t, r), given.times)
        difference = max(abs((-1 if ours.metrics[n] is None else ours.metrics[n]) - v) for n, v in theirs.items())
        ratio = theirs_s / ours_s
        failed |= difference > 1e-9 or (categories == given.categories[0] and ratio < LEAST_RATIO)
        print(
            f"{categories:>3} categories: pycocotools {theirs_s:.2f} s, maskwright {ours_s:.2f} s = {ratio:.1f}x faster"
            f" (with interval {interval_s:.2f} s, {theirs_s / interval_s:.1f}x);"
            f" largest difference of the 24 numbers {difference:.1e}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
