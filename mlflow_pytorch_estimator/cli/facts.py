"""What is known of a run: from its job directory if that is here, else from the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator import journal, tags
from mlflow_pytorch_estimator.cli import finding
from mlflow_pytorch_estimator.errors import UnknownRunError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.page import waiting_reason
from mlflow_pytorch_estimator.reconcile import glance
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.attach import Choice


@dataclass(frozen=True)
class Metric:
    """A value as it was logged."""

    name: str
    value: float
    step: int

    def __str__(self) -> str:
        return f"{self.name}={self.value:.4g}"


@dataclass(frozen=True)
class Facts:
    """One run. Times are Unix seconds."""

    run_id: str
    name: str
    phase: str
    reason: str
    """Why it failed or waits; "" for neither."""
    where: str
    """Compute target or scheduler, nodes and ranks."""
    submitted: float | None
    started: float | None
    """When the ranks began."""
    ended_at: float | None
    metric: Metric | None = None
    """The one that was logged last; None also where nobody asked the store."""
    asked: bool = False
    """Whether the store was asked."""
    undelivered: str = ""
    """What the artifact store did not take."""
    directory: JobDir | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return Phase(self.phase).terminal

    @property
    def elapsed(self) -> float:
        """Seconds since it was submitted, until the end."""
        return max(0.0, (self.ended_at or time.time()) - self.submitted) if self.submitted else 0.0

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "status": self.phase,
            "reason": self.reason,
            "compute": self.where,
            "submitted": self.submitted,
            "started": self.started,
            "ended": self.ended_at,
            "elapsed_seconds": round(self.elapsed, 3),
            **({"last_metric": asdict(self.metric) if self.metric else None} if self.asked else {}),
            "undelivered": self.undelivered,
            "job_directory": str(self.directory.path) if self.directory else None,
        }


def of(wanted: str) -> Facts:
    """The facts of a run by what a person types; raises UnknownRunError."""
    found = finding.local(wanted)
    return of_directory(found) if found is not None else of_entity(_entity(finding.run_id(wanted)))


def of_directory(directory: JobDir, entity: Any = None) -> Facts:
    """Of a job that was submitted from here; ``entity`` is its run, for what only the store knows."""
    phase = glance(directory)
    job, events, outcome = directory.job, directory.events(), directory.outcome
    running = [event.time for event in events if event.phase is Phase.RUNNING]
    reason = outcome.reason if outcome and outcome.phase is not Phase.COMPLETED else waiting_reason(phase, events)
    return Facts(
        run_id=directory.path.name,
        name=_name(entity) or job.run_name or f"{job.project}, {job.entry_point}",
        phase=str(phase),
        reason=reason,
        where=_where(tags.of_job(job), job.resources.node_count, job.distribution.processes_per_node),
        submitted=events[0].time if events else None,
        started=running[0] if running else None,
        ended_at=outcome.time if outcome and phase.terminal else None,
        metric=_metric(entity),
        asked=entity is not None,
        undelivered="; ".join(_lines(directory.undelivered)),
        directory=directory,
    )


def of_entity(entity: Any) -> Facts:
    """Of a run as the store has it."""
    from mlflow_pytorch_estimator.estimator.runs import details

    found, info = entity.data.tags, entity.info
    phase = details.phase(entity, None)
    failed = found.get(tags.FAILURE, "") if phase.terminal else found.get(tags.WAITING, "")
    return Facts(
        run_id=info.run_id,
        name=_name(entity),
        phase=str(phase),
        reason=failed,
        where=_where(found, 1, 1),
        submitted=info.start_time / 1000 if info.start_time else None,
        started=None,
        ended_at=info.end_time / 1000 if info.end_time else None,
        metric=_metric(entity),
        asked=True,
        undelivered=found.get(tags.UNDELIVERED, ""),
    )


def of_store(run_id: str) -> dict[str, Any]:
    """What only the tracking store knows of a run: empty while that does not answer."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from mlflow_pytorch_estimator import tracking

    client = MlflowClient()
    try:
        entity = client.get_run(run_id)
        experiment = client.get_experiment(entity.info.experiment_id).name
    except MlflowException:
        return {}
    own = {name: value for name, value in sorted(entity.data.metrics.items()) if not name.startswith("system/")}
    return {
        "experiment": experiment,
        "metrics": own,
        "last_metric": asdict(last) if (last := _metric(entity)) else None,
        "artifacts": tracking.without_credentials(entity.info.artifact_uri),
        "url": tracking.run_url(entity, client.tracking_uri),
        "retry_of": entity.data.tags.get(tags.RETRY_OF),
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def timeline(directory: JobDir) -> list[dict[str, object]]:
    """The phases of a job with their times; the last one lasts until now, or until all of it was stored."""
    return journal.timeline(directory.events(), directory.settled)


def stored_logs(run_id: str, choice: Choice) -> Iterator[Iterator[bytes]]:
    """The logs of ranks among the artifacts of a run, each piece by piece; raises UnknownRunError."""
    import tempfile

    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from mlflow_pytorch_estimator.attach import LogTail

    client = MlflowClient()
    try:
        _entity(run_id)
        names = [item.path for item in client.list_artifacts(run_id, "logs") if not item.is_dir]
        chosen = choice.of([Path(name) for name in names if Path(name).name.startswith("rank_")])
        for log in sorted(chosen, key=lambda path: int(path.stem.split("_")[1])):
            prefix = f"[{log.stem.replace('_', ' ')}] ".encode() if len(chosen) > 1 else b""
            with tempfile.TemporaryDirectory() as folder:
                tail = LogTail(Path(client.download_artifacts(run_id, str(log), folder)), prefix)
                yield iter(partial(tail.read, last=True), b"")
    except MlflowException as error:
        raise UnknownRunError(f"cannot read the logs of run {run_id}: {one_line(error)}") from error


def _entity(run_id: str) -> Any:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UnknownRunError(
            f"no job of run {run_id} on this machine, and the tracking store does not have it: {one_line(error)}"
        ) from error


def _where(found: Mapping[str, str], nodes: int, ranks: int) -> str:
    place = found.get(tags.COMPUTE) or found.get(tags.SCHEDULER, "")
    said = found.get(tags.DISTRIBUTION, "").rpartition(", ")[2].replace(" ", "")
    shape = said or (f"{nodes}x{ranks}" if nodes * ranks > 1 else "")
    return f"{place} {shape}".strip()


def _name(entity: Any) -> str:
    return str(entity.info.run_name or "") if entity is not None else ""


def _metric(entity: Any) -> Metric | None:
    if entity is None:
        return None
    own = [item for item in entity.data._metric_objs if not item.key.startswith("system/")]
    if not own:
        return None
    last = max(own, key=lambda item: (item.timestamp, item.step))
    return Metric(last.key, last.value, last.step)
