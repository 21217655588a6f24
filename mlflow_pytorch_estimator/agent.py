"""The job side: starts the ranks on a node, watches them, and has the last word on the run.

While the job lives the agent is the only writer of the run's status. It starts the ranks first and loads MLflow
meanwhile, in a thread: the user's program waits for nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from types import FrameType

from mlflow_pytorch_estimator import failure, keeper, processes, ranks
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import rank_environment
from mlflow_pytorch_estimator.launchers import single
from mlflow_pytorch_estimator.locks import HeldLock
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.status import Phase

_POLL_SECONDS = 0.05


class Agent:
    """Runs one job on this node. ``held`` are the locks that last as long as anything of the job lives."""

    def __init__(self, directory: JobDir, held: Sequence[HeldLock]) -> None:
        self.directory = directory
        self.reporter = Reporter(directory)
        self._inherited = [lock.fd for lock in held]
        self._asked_to_end = False
        self._out_of_time = False
        keeper.become_subreaper()
        processes.record(directory.agent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def stage(self) -> bool:
        """Make the job's copy of the sources, if there is none yet; False if the job has failed with that."""
        try:
            self.directory.restore_source(self.directory.job)
        except GpuClusterError as error:
            self.directory.conclude(Phase.FAILED, str(error))
            return False
        return True

    def run(self, place: Allocation) -> None:
        """Start the ranks, see them end, write down how. The node is free afterwards; ``deliver`` is still to come."""
        job = self.directory.job
        if not self.stage():
            return
        self.directory.enter(Phase.RUNNING, f"on {place.describe()}")
        self.directory.outputs.mkdir(exist_ok=True)
        if place.cpus:
            os.sched_setaffinity(0, place.cpus)
        environ = rank_environment(os.environ, job, self.directory)
        started = [
            ranks.start(
                command,
                self.directory.rank_log(command.rank),
                self.directory.workdir,
                environ,
                self._inherited,
            )
            for command in single.launch(job, place)
        ]
        self.reporter.start()
        guilty = self._watch(started, job.max_seconds)
        completed = all(rank.exit_code == 0 for rank in started)  # a canceled rank may exit with 0 later
        ranks.end(started, job.grace_seconds)
        self.directory.enter(Phase.FINALIZING)
        if guilty is not None:
            self._conclude_failed(place, guilty)
        elif self._out_of_time:
            self.directory.conclude(Phase.FAILED, f"ran longer than max_run_duration_seconds ({job.max_seconds:g} s)")
        elif completed:
            self.directory.conclude(Phase.COMPLETED, "", 0)
        else:
            self.conclude_canceled()

    def conclude_canceled(self) -> None:
        """The last word on a job that somebody ended, unless it has one."""
        if self.directory.outcome is None:
            self.directory.conclude(Phase.CANCELED, "canceled by request")

    def deliver(self) -> None:
        """See the outcome into the run."""
        self.reporter.deliver()

    @property
    def canceled(self) -> bool:
        """Whether somebody asked the job to end."""
        return self._asked_to_end or self.directory.cancel_requested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True

    def _watch(self, started: Sequence[ranks.Rank], limit: float | None) -> ranks.Rank | None:
        """The first rank that failed, or None when all have succeeded, the job was canceled or its time is over."""
        deadline = time.monotonic() + limit if limit else float("inf")
        while not self.canceled:
            codes = [rank.exit_code for rank in started]
            failed = [rank for rank, code in zip(started, codes, strict=True) if code]
            if failed or all(code == 0 for code in codes):
                return failed[0] if failed else None
            if time.monotonic() > deadline:
                self._out_of_time = True
                return None
            time.sleep(_POLL_SECONDS)
        return None

    def _conclude_failed(self, place: Allocation, guilty: ranks.Rank) -> None:
        code = guilty.exit_code or 0
        details = failure.report(guilty.rank, place.node, code, guilty.log)
        self.directory.conclude(Phase.FAILED, details["reason"], code, failure=details)
