"""What is in the cache: environments, Horovod wheels, kept versions, and what killed builds have left."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache, leases
from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.environments.tending.disk import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = re.compile(r"[0-9a-f]{16}")
"""Names of entries; whatever else lies in the folder is not ours."""
RECORD = "wheel.json"
ENVIRONMENT, WHEEL = "environment", "Horovod wheel"
_PYTHON = re.compile(r"^# python (\S+)", re.MULTILINE)
_PACKAGE = re.compile(r"^(?:[^#\s]|# conda )", re.MULTILINE)
_TORCH = re.compile(r"^(?:torch==|# conda \S+/pytorch-)(\d[\w.+!]*)", re.MULTILINE)


class State(str, Enum):
    """Whether an entry can be used."""

    READY = "ready"
    """Whole, as far as a quick look tells."""
    DAMAGED = "damaged"
    """Something of it is missing or changed; the next job that wants it builds it again."""
    BUILDING = "being built"
    """Somebody holds its lock and it is not ready yet."""
    HALF = "half built"
    """A killed build has left it."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Entry:
    """An environment, or a Horovod wheel that was built here."""

    kind: str
    """``ENVIRONMENT`` or ``WHEEL``."""
    folder: Path
    state: State
    used: float
    """When a job last wanted it, in Unix seconds."""
    usage: Usage
    users: tuple[str, ...] = ()
    """Runs that have it and have not ended."""
    python: str = ""
    packages: int | None = None
    torch: str = ""
    description: str = ""
    """Of a wheel: what was built."""

    @property
    def key(self) -> str:
        """Its name."""
        return self.folder.name


@dataclass(frozen=True)
class Survey:
    """All that is in a cache, newest used first."""

    environments: tuple[Entry, ...]
    wheels: tuple[Entry, ...]
    locks: tuple[Path, ...]
    """Files with the versions that were chosen, one for each request."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Environments and wheels, newest used first."""
        return tuple(sorted((*self.environments, *self.wheels), key=_newest))


def survey(cache_dir: Path) -> Survey:
    """Look at everything, quickly: sizes cost one look at each file, contents are not read."""
    return Survey(
        tuple(sorted(map(_environment, folders(cache_dir)), key=_newest)),
        tuple(sorted(map(_wheel, folders(wheels(cache_dir))), key=_newest)),
        tuple(sorted((cache_dir / "locks").glob("*.json"))),
    )


def folders(parent: Path) -> Iterator[Path]:
    """Yield the entries of a folder, by name."""
    for path in sorted(parent.glob("*")):
        if KEY.fullmatch(path.name) and path.is_dir():
            yield path


def last_used(folder: Path) -> float:
    """Return when an entry was last wanted, else when it was built or begun."""
    for path in (cache.used_file(folder), folder / cache.MARKER, folder / RECORD, folder):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def state_of(folder: Path) -> State:
    """Return the state of an environment, from a quick look."""
    if cache.marker_of(folder) is None:
        return State.BUILDING if cache.is_locked(folder) else State.HALF
    return State.READY if cache.load(folder) else State.DAMAGED


def _environment(folder: Path) -> Entry:
    freeze = str((cache.marker_of(folder) or {}).get("freeze", ""))
    python, torch = _PYTHON.search(freeze), _TORCH.search(freeze)
    return Entry(
        ENVIRONMENT,
        folder,
        state_of(folder),
        last_used(folder),
        usage(folder),
        tuple(leases.users(folder)),
        python[1] if python else "",
        len(_PACKAGE.findall(freeze)) if freeze else None,
        torch[1] if torch else "",
    )


def _wheel(folder: Path) -> Entry:
    description, whole = "", False
    try:
        record = json.loads((folder / RECORD).read_bytes())
        description = str(record["description"])
        whole = (folder / str(record["file"])).stat().st_size == record["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    state = State.READY if whole else State.DAMAGED
    return Entry(WHEEL, folder, state, last_used(folder), usage(folder), description=description)


def _newest(entry: Entry) -> tuple[float, str]:
    return -entry.used, entry.key
