"""Registering what scripts leave: what can be served is, the rest says why not, and a failure leaves nothing."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest
from conftest import Server
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import MlflowClient
from onnx import TensorProto, helper, numpy_helper

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator.artifacts.run_files import RunFiles
from mlflow_pytorch_estimator.estimator.exceptions import (
    ModelNotFoundException,
    ModelPathNotFoundException,
    UserErrorException,
)
from mlflow_pytorch_estimator.estimator.models.model import Model
from mlflow_pytorch_estimator.estimator.models.registration import RegisteredVersion, register
from mlflow_pytorch_estimator.estimator.models.tags import NOT_SERVABLE
from mlflow_pytorch_estimator.tracking import Stores

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own, while it is imported
    import mlflow.onnx
    import mlflow.pyfunc

WEIGHTS = np.arange(8, dtype=np.float32).reshape(4, 2)
ROWS = np.array([[1, 0, 0, 0], [0, 1, 2, 0], [0, 0, 0, 3]], dtype=np.float32)
NOWHERE = "http://127.0.0.1:1"


@dataclass
class Place:
    """Stands for a workspace; one run at a time."""

    stores: Stores
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        return self.stores.client()

    def new_run(self) -> str:
        return str(self.client.create_run(self.experiment_id).info.run_id)

    def get_run(self, run_id: str) -> Any:
        return f"the run {run_id}"

    def run_with(self, folder: Path, name: str = "outputs") -> str:
        run_id = self.new_run()
        RunFiles(self.stores, run_id).upload_folder(name, folder)
        return run_id


def use(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the store that is not there hears so at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    stores = Stores(uri, uri)
    yield Place(stores, stores.client().create_experiment("models", (folder / "artifacts").as_uri()))
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def place(shared: Place) -> Place:
    """A store that is not MLflow's current one: whoever asks for that one fails."""
    use(NOWHERE)
    return shared


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "left"
    folder.mkdir()
    return folder


def graph(path: Path, *, external: str | None = None, batch: object = "batch", inputs: int = 1) -> None:
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    names = [f"x{index}" for index in range(inputs)]
    total = names[0] if inputs == 1 else "total"
    nodes = [helper.make_node("MatMul", [total, "weights"], ["y"])]
    if inputs > 1:
        nodes.insert(0, helper.make_node("Sum", names, ["total"]))
    made = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 4]) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [weights],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"save_as_external_data": True, "location": external, "size_threshold": 0} if external else {}
    onnx.save_model(model, str(path), **options)


def predicted(place: Place, version: RegisteredVersion, rows: Any = ROWS) -> Any:
    """What a server of this version would answer."""
    use(place.stores.tracking_uri)
    try:
        uri = f"models:/{version.name}/{version.version}"
        onnx.checker.check_model(mlflow.onnx.load_model(uri))
        loaded = mlflow.pyfunc.load_model(uri)
        (answer,) = loaded.predict(rows).values()
        return answer
    finally:
        use(NOWHERE)


def files_of(place: Place, version: RegisteredVersion, folder: Path) -> dict[str, bytes]:
    """The files that MLflow downloads for this version."""
    found = mlflow.artifacts.download_artifacts(
        f"models:/{version.name}/{version.version}",
        dst_path=str(folder),
        tracking_uri=use(place.stores.tracking_uri),  # type: ignore[func-returns-value]
    )
    use(NOWHERE)
    return {str(path.relative_to(found)): path.read_bytes() for path in Path(found).rglob("*") if path.is_file()}


def tags_of(place: Place, version: RegisteredVersion) -> dict[str, str]:
    return dict(place.client.get_model_version(version.name, str(version.version)).tags)


def logged_models(place: Place) -> dict[str, str]:
    found = place.client.search_logged_models([place.experiment_id])
    return {model.model_id: str(model.status) for model in found}


# ---------------------------------------------------------------- what can be served


def test_an_onnx_folder_is_served_and_its_other_files_come_along(place: Place, outputs: Path, tmp_path: Path) -> None:
    graph(outputs / "resnet.onnx", external="resnet.onnx.data")
    (outputs / "labels").mkdir()
    (outputs / "labels" / "names.txt").write_text("ant, bee")
    (outputs / "requirements.txt").write_text("the user's own")
    run_id = place.run_with(outputs)
    made = register(place.stores, run_id, "onnx-folder", "./outputs/")
    assert (made.version, made.message) == (1, None)
    np.testing.assert_array_equal(predicted(place, made), ROWS @ WEIGHTS)
    files = files_of(place, made, tmp_path / "got")
    for name in ("resnet.onnx", "resnet.onnx.data", "labels/names.txt"):
        assert files[name] == (outputs / name).read_bytes()
    assert files["original/requirements.txt"] == b"the user's own"
    assert b"onnxruntime==" in files["requirements.txt"]
    # On the run's page, and nothing more among the files that the script left.
    run = place.client.get_run(run_id)
    (output,) = run.outputs.model_outputs
    assert '"name": "onnx-folder"' in place.client.get_logged_model(output.model_id).tags["mlflow.modelVersions"]
    assert not any(name.startswith("onnx-folder") for name in RunFiles(place.stores, run_id).names())
    assert register(place.stores, run_id, "onnx-folder", "outputs").version == 2


@pytest.mark.parametrize("inner", ["model.onnx", "deep/er/Model.ONNX"])
def test_an_onnx_file_is_served_alone_or_from_deep_inside(place: Place, outputs: Path, inner: str) -> None:
    graph(outputs / inner, external="weights")
    (outputs / "checkpoint.pt").write_bytes(b"large")
    run_id = place.run_with(outputs)
    alone = register(place.stores, run_id, "onnx-file", f"outputs/{inner}")
    below = register(place.stores, run_id, "onnx-deep", "outputs")
    assert (alone.message, below.message) == (None, None)
    np.testing.assert_array_equal(predicted(place, alone), ROWS @ WEIGHTS)
    np.testing.assert_array_equal(predicted(place, below), ROWS @ WEIGHTS)


def test_the_signature_is_the_graphs(place: Place, outputs: Path) -> None:
    graph(outputs / "one.onnx")
    graph(outputs / "fixed.onnx", batch=3)
    graph(outputs / "two.onnx", inputs=2)
    run_id = place.run_with(outputs)
    made = {
        name: register(place.stores, run_id, f"sig-{name}", f"outputs/{name}.onnx") for name in ("one", "fixed", "two")
    }
    use(place.stores.tracking_uri)
    signatures = {name: mlflow.models.get_model_info(f"models:/sig-{name}/1").signature for name in made}
    assert [(spec.name, spec.shape) for spec in signatures["one"].inputs] == [(None, (-1, 4))]
    assert [(spec.name, spec.shape) for spec in signatures["one"].outputs] == [("y", (-1, 2))]
    assert [spec.shape for spec in signatures["fixed"].inputs] == [(3, 4)]
    assert signatures["two"].inputs.input_names() == ["x0", "x1"]
    answer = predicted(place, made["two"], {"x0": ROWS, "x1": ROWS})
    np.testing.assert_array_equal(answer, 2 * ROWS @ WEIGHTS)


def test_an_mlflow_model_is_used_where_it_is(place: Place, outputs: Path, tmp_path: Path) -> None:
    graph(outputs / "g.onnx")
    saved = tmp_path / "saved"
    mlflow.onnx.save_model(onnx.load(str(outputs / "g.onnx")), str(saved), pip_requirements=["onnx"])
    run_id = place.run_with(saved, "outputs/net")
    before = logged_models(place)
    made = register(place.stores, run_id, "in-place", "outputs/net")
    source = place.client.get_model_version("in-place", "1").source
    assert made.message is None
    assert source == f"{place.client.get_run(run_id).info.artifact_uri}/outputs/net"
    assert logged_models(place) == before
    np.testing.assert_array_equal(predicted(place, made), ROWS @ WEIGHTS)
    assert "lies deeper, at 'outputs/net'" in str(register(place.stores, run_id, "above", "outputs").message)


def test_a_logged_model_is_used_where_it_is_under_its_own_name(place: Place, outputs: Path, tmp_path: Path) -> None:
    graph(outputs / "g.onnx")
    run_id = place.new_run()
    use(place.stores.tracking_uri)
    with mlflow.start_run(run_id):
        info = mlflow.onnx.log_model(onnx.load(str(outputs / "g.onnx")), name="net", pip_requirements=["onnx"])
    use(NOWHERE)
    made = register(place.stores, run_id, "net")
    version = place.client.get_model_version("net", "1")
    source = place.client.get_logged_model(info.model_id).artifact_location
    assert (made.message, version.source, version.run_id) == (None, source, run_id)
    assert '"name": "net"' in place.client.get_logged_model(info.model_id).tags["mlflow.modelVersions"]
    np.testing.assert_array_equal(predicted(place, made), ROWS @ WEIGHTS)


# ---------------------------------------------------------------- what cannot be served


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def torch_archive(path: Path, payload: bytes, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, payload)


def test_pickles_are_told_apart_and_never_opened(place: Place, outputs: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    bomb = pickle.dumps(Bomb(touched))
    (outputs / "old.pt").write_bytes(bomb)
    (outputs / "plain.pkl").write_bytes(bomb)
    torch_archive(outputs / "new.pth", bomb, "new/data.pkl", "new/data/0", "new/version")
    torch_archive(outputs / "script.pt", bomb, "s/data.pkl", "s/code/net.py", "s/constants.pkl")
    torch_archive(outputs / "program.pt2", bomb, "archive/archive_format", "archive/models/model.json")
    run_id = place.run_with(outputs)
    expected = {
        "old.pt": "old torch.save",
        "plain.pkl": "no model that MLflow knows",
        "new.pth": "a state dict or a pickled model",
        "script.pt": "a TorchScript program",
        "program.pt2": "an exported program",
    }
    for name, words in expected.items():
        made = register(place.stores, run_id, f"raw-{name}", f"outputs/{name}")
        assert words in str(made.message)
        assert files_of(place, made, tmp_path / f"got-{name}") == {name: (outputs / name).read_bytes()}
    folder = register(place.stores, run_id, "raw-folder", "outputs")
    assert "'new.pth', 'old.pt'" in str(folder.message)
    assert len(files_of(place, folder, tmp_path / "got")) == 5
    model = Model.register(place, outputs, "raw-local")  # type: ignore[arg-type]
    assert "log_model" in str(model.not_servable)
    assert not touched.exists()
    pickle.loads(bomb)  # noqa: S301 - this is the bomb
    assert touched.exists(), "the bomb works"


def test_the_message_is_logged_and_kept(place: Place, outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (outputs / "a.txt").write_text("x")
    run_id = place.run_with(outputs)
    with caplog.at_level(logging.INFO, "mlflow_pytorch_estimator"):
        made = register(place.stores, run_id, "said", "outputs")
    assert made.message is not None
    assert made.message == tags_of(place, made)[NOT_SERVABLE]
    assert "said:1 cannot be served" in caplog.text


def broken_graphs(folder: Path) -> dict[str, str]:
    """One folder for each way in which a graph is not to be served, with what the message says."""
    graph(folder / "several" / "a.onnx")
    graph(folder / "several" / "b.onnx")
    (folder / "rubbish").mkdir()
    (folder / "rubbish" / "a.onnx").write_bytes(b"\xff" * 100)
    (folder / "empty").mkdir()
    (folder / "empty" / "a.onnx").write_bytes(b"")
    graph(folder / "missing" / "a.onnx", external="a.data")
    (folder / "missing" / "a.data").unlink()
    for name, location in (("outside", "../../secret"), ("absolute", "/etc/passwd"), ("reserved", "MLmodel")):
        graph(folder / name / "a.onnx", external="a.data")
        model = onnx.load(str(folder / name / "a.onnx"), load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        (folder / name / "a.onnx").write_bytes(model.SerializeToString())
    graph(folder / "unknown" / "a.onnx")
    model = onnx.load(str(folder / "unknown" / "a.onnx"))
    model.graph.node[0].domain = "nobody.knows"
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    onnx.save_model(model, str(folder / "unknown" / "a.onnx"))
    return {
        "several": "holds several ONNX graphs, 'a.onnx', 'b.onnx'",
        "rubbish": "no valid ONNX graph",
        "empty": "no valid ONNX graph",
        "missing": "needs 'a.data', which is not there",
        "outside": "outside of its folder",
        "absolute": "outside of its folder",
        "reserved": "a name that MLflow needs",
        "unknown": "ONNX Runtime does not take",
    }


def test_a_graph_that_cannot_run_is_registered_as_it_is(place: Place, outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    expected = broken_graphs(outputs)
    run_id = place.run_with(outputs)
    for name, words in expected.items():
        made = register(place.stores, run_id, f"broken-{name}", f"outputs/{name}")
        assert words in str(made.message)
        files = files_of(place, made, tmp_path / "got" / name)
        assert files == {p.name: p.read_bytes() for p in (outputs / name).iterdir()}
    alone = register(place.stores, run_id, "broken-alone", "outputs/outside/a.onnx")
    assert "outside of its folder" in str(alone.message)
    assert list(files_of(place, alone, tmp_path / "got" / "alone")) == ["a.onnx"]


def test_data_files_are_found_wherever_the_graph_hides_them(place: Place, outputs: Path) -> None:
    graph(outputs / "a.onnx")
    model = onnx.load(str(outputs / "a.onnx"))
    hidden = numpy_helper.from_array(WEIGHTS, "hidden")
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../../hidden")
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["x0"], [], then_branch=inner, else_branch=inner))
    (outputs / "a.onnx").write_bytes(model.SerializeToString())
    made = register(place.stores, place.run_with(outputs), "hidden", "outputs/a.onnx")
    assert "outside of its folder" in str(made.message)


def test_without_the_onnx_package_nothing_is_created(
    place: Place, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph(outputs / "a.onnx")
    run_id = place.run_with(outputs)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserErrorException, match=r"pip install onnx; or .*model_framework='Custom'"):
        register(place.stores, run_id, "no-onnx", "outputs")
    assert not place.client.search_registered_models("name='no-onnx'")
    made = register(place.stores, run_id, "no-onnx", "outputs", model_framework=Model.Framework.CUSTOM)
    assert "'Custom'" in str(made.message)
    assert list(files_of(place, made, tmp_path / "got")) == ["a.onnx"]


# ---------------------------------------------------------------- errors


def test_a_missing_path_lists_what_there_is(place: Place, outputs: Path) -> None:
    for index in range(30):
        (outputs / f"{index:02}.txt").write_text("x")
    run_id = place.run_with(outputs)
    with pytest.raises(ModelPathNotFoundException, match=r"'outputs/00.txt'.*'outputs/19.txt' \.\.\. \(30 in all\)"):
        register(place.stores, run_id, "none", "output")
    with pytest.raises(ModelPathNotFoundException, match="nothing at 'pt-dnn'"):
        register(place.stores, run_id, "pt-dnn")
    for path in ("../outputs", "/outputs", "outputs/../../x", "outputs\\x"):
        with pytest.raises(UserErrorException, match="model_path"):
            register(place.stores, run_id, "none", path)
    assert not place.client.search_registered_models("name='none'")


@pytest.mark.parametrize("name", ["", "-x", ".x", "a/b", "a:b", "a b", "a\n", "x" * 256, None, 3, "../x"])
def test_a_bad_name_is_refused_before_anything_is_read(name: Any) -> None:
    with pytest.raises(UserErrorException, match="model_name is"):
        register(Stores(NOWHERE, NOWHERE), "run", name, "outputs")


@pytest.mark.parametrize(
    "options",
    [
        {"tags": {"a#b": "1"}},
        {"tags": {"": "1"}},
        {"tags": {3: "1"}},
        {"tags": ["a"]},
        {"tags": {"gpu_cluster.x": "1"}},
        {"tags": {"mlflow.prompt.is_prompt": "true"}},
        {"tags": {"a": "x" * 100_001}},
        {"tags": {"a": "\0"}},
        {"properties": {"x" * 240: "1"}},
        {"properties": {"..": "1"}},
        {"description": "x" * 5001},
        {"description": 3},
        {"model_framework": ["Onnx"]},
        {"model_framework_version": 1.4},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(options: dict[str, Any]) -> None:
    with pytest.raises(UserErrorException, match=next(iter(options))):
        register(Stores(NOWHERE, NOWHERE), "run", "name", "outputs", **options)


@pytest.mark.parametrize(
    "step", ["log_model_artifacts", "finalize_logged_model", "log_outputs", "create_model_version"]
)
def test_a_failure_leaves_nothing_behind(
    place: Place, outputs: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    graph(outputs / "a.onnx")
    run_id = place.run_with(outputs)
    before = logged_models(place)
    original = getattr(MlflowClient, step)

    def fail(*given: Any, **options: Any) -> Any:
        if step == "finalize_logged_model" and "FAILED" in given:
            return original(*given, **options)
        raise MlflowException("the store is down")

    def attempt() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, fail)
            register(place.stores, run_id, "rolled-back", "outputs")

    with pytest.raises(GpuClusterError, match="the store is down"):
        attempt()
    assert logged_models(place) == before
    assert not place.client.search_registered_models("name='rolled-back'")
    assert register(place.stores, run_id, "rolled-back", "outputs").version == 1
    with pytest.raises(GpuClusterError, match="the store is down"):
        attempt()
    (kept,) = place.client.search_model_versions("name='rolled-back'")
    assert int(kept.version) == 1
    place.client.delete_registered_model("rolled-back")


def test_what_cannot_be_deleted_again_is_at_least_not_pending(
    place: Place, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph(outputs / "a.onnx")
    run_id = place.run_with(outputs)
    before = logged_models(place)

    def fail(*_: Any, **__: Any) -> Any:
        raise MlflowException("the store is down")

    for step in ("log_model_artifacts", "delete_logged_model"):
        monkeypatch.setattr(MlflowClient, step, fail)
    with pytest.raises(GpuClusterError, match="the store is down"):
        register(place.stores, run_id, "undeletable", "outputs")
    left = logged_models(place)
    assert [left[model_id] for model_id in left.keys() - before.keys()] == ["FAILED"]


def test_a_prompt_of_that_name_is_not_touched(place: Place, outputs: Path) -> None:
    (outputs / "a").write_text("x")
    run_id = place.run_with(outputs)
    place.client.register_prompt("spoken", "Hello {{name}}")
    with pytest.raises(UserErrorException, match="'spoken' is a prompt"):
        register(place.stores, run_id, "spoken", "outputs")
    assert place.client.get_prompt_version("spoken", 1).template == "Hello {{name}}"


# ---------------------------------------------------------------- Model


def test_what_is_given_is_kept_and_found_again(place: Place, outputs: Path) -> None:
    (outputs / "a").write_text("x")
    run_id = place.run_with(outputs)
    tags = {"area": "vision", "n": "1"}
    register(
        place.stores,
        run_id,
        "kept",
        "outputs",
        tags=tags,
        properties={"data": "v2"},
        description="The best",
        model_framework=Model.Framework.PYTORCH,
        model_framework_version="1.4",
    )
    register(place.stores, run_id, "kept", "outputs", tags={"area": "text"})
    assert tags == {"area": "vision", "n": "1"}
    workspace: Any = place
    model = Model(workspace, "kept", version=1)
    assert (model.id, model.version, model.run_id, model.description) == ("kept:1", 1, run_id, "The best")
    assert (model.tags, model.properties) == (tags, {"data": "v2"})
    assert (model.model_framework, model.model_framework_version) == ("PyTorch", "1.4")
    assert model.model_uri == "models:/kept/1"
    assert model.url is None
    assert str(model.run) == f"the run {run_id}"
    assert abs(model.created_time - datetime.now(timezone.utc)) < timedelta(minutes=5)
    place.client.set_registered_model_alias("kept", "best", "1")
    assert model.aliases == ("best",)
    assert model.serialize()["properties"] == {"data": "v2"}
    assert Model.deserialize(workspace, model.serialize()).id == "kept:1"
    assert Model(workspace, "kept").version == 2
    assert Model(workspace, id="kept:1").version == 1
    assert Model(workspace, "kept", tags=["n"]).version == 1
    assert Model(workspace, "kept", tags=[["area", "vision"]], properties=[["data", "v2"]]).version == 1
    assert Model(workspace, "kept", model_framework="PyTorch").version == 1
    found = Model.list(workspace, run_id=run_id)
    assert [model.id for model in found] == ["kept:2", "kept:1"]
    assert [model.id for model in Model.list(workspace, "kept", latest=True)] == ["kept:2"]
    assert [model.id for model in Model.list(workspace, tags=[["area", "vision"]])] == ["kept:1"]
    assert "kept:2" in [model.id for model in Model.list(workspace)]


def test_a_model_that_is_not_there_says_what_is(place: Place, outputs: Path) -> None:
    (outputs / "a").write_text("x")
    register(place.stores, place.run_with(outputs), "there", "outputs")
    workspace: Any = place
    with pytest.raises(ModelNotFoundException, match="versions of 'there': 1"):
        Model(workspace, "there", version=7)
    with pytest.raises(ModelNotFoundException, match="no model matches name='elsewhere'; models: '"):
        Model(workspace, "elsewhere")
    for options in ({"id": "there"}, {"id": "there:x"}, {"name": "a", "id": "there:1"}, {"name": "a", "version": 0}):
        with pytest.raises(UserErrorException):
            Model(workspace, **options)
    with pytest.raises(UserErrorException, match="pairs"):
        Model(workspace, "there", tags=[3])
    for call in (Model.deploy, Model.package, Model.profile):
        with pytest.raises(UserErrorException, match="mlflow models"):
            call(workspace, "x")


def test_tags_change_and_properties_do_not(place: Place, outputs: Path) -> None:
    (outputs / "a").write_text("x")
    register(place.stores, place.run_with(outputs), "changing", "outputs", tags={"a": "1"}, properties={"p": "1"})
    workspace: Any = place
    model = Model(workspace, "changing")
    model.add_tags({"b": "2", "a": "3"})
    assert model.tags == {"a": "3", "b": "2"}
    model.remove_tags(["a", "not there"])
    model.update_tags_properties(add_tags={"c": ""}, remove_tags="b", add_properties={"q": "2"})
    with pytest.raises(UserErrorException, match=r"properties \['p'\] already"):
        model.update_tags_properties(add_tags={"never": "1"}, add_properties={"new": "1", "p": "2"})
    with pytest.raises(UserErrorException, match="reserved"):
        model.add_tags({"gpu_cluster.property.p": "2"})
    model.remove_tags("gpu_cluster.property.p")
    again = Model(workspace, "changing")
    assert (again.tags, again.properties) == ({"c": ""}, {"p": "1", "q": "2"})
    model.update(tags={"only": "this"}, description="New")
    again = Model(workspace, "changing")
    assert (again.tags, again.description, again.properties) == ({"only": "this"}, "New", {"p": "1", "q": "2"})
    model.delete()
    with pytest.raises(ModelNotFoundException):
        Model(workspace, "changing")
    with pytest.raises(ModelNotFoundException, match="changing:1 is gone"):
        again.add_tags({"a": "b"})


def test_download_gives_back_the_file_or_the_folder(
    place: Place, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "deep").mkdir()
    (outputs / "deep" / "w.bin").write_text("weights")
    run_id = place.run_with(outputs)
    workspace: Any = place
    register(place.stores, run_id, "down", "outputs")
    register(place.stores, run_id, "down", "outputs/deep/w.bin")
    target = tmp_path / "target"
    folder, file = Model(workspace, "down", version=1), Model(workspace, "down", version=2)
    assert Path(folder.download(target)) == target / "outputs"
    assert (target / "outputs" / "deep" / "w.bin").read_text() == "weights"
    assert Path(file.download(str(target))) == target / "w.bin"
    for model, changed in ((folder, target / "outputs" / "deep" / "w.bin"), (file, target / "w.bin")):
        changed.write_text("mine")
        with pytest.raises(UserErrorException, match="exist_ok=True"):
            model.download(target)
        assert changed.read_text() == "mine"
        model.download(target, exist_ok=True)
        assert changed.read_text() == "weights"
    assert {path.name for path in target.iterdir()} == {"outputs", "w.bin"}
    (target / "w.bin").unlink()
    (target / "w.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserErrorException, match="through a link"):
        file.download(target, exist_ok=True)
    place.client.set_model_version_tag("down", "2", "gpu_cluster.model_path", "..")
    with pytest.raises(UserErrorException, match="lead out"):
        Model(workspace, "down", version=2).download(target)
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.chdir(tmp_path)
    path = Model.get_model_path("down", 1, workspace)
    assert Path(path) == Path("azureml-models/down/1/outputs")
    (Path(path) / "mark").touch()
    assert Model.get_model_path("down", 1, workspace) == path
    assert (Path(path) / "mark").exists()


def test_a_failed_download_leaves_no_half_model(
    place: Place, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "a").write_text("x")
    (outputs / "b").write_text("x")
    workspace: Any = place
    register(place.stores, place.run_with(outputs), "half", "outputs")

    def fail(self: Any, name: str, path: str) -> None:
        Path(path).write_text("x")
        if name == "b":
            raise OSError("the line broke")

    monkeypatch.setattr(LocalArtifactRepository, "_download_file", fail)
    with pytest.raises(GpuClusterError, match="the line broke"):
        Model(workspace, "half").download(tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_local_files_are_registered_too(place: Place, outputs: Path, tmp_path: Path) -> None:
    graph(outputs / "net.onnx", external="net.data")
    (outputs / "notes.txt").write_text("x")
    workspace: Any = place
    whole = Model.register(workspace, outputs, "local", tags={"a": "1"}, description="Local")
    part = Model.register(workspace, str(outputs), "local", child_paths=["notes.txt"])
    alone = Model.register(workspace, outputs / "net.onnx", "local")
    assert [model.version for model in (whole, part, alone)] == [1, 2, 3]
    assert (whole.tags, whole.description, whole.run_id, whole.not_servable) == ({"a": "1"}, "Local", None, None)
    for version in (1, 3):
        answer = predicted(place, RegisteredVersion("local", version, None))
        np.testing.assert_array_equal(answer, ROWS @ WEIGHTS)
    assert sorted(path.name for path in Path(part.download(tmp_path / "got")).iterdir()) == ["notes.txt"]
    (outputs / "link").symlink_to(tmp_path)
    for path, options, message in (
        (outputs, {}, "link 'link' leads out"),
        (tmp_path / "none", {}, "does not exist"),
        ("runs:/x/y", {}, "does not exist|local path"),
        ("https://x/y", {}, "local path"),
        (outputs / "net.onnx", {"child_paths": ["x"]}, "is a file"),
        (outputs / "net.onnx", {"datasets": [1]}, "datasets belonged"),
    ):
        with pytest.raises(UserErrorException, match=message):
            Model.register(workspace, path, "refused", **options)
    (outputs / "link").unlink()
    with pytest.raises(ModelPathNotFoundException, match=r"'none'; the folder has 'net\.data'"):
        Model.register(workspace, outputs, "refused", child_paths=["none"])
    assert not place.client.search_registered_models("name='refused'")


def test_the_same_through_a_server(server: Server, outputs: Path, tmp_path: Path) -> None:
    use(NOWHERE)
    place = Place(Stores(server.uri, server.uri), "0")
    workspace: Any = place
    graph(outputs / "net.onnx", external="net.data")
    (outputs / "raw.pt").write_text("weights")
    (outputs / "plain").mkdir()
    (outputs / "plain" / "a b.txt").write_text("x")
    run_id = place.run_with(outputs)
    made = register(place.stores, run_id, "net", "outputs", tags={"empty": ""}, properties={"p": "1"}, description="D")
    np.testing.assert_array_equal(predicted(place, made), ROWS @ WEIGHTS)
    assert register(place.stores, run_id, "net", "outputs/raw.pt").version == 2
    assert register(place.stores, run_id, "net", "outputs/plain").version == 3
    again = register(place.stores, run_id, "net.copy", "outputs/net.onnx")
    np.testing.assert_array_equal(predicted(place, again), ROWS @ WEIGHTS)
    model = Model(workspace, "net", version=1)
    assert (model.tags, model.properties, model.description) == ({"empty": ""}, {"p": "1"}, "D")
    assert model.url == f"{server.uri}/#/models/net/versions/1"
    raw = Model(workspace, "net", version=2).download(tmp_path / "got")
    assert Path(raw).read_text() == "weights"
    folder = Model(workspace, "net").download(tmp_path / "got")
    assert (Path(folder) / "a b.txt").read_text() == "x"
    model.add_tags({"new": "1"})
    model.remove_tags("empty")
    assert Model(workspace, id="net:1").tags == {"new": "1"}
    local = Model.register(workspace, outputs, "local")
    assert local.not_servable is None
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
