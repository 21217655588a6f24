"""The batch script: constant but for its header; all else about a job is in ``job.json`` beside it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import far, options
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
    if not job.shared_filesystem:
        return _script(_header(job, directory.path, _literal(directory.agent_log)), _far_body(job, directory))
    return _agent_script(_header(job, directory.path, _literal(directory.agent_log)), shlex.quote(str(directory.path)))


def array_script(job: JobSpec, group: JobDir, size: int, limit: int | None) -> str:
    """The script of an array of such jobs: each task finds its directory by its number."""
    output = _literal(group.tasks, f"/%a/{group.agent_log.relative_to(group.path)}")
    array = f"--array=0-{size - 1}" + (f"%{limit}" if limit else "")
    return _agent_script(
        (*_header(job, group.path, output), array), f'{shlex.quote(str(group.tasks))}/"$SLURM_ARRAY_TASK_ID"'
    )


def _agent_script(header: Sequence[str], path: str) -> str:
    return _script(header, f"exec {shlex.quote(PYTHON)} -m {_NODE_MODULE} {path}\n")


def _script(header: Sequence[str], body: str) -> str:
    lines = "".join(f"#SBATCH {argument}\n" for argument in header)
    return f"#!/bin/bash\n{lines}\n{body}"


def _far_body(job: JobSpec, directory: JobDir) -> str:
    """What waits on the first node for the job to be sent there, and becomes the agent then."""
    python = shlex.quote(job.interpreter.python or PYTHON)
    arrived, library, log, path = map(
        shlex.quote,
        map(str, (far.FarFiles(directory).arrived, directory.library, directory.agent_log, directory.path)),
    )
    return (
        f"until [ -e {arrived} ]; do\n"
        f"  [ $SECONDS -lt {far.ARRIVAL_SECONDS} ] || exit {far.NOT_ARRIVED}\n"
        "  sleep 0.2\n"
        "done\n"
        f"exec >>{log} 2>&1\n"
        f"export PYTHONPATH={library}${{PYTHONPATH:+:$PYTHONPATH}}\n"
        f"exec {python} -m {_NODE_MODULE} {path}\n"
    )


def _header(job: JobSpec, folder: Path, output: str) -> tuple[str, ...]:
    resources = job.resources
    lines: dict[str, object] = {
        "job-name": _name(job),
        "nodes": resources.node_count,
        "ntasks-per-node": 1,
        "output": output,
        "open-mode": "append",
        "chdir": _literal(folder),
        "signal": f"B:{END_SIGNAL}@{math.ceil(job.grace_seconds + 30)}",
        "requeue" if job.max_retries else "no-requeue": True,
    }
    spare = _MARGIN_SECONDS
    if not job.shared_filesystem:
        lines |= {"output": "/dev/null", "chdir": "/", "no-requeue": True}  # its directory is not there yet
        lines["signal"] = f"B:{END_SIGNAL}@{math.ceil(job.grace_seconds + 30 + far.END_SECONDS)}"
        lines.pop("requeue", None)
        spare += far.ARRIVAL_SECONDS + far.END_SECONDS
    if resources.cpus_per_node is not None:
        lines["cpus-per-task"] = resources.cpus_per_node
    elif not resources.gpus_per_node:
        lines["exclusive"] = True  # the whole node, as on one's own machine; with GPUs the site's share of cores
    if resources.gpus_per_node:
        kind = job.scheduler_options.get(options.GPU_TYPE)
        lines["gres"] = f"gpu:{kind}:{resources.gpus_per_node}" if kind else f"gpu:{resources.gpus_per_node}"
    if resources.memory_gb_per_node is not None:
        lines["mem"] = f"{math.ceil(resources.memory_gb_per_node * 1024)}M"
    if job.max_seconds:
        seconds = job.max_seconds + job.grace_seconds + job.start_seconds + spare
        lines["time"] = math.ceil(seconds / 60)
    if resources.low_priority:
        lines["nice"] = _NICE
    return options.arguments(lines) + options.arguments(job.scheduler_options)


def _name(job: JobSpec) -> str:
    words = f"{job.project}-{job.entry_point}" if job.entry_point != "main" else job.project
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in words)[:64] or "mlflow"


def _literal(path: Path, pattern: str = "") -> str:
    """A path for Slurm, which takes % for a pattern and a blank for an end; and such a pattern below it."""
    text = str(path)
    if any(letter in text for letter in '%\\"\n'):
        raise ConfigError(f"Slurm cannot take the path {text!r}: set GPU_CLUSTER_HOME to one of letters and digits")
    return f'"{text}{pattern}"' if " " in text else f"{text}{pattern}"
