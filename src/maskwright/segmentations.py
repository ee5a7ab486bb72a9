"""COCO's `segmentation`: told sound from its bytes alone, checked as numbers, drawn as RLE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright import pixels


def are_plain_polygons(texts: Sequence[bytes], digits: int) -> bool:
    """Tell whether each text is a list of polygons that are plain beyond doubt, without parsing a number.

    Plain means: lists of at least three points, x and y; numbers without exponents, with at most so many digits before
    the point. `False` means that it must be parsed to be known.

    Args:
        texts: Each known to be JSON.
        digits: At most so many before the point.

    Example:
        >>> are_plain_polygons([b"[[1, 2.5, 3, 4, 5, 6]]"], 3), are_plain_polygons([b"[[1, 2, 3, 4]]"], 3)
        (True, False)
    """
    return are_plain(joined(texts), len(texts), digits)


def joined(texts: Sequence[bytes]) -> bytes:
    """Return texts end to end with a line break before, between and behind; nothing if there are none."""
    return b"\n".join([b"", *texts, b""]) if texts else b""


def are_plain(joined: bytes, count: int, digits: int) -> bool:
    """Tell of so many texts, `joined`, what `are_plain_polygons` does."""
    if not count:
        return True
    shape = joined.translate(None, b"0123456789-. ")
    brackets = shape.translate(None, b",")
    if brackets.replace(b"[]", b"") != b"\n" + b"[]\n" * count:
        return False
    marks = np.frombuffer(shape, dtype=np.uint8)
    is_open, is_close, is_comma = marks == ord("["), marks == ord("]"), marks == ord(",")
    if not np.array_equal(is_close[:-2] & is_comma[1:-1], is_comma[1:-1] & is_open[2:]):
        return False  # a number beside polygons
    opens = np.flatnonzero(is_open[:-1] & ~is_open[1:])
    closes = np.flatnonzero(is_close[1:] & ~is_close[:-1])
    if len(opens) != len(closes):
        return False
    commas = closes - opens  # one less than the numbers between
    if (commas < 5).any() or (commas % 2 == 0).any():
        return False
    return _are_short(np.frombuffer(joined, dtype=np.uint8), digits)


def _are_short(joined: NDArray[np.uint8], digits: int) -> bool:
    """Tell whether no number has more digits before its point."""
    is_digit = joined - np.uint8(ord("0")) < 10
    long, have = is_digit, 1  # where so many digits begin
    while have <= digits:
        step = min(have, digits + 1 - have)
        long, have = long[step:] & long[: len(long) - step], have + step
    if not long.any():
        return True
    change = np.flatnonzero(is_digit[1:] != is_digit[:-1]) + 1  # text begins and ends with a line break
    starts, ends = change[0::2], change[1::2]
    return not ((ends - starts > digits) & (joined[starts - 1] != ord("."))).any()


def check_polygons(segmentation: list[Any], size: pixels.Size) -> None:
    """Refuse polygons that cannot be drawn.

    Args:
        segmentation: COCO's list of polygons.
        size: `(height, width)` of the photo.

    Raises:
        ValueError: If one has too few points, or a coordinate that is no number or far outside the photo.
    """
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs at least three points, as [x1, y1, x2, y2, x3, y3, ...]")
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("a polygon has a coordinate that is not a number") from None
        if not np.isfinite(points).all():
            raise ValueError("a polygon has a coordinate that is not a finite number")
        if np.abs(points).max() > 10 * max(size) + 1000:
            raise ValueError("a polygon lies far outside the photo")  # drawing it would take memory without end


def draw_polygons(segmentation: list[Any], size: pixels.Size) -> bytes:
    """Turn COCO's list of polygons into RLE, once they are known to be sound.

    Raises:
        ValueError: As `check_polygons`.
    """
    check_polygons(segmentation, size)
    return pixels.from_polygons(segmentation, size)


def rle_of(segmentation: Any, size: pixels.Size) -> bytes:
    """Turn any COCO `segmentation` into RLE at the photo's size.

    Raises:
        ValueError: If it is not a polygon list or an RLE of that size.
    """
    if isinstance(segmentation, list):
        return draw_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError("a segmentation is a list of polygons or an RLE with 'size' and 'counts'")
    stated = tuple(int(v) for v in segmentation.get("size", size))
    if stated != tuple(size):
        raise ValueError(f"the RLE's size (height, width) {stated} is not the photo's {tuple(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return pixels.from_counts(counts, size)
    if not isinstance(counts, str | bytes):
        raise ValueError("an RLE's counts are text, or a list of runs")
    rle = counts.encode("ascii") if isinstance(counts, str) else counts
    return pixels.checked(rle, size)
