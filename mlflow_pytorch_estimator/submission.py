"""From a request to a queued job: fetch, check, snapshot, create the run, hand over.

The order is chosen so that nothing is left behind: the job directory is complete under a temporary name before the
run is created, and a run that exists always has a job or a reason.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import detached, fetch, jobdir, locks, preparer, snapshot, tags, tracking
from mlflow_pytorch_estimator.config import ENV_MANAGER, STORAGE_DIR, BackendConfig
from mlflow_pytorch_estimator.environments import find_ready, read_environment
from mlflow_pytorch_estimator.errors import ProjectError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.project import invoke, read_project
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

_NO_RUN = ""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What MLflow passes to a backend, named."""

    uri: str
    entry_point: str
    parameters: Mapping[str, Any]
    experiment_id: str
    tracking_uri: str
    version: str | None = None
    run_name: str | None = None
    config: BackendConfig = field(default_factory=BackendConfig)
    mlflow_options: Mapping[str, Any] = field(default_factory=dict)


def submit(request: Request) -> GpuClusterSubmittedRun:
    """Submit a job; raises before a run exists, or ends the run FAILED with the reason."""
    scheduler = load_scheduler(request.config.scheduler)
    scheduler.anticipate()
    try:
        return _submit(request, scheduler)
    finally:
        scheduler.dismiss()


def _submit(request: Request, scheduler: Scheduler) -> GpuClusterSubmittedRun:
    jobdir.sweep(bury=tracking.end_orphan)
    directory, lock = _stage()
    try:
        job, project_tags = _describe(request, directory)
        scheduler.check(job)
        directory.write_job(job)  # from here on a killed submitter leaves a trace that leads to its run
        run = tracking.create_run(request.experiment_id, request.run_name, project_tags)
    except BaseException:
        directory.remove()
        lock.close()
        raise
    directory = directory.settle(run.info.run_id)
    job = replace(job, run_id=run.info.run_id, experiment_id=run.info.experiment_id)
    environ = {**os.environ, **tracking.environment(request.tracking_uri)}
    _start(job, scheduler, directory, lock, environ)
    return GpuClusterSubmittedRun(run.info.run_id, directory, tracking.run_url(run, request.tracking_uri))


def _stage() -> tuple[JobDir, locks.HeldLock]:
    try:
        return JobDir.stage()
    except OSError as error:
        raise ProjectError(
            f"cannot create a job directory under {jobdir.home()}: {error.strerror}; set {jobdir.HOME_VARIABLE}"
        ) from error


def _describe(request: Request, directory: JobDir) -> tuple[JobSpec, dict[str, str]]:
    """Take the snapshot and describe the job; the run does not exist yet."""
    scratch = directory.path / "fetch"
    scratch.mkdir()
    root = fetch.fetch(request.uri, request.version, scratch)
    project = read_project(root)
    invocation = invoke(project, request.entry_point, request.parameters)
    environment = read_environment(
        root, project.environment_file, project.environment_kind, request.mlflow_options.get(ENV_MANAGER)
    )
    subdirectory = fetch.locate(request.uri).subdirectory
    snapshot.take(fetch.top_of(request.uri, root), directory.source, subdirectory)
    storage = request.mlflow_options.get(STORAGE_DIR)
    concealer = Concealer.from_environ()
    job = JobSpec(
        run_id=_NO_RUN,
        experiment_id=request.experiment_id,
        project=project.name,
        entry_point=request.entry_point,
        command=invocation.command,
        parameters={name: concealer.conceal(value) for name, value in invocation.parameters.items()},
        interpreter=InterpreterSpec(environment.manager, environment.to_json()),
        resources=request.config.resources,
        scheduler=request.config.scheduler,
        scheduler_options=dict(request.config.scheduler_options),
        subdirectory=subdirectory,
        inputs=invocation.inputs,
        storage_dir=str(Path(storage).absolute()) if storage else None,
        grace_seconds=request.config.grace_period_seconds,
    )
    ready = find_ready(environment, directory.source / subdirectory, jobdir.home() / "envs")
    if ready is not None:
        job = preparer.use_environment(job, directory, ready)
    found = tracking.project_tags(request.uri, request.version, root, request.entry_point)
    fetch.discard(scratch)
    phase = Phase.QUEUED if _is_ready(job) else Phase.PREPARING
    return job, {
        **found,
        "mlflow.project.env": environment.manager,
        tags.STATUS: phase.value,
        tags.SCHEDULER: request.config.scheduler,
        tags.SUBMISSION: directory.path.name,
    }


def _is_ready(job: JobSpec) -> bool:
    return job.interpreter.python is not None and not job.inputs


def _start(
    job: JobSpec, scheduler: Scheduler, directory: JobDir, lock: locks.HeldLock, environ: dict[str, str]
) -> None:
    try:
        # The job's own first report waits for this lock, so SCHEDULED never comes after it; the job does not wait.
        with locks.holding(directory.delivery_lock):
            if _is_ready(job):
                preparer.hand_over(job, scheduler, directory, lock, environ)
            else:
                directory.write_job(job)
                directory.enter(Phase.PREPARING)
                _spawn_preparer(directory, lock, environ)
            lock.close()
            _mark_scheduled(job.run_id)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        if lock.fd >= 0:
            _fail(job, directory, lock, reason)
        raise


def _mark_scheduled(run_id: str) -> None:
    try:
        tracking.mark_scheduled(run_id)
    except MlflowException as error:
        # The job has been handed over and will say itself how it fares.
        _logger.warning("cannot mark run %s as SCHEDULED: %s", run_id, error)


def _fail(job: JobSpec, directory: JobDir, lock: locks.HeldLock, reason: str) -> None:
    """End the run of a job that nobody has taken on."""
    if not directory.exists:
        directory.write_job(job)
    directory.conclude(Phase.FAILED, f"the job could not be submitted: {reason}")
    lock.close()
    reconcile(directory)


def _spawn_preparer(directory: JobDir, lock: locks.HeldLock, environ: dict[str, str]) -> None:
    argv = [sys.executable, "-m", preparer.__name__, str(directory.path), str(lock.fd)]
    try:
        detached.spawn(argv, directory.agent_log, directory.path, environ, [lock.fd])
    except OSError as error:
        raise SchedulerError(f"cannot start the preparer: {error}") from error
