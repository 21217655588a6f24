"""Ranks that Open MPI's ``mpirun`` starts, for a Horovod that was built with MPI.

Here all ranks are on the machine of the first node. Each stands under a keeper of its own, as below ``torchrun``.
"""

from __future__ import annotations

import os

from mlflow_pytorch_estimator.launchers.base import Keeping, Layout, RankCommand, entry_point, threads, visible_gpus
from mlflow_pytorch_estimator.spec import JobSpec


def launch(job: JobSpec, layout: Layout, keeping: Keeping) -> tuple[RankCommand, ...]:
    """The one ``mpirun`` of a job."""
    node = layout.nodes[0]
    root = ("--allow-run-as-root",) if os.geteuid() == 0 else ()
    argv = (
        # Isolated: it is to look for no ssh, since it starts nothing elsewhere.
        *("mpirun", *root, "--mca", "plm", "isolated", "--oversubscribe", "--bind-to", "none"),
        *("--host", f"localhost:{layout.world_size}"),
        *("-np", str(layout.world_size)),
        *keeping.prefix(),
        *entry_point(job),
    )
    environ = {**visible_gpus(node), "HOROVOD_CONTROLLER": "mpi", "HOROVOD_CPU_OPERATIONS": "mpi"}
    return (RankCommand(0, 0, argv, environ, threads(node, layout.ranks_per_node), launcher="mpirun"),)
