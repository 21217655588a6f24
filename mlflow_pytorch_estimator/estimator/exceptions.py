"""The estimator's errors, under the names that scripts written for the original catch.

GpuClusterError
├── UserErrorException               an argument that cannot be right; raised before anything is created
│   ├── TrainingException            ... in the description of a training job
│   ├── WorkspaceException           a workspace that is not there, or exists already
│   ├── ComputeTargetException       a compute target that is not there, cannot be had, or did not come in time
│   └── ModelPathNotFoundException   a path that the run has no files under
├── ModelNotFoundException           no such model, or no such version of it
├── RunEnvironmentException          ``Run.get_context(allow_offline=False)`` outside of a run
└── ExperimentExecutionException     a run that ended Failed or Canceled; ``run_id`` names it
"""

from __future__ import annotations

from mlflow_pytorch_estimator.errors import GpuClusterError, RunFailedError


class UserErrorException(GpuClusterError):
    """An argument is missing, of the wrong kind, or contradicts another."""


class TrainingException(UserErrorException):
    """The description of a training job cannot be right."""


class WorkspaceException(UserErrorException):
    """The workspace or its ``config.json`` is not there, not readable, or exists already."""


class ComputeTargetException(UserErrorException):
    """The compute target does not exist, cannot be created, or did not become ready."""


class ModelPathNotFoundException(UserErrorException):
    """The run has no file or folder of that name."""


class ModelNotFoundException(GpuClusterError):
    """The registry has no such model or version."""


class RunEnvironmentException(GpuClusterError):
    """There is no run to return, and an offline run was not wanted."""


class ExperimentExecutionException(RunFailedError):
    """The job of a run ended Failed or Canceled; ``run_id`` names the run."""
