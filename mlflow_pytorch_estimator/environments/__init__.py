"""With which interpreter and packages a job runs: description -> key -> ready interpreter.

``read_environment`` turns a project's files into an ``EnvironmentSpec``, ``describe`` does so with what a program
lists; ``find_ready`` and ``prepare`` turn that into a ``ReadyEnvironment``. Importing this package imports neither
MLflow nor torch.
"""

from mlflow_pytorch_estimator.environments.build import ReadyEnvironment, find_ready, prepare
from mlflow_pytorch_estimator.environments.described import PackageRequest, SourceNames, describe
from mlflow_pytorch_estimator.environments.framework import framework_requirements, supported_versions
from mlflow_pytorch_estimator.environments.freeze import local_freeze
from mlflow_pytorch_estimator.environments.read import read_environment
from mlflow_pytorch_estimator.environments.runner import BuildCancelled
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec

__all__ = [
    "BuildCancelled",
    "EnvironmentSpec",
    "PackageRequest",
    "ReadyEnvironment",
    "SourceNames",
    "describe",
    "find_ready",
    "framework_requirements",
    "local_freeze",
    "prepare",
    "read_environment",
    "supported_versions",
]
