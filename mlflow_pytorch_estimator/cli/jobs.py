"""Jobs and runs, many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow_pytorch_estimator import tags
from mlflow_pytorch_estimator.cli import finding
from mlflow_pytorch_estimator.cli.facts import Facts, of_directory, of_entity
from mlflow_pytorch_estimator.errors import GpuClusterError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir

_PAGE = 1000
_OURS = f"tags.`{tags.SCHEDULER}` != ''"


def here(experiment: str | None = None) -> list[JobDir]:
    """The jobs that were submitted from here, newest last; raises GpuClusterError for an unknown experiment."""
    wanted = _experiments(experiment) if experiment else None
    return [item for item in finding.every() if wanted is None or item.job.experiment_id in wanted]


def stored(experiment: str | None, limit: int, wanted: str = "") -> list[Facts]:
    """Runs of this backend in the store, newest first, each with what its job directory knows better."""
    facts = []
    for entity in _entities(experiment, limit, wanted):
        directory = JobDir.of_run(entity.info.run_id)
        facts.append(of_directory(directory, entity) if directory.exists else of_entity(entity))
    return facts


def tidy() -> None:
    """End what killed submitters have left."""
    from mlflow_pytorch_estimator import tidying
    from mlflow_pytorch_estimator.tracking import Stores

    tidying.tidy(Stores.current())


def _entities(experiment: str | None, limit: int, wanted: str) -> Iterator[Any]:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client, token, left = MlflowClient(), None, limit
    ids = _experiments(experiment)
    question = f"{_OURS} and {wanted}" if wanted else _OURS
    while left > 0 and ids:
        try:
            page = client.search_runs(ids, question, max_results=min(left, _PAGE), page_token=token)
        except MlflowException as error:
            raise GpuClusterError(f"the tracking store does not list runs: {one_line(error)}") from error
        yield from page
        left -= len(page)
        token = page.token
        if not token:
            return


def _experiments(name: str | None) -> list[str]:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    try:
        if name is None:
            return [item.experiment_id for item in client.search_experiments(max_results=_PAGE)]
        found = client.get_experiment_by_name(name)
    except MlflowException as error:
        raise GpuClusterError(f"the tracking store does not answer: {one_line(error)}") from error
    if found is None:
        raise GpuClusterError(f"there is no experiment {name!r} in the tracking store")
    return [found.experiment_id]
