"""``retry``."""

from __future__ import annotations

import click

from mlflow_pytorch_estimator.cli import completing, finding, output, words


@click.command(
    short_help="Run a job again, with the same sources and environment.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run", shell_complete=completing.runs)
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.option("--resume", is_flag=True, help="Begin with the checkpoints that the job has left.")
@click.option("--name", "--run-name", metavar="NAME", help="Name of the new run; by default that of the other one.")
@click.option("--detach", is_flag=True, help="Return at once; `gpu-cluster logs -f` follows.")
@output.json_option
def retry(  # noqa: PLR0913 - the options of a command
    run: str, *, others: tuple[str, ...], resume: bool, name: str | None, detach: bool, as_json: bool
) -> None:
    """Run a job again in a new run: the same sources, command, resources and packages, whatever has changed since.

    \b
    gpu-cluster retry last --resume

    The new run has the tag gpu_cluster.retry_of. It is possible as long as the job directory is here, and once the
    other run has ended. For changed sources or arguments, `gpu-cluster submit`.
    """
    for word in others:
        meant = words.misspelled(word, cutoff=0.75)
        if meant:
            raise click.NoSuchOption(word, possibilities=meant)
    if others:
        raise click.UsageError(
            f"{' '.join(others)}: a retry has the arguments of its run; for others: gpu-cluster submit SCRIPT ARGS"
        )
    old = finding.directory(run)
    from mlflow_pytorch_estimator.cli.launching import show
    from mlflow_pytorch_estimator.console import terminal
    from mlflow_pytorch_estimator.resubmission import resubmit

    submitted = resubmit(old, resume=resume, run_name=name)
    if not as_json:
        terminal().say(f"sources as of {output.clock(finding.submitted(old))}; `gpu-cluster submit` takes those of now")
    show(submitted, detach=detach, as_json=as_json)
