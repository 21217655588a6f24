"""What every job's environment holds besides the user's packages: MLflow, our own dependencies, pip."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description.localpath import LocalRequirement
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec

DISTRIBUTION = "mlflow-pytorch-estimator"
_MLFLOW = ("mlflow", "mlflow-skinny")


def default_base() -> tuple[str, ...]:
    """Return the submitting side's MLflow, our own dependencies, and pip as MLflow's virtualenvs have it."""
    ours = [str(item) for item in _our_requirements() if item.marker is None or item.marker.evaluate()]
    others = [line for line in ours if requirement_name(line) != "mlflow"]
    return (_mlflow_pin(), *others, "pip")


def job_packages(spec: EnvironmentSpec, base: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return requirements and constraints of the job: the user's, plus of ``base`` what they leave open."""
    requirements = _without_ourselves(spec.requirements)
    if spec.horovod:
        from mlflow_pytorch_estimator import horovod

        needed = horovod.runtime_requirements(_admitted("torch", (*requirements, *spec.constraints)))
        base = (*base, "torch", *(line for line in needed if line not in base))
    listed = {name for line in requirements if (name := requirement_name(line))}
    if listed & set(_MLFLOW):
        listed.add("mlflow")
    bound = {requirement_name(line) for line in spec.constraints}
    for line in base:
        name = requirement_name(line)
        if name not in listed:
            requirements.append(name if name in bound else line)
    pin = next((line for line in base if requirement_name(line) == "mlflow"), None)
    constraints = [*spec.constraints, *(_same_mlflow(spec, pin) if pin else ())]
    return tuple(requirements), tuple(constraints)


def requirement_name(line: str) -> str:
    """Return the normalised package name of a requirement line, "" when it has none or hides it."""
    from packaging.utils import canonicalize_name

    parsed = _parsed(line)
    if parsed:
        active = parsed.marker is None or parsed.marker.evaluate()
        return canonicalize_name(parsed.name) if active else ""
    if line.startswith("--"):
        return ""
    local = LocalRequirement.parse(line)
    if local and local.name:
        return canonicalize_name(local.name.partition("[")[0].strip())
    egg = re.search(r"[#&]egg=([\w.-]+)", line)
    if egg:
        return canonicalize_name(egg[1])
    # A wheel or a repository is called as the package in it; where it is not, uv names the conflict.
    last = PurePosixPath(local.path if local else re.split(r"[?#;\s]", line)[0]).name
    name = re.split(r"-\d|@|\.git\b", last)[0]
    return canonicalize_name(name) if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) else ""


def _admitted(name: str, lines: tuple[str, ...]) -> SpecifierSet:
    """Return which versions of a package all lines admit."""
    from packaging.specifiers import SpecifierSet

    found = SpecifierSet()
    for item in map(_parsed, lines):
        if item and requirement_name(str(item)) == name:
            found &= item.specifier
    return found


def _same_mlflow(spec: EnvironmentSpec, pin: str) -> list[str]:
    """Constrain a listed MLflow to the submitting version where everything that the user wrote admits it."""
    exact = re.fullmatch(r"mlflow==([\w.]+)", pin)
    lines = [_parsed(line) for line in (*spec.requirements, *spec.constraints)]
    family = [item for item in lines if item and requirement_name(str(item)) in _MLFLOW]
    if not exact or not all(item.url is None and item.specifier.contains(exact[1]) for item in family):
        return []
    return [f"{name}=={exact[1]}" for name in sorted({requirement_name(str(item)) for item in family})]


def _without_ourselves(lines: tuple[str, ...]) -> list[str]:
    """Replace our own package by what its extras ask for: the caller delivers its code on PYTHONPATH."""
    kept: list[str] = []
    for line in lines:
        parsed = _parsed(line)
        if parsed is None or requirement_name(line) != DISTRIBUTION:
            kept.append(line)
            continue
        for item in _our_requirements():
            if item.marker and any(item.marker.evaluate({"extra": extra}) for extra in parsed.extras):
                item.marker = None
                kept.append(str(item))
    return kept


def _mlflow_pin() -> str:
    from packaging.version import Version

    version = Version(metadata.version("mlflow"))
    if version.is_devrelease or version.local:
        # No index has a checkout's version.
        return next(str(item) for item in _our_requirements() if item.name == "mlflow")
    return f"mlflow=={version}"


def _our_requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise EnvironmentBuildError(
            f"{DISTRIBUTION} is not installed where the job is submitted, so its dependencies are unknown: "
            f"pip install {DISTRIBUTION}"
        ) from None
    return [Requirement(line) for line in lines]


def _parsed(line: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line.partition(" --hash=")[0])
    except InvalidRequirement:
        return None
