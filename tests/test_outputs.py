"""What counts as an output of ours, what takes its place, and which pictures lie in one."""

import json
import os
from pathlib import Path

import pytest

from maskwright.errors import UserError
from maskwright.outputs import MARK, irreplaceable, is_former, photos_apart, put_mark, refuse_existing_folder

SIGNS = {
    "prepare": ["prepare.json"],
    "compose": ["compose.json"],
    "train": ["run.json"],
    "import-weights": ["run.json"],
    "predict": ["detections.json", "masks/"],
    "masks": [MARK],
    "demo": [MARK],
}


def sign(folder, verb):
    """Write what tells that a verb made a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIGNS[verb]:
        if name == MARK:
            put_mark(folder, verb)
        elif name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).touch()


@pytest.mark.parametrize("verb", SIGNS)
def test_a_verb_knows_its_own_output_and_no_other(tmp_path, verb):
    sign(tmp_path / "out", verb)
    assert [other for other in SIGNS if is_former(tmp_path / "out", other)] == [
        other for other in SIGNS if other == verb or {other, verb} == {"train", "import-weights"}
    ]
    refuse_existing_folder(tmp_path / "out", verb, overwrite=True)
    with pytest.raises(UserError) as caught:
        refuse_existing_folder(tmp_path / "out", verb, overwrite=False)
    assert str(caught.value) == (
        f"the output exists already\n  {tmp_path / 'out'}\nfix: name another output, or: --overwrite"
    )


@pytest.mark.parametrize("verb", SIGNS)
def test_a_folder_of_photos_is_the_output_of_no_verb(tmp_path, verb):
    for n in range(7):
        (tmp_path / f"{n}.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError) as caught:
            refuse_existing_folder(tmp_path, verb, overwrite=overwrite)
        only = ", the only thing that --overwrite replaces" if overwrite else ""
        assert str(caught.value) == (
            f"the output exists already, and is no former output of {verb}{only}\n"
            f"  {tmp_path}: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more\n"
            "fix: name another output, or remove the folder by hand if nothing in it is needed"
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"verb": "demo"}', '{"verb": ["masks"]}', "\udc80"])
def test_a_mark_that_says_something_else_is_none(tmp_path, content):
    (tmp_path / MARK).write_bytes(content.encode(errors="surrogateescape"))
    assert not is_former(tmp_path, "masks")


def test_a_mark_says_the_verb_and_no_time(tmp_path):
    put_mark(tmp_path, "masks")
    assert set(json.loads((tmp_path / MARK).read_bytes())) == {"verb", "maskwright"}


def test_nothing_and_an_empty_folder_can_be_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        for overwrite in (False, True):
            refuse_existing_folder(tmp_path / name, "prepare", overwrite=overwrite)


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "run.json").touch()
    problem = irreplaceable(tmp_path / "run.json", "train", overwrite=True)
    assert problem is not None
    assert str(problem) == (
        f"the output is a folder, and a file has its name\n  {tmp_path / 'run.json'}\nfix: name another output"
    )


@pytest.mark.parametrize("out", [".", "..", "../in", "../../out"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_current_working_directory_is_never_replaced_even_if_it_is_ours_or_empty(
    tmp_path, monkeypatch, out, overwrite
):
    (tmp_path / "out" / "in").mkdir(parents=True)
    sign(tmp_path / "out", "prepare")
    monkeypatch.chdir(tmp_path / "out" / "in")
    with pytest.raises(UserError) as caught:
        refuse_existing_folder(Path(out), "prepare", overwrite=overwrite)
    held = "empty" if out in {".", "../in"} else "in, prepare.json"
    assert str(caught.value) == (
        "the output must not be the current working directory, or hold it: it would be replaced\n"
        f"  {out}: {held}\nfix: name another output"
    )
    refuse_existing_folder(Path("new"), "prepare", overwrite=overwrite)


def test_pictures_in_outputs_of_ours_lie_apart(tmp_path):
    names = [
        "a.jpg",
        "drawn/b.png",
        "drawn/deep/c.png",
        "masks/d.png",
        "out/e.jpg",
        "out/masks/f.png",
        "out/masks/deep/g.png",
        "work/predictions/masks/h.png",
        "work/data/train/i.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    put_mark(tmp_path / "drawn", "masks")
    for name in ("out", "work/predictions"):
        (tmp_path / name / "detections.json").touch()
    photos, left_out = photos_apart(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in photos] == [
        "a.jpg",
        "masks/d.png",  # beside no detections: somebody's own
        "out/e.jpg",
        "work/data/train/i.jpg",
    ]
    assert sorted([*photos, *left_out]) == sorted(tmp_path / name for name in names)
    assert photos_apart(tmp_path / "out") == (
        [tmp_path / "out" / "e.jpg"],
        [tmp_path / "out" / "masks" / "deep" / "g.png", tmp_path / "out" / "masks" / "f.png"],
    )
    for named in ("drawn", "out/masks"):  # who names it means it
        assert photos_apart(tmp_path / named)[1] == []


def test_the_folder_may_be_named_in_any_way(tmp_path, monkeypatch):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "detections.json").touch()
    (tmp_path / "out" / "masks" / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    for name in (".", "out", "./out/../out", os.fspath(tmp_path)):
        assert [path.name for path in photos_apart(Path(name))[1]] == ["a.png"]
