"""What a rank above 0 writes on runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunInfo, RunTag
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.search_utils import SearchUtils

from mlflow_pytorch_estimator.rank_policy import scratch
from mlflow_pytorch_estimator.rank_policy.models import MemoryModels
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy
from mlflow_pytorch_estimator.rank_policy.runs import MemoryRuns

_MAX_KEY = 250
_ELSEWHERE = "m-elsewhere"


class GuardedRuns:
    """The job's run drops, runs of this process are kept in memory, other runs are written to."""

    def __init__(self, original: SimpleNamespace, policy: RankPolicy, runs: MemoryRuns, models: MemoryModels) -> None:
        self._original = original
        self._policy = policy
        self._runs = runs
        self._models = models

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag], run_name: str | None
    ) -> Run:
        """A run in memory."""
        self._policy.tell()
        return self._runs.create(experiment_id, user_id, start_time, tags, run_name)

    def get_run(self, run_id: str) -> Run:
        """A run; the job's with a place for files in which nothing is kept."""
        if run_id in self._runs:
            return self._runs.get(run_id)
        run = self._original.get_run(run_id)
        if run_id != self._policy.run_id:
            return run
        return Run(self._own_info(run.info), run.data, run.inputs, run.outputs)

    def update_run_info(self, run_id: str, run_status: int, end_time: int | None, run_name: str | None) -> RunInfo:
        """Status, end and name. Silent: to begin and end a run is not to log something."""
        if run_id in self._runs:
            return self._runs.update(run_id, run_status, end_time, run_name)
        if run_id == self._policy.run_id:
            return self.get_run(run_id).info
        return self._original.update_run_info(run_id, run_status, end_time, run_name)

    def delete_run(self, run_id: str) -> None:
        """Delete a run of this process."""
        self._set_stage(run_id, LifecycleStage.DELETED, "delete_run")

    def restore_run(self, run_id: str) -> None:
        """Restore a run of this process."""
        self._set_stage(run_id, LifecycleStage.ACTIVE, "restore_run")

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Metrics, parameters and tags."""
        if self._passes(run_id):
            self._original.log_batch(run_id, metrics=metrics, params=params, tags=tags)
            return
        kept = self._keep(run_id, metrics, params, tags)
        if kept:
            self._original.log_batch(run_id, metrics=kept, params=[], tags=[])

    def log_batch_async(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> RunOperations:
        """The same, with something to wait for."""
        if self._passes(run_id):
            return self._original.log_batch_async(run_id, metrics=metrics, params=params, tags=tags)
        kept = self._keep(run_id, metrics, params, tags)
        if not kept:
            return RunOperations([])
        return self._original.log_batch_async(run_id, metrics=kept, params=[], tags=[])

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """One metric."""
        if self._passes(run_id):
            self._original.log_metric(run_id, metric)
            return
        for kept in self._keep(run_id, [metric], (), ()):
            self._original.log_metric(run_id, kept)

    def log_metric_async(self, run_id: str, metric: Metric) -> RunOperations:
        """One metric, with something to wait for."""
        return self.log_batch_async(run_id, [metric], [], [])

    def log_param(self, run_id: str, param: Param) -> None:
        """One parameter."""
        if self._passes(run_id):
            self._original.log_param(run_id, param)
        else:
            self._keep(run_id, (), [param], ())

    def log_param_async(self, run_id: str, param: Param) -> RunOperations:
        """One parameter, with something to wait for."""
        return self.log_batch_async(run_id, [], [param], [])

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """One tag."""
        if self._passes(run_id):
            self._original.set_tag(run_id, tag)
        else:
            self._keep(run_id, (), (), [tag])

    def set_tag_async(self, run_id: str, tag: RunTag) -> RunOperations:
        """One tag, with something to wait for."""
        return self.log_batch_async(run_id, [], [], [tag])

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag."""
        if self._passes(run_id):
            self._original.delete_tag(run_id, key)
        elif run_id in self._runs:
            self._runs.delete_tag(run_id, key)
        else:
            self._policy.tell()

    def log_inputs(
        self, run_id: str, datasets: Sequence[Any] | None = None, models: Sequence[Any] | None = None
    ) -> None:
        """Datasets and models that a run has used."""
        if self._passes(run_id):
            self._original.log_inputs(run_id, datasets=datasets, models=models)
        elif run_id in self._runs:
            self._runs.log_inputs(run_id, datasets or (), models or ())
        else:
            self._policy.tell()

    def log_outputs(self, run_id: str, models: Sequence[Any]) -> None:
        """Models that a run has made."""
        if self._passes(run_id):
            self._original.log_outputs(run_id, models)
        elif run_id in self._runs:
            self._runs.log_outputs(run_id, models)
        else:
            self._policy.tell()

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:
        """The older record of a model, in a tag."""
        if self._passes(run_id):
            self._original.record_logged_model(run_id, mlflow_model)
        else:
            self._policy.tell()

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList:
        """All values of a metric."""
        if run_id in self._runs:
            return PagedList(self._runs.history(run_id, metric_key), None)
        found = self._original.get_metric_history(run_id, metric_key, max_results, page_token)
        if run_id != self._policy.run_id or not self._policy.keeps_metrics:
            return found
        return PagedList([_not_to_copy(metric) for metric in found], found.token)

    def search_runs(  # noqa: PLR0913, PLR0917 - MLflow's signature
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList:
        """Stored runs, and on the first page those of this process."""
        found = self._original.search_runs(
            experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
        )
        own = [] if page_token else self._runs.search(experiment_ids, filter_string, run_view_type)
        return PagedList(SearchUtils.sort([*found, *own], order_by), found.token) if own else found

    def _passes(self, run_id: str) -> bool:
        return run_id != self._policy.run_id and run_id not in self._runs

    def _keep(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> list[Metric]:
        """Put it where it belongs; what is left are the metrics to write into the job's run."""
        self._models.log(metrics)
        if run_id in self._runs:
            self._runs.log(run_id, metrics, params, tags)
            return []
        self._policy.tell()
        if not self._policy.keeps_metrics:
            return []
        return [self._prefixed(metric) for metric in metrics]

    def _prefixed(self, metric: Metric) -> Metric:
        prefix = self._policy.prefix
        # A store may write one thing through another of its methods, and so come here twice.
        key = metric.key if metric.key.startswith(prefix) else prefix + metric.key
        # Without its model, which no store knows.
        return Metric(key[:_MAX_KEY], metric.value, metric.timestamp, metric.step)

    def _set_stage(self, run_id: str, stage: str, method: str) -> None:
        if run_id in self._runs:
            self._runs.set_stage(run_id, stage)
        elif run_id == self._policy.run_id:
            self._policy.tell()
        else:
            getattr(self._original, method)(run_id)

    def _own_info(self, info: RunInfo) -> RunInfo:
        return RunInfo(
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            user_id=info.user_id,
            status=info.status,
            start_time=info.start_time,
            end_time=info.end_time,
            lifecycle_stage=info.lifecycle_stage,
            artifact_uri=scratch.stand_in(info.artifact_uri, "job", info.run_id, "artifacts"),
            run_name=info.run_name,
        )


def _not_to_copy(metric: Metric) -> Metric:
    """The metric as one of a model: `log_model` logs a run's other metrics again, which here are other ranks'."""
    return Metric(
        metric.key,
        metric.value,
        metric.timestamp,
        metric.step,
        model_id=metric.model_id or _ELSEWHERE,
        dataset_name=metric.dataset_name,
        dataset_digest=metric.dataset_digest,
        run_id=metric.run_id,
    )
