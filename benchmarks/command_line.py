"""How long a person waits for ``gpu-cluster``: the help, and the list of a thousand runs, against MLflow's command.

Makes a SQLite store of runs whose job directories are here, all ended, and runs the commands in turn, A B A B ...:
``gpu-cluster --help`` and ``mlflow --help``, ``gpu-cluster runs`` and ``mlflow runs list``. Prints medians and ratios.
Usage: ``python benchmarks/command_line.py [--runs 1000] [--rounds 5]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import jobdir, tags
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase

OURS = [sys.executable, "-m", "mlflow_pytorch_estimator"]
MLFLOW = [sys.executable, "-m", "mlflow"]


def fill(folder: Path, runs: int) -> None:
    """Make the runs and what their jobs have left."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    with jobdir.at_home(folder / "home"):
        for number in range(runs):
            failed = number % 5 == 0
            phase = Phase.FAILED if failed else Phase.COMPLETED
            run = client.create_run("0", run_name=f"run {number}", tags={tags.SCHEDULER: "local"})
            run_id = run.info.run_id
            stamp = int(time.time() * 1000)
            client.log_batch(
                run_id,
                [Metric("loss", 1 / (step + 1), stamp, step) for step in range(3)],
                [Param("lr", "0.1")],
                [RunTag(tags.STATUS, str(phase))],
            )
            client.set_terminated(run_id, phase.mlflow_status)
            directory = JobDir.of_run(run_id)
            directory.path.mkdir(parents=True)
            directory.write_job(JobSpec(run_id, "0", "toy", "main", "true", {}, InterpreterSpec("local")))
            for event in (Phase.QUEUED, Phase.RUNNING, Phase.FINALIZING):
                directory.enter(event)
            directory.conclude(phase, "rank 0 exited with status 1" if failed else "", int(failed))
            directory.delivered.touch()


def seconds(command: list[str], folder: Path) -> float:
    """One run of a command."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ.update(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", GPU_CLUSTER_HOME=str(folder / "home"))
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    pairs = {
        "help": ([*OURS, "--help"], [*MLFLOW, "--help"]),
        f"{given.runs} runs": (
            [*OURS, "runs", "-n", str(given.runs)],
            [*MLFLOW, "runs", "list", "--experiment-id", "0"],
        ),
    }
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), given.runs)
        for what, commands in pairs.items():
            found: list[list[float]] = [[], []]
            for _ in range(given.rounds + 1):
                for kept, command in zip(found, commands, strict=True):
                    kept.append(seconds(command, Path(name)))
            medians = [statistics.median(kept[1:]) for kept in found]  # the first round writes bytecode
            for who, kept, median in zip(("gpu-cluster", "mlflow"), found, medians, strict=True):
                print(f"{what:<12}{who:<12}{median:.2f} ({min(kept[1:]):.2f} to {max(kept[1:]):.2f})")
            print(f"{what:<12}{'ratio':<12}{medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
