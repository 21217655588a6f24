"""The methods with which a training script logs; the same inside a job, offline and on every rank."""

from __future__ import annotations

import os
from typing import Any

from mlflow_pytorch_estimator.estimator.recording import chartdata, images, values
from mlflow_pytorch_estimator.estimator.recording.sinks import Sink


class Recorder:
    """Checks what is logged and hands it to a sink. Bad input raises; a store that is away never does."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Log a number or a text. Without ``step``, repeated values get the steps 0, 1, 2, ..."""
        key, plain, place = values.name_of(name), values.scalar(name, value), values.step_of(name, step)
        if isinstance(plain, str):
            self._sink.text(key, plain)
        else:
            self._sink.metric(key, plain, place)
        self._describe(key, description)

    def log_list(self, name: str, value: Any, description: str = "") -> None:
        """Log a list of numbers, or of texts; its places are the steps."""
        self._sink.items(values.name_of(name), values.items(name, value))
        self._describe(name, description)

    def log_row(self, name: str, description: str | None = None, **kwargs: Any) -> None:
        """Add a row to a table; its numbers are metrics ``NAME/COLUMN`` as well."""
        row = {column: values.cell(name, value) for column, value in kwargs.items()}
        self._sink.row(values.name_of(name), values.columns(name, row))
        self._describe(name, description)

    def log_table(self, name: str, value: Any, description: str = "") -> None:
        """Log a table: a dict of columns of one length, or of single values. A second call adds rows."""
        self._sink.table(values.name_of(name), values.columns(name, value))
        self._describe(name, description)

    def log_image(
        self, name: str, path: str | os.PathLike[str] | None = None, plot: Any = None, description: str = ""
    ) -> None:
        """Log an image: a file, or a matplotlib figure (or ``pyplot``), a PIL image or an array."""
        self._sink.image(values.name_of(name), images.check(name, path, plot))
        self._describe(name, description)

    def log_confusion_matrix(self, name: str, value: Any, description: str = "") -> None:
        """Log ``class_labels`` and a ``matrix`` of counts, rows the true classes."""
        self._chart(name, value, "confusion_matrix", description)

    def log_accuracy_table(self, name: str, value: Any, description: str = "") -> None:
        """Log counts (TP, FP, TN, FN) for each class at each threshold; drawn as ROC and precision-recall curves."""
        self._chart(name, value, "accuracy_table", description)

    def log_residuals(self, name: str, value: Any, description: str = "") -> None:
        """Log a histogram of residuals: ``bin_edges``, ``bin_counts``."""
        self._chart(name, value, "residuals", description)

    def log_predictions(self, name: str, value: Any, description: str = "") -> None:
        """Log binned predictions: ``bin_averages``, ``bin_errors``, ``bin_counts``, ``bin_edges``."""
        self._chart(name, value, "predictions", description)

    def get_metrics(self, name: str | None = None) -> dict[str, Any]:
        """What was logged, by name: once a number, several times a list, a table a dict of columns."""
        return self._sink.read(name)

    def flush(self, timeout_seconds: float = 300) -> bool:
        """Wait until everything that was logged is stored; False if it was not in this time."""
        return self._sink.flush(timeout_seconds)

    def _chart(self, name: str, value: Any, kind: str, description: str) -> None:
        self._sink.chart(values.name_of(name), chartdata.parse(name, value, kind))
        self._describe(name, description)

    def _describe(self, name: str, description: str | None) -> None:
        if description:
            self._sink.describe(name, str(description))
