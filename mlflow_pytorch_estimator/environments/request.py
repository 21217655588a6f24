"""What is asked for, with everything that decides which versions that will be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import interpreters
from mlflow_pytorch_estimator.environments.base import default_base, job_packages, requirement_name
from mlflow_pytorch_estimator.environments.description import conda
from mlflow_pytorch_estimator.environments.description.localpath import content_hash, local_part
from mlflow_pytorch_estimator.environments.key import conda_deciding, deciding, digest
from mlflow_pytorch_estimator.environments.uv import uv_environment
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec


@dataclass(frozen=True)
class EnvironmentRequest:
    """A specification in its surroundings: a project, a machine, a cache, the user's settings of uv."""

    spec: EnvironmentSpec
    project_dir: Path
    cache_dir: Path
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    interpreter: interpreters.Interpreter
    environ: dict[str, str]
    """For uv."""
    surroundings: dict[str, object]
    """What decides besides the resolved versions; part of the environment's key as well."""
    key: str
    """16 hex digits over the question; the environment's own key is over the answer."""

    @property
    def options(self) -> tuple[str, ...]:
        """The lines that are options, such as ``--index-url``."""
        return tuple(line for line in self.requirements if line.startswith("--"))


def request(
    spec: EnvironmentSpec, project_dir: Path, cache_dir: Path, base: tuple[str, ...] | None
) -> EnvironmentRequest:
    """Read what there is to read; starts no process. EnvironmentBuildError when a local package has gone."""
    brought = spec.manager == "conda"
    requirements, constraints = job_packages(spec, _left_open(spec, default_base() if base is None else base))
    interpreter = interpreters.Interpreter("", "of conda") if brought else interpreters.choose(spec.python)
    environ = uv_environment(os.environ, requirements, cache_dir)
    try:
        surroundings = {
            "contents": [content_hash(project_dir / path) for path in _local_paths((*requirements, *constraints))],
            "host": interpreters.host(),
            "options": [line for line in requirements if line.startswith("--")],
            **deciding(environ),
        }
    except OSError as error:
        raise EnvironmentBuildError(f"cannot read {error.filename}: {error.strerror}") from error
    key = digest(
        {
            "requirements": requirements,
            "constraints": constraints,
            "conda": spec.conda,
            "channels": spec.channels,
            "interpreter": interpreter.identity,
            **({"conda_settings": conda_deciding(os.environ)} if brought else {}),
            **surroundings,
        }
    )
    return EnvironmentRequest(
        spec,
        project_dir.absolute(),
        cache_dir.absolute(),
        requirements,
        constraints,
        interpreter,
        environ,
        surroundings,
        key,
    )


def _left_open(spec: EnvironmentSpec, base: tuple[str, ...]) -> tuple[str, ...]:
    """Return of what every job gets that which conda is not asked for: there the user's own words hold."""
    named = {conda.package_name(item) for item in spec.conda}
    if "mlflow-skinny" in named:
        named.add("mlflow")
    return tuple(line for line in base if requirement_name(line) not in named)


def _local_paths(lines: tuple[str, ...]) -> list[str]:
    parts = [local_part(line) for line in lines]
    return [local.path for local in parts if local]
