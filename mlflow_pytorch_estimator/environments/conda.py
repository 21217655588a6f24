"""``conda.yaml`` files whose conda part is only python, pip and what PyPI has as well."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.notices import warn_once
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

# name, prefix: what conda would call the environment; channels: python and pip come from elsewhere here.
_KEYS = ("name", "channels", "dependencies", "prefix")
_MATCH = re.compile(r"(?:(?P<channel>[\w./:-]+)::)?(?P<name>[A-Za-z0-9_.-]+?)(?P<rest>(?:[\s=<>!~].*)?)")
_CLAUSE = re.compile(r"(?P<op>==|>=|<=|!=|~=|=|<|>)?(?P<version>\d\w*(?:\.\w+)*)(?P<star>\.?\*)?(?:=[\w*]+)?")
# The same software under the same name and version numbers on PyPI; add only what somebody has compared.
_ON_PYPI = frozenset(
    ("h5py", "matplotlib", "numpy", "pandas", "pillow", "pyyaml", "requests", "scikit-learn", "scipy", "tqdm")
)
_CHANNELS = (None, "defaults", "conda-forge")


@dataclass(frozen=True)
class CondaParts:
    """What pip can use of a ``conda.yaml``."""

    python: str | None
    pip: tuple[str, ...]


def convert(data: Mapping[str, object], name: str) -> CondaParts:
    """Return interpreter and pip lines; raises one error that names all that only conda could give."""
    pythons: list[str] = []
    lines: list[str] = []
    taken: list[str] = []
    refused: list[str] = []
    for item in dependencies(data, name):
        if isinstance(item, dict):
            lines += item["pip"]
            continue
        channel, package, specifier = _match(item)
        if package == "python" and specifier is not None:
            pythons += [specifier] if specifier else []
        elif package == "pip" and specifier is not None:
            lines += [f"pip{specifier}"] if specifier else []
        elif package in _ON_PYPI and specifier is not None and channel in _CHANNELS:
            taken.append(f"{package}{specifier}")
        else:
            refused.append(item)
    if refused:
        raise _refusal(refused, name)
    if taken:
        warn_once(f"{name}: taken from PyPI, environments are built without conda for now: {', '.join(taken)}")
    return CondaParts(",".join(dict.fromkeys(pythons)) or None, (*taken, *lines))


def dependencies(data: Mapping[str, object], name: str) -> list[str | dict[str, list[str]]]:
    """Return the ``dependencies`` of a ``conda.yaml``, checked: match specifications and ``{"pip": lines}``."""
    unknown = [key for key in data if key not in _KEYS]
    if unknown:
        raise EnvironmentSpecError(
            f"{name}: {', '.join(map(str, unknown))} is not supported here (known: {', '.join(_KEYS)})"
        )
    items = data.get("dependencies")
    if not isinstance(items, list):
        raise EnvironmentSpecError(f"{name}: 'dependencies' must be a list")
    for item in items:
        if isinstance(item, dict) and list(item) == ["pip"]:
            _check_pip_lines(item["pip"], name)
        elif not isinstance(item, str):
            raise EnvironmentSpecError(f"{name}: {item!r} is neither a package nor a 'pip:' list")
    return items


def version_clause(text: str, *, exact: bool = False) -> str | None:
    """Turn a version (``=3.11``, ``3.11.4``, ``>=3.10``) into PEP 440, None if it is neither.

    A version given without its last parts means all that begin so: ``=3.11`` is ``==3.11.*``, and so is ``==3.11``
    unless ``exact``: nobody who writes ``python==3.11`` means 3.11.0.
    """
    clause = _CLAUSE.fullmatch(text)
    if not clause:
        return None
    operator, version, star = clause["op"] or "=", clause["version"], clause["star"]
    if operator in ("=", "=="):
        begins = star or (version.count(".") < 2 and not (exact and operator == "=="))
        return f"=={version}.*" if begins else f"=={version}"
    if star and operator != "!=":
        return None
    return f"{operator}{version}" + (".*" if star else "")


def package_name(item: str) -> str:
    """Return the package that a match specification is about."""
    return _match(item)[1]


def _match(item: str) -> tuple[str | None, str, str | None]:
    """Split a match specification: channel, name, PEP 440 specifier; None for one that is more than versions."""
    match = _MATCH.fullmatch(item.strip())
    if not match:
        return None, item, None
    name = match["name"].lower()
    versions = re.sub(r"\s*([,<>=!~]+)\s*", r"\1", match["rest"].strip())
    versions = versions.split(" ", maxsplit=1)[0]  # what follows a blank is conda's build string
    exact = name not in {"python", "pip"}
    clauses = [version_clause(part, exact=exact) for part in versions.split(",")] if versions else []
    known = [clause for clause in clauses if clause is not None]
    return match["channel"], name, ",".join(known) if len(known) == len(clauses) else None


def _refusal(refused: list[str], name: str) -> EnvironmentSpecError:
    hint = ""
    if any(package_name(item) == "pytorch" for item in refused):
        hint = " (conda's pytorch is PyPI's torch)"
    return EnvironmentSpecError(
        f"{name}: pip cannot give {', '.join(refused)}; environments are built without conda for now: "
        f"name what PyPI has as pip packages{hint}, or use the interpreter that has them as it is "
        "(--env-manager local, user_managed=True)"
    )


def _check_pip_lines(value: object, name: str) -> None:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise EnvironmentSpecError(f"{name}: 'pip:' must be a list of strings")
