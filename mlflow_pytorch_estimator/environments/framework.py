"""Which PyTorch an environment can have, and what goes with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Version families of torch and the Pythons that both torch and the torchvision for it have wheels for, as a resolver
# found them on PyPI (x86-64 Linux); "" leaves that end open. Families that are not here are left to the resolver.
_PYTHONS = {
    **dict.fromkeys(("1.11", "1.12", "1.13"), "<3.11"),
    **dict.fromkeys(("2.0", "2.1"), "<3.12"),
    **dict.fromkeys(("2.2", "2.3", "2.4", "2.5"), "<3.13"),
    **dict.fromkeys(("2.6", "2.7", "2.8"), "<3.14"),
    **dict.fromkeys(("2.9", "2.10", "2.11", "2.12", "2.13", "2.14"), ""),
    "2.15": ">=3.11",
}
_OLDEST = (1, 11)
_FIRST_WITH_NUMPY_2 = (2, 3)  # https://github.com/pytorch/pytorch/issues/132179
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
_PIN = re.compile(r"torch==(\d+\.\d+)\b.*")


def supported_versions() -> tuple[str, ...]:
    """Return the families of PyTorch that resolve with MLflow on Python 3.10 or newer, oldest first."""
    return tuple(_PYTHONS)


def framework_requirements(version: str | None) -> tuple[str, ...]:
    """Return the requirement lines of PyTorch: ``"2.13"`` is any 2.13, ``"2.13.1"`` exact, None the newest that fits.

    torchvision's own metadata names its torch, so the resolver finds the one that goes with it. A version newer than
    ``supported_versions`` is taken as it is; EnvironmentSpecError for one that no Python of jobs can have.
    """
    if version is None:
        return ("torch", "torchvision")
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    families = supported_versions()
    if match is None:
        raise EnvironmentSpecError(
            f"{version!r} is not a version of PyTorch, such as '{families[-1]}' or '2.13.1'; "
            "leave it out for the newest, or write anything else as a pip requirement ('torch>=2.9')"
        )
    family = int(match[1]), int(match[2])
    if family < _OLDEST:
        raise EnvironmentSpecError(
            f"PyTorch {version} has no build for Python 3.10 or newer, which jobs need: the oldest that has is "
            f"{families[0]} (known: {families[0]} to {families[-1]}); leave the version out for the newest"
        )
    pin = f"torch=={version}" if match[3] else f"torch=={version}.*"
    return (pin, "torchvision", *(["numpy<2"] if family < _FIRST_WITH_NUMPY_2 else []))


def framework_python(lines: Iterable[str]) -> str | None:
    """Return which Pythons the torch that ``lines`` pin has builds for, None when it takes all."""
    pins = [match[1] for line in lines if (match := _PIN.fullmatch(line))]
    return next((python for pin in pins if (python := _PYTHONS.get(pin))), None)
