"""From a described training job to a submitted one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlflow_pytorch_estimator import clusters, submission
from mlflow_pytorch_estimator.arrays.submit import SubmittedArray, submit_many
from mlflow_pytorch_estimator.config import BackendConfig, check_together
from mlflow_pytorch_estimator.dryrun.plan import Plan
from mlflow_pytorch_estimator.estimator.compute.vm_sizes import shape_of_size
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.estimator.training import TrainingJob
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.schedulers.machine import capacity
from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores

_logger = logging.getLogger(__name__)


def submit(
    job: TrainingJob, experiment_id: str, stores: Stores, run_name: str | None, run_tags: Mapping[str, str]
) -> GpuClusterSubmittedRun:
    """Submit a job. Raises before a run exists, or ends the run FAILED with the reason."""
    submitted = submission.submit(_request(job, experiment_id, stores, run_name, run_tags))
    _warn(submitted)
    return submitted


def submit_array(
    jobs: Sequence[TrainingJob],
    experiment_id: str,
    stores: Stores,
    run_name: str | None,
    run_tags: Mapping[str, str],
    max_concurrent: int | None,
) -> SubmittedArray:
    """Submit jobs that differ in their arguments. Raises before a run exists, or ends all FAILED with the reason."""
    names = [f"{run_name}-{number}" if run_name else None for number in range(len(jobs))]
    requests = [_request(job, experiment_id, stores, name, run_tags) for job, name in zip(jobs, names, strict=True)]
    submitted = submit_many(requests, max_concurrent=max_concurrent, run_name=run_name)
    _warn(submitted.group)
    return submitted


def plan(job: TrainingJob, experiment_id: str, stores: Stores) -> Plan:
    """What ``submit`` would submit, after the same checks."""
    return submission.plan(_request(job, experiment_id, stores, None, {}))


def _request(
    job: TrainingJob, experiment_id: str, stores: Stores, run_name: str | None, run_tags: Mapping[str, str]
) -> Request:
    return Request(
        source=job.source,
        experiment_id=experiment_id,
        stores=stores,
        run_name=run_name,
        config=_config(job),
        distribution=_distribution(job),
        wants_gpu=job.use_gpu is True,
        environment_variables=job.source.environment_variables,
        tags=run_tags,
    )


def _warn(submitted: GpuClusterSubmittedRun) -> None:
    for notice in submitted.directory.job.notices:
        _logger.warning("%s", notice)


def _config(job: TrainingJob) -> BackendConfig:
    cpus, gpus, memory = None, None, None
    if job.compute_target is not None:
        _check_target(job.compute_target)
    elif job.vm_size is not None:
        cpus, gpus, memory = shape_of_size(job.vm_size, capacity(os.environ))
    config = BackendConfig(
        compute=job.compute_target,
        node_count=job.node_count,
        cpus_per_node=cpus,
        gpus_per_node=0 if job.use_gpu is False else gpus,
        memory_gb_per_node=memory,
        max_run_duration_seconds=job.max_seconds,
        low_priority=job.low_priority,
        detach=True,
        **job.settings,
    )
    check_together(config, _distribution(job))
    return config


def _distribution(job: TrainingJob) -> Distribution:
    settings = job.settings
    return replace(
        job.distribution,
        min_nodes=settings.get("min_node_count"),
        max_restarts=settings.get("max_restarts", 0),
    )


def _check_target(name: str) -> None:
    if clusters.find(name) is None:
        names = ", ".join(item.name for item in clusters.every()) or "none exists"
        raise ComputeTargetException(f"there is no compute target {name!r} (known: {names}); 'local' is this machine")
