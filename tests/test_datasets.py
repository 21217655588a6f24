"""Data that a job was given is a dataset input of its run."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from conftest import Project, finish, submit
from mlflow.entities import DatasetInput
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import DataInput, Experiment, PyTorch, Workspace, datasets
from mlflow_pytorch_estimator.datasets import inputs_of
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec


def job(datasets: dict[str, dict[str, str]]) -> JobSpec:
    return JobSpec("r1", "0", "toy", "main", "true", {}, InterpreterSpec("local"), datasets=datasets)


def given(uri: str, path: str, name: str = "data") -> DatasetInput:
    (found,) = inputs_of(job({name: {"uri": uri, "path": path}}), lambda text: text)
    return found


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    folder = tmp_path / "birds"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("aa")
    (folder / "sub" / "b.txt").write_text("bbb")
    return folder


def digest(path: Path) -> str:
    return str(given(str(path), str(path)).dataset.digest)


def test_a_digest_follows_names_and_contents_and_nothing_else(birds: Path, tmp_path: Path) -> None:
    first = digest(birds)
    (tmp_path / "elsewhere").mkdir()
    assert digest(birds.rename(tmp_path / "elsewhere" / "birds")) == first
    moved = tmp_path / "elsewhere" / "birds"
    (moved / "a.txt").write_text("ax")
    changed = digest(moved)
    (moved / "a.txt").rename(moved / "c.txt")
    assert len({first, changed, digest(moved)}) == 3


def test_much_data_is_not_read(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_MOST_BYTES", 4)
    first = given(str(birds), str(birds)).dataset
    assert json.loads(first.profile) == {"files": 2, "bytes": 5, "digest_of": "names and sizes"}
    (birds / "a.txt").write_text("xx")
    assert digest(birds) == first.digest
    (birds / "a.txt").write_text("xxx")
    assert digest(birds) != first.digest


def test_what_is_not_here_has_the_digest_of_its_address(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = given("s3://bucket/some%20birds/", "s3://bucket/some%20birds/").dataset
    assert (there.name, there.source_type, there.profile) == ("some birds", "s3", None)
    assert given("s3://bucket/others", "s3://bucket/others").dataset.digest != there.digest
    monkeypatch.setattr(datasets, "_MOST_FILES", 1)
    assert given(str(birds), str(birds)).dataset.profile is None
    assert given("/nowhere", "/nowhere").dataset.profile is None


def test_passwords_of_addresses_stay_away() -> None:
    found = given("ftp://me:hunter2@host/birds", "ftp://me:hunter2@host/birds")
    assert "hunter2" not in found.dataset.source + found.dataset.name
    assert json.loads(found.dataset.source) == {"uri": "ftp://host/birds"}


def test_mlflow_opens_the_source_of_a_dataset(birds: Path, store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        store.log_inputs(run.info.run_id, [given(str(birds), str(birds))])
    (found,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    source = mlflow.data.get_source(found)
    assert sorted(path.name for path in Path(source.load()).rglob("*.txt")) == ["a.txt", "b.txt"]


def test_one_data_set_for_two_inputs_has_both_names(birds: Path) -> None:
    data = {"uri": str(birds), "path": str(birds)}
    (found,) = inputs_of(job({"train": data, "val": data}), lambda text: text)
    assert found.tags[0].value == "train, val"


def test_path_parameters_of_a_project_are_datasets(store: MlflowClient, project: Project, birds: Path) -> None:
    project.script("import sys; print(sys.argv[1:])", parameters="{data: path, n: int}")
    project.entry("main", "python train.py {data} {n}", "{data: path, n: int}")
    done = finish(submit(project, parameters={"data": str(birds), "n": "3"}))
    assert done.succeeded, done.log
    (found,) = store.get_run(done.run.info.run_id).inputs.dataset_inputs
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "data"}
    assert (found.dataset.name, found.dataset.source_type, found.dataset.digest) == ("birds", "local", digest(birds))
    assert json.loads(found.dataset.source) == {"uri": str(birds)}
    assert f"| Data | data: {birds} |" in done.tags["mlflow.note.content"]
    assert done.directory.datasets_told.exists()


def test_inputs_of_an_estimator_are_datasets_also_what_was_downloaded(
    store: MlflowClient, folder: Path, birds: Path
) -> None:
    with mlflow.start_run() as other:
        mlflow.log_artifacts(str(birds), "birds")
    first = digest(birds)
    uri = f"runs:/{other.info.run_id}/birds"
    (birds / "a.txt").write_text("others")
    (folder / "train.py").write_text("import sys; print(sys.argv)\n")
    estimator = PyTorch(
        str(folder),
        entry_script="train.py",
        compute_target="local",
        user_managed=True,
        script_params={"--train-data": DataInput(uri)},
        inputs=[DataInput(str(birds), name="val")],
    )
    run = Experiment(Workspace(), "birds").submit(estimator)
    run.wait_for_completion()
    found = {
        item.tags[0].value: (json.loads(item.dataset.source)["uri"], item.dataset.digest)
        for item in store.get_run(run.id).inputs.dataset_inputs
    }
    assert found == {"train-data": (uri, first), "val": (str(birds), digest(birds))}
