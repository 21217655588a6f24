"""Checks of Slurm, where its commands are."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_pytorch_estimator.cli.doctor.findings import OK, WARN, Finding
from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.schedulers.slurm import client

_LONGEST = 100
_NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")


def check() -> Iterator[Finding]:
    """All of them; nothing where none of Slurm's commands is."""
    there = [name for name in _NEEDED if client.has(name)]
    if not there:
        return
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        yield Finding(WARN, "slurm", f"{', '.join(missing)} not on PATH", "load the site's module for Slurm")
        return
    try:
        answer = client.run("scontrol", "ping", seconds=10)
        if answer.code:
            said = f"the controller does not answer: {answer.reason[-_LONGEST:]}"
            yield Finding(WARN, "slurm", said, "ask the administrators; jobs on this machine do not need it")
            return
        version = client.run("sinfo", "--version", seconds=10).output.strip()
        partitions = client.run("sinfo", "--noheader", "--format=%P %D %G", seconds=10).output.split("\n")
    except SchedulerError as error:
        yield Finding(WARN, "slurm", str(error))
        return
    listed = ", ".join(_partition(line) for line in partitions if line.strip())
    yield Finding(OK, "slurm", f"{version}: {listed}" if listed else f"{version}, no partition that you may see")
    yield _accounting()


def _partition(line: str) -> str:
    name, count, gres = (*line.replace("*", "").split(), "", "")[:3]
    gpus = "" if gres in {"", "(null)"} else f" with {gres}"
    return f"{name} ({count} nodes{gpus})"


def _accounting() -> Finding:
    if not client.has("sacct") or client.run("sacct", "--noheader", "--starttime=now", seconds=10).code:
        return Finding(
            WARN,
            "accounting",
            "none: of a job that ended without a word and is forgotten, Slurm cannot say why",
            "nothing to do; what the agents write counts first",
        )
    return Finding(OK, "accounting", "sacct answers")
