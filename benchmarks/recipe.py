"""What each part of the recipe is worth: the same training with and without it, on three sets.

    python benchmarks/recipe.py [demo] [hammer] [fruits] [--row NAME ...] [--seeds 1] [--results rows.jsonl]
    python benchmarks/recipe.py hammer-fruits demo-fruits demo-hammer
    python benchmarks/recipe.py [demo] [hammer] [fruits] --of FOLDER [--row NAME ...] [--seeds 3]

A row is `maskrcnn-nano` as it is planned, with one thing changed. All trainings of a set have the same number of steps,
a third to a half of what a few minutes give, so that the figures do not depend on how busy the machine is; what a row
costs is its time per step beside them. The sets and their splits are those of `accuracy.py`, prepared once in `--work`.
Validation runs once, after the last step. Rows that only change how objects are found use the weights of `as planned`;
with `--of FOLDER` those of the finished trainings of `accuracy.py --out FOLDER`, and only such rows are run.

None of the three has rare categories. `photos of rare categories repeated` and its `as planned` run on mixtures of two
of them, one of which gives 14 training photos only: `hammer-fruits`, `demo-fruits`, `demo-hammer`.

Every finished row is a line of the results file, and rows that are in it are not run again: several calls, each pinned
to a core of its own, can share the work. At the end all rows of the file are printed, with the difference to `as
planned` of the same seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import maskwright as mw
from accuracy import raw_folder
from machine import describe
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.models import ARCHITECTURES, maskrcnn

STEPS = {"demo": 400, "hammer": 400, "fruits": 250, "hammer-fruits": 400, "demo-fruits": 400, "demo-hammer": 400}
SETS = ("demo", "hammer", "fruits")
FEW = 14  # training photos of the rare part of a mixture
SHOWN = ("segm/AP", "segm/AP75", "boundary/AP", "bbox/AP")
NANO = "maskrcnn-nano"
PLANNED = "as planned"
REPEATED = "photos of rare categories repeated"
BACKGROUNDS = {"demo": "hammer", "hammer": "fruits", "fruits": "hammer"}
"""Over whose photos objects are pasted by `composed`: sets that show none of the category."""


@contextmanager
def sizes(**changed: Any) -> Iterator[None]:
    """Build the network with other sizes inside the block."""
    usual = ARCHITECTURES[NANO]
    ARCHITECTURES[NANO] = lambda given, weights: usual({**given, **changed}, weights)
    try:
        yield
    finally:
        ARCHITECTURES[NANO] = usual


def instead(name: str, function: Callable[..., Any]) -> Callable[[], AbstractContextManager[Any]]:
    """Return what puts a function in the place of one that detection calls."""
    return lambda: patch.object(maskrcnn, name, function)


def settings_row(**settings: Any) -> dict[str, Any]:
    return {"settings": settings}


ROWS: dict[str, dict[str, Any]] = {
    PLANNED: {},
    "large-scale jitter": settings_row(scale_jitter=3.0),
    "no jitter of scale": settings_row(scale_jitter=1.0),
    "copy-paste": settings_row(copy_paste=0.5),
    "composed pictures": {"composed": True},
    "EMA": settings_row(ema=0.99),
    "masks of 28 x 28": {"network": lambda: sizes(mask_side=28)},
    "a plain finest map": {"network": lambda: sizes(fine_channels=32, fine_layers=1)},
    "scores of boxes alone": {"found": instead("sureness", lambda masks: torch.ones_like(masks[:, 0, 0]))},
    # Boxes without size are not taken; what they overlap by is then that of the box head's, which was judged before.
    "boxes of the box head": {"found": instead("outline_boxes", lambda masks, windows: torch.zeros_like(windows))},
    "test-time flips": {"predict": {"test_time_flip": True}},
    REPEATED: settings_row(repeat_rare=0.5),
}


def rows_of(name: str) -> list[str]:
    """Return the rows that say something about a set."""
    return [PLANNED, REPEATED] if "-" in name else [row for row in ROWS if row != REPEATED]


def scored_split(name: str) -> str:
    return "test" if name == "demo" else "val"


def scores(name: str, data: Path, run: Path, out: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Find objects and score them."""
    split = scored_split(name)
    with row.get("network", nullcontext)(), row.get("found", nullcontext)():
        mw.predict(run, data, out, split=split, overwrite=True, **row.get("predict", {}))
    truth = data / "annotations" / f"instances_{split}.json"
    result = mw.evaluate(truth, out / "detections.json", boundary=True, bootstrap=0)
    found: dict[str, Any] = {key: result.metrics[key] or 0.0 for key in SHOWN}
    if len(result.categories) > 1:
        found["segm/AP of"] = {one["name"]: one["metrics"]["segm/AP"] for one in result.categories}
    return found


def prepared(name: str, shared: Path, work: Path) -> Path:
    """Return the data folder of a set, made once."""
    data = work / name / "data"
    if not data.exists() and "-" in name:
        common, rare = (prepared(part, shared, work) for part in name.split("-"))
        mixed(name, common, rare, data)
    elif not data.exists():
        mw.prepare(raw_folder(name, shared, work / name), out=data)
    return data


def mixed(name: str, common: Path, rare: Path, out: Path) -> None:
    """Write a data folder of two: all training photos of the one, the first few of the other, all that are scored."""
    categories: list[Category] = []
    parts: dict[str, tuple[list[Image], list[Annotation]]] = {"train": ([], []), "val": ([], [])}
    for source, of in zip((common, rare), name.split("-"), strict=True):
        known: dict[int, int] = {}
        for split, (images, objects) in parts.items():
            data = Dataset.read_split(source, split if split == "train" else scored_split(of))
            assert data is not None
            for category in data.categories:
                if category.id not in known:
                    known[category.id] = len(categories) + 1
                    categories.append(Category(len(categories) + 1, f"{category.name} ({of})"))
            (out / split).mkdir(parents=True, exist_ok=True)
            most = FEW if split == "train" and source == rare else len(data.images)
            for position, image in enumerate(data.images[:most]):
                file = f"{of}-{Path(image.file_name).name}"
                (out / split / file).hardlink_to(data.photo_path(image))
                images.append(replace(image, id=len(images) + 1, file_name=file))
                for k in range(int(data.first[position]), int(data.first[position + 1])):
                    one = data.annotation(k)
                    kind = known[one.category_id]
                    objects.append(replace(one, id=len(objects) + 1, image_id=len(images), category_id=kind))
    for split, (images, objects) in parts.items():
        whole = Dataset.build(categories, images, objects, folder=out / split)
        whole.write(out / "annotations" / f"instances_{split}.json")


def composed(name: str, data: Path, shared: Path, work: Path) -> Path:
    """Return a data folder with as many pasted pictures as photos, and these."""
    out = work / name / "composed"
    if not out.exists():
        backgrounds = prepared(BACKGROUNDS[name], shared, work) / "train"
        mw.compose(data, backgrounds, out, with_originals=True)
    return out


def run(name: str, row_name: str, seed: int, shared: Path, work: Path) -> dict[str, Any]:
    """Train, find and score one row of one set."""
    row, data = ROWS[row_name], prepared(name, shared, work)
    folder = work / name / f"{row_name.replace(' ', '-')}-{seed}"
    planned = work / name / f"{PLANNED.replace(' ', '-')}-{seed}" / "run"
    trains = row_name == PLANNED or not ({"found", "predict"} & row.keys())
    started = time.process_time()
    if trains:
        source = composed(name, data, shared, work) if row.get("composed") else data
        with row.get("network", nullcontext)():
            mw.train(
                source,
                folder / "run",
                overwrite=True,
                steps=STEPS[name],
                seed=seed,
                validations=1,
                preflight=False,
                **row.get("settings", {}),
            )
    elif not planned.exists():
        raise SystemExit(f"{row_name!r} needs the weights of {PLANNED!r}: run that row first")
    took = time.process_time() - started
    found = scores(name, data, folder / "run" if trains else planned, folder / "predictions", row)
    return {"set": name, "row": row_name, "seed": seed, "cpu_s": took / STEPS[name] if trains else None, **found}


def found_anew(name: str, row_name: str, seed: int, done: Path) -> dict[str, Any]:
    """Find and score one row with the weights of a finished training."""
    row, run = ROWS[row_name], done / name / f"maskwright-{seed}" / "run"
    steps = json.loads((run / "run.json").read_text())["step"]
    found = scores(name, done / name / "data", run, done / name / "found-anew", row)
    return {"set": name, "row": row_name, "seed": seed, "steps": steps, "cpu_s": None, **found}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of one table per set."""
    for name in sorted({row["set"] for row in rows}):
        mine = [row for row in rows if row["set"] == name]
        base = {row["seed"]: row for row in mine if row["row"] == PLANNED}
        steps = {row.get("steps", STEPS[name]) for row in mine}
        yield f"{name}, {min(steps)} to {max(steps)} steps"
        for row_name in rows_of(name):
            these = [row for row in mine if row["row"] == row_name and row["seed"] in base]
            if not these:
                continue
            shown = []
            for key in SHOWN:
                text = f"{key} {statistics.mean(row[key] for row in these):.3f}"
                if row_name != PLANNED:
                    text += f" ({statistics.mean(row[key] - base[row['seed']][key] for row in these):+.3f})"
                shown.append(text)
            for kind in these[0].get("segm/AP of", {}):
                shown.append(f"{kind} {statistics.mean(row['segm/AP of'][kind] or 0.0 for row in these):.3f}")
            cost = [row["cpu_s"] for row in these if row["cpu_s"]]
            time_ = f"  {statistics.mean(cost):.2f} s of processor a step" if cost else ""
            yield f"  {row_name:<35}{len(these)} seeds  " + "  ".join(shown) + time_


def finished(results: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def main() -> None:
    """Run what is missing and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only these; default: all")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--of", type=Path, metavar="FOLDER", help="what accuracy.py --out has left")
    parser.add_argument("--work", type=Path, default=Path("recipe-work"), help="data and runs are kept there")
    parser.add_argument("--results", type=Path, default=Path("recipe.jsonl"))
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    options = parser.parse_args()
    finding = [row_name for row_name, row in ROWS.items() if not row or {"found", "predict"} & row.keys()]
    for seed in range(options.seed, options.seed + options.seeds):
        for name in options.sets:
            for row_name in options.row or (finding if options.of else rows_of(name)):
                if any((r["set"], r["row"], r["seed"]) == (name, row_name, seed) for r in finished(options.results)):
                    continue
                if options.of:
                    done = found_anew(name, row_name, seed, options.of)
                else:
                    done = run(name, row_name, seed, options.shared, options.work)
                with options.results.open("a") as out:
                    out.write(json.dumps(done) + "\n")
                print(json.dumps(done), flush=True)
    print(describe())
    print("\n".join(table(finished(options.results))))


if __name__ == "__main__":
    main()
