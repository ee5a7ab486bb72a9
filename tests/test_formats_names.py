"""Names of written files."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.dataset import Dataset, Image
from maskwright.errors import UserError
from maskwright.formats.names import safe_name, stems


def photos(*names):
    return Dataset.build([], [Image(n, name, 4, 3) for n, name in enumerate(names, 1)], [])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_safe_name_can_be_undone(name):
    """Law: no character that a file system refuses is left, and nothing is lost."""
    safe = safe_name(name)
    assert not set(safe) & set('/\\:*?"<>|\0')
    assert unquote(safe) == name


def test_stems_keep_subfolders_and_stay_apart():
    assert stems(photos("x/a.jpg", "y/a.jpg", "b.JPG", "B.png")) == ["x/a", "y/a", "b.JPG", "B.png"]


def test_names_that_cannot_be():
    with pytest.raises(UserError) as caught:
        stems(photos("../a.jpg", "b.jpg", "b.jpg"))
    assert str(caught.value) == (
        "file names in a data file must stay inside its folder\n  file_name '../a.jpg'\n"
        "fix: make the names relative to the photo folder, without '..'\n\n"
        "photos are listed more than once\n  b.jpg\nfix: list each photo once"
    )
