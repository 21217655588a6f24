"""One process on one node."""

from __future__ import annotations

from mlflow_pytorch_estimator.launchers.base import RankCommand, entry_point, visible_gpus
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import JobSpec


def launch(job: JobSpec, allocation: Allocation) -> tuple[RankCommand, ...]:
    """The entry point's command, without a word about ranks: it may start some itself, with ``torchrun``."""
    return (RankCommand(rank=0, local_rank=0, argv=entry_point(job), environ=visible_gpus(allocation)),)
