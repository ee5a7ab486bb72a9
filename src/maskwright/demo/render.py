"""A small renderer: solids seen from above, lit by one soft lamp and by the room around.

Every thing is drawn at two samples a pixel each way, each with the share of it that the outline covers (so edges are as
smooth as with many more), one sample list per part (only samples that the part may cover are ever computed), then
averaged to pixels. Light that the lamp sends is kept apart from light that comes from
everywhere, so that shadows of things drawn later can still fall on things drawn before.

Frames: x right, y down, z towards the viewer, in pixels of a picture of 331; normals and light in the same frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright.demo.materials import Material, between
from maskwright.demo.noise import Floats
from maskwright.demo.raster import blurred
from maskwright.demo.shapes import Shape

SAMPLES = 2
"""Samples a pixel, along each side."""

NOMINAL = 331.0
"""The side that sizes are thought in; pictures of other sizes show the same world."""

_VIEWER = 900.0  # distance of the camera, in pixels
_ROOM = 96  # side of the map of the room's light


@dataclass
class Pose:
    """Where a thing is: maps its frame to the picture, with perspective.

    Args:
        to_picture: `(3, 3)` float64 homography, from `(u, v, 1)` to picture pixels.
        turn: `(3, 3)` float64 rotation of its normals.
        scale: Pixels per unit, at its middle.
        height: Of its base above the ground, in pixels.
    """

    to_picture: NDArray[np.float64]
    turn: NDArray[np.float64]
    scale: float
    height: float

    @classmethod
    def at(
        cls, x: float, y: float, angle: float, scale: float, height: float = 0.0, tilt: tuple[float, float] = (0.0, 0.0)
    ) -> Pose:
        """Place a thing: turned by `angle` in the picture, after tilting about its own u and v axes (radians)."""
        ca, sa = np.cos(angle), np.sin(angle)
        cu, su = np.cos(tilt[0]), np.sin(tilt[0])
        cv, sv = np.cos(tilt[1]), np.sin(tilt[1])
        turn = (
            np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1.0]])
            @ np.array([[1.0, 0, 0], [0, cu, -su], [0, su, cu]])
            @ np.array([[cv, 0, sv], [0, 1, 0], [-sv, 0, cv]])
        )
        r = turn * scale
        forward = np.array(
            [
                [r[0, 0] - x * r[2, 0] / _VIEWER, r[0, 1] - x * r[2, 1] / _VIEWER, x],
                [r[1, 0] - y * r[2, 0] / _VIEWER, r[1, 1] - y * r[2, 1] / _VIEWER, y],
                [-r[2, 0] / _VIEWER, -r[2, 1] / _VIEWER, 1],
            ]
        )
        return cls(forward, turn, scale, height)

    def on(self, u: float, v: float, angle: float, scale: float) -> Pose:
        """Place something on this plane, at `(u, v)` of its frame."""
        ca, sa = np.cos(angle), np.sin(angle)
        similar = np.array([[scale * ca, -scale * sa, u], [scale * sa, scale * ca, v], [0, 0, 1.0]])
        turn = self.turn @ np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1.0]])
        return Pose(self.to_picture @ similar, turn, self.scale * scale, self.height)

    def point(self, u: float, v: float) -> tuple[float, float]:
        """Return where a point of the frame is in the picture."""
        x, y, w = (self.to_picture @ np.array([u, v, 1.0])).tolist()
        return (x / w, y / w)


@dataclass
class Part:
    """One solid of a thing.

    Args:
        shape: Its form, in its own frame.
        material: What it is made of; `None` takes its form out of what was drawn before: a hole.
        at: Where its origin lies in the thing's frame.
        turn: Its turn there, radians.
        z: Height of its base in the thing's frame.
    """

    shape: Shape
    material: Material | None
    at: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    z: float = 0.0


@dataclass
class Light:
    """One soft lamp and a room.

    Args:
        towards: Unit vector from the ground to the lamp.
        colour: `(3,)` of the lamp.
        softness: Half angle of the lamp as a slope; the edge of a shadow is wide by this share of its length.
        room: `(levels, 3, 96 * 96)` float32, light by direction of reflection, from sharp to blurred.
    """

    towards: tuple[float, float, float]
    colour: Floats
    softness: float
    room: Floats

    @classmethod
    def random(cls, rng: np.random.Generator) -> Light:
        """Draw a lamp and a room."""
        azimuth, high = between(rng, 0, 2 * np.pi), between(rng, 0.65, 1.25)
        towards = (float(np.cos(azimuth) * np.cos(high)), float(np.sin(azimuth) * np.cos(high)), float(np.sin(high)))
        warmth = between(rng, -0.12, 0.14)
        colour = np.array([1 + warmth, 1.0, 1 - warmth], dtype=np.float32) * between(rng, 0.8, 1.7)
        y, x = np.mgrid[0:_ROOM, 0:_ROOM].astype(np.float32) / (_ROOM / 2) - 1
        side = between(rng, 0, 2 * np.pi)
        slope = x * float(np.cos(side)) + y * float(np.sin(side))
        base = between(rng, 0.12, 0.4) + between(rng, 0.1, 0.4) * np.tanh(slope * between(rng, 1, 5))
        room = np.clip(base, 0.02, None)[None] * (1 - np.array([warmth, 0, -warmth], np.float32)[:, None, None])
        glow = float(np.hypot(towards[0], towards[1])) / (1 + towards[2])
        direction = (towards[0], towards[1])
        for k in range(int(rng.integers(1, 4))):
            length = glow / max(float(np.hypot(*direction)), 1e-3)
            cx, cy = (direction[0] * length, direction[1] * length) if k == 0 else rng.uniform(-0.9, 0.9, 2).tolist()
            turn, wide, tall = between(rng, 0, np.pi), between(rng, 0.1, 0.35), between(rng, 0.1, 0.5)
            dx, dy = x - cx, y - cy
            p = dx * float(np.cos(turn)) + dy * float(np.sin(turn))
            q = dy * float(np.cos(turn)) - dx * float(np.sin(turn))
            inside = (np.abs(p) < wide) & (np.abs(q) < tall)
            tint = colour if k == 0 else np.ones(3, np.float32)
            room = room + inside * (tint * np.float32(between(rng, 0.8, 2.5)))[:, None, None]
        for _ in range(int(rng.integers(0, 4))):  # dark furniture
            cx, cy = rng.uniform(-0.8, 0.8, 2).tolist()
            room = room * np.where(
                (np.abs(x - cx) < between(rng, 0.05, 0.3)) & (np.abs(y - cy) < 0.4), np.float32(0.3), np.float32(1)
            )
        levels = [blurred(room.astype(np.float32), radius) for radius in (1.2, 5, 13, 32)]
        stack = np.stack(levels).reshape(4, 3, -1).astype(np.float32)
        return cls(towards, colour, between(rng, 0.05, 0.35), stack)

    def answer(
        self,
        material: Material,
        colour: Floats,
        normal: tuple[Floats, Floats, Floats],
        view: tuple[Floats, Floats],
    ) -> Floats:
        """Return what light leaves a surface towards the viewer, `(6, N)`: three from the room, three from the lamp."""
        nx, ny, nz = normal
        vx, vy = view
        lx, ly, lz = self.towards
        rough, metal, shine = material.rough, material.metal, material.shine * (1 - 0.5 * material.rough)
        out = np.empty((6, nx.size), dtype=np.float32)
        facing = nx * vx + ny * vy + nz
        double = facing + facing
        mirrored = _room_index(double * nx - vx, double * ny - vy, double * nz - 1)
        below = min(int(rough * 3), 2)
        part = np.float32(rough * 3 - below)
        reflection = self.room[below] + (self.room[below + 1] - self.room[below]) * part
        mirror = np.clip(1 - facing, 0, 1)
        mirror *= mirror
        mirror *= mirror
        mirror *= np.float32(0.5 * shine * (1 - metal))
        mirror += np.float32(0.04 * shine * (1 - metal))
        np.add(mirror, colour * np.float32(metal), out=out[:3])
        out[:3] *= reflection.take(mirrored, axis=1)
        lit = np.maximum(nx * lx + ny * ly + nz * lz, 0)
        hx, hy, hz = lx + vx, ly + vy, lz + 1
        # The half-way vector's length hardly changes over the picture: that of the middle serves all.
        half = np.minimum((nx * hx + ny * hy + nz * hz) * np.float32(1 / np.sqrt(lx * lx + ly * ly + hz * hz)), 1)
        power = 2 / max(rough, 0.08) ** 3
        spot = np.exp((half - 1) * np.float32(power)) * (lit > 0)
        spot *= np.float32(shine * min(2.5, 0.35 + power * 0.02))
        np.multiply(colour, lit * np.float32(1 - metal + metal * 0.35) + spot * np.float32(metal), out=out[3:])
        out[3:] += spot * np.float32(0.35 * (1 - metal))
        out[3:] *= self.colour[:, None]
        if metal < 1:
            scattered = self.room[3].take(_room_index(nx, ny, nz), axis=1)
            out[:3] += scattered * (colour * np.float32(1.6 * (1 - metal)))
        return out


@dataclass
class Layer:
    """A drawn thing, by pixel of the window that it fits in; colour is already weighted by cover.

    Args:
        window: Rows and columns of the picture.
        cover: `(h, w)` float32, share of each pixel's samples that the thing covers.
        soft: `(3, h, w)` float32, light from the room.
        hard: `(3, h, w)` float32, light from the lamp, shadows not yet applied.
        top: `(h, w)` float32, height of the surface above the ground in pixels of a picture of 331, where covered.
        samples: `(2 h, 2 w)` float32, the share of each sample that it covers.
    """

    window: tuple[slice, slice]
    cover: Floats
    soft: Floats
    hard: Floats
    top: Floats
    samples: Floats


@dataclass
class Canvas:
    """What all layers of a picture share.

    Args:
        side: Of the picture, in pixels.
        light: What lights it.
    """

    side: int
    light: Light
    unit: float = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.side / NOMINAL

    def silhouette(self, parts: list[Part], pose: Pose, coarse: int = 4) -> NDArray[np.bool_]:
        """Return which points of a coarse grid (one every `coarse` nominal pixels) a thing covers."""
        side = int(NOMINAL) // coarse
        covered = np.zeros(side * side, dtype=np.bool_)
        for part in parts:
            box, back = _frame(part, pose, side, float(coarse))
            if box is not None:
                row, column, u, v = _inside(part, back, box, float(coarse))
                depth = part.shape.surface(u, v, pose.scale).depth
                covered[(row * side + column)[depth > 0]] = part.material is not None
        return covered.reshape(side, side)

    def draw(self, parts: list[Part], pose: Pose) -> Layer | None:
        """Draw a thing: the highest part wins, holes take away what came before them. `None` if it is out of sight."""
        fine, step = self.side * SAMPLES, 1 / (SAMPLES * self.unit)
        frames = [_frame(part, pose, fine, step) for part in parts]
        boxes = np.array([box for box, _ in frames if box is not None])
        if not boxes.size:
            return None
        y1, x1 = (boxes[:, :2].min(axis=0) // SAMPLES * SAMPLES).tolist()
        y2, x2 = (-(-boxes[:, 2:].max(axis=0) // SAMPLES) * SAMPLES).tolist()
        wide = x2 - x1
        count = (y2 - y1) * wide
        rank = np.full(count, -np.inf, dtype=np.float32)  # by height; the fringe of an outline comes last
        tops, alpha = np.zeros((2, count), dtype=np.float32)
        owner = np.full(count, -1, dtype=np.int16)
        rims = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        kept: list[tuple[NDArray[Any], ...] | None] = []
        texels = pose.scale * self.unit * SAMPLES
        for number, (part, (box, back)) in enumerate(zip(parts, frames, strict=True)):
            kept.append(None)
            if box is None:
                continue
            row, column, u, v = _inside(part, back, box, step, 0.5 / texels)
            index = (row - np.int32(y1)) * np.int32(wide) + (column - np.int32(x1))
            surface = part.shape.surface(u, v, texels)
            share = np.clip(surface.depth * np.float32(texels) + np.float32(0.5), 0, 1)
            if part.material is None:
                alpha[index] = np.minimum(alpha[index], 1 - share)
                gone = index[share == 1]
                rank[gone], owner[gone] = -np.inf, -1
                near = (surface.depth <= 0) & (surface.depth > -1.6 / pose.scale)
                rims = index[near], np.clip(0.45 - surface.depth[near] * pose.scale * 0.35, 0, 1)
                continue
            height = (surface.z + np.float32(part.z)) * np.float32(pose.scale) + np.float32(pose.height)
            order = np.where(surface.depth > 0, height, surface.depth - np.float32(1e5))
            seen = np.flatnonzero((share > 0) & (order > rank[index]))
            index = index[seen]
            rank[index], tops[index], owner[index] = order[seen], height[seen], number
            alpha[index] = np.maximum(alpha[index], share[seen])
            kept[-1] = (index, row[seen], column[seen], u[seen], v[seen], surface.slope_u[seen], surface.slope_v[seen])
        window = (y1 // SAMPLES, x1 // SAMPLES, y2 // SAMPLES, x2 // SAMPLES)
        pixels, lights = [np.zeros(0, np.intp)], [np.zeros((6, 0), np.float32)]
        rim = np.ones(count, dtype=np.float32)  # the wall of a hole is dark, since the surface turns down
        rim[rims[0]] = rims[1]
        for number, (part, found) in enumerate(zip(parts, kept, strict=True)):
            if found is None:
                continue
            on_top = np.flatnonzero(owner[found[0]] == number)  # what a later part covers is never shaded
            if on_top.size:
                index, row, column, u, v, su, sv = (values[on_top] for values in found)
                light = self._shaded(part, pose, (row, column), (u, v), (su, sv))
                light *= alpha[index] * rim[index]
                pixels.append((row // SAMPLES - window[0]) * (wide // SAMPLES) + (column // SAMPLES - window[1]))
                lights.append(light)
        return _averaged(tops, alpha, np.concatenate(pixels), np.concatenate(lights, axis=1), window)

    def _shaded(
        self,
        part: Part,
        pose: Pose,
        place: tuple[NDArray[np.int32], NDArray[np.int32]],
        on_part: tuple[Floats, Floats],
        slopes: tuple[Floats, Floats],
    ) -> Floats:
        material = part.material
        assert material is not None
        (row, column), (u, v), (su, sv) = place, on_part, slopes
        if material.bumps:
            bu, bv = material.bumps(u, v)
            su, sv = su - bu, sv - bv
        ca, sa = float(np.cos(part.turn)), float(np.sin(part.turn))
        nu, nv = -(ca * su - sa * sv), -(sa * su + ca * sv)
        size = 1 / np.sqrt(nu * nu + nv * nv + 1)
        nu, nv = nu * size, nv * size
        r = pose.turn.tolist()
        nx = r[0][0] * nu + r[0][1] * nv + r[0][2] * size
        ny = r[1][0] * nu + r[1][1] * nv + r[1][2] * size
        nz = np.maximum(r[2][0] * nu + r[2][1] * nv + r[2][2] * size, 0.02)
        fine = self.side * SAMPLES
        far = 1 / (SAMPLES * self.unit * _VIEWER)
        vx = (np.float32(fine / 2) - column.astype(np.float32)) * np.float32(far)
        vy = (np.float32(fine / 2) - row.astype(np.float32)) * np.float32(far)
        colour = np.array(material.colour, dtype=np.float32)[:, None]
        if material.pattern:
            colour = np.clip(colour * material.pattern(u, v), 0, 0.95).astype(np.float32)
        return self.light.answer(material, colour, (nx, ny, nz), (vx, vy))


def _averaged(
    tops: Floats, alpha: Floats, pixels: NDArray[np.intp], light: Floats, window: tuple[int, int, int, int]
) -> Layer:
    """Bring samples together to pixels: `pixels` is where each of `light`'s `(6, N)` samples goes in the window."""
    y1, x1, y2, x2 = window
    height, width = y2 - y1, x2 - x1
    part = np.float32(1 / SAMPLES**2)

    def mean(values: Floats) -> Floats:
        raster = values.reshape(height, SAMPLES, width, SAMPLES)
        total = raster[:, 0, :, 0] + raster[:, 0, :, 1]
        total += raster[:, 1, :, 0]
        total += raster[:, 1, :, 1]
        return np.asarray(total * part, dtype=np.float32)

    cover = mean(alpha)
    channels = np.stack([np.bincount(pixels, channel, height * width).astype(np.float32) for channel in light])
    channels = channels.reshape(6, height, width) * part
    top = np.asarray(mean(tops * alpha) / np.maximum(cover, np.float32(1e-3)), dtype=np.float32)
    here = slice(y1, y2), slice(x1, x2)
    return Layer(here, cover, channels[:3], channels[3:], top, alpha.reshape(height * SAMPLES, width * SAMPLES))


def _room_index(x: Floats, y: Floats, z: Floats) -> NDArray[np.intp]:
    """Return where in the room's map a direction is: the paraboloid map, whose middle is straight up."""
    scale = np.float32(_ROOM / 2) / np.maximum(1 + z, np.float32(0.35))
    column = np.clip(x * scale + np.float32(_ROOM / 2), 0, _ROOM - 1).astype(np.intp)
    row = np.clip(y * scale + np.float32(_ROOM / 2), 0, _ROOM - 1).astype(np.intp)
    return row * _ROOM + column


_Box = tuple[int, int, int, int]  # y1 x1 y2 x2 in samples


def _frame(part: Part, pose: Pose, grid: int, step: float) -> tuple[_Box | None, Floats]:
    """Return the samples of a `grid` x `grid` raster around a part (`None` if out of sight), and the map back to it."""
    u1, v1, u2, v2 = part.shape.bounds
    ca, sa = np.cos(part.turn), np.sin(part.turn)
    forward = pose.to_picture @ np.array([[ca, -sa, part.at[0]], [sa, ca, part.at[1]], [0, 0, 1.0]])
    corners = forward @ np.array([[u1, u2, u2, u1], [v1, v1, v2, v2], [1, 1, 1, 1]])
    back = np.linalg.inv(forward)
    back = (back / back[2, 2]).astype(np.float32)
    if corners[2].min() < 0.2:  # beside or behind the camera
        return None, back
    corners = corners[:2] / corners[2]
    x1, y1 = np.maximum(np.floor(corners.min(axis=1) / step).astype(int) - 1, 0).tolist()
    x2, y2 = np.minimum(np.ceil(corners.max(axis=1) / step).astype(int) + 1, grid).tolist()
    return ((y1, x1, y2, x2) if x1 < x2 and y1 < y2 else None), back


def _inside(
    part: Part, back: Floats, box: _Box, step: float, margin: float = 0.0
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats, Floats]:
    """Return rows and columns of the samples that a part may cover, and their places in its frame."""
    u1, v1, u2, v2 = part.shape.bounds
    y1, x1, y2, x2 = box
    x = (np.arange(x1, x2, dtype=np.float32) + np.float32(0.5)) * np.float32(step)
    y = ((np.arange(y1, y2, dtype=np.float32) + np.float32(0.5)) * np.float32(step))[:, None]
    u = (back[0, 0] * x + back[0, 2]) + back[0, 1] * y
    v = (back[1, 0] * x + back[1, 2]) + back[1, 1] * y
    if abs(back[2, 0]) + abs(back[2, 1]) > 1e-7:
        w = 1 / ((back[2, 0] * x + back[2, 2]) + back[2, 1] * y)
        u *= w
        v *= w
    middle_u, middle_v = np.float32((u1 + u2) / 2), np.float32((v1 + v2) / 2)
    inside = np.abs(u - middle_u) < np.float32((u2 - u1) / 2 + margin)
    inside &= np.abs(v - middle_v) < np.float32((v2 - v1) / 2 + margin)
    here = np.flatnonzero(inside).astype(np.int32)
    row, column = np.divmod(here, np.int32(x2 - x1))
    return row + np.int32(y1), column + np.int32(x1), u.ravel()[here], v.ravel()[here]
