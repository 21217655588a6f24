"""Which Python a description asks for, in PEP 440's words."""

from __future__ import annotations

import re

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

_CLAUSE = re.compile(r"(?P<op>==|>=|<=|!=|~=|=|<|>)?(?P<version>\d\w*(?:\.\w+)*)(?P<star>\.?\*)?(?:=[\w.*]+)?")
OLDEST_MINOR = 10


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


def python_specifier(value: object, name: str) -> str | None:
    """Turn what a user calls a Python version (``"3.11"``, ``">=3.10, <3.13"``) into PEP 440."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise EnvironmentSpecError(f'{name}: python must be in quotes, such as python: "3.11", not {value!r}')
    clauses = [version_clause(part.strip()) for part in value.split(",")]
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
            f"{source}: asks for Python {python}; jobs of this backend need Python 3.{OLDEST_MINOR} or newer"
        )


def is_possible(python: str) -> bool:
    """Tell whether there is, or may once be, a Python of jobs that fits a valid specifier."""
    from packaging.specifiers import SpecifierSet

    specifier = SpecifierSet(python)
    versions = (f"3.{minor}.{patch}" for minor in range(OLDEST_MINOR, 30) for patch in range(40))
    return any(specifier.contains(version, prereleases=True) for version in versions)


def conda_python(python: str | None) -> str:
    """Return the match specification of a PEP 440 specifier, never one that admits a Python too old for jobs."""
    clauses = [clause.strip() for clause in (python or "").split(",") if clause.strip()]
    if not any(clause.startswith(("==", ">", "~=")) for clause in clauses):
        clauses.insert(0, f">=3.{OLDEST_MINOR}")
    # conda writes "begins with 3.11" as 3.11.*, without an operator.
    written = [clause[2:] if clause.startswith("==") and clause.endswith(".*") else clause for clause in clauses]
    return f"python {','.join(written)}"
