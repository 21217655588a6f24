"""Whether the kernel has killed for want of memory: its own counters, read before and after."""

from __future__ import annotations

import re
from pathlib import Path

_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed so far for want of memory, in our cgroup or on the whole machine.

    Sources: ``memory.events`` (cgroup v2), ``memory.oom_control`` (v1), ``/proc/vmstat`` (machine, since Linux 4.13).
    """
    return next((found for path in _files(root) if (found := _count(path)) is not None), 0)


def _files(root: Path) -> list[Path]:
    files = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files.append(root / f"sys/fs/cgroup{path}" / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(root / f"sys/fs/cgroup/memory{path}" / "memory.oom_control")
    return [*files, root / "proc/vmstat"]


def _count(path: Path) -> int | None:
    try:
        found = _KILLS.search(path.read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None
