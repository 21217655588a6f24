"""Reads a run for a person who looks: little at a time, and no longer than a few seconds where a store is away.

MLflow's client would try for minutes; whoever looks wants to hear that the store is away, and to close the widget.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking import MlflowClient
from mlflow.utils import mlflow_tags
from mlflow.utils.rest_utils import http_request

from mlflow_pytorch_estimator.estimator.showing.series import MOST_POINTS, Point, Series, of_points
from mlflow_pytorch_estimator.tracking import Stores

MOST_CHILDREN = 50
_SECONDS = 10
_OK = 200
GONE = "RESOURCE_DOES_NOT_EXIST"
"""The ``error_code`` for what is not in the store."""


@dataclass(frozen=True)
class Stored:
    """A run as the store has it. ``status`` is MLflow's, times are Unix seconds."""

    run_id: str
    name: str
    status: str
    start: float | None
    end: float | None
    tags: Mapping[str, str] = field(default_factory=dict)
    latest: Mapping[str, Point] = field(default_factory=dict)

    def own_metrics(self) -> list[str]:
        """The names of the script's metrics; MLflow's system metrics are left out."""
        return sorted(name for name in self.latest if not name.startswith("system/"))


class Reader(Protocol):
    """What is read of a store; each call raises MlflowException."""

    def run(self, run_id: str) -> Stored:
        """One run."""

    def children(self, experiment_id: str, run_id: str) -> list[Stored]:
        """The first of the runs below a run, oldest first; one more than ``MOST_CHILDREN`` where there are more."""

    def series(self, run_id: str, name: str) -> Series:
        """A metric with some of its values."""


def reader(stores: Stores) -> Reader:
    """The way to read those stores."""
    client = stores.client()
    store = client._tracking_client.store
    return _Served(store) if isinstance(store, RestStore) else _Direct(client)


class _Served:
    """A server. One try for each request: the next look is the next try."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def run(self, run_id: str) -> Stored:
        return _of_json(self._asked("GET", "runs/get", params={"run_id": run_id})["run"])

    def children(self, experiment_id: str, run_id: str) -> list[Stored]:
        wanted = {
            "experiment_ids": [experiment_id],
            "filter": _below(run_id),
            "max_results": MOST_CHILDREN + 1,
            "order_by": ["attributes.start_time ASC"],
        }
        return [_of_json(raw) for raw in self._asked("POST", "runs/search", json=wanted).get("runs", [])]

    def series(self, run_id: str, name: str) -> Series:
        params: dict[str, Any] = {"run_ids": [run_id], "metric_key": name, "max_results": MOST_POINTS}
        found = self._asked("GET", "metrics/get-history-bulk-interval", params=params)
        return of_points(name, (_point(raw) for raw in found.get("metrics", [])))

    def _asked(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = http_request(
            self._store.get_host_creds(),
            f"/api/2.0/mlflow/{path}",
            method,
            max_retries=0,
            timeout=_SECONDS,
            raise_on_status=False,
            **content,
        )
        try:
            said = answer.json()
        except ValueError:
            said = None  # a page of something between here and the server
        if answer.status_code == _OK and isinstance(said, dict):
            return said
        told = said if isinstance(said, dict) else {}
        kind = RESOURCE_DOES_NOT_EXIST if told.get("error_code") == GONE else TEMPORARILY_UNAVAILABLE
        raise MlflowException(f"{path}: {told.get('message') or f'answer {answer.status_code}'}", error_code=kind)


class _Direct:
    """A store without a server."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._store: Any = client._tracking_client.store

    def run(self, run_id: str) -> Stored:
        return _of_entity(self._client.get_run(run_id))

    def children(self, experiment_id: str, run_id: str) -> list[Stored]:
        found = self._client.search_runs(
            [experiment_id], _below(run_id), max_results=MOST_CHILDREN + 1, order_by=["attributes.start_time ASC"]
        )
        return list(map(_of_entity, found))

    def series(self, run_id: str, name: str) -> Series:
        sampled = self._store.get_metric_history_bulk_interval([run_id], name, MOST_POINTS, None, None)
        return of_points(name, map(_of_metric, sampled))


def _below(run_id: str) -> str:
    return f"tags.`{mlflow_tags.MLFLOW_PARENT_RUN_ID}` = '{run_id}'"


def _of_json(raw: Mapping[str, Any]) -> Stored:
    info, data = raw["info"], raw.get("data", {})
    return Stored(
        run_id=str(info["run_id"]),
        name=str(info.get("run_name", "")),
        status=str(info["status"]),
        start=_seconds(info.get("start_time")),
        end=_seconds(info.get("end_time")),
        tags={str(tag["key"]): str(tag.get("value", "")) for tag in data.get("tags", [])},
        latest={str(metric["key"]): _point(metric) for metric in data.get("metrics", [])},
    )


def _of_entity(entity: Any) -> Stored:
    info = entity.info
    return Stored(
        run_id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        start=_seconds(info.start_time),
        end=_seconds(info.end_time),
        tags=dict(entity.data.tags),
        latest=_latest(entity.data._metric_objs),
    )


def _latest(metrics: Iterable[Any]) -> dict[str, Point]:
    return {metric.key: _of_metric(metric) for metric in metrics}


def _point(raw: Mapping[str, Any]) -> Point:
    return Point(int(raw.get("step", 0)), int(raw.get("timestamp", 0)) / 1000, _number(float(raw.get("value", 0.0))))


def _of_metric(metric: Any) -> Point:
    return Point(metric.step, metric.timestamp / 1000, _number(metric.value))


def _number(value: float) -> float:
    # SQL has no infinity: MLflow stores the largest number for it.
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _seconds(milliseconds: Any) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
