"""The cache on disk: ``<key>/`` is an environment, ready when it holds a marker; ``<key>.lock`` guards it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import BuildCancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARKER = "environment.json"
_POLL_SECONDS = 0.1


def interpreter(folder: Path) -> Path:
    """Return where the interpreter of an environment lies."""
    return folder / "bin" / "python"


def load(folder: Path) -> dict[str, object] | None:
    """Return the marker of a complete and undamaged environment; None for anything less."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    usable = os.access(interpreter(folder), os.X_OK)  # follows the link: the base may have been removed
    return marker if usable and isinstance(marker, dict) else None


def store(folder: Path, marker: dict[str, object]) -> None:
    """Declare the environment complete."""
    temporary = folder / f"{MARKER}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(marker, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MARKER)


def remove(folder: Path) -> None:
    """Remove an environment; its marker first, so that no half of one ever looks complete."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (folder / MARKER).unlink()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextlib.contextmanager
def locked(folder: Path, cancelled: Callable[[], bool], say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of an environment, after whoever builds it has ended; yields the lock's descriptor."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        waiting = False
        while not _try_lock(descriptor):
            if not waiting:
                say(f"waiting for another job that builds environment {folder.name}")
                waiting = True
            if cancelled():
                raise BuildCancelled("the environment was not built: cancelled while another job was building it")
            time.sleep(_POLL_SECONDS)
        yield descriptor
        # The descriptor is shared with what uv started: unlock for all of it, now that its work is done.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
