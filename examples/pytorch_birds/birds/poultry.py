"""A turkey and a chicken, each drawn anew from a random source; both wear the same plumage colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from birds.pen import Color, Pen, Point, blend, bow, shade

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

# Shared on purpose: neither class can be told from the colour of its body.
PLUMAGES: tuple[Color, ...] = (
    (236, 230, 218),
    (203, 146, 84),
    (142, 84, 48),
    (92, 60, 44),
    (62, 58, 60),
    (138, 134, 132),
    (214, 178, 124),
    (168, 72, 42),
)


@dataclass(frozen=True)
class Plumage:
    """The colours of one bird."""

    body: Color
    wing: Color
    tail: Color
    tip: Color
    legs: Color
    red: Color


def _plumage(rng: random.Random) -> Plumage:
    body = shade(rng.choice(PLUMAGES), rng.uniform(0.85, 1.12))
    tail = blend(body, rng.choice(PLUMAGES), rng.uniform(0.2, 0.9))
    return Plumage(
        body=body,
        wing=shade(body, rng.uniform(0.72, 0.88)),
        tail=shade(tail, rng.uniform(0.75, 1.0)),
        tip=blend(tail, (250, 240, 220), rng.uniform(0.3, 0.8)),
        legs=rng.choice([(226, 164, 60), (196, 124, 92), (120, 104, 96)]),
        red=(rng.randint(190, 225), rng.randint(28, 62), rng.randint(32, 62)),
    )


def _legs(pen: Pen, rng: random.Random, color: Color, top: float) -> None:
    foot = top + rng.uniform(0.26, 0.34)
    for x, tone in ((-0.06, 0.8), (0.1, 1.0)):
        stride = x + rng.uniform(-0.07, 0.07)
        pen.stroke([(x, top), (stride, foot)], shade(color, tone), (0.045, 0.03))
        for toe in (-0.07, 0.05, 0.1):
            pen.stroke([(stride, foot), (stride + toe, foot + 0.035)], shade(color, tone), (0.03, 0.02))


def _wing(pen: Pen, rng: random.Random, colors: Plumage, center: Point, radii: Point) -> None:
    droop = rng.uniform(-0.1, 0.25)
    pen.ellipse(center, radii, colors.wing, tilt=-droop)
    for row in range(3):
        x = center[0] - radii[0] * (0.75 - 0.3 * row)
        y = center[1] + radii[1] * (0.1 + 0.18 * row)
        feather = bow((x, y), (x + 0.12, y + 0.06), (x + 0.26, y - 0.02), 5)
        pen.stroke(feather, shade(colors.wing, 0.8), (0.018, 0.018))


def _face(pen: Pen, head: Point, size: float, beak: Color) -> None:
    x, y = head
    tip = (x + size * 1.75, y + size * 0.3)
    pen.polygon([(x + size * 0.7, y - size * 0.3), tip, (x + size * 0.7, y + size * 0.5)], beak)
    pen.ellipse((x + size * 0.3, y - size * 0.15), (size * 0.27, size * 0.27), (250, 246, 236))
    pen.ellipse((x + size * 0.36, y - size * 0.15), (size * 0.17, size * 0.17), (24, 20, 20))


def draw_turkey(pen: Pen, rng: random.Random) -> None:
    """Draw a turkey: a fan of banded feathers, a long bare bluish neck, a red snood and wattle."""
    colors = _plumage(rng)
    _fan(pen, rng, colors)
    _legs(pen, rng, colors.legs, 0.3)
    pen.ellipse((0.0, 0.06), (rng.uniform(0.38, 0.43), rng.uniform(0.28, 0.33)), colors.body, tilt=-0.15)
    pen.ellipse((0.2, 0.04), (0.2, 0.23), shade(colors.body, 1.08), tilt=0.3)
    _wing(pen, rng, colors, (-0.08, 0.09), (0.28, 0.17))
    skin: Color = (rng.randint(120, 165), rng.randint(150, 190), rng.randint(185, 220))
    head = (rng.uniform(0.4, 0.5), rng.uniform(-0.5, -0.4))
    neck = bow((0.28, -0.02), (0.46, -0.12), head)
    pen.stroke(neck[:5], blend(colors.red, skin, 0.25), (0.17, 0.11))
    pen.stroke(neck[4:], skin, (0.11, 0.09))
    pen.ellipse(head, (0.085, 0.075), skin)
    x, y = head
    wattle = bow((x + 0.03, y + 0.06), (x + 0.07, y + 0.16), (x, y + 0.25), 5)
    pen.stroke(wattle, colors.red, (0.05, 0.075))
    _face(pen, head, 0.08, (222, 190, 120))
    snood = bow((x + 0.07, y - 0.04), (x + 0.17, y - 0.03), (x + 0.14, y + 0.14), 6)
    pen.stroke(snood, shade(colors.red, 1.08), (0.045, 0.035))


def _fan(pen: Pen, rng: random.Random, colors: Plumage) -> None:
    feathers = rng.randint(9, 13)
    root, length = (-0.16, 0.06), rng.uniform(0.5, 0.62)
    first, last = math.radians(rng.uniform(150, 170)), math.radians(rng.uniform(285, 310))
    dark, middle = shade(colors.tail, 0.55), shade(colors.tail, 0.85)
    bands = ((1.0, colors.tip), (0.9, dark), (0.8, colors.tail), (0.5, middle))
    for reach, color in bands:
        for index in range(feathers):
            turn = first + (last - first) * index / (feathers - 1)
            half = length * reach / 2
            center = (root[0] + half * math.cos(turn), root[1] + half * math.sin(turn))
            pen.ellipse(center, (half, 0.085 * (0.55 + 0.45 * reach)), color, tilt=turn)


def draw_chicken(pen: Pen, rng: random.Random) -> None:
    """Draw a chicken: a compact tail, a round body, a feathered neck, a red comb on the head."""
    colors = _plumage(rng)
    _tail(pen, rng, colors)
    _legs(pen, rng, colors.legs, 0.3)
    pen.ellipse((0.0, 0.06), (rng.uniform(0.35, 0.4), rng.uniform(0.29, 0.34)), colors.body, tilt=0.15)
    head = (rng.uniform(0.32, 0.4), rng.uniform(-0.38, -0.28))
    hackle = blend(colors.body, colors.tip, rng.uniform(0.0, 0.6))
    pen.stroke(bow((0.16, 0.0), (0.3, -0.08), head), hackle, (0.36, 0.2))
    _speckles(pen, rng, colors)
    _wing(pen, rng, colors, (-0.06, 0.08), (0.24, 0.15))
    lobes = rng.randint(3, 5)
    for lobe in range(lobes):
        lean = lobe / (lobes - 1) - 0.5
        lift = rng.uniform(0.055, 0.08) * (1.2 - abs(lean))
        root = (head[0] - 0.01 + 0.2 * lean, head[1] - 0.11 + 0.06 * abs(lean))
        pen.ellipse(root, (0.042, lift), colors.red, lean)
    pen.ellipse(head, (0.115, 0.11), hackle)
    pen.ellipse((head[0] + 0.1, head[1] + 0.13), (0.04, rng.uniform(0.06, 0.085)), colors.red)
    _face(pen, head, 0.1, (232, 178, 62))


def _speckles(pen: Pen, rng: random.Random, colors: Plumage) -> None:
    tone = shade(colors.body, rng.choice([0.72, 0.8, 1.15]))
    for row in range(5):
        for column in range(7 - row % 2):
            x, y = -0.27 + 0.09 * (column + 0.5 * (row % 2)), -0.12 + 0.09 * row
            if x * x / 0.1 + (y - 0.06) ** 2 / 0.065 < 1:
                pen.ellipse((x, y), (0.018, 0.026), tone)


def _tail(pen: Pen, rng: random.Random, colors: Plumage) -> None:
    for index in range(rng.randint(4, 6)):
        rise = -0.02 - 0.09 * index
        tip = (-0.56 + 0.05 * index + rng.uniform(-0.03, 0.03), rise + rng.uniform(0.0, 0.06))
        tone = shade(colors.tail, 0.8 + 0.08 * (index % 3))
        pen.stroke(bow((-0.22, 0.05), (-0.42, rise - 0.16), tip, 8), tone, (0.15, 0.05))


BIRDS: dict[str, Callable[[Pen, random.Random], None]] = {"chickens": draw_chicken, "turkeys": draw_turkey}
