"""What things are made of: colour, roughness, grain and small bumps, given by the place on the part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from maskwright.demo.noise import Floats, sample

T = TypeVar("T")
Colour = tuple[float, float, float]
Pattern = Callable[[Floats, Floats], Floats]
"""From places `(N,)` on the part (in its unit) to a factor on the colour, `(N,)` or `(3, N)`."""
Bumps = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""From places to slopes along u and v, each `(N,)`."""


@dataclass(frozen=True)
class Material:
    """How a surface answers light.

    Args:
        colour: Linear RGB, 0..1.
        rough: 0 is a mirror, 1 is chalk.
        metal: 1 where light is reflected in the material's own colour and nothing is scattered.
        shine: Strength of the highlight, 0..1.
        pattern: What varies the colour.
        bumps: What varies the surface.
    """

    colour: Colour
    rough: float = 0.6
    metal: float = 0.0
    shine: float = 0.5
    pattern: Pattern | None = None
    bumps: Bumps | None = None


def linear(*srgb: float) -> Colour:
    """Turn a colour as seen (sRGB, 0..255) into linear 0..1."""
    r, g, b = (float((value / 255) ** 2.2) for value in srgb)
    return (r, g, b)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number."""
    return float(rng.uniform(low, high))


def choose(rng: np.random.Generator, options: list[T] | tuple[T, ...]) -> T:
    """Draw one of several."""
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, share: float) -> bool:
    """Draw yes or no."""
    return bool(rng.random() < share)


_PAINTS = (
    (178, 28, 30), (214, 62, 32), (236, 120, 26), (240, 188, 32), (52, 112, 58), (30, 78, 140),
    (24, 44, 92), (30, 130, 150), (36, 36, 38), (92, 96, 100), (212, 212, 206), (120, 40, 90),
)  # fmt: skip


def paint(rng: np.random.Generator) -> Colour:
    """Draw a colour that tools are sold in."""
    r, g, b = choose(rng, _PAINTS)
    factor = between(rng, 0.8, 1.1)
    return linear(min(r * factor, 250), min(g * factor, 250), min(b * factor, 250))


def steel(rng: np.random.Generator, rough: float | None = None) -> Material:
    """Forged or ground steel, from polished to dull, some with rust and wear."""
    rough = between(rng, 0.15, 0.7) if rough is None else rough
    grey = between(rng, 0.42, 0.68)
    warm = between(rng, -0.02, 0.04)
    a, b = between(rng, 0, 900), between(rng, 0, 900)
    rust = between(rng, 0.3, 1.2) if chance(rng, 0.25) else 0.0
    across = chance(rng, 0.5)

    def pattern(u: Floats, v: Floats) -> Floats:
        streak = sample("fine", u * (0.25 if across else 6) + a, v * (6 if across else 0.25) + b)
        wear = sample("cloud", u * 3 + b, v * 3 + a)
        value = 1 + 0.07 * streak + 0.10 * wear
        if not rust:
            return value
        share = np.clip((wear - 0.8) * rust, 0, 0.8)
        stain = np.array([[0.55], [0.30], [0.16]], dtype=np.float32)
        mixed: Floats = value * (1 - share) + stain * share
        return mixed

    def bumps(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        dent = 0.05 * sample("soft", u * 14 + a, v * 14 + b)
        return dent + 0.02 * sample("white", u * 5 + b, v * 5 + a), 0.05 * sample("soft", v * 14 + b, u * 14 + a)

    return Material((grey + warm, grey, grey - warm), rough, 1.0, 0.8, pattern, bumps)


def black_steel(rng: np.random.Generator) -> Material:
    """Oxidised or lacquered steel."""
    base = steel(rng, between(rng, 0.35, 0.7))
    grey = between(rng, 0.05, 0.14)
    return Material((grey, grey, grey * 1.05), base.rough, 0.6, 0.8, base.pattern, base.bumps)


def chrome(rng: np.random.Generator) -> Material:
    """Polished plating."""
    grey = between(rng, 0.62, 0.8)
    return Material((grey, grey, grey * 1.02), between(rng, 0.02, 0.2), 1.0, 1.0)


def brass(rng: np.random.Generator) -> Material:
    """Brass or copper."""
    return Material(choose(rng, [(0.7, 0.47, 0.17), (0.68, 0.36, 0.22)]), between(rng, 0.15, 0.5), 1.0, 0.8)


def painted(rng: np.random.Generator, colour: Colour | None = None) -> Material:
    """Enamel, scratched here and there."""
    a, b = between(rng, 0, 900), between(rng, 0, 900)
    wear = between(rng, 1.2, 3.5)

    def pattern(u: Floats, v: Floats) -> Floats:
        return 1 + 0.06 * sample("fine", u * 4 + a, v * 4 + b) + 0.5 * (sample("cloud", u * 5 + b, v * 5 + a) > wear)

    return Material(colour or paint(rng), between(rng, 0.15, 0.5), 0.0, between(rng, 0.4, 1.0), pattern)


def plastic(rng: np.random.Generator, colour: Colour | None = None) -> Material:
    """Moulded plastic, with a fine grain."""
    a = between(rng, 0, 900)
    strength = between(rng, 0.0, 0.06)

    def bumps(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        return strength * sample("white", u * 9 + a, v * 9), strength * sample("white", u * 9, v * 9 + a)

    return Material(colour or paint(rng), between(rng, 0.2, 0.6), 0.0, between(rng, 0.3, 0.8), None, bumps)


def rubber(rng: np.random.Generator, colour: Colour | None = None, ribs: float = 0.0, kind: int = 0) -> Material:
    """Soft grip: matt, with ribs of a spacing in units, across (0), crossed (1) or slanted (2)."""
    if colour is None:
        dark = between(rng, 0.012, 0.05)
        colour = (dark, dark, dark * between(rng, 0.95, 1.2))
    a, dust = between(rng, 0, 900), between(rng, 0.05, 0.25)
    turn = 2 * np.pi / ribs if ribs else 0.0

    def pattern(u: Floats, v: Floats) -> Floats:
        value = 1 + dust * sample("cloud", u * 4 + a, v * 4)
        if turn:
            value = value * (0.82 + 0.18 * _ridge(u, v)[0])
        return value

    def _ridge(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        phase = turn * (u if kind == 0 else u + v * (1.0 if kind == 2 else 0.0))
        if kind == 1:
            return np.sin(turn * u) * np.sin(turn * v), np.cos(turn * u) * np.sin(turn * v)
        return np.sin(phase), np.cos(phase)

    def bumps(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        rise = 0.45 * _ridge(u, v)[1]
        return rise, rise if kind == 2 else np.zeros_like(rise)

    return Material(colour, between(rng, 0.5, 0.85), 0.0, between(rng, 0.15, 0.5), pattern, bumps if turn else None)


def wood(rng: np.random.Generator, tone: Colour | None = None) -> Material:
    """Turned wood with its grain along u, oiled or lacquered, worn darker where hands hold it."""
    tone = tone or linear(*choose(rng, _WOODS))
    a, b = between(rng, 0, 900), between(rng, 0, 900)
    rings, wave = between(rng, 0.25, 0.7), between(rng, 0.7, 2.0)
    strength, dirt = between(rng, 0.15, 0.45), between(rng, 0.03, 0.2)
    pores = between(rng, 0.04, 0.14)

    def pattern(u: Floats, v: Floats) -> Floats:
        phase = v * rings + wave * sample("cloud", u * 1.3 + a, v * 5 + b)
        saw = phase - np.floor(phase)
        ring = saw * saw * (3 - 2 * saw) - 0.5
        fibre = sample("fine", u * 0.6 + b, v * 14 + a)
        value = 1 - strength * ring + pores * fibre + dirt * sample("cloud", u * 4 + b, v * 4)
        value = np.clip(value, 0.25, 1.6)
        # Late wood is redder than early wood, not only darker.
        return np.stack([value, value**1.25, value**1.5])

    def bumps(u: Floats, v: Floats) -> tuple[Floats, Floats]:
        return np.zeros_like(u), 0.06 * sample("fine", u * 0.6 + b, v * 14 + a)

    return Material(tone, between(rng, 0.3, 0.7), 0.0, between(rng, 0.2, 0.7), pattern, bumps)


_WOODS = ((222, 184, 130), (208, 160, 102), (190, 140, 88), (160, 108, 64), (228, 200, 156), (128, 80, 48))


def banded(base: Material, bands: list[tuple[float, float, Colour]]) -> Material:
    """Paint bands `(from u, to u, colour)` over a material: a dipped end, a ring, a label."""

    def pattern(u: Floats, v: Floats) -> Floats:
        value = base.pattern(u, v) if base.pattern else np.ones_like(u)
        value = np.array(np.broadcast_to(value, (3, u.size)))
        for start, end, colour in bands:
            inside = (u >= start) & (u < end)
            rate = np.array(colour, dtype=np.float32) / np.maximum(np.array(base.colour, dtype=np.float32), 1e-3)
            value[:, inside] = rate[:, None] * (0.9 + 0.1 * value[:, inside])
        return value

    return Material(base.colour, base.rough, base.metal, base.shine, pattern, base.bumps)


def labelled(rng: np.random.Generator, base: Material, place: tuple[float, float, float, float]) -> Material:
    """Stick a printed label over a material, inside `u1 v1 u2 v2`; its lines look like small print."""
    u1, v1, u2, v2 = place
    ground, ink = choose(rng, [((0.8, 0.8, 0.78), paint(rng)), (paint(rng), (0.85, 0.85, 0.8))])
    a = between(rng, 0, 900)

    def pattern(u: Floats, v: Floats) -> Floats:
        value = base.pattern(u, v) if base.pattern else np.ones_like(u)
        value = np.array(np.broadcast_to(value, (3, u.size)))
        inside = (u > u1) & (u < u2) & (v > v1) & (v < v2)
        x, y = (u[inside] - u1) / (u2 - u1), (v[inside] - v1) / (v2 - v1)
        lines = (np.abs(((y * 3) % 1) - 0.5) < 0.28) & (x > 0.08) & (x < 0.92)
        printed = lines & (sample("grain", x * 60 + a, np.floor(y * 3) * 40 + a) > 0.0)
        rate = np.where(printed, np.array(ink, np.float32)[:, None], np.array(ground, np.float32)[:, None])
        value[:, inside] = rate / np.maximum(np.array(base.colour, dtype=np.float32), 1e-3)[:, None]
        return value

    return Material(base.colour, base.rough, base.metal, base.shine, pattern, base.bumps)
