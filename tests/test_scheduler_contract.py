"""What every scheduler does for a job.

The same tests run over this machine, over programs that answer as Slurm's of old and new versions do, and over a real
Slurm.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project, finish, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import BEGUN, begin, everything, gone
from scheduler_kinds import Place, place

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import Outcome
from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

__all__ = ["place"]

ONE = Distribution()


def outcome(submitted: GpuClusterSubmittedRun) -> Outcome:
    found = submitted.directory.outcome
    assert found is not None
    return found


def status(submitted: GpuClusterSubmittedRun) -> str:
    return str(MlflowClient().get_run(submitted.run_id).info.status)


def tags(submitted: GpuClusterSubmittedRun) -> dict[str, str]:
    return dict(MlflowClient().get_run(submitted.run_id).data.tags)


def holders(folder: Path, word: str) -> list[Path]:
    """The files below a folder that hold a word."""
    return [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_a_job_succeeds_on_what_it_was_given_and_its_environment_is_in_no_file(
    place: Place, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("A_PASSWORD", secret)
    script = """
import hashlib, json, os
print(hashlib.sha256(os.environ["A_PASSWORD"].encode()).hexdigest())
print(len(os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", "")))
"""
    submitted = place.jobs.submit(script, kind="single", distribution=ONE, cpus=1, gpus=place.gpus)
    job_id = submitted.directory.job_id
    assert job_id is not None
    assert re.fullmatch(place.job_id, job_id)
    assert secret not in place.shown(job_id)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert done.log.split() == [hashlib.sha256(secret.encode()).hexdigest(), str(place.gpus)]
    gpus = "1 GPU" if place.gpus == 1 else f"{place.gpus} GPUs"
    running = [event.message for event in submitted.directory.events() if event.phase is Phase.RUNNING]
    assert running == [f"on {place.alone}, 1 CPU, {gpus}"]
    assert (outcome(submitted).phase, outcome(submitted).reason, outcome(submitted).exit_code) == ("Completed", "", 0)
    assert done.run.info.status == "FINISHED"
    assert done.tags["gpu_cluster.job_id"] == job_id
    assert holders(home, secret) == []


def test_a_job_fails_with_the_reason_and_the_node_of_its_rank(place: Place) -> None:
    script = f"{BEGUN}if os.environ['RANK'] == '1':\n    os._exit(3)\ntime.sleep(600)"
    done = finish(place.jobs.submit(script, 1, 2, "torch", grace_seconds=1.0))
    assert not done.succeeded
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.failure"] == "rank 1 exited with status 3"
    assert done.tags["gpu_cluster.exit_code"] == "3"
    found = done.directory.outcome
    assert found is not None
    assert (found.failure or {})["node"] in place.nodes
    running = next(event.message for event in done.directory.events() if event.phase is Phase.RUNNING)
    assert running.startswith(f"on 2 nodes ({', '.join(place.nodes)}), each ")


def test_a_failed_job_is_tried_again_with_its_checkpoints(place: Place) -> None:
    script = """
import os, sys
from pathlib import Path
saved = Path(os.environ["CHECKPOINT_DIR"]) / "saved"
print("attempt", os.environ["GPU_CLUSTER_ATTEMPT"], saved.exists(), flush=True)
saved.touch()
sys.exit(os.environ["GPU_CLUSTER_ATTEMPT"] == "1")
"""
    done = finish(place.jobs.submit(script, kind="single", distribution=ONE, max_retries=1))
    assert done.succeeded, everything(done)
    assert done.log.splitlines() == ["attempt 1 False", "attempt 2 True"]
    assert done.tags["gpu_cluster.attempt"] == "2"


def test_a_job_waits_says_why_and_is_canceled_there_and_while_it_runs(place: Place) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    first = place.jobs.submit(f"{deaf}{BEGUN}time.sleep(600)", kind="single", distribution=ONE, grace_seconds=0.5)
    begin(first, 1)
    second = place.jobs.submit(BEGUN, 1, 2, "torch")  # one node is free
    wait_until(lambda: second.directory.events()[-1].message == place.waiting, 30, "the reason")
    assert second.get_status() == "SCHEDULED"
    second.cancel()
    assert (status(second), outcome(second).reason) == ("KILLED", "canceled by request")
    assert second.directory.rank_logs() == []
    assert first.get_status() == "RUNNING"
    first.cancel()
    assert (status(first), outcome(first).reason) == ("KILLED", "canceled by request")
    wait_until(lambda: gone(first), 10, "the end of all processes")


def test_a_job_ends_when_its_time_is_over(place: Place) -> None:
    script = f"{BEGUN}time.sleep(600)"
    done = finish(place.jobs.submit(script, kind="single", distribution=ONE, max_seconds=1.0, grace_seconds=1.0))
    assert not done.succeeded
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.failure"] == "ran longer than max_run_duration_seconds (1 s)"


CLIENT = """
import sys
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs
from mlflow_pytorch_estimator.spec import Distribution
jobs = Jobs(MlflowClient(), sys.executable, sys.argv[1])
submitted = jobs.submit(sys.argv[2], kind="single", distribution=Distribution())
print(submitted.run_id, flush=True)
submitted.wait()
"""


def test_a_job_outlives_its_client_and_is_found_by_the_id_of_its_run(
    place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go = tmp_path / "go"
    script = f"{BEGUN}while not os.path.exists({str(go)!r}):\n    time.sleep(0.1)\nprint('done')"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    argv = [sys.executable, "-c", CLIENT, place.jobs.scheduler, script]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True) as client:
        assert client.stdout is not None
        run_id = client.stdout.readline().strip()
        submitted = GpuClusterSubmittedRun.of_run(run_id)
        begin(submitted, 1)
        os.killpg(client.pid, signal.SIGKILL)
    assert submitted.get_status() == "RUNNING"
    go.touch()
    capfd.readouterr()
    assert submitted.wait()
    assert capfd.readouterr().out == "begun\ndone\n"
    assert status(submitted) == "FINISHED"


def test_a_job_whose_agent_ended_well_without_a_word_has_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.agent, "this")  # a module that ends with status 0
    submitted = place.jobs.submit(BEGUN, kind="single", distribution=ONE)
    assert not submitted.wait()
    assert outcome(submitted).reason.startswith(place.silent)
    assert status(submitted) == "FAILED"
    assert submitted.directory.rank_logs() == []


def test_a_job_that_has_left_no_trace_has_failed(place: Place) -> None:
    submitted = place.jobs.submit(f"{BEGUN}time.sleep(600)", kind="single", distribution=ONE)
    begin(submitted, 1)
    place.lose(submitted)
    assert not submitted.wait()
    assert place.lost in outcome(submitted).reason
    assert status(submitted) == "FAILED"
    assert place.lost in tags(submitted)["gpu_cluster.failure"]
    wait_until(lambda: gone(submitted), 10, "the end of all processes")


def test_a_job_that_can_never_run_is_refused_before_there_is_a_run(
    place: Place, project: Project, store: MlflowClient, home: Path
) -> None:
    project.script("print(1)")
    with pytest.raises(ConfigError, match=place.refused):
        submit(project, config={"scheduler": place.jobs.scheduler, "cpus_per_node": 999})
    assert store.search_runs(["0"]) == []
    assert list((home / "jobs").iterdir()) == []
