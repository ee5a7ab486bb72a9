"""Hammers: heads, handles and materials in every combination that is sold, and a few that are not.

Frame of a hammer: 100 units long, the handle along u from its end at -50 to the head at about +45, the head along v
with its face towards +v.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from maskwright.demo.materials import (
    Colour,
    Material,
    banded,
    between,
    black_steel,
    brass,
    chance,
    choose,
    chrome,
    labelled,
    linear,
    paint,
    painted,
    plastic,
    rubber,
    steel,
    wood,
)
from maskwright.demo.render import Part
from maskwright.demo.shapes import Bar, Box, Disc, Plate, Points, spline

_HEAD = 45.0  # u of the middle of the head
_ALONG_V = np.pi / 2


@dataclass(frozen=True)
class Hammer:
    """A hammer ready to be drawn.

    Args:
        handle: Its parts in the hammer's frame, holes last.
        head: Its parts, drawn after the handle.
        kind: Its head's name.
        grip: `(least u, most u)` where a gripper may hold the handle without hiding what makes it a hammer.
        hole: `(u, v)` of the middle of the hole in the handle, if it has one.
    """

    handle: list[Part]
    head: list[Part]
    kind: str
    grip: tuple[float, float]
    hole: tuple[float, float] | None


def hammer(rng: np.random.Generator) -> Hammer:
    """Draw up a hammer."""
    kind = choose(rng, list(_HEADS))
    yaw = between(rng, -0.95, 0.95) if chance(rng, 0.6) else between(rng, -0.15, 0.15)
    head_size = between(rng, 0.92, 1.22)
    wooden = kind == "joiner" or chance(rng, 0.42)
    if kind == "deadblow":
        handle, hole = _moulded_handle(rng)
    elif wooden:
        handle, hole = _wooden_handle(rng)
    else:
        handle, hole = choose(rng, [_shaft_and_grip, _shaft_and_grip, _one_piece])(rng)
    head = _HEADS[kind](rng, _Turned(yaw, head_size))
    holes = [part for part in handle if part.material is None]
    solid = [part for part in handle if part.material is not None]
    low = -36.0 if hole is None or hole[0] > -30 else -28.0
    high = 14.0 if hole is None or hole[0] < -20 else hole[0] - 22
    return Hammer([*solid, *holes], head, kind, (low, max(high, low + 4)), hole)


class _Turned:
    """A head turned about the handle by `yaw`: lengths along v shrink, round ends open to ellipses."""

    def __init__(self, yaw: float, size: float) -> None:
        self.k = float(np.cos(yaw)) * size
        self.s = float(np.sin(yaw))
        self.size = size

    def lathe(self, material: Material, width: Points, power: float = 2.0, ends: tuple[float, float] = (0, 0)) -> Part:
        """Turn a solid along v; knots are `(v, radius)`."""
        knots = [(v * self.k, r * self.size) for v, r in width]
        rim = max(knots[0][1], knots[-1][1]) * abs(self.s)
        short = (ends[0] * self.size, ends[1] * self.size)
        shape = Bar(knots, power, 1.0, ends=short, bulge=0.0 if any(ends) else rim)
        return Part(shape, material, (_HEAD, 0), _ALONG_V)

    def face(self, material: Material, v: float, radius: float, sign: float, corner: float | None = None) -> list[Part]:
        """Close a turned solid with the flat face that the yaw shows, if it shows this one."""
        if self.s * sign < 0.05:
            return []
        r = radius * self.size
        lean = (0.0, -sign * min(abs(self.s) / max(self.k, 0.3) * 0.8, 1.5))
        deep = r * abs(self.s)
        at = (_HEAD, v * self.k)
        if corner is None:
            return [Part(Disc((r, deep), 0, 0.5, 0.35, lean, 0.08), material, at, z=r)]
        return [Part(Box((2 * r, 2 * deep), corner, 0.5, 0.35, lean), material, at, z=r)]

    def plate(self, material: Material, outline: Points, height: float, bevel: float, z: float = 0.0) -> Part:
        """Forge a plate; its outline is in the hammer's frame, seen without yaw."""
        points = [(_HEAD + (u - _HEAD) * self.size, v * self.k) for u, v in outline]
        return Part(Plate([points], height=height * self.size, bevel=bevel * self.size, rim=0.15), material, z=z)

    def block(self, material: Material, size: tuple[float, float], height: float, bevel: float = 1.8) -> Part:
        """Put a block around the eye, where the handle goes through."""
        wide = size[1] * self.k + height * abs(self.s) * self.size * 0.7
        return Part(Box((size[0] * self.size, wide), 1.8, height * self.size, bevel), material, (_HEAD, 0))


def _head_steel(rng: np.random.Generator) -> Material:
    return black_steel(rng) if chance(rng, 0.25) else painted(rng) if chance(rng, 0.2) else steel(rng)


def _face_side(rng: np.random.Generator, turned: _Turned, body: Material, reach: float) -> list[Part]:
    """Return neck and face towards +v."""
    bright = steel(rng, between(rng, 0.1, 0.35)) if chance(rng, 0.7) else body
    r, neck = between(rng, 5.4, 6.8), between(rng, 3.9, 4.9)
    poll = between(rng, 5, 8)
    knots = [
        (2, 5.6),
        (min(7, reach - poll - 3), neck + 0.3),
        (reach - poll - 2, neck),
        (reach - poll, r),
        (reach - 0.8, r),
        (reach, r - 0.5),
    ]
    turned_bright = [turned.lathe(bright, [(reach - poll * 0.85, r - 0.1), (reach - 0.8, r + 0.05), (reach, r - 0.45)])]
    return [turned.lathe(body, knots), *turned_bright, *turned.face(bright, reach, r - 0.4, 1)]


def _claw(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = _head_steel(rng)
    drop = between(rng, 4, 15)  # how far the claw bends down towards the handle
    tip = between(rng, -27, -22)
    top: Points = [(49.6, -1), (50.2, -6), (48.8 - drop * 0.15, -13), (46 - drop * 0.55, -19), (44.4 - drop, tip)]
    low: Points = [(43 - drop, tip + 0.6), (42.5 - drop * 0.55, -17), (41.5 - drop * 0.12, -11), (40.2, -6), (40.4, -1)]
    outline = spline([*top, *low])
    far = [(u - 1.8 * turned.s, v * 0.985 + 2.2 * turned.s) for u, v in outline]
    prongs = [turned.plate(body, far, 3.2, 2.6), turned.plate(body, outline, 4.6, 3.4, 0.6)]
    return [*prongs, *_face_side(rng, turned, body, between(rng, 17, 21)), turned.block(body, (10.5, 11), 6.0, 2.6)]


def _ball(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = _head_steel(rng)
    r = between(rng, 4.4, 5.6)
    ball = turned.lathe(body, [(-19, r), (-13.5, r), (-11, r - 1.3), (-7, 4.6), (-3, 5.4)], ends=(r * 0.95, 0))
    return [ball, *_face_side(rng, turned, body, between(rng, 16, 20)), turned.block(body, (11, 11), 6.0, 3.0)]


def _cross(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = _head_steel(rng)
    tip = between(rng, -25, -18)
    wedge = [(50.5, 0), (50.6, -6), (46.5, tip + 1), (45.8, tip), (44.2, tip), (43.5, tip + 1), (39.4, -6), (39.5, 0)]
    reach = between(rng, 15, 19)
    r = between(rng, 6.0, 7.2)
    side = turned.lathe(body, [(0, 6.2), (5, 5.9), (reach - 7, 5.6), (reach - 5, r), (reach, r - 0.3)], 4)
    return [
        turned.plate(body, wedge, 5.6, 3.0),
        side,
        *turned.face(steel(rng, 0.3), reach, r - 0.5, 1, 1.5),
        turned.block(body, (12, 10), 6.4, 2.2),
    ]


def _sledge(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = choose(rng, [steel, black_steel, painted])(rng)
    reach, r = between(rng, 14, 19), between(rng, 6.6, 8.6)
    bright = steel(rng, between(rng, 0.2, 0.5))
    power = choose(rng, [2.0, 3.5, 5.0])
    corner = None if power == 2 else 1.5
    waist = between(rng, 0.88, 1.0)
    width = [
        (-reach, r - 0.7),
        (-reach + 1.2, r),
        (-5, r * waist),
        (5, r * waist),
        (reach - 1.2, r),
        (reach, r - 0.7),
    ]
    ends = [turned.lathe(bright, [(a, r - 0.7 * (i == 0)), (b, r - 0.7 * (i == 1))], power)
            for i, (a, b) in enumerate([(-reach, -reach + 1.6), (reach - 1.6, reach)])]  # fmt: skip
    faces = [*turned.face(bright, reach, r - 0.7, 1, corner), *turned.face(bright, -reach, r - 0.7, -1, corner)]
    return [turned.lathe(body, width, power), *ends, *faces]


def _mallet(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    white = between(rng, 0.5, 0.75)
    colour: Colour | None = choose(rng, [None, None, (white, white, white * 0.95), paint(rng)])
    body = rubber(rng, colour)
    reach, r = between(rng, 15, 20), between(rng, 8.6, 11)
    mid = between(rng, 0.86, 1.0)
    width = [(-reach, r - 0.8), (-reach + 1.5, r), (0, r * mid), (reach - 1.5, r), (reach, r - 0.8)]
    return [
        turned.lathe(body, width),
        *turned.face(body, reach, r - 0.8, 1),
        *turned.face(body, -reach, r - 0.8, -1),
    ]


def _deadblow(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = plastic(rng)
    reach, r = between(rng, 15, 20), between(rng, 7.6, 9.6)
    rings: list[tuple[float, float]] = []
    for v, w in (
        (-1.0, 1.0),
        (-0.72, 1.0),
        (-0.66, 0.9),
        (-0.3, 0.9),
        (0.3, 0.9),
        (0.66, 0.9),
        (0.72, 1.0),
        (1.0, 1.0),
    ):
        rings.append((v * reach, r * w))
    return [turned.lathe(body, rings), *turned.face(body, reach, r, 1), *turned.face(body, -reach, r, -1)]


def _soft_face(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = choose(rng, [steel, chrome, painted])(rng)
    reach, r = between(rng, 14, 19), between(rng, 5.8, 7.4)
    parts = [turned.lathe(body, [(-reach * 0.62, r - 0.6), (-4, r - 1.2), (4, r - 1.2), (reach * 0.62, r - 0.6)])]
    for sign in (-1.0, 1.0):
        tip = brass(rng) if chance(rng, 0.2) else plastic(rng)
        ends = sorted([sign * reach * 0.58, sign * reach])
        parts += [turned.lathe(tip, [(ends[0], r), (ends[1], r)]), *turned.face(tip, sign * reach, r, sign)]
    return [*parts, turned.block(body, (11, 9), 6.6, 2.5)]


def _joiner(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    """Return a wooden mallet's block."""
    body = wood(rng)
    half, slant, thick = between(rng, 17, 22), between(rng, 0, 3.5), between(rng, 10, 13)
    outline = [(_HEAD - thick + 2, -half + slant), (_HEAD - thick + 2, half - slant), (_HEAD + thick - 2, half),
               (_HEAD + thick - 2, -half)]  # fmt: skip
    # The grain of the head runs along the head: the plate's own u is along the handle, so it is turned to lie along v.
    points = [(v, -(u - _HEAD)) for u, v in outline]
    shape = Plate([[(a * turned.k, b * turned.size) for a, b in points]], height=between(rng, 7, 9), bevel=1.2, rim=0.2)
    return [Part(shape, body, (_HEAD, 0), _ALONG_V)]


def _brick(rng: np.random.Generator, turned: _Turned) -> list[Part]:
    body = _head_steel(rng)
    tip = between(rng, -28, -22)
    chisel = spline([(49.5, 0), (49.6, -6), (47.6, -14), (44.6, tip), (43.2, tip), (43.6, -14), (40.8, -6), (40.6, 0)])
    reach, r = between(rng, 14, 18), between(rng, 4.8, 6)
    side = turned.lathe(body, [(0, 5.0), (reach - 5, 4.4), (reach - 4, r), (reach, r)], 6)
    return [
        turned.plate(body, chisel, 4.2, 2.6),
        side,
        *turned.face(steel(rng, 0.3), reach, r, 1, 0.6),
        turned.block(body, (9.5, 10), 5.4, 1.8),
    ]


_HEADS = {
    "claw": _claw,
    "claw, long": _claw,
    "ball": _ball,
    "cross": _cross,
    "sledge": _sledge,
    "mallet": _mallet,
    "deadblow": _deadblow,
    "soft face": _soft_face,
    "joiner": _joiner,
    "brick": _brick,
}

_Handle = tuple[list[Part], tuple[float, float] | None]


def _hole_at_end(rng: np.random.Generator, half: float, share: float = 0.38) -> _Handle:
    """Return a hole for a hook or a strap near the handle's end, sometimes."""
    if not chance(rng, share):
        return [], None
    at = (between(rng, -45.5, -43), 0.0)
    if chance(rng, 0.5):
        r = min(between(rng, 2.0, 3.0), half - 1.9)
        return [Part(Disc((r * between(rng, 1.0, 1.4), r)), None, at)], at
    long = between(rng, 5.5, 8)
    return [Part(Box((long, min(between(rng, 3.6, 5.2), 2 * half - 3.8)), 2.4), None, (at[0] + 1, 0))], at


def _wooden_handle(rng: np.random.Generator) -> _Handle:
    holes, hole = _hole_at_end(rng, 5.6, 0.3)
    end = between(rng, 5.4, 6.2) if holes else between(rng, 4.3, 5.8)
    knots: list[tuple[float, float]] = [
        (-50, end - 0.4),
        (-46, end),
        (-30, between(rng, 3.9, 4.9)),
        (-8, between(rng, 3.4, 4.2)),
    ]
    knots += [(14, between(rng, 2.9, 3.7)), (34, 3.6), (44, 4.3), (between(rng, 49, 53), 3.9)]
    bend: Points = ()
    if not holes and chance(rng, 0.35):
        hook = between(rng, -3, 3)
        bend = [(-50, hook), (-40, hook * 0.25), (-20, -hook * 0.15), (20, 0), (53, 0)]
    material = wood(rng)
    if chance(rng, 0.45):
        cut = between(rng, -40, -18)
        bands = [(-60.0, cut, paint(rng))]
        if chance(rng, 0.4):
            bands.append((cut + 1.5, cut + 3.0, bands[0][2]))
        material = banded(material, bands)
    elif chance(rng, 0.4):
        u = between(rng, -10, 10)
        material = labelled(rng, material, (u, -2.3, u + between(rng, 9, 16), 2.3))
    power = choose(rng, [2.0, 2.4, 3.0])
    rounding = (between(rng, 1.0, 4.0), 0.6)
    return [Part(Bar(knots, power, between(rng, 0.65, 0.9), bend, rounding), material), *holes], hole


def _grip_bar(rng: np.random.Generator, start: float, half: float) -> Bar:
    swell = between(rng, 0.0, 0.9)
    knots: list[tuple[float, float]] = [
        (-50, half + swell),
        (-44, half + swell * 0.7),
        (-34, half - 0.4),
        (-26, half + swell * 0.4),
    ]
    knots += [(-18, half - 0.3), (start - 3, half - 0.5), (start, half - 1.1)]
    bend: Points = ()
    if chance(rng, 0.3):
        bend = [(-50, 1.6), (-38, 0.2), (-20, 0), (start, 0)]
    return Bar(knots, choose(rng, [2.0, 2.5, 3.2]), between(rng, 0.7, 0.95), bend, (between(rng, 1.5, 4), 1.0))


def _grip_material(rng: np.random.Generator) -> Material:
    colour = None if chance(rng, 0.55) else paint(rng)
    if chance(rng, 0.75):
        return rubber(rng, colour, between(rng, 2.2, 4.0), int(rng.integers(3)))
    return plastic(rng, colour)


def _shaft_and_grip(rng: np.random.Generator) -> _Handle:
    """Return a fibreglass, tubular or wooden shaft in a moulded grip."""
    start = between(rng, -12, 2)
    half = between(rng, 4.6, 5.6)
    holes, hole = _hole_at_end(rng, half + 0.3, 0.5)
    if holes:
        half = max(half, 5.5)
    thick = between(rng, 2.7, 3.6)
    material = choose(rng, [plastic, plastic, chrome, steel, painted])(rng)
    if chance(rng, 0.4):
        material = labelled(rng, material, (start + 6, -thick * 0.75, start + between(rng, 16, 26), thick * 0.75))
    shaft = Bar([(-30, thick), (20, thick), (38, thick), (44, thick + 0.9), (48, thick + 0.9)], choose(rng, [2.0, 3.0]))
    grip = _grip_bar(rng, start, half)
    if holes:
        grip = replace(grip, bend=())
    parts = [Part(shaft, material), Part(grip, _grip_material(rng), z=0.6)]
    if chance(rng, 0.5):
        parts.append(Part(Bar([(start - 1, half), (start + 1.5, half - 0.6)], 2, 0.9), plastic(rng), z=0.5))
    return [*parts, *holes], hole


def _one_piece(rng: np.random.Generator) -> _Handle:
    """Return a forged steel handle, some with a long slot, in leather rings or rubber."""
    start = between(rng, -16, -6)
    half = between(rng, 4.6, 5.4)
    thick = between(rng, 3.0, 4.2)
    slot = chance(rng, 0.4)
    if slot:
        thick = max(thick, 3.9)
    material = steel(rng) if chance(rng, 0.7) else black_steel(rng)
    shaft = Bar([(-30, thick), (start, thick * 0.9), (20, thick), (40, thick + 0.6), (48, thick + 1)], 5, 0.6)
    parts = [Part(shaft, material)]
    if chance(rng, 0.35):
        tone = linear(150, 84, 40)
        rings: list[tuple[float, float, Colour]] = []
        for k, u in enumerate(np.arange(-48, start, 2.6).tolist()):
            shade = 0.75 + 0.35 * (k % 2)
            rings.append((u, u + 2.2, (tone[0] * shade, tone[1] * shade, tone[2] * shade)))
        leather = banded(rubber(rng, linear(60, 30, 14), 2.6), rings)
        parts.append(Part(_grip_bar(rng, start, half), leather, z=0.5))
    else:
        parts.append(Part(_grip_bar(rng, start, half), _grip_material(rng), z=0.5))
    if slot:
        middle = (start + between(rng, 14, 20), 0.0)
        long = between(rng, 12, 20)
        return [*parts, Part(Box((long, between(rng, 3.4, 2 * thick - 3.6)), 2.0), None, middle)], middle
    return parts, None


def _moulded_handle(rng: np.random.Generator) -> _Handle:
    half = between(rng, 4.8, 5.8)
    holes, hole = _hole_at_end(rng, half + 0.4, 0.5)
    if holes:
        half = max(half, 5.6)
    colour = paint(rng)
    shaft = Bar(
        [(-50, half + 0.3), (-44, half + 0.4), (-20, half - 0.7), (0, half - 1.2), (40, half - 0.6), (48, half)], 2.6
    )
    parts = [Part(replace(shaft, ends=(2.5, 0)), plastic(rng, colour))]
    if chance(rng, 0.6):
        parts.append(Part(Bar([(-40, half), (-14, half - 0.5)], 2.4, 0.95), rubber(rng, None, 3.2, 1), z=0.3))
    return [*parts, *holes], hole
