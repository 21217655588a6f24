"""Files of the job on their way into the run's artifacts."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import collecting, disk, journal, storing, timeline
from mlflow_pytorch_estimator.environments import local_freeze
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.progress import ProgressFile
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SHORTEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_PAUSE_PER_UPLOAD_SECOND = 10.0
_LARGEST_LIVE_BYTES = 64 << 20
_CHUNK = 1 << 20


class LiveLogs:
    """Uploads logs that grow. MLflow cannot append, so the pause grows with what an upload costs.

    What becomes very large is uploaded at the end only: gigabytes again and again would be the job's largest load.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._sizes: dict[Path, int] = {}
        self._next = 0.0

    def upload(self, logs: Sequence[Path]) -> None:
        """Upload those that have grown, if it is time."""
        began = time.monotonic()
        sizes = {log: log.stat().st_size for log in logs}
        grown = [log for log, size in sizes.items() if self._sizes.get(log, 0) < size <= _LARGEST_LIVE_BYTES]
        if began < self._next or not grown:
            return
        for log in grown:
            # A copy: an upload must not grow while it is under way.
            with tempfile.TemporaryDirectory(dir=log.parent.parent) as folder:
                copy = _beginning(log, sizes[log], Path(folder))
                self._sizes[log] = sizes[log]
                self._client.log_artifact(self._run_id, str(copy), "logs")
        pause = _PAUSE_PER_UPLOAD_SECOND * (time.monotonic() - began)
        self._next = time.monotonic() + min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, pause))


def _beginning(log: Path, size: int, folder: Path) -> Path:
    """A copy of so many bytes: one to the end would never end where a rank writes faster than it reads."""
    copy = folder / log.name
    with log.open("rb") as source, copy.open("wb") as target:
        while size > 0 and (data := source.read(min(size, _CHUNK))):
            size -= target.write(data)
    return copy


def upload_results(
    client: MlflowClient, directory: JobDir, job: JobSpec, outcome: Outcome, concealer: Concealer
) -> list[str]:
    """Upload logs, outputs and our own records; returns what could not be stored, each with its reason."""
    problems: list[str] = []

    def attempt(what: str, action: Callable[[], object]) -> None:
        try:
            left = action()
            if isinstance(left, str) and left:
                problems.append(f"{what}: {left}")
        except Exception as error:  # noqa: BLE001 - an artifact store may fail in any way; the status must still arrive
            problems.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")

    logs = [log for log in _logs(directory) if log.exists()]
    for log in logs:
        attempt(f"logs/{log.name}", partial(client.log_artifact, job.run_id, str(log), "logs"))
    if directory.outputs.is_dir() and any(directory.outputs.iterdir()):
        attempt("outputs", lambda: _upload_tree(client, job.run_id, directory))
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


def _upload_tree(client: MlflowClient, run_id: str, directory: JobDir) -> str:
    """Returns what was left out."""
    tree, progress = directory.outputs, ProgressFile(directory.progress)
    if collecting.is_plain(tree):
        storing.store(client, run_id, tree, directory.path, progress)
        return ""
    with tempfile.TemporaryDirectory(dir=directory.path) as folder:
        left = collecting.collect(tree, Path(folder))
        if any(Path(folder).iterdir()):
            storing.store(client, run_id, Path(folder), directory.path, progress)
    return collecting.told(left) if left else ""


def _upload_script_logs(client: MlflowClient, run_id: str, directory: JobDir) -> None:
    """What the script itself wrote under ``logs``; files that came with the sources are no results."""
    started = next((event.time for event in directory.events() if event.phase is Phase.RUNNING), 0.0)
    if time.time() < started:  # the clock was set back, and no time of a file says anything any more
        started = 0.0
    with tempfile.TemporaryDirectory(dir=directory.path) as folder:
        collecting.collect(directory.workdir / "logs", Path(folder), started)
        for ours in directory.logs.iterdir():
            (Path(folder) / ours.name).unlink(missing_ok=True)
        if any(Path(folder).iterdir()):
            client.log_artifacts(run_id, folder, "logs")


def _upload_records(
    client: MlflowClient, directory: JobDir, job: JobSpec, outcome: Outcome, concealer: Concealer
) -> None:
    events = directory.events()
    records = {
        "job.json": job.to_json(),
        "timeline.json": json.dumps(journal.timeline(events, time.time()), indent=2) + "\n",
    }
    records["timeline.svg"] = timeline.svg(events, outcome, time.time())
    if directory.environment.exists():
        records["environment.txt"] = directory.environment.read_text(encoding="utf-8")
    elif job.interpreter.manager == "local":  # the job was faster than its reporter
        records["environment.txt"] = local_freeze()
    if directory.horovod.exists():
        records["horovod.txt"] = directory.horovod.read_text(encoding="utf-8")
    if outcome.failure is not None or outcome.reason:
        failure = outcome.failure or {"reason": outcome.reason, "exit_code": outcome.exit_code}
        records["failure.json"] = json.dumps(failure, indent=2, ensure_ascii=False) + "\n"
    # Elsewhere if there is no room for them: they say how the job ended.
    with tempfile.TemporaryDirectory(dir=directory.path if disk.has_room(directory.path) else None) as folder:
        for name, text in records.items():
            write_atomic(Path(folder) / name, concealer.conceal(text))
        client.log_artifacts(job.run_id, folder, "gpu_cluster")
