"""Where this node of a job stands, from what Slurm puts into the environment; and how to start agents on the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.schedulers.base import Allocation, Others
from mlflow_pytorch_estimator.schedulers.slurm import queries

_LOOPBACK = "127."
_OF_TASKS = (
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE"),
    *("SLURM_GTIDS", "SLURM_TASK_PID", "SLURM_TASKS_PER_NODE", "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NODELIST"),
    *("SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_LAUNCHER_PORT"),
    *("SLURM_SRUN_COMM_HOST", "SLURM_SRUN_COMM_PORT", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_CPUS_PER_TASK"),
)
"""What Slurm tells a task about its place; programs such as Lightning would believe it rather than us."""

ON_NODES = ("ENVIRONMENT", "HOSTNAME", "SLURMD_*", "SLURM_*", "TMPDIR")
"""What Slurm adds on a node, as patterns."""
OF_GPUS = ("GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""What it adds for a job with GPUs besides ``CUDA_VISIBLE_DEVICES``."""


def here(environ: Mapping[str, str]) -> Allocation:
    """This node's part of the job; SchedulerError outside of one."""
    if "SLURM_JOB_ID" not in environ:
        raise SchedulerError("SLURM_JOB_ID is not set: this is no job of Slurm")
    name = environ.get("SLURMD_NODENAME") or socket.gethostname()
    names = _names(environ)
    number = names.index(name) if name in names else 0
    address = _address(name, number)
    cores = environ.get("SLURM_CPUS_ON_NODE", "")
    return Allocation(
        name, (), _gpus(environ), address, interface_of(address), cpu_count=int(cores) if cores.isdigit() else 0
    )


def others(environ: Mapping[str, str], first: Allocation) -> Others | None:
    """The other nodes, each reached by a step of its own: one that is lost can be started again."""
    names = tuple(name for name in _names(environ) if name != first.node)
    cores = f"--cpus-per-task={first.cpu_count}" if first.cpu_count else "--cpus-per-task=1"
    prefix = ("srun", "--nodes=1", "--ntasks=1", cores, "--overlap", "--mpi=none", "--input=none", "--unbuffered")
    untold = ("env", *(word for name in _OF_TASKS for word in ("-u", name)))
    quiet = ("--quiet", "--export=ALL", "--kill-on-bad-exit=0", "--job-name=agent")
    return Others(names, tuple((*prefix, *quiet, f"--nodelist={name}", *untold) for name in names)) if names else None


def without_tasks(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment that does not tell programs that Slurm has placed them: we have."""
    return {name: value for name, value in environ.items() if name not in _OF_TASKS}


def _names(environ: Mapping[str, str]) -> tuple[str, ...]:
    short = environ.get("SLURM_JOB_NODELIST", "")
    return queries.host_names(short) if "[" in short or "," in short else tuple(filter(None, [short]))


def _gpus(environ: Mapping[str, str]) -> tuple[int, ...]:
    """Indices as CUDA counts them here: where Slurm constrains devices it is from 0."""
    listed = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    numbers = [word for word in listed if word]
    if all(word.isdigit() for word in numbers):
        return tuple(map(int, numbers))
    return tuple(range(len(numbers)))


def _address(name: str, number: int) -> str:
    """The address under which other nodes reach this one."""
    for candidate in (name, socket.gethostname()):
        try:
            found = str(socket.gethostbyname(candidate))
        except OSError:
            continue
        if not found.startswith(_LOOPBACK):
            return found
    routed = _routed()
    if routed is not None:
        return routed
    # Several nodes on one machine without a network: each has an address of its own in 127.0.0.0/8.
    return "127.0.0.1" if number == 0 else f"127.0.{100 + number // 100}.{100 + number % 100}"


def _routed() -> str | None:
    """The address from which this machine speaks to others; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of documentation, RFC 5737
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith(_LOOPBACK) else found


def interface_of(address: str) -> str:
    """The network interface that has an address."""
    if address.startswith(_LOOPBACK):
        return "lo"
    import psutil

    for interface, addresses in psutil.net_if_addrs().items():
        if any(item.address == address for item in addresses):
            return str(interface)
    return os.environ.get("GLOO_SOCKET_IFNAME", "lo")
