"""Run the programs of a build: their output line by line, their end, and no process left of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.environments.messages import clean
from mlflow_pytorch_estimator.errors import EnvironmentBuildError, GpuClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow_pytorch_estimator.progress import Progress

_KEEPER = str(Path(keeper.__file__).resolve())
# In the environment of all that one keeper has started: what a killed keeper leaves is nobody's child.
_MARK = "GPU_CLUSTER_BUILD"
_POLL_SECONDS = 0.1
_END_SECONDS = 15.0


class BuildCancelled(GpuClusterError):  # noqa: N818 - an outcome that the caller asked for, not a failure
    """The caller's ``cancelled()`` became true while the environment was being built or waited for."""


class CommandFailed(EnvironmentBuildError):  # noqa: N818 - says what happened
    """A program of a build ended with another status than 0; ``output`` is all that it said, without secrets."""

    def __init__(self, program: str, status: int, output: str) -> None:
        said = f"ended with {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        super().__init__(f"{program} {said}")
        self.status = status
        self.output = output


def _signal_name(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL: was there too little memory?"
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _ignore(_news: object) -> None:
    return


@dataclass(frozen=True)
class Runner:
    """Runs programs on behalf of one build. Each runs under a keeper, which leaves nothing of it when we are gone."""

    log: TextIO
    """Gets every line, without secrets and colours."""
    cancelled: Callable[[], bool]
    say: Callable[[str], None]
    """Gets what the user should see: one short line at a time."""
    lock: int
    """Descriptor of the build's lock: held by the keeper as well, so it is free only when all has ended."""
    measured: Callable[[Progress], None] = _ignore
    """Gets how far downloads have come."""

    def run(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        cwd: str = "/",
        limit: float | None = None,
        noted: Callable[[str], None] = _ignore,
    ) -> str:
        """Return what the program said on both streams; CommandFailed when it fails, BuildCancelled.

        ``limit`` is in seconds, ``noted`` gets each line as it comes. The working directory is no project's: tools
        read the settings of the project around it.
        """
        mark = secrets.token_hex(8)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(os.getpid()), "--", *argv],
            cwd=cwd,
            env={**environ, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self.lock,),
        )
        with process:
            try:
                output = "".join(self._lines(process, time.monotonic() + limit if limit else None, noted))
            except TimeoutError:
                _end(process)
                raise EnvironmentBuildError(f"{Path(argv[0]).name} took too long and was stopped") from None
            except BaseException:
                _end(process)
                raise
            finally:
                if process.wait() < 0:
                    _end_orphans(mark)
        if process.returncode:
            raise CommandFailed(Path(argv[0]).name, process.returncode, output)
        return output

    def _lines(
        self, process: subprocess.Popen[bytes], deadline: float | None, noted: Callable[[str], None]
    ) -> Iterator[str]:
        pending = b""
        for chunk in self._chunks(process, deadline):
            *lines, pending = (pending + chunk).split(b"\n")
            for raw in lines:
                yield self._logged(raw, noted)
        if pending:
            yield self._logged(pending, noted)

    def _chunks(self, process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[bytes]:
        pipe = process.stdout
        if pipe is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                if self.cancelled():
                    raise BuildCancelled("the environment was not built: cancelled")
                if deadline and time.monotonic() > deadline:
                    raise TimeoutError
                if selector.select(_POLL_SECONDS):
                    chunk = os.read(pipe.fileno(), 65536)
                    if not chunk:
                        return
                    yield chunk
                elif process.poll() is not None:
                    return  # something that was left behind holds the pipe

    def _logged(self, raw: bytes, noted: Callable[[str], None]) -> str:
        line = clean(raw.decode(errors="replace")) + "\n"
        self.log.write(line)
        self.log.flush()
        noted(line)
        return line


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGHUP)  # the keeper kills everything and then ends itself
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
        return
    process.kill()


def _end_orphans(mark: str) -> None:
    entry = f"{_MARK}={mark}".encode()
    deadline = time.monotonic() + _END_SECONDS
    while (pids := _with_variable(entry)) and time.monotonic() < deadline:
        keeper.signal_all(pids, signal.SIGKILL)
        time.sleep(0.01)


def _with_variable(entry: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
