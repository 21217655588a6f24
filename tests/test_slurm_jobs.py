"""Jobs on a real Slurm of this machine: they run, wait, scale, and end in every way that Slurm knows, truthfully."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from conftest import Finished, Project, finish, processes_with, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, begin, everything, logs
from slurm_cluster import Slurm, asleep, watchers

from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

BEGUN = "import os, sys, time\nprint('begun', flush=True)\n"


@pytest.fixture
def quick(store: MlflowClient, slurm: Slurm) -> Jobs:
    """Ranks that need neither torch nor Horovod."""
    return Jobs(store, sys.executable, "slurm")


@pytest.fixture
def jobs(store: MlflowClient, slurm: Slurm, horovod_python: Path) -> Jobs:
    return Jobs(store, str(horovod_python), "slurm")


def outcome(directory: JobDir) -> Outcome:
    found = directory.outcome
    assert found is not None
    return found


def status(submitted: GpuClusterSubmittedRun) -> str:
    return str(MlflowClient().get_run(submitted.run_id).info.status)


def messages(directory: JobDir) -> list[str]:
    return [f"{event.phase}: {event.message}" for event in directory.events()]


def state(slurm: Slurm, submitted: GpuClusterSubmittedRun) -> str:
    """What Slurm calls the job's state."""
    job_id = submitted.directory.job_id
    assert job_id is not None
    return slurm.command("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").strip()


# --- running


def test_a_project_runs(project: Project, store: MlflowClient, slurm: Slurm, capfd: pytest.CaptureFixture[str]) -> None:
    project.script(
        "import mlflow, os, pathlib\n"
        "print('hello from', os.environ['SLURMD_NODENAME'], os.environ['CUDA_VISIBLE_DEVICES'], os.environ['WORD'])\n"
        "mlflow.log_metric('loss', 0.5)\n"
        "pathlib.Path('outputs').mkdir(exist_ok=True)\n"
        "pathlib.Path('outputs/made.txt').write_text('made')\n"
    )
    config = {"scheduler": "slurm", "gpus_per_node": 2, "cpus_per_node": 2, "memory_gb_per_node": 0.5}
    os.environ["WORD"] = "a secret word"
    try:
        submitted = submit(project, config=config)
    finally:
        del os.environ["WORD"]
    job_id = submitted.directory.job_id
    assert job_id is not None
    assert "secret" not in slurm.command("scontrol", "show", "job", job_id)
    done = finish(submitted)
    assert done.succeeded, done.directory.outcome
    assert done.log == "hello from n1 0,1 a secret word\n"
    assert done.run.data.metrics["loss"] == 0.5
    assert done.artifact("outputs/made.txt") == "made"
    assert done.tags["gpu_cluster.scheduler"] == "slurm"
    assert done.tags["gpu_cluster.job_id"] == job_id
    assert "n1, 2 CPUs, 2 GPUs (slurm scheduler)" in done.tags["mlflow.note.content"]
    assert done.run.info.status == "FINISHED"
    words = (
        f"nodes do not reach the tracking store {mlflow.get_tracking_uri()}: the ranks' calls go through the job dir"
    )
    assert words in capfd.readouterr().err
    assert words in done.tags["gpu_cluster.notice"]


@pytest.mark.parametrize("kind", ["torch", "horovod"])
def test_ranks_of_two_nodes_meet(jobs: Jobs, kind: str) -> None:
    script = """
import os
import torch
from mlflow_pytorch_estimator import local_rank, node_rank, rank, world_size
if "HOROVOD_SIZE" in os.environ:
    import horovod.torch as hvd
    hvd.init()
    total = hvd.allreduce(torch.tensor([float(rank() + 1)]), op=hvd.Sum).item()
else:
    import torch.distributed as dist
    dist.init_process_group("gloo")
    tensor = torch.tensor([float(rank() + 1)])
    dist.all_reduce(tensor)
    total = tensor.item()
    dist.destroy_process_group()
place = rank(), world_size(), local_rank(), node_rank()
print(*place, total, os.environ["SLURMD_NODENAME"], "SLURM_PROCID" in os.environ)
"""
    done = finish(jobs.submit(script, 2, 2, kind, cpus=2))
    assert done.succeeded, everything(done)
    places = [log.split() for log in logs(done)]
    assert [place[:5] for place in places] == [
        [str(rank), "4", str(rank % 2), str(rank // 2), "10.0"] for rank in range(4)
    ]
    assert {place[5] for place in places[:2]} | {place[5] for place in places[2:]} == {"n1", "n2"}
    assert all(place[6] == "False" for place in places)
    assert outcome(done.directory).reason == ""
    assert any(name.startswith("system/n2/") for name in done.run.data.metrics)


def test_the_rank_that_fails_is_named_with_its_node(quick: Jobs) -> None:
    script = f"{BEGUN}if os.environ['RANK'] == '1':\n    raise ValueError('no good')\ntime.sleep(600)"
    done = finish(quick.submit(script, 1, 2, "torch", grace_seconds=2.0))
    found = outcome(done.directory)
    assert found.reason == "rank 1 exited with status 1 (ValueError: no good)"
    assert (found.failure or {})["node"] in {"n1", "n2"}
    assert done.run.info.status == "FAILED"


# --- waiting


def test_a_job_waits_for_the_gpus_of_another_and_says_so(quick: Jobs, slurm: Slurm) -> None:
    first = quick.submit(f"{BEGUN}time.sleep(600)", 1, 2, "torch")
    begin(first)
    second = quick.submit(BEGUN, kind="single", distribution=Distribution())
    waiting = "Queued: waits for free nodes (Resources)"
    wait_until(lambda: waiting in messages(second.directory), 30, "the reason")
    reason = "waits for free nodes (Resources)"
    wait_until(lambda: _tags(second).get("gpu_cluster.waiting") == reason, 60, "the reason in the run")
    assert f"Queued: {reason}" in _tags(second)["mlflow.note.content"]
    wait_until(lambda: status(second) == "SCHEDULED", 30, "the status, which comes after the tags")
    assert state(slurm, second) == "PENDING"
    first.cancel()
    assert status(first) == "KILLED"
    assert second.wait()
    assert "gpu_cluster.waiting" not in _tags(second)


def _tags(submitted: GpuClusterSubmittedRun) -> dict[str, str]:
    return dict(MlflowClient().get_run(submitted.run_id).data.tags)


def test_canceling_takes_a_waiting_job_out_of_the_queue(quick: Jobs, slurm: Slurm) -> None:
    first = quick.submit(f"{BEGUN}time.sleep(600)", 1, 2, "torch")
    begin(first)
    second = quick.submit(BEGUN, kind="single", distribution=Distribution())
    second.cancel()
    assert (status(second), outcome(second.directory).reason) == ("KILLED", "canceled by request")
    assert state(slurm, second) == "CANCELLED"
    first.cancel()
    assert status(first) == "KILLED"
    assert not list(second.directory.rank_logs())


def test_nodes_are_powered_up_for_a_job(quick: Jobs, slurm: Slurm) -> None:
    wait_until(lambda: asleep(slurm), 60, "powered off nodes")
    submitted = quick.submit(
        "import os\nprint(os.environ['SLURMD_NODENAME'])", 1, 2, "torch", scheduler_options={"partition": "cloud"}
    )
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert {log.strip() for log in logs(done)} == {"c1", "c2"}
    assert "Scaling: Slurm starts c[1-2]" in messages(done.directory)


# --- ends


def test_canceling_a_running_job(quick: Jobs, slurm: Slurm) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    submitted = quick.submit(f"{deaf}{BEGUN}time.sleep(600)", 1, 2, "torch", grace_seconds=1.0)
    begin(submitted)
    submitted.cancel()
    assert status(submitted) == "KILLED"
    wait_until(lambda: state(slurm, submitted) in {"COMPLETED", "CANCELLED", "FAILED"}, 20, "the end in Slurm")
    wait_until(lambda: processes_with(submitted.run_id) == [], 10, "the end of all processes")


def test_scancel_ends_the_run(quick: Jobs, slurm: Slurm) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", 1, 2, "torch", grace_seconds=1.0)
    begin(submitted)
    slurm.command("scancel", submitted.directory.job_id or "")
    assert not submitted.wait()
    assert status(submitted) == "KILLED"


def test_slurms_time_limit(quick: Jobs, slurm: Slurm) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", kind="single", distribution=Distribution(), grace_seconds=2.0)
    begin(submitted, 1)
    slurm.command("scontrol", "update", f"JobId={submitted.directory.job_id}", "TimeLimit=1")
    assert not submitted.wait()
    assert outcome(submitted.directory).reason == "TIMEOUT: the job's time limit in Slurm was over"
    assert status(submitted) == "FAILED"


def test_a_killed_agent_is_no_success(quick: Jobs, slurm: Slurm) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", 1, 2, "torch")
    begin(submitted)
    pid = json.loads(submitted.directory.agent.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert not submitted.wait()
    assert "was killed by SIGKILL without a word about the ranks" in outcome(submitted.directory).reason
    assert status(submitted) == "FAILED"
    wait_until(lambda: processes_with(submitted.run_id) == [], 10, "the end of all processes")


def test_a_node_that_fails(quick: Jobs, slurm: Slurm) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", kind="single", distribution=Distribution())
    begin(submitted, 1)
    _lose(slurm, "n1")
    try:
        assert not submitted.wait()
        assert outcome(submitted.directory).reason == "a node of the job failed (n1)"
        assert status(submitted) == "FAILED"
    finally:
        slurm.start_node("n1")
        wait_until(lambda: slurm.states()["n1"] == "idle", 60, "n1")


def _lose(slurm: Slurm, node: str) -> None:
    """Kill the daemon of a node and all that it has started."""
    slurm.stop(node, signal.SIGKILL)
    # First, or it would live to tell that the agent has been killed.
    for path in Path("/proc").glob("[0-9]*/comm"):
        if path.read_text() == "slurmstepd\n" and any(
            f"slurmd-{node}.log" in str(link.readlink()) for link in (path.parent / "fd").iterdir()
        ):
            os.kill(int(path.parent.name), signal.SIGKILL)
    for pid in processes_with(f"SLURMD_NODENAME={node}"):
        os.kill(pid, signal.SIGKILL)


def test_a_requeued_job_is_the_next_attempt_of_the_same_run(quick: Jobs, slurm: Slurm) -> None:
    script = f"""{BEGUN}
from pathlib import Path
number = int(os.environ["GPU_CLUSTER_ATTEMPT"])
saved = Path(os.environ["CHECKPOINT_DIR"]) / "saved"
print("attempt", number, saved.exists(), flush=True)
saved.write_text("x")
if number == 1:
    time.sleep(600)
"""
    submitted = quick.submit(script, kind="single", distribution=Distribution(), max_retries=1, grace_seconds=1.0)
    begin(submitted, 1, "attempt 1")
    slurm.command("scontrol", "requeue", submitted.directory.job_id or "")
    wait_until(lambda: state(slurm, submitted) == "PENDING", 30, "the requeue")
    slurm.command("scontrol", "update", f"JobId={submitted.directory.job_id}", "StartTime=now")
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert "attempt 1 False" in done.log
    assert "attempt 2 True" in done.log
    assert done.tags["gpu_cluster.attempt"] == "2"


def test_a_held_job_says_so(quick: Jobs) -> None:
    submitted = quick.submit(BEGUN, kind="single", distribution=Distribution(), scheduler_options={"hold": True})
    held = "Queued: it is held: `scontrol release` lets it go (JobHeldUser)"
    wait_until(lambda: held in messages(submitted.directory), 30, "the reason")
    submitted.cancel()
    assert status(submitted) == "KILLED"


@pytest.mark.parametrize(("options", "wanted"), [({}, "cloud"), ({"partition": "debug"}, "debug")])
def test_the_partition_of_the_users_shell(
    quick: Jobs, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], wanted: str
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "cloud")
    monkeypatch.setenv("SBATCH_OUTPUT", "/nowhere")
    held = {"hold": True, **options}
    submitted = quick.submit(BEGUN, kind="single", distribution=Distribution(), scheduler_options=held)
    job_id = submitted.directory.job_id or ""
    assert slurm.command("squeue", "--noheader", f"--jobs={job_id}", "--format=%P").strip() == wanted
    assert f"StdOut={submitted.directory.agent_log}" in slurm.command("scontrol", "show", "job", job_id)
    submitted.cancel()
    assert status(submitted) == "KILLED"


# --- faults around it


def test_the_controller_may_go_away_and_come_back(quick: Jobs, slurm: Slurm) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(12)", 1, 2, "torch")
    begin(submitted)
    slurm.stop("slurmctld")
    try:
        wait_until(lambda: _told_away(submitted), 60, "the watcher's complaint")
    finally:
        slurm.start_controller()
    assert submitted.wait()
    assert status(submitted) == "FINISHED"


def _told_away(submitted: GpuClusterSubmittedRun) -> bool:
    log = submitted.directory.path.parents[1] / "slurm/watcher.log"
    return "squeue: " in log.read_text()


def test_a_killed_watcher_is_replaced_by_whoever_looks(quick: Jobs, home: Path) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(5)", 1, 2, "torch")
    begin(submitted)
    (watcher,) = watchers(home)
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: not submitted.directory.alive, 10, "the end of the watcher")
    assert submitted.get_status() == "RUNNING"
    (another,) = watchers(home)
    assert another != watcher
    assert submitted.wait()
    wait_until(lambda: watchers(home) == [], 20, "the end of the other watcher")


def test_another_process_attaches_by_the_runs_id(quick: Jobs) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(3)\nprint('done')", 1, 2, "torch")
    script = (
        "import sys\nfrom mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun\n"
        f"sys.exit(not GpuClusterSubmittedRun.of_run({submitted.run_id!r}).wait())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode == 0, other.stderr
    lines = [f"[rank {rank}] {word}" for rank in range(2) for word in ("begun", "done")]
    assert sorted(other.stdout.splitlines()) == lines


def test_a_job_that_cannot_start_its_agent_says_why(
    quick: Jobs, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = tmp_path / "only-on-the-login-node/python"
    monkeypatch.setattr("mlflow_pytorch_estimator.schedulers.slurm.script.PYTHON", str(absent))
    submitted = quick.submit(BEGUN, kind="single", distribution=Distribution())
    done: Finished = finish(submitted)
    assert (
        "the agent exited with status 127 (command not found) without a word about the ranks"
        in outcome(done.directory).reason
    )
    assert str(absent) in outcome(done.directory).reason


def test_many_jobs_at_once(quick: Jobs, home: Path) -> None:
    several = [quick.submit("print('one')", kind="single", distribution=Distribution(), cpus=1) for _ in range(12)]
    assert len(watchers(home)) == 1
    for submitted in several:
        assert submitted.wait(), submitted.directory.outcome
    assert {status(submitted) for submitted in several} == {"FINISHED"}


# --- refused before there is a run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "none-such"}, "Slurm does not take the job: .*[Ii]nvalid partition"),
        ({"nodes": 3}, "'nodes' is set by the backend; it follows from node_count"),
        ({"--gres": "gpu:1"}, "it follows from gpus_per_node"),
        ({"output": "x"}, "'output' is set by the backend; leave it out"),
        ({"p": "debug"}, "'p' is no long option of sbatch"),
        ({"no-such-option": "1"}, "Slurm does not take the job: .*no-such-option"),
        ({"comment": ["x"]}, "set by the backend"),
        ({"account": ["x"]}, "account must be a text, a number or true, not"),
    ],
)
def test_options_that_are_refused(
    project: Project, store: MlflowClient, slurm: Slurm, options: dict[str, object], words: str
) -> None:
    project.script("print(1)")
    with pytest.raises(ConfigError, match=words):
        submit(project, config={"scheduler": "slurm", "scheduler_options": options})
    assert store.search_runs(["0"]) == []


def test_mpirun_is_refused(quick: Jobs) -> None:
    with pytest.raises(ConfigError, match='starts no mpirun yet: "horovod" needs none'):
        quick.submit(BEGUN, kind="mpirun")


def test_more_than_the_cluster_has(project: Project, store: MlflowClient, slurm: Slurm) -> None:
    project.script("print(1)")
    for settings in (
        {"node_count": 3, "distributed_training": "torchrun"},
        {"gpus_per_node": 3},
        {"cpus_per_node": 5},
        {"memory_gb_per_node": 99},
    ):
        with pytest.raises(ConfigError, match="Slurm does not take the job: "):
            submit(project, config={"scheduler": "slurm", **settings})
    assert store.search_runs(["0"]) == []


def test_no_slurm_here(project: Project, store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    project.script("print(1)")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SchedulerError, match="sbatch is not on PATH: submit where Slurm's commands are"):
        submit(project, config={"scheduler": "slurm"})
    assert store.search_runs(["0"]) == []
