"""A config file is data: what it may hold gets its value, and everything else is refused by line, never run."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.errors import UserError
from maskwright.mmdetection.literals import MOST_TEMPLATES, Code, Evaluation, Table, Where


def evaluation(base=None, absent=(), budget=100_000):
    left = [budget]

    def spend(amount):
        left[0] -= amount
        if left[0] < 0:
            raise UserError("too many values")

    return Evaluation("cfg/x.py", Path("/place/cfg"), Table() if base is None else base, absent, spend)


def run(text, **given_ones):
    found = evaluation(**given_ones)
    return found.run(ast.parse(text)), found


def values(text, **given_ones):
    table, found = run(text, **given_ones)
    assert found.code == []
    return dict(table)


def refused(text, **given_ones):
    return run(text, **given_ones)[1].code


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda text: "{{" not in text),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4).filter(lambda text: "{{" not in text), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_every_literal_comes_back(value):
    assert values(f"x = {value!r}") == {"x": value}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}_", fullmatch=True), plain, max_size=5))
def test_a_dict_call_is_a_dict(entries):
    call = ", ".join(f"{name}={value!r}" for name, value in entries.items())
    assert values(f"x = dict({call})") == {"x": entries}


numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6)


@given(numbers, numbers, st.sampled_from("+-*"))
def test_arithmetic_is_pythons(left, right, sign):
    text = f"{left!r} {sign} {right!r}"
    assert values(f"x = {text}") == {"x": eval(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.02 / 8", 0.0025),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("2 ** 5", 32),
        ("-1", -1),
        ("+0.5", 0.5),
        ("'data/' + 'train/'", "data/train/"),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("(1,) + (2,)", (1, 2)),
        ("[0] * 3", [0, 0, 0]),
        ("2 * 'ab'", "abab"),
        ("[*[1, 2], 3]", [1, 2, 3]),
        ("{'a': 1, **dict(b=2)}", {"a": 1, "b": 2}),
        ("dict(dict(a=1), b=2)", {"a": 1, "b": 2}),
        ("len(('hammer', 'nut'))", 2),
        ("range(3)", [0, 1, 2]),
        ("range(0, 8, 2)", [0, 2, 4, 6]),
        ("tuple([1, 2])", (1, 2)),
        ("list((1, 2))", [1, 2]),
        ("[1, 2, 3][1:]", [2, 3]),
        ("'abc'[::-1]", "cba"),
        ("dict(a=[5, 6])['a'][-1]", 6),
        ("f'{1}x{0.5}y'", "1x0.5y"),
    ],
)
def test_what_a_config_may_do(text, value):
    assert values(f"x = {text}") == {"x": value}


def test_names_stand_for_what_was_set_before():
    text = (
        "root = 'data/'\nnorm = dict(mean=[1.0], std=[2.0])\nx = dict(ann=root + 'a.json', step=dict(type='N', **norm))"
    )
    assert values(text)["x"] == {"ann": "data/a.json", "step": {"type": "N", "mean": [1.0], "std": [2.0]}}


def test_a_later_value_takes_the_place_of_a_former():
    assert values("a = 1\nb = a\na = 2") == {"a": 2, "b": 1}
    assert values("a = b = 3\nc: int = a") == {"a": 3, "b": 3, "c": 3}


def test_docstrings_and_names_with_two_underscores_are_no_values():
    assert values('"""A config."""\n__version__ = "1"\npass\nx = 1') == {"x": 1}


def test_a_table_knows_where_its_values_were_written():
    table, _ = run("a = 1\nb = dict(\n    c=2,\n    d=dict(e=3))\n")
    assert table.where["a"] == Where("cfg/x.py", 1)
    assert str(table["b"].where["c"]) == "cfg/x.py:3"
    assert str(table["b"]["d"].where["e"]) == "cfg/x.py:4"


def test_parts_can_be_changed():
    text = "pipe = [dict(type='Resize', scale=1)]\npipe[0]['scale'] = 2\npipe[0]['keep'] = True"
    table, _ = run(text)
    assert table["pipe"] == [{"type": "Resize", "scale": 2, "keep": True}]
    assert str(table["pipe"][0].where["scale"]) == "cfg/x.py:2"


def test_the_base_can_be_referred_to_and_changed():
    base = Table({"a": Table({"b": [1, 2]}, {"b": Where("base.py", 1)})}, {"a": Where("base.py", 1)})
    table, found = run("x = _base_.a.b[1]\ny = {{_base_.a.b}}\nz = _base_['a']['b']\n_base_.a.c = 5", base=base)
    assert table == {"x": 2, "y": [1, 2], "z": [1, 2]}
    assert base == {"a": {"b": [1, 2], "c": 5}}
    assert found.used_of_base == {"a"}


def test_the_names_of_the_file_are_filled_in():
    text = "a = './work/{{ fileBasenameNoExtension }}'\nc = '{{ x }}'\n"
    text += "b = '{{fileDirname}}/{{ fileBasename }}{{ fileExtname }}'"
    assert values(text) == {"a": "./work/x", "b": "/place/cfg/x.py.py", "c": "{{ x }}"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import os", "1: an import (import os)"),
        ("from mmcv import Config", "1: an import (from mmcv import Config)"),
        ("x = 1\nos.system('true')", "2: a call of os.system"),
        ("x = __import__('os')", "1: a call of __import__"),
        ("x = open('/etc/passwd').read()", "1: a call of open('/etc/passwd').read"),
        ("x = eval('1')", "1: a call of eval"),
        ("x = [i for i in range(3)]", "1: a loop ([i for i in range(3)])"),
        ("x = {i: 1 for i in [1]}", "1: a loop ({i: 1 for i in [1]})"),
        ("x = 1 if True else 2", "1: a condition (1 if True else 2)"),
        ("x = 1 < 2", "1: a condition (1 < 2)"),
        ("x = lambda: 1", "1: a function (lambda: 1)"),
        ("def f():\n    return 1", "1: a function (def f():)"),
        ("class A:\n    pass", "1: a class (class A:)"),
        ("if True:\n    x = 1", "1: a condition (if True:)"),
        ("for i in [1]:\n    x = i", "1: a loop (for i in [1]:)"),
        ("try:\n    x = 1\nexcept E:\n    pass", "1: a try block (try:)"),
        ("x = 1\ndel x", "2: a deletion (del x)"),
        ("x = 1\nx += 1", "2: a change in place (x += 1)"),
        ("a, b = 1, 2", "1: an assignment to several names"),
        ("x = dict(a=1)\nx.update(b=2)", "2: a call of x.update"),
        ("x = dict(a=1, a=2)", "1: a dict(...) with a name twice"),
        ("x = range(1, 2, 0)", "1: a call of range"),
        ("x = range('a')", "1: a call of range"),
        ("x = dict(*[1])", "1: code (*[1])"),
        ("x = dict(**[1])", "1: a ** before something that is not a dict"),
        ("x = [*5]", "1: a * before something that is not a list"),
        ("x = {1, 2}", "1: code ({1, 2})"),
        ("x = {{y.z}}", "1: code ({{y.z}})"),
        ("x = {[1]: 2}", "1: a key that is not a word or a number"),
        ("x = y", "1: the name y, which is not set before"),
        ("x = dict", "1: the name dict, which is not set before"),
        ("x = _base_", "1: _base_ as a whole"),
        ("x = _base_.model", "1: _base_.model, which is not there"),
        ("x = 'a'.upper", "1: 'a'.upper, which is not there"),
        ("x = [1].__class__", "1: [1].__class__, which is not there"),
        ("x = [1][3]", "1: [1][3], which is not there"),
        ("x = [1]['a':]", "1: [1]['a':], which is not there"),
        ("x = [1][::0]", "1: [1][::0], which is not there"),
        ("x = [1]\nx[5] = 2", "2: a change of x[5], which is not there"),
        ("x = -'a'", "1: a sign before something that is not a number"),
        ("x = not True", "1: code (not True)"),
        ("x = b'a'", "1: code (b'a')"),
        ("x = 1j", "1: code (1j)"),
        ("x = ...", "1: code (...)"),
        ("x = 'a' - 'b'", "1: arithmetic of other things than numbers, texts and lists ('a' - 'b')"),
        ("x = '%s' % 'a'", "1: arithmetic of other things than numbers, texts and lists ('%s' % 'a')"),
        ("x = 1 << 70", "1: arithmetic of other things than numbers, texts and lists (1 << 70)"),
        ("x = 9 ** 9 ** 9", "1: arithmetic of other things than numbers, texts and lists (9 ** 9 ** 9)"),
        ("x = 1 / 0", "1: arithmetic without a result (division by zero)"),
        ("x = (-8) ** 0.5", "1: a number that is out of bounds"),
        ("x = 10 ** 18 * 10", "1: a number that is out of bounds"),
        ("x = f'{1:>9}'", "1: a formatted text that is more than names"),
        ("x = f'{1!r}'", "1: a formatted text that is more than names"),
        ("x = '{{ $HOME:/tmp }}'", "1: a variable of the environment ({{ $HOME:/tmp }})"),
        ("x = '{{ _base_.a }}'", "1: {{ _base_.a }} inside quotes"),
        ("x = (y := 1)", "1: code ((y := 1))"),
        ("global x", "1: code (global x)"),
        ("assert False", "1: code (assert False)"),
    ],
)
def test_code_is_refused_by_line(text, line):
    assert refused(text) == [f"cfg/x.py:{line}"]


def test_an_imported_base_is_told_apart():
    table, found = run("from mmengine.config import read_base\nwith read_base():\n    from .a import *\nx = 1")
    assert found.imports == ["cfg/x.py:2: with read_base()"]
    assert found.code == ["cfg/x.py:1: an import (from mmengine.config import read_base)"]
    assert table == {"x": 1}


def test_what_hangs_on_refused_code_is_not_told_again():
    table, found = run("a = f()\nb = a + 1\nc = dict(d=b)\na = 2\ne = a")
    assert found.code == ["cfg/x.py:1: a call of f"]
    assert table == {"a": 2, "e": 2}


def test_all_lines_of_code_are_told():
    assert len(refused("a = f()\nb = g()\nimport os")) == 3


def test_a_value_of_a_base_that_is_not_there_names_the_base():
    assert refused("x = _base_.model", absent=("../m.py",)) == [
        "cfg/x.py:1: _base_.model, which is not there; nor is ../m.py, which may have it"
    ]


def test_long_code_is_shown_in_part():
    (line,) = refused("x = [" + ", ".join(f"i{n} for i{n} in y" for n in range(1)) + " if " + "z" * 200 + "]")
    assert line.endswith(" ...)")
    assert len(line) < 100


@pytest.mark.parametrize(
    "text",
    [
        "x = [0] * 10 ** 9",
        "x = 'x' * 10 ** 9",
        "x = range(10 ** 9)",
        "a = [0]\n" + "a = a + a\n" * 60,
        "a = 'x'\n" + "a = f'{a}{a}'\n" * 60,
        "a = [0] * 1000\n" + "b = a + []\n" * 200,
        "a = [0] * 1000\nb = [" + "*a, " * 200 + "]",
        "a = dict(" + ", ".join(f"k{n}=1" for n in range(1000)) + ")\n" + "b = dict(**a)\n" * 200,
    ],
)
def test_a_few_lines_cannot_ask_for_much_memory(text):
    with pytest.raises(UserError, match="too many values"):
        run(text)


def test_a_text_with_many_names_to_fill_in_is_refused():
    most = "{{ fileDirname }}" * MOST_TEMPLATES
    assert refused(f"x = '{most}'") == []
    assert refused(f"x = '{most}{{{{ fileDirname }}}}'") == [
        f"cfg/x.py:1: a text with more than {MOST_TEMPLATES} names to fill in"
    ]


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_is_refused(text):
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return
    table, found = run(text)
    assert found.code or all(isinstance(name, str) for name in table)


words = st.sampled_from(
    [
        *"abcx()[]{}=,.:+-*/%\n",
        " ",
        "dict(",
        "len(",
        "'s'",
        "1",
        "0.5",
        "_base_",
        "**",
        "if ",
        " for a in ",
        "f'{a}'",
        "lambda ",
        "import ",
    ]
)


@given(st.lists(words, max_size=25).map("".join))
def test_any_mixture_of_pieces_is_a_value_or_is_refused(text):
    test_any_text_is_a_value_or_is_refused.hypothesis.inner_test(text)


def test_code_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    opened = f"open({str(mark)!r}, 'w')"
    text = f'import pathlib\npathlib.Path({str(mark)!r}).touch()\nx = {opened}\ny = f"{{{opened}}}"'
    assert len(refused(text)) == 4
    assert not mark.exists()


def test_the_value_of_one_expression_can_be_asked_for():
    assert evaluation().value(ast.parse("['a.py', 'b.py']", mode="eval").body) == ["a.py", "b.py"]
    with pytest.raises(Code, match="a call of f"):
        evaluation().value(ast.parse("f()", mode="eval").body)
