"""From a request that needs conda to its lock: conda's packages first, then what pip adds to them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.description import conda
from mlflow_pytorch_estimator.environments.lock_lines import kept, write_question
from mlflow_pytorch_estimator.environments.lockfile import Lock
from mlflow_pytorch_estimator.environments.prefix import conda_engine, conda_meta
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.request import EnvironmentRequest
    from mlflow_pytorch_estimator.environments.uv import Uv

_NEW = re.compile(r" [+~] (\S+(?:==| @ )\S+)")
_COUNT = re.compile(r"Would install (\d+) package", re.MULTILINE)
_MASK = "****"


def resolve(request: EnvironmentRequest, uv: Uv, work: Path) -> Lock:
    """Return exact packages of both kinds.

    A prefix is made for it: what pip has to add depends on what conda has installed, and conda packages tell that only
    once they are unpacked. It cannot become the environment, because prefixes do not move and the environment is named
    by the answer; its files are links into conda's cache, so the second time is quick.
    """
    prefix, spec = work / "prefix", request.spec
    engine = conda_engine.installed(os.environ)
    uv.runner.say(f"choosing conda packages with {engine.name}")
    engine.create(prefix, spec.conda, spec.channels, uv.runner, os.environ)
    packages = conda_meta.packages(prefix)
    python = next((package.facts["version"] for package in packages if package.facts["name"] == "python"), None)
    if python is None or not os.access(cache.interpreter(prefix), os.X_OK):
        raise EnvironmentBuildError(f"{engine.name} installed no Python for {', '.join(spec.conda)}")
    return Lock("", str(python), kept(_added(request, uv, work, prefix), request, work), packages)


def _added(request: EnvironmentRequest, uv: Uv, work: Path, prefix: Path) -> list[str]:
    """Return what pip would install into the prefix; what conda has installed counts, and stays where it can."""
    here = _installed(prefix)
    named = {conda.package_name(item) for item in request.spec.conda if conda.names_versions(item)}
    pins = [pin for pin, package in here.values() if package in named]  # the user's own words about conda's packages
    requirements, constraints = write_question(request, work, pins)
    files = ["-r", str(requirements), "-c", str(constraints)]
    try:
        said = uv.run("pip", "install", "--dry-run", "--python", str(cache.interpreter(prefix)), *files)
    except EnvironmentBuildError as error:
        meant = [pin for pin in pins if pin in str(error)]
        hint = (
            f"\n  ({', '.join(meant)}: as conda has installed it, because {request.spec.source} says so)"
            if meant
            else ""
        )
        raise EnvironmentBuildError(f"{error}{hint}") from None
    new = _new(said)
    for name in sorted(new.keys() & here.keys()):
        uv.runner.say(
            f"pip replaces conda's {here[name][0]} by {new[name]}: name a version in the conda packages to prevent it"
        )
    own = {requirement_name(line): line for line in requirements.read_text(encoding="utf-8").splitlines()}
    # uv hides a password; the user's own line has the name of the variable in its place.
    return [own.get(name, line) if _MASK in line else line for name, line in new.items()]


def _new(said: str) -> dict[str, str]:
    lines = [found[1] for line in said.splitlines() if (found := _NEW.fullmatch(line))]
    count = _COUNT.search(said)
    if len(lines) != int(count[1] if count else 0):
        raise EnvironmentBuildError(f"uv's answer is not understood: {said.strip()}")
    return {requirement_name(line): line for line in lines}


def _installed(prefix: Path) -> dict[str, tuple[str, str]]:
    """Return distribution -> its exact requirement and its conda package."""
    found = {}
    for info, record in conda_meta.distributions(prefix).items():
        name, _, version = info.removesuffix(conda_meta.INFO).rpartition("-")
        found[requirement_name(name)] = (f"{name}=={version}", record.rsplit("-", 2)[0])
    return found
