"""Requirement lines between a job, uv and a lock: written for uv from where the job is, kept without that place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.sources import copy_sources, located

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.lockfile import Lock
    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest

# In place of folders whose names differ from job to job.
_PROJECT, _SOURCES = "file:///PROJECT", "file:///SOURCES"


def write_question(request: EnvironmentRequest, work: Path, more: Iterable[str] = ()) -> tuple[Path, Path]:
    """Write the requirements and the constraints, with ``more`` of these, for uv to resolve; returns both files."""
    project = request.project_dir
    copies = copy_sources((*request.requirements, *request.constraints), _sources(work), project)
    requirements, constraints = work / "requirements.txt", work / "constraints.txt"
    write_lines(requirements, (located(line, copies, project) for line in request.requirements))
    write_lines(constraints, (*(located(line, copies, project) for line in request.constraints), *more))
    return requirements, constraints


def kept(lines: Iterable[str], request: EnvironmentRequest, work: Path) -> tuple[str, ...]:
    """Return uv's answer as lines of a lock."""
    places = {_sources(work).as_uri(): _SOURCES, request.project_dir.as_uri(): _PROJECT}
    for place, name in places.items():
        lines = [line.replace(place, name) for line in lines]
    return tuple(_with_hashes(lines, request))


def placed(lock: Lock, sources: Path, project_dir: Path) -> list[str]:
    """Return the lock's lines for an installation from here."""
    return [line.replace(_SOURCES, sources.as_uri()).replace(_PROJECT, project_dir.as_uri()) for line in lock.packages]


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write a requirements file."""
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _sources(work: Path) -> Path:
    return work / "sources"


def _with_hashes(lines: Iterable[str], request: EnvironmentRequest) -> list[str]:
    """Add the user's own hashes, which the resolver has dropped."""
    asked = [line.partition(" --hash=") for line in (*request.requirements, *request.constraints)]
    hashes = {requirement_name(line): f" --hash={values}" for line, mark, values in asked if mark}
    return [line + hashes.get(requirement_name(line), "") for line in lines]
