"""Take an environment or a wheel out of the cache, unless somebody has it or builds it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache, leases
from mlflow_pytorch_estimator.environments.tending.disk import Usage, usage
from mlflow_pytorch_estimator.environments.tending.survey import RECORD
from mlflow_pytorch_estimator.errors import GpuClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class NotRemoved(GpuClusterError):  # noqa: N818 - says what happened
    """Why an entry is still there; to be read after its name."""


class InUse(NotRemoved):
    """Somebody has it, builds it, or has just used it."""


def _nothing() -> str:
    return ""


def remove(folder: Path, *, unless: Callable[[], str] = _nothing) -> Usage:
    """Remove an environment or a wheel and all that is kept about it; returns what it took.

    ``unless`` returns a reason to leave it, and is asked once nobody else can build it. NotRemoved, InUse.
    """
    with held(folder):
        reason = unless()
        if reason:
            raise InUse(reason)
        taken = usage(folder)
        found = leases.withdraw(folder)
        if found:
            raise InUse(in_use(found))
        (folder / RECORD).unlink(missing_ok=True)
        cache.remove(folder)
        forget(folder)
    return taken


def in_use(users: list[str] | tuple[str, ...]) -> str:
    """Say which runs have an environment, and what can be done."""
    others = f" and {len(users) - 1} more" if len(users) > 1 else ""
    return f"is in use by run {users[0]}{others}: see `gpu-cluster status {users[0]}`, and cancel it or wait"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of an entry; InUse when somebody else does, NotRemoved when files cannot be changed."""
    try:
        with cache.trying(folder) as mine:
            if not mine:
                raise InUse("is being built or removed by somebody else")
            yield
    except OSError as error:
        raise NotRemoved(f"cannot be removed: {error.filename or folder}: {error.strerror}") from error


def forget(folder: Path) -> None:
    """Remove what lies beside an entry that has gone; the caller holds its lock, which goes last."""
    cache.used_file(folder).unlink(missing_ok=True)
    leases.forget(folder)
    cache.lock_of(folder).unlink(missing_ok=True)
