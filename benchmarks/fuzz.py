"""Throw thousands of random corruptions of valid inputs of every form at `prepare`.

Bytes are changed, files cut, exchanged, removed, made folders or links that lead outside or round in circles; keys of
JSON are dropped, repeated and retyped; words of text files and XML are changed; pictures are painted anew, resized and
declared huge (`tests/fuzz_damage.py`). What is held (`tests/fuzz_trial.py`, `tests/fuzz_truth.py`):

- Undamaged, every input is read as what it was written from, object for object and pixel for pixel; masks in JPEG,
  which changes colours, with an IoU of at least 0.97 for each object, and then always the same.
- Damaged, it is refused in words and nothing is left behind; or a dataset is made. Never anything else is raised.
- An entry (an annotation, a region, a line, a mask file) that the damage left as it was gives the object that it gave
  before, if all else that the input says of its photo is as it was. So a photo whose own files are untouched keeps its
  objects; or `prepare.json` says that it is left out.
- Objects that were not there before are no more than the entries that are damaged; entries without an object are no
  more than `prepare.json` counts as left out or joined. A document that is neither JSON nor XML makes no dataset.
- Where the damage is in what all photos share (the names of categories), pixels are held and names are not. Where it is
  in what all objects of a photo share (its one mask image, its size), that photo's objects are not: nobody could know.
- Every file has its fate in `prepare.json`, whose counts are those of the dataset; masks, areas and boxes agree; photos
  are the input's, byte for byte; nothing is written outside; memory stays below 2 GB.

Printed is how inputs ended: `refused`; `whole`, a dataset with all objects that there were; `less`, some are not there;
`other`, damaged entries gave other objects.

    python benchmarks/fuzz.py --trials 10000
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz_trial import trial
from fuzz_world import INPUTS
from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description="Corrupt inputs at random and prepare them.")
    parser.add_argument("--trials", type=int, default=10_000, help="corruptions in all, over all forms")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--forms", nargs="*", default=list(INPUTS), help="which forms")
    chosen = parser.parse_args()
    warnings.simplefilter("error")
    if chosen.first < 1:
        parser.error("seeds start at 1: seed 0 leaves the input as it is, and is always tried")
    print(describe())
    each = -(-chosen.trials // len(chosen.forms))
    began, failures = time.perf_counter(), 0
    for name in chosen.forms:
        ends: Counter[str] = Counter()
        for seed in (0, *range(chosen.first, chosen.first + each)):
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            try:
                end = trial(name, seed, folder)
                assert seed or end == "whole", f"undamaged, it ended {end}"
                ends[end] += seed > 0
            except Exception:
                ends["FAILED"] += 1
                failures += 1
                print(f"{name!r}, seed {seed}:\n{traceback.format_exc(limit=-4)}", flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        print(f"{name:24s} " + ", ".join(f"{end} {count:,}" for end, count in sorted(ends.items())), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    failures += peak >= 2
    print(
        f"{each * len(chosen.forms):,} corruptions, {failures} failures, peak memory {peak:.2f} GiB,"
        f" {time.perf_counter() - began:.0f} s"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
