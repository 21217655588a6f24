"""A first-in-first-out queue for cores and GPUs in a directory. No daemon: whoever waits does the work.

Each job has a ticket, ``tickets/SEQUENCE-NAME``, and holds a lock on it. A ticket whose lock is free belongs
to nobody alive and is removed by the next one who looks, so a dead job's share returns by itself. A ticket
without a grant waits; grants are made strictly in order, under one lock for the whole directory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.files import read_json, write_atomic
from mlflow_pytorch_estimator.schedulers.machine import Capacity


@dataclass(frozen=True)
class Request:
    """How many cores and GPUs a job wants."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Ticket:
    """A place in the queue; it lasts as long as ``lock`` is held by anybody."""

    path: Path
    lock: locks.HeldLock


@dataclass(frozen=True)
class Waiting:
    """Not yet: ``ahead`` jobs come first, waiting or running."""

    ahead: int


@dataclass(frozen=True)
class _Entry:
    """What stands on a ticket."""

    request: Request
    grant: Capacity | None = None

    @classmethod
    def load(cls, path: Path) -> _Entry:
        raw = json.loads(path.read_text(encoding="utf-8"))
        grant = raw["grant"] and Capacity(tuple(raw["grant"]["cpus"]), tuple(raw["grant"]["gpus"]))
        return cls(Request(**raw["request"]), grant)

    def store(self, path: Path) -> None:
        # In place: a renamed file would be a new one, without the owner's lock. Readers hold the queue's lock.
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


class Queue:
    """The queue in one directory."""

    def __init__(self, root: Path) -> None:
        self._tickets = root / "tickets"
        self._lock = root / "lock"
        self._counter = root / "sequence.json"

    def enter(self, name: str, request: Request) -> Ticket:
        """Take the last place."""
        self._tickets.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.holding(self._lock):
            number = int(read_json(self._counter) or 0) + 1
            write_atomic(self._counter, str(number))
            path = self._tickets / f"{number:012d}-{name}"
            lock = locks.acquire(path)
            _Entry(request).store(path)
        return Ticket(path, lock)

    def poll(self, ticket: Path, capacity: Capacity) -> Capacity | Waiting:
        """What the ticket was granted, or how many are in the way."""
        with locks.holding(self._lock):
            entries = self._living()
            ahead = [path for path in entries if path < ticket]
            entry = entries[ticket]
            if entry.grant is not None:
                return entry.grant
            if any(entries[path].grant is None for path in ahead):
                return Waiting(len(ahead))
            grant = _fit(entry.request, entries, capacity)
            if grant is None:
                return Waiting(len(ahead))
            replace(entry, grant=grant).store(ticket)
            return grant

    def leave(self, ticket: Path) -> None:
        """Give everything back."""
        with locks.holding(self._lock):
            ticket.unlink(missing_ok=True)

    def _living(self) -> dict[Path, _Entry]:
        living = {}
        for path in sorted(self._tickets.iterdir()):
            if locks.is_held(path):
                living[path] = _Entry.load(path)
            else:
                path.unlink()
        return living


def _fit(request: Request, entries: dict[Path, _Entry], capacity: Capacity) -> Capacity | None:
    grants = [entry.grant for entry in entries.values() if entry.grant]
    cpus = [cpu for cpu in capacity.cpus if not any(cpu in grant.cpus for grant in grants)]
    gpus = [gpu for gpu in capacity.gpus if not any(gpu in grant.gpus for grant in grants)]
    if len(cpus) < request.cpus or len(gpus) < request.gpus:
        return None
    return Capacity(tuple(cpus[: request.cpus]), tuple(gpus[: request.gpus]))
