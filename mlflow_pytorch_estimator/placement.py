"""From a backend config to scheduler, options and resources: a named cluster fills in what was left open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlflow_pytorch_estimator import clusters
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.config import BackendConfig
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.spec import Resources


@dataclass(frozen=True)
class Placement:
    """Where a job goes, and with how much."""

    scheduler: str
    scheduler_options: dict[str, Any]
    resources: Resources
    notices: tuple[str, ...] = ()


def place(config: BackendConfig) -> Placement:
    """Resolve the name of a cluster; raises ConfigError when there is none of that name."""
    if config.compute is None:
        return Placement(config.scheduler, dict(config.scheduler_options), config.resources)
    cluster = clusters.find(config.compute)
    if cluster is None:
        names = ", ".join(item.name for item in clusters.every()) or "none is defined"
        raise ConfigError(f"there is no compute target {config.compute!r} (known: {names})")
    return Placement(cluster.scheduler, dict(cluster.scheduler_options), _filled(config.resources, cluster))


def _filled(asked: Resources, cluster: Cluster) -> Resources:
    return replace(
        asked,
        cpus_per_node=cluster.cpus_per_node if asked.cpus_per_node is None else asked.cpus_per_node,
        gpus_per_node=cluster.gpus_per_node if asked.gpus_per_node is None else asked.gpus_per_node,
        memory_gb_per_node=(
            cluster.memory_gb_per_node if asked.memory_gb_per_node is None else asked.memory_gb_per_node
        ),
        low_priority=asked.low_priority or cluster.low_priority,
    )
