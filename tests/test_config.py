"""The backend config in every form that MLflow can hand over."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_pytorch_estimator.config import BackendConfig, read_config
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec, Resources

MLFLOWS = {
    "ENV_MANAGER": "local",
    "SYNCHRONOUS": False,
    "DOCKER_ARGS": {},
    "STORAGE_DIR": None,
    "build_image": False,
    "docker_auth": None,
}

EVERY_KEY: dict[str, Any] = {
    "scheduler": "local",
    "scheduler_options": {"queue": "x"},
    "compute": None,
    "node_count": 1,
    "process_count_per_node": 2,
    "distributed_training": "torchrun",
    "min_node_count": 1,
    "max_restarts": 2,
    "relay": False,
    "rank_metrics": "prefix",
    "cpus_per_node": 2,
    "gpus_per_node": 0,
    "memory_gb_per_node": 1.5,
    "max_run_duration_seconds": 60,
    "checkpoint_signal": "USR2",
    "checkpoint_lead_seconds": 10,
    "start_timeout_seconds": 20,
    "max_retries": 3,
    "retry_exit_codes": (75, -9),
    "resume_from": "/checkpoints",
    "low_priority": True,
    "shared_filesystem": False,
    "upgrade_environment": True,
    "prepare_on": "node",
    "after": ("0123abcd",),
    "detach": True,
    "dry_run": True,
    "grace_period_seconds": 0.5,
}


def refused(raw: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(raw)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_key_is_read() -> None:
    config = read_config(EVERY_KEY)
    assert {name: getattr(config, name) for name in EVERY_KEY} == EVERY_KEY
    assert set(EVERY_KEY) == set(BackendConfig.__dataclass_fields__) - {"given"}
    assert config.resources == Resources(1, 2, 0, 1.5, True)


@pytest.mark.parametrize("raw", [None, {}, "{}", MLFLOWS])
def test_nothing_given_means_the_defaults(raw: object) -> None:
    assert read_config(raw) == BackendConfig()
    assert read_config(raw).resources == Resources(1, None, None)


def test_the_callers_dict_is_not_changed() -> None:
    given = {**copy.deepcopy(EVERY_KEY), **MLFLOWS}
    before = copy.deepcopy(given)
    read_config(given)
    assert given == before
    assert list(given) == list(before)


def test_json_text_and_files_are_read(tmp_path: Path) -> None:
    text = json.dumps(EVERY_KEY)
    (tmp_path / "täglich.json").write_text(text, encoding="utf-8")
    for raw in (text, f" \n{text}", str(tmp_path / "täglich.json"), tmp_path / "täglich.json"):
        assert read_config(raw) == read_config(EVERY_KEY)


WRONG: dict[str, list[Any]] = {
    "scheduler": [None, 1, [], {}, "Local", ""],
    "scheduler_options": [None, [], "a", 1],
    "node_count": [0, -1, 1.0, True, "1", None, []],
    "process_count_per_node": [0, -1, 1.0, True, "1", None, []],
    "distributed_training": ["", "Horovod", "ray", True, 2, [], {}],
    "cpus_per_node": [0, -1, 1.5, True, "1", []],
    "gpus_per_node": [-1, 0.0, False, "all", [0]],
    "prepare_on": ["", "login", None, 1],
    "after": ["", 1, True, [""], [1], {}],
    "detach": [0, 1, "true", None, []],
    "dry_run": [0, 1, "true", None, []],
    "compute": ["", 3, True, []],
    "memory_gb_per_node": [0, -1, True, "10", float("nan"), float("inf")],
    "max_run_duration_seconds": [0, -1, True, "10", float("nan"), float("inf")],
    "low_priority": [0, "yes", None],
    "shared_filesystem": [0, "no", None],
    "upgrade_environment": [0, "yes", None],
    "grace_period_seconds": [-0.1, True, "10", None, float("nan"), float("inf"), 10**400],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_values_are_named_with_what_is_right(name: str, value: object) -> None:
    message = refused({name: value})
    assert message.startswith(f"{name} is {value!r}; it must be ")
    assert len(message.removeprefix(f"{name} is {value!r}; it must be ")) > 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpus_per_node", None),
        ("gpus_per_node", None),
        ("gpus_per_node", 0),
        ("grace_period_seconds", 0),
        ("grace_period_seconds", 3),
        ("detach", False),
    ],
)
def test_values_at_the_edge_are_fine(name: str, value: object) -> None:
    assert getattr(read_config({name: value}), name) == value


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("gpu_per_node", "gpus_per_node"),
        ("GPUS_PER_NODE", None),
        ("nodes", "node_count"),
        ("cpu_per_node", "cpus_per_node"),
        ("detached", "detach"),
        ("sheduler", "scheduler"),
        ("grace_period", "grace_period_seconds"),
        ("zzz", None),
        ("env_manager", None),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(key: str, nearest: str | None) -> None:
    message = refused({**MLFLOWS, key: 1})
    assert message.startswith(f"unknown key {key!r} in the backend config; ")
    if nearest:
        assert message.endswith(f"did you mean {nearest!r}?")
    else:
        assert "did you mean" in message or message.endswith("grace_period_seconds")


@pytest.mark.parametrize("key", [1, None, ("a",), ""])
def test_keys_that_are_no_names_are_refused(key: object) -> None:
    assert refused({key: 1}).startswith(f"unknown key {key!r}")


@pytest.mark.parametrize("raw", ["[]", '"text"', "3", "null", [], 3, ["a"], (("a", 1),), b"{}"])
def test_anything_but_an_object_is_refused(raw: object) -> None:
    assert refused(raw).startswith("a backend config is a JSON object, not ")


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "{a: 1}", '{"a": 1,}', "config.yaml", "\n\n"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    assert refused(text).startswith("the backend config is not valid JSON: ")


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    missing, broken, folder = tmp_path / "missing.json", tmp_path / "broken.json", tmp_path / "folder.json"
    broken.write_text('{"a": ')
    folder.mkdir()
    assert refused(str(missing)) == f"cannot read the backend config {missing}: No such file or directory"
    assert refused(str(folder)) == f"cannot read the backend config {folder}: Is a directory"
    assert refused(broken).startswith(f"{broken} is not valid JSON: ")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00{")
    assert str(binary) in refused(binary)


def test_building_an_image_is_refused() -> None:
    assert "--build-image: images are not built here" in refused({**MLFLOWS, "build_image": True})
    assert read_config({**MLFLOWS, "DOCKER_ARGS": {"gpus": "all"}}) == read_config(MLFLOWS)


@pytest.mark.parametrize(
    ("raw", "distribution"),
    [
        ({}, Distribution()),
        ({"process_count_per_node": 1}, Distribution()),
        ({"distributed_training": None}, Distribution()),
        ({"distributed_training": "horovod"}, Distribution("horovod", 1)),
        ({"distributed_training": "mpi", "process_count_per_node": 4}, Distribution("horovod", 4)),
        ({"distributed_training": "mpirun"}, Distribution("mpirun", 1)),
        ({"distributed_training": "torchrun", "max_restarts": 2}, Distribution("torch", 1, None, None, 2)),
        ({"distributed_training": "gloo", "node_count": 2, "min_node_count": 1}, Distribution("torch", 1, "gloo", 1)),
    ],
)
def test_how_ranks_start(raw: dict[str, Any], distribution: Distribution) -> None:
    assert read_config(raw).distribution == distribution


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"process_count_per_node": 2},
            (
                "process_count_per_node is 2 and needs distributed_training, which says how the ranks find each other: "
                '"horovod" or "torchrun"'
            ),
        ),
        (
            {"node_count": 3},
            (
                "node_count is 3 and needs distributed_training, which says how the ranks find each other: "
                '"horovod" or "torchrun"'
            ),
        ),
        (
            {"distributed_training": "ray"},
            "distributed_training is 'ray'; it must be one of: horovod, mpi, mpirun, torch, torchrun, nccl, gloo",
        ),
        ({"node_count": 0}, "node_count is 0; it must be a whole number of at least 1"),
        ({"min_node_count": 1}, "min_node_count is 1, but how the ranks start is not said: give distributed_training"),
        (
            {"distributed_training": "horovod", "node_count": 2, "min_node_count": 3},
            "min_node_count is 3, but node_count is 2; ask for less",
        ),
        (
            {"distributed_training": "mpirun", "node_count": 2, "min_node_count": 1},
            'min_node_count: mpirun needs all its nodes; use "horovod" or "torchrun"',
        ),
        (
            {"distributed_training": "horovod", "max_restarts": 1},
            'max_restarts is for "torchrun"; max_retries tries any job again',
        ),
        ({"rank_metrics": "all"}, "rank_metrics is 'all'; it must be one of: drop, prefix"),
        ({"checkpoint_signal": "HUP"}, "checkpoint_signal is 'HUP'; it must be one of: USR1, USR2"),
        (
            {"checkpoint_signal": "USR1"},
            (
                "checkpoint_signal comes 60 s before max_run_duration_seconds, which is not given: set it, or a "
                "smaller checkpoint_lead_seconds"
            ),
        ),
        (
            {"checkpoint_signal": "USR1", "max_run_duration_seconds": 30},
            (
                "checkpoint_signal comes 60 s before max_run_duration_seconds, which is 30: set it, or a smaller "
                "checkpoint_lead_seconds"
            ),
        ),
        ({"max_retries": -1}, "max_retries is -1; it must be a whole number of at least 0"),
        ({"retry_exit_codes": "75"}, "retry_exit_codes is '75'; it must be a list of exit codes, such as [75, -9]"),
        ({"retry_exit_codes": [True]}, "retry_exit_codes is [True]; it must be a list of exit codes, such as [75, -9]"),
        ({"start_timeout_seconds": 0}, "start_timeout_seconds is 0; it must be a number above 0"),
        ({"resume_from": ""}, "resume_from is ''; it must be a name"),
    ],
)
def test_what_cannot_start_is_refused_with_the_remedy(raw: dict[str, Any], message: str) -> None:
    assert refused(raw) == message


def test_a_key_given_twice_must_have_one_value() -> None:
    twice = '{"process_count_per_node": 2, "process_count_per_node": 4, "distributed_training": "horovod"}'
    with pytest.raises(ConfigError, match=r"process_count_per_node is given twice, as 2 and as 4: leave out one"):
        read_config(twice)
    assert read_config(twice.replace("4", "2")).process_count_per_node == 2


def test_the_users_words_win_over_those_of_the_project() -> None:
    project = {"distributed_training": "horovod", "process_count_per_node": 2, "max_retries": 3}
    config = read_config({"process_count_per_node": 1, "node_count": 2}, whole=False).over(project, "main")
    assert config.distribution == Distribution("horovod", 1)
    assert (config.node_count, config.max_retries) == (2, 3)
    assert read_config({}).over({}, "main") == read_config({})
    with pytest.raises(ConfigError, match=r"^main: max_retries is 'x'; it must be a whole number"):
        read_config({}).over({"max_retries": "x"}, "main")


def test_a_job_survives_its_file() -> None:
    job = JobSpec(
        run_id="r",
        experiment_id="0",
        project="täglich ☃",
        entry_point="main",
        command="echo 'a\nb'",
        parameters={"a": "\\", "b": '"'},
        interpreter=InterpreterSpec("uv", {"python": "3.11", "packages": ["a", "b"]}, "/x/bin/python", "k"),
        resources=Resources(1, 2, 0),
        scheduler_options={"a": {"b": [1, 2]}},
        inputs={"P": "s3://x/y"},
        storage_dir="/s",
        grace_seconds=0.5,
    )
    assert JobSpec.from_json(job.to_json()) == job


def test_a_job_of_a_newer_version_is_read() -> None:
    job = JobSpec("r", "0", "p", "main", "true", {}, InterpreterSpec("local"))
    raw = json.loads(job.to_json())
    raw["shiny"] = 1
    raw["resources"]["memory"] = 1
    raw["interpreter"]["arch"] = "x"
    assert JobSpec.from_json(json.dumps(raw)) == job


@pytest.mark.parametrize("extra", [{"scheduler": "local"}, {"scheduler_options": {}}])
def test_compute_brings_its_own_scheduler(extra: dict[str, Any]) -> None:
    assert "leave out scheduler" in refused({"compute": "gpu-cluster", **extra})
