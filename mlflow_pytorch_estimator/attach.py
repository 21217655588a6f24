"""Following a job: its phases on standard error, its output on standard output, as they happen."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_pytorch_estimator import console, locks
from mlflow_pytorch_estimator.console import Terminal
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.reconcile import lives, reconcile
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.tracking import Stores

_SHORTEST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.25
_CHUNK = 1 << 20
_PLAIN = re.compile(rb"[\w ,:;=/'\"%-]+")
_MOST_RANKS = 16
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")  # of ranks, on a terminal
_AGENT_SECONDS = 10.0
_EXIT_SECONDS = 5.0  # for the agent to leave, and its share of the machine to return


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

    @property
    def unfinished(self) -> bytes:
        """The beginning of a line whose end is not there yet."""
        return self._partial

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
    return LogTail(log, _prefix(log).encode() if several else b"")


def _prefix(log: Path) -> str:
    words = f"[{log.stem.replace('_', ' ')}]"
    colour = _COLOURS[int(log.stem.split("_")[1]) % len(_COLOURS)]
    return f"{click.style(words, fg=colour)} " if console.coloured() else f"{words} "


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
        with self._terminal.watching(self._directory.progress):
            final = self._until_the_end()
        self._close(final)
        return final

    def _until_the_end(self) -> Outcome:
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
        self._leave_delivery_to_the_agent()
        reconcile(self._directory, self._stores)
        locks.wait_until_free(self._directory.lock, _EXIT_SECONDS)
        final = self._directory.outcome
        if final is None:
            raise LookupError(f"job directory {self._directory.path} has gone")
        return final

    def _leave_delivery_to_the_agent(self) -> None:
        """For a while, where MLflow is not loaded: the agent has it already, and importing it twice slows both."""
        deadline = time.monotonic() + _AGENT_SECONDS
        while "mlflow" not in sys.modules and self._directory.alive and time.monotonic() < deadline:
            if self._directory.delivered.exists():
                return
            time.sleep(_SHORTEST_POLL_SECONDS)

    def _print_news(self, *, last: bool = False) -> bool:
        events = self._directory.events()
        busy = len(events) > self._printed
        for event in events[self._printed :]:
            if event.phase is Phase.FINALIZING:
                while self._print_output(last=True):  # all of it is there, and came before
                    pass
            self._terminal.enter(event.phase, event.message, event.time)
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
        self._terminal.unfinished({log.stem.replace("_", " "): tail.unfinished for log, tail in self._tails.items()})
        return busy

    def _close(self, outcome: Outcome) -> None:
        events = self._directory.events()
        seconds = outcome.time - events[0].time if events else 0.0
        self._terminal.close(outcome.phase, duration(seconds), self._directory.settled)
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
        return _one_place() and last in failure.get("last_lines", [])


def _one_place() -> bool:
    """Whether both streams of this process go to the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # a notebook
        return False
