"""``cancel``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mlflow_pytorch_estimator.cli import completing, exits, finding, output
from mlflow_pytorch_estimator.errors import UnknownRunError

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.handle import JobHandle


_UNFINISHED = "unfinished"


@click.command(short_help="End jobs and everything that they started.")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completing.runs)
@click.option("--all", "everything", is_flag=True, help="All that have not ended, of those submitted from here.")
@click.option("--experiment", metavar="NAME", help="With --all: only those of this experiment.")
@output.json_option
def cancel(runs: tuple[str, ...], *, everything: bool, experiment: str | None, as_json: bool) -> None:
    """End jobs and everything that they started; their runs are Canceled then, KILLED in the words of MLflow.

    \b
    gpu-cluster cancel last
    gpu-cluster cancel --all --experiment birds

    Exit status 1 if one of them does not end.
    """
    if everything == bool(runs):
        raise click.UsageError("name the runs to cancel, or --all")
    if experiment and not everything:
        raise click.UsageError("--experiment goes with --all")
    found = _named(runs) if runs else _unfinished(experiment)
    unfinished = {item.run_id for item in found if item.directory.outcome is None}
    for item in found:  # all are asked before the first is waited for
        if item.run_id in unfinished:
            item.directory.request_cancel()
    ended = []
    for item in found:
        ended.append(_cancel(item) if item.run_id in unfinished else _told(item, now=False))
        if not as_json:
            click.echo(_line(ended[-1]))
    if as_json:
        output.print_json(ended)
    elif not found:
        click.echo("nothing to cancel")
    sys.exit(exits.FAILED if any(item["status"] == _UNFINISHED for item in ended) else exits.COMPLETED)


def _cancel(item: JobHandle) -> dict[str, Any]:
    item.cancel()
    return _told(item, now=item.directory.outcome is not None)


def _told(item: JobHandle, *, now: bool) -> dict[str, Any]:
    outcome = item.directory.outcome
    return {"run_id": item.run_id, "status": str(outcome.phase) if outcome else _UNFINISHED, "canceled_now": now}


def _line(ended: dict[str, Any]) -> str:
    if ended["status"] == _UNFINISHED:
        return f"run {ended['run_id']} does not end"
    return f"{'' if ended['canceled_now'] else 'nothing to cancel: '}run {ended['run_id']} ended {ended['status']}"


def _named(runs: tuple[str, ...]) -> list[JobHandle]:
    try:
        return [finding.handle(name) for name in dict.fromkeys(runs)]
    except UnknownRunError as error:
        raise click.ClickException(f"{error}; nothing was canceled" if len(runs) > 1 else str(error)) from error


def _unfinished(experiment: str | None) -> list[JobHandle]:
    from mlflow_pytorch_estimator.cli import jobs

    return [finding.handle(item.path.name) for item in jobs.here(experiment) if item.outcome is None]
