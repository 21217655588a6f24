"""Which files of a job directory come back from a node, and how they are told apart; paths are relative to it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow_pytorch_estimator.jobdir import JobDir

Stamp = tuple[int, int]
"""Size, and time of the last change in microseconds, which every file system keeps."""
_SETTLED_SECONDS = 5.0


def growing(directory: JobDir, *, first: bool) -> list[str]:
    """Logs and records, which are only ever appended to; they come back while the job runs."""
    logs = [path for path in _files(directory.logs) if path.suffix == ".log"]
    if first:
        return _names(directory, [*logs, directory.journal, directory.system_metrics])
    foreign = {directory.agent_log, directory.environment_log}  # they came with the job
    return _names(directory, [path for path in logs if path not in foreign])


def settled(directory: JobDir, *, first: bool) -> Iterator[str]:
    """What comes back whole while the job runs: small records, and checkpoints that nobody writes to any more."""
    if first:
        yield from _names(directory, [directory.attempt_file, directory.agent])
    for name in checkpoints(directory):
        try:
            changed = (directory.path / name).stat().st_mtime
        except FileNotFoundError:
            continue
        if changed < time.time() - _SETTLED_SECONDS:
            yield name


def final(directory: JobDir, *, first: bool) -> Iterator[str]:
    """What comes back whole at the end."""
    if first:
        yield from _names(directory, [directory.attempt_file, directory.agent])
    for folder in (directory.outputs, directory.workdir / "logs"):
        yield from _names(directory, _files(folder))
    yield from checkpoints(directory)


def checkpoints(directory: JobDir) -> list[str]:
    """The checkpoints that are there, half-written ones included."""
    return _names(directory, _files(directory.checkpoints))


def outcome(directory: JobDir) -> str | None:
    """The final word, as it is written."""
    return directory.outcome_text()


def stamp(path: Path) -> Stamp:
    """What a file is now."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns // 1000


def ticket(name: str, of: Stamp) -> str:
    """A name for a file that is half fetched."""
    return hashlib.sha256(f"{name}\0{of[0]}\0{of[1]}".encode("utf-8", "surrogateescape")).hexdigest()


def _files(folder: Path) -> list[Path]:
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.is_file())


def _names(directory: JobDir, paths: list[Path]) -> list[str]:
    return [str(path.relative_to(directory.path)) for path in paths if path.is_file()]
