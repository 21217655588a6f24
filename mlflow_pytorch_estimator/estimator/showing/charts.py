"""Metrics as small line charts in SVG. They take the colour of the text around them, on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from mlflow_pytorch_estimator.estimator.showing.series import Series

WIDTH, HEIGHT = 300, 124
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 6, 8, 20
_LINE = "#3d8bd4"
_LARGEST = 1e300  # differences of larger numbers are no numbers
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,300px);gap:10px 18px;text-align:left"
_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


def grid(series: Iterable[Series]) -> str:
    """The charts side by side, as many in a row as there is room for."""
    panels = "".join(map(panel, series))
    return f'<div class="gpu-cluster-charts" style="{_GRID}">{panels}</div>' if panels else ""


def panel(series: Series) -> str:
    """One chart under its name and its last value."""
    name = escape(series.name)
    places = series.places()
    last = number(places[-1][1]) if places else ""
    head = (
        '<div style="display:flex;justify-content:space-between;gap:8px;font-size:12px;line-height:18px">'
        f'<span style="{_NAME}" title="{name}">{name}</span><strong>{last}</strong></div>'
    )
    return f'<div style="width:{WIDTH}px">{head}{_drawn(series, places)}</div>'


def number(value: float) -> str:
    """A value as it is shown."""
    whole = abs(value) < 1e10 and value == round(value)
    return f"{value:.0f}" if whole else f"{value:.6g}"


def _drawn(series: Series, places: Sequence[tuple[float, float]]) -> str:
    finite = [(x, _within(y)) for x, y in places if math.isfinite(y)]
    body = _plot(series, places, finite) if finite else _words("no finite value yet", WIDTH / 2, HEIGHT / 2, "middle")
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="display:block"'
        f' font-size="10" font-family="sans-serif" fill="none"><title>{escape(_said(series, finite))}</title>'
        f"{body}</svg>"
    )


def _said(series: Series, finite: Sequence[tuple[float, float]]) -> str:
    values = [value for _, value in finite]
    return f"{series.name}: from {number(min(values))} to {number(max(values))}" if values else series.name


def _plot(series: Series, places: Sequence[tuple[float, float]], finite: Sequence[tuple[float, float]]) -> str:
    rows = ticks(min(y for _, y in finite), max(y for _, y in finite))
    low, high = rows[0], rows[-1]
    left, right = min(x for x, _ in places), max(x for x, _ in places)

    def across(x: float) -> float:
        inner = WIDTH - _LEFT - _RIGHT
        return _LEFT + (inner * (x - left) / (right - left) if right > left else inner / 2)

    def down(y: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - y) / (high - low)

    parts = [_row(down(row), _label(row, rows)) for row in rows]
    unit = "" if series.by_step else " s"
    parts.append(_words(f"{left:.6g}{unit}", across(left), HEIGHT - 5, "start" if right > left else "middle"))
    if right > left:
        parts.append(_words(f"{right:.6g}{unit}", WIDTH - _RIGHT, HEIGHT - 5, "end"))
        parts.append(_words("step" if series.by_step else "time", (WIDTH + _LEFT) / 2, HEIGHT - 5, "middle"))
    parts += [_line([(across(x), down(_within(y))) for x, y in stretch]) for stretch in _stretches(places)]
    return "".join(parts)


def _stretches(places: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The line in pieces: it is broken where a value is not finite."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in places:
        if math.isfinite(y):
            found[-1].append((x, y))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _line(dots: Sequence[tuple[float, float]]) -> str:
    if len(dots) == 1:
        return f'<circle cx="{dots[0][0]:.1f}" cy="{dots[0][1]:.1f}" r="2.5" fill="{_LINE}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    return f'<polyline points="{path}" stroke="{_LINE}" stroke-width="1.5" stroke-linejoin="round"/>'


def _row(y: float, label: str) -> str:
    line = f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity="0.18"/>'
    return line + _words(label, _LEFT - 5, y + 3.5, "end")


def _words(text: str, x: float, y: float, anchor: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {at} fill="currentColor" opacity="0.75">{escape(text)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers of which the first and the last enclose both."""
    if high - low <= abs(high) * 1e-12:
        margin = abs(high) * 0.5 or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    return [place * unit for place in range(first, last + 1)]


def _label(value: float, rows: Sequence[float]) -> str:
    unit, largest = rows[1] - rows[0], max(map(abs, rows))
    if unit >= 1e-4 and largest < (1e4 if unit < 1 else 1e7):
        return f"{value:.{max(0, -math.floor(math.log10(unit) + 1e-9))}f}"
    digits = min(4, max(0, math.ceil(math.log10(largest / unit) - 1e-9)))
    return f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e") if value else "0"


def _within(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, value))
