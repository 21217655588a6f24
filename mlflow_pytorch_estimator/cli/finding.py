"""Runs by what a person types: an id, the beginning of one, or ``last``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.errors import UnknownRunError
from mlflow_pytorch_estimator.jobdir import JobDir

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.handle import JobHandle

LAST = "last"
_ID = re.compile(r"[0-9a-f]{32}")


def directory(wanted: str) -> JobDir:
    """The job of a run, which was submitted from here; raises UnknownRunError."""
    found = local(wanted)
    if found is None:
        raise UnknownRunError(
            f"there is no job of run {wanted!r} here ({jobdir.home() / 'jobs'}): `gpu-cluster runs` lists them"
        )
    return found


def local(wanted: str) -> JobDir | None:
    """The job of a run if it was submitted from here; raises UnknownRunError when several are meant."""
    if wanted == LAST:
        return newest()
    exact = JobDir.of_run(wanted) if _is_name(wanted) else None
    if exact is not None and exact.exists:
        return exact
    if not _is_name(wanted):
        return None
    begun = [path.name for path in _jobs() if path.name.startswith(wanted)]
    if len(begun) > 1:
        raise UnknownRunError(f"{len(begun)} runs begin with {wanted!r}: {', '.join(sorted(begun)[:5])}")
    return JobDir.of_run(begun[0]) if begun else None


def newest() -> JobDir:
    """The job that was submitted last; raises UnknownRunError when there is none."""
    jobs = every()
    if not jobs:
        raise UnknownRunError(f"no job was submitted from here yet (looked in {jobdir.home() / 'jobs'})")
    return jobs[-1]


def every() -> list[JobDir]:
    """The jobs that were submitted from here, newest last."""
    return sorted((item for path in _jobs() if (item := JobDir(path)).exists), key=submitted)


def handle(wanted: str) -> JobHandle:
    """What waits for a run and cancels it."""
    found = directory(wanted)
    from mlflow_pytorch_estimator.handle import JobHandle

    return JobHandle(found)


def run_id(wanted: str) -> str:
    """The id of a run that need not be of this machine; raises UnknownRunError when it can be none."""
    found = local(wanted)
    if found is not None:
        return found.path.name
    if not _ID.fullmatch(wanted):
        raise UnknownRunError(
            f"there is no run {wanted!r} of this machine (`gpu-cluster runs` lists them); of a run of another machine "
            "give the whole id"
        )
    return wanted


def _jobs() -> list[Path]:
    return list((jobdir.home() / "jobs").glob("[!.]*"))


def submitted(item: JobDir) -> float:
    """When a job was submitted, in Unix seconds."""
    events = item.events()
    return events[0].time if events else item.path.stat().st_mtime


def _is_name(wanted: str) -> bool:
    return bool(wanted) and "/" not in wanted and not wanted.startswith(".")
