"""Headers of JPEG files: the same answer as Pillow's, or none."""

import io
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright import files, jpeg
from maskwright.files import UnreadableImage, verify_photo


def saved(mode="RGB", size=(23, 17), **how):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **how)
    return file.getvalue()


def exif(orientation, order="<", before=(), kind=3):
    """Make Exif data with an orientation, and short fields before it."""
    fields = [(tag, 3, 1, 7) for tag in before] + ([] if orientation is None else [(0x0112, kind, 1, orientation)])
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    body = b"".join(
        struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
        if kind == 3
        else struct.pack(f"{order}HHII", tag, kind, count, value)
        for tag, kind, count, value in fields
    )
    return b"Exif\0\0" + head + body + bytes(4)


def by_pillow(content):
    """Return what Pillow reads from a header, or why it cannot."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return (image.height, image.width), image.getexif().get(0x0112, 1), image.format
    except files._BROKEN as error:
        return error


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_every_orientation_in_both_byte_orders(order, orientation):
    content = saved(exif=exif(orientation, order, before=(0x0100, 0x0101)))
    assert jpeg.header(content) == ((17, 23), orientation or 1)
    assert by_pillow(content) == ((17, 23), orientation or 1, "JPEG")


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "L"},
        {"progressive": True},
        {"comment": b"a photo"},
        {"icc_profile": b"x" * 300},
        {"dpi": (72, 72)},
        {"subsampling": 0, "quality": 100},
        {"size": (1, 1)},
    ],
)
def test_usual_files_are_read_here(how):
    content = saved(**how)
    size, orientation, kind = by_pillow(content)
    assert kind == "JPEG"
    assert jpeg.header(content) == (size, orientation)


def with_segment(marker, body):
    plain = saved()
    return plain[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body + plain[2:]


@pytest.mark.parametrize(
    "content",
    [
        saved("CMYK"),
        saved(exif=exif(70_000, kind=4)),
        saved(exif=exif(6)[:20]),
        saved(exif=exif(6, before=(0x0112,))),
        saved(exif=b"Exif\0\0" + b"??*\0" + bytes(20)),
        with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"),
        with_segment(0xE2, b"MPF\0" + bytes(40)),
        with_segment(0xED, b"Photoshop 3.0\0"),
        with_segment(0xDB, bytes(40)),
        with_segment(0xC0, bytes(3)),
        b"",
        b"\xff\xd8",
        saved()[:100],
        b"\x89PNG" + saved(),
    ],
)
def test_what_is_unusual_is_left_to_pillow(content):
    assert jpeg.header(content) is None


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([saved(), saved(exif=exif(6, ">")), saved("L", progressive=True), saved(icc_profile=b"y" * 99)]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
@example(saved(), [], 1.0)
def test_damaged_headers_are_never_read_otherwise_than_by_pillow(content, changes, end):
    """Law: where this module has an answer, Pillow has the same."""
    damaged = bytearray(content)
    head = content.index(b"\xff\xda") + 14
    for place, value in changes:
        damaged[int(place * (head - 1))] = value
    damaged = bytes(damaged[: round(len(damaged) * end)])
    found = jpeg.header(damaged)
    if found is not None:
        assert by_pillow(damaged) == (*found, "JPEG")


def test_photos_are_verified_the_same_way_with_and_without_their_content(tmp_path):
    path = tmp_path / "x.jpg"
    for content in (saved(exif=exif(6)), saved("CMYK"), saved(exif=exif(0)), saved("L") + bytes(5)):
        path.write_bytes(content)
        assert verify_photo(path, content) == verify_photo(path)
    path.write_bytes(saved()[:-200])
    for content in (None, path.read_bytes()):
        with pytest.raises(UnreadableImage, match="cut off"):
            verify_photo(path, content)


def test_absurd_sizes_are_refused_as_before(tmp_path):
    content = saved()
    at = content.index(b"\xff\xc0")
    huge = content[: at + 5] + struct.pack(">HH", 65_000, 65_000) + content[at + 9 :]
    assert jpeg.header(huge) == ((65_000, 65_000), 1)
    with pytest.raises(UnreadableImage, match=r"declares 65,000 x 65,000 pixels"):
        verify_photo(tmp_path / "x.jpg", huge)
