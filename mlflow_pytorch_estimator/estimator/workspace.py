"""``Workspace``: a tracking store, a model registry, and a home for compute targets and job directories."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator import clusters, jobdir
from mlflow_pytorch_estimator.estimator import workspace_config
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException, WorkspaceException
from mlflow_pytorch_estimator.estimator.workspace_config import WorkspaceConfig
from mlflow_pytorch_estimator.tracking import Stores, without_credentials

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.compute.cluster import ComputeTarget, GpuCluster
    from mlflow_pytorch_estimator.estimator.experiment import Experiment
    from mlflow_pytorch_estimator.estimator.models.model import Model
    from mlflow_pytorch_estimator.estimator.runs.run import Run

_logger = logging.getLogger(__name__)


class Workspace:
    """Where experiments, models and compute targets are; by default MLflow's current stores and this machine.

    ``subscription_id`` and ``resource_group`` are those of the original; they name nothing here. ``scheduler``
    (``local`` or ``slurm``) and its options are where compute targets get their nodes that do not name another one.
    """

    def __init__(
        self,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        workspace_name: str | None = None,
        *,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
        home: str | os.PathLike[str] | None = None,
        scheduler: str | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
    ) -> None:
        foreign = {"subscription_id": subscription_id, "resource_group": resource_group}
        config = WorkspaceConfig.checked(
            {**foreign, "workspace_name": workspace_name, "tracking_uri": tracking_uri, "registry_uri": registry_uri}
            | {"home": None if home is None else os.fspath(home)}
            | {"scheduler": scheduler, "scheduler_options": scheduler_options},
            Path.cwd(),
        )
        self._set(config)

    def _set(self, config: WorkspaceConfig) -> None:
        self.name = config.name
        self.stores: Stores = config.stores
        self.home: Path = config.home or jobdir.home()
        self.scheduler = config.scheduler
        self.scheduler_options = dict(config.scheduler_options)
        self._foreign = dict(config.foreign)

    @classmethod
    def _of(cls, config: WorkspaceConfig) -> Workspace:
        made = cls.__new__(cls)
        made._set(config)
        return made

    @property
    def subscription_id(self) -> str:
        """As an old ``config.json`` says it, perhaps empty; it names nothing here."""
        return self._foreign.get("subscription_id", "")

    @property
    def resource_group(self) -> str:
        """As an old ``config.json`` says it, perhaps empty; it names nothing here."""
        return self._foreign.get("resource_group", "")

    @property
    def location(self) -> str:
        """``local``: a workspace is no resource of a cloud."""
        return "local"

    def __repr__(self) -> str:
        return f"Workspace({self.name!r}, tracking_uri={without_credentials(self.get_mlflow_tracking_uri())!r})"

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Workspace:
        """The workspace of a ``config.json``: of the file or folder ``path``, or of the nearest one upward from here.

        It may lie in ``.azureml/`` or ``aml_config/``. Without any, MLflow's current stores and this machine.
        Raises WorkspaceException when ``path`` is given and has none.
        """
        found = workspace_config.locate(path)
        if found is None:
            made = cls()
            _logger.info(
                "no config.json of a workspace from %s upward: using MLflow's current stores (%s) and this machine",
                Path.cwd(),
                without_credentials(made.get_mlflow_tracking_uri()),
            )
            return made
        made = cls._of(workspace_config.read(found))
        _logger.info("workspace %s from %s: %s", made.name, found, without_credentials(made.get_mlflow_tracking_uri()))
        return made

    @classmethod
    def create(
        cls,
        name: str,
        *,
        tracking_uri: str | None = None,
        registry_uri: str | None = None,
        home: str | os.PathLike[str] | None = None,
        scheduler: str | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
        subscription_id: str | None = None,
        resource_group: str | None = None,
    ) -> Workspace:
        """Give a name to a tracking store, a registry and a home, for ``get``; nothing else is created."""
        made = cls(
            subscription_id,
            resource_group,
            name,
            tracking_uri=tracking_uri,
            registry_uri=registry_uri,
            home=home,
            scheduler=scheduler,
            scheduler_options=scheduler_options,
        )
        path = workspace_config.named(name)
        if path.exists() and not exist_ok:
            raise WorkspaceException(
                f"there is a workspace {name!r} already: Workspace.get({name!r}), or exist_ok=True"
            )
        workspace_config.write(path, made._config())
        return made

    @classmethod
    def get(cls, name: str, subscription_id: str | None = None, resource_group: str | None = None) -> Workspace:
        """The workspace that ``create`` gave that name; raises WorkspaceException when there is none."""
        path = workspace_config.named(name)
        if not path.exists():
            known = ", ".join(cls.list()) or "none exists"
            raise WorkspaceException(
                f"there is no workspace {name!r} (known: {known}): Workspace.create(name={name!r})"
            )
        workspace_config.tell_of_foreign({"subscription_id": subscription_id, "resource_group": resource_group})
        return cls._of(workspace_config.read(path))

    @classmethod
    def list(cls) -> dict[str, Workspace]:
        """All that ``create`` has named."""
        return {path.stem: cls._of(workspace_config.read(path)) for path in workspace_config.every_named()}

    def delete(self) -> None:
        """Forget the name; runs, models, compute targets and files stay."""
        path = workspace_config.named(self.name)
        if not path.exists():
            raise WorkspaceException(
                f"workspace {self.name!r} was not made by Workspace.create: there is nothing to forget"
            )
        path.unlink()

    def write_config(self, path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> None:
        """Write ``.azureml/config.json`` below ``path`` (the working directory), for ``from_config``."""
        folder = Path(path or ".").absolute() / ".azureml"
        workspace_config.write(folder / (file_name or "config.json"), self._config())

    def get_details(self) -> dict[str, Any]:
        """Name, stores without passwords, home and what is known there, as a dict of JSON types."""
        return {
            "name": self.name,
            "trackingUri": without_credentials(self.get_mlflow_tracking_uri()),
            "registryUri": without_credentials(self.stores.registry_uri),
            "home": str(self.home),
            "scheduler": self.scheduler,
            "computeTargets": sorted(self.compute_targets),
        }

    def get_mlflow_tracking_uri(self) -> str:
        """For ``mlflow.set_tracking_uri``."""
        return self.stores.tracking_uri

    @property
    def experiments(self) -> dict[str, Experiment]:
        """The active experiments by name."""
        from mlflow_pytorch_estimator.estimator.experiment import Experiment

        return {item.name: item for item in Experiment.list(self)}

    @property
    def models(self) -> dict[str, Model]:
        """The newest version of each registered model by name."""
        from mlflow_pytorch_estimator.estimator.models.model import Model

        return {model.name: model for model in Model.list(self, latest=True)}

    @property
    def compute_targets(self) -> dict[str, ComputeTarget]:
        """The compute targets by name."""
        from mlflow_pytorch_estimator.estimator.compute.cluster import ComputeTarget

        return {target.name: target for target in ComputeTarget.list(self)}

    def get_default_compute_target(self, type: str = "gpu") -> GpuCluster:  # noqa: A002 - the original's name
        """The target ``gpu-cluster`` or ``cpu-cluster``; made when there is none.

        It is one node of this machine then, or all nodes that the workspace's Slurm gives by default.
        """
        from mlflow_pytorch_estimator.estimator.compute.cluster import AmlCompute, ComputeTarget
        from mlflow_pytorch_estimator.schedulers.machine import capacity

        kind = type.lower() if isinstance(type, str) else type
        if kind not in {"cpu", "gpu"}:
            raise ComputeTargetException(f"type is {type!r}; it must be 'cpu' or 'gpu'")
        name = f"{kind}-cluster"
        with self.at_home():
            known = clusters.find(name) is not None
        if known:
            return ComputeTarget(self, name)
        if self.scheduler == "slurm":
            from mlflow_pytorch_estimator.estimator.compute.slurm_cluster import SlurmCluster

            return ComputeTarget.attach(
                self, name, SlurmCluster.attach_configuration(scheduler_options=self.scheduler_options)
            )
        here = capacity(os.environ)
        gpus = len(here.gpus) if kind == "gpu" else 0
        config = AmlCompute.provisioning_configuration(
            cpus_per_node=len(here.cpus), gpus_per_node=gpus, min_nodes=0, max_nodes=1
        )
        return ComputeTarget.create(self, name, config)

    def get_run(self, run_id: str) -> Run:
        """The run of that id."""
        from mlflow_pytorch_estimator.estimator.runs.run import Run

        return Run.get(self, run_id)

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Within it, the package's files are those of this workspace's home."""
        with jobdir.at_home(self.home):
            yield

    def _config(self) -> WorkspaceConfig:
        return WorkspaceConfig(self.name, self.stores, self.home, self._foreign, self.scheduler, self.scheduler_options)
