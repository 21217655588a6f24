"""Following a job: its phases on standard error, its output on standard output, as they happen."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mlflow_pytorch_estimator import locks, page
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.reconcile import lives, reconcile
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import Stores

_SHORTEST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.25
_CHUNK = 1 << 20
_PLAIN = re.compile(rb"[\w ,:;=/'\"%-]+")
_MOST_RANKS = 16
_EXIT_SECONDS = 5.0  # for the agent to leave, and its share of the machine to return


class Terminal:
    """Where a person reads: our lines go to standard error, so that standard output is the job's."""

    def say(self, message: str, phase: Phase | None = None) -> None:
        """One line of ours."""
        name = phase.value if phase else ""
        head = click.style(f"{name:<11}" if message else name, bold=True) if phase else ""
        click.echo(f"gpu-cluster: {head}{message}".rstrip(), err=True)

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


@dataclass(frozen=True)
class Choice:
    """Which ranks and which lines of their output somebody wants to see."""

    ranks: frozenset[int] | None = None
    pattern: re.Pattern[bytes] | None = None

    def of(self, logs: Iterable[Path]) -> list[Path]:
        """Those of the logs that are wanted."""
        return [log for log in logs if self.ranks is None or int(log.stem.split("_")[1]) in self.ranks]

    def lines(self, data: bytes) -> bytes:
        """Those of whole lines that are wanted."""
        if self.pattern is None:
            return data
        plain = self.pattern.pattern
        if _PLAIN.fullmatch(plain) and not self.pattern.flags & re.IGNORECASE and plain not in data:
            return b""  # what most people look for is a word, which is a hundred times as quick
        return b"".join(line for line in data.splitlines(keepends=True) if self.pattern.search(line))


class LogTail:
    """What has been added to a log since the last look, in whole lines."""

    def __init__(self, path: Path, prefix: bytes = b"") -> None:
        self._path = path
        self._prefix = prefix
        self._offset = 0
        self._partial = b""

    def read(self, *, last: bool = False) -> bytes:
        """New lines; ``last`` also takes an unfinished one."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                data = handle.read(_CHUNK)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        data = self._partial + data
        # A line longer than a chunk is passed on in pieces rather than kept.
        cut = len(data) if len(data) >= _CHUNK else data.rfind(b"\n") + 1
        data, self._partial = data[:cut], data[cut:]
        if last and not data and self._partial:
            data, self._partial = self._partial + b"\n", b""
        return self._prefixed(data) if self._prefix and data else data

    def _prefixed(self, data: bytes) -> bytes:
        """Lines with the prefix. A piece of a line gets an end, because another rank's may come next."""
        data = data if data.endswith(b"\n") else data + b"\n"
        return b"".join(self._prefix + line for line in data.splitlines(keepends=True))


def tail_of(directory: JobDir, log: Path) -> LogTail:
    """The tail of a rank's log; its lines say whose they are where the job has several ranks."""
    job = directory.job
    # By the job, as long as not all logs are there; by the logs, where a newer version has started more.
    expected = job.distribution.world_size(job.resources.node_count)
    several = max(expected, len(directory.rank_logs())) > 1
    return LogTail(log, f"[{log.stem.replace('_', ' ')}] ".encode() if several else b"")


class Follower:
    """Prints what a job does until it has ended and its run says so."""

    def __init__(
        self, directory: JobDir, terminal: Terminal, stores: Stores | None = None, choice: Choice | None = None
    ) -> None:
        self._directory = directory
        self._choice = choice or Choice()
        self._stores = stores
        self._terminal = terminal
        self._printed = 0
        self._tails: dict[Path, LogTail] = {}

    def follow(self) -> Outcome:
        """Block until the end. Ends a job that nobody works on any more as Failed."""
        pause = _SHORTEST_POLL_SECONDS
        while True:
            outcome = self._directory.outcome
            alive = outcome is None and lives(self._directory)
            busy = self._print_news()
            if not alive and not busy:
                break
            pause = _SHORTEST_POLL_SECONDS if busy else min(_LONGEST_POLL_SECONDS, pause * 1.2)
            if not busy:
                time.sleep(pause)
        while self._print_news(last=True):
            pass
        reconcile(self._directory, self._stores)
        locks.wait_until_free(self._directory.lock, _EXIT_SECONDS)
        final = self._directory.outcome
        if final is None:
            raise LookupError(f"job directory {self._directory.path} has gone")
        self._close(final)
        return final

    def _print_news(self, *, last: bool = False) -> bool:
        events = self._directory.events()
        busy = len(events) > self._printed
        for event in events[self._printed :]:
            if event.phase is Phase.FINALIZING:
                while self._print_output(last=True):  # all of it is there, and came before
                    pass
            self._terminal.say(event.message, event.phase)
        self._printed = len(events)
        return self._print_output(last=last) or busy

    def _print_output(self, *, last: bool) -> bool:
        busy = False
        for log in self._choice.of(self._directory.rank_logs()):
            if log not in self._tails:
                self._tails[log] = tail_of(self._directory, log)
            data = self._tails[log].read(last=last)
            if data:
                self._terminal.output(self._choice.lines(data))
                busy = True
        return busy

    def _close(self, outcome: Outcome) -> None:
        events = self._directory.events()
        seconds = outcome.time - events[0].time if events else 0.0
        self._terminal.say(f"after {duration(seconds)}", outcome.phase)
        failure = outcome.failure or {}
        self._say_whom_it_ended(failure)
        if failure.get("traceback") and not self._stands_above(failure):
            self._terminal.error(failure["traceback"])

    def _say_whom_it_ended(self, failure: dict[str, Any]) -> None:
        others = failure.get("ranks_ended_by_it") or []
        if failure.get("rank") is not None and others:
            names = ", ".join(map(str, others[:_MOST_RANKS])) + (", ..." if len(others) > _MOST_RANKS else "")
            who = f"rank {names}" if len(others) == 1 else f"ranks {names}"
            place = f" on {failure['node']}" if failure.get("node") else ""
            self._terminal.say(f"rank {failure['rank']}{place} was first; {who} ended because of it")

    @staticmethod
    def _stands_above(failure: dict[str, Any]) -> bool:
        """Whether the person has just seen the traceback, as the end of the job's output."""
        last = str(failure["traceback"]).splitlines()[-1]
        return sys.stdout.isatty() and sys.stderr.isatty() and last in failure.get("last_lines", [])


def duration(seconds: float) -> str:
    """``3.2 s``, ``2 min 5 s``, ``1 h 4 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
