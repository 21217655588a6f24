"""Runs that a job waits for: whether they have completed, and who waits until they have.

A run counts as completed when its files are stored as well, because the next one may read them. Who waits: Slurm, for
its own jobs (``--dependency``); for all others, and for those that Slurm has not been told of yet, the preparer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import RUN_VARIABLE
from mlflow_pytorch_estimator.reconcile import settle
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Predecessor:
    """A run that another one waits for."""

    directory: JobDir

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.directory.path.name

    @property
    def completed(self) -> bool:
        """Whether it has completed, and its files are stored or nobody stores them any more."""
        outcome = self.directory.outcome
        stored = self.directory.delivered.exists() or not self.directory.alive
        return outcome is not None and outcome.phase is Phase.COMPLETED and stored

    @property
    def verdict(self) -> str:
        """Why it will never have completed; "" while it may, or has."""
        if not self.directory.exists:
            return "is gone"
        outcome = self.directory.outcome
        if outcome is None or outcome.phase is Phase.COMPLETED:
            return ""
        return f"ended {outcome.phase}" + (f": {outcome.reason}" if outcome.reason else "")


def check(run_ids: Iterable[str]) -> tuple[str, ...]:
    """The ids, each once; raises ConfigError for a run that nobody can wait for."""
    wanted = tuple(dict.fromkeys(run_ids))
    for run_id in wanted:
        if run_id == os.environ.get(RUN_VARIABLE):
            raise ConfigError(f"after names the run that submits, {run_id}: the job would wait for its own submitter")
        found = _of(run_id)
        if found is None:
            raise ConfigError(
                f"after: there is no job of run {run_id!r} in this home; "
                "give ids of runs that were submitted here in the last 30 days"
            )
        settle(found.directory)
        if found.verdict:
            raise ConfigError(
                f"after: run {run_id} {found.verdict}; submit it again, and give the id of the new run, or leave it out"
            )
    return wanted


def open_ones(job: JobSpec) -> tuple[Predecessor, ...]:
    """Those that a job still waits for; raises SchedulerError if one of them will never have completed."""
    found = []
    for run_id in job.after:
        predecessor = Predecessor(JobDir.of_run(run_id))
        if predecessor.verdict:
            raise SchedulerError(never(predecessor))
        if not predecessor.completed:
            found.append(predecessor)
    return tuple(found)


def never(predecessor: Predecessor) -> str:
    """The reason for which a job ends without having begun."""
    return f"the run it waits for, {predecessor.run_id}, {predecessor.verdict}"


def message(predecessors: Sequence[Predecessor]) -> str:
    """``waits for run ID``."""
    noun = "run" if len(predecessors) == 1 else "runs"
    return f"waits for {noun} {', '.join(item.run_id for item in predecessors)}"


def may_be_handed_over(job: JobSpec, scheduler: Scheduler) -> bool:
    """Whether a job need not wait here before its scheduler gets it."""
    return not _waiting(job, scheduler)


def wait(job: JobSpec, scheduler: Scheduler, say: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
    """Block until the scheduler may have the job. Raises SchedulerError if it will never start."""
    told = ""
    while not cancelled() and (waiting := _waiting(job, scheduler)):
        for item in waiting:
            settle(item.directory)
        if message(waiting) != told:
            told = message(waiting)
            say(told)
        time.sleep(_POLL_SECONDS)


def _waiting(job: JobSpec, scheduler: Scheduler) -> list[Predecessor]:
    """Those that are open, and for which the scheduler cannot wait itself."""
    return [item for item in open_ones(job) if not scheduler.awaits(item.directory)]


def _of(run_id: str) -> Predecessor | None:
    if "/" in run_id or run_id.startswith("."):
        return None
    directory = JobDir.of_run(run_id)
    return Predecessor(directory) if directory.exists else None
