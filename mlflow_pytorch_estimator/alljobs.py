"""All job directories of a home: which are left over, and what they need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from mlflow_pytorch_estimator.jobdir import STAGING_PREFIX, JobDir, home

KEEP_DAYS = 30


def sweep(now: float | None = None, *, bury: Callable[[JobDir], bool] = lambda directory: True) -> int:
    """Remove what killed submitters left half-made, and delivered jobs older than ``KEEP_DAYS``; says how many.

    ``bury`` is asked about a half-made job that may have a run already; after a False it is left for later.
    """
    jobs = home() / "jobs"
    oldest = (now or time.time()) - KEEP_DAYS * 86_400
    removed = 0
    for name in os.listdir(jobs) if jobs.is_dir() else ():  # noqa: PTH208 - hundreds of jobs, at each submission
        try:
            if name.startswith(STAGING_PREFIX):
                directory = JobDir(jobs / name)
                stale = abs(time.time() - directory.path.stat().st_mtime) > 5 and not directory.alive
                stale = stale and (not directory.exists or bury(directory))
            else:
                stale = os.stat(f"{jobs}/{name}/delivered").st_mtime < oldest  # noqa: PTH116 - as above
        except (FileNotFoundError, NotADirectoryError):
            continue  # not delivered yet, another submitter was faster, or a file of somebody else
        if stale:
            JobDir(jobs / name).remove()
            removed += 1
    return removed


def abandoned() -> list[JobDir]:
    """Jobs with an open run that nobody works on, and that no scheduler was told of as far as is known here."""
    jobs = home() / "jobs"
    found = []
    for name in os.listdir(jobs) if jobs.is_dir() else ():  # noqa: PTH208 - as above
        if name.startswith(".") or os.path.exists(f"{jobs}/{name}/delivered"):  # noqa: PTH110 - as above
            continue
        directory = JobDir(jobs / name)
        if directory.exists and directory.job_id is None and not directory.alive:
            found.append(directory)
    return found


def snapshots_in_use() -> set[str]:
    """Digests of the snapshots of all jobs that are still here."""
    jobs = home() / "jobs"
    directories = [JobDir(path) for path in jobs.iterdir()] if jobs.is_dir() else []
    return {digest for item in directories if item.exists and (digest := item.job.snapshot)}
