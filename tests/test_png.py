"""PNG files whose pixels are stored: equal to the file they come from, or left alone."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskwright.files import UnreadableImage, read_raw
from maskwright.png import stored

MOST = 10_000


def saved(array, mode=None, **how):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, "PNG", **how)
    return file.getvalue()


def read(content):
    image = Image.open(io.BytesIO(content))
    return image.mode, image.size, image.getpalette(), dict(image.info), image.tobytes()


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(4))),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
)
def test_the_stored_file_is_equal(array, mode):
    """Law: mode, size, palette, info and pixels are those of the file that it was made from."""
    if mode == "I;16":
        content = saved(array[:, :, 0].astype(np.uint16) * 257)
    else:
        content = saved(array, mode)
    quick = stored(content, MOST)
    assert quick is not None
    assert read(quick) == read(content)


def test_pictures_of_several_blocks():
    array = np.random.default_rng(0).integers(0, 2, (300, 333), dtype=np.uint8) * 255
    content = saved(array)
    assert read(stored(content, 99_900)) == read(content)
    assert stored(content, 99_899) is None


def test_what_is_no_plain_png_is_left_alone():
    plain = saved(np.eye(9, dtype=np.uint8))
    assert stored(b"", MOST) is None
    assert stored(b"GIF89a" + plain, MOST) is None
    assert stored(plain[:-20], MOST) is None
    interlaced = plain[:28] + b"\1" + plain[29:]
    assert stored(interlaced, MOST) is None


def test_pixels_that_are_too_few_or_too_many_are_left_to_pillow():
    plain = saved(np.eye(9, dtype=np.uint8))
    for height in (8, 10):
        wrong = bytearray(plain)
        wrong[20:24] = struct.pack(">I", height)
        wrong[29:33] = struct.pack(">I", zlib.crc32(wrong[12:29]))
        assert stored(bytes(wrong), MOST) is None


def test_a_bomb_is_not_inflated():
    data = zlib.compress(bytes(50_000_000), 9)
    head = struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
    assert stored(b"".join(parts), MOST) is None


@given(st.data())
def test_damage_never_gives_other_pixels(tmp_path_factory, data):
    """Law: a file with a changed byte reads as Pillow reads it, or is refused."""
    array = np.zeros((12, 10), dtype=np.uint8)
    array[3:8, 2:7] = 255
    content = bytearray(saved(array))
    content[data.draw(st.integers(8, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damage") / "mask.png"
    path.write_bytes(content)
    try:
        values = read_raw(path)[0]
    except UnreadableImage:
        return
    with Image.open(path) as image:
        assert np.array_equal(values, np.asarray(image))


def test_a_png_with_another_ending_is_read(tmp_path):
    (tmp_path / "mask.bmp").write_bytes(saved(np.eye(5, dtype=np.uint8)))
    assert read_raw(tmp_path / "mask.bmp")[0].tolist() == np.eye(5).tolist()


def test_a_cut_png_is_refused(tmp_path):
    (tmp_path / "mask.png").write_bytes(saved(np.eye(50, dtype=np.uint8))[:-30])
    with pytest.raises(UnreadableImage, match=r"cut off|damaged"):
        read_raw(tmp_path / "mask.png")
