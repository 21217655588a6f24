"""The kept answer to a request: exact versions, so that the same request means the same packages until an upgrade."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.key import digest
from mlflow_pytorch_estimator.environments.prefix.conda_meta import CondaPackage
from mlflow_pytorch_estimator.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest

_VERSION = re.compile(r"==\s*([\w.!+]+)")


@dataclass(frozen=True)
class Lock:
    """What a request was resolved to."""

    interpreter: str
    """Path of the interpreter that the environment starts from; empty where conda brings it."""
    python: str
    """Its full version."""
    packages: tuple[str, ...]
    """Exact requirement lines; what lies in the project or in copies of it stands under ``PROJECT`` and ``SOURCES``."""
    conda: tuple[CondaPackage, ...] = ()
    """What conda installs before, python among them."""

    @property
    def versions(self) -> dict[str, str]:
        """Return package -> version, for those that an index provides."""
        pins = [(line, _VERSION.search(line)) for line in self.packages if " @ " not in line]
        return {requirement_name(line): pin[1] for line, pin in pins if pin}

    def key(self, request: EnvironmentRequest, *parts: str) -> str:
        """Return the name of the environment; ``parts`` are what is built into it besides."""
        material = {"packages": self.packages, "python": self.python, "interpreter": self.interpreter, "parts": parts}
        conda = {"conda": sorted(package.line for package in self.conda)} if self.conda else {}
        return digest({**material, **conda, **request.surroundings})


def path(request: EnvironmentRequest) -> Path:
    """Return where the lock of a request is kept."""
    return request.cache_dir / "locks" / f"{request.key}.json"


def load(request: EnvironmentRequest) -> Lock | None:
    """Return the kept lock, None when there is none that can be read."""
    try:
        raw = json.loads(path(request).read_bytes())
        conda = tuple(CondaPackage(item["url"], dict(item["facts"])) for item in raw["conda"])
        return Lock(raw["interpreter"], raw["python"], tuple(raw["packages"]), conda)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def used(request: EnvironmentRequest) -> None:
    """Remember that the lock was wanted now: those that nobody wants for long are forgotten."""
    with contextlib.suppress(OSError):  # a cache that others keep may be read-only
        os.utime(path(request))


def store(request: EnvironmentRequest, lock: Lock) -> None:
    """Keep a lock; readable for all who share the cache."""
    content = {"source": request.spec.source, "requirements": request.requirements, **asdict(lock)}
    write_atomic(path(request), json.dumps(content, indent=1) + "\n", mode=0o666)
