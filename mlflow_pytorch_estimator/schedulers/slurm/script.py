"""The batch script: constant but for its header; all else about a job is in ``job.json`` beside it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.spec import JobSpec

_NODE_MODULE = "mlflow_pytorch_estimator.schedulers.slurm.node"
PYTHON = sys.executable
"""Interpreter of the agent, which must be on the nodes as well."""
_MARGIN_SECONDS = 60.0
END_SIGNAL = "USR2"
"""Sent to the agent alone before Slurm's time limit is over."""

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
_NICE = 1000


@dataclass(frozen=True)
class Script:
    """A batch script for one job directory."""

    text: str

    @classmethod
    def of(cls, job: JobSpec, directory: JobDir) -> Script:
        """The script of a job."""
        header = "".join(
            f"#SBATCH --{name}={value}\n" if value else f"#SBATCH --{name}\n" for name, value in _header(job, directory)
        )
        python, path = shlex.quote(PYTHON), shlex.quote(str(directory.path))
        return cls(f"#!/bin/bash\n{header}\nexec {python} -m {_NODE_MODULE} {path}\n")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option that the backend sets itself, or that is none of ``sbatch``."""
    for key, value in options.items():
        name = key.lstrip("-").replace("_", "-") if key != GPU_TYPE else key
        if name in _OURS:
            how = _OURS[name]
            remedy = "leave it out" if how == "nothing" else f"it follows from {how}"
            raise ConfigError(f"scheduler_options: {key!r} is set by the backend; {remedy}")
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) == 1:
            raise ConfigError(f"scheduler_options: {key!r} is no long option of sbatch, such as partition or account")
        if not isinstance(value, (str, int, float, bool)) or "\n" in str(value) or value is False:
            raise ConfigError(f"scheduler_options: {key} must be a text, a number or true, not {value!r}")


def _header(job: JobSpec, directory: JobDir) -> list[tuple[str, str]]:
    resources = job.resources
    lines = [
        ("job-name", _name(job)),
        ("nodes", str(resources.node_count)),
        ("ntasks-per-node", "1"),
        ("output", _literal(directory.agent_log)),
        ("open-mode", "append"),
        ("chdir", _literal(directory.path)),
        ("signal", f"B:{END_SIGNAL}@{math.ceil(job.grace_seconds + 30)}"),
        ("requeue", "") if job.max_retries else ("no-requeue", ""),
    ]
    if resources.cpus_per_node is not None:
        lines.append(("cpus-per-task", str(resources.cpus_per_node)))
    elif not resources.gpus_per_node:
        lines.append(("exclusive", ""))  # the whole node, as on one's own machine; with GPUs the site's share of cores
    if resources.gpus_per_node:
        kind = job.scheduler_options.get(GPU_TYPE)
        lines.append(("gres", f"gpu:{kind}:{resources.gpus_per_node}" if kind else f"gpu:{resources.gpus_per_node}"))
    if resources.memory_gb_per_node is not None:
        lines.append(("mem", f"{math.ceil(resources.memory_gb_per_node * 1024)}M"))
    if job.max_seconds:
        seconds = job.max_seconds + job.grace_seconds + job.start_seconds + _MARGIN_SECONDS
        lines.append(("time", str(math.ceil(seconds / 60))))
    if resources.low_priority:
        lines.append(("nice", str(_NICE)))
    given = {
        key.lstrip("-").replace("_", "-"): value for key, value in job.scheduler_options.items() if key != GPU_TYPE
    }
    return lines + [(name, "" if value is True else str(value)) for name, value in given.items()]


def _name(job: JobSpec) -> str:
    words = f"{job.project}-{job.entry_point}" if job.entry_point != "main" else job.project
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)[:64] or "mlflow"


def _literal(path: Path) -> str:
    """A path for Slurm, which takes % for a pattern and a blank for an end."""
    text = str(path)
    if any(letter in text for letter in '%\\"\n'):
        raise ConfigError(f"Slurm cannot take the path {text!r}: set GPU_CLUSTER_HOME to one of letters and digits")
    return f'"{text}"' if " " in text else text
