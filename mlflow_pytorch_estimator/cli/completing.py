"""``completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


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
