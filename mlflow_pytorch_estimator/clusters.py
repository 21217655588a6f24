"""Cluster definitions: named places for jobs, kept as ``compute/NAME.json`` under the home directory.

A definition is a wish (nodes of this size, so many of them, from that scheduler). What a scheduler makes of it, and in
which state its nodes are, is the scheduler's to say.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import jobdir, locks
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.files import private_folder, read_json, write_atomic

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}[A-Za-z0-9]")
"""What a cluster may be called."""


@dataclass(frozen=True)
class Cluster:
    """A named cluster definition. Times are Unix seconds, memory is in GiB."""

    name: str
    scheduler: str = "local"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    vm_size: str | None = None
    cpus_per_node: int | None = None
    memory_gb_per_node: float | None = None
    gpus_per_node: int | None = None
    min_nodes: int = 0
    max_nodes: int = 1
    idle_seconds: float = 1800.0
    low_priority: bool = False
    attached: bool = False
    """It existed before and is only known here: ``detach`` forgets it, ``delete`` is refused."""
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)


def create(cluster: Cluster) -> Cluster:
    """Keep a new definition; if the name is taken, what stands there is returned unchanged."""
    with _locked():
        found = find(cluster.name)
        if found is None:
            store(cluster)
        return found or cluster


def change(name: str, **settings: Any) -> Cluster | None:
    """Replace settings of a stored definition, all of them or none; None if there is no such cluster."""
    with _locked():
        found = find(name)
        if found is None:
            return None
        changed = replace(found, **settings, modified=time.time())
        store(changed)
        return changed


def store(cluster: Cluster) -> None:
    """Keep a definition; one of the same name is replaced."""
    path = _path(cluster.name)
    private_folder(path.parent)
    write_atomic(path, json.dumps(asdict(cluster), indent=2) + "\n")


def find(name: str) -> Cluster | None:
    """The definition of that name."""
    if not NAME.fullmatch(name):
        return None
    known = {item.name for item in fields(Cluster)}
    try:
        raw = read_json(_path(name))
        if raw is None:
            return None
        return _checked(Cluster(**{**{key: value for key, value in raw.items() if key in known}, "name": name}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{_path(name)} is no cluster definition ({error}); correct or remove it") from error


def _checked(cluster: Cluster) -> Cluster:
    numbers = {"min_nodes": cluster.min_nodes, "max_nodes": cluster.max_nodes, "idle_seconds": cluster.idle_seconds}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{key} is {value!r}")
    for key in ("cpus_per_node", "gpus_per_node", "memory_gb_per_node"):
        if not isinstance(getattr(cluster, key), (int, float, type(None))):
            raise TypeError(f"{key} is {getattr(cluster, key)!r}")
    return cluster


def remove(name: str) -> bool:
    """Forget a definition; False if there was none."""
    with _locked():
        if not NAME.fullmatch(name) or not _path(name).exists():
            return False
        _path(name).unlink()
        return True


def every() -> Iterator[Cluster]:
    """All definitions, by name."""
    for path in sorted(_folder().glob("*.json")):
        cluster = find(path.stem)
        if cluster is not None:
            yield cluster


def check_nodes(compute: str, node_count: int) -> None:
    """Raise ConfigError if there is no such cluster, or it never has so many nodes."""
    cluster = find(compute)
    if cluster is None:
        raise ConfigError(f"there is no compute target {compute!r}, or not any more; create it, or name another one")
    if node_count > cluster.max_nodes:
        raise ConfigError(
            f"node_count is {node_count}, but {compute} has max_nodes {cluster.max_nodes}; "
            f"ask for fewer nodes, or `gpu-cluster compute update {compute} --max-nodes {node_count}`"
        )


def active_runs(name: str) -> list[str]:
    """Ids of the runs whose jobs are being prepared, wait or run on a cluster, oldest first."""
    found = []
    for path in (jobdir.home() / "jobs").glob("[!.]*"):
        directory = jobdir.JobDir(path)
        # Cheapest question first: most jobs were delivered long ago.
        if directory.delivered.exists() or not directory.exists or directory.job.compute != name:
            continue
        if directory.alive and directory.outcome is None:
            events = directory.events()
            found.append((events[0].time if events else 0.0, path.name))
    return [run_id for _, run_id in sorted(found)]


def _folder() -> Path:
    return jobdir.home() / "compute"


def _path(name: str) -> Path:
    return _folder() / f"{name}.json"


@contextmanager
def _locked() -> Iterator[None]:
    private_folder(_folder())
    with locks.holding(_folder() / "lock"):
        yield
