"""Small compilations that tell whether CUDA toolkit and MPI work, before minutes are spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.horovod.inspection import Facts
    from mlflow_pytorch_estimator.horovod.planning import Plan
    from mlflow_pytorch_estimator.horovod.programs import Programs

_CUDA_SOURCE = """
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <nccl.h>
__global__ void twice(float* values) { values[threadIdx.x] *= 2; }
int version() { int number = 0; ncclGetVersion(&number); twice<<<1, 1>>>(nullptr); return number; }
"""
_MPI_SOURCE = "#include <mpi.h>\nint size() { int n = 0; MPI_Comm_size(MPI_COMM_WORLD, &n); return n; }\n"
_LIMIT_SECONDS = 300.0


def attainable(plan: Plan, compiler: str, facts: Facts, folder: Path, programs: Programs) -> Plan:
    """Return the plan without what does not work; EnvironmentBuildError where the user asked for it by name."""
    if plan.nccl:
        reason = _cuda_problem(plan, compiler, facts, folder, programs)
        if reason and plan.options.gpu == "nccl":
            raise EnvironmentBuildError(f"Horovod with NCCL cannot be built: {reason}")
        plan = plan.without_gpu(reason) if reason else plan
    if plan.mpi:
        source = folder / "mpi.cc"
        source.write_text(_MPI_SOURCE, encoding="utf-8")
        command = [str(plan.mpi.compiler), "-shared", "-fPIC", str(source), "-o", str(folder / "mpi.so")]
        reason = _problem(command, programs)
        if reason and plan.options.mpi:
            raise EnvironmentBuildError(f"Horovod with MPI cannot be built: {reason}")
        plan = plan.without_mpi(reason) if reason else plan
    return plan


def nccl_places(plan: Plan, facts: Facts, folder: Path) -> tuple[str, str]:
    """Return the folders of nccl.h and libnccl.so; for a package's NCCL, whose file has another name, one is made."""
    if plan.nccl is None or not plan.nccl.package:
        return (plan.nccl.include, plan.nccl.library) if plan.nccl else ("", "")
    link = folder / "nccl" / "libnccl.so"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(f"{facts.nccl}/lib/libnccl.so.2")
    return f"{facts.nccl}/include", str(link.parent)


def _cuda_problem(plan: Plan, compiler: str, facts: Facts, folder: Path, programs: Programs) -> str:
    if plan.toolkit is None:
        return ""
    source = folder / "cuda.cu"
    source.write_text(_CUDA_SOURCE, encoding="utf-8")
    include, library = nccl_places(plan, facts, folder)
    nvcc = str(plan.toolkit.home / "bin" / "nvcc")
    command = [nvcc, "-ccbin", compiler, "-shared", "-Xcompiler", "-fPIC", f"-I{include}", f"-L{library}", "-lnccl"]
    return _problem([*command, str(source), "-o", str(folder / "cuda.so")], programs)


def _problem(command: list[str], programs: Programs) -> str:
    try:
        programs.run(*command, limit=_LIMIT_SECONDS)
    except CommandFailed as error:
        lines = [line.strip() for line in error.output.splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else str(error))
        return f"a small program cannot be compiled with {command[0]}: {said}"
    except OSError as error:
        return f"{command[0]} cannot be run: {error.strerror}"
    return ""
