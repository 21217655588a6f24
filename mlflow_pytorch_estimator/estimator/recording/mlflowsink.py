"""Records into an MLflow run: numbers as metrics, texts as tags, tables, charts and images as files."""

from __future__ import annotations

import logging
import math
import time
from functools import cache
from typing import Any

from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.estimator.recording import charts, legalnames
from mlflow_pytorch_estimator.estimator.recording.chartdata import Chart
from mlflow_pytorch_estimator.estimator.recording.images import Picture
from mlflow_pytorch_estimator.estimator.recording.metrics import read_metrics
from mlflow_pytorch_estimator.estimator.recording.runlog import Entry, Files, Points, Rows, RunLog
from mlflow_pytorch_estimator.estimator.recording.values import Cell

_logger = logging.getLogger(__name__)
_READ_SECONDS = 60.0


class MlflowSink:
    """Stores what is logged in one run. Nothing here waits for the store; ``flush`` and the end of the process do."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._log = RunLog.of(client, run_id)

    def metric(self, name: str, value: float, step: int | None) -> None:
        """A metric of the run."""
        self._put(Points(name, [value], step, _now()))

    def text(self, name: str, value: str) -> None:
        """A tag, because MLflow's metrics are numbers; the last text counts."""
        _warn_text(name)
        self._put(Points(name, [], None, _now(), "text", value))

    def items(self, name: str, values: list[Cell]) -> None:
        """A metric with the places as steps, or a table of one column if there is a text among them."""
        floats = [float(value) for value in values if isinstance(value, (int, float))]
        if len(floats) == len(values):
            self._put(Points(name, floats, None, _now(), "list"))
        else:
            self._put(Rows(name, {name: values}, "texts"))

    def table(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """A table as MLflow's own pages show it."""
        self._put(Rows(name, columns))

    def row(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """A row of a table, and a metric for each of its numbers."""
        self._put(Rows(name, columns, "row"))
        for column, (value,) in columns.items():
            if isinstance(value, (int, float)):
                self._put(Points(f"{name}/{column}", [float(value)], None, _now()))

    def image(self, name: str, picture: Picture) -> None:
        """A file under ``images``."""
        suffix, content = picture.render()
        self._put(Files(name, "images", {suffix: content}))

    def chart(self, name: str, chart: Chart) -> None:
        """The JSON that was given and a picture of it, under ``charts``."""
        parts = {".json": chart.json()}
        try:
            parts[".png"] = charts.png(name, chart)
        except ImportError:
            _warn_undrawn()
        self._put(Files(name, "charts", parts, "chart"))

    def describe(self, name: str, description: str) -> None:
        """Kept beside the name; MLflow has no descriptions of metrics."""
        if self._log.describe(name, description):
            self._put(Points(name, [], None, _now(), description=description))

    def read(self, name: str | None) -> dict[str, Any]:
        """What the run holds, also of other processes."""
        self.flush(_READ_SECONDS)
        return read_metrics(self._client, self._run_id, name)

    def flush(self, timeout: float) -> bool:
        """Wait until the store has everything."""
        return self._log.delivery.flush(timeout)

    def _put(self, entry: Entry) -> None:
        _warn_renamed(entry.name)
        self._log.delivery.put(entry)


def _now() -> int:
    return math.floor(time.time() * 1000)


# A cached function runs once for each name and process.
@cache
def _warn_renamed(name: str) -> None:
    legal = legalnames.nearest(name)
    if legal != name:
        _logger.warning("MLflow refuses the name %r: it is logged as %r", name, legal)


@cache
def _warn_text(name: str) -> None:
    _logger.warning("%r is a text and MLflow's metrics are numbers: it is logged as a tag of the run", name)


@cache
def _warn_undrawn() -> None:
    _logger.warning("charts are stored as JSON only: install matplotlib to have them drawn")
