"""``Model``: one version of a registered model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_pytorch_estimator.estimator.artifacts.tree import talking
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.models import download as model_download
from mlflow_pytorch_estimator.estimator.models import search as model_search
from mlflow_pytorch_estimator.estimator.models import source as model_source
from mlflow_pytorch_estimator.estimator.models import tags as model_tags
from mlflow_pytorch_estimator.estimator.models.registration import Record, register_source
from mlflow_pytorch_estimator.estimator.models.version import ModelVersion

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.workspace import Workspace

Wanted = Iterable[object] | Mapping[str, str] | str | None


class Model(ModelVersion):
    """A version of a registered model: the one asked for, or the newest that matches.

    ``id`` is ``name:version``; ``tags`` and ``properties`` are lists of keys and of ``[key, value]`` pairs. Raises
    ModelNotFoundException, which says what there is.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - the original's name
        tags: Wanted = None,
        properties: Wanted = None,
        version: int | None = None,
        run_id: str | None = None,
        model_framework: str | None = None,
    ) -> None:
        name, version = model_search.name_and_version(name, id, version)
        criteria = model_search.Criteria(name, version, run_id, tags, properties, model_framework)
        super().__init__(workspace, model_search.newest(workspace.stores.client(), criteria))

    @classmethod
    def _of(cls, workspace: Workspace, found: Any) -> Model:
        made = cls.__new__(cls)
        ModelVersion.__init__(made, workspace, found)
        return made

    @staticmethod
    def register(
        workspace: Workspace,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        datasets: object = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        child_paths: Sequence[str] | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
    ) -> Model:
        """Register a local file or folder, or only the ``child_paths`` of a folder, as a new version."""
        _refuse(
            datasets=datasets,
            sample_input_dataset=sample_input_dataset,
            sample_output_dataset=sample_output_dataset,
            resource_configuration=resource_configuration,
        )
        record = Record.checked(model_name, tags, properties, description, model_framework, model_framework_version)
        source = model_source.of_path(model_path, child_paths)
        made = register_source(workspace.stores, source, record, None)
        return Model(workspace, name=made.name, version=made.version)

    @staticmethod
    def list(
        workspace: Workspace,
        name: str | None = None,
        tags: Wanted = None,
        properties: Wanted = None,
        run_id: str | None = None,
        latest: bool = False,
        model_framework: str | None = None,
    ) -> Sequence[Model]:
        """All versions that match, newest first; with ``latest`` only the newest of each name."""
        criteria = model_search.Criteria(name, None, run_id, tags, properties, model_framework)
        found = model_search.matching(workspace.stores.client(), criteria)
        if latest:
            found = model_search.newest_of_each(found)
        return [Model._of(workspace, version) for version in found]

    def download(
        self, target_dir: str | os.PathLike[str] = ".", exist_ok: bool = False, exists_ok: bool | None = None
    ) -> str:
        """Save the file or folder below ``target_dir`` and return its path; replaces files only with ``exist_ok``."""
        replace = exist_ok if exists_ok is None else exists_ok
        return str(model_download.download(self._workspace.stores, self._found, target_dir, replace))

    @staticmethod
    def get_model_path(model_name: str, version: int | None = None, _workspace: Workspace | None = None) -> str:
        """The local path of a model, downloaded to ``azureml-models/NAME/VERSION`` here unless it is there already."""
        if _workspace is None:
            from mlflow_pytorch_estimator.estimator.workspace import Workspace as Known

            _workspace = Known.from_config()
        model = Model(_workspace, name=model_name, version=version)
        folder = Path("azureml-models") / model_tags.checked_model_name(model.name) / str(model.version)
        there = model_download.place(model._found, folder)
        return str(there) if there.exists() else model.download(folder)

    def update(
        self,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
    ) -> None:
        """Put other tags, or another description, in the place of those there are."""
        _refuse(
            sample_input_dataset=sample_input_dataset,
            sample_output_dataset=sample_output_dataset,
            resource_configuration=resource_configuration,
        )
        text = model_tags.checked_text(description, "description")
        if tags is not None:
            self.update_tags_properties(tags, [key for key in self.tags if key not in tags])
        if text is not None:
            with talking(f"describe model {self.id}"):
                self._client.update_model_version(self.name, str(self.version), text)
            self._refresh()

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; those of the same key are replaced."""
        self.update_tags_properties(add_tags=tags)

    def remove_tags(self, tags: Iterable[str] | str) -> None:
        """Remove tags by their keys; those that are not there are left out."""
        self.update_tags_properties(remove_tags=tags)

    def add_properties(self, properties: Mapping[str, str]) -> None:
        """Add properties; one that is there cannot change."""
        self.update_tags_properties(add_properties=properties)

    def update_tags_properties(
        self,
        add_tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] | str | None = None,
        add_properties: Mapping[str, str] | None = None,
    ) -> None:
        """Add and remove tags, add properties; all of it is checked before anything changes."""
        added = model_tags.checked_tags(add_tags)
        fixed = model_tags.checked_tags(add_properties, "properties", model_tags.PROPERTY)
        self._refresh()
        present = sorted(key.removeprefix(model_tags.PROPERTY) for key in fixed if key in self._found.tags)
        if present:
            raise UserErrorException(f"model {self.id} has the properties {present} already, and they cannot change")
        removed = [remove_tags] if isinstance(remove_tags, str) else (remove_tags or [])
        client, version = self._client, str(self.version)
        with talking(f"change the tags of model {self.id}"):
            for key in self.tags.keys() & set(removed):
                client.delete_model_version_tag(self.name, version, key)
            for key, value in {**added, **fixed}.items():
                client.set_model_version_tag(self.name, version, key, value)
        self._refresh()

    def _refresh(self) -> None:
        self._found = model_search.exact(self._client, self.name, self.version)

    def delete(self) -> None:
        """Delete this version; the model's other versions, the run and its files stay."""
        self._refresh()
        with talking(f"delete model {self.id}"):
            self._client.delete_model_version(self.name, str(self.version))

    @staticmethod
    def deserialize(workspace: Workspace, model_payload: Mapping[str, Any]) -> Model:
        """The version that ``serialize`` described."""
        if not isinstance(model_payload, Mapping) or "id" not in model_payload:
            raise UserErrorException(f"model_payload is {model_payload!r}; it must be what Model.serialize returned")
        return Model(workspace, id=model_payload["id"])

    @staticmethod
    def deploy(*_: object, **__: object) -> NoReturn:
        """Not offered; the error says what to use."""
        raise _elsewhere("deploy", "mlflow models serve -m models:/NAME/VERSION")

    @staticmethod
    def package(*_: object, **__: object) -> NoReturn:
        """Not offered; the error says what to use."""
        raise _elsewhere("package", "mlflow models build-docker -m models:/NAME/VERSION -n IMAGE")

    @staticmethod
    def profile(*_: object, **__: object) -> NoReturn:
        """Not offered; the error says what to use."""
        raise _elsewhere("profile", "mlflow models serve -m models:/NAME/VERSION, and a load generator")


def _elsewhere(what: str, instead: str) -> UserErrorException:
    return UserErrorException(f"Model.{what} was a service of the original; MLflow's way is: {instead}")


def _refuse(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise UserErrorException(f"{name} belonged to services of the original: keep it in tags or the description")
