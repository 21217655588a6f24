"""Look at all files of what is in the cache, and see to it that what is damaged is built again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache, integrity, leases
from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.environments.tending.leftovers import is_readable
from mlflow_pytorch_estimator.environments.tending.removal import InUse, NotRemoved, held
from mlflow_pytorch_estimator.environments.tending.survey import ENVIRONMENT, WHEEL, State, folders, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Diagnosis:
    """What was found in one entry."""

    name: str
    what: str
    problems: tuple[str, ...] = ()
    advice: str = ""
    """What happens about it, or what the user should do."""


def check(cache_dir: Path, keys: tuple[str, ...] = (), *, content: bool = True) -> Iterator[Diagnosis]:
    """Yield a diagnosis for each entry, or for those with the ``keys``; ``content`` reads every byte."""
    for folder in folders(cache_dir):
        if not keys or folder.name in keys:
            yield _environment(folder, content=content)
    for folder in folders(wheels(cache_dir)):
        if not keys or folder.name in keys:
            yield _wheel(folder)
    for lock in sorted((cache_dir / "locks").glob("*.json")):
        if not keys and not is_readable(lock):
            yield Diagnosis(lock.stem, "chosen versions", (f"{lock} cannot be read",), "the next job chooses anew")


def _environment(folder: Path, *, content: bool) -> Diagnosis:
    marker = cache.marker_of(folder)
    if marker is None:
        state = state_of(folder)
        advice = "`envs prune` removes it" if state is State.HALF else ""
        return Diagnosis(folder.name, str(state), advice=advice)
    problems = _problems(folder, marker, content=content)
    if not problems:
        return Diagnosis(folder.name, ENVIRONMENT)
    if cache.marker_of(folder) != marker:
        return Diagnosis(folder.name, ENVIRONMENT, advice="was removed or built anew meanwhile")
    return Diagnosis(folder.name, ENVIRONMENT, tuple(problems), _condemned(folder, marker, problems))


def _problems(folder: Path, marker: dict[str, object], *, content: bool) -> list[str]:
    found = integrity.changed(folder, marker.get("distributions")) | integrity.damaged(folder, content=content)
    problems = [f"{name}: {reason}" for name, reason in sorted(found.items())]
    python = cache.interpreter(folder)
    if not os.access(python, os.X_OK):
        where = f"{python} -> {python.readlink()}" if python.is_symlink() else str(python)
        problems.append(f"no interpreter: {where} cannot be run")
    if not (folder / "pyvenv.cfg").exists() and not (folder / "conda-meta").exists():
        problems.append("pyvenv.cfg has gone, without which Python does not find the packages")
    return problems or cache.damage_of(marker)


def _condemned(folder: Path, marker: dict[str, object], problems: list[str]) -> str:
    """Make the next job build it again, and say so; a job that has it now must not lose it."""
    try:
        with held(folder):
            users = leases.users(folder)
            if users:
                return f"in use by run {users[0]}: check again when that has ended"
            if cache.marker_of(folder) == marker:
                cache.condemn(folder, marker, problems)
    except InUse:
        return "somebody builds it just now"
    except NotRemoved as error:
        return f"it cannot be marked, so that jobs may still use it; {error}"
    return "the next job that wants it builds it again"


def _wheel(folder: Path) -> Diagnosis:
    from mlflow_pytorch_estimator.horovod import wheels as kept

    if kept.find(folder):
        return Diagnosis(folder.name, WHEEL)
    problem = "the wheel or its record is missing or changed"
    return Diagnosis(folder.name, WHEEL, (problem,), "the next job that wants it builds it again")
