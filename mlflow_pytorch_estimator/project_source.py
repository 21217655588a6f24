"""An entry point of an MLflow project as the source of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import fetch, tracking
from mlflow_pytorch_estimator.config import ENV_MANAGER, STORAGE_DIR
from mlflow_pytorch_estimator.description import Description
from mlflow_pytorch_estimator.environments import read_environment
from mlflow_pytorch_estimator.project import invoke, read_project
from mlflow_pytorch_estimator.secretvalues import Concealer


@dataclass(frozen=True)
class ProjectSource:
    """What MLflow passes to a backend, named."""

    uri: str
    entry_point: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    mlflow_options: Mapping[str, Any] = field(default_factory=dict)
    """The backend config as MLflow passes it, its own keys included."""

    def describe(self, scratch: Path) -> Description:
        """Fetch and read the project."""
        root = fetch.fetch(self.uri, self.version, scratch)
        project = read_project(root)
        invocation = invoke(project, self.entry_point, self.parameters)
        environment = read_environment(
            root, project.environment_file, project.environment_kind, self.mlflow_options.get(ENV_MANAGER)
        )
        storage = self.mlflow_options.get(STORAGE_DIR)
        conceal = Concealer.from_environ().conceal
        return Description(
            top=fetch.top_of(self.uri, root),
            subdirectory=fetch.locate(self.uri).subdirectory,
            name=project.name,
            entry_point=self.entry_point,
            command=invocation.command,
            parameters={name: conceal(value) for name, value in invocation.parameters.items()},
            environment=environment,
            inputs=invocation.inputs,
            storage_dir=str(Path(storage).absolute()) if storage else None,
            tags=tracking.project_tags(self.uri, self.version, root, self.entry_point),
        )
