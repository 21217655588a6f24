"""The part ``metrics`` of ``logs_and_outputs.py``."""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jobs
import mlflow
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Run, Workspace
from mlflow_pytorch_estimator.handle import JobHandle
from mlflow_pytorch_estimator.status import Phase

LOG = """
import os, struct, time
from mlflow_pytorch_estimator import Run
run = Run.get_context()
returned = os.open({path!r}, os.O_RDWR | os.O_CREAT)
number = 0
end = time.monotonic() + 120  # nobody cancels it if the benchmark is killed
while time.monotonic() < end:
    run.log("loss", number)
    number += 1
    os.pwrite(returned, struct.pack("q", number), 0)
"""


def metrics(uris: dict[str, str], folder: Path, count: int) -> None:
    """Metrics by the call, and what a canceled job loses."""
    for kind, uri in uris.items():
        jobs.current(uri)
        halves = [_log_both(count // 2) for _ in range(2)]
        each = {way: statistics.mean(half[way] for half in halves) for way in halves[0]}
        for way, seconds in each.items():
            print(f"metrics  {kind:<7} {way:<24} {seconds * 1e6:8.0f} us a value")
        ratio = each["mlflow.log_metric"] / each["Run.log"]
        print(f"metrics  {kind:<7} ratio {ratio:.0f}   goal 20")
        logged, stored = _canceled(folder / f"{kind}.returned")
        print(f"metrics  {kind:<7} canceled: {logged} logged, {logged - stored} lost   goal 0", flush=True)


def _log_both(count: int) -> dict[str, float]:
    client = MlflowClient()
    runs = [client.create_run("0").info.run_id for _ in range(4)]
    return {
        "Run.log": _each(partial(_ours, Workspace().get_run(runs[0])), count),
        "mlflow.log_metric": _each(partial(_one_by_one, runs[1]), 150),
        "the same, asynchronous": _each(partial(_asynchronously, runs[2]), 1000),
        "log_metrics of 10": _each(partial(_together, runs[3]), 100) / 10,
    }


def _ours(run: Run, count: int) -> None:
    for step in range(count):
        run.log("loss", 1 / (step + 1))
    if not run.flush():
        raise RuntimeError("not all was stored")


def _one_by_one(run: str, count: int) -> None:
    with mlflow.start_run(run):
        for step in range(count):
            mlflow.log_metric("loss", 1.0, step=step)


def _asynchronously(run: str, count: int) -> None:
    client = MlflowClient()
    for operation in [client.log_metric(run, "loss", 1.0, step=step, synchronous=False) for step in range(count)]:
        if operation is not None:
            operation.wait()


def _together(run: str, count: int) -> None:
    with mlflow.start_run(run):
        for step in range(count):
            mlflow.log_metrics({f"loss{place}": 1.0 for place in range(10)}, step=step)


def _each(action: Callable[[int], None], number: int) -> float:
    began = time.perf_counter()
    action(number)
    return (time.perf_counter() - began) / number


def _canceled(path: Path) -> tuple[int, int]:
    directory = jobs.start(LOG.format(path=str(path)))
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.05)
    time.sleep(4)
    JobHandle(directory).cancel()
    jobs.wait(directory, Phase.CANCELED)
    logged: int = struct.unpack("q", path.read_bytes())[0]
    history = MlflowClient().get_metric_history(directory.path.name, "loss")
    stored = {int(item.value) for item in history if item.value == item.step}
    return logged, len(stored & set(range(logged)))
