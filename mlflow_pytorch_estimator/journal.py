"""The job's own record of its phases: one JSON line per event, appended by whoever works on the job."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_pytorch_estimator.status import Phase


@dataclass(frozen=True)
class Event:
    """A phase begins, or says something more about itself (``message``). ``time`` is Unix seconds."""

    phase: Phase
    time: float
    message: str = ""


def append(path: Path, phase: Phase, message: str = "") -> None:
    """Add an event; one ``write`` of one line, so writers in several processes do not mix."""
    line = json.dumps({"phase": phase.value, "time": round(time.time(), 3), "message": message})
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # A line of its own even if the last writer's was cut short by a full disk.
        os.write(fd, b"\n" + line.encode() + b"\n")
    finally:
        os.close(fd)


def read(path: Path) -> list[Event]:
    """All complete events so far; none is earlier than the one before it, whatever became of the clock meanwhile."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1]
    events: list[Event] = []
    for line in complete.splitlines():
        event = _event(line)
        if event is not None:
            late = bool(events) and event.time < events[-1].time
            events.append(replace(event, time=events[-1].time) if late else event)
    return events


def _event(line: str) -> Event | None:
    try:
        raw = json.loads(line)
        return Event(Phase(raw["phase"]), float(raw["time"]), str(raw["message"]))
    except (ValueError, TypeError, KeyError):
        return None  # blank, or cut short


def timeline(events: Sequence[Event], now: float) -> list[dict[str, object]]:
    """Each phase with its start (Unix seconds) and its length in seconds; the last one lasts until ``now``."""
    starts: list[Event] = []
    for event in events:
        if not starts or starts[-1].phase is not event.phase:
            starts.append(event)
    if not starts:
        return []
    ends = [event.time for event in starts[1:]] + [now]
    return [
        {
            "phase": event.phase.value,
            "start": event.time,
            "seconds": 0.0 if event.phase.terminal else round(max(0.0, end - event.time), 3),
        }
        for event, end in zip(starts, ends, strict=True)
    ]


def duration(seconds: float) -> str:
    """``3.2 s``, ``2 min 5 s``, ``1 h 4 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
