"""Waiting for a run, with or without its output."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow.entities import RunStatus

from mlflow_pytorch_estimator.attach import SilentTerminal, Terminal
from mlflow_pytorch_estimator.estimator.exceptions import ExperimentExecutionException
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.run import Run

_SHORTEST_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 15.0


def wait(run: Run, show_output: bool, raise_on_error: bool) -> None:
    """Block until the run has ended and is whole."""
    if show_output:
        _head(run)
    phase = _follow(run, show_output)
    if show_output:
        print(f"\nExecution Summary\n=================\nRunId: {run.id}\nStatus: {phase}", flush=True)
        _link(run)
    if phase is not Phase.COMPLETED and raise_on_error:
        reason = run.get_detailed_status()["details"]
        raise ExperimentExecutionException(f"run {run.id} ended {phase}" + (f": {reason}" if reason else ""), run.id)


def end_interactive(run: Run, status: str) -> None:
    """Set the final status of a run that no job works for; one that has ended stays as it is."""
    entity = run._read()
    if not RunStatus.is_terminated(RunStatus.from_string(entity.info.status)):
        run._client.set_terminated(run.id, status)


def _follow(run: Run, show_output: bool) -> Phase:
    job = run.job
    if job is not None and not run._inside:
        return job.follow(Terminal() if show_output else SilentTerminal()).phase
    pause, told = _SHORTEST_POLL_SECONDS, ""
    while True:
        phase = run._phase()
        if show_output and str(phase) != told:
            told = str(phase)
            print(told, flush=True)
        if phase.terminal:
            return phase
        time.sleep(pause)
        pause = min(_LONGEST_POLL_SECONDS, pause * 1.5)


def _head(run: Run) -> None:
    print(f"RunId: {run.id}")
    _link(run)
    title = "Streaming logs/rank_0.log"
    print(f"\n{title}\n{'=' * len(title)}\n", flush=True)


def _link(run: Run) -> None:
    url = run.get_portal_url()
    where = url or f"mlflow ui --backend-store-uri {run.experiment.workspace.get_mlflow_tracking_uri()}"
    print(f"Web View: {where}", flush=True)
