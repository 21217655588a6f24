"""What a rank above 0 writes on logged models."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from mlflow.utils.search_utils import SearchLoggedModelsUtils

from mlflow_pytorch_estimator.rank_policy.models import MemoryModels
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy
from mlflow_pytorch_estimator.rank_policy.runs import MemoryRuns


class GuardedModels:
    """Models that this process logs are kept in memory; those of the job's run are not written to."""

    def __init__(self, original: SimpleNamespace, policy: RankPolicy, runs: MemoryRuns, models: MemoryModels) -> None:
        self._original = original
        self._policy = policy
        self._runs = runs
        self._models = models

    def create_logged_model(  # noqa: PLR0913, PLR0917 - MLflow's signature
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Sequence[Any] | None = None,
        params: Sequence[Any] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """A model in memory, unless it belongs to a run that is neither the job's nor of this process."""
        if source_run_id and source_run_id != self._policy.run_id and source_run_id not in self._runs:
            return self._original.create_logged_model(experiment_id, name, source_run_id, tags, params, model_type)
        self._policy.tell()
        return self._models.create(experiment_id, name, source_run_id, tags or (), params or (), model_type)

    def get_logged_model(self, model_id: str, *arguments: Any, **named: Any) -> LoggedModel:
        """A model."""
        if model_id in self._models:
            return self._models.get(model_id)
        return self._original.get_logged_model(model_id, *arguments, **named)

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Set the status."""
        if model_id in self._models:
            return self._models.finalize(model_id, status)
        if self._drops(model_id):
            return self._original.get_logged_model(model_id)
        return self._original.finalize_logged_model(model_id, status)

    def set_logged_model_tags(self, model_id: str, tags: Sequence[Any]) -> None:
        """Set tags."""
        if model_id in self._models:
            self._models.set_tags(model_id, tags)
            return
        # A version that this rank has registered exists in its memory only, whoever's the model is.
        rest = [tag for tag in tags if tag.key != MLFLOW_MODEL_VERSIONS]
        if rest and not self._drops(model_id):
            self._original.set_logged_model_tags(model_id, rest)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag."""
        if model_id in self._models:
            self._models.delete_tag(model_id, key)
        elif not self._drops(model_id):
            self._original.delete_logged_model_tag(model_id, key)

    def log_logged_model_params(self, model_id: str, params: Sequence[Any]) -> None:
        """Set parameters."""
        if model_id in self._models:
            self._models.set_params(model_id, params)
        elif not self._drops(model_id):
            self._original.log_logged_model_params(model_id, params)

    def delete_logged_model(self, model_id: str) -> None:
        """Delete a model."""
        if model_id in self._models:
            self._models.delete(model_id)
        elif not self._drops(model_id):
            self._original.delete_logged_model(model_id)

    def set_model_versions_tags(self, name: str, version: str, model_id: str) -> None:
        """The note on a model about its version, which is in memory only: nothing to note elsewhere."""

    def search_logged_models(  # noqa: PLR0913, PLR0917 - MLflow's signature
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Any = None,
        max_results: int | None = None,
        order_by: Any = None,
        page_token: str | None = None,
    ) -> PagedList:
        """Stored models, and on the first page those of this process."""
        found = self._original.search_logged_models(
            experiment_ids, filter_string, datasets, max_results, order_by, page_token
        )
        own = [] if page_token else self._models.search(experiment_ids, filter_string, datasets)
        return PagedList(SearchLoggedModelsUtils.sort([*found, *own], order_by), found.token) if own else found

    def _drops(self, model_id: str) -> bool:
        """Whether a stored model is the job's."""
        if self._original.get_logged_model(model_id).source_run_id != self._policy.run_id:
            return False
        self._policy.tell()
        return True
