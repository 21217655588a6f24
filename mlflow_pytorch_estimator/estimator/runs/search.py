"""Runs found by id, experiment, parent, tags and status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.utils import mlflow_tags

from mlflow_pytorch_estimator.errors import one_line
from mlflow_pytorch_estimator.estimator.checking import has_tags, store_errors
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.experiment import Experiment
from mlflow_pytorch_estimator.estimator.runs.details import phase, properties
from mlflow_pytorch_estimator.tracking import without_credentials

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run
    from mlflow_pytorch_estimator.estimator.workspace import Workspace

Tags = str | Mapping[str, Any] | None
_PAGE = 500


def get(workspace: Workspace, run_id: str) -> Run:
    """The run of that id; raises UserErrorException when there is none."""
    from mlflow_pytorch_estimator.estimator.runs.run import Run

    client = workspace.stores.client()
    try:
        experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        raise unread(run_id, workspace.get_mlflow_tracking_uri(), error) from error
    return Run(Experiment._of(workspace, experiment), run_id)


def unread(run_id: str, tracking_uri: str, error: MlflowException) -> UserErrorException:
    """The error for a run that is not there, or a store that does not say."""
    store = without_credentials(tracking_uri)
    if error.error_code == "RESOURCE_DOES_NOT_EXIST":
        return UserErrorException(f"no run {run_id!r} in {store}")
    return UserErrorException(f"cannot read run {run_id!r} from {store}: {one_line(error)}")


def check_type(kind: str | None) -> None:
    """Types of the original name services that do not exist here."""
    if kind is not None:
        raise UserErrorException(f"type={kind!r}: runs have no types here; use tags")


def listed(
    experiment: Experiment, tags: Tags, wanted_properties: Tags, status: str | None, include_children: bool
) -> Iterator[Run]:
    """The runs of an experiment, newest first."""
    for entity in _search(experiment, ""):
        child = mlflow_tags.MLFLOW_PARENT_RUN_ID in entity.data.tags
        if (include_children or not child) and _fits(entity, tags, wanted_properties, status):
            yield _run(experiment, entity)


def children(run: Run, recursive: bool, tags: Tags, wanted_properties: Tags, status: str | None) -> Iterator[Run]:
    """The runs below a run, newest first; with ``recursive`` those below them too."""
    for entity in _search(run.experiment, f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{run.id}'"):
        child = _run(run.experiment, entity)
        if _fits(entity, tags, wanted_properties, status):
            yield child
        if recursive:
            yield from children(child, recursive, tags, wanted_properties, status)


def _search(experiment: Experiment, wanted: str) -> Iterator[Any]:
    client, token = experiment.workspace.stores.client(), None
    while True:
        with store_errors(f"cannot list the runs of experiment {experiment.name!r}"):
            page = client.search_runs([experiment.id], wanted, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _fits(entity: Any, tags: Tags, wanted_properties: Tags, status: str | None) -> bool:
    found = entity.data.tags
    return (
        has_tags(found, tags)
        and has_tags(properties(found), wanted_properties)
        and (status is None or str(phase(entity, None)).lower() == status.lower())
    )


def _run(experiment: Experiment, entity: Any) -> Run:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

    return Run(experiment, entity.info.run_id)
