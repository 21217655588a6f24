"""What an environment gets besides packages of an index: Horovod, built for its torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.uv import Uv
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.lockfile import Lock
    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest
    from mlflow_pytorch_estimator.environments.runner import Runner
    from mlflow_pytorch_estimator.horovod import Plan


def keys(request: EnvironmentRequest, lock: Lock) -> tuple[str, ...]:
    """Return what they add to the environment's key; starts no process."""
    return (_plan(lock).key,) if request.spec.horovod else ()


def add(request: EnvironmentRequest, lock: Lock, folder: Path, runner: Runner) -> dict[str, object]:
    """Build and install them into a new environment; returns what there is to know about them."""
    if not request.spec.horovod:
        return {}
    from mlflow_pytorch_estimator import horovod

    plan = _plan(lock)
    python = cache.interpreter(folder)
    for notice in plan.notices:
        runner.say(notice)
    made = horovod.obtain(plan, python, wheels(request.cache_dir), runner, request.environ)
    runner.say(f"installing {made.plan.describe()}")
    horovod.put(made.wheel, python, Uv(request.environ, runner))
    return {"horovod": horovod.check_build(python, runner), "notices": list(made.plan.notices)}


def wheels(cache_dir: Path) -> Path:
    """Return where wheels that were built here are kept, beside the environments."""
    return cache_dir / "wheels"


def _plan(lock: Lock) -> Plan:
    from mlflow_pytorch_estimator import horovod

    if "torch" not in lock.versions:
        raise EnvironmentBuildError("Horovod is built for the torch of pip: name torch as a pip package")
    return horovod.plan(lock.versions, lock.python, horovod.Options.from_environ(os.environ), os.environ)
