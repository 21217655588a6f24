"""Waiting for a run, with or without its output."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import console, tracking
from mlflow_pytorch_estimator.console import SilentTerminal, Terminal
from mlflow_pytorch_estimator.errors import DetachedError, GpuClusterError, one_line
from mlflow_pytorch_estimator.estimator.exceptions import ExperimentExecutionException
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import without_credentials

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

_SHORTEST_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 15.0


class _OnlyAnswers(SilentTerminal):
    """Says nothing of the job, but answers Ctrl-C."""

    def say(self, message: str, phase: Phase | None = None) -> None:
        """What is not about a phase."""
        if phase is None:
            Terminal.say(self, message)

    commands = Terminal.commands


def wait(run: Run, show_output: bool, raise_on_error: bool) -> None:
    """Block until the run has ended and is whole."""
    try:
        _wait(run, show_output, raise_on_error)
    except BrokenPipeError:
        raise DetachedError(f"nobody reads the output of run {run.id}; its job goes on", run.id) from None
    except MlflowException as error:
        store = without_credentials(run.experiment.workspace.get_mlflow_tracking_uri())
        raise GpuClusterError(
            f"the store {store} did not take the end of run {run.id}; the job itself is not affected, so wait again "
            f"later ({one_line(error)})"
        ) from error


def _wait(run: Run, show_output: bool, raise_on_error: bool) -> None:
    if show_output:
        _head(run)
    phase = _follow(run, show_output)
    if show_output:
        summary = f"\nExecution Summary\n=================\nRunId: {run.id}\nStatus: {phase}"
        print(f"{summary}\n{_link(run)}", flush=True)
    if phase is not Phase.COMPLETED and raise_on_error:
        reason = run.get_detailed_status()["details"]
        raise ExperimentExecutionException(f"run {run.id} ended {phase}" + (f": {reason}" if reason else ""), run.id)


def end_interactive(run: Run, status: str) -> None:
    """Set the final status of a run that no job works for; one that has ended stays as it is."""
    entity = run._read()
    if not RunStatus.is_terminated(RunStatus.from_string(entity.info.status)):
        tracking.end(run._client, run.id, status)


def _follow(run: Run, show_output: bool) -> Phase:
    job = run.job
    if job is not None and not run._inside:
        return job.follow(console.terminal() if show_output else _OnlyAnswers()).phase
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
    print(f"RunId: {run.id}\n{_link(run)}\n")
    title = "Streaming logs/rank_0.log"
    print(f"{title}\n{'=' * len(title)}\n", flush=True)


def _link(run: Run) -> str:
    url = run.get_portal_url()
    store = without_credentials(run.experiment.workspace.get_mlflow_tracking_uri())
    where = url or f"mlflow ui --backend-store-uri {shlex.quote(store)}"
    return f"Web View: {where}"
