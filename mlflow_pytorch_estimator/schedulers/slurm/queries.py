"""What Slurm says of jobs: one question for any number of them, to whichever of its programs knows.

``squeue`` knows jobs that wait, run or ended a moment ago (``MinJobAge``); ``sacct`` knows all where a site has
accounting; ``scontrol`` knows as much as ``squeue``, and the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
    found: dict[str, Said] = {}
    for where, ids in _by_cluster(job_ids).items():
        wanted = f"--jobs={','.join(sorted(set(map(arrays.whole, ids))))}"
        apart = ["--array"] if any(map(arrays.is_task, ids)) else []  # else tasks that wait are one line
        answer = client.run("squeue", *where, "--noheader", *apart, "--states=all", wanted, f"--format={_FIELDS}")
        if answer.code != 0 and not _UNKNOWN_JOB.search(answer.errors):
            raise SchedulerError(f"squeue: {answer.reason}")
        said = {}
        for line in answer.output.splitlines():
            number, state, reason, nodes = line.split(_SEPARATOR, 3)
            said[number] = Said(state, reason.strip("()"), _known(nodes))
        own = {number: number if number in said else arrays.whole(number) for number in ids}
        found |= {ids[number]: said[record] for number, record in own.items() if record in said}
    return found


def address(job_id: str) -> tuple[str, tuple[str, ...]]:
    """``7;gpu``, as ``sbatch --parsable`` names a job of a cluster that was asked for: its number, and that option."""
    number, _, cluster = job_id.partition(";")
    return number, (f"--clusters={cluster}",) if cluster else ()


def _known(nodes: str) -> str:
    """Names of nodes, or "" for what says that there are none: ``(null)``, ``None assigned``."""
    return "" if nodes.startswith("(") or nodes == "None assigned" else nodes


def ended(job_id: str) -> Said | None:
    """How a job that ``squeue`` has forgotten ended; None when nobody knows. SchedulerError if nobody can be asked."""
    return all_ended({job_id}).get(job_id)


def all_ended(job_ids: Collection[str]) -> dict[str, Said]:
    """How jobs ended, those left out of which nobody knows: two questions at most, however many there are."""
    found: dict[str, Said] = {}
    for where, ids in _by_cluster(job_ids).items():
        said = _accounted(ids, where)
        said |= _controlled(set(ids) - set(said), where)
        found |= {ids[number]: end for number, end in said.items()}
    return found


def _by_cluster(job_ids: Collection[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """The option that names a cluster -> number of a job there -> its id."""
    clusters: dict[tuple[str, ...], dict[str, str]] = {}
    for job_id in job_ids:
        number, where = address(job_id)
        clusters.setdefault(where, {})[number] = job_id
    return clusters


def _accounted(numbers: Collection[str], where: Sequence[str]) -> dict[str, Said]:
    if not numbers or not client.has("sacct"):
        return {}
    answer = client.run(
        *("sacct", *where, "--allocations", "--noheader", "--parsable2", "--duplicates"),
        *(f"--jobs={','.join(sorted(set(map(arrays.whole, numbers))))}", "--format=JobID,State,ExitCode,NodeList"),
    )
    if answer.code != 0:
        return {}  # without accounting it fails, or knows nothing
    records: dict[str, Said] = {}
    for line in answer.output.splitlines():
        number, _, rest = line.partition(_SEPARATOR)
        state, code, nodes = rest.split(_SEPARATOR, 2)
        records[number] = Said(state, "", _known(nodes), exit_status(code))  # the last is after a requeue
    return _of(numbers, records)


def _of(numbers: Collection[str], records: Mapping[str, Said]) -> dict[str, Said]:
    """What is known of each job: its own record, or the one of the tasks of its array that it is among."""
    found = {}
    for number in numbers:
        shared = [said for record, said in records.items() if arrays.is_of(record, number)]
        if number in records or shared:
            found[number] = records[number] if number in records else shared[-1]
    return found


def _controlled(numbers: Collection[str], where: Sequence[str]) -> dict[str, Said]:
    if not numbers:
        return {}
    which = tuple(numbers) if len(numbers) == 1 else ()  # it takes one id, or shows all jobs
    answer = client.run("scontrol", *where, "--oneliner", "show", "job", *which)
    if answer.code != 0:
        if _UNKNOWN_JOB.search(answer.errors or answer.output):  # of a task it is said on standard output
            return {}
        raise SchedulerError(f"scontrol: {answer.reason}")
    shown = [fields_of(line) for line in answer.output.splitlines()]
    return _of(numbers, {_record(fields): _shown(fields) for fields in shown if "JobState" in fields})


def _record(fields: Mapping[str, str]) -> str:
    """Name of a record of ``scontrol``, as ``squeue`` has it."""
    task = fields.get("ArrayTaskId")
    if task is None:
        return fields["JobId"]
    return f"{fields['ArrayJobId']}_{task if task.isdigit() else f'[{task}]'}"


def _shown(fields: Mapping[str, str]) -> Said:
    return Said(
        fields["JobState"],
        fields.get("Reason", ""),
        _known(fields.get("NodeList", "")),
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
