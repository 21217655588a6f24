"""The job directory: everything about one job, and the only place that knows file names.

    jobs/RUN_ID/
      job.json  job_id  journal.jsonl  outcome.json  environment.txt  horovod.txt
      lock            held by whoever works on the job (submitter, preparer, agent, keepers)
      delivery.lock   held by whoever writes the run;  delivered   nothing is left to write
      undelivered     what the artifact store did not take, and why
      cancel          somebody asked the job to end
      attempt         number of the current try;  checkpoints/  outlives them
      relay/          MLflow calls of the ranks on their way to the submit host, see ``relay``
      progress.json   how far downloads or uploads have come, see ``progress``
      datasets_told   the run names its data, see ``datasets``
      prepared.json   what became of preparing it, where that was the work of a node
      ranks/          what keepers below a launcher note;  system_metrics.jsonl  samples of all nodes
      tasks/NUMBER    of a group: links to the directories of its jobs, see ``arrays``
      source/         the job's own copy of the snapshot; the ranks work in it, or in the project's subdirectory of it
      courier.lock  courier.log  sent  incoming/  arrived  over  contact  fetched   see ``schedulers.slurm.far``
      logs/rank_N.log  logs/environment.log  logs/agent.log      inputs/  lib/  policy/  queue/

The truth about a job is here; the MLflow run is a mirror of it (see ``mirror``).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import disk, journal, locks
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.files import private_folder, read_json, write_atomic
from mlflow_pytorch_estimator.snapshots.restore import restore
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

HOME_VARIABLE = "GPU_CLUSTER_HOME"
ENVIRONMENTS_VARIABLE = "GPU_CLUSTER_ENVIRONMENTS"
STAGING_PREFIX = ".new-"


_chosen_home: ContextVar[Path | None] = ContextVar("home", default=None)


def home() -> Path:
    """Where jobs, the local queue and environments live: ``$GPU_CLUSTER_HOME`` or ``~/.gpu-cluster``."""
    chosen = _chosen_home.get()
    return chosen or Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".gpu-cluster").absolute()


def environments() -> Path:
    """Where environments are kept, for all who share the folder: ``$GPU_CLUSTER_ENVIRONMENTS`` or ``envs`` at home."""
    shared = os.environ.get(ENVIRONMENTS_VARIABLE)
    return Path(shared).absolute() if shared else home() / "envs"


@contextmanager
def at_home(path: Path) -> Iterator[None]:
    """Another home for what is done inside, in this thread."""
    token = _chosen_home.set(path.absolute())
    try:
        yield
    finally:
        _chosen_home.reset(token)


@dataclass(frozen=True)
class Outcome:
    """How the job ended, as the one who saw it end wrote it down. ``time`` is Unix seconds."""

    phase: Phase
    reason: str
    exit_code: int | None
    time: float
    failure: dict[str, Any] | None = None
    """Rank, node, exit code, signal, traceback and last lines of the rank to blame."""
    ranks: list[dict[str, Any]] | None = None
    """Each life of each rank: rank, node, attempt, start and end (Unix seconds), exit_code."""


class JobDir:
    """One job's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.delivery_lock = path / "delivery.lock"
        self.delivered = path / "delivered"
        self.undelivered = path / "undelivered"
        self.journal = path / "journal.jsonl"
        self.environment = path / "environment.txt"
        self.horovod = path / "horovod.txt"
        self.source = path / "source"
        self.snapshots = path.parent.parent / "snapshots"
        self.logs = path / "logs"
        self.inputs = path / "inputs"
        self.library = path / "lib"
        self.rank_policy = path / "policy"
        self.queue = path / "queue"
        self.agent = path / "agent.json"
        self.agent_log = self.logs / "agent.log"
        self.environment_log = self.logs / "environment.log"
        self.system_metrics = path / "system_metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.relay = path / "relay"
        self.relay_log = self.logs / "relay.log"
        self.tasks = path / "tasks"
        self.progress_lock = path / "progress.lock"
        self.datasets_told = path / "datasets_told"
        self.progress = path / "progress.json"
        self.reserve = path / "reserve"
        self.prepared = path / "prepared.json"
        self._attempt = path / "attempt"
        self._job = path / "job.json"
        self._outcome = path / "outcome.json"
        self._cancel = path / "cancel"
        self._job_id = path / "job_id"

    @classmethod
    def of_run(cls, run_id: str) -> JobDir:
        """Where the job of a run would be on this machine."""
        return cls(home() / "jobs" / run_id)

    @classmethod
    def stage(cls) -> tuple[JobDir, locks.HeldLock]:
        """A new private directory that has no run yet, and the lock that says somebody works on it."""
        jobs = home() / "jobs"
        private_folder(jobs)
        staged = cls(jobs / f"{STAGING_PREFIX}{secrets.token_hex(8)}")
        staged.path.mkdir(mode=0o700)
        lock = locks.acquire(staged.lock)
        try:
            staged.logs.mkdir(mode=0o700)
            disk.reserve(staged.reserve)
        except OSError:
            staged.remove()
            lock.close()
            raise
        return staged, lock

    def settle(self, run_id: str) -> JobDir:
        """Give a staged directory the name of its run; locks move along."""
        target = JobDir.of_run(run_id)
        self.path.rename(target.path)
        return target

    def beside(self, run_id: str) -> JobDir:
        """The directory of another run of the same home."""
        return JobDir(self.path.parent / run_id)

    def remove(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def exists(self) -> bool:
        """Whether the job is known on this machine."""
        return self._job.exists()

    @property
    def job(self) -> JobSpec:
        """The description of the job."""
        job = JobSpec.from_json(self._job.read_text(encoding="utf-8", errors="surrogateescape"))
        # A submitter that was killed has not written the run's id yet, but the directory has its name.
        return job if job.run_id else replace(job, run_id=self.path.name)

    def write_job(self, job: JobSpec) -> None:
        """Store the description of the job."""
        write_atomic(self._job, job.to_json())

    def write_job_id(self, job_id: str) -> None:
        """Store the scheduler's id of the job."""
        write_atomic(self._job_id, job_id)

    @property
    def job_id(self) -> str | None:
        """The scheduler's id of the job, once it has one."""
        return self._job_id.read_text(encoding="utf-8") if self._job_id.exists() else None

    def restore_source(self, job: JobSpec) -> None:
        """Make the working copy of the sources if it is not there yet; raises ProjectError."""
        if job.snapshot is not None and not self.source.exists():
            restore(self.snapshots, job.snapshot, self.source)

    @property
    def workdir(self) -> Path:
        """Where the ranks start."""
        return self.source / self.job.subdirectory

    @property
    def outputs(self) -> Path:
        """What the ranks leave here becomes artifacts."""
        return self.workdir / "outputs"

    def rank_log(self, rank: int) -> Path:
        """The combined standard output and error of one rank."""
        return self.logs / f"rank_{rank}.log"

    def rank_logs(self) -> list[Path]:
        """The logs of the ranks that have started, by rank."""
        return sorted(self.logs.glob("rank_*.log"), key=lambda path: int(path.stem.split("_")[1]))

    def enter(self, phase: Phase, message: str = "") -> None:
        """Record that a phase begins or has something to say; a full disk costs no more than that."""
        with disk.ignored():
            journal.append(self.journal, phase, message)

    def events(self) -> list[journal.Event]:
        """All that was recorded."""
        return journal.read(self.journal)

    @property
    def phase(self) -> Phase:
        """The phase the job is in."""
        outcome = self.outcome
        if outcome is not None and self.delivered.exists():
            return outcome.phase
        events = self.events()
        return events[-1].phase if events else Phase.PREPARING

    @property
    def attempt_file(self) -> Path:
        """Where the number of the current try stands."""
        return self._attempt

    def outcome_text(self) -> str | None:
        """The final word as it is written, for another machine."""
        return self._outcome.read_text(encoding="utf-8") if self._outcome.exists() else None

    def receive_outcome(self, text: str) -> None:
        """Keep the final word that was written on another machine, unless there is one."""
        if not self._outcome.exists():
            write_atomic(self._outcome, text)

    @property
    def outcome(self) -> Outcome | None:
        """The final word, or None while there is none."""
        raw = read_json(self._outcome)
        return None if raw is None else Outcome(**{**raw, "phase": Phase(raw["phase"])})

    def conclude(self, phase: Phase, reason: str, exit_code: int | None = None, **details: Any) -> Outcome:
        """Write the final word; it is durable before anybody is told."""
        last = max((event.time for event in self.events()), default=0.0)  # the clock may have been set back since
        outcome = Outcome(phase, reason, exit_code, max(last, round(time.time(), 3)), **details)
        text = _dump(asdict(outcome))
        try:
            try:
                write_atomic(self._outcome, text)
            except OSError as error:
                if not disk.is_full(error):
                    raise
                self.reserve.unlink(missing_ok=True)
                write_atomic(self._outcome, _dump(asdict(replace(outcome, ranks=None))))  # there is room for little
        except OSError as error:
            raise ProjectError(f"cannot write {self._outcome}: {error.strerror}; free space there") from error
        self.reserve.unlink(missing_ok=True)
        return outcome

    @property
    def attempt(self) -> int:
        """Number of the current try of the job, from 1; 0 before the first."""
        return int(read_json(self._attempt) or 0)

    def begin_attempt(self) -> int:
        """Count one more try."""
        number = self.attempt + 1
        write_atomic(self._attempt, str(number))
        return number

    def rank_records(self, attempt: int, node: str) -> Path:
        """Folder for what keepers below a launcher note, see ``nodes.records``."""
        return self.path / "ranks" / str(attempt) / node

    def launcher_logs(self) -> list[Path]:
        """The logs of programs that start ranks."""
        return sorted(path for name in ("torchrun", "mpirun") for path in self.logs.glob(f"{name}_*.log"))

    def request_cancel(self) -> None:
        """Ask whoever works on the job to end it."""
        self._cancel.touch(mode=0o600)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked the job to end."""
        return self._cancel.exists()

    @property
    def settled(self) -> float:
        """When all of it had been stored, or now; Unix seconds."""
        try:
            return self.delivered.stat().st_mtime
        except FileNotFoundError:
            return time.time()

    @property
    def alive(self) -> bool:
        """Whether any process works on the job."""
        return locks.is_held(self.lock)


def _dump(value: dict[str, Any]) -> str:
    import json

    return json.dumps({**value, "phase": str(value["phase"])}, indent=2) + "\n"
