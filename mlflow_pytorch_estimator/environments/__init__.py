"""With which interpreter and packages a job runs: description -> key -> ready interpreter.

``read_environment`` turns a project's files into an ``EnvironmentSpec``; ``find_ready`` and ``prepare`` turn
that into a ``ReadyEnvironment``. Importing this package imports neither MLflow nor torch.
"""

from mlflow_pytorch_estimator.environments.build import ReadyEnvironment, find_ready, prepare
from mlflow_pytorch_estimator.environments.freeze import local_freeze
from mlflow_pytorch_estimator.environments.read import read_environment
from mlflow_pytorch_estimator.environments.runner import BuildCancelled
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec

__all__ = [
    "BuildCancelled",
    "EnvironmentSpec",
    "ReadyEnvironment",
    "find_ready",
    "local_freeze",
    "prepare",
    "read_environment",
]
