"""Jobs keep their environment, whoever tidies up at the same moment."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project, finish, submit, wait_until
from mlflow.tracking import MlflowClient
from wheelhouse import Job, LocalBench, envs, folder_of, works

from mlflow_pytorch_estimator.environments import cache, leases
from mlflow_pytorch_estimator.environments.tending import removal
from mlflow_pytorch_estimator.jobdir import JobDir


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBench:
    made = LocalBench(tmp_path, monkeypatch)
    made.index.wheel("tiny0")
    return made


# For each line: an environment's interpreter and a job; says whether the job has it, and whether it then stays whole.
CLAIMER = """
import sys, time
from pathlib import Path
from mlflow_pytorch_estimator.environments import claim
for line in sys.stdin:
    python, job, wait = line.split()
    print("up", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    while time.perf_counter() - begun < float(wait):
        pass
    has = claim(Path(python), Path(job))
    time.sleep(0.02)
    print(has, (Path(python).parent.parent / "environment.json").exists() and Path(python).exists(), flush=True)
"""
REMOVER = """
import sys, time
from pathlib import Path
from mlflow_pytorch_estimator.environments.tending.removal import InUse, remove
for line in sys.stdin:
    print("up", flush=True)
    sys.stdin.readline()
    try:
        remove(Path(line.split()[0]).parent.parent)
        print("removed", flush=True)
    except InUse as error:
        print("kept", flush=True)
"""


def test_a_claim_and_a_removal_at_the_same_moment(bench: LocalBench, tmp_path: Path) -> None:
    """Two hundred times: either the job has the environment and it stays, or the job knows that it has gone.

    The claim comes a bit later after each time that it was early, and the other way round: so most are at the edge.
    """
    ready = bench.prepare("tiny0")
    shutil.copytree(folder_of(ready), tmp_path / "copy", symlinks=True)
    chance = random.Random(4)
    outcomes = []
    wait = 0.0005
    with (
        subprocess.Popen([sys.executable, "-c", CLAIMER], stdin=-1, stdout=-1, text=True) as claimer,
        subprocess.Popen([sys.executable, "-c", REMOVER], stdin=-1, stdout=-1, text=True) as remover,
    ):
        for number in range(200):
            if not folder_of(ready).exists():
                shutil.copytree(tmp_path / "copy", folder_of(ready), symlinks=True)
            job = Job(tmp_path, f"{number:032x}")
            for process in (claimer, remover):
                _tell(process, f"{ready.python} {job.path} {wait}")
                assert _said(process) == "up"
            for process in (claimer, remover):
                _tell(process, "go")
            has, whole = _said(claimer).split()
            removed = _said(remover)
            # The last is one that the tidier saw come, too late for the job to see that.
            both = {("True", "True", "kept"), ("False", "False", "removed"), ("False", "True", "kept")}
            assert (has, whole, removed) in both
            outcomes.append(has)
            wait = max(0.0, wait + chance.random() * (1e-4 if has == "True" else -1e-4))
            job.end()
    assert {"True", "False"} == set(outcomes)


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


PRUNES = """
import sys
from pathlib import Path
from mlflow_pytorch_estimator.environments.tending.prune import Pruner
print("up", flush=True)
while True:
    for item in Pruner(Path(sys.argv[1]), max_size=0).run():
        if not item.kept and item.what == "environment":
            print(item.name, flush=True)
"""


def test_jobs_get_their_environment_while_somebody_prunes_all_the_time(bench: LocalBench, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PRUNES, str(bench.cache)], stdout=-1, text=True) as pruner:
        assert _said(pruner) == "up"
        for number in range(20):
            job = Job(tmp_path, f"{number:032x}")
            ready = bench.prepare("tiny0")
            while not ready.claim(job.path):
                ready = bench.prepare("tiny0")
            works(ready, "tiny0")
            job.end()
            wait_until(lambda: bench.find("tiny0") is None, 10, "the next round of the pruner")
        pruner.kill()
        assert pruner.stdout is not None
        assert len(pruner.stdout.readlines()) >= 19  # the last one may not have been said


def test_a_claim_that_came_first_and_one_that_came_last(bench: LocalBench, tmp_path: Path) -> None:
    ready = bench.prepare("tiny0")
    job = Job(tmp_path)
    assert leases.withdraw(folder_of(ready)) == []
    assert not ready.claim(job.path)
    assert leases.users(folder_of(ready)) == []  # whoever did not get it does not keep it from others
    ready = bench.prepare("tiny0")
    assert ready.claim(job.path)
    assert leases.withdraw(folder_of(ready)) == [job.path.name]
    assert bench.find("tiny0") is not None
    with pytest.raises(removal.InUse, match=f"in use by run {job.path.name}"):
        removal.remove(folder_of(ready))


def test_who_still_has_an_environment(bench: LocalBench, tmp_path: Path) -> None:
    ready = bench.prepare("tiny0")
    here, gone, elsewhere, old = (Job(tmp_path, name) for name in ("here", "gone", "elsewhere", "old"))
    for job in (here, gone, elsewhere, old):
        assert ready.claim(job.path)
    jobs = folder_of(ready).with_name(f"{ready.key}.jobs")
    (jobs / "elsewhere").write_text("/jobs/elsewhere\nanother machine\n")
    (jobs / "just written").touch()
    (jobs / "no lease").mkdir()
    gone.path.rmdir()
    os.utime(jobs / "old", (0, 0))
    assert leases.users(folder_of(ready)) == ["elsewhere", "here", "just written"]
    assert not (jobs / "gone").exists()


def test_a_lock_that_was_removed_before_it_was_taken_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        cache.lock_of(tmp_path / "key").unlink()
        flock(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        with cache.trying(tmp_path / "key") as mine:
            assert not mine
    with cache.trying(tmp_path / "key") as mine:
        assert mine


# --- real jobs


@pytest.fixture
def small_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what the project asks for, so that no network is needed."""
    monkeypatch.setattr("mlflow_pytorch_estimator.environments.request.default_base", tuple)


@pytest.mark.usefixtures("small_base")
def test_a_job_keeps_its_environment(store: MlflowClient, bench: LocalBench, project: Project, tmp_path: Path) -> None:
    ready = bench.prepare("tiny0")
    (project.path / "requirements.txt").write_text("tiny0\n")
    go = tmp_path / "go"
    project.entry("main", f"echo up; until test -e {go}; do sleep 0.05; done; python -c 'import tiny0; print(1)'")
    submitted = submit(project, env_manager=None)
    assert submitted.directory.job.interpreter.key == ready.key
    refused = envs("remove", ready.key)
    assert refused.exit_code == 1
    assert f"is in use by run {submitted.run_id}:" in refused.stderr
    assert (
        f"kept {ready.key}, environment: is in use by run {submitted.run_id}:"
        in envs("prune", "--older-than", "0m").stdout
    )
    go.touch()
    done = finish(submitted)
    assert (done.succeeded, done.log) == (True, "up\n1\n")
    assert envs("remove", ready.key).exit_code == 0


@pytest.mark.usefixtures("small_base")
def test_an_environment_that_goes_while_the_run_is_created_is_prepared_again(
    store: MlflowClient, bench: LocalBench, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = bench.prepare("tiny0")
    (project.path / "requirements.txt").write_text("tiny0\n")
    project.entry("main", "python -c 'import tiny0'")
    settle = JobDir.settle

    def tidied_up(directory: JobDir, run_id: str) -> JobDir:
        settled = settle(directory, run_id)
        removal.remove(folder_of(ready))
        return settled

    monkeypatch.setattr(JobDir, "settle", tidied_up)
    submitted = submit(project, env_manager=None)
    assert submitted.directory.job.interpreter.python is None
    done = finish(submitted)
    # The preparer is another process, wants MLflow as well, and does not find it in the folder of the test.
    assert "mlflow" in done.tags["gpu_cluster.failure"]
    assert "was not found in the provided package locations" in done.tags["gpu_cluster.failure"]
