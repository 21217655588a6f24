"""What Slurm says of jobs: one question for any number of them, to whichever of its programs knows.

``squeue`` knows jobs that wait, run or ended a moment ago (``MinJobAge``); ``sacct`` knows all where a site has
accounting; ``scontrol`` knows as much as ``squeue``, and the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.schedulers.slurm import arrays, client, states
from mlflow_pytorch_estimator.schedulers.slurm.states import State

_FIELDS = "%i|%T|%r|%N"
_SEPARATOR = "|"
_UNKNOWN_JOB = re.compile(r"Invalid job id|^Job \d+_\d+ not found", re.IGNORECASE)


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
    ids = ",".join(sorted(set(map(arrays.whole, job_ids))))
    answer = client.run("squeue", "--noheader", "--array", "--states=all", f"--jobs={ids}", f"--format={_FIELDS}")
    if answer.code != 0 and not _UNKNOWN_JOB.search(answer.errors):
        raise SchedulerError(f"squeue: {answer.reason}")
    found = {}
    for line in answer.output.splitlines():
        job_id, state, reason, nodes = line.split(_SEPARATOR, 3)
        found[job_id] = Said(state, reason.strip("()"), "" if nodes.startswith("(") else nodes)
    own = {job_id: job_id if job_id in found else arrays.whole(job_id) for job_id in job_ids}
    return {job_id: found[record] for job_id, record in own.items() if record in found}


def ended(job_id: str) -> Said | None:
    """How a job that ``squeue`` has forgotten ended; None when nobody knows. SchedulerError if nobody can be asked."""
    said = _accounted(job_id)
    return said or _controlled(job_id)


def _accounted(job_id: str) -> Said | None:
    if not client.has("sacct"):
        return None
    answer = client.run(
        *("sacct", "--allocations", "--noheader", "--parsable2", "--duplicates"),
        *(f"--jobs={arrays.whole(job_id)}", "--format=JobID,State,ExitCode,NodeList"),
    )
    records = answer.output.splitlines()
    lines = [line for line in records if line.startswith(f"{job_id}|")]
    lines = lines or [line for line in records if arrays.is_of(line.partition("|")[0], job_id)]
    if answer.code != 0 or not lines:
        return None  # without accounting it fails, or knows nothing
    _, state, code, nodes = lines[-1].split(_SEPARATOR, 3)  # the last of several is after a requeue
    return Said(state, "", nodes, exit_status(code))


def _controlled(job_id: str) -> Said | None:
    answer = client.run("scontrol", "--oneliner", "show", "job", job_id)
    if answer.code != 0:
        if _UNKNOWN_JOB.search(answer.errors or answer.output):  # of a task it is said on standard output
            return None
        raise SchedulerError(f"scontrol: {answer.reason}")
    fields = fields_of(answer.output)
    if "JobState" not in fields:
        return None
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
