"""Run uv: its environment, its progress, its end."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlflow_pytorch_estimator.environments.messages import clean, reason
from mlflow_pytorch_estimator.errors import EnvironmentBuildError, GpuClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_POLL_SECONDS = 0.1
_INDEXES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
# Where the submitting process stands, or how it would want a project of its own built.
_DROPPED = (
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PREFIX",
    "__PYVENV_LAUNCHER__",
)
_DROPPED_GROUPS = ("PYTHON", "UV_PROJECT", "UV_VENV", "UV_WORKING_DIR")
_PROGRESS = re.compile(r"\s*(Resolved|Prepared|Installed|Downloading|Building|Updating) \S")
# uv must die with us, even when we are SIGKILLed. The kernel's parent-death signal does it (it watches the thread
# that started uv, which waits for it here), set by a process of its own before it becomes uv: a preexec_fn can
# deadlock in a process with threads. What uv starts (compilers) is reached by the lock, which all of them inherit.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class BuildCancelled(GpuClusterError):  # noqa: N818 - an outcome that the caller asked for, not a failure
    """The caller's ``cancelled()`` became true while the environment was being built or waited for."""


@dataclass(frozen=True)
class Uv:
    """Runs uv commands on behalf of one build."""

    environ: Mapping[str, str]
    log: TextIO
    cancelled: Callable[[], bool]
    say: Callable[[str], None]
    lock: int
    """Descriptor of the build's lock: inherited, so that it stays held until the last process has ended."""

    def run(self, *arguments: str, limit: float | None = None) -> str:
        """Return the output of ``uv *arguments``; EnvironmentBuildError with its reason when it fails."""
        from uv import find_uv_bin

        program = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), find_uv_bin()]
        self.log.write(f"$ uv {' '.join(arguments)}\n")
        process = subprocess.Popen(
            [*program, *arguments],
            cwd="/",  # uv also reads the settings of the project around its working directory: not here
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self.lock,),
        )
        with process:
            try:
                output = "".join(self._lines(process, time.monotonic() + limit if limit else None))
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise EnvironmentBuildError(reason(output) or f"uv ended with {process.returncode}")
        return output

    def _lines(self, process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[str]:
        pending = b""
        for chunk in self._chunks(process, deadline):
            *lines, pending = (pending + chunk).split(b"\n")
            for raw in lines:
                yield self._noted(raw)
        if pending:
            yield self._noted(pending)

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
                    raise EnvironmentBuildError("uv took too long and was stopped")
                if selector.select(_POLL_SECONDS):
                    chunk = os.read(pipe.fileno(), 65536)
                    if not chunk:
                        return
                    yield chunk
                elif process.poll() is not None:
                    return  # something that uv left behind holds the pipe

    def _noted(self, raw: bytes) -> str:
        line = clean(raw.decode(errors="replace")) + "\n"
        self.log.write(line)
        self.log.flush()
        if _PROGRESS.match(line):
            self.say(line.strip())
        return line


def uv_environment(environ: Mapping[str, str], requirements: tuple[str, ...], cache_dir: Path) -> dict[str, str]:
    """Return the variables that uv runs with: the user's, pip's indexes in uv's words, ours on top."""
    result = {
        name: value
        for name, value in environ.items()
        if name.startswith("UV_PYTHON_") or not (name in _DROPPED or name.startswith(_DROPPED_GROUPS))
    }
    options = {line.partition(" ")[0] for line in requirements if line.startswith("--")}
    extra = "--extra-index-url" in options
    if not any(result.get(name) for name in _INDEXES):
        # As variables, never as arguments: they may hold a password.
        if result.get("PIP_INDEX_URL") and "--index-url" not in options:
            result["UV_DEFAULT_INDEX"] = result["PIP_INDEX_URL"]
        pip_extra = [url for url in result.get("PIP_EXTRA_INDEX_URL", "").split() if url.startswith("http")]
        if pip_extra:
            result["UV_INDEX"] = " ".join(pip_extra)
            extra = True
    if extra:
        # Such lists were written for pip, which takes the best version of all indexes, not the first index.
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "--pre" in options:
        result["UV_PRERELEASE"] = "allow"  # uv does not read it from a requirements file
    if _device(_uv_cache(result)) != _device(cache_dir):
        result.setdefault("UV_LINK_MODE", "copy")  # hard links cannot: without this, uv warns
    return result | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}


def _uv_cache(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("UV_CACHE_DIR") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "uv")


def _device(path: Path) -> int:
    """Return the device of the folder, or of where it will be made."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()).stat().st_dev
