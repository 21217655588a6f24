"""Processes that were written down, so that another process can find them without mistaking a reused pid."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlflow_pytorch_estimator.files import read_json, write_atomic


def environment() -> dict[str, str]:
    """A copy of this process's variables, whatever its threads change meanwhile: those of MLflow's telemetry do."""
    found = ((name, os.environ.get(name)) for name in list(os.environ))
    return {name: value for name, value in found if value is not None}


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def record(path: Path) -> None:
    """Write down this process."""
    write_atomic(path, json.dumps({"pid": os.getpid(), "start_time": start_time(os.getpid())}))


def kill_recorded(path: Path, number: int) -> bool:
    """Signal the process that was written down; False when it has gone."""
    raw = read_json(path)
    if raw is None or start_time(raw["pid"]) != raw["start_time"]:
        return False
    try:
        os.kill(raw["pid"], number)
    except ProcessLookupError:
        return False
    return True
