"""How long `maskwright --help` and the help of each verb take: medians, against the 0.6 s that they may take.

Run: python benchmarks/help.py [times]
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

VERBS = ("make", "prepare", "check", "train", "predict", "evaluate", "report", "masks", "settings", "demo")
LIMIT_S = 0.6


def seconds(tokens: list[str]) -> float:
    """Return the wall time of one run, from starting the process to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "maskwright.cli", *tokens], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(times: int = 11) -> int:
    """Print the median of each help; return 1 if one is over the limit."""
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {times} runs each")
    seconds(["--help"])  # the first run fills the file cache
    slow = False
    for tokens in (["--help"], *([verb, "--help"] for verb in VERBS)):
        median = statistics.median(seconds(tokens) for _ in range(times))
        slow |= median > LIMIT_S
        print(f"maskwright {' '.join(tokens):<16} {median:.3f} s   {median / LIMIT_S:.2f} of the limit")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:2])))
