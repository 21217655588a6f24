"""``cancel``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.cli import exits, finding, output

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun


@click.command(short_help="End jobs and everything that they started.")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that have not ended, of those submitted from here.")
@click.option("--experiment", metavar="NAME", help="With --all: only those of this experiment.")
@output.json_option
def cancel(runs: tuple[str, ...], *, everything: bool, experiment: str | None, as_json: bool) -> None:
    """End jobs and everything that they started; their runs are then KILLED.

    \b
    gpu-cluster cancel last
    gpu-cluster cancel --all --experiment birds

    Exit status 1 if one of them does not end.
    """
    if everything == bool(runs):
        raise click.UsageError("name the runs to cancel, or --all")
    if experiment and not everything:
        raise click.UsageError("--experiment goes with --all")
    found = [finding.handle(name) for name in dict.fromkeys(runs)] if runs else _unfinished(experiment)
    ended = []
    for item in found:  # all are asked before the first is waited for
        if item.directory.outcome is None:
            item.directory.request_cancel()
    for item in found:
        before = item.directory.outcome
        if before is None:
            item.cancel()
        outcome = item.directory.outcome
        phase = str(outcome.phase) if outcome else "unfinished"
        ended.append({"run_id": item.run_id, "status": phase, "canceled_now": before is None and outcome is not None})
        if not as_json:
            click.echo(
                f"nothing to cancel: run {item.run_id} ended {phase}"
                if before
                else f"run {item.run_id} ended {phase}"
                if outcome
                else f"run {item.run_id} does not end"
            )
    if as_json:
        output.print_json(ended)
    elif not found:
        click.echo("nothing to cancel")
    sys.exit(exits.FAILED if any(item["status"] == "unfinished" for item in ended) else exits.COMPLETED)


def _unfinished(experiment: str | None) -> list[GpuClusterSubmittedRun]:
    from mlflow_pytorch_estimator.cli import jobs

    return [finding.handle(item.path.name) for item in jobs.here(experiment) if item.outcome is None]
