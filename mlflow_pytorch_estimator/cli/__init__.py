"""``gpu-cluster``: the companion of ``mlflow run -b gpu-cluster``.

A command is imported when it is asked for, and MLflow, which takes seconds, only by those that need it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import IO, Any

import click

from mlflow_pytorch_estimator._version import __version__
from mlflow_pytorch_estimator.cli.exits import DETACHED, STATUSES
from mlflow_pytorch_estimator.errors import DetachedError, GpuClusterError, one_line

SECTIONS = {
    "Start jobs": {
        "run": ("launching:run", "Run an entry point of an MLflow project, and follow it."),
        "submit": ("launching:submit", "Run a script with the packages that it needs."),
        "retry": ("repeating:retry", "Run a job again, with the same sources and environment."),
    },
    "Look at them": {
        "runs": ("listing:runs", "List runs: state, why they wait, where, how long, last metric."),
        "status": ("following:status", "Print the phase of a run, and the reason if it failed."),
        "describe": ("describing:describe", "Print all that is known of a run."),
        "logs": ("following:logs", "Print what the ranks of a run write."),
        "attach": ("following:attach", "Follow a run as if it had just been started here."),
        "wait": ("following:wait", "Wait for runs without printing their output."),
        "cancel": ("ending:cancel", "End jobs and everything that they started."),
    },
    "Look after the place": {
        "compute": ("computing:compute", "Clusters that jobs can name."),
        "envs": ("environments.tending.commands:commands", "Environments that jobs have left to the next ones."),
        "horovod": ("horovod.commands:commands", "Horovod, built for the PyTorch of an environment."),
        "doctor": ("doctor.command:doctor", "Check what jobs need of this machine and of MLflow."),
        "init": ("beginning:init", "Write a workspace's config.json and a backend config, by asking."),
        "completion": ("completing:completion", "Print what makes the shell complete this command."),
    },
}
"""Title -> name -> where the command is, and what the list says of it."""
_MEANT = {
    **dict.fromkeys(("list", "ls", "ps", "jobs", "queue", "squeue"), "runs"),
    **dict.fromkeys(("stop", "kill", "delete", "rm", "scancel"), "cancel"),
    **dict.fromkeys(("show", "info", "inspect"), "describe"),
    **dict.fromkeys(("tail", "output"), "logs"),
    **dict.fromkeys(("follow", "watch"), "attach"),
    **dict.fromkeys(("train", "sbatch", "launch"), "submit"),
    **dict.fromkeys(("rerun", "restart", "resubmit", "resume"), "retry"),
    **dict.fromkeys(("check", "diagnose"), "doctor"),
}
"""What people type whom other tools have taught other words."""
_COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Commands(click.Group):
    """Commands whose errors are one line; the list of them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        package = (
            __package__
            if module.partition(".")[0] not in {"environments", "horovod"}
            else __package__.rpartition(".")[0]
        )
        command: click.Command = getattr(importlib.import_module(f"{package}.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            meant = _MEANT.get(args[0])
            close = [meant] if meant else difflib.get_close_matches(args[0], _COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "`gpu-cluster --help` lists the commands"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit status"):
            formatter.write_dl([(str(number), text) for number, text in STATUSES.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DetachedError as error:
            raise _Detached(str(error)) from error
        except GpuClusterError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:  # MLflow's own too, whose class only MLflow's import would give
            if not _is_mlflows(error):
                raise
            raise click.ClickException(one_line(error)) from error


def _is_mlflows(error: Exception) -> bool:
    """Whether MLflow has raised it on purpose; MLflow need not be imported."""
    exceptions = sys.modules.get("mlflow.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MlflowException)


class _Detached(click.ClickException):
    exit_code = DETACHED

    def show(self, file: IO[Any] | None = None) -> None:
        """Nothing: the terminal has said that the job goes on, and how to follow it; it is no error."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gpu-cluster")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Train PyTorch on a GPU cluster, and see what becomes of it in MLflow.

    \b
    gpu-cluster run . -P epochs=5          an MLflow project, followed to its end
    gpu-cluster submit --pip torch train.py --lr 0.1
    gpu-cluster runs                       what became of all
    gpu-cluster logs -f last               what the newest says
    gpu-cluster COMMAND --help             more, with an example

    A RUN is the id of a run, the beginning of one that is unique here, or `last`.
    """
    if os.environ.get("NO_COLOR"):  # click does not know it
        ctx.color = False
