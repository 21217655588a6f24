"""A pen that draws in a bird's own coordinates, wherever and however large the bird stands in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]


def shade(color: Color, factor: float) -> Color:
    """Darken (factor below 1) or lighten a colour."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in color)
    return red, green, blue


def blend(first: Color, second: Color, share: float) -> Color:
    """Mix two colours; ``share`` is how much of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def bow(start: Point, middle: Point, end: Point, steps: int = 10) -> list[Point]:
    """Points of the quadratic curve from ``start`` to ``end`` pulled towards ``middle``."""
    curve = []
    for step in range(steps + 1):
        t = step / steps
        first, second, third = (1 - t) ** 2, 2 * t * (1 - t), t * t
        x = first * start[0] + second * middle[0] + third * end[0]
        y = first * start[1] + second * middle[1] + third * end[1]
        curve.append((x, y))
    return curve


@dataclass(frozen=True)
class Pen:
    """Draws shapes given in local units: x to the beak, y down, the body about one unit long."""

    canvas: ImageDraw.ImageDraw
    center: Point
    scale: float
    angle: float
    flip: bool

    def place(self, point: Point) -> Point:
        """Turn a local point into a pixel position."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = point[0] * cos - point[1] * sin, point[0] * sin + point[1] * cos
        x = -x if self.flip else x
        return self.center[0] + self.scale * x, self.center[1] + self.scale * y

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self.canvas.polygon([self.place(point) for point in points], fill=color)

    def ellipse(self, center: Point, radii: Point, color: Color, tilt: float = 0.0) -> None:
        """Fill an ellipse; ``tilt`` turns it clockwise, in radians."""
        cos, sin = math.cos(tilt), math.sin(tilt)
        outline = []
        for step in range(28):
            turn = 2 * math.pi * step / 28
            x, y = radii[0] * math.cos(turn), radii[1] * math.sin(turn)
            outline.append((center[0] + x * cos - y * sin, center[1] + x * sin + y * cos))
        self.polygon(outline, color)

    def stroke(self, points: Sequence[Point], color: Color, widths: Point) -> None:
        """Draw a rounded line whose thickness runs from the first width to the second."""
        dots = [points[0]]
        for before, after in pairwise(points):
            steps = max(1, math.ceil(3 * math.dist(before, after) / min(widths)))
            x_step, y_step = (after[0] - before[0]) / steps, (after[1] - before[1]) / steps
            dots += [(before[0] + x_step * k, before[1] + y_step * k) for k in range(1, steps + 1)]
        for index, dot in enumerate(dots):
            width = widths[0] + (widths[1] - widths[0]) * index / max(1, len(dots) - 1)
            x, y = self.place(dot)
            radius = max(0.7, self.scale * width / 2)
            self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
