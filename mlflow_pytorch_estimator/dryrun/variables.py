"""The names of the environment variables that a job's ranks get, and where each comes from. Never a value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import pairwise

from mlflow_pytorch_estimator import jobenv
from mlflow_pytorch_estimator.containers import inside, starting
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers import horovod, mpirun, single, torchrun
from mlflow_pytorch_estimator.launchers.base import Address, Keeping, Layout, Meeting, RankCommand, outside_of_ranks
from mlflow_pytorch_estimator.schedulers.base import Allocation, Outlook
from mlflow_pytorch_estimator.spec import JobSpec

_NOWHERE = Address("", 0)
_SHELL, _OWN, _BACKEND = "from this shell", "from the project or the estimator", "from the backend"
_LAUNCHER, _SCHEDULER = "from what starts the ranks", "from the scheduler, on the node"
_LATE = frozenset({"PYTHONPATH"})
"""Set for all ranks, by what is put into the job's directory."""
_BY_TORCH = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "GROUP_NAME"),
    *("ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_*", "TORCH_NCCL_*"),
)
_BY_MPI = ("OMPI_*", "PMIX_*", "PMI_*", "PRTE_*", "ORTE_*")


def names(job: JobSpec, directory: JobDir, outlook: Outlook) -> dict[str, tuple[str, ...]]:
    """Who has the last word on them -> names, and patterns of those that are known on the node only."""
    given = {**outlook.environ, **jobenv.attempt_environment(job, directory, 1)}
    environ = jobenv.rank_environment(outside_of_ranks(given), job, directory)
    command = _command(job, directory, outlook)
    final = command.environment(environ)
    there = {*final, *_LATE} if job.container is None else _inside(job, directory, command, environ)
    launcher = there & {*command.environ, *(name for name in command.defaults if name not in environ)}
    own = set(job.environment_variables) - launcher
    shell = {name for name in there - launcher - own - _LATE if os.environ.get(name) == final.get(name)}
    groups: dict[str, Iterable[str]] = {
        _SHELL: shell,
        _OWN: own,
        _BACKEND: there - launcher - own - shell,
        _LAUNCHER: {*launcher, *_of_program(job)},
        _SCHEDULER: outlook.later,
    }
    return {who: tuple(sorted(found)) for who, found in groups.items() if found}


def _command(job: JobSpec, directory: JobDir, outlook: Outlook) -> RankCommand:
    """What starts the first rank, with a node that has its sizes only."""
    node = Allocation("node", (), tuple(range(outlook.gpus)))
    layout = Layout((node,) * job.resources.node_count, job.distribution.processes_per_node)
    kind = job.distribution.kind
    keeping = Keeping(directory.logs, directory.path)
    if kind == "torch":
        return torchrun.launch(job, layout, 0, Meeting("", _NOWHERE), keeping)[0]
    if kind == "mpirun":
        return mpirun.launch(job, layout, keeping)[0]
    elastic = job.distribution.min_nodes is not None
    if kind == "horovod" and (elastic or layout.world_size > 1):
        return horovod.launch(job, layout, 0, _NOWHERE)[0]
    return single.launch(job, node)[0]


def _of_program(job: JobSpec) -> tuple[str, ...]:
    """What a foreign launcher adds by itself."""
    elastic = ("HOROVOD_ELASTIC",) if job.distribution.min_nodes is not None else ()
    return {"torch": _BY_TORCH, "mpirun": _BY_MPI, "horovod": elastic}.get(job.distribution.kind, ())


def _inside(job: JobSpec, directory: JobDir, command: RankCommand, environ: Mapping[str, str]) -> set[str]:
    """What the runtime of a container is told to pass on."""
    place = Allocation("node", (), ())
    argv = starting.command(job, directory, command, environ, place).argv
    passed = {name for option, name in pairwise(argv) if option == "--env"}
    renamed = {name for name in passed if name.startswith(inside.RENAMED)}  # they have their own names in there
    return (passed - renamed) | set(job.environment_variables)
