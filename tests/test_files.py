import errno
import json
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskwright import files
from maskwright.errors import UserError
from maskwright.files import UnreadableImage


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(array).save(path, **options)
    return path


def save_turned(path, array, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    return save(path, array, exif=exif)


def png_header(path, width, height, depth=8):
    """A PNG whose header declares a size, with hardly any pixels behind it."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# Reading pictures


CORNERS = np.zeros((20, 30, 3), dtype=np.uint8)
CORNERS[:10, :15] = (255, 0, 0)
CORNERS[:10, 15:] = (0, 255, 0)
CORNERS[10:, :15] = (0, 0, 255)

UPRIGHT = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(CORNERS, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_photos_are_read_upright_once(tmp_path, orientation, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"p.{suffix}"
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    PillowImage.fromarray(CORNERS).save(path, exif=exif, **options)
    upright = UPRIGHT[orientation]
    found = files.read_photo(path)
    assert files.image_size(path) == found.shape[:2] == upright.shape[:2]
    assert files.stored_size(path) == (20, 30)
    assert files.orientation_of(path) == orientation
    assert files.verify_photo(path) == (upright.shape[:2], (20, 30), orientation)
    assert files.verify_photo(path, path.read_bytes()) == (upright.shape[:2], (20, 30), orientation)
    if suffix != "jpg":
        np.testing.assert_array_equal(found, upright)
        np.testing.assert_array_equal(files.read_raw(path)[0], upright)
    else:  # JPEG blurs the seams, not the middle of each quarter
        h, w = upright.shape[0] // 4, upright.shape[1] // 4
        assert np.abs(found[h, w].astype(int) - upright[h, w]).max() < 20
        assert np.abs(found[-h, w].astype(int) - upright[-h, w]).max() < 20


def test_a_size_that_only_orientation_swaps_is_upright(tmp_path):
    path = save_turned(tmp_path / "p.jpg", np.zeros((48, 64, 3), np.uint8), 6)
    assert files.image_size(path) == (64, 48)


@pytest.mark.parametrize("read", [files.image_size, files.stored_size, files.read_photo, files.read_raw])
def test_a_bomb_is_refused_by_its_header(tmp_path, read):
    path = png_header(tmp_path / "bomb.png", 100_000, 100_000)
    with pytest.raises(
        UnreadableImage, match=r"^declares 100,000 x 100,000 pixels; at most 150,000,000 in all are read$"
    ):
        read(path)
    assert path.stat().st_size < 500


def test_a_large_photo_below_the_limit_is_no_bomb(tmp_path):
    path = png_header(tmp_path / "large.png", 12_000, 12_000)  # beyond the size at which Pillow warns
    assert files.stored_size(path) == (12_000, 12_000)


def test_pillows_limit_is_as_before_after_reading_in_threads(tmp_path):
    path = save(tmp_path / "p.png", np.zeros((4, 5, 3), np.uint8))
    before, filters = PillowImage.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        shapes = set(pool.map(lambda _: files.read_photo(path).shape, range(200)))
    assert shapes == {(4, 5, 3)}
    assert before == PillowImage.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


def test_empty_file(tmp_path):
    (tmp_path / "p.jpg").touch()
    with pytest.raises(UnreadableImage, match=r"^is empty \(0 bytes\)$"):
        files.read_photo(tmp_path / "p.jpg")


def test_text_with_a_picture_suffix(tmp_path):
    (tmp_path / "p.jpg").write_text("not a picture at all")
    with pytest.raises(UnreadableImage, match=r"^is not a picture that can be read$"):
        files.image_size(tmp_path / "p.jpg")


def test_absent_file(tmp_path):
    with pytest.raises(UnreadableImage, match=r"^cannot be opened \(No such file or directory\)$"):
        files.read_photo(tmp_path / "p.jpg")


def test_folder_with_a_picture_suffix(tmp_path):
    (tmp_path / "p.jpg").mkdir()
    with pytest.raises(UnreadableImage, match=r"^cannot be opened \(Is a directory\)$"):
        files.read_photo(tmp_path / "p.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_cut_off_files_are_unreadable(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    path = save(tmp_path / f"p.{suffix}", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImage, match=r"cannot be decoded|cannot be opened|not a picture"):
        files.read_photo(path)


def test_damaged_exif_is_left_aside(tmp_path):
    path = save(tmp_path / "p.jpg", np.zeros((8, 9, 3), np.uint8), exif=b"Exif\0\0" + b"garbage, no TIFF header")
    assert files.image_size(path) == files.read_photo(path).shape[:2] == (8, 9)


def test_grey_of_16_bits_is_scaled_to_8(tmp_path):
    path = save(tmp_path / "p.png", np.array([[0, 257, 65535]], dtype=np.uint16))
    assert files.read_photo(path)[0, :, 0].tolist() == [0, 1, 255]
    raw, image = files.read_raw(path)
    assert raw.dtype == np.uint16
    assert raw.tolist() == [[0, 257, 65535]]
    assert image.mode == "I;16"


def test_grey_of_8_bits_becomes_rgb(tmp_path):
    path = save(tmp_path / "p.png", np.array([[0, 7, 255]], dtype=np.uint8))
    assert files.read_photo(path).tolist() == [[[0] * 3, [7] * 3, [255] * 3]]


def test_palette_gives_colours_as_a_photo_and_indices_as_a_mask(tmp_path):
    image = PillowImage.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 10, 20, 30, 220, 40])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "p.png")
    assert files.read_photo(tmp_path / "p.png").tolist() == [[[0, 0, 0], [200, 10, 20], [30, 220, 40]]]
    raw, pillow = files.read_raw(tmp_path / "p.png")
    assert raw.tolist() == [[0, 1, 2]]
    assert pillow.mode == "P"


def test_palette_with_transparency_is_laid_over_black(tmp_path):
    image = PillowImage.new("P", (2, 1))
    image.putpalette([250, 250, 250, 200, 10, 20])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=b"\x00\xff")
    assert files.read_photo(tmp_path / "p.png").tolist() == [[[0, 0, 0], [200, 10, 20]]]


def test_transparency_is_laid_over_black(tmp_path):
    path = save(tmp_path / "p.png", np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8))
    assert files.read_photo(path).tolist() == [[[200, 100, 50], [0, 0, 0]]]
    assert files.read_raw(path)[0].shape == (1, 2, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode):
    found = files.rgb(PillowImage.new(mode, (5, 4)))
    assert found.shape == (4, 5, 3)
    assert found.dtype == np.uint8


def test_photos_are_writable_arrays(tmp_path):
    photo = files.read_photo(save(tmp_path / "p.png", np.zeros((2, 2, 3), np.uint8)))
    photo[0, 0] = 9
    assert photo[0, 0].tolist() == [9, 9, 9]


# Finding pictures


@pytest.mark.parametrize(
    ("name", "aside"),
    [
        ("x.jpg", False),
        ("x.jpg:Zone.Identifier", True),
        ("x.jpgZone.Identifier", True),
        (".DS_Store", True),
        ("._x.jpg", True),
        ("Thumbs.db", True),
        ("desktop.ini", True),
        ("__MACOSX/x.jpg", True),
        ("shot at 10:30:00.png", False),
        ("Größe 1 (2).JPG", False),
    ],
)
def test_side_files(name, aside):
    assert files.is_side_file(Path(name)) is aside


def test_photo_files_are_found_recursively_by_name_without_side_files(tmp_path):
    for name in ["b/2.JPG", "a 1.png", "é.webp", ".hidden.jpg", "notes.txt", "x.jpg:Zone.Identifier", "b/Thumbs.db"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in files.photo_files(tmp_path)]
    assert found == ["a 1.png", "b/2.JPG", "é.webp"]


def test_a_hidden_folder_above_does_not_hide_the_photos(tmp_path):
    path = save(tmp_path / ".cache" / "photos" / "p.png", np.zeros((2, 2), np.uint8))
    assert files.photo_files(path.parent) == [path]


# Writing


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_the_disk(folder):
    (folder / "half").write_text("x")
    raise FULL


class FullDisk:
    """Stands in for a file handle on a disk without space left."""

    def __init__(self, handle):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.close()

    def write(self, _):
        raise FULL


def test_atomic_file_replaces_whole(tmp_path):
    path = tmp_path / "deep" / "f.txt"
    for text in (b"one", b"two"):
        with files.atomic_file(path) as handle:
            handle.write(text)
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["f.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_atomic_file_on_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "f.txt"
    path.write_bytes(b"old")
    opened = os.fdopen
    monkeypatch.setattr(files.os, "fdopen", lambda *a: FullDisk(opened(*a)))
    with pytest.raises(UserError) as caught, files.atomic_file(path) as handle:
        handle.write(b"new")
    monkeypatch.undo()
    assert str(caught.value) == (
        "the output cannot be written; nothing was left half-done\n"
        f"  {path}: No space left on device\n"
        "fix: free some space, then run the command again"
    )
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_atomic_file_leaves_nothing_after_any_other_error(tmp_path):
    with pytest.raises(TypeError), files.atomic_file(tmp_path / "f") as handle:
        handle.write("no bytes")
    assert os.listdir(tmp_path) == []


def test_atomic_file_where_a_file_stands_for_a_folder(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(UserError, match="the output cannot be written"), files.atomic_file(tmp_path / "f" / "g"):
        pass
    assert (tmp_path / "f").read_text() == "x"


def test_atomic_folder_appears_at_the_end(tmp_path):
    out = tmp_path / "out"
    with files.atomic_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


def test_atomic_folder_refuses_what_exists(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("1")
    with pytest.raises(UserError) as caught, files.atomic_folder(tmp_path / "out"):
        pass
    assert str(caught.value) == (
        f"the output exists already\n  {tmp_path / 'out'}\nfix: name another output, or: --overwrite"
    )
    assert (tmp_path / "out" / "precious").read_text() == "1"


def test_atomic_folder_takes_an_empty_folder(tmp_path):
    (tmp_path / "out").mkdir()
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path / "out") == ["a"]


def test_atomic_folder_overwrites_only_at_the_end(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(ValueError, match="null"), files.atomic_folder(out, overwrite=True) as folder:
        (folder / "new\0").touch()
    assert os.listdir(out) == ["old"]
    with files.atomic_folder(out, overwrite=True) as folder:
        (folder / "new").touch()
    assert os.listdir(out) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_atomic_folder_on_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="No space left on device"), files.atomic_folder(tmp_path / "out") as folder:
        fill_the_disk(folder)
    assert os.listdir(tmp_path) == []


def test_atomic_folder_gives_the_old_one_back_if_the_last_step_fails(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    replace = os.replace

    def failing(source, target):
        if Path(target) == out and str(source).endswith(".part"):
            raise FULL
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(UserError, match="nothing was left half-done"), files.atomic_folder(out, overwrite=True):
        pass
    assert os.listdir(out) == ["old"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_cannot_be_read_is_not_called_the_output(tmp_path):
    (tmp_path / "work").mkdir()
    gone = tmp_path / "photos" / "gone.jpg"
    with pytest.raises(UserError) as caught, files.atomic_folder(tmp_path / "work" / "out"):
        gone.read_bytes()
    assert str(caught.value) == (
        "a file cannot be used; nothing was left half-done\n"
        f"  {gone}: No such file or directory\n"
        "fix: check that it exists and may be read, then run the command again"
    )


def test_json_is_readable_keeps_words_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "in" / "half.json", {"a\ud800\\": "\\\udcffé"})
    assert json.loads((tmp_path / "in" / "half.json").read_text(encoding="utf-8")) == {"a\ud800\\": "\\\udcffé"}
    files.write_json(tmp_path / "j.json", {"name": "Zähler", "n": None})
    assert (tmp_path / "j.json").read_text() == '{\n  "name": "Zähler",\n  "n": null\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "k.json", float("nan"))
    assert sorted(os.listdir(tmp_path)) == ["in", "j.json"]


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_link_or_copy_links_and_falls_back_to_a_copy(tmp_path, monkeypatch):
    source = tmp_path / "a"
    source.write_text("x")
    files.link_or_copy(source, tmp_path / "d" / "b")
    assert (tmp_path / "d" / "b").samefile(source)

    def no_link(*_):
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(files.os, "link", no_link)
    files.link_or_copy(source, tmp_path / "d" / "c")
    assert (tmp_path / "d" / "c").read_text() == "x"
    assert not (tmp_path / "d" / "c").samefile(source)


def test_provenance_is_json():
    made = json.loads(json.dumps(files.provenance()))
    assert made["maskwright"]
    assert made["made"].endswith("+00:00")


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose another place"),
        (errno.EROFS, "choose another place"),
        (errno.ENOENT, "choose another place"),
        (errno.EIO, "free some space or choose another place"),
    ],
)
def test_the_fix_follows_the_cause(tmp_path, monkeypatch, number, fix):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError) as caught, files.atomic_file(tmp_path / "f"):
        pass
    assert str(caught.value) == (
        "the output cannot be written; nothing was left half-done\n"
        f"  {tmp_path / 'f'}: {os.strerror(number)}\nfix: {fix}, then run the command again"
    )
    assert os.listdir(tmp_path) == []


def test_a_picture_that_is_cut_off_or_damaged_is_told_in_our_words(tmp_path):
    path = tmp_path / "p.jpg"
    PillowImage.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    for read in (files.read_photo, files.verify_photo, files.read_raw):
        with pytest.raises(files.UnreadableImage) as caught:
            read(path)
        assert str(caught.value) == "cannot be decoded (the file is cut off)"
    assert files._damage(SyntaxError("broken PNG file")) == "cannot be decoded (the file is damaged)"
    assert files._damage(MemoryError()) == "cannot be decoded (there is not enough memory)"


def test_links_to_photos_are_photos_and_links_to_folders_are_named(tmp_path):
    inner = tmp_path / "in" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "real.jpg").touch()
    (inner / "a.jpg").symlink_to(tmp_path / "real.jpg")
    (inner / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    assert files.photo_files(tmp_path / "in") == [inner / "a.jpg", inner / "b.jpg"]
    assert files.linked_folders(tmp_path / "in") == [tmp_path / "in" / "circle"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_read_reduced_upright_and_with_its_own_size(tmp_path, orientation):
    array = np.zeros((400, 640, 3), np.uint8)
    array[:200, :320] = 250
    path = save_turned(tmp_path / "p.jpg", array, orientation)
    whole = files.read_photo(path)
    found, size = files.read_reduced(path, 100)
    assert size == whole.shape[:2]
    assert found.shape == (size[0] // 4, size[1] // 4, 3)
    np.testing.assert_allclose(found[5::10, 5::10].astype(int), whole[20::40, 20::40].astype(int), atol=8)


@pytest.mark.parametrize(("suffix", "least", "shape"), [("jpg", 640, (400, 640)), ("jpg", 321, (400, 640)),
    ("jpg", 320, (200, 320)), ("jpg", 1, (50, 80)), ("png", 1, (400, 640))])  # fmt: skip
def test_reduced_photos_keep_the_pixels_asked_for(tmp_path, suffix, least, shape):
    path = save(tmp_path / f"p.{suffix}", np.full((400, 640), 90, np.uint8))
    found, size = files.read_reduced(path, least)
    assert (found.shape, size) == ((*shape, 3), (400, 640))
    assert (found == 90).all()


def test_a_jpeg_that_is_cut_off_is_not_read_reduced(tmp_path):
    rng = np.random.default_rng(0)
    path = save(tmp_path / "p.jpg", rng.integers(0, 255, (400, 640, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(UnreadableImage, match="the file is cut off"):
        files.read_reduced(path, 80)


@pytest.mark.parametrize("size", [(5, 40), (40, 5), (1, 1)])
def test_damage_of_a_photo_of_a_few_pixels_is_looked_for(tmp_path, size):
    """At an eighth of its size nothing would be left of a side."""
    path = tmp_path / "a.jpg"
    PillowImage.new("RGB", size).save(path)
    content = path.read_bytes()[:-2]
    path.write_bytes(content + b"more")  # the mark of the end is not at the end
    assert files.verify_photo(path)[0] == (size[1], size[0])
