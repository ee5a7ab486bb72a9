import pytest
from pydantic import ValidationError

from maskwright import settings
from maskwright.errors import UserError
from maskwright.settings import (
    EvaluateSettings,
    ImportSettings,
    PredictSettings,
    PrepareSettings,
    Settings,
    TrainSettings,
)

ALL = [kind for kind in vars(settings).values() if isinstance(kind, type) and issubclass(kind, Settings)]


def test_unknown_name_offers_the_nearest_and_the_known():
    with pytest.raises(UserError) as caught:
        TrainSettings.parse({"minuts": 3})
    text = str(caught.value)
    assert text.startswith("there is no setting of this name\n  minuts; did you mean 'minutes'?\nfix: known: ")
    assert "learning_rate" in text


def test_value_out_of_range_is_quoted_with_its_name():
    with pytest.raises(UserError) as caught:
        EvaluateSettings.parse({"iou": 1.5})
    assert str(caught.value) == (
        "a setting has a value that it cannot have\n"
        "  iou (--iou) is 1.5: input should be less than or equal to 1\n"
        "fix: give another value"
    )


def test_word_that_is_not_a_choice_lists_the_choices():
    with pytest.raises(
        UserError, match=r"form \(--form\) is 'idz': input should be 'categories', 'instances' or 'ids'"
    ):
        PredictSettings.parse({"form": "idz"})


def test_all_faults_are_told_at_once():
    with pytest.raises(UserError) as caught:
        TrainSettings.parse({"stps": 1, "side": 3, "batch_size": 0})
    assert [p.what for p in caught.value.problems] == [
        "there is no setting of this name",
        "a setting has a value that it cannot have",
    ]
    assert len(caught.value.problems[1].where) == 2


def test_settings_are_frozen():
    chosen = PrepareSettings.parse({})
    with pytest.raises(ValidationError, match="frozen"):
        chosen.parts = "separate"
    assert chosen.parts == "together"


@pytest.mark.parametrize("kind", ALL)
def test_defaults_are_valid_and_survive_json(kind):
    chosen = kind.parse({})
    assert kind.model_validate_json(chosen.model_dump_json()) == chosen


@pytest.mark.parametrize("kind", ALL)
def test_every_setting_says_what_it_is(kind):
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("kind", ALL)
def test_settings_know_nothing_of_the_number_of_classes(kind):
    known = set(kind.model_fields)
    if kind is ImportSettings:  # names, for heads that come without data
        known -= {"categories"}
    assert not {"classes", "num_classes", "categories"} & known


def test_a_file_of_weights_is_the_same_one_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = TrainSettings(weights="body.pth", seed=3).with_absolute_paths()
    assert (whole.weights, whole.seed) == (str(tmp_path / "body.pth"), 3)
    assert whole.with_absolute_paths() == whole
    for name in (None, "none", "imagenet", "coco"):
        assert TrainSettings(weights=name).with_absolute_paths().weights == name


def test_a_setting_is_named_as_it_is_typed():
    with pytest.raises(UserError, match=r"  val_share \(--val-share\) is 2.0: input should be less than or equal to 1"):
        PrepareSettings.parse({"val_share": 2.0})
