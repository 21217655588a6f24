"""Tasks of job arrays: how Slurm names them, and how they are asked for and taken back.

Slurm keeps the tasks that wait as one record, and some of its answers and commands are about that record: what is
asked of ``1234_7`` may mean the whole of ``1234``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.schedulers.slurm import client

_TASK = re.compile(r"(\d+)_(\d+)")
_FOLDED = re.compile(r"(\d+)_\[([\d,-]+)")
_LARGEST = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


def is_task(job_id: str) -> bool:
    """Whether an id is one of a task: ``1234_7``."""
    return bool(_TASK.fullmatch(job_id))


def whole(job_id: str) -> str:
    """The id of a task's array; of a job that is none, its own."""
    return job_id.partition("_")[0]


def is_of(record: str, job_id: str) -> bool:
    """Whether a record of Slurm is about a task, by itself or together with others that have not begun.

    ``1234_[3-6,8-9%2]`` are several that wait, or were canceled while they did; of an array that was canceled before
    its last task began, only ``1234`` may be left.
    """
    found = _FOLDED.match(record)
    if found is None:
        return record in {job_id, whole(job_id)}
    number = int(job_id.partition("_")[2] or -1)
    spans = (span.partition("-") for span in found[2].split(","))
    return found[1] == whole(job_id) and any(int(low) <= number <= int(high or low) for low, _, high in spans)


def check_size(count: int) -> None:
    """Raise ConfigError for more tasks than the site admits in one array."""
    found = _LARGEST.search(client.ask("scontrol", "show", "config"))
    largest = int(found[1]) if found else count
    if largest == 0:
        raise ConfigError("this cluster takes no job arrays (MaxArraySize=0): submit the runs one by one")
    if count > largest:
        raise ConfigError(
            f"{count} runs are more than a job array may have on this cluster, {largest} (MaxArraySize): "
            "submit them in several arrays"
        )


def task(job_id: str, number: int) -> str:
    """The id of one task: ``1234_7`` of ``1234``, ``1234_7;gpu`` of ``1234;gpu``."""
    array, separator, cluster = job_id.partition(";")
    return f"{array}_{number}{separator}{cluster}"


def withdraw(job_id: str, where: Sequence[str]) -> None:
    """Take one task out of the queue if it still waits there.

    Not ``scancel --state=PENDING``: that takes all tasks of the array that wait, whichever is named (Slurm 22.05).
    """
    wanted = ("--noheader", "--array", "--states=PENDING", f"--jobs={job_id}", "--format=%i")
    if client.run("squeue", *where, *wanted, patient=True).output.strip() == job_id:
        client.run("scancel", *where, job_id, patient=True)


def is_known(job_id: str, where: Sequence[str]) -> bool:
    """Whether Slurm still has any task of an array in its memory."""
    answer = client.run("squeue", *where, "--noheader", "--states=all", f"--jobs={whole(job_id)}", "--format=%i")
    return answer.code == 0 and bool(answer.output.strip())
