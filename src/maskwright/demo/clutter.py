"""Tools and bits that lie about: none of them is a hammer.

Each function draws up one thing in its own frame, about as long as given, its middle at the origin.
"""

from __future__ import annotations

import numpy as np

from maskwright.demo.materials import (
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
from maskwright.demo.noise import Floats
from maskwright.demo.render import Part
from maskwright.demo.shapes import Bar, Box, Disc, Plate, regular, spline

_DARK = Material((0.012, 0.012, 0.012), 0.8)


def clutter(rng: np.random.Generator) -> tuple[list[Part], float, float]:
    """Draw up one thing.

    Returns:
        Its parts, its length in units, and the radius of the circle that it needs (units).
    """
    make, low, high, radius = choose(rng, _THINGS)
    length = between(rng, low, high)
    return make(rng, length), length, radius * length


def _screwdriver(rng: np.random.Generator, long: float) -> list[Part]:
    colour, half = paint(rng), long * between(rng, 0.055, 0.075)
    handle = plastic(rng, colour) if chance(rng, 0.5) else rubber(rng, colour, long * 0.035, 0)
    split = long * between(rng, -0.08, 0.06)
    start = -long / 2
    knots = [(start, half * 0.75), (start + long * 0.04, half), (start + long * 0.22, half),
             (split - long * 0.07, half * 0.7), (split - long * 0.02, half * 0.85), (split, half * 0.6)]  # fmt: skip
    thin = half * between(rng, 0.26, 0.4)
    blade = [(split, thin), (long * 0.4, thin), (long * 0.46, thin * 1.5), (long / 2, thin * 1.3)]
    if chance(rng, 0.5):
        blade = [(split, thin), (long * 0.45, thin), (long / 2, thin * 0.3)]
    grip = banded(handle, [(start + long * 0.0, start + long * 0.045, paint(rng))])
    ferrule = Bar([(split - 1, thin * 1.7), (split + long * 0.025, thin * 1.5)])
    return [
        Part(Bar(blade), chrome(rng), z=half - thin),
        Part(ferrule, steel(rng), z=half - 2 * thin),
        Part(Bar(knots, choose(rng, [2.0, 3.0]), ends=(half * 0.8, half * 0.3)), grip),
    ]


def _jaws(
    u: float, radius: float, gap: float, turn: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return the outline of an open spanner end and of its gap, opening towards +u turned by `turn`."""
    ca, sa = float(np.cos(turn)), float(np.sin(turn))
    slot = [(-gap * 0.35, -gap / 2), (radius * 2, -gap / 2), (radius * 2, gap / 2), (-gap * 0.35, gap / 2)]
    turned = [(u + x * ca - y * sa, x * sa + y * ca) for x, y in slot]
    head = [(u + radius * float(np.cos(a)) * 1.05, radius * float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 28)]
    return head, turned


def _wrench(rng: np.random.Generator, long: float) -> list[Part]:
    radius, neck = long * between(rng, 0.085, 0.11), long * between(rng, 0.028, 0.04)
    material = choose(rng, [chrome, steel, steel, black_steel])(rng)
    a, b = -long / 2 + radius, long / 2 - radius
    head, slot = _jaws(b, radius, radius * between(rng, 0.85, 1.1), 0.26)
    shank = [(a, -neck * 1.3), (b, -neck), (b, neck), (a, neck * 1.3)]
    outlines, holes = [shank, head], [slot]
    if chance(rng, 0.6):  # a ring at the other end
        outlines.append([(a + x, y) for x, y in regular(26, radius * 0.95)])
        holes.append([(a + x, y) for x, y in regular(12, radius * 0.58)])
    else:
        other, gap = _jaws(-a, radius * 0.85, radius * 0.8, 0.26)
        outlines.append([(-x, y) for x, y in other])
        holes.append([(-x, y) for x, y in gap])
    thick = long * 0.03
    body = Part(Plate(outlines, holes, thick, thick * 0.8, 0.3, 0.2), material)
    groove = Box((long * 0.42, neck * 0.9), neck * 0.45, 0.1, neck * 0.4)
    r, g, b = material.colour
    inlay = Material((r * 0.55, g * 0.55, b * 0.55), 0.7, 0.8, 0.4)
    return [body, Part(groove, inlay, z=thick)]


def _adjustable(rng: np.random.Generator, long: float) -> list[Part]:
    material = choose(rng, [chrome, steel, black_steel])(rng)
    h = long / 2
    body = spline(
        [(-h, -h * 0.1), (-h, h * 0.1), (h * 0.35, h * 0.085), (h * 0.6, h * 0.2), (h * 0.98, h * 0.22),
         (h * 0.99, h * 0.1), (h * 0.72, h * 0.04), (h * 0.70, -h * 0.14), (h * 0.6, -h * 0.2),
         (h * 0.4, -h * 0.14), (h * 0.3, -h * 0.085)]
    )  # fmt: skip
    hole = [(-h * 0.88 + x, y) for x, y in regular(16, h * 0.05)]
    jaw = [
        (h * 0.66, -h * 0.27),
        (h * 0.66, -h * 0.12),
        (h * 0.95, -h * 0.1),
        (h * 0.96, -h * 0.17),
        (h * 0.8, -h * 0.27),
    ]
    thick = long * 0.035
    handle = rubber(rng, paint(rng)) if chance(rng, 0.4) else None
    parts = [
        Part(Plate([body], [hole], thick, thick * 0.9, 0.3, 0.3), material),
        Part(Plate([jaw], height=thick, bevel=1.2, rim=0.4), steel(rng)),
        Part(Bar([(h * 0.4, h * 0.055), (h * 0.58, h * 0.055)]), brass(rng) if chance(rng, 0.3) else steel(rng),
             (0, -h * 0.03), z=thick * 0.7),
    ]  # fmt: skip
    if handle:
        parts.append(Part(Bar([(-h * 0.8, h * 0.13), (h * 0.1, h * 0.12)], 3, 0.6, ends=(3, 2)), handle))
    return parts


def _pliers(rng: np.random.Generator, long: float) -> list[Part]:
    h = long / 2
    material = choose(rng, [steel, black_steel, chrome])(rng)
    sleeve = rubber(rng, paint(rng), long * 0.03, 0) if chance(rng, 0.4) else plastic(rng)
    opening = between(rng, 0.16, 0.34)
    nose = between(rng, 0.75, 1.0) * h
    parts: list[Part] = []
    for sign in (-1.0, 1.0):
        handle = [
            (-h, sign * h * opening),
            (-h * 0.5, sign * h * (opening + 0.03)),
            (0.0, sign * h * 0.12),
            (h * 0.18, 0.0),
        ]
        half = h * 0.062
        width = [(-h, half), (-h * 0.6, half * 1.15), (-h * 0.1, half), (h * 0.18, half * 1.1)]
        parts.append(Part(Bar(width, 2.4, 0.8, handle), material))
        cover = [(-h * 1.02, half * 1.3), (-h * 0.6, half * 1.5), (-h * 0.12, half * 1.25)]
        parts.append(Part(Bar(cover, 2.2, 0.85, handle, (2.5, 1)), sleeve, z=0.4))
        jaw = [(h * 0.1, -sign * h * 0.02), (h * 0.12, sign * h * 0.2), (h * 0.45, sign * h * 0.16),
               (nose, sign * h * 0.05), (nose, sign * h * 0.012), (h * 0.4, sign * h * 0.02)]  # fmt: skip
        parts.append(Part(Plate([jaw], height=h * 0.1, bevel=h * 0.05, rim=0.3), material))
    parts.append(Part(Disc((h * 0.15, h * 0.15), 0, h * 0.13, h * 0.06), material, (h * 0.18, 0)))
    parts.append(Part(Disc((h * 0.06, h * 0.06), 0, 0.5, 0.4), steel(rng, 0.3), (h * 0.18, 0), z=h * 0.13))
    return parts


def _tape(rng: np.random.Generator, wide: float) -> list[Part]:
    r = wide / 2
    colour = choose(rng, [paint(rng), linear(206, 176, 120), linear(60, 60, 64), linear(150, 154, 158)])
    wound = Material(colour, 0.3, 0.0, 0.7, lambda u, v: (1 + 0.05 * np.sin(np.hypot(u, v) * 9)).astype(np.float32))
    card = Material(linear(190, 160, 120), 0.9, 0, 0.2)
    core = between(rng, 0.55, 0.7)
    return [
        Part(Disc((r, r), core + 0.07, r * 0.5, 1.0), wound),
        Part(Disc((r * (core + 0.08), r * (core + 0.08)), core / (core + 0.08), r * 0.52, 0.5), card),
    ]


def _tape_measure(rng: np.random.Generator, wide: float) -> list[Part]:
    h = wide / 2
    case, trim = plastic(rng), rubber(rng)
    out = h * between(rng, 0.4, 2.2)
    ticks = Material(
        linear(238, 206, 60), 0.4, 0.0, 0.6,
        lambda u, v: np.where((u % 1.6 < 0.45) & (v > -h * 0.02 - 1), 0.08, 1.0).astype(np.float32),
    )  # fmt: skip
    outline = spline([(-h, -h * 0.8), (-h * 0.8, h * 0.8), (h * 0.2, h * 0.95), (h, h * 0.2), (h, -h * 0.85)])
    return [
        Part(Box((out, h * 0.3), 0.3, 0.5, 0.5), ticks, (h + out / 2 - 1, -h * 0.6)),
        Part(Box((1.2, h * 0.45), 0.2, 1.4, 0.4), steel(rng, 0.3), (h + out - 1, -h * 0.6)),
        Part(Plate([outline], height=h * 0.6, bevel=h * 0.2), trim),
        Part(Disc((h * 0.66, h * 0.66), 0, 1.0, 1.2, dish=0.15), case, z=h * 0.6),
        Part(Box((h * 0.8, h * 0.4), 1, 0.2, 0.4), labelled(rng, case, (-h, -h * 0.2, h, h * 0.2)), z=h * 0.6 + 1),
    ]


def _nut(rng: np.random.Generator, wide: float) -> list[Part]:
    r = wide / 2
    hole = regular(20, r * between(rng, 0.48, 0.58))
    return [
        Part(Plate([regular(6, r)], [hole], r * 0.7, r * 0.22, 0.5, 0.12), choose(rng, [steel, chrome, brass])(rng))
    ]


def _washer(rng: np.random.Generator, wide: float) -> list[Part]:
    shape = Disc((wide / 2, wide / 2), between(rng, 0.4, 0.6), 0.9, 0.7)
    return [Part(shape, choose(rng, [steel, chrome, brass])(rng))]


def _bolt(rng: np.random.Generator, long: float) -> list[Part]:
    half = long * between(rng, 0.09, 0.13)
    material = choose(rng, [steel, chrome, brass, black_steel])(rng)
    pitch = 2 * np.pi / max(half * 0.55, 0.9)

    def turns(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        return np.float32(0.9) * np.cos(u * np.float32(pitch) + v * np.float32(0.8)), np.zeros_like(v)

    thread = Material(material.colour, material.rough, 1.0, 0.8, None, turns)
    head = Box((long * 0.17, half * 3.4), 0.5, half * 2.2, 1.0)
    return [
        Part(Bar([(-long * 0.4, half), (long * 0.44, half), (long / 2, half * 0.7)]), thread),
        Part(Bar([(-long * 0.4, half), (-long * 0.1, half)]), material, z=0.1),
        Part(head, material, (-long * 0.42, 0)),
    ]


def _nail(rng: np.random.Generator, long: float) -> list[Part]:
    half = long * 0.022
    knots = [(-long / 2, half), (long * 0.43, half), (long / 2, half * 0.15)]
    return [Part(Bar(knots), steel(rng)), Part(Box((1.0, half * 5), 0.4, half * 3, 0.4), steel(rng), (-long / 2, 0))]


def _hex_key(rng: np.random.Generator, long: float) -> list[Part]:
    half = long * between(rng, 0.022, 0.032)
    h = long / 2
    bend = [
        (-h, -long * 0.3),
        (-h + long * 0.02, -long * 0.18),
        (-h + long * 0.09, -long * 0.03),
        (-h + long * 0.22, 0),
        (h, 0),
    ]
    return [Part(Bar([(-h, half), (h, half)], 3, 1.0, bend), black_steel(rng) if chance(rng, 0.6) else chrome(rng))]


def _pencil(rng: np.random.Generator, long: float) -> list[Part]:
    half, h = long * 0.026, long / 2
    body = banded(painted(rng), [(-h, -h * 0.93, (0.7, 0.3, 0.3)), (-h * 0.93, -h * 0.84, (0.6, 0.6, 0.6))])
    point = banded(Material(linear(220, 180, 130), 0.8, 0, 0.2), [(h * 0.94, h * 1.1, (0.02, 0.02, 0.02))])
    return [
        Part(Bar([(-h, half), (h * 0.8, half)], 3), body),
        Part(Bar([(h * 0.8, half), (h, half * 0.12)]), point),
    ]


def _ruler(rng: np.random.Generator, long: float) -> list[Part]:
    half = long * between(rng, 0.05, 0.08)
    base = choose(rng, [steel(rng, 0.3), wood(rng), plastic(rng, (0.72, 0.6, 0.1))])
    tick = long / 60

    def pattern(u: Floats, v: Floats) -> Floats:
        value = base.pattern(u, v) if base.pattern else np.ones_like(u)
        number = np.floor(u / tick)
        deep = np.where(number % 10 == 0, 0.75, np.where(number % 5 == 0, 0.5, 0.3)) * half
        marked = (u / tick - number < 0.35) & (v < -half + deep)
        return np.where(marked, value * np.float32(0.08), value)

    printed = Material(base.colour, base.rough, base.metal, base.shine, pattern, base.bumps)
    hole = [(long * 0.47 + x, y) for x, y in regular(14, half * 0.3)]
    outline = [(-long / 2, -half), (long / 2, -half), (long / 2, half), (-long / 2, half)]
    return [Part(Plate([outline], [hole], 0.8, 0.5, 0.3, 0.1), printed)]


def _chisel(rng: np.random.Generator, long: float) -> list[Part]:
    h, half = long / 2, long * 0.06
    handle = wood(rng) if chance(rng, 0.6) else plastic(rng)
    knots = [(-h, half * 0.8), (-h * 0.9, half), (-h * 0.4, half * 0.9), (-h * 0.05, half * 0.65)]
    wide = half * between(rng, 0.7, 1.1)
    blade = [
        (-h * 0.05, -half * 0.4),
        (h * 0.2, -wide),
        (h, -wide),
        (h, wide),
        (h * 0.2, wide),
        (-h * 0.05, half * 0.4),
    ]
    return [
        Part(Plate([blade], height=half * 0.6, bevel=wide * 0.35, rim=0.4), steel(rng, 0.25), z=half * 0.4),
        Part(Bar([(-h * 0.08, half * 0.72), (h * 0.0, half * 0.66)]), brass(rng), z=0.1),
        Part(Bar(knots, 2.3, ends=(2, 0)), handle),
    ]


def _knife(rng: np.random.Generator, long: float) -> list[Part]:
    h, half = long / 2, long * 0.07
    body = plastic(rng) if chance(rng, 0.7) else painted(rng)
    blade = [(h * 0.5, -half * 0.55), (h * 0.95, -half * 0.55), (h * 0.78, half * 0.55), (h * 0.5, half * 0.55)]
    return [
        Part(Plate([blade], height=0.8, bevel=0.5, rim=0.3), steel(rng, 0.2), z=half * 0.5),
        Part(
            Bar([(-h, half), (-h * 0.3, half * 0.85), (h * 0.3, half), (h * 0.58, half * 0.75)], 4, 0.8, ends=(2, 2)),
            body,
        ),
        Part(Box((h * 0.7, half * 0.5), half * 0.25, 0.2, 0.4), _DARK, (h * 0.1, 0), z=half * 0.8),
        Part(Box((h * 0.16, half * 0.55), 0.5, 1.2, 0.6), steel(rng), (h * 0.25, 0), z=half * 0.8),
    ]


def _socket(rng: np.random.Generator, wide: float) -> list[Part]:
    r = wide / 2
    metal = chrome(rng)
    return [
        Part(Disc((r, r), 0, r * 1.2, r * 0.2), metal),
        Part(Plate([regular(6, r * 0.66, 0.3)], height=0.1, bevel=0.5), _DARK, z=r * 1.2),
        Part(Disc((r * 0.3, r * 0.3), 0, 0.1, 0.5), steel(rng, 0.6), z=r * 1.2 + 0.15),
    ]


def _carton(rng: np.random.Generator, long: float) -> list[Part]:
    wide = long * between(rng, 0.4, 0.9)
    base = Material(choose(rng, [linear(178, 140, 96), paint(rng), (0.75, 0.75, 0.72)]), 0.7, 0, 0.3)
    shape = Box((long, wide), 1, long * between(rng, 0.1, 0.3), 0.8)
    u, v = between(rng, -0.4, 0) * long, between(rng, -0.35, 0) * wide
    return [Part(shape, labelled(rng, base, (u, v, u + long * 0.35, v + wide * 0.3)))]


def _brush(rng: np.random.Generator, long: float) -> list[Part]:
    h, wide = long / 2, long * between(rng, 0.1, 0.16)
    handle = wood(rng) if chance(rng, 0.6) else painted(rng)
    knots = [(-h, wide * 0.3), (-h * 0.7, wide * 0.42), (-h * 0.2, wide * 0.3), (h * 0.1, wide * 0.95)]

    def strands(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        return np.zeros_like(u), 0.6 * np.sin(v * 7 + np.sin(v * 3) * 2)

    hair = Material(choose(rng, [(0.06, 0.04, 0.03), (0.55, 0.45, 0.3)]), 0.8, 0, 0.3, None, strands)
    return [
        Part(Bar([(h * 0.25, wide), (h * 0.8, wide * 1.05), (h, wide * 0.8)], 3, 0.35), hair),
        Part(Bar(knots, 2.5, 0.5, ends=(2, 0)), handle),
        Part(Bar([(h * 0.05, wide), (h * 0.35, wide * 1.02)], 4, 0.45), steel(rng, 0.25), z=0.4),
    ]


_THINGS = [
    (_screwdriver, 75, 130, 0.5), (_screwdriver, 75, 130, 0.5), (_wrench, 70, 130, 0.5), (_wrench, 70, 130, 0.5),
    (_adjustable, 80, 120, 0.5), (_pliers, 75, 115, 0.5), (_pliers, 75, 115, 0.5), (_tape, 45, 75, 0.5),
    (_tape_measure, 40, 60, 0.7), (_nut, 11, 24, 0.5), (_nut, 11, 24, 0.5), (_washer, 11, 26, 0.5),
    (_bolt, 22, 48, 0.5), (_bolt, 22, 48, 0.5), (_nail, 25, 60, 0.5), (_hex_key, 40, 80, 0.5), (_pencil, 70, 110, 0.5),
    (_ruler, 90, 160, 0.5), (_chisel, 80, 120, 0.5), (_knife, 65, 95, 0.5), (_socket, 15, 28, 0.5),
    (_carton, 50, 95, 0.6), (_brush, 70, 110, 0.5),
]  # fmt: skip
