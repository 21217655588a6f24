"""What the keepers below a foreign launcher note about its ranks: one file when a rank starts, one when it has ended.

RANK.RESTART.PID.started   where in the rank's log it begins (bytes), when (Unix seconds)
RANK.RESTART.PID.ended     exit status or negative signal number, when
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """One life of one rank."""

    rank: int
    restart: int
    pid: int
    begin: int
    """Where its log begins."""
    exit_code: int | None
    """None while it runs, or when its keeper was killed."""
    started: float
    time: float
    """When it ended, or started."""


def read(folder: Path) -> dict[str, Record]:
    """All lives of all ranks, by the name of their record."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - twenty times a second
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        key, _, kind = name.rpartition(".")
        if kind != "started":
            continue
        rank, restart, pid = (int(part) for part in key.split("."))
        begin, time = (folder / name).read_text(encoding="ascii").split()
        code, when = None, time
        if f"{key}.ended" in names:
            code_text, when = (folder / f"{key}.ended").read_text(encoding="ascii").split()
            code = int(code_text)
        found[key] = Record(rank, restart, pid, int(begin), code, float(time), float(when))
    return found
