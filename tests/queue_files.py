"""The files of a queue of real executables: see ``queue_programs``, which are its programs.

The standard library alone, and none of it that is slow to import: each command loads this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo", "srun")
NODES = ("f1", "f2")
CPUS, GPUS = 2, 2
"""Of a node."""
# As sbatch of a large site begins its standard output.
_BANNER = """
-----------------------------------------------------------------
           Welcome to the Far Away Supercomputer
-----------------------------------------------------------------

No reservation for this job
--> Verifying valid submit host (login1)...OK
--> Verifying access to desired queue (development)...OK
"""


@dataclass(frozen=True)
class Dialect:
    """What differs from version to version and from site to site."""

    waiting: str
    """The reason of a job that waits for nodes."""
    nowhere: str
    """The nodes of a job that has none, as ``scontrol`` shows them."""
    accounting: bool = False
    remembers: bool = True
    """Whether the controller still knows jobs that have ended."""
    cluster: str = ""
    """The jobs are known to those alone who name it."""
    banner: str = ""
    warning: str = ""
    """What each program says on its standard error, with exit status 0."""


DIALECTS = {
    "22.05": Dialect("Resources", "(null)"),
    "25.05": Dialect(
        "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions",
        "",
        accounting=True,
        remembers=False,
        cluster="lab",
        banner=_BANNER,
        warning="warning: The option --mpi=pmi2 is deprecated at this site\n",
    ),
}


@dataclass
class Job:
    """What the queue knows of a job."""

    number: int
    options: dict[str, str]
    environ: dict[str, str]
    state: str = "PENDING"
    reason: str = "None"
    nodes: list[str] = field(default_factory=list)
    cpus: int = 0
    gpus: int = 0
    """Of each node."""
    exit_code: str = "0:0"
    canceled: bool = False

    @property
    def over(self) -> bool:
        return self.state not in {"PENDING", "RUNNING"}


class Queue:
    """The files: one for each job, and a lock around every change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dialect = Dialect(**json.loads((folder / "dialect.json").read_text()))

    @classmethod
    def create(cls, folder: Path, dialect: Dialect) -> Queue:
        """An empty queue with its programs in ``bin``."""
        (folder / "bin").mkdir(parents=True)
        (folder / "dialect.json").write_text(json.dumps(asdict(dialect)))
        start = f"exec {sys.executable} -IS {Path(__file__).with_name('queue_programs.py')}"
        for name in PROGRAMS:
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\n{start} {name} {folder} "$@"\n')
            program.chmod(0o755)
        return cls(folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def jobs(self) -> list[Job]:
        found = [Job(**json.loads(path.read_text())) for path in self.folder.glob("job-*.json")]
        return sorted(found, key=lambda job: job.number)

    def find(self, number: int) -> Job | None:
        return next((job for job in self.jobs() if job.number == number), None)

    def store(self, job: Job) -> None:
        new = self.folder / f"new-{job.number}"
        new.write_text(json.dumps(asdict(job)))
        new.rename(self.folder / f"job-{job.number}.json")

    def forget(self, number: int) -> None:
        """As if the job had never been."""
        with self.locked():
            (self.folder / f"job-{number}.json").unlink()

    def close(self) -> None:
        """End everything."""
        with self.locked():
            (self.folder / "closed").touch()
        for pid in processes(f"QUEUE_OF_JOB={self.folder}:"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def free(self, node: str) -> tuple[int, list[int]]:
        """Cores and GPU indices of a node that no job has."""
        there = [job for job in self.jobs() if job.state == "RUNNING" and node in job.nodes]
        return CPUS - sum(job.cpus for job in there), list(range(sum(job.gpus for job in there), GPUS))


def processes(mark: str) -> list[int]:
    """All whose environment has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
