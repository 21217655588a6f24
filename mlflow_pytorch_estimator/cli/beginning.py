"""``init``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mlflow_pytorch_estimator.cli import words

_BACKEND_FILE = "gpu-cluster.json"


@click.command(short_help="Write a workspace's config.json and a backend config, by asking.")
@click.option("--tracking-uri", metavar="URI", help="Where runs go; asked for if left out.")
@click.option("--scheduler", type=click.Choice(["local", "slurm"]), help="Where jobs run; asked for if left out.")
@click.option("--slurm", metavar="[KEY=VALUE]", multiple=True, help="Option of sbatch, such as partition=gpu.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing, take what is usual.")
def init(*, tracking_uri: str | None, scheduler: str | None, slurm: tuple[str, ...], force: bool, yes: bool) -> None:
    """Write a workspace's config.json and a backend config into this folder, by asking.

    \b
    gpu-cluster init
    gpu-cluster init -y --scheduler slurm --slurm partition=gpu

    `Workspace.from_config()` finds .azureml/config.json, and `mlflow run . -b gpu-cluster -c gpu-cluster.json` takes
    the other.
    """
    workspace, backend = Path(".azureml/config.json"), Path(_BACKEND_FILE)
    there = [str(path) for path in (workspace, backend) if path.exists()]
    if there and not force:
        raise click.ClickException(f"{' and '.join(there)} there already: --force replaces")
    uri = tracking_uri or _asked("Tracking URI", _usual_uri(), yes=yes)
    options = words.pairs("--slurm", slurm)
    chosen = scheduler or ("slurm" if options else _asked("Scheduler (local or slurm)", _usual_scheduler(), yes=yes))
    if chosen not in {"local", "slurm"}:
        raise click.BadParameter(f"{chosen!r} is neither local nor slurm", param_hint="--scheduler")
    if chosen == "slurm" and not options and not yes:
        partition = click.prompt("Partition (empty: the site's default)", default="", show_default=False)
        options = {"partition": partition} if partition else {}
    _write(workspace, backend, uri, chosen, options)


def _write(workspace: Path, backend: Path, uri: str, scheduler: str, options: dict[str, str]) -> None:
    from mlflow_pytorch_estimator import Workspace

    place = {} if scheduler == "local" else {"scheduler": scheduler, "scheduler_options": options}
    Workspace(tracking_uri=uri, scheduler=scheduler, scheduler_options=options or None).write_config()
    settings: dict[str, Any] = {**place, "node_count": 1}
    backend.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    click.echo(f"wrote {workspace} and {backend}")
    click.echo(f"next: gpu-cluster doctor; gpu-cluster run . -c {backend}")


def _asked(question: str, usual: str, *, yes: bool) -> str:
    return usual if yes else str(click.prompt(question, default=usual))


def _usual_uri() -> str:
    import mlflow

    from mlflow_pytorch_estimator.tracking import without_credentials

    return without_credentials(mlflow.get_tracking_uri())


def _usual_scheduler() -> str:
    """Slurm where it answers: its commands alone may be there without a cluster."""
    from mlflow_pytorch_estimator.errors import SchedulerError
    from mlflow_pytorch_estimator.schedulers.slurm import client

    try:
        answers = client.has("sbatch") and client.run("scontrol", "ping", seconds=10).code == 0
    except SchedulerError:
        answers = False
    return "slurm" if answers else "local"
