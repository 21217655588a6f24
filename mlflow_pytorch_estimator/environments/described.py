"""Packages that a program lists, or that files beside a script list -> ``EnvironmentSpec``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import conda, pins, read
from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.framework import (
    framework_python,
    framework_requirements,
    supported_versions,
)
from mlflow_pytorch_estimator.environments.notices import warn_once
from mlflow_pytorch_estimator.environments.requirements import RequirementReader, logical_lines
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    """Conda match specifications: python, pip, and what PyPI has under the same name."""
    requirements_file: Path | None = None
    conda_file: Path | None = None
    """Stands alone: no other part beside it but ``python``."""
    framework: tuple[str, ...] = ()
    """Requirements that hold besides the user's words; a bare name gives way to them."""
    python: str | None = None
    """``"3.11"`` is any 3.11; ``">=3.10,<3.13"``."""
    names: SourceNames = SourceNames()


@dataclass(frozen=True)
class _Part:
    source: str
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    python: str | None = None
    python_source: str = ""
    """Who asks for that Python, where ``source`` does not say it."""


def describe(root: Path, request: PackageRequest) -> EnvironmentSpec:
    """Return the environment; ``root`` is the source directory, where relative paths start and files lie.

    EnvironmentSpecError names the parts that contradict each other, or what in one of them cannot be had.
    """
    _refuse_beside_conda_file(request)
    parts = list(_parts(root, request))
    if request.framework:
        parts.append(_framework(request, parts))
    pins.refuse_contradictions(
        (line, part.source) for part in parts for line in (*part.requirements, *part.constraints)
    )
    return EnvironmentSpec(
        "uv",
        _python(parts),
        tuple(dict.fromkeys(line for part in parts for line in part.requirements)),
        tuple(dict.fromkeys(line for part in parts for line in part.constraints)),
        ", ".join(dict.fromkeys(part.source for part in parts)) or "none",
    )


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


def _parts(root: Path, request: PackageRequest) -> Iterator[_Part]:
    names = request.names
    if request.conda_file is not None:
        file = _inside(root, request.conda_file, names.conda_file)
        name = _shown(root, file)
        yield _conda_part(root, file.parent, conda.convert(read.load_yaml(file, name), name), name)
    if request.conda:
        parts = conda.convert({"dependencies": [*request.conda]}, names.conda)
        yield _conda_part(root, root, parts, names.conda)
    if request.requirements_file is not None:
        reader = RequirementReader(root)
        file = _inside(root, request.requirements_file, names.requirements_file)
        reader.add_file(file)
        yield _part(reader, _shown(root, file))
    if request.pip:
        reader = RequirementReader(root)
        for item in request.pip:
            _add(reader, item, root, names.pip)
        yield _part(reader, names.pip)
    if request.python is not None:
        yield _Part(names.python, python=read.python_specifier(request.python, names.python))


def _conda_part(root: Path, folder: Path, found: conda.CondaParts, source: str) -> _Part:
    reader = RequirementReader(root)
    for line in found.pip:
        _add(reader, line, folder, source)
    return _part(reader, source, found.python)


def _add(reader: RequirementReader, item: str, folder: Path, source: str) -> None:
    # Lists are often the lines of a file, with its comments and blank lines.
    for _, line in logical_lines(item):
        reader.add_line(line, folder, source)


def _part(reader: RequirementReader, source: str, python: str | None = None) -> _Part:
    return _Part(source, tuple(_needed(reader.requirements, source)), tuple(reader.constraints), python)


def _needed(lines: Iterable[str], source: str) -> Iterator[str]:
    for line in lines:
        if requirement_name(line) in _NEEDLESS:
            warn_once(f"{source}: {line} is left out: that SDK is out of support, its names are in {_PACKAGE}")
        else:
            yield line


def _framework(request: PackageRequest, parts: Iterable[_Part]) -> _Part:
    said = {requirement_name(line) for part in parts for line in part.requirements}
    lines = tuple(line for line in request.framework if not (line == requirement_name(line) and line in said))
    source = request.names.framework
    return _Part(source, lines, python=framework_python(lines), python_source=", ".join([source, *lines[:1]]))


def _python(parts: Iterable[_Part]) -> str | None:
    wanted = [(part.python, part.python_source or part.source) for part in parts if part.python]
    for python, source in wanted:
        read.check_python(python, source)
    combined = ",".join(dict.fromkeys(python for python, _ in wanted))
    if wanted and not read.is_possible(combined):
        said = " and ".join(f"Python {python} ({source})" for python, source in wanted)
        raise EnvironmentSpecError(f"{said} exclude each other: change one of them")
    return combined or None


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
