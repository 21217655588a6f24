"""What a person waits for while a job runs and when it ends: its log, its outputs, its metrics.

``logs``: from a line written by a rank to the same line from ``gpu-cluster logs -f`` (goal: 95 % within 0.5 s), and to
the artifacts of the run as the pages of an MLflow server read them (goal: 15 s).
``outputs``: 2 GB in 1, 8 and 2,000 files, from the end of the rank until the run is FINISHED, against ``cp -r`` to the
same place (a local artifact store; goal 1.3) and ``mlflow artifacts log-artifacts`` (a server; goal 1.2). The job runs
until its agent has loaded MLflow. The files are in the page cache and on disk before; nothing is synced by either side.
``metrics``: 100,000 values through ``Run.log`` until ``flush`` returns, against ``mlflow.log_metric`` for each, by the
call (goal: 20 times as fast); and how many of the values whose ``log`` returned are missing after a job was canceled
in the middle (goal: none).

Usage: ``python benchmarks/logs_and_outputs.py [--only logs|outputs|metrics] [--rounds 2] [--megabytes 2048]``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jobs
import lines
import mlflow
import values
from mlflow.tracking import MlflowClient

LEAVE = """
import os, time
while not os.path.exists({go!r}):
    time.sleep(0.02)
os.makedirs("outputs", exist_ok=True)
for name in os.listdir({data!r}):
    os.link(os.path.join({data!r}, name), os.path.join("outputs", name))
with open({end!r}, "w") as handle:
    handle.write(repr(time.time()))
"""
SHAPES = {"1 file": 1, "8 files": 8, "2,000 files": 2000}


def deliver(data: Path, folder: Path, store: Path) -> float:
    """Seconds from the end of a rank that left the data as outputs until its run is FINISHED."""
    go, end = folder / "go", folder / "end"
    for mark in (go, end):
        mark.unlink(missing_ok=True)
    directory = jobs.start(LEAVE.format(go=str(go), data=str(data), end=str(end)))
    client = MlflowClient()
    while "gpu_cluster.status" not in (tags := client.get_run(directory.path.name).data.tags) or (
        tags["gpu_cluster.status"] != "Running"
    ):
        time.sleep(0.2)
    go.touch()
    seconds = jobs.wait(directory) - float(_content(end))
    if client.get_run(directory.path.name).info.status != "FINISHED":
        raise RuntimeError("the run is not FINISHED")
    stored = next(store.rglob(f"{directory.path.name}/artifacts/outputs"))
    if _sizes(stored) != _sizes(data):
        raise RuntimeError("not all outputs are there")
    shutil.rmtree(stored)
    return seconds


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def copy(data: Path, store: Path) -> float:
    """Seconds of ``cp -r``."""
    target = store / "copied"
    began = time.time()
    subprocess.run(["cp", "-r", str(data), str(target)], check=True)
    seconds = time.time() - began
    shutil.rmtree(target)
    return seconds


def log_artifacts(data: Path, store: Path) -> float:
    """Seconds of MLflow's command."""
    run = MlflowClient().create_run("0").info.run_id
    command = [sys.executable, "-m", "mlflow", "artifacts", "log-artifacts", "-l", str(data), "-r", run]
    began = time.time()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.time() - began
    shutil.rmtree(next(store.rglob(run)))
    return seconds


def outputs(uris: dict[str, str], folder: Path, rounds: int, megabytes: int) -> None:
    """Every shape into both kinds of store."""
    goals = {"local": ("cp -r", copy, 1.3), "server": ("log-artifacts", log_artifacts, 1.2)}
    stores = {"local": folder / "mlruns", "server": folder / "stored"}
    for shape, files in SHAPES.items():
        data = folder / "data"
        data.mkdir()
        block = os.urandom(megabytes * 1_048_576 // files)
        for number in range(files):
            (data / f"{number:04}.bin").write_bytes(block)
        del block
        os.sync()
        for kind, (name, theirs, goal) in goals.items():
            jobs.current(uris[kind])
            ways: dict[str, Callable[[], float]] = {
                "job": partial(deliver, data, folder, stores[kind]),
                name: partial(theirs, data, stores[kind]),
            }
            found = _in_turn(ways, rounds)
            for way, seconds in found.items():
                print(f"outputs  {shape:<12} {kind:<7} {way:<14} {_described(seconds)}")
            ratio = statistics.median(found["job"]) / statistics.median(found[name])
            print(f"outputs  {shape:<12} {kind:<7} {'ratio':<14} {ratio:.2f}   goal {goal}", flush=True)
        shutil.rmtree(data)


def _in_turn(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in reversed(ways) if number % 2 else ways:
            found[name].append(ways[name]())
    return found


def _described(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("logs", "outputs", "metrics"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--metrics", type=int, default=100_000)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with tempfile.TemporaryDirectory() as name, jobs.server(Path(name)) as address:
        folder = Path(name)
        os.environ["GPU_CLUSTER_HOME"] = str(folder / "home")
        os.chdir(folder)
        uris = {"local": f"sqlite:///{folder}/mlflow.db", "server": address}
        jobs.current(uris["local"])
        print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, MLflow {mlflow.__version__}")
        if given.only in {None, "logs"}:
            lines.logs(address)
        if given.only in {None, "metrics"}:
            values.metrics(uris, folder, given.metrics)
        if given.only in {None, "outputs"}:
            outputs(uris, folder, given.rounds, given.megabytes)


if __name__ == "__main__":
    main()
