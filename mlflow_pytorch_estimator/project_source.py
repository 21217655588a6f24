"""An entry point of an MLflow project as the source of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import fetch, tracking
from mlflow_pytorch_estimator.config import DOCKER_ARGS, DOCKER_AUTH, ENV_MANAGER, STORAGE_DIR
from mlflow_pytorch_estimator.containers import describing, mounts
from mlflow_pytorch_estimator.description import Description
from mlflow_pytorch_estimator.environments import EnvironmentSpec, read_environment
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.project import Project, invoke, read_project, settings
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.spec import Container


@dataclass(frozen=True)
class ProjectSource:
    """What MLflow passes to a backend, named."""

    uri: str
    entry_point: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    mlflow_options: Mapping[str, Any] = field(default_factory=dict)
    """The backend config as MLflow passes it, its own keys included."""

    def fetched(self, described: Description) -> ProjectSource:
        """The same entry point where ``describe`` has put the project, for which nothing is fetched again."""
        location = fetch.locate(self.uri)
        if location.local == described.top:
            return self
        return replace(self, uri=f"{described.top}#{location.subdirectory}", version=None)

    def describe(self, scratch: Path) -> Description:
        """Fetch and read the project."""
        root = fetch.fetch(self.uri, self.version, scratch)
        project = read_project(root)
        invocation = invoke(project, self.entry_point, self.parameters)
        container = self._container(project, invocation.paths)
        storage = self.mlflow_options.get(STORAGE_DIR)
        conceal = Concealer.from_environ().conceal
        return Description(
            top=fetch.top_of(self.uri, root),
            subdirectory=fetch.locate(self.uri).subdirectory,
            name=project.name,
            entry_point=self.entry_point,
            command=invocation.command,
            parameters={name: conceal(value) for name, value in invocation.parameters.items()},
            environment=self._environment(project),
            inputs=invocation.inputs,
            datasets=invocation.datasets,
            storage_dir=str(Path(storage).absolute()) if storage else None,
            tags=tracking.project_tags(self.uri, self.version, root, self.entry_point),
            container=container,
            environment_variables=project.container.variables if project.container else {},
            settings=settings(project, self.entry_point),
        )

    def _environment(self, project: Project) -> EnvironmentSpec:
        manager = self.mlflow_options.get(ENV_MANAGER)
        if project.container is None:
            return read_environment(project.directory, project.environment_file, project.environment_kind, manager)
        if manager is not None:
            raise ProjectError(f"docker_env of the MLproject names an image: leave out --env-manager {manager}")
        return describing.environment(project.container.container)

    def _container(self, project: Project, paths: Iterable[str]) -> Container | None:
        arguments = self.mlflow_options.get(DOCKER_ARGS)
        if project.container is None:
            if arguments:
                raise ProjectError("--docker-args is for a project with docker_env, which the MLproject has not")
            return None
        if self.mlflow_options.get(DOCKER_AUTH):
            raise ProjectError("docker_auth is not supported: log in with `docker login` or `podman login`")
        container = describing.add_arguments(project.container.container, arguments)
        return mounts.with_paths(container, paths)
