"""A job once more: the same sources, command, resources and packages, in a run of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import library, submission, tags, tracking
from mlflow_pytorch_estimator.environments import BUILT, EnvironmentSpec, claim
from mlflow_pytorch_estimator.errors import ConfigError, ProjectError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.preparation import is_prepared
from mlflow_pytorch_estimator.reconcile import lives
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submission import Prepared
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores

_NOT_INHERITED = ("gpu_cluster.", "mlflow.note", "mlflow.log", "mlflow.runName", "mlflow.user", "mlflow.modelVersions")


def resubmit(old: JobDir, *, resume: bool = False, run_name: str | None = None) -> GpuClusterSubmittedRun:
    """Submit the job of a run again. With ``resume`` it finds the checkpoints that the other one has left.

    Raises ProjectError or ConfigError before there is a run.
    """
    submission.refuse_ranks()
    job = old.job
    if job.members:
        raise ProjectError(f"run {old.path.name} is one above many: retry its runs, which are {len(job.members)}")
    if old.outcome is None and lives(old):
        raise ProjectError(
            f"run {old.path.name} has not ended: wait for it or cancel it first, or submit the job again"
        )
    stores = tracking.stores_of(job)
    entity = _run(stores, old.path.name)
    scheduler = load_scheduler(job.scheduler)
    scheduler.anticipate()
    try:
        name = run_name or entity.info.run_name
        return submission.create(partial(_prepared, old, entity, resume), stores, name, scheduler)
    finally:
        scheduler.dismiss()


def _prepared(old: JobDir, entity: Any, resume: bool, directory: JobDir) -> Prepared:
    job = old.job
    variables = _variables(job, os.environ)
    begin = _checkpoints(old) if resume else job.resume_from
    job = replace(job, run_id="", array=None, after=(), resume_from=begin)
    job = _with_environment(job, old, directory)
    phase = Phase.QUEUED if is_prepared(job) else Phase.PREPARING
    inherited = {key: text for key, text in entity.data.tags.items() if not key.startswith(_NOT_INHERITED)}
    own = {tags.RETRY_OF: old.path.name, tags.STATUS: phase.value, tags.SUBMISSION: directory.path.name}
    return Prepared(job, {**inherited, **tags.of_job(job), **tags.here(), **own}, variables)


def _with_environment(job: JobSpec, old: JobDir, directory: JobDir) -> JobSpec:
    """The job with the very environment of the other one, or to be built again from the same description."""
    interpreter = job.interpreter
    if interpreter.manager not in BUILT and job.container is None:
        return job
    library.deliver(directory.library)
    there = job.container is not None or (
        interpreter.python is not None and claim(Path(interpreter.python), directory.path)
    )
    if not there:
        return replace(job, interpreter=replace(interpreter, python=None, key=None))
    for path, copy in ((old.environment, directory.environment), (old.horovod, directory.horovod)):
        if path.exists():
            shutil.copyfile(path, copy)
    return job


def _checkpoints(old: JobDir) -> str:
    if not old.checkpoints.is_dir() or not any(old.checkpoints.iterdir()):
        raise ConfigError(f"run {old.path.name} has left no checkpoints (its script had CHECKPOINT_DIR)")
    return str(old.checkpoints)


def _variables(job: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that were set for the job: no file keeps the values, so this shell must have them."""
    described = dict(EnvironmentSpec.from_json(job.interpreter.description).variables)
    known = {**described, **environ}
    missing = [name for name in job.environment_variables if name not in known]
    if missing:
        raise ConfigError(f"the job had variables whose values are kept nowhere: export {', '.join(missing)} first")
    return {name: known[name] for name in job.environment_variables}


def _run(stores: Stores, run_id: str) -> Any:
    try:
        return stores.client().get_run(run_id)
    except MlflowException as error:
        raise ProjectError(f"cannot read run {run_id}, which is to be tried again: {one_line(error)}") from error
