"""Turns what was logged into MLflow's metrics, tags and files; the sending end of a ``Delivery``."""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.estimator.recording import legalnames
from mlflow_pytorch_estimator.estimator.recording.delivery import Delivery
from mlflow_pytorch_estimator.estimator.recording.ledger import Ledger, Mark, read_marks
from mlflow_pytorch_estimator.estimator.recording.values import Cell

TABLE_TAG = "mlflow.loggedArtifacts"  # how MLflow's pages know which files are tables
_METRICS_PER_BATCH, _TAGS_PER_BATCH = 500, 100
_MAX_TAG, _MAX_DESCRIPTION = 5000, 500
T = TypeVar("T")


@dataclass(eq=False)
class Points:
    """Values of one metric, or a text; ``time`` in milliseconds. The last two are filled in once: a retry is equal."""

    name: str
    values: Sequence[float]
    step: int | None
    time: int
    kind: str = "metric"
    text: str | None = None
    description: str = ""
    marked: tuple[Mark, bool] | None = field(default=None, repr=False)
    sent_as: tuple[list[Metric], list[RunTag]] | None = field(default=None, repr=False)

    @property
    def weight(self) -> int:
        """About its kilobytes in memory."""
        return 1 + len(self.values) // 10


@dataclass(eq=False)
class Rows:
    """Rows of a table, as columns of one length."""

    name: str
    columns: dict[str, list[Cell]]
    kind: str = "table"
    done: bool = field(default=False, repr=False)

    @property
    def weight(self) -> int:
        """About its kilobytes in memory."""
        return 1 + sum(map(len, self.columns.values())) // 10


@dataclass(eq=False)
class Files:
    """Files that belong together: suffix -> content. A name that is logged again gets a number."""

    name: str
    folder: str
    parts: dict[str, bytes] = field(repr=False)
    kind: str = "image"
    done: bool = field(default=False, repr=False)

    @property
    def weight(self) -> int:
        """About its kilobytes in memory."""
        return 1 + sum(map(len, self.parts.values())) // 1000


Entry = Points | Rows | Files
_logs: WeakValueDictionary[tuple[str, str], RunLog] = WeakValueDictionary()
_lock = threading.Lock()


class RunLog:
    """What this process logs into one run; there is one for each run, however many ``Run`` objects there are."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._known: Ledger | None = None
        self._tables: dict[str, dict[str, list[Cell]]] = {}
        self._descriptions: dict[str, str] = {}
        self.delivery: Delivery[Entry] = Delivery(self._send, f"the store of run {run_id}", self._forget_connections)

    @classmethod
    def of(cls, client: MlflowClient, run_id: str) -> RunLog:
        """The log of this run in this process."""
        with _lock:
            log = _logs.get((client.tracking_uri, run_id)) or cls(client, run_id)
            _logs[client.tracking_uri, run_id] = log
        return log

    def _forget_connections(self) -> None:
        """In a forked process: a database connection must not be used on both sides."""
        engine = getattr(self._client._tracking_client.store, "engine", None)
        if engine is not None:
            engine.dispose(close=False)

    def describe(self, name: str, description: str) -> bool:
        """Remember a description; whether it is a new one."""
        new = self._descriptions.get(name) != description
        self._descriptions[name] = description
        return new

    @property
    def _ledger(self) -> Ledger:
        if self._known is None:
            data = self._client.get_run(self._run_id).data
            self._known = Ledger(data.metrics, read_marks(data.tags), self._last_step)
        return self._known

    def _last_step(self, key: str) -> int:
        history = self._client.get_metric_history(self._run_id, key)
        return max((int(metric.step) for metric in history), default=-1)

    def _send(self, entries: Sequence[Entry]) -> None:
        points = [entry for entry in entries if isinstance(entry, Points)]
        if points:
            self._send_points(points)
        # What was sent before another entry of the batch failed must not be sent again.
        for entry in entries:
            if isinstance(entry, Files) and not entry.done:
                self._send_files(entry)
                entry.done = True
        tables: dict[str, list[Rows]] = {}
        for entry in entries:
            if isinstance(entry, Rows) and not entry.done:
                tables.setdefault(entry.name, []).append(entry)
        for rows in tables.values():
            self._send_rows(rows)
            for entry in rows:
                entry.done = True

    def _send_points(self, entries: Sequence[Points]) -> None:
        resolved = [self._resolved(entry) for entry in entries]
        metrics = [metric for found, _ in resolved for metric in found]
        tags = [tag for _, found in resolved for tag in found]
        for some, others in zip_longest(_chunks(metrics, _METRICS_PER_BATCH), _chunks(tags, _TAGS_PER_BATCH)):
            # MLFLOW_ENABLE_ASYNC_LOGGING would make an unsynchronised second queue out of this one.
            self._client.log_batch(self._run_id, metrics=some or (), tags=others or (), synchronous=True)

    def _resolved(self, entry: Points) -> tuple[list[Metric], list[RunTag]]:
        if entry.sent_as is None:
            entry.marked = entry.marked or self._ledger.mark(entry.name, entry.kind)
            mark, new = entry.marked
            if entry.description:
                mark, new = replace(mark, description=entry.description[:_MAX_DESCRIPTION]), True
                self._ledger.update(mark)
            tags = [RunTag(*mark.tag())] if new else []
            if entry.text is not None:
                tags.append(RunTag(text_tag(mark.key), entry.text[:_MAX_TAG]))
            steps = self._ledger.steps(mark.key, len(entry.values), entry.step)
            points = zip(entry.values, steps, strict=True)
            entry.sent_as = [Metric(mark.key, value, entry.time, step) for value, step in points], tags
        return entry.sent_as

    def _send_files(self, entry: Files) -> None:
        mark, _ = self._ledger.mark(entry.name, entry.kind)
        number = f"_{mark.count}" if mark.count else ""
        stem = f"{entry.folder}/{legalnames.file_stem(mark.key)}{number}"
        for suffix, content in entry.parts.items():
            self._upload(stem + suffix, content)
        mark = replace(mark, path=stem + next(iter(entry.parts)), count=mark.count + 1)
        self._set_mark(mark)

    def _send_rows(self, entries: Sequence[Rows]) -> None:
        mark, _ = self._ledger.mark(entries[0].name, entries[0].kind)
        path = mark.path or f"tables/{legalnames.file_stem(mark.key)}.json"
        table = self._tables.get(path)
        if table is None:
            table = read_table(self._client, self._run_id, path) if mark.path else {}
        for entry in entries:
            table = _appended(table, entry.columns)
        self._upload(path, _table_json(table))
        if mark.path is None:
            self._announce_table(path)
            self._set_mark(replace(mark, path=path))
        # Only now: whatever failed above is tried again with the same rows.
        self._tables[path] = table

    def _announce_table(self, path: str) -> None:
        announced = json.loads(self._client.get_run(self._run_id).data.tags.get(TABLE_TAG) or "[]")
        entry = {"path": path, "type": "table"}
        value = json.dumps([*announced, entry])
        if entry not in announced and len(value) <= _MAX_TAG:
            self._client.set_tag(self._run_id, TABLE_TAG, value)

    def _set_mark(self, mark: Mark) -> None:
        self._client.set_tag(self._run_id, *mark.tag())
        self._ledger.update(mark)

    def _upload(self, path: str, content: bytes) -> None:
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="run-log-") as temporary:
            file = Path(temporary, name)
            file.write_bytes(content)
            self._client.log_artifact(self._run_id, str(file), folder)


def text_tag(key: str) -> str:
    """The tag of a text that was logged; MLflow's own tags and ours are not overwritten by it."""
    return f"logged.{key}"[: legalnames.MAX_LENGTH] if key.startswith(("mlflow.", "gpu_cluster.")) else key


def read_json(client: MlflowClient, run_id: str, path: str) -> object:
    """A JSON file of a run."""
    with tempfile.TemporaryDirectory(prefix="run-log-") as temporary:
        return json.loads(Path(client.download_artifacts(run_id, path, temporary)).read_bytes())


def read_table(client: MlflowClient, run_id: str, path: str) -> dict[str, list[Cell]]:
    """The columns of a table in MLflow's format."""
    content = read_json(client, run_id, path)
    if not isinstance(content, dict):
        return {}
    return {name: [row[place] for row in content["data"]] for place, name in enumerate(content["columns"])}


def _appended(table: dict[str, list[Cell]], more: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    before, after = (len(next(iter(part.values()), [])) for part in (table, more))
    missing_before, missing_after = [None] * before, [None] * after
    return {
        name: [*table.get(name, missing_before), *more.get(name, missing_after)]
        for name in dict.fromkeys([*table, *more])
    }


def _table_json(table: dict[str, list[Cell]]) -> bytes:
    rows = [[_finite(cell) for cell in row] for row in zip(*table.values(), strict=True)]
    return json.dumps({"columns": list(table), "data": rows}).encode()


def _finite(cell: Cell) -> Cell:
    # JSON has no NaN; null is what pandas, and so MLflow, writes for it.
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
