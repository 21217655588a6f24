"""``horovod check``: line by line, what a build would find."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.horovod import cuda
from mlflow_pytorch_estimator.horovod import wheels as kept
from mlflow_pytorch_estimator.horovod.environment import resolved
from mlflow_pytorch_estimator.horovod.inspection import Facts, inspect
from mlflow_pytorch_estimator.horovod.install import check_build
from mlflow_pytorch_estimator.horovod.mpi import find_mpi
from mlflow_pytorch_estimator.horovod.planning import Plan, plan
from mlflow_pytorch_estimator.horovod.toolchain import findings

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.horovod.options import Options
    from mlflow_pytorch_estimator.horovod.programs import Programs


def report(version: str | None, python: Path | None, options: Options, wheels: Path, programs: Programs) -> bool:
    """Print the findings; returns whether a wheel is there or could be built."""
    facts = inspect(python, programs) if python else None
    found = findings(facts, programs)
    for item in found:
        _line(item.name, item.problem or item.found)
    toolkits = cuda.toolkits(options, programs.environ)
    _line("CUDA toolkit", "; ".join(map(cuda.told, toolkits)) or "none")
    mpi = find_mpi(programs.environ)
    _line("MPI", f"{mpi.name} ({mpi.compiler})" if mpi else "none (no mpicxx)")
    wanted = _plan(version, facts, options, programs)
    if wanted is None:
        return False
    wheel = kept.find(wheels / wanted.key)
    _line("wheel", str(wheel) if wheel else f"not built yet ({wheels / wanted.key})")
    if facts is not None and python is not None and "horovod" in facts.locked:
        _line("installed", "")
        click.echo(check_build(python, programs.runner, programs.environ), nl=False)
    return wheel is not None or not any(item.problem for item in found)


def _plan(version: str | None, facts: Facts | None, options: Options, programs: Programs) -> Plan | None:
    try:
        if facts is None:
            with tempfile.TemporaryDirectory(prefix="horovod-") as folder:
                python, locked = resolved(version, Path(folder), programs)
        else:
            python, locked = facts.python, facts.locked
        wanted = plan(locked, python, options, programs.environ)
    except GpuClusterError as error:
        _line("would build", f"nothing: {error}")
        return None
    _line("PyTorch", f"{wanted.target.torch}, CUDA {wanted.target.torch_cuda or 'none'}")
    _line(
        "NCCL", f"{wanted.nccl.version} ({wanted.nccl.package or wanted.nccl.library})" if wanted.nccl else "not used"
    )
    _line("would build", wanted.describe())
    for notice in wanted.notices:
        _line("", notice)
    return wanted


def _line(name: str, text: str) -> None:
    click.echo(f"{name:<14}{text}".rstrip())
