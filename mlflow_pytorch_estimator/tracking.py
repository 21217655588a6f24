"""The MLflow run of a job: creating it with everything that MLflow would add later, and where it is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow.entities import RunStatus, SourceType
from mlflow.exceptions import MlflowException
from mlflow.projects.utils import _is_valid_branch_name
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_git_url_if_present
from mlflow.tracking.context.default_context import _get_user
from mlflow.utils import mlflow_tags
from mlflow.utils.git_utils import get_git_commit, get_git_repo_url
from mlflow.utils.time import get_current_time_millis

from mlflow_pytorch_estimator import fetch, tags
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.secretvalues import without_password
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

BACKEND_NAME = "gpu-cluster"


@dataclass(frozen=True)
class Stores:
    """A tracking store and a model registry, whatever MLflow's current ones are."""

    tracking_uri: str
    registry_uri: str

    @classmethod
    def current(cls) -> Stores:
        """MLflow's current ones, so that they mean the same in every working directory."""
        return cls(absolute(mlflow.get_tracking_uri()), absolute(mlflow.get_registry_uri()))

    def client(self) -> MlflowClient:
        """A client for both."""
        return MlflowClient(self.tracking_uri, self.registry_uri)

    def environment(self) -> dict[str, str]:
        """Variables with which another process, in another directory, reaches the same stores."""
        return {"MLFLOW_TRACKING_URI": absolute(self.tracking_uri), "MLFLOW_REGISTRY_URI": absolute(self.registry_uri)}


def project_tags(uri: str, version: str | None, directory: Path, entry_point: str) -> dict[str, str]:
    """The tags that MLflow gives a project run, those that it sets after the backend has returned included."""
    location = fetch.locate(uri)
    local = location.local
    if local is None:
        name = without_password(uri)
    elif location.subdirectory:
        name = f"{local}#{location.subdirectory}"
    else:
        name = without_password(_name_of_local(local))
    active = mlflow.active_run()
    repository = get_git_repo_url(str(directory))
    found: dict[str, str | None] = {
        mlflow_tags.MLFLOW_USER: _get_user(),
        mlflow_tags.MLFLOW_SOURCE_NAME: name,
        mlflow_tags.MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.PROJECT),
        mlflow_tags.MLFLOW_PROJECT_ENTRY_POINT: entry_point,
        mlflow_tags.MLFLOW_PROJECT_BACKEND: BACKEND_NAME,
        mlflow_tags.MLFLOW_GIT_COMMIT: get_git_commit(str(directory)),
        mlflow_tags.MLFLOW_GIT_REPO_URL: without_password(repository) if repository else None,
        mlflow_tags.MLFLOW_GIT_BRANCH: version if _is_valid_branch_name(str(directory), version) else None,
        mlflow_tags.MLFLOW_PARENT_RUN_ID: active.info.run_id if active else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _name_of_local(local: Path) -> str:
    try:
        return str(_get_git_url_if_present(str(local)))
    except TypeError:  # a bare repository, which has no working copy
        return f"file://{local}"


def source_tags(script: Path, entry_point: str) -> dict[str, str]:
    """The tags that MLflow gives a run that a script on this machine starts."""
    repository = get_git_repo_url(str(script.parent))
    found: dict[str, str | None] = {
        mlflow_tags.MLFLOW_USER: _get_user(),
        mlflow_tags.MLFLOW_SOURCE_NAME: str(script),
        mlflow_tags.MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.LOCAL),
        mlflow_tags.MLFLOW_PROJECT_ENTRY_POINT: entry_point,
        mlflow_tags.MLFLOW_PROJECT_BACKEND: BACKEND_NAME,
        mlflow_tags.MLFLOW_GIT_COMMIT: get_git_commit(str(script.parent)),
        mlflow_tags.MLFLOW_GIT_REPO_URL: without_password(repository) if repository else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def artifact_location(stores: Stores, experiment_id: str) -> str:
    """Where the runs of an experiment put their files."""
    return str(stores.client().get_experiment(experiment_id).artifact_location)


def create_run(stores: Stores, experiment_id: str, name: str | None, run_tags: Mapping[str, str]) -> Any:
    """A new run; MLflow makes it RUNNING, see ``mark_scheduled``."""
    return stores.client().create_run(experiment_id, tags=dict(run_tags), run_name=name)


def is_late(error: Exception) -> bool:
    """Whether a store may have done what it was asked, and only the answer has not come in time."""
    return "timed out" in str(error)


def mark_scheduled(stores: Stores, run_id: str) -> None:
    """Say that the run waits."""
    stores.client().update_run(run_id, status=RunStatus.to_string(RunStatus.SCHEDULED))


def end(client: MlflowClient, run_id: str, status: str, begun: int | None = None) -> None:
    """Set the final status of a run that began then (Unix milliseconds).

    MLflow's own call prints the run's address where the job's output should be.
    """
    when = max(begun or 0, get_current_time_millis())  # the clock may have been set back since
    client._tracking_client.store.update_run_info(
        run_id, run_status=RunStatus.from_string(status), end_time=when, run_name=None
    )


def end_orphan(directory: JobDir) -> bool:
    """Fail the run of a submitter that was killed just after creating it; False if the store does not answer."""
    client = stores_of(directory.job).client()
    try:
        wanted = f"tags.`{tags.SUBMISSION}` = '{directory.path.name}'"
        for run in client.search_runs([directory.job.experiment_id], wanted):
            client.set_tag(run.info.run_id, tags.STATUS, Phase.FAILED.value)
            client.set_tag(run.info.run_id, tags.FAILURE, "the process that submitted the job was killed")
            end(client, run.info.run_id, Phase.FAILED.mlflow_status)
    except MlflowException:
        return False
    return True


def stores_of(job: JobSpec) -> Stores:
    """The stores of a job's run: MLflow's current ones where they are the same but for a password."""
    current = Stores.current()
    if job.tracking_uri in {None, without_credentials(current.tracking_uri)}:
        return current
    return Stores(job.tracking_uri or "", job.registry_uri or job.tracking_uri or "")


def without_credentials(uri: str) -> str:
    """A store URI that may be written into a file."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def absolute(uri: str) -> str:
    """A store URI that means the same in every working directory."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return str(Path(uri).absolute())
    return uri


def run_url(run: Any, tracking_uri: str) -> str | None:
    """The page of the run, where the store has a user interface."""
    return page_url(run.info.experiment_id, run.info.run_id, tracking_uri)


def page_url(experiment_id: str, run_id: str, tracking_uri: str) -> str | None:
    """The page of a run by its ids."""
    base = os.environ.get("MLFLOW_TRACKING_UI_URL")
    if not base:
        if urlsplit(tracking_uri).scheme not in {"http", "https"}:
            return None
        base = without_password(tracking_uri)
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
