"""The learning rate of every step, of both schedules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.schedule import rate, warm_up_steps
from test_plan import planned, split_of


def stock(photos=1000, **said):
    return planned(split_of(photos=photos), architecture="maskrcnn-r50-fpn", weights="none", **said)


@given(done=st.floats(0, 1))
def test_the_cosine_rises_over_a_twenty_fifth_and_falls_to_a_hundredth(done):
    made = planned(learning_rate=0.5, minutes=5)
    cosine = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done))
    assert rate(made, 7, done) == 0.5 * min(1.0, (done + 1e-3) / 0.04) * cosine


def test_steps_are_a_linear_warm_up_and_two_drops():
    made = stock()
    assert (made.settings.warmup, made.settings.drops, made.steps_per_epoch) == (500, (16, 22), 500)
    peak = made.settings.learning_rate
    assert peak == 0.0025
    assert rate(made, 0, 0.0) == pytest.approx(peak * 0.001)
    assert rate(made, 250, 0.01) == pytest.approx(peak * (0.001 + 0.999 / 2))
    assert rate(made, 500, 0.02) == peak
    assert rate(made, 16 * 500 - 1, 0.6) == peak
    assert rate(made, 16 * 500, 0.6) == pytest.approx(peak / 10)
    assert rate(made, 22 * 500, 0.9) == pytest.approx(peak / 100)


@pytest.mark.parametrize(("photos", "batch", "drop", "step"), [(5, 3, 3.0, 5), (5, 3, 21.0, 35), (7, 3, 3.0, 7)])
def test_a_drop_comes_with_the_step_that_begins_its_epoch(photos, batch, drop, step):
    made = stock(photos=photos, batch_size=batch, drops=(drop,), warmup=0, epochs=24)
    peak = made.settings.learning_rate
    assert rate(made, step - 1, 0.5) == peak
    assert rate(made, step, 0.5) == pytest.approx(peak / 10)


def test_in_minutes_the_drops_are_shares_of_them():
    made = stock(minutes=60)
    peak = made.settings.learning_rate
    shares = [rate(made, 10_000, done) / peak for done in (0.5, 2 / 3 + 1e-6, 0.9, 11 / 12 + 1e-6)]
    assert shares == pytest.approx([1, 0.1, 0.1, 0.01])


def test_in_minutes_a_warm_up_is_over_after_its_steps_or_a_tenth():
    made = stock(minutes=60)
    peak = made.settings.learning_rate
    for step, done in ((250, 0.0), (0, 0.05), (250, 0.05), (100, 0.05)):
        assert rate(made, step, done) == pytest.approx(peak * (0.001 + 0.999 / 2)), (step, done)
    assert rate(made, 0, 0.0) == pytest.approx(peak * 0.001)
    assert rate(made, 7, 0.1) == pytest.approx(peak)
    assert rate(made, 7, 0.5) == rate(made, 500, 0.01) == peak
    assert rate(stock(steps=10_000), 250, 0.1) == pytest.approx(peak * (0.001 + 0.999 / 2))  # these are known


def test_no_warm_up_starts_at_the_peak():
    made = stock(warmup=0)
    assert rate(made, 0, 0.0) == made.settings.learning_rate


@pytest.mark.parametrize(
    ("made", "step", "done", "steps"),
    [
        (planned(steps=1000), 7, 0.007, 40),
        (planned(minutes=60), 50, 0.01, 0.04 * 5000),
        (stock(epochs=24), 3, 3 / 12_000, 500),
        (stock(epochs=24, warmup=0), 3, 3 / 12_000, 0),
        (stock(minutes=60), 100, 0.01, 500),  # a tenth is 1,000 steps
        (stock(minutes=60), 100, 0.05, 200),  # a tenth is sooner
        (planned(steps=10), 1, 0.0, 0.4),
        (planned(minutes=60), 0, 0.0, 0),
    ],
)
def test_the_steps_of_a_warm_up_are_those_in_which_the_rate_rises(made, step, done, steps):
    assert warm_up_steps(made, step, done) == pytest.approx(steps)
