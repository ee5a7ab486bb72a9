"""What every test shares: one thread per process, and the same random choices each time."""

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: with one test process per core, more threads only get in each other's way.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# What a shell starts in the background overlooks Ctrl-C, and so would what is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine, and no failure because a machine was busy.
settings.register_profile(
    "maskwright", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("maskwright")


@pytest.fixture
def taken_for_former(monkeypatch):
    """Let any folder pass for a former output, so that what else is refused of it shows."""
    monkeypatch.setattr("maskwright.outputs.irreplaceable", lambda *_args, **_kwargs: None)


@pytest.fixture(autouse=True)
def _one_thread():
    """Keep torch to one thread, without importing it for the tests that do not."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)
