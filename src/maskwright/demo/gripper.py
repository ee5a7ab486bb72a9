"""Robot grippers: what holds the hammer, partly behind it and partly in front.

Frame of a gripper: the point that it holds at the origin, its arm leaving towards +u and out of the picture; units are
those of a hammer (a handle is about 10 wide).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.demo.materials import (
    Material,
    banded,
    between,
    black_steel,
    chance,
    choose,
    chrome,
    paint,
    painted,
    plastic,
    rubber,
    steel,
)
from maskwright.demo.render import Part
from maskwright.demo.shapes import Bar, Box, Disc, Plate


@dataclass(frozen=True)
class Gripper:
    """A gripper in two layers, both in its own frame.

    Args:
        kind: Its name.
        behind: What the hammer hides.
        front: What hides the hammer.
        along: Whether the arm leaves along the handle, from its end, rather than across it.
    """

    kind: str
    behind: list[Part]
    front: list[Part]
    along: bool


def gripper(rng: np.random.Generator, kind: str | None = None) -> Gripper:
    """Draw up a gripper; its kind is drawn too if not given."""
    kind = kind or choose(rng, [*_KINDS, "inline"])  # twice: the one kind that leaves a hammer in one piece
    return _KINDS[kind](rng)


@dataclass(frozen=True)
class _Finish:
    body: Material
    finger: Material
    pad: Material
    trim: Material
    arm: Material


def _finish(rng: np.random.Generator) -> _Finish:
    white = between(rng, 0.55, 0.8)
    shells = [
        plastic(rng, (0.03, 0.03, 0.035)),
        plastic(rng, (white, white, white)),
        painted(rng),
        steel(rng, between(rng, 0.3, 0.5)),
        plastic(rng, (0.22, 0.23, 0.25)),
    ]
    return _Finish(
        choose(rng, shells),
        choose(rng, [steel(rng, between(rng, 0.2, 0.5)), black_steel(rng), chrome(rng), choose(rng, shells)]),
        rubber(rng, None if chance(rng, 0.6) else paint(rng), between(rng, 1.6, 2.6), 1),
        choose(rng, [plastic(rng), chrome(rng), painted(rng)]),
        choose(rng, [*shells, shells[1], shells[3]]),
    )


def _arm(rng: np.random.Generator, finish: _Finish, start: float, half: float, z: float) -> list[Part]:
    """Return flange, wrist and the link that leaves the picture."""
    ring = between(rng, 2.5, 5)
    link = half * between(rng, 0.75, 1.05)
    seam = start + ring + between(rng, 10, 22)
    arm = banded(finish.arm, [(seam, seam + 0.9, (0.02, 0.02, 0.022))])
    parts = []
    if chance(rng, 0.6):  # an elbow, from which the arm goes on another way
        elbow, turn = start + between(rng, 35, 70), between(rng, -0.7, 0.7)
        upper = link * between(rng, 1.0, 1.25)
        cap = upper * 1.1
        parts = [
            Part(Bar([(0, upper), (350, upper * 1.1)], 2.3, 0.85), finish.arm, (elbow, 0), turn, z - 2),
            Part(Disc((cap, cap), 0, upper * 1.1, 3.0), finish.body, (elbow, 0), z=z + 3),
            Part(Disc((cap * 0.62, cap * 0.62), 0, 1.2, 0.9), finish.trim, (elbow, 0), z=z + 3 + upper * 1.1),
            Part(Bar([(start, link), (elbow, link)], 2.3, 0.9), arm, z=z),
        ]
    else:
        parts = [Part(Bar([(start, link), (start + 350, link * 1.15)], 2.1, 0.9), arm, z=z)]
    return [
        *parts,
        Part(Bar([(start, half * 0.9), (start + ring, half * 0.9)], 2, 0.9), finish.trim, z=z + 2),
        Part(Bar([(start + ring, half * 0.98), (start + ring + 2.5, half * 0.98)], 2, 0.9), black_steel(rng), z=z + 2),
    ]


def _bolts(places: list[tuple[float, float]], radius: float, z: float, material: Material) -> list[Part]:
    bolts = []
    for at in places:
        bolts.append(Part(Disc((radius, radius), 0, 0.8, 0.6), material, at, z=z))
        bolts.append(Part(Disc((radius * 0.45, radius * 0.45), 0, 0.1, 0.3, (0.6, 0.6)), _DARK, at, z=z + 0.85))
    return bolts


_DARK = Material((0.015, 0.015, 0.015), 0.8)


def _pinch(rng: np.random.Generator) -> Gripper:
    """Return two jaws that close towards the viewer: one behind the handle, one across its front."""
    finish = _finish(rng)
    half, tip = between(rng, 3.8, 6.5), between(rng, 7.5, 12)
    reach, palm = between(rng, 16, 24), between(rng, 9, 14)
    long = between(rng, 18, 30)
    shift = between(rng, -2, 2)
    behind = [
        Part(Box((tip + 3 + reach, half * 2.1), 2, 4, 1.2), finish.finger, ((reach - tip - 3) / 2, shift), z=-12),
        Part(Box((9, half * 1.7), 1.0, 2, 0.8), finish.pad, (-tip + 2, shift), z=-8),
    ]
    taper = [(-tip, half * 0.72), (-tip + 3, half * 0.85), (4, half), (reach - 2, half * 1.12), (reach + 6, half * 1.2)]
    front = [
        Part(Bar(taper, 5, 0.55, ends=(1.8, 0)), finish.finger, z=8),
        Part(Box((palm * 0.8, half * 1.1), 1.5, 1.2, 0.8), finish.trim, (reach - 4, 0), z=10.5),
        *_bolts([(reach - 6.5, 0.0), (reach - 1.5, 0.0)], 1.3, 11.6, finish.arm),
        Part(
            Box((long, palm * 2), between(rng, 2, 5), 9, between(rng, 1.5, 4)), finish.body, (reach + long / 2, 0), z=6
        ),
        Part(Box((long * 0.5, palm * 0.9), 1.0, 0.7, 0.6), finish.trim, (reach + long * 0.55, 0), z=15),
        *_arm(rng, finish, reach + long - 1, palm * between(rng, 0.8, 1.0), 3),
    ]
    if chance(rng, 0.5):
        front.insert(1, Part(Box((6, half * 1.35), 0.8, 0.8, 0.5), finish.pad, (-tip + 5.5, 0), z=10.2))
    front += _bolts([(reach + 3.5, sign * (palm - 3.2)) for sign in (-1.0, 1.0)], 1.4, 14.8, finish.trim)
    return Gripper("pinch", behind, front, False)


def _three_fingers(rng: np.random.Generator) -> Gripper:
    """Return two curled fingers in front and a thumb behind."""
    finish = _finish(rng)
    gap, half = between(rng, 7, 11), between(rng, 2.8, 4.2)
    reach, palm = between(rng, 15, 21), gap + half + between(rng, 1, 4)
    long = between(rng, 16, 26)
    behind = [
        Part(Bar([(-12, half * 0.8), (0, half), (reach + 4, half * 1.2)], 3, 0.8, ends=(3, 0)), finish.finger, z=-9)
    ]
    front: list[Part] = []
    for sign in (-1.0, 1.0):
        knee = between(rng, 8, 11)
        spread = sign * gap
        inwards = -sign * between(rng, 0.0, 0.22)
        tip = between(rng, 8, 11.5)
        front += [
            Part(Bar([(-tip, half * 0.7), (-tip + 3, half * 0.95), (knee, half)], 3, 0.9, ends=(half * 0.8, 1)),
                 finish.finger, (0, spread), inwards, 7),
            Part(Bar([(knee - 2, half * 1.1), (reach + 5, half * 1.25)], 3, 1.0, ends=(2, 0)), finish.body,
                 (0, spread), 0, 7),
            Part(Disc((half * 1.15, half * 1.15), 0, 1.6, 1.0), finish.trim, (knee, spread), z=10.5),
            *_bolts([(knee, spread)], half * 0.5, 12.0, finish.arm),
        ]  # fmt: skip
        if chance(rng, 0.6):
            front.append(Part(Box((5.5, half * 1.2), 1, 0.7, 0.5), finish.pad, (-tip + 5.5, spread), inwards, z=10.3))
    front += [
        Part(Box((long, palm * 2), between(rng, 3, 7), 8, between(rng, 2, 5)), finish.body, (reach + long / 2, 0), z=8),
        Part(Disc((palm * 0.5, palm * 0.5), 0, 1.2, 0.9), finish.trim, (reach + long / 2, 0), z=16),
        *_arm(rng, finish, reach + long - 1, palm * between(rng, 0.62, 0.8), 4),
    ]
    return Gripper("three fingers", behind, front, False)


def _soft(rng: np.random.Generator) -> Gripper:
    """Return fat rubber fingers with bellows."""
    finish = _finish(rng)
    colour = choose(rng, [paint(rng), (0.62, 0.62, 0.6), (0.75, 0.22, 0.04), (0.03, 0.18, 0.45)])
    half = between(rng, 4.2, 6.2)
    reach, long = between(rng, 17, 23), between(rng, 14, 22)
    skin = Material(colour, between(rng, 0.35, 0.6), 0.0, 0.5)
    pitch = between(rng, 3.6, 5.0)

    def finger(start: float, end: float, size: float) -> Bar:
        count = max(int((end - start) / pitch), 2)
        knots: list[tuple[float, float]] = []
        for k in range(2 * count + 1):
            share = k / (2 * count)
            knots.append((start + (end - start) * share, size * (0.85 + 0.25 * share) * (1.0 if k % 2 else 0.8)))
        return Bar(knots, 2.2, 0.9, ends=(size * 0.7, 0))

    spread = between(rng, 6.5, 10) if chance(rng, 0.6) else 0.0
    fingers = [-spread, spread] if spread else [0.0]
    behind = [Part(finger(-12, reach + 4, half * 0.95), skin, (0, 0), z=-11)]
    front = [Part(finger(-between(rng, 9, 13), reach + 3, half), skin, (0, at), -0.01 * at, z=6) for at in fingers]
    palm = half + spread + between(rng, 1.5, 4)
    front += [
        Part(Box((long, palm * 2), 3, 10, 2.5), finish.body, (reach + long / 2, 0), z=6),
        Part(Box((3, palm * 1.9), 0.8, 0.9, 0.6), finish.trim, (reach + 3.5, 0), z=15.8),
        *_arm(rng, finish, reach + long - 1, palm * between(rng, 0.7, 0.9), 5),
    ]
    return Gripper("soft", behind, front, False)


def _overhead(rng: np.random.Generator) -> Gripper:
    """Return a gripper seen from above: jaws on both sides of the handle, its bar across."""
    finish = _finish(rng)
    half = between(rng, 4.2, 6.2)
    open_ = between(rng, 5.6, 7.0)
    deep = between(rng, 5, 8)
    behind = [Part(Box((deep, half * 2), 1, 3, 1), finish.finger, (sign * (open_ + deep / 2), 0), z=-6)
              for sign in (-1, 1)]  # fmt: skip
    long = between(rng, 26, 34)
    front: list[Part] = [Part(Box((long, half * 1.9), 1.2, 5, 1.0), finish.body, (long * 0.12, 0), z=14)]
    front += [
        Part(Box((deep, half * 2.1), 1, 4, 1.2), finish.finger, (sign * (open_ + deep / 2), 0), z=15.5)
        for sign in (-1, 1)
    ]
    front += _bolts([(sign * (open_ + deep * 0.55), v) for sign in (-1, 1) for v in (-half * 0.5, half * 0.5)],
                    1.1, 19.4, finish.trim)  # fmt: skip
    start = long * 0.62
    front.append(Part(Box((between(rng, 12, 18), half * 3), 2.5, 9, 2.5), finish.body, (start + 5, 0), z=14))
    front += _arm(rng, finish, start + 10, half * between(rng, 1.3, 1.7), 12)
    return Gripper("overhead", behind, front, False)


def _inline(rng: np.random.Generator) -> Gripper:
    """Return a gripper that holds the handle's end, its arm going on where the handle ends."""
    finish = _finish(rng)
    grasp = between(rng, 10, 15)
    palm = between(rng, 9, 13)
    long = between(rng, 16, 26)
    jaw = [(-grasp, -5.5), (-grasp, -3.0), (-grasp + 5, -2.3), (4, -2.6), (8, -4), (10, -palm), (2, -palm), (-4, -8.5)]
    flipped = [(u, -v) for u, v in jaw]
    behind = [Part(Box((grasp + 12, 7), 2, 3, 1), finish.finger, (-grasp / 2 + 4, 0), z=-9)]
    front = [
        Part(Plate([jaw], height=7, bevel=1.6, rim=0.2), finish.finger, z=3),
        Part(Plate([flipped], height=7, bevel=1.6, rim=0.2), finish.finger, z=3),
        Part(Box((long, palm * 2), between(rng, 2, 5), 10, 2.5), finish.body, (6 + long / 2, 0), z=5),
        *_bolts([(3.0, sign * (palm - 3)) for sign in (-1.0, 1.0)], 1.5, 10.2, finish.trim),
        Part(Box((2.5, palm * 1.7), 0.8, 0.8, 0.5), finish.trim, (10, 0), z=14.8),
        *_arm(rng, finish, 5 + long, palm * between(rng, 0.75, 1.0), 4),
    ]
    return Gripper("inline", behind, front, True)


_KINDS = {
    "pinch": _pinch,
    "three fingers": _three_fingers,
    "soft": _soft,
    "overhead": _overhead,
    "inline": _inline,
}
