"""Logged models that exist only in this process; their files lie in the temporary folder and can be loaded from it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from mlflow.utils.search_utils import SearchLoggedModelsUtils

from mlflow_pytorch_estimator.rank_policy import scratch


class MemoryModels:
    """The models that a rank has logged, by their ids."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._models

    def create(  # noqa: PLR0913, PLR0917 - what MLflow's method takes
        self,
        experiment_id: str,
        name: str | None,
        source_run_id: str | None,
        tags: Iterable[Any],
        params: Iterable[Any],
        model_type: str | None,
    ) -> LoggedModel:
        """Begin a model."""
        model_id = f"m-{uuid.uuid4().hex}"
        now = int(time.time() * 1000)
        with self._lock:
            self._models[model_id] = {
                "experiment_id": str(experiment_id),
                "model_id": model_id,
                "name": name or model_id,
                "artifact_location": str(scratch.folder("models", model_id, "artifacts")),
                "creation_timestamp": now,
                "last_updated_timestamp": now,
                "model_type": model_type,
                "source_run_id": source_run_id,
                "status": LoggedModelStatus.PENDING,
                "tags": {tag.key: tag.value for tag in tags},
                "params": {param.key: param.value for param in params},
                "metrics": [],
            }
        return self.get(model_id)

    def get(self, model_id: str) -> LoggedModel:
        """One model."""
        with self._lock:
            return _entity(self._models[model_id])

    def finalize(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Set the status."""
        with self._lock:
            self._models[model_id].update(status=status, last_updated_timestamp=int(time.time() * 1000))
        return self.get(model_id)

    def set_tags(self, model_id: str, tags: Iterable[Any]) -> None:
        """Keep tags."""
        with self._lock:
            self._models[model_id]["tags"].update((tag.key, tag.value) for tag in tags)

    def delete_tag(self, model_id: str, key: str) -> None:
        """Forget a tag."""
        with self._lock:
            self._models[model_id]["tags"].pop(key, None)

    def set_params(self, model_id: str, params: Iterable[Any]) -> None:
        """Keep parameters."""
        with self._lock:
            self._models[model_id]["params"].update((param.key, param.value) for param in params)

    def log(self, metrics: Iterable[Metric]) -> None:
        """Keep the metrics that belong to one of these models."""
        with self._lock:
            for metric in metrics:
                if metric.model_id in self._models:
                    self._models[metric.model_id]["metrics"].append(metric)

    def delete(self, model_id: str) -> None:
        """Forget a model."""
        with self._lock:
            del self._models[model_id]

    def search(self, experiment_ids: Sequence[str], filter_string: str | None, datasets: Any) -> list[LoggedModel]:
        """The models in these experiments that match."""
        wanted = {str(experiment) for experiment in experiment_ids}
        with self._lock:
            found = [_entity(model) for model in self._models.values() if model["experiment_id"] in wanted]
        return list(SearchLoggedModelsUtils.filter_logged_models(found, filter_string, datasets))


def _entity(model: dict[str, Any]) -> LoggedModel:
    # The entity must not share what changes later.
    return LoggedModel(
        **{**model, "tags": dict(model["tags"]), "params": dict(model["params"]), "metrics": list(model["metrics"])}
    )
