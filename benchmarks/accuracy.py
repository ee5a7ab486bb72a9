"""Train for a fixed time on three sets and print COCO scores: the demo world, hammers, fruits and nuts.

    python benchmarks/accuracy.py [demo] [hammer] [fruits] [--seed 0] [--out FOLDER] [--shared ../shared]

Everything goes through the package's public functions with derived settings; only the minutes and the seed are given.
Validation runs once, after the last step, so the scored weights are not chosen by the photos that score them. `demo`
is scored on its test split; the other two have no third split and are scored on their validation photos:

- `hammer`: train on `hammer_train` (244 photos), score on `hammer_validate` (64);
- `fruits`: the photos at positions 0, 5, 10 and 15 in order of image id are scored, the other 14 train.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import maskwright as mw
from machine import describe

MINUTES = {"demo": 4.0, "hammer": 10.0, "fruits": 5.0}
SHOWN = ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "bbox/AP50")


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


def run(name: str, minutes: float, seed: int, shared: Path, folder: Path) -> str:
    """Prepare, train, predict and score one set; return a line for people."""
    data = folder / "data"
    mw.prepare(raw_folder(name, shared, folder), out=data)
    started = time.perf_counter()
    mw.train(data, folder / "run", minutes=minutes, seed=seed, validations=1, say=print)
    trained = time.perf_counter() - started
    split = "test" if name == "demo" else "val"
    mw.predict(folder / "run", data, folder / "predictions", split=split)
    result = mw.evaluate(data / "annotations" / f"instances_{split}.json", folder / "predictions" / "detections.json")
    steps = json.loads((folder / "run" / "run.json").read_text())["step"]
    scores = "  ".join(f"{key} {result.metrics[key]:.3f}" for key in SHOWN)
    interval = result.intervals.get("segm/AP")
    spread = f" (95%: {interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    return f"{name:<7} seed {seed}  {trained / 60:.1f} min  {steps} steps  {scores}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["demo", "hammer", "fruits"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out", type=Path, help="keep the results there")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    options = parser.parse_args()
    lines = []
    with TemporaryDirectory() as temporary:
        for name in options.sets:
            folder = (options.out or Path(temporary)) / name
            lines.append(run(name, options.minutes or MINUTES[name], options.seed, options.shared, folder))
            print(lines[-1], flush=True)
    print(describe())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
