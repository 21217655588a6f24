"""What ``attach_configuration`` returns: a cluster that exists already, whose nodes are as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.estimator.compute.configuration import check_name
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers import load_scheduler


@dataclass(frozen=True)
class AttachConfiguration:
    """A cluster of an existing scheduler."""

    scheduler: str
    options: Mapping[str, Any]

    def named(self, name: str) -> Cluster:
        """The definition of a compute target of that name, with the sizes that its scheduler tells."""
        cluster = Cluster(check_name(name), self.scheduler, dict(self.options), attached=True)
        try:
            load_scheduler(self.scheduler).check_cluster(cluster)
            return load_scheduler(self.scheduler).measured(cluster)
        except SchedulerError as error:
            raise ComputeTargetException(f"{name} cannot be attached: {error}") from error
