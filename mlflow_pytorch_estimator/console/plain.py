"""Lines, as they happen: for pipes, files, notebooks, and terminals that can do no more."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from mlflow_pytorch_estimator import page
from mlflow_pytorch_estimator.status import Phase


class Terminal:
    """Where a person reads: our lines go to standard error, so that standard output is the job's."""

    def say(self, message: str, phase: Phase | None = None) -> None:
        """One line of ours."""
        name = phase.value if phase else ""
        head = click.style(f"{name:<11}" if message else name, bold=True) if phase else ""
        click.echo(f"gpu-cluster: {head}{message}".rstrip(), err=True)

    def enter(self, phase: Phase, message: str, when: float) -> None:
        """A phase has begun, or says more; ``when`` is in Unix seconds."""
        self.say(message, phase)

    def close(self, phase: Phase, took: str, when: float) -> None:
        """The job has ended in this phase after a time; ``when`` all of it was stored, in Unix seconds."""
        self.say(f"after {took}", phase)

    def commands(self, run_id: str) -> None:
        """How to follow and cancel a job."""
        click.echo("\n".join(f"    {line}" for line in page.follow_commands(run_id).splitlines()), err=True)

    def error(self, text: str) -> None:
        """Text as it is."""
        click.echo(text, err=True)

    def output(self, data: bytes) -> None:
        """Bytes of the job, unchanged where the stream takes bytes."""
        if not hasattr(sys.stdout, "buffer"):  # a notebook
            sys.stdout.write(data.decode("utf-8", errors="replace"))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def unfinished(self, lines: Mapping[str, bytes]) -> None:
        """What each log ends with, where that is no whole line yet: a progress bar of the script, mostly."""

    def busy(self, what: str) -> AbstractContextManager[None]:
        """While something is done that has no phase."""
        return nullcontext()

    def watching(self, progress: Path) -> AbstractContextManager[None]:
        """While a job is followed; the file says how far its work has come."""
        return nullcontext()


class SilentTerminal(Terminal):
    """For those who only want to wait."""

    def say(self, message: str, phase: Phase | None = None) -> None:
        """Nothing."""

    def commands(self, run_id: str) -> None:
        """Nothing."""

    def output(self, data: bytes) -> None:
        """Nothing."""

    def error(self, text: str) -> None:
        """Nothing."""
