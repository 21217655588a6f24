"""A real Slurm that kills jobs for their memory and preempts them, and jobs that wait in vain: all of it is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import finish, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import BEGUN, Jobs, begin, everything, gone
from slurm_cluster import Slurm, cluster, missing

from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

ONE: dict[str, Any] = {"kind": "single", "distribution": Distribution()}
# The agent alone, which has MLflow loaded, and torch's launcher use some hundred megabytes.
EATER = f"""{BEGUN}
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1 << 20)) * 20)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[Slurm]:
    absent = missing()
    if absent:
        pytest.skip(f"Slurm is not installed: no {absent} (apt install slurm-wlm munge)")
    with cluster(static=2, strict=True) as slurm:
        yield slurm


@pytest.fixture
def jobs(store: MlflowClient, strict: Slurm, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("SLURM_CONF", str(strict.conf))
    return Jobs(store, sys.executable, "slurm")


def reason(submitted: GpuClusterSubmittedRun) -> str:
    found = submitted.directory.outcome
    assert found is not None
    return found.reason


def test_a_job_that_eats_more_memory_than_it_asked_for(jobs: Jobs) -> None:
    done = finish(jobs.submit(EATER, memory=0.75, **ONE))
    assert not done.succeeded
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.failure"] == "out of memory (n1)"


EATS_ON_THE_SECOND = f"""
import os, sys
if os.environ["SLURMD_NODENAME"] == "n1":
    import time
    time.sleep(600)
{EATER}
"""


def test_another_node_of_a_job_that_eats_more_memory(jobs: Jobs) -> None:
    done = finish(jobs.submit(EATS_ON_THE_SECOND, 1, 2, "torch", memory=1.5, grace_seconds=1.0))
    assert not done.succeeded
    words = "node n2 was lost: its agent has gone (out of memory: Slurm ended it)"
    assert done.tags["gpu_cluster.failure"] == words, everything(done)


PREEMPTED = f"""{BEGUN}
from pathlib import Path
saved = Path(os.environ["CHECKPOINT_DIR"]) / "saved"
print("attempt", os.environ["GPU_CLUSTER_ATTEMPT"], saved.exists(), flush=True)
if not saved.exists():
    saved.touch()
    time.sleep(600)
"""


def preempt(jobs: Jobs, *others: GpuClusterSubmittedRun) -> None:
    """Run a job that comes before those of others, and see it end."""
    for other in others:
        begin(other, 1, "attempt 1")
    first = jobs.submit("print('first')", scheduler_options={"partition": "high", "nodelist": "n1"}, **ONE)
    assert first.wait(), first.directory.outcome


def test_preempted_jobs_come_back_where_they_may(jobs: Jobs, strict: Slurm) -> None:
    options = {"partition": "low", "nodelist": "n1"}
    submitted = jobs.submit(PREEMPTED, scheduler_options=options, max_retries=1, grace_seconds=1.0, **ONE)
    preempt(jobs, submitted)
    job_id = submitted.directory.job_id or ""
    wait_until(lambda: strict.command("squeue", "-h", f"-j{job_id}", "-o%T").strip() == "PENDING", 30, "the requeue")
    assert submitted.directory.outcome is None
    strict.command("scontrol", "update", f"JobId={job_id}", "StartTime=now")
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert [line for line in done.log.splitlines() if line != "begun"] == ["attempt 1 False", "attempt 2 True"]
    assert done.tags["gpu_cluster.attempt"] == "2"
    assert done.run.info.status == "FINISHED"


@pytest.mark.parametrize(("partition", "retries"), [("low", 0), ("lowest", 1)])
def test_preempted_jobs_fail_where_they_may_not(jobs: Jobs, partition: str, retries: int) -> None:
    options = {"partition": partition, "nodelist": "n1"}
    submitted = jobs.submit(PREEMPTED, scheduler_options=options, max_retries=retries, grace_seconds=1.0, **ONE)
    preempt(jobs, submitted)
    assert not submitted.wait()
    assert reason(submitted) == "preempted by a job that came first (n1)"
    assert MlflowClient().get_run(submitted.run_id).info.status == "FAILED"
    wait_until(lambda: gone(submitted), 10, "the end of all processes")


def test_jobs_that_wait_in_vain_say_so(jobs: Jobs, strict: Slurm) -> None:
    held = jobs.submit(BEGUN, scheduler_options={"hold": True}, **ONE)
    before = {"dependency": f"afterok:{held.directory.job_id}"}
    waiting = jobs.submit(BEGUN, scheduler_options=before, **ONE)
    says(waiting, "waits for another job to end (Dependency)")
    says(held, "it is held: `scontrol release` lets it go (JobHeldUser)")
    strict.command("scontrol", "hold", held.directory.job_id or "")
    says(held, "an administrator holds the job (JobHeldAdmin)")
    held.cancel()
    words = "the job it waits for did not end as required, it will never start: cancel it (DependencyNeverSatisfied)"
    says(waiting, words)
    assert waiting.get_status() == "SCHEDULED"
    wait_until(lambda: MlflowClient().get_run(waiting.run_id).data.tags.get("gpu_cluster.waiting") == words, 60, "tag")
    waiting.cancel()
    assert waiting.get_status() == "KILLED"


def says(submitted: GpuClusterSubmittedRun, words: str) -> None:
    wait_until(lambda: submitted.directory.events()[-1].message == words, 60, words)
