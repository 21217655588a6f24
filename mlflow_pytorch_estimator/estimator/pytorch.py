"""The PyTorch estimator: the one module that knows its 27 parameters. What they mean is in ``docs/estimator.md``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import processes
from mlflow_pytorch_estimator.containers import describing
from mlflow_pytorch_estimator.environments.description.described import (
    PackageRequest,
    SourceNames,
    describe,
    framework_requirements,
    supported_versions,
)
from mlflow_pytorch_estimator.environments.spec import EnvironmentSpec
from mlflow_pytorch_estimator.errors import EnvironmentSpecError
from mlflow_pytorch_estimator.estimator import training
from mlflow_pytorch_estimator.estimator.arguments import flag, names, resume_words, script_words, target_name
from mlflow_pytorch_estimator.estimator.compute.cluster import ComputeTarget
from mlflow_pytorch_estimator.estimator.compute.configuration import priority_is_low
from mlflow_pytorch_estimator.estimator.compute.vm_sizes import find_size
from mlflow_pytorch_estimator.estimator.distribution import AnyDistribution, resolve
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.estimator.packages.environment import Environment
from mlflow_pytorch_estimator.estimator.training import TrainingJob
from mlflow_pytorch_estimator.secretvalues import Concealer, without_password
from mlflow_pytorch_estimator.spec import Container

_REFUSED = {
    "image_registry_details": "log in with `docker login` or `podman login`, which keep passwords out of the job",
    "source_directory_data_store": "the source travels in the job directory: leave it out",
}
_NAMES = SourceNames(
    "pip_packages", "conda_packages", "pip_requirements_file", "conda_dependencies_file", "framework_version"
)
_PACKAGES = ("conda_packages", "pip_packages", "conda_dependencies_file", "pip_requirements_file")


class PyTorch:
    """A training script, its packages and its resources; ``Experiment.submit`` runs it.

    Raises ``TrainingException`` or ``EnvironmentSpecError`` for whatever cannot be right.
    """

    FRAMEWORK_NAME = "PyTorch"

    def __init__(
        self,
        source_directory: str | os.PathLike[str] | None = None,
        *,
        compute_target: ComputeTarget | str | None = None,
        vm_size: str | None = None,
        vm_priority: str | None = None,
        entry_script: str | os.PathLike[str] | None = None,
        script_params: Mapping[str, Any] | None = None,
        node_count: int = 1,
        process_count_per_node: int = 1,
        distributed_backend: str | None = None,
        distributed_training: AnyDistribution | None = None,
        use_gpu: bool = False,
        use_docker: bool | None = None,
        custom_docker_image: str | None = None,
        image_registry_details: object = None,
        user_managed: bool = False,
        conda_packages: Sequence[str] | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_dependencies_file: str | os.PathLike[str] | None = None,
        pip_requirements_file: str | os.PathLike[str] | None = None,
        environment_variables: Mapping[str, Any] | None = None,
        environment_definition: Environment | None = None,
        inputs: object = None,
        source_directory_data_store: object = None,
        shm_size: str | None = None,
        resume_from: object = None,
        max_run_duration_seconds: float | None = None,
        framework_version: str | None = None,
        backend_config: Mapping[str, Any] | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}
        for name, reason in _REFUSED.items():
            if self._given[name] is not None:
                raise TrainingException(f"{name} is not supported: {reason}")
        self._container = self._describe_container(environment_definition)
        self._source_directory = training.folder(source_directory)
        script = training.entry(self._source_directory, entry_script, "entry_script")
        if vm_size is not None:
            find_size(vm_size)
        words = (*script_words(script_params), *resume_words(resume_from))
        nodes, distribution = resolve(node_count, process_count_per_node, distributed_backend, distributed_training)
        environment_vars = training.variables(environment_variables)
        self._framework_version = framework_version
        environment = self._environment(environment_definition, flag("user_managed", user_managed))
        if isinstance(environment_definition, Environment):
            environment_vars = training.variables(environment_definition.environment_variables)
        environment(self._source_directory)  # a mistake shows here, not at submission
        self._job = TrainingJob(
            source=training.script_source(
                self._container,
                self._source_directory,
                ("python", script, *words),
                environment,
                script,
                training.named_inputs(inputs),
                training.parameters_of(words),
                environment_vars,
            ),
            compute_target=target_name(compute_target, vm_size),
            node_count=nodes,
            distribution=distribution,
            use_gpu=flag("use_gpu", use_gpu),
            vm_size=vm_size,
            low_priority=priority_is_low(vm_priority),
            max_seconds=training.duration("max_run_duration_seconds", max_run_duration_seconds),
            settings=training.settings(backend_config),
        )

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise TrainingException(f"{name} cannot be changed afterwards: give it to PyTorch(...)")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        variables = self._job.source.environment_variables
        concealer = Concealer.from_environ({**processes.environment(), **variables})
        given = {name: value for name, value in self._given.items() if value not in (None, False, 1)}
        if "environment_variables" in given:
            given["environment_variables"] = sorted(variables)  # the values may be secret
        return f"PyTorch({', '.join(f'{name}={_shown(value, concealer)}' for name, value in given.items())})"

    @property
    def source_directory(self) -> str:
        """The folder that is copied and runs, absolute."""
        return str(self._source_directory)

    @property
    def framework_version(self) -> str | None:
        """The version of PyTorch as it was asked for; None means the newest that fits."""
        return self._framework_version

    @staticmethod
    def get_supported_versions() -> list[str]:
        """Versions that ``framework_version`` takes, oldest first."""
        return list(supported_versions())

    def describe(self, **overrides: Any) -> TrainingJob:
        """The job; ``script_params`` and ``inputs`` may be replaced for one submission."""
        unknown = sorted(set(overrides) - {"script_params", "inputs"})
        if unknown:
            raise TrainingException(f"{unknown[0]} cannot be replaced at submission, only script_params and inputs")
        return PyTorch(**{**self._given, **overrides}).describe() if overrides else self._job

    def _describe_container(self, definition: object) -> Container | None:
        given = self._given
        image, shm_size, use_docker = given["custom_docker_image"], given["shm_size"], given["use_docker"]
        if use_docker is not None:
            flag("use_docker", use_docker)
        if image is None and isinstance(definition, Environment):
            if definition.docker.base_image is not None and use_docker is False:
                raise TrainingException(
                    "use_docker=False, but environment_definition names a base_image: leave one out"
                )
            return definition.container()
        if image is None and use_docker:
            raise TrainingException("use_docker=True needs an image: give custom_docker_image, or leave it out")
        if image is None and shm_size is not None:
            raise TrainingException(
                "shm_size needs custom_docker_image: without an image the job has all of the node's /dev/shm"
            )
        if image is not None and use_docker is False:
            raise TrainingException("use_docker=False, but custom_docker_image names an image: leave one out")
        return None if image is None else training.container(image, shm_size)

    def _environment(self, definition: object, user_managed: bool) -> training.EnvironmentReader:
        given = [name for name in _PACKAGES if self._given[name]]
        if definition is not None:
            others = given + [
                name
                for name in (
                    *("user_managed", "environment_variables", "framework_version"),
                    *("custom_docker_image", "shm_size"),
                )
                if self._given[name]
            ]
            if others:
                raise TrainingException(f"environment_definition describes everything: leave out {', '.join(others)}")
            if not isinstance(definition, Environment):
                raise TrainingException(f"environment_definition is {definition!r}; it must be an Environment")
            return definition.describe
        if self._container is not None:
            others = given + (["framework_version"] if self._framework_version else [])
            if others:
                raise TrainingException(
                    f"custom_docker_image brings its own packages: leave out {', '.join(others)}, "
                    "or build an image that has them"
                )
            return partial(_of_the_image, describing.environment(self._container))
        if user_managed:
            others = given + (["framework_version"] if self._framework_version else [])
            if others:
                raise TrainingException(
                    f"user_managed=True takes the interpreter as it is: leave out {', '.join(others)}, "
                    "or install them there"
                )
            return _as_it_is
        return partial(_described, self._packages())

    def _packages(self) -> PackageRequest:
        given, version = self._given, self._framework_version
        # A conda file describes everything, so the framework is added only beside lists.
        framework = () if given["conda_dependencies_file"] and version is None else framework_requirements(version)
        return PackageRequest(
            pip=names("pip_packages", given["pip_packages"]),
            conda=names("conda_packages", given["conda_packages"]),
            requirements_file=_path(given["pip_requirements_file"]),
            conda_file=_path(given["conda_dependencies_file"]),
            framework=framework,
            names=_NAMES,
        )


# Functions with a name, and not lambdas: an estimator can be pickled.
def _as_it_is(root: Path) -> EnvironmentSpec:
    return EnvironmentSpec("local", None, (), (), "local")


def _of_the_image(environment: EnvironmentSpec, root: Path) -> EnvironmentSpec:
    return environment


def _described(request: PackageRequest, root: Path) -> EnvironmentSpec:
    return describe(root, request)


def _shown(value: object, concealer: Concealer) -> str:
    """As ``repr``, without secrets of the environment and passwords in URLs."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shown(item, concealer)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shown(item, concealer) for item in value) + "]"
    return repr(without_password(concealer.conceal(value)) if isinstance(value, str) else value)


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise EnvironmentSpecError(f"{value!r} is no path of a file")
    return None if value is None else Path(value)
