"""Find and read the environment that a project describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description import parts, pins, pyproject
from mlflow_pytorch_estimator.environments.description.notices import warn_once
from mlflow_pytorch_estimator.environments.description.parts import Part
from mlflow_pytorch_estimator.environments.description.python_versions import python_specifier
from mlflow_pytorch_estimator.environments.description.requirements import read_text
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MANAGERS = (None, "local", "virtualenv", "uv", "conda")
_WITH_CONDA = (None, "conda")
_PYTHON_ENV_KEYS = ("python", "build_dependencies", "dependencies")
_REQUIREMENTS = "requirements.txt"


def read_environment(
    project_dir: Path, env_file: Path | None, env_kind: str | None, manager: str | None
) -> EnvironmentSpec:
    """Read the environment of a project.

    ``env_file`` is the file that the MLproject names, of ``env_kind`` "conda" or "python"; without one,
    ``requirements.txt`` or else ``pyproject.toml`` says it. ``manager`` is MLflow's ``--env-manager``: "local" takes
    the submitting interpreter; None and "conda" mean uv, and conda for a ``conda.yaml`` that needs it; with "uv" and
    "virtualenv" such a file is an EnvironmentSpecError.
    """
    if manager not in _MANAGERS:
        raise EnvironmentSpecError(
            f"environment manager {manager!r} is not supported; use uv, virtualenv, conda or local"
        )
    if manager == "local":
        return EnvironmentSpec("local", None, (), (), "local")
    if env_file is None:
        return parts.combine([*_from_project(project_dir)])
    data = load_yaml(env_file, env_file.name)
    if env_kind == "conda":
        part = parts.of_conda(project_dir, env_file.parent, data, env_file.name, allowed=manager in _WITH_CONDA)
    else:
        part = _python_env(project_dir, env_file, data)
    return parts.combine([part])


def load_yaml(path: Path, name: str) -> Mapping[str, object]:
    """Return the mapping in a YAML file, which errors call ``name``."""
    return parse_yaml(read_text(path, name), name)


def parse_yaml(text: str, name: str) -> Mapping[str, object]:
    """Return the mapping in a YAML text, which errors call ``name``."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise EnvironmentSpecError(
            f"{name}{line}: not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from None
    if data is None:
        raise EnvironmentSpecError(f"{name}: the file is empty")
    if not isinstance(data, dict):
        raise EnvironmentSpecError(f"{name}: must be a mapping, not a {type(data).__name__}")
    return data


def _python_env(project_dir: Path, file: Path, data: Mapping[str, object]) -> Part:
    name = file.name
    unknown = [str(key) for key in data if key not in _PYTHON_ENV_KEYS]
    if unknown:
        raise EnvironmentSpecError(f"{name}: unknown key {', '.join(unknown)} (known: {', '.join(_PYTHON_ENV_KEYS)})")
    lines: list[str] = []
    for key in ("build_dependencies", "dependencies"):
        value = data.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise EnvironmentSpecError(f"{name}: '{key}' must be a list of strings")
        lines += value
    return parts.of_lines(project_dir, file.parent, lines, name, python_specifier(data.get("python"), name))


def _from_project(root: Path) -> Iterator[Part]:
    """Read what lies there without an MLproject naming it; nothing is fine as well."""
    listed = parts.of_file(root, root / _REQUIREMENTS, _REQUIREMENTS) if (root / _REQUIREMENTS).is_file() else None
    if listed is not None:
        yield listed
    file = root / pyproject.NAME
    if not file.is_file():
        return
    found = pyproject.read_pyproject(file)
    own = parts.of_lines(root, root, found.dependencies or (), pyproject.NAME, found.python)
    if listed is None:
        _refuse_computed(found)
        if own.requirements or own.python:
            yield own
        return
    if own.requirements:
        pins.refuse_contradictions(
            (line, part.source) for part in (listed, own) for line in (*part.requirements, *part.constraints)
        )
        warn_once(
            f"{pyproject.NAME}: its dependencies are not read, because there is a {_REQUIREMENTS}: remove one of them"
        )
    if own.python:
        yield Part(pyproject.NAME, python=own.python)


def _refuse_computed(found: pyproject.PyProject) -> None:
    remedy = f"write them into [project] dependencies or a {_REQUIREMENTS}"
    if found.computed:
        raise EnvironmentSpecError(
            f"{pyproject.NAME}: dependencies are dynamic, so only its build tool knows them: {remedy} (a line '.' in "
            "it installs the project with all that it needs)"
        )
    if found.foreign:
        warn_once(f"{pyproject.NAME}: {found.foreign} is not read, it belongs to one tool: {remedy}")
