"""What is known about one version of a registered model."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlflow_pytorch_estimator.estimator.models import tags as model_tags
from mlflow_pytorch_estimator.secretvalues import without_password

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run
    from mlflow_pytorch_estimator.estimator.workspace import Workspace


class ModelVersion:
    """The reading half of ``Model``."""

    class Framework:
        """Names for ``model_framework``; CUSTOM keeps the files as they are."""

        TENSORFLOW = "TensorFlow"
        SCIKITLEARN = "ScikitLearn"
        ONNX = "Onnx"
        CUSTOM = "Custom"
        MULTI = "Multi"
        PYTORCH = "PyTorch"

    def __init__(self, workspace: Workspace, found: Any) -> None:
        self._workspace = workspace
        self._found = found

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version}, tags={self.tags!r}, properties={self.properties!r})"

    @property
    def workspace(self) -> Workspace:
        """The workspace that it was read from."""
        return self._workspace

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self._found.name)

    @property
    def version(self) -> int:
        """The number of the version."""
        return int(self._found.version)

    @property
    def id(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"

    @property
    def model_uri(self) -> str:
        """What MLflow's functions take."""
        return f"models:/{self.name}/{self.version}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags that users have set."""
        return model_tags.users_own(self._found.tags)

    @property
    def properties(self) -> dict[str, str]:
        """Key and value pairs that cannot change."""
        return model_tags.properties_of(self._found.tags)

    @property
    def description(self) -> str:
        """Its description, perhaps empty."""
        return self._found.description or ""

    @property
    def run_id(self) -> str | None:
        """The run that it comes from."""
        return self._found.run_id or None

    @cached_property
    def run(self) -> Run | None:
        """The same as a run of the estimator."""
        return self._workspace.get_run(self.run_id) if self.run_id else None

    @property
    def created_time(self) -> datetime:
        """When it was registered, in UTC."""
        return datetime.fromtimestamp(self._found.creation_timestamp / 1000, timezone.utc)

    @property
    def model_framework(self) -> str | None:
        """The framework given at registration."""
        return self._found.tags.get(model_tags.FRAMEWORK)

    @property
    def model_framework_version(self) -> str | None:
        """The version of the framework given at registration."""
        return self._found.tags.get(model_tags.FRAMEWORK_VERSION)

    @property
    def not_servable(self) -> str | None:
        """Why it cannot be served; None for what can, and for versions that this package has not registered."""
        return self._found.tags.get(model_tags.NOT_SERVABLE)

    @property
    def aliases(self) -> tuple[str, ...]:
        """MLflow's aliases of this version."""
        return tuple(self._client.get_model_version(self.name, str(self.version)).aliases)

    @property
    def url(self) -> str | None:
        """Its page, where the registry has a user interface."""
        base = self._workspace.stores.registry_uri
        if urlsplit(base).scheme not in {"http", "https"}:
            return None
        return f"{without_password(base).rstrip('/')}/#/models/{self.name}/versions/{self.version}"

    @property
    def _client(self) -> Any:
        return self._workspace.stores.client()

    def serialize(self) -> dict[str, Any]:
        """The version as a dict of JSON types."""
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "tags": self.tags,
            "properties": self.properties,
            "description": self.description,
            "runId": self.run_id,
            "createdTime": self.created_time.isoformat(),
            "framework": self.model_framework,
            "frameworkVersion": self.model_framework_version,
            "url": self.url or self.model_uri,
        }
