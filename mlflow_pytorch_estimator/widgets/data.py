"""What a widget shows as a plain dict, under the original's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow_pytorch_estimator.estimator.showing.series import Series
from mlflow_pytorch_estimator.estimator.showing.sight import Sight


def of(sight: Sight, logs: Mapping[str, str]) -> dict[str, Any]:
    """The dict; ``logs`` are the ends of the logs by name. Numbers that JSON does not have are None."""
    return {
        "status": str(sight.phase),
        "run_id": sight.run_id,
        "workbench_run_details_uri": sight.url,
        "run_properties": {
            "run_id": sight.run_id,
            "name": sight.name,
            "experiment": sight.experiment,
            "status": str(sight.phase),
            "reason": sight.reason,
            "traceback": sight.traceback,
            "compute": sight.compute,
            "elapsed_seconds": sight.elapsed,
            "phases": [{"phase": phase, "seconds": seconds} for phase, seconds in sight.phases],
            "canceling": sight.canceling,
            "tags": dict(sight.tags),
            "log_files": list(sight.logs),
        },
        "metrics": {name: _plain(sight.latest[name].value) for name in sight.metrics},
        "run_metrics": [_metric(sight.run_id, series) for series in sight.series],
        "run_logs": dict(logs),
        "child_runs": [
            {"run_id": child.run_id, "name": child.name, "status": str(child.phase), "url": child.url}
            for child in sight.children
        ],
        "error": sight.trouble or None,
        "loading": False,
    }


def _metric(run_id: str, series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "run_id": run_id,
        "categories": [point.step for point in series.points],
        "series": [{"data": [_plain(point.value) for point in series.points]}],
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
