"""Several ranks with Horovod on one node: what they are told, how they meet, and how they end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Project, finish, processes_with, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_ends import end
from rank_jobs import BEGUN, Jobs, begin, gone, logs

from mlflow_pytorch_estimator.errors import EnvironmentSpecError, ProjectError
from mlflow_pytorch_estimator.launchers import horovod, rendezvous, single
from mlflow_pytorch_estimator.launchers.base import Address, Layout, RankCommand, outside_of_ranks
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

HERE = Address("127.0.0.1", 4711)


def job(command: str = "python train.py", kind: str = "horovod", ranks_per_node: int = 2) -> JobSpec:
    interpreter = InterpreterSpec("local", python=sys.executable)
    return JobSpec("r1", "0", "toy", "main", command, {}, interpreter, distribution=Distribution(kind, ranks_per_node))


def launched(described: JobSpec, *nodes: Allocation, number: int = 0) -> tuple[RankCommand, ...]:
    return horovod.launch(described, Layout(nodes, described.distribution.processes_per_node), number, HERE)


def test_what_each_rank_is_told() -> None:
    first, second = launched(job(), Allocation("gpu07", (0, 1, 2, 3), (1, 3)))
    assert second == RankCommand(
        rank=1,
        local_rank=1,
        argv=("bash", "-c", "python train.py"),
        environ={
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": "1,3",
            "GPU_CLUSTER_LOCAL_RANK": "1",
            "GPU_CLUSTER_NODE_RANK": "0",
            "GPU_CLUSTER_RANK": "1",
            "GPU_CLUSTER_WORLD_SIZE": "2",
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_CROSS_RANK": "0",
            "HOROVOD_CROSS_SIZE": "1",
            "HOROVOD_GLOO_IFACE": "lo",
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": "4711",
            "HOROVOD_HOSTNAME": "gpu07",
            "HOROVOD_LOCAL_RANK": "1",
            "HOROVOD_LOCAL_SIZE": "2",
            "HOROVOD_RANK": "1",
            "HOROVOD_SIZE": "2",
        },
        defaults={"OMP_NUM_THREADS": "2", "NCCL_SOCKET_IFNAME": "lo", "HOROVOD_GLOO_TIMEOUT_SECONDS": "300"},
    )
    assert first.argv == second.argv
    changed = {name: value for name, value in first.environ.items() if second.environ[name] != value}
    assert changed == {
        "GPU_CLUSTER_LOCAL_RANK": "0",
        "GPU_CLUSTER_RANK": "0",
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_RANK": "0",
    }


@pytest.mark.parametrize(("cores", "count", "threads"), [(8, 2, "4"), (7, 2, "3"), (2, 4, "1"), (1, 1, "1")])
def test_the_cores_are_shared_out(cores: int, count: int, threads: str) -> None:
    started = launched(job(ranks_per_node=count), Allocation("n", tuple(range(cores)), ()))
    assert [rank.rank for rank in started] == list(range(count))
    assert {rank.defaults["OMP_NUM_THREADS"] for rank in started} == {threads}
    assert {rank.environ["CUDA_VISIBLE_DEVICES"] for rank in started} == {""}


def test_without_a_list_of_cores_all_are_shared_out() -> None:
    (rank, _) = launched(job(), Allocation("n", (), ()))
    assert rank.defaults["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 2))


def test_what_the_user_set_wins_over_defaults_only() -> None:
    (rank, _) = launched(job(), Allocation("n", (0, 1), ()))
    environ = rank.environment({"OMP_NUM_THREADS": "7", "HOROVOD_RANK": "9", "HOROVOD_CYCLE_TIME": "2"})
    assert environ["OMP_NUM_THREADS"] == "7"
    assert environ["HOROVOD_RANK"] == "0"
    assert environ["HOROVOD_CYCLE_TIME"] == "2"
    assert rank.environment({})["OMP_NUM_THREADS"] == "1"


def test_a_job_submitted_by_a_rank_has_no_place_in_the_ranks_job() -> None:
    (_, rank) = launched(job(), Allocation("n", (0, 1), ()))
    given = {"PATH": "/bin", "HOROVOD_CYCLE_TIME": "2", "NCCL_SOCKET_IFNAME": "eth0"}
    assert outside_of_ranks(rank.environment(given)) == given
    assert outside_of_ranks(given) == given


def test_one_process_is_not_told_of_ranks() -> None:
    (command,) = single.launch(job(), Allocation("n", (0, 1), (0,)))
    assert command.argv == ("bash", "-c", "python train.py")
    assert command.environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"}
    assert command.defaults == {}


@pytest.mark.parametrize("ranks_per_node", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_rank_of_several_nodes_has_its_own_place(count: int, ranks_per_node: int) -> None:
    nodes = [Allocation(f"n{number}", (0,), (), f"10.0.0.{number + 1}", "eth0") for number in range(count)]
    told = [
        rank.environ
        for number in range(count)
        for rank in launched(job(ranks_per_node=ranks_per_node), *nodes, number=number)
    ]
    size = count * ranks_per_node
    assert [int(environ["HOROVOD_RANK"]) for environ in told] == list(range(size))
    assert [environ["GPU_CLUSTER_RANK"] for environ in told] == [environ["HOROVOD_RANK"] for environ in told]
    for environ in told:
        node, local = divmod(int(environ["HOROVOD_RANK"]), ranks_per_node)
        assert environ["HOROVOD_HOSTNAME"] == f"n{node}"
        assert environ["HOROVOD_LOCAL_RANK"] == environ["GPU_CLUSTER_LOCAL_RANK"] == str(local)
        assert environ["HOROVOD_CROSS_RANK"] == environ["GPU_CLUSTER_NODE_RANK"] == str(node)
        sizes = [environ[f"HOROVOD_{name}SIZE"] for name in ("", "LOCAL_", "CROSS_")]
        assert sizes == [str(size), str(ranks_per_node), str(count)]
        assert environ["HOROVOD_GLOO_IFACE"] == "eth0"


@pytest.mark.parametrize(
    ("distribution", "nodes", "count"),
    [
        (Distribution(), 1, 1),
        (Distribution("horovod", 1), 1, 1),
        (Distribution("horovod", 4), 1, 4),
        (Distribution("horovod", 4), 2, 8),
        (Distribution("torch", 4, "gloo"), 3, 12),
    ],
)
def test_how_many_ranks_there_are(distribution: Distribution, nodes: int, count: int) -> None:
    assert distribution.world_size(nodes) == count


# The server that does not start.


def test_a_server_without_horovod_says_so(tmp_path: Path) -> None:
    server = rendezvous.serve(sys.executable, "127.0.0.1", {"n": 2}, tmp_path / "log", os.environ, ())
    with pytest.raises(ProjectError, match=r"Horovod cannot be imported by .*No module named 'horovod'\): install it"):
        server.address(lambda: False)
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = rendezvous.serve("/nowhere/python", "127.0.0.1", {"n": 2}, tmp_path / "log", os.environ, ())
    with pytest.raises(ProjectError, match=r"server exited with status 127 .*cannot start /nowhere/python"):
        server.address(lambda: False)


def test_the_server_listens_on_this_machine_only_and_ends(
    horovod_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    (noisy / "sitecustomize.py").write_text("print('hello')\nimport sys; print('warning', file=sys.stderr)\n")
    monkeypatch.setenv("PYTHONPATH", str(noisy))
    server = rendezvous.serve(str(horovod_python), "127.0.0.1", {"n": 2}, tmp_path / "log", os.environ, ())
    address = server.address(lambda: False)
    assert address is not None
    with socket.create_connection((address.host, address.port), 5):
        pass
    found = subprocess.run(["ss", "-Hltn", f"sport = :{address.port}"], capture_output=True, text=True, check=False)
    assert found.returncode or found.stdout.split()[3] == f"127.0.0.1:{address.port}"
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert [one for one in started if any(found.laddr.port == address.port for found in one.net_connections())]
    end((), 0)
    assert server.process.wait(10) != 0
    # Killed together with its keeper, a moment later perhaps; its port may be somebody else's then.
    assert psutil.wait_procs(started, 10)[1] == []


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """An interpreter that takes its time."""
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\nsleep 60\n")
    path.chmod(0o700)
    return path


def test_waiting_for_the_server_can_be_canceled(slow: Path, tmp_path: Path) -> None:
    server = rendezvous.serve(str(slow), "127.0.0.1", {"n": 2}, tmp_path / "log", os.environ, ())
    assert server.address(lambda: True) is None
    end((), 0)
    assert server.process.wait(10) != 0
    assert processes_with(str(slow)) == []


# Whole jobs.


@pytest.fixture
def jobs(store: MlflowClient, horovod_python: Path) -> Jobs:
    return Jobs(store, str(horovod_python))


@pytest.fixture
def jobs_without_horovod(store: MlflowClient) -> Jobs:
    return Jobs(store, sys.executable)


ALLREDUCE = """
import horovod.torch as hvd
import torch
hvd.init()
print("sum", hvd.allreduce(torch.tensor([hvd.rank() + 1.0]), op=hvd.Sum).item())
print(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size())
print("threads", torch.get_num_threads())
"""


def test_two_ranks_meet(jobs: Jobs) -> None:
    submitted = jobs.submit(ALLREDUCE)
    done = finish(submitted)
    assert done.succeeded, logs(done)
    first, second = logs(done)
    assert "sum 3.0\n0 2 0 2 0 1\n" in first
    assert "sum 3.0\n1 2 1 2 0 1\n" in second
    assert f"threads {max(1, len(os.sched_getaffinity(0)) // 2)}\n" in first
    assert {"logs/rank_0.log", "logs/rank_1.log"} <= done.files("logs")
    assert done.run.info.status == "FINISHED"
    assert gone(submitted)


def test_two_jobs_at_once_do_not_meet(jobs: Jobs) -> None:
    script = ALLREDUCE.replace("+ 1.0", "+ float(os.environ['BASE'])").replace("import torch", "import os, torch")
    started = []
    for base in ("10", "20"):
        os.environ["BASE"] = base
        started.append(jobs.submit(script, cpus=max(1, len(os.sched_getaffinity(0)) // 2)))
    del os.environ["BASE"]
    done = [finish(item) for item in started]
    assert [item.succeeded for item in done] == [True, True], [logs(item) for item in done]
    assert ["sum 21.0\n" in log for log in logs(done[0])] == [True, True]
    assert ["sum 41.0\n" in log for log in logs(done[1])] == [True, True]


STEPS = """
import os
import signal
import horovod.torch as hvd
import torch
hvd.init()
for step in range(10_000_000):
    hvd.allreduce(torch.ones(1000), name=str(step % 10))
    if step == 20 and hvd.rank() == {rank}:
        {action}
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("raise ValueError('no such class')", "exited with status 1 (ValueError: no such class)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os._exit(3)", "exited with status 3"),
    ],
)
def test_the_rank_that_fails_is_named_and_the_other_ended(jobs: Jobs, rank: int, action: str, reason: str) -> None:
    submitted = jobs.submit(STEPS.format(rank=rank, action=action))
    done = finish(submitted)
    outcome = done.directory.outcome
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure["rank"] == rank
    assert outcome.reason == f"rank {rank} {reason}"
    assert done.run.info.status == "FAILED"
    assert gone(submitted)


def test_the_rank_to_blame_may_end_last(jobs: Jobs) -> None:
    script = """
import os
import time
class HorovodInternalError(RuntimeError):
    pass
if os.environ["GPU_CLUSTER_RANK"] == "0":
    raise HorovodInternalError("Horovod has been shut down")
time.sleep(2)
raise ValueError("no such class")
"""
    outcome = finish(jobs.submit(script)).directory.outcome
    assert outcome is not None
    assert outcome.reason == "rank 1 exited with status 1 (ValueError: no such class)"


def test_canceling_leaves_nothing(jobs: Jobs) -> None:
    submitted = jobs.submit(f"{BEGUN}time.sleep(600)", grace_seconds=2)
    begin(submitted)
    submitted.cancel()
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    assert gone(submitted)


def test_canceling_before_the_ranks_start_leaves_nothing(store: MlflowClient, slow: Path) -> None:
    submitted = Jobs(store, str(slow)).submit("print('never')")
    wait_until(lambda: processes_with(str(slow)), 30, "the start of the server")
    submitted.cancel()
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    assert done.directory.rank_logs() == []
    assert gone(submitted)


def test_a_killed_agent_leaves_nothing(jobs: Jobs) -> None:
    submitted = jobs.submit(f"{BEGUN}import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)")
    begin(submitted)
    assert len(processes_with("rendezvous_server.py")) >= 2  # with its keeper
    load_scheduler("local").kill(submitted.directory)
    wait_until(lambda: gone(submitted), 20, "the end of all processes")
    assert finish(submitted).run.info.status == "FAILED"


def test_a_rank_deaf_to_sigterm_is_killed_after_the_grace_period(jobs: Jobs) -> None:
    script = f"""{BEGUN}
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(2 if os.environ["GPU_CLUSTER_RANK"] == "1" else 600)
raise SystemExit(3)
"""
    submitted = jobs.submit(script, grace_seconds=1)
    done = finish(submitted)
    outcome = done.directory.outcome
    assert outcome is not None
    assert outcome.reason == "rank 1 exited with status 3"
    assert gone(submitted)


def test_a_job_without_horovod_says_so(jobs_without_horovod: Jobs) -> None:
    submitted = jobs_without_horovod.submit("print('never')")
    done = finish(submitted)
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.failure"].startswith("Horovod cannot be imported by the job's interpreter")
    assert done.directory.rank_logs() == []
    assert gone(submitted)


def test_an_interpreter_without_horovod_is_refused(store: MlflowClient, project: Project) -> None:
    config = {"distributed_training": "mpi", "process_count_per_node": 2}
    with pytest.raises(EnvironmentSpecError, match=r"has no Horovod .* horovod build --python .* --install"):
        submit(project.script("print('never')"), config=config)
    assert store.search_runs(["0"]) == []


def test_a_job_of_one_rank_needs_no_server(jobs_without_horovod: Jobs) -> None:
    done = finish(jobs_without_horovod.submit("print('alone')", count=1))
    assert done.succeeded
    assert "alone" in done.log
    assert not (done.directory.logs / "rendezvous.log").exists()


def test_lines_say_whose_they_are(jobs: Jobs, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    script = """
import os, sys
rank = os.environ["GPU_CLUSTER_RANK"]
for number in range(2000):
    sys.stdout.write(f"{rank}:{number} ")
    sys.stdout.write("x" * 100 + "\\n")
sys.stdout.write("y" * (3 << 20) + "\\n")
sys.stdout.write(f"{rank}:end")
"""
    submitted = jobs.submit(script)
    assert submitted.wait()
    capfdbinary.readouterr()
    GpuClusterSubmittedRun.of_run(submitted.run_id).raising().wait()
    shown = capfdbinary.readouterr().out.decode()
    for rank in "01":
        lines = re.findall(rf"^\[rank {rank}\] {rank}:(\d+) x{{100}}$", shown, re.MULTILINE)
        assert lines == [str(number) for number in range(2000)]
        assert f"\n[rank {rank}] {rank}:end\n" in shown
    assert all(re.match(r"\[rank [01]\] ([01]:|y+$)", line) for line in shown.splitlines())


def test_ranks_that_all_log_do_not_break_the_run(jobs: Jobs) -> None:
    script = """
import os
owner = os.environ["MLFLOW_RUN_ID"]
import mlflow
with mlflow.start_run() as run:
    assert run.info.run_id == owner
    mlflow.log_param("lr", 0.1)
    for step in range(5):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
"""
    done = finish(jobs.submit(script))
    assert done.succeeded, logs(done)
    assert done.run.info.status == "FINISHED"
    assert done.run.data.params == {"lr": "0.1"}
    assert done.run.data.metrics["loss"] == 0.2
