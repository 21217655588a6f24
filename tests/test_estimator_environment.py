"""``Environment`` and ``CondaDependencies``: what scripts written for the original do with them."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError, GpuClusterError
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.packages.build import EnvironmentBuild
from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import CondaDependencies
from mlflow_pytorch_estimator.estimator.packages.environment import Environment

LOCAL = EnvironmentSpec("local", None, (), (), "local")
CONDA_FILE = """\
name: train
channels:
- conda-forge
dependencies:
- python=3.11
- numpy=1.26
- pip:
  - --index-url https://host/simple
  - six==1.16.0
prefix: /opt/train
"""


def environment(**settings: Any) -> Environment:
    created = Environment("mine")
    created.python.conda_dependencies = CondaDependencies.create(**settings)
    return created


# --- CondaDependencies


def test_create() -> None:
    created = CondaDependencies.create(
        pip_indexurl="https://host/simple",
        pip_packages=["six", "torch==2.13"],
        conda_packages=["numpy"],
        python_version="3.11",
        pin_sdk_version=False,
    )
    assert created.conda_packages == ("python=3.11", "numpy")
    assert created.pip_packages == ("six", "torch==2.13")
    assert created.pip_options == ("--index-url https://host/simple",)
    assert CondaDependencies.create() == CondaDependencies()
    assert CondaDependencies().serialize_to_string() == "name: project_environment\ndependencies: []\n"


def test_the_callers_objects_stay_as_they_are() -> None:
    pip, packages = ["six"], ["numpy"]
    first, second = (CondaDependencies.create(pip_packages=pip, conda_packages=packages) for _ in range(2))
    first.add_pip_package("tqdm")
    first.add_conda_package("scipy")
    assert (pip, packages) == (["six"], ["numpy"])
    assert second.pip_packages == ("six",)
    structure: dict[str, Any] = {"dependencies": ["numpy", {"pip": ["six"]}], "channels": ["defaults"]}
    over = CondaDependencies(_underlying_structure=structure)
    over.add_conda_package("scipy")  # first: it changes the list of dependencies in place
    over.add_channel("conda-forge")
    over.add_pip_package("tqdm")
    assert structure == {"dependencies": ["numpy", {"pip": ["six"]}], "channels": ["defaults"]}


def test_round_trip_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text(CONDA_FILE)
    loaded = CondaDependencies(file)
    assert yaml.safe_load(loaded.serialize_to_string()) == yaml.safe_load(CONDA_FILE)
    assert loaded.save(tmp_path / "copy.yml") == str(tmp_path / "copy.yml")
    assert CondaDependencies(str(tmp_path / "copy.yml")) == loaded
    assert loaded.save_to_file(tmp_path) == "conda_dependencies.yml"
    assert loaded.save_to_file(tmp_path, "other.yml") == "other.yml"
    assert CondaDependencies(tmp_path / "other.yml") == CondaDependencies(tmp_path / "conda_dependencies.yml")


def test_save_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CondaDependencies().save() == "conda_dependencies.yml"
    assert CondaDependencies("conda_dependencies.yml") == CondaDependencies()


def test_pip_packages_are_added_replaced_and_removed() -> None:
    changed = CondaDependencies.create(pip_packages=["six==1.15", "PyYAML>=5; python_version > '3'"])
    changed.add_pip_package("Six==1.16")
    changed.add_pip_package("tqdm")
    changed.add_pip_package("pyyaml; python_version < '3'")
    assert list(changed.pip_packages) == ["Six==1.16", "pyyaml; python_version < '3'", "tqdm"]
    changed.remove_pip_package("six")
    changed.remove_pip_package("PyYAML==6")
    changed.remove_pip_package("never-there")
    assert list(changed.pip_packages) == ["tqdm"]
    changed.set_pip_requirements(["a", "b"])
    assert list(changed.pip_packages) == ["a", "b"]
    changed.set_pip_requirements([])
    assert changed == CondaDependencies()


def test_conda_packages_are_added_replaced_and_removed() -> None:
    changed = CondaDependencies.create(conda_packages=["numpy=1.26"], pip_packages=["six"], python_version="3.10")
    changed.add_conda_package("conda-forge::numpy=2")
    changed.add_conda_package("scipy")
    changed.set_python_version(">=3.11")
    assert list(changed.conda_packages) == ["python>=3.11", "conda-forge::numpy=2", "scipy"]
    changed.remove_conda_package("numpy")
    changed.remove_conda_package("never-there")
    assert list(changed.conda_packages) == ["python>=3.11", "scipy"]
    assert list(changed.pip_packages) == ["six"]


def test_channels_and_options() -> None:
    changed = CondaDependencies()
    changed.add_channel("conda-forge")
    changed.add_channel("conda-forge")
    changed.add_channel("pytorch")
    changed.remove_channel("pytorch")
    assert changed.conda_channels == ("conda-forge",)
    changed.set_pip_option("--pre")
    changed.set_pip_option("--pre")
    changed.set_pip_index_url("https://one/simple")
    changed.set_pip_index_url("--index-url https://two/simple")
    assert changed.pip_options == ("--index-url https://two/simple", "--pre")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: CondaDependencies.create(pip_packages="six"), "pip_packages is 'six'; it must be a list"),
        (
            lambda: CondaDependencies.create(conda_packages=["a", 1]),  # type: ignore[list-item]
            "an item of conda_packages is 1",
        ),
        (lambda: CondaDependencies.create(python_version="latest"), "'latest' is not a Python version"),
        (
            lambda: CondaDependencies.create(python_version=3.11),  # type: ignore[arg-type]
            "python_version is 3.11; it must be a text",
        ),
        (lambda: CondaDependencies().add_pip_package(" "), "pip_package is ' '"),
        (lambda: CondaDependencies().set_pip_option("six"), "pip_option is 'six'; it must start with '-'"),
        (lambda: CondaDependencies("no.yml"), "no.yml: cannot be read"),
        (lambda: CondaDependencies("a", {}), "give either"),
        (lambda: CondaDependencies(None, {"dependencies": [{"npm": []}]}), "neither a package nor a 'pip:' list"),
        (lambda: CondaDependencies(None, {"dependencies": [], "channels": "x"}), "channels is 'x'"),
        (lambda: CondaDependencies(None, {"dependencies": [], "variables": "x"}), "'variables' must be a mapping"),
        (lambda: CondaDependencies().save("/no/folder/x.yml"), "cannot write '/no/folder/x.yml'"),
    ],
)
def test_wrong_dependencies(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(GpuClusterError) as caught:
        wrong()
    assert words in str(caught.value)


# --- Environment.describe


def test_packages_of_an_environment(tmp_path: Path) -> None:
    created = environment(
        python_version="3.11", conda_packages=["scikit-learn=1.4"], pip_packages=["six", "azureml-defaults"]
    )
    found = created.describe(tmp_path)
    assert (found.manager, found.python, found.requirements) == ("uv", "==3.11.*", ("scikit-learn==1.4.*", "six"))
    assert Environment("empty").describe(tmp_path).requirements == ()


def test_what_only_conda_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAMBA_EXE", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "rattler", None)  # as if it were not installed
    created = environment(conda_packages=["cudatoolkit"], pip_packages=["six"])
    created.python.conda_dependencies.add_channel("mine")
    with pytest.raises(EnvironmentSpecError, match="the conda packages of environment 'mine': only conda has cuda"):
        created.describe(tmp_path)
    (tmp_path / "conda").touch(0o755)
    found = created.describe(tmp_path)
    assert (found.manager, found.conda[2:], found.channels) == ("conda", ("cudatoolkit",), ("mine",))
    assert found.requirements == ("six",)


def test_variables_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(CONDA_FILE + "variables: {A: '1'}\n")
    created = Environment.from_conda_specification("mine", tmp_path / "conda.yaml")
    assert created.environment_variables == {"A": "1"}
    assert created.describe(tmp_path).variables == ()
    created.python.conda_dependencies = CondaDependencies(tmp_path / "conda.yaml")
    assert created.describe(tmp_path).variables == (("A", "1"),)


def test_user_managed(tmp_path: Path) -> None:
    created = Environment("mine")
    created.python.user_managed_dependencies = True
    assert created.describe(tmp_path) == LOCAL
    created.python.interpreter_path = sys.executable
    assert created.describe(tmp_path) == LOCAL


@pytest.mark.parametrize(
    ("managed", "path", "packages", "words"),
    [
        (True, "/no/python", [], "there is no interpreter_path '/no/python'"),
        (True, "OTHER", [], "run with the interpreter that submits them"),
        (True, "python", ["six"], "leave out six, or install them there"),
        (False, sys.executable, [], "needs user_managed_dependencies=True"),
    ],
)
def test_interpreters_that_are_refused(
    tmp_path: Path, managed: bool, path: str, packages: list[str], words: str
) -> None:
    (tmp_path / "python").symlink_to(sys.executable)  # as a virtual environment has it
    created = environment(pip_packages=packages)
    created.python.user_managed_dependencies = managed
    created.python.interpreter_path = str(tmp_path / "python") if path == "OTHER" else path
    with pytest.raises(EnvironmentSpecError) as caught:
        created.describe(tmp_path)
    assert words in str(caught.value)


def test_variables_are_a_copy() -> None:
    created, mine = Environment("mine"), {"A": "1"}
    created.environment_variables = mine
    created.environment_variables["B"] = "2"
    assert mine == {"A": "1"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Environment(""), "an environment needs one"),
        (lambda: setattr(Environment("x"), "spark", 1), "environment.spark is not supported here"),
        (lambda: setattr(Environment("x").docker, "platform", "arm64"), "environment.docker.platform is not supported"),
        (lambda: setattr(Environment("x").python, "user_managed_dependencies", "y"), "it must be a bool"),
        (lambda: setattr(Environment("x").python, "conda_dependencies", ["six"]), "it must be a CondaDependencies"),
        (lambda: setattr(Environment("x"), "environment_variables", ["A"]), "it must be a Mapping"),
        (lambda: Environment.from_dockerfile("x", "./Dockerfile"), "dockerfile: images are not built here: build it"),
        (lambda: Environment("x").register(None), "environments are not registered anywhere: keep them beside"),
        (lambda: Environment.get(None, "AzureML-PyTorch"), "there is no environment 'AzureML-PyTorch'"),
        (lambda: Environment.list(None), "environments are not registered anywhere"),
    ],
)
def test_what_would_do_nothing_raises(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UserErrorException) as caught:
        wrong()
    assert words in str(caught.value)


def test_clone_is_independent() -> None:
    first = environment(pip_packages=["six"])
    first.environment_variables = {"A": "1"}
    second = first.clone("other")
    second.environment_variables["B"] = "2"
    second.python.conda_dependencies.add_pip_package("tqdm")
    second.python.user_managed_dependencies = True
    assert (second.name, first.name) == ("other", "mine")
    assert first.environment_variables == {"A": "1"}
    assert first.python.conda_dependencies.pip_packages == ("six",)
    assert not first.python.user_managed_dependencies
    assert second.python.conda_dependencies.pip_packages == ("six", "tqdm")


# --- files


def test_from_conda_specification(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(CONDA_FILE)
    found = Environment.from_conda_specification("mine", tmp_path / "conda.yaml").describe(tmp_path)
    assert found.requirements == ("numpy==1.26.*", "--index-url https://host/simple", "six==1.16.0")


def test_from_pip_requirements_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "deps/pkg").mkdir(parents=True)
    (tmp_path / "deps/r.txt").write_text("six # why\n./pkg\n-r more.txt\n")
    (tmp_path / "deps/more.txt").write_text("tqdm\n")
    created = Environment.from_pip_requirements("mine", tmp_path / "deps/r.txt", pip_version="24.0")
    assert created.describe(tmp_path.resolve()).requirements == ("pip==24.0.*", "six", "./deps/pkg", "tqdm")
    with pytest.raises(EnvironmentSpecError, match=r"no\.txt: cannot be read"):
        Environment.from_pip_requirements("mine", tmp_path / "no.txt")


def fake_conda(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "conda"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_from_existing_conda_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_conda(tmp_path, f'echo "$@" > {tmp_path}/argv; printf "%s" "{CONDA_FILE}variables:\n  A: 1\n"', monkeypatch)
    created = Environment.from_existing_conda_environment("mine", "train")
    assert created.python.conda_dependencies.conda_packages == ("python=3.11", "numpy=1.26")
    assert (tmp_path / "argv").read_text().split() == ["env", "export", "--no-builds", "--name", "train"]
    assert created.environment_variables == {"A": "1"}


def test_conda_environment_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_conda(tmp_path, "echo EnvironmentLocationNotFound: train >&2; exit 1", monkeypatch)
    with pytest.raises(UserErrorException, match=r"'train': EnvironmentLocationNotFound: train"):
        Environment.from_existing_conda_environment("mine", "train")
    with pytest.raises(UserErrorException, match="'-p' is no name"):
        Environment.from_existing_conda_environment("mine", "-p")


def test_no_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserErrorException, match=r"there is no conda command here; where there is one, 'conda env"):
        Environment.from_existing_conda_environment("mine", "train")


def test_save_and_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = environment(pip_packages=["six"], conda_packages=["numpy"])
    saved.version = "3"
    saved.environment_variables = {"A": "ä", "API_TOKEN": "hunter2hunter2"}
    saved.python.user_managed_dependencies = True
    folder = tmp_path / "deep/mine"
    with caplog.at_level(logging.WARNING):
        saved.save_to_directory(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'environment.json'} holds API_TOKEN in clear: keep it out of version control"
    ]
    assert (folder / "environment.json").stat().st_mode & 0o777 == 0o600
    loaded = Environment.load_from_directory(folder)
    assert (loaded.name, loaded.version) == ("mine", "3")
    assert loaded.environment_variables == saved.environment_variables
    assert vars(loaded.python) == vars(saved.python)
    assert vars(loaded.docker) == vars(saved.docker)
    assert sorted(path.name for path in folder.iterdir()) == ["conda_dependencies.yml", "environment.json"]


def test_overwriting_has_to_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "environment.json").touch(0o644)
    with pytest.raises(UserErrorException, match=r"environment\.json is there already: give overwrite=True"):
        Environment("mine").save_to_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["environment.json"]
    Environment("mine").save_to_directory(tmp_path, overwrite=True)
    assert Environment.load_from_directory(tmp_path).name == "mine"
    assert (tmp_path / "environment.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "was not written by save_to_directory"),
        ('{"name": 1}', "name"),
    ],
)
def test_load_from_a_wrong_directory(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "environment.json").write_text(text)
    with pytest.raises(UserErrorException, match=words):
        Environment.load_from_directory(tmp_path)


def test_a_directory_that_somebody_has_edited(tmp_path: Path) -> None:
    Environment("mine").save_to_directory(tmp_path)
    file = tmp_path / "environment.json"
    settings = json.loads(file.read_text())
    settings["docker"]["platform"] = "arm64"
    file.write_text(json.dumps(settings))
    with pytest.raises(UserErrorException, match=r"docker\.platform is not supported"):
        Environment.load_from_directory(tmp_path)


# --- building


def test_build(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    spec = environment(pip_packages=["six==1.16.0"]).describe(tmp_path)
    built = EnvironmentBuild.run(spec, base=("packaging",))
    assert Path(built.python).is_relative_to(home / "envs")
    assert built.wait_for_completion(show_output=False) is built
    assert capsys.readouterr().out == ""
    assert built.wait_for_completion().status == "succeeded"
    assert "$ uv pip install" in capsys.readouterr().out
    again = EnvironmentBuild.run(spec, base=("packaging",))
    assert again.python == built.python
    assert "six==1.16.0" in again.log


def test_building_a_user_managed_environment_is_nothing(home: Path, tmp_path: Path) -> None:
    created = Environment("mine")
    created.python.user_managed_dependencies = True
    assert created.build_local(None).python == sys.executable
    assert not (home / "envs").exists()
