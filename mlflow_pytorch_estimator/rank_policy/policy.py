"""What a process may write: read from its environment, said once on standard error."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_pytorch_estimator import topology

METRICS = "GPU_CLUSTER_RANK_METRICS"
JOB_RUN = "GPU_CLUSTER_RUN_ID"
_RUN = "MLFLOW_RUN_ID"
_DROP, _PREFIX = "drop", "prefix"
MODES = (_DROP, _PREFIX)

# MLflow takes the variable out of the environment at the first `start_run`, and stores may be built later.
_run_at_import = os.environ.get(_RUN)
_told = False
_telling = threading.Lock()


@dataclass(frozen=True)
class RankPolicy:
    """What holds for a rank above 0 of the job that owns the run ``run_id``."""

    rank: int
    run_id: str
    keeps_metrics: bool = False

    @property
    def prefix(self) -> str:
        """What stands before the names of metrics that are kept."""
        return f"rank_{self.rank}/"

    @property
    def notice(self) -> str:
        """The line that a process prints once."""
        if self.keeps_metrics:
            return (
                f"gpu-cluster: rank {self.rank}: its metrics are logged as {self.prefix}NAME; what else it logs to "
                "MLflow is dropped, rank 0 owns the run"
            )
        return (
            f"gpu-cluster: rank {self.rank}: what it logs to MLflow is dropped, rank 0 owns the run "
            '("rank_metrics": "prefix" keeps its metrics)'
        )

    def tell(self) -> None:
        """Print the notice, unless this process has."""
        global _told  # noqa: PLW0603 - once a process, however many stores it has
        with _telling:
            if not _told:
                _told = True
                print(self.notice, file=sys.stderr, flush=True)


def current(environ: Mapping[str, str] | None = None) -> RankPolicy | None:
    """The policy for this process; None if it may write as it likes: rank 0, a world of one, or no job's run."""
    at_import = _run_at_import if environ is None else None
    rank = topology.place(environ).rank
    environ = os.environ if environ is None else environ
    run_id = environ.get(JOB_RUN) or environ.get(_RUN) or at_import
    if not run_id or rank == 0:
        return None
    return RankPolicy(rank, run_id, environ.get(METRICS, _DROP).strip().lower() == _PREFIX)
