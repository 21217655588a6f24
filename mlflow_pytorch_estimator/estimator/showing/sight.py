"""What there is to see of a run at one moment: near, from its job directory, and far, from the store."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator import tags as tag_names
from mlflow_pytorch_estimator.errors import one_line
from mlflow_pytorch_estimator.estimator.runs import details
from mlflow_pytorch_estimator.estimator.showing.logs import Logs
from mlflow_pytorch_estimator.estimator.showing.reading import Reader, Stored, reader
from mlflow_pytorch_estimator.estimator.showing.series import Point, Series
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.page import waiting_reason
from mlflow_pytorch_estimator.reconcile import reconcile
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import page_url

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

CHARTS = 12
"""How many metrics are drawn at a time."""
_HERE = "this machine"


@dataclass(frozen=True)
class Child:
    """A run below a run."""

    run_id: str
    name: str
    phase: Phase
    url: str | None


@dataclass(frozen=True)
class Sight:
    """A run at one moment. ``elapsed`` is seconds since the ranks began, until now or the end."""

    run_id: str
    experiment: str
    phase: Phase
    name: str = ""
    url: str | None = None
    reason: str = ""
    """Why it waits, failed or was canceled."""
    traceback: str = ""
    compute: str = ""
    notice: str = ""
    phases: tuple[tuple[str, float], ...] = ()
    elapsed: float | None = None
    canceling: bool = False
    cancelable: bool = False
    logs: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    latest: Mapping[str, Point] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    """Names of the script's own metrics, of which ``series`` are some."""
    series: tuple[Series, ...] = ()
    children: tuple[Child, ...] = ()
    trouble: str = ""
    """Why what is shown may be old."""


class Watched:
    """A run that somebody looks at. ``near`` costs next to nothing, ``far`` is bounded and raises MlflowException."""

    def __init__(self, run: Run) -> None:
        self.run = run
        workspace = run.experiment.workspace
        self._stores = workspace.stores
        with workspace.at_home():
            found = JobDir.of_run(run.id)
        self.directory = found if found.exists else None
        self._reader: Reader = reader(self._stores)
        self.logs = Logs(run, self.directory)
        self._drawn: dict[str, tuple[Point, Series]] = {}

    def blank(self) -> Sight:
        """Before anything was read."""
        return Sight(self.run.id, self.run.experiment.name, Phase.PREPARING, trouble="reading the run")

    def near(self, seen: Sight) -> Sight:
        """What the job directory says now; nothing new where it is elsewhere, or has been removed."""
        if self.directory is None or not self.directory.exists:
            return seen
        return _near(self.directory, seen)

    def far(self, seen: Sight, first: int = 0) -> Sight:
        """What the store says now, with charts of the metrics from number ``first`` on."""
        stored = self._reader.run(self.run.id)
        self._conclude()
        metrics = tuple(stored.own_metrics())
        return replace(
            seen if self.directory is not None else _elsewhere(stored, seen, self.logs.stored()),
            name=stored.name,
            url=page_url(self.run.experiment.id, self.run.id, self._stores.tracking_uri),
            compute=stored.tags.get(tag_names.COMPUTE, _HERE if self.directory else ""),
            notice=stored.tags.get(tag_names.NOTICE, ""),
            tags=stored.tags,
            latest=stored.latest,
            metrics=metrics,
            series=tuple(self._series(name, stored.latest[name]) for name in metrics[first : first + CHARTS]),
            children=tuple(self._children()),
            trouble="",
        )

    def _conclude(self) -> None:
        """For a job whose processes were all killed: nobody else would write its end."""
        directory = self.directory
        if directory is not None and directory.exists and not directory.delivered.exists():
            reconcile(directory, self._stores)

    def _series(self, name: str, latest: Point) -> Series:
        """As it was read before, as long as its newest value is the same."""
        known = self._drawn.get(name)
        if known is None or not _same(known[0], latest):
            known = latest, self._reader.series(self.run.id, name)
            self._drawn[name] = known
        return known[1]

    def _children(self) -> list[Child]:
        experiment = self.run.experiment.id
        found = self._reader.children(experiment, self.run.id)
        uri = self._stores.tracking_uri
        return [
            Child(child.run_id, child.name, _phase(child), page_url(experiment, child.run_id, uri)) for child in found
        ]


def look(watched: Watched) -> Sight:
    """One look at a run, near and far; a store that is away is said in ``trouble``."""
    seen = watched.near(watched.blank())
    try:
        return watched.near(watched.far(seen))
    except MlflowException as error:
        return replace(seen, trouble=f"the store does not answer: {one_line(error)}")


def _near(directory: JobDir, seen: Sight) -> Sight:
    phase, events, outcome = directory.phase, directory.events(), directory.outcome
    running = [event.time for event in events if event.phase is Phase.RUNNING]
    begin = running[0] if running else events[0].time if events else None
    end = outcome.time if outcome else time.time()
    ended = outcome if outcome is not None and outcome.phase is not Phase.COMPLETED else None
    timeline = journal.timeline(events, end)
    return replace(
        seen,
        phase=phase,
        reason=ended.reason if ended else waiting_reason(phase, events),
        traceback=_traceback(ended),
        phases=tuple((str(entry["phase"]), float(str(entry["seconds"]))) for entry in timeline),
        elapsed=max(0.0, end - begin) if begin is not None else None,
        canceling=directory.cancel_requested and not phase.terminal,
        cancelable=not phase.terminal,
        logs=tuple(sorted(details.local_logs(directory), key=_by_number)),
    )


def _same(one: Point, other: Point) -> bool:
    both = one.value == other.value or (math.isnan(one.value) and math.isnan(other.value))
    return both and (one.step, one.time) == (other.step, other.time)


def _traceback(ended: Outcome | None) -> str:
    return str((ended.failure or {}).get("traceback") or "") if ended else ""


def _elsewhere(stored: Stored, seen: Sight, logs: tuple[str, ...]) -> Sight:
    """A run whose job directory is not here: what its tags say."""
    phase, job = _phase(stored), tag_names.STATUS in stored.tags
    end = stored.end or time.time()
    return replace(
        seen,
        phase=phase,
        reason=stored.tags.get(tag_names.FAILURE if phase.terminal else tag_names.WAITING, ""),
        elapsed=max(0.0, end - stored.start) if stored.start else None,
        logs=logs,
        cancelable=not phase.terminal and not job,  # a job is canceled where it was submitted
    )


def _phase(stored: Stored) -> Phase:
    return details.phase_of(stored.status, stored.tags)


def _by_number(name: str) -> tuple[bool, str, int]:
    """The ranks first, in their order."""
    kind, _, number = Path(name).stem.rpartition("_")
    return (kind != "rank", kind, int(number)) if number.isdigit() else (True, name, 0)
