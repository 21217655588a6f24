"""Tidy up the cache: what killed builds have left, what nobody wanted for long, and the rest down to a size."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.tending.disk import Usage, joined
from mlflow_pytorch_estimator.environments.tending.leftovers import clear, is_needed, is_readable, leftovers
from mlflow_pytorch_estimator.environments.tending.removal import InUse, NotRemoved, held, in_use, remove
from mlflow_pytorch_estimator.environments.tending.survey import WHEEL, Entry, State, last_used, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A wheel is installed right after it was found, and nothing says that it is.
_INSTALLING_SECONDS = 3600.0


@dataclass(frozen=True)
class Pruned:
    """One thing that was removed, or would be; or that should have been and is still there."""

    name: str
    what: str
    usage: Usage = field(default_factory=Usage)
    used: float | None = None
    kept: str = ""
    """Why it is still there."""
    failed: bool = False
    """It is still there although nobody uses it."""


@dataclass(frozen=True)
class Pruner:
    """Prunes one cache."""

    cache_dir: Path
    older_than: float | None = None
    """Seconds without use after which an entry goes."""
    max_size: int | None = None
    """Bytes on the disk of all environments and wheels; those that were not used for longest go first."""
    dry_run: bool = False

    def run(self) -> Iterator[Pruned]:
        """Remove one thing after another, and yield each."""
        now = time.time()
        found = survey(self.cache_dir)
        left = list(found.entries)
        for entry in found.entries:
            unless = self._unless(entry, now)
            if unless:
                yield self._attempt(entry, unless, left)
        if self.max_size is not None:
            yield from self._shrink(left, self.max_size, now)
        for lock in found.locks:
            yield from self._lock(lock, now)
        yield from self._leftovers()

    def _unless(self, entry: Entry, now: float) -> Callable[[], str] | None:
        """Return what may save an entry that should go for its state or its age; None for one that may stay."""
        if entry.state is State.HALF:
            return lambda: "has just been built" if cache.marker_of(entry.folder) else ""
        if entry.state is State.BUILDING or self.older_than is None or entry.used >= now - self.older_than:
            return None
        return _unless_used(entry)

    def _shrink(self, left: list[Entry], limit: int, now: float) -> Iterator[Pruned]:
        for entry in reversed(left.copy()):
            if joined(item.usage for item in left).size <= limit:
                return
            installing = entry.kind == WHEEL and now - entry.used < _INSTALLING_SECONDS
            if entry.state is not State.BUILDING and not entry.users and not installing:
                yield self._attempt(entry, _unless_used(entry), left)

    def _attempt(self, entry: Entry, unless: Callable[[], str], left: list[Entry]) -> Pruned:
        what = "half built environment" if entry.state is State.HALF else entry.kind
        try:
            if entry.users:
                raise InUse(in_use(entry.users))
            if not self.dry_run:
                remove(entry.folder, unless=unless)
        except NotRemoved as error:
            return Pruned(entry.key, what, entry.usage, entry.used, str(error), not isinstance(error, InUse))
        left.remove(entry)
        return Pruned(entry.key, what, entry.usage, entry.used)

    def _lock(self, lock: Path, now: float) -> Iterator[Pruned]:
        """Forget versions that were chosen for requests that nobody makes any more."""

        def stale() -> bool:
            aged = self.older_than is not None and lock.stat().st_mtime < now - self.older_than
            return aged or not is_readable(lock)

        try:
            if not stale():
                return
            used = lock.stat().st_mtime
            if not self.dry_run:
                with held(lock):
                    if not stale():
                        return
                    lock.unlink()
                    cache.lock_of(lock).unlink()
        except FileNotFoundError:
            return  # somebody else tidies up as well
        except NotRemoved as error:
            yield Pruned(lock.stem, "chosen versions", kept=str(error), failed=not isinstance(error, InUse))
            return
        yield Pruned(lock.stem, "chosen versions", used=used)

    def _leftovers(self) -> Iterator[Pruned]:
        for entry, paths in leftovers(self.cache_dir).items():
            if is_needed(entry) or cache.is_locked(entry):
                continue
            name = entry.name.removesuffix(".json")
            killed = any(path.is_dir() and path.suffix != ".jobs" for path in paths)
            what = "left by a killed build" if killed else "left of what has gone"
            try:
                taken = Usage() if self.dry_run else clear(entry, paths)
            except InUse:
                continue
            except NotRemoved as error:
                yield Pruned(name, what, kept=str(error), failed=True)
                continue
            yield Pruned(name, what, taken)


def _unless_used(entry: Entry) -> Callable[[], str]:
    return lambda: "has just been used" if last_used(entry.folder) > entry.used else ""
