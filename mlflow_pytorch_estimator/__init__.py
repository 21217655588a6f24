"""Train PyTorch on a GPU cluster from MLflow: ``mlflow run . -b gpu-cluster``, or an estimator from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator._version import __version__

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.checkpoint import Checkpoint
    from mlflow_pytorch_estimator.data_input import DataInput
    from mlflow_pytorch_estimator.estimator.compute.cluster import AmlCompute, ComputeTarget, GpuCluster
    from mlflow_pytorch_estimator.estimator.compute.slurm_cluster import SlurmCluster
    from mlflow_pytorch_estimator.estimator.distribution import (
        Gloo,
        Mpi,
        MpiConfiguration,
        Nccl,
        PyTorchConfiguration,
    )
    from mlflow_pytorch_estimator.estimator.exceptions import (
        ComputeTargetException,
        ExperimentExecutionException,
        ModelNotFoundException,
        ModelPathNotFoundException,
        RunEnvironmentException,
        TrainingException,
        UserErrorException,
        WorkspaceException,
    )
    from mlflow_pytorch_estimator.estimator.experiment import Experiment
    from mlflow_pytorch_estimator.estimator.models.model import Model
    from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import CondaDependencies
    from mlflow_pytorch_estimator.estimator.packages.environment import Environment
    from mlflow_pytorch_estimator.estimator.packages.sections import DockerConfiguration
    from mlflow_pytorch_estimator.estimator.pytorch import PyTorch
    from mlflow_pytorch_estimator.estimator.runs.run import Run
    from mlflow_pytorch_estimator.estimator.script_run_config import ScriptRunConfig
    from mlflow_pytorch_estimator.estimator.workspace import Workspace
    from mlflow_pytorch_estimator.models import LoggedOnnxModel, log_model
    from mlflow_pytorch_estimator.topology import is_rank_zero, local_rank, node_rank, rank, world_size

_MODULES = {
    "checkpoint": ("Checkpoint",),
    "data_input": ("DataInput",),
    "estimator.compute.cluster": ("AmlCompute", "ComputeTarget", "GpuCluster"),
    "estimator.compute.slurm_cluster": ("SlurmCluster",),
    "estimator.packages.conda_dependencies": ("CondaDependencies",),
    "estimator.distribution": ("Gloo", "Mpi", "MpiConfiguration", "Nccl", "PyTorchConfiguration"),
    "estimator.packages.environment": ("Environment",),
    "estimator.packages.sections": ("DockerConfiguration",),
    "estimator.exceptions": (
        "ComputeTargetException",
        "ExperimentExecutionException",
        "ModelNotFoundException",
        "ModelPathNotFoundException",
        "RunEnvironmentException",
        "TrainingException",
        "UserErrorException",
        "WorkspaceException",
    ),
    "estimator.experiment": ("Experiment",),
    "estimator.models.model": ("Model",),
    "estimator.pytorch": ("PyTorch",),
    "estimator.runs.run": ("Run",),
    "estimator.script_run_config": ("ScriptRunConfig",),
    "estimator.workspace": ("Workspace",),
    "models": ("LoggedOnnxModel", "log_model"),
    "topology": ("is_rank_zero", "local_rank", "node_rank", "rank", "world_size"),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "AmlCompute",
    "Checkpoint",
    "ComputeTarget",
    "ComputeTargetException",
    "CondaDependencies",
    "DataInput",
    "DockerConfiguration",
    "Environment",
    "Experiment",
    "ExperimentExecutionException",
    "Gloo",
    "GpuCluster",
    "LoggedOnnxModel",
    "Model",
    "ModelNotFoundException",
    "ModelPathNotFoundException",
    "Mpi",
    "MpiConfiguration",
    "Nccl",
    "PyTorch",
    "PyTorchConfiguration",
    "Run",
    "RunEnvironmentException",
    "ScriptRunConfig",
    "SlurmCluster",
    "TrainingException",
    "UserErrorException",
    "Workspace",
    "WorkspaceException",
    "__version__",
    "is_rank_zero",
    "local_rank",
    "log_model",
    "node_rank",
    "rank",
    "world_size",
]


def __getattr__(name: str) -> Any:
    # Loaded on use: importing the package must cost neither MLflow (1.5 s) nor torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
