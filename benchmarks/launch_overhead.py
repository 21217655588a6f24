"""What starting ranks costs: an empty job of several ranks through this backend, against the bare launchers.

The same script (it prints one line and ends) is started in turn by ``torchrun`` and by a job with
``"distributed_training": "torchrun"``, by ``horovodrun`` and by a job with ``"horovod"``. A job is timed from the
moment when it is handed to the local scheduler, as the preparer does it, to the first line of its last rank, and to the
moment when nothing of it runs any more (its logs are uploaded afterwards); what comes before, in the submitting
process, is in ``submit_overhead.py``. Prints medians and ratios. Needs an interpreter with torch, Horovod and this
package: ``python benchmarks/launch_overhead.py --python ENV/bin/python [--rounds 10] [--ranks 2]``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = "import pathlib, time\npathlib.Path({folder!r}, str(time.time_ns())).touch()\nprint('up', flush=True)\n"


@dataclass(frozen=True)
class Timing:
    """Seconds from the start."""

    first_lines: float
    whole: float


class Bench:
    """Starts the script in every way."""

    def __init__(self, folder: Path, python: Path, ranks: int) -> None:
        self._folder = folder
        self._python = python
        self._ranks = ranks
        self._marks = folder / "marks"
        self._marks.mkdir()
        (folder / "empty.py").write_text(SCRIPT.format(folder=str(self._marks)), encoding="utf-8")

    def bare(self, *command: str) -> Timing:
        """Run a launcher's command line."""
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began = time.time()
        log = self._folder / "bare.log"
        with log.open("wb") as handle:
            status = subprocess.call(command, cwd=self._folder, env=environ, stdout=handle, stderr=handle)
        if status:
            raise RuntimeError(f"{command[0]} exited with status {status}: {log.read_text()[-500:]}")
        return Timing(self._last_mark() - began, time.time() - began)

    def job(self, kind: str) -> Timing:
        """Run a job of this backend."""
        from mlflow.tracking import MlflowClient

        from mlflow_pytorch_estimator.jobdir import JobDir
        from mlflow_pytorch_estimator.schedulers import load_scheduler
        from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
        from mlflow_pytorch_estimator.status import Phase

        staged, lock = JobDir.stage()
        staged.source.mkdir()
        (staged.source / "empty.py").write_bytes((self._folder / "empty.py").read_bytes())
        run_id = MlflowClient().create_run("0").info.run_id
        directory = staged.settle(run_id)
        interpreter = InterpreterSpec("local", python=str(self._python))
        distribution = Distribution(kind, self._ranks)
        job = JobSpec(run_id, "0", "empty", "main", "python empty.py", {}, interpreter, distribution=distribution)
        directory.write_job(job)
        scheduler = load_scheduler("local")
        began = time.time()
        scheduler.submit(job, directory, lock, os.environ)
        lock.close()
        while directory.outcome is None:
            time.sleep(0.005)
        ended = time.time()
        while directory.alive:
            time.sleep(0.05)
        if directory.outcome.phase is not Phase.COMPLETED:
            raise RuntimeError(f"{kind}: {directory.outcome}")
        return Timing(self._last_mark() - began, ended - began)

    def _last_mark(self) -> float:
        marks = sorted(self._marks.iterdir())
        if len(marks) != self._ranks:
            raise RuntimeError(f"{len(marks)} of {self._ranks} ranks have started")
        for mark in marks:
            mark.unlink()
        return int(marks[-1].name) / 1e9


def measure(folder: Path, python: Path, rounds: int, ranks: int) -> dict[str, list[Timing]]:
    """All ways in turn; the first round fills caches and is not counted."""
    bench = Bench(folder, python, ranks)
    script, bin_ = str(folder / "empty.py"), python.parent
    ways: dict[str, Callable[[], Timing]] = {
        "torchrun": lambda: bench.bare(str(bin_ / "torchrun"), "--nproc_per_node", str(ranks), script),
        "job, torchrun": lambda: bench.job("torch"),
        "horovodrun": lambda: bench.bare(str(bin_ / "horovodrun"), "-np", str(ranks), "--gloo", str(python), script),
        "job, horovod": lambda: bench.job("horovod"),
    }
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            timing = ways[name]()
            if number:
                timings[name].append(timing)
    return timings


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GPU_CLUSTER_HOME"] = str(folder / "home")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        timings = measure(folder, arguments.python.absolute(), arguments.rounds, arguments.ranks)
    print(f"{arguments.rounds} rounds, {arguments.ranks} ranks, {os.cpu_count()} CPUs; seconds, median (range)")
    medians: dict[tuple[str, str], float] = {}
    for what in ("first_lines", "whole"):
        for way, found in timings.items():
            values = [getattr(timing, what) for timing in found]
            medians[what, way] = statistics.median(values)
            print(f"{what:<12} {way:<14} {medians[what, way]:.2f} ({min(values):.2f} to {max(values):.2f})")
        for bare, job in (("torchrun", "job, torchrun"), ("horovodrun", "job, horovod")):
            print(f"{what:<12} {job} / {bare}: {medians[what, job] / medians[what, bare]:.2f}")
    print(json.dumps({f"{what} {way}": value for (what, way), value in medians.items()}), file=sys.stderr)


if __name__ == "__main__":
    main()
