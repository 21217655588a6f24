"""The estimator's 27 parameters: each does what its name says or is refused with the reason."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from mlflow_pytorch_estimator import (
    DataInput,
    Environment,
    Gloo,
    Mpi,
    MpiConfiguration,
    Nccl,
    PyTorch,
    PyTorchConfiguration,
    ScriptRunConfig,
    TrainingException,
)
from mlflow_pytorch_estimator.errors import EnvironmentSpecError, GpuClusterError
from mlflow_pytorch_estimator.spec import Distribution

# fmt: off
ORIGINAL = [
    "source_directory", "compute_target", "vm_size", "vm_priority", "entry_script", "script_params",
    "node_count", "process_count_per_node", "distributed_backend", "distributed_training", "use_gpu",
    "use_docker", "custom_docker_image", "image_registry_details", "user_managed", "conda_packages",
    "pip_packages", "conda_dependencies_file", "pip_requirements_file", "environment_variables",
    "environment_definition", "inputs", "source_directory_data_store", "shm_size", "resume_from",
    "max_run_duration_seconds", "framework_version",
]
# fmt: on


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "src"
    (path / "sub").mkdir(parents=True)
    for name in ("train.py", "sub/other.py", "notes.ipynb"):
        (path / name).write_text("print('x')\n")
    return path


@pytest.fixture
def estimator(folder: Path) -> Any:
    def make(**options: Any) -> PyTorch:
        return PyTorch(folder, **{"compute_target": "local", "entry_script": "train.py", **options})

    return make


def refused(make: Any, **options: Any) -> str:
    with pytest.raises(GpuClusterError) as caught:
        make(**options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_parameters_are_the_originals() -> None:
    assert list(inspect.signature(PyTorch).parameters) == [*ORIGINAL, "backend_config"]


def test_every_parameter_has_a_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs/estimator.md").read_text(encoding="utf-8")
    assert [name for name in ORIGINAL if f"| `{name}` |" not in text] == []


def test_script_params_become_words_in_their_order(estimator: Any) -> None:
    params = {
        "--lr": 0.1,
        "--amp": "",
        "--name": "it's",
        "": "positional",
        "--n": 3,
        "--yes": True,
        "--dir": Path("a/b"),
    }
    words = estimator(script_params=params).describe().source.words
    assert words == (
        *("python", "train.py", "--lr", "0.1", "--amp", "--name", "it's", "positional"),
        *("--n", "3", "--yes", "True", "--dir", "a/b"),
    )


def test_numpy_scalars_are_numbers(estimator: Any) -> None:
    numpy = pytest.importorskip("numpy")
    words = estimator(script_params={"--lr": numpy.float64(0.5), "--n": numpy.int64(3)}).describe().source.words
    assert words[2:] == ("--lr", "0.5", "--n", "3")


@pytest.mark.parametrize("value", [None, [1], (1,), {"a": 1}, object(), b"x", "a\0b"])
def test_other_values_are_refused(estimator: Any, value: object) -> None:
    assert "--x" in refused(estimator, script_params={"--x": value})


def test_nothing_of_the_callers_is_changed(estimator: Any, tmp_path: Path) -> None:
    packages, params, variables = ["six"], {"--a": 1}, {"B": "2"}
    for _ in range(2):
        estimator(pip_packages=packages, script_params=params, environment_variables=variables, resume_from=tmp_path)
    assert (packages, params, variables) == (["six"], {"--a": 1}, {"B": "2"})


def test_resume_from_is_an_argument(estimator: Any, tmp_path: Path) -> None:
    words = estimator(resume_from="runs:/abc/outputs", script_params={"--a": 1}).describe().source.words
    assert words[4:] == ("--resume-from", DataInput("runs:/abc/outputs"))
    assert "no file or folder" in refused(estimator, resume_from=tmp_path / "gone")


@pytest.mark.parametrize(
    ("options", "nodes", "expected"),
    [
        ({}, 1, Distribution()),
        ({"distributed_training": Mpi()}, 1, Distribution("horovod", 1)),
        ({"distributed_training": MpiConfiguration(), "node_count": 2}, 2, Distribution("horovod", 1)),
        # Faults of the original: both were ignored.
        ({"distributed_training": MpiConfiguration(node_count=2)}, 2, Distribution("horovod", 1)),
        ({"distributed_training": Mpi(), "process_count_per_node": 8}, 1, Distribution("horovod", 8)),
        ({"distributed_training": Mpi(4), "process_count_per_node": 4}, 1, Distribution("horovod", 4)),
        ({"distributed_backend": "mpi", "node_count": 3, "process_count_per_node": 2}, 3, Distribution("horovod", 2)),
        ({"distributed_backend": "NCCL"}, 1, Distribution("torch", 1, "nccl")),
        ({"distributed_training": Gloo(2)}, 1, Distribution("torch", 2, "gloo")),
        ({"distributed_training": Nccl(), "node_count": 2}, 2, Distribution("torch", 1, "nccl")),
        ({"distributed_training": PyTorchConfiguration(node_count=2)}, 2, Distribution("torch", 1, "nccl")),
        (
            {"distributed_training": PyTorchConfiguration("Gloo", process_count=8), "node_count": 2},
            2,
            Distribution("torch", 4, "gloo"),
        ),
    ],
)
def test_nodes_and_ranks(estimator: Any, options: dict[str, Any], nodes: int, expected: Distribution) -> None:
    job = estimator(**options).describe()
    assert (job.node_count, job.distribution) == (nodes, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"node_count": 2},
        {"process_count_per_node": 2},
        {"node_count": 0},
        {"node_count": True},
        {"node_count": 1.5},
        {"node_count": 3, "distributed_training": MpiConfiguration(node_count=2)},
        {"process_count_per_node": 8, "distributed_training": Mpi(4)},
        {"distributed_backend": "mpi", "distributed_training": Mpi()},
        {"distributed_backend": "smoke signals"},
        {"distributed_training": "mpi"},
        {"distributed_training": PyTorchConfiguration(process_count=3), "node_count": 2},
    ],
)
def test_contradictions_are_refused(estimator: Any, options: dict[str, Any]) -> None:
    refused(estimator, **options)


def test_impossible_distributions_are_refused() -> None:
    for make in (
        lambda: Mpi(0),
        lambda: MpiConfiguration(1, 0),
        lambda: PyTorchConfiguration("ucc"),
        lambda: PyTorchConfiguration(process_count=3, node_count=2),
    ):
        with pytest.raises(TrainingException):
            make()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        # Images: test_containers.py.
        ({"source_directory_data_store": "blob"}, "job directory"),
        ({"compute_target": None}, "compute_target is missing"),
        ({"vm_size": "STANDARD_NC6"}, "leave one out"),
        ({"compute_target": 3}, "compute_target"),
        ({"compute_target": None, "vm_size": "STANDARD_NONSENSE"}, "not known"),
        ({"vm_priority": "urgent"}, "vm_priority"),
        ({"entry_script": None}, "entry_script is missing"),
        ({"entry_script": "gone.py"}, "is not in source_directory"),
        ({"entry_script": "../src/train.py"}, "inside source_directory"),
        ({"entry_script": "/etc/passwd"}, "inside source_directory"),
        ({"entry_script": "notes.ipynb"}, "nbconvert"),
        ({"script_params": ["--a"]}, "must be a dict"),
        ({"use_gpu": "yes"}, "use_gpu"),
        ({"user_managed": 1}, "user_managed"),
        ({"user_managed": True, "pip_packages": ["six"]}, "pip_packages"),
        ({"user_managed": True, "framework_version": "2.9"}, "framework_version"),
        ({"pip_packages": "six"}, "must be a list"),
        ({"pip_packages": [3]}, "must be text"),
        ({"pip_packages": ["not a requirement!"]}, "requirement"),
        ({"conda_packages": ["python=3.8"]}, "need Python 3.10 or newer"),
        ({"conda_dependencies_file": "gone.yml"}, "gone.yml"),
        ({"pip_requirements_file": "gone.txt"}, "gone.txt"),
        ({"environment_variables": ["A"]}, "must be a dict"),
        ({"environment_variables": {"A B": "1"}}, "cannot name"),
        ({"environment_variables": {"MLFLOW_RUN_ID": "1"}}, "MLFLOW_RUN_ID"),
        ({"environment_variables": {"A": "x" * 200_000}}, "too long"),
        ({"environment_definition": "conda.yaml"}, "must be an Environment"),
        ({"environment_definition": Environment("e"), "pip_packages": ["six"]}, "leave out pip_packages"),
        ({"inputs": "folder"}, "must be a list or a dict"),
        ({"inputs": [3]}, "an input is a int"),
        ({"inputs": [DataInput("a", "x"), DataInput("b", "x")]}, "two inputs"),
        ({"max_run_duration_seconds": 0}, "above 0"),
        ({"max_run_duration_seconds": float("inf")}, "above 0"),
        ({"framework_version": "newest"}, "newest"),
        ({"framework_version": "1.4"}, "1.4"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(estimator: Any, options: dict[str, Any], word: str) -> None:
    assert word in refused(estimator, **options)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingException, match="is no folder"):
        PyTorch(tmp_path / "gone", compute_target="local", entry_script="train.py")


def test_the_packages(estimator: Any, folder: Path) -> None:
    (folder / "more.txt").write_text("six>=1\n")
    spec = estimator(pip_packages=["pillow"], pip_requirements_file="more.txt", framework_version="2.13").describe()
    requirements = spec.source.environment(folder).requirements
    assert set(requirements) >= {"pillow", "six>=1", "torch==2.13.*", "torchvision==0.28.*"}


def test_own_words_about_torch_win(estimator: Any, folder: Path) -> None:
    spec = estimator(pip_packages=["torch==2.9.0"]).describe().source.environment(folder)
    assert [line for line in spec.requirements if line.startswith("torch=")] == ["torch==2.9.0"]
    assert "torch" not in spec.requirements


def test_an_environment_brings_its_variables(estimator: Any) -> None:
    environment = Environment("mine")
    environment.environment_variables["A"] = "1"
    assert estimator(environment_definition=environment).describe().source.environment_variables == {"A": "1"}


def test_user_managed_is_the_interpreter_that_submits(estimator: Any, folder: Path) -> None:
    assert estimator(user_managed=True).describe().source.environment(folder).manager == "local"


def test_only_params_and_inputs_can_be_replaced_at_submission(estimator: Any) -> None:
    first = estimator(script_params={"--a": 1})
    assert first.describe(script_params={"--a": 2}).source.words[-1] == "2"
    assert first.describe().source.words[-1] == "1"
    assert "node_count" in refused(first.describe, node_count=2)


def test_gpu_wishes(estimator: Any) -> None:
    assert estimator().describe().use_gpu is False
    assert estimator(use_gpu=True).describe().use_gpu is True


def test_attributes_of_the_original(estimator: Any, folder: Path) -> None:
    made = estimator(framework_version="2.13")
    assert made.source_directory == str(folder)
    assert made.framework_version == "2.13"
    assert PyTorch.FRAMEWORK_NAME == "PyTorch"
    assert "2.13" in PyTorch.get_supported_versions()
    assert "framework_version='2.13'" in repr(made)


def test_script_run_config_is_the_same_job(folder: Path) -> None:
    one = PyTorch(folder, compute_target="local", entry_script="train.py", script_params={"--a": 1}, node_count=2,
                  distributed_training=MpiConfiguration())  # fmt: skip
    other = ScriptRunConfig(
        folder, "train.py", ["--a", 1], compute_target="local", distributed_job_config=MpiConfiguration(node_count=2)
    )
    first, second = one.describe(), other.describe()
    assert (first.source.words, first.node_count, first.distribution, first.source.parameters) == (
        second.source.words,
        second.node_count,
        second.distribution,
        second.source.parameters,
    )
    environments = [job.source.environment(folder) for job in (first, second)]
    assert environments[0].requirements == environments[1].requirements


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": ["echo", "a b"]}, ("echo", "a b")),
        ({"command": "echo $HOME | cat"}, ("bash", "-c", "echo $HOME | cat")),
        ({"script": "sub/other.py", "arguments": ["--x", Path("d")]}, ("python", "sub/other.py", "--x", "d")),
    ],
)
def test_commands(folder: Path, options: dict[str, Any], words: tuple[str, ...]) -> None:
    assert ScriptRunConfig(folder, **options).describe().source.words == words


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"script": "train.py", "command": ["x"]},
        {"script": "train.py", "arguments": "--a 1"},
        {"script": "train.py", "arguments": [None]},
        {"command": ["x"], "arguments": ["y"]},
        {"command": []},
        {"command": "  "},
        {"script": "train.py", "run_config": object()},
        {"script": "train.py", "docker_runtime_config": object()},
        {"script": "train.py", "environment": "conda.yaml"},
        {"script": "train.py", "compute_target": 3},
        {"script": "train.py", "max_run_duration_seconds": -1},
    ],
)
def test_script_run_config_refuses(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(GpuClusterError):
        ScriptRunConfig(folder, **options)


def test_errors_of_packages_are_our_own(estimator: Any, folder: Path) -> None:
    (folder / "env.yml").write_text("dependencies: [python, pip]\n")
    with pytest.raises(EnvironmentSpecError, match="conda_dependencies_file"):
        estimator(conda_dependencies_file="env.yml", pip_packages=["six"])
