"""Several sources of packages -> one ``EnvironmentSpec``, or the two that contradict each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description import conda, horovod_lines, pins
from mlflow_pytorch_estimator.environments.description.python_versions import check_python, conda_python, is_possible
from mlflow_pytorch_estimator.environments.description.requirements import RequirementReader, logical_lines
from mlflow_pytorch_estimator.environments.prefix import conda_engine
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Part:
    """What one source asks for."""

    source: str
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    python: str | None = None
    python_source: str = ""
    """Who asks for that Python, where ``source`` does not say it."""
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    compared: tuple[str, ...] = ()
    """Requirements that come from elsewhere and must not be contradicted."""


def of_lines(root: Path, folder: Path, lines: Iterable[str], source: str, python: str | None = None) -> Part:
    """Return the part of lines whose relative paths start at ``folder``."""
    reader = RequirementReader(root)
    for item in lines:
        # Lists are often the lines of a file, with its comments and blank lines.
        for _, line in logical_lines(item):
            reader.add_line(line, folder, source)
    return Part(source, tuple(reader.requirements), tuple(reader.constraints), python)


def of_file(root: Path, file: Path, source: str) -> Part:
    """Return the part of a requirements file."""
    reader = RequirementReader(root)
    reader.add_file(file)
    return Part(source, tuple(reader.requirements), tuple(reader.constraints))


def of_conda(root: Path, folder: Path, data: Mapping[str, object], source: str, *, allowed: bool = True) -> Part:
    """Return the part of a ``conda.yaml``; ``allowed`` tells whether conda may be used where one is installed."""
    found = conda.convert(data, source, installed=lambda: allowed and conda_engine.find(os.environ) is not None)
    lines = of_lines(root, folder, found.pip, source)
    return Part(
        source,
        lines.requirements,
        lines.constraints,
        found.python,
        conda=found.conda,
        channels=found.channels,
        variables=found.variables,
        compared=found.compared,
    )


def combine(parts: Sequence[Part]) -> EnvironmentSpec:
    """Return the environment of all parts; EnvironmentSpecError names those that contradict each other."""
    pins.refuse_contradictions(
        (line, part.source) for part in parts for line in (*part.requirements, *part.constraints, *part.compared)
    )
    horovod = horovod_lines.wants_horovod((line, part.source) for part in parts for line in part.requirements)
    if horovod:
        horovod_lines.wants_horovod((line, part.source) for part in parts for line in part.constraints)
    python = _python(parts)
    specs = tuple(dict.fromkeys(item for part in parts for item in part.conda))
    return EnvironmentSpec(
        "conda" if specs else "uv",
        python,
        _lines((line for part in parts for line in part.requirements), horovod=horovod),
        _lines((line for part in parts for line in part.constraints), horovod=horovod),
        ", ".join(dict.fromkeys(part.source for part in parts)) or "none",
        conda=_with_python(specs, python) if specs else (),
        channels=tuple(dict.fromkeys(channel for part in parts for channel in part.channels)),
        horovod=horovod,
        variables=tuple(dict(pair for part in parts for pair in part.variables).items()),
    )


def _lines(lines: Iterable[str], *, horovod: bool) -> tuple[str, ...]:
    return tuple(line for line in dict.fromkeys(lines) if not (horovod and horovod_lines.is_request(line)))


def _with_python(specs: tuple[str, ...], python: str | None) -> tuple[str, ...]:
    names = {conda.package_name(item) for item in specs}
    # Beside what the user says of python in words that only conda understands: it takes what both admit.
    wanted = (conda_python(python), *(() if "pip" in names else ("pip",)))
    return (*wanted, *specs)


def _python(parts: Iterable[Part]) -> str | None:
    wanted = [(part.python, part.python_source or part.source) for part in parts if part.python]
    for python, source in wanted:
        check_python(python, source)
    combined = ",".join(dict.fromkeys(python for python, _ in wanted))
    if wanted and not is_possible(combined):
        said = " and ".join(f"Python {python} ({source})" for python, source in wanted)
        raise EnvironmentSpecError(f"{said} exclude each other: change one of them")
    return combined or None
