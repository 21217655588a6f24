"""Kills a process that submits, at a random moment after it has begun to create its run, and looks what is left.

    MLFLOW_DISABLE_TELEMETRY=true python tests/submission_kills.py [--seeds 0 200]

MLflow's telemetry has threads, which a fork would lose.

Each seed is one submission: of a single job, of one with an input and therefore a preparer, or of an array. Its moment
is a function call or return of the submitting process, of the project's own code three times in four. Then a command
comes by: `gpu-cluster runs`, with or without `--repair`, or another submission. Afterwards no run may be open without a
job that lives, no job may live without an open run, and once all have ended nothing may be left: no process, no staging
directory, no run that is open. ``test_submission_kills.py`` runs a few of them.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter as Counted
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import mlflow.projects
import mlflow.store.tracking.sqlalchemy_store
from click.testing import CliRunner
from conftest import processes_with
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Environment, Experiment, ScriptRunConfig, Workspace, jobdir, tracking
from mlflow_pytorch_estimator.cli import main as gpu_cluster
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reconcile import lives
from mlflow_pytorch_estimator.schedulers.slurm import queries

PACKAGE = str(Path(jobdir.__file__).parent)
KINDS = ("single", "single", "input", "array")
COMMANDS = (("runs",), ("runs", "--repair"), ("submit",))
_OPEN = "attributes.status = 'RUNNING'", "attributes.status = 'SCHEDULED'"
WINDOWS: dict[str, CodeType] = {"run": tracking.create_run.__code__, "sbatch": queries.address.__code__}
"""The function with which the time begins in which a kill may come: the second is the first after `sbatch`."""
SHARES = {"run": 1.0, "sbatch": 0.25}
"""How much of the time to the end of the submission."""


@dataclass(frozen=True)
class Case:
    """One submission and its moment."""

    seed: int
    kind: str
    own: bool
    """Whether only events of the project's own code count."""
    moment: float
    """Which of them, as a share of all."""

    @classmethod
    def of(cls, seed: int) -> Case:
        """The case of a seed."""
        draw = random.Random(seed)
        return cls(seed, draw.choice(KINDS), draw.random() < 0.75, draw.random())


class Counter:
    """Counts calls and returns from the beginning of a window to the end of the submission; may end the process."""

    def __init__(
        self, window: CodeType, limit: int | None = None, *, own: bool = True, note: Path | None = None
    ) -> None:
        self.counts = {True: 0, False: 0}
        self._window, self._limit, self._own, self._note = window, limit, own, note
        self._open = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if not self._open:
            if event != "call" or frame.f_code is not self._window:
                return
            self._open = True
        self.counts[False] += 1
        if frame.f_code.co_filename.startswith(PACKAGE):
            self.counts[True] += 1
        if self._limit is not None and self.counts[self._own] > self._limit:
            if self._note is not None:
                self._note.write_text(_where(frame, event))
            os.kill(os.getpid(), signal.SIGKILL)


def _where(frame: FrameType | None, event: str) -> str:
    """The line of the project's own code."""
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {event}" if frame else event


class KilledError(Exception):
    """A child has been killed before it could answer."""


def apart(action: Callable[[], Any]) -> Any:
    """The answer of a child, which has all modules of this process and none of its connections to the store."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            MlflowClient()._tracking_client.store.engine.dispose(close=False)  # its connections are the parent's
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(action(), pipe)
            status = 0
        except BaseException:  # noqa: BLE001 - a child must never go on as its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGKILL:
        raise KilledError
    assert code == 0, f"a child ended with {code}"
    return pickle.loads(data)  # noqa: S301 - our own child's


@dataclass
class Ground:
    """Where the submissions take place: MLflow's current store, ``GPU_CLUSTER_HOME``."""

    folder: Path
    scheduler: str = "local"
    window: str = "run"
    places: dict[int, str] = field(default_factory=dict)
    """Seed -> where it was killed."""

    def __post_init__(self) -> None:
        source = self.folder / "source"
        source.mkdir()
        entries = "  main:\n    command: python train.py\n"
        entries += "  reading:\n    parameters: {data: path}\n    command: python train.py {data}\n"
        (source / "MLproject").write_text(f"name: toy\nentry_points:\n{entries}")
        (source / "train.py").write_text("open('outputs/a.txt', 'w').close()\n")
        self._source = str(source)
        self._first = self._submit_first()  # here, so that the children need not load all that it needs
        self._totals = {kind: apart(partial(self._count, kind)) for kind in self.kinds}

    @property
    def kinds(self) -> list[str]:
        """The kinds of submissions that pass through the window at all."""
        return [kind for kind in dict.fromkeys(KINDS) if self.window == "run" or kind == "single"]

    def _submit_first(self) -> str:
        run = self._project()
        assert run.wait()
        return str(run.run_id)

    def _project(self, **options: Any) -> Any:
        where = {"gpus_per_node": 0} if self.scheduler == "local" else {}
        config = {"scheduler": self.scheduler, "cpus_per_node": 1, "grace_period_seconds": 2, **where}
        settings = {"backend_config": config, "synchronous": False, "env_manager": "local", **options}
        return mlflow.projects.run(self._source, backend="gpu-cluster", **settings)

    def submit(self, kind: str, name: str) -> None:
        """Submit, as a user does."""
        if kind == "array":
            environment = Environment("as-it-is")
            environment.python.user_managed_dependencies = True
            job = ScriptRunConfig(self._source, "train.py", environment=environment)
            Experiment(Workspace(), name).submit_array(job, [{}, {}])
        elif kind == "input":
            data = {"data": f"runs:/{self._first}/outputs/a.txt"}
            self._project(entry_point="reading", parameters=data, experiment_name=name)
        else:
            self._project(experiment_name=name)

    def _count(self, kind: str) -> dict[bool, int]:
        counter = Counter(WINDOWS[self.window])
        sys.setprofile(counter)
        self.submit(kind, "not killed")
        sys.setprofile(None)
        return counter.counts

    def kill(self, case: Case) -> str:
        """Submit and be killed; where that was, "" if the submission came to its end first."""
        kind = case.kind if case.kind in self.kinds else self.kinds[0]
        limit = int(case.moment * SHARES[self.window] * self._totals[kind][case.own])

        def begin() -> None:
            sys.setprofile(Counter(WINDOWS[self.window], limit, own=case.own, note=self.folder / "where"))
            self.submit(kind, f"seed {case.seed}")

        try:
            apart(begin)
        except KilledError:
            return (self.folder / "where").read_text()
        return ""

    def come_by(self, command: tuple[str, ...]) -> None:
        """Let a command come by, ten seconds later as far as staging directories know."""
        for staged in (jobdir.home() / "jobs").glob(".new-*"):
            os.utime(staged, (time.time() - 10, time.time() - 10))
        apart(partial(self.submit, "single", "the next") if command == ("submit",) else partial(_invoke, command))


def _invoke(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(gpu_cluster, list(command))
    assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"


def _open_runs(client: MlflowClient) -> list[str]:
    experiments = [item.experiment_id for item in client.search_experiments()]
    return [run.info.run_id for wanted in _OPEN for run in client.search_runs(experiments, wanted, max_results=1000)]


def _directories() -> list[JobDir]:
    return [JobDir(path) for path in (jobdir.home() / "jobs").iterdir()]


def _known(directory: JobDir) -> str:
    """What is there to understand it by."""
    job, log = directory.job, directory.agent_log
    words = [f"{event.phase} {event.message}".strip() for event in directory.events()]
    said = log.read_text()[-1500:] if log.exists() else "no log of the agent"
    return f"{words}, {directory.outcome}, of array {job.array}, members {job.members}, id {directory.job_id}: {said}"


def inconsistent() -> list[str]:
    """Open runs without a job, and jobs without an open run."""
    client = MlflowClient()
    wrong = []
    for run_id in _open_runs(client):
        directory = JobDir.of_run(run_id)
        if not directory.exists:
            wrong.append(f"run {run_id} is open and has no job directory")
        elif directory.outcome is None and not lives(directory) and directory.outcome is None:
            wrong.append(f"run {run_id} is open, and nobody works on its job: {directory.events()[-1:]}")
    for directory in _directories():
        if directory.path.name.startswith(".new-") and directory.alive:
            wrong.append(f"{directory.path.name} is held by somebody")
        elif directory.alive and directory.outcome is None:
            status = client.get_run(directory.path.name).info.status
            if status not in {"RUNNING", "SCHEDULED"} and directory.outcome is None:
                wrong.append(f"job {directory.path.name} lives, and its run is {status}")
    return wrong


def left_over(home: Path, seconds: float = 120) -> list[str]:
    """What is still there when all jobs should have ended."""
    client, deadline = MlflowClient(), time.monotonic() + seconds
    while (still := _open_runs(client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    wrong = [f"run {run_id} is still open" for run_id in still]
    while (left := processes_with(str(home))) and time.monotonic() < deadline:
        time.sleep(0.2)
    wrong += [f"process {pid} is left" for pid in left]
    for directory in _directories():
        name, outcome = directory.path.name, directory.outcome
        if name.startswith(".new-"):
            wrong.append(f"staging directory {name} is left")
        elif outcome is None or not directory.delivered.exists():
            wrong.append(f"job {name} has no outcome, or nobody knows of it: {_known(directory)}")
        elif (status := client.get_run(name).info.status) != outcome.phase.mlflow_status:
            wrong.append(f"run {name} is {status}, its job {outcome.phase}")
    return wrong


def ends() -> dict[str, str]:
    """Experiment -> how its run ended, the one above of an array. Each seed has an experiment of its own."""
    client = MlflowClient()
    found = {}
    for experiment in client.search_experiments(max_results=10_000):
        for run in client.search_runs([experiment.experiment_id]):
            if "mlflow.parentRunId" not in run.data.tags:
                why = run.data.tags.get("gpu_cluster.failure", "").partition(";")[0]
                found[experiment.name] = f"{run.info.status} {why}".strip()
    return found


def play(ground: Ground, cases: Sequence[Case], command: tuple[str, ...]) -> list[str]:
    """Kill these submissions, let a command come by, and see everything end; what was wrong."""
    for case in cases:
        ground.places[case.seed] = ground.kill(case)
    ground.come_by(command)
    wrong: list[str] = apart(inconsistent)
    wrong += apart(partial(left_over, jobdir.home()))
    return wrong


def main() -> int:
    """Play the seeds; whether any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200))
    parser.add_argument("--command", nargs="+", help="always this one")
    parser.add_argument("--batch", type=int, default=20, help="so many are killed before a command comes by")
    parser.add_argument("--scheduler", default="local")
    parser.add_argument("--window", choices=WINDOWS, default="run")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # where MLflow puts artifacts
        os.environ["GPU_CLUSTER_HOME"] = f"{name}/home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        ground = Ground(Path(name), arguments.scheduler, arguments.window)
        seeds = range(*arguments.seeds)
        for number, start in enumerate(range(0, len(seeds), arguments.batch)):
            cases = [Case.of(seed) for seed in seeds[start : start + arguments.batch]]
            command = tuple(arguments.command or COMMANDS[number % len(COMMANDS)])
            began = time.monotonic()
            wrong = play(ground, cases, command)
            failed += bool(wrong)
            spent = f"{time.monotonic() - began:5.1f} s"
            print(f"{cases[0].seed:3}-{cases[-1].seed:3} {spent} {' '.join(command)}: {wrong or 'ok'}", flush=True)
        known = apart(ends)
        for seed in seeds:
            print(f"{seed:4} {ground.places[seed] or 'not killed':40} {known.get(f'seed {seed}', 'no run')}")
        told = Counted(known.get(f"seed {seed}", "no run") for seed in seeds)
        print("\n".join(f"{count:4} {end}" for end, count in told.most_common()))
    print(f"{failed} batches went wrong")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
