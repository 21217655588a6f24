"""The cache on disk: ``<key>/`` is an environment, ready when it holds a marker; ``<key>.lock`` guards it.

``<key>.used`` was touched when a job last wanted it, ``<key>.jobs/`` names the jobs that have it (``leases``).
``tend`` removes all of these.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.integrity import inventory
from mlflow_pytorch_estimator.environments.runner import BuildCancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARKER = "environment.json"
_DAMAGE = "damage"
_POLL_SECONDS = 0.1


def interpreter(folder: Path) -> Path:
    """Return where the interpreter of an environment lies."""
    return folder / "bin" / "python"


def load(folder: Path) -> dict[str, object] | None:
    """Return the marker of a complete and undamaged environment; None for anything less."""
    marker = marker_of(folder)
    usable = os.access(interpreter(folder), os.X_OK)  # follows the link: the base may have been removed
    whole = marker and _DAMAGE not in marker and marker.get("distributions") == inventory(folder)
    return marker if usable and whole else None


def marker_of(folder: Path) -> dict[str, object] | None:
    """Return what is written in the marker, however the environment is now."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def used(folder: Path) -> None:
    """Remember that an environment was wanted now, for those that tidy up."""
    with contextlib.suppress(OSError):  # a cache that others keep may be read-only
        used_file(folder).touch()


def used_file(folder: Path) -> Path:
    """Return the file that was touched when the environment was last wanted."""
    return folder.with_name(f"{folder.name}.used")


def store(folder: Path, marker: dict[str, object]) -> None:
    """Declare the environment complete."""
    _write(folder, {**marker, "distributions": inventory(folder)})


def condemn(folder: Path, marker: dict[str, object], damage: list[str]) -> None:
    """Make the next job build the environment again, for damage that ``load`` does not see."""
    _write(folder, {**marker, _DAMAGE: damage})


def damage_of(marker: dict[str, object]) -> list[str]:
    """Return what ``condemn`` was told."""
    damage = marker.get(_DAMAGE)
    return [str(line) for line in damage] if isinstance(damage, list) else []


def _write(folder: Path, marker: dict[str, object]) -> None:
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
    waiting = False
    while (descriptor := _take(lock_of(folder))) is None:
        if not waiting:
            say(f"waiting for another job that builds environment {folder.name}")
            waiting = True
        if cancelled():
            raise BuildCancelled("the environment was not built: cancelled while another job was building it")
        time.sleep(_POLL_SECONDS)
    try:
        yield descriptor
        # The descriptor is shared with what uv started: unlock for all of it, now that its work is done.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def trying(folder: Path) -> Iterator[bool]:
    """Hold the lock of an environment if nobody else does; yields whether that is so."""
    descriptor = _take(lock_of(folder))
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def lock_of(folder: Path) -> Path:
    """Return the lock of an environment; whoever holds it may remove it."""
    return folder.with_name(f"{folder.name}.lock")


def is_locked(folder: Path) -> bool:
    """Tell whether somebody builds or removes the environment; works in a read-only cache, too."""
    try:
        descriptor = os.open(lock_of(folder), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # what somebody keeps to himself is not ours to judge
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # somebody has it, or has removed it since it was opened
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
