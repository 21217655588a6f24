"""Start ``horovod_checks.py`` on several ranks, as a job starts them: the launcher's rendezvous and contract."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import ranks
from mlflow_pytorch_estimator.launchers import horovod, rendezvous
from mlflow_pytorch_estimator.launchers.base import LOOPBACK, Layout
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec

PROGRAM = Path(__file__).with_name("horovod_checks.py")
NODE = "localhost"


@dataclass
class Proof:
    """What ranks found."""

    results: list[dict[str, str]]
    """For each rank: name of a check -> empty, or the traceback."""
    logs: list[str]

    def reason(self, name: str) -> str:
        """Empty if every rank has passed a check."""
        reasons = [f"rank {rank}: {found[name]}" for rank, found in enumerate(self.results) if found.get(name)]
        missing = [rank for rank, found in enumerate(self.results) if name not in found]
        if missing:
            reasons += [f"rank {rank} did not get so far:\n{self.logs[rank][-2000:]}" for rank in missing]
        return "\n".join(reasons)


def prove(python: Path, folder: Path, names: Sequence[str], count: int = 2, seconds: float = 180) -> Proof:
    """Run checks on the ranks of one node; ends with all of them, at the latest after so many seconds."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOROVOD_"))}
    if any(name.startswith("training") for name in names):
        subprocess.run([python, PROGRAM, folder, "alone"], env=environ, check=True, timeout=seconds)
    server = rendezvous.serve(str(python), LOOPBACK, {NODE: count}, folder / "rendezvous.log", environ, ())
    started: list[ranks.Rank] = []
    try:
        address = server.address(lambda: False)
        assert address is not None
        place = Allocation(NODE, tuple(sorted(os.sched_getaffinity(0))), ())
        for command in horovod.launch(_job(python, folder, names, count), Layout((place,), count), 0, address):
            log = folder / f"rank_{command.rank}.log"
            started.append(ranks.start(command, log, folder, environ, ()))
        deadline = time.monotonic() + seconds
        while any(rank.exit_code is None for rank in started) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        for process in (server.process, *(rank.process for rank in started)):
            process.send_signal(1)  # SIGHUP: the keeper kills everything and then ends itself
            process.wait(20)
    return Proof([_result(folder, rank) for rank in range(count)], [rank.log.read_text() for rank in started])


def _job(python: Path, folder: Path, names: Sequence[str], count: int) -> JobSpec:
    command = " ".join([f"'{python}'", f"'{PROGRAM}'", f"'{folder}'", *names])
    interpreter = InterpreterSpec("local", python=str(python))
    return JobSpec("r1", "0", "checks", "main", command, {}, interpreter, distribution=Distribution("horovod", count))


def _result(folder: Path, rank: int) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / f"rank_{rank}.json").read_text())
    except FileNotFoundError:
        return {}
    return found
