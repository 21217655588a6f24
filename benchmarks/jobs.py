"""What the scripts here share: a job of a script handed to the local scheduler, and an MLflow server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase


def start(script: str, ranks: int = 1, experiment: str = "0") -> JobDir:
    """Start a job of this interpreter in MLflow's current store; several ranks need torch in it."""
    staged, lock = JobDir.stage()
    staged.source.mkdir()
    (staged.source / "script.py").write_text(script, encoding="utf-8")
    run_id = MlflowClient().create_run(experiment).info.run_id
    directory = staged.settle(run_id)
    interpreter = InterpreterSpec("local", python=sys.executable)
    distribution = Distribution("torch", ranks) if ranks > 1 else Distribution()
    command = f"exec {sys.executable} script.py"
    job = JobSpec(run_id, experiment, "bench", "main", command, {}, interpreter, distribution=distribution)
    directory.write_job(job)
    load_scheduler("local").submit(job, directory, lock, os.environ)
    lock.close()
    return directory


def wait(directory: JobDir, phase: Phase = Phase.COMPLETED) -> float:
    """Until all of a job is in its run; the time of that."""
    while not directory.delivered.exists():
        time.sleep(0.005)
    ended = time.time()
    outcome = directory.outcome
    if outcome is None or outcome.phase is not phase:
        raise RuntimeError(f"not {phase}: {outcome}")
    while directory.alive:
        time.sleep(0.02)
    return ended


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server with a SQLite store, which proxies artifacts into ``stored``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "stored")),
    ]
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None:
                raise RuntimeError((folder / "server.log").read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own server
            return bool(response.status == 200)
    except OSError:
        return False


def current(uri: str) -> None:
    """Make a store MLflow's current one, here and in what is started."""
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
