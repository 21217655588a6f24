"""Which interpreter an environment starts from."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_OURS = ">=3.10"


@dataclass(frozen=True)
class Interpreter:
    """What uv is asked for."""

    request: str
    """Path of an interpreter, or a PEP 440 specifier that uv searches for or downloads."""
    identity: str
    """What of it goes into the key of the request."""
    version: str = ""
    """Its full version, where it is known without a search."""


def choose(python: str | None, environ: Mapping[str, str] = os.environ) -> Interpreter:
    """Take the submitting interpreter, else the newest of pyenv (as MLflow does), else leave it to uv.

    No process is started: uv's search costs more than a cached environment may, so what uv will find goes into the
    request as the question, and into its lock as the answer.
    """
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(",".join(filter(None, [python, _OURS])))
    if wanted.contains(platform.python_version(), prereleases=True):
        base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        return Interpreter(
            base, f"{sys.implementation.name} {platform.python_version()} {base}", platform.python_version()
        )
    for version, path in pyenv(environ):
        if wanted.contains(version):
            return Interpreter(str(path), f"cpython {version} {path}", version)
    return Interpreter(str(wanted), f"search {wanted}")


def host() -> str:
    """Return machine and C library: what a built environment cannot leave."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = None
    return f"{platform.system()} {platform.machine()} {libc or 'other libc'}"


def pyenv(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return pyenv's CPythons, newest first; its shims on PATH fail for all but the selected ones."""
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = []
    for path in root.glob("3.*/bin/python3"):
        version = path.parent.parent.name
        if re.fullmatch(r"3\.\d+\.\d+", version) and os.access(path, os.X_OK):
            found.append((version, path))
    return sorted(found, key=lambda item: [int(part) for part in item[0].split(".")], reverse=True)
