"""What everything lies on: textures of tables, floors, walls and cloths, lit as a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskwright.demo.materials import Colour, between, chance, choose, linear, paint
from maskwright.demo.noise import Floats, cut
from maskwright.demo.render import Light, Pose


@dataclass(frozen=True)
class Texture:
    """A square of a plane.

    Args:
        colour: `(3, n, n)` float32, linear.
        relief: `(n, n)` float32, height in texels; `None` if smooth.
        gloss: 0 is chalk, 1 is a polished floor.
    """

    colour: Floats
    relief: Floats | None
    gloss: float


def texture(rng: np.random.Generator, n: int) -> Texture:
    """Draw a texture of `n` x `n` texels."""
    return choose(rng, _TEXTURES)(rng, n)


def ground(rng: np.random.Generator, side: int, light: Light, pose: Pose) -> Floats:
    """Draw a plane through the whole picture.

    Args:
        rng: Where the texture comes from.
        side: Of the picture, in pixels.
        light: What lights it.
        pose: Of the plane; its frame is in nominal pixels.

    Returns:
        `(3, side, side)` float32, linear light.
    """
    n = min(1024, round(480 * max(side / 331, 0.6)))
    flat = _lit(texture(rng, n), light, pose)
    back = np.linalg.inv(pose.to_picture)
    corners = back @ np.array([[0, 331, 331, 0], [0, 0, 331, 331], [1, 1, 1, 1.0]])
    corners = corners[:2] / corners[2]
    turn = between(rng, 0, 2 * np.pi)
    around = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = around @ corners
    low, high = turned.min(axis=1), turned.max(axis=1)
    zoom = (n - 8) / float((high - low).max())
    to_texels = np.array(
        [
            [zoom * around[0, 0], zoom * around[0, 1], 4 - zoom * low[0]],
            [zoom * around[1, 0], zoom * around[1, 1], 4 - zoom * low[1]],
            [0, 0, 1],
        ]
    )
    shrink = 331 / side
    full = to_texels @ back @ np.diag([shrink, shrink, 1])
    full /= full[2, 2]
    # Eight bits in the square root of light: fine enough for a floor, and what makes the warp fast.
    np.sqrt(flat, out=flat)
    flat *= np.float32(200)
    np.minimum(flat, 255, out=flat)
    picture = Image.merge("RGB", [Image.fromarray(channel) for channel in flat.astype(np.uint8)])
    warped = picture.transform(
        (side, side), Image.Transform.PERSPECTIVE, tuple(full.ravel()[:8].tolist()), Image.Resampling.BILINEAR
    )
    result = np.moveaxis(np.asarray(warped), -1, 0).astype(np.float32) * np.float32(1 / 200)
    return result * result


def _lit(texture_: Texture, light: Light, pose: Pose) -> Floats:
    ambient = light.room[3].mean(axis=1) * np.float32(1.6)
    # The lamp in the plane's own frame.
    px, py, pz = (pose.turn.T @ np.array(light.towards)).tolist()
    colour, relief = texture_.colour, texture_.relief
    if relief is None:
        return np.asarray(colour * (ambient + light.colour * np.float32(light.towards[2]))[:, None, None])
    slope_y, slope_x = np.empty_like(relief), np.empty_like(relief)
    np.subtract(relief[1:], relief[:-1], out=slope_y[:-1])
    np.subtract(relief[:, 1:], relief[:, :-1], out=slope_x[:, :-1])
    slope_y[-1], slope_x[:, -1] = 0, 0
    size = slope_x * slope_x
    size += slope_y * slope_y
    size += 1
    np.sqrt(size, out=size)
    slope_x *= np.float32(-px)
    slope_y *= np.float32(py)
    slope_x -= slope_y
    lit = slope_x + np.float32(pz)
    lit /= size
    np.maximum(lit, 0, out=lit)
    out = np.empty_like(colour)
    for k in range(3):
        np.multiply(lit, light.colour[k], out=out[k])
        out[k] += ambient[k]
    out *= colour
    if texture_.gloss:
        length = float(np.sqrt(px * px + py * py + (pz + 1) ** 2))
        slope_x += np.float32(pz + 1)  # the same tilt, towards the direction half way to the viewer
        slope_x /= size
        half = np.minimum(slope_x * np.float32(60 / length) - 60, 0)
        spot = np.exp(half) * np.float32(0.25 * texture_.gloss)
        out += light.colour[:, None, None] * spot
    return out


def _tinted(value: Floats, colour: Colour) -> Floats:
    shaded = np.array(colour, dtype=np.float32)[:, None, None] * value.astype(np.float32, copy=False)
    return np.clip(shaded, 0.004, 0.92, out=shaded)


def _between(low: Colour, high: Colour, share: Floats) -> Floats:
    a, b = (np.array(c, dtype=np.float32)[:, None, None] for c in (low, high))
    return np.asarray(a + (b - a) * share, dtype=np.float32)


def _axes(n: int) -> tuple[Floats, Floats]:
    line = np.arange(n, dtype=np.float32)
    return line[None, :], line[:, None]


def _wood(rng: np.random.Generator, n: int) -> Texture:
    tone = linear(
        *choose(rng, [(196, 150, 100), (150, 104, 66), (110, 74, 48), (214, 182, 138), (168, 160, 148), (84, 56, 40)])
    )
    x, y = _axes(n)
    wide = between(rng, 45, 140)
    board = np.floor(y / wide + 0.37)
    tints = rng.uniform(0.78, 1.15, 64).astype(np.float32)
    shifts = rng.uniform(0, 80, 64).astype(np.float32)
    number = board.astype(np.int32) % 64
    phase = (y + shifts[number]) * between(rng, 0.06, 0.16) + between(rng, 0.8, 1.8) * cut(rng, "cloud", n, (8, 2))
    saw = phase - np.floor(phase)
    ring = saw * saw * (3 - 2 * saw) - 0.5
    fibre = cut(rng, "fine", n, (16, 1))
    value = (1 - between(rng, 0.15, 0.4) * ring + 0.07 * fibre) * tints[number]
    relief = 0.12 * fibre - 0.15 * ring
    if chance(rng, 0.75):
        gap = np.abs(y / wide + 0.37 - np.round(y / wide + 0.37)) * wide
        ends = rng.uniform(0, 400, 64).astype(np.float32)[number]
        butt = np.abs((x + ends) / 400 - np.round((x + ends) / 400)) * 400
        seam = np.minimum(np.clip(gap - 0.4, 0, 1.6), np.clip(butt - 0.4, 0, 1.6)) / 1.6
        value = value * (0.25 + 0.75 * seam)
        relief = relief + 1.2 * seam
    value = np.clip(value, 0.05, 1.6)
    colour = _tinted(value, tone)
    colour[2] *= np.clip(value, 0.4, 1.2)
    return Texture(colour, relief, choose(rng, [0.0, 0.4, 1.0]))


def _concrete(rng: np.random.Generator, n: int) -> Texture:
    grey = between(rng, 0.12, 0.45)
    cloud, fine, grain = cut(rng, "cloud", n), cut(rng, "fine", n), cut(rng, "grain", n)
    value = 1 + between(rng, 0.05, 0.2) * cloud + 0.07 * fine + 0.06 * grain
    pits = cut(rng, "grain", n) > between(rng, 2.2, 3.0)
    value = np.where(pits, value * np.float32(0.55), value)
    relief = 0.35 * fine + 0.25 * grain - 1.2 * pits.astype(np.float32)
    if chance(rng, 0.5):  # cracks: where a slow field crosses zero
        field = cut(rng, "cloud", n, (2, 2)) + 0.15 * cut(rng, "fine", n)
        crack = np.clip(1 - np.abs(field) / 0.02, 0, 1)
        value, relief = value * (1 - 0.6 * crack), relief - 1.0 * crack
    tint = (grey * between(rng, 0.95, 1.1), grey, grey * between(rng, 0.88, 1.02))
    return Texture(_tinted(np.clip(value, 0.2, 1.8), tint), relief, 0.0)


def _metal(rng: np.random.Generator, n: int) -> Texture:
    grey = between(rng, 0.18, 0.5)
    brush = cut(rng, "fine", n, (32, 1))
    x, y = _axes(n)
    value = 1 + 0.12 * brush + 0.10 * cut(rng, "cloud", n)
    sheen = (x * float(np.cos(grey * 40)) + y * float(np.sin(grey * 40))) * (between(rng, 1, 3) * np.pi / n)
    value = value * (1 + between(rng, 0.1, 0.4) * np.sin(sheen + between(rng, 0, 6)))
    relief = 0.15 * brush
    if chance(rng, 0.35):  # chequer plate
        pitch = between(rng, 26, 46)
        p, q = (x + y) / pitch, (x - y) / pitch
        odd = (np.floor(p) + np.floor(q)) % 2
        along, across = np.where(odd == 0, p, q) % 1 - 0.5, np.where(odd == 0, q, p) % 1 - 0.5
        relief = relief + 3.0 * np.sqrt(np.clip(1 - (along / 0.42) ** 2 - (across / 0.16) ** 2, 0, 1))
    elif chance(rng, 0.5):
        scratch = np.abs(cut(rng, "soft", n, (6, 1))) < 0.012
        value = np.where(scratch, value * 1.35, value)
    tint = (grey, grey * 1.0, grey * between(rng, 1.0, 1.1))
    return Texture(_tinted(np.clip(value, 0.1, 2.2), tint), relief, 1.0)


def _muted(rng: np.random.Generator) -> Colour:
    """Draw a colour that large surfaces have: a paint, greyed."""
    r, g, b = paint(rng)
    grey, share = (r + 2 * g + b) / 4, between(rng, 0.15, 0.75)
    level = between(rng, 0.04, 0.16)
    return (r + (grey - r) * share + level, g + (grey - g) * share + level, b + (grey - b) * share + level)


def _cloth(rng: np.random.Generator, n: int) -> Texture:
    colour, other = _muted(rng), _muted(rng)
    x, y = _axes(n)
    turn = 2 * np.pi / between(rng, 4.5, 9)
    weave = np.sin(x * turn) * np.sin(y * turn)
    thread = cut(rng, "grain", n)
    folds = cut(rng, "soft", n, (3, 2)) * between(rng, 2, 8) if chance(rng, 0.7) else np.zeros((n, n), np.float32)
    stripes = np.zeros((n, n), np.float32)
    style, wide = int(rng.integers(4)), between(rng, 30, 90)
    if style == 1:
        stripes = np.broadcast_to(((x / wide) % 1 < 0.4), (n, n)) * np.float32(1)
    elif style == 2:
        stripes = (((x / wide) % 1 < 0.5) * np.float32(0.5) + ((y / wide) % 1 < 0.5) * np.float32(0.5)).astype(
            np.float32
        )
    value = 1 + 0.12 * weave + 0.08 * thread
    return Texture(
        np.clip(_between(colour, other, stripes) * value, 0.004, 0.9), 0.35 * weave + 0.2 * thread + folds, 0.0
    )


def _tiles(rng: np.random.Generator, n: int) -> Texture:
    x, y = _axes(n)
    wide = between(rng, 40, 130)
    tall = wide if chance(rng, 0.6) else wide * between(rng, 0.35, 0.6)
    row = np.floor(y / tall)
    shift = (row % 2) * wide / 2 if chance(rng, 0.4) else row * 0
    column = np.floor((x + shift) / wide)
    fx, fy = (x + shift) / wide - column, y / tall - row
    edge = np.minimum(np.minimum(fx, 1 - fx) * wide, np.minimum(fy, 1 - fy) * tall)
    gap = between(rng, 1.0, 2.6)
    seam = np.clip((edge - gap) / 2.0, 0, 1)
    tints = rng.uniform(1 - between(rng, 0.02, 0.25), 1.05, (64, 64)).astype(np.float32)
    value = tints[row.astype(np.int32) % 64, column.astype(np.int32) % 64] + 0.05 * cut(rng, "cloud", n, (2, 2))
    colour, grout = _muted(rng), (between(rng, 0.05, 0.5),) * 3
    if chance(rng, 0.5):
        colour = (between(rng, 0.3, 0.7),) * 3
    if chance(rng, 0.3):
        value = value * np.where((row + column) % 2 == 0, 1.0, between(rng, 0.1, 0.6))
    mixed = _tinted(value, colour) * seam + _tinted(1 + 0.1 * cut(rng, "fine", n), grout) * (1 - seam)
    relief = 2.0 * seam + cut(rng, "soft", n) * 0.25
    return Texture(mixed.astype(np.float32), relief, choose(rng, [0.0, 0.8, 1.0]))


def _noise(rng: np.random.Generator, n: int) -> Texture:
    share = 0.5 + 0.5 * np.tanh(cut(rng, choose(rng, ["cloud", "fine", "soft"]), n, (2, 2)) * between(rng, 0.4, 3))
    colour = _between(_muted(rng), _muted(rng), share.astype(np.float32))
    colour = colour * (1 + between(rng, 0.0, 0.15) * cut(rng, "white", n)[None])
    return Texture(np.clip(colour, 0.004, 0.9), 0.3 * cut(rng, "fine", n), 0.0)


def _gradient(rng: np.random.Generator, n: int) -> Texture:
    x, y = _axes(n)
    turn = between(rng, 0, 2 * np.pi)
    share = (x * float(np.cos(turn)) + y * float(np.sin(turn))) / n
    share = np.clip(share - share.min(), 0, None)
    light, dark = between(rng, 0.4, 0.85), between(rng, 0.1, 0.5)
    ends: tuple[Colour, Colour] = ((light,) * 3, (dark,) * 3) if chance(rng, 0.6) else (_muted(rng), _muted(rng))
    colour = _between(*ends, (share / share.max()).astype(np.float32))
    return Texture(colour * (1 + 0.015 * cut(rng, "fine", n)[None]), None, 0.0)


def _asphalt(rng: np.random.Generator, n: int) -> Texture:
    grain, white = cut(rng, "grain", n), cut(rng, "white", n)
    grey = between(rng, 0.05, 0.16)
    stones = np.clip(grain - 0.4, 0, 2.5)
    value = 0.7 + 0.7 * stones * (0.7 + 0.3 * np.clip(white, -1, 2)) + 0.12 * cut(rng, "cloud", n)
    return Texture(
        _tinted(value, (grey * between(rng, 0.95, 1.15), grey, grey * between(rng, 0.85, 1.05))), 0.9 * stones, 0.0
    )


def _chipboard(rng: np.random.Generator, n: int) -> Texture:
    tone = linear(*choose(rng, [(206, 168, 112), (186, 150, 104), (160, 124, 84)]))
    value = np.ones((n, n), np.float32)
    relief = np.zeros((n, n), np.float32)
    for _ in range(4):  # each pass lays flakes of one direction over the last
        stretch = choose(rng, [(10, 3), (3, 10), (6, 6), (12, 2)])
        flakes = cut(rng, "grain", n, stretch)
        on = flakes > 0.35
        tint = 1 + 0.22 * np.round(cut(rng, "soft", n) * 1.5) / 1.5
        value = np.where(on, tint + 0.04 * flakes, value)
        relief = np.where(on, flakes * 0.8, relief)
    value = value + 0.06 * cut(rng, "fine", n, (4, 1))
    return Texture(_tinted(np.clip(value, 0.3, 1.6), tone), relief, 0.0)


def _mat(rng: np.random.Generator, n: int) -> Texture:
    """A cutting mat or a ribbed rubber mat."""
    x, y = _axes(n)
    if chance(rng, 0.5):
        base, line = choose(rng, [(linear(24, 92, 74), 2.6), (linear(32, 60, 100), 2.4), (linear(40, 42, 46), 3.0)])
        pitch = between(rng, 22, 40)
        near = np.minimum(np.abs(x / pitch - np.round(x / pitch)), np.abs(y / pitch - np.round(y / pitch))) * pitch
        value = 1 + line * np.clip(1.1 - near, 0, 1) + 0.05 * cut(rng, "fine", n)
        return Texture(_tinted(value, base), 0.15 * cut(rng, "grain", n), 0.3)
    ribs = np.sin(x * (2 * np.pi / between(rng, 9, 22))) + 0 * y
    dark = between(rng, 0.02, 0.08)
    return Texture(_tinted(1 + 0.15 * cut(rng, "cloud", n), (dark, dark, dark * 1.1)), 1.6 * np.tanh(ribs * 2), 0.6)


_TEXTURES = [
    _wood, _wood, _wood, _concrete, _concrete, _metal, _metal, _cloth, _cloth, _tiles, _noise, _gradient, _gradient,
    _asphalt, _chipboard, _mat,
]  # fmt: skip


def shade_of_edge(share: Floats, width: float) -> Floats:
    """Return the darkening beside the line where two planes meet, from the signed distance to it."""
    return np.asarray(1 - 0.45 * np.exp(-np.clip(share, 0, None) / width), dtype=np.float32)
