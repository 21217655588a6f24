"""``status``, ``logs``, ``attach`` and ``wait``."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.cli import completing, exits, finding, output, words

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.attach import Choice
    from mlflow_pytorch_estimator.cli.facts import Facts
    from mlflow_pytorch_estimator.jobdir import JobDir

_POLL_SECONDS = 0.2
_MOST_RANKS = 16


@click.command(short_help="Print the phase of a run, and the reason if it failed.")
@click.argument("run", shell_complete=completing.runs)
@output.json_option
def status(run: str, *, as_json: bool) -> None:
    """Print the phase of a run, and the reason if it failed or waits.

    \b
    gpu-cluster status last
    """
    from mlflow_pytorch_estimator.cli import facts

    found = facts.of(run)
    if as_json:
        output.print_json(found.summary())
        return
    click.echo(f"{output.coloured(found.phase)}: {found.reason}" if found.reason else output.coloured(found.phase))


@click.command(short_help="Print what the ranks of a run write.")
@click.argument("run", shell_complete=completing.runs)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended; the exit status says how.")
@click.option(
    "--rank",
    "-r",
    "ranks",
    metavar="N",
    type=click.IntRange(0),
    multiple=True,
    help="Only this rank; several are possible.",
)
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--tail", "-n", "lines", metavar="N", type=click.IntRange(1), help="Only the last lines of each rank.")
def logs(run: str, *, follow: bool, ranks: tuple[int, ...], grep: str | None, lines: int | None) -> None:
    """Print what the ranks of a run write.

    \b
    gpu-cluster logs -f last
    gpu-cluster logs 3fa2 --rank 3 --grep 'loss|Error'
    gpu-cluster logs last -n 20

    With --follow, phases go to standard error; Ctrl-C ends that, and not the job. Logs of a run of another machine are
    read from its artifacts.
    """
    from mlflow_pytorch_estimator.attach import Choice

    choice = Choice(frozenset(ranks) or None, _pattern(grep))
    if follow and lines:
        raise click.UsageError("--tail is for what is there: leave out --follow")
    if follow:
        sys.exit(_follow(finding.directory(run), choice, cancels=False))
    found = finding.local(run)
    if found is not None and not found.rank_logs() and not found.delivered.exists():
        click.echo(f"no rank has started: {_why(found)}", err=True)
        return
    if found is None or not found.rank_logs():
        _print_stored(finding.run_id(run), choice, lines)
        if found is not None and found.outcome is not None:
            click.echo(f"no rank has started: {_why(found)}", err=True)
        return
    from mlflow_pytorch_estimator.attach import tail_of

    chosen = choice.of(found.rank_logs())
    if not chosen:
        there = ", ".join(log.stem.partition("_")[2] for log in found.rank_logs()[:_MOST_RANKS])
        raise click.ClickException(f"the run has no rank {', '.join(map(str, ranks))}, but {there}")
    for log in chosen:
        _print(iter(partial(tail_of(found, log).read, last=True), b""), choice, lines)


@click.command(short_help="Follow a run as if it had just been started here.")
@click.argument("run", shell_complete=completing.runs)
def attach(run: str) -> None:
    """Follow a run as if it had just been started here: Ctrl-C lets go, twice cancels.

    \b
    gpu-cluster attach 3fa2
    """
    from mlflow_pytorch_estimator.attach import Choice

    sys.exit(_follow(finding.directory(run), Choice(), cancels=True))


@click.command(short_help="Wait for runs without printing their output.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completing.runs)
@click.option(
    "--timeout", metavar="TIME", type=words.duration, help="Give up after so long (90, 30m, 2h); exit status 5."
)
@output.json_option
def wait(runs: tuple[str, ...], *, timeout: float | None, as_json: bool) -> None:
    """Wait for runs without printing their output; the exit status is that of the worst.

    \b
    gpu-cluster wait 3fa2 9b41 --timeout 2h && gpu-cluster runs
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        ended = [_waited_for(name, deadline, tell=not as_json) for name in dict.fromkeys(runs)]
    except KeyboardInterrupt:
        click.echo("gpu-cluster: no longer waiting; the jobs go on", err=True)
        sys.exit(exits.DETACHED)
    if as_json:
        output.print_json([found.summary() for found in ended])
    sys.exit(max(exits.of_phase(found.phase) if found.ended else exits.UNFINISHED for found in ended))


def _waited_for(name: str, deadline: float | None, *, tell: bool) -> Facts:
    from mlflow_pytorch_estimator.cli import facts

    found = facts.of(name)
    while not found.ended and (deadline is None or time.monotonic() < deadline):
        time.sleep(_POLL_SECONDS if found.directory else 2.0)
        found = facts.of(name)
    if tell:
        click.echo(f"{found.run_id}  {output.coloured(found.phase)}" + (f": {found.reason}" if found.reason else ""))
    return found


def _why(directory: JobDir) -> str:
    from mlflow_pytorch_estimator.cli import facts

    found = facts.of_directory(directory)
    return f"{found.phase}, {found.reason}" if found.reason else found.phase


def _print(pieces: Iterable[bytes], choice: Choice, lines: int | None) -> None:
    """Of one rank: what is wanted of it, or the last lines of that."""
    from mlflow_pytorch_estimator.console import Terminal

    last: deque[bytes] = deque(maxlen=lines)
    for data in pieces:
        if lines is None:
            Terminal().output(choice.lines(data))
        else:
            last.extend(choice.lines(data).splitlines(keepends=True))
    if last:
        Terminal().output(b"".join(last))


def _follow(directory: JobDir, choice: Choice, *, cancels: bool) -> int:
    from mlflow_pytorch_estimator.cli.launching import follow
    from mlflow_pytorch_estimator.console import terminal
    from mlflow_pytorch_estimator.handle import JobHandle

    return follow(JobHandle(directory), terminal(), choice, cancels=cancels)


def _pattern(grep: str | None) -> re.Pattern[bytes] | None:
    try:
        return re.compile(grep.encode()) if grep else None
    except re.error as error:
        raise click.BadParameter(f"{grep!r} is no regular expression: {error}", param_hint="--grep") from None


def _print_stored(run_id: str, choice: Choice, lines: int | None) -> None:
    from mlflow_pytorch_estimator.cli import facts

    for pieces in facts.stored_logs(run_id, choice):
        _print(pieces, choice, lines)
