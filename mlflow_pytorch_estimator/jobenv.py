"""The environment variables that ranks get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.spec import JobSpec

# They belong to the interpreter that submitted, not to the one that the ranks run under.
_FOREIGN = ("PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "UV_PROJECT_ENVIRONMENT")

CARRIED_VARIABLE = "GPU_CLUSTER_JOB_ENVIRONMENT"
RESERVED = frozenset({"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"})
INPUT_PREFIX = "GPU_CLUSTER_INPUT_"


def carried(variables: Mapping[str, str]) -> dict[str, str]:
    """The user's variables as one that agent and preparer pass on: a PATH for the ranks must not become theirs."""
    return {CARRIED_VARIABLE: json.dumps(dict(variables))}


def input_variable(name: str) -> str:
    """The variable that holds the path of a named input."""
    return INPUT_PREFIX + "".join(char if char.isalnum() else "_" for char in name).upper()


def rank_environment(environ: Mapping[str, str], job: JobSpec, directory: JobDir) -> dict[str, str]:
    """The agent's environment and the user's variables, with the job's interpreter first on ``PATH``."""
    result = dict(environ)
    own = json.loads(result.pop(CARRIED_VARIABLE, "{}"))
    python = Path(job.interpreter.python or "")
    if job.interpreter.manager != "local":
        for name in _FOREIGN:
            result.pop(name, None)
        result["VIRTUAL_ENV"] = str(python.parent.parent)
        # Environments are new and have no bytecode yet: not writing it costs every job 10 s for `import mlflow, torch`.
        result.pop("PYTHONDONTWRITEBYTECODE", None)
    result.update(own)  # before the two paths: a PATH of the user's must not hide the job's interpreter
    # Also for the local manager: a job of `/path/to/venv/bin/mlflow run` means that venv's python.
    result["PATH"] = f"{python.parent}:{result.get('PATH', '')}"
    if directory.library.is_dir():
        result["PYTHONPATH"] = ":".join(filter(None, [str(directory.library), result.get("PYTHONPATH")]))
    result.setdefault("PYTHONUNBUFFERED", "1")  # a log that is written in blocks is not live
    result.update({input_variable(name): path for name, path in job.input_paths.items()})
    result["MLFLOW_RUN_ID"] = job.run_id
    result["MLFLOW_EXPERIMENT_ID"] = job.experiment_id
    return result
