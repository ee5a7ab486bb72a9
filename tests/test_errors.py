import pytest

from maskwright.errors import SHOWN, Problem, UserError, nearest


def test_problem_says_what_where_and_fix():
    problem = Problem("2 photos have no mask", ("a.jpg", "b.jpg"), "draw them")
    assert str(problem) == "2 photos have no mask\n  a.jpg\n  b.jpg\nfix: draw them"


def test_problem_shows_five_offenders_and_counts_the_rest():
    text = str(Problem("photos are unreadable", tuple(f"{n}.jpg" for n in range(12))))
    assert text.count(".jpg") == SHOWN == 5
    assert text.endswith("  4.jpg\n  ... and 7 more")


def test_problem_with_exactly_five_counts_none():
    assert "more" not in str(Problem("w", tuple("abcde")))


def test_user_error_joins_problems_and_keeps_them():
    error = UserError([Problem("one", fix="x"), Problem("two", ("f",))])
    assert str(error) == "one\nfix: x\n\ntwo\n  f"
    assert [p.what for p in error.problems] == ["one", "two"]


def test_user_error_from_words():
    error = UserError("what", ["where"], "fix")
    assert error.problems == (Problem("what", ("where",), "fix"),)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("minuts", "; did you mean 'minutes'?"), ("Steps", "; did you mean 'steps'?"), ("zzz", ""), ("", "")],
)
def test_nearest(name, answer):
    assert nearest(name, ["minutes", "steps"]) == answer


def test_nearest_of_nothing():
    assert nearest("x", []) == ""


def test_absurdly_long_lines_are_cut():
    text = str(Problem("a name is too long", ("x" * 5000,), "shorten it"))
    assert text == f"a name is too long\n  {'x' * 600} ...\nfix: shorten it"
