"""Throw thousands of random corruptions of valid inputs of every form at `prepare`.

Bytes are changed, files cut, exchanged, removed, made folders or links that lead outside or round in circles; keys of
JSON are dropped, repeated and retyped; words of text files and XML are changed; pictures are painted anew, resized and
declared huge. What must hold is in `tests/fuzz_world.py`: a refusal in words that leaves nothing behind, or a dataset
that keeps all rules and accounts for every file; nothing written outside; never over 2 GB.

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

from fuzz_world import INPUTS, trial
from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description="Corrupt inputs at random and prepare them.")
    parser.add_argument("--trials", type=int, default=10_000, help="corruptions in all, over all forms")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--forms", nargs="*", default=list(INPUTS), help="which forms")
    chosen = parser.parse_args()
    warnings.simplefilter("error")
    print(describe())
    each = -(-chosen.trials // len(chosen.forms))
    began, failures = time.perf_counter(), 0
    for name in chosen.forms:
        ends: Counter[str] = Counter()
        for seed in range(chosen.first, chosen.first + each):
            folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
            try:
                ends[trial(name, seed, folder)] += 1
            except Exception:
                ends["FAILED"] += 1
                failures += 1
                print(f"{name!r}, seed {seed}:\n{traceback.format_exc(limit=-4)}", flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        print(f"{name:24s} " + ", ".join(f"{end} {count:,}" for end, count in sorted(ends.items())), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{each * len(chosen.forms):,} corruptions, {failures} failures, peak memory {peak:.2f} GiB,"
        f" {time.perf_counter() - began:.0f} s"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
