"""What the values of a backend config may be, key by key."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.schedulers import SCHEDULERS

LAUNCHERS = {
    "horovod": ("horovod", None),
    "mpi": ("horovod", None),
    "mpirun": ("mpirun", None),
    "torch": ("torch", None),
    "torchrun": ("torch", None),
    "nccl": ("torch", "nccl"),
    "gloo": ("torch", "gloo"),
}
"""Kind of distribution and backend of torch.distributed, by the names that users give."""
_SIGNALS = ("USR1", "USR2")
_PLACES = ("submit", "node")
_METRICS = ("drop", "prefix")


def _scheduler(name: str, value: object) -> None:
    if not isinstance(value, str) or value not in SCHEDULERS:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(sorted(SCHEDULERS))}")


def _text_or_none(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{name} is {value!r}; it must be a name")


def _mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; it must be a JSON object")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be true or false")


def _flag_or_none(name: str, value: object) -> None:
    if value is not None:
        _flag(name, value)


def _launcher_or_none(name: str, value: object) -> None:
    if value is not None:
        _one_of(name, value, LAUNCHERS)


def _one_of(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(choices)}")


def _signal_or_none(name: str, value: object) -> None:
    if value is not None:
        _one_of(name, value, _SIGNALS)


def _rank_metrics(name: str, value: object) -> None:
    _one_of(name, value, _METRICS)


def _where_to_prepare(name: str, value: object) -> None:
    _one_of(name, value, _PLACES)


def _count(name: str, value: object) -> None:
    _whole(name, value, 0)


def _exit_codes(name: str, value: object) -> None:
    whole = isinstance(value, (list, tuple)) and all(
        isinstance(code, int) and not isinstance(code, bool) for code in value
    )
    if not whole:
        raise ConfigError(f"{name} is {value!r}; it must be a list of exit codes, such as [75, -9]")


def _run_ids(name: str, value: object) -> None:
    several = isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)
    if value is not None and not several and not (isinstance(value, str) and value):
        raise ConfigError(f"{name} is {value!r}; it must be the id of a run, or a list of ids")


def _positive(name: str, value: object) -> None:
    _whole(name, value, 1)


def _positive_or_none(name: str, value: object) -> None:
    if value is not None:
        _whole(name, value, 1)


def _count_or_none(name: str, value: object) -> None:
    if value is not None:
        _whole(name, value, 0)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def _amount(name: str, value: object) -> None:
    if not _is_number(value) or float(str(value)) == 0:
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0")


def _amount_or_none(name: str, value: object) -> None:
    if value is not None:
        _amount(name, value)


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(float(str(value))) and float(str(value)) >= 0


def _seconds(name: str, value: object) -> None:
    if not _is_number(value):
        raise ConfigError(f"{name} is {value!r}; it must be a number of seconds, 0 or more")


CHECKS = {
    "scheduler": _scheduler,
    "scheduler_options": _mapping,
    "compute": _text_or_none,
    "node_count": _positive,
    "process_count_per_node": _positive,
    "distributed_training": _launcher_or_none,
    "min_node_count": _positive_or_none,
    "max_restarts": _count,
    "relay": _flag_or_none,
    "rank_metrics": _rank_metrics,
    "cpus_per_node": _positive_or_none,
    "gpus_per_node": _count_or_none,
    "memory_gb_per_node": _amount_or_none,
    "max_run_duration_seconds": _amount_or_none,
    "checkpoint_signal": _signal_or_none,
    "checkpoint_lead_seconds": _amount,
    "start_timeout_seconds": _amount,
    "max_retries": _count,
    "retry_exit_codes": _exit_codes,
    "resume_from": _text_or_none,
    "low_priority": _flag,
    "shared_filesystem": _flag,
    "upgrade_environment": _flag,
    "prepare_on": _where_to_prepare,
    "after": _run_ids,
    "detach": _flag,
    "dry_run": _flag,
    "grace_period_seconds": _seconds,
}
"""What each key of the backend config takes: a function that raises ConfigError for a wrong value."""
