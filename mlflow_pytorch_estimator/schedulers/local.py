"""The embedded scheduler: this machine, no daemon, no set-up.

``submit`` takes a place in the queue and starts one process in its own session (``local_node``), which waits for its
turn and then becomes the agent. That process outlives the one that submitted.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlflow_pytorch_estimator import clusters, detached, jobdir, locks, processes
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers import pool
from mlflow_pytorch_estimator.schedulers.base import (
    ALLOCATION_VARIABLE,
    JOB_DIRECTORY_VARIABLE,
    Allocation,
    ClusterState,
    NodeShape,
    Outlook,
    Task,
    count,
)
from mlflow_pytorch_estimator.schedulers.machine import Capacity, capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request
from mlflow_pytorch_estimator.schedulers.standby import Standby
from mlflow_pytorch_estimator.spec import JobSpec, Resources

_MODULE = "mlflow_pytorch_estimator.schedulers.local_node"
_NO_OTHER_MACHINE = "prepare_on is 'node', but the local scheduler has this machine alone: leave it out"


class LocalScheduler:
    """Runs jobs on this machine, as many at once as its cores and GPUs allow."""

    def __init__(self) -> None:
        self._standby: Standby | None = None

    def anticipate(self) -> None:
        """Start the process that will become the agent."""
        self._standby = Standby(_MODULE)

    def dismiss(self) -> None:
        """Let a process that was not needed end."""
        if self._standby is not None:
            self._standby.close()
            self._standby = None

    def check(self, job: JobSpec) -> None:
        """Refuse what this machine or the job's cluster does not have."""
        _refuse_options(job.scheduler_options)
        if not job.shared_filesystem:
            raise ConfigError("shared_filesystem is for clusters: the local scheduler runs jobs here, leave it out")
        if job.prepare_on == "node":
            raise ConfigError(_NO_OTHER_MACHINE)
        here = capacity(os.environ)
        cpus, gpus = _per_node(job.resources, here)
        if gpus > len(here.gpus):
            raise ConfigError(
                f"gpus_per_node is {gpus}, but {_place()} has {count(len(here.gpus), 'GPU')}; "
                "ask for fewer, or for 0 to run on the CPU"
            )
        if cpus > len(here.cpus):
            raise ConfigError(
                f"cpus_per_node is {cpus}, but {_place()} has {count(len(here.cpus), 'CPU')}; ask for fewer"
            )
        memory = job.resources.memory_gb_per_node
        if memory is not None and here.memory_gb is not None and memory > here.memory_gb:
            raise ConfigError(
                f"memory_gb_per_node is {memory:g}, but {_place()} has {here.memory_gb:.1f} GiB; ask for less"
            )
        if job.compute is not None:
            clusters.check_nodes(job.compute, job.resources.node_count)
        _check_ranks(job, request(job.resources, here).gpus)

    def check_cluster(self, cluster: Cluster) -> Sequence[str]:
        """Refuse options; say what simulated nodes lack of what was asked for."""
        _refuse_options(cluster.scheduler_options)
        here = capacity(os.environ)
        shape = pool.node_shape(cluster, here)
        cpus, gpus = shape.cpus or 0, shape.gpus or 0
        if cpus >= (cluster.cpus_per_node or 0) and gpus >= (cluster.gpus_per_node or 0):
            return ()
        # Memory is not worth a line of its own: it is counted, but nothing is taken from a job that needs more.
        have = f"{count(len(here.cpus), 'CPU')} and {count(len(here.gpus), 'GPU')}"
        get = f"{count(cpus, 'CPU')} and {count(gpus, 'GPU')}"
        return (f"{_place()} has {have}: nodes of {cluster.name} get {get}",)

    def node_shape(self, cluster: Cluster) -> NodeShape:
        """What was asked for, as far as this machine has it."""
        return pool.node_shape(cluster, capacity(os.environ))

    def measured(self, cluster: Cluster) -> Cluster:
        """Nothing here exists on its own: a cluster is what was asked for."""
        return cluster

    def cluster_state(self, cluster: Cluster) -> ClusterState:
        """The simulated nodes, from the machine's queue."""
        occupants, released = _machine_queue().occupants(cluster.name)
        nodes = pool.nodes(cluster, occupants, released, time.time())
        return ClusterState(nodes, len(nodes))

    def power_up(self, cluster: Cluster, wanted: int) -> None:
        """Simulated nodes come at once."""
        _machine_queue().power_up(cluster, wanted)

    def prepare(
        self,
        job: JobSpec,
        directory: JobDir,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        canceled: Callable[[], bool],
    ) -> None:
        """There is no other machine."""
        raise SchedulerError(_NO_OTHER_MACHINE)

    def submit(self, job: JobSpec, directory: JobDir, lock: locks.HeldLock, environ: Mapping[str, str]) -> str:
        """Take a place in the queue and start the process that waits there."""
        return self._submit(job, directory, lock, environ, request(job.resources, capacity(environ), job.compute))

    def check_array(self, job: JobSpec, size: int, limit: int | None) -> None:
        """Any number of jobs may wait in the queue."""

    def submit_array(self, tasks: Sequence[Task], group: JobDir, environ: Mapping[str, str]) -> None:
        """Take a place in the queue for each."""
        limit = group.job.max_concurrent
        for task in tasks:
            wanted = request(task.job.resources, capacity(environ), task.job.compute)
            wanted = replace(wanted, array=task.job.array, array_limit=limit) if limit else wanted
            job_id = self._submit(task.job, task.directory, task.lock, environ, wanted)
            task.directory.write_job_id(job_id)
            self.dismiss()  # a standby becomes the agent of one job

    def _submit(
        self, job: JobSpec, directory: JobDir, lock: locks.HeldLock, environ: Mapping[str, str], wanted: Request
    ) -> str:
        ticket = Queue(queue_root(environ)).enter(job.run_id, wanted)
        fds = (lock.fd, ticket.lock.fd)
        argv = [str(directory.path), str(ticket.path)]
        try:
            if self._standby is not None:
                self._standby.begin(argv, directory.agent_log, directory.path, environ, fds)
            else:
                command = [sys.executable, "-m", _MODULE, *argv, *map(str, fds)]
                detached.spawn(command, directory.agent_log, directory.path, environ, fds)
        except OSError as error:
            raise SchedulerError(f"cannot start the job's agent: {error}") from error
        finally:
            ticket.lock.close()
        return f"local-{int(ticket.path.name.partition('-')[0])}"

    def outlook(self, job: JobSpec, directory: JobDir, environ: Mapping[str, str]) -> Outlook:
        """The place in the queue, and the agent that would wait there."""
        here = capacity(environ)
        asked = request(job.resources, here, job.compute)
        command = shlex.join([sys.executable, "-m", _MODULE, str(directory.path), "TICKET"])
        given = {**environ, ALLOCATION_VARIABLE: "", JOB_DIRECTORY_VARIABLE: str(directory.path)}
        return Outlook(f"{_described(asked, here)}\n{command}", given, asked.gpus // asked.nodes)

    def awaits(self, other: JobDir) -> bool:
        """A job has no place in the queue before those it waits for have completed."""
        return False

    def withdraw(self, directory: JobDir) -> None:
        """Its agent waits in the queue and sees the request."""

    def withdraw_array(self, group: JobDir) -> None:
        """So do those of an array."""

    def looks_after(self, directory: JobDir) -> bool:
        """A job here lives as long as a process of it does, which holds its lock."""
        return False

    def kill(self, directory: JobDir) -> None:
        """SIGKILL the agent; its keepers then end everything that it started."""
        processes.kill_recorded(directory.agent, signal.SIGKILL)

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        """What the queue granted."""
        granted = Allocation.from_environ(environ)
        if granted is None:
            raise SchedulerError(f"{ALLOCATION_VARIABLE} is not set: this is no job of the local scheduler")
        return granted


def request(resources: Resources, here: Capacity, compute: str | None = None) -> Request:
    """Counts for a description, all nodes together: by default the whole machine, or the cores that go with the GPUs.

    Several nodes are simulated: they share what is here.
    """
    nodes = resources.node_count
    cpus, gpus = _per_node(resources, here)
    memory = (resources.memory_gb_per_node or 0.0) * nodes
    return Request(
        cpus=pool.total(cpus, nodes, len(here.cpus)),
        gpus=pool.total(gpus, nodes, len(here.gpus)),
        nodes=nodes,
        pool=compute,
        memory_gb=memory if here.memory_gb is None else min(memory, here.memory_gb),
        low_priority=resources.low_priority,
    )


def _per_node(resources: Resources, here: Capacity) -> tuple[int, int]:
    gpus = len(here.gpus) if resources.gpus_per_node is None else resources.gpus_per_node
    return pool.cores_with(gpus, here) if resources.cpus_per_node is None else resources.cpus_per_node, gpus


def _described(asked: Request, here: Capacity) -> str:
    """What stands on a ticket, for people."""
    parts = [f"{asked.cpus} of {count(len(here.cpus), 'CPU')}", f"{asked.gpus} of {count(len(here.gpus), 'GPU')}"]
    memory = f"{asked.memory_gb:g} GiB of memory set aside" if asked.memory_gb else ""
    nodes = f"shared by {asked.nodes} simulated nodes" if asked.nodes > 1 else ""
    pool_words = f"{count(asked.nodes, 'node')} of {asked.pool}" if asked.pool else ""
    order = "after jobs of normal priority" if asked.low_priority else ""
    words = ", ".join(filter(None, [*parts, memory, nodes, pool_words, order]))
    return f"a place in the queue of {_place()}: {words}"


def queue_root(environ: Mapping[str, str]) -> Path:
    """The machine's queue; inside a job the job's own, so that its child jobs share what it was given."""
    outer = environ.get(JOB_DIRECTORY_VARIABLE) if environ.get(ALLOCATION_VARIABLE) else None
    return JobDir(Path(outer)).queue if outer else jobdir.home() / "queue"


def _machine_queue() -> Queue:
    """Not the one inside a job: a cluster's nodes are the machine's."""
    return Queue(jobdir.home() / "queue")


def _refuse_options(options: Mapping[str, object]) -> None:
    if options:
        raise ConfigError(f"the local scheduler has no option {sorted(options)[0]!r}")


def _check_ranks(job: JobSpec, gpus: int) -> None:
    """Refuse several ranks on one GPU, and a launcher that is not there."""
    nodes, per_node = job.resources.node_count, job.distribution.processes_per_node
    if gpus and job.distribution.world_size(nodes) > gpus:
        raise ConfigError(
            f"{nodes} x {per_node} ranks are more than the {count(gpus, 'GPU')} that {_place()} has for them; "
            "ask for fewer, or set gpus_per_node to 0 to run on the CPU"
        )
    if job.distribution.kind == "mpirun" and not (shutil.which("mpirun") and shutil.which("mpicxx")):
        raise ConfigError(
            "mpirun and mpicxx are not both on PATH: apt install openmpi-bin libopenmpi-dev, "
            'or use "horovod", which needs no MPI'
        )


def _place() -> str:
    return "the enclosing job" if os.environ.get(ALLOCATION_VARIABLE) else "this machine"
