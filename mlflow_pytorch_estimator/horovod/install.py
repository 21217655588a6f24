"""What is asked of a wheel that was built, and of a Horovod that is installed."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.horovod.inspection import inspect
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.horovod.release import VERSION, runtime_requirements

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.runner import Runner
    from mlflow_pytorch_estimator.environments.uv import Uv

# Only the compiled part: what Horovod's Python needs may be installed later.
_LOAD = """
import importlib.util, sys
import torch
spec = importlib.util.spec_from_file_location("mpi_lib_v2", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
_LIMIT_SECONDS = 180.0


def loads(wheel: Path, python: Path, folder: Path, programs: Programs) -> None:
    """Load the compiled part beside the torch that it was built for; EnvironmentBuildError when it does not."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("horovod/torch/mpi_lib_v2")]
        if not names:
            raise EnvironmentBuildError("Horovod was built without its part for PyTorch")
        library = archive.extract(names[0], folder / "loaded")
    try:
        programs.run(str(python), "-c", _LOAD, library, limit=_LIMIT_SECONDS)
    except CommandFailed as error:
        last = next(iter(reversed(error.output.strip().splitlines())), str(error))
        raise EnvironmentBuildError(f"Horovod was built but does not load beside torch: {last}") from None


def install(wheel: Path, python: Path, programs: Programs) -> None:
    """Put a wheel, and what it needs when it runs, into an environment that has its torch."""
    from packaging.specifiers import SpecifierSet

    uv = programs.uv(wheel.parent)
    torch = inspect(python, programs).torch.partition("+")[0]
    uv.run("pip", "install", "--python", str(python), *runtime_requirements(SpecifierSet(f"=={torch}")))
    put(wheel, python, uv)


def put(wheel: Path, python: Path, uv: Uv) -> None:
    """Put a wheel alone into an environment that has all else."""
    # Through its folder, as if that were an index: `pip freeze` then says a version, not a path of this machine.
    place = ("--no-index", "--find-links", str(wheel.parent))
    fresh = ("--reinstall-package", "horovod", "--refresh-package", "horovod")
    uv.run("pip", "install", "--python", str(python), "--no-deps", *place, *fresh, f"horovod=={VERSION}")


def check_build(python: Path, runner: Runner, environ: Mapping[str, str] = os.environ) -> str:
    """Return what ``horovodrun --check-build`` of an environment prints."""
    command = (str(python.absolute()), "-m", "horovod.runner.launch", "--check-build")
    try:
        output = Programs(runner, environ).run(*command, limit=_LIMIT_SECONDS)
    except CommandFailed as error:
        last = next(iter(reversed(error.output.strip().splitlines())), str(error))
        raise EnvironmentBuildError(f"horovodrun --check-build fails: {last}") from None
    start = output.find("Horovod v")
    return output[max(start, 0) :].rstrip() + "\n"
