"""Processes that outlive the one that starts them."""

from __future__ import annotations

import atexit
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_started: list[subprocess.Popen[bytes]] = []


def spawn(argv: Sequence[str], log: Path, cwd: Path, environ: Mapping[str, str], fds: Sequence[int]) -> None:
    """Start a process in a session of its own, output to ``log``, with the descriptors ``fds`` kept open."""
    # Kept so that they are reaped at the next call: a notebook that submits for days must not fill with zombies.
    _started[:] = [process for process in _started if process.poll() is None]
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(environ),
            start_new_session=True,
            pass_fds=tuple(fds),
        )
    _started.append(process)


@atexit.register
def _let_go() -> None:
    # They are meant to go on: Python must not warn about them.
    for process in _started:
        process.returncode = process.poll() or 0
