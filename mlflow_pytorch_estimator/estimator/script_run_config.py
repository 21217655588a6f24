"""``ScriptRunConfig``: the successor's spelling of the same job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_pytorch_estimator.containers import describing
from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.environments.description.described import PackageRequest, describe, framework_requirements
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.estimator import training
from mlflow_pytorch_estimator.estimator.arguments import resume_words
from mlflow_pytorch_estimator.estimator.compute.cluster import ComputeTarget
from mlflow_pytorch_estimator.estimator.distribution import AnyDistribution, resolve
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.estimator.packages.environment import Environment
from mlflow_pytorch_estimator.estimator.packages.sections import DockerConfiguration
from mlflow_pytorch_estimator.estimator.training import TrainingJob
from mlflow_pytorch_estimator.script_source import Word
from mlflow_pytorch_estimator.spec import Container


class ScriptRunConfig:
    """A script (or a command), its arguments, its environment and its compute target.

    ``arguments`` is a list; paths and ``DataInput`` may be in it. Without ``environment`` the job gets PyTorch. It
    uses all GPUs that the target has. Raises ``TrainingException`` for whatever cannot be right.
    """

    def __init__(
        self,
        source_directory: str | os.PathLike[str] | None = None,
        script: str | os.PathLike[str] | None = None,
        arguments: Sequence[Any] | None = None,
        run_config: object = None,
        compute_target: ComputeTarget | str | None = None,
        environment: Environment | None = None,
        distributed_job_config: AnyDistribution | None = None,
        resume_from: object = None,
        max_run_duration_seconds: float | None = 2_592_000,
        command: Sequence[str] | str | None = None,
        docker_runtime_config: DockerConfiguration | None = None,
        backend_config: Mapping[str, Any] | None = None,
    ) -> None:
        if run_config is not None:
            raise TrainingException("run_config is not supported: give environment, compute_target and arguments")
        if environment is not None and not isinstance(environment, Environment):
            raise TrainingException(f"environment is {environment!r}; it must be an Environment")
        self._environment = environment
        container = _container(environment, docker_runtime_config)
        directory = training.folder(source_directory)
        entry_point, start = _start(directory, script, command)
        words = (*start, *_words(arguments), *resume_words(resume_from))
        if command is not None and len(words) > len(start):
            raise TrainingException("command says all: leave out arguments and resume_from, or use script")
        self._read(directory)
        nodes, distribution = resolve(1, 1, None, distributed_job_config)
        variables = training.variables(environment.environment_variables if environment else None)
        self._job = TrainingJob(
            source=training.script_source(
                container,
                directory,
                words,
                self._read,
                entry_point,
                parameters=training.parameters_of(words[len(start) :]),
                environment_variables=variables,
            ),
            compute_target=_target(compute_target),
            node_count=nodes,
            distribution=distribution,
            max_seconds=training.duration("max_run_duration_seconds", max_run_duration_seconds),
            settings=training.settings(backend_config),
        )

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise TrainingException(f"{name} cannot be changed afterwards: give it to ScriptRunConfig(...)")
        object.__setattr__(self, name, value)

    def describe(self) -> TrainingJob:
        """The job."""
        return self._job

    def _read(self, root: Any) -> EnvironmentSpec:
        if self._environment is None:
            return describe(root, PackageRequest(framework=framework_requirements(None)))
        return self._environment.describe(root)


def _container(environment: Environment | None, settings: object) -> Container | None:
    """The environment's image, run as the settings say; without settings it runs in its image, too."""
    found = environment.container() if environment else None
    if settings is None:
        return found
    if not isinstance(settings, DockerConfiguration):
        raise TrainingException(f"docker_runtime_config is {settings!r}; it must be a DockerConfiguration")
    if found is None and (settings.use_docker or settings.arguments or settings.shm_size):
        raise TrainingException("docker_runtime_config needs an image: set environment.docker.base_image")
    if found is None:
        return None
    if not settings.use_docker:
        raise TrainingException("docker_runtime_config has use_docker=False, but the environment names an image")
    try:
        sized = describing.describe(found.image, settings.shm_size or found.shm_size)
        return describing.add_arguments(sized, (*found.arguments, *settings.arguments))
    except ConfigError as error:
        raise TrainingException(f"docker_runtime_config: {error}") from None


def _start(directory: Any, script: object, command: object) -> tuple[str, tuple[Word, ...]]:
    """What the run shows as its entry point, and the first words of the command."""
    if (script is None) == (command is None):
        raise TrainingException("give either script or command")
    if script is not None:
        name = training.entry(directory, script, "script")
        return name, ("python", name)
    if isinstance(command, str) and command.strip():
        return "command", ("bash", "-c", training.text_word("command", command))
    if isinstance(command, str) or not isinstance(command, Sequence) or not command:
        raise TrainingException(f"command is {command!r}; it must be a line for the shell or a list of words")
    return "command", tuple(training.word(f"command[{index}]", item) for index, item in enumerate(command))


def _words(arguments: object) -> tuple[Word, ...]:
    if arguments is None:
        return ()
    if isinstance(arguments, (str, bytes)) or not isinstance(arguments, Sequence):
        raise TrainingException(f"arguments is {arguments!r}; it must be a list")
    return tuple(training.word(f"arguments[{index}]", item) for index, item in enumerate(arguments))


def _target(target: object) -> str | None:
    if isinstance(target, ComputeTarget):
        return str(target.name)
    if target is not None and not isinstance(target, str):
        raise TrainingException(f"compute_target is {target!r}; it must be a ComputeTarget or a name")
    return None if target in {None, "local"} else target
