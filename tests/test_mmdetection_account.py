"""The account of a config: every value is told once, with a reason that fits its name."""

import pytest

from maskwright.mmdetection.account import KEYS, Account, Said, short, text
from maskwright.mmdetection.config import MARKS, Config
from maskwright.mmdetection.literals import Table, Where

HERE = Where("x.py", 1)


def tables(value):
    if isinstance(value, dict):
        return Table({k: tables(v) for k, v in value.items()}, dict.fromkeys(value, HERE))
    return [tables(one) for one in value] if isinstance(value, list) else value


def account(**values):
    return Account(Config(tables(values), "2.x", ("x.py",), (), ()))


def closed(*seen, **values):
    book = account(**values)
    for path in seen:
        book.find(path)
    book.close()
    return [(row.outcome, row.what) for row in book.rows]


def test_the_first_of_several_is_found_and_others_are_told_if_they_differ():
    book = account(a=1, b=1, c=2)
    assert book.find("x", "a", "b", "c") == Said("a", 1, HERE)
    assert [(row.what, row.why) for row in book.rows] == [("c", "a is what counts")]
    assert book.find("x") is None


@pytest.mark.parametrize(
    ("value", "whole", "fine"),
    [
        (3, True, True),
        (0.5, False, True),
        (0.5, True, False),
        ("3", True, False),
        (True, True, False),
        (-1, True, False),
        (float("nan"), False, False),
    ],
)
def test_a_number_is_a_number(value, whole, fine):
    book = account(a=value)
    assert (book.number("a", whole=whole) is not None) is fine
    assert len(book.rows) == (0 if fine else 1)


def test_nothing_is_not_a_number_and_needs_no_telling():
    book = account(a=None)
    assert book.number("a") is None
    assert book.rows == []


def test_a_setting_is_carried_if_it_can_have_the_value():
    book = account(a=12)
    assert book.carry("epochs", 12, book.find("a"), "the same")
    assert not book.carry("side", 12, book.find("a"), "the same")
    assert book.settings == {"epochs": 12}
    assert [(row.outcome, row.becomes, row.why) for row in book.rows] == [
        ("carried", "epochs 12", "the same"),
        ("dropped", "", "side cannot be 12: input should be greater than or equal to 64"),
    ]


def test_what_was_looked_at_is_not_told_again():
    assert closed("work_dir", "model.type", work_dir="w", model={"type": "MaskRCNN"}) == []


def test_the_rest_is_told_in_groups_of_one_reason():
    found = closed(
        "model.rpn_head.type",
        model={"rpn_head": {"type": "RPNHead", "in_channels": 256}, "neck": {"type": "FPN"}, "mine": 1},
        dist_params={"backend": "nccl"},
        cudnn_benchmark=True,
        optimizer={"nesterov": True},
    )
    assert found == [
        ("derived", "model.rpn_head.in_channels, model.neck"),
        ("dropped", "model.mine, optimizer"),
        ("derived", "dist_params, cudnn_benchmark"),
    ]


def test_values_of_one_table_share_its_name():
    assert closed("data.train.type", data={"train": {"type": "A", "x": 1, "y": 2}}) == [
        ("derived", "data.train.(x, y)")
    ]


def test_the_longest_name_that_is_known_gives_the_reason():
    book = account(default_hooks={"checkpoint": {"interval": 1}, "timer": {}})
    book.close()
    whys = {row.what: row.why for row in book.rows}
    assert whys["default_hooks.checkpoint"].startswith("a checkpoint every minute")
    assert whys["default_hooks.timer"] == "log.jsonl and TensorBoard"


def test_helpers_of_the_author_are_not_told():
    assert closed(data_root="a/", img_norm_cfg={}) == []


def test_the_names_that_tell_the_dialects_apart_are_known():
    assert MARKS["2.x"] | MARKS["3.x"] <= KEYS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"),
        (1e-5, "1e-05"),
        ((1333, 800), "1333, 800"),
        ([], "none"),
        (None, "none"),
        ({"a": 1}, '{"a": 1}'),
        ("x", "x"),
        ([0] * 1000, ", ".join(["0"] * 100)),
    ],
)
def test_values_are_written_as_people_do(value, words):
    assert text(value) == words


def test_long_texts_are_cut():
    assert short("x" * 61) == "x" * 60 + " ..."
    assert short("x" * 60) == "x" * 60
