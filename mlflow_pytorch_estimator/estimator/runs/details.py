"""What is known about a run: its phase, its details, its logs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.utils import mlflow_tags

from mlflow_pytorch_estimator import tags as tag_names
from mlflow_pytorch_estimator.failure import tail
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

_OF_MLFLOW = {
    "SCHEDULED": Phase.QUEUED,
    "RUNNING": Phase.RUNNING,
    "FINISHED": Phase.COMPLETED,
    "FAILED": Phase.FAILED,
    "KILLED": Phase.CANCELED,
}
_GIT = {mlflow_tags.MLFLOW_GIT_COMMIT: "git.commit", mlflow_tags.MLFLOW_GIT_REPO_URL: "git.repository"}
_LONGEST_LOG = 64 * 1024 * 1024


def phase(entity: Any, job: GpuClusterSubmittedRun | None) -> Phase:
    """The phase: what the job's directory says, else the job's tag, else what MLflow's status comes to."""
    if job is not None:
        return reconcile(job.directory, job.stores)
    return phase_of(entity.info.status, entity.data.tags)


def phase_of(mlflow_status: str, run_tags: Mapping[str, str]) -> Phase:
    """The phase of a run whose job is not here."""
    status = _OF_MLFLOW[mlflow_status]
    said = run_tags.get(tag_names.STATUS)
    if said in {str(item) for item in Phase} and Phase(said).mlflow_status == status.mlflow_status:
        return Phase(said)
    return status


def saying(run: Run, now: Phase) -> str:
    """The newest sentence about the run: why it failed, or what it waits for."""
    found = run.tags
    if now.terminal:
        return found.get(tag_names.FAILURE, "")
    job = run.job
    messages = [event.message for event in job.directory.events() if event.phase is now] if job else []
    return messages[-1] if messages else ""


def properties(run_tags: Mapping[str, str]) -> dict[str, str]:
    """The user's properties, and where the source came from."""
    own = {
        key.removeprefix(tag_names.PROPERTY): value
        for key, value in run_tags.items()
        if key.startswith(tag_names.PROPERTY)
    }
    git = {name: run_tags[key] for key, name in _GIT.items() if key in run_tags}
    return {**git, **own}


def details(run: Run) -> dict[str, Any]:
    """The dict of ``Run.get_details``; times are ISO 8601 in UTC."""
    entity, job = run._read(), run.job
    found = entity.data.tags
    now = run._phase()
    error = found.get(tag_names.FAILURE) if now in {Phase.FAILED, Phase.CANCELED} else None
    return {
        "runId": run.id,
        "target": found.get(tag_names.COMPUTE, "local"),
        "status": str(now),
        "startTimeUtc": _time(entity.info.start_time),
        "endTimeUtc": _time(entity.info.end_time),
        "error": {"error": {"code": str(now), "message": error}} if error else None,
        "warnings": [{"message": found[tag_names.NOTICE]}] if tag_names.NOTICE in found else [],
        "properties": properties(found),
        "inputDatasets": dict(job.directory.job.input_paths) if job else {},
        "outputDatasets": [],
        "runDefinition": _definition(job, entity),
        "logFiles": {name: f"runs:/{run.id}/{name}" for name in _log_names(run, job)},
        "submittedBy": found.get(mlflow_tags.MLFLOW_USER),
    }


def log_texts(run: Run) -> dict[str, str]:
    """The text of each log; of a job that runs, as it is now."""
    job = run.job
    local = _local_logs(job)
    return {
        name: tail(local[name], _LONGEST_LOG) if name in local else run.files.read_text(name)
        for name in _log_names(run, job)
    }


def save_logs(run: Run, folder: Path) -> list[str]:
    """Save each log below a folder."""
    saved = []
    for name, text in log_texts(run).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        saved.append(str(path))
    return saved


def _log_names(run: Run, job: GpuClusterSubmittedRun | None) -> list[str]:
    local = _local_logs(job)
    if job is not None and not job.directory.delivered.exists():
        return sorted(local)
    return sorted({*local, *(name for name in run.files.names() if name.startswith("logs/"))})


def _local_logs(job: GpuClusterSubmittedRun | None) -> dict[str, Path]:
    return local_logs(job.directory) if job else {}


def local_logs(directory: JobDir) -> dict[str, Path]:
    """The logs of a job that is here, by their names in the run; empty ones are left out."""
    ours = directory.agent_log  # it is not stored
    logs = (path for path in directory.logs.glob("*.log") if path != ours and path.stat().st_size)
    return {f"logs/{path.name}": path for path in logs}


def _definition(job: GpuClusterSubmittedRun | None, entity: Any) -> dict[str, Any]:
    if job is None:
        return {"script": entity.data.tags.get(mlflow_tags.MLFLOW_PROJECT_ENTRY_POINT), "arguments": {}}
    spec = job.directory.job
    return {
        "script": spec.entry_point,
        "command": spec.command,
        "arguments": dict(spec.parameters),
        "nodeCount": spec.resources.node_count,
        "processCountPerNode": spec.distribution.processes_per_node,
        "communicator": spec.distribution.kind,
        "environment": dict(spec.interpreter.description),
        "environmentVariables": list(spec.environment_variables),
        "maxRunDurationSeconds": spec.max_seconds,
    }


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc).isoformat()
