"""The ranks of one node as the agent sees them: start, watch, end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.launchers.base import RankCommand

_KEEPER = str(Path(keeper.__file__).resolve())


@dataclass(frozen=True)
class Rank:
    """A started rank; ``process`` is its keeper, which ends as the rank ends."""

    rank: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        """Exit status, the negative signal number, or None while it runs."""
        return self.process.poll()


def start(command: RankCommand, log: Path, cwd: Path, environ: Mapping[str, str], inherited: Sequence[int]) -> Rank:
    """Start a rank under its keeper. ``inherited`` are lock descriptors that the keeper, not the rank, holds."""
    # Straight into the file: no pipe that could block the rank, and nothing is lost when the agent dies.
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(os.getpid()), "--", *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            cwd=cwd,
            env={**environ, **command.environ},
            pass_fds=tuple(inherited),
        )
    finally:
        os.close(fd)
    return Rank(command.rank, log, process)


def end(ranks: Sequence[Rank], grace_seconds: float) -> None:
    """SIGTERM, a grace period, SIGKILL; returns when nothing of the ranks is left."""
    _signal(ranks, signal.SIGTERM)
    if not _wait(ranks, grace_seconds):
        _signal(ranks, signal.SIGHUP)
        _wait(ranks, 15.0)
    keeper.kill_descendants()


def _signal(ranks: Sequence[Rank], number: int) -> None:
    for rank in ranks:
        if rank.exit_code is None:
            rank.process.send_signal(number)


def _wait(ranks: Sequence[Rank], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(rank.exit_code is None for rank in ranks):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
