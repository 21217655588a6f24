"""Arrays on a real Slurm: one job array, whose tasks are runs; each is known, canceled and ended by itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from array_jobs import Gates, above, job, one_core, script, settled, statuses
from conftest import wait_until
from slurm_cluster import Slurm, watchers

from mlflow_pytorch_estimator import Experiment, Run, ScriptRunConfig
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path / "gates")


@pytest.fixture
def config(experiment: Experiment, slurm: Slurm, folder: Path, gates: Gates) -> ScriptRunConfig:
    """Four of these fit on the cluster."""
    return script(folder, gates, one_core(experiment.workspace, "slurm"))


def job_id(run: Run) -> str:
    found = job(run).directory.job_id
    assert found is not None
    return found


def queued(slurm: Slurm, array: str) -> dict[str, str]:
    """Task -> its state."""
    wanted = ("--noheader", "--array", "--states=all", f"--jobs={array}", "--format=%i %T")
    return dict(line.split() for line in slurm.command("squeue", *wanted).splitlines())


def test_six_runs_of_which_one_fails_and_one_is_canceled(
    experiment: Experiment, config: ScriptRunConfig, gates: Gates, slurm: Slurm, home: Path
) -> None:
    parameters = [{"--number": number, **({"--fails": ""} if number == 1 else {})} for number in range(6)]
    runs = experiment.submit_array(config, parameters, max_concurrent=2)
    array = job_id(above(runs))
    assert [job_id(run) for run in runs] == [f"{array}_{number}" for number in range(6)]
    assert gates.wait_for(2) == {0, 1}
    assert sorted(queued(slurm, array).values()) == ["PENDING"] * 4 + ["RUNNING"] * 2
    expected = ["RUNNING"] * 3 + ["SCHEDULED"] * 4
    wait_until(lambda: statuses([above(runs), *runs]) == expected, 180, "the statuses")
    reason = "the array may not run more tasks at once (JobArrayTaskLimit)"
    wait_until(lambda: runs[5].tags.get("gpu_cluster.waiting") == reason, 180, "the reason")
    assert len(watchers(home)) == 1

    runs[4].cancel()
    assert statuses(runs) == [*["RUNNING"] * 2, *["SCHEDULED"] * 2, "KILLED", "SCHEDULED"]
    assert sorted(queued(slurm, array).values()) == ["PENDING"] * 3 + ["RUNNING"] * 2

    gates.end(0)
    assert gates.wait_for(3) == {0, 1, 2}
    gates.end(1, 2, 3, 5)
    assert settled(runs) == ["FINISHED", "FAILED", "FINISHED", "FINISHED", "KILLED", "FINISHED"]
    assert gates.begun() == {0, 1, 2, 3, 5}
    ended = above(runs).wait_for_completion(raise_on_error=False)
    assert ended["error"]["error"]["message"] == "1 of 6 runs failed, 1 canceled"
    assert statuses([above(runs)]) == ["FAILED"]
    assert [run.tags["gpu_cluster.job_id"] for run in runs] == [f"{array}_{number}" for number in range(6)]
    assert runs[1].tags["gpu_cluster.failure"] == "rank 0 exited with status 3"
    assert [run.id for run in above(runs).get_children()] == [run.id for run in reversed(runs)]


def test_all_are_canceled_with_the_run_above(
    experiment: Experiment, config: ScriptRunConfig, gates: Gates, slurm: Slurm
) -> None:
    runs = experiment.submit_array(config, [{"--number": number} for number in range(6)])
    array = job_id(above(runs))
    gates.wait_for(4)
    above(runs).cancel()
    assert statuses([above(runs), *runs]) == ["KILLED"] * 7
    assert above(runs).get_detailed_status() == {"status": "Canceled", "details": "canceled by request"}
    assert len(gates.begun()) == 4
    wait_until(lambda: not {"PENDING", "RUNNING"} & set(queued(slurm, array).values()), 30, "the end in Slurm")


@pytest.mark.parametrize("whole", [False, True], ids=["one", "all"])
def test_scancel_of_tasks_that_wait(
    experiment: Experiment, config: ScriptRunConfig, gates: Gates, slurm: Slurm, whole: bool
) -> None:
    """Slurm forgets a task that is canceled before it began; the run is KILLED all the same."""
    runs = experiment.submit_array(config, [{"--number": number} for number in range(4)], max_concurrent=1)
    array = job_id(above(runs))
    gates.wait_for(1)
    wait_until(lambda: runs[3].get_detailed_status()["details"] != "", 60, "a look at the queue")
    slurm.command("scancel", "--state=PENDING" if whole else f"{array}_2", *([array] if whole else []))
    gates.end(0, 1, 3)
    assert settled(runs) == ["FINISHED", *(["KILLED"] * 3 if whole else ["FINISHED", "KILLED", "FINISHED"])]
    assert runs[2].tags["gpu_cluster.failure"] == "canceled in Slurm"
    assert above(runs).wait_for_completion()["status"] == "Completed"


def test_more_than_the_cluster_takes(experiment: Experiment, config: ScriptRunConfig, slurm: Slurm) -> None:
    limit = slurm.conf.read_text()
    slurm.conf.write_text(f"{limit}MaxArraySize=3\n")
    slurm.command("scontrol", "reconfigure")
    try:
        words = "4 runs are more than a job array may have on this cluster, 3 .MaxArraySize.: submit them in several"
        with pytest.raises(ConfigError, match=words):
            experiment.submit_array(config, [{"--number": number} for number in range(4)])
    finally:
        slurm.conf.write_text(limit)
        slurm.command("scontrol", "reconfigure")
    assert list(experiment.get_runs(include_children=True)) == []


def test_what_sbatch_does_not_take_leaves_no_run_scheduled(
    experiment: Experiment, config: ScriptRunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm may refuse what it would have taken when it was asked."""
    sbatch = shutil.which("sbatch")
    program = tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *--test-only*) exec {sbatch} "$@";; esac\n'
        'echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2; exit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(SchedulerError, match=r"Slurm has not taken the job: .*Job violates accounting/QOS policy"):
        experiment.submit_array(config, [{"--number": number} for number in range(3)])
    runs = list(experiment.get_runs(include_children=True))
    assert statuses(runs) == ["FAILED"] * 4
    words = "the array could not be submitted: Slurm has not taken the job: "
    assert all(run.tags["gpu_cluster.failure"].startswith(words) for run in runs)
