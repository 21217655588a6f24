"""What the machine has, what a job asks of it by default, and what stands for it in a job's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import rank_environment
from mlflow_pytorch_estimator.launchers import single
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Allocation, count
from mlflow_pytorch_estimator.schedulers.local import LocalScheduler, queue_root, request
from mlflow_pytorch_estimator.schedulers.machine import Capacity, capacity, select_visible
from mlflow_pytorch_estimator.schedulers.queue import Request
from mlflow_pytorch_estimator.schedulers.slurm.scheduler import SlurmScheduler
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec, Resources

UUIDS = ["GPU-aa11", "GPU-aa22", "GPU-bb33", "GPU-cc44"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (0, 1, 2, 3)),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", (0,)),
        ("3,1", (3, 1)),
        (" 2 , 0 ", (2, 0)),
        ("0,1,2,3", (0, 1, 2, 3)),
        ("0,-1,1", (0,)),
        ("0,9,1", (0,)),
        ("0,x,1", (0,)),
        ("0,,1", (0,)),
        ("1,1", (1,)),
        ("GPU-bb33", (2,)),
        ("GPU-bb", (2,)),
        ("GPU-aa", ()),
        ("GPU-", ()),
        ("GPU-cc44,0", (3, 0)),
        ("GPU-zz,0", ()),
        ("0,GPU-aa11", (0,)),
        ("MIG-1234", ()),
    ],
)
def test_cuda_visible_devices_by_cudas_rules(visible: str | None, expected: tuple[int, ...]) -> None:
    assert select_visible(UUIDS, visible) == expected


@pytest.mark.parametrize("visible", [None, "", "0"])
def test_a_machine_without_gpus_has_none(visible: str | None) -> None:
    assert select_visible([], visible) == ()


@pytest.mark.parametrize(
    ("wanted", "gpus_here", "expected"),
    [
        ((None, None), 0, (8, 0)),
        ((None, None), 4, (8, 4)),
        ((None, 0), 4, (8, 0)),
        ((None, 1), 4, (2, 1)),
        ((None, 2), 4, (4, 2)),
        ((None, 3), 4, (6, 3)),
        ((None, 4), 4, (8, 4)),
        ((None, 1), 3, (2, 1)),
        ((None, 1), 16, (1, 1)),
        ((3, None), 4, (3, 4)),
        ((3, 1), 4, (3, 1)),
        ((1, 0), 4, (1, 0)),
        ((None, 5), 4, (8, 5)),
        ((None, 1), 0, (8, 1)),
    ],
)
def test_the_default_request_is_the_machine_or_the_gpus_share(
    wanted: tuple[int | None, int | None], gpus_here: int, expected: tuple[int, int]
) -> None:
    here = Capacity(tuple(range(8)), tuple(range(gpus_here)))
    assert request(Resources(1, *wanted), here) == Request(*expected)


def test_a_request_is_for_one_core_at_least() -> None:
    assert request(Resources(1, None, 1), Capacity((0,), (0, 1))) == Request(1, 1)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(2, 3, 1), Request(6, 2, 2)),
        (Resources(2, 6, 2), Request(8, 4, 2)),
        (Resources(3, 6, 4), Request(6, 3, 3)),
        (Resources(2), Request(8, 4, 2)),
        (Resources(10, 1, 1), Request(8, 4, 10)),
        (Resources(2, 1, 0), Request(2, 0, 2)),
        (Resources(2, 1, 0, 8.0), Request(2, 0, 2, None, 16.0)),
        (Resources(2, 1, 0, 24.0), Request(2, 0, 2, None, 32.0)),
        (Resources(1, 1, 0, None, low_priority=True), Request(1, 0, low_priority=True)),
    ],
)
def test_simulated_nodes_share_the_machine(resources: Resources, expected: Request) -> None:
    here = Capacity(tuple(range(8)), tuple(range(4)), 32.0)
    assert request(resources, here) == expected
    assert request(resources, here, "c").pool == "c"


def test_the_capacity_is_what_this_process_may_use() -> None:
    assert capacity({}).cpus == tuple(sorted(os.sched_getaffinity(0)))


def test_the_capacity_inside_a_job_is_its_share() -> None:
    share = Allocation("gpu07", (2, 3), (1,))
    environ = {"GPU_CLUSTER_ALLOCATION": share.to_json(), "CUDA_VISIBLE_DEVICES": "0"}
    assert Allocation.from_environ(environ) == share
    assert capacity(environ) == Capacity((2, 3), (1,))
    assert LocalScheduler().allocation(environ) == share


@pytest.mark.parametrize("environ", [{}, {"GPU_CLUSTER_ALLOCATION": ""}])
def test_outside_a_job_there_is_no_allocation(environ: dict[str, str]) -> None:
    assert Allocation.from_environ(environ) is None
    with pytest.raises(SchedulerError, match="no job of the local scheduler"):
        LocalScheduler().allocation(environ)


def test_children_of_a_job_queue_inside_it(home: Path) -> None:
    inside = {"GPU_CLUSTER_ALLOCATION": Allocation("n", (0,), ()).to_json(), "GPU_CLUSTER_JOB_DIR": "/jobs/x"}
    assert queue_root(inside) == Path("/jobs/x/queue")
    assert queue_root({"GPU_CLUSTER_JOB_DIR": "/jobs/x"}) == home / "queue"


def test_places_are_described_for_people() -> None:
    assert Allocation("gpu07", (0, 1), (3,)).describe() == "gpu07, 2 CPUs, 1 GPU"
    assert Allocation("n", (), ()).describe().endswith("0 GPUs")
    assert (count(0, "job"), count(1, "job"), count(2, "job")) == ("0 jobs", "1 job", "2 jobs")


def _job(**options: object) -> JobSpec:
    settings: dict[str, object] = {"interpreter": InterpreterSpec("local", {}, "/usr/bin/python3"), **options}
    return JobSpec("r1", "7", "p", "main", "echo hi", {}, **settings)  # type: ignore[arg-type]  # passed through


def test_a_share_is_checked_against_the_enclosing_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_CLUSTER_ALLOCATION", Allocation("n", (0,), (0,)).to_json())
    LocalScheduler().check(_job())
    with pytest.raises(ConfigError, match="gpus_per_node is 2, but the enclosing job has 1 GPU;"):
        LocalScheduler().check(_job(resources=Resources(1, None, 2)))
    with pytest.raises(ConfigError, match="cpus_per_node is 2, but the enclosing job has 1 CPU;"):
        LocalScheduler().check(_job(resources=Resources(1, 2, 0)))
    with pytest.raises(ConfigError, match="no option 'queue'"):
        LocalScheduler().check(_job(scheduler_options={"queue": "x"}))


def test_schedulers_are_found_by_name() -> None:
    assert isinstance(load_scheduler("local"), LocalScheduler)
    assert isinstance(load_scheduler("slurm"), SlurmScheduler)
    with pytest.raises(ConfigError, match="unknown scheduler 'lsf'; there is local, slurm"):
        load_scheduler("lsf")


@pytest.mark.parametrize(("gpus", "visible"), [((), ""), ((2,), "2"), ((3, 1), "3,1")])
def test_a_rank_sees_the_gpus_that_were_granted(gpus: tuple[int, ...], visible: str) -> None:
    (command,) = single.launch(_job(), Allocation("n", (0,), gpus))
    assert command.argv == ("bash", "-c", "echo hi")
    assert command.environ == {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_rank_gets_the_jobs_interpreter_and_run(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.library.mkdir()
    environ = {
        "PATH": "/usr/bin",
        "PYTHONPATH": "/mine",
        "PYTHONHOME": "/x",
        "VIRTUAL_ENV": "/other",
        "CONDA_PREFIX": "/other",
        "HF_TOKEN": "s",
        "MLFLOW_RUN_ID": "outer",
    }
    before = dict(environ)
    job = _job(interpreter=InterpreterSpec("uv", {}, "/envs/k/bin/python"))
    made = rank_environment(environ, job, directory)
    assert environ == before
    assert made == {
        "PATH": "/envs/k/bin:/usr/bin",
        "PYTHONPATH": f"{tmp_path}/lib:/mine",
        "VIRTUAL_ENV": "/envs/k",
        "HF_TOKEN": "s",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_RUN_ID": "r1",
        "GPU_CLUSTER_RUN_ID": "r1",
        "MLFLOW_EXPERIMENT_ID": "7",
    }


def test_a_conda_prefix_is_no_virtual_environment(tmp_path: Path) -> None:
    job = _job(interpreter=InterpreterSpec("conda", {}, "/envs/k/bin/python"))
    made = rank_environment({"PATH": "/usr/bin", "VIRTUAL_ENV": "/other", "CONDA_PREFIX": "/x"}, job, JobDir(tmp_path))
    assert (made["CONDA_PREFIX"], made["PYTHONNOUSERSITE"]) == ("/envs/k", "1")
    assert "VIRTUAL_ENV" not in made


def test_the_local_manager_keeps_the_callers_environment(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin", "VIRTUAL_ENV": "/mine", "PYTHONUNBUFFERED": "0"}
    made = rank_environment(environ, _job(), JobDir(tmp_path))
    assert made["VIRTUAL_ENV"] == "/mine"
    assert made["PYTHONUNBUFFERED"] == "0"
    assert "PYTHONPATH" not in made


def test_the_home_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPU_CLUSTER_HOME", "relative")
    assert jobdir.home() == tmp_path / "relative"
    monkeypatch.setenv("GPU_CLUSTER_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert jobdir.home() == tmp_path / "me" / ".gpu-cluster"
