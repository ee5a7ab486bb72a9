"""Solid shapes seen from above: how deep a point lies inside the outline, and how high and steep the surface is there.

A shape answers for points `(u, v)` of its own frame, in its own unit, with four values each: `depth` (distance to the
outline, positive inside), `z` (height above its base), and the slopes `dz/du`, `dz/dv`. That is all that shading needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from maskwright.demo.noise import Floats

Points = Sequence[tuple[float, float]]
_TABLE = 512  # entries of a bar's profile
_STEEPEST = 4.0  # slopes go to infinity at a round edge; beyond this, nothing can be seen of them


class Surface(NamedTuple):
    """What a shape answers, each `(N,)` float32 in the shape's unit."""

    depth: Floats
    z: Floats
    slope_u: Floats
    slope_v: Floats


class Shape(Protocol):
    """A solid in its own frame."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`u1 v1 u2 v2` that hold the outline."""
        ...

    def surface(self, u: Floats, v: Floats, texels: float) -> Surface:
        """Answer for points `(N,)`; `texels` is how many samples a unit is drawn with."""
        ...


def smooth(knots: Points, count: int) -> tuple[Floats, Floats]:
    """Return `count` points of a smooth curve through knots `(place, value)`, as places and values.

    Between two knots the curve stays between their values (the monotone cubic of Fritsch and Butland, 1984), so that a
    thin neck is never drawn thinner than told.
    """
    at = np.array([k[0] for k in knots])
    value = np.array([k[1] for k in knots])
    gap = np.diff(at)
    rate = np.diff(value) / gap
    slope = np.zeros_like(value)
    slope[0], slope[-1] = rate[0], rate[-1]
    before, after = rate[:-1], rate[1:]
    same = before * after > 0
    mean = 3 * (gap[:-1] + gap[1:])
    down = (2 * gap[1:] + gap[:-1])[same] / before[same] + (gap[1:] + 2 * gap[:-1])[same] / after[same]
    slope[1:-1][same] = mean[same] / down
    places = np.linspace(at[0], at[-1], count)
    k = np.clip(np.searchsorted(at, places, side="right") - 1, 0, len(gap) - 1)
    t = (places - at[k]) / gap[k]
    low, high, wide = value[k], value[k + 1], gap[k]
    curve = low + (high - low) * (t * t * (3 - 2 * t)) + wide * t * (1 - t) * (slope[k] * (1 - t) - slope[k + 1] * t)
    return places.astype(np.float32), curve.astype(np.float32)


@dataclass
class Bar:
    """A long solid along u: a handle, a shaft, a finger, a head turned on a lathe.

    Args:
        width: Knots `(u, half width)`; the curve through them is smooth.
        power: Cross-section: 2 is round, more is boxier.
        flat: Height over half width.
        bend: Knots `(u, v of the middle line)`; straight if empty.
        ends: Radius of the rounding at the two ends, 0 for a cut.
        bulge: How far an end swells beyond its last knot, as the rim of a lathe-turned end does when seen askew.
    """

    width: Points
    power: float = 2.0
    flat: float = 1.0
    bend: Points = ()
    ends: tuple[float, float] = (0.0, 0.0)
    bulge: float = 0.0
    _tables: tuple[Floats, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places, half = smooth(self.width, _TABLE)
        step = float(places[1] - places[0])
        for radius, inward in ((self.ends[0], places - places[0]), (self.ends[1], places[-1] - places)):
            if radius > 0:
                half = half * np.sqrt(np.clip(1 - np.clip(1 - inward / radius, 0, 1) ** 2, 1e-4, 1))
        half = half.astype(np.float32)
        if self.bend:
            knots_u, knots_v = smooth(self.bend, 128)
            middle = np.interp(places, knots_u, knots_v).astype(np.float32)
        else:
            middle = np.zeros_like(half)
        self._tables = (half, np.gradient(half, step), middle, np.gradient(middle, step))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`u1 v1 u2 v2`."""
        half, _, middle, _ = self._tables
        return (
            self.width[0][0] - self.bulge,
            float((middle - half).min()),
            self.width[-1][0] + self.bulge,
            float((middle + half).max()),
        )

    def surface(self, u: Floats, v: Floats, texels: float) -> Surface:
        """See `Shape`."""
        start, end = self.width[0][0], self.width[-1][0]
        place = np.clip((u - start) * ((_TABLE - 1) / (end - start)) + 0.5, 0, _TABLE - 1).astype(np.int32)
        half, widening, middle, bending = (table[place] for table in self._tables)
        across = v - middle
        x = across / half
        inside = np.clip(np.abs(x), 0, 0.9995)
        if self.power == 2:
            height = np.sqrt(1 - inside * inside)
            steep = -x / height
        else:
            top = inside ** (self.power - 1)
            rest = 1 - top * inside
            height = rest ** (1 / self.power)
            steep = -np.sign(x) * top * height / rest
        depth = half - np.abs(across)
        reach = np.minimum(u - start, end - u)
        if self.bulge:
            reach = reach + self.bulge * np.sqrt(1 - inside * inside)
        slope_v = np.clip(self.flat * steep, -_STEEPEST, _STEEPEST)
        slope_u = np.clip(self.flat * widening * (height - x * steep), -_STEEPEST, _STEEPEST) - slope_v * bending
        return Surface(np.minimum(depth, reach), self.flat * half * height, slope_u, slope_v)


@dataclass
class Disc:
    """An ellipse, or a ring if it has an inner radius, with a rounded rim.

    Args:
        radius: Half axes along u and v.
        inner: Radius of the opening, as a share of the outer one.
        height: Of the flat top.
        bevel: How far the rounding of the rim reaches inwards.
        lean: Slopes of the flat top, for a face that looks aside.
        dish: Slope at the rim of a top that is domed (positive) or dished.
    """

    radius: tuple[float, float]
    inner: float = 0.0
    height: float = 1.0
    bevel: float = 1.0
    lean: tuple[float, float] = (0.0, 0.0)
    dish: float = 0.0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`u1 v1 u2 v2`."""
        a, b = self.radius
        return (-a, -b, a, b)

    def surface(self, u: Floats, v: Floats, texels: float) -> Surface:
        """See `Shape`."""
        a, b = self.radius
        x, y = u / a, v / b
        rho = np.sqrt(x * x + y * y) + 1e-6
        least = min(a, b)
        depth = (1 - rho) * least
        sign = np.ones_like(rho)
        if self.inner:
            hole = (rho - self.inner) * least
            sign = np.where(hole < depth, -sign, sign)
            depth = np.minimum(depth, hole)
        z, steep = _rounded(depth, self.height, self.bevel)
        steep = -steep * sign - self.dish * rho
        return Surface(depth, z, steep * x / rho + self.lean[0], steep * y / rho + self.lean[1])


@dataclass
class Box:
    """A rectangle with rounded corners and a bevelled rim, its middle at the origin.

    Args:
        size: Full length along u and v.
        corner: Radius of the corners.
        height: Of the flat top.
        bevel: How far the rounding of the rim reaches inwards.
        lean: Slopes of the flat top.
    """

    size: tuple[float, float]
    corner: float = 1.0
    height: float = 1.0
    bevel: float = 1.0
    lean: tuple[float, float] = (0.0, 0.0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`u1 v1 u2 v2`."""
        a, b = self.size[0] / 2, self.size[1] / 2
        return (-a, -b, a, b)

    def surface(self, u: Floats, v: Floats, texels: float) -> Surface:
        """See `Shape`."""
        corner = min(self.corner, self.size[0] / 2, self.size[1] / 2)
        qu = np.abs(u) - (self.size[0] / 2 - corner)
        qv = np.abs(v) - (self.size[1] / 2 - corner)
        pu, pv = np.maximum(qu, 0), np.maximum(qv, 0)
        out = np.sqrt(pu * pu + pv * pv)
        depth = corner - out - np.minimum(np.maximum(qu, qv), 0)
        z, steep = _rounded(depth, self.height, self.bevel)
        by_u = np.where(out > 0, pu / (out + 1e-6), qu > qv)
        by_v = np.where(out > 0, pv / (out + 1e-6), qu <= qv)
        slope_u = -steep * by_u * np.sign(u) + self.lean[0]
        slope_v = -steep * by_v * np.sign(v) + self.lean[1]
        return Surface(depth, z, slope_u.astype(np.float32), slope_v.astype(np.float32))


@dataclass
class Plate:
    """Any flat outline, cut from plate or forged: its rim is rounded by its distance field.

    Args:
        outlines: Polygons; their union is the plate.
        holes: Polygons taken out of it.
        height: Of the flat top.
        bevel: How far the rounding of the rim reaches inwards; from half the width on, the plate is round all over.
        rim: Height of the edge, as a share of the height.
        blur: Softening of outline and surface, in units.
    """

    outlines: Sequence[Points]
    holes: Sequence[Points] = ()
    height: float = 1.0
    bevel: float = 1.0
    rim: float = 0.0
    blur: float = 0.3
    _sprite: tuple[float, Floats, Floats, Floats] | None = field(default=None, init=False, repr=False)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """`u1 v1 u2 v2`."""
        points = np.array([p for outline in self.outlines for p in outline])
        (u1, v1), (u2, v2) = points.min(axis=0), points.max(axis=0)
        return (float(u1), float(v1), float(u2), float(v2))

    def surface(self, u: Floats, v: Floats, texels: float) -> Surface:
        """See `Shape`."""
        if self._sprite is None or self._sprite[0] < texels / 2:
            self._sprite = self._drawn(texels)
        density, depth, slope_u, slope_v = self._sprite
        u1, v1, _, _ = self.bounds
        x = (u - u1) * density + (_MARGIN - 0.5)
        y = (v - v1) * density + (_MARGIN - 0.5)
        rows, columns = depth.shape
        np.clip(x, 0, columns - 1.001, out=x)
        np.clip(y, 0, rows - 1.001, out=y)
        x0, y0 = x.astype(np.int32), y.astype(np.int32)
        fx, fy = x - x0.astype(np.float32), y - y0.astype(np.float32)
        first = y0 * columns + x0
        weights = ((1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy)

        def at(table: Floats) -> Floats:
            flat = table.ravel()
            total: Floats = flat[first] * weights[0]
            for offset, weight in zip((1, columns, columns + 1), weights[1:], strict=True):
                total += flat[first + offset] * weight
            return total

        d = at(depth)
        z, steep = _rounded(d, self.height, self.bevel, self.rim)
        return Surface(d, z, steep * at(slope_u), steep * at(slope_v))

    def _drawn(self, texels: float) -> tuple[float, Floats, Floats, Floats]:
        u1, v1, u2, v2 = self.bounds
        density = min(texels, 400 / max(u2 - u1, v2 - v1))
        columns, rows = (int(np.ceil(length * density)) + 2 * _MARGIN for length in (u2 - u1, v2 - v1))
        picture = Image.new("L", (columns, rows))
        pen = ImageDraw.Draw(picture)
        for value, polygons in ((1, self.outlines), (0, self.holes)):
            for polygon in polygons:
                pen.polygon(
                    [((u - u1) * density + _MARGIN - 0.5, (v - v1) * density + _MARGIN - 0.5) for u, v in polygon],
                    fill=value,
                )
        solid = np.asarray(picture) != 0
        inside = ndimage.distance_transform_edt(solid)
        outside = ndimage.distance_transform_edt(~solid)
        # Half a texel: the distance transform measures to the next texel's middle, the outline lies between the two.
        depth = np.where(solid, inside - 0.5, 0.5 - outside).astype(np.float32)
        depth = ndimage.gaussian_filter(depth, max(0.7, self.blur * density)) / np.float32(density)
        slope_v, slope_u = np.gradient(depth * np.float32(density))
        return density, depth, slope_u.astype(np.float32), slope_v.astype(np.float32)


_MARGIN = 4  # texels around a plate's sprite, so that its distance field has an outside


def _rounded(depth: Floats, height: float, bevel: float, rim: float = 0.0) -> tuple[Floats, Floats]:
    """Return height and slope (towards the inside) of a rim that is a quarter of an ellipse."""
    rest = np.clip(1 - depth / bevel, 0, 0.995)
    drop = np.sqrt(1 - rest * rest)
    rise = height * (1 - rim)
    return height * rim + rise * drop, np.minimum(rise / bevel * rest / drop, _STEEPEST)


def spline(points: Points, count: int = 8, closed: bool = True) -> list[tuple[float, float]]:
    """Return the polygon of a Catmull-Rom curve through points, `count` corners for each."""
    p = np.array(points, dtype=np.float64)
    before, after, next_but_one = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    if not closed:
        before[0], after[-1], next_but_one[-1], next_but_one[-2] = p[0], p[-1], p[-1], p[-1]
    t = (np.arange(count) / count)[None, :, None]
    p0, p1, p2, p3 = (q[:, None, :] for q in (before, p, after, next_but_one))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]


def regular(corners: int, radius: float, turn: float = 0.0) -> list[tuple[float, float]]:
    """Return a regular polygon around the origin."""
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return [(float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]
