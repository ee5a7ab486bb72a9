"""Kill a training with `kill -9` at random moments, over and over, and compare its weights with an undisturbed one's.

    python benchmarks/kills.py DATA [--steps 60] [--kills 20] [--every 1.0] [--seed 0] [--side 128]

DATA is a folder that `maskwright prepare` wrote. Checkpoints are written every so many seconds, so that many kills fall
into the writing of one. Printed are how often it was killed, how many kills left a half-written checkpoint behind, and
whether the weights are the same to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORK = """
import sys
import maskwright.train
module = sys.modules["maskwright.train"]
module.CHECKPOINT_EVERY_S = float(sys.argv[3])
more = {"steps": int(sys.argv[4]), "side": int(sys.argv[5]), "validations": 2, "preflight": False, "workers": 1}
module.train(sys.argv[1], sys.argv[2], resume="resume" in sys.argv, **more)
"""
WEIGHTS = ("weights/last.safetensors", "weights/best.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=128)
    said = parser.parse_args()
    rng = random.Random(said.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, torn = Path(folder, "whole"), Path(folder, "torn")
        words = [str(said.every), str(said.steps), str(said.side)]
        subprocess.run([sys.executable, "-c", WORK, str(said.data), str(whole), *words], check=True)
        kills = fragments = 0
        while True:
            more = ["resume"] if (torn / "run.json").is_file() else []
            process = subprocess.Popen([sys.executable, "-c", WORK, str(said.data), str(torn), *words, *more])
            if kills < said.kills:
                wait_for_a_moment(process, torn, rng, said.every)
            if kills == said.kills or process.poll() is not None:
                assert process.wait() == 0
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            fragments += bool(list(torn.rglob(".*.part")))
        same = all(digest(whole / name) == digest(torn / name) for name in WEIGHTS)
    print(f"{kills} kills, {fragments} while a file was being written; weights the same to the byte: {same}")
    if kills < said.kills:
        print(f"the training ended before it was killed {said.kills} times: give more --steps")
    sys.exit(0 if same and kills else 1)


def wait_for_a_moment(process: subprocess.Popen[bytes], run: Path, rng: random.Random, every: float) -> None:
    """Wait for a random moment: one in five during the start, the others after a checkpoint or while one is written."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 5.0))
        return
    before = state(run)
    while process.poll() is None and state(run) == before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 2 * every + 0.5))


def state(run: Path) -> int:
    """Return when the last checkpoint was written; 0 if there is none."""
    path = run / "resume.safetensors"
    return path.stat().st_mtime_ns if path.is_file() else 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
