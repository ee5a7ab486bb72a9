"""What the header of a plain JPEG file says, read without Pillow, which takes several times as long."""

from __future__ import annotations

from typing import NamedTuple

_START = b"\xff\xd8"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Start of frame: baseline, extended, progressive (ITU-T T.81, table B.1)."""

_PASSED_OVER = frozenset({0xC4, 0xDD, 0xFE, *range(0xE3, 0xED), 0xEF})
"""Huffman tables, restart interval, comment, and data of applications that say nothing of size or orientation."""

_ORIENTATION = 0x0112
_SHORT = 3  # TIFF 6.0, section 2: a field of 16 bits


class Header(NamedTuple):
    """What a JPEG file says of its picture.

    Attributes:
        size: `(height, width)` as stored.
        orientation: As the Exif data give it, mostly 1 to 8; 1 where they give none.
    """

    size: tuple[int, int]
    orientation: int


def header(content: bytes) -> Header | None:
    r"""Read the header of a plain JPEG file.

    Args:
        content: The whole file.

    Returns:
        What it says; `None` where anything is unusual or damaged (several pictures, XMP, Photoshop's data, four
        colours): then Pillow reads the file, and says what is wrong.

    Example:
        >>> import io; from PIL import Image
        >>> file = io.BytesIO(); Image.new("RGB", (4, 3)).save(file, "JPEG")
        >>> header(file.getvalue())
        Header(size=(3, 4), orientation=1)
        >>> header(file.getvalue()[:30]) is None
        True
    """
    if content[:2] != _START:
        return None
    at, size, orientation, has_exif = 2, None, 1, False
    while True:
        marker, length = content[at + 1 : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        end = at + 2 + length
        if content[at : at + 1] != b"\xff" or not marker or length < 2 or end > len(content):
            return None
        kind, start = marker[0], at + 4
        if kind == 0xDA:  # start of scan: here the pixels begin
            return None if size is None else Header(size, orientation)
        if kind in _FRAMES:
            size = None if size is not None else _frame(content[start:end])
            if size is None:
                return None
        elif kind == 0xDB:
            if not _whole_tables(content[start:end]):
                return None
        elif kind == 0xE0:
            if length < 7:
                return None
        elif kind == 0xE1:
            found = None if has_exif else _exif_orientation(content[start:end])
            if found is None:
                return None
            orientation, has_exif = found, True
        elif kind == 0xE2:
            if content[start : start + 12] != b"ICC_PROFILE\0" or length < 17:
                return None  # maybe a file of several pictures
        elif kind == 0xEE:
            if length < 14:
                return None
        elif kind not in _PASSED_OVER:
            return None
        at = end


def _frame(segment: bytes) -> tuple[int, int] | None:
    """Return `(height, width)` of a frame of 8 bits in grey or three colours."""
    if len(segment) < 6 or segment[0] != 8 or segment[5] not in (1, 3) or len(segment) != 6 + 3 * segment[5]:
        return None
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    return (height, width) if height and width else None


def _whole_tables(segment: bytes) -> bool:
    """Tell whether quantisation tables are complete: 64 values of one or two bytes each, behind a byte for which."""
    while segment:
        need = 65 if segment[0] < 16 else 129
        if len(segment) < need:
            return False
        segment = segment[need:]
    return True


def _exif_orientation(segment: bytes) -> int | None:
    """Return the orientation of an Exif segment, 1 if it has none; `None` if it is no Exif, or unusual."""
    if segment[:6] != b"Exif\0\0":
        return None
    tiff = segment[6:]
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return None

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]  # mypy takes it for any text

    first = number(4, 4)
    count = number(first, 2)
    if first < 8 or first + 2 + 12 * count > len(tiff):
        return None
    found = None
    for at in range(first + 2, first + 2 + 12 * count, 12):
        if number(at, 2) == _ORIENTATION:
            if found is not None or number(at + 2, 2) != _SHORT or number(at + 4, 4) != 1:
                return None
            found = number(at + 8, 2)
    return 1 if found is None else found
