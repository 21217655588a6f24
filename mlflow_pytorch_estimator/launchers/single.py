"""One process on one node."""

from __future__ import annotations

from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import JobSpec


def launch(job: JobSpec, allocation: Allocation) -> tuple[RankCommand, ...]:
    """The entry point's command, as MLflow's local backend runs it."""
    gpus = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, allocation.gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return (RankCommand(rank=0, local_rank=0, argv=("bash", "-c", job.command), environ=gpus),)
