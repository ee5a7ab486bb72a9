"""Polygons, rectangles and circles of annotation files: made sure to be sane, and rasterised by COCO's own rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskwright import pixels
from maskwright.formats import Tally
from maskwright.pixels import Size

NO_POLYGON = "a polygon is not a list of finite numbers x1, y1, x2, y2, ..."
LONGEST = 20_000_000
"""An outline that is longer, in pixels, is refused: COCO's rasteriser takes 50 bytes for each, so that a megabyte of
corners that jump across a photo would fill a machine's memory. The outline of a mask of noise is shorter."""

CIRCLE_POINTS = 64
"""A circle is drawn as a polygon of at least so many corners; larger ones get more, so that no edge is off by half a
pixel."""


def polygons_rle(polygons: Sequence[Any], size: Size, name: str, tally: Tally) -> bytes | None:
    """Rasterise the union of polygons.

    Args:
        polygons: Each `[x1, y1, x2, y2, ...]` in pixels of the upright photo.
        size: `(height, width)` of the photo.
        name: How messages call the object's file.
        tally: Gets what had to be mended or left out.

    Returns:
        The RLE; `None` if it has no pixel, which is counted.

    Raises:
        ValueError: If a polygon is not one, or reaches far outside; the message says how.
    """
    kept = sane_polygons(polygons, size, name, tally)
    rle = pixels.from_polygons(kept, size) if kept else None
    if rle is None or not pixels.area(rle, size):
        tally.add("objects without a pixel, left out", name)
        return None
    return rle


def sane_polygons(polygons: Sequence[Any], size: Size, name: str, tally: Tally) -> list[list[float]]:
    """Return the polygons that enclose something, as numbers within reach of the photo.

    Raises:
        ValueError: As `polygons_rle`.
    """
    kept = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(NO_POLYGON) from None
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError(NO_POLYGON)
        if len(points) < 6:
            tally.add("polygons of fewer than three points, left out", name)
            continue
        xs, ys = points[0::2], points[1::2]
        beyond = float(max(-xs.min(), -ys.min(), xs.max() - size[1], ys.max() - size[0]))
        if beyond > 10 * max(size):  # COCO's rasteriser walks along every edge, however long
            raise ValueError("a polygon reaches far outside of the photo")
        if beyond > 1:
            tally.add("polygons that reach out of the photo, cut at its edge", name)
        walk = float(np.maximum(np.abs(np.roll(xs, -1) - xs), np.abs(np.roll(ys, -1) - ys)).sum())
        if walk > LONGEST:
            raise ValueError(f"a polygon's outline is {walk:,.0f} pixels long; at most {LONGEST:,} are followed")
        kept.append(points.tolist())
    return kept


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Return a rectangle as a polygon; the corners may come in any order.

    Example:
        >>> rectangle(4, 5, 1, 2)
        [1, 2, 4, 2, 4, 5, 1, 5]
    """
    x1, x2 = sorted((x1, x2))
    y1, y2 = sorted((y1, y2))
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def circle(x: float, y: float, radius: float) -> list[float]:
    """Return a circle as a polygon with its corners on the circle."""
    return ellipse(x, y, radius, radius)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """Return an ellipse as a polygon with its corners on it.

    Args:
        x: Centre, in pixels.
        y: Centre, in pixels.
        radius_x: Half the axis that lies along x before turning.
        radius_y: Half the other axis.
        angle: By how much it is turned, in radians, from x towards y.

    Raises:
        ValueError: If a number is not finite or a radius not positive.
    """
    if not all(math.isfinite(v) for v in (x, y, radius_x, radius_y, angle)) or min(radius_x, radius_y) <= 0:
        raise ValueError("an ellipse needs a centre and radii above 0")
    # A chord leaves its arc by radius x (1 - cos(pi / n)), about 5 radius / n^2: a quarter pixel at most.
    count = min(4096, max(CIRCLE_POINTS, math.ceil(math.sqrt(20 * max(radius_x, radius_y)))))
    turns = 2 * math.pi * np.arange(count) / count
    along, across = radius_x * np.cos(turns), radius_y * np.sin(turns)
    xs = x + along * math.cos(angle) - across * math.sin(angle)
    ys = y + along * math.sin(angle) + across * math.cos(angle)
    return [float(v) for v in np.column_stack([xs, ys]).ravel()]
