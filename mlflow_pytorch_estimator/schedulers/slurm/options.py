"""Options of ``sbatch`` as ``scheduler_options`` name them: which are the user's, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from mlflow_pytorch_estimator.errors import ConfigError

_OURS = {
    "batch": "nothing",
    "comment": "nothing",
    "cpus-per-task": "cpus_per_node",
    "chdir": "nothing",
    "error": "nothing",
    "exclusive": "cpus_per_node",
    "export": "nothing",
    "export-file": "nothing",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "gpus-per-socket": "gpus_per_node",
    "gpus-per-task": "gpus_per_node",
    "gres": "gpus_per_node (and gpu_type in scheduler_options)",
    "array": "nothing",
    "input": "nothing",
    "job-name": "the project's name",
    "mem": "memory_gb_per_node",
    "mem-per-cpu": "memory_gb_per_node",
    "mem-per-gpu": "memory_gb_per_node",
    "nice": "low_priority",
    "no-requeue": "max_retries",
    "nodes": "node_count",
    "ntasks": "node_count",
    "ntasks-per-core": "process_count_per_node",
    "ntasks-per-gpu": "process_count_per_node",
    "ntasks-per-node": "process_count_per_node",
    "ntasks-per-socket": "process_count_per_node",
    "open-mode": "nothing",
    "output": "nothing",
    "parsable": "nothing",
    "requeue": "max_retries",
    "signal": "checkpoint_signal",
    "test-only": "nothing",
    "time": "max_run_duration_seconds",
    "wait": "nothing",
    "wrap": "the entry point",
}
"""Options that the backend sets itself -> what sets them."""
GPU_TYPE = "gpu_type"
"""One of ours: the type in ``--gres=gpu:TYPE:N``."""
_DEFAULTS = ("account", "clusters", "constraint", "partition", "qos", "reservation")
"""What people set for all their jobs, in variables such as ``SBATCH_ACCOUNT``."""


def long_name(key: str) -> str:
    """``partition`` of ``--partition``, ``core-spec`` of ``core_spec``."""
    return key.lstrip("-").replace("_", "-")


def arguments(options: Mapping[str, object]) -> tuple[str, ...]:
    """As arguments, each ``--name=value``, or ``--name`` for one that is true."""
    named = {long_name(key): value for key, value in options.items() if key != GPU_TYPE}
    return tuple(f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items())


def users_defaults(options: Collection[str]) -> tuple[str, ...]:
    """What the user's shell says for all jobs, as arguments; not where ``options`` name it.

    As arguments, because such a variable wins over a script and would beat what the job itself says.
    """
    said = set(map(long_name, options))
    found = ((name, os.environ.get(f"SBATCH_{name.upper()}")) for name in _DEFAULTS if name not in said)
    return tuple(f"--{name}={value}" for name, value in found if value)


def cluster(options: Mapping[str, Any]) -> str | None:
    """The one that is asked for by name, by the options or by the user's shell."""
    named = {long_name(key): value for key, value in options.items()}
    return named.get("clusters") or named.get("cluster") or os.environ.get("SBATCH_CLUSTERS") or None


def partition(options: Mapping[str, Any]) -> str | None:
    """The one that is asked for, by the options or by the user's shell."""
    named = {long_name(key): value for key, value in options.items()}
    return named.get("partition") or os.environ.get("SBATCH_PARTITION") or None


def check(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option that the backend sets itself, or that is none of ``sbatch``."""
    for key, value in options.items():
        name = key if key == GPU_TYPE else long_name(key)
        if name in _OURS:
            how = _OURS[name]
            remedy = "leave it out" if how == "nothing" else f"it follows from {how}"
            raise ConfigError(f"scheduler_options: {key!r} is set by the backend; {remedy}")
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) == 1:
            raise ConfigError(f"scheduler_options: {key!r} is no long option of sbatch, such as partition or account")
        if not isinstance(value, (str, int, float, bool)) or "\n" in str(value) or value is False:
            raise ConfigError(f"scheduler_options: {key} must be a text, a number or true, not {value!r}")
