"""Environments that a small job of Slurm builds, where the submit host may not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Project, finish, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, begin
from slurm_cluster import Slurm

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import building, script
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

HOLD = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.1)\n"
RESOURCES = Resources(4, 8, 2, 16.0)
OPTIONS = {"account": "me", "gpu_type": "a100", "hold": True, "--begin": "tomorrow"}


@pytest.fixture
def packages(project: Project) -> Project:
    """A project with packages of its own."""
    project.script("print('ran')")
    (project.path / "MLproject").write_text((project.path / "MLproject").read_text() + "conda_env: conda.yaml\n")
    return needing(project, "mlflow")


def needing(project: Project, package: str) -> Project:
    (project.path / "conda.yaml").write_text(f"dependencies: [pip, {{pip: [{package}]}}]\n")
    return project


def submitted(project: Project, **settings: object) -> GpuClusterSubmittedRun:
    config = {"scheduler": "slurm", "prepare_on": "node", "cpus_per_node": 1, **settings}
    return submit(project, config=config, env_manager=None)


def messages(directory: JobDir) -> list[str]:
    return [f"{event.phase}: {event.message}" for event in directory.events()]


def occupied(slurm: Slurm, store: MlflowClient, gate: Path) -> GpuClusterSubmittedRun:
    """Both nodes of the partition have a job that ends with the gate."""
    jobs = Jobs(store, sys.executable, "slurm")
    found = jobs.submit(HOLD.format(gate=str(gate)), 1, 2, "torch")
    begin(found)
    return found


def queue(slurm: Slurm) -> str:
    return slurm.command("squeue", "--noheader", "--states=PD,R,CG", "--format=%j %T")


def test_a_node_builds_and_the_job_runs(packages: Project, store: MlflowClient, slurm: Slurm, tmp_path: Path) -> None:
    first = occupied(slurm, store, tmp_path / "gate")
    second = submitted(packages)
    waits = "Preparing: waits for a node to build on (Resources)"
    wait_until(lambda: waits in messages(second.directory), 60, waits)
    assert "toy-prepare PENDING" in queue(slurm)
    assert second.directory.job_id is None
    (tmp_path / "gate").touch()
    assert first.wait()
    done = finish(second)
    assert done.succeeded, done.directory.outcome
    said = messages(done.directory)
    key = done.directory.job.interpreter.key
    ready = next(number for number, line in enumerate(said) if line.startswith(f"Preparing: environment {key} ready"))
    assert said.index(waits) < said.index("Preparing: on n1") < ready < said.index("Queued: ")
    assert done.log == "ran\n"
    again = finish(submitted(packages))
    assert again.succeeded
    assert not any(line.startswith("Preparing") for line in messages(again.directory))  # it is there now


def test_what_the_node_could_not_build(packages: Project, store: MlflowClient, slurm: Slurm) -> None:
    failed = finish(submitted(needing(packages, "mlflow==0.0.12345")))
    assert failed.run.info.status == "FAILED"
    outcome = failed.directory.outcome
    assert outcome is not None
    assert "mlflow==0.0.12345" in outcome.reason
    wait_until(lambda: queue(slurm) == "", 30, "an empty queue")


def test_canceling_while_it_waits_for_a_node(
    packages: Project, store: MlflowClient, slurm: Slurm, tmp_path: Path
) -> None:
    first = occupied(slurm, store, tmp_path / "gate")
    second = submitted(packages)
    wait_until(lambda: "toy-prepare PENDING" in queue(slurm), 60, "the job that prepares")
    second.cancel()
    assert store.get_run(second.run_id).info.status == "KILLED"
    wait_until(lambda: "toy-prepare" not in queue(slurm), 20, "its end")
    (tmp_path / "gate").touch()
    assert first.wait()


def test_somebody_else_ends_the_job_that_prepares(
    packages: Project, store: MlflowClient, slurm: Slurm, tmp_path: Path
) -> None:
    first = occupied(slurm, store, tmp_path / "gate")
    second = submitted(packages)
    wait_until(lambda: "toy-prepare PENDING" in queue(slurm), 60, "the job that prepares")
    slurm.command("scancel", "--name=toy-prepare")
    assert not second.wait()
    outcome = second.directory.outcome
    assert outcome is not None
    assert outcome.reason.startswith("the job ")
    assert outcome.reason.endswith("that prepared this one ended without a word (canceled in Slurm)")
    (tmp_path / "gate").touch()
    assert first.wait()


def test_what_slurm_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PYTHON", "/opt/python")
    job = JobSpec(
        *(
            "r1",
            "0",
            "birds",
            "main",
            "python train.py",
            {},
            InterpreterSpec("uv"),
            RESOURCES,
            Distribution("torch", 2),
        ),
        scheduler_options=OPTIONS,
        max_retries=2,
    )
    assert (
        building.batch_script(job, JobDir(Path("/home/me/jobs/r1")))
        == """#!/bin/bash
#SBATCH --job-name=birds-prepare
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/home/me/jobs/r1/logs/agent.log
#SBATCH --open-mode=append
#SBATCH --chdir=/home/me/jobs/r1
#SBATCH --no-requeue
#SBATCH --cpus-per-task=8
#SBATCH --mem=16384M
#SBATCH --account=me

exec /opt/python -m mlflow_pytorch_estimator.schedulers.slurm.builder /home/me/jobs/r1
"""
    )


def test_this_machine_is_alone(packages: Project, store: MlflowClient) -> None:
    with pytest.raises(ConfigError, match="prepare_on is 'node', but the local scheduler has this machine alone"):
        submit(packages, config={"prepare_on": "node"})
    with pytest.raises(ConfigError, match="prepare_on is 'login'; it must be one of: submit, node"):
        submit(packages, config={"prepare_on": "login"})
    assert store.search_runs(["0"]) == []
