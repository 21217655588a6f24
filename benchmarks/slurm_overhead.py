"""What this backend costs on Slurm: the time to the first line, submissions per second, questions to the controller.

Starts a Slurm of its own on this machine (as the tests do), and measures in turn:

- a submission from a process that has MLflow loaded, until the first line of the user's program, against ``sbatch``
  of a script that starts the same program; goal: at most 1 s more
- how many jobs a loop submits in a second, one by one and as one array of runs, against a loop of ``sbatch``; goal: 0.5
- how often the controller is asked in a second while jobs wait in the queue; goal: less than once

Usage: ``python benchmarks/slurm_overhead.py [--rounds 5] [--many 20] [--watched 200] [--seconds 60]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import mlflow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from slurm_cluster import Slurm, cluster, watchers

PROGRAM = "import pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(repr(time.time()))\n"
PROJECT = """
name: empty
entry_points:
  main:
    parameters:
      mark: string
    command: python -S program.py {mark}
"""
ASKED = ("squeue", "sacct", "scontrol")
WRAPPER = '#!/bin/sh\necho {name} >>{log}\nexec {real} "$@"\n'
_LONGEST_SECONDS = 120.0
_SETTLE_SECONDS = 30.0


class Bench:
    """A project and a Slurm, and the two ways to submit."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "MLproject").write_text(PROJECT, encoding="utf-8")
        (self.project / "program.py").write_text(PROGRAM, encoding="utf-8")
        self._count = 0

    def mark(self) -> Path:
        """A file for a job to write when it has begun."""
        self._count += 1
        return self.folder / f"mark{self._count}"

    def ours(self, mark: Path, **options: object) -> None:
        """Submit through MLflow."""
        config = {"scheduler": "slurm", "cpus_per_node": 1, "scheduler_options": options}
        with redirect_stderr(StringIO()):
            mlflow.projects.run(
                str(self.project),
                backend="gpu-cluster",
                backend_config=config,
                parameters={"mark": str(mark)},
                env_manager="local",
                synchronous=False,
            )

    def bare(self, mark: Path, **options: object) -> None:
        """Submit with ``sbatch``."""
        chosen = [f"--{name}={value}" for name, value in options.items()]
        command = f"exec {sys.executable} -S {self.project}/program.py {mark}"
        subprocess.run(
            ["sbatch", "--parsable", "--output=/dev/null", *chosen],
            input=f"#!/bin/bash\n{command}\n",
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def first_line(self, submit: Callable[[Path], None]) -> float:
        """Seconds from a submission to the first line of the program."""
        mark = self.mark()
        began = time.time()
        submit(mark)
        deadline = time.monotonic() + _LONGEST_SECONDS
        while not mark.exists() or not mark.read_text():
            if time.monotonic() > deadline:
                raise RuntimeError("the job did not begin")
            time.sleep(0.02)
        return float(mark.read_text()) - began

    def rate(self, submit: Callable[..., None], count: int) -> float:
        """Submissions per second of a loop; the jobs wait, so that they do not compete with it."""
        began = time.perf_counter()
        for _ in range(count):
            submit(self.mark(), begin="now+1hour")
        seconds = time.perf_counter() - began
        self.clear()
        return count / seconds

    def clear(self) -> None:
        """End all jobs."""
        ids = self.slurm.command("squeue", "--noheader", "--format=%A").split()
        if ids:
            self.slurm.command("scancel", *ids)
        while self.slurm.command("squeue", "--noheader").strip():
            time.sleep(0.2)

    def quiet(self) -> None:
        """Wait until nobody watches any more, so that one measurement does not disturb the next."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        while watchers(self.folder / "home") and time.monotonic() < deadline:
            time.sleep(0.2)


@contextmanager
def counting(folder: Path) -> Iterator[Path]:
    """Programs first on ``PATH`` that count how often they are called; gives the file with a line for each call."""
    log, programs = folder / "asked", folder / "programs"
    programs.mkdir()
    log.touch()
    before = os.environ["PATH"]
    for name in ASKED:
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (programs / name).write_text(WRAPPER.format(name=name, log=log, real=real))
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}:{before}"
    try:
        yield log
    finally:
        os.environ["PATH"] = before


def questions(bench: Bench, watched: int, seconds: float) -> dict[str, float]:
    """Calls of each program in a second while so many jobs wait."""
    with counting(bench.folder) as log:
        for _ in range(watched):
            bench.ours(bench.mark(), begin="now+1hour")
        time.sleep(_SETTLE_SECONDS)
        before = log.read_text().split()
        time.sleep(seconds)
        calls = log.read_text().split()[len(before) :]
        bench.clear()
    return {name: calls.count(name) / seconds for name in ASKED}


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure and print."""
    ways: dict[str, Callable[..., None]] = {"ours": bench.ours, "sbatch": bench.bare}
    first: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            seconds = bench.first_line(ways[name])
            bench.clear()
            bench.quiet()
            if number:  # the first round creates databases and bytecode
                first[name].append(seconds)
    for number in range(arguments.rounds):
        for name in ways if number % 2 else reversed(ways):
            rates[name].append(bench.rate(ways[name], arguments.many))
            bench.quiet()
    version = bench.slurm.command("sbatch", "--version").split()[1]
    print(f"{arguments.rounds} rounds, {os.cpu_count()} CPUs, Slurm {version}")
    _show("seconds to the first line", first)
    print(f"  difference of the medians: {statistics.median(first['ours']) - statistics.median(first['sbatch']):.2f} s")
    _show("submissions per second", rates)
    print(f"  ratio of the medians: {statistics.median(rates['ours']) / statistics.median(rates['sbatch']):.2f}")
    if arguments.watched:
        asked = questions(bench, arguments.watched, arguments.seconds)
        named = ", ".join(f"{name} {value:.2f}" for name, value in asked.items())
        print(f"questions per second with {arguments.watched} jobs in the queue: {sum(asked.values()):.2f} ({named})")


def _show(what: str, values: dict[str, list[float]]) -> None:
    print(f"{what}, median (min to max)")
    for name, found in values.items():
        print(f"  {name:<8} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")


def main() -> None:
    """Start a Slurm, measure, end it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=20)
    parser.add_argument("--watched", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with cluster(static=2) as slurm, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.update(SLURM_CONF=str(slurm.conf), GPU_CLUSTER_HOME=str(folder / "home"))
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_experiment("overhead")
        bench = Bench(slurm, folder)
        measure(bench, arguments)
        bench.clear()
        bench.quiet()


if __name__ == "__main__":
    main()
