"""``conda.yaml`` files whose conda part is only python and pip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

# name, prefix: what conda would call the environment; channels: python and pip come from elsewhere here.
_KEYS = ("name", "channels", "dependencies", "prefix")
_MATCH = re.compile(r"(?:[\w./:-]+::)?(?P<name>[A-Za-z0-9_.-]+?)(?P<rest>(?:[\s=<>!~].*)?)")
_CLAUSE = re.compile(r"(?P<op>==|>=|<=|!=|~=|=|<|>)?(?P<version>\d\w*(?:\.\w+)*)(?P<star>\.?\*)?(?:=[\w*]+)?")


@dataclass(frozen=True)
class CondaParts:
    """What pip can use of a ``conda.yaml``."""

    python: str | None
    pip: tuple[str, ...]


def convert(data: Mapping[str, object], name: str) -> CondaParts:
    """Return interpreter and pip lines; raises one error that names all that only conda could give."""
    unknown = [key for key in data if key not in _KEYS]
    if unknown:
        raise EnvironmentSpecError(
            f"{name}: {', '.join(map(str, unknown))} is not supported here (known: {', '.join(_KEYS)})"
        )
    if not isinstance(data.get("dependencies"), list):
        raise EnvironmentSpecError(f"{name}: 'dependencies' must be a list")
    python: str | None = None
    lines: list[str] = []
    refused: list[str] = []
    for item in data["dependencies"]:  # type: ignore[attr-defined]  # a list, as checked above
        if isinstance(item, dict) and list(item) == ["pip"]:
            lines += _pip_lines(item["pip"], name)
            continue
        if not isinstance(item, str):
            raise EnvironmentSpecError(f"{name}: {item!r} is neither a package nor a 'pip:' list")
        package, specifier = _match(item)
        if package == "python" and specifier is not None:
            python = specifier or None
        elif package == "pip" and specifier is not None:
            lines += [f"pip{specifier}"] if specifier else []
        else:
            refused.append(item)
    if refused:
        raise EnvironmentSpecError(
            f"{name}: pip cannot give {', '.join(refused)}; environments are built without conda for now: "
            "move what PyPI has to the 'pip:' list, or use --env-manager local where they are installed"
        )
    return CondaParts(python, tuple(lines))


def version_clause(text: str) -> str | None:
    """Turn a version (``=3.11``, ``3.11.4``, ``>=3.10``) into PEP 440, None if it is neither.

    A version given without its last parts means all that begin so: ``=3.11`` is ``==3.11.*``.
    """
    clause = _CLAUSE.fullmatch(text)
    if not clause:
        return None
    operator, version, star = clause["op"] or "=", clause["version"], clause["star"]
    if operator in ("=", "=="):
        return f"=={version}.*" if star or version.count(".") < 2 else f"=={version}"
    if star and operator != "!=":
        return None
    return f"{operator}{version}" + (".*" if star else "")


def _match(item: str) -> tuple[str, str | None]:
    """Split a match specification into name and PEP 440 specifier, None when it is more than versions."""
    match = _MATCH.fullmatch(item.strip())
    if not match:
        return item, None
    versions = re.sub(r"\s*([,<>=!~]+)\s*", r"\1", match["rest"].strip())
    versions = versions.split(" ", maxsplit=1)[0]  # what follows a blank is conda's build string
    clauses = [version_clause(part) for part in versions.split(",")] if versions else []
    known = [clause for clause in clauses if clause is not None]
    return match["name"].lower(), ",".join(known) if len(known) == len(clauses) else None


def _pip_lines(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise EnvironmentSpecError(f"{name}: 'pip:' must be a list of strings")
    return value
