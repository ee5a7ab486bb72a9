"""PNG files whose pixels are stored: equal to the file they come from, or left alone."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from maskwright.files import UnreadableImage, read_raw
from maskwright.png import grey, stored

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


@pytest.mark.parametrize("size", [40_000_000, 200_000_000])
def test_a_bomb_is_not_inflated(size):
    data = zlib.compress(bytes(size), 9)
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


def by_rows(plane, kinds, level=6):
    """Write a grey PNG of 8 bits with a filter for each line (PNG specification, 9.2)."""
    height, width = plane.shape
    wide = np.pad(plane.astype(np.int64), ((1, 0), (1, 0)))
    lines = b""
    for y, kind in enumerate(kinds, 1):
        x, a, b, c = wide[y, 1:], wide[y, :-1], wide[y - 1, 1:], wide[y - 1, :-1]
        guess = a + b - c
        by = np.stack([abs(guess - a), abs(guess - b), abs(guess - c)])
        paeth = np.choose(by.argmin(0), [a, b, c])
        lines += bytes([kind]) + ((x - [0 * x, a, b, (a + b) // 2, paeth][kind]) & 255).astype(np.uint8).tobytes()
    return chunked((width, height), zlib.compress(lines, level))


def chunked(size, data, *before):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*b) for b in before) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@settings(deadline=None)
@given(st.data())
def test_grey_pictures_are_decoded_as_by_pillow(data):
    """Law: whatever the values and the filters of the lines, but for Average, which is left to Pillow."""
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    few = data.draw(st.sampled_from([st.sampled_from([0, 255]), st.sampled_from([0, 1, 7]), st.integers(0, 255)]))
    plane = data.draw(arrays(np.uint8, shape, elements=few, fill=st.just(0)))
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=shape[0], max_size=shape[0]))
    content = by_rows(plane, kinds)
    assert read(content)[4] == plane.tobytes()
    crop = grey(content, MOST)
    if crop is None:
        assert 3 in kinds
    else:
        assert crop.size == shape
        assert np.array_equal(crop.whole(), plane)


@pytest.mark.parametrize("kind", [0, 1, 2, 4])
def test_what_goes_on_to_the_border_without_a_difference(kind):
    plane = np.zeros((40, 50), dtype=np.uint8)
    plane[10:, 20:] = 255
    crop = grey(by_rows(plane, [kind] * 40), MOST)
    assert (crop.left, crop.top) == (20, 10 if kind else 8)
    assert np.array_equal(crop.whole(), plane)


def test_masks_as_pillow_writes_them():
    rng = np.random.default_rng(3)
    for _ in range(40):
        image = Image.new("L", (int(rng.integers(1, 200)), int(rng.integers(1, 200))))
        corners = [tuple(rng.integers(-50, 250, 2).tolist()) for _ in range(3)]
        ImageDraw.Draw(image).polygon(corners, fill=255)
        plane = np.asarray(image)
        assert np.array_equal(grey(saved(plane), 1_000_000).whole(), plane)


def test_only_plain_grey_files_are_decoded_here():
    plane = np.eye(9, dtype=np.uint8)
    assert grey(saved(plane), MOST) is not None
    assert grey(saved(plane), 80) is None
    for mode in ("1", "P", "RGB", "LA"):
        assert grey(saved(plane, mode), MOST) is None
    assert grey(saved(plane.astype(np.uint16)), MOST) is None
    lines = zlib.compress(bytes(90))
    assert grey(chunked((9, 9), lines, (b"tEXt", b"Software\0painter")), MOST) is not None
    assert grey(chunked((9, 9), lines, (b"tEXt", b"Raw profile type exif\0...")), MOST) is None
    assert grey(chunked((9, 9), lines, (b"eXIf", b"MM\0*")), MOST) is None
    whole = chunked((9, 9), lines, (b"gAMA", bytes(4)))
    damaged = whole.replace(b"gAMA\0\0", b"gAMA\0\1")
    assert grey(whole, MOST) is not None
    assert grey(damaged, MOST) is None
    assert grey(chunked((9, 9), zlib.compress(b"\5" + bytes(89))), MOST) is None
    assert grey(chunked((9, 9), zlib.compress(bytes(91))), MOST) is None


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_damaged_grey_files_are_never_read_otherwise_than_by_pillow(place, value, cut):
    """Law: where this module has pixels, Pillow has the same."""
    content = bytearray(saved(np.tri(20, 30, dtype=np.uint8) * 255))
    content[place % len(content)] = value
    damaged = bytes(content[: place % len(content)] if cut else content)
    crop = grey(damaged, MOST)
    if crop is not None:
        assert read(damaged)[4] == crop.whole().tobytes()
