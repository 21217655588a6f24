"""Between submission and queue, detached from the client: builds the environment or pulls the image, downloads inputs.

It comes before queueing, so no node waits for a download.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from mlflow_pytorch_estimator import after, locks
from mlflow_pytorch_estimator.environments import (
    BUILT,
    BuildCancelled,
    claim,
)
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.preparation import Preparation, is_prepared
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase


class Preparer:
    """Prepares one job and hands it to its scheduler."""

    def __init__(self, directory: JobDir, lock: locks.HeldLock) -> None:
        self._directory = directory
        self._lock = lock
        self._reporter = Reporter(directory)
        self._asked_to_end = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> None:
        """Prepare and submit; whatever goes wrong ends the run with its reason."""
        try:
            scheduler = load_scheduler(self._directory.job.scheduler)
            job = self._prepare(self._directory.job, scheduler)
            after.wait(job, scheduler, self._say_waiting, self._canceled)
            if self._canceled():
                raise BuildCancelled("canceled by request")
            hand_over(job, scheduler, self._directory, self._lock, os.environ)
        except BuildCancelled:
            self._directory.conclude(Phase.CANCELED, "canceled by request")
        except GpuClusterError as error:
            self._directory.conclude(Phase.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - the outer edge of the process: the run must not stay SCHEDULED
            self._directory.conclude(Phase.FAILED, f"preparing the job failed: {type(error).__name__}: {error}")
        else:
            return
        self._reporter.deliver()

    def _prepare(self, job: JobSpec, scheduler: Scheduler) -> JobSpec:
        if job.prepare_on == "node" and not is_prepared(job):
            scheduler.prepare(job, self._directory, os.environ, self._say, self._canceled)
            return self._directory.job
        return Preparation(self._directory, self._say, self._canceled, self._lock.fd).make(job)

    def _say(self, line: str) -> None:
        self._directory.enter(Phase.PREPARING, line)

    def _say_waiting(self, line: str) -> None:
        self._directory.enter(Phase.QUEUED, line)
        self._reporter.start()

    def _canceled(self) -> bool:
        return self._asked_to_end or self._directory.cancel_requested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True


def hand_over(
    job: JobSpec, scheduler: Scheduler, directory: JobDir, lock: locks.HeldLock, environ: Mapping[str, str]
) -> None:
    """Give a job that is ready to its scheduler."""
    if job.interpreter.manager in BUILT and job.interpreter.python:
        claim(Path(job.interpreter.python), directory.path)
    directory.write_job(job)
    directory.enter(Phase.QUEUED)
    directory.write_job_id(scheduler.submit(job, directory, lock, environ))


def main(argv: list[str]) -> None:
    """``python -m mlflow_pytorch_estimator.preparer JOBDIR LOCK_FD``."""
    directory = JobDir(Path(argv[0]))
    Preparer(directory, locks.adopt(directory.lock, int(argv[1]))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # the reporter may be importing MLflow, which nobody waits for
