"""The four charts as data: ``{"schema_type": ..., "schema_version": "1.0.0", "data": {...}}``, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException


@dataclass(frozen=True)
class Chart:
    """A chart whose ``data`` has been checked; plain lists and numbers only."""

    kind: str
    version: str
    data: dict[str, Any]

    def json(self) -> bytes:
        """The form in which it was given."""
        return json.dumps({"schema_type": self.kind, "schema_version": self.version, "data": self.data}).encode()


def parse(name: str, value: object, kind: str) -> Chart:
    """A chart from a dict or JSON text; NumPy arrays in it become lists."""
    content = _decoded(name, value, kind)
    given = content.get("schema_type")
    if given != kind:
        raise UserErrorException(f"{name!r}: schema_type is {given!r}; log_{kind} takes {kind!r}")
    data = content.get("data")
    if not isinstance(data, Mapping):
        raise UserErrorException(f"{name!r}: a {kind} has a dict under 'data', not {type(data).__name__}")
    plain = {str(key): _plain(part) for key, part in data.items()}
    _CHECKS[kind](_Data(name, kind, plain))
    return Chart(kind, str(content.get("schema_version", "1.0.0")), plain)


def _decoded(name: str, value: object, kind: str) -> Mapping[str, Any]:
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserErrorException(f"{name!r}: the {kind} is not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise UserErrorException(f"{name!r}: a {kind} is a dict or JSON text, not {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    return value


@dataclass(frozen=True)
class _Data:
    name: str
    kind: str
    data: dict[str, Any]

    def fail(self, what: str) -> UserErrorException:
        return UserErrorException(f"{self.name!r}: {what} (in the data of a {self.kind})")

    def numbers(self, key: str, length: int | None = None) -> list[float]:
        return self.checked(key, self.data.get(key), length)

    def checked(self, key: str, values: Any, length: int | None) -> list[float]:
        if not isinstance(values, Sequence) or isinstance(values, str) or not all(map(_is_number, values)):
            raise self.fail(f"{key!r} has to be a list of finite numbers")
        if length is not None and len(values) != length:
            raise self.fail(f"{key!r} has {len(values)} numbers, {length} are needed")
        return list(values)

    def labels(self) -> list[Any]:
        labels = self.data.get("class_labels")
        if not isinstance(labels, list) or not labels:
            raise self.fail("'class_labels' has to be a list of labels")
        return labels


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _check_confusion_matrix(data: _Data) -> None:
    labels, matrix = data.labels(), data.data.get("matrix")
    if not isinstance(matrix, list) or len(matrix) != len(labels):
        raise data.fail(f"'matrix' has to have {len(labels)} rows, one for each class label")
    for row in matrix:
        data.checked("matrix", row, len(labels))


def _check_accuracy_table(data: _Data) -> None:
    labels = data.labels()
    for method in ("probability", "percentile"):
        thresholds = data.numbers(f"{method}_thresholds")
        tables = data.data.get(f"{method}_tables")
        if not isinstance(tables, list) or len(tables) != len(labels):
            raise data.fail(f"'{method}_tables' has to have {len(labels)} tables, one for each class label")
        for table in tables:
            if not isinstance(table, list) or len(table) != len(thresholds):
                raise data.fail(f"each of '{method}_tables' has to have {len(thresholds)} rows, one for each threshold")
            for row in table:
                data.checked(f"{method}_tables", row, 4)


def _check_residuals(data: _Data) -> None:
    edges = data.numbers("bin_edges")
    _check_edges(data, edges)
    data.numbers("bin_counts", len(edges) - 1)


def _check_predictions(data: _Data) -> None:
    edges = data.numbers("bin_edges")
    _check_edges(data, edges)
    for key in ("bin_averages", "bin_errors", "bin_counts"):
        data.numbers(key, len(edges) - 1)


def _check_edges(data: _Data, edges: Sequence[float]) -> None:
    if len(edges) < 2 or any(left >= right for left, right in pairwise(edges)):
        raise data.fail("'bin_edges' has to be two or more increasing numbers")


_CHECKS: dict[str, Callable[[_Data], None]] = {
    "confusion_matrix": _check_confusion_matrix,
    "accuracy_table": _check_accuracy_table,
    "residuals": _check_residuals,
    "predictions": _check_predictions,
}
