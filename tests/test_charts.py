"""The four charts: their JSON is checked and kept, and drawn so that it can be read."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.recording import chartdata, charts
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.sinks import PrintingSink


def value(kind: str, **data: Any) -> dict[str, Any]:
    return {"schema_type": kind, "schema_version": "v1", "data": data}


def matrix(labels: list[str]) -> dict[str, Any]:
    counts = np.eye(len(labels), dtype=int) * 100 + 3
    return value("confusion_matrix", class_labels=labels, matrix=counts)


def accuracy(labels: list[str]) -> dict[str, Any]:
    # true positives, false positives, true negatives, false negatives at three thresholds
    tables = [[[10, 30, 0, 0], [8, 6, 24, 2], [0, 0, 30, 10]] for _ in labels]
    thresholds = [0.0, 0.5, 1.0]
    return value(
        "accuracy_table",
        class_labels=labels,
        probability_tables=tables,
        percentile_tables=tables,
        probability_thresholds=thresholds,
        percentile_thresholds=thresholds,
    )


RESIDUALS = value("residuals", bin_edges=[-1, 0, 1], bin_counts=[3, 0.5])
PREDICTIONS = value(
    "predictions", bin_averages=[0.25, 0.75], bin_errors=[0.013, 0.042], bin_counts=[56, 34], bin_edges=[0.0, 0.5, 1.0]
)
CHARTS = {
    "confusion_matrix": matrix(["ants", "bees"]),
    "accuracy_table": accuracy(["ants", "bees"]),
    "residuals": RESIDUALS,
    "predictions": PREDICTIONS,
}


def fits(figure: Figure) -> bool:
    """Whether all that is drawn is within the figure."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    return bool(min(box.x0, box.y0) >= 0 and box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight())


@pytest.mark.parametrize("title", ["short", "a very long name " * 10, "$x_{", "a\nb"])
@pytest.mark.parametrize("labels", [["a"], ["ants", "bees"], [f"a rather long name of class {n}" for n in range(20)]])
@pytest.mark.parametrize("kind", sorted(CHARTS))
def test_no_text_is_clipped(kind: str, labels: list[str], title: str) -> None:
    made = {"confusion_matrix": matrix, "accuracy_table": accuracy}
    if kind not in made and len(labels) > 1:
        return
    figure = charts.figure(title, chartdata.parse("n", made[kind](labels) if kind in made else CHARTS[kind], kind))
    assert fits(figure)
    assert figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel()


def test_a_confusion_matrix_shows_its_counts() -> None:
    chart = chartdata.parse("n", matrix(["ants", "bees"]), "confusion_matrix")
    axes = charts.figure("n", chart).axes[0]
    assert [text.get_text() for text in axes.texts] == ["103", "3", "3", "103"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ants", "bees"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_an_accuracy_table_becomes_curves() -> None:
    roc, recall, *_ = charts.figure("n", chartdata.parse("n", accuracy(["ants"]), "accuracy_table")).axes
    assert np.asarray(roc.lines[0].get_xydata()).tolist() == [[0, 0], [0.2, 0.8], [1, 1]]
    assert roc.lines[0].get_label() == "ants (area 0.800)"
    assert np.asarray(recall.lines[0].get_xydata()).tolist() == [[1.0, 0.25], [0.8, 8 / 14]]


def test_drawing_leaves_pyplot_alone() -> None:
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    image = Image.open(io.BytesIO(charts.png("n", chartdata.parse("n", RESIDUALS, "residuals"))))
    assert image.width > 500
    assert plt.get_fignums() == before


def without(kind: str, key: str) -> dict[str, Any]:
    return value(kind, **{name: part for name, part in CHARTS[kind]["data"].items() if name != key})


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("residuals", "{", "not JSON"),
        ("residuals", [1], "not list"),
        ("residuals", {}, "schema_type is None"),
        ("residuals", PREDICTIONS, "'predictions'; log_residuals takes 'residuals'"),
        ("residuals", {"schema_type": "residuals"}, "dict under 'data'"),
        ("residuals", value("residuals", bin_edges=[1], bin_counts=[]), "two or more increasing"),
        ("residuals", value("residuals", bin_edges=[1, 1], bin_counts=[1]), "increasing"),
        ("residuals", value("residuals", bin_edges=[1, 2, 3], bin_counts=[1]), "has 1 numbers, 2 are needed"),
        ("residuals", value("residuals", bin_edges=[1, float("nan")], bin_counts=[1]), "finite"),
        ("residuals", value("residuals", bin_edges="12", bin_counts=[1]), "list of finite numbers"),
        ("predictions", value("predictions", bin_edges=[1, 2], bin_counts=[1], bin_averages=[1]), "'bin_errors'"),
        ("confusion_matrix", value("confusion_matrix", class_labels=[], matrix=[]), "class_labels"),
        ("confusion_matrix", value("confusion_matrix", class_labels=["a"], matrix=[[1], [2]]), "have 1 rows"),
        ("confusion_matrix", value("confusion_matrix", class_labels=["a"], matrix=[[1, 2]]), "2 numbers, 1 are"),
        ("accuracy_table", without("accuracy_table", "probability_tables"), "2 tables"),
        ("accuracy_table", without("accuracy_table", "percentile_thresholds"), "percentile_thresholds"),
        ("accuracy_table", value("accuracy_table", **accuracy(["a"])["data"] | {"percentile_thresholds": [0]}), "row"),
    ],
)  # fmt: skip
def test_a_wrong_chart_is_refused_in_one_line(kind: str, wrong: Any, said: str) -> None:
    with pytest.raises(UserErrorException, match=said) as caught:
        getattr(Recorder(PrintingSink()), f"log_{kind}")("n", wrong)
    assert "\n" not in str(caught.value)


def test_offline_a_matrix_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(PrintingSink())
    recorder.log_confusion_matrix("m", matrix(["ants", "bees"]))
    assert capsys.readouterr().out.splitlines() == [
        "m: confusion matrix, drawn only inside of a run",
        "  true \\ predicted  ants  bees",
        "              ants   103     3",
        "              bees     3   103",
    ]
