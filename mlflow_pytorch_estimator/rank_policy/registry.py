"""The model registry of a rank above 0: what it registers exists in its memory, the rest is dropped."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.rank_policy import tracking
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy


def guard(store: Any, policy: RankPolicy) -> None:
    """Replace the writing methods of a model registry's store."""
    original = tracking.originals(store, tracking.replaced(GuardedRegistry))
    tracking.replace(store, GuardedRegistry(original, policy))


class GuardedRegistry:
    """All ranks register the same model: rank 0 does it, the others get an answer."""

    def __init__(self, original: SimpleNamespace, policy: RankPolicy) -> None:
        self._original = original
        self._policy = policy
        self._names: dict[str, RegisteredModel] = {}
        self._versions: dict[tuple[str, str], ModelVersion] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self._lock = threading.RLock()

    def create_registered_model(
        self, name: str, tags: Sequence[Any] | None = None, description: str | None = None, *_: Any, **__: Any
    ) -> RegisteredModel:
        """A name in memory. Whether it is taken is rank 0's affair, which may just have taken it."""
        self._policy.tell()
        now = _now()
        self._names[name] = RegisteredModel(name, now, now, description, [], list(tags or ()))
        return self._names[name]

    def create_model_version(  # noqa: PLR0913, PLR0917 - MLflow's signature
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Sequence[Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """A version in memory."""
        self._policy.tell()
        with self._lock:
            now, version = _now(), self._next_version(name)
            self._versions[name, version] = ModelVersion(
                name,
                version,
                now,
                last_updated_timestamp=now,
                description=description,
                source=source,
                run_id=run_id,
                tags=list(tags or ()),
                run_link=run_link,
                model_id=model_id,
                current_stage="None",
            )
            return self._versions[name, version]

    def copy_model_version(self, src_mv: ModelVersion, dst_name: str) -> ModelVersion:
        """A version in memory that leads to another's files."""
        source = f"models:/{src_mv.name}/{src_mv.version}"
        return self.create_model_version(dst_name, source, src_mv.run_id, run_link=src_mv.run_link)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """A name; the stored one comes first."""
        if name not in self._names:
            return self._original.get_registered_model(name)
        try:
            return self._original.get_registered_model(name)
        except MlflowException:
            return self._names[name]

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """A version; this rank's own comes first."""
        own = self._versions.get((name, str(version)))
        return own or self._original.get_model_version(name, version)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """A version by what this rank, or else the store, calls it."""
        version = self._aliases.get((name, alias))
        if version is None:
            return self._original.get_model_version_by_alias(name, alias)
        return self.get_model_version(name, version)

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Where the files of a version are."""
        own = self._versions.get((name, str(version)))
        return own.source if own else self._original.get_model_version_download_uri(name, version)

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """The last version in each stage."""
        own = [version for key, version in self._versions.items() if key[0] == name]
        if not own:
            return self._original.get_latest_versions(name, stages)
        return [max(own, key=lambda version: int(version.version))]

    def update_registered_model(self, name: str, *_: Any, **__: Any) -> RegisteredModel:
        """Not by this rank."""
        self._policy.tell()
        return self.get_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Not by this rank."""
        self._policy.tell()
        return RegisteredModel(new_name, _now(), _now())

    def update_model_version(self, name: str, version: str, *_: Any, **__: Any) -> ModelVersion:
        """Not by this rank."""
        self._policy.tell()
        return self.get_model_version(name, version)

    def transition_model_version_stage(self, name: str, version: str, *_: Any, **__: Any) -> ModelVersion:
        """Not by this rank."""
        self._policy.tell()
        return self.get_model_version(name, version)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """An alias that this rank alone knows."""
        self._policy.tell()
        self._aliases[name, alias] = str(version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Forget an alias of this rank."""
        self._policy.tell()
        self._aliases.pop((name, alias), None)

    def delete_registered_model(self, name: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Not by this rank."""
        self._policy.tell()

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def delete_model_version(self, name: str, version: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> None:
        """Not by this rank."""
        self._policy.tell()

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def _next_version(self, name: str) -> str:
        own = [int(version) for known, version in self._versions if known == name]
        with contextlib.suppress(MlflowException):  # nobody has registered it, or this kind of registry cannot tell
            own += [int(found.version) for found in self._original.get_latest_versions(name)]
        return str(max(own, default=0) + 1)


def _now() -> int:
    return int(time.time() * 1000)
