"""The variables that a project's files or the user set for a job: they reach the ranks, and no file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import finish
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import CondaDependencies, Environment, submission
from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.script_source import ScriptSource
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores


def start(folder: Path, of_file: Mapping[str, str], of_user: Mapping[str, str]) -> GpuClusterSubmittedRun:
    """A job whose `conda.yaml` has `variables`."""
    spec = EnvironmentSpec("local", None, (), (), "conda.yaml", variables=tuple(of_file.items()))
    script = 'echo "[$OF_FILE][$OF_BOTH][$OF_SHELL]"'
    source = ScriptSource(folder, ("bash", "-c", script), lambda root: spec, "bash", environment_variables=of_user)
    request = Request(source, "0", Stores.current(), environment_variables=of_user)
    return submission.submit(request)


def test_variables_of_a_file_reach_the_ranks_and_those_of_the_user_win(
    store: MlflowClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_SHELL", "shell")
    of_file = {"OF_FILE": "file's own", "OF_BOTH": "not this", "OF_SHELL": "as `conda activate` does"}
    done = finish(start(folder, of_file, {"OF_BOTH": "user's"}))
    assert done.log == "[file's own][user's][as `conda activate` does]\n"
    assert done.directory.job.environment_variables == ("OF_BOTH", "OF_FILE", "OF_SHELL")
    for path in done.directory.path.rglob("*"):
        if path.is_file() and path != done.directory.rank_log(0):
            assert b"file's own" not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["MLFLOW_RUN_ID", "GPU_CLUSTER_HOME"])
def test_variables_of_the_backend_are_refused(store: MlflowClient, folder: Path, name: str) -> None:
    with pytest.raises(EnvironmentSpecError, match=rf"conda\.yaml: the variable {name} is set by the backend"):
        start(folder, {name: "x"}, {})
    assert store.search_runs(["0"]) == []


@pytest.mark.parametrize("kind", ["image", "user managed"])
def test_an_environment_keeps_the_variables_of_its_file(folder: Path, tmp_path: Path, kind: str) -> None:
    described = tmp_path / "conda.yaml"
    described.write_text("variables: {ONE: '1'}\ndependencies: []\n", encoding="utf-8")
    environment = Environment("mine")
    environment.python.conda_dependencies = CondaDependencies(described)
    if kind == "image":
        environment.docker.base_image = "some/image"
    else:
        environment.python.user_managed_dependencies = True
    assert environment.describe(folder).variables == (("ONE", "1"),)
