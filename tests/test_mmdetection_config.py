"""A config with the files that it builds on: inherited as mmengine does, and bounded in what is opened."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.errors import UserError
from maskwright.mmdetection import config as module
from maskwright.mmdetection.config import MOST_BYTES, MOST_FILES, Idle, merged, read_config
from maskwright.mmdetection.literals import Table, Where

# Merging


def tables(value):
    return Table({k: tables(v) for k, v in value.items()}) if isinstance(value, dict) else value


# Dicts of one shape: at a name there is always a number, or always a dict.
shapes = st.recursive(
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2),
    lambda inner: st.fixed_dictionaries({}, optional={"a": st.integers(0, 9), "x": inner, "y": inner}),
    max_leaves=8,
).map(tables)


@given(shapes)
def test_merging_with_nothing_changes_nothing(table):
    assert merged(table, Table()) == table
    assert merged(Table(), table) == table
    assert merged(table, table) == table


@given(shapes, shapes, shapes)
def test_merging_three_files_in_either_order_is_the_same(a, b, c):
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(shapes, shapes)
def test_what_the_child_says_holds_and_what_it_leaves_stays(child, base):
    both = merged(child, base)
    assert set(both) == {*child, *base}
    for name, value in both.items():
        if not isinstance(value, dict):
            assert value == (child[name] if name in child else base[name])
        else:
            assert {*child.get(name, {})} <= set(value)


@given(shapes, shapes, st.sampled_from("xy"))
def test_delete_drops_what_the_base_has(child, base, name):
    inner = Table({**child, "_delete_": True})
    assert merged(Table({name: inner}), Table({name: base}))[name] == child


@given(shapes, shapes)
def test_merging_leaves_its_parts_as_they_were(child, base):
    before = repr(child), repr(base)
    merged(child, base)
    assert (repr(child), repr(base)) == before


def test_lists_are_replaced_as_a_whole():
    assert merged(Table({"a": [1]}), Table({"a": [2, 3]})) == {"a": [1]}


def test_a_merged_value_keeps_its_place():
    first, second, ninth = Where("b.py", 1), Where("b.py", 2), Where("c.py", 9)
    base = Table({"a": Table({"x": 1, "y": 2}, {"x": first, "y": second})}, {"a": first})
    child = Table({"a": Table({"x": 5}, {"x": ninth})}, {"a": ninth})
    both = merged(child, base)
    assert both.where == {"a": ninth}
    assert both["a"].where == {"x": ninth, "y": second}


# Files


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files from a dict of path and text, and go where they are."""
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    return write


def said(path):
    with pytest.raises(UserError) as caught:
        read_config(path)
    return str(caught.value)


def test_bases_are_found_beside_and_above(write):
    write(
        configs__base__model="model = dict(type='MaskRCNN', depth=50, neck=dict(type='FPN'))",
        configs__base__run="lr = 0.02\ntimes = [1, 2]",
        configs__mine__parent="_base_ = ['../base/model.py', '../base/run.py']\nmodel = dict(depth=101)",
        configs__mine__child="_base_ = './parent.py'\ntimes = [3]\n"
        "model = dict(neck=dict(_delete_=True, type='PAFPN', outs=5))",
    )
    config = read_config("configs/mine/child.py")
    assert config.values == {
        "model": {"type": "MaskRCNN", "depth": 101, "neck": {"type": "PAFPN", "outs": 5}},
        "lr": 0.02,
        "times": [3],
    }
    assert config.files == (
        "configs/mine/child.py",
        "configs/mine/parent.py",
        "configs/base/model.py",
        "configs/base/run.py",
    )
    assert config.absent == ()


def test_a_value_is_found_by_its_path_with_its_place(write):
    write(
        base="model = dict(\n    depth=50,\n    heads=[dict(n=80)])", child="_base_ = 'base.py'\nmodel = dict(depth=18)"
    )
    config = read_config("child.py")
    assert config.find("model.depth") == (18, Where("child.py", 2))
    assert config.find("model.heads.0.n") == (80, Where("base.py", 3))
    for path in ("model.width", "model.depth.x", "model.heads.1", "model.heads.n", "heads", ""):
        assert config.find(path) is None


def test_a_changed_base_variable_changes_the_base_alone(write):
    write(
        base="loader = dict(size=1)\ntest_loader = loader\noptim = dict(type='A')",
        child="_base_ = 'base.py'\n_base_.loader.size = 2\noptim = dict(type='B')\nx = _base_.loader",
    )
    assert read_config("child.py").values == {
        "loader": {"size": 2},
        "test_loader": {"size": 1},
        "optim": {"type": "B"},
        "x": {"size": 2},
    }


def test_names_that_nothing_uses_are_told(write):
    write(
        base="root = 'a/'\nold = [1]\ndata = dict(ann=root + 'x.json', pipeline=old)\nspare = 1",
        child="_base_ = 'base.py'\nroot = 'b/'\nold = [2]\ny = _base_.spare",
    )
    idle = read_config("child.py").idle
    assert set(idle) == {
        Idle("data", Where("base.py", 3), None),
        Idle("root", Where("child.py", 2), Where("base.py", 1)),
        Idle("old", Where("child.py", 3), Where("base.py", 2)),
        Idle("y", Where("child.py", 4), None),
    }


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("data = dict()\nlr_config = dict()", "2.x"),
        ("train_dataloader = dict()\nparam_scheduler = []", "3.x"),
        ("model = dict()", "2.x"),
        ("_base_ = '../_base_/models/mask-rcnn_r50_fpn.py'", "3.x"),
        ("_base_ = '../_base_/models/mask_rcnn_r50_fpn.py'", "2.x"),
        ("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'", "3.x"),
        ("_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\ndata = dict()", "2.x"),
    ],
)
def test_the_dialect_is_told_by_names(write, text, dialect):
    write(x=text)
    assert read_config("x.py").dialect == dialect


def test_the_dialect_is_told_by_the_files_that_a_config_builds_on(write):
    write(base="optim_wrapper = dict()", x="_base_ = 'base.py'\nmodel = dict()")
    assert read_config("x.py").dialect == "3.x"


def test_a_well_known_base_that_is_not_there_is_assumed(write):
    write(cfg__x="_base_ = ['../_base_/schedules/schedule_2x.py']\noptimizer = dict(lr=0.0025)")
    config = read_config("cfg/x.py")
    assert config.absent == ("_base_/schedules/schedule_2x.py",)
    assert config.find("optimizer.lr") == (0.0025, Where("cfg/x.py", 2))
    value, where = config.find("runner.max_epochs")
    assert value == 24
    assert str(where) == "assumed, since _base_/schedules/schedule_2x.py is not there"


def test_a_well_known_base_beside_the_config_is_assumed_too(write):
    write(cfg__x="_base_ = './coco_instance.py'\ndata = dict(samples_per_gpu=1)")
    assert read_config("cfg/x.py").find("data.train.ann_file")[0] == "data/coco/annotations/instances_train2017.json"


def test_other_bases_that_are_not_there_are_all_listed(write):
    write(
        cfg__x="_base_ = ['../_base_/models/mine.py', '../_base_/datasets/hammer.py', '../_base_/default_runtime.py',"
        " 'mmdet::ssd/ssd300_coco.py']",
    )
    assert said("cfg/x.py") == (
        "the config builds on files that are not there\n"
        "  _base_/models/mine.py, named in cfg/x.py\n"
        "  _base_/datasets/hammer.py, named in cfg/x.py\n"
        "  mmdet::ssd/ssd300_coco.py, named in cfg/x.py\n"
        "fix: copy them from the MMDetection that it was used with, in the same folders; or give the config that"
        " MMDetection wrote beside the training: work_dirs/NAME/CONFIG.py has every value and no code"
    )


def test_the_config_itself_must_be_there(write):
    assert said("nowhere.py") == "the config is not there\n  nowhere.py\nfix: name a .py file of MMDetection"


def test_code_is_told_for_every_file(write):
    write(base="import os\na = 1", x="_base_ = 'base.py'\nb = [i for i in 'ab']")
    assert said("x.py").splitlines()[:3] == [
        "the config holds code, and code of a config is not run",
        "  base.py:1: an import (import os)",
        "  x.py:2: a loop ([i for i in 'ab'])",
    ]


def test_a_config_of_the_new_kind_is_told_how_to_be_flattened(write):
    write(x="with read_base():\n    from .a import *")
    assert said("x.py") == (
        "the config is of the new kind, which imports its bases\n  x.py:1: with read_base()\nfix: give the config that"
        " MMDetection wrote beside the training: work_dirs/NAME/CONFIG.py has every value and no code"
    )


def test_a_dict_over_something_else_is_refused(write):
    write(base="a = dict(b=[1])", x="_base_ = 'base.py'\na = dict(b=dict(c=1))")
    assert said("x.py") == (
        "the config does not fit the files that it builds on\n"
        "  x.py:2: 'b' is a dict here and is none in base.py:1; _delete_=True would drop the latter\n"
        "fix: mend the config"
    )


def test_bases_must_not_set_the_same_name(write):
    write(a="x = 1\ny = 1", b="x = 2", c="_base_ = ['a.py', 'b.py']")
    assert "  c.py: several of its bases set x\n" in said("c.py")


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("'/etc/x.py'", "x.py: its _base_ '/etc/x.py' is not a path relative to the file"),
        ("'https://a.b/x.py'", "x.py: its _base_ 'https://a.b/x.py' is not a path relative to the file"),
        ("'a.yaml'", "a.yaml: only .py files are read"),
        ("'x.py'", "x.py: it builds on itself"),
        ("'broken.py'", "broken.py:2: invalid syntax"),
        ("'latin.py'", "latin.py: it is not UTF-8"),
        ("'null.py'", "null.py: source code string cannot contain null bytes"),
        ("'nested.py'", "nested.py: it is nested too deeply"),
        ("'brackets.py'", "brackets.py:1: too many nested parentheses"),
        ("'link.py'", "link.py: only .py files are read"),
        ("'large.py'", f"large.py: with it the config has more than {MOST_BYTES:,} bytes"),
        ("f()", "x.py:1: a call of f, in _base_"),
        ("[1]", "x.py:1: something that is not a path or a list of paths, in _base_"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(write, tmp_path, base, line):
    (tmp_path / "a.yaml").write_text("a: 1")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    (tmp_path / "large.py").write_text("#" * MOST_BYTES)
    (tmp_path / "link.py").symlink_to(tmp_path / "a.yaml")
    write(
        x=f"_base_ = {base}", broken="a = 1\nb = = 2", nested="a = " + "-" * 100_000 + "1", brackets="a = " + "[" * 999
    )
    assert f"  {line}\n" in said("x.py")


def test_bases_are_looked_for_where_a_linked_config_is_and_not_where_it_leads(write, tmp_path):
    write(far__x="_base_ = 'base.py'\na = 1", base="b = 2")
    (tmp_path / "x.py").symlink_to(tmp_path / "far" / "x.py")
    assert read_config("x.py").values == {"a": 1, "b": 2}


def test_a_circle_of_files_is_refused(write):
    write(a="_base_ = 'b.py'", b="_base_ = 'c.py'", c="_base_ = './a.py'")
    assert "  a.py: it builds on itself\n" in said("a.py")


def test_a_pipe_is_not_opened(write, tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    write(x="_base_ = 'pipe.py'")
    assert "  pipe.py, named in x.py\n" in said("x.py")


def test_the_number_of_files_is_bounded(write):
    write(**{f"f{n}": f"_base_ = ['f{n + 1}.py', 'f{n + 1}.py']" for n in range(30)}, f30="x = 1")
    assert f"  f0.py: it builds on more than {MOST_FILES} files\n" in said("f0.py")


def test_the_bytes_of_all_files_are_bounded(write, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 300)
    write(a="_base_ = ['b.py', 'c.py']", b="x = 1 #" + "." * 150, c="y = 1 #" + "." * 150)
    assert "  c.py: with it the config has more than 300 bytes\n" in said("a.py")


@pytest.mark.parametrize(
    "text",
    [
        "a = dict(x=1)\n" + "a = dict(x=a, y=a)\n" * 40,
        "a = [1]\n" + "a = [a, a]\n" * 40,
        "a = 'x' * 10 ** 9",
    ],
)
def test_few_lines_that_make_very_many_values_are_refused(write, monkeypatch, text):
    monkeypatch.setattr(module, "MOST_VALUES", 10_000)
    write(x=text)
    assert said("x.py") == "the config makes more than 10,000 values\n  x.py\nfix: look into it"


@pytest.mark.parametrize(
    "text", ["a = [0]\na[0] = a", "a = 1\n" + "a = dict(x=a)\n" * 5_000, "a = " + "1+" * 90_000 + "1"]
)
def test_nesting_without_an_end_is_refused(write, text):
    write(x=text)
    assert "nested too deeply" in said("x.py") or "recursion" in said("x.py")


def test_odd_escapes_are_the_authors_business(write):
    write(x="a = '\\d'")
    assert read_config("x.py").values == {"a": "\\d"}


def test_a_mark_at_the_begin_of_the_file_is_no_fault(write, tmp_path):
    (tmp_path / "x.py").write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_config("x.py").values == {"a": 1}
