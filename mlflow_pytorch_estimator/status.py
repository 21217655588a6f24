"""The phases of a job, and what MLflow calls them."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """Where a job is, as the tag ``gpu_cluster.status`` says it."""

    PREPARING = "Preparing"
    """The environment is being built and inputs are being fetched; no node is held."""
    QUEUED = "Queued"
    """The scheduler has the job and has no room for it yet."""
    SCALING = "Scaling"
    """The scheduler is starting nodes for the job."""
    RUNNING = "Running"
    """The ranks run."""
    FINALIZING = "Finalizing"
    """The ranks have ended; logs and outputs are on their way to the run."""
    COMPLETED = "Completed"
    """Every rank exited with status 0."""
    FAILED = "Failed"
    """A rank failed, or the job ended without a word."""
    CANCELED = "Canceled"
    """Somebody asked the job to end."""

    def __str__(self) -> str:
        return self.value

    @property
    def terminal(self) -> bool:
        """True when nothing follows this phase."""
        return self in _TERMINAL

    @property
    def mlflow_status(self) -> str:
        """The status of the MLflow run in this phase."""
        return _MLFLOW_STATUS[self]


_TERMINAL = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELED})
_MLFLOW_STATUS = {
    Phase.PREPARING: "SCHEDULED",
    Phase.QUEUED: "SCHEDULED",
    Phase.SCALING: "SCHEDULED",
    Phase.RUNNING: "RUNNING",
    Phase.FINALIZING: "RUNNING",
    Phase.COMPLETED: "FINISHED",
    Phase.FAILED: "FAILED",
    Phase.CANCELED: "KILLED",
}
