"""Many jobs at once on a real Slurm: all end right, whoever watched them goes, and nothing is left running."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import processes_with, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs
from slurm_cluster import Slurm, cluster, missing, watchers

from mlflow_pytorch_estimator.spec import Distribution

# Agents import MLflow: 200 jobs are ten minutes of two cores.
_COUNT = int(os.environ.get("GPU_CLUSTER_TEST_JOBS", "24"))
_SCRIPT = "import sys\nprint('number', {number}, flush=True)\nsys.exit({number} % 4 == 3)\n"


@pytest.fixture(scope="module")
def wide() -> Iterator[Slurm]:
    """Two nodes that take four jobs each."""
    absent = missing()
    if absent:
        pytest.skip(f"Slurm is not installed: no {absent} (apt install slurm-wlm munge)")
    with cluster(static=2, cpus=4, remembered=300) as slurm:
        yield slurm


@pytest.fixture
def jobs(store: MlflowClient, wide: Slurm, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("SLURM_CONF", str(wide.conf))
    return Jobs(store, sys.executable, "slurm")


def test_all_of_many_jobs_end_right_and_leave_nothing(jobs: Jobs, wide: Slurm, home: Path) -> None:
    submitted = [
        jobs.submit(_SCRIPT.format(number=number), kind="single", distribution=Distribution(), cpus=1)
        for number in range(_COUNT)
    ]
    # Nobody waits for any of them: agents and the watcher alone see to the runs.
    directories = [job.directory for job in submitted]
    wait_until(lambda: all(item.delivered.exists() for item in directories), 60 + 10 * _COUNT, "the end of all jobs")
    for number, job in enumerate(submitted):
        run = jobs.client.get_run(job.run_id)
        failed = number % 4 == 3
        assert run.info.status == ("FAILED" if failed else "FINISHED"), run.data.tags
        assert ("rank 0 exited with status 1" in run.data.tags.get("gpu_cluster.failure", "")) is failed
        assert job.directory.rank_log(0).read_text() == f"number {number}\n"
    assert len({job.directory.job_id for job in submitted}) == _COUNT
    wait_until(lambda: not wide.command("squeue", "--noheader"), 60, "an empty queue")
    wait_until(lambda: watchers(home) == [], 60, "the end of the watcher")
    wait_until(lambda: processes_with(str(home)) == [], 60, "the end of all processes")
