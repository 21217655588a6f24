"""From a request to a queued job: describe, check, snapshot, create the run, hand over.

The order is chosen so that nothing is left behind: the job directory is complete under a temporary name before the
run is created, and a run that exists always has a job or a reason.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import (
    detached,
    fetch,
    jobdir,
    jobenv,
    locks,
    placement,
    preparer,
    snapshots,
    tags,
    tracking,
)
from mlflow_pytorch_estimator.config import BackendConfig
from mlflow_pytorch_estimator.description import Description, Source
from mlflow_pytorch_estimator.environments import find_ready
from mlflow_pytorch_estimator.errors import ProjectError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores

_NO_RUN = ""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to run, where, and in which experiment of which store."""

    source: Source
    experiment_id: str
    stores: Stores
    run_name: str | None = None
    config: BackendConfig = field(default_factory=BackendConfig)
    distribution: Distribution = field(default_factory=Distribution)
    wants_gpu: bool = False
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    """For the ranks; only their names are stored."""
    tags: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def submit(request: Request) -> GpuClusterSubmittedRun:
    """Submit a job; raises before a run exists, or ends the run FAILED with the reason."""
    place = placement.place(request.config, wants_gpu=request.wants_gpu)
    scheduler = load_scheduler(place.scheduler)
    scheduler.anticipate()
    try:
        return _submit(request, place, scheduler)
    finally:
        scheduler.dismiss()


def _submit(request: Request, place: placement.Placement, scheduler: Scheduler) -> GpuClusterSubmittedRun:
    if jobdir.sweep(bury=tracking.end_orphan):
        snapshots.prune(jobdir.home() / "snapshots", jobdir.snapshots_in_use())
    directory, lock = _stage()
    try:
        job, run_tags = _prepare(request, place, directory)
        scheduler.check(job)
        directory.write_job(job)  # from here on a killed submitter leaves a trace that leads to its run
        run = tracking.create_run(request.stores, request.experiment_id, request.run_name, run_tags)
    except BaseException:
        directory.remove()
        lock.close()
        raise
    directory = directory.settle(run.info.run_id)
    job = replace(job, run_id=run.info.run_id, experiment_id=run.info.experiment_id)
    environ = {
        **os.environ,
        **request.stores.environment(),
        jobdir.HOME_VARIABLE: str(jobdir.home()),
        **jobenv.carried(request.environment_variables),
    }
    _start(job, request.stores, scheduler, directory, lock, environ)
    url = tracking.run_url(run, request.stores.tracking_uri)
    return GpuClusterSubmittedRun(run.info.run_id, directory, url, stores=request.stores)


def _stage() -> tuple[JobDir, locks.HeldLock]:
    try:
        return JobDir.stage()
    except OSError as error:
        raise ProjectError(
            f"cannot create a job directory under {jobdir.home()}: {error.strerror}; set {jobdir.HOME_VARIABLE}"
        ) from error


def _prepare(request: Request, place: placement.Placement, directory: JobDir) -> tuple[JobSpec, dict[str, str]]:
    """Take the snapshot and describe the job; the run does not exist yet."""
    scratch = directory.path / "fetch"
    scratch.mkdir()
    description = request.source.describe(scratch)
    taken = snapshots.take(description.top, directory.snapshots, description.subdirectory)
    fetch.discard(scratch)
    job = replace(_specify(request, place, description), snapshot=taken.digest)
    if description.environment.has_local_paths:
        directory.restore_source(job)  # the environment's key covers their content
    ready = find_ready(description.environment, directory.source / description.subdirectory, jobdir.home() / "envs")
    if ready is not None:
        job = preparer.use_environment(job, directory, ready)
    phase = Phase.QUEUED if _is_ready(job) else Phase.PREPARING
    return job, {
        **description.tags,
        "mlflow.project.env": description.environment.manager,
        **request.tags,
        **tags.of_job(job),
        tags.STATUS: phase.value,
        tags.SUBMISSION: directory.path.name,
    }


def _specify(request: Request, place: placement.Placement, description: Description) -> JobSpec:
    config, environment = request.config, description.environment
    return JobSpec(
        run_id=_NO_RUN,
        experiment_id=request.experiment_id,
        project=description.name,
        entry_point=description.entry_point,
        command=description.command,
        parameters=description.parameters,
        interpreter=InterpreterSpec(environment.manager, environment.to_json()),
        resources=place.resources,
        distribution=request.distribution,
        compute=config.compute,
        scheduler=place.scheduler,
        scheduler_options=place.scheduler_options,
        subdirectory=description.subdirectory,
        inputs=description.inputs,
        input_paths=description.input_paths,
        storage_dir=description.storage_dir,
        grace_seconds=config.grace_period_seconds,
        max_seconds=config.max_run_duration_seconds,
        environment_variables=tuple(sorted(request.environment_variables)),
        notices=(*request.notices, *place.notices),
        tracking_uri=tracking.without_credentials(request.stores.tracking_uri),
        registry_uri=tracking.without_credentials(request.stores.registry_uri),
    )


def _is_ready(job: JobSpec) -> bool:
    return job.interpreter.python is not None and not job.inputs


def _start(  # noqa: PLR0913, PLR0917 - all that a job consists of
    job: JobSpec,
    stores: Stores,
    scheduler: Scheduler,
    directory: JobDir,
    lock: locks.HeldLock,
    environ: dict[str, str],
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
            _mark_scheduled(stores, job.run_id)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        if lock.fd >= 0:
            _fail(job, stores, directory, lock, reason)
        raise


def _mark_scheduled(stores: Stores, run_id: str) -> None:
    try:
        tracking.mark_scheduled(stores, run_id)
    except MlflowException as error:
        # The job has been handed over and will say itself how it fares.
        _logger.warning("cannot mark run %s as SCHEDULED: %s", run_id, error)


def _fail(job: JobSpec, stores: Stores, directory: JobDir, lock: locks.HeldLock, reason: str) -> None:
    """End the run of a job that nobody has taken on."""
    if not directory.exists:
        directory.write_job(job)
    directory.conclude(Phase.FAILED, f"the job could not be submitted: {reason}")
    lock.close()
    reconcile(directory, stores)


def _spawn_preparer(directory: JobDir, lock: locks.HeldLock, environ: dict[str, str]) -> None:
    argv = [sys.executable, "-m", preparer.__name__, str(directory.path), str(lock.fd)]
    try:
        detached.spawn(argv, directory.agent_log, directory.path, environ, [lock.fd])
    except OSError as error:
        raise SchedulerError(f"cannot start the preparer: {error}") from error
