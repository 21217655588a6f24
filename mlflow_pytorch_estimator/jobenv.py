"""The environment variables that ranks get."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mlflow_pytorch_estimator.containers import inside
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.spec import JobSpec

# They belong to the interpreter that submitted, not to the one that the ranks run under.
_FOREIGN = ("PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "UV_PROJECT_ENVIRONMENT")

RUN_VARIABLE = "GPU_CLUSTER_RUN_ID"
"""Ours beside MLflow's, which MLflow itself takes out of the environment."""
METRICS_VARIABLE = "GPU_CLUSTER_RANK_METRICS"
ATTEMPT_VARIABLE = "GPU_CLUSTER_ATTEMPT"
CHECKPOINTS_VARIABLE = "CHECKPOINT_DIR"
CARRIED_VARIABLE = "GPU_CLUSTER_JOB_ENVIRONMENT"
_RESERVED = frozenset({"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"})
INPUT_PREFIX = "GPU_CLUSTER_INPUT_"


def is_reserved(name: str) -> bool:
    """Whether the backend itself sets the variable for the ranks."""
    return name in _RESERVED or name.startswith("GPU_CLUSTER_")


def carried(variables: Mapping[str, str]) -> dict[str, str]:
    """The user's variables as one that agent and preparer pass on: a PATH for the ranks must not become theirs."""
    return {CARRIED_VARIABLE: json.dumps(dict(variables))}


def input_variable(name: str) -> str:
    """The variable that holds the path of a named input."""
    return INPUT_PREFIX + "".join(char if char.isalnum() else "_" for char in name).upper()


def attempt_environment(job: JobSpec, directory: JobDir, number: int) -> dict[str, str]:
    """What the ranks of all nodes are told about the current try; a folder for checkpoints of the user's own wins."""
    checkpoints = os.environ.get(CHECKPOINTS_VARIABLE) or str(directory.checkpoints)
    return {
        ATTEMPT_VARIABLE: str(number),
        CHECKPOINTS_VARIABLE: checkpoints,
        METRICS_VARIABLE: job.rank_metrics,
    }


def rank_environment(environ: Mapping[str, str], job: JobSpec, directory: JobDir) -> dict[str, str]:
    """The agent's environment and the user's variables, with the job's interpreter first on ``PATH``.

    For a job in a container it is the environment of the client that starts it; the image has its own ``PATH``.
    """
    result = dict(environ)
    own = json.loads(result.pop(CARRIED_VARIABLE, "{}"))
    if job.container is None:
        _use_interpreter(result, own, job, directory)
    else:
        result.update(inside.renamed(own))
        result[inside.LIBRARY] = str(directory.library)
    result.setdefault("PYTHONUNBUFFERED", "1")  # a log that is written in blocks is not live
    result.update({input_variable(name): path for name, path in job.input_paths.items()})
    result["MLFLOW_RUN_ID"] = result[RUN_VARIABLE] = job.run_id
    result["MLFLOW_EXPERIMENT_ID"] = job.experiment_id
    return result


def _use_interpreter(result: dict[str, str], own: Mapping[str, str], job: JobSpec, directory: JobDir) -> None:
    python = Path(job.interpreter.python or "")
    if job.interpreter.manager != "local":
        for name in _FOREIGN:
            result.pop(name, None)
        if job.interpreter.manager == "conda":
            # A prefix is no virtual environment: its Python would see packages in the user's home.
            result |= {"CONDA_PREFIX": str(python.parent.parent), "PYTHONNOUSERSITE": "1"}
        else:
            result["VIRTUAL_ENV"] = str(python.parent.parent)
        # Environments are new and have no bytecode yet: not writing it costs every job 10 s for `import mlflow, torch`.
        result.pop("PYTHONDONTWRITEBYTECODE", None)
    result.update(own)  # before the two paths: a PATH of the user's must not hide the job's interpreter
    # Also for the local manager: a job of `/path/to/venv/bin/mlflow run` means that venv's python.
    result["PATH"] = f"{python.parent}:{result.get('PATH', '')}"
    ours = [str(folder) for folder in (directory.library, directory.rank_policy) if folder.is_dir()]
    result["PYTHONPATH"] = ":".join(filter(None, [*ours, result.get("PYTHONPATH")]))
    if not result["PYTHONPATH"]:
        del result["PYTHONPATH"]
