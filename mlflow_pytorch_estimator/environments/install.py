"""The commands that make one environment from a lock."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.freeze import heading
from mlflow_pytorch_estimator.environments.lock_lines import placed, write_lines
from mlflow_pytorch_estimator.environments.prefix import conda_engine, conda_meta
from mlflow_pytorch_estimator.environments.sources import copy_sources, located
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.lockfile import Lock
    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest
    from mlflow_pytorch_estimator.environments.uv import Uv

_FROZEN = re.compile(r"[\w.-]+(==| @ )|-e ")


def install(request: EnvironmentRequest, lock: Lock, folder: Path, uv: Uv) -> dict[str, Path]:
    """Make the environment in ``folder``; returns where copies of the project's folders lie."""
    if lock.conda:
        engine = conda_engine.installed(os.environ)
        uv.runner.say(f"installing {len(lock.conda)} conda packages with {engine.name}")
        engine.create_explicit(folder, lock.conda, uv.runner, os.environ)
    else:
        uv.run("venv", "--no-project", "--python", lock.interpreter, str(folder))
    sources = folder / "sources"
    copies = copy_sources((*request.requirements, *request.constraints), sources, request.project_dir)
    file = folder / "requirements.txt"
    options = [located(line, copies, request.project_dir) for line in request.options]
    write_lines(file, [*options, *placed(lock, sources, request.project_dir)])
    _add(folder, file, uv)
    return copies


def _add(folder: Path, file: Path, uv: Uv) -> None:
    # Everything is in the lock: looking at dependencies again would take twice the time.
    words = ("pip", "install", "--python", str(cache.interpreter(folder)), "--no-deps", "-r", str(file))
    try:
        # The index was asked a moment ago; to ask again for each package costs a second, and is needless where all
        # that is to be installed lies in uv's cache.
        uv.run(*words, "--offline")
    except EnvironmentBuildError as error:
        if "disabled" not in str(error):
            raise  # not for want of the network: a package does not compile, the disk is full, uv was killed
        uv.run(*words)


def freeze(lock: Lock, folder: Path, copies: Mapping[str, Path], uv: Uv) -> str:
    """Return what is in the environment, as ``environment.txt``."""
    # uv's remarks come on the same stream, and --quiet takes the packages along in some versions.
    said = uv.run("pip", "freeze", "--python", str(cache.interpreter(folder))).splitlines()
    of_conda = {requirement_name(info.partition("-")[0]) for info in conda_meta.kept_distributions(folder)}
    lines = [line for line in said if _FROZEN.match(line) and requirement_name(line) not in of_conda]
    frozen = "".join(f"{line}\n" for line in lines)
    for path, copy in copies.items():
        frozen = frozen.replace(copy.as_uri(), path)
    manager = uv.run("--version").strip()
    if lock.conda:
        manager = f"{conda_engine.installed(os.environ).name}, {manager}"
    # As comments: what pip can read stays readable for pip.
    packages = "".join(f"# conda {package.line}\n" for package in lock.conda)
    return heading(lock.python, manager) + packages + frozen
