"""Registering what lies at a path as a new version of a model: all of it, or nothing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from mlflow_pytorch_estimator.estimator.artifacts.tree import REGISTERED_FROM, RunTree, talking
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.models import source as model_source
from mlflow_pytorch_estimator.estimator.models import tags as model_tags
from mlflow_pytorch_estimator.estimator.models.kinds import Plan, decide
from mlflow_pytorch_estimator.estimator.models.source import Source
from mlflow_pytorch_estimator.tracking import Stores

_logger = logging.getLogger(__name__)
_LOCAL_EXPERIMENT = "registered-models"


@dataclass(frozen=True)
class RegisteredVersion:
    """A new version; ``message`` says why it cannot be served, or is None when it can."""

    name: str
    version: int
    message: str | None


@dataclass(frozen=True)
class Record:
    """What is kept with a version, checked."""

    name: str
    tags: Mapping[str, str]
    description: str | None
    framework: str | None

    @classmethod
    def checked(
        cls,
        name: object,
        tags: object = None,
        properties: object = None,
        description: object = None,
        model_framework: object = None,
        model_framework_version: object = None,
    ) -> Record:
        """The record of what a caller gave; raises UserErrorException."""
        framework = model_tags.checked_text(model_framework, "model_framework")
        version = model_tags.checked_text(model_framework_version, "model_framework_version")
        kept = {
            **model_tags.checked_tags(tags),
            **model_tags.checked_tags(properties, "properties", model_tags.PROPERTY),
            **({model_tags.FRAMEWORK: framework} if framework else {}),
            **({model_tags.FRAMEWORK_VERSION: version} if version else {}),
        }
        described = model_tags.checked_text(description, "description")
        return cls(model_tags.checked_model_name(name), kept, described, framework)


def register(
    stores: Stores,
    run_id: str,
    model_name: str,
    model_path: str | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    description: str | None = None,
    model_framework: str | None = None,
    model_framework_version: str | None = None,
) -> RegisteredVersion:
    """Register a file or folder of a run; ``model_path`` is by default the model's name.

    An MLflow model and a valid ONNX graph can be served afterwards; anything else is registered as it is, and the
    version says why it cannot be served. Raises ModelPathNotFoundException, which lists the files of the run.
    """
    record = Record.checked(model_name, tags, properties, description, model_framework, model_framework_version)
    tree = RunTree(stores, run_id)
    source = model_source.of_run(tree, record.name if model_path is None else model_path)
    return register_source(stores, source, record, tree.run_id)


def register_source(stores: Stores, source: Source, record: Record, run_id: str | None) -> RegisteredVersion:
    """Register the files of a source, of a run or of none."""
    with tempfile.TemporaryDirectory(prefix="register-") as scratch:
        plan = decide(source, record.framework, Path(scratch))
        version = _Registration(stores, source, record, plan, run_id).run()
    message = f"model {record.name}:{version} cannot be served: {plan.problem}" if plan.problem else None
    if message:
        _logger.warning("%s", message)
    return RegisteredVersion(record.name, version, plan.problem)


class _Registration:
    """The writing half; what it has done is undone when a later step fails."""

    def __init__(self, stores: Stores, source: Source, record: Record, plan: Plan, run_id: str | None) -> None:
        self._client = stores.client()
        self._behind_server = urlsplit(stores.registry_uri).scheme in {"http", "https"}
        self._source, self._record, self._plan, self._run_id = source, record, plan, run_id
        self._undo: list[Callable[[], Any]] = []

    def run(self) -> int:
        with self._whole_or_nothing(), talking(f"register model {self._record.name!r}"):
            self._ensure_model()
            place = self._source.place if self._plan.folder is None else None
            uri, model_id = (place.uri, place.model_id) if place else self._log_model()
            version = self._create_version(uri, model_id)
            self._link(version, model_id)
            return version

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # an interrupt too must leave nothing behind
            for action in reversed(self._undo):
                with suppress(Exception):
                    action()
            raise

    def _ensure_model(self) -> None:
        name = self._record.name
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            self._refuse_prompt()
        else:
            self._undo.append(partial(_drop_if_empty, self._client, name))

    def _refuse_prompt(self) -> None:
        """Prompts share their names with models, and MLflow's client shows them to nobody who looks for models."""
        try:
            self._client.get_registered_model(self._record.name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            raise UserErrorException(f"model_name {self._record.name!r} is a prompt here: choose another") from error

    def _log_model(self) -> tuple[str, str]:
        """Upload the files as a logged model, so that they belong to the run and to the version."""
        client, folder = self._client, self._plan.folder
        # A logged model's name may hold less than a registered one's.
        logged = client.create_logged_model(
            experiment_id=client.get_run(self._run_id).info.experiment_id if self._run_id else _experiment(client),
            name=self._record.name.replace(".", "_"),
            source_run_id=self._run_id,
            tags={REGISTERED_FROM: self._source.path},
        )
        self._undo.append(partial(client.delete_logged_model, logged.model_id))
        self._undo.append(partial(client.finalize_logged_model, logged.model_id, "FAILED"))
        if self._plan.finish is not None:
            self._plan.finish(self._run_id, logged.model_id)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        if self._run_id is not None:
            client.log_outputs(self._run_id, [LoggedModelOutput(logged.model_id, 0)])
        return logged.artifact_location, logged.model_id

    def _create_version(self, uri: str, model_id: str | None) -> int:
        record = self._record
        tags = {**record.tags, model_tags.KIND: self._plan.kind, model_tags.PATH: self._source.path}
        if self._plan.problem:
            tags[model_tags.NOT_SERVABLE] = self._plan.problem
        if self._run_id is None and not self._behind_server:
            model_id = None  # to find its run, MLflow's database registry would ask MLflow's current tracking store
        made = self._client.create_model_version(
            record.name, uri, run_id=self._run_id, tags=tags, description=record.description, model_id=model_id
        )
        self._undo.append(partial(self._client.delete_model_version, record.name, made.version))
        return int(made.version)

    def _link(self, version: int, model_id: str | None) -> None:
        """The logged model names its versions, which a server does by itself and a database does not."""
        if model_id is None:
            return
        tags = self._client.get_logged_model(model_id).tags
        entry = {"name": self._record.name, "version": version}
        known = json.loads(tags.get("mlflow.modelVersions", "[]"))
        if not any(item["name"] == entry["name"] and int(item["version"]) == version for item in known):
            self._client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps([*known, entry])})


def _drop_if_empty(client: Any, name: str) -> None:
    if not client.search_model_versions(f"name='{name}'"):
        client.delete_registered_model(name)


def _experiment(client: Any) -> str:
    """Where files are kept that belong to no run: MLflow's default experiment, or one of our own."""
    default = client.get_experiment_by_name("Default")
    if default is not None and default.lifecycle_stage == "active":
        return str(default.experiment_id)
    found = client.get_experiment_by_name(_LOCAL_EXPERIMENT)
    if found is None:
        return str(client.create_experiment(_LOCAL_EXPERIMENT))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
