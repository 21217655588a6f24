"""The agent's side of Horovod's rendezvous: start the server, learn its address."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import failure, ranks
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.launchers.base import Address

_PROGRAM = str(Path(__file__).resolve().with_name("rendezvous_server.py"))
_REPORT = re.compile(rb"^rendezvous at port (\d+)\n", re.MULTILINE)
_ARRIVAL = re.compile(rb"^rank (\d+)\n", re.MULTILINE)
_START_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass
class Server:
    """A rendezvous server that starts. It ends with the agent, or when it is closed."""

    python: str
    host: str
    log: Path
    process: subprocess.Popen[bytes]
    report: int
    """Reading end of the pipe in which it says its port, and which ranks have come."""
    _told: bytes = b""

    def address(self, cancelled: Callable[[], bool]) -> Address | None:
        """Wait until it listens; None when the job was canceled meanwhile, ProjectError when it does not start."""
        deadline = time.monotonic() + _START_SECONDS
        while not cancelled():
            if self._listen(_POLL_SECONDS) is False:
                raise ProjectError(self._reason())
            found = _REPORT.search(self._told)
            if found:
                return Address(self.host, int(found[1]))
            if time.monotonic() > deadline:
                raise ProjectError(f"Horovod's rendezvous server did not start within {_START_SECONDS:g} s")
        return None

    def arrived(self) -> set[int]:
        """The ranks that have put down their addresses there."""
        while self._listen(0.0):
            continue
        return {int(rank) for rank in _ARRIVAL.findall(self._told)}

    def _listen(self, seconds: float) -> bool | None:
        """Read what it says; None if it says nothing within so long, False if it never will."""
        if not select.select([self.report], [], [], seconds)[0]:
            return None
        piece = os.read(self.report, 4096)
        self._told += piece
        return bool(piece)

    def close(self) -> None:
        """End it."""
        os.close(self.report)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def _reason(self) -> str:
        code = self.process.wait()
        text = failure.tail(self.log)
        error = (failure.last_traceback(text) or text).strip().rpartition("\n")[2]
        if re.match(r"(ImportError|ModuleNotFoundError)\b", error):
            return (
                f"Horovod cannot be imported by the job's interpreter {self.python} ({error}): install it there, "
                "or let the job have an environment of its own, which brings it"
            )
        return f"Horovod's rendezvous server {failure.describe_exit(code)}" + (f" ({error})" if error else "")


def serve(  # noqa: PLR0913, PLR0917 - all that a process consists of
    python: str, host: str, slots: Mapping[str, int], log: Path, environ: Mapping[str, str], inherited: Sequence[int]
) -> Server:
    """Start the server for this many ranks on each node, reachable at ``host``, with the job's interpreter."""
    reading, writing = os.pipe()
    try:
        argv = [python, _PROGRAM, host, json.dumps(dict(slots))]
        process = ranks.spawn(argv, log, log.parent, environ, inherited, stdout=writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Server(python, host, log, process, reading)
