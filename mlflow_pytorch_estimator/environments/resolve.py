"""From a request to its lock: which interpreter, which versions."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description.framework import explain_framework
from mlflow_pytorch_estimator.environments.interpreters import pyenv
from mlflow_pytorch_estimator.environments.lock_lines import kept, write_lines, write_question
from mlflow_pytorch_estimator.environments.lockfile import Lock
from mlflow_pytorch_estimator.environments.prefix import conda_resolve
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest
    from mlflow_pytorch_estimator.environments.uv import Uv

# Searching takes a second, downloading an interpreter some; retries against a closed network take the rest.
_PYTHON_SECONDS = 180.0


def resolve(request: EnvironmentRequest, uv: Uv, preferred: Iterable[str]) -> Lock:
    """Return exact versions for all that is asked for; ``preferred`` are lines of an earlier lock, kept where possible.

    The caller holds the lock of the request. EnvironmentBuildError holds the resolver's reason.
    """
    work = request.cache_dir / f".resolving-{request.key}"
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed
    work.mkdir()
    try:
        if request.spec.manager == "conda":
            return conda_resolve.resolve(request, uv, work)
        interpreter, python = _interpreter(request, uv, work)
        return Lock(interpreter, python, _compiled(request, uv, work, interpreter, preferred))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compiled(
    request: EnvironmentRequest, uv: Uv, work: Path, interpreter: str, preferred: Iterable[str]
) -> tuple[str, ...]:
    requirements, constraints = write_question(request, work)
    output = work / "lock.txt"
    write_lines(output, preferred)
    arguments = ["--python", interpreter, "--no-header", "--no-annotate", "-c", str(constraints), "-o", str(output)]
    try:
        uv.run("pip", "compile", str(requirements), *arguments)
    except EnvironmentBuildError as error:
        hint = explain_framework(request.requirements)
        raise EnvironmentBuildError("\n  ".join(filter(None, [str(error), hint]))) from None
    lines = output.read_text(encoding="utf-8").splitlines()
    return kept((line for line in lines if line and not line.startswith(("#", " ", "--"))), request, work)


def _interpreter(request: EnvironmentRequest, uv: Uv, work: Path) -> tuple[str, str]:
    """Return path and version; asks uv to search, or to download, where neither is known."""
    asked = request.interpreter
    if asked.version:
        return asked.request, asked.version
    probe = work / "python"
    try:
        uv.run("venv", "--no-project", "--python", asked.request, str(probe), limit=_PYTHON_SECONDS)
    except EnvironmentBuildError as error:
        raise EnvironmentBuildError(f"no Python {asked.request} here: {error}\n  installed: {_installed(uv)}") from None
    version = pyvenv(probe)["version_info"]
    return str((probe / "bin/python").resolve()), version


def pyvenv(folder: Path) -> dict[str, str]:
    """Return what a virtual environment says of itself."""
    lines = (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _installed(uv: Uv) -> str:
    with contextlib.suppress(EnvironmentBuildError, ValueError, KeyError):
        lines = uv.run("python", "list", "--only-installed", "--output-format", "json").splitlines()
        items = json.loads(next(line for line in lines if line.startswith("[")))
        found = {item["version"]: item["path"] for item in reversed(items)}  # the first on PATH wins
        found |= {version: str(path) for version, path in pyenv(uv.environ)}
        return ", ".join(f"{version} ({path})" for version, path in found.items()) or "none"
    return "unknown"
