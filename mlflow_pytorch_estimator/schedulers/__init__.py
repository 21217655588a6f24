"""Schedulers by name, imported on use."""

from __future__ import annotations

from importlib import import_module

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.schedulers.base import Scheduler

SCHEDULERS = {
    "local": "mlflow_pytorch_estimator.schedulers.local:LocalScheduler",
    "slurm": "mlflow_pytorch_estimator.schedulers.slurm.scheduler:SlurmScheduler",
}


def load_scheduler(name: str) -> Scheduler:
    """The scheduler of that name."""
    if name not in SCHEDULERS:
        raise ConfigError(f"unknown scheduler {name!r}; there is {', '.join(sorted(SCHEDULERS))}")
    module, _, attribute = SCHEDULERS[name].partition(":")
    scheduler: Scheduler = getattr(import_module(module), attribute)()
    return scheduler
