"""What Slurm says of jobs: one question for any number of them, to whichever of its programs knows.

``squeue`` knows jobs that wait, run or ended a moment ago (``MinJobAge``); ``sacct`` knows all where a site has
accounting; ``scontrol`` knows as much as ``squeue``, and the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.schedulers.slurm import client, states
from mlflow_pytorch_estimator.schedulers.slurm.states import State

_FIELDS = "%i|%T|%r|%N"
_SEPARATOR = "|"
_UNKNOWN_JOB = re.compile(r"Invalid job id", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """What Slurm says of one job."""

    state: str
    """As Slurm calls it."""
    reason: str = ""
    """Why it waits."""
    nodes: str = ""
    """Names of its nodes, in Slurm's short form (``gpu[01-04]``)."""
    exit_code: int | None = None
    """Of the batch script, negative for a signal."""

    @property
    def meaning(self) -> State | None:
        """What the state means; None for one that is not known."""
        return states.find(self.state)


def active(job_ids: Collection[str]) -> dict[str, Said]:
    """The jobs that ``squeue`` knows. SchedulerError when the controller cannot be asked."""
    if not job_ids:
        return {}
    ids = ",".join(sorted(job_ids))
    answer = client.run("squeue", "--noheader", "--states=all", f"--jobs={ids}", f"--format={_FIELDS}")
    if answer.code != 0 and not _UNKNOWN_JOB.search(answer.errors):
        raise SchedulerError(f"squeue: {answer.reason}")
    found = {}
    for line in answer.output.splitlines():
        job_id, state, reason, nodes = line.split(_SEPARATOR, 3)
        found[job_id] = Said(state, reason.strip("()"), "" if nodes.startswith("(") else nodes)
    return {job_id: found[job_id] for job_id in job_ids if job_id in found}


def ended(job_id: str) -> Said | None:
    """How a job that ``squeue`` has forgotten ended; None when nobody knows. SchedulerError if nobody can be asked."""
    return all_ended({job_id}).get(job_id)


def all_ended(job_ids: Collection[str]) -> dict[str, Said]:
    """How jobs ended, those left out of which nobody knows: two questions at most, however many there are."""
    found = _accounted(job_ids)
    return found | _controlled(set(job_ids) - set(found))


def _accounted(job_ids: Collection[str]) -> dict[str, Said]:
    if not job_ids or not client.has("sacct"):
        return {}
    answer = client.run(
        *("sacct", "--allocations", "--noheader", "--parsable2", "--duplicates"),
        *(f"--jobs={','.join(sorted(job_ids))}", "--format=JobID,State,ExitCode,NodeList"),
    )
    if answer.code != 0:
        return {}  # without accounting it fails, or knows nothing
    found = {}
    for line in answer.output.splitlines():
        job_id, _, rest = line.partition(_SEPARATOR)
        if job_id in job_ids:
            state, code, nodes = rest.split(_SEPARATOR, 2)
            found[job_id] = Said(state, "", nodes, exit_status(code))  # the last of several is after a requeue
    return found


def _controlled(job_ids: Collection[str]) -> dict[str, Said]:
    if not job_ids:
        return {}
    which = tuple(job_ids) if len(job_ids) == 1 else ()  # it takes one id, or shows all jobs
    answer = client.run("scontrol", "--oneliner", "show", "job", *which)
    if answer.code != 0:
        if _UNKNOWN_JOB.search(answer.errors):
            return {}
        raise SchedulerError(f"scontrol: {answer.reason}")
    shown = [fields_of(line) for line in answer.output.splitlines()]
    return {
        fields["JobId"]: _shown(fields) for fields in shown if fields.get("JobId") in job_ids and "JobState" in fields
    }


def _shown(fields: Mapping[str, str]) -> Said:
    return Said(
        fields["JobState"],
        fields.get("Reason", ""),
        fields.get("NodeList", ""),
        exit_status(fields.get("ExitCode", "")),
    )


def exit_status(text: str) -> int | None:
    """``3:0`` is status 3, ``0:9`` signal 9."""
    status, _, number = text.partition(":")
    if not status.isdigit():
        return None
    return -int(number) if number.isdigit() and int(number) else int(status)


def fields_of(line: str) -> Mapping[str, str]:
    """The fields of a line of ``scontrol --oneliner``; a value with blanks is cut at the first."""
    return dict(word.partition("=")[::2] for word in line.split() if "=" in word)


def host_names(short: str) -> tuple[str, ...]:
    """``gpu[01-02]`` -> ``gpu01``, ``gpu02``."""
    return tuple(client.ask("scontrol", "show", "hostnames", short).split())
