"""Starting a rank under its keeper; `nodes.here` watches and ends it."""

from __future__ import annotations

import os
import subprocess
import sys
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
    afterwards: tuple[str, ...] = ()
    """What the keeper runs at the end, see ``RankCommand``."""

    @property
    def exit_code(self) -> int | None:
        """Exit status, the negative signal number, or None while it runs."""
        return self.process.poll()


def start(command: RankCommand, log: Path, cwd: Path, environ: Mapping[str, str], inherited: Sequence[int]) -> Rank:
    """Start a rank under its keeper. ``inherited`` are lock descriptors that the keeper, not the rank, holds."""
    environ = command.environment(environ)
    process = spawn(command.argv, log, cwd, environ, inherited, afterwards=command.afterwards)
    return Rank(command.rank, log, process, command.afterwards)


def spawn(  # noqa: PLR0913 - all that a process consists of
    argv: Sequence[str],
    log: Path,
    cwd: Path,
    environ: Mapping[str, str],
    inherited: Sequence[int],
    *,
    stdout: int | None = None,
    afterwards: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a program under a keeper, whose process this is; ``stdout`` is another descriptor than the log's."""
    # Straight into the file: no pipe that could block the rank, and nothing is lost when the agent dies.
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(os.getpid()), *afterwards, "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=fd if stdout is None else stdout,
            stderr=fd,
            cwd=cwd,
            env=dict(environ),
            pass_fds=tuple(inherited),
        )
    finally:
        os.close(fd)
