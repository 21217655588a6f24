"""The uv commands that make one environment."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.freeze import heading
from mlflow_pytorch_estimator.environments.interpreters import pyenv
from mlflow_pytorch_estimator.environments.localpath import copy_source, local_part
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.interpreters import Interpreter
    from mlflow_pytorch_estimator.environments.runner import Uv

    _Packages = tuple[tuple[str, ...], tuple[str, ...]]

_FROZEN = re.compile(r"[\w.-]+(==| @ )|-e ")
# Searching takes a second, downloading an interpreter some; retries against a closed network take the rest.
_PYTHON_SECONDS = 180.0


def install(
    uv: Uv,
    folder: Path,
    project_dir: Path,
    interpreter: Interpreter,
    packages: _Packages,
) -> str:
    """Make the environment in ``folder`` and return what is in it, as ``environment.txt``."""
    _make(uv, folder, interpreter)
    python = str(cache.interpreter(folder))
    copies = _copy_sources(packages, folder / "sources", project_dir)
    files = []
    for name, lines in zip(("requirements", "constraints"), packages, strict=True):
        file = folder / f"{name}.txt"
        file.write_text("".join(f"{_located(line, copies, project_dir)}\n" for line in lines), encoding="utf-8")
        files.append(str(file))
    uv.run("pip", "install", "--python", python, "-r", files[0], "-c", files[1])
    # uv's remarks come on the same stream, and --quiet takes the packages along in some versions.
    said = uv.run("pip", "freeze", "--python", python).splitlines(keepends=True)
    frozen = "".join(line for line in said if _FROZEN.match(line))
    for path, copy in copies.items():
        frozen = frozen.replace(copy.as_uri(), path)
    return heading(_version(folder), uv.run("--version").strip()) + frozen


def _make(uv: Uv, folder: Path, interpreter: Interpreter) -> None:
    try:
        uv.run("venv", "--no-project", "--python", interpreter.request, str(folder), limit=_PYTHON_SECONDS)
    except EnvironmentBuildError as error:
        if interpreter.request.startswith("/"):
            raise
        raise EnvironmentBuildError(
            f"no Python {interpreter.request} here: {error}\n  installed: {_installed(uv)}"
        ) from None


def _installed(uv: Uv) -> str:
    with contextlib.suppress(EnvironmentBuildError, ValueError, KeyError):
        lines = uv.run("python", "list", "--only-installed", "--output-format", "json").splitlines()
        items = json.loads(next(line for line in lines if line.startswith("[")))
        found = {item["version"]: item["path"] for item in reversed(items)}  # the first on PATH wins
        found |= {version: str(path) for version, path in pyenv(uv.environ)}
        return ", ".join(f"{version} ({path})" for version, path in found.items()) or "none"
    return "unknown"


def _copy_sources(packages: _Packages, target: Path, project_dir: Path) -> dict[str, Path]:
    """Copy the folders that are to be installed; returns where each lies now.

    uv remembers what it built by path, and looks for changes in pyproject.toml alone: under a path that holds
    the key it cannot take an old build. And the project folder stays free of build output.
    """
    copies: dict[str, Path] = {}
    for line in itertools.chain(*packages):
        local = local_part(line)
        source = (project_dir / local.path).resolve() if local else target
        if local and not local.is_option and source.is_dir() and local.path not in copies:
            copies[local.path] = target / str(len(copies)) / source.name
            copy_source(source, copies[local.path])
    return copies


def _located(line: str, copies: Mapping[str, Path], project_dir: Path) -> str:
    """Return the line with its local path as a URL that does not depend on a working directory."""
    local = local_part(line)
    return local.line(copies.get(local.path, (project_dir / local.path).resolve()).as_uri()) if local else line


def _version(folder: Path) -> str:
    for line in (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "version_info":
            return value.strip()
    return "unknown"
