"""``Experiment``: an MLflow experiment of a workspace."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking.context import registry as context_registry

from mlflow_pytorch_estimator.estimator import submitting
from mlflow_pytorch_estimator.estimator.checking import (
    check_run_name,
    has_tags,
    short,
    store_errors,
    text_tags,
    unicode_text,
)
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.script_run_config import ScriptRunConfig

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.dryrun.plan import Plan
    from mlflow_pytorch_estimator.estimator.pytorch import PyTorch
    from mlflow_pytorch_estimator.estimator.runs.run import Run
    from mlflow_pytorch_estimator.estimator.training import TrainingJob
    from mlflow_pytorch_estimator.estimator.workspace import Workspace

_VIEWS = {"activeonly": ViewType.ACTIVE_ONLY, "archivedonly": ViewType.DELETED_ONLY, "all": ViewType.ALL}
_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"


class Experiment:
    """The experiment of that name; it is created, or restored if it was deleted."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise UserErrorException(f"an experiment needs a name, not {name!r}")
        unicode_text("the name of an experiment", name)
        self._workspace = workspace
        with store_errors(f"experiment {short(name)!r}"):
            self._client = workspace.stores.client()
            self._entity = self._found(name) or self._created(name)

    @classmethod
    def _of(cls, workspace: Workspace, entity: Any) -> Experiment:
        made = cls.__new__(cls)
        made._workspace, made._client, made._entity = workspace, workspace.stores.client(), entity
        return made

    def _found(self, name: str) -> Any:
        entity = self._client.get_experiment_by_name(name)
        if entity is not None and entity.lifecycle_stage == "deleted":
            self._client.restore_experiment(entity.experiment_id)
            entity = self._client.get_experiment(entity.experiment_id)
        return entity

    def _created(self, name: str) -> Any:
        try:
            return self._client.get_experiment(self._client.create_experiment(name))
        except MlflowException as error:
            entity = self._found(name) if error.error_code == _ALREADY_EXISTS else None
            if entity is None:
                raise
            return entity  # another process was faster

    def __repr__(self) -> str:
        return f"Experiment({self.name!r}, id={self.id!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._entity.name)

    @property
    def id(self) -> str:
        """MLflow's id of it."""
        return str(self._entity.experiment_id)

    @property
    def workspace(self) -> Workspace:
        """Where it is."""
        return self._workspace

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return dict(self._entity.tags)

    @property
    def archived_time(self) -> datetime.datetime | None:
        """When it was archived (UTC), or None while it is active."""
        if self._entity.lifecycle_stage != "deleted":
            return None
        return datetime.datetime.fromtimestamp(self._entity.last_update_time / 1000, datetime.timezone.utc)

    def submit(
        self,
        config: PyTorch | ScriptRunConfig,
        tags: Mapping[str, Any] | None = None,
        *,
        run_name: str | None = None,
        **overrides: Any,
    ) -> Run:
        """Submit a job and return its run at once.

        For an estimator, ``script_params`` and ``inputs`` may be replaced. Raises before a run exists.
        """
        run_tags, job = text_tags(tags), _described(config, overrides)
        check_run_name(run_name)
        with self._workspace.at_home(), store_errors(f"cannot submit to experiment {self.name!r}"):
            submitted = submitting.submit(job, self.id, self._workspace.stores, run_name, run_tags)
        return self._run(submitted.run_id)

    def plan(self, config: PyTorch | ScriptRunConfig, **overrides: Any) -> Plan:
        """What ``submit`` would submit, after the same checks, and submit nothing; ``print`` it.

        Its batch script or place in the queue, its ranks, its environment, the names of its variables.
        """
        job = _described(config, overrides)
        with self._workspace.at_home(), store_errors(f"cannot submit to experiment {self.name!r}"):
            return submitting.plan(job, self.id, self._workspace.stores)

    def submit_array(
        self,
        config: PyTorch | ScriptRunConfig,
        parameters: Sequence[Mapping[str, Any]],
        tags: Mapping[str, Any] | None = None,
        *,
        max_concurrent: int | None = None,
        run_name: str | None = None,
    ) -> list[Run]:
        """Submit a run for each dict of arguments, such as ``{"--lr": 0.1}``, and return them at once, by number.

        They are one job array where the scheduler has such, ``max_concurrent`` of them run at once, and their
        ``parent`` ends and is canceled with all of them. Raises before any run exists.
        """
        from mlflow_pytorch_estimator.estimator import arrays

        run_tags, jobs = text_tags(tags), arrays.jobs(_checked(config), parameters)
        check_run_name(run_name)
        with self._workspace.at_home(), store_errors(f"cannot submit to experiment {self.name!r}"):
            submitted = submitting.submit_array(
                jobs, self.id, self._workspace.stores, run_name, run_tags, max_concurrent
            )
        return [self._run(item.run_id) for item in submitted.runs]

    def start_logging(
        self, *, display_name: str | None = None, run_name: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> Run:
        """A run of this process, to log into; ``complete`` or ``fail`` ends it, or the end of a ``with`` block.

        ``display_name`` is the original's word for ``run_name``.
        """
        run_tags, name = {**context_registry.resolve_tags(), **text_tags(tags)}, run_name or display_name
        check_run_name(name)
        with store_errors(f"cannot start a run in experiment {self.name!r}"):
            run = self._client.create_run(self.id, tags=run_tags, run_name=name)
        return self._run(run.info.run_id)

    def get_runs(
        self,
        type: str | None = None,  # noqa: A002 - the original's name
        tags: str | Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        include_children: bool = False,
    ) -> Iterator[Run]:
        """The runs, newest first; ``tags`` is a key, or keys with their values."""
        from mlflow_pytorch_estimator.estimator.runs.run import Run

        return Run.list(self, type=type, tags=tags, properties=properties, include_children=include_children)

    @staticmethod
    def list(
        workspace: Workspace,
        experiment_name: str | None = None,
        view_type: str = "ActiveOnly",
        tags: str | Mapping[str, Any] | None = None,
    ) -> list[Experiment]:
        """The experiments of a workspace; ``view_type`` is ActiveOnly, ArchivedOnly or All."""
        view = _VIEWS.get(view_type.lower()) if isinstance(view_type, str) else None
        if view is None:
            raise UserErrorException(f"view_type is {view_type!r}; it must be ActiveOnly, ArchivedOnly or All")
        client, token, found = workspace.stores.client(), None, []
        while True:
            with store_errors("cannot list the experiments"):
                page = client.search_experiments(view_type=view, page_token=token)
            found += [Experiment._of(workspace, item) for item in page]
            token = page.token
            if not token:
                break
        named = [item for item in found if experiment_name in {None, item.name}]
        return [item for item in named if has_tags(item.tags, tags)]

    def archive(self) -> None:
        """Put it away, as MLflow's delete does; ``reactivate`` brings it back. Once is as good as twice."""
        with store_errors(f"cannot archive experiment {self.name!r}"):
            self.refresh()
            if self._entity.lifecycle_stage != "deleted":
                self._client.delete_experiment(self.id)
                self.refresh()

    def reactivate(self, new_name: str | None = None) -> None:
        """Bring an archived experiment back, under another name if one is given."""
        self.refresh()
        taken = self._client.get_experiment_by_name(new_name) if new_name else None
        if taken is not None and taken.experiment_id != self.id:
            raise UserErrorException(f"there is an experiment {new_name!r} already: choose another name")
        if self._entity.lifecycle_stage == "deleted":
            self._client.restore_experiment(self.id)
        if new_name:
            with store_errors(f"experiment {short(new_name)!r}"):
                self._client.rename_experiment(self.id, new_name)
        self.refresh()

    def refresh(self) -> None:
        """Read it again."""
        self._entity = self._client.get_experiment(self.id)

    def tag(self, key: str, value: str | None = None) -> None:
        """Set a tag."""
        self.set_tags({key: "" if value is None else value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set several tags."""
        for key, value in text_tags(tags).items():
            self._client.set_experiment_tag(self.id, key, value)
        self.refresh()

    def remove_tags(self, tags: Any) -> None:
        """Remove tags by key."""
        for key in [tags] if isinstance(tags, str) else tags:
            if key in self.tags:
                self._client.delete_experiment_tag(self.id, key)
        self.refresh()

    @property
    def artifact_location(self) -> str:
        """Where the files of its runs go."""
        return str(self._entity.artifact_location)

    def _run(self, run_id: str) -> Run:
        from mlflow_pytorch_estimator.estimator.runs.run import Run

        return Run(self, run_id)


def _described(config: object, overrides: Mapping[str, Any]) -> TrainingJob:
    config = _checked(config)
    if overrides and isinstance(config, ScriptRunConfig):
        raise UserErrorException(f"{sorted(overrides)[0]} can only be replaced for a PyTorch estimator")
    return config.describe(**overrides)


def _checked(config: object) -> PyTorch | ScriptRunConfig:
    from mlflow_pytorch_estimator.estimator.pytorch import PyTorch

    if not isinstance(config, (PyTorch, ScriptRunConfig)):
        raise UserErrorException(f"{config!r} cannot be submitted: give a PyTorch estimator or a ScriptRunConfig")
    return config
