"""The preparer of an array: one environment or image for all its jobs, each one's inputs, and then the queue."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlflow_pytorch_estimator import locks, preparer
from mlflow_pytorch_estimator.arrays.handing import hand_over, outfit
from mlflow_pytorch_estimator.environments import BuildCancelled
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.preparation import download
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler, Task
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_CANCELED = "canceled by request"


@dataclass(frozen=True)
class _Member:
    directory: JobDir
    lock: locks.HeldLock

    @property
    def canceled(self) -> bool:
        return self.directory.cancel_requested


class ArrayPreparer(preparer.Preparer):
    """Prepares the jobs of an array and hands them over together. One that fails or is canceled leaves the others."""

    def __init__(self, group: JobDir, lock: locks.HeldLock, members: list[_Member]) -> None:
        super().__init__(members[0].directory, members[0].lock)
        self._group = group
        self._held = lock  # as long as this process lives, so does the array
        self._members = members

    def run(self) -> None:
        """Prepare and submit; whatever goes wrong ends the runs with its reason."""
        try:
            scheduler = load_scheduler(self._directory.job.scheduler)
            tasks = self._tasks(scheduler)
            if tasks:
                hand_over(self._group, tasks, scheduler, os.environ)
        except BuildCancelled:
            self._end_all(Phase.CANCELED, _CANCELED)
        except GpuClusterError as error:
            self._end_all(Phase.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - the outer edge of the process: no run must stay SCHEDULED
            self._end_all(Phase.FAILED, f"preparing the array failed: {type(error).__name__}: {error}")
        for member in self._members:
            if member.directory.job_id is None:
                Reporter(member.directory).deliver()

    def _tasks(self, scheduler: Scheduler) -> list[Task]:
        model = self._prepare(replace(self._directory.job, inputs={}), scheduler)
        tasks = []
        for member in self._members:
            job = self._ready_one(member, model)
            if job is not None:
                tasks.append(Task(job, member.directory, member.lock))
        if self._asked_to_end:
            raise BuildCancelled(_CANCELED)
        return tasks

    def _ready_one(self, member: _Member, model: JobSpec) -> JobSpec | None:
        """The job, ready to run; None for one that has ended."""
        directory = member.directory
        if not member.canceled:
            try:
                job = outfit(directory.job, directory, model, self._directory)
                job = download(job, directory, partial(directory.enter, Phase.PREPARING)) if job.inputs else job
            except GpuClusterError as error:
                directory.conclude(Phase.FAILED, str(error))
                return None
        if member.canceled:
            directory.conclude(Phase.CANCELED, _CANCELED)
            return None
        return job

    def _end_all(self, phase: Phase, reason: str) -> None:
        """End those that have not been handed over."""
        for member in self._members:
            if member.directory.job_id is None and member.directory.outcome is None:
                canceled = member.canceled
                member.directory.conclude(Phase.CANCELED if canceled else phase, _CANCELED if canceled else reason)

    def _say(self, line: str) -> None:
        for directory in (self._group, *(member.directory for member in self._members)):
            directory.enter(Phase.PREPARING, line)

    def _canceled(self) -> bool:
        return self._asked_to_end or all(member.canceled for member in self._members)


def main(argv: list[str]) -> None:
    """``python -m mlflow_pytorch_estimator.arrays.preparing GROUP LOCK_FD MEMBER_LOCK_FD...``."""
    group = JobDir(Path(argv[0]))
    adopt: Callable[[JobDir, str], locks.HeldLock] = lambda directory, fd: locks.adopt(directory.lock, int(fd))  # noqa: E731
    directories = map(group.beside, group.job.members)
    members = [_Member(directory, adopt(directory, fd)) for directory, fd in zip(directories, argv[2:], strict=True)]
    ArrayPreparer(group, adopt(group, argv[1]), members).run()


if __name__ == "__main__":
    main(sys.argv[1:])
