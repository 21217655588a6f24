"""On every node of a job without a shared file system: tells the submit host what grows in the job directory here.

    python -m mlflow_pytorch_estimator.schedulers.slurm.teller JOBDIR first|other

JSON lines on standard output and input, which ``srun`` carries. It starts from what the submit host says that it has
and keeps nothing, so that it can be started again at any time. It lives as long as its connection.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import trees
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles

_ROUND_SECONDS = 0.25
_SLICE_SECONDS = 0.3  # a large file must not hold up the logs
_CONTACT_SECONDS = 2.0
_CHUNK = 192 * 1024


class Teller:
    """One connection; ``hello`` is the first line that the submit host has sent."""

    def __init__(self, directory: JobDir, *, first: bool, hello: Mapping[str, Any]) -> None:
        self._directory = directory
        self._files = FarFiles(directory)
        self._first = first
        self._told: dict[str, int] = dict(hello["grown"])
        self._have = {name: tuple(stamp) for name, stamp in hello["whole"].items()}
        self._partial: dict[str, int] = hello["partial"]
        self._sending: Iterator[None] = iter(())
        self._names: list[str] | None = None
        self._finish = self._over_told = self._done = self._busy = False
        self._contact_at = 0.0
        self._input = b""

    def run(self) -> None:
        """Tell until the submit host has all, or has gone."""
        if self._first:
            self._files.arrived.touch(mode=0o600)
        while not self._done and self._listen():
            self._keep_contact()
            if self._finish or (self._first and self._files.over.exists()):
                self._tell_the_end()
            else:
                self._tell()

    def _listen(self) -> bool:
        ready, _, _ = select.select([0], [], [], 0.0 if self._busy else _ROUND_SECONDS)
        if not ready:
            return True
        data = os.read(0, 65536)
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line)["do"])
        return bool(data)

    def _obey(self, order: str) -> None:
        if order == "cancel":
            self._directory.request_cancel()
        elif order == "finish":
            self._finish = True
        elif order == "fetched":
            self._done = True
            if self._first:
                self._files.fetched.touch(mode=0o600)
            else:
                os.chdir("/")
                shutil.rmtree(self._directory.path, ignore_errors=True)

    def _keep_contact(self) -> None:
        if time.monotonic() > self._contact_at:
            self._contact_at = time.monotonic() + _CONTACT_SECONDS
            self._files.contact.touch(mode=0o600)
            _say({"here": True})

    def _tell(self) -> None:
        self._tell_growth()
        deadline = time.monotonic() + _SLICE_SECONDS
        self._busy = True
        while time.monotonic() < deadline:
            try:
                next(self._sending)
            except StopIteration:
                self._sending = self._whole(trees.settled(self._directory, first=self._first))
                self._tell_names()
                self._busy = False
                return

    def _tell_the_end(self) -> None:
        """Everything that is left, once; the outcome last."""
        if self._over_told:
            return
        self._tell_growth()
        for _ in self._sending:
            pass
        for _ in self._whole(trees.final(self._directory, first=self._first)):
            self._keep_contact()
        self._tell_names()
        self._over_told = True
        _say({"over": True, "outcome": trees.outcome(self._directory) if self._first else None})

    def _tell_growth(self) -> None:
        for name in trees.growing(self._directory, first=self._first):
            with (self._directory.path / name).open("rb") as file:
                while True:
                    at = self._told.get(name, 0)
                    file.seek(at)
                    data = file.read(_CHUNK)
                    if not data:
                        break
                    _say({"grown": name, "at": at, "data": _text(data)})
                    self._told[name] = at + len(data)

    def _whole(self, names: Iterator[str]) -> Iterator[None]:
        """Send files that the submit host does not have as they are, a chunk at each step."""
        for name in names:
            path = self._directory.path / name
            try:
                stamp = trees.stamp(path)
                if self._have.get(name) == stamp:
                    continue
                yield from self._one(name, path, stamp)
            except FileNotFoundError:
                continue  # the job removes what it has made

    def _one(self, name: str, path: Path, stamp: tuple[int, int]) -> Iterator[None]:
        at = self._partial.pop(trees.ticket(name, stamp), 0)
        about = {"whole": name, "size": stamp[0], "time": stamp[1], "mode": path.stat().st_mode & 0o777}
        with path.open("rb") as file:
            file.seek(at)
            while True:
                data = file.read(min(_CHUNK, stamp[0] - at))
                if trees.stamp(path) != stamp:
                    return  # it is being written: another time
                _say({**about, "at": at, "data": _text(data)})
                at += len(data)
                yield
                if at >= stamp[0] or not data:
                    break
        self._have[name] = stamp

    def _tell_names(self) -> None:
        names = sorted(trees.checkpoints(self._directory))
        if names != self._names:
            self._names = names
            _say({"checkpoints": names})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Tell; ends with the connection."""
    # Slurm ends steps and job with the same signal, and then there is most to tell.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hello = b""
    while not hello.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            return 1
        hello += data
    try:
        Teller(JobDir(Path(argv[0])), first=argv[1] == "first", hello=json.loads(hello)).run()
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # what is left in a broken pipe cannot be flushed
