"""Mask images are PNG files, and most of the time to read one goes into inflating it: a faster library does that part.

Grey pictures of 8 bits are then decoded here. All others are still decoded by Pillow, which is given an equal file, in
which the pixels are stored instead of compressed.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values per pixel of each colour type (PNG specification, table 11.1)."""

_STORED = 65_535
"""Bytes of a stored block of deflate, at most (RFC 1951, 3.2.4)."""


class Crop(NamedTuple):
    """The part of a grey picture outside which all is 0.

    Attributes:
        values: `(h, w)` uint8; `(0, 0)` where all is 0.
        top: Line of the picture at which it begins.
        left: Column at which it begins.
        size: `(height, width)` of the picture.
        only: The one value beside 0, if there is just one; else 0.
    """

    values: NDArray[np.uint8]
    top: int
    left: int
    size: tuple[int, int]
    only: int = 0

    def whole(self) -> NDArray[np.uint8]:
        """Return the picture, `(height, width)` uint8."""
        plane = np.zeros(self.size, dtype=np.uint8)
        lines, columns = self.values.shape
        plane[self.top : self.top + lines, self.left : self.left + columns] = self.values
        return plane


class _Parts(NamedTuple):
    """A PNG file in parts: what its header says, all chunks before the pixels, the pixels as they are compressed."""

    size: tuple[int, int]
    depth: int
    colour: int
    before: list[bytes]
    data: bytes

    def line(self) -> int:
        """Return the bytes of a line of pixels, its filter's number included."""
        return 1 + (self.size[1] * _CHANNELS[self.colour] * self.depth + 7) // 8


def _parts(content: bytes, most_pixels: int) -> _Parts | None:
    """Take a file apart; `None` where it is no plain PNG."""
    if content[:16] != SIGNATURE + b"\0\0\0\rIHDR" or len(content) < 45:
        return None
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if colour not in _CHANNELS or compression or filters or interlace or not 0 < width * height <= most_pixels:
        return None
    before: list[bytes] = [content[8:33]]
    pixels: list[bytes] = []
    at = 33
    while True:
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + length
        if len(kind) < 4 or end > len(content) or kind == b"acTL":
            return None
        if kind == b"IEND":
            return _Parts((height, width), depth, colour, before, pixels[0] if len(pixels) == 1 else b"".join(pixels))
        if kind == b"IDAT":
            pixels.append(content[at + 8 : end - 4])
        elif pixels:
            return None  # something behind the pixels: rare, and Pillow has rules for it
        else:
            before.append(content[at:end])
        at = end


def stored(content: bytes, most_pixels: int) -> bytes | None:
    r"""Return an equal PNG file whose pixels are not compressed.

    Args:
        content: A whole file.
        most_pixels: Larger pictures are left alone.

    Returns:
        The file; `None` where it is no plain PNG, or damaged: then Pillow reads it as it is, and says what is wrong.

    Example:
        >>> import io; from PIL import Image
        >>> file = io.BytesIO(); Image.new("L", (3, 2), 7).save(file, "PNG")
        >>> Image.open(io.BytesIO(stored(file.getvalue(), 10))).tobytes()
        b'\x07\x07\x07\x07\x07\x07'
    """
    parts = _parts(content, most_pixels)
    if parts is None:
        return None
    size = parts.size[0] * parts.line()
    raw = _inflate(parts.data, size)
    if raw is None:
        return None
    blocks = [b"\x78\x01"]
    for start in range(0, size, _STORED):
        part = raw[start : start + _STORED]
        last = start + _STORED >= size
        blocks += [struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF), part]
    from zlib_ng import zlib_ng

    blocks.append(zlib_ng.adler32(raw).to_bytes(4, "big"))
    data = b"".join(blocks)
    # Pillow does not look at the checksum of pixels (nor need it: this file was made a moment ago).
    return b"".join(
        [SIGNATURE, *parts.before, len(data).to_bytes(4, "big"), b"IDAT", data, bytes(4), b"\0\0\0\0IEND\xaeB`\x82"]
    )


def grey(content: bytes, most_pixels: int) -> Crop | None:
    """Decode a grey picture of 8 bits, as nearly all mask images are, without Pillow.

    Masks are mostly 0, and so are the differences that PNG stores; so the part that is not 0 is found first, and only
    there the filters are undone (PNG specification, 9).

    Args:
        content: A whole file.
        most_pixels: Larger pictures are left alone.

    Returns:
        The picture; `None` where the file is of another kind, has something unusual (a text that may turn the picture),
        or is damaged: then Pillow reads it, and says what is wrong.

    Example:
        >>> import io; from PIL import Image
        >>> file = io.BytesIO(); Image.new("L", (3, 2), 7).save(file, "PNG")
        >>> grey(file.getvalue(), 10).whole().tolist()
        [[7, 7, 7], [7, 7, 7]]
    """
    parts = _parts(content, most_pixels)
    if parts is None or parts.depth != 8 or parts.colour != 0 or not all(map(_harmless, parts.before)):
        return None
    height, width = parts.size
    raw = _inflate(parts.data, height * (1 + width))
    if raw is None:
        return None
    flat = np.frombuffer(raw, dtype=np.uint8)
    lines = flat.reshape(height, 1 + width)
    if lines[:, 0].max() > 4:
        return None
    top, last = _used_lines(flat, lines)
    left, right = _used_columns(lines[top:last])
    if lines[top, 0]:  # blank lines may have a filter too, and then do not look blank
        used = np.flatnonzero(lines[top:last, left + 1 : right + 1].any(axis=1))
        top, last = (top + int(used[0]), top + int(used[-1]) + 1) if len(used) else (0, 0)
    if left == right:
        return Crop(np.zeros((0, 0), dtype=np.uint8), 0, 0, parts.size)
    # Where a line stores no difference it goes on as it was: the column and the line behind the last ones tell how.
    last, right = min(last + 1, height), min(right + 1, width)
    values, only = _unfiltered(lines[top:last], left, right)
    if values is not None and right < width and values[:, -1].any():
        right = width
        values, only = _unfiltered(lines[top:last], left, right)
    if values is not None and last < height and values[-1].any():
        values, only = _unfiltered(lines[top:], left, right)
    return None if values is None else Crop(values, top, left, parts.size, only)


_PLAIN = frozenset({b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"})
"""Chunks that change no grey value."""


def _harmless(chunk: bytes) -> bool:
    """Tell whether a chunk before the pixels is whole, and neither changes values nor turns the picture."""
    from zlib_ng import zlib_ng

    kind = chunk[4:8]
    if kind == b"tEXt":
        text = chunk[8:-4].lower()
        if b"exif" in text or b"xmp" in text or b"profile" in text:
            return False
    elif kind != b"IHDR" and kind not in _PLAIN:
        return False
    return zlib_ng.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _used_lines(flat: NDArray[np.uint8], lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first line that is not 0, and the one behind the last; there may be blank lines at both ends."""
    height, wide = lines.shape
    bands = height // 8
    # Eight lines are so many whole words as a line has bytes, which is the quickest to go through.
    used = np.flatnonzero(np.bitwise_or.reduce(flat[: 8 * bands * wide].view(np.uint64).reshape(bands, wide), axis=1))
    if bool(lines[8 * bands :].any()):
        return (8 * int(used[0]) if len(used) else 8 * bands), height
    return (8 * int(used[0]), 8 * int(used[-1]) + 8) if len(used) else (0, 0)


def _used_columns(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first column of pixels that is not 0 in some line, and the one behind the last."""
    height, wide = lines.shape
    if height and height % 8 == 0:  # in two steps, the first of which goes through long pieces
        lines = np.bitwise_or.reduce(lines.reshape(8, height // 8, wide), axis=0)
    used = np.flatnonzero(np.bitwise_or.reduce(lines, axis=0)[1:])
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)


def _unfiltered(lines: NDArray[np.uint8], left: int, right: int) -> tuple[NDArray[np.uint8] | None, int]:
    """Undo the filters of lines of 1 + W bytes, of which nothing is stored left of `left` nor above.

    Returns:
        `(h, right - left)` uint8; `None` where a line has the filter Average, which masks hardly ever have. And the one
        value beside 0, if it is known that there is just one, else 0.
    """
    kinds = lines[:, 0]
    stored = lines[:, left + 1 : right + 1]
    values = stored.copy()
    sub = np.flatnonzero(kinds == 1)
    if len(sub):
        values[sub] = np.add.accumulate(values[sub], axis=1, dtype=np.uint8)
    each, quick = kinds.tolist(), values.copy()
    only = _undo_upward_of_two(quick, each)
    if only:
        return quick, only
    add, above = np.add, np.zeros(values.shape[1], dtype=np.uint8)
    for line, kind in zip(values, each, strict=True):
        if kind == 2:
            add(above, line, line)
        elif kind == 4:
            _undo_paeth(line, above)
        elif kind == 3:
            return None, 0
        above = line
    return values, 0


def _undo_upward_of_two(values: NDArray[np.uint8], kinds: list[int]) -> int:
    """Undo the filters that look at the line above, in place, as if there were just one value beside 0.

    The filter Paeth then guesses the pixel above where that differs from the one before it, and else the pixel to the
    left. So a difference that is stored turns all pixels from there to the next change of the line above.

    Args:
        values: `(h, w)`, as stored, but for lines of other filters, which are as they should be.
        kinds: The filter of each line.

    Returns:
        The one value; 0 where there are more, and what is in `values` then is of no use.
    """
    inked = values[0][values[0] != 0]  # the first line is guessed from nothing: its first difference is a value
    for line in values[1:] if not len(inked) else ():
        inked = line[line != 0]
        if len(inked):
            break
    if not len(inked) or 3 in kinds:
        return 0
    only = int(inked[0])
    by_value = {0: bytes((only,)), only: b"\0"}
    rows = [row for row, kind in enumerate(kinds) if kind == 4]
    at: dict[int, list[int]] = {row: [] for row in rows}
    if rows:
        row_of, columns = values[rows].nonzero()
        for k, column in zip(row_of.tolist(), columns.tolist(), strict=True):
            at[rows[k]].append(column)
    add, above = np.add, np.zeros(values.shape[1], dtype=np.uint8)
    turned = (only, 256 - only)
    for row, (line, kind) in enumerate(zip(values, kinds, strict=True)):
        if kind == 2:
            add(above, line, line)
        elif kind == 4:
            before = above.tobytes()
            differences = line.tobytes()
            line[:] = above
            for column in at[row]:
                other = by_value.get(before[column])
                if other is None:
                    return 0
                end = before.find(other, column)
                value = only - int(line[column])
                if differences[column] != turned[value == 0]:
                    return 0
                line[column : len(before) if end < 0 else end] = value
        above = line
    mask = values == only
    return only if np.count_nonzero(mask) == np.count_nonzero(values) else 0


def _undo_paeth(line: NDArray[np.uint8], above: NDArray[np.uint8]) -> None:
    """Undo the filter Paeth, in place.

    Where no difference is stored and the line above does not change, the value to the left goes on; so only the other
    places, of which a mask has a few a line, are looked at one by one.
    """
    changes = above[1:] ^ above[:-1]
    changes |= line[1:]
    places = changes.nonzero()[0].tolist()
    stored, before = line.tobytes(), above.tobytes()
    value = (stored[0] + before[0]) & 255
    start, pieces = 0, []
    for place in places:
        corner, up = before[place], before[place + 1]
        if up == corner:
            near = value
        elif value == corner:
            near = up
        else:
            by_left, by_up, by_corner = abs(up - corner), abs(value - corner), abs(value + up - 2 * corner)
            near = value if by_left <= by_up and by_left <= by_corner else up if by_up <= by_corner else corner
        pieces.append(_BYTES[value] * (place + 1 - start))
        start = place + 1
        value = (stored[start] + near) & 255
    pieces.append(_BYTES[value] * (len(stored) - start))
    line[:] = np.frombuffer(b"".join(pieces), dtype=np.uint8)


_BYTES = [bytes((value,)) for value in range(256)]


def _inflate(data: bytes, size: int) -> bytes | None:
    """Inflate to exactly so many bytes, never more; `None` if there are fewer or more, or the data is damaged."""
    from zlib_ng import zlib_ng

    try:
        if len(data) < _LITTLE:
            raw = zlib_ng.decompress(data, bufsize=size + 1)  # with no place left it would ask for another buffer
            return bytes(raw) if len(raw) == size else None
        machine = zlib_ng.decompressobj()
        raw = machine.decompress(data, size)
        if len(raw) < size:
            return None
        if not machine.eof and machine.decompress(machine.unconsumed_tail, 1):
            return None
    except zlib_ng.error:  # type: ignore[misc]  # its stub gives the type as an object
        return None
    return bytes(raw) if machine.eof else None


_LITTLE = 50_000
"""Data of fewer bytes inflates to 52 MB at most (1,032 times), so it may be inflated in one go, into one buffer: pieces
that grow and are joined make the allocator give memory back to the system for each picture, and fetch it again."""
