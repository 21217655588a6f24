"""What was logged is in the run and comes back, from SQLite and from a real server."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Server
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image
from test_charts import CHARTS, RESIDUALS
from test_charts import value as chart

from mlflow_pytorch_estimator.errors import UnknownRunError
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.recording import delivery, mlflowsink
from mlflow_pytorch_estimator.estimator.recording.metrics import read_metrics
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.runlog import RunLog, _logs
from mlflow_pytorch_estimator.estimator.recording.sinks import MlflowSink


@pytest.fixture(autouse=True)
def _forget_warnings() -> Iterator[None]:
    yield
    mlflowsink._warn_renamed.cache_clear()
    mlflowsink._warn_text.cache_clear()
    mlflowsink._warn_undrawn.cache_clear()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """One SQLite store for this module; each test has a run of its own."""
    folder = tmp_path_factory.mktemp("tracking")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("recording", artifact_location=(folder / "artifacts").as_uri())
    return client


def new_run(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("recording") or client.get_experiment("0")
    return str(client.create_run(experiment.experiment_id).info.run_id)


@pytest.fixture
def run_id(tracking: MlflowClient) -> str:
    return new_run(tracking)


@pytest.fixture
def recorder(tracking: MlflowClient, run_id: str) -> Recorder:
    return Recorder(MlflowSink(tracking, run_id))


def restarted(client: MlflowClient, run_id: str) -> Recorder:
    """A recorder of another process."""
    _logs.clear()
    return Recorder(MlflowSink(client, run_id))


def _log_everything(recorder: Recorder, tmp_path: Path) -> dict[str, Any]:
    picture = tmp_path / "some picture.jpg"
    Image.new("RGB", (3, 2)).save(picture)
    for value in (0.5, np.float32(0.25), torch.tensor(0.75)):
        recorder.log("best_val_acc", value)
    recorder.log("lr", 1e-3)
    recorder.log("prec@1", 97.5, description="of the first answer")
    recorder.log("with step", 2, step=7)
    recorder.log("with step", 1, step=3)
    recorder.log("extreme", math.inf)
    recorder.log("extreme", -math.inf)
    recorder.log("model", "resnet \u00e4 \u4e2d")
    recorder.log_list("list", np.arange(3))
    recorder.log_list("one", [7])
    recorder.log_list("none", [])
    recorder.log_list("words/of it", ["a", "b", None])
    recorder.log_row("r@w", x=1, y="a")
    recorder.log_row("r@w", x=2.5, z=True)
    recorder.log_table("table", {"a": [1, 2], "b": ["x", None]})
    recorder.log_table("table", {"a": 3, "b": "\u00e4"})
    recorder.log_image("picture", path=picture)
    recorder.log_residuals("res", {"schema_type": "residuals", "data": {"bin_edges": [0, 1, 2], "bin_counts": [3, 4]}})
    picture.unlink()  # it was read when it was logged
    return {
        "best_val_acc": [0.5, 0.25, 0.75],
        "lr": 1e-3,
        "prec@1": 97.5,
        "with step": [1.0, 2.0],
        "extreme": [math.inf, -math.inf],
        "model": "resnet \u00e4 \u4e2d",
        "list": [0.0, 1.0, 2.0],
        "one": [7.0],
        "none": [],
        "words/of it": ["a", "b", None],
        "r@w": {"x": [1, 2.5], "y": ["a", None], "z": [None, True]},
        "table": {"a": [1, 2, 3], "b": ["x", None, "\u00e4"]},
        "picture": "images/picture.jpg",
        "res": {
            "schema_type": "residuals",
            "schema_version": "1.0.0",
            "data": {"bin_edges": [0, 1, 2], "bin_counts": [3, 4]},
        },
    }


@pytest.mark.parametrize("kind", ["tracking", "server"])
def test_everything_comes_back(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = request.getfixturevalue(kind)
    client = found.client if isinstance(found, Server) else found
    run_id = new_run(client)
    recorder = Recorder(MlflowSink(client, run_id))
    expected = _log_everything(recorder, tmp_path)
    recorder.log("nan", math.nan)
    metrics = recorder.get_metrics()
    assert math.isnan(metrics.pop("nan"))
    assert metrics == expected
    for name in [*expected, "nothing"] if kind == "tracking" else []:
        assert read_metrics(client, run_id, name) == {key: value for key, value in expected.items() if key == name}
    # What MLflow itself has of it.
    run = client.get_run(run_id)
    assert run.data.metrics["prec_1"] == 97.5
    assert run.data.metrics["r_w/x"] == 2.5
    assert run.data.tags["model"] == "resnet \u00e4 \u4e2d"
    assert [metric.step for metric in client.get_metric_history(run_id, "best_val_acc")] == [0, 1, 2]
    assert read_metrics(client, run_id, "prec_1") == {"prec_1": 97.5}
    assert read_metrics(client, run_id, "r@w/x") == {"r@w/x": [1.0, 2.5]}
    files = {item.path for folder in ("images", "tables", "charts") for item in client.list_artifacts(run_id, folder)}
    assert {"images/picture.jpg", "tables/table.json", "tables/r_w.json", "charts/res.json", "charts/res.png"} < files


def test_mlflow_reads_our_tables(store: MlflowClient) -> None:
    run_id = new_run(store)
    recorder = Recorder(MlflowSink(store, run_id))
    recorder.log_table("deep/t", {"a": [1, 2], "b": [0.5, math.nan]})
    assert recorder.flush(20)
    # It searches the current store of the process, whatever client it is asked of.
    table = store.load_table("0", "tables/deep/t.json", [run_id])
    assert table["a"].tolist() == [1, 2]
    announced = json.loads(store.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert announced == [{"path": "tables/deep/t.json", "type": "table"}]
    assert recorder.get_metrics()["deep/t"] == {"a": [1, 2], "b": [0.5, None]}


def test_a_resumed_run_goes_on(tracking: MlflowClient, run_id: str, recorder: Recorder) -> None:
    def log(recorder: Recorder, value: float) -> None:
        recorder.log("loss", value)
        recorder.log("prec@1", value)
        recorder.log_row("rows", x=value)
        recorder.log_image("i", plot=np.full((2, 2), value / 10))
        recorder.flush()

    log(recorder, 1)
    log(restarted(tracking, run_id), 2)
    log(restarted(tracking, run_id), 3)
    metrics = read_metrics(tracking, run_id)
    assert metrics["loss"] == metrics["prec@1"] == [1.0, 2.0, 3.0]
    assert metrics["rows"] == {"x": [1, 2, 3]}
    assert metrics["i"] == "images/i_2.png"
    assert {metric.step for metric in tracking.get_metric_history(run_id, "loss")} == {0, 1, 2}


def test_two_recorders_of_one_run_share_its_steps(tracking: MlflowClient, run_id: str, recorder: Recorder) -> None:
    other = Recorder(MlflowSink(tracking, run_id))
    for value in range(4):
        (recorder if value % 2 else other).log("loss", value)
    assert recorder.get_metrics() == {"loss": [0.0, 1.0, 2.0, 3.0]}
    assert RunLog.of(tracking, run_id) is RunLog.of(tracking, run_id)


def test_one_warning_for_a_refused_name(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    for value in range(5):
        recorder.log("prec@1", value)
        recorder.log("phase", "warm-up" if value < 3 else "training")
    assert recorder.get_metrics() == {"prec@1": [0.0, 1.0, 2.0, 3.0, 4.0], "phase": "training"}
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow refuses the name 'prec@1': it is logged as 'prec_1'",
        "'phase' is a text and MLflow's metrics are numbers: it is logged as a tag of the run",
    ]


def test_a_text_overwrites_no_tag_of_mlflow(recorder: Recorder, tracking: MlflowClient, run_id: str) -> None:
    before = tracking.get_run(run_id).data.tags["mlflow.runName"]
    recorder.log("mlflow.runName", "x")
    assert recorder.get_metrics() == {"mlflow.runName": "x"}
    assert tracking.get_run(run_id).data.tags["mlflow.runName"] == before


def test_names_of_250_characters(recorder: Recorder, tracking: MlflowClient, run_id: str) -> None:
    name = "\u4e2d" * 250
    recorder.log(name, 1)
    recorder.log(name + "x", 2)
    recorder.log_table("t" * 250, {"a": [1]})
    recorder.log_list("l" * 250, [1])
    metrics = recorder.get_metrics()
    assert metrics == {name: 1.0, name + "x": 2.0, "t" * 250: {"a": [1]}, "l" * 250: [1.0]}
    assert len(tracking.get_run(run_id).data.metrics) == 3


def test_system_metrics_are_left_out(recorder: Recorder, tracking: MlflowClient, run_id: str) -> None:
    tracking.log_metric(run_id, "system/cpu", 1.0)
    tracking.log_metric(run_id, "foreign", 2.0)
    recorder.log("loss", 1)
    assert recorder.get_metrics() == {"loss": 1.0, "foreign": 2.0}
    assert recorder.get_metrics("system/cpu") == {"system/cpu": 1.0}


def test_an_unknown_run_is_our_error(tracking: MlflowClient) -> None:
    with pytest.raises(UnknownRunError, match="no run nothing"):
        read_metrics(tracking, "nothing")


def _figure() -> Figure:
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    return figure


def test_images_of_every_kind(recorder: Recorder, tracking: MlflowClient, run_id: str) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    plt.figure(figsize=(2, 1), dpi=100)
    plots: dict[str, tuple[Any, Any]] = {
        "pyplot": (plt, (200, 100)),
        "figure": (_figure(), (640, 480)),
        "axes": (_figure().axes[0], (640, 480)),
        "pil": (Image.new("CMYK", (1, 2)), (255, 255, 255)),
        "uint8": (np.array([[3, 255], [0, 0]], np.uint8), 3),
        "float": (np.array([[1.0, 0.0], [0.0, 0.0]]), 255),
        "torch": (torch.ones(2, 2, 3, requires_grad=True), (255, 255, 255)),
        "bool": (np.ones((2, 2, 1), bool), 255),
    }
    for name, (plot, _) in plots.items():
        recorder.log_image(name, plot=plot)
    plt.close("all")
    recorder.flush()
    folder = Path(tracking.download_artifacts(run_id, "images"))
    for name, (_, expected) in plots.items():
        with Image.open(folder / f"{name}.png") as image:
            assert image.format == "PNG"
            assert expected in {image.size, image.getpixel((0, 0))}, name


def test_arrays_that_are_no_image(recorder: Recorder) -> None:
    for array in (np.zeros(3), np.zeros((2, 2, 2)), np.full((2, 2), 2.0), np.full((2, 2), 256), [[1]]):
        with pytest.raises(UserErrorException, match="log_image"):
            recorder.log_image("image", plot=array)
    assert recorder.get_metrics() == {}


SCRIPT = """
import os, sys
import numpy as np
from mlflow.tracking import MlflowClient
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.sinks import MlflowSink

run = Recorder(MlflowSink(MlflowClient(), sys.argv[1]))
for epoch in range(500):
    run.log("prec@1", np.float32(epoch))
if sys.argv[2] == "fork":
    if os.fork() == 0:
        run.log("child", 1)
        os._exit(0)
    os.wait()
if sys.argv[2] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["end", "raise", "fork"])
def test_the_end_of_a_script_loses_nothing(
    tracking: MlflowClient, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri)
    command = [sys.executable, "train.py", run_id, how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == (3 if how == "raise" else 0), done.stderr
    assert done.stderr.count("MLflow refuses the name 'prec@1': it is logged as 'prec_1'") == 1
    metrics = read_metrics(tracking, run_id)
    assert metrics.pop("prec@1") == [float(epoch) for epoch in range(500)]
    assert metrics == ({"child": 1.0} if how == "fork" else {})


class Flaky:
    """A client whose calls fail now and then, before they were carried out or after."""

    def __init__(self, client: MlflowClient, tracking_uri: str) -> None:
        self._client = client
        self._random = random.Random(1)
        self.tracking_uri = tracking_uri
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **keywords: object) -> object:
            fate = self._random.random()
            self.failures += fate < 0.3
            if fate < 0.15:
                raise MlflowException("away before")
            result = getattr(self._client, name)(*arguments, **keywords)
            if fate < 0.3:
                raise MlflowException("away after")
            return result

        return call


def test_retries_repeat_nothing(tracking: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_PAUSES", (0.001,))
    tracking.log_metric(run_id, "prec_1", 7.0, step=4)
    client = Flaky(tracking, f"flaky {run_id}")
    recorder = Recorder(MlflowSink(client, run_id))
    for value in range(3):
        recorder.log("loss", value)
        recorder.log("prec@1", value)
        recorder.log("prec_1", value)
        recorder.log_row("row", x=value)
        recorder.log_table("table", {"a": [value]})
        recorder.log_image("image", plot=np.zeros((2, 2)))
        assert recorder.flush(20)
    assert client.failures > 5
    assert read_metrics(tracking, run_id) == {
        "loss": [0.0, 1.0, 2.0],
        "prec@1": [0.0, 1.0, 2.0],
        "prec_1": [7.0, 0.0, 1.0, 2.0],
        "row": {"x": [0, 1, 2]},
        "table": {"a": [0, 1, 2]},
        "image": "images/image_2.png",
    }


def test_every_chart_in_a_run(tracking: MlflowClient, run_id: str, recorder: Recorder) -> None:
    for kind, content in CHARTS.items():
        getattr(recorder, f"log_{kind}")(f"my {kind}", content if kind == "confusion_matrix" else json.dumps(content))
    recorder.log_residuals("my residuals", RESIDUALS)
    counts = CHARTS["confusion_matrix"]["data"]["matrix"].tolist()
    expected = {f"my {kind}": chart for kind, chart in CHARTS.items()}
    expected["my confusion_matrix"] = chart("confusion_matrix", class_labels=["ants", "bees"], matrix=counts)
    assert recorder.get_metrics() == expected
    stems = [*expected, "my residuals_1"]
    files = {item.path for item in tracking.list_artifacts(run_id, "charts")}
    assert files == {f"charts/{stem}{suffix}" for stem in stems for suffix in (".json", ".png")}


def test_without_matplotlib_the_json_is_kept(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    recorder.log_residuals("a", RESIDUALS)
    recorder.log_residuals("b", RESIDUALS)
    assert recorder.get_metrics() == {"a": RESIDUALS, "b": RESIDUALS}
    assert caplog.text.count("install matplotlib") == 1
