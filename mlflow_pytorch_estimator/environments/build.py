"""Build environments into a cache, once for all that ask, and find them again."""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeGuard

from mlflow_pytorch_estimator.environments import cache, extras, install, integrity, leases, lockfile
from mlflow_pytorch_estimator.environments.lockfile import Lock
from mlflow_pytorch_estimator.environments.messages import full_disk
from mlflow_pytorch_estimator.environments.prefix import conda_meta
from mlflow_pytorch_estimator.environments.request import EnvironmentRequest, request
from mlflow_pytorch_estimator.environments.resolve import resolve
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.environments.uv import Uv
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
    from mlflow_pytorch_estimator.progress import Progress

_NOT_OURS = (errno.EROFS, errno.EACCES, errno.EPERM)
_AS_IT_IS = {"local": sys.executable, "container": "python"}


@dataclass(frozen=True)
class ReadyEnvironment:
    """An interpreter with everything in it that the job asked for."""

    python: Path
    key: str
    """16 hex digits, or the manager that builds nothing."""
    reused: bool
    seconds: float
    freeze: str
    """Interpreter, platform, manager and exact packages, as text; empty for the local manager, where listing
    them takes longer than starting the job (see ``local_freeze``)."""
    horovod: str = ""
    """What Horovod was built with, as ``horovodrun --check-build`` says it."""
    notices: tuple[str, ...] = ()

    def claim(self, job: Path) -> bool:
        """Keep the environment from being removed while a job needs it; False if it has just gone."""
        if self.key in _AS_IT_IS:
            return True
        return claim(self.python, job)


def claim(python: Path, job: Path) -> bool:
    """Keep the environment of an interpreter from being removed while the job in a directory needs it."""
    return leases.claim(python.parent.parent, job)


@dataclass(frozen=True)
class _Site:
    """Where and with what one environment is built."""

    request: EnvironmentRequest
    runner: Runner

    @property
    def uv(self) -> Uv:
        return Uv(self.request.environ, self.runner)


def find_ready(
    spec: EnvironmentSpec, project_dir: Path, cache_dir: Path, *, base: tuple[str, ...] | None = None
) -> ReadyEnvironment | None:
    """Return the environment if it is there already; starts no process and takes milliseconds.

    ``base`` replaces the packages that every job gets (see ``base.default_base``).
    """
    started = time.monotonic()
    if spec.manager in _AS_IT_IS:
        return ReadyEnvironment(Path(_AS_IT_IS[spec.manager]), spec.manager, True, 0.0, "")
    asked = request(spec, project_dir, cache_dir, base)
    lock = lockfile.load(asked)
    ready = _load(_folder(asked, lock)) if lock else None
    if ready is None:
        return None
    lockfile.used(asked)
    return _timed(ready, started)


def prepare(  # noqa: PLR0913 - each has one meaning, and all but two have a name at the call
    spec: EnvironmentSpec,
    project_dir: Path,
    cache_dir: Path,
    *,
    log: TextIO,
    cancelled: Callable[[], bool],
    say: Callable[[str], None],
    measured: Callable[[Progress], None] = lambda progress: None,
    base: tuple[str, ...] | None = None,
    upgrade: bool = False,
) -> ReadyEnvironment:
    """Return the environment, building it first if need be; ``log`` gets all that the tools say,
    ``measured`` how far downloads have come.

    The versions are those of the last time unless ``upgrade``. EnvironmentBuildError holds the tool's reason;
    BuildCancelled follows within a fraction of a second after ``cancelled()`` has become true.
    """
    started = time.monotonic()
    ready = None if upgrade else find_ready(spec, project_dir, cache_dir, base=base)
    if ready:
        return ready
    asked = request(spec, project_dir, cache_dir, base)
    runner = Runner(log, cancelled, say, -1, measured)
    try:
        lock = _locked(asked, runner, upgrade=upgrade)
        ready = _ready(asked, lock, runner)
    except OSError as error:
        words = f"{error.filename or cache_dir}: {error.strerror}"
        if error.errno in _NOT_OURS:
            words = (
                f"the environment is not in {cache_dir} yet and cannot be built there ({words}): name another folder "
                "in GPU_CLUSTER_ENVIRONMENTS, or let somebody build it who may write there"
            )
        raise EnvironmentBuildError(_explained(words, cache_dir)) from error
    except EnvironmentBuildError as error:
        raise EnvironmentBuildError(_explained(str(error), cache_dir)) from None
    ready = _timed(ready, started)
    say(f"environment {ready.key} ready in {ready.seconds:.1f} s")
    return ready


def _locked(asked: EnvironmentRequest, runner: Runner, *, upgrade: bool) -> Lock:
    """Return the kept versions, or choose and keep them."""

    def waiting(_line: str) -> None:
        runner.say("waiting for another job that resolves the same requirements")

    kept = lockfile.load(asked)
    if _holds(kept) and not upgrade:
        return kept
    with cache.locked(lockfile.path(asked), runner.cancelled, waiting) as descriptor:
        newer = lockfile.load(asked)
        if _holds(newer) and newer != kept:  # whoever held the lock before us has chosen
            return newer
        runner.say(f"resolving {len(asked.spec.conda) + len(asked.requirements)} requirements")
        uv = Uv(asked.environ, replace(runner, lock=descriptor))
        lock = resolve(asked, uv, kept.packages if kept and not upgrade else ())
        lockfile.store(asked, lock)
    return lock


def _holds(lock: Lock | None) -> TypeGuard[Lock]:
    return lock is not None and (not lock.interpreter or os.access(lock.interpreter, os.X_OK))


def _ready(asked: EnvironmentRequest, lock: Lock, runner: Runner) -> ReadyEnvironment:
    folder = _folder(asked, lock)
    with cache.locked(folder, runner.cancelled, runner.say) as descriptor:
        leases.restore(folder)
        ready = _load(folder)  # whoever held the lock before us may have built it
        if ready:
            return ready
        site = _Site(asked, replace(runner, lock=descriptor))
        _clear(folder, site.uv)
        runner.say(f"building environment {folder.name}: {len(lock.conda) + len(lock.packages)} packages")
        _build(site, lock, folder)
        built = _load(folder)  # before anybody who tidies up can have it
    if built is None:
        raise EnvironmentBuildError(f"environment {folder.name} has no usable interpreter: {folder}")
    return replace(built, reused=False)


def _build(site: _Site, lock: Lock, folder: Path) -> None:
    try:
        copies = install.install(site.request, lock, folder, site.uv)
        marker = extras.add(site.request, lock, folder, site.runner)
        marker["freeze"] = install.freeze(lock, folder, copies, site.uv)
        cache.store(folder, {**marker, "spec": site.request.spec.to_json(), "interpreter": lock.interpreter})
    except BaseException:
        cache.remove(folder)
        raise


def _clear(folder: Path, uv: Uv) -> None:
    """Make room: what is there is half of an environment, or a damaged one."""
    if cache.marker_of(folder) is not None:
        _refuse(folder, leases.users(folder))
        uv.runner.say(f"environment {folder.name} is damaged: building it again")
        # Its files are links into the caches of uv and conda, where they are as damaged.
        spoilt = integrity.damaged(folder, content=True)
        of_conda = [name for name in spoilt if (folder / conda_meta.FOLDER / f"{name}.json").exists()]
        conda_meta.forget(folder, of_conda)
        others = [name.partition("-")[0] for name in spoilt if name not in of_conda]
        if others:
            uv.run("cache", "clean", *others)
        _refuse(folder, leases.withdraw(folder))  # only now: without its marker nobody knows that it was damaged
    cache.remove(folder)


def _refuse(folder: Path, users: list[str]) -> None:
    if users:
        raise EnvironmentBuildError(
            f"environment {folder.name} is damaged ({folder}), and run {users[0]} still uses it: "
            "try again when that has ended, or cancel it"
        )


def _folder(asked: EnvironmentRequest, lock: Lock) -> Path:
    return asked.cache_dir / lock.key(asked, *extras.keys(asked, lock))


def _load(folder: Path) -> ReadyEnvironment | None:
    marker = cache.load(folder)
    if marker is None:
        return None
    cache.used(folder)
    notices = marker.get("notices")
    return ReadyEnvironment(
        cache.interpreter(folder),
        folder.name,
        reused=True,
        seconds=0.0,
        freeze=str(marker.get("freeze", "")),
        horovod=str(marker.get("horovod", "")),
        notices=tuple(notices) if isinstance(notices, list) else (),
    )


def _explained(words: str, cache_dir: Path) -> str:
    if not full_disk(words):
        return words
    return (
        f"no space left on device while building in {cache_dir}: free some, or move the environment cache "
        "(GPU_CLUSTER_ENVIRONMENTS), uv's (UV_CACHE_DIR) or conda's (CONDA_PKGS_DIRS, RATTLER_CACHE_DIR) to another "
        f"file system\n  {words}"
    )


def _timed(ready: ReadyEnvironment, started: float) -> ReadyEnvironment:
    return replace(ready, seconds=time.monotonic() - started)
