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
        data = load_yaml(env_file, env_file.name)
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
        check_python(python, source)
    return EnvironmentSpec("uv", python, tuple(reader.requirements), tuple(reader.constraints), source)


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
    return python_specifier(data.get("python"), name), tuple(lines)


def python_specifier(value: object, name: str) -> str | None:
    """Turn what a user calls a Python version (``"3.11"``, ``">=3.10, <3.13"``) into PEP 440."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise EnvironmentSpecError(f'{name}: python must be in quotes, such as python: "3.11", not {value!r}')
    clauses = [conda.version_clause(part.strip()) for part in value.split(",")]
    known = [clause for clause in clauses if clause]
    if len(known) != len(clauses):
        raise EnvironmentSpecError(f"{name}: {value!r} is not a Python version")
    return ",".join(known)


def check_python(python: str, source: str) -> None:
    """Raise unless it is a specifier that some Python of jobs fits."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(python)
    except InvalidSpecifier:
        raise EnvironmentSpecError(f"{source}: {python!r} is not a Python version") from None
    if not is_possible(python):
        raise EnvironmentSpecError(
            f"{source}: asks for Python {python}; jobs of this backend need Python 3.{_OLDEST_MINOR} or newer"
        )


def is_possible(python: str) -> bool:
    """Tell whether there is, or may once be, a Python of jobs that fits a valid specifier."""
    from packaging.specifiers import SpecifierSet

    specifier = SpecifierSet(python)
    versions = (f"3.{minor}.{patch}" for minor in range(_OLDEST_MINOR, 30) for patch in range(40))
    return any(specifier.contains(version, prereleases=True) for version in versions)
