"""Draws the charts with matplotlib, without its global state: the script may be in the middle of a plot of its own."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.estimator.recording.chartdata import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREY = "#1f6fb4", "#9a9a9a"
_MANY = 10  # curves that can be told apart by colour
_LONGEST_LABEL = 24


def png(title: str, chart: Chart) -> bytes:
    """The chart as a PNG image; ImportError without matplotlib."""
    stream = io.BytesIO()
    figure(title, chart).savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def figure(title: str, chart: Chart) -> Figure:
    """The chart as a matplotlib figure."""
    return _DRAW[chart.kind](_short(title, 120), chart.data)


def _new(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(result)
    return result, [result.add_subplot(1, panels, place + 1) for place in range(panels)]


def _confusion_matrix(title: str, data: dict[str, Any]) -> Figure:
    labels = [_short(str(label), _LONGEST_LABEL) for label in data["class_labels"]]
    matrix = data["matrix"]
    # Coloured by share of the true class: else one frequent class makes all others look empty.
    shares = [[count / (sum(row) or 1) for count in row] for row in matrix]
    side = min(max(4.0, 1.8 + 0.5 * len(labels)), 20.0)
    result, (axes,) = _new(side + 1.2, side + 0.4)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    result.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    small = max(4.0, 10 - 0.2 * len(labels))
    axes.set_xticks(range(len(labels)), labels, rotation=90 if _long(labels) else 0, fontsize=small + 1)
    axes.set_yticks(range(len(labels)), labels, fontsize=small + 1)
    if len(labels) <= 40:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=small)
    _label(axes, title, "predicted class", "true class")
    return result


def _accuracy_table(title: str, data: dict[str, Any]) -> Figure:
    result, (roc, recall) = _new(11, 5, panels=2)
    names = [_short(str(label), _LONGEST_LABEL) for label in data["class_labels"]]
    colours = _colours(len(names))
    for place, (name, table) in enumerate(zip(names, data["probability_tables"], strict=True)):
        style = {"color": colours[place], "linestyle": "-" if place < _MANY else "--"}
        rows = [row for row in table if row[0] + row[3]]
        area = _area([(fp / (fp + tn or 1), tp / (tp + fn)) for tp, fp, tn, fn in rows])
        roc.plot(
            *_points((fp / (fp + tn or 1), tp / (tp + fn)) for tp, fp, tn, fn in rows),
            label=f"{name} (area {area:.3f})",
            **style,
        )
        found = [row for row in rows if row[0] + row[1]]
        recall.plot([tp / (tp + fn) for tp, _, _, fn in found], [tp / (tp + fp) for tp, fp, _, _ in found], **style)
    roc.plot([0, 1], [0, 1], color=_GREY, linestyle=":")
    _label(roc, "ROC, each class against the rest", "false positive rate", "true positive rate")
    _label(recall, "precision and recall", "recall", "precision")
    for axes in (roc, recall):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    result.suptitle(textwrap.fill(title, 80))
    result.legend(loc="outside right upper", fontsize=8 if len(names) <= 20 else 6, ncols=1 + (len(names) - 1) // 30)
    return result


def _residuals(title: str, data: dict[str, Any]) -> Figure:
    result, (axes,) = _new(7, 4.5)
    edges = data["bin_edges"]
    widths = [right - left for left, right in pairwise(edges)]
    axes.bar(edges[:-1], data["bin_counts"], widths, align="edge", color=_BLUE, edgecolor="white", linewidth=0.5)
    if edges[0] < 0 < edges[-1]:
        axes.axvline(0, color="black", linewidth=1, linestyle=":")
    _label(axes, title, "residual (predicted - actual)", "count")
    return result


def _predictions(title: str, data: dict[str, Any]) -> Figure:
    result, (axes,) = _new(7, 5)
    edges, averages = data["bin_edges"], data["bin_averages"]
    centres = [(left + right) / 2 for left, right in pairwise(edges)]
    widths = [right - left for left, right in pairwise(edges)]
    counts = axes.twinx()
    counts.bar(centres, data["bin_counts"], widths, color=_GREY, alpha=0.3, edgecolor="white", linewidth=0.5)
    counts.set_ylabel("count", color="dimgrey")
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([edges[0], edges[-1]], [edges[0], edges[-1]], color="black", linestyle=":", label="ideal")
    axes.errorbar(
        centres, averages, data["bin_errors"], color=_BLUE, marker="o", capsize=3, label="mean and standard deviation"
    )
    axes.legend(loc="upper left")
    _label(axes, title, "true value", "predicted value")
    return result


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(textwrap.fill(title, int(axes.get_window_extent().width / 11)))  # pixels of a character
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10"](place % _MANY) for place in range(count)]


def _points(pairs: Any) -> tuple[list[float], list[float]]:
    ordered = sorted(pairs)
    return [x for x, _ in ordered], [y for _, y in ordered]


def _area(pairs: Sequence[tuple[float, float]]) -> float:
    ordered = sorted([(0.0, 0.0), *pairs, (1.0, 1.0)])
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(ordered))


def _long(labels: Sequence[str]) -> bool:
    return sum(map(len, labels)) > 40 or max(map(len, labels)) > 10


def _short(text: str, length: int) -> str:
    # A dollar sign would start a formula, and one that cannot be parsed is an error.
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= length else f"{line[: length - 1]}\u2026"


_DRAW: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "confusion_matrix": _confusion_matrix,
    "accuracy_table": _accuracy_table,
    "residuals": _residuals,
    "predictions": _predictions,
}
