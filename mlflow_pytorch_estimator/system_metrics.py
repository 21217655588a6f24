"""The samples that the nodes have left in the job directory, as MLflow's system metrics."""

from __future__ import annotations

from collections import Counter

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.nodes.samples import MetricsFile
from mlflow_pytorch_estimator.spec import JobSpec

_MOST_METRICS = 500  # in one call; MLflow takes 1000


class SystemMetrics:
    """Uploads what has come since the last time: ``system/NAME``, for several nodes ``system/NODE/NAME``."""

    def __init__(self, client: MlflowClient, job: JobSpec, directory: JobDir) -> None:
        self._client = client
        self._run_id = job.run_id
        self._several = job.resources.node_count > 1
        self._file = MetricsFile(directory.system_metrics)
        self._offset = 0
        self._steps: Counter[str] = Counter()

    def upload(self) -> None:
        """Log the new samples; those that the store does not take are offered again the next time."""
        samples, offset = self._file.read(self._offset)
        steps = self._steps.copy()
        metrics = []
        for sample in samples:
            node = sample["node"]
            prefix = f"system/{node}/" if self._several else "system/"
            for name, value in sample["values"].items():
                metrics.append(Metric(prefix + name, value, int(sample["time"] * 1000), steps[node]))
            steps[node] += 1
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _MOST_METRICS])
        self._offset, self._steps = offset, steps
