"""Ending ranks as an agent does it, for tests that start them by themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.nodes.here import Process
from mlflow_pytorch_estimator.ranks import Rank


def end(ranks: Sequence[Rank], grace_seconds: float) -> None:
    """Returns when nothing of them is left."""
    processes = [Process(RankCommand(rank.rank, 0, ()), rank, 0) for rank in ranks]
    for process in processes:
        process.end(grace_seconds)
    while any(rank.exit_code is None for rank in ranks):
        for process in processes:
            process.hurry()
        time.sleep(0.02)
    keeper.kill_descendants()
    for process in processes:
        process.tidy()
