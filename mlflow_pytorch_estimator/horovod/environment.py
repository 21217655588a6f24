"""Environments that are not a job's: one with a given torch for the time of a build, or somebody's own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import interpreters
from mlflow_pytorch_estimator.environments.description.framework import framework_python, framework_requirements
from mlflow_pytorch_estimator.errors import EnvironmentSpecError
from mlflow_pytorch_estimator.horovod.inspection import inspect
from mlflow_pytorch_estimator.horovod.planning import plan

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.horovod.options import Options
    from mlflow_pytorch_estimator.horovod.planning import Plan
    from mlflow_pytorch_estimator.horovod.programs import Programs

_PIN = re.compile(r"([\w.-]+)==([\w.!+]+)")


def temporary_environment(version: str | None, folder: Path, programs: Programs) -> Path:
    """Make an environment with that torch in ``folder`` and return its interpreter."""
    request, lines = _wanted(version, programs)
    uv = programs.uv(folder)
    uv.run("venv", "--no-project", "--python", request, "--allow-existing", str(folder))
    interpreter = folder / "bin" / "python"
    uv.run("pip", "install", "--python", str(interpreter), *lines)
    return interpreter


def resolved(version: str | None, folder: Path, programs: Programs) -> tuple[str, dict[str, str]]:
    """Return the Python and the packages of such an environment, without making it."""
    request, lines = _wanted(version, programs)
    uv = programs.uv(folder)
    found = uv.run("python", "find", "--no-project", "--show-version", request).split()[-1]
    file = folder / "requirements.in"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    said = uv.run("pip", "compile", "--no-header", "--no-annotate", "--python-version", found, str(file))
    return found, {match[1]: match[2] for line in said.splitlines() if (match := _PIN.match(line))}


def described(python: Path, options: Options, programs: Programs) -> Plan:
    """Return the plan for an environment as it is; EnvironmentSpecError without a torch."""
    facts = inspect(python, programs)
    if not facts.torch:
        raise EnvironmentSpecError(f"{python} has no PyTorch: install the one that Horovod is to be built for")
    return plan(facts.locked, facts.python, options, programs.environ)


def _wanted(version: str | None, programs: Programs) -> tuple[str, list[str]]:
    # numpy is bounded for torch's sake; torchvision has no part in the build.
    lines = [line for line in framework_requirements(version) if line != "torchvision"]
    interpreter = interpreters.choose(framework_python(lines), programs.environ)
    return interpreter.request, lines
