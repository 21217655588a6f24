"""What a rank above 0 writes on experiments.

Every rank that calls ``mlflow.set_experiment("new")`` would create it. MLflow survives losing that race, but does not
then use the experiment, so that rank 0 could log elsewhere. Here only rank 0 creates one; the others go on with an
experiment in memory until they see it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mlflow.entities import Experiment, LifecycleStage

from mlflow_pytorch_estimator.rank_policy import scratch
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy


class GuardedExperiments:
    """Experiments are created in memory; nothing else about them is written."""

    def __init__(self, original: SimpleNamespace, policy: RankPolicy) -> None:
        self._original = original
        self._policy = policy
        self._experiments: dict[str, Experiment] = {}

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Sequence[Any] | None = None
    ) -> str:
        """The id of an experiment: of the stored one with this name, if rank 0 has been faster."""
        self._policy.tell()
        known = self.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        experiment_id = str(uuid.uuid4().int % 10**18)
        now = int(time.time() * 1000)
        self._experiments[experiment_id] = Experiment(
            experiment_id=experiment_id,
            name=name,
            artifact_location=str(scratch.folder("experiments", experiment_id)),
            lifecycle_stage=LifecycleStage.ACTIVE,
            tags=list(tags or ()),
            creation_time=now,
            last_update_time=now,
        )
        return experiment_id

    def get_experiment(self, experiment_id: str) -> Experiment:
        """One experiment."""
        return self._experiments.get(str(experiment_id)) or self._original.get_experiment(experiment_id)

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """One experiment; the stored one comes first."""
        found = self._original.get_experiment_by_name(experiment_name)
        own = (kept for kept in self._experiments.values() if kept.name == experiment_name)
        return found or next(own, None)

    def delete_experiment(self, experiment_id: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def restore_experiment(self, experiment_id: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Not by this rank."""
        self._policy.tell()

    def set_experiment_tag(self, experiment_id: str, tag: Any) -> None:
        """Not by this rank."""
        self._policy.tell()

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Not by this rank."""
        self._policy.tell()
