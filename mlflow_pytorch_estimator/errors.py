"""The errors of the package: one line each, with the remedy in it.

    GpuClusterError
    ├── ConfigError              a backend config or a resource request that cannot be right
    ├── ProjectError             a project that cannot be fetched, read or started
    ├── EnvironmentSpecError     packages described in a way that cannot be built here
    ├── EnvironmentBuildError    the resolver or installer said no; carries its own words
    ├── SchedulerError           the scheduler refused or lost the job
    ├── UnknownRunError          no run, or a run that is not ours
    ├── RunFailedError           the job ended in anything but success
    ├── DetachedError            the user let go of a job that goes on
    ├── DryRunError              a dry run has said what it would have submitted
    ├── CheckpointError          a checkpoint that cannot be saved, or does not fit what is to be restored
    └── OnnxError
        ├── OnnxExportError      the model could not be turned into a valid graph
        └── OnnxParityError      the graph does not compute what the model computes

This module stands on the standard library alone, because the job side imports it before it can afford
MLflow. ``border`` is where these become ``mlflow.exceptions.ExecutionException`` as well.
"""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"://[^/\s@]+@")


def one_line(error: object) -> str:
    """What an error of somebody else says, for a message of ours: without line breaks and passwords of addresses."""
    return _CREDENTIALS.sub("://", " ".join(str(error).split()))


class GpuClusterError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(GpuClusterError):
    """A setting is unknown, of the wrong type or out of range."""


class ProjectError(GpuClusterError):
    """The project cannot be fetched, read or started as asked."""


class EnvironmentSpecError(GpuClusterError):
    """The environment is described in a way that cannot be built here."""


class EnvironmentBuildError(GpuClusterError):
    """The environment could not be installed; the message holds the installer's reason."""


class SchedulerError(GpuClusterError):
    """The scheduler refused the job or does not know it."""


class UnknownRunError(GpuClusterError):
    """There is no such run, or it was not started by this backend."""


class RunFailedError(GpuClusterError):
    """The job of a run ended Failed or Canceled; ``run_id`` names the run."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class DetachedError(GpuClusterError):
    """The user stopped watching; the job of ``run_id`` goes on."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class DryRunError(GpuClusterError):
    """A dry run submitted nothing, so there is no run to return; ``plan`` is what would have been submitted."""

    def __init__(self, message: str, plan: object) -> None:
        super().__init__(message)
        self.plan = plan


class CheckpointError(GpuClusterError):
    """A checkpoint cannot be saved, or does not fit the objects that are to be restored."""


class OnnxError(GpuClusterError):
    """Base of the errors of ``log_model``."""


class OnnxExportError(OnnxError):
    """The model could not be exported to a valid ONNX graph."""


class OnnxParityError(OnnxError):
    """ONNX Runtime and PyTorch disagree by more than the tolerance; nothing was registered."""
