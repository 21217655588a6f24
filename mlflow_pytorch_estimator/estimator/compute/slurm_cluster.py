"""Partitions of a Slurm cluster as compute targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_pytorch_estimator.estimator.compute.attaching import AttachConfiguration
from mlflow_pytorch_estimator.estimator.compute.cluster import GpuCluster


class SlurmCluster(GpuCluster):
    """A partition of a Slurm cluster. Its nodes are Slurm's: it places jobs, and powers nodes up and down."""

    type = "SlurmCluster"

    @staticmethod
    def attach_configuration(
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        *,
        gpu_type: str | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
    ) -> AttachConfiguration:
        """Describe a partition for ``ComputeTarget.attach``, by default the site's default one.

        ``scheduler_options`` are further long options of ``sbatch``.
        """
        given = {"partition": partition, "account": account, "qos": qos, "constraint": constraint, "gpu_type": gpu_type}
        named = {name: value for name, value in given.items() if value is not None}
        return AttachConfiguration("slurm", {**named, **(scheduler_options or {})})
