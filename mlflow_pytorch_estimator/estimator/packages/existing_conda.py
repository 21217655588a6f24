"""Read the packages of an environment that conda has made."""

from __future__ import annotations

import os
import shutil
import subprocess

from mlflow_pytorch_estimator.environments.description import read
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import CondaDependencies

_SECONDS = 120


def export(name: str) -> CondaDependencies:
    """Return what ``conda env export`` says of the environment ``name``."""
    program = os.environ.get("CONDA_EXE") or shutil.which("conda")
    if not program:
        raise UserErrorException(
            f"cannot read the conda environment {name!r}: there is no conda command here; where there is one, "
            f"'conda env export --from-history -n {name} > conda.yaml', then from_conda_specification"
        )
    if not isinstance(name, str) or not name or name.startswith("-"):
        raise UserErrorException(f"{name!r} is no name of a conda environment")
    command = [program, "env", "export", "--no-builds", "--name", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserErrorException(f"cannot read the conda environment {name!r}: {error}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserErrorException(f"cannot read the conda environment {name!r}: {reason}")
    return CondaDependencies(_underlying_structure=read.parse_yaml(done.stdout, f"conda environment {name!r}"))
