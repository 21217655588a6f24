"""A first-in-first-out queue for cores, GPUs and nodes in a directory. No daemon: whoever waits does the work.

Each job has a ticket, ``tickets/SEQUENCE-NAME``, and holds a lock on it. A ticket whose lock is free belongs
to nobody alive and is removed by the next one who looks, so a dead job's share returns by itself. A ticket
without a grant waits; grants are made in order (``order`` has the rules), under one lock for the whole directory.

``pools/CLUSTER.json`` says when each node of a cluster was last given back.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_pytorch_estimator import clusters, locks
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.files import private_folder, read_json, write_atomic
from mlflow_pytorch_estimator.schedulers import order, pool
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.order import ClusterOf, Entry, Request, Waiting

__all__ = ["Queue", "Request", "Ticket", "Waiting"]

_ASKED_FOR_SECONDS = 60.0


@dataclass(frozen=True)
class Ticket:
    """A place in the queue; it lasts as long as ``lock`` is held by anybody."""

    path: Path
    lock: locks.HeldLock


def _definition(name: str) -> clusters.Cluster | None:
    """The definition of a cluster; one that somebody broke by hand must not stop the jobs of all others."""
    try:
        return clusters.find(name)
    except ConfigError:
        return None


class Queue:
    """The queue in one directory; ``cluster_of`` finds a cluster's definition and is asked anew at each poll."""

    def __init__(self, root: Path, cluster_of: ClusterOf = _definition) -> None:
        self._tickets = root / "tickets"
        self._lock = root / "lock"
        self._counter = root / "sequence.json"
        self._pools = root / "pools"
        self._cluster_of = cluster_of

    def enter(self, name: str, request: Request) -> Ticket:
        """Take the last place."""
        private_folder(self._tickets)
        with locks.holding(self._lock):
            number = int(read_json(self._counter) or 0) + 1
            write_atomic(self._counter, str(number))
            path = self._tickets / f"{number:012d}-{name}"
            lock = locks.acquire(path)
            try:
                Entry(request).store(path)
            except BaseException:
                path.unlink()  # nobody could read it
                lock.close()
                raise
        return Ticket(path, lock)

    def poll(self, ticket: Path, capacity: Capacity) -> Capacity | Waiting:
        """What the ticket was granted, or what is in the way."""
        with locks.holding(self._lock):
            entries = self._living()
            entry = entries[ticket]
            if entry.grant is not None:
                return entry.grant
            obstacle = order.obstacle(ticket, entries, self._cluster_of)
            if obstacle is not None:
                return obstacle
            grant = order.fit(entry.request, entries, capacity)
            if grant is None:
                return order.waiting(ticket, entries)
            replace(entry, grant=grant, nodes=self._pick(entry.request, entries)).store(ticket)
            return grant

    def nodes(self, ticket: Path) -> tuple[int, ...]:
        """The numbers of its cluster's nodes that a ticket was granted; none if it is on no cluster."""
        with locks.holding(self._lock):
            return Entry.load(ticket).nodes

    def leave(self, ticket: Path) -> None:
        """Give everything back."""
        with locks.holding(self._lock):
            if ticket.exists():
                self._discard(ticket)

    def occupants(self, name: str) -> tuple[list[pool.Occupant], dict[int, float]]:
        """The jobs that have nodes of a cluster, and when each of its nodes was last given back (Unix seconds)."""
        if not self._tickets.is_dir():
            return [], {}
        with locks.holding(self._lock):
            entries = self._living()
            found = [
                pool.Occupant(path.name.partition("-")[2], entry.nodes, entry.grant.cpus, entry.grant.gpus)
                for path, entry in entries.items()
                if entry.request.pool == name and entry.grant is not None
            ]
            return found, self._released(name)

    def power_up(self, cluster: clusters.Cluster, wanted: int) -> None:
        """See that so many nodes of a cluster are up; they stay for its idle time, and a minute at least."""
        private_folder(self._tickets)
        with locks.holding(self._lock):
            taken = order.taken(cluster.name, self._living())
            released = self._released(cluster.name)
            up = pool.idle(cluster, taken, released, time.time())
            chosen = pool.pick(wanted - len(taken), taken, up) if wanted > len(taken) else ()
            self._release(cluster.name, chosen, time.time() + max(0.0, _ASKED_FOR_SECONDS - cluster.idle_seconds))

    def _pick(self, request: Request, entries: dict[Path, Entry]) -> tuple[int, ...]:
        if request.pool is None:
            return ()
        taken = order.taken(request.pool, entries)
        cluster = self._cluster_of(request.pool)
        up = pool.idle(cluster, taken, self._released(request.pool), time.time()) if cluster else ()
        return pool.pick(request.nodes, taken, up)

    def _living(self) -> dict[Path, Entry]:
        living = {}
        for path in sorted(self._tickets.iterdir()):
            if locks.is_held(path):
                living[path] = Entry.load(path)
            else:
                self._discard(path)
        return living

    def _discard(self, ticket: Path) -> None:
        try:
            entry = Entry.load(ticket)
        except (ValueError, KeyError, TypeError):
            entry = None  # its writer was killed before the first line was complete, so nothing was granted
        if entry is not None and entry.request.pool is not None:
            self._release(entry.request.pool, entry.nodes, time.time())
        ticket.unlink(missing_ok=True)

    def _released(self, name: str) -> dict[int, float]:
        return {int(node): when for node, when in (read_json(self._pools / f"{name}.json") or {}).items()}

    def _release(self, name: str, nodes: tuple[int, ...], when: float) -> None:
        if nodes:
            self._pools.mkdir(mode=0o700, exist_ok=True)
            released = {**self._released(name), **dict.fromkeys(nodes, when)}
            write_atomic(self._pools / f"{name}.json", json.dumps(released))
