"""``runs``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.cli import output

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.cli.facts import Facts

_TITLES = ("RUN", "STATE", "ELAPSED", "COMPUTE", "METRIC", "NAME", "REASON")
_LESS = ("NAME", "METRIC", "COMPUTE")
"""What a narrow terminal does without, in this order."""
_REASON_WIDTH = 24
_MOST_STORES = 3
_STATES = ("Preparing", "Queued", "Scaling", "Running", "Finalizing", "Completed", "Failed", "Canceled")


@click.command(short_help="List runs: state, why they wait, where, how long, last metric.")
@click.option("--experiment", metavar="NAME", help="Only those of this experiment.")
@click.option(
    "--state",
    "states",
    type=click.Choice(_STATES, case_sensitive=False),
    multiple=True,
    help="Only these; several are possible.",
)
@click.option("--limit", "-n", type=click.IntRange(1), default=50, show_default=True, help="So many, the newest ones.")
@click.option("--watch", "-w", is_flag=True, help="Print again every two seconds, until Ctrl-C.")
@click.option("--repair", is_flag=True, help="End runs that were left RUNNING or SCHEDULED and whose job is nowhere.")
@output.json_option
def runs(  # noqa: PLR0913 - the options of a command
    *, experiment: str | None, states: tuple[str, ...], limit: int, watch: bool, repair: bool, as_json: bool
) -> None:
    """List the runs of this backend in the tracking store, newest first.

    \b
    gpu-cluster runs --state Running --state Queued
    gpu-cluster runs --experiment birds --watch

    Whatever it sees whose job has died without a word is ended with the reason.
    """
    from mlflow_pytorch_estimator.cli import jobs

    if watch and as_json:
        raise click.UsageError("--watch prints for people: leave out --json")
    jobs.tidy()
    if repair:
        from mlflow_pytorch_estimator.cli import repairing

        repairing.repair(experiment)
    try:
        while True:
            found = [item for item in jobs.stored(experiment, limit) if not states or item.phase in states]
            if as_json:
                output.print_json([item.summary() for item in found])
            else:
                _print(found, clear=watch, filtered=bool(states or experiment))
            if not watch:
                return
            time.sleep(2)
    except KeyboardInterrupt:
        if not watch:
            raise


def _print(found: list[Facts], *, clear: bool, filtered: bool) -> None:
    width = None
    if sys.stdout.isatty():
        import shutil

        width = shutil.get_terminal_size().columns
    if found:
        rows = [_TITLES, *map(_row, found)]
        titles, *rows = _fitting(rows, width) if width else rows
        lines = output.table(titles, rows, width)
    else:
        lines = ["no runs"] if filtered else _none()
    if clear and width:
        click.clear()
    click.echo("\n".join(lines))


def _fitting(rows: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Titles and rows with as many columns as leave room for the reason on a terminal."""
    room = min(_REASON_WIDTH, max(len(row[-1]) for row in rows))
    for title in _LESS:
        if output.width_of(rows) + room <= width:
            break
        column = rows[0].index(title)
        rows = [row[:column] + row[column + 1 :] for row in rows]
    return rows


def _none() -> list[str]:
    """That there is nothing, and where it was looked for."""
    import mlflow

    from mlflow_pytorch_estimator.cli import finding
    from mlflow_pytorch_estimator.tracking import absolute, without_credentials

    here = without_credentials(absolute(mlflow.get_tracking_uri()))
    others = sorted({uri for item in finding.every() if (uri := item.job.tracking_uri)} - {here})
    lines = [f"no runs in {here}"]
    if others:
        lines.append(f"jobs were submitted from here to {', '.join(others[:_MOST_STORES])}: set MLFLOW_TRACKING_URI")
    return lines


def _row(item: Facts) -> tuple[str, ...]:
    from mlflow_pytorch_estimator.journal import duration

    return (
        item.run_id[:8],
        output.coloured(item.phase),
        duration(item.elapsed),
        item.where,
        str(item.metric or ""),
        item.name,
        item.reason.replace("\n", " "),
    )
