"""What ``get_status`` returns, and waiting until a cluster's nodes are up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers.base import ClusterState, NodeState

_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class NodeStateCounts:
    """How many nodes there are in each state."""

    idle: int = 0
    leaving: int = 0
    preempted: int = 0
    preparing: int = 0
    running: int = 0
    unusable: int = 0

    @classmethod
    def of(cls, state: ClusterState) -> NodeStateCounts:
        """Count a cluster's nodes."""
        return cls(**{name.value: number for name, number in Counter(node.state for node in state.nodes).items()})

    @property
    def idle_node_count(self) -> int:
        """Up, without a job."""
        return self.idle

    @property
    def leaving_node_count(self) -> int:
        """Being given back."""
        return self.leaving

    @property
    def preempted_node_count(self) -> int:
        """Taken away for somebody who came first."""
        return self.preempted

    @property
    def preparing_node_count(self) -> int:
        """Being started."""
        return self.preparing

    @property
    def running_node_count(self) -> int:
        """With a job."""
        return self.running

    @property
    def unusable_node_count(self) -> int:
        """Not to be had."""
        return self.unusable

    def serialize(self) -> dict[str, int]:
        """For JSON."""
        return {f"{state.value}NodeCount": getattr(self, state.value) for state in NodeState}


@dataclass(frozen=True)
class ScaleSettings:
    """Between which numbers of nodes a cluster moves, and how long a node without a job is kept (seconds)."""

    minimum_node_count: int
    maximum_node_count: int
    idle_seconds_before_scaledown: int

    @classmethod
    def of(cls, cluster: Cluster) -> ScaleSettings:
        """Of a definition."""
        return cls(cluster.min_nodes, cluster.max_nodes, int(cluster.idle_seconds))

    def serialize(self) -> dict[str, Any]:
        """For JSON; the idle time is an ISO 8601 duration."""
        return {
            "minNodeCount": self.minimum_node_count,
            "maxNodeCount": self.maximum_node_count,
            "nodeIdleTimeBeforeScaleDown": f"PT{self.idle_seconds_before_scaledown}S",
        }


@dataclass(frozen=True)
class AmlComputeStatus:
    """A compute target as it is now. Times are in UTC."""

    allocation_state: str
    """``Steady``, or ``Resizing`` while nodes are starting or leaving."""
    allocation_state_transition_time: datetime
    creation_time: datetime
    current_node_count: int
    errors: tuple[str, ...]
    modified_time: datetime
    node_state_counts: NodeStateCounts
    provisioning_state: str
    """``Succeeded``, or ``Failed`` when ``errors`` says why."""
    provisioning_state_transition_time: datetime
    scale_settings: ScaleSettings
    target_node_count: int
    vm_priority: str
    vm_size: str | None

    @classmethod
    def of(cls, cluster: Cluster, state: ClusterState) -> AmlComputeStatus:
        """Put together from the definition and what the scheduler says."""
        modified = datetime.fromtimestamp(cluster.modified, timezone.utc)
        return cls(
            allocation_state="Steady" if len(state.nodes) == state.target else "Resizing",
            allocation_state_transition_time=modified,
            creation_time=datetime.fromtimestamp(cluster.created, timezone.utc),
            current_node_count=len(state.nodes),
            errors=state.errors,
            modified_time=modified,
            node_state_counts=NodeStateCounts.of(state),
            provisioning_state=provisioning_state(state),
            provisioning_state_transition_time=modified,
            scale_settings=ScaleSettings.of(cluster),
            target_node_count=state.target,
            vm_priority=vm_priority(cluster),
            vm_size=cluster.vm_size,
        )

    def serialize(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "currentNodeCount": self.current_node_count,
            "targetNodeCount": self.target_node_count,
            "nodeStateCounts": self.node_state_counts.serialize(),
            "allocationState": self.allocation_state,
            "allocationStateTransitionTime": self.allocation_state_transition_time.isoformat(),
            "creationTime": self.creation_time.isoformat(),
            "errors": list(self.errors) or None,
            "modifiedTime": self.modified_time.isoformat(),
            "provisioningState": self.provisioning_state,
            "provisioningStateTransitionTime": self.provisioning_state_transition_time.isoformat(),
            "scaleSettings": self.scale_settings.serialize(),
            "vmPriority": self.vm_priority,
            "vmSize": self.vm_size,
        }


def vm_priority(cluster: Cluster) -> str:
    """The priority of a cluster's jobs, as the original spells it."""
    return "LowPriority" if cluster.low_priority else "Dedicated"


def provisioning_state(state: ClusterState) -> str:
    """Whether a cluster can be used."""
    return "Failed" if state.errors else "Succeeded"


class NodeProvider(Protocol):
    """The part of a scheduler that waiting needs."""

    def cluster_state(self, cluster: Cluster) -> ClusterState:
        """The nodes that a cluster has now."""

    def power_up(self, cluster: Cluster, wanted: int) -> None:
        """Ask for so many nodes."""


def wait_for_nodes(
    provider: NodeProvider,
    current: Callable[[], Cluster],
    wanted: int,
    timeout_seconds: float,
    show: Callable[[str], object],
    poll_seconds: float = _POLL_SECONDS,
) -> None:
    """Wait until ``wanted`` nodes are up; ``current`` is asked for the definition, which may change meanwhile.

    Raises ComputeTargetException with the scheduler's errors, or on timeout.
    """
    deadline = time.monotonic() + timeout_seconds
    provider.power_up(current(), wanted)
    show("Creating")
    while True:
        cluster = current()
        state = provider.cluster_state(cluster)
        if state.errors:
            show("\nFailed\n")
            raise ComputeTargetException(f"compute target {cluster.name} has errors: {'; '.join(state.errors)}")
        up = sum(node.state in {NodeState.IDLE, NodeState.RUNNING} for node in state.nodes)
        if up >= wanted:
            break
        if time.monotonic() >= deadline:
            show("\nTimed out\n")
            raise ComputeTargetException(
                f"compute target {cluster.name} has {up} of {wanted} nodes up after {timeout_seconds / 60:g} minutes; "
                "get_status() says what they do, and wait_for_completion takes a longer timeout_in_minutes"
            )
        show(".")
        time.sleep(min(poll_seconds, max(0.0, deadline - time.monotonic())))
    show("\nSucceeded\nAmlCompute wait for completion finished\n\n")
    show("Minimum number of nodes requested have been provisioned\n")
