"""``pyproject.toml``: the dependencies and the Python of ``[project]``."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.environments.description.requirements import read_text
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "pyproject.toml"


@dataclass(frozen=True)
class PyProject:
    """What ``[project]`` says of an environment. The project itself is not installed: its folder is the job's."""

    dependencies: tuple[str, ...] | None
    """None when it lists none; an empty list is an answer as well."""
    python: str | None
    """PEP 440."""
    computed: bool = False
    """Whether only its build tool knows the dependencies."""
    foreign: str | None = None
    """A tool's own table of dependencies, which is not read."""


def read_pyproject(path: Path) -> PyProject:
    """Read the file; EnvironmentSpecError when it is no TOML or says something else than the standard has."""
    data = _load(path)
    project = data.get("project", {})
    if not isinstance(project, dict):
        raise EnvironmentSpecError(f"{NAME}: 'project' must be a table")
    lines = project.get("dependencies")
    if lines is not None and (not isinstance(lines, list) or not all(isinstance(line, str) for line in lines)):
        raise EnvironmentSpecError(f"{NAME}: project.dependencies must be a list of strings")
    python = project.get("requires-python")
    if python is not None and not isinstance(python, str):
        raise EnvironmentSpecError(f"{NAME}: project.requires-python must be a string, such as '>=3.10'")
    dynamic = project.get("dynamic", [])
    computed = lines is None and isinstance(dynamic, list) and "dependencies" in dynamic
    foreign = None if lines is not None else _foreign(data)
    return PyProject(tuple(lines) if lines is not None else None, python or None, computed, foreign)


def _load(path: Path) -> Mapping[str, Any]:
    # By name: the module of the standard library came with 3.11, and a type checker looks at one version only.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return dict(toml.loads(read_text(path, NAME)))
    except toml.TOMLDecodeError as error:
        raise EnvironmentSpecError(f"{NAME}: not valid TOML: {error}") from None


def _foreign(data: Mapping[str, Any]) -> str | None:
    tool = data.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    listed = poetry.get("dependencies") if isinstance(poetry, dict) else None
    return "tool.poetry.dependencies" if listed else None
