"""Which PyTorch an environment can have, and what goes with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.specifiers import SpecifierSet


@dataclass(frozen=True)
class _Family:
    """``2.13`` of torch: what is known to be on PyPI (x86-64 Linux), as a resolver found it."""

    torchvision: str
    """The family of torchvision whose metadata names this torch."""
    last: int
    """2.13.``last`` is the newest known release; the ones before it exist as well."""
    python: str
    """The Pythons that both have wheels for; "" leaves that end open."""


# From 0.29.1 on, torchvision's metadata says torch>=2.14.0, so 2.14 and 2.15 share a family; all before pin one torch.
_FAMILIES = {
    "1.11": _Family("0.12", 0, "<3.11"),
    "1.12": _Family("0.13", 1, "<3.11"),
    "1.13": _Family("0.14", 1, "<3.11"),
    "2.0": _Family("0.15", 1, "<3.12"),
    "2.1": _Family("0.16", 2, "<3.12"),
    "2.2": _Family("0.17", 2, "<3.13"),
    "2.3": _Family("0.18", 1, "<3.13"),
    "2.4": _Family("0.19", 1, "<3.13"),
    "2.5": _Family("0.20", 1, "<3.13"),
    "2.6": _Family("0.21", 0, "<3.14"),
    "2.7": _Family("0.22", 1, "<3.14"),
    "2.8": _Family("0.23", 0, "<3.14"),
    "2.9": _Family("0.24", 1, ""),
    "2.10": _Family("0.25", 0, ""),
    "2.11": _Family("0.26", 0, ""),
    "2.12": _Family("0.27", 1, ""),
    "2.13": _Family("0.28", 0, ""),
    "2.14": _Family("0.29", 1, ""),
    "2.15": _Family("0.29", 0, ">=3.11"),
}
_FIRST_WITH_NUMPY_2 = (2, 3)  # https://github.com/pytorch/pytorch/issues/132179
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
_PIN = re.compile(r"torch==(\d+\.\d+)(\.\d+)?\b.*")


def supported_versions() -> tuple[str, ...]:
    """Return the families of PyTorch that resolve with MLflow on Python 3.10 or newer, oldest first."""
    return tuple(_FAMILIES)


def framework_requirements(version: str | None) -> tuple[str, ...]:
    """Return the requirement lines of PyTorch: ``"2.13"`` is any 2.13, ``"2.13.1"`` exact, None the newest that fits.

    With a version comes the family of torchvision that belongs to it. A family newer than ``supported_versions`` is
    left to the resolver; EnvironmentSpecError for one that does not exist or that no Python of jobs can have.
    """
    if version is None:
        return ("torch", "torchvision")
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise EnvironmentSpecError(
            f"{version!r} is not a version of PyTorch, such as '{supported_versions()[-1]}' or '2.13.0'; "
            "leave it out for the newest, or write anything else as a pip requirement ('torch>=2.9')"
        )
    family = int(match[1]), int(match[2])
    known = _FAMILIES.get(f"{family[0]}.{family[1]}")
    if known is None:
        _refuse_unless_newer(version, family)
    return (
        f"torch=={version}" if match[3] else f"torch=={version}.*",
        f"torchvision=={known.torchvision}.*" if known else "torchvision",
        *(["numpy<2"] if family < _FIRST_WITH_NUMPY_2 else []),
    )


def framework_python(lines: Iterable[str]) -> str | None:
    """Return which Pythons the torch that ``lines`` pin has builds for, None when it takes all."""
    pins = [match[1] for line in lines if (match := _PIN.fullmatch(line))]
    return next((known.python for pin in pins if (known := _FAMILIES.get(pin)) and known.python), None)


def numpy_for(torch: SpecifierSet) -> str:
    """Return the requirement of numpy beside such a torch: the old ones cannot use numpy 2."""
    admitted = [
        tuple(map(int, name.split(".")))
        for name, family in _FAMILIES.items()
        if any(torch.contains(f"{name}.{patch}") for patch in range(family.last + 1))
    ]
    return "numpy<2" if admitted and max(admitted) < _FIRST_WITH_NUMPY_2 else "numpy"


def explain_framework(requirements: Iterable[str]) -> str | None:
    """Return which versions of PyTorch exist when ``requirements`` pin one that is not known to, else None.

    For whoever could not resolve them: the table may be older than the index.
    """
    for match in filter(None, map(_PIN.fullmatch, requirements)):
        known = _FAMILIES.get(match[1])
        if known is None:
            return f"known versions of PyTorch: {', '.join(_FAMILIES)}"
        if match[2] and int(match[2][1:]) > known.last:
            releases = ", ".join(f"{match[1]}.{patch}" for patch in range(known.last + 1))
            return f"known versions of PyTorch {match[1]}: {releases}; others: {', '.join(_FAMILIES)}"
    return None


def _refuse_unless_newer(version: str, family: tuple[int, int]) -> None:
    numbers = [tuple(map(int, name.split("."))) for name in _FAMILIES]
    known = ", ".join(_FAMILIES)
    if family < numbers[0]:
        raise EnvironmentSpecError(
            f"PyTorch {version} has no build for Python 3.10 or newer, which jobs need: the oldest that has is "
            f"{supported_versions()[0]} (known: {known}); leave the version out for the newest"
        )
    if family < numbers[-1]:
        raise EnvironmentSpecError(
            f"there is no PyTorch {version} (known: {known}); leave the version out for the newest"
        )
