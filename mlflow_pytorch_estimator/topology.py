"""The place of this process among the ranks of its job, read from the environment.

The first family of variables that says it completely wins: this package's own, torch's, Horovod's, Open MPI's, and
Slurm's. A family that is half set, not numeric or contradicts itself is as good as none: a stale ``RANK=`` in
somebody's shell must not silence a run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

RANK = "GPU_CLUSTER_RANK"
LOCAL_RANK = "GPU_CLUSTER_LOCAL_RANK"
WORLD_SIZE = "GPU_CLUSTER_WORLD_SIZE"
NODE_RANK = "GPU_CLUSTER_NODE_RANK"


@dataclass(frozen=True)
class Place:
    """Where a process stands; counted from zero, ``world_size`` is the number of ranks."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    node_rank: int = 0

    def environment(self) -> dict[str, str]:
        """The variables with which a launcher tells a rank its place."""
        return {
            RANK: str(self.rank),
            LOCAL_RANK: str(self.local_rank),
            WORLD_SIZE: str(self.world_size),
            NODE_RANK: str(self.node_rank),
        }


# rank, world size, local rank, node rank; the first variable that is set counts. Rank and size are the ones needed.
_FAMILIES: tuple[tuple[tuple[str, ...], ...], ...] = (
    ((RANK,), (WORLD_SIZE,), (LOCAL_RANK,), (NODE_RANK,)),
    (("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",), ("GROUP_RANK", "NODE_RANK")),
    (("HOROVOD_RANK",), ("HOROVOD_SIZE",), ("HOROVOD_LOCAL_RANK",), ("HOROVOD_CROSS_RANK",)),
    (
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_NODE_RANK",),
    ),
    (("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",), ("SLURM_NODEID",)),
)


def place(environ: Mapping[str, str] | None = None) -> Place:
    """The place of the process with this environment (default: of this one)."""
    if environ is None:
        environ = os.environ
        elastic = _elastic_place() if "HOROVOD_ELASTIC" in environ else None
        if elastic is not None:
            return elastic
    for family in _FAMILIES:
        if family[0] == ("SLURM_PROCID",) and not _is_srun_task(environ):
            continue
        found = _read(environ, family)
        if found is not None:
            return found
    return Place()


def _elastic_place() -> Place | None:
    """Where Horovod itself says that this process stands now: its variables tell only where it began."""
    hvd = sys.modules.get("horovod.torch")
    if hvd is None or not hvd.is_initialized():
        return None
    return Place(hvd.rank(), hvd.local_rank(), hvd.size(), hvd.cross_rank())


def rank() -> int:
    """The rank of this process in its job; 0 outside of any."""
    return place().rank


def local_rank() -> int:
    """The rank of this process on its node."""
    return place().local_rank


def world_size() -> int:
    """The number of ranks of the job."""
    return place().world_size


def node_rank() -> int:
    """The number of the node on which this process runs."""
    return place().node_rank


def is_rank_zero() -> bool:
    """Whether this process owns what the ranks share, such as the metrics of the run."""
    return rank() == 0


def _is_srun_task(environ: Mapping[str, str]) -> bool:
    # A batch script is no task, yet it has SLURM_PROCID=0; its step has no number or a huge one.
    step = _number(environ.get("SLURM_STEP_ID"))
    return step is not None and step < 0xFFFFFFF0


def _read(environ: Mapping[str, str], family: tuple[tuple[str, ...], ...]) -> Place | None:
    texts = [next((environ[name] for name in names if name in environ), None) for names in family]
    numbers = [_number(text) for text in texts]
    rank, size, local, node = numbers
    if rank is None or size is None or rank >= size:
        return None
    if any(text is not None and number is None for text, number in zip(texts, numbers, strict=True)):
        return None
    # Torch's old launcher set no local rank. With one node it is the rank.
    return Place(rank, local if local is not None else 0 if node else rank, size, node or 0)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
