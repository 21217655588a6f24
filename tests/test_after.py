"""Runs that wait for other runs, on the real Slurm and on this machine: they begin after them, or say why never."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, finish, processes_with, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, begin
from slurm_cluster import Slurm

from mlflow_pytorch_estimator import Experiment, ScriptRunConfig, after, locks
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import dependency
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

ONE: dict[str, Any] = {"kind": "single", "distribution": Distribution(), "cpus": 1}
GATE = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.1)\n"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The first job of a test ends when this file is there."""
    return tmp_path / "gate"


@pytest.fixture
def quick(store: MlflowClient, slurm: Slurm) -> Jobs:
    return Jobs(store, sys.executable, "slurm")


def following(project: Project, scheduler: str, *before: GpuClusterSubmittedRun) -> GpuClusterSubmittedRun:
    """A job that waits for others."""
    ids: object = before[0].run_id if len(before) == 1 else [item.run_id for item in before]
    options = {"gpus_per_node": 0} if scheduler == "local" else {}
    config = {"scheduler": scheduler, "cpus_per_node": 1, "after": ids, **options}
    return submit(project.script("import time\nprint(time.time())\n"), config=config)


def messages(submitted: GpuClusterSubmittedRun) -> list[str]:
    return [f"{event.phase}: {event.message}" for event in submitted.directory.events()]


def says(submitted: GpuClusterSubmittedRun, words: str) -> None:
    wait_until(lambda: f"Queued: {words}" in messages(submitted), 60, words)


def ended(submitted: GpuClusterSubmittedRun) -> tuple[str, str]:
    """How a job ended that never began."""
    assert not submitted.wait()
    assert submitted.directory.rank_logs() == []
    outcome = submitted.directory.outcome
    assert outcome is not None
    return MlflowClient().get_run(submitted.run_id).info.status, outcome.reason


def state(slurm: Slurm, submitted: GpuClusterSubmittedRun) -> str:
    job_id = submitted.directory.job_id or ""
    return slurm.command("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").strip()


# --- jobs of Slurm


def test_a_chain_of_jobs(quick: Jobs, project: Project, slurm: Slurm, gate: Path) -> None:
    first = quick.submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "slurm", first)
    third = following(project, "slurm", first, second)
    reasons = [f"waits for run {first.run_id}", f"waits for runs {first.run_id}, {second.run_id}"]
    says(second, f"{reasons[0]} (Dependency)")
    says(third, f"{reasons[1]} (Dependency)")
    tags = MlflowClient().get_run(third.run_id).data.tags
    assert tags["gpu_cluster.after"] == f"{first.run_id}, {second.run_id}"
    wait_until(
        lambda: reasons[0] in MlflowClient().get_run(second.run_id).data.tags.get("gpu_cluster.waiting", ""), 60, "tag"
    )
    shown = slurm.command("scontrol", "show", "job", third.directory.job_id or "")
    assert f"Dependency=afterok:{first.directory.job_id}(unfulfilled),afterok:{second.directory.job_id}" in shown
    assert state(slurm, second) == state(slurm, third) == "PENDING"
    gate.touch()
    assert finish(first).succeeded
    ends = []
    for submitted in (second, third):
        done = finish(submitted)
        assert done.succeeded, done.directory.outcome
        ends.append(float(done.log))
    assert first.directory.delivered.stat().st_mtime < ends[0] < ends[1]


def test_after_a_run_that_fails_there_is_no_other(quick: Jobs, project: Project, slurm: Slurm, gate: Path) -> None:
    first = quick.submit(f"{GATE.format(gate=str(gate))}raise ValueError('no good')", **ONE)
    second = following(project, "slurm", first)
    third = following(project, "slurm", second)
    says(third, f"waits for run {second.run_id} (Dependency)")
    gate.touch()
    reason = "ended Failed: rank 0 exited with status 1 (ValueError: no good)"
    words = f"the run it waits for, {first.run_id}, {reason}"
    assert ended(second) == ("FAILED", words)
    assert ended(third) == ("FAILED", f"the run it waits for, {second.run_id}, ended Failed: {words}")
    wait_until(lambda: state(slurm, first) == "FAILED", 30, "the truth in Slurm")
    wait_until(lambda: {state(slurm, second), state(slurm, third)} == {"CANCELLED"}, 30, "an empty queue")


def test_after_a_run_that_is_canceled(quick: Jobs, project: Project, slurm: Slurm, gate: Path) -> None:
    first = quick.submit(GATE.format(gate=str(gate)), **ONE)
    begin(first, 1)
    second = following(project, "slurm", first)
    first.cancel()
    assert ended(second) == ("FAILED", f"the run it waits for, {first.run_id}, ended Canceled: canceled by request")
    assert state(slurm, first) != "COMPLETED"


def test_what_waits_can_be_canceled(quick: Jobs, project: Project, slurm: Slurm, gate: Path) -> None:
    first = quick.submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "slurm", first)
    says(second, f"waits for run {first.run_id} (Dependency)")
    second.cancel()
    assert ended(second) == ("KILLED", "canceled by request")
    assert first.directory.outcome is None


def test_slurm_lets_go_of_what_completed_after_all(quick: Jobs, slurm: Slurm, gate: Path, project: Project) -> None:
    """A node may be lost, or its time be over, while the files of a run that has completed are stored."""
    first = quick.submit(GATE.format(gate=str(gate)), **ONE)
    begin(first, 1)
    second = following(project, "slurm", first)
    says(second, f"waits for run {first.run_id} (Dependency)")
    first.directory.conclude(Phase.COMPLETED, "", 0)
    first.directory.delivered.touch()
    slurm.command("scancel", "--signal=KILL", "--full", first.directory.job_id or "")
    done = finish(second)
    assert done.succeeded, done.directory.outcome
    assert state(slurm, first) != "COMPLETED"


# --- other kinds, and other places


def test_on_this_machine(project: Project, store: MlflowClient, gate: Path) -> None:
    first = Jobs(store, sys.executable).submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "local", first)
    waits = f"waits for run {first.run_id}"
    says(second, waits)
    wait_until(lambda: store.get_run(second.run_id).data.tags.get("gpu_cluster.waiting") == waits, 60, "the tag")
    other = submit(project.script("print('other')"), config={"cpus_per_node": 1, "gpus_per_node": 0})
    assert finish(other).succeeded  # the one that waits holds up nobody
    assert "gpu_cluster.job_id" not in store.get_run(second.run_id).data.tags
    gate.touch()
    done = finish(second)
    assert done.succeeded, done.directory.outcome
    assert first.directory.delivered.stat().st_mtime < float(done.log)
    wait_until(lambda: processes_with(second.run_id) == [], 20, "the end of all processes")


@pytest.mark.parametrize("how", ["fails", "is killed"])
def test_on_this_machine_after_a_run_that(project: Project, store: MlflowClient, gate: Path, how: str) -> None:
    first = Jobs(store, sys.executable).submit(f"{GATE.format(gate=str(gate))}raise ValueError('no good')", **ONE)
    begin(first, 1)
    second = following(project, "local", first)
    says(second, f"waits for run {first.run_id}")
    if how == "fails":
        gate.touch()
    else:
        for pid in processes_with(first.run_id):
            if b"schedulers" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    status, reason = ended(second)
    assert status == "FAILED"
    assert reason.startswith(f"the run it waits for, {first.run_id}, ended Failed: ")
    assert reason.endswith("(ValueError: no good)") == (how == "fails")


def test_canceling_what_waits_on_this_machine(project: Project, store: MlflowClient, gate: Path) -> None:
    first = Jobs(store, sys.executable).submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "local", first)
    says(second, f"waits for run {first.run_id}")
    second.cancel()
    assert ended(second) == ("KILLED", "canceled by request")
    gate.touch()
    assert first.wait()


def test_a_job_of_slurm_after_one_of_this_machine(project: Project, quick: Jobs, slurm: Slurm, gate: Path) -> None:
    first = Jobs(quick.client, sys.executable).submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "slurm", first)
    says(second, f"waits for run {first.run_id}")
    assert second.directory.job_id is None
    gate.touch()
    done = finish(second)
    assert done.succeeded, done.directory.outcome
    assert first.directory.delivered.stat().st_mtime < float(done.log)


def test_after_a_job_that_slurm_has_not_been_told_of(
    project: Project, store: MlflowClient, slurm: Slurm, gate: Path
) -> None:
    first = Jobs(store, sys.executable).submit(GATE.format(gate=str(gate)), **ONE)
    second = following(project, "slurm", first)  # as one whose environment is being built
    third = following(project, "slurm", second)
    says(third, f"waits for run {second.run_id}")
    assert (second.directory.job_id, third.directory.job_id) == (None, None)
    gate.touch()
    starts = [float(finish(submitted).log) for submitted in (second, third)]
    assert starts == sorted(starts)
    shown = slurm.command("scontrol", "show", "job", third.directory.job_id or "")
    assert "JobName=toy" in shown


# --- refused before there is a run


def test_a_run_that_has_completed_counts(project: Project, store: MlflowClient) -> None:
    first = finish(submit(project.script("print(1)"), config={"cpus_per_node": 1}))
    second = submit(project, config={"cpus_per_node": 1, "after": [first.run.info.run_id] * 2})
    assert finish(second).succeeded
    assert second.directory.job.after == (first.run.info.run_id,)
    assert not any("waits" in message for message in messages(second))


def test_runs_that_nobody_can_wait_for(project: Project, store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = finish(submit(project.script("raise SystemExit(3)"), config={"cpus_per_node": 1}))
    run_id = failed.run.info.run_id
    words = {
        run_id: rf"after: run {run_id} ended Failed: rank 0 exited with status 3; submit it again, and give the id",
        "0" * 32: "after: there is no job of run '0{32}' in this home; give ids of runs that were submitted here",
        "../jobs": r"after: there is no job of run '\.\./jobs' in this home",
        "": "after is ''; it must be the id of a run, or a list of ids",
    }
    for wanted, message in words.items():
        with pytest.raises(ConfigError, match=message):
            submit(project, config={"after": wanted})
    for wrong in (7, ["a", 1], {"a": "b"}):
        with pytest.raises(ConfigError, match="it must be the id of a run, or a list of ids"):
            submit(project, config={"after": wrong})
    monkeypatch.setenv("GPU_CLUSTER_RUN_ID", "1" * 32)
    with pytest.raises(ConfigError, match="after names the run that submits, 1111"):
        submit(project, config={"after": "1" * 32})
    assert len(store.search_runs(["0"])) == 1


@pytest.mark.parametrize("option", ["dependency", "--kill-on-invalid-dep"])
def test_what_slurm_is_told_otherwise(quick: Jobs, project: Project, gate: Path, option: str) -> None:
    first = quick.submit(GATE.format(gate=str(gate)), **ONE)
    with pytest.raises(ConfigError, match=f"after and '{option}' in scheduler_options both say what the job waits"):
        submit(
            project.script("print(1)"),
            config={"scheduler": "slurm", "scheduler_options": {option: "x"}, "after": first.run_id},
        )
    first.cancel()


def test_the_estimators_word_for_it(experiment: Experiment, folder: Path) -> None:
    (folder / "train.py").write_text("print(1)")
    config = ScriptRunConfig(str(folder), "train.py", backend_config={"after": "0" * 32})
    with pytest.raises(ConfigError, match="after: there is no job of run"):
        experiment.submit(config)
    assert list(experiment.get_runs()) == []


# --- what counts as completed


def test_the_files_of_a_run_are_stored_before_the_next_begins(home: Path) -> None:
    directory, lock = JobDir.stage()
    directory = directory.settle("r1")
    job = JobSpec("r1", "0", "toy", "main", "true", {}, InterpreterSpec("local"))
    directory.write_job(job)
    waiting = dataclasses.replace(job, run_id="r2", after=("r1",))
    directory.conclude(Phase.COMPLETED, "", 0)
    assert [item.run_id for item in after.open_ones(waiting)] == ["r1"]
    directory.delivered.touch()
    assert after.open_ones(waiting) == ()
    directory.delivered.unlink()
    lock.close()
    assert not locks.is_held(directory.lock)
    assert after.open_ones(waiting) == ()  # nobody is there who could store them


def test_a_reason_that_is_not_ours(home: Path) -> None:
    directory, lock = JobDir.stage()
    directory.write_job(JobSpec("r1", "0", "toy", "main", "true", {}, InterpreterSpec("local")))
    assert dependency.message(directory, Said("PENDING", "Dependency")) == ""  # by an option of the user's own
    dependency.look(directory, "7", Said("PENDING", "DependencyNeverSatisfied"))
    assert directory.outcome is None
    lock.close()
