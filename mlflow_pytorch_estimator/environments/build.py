"""Build environments with uv into a cache, once for all that ask, and find them again."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlflow_pytorch_estimator.environments import cache, interpreters
from mlflow_pytorch_estimator.environments.base import default_base, job_packages
from mlflow_pytorch_estimator.environments.install import install
from mlflow_pytorch_estimator.environments.key import environment_key
from mlflow_pytorch_estimator.environments.messages import full_disk
from mlflow_pytorch_estimator.environments.runner import Uv, uv_environment
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec


@dataclass(frozen=True)
class ReadyEnvironment:
    """An interpreter with everything in it that the job asked for."""

    python: Path
    key: str
    """16 hex digits, or "local"."""
    reused: bool
    seconds: float
    freeze: str
    """Interpreter, platform, manager and exact packages, as text; empty for the local manager, where listing
    them takes longer than starting the job (see ``local_freeze``)."""


@dataclass(frozen=True)
class _Plan:
    key: str
    folder: Path
    interpreter: interpreters.Interpreter
    packages: tuple[tuple[str, ...], tuple[str, ...]]
    environ: dict[str, str]


def find_ready(
    spec: EnvironmentSpec, project_dir: Path, cache_dir: Path, *, base: tuple[str, ...] | None = None
) -> ReadyEnvironment | None:
    """Return the environment if it is there already; starts no process and takes milliseconds.

    ``base`` replaces the packages that every job gets (see ``base.default_base``).
    """
    started = time.monotonic()
    if spec.manager == "local":
        return ReadyEnvironment(Path(sys.executable), "local", True, 0.0, "")
    plan = _plan(spec, project_dir, cache_dir, base)
    ready = _load(plan)
    return _timed(ready, started) if ready else None


def prepare(  # noqa: PLR0913 - each has one meaning, and all but two have a name at the call
    spec: EnvironmentSpec,
    project_dir: Path,
    cache_dir: Path,
    *,
    log: TextIO,
    cancelled: Callable[[], bool],
    say: Callable[[str], None],
    base: tuple[str, ...] | None = None,
) -> ReadyEnvironment:
    """Return the environment, building it first if need be; ``log`` gets all that uv says.

    EnvironmentBuildError holds uv's reason; BuildCancelled follows within a fraction of a second after
    ``cancelled()`` has become true.
    """
    started = time.monotonic()
    ready = find_ready(spec, project_dir, cache_dir, base=base)
    if ready:
        return ready
    plan = _plan(spec, project_dir, cache_dir, base)
    try:
        with cache.locked(plan.folder, cancelled, say) as lock:
            ready = _load(plan)  # whoever held the lock before us may have built it
            if ready is None:
                say(f"building environment {plan.key} with uv ({len(plan.packages[0])} requirements)")
                _build(spec, project_dir.absolute(), plan, Uv(plan.environ, log, cancelled, say, lock))
                built = _load(plan)
                ready = replace(built, reused=False) if built else None
    except OSError as error:
        raise EnvironmentBuildError(
            _explained(f"{error.filename or plan.folder}: {error.strerror}", plan.folder)
        ) from error
    if ready is None:
        raise EnvironmentBuildError(f"environment {plan.key} has no usable interpreter: {plan.folder}")
    ready = _timed(ready, started)
    say(f"environment {plan.key} ready in {ready.seconds:.1f} s")
    return ready


def _plan(spec: EnvironmentSpec, project_dir: Path, cache_dir: Path, base: tuple[str, ...] | None) -> _Plan:
    packages = job_packages(spec, default_base() if base is None else base)
    interpreter = interpreters.choose(spec.python)
    environ = uv_environment(os.environ, packages[0], cache_dir)
    try:
        key = environment_key(packages, interpreter, project_dir, environ)
    except OSError as error:
        raise EnvironmentBuildError(f"cannot read {error.filename}: {error.strerror}") from error
    return _Plan(key, cache_dir.absolute() / key, interpreter, packages, environ)


def _load(plan: _Plan) -> ReadyEnvironment | None:
    marker = cache.load(plan.folder)
    if marker is None:
        return None
    return ReadyEnvironment(
        cache.interpreter(plan.folder),
        plan.key,
        reused=True,
        seconds=0.0,
        freeze=str(marker.get("freeze", "")),
    )


def _build(spec: EnvironmentSpec, project_dir: Path, plan: _Plan, uv: Uv) -> None:
    cache.remove(plan.folder)
    try:
        freeze = install(uv, plan.folder, project_dir, plan.interpreter, plan.packages)
        marker: dict[str, object] = {"spec": spec.to_json(), "interpreter": plan.interpreter.identity, "freeze": freeze}
        cache.store(plan.folder, marker)
    except BaseException as error:
        cache.remove(plan.folder)
        if isinstance(error, EnvironmentBuildError):
            raise EnvironmentBuildError(_explained(str(error), plan.folder)) from None
        raise


def _explained(words: str, folder: Path) -> str:
    if not full_disk(words):
        return words
    return (
        f"no space left on device while building {folder}: free some, or move the environment cache "
        f"({folder.parent}) or uv's (UV_CACHE_DIR) to another file system\n  {words}"
    )


def _timed(ready: ReadyEnvironment, started: float) -> ReadyEnvironment:
    return replace(ready, seconds=time.monotonic() - started)
