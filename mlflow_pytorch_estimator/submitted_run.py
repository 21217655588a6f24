"""The handle on a submitted job as MLflow knows it: wait, status, cancel."""

from __future__ import annotations

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_pytorch_estimator import console
from mlflow_pytorch_estimator.border import as_execution_exception
from mlflow_pytorch_estimator.errors import RunFailedError, UnknownRunError
from mlflow_pytorch_estimator.handle import JobHandle
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import Stores


class GpuClusterSubmittedRun(JobHandle, SubmittedRun):
    """A job and its MLflow run. Safe to use from several processes at once."""

    def __init__(
        self,
        run_id: str,
        directory: JobDir,
        url: str | None = None,
        *,
        raises: bool = False,
        stores: Stores | None = None,
    ) -> None:
        JobHandle.__init__(self, directory, stores)
        SubmittedRun.__init__(self)
        self._run_id = run_id
        self._raises = raises
        self.url = url

    @classmethod
    def of_run(cls, run_id: str) -> GpuClusterSubmittedRun:
        """The handle for a run that was submitted on this machine, by this or another process."""
        directory = JobDir.of_run(run_id)
        if not directory.exists:
            raise UnknownRunError(f"no job of run {run_id!r} on this machine (looked for {directory.path})")
        return cls(run_id, directory)

    @property
    def run_id(self) -> str:
        """The id of the MLflow run."""
        return self._run_id

    def raising(self) -> GpuClusterSubmittedRun:
        """The same run with a ``wait`` that raises: after a plain False, MLflow writes FAILED over KILLED."""
        return type(self)(self._run_id, self.directory, self.url, raises=True, stores=self.stores)

    def wait(self) -> bool:
        """Stream the job's output until it has ended; True if it completed.

        Raises ``DetachedError`` after Ctrl-C: the job goes on unless a second one follows within 5 s.
        """
        with as_execution_exception():
            outcome = self.follow(console.terminal())
            if outcome.phase is not Phase.COMPLETED and self._raises:
                raise RunFailedError(self.verdict(outcome), self._run_id)
        return outcome.phase is Phase.COMPLETED

    def get_status(self) -> str:
        """MLflow's name for the status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        return reconcile(self.directory, self.stores).mlflow_status
