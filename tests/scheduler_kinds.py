"""The places where jobs run, for tests that hold over all of them: see ``test_scheduler_contract``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from queue_files import DIALECTS, GPUS, NODES, Queue
from rank_jobs import Jobs
from slurm_cluster import Slurm

from mlflow_pytorch_estimator.schedulers.machine import capacity
from mlflow_pytorch_estimator.schedulers.slurm import states
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

KINDS = ("local", *(f"queue-{version}" for version in DIALECTS), "slurm")
"""This machine, Slurm's commands as programs of the tests in the manner of two versions, a real Slurm."""


def _nothing(job_id: str) -> str:
    return ""


@dataclass
class Place:
    """A scheduler, with what a test has to know to expect the right thing."""

    jobs: Jobs
    nodes: tuple[str, ...]
    """Names of the nodes of a job that has two."""
    alone: str
    """The node of a job that has one."""
    gpus: int
    """Of a node."""
    waiting: str
    """Why a job waits while another has all nodes."""
    job_id: str
    """A pattern of ids."""
    agent: str
    """Where the name of the agent's module stands."""
    refused: str
    """What is said of a job that wants too many cores; a pattern."""
    silent: str
    """The end of a job whose agent is another program, which ends well and says nothing."""
    lost: str
    """The end of a job whose agent was killed, with a scheduler that knows nothing of it any more, if it can forget."""
    forget: Callable[[str], object] = _nothing
    shown: Callable[[str], str] = _nothing
    """All that others may read about the job with an id, beside its files."""

    def lose(self, submitted: GpuClusterSubmittedRun) -> None:
        """Let the scheduler forget a job, and kill its agent."""
        self.forget(submitted.directory.job_id or "")
        os.kill(json.loads(submitted.directory.agent.read_text())["pid"], signal.SIGKILL)


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """Each of the places in turn."""
    kind, _, version = str(request.param).partition("-")
    if kind == "local":
        yield _local(store)
    elif kind == "slurm":
        yield _slurm(store, request.getfixturevalue("slurm"))
    else:
        queue = Queue.create(tmp_path / "queue", DIALECTS[version])
        monkeypatch.setenv("PATH", f"{queue.folder}/bin:{os.environ['PATH']}")
        if queue.dialect.cluster:
            monkeypatch.setenv("SBATCH_CLUSTERS", queue.dialect.cluster)
        yield _queue(store, queue)
        queue.close()


def _local(store: MlflowClient) -> Place:
    host = socket.gethostname()
    return Place(
        Jobs(store, sys.executable),
        (f"{host}-0", f"{host}-1"),
        host,
        len(capacity(os.environ).gpus),
        "waiting for 1 job ahead",
        r"local-\d+",
        "mlflow_pytorch_estimator.schedulers.local._MODULE",
        "cpus_per_node is 999, but this machine has",
        "the agent was killed while the job was queued; last known phase: Queued",
        "the agent was killed, or the machine went down; last known phase: Running",
    )


def _of_slurm(store: MlflowClient, nodes: tuple[str, ...], job_id: str, waiting: str, lost: str) -> Place:
    return Place(
        Jobs(store, sys.executable, "slurm"),
        nodes,
        nodes[0],
        GPUS,
        waiting,
        job_id,
        "mlflow_pytorch_estimator.schedulers.slurm.script._NODE_MODULE",
        "Slurm does not take the job: .*Requested node configuration is not available",
        "the agent exited with status 0 without a word about the ranks",
        lost,
    )


def _queue(store: MlflowClient, queue: Queue) -> Place:
    cluster = queue.dialect.cluster
    lost = "and its agent has not said how it ended"
    found = _of_slurm(
        *(store, NODES, rf"\d+;{cluster}" if cluster else r"\d+"), states.plain(queue.dialect.waiting), lost
    )
    found.forget = lambda job_id: queue.forget(int(job_id.partition(";")[0]))
    return found


def _slurm(store: MlflowClient, slurm: Slurm) -> Place:
    lost = "the agent was killed by SIGKILL without a word about the ranks"
    found = _of_slurm(store, ("n1", "n2"), r"\d+", "waits for free nodes (Resources)", lost)
    found.shown = lambda job_id: slurm.command("scontrol", "show", "job", job_id)
    return found
