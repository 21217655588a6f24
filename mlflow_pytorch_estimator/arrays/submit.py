"""Submit an array: N requests of one project, all or nothing, below one run."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_pytorch_estimator import disk, jobdir, locks, placement, submission, tags, tracking
from mlflow_pytorch_estimator.arrays import describing, preparing
from mlflow_pytorch_estimator.arrays.handing import hand_over
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.preparation import is_prepared
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler, Task
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submission import Prepared
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tidying import tidy

_OTHER_FILES = 100  # that a process has open besides one lock for each run
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmittedArray:
    """The handles on the run above, and on the runs by number."""

    group: GpuClusterSubmittedRun
    runs: list[GpuClusterSubmittedRun]


def submit_many(
    requests: Sequence[Request], *, max_concurrent: int | None = None, run_name: str | None = None
) -> SubmittedArray:
    """Submit requests that differ in their parameters alone; with ``max_concurrent`` so many run at once.

    Raises before any run exists, or ends all runs FAILED with the reason. The run above them is called ``run_name``.
    """
    submission.refuse_ranks()
    _check(requests, max_concurrent)
    scheduler = load_scheduler(placement.scheduler_of(requests[0].config))
    scheduler.anticipate()
    try:
        with disk.told_of(jobdir.home()):
            return _Submission(requests, scheduler, max_concurrent, run_name).submit()
    finally:
        scheduler.dismiss()


def _check(requests: Sequence[Request], limit: object) -> None:
    if not requests:
        raise ConfigError("an array has one run at least: give the parameters of each run")
    if requests[0].config.after:
        raise ConfigError("after is for single runs: submit the array when those runs have completed")
    if requests[0].config.prepare_on == "node":
        raise ConfigError("an array is prepared where it is submitted: leave out prepare_on")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigError(f"max_concurrent is {limit!r}; it must be a whole number from 1, or None for no limit")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and len(requests) + _OTHER_FILES > files:
        raise ConfigError(
            f"{len(requests)} runs are too many for this process, which may open {files} files and needs one for each: "
            "raise the limit (`ulimit -n`), or submit them in several arrays"
        )


class _Submission:
    """One submission on its way."""

    def __init__(
        self, requests: Sequence[Request], scheduler: Scheduler, limit: int | None, run_name: str | None
    ) -> None:
        self._requests, self._scheduler, self._limit, self._name = requests, scheduler, limit, run_name
        self._stores = requests[0].stores
        self._locks: list[locks.HeldLock] = []
        self._directories: list[JobDir] = []
        """That of the run above first."""
        self._jobs: list[JobSpec] = []
        """Those that have a run, as ``_directories``."""

    def submit(self) -> SubmittedArray:
        """All of it."""
        tidy(self._stores)
        try:
            prepared = self._prepare()
        except BaseException:
            self._discard(self._directories)
            raise
        try:
            urls = self._create_runs(prepared)
            self._start(submission.environment(self._requests[0].stores, prepared[1]))
        except BaseException as error:
            self._fail(str(error) or type(error).__name__)
            raise
        finally:
            for lock in self._locks:
                lock.close()
        handles = [
            GpuClusterSubmittedRun(directory.path.name, directory, url, stores=self._stores)
            for directory, url in zip(self._directories, urls, strict=True)
        ]
        return SubmittedArray(handles[0], handles[1:])

    def _prepare(self) -> list[Prepared]:
        """All that is known before a run exists; the first is the run above."""
        for _ in range(len(self._requests) + 1):
            directory, lock = submission.stage()
            self._directories.append(directory)
            self._locks.append(lock)
        own = self._directories[0]
        found = describing.prepare(self._requests, self._directories[1:], own.path / "fetch")
        job = found[0].job
        self._scheduler.check(job)
        self._scheduler.check_array(job, len(found), self._limit)
        above = replace(
            job, command="", parameters={}, inputs={}, input_paths={}, datasets={}, max_concurrent=self._limit
        )
        run_tags = {**found[0].tags, tags.SUBMISSION: own.path.name}
        prepared = [Prepared(above, run_tags, {}), *found]
        for directory, item in zip(self._directories, prepared, strict=True):
            directory.write_job(item.job)  # from here on a killed submitter leaves a trace that leads to its runs
        return prepared

    def _create_runs(self, prepared: Sequence[Prepared]) -> list[str | None]:
        """Create the runs, the one above first; returns their pages."""
        urls: list[str | None] = []
        below: dict[str, str] = {}
        names = [self._name, *(request.run_name for request in self._requests)]
        for number, (item, name) in enumerate(zip(prepared, names, strict=True)):
            run = tracking.create_run(self._stores, item.job.experiment_id, name, {**item.tags, **below})
            run_id, above = run.info.run_id, below.get(MLFLOW_PARENT_RUN_ID)
            made = run.info
            job = replace(
                item.job,
                run_id=run_id,
                experiment_id=made.experiment_id,
                run_name=str(made.run_name or ""),
                array=above,
            )
            self._jobs.append(job)
            self._directories[number].write_job(job)
            directory = self._directories[number] = self._directories[number].settle(run_id)
            self._jobs[number] = submission.keeping(job, directory)
            if self._jobs[number] != job:
                directory.write_job(self._jobs[number])
            tracking.mark_scheduled(self._stores, run_id)
            urls.append(tracking.run_url(run, self._stores.tracking_uri))
            below = below or {MLFLOW_PARENT_RUN_ID: run_id}
        self._write_members()
        return urls

    def _write_members(self) -> None:
        self._jobs[0] = replace(self._jobs[0], members=tuple(job.run_id for job in self._jobs[1:]))
        self._directories[0].write_job(self._jobs[0])

    def _start(self, environ: dict[str, str]) -> None:
        if all(map(is_prepared, self._jobs[1:])):
            parts = zip(self._jobs[1:], self._directories[1:], self._locks[1:], strict=True)
            hand_over(self._directories[0], [Task(*part) for part in parts], self._scheduler, environ)
            return
        for directory in self._directories:
            directory.enter(Phase.PREPARING)
        submission.spawn_preparer(preparing.__name__, self._directories[0], self._locks, environ)

    def _fail(self, reason: str) -> None:
        """End the runs that exist and nobody has taken on, and remove what has none."""
        created = len(self._jobs)
        self._discard(self._directories[created:])
        if not created:
            return
        text = f"the array could not be submitted: {reason}"
        self._write_members()
        self._directories[0].conclude(Phase.FAILED, text)
        for directory in self._directories[1:created]:
            if directory.job_id is None and directory.outcome is None:
                directory.conclude(Phase.FAILED, text)
        for directory, lock in zip(self._directories, self._locks, strict=True):
            lock.close()
            if directory.outcome is not None:
                self._deliver(directory)

    def _deliver(self, directory: JobDir) -> None:
        try:
            reconcile(directory, self._stores)
        except MlflowException as error:
            # Whoever looks at the run next delivers it.
            _logger.warning("cannot end run %s: %s", directory.path.name, error)

    def _discard(self, directories: Sequence[JobDir]) -> None:
        for directory, lock in zip(self._directories, self._locks, strict=True):
            if directory in directories:
                directory.remove()
                lock.close()
