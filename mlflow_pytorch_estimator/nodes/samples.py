"""System metrics of all nodes on their way to the run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsFile:
    """One JSON line for each sample; the first node's agent writes, whoever has the run in hand reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, node: str, when: float, values: Mapping[str, float]) -> None:
        """Add a sample; a full disk costs no more than that."""
        line = json.dumps({"node": node, "time": round(when, 3), "values": dict(values)})
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, f"{line}\n".encode())
            finally:
                os.close(fd)
        except OSError:
            return

    def read(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The samples since an offset, and the next offset."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(offset)
                data = handle.read()
        except FileNotFoundError:
            return [], offset
        end = data.rfind(b"\n") + 1
        return [json.loads(line) for line in data[:end].splitlines()], offset + end
