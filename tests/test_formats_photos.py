"""Photos that annotation files speak of: found, looked at, and held against what is said of them."""

import numpy as np
import pytest
from PIL import Image

from maskwright.errors import UserError
from maskwright.files import sha256
from maskwright.formats.photos import Sight, locate, photo_folders, sight, sight_problems, size_problems
from maskwright.settings import PrepareSettings


def photo(path, size=(12, 16), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(path, **save)
    return path


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo(path, exif=exif)


def test_a_sight_of_a_photo(tmp_path):
    path = turned(tmp_path / "a.jpg")
    upright, stored = sight(path), sight(path, "stored")
    assert upright == Sight(path, (16, 12), (12, 16), 6, sha256(path))
    assert stored == Sight(path, (12, 16), (16, 12), 6, sha256(path), frame="stored")
    assert (upright.turn, stored.turn) == (1, 6)


def test_only_masks_that_fit_both_frames_are_unsure(tmp_path):
    seen, plain = sight(turned(tmp_path / "a.jpg")), sight(photo(tmp_path / "b.jpg"))
    assert [seen.unsure(size) for size in (None, (12, 16), (16, 12))] == [True, True, False]
    assert not plain.unsure(None)
    assert not sight(seen.path, "stored").unsure(None)


def test_sizes_that_fit_the_other_frame(tmp_path):
    (problem,) = size_problems([("a.json", (16, 12), sight(turned(tmp_path / "a.jpg"), "stored"))])
    assert str(problem).replace(f"{tmp_path}/", "") == (
        "1 photo was marked as it is shown, not as the camera stored it, which --mask-frame stored says\n"
        "  a.json: 12 x 16, but a.jpg is 16 x 12 as stored and 12 x 16 when shown (EXIF orientation 6)\n"
        "fix: leave out --mask-frame stored; where it holds for other masks, prepare those apart"
    )


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    looks = [sight(tmp_path / "bad.jpg"), sight(tmp_path / "none.jpg"), sight(photo(tmp_path / "good.png"))]
    (problem,) = sight_problems(looks)
    assert str(problem).replace(f"{tmp_path}/", "") == (
        "2 picture files cannot be read\n  bad.jpg: is not a picture that can be read\n"
        "  none.jpg: cannot be opened (No such file or directory)\nfix: replace these files"
    )
    assert sight_problems(looks[2:]) == []


def test_sizes_that_do_not_fit(tmp_path):
    look, plain = sight(turned(tmp_path / "a.jpg")), sight(photo(tmp_path / "b.jpg"))
    stated = [("a.json", (12, 16), look), ("b.json", (24, 32), plain), ("c.json", None, plain), ("d", (12, 16), plain)]
    first, second = size_problems(stated)
    assert str(first).replace(f"{tmp_path}/", "") == (
        "1 photo was marked as the camera stored it, not as it is shown: the photo has an EXIF orientation\n"
        "  a.json: 16 x 12, but a.jpg is 12 x 16 when shown and 16 x 12 as stored (EXIF orientation 6)\n"
        "fix: if the masks were drawn on the photos as stored: --mask-frame stored; or draw them again on photos saved"
        " upright; scaling would be wrong"
    )
    assert str(second).replace(f"{tmp_path}/", "") == (
        "1 photo has another size than the annotations say\n  b.json: 32 x 24, but b.jpg is 16 x 12\n"
        "fix: use the photos that were marked, at their full size"
    )


def test_photos_are_found_by_path_then_by_name(tmp_path):
    for name in ("images/x/a.jpg", "images/y/b.jpg", "images/y/c.jpg", "images/z/c.jpg"):
        photo(tmp_path / name)
    found = locate(["x/a.jpg", "old\\b.jpg", "c.jpg", "d.jpg"], [tmp_path / "images"])
    assert found.paths == (tmp_path / "images/x/a.jpg", tmp_path / "images/y/b.jpg", None, None)
    assert found.elsewhere == ("old\\b.jpg",)
    assert found.lost == (
        f"c.jpg: found more than once: {tmp_path}/images/y/c.jpg and {tmp_path}/images/z/c.jpg",
        f"d.jpg: not found in {tmp_path}/images",
    )
    assert locate(["a.jpg"], []).lost == ("a.jpg: there is no folder to search",)


def test_names_that_lead_outside_are_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        locate(["../secret.jpg", "/etc/passwd"], [tmp_path])
    assert str(caught.value).startswith(
        "file names in a data file must stay inside its folder\n  file_name '../secret.jpg'\n  file_name '/etc/passwd'"
    )


def test_a_name_that_no_file_can_have_is_not_found(tmp_path):
    assert locate(["x" * 5000], [tmp_path]).paths == (None,)


def test_where_photos_are_looked_for(tmp_path):
    (tmp_path / "set/labels").mkdir(parents=True)
    (tmp_path / "set/images").mkdir()
    found = photo_folders(tmp_path / "set/labels", PrepareSettings())
    assert found == [tmp_path / "set/labels", tmp_path / "set/images", tmp_path / "set"]
    named = photo_folders(tmp_path / "set", PrepareSettings(photos="images"))
    assert named == [tmp_path / "set/images"]
