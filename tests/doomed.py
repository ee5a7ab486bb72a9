"""A training in a process of its own that ends by `kill -9` at a chosen moment; no test, but what tests start.

    python doomed.py DATA RUN MOMENT NUMBER SETTINGS_JSON [--resume]

MOMENT is `step` (in the middle of step NUMBER), `checkpoint` (when half of checkpoint NUMBER is written), `between`
(after checkpoint NUMBER, before the last weights), `best` (when half of best weights NUMBER are written) or `never`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from maskwright import run as run_module
from maskwright import train as _verb  # noqa: F401  (the function; the module is below)
from maskwright.run import BEST, RESUME
from maskwright.step import Stepper

train = sys.modules["maskwright.train"]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def doom(moment, number):
    """Arrange for the death of this process."""
    count = {"step": 0, "checkpoint": 0, "between": 0, "best": 0}
    plain_step, plain_save = Stepper._gradient, run_module.save

    def comes(what):
        count[what] += 1
        return what == moment and count[what] == number

    def gradient(self, batch, step):
        losses = plain_step(self, batch, step)
        if comes("step"):
            die()
        return losses

    writing = {"name": ""}
    plain_atomic = run_module.atomic_file

    def atomic_file(path):
        writing["name"] = path.name
        return plain_atomic(path)

    def save(tensors, metadata):
        content = plain_save(tensors, metadata)
        what = {Path(RESUME).name: "checkpoint", Path(BEST).name: "best"}.get(writing["name"], "between")
        if comes(what):
            if what != "between":
                writing["handle"].write(content[: len(content) // 2])
                writing["handle"].flush()
            die()
        return content

    class Spied:
        def __init__(self, path):
            self.inner = atomic_file(path)

        def __enter__(self):
            writing["handle"] = self.inner.__enter__()
            return writing["handle"]

        def __exit__(self, *more):
            return self.inner.__exit__(*more)

    Stepper._gradient = gradient
    run_module.save = save
    run_module.atomic_file = Spied


if __name__ == "__main__":
    data, out, moment, number, settings = sys.argv[1:6]
    doom(moment, int(number))
    train.CHECKPOINT_EVERY_S = 0.0
    train.train(data, out, resume="--resume" in sys.argv, **json.loads(settings))
