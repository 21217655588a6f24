"""``retry``."""

from __future__ import annotations

import click

from mlflow_pytorch_estimator.cli import finding, output


@click.command(short_help="Run a job again, with the same sources and environment.")
@click.argument("run")
@click.option("--resume", is_flag=True, help="Begin with the checkpoints that the job has left.")
@click.option("--name", "--run-name", metavar="NAME", help="Name of the new run; by default that of the other one.")
@click.option("--detach", is_flag=True, help="Return at once; `gpu-cluster logs -f` follows.")
@output.json_option
def retry(run: str, *, resume: bool, name: str | None, detach: bool, as_json: bool) -> None:
    """Run a job again in a new run: the same sources, command, resources and packages, whatever has changed since.

    \b
    gpu-cluster retry last --resume

    The new run has the tag gpu_cluster.retry_of. It is possible as long as the job directory is here.
    """
    old = finding.directory(run)
    from mlflow_pytorch_estimator.cli.launching import show
    from mlflow_pytorch_estimator.resubmission import resubmit

    show(resubmit(old, resume=resume, run_name=name), detach=detach, as_json=as_json)
