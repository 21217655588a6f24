"""Where records go: a run, the terminal, or nowhere."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_pytorch_estimator import topology
from mlflow_pytorch_estimator.estimator.recording.chartdata import Chart
from mlflow_pytorch_estimator.estimator.recording.images import Picture
from mlflow_pytorch_estimator.estimator.recording.mlflowsink import MlflowSink
from mlflow_pytorch_estimator.estimator.recording.values import Cell

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["MlflowSink", "MutedSink", "PrefixSink", "PrintingSink", "Sink"]

_logger = logging.getLogger(__name__)
_ROWS_SHOWN = 20


class Sink(Protocol):
    """Takes values that have been checked."""

    def metric(self, name: str, value: float, step: int | None) -> None:
        """A number; without a step it follows the last one."""

    def text(self, name: str, value: str) -> None:
        """A text under the name of a metric."""

    def items(self, name: str, values: list[Cell]) -> None:
        """A list."""

    def table(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """Rows of a table, as columns of one length."""

    def row(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """One row of a table, whose numbers are metrics too."""

    def image(self, name: str, picture: Picture) -> None:
        """An image."""

    def chart(self, name: str, chart: Chart) -> None:
        """One of the four charts."""

    def describe(self, name: str, description: str) -> None:
        """A sentence about what has this name."""

    def read(self, name: str | None) -> dict[str, Any]:
        """What was logged."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything is stored; False if that took too long."""


class PrintingSink:
    """Outside of any run: prints one readable line for each record and remembers it for ``read``."""

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._others: dict[str, Any] = {}
        self._described: set[tuple[str, str]] = set()

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Print the number and its step."""
        points = self._points.setdefault(name, [])
        step = max((place for place, _ in points), default=-1) + 1 if step is None else step
        points.append((step, value))
        print(f"{name} = {value:g} (step {step})", flush=True)

    def text(self, name: str, value: str) -> None:
        """Print the text."""
        self._others[name] = value
        print(f"{name} = {value}", flush=True)

    def items(self, name: str, values: list[Cell]) -> None:
        """Print the list, shortened."""
        self._others[name] = [*self._others.get(name, []), *values]
        print(f"{name} = {_shown(values)}", flush=True)

    def table(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """Print the columns."""
        before: dict[str, list[Cell]] = self._others.get(name, {})
        rows = len(next(iter(before.values()), []))
        self._others[name] = {
            column: [*before.get(column, [None] * rows), *columns.get(column, [None] * _height(columns))]
            for column in dict.fromkeys([*before, *columns])
        }
        print(f"{name}:\n{_table(columns)}", flush=True)

    def row(self, name: str, columns: dict[str, list[Cell]]) -> None:
        """Print the row."""
        self.table(name, columns)

    def image(self, name: str, picture: Picture) -> None:
        """Say where the image is."""
        self._others[name] = None if picture.path is None else str(picture.path)
        where = f"the file {picture.path}" if picture.path else "a plot, which is not stored outside of a run"
        print(f"{name}: {where}", flush=True)

    def chart(self, name: str, chart: Chart) -> None:
        """Print a matrix; of the others, say that they were logged."""
        self._others[name] = {"schema_type": chart.kind, "schema_version": chart.version, "data": chart.data}
        print(f"{name}: {chart.kind.replace('_', ' ')}, drawn only inside of a run", flush=True)
        if chart.kind == "confusion_matrix":
            rows = zip(*chart.data["matrix"], strict=True)
            labels = chart.data["class_labels"]
            print(_table({"true \\ predicted": labels, **dict(zip(map(str, labels), map(list, rows), strict=True))}))

    def describe(self, name: str, description: str) -> None:
        """Print each description once."""
        if (name, description) not in self._described:
            self._described.add((name, description))
            print(f"{name}: {description}", flush=True)

    def read(self, name: str | None) -> dict[str, Any]:
        """What was logged in this process."""
        found = dict(self._others)
        for key, points in self._points.items():
            values = [value for _, value in sorted(points, key=lambda point: point[0])]
            found[key] = values if len(values) > 1 else values[0]
        return found if name is None else {key: value for key, value in found.items() if key == name}

    def flush(self, timeout: float) -> bool:
        """Nothing to wait for."""
        return True


class MutedSink:
    """On a rank that does not own the run: drops everything and says so once."""

    def __init__(self, rank: int | None = None) -> None:
        self._rank = topology.rank() if rank is None else rank
        self._told = False

    def drop(self, *_record: object, **_named: object) -> None:
        """Log nothing."""
        if not self._told:
            self._told = True
            _logger.warning("what rank %d logs is dropped: rank 0 owns the metrics of the run", self._rank)

    text = items = table = row = image = chart = describe = drop

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Log nothing."""
        self.drop()

    def read(self, name: str | None) -> dict[str, Any]:
        """Nothing was kept."""
        return {}

    def flush(self, timeout: float) -> bool:
        """Nothing to wait for."""
        return True


class PrefixSink(MutedSink):
    """On a rank whose metrics are kept: they go to the store, which puts the rank before their names."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        super().__init__()
        self._client = client
        self._run_id = run_id
        self._steps: Counter[str] = Counter()

    def metric(self, name: str, value: float, step: int | None) -> None:
        """A metric of the run, under this rank."""
        place = self._steps[name] if step is None else step
        self._steps[name] = place + 1
        self._client.log_metric(self._run_id, name, value, step=place)


def _height(columns: dict[str, list[Cell]]) -> int:
    return len(next(iter(columns.values()), []))


def _shown(values: list[Cell]) -> str:
    text = ", ".join(_cell(value) for value in values[:_ROWS_SHOWN])
    return f"[{text}]" if len(values) <= _ROWS_SHOWN else f"[{text}, ... {len(values)} values]"


def _table(columns: dict[str, list[Cell]]) -> str:
    texts = [[name, *map(_cell, content[:_ROWS_SHOWN])] for name, content in columns.items()]
    widths = [max(map(len, column)) for column in texts]
    lines = [
        "  ".join(part.rjust(width) for part, width in zip(row, widths, strict=True))
        for row in zip(*texts, strict=True)
    ]
    more = _height(columns) - _ROWS_SHOWN
    return "\n".join(f"  {line}" for line in lines) + (f"\n  ... {more} more rows" if more > 0 else "")


def _cell(value: Cell) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
