"""What follows and cancels a job; MLflow, which takes seconds to import, is not needed for that."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.attach import Choice, Follower
from mlflow_pytorch_estimator.console import Terminal
from mlflow_pytorch_estimator.errors import DetachedError
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.reconcile import lives, reconcile
from mlflow_pytorch_estimator.schedulers import load_scheduler

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.tracking import Stores

_SECOND_INTERRUPT_SECONDS = 5.0
_END_MARGIN_SECONDS = 15.0


class JobHandle:
    """A job that was submitted on this machine, by this or another process. Safe to use from several at once."""

    def __init__(self, directory: JobDir, stores: Stores | None = None) -> None:
        self.directory = directory
        self.stores = stores

    @property
    def run_id(self) -> str:
        """The id of the MLflow run."""
        return self.directory.path.name

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
            JobHandle(member, self.stores).cancel()

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.directory.outcome is None and self.directory.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def verdict(self, outcome: Outcome) -> str:
        """How the run ended and why, in one line, with the log to look into."""
        text = f"run {self.run_id} ended {outcome.phase}: {outcome.reason}"
        log = self.directory.rank_log((outcome.failure or {}).get("rank") or 0)
        return f"{text}; log: {log}" if log.exists() else text

    def follow(self, terminal: Terminal, choice: Choice | None = None, *, cancels: bool = True) -> Outcome:
        """Show the job on a terminal until it has ended; how it ended. Raises DetachedError after Ctrl-C.

        ``cancels``: whether a second Ctrl-C within five seconds ends the job.
        """
        follower = Follower(self.directory, terminal, self.stores, choice)
        try:
            return follower.follow()
        except BrokenPipeError:
            # `mlflow run ... | head`: nobody reads any more.
            raise DetachedError(f"nobody reads the output of run {self.run_id}; its job goes on", self.run_id) from None
        except KeyboardInterrupt:
            terminal.say(f"the job goes on{'; press Ctrl-C again within 5 s to cancel it' if cancels else ''}")
            if not (cancels and _interrupted_again()):
                terminal.commands(self.run_id)
                raise DetachedError(f"let go of run {self.run_id}; its job goes on", self.run_id) from None
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
