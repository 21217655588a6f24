"""With which interpreter and packages a job runs: description -> key -> ready interpreter.

``read_environment`` turns a project's files into an ``EnvironmentSpec``, ``describe`` does so with what a program
lists; ``find_ready`` and ``prepare`` turn that into a ``ReadyEnvironment``. Importing this package imports neither
MLflow nor torch.
"""

from mlflow_pytorch_estimator.environments.build import ReadyEnvironment, claim, find_ready, prepare
from mlflow_pytorch_estimator.environments.description.described import PackageRequest, SourceNames, describe
from mlflow_pytorch_estimator.environments.description.framework import framework_requirements, supported_versions
from mlflow_pytorch_estimator.environments.description.read import read_environment
from mlflow_pytorch_estimator.environments.freeze import local_freeze
from mlflow_pytorch_estimator.environments.runner import BuildCancelled
from mlflow_pytorch_estimator.environments.spec import BUILT, EnvironmentSpec

__all__ = [
    "BUILT",
    "BuildCancelled",
    "EnvironmentSpec",
    "PackageRequest",
    "ReadyEnvironment",
    "SourceNames",
    "claim",
    "describe",
    "find_ready",
    "framework_requirements",
    "local_freeze",
    "prepare",
    "read_environment",
    "supported_versions",
]
