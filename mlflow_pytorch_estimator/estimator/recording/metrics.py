"""Reads back what was logged into a run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.errors import UnknownRunError
from mlflow_pytorch_estimator.estimator.recording.ledger import Mark, read_marks
from mlflow_pytorch_estimator.estimator.recording.runlog import read_json, read_table, text_tag

_SYSTEM = "system/"


def read_metrics(client: MlflowClient, run_id: str, name: str | None = None) -> dict[str, Any]:
    """What was logged, by the names that the script used.

    A number that was logged once is a float, several are a list in the order of their steps; a list is a list, a table
    a dict of columns, a text a text, a chart its JSON, an image the path of its latest file. Without ``name``,
    MLflow's system metrics and the columns of ``log_row``, which are in their table, are left out.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UnknownRunError(f"no run {run_id}: {error}") from error
    marks = read_marks(run.data.tags)
    keys = set(run.data.metrics)
    original = {mark.key: mark.name for mark in marks.values()}
    if name is None:
        wanted = [original.get(key, key) for key in sorted(keys) if not key.startswith(_SYSTEM)]
        wanted = [*dict.fromkeys([*wanted, *marks])]
        wanted = [each for each in wanted if not _is_column(each, marks)]
    else:
        wanted = [name]
    found = {each: _read(client, run, marks.get(original.get(each, each)) or Mark(each, each)) for each in wanted}
    return {each: value for each, value in found.items() if value is not None}


def _is_column(name: str, marks: dict[str, Mark]) -> bool:
    table, slash, _ = name.rpartition("/")
    return bool(slash) and table in marks and marks[table].kind == "row"


def _read(client: MlflowClient, run: Any, mark: Mark) -> object:
    if mark.path is not None and mark.kind in _FILES:
        return _FILES[mark.kind](client, run.info.run_id, mark)
    values = _history(client, run, mark.key)
    if mark.kind == "list":
        return values
    if values:
        return values[0] if len(values) == 1 else values
    return run.data.tags.get(text_tag(mark.key)) if mark.kind == "text" else None


def _history(client: MlflowClient, run: Any, key: str) -> list[float]:
    if key not in run.data.metrics:
        return []
    history = client.get_metric_history(run.info.run_id, key)
    return [_number(metric.value) for metric in sorted(history, key=lambda metric: (metric.step, metric.timestamp))]


def _number(value: float) -> float:
    # SQL has no infinity: MLflow stores the largest number for it.
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _texts(client: MlflowClient, run_id: str, mark: Mark) -> object:
    table = read_table(client, run_id, str(mark.path))
    return next(iter(table.values()), [])


def _table(client: MlflowClient, run_id: str, mark: Mark) -> object:
    return read_table(client, run_id, str(mark.path))


def _chart(client: MlflowClient, run_id: str, mark: Mark) -> object:
    return read_json(client, run_id, str(mark.path))


def _image(_client: MlflowClient, _run_id: str, mark: Mark) -> object:
    return mark.path


_FILES: dict[str, Callable[[MlflowClient, str, Mark], object]] = {
    "texts": _texts,
    "table": _table,
    "row": _table,
    "chart": _chart,
    "image": _image,
}
