"""What this backend costs: an empty project, ``--env-manager local``, against MLflow's own local backend.

Runs the two in turn, A B A B ..., each with a SQLite store of its own, and prints for both the time of the whole
command and the time until the first line of the user's program stands on the terminal, then the ratios of the
medians. Usage: ``python benchmarks/submit_overhead.py [--rounds 10]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FIRST_LINE = b"first line of the program"
PROJECT = f"name: empty\nentry_points:\n  main:\n    command: echo {FIRST_LINE.decode()}\n"


@dataclass(frozen=True)
class Timing:
    """Seconds from the start of the command."""

    first_line: float
    whole: float


def measure(backend: str, folder: Path) -> Timing:
    """Run the empty project once."""
    command = [sys.executable, "-m", "mlflow", "run", "project", "-b", backend, "--env-manager", "local"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ.update(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/{backend}.db", GPU_CLUSTER_HOME=str(folder / "home"))
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if process.stdout is None:
        raise RuntimeError("no pipe")
    first = 0.0
    for line in process.stdout:
        if FIRST_LINE in line:
            first = time.perf_counter() - began
    if process.wait() != 0 or not first:
        raise RuntimeError(f"{backend}: exit status {process.returncode}, first line {'seen' if first else 'missing'}")
    return Timing(first, time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    backends = ("gpu-cluster", "local")
    timings: dict[str, list[Timing]] = {backend: [] for backend in backends}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "project").mkdir()
        (folder / "project/MLproject").write_text(PROJECT, encoding="utf-8")
        for number in range(rounds + 1):
            for backend in backends if number % 2 else reversed(backends):
                timing = measure(backend, folder)
                if number:  # the first round creates databases and bytecode
                    timings[backend].append(timing)
    print(f"{rounds} rounds, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}; seconds, median (min to max)")
    for what in ("first_line", "whole"):
        values = {backend: [getattr(timing, what) for timing in timings[backend]] for backend in backends}
        for backend in backends:
            low, middle, high = min(values[backend]), statistics.median(values[backend]), max(values[backend])
            print(f"{what:<11} {backend:<12} {middle:.2f} ({low:.2f} to {high:.2f})")
        ratio = statistics.median(values["gpu-cluster"]) / statistics.median(values["local"])
        print(f"{what:<11} ratio        {ratio:.2f}")


if __name__ == "__main__":
    main()
