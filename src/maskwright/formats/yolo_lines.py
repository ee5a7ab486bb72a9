"""A line of a YOLO segmentation label file: `class x1 y1 x2 y2 ...`, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskwright.formats import Tally, plural, some
from maskwright.formats.shapes import polygons_rle
from maskwright.pixels import Size
from maskwright.tracing import joined, outlines

FAR = 0.05
"""A coordinate so far outside 0..1 is no slip of the pen: the numbers are no shares of the photo."""

BOX = "label lines hold a box (4 numbers), not the outline of an object"
LINE = "label lines cannot be read"
RANGE = "coordinates lie outside 0..1: they must be shares of the photo's width and height"
CLASS = "label lines have a category id without a name"


def looks(path: Path) -> bool | None:
    """Tell whether a text begins as a label file does, with a class and shares; `None` if it is empty."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            head = handle.read(65_536)
    except OSError:
        return False
    text = head.decode("utf-8-sig", "replace").lstrip()
    line, end, _ = text.partition("\n")
    tokens = line.split()
    if not tokens:
        return None
    if not end and len(head) == 65_536:
        tokens.pop()  # it may be cut
    try:
        values = [float(token) for token in tokens]
        whole = values[0] == int(values[0]) >= 0
    except (ValueError, OverflowError):
        return False
    return whole and len(values) >= 5 and all(-1 <= share <= 2 for share in values[1:])


class Fault(ValueError):
    """A label line that breaks a rule."""

    def __init__(self, rule: str, text: str) -> None:
        self.rule = rule
        super().__init__(text)


def object_of(
    tokens: Sequence[str], size: Size, names: Mapping[int, str] | None, label: str, tally: Tally
) -> tuple[str, bytes | None]:
    """Read the words of one label line: the category's name, and the RLE (`None` if no pixel is marked).

    Raises:
        ValueError: If they break a rule.
    """
    try:
        values = np.array(tokens, dtype=np.float64)
    except (ValueError, OverflowError):
        raise Fault(LINE, f"{' '.join(tokens)[:40]!r} are not numbers") from None
    if not np.isfinite(values).all():
        raise Fault(LINE, "it has numbers that are not finite")
    if values[0] < 0 or values[0] != math.floor(values[0]) or values[0] > 1e9:
        raise Fault(LINE, f"the category id {tokens[0]} is no whole number from 0")
    category = int(values[0])
    shares = values[1:]
    if len(shares) in {4, 5}:
        score = " and a score" if len(shares) == 5 else ""
        raise Fault(BOX, f"a box{score}")
    if len(shares) < 6:
        raise Fault(LINE, f"a class and {plural(len(shares), 'number')}; a polygon has at least 6")
    if len(shares) % 2:
        raise Fault(LINE, f"an odd count of coordinates ({len(shares)}); if the last is a score, leave it out")
    worst = shares[int(np.argmax(np.abs(shares - 0.5)))]
    if abs(worst - 0.5) > 0.5 + FAR:
        raise Fault(RANGE, f"{worst:g}")
    if names is not None and category not in names:
        raise Fault(CLASS, f"id {category}; names are there for {some(str(key) for key in sorted(names))}")
    if abs(worst - 0.5) > 0.5:
        tally.add("polygons a little outside of the photo, cut at its edge", label)
    longest = max(tokens[1:], key=len)
    digits = 17 if "e" in longest.lower() else len(longest.partition(".")[2])
    points = to_pixels(shares, size, digits)
    name = names[category] if names is not None else f"class {category}"
    try:
        return name, polygons_rle([points.tolist()], size, label, tally)
    except ValueError as error:
        raise Fault(LINE, str(error)) from None


def to_pixels(shares: NDArray[np.float64], size: Size, digits: int) -> NDArray[np.float64]:
    """Turn shares into pixels: of all numbers that were rounded to these shares, the roundest.

    COCO's rasteriser rounds to fifths of a pixel, and the coordinates that people write often lie half-way between two:
    there an error of a millionth would decide by chance. So a corner that was at 12.3 before its file was written is at
    12.3 again.

    Args:
        shares: `(2N,)` of width and height in turn.
        size: `(height, width)`.
        digits: Decimals that the file gives.

    Example:
        >>> to_pixels(np.array([0.333333, 0.1]), (30, 30), 6).tolist()
        [10.0, 3.0]
    """
    scale = np.tile([float(size[1]), float(size[0])], len(shares) // 2)
    exact = shares * scale
    slack = scale * max(0.5 * 10.0**-digits, 1e-12)
    points = exact.copy()
    for decimals in (2, 1, 0):
        rounder = np.round(exact, decimals)
        points = np.where(np.abs(rounder - exact) <= slack, rounder, points)
    return np.asarray(points)


def line_of(category: int, rle: bytes, size: Size) -> str:
    """Write an object as a line that `object_of` reads back to the same pixels.

    Args:
        category: Its id, from 0.
        rle: Its mask, not empty.
        size: `(height, width)` of the photo.
    """
    points = joined(outlines(rle, size))
    digits = max(6, len(str(max(size))) + 2)
    words = [str(category)] * (points.size + 1)
    for axis, side in enumerate((size[1], size[0])):
        values, which = np.unique(points[:, axis], return_inverse=True)  # an outline has few that differ
        shares = [f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in (values / side).tolist()]
        words[1 + axis :: 2] = [shares[k] for k in which.tolist()]
    return " ".join(words)
