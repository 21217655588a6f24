"""Which jobs have an environment: ``<key>.jobs/`` holds a file for each, so that nobody removes what is in use.

A job writes its lease and then looks whether the marker is there; ``withdraw`` takes the marker away and then looks
for leases. Whichever comes first, at least one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from mlflow_pytorch_estimator.environments.cache import MARKER, marker_of
from mlflow_pytorch_estimator.jobdir import JobDir

_WITHDRAWN = f"{MARKER}.withdrawn"
_TRIES = 10
_LONGEST_SECONDS = 30 * 86_400.0


def claim(folder: Path, job: Path) -> bool:
    """Say that the job in the directory ``job`` needs the environment until it has ended; False if it has just gone."""
    with contextlib.suppress(OSError):  # a read-only cache is tidied up by its owner
        _write(folder, job)
    if marker_of(folder) is not None:
        return True
    with contextlib.suppress(OSError):
        _lease(folder, job).unlink()
    return False


def _write(folder: Path, job: Path) -> None:
    lease = _lease(folder, job)
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # the folder was empty, and went before the lease was in it
            lease.parent.mkdir(exist_ok=True)
            lease.touch()
            break
    lease.write_text(f"{job}\n{os.uname().nodename}\n", encoding="utf-8")


def users(folder: Path) -> list[str]:
    """Return the jobs that have the environment and have not ended; forgets those that have."""
    found = []
    for lease in sorted(_jobs(folder).glob("*")):
        if _is_live(lease):
            found.append(lease.name)
        else:
            with contextlib.suppress(OSError):
                lease.unlink()
    return found


def forget(folder: Path) -> None:
    """Remove the folder of leases if no job that lives has one."""
    if not users(folder):
        with contextlib.suppress(OSError):  # it is not there, or there is a new one
            _jobs(folder).rmdir()


def withdraw(folder: Path) -> list[str]:
    """Let no job get the environment any more, unless some have it: then return those. The caller holds the lock."""
    found = users(folder)
    if found:
        return found
    withdrawn = folder / _WITHDRAWN
    with contextlib.suppress(FileNotFoundError):
        (folder / MARKER).rename(withdrawn)
    found = users(folder)
    if found:
        restore(folder)
    else:
        withdrawn.unlink(missing_ok=True)
    return found


def restore(folder: Path) -> None:
    """Put back a marker that somebody withdrew and was killed; the environment is whole as long as there is one."""
    with contextlib.suppress(FileNotFoundError):
        (folder / _WITHDRAWN).rename(folder / MARKER)


def _jobs(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.jobs")


def _lease(folder: Path, job: Path) -> Path:
    return _jobs(folder) / job.name


def _is_live(lease: Path) -> bool:
    try:
        if lease.stat().st_mtime < time.time() - _LONGEST_SECONDS:
            return False
        words = lease.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return False
    except PermissionError:
        return True
    return not words or _runs(JobDir(Path(words[0])), words[1:])  # without a word, it is just being written


def _runs(directory: JobDir, machine: list[str]) -> bool:
    try:
        directory.path.stat()
        ended = directory.outcome is not None
    except FileNotFoundError:
        return machine not in ([], [os.uname().nodename])  # another machine may have a directory of that name
    except PermissionError:
        return True  # another user's job: nobody but its owner can tell
    return not ended
