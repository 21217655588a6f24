"""Find and read the environment that a project describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import conda
from mlflow_pytorch_estimator.environments.requirements import RequirementReader, read_text
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MANAGERS = (None, "local", "virtualenv", "uv", "conda")
_PYTHON_ENV_KEYS = ("python", "build_dependencies", "dependencies")
_OLDEST_MINOR = 10


def read_environment(
    project_dir: Path, env_file: Path | None, env_kind: str | None, manager: str | None
) -> EnvironmentSpec:
    """Read the environment of a project.

    ``env_file`` is the file that the MLproject names, of ``env_kind`` "conda" or "python". ``manager`` is
    MLflow's ``--env-manager``: "local" takes the submitting interpreter; None, "virtualenv", "uv" and "conda"
    all mean a uv-built environment, and a ``conda.yaml`` that needs conda itself is an EnvironmentSpecError.
    """
    if manager not in _MANAGERS:
        raise EnvironmentSpecError(
            f"environment manager {manager!r} is not supported; use uv, virtualenv, conda or local"
        )
    if manager == "local":
        return EnvironmentSpec("local", None, (), (), "local")
    reader = RequirementReader(project_dir)
    if env_file is not None:
        data = _load_yaml(env_file)
        read = _read_conda if env_kind == "conda" else _read_python_env
        python, lines = read(data, env_file.name)
        for line in lines:
            if line.strip():
                reader.add_line(line.strip(), env_file.parent, env_file.name)
        return _spec(python, reader, env_file.name)
    if (project_dir / "requirements.txt").is_file():
        reader.add_file(project_dir / "requirements.txt")
        return _spec(None, reader, "requirements.txt")
    return _spec(None, reader, "none")


def _spec(python: str | None, reader: RequirementReader, source: str) -> EnvironmentSpec:
    if python is not None:
        _check_python(python, source)
    return EnvironmentSpec("uv", python, tuple(reader.requirements), tuple(reader.constraints), source)


def _load_yaml(path: Path) -> Mapping[str, object]:
    import yaml

    try:
        data = yaml.safe_load(read_text(path, path.name))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise EnvironmentSpecError(
            f"{path.name}{line}: not valid YAML: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from None
    if data is None:
        raise EnvironmentSpecError(f"{path.name}: the file is empty")
    if not isinstance(data, dict):
        raise EnvironmentSpecError(f"{path.name}: must be a mapping, not a {type(data).__name__}")
    return data


def _read_conda(data: Mapping[str, object], name: str) -> tuple[str | None, tuple[str, ...]]:
    parts = conda.convert(data, name)
    return parts.python, parts.pip


def _read_python_env(data: Mapping[str, object], name: str) -> tuple[str | None, tuple[str, ...]]:
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
    return _python_specifier(data.get("python"), name), tuple(lines)


def _python_specifier(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise EnvironmentSpecError(f'{name}: python must be in quotes, such as python: "3.11", not {value!r}')
    clauses = [conda.version_clause(part.strip()) for part in value.split(",")]
    known = [clause for clause in clauses if clause]
    if len(known) != len(clauses):
        raise EnvironmentSpecError(f"{name}: {value!r} is not a Python version")
    return ",".join(known)


def _check_python(python: str, source: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifier = SpecifierSet(python)
    except InvalidSpecifier:
        raise EnvironmentSpecError(f"{source}: {python!r} is not a Python version") from None
    versions = (f"3.{minor}.{patch}" for minor in range(_OLDEST_MINOR, 30) for patch in range(40))
    if not any(specifier.contains(version, prereleases=True) for version in versions):
        raise EnvironmentSpecError(
            f"{source}: asks for Python {python}; jobs of this backend need Python 3.{_OLDEST_MINOR} or newer"
        )
