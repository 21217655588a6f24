"""From a backend config to scheduler, options and resources: a named cluster fills in what was left open."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from mlflow_pytorch_estimator import clusters
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.config import BackendConfig
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.machine import capacity
from mlflow_pytorch_estimator.spec import Distribution, Resources

_LOCAL = "local"
_NO_GPU = "a GPU was asked for, but this machine has none: the job runs on the CPU"


@dataclass(frozen=True)
class Placement:
    """Where a job goes, and with how much."""

    scheduler: str
    scheduler_options: dict[str, Any]
    resources: Resources
    notices: tuple[str, ...] = ()


def scheduler_of(config: BackendConfig) -> str:
    """Name of the scheduler that a job will go to; raises ConfigError when there is no cluster of that name."""
    return config.scheduler if config.compute is None else _cluster(config.compute).scheduler


def place(config: BackendConfig, *, wants_gpu: bool = False) -> Placement:
    """Resolve the name of a cluster; raises ConfigError when there is none of that name.

    ``wants_gpu`` asks for at least one GPU without a number. This machine may have none, which is then noted.
    """
    scheduler, options, resources = config.scheduler, config.scheduler_options, config.resources
    notices: tuple[str, ...] = ()
    if config.compute is not None:
        cluster = _cluster(config.compute)
        scheduler, options = cluster.scheduler, cluster.scheduler_options
        resources = _filled(resources, cluster)
        notices = tuple(load_scheduler(scheduler).check_cluster(cluster))
    if wants_gpu and scheduler != _LOCAL:
        resources = replace(resources, gpus_per_node=resources.gpus_per_node or 1)
    elif wants_gpu and not capacity(os.environ).gpus:
        notices = (*notices, _NO_GPU)
    return Placement(scheduler, dict(options), resources, notices)


def backend_here(asked: Distribution, place: Placement) -> tuple[Distribution, tuple[str, ...]]:
    """The distribution with a backend that can work there, and what the user should know about that."""
    gpus = place.resources.gpus_per_node
    if place.scheduler == _LOCAL and gpus is None:
        gpus = len(capacity(os.environ).gpus)
    if asked.backend != "nccl" or gpus != 0:
        return asked, ()
    return replace(asked, backend="gloo"), ("nccl needs GPUs, and the job has none: the ranks are told to use gloo",)


def _cluster(name: str) -> Cluster:
    cluster = clusters.find(name)
    if cluster is None:
        names = ", ".join(item.name for item in clusters.every()) or "none is defined"
        raise ConfigError(f"there is no compute target {name!r} (known: {names})")
    return cluster


def _filled(asked: Resources, cluster: Cluster) -> Resources:
    cpus, gpus, memory = load_scheduler(cluster.scheduler).node_shape(cluster)
    return replace(
        asked,
        cpus_per_node=cpus if asked.cpus_per_node is None else asked.cpus_per_node,
        gpus_per_node=gpus if asked.gpus_per_node is None else asked.gpus_per_node,
        memory_gb_per_node=memory if asked.memory_gb_per_node is None else asked.memory_gb_per_node,
        low_priority=asked.low_priority or cluster.low_priority,
    )
