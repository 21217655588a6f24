"""The scheduler ``slurm``: hands jobs to ``sbatch`` and leaves the rest to the watcher and to the agent on the node."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from mlflow_pytorch_estimator import clusters, processes
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.locks import HeldLock
from mlflow_pytorch_estimator.relay import door
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
from mlflow_pytorch_estimator.schedulers.slurm import (
    adopting,
    arrays,
    broadcast,
    building,
    client,
    dependency,
    kinship,
    nodes,
    options,
    place,
    queries,
    script,
    watcher,
)
from mlflow_pytorch_estimator.spec import JobSpec

_REVIVAL_SECONDS = 20.0
_TAKEN_SECONDS = 60.0
_taken: dict[tuple[str, tuple[str, ...], str | None], float] = {}
"""Until when it is not asked again whether Slurm takes a job: who submits hundreds alike asks once a minute."""


class SlurmScheduler:
    """Runs jobs on a Slurm cluster; stateless, what there is to know is in the job's directory and in Slurm."""

    def anticipate(self) -> None:
        """Nothing takes time."""

    def dismiss(self) -> None:
        """Nothing was begun."""

    def check(self, job: JobSpec) -> None:
        """Refuse options of our own, and what Slurm itself refuses (``sbatch --test-only``)."""
        options.check(job.scheduler_options)
        broadcast.check(job)
        dependency.check(job)
        if job.compute is not None:
            clusters.check_nodes(job.compute, job.resources.node_count)
        if job.container is not None:
            raise ConfigError("the Slurm scheduler runs no images yet: leave out the image, or use the local scheduler")
        if job.distribution.kind == "mpirun":
            raise ConfigError('the Slurm scheduler starts no mpirun yet: "horovod" needs none')
        self._test(job, script.batch_script(job, JobDir.of_run("0" * 32)))

    @staticmethod
    def _test(job: JobSpec, text: str) -> None:
        defaults = options.users_defaults(job.scheduler_options)
        asked = (text, defaults, os.environ.get("SLURM_CONF"))
        if time.monotonic() < _taken.get(asked, 0.0):
            return
        answer = client.run("sbatch", "--test-only", *defaults, patient=True, text=text)
        if answer.code != 0:
            raise ConfigError(f"Slurm does not take the job: {answer.reason}")
        _taken[asked] = time.monotonic() + _TAKEN_SECONDS

    def prepare(
        self,
        job: JobSpec,
        directory: JobDir,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        canceled: Callable[[], bool],
    ) -> None:
        """A job of one node does it."""
        building.prepare(job, directory, environ, say, canceled)

    def submit(self, job: JobSpec, directory: JobDir, lock: HeldLock, environ: Mapping[str, str]) -> str:
        """Hand the job to ``sbatch``; the environment travels with it, in no file of ours and in no script."""
        kinship.note(directory, environ)
        job_id = self._hand_over(job, script.batch_script(job, directory), environ, [lock.fd])
        # Before anybody asks: the watcher finds the job by it, and so does a client when this process is killed.
        directory.write_job_id(job_id)
        watcher.ensure(environ)
        return job_id

    @staticmethod
    def _hand_over(job: JobSpec, text: str, environ: Mapping[str, str], held: Sequence[int]) -> str:
        answer = client.run("sbatch", *_submission(job), environ=environ, patient=True, text=text, held=held)
        job_id = answer.output.rstrip().rpartition("\n")[2].strip()  # some sites greet before it
        if answer.code != 0 or not queries.address(job_id)[0].isdigit():
            raise SchedulerError(f"Slurm has not taken the job: {answer.reason}")
        return job_id

    def check_array(self, job: JobSpec, size: int, limit: int | None) -> None:
        """Refuse what is larger than the site admits, or Slurm itself refuses."""
        if not job.shared_filesystem:
            raise ConfigError("an array needs a file system that the nodes share: submit the runs one by one")
        arrays.check_size(size)
        self._test(job, script.array_script(job, JobDir.of_run("0" * 32), size, limit))

    def submit_array(self, tasks: Sequence[Task], group: JobDir, environ: Mapping[str, str]) -> None:
        """Hand all to ``sbatch`` as one job array."""
        job = tasks[0].job
        for task in tasks:
            kinship.note(task.directory, environ)
        text = script.array_script(job, group, len(tasks), group.job.max_concurrent)
        job_id = self._hand_over(job, text, environ, [task.lock.fd for task in tasks])
        group.write_job_id(job_id)
        for number, task in enumerate(tasks):
            task.directory.write_job_id(arrays.task(job_id, number))
        watcher.ensure(environ)

    def outlook(self, job: JobSpec, directory: JobDir, environ: Mapping[str, str]) -> Outlook:
        """The batch script, and how ``sbatch`` would get it."""
        command = shlex.join(["sbatch", *_submission(job)])
        given = place.without_tasks(client.environment(environ))
        given = door.passed_on(given) if job.relay else given
        given |= {ALLOCATION_VARIABLE: "", JOB_DIRECTORY_VARIABLE: str(directory.path)}
        text = f"{command} <<'END'\n{script.batch_script(job, directory)}END"
        gpus = job.resources.gpus_per_node or 0
        later = (*place.ON_NODES, *(place.OF_GPUS if gpus else ()), *(door.TOLD if job.relay else ()))
        return Outlook(text, given, gpus, later)

    def awaits(self, other: JobDir) -> bool:
        """A job that Slurm has."""
        return other.job.scheduler == watcher.NAME and other.job_id is not None

    def withdraw(self, directory: JobDir) -> None:
        """Take the job out of the queue if it still waits there."""
        if not directory.job_id:
            return
        number, where = queries.address(directory.job_id)
        if arrays.is_task(number):
            arrays.withdraw(number, where)
        else:
            client.run("scancel", *where, "--state=PENDING", number, patient=True)

    def withdraw_array(self, group: JobDir) -> None:
        """Take all tasks out of the queue that still wait there."""
        if group.job_id:
            number, where = queries.address(group.job_id)
            client.run("scancel", *where, "--state=PENDING", number, patient=True)

    def kill(self, directory: JobDir) -> None:
        """Let Slurm end all steps of the job."""
        if directory.job_id:
            number, where = queries.address(directory.job_id)
            client.run("scancel", *where, number, patient=True)

    def looks_after(self, directory: JobDir) -> bool:
        """Whether Slurm still has the job, or nobody can tell; starts a watcher if there is none."""
        try:
            if directory.job_id is None and not adopting.adopt(directory):
                return False
        except SchedulerError:
            return True
        deadline = time.monotonic() + _REVIVAL_SECONDS
        while directory.outcome is None and not directory.alive and time.monotonic() < deadline:
            watcher.ensure(processes.environment())
            time.sleep(0.1)
        return directory.outcome is None

    def allocation(self, environ: Mapping[str, str]) -> Allocation:
        """What Slurm gave to this node."""
        return place.here(environ)

    def check_cluster(self, cluster: Cluster) -> Sequence[str]:
        """Refuse options of our own."""
        options.check(cluster.scheduler_options)
        have, _ = nodes.size(cluster.scheduler_options)
        where = nodes.partition(cluster.scheduler_options)
        notices = []
        if have < cluster.max_nodes:
            notices.append(f"partition {where} has {count(have, 'node')}: {cluster.name} gets no more")
        asked, given = nodes.asked_shape(cluster), nodes.shape(cluster)
        if asked[:2] != given[:2]:
            notices.append(
                f"nodes of partition {where} are smaller than {cluster.vm_size}: those of {cluster.name} get "
                f"{count(given.cpus or 0, 'CPU')} and {count(given.gpus or 0, 'GPU')}"
            )
        return notices

    def node_shape(self, cluster: Cluster) -> NodeShape:
        """What was asked for; of a size by name no more than the partition's nodes have."""
        return nodes.shape(cluster)

    def measured(self, cluster: Cluster) -> Cluster:
        """The cluster as large as the partition is, with nodes of the size that all of its nodes have."""
        return nodes.measured(cluster)

    def cluster_state(self, cluster: Cluster) -> ClusterState:
        """The nodes of the partition."""
        return nodes.cluster_state(cluster)

    def power_up(self, cluster: Cluster, wanted: int) -> None:
        """Have nodes started where the site has power saving."""
        nodes.power_up(cluster, wanted)


def _submission(job: JobSpec) -> tuple[str, ...]:
    """The arguments of ``sbatch`` besides the script's own."""
    return ("--parsable", "--export=ALL", *dependency.arguments(job), *options.users_defaults(job.scheduler_options))
