"""The tracking store of a rank above 0: MLflow's own, with other writing methods.

Each class here is about one kind of thing. Its public methods are what replaces the store's methods of the same names;
a method that a version of MLflow does not have is left out. They are set on the instance, so everything else, and every
kind of store, stays as it is.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from mlflow_pytorch_estimator.rank_policy.experiments import GuardedExperiments
from mlflow_pytorch_estimator.rank_policy.guarded_models import GuardedModels
from mlflow_pytorch_estimator.rank_policy.guarded_runs import GuardedRuns
from mlflow_pytorch_estimator.rank_policy.models import MemoryModels
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy
from mlflow_pytorch_estimator.rank_policy.runs import MemoryRuns
from mlflow_pytorch_estimator.rank_policy.traces import GuardedTraces

KINDS = (GuardedRuns, GuardedModels, GuardedExperiments, GuardedTraces)


def guard(store: Any, policy: RankPolicy) -> None:
    """Replace the writing methods of a tracking store."""
    # MLflow prints a link when a run ends. These have not ended, or are nowhere to be seen.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    names = [name for kind in KINDS for name in replaced(kind)]
    original = originals(store, names)
    runs, models = MemoryRuns(policy.rank), MemoryModels()
    replace(store, GuardedRuns(original, policy, runs, models))
    replace(store, GuardedModels(original, policy, runs, models))
    replace(store, GuardedExperiments(original, policy))
    replace(store, GuardedTraces(original, policy, runs))


def replaced(kind: type) -> list[str]:
    """The methods of a store that a class replaces."""
    return [name for name in vars(kind) if not name.startswith("_")]


def originals(store: Any, names: list[str]) -> SimpleNamespace:
    """The store's own methods."""
    return SimpleNamespace(**{name: getattr(store, name) for name in names if hasattr(store, name)})


def replace(store: Any, guarded: Any) -> None:
    """Set the methods of ``guarded`` on the store, those that it has."""
    for name in replaced(type(guarded)):
        if hasattr(store, name):
            setattr(store, name, getattr(guarded, name))
