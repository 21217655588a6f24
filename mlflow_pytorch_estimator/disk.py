"""A full disk: how it is recognised, what is said of it, and room for a job's last word. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import ProjectError

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.attempt import Verdict

_LEAST_BYTES = 64 * 1024
_RESERVE_BYTES = 32 * 1024


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or what somebody may have of it, is full."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def words(folder: Path) -> str:
    """What is said where a folder's disk is full."""
    return f"no space left in {folder}"


@contextlib.contextmanager
def told_of(folder: Path) -> Iterator[None]:
    """A full disk is a ProjectError in one line."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        where = error.filename
        if isinstance(where, str) and os.path.isabs(where) and not Path(where).is_relative_to(folder):  # noqa: PTH117 - a text
            raise ProjectError(f"no space left for {where}: free some there") from error
        raise ProjectError(f"{words(folder)}: free some there, or set GPU_CLUSTER_HOME to another disk") from error


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """For what a job can do without: a full disk must not end it."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise


def has_room(folder: Path) -> bool:
    """Whether anything can be written there; True if nobody can tell."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    return found.f_bavail * found.f_frsize >= _LEAST_BYTES and (found.f_favail > 0 or found.f_files == 0)


def explained(verdict: Verdict, folder: Path) -> Verdict:
    """A verdict that says so of a failure on a full disk, which the rank's own log may have no room to tell."""
    if verdict.failure is None or has_room(folder):
        return verdict
    return replace(verdict, failure={**verdict.failure, "reason": f"{verdict.failure['reason']}; {words(folder)}"})


def reserve(path: Path) -> None:
    """Take some room, which is given back when it is needed; raises OSError when there is none."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _RESERVE_BYTES)
    except OSError as error:
        if is_full(error):
            raise  # other file systems just cannot do it
    finally:
        os.close(fd)
