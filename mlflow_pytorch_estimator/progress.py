"""How far one piece of work of a job has come, in the job directory, for whoever looks: an environment, an upload."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.files import read_json, write_atomic

_INTERVAL_SECONDS = 0.2
_UNITS = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_DOWNLOAD = re.compile(r"\s*Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
_DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` bytes of what ``what`` says."""

    what: str
    done: int
    total: int


class ProgressFile:
    """Keeps the newest progress in a file; a file that cannot be written is no reason to stop the work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0

    def __call__(self, progress: Progress) -> None:
        """Keep it, five times a second at most; the last one always."""
        now = time.monotonic()
        if now - self._written < _INTERVAL_SECONDS and progress.done < progress.total:
            return
        self._written = now
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps(asdict(progress)))

    def clear(self) -> None:
        """The work is done."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class Meter:
    """Adds up what several threads have done of one piece of work."""

    def __init__(self, tell: Callable[[Progress], None], what: str, total: int) -> None:
        self._tell = tell
        self._what = what
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        with self._lock:
            self._done += count
            self._tell(Progress(self._what, self._done, self._total))


def read(path: Path) -> Progress | None:
    """The newest progress; None where no work is measured."""
    raw: Any = read_json(path)
    try:
        return Progress(str(raw["what"]), int(raw["done"]), int(raw["total"])) if raw else None
    except (TypeError, KeyError, ValueError):
        return None


class Downloads:
    """Adds up what uv says about packages that it downloads; the small ones it does not mention."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._sizes: dict[str, int] = {}
        self._done = 0

    def note(self, line: str) -> None:
        """Take one line of uv's."""
        if begun := _DOWNLOAD.match(line):
            self._sizes[begun[1]] = round(float(begun[2]) * _UNITS[begun[3]])
        elif ended := _DOWNLOADED.match(line):
            self._done += self._sizes.get(ended[1], 0)
        else:
            return
        self._tell(Progress("downloading", self._done, sum(self._sizes.values())))
