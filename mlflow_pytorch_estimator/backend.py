"""MLflow's entry point: ``mlflow run . -b gpu-cluster`` and ``mlflow.projects.run(..., backend="gpu-cluster")``.

Everything that can be refused is refused before a run exists.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click
import mlflow
from mlflow.projects.backend.abstract_backend import AbstractBackend

from mlflow_pytorch_estimator import console, submission
from mlflow_pytorch_estimator.border import as_execution_exception
from mlflow_pytorch_estimator.config import SYNCHRONOUS, read_config
from mlflow_pytorch_estimator.dryrun.plan import Plan
from mlflow_pytorch_estimator.errors import DryRunError
from mlflow_pytorch_estimator.project_source import ProjectSource
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores


class GpuClusterBackend(AbstractBackend):
    """The project backend ``gpu-cluster``."""

    def run(  # noqa: PLR0913, PLR0917 - MLflow's signature
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any] | None,
        version: str | None,
        backend_config: Any,
        tracking_uri: str,
        experiment_id: str,
    ) -> GpuClusterSubmittedRun:
        """Submit an entry point; attached to a terminal, follow it to its end."""
        command_line = _mlflow_run_options()
        with as_execution_exception():
            config = read_config(backend_config, whole=False)
            options = backend_config if isinstance(backend_config, Mapping) else {}
            request = Request(
                source=ProjectSource(project_uri, entry_point, params or {}, version, options),
                experiment_id=str(experiment_id),
                stores=Stores(tracking_uri, mlflow.get_registry_uri()),
                run_name=(command_line or {}).get("run_name"),
                config=config,
            )
            if config.dry_run:
                _show(submission.plan(request), attached=command_line is not None)
            with console.terminal().busy("submitting"):
                submitted = submission.submit(request)
            announce(submitted, detach=config.detach, attached=command_line is not None)
            synchronous = bool(options.get(SYNCHRONOUS))
            if synchronous and not config.detach:
                return submitted.raising()
            if command_line is not None and not config.detach:
                submitted.raising().wait()
            return submitted


def _show(plan: Plan, *, attached: bool) -> NoReturn:
    """Print a plan and leave: MLflow would write tags into the run that it expects back, and there is none."""
    click.echo(str(plan))
    console.terminal().say("dry run: nothing was submitted")
    if attached:
        raise click.exceptions.Exit(0)
    raise DryRunError("dry run: nothing was submitted; this error's `plan` is what would have been", plan)


def announce(submitted: GpuClusterSubmittedRun, *, detach: bool, attached: bool) -> None:
    """Say which run it is and how to go on."""
    terminal = console.terminal()
    terminal.say(f"run {submitted.run_id}" + (f": {submitted.url}" if submitted.url else ""))
    for notice in submitted.directory.job.notices:
        terminal.say(f"note: {notice}")
    if detach:
        terminal.say("detached; the job goes on by itself")
        terminal.commands(submitted.run_id)
    elif attached:
        terminal.say("streaming; Ctrl-C lets go of the job, a second Ctrl-C within 5 s cancels it")


def _mlflow_run_options() -> dict[str, Any] | None:
    """The options of the ``mlflow run`` command that this process is, or None: MLflow passes on no run name."""
    module = sys.modules.get("mlflow.cli")
    context = click.get_current_context(silent=True)
    if module is None or context is None or context.command is not module.run:
        return None
    return dict(context.params)
