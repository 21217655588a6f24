"""From a request to a queued job: describe, check, snapshot, create the run, hand over.

The order is chosen so that nothing is left behind: the job directory is complete under a temporary name before the
run is created, and a run that exists always has a job or a reason.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DOCKER_IMAGE_URI

from mlflow_pytorch_estimator import (
    after,
    detached,
    disk,
    fetch,
    jobdir,
    jobenv,
    locks,
    placement,
    preparation,
    preparer,
    processes,
    resuming,
    snapshots,
    tags,
    tracking,
)
from mlflow_pytorch_estimator.description import Description
from mlflow_pytorch_estimator.dryrun.plan import Plan
from mlflow_pytorch_estimator.dryrun.plan import make as make_plan
from mlflow_pytorch_estimator.environments import BUILT, EnvironmentSpec, claim, find_ready
from mlflow_pytorch_estimator.errors import ProjectError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.rank_policy import policy
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.relay import choosing
from mlflow_pytorch_estimator.relay.choosing import Way
from mlflow_pytorch_estimator.request import Request, complete, rank_variables
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tidying import tidy
from mlflow_pytorch_estimator.tracking import Stores

_NO_RUN = ""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """All that is known of a job before its run exists."""

    job: JobSpec
    tags: dict[str, str]
    variables: dict[str, str]
    """For the ranks, with their values."""


def submit(request: Request) -> GpuClusterSubmittedRun:
    """Submit a job; raises before a run exists, or ends the run FAILED with the reason."""
    refuse_ranks()
    scheduler = load_scheduler(placement.scheduler_of(request.config))
    scheduler.anticipate()
    try:
        with disk.told_of(jobdir.home()):
            return _submit(request, scheduler)
    finally:
        scheduler.dismiss()


def plan(request: Request) -> Plan:
    """What ``submit`` would do, after the same checks; nothing of it is left behind but the snapshot of the sources."""
    refuse_ranks()
    scheduler = load_scheduler(placement.scheduler_of(request.config))
    directory, lock = stage()
    try:
        prepared = prepare(request, directory)
        scheduler.check(prepared.job)
        return make_plan(prepared.job, scheduler, environment(request.stores, prepared))
    finally:
        directory.remove()
        lock.close()


def _submit(request: Request, scheduler: Scheduler) -> GpuClusterSubmittedRun:
    return create(partial(prepare, request), request.stores, request.run_name, scheduler)


def create(
    prepared_in: Callable[[JobDir], Prepared], stores: Stores, run_name: str | None, scheduler: Scheduler
) -> GpuClusterSubmittedRun:
    """Prepare a job in a new directory, make its run and hand it over."""
    tidy(stores)
    directory, lock = stage()
    try:
        prepared = prepared_in(directory)
        scheduler.check(prepared.job)
        environ = environment(stores, prepared)
        directory.write_job(prepared.job)  # from here on a killed submitter leaves a trace that leads to its run
    except BaseException:
        directory.remove()
        lock.close()
        raise
    run = _create_run(prepared, stores, run_name, directory, lock)
    directory = directory.settle(run.info.run_id)
    made = run.info
    job = replace(prepared.job, run_id=made.run_id, experiment_id=made.experiment_id, run_name=str(made.run_name or ""))
    _start(job, stores, scheduler, directory, lock, environ)
    url = tracking.run_url(run, stores.tracking_uri)
    return GpuClusterSubmittedRun(run.info.run_id, directory, url, stores=stores)


def _create_run(prepared: Prepared, stores: Stores, name: str | None, directory: JobDir, lock: locks.HeldLock) -> Any:
    try:
        return tracking.create_run(stores, prepared.job.experiment_id, name, prepared.tags)
    except BaseException as error:
        # Where the answer did not come, the run may be there all the same: the next command looks for it.
        if isinstance(error, Exception) and not tracking.is_late(error):
            directory.remove()
        lock.close()
        raise


def refuse_ranks() -> None:
    """Raise ProjectError on ranks above 0 of a job."""
    other = policy.current()
    if other is not None:
        raise ProjectError(f"rank {other.rank} of a job submits nothing, only rank 0 does: ask is_rank_zero() first")


def environment(stores: Stores, prepared: Prepared) -> dict[str, str]:
    """What the job's processes start with, secrets included."""
    return {
        **processes.environment(),
        **stores.environment(),
        jobdir.HOME_VARIABLE: str(jobdir.home()),
        **jobenv.carried(prepared.variables),
    }


def stage() -> tuple[JobDir, locks.HeldLock]:
    """A job directory that has no run yet; raises ProjectError."""
    try:
        return JobDir.stage()
    except OSError as error:
        raise ProjectError(
            f"cannot create a job directory under {jobdir.home()}: {error.strerror}; set {jobdir.HOME_VARIABLE}"
        ) from error


def prepare(request: Request, directory: JobDir) -> Prepared:
    """Take the snapshot and describe the job; the run does not exist yet."""
    scratch = directory.path / "fetch"
    scratch.mkdir()
    description = request.source.describe(scratch)
    request = request.settled(description)
    place = placement.place(request.config, wants_gpu=request.wants_gpu)
    description = complete(description, request, place)
    variables = rank_variables(description, request)
    taken = snapshots.take(description.top, directory.snapshots, description.subdirectory)
    fetch.discard(scratch)
    job = _specify(request, place, description)
    job = replace(job, snapshot=taken.digest, environment_variables=tuple(sorted(variables)))
    if description.environment.has_local_paths:
        directory.restore_source(job)  # the environment's key covers their content
    job = _with_environment(job, directory, description)
    phase = Phase.QUEUED if preparation.is_prepared(job) else Phase.PREPARING
    run_tags = {
        **description.tags,
        "mlflow.project.env": description.environment.manager,
        **({MLFLOW_DOCKER_IMAGE_URI: job.container.image} if job.container else {}),
        **request.tags,
        **tags.of_job(job),
        **tags.here(),
        tags.STATUS: phase.value,
        tags.SUBMISSION: directory.path.name,
    }
    return Prepared(job, run_tags, variables)


def _with_environment(job: JobSpec, directory: JobDir, description: Description) -> JobSpec:
    """The job with its interpreter, if that is ready and nobody asked for newer packages."""
    if job.container is not None:
        return preparation.use_image(job, directory, job.container) if job.container.image_id else job
    project = directory.source / description.subdirectory
    spec = EnvironmentSpec.from_json(job.interpreter.description)
    ready = None if job.upgrade_environment else find_ready(spec, project, jobdir.environments())
    if ready is None or not ready.claim(directory.path):
        return job
    return preparation.use_environment(job, directory, ready)


def keeping(job: JobSpec, directory: JobDir) -> JobSpec:
    """The job, which has its environment under the run's name now; without, if somebody has just removed it."""
    interpreter = job.interpreter
    built = interpreter.python if interpreter.manager in BUILT else None
    if built is None or claim(Path(built), directory.path):
        return job
    return replace(job, interpreter=replace(interpreter, python=None, key=None))


def _specify(request: Request, place: placement.Placement, description: Description) -> JobSpec:
    config, environment = request.config, description.environment
    distribution, notices = placement.backend_here(request.launch, place)
    way = _way(request, place.scheduler)
    return JobSpec(
        run_id=_NO_RUN,
        experiment_id=request.experiment_id,
        project=description.name,
        entry_point=description.entry_point,
        command=description.command,
        parameters=description.parameters,
        interpreter=InterpreterSpec(environment.manager, environment.to_json()),
        resources=place.resources,
        distribution=distribution,
        container=description.container,
        compute=config.compute,
        scheduler=place.scheduler,
        scheduler_options=place.scheduler_options,
        subdirectory=description.subdirectory,
        inputs=description.inputs,
        input_paths=description.input_paths,
        datasets=description.datasets,
        storage_dir=description.storage_dir,
        grace_seconds=config.grace_period_seconds,
        max_seconds=config.max_run_duration_seconds,
        start_seconds=config.start_timeout_seconds,
        checkpoint_signal=config.checkpoint_signal,
        checkpoint_lead_seconds=config.checkpoint_lead_seconds,
        max_retries=config.max_retries,
        retry_exit_codes=config.retry_exit_codes,
        resume_from=str(resuming.find(config.resume_from)) if config.resume_from else None,
        relay=way.relay,
        after=after.check(config.after),
        prepare_on=config.prepare_on,
        rank_metrics=config.rank_metrics,
        shared_filesystem=config.shared_filesystem,
        upgrade_environment=config.upgrade_environment and environment.manager != "local",
        notices=(*request.notices, *place.notices, *notices, *way.notices),
        tracking_uri=tracking.without_credentials(request.stores.tracking_uri),
        registry_uri=tracking.without_credentials(request.stores.registry_uri),
    )


def _way(request: Request, scheduler: str) -> Way:
    artifacts = partial(tracking.artifact_location, request.stores, request.experiment_id)
    config, uri = request.config, request.stores.tracking_uri
    return choosing.choose(scheduler, uri, artifacts, asked=config.relay, shared=config.shared_filesystem)


def _start(  # noqa: PLR0913, PLR0917 - all that a job consists of
    job: JobSpec,
    stores: Stores,
    scheduler: Scheduler,
    directory: JobDir,
    lock: locks.HeldLock,
    environ: dict[str, str],
) -> None:
    try:
        job = keeping(job, directory)
        # The job's own first report waits for this lock, so SCHEDULED never comes after it; the job does not wait.
        with locks.holding(directory.delivery_lock):
            if preparation.is_prepared(job) and after.may_be_handed_over(job, scheduler):
                preparer.hand_over(job, scheduler, directory, lock, environ)
            else:
                directory.write_job(job)
                directory.enter(Phase.PREPARING)
                spawn_preparer(preparer.__name__, directory, [lock], environ)
            lock.close()
            _mark_scheduled(stores, job.run_id)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        if lock.fd >= 0:
            fail(job, stores, directory, lock, reason)
        raise


def _mark_scheduled(stores: Stores, run_id: str) -> None:
    try:
        tracking.mark_scheduled(stores, run_id)
    except MlflowException as error:
        # The job has been handed over and will say itself how it fares.
        _logger.warning("cannot mark run %s as SCHEDULED: %s", run_id, error)


def fail(job: JobSpec, stores: Stores, directory: JobDir, lock: locks.HeldLock, reason: str) -> None:
    """End the run of a job that nobody has taken on."""
    if not directory.exists:
        directory.write_job(job)
    directory.conclude(Phase.FAILED, f"the job could not be submitted: {reason}")
    lock.close()
    reconcile(directory, stores)


def spawn_preparer(module: str, directory: JobDir, held: Sequence[locks.HeldLock], environ: Mapping[str, str]) -> None:
    """Start what prepares a job, or the jobs of an array; it takes over the locks."""
    fds = [lock.fd for lock in held]
    argv = [sys.executable, "-m", module, str(directory.path), *map(str, fds)]
    try:
        detached.spawn(argv, directory.agent_log, directory.path, environ, fds)
    except OSError as error:
        raise SchedulerError(f"cannot start the preparer: {error}") from error
