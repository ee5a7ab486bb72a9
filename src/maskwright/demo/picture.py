"""One picture of the sample world: a hammer in a gripper over a cluttered plane, and its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskwright.demo.clutter import clutter
from maskwright.demo.gripper import Gripper, gripper
from maskwright.demo.hammers import Hammer, hammer
from maskwright.demo.materials import between, chance, choose
from maskwright.demo.noise import SIDE, Floats, cut
from maskwright.demo.planes import ground, shade_of_edge
from maskwright.demo.raster import blurred, moved, resized
from maskwright.demo.render import NOMINAL, SAMPLES, Canvas, Layer, Light, Part, Pose

_LEAST_VISIBLE = 0.78
"""Least share of the hammer that the gripper and the picture's border leave to be seen."""

_LEAST_HEAD = 0.75
"""Least share of its head that is seen: without it, a hammer is a stick."""

_LEAST_AREA = 0.012
"""Least share of the picture that the visible hammer takes."""


@dataclass(frozen=True)
class Picture:
    """A photo and its mask.

    Args:
        photo: `(side, side, 3)` RGB uint8.
        mask: `(side, side)` bool, the hammer's visible pixels.
        kind: Of the hammer.
        gripper: Kind of the gripper.
    """

    photo: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str
    gripper: str


def picture(seed: int, split: int, index: int, side: int = 331) -> Picture:
    """Draw a picture; it depends on these four numbers and on nothing else.

    Args:
        seed: Of the world.
        split: 0 train, 1 validation, 2 test.
        index: Of the picture in its split.
        side: Width and height in pixels.
    """
    rng = np.random.default_rng([seed, split, index])
    canvas = Canvas(side, Light.random(rng))
    plane = Pose.at(
        NOMINAL / 2, NOMINAL / 2, between(rng, -0.4, 0.4), 1.0, 0.0, (between(rng, 0, 0.62), between(rng, -0.25, 0.25))
    )
    scene = _Scene(canvas, _table(rng, canvas, plane))
    scene.lay(_scattered(rng, plane), rng)
    held = _held(rng, canvas)
    behind, tool, front = (canvas.draw(parts, pose) for parts, pose in held.order)
    assert tool is not None
    scene.hold([layer for layer in (behind, tool, front) if layer is not None], held.height)
    mask = _half_covered(tool, front, side)
    return Picture(_exposed(rng, scene.light), mask, held.hammer.kind, held.gripper.kind)


def _half_covered(tool: Layer, front: Layer | None, side: int) -> NDArray[np.bool_]:
    """Return the pixels of which at least half shows the hammer and nothing before it."""

    def samples(layer: Layer) -> Floats:
        full = np.zeros((side * SAMPLES, side * SAMPLES), dtype=np.float32)
        rows, columns = layer.window
        full[rows.start * SAMPLES : rows.stop * SAMPLES, columns.start * SAMPLES : columns.stop * SAMPLES] = (
            layer.samples
        )
        return full

    seen = samples(tool)
    if front is not None:
        seen *= 1 - samples(front)
    shares = seen.reshape(side, SAMPLES, side, SAMPLES).mean(axis=(1, 3))
    return np.asarray(shares >= 0.5)


@dataclass(frozen=True)
class _Held:
    """A hammer in a gripper, placed: back of the gripper, hammer, front of the gripper."""

    hammer: Hammer
    gripper: Gripper
    order: list[tuple[list[Part], Pose]]
    height: float


def _held(rng: np.random.Generator, canvas: Canvas) -> _Held:
    """Place a hammer and a gripper so that enough of the hammer is seen; drawn anew until it is."""
    while True:
        tool, hand = hammer(rng), gripper(rng)
        length = NOMINAL * between(rng, 0.74, 1.0)
        height = between(rng, 6, 55)
        angle = between(rng, 0, 2 * np.pi)
        tilt = (between(rng, -0.3, 0.3), between(rng, -0.55, 0.55))
        reach = 0.5 * length * 0.85
        room = max(NOMINAL / 2 - reach, 20)
        x, y = (NOMINAL / 2 + between(rng, -room, room) for _ in range(2))
        pose = Pose.at(x, y, angle, length / 100, height, tilt)
        if hand.along:
            grip, way = (between(rng, -46, -36), 0.0), np.pi
        else:
            grip = (between(rng, *tool.grip), 0.0)
            way = choose(rng, [1, -1]) * np.pi / 2 + between(rng, -0.5, 0.5)
        size = between(rng, 0.85, 1.15) * (1.0 if length > 130 else 1.2)
        held = pose.on(*grip, way, size)
        hidden = canvas.silhouette(hand.front, held)
        head = canvas.silhouette(tool.head, pose)
        whole = canvas.silhouette(tool.handle, pose) | head
        visible, total = int((whole & ~hidden).sum()), int(whole.sum())
        head_visible, head_total = int((head & ~hidden).sum()), int(head.sum())
        corners = [pose.point(u, v) for u in (-52, 56) for v in (-30, 24)]
        if not all(0 < a < NOMINAL and 0 < b < NOMINAL for a, b in corners):
            # The same picture at half the size in the middle of a frame shows what lies outside as well.
            wider = Pose(_HALVED @ pose.to_picture, pose.turn, pose.scale / 2, height)
            wide_head = canvas.silhouette(tool.head, wider, 2)
            head_total = int(wide_head.sum())
            total = int((canvas.silhouette(tool.handle, wider, 2) | wide_head).sum())
        if (
            head_visible < _LEAST_HEAD * head_total
            or visible < _LEAST_VISIBLE * total
            or visible < _LEAST_AREA * whole.size * 1.15
        ):
            continue
        if tool.hole is not None and chance(rng, 0.8):  # a hole that cannot be seen teaches nothing
            at_x, at_y = pose.point(*tool.hole)
            near = hidden[max(int(at_y / 4) - 1, 0) : int(at_y / 4) + 2, max(int(at_x / 4) - 1, 0) : int(at_x / 4) + 2]
            if near.any() or not (8 < at_x < NOMINAL - 8 and 8 < at_y < NOMINAL - 8):
                continue
        order = [(hand.behind, held), ([*tool.handle, *tool.head], pose), (hand.front, held)]
        return _Held(tool, hand, order, height)


_HALVED = np.array([[0.5, 0, NOMINAL / 4], [0, 0.5, NOMINAL / 4], [0, 0, 1.0]])


def _table(rng: np.random.Generator, canvas: Canvas, plane: Pose) -> Floats:
    """Draw the ground, sometimes with a second plane beyond a straight line."""
    side = canvas.side
    base = ground(rng, side, canvas.light, plane)
    if chance(rng, 0.35):
        other = ground(rng, side, canvas.light, plane) * between(rng, 0.35, 0.9)
        turn = between(rng, 0, 2 * np.pi)
        line = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(canvas.unit) - np.float32(NOMINAL / 2)
        along, across = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        away: Floats = line[None] * along + line[:, None] * across - np.float32(between(rng, 40, 130))
        share = np.clip(away * canvas.unit + 0.5, 0, 1).astype(np.float32)
        if chance(rng, 0.6):
            other = blurred(other, between(rng, 0.8, 3) * canvas.unit)
        lip = 1 + 0.5 * np.exp(-((away + 1.5) ** 2) / 2)  # the table's edge catches light
        base = base * (lip * (1 - share)) + other * shade_of_edge(away, between(rng, 6, 30)) * share
    return np.asarray(base, dtype=np.float32)


def _scattered(rng: np.random.Generator, plane: Pose) -> list[tuple[list[Part], Pose]]:
    """Lay things on the plane, one overlapping another only now and then."""
    things: list[tuple[list[Part], Pose]] = []
    taken: list[tuple[float, float, float]] = []
    scale = between(rng, 0.85, 1.5)
    for _ in range(int(rng.integers(2, 9))):
        parts, _, radius = clutter(rng)
        radius *= scale
        for _ in range(4):
            u, v = between(rng, -185, 185), between(rng, -185, 185)
            if all(np.hypot(u - a, v - b) > 0.75 * (radius + r) for a, b, r in taken):
                taken.append((u, v, radius))
                things.append((parts, plane.on(u, v, between(rng, 0, 2 * np.pi), scale)))
                break
    return things


class _Scene:
    """The picture as light, built from the ground up."""

    def __init__(self, canvas: Canvas, base: Floats) -> None:
        self.canvas = canvas
        self.light = base

    def lay(self, things: list[tuple[list[Part], Pose]], rng: np.random.Generator) -> None:
        """Draw things that lie on the ground, with their shadows on it and on each other."""
        top = np.zeros(self.light.shape[1:], dtype=np.float32)
        soft, hard = self.light * np.float32(0.38), self.light * np.float32(0.62)
        for parts, pose in things:
            layer = self.canvas.draw(parts, pose)
            if layer is not None:
                _over(layer, soft, hard, top)
        shadow, dark = self._shadow(top)
        hard *= shadow * (0.35 + 0.65 * dark)
        soft *= dark
        self.light = soft + hard
        if chance(rng, 0.5):  # out of focus, since the camera looks at the hammer
            self.light = blurred(self.light, between(rng, 0.3, 1.5) * self.canvas.unit)

    def hold(self, layers: list[Layer], height: float) -> None:
        """Draw things that are held above the ground, with their shadows on it and on each other."""
        floor = self._far(layers)
        shape = self.light.shape[1:]
        top = np.full(shape, height - 30, dtype=np.float32)
        free = np.ones(shape, dtype=np.float32)
        soft, hard = np.zeros((2, *self.light.shape), dtype=np.float32)
        for layer in layers:
            _over(layer, soft, hard, top)
            free[layer.window] *= 1 - layer.cover
        shadow, dark = self._shadow(top)
        near = np.clip(1 - height / 45, 0.0, 1) * 0.5  # what is close above the ground darkens it all around
        floor *= 1 - np.float32(near) * (1 - blurred(free, 5 * self.canvas.unit))
        self.light *= floor * free
        self.light += soft * dark
        self.light += hard * (shadow * (0.4 + 0.6 * dark))

    def _shadow(self, top: Floats) -> tuple[Floats, Floats]:
        """Return how much of the lamp, and how much of the room, each pixel sees over the surface around it (0..1).

        Both are worked out at half the resolution, in nominal pixels: shadows are soft.
        """
        side = top.shape[0]
        half = round(NOMINAL / 2)
        small = resized(top, (half, half))
        lx, ly, lz = self.canvas.light.towards
        flat = float(np.hypot(lx, ly))
        reach = min(float(small.max() - small.min()) * flat / lz, 60.0)
        spread = self.canvas.light.softness
        seen = np.zeros_like(small)
        lamps = [(0.0, 1.0), (spread, 0.85), (-spread, 0.85), (spread * 0.5, 1.2), (-spread * 0.5, 1.2)]
        for turn, lift in lamps:
            ca, sa = float(np.cos(turn)), float(np.sin(turn))
            dx, dy = (lx * ca - ly * sa) / flat, (lx * sa + ly * ca) / flat
            over = np.zeros_like(small)
            for step in (2.0, 4.0, 6.5, 9.5, 13, 18, 24, 31, 40, 50, 60):
                if step > reach:
                    break
                ahead = moved(small, round(-dx * step / 2), round(-dy * step / 2))
                ahead -= small
                ahead -= np.float32(step * lz / flat * lift)
                np.maximum(over, ahead, out=over)
            seen += np.clip(1 - over * np.float32(0.8), 0, 1)
        shadow = blurred(seen / np.float32(len(lamps)), 0.5)
        near = np.maximum(blurred(small, 0.8) - small, 0)
        far = np.maximum(blurred(small, 2.8) - small, 0)
        dark = 1 / (1 + np.float32(0.13) * near + np.float32(0.10) * far)
        return resized(shadow, (side, side)), resized(dark, (side, side))

    def _far(self, layers: list[Layer]) -> Floats:
        """Return the light that held things leave on the ground: the higher, the further off and the softer."""
        lx, ly, lz = self.canvas.light.towards
        side, half = self.canvas.side, round(NOMINAL / 2)
        floor = np.ones((half, half), dtype=np.float32)
        for layer in layers:
            solid = layer.cover > 0.5
            if not solid.any():
                continue
            low, high = np.percentile(layer.top[solid][::7], [10, 90]).tolist()
            full = np.zeros((side, side), dtype=np.float32)
            full[layer.window] = layer.cover
            cover = resized(full, (half, half))
            shade = np.zeros_like(cover)
            for level in (low, (low + high) / 2, high):
                shift = round(-lx / lz * level / 2), round(-ly / lz * level / 2)
                np.maximum(shade, moved(cover, *shift), out=shade)
            radius = 0.3 + self.canvas.light.softness * (low + high) * 0.15
            floor = np.minimum(floor, 1 - blurred(shade, radius))
        return 0.42 + 0.58 * resized(floor, (side, side))


def _over(layer: Layer, soft: Floats, hard: Floats, top: Floats) -> None:
    """Lay a layer over what is there."""
    rows, columns = layer.window
    free = 1 - layer.cover
    for below, above in ((soft, layer.soft), (hard, layer.hard)):
        below[:, rows, columns] *= free
        below[:, rows, columns] += above
    top[rows, columns] += (layer.top - top[rows, columns]) * layer.cover


def _exposed(rng: np.random.Generator, light: Floats) -> NDArray[np.uint8]:
    """Turn light into a photo: falloff, lens, exposure, film curve, sensor noise."""
    side = light.shape[1]
    unit = side / NOMINAL
    line = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    x, y = line[None], line[:, None]
    turn = between(rng, 0, 2 * np.pi)
    pool = 1 + between(rng, 0.1, 0.7) * (x * float(np.cos(turn)) + y * float(np.sin(turn)))
    light = light * (pool * (1 - between(rng, 0.0, 0.8) * (x * x + y * y)))
    blur = between(rng, 0.05, 0.85)
    glow = blurred(np.clip(light[1] - np.float32(1.2), 0, 4), 4 * unit)
    if blur > 0.3:
        light = blurred(light, blur * unit)
    light += np.float32(0.2) * glow
    middle = float(np.exp(np.log(light[1, ::3, ::3] + np.float32(0.01)).mean()))
    white = np.array([between(rng, 0.93, 1.07), 1.0, between(rng, 0.93, 1.07)], dtype=np.float32)
    light *= white[:, None, None] * np.float32((between(rng, 0.1, 0.22) / middle) ** 0.8)
    # The film curve is the rational fit to ACES by Narkowicz (2015); then the square root that screens expect, nearly.
    shown = np.sqrt(np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1))
    noise = np.float32(between(rng, 0.003, 0.022))
    pixel = min(side, SIDE)
    grain = np.stack([cut(rng, "white", pixel) for _ in range(3)])
    if side > SIDE:
        grain = np.tile(grain, (1, -(-side // SIDE), -(-side // SIDE)))[:, :side, :side]
    grain = np.float32(0.5) * grain + np.float32(0.8 / 3) * grain.sum(axis=0)
    shown += grain * (noise * (1.2 - 0.7 * shown))
    out = np.clip(shown * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(out, 0, -1))
