"""``horovod build|check``: a Horovod wheel for anybody's torch, and what is missing for one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.horovod import wheels as kept
from mlflow_pytorch_estimator.horovod.environment import described, resolved, temporary_environment
from mlflow_pytorch_estimator.horovod.install import install
from mlflow_pytorch_estimator.horovod.obtain import obtain
from mlflow_pytorch_estimator.horovod.options import Options
from mlflow_pytorch_estimator.horovod.planning import plan
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.jobdir import environments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHOICES = (
    click.option(
        "--torch", "version", metavar="VERSION", help="PyTorch, such as 2.15 or 2.15.0; the newest if left out."
    ),
    click.option(
        "--gpu", type=click.Choice(["nccl", "none"]), help="GPU operations; NCCL where it can be built if left out."
    ),
    click.option("--mpi/--no-mpi", default=None, help="MPI besides Gloo; where there is an mpicxx if left out."),
    click.option(
        "--python",
        type=click.Path(exists=True, path_type=Path),
        callback=lambda _context, _option, path: _interpreter(path),
        help="Environment that has its PyTorch: its folder, or its interpreter.",
    ),
)


def _choices(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_CHOICES):
        command = option(command)
    return command


@click.group()
def commands() -> None:
    """Horovod, built for the PyTorch of an environment."""


@commands.command()
@_choices
@click.option("--install", "installing", is_flag=True, help="Put Horovod into the environment of --python.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder that gets a copy of the wheel."
)
def build(  # noqa: PLR0913 - the options of a command
    *,
    version: str | None,
    gpu: str | None,
    mpi: bool | None,
    python: Path | None,
    installing: bool,
    output: Path | None,
) -> None:
    """Build a wheel, or find it in the cache, and print where it lies.

    \b
    gpu-cluster horovod build --python ~/venv --install
    """
    _refuse(version, python)
    if installing and python is None:
        raise click.UsageError("--install needs --python: the environment to install into")
    options = _options(gpu, mpi=mpi)
    with _programs() as programs, tempfile.TemporaryDirectory(prefix="horovod-torch-") as folder:
        wheel = _found(version, options, Path(folder), programs) if python is None else None
        wheel = wheel or _built(version, python, options, Path(folder), programs)
        if installing and python:
            install(wheel, python, programs)
            programs.say(f"installed into the environment of {python}")
    if output:
        output.mkdir(parents=True, exist_ok=True)
        wheel = Path(shutil.copy2(wheel, output))
    click.echo(wheel)


def _found(version: str | None, options: Options, folder: Path, programs: Programs) -> Path | None:
    """Return the wheel of the cache for a torch, which then need not be downloaded."""
    python, locked = resolved(version, folder, programs)
    return kept.find(wheels(environments()) / plan(locked, python, options, programs.environ).key)


def _built(version: str | None, python: Path | None, options: Options, folder: Path, programs: Programs) -> Path:
    interpreter = python or temporary_environment(version, folder, programs)
    wanted = described(interpreter, options, programs)
    for notice in wanted.notices:
        programs.say(f"warning: {notice}")
    return obtain(wanted, interpreter, wheels(environments()), programs.runner, programs.environ).wheel


@commands.command()
@_choices
def check(*, version: str | None, gpu: str | None, mpi: bool | None, python: Path | None) -> None:
    """Print what is there and what would be built; exit 1 if it could not be built.

    \b
    gpu-cluster horovod check --torch 2.15
    """
    from mlflow_pytorch_estimator.horovod.report import report

    _refuse(version, python)
    options = _options(gpu, mpi=mpi)
    with _programs() as programs:
        possible = report(version, python, options, wheels(environments()), programs)
    sys.exit(0 if possible else 1)


def _interpreter(path: Path | None) -> Path | None:
    # Not resolved: the link in an environment is what makes it one.
    return path.absolute() / "bin" / "python" if path and path.is_dir() else path and path.absolute()


def _refuse(version: str | None, python: Path | None) -> None:
    if version and python:
        raise click.UsageError("--torch and --python exclude each other: an environment has its PyTorch")


def _options(gpu: str | None, *, mpi: bool | None) -> Options:
    given = Options.from_environ(os.environ)
    return replace(given, gpu=gpu or given.gpu, mpi=given.mpi if mpi is None else mpi)


@contextmanager
def _programs() -> Iterator[Programs]:
    """Run what is needed for this command: its words in the terminal, all else in a log that a failure keeps."""
    descriptor, path = tempfile.mkstemp(prefix="horovod-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8") as log:
        runner = Runner(log, lambda: False, lambda line: click.echo(line, err=True), log.fileno())
        try:
            yield Programs(runner, os.environ)
        except BaseException as error:
            if not isinstance(error, click.ClickException | SystemExit):
                click.echo(f"everything that was said: {path}", err=True)
            raise
    Path(path).unlink()
