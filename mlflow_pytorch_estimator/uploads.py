"""Files of the job on their way into the run's artifacts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import artifactcopy, journal
from mlflow_pytorch_estimator.environments import local_freeze
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_PAUSE_PER_UPLOAD_SECOND = 20.0


class LiveLogs:
    """Uploads logs that grow. MLflow cannot append, so the pause grows with what an upload costs."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._sizes: dict[Path, int] = {}
        self._next = 0.0

    def upload(self, logs: Sequence[Path]) -> None:
        """Upload those that have grown, if it is time."""
        began = time.monotonic()
        grown = [log for log in logs if log.stat().st_size > self._sizes.get(log, 0)]
        if began < self._next or not grown:
            return
        for log in grown:
            # A copy: an upload must not grow while it is under way.
            with tempfile.TemporaryDirectory(dir=log.parent.parent) as folder:
                copy = Path(shutil.copy2(log, folder))
                self._sizes[log] = copy.stat().st_size
                self._client.log_artifact(self._run_id, str(copy), "logs")
        pause = _PAUSE_PER_UPLOAD_SECOND * (time.monotonic() - began)
        self._next = time.monotonic() + min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, pause))


def upload_results(
    client: MlflowClient, directory: JobDir, job: JobSpec, outcome: Outcome, concealer: Concealer
) -> list[str]:
    """Upload logs, outputs and our own records; returns what could not be stored, each with its reason."""
    problems: list[str] = []

    def attempt(what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - an artifact store may fail in any way; the status must still arrive
            problems.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")

    logs = [log for log in _logs(directory) if log.exists()]
    for log in logs:
        attempt(f"logs/{log.name}", partial(client.log_artifact, job.run_id, str(log), "logs"))
    if directory.outputs.is_dir() and any(directory.outputs.iterdir()):
        attempt("outputs", lambda: _upload_tree(client, job.run_id, directory.outputs, directory.path))
    if (directory.workdir / "logs").is_dir():
        attempt("logs", lambda: _upload_script_logs(client, job.run_id, directory))
    attempt("gpu_cluster", lambda: _upload_records(client, directory, job, outcome, concealer))
    return problems


def _logs(directory: JobDir) -> list[Path]:
    return [
        *directory.rank_logs(),
        *directory.launcher_logs(),
        directory.environment_log,
        directory.relay_log,
    ]


def _upload_tree(client: MlflowClient, run_id: str, tree: Path, scratch: Path) -> None:
    if not artifactcopy.has_links(tree):
        _store(client, run_id, tree)
        return
    # A link could lead anywhere: what it points to outside of the outputs is not the job's to publish.
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        _copy_without_escapes(tree, Path(folder))
        _store(client, run_id, Path(folder))


def _store(client: MlflowClient, run_id: str, tree: Path) -> None:
    folder = artifactcopy.folder_of(client.get_run(run_id).info.artifact_uri)
    if folder is None:
        client.log_artifacts(run_id, str(tree), "outputs")
    else:
        artifactcopy.copy_tree(tree, folder / "outputs")


def _upload_script_logs(client: MlflowClient, run_id: str, directory: JobDir) -> None:
    """What the script itself wrote under ``logs``; files that came with the sources are no results."""
    started = next((event.time for event in directory.events() if event.phase is Phase.RUNNING), 0.0)
    with tempfile.TemporaryDirectory(dir=directory.path) as folder:
        _copy_without_escapes(directory.workdir / "logs", Path(folder), started)
        for ours in directory.logs.iterdir():
            (Path(folder) / ours.name).unlink(missing_ok=True)
        if any(Path(folder).iterdir()):
            client.log_artifacts(run_id, folder, "logs")


def _copy_without_escapes(tree: Path, target: Path, since: float = 0.0) -> None:
    inside = tree.resolve()
    for root, _, files in os.walk(tree):
        for name in files:
            path = Path(root, name)
            real = path.resolve()
            if real.is_relative_to(inside) and real.is_file() and real.stat().st_mtime >= since:
                copy = target / path.relative_to(tree)
                copy.parent.mkdir(parents=True, exist_ok=True)
                os.link(real, copy)


def _upload_records(
    client: MlflowClient, directory: JobDir, job: JobSpec, outcome: Outcome, concealer: Concealer
) -> None:
    events = directory.events()
    records = {
        "job.json": job.to_json(),
        "timeline.json": json.dumps(journal.timeline(events, time.time()), indent=2) + "\n",
    }
    if directory.environment.exists():
        records["environment.txt"] = directory.environment.read_text(encoding="utf-8")
    elif job.interpreter.manager == "local":  # the job was faster than its reporter
        records["environment.txt"] = local_freeze()
    if directory.horovod.exists():
        records["horovod.txt"] = directory.horovod.read_text(encoding="utf-8")
    if outcome.failure is not None or outcome.reason:
        failure = outcome.failure or {"reason": outcome.reason, "exit_code": outcome.exit_code}
        records["failure.json"] = json.dumps(failure, indent=2, ensure_ascii=False) + "\n"
    with tempfile.TemporaryDirectory(dir=directory.path) as folder:
        for name, text in records.items():
            write_atomic(Path(folder) / name, concealer.conceal(text))
        client.log_artifacts(job.run_id, folder, "gpu_cluster")
