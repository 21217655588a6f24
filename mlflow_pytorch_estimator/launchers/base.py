"""What a launcher is: a pure function from a job and its nodes to the processes of one node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.topology import Place

LOOPBACK = "127.0.0.1"
_LAUNCHED = "GPU_CLUSTER_LAUNCHED"


@dataclass(frozen=True)
class Address:
    """Where the ranks of a job find each other."""

    host: str
    port: int


@dataclass(frozen=True)
class Meeting:
    """A rendezvous of torch's: a name that no other job uses, and where it is."""

    name: str
    address: Address


@dataclass(frozen=True)
class Keeping:
    """Where keepers below a foreign launcher write: the logs of their ranks, and their records."""

    logs: Path
    records: Path

    def prefix(self) -> tuple[str, ...]:
        """Put before a rank's command."""
        program = str(Path(keeper.__file__).resolve())
        return (sys.executable, "-I", "-S", program, "launched", str(self.logs), str(self.records), "--")


@dataclass(frozen=True)
class Layout:
    """The nodes of a job in their order, and the ranks on each of them."""

    nodes: tuple[Allocation, ...]
    ranks_per_node: int = 1

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return len(self.nodes) * self.ranks_per_node

    def places(self, node_rank: int) -> tuple[Place, ...]:
        """Where the ranks of one node stand."""
        first = node_rank * self.ranks_per_node
        return tuple(
            Place(first + local_rank, local_rank, self.world_size, node_rank)
            for local_rank in range(self.ranks_per_node)
        )


@dataclass(frozen=True)
class RankCommand:
    """One process to start: its place, its argument list and what it needs in its environment."""

    rank: int
    local_rank: int
    argv: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    """For its environment as well, but what the user has set wins."""
    afterwards: tuple[str, ...] = ()
    """Run when the process has ended, however it did; empty for nothing."""
    launcher: str = ""
    """Name of the program, if the process is no rank but starts some: ``rank`` is then the first of them."""
    key: str = ""
    """Tells several processes apart that may have the same rank one after the other."""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of the process; it notes which variables the launcher has set."""
        ours = {name: value for name, value in self.defaults.items() if name not in given} | self.environ
        return {**given, **ours, _LAUNCHED: " ".join(sorted(ours))}


def outside_of_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a launcher has set: a job that a rank submits has no place in the rank's job."""
    launched = {_LAUNCHED, *environ.get(_LAUNCHED, "").split()}
    return {name: value for name, value in environ.items() if name not in launched}


def entry_point(job: JobSpec) -> tuple[str, ...]:
    """The entry point's command, as MLflow's local backend runs it."""
    return ("bash", "-c", job.command)


def visible_gpus(allocation: Allocation) -> dict[str, str]:
    """The variables that leave a rank the GPUs of the allocation, and no other."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, allocation.gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def threads(allocation: Allocation, ranks_here: int) -> dict[str, str]:
    """Each rank's share of the node's cores, for the libraries that would each take all of them."""
    # MKL, OpenBLAS and NumExpr follow this variable too; one of their own could contradict what the user set here.
    return {"OMP_NUM_THREADS": str(max(1, allocation.cores // ranks_here))}
