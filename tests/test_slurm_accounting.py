"""A Slurm with accounting that forgets its jobs at once: how they ended is known from ``sacct`` alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from conftest import wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import BEGUN, Jobs, begin
from slurm_cluster import Slurm, cluster, missing, watchers

from mlflow_pytorch_estimator.schedulers.slurm import queries
from mlflow_pytorch_estimator.spec import Distribution


@pytest.fixture(scope="module")
def accounted() -> Iterator[Slurm]:
    absent = missing(accounting=True)
    if absent:
        pytest.skip(f"Slurm with accounting is not installed: no {absent} (apt install slurmdbd mariadb-server)")
    with cluster(static=1, accounting=True, remembered=2) as slurm:
        yield slurm


@pytest.fixture
def jobs(store: MlflowClient, accounted: Slurm, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("SLURM_CONF", str(accounted.conf))
    return Jobs(store, sys.executable, "slurm")


def test_the_accounting_knows_what_the_controller_has_forgotten(jobs: Jobs, accounted: Slurm) -> None:
    submitted = jobs.submit(f"{BEGUN}time.sleep(600)", kind="single", distribution=Distribution())
    begin(submitted, 1)
    job_id = submitted.directory.job_id
    assert job_id is not None
    for pid in watchers(submitted.directory.path.parents[1]):
        os.kill(pid, signal.SIGKILL)
    os.kill(json.loads(submitted.directory.agent.read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: queries.active([job_id]) == {}, 60, "a controller that has forgotten the job")
    ended = queries.ended(job_id)
    assert ended is not None
    assert (ended.state, ended.nodes) == ("FAILED", "n1")
    assert not submitted.wait()
    tags = MlflowClient().get_run(submitted.run_id).data.tags
    assert "was killed by SIGKILL without a word about the ranks" in tags["gpu_cluster.failure"]


def test_jobs_of_a_cluster_that_is_asked_for_by_name(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_CLUSTERS", "lab")
    held = {"hold": True}
    submitted = jobs.submit(BEGUN, kind="single", distribution=Distribution(), scheduler_options=held)
    job_id = submitted.directory.job_id
    assert job_id is not None
    assert job_id.endswith(";lab")
    reason = "it is held: `scontrol release` lets it go (JobHeldUser)"
    wait_until(lambda: submitted.directory.events()[-1].message == reason, 30, "the reason")
    for known in (queries.active([job_id])[job_id], queries.ended(job_id)):
        assert known is not None
        assert known.state == "PENDING"
    submitted.cancel()
    assert MlflowClient().get_run(submitted.run_id).info.status == "KILLED"
    wait_until(lambda: queries.active([job_id]) == {}, 60, "a controller that has forgotten the job")
    ended = queries.ended(job_id)
    assert ended is not None
    assert (ended.state, ended.nodes) == (f"CANCELLED by {os.getuid()}", "")
