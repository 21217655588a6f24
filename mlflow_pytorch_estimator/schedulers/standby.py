"""A process that is started while the job is still being described, so that the job need not wait for Python.

It loads the module that it will run and waits on a socket. It gets its arguments, its environment and the locks of
the job there, or sees the socket close and ends. Saves the 0.1 s between "the run exists" and "the program starts".
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import detached, processes

_LENGTH_BYTES = 4


class Standby:
    """The waiting process, seen from the one that started it. ``module`` has a ``main(argv)``."""

    def __init__(self, module: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-m", __name__, module, str(theirs.fileno())]
            detached.spawn(argv, Path(os.devnull), Path("/"), processes.environment(), [theirs.fileno()])

    def begin(self, argv: Sequence[str], log: Path, cwd: Path, environ: Mapping[str, str], fds: Sequence[int]) -> None:
        """Let it run ``main([*argv, *fds])``; it has its own numbers for the descriptors. Raises OSError if it died."""
        order = {"argv": list(argv), "log": str(log), "cwd": str(cwd), "environ": dict(environ)}
        data = json.dumps(order).encode("ascii")
        data = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        # All at once if it fits: whoever is killed in between has handed over nothing.
        sent = socket.send_fds(self._socket, [data], list(fds))
        if sent < len(data):
            self._socket.sendall(data[sent:])
        if self._socket.recv(1) != b"!":
            raise OSError("the process that was to become the agent has gone")

    def close(self) -> None:
        """Forget it; if it was not told to begin, it ends."""
        self._socket.close()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    head, fds, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 16)
    if len(head) < _LENGTH_BYTES:
        return None
    with connection.makefile("rb") as stream:
        order: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    with contextlib.suppress(OSError):  # who gave the order may have been killed: it stands
        connection.sendall(b"!")
    return order, fds


def main(argv: list[str]) -> int:
    """``python -m mlflow_pytorch_estimator.schedulers.standby MODULE SOCKET_FD``."""
    module = import_module(argv[0])
    with socket.socket(fileno=int(argv[1])) as connection:
        received = _receive(connection)
    if received is None:
        return 0
    order, fds = received
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return int(module.main([*order["argv"], *map(str, fds)]))


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_status)  # as in `local`
