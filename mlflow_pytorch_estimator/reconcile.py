"""For whoever looks at a job from outside: if nobody works on it any more, see that its run says how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import disk
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.errors import UnknownRunError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.tracking import Stores

_WHO_DIED = {
    Phase.PREPARING: "the process that prepared the environment was killed",
    Phase.QUEUED: "the agent was killed while the job was queued",
}


def reconcile(directory: JobDir, stores: Stores | None = None) -> Phase:
    """Deliver a final word that did not arrive, or find one when everybody died. Returns the phase of the job.

    ``stores`` are those of the run with their passwords, if the caller knows them.
    """
    if not directory.exists:
        raise UnknownRunError(f"the job directory {directory.path} has gone")
    settle(directory, stores)
    if directory.outcome is not None and not directory.delivered.exists():
        from mlflow_pytorch_estimator.mirror import RunMirror  # not needed to submit, and not small

        RunMirror(directory, stores).deliver()
    return directory.phase


def glance(directory: JobDir) -> Phase:
    """As ``reconcile``, but what an agent is still delivering is left to it: nobody waits for that to be told."""
    outcome = directory.outcome
    if outcome is not None and directory.delivered.exists():
        return outcome.phase
    return directory.phase if outcome is not None and directory.alive else reconcile(directory)


def settle(directory: JobDir, stores: Stores | None = None) -> None:
    """Write the final word on a job that has none and that nobody works on any more."""
    if directory.outcome is None and not lives(directory):
        _conclude_array(directory, stores) if directory.job.members else _conclude_dead(directory)


def lives(directory: JobDir) -> bool:
    """Whether anybody works on the job, here or on the nodes of its scheduler."""
    job = directory.job
    if job.members:
        return directory.alive or any(lives(member) for member in group.unfinished(directory))
    return directory.alive or load_scheduler(job.scheduler).looks_after(directory)


def _conclude_array(directory: JobDir, stores: Stores | None) -> None:
    for member in group.unfinished(directory):
        reconcile(member, stores)
    group.conclude(directory)


def _conclude_dead(directory: JobDir) -> None:
    # The last word is written before the lock is let go: look once more now that the lock was seen free.
    if directory.outcome is not None:
        return
    _end_containers(directory)
    events = directory.events()
    phase = events[-1].phase if events else Phase.PREPARING
    if directory.cancel_requested:
        directory.conclude(Phase.CANCELED, "canceled by request")
        return
    who = _WHO_DIED.get(phase, "the agent was killed, or the machine went down")
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(events[-1].time)) if events else "at the start"
    full = "" if disk.has_room(directory.path) else f"; {disk.words(directory.path)}"
    directory.conclude(Phase.FAILED, f"{who}; last known phase: {phase} ({when}){full}")


def _end_containers(directory: JobDir) -> None:
    """A container is no process of the job: with all who watched it dead it would run on."""
    job = directory.job
    if job.container is not None:
        from mlflow_pytorch_estimator.containers import runtime, starting

        runtime.remove(job.container, starting.names(job))
