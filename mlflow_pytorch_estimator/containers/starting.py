"""From the command of a rank to the command that runs it in its container."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlflow_pytorch_estimator.containers.argv import Place, removal, wrap
from mlflow_pytorch_estimator.containers.inside import is_of_the_client
from mlflow_pytorch_estimator.containers.mounts import with_paths
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import JobSpec

# The rest of the user's environment belongs to this machine. What was set for the job comes in by its name.
_PREFIXES = ("AWS_", "AZURE_", "DATABRICKS_", "GOOGLE_", "GPU_CLUSTER_", "MLFLOW_", "_MLFLOW_")
_NAMES = frozenset({"CHECKPOINT_DIR", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "PYTHONUNBUFFERED"}) | frozenset(
    name for proxy in ("http_proxy", "https_proxy", "no_proxy") for name in (proxy, proxy.upper())
)
_ONLY_OUTSIDE = frozenset(
    {"GPU_CLUSTER_HOME", "GPU_CLUSTER_ALLOCATION", "GPU_CLUSTER_ENVIRONMENTS", "GPU_CLUSTER_JOB_ENVIRONMENT"}
)
_EXPANDED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")  # in place of secrets, which no file may hold
_FILES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)


def names(job: JobSpec) -> tuple[str, ...]:
    """What the containers of a job's ranks on this machine are called."""
    return tuple(_name(job, rank) for rank in range(job.distribution.world_size(job.resources.node_count)))


def command(
    job: JobSpec, directory: JobDir, rank: RankCommand, environ: Mapping[str, str], place: Allocation
) -> RankCommand:
    """The rank's command, in the job's container if it has one. ``environ`` is what the rank gets besides its own."""
    if job.container is None:
        return rank
    gpus = _renumbered(rank.environ.get("CUDA_VISIBLE_DEVICES"), place.gpus)
    rank = replace(rank, environ={**rank.environ, **gpus})
    files = [environ[name] for name in _FILES if Path(environ.get(name, "")).is_file()]
    container = with_paths(job.container, (*job.input_paths.values(), *files))
    name = _name(job, rank.rank)
    argv = wrap(
        container,
        rank.argv,
        _names(job, rank, environ),
        name,
        Place(str(directory.workdir), os.getuid(), os.getgid(), place.cpus, place.gpus, _mounts(directory)),
    )
    return replace(rank, argv=argv, afterwards=removal(container, (name,)))


def _mounts(directory: JobDir) -> tuple[str, ...]:
    return f"{directory.path}:{directory.path}", f"{directory.library}:{directory.library}:ro"


def _name(job: JobSpec, rank: int) -> str:
    return f"gpu-cluster-{job.run_id}-{rank}"


def _names(job: JobSpec, rank: RankCommand, environ: Mapping[str, str]) -> tuple[str, ...]:
    set_for_job = {*job.environment_variables, *rank.environ, *rank.defaults, *_EXPANDED.findall(job.command)}
    found = {name for name in environ if name.startswith(_PREFIXES) or name in _NAMES}
    there = {*environ, *rank.environ, *rank.defaults}
    return tuple(sorted(name for name in ((found | set_for_job) & there) - _ONLY_OUTSIDE if not is_of_the_client(name)))


def _renumbered(visible: str | None, gpus: tuple[int, ...]) -> dict[str, str]:
    """In a container the GPUs that it was given are counted from 0."""
    if not visible:
        return {}
    inside = {str(number): str(index) for index, number in enumerate(sorted(gpus))}
    return {"CUDA_VISIBLE_DEVICES": ",".join(inside.get(word, word) for word in visible.split(","))}
