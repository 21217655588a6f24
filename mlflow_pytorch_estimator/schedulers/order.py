"""Who comes next in the queue: what stands on the tickets, and the rules. Pure but for reading and writing a ticket.

Grants are made in the order of the tickets. Three things bend it: tickets of low priority come after the others, one
that waits for its own cluster's limit holds up nobody but those behind it on the same cluster, and one that waits for
its own array's limit holds up nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.schedulers.base import count
from mlflow_pytorch_estimator.schedulers.machine import Capacity


@dataclass(frozen=True)
class Request:
    """How much a job wants, all its nodes together."""

    cpus: int
    gpus: int
    nodes: int = 1
    pool: str | None = None
    """Name of the cluster whose nodes they are; None for a job that counts for no cluster."""
    memory_gb: float = 0.0
    low_priority: bool = False
    array: str | None = None
    """Id of the array that it belongs to, if that has a limit."""
    array_limit: int = 0
    """How many jobs of the array may run at once."""


@dataclass(frozen=True)
class Waiting:
    """Not yet: ``ahead`` jobs come first, waiting or running; or the limit of the cluster or the array is reached."""

    ahead: int
    nodes: int = 1
    pool: str | None = None
    """The cluster whose limit is in the way, if that is all."""
    in_use: int = 0
    limit: int = 0
    of_array: bool = False
    """Whether the limit is the one of its array."""

    def describe(self) -> str:
        """For people: ``waiting for a node of gpu-cluster (4 of 4 in use)``."""
        if self.of_array:
            return f"waiting for another run of its array to end ({self.in_use} of {self.limit} running)"
        if self.pool is None:
            return f"waiting for {count(self.ahead, 'job')} ahead"
        wanted = "a node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"waiting for {wanted} of {self.pool} ({self.in_use} of {self.limit} in use)"


@dataclass(frozen=True)
class Entry:
    """What stands on a ticket; ``nodes`` are the numbers of the cluster's nodes that were granted."""

    request: Request
    grant: Capacity | None = None
    nodes: tuple[int, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Entry:
        """Read a ticket; ValueError, TypeError or KeyError when its writer was killed on the way."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        grant = raw["grant"] and Capacity(tuple(raw["grant"]["cpus"]), tuple(raw["grant"]["gpus"]))
        return cls(Request(**raw["request"]), grant, tuple(raw.get("nodes", ())))

    def store(self, path: Path) -> None:
        """Write a ticket."""
        # In place: a renamed file would be a new one, without the owner's lock. Readers hold the queue's lock.
        raw = asdict(self)
        if self.request.array is None:
            del raw["request"]["array"], raw["request"]["array_limit"]  # earlier versions read the same queue
        # Over what stands there, which needs no room: on a full disk a ticket must not become one that nobody can read.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, os.write(fd, json.dumps(raw).encode()))
        finally:
            os.close(fd)


Entries = Mapping[Path, Entry]
"""The tickets of everybody alive."""
ClusterOf = Callable[[str], Cluster | None]
"""Finds the definition of a cluster."""


def obstacle(ticket: Path, entries: Entries, cluster_of: ClusterOf) -> Waiting | None:
    """What stands between a ticket and the machine: somebody before it, or its own cluster's limit."""
    held_up = set()
    for path in _in_order(entries):
        name = entries[path].request.pool
        if path == ticket:
            behind = waiting(ticket, entries) if name in held_up else None
            return _crowded(ticket, entries) or _full(ticket, entries, cluster_of) or behind
        if name in held_up or _crowded(path, entries):
            continue
        full = _full(path, entries, cluster_of)
        if full is None:
            return waiting(ticket, entries)
        # A job for which the cluster was made too small cannot start, so those behind it may.
        if full.nodes <= full.limit:
            held_up.add(name)
    return None


def waiting(ticket: Path, entries: Entries) -> Waiting:
    """How many come before a ticket that has no grant."""
    order = _in_order(entries)
    return Waiting(len(entries) - len(order) + order.index(ticket))


def taken(name: str, entries: Entries) -> set[int]:
    """The nodes of a cluster that jobs have."""
    return {node for entry in entries.values() if entry.request.pool == name for node in entry.nodes}


def fit(request: Request, entries: Entries, capacity: Capacity) -> Capacity | None:
    """Free cores and GPUs for a request, or None."""
    granted = [(entry.request, entry.grant) for entry in entries.values() if entry.grant]
    cpus = [cpu for cpu in capacity.cpus if not any(cpu in grant.cpus for _, grant in granted)]
    gpus = [gpu for gpu in capacity.gpus if not any(gpu in grant.gpus for _, grant in granted)]
    if len(cpus) < request.cpus or len(gpus) < request.gpus:
        return None
    memory = request.memory_gb + sum(other.memory_gb for other, _ in granted)
    if request.memory_gb and capacity.memory_gb is not None and memory > capacity.memory_gb:
        return None
    return Capacity(tuple(cpus[: request.cpus]), tuple(gpus[: request.gpus]))


def _in_order(entries: Entries) -> list[Path]:
    """Those that wait, first come first."""
    pending = [path for path, entry in entries.items() if entry.grant is None]
    return sorted(pending, key=lambda path: (entries[path].request.low_priority, path))


def _crowded(ticket: Path, entries: Entries) -> Waiting | None:
    """Whether as many jobs of a ticket's array run as may; those behind it on the same cluster need not wait for it."""
    request = entries[ticket].request
    if request.array is None:
        return None
    running = sum(entry.grant is not None and entry.request.array == request.array for entry in entries.values())
    if running < request.array_limit:
        return None
    ahead = waiting(ticket, entries).ahead
    return Waiting(ahead, in_use=running, limit=request.array_limit, of_array=True)


def _full(ticket: Path, entries: Entries, cluster_of: ClusterOf) -> Waiting | None:
    """Whether a ticket's cluster has no room for it."""
    request = entries[ticket].request
    cluster = cluster_of(request.pool) if request.pool is not None else None
    if cluster is None:  # also one that was deleted by hand: its jobs were accepted, so they run
        return None
    in_use = len(taken(cluster.name, entries))
    if in_use + request.nodes <= cluster.max_nodes:
        return None
    ahead = waiting(ticket, entries).ahead
    return Waiting(ahead, request.nodes, cluster.name, in_use, cluster.max_nodes)
