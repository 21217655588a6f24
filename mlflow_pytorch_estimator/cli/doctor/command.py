"""``doctor``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from mlflow_pytorch_estimator.cli import exits, output
from mlflow_pytorch_estimator.cli.doctor import findings

_COLOURS = {findings.OK: "green", findings.WARN: "yellow", findings.FAIL: "red"}


@click.command(short_help="Check what jobs need of this machine and of MLflow.")
@output.json_option
def doctor(*, as_json: bool) -> None:
    """Check what jobs need of this machine and of MLflow; each line is ok, warn or fail, with the remedy.

    \b
    gpu-cluster doctor

    Exit status 1 if a line says fail.
    """
    from mlflow_pytorch_estimator.cli.doctor import machine, slurm, stores

    found = []
    for check in (machine.check, slurm.check, stores.check):
        for item in check():
            found.append(item)
            if not as_json:
                state = click.style(f"{item.state:<4}", fg=_COLOURS[item.state])
                click.echo(f"{state}  {item.name:<20}  {item.text}")
                if item.remedy:
                    click.echo(f"{'':<28}remedy: {item.remedy}")
    if as_json:
        output.print_json([asdict(item) for item in found])
    sys.exit(exits.FAILED if any(item.state == findings.FAIL for item in found) else exits.COMPLETED)
