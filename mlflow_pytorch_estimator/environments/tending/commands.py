"""``envs list|check|remove|prune``: look after the environments that jobs have left to the next ones."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.environments.tending import printing, quantities
from mlflow_pytorch_estimator.environments.tending.checkup import check as check_entries
from mlflow_pytorch_estimator.environments.tending.disk import joined
from mlflow_pytorch_estimator.environments.tending.prune import Pruner
from mlflow_pytorch_estimator.environments.tending.removal import NotRemoved
from mlflow_pytorch_estimator.environments.tending.removal import remove as remove_entry
from mlflow_pytorch_estimator.environments.tending.survey import KEY, survey
from mlflow_pytorch_estimator.jobdir import environments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _quantity(parse: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    def convert(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from None

    return convert


@click.group(short_help="Environments that jobs have left to the next ones.")
def commands() -> None:
    """Environments of jobs, in $GPU_CLUSTER_ENVIRONMENTS or at home."""


@commands.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts; sizes in bytes, times in Unix seconds.")
def list_entries(*, as_json: bool) -> None:
    """Print what is there, newest used first.

    FREES is what removing one gives back: most files of an environment are in uv's cache as well.

    \b
    gpu-cluster envs list
    """
    folder = environments()
    found = survey(folder)
    if as_json:
        click.echo(json.dumps(printing.survey_json(folder, found), indent=1))
        return
    for line in printing.survey_lines(folder, found):
        click.echo(line)


@commands.command(short_help="Compare all files with what was installed.")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Look at sizes only, do not read the files.")
def check(keys: tuple[str, ...], *, quick: bool) -> None:
    """Compare all files with what was installed; exit 1 if something is wrong.

    What is damaged is built again when a job wants it.

    \b
    gpu-cluster envs check --quick
    """
    folder = environments()
    for key in keys:
        try:
            _find(folder, key)
        except NotRemoved as error:
            raise click.BadParameter(f"{key} {error}") from None
    damaged = False
    for diagnosis in check_entries(folder, keys, content=not quick):
        damaged |= bool(diagnosis.problems)
        for line in printing.diagnosis_lines(diagnosis):
            click.echo(line)
    sys.exit(1 if damaged else 0)


@commands.command(short_help="Remove environments or Horovod wheels.")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
def remove(keys: tuple[str, ...]) -> None:
    """Remove environments or Horovod wheels, never one that a job has; exit 1 if one is still there.

    \b
    gpu-cluster envs remove e8aab417a8459f50
    """
    folder = environments()
    failed = False
    for key in dict.fromkeys(keys):
        try:
            taken = remove_entry(_find(folder, key))
        except NotRemoved as error:
            click.echo(f"{key} {error}", err=True)
            failed = True
        else:
            click.echo(f"removed {key}: {printing.freed(taken)}")
    sys.exit(1 if failed else 0)


@commands.command(short_help="Remove what was not used for long, or what is too much.")
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=_quantity(quantities.parse_duration),
    help="Remove what no job wanted for so long, such as 30d, 12h or 2w.",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=_quantity(quantities.parse_size),
    help="Remove what was not used for longest until the rest fits, such as 50G or 500M.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(*, older_than: float | None, max_size: int | None, dry_run: bool) -> None:
    """Remove what killed builds have left, and what the options say; never what a job has.

    Exit 1 if something could not be removed.

    \b
    gpu-cluster envs prune --older-than 30d --max-size 50G
    """
    folder = environments()
    removed, failed = [], False
    for item in Pruner(folder, older_than, max_size, dry_run).run():
        click.echo(printing.pruned_line(item, dry_run=dry_run), err=item.failed)
        failed |= item.failed
        if not item.kept:
            removed.append(item)
    taken = printing.freed(joined(item.usage for item in removed))
    left = joined(entry.usage for entry in survey(folder).entries).size
    click.echo(f"{len(removed)} {'would go' if dry_run else 'gone'}, {taken}; {quantities.show_size(left)} in {folder}")
    if max_size is not None and left > max_size and not dry_run:
        click.echo(f"more than {quantities.show_size(max_size)} are in use, or were not removed", err=True)
    sys.exit(1 if failed else 0)


def _find(folder: Path, key: str) -> Path:
    found = [parent / key for parent in (folder, wheels(folder)) if KEY.fullmatch(key) and (parent / key).is_dir()]
    if not found:
        raise NotRemoved(f"is no environment or wheel in {folder}: `envs list` prints the keys")
    return found[0]
