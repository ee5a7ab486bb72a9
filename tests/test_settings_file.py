"""A file of settings, what is typed beside it, and what becomes of drops that were for another budget."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.errors import UserError
from maskwright.schedule import rate
from maskwright.settings import TrainSettings
from maskwright.settings_file import stored
from test_plan import planned, split_of


def fitted_in(tmp_path, document, **typed):
    path = tmp_path / "settings.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return stored(path, typed, TrainSettings)


def stored_in(tmp_path, document, **typed):
    return fitted_in(tmp_path, document, **typed)[0]


def test_without_a_file_what_was_typed_is_all():
    assert stored(None, {"seed": 3}, TrainSettings) == ({"seed": 3}, {})


def test_a_plan_is_a_settings_file(tmp_path):
    made = planned(seed=7, minutes=2.0)
    again = stored_in(tmp_path, made.model_dump_json())
    assert TrainSettings.parse(again) == made.settings


def test_settings_can_stand_alone_or_under_their_name(tmp_path):
    assert stored_in(tmp_path, {"seed": 1, "flip": None}) == {"seed": 1}
    assert stored_in(tmp_path, {"settings": {"seed": 1}, "made_by": {}}) == {"seed": 1}


def test_what_is_typed_wins_over_the_file(tmp_path):
    found = stored_in(tmp_path, {"seed": 1, "side": 512, "epochs": 24}, seed=2, minutes=3.0)
    assert found == {"seed": 2, "side": 512, "minutes": 3.0}
    assert stored_in(tmp_path, {"epochs": 24}, seed=2) == {"epochs": 24, "seed": 2}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"minuts": 1}, "there is no setting of this name\n  {}: minuts; did you mean 'minutes'?\nfix: known: "),
        (
            {"settings": {"side": 3}},
            "a setting has a value that it cannot have\n"
            "  {}: side (--side) is 3: input should be greater than or equal to 64\nfix: give another value",
        ),
        (
            {"epochs": 1, "steps": 2},
            "a setting has a value that it cannot have\n"
            "  {}: give one of minutes, epochs and steps, not epochs and steps",
        ),
        ([1], "the settings file holds no settings\n  {}: expected a JSON object of names and values"),
        ({"settings": 1}, "the settings file holds no settings\n  {}: expected a JSON object"),
        ("{", "the file is not valid JSON\n  {}: "),
    ],
)
def test_a_settings_file_that_cannot_be_is_refused(tmp_path, document, message):
    with pytest.raises(UserError) as caught:
        stored_in(tmp_path, document, steps=5)
    assert str(caught.value).startswith(message.format(tmp_path / "settings.json"))


def test_a_settings_file_must_be_there(tmp_path):
    with pytest.raises(UserError, match="the file does not exist"):
        stored(tmp_path / "none.json", {}, TrainSettings)


# A budget in the place of the file's

STOCK = {"architecture": "maskrcnn-r50-fpn", "schedule": "steps", "warmup": 500}
ONCE = STOCK | {"epochs": 12.0, "drops": [8, 11]}
TWICE = STOCK | {"epochs": 24.0, "drops": [16, 22]}


@pytest.mark.parametrize("document", [ONCE, TWICE], ids=["1x", "2x"])
@pytest.mark.parametrize("budget", [{"minutes": 10.0}, {"epochs": 3.0}, {"epochs": 48.0}, {"steps": 300}])
def test_the_rate_falls_at_the_same_shares_of_another_budget_and_the_warm_up_ends(tmp_path, document, budget):
    values, fitted = fitted_in(tmp_path, document, **budget)
    made = planned(split_of(photos=1000), fitted=fitted, **values)
    peak = made.settings.learning_rate
    # In minutes as many steps as fit; any number will do.
    whole = made.steps or 10_000
    shares = [rate(made, int(whole * done), done) / peak for done in (0.15, 0.65, 0.68, 0.9, 0.93)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_drops_are_brought_into_proportion_and_the_reasons_say_so(tmp_path):
    values, fitted = fitted_in(tmp_path, ONCE, minutes=10.0)
    assert (values["drops"], values["warmup"]) == ((16, 22), 500)  # of minutes it takes a tenth at most
    assert fitted == {"drops": "the settings file's 8 11 for its epochs 12, in proportion"}
    why = planned(fitted=fitted, **values).reasons["drops"].why
    assert why.startswith("the settings file's 8 11 for its epochs 12, in proportion (the rule: 16 22, epochs of 24, ")
    values, fitted = fitted_in(tmp_path, TWICE | {"drops": [18, 23]}, epochs=12.0)
    assert values["drops"] == (9, 11.5)
    assert fitted["warmup"] == "the settings file's 500 for its epochs 24 is left out"


def test_drops_that_cannot_be_brought_into_proportion_are_left_to_the_plan(tmp_path):
    values, fitted = fitted_in(tmp_path, ONCE, steps=300)
    assert {"drops", "warmup", "epochs"} & set(values) == set()
    made = planned(split_of(photos=100), fitted=fitted, **values)
    assert (made.settings.drops, made.settings.warmup) == ((4, 5.5), 30)  # 300 steps are six epochs
    assert made.reasons["drops"].source == made.reasons["warmup"].source == "derived"
    assert made.reasons["drops"].why.endswith("; the settings file's 8 11 for its epochs 12 are left out")


def test_what_is_typed_is_never_fitted(tmp_path):
    values, fitted = fitted_in(tmp_path, ONCE, steps=300, drops=(1.0,), warmup=400)
    assert (values["drops"], values["warmup"], fitted) == ((1.0,), 400, {})


@pytest.mark.parametrize(
    ("document", "typed"),
    [
        (ONCE, {"epochs": 12.0}),
        (ONCE, {"seed": 3}),
        (TWICE, {"minutes": 10.0}),
        ({"minutes": 5.0, "drops": [16, 22], "warmup": 500}, {"minutes": 10.0}),
        ({"drops": [8], "warmup": 5}, {"minutes": 10.0}),  # for no budget of the file's
        (ONCE | {"drops": [], "warmup": 0}, {"steps": 300}),  # the rate never drops, and there is no warm-up
    ],
)
def test_what_suits_the_budget_stays(tmp_path, document, typed):
    values, fitted = fitted_in(tmp_path, document, **typed)
    assert (values["drops"], values["warmup"]) == (document["drops"], document["warmup"])
    assert fitted == {}


def test_a_longer_training_keeps_the_warm_up(tmp_path):
    assert fitted_in(tmp_path, ONCE, epochs=24.0)[0] == TWICE | {"drops": (16, 22)}
    assert stored_in(tmp_path, STOCK | {"steps": 900, "drops": [2]}, steps=1800) == STOCK | {
        "steps": 1800,
        "drops": (4,),
    }


@given(
    length=st.integers(-5, 5) | st.floats() | st.text(max_size=3), name=st.sampled_from(["minutes", "epochs", "steps"])
)
def test_no_budget_that_is_typed_breaks_the_reading(tmp_path_factory, length, name):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(ONCE))
    assert stored(path, {name: length}, TrainSettings)[0][name] is length
