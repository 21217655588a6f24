"""The clock of the machine is set back by an hour while jobs run: nothing waits for it, and nothing takes minus one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Project, submit, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.cli import facts, main
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

# Read by every Python of the job but the keepers, which measure no time by this clock.
SHIFTED = """
import os, time
_real = time.time
time.time = lambda: _real() - 3600.0 * os.path.exists({mark!r})
"""
SCRIPT = """
import os, signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
os.makedirs("logs", exist_ok=True)
with open("logs/own.txt", "w") as file:
    file.write("own")
then = time.time()
os.utime("logs/own.txt", (then, then))
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clock is an hour late as long as this file is there."""
    path, shim, real = tmp_path / "late", tmp_path / "shim", time.time
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(SHIFTED.format(mark=str(path)))
    monkeypatch.setenv("PYTHONPATH", str(shim), prepend=":")
    monkeypatch.setattr(time, "time", lambda: real() - 3600.0 * path.exists())
    return path


def started(project: Project, go: Path, *words: str, **config: object) -> GpuClusterSubmittedRun:
    (project.path / "train.py").write_text(SCRIPT)
    project.entry("main", f"python train.py {go} {' '.join(words)}")
    running = submit(project, config=config)
    log = running.directory.rank_log(0)
    wait_until(lambda: log.exists() and "up" in log.read_text(), 60, "the rank")
    return running


def test_a_clock_that_is_set_back(store: MlflowClient, project: Project, tmp_path: Path, mark: Path) -> None:
    running = started(project, tmp_path / "go")
    wait_until(lambda: store.get_run(running.run_id).info.status == "RUNNING", 60, "the status")
    began = time.time()
    mark.touch()
    assert time.time() < began - 3000
    (tmp_path / "go").touch()
    assert running.wait()
    events, outcome = running.directory.events(), running.directory.outcome
    assert outcome is not None
    times = [event.time for event in events] + [outcome.time]
    assert times == sorted(times)
    entries = facts.timeline(running.directory)
    assert all(float(str(entry["seconds"])) >= 0 for entry in entries)
    assert facts.of(running.run_id).elapsed >= 0
    info = store.get_run(running.run_id).info
    assert info.end_time >= info.start_time
    assert "logs/own.txt" in {item.path for item in store.list_artifacts(running.run_id, "logs")}
    said = CliRunner().invoke(main, ["describe", running.run_id])
    assert said.exit_code == 0
    assert "-3" not in said.stdout.replace(running.run_id, "").replace(str(tmp_path), "").partition("Queued")[2]

    mark.unlink()
    began_at = time.monotonic()
    running = started(project, tmp_path / "never", max_run_duration_seconds=4)
    mark.touch()
    wait_until(lambda: running.directory.outcome is not None, 30, "the end of its time")
    assert time.monotonic() - began_at >= 4
    outcome = running.directory.outcome
    assert outcome is not None
    assert outcome.reason == "ran longer than max_run_duration_seconds (4 s)"

    mark.unlink()
    running = started(project, tmp_path / "never", "deaf", grace_period_seconds=1)
    mark.touch()
    began_at = time.monotonic()
    running.cancel()
    assert running.get_status() == "KILLED"
    assert 1 <= time.monotonic() - began_at < 15
