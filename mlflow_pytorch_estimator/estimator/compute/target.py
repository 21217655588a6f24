"""Compute targets: named clusters, found or created by name.

A compute target is a stored definition (``clusters``); what nodes it has at the moment is its scheduler's to say.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mlflow_pytorch_estimator import clusters, jobdir
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.estimator.compute import configuration
from mlflow_pytorch_estimator.estimator.compute.attaching import AttachConfiguration
from mlflow_pytorch_estimator.estimator.compute.configuration import ProvisioningConfiguration
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers import load_scheduler

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.compute.cluster import GpuCluster

_logger = logging.getLogger(__name__)


class HasHome(Protocol):
    """What is needed of a workspace."""

    @property
    def home(self) -> Path:
        """Where compute targets and job directories are kept."""

    @property
    def scheduler(self) -> str:
        """Where the nodes of compute targets come from that name no scheduler."""

    @property
    def scheduler_options(self) -> Mapping[str, Any]:
        """The options that go with it."""


class ComputeTarget:
    """A compute target by name; ``ComputeTarget(workspace, name)`` raises ComputeTargetException if there is none."""

    type: ClassVar[str]
    workspace: HasHome
    name: str
    _cluster: Cluster

    def __new__(cls, workspace: HasHome, name: str) -> GpuCluster:
        """The object for what is stored under that name."""
        from mlflow_pytorch_estimator.estimator.compute.cluster import GpuCluster  # both are built on this class
        from mlflow_pytorch_estimator.estimator.compute.slurm_cluster import SlurmCluster

        with at_home(workspace):
            found = clusters.find(name) if isinstance(name, str) else None
        made = object.__new__(SlurmCluster if found is not None and found.scheduler == "slurm" else GpuCluster)
        made.workspace = workspace
        made.name = name
        made.refresh_state()
        return made

    @staticmethod
    def create(workspace: HasHome, name: str, provisioning_configuration: ProvisioningConfiguration) -> GpuCluster:
        """Store a new compute target; one that exists already with the same settings is returned as it is."""
        if not isinstance(provisioning_configuration, ProvisioningConfiguration):
            raise ComputeTargetException(
                f"provisioning_configuration is {provisioning_configuration!r}; "
                "make one with AmlCompute.provisioning_configuration(...)"
            )
        with at_home(workspace):
            wanted = provisioning_configuration.named(name, workspace.scheduler, workspace.scheduler_options)
            notices = load_scheduler(wanted.scheduler).check_cluster(wanted)
            stored = clusters.create(wanted)
        differing = configuration.differences(stored, wanted)
        if differing:
            raise ComputeTargetException(
                f"compute target {name} exists already with {', '.join(differing)}; "
                "update it to change the scale, or delete it to make room for another"
            )
        for notice in notices:
            _logger.warning("%s", notice)
        return ComputeTarget(workspace, name)

    @staticmethod
    def attach(workspace: HasHome, name: str, attach_configuration: AttachConfiguration) -> GpuCluster:
        """Store a cluster that exists on its own under a name; raises ComputeTargetException when it cannot be seen."""
        if not isinstance(attach_configuration, AttachConfiguration):
            raise ComputeTargetException(
                f"attach_configuration is {attach_configuration!r}; "
                "make one with SlurmCluster.attach_configuration(partition=...)"
            )
        with at_home(workspace):
            stored = clusters.create(attach_configuration.named(name))
        if not stored.attached or stored.scheduler_options != dict(attach_configuration.options):
            raise ComputeTargetException(
                f"compute target {name} exists already and is another one; choose another name"
            )
        return ComputeTarget(workspace, name)

    @staticmethod
    def list(workspace: HasHome) -> builtins.list[GpuCluster]:
        """All compute targets of the workspace, by name."""
        with at_home(workspace):
            names = [cluster.name for cluster in clusters.every()]
        return [ComputeTarget(workspace, name) for name in names]

    @property
    def tags(self) -> dict[str, str]:
        """As given at creation."""
        return dict(self._cluster.tags)

    @property
    def description(self) -> str | None:
        """As given at creation."""
        return self._cluster.description

    @property
    def created_on(self) -> datetime:
        """When it was created, in UTC."""
        return datetime.fromtimestamp(self._cluster.created, timezone.utc)

    def refresh_state(self) -> None:
        """Read the definition again; raises ComputeTargetException if it has gone."""
        self._cluster = self._load()

    def delete(self) -> None:
        """Forget the compute target; refused while jobs of it are being prepared, wait or run."""
        if self._cluster.attached:
            raise ComputeTargetException(f"compute target {self.name} was attached, not created here; use detach()")
        self._forget()

    def detach(self) -> None:
        """Forget a compute target that was attached; one that was created here is deleted instead."""
        if not self._cluster.attached:
            raise ComputeTargetException(f"compute target {self.name} was created here, not attached; use delete()")
        self._forget()

    def get_active_runs(self) -> builtins.list[str]:
        """Ids of the runs whose jobs are being prepared, wait or run here, oldest first."""
        with at_home(self.workspace):
            return clusters.active_runs(self.name)

    def _forget(self) -> None:
        active = self.get_active_runs()
        if active:
            raise ComputeTargetException(
                f"compute target {self.name} has {len(active)} unfinished runs ({', '.join(active[:5])}"
                f"{', ...' if len(active) > 5 else ''}); cancel them or wait for them first"
            )
        with at_home(self.workspace):
            if not clusters.remove(self.name):
                raise missing(self.name)

    def _exists(self) -> bool:
        with at_home(self.workspace):
            return clusters.find(self.name) is not None

    def _load(self) -> Cluster:
        name = configuration.check_name(self.name)
        with at_home(self.workspace):
            found = clusters.find(name)
            if found is None:
                raise missing(name)
            return found


@contextmanager
def at_home(workspace: HasHome) -> Iterator[None]:
    """What is done inside finds the workspace's compute targets and jobs."""
    home = getattr(workspace, "home", None)
    if not isinstance(home, Path):
        raise ComputeTargetException(f"workspace is {workspace!r}; pass a Workspace")
    try:
        with jobdir.at_home(home):
            yield
    except ConfigError as error:
        raise ComputeTargetException(str(error)) from error
    except OSError as error:
        raise ComputeTargetException(f"cannot keep compute targets under {home}: {error.strerror}") from error


def missing(name: str) -> ComputeTargetException:
    """There is no such compute target."""
    return ComputeTargetException(
        f"there is no compute target {name!r}; create it with `gpu-cluster compute create`, or with "
        "ComputeTarget.create(workspace, name, AmlCompute.provisioning_configuration(...))"
    )
