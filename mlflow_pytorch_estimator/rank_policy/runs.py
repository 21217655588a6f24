"""Runs that exist only in this process."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import (
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.search_utils import SearchUtils

from mlflow_pytorch_estimator.rank_policy import scratch


class _Kept:
    """One run: what was logged into it."""

    def __init__(self, run_id: str, experiment_id: str, user_id: str, start_time: int | None) -> None:
        self.info: dict[str, Any] = {
            "run_id": run_id,
            "experiment_id": experiment_id,
            "user_id": user_id,
            "status": RunStatus.to_string(RunStatus.RUNNING),
            "start_time": start_time or int(time.time() * 1000),
            "end_time": None,
            "lifecycle_stage": LifecycleStage.ACTIVE,
        }
        self.metrics: dict[str, list[Metric]] = {}
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.datasets: list[Any] = []
        self.model_inputs: list[Any] = []
        self.model_outputs: list[Any] = []

    def entity(self) -> Run:
        """The run as MLflow's stores answer it: of each metric the last value."""
        last = [max(found, key=lambda m: (m.step, m.timestamp, m.value)) for found in self.metrics.values()]
        artifacts = str(scratch.folder("runs", self.info["run_id"], "artifacts"))
        return Run(
            RunInfo(**self.info, artifact_uri=artifacts, run_name=self.tags.get(MLFLOW_RUN_NAME)),
            RunData(
                last,
                [Param(key, value) for key, value in self.params.items()],
                [RunTag(key, value) for key, value in self.tags.items()],
            ),
            RunInputs(dataset_inputs=list(self.datasets), model_inputs=list(self.model_inputs)),
            RunOutputs(model_outputs=list(self.model_outputs)),
        )


class MemoryRuns:
    """The runs that a rank has created, by their ids."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._runs: dict[str, _Kept] = {}
        self._lock = threading.RLock()

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def create(
        self, experiment_id: str, user_id: str, start_time: int | None, tags: Iterable[RunTag], run_name: str | None
    ) -> Run:
        """Begin a run."""
        run_id = uuid.uuid4().hex
        kept = _Kept(run_id, str(experiment_id), user_id, start_time)
        kept.tags.update((tag.key, tag.value) for tag in tags or ())
        kept.tags.setdefault(MLFLOW_RUN_NAME, run_name or f"rank-{self._rank}-{run_id[:8]}")
        with self._lock:
            self._runs[run_id] = kept
        return kept.entity()

    def get(self, run_id: str) -> Run:
        """One run."""
        with self._lock:
            return self._runs[run_id].entity()

    def log(self, run_id: str, metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]) -> None:
        """Keep metrics, parameters and tags."""
        with self._lock:
            kept = self._runs[run_id]
            for metric in metrics:
                kept.metrics.setdefault(metric.key, []).append(metric)
            kept.params.update((param.key, param.value) for param in params)
            kept.tags.update((tag.key, tag.value) for tag in tags)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Forget a tag."""
        with self._lock:
            self._runs[run_id].tags.pop(key, None)

    def log_inputs(self, run_id: str, datasets: Iterable[Any], models: Iterable[Any]) -> None:
        """Keep what went into a run."""
        with self._lock:
            self._runs[run_id].datasets.extend(datasets)
            self._runs[run_id].model_inputs.extend(models)

    def log_outputs(self, run_id: str, models: Iterable[Any]) -> None:
        """Keep what came out of a run."""
        with self._lock:
            self._runs[run_id].model_outputs.extend(models)

    def update(self, run_id: str, status: int | None, end_time: int | None, run_name: str | None) -> RunInfo:
        """Change status, end and name."""
        with self._lock:
            kept = self._runs[run_id]
            if status is not None:
                kept.info["status"] = RunStatus.to_string(status)
            if end_time is not None:
                kept.info["end_time"] = end_time
            if run_name:
                kept.tags[MLFLOW_RUN_NAME] = run_name
            return kept.entity().info

    def set_stage(self, run_id: str, stage: str) -> None:
        """Delete or restore."""
        with self._lock:
            self._runs[run_id].info["lifecycle_stage"] = stage

    def history(self, run_id: str, key: str) -> list[Metric]:
        """All values of a metric."""
        with self._lock:
            return list(self._runs[run_id].metrics.get(key, ()))

    def search(self, experiment_ids: Sequence[str], filter_string: str | None, view: int) -> list[Run]:
        """The runs in these experiments that match."""
        stages = LifecycleStage.view_type_to_stages(ViewType.ACTIVE_ONLY if view is None else view)
        wanted = {str(experiment) for experiment in experiment_ids}
        with self._lock:
            runs = [kept.entity() for kept in self._runs.values() if kept.info["experiment_id"] in wanted]
        return list(SearchUtils.filter([run for run in runs if run.info.lifecycle_stage in stages], filter_string))
