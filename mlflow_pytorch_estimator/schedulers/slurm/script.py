"""The batch script: constant but for its header; all else about a job is in ``job.json`` beside it."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
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
        return _compose(_far_header(job, directory), job.scheduler_options, _far_body(job, directory))
    lines = _header(job, directory, directory.path, literal(directory.agent_log))
    return agent_script(lines, job.scheduler_options, _NODE_MODULE, shlex.quote(str(directory.path)))


def array_script(job: JobSpec, group: JobDir, size: int, limit: int | None) -> str:
    """The script of an array of such jobs: each task finds its directory by its number."""
    output = literal(group.tasks, f"/%a/{group.agent_log.relative_to(group.path)}")
    lines = {**_header(job, group, group.path, output), "array": f"0-{size - 1}" + (f"%{limit}" if limit else "")}
    path = f'{shlex.quote(str(group.tasks))}/"$SLURM_ARRAY_TASK_ID"'
    return agent_script(lines, job.scheduler_options, _NODE_MODULE, path)


def agent_script(lines: Mapping[str, object], theirs: Mapping[str, object], module: str, path: str) -> str:
    """A script of our options, the user's own, and one command: a module of ours on a job's directory."""
    return _compose(lines, theirs, f"exec {shlex.quote(PYTHON)} -m {module} {path}\n")


def _compose(lines: Mapping[str, object], theirs: Mapping[str, object], body: str) -> str:
    header = "".join(f"#SBATCH {line}\n" for line in options.arguments(lines) + options.arguments(theirs))
    return f"#!/bin/bash\n{header}\n{body}"


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


def basics(job: JobSpec, folder: Path, output: str, suffix: str = "", nodes: int = 1) -> dict[str, object]:
    """What every script begins with; ``output`` as ``literal`` gives it."""
    return {
        "job-name": f"{_name(job)}{suffix}",
        "nodes": nodes,
        "ntasks-per-node": 1,
        "output": output,
        "open-mode": "append",
        "chdir": literal(folder),
    }


def _far_header(job: JobSpec, directory: JobDir) -> dict[str, object]:
    """Of a job whose directory is not there yet when it starts; Slurm does not requeue it."""
    once = replace(job, max_retries=0)
    times = {"before": far.ARRIVAL_SECONDS, "behind": far.END_SECONDS}
    return _header(once, directory, Path("/"), "/dev/null", **times)


def _header(  # noqa: PLR0913, PLR0917 - two times and three places
    job: JobSpec, directory: JobDir, folder: Path, output: str, before: float = 0, behind: float = 0
) -> dict[str, object]:
    """The options of a job, whose comment is its run's id.

    ``before`` its agent and ``behind`` its ranks it may take so many seconds more.
    """
    resources = job.resources
    lines: dict[str, object] = {
        **basics(job, folder, output, nodes=resources.node_count),
        "comment": directory.path.name,
        "signal": f"B:{END_SIGNAL}@{math.ceil(job.grace_seconds + 30 + behind)}",
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
        seconds = job.max_seconds + job.grace_seconds + job.start_seconds + _MARGIN_SECONDS + before + behind
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


def literal(path: Path, pattern: str = "") -> str:
    """A path for Slurm, which takes % for a pattern and a blank for an end; and such a pattern below it."""
    text = str(path)
    if any(letter in text for letter in '%\\"\n'):
        raise ConfigError(f"Slurm cannot take the path {text!r}: set GPU_CLUSTER_HOME to one of letters and digits")
    return f'"{text}{pattern}"' if " " in text else f"{text}{pattern}"
