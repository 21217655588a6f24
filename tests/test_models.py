"""log_model with real torch, MLflow (SQLite) and ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own, while it is imported
    import mlflow
    import mlflow.onnx
    import mlflow.pyfunc
    import mlflow.pytorch

from mlflow_pytorch_estimator import LoggedOnnxModel, log_model
from mlflow_pytorch_estimator.errors import GpuClusterError, OnnxError, OnnxExportError, OnnxParityError
from mlflow_pytorch_estimator.models.adapter import prepare
from mlflow_pytorch_estimator.models.inputs import read_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    # MLflow 3.17 with SQLAlchemy 2.1, and MLflow's SQLite connections that the collector closes
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 36, 10)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(torch.relu(self.norm(self.conv(image)))).flatten(1))
        return logits


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.features = nn.Linear(4, 8)

    def forward(self, ids: Tensor, features: Tensor) -> dict[str, Any]:
        hidden = self.words(ids).mean(1) + self.features(features)
        return {"logits": hidden, "best": hidden.argmax(-1), "parts": (hidden * 2, hidden.mean()), "loss": None}


class Different(nn.Module):
    """Computes something else while it is exported."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        exported = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
        if not exported:
            return x * 2
        return {
            "value": x * 2 + 0.01,
            "nan": x * 2 * float("nan"),
            "shape": x.repeat(1, 2) * 2,
            "dtype": (x * 2).double(),
            "count": (x * 2, x * 3),
        }[self.kind]


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(3, 4) * 2


class RowByRow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row * 2 for row in x])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture
def experiment(store: str, tmp_path: Path) -> Iterator[str]:
    """An experiment of this test's own; returns its id."""
    created = mlflow.create_experiment(tmp_path.name, artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=created)
    yield created
    mlflow.end_run()


def nothing_logged(experiment: str) -> bool:
    runs = mlflow.search_runs([experiment], output_format="list")
    models = mlflow.search_logged_models([experiment], output_format="list")
    files = [mlflow.MlflowClient().list_artifacts(run.info.run_id) for run in runs]
    return not models and not any(files) and not any(run.data.metrics for run in runs)


def loaded_by_all(uri: str) -> tuple[Any, nn.Module, Any]:
    return mlflow.onnx.load_model(uri), mlflow.pytorch.load_model(uri), mlflow.pyfunc.load_model(uri)


def test_one_version_for_all_loaders(experiment: str) -> None:
    model = ConvNet().train()
    model.norm.eval()  # a frozen batch norm in a model that trains
    model.conv.weight.requires_grad_(False)
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradient = model.head.weight.grad
    example = torch.randn(1, 3, 8, 8)
    random_state = torch.get_rng_state()

    with mlflow.start_run() as run:
        logged = log_model(model, example, registered_model_name="convnet", tags={"a": "b"})

    assert [m.training for m in (model, model.conv, model.norm, model.drop)] == [True, True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.head.weight.grad is gradient
    assert not model.conv.weight.requires_grad
    assert torch.equal(random_state, torch.get_rng_state())

    assert (logged.registered_model_name, logged.registered_model_version) == ("convnet", 1)
    assert logged.batch_sizes == (1, 2, 5)
    assert (logged.input_names, logged.output_names) == (("image",), ("output",))
    assert 0 <= logged.max_abs_diff < 1e-5
    data = mlflow.get_run(run.info.run_id)
    assert data.data.metrics == {
        "onnx_max_abs_diff": logged.max_abs_diff,
        "onnx_max_rel_diff": logged.max_rel_diff,
    }
    assert [output.model_id for output in data.outputs.model_outputs] == [logged.model_id]
    linked = {m.key: m.value for m in mlflow.get_logged_model(logged.model_id).metrics}
    assert linked == data.data.metrics
    assert mlflow.get_logged_model(logged.model_id).tags["a"] == "b"

    graph, module, served = loaded_by_all("models:/convnet/1")
    batch = torch.randn(7, 3, 8, 8)
    expected = model.eval()(batch).detach().numpy()
    assert [value.name for value in graph.graph.output] == ["output"]
    assert not module.training
    np.testing.assert_allclose(module(batch).detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(served.predict(batch.numpy())["output"], expected, rtol=1e-3, atol=1e-5)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 3, 8, 8)
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 10)
    assert served.metadata.metadata["onnx_parity"]["max_abs_diff"] == logged.max_abs_diff


def test_artifacts_hold_weights_requirements_and_example(experiment: str, tmp_path: Path) -> None:
    with mlflow.start_run():
        logged = log_model(ConvNet(), torch.randn(2, 3, 8, 8))
    folder = tmp_path / "download"
    mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(folder))
    assert (folder / "model.onnx.data").stat().st_size >= 4 * 4 * 36 * 10
    assert logged.registered_model_version is None
    flavors = mlflow.models.Model.load(str(folder)).flavors
    assert flavors["python_function"]["loader_module"] == "mlflow.onnx"
    assert {"onnx", "pytorch"} < set(flavors)
    names = dict(line.split("==") for line in (folder / "requirements.txt").read_text().split())
    assert set(names) >= {"mlflow", "numpy", "onnx", "onnxruntime", "torch", "cloudpickle"}
    assert not any("+" in version for version in names.values())
    assert mlflow.models.Model.load(str(folder)).load_input_example(str(folder)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("keyword", [True, False])
def test_several_inputs_and_outputs(experiment: str, keyword: bool) -> None:
    torch.manual_seed(0)
    model = TwoTowers()
    ids, features = torch.randint(0, 11, (1, 5)), torch.randn(1, 4)
    # keywords in another order than forward's
    example: Any = {"features": features, "ids": ids} if keyword else (ids, features)
    with mlflow.start_run():
        logged = log_model(model, example, rtol=0, atol=1e-4)
    assert logged.input_names == (("features", "ids") if keyword else ("ids", "features"))
    assert logged.output_names == ("logits", "best", "parts_0", "parts_1")

    _, module, served = loaded_by_all(logged.model_uri)
    ids, features = torch.randint(0, 11, (7, 5)), torch.randn(7, 4)
    answer = served.predict({"ids": ids.numpy(), "features": features.numpy()})
    expected = module(ids, features)
    np.testing.assert_allclose(answer["logits"], expected["logits"].detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(answer["best"], expected["best"].numpy())
    np.testing.assert_allclose(answer["parts_1"], expected["parts"][1].detach().numpy(), atol=1e-5)
    assert [spec.shape for spec in served.metadata.signature.outputs.inputs] == [(-1, 8), (-1,), (-1, 8), ()]


def test_names_can_be_given(experiment: str) -> None:
    with mlflow.start_run():
        logged = log_model(
            nn.Linear(3, 2), torch.ones(1, 3), input_names=["a"], output_names=["b"], pip_requirements=["x==1"]
        )
    graph = mlflow.onnx.load_model(logged.model_uri).graph
    assert ([v.name for v in graph.input], [v.name for v in graph.output]) == (["a"], ["b"])


@pytest.mark.parametrize("kind", ["value", "nan", "shape", "dtype", "count"])
def test_disagreement_logs_nothing(experiment: str, kind: str) -> None:
    model = Different(kind).train()
    # the exporter itself refuses a result of another structure
    expected = OnnxError if kind == "count" else OnnxParityError
    with mlflow.start_run(), pytest.raises(expected) as caught:
        log_model(model, torch.ones(2, 3), registered_model_name=f"different-{kind}")
    assert "\n" not in str(caught.value)
    assert nothing_logged(experiment)
    assert not mlflow.search_registered_models(filter_string=f"name = 'different-{kind}'")
    assert model.training
    if kind == "value":
        assert "output 'output' for a batch of 1" in str(caught.value)
        assert "largest difference 0.01 " in str(caught.value)
        assert "rtol=0.001, atol=1e-05" in str(caught.value)


def test_disagreement_without_a_run_starts_none(experiment: str) -> None:
    random_state = torch.get_rng_state()
    with pytest.raises(OnnxParityError, match="differs between ONNX Runtime and PyTorch"):
        log_model(Random(), torch.ones(2, 3))
    assert torch.equal(random_state, torch.get_rng_state())
    assert mlflow.active_run() is None
    assert mlflow.search_runs([experiment], output_format="list") == []


def test_tolerance_lets_a_known_difference_pass_into_the_metric(experiment: str) -> None:
    # without an active run, as mlflow.log_metric does
    logged = log_model(Different("value"), torch.ones(2, 3), atol=0.1)
    active = mlflow.active_run()
    assert active is not None
    assert isinstance(logged, LoggedOnnxModel)
    assert active.info.run_id == logged.run_id
    assert mlflow.get_run(logged.run_id).data.metrics["onnx_max_abs_diff"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branching(), "Branching cannot be exported to ONNX with a free batch: "),
        (FixedBatch(), "the model itself fails on a batch of 1: RuntimeError: shape '\\[3, 4\\]' is invalid"),
        (RowByRow(), "(RowByRow cannot be exported|the batch of input 'x' was fixed)"),
    ],
)
def test_what_cannot_be_exported_says_why(experiment: str, model: nn.Module, message: str) -> None:
    model.train()
    with mlflow.start_run(), pytest.raises(OnnxExportError, match=message) as caught:
        log_model(model, torch.ones(3, 4), registered_model_name="never")
    assert "\n" not in str(caught.value)
    assert nothing_logged(experiment)
    assert model.training


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.tensor(1.0), "'input' has shape \\(\\)"),
        (torch.ones(0, 3), "'input' has shape \\(0, 3\\)"),
        ((torch.ones(2, 3), torch.ones(3, 3)), "disagree in their batch"),
        ({"input": [1.0, 2.0]}, "'input' must be a torch.Tensor, got list"),
        (np.ones((1, 3)), "'input' must be a torch.Tensor, got ndarray"),
        (torch.ones(1, 3, dtype=torch.bfloat16), "bfloat16"),
        ((), "example_input is empty"),
    ],
)
def test_inputs_that_cannot_be_right(example: Any, message: str) -> None:
    with pytest.raises(OnnxExportError, match=message):
        log_model(nn.Linear(3, 2), example)


def test_other_arguments_that_cannot_be_right() -> None:
    not_a_module: Any = "model"
    with pytest.raises(GpuClusterError, match=r"must be a torch\.nn\.Module, got str"):
        log_model(not_a_module, torch.ones(1, 3))
    with pytest.raises(OnnxExportError, match="batch_sizes"):
        log_model(nn.Linear(3, 2), torch.ones(1, 3), batch_sizes=[4])
    with pytest.raises(OnnxExportError, match="1 different names"):
        log_model(nn.Linear(3, 2), torch.ones(1, 3), input_names=["a", "b"])
    with pytest.raises(OnnxExportError, match="output_names"):
        log_model(nn.Linear(3, 2), torch.ones(1, 3), output_names=["input"])


def test_the_copy_shares_nothing_and_drops_wrappers() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    copied = prepare(nn.DataParallel(model))
    assert isinstance(copied, nn.Sequential)
    tied = copied.get_parameter("0.weight")
    assert tied is copied.get_parameter("1.weight")
    assert tied.data_ptr() != first.weight.data_ptr()
    assert isinstance(prepare(torch.compile(model)), nn.Sequential)


def test_batches_stay_in_the_range_seen_and_are_the_same_each_time() -> None:
    example = {"f": torch.rand(2, 3, 4), "i": torch.randint(3, 9, (2, 3)), "b": torch.tensor([[True], [False]])}
    inputs = read_inputs(nn.Identity(), example, None)
    batch, again = inputs.batch(5).tensors, inputs.batch(5).tensors
    assert all(torch.equal(batch[name][:2], tensor) for name, tensor in example.items())
    assert all(torch.equal(batch[name], again[name]) for name in example)
    assert len({tuple(row.flatten().tolist()) for row in batch["f"]}) == 5
    assert set(batch["i"].flatten().tolist()) <= set(example["i"].flatten().tolist())
    assert batch["f"].min() >= example["f"].min()
    assert batch["f"].max() <= example["f"].max()
    assert len(inputs.batch_for_export().tensors["f"]) == 2


def test_a_stranger_opens_it_without_the_sources(experiment: str, store: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "stranger_layers.py").write_text(
        "import torch\n\ndef double(x):\n    return x * 2\n\n"
        "class Layer(torch.nn.Module):\n    def forward(self, x):\n        return double(x)\n"
    )
    script = project / "train.py"
    script.write_text(
        textwrap.dedent(f"""
            import mlflow, stranger_layers, torch
            from mlflow_pytorch_estimator import log_model

            class Net(torch.nn.Module):  # lives in __main__
                def __init__(self):
                    super().__init__()
                    self.layer = stranger_layers.Layer()
                    self.linear = torch.nn.Linear(3, 2)

                def forward(self, x):
                    return self.linear(self.layer(x))

            mlflow.set_experiment(experiment_id="{experiment}")
            with mlflow.start_run():
                for files in (None, ["stranger_layers.py"]):
                    log_model(Net(), torch.ones(1, 3), registered_model_name="stranger", code_paths=files)
            """)
    )
    in_process(str(script), cwd=project, store=store)
    for file in project.iterdir():
        if file.is_file():
            file.unlink()
    code = """
        import mlflow, numpy as np, sys, torch
        x = np.random.rand(7, 3).astype("float32")
        for version in (1, 2):  # the classes in the pickle, the classes as files
            uri = f"models:/stranger/{version}"
            assert mlflow.onnx.load_model(uri).graph.input[0].name == "x"
            module = mlflow.pytorch.load_model(uri)
            served = mlflow.pyfunc.load_model(uri).predict(x)["output"]
            assert np.allclose(served, module(torch.from_numpy(x)).detach(), atol=1e-5)
            print("opened", version, served.shape, "stranger_layers" in sys.modules)
        """
    opened = "opened 1 (7, 2) False\nopened 2 (7, 2) True"
    assert opened in in_process("-c", textwrap.dedent(code), cwd=tmp_path, store=store)


def test_importing_the_package_is_cheap(tmp_path: Path) -> None:
    code = """
        import sys, mlflow_pytorch_estimator, mlflow_pytorch_estimator.models
        assert not {"torch", "mlflow", "onnx", "onnxruntime"} & set(sys.modules)
        sys.modules["onnxruntime"] = None
        try:
            mlflow_pytorch_estimator.log_model(None, None)
        except mlflow_pytorch_estimator.errors.OnnxError as error:
            print(error)
        """
    output = in_process("-c", textwrap.dedent(code), cwd=tmp_path, store="")
    assert "onnxruntime" in output
    assert "pip install 'mlflow-pytorch-estimator[onnx]'" in output


def in_process(*arguments: str, cwd: Path, store: str) -> str:
    environment = {"MLFLOW_TRACKING_URI": store, "PATH": "", "HOME": str(cwd)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
