"""The nodes of a partition: what they have, what they do, and how they come up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.base import ClusterState, Node, NodeShape, NodeState
from mlflow_pytorch_estimator.schedulers.slurm import client, queries, watcher
from mlflow_pytorch_estimator.schedulers.slurm import options as slurm_options

_FORMAT = "%N|%T|%c|%m|%G|%E"
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
_ABSENT = {"powered_down", "powering_down~", "future"}
_STATES = {
    "allocated": NodeState.RUNNING,
    "completing": NodeState.RUNNING,
    "mixed": NodeState.RUNNING,
    "draining": NodeState.RUNNING,
    "idle": NodeState.IDLE,
    "planned": NodeState.IDLE,
    "reserved": NodeState.IDLE,
    "powering_up": NodeState.PREPARING,
    "powering_down": NodeState.LEAVING,
    "power_down": NodeState.LEAVING,
    "power_up": NodeState.PREPARING,
}
"""Everything else (down, drained, fail, maint, unknown, ...) cannot be used."""
_SIGNS = {"#": NodeState.PREPARING, "%": NodeState.LEAVING, "!": NodeState.LEAVING, "*": NodeState.UNUSABLE}
"""What Slurm appends to a state; ``~`` is powered off."""
_POWER_UP_DEADLINE = "now+30minutes"


@dataclass(frozen=True)
class Member:
    """A node of a partition as ``sinfo`` shows it; memory is in GiB."""

    name: str
    state: NodeState | None
    """None for one that is powered off."""
    cpus: int
    memory_gb: float
    gpus: int
    reason: str


def members(options: Mapping[str, Any]) -> tuple[Member, ...]:
    """The nodes of the partition that options of ``sbatch`` name, by default the site's default one."""
    name = partition(options)
    text = client.ask("sinfo", "--noheader", "--Node", f"--partition={name}", f"--format={_FORMAT}")
    found = {}
    for line in text.splitlines():
        node, state, cpus, memory, gres, reason = line.split("|", 5)
        gpus = sum(int(number) for number in _GPUS.findall(gres))
        known = "" if reason.strip() in {"none", ""} else reason.strip()
        found[node] = Member(
            node, node_state(state), int(cpus.rstrip("+")), int(memory.rstrip("+")) / 1024, gpus, known
        )
    return tuple(found.values())


def partition(options: Mapping[str, Any]) -> str:
    """The name of the partition; ConfigError if there is none of it."""
    lines = client.ask("sinfo", "--noheader", "--format=%P|%a").splitlines()
    names = [line.partition("|")[0] for line in lines]
    wanted = slurm_options.partition(options)
    if wanted is None:
        default = next((name for name in names if name.endswith("*")), None)
        if default is None:
            raise ConfigError("Slurm has no default partition: name one in scheduler_options")
        return default.rstrip("*")
    if wanted not in {name.rstrip("*") for name in names}:
        known = ", ".join(sorted(name.rstrip("*") for name in names))
        raise ConfigError(f"Slurm has no partition {wanted!r}; there is {known}")
    return wanted


def node_state(text: str) -> NodeState | None:
    """What ``idle~``, ``mixed#`` or ``powered_down`` mean; None for a node that is powered off."""
    name = text.strip().lower()
    base = name.rstrip("~#%!*$@^-+")
    signs = name[len(base) :]
    if base in _ABSENT or "~" in signs:
        return None
    for sign, state in _SIGNS.items():
        if sign in signs:
            return state
    return _STATES.get(base, NodeState.UNUSABLE)


def measured(cluster: Cluster) -> Cluster:
    """The definition with the number of nodes and what each of them has at least."""
    nodes, cores = size(cluster.scheduler_options)
    if nodes == 0:
        raise ConfigError(f"partition {partition(cluster.scheduler_options)} has no nodes")
    found = members(cluster.scheduler_options)
    return replace(
        cluster,
        max_nodes=nodes,
        cpus_per_node=min((member.cpus for member in found), default=cores // nodes),
        memory_gb_per_node=None,  # all of a node is more than Slurm gives where it keeps some for itself
        gpus_per_node=min((member.gpus for member in found), default=None),
    )


def asked_shape(cluster: Cluster) -> NodeShape:
    """What the definition says."""
    return NodeShape(cluster.cpus_per_node, cluster.gpus_per_node, cluster.memory_gb_per_node)


def shape(cluster: Cluster) -> NodeShape:
    """What jobs ask for: a size by name means a node like that, numbers mean these numbers."""
    asked = asked_shape(cluster)
    if cluster.vm_size is None or cluster.attached:
        return asked
    have = measured(cluster)
    return NodeShape(_least(asked.cpus, have.cpus_per_node), _least(asked.gpus, have.gpus_per_node), None)


def _least(asked: int | None, have: int | None) -> int | None:
    return asked if asked is None or have is None else min(asked, have)


def size(options: Mapping[str, Any]) -> tuple[int, int]:
    """How many nodes and cores the partition has, those included that are powered off, which ``sinfo`` may not show."""
    fields = queries.fields_of(client.ask("scontrol", "--oneliner", "show", "partition", partition(options)))
    return int(fields.get("TotalNodes", 0)), int(fields.get("TotalCPUs", 0))


def cluster_state(cluster: Cluster) -> ClusterState:
    """The nodes that are up or on their way; what is wrong with the partition is an error, not an exception."""
    try:
        found = members(cluster.scheduler_options)
        runs = _runs()
    except (ConfigError, SchedulerError) as error:
        return ClusterState((), 0, (str(error),))
    nodes = [Node(member.name, member.state, runs.get(member.name)) for member in found if member.state is not None]
    coming = sum(node.state in {NodeState.IDLE, NodeState.RUNNING, NodeState.PREPARING} for node in nodes)
    unusable = [member for member in found if member.state is NodeState.UNUSABLE]
    reasons = tuple(f"{member.name}: {member.reason or 'cannot be used'}" for member in unusable[:5])
    errors = reasons if len(unusable) == len(found) else ()
    return ClusterState(tuple(nodes), coming, errors)


def power_up(cluster: Cluster, wanted: int) -> None:
    """Have so many nodes started: by a job that wants them and does nothing, the one way that a user has."""
    state = cluster_state(cluster)
    if state.target >= wanted or state.errors:
        return
    answer = client.run(
        *("sbatch", "--parsable", f"--nodes={wanted}", "--ntasks-per-node=1", "--exclusive", "--time=1"),
        *(f"--deadline={_POWER_UP_DEADLINE}", "--job-name=power-up", "--output=/dev/null", "--chdir=/"),
        *slurm_options.users_defaults(cluster.scheduler_options),
        *slurm_options.arguments(cluster.scheduler_options),
        *("--wrap", "true"),
        patient=True,
    )
    if answer.code != 0:
        raise SchedulerError(f"Slurm does not start {wanted} nodes: {answer.reason}")


def _runs() -> dict[str, str]:
    """Node -> the run of this home whose job it has."""
    jobs = jobdir.home() / "jobs"
    ids: dict[str, Path] = {}
    for path in jobs.glob("[!.]*") if jobs.is_dir() else ():
        directory = JobDir(path)
        job_id = directory.job_id
        if job_id and not directory.delivered.exists() and directory.job.scheduler == watcher.NAME:
            ids[job_id] = path
    found: dict[str, str] = {}
    for job_id, said in queries.active(ids).items():
        if said.nodes and said.meaning is not None and not said.meaning.over:
            found |= dict.fromkeys(queries.host_names(said.nodes), ids[job_id].name)
    return found
