"""The picture of a job's way: its phases, and below them each rank from its start to its end. SVG, without scripts."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator.jobdir import Outcome
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.status import Phase

_COLOURS = {
    Phase.PREPARING: "#8793a6",
    Phase.QUEUED: "#e0b03c",
    Phase.SCALING: "#dd8a3e",
    Phase.RUNNING: "#2f7fc1",
    Phase.FINALIZING: "#7a63b8",
}
_WELL, _GUILTY, _DRAWN_IN, _ENDED = "#4c9f62", "#cf3c34", "#e39a95", "#a9a9a9"
_WIDTH, _LEFT, _RIGHT = 760.0, 110.0, 130.0  # what fits beside the side bars of MLflow
_LANE, _BAR, _TOP = 24.0, 16.0, 34.0
_MOST_LANES = 32
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_TICKS = 8
_LETTER = 6.6  # width of one, about, at 12 px


@dataclass(frozen=True)
class _Bar:
    begin: float
    end: float
    colour: str
    words: str = ""
    """Stand inside where there is room."""
    title: str = ""


@dataclass(frozen=True)
class _Lane:
    name: str
    bars: Sequence[_Bar]
    remark: str = ""


def svg(events: Sequence[journal.Event], outcome: Outcome | None, now: float) -> str:
    """The picture at the time ``now``, Unix seconds; an empty text where nothing has happened yet."""
    if not events:
        return ""
    end = max(outcome.time if outcome else now, *(event.time for event in events))
    lanes = [_phases(events, end), *_ranks(outcome)]
    begin = min(events[0].time, *(bar.begin for lane in lanes for bar in lane.bars))
    return _drawn(lanes, begin, max(end - begin, 0.05), _left_out(outcome))


def _phases(events: Sequence[journal.Event], end: float) -> _Lane:
    bars = []
    for entry in journal.timeline(events, end):
        phase, start, seconds = Phase(entry["phase"]), float(str(entry["start"])), float(str(entry["seconds"]))
        if phase in _COLOURS:
            title = f"{phase} {duration(seconds)}"
            bars.append(_Bar(start, start + seconds, _COLOURS[phase], title, title))
    return _Lane("phases", bars)


def _ranks(outcome: Outcome | None) -> list[_Lane]:
    """One lane for each rank, with a bar for each of its lives; those that failed first, where there are too many."""
    if outcome is None or not outcome.ranks:
        return []
    lives: dict[int, list[dict[str, Any]]] = {}
    for life in outcome.ranks:
        lives.setdefault(life["rank"], []).append(life)
    guilty = (outcome.failure or {}).get("rank")
    ordered = sorted(lives, key=lambda rank: (rank != guilty, not _failed(lives[rank]), rank))
    return [_rank(rank, lives[rank], outcome, guilty) for rank in sorted(ordered[:_MOST_LANES])]


def _failed(lives: Sequence[dict[str, Any]]) -> bool:
    return any(life["exit_code"] for life in lives)


def _rank(rank: int, lives: Sequence[dict[str, Any]], outcome: Outcome, guilty: int | None) -> _Lane:
    last = lives[-1]
    bars = [
        _Bar(
            life["start"],
            life["end"],
            _colour(life, outcome, guilty=rank == guilty and life is last),
            title=f"rank {rank} on {life['node']}, attempt {life['attempt']}: {_ended(life['exit_code'])} "
            f"after {duration(max(0.0, life['end'] - life['start']))}",
        )
        for life in lives
    ]
    remark = _ended(last["exit_code"]) if last["exit_code"] else ""
    return _Lane(f"rank {rank}", bars, remark)


def _colour(life: dict[str, Any], outcome: Outcome, *, guilty: bool) -> str:
    if life["exit_code"] == 0:
        return _WELL
    if outcome.phase is Phase.CANCELED:
        return _ENDED
    return _GUILTY if guilty else _DRAWN_IN


def _ended(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"exit status {code}"


def _left_out(outcome: Outcome | None) -> str:
    number = len({life["rank"] for life in outcome.ranks}) if outcome and outcome.ranks else 0
    return f"and {number - _MOST_LANES} more ranks" if number > _MOST_LANES else ""


def _drawn(lanes: Sequence[_Lane], begin: float, seconds: float, more: str) -> str:
    height = _TOP + _LANE * (len(lanes) + bool(more)) + 8
    size = f'width="{_WIDTH:g}" height="{height:g}" viewBox="0 0 {_WIDTH:g} {height:g}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH:g}" height="{height:g}" fill="white"/>',
    ]
    scale = (_WIDTH - _LEFT - _RIGHT) / seconds
    for tick in _ticks(seconds):
        x = _LEFT + tick * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6:g}" y2="{height - 8:g}" stroke="#e4e4e4"/>')
        parts.append(_text(x, _TOP - 12, _tick_words(tick), "#666", anchor="middle"))
    for number, lane in enumerate(lanes):
        parts += _lane(lane, _TOP + number * _LANE, begin, scale)
    if more:
        parts.append(_text(_LEFT, _TOP + len(lanes) * _LANE + 13, more, "#666"))
    return "\n".join([*parts, "</svg>\n"])


def _lane(lane: _Lane, y: float, begin: float, scale: float) -> list[str]:
    parts = [_text(_LEFT - 10, y + 13, lane.name, "#333", anchor="end")]
    x = _LEFT
    for bar in lane.bars:
        x, width = _LEFT + (bar.begin - begin) * scale, max(1.0, (bar.end - bar.begin) * scale)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_BAR:g}" fill="{bar.colour}">'
            f"<title>{escape(bar.title)}</title></rect>"
        )
        if bar.words and width > len(bar.words) * _LETTER + 8:
            parts.append(_text(x + 5, y + 12, bar.words, "white"))
        x += width
    if lane.remark:
        parts.append(_text(x + 6, y + 12, lane.remark, "#333"))
    return parts


def _text(x: float, y: float, words: str, colour: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'


def _ticks(seconds: float) -> list[float]:
    step = next((step for step in _TICKS if seconds / step <= _MOST_TICKS), seconds / _MOST_TICKS)
    return [number * step for number in range(int(seconds / step + 1e-9) + 1)]


def _tick_words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    unit, name = (60, "min") if seconds < 7200 else (3600, "h")
    whole, rest = divmod(round(seconds), unit)
    return f"{whole}:{rest * 60 // unit:02d} {name}" if rest else f"{whole} {name}"
