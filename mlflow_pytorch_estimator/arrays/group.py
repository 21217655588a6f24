"""The run above the runs of an array.

It has a job directory as they have, but no process: it begins with the first of them and ends with the last, and is
written by whoever writes theirs. Standard library only: agents import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.status import Phase


def members(group: JobDir) -> list[JobDir]:
    """The directories of its runs that are here, by number."""
    found = map(group.beside, group.job.members)
    return [member for member in found if member.exists]


def unfinished(group: JobDir) -> Iterator[JobDir]:
    """Those whose end is not in their runs yet."""
    return (member for member in members(group) if not member.delivered.exists())


def begun(member: JobDir) -> JobDir | None:
    """The group of a run that runs, if it is the first of them."""
    group = _above(member)
    if group is None or not _waits(group):
        return None
    with locks.holding(group.progress_lock):
        if not _waits(group):
            return None  # another one was faster
        group.enter(Phase.RUNNING, "the first of its runs")
    return group


@contextmanager
def ending(member: JobDir) -> Iterator[JobDir | None]:
    """For the moment in which a run is marked as delivered: its group, which may have ended with it.

    Two that end at the same time take turns, so that one of them sees that it is the last.
    """
    group = _above(member)
    if group is None:
        yield None
        return
    with locks.holding(group.progress_lock):
        left = sum(other.path != member.path for other in unfinished(group))
        if group.outcome is None:
            _tell(group, left)
        if left == 0:
            _conclude(group)
        yield group


def conclude(group: JobDir) -> None:
    """Write down how it ended, if all its runs have."""
    with locks.holding(group.progress_lock):
        if all(member.outcome is not None for member in members(group)):
            _conclude(group)


def verdict(outcomes: Sequence[Outcome], *, canceled: bool) -> tuple[Phase, str]:
    """How an array ended whose runs ended so; a single run that somebody canceled is no failure of the others."""
    ends = [end.phase for end in outcomes]
    failed, ended_early = ends.count(Phase.FAILED), ends.count(Phase.CANCELED)
    if ended_early and (canceled or ended_early == len(ends)):
        return Phase.CANCELED, "canceled by request" if canceled else "all its runs were canceled"
    if not failed:
        return Phase.COMPLETED, ""
    also = f", {ended_early} canceled" if ended_early else ""
    reasons = {end.reason for end in outcomes}
    same = f": {reasons.pop()}" if len(reasons) == 1 else ""
    return Phase.FAILED, f"{failed} of {len(ends)} runs failed{also}{same}"


def _waits(group: JobDir) -> bool:
    return group.outcome is None and group.phase in {Phase.PREPARING, Phase.QUEUED}


def _above(member: JobDir) -> JobDir | None:
    name = member.job.array
    group = member.beside(name) if name else None
    return group if group is not None and group.exists and group.job.members else None


def _tell(group: JobDir, left: int) -> None:
    ends = [end.phase for end in _outcomes(group)]
    failed = ends.count(Phase.FAILED)
    count = len(group.job.members)
    phase = Phase.PREPARING if group.phase is Phase.PREPARING else Phase.RUNNING
    group.enter(phase, f"{count - left} of {count} runs have ended" + (f", {failed} failed" if failed else ""))


def _conclude(group: JobDir) -> None:
    ends = _outcomes(group)
    if group.outcome is None and ends:
        phase, reason = verdict(ends, canceled=group.cancel_requested)
        group.conclude(phase, reason)


def _outcomes(group: JobDir) -> list[Outcome]:
    return [end for member in members(group) if (end := member.outcome) is not None]
