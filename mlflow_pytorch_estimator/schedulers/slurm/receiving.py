"""The submit host's side of fetching: one connection to a node, and what it says written into the job directory."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.files import private_folder
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import client, trees
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles

_SILENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_READ = 1 << 20


class Books:
    """The job directory on the submit host, as what comes from the nodes is entered into it."""

    def __init__(self, directory: JobDir) -> None:
        self._directory = directory
        self._incoming = FarFiles(directory).incoming
        self._checkpoints: dict[str, set[str]] = {}

    def hello(self) -> dict[str, Any]:
        """What is here already, for a node to start from."""
        directory = self._directory
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        whole = {name: trees.stamp(directory.path / name) for name in trees.final(directory, first=True)}
        grown = {name: (directory.path / name).stat().st_size for name in trees.growing(directory, first=True)}
        partial = {path.name: path.stat().st_size for path in self._incoming.iterdir()}
        return {"grown": grown, "whole": whole, "partial": partial}

    def enter(self, node: str, message: Mapping[str, Any]) -> None:
        """Enter what a node says; what is here already changes nothing. ProjectError when the disk is full."""
        try:
            if "grown" in message:
                self._append(self._place(message["grown"]), message["at"], base64.b64decode(message["data"]))
            elif "whole" in message:
                self._add_part(message)
            elif "checkpoints" in message:
                self._checkpoints[node] = set(message["checkpoints"])
        except OSError as error:
            raise ProjectError(f"cannot write to {self._directory.path}: {error.strerror}; free space there") from error

    def forget(self, nodes: Sequence[str]) -> None:
        """Remove the checkpoints that no node has any more, once all have said which they have."""
        if set(nodes) == set(self._checkpoints):
            there: set[str] = set().union(*self._checkpoints.values())
            for name in set(trees.checkpoints(self._directory)) - there:
                (self._directory.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing more comes."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    def _place(self, name: str) -> Path:
        """Where a file goes; never outside of the job directory, whatever a node says or a link in it means."""
        root = self._directory.path.resolve()
        path = root / name
        if ".." in Path(name).parts or root not in path.resolve().parents:
            raise ProjectError(f"a node says {name!r}, which does not belong to the job")
        private_folder(path.parent)
        return path

    @staticmethod
    def _append(path: Path, at: int, data: bytes) -> None:
        with path.open("ab") as file:
            have = file.tell()
            if at <= have < at + len(data):
                file.write(data[have - at :])

    def _add_part(self, message: Mapping[str, Any]) -> None:
        stamp = (message["size"], message["time"])
        part = self._incoming / trees.ticket(message["whole"], stamp)
        self._append(part, message["at"], base64.b64decode(message["data"]))
        part.touch()
        if part.stat().st_size == stamp[0]:
            target = self._place(message["whole"])
            part.chmod(message["mode"] | 0o600)
            os.utime(part, ns=(stamp[1] * 1000, stamp[1] * 1000))
            part.replace(target)


class Line:
    """The connection to one node's teller; made again when it breaks."""

    def __init__(self, node: str, argv: Sequence[str], books: Books, log: IO[bytes]) -> None:
        self.node = node
        self.over = False
        """Whether the node has told everything,"""
        self.outcome: str | None = None
        """and what the agent there has concluded."""
        self._argv = list(argv)
        self._books = books
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._ordered: set[str] = set()
        self._heard = self._again_at = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._process is not None

    def tend(self, selector: selectors.BaseSelector) -> None:
        """Connect if it is time to; give up a connection on which nothing has been heard."""
        now = time.monotonic()
        if self._process is None and now >= self._again_at:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=client.environment(),
                start_new_session=True,
            )
            self._rest, self._heard, self._ordered = b"", now, set()
            selector.register(_output(self._process), selectors.EVENT_READ, self)
            _write(self._process, self._books.hello())
        elif self._process is not None and now > self._heard + _SILENCE_SECONDS:
            self._process.kill()

    def order_once(self, what: str) -> None:
        """Tell the node what to do, once for each connection."""
        if self._process is not None and what not in self._ordered:
            self._ordered.add(what)
            _write(self._process, {"do": what})

    def silent(self, since: float) -> float:
        """For how many seconds nothing has been heard; counted from ``since`` at the earliest."""
        return time.monotonic() - max(self._heard, since)

    def hear(self, selector: selectors.BaseSelector) -> None:
        """Enter what has come."""
        if self._process is None:
            return
        output = _output(self._process)
        data = os.read(output.fileno(), _READ)
        if not data:
            selector.unregister(output)
            self.close()
            self._again_at = time.monotonic() + self._pause
            self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause)
            return
        self._heard, self._pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):  # else a site's prologue has printed it
                self._take(json.loads(line))

    def _take(self, message: Mapping[str, Any]) -> None:
        if message.get("over"):
            self.over, self.outcome = True, message["outcome"]
        else:
            self._books.enter(self.node, message)

    def close(self, seconds: float = 5.0) -> None:
        """End the connection."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            _input(self._process).close()
        try:
            self._process.wait(seconds)  # it may have to pass on an order first
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _output(self._process).close()
        self._process = None


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdin)


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdout)


def _write(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # its end will be read
        _input(process).write(json.dumps(message).encode() + b"\n")
        _input(process).flush()
