"""What the jobs of an array are, before any run exists: all described, one snapshot, one environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_pytorch_estimator import fetch, submission, tags
from mlflow_pytorch_estimator.arrays.handing import outfit
from mlflow_pytorch_estimator.description import Description, Source
from mlflow_pytorch_estimator.errors import ConfigError, GpuClusterError, ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.project_source import ProjectSource
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.submission import Prepared

_SAME_REQUEST = ("experiment_id", "stores", "config", "distribution", "wants_gpu", "environment_variables")
_SAME_DESCRIPTION = (
    *("top", "subdirectory", "entry_point", "environment", "storage_dir", "environment_variables", "settings"),
)


@dataclass(frozen=True)
class _Described:
    """A source that was asked already."""

    description: Description

    def describe(self, scratch: Path) -> Description:
        """The answer."""
        return self.description


def prepare(requests: Sequence[Request], directories: Sequence[JobDir], scratch: Path) -> list[Prepared]:
    """Describe all, take one snapshot; raises what is wrong with any of them, with its number."""
    scratch.mkdir()
    descriptions = _describe(requests, scratch)
    first = submission.prepare(replace(requests[0], source=_Described(descriptions[0])), directories[0])
    fetch.discard(scratch)
    prepared = [first]
    for request, description, directory in zip(requests[1:], descriptions[1:], directories[1:], strict=True):
        job = replace(
            first.job,
            command=description.command,
            parameters=description.parameters,
            inputs=description.inputs,
            input_paths=description.input_paths,
            datasets=description.datasets,
            interpreter=replace(first.job.interpreter, python=None, key=None),
        )
        job = outfit(job, directory, first.job, directories[0])
        run_tags = {**first.tags, **request.tags, tags.SUBMISSION: directory.path.name}
        prepared.append(Prepared(job, run_tags, first.variables))
    return prepared


def _describe(requests: Sequence[Request], scratch: Path) -> list[Description]:
    found: list[Description] = []
    for number, request in enumerate(requests):
        try:
            found.append(_source(request.source, requests[0].source, found).describe(scratch))
        except GpuClusterError as error:
            raise ProjectError(f"run {number} of the array: {error}") from error
        _refuse_others(number, _SAME_REQUEST, request, requests[0])
        _refuse_others(number, _SAME_DESCRIPTION, found[number], found[0])
    return _with_all_volumes(found)


def _source(source: Source, first: Source, found: Sequence[Description]) -> Source:
    if not found or not isinstance(source, ProjectSource):
        return source
    if not isinstance(first, ProjectSource) or replace(source, parameters={}) != replace(first, parameters={}):
        raise ConfigError("it is of another project: the runs of an array differ in their parameters alone")
    return source.fetched(found[0])


def _refuse_others(number: int, names: Sequence[str], one: object, first: object) -> None:
    for name in names:
        if getattr(one, name) != getattr(first, name):
            raise ConfigError(
                f"run {number} of the array has another {name} than run 0: the runs of an array differ in their "
                "parameters alone"
            )


def _with_all_volumes(found: list[Description]) -> list[Description]:
    """Each parameter may name a folder of its own; the container of all jobs gets them all."""
    first = found[0].container
    if first is None:
        return found
    volumes = dict.fromkeys(volume for item in found if item.container for volume in item.container.volumes)
    return [replace(found[0], container=replace(first, volumes=tuple(volumes))), *found[1:]]
