"""``python -m mlflow_pytorch_estimator cancel|envs|horovod|logs|status``."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from mlflow_pytorch_estimator._version import __version__
from mlflow_pytorch_estimator.errors import GpuClusterError

_GROUPS = {"envs": "environments.tending", "horovod": "horovod"}
"""Name -> package whose module ``commands`` has the group, imported on use."""


class _Commands(click.Group):
    """Commands whose errors are one line; groups of them are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _GROUPS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"{__package__}.{_GROUPS[cmd_name]}.commands")
        group: click.Command = module.commands
        return group

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GpuClusterError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Follow and end jobs of the MLflow backend gpu-cluster, and tend what they run with."""


@main.command()
@click.argument("run_id")
def status(run_id: str) -> None:
    """Print the phase of a run's job, and the reason if it failed."""
    from mlflow_pytorch_estimator.reconcile import reconcile

    handle = _handle(run_id)
    phase = reconcile(handle.directory)
    outcome = handle.directory.outcome
    click.echo(f"{phase}: {outcome.reason}" if outcome and outcome.reason else str(phase))


@main.command()
@click.argument("run_id")
def cancel(run_id: str) -> None:
    """End a run's job and everything that it started; the run is then KILLED."""
    handle = _handle(run_id)
    before = handle.directory.outcome
    if before is not None:
        click.echo(f"nothing to cancel: run {run_id} ended {before.phase}")
        return
    handle.cancel()
    outcome = handle.directory.outcome
    click.echo(f"run {run_id} ended {outcome.phase}" if outcome else f"run {run_id} does not end")
    sys.exit(0 if outcome else 1)


@main.command()
@click.argument("run_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended; exit 0 only if it completed.")
def logs(run_id: str, *, follow: bool) -> None:
    """Print what a run's job has written."""
    from mlflow_pytorch_estimator.attach import Terminal, tail_of

    handle = _handle(run_id)
    if follow:
        sys.exit(0 if handle.wait() else 1)
    for log in handle.directory.rank_logs():
        tail = tail_of(handle.directory, log)
        while data := tail.read(last=True):
            Terminal().output(data)


def _handle(run_id: str) -> Any:
    # MLflow takes a second and a half to import; `--help` need not.
    from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

    return GpuClusterSubmittedRun.of_run(run_id)
