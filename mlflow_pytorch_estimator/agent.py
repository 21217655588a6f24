"""The agent of a job's first node: leads the nodes through the job, and has the last word on the run.

While the job lives the agent is the only writer of the run's status. It starts the ranks first and loads MLflow
meanwhile, in a thread: the user's program waits for nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any

from mlflow_pytorch_estimator import disk, keeper, processes, rank_policy, resuming
from mlflow_pytorch_estimator.attempt import Attempt, Limits, Verdict
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import attempt_environment, rank_environment
from mlflow_pytorch_estimator.launchers.base import outside_of_ranks
from mlflow_pytorch_estimator.locks import HeldLock
from mlflow_pytorch_estimator.nodes.team import Followers
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers.base import Allocation, Others, count
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_MOST_LIVES = 4096  # of ranks that are told of: an elastic job may start many


class Agent:
    """Runs one job from its first node. ``held`` are the locks that last as long as anything of the job lives."""

    def __init__(self, directory: JobDir, held: Sequence[HeldLock]) -> None:
        self.directory = directory
        self.reporter = Reporter(directory)
        self._inherited = [lock.fd for lock in held]
        self._asked_to_end = False
        self._lives: deque[dict[str, Any]] = deque(maxlen=_MOST_LIVES)
        keeper.become_subreaper()
        with disk.ignored():
            processes.record(directory.agent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def stage(self) -> bool:
        """Make the job's copy of the sources, if there is none yet; False if the job has failed with that."""
        try:
            self.directory.restore_source(self.directory.job)
            resuming.bring(self.directory.job.resume_from, self.directory)
        except GpuClusterError as error:
            self.directory.conclude(Phase.FAILED, str(error))
            return False
        return True

    def run(self, place: Allocation, others: Others | None = None) -> None:
        """Run the ranks on this node and the others, write down how they ended; ``deliver`` is still to come.

        Nothing of the job runs on any node afterwards.
        """
        job = self.directory.job
        if not self.stage():
            return
        self.directory.enter(Phase.RUNNING, f"on {_describe(place, others)}")
        if place.cpus:
            os.sched_setaffinity(0, place.cpus)
        try:
            with disk.told_of(self.directory.path):
                self.directory.outputs.mkdir(exist_ok=True)
                rank_policy.deliver(self.directory.rank_policy)
            verdict = self._try(job, place, others)
        except GpuClusterError as error:
            keeper.kill_descendants()
            self.directory.conclude(Phase.FAILED, str(error))
            return
        except Exception as error:  # noqa: BLE001 - the outer edge of the job: the run must not stay RUNNING
            keeper.kill_descendants()
            with contextlib.suppress(OSError):  # the disk may be full
                traceback.print_exc()
            self.last_word(Phase.FAILED, f"the agent failed: {type(error).__name__}: {error}")
            return
        keeper.kill_descendants()
        self.directory.enter(Phase.FINALIZING)
        self._conclude(verdict)

    def conclude_canceled(self) -> None:
        """The last word on a job that somebody ended, unless it has one."""
        if self.directory.outcome is None:
            self.last_word(Phase.CANCELED, "canceled by request")

    def last_word(self, phase: Phase, reason: str, exit_code: int | None = None, **details: Any) -> None:
        """Write it down, with what has become of the ranks."""
        self.directory.conclude(phase, reason, exit_code, ranks=list(self._lives) or None, **details)

    def deliver(self) -> None:
        """See the outcome into the run."""
        self.reporter.deliver()

    @property
    def canceled(self) -> bool:
        """Whether somebody asked the job to end."""
        return self._asked_to_end or self.directory.cancel_requested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True

    def _try(self, job: JobSpec, place: Allocation, others: Others | None) -> Verdict:
        """Try until it succeeds, or should not be tried again."""
        followers = Followers(self.directory, place, others, self._inherited) if others else None
        try:
            if followers and not followers.gather(job.start_seconds, lambda: self.canceled):
                return Verdict(canceled=True)
            limits = Limits.of(job)
            earlier: list[str] = []
            while True:
                with disk.told_of(self.directory.path):
                    number = self.directory.begin_attempt()
                added = attempt_environment(job, self.directory, number)
                environ = rank_environment(outside_of_ranks({**os.environ, **added}), job, self.directory)
                attempt = Attempt(
                    *(job, self.directory, number, place, followers, self._inherited, limits),
                    lambda: self.canceled,
                    self.reporter.start,
                )
                try:
                    verdict = attempt.run(environ, added)
                finally:
                    self._lives += attempt.lives
                if verdict.failure is None or not verdict.retryable or number > job.max_retries:
                    return verdict.after(earlier)
                earlier.append(str(verdict.failure["reason"]))
                self.directory.enter(Phase.RUNNING, f"attempt {number + 1} of {job.max_retries + 1}: {earlier[-1]}")
                if followers:
                    followers.wait_for_lost(job.start_seconds, lambda: self.canceled)
        finally:
            if followers:
                followers.dismiss()

    def _conclude(self, verdict: Verdict) -> None:
        verdict = disk.explained(verdict, self.directory.path)
        if verdict.completed:
            self.last_word(Phase.COMPLETED, "", 0)
        elif verdict.failure is not None:
            reason, code = str(verdict.failure["reason"]), verdict.exit_code
            self.last_word(Phase.FAILED, reason, code, failure=dict(verdict.failure))
        else:
            self.conclude_canceled()


def _describe(place: Allocation, others: Others | None) -> str:
    if others is None:
        return place.describe()
    names = ", ".join((place.node, *others.names))
    return f"{count(len(others.names) + 1, 'node')} ({names}), each {place.describe().partition(', ')[2]}"
