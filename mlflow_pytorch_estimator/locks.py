"""Advisory locks that end with the process: the way to tell alive from dead without pids.

A lock is an ``flock`` on an open file. Children that inherit the descriptor hold the same lock, so it
is free only when the last of them has gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HeldLock:
    """A lock that this process holds; ``fd`` can be handed to a child."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Let go of this process's share; a child that inherited the lock keeps it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_acquire(path: Path) -> HeldLock | None:
    """Take the lock, or None when somebody holds it."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return HeldLock(path, fd)


def acquire(path: Path) -> HeldLock:
    """Take the lock, waiting as long as it takes."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return HeldLock(path, fd)


def adopt(path: Path, fd: int) -> HeldLock:
    """A lock whose descriptor was inherited from the parent process."""
    os.set_inheritable(fd, False)
    return HeldLock(path, fd)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock for the length of a ``with`` block."""
    lock = acquire(path)
    try:
        yield
    finally:
        lock.close()


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at the same time do not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def wait_until_free(path: Path, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds; True when nobody holds the lock any more."""
    deadline = time.monotonic() + timeout
    while is_held(path):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
