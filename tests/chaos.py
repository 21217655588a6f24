"""Kills a random process of a random job at a random moment, and looks whether the job tells the truth about it.

    python tests/chaos.py --python ENV/bin/python [--seeds 0 100]

The interpreter has torch, Horovod, MLflow. Each seed is one job: launcher, nodes and ranks, victim (a rank, the agent
of another node, the leading agent), signal (TERM, KILL, STOP) and moment are drawn from it. The ranks are joined by a
collective all the time. Checked are: the final status, whom the report blames, that nothing is left within the grace
period and five seconds, and that no port stays open. ``test_chaos.py`` runs a few of them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import processes_with
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs

from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

GRACE = 2.0
LIMIT = 45.0  # for jobs with a stopped process: nothing else ends them
SCRIPT = """
import os, sys, time
print("pid", os.getpid(), flush=True)
import torch
if "HOROVOD_SIZE" in os.environ:
    import horovod.torch as hvd
    hvd.init()
    def together():
        hvd.allreduce(torch.ones(1), name="step")
else:
    import torch.distributed as dist
    dist.init_process_group("gloo")
    def together():
        dist.all_reduce(torch.ones(1))
while True:
    together()
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Case:
    """What happens in one job."""

    kind: str
    nodes: int
    ranks: int
    victim: str
    number: int
    signal: signal.Signals
    moment: float
    """Seconds after the victim is there."""

    @classmethod
    def of(cls, seed: int) -> Case:
        """The case of a seed."""
        draw = random.Random(seed)
        kind, nodes, ranks = draw.choice(("horovod", "torch")), draw.choice((1, 2)), draw.choice((1, 2))
        if nodes * ranks == 1:
            ranks = 2
        victim = draw.choice(("rank", "rank", "follower", "leader") if nodes > 1 else ("rank", "rank", "leader"))
        number = draw.randrange(nodes * ranks)
        sent = draw.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP))
        return cls(kind, nodes, ranks, victim, number, sent, draw.uniform(0.0, 8.0))


def run(case: Case, jobs: Jobs) -> list[str]:
    """Play a case; what was wrong, one line each."""
    stopping = case.signal == signal.SIGSTOP
    submitted = jobs.submit(
        SCRIPT, case.ranks, case.nodes, case.kind, grace_seconds=GRACE, max_seconds=LIMIT if stopping else None
    )
    pid = _find(case, submitted)
    time.sleep(case.moment)
    ports = _ports(submitted)
    os.kill(pid, case.signal)
    if stopping and case.victim == "leader":
        time.sleep(1)
        submitted.cancel()
    submitted.wait()
    ended = time.monotonic()
    while processes_with(submitted.run_id) and time.monotonic() < ended + GRACE + 5:
        time.sleep(0.1)
    wrong = [f"left after {GRACE + 5:g} s: {pids}" for pids in [processes_with(submitted.run_id)] if pids]
    wrong += [f"port {port} is still open" for port in sorted(ports & _listening())]
    return wrong + _judge(case, submitted)


def _find(case: Case, submitted: GpuClusterSubmittedRun) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if case.victim == "rank":
            log = submitted.directory.rank_log(case.number)
            words = log.read_text(errors="replace").split() if log.exists() else []
            if words[:1] == ["pid"] and len(words) > 1:
                return int(words[1])
        for pid in processes_with(submitted.run_id) if case.victim != "rank" else ():
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            module = {"follower": "mlflow_pytorch_estimator.nodes.follower"}.get(case.victim, "schedulers.local_node")
            if words[1:2] == ["-m"] and words[2].endswith(module):
                return pid
        time.sleep(0.05)
    raise AssertionError(f"no {case.victim} within 120 s")


def _ports(submitted: GpuClusterSubmittedRun) -> set[int]:
    """The ports on which processes of the job listen."""
    inodes = set()
    for pid in processes_with(submitted.run_id):
        try:
            links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return {port for inode, port in _listeners() if inode in inodes}


def _listening() -> set[int]:
    return {port for _, port in _listeners()}


def _listeners() -> list[tuple[str, int]]:
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.append((fields[9], int(fields[1].rpartition(":")[2], 16)))
    return found


def _judge(case: Case, submitted: GpuClusterSubmittedRun) -> list[str]:
    """What is wrong about what the job says of its end."""
    outcome = submitted.directory.outcome
    if outcome is None:
        return ["there is no outcome"]
    status = jobs_client().get_run(submitted.run_id).info.status
    canceled = case.victim == "leader" and case.signal != signal.SIGKILL
    wanted = "KILLED" if canceled else "FAILED"
    wrong = [] if status == wanted else [f"status {status} instead of {wanted}"]
    if status != outcome.phase.mlflow_status:
        wrong.append(f"the run says {status}, the job {outcome.phase}")
    details = outcome.failure or {}
    if case.victim == "rank" and details.get("rank") != case.number:
        wrong.append(f"rank {details.get('rank')} is blamed, not {case.number}")
    if case.victim == "rank" and case.signal == signal.SIGSTOP and "SIGSTOP" not in outcome.reason:
        wrong.append("nothing is said of the stop")
    if case.victim == "follower" and case.signal != signal.SIGSTOP and "was lost" not in outcome.reason:
        wrong.append("the lost node is not named")
    return [f"{line} ({outcome.reason})" for line in wrong]


def jobs_client() -> MlflowClient:
    """For the store that the environment names."""
    return MlflowClient()


def main() -> int:
    """Play the seeds; the number of those that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=os.path.abspath, default=sys.executable)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 100))
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # where MLflow puts artifacts
        os.environ["GPU_CLUSTER_HOME"] = f"{name}/home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        jobs = Jobs(jobs_client(), arguments.python)
        for seed in range(*arguments.seeds):
            began = time.monotonic()
            wrong = run(Case.of(seed), jobs)
            failed += bool(wrong)
            print(f"{seed:3} {time.monotonic() - began:5.1f} s {Case.of(seed)}: {wrong or 'ok'}", flush=True)
    print(f"{failed} of {arguments.seeds[1] - arguments.seeds[0]} went wrong")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
