"""The run that a script works for, told by its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from mlflow_pytorch_estimator.estimator.exceptions import RunEnvironmentException
from mlflow_pytorch_estimator.estimator.recording.offline import OfflineRun
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import INPUT_PREFIX
from mlflow_pytorch_estimator.schedulers.base import JOB_DIRECTORY_VARIABLE

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

_offline: list[OfflineRun] = []


def get_context(allow_offline: bool) -> Run | OfflineRun:
    """The run of the job, or the active MLflow run; else one that prints, the same at every call."""
    run_id = run_of_environment() or _of_this_job() or _active()
    if run_id:
        from mlflow_pytorch_estimator.estimator.workspace import Workspace

        return Workspace().get_run(run_id)
    if not allow_offline:
        raise RunEnvironmentException("this script runs outside of any run: submit it, or set allow_offline=True")
    if not _offline:
        _offline.append(OfflineRun())
    return _offline[0]


def run_of_environment() -> str | None:
    """The run that a launcher named for this process."""
    return os.environ.get("MLFLOW_RUN_ID") or None


def _of_this_job() -> str | None:
    # MLflow takes MLFLOW_RUN_ID out of the environment with the first `start_run`, which autologging calls too.
    directory = this_job()
    return directory.path.name if directory is not None and directory.exists else None


def _active() -> str | None:
    active = mlflow.active_run()
    return active.info.run_id if active else None


def is_this_job(run_id: str) -> bool:
    """Whether this process belongs to the job of that run."""
    directory = this_job()
    return directory is not None and directory.path.name == run_id


def this_job() -> JobDir | None:
    """The directory of the job that this process belongs to."""
    path = os.environ.get(JOB_DIRECTORY_VARIABLE)
    return JobDir(Path(path)) if path else None


def cancel_this_job() -> None:
    """Ask the agent to end the job that this process belongs to."""
    directory = this_job()
    if directory is not None:
        directory.request_cancel()


def inputs() -> dict[str, str]:
    """The path of each input; names as variables have them, in lower case."""
    directory = this_job()
    if directory is not None and directory.exists:
        return dict(directory.job.input_paths)
    found = [name for name in os.environ if name.startswith(INPUT_PREFIX)]
    return {name.removeprefix(INPUT_PREFIX).lower(): os.environ[name] for name in found}
