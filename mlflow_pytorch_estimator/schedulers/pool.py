"""A local cluster: simulated nodes that share out this machine. Pure functions; ``queue`` keeps the facts.

A node is a number below ``max_nodes``. It is up while a job has it, and for ``idle_seconds`` after its last job; the
lowest numbers fill up to ``min_nodes``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.schedulers.base import Node, NodeShape, NodeState
from mlflow_pytorch_estimator.schedulers.machine import Capacity


@dataclass(frozen=True)
class Occupant:
    """A job that was granted nodes of a cluster, with all its cores and GPUs."""

    run_id: str
    nodes: tuple[int, ...]
    cpus: tuple[int, ...]
    gpus: tuple[int, ...]


def node_shape(cluster: Cluster, here: Capacity) -> NodeShape:
    """What a node of the cluster has on this machine: what was asked for, capped by what there is."""
    return cap(cluster.cpus_per_node, cluster.gpus_per_node or 0, cluster.memory_gb_per_node, here)


def cap(cpus: int | None, gpus: int, memory_gb: float | None, here: Capacity) -> NodeShape:
    """The shape of a node that should have so much; ``cpus=None`` means the cores that go with its GPUs."""
    gpus = min(gpus, len(here.gpus))
    cores = cores_with(gpus, here) if cpus is None else min(cpus, len(here.cpus))
    if memory_gb is not None and here.memory_gb is not None:
        memory_gb = min(memory_gb, here.memory_gb)
    return NodeShape(cores, gpus, memory_gb)


def cores_with(gpus: int, here: Capacity) -> int:
    """The cores that go with so many GPUs; all of them for a job that uses no GPU or all."""
    partial = 0 < gpus < len(here.gpus)
    return max(1, len(here.cpus) * gpus // len(here.gpus)) if partial else len(here.cpus)


def total(per_node: int, nodes: int, have: int) -> int:
    """What ``nodes`` nodes take together: each the same, and no more than its share of what there is.

    With fewer than one for each node, all are taken and the nodes share them.
    """
    if nodes == 1 or per_node == 0:
        return per_node
    return min(have, nodes * min(per_node, max(1, have // nodes)))


def share_out(items: Sequence[int], nodes: int) -> list[tuple[int, ...]]:
    """The part of each node in a job's cores or GPUs; nodes share when there are fewer than nodes."""
    if not items:
        return [()] * nodes
    each = len(items) // nodes
    if each == 0:
        return [(items[index % len(items)],) for index in range(nodes)]
    return [tuple(items[index * each : (index + 1) * each]) for index in range(nodes)]


def idle(cluster: Cluster, taken: Collection[int], released: Mapping[int, float], now: float) -> tuple[int, ...]:
    """The nodes that are up without a job, by number; ``released`` says when each was last given back."""
    fresh = max(now - cluster.idle_seconds, cluster.created)  # what a deleted cluster of that name had is no matter
    kept = [node for node, when in sorted(released.items()) if node not in taken and when > fresh]
    kept = kept[: max(0, cluster.max_nodes - len(taken))]
    missing = cluster.min_nodes - len(taken) - len(kept)
    others = (node for node in range(cluster.max_nodes) if node not in taken and node not in kept)
    return tuple(sorted([*kept, *(node for node, _ in zip(others, range(missing), strict=False))]))


def pick(count: int, taken: Collection[int], up: Collection[int]) -> tuple[int, ...]:
    """``count`` free nodes: those that are up first, then the lowest numbers."""
    free = [node for node in range(len(taken) + len(up) + count) if node not in taken and node not in up]
    return tuple(sorted([*sorted(up), *free][:count]))


def nodes(
    cluster: Cluster, occupants: Sequence[Occupant], released: Mapping[int, float], now: float
) -> tuple[Node, ...]:
    """The nodes of a cluster that are up, by number."""
    found: dict[int, Node] = {}
    for job in occupants:
        cpus, gpus = share_out(job.cpus, len(job.nodes)), share_out(job.gpus, len(job.nodes))
        for index, node in enumerate(job.nodes):
            name = f"{cluster.name}-{node}"
            found[node] = Node(name, NodeState.RUNNING, job.run_id, cpus[index], gpus[index])
    for node in idle(cluster, found, released, now):
        found[node] = Node(f"{cluster.name}-{node}", NodeState.IDLE)
    return tuple(found[node] for node in sorted(found))
