"""Contradictions between requirement lines that can be seen without asking an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.requirements import Requirement


def refuse_contradictions(lines: Iterable[tuple[str, str]]) -> None:
    """Raise when a package is pinned (``==1.2``) in one line and excluded by another; takes (line, source) pairs.

    Ranges against ranges are left to the resolver, as are lines with different markers.
    """
    from packaging.utils import canonicalize_name

    seen: dict[tuple[str, str], list[tuple[Requirement, str]]] = {}
    for line, source in lines:
        requirement = _parsed(line)
        if requirement is None or requirement.url:
            continue
        group = seen.setdefault((canonicalize_name(requirement.name), str(requirement.marker)), [])
        for other, other_source in group:
            if _excludes(requirement, other) or _excludes(other, requirement):
                raise EnvironmentSpecError(
                    f"{other} ({other_source}) contradicts {requirement} ({source}): change one of them"
                )
        group.append((requirement, source))


def _excludes(one: Requirement, other: Requirement) -> bool:
    """Tell whether ``one`` pins a version that ``other`` does not take."""
    pin = _pin(one)
    if pin is None or other.specifier.contains(pin, prereleases=True):
        return False
    # "==2.1+cu126" is one of the versions that "==2.1" takes.
    other_pin = _pin(other)
    return other_pin is None or not one.specifier.contains(other_pin, prereleases=True)


def _pin(requirement: Requirement) -> str | None:
    exact = [item.version for item in requirement.specifier if item.operator == "=="]
    return next((version for version in exact if not version.endswith(".*")), None)


def _parsed(line: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line.partition(" --hash=")[0])
    except InvalidRequirement:
        return None
