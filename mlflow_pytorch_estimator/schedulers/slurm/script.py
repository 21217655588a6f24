"""The batch script: constant but for its header; all else about a job is in ``job.json`` beside it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import options
from mlflow_pytorch_estimator.spec import JobSpec

_NODE_MODULE = "mlflow_pytorch_estimator.schedulers.slurm.node"
PYTHON = sys.executable
"""Interpreter of the agent, which must be on the nodes as well."""
_MARGIN_SECONDS = 60.0
END_SIGNAL = "USR2"
"""Sent to the agent alone before Slurm's time limit is over."""

_NICE = 1000


def batch_script(job: JobSpec, directory: JobDir) -> str:
    """The script of a job."""
    return compose(_header(job, directory), job.scheduler_options, _NODE_MODULE, directory)


def compose(lines: Mapping[str, object], theirs: Mapping[str, object], module: str, directory: JobDir) -> str:
    """A script of our options, the user's own, and one command."""
    header = "".join(f"#SBATCH {line}\n" for line in options.arguments(lines) + options.arguments(theirs))
    python, path = shlex.quote(PYTHON), shlex.quote(str(directory.path))
    return f"#!/bin/bash\n{header}\nexec {python} -m {module} {path}\n"


def basics(job: JobSpec, directory: JobDir, suffix: str = "", nodes: int = 1) -> dict[str, object]:
    """What every script begins with."""
    return {
        "job-name": f"{_name(job)}{suffix}",
        "nodes": nodes,
        "ntasks-per-node": 1,
        "output": _literal(directory.agent_log),
        "open-mode": "append",
        "chdir": _literal(directory.path),
    }


def _header(job: JobSpec, directory: JobDir) -> dict[str, object]:
    resources = job.resources
    lines: dict[str, object] = {
        **basics(job, directory, nodes=resources.node_count),
        "signal": f"B:{END_SIGNAL}@{math.ceil(job.grace_seconds + 30)}",
        "requeue" if job.max_retries else "no-requeue": True,
    }
    if resources.cpus_per_node is not None:
        lines["cpus-per-task"] = resources.cpus_per_node
    elif not resources.gpus_per_node:
        lines["exclusive"] = True  # the whole node, as on one's own machine; with GPUs the site's share of cores
    if resources.gpus_per_node:
        kind = job.scheduler_options.get(options.GPU_TYPE)
        lines["gres"] = f"gpu:{kind}:{resources.gpus_per_node}" if kind else f"gpu:{resources.gpus_per_node}"
    if resources.memory_gb_per_node is not None:
        lines["mem"] = memory(resources.memory_gb_per_node)
    if job.max_seconds:
        seconds = job.max_seconds + job.grace_seconds + job.start_seconds + _MARGIN_SECONDS
        lines["time"] = math.ceil(seconds / 60)
    if resources.low_priority:
        lines["nice"] = _NICE
    return lines


def memory(gigabytes: float) -> str:
    """As Slurm takes it."""
    return f"{math.ceil(gigabytes * 1024)}M"


def _name(job: JobSpec) -> str:
    words = f"{job.project}-{job.entry_point}" if job.entry_point != "main" else job.project
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)[:64] or "mlflow"


def _literal(path: Path) -> str:
    """A path for Slurm, which takes % for a pattern and a blank for an end."""
    text = str(path)
    if any(letter in text for letter in '%\\"\n'):
        raise ConfigError(f"Slurm cannot take the path {text!r}: set GPU_CLUSTER_HOME to one of letters and digits")
    return f'"{text}"' if " " in text else text
