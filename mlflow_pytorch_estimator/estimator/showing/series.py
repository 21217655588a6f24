"""The values of a metric as they are drawn: few, in order, with their places on the horizontal axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_POINTS = 320
"""More do not show on the width of a chart; an MLflow server gives no more either."""


@dataclass(frozen=True, order=True)
class Point:
    """One value. ``time`` is Unix seconds."""

    step: int
    time: float
    value: float


@dataclass(frozen=True)
class Series:
    """A metric with some of its values, by step."""

    name: str
    points: tuple[Point, ...]

    @property
    def by_step(self) -> bool:
        """Whether steps tell the values apart; else time does."""
        return len({point.step for point in self.points}) > 1

    def places(self) -> list[tuple[float, float]]:
        """Horizontal place (step, or seconds since the first value) and value of each point."""
        if self.by_step:
            return [(float(point.step), point.value) for point in self.points]
        first = min((point.time for point in self.points), default=0.0)
        return sorted((point.time - first, point.value) for point in self.points)


def of_points(name: str, points: Iterable[Point]) -> Series:
    """A metric with at most ``MOST_POINTS`` of these values."""
    return Series(name, tuple(thinned(sorted(points), MOST_POINTS)))


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most ``most`` (4 or more) of the points: the first, the last, and the lowest and highest of equal shares."""
    if len(points) <= most:
        return list(points)
    shares = max(1, (most - 2) // 2)
    inner, chosen = len(points) - 2, {0, len(points) - 1}
    for share in range(shares):
        places = range(1 + share * inner // shares, 1 + (share + 1) * inner // shares)
        finite = [place for place in places if math.isfinite(points[place].value)] or list(places)
        chosen |= {min(finite, key=lambda place: points[place].value), max(finite, key=lambda p: points[p].value)}
    return [points[place] for place in sorted(chosen)]
