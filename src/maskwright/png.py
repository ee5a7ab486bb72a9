"""Mask images are PNG files, and most of the time to read one goes into inflating it: a faster library does that part.

Pillow still decodes the file. It is given an equal one, in which the pixels are stored instead of compressed.
"""

from __future__ import annotations

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values per pixel of each colour type (PNG specification, table 11.1)."""

_STORED = 65_535
"""Bytes of a stored block of deflate, at most (RFC 1951, 3.2.4)."""


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
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 45:
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if colour not in _CHANNELS or interlace or not 0 < width * height <= most_pixels:
        return None
    before, pixels, at = [content[8:33]], [], 33
    while True:
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + length
        if len(kind) < 4 or end > len(content) or kind == b"acTL":
            return None
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(content[at + 8 : end - 4])
        elif pixels:
            return None  # something behind the pixels: rare, and Pillow has rules for it
        else:
            before.append(content[at:end])
        at = end
    size = height * (1 + (width * _CHANNELS[colour] * depth + 7) // 8)
    raw = _inflate(b"".join(pixels), size)
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
        [SIGNATURE, *before, len(data).to_bytes(4, "big"), b"IDAT", data, bytes(4), b"\0\0\0\0IEND\xaeB`\x82"]
    )


def _inflate(data: bytes, size: int) -> bytes | None:
    """Inflate to exactly so many bytes, never more; `None` if there are fewer or more, or the data is damaged."""
    from zlib_ng import zlib_ng

    machine = zlib_ng.decompressobj()
    try:
        raw = machine.decompress(data, size)
        if len(raw) < size:
            return None
        if not machine.eof and machine.decompress(machine.unconsumed_tail, 1):
            return None
    except zlib_ng.error:  # type: ignore[misc]  # its stub gives the type as an object
        return None
    return bytes(raw) if machine.eof else None
