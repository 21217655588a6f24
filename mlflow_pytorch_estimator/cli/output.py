"""What commands print: JSON, tables, times."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
COLOURS = {"Completed": "green", "Failed": "red", "Canceled": "yellow", "Running": "cyan"}
_GAP = "  "


def json_option(command: Command) -> Command:
    """The option ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON; times are Unix seconds.")(command)


def print_json(value: object) -> None:
    """One JSON value; numbers that JSON has no words for are text, as in MLflow's own answers: NaN, Infinity."""
    click.echo(json.dumps(_finite(value), indent=1, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def coloured(phase: str) -> str:
    """The name of a phase; ``click.echo`` takes the colour away where no terminal is."""
    return click.style(phase, fg=COLOURS.get(phase))


def clock(seconds: float | None) -> str:
    """A time in the local zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def width_of(rows: Sequence[Sequence[str]]) -> int:
    """What a table takes for all columns but the last, with the gap before that."""
    columns = list(zip(*rows, strict=True))[:-1]
    return sum(max(len(click.unstyle(cell)) for cell in column) + len(_GAP) for column in columns)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines of a table. ``width`` is that of a terminal: the last column is cut there; None cuts nothing."""
    widths = [max(len(click.unstyle(row[column])) for row in [titles, *rows]) for column in range(len(titles))]
    lines = []
    for row in [titles, *rows]:
        cells = [cell + " " * (wide - len(click.unstyle(cell))) for cell, wide in zip(row, widths, strict=True)]
        left = _GAP.join(cells[:-1])
        last = row[-1]
        if width is not None:
            room = max(8, width - len(click.unstyle(left)) - len(_GAP))
            last = last if len(last) <= room else f"{last[: room - 1]}…"
        lines.append(f"{left}{_GAP}{last}".rstrip())
    return lines
