"""Eight categories that the built-in scenes are made of, each a shape and a texture together.

Coordinates (u, v) of an object have their origin in its centre and its radius as unit length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["CATEGORIES", "Category"]

Field = Float[np.ndarray, "H W"]


@dataclass(frozen=True)
class Category:
    """A shape and a texture that go together.

    Attributes:
        name: Name of the category.
        distance: Signed distance to the outline at (u, v), positive inside; a third argument in
            [0, 1) chooses among the variations of the shape.
        texture: Share of the second colour, in [0, 1], at (u, v) for an angular frequency.
        cycles: Periods of the texture across the object.
    """

    name: str
    distance: Callable[[Field, Field, float], Field]
    texture: Callable[[Field, Field, float], Field]
    cycles: float


def _soft(wave: Field) -> Field:
    """A wave in [-1, 1] as a share in [0, 1], with flat tops and soft flanks."""
    return np.asarray(np.clip(0.5 + 1.2 * wave, 0, 1))


def _square(u: Field, v: Field, variation: float) -> Field:
    aspect = 0.75 + 0.25 * variation
    du, dv = np.abs(u) - 0.6, np.abs(v) - 0.6 * aspect
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return np.asarray(0.14 - outside - np.minimum(np.maximum(du, dv), 0))


def _star(u: Field, v: Field, variation: float) -> Field:
    points = 5 + int(2 * variation)
    sector = np.pi / points
    angle = np.abs((np.arctan2(v, u) + sector) % (2 * sector) - sector)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    tip, notch = 1.0, 0.55
    edge = np.array([notch * np.cos(sector) - tip, notch * np.sin(sector)])
    edge /= np.hypot(*edge)
    return np.asarray(edge[0] * y - edge[1] * (x - tip))


def _triangle(u: Field, v: Field, variation: float) -> Field:
    width = 0.65 + 0.2 * variation
    flank = np.hypot(1.6, width)
    sides = (1.6 * np.abs(v) + width * (u - 0.9)) / flank
    return np.asarray(0.06 - np.maximum(sides, -0.64 - u))


def _ellipse(u: Field, v: Field, variation: float) -> Field:
    aspect = 0.6 + 0.15 * variation
    return np.asarray((1 - np.hypot(u, v / aspect)) * aspect)


def _cross(u: Field, v: Field, variation: float) -> Field:
    arm = 0.28 + 0.1 * variation
    u, v = np.abs(u), np.abs(v)
    return np.asarray(np.minimum(arm - np.minimum(u, v), 0.92 - np.maximum(u, v)))


def _moon(u: Field, v: Field, variation: float) -> Field:
    bite = 0.5 + 0.1 * variation
    return np.asarray(np.minimum(1 - np.hypot(u, v), np.hypot(u - bite, v) - 0.68))


def _flower(u: Field, v: Field, variation: float) -> Field:
    petals = 5 + int(3 * variation)
    outline = 0.82 + 0.17 * np.cos(petals * np.arctan2(v, u))
    return np.asarray(0.95 * (outline - np.hypot(u, v)))


def _zigzag(u: Field, v: Field, frequency: float) -> Field:
    triangle_wave = np.arcsin(np.sin(frequency * v)) * (2 / np.pi)
    return _soft(np.sin(frequency * u + 1.8 * triangle_wave))


def _honeycomb(u: Field, v: Field, frequency: float) -> Field:
    half, height = u / 2, v * (3**0.5 / 2)
    waves: Field = np.cos(frequency * u)
    waves = waves + np.cos(frequency * (height - half)) + np.cos(frequency * (height + half))
    return _soft(0.5 * waves + 0.3)


CATEGORIES = (
    Category(
        "striped ball",
        lambda u, v, _: 0.9 - np.hypot(u, v),
        lambda u, _, frequency: _soft(np.sin(frequency * u)),
        cycles=5.0,
    ),
    Category(
        "checkered block",
        _square,
        lambda u, v, frequency: _soft(2 * np.sin(frequency * u) * np.sin(frequency * v)),
        cycles=3.0,
    ),
    Category(
        "dotted star",
        _star,
        lambda u, v, frequency: _soft(np.cos(frequency * u) + np.cos(frequency * v) - 0.6),
        cycles=5.5,
    ),
    Category("zigzag pennant", _triangle, _zigzag, cycles=5.0),
    Category("honeycomb shell", _ellipse, _honeycomb, cycles=4.5),
    Category(
        "tartan cross",
        _cross,
        lambda u, v, frequency: (_soft(np.sin(frequency * u)) + _soft(np.sin(frequency * v))) / 2,
        cycles=5.0,
    ),
    Category(
        "ringed moon",
        _moon,
        lambda u, v, frequency: _soft(np.sin(frequency * np.hypot(u, v))),
        cycles=6.0,
    ),
    Category(
        "spoked flower",
        _flower,
        lambda u, v, frequency: _soft(np.sin(round(frequency) * np.arctan2(v, u))),
        cycles=4.0,
    ),
)
