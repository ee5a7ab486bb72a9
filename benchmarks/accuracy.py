"""Train for a fixed time on three sets and print COCO scores: the demo world, hammers, fruits and nuts.

    python benchmarks/accuracy.py [demo] [hammer] [fruits] [--seeds 3] [--peer torchvision] [--peer ultralytics]
        [--minutes M] [--out FOLDER] [--shared ../shared]

Everything goes through the package's public functions with derived settings; only the minutes and the seed are given.
Validation runs once, after the last step, so the scored weights are not chosen by the photos that score them. `demo`
is scored on its test split; the other two have no third split and are scored on their validation photos:

- `hammer`: train on `hammer_train` (244 photos), score on `hammer_validate` (64);
- `fruits`: the photos at positions 0, 5, 10 and 15 in order of image id are scored, the other 14 train.

With several seeds (`--seeds 3` are 0, 1 and 2) the mean is printed, with the least and the greatest. A peer gets the
same minutes on the same photos and is scored by the same code; see `peers.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import maskwright as mw
from machine import describe
from peers import TORCHVISION_RATE, stock_heads, yolo

MINUTES = {"demo": 4.0, "hammer": 10.0, "fruits": 5.0}
SHOWN = ("segm/AP", "segm/AP50", "segm/AP75", "boundary/AP", "bbox/AP")
PEERS = ("torchvision", "ultralytics")


def fruits(shared: Path, folder: Path) -> Path:
    """Split the fruits and nuts by the protocol: a folder with two COCO files and the photos."""
    source = shared / "data" / "fruits_nuts"
    document = json.loads((source / "trainval.json").read_text())
    images = sorted(document["images"], key=lambda image: image["id"])
    scored = {images[position]["id"] for position in (0, 5, 10, 15)}
    for split in ("train", "val"):
        chosen = [image for image in images if (image["id"] in scored) == (split == "val")]
        ids = {image["id"] for image in chosen}
        part = {
            **document,
            "images": chosen,
            "annotations": [item for item in document["annotations"] if item["image_id"] in ids],
        }
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(part))
        (folder / split).mkdir()
        for image in chosen:
            name = Path(image["file_name"]).name
            (folder / split / name).write_bytes((source / "images" / name).read_bytes())
    return folder


def raw_folder(name: str, shared: Path, folder: Path) -> Path:
    """Return a folder that `prepare` reads."""
    if name == "demo":
        return mw.demo(folder / "raw")
    return shared / "data" / "hammer" if name == "hammer" else fruits(shared, folder / "raw")


def train(who: str, data: Path, folder: Path, split: str, minutes: float, seed: int) -> tuple[Path, str]:
    """Train one network and find the objects of a split; return the detections, and how long it trained."""
    if who == "ultralytics":
        plan = mw.train(data, folder / "unused", minutes=minutes, seed=seed, dry_run=True)
        detections, epochs = yolo(data, folder, split, minutes, seed, plan.settings.side)
        return detections, f"{epochs} epochs"
    run = folder / "run"
    if who == "torchvision":
        with stock_heads():
            rate = TORCHVISION_RATE
            mw.train(data, run, minutes=minutes, seed=seed, validations=1, learning_rate=rate, say=print)
            mw.predict(run, data, folder / "predictions", split=split)
    else:
        mw.train(data, run, minutes=minutes, seed=seed, validations=1, say=print)
        mw.predict(run, data, folder / "predictions", split=split)
    steps = json.loads((run / "run.json").read_text())["step"]
    return folder / "predictions" / "detections.json", f"{steps} steps"


def score(who: str, name: str, data: Path, folder: Path, minutes: float, seed: int) -> tuple[dict[str, float], str]:
    """Train, predict and score once; return the scores and a line for people."""
    folder.mkdir(parents=True)
    split = "test" if name == "demo" else "val"
    started = time.perf_counter()
    detections, length = train(who, data, folder, split, minutes, seed)
    took = time.perf_counter() - started
    result = mw.evaluate(data / "annotations" / f"instances_{split}.json", detections, boundary=True)
    scores = {key: result.metrics[key] or 0.0 for key in SHOWN}
    interval = result.intervals.get("segm/AP")
    spread = f" (95%: {interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    shown = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
    return scores, f"{name:<7} {who:<11} seed {seed}  {took / 60:.1f} min in all  {length}  {shown}{spread}"


def summary(name: str, who: str, minutes: float, scores: list[dict[str, float]]) -> str:
    """Return the mean over seeds with the least and the greatest of each score."""
    parts = []
    for key in SHOWN:
        values = [one[key] for one in scores]
        parts.append(f"{key} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return f"{name:<7} {who:<11} {minutes:g} min, {len(scores)} seeds  " + "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["demo", "hammer", "fruits"])
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--peer", action="append", choices=PEERS, default=[], help="train this one too")
    parser.add_argument("--only-peers", action="store_true", help="leave ours out")
    parser.add_argument("--out", type=Path, help="keep the results there")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    options = parser.parse_args()
    lines, summaries = [], []
    with TemporaryDirectory() as temporary:
        for name in options.sets:
            folder = (options.out or Path(temporary)) / name
            data = folder / "data"
            mw.prepare(raw_folder(name, options.shared, folder), out=data)
            minutes = options.minutes or MINUTES[name]
            found = defaultdict(list)
            # Seeds outside, networks inside: a drift of the machine's speed falls on all alike.
            for seed in range(options.seed, options.seed + options.seeds):
                for who in ([] if options.only_peers else ["maskwright"]) + options.peer:
                    scores, line = score(who, name, data, folder / f"{who}-{seed}", minutes, seed)
                    found[who].append(scores)
                    lines.append(line)
                    print(line, flush=True)
            summaries += [summary(name, who, minutes, scores) for who, scores in found.items()]
    print(describe())
    print("\n".join([*lines, *summaries]))


if __name__ == "__main__":
    main()
