"""One process of a user on the submit host, for as long as Slurm has jobs of theirs: it knows when jobs die.

    python -m mlflow_pytorch_estimator.schedulers.slurm.watcher

It holds the lock of each such job, so that clients see it as alive, asks Slurm about all of them in one question, tells
what they wait for, and has the last word on those whose agents could not say it. It may be killed: the next submission,
and everybody who looks at a job, starts another one.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator import detached, jobdir, jobenv, locks, processes
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.files import private_folder
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay.courier import Courier
from mlflow_pytorch_estimator.schedulers.slurm import arrays, client, dependency, kinship, last_word, queries, states
from mlflow_pytorch_estimator.schedulers.slurm.attending import FarJobs
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.schedulers.slurm.reports import Reports
from mlflow_pytorch_estimator.status import Phase

_SHORTEST_SECONDS, _LONGEST_SECONDS, _GROWTH = 1.0, 15.0, 1.5
_LOOK_SECONDS = 0.2
_LONGEST_LOOK_SECONDS, _SHARE = 2.0, 0.05  # of a core, for looking at files: hundreds of jobs are looked at less often
_LINGER_SECONDS = 2.0
_SETTLE_SECONDS = 5.0  # for the agent's last word to cross a network file system
_AGENTS_SECONDS = 1.0  # for an agent that has MLflow loaded to begin with that
_DELIVERY_SECONDS = 30.0  # for an agent that has said how it ended to upload what it has
_TAKEN_OUT = Said("CANCELLED")
NAME = "slurm"
_STARTING = "starting"
_START_SECONDS = 5.0


def folder() -> Path:
    """What watchers keep."""
    return jobdir.home() / "slurm"


def ensure(environ: Mapping[str, str]) -> None:
    """Start a watcher if there is none. It reports to MLflow with what ``environ`` says of servers and credentials."""
    private_folder(folder())
    lock = folder() / "watcher.lock"
    if locks.is_held(lock) or _starts(folder() / _STARTING):
        return
    given = {name: value for name, value in client.environment(environ).items() if name != jobenv.CARRIED_VARIABLE}
    given[jobdir.HOME_VARIABLE] = str(jobdir.home())
    detached.spawn([sys.executable, "-m", __name__], folder() / "watcher.log", folder(), given, ())


def _starts(mark: Path) -> bool:
    """Whether somebody has started one just now, which has no lock yet; if not, this process is about to."""
    try:
        age = time.time() - mark.stat().st_mtime
    except FileNotFoundError:
        age = _START_SECONDS
    if 0 <= age < _START_SECONDS:
        return True
    mark.touch(mode=0o600)
    return False


@dataclass
class Watched:
    """One job, as long as Slurm has it or its run does not say how it ended."""

    directory: JobDir
    job_id: str
    lock: locks.HeldLock
    relayed: bool
    """Whether this side talks to MLflow for all of the job."""
    courier: Courier | None = None
    told: tuple[Phase, str] | None = None
    asked_to_end: bool = False
    over_since: float | None = None
    """When Slurm first said that it is over; ``time.monotonic`` seconds."""
    concluded_since: float | None = None
    said: Said | None = None
    kin: bool | None = None
    """See ``kinship``; None while nobody has asked."""
    array: str | None = None
    """Id of the run above, for one of an array."""


@dataclass
class Watcher:
    """Looks after all jobs of a home directory."""

    jobs: dict[str, Watched] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)
    """Names of job directories that are no business of this process any more."""
    _interval: float = _SHORTEST_SECONDS
    _ask_at: float = 0.0

    def __post_init__(self) -> None:
        self._reports = Reports()
        self._far = FarJobs()
        self._environ = processes.environment()  # as it is before MLflow adds to it

    def look(self) -> None:
        """Look at the files of all jobs, and ask Slurm if it is time to."""
        self._find()
        for name, watched in list(self.jobs.items()):
            self._look_at(name, watched)
        if self.jobs and time.monotonic() >= self._ask_at:
            self._ask()

    def _find(self) -> None:
        jobs = jobdir.home() / "jobs"
        for name in os.listdir(jobs) if jobs.is_dir() else ():  # noqa: PTH208 - five times a second
            if name in self.jobs or name in self._left or name.startswith("."):
                continue
            directory = JobDir(jobs / name)
            job_id = directory.job_id
            if directory.delivered.exists() or (directory.exists and directory.job.scheduler != NAME):
                self._left.add(name)
            elif job_id is not None and directory.exists:
                job = directory.job
                if job.members:
                    self._left.add(name)  # an array ends with the last of its jobs
                    continue
                lock = locks.try_acquire(directory.lock)
                if lock is not None:  # else the submitter has not let go yet
                    self.jobs[name] = Watched(directory, job_id, lock, job.relay, array=job.array)
                    self._soon()

    def _look_at(self, name: str, watched: Watched) -> None:
        directory = watched.directory
        if not directory.path.exists() or directory.delivered.exists():
            self._leave(name)
        elif watched.relayed and watched.courier is None and (directory.relay.is_dir() or directory.outcome):
            watched.courier = Courier(directory)
        elif directory.outcome is not None:
            now = time.monotonic()
            if watched.concluded_since is None:
                watched.concluded_since = now
                self._soon()
            if watched.relayed:
                return  # its courier delivers
            if watched.over_since is not None or now > watched.concluded_since + self._patience(watched):
                self._reports.deliver(directory)
        elif directory.cancel_requested and not watched.asked_to_end:
            watched.asked_to_end = True
            self._soon()

    def _patience(self, watched: Watched) -> float:
        """How long an agent is left alone with its report: one that is only loading MLflow holds its nodes for that."""
        if self._far.owns(watched.directory):
            return 0.0  # it uploads nothing
        if watched.kin is None:
            watched.kin = kinship.shared(watched.directory, self._environ)
        idle = watched.kin and not locks.is_held(watched.directory.delivery_lock)
        return _AGENTS_SECONDS if idle else _DELIVERY_SECONDS

    def _leave(self, name: str) -> None:
        watched = self.jobs.pop(name)
        watched.lock.close()
        self._left.add(name)
        above = watched.array and watched.directory.beside(watched.array)
        if above and above.exists and next(group.unfinished(above), None) is None:
            # The last agent has done so, unless its node did not see yet what another one had written.
            group.conclude(above)
            self._reports.deliver(above)

    def _soon(self) -> None:
        self._interval = _SHORTEST_SECONDS
        self._ask_at = min(self._ask_at, time.monotonic() + _SHORTEST_SECONDS)

    def _ask(self) -> None:
        self._interval = min(_LONGEST_SECONDS, self._interval * _GROWTH)
        try:
            found = queries.active({watched.job_id for watched in self.jobs.values()})
            now = time.monotonic()
            silent = {each.job_id for each in self.jobs.values() if _is_silent(each, found.get(each.job_id), now)}
            found |= queries.all_ended(silent)
            for watched in self.jobs.values():
                said = found.get(watched.job_id)
                if said is None and watched.job_id in silent:
                    said = _never_began_in_its_array(watched)
                self._hear(watched, said, now)
        except GpuClusterError as error:
            print(f"{time.strftime('%F %T')} {error}", file=sys.stderr, flush=True)  # nothing is concluded from it
        self._ask_at = time.monotonic() + self._interval

    def _hear(self, watched: Watched, said: Said | None, now: float) -> None:
        if said is not None and said.meaning is None:
            if watched.said != said:
                print(
                    f"{time.strftime('%F %T')} Slurm calls job {watched.job_id} {said.state}, which is not known here",
                    file=sys.stderr,
                    flush=True,
                )
            watched.said = said
            return
        watched.said = said
        if _is_over(said):
            if watched.over_since is None:
                watched.over_since = now
            self._soon()
            if _is_silent(watched, said, now):
                last_word.conclude(watched.directory, watched.job_id, said)
            return
        watched.over_since = None
        if said is not None and said.meaning is not None:
            self._far.attend(watched.directory, said)
            dependency.look(watched.directory, watched.job_id, said)
            self._tell(watched, said.meaning.phase, _message(watched.directory, said))

    def _tell(self, watched: Watched, phase: Phase, message: str) -> None:
        """Write down what Slurm does before the agent lives, and after; in between the agent speaks for itself."""
        if (phase, message) == watched.told or watched.directory.outcome is not None:
            return
        watched.told = (phase, message)
        self._soon()
        if phase not in {Phase.QUEUED, Phase.SCALING}:
            return
        if not message and watched.directory.phase is phase:
            return  # the submitter has said it
        watched.directory.enter(phase, message)
        self._reports.sync(watched.directory)


def _is_over(said: Said | None) -> bool:
    return said is None or (said.meaning is not None and said.meaning.over)


def _is_silent(watched: Watched, said: Said | None, now: float) -> bool:
    """Whether the job has been over for so long that its agent will not say how it ended."""
    late = watched.over_since is not None and now > watched.over_since + _SETTLE_SECONDS
    return late and _is_over(said) and watched.directory.outcome is None


def _never_began_in_its_array(watched: Watched) -> Said | None:
    """A task that waited, and is canceled, leaves no trace in Slurm, not even in its accounting."""
    if watched.said == _TAKEN_OUT:
        return _TAKEN_OUT
    began = watched.said is not None and watched.said.state != "PENDING"
    number, where = queries.address(watched.job_id)
    if began or not arrays.is_task(number) or watched.directory.agent.exists():
        return None
    return _TAKEN_OUT if arrays.is_known(number, where) else None


def _message(directory: JobDir, said: Said) -> str:
    meaning = said.meaning
    if meaning is not None and meaning.phase is Phase.SCALING:
        return f"Slurm starts {said.nodes}" if said.nodes else "Slurm starts nodes"
    return (meaning.words if meaning else "") or dependency.message(directory, said) or states.plain(said.reason)


def _allow_many_files() -> None:
    """One lock is open for each job, and there may be thousands of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Watch until there is nothing to watch."""
    private_folder(folder())
    path = folder() / "watcher.lock"
    lock = locks.try_acquire(path)
    (folder() / _STARTING).unlink(missing_ok=True)
    _allow_many_files()
    watcher = Watcher()
    idle_since = time.monotonic()
    while lock is not None:
        began = time.thread_time()
        watcher.look()
        pause = min(_LONGEST_LOOK_SECONDS, max(_LOOK_SECONDS, (time.thread_time() - began) / _SHARE))
        if watcher.jobs:
            idle_since = time.monotonic()
        elif time.monotonic() > idle_since + _LINGER_SECONDS:
            lock.close()
            watcher.look()  # a job that came while nobody could know that nobody watches
            lock = locks.try_acquire(path) if watcher.jobs else None
        time.sleep(pause)
    return 0


if __name__ == "__main__":
    exit_status = main()
    sys.stderr.flush()
    os._exit(exit_status)  # the thread may be in the middle of a call to a server
