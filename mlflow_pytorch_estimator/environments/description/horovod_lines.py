"""Horovod as a requirement: taken out of the lines, because it has to be built for the torch of the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "horovod"


def is_request(line: str) -> bool:
    """Tell whether a requirement line asks for Horovod by name; a URL or a path is a build of the user's own."""
    from packaging.requirements import InvalidRequirement, Requirement

    if requirement_name(line) != NAME:
        return False
    try:
        return Requirement(line.partition(" --hash=")[0]).url is None
    except InvalidRequirement:
        return False


def wants_horovod(lines: Iterable[tuple[str, str]]) -> bool:
    """Tell whether (line, source) pairs ask for Horovod; EnvironmentSpecError for one that cannot be built."""
    pairs = [(line, source) for line, source in lines if requirement_name(line) == NAME]
    asked = [pair for pair in pairs if is_request(pair[0])]
    if len(asked) != len(pairs):
        return False  # the user's own build is what the name means here
    for line, source in asked:
        _check(line, source)
    return bool(asked)


def _check(line: str, source: str) -> None:
    from packaging.requirements import Requirement

    from mlflow_pytorch_estimator.horovod.release import VERSION  # that package imports this one

    requirement = Requirement(line.partition(" --hash=")[0])
    if not requirement.specifier.contains(VERSION, prereleases=True):
        raise EnvironmentSpecError(
            f"{source}: {requirement} cannot be had: Horovod is built here for the environment's torch, from its last "
            f"release, {VERSION}, the one that is known to build: write 'horovod', or name a build of your own "
            "('horovod @ URL')"
        )
    others = sorted(requirement.extras - {"pytorch"})
    if others:
        raise EnvironmentSpecError(
            f"{source}: {requirement} cannot be had: Horovod is built here for PyTorch alone: write 'horovod', and "
            f"name what {', '.join(others)} needs as packages of their own"
        )
