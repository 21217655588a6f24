"""The handle on a submitted job: wait, status, cancel."""

from __future__ import annotations

import signal
import threading
import time

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_pytorch_estimator import console, locks
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.attach import Choice, Follower
from mlflow_pytorch_estimator.border import as_execution_exception
from mlflow_pytorch_estimator.console import Terminal
from mlflow_pytorch_estimator.errors import DetachedError, RunFailedError, UnknownRunError
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.reconcile import lives, reconcile
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import Stores

_SECOND_INTERRUPT_SECONDS = 5.0
_END_MARGIN_SECONDS = 15.0


class GpuClusterSubmittedRun(SubmittedRun):
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
        super().__init__()
        self.stores = stores
        self._run_id = run_id
        self._raises = raises
        self.directory = directory
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

    def cancel(self) -> None:
        """End the job and wait until nothing of it is left; the run is KILLED. Does nothing to one that has ended."""
        self.directory.request_cancel()
        self._cancel_members()
        if self.directory.outcome is None and lives(self.directory):
            scheduler = load_scheduler(self.directory.job.scheduler)
            scheduler.withdraw(self.directory)
            if not self._ended_within(self.directory.job.grace_seconds + _END_MARGIN_SECONDS):
                scheduler.kill(self.directory)
                locks.wait_until_free(self.directory.lock, _END_MARGIN_SECONDS)
        reconcile(self.directory, self.stores)
        locks.wait_until_free(self.directory.lock, _END_MARGIN_SECONDS)

    def _cancel_members(self) -> None:
        """Of an array: all are asked before the first is waited for."""
        left = [member for member in group.members(self.directory) if member.outcome is None]
        for member in left:
            member.request_cancel()
        if left:
            load_scheduler(self.directory.job.scheduler).withdraw_array(self.directory)
        for member in left:
            type(self)(member.path.name, member, stores=self.stores).cancel()

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.directory.outcome is None and self.directory.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def verdict(self, outcome: Outcome) -> str:
        """How the run ended and why, in one line, with the log to look into."""
        text = f"run {self._run_id} ended {outcome.phase}: {outcome.reason}"
        log = self.directory.rank_log((outcome.failure or {}).get("rank", 0))
        return f"{text}; log: {log}" if log.exists() else text

    def follow(self, terminal: Terminal, choice: Choice | None = None) -> Outcome:
        """Show the job on a terminal until it has ended; how it ended. Raises DetachedError after Ctrl-C."""
        follower = Follower(self.directory, terminal, self.stores, choice)
        try:
            return follower.follow()
        except BrokenPipeError:
            # `mlflow run ... | head`: nobody reads any more.
            raise DetachedError(
                f"nobody reads the output of run {self._run_id}; its job goes on", self._run_id
            ) from None
        except KeyboardInterrupt:
            terminal.say("the job goes on; press Ctrl-C again within 5 s to cancel it")
            if not _interrupted_again():
                terminal.commands(self._run_id)
                raise DetachedError(f"let go of run {self._run_id}; its job goes on", self._run_id) from None
        terminal.say("canceling")
        with _no_interrupts():
            self.cancel()
        return follower.follow()


def _interrupted_again() -> bool:
    try:
        time.sleep(_SECOND_INTERRUPT_SECONDS)
    except KeyboardInterrupt:
        return True
    return False


class _no_interrupts:  # noqa: N801 - reads as a verb in a with statement
    """A third Ctrl-C must not stop the canceling."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *exc: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)
