"""Packages that a program lists, or that files beside a script list -> ``EnvironmentSpec``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.description import parts, read
from mlflow_pytorch_estimator.environments.description.framework import (
    framework_python,
    framework_requirements,
    supported_versions,
)
from mlflow_pytorch_estimator.environments.description.notices import warn_once
from mlflow_pytorch_estimator.environments.description.parts import Part
from mlflow_pytorch_estimator.environments.description.python_versions import python_specifier
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec

__all__ = ["PackageRequest", "SourceNames", "describe", "framework_requirements", "supported_versions"]

# Old lists hold them because the service injected them; they would bring an SDK that is out of support.
_NEEDLESS = ("azureml-core", "azureml-defaults", "azureml-mlflow", "azureml-sdk")
_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class SourceNames:
    """What errors call the parts of a request."""

    pip: str = "the pip list"
    conda: str = "the conda list"
    requirements_file: str = "the requirements file"
    conda_file: str = "the conda file"
    framework: str = "the framework"
    python: str = "the Python version"


@dataclass(frozen=True)
class PackageRequest:
    """What a job's environment should hold; every part may be empty."""

    pip: tuple[str, ...] = ()
    """Lines of a requirements file."""
    conda: tuple[str, ...] = ()
    """Conda match specifications."""
    channels: tuple[str, ...] = ()
    """Where conda looks for ``conda``, when it is needed for them."""
    requirements_file: Path | None = None
    conda_file: Path | None = None
    """Stands alone: no other part beside it but ``python``."""
    framework: tuple[str, ...] = ()
    """Requirements that hold besides the user's words; a bare name gives way to them."""
    python: str | None = None
    """``"3.11"`` is any 3.11; ``">=3.10,<3.13"``."""
    names: SourceNames = SourceNames()


def describe(root: Path, request: PackageRequest) -> EnvironmentSpec:
    """Return the environment; ``root`` is the source directory, where relative paths start and files lie.

    EnvironmentSpecError names the parts that contradict each other, or what in one of them cannot be had.
    """
    _refuse_beside_conda_file(request)
    found = [_needed(part) for part in _parts(root, request)]
    if request.framework:
        found.append(_framework(request, found))
    return parts.combine(found)


def _refuse_beside_conda_file(request: PackageRequest) -> None:
    names = request.names
    others = {
        names.pip: request.pip,
        names.conda: request.conda,
        names.requirements_file: request.requirements_file,
        names.framework: request.framework,
    }
    given = [name for name, value in others.items() if value]
    if request.conda_file is not None and given:
        raise EnvironmentSpecError(
            f"{names.conda_file} {str(request.conda_file)!r} describes the whole environment: "
            f"leave out {' and '.join(given)}, or move all packages into one of them"
        )


def _parts(root: Path, request: PackageRequest) -> Iterator[Part]:
    names = request.names
    if request.conda_file is not None:
        file = _inside(root, request.conda_file, names.conda_file)
        name = _shown(root, file)
        yield parts.of_conda(root, file.parent, read.load_yaml(file, name), name)
    if request.conda:
        data = {"dependencies": [*request.conda], "channels": [*request.channels] or None}
        yield parts.of_conda(root, root, data, names.conda)
    if request.requirements_file is not None:
        file = _inside(root, request.requirements_file, names.requirements_file)
        yield parts.of_file(root, file, _shown(root, file))
    if request.pip:
        yield parts.of_lines(root, root, request.pip, names.pip)
    if request.python is not None:
        yield Part(names.python, python=python_specifier(request.python, names.python))


def _needed(part: Part) -> Part:
    kept: list[str] = []
    for line in part.requirements:
        if requirement_name(line) in _NEEDLESS:
            warn_once(f"{part.source}: {line} is left out: that SDK is out of support, its names are in {_PACKAGE}")
        else:
            kept.append(line)
    return replace(part, requirements=tuple(kept))


def _framework(request: PackageRequest, found: Iterable[Part]) -> Part:
    said = {requirement_name(line): line for part in found for line in part.requirements}
    kept = tuple(line for line in request.framework if not _gives_way(line, said.get(requirement_name(line))))
    source = request.names.framework
    return Part(source, kept, python=framework_python(kept), python_source=", ".join([source, *kept[:1]]))


def _gives_way(line: str, said: str | None) -> bool:
    """Tell whether a line of the framework yields to what the user says about that package."""
    if said is None:
        return False
    name = requirement_name(line)
    # The torchvision that belongs to a torch is a default: a build of the user's own may be numbered as it likes.
    return line == name or (name == "torchvision" and _is_direct(said))


def _is_direct(line: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line.partition(" --hash=")[0]).url is not None
    except InvalidRequirement:
        return True


def _inside(root: Path, file: Path, what: str) -> Path:
    """Return the absolute path of a file; links in the source directory may lead outside, their text is read now."""
    if "\0" in str(file):
        raise EnvironmentSpecError(f"{what}: {str(file)!r} is no path")
    base = Path(os.path.abspath(root))  # noqa: PTH100 - links stay links
    full = Path(os.path.abspath(base / file))  # noqa: PTH100
    if not full.is_relative_to(base) and not full.resolve().is_relative_to(base.resolve()):
        raise EnvironmentSpecError(
            f"{what}: {str(file)!r} is outside of the source directory ({base}): copy it into the source directory"
        )
    if not full.is_file():
        raise EnvironmentSpecError(f"{what}: there is no file {str(file)!r} in the source directory ({base})")
    return full


def _shown(root: Path, file: Path) -> str:
    base = Path(os.path.abspath(root))  # noqa: PTH100
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name
