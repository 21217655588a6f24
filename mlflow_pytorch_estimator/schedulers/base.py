"""What a scheduler is: a way to place a job, to ask for it and to end it. Stateless, no threads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, Protocol

from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.locks import HeldLock
from mlflow_pytorch_estimator.spec import JobSpec

ALLOCATION_VARIABLE = "GPU_CLUSTER_ALLOCATION"
JOB_DIRECTORY_VARIABLE = "GPU_CLUSTER_JOB_DIR"


@dataclass(frozen=True)
class Allocation:
    """What the scheduler gave to this node of the job."""

    node: str
    cpus: tuple[int, ...]
    """Core ids, as ``sched_setaffinity`` takes them; empty means not restricted."""
    gpus: tuple[int, ...]
    """GPU indices in PCI bus order."""
    address: str = "127.0.0.1"
    """Where the other nodes of the job reach this one."""
    interface: str = "lo"
    """Network interface of that address."""
    cpu_count: int = 0
    """How many cores the node has for the job, where their ids are the scheduler's business; 0 where ``cpus`` tells."""

    @property
    def cores(self) -> int:
        """How many cores the ranks share."""
        return len(self.cpus) or self.cpu_count or os.cpu_count() or 1

    def to_json(self) -> str:
        """For the environment variable ``GPU_CLUSTER_ALLOCATION``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Allocation | None:
        """The allocation this process runs in, or None outside a job."""
        text = environ.get(ALLOCATION_VARIABLE)
        if not text:
            return None
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Allocation:
        """From what ``to_json`` has written, also by another version."""
        known = {item.name for item in fields(cls)}
        chosen = {name: value for name, value in raw.items() if name in known}
        return cls(**{**chosen, "cpus": tuple(raw["cpus"]), "gpus": tuple(raw["gpus"])})

    def describe(self) -> str:
        """For people: ``gpu07, 4 CPUs, 1 GPU``."""
        return f"{self.node}, {count(self.cores, 'CPU')}, {count(len(self.gpus), 'GPU')}"


@dataclass(frozen=True)
class Others:
    """The nodes of a job besides the first, and how a program is started on them."""

    names: tuple[str, ...] = ()
    """In the order of the nodes."""
    prefixes: tuple[tuple[str, ...], ...] = ()
    """Put before a command, each starts it on one of these nodes; or a single one on all of them."""


@dataclass(frozen=True)
class Outlook:
    """What ``submit`` would hand over, for people, and what the job would find on its nodes."""

    text: str
    """What the engine would get, line by line."""
    environ: Mapping[str, str]
    """Environment of the agent, as far as it is known before."""
    gpus: int
    """Of each node."""
    later: tuple[str, ...] = ()
    """Names of further variables, or patterns such as ``SLURM_*``, that the engine adds on the node."""


class NodeState(str, Enum):
    """What a node of a cluster does."""

    IDLE = "idle"
    """Up, without a job."""
    LEAVING = "leaving"
    """Being given back."""
    PREEMPTED = "preempted"
    """Taken away for somebody who came first."""
    PREPARING = "preparing"
    """Being started."""
    RUNNING = "running"
    """A job runs on it."""
    UNUSABLE = "unusable"
    """Not to be had; ``ClusterState.errors`` says why."""


@dataclass(frozen=True)
class Node:
    """One node of a cluster, with the job it runs and the core ids and GPU indices that the job was given there."""

    name: str
    state: NodeState
    run_id: str | None = None
    cpus: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()


class NodeShape(NamedTuple):
    """What a job asks of one node; memory is in GiB. None leaves it to the scheduler."""

    cpus: int | None
    gpus: int | None
    memory_gb: float | None


@dataclass(frozen=True)
class ClusterState:
    """A cluster as its scheduler sees it now."""

    nodes: tuple[Node, ...]
    target: int
    """How many nodes there will be when nothing is starting or leaving any more."""
    errors: tuple[str, ...] = ()
    """Why nodes that are wanted cannot be had, one line each."""


@dataclass(frozen=True)
class Task:
    """One job of an array, which is ready to run."""

    job: JobSpec
    directory: JobDir
    lock: HeldLock
    """As that of a single job, see ``Scheduler.submit``."""


class Scheduler(Protocol):
    """A place where jobs run. ``CONTRIBUTING.md`` says how to add one."""

    def check(self, job: JobSpec) -> None:
        """Raise ``ConfigError`` if this scheduler can never run the job. Nothing exists yet."""

    def anticipate(self) -> None:
        """A job is about to be submitted: begin what takes time. ``dismiss`` always follows."""

    def dismiss(self) -> None:
        """End what ``anticipate`` began and ``submit`` did not need."""

    def outlook(self, job: JobSpec, directory: JobDir, environ: Mapping[str, str]) -> Outlook:
        """What ``submit`` would do with a job that ``check`` has let pass. Nothing is done."""

    def prepare(
        self,
        job: JobSpec,
        directory: JobDir,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        canceled: Callable[[], bool],
    ) -> None:
        """Have a job prepared on a node (``JobSpec.prepare_on``), until its description in ``directory`` is complete.

        ``say`` gets lines for the user. Raises what went wrong there, and BuildCancelled.
        """

    def submit(self, job: JobSpec, directory: JobDir, lock: HeldLock, environ: Mapping[str, str]) -> str:
        """Queue the job and return the scheduler's id for it.

        ``lock`` says that somebody works on the job; the scheduler hands it to the process that does.
        ``environ`` is the job's environment, secrets included: it may travel, but not be stored in the open.
        Raises ``SchedulerError`` when the job was not accepted.
        """

    def awaits(self, other: JobDir) -> bool:
        """Whether the engine itself can hold a job back until this other one has completed, see ``JobSpec.after``."""

    def check_array(self, job: JobSpec, size: int, limit: int | None) -> None:
        """Raise ``ConfigError`` if it can never run ``size`` such jobs as an array, ``limit`` of them at once."""

    def submit_array(self, tasks: Sequence[Task], group: JobDir, environ: Mapping[str, str]) -> None:
        """Queue the jobs of an array; each directory that has an id afterwards has been taken.

        ``group`` has links to them under ``tasks``. Raises ``SchedulerError`` when not all were accepted.
        """

    def withdraw(self, directory: JobDir) -> None:
        """Take the job out of the queue if it waits there; one that runs ends itself."""

    def withdraw_array(self, group: JobDir) -> None:
        """The same for all jobs of an array."""

    def looks_after(self, directory: JobDir) -> bool:
        """Whether a job whose lock nobody holds lives all the same, as far as the scheduler can tell."""

    def kill(self, directory: JobDir) -> None:
        """End the job by force: the last resort after a request to end it went unheard."""

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        """What this node of the job may use; called by the agent on the node."""

    def check_cluster(self, cluster: Cluster) -> Sequence[str]:
        """Raise ``ConfigError`` if such a cluster cannot be had. Returns what the user should know about its nodes."""

    def node_shape(self, cluster: Cluster) -> NodeShape:
        """What a job gets of each node of a cluster when it does not say it itself."""

    def measured(self, cluster: Cluster) -> Cluster:
        """The definition of a cluster that exists on its own, with the sizes that the scheduler knows."""

    def cluster_state(self, cluster: Cluster) -> ClusterState:
        """The nodes that a cluster has now, one consistent view."""

    def power_up(self, cluster: Cluster, wanted: int) -> None:
        """Ask for ``wanted`` nodes, those that are up included; ``cluster_state`` tells when they have come."""


def count(number: int, noun: str) -> str:
    """``1 GPU``, ``2 GPUs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
