"""What processes that were killed have left behind, put right by whoever comes next."""

from __future__ import annotations

import logging

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import alljobs, jobdir, snapshots, tracking
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.reconcile import reconcile, settle
from mlflow_pytorch_estimator.tracking import Stores

_logger = logging.getLogger(__name__)


def tidy(stores: Stores) -> None:
    """End what killed submitters have left; remove old jobs, and snapshots that no job needs."""
    if alljobs.sweep(bury=tracking.end_orphan):
        snapshots.prune(jobdir.home() / "snapshots", alljobs.snapshots_in_use())
    for directory in alljobs.abandoned():
        try:
            settle(directory)
            if tracking.stores_of(directory.job) == stores:  # nobody should wait for the server of another job
                reconcile(directory, stores)
        except (GpuClusterError, MlflowException, OSError) as error:
            _logger.warning("cannot end run %s, whoever looks at it next tries again: %s", directory.path.name, error)
