"""``completion``, and what the shell offers for runs and clusters: what is on this machine, without MLflow."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

_MOST = 50
_SHOWN = 8


@click.command(short_help="Print what makes the shell complete this command.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes the shell complete this command.

    \b
    eval "$(gpu-cluster completion bash)"       in ~/.bashrc
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this click knows no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "gpu-cluster", "_GPU_CLUSTER_COMPLETE").source())


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs of jobs that were submitted from here, the newest first."""
    from mlflow_pytorch_estimator.cli import finding

    newest = list(reversed(finding.every()))
    names = [item.path.name for item in newest]
    items = [(finding.LAST, "the newest")] if newest and finding.LAST.startswith(incomplete) else []
    for item in newest:
        name = item.path.name
        short = name[: max(_SHOWN, len(incomplete))]
        if name.startswith(incomplete) and len(items) < _MOST:
            unique = sum(other.startswith(short) for other in names) == 1
            items.append((short if unique else name, f"{item.phase} {item.job.project}"))
    return [CompletionItem(value, help=text) for value, text in items]


def clusters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Clusters that were defined here."""
    from mlflow_pytorch_estimator import clusters as defined

    return [
        CompletionItem(item.name, help=item.scheduler) for item in defined.every() if item.name.startswith(incomplete)
    ]
