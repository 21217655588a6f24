"""CPU, memory, disk, network and GPUs of the node as MLflow's system metrics."""

from __future__ import annotations

import time

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_INTERVAL_SECONDS = 10.0


class NodeMetrics:
    """MLflow's own monitors, sampled when the agent says so: its thread would end with the script's ``start_run``."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._monitor: SystemMetricsMonitor | None = None
        self._next = 0.0

    def sample(self) -> None:
        """Log one set of values if it is time; the first round only primes the counters."""
        now = time.monotonic()
        if self._monitor is None:
            self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=True)
            self._monitor.collect_metrics()
            for monitor in self._monitor.monitors:
                monitor.clear_metrics()
        elif now >= self._next:
            self._next = now + _INTERVAL_SECONDS
            self._monitor.collect_metrics()
            self._monitor.publish_metrics(self._monitor.aggregate_metrics())
            self._monitor.mlflow_logger.flush()
