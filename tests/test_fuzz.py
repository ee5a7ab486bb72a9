"""A slice of the damage that inputs can have; `benchmarks/fuzz.py` does the long run."""

import resource

import pytest

from fuzz_world import INPUTS, trial

SLICE = 20


@pytest.mark.parametrize("name", INPUTS)
def test_valid_inputs_are_prepared(name, tmp_path):
    assert trial(name, 0, tmp_path) == "prepared"


@pytest.mark.parametrize("name", INPUTS)
def test_damage_is_refused_or_harmless(name, tmp_path):
    """Never a traceback, never a file outside the output, never a dataset that breaks a rule."""
    ends = []
    for seed in range(1, SLICE + 1):
        (tmp_path / str(seed)).mkdir()
        ends.append(trial(name, seed, tmp_path / str(seed)))
    assert set(ends) <= {"refused", "prepared"}
    assert "refused" in ends
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 1024**2  # kibibytes
