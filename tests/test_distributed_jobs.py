"""Whole jobs of several nodes and ranks: how they meet, log, fail, end and begin again. Both launchers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Finished, finish, processes_with, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import BEGUN, Jobs, begin, everything, gone, logs

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import Outcome
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

KINDS = ("horovod", "torch")
ABORTED = "was killed by SIGABRT"

# A script for either launcher: MEET joins the ranks, `total` adds a number over all of them.
MEET = """
import os, signal, sys, time
import torch
if "HOROVOD_SIZE" in os.environ:
    import horovod.torch as hvd
    hvd.init()
    def total(value):
        return hvd.allreduce(torch.tensor([float(value)]), op=hvd.Sum).item()
else:
    import atexit
    import torch.distributed as dist
    dist.init_process_group("gloo")
    atexit.register(dist.destroy_process_group)  # torch may abort without it
    def total(value):
        tensor = torch.tensor([float(value)])
        dist.all_reduce(tensor)
        return tensor.item()
from mlflow_pytorch_estimator import is_rank_zero, local_rank, node_rank, rank, world_size
"""


# The same for one rank of Horovod, which needs no rendezvous.
ONE = """
from mlflow_pytorch_estimator import rank, world_size
total = float
"""


@pytest.fixture
def jobs(store: MlflowClient, horovod_python: Path) -> Jobs:
    return Jobs(store, str(horovod_python))


@pytest.fixture
def quick(store: MlflowClient) -> Jobs:
    """Ranks that need not meet: no interpreter with Horovod."""
    return Jobs(store, sys.executable)


def outcome(done: Finished) -> Outcome:
    found = done.directory.outcome
    assert found is not None
    return found


def failure(done: Finished) -> dict[str, object]:
    found = outcome(done).failure
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_nodes_of_two_ranks_meet(jobs: Jobs, kind: str) -> None:
    script = f"""{MEET}
print("place", rank(), local_rank(), node_rank(), world_size(), is_rank_zero())
print("sum", total(rank()))
"""
    submitted = jobs.submit(script, count=2, nodes=2, kind=kind)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    places = ["place 0 0 0 4 True", "place 1 1 0 4 False", "place 2 0 1 4 False", "place 3 1 1 4 False"]
    assert [log.splitlines()[-2:] for log in logs(done)] == [[place, "sum 6.0"] for place in places]
    assert {f"logs/rank_{rank}.log" for rank in range(4)} <= done.files("logs")
    assert done.run.info.status == "FINISHED"
    assert gone(submitted)


@pytest.mark.parametrize("kind", KINDS)
def test_each_node_has_its_share_of_the_machine(jobs: Jobs, kind: str) -> None:
    script = f"{MEET}print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])\ntotal(0)"
    done = finish(jobs.submit(script, count=1, nodes=2, kind=kind))
    assert done.succeeded, everything(done)
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // 2)
    shares = [cores[:each], cores[each : 2 * each] or cores[:each]]
    assert [log.strip() for log in logs(done)] == [f"{share} {each}" for share in shares]


@pytest.mark.parametrize("kind", KINDS)
def test_the_nodes_metrics_are_in_the_run(jobs: Jobs, kind: str) -> None:
    done = finish(jobs.submit(f"{MEET}total(0)\ntime.sleep(3)", count=1, nodes=2, kind=kind))
    assert done.succeeded, everything(done)
    nodes = {name.split("/")[1] for name in done.run.data.metrics if name.startswith("system/")}
    assert len(nodes) == 2
    for node in nodes:
        assert 0 < done.run.data.metrics[f"system/{node}/system_memory_usage_percentage"] < 100
        assert 0 <= done.run.data.metrics[f"system/{node}/cpu_utilization_percentage"] <= 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("raise ValueError('no such class')", "exited with status 1 (ValueError: no such class)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os._exit(3)", "exited with status 3"),
    ],
)
def test_the_rank_that_fails_is_named_with_its_node(jobs: Jobs, kind: str, action: str, reason: str) -> None:
    script = f"""{MEET}
for step in range(10_000_000):
    total(step)
    if step == 20 and rank() == 3:
        {action}
"""
    submitted = jobs.submit(script, count=2, nodes=2, kind=kind)
    done = finish(submitted)
    found = failure(done)
    # With a process group that nobody has destroyed, torch may abort at exit.
    assert outcome(done).reason in {f"rank 3 {reason}", f"rank 3 {reason}".replace("exited with status 1", ABORTED)}
    assert found["rank"] == 3
    assert str(found["node"]).endswith("-1")
    assert found["ranks_ended_by_it"] == [0, 1, 2]
    assert ("no such class" in str(found["traceback"])) == ("no such class" in reason)
    assert done.tags["gpu_cluster.failure"] == outcome(done).reason
    assert json.loads(done.artifact("gpu_cluster/failure.json"))["rank"] == 3
    assert done.run.info.status == "FAILED"
    assert gone(submitted)


UNRULY = """
import os, signal, subprocess, sys, time
number = int(os.environ.get("RANK") or os.environ["HOROVOD_RANK"])
print("begun", flush=True)
if number == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, bytes(range(256)) * 1000)
    block = b"x" * (1 << 20)
    for _ in range({megabytes}):
        os.write(1, block)
    subprocess.Popen(["setsid", "sleep", "600"], close_fds=False)
    if os.fork() == 0 and os.fork() == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(600)
    os.close(1)
    os.close(2)
time.sleep({seconds})
os._exit({status})
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_with_an_unruly_rank_ends(jobs: Jobs, kind: str) -> None:
    script = UNRULY.format(megabytes=256, seconds=0, status="0")
    submitted = jobs.submit(script, 1, 2, kind)
    done = finish(submitted)
    assert done.succeeded, done.directory.outcome
    assert done.directory.rank_log(0).read_text() == "begun\n"
    with done.directory.rank_log(1).open("rb") as log:
        assert log.read(6 + 256_000) == b"begun\n" + bytes(range(256)) * 1000
        assert log.seek(0, os.SEEK_END) == 6 + 256_000 + (256 << 20)
    assert gone(submitted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unruly_rank_that_fails_is_named(jobs: Jobs, kind: str) -> None:
    script = UNRULY.format(megabytes=1, seconds="1 if number == 1 else 600", status="number * 5")
    submitted = jobs.submit(script, 1, 2, kind)
    done = finish(submitted)
    assert outcome(done).reason == "rank 1 exited with status 5"
    assert gone(submitted)


@pytest.mark.parametrize("kind", KINDS)
def test_canceling_ends_an_unruly_rank(jobs: Jobs, kind: str) -> None:
    submitted = jobs.submit(UNRULY.format(megabytes=1, seconds=600, status=0), 1, 2, kind, grace_seconds=1.0)
    begin(submitted)
    submitted.cancel()
    assert not submitted.wait()
    assert MlflowClient().get_run(submitted.run_id).info.status == "KILLED"
    assert gone(submitted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_node_is_named(jobs: Jobs, kind: str) -> None:
    submitted = jobs.submit(f"{MEET}print('begun', flush=True)\nwhile True:\n    total(1)", count=1, nodes=2, kind=kind)
    begin(submitted)
    (agent,) = followers(submitted)
    os.kill(agent, signal.SIGKILL)
    done = finish(submitted)
    assert outcome(done).reason.startswith("node "), everything(done)
    assert outcome(done).reason.endswith("-1 was lost: its agent has gone")
    assert failure(done)["rank"] is None
    assert outcome(done).exit_code is None
    assert gone(submitted)


def followers(submitted: GpuClusterSubmittedRun) -> list[int]:
    """The agents of the other nodes."""
    found = []
    for pid in processes_with(submitted.run_id):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[1:3] == [b"-m", b"mlflow_pytorch_estimator.nodes.follower"]:
            found.append(pid)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_leading_agent_leaves_nothing_on_any_node(jobs: Jobs, kind: str) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    submitted = jobs.submit(f"{MEET}{deaf}total(1)\nprint('begun', flush=True)\ntime.sleep(600)", nodes=2, kind=kind)
    begin(submitted, 4)
    assert len(followers(submitted)) == 1
    load_scheduler("local").kill(submitted.directory)
    wait_until(lambda: gone(submitted), 10, "the end of all processes")
    assert finish(submitted).run.info.status == "FAILED"


@pytest.mark.parametrize("kind", KINDS)
def test_canceling_ends_all_nodes(jobs: Jobs, kind: str) -> None:
    submitted = jobs.submit(f"{MEET}total(1)\nprint('begun', flush=True)\ntime.sleep(600)", nodes=2, kind=kind)
    begin(submitted, 4)
    submitted.cancel()
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    assert gone(submitted)


def test_two_jobs_of_torchrun_do_not_meet(jobs: Jobs) -> None:
    half = max(1, len(os.sched_getaffinity(0)) // 2)
    started = [jobs.submit(f"{MEET}print('sum', total({base}))", kind="torch", cpus=half) for base in (10, 20)]
    done = [finish(item) for item in started]
    assert [log.strip() for item in done for log in logs(item)] == ["sum 20.0"] * 2 + ["sum 40.0"] * 2


def test_torchrun_starts_the_ranks_again_within_an_attempt(jobs: Jobs) -> None:
    script = f"""{MEET}
restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
print("start", restarts, flush=True)
total(1)
if rank() == 1 and restarts < 2:
    sys.exit(7)
total(1)
"""
    distribution = Distribution("torch", 2, None, None, 2)
    done = finish(jobs.submit(script, distribution=distribution))
    assert done.succeeded, everything(done)
    assert [line for line in logs(done)[1].splitlines() if line.startswith("start")] == [
        "start 0",
        "start 1",
        "start 2",
    ]
    assert "gpu_cluster.attempt" not in done.tags


def test_a_launcher_that_cannot_start_says_why(quick: Jobs, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named torch' >&2\nexit 1\n")
    python.chmod(0o700)
    quick.python = str(python)
    done = finish(quick.submit("", kind="torch"))
    assert outcome(done).reason.startswith("torchrun on ")
    assert outcome(done).reason.endswith(" exited with status 1")
    assert failure(done)["last_lines"] == ["No module named torch"]
    assert any(name.startswith("logs/torchrun_") for name in done.files("logs"))


# Who writes to the run: a plain script that knows nothing of ranks.

PLAIN = """
import mlflow
with mlflow.start_run():
    for step in range(3):
        mlflow.log_metric("loss", float(os.environ["LOCAL_RANK_OF_TEST"]) + 1.0, step=step)
    mlflow.log_param("rank", os.environ["LOCAL_RANK_OF_TEST"])
    mlflow.set_tag("from", os.environ["LOCAL_RANK_OF_TEST"])
total(1)
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["drop", "prefix"])
def test_only_rank_zero_writes_to_the_run(jobs: Jobs, kind: str, mode: str) -> None:
    script = f"{MEET}os.environ['LOCAL_RANK_OF_TEST'] = str(rank())\n{PLAIN}"
    done = finish(jobs.submit(script, 2, 1, kind, rank_metrics=mode))
    assert done.succeeded, everything(done)
    own = {name: value for name, value in done.run.data.metrics.items() if not name.startswith("system/")}
    assert own == ({"loss": 1.0} if mode == "drop" else {"loss": 1.0, "rank_1/loss": 2.0})
    assert done.run.data.params == {"rank": "0"}
    assert done.tags["from"] == "0"
    assert done.run.info.status == "FINISHED"
    notices = [line for log in logs(done) for line in log.splitlines() if line.startswith("gpu-cluster: rank ")]
    assert len(notices) == 1
    assert notices[0].startswith("gpu-cluster: rank 1: ")
    assert len(done.client.search_runs(["0"])) == 1


# Elastic: a node is lost and comes back.

ELASTIC_HOROVOD = """
import os, time
import torch, horovod.torch as hvd
hvd.init()
model = torch.nn.Linear(2, 1)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.01), model.named_parameters())
state = hvd.elastic.TorchState(model=model, optimizer=optimizer, step=0, sizes=[])

@hvd.elastic.run
def train(state):
    while len(state.sizes) < 3 or state.sizes[-1] != 2:
        optimizer.zero_grad()
        model(torch.randn(4, 2)).square().mean().backward()
        optimizer.step()
        state.step += 1
        if state.sizes[-1:] != [hvd.size()]:
            state.sizes = [*state.sizes, hvd.size()]
            print("size", hvd.size(), flush=True)
        state.commit()
        time.sleep(0.05)

train(state)
print("sizes", state.sizes, flush=True)
"""


def test_elastic_horovod_survives_a_lost_node_and_takes_it_back(jobs: Jobs) -> None:
    submitted = jobs.submit(ELASTIC_HOROVOD, nodes=2, distribution=Distribution("horovod", 1, None, 1))
    begin(submitted, 2, "size 2")
    (agent,) = followers(submitted)
    os.kill(agent, signal.SIGKILL)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert "sizes [2, 1, 2]" in "".join(logs(done))
    assert gone(submitted)


def test_elastic_horovod_survives_a_lost_rank(jobs: Jobs) -> None:
    script = ELASTIC_HOROVOD.replace(
        'print("size"', "print('pid', os.getpid(), os.environ['HOROVOD_HOSTNAME'], \"size\""
    )
    submitted = jobs.submit(script, nodes=2, distribution=Distribution("horovod", 1, None, 1))
    begin(submitted, 2, "size 2")
    words = submitted.directory.rank_log(1).read_text().split()
    os.kill(int(words[words.index("pid") + 1]), signal.SIGKILL)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert "sizes [2, 1, 2]" in "".join(logs(done))
    assert gone(submitted)


def test_elastic_horovod_fails_when_all_ranks_do(jobs: Jobs) -> None:
    script = ELASTIC_HOROVOD.replace("state.step += 1", "raise ValueError('no such class')")
    submitted = jobs.submit(script, nodes=2, distribution=Distribution("horovod", 1, None, 1))
    done = finish(submitted)
    assert not done.succeeded
    assert "ValueError: no such class" in outcome(done).reason, everything(done)
    assert gone(submitted)


def test_elastic_torchrun_survives_a_lost_node_and_takes_it_back(jobs: Jobs) -> None:
    script = f"""{MEET}
print("size", world_size(), flush=True)
path = os.environ["CHECKPOINT_DIR"] + "/sizes"
if rank() == 0:
    with open(path, "a") as handle:
        handle.write(f"{{world_size()}} ")
while True:
    total(1)
    if len(open(path).read().split()) >= 2 and world_size() == 2:
        break
    time.sleep(0.05)
total(1)
"""
    submitted = jobs.submit(script, nodes=2, distribution=Distribution("torch", 1, None, 1, 5))
    begin(submitted, 2, "size 2")
    (agent,) = followers(submitted)
    os.kill(agent, signal.SIGKILL)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    sizes = (done.directory.checkpoints / "sizes").read_text().split()
    assert len(sizes) >= 2  # torch may go on with one rank meanwhile, or wait for the node
    assert (sizes[0], sizes[-1]) == ("2", "2")
    assert gone(submitted)


# Time limits and the signal before them.


def test_the_checkpoint_signal_reaches_those_that_handle_it(quick: Jobs) -> None:
    script = """
import os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # would die of it
signal.signal(signal.SIGUSR1, lambda *_: pathlib.Path("outputs/saved").write_text(f"{child.poll()}"))
print("begun", flush=True)
while True:
    time.sleep(0.1)
"""
    submitted = quick.submit(
        script, 1, kind="single", max_seconds=6.0, checkpoint_signal="USR1", checkpoint_lead_seconds=3.0
    )
    done = finish(submitted)
    assert outcome(done).reason == "ran longer than max_run_duration_seconds (6 s)"
    assert done.artifact("outputs/saved") == "None"
    assert done.run.info.status == "FAILED"
    assert gone(submitted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_signal_reaches_every_rank_once(jobs: Jobs, kind: str) -> None:
    script = f"""
import signal
caught = []
signal.signal(signal.SIGUSR2, lambda *_: caught.append(1))
{MEET}
total(1)
end = time.monotonic() + 40
while total(len(caught)) < world_size() and time.monotonic() < end:
    time.sleep(0.1)
time.sleep(1)
print("caught", len(caught), flush=True)
time.sleep(600)
"""
    submitted = jobs.submit(
        script, 2, 2, kind, max_seconds=45.0, checkpoint_signal="USR2", checkpoint_lead_seconds=10.0, grace_seconds=1
    )
    done = finish(submitted)
    assert outcome(done).reason.startswith("ran longer than max_run_duration_seconds"), everything(done)
    assert ["caught 1\n" in log for log in logs(done)] == [True] * 4, everything(done)
    assert gone(submitted)


# Attempts.

FLAKY = """
import os, pathlib, sys
attempt = int(os.environ["GPU_CLUSTER_ATTEMPT"])
kept = pathlib.Path(os.environ["CHECKPOINT_DIR"], "count")
count = int(kept.read_text()) if kept.exists() else 0
kept.write_text(str(count + 1))
print("attempt", attempt, "count", count, flush=True)
if attempt < 3:
    sys.exit(75)
"""


def test_a_failed_job_is_tried_again_in_the_same_run(quick: Jobs) -> None:
    done = finish(quick.submit(FLAKY, 1, kind="single", max_retries=2))
    assert done.succeeded, everything(done)
    assert logs(done)[0].splitlines() == ["attempt 1 count 0", "attempt 2 count 1", "attempt 3 count 2"]
    assert done.tags["gpu_cluster.attempt"] == "3"
    assert done.run.info.status == "FINISHED"
    assert outcome(done).failure is None


def test_retries_end(quick: Jobs) -> None:
    done = finish(quick.submit(FLAKY, 1, kind="single", max_retries=1))
    assert outcome(done).reason == "rank 0 exited with status 75"
    assert failure(done)["earlier_attempts"] == ["rank 0 exited with status 75"]
    assert "Attempt 1: rank 0 exited with status 75" in done.tags["mlflow.note.content"]
    assert done.tags["gpu_cluster.attempt"] == "2"


@pytest.mark.parametrize(("codes", "attempts"), [((75,), 3), ((1, -9), 1), ((), 3)])
def test_only_some_exit_codes_are_worth_a_retry(quick: Jobs, codes: tuple[int, ...], attempts: int) -> None:
    done = finish(quick.submit(FLAKY, 1, kind="single", max_retries=5, retry_exit_codes=codes))
    assert done.directory.attempt == attempts
    assert done.succeeded == (attempts == 3)


def test_the_last_attempts_traceback_is_reported(quick: Jobs) -> None:
    script = "import os, sys\nif os.environ['GPU_CLUSTER_ATTEMPT'] == '1':\n    raise ValueError('first')\nsys.exit(4)"
    found = failure(finish(quick.submit(script, 1, kind="single", max_retries=1)))
    assert found["traceback"] == ""
    assert found["earlier_attempts"] == ["rank 0 exited with status 1 (ValueError: first)"]


def test_canceling_ends_the_attempts(quick: Jobs) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", 1, kind="single", max_retries=5)
    begin(submitted, 1)
    submitted.cancel()
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    assert done.directory.attempt == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_node_is_back_for_the_next_attempt(jobs: Jobs, kind: str) -> None:
    script = f"""{MEET}
total(1)
print("begun", flush=True)
if os.environ["GPU_CLUSTER_ATTEMPT"] == "1":
    while True:
        total(1)
print("sum", total(rank()))
"""
    submitted = jobs.submit(script, 1, 2, kind, max_retries=1)
    begin(submitted)
    (agent,) = followers(submitted)
    os.kill(agent, signal.SIGKILL)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert ["sum 1.0\n" in log for log in logs(done)] == [True, True]
    assert done.tags["gpu_cluster.attempt"] == "2"
    assert gone(submitted)


# A rank that does not come, and one that is stopped.


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_hangs_in_its_start_is_named(jobs: Jobs, kind: str) -> None:
    late = """
import os, time
if os.environ.get("RANK", os.environ.get("HOROVOD_RANK")) == "1":
    print("asleep")
    time.sleep(600)
"""
    submitted = jobs.submit(late + MEET, 2, 1, kind, start_seconds=25.0, grace_seconds=1)
    done = finish(submitted)
    assert outcome(done).reason == "rank 1 has not joined the others within 25 s (start_timeout_seconds)", everything(
        done
    )
    assert failure(done)["last_lines"] == ["asleep"]
    assert gone(submitted)


def test_a_stopped_rank_is_named_when_time_is_over(jobs: Jobs) -> None:
    script = f"{MEET}total(1)\nprint('begun', os.getpid(), flush=True)\nwhile True:\n    total(1)"
    submitted = jobs.submit(script, max_seconds=30.0, grace_seconds=1)
    begin(submitted)
    os.kill(int(submitted.directory.rank_log(1).read_text().split()[-1]), signal.SIGSTOP)
    done = finish(submitted)
    assert outcome(done).reason.endswith("(30 s); rank 1 was stopped (SIGSTOP)")
    assert failure(done)["rank"] == 1
    assert gone(submitted)


def test_a_stopped_agent_does_not_outlive_the_job(jobs: Jobs) -> None:
    submitted = jobs.submit(f"{MEET}total(1)\nprint('begun', flush=True)\ntime.sleep(600)", 1, 2, grace_seconds=1)
    begin(submitted)
    (agent,) = followers(submitted)
    os.kill(agent, signal.SIGSTOP)
    before = time.monotonic()
    submitted.cancel()
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    wait_until(lambda: gone(submitted), 10, "the end of all processes")
    assert time.monotonic() - before < 20


# Scripts that behave badly.


def test_leftovers_of_a_rank_below_torchrun_end_with_it(jobs: Jobs) -> None:
    script = "import subprocess, sys\nsubprocess.Popen(['setsid', 'sleep', '600'], close_fds=False)\n"
    submitted = jobs.submit(script, 2, 1, "torch")
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert gone(submitted)


def test_more_ranks_than_gpus_are_refused(quick: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_pytorch_estimator.schedulers import local
    from mlflow_pytorch_estimator.schedulers.machine import Capacity

    monkeypatch.setattr(local, "capacity", lambda environ: Capacity((0, 1, 2, 3), (0, 1)))
    with pytest.raises(ConfigError, match=r"2 x 2 ranks are more than the 2 GPUs that this machine has for them"):
        quick.submit("", 2, 2)


def test_mpirun_that_is_not_there_is_refused(quick: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"mpirun and mpicxx are not both on PATH: apt install openmpi-bin"):
        quick.submit("", kind="mpirun")


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI: apt install openmpi-bin libopenmpi-dev")
def test_mpirun_starts_horovods_ranks(jobs: Jobs) -> None:
    script = MEET.replace('"HOROVOD_SIZE"', '"OMPI_COMM_WORLD_SIZE"') + "print(rank(), world_size(), total(rank()))\n"
    submitted = jobs.submit(script, 2, kind="mpirun")
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert [log.splitlines()[-1] for log in logs(done)] == ["0 2 1.0", "1 2 1.0"]
    assert gone(submitted)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI: apt install openmpi-bin libopenmpi-dev")
def test_a_rank_that_fails_below_mpirun_is_named(jobs: Jobs) -> None:
    script = (
        MEET.replace('"HOROVOD_SIZE"', '"OMPI_COMM_WORLD_SIZE"')
        + "total(1)\nif rank() == 1:\n    sys.exit(5)\ntotal(1)\n"
    )
    done = finish(jobs.submit(script, 2, kind="mpirun"))
    assert outcome(done).reason == "rank 1 exited with status 5", everything(done)


# Equality: any layout of ranks learns what one process learns from the joined batch.

LEARN = """
import json, os, pathlib
import torch
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
size, place = int(os.environ.get("TEST_SIZE", world_size())), rank()
if size > 1 and "HOROVOD_SIZE" in os.environ:
    optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters())
elif size > 1:
    model = torch.nn.parallel.DistributedDataParallel(model)
losses = []
for step in range(50):
    pictures = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    targets = 0.5 * pictures[:, :1]
    mine = slice(place * 16 // size, (place + 1) * 16 // size)
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(pictures[mine]), targets[mine])
    loss.backward()
    optimizer.step()
    losses.append(total(loss.item()) / size)
if place == 0:
    pathlib.Path("outputs/losses.json").write_text(json.dumps(losses))
if "dist" in globals():
    total(0)
    os._exit(0)  # torch may abort while an interpreter with DDP in it ends, which is not what is tested
"""


@pytest.fixture(scope="module")
def alone(horovod_python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process, without any launcher."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "outputs").mkdir()
    (folder / "learn.py").write_text(f"rank = lambda: 0\nworld_size = lambda: 1\ntotal = float\n{LEARN}")
    subprocess.run([horovod_python, "learn.py"], cwd=folder, check=True)
    found: list[float] = json.loads((folder / "outputs/losses.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("nodes", "count"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_every_layout_learns_the_same(jobs: Jobs, alone: list[float], kind: str, nodes: int, count: int) -> None:
    done = finish(jobs.submit(f"{MEET if nodes * count > 1 or kind == 'torch' else ONE}{LEARN}", count, nodes, kind))
    assert done.succeeded, everything(done)
    found = json.loads((done.directory.outputs / "losses.json").read_text())
    assert len(found) == 50
    assert found[-1] < 0.5 * found[0]
    assert max(abs(one - other) for one, other in zip(found, alone, strict=True)) < 1e-5  # total() is float32
